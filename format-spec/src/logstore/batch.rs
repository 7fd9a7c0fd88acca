//! Batches: runs of records that became durable together (LOGSTORE.md §batches).
//!
//! A batch is a header, a descriptor for each record, the records' data back to back, and zeros up to a whole page. The
//! header's checksum covers header and descriptors, a descriptor has the checksum of its data; so every byte that means
//! something is under one. Each header has the checksum of the one before: batches form a chain.

use super::label::MAJOR;
use super::{BatchSeq, EXTENT_BYTES_MAX, Incarnation, LunId, PAGE_BYTES, crc32c, pages_of};
use crate::cursor::Cursor;
use crate::error::{FormatError, Result};
use crate::ids::{BLOCK_BYTES, DiskId, DomainId, Extent, Lsn, TimeNs};
use crate::index::DISK_BLOCKS_MAX;
use std::ops::Range;

const MAGIC: [u8; 8] = *b"\x89TLB\r\n\x1a\n";
const WHAT: &str = "log store batch";
/// Bytes in front of the descriptors.
pub const BATCH_HEADER_BYTES: usize = 128;
/// Bytes of a descriptor.
pub const RECORD_DESCRIPTOR_BYTES: usize = 48;
const CRC_AT: usize = 124;

/// Which log a batch belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchIdentity {
    /// The LUN.
    pub lun: LunId,
    /// The domain.
    pub domain: DomainId,
    /// The life of the domain's log.
    pub incarnation: Incarnation,
}

/// Where a batch stands in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchChain {
    /// Its number.
    pub seq: BatchSeq,
    /// LSN of its first record.
    pub first_lsn: Lsn,
    /// Chain value of the batch before, 0 if there was none.
    pub prev_crc: u32,
}

/// The fixed part of a batch's header, as found: nothing but its magic number and version has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// Which log.
    pub identity: BatchIdentity,
    /// Where in it.
    pub chain: BatchChain,
    /// How many records.
    pub records: u32,
    /// Bytes of their data.
    pub data_bytes: u64,
    /// Checksum of header and descriptors: the chain value of this batch.
    pub head_crc: u32,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// The guest wrote data.
    Write,
    /// The guest wrote zeros.
    Zero,
    /// The guest gave blocks back; they read as zeros.
    Unmap,
    /// An event; its data is the event in CBOR.
    Event,
}

/// A record without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRecord {
    /// Its position.
    pub lsn: Lsn,
    /// Its time.
    pub time: TimeNs,
    /// What it is.
    pub kind: RecordKind,
    /// The disk; 0 for an event.
    pub disk: DiskId,
    /// The blocks; none for an event.
    pub extent: Extent,
    /// Bytes of its data.
    pub data_bytes: u32,
    /// CRC-32C of its data; 0 if it has none.
    pub data_crc: u32,
}

/// A batch's header and descriptors, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// The fixed part.
    pub preamble: Preamble,
    /// The records, in LSN order. Never empty.
    pub records: Vec<BatchRecord>,
}

/// Bytes of a batch on the LUN, in whole pages.
pub const fn batch_bytes(records: u64, data_bytes: u64) -> u64 {
    let head = (BATCH_HEADER_BYTES as u64).saturating_add(records.saturating_mul(RECORD_DESCRIPTOR_BYTES as u64));
    pages_of(head.saturating_add(data_bytes)).saturating_mul(PAGE_BYTES)
}

impl Preamble {
    /// Reads the fixed part of a header, and believes it.
    ///
    /// # Errors
    /// `TooShort`, `Magic` or `Major`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = Cursor::new(WHAT, bytes);
        if from.array()? != MAGIC {
            return Err(FormatError::Magic { what: WHAT });
        }
        let (major, _minor) = (from.u16()?, from.u16()?);
        if major != MAJOR {
            return Err(FormatError::Major { what: WHAT, found: major.into(), known: MAJOR.into() });
        }
        let records = from.u32()?;
        let identity = BatchIdentity {
            lun: LunId::new(from.array()?),
            domain: DomainId::new(from.array()?),
            incarnation: Incarnation::new(from.array()?),
        };
        let (seq, first_lsn) = (BatchSeq::new(from.u64()?), Lsn::new(from.u64()?));
        let (data_bytes, prev_crc) = (from.u64()?, from.u32()?);
        from.take(CRC_AT - 92)?;
        let chain = BatchChain { seq, first_lsn, prev_crc };
        Ok(Self { identity, chain, records, data_bytes, head_crc: from.u32()? })
    }

    /// Bytes of header and descriptors.
    pub const fn head_bytes(&self) -> u64 {
        BATCH_HEADER_BYTES as u64 + self.records as u64 * RECORD_DESCRIPTOR_BYTES as u64
    }
    /// Bytes of the batch on the LUN, in whole pages. Untrusted: it may be anything.
    pub const fn batch_bytes(&self) -> u64 {
        batch_bytes(self.records as u64, self.data_bytes)
    }
}

