//! Logs of block writes as Linux' dm-log-writes and QEMU's blklogwrites record them (one format), read and written.
//!
//! A log is a super sector, then entries of one sector each, followed by the entry's data. Numbers are little endian; the
//! unit of every address is the log's own sector. It has no times: an import chooses them.
//! Invariants: memory is bounded by the longest entry, whatever the log claims; a length is believed only as far as bytes
//! arrive; what is refused is named with its entry, the bound and the value.
//! Not here: what an entry becomes in a domain (`commands/ingest`).

mod read;
mod write;

pub use read::{LogError, LogReader, Survey};
pub use write::{LogWriter, Run, encode, encode_entry};

use bytes::Bytes;
use tidemark_format::{BLOCK_BYTES, DISK_BLOCKS_MAX};

/// First number of a log.
pub const MAGIC: u64 = 0x006a_7366_7773_6872;
/// The one version there is.
pub const VERSION: u64 = 1;
/// Bytes of an entry's fixed fields; the text of a mark follows them in the same sector.
pub const ENTRY_BYTES: usize = 32;
/// Smallest sector of a log.
pub const SECTOR_BYTES_MIN: u32 = 512;
/// Largest sector of a log: no disk has larger ones.
pub const SECTOR_BYTES_MAX: u32 = 64 << 10;
/// Longest data of one entry. QEMU cuts requests at 32 MiB, the kernel far below.
pub const ENTRY_DATA_BYTES_MAX: u64 = 32 << 20;
/// Largest disk that a log may speak of: the format's own bound.
pub const DISK_BYTES_MAX: u64 = DISK_BLOCKS_MAX * BLOCK_BYTES;

/// What an entry says about itself, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u64);

impl Flags {
    /// A plain write.
    pub const NONE: Self = Self(0);
    /// Everything that completed before is durable from here on.
    pub const FLUSH: Self = Self(1);
    /// This write is durable when it completes.
    pub const FUA: Self = Self(2);
    /// The range is discarded; no data follows.
    pub const DISCARD: Self = Self(4);
    /// A named position; its name stands in the entry's sector.
    pub const MARK: Self = Self(8);
    /// The write was a file system's metadata. A hint.
    pub const METADATA: Self = Self(16);
    const KNOWN: u64 = 31;

    /// The flags of a number; `None` if one of them is unknown, since then nobody knows what follows the entry.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits & !Self::KNOWN == 0 { Some(Self(bits)) } else { None }
    }
    /// The number.
    pub const fn bits(self) -> u64 {
        self.0
    }
    /// True if every flag of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One entry of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub flags: Flags,
    /// First byte on the disk.
    pub offset_bytes: u64,
    /// Bytes on the disk; 0 for a bare flush or a mark.
    pub len_bytes: u64,
    /// The name of a mark.
    pub mark: Option<String>,
    /// What was written: `len_bytes` of it, or nothing for a discard.
    pub data: Bytes,
}

impl Entry {
    /// A write.
    pub fn write(offset_bytes: u64, data: impl Into<Bytes>) -> Self {
        let data = data.into();
        Self { offset_bytes, len_bytes: data.len() as u64, data, ..Self::default() }
    }
    /// A discard.
    pub fn discard(offset_bytes: u64, len_bytes: u64) -> Self {
        Self { flags: Flags::DISCARD, offset_bytes, len_bytes, ..Self::default() }
    }
    /// A flush.
    pub fn flush() -> Self {
        Self { flags: Flags::FLUSH, ..Self::default() }
    }
    /// A mark.
    pub fn mark(name: &str) -> Self {
        Self { flags: Flags::MARK, mark: Some(name.to_owned()), ..Self::default() }
    }
    /// The same entry with more flags.
    pub fn with(mut self, flags: Flags) -> Self {
        self.flags = self.flags.and(flags);
        self
    }
    /// One past the last byte that it touches.
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes.saturating_add(self.len_bytes)
    }
}
