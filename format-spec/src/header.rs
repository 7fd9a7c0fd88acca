//! The 512-byte header in front of every segment (SPEC.md §segment-header).

use crate::cursor::Cursor;
use crate::error::{FormatError, Result};
use crate::frame::FRAME_PLAIN_BYTES_MAX;
use crate::ids::{DomainId, Epoch, Lsn, Role, Seq, TimeNs};
use crate::key::ObjectKey;
use std::ops::Range;

/// First bytes of a segment. Like PNG's: a byte that is not ASCII, a name, both line ends, the DOS end of file.
pub const SEGMENT_MAGIC: [u8; 8] = *b"\x89TLF\r\n\x1a\n";
/// Bytes of the header.
pub const HEADER_BYTES: usize = 512;
/// Major version of the format.
pub const MAJOR: u16 = 1;
/// Minor version of the format.
pub const MINOR: u16 = 0;
/// Largest object in bytes (SPEC.md §limits): a single PUT everywhere, never multipart.
pub const OBJECT_BYTES_MAX: u64 = 256 << 20;
/// Most rows of one segment (SPEC.md §limits): bounds the time that a hostile index takes to check.
pub const ROWS_MAX: u64 = 1 << 24;
/// Default tick of segment times: a millisecond, in nanoseconds.
pub const TICK_NS_DEFAULT: u32 = 1_000_000;

/// Offset of the section table.
const TABLE_AT: usize = 248;
/// Slots of the section table.
const TABLE_SLOTS: usize = 7;
const META_HASH_AT: usize = 416;
const HEADER_HASH_AT: usize = 448;
const MAC_AT: usize = 480;
const _: () = assert!(TABLE_AT + TABLE_SLOTS * 24 == META_HASH_AT && MAC_AT + 32 == HEADER_BYTES);

/// Read feature bits that this codec understands: none are defined in minor version 0.
pub const KNOWN_READ_FEATURES: u64 = 0;

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// A run of the log.
    Log,
    /// LBA-sorted data named by a SEED_EXTENT event.
    Base,
    /// Where a predecessor's log ends and this epoch's begins.
    Cut,
    /// What retained points need of a part of the log, in place of the segments that held it.
    Compact,
}

impl SegmentKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Base => 2,
            Self::Cut => 3,
            Self::Compact => 4,
        }
    }
    /// One word for tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Base => "base",
            Self::Cut => "cut",
            Self::Compact => "compact",
        }
    }
}

/// Which segment this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentIdentity {
    /// The domain.
    pub domain: DomainId,
    /// What it is for.
    pub kind: SegmentKind,
    /// Who wrote it.
    pub role: Role,
    /// That role's epoch.
    pub epoch: Epoch,
    /// Position in that epoch.
    pub seq: Seq,
}

impl SegmentIdentity {
    /// The only key under which the segment may lie.
    pub const fn key(&self) -> ObjectKey {
        let Self { role, epoch, seq, .. } = *self;
        match self.kind {
            SegmentKind::Log | SegmentKind::Cut => ObjectKey::Log { epoch, seq },
            SegmentKind::Base | SegmentKind::Compact => ObjectKey::Base { role, epoch, seq },
        }
    }
}

/// What a reader knows of an object before it reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The domain that the object must belong to.
    pub domain: DomainId,
    /// The key that it was read from.
    pub key: ObjectKey,
}

/// The four feature masks: what an unknown bit forbids (SPEC.md §versions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features {
    /// Reading.
    pub read: u64,
    /// Writing.
    pub write: u64,
    /// Deleting.
    pub gc: u64,
    /// Nothing.
    pub compat: u64,
}