impl BatchHead {
    /// Reads header and descriptors and checks them; `bytes` may go on behind them.
    ///
    /// # Errors
    /// As [`Preamble::decode`], and `RecordHash`, `HeaderField`, `NotDense`, `Times` or `Mismatch`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let preamble = Preamble::decode(bytes)?;
        //= LOGSTORE.md#batches
        //# LB-2
        if preamble.records == 0 {
            return Err(FormatError::HeaderField { field: "records", value: 0 });
        }
        if preamble.batch_bytes() > EXTENT_BYTES_MAX {
            return Err(FormatError::HeaderField { field: "data_bytes", value: preamble.data_bytes });
        }
        let (need, have) = (preamble.head_bytes(), bytes.len() as u64);
        let head = bytes.get(..need as usize).ok_or(FormatError::TooShort { what: WHAT, need, have })?;
        //= LOGSTORE.md#batches
        //# LB-1
        if head_crc(head) != preamble.head_crc {
            return Err(FormatError::RecordHash { what: WHAT });
        }
        let mut records = Vec::with_capacity(preamble.records as usize);
        let mut lsn = preamble.chain.first_lsn;
        let mut time = TimeNs::new(0);
        let mut data_bytes = 0u64;
        for bytes in head[BATCH_HEADER_BYTES..].chunks_exact(RECORD_DESCRIPTOR_BYTES) {
            let record = BatchRecord::decode(bytes)?;
            //= LOGSTORE.md#records
            //# LR-1
            if record.lsn != lsn || lsn == Lsn::ZERO {
                return Err(FormatError::NotDense { lsn: record.lsn, why: "does not follow the record before" });
            }
            lsn = lsn.checked_next().ok_or(FormatError::NotDense { lsn, why: "is the last number there is" })?;
            //= LOGSTORE.md#records
            //# LR-2
            if record.time < time {
                return Err(FormatError::Times { why: "time goes back within a batch" });
            }
            time = record.time;
            data_bytes += u64::from(record.data_bytes);
            records.push(record);
        }
        //= LOGSTORE.md#batches
        //# LB-3
        if data_bytes != preamble.data_bytes {
            let what = "data of records and data_bytes of their batch";
            return Err(FormatError::Mismatch { what, left: data_bytes, right: preamble.data_bytes });
        }
        Ok(Self { preamble, records })
    }

    /// LSN of the last record.
    pub fn last_lsn(&self) -> Lsn {
        self.records.last().expect("a batch has a record").lsn
    }
    /// Time of the last record.
    pub fn last_time(&self) -> TimeNs {
        self.records.last().expect("a batch has a record").time
    }

    /// Each record and where in the batch its data lies.
    pub fn placed(&self) -> impl Iterator<Item = (&BatchRecord, Range<usize>)> {
        let mut at = self.preamble.head_bytes() as usize;
        self.records.iter().map(move |record| {
            let start = at;
            at += record.data_bytes as usize;
            (record, start..at)
        })
    }

    /// Checks the data of all records; `bytes` is the batch from its header on.
    ///
    /// # Errors
    /// `TooShort`, or `RecordHash`.
    pub fn check_data(&self, bytes: &[u8]) -> Result<()> {
        for (record, range) in self.placed() {
            let (need, have) = (range.end as u64, bytes.len() as u64);
            let data = bytes.get(range).ok_or(FormatError::TooShort { what: WHAT, need, have })?;
            //= LOGSTORE.md#records
            //# LR-3
            if record.data_bytes > 0 && crc32c(data) != record.data_crc {
                return Err(FormatError::RecordHash { what: "log store record" });
            }
        }
        Ok(())
    }
}

