//! The numbers that name things: positions, epochs, disks, domains, times.
//!
//! All are newtypes with a private field, so that an LSN can never be passed where an epoch is meant.

use std::fmt;
use std::str::FromStr;

/// Bytes in one block, the unit of every address and length in the format (SPEC.md §blocks).
pub const BLOCK_BYTES: u64 = 512;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a raw number.
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }
            /// The raw number.
            pub const fn get(self) -> u64 {
                self.0
            }
            /// The successor, or `None` at the end of the number range.
            pub const fn checked_next(self) -> Option<Self> {
                match self.0.checked_add(1) {
                    Some(n) => Some(Self(n)),
                    None => None,
                }
            }
            /// The successor.
            ///
            /// # Panics
            /// At 2^64: no domain lives long enough to get there. Use [`Self::checked_next`] on untrusted numbers.
            pub const fn next(self) -> Self {
                self.checked_next().expect("2^64 steps are beyond any domain's life")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// Position of one guest write or event in its domain's total order. Dense: the next is +1, on whichever disk.
    /// 0 means "before the first": the first LSN of a domain is 1.
    Lsn
}
number! {
    /// Ownership period of one role of a domain; strictly increasing. The first epoch is 1.
    Epoch
}
number! {
    /// Position of an object within its epoch. In the log, 0 is the epoch's CUT.
    Seq
}

impl Lsn {
    /// Before the first write of a domain.
    pub const ZERO: Self = Self(0);

    /// How many LSNs lie in `self..=last`; 0 if `last` is before `self`.
    pub const fn count_to(self, last: Self) -> u64 {
        if last.0 < self.0 { 0 } else { (last.0 - self.0).saturating_add(1) }
    }
}

/// A disk, unique within its domain and never reused. The first disk is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(u32);

impl DiskId {
    /// Wraps a raw number.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }
    /// The raw number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Nanoseconds since 1970-01-01T00:00:00Z without leap seconds, monotone within a domain (SPEC.md §time).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeNs(u64);

impl TimeNs {
    /// Wraps nanoseconds since the Unix epoch.
    pub const fn new(ns: u64) -> Self {
        Self(ns)
    }
    /// Nanoseconds since the Unix epoch.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The random 128-bit name of a protected domain, written as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId([u8; 16]);

impl DomainId {
    /// Wraps 16 bytes in the order in which a UUID is written.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
    /// The 16 bytes in the order in which a UUID is written.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DomainId({self})")
    }
}

impl FromStr for DomainId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName { what: "domain id", text: crate::text::shorten(text) };
        let raw = text.as_bytes();
        if raw.len() != 36 || [8, 13, 18, 23].iter().any(|&i| raw[i] != b'-') {
            return Err(bad());
        }
        let digits: Vec<u8> = raw.iter().copied().filter(|&b| b != b'-').collect();
        let bytes = crate::text::unhex(&digits).ok_or_else(bad)?;
        Ok(Self(bytes.try_into().map_err(|_| bad())?))
    }
}

/// Who owns an epoch (SPEC.md §roles).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Appends guest writes to the log.
    Writer,
    /// Builds indexes and deletes what no retained point needs.
    Maintenance,
}

impl Role {
    /// The letter that stands for the role in keys.
    pub const fn letter(self) -> char {
        match self {
            Self::Writer => 'w',
            Self::Maintenance => 'm',
        }
    }
    /// The word that stands for the role in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Maintenance => "maintenance",
        }
    }
    /// The role of a word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Writer, Self::Maintenance].into_iter().find(|role| role.name() == name)
    }
}

/// A run of blocks of one disk: `start..start + len`, in blocks of [`BLOCK_BYTES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// First block.
    pub start: u64,
    /// Number of blocks.
    pub len: u64,
}

impl Extent {
    /// An extent of `len` blocks from `start`.
    pub const fn new(start: u64, len: u64) -> Self {
        Self { start, len }
    }
    /// One past the last block, saturating at 2^64 - 1.
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }
    /// True if the two share a block.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
    /// The shared blocks, if any.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        (start < end).then(|| Self::new(start, end - start))
    }
    /// Length in bytes, saturating.
    pub const fn byte_len(self) -> u64 {
        self.len.saturating_mul(BLOCK_BYTES)
    }
    /// Byte offset of the first block, saturating.
    pub const fn byte_start(self) -> u64 {
        self.start.saturating_mul(BLOCK_BYTES)
    }
    /// The extent that covers a byte range, or `None` if either end is not on a block edge.
    pub fn from_bytes(offset: u64, len: u64) -> Option<Self> {
        (offset.is_multiple_of(BLOCK_BYTES) && len.is_multiple_of(BLOCK_BYTES))
            .then(|| Self::new(offset / BLOCK_BYTES, len / BLOCK_BYTES))
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start, self.len)
    }
}

/// A piece of text that does not name what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}")]
pub struct BadName {
    /// What was expected.
    pub what: &'static str,
    /// The text, shortened.
    pub text: String,
}