/// A decoded segment header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Minor version of the writer.
    pub minor: u16,
    /// Feature masks.
    pub features: Features,
    /// Which segment this is.
    pub identity: SegmentIdentity,
    /// Length of the object in bytes.
    pub total_len: u64,
    /// First LSN. A CUT spans no LSN: its first is the epoch's next, its last one less.
    pub first_lsn: Lsn,
    /// Last LSN.
    pub last_lsn: Lsn,
    /// Time of the first LSN.
    pub first_time: TimeNs,
    /// Time of the last LSN.
    pub last_time: TimeNs,
    /// Highest LSN that was acknowledged when the segment was sealed; 0 in a CUT, which proves nothing.
    pub acked_through: Lsn,
    /// Rows of INDEX.
    pub row_count: u64,
    /// Bytes in front of DATA: header and sections.
    pub head_len: u64,
    /// Bytes of DATA.
    pub data_len: u64,
    /// Plaintext of DATA in blocks.
    pub stream_blocks: u64,
    /// Frames of DATA.
    pub frame_count: u32,
    /// Resolution of times in nanoseconds.
    pub tick_ns: u32,
    /// Random bytes, different in every object.
    pub salt: [u8; 32],
    /// Header hash of the segment before this one; zeros if there is none.
    pub prev_header_hash: [u8; 32],
    /// BLAKE3 of the bytes between header and DATA.
    pub meta_hash: [u8; 32],
    /// BLAKE3 of the first 448 bytes of the header: the name of the segment in chains and references.
    pub header_hash: [u8; 32],
    pub(crate) sections: [Section; TABLE_SLOTS],
}

/// One slot of the section table; all zero if unused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) id: u16,
    pub(crate) critical: bool,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

pub(crate) const SECTION_INDEX: u16 = 1;
pub(crate) const SECTION_FRAMEDIR: u16 = 2;
pub(crate) const SECTION_TIMES: u16 = 3;
pub(crate) const SECTION_EVENTS: u16 = 4;
pub(crate) const SECTION_CUT: u16 = 5;
const KNOWN_SECTIONS: [u16; 5] = [SECTION_INDEX, SECTION_FRAMEDIR, SECTION_TIMES, SECTION_EVENTS, SECTION_CUT];