impl BatchRecord {
    //= LOGSTORE.md#records
    //# LR-4
    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = Cursor::new(WHAT, bytes);
        let (lsn, time) = (Lsn::new(from.u64()?), TimeNs::new(from.u64()?));
        let extent = Extent::new(from.u64()?, from.u64()?);
        let (disk, data_bytes, data_crc) = (DiskId::new(from.u32()?), from.u32()?, from.u32()?);
        let kind = match from.u8()? {
            1 => RecordKind::Write,
            2 => RecordKind::Zero,
            3 => RecordKind::Unmap,
            4 => RecordKind::Event,
            other => return Err(FormatError::HeaderField { field: "record_kind", value: other.into() }),
        };
        let record = Self { lsn, time, kind, disk, extent, data_bytes, data_crc };
        record.check()?;
        Ok(record)
    }

    /// Checks one record on its own.
    ///
    /// # Errors
    /// `HeaderField` names the field that breaks a rule.
    pub fn check(&self) -> Result<()> {
        let bad = |field, value| Err(FormatError::HeaderField { field, value });
        let Self { kind, disk, extent, data_bytes, data_crc, .. } = *self;
        if kind == RecordKind::Event {
            return match (disk.get(), extent.start, extent.len, data_bytes) {
                (0, 0, 0, 1..) => Ok(()),
                (0, 0, 0, 0) => bad("record_data_bytes", 0),
                (0, ..) => bad("record_extent", extent.start),
                _ => bad("record_disk", disk.get().into()),
            };
        }
        if extent.len == 0 || extent.start.checked_add(extent.len).is_none_or(|end| end > DISK_BLOCKS_MAX) {
            return bad("record_extent", extent.start);
        }
        match kind {
            RecordKind::Write if extent.len.checked_mul(BLOCK_BYTES) == Some(data_bytes.into()) => Ok(()),
            RecordKind::Write => bad("record_data_bytes", data_bytes.into()),
            _ if data_bytes == 0 && data_crc == 0 => Ok(()),
            _ => bad("record_data_bytes", data_bytes.into()),
        }
    }

    const fn code(kind: RecordKind) -> u8 {
        match kind {
            RecordKind::Write => 1,
            RecordKind::Zero => 2,
            RecordKind::Unmap => 3,
            RecordKind::Event => 4,
        }
    }
}

/// Over header and descriptors, without the checksum itself.
fn head_crc(head: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&head[..CRC_AT]);
    digest.update(&head[BATCH_HEADER_BYTES..]);
    digest.finalize() as u32
}

/// Writes header and descriptors to the front of `out` and returns the chain value.
///
/// # Panics
/// If `out` is too short for them.
pub fn put_batch_head(
    out: &mut [u8],
    identity: &BatchIdentity,
    chain: &BatchChain,
    records: impl Iterator<Item = BatchRecord>,
) -> u32 {
    let mut at = BATCH_HEADER_BYTES;
    let (mut count, mut data_bytes) = (0u32, 0u64);
    for record in records {
        let out = &mut out[at..at + RECORD_DESCRIPTOR_BYTES];
        out[0..8].copy_from_slice(&record.lsn.get().to_le_bytes());
        out[8..16].copy_from_slice(&record.time.get().to_le_bytes());
        out[16..24].copy_from_slice(&record.extent.start.to_le_bytes());
        out[24..32].copy_from_slice(&record.extent.len.to_le_bytes());
        out[32..36].copy_from_slice(&record.disk.get().to_le_bytes());
        out[36..40].copy_from_slice(&record.data_bytes.to_le_bytes());
        out[40..44].copy_from_slice(&record.data_crc.to_le_bytes());
        out[44..48].copy_from_slice(&[BatchRecord::code(record.kind), 0, 0, 0]);
        at += RECORD_DESCRIPTOR_BYTES;
        count += 1;
        data_bytes += u64::from(record.data_bytes);
    }
    let head = &mut out[..at];
    head[0..8].copy_from_slice(&MAGIC);
    head[8..10].copy_from_slice(&MAJOR.to_le_bytes());
    head[10..12].fill(0);
    head[12..16].copy_from_slice(&count.to_le_bytes());
    head[16..32].copy_from_slice(&identity.lun.bytes());
    head[32..48].copy_from_slice(&identity.domain.bytes());
    head[48..64].copy_from_slice(&identity.incarnation.bytes());
    head[64..72].copy_from_slice(&chain.seq.get().to_le_bytes());
    head[72..80].copy_from_slice(&chain.first_lsn.get().to_le_bytes());
    head[80..88].copy_from_slice(&data_bytes.to_le_bytes());
    head[88..92].copy_from_slice(&chain.prev_crc.to_le_bytes());
    head[92..CRC_AT].fill(0);
    let crc = head_crc(head);
    head[CRC_AT..BATCH_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// A whole batch of records and their data, in whole pages.
pub fn encode_batch(identity: &BatchIdentity, chain: &BatchChain, records: &[(BatchRecord, &[u8])]) -> Vec<u8> {
    let data_bytes: u64 = records.iter().map(|(record, _)| u64::from(record.data_bytes)).sum();
    let mut out = vec![0; batch_bytes(records.len() as u64, data_bytes) as usize];
    put_batch_head(&mut out, identity, chain, records.iter().map(|(record, _)| *record));
    let mut at = BATCH_HEADER_BYTES + records.len() * RECORD_DESCRIPTOR_BYTES;
    for (_, data) in records {
        out[at..at + data.len()].copy_from_slice(data);
        at += data.len();
    }
    out
}