/// BLAKE3 of `bytes`.
pub(crate) fn hash32(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

impl SegmentHeader {
    /// The header as 512 bytes, its hash computed anew and put into `header_hash`.
    pub(crate) fn encode(&mut self) -> [u8; HEADER_BYTES] {
        let id = &self.identity;
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&MAJOR.to_le_bytes());
        out.extend_from_slice(&self.minor.to_le_bytes());
        let role = match id.role {
            Role::Writer => 1,
            Role::Maintenance => 2,
        };
        // Granularity 1: every version is kept. Hash 1: BLAKE3.
        out.extend_from_slice(&[id.kind.code(), role, 1, 1]);
        let Features { read, write, gc, compat } = self.features;
        for mask in [read, write, gc, compat] {
            out.extend_from_slice(&mask.to_le_bytes());
        }
        out.extend_from_slice(&id.domain.bytes());
        for number in [
            id.epoch.get(),
            id.seq.get(),
            self.total_len,
            self.first_lsn.get(),
            self.last_lsn.get(),
            self.first_time.get(),
            self.last_time.get(),
            self.acked_through.get(),
            self.row_count,
            self.head_len,
            self.data_len,
            self.stream_blocks,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        // No key generation, no AEAD: reserved for encrypted domains.
        for number in [self.frame_count, FRAME_PLAIN_BYTES_MAX, self.tick_ns, 0, 0, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.prev_header_hash);
        for section in &self.sections {
            out.extend_from_slice(&section.id.to_le_bytes());
            out.extend_from_slice(&u16::from(section.critical).to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&section.offset.to_le_bytes());
            out.extend_from_slice(&section.len.to_le_bytes());
        }
        out.extend_from_slice(&self.meta_hash);
        debug_assert_eq!(out.len(), HEADER_HASH_AT);
        self.header_hash = hash32(&out);
        out.extend_from_slice(&self.header_hash);
        out.extend_from_slice(&[0; 32]);
        out.try_into().expect("the fields above sum up to 512 bytes")
    }

    /// Reads the first 512 bytes of a segment.
    ///
    /// # Errors
    /// `TooShort`, `Magic`, `Major`, `HeaderHash`, `ReadFeatures`, `HeaderField` or `SectionTable`, checked in this order.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let what = "segment header";
        let Some(bytes) = bytes.get(..HEADER_BYTES) else {
            return Err(FormatError::TooShort { what, need: HEADER_BYTES as u64, have: bytes.len() as u64 });
        };
        let mut from = Cursor::new(what, bytes);
        //= SPEC.md#segment-header
        //# H-1
        if from.array()? != SEGMENT_MAGIC {
            return Err(FormatError::Magic { what: "segment" });
        }
        let (major, minor) = (from.u16()?, from.u16()?);
        //= SPEC.md#versions
        //# V-1
        if major != MAJOR {
            return Err(FormatError::Major { what: "segment", found: major.into(), known: MAJOR.into() });
        }
        let computed = hash32(&bytes[..HEADER_HASH_AT]);
        //= SPEC.md#segment-header
        //# H-2
        if bytes[HEADER_HASH_AT..MAC_AT] != computed {
            return Err(FormatError::header_hash(&bytes[HEADER_HASH_AT..MAC_AT], &computed));
        }
        let field = |field, value: u64| FormatError::HeaderField { field, value };
        let (kind, role, granularity, hash) = (from.u8()?, from.u8()?, from.u8()?, from.u8()?);
        let features = Features { read: from.u64()?, write: from.u64()?, gc: from.u64()?, compat: from.u64()? };
        //= SPEC.md#versions
        //# V-2
        if features.read & !KNOWN_READ_FEATURES != 0 {
            return Err(FormatError::ReadFeatures { bits: features.read & !KNOWN_READ_FEATURES });
        }
        let kind = match kind {
            1 => SegmentKind::Log,
            2 => SegmentKind::Base,
            3 => SegmentKind::Cut,
            4 => SegmentKind::Compact,
            other => return Err(field("kind", other.into())),
        };
        let role = match role {
            1 => Role::Writer,
            2 => Role::Maintenance,
            other => return Err(field("role", other.into())),
        };
        if granularity != 1 {
            return Err(field("granularity", granularity.into()));
        }
        if hash != 1 {
            return Err(field("hash_algorithm", hash.into()));
        }
        let domain = DomainId::new(from.array()?);
        let identity =
            SegmentIdentity { domain, kind, role, epoch: Epoch::new(from.u64()?), seq: Seq::new(from.u64()?) };
        let mut header = Self {
            minor,
            features,
            identity,
            total_len: from.u64()?,
            first_lsn: Lsn::new(from.u64()?),
            last_lsn: Lsn::new(from.u64()?),
            first_time: TimeNs::new(from.u64()?),
            last_time: TimeNs::new(from.u64()?),
            acked_through: Lsn::new(from.u64()?),
            row_count: from.u64()?,
            head_len: from.u64()?,
            data_len: from.u64()?,
            stream_blocks: from.u64()?,
            frame_count: from.u32()?,
            tick_ns: 0,
            salt: [0; 32],
            prev_header_hash: [0; 32],
            meta_hash: [0; 32],
            header_hash: computed,
            sections: Default::default(),
        };
        let frame_plain_max = from.u32()?;
        if frame_plain_max != FRAME_PLAIN_BYTES_MAX {
            return Err(field("frame_plain_max", frame_plain_max.into()));
        }
        header.tick_ns = from.u32()?;
        let (key_generation, aead_and_reserved) = (from.u32()?, from.u64()?);
        if key_generation != 0 {
            return Err(field("key_generation", key_generation.into()));
        }
        if aead_and_reserved != 0 {
            return Err(field("aead", aead_and_reserved));
        }
        header.salt = from.array()?;
        header.prev_header_hash = from.array()?;
        for slot in &mut header.sections {
            let (id, flags, reserved) = (from.u16()?, from.u16()?, from.u32()?);
            if flags > 1 || reserved != 0 {
                return Err(FormatError::SectionTable { why: "unknown flags, or reserved bytes are not zero" });
            }
            *slot = Section { id, critical: flags == 1, offset: from.u64()?, len: from.u64()? };
        }
        header.meta_hash = from.array()?;
        if bytes[MAC_AT..].iter().any(|&b| b != 0) {
            return Err(field("header_mac", 1));
        }
        header.check_ranges()?;
        header.check_sections()?;
        Ok(header)
    }

    //= SPEC.md#segment-header
    //# H-5
    fn check_ranges(&self) -> Result<()> {
        let field = |field, value: u64| Err(FormatError::HeaderField { field, value });
        let SegmentIdentity { kind, role, epoch, seq, .. } = self.identity;
        if epoch.get() == 0 {
            return field("epoch", 0);
        }
        match kind {
            //= SPEC.md#cut
            //# C-1
            SegmentKind::Cut if seq.get() != 0 => return field("seq", seq.get()),
            SegmentKind::Log | SegmentKind::Compact if seq.get() == 0 => return field("seq", 0),
            SegmentKind::Compact if role != Role::Maintenance => return field("role", 1),
            SegmentKind::Log | SegmentKind::Cut if role != Role::Writer => return field("role", 2),
            _ => {}
        }
        //= SPEC.md#limits
        //# L-1
        if self.total_len > OBJECT_BYTES_MAX {
            return field("total_len", self.total_len);
        }
        if self.head_len < HEADER_BYTES as u64 || self.head_len.checked_add(self.data_len) != Some(self.total_len) {
            return field("head_len", self.head_len);
        }
        if self.row_count > ROWS_MAX {
            return field("row_count", self.row_count);
        }
        if self.first_lsn == Lsn::ZERO {
            return field("first_lsn", 0);
        }
        let lsn_ok = match kind {
            SegmentKind::Cut => self.last_lsn.checked_next() == Some(self.first_lsn),
            SegmentKind::Log | SegmentKind::Compact => self.first_lsn <= self.last_lsn,
            SegmentKind::Base => self.first_lsn == self.last_lsn,
        };
        if !lsn_ok {
            return field("last_lsn", self.last_lsn.get());
        }
        if self.tick_ns == 0 || !self.first_time.get().is_multiple_of(self.tick_ns.into()) {
            return field("tick_ns", self.tick_ns.into());
        }
        //= SPEC.md#times
        //# T-1
        if self.last_time < self.first_time || !self.last_time.get().is_multiple_of(self.tick_ns.into()) {
            return field("last_time_ns", self.last_time.get());
        }
        let acked_ok = match kind {
            //= SPEC.md#cut
            //# C-4
            SegmentKind::Cut | SegmentKind::Compact => self.acked_through == Lsn::ZERO,
            SegmentKind::Log | SegmentKind::Base => self.acked_through < self.first_lsn,
        };
        if !acked_ok {
            return field("acked_through", self.acked_through.get());
        }
        if matches!(kind, SegmentKind::Base | SegmentKind::Compact) && self.prev_header_hash != [0; 32] {
            return field("prev_header_hash", 1);
        }
        Ok(())
    }

    fn check_sections(&self) -> Result<()> {
        let bad = |why| Err(FormatError::SectionTable { why });
        let mut at = HEADER_BYTES as u64;
        let mut last_id = 0;
        let used = self.sections.iter().take_while(|s| s.id != 0).count();
        if self.sections[used..].iter().any(|s| *s != Section::default()) {
            return bad("slot in use behind an unused one");
        }
        for section in &self.sections[..used] {
            //= SPEC.md#segment-header
            //# H-4
            if section.id <= last_id {
                return bad("ids do not ascend");
            }
            last_id = section.id;
            if section.offset != at {
                return bad("sections are not contiguous");
            }
            at = match at.checked_add(section.len) {
                Some(end) if end <= self.head_len => end,
                _ => return bad("section reaches beyond the head"),
            };
            //= SPEC.md#versions
            //# V-3
            if section.critical && !KNOWN_SECTIONS.contains(&section.id) {
                return Err(FormatError::UnknownCriticalSection { id: section.id });
            }
        }
        if at == self.head_len { Ok(()) } else { bad("sections do not fill the head") }
    }

    /// Checks that this is the object that the reader asked for.
    ///
    /// # Errors
    /// `WrongDomain` or `Misplaced`.
    pub fn check_identity(&self, expect: &Expect) -> Result<()> {
        let found = self.identity;
        //= SPEC.md#reader-rules
        //#
        if found.domain != expect.domain {
            return Err(FormatError::WrongDomain { found: found.domain, expected: expect.domain });
        }
        if found.key() != expect.key {
            return Err(FormatError::Misplaced { found: found.key().to_string(), expected: expect.key });
        }
        Ok(())
    }

    /// Bytes of the object in front of DATA.
    pub fn head_len(&self) -> u64 {
        self.head_len
    }

    pub(crate) fn section(&self, id: u16) -> Option<Range<usize>> {
        let section = self.sections.iter().find(|s| s.id == id)?;
        Some(section.offset as usize..(section.offset + section.len) as usize)
    }
}
