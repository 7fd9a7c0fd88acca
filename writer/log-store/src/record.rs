//! What is logged.

use bytes::Bytes;
use tidemark_format::logstore::{BatchRecord, RecordKind, crc32c};
use tidemark_format::{DiskId, EventBody, Extent, FormatError, Lsn, TimeNs};

/// One guest write or event at its place in the domain's total order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position. Dense: each record's is one more than that of the one before.
    pub lsn: Lsn,
    /// Its time, never before that of the record in front of it.
    pub time: TimeNs,
    /// What happened.
    pub body: RecordBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordBody {
    /// The guest wrote data.
    Write {
        /// Where.
        disk: DiskId,
        /// Which blocks.
        extent: Extent,
        /// What, `extent.len` blocks of it.
        data: Bytes,
    },
    /// The guest wrote zeros.
    Zero {
        /// Where.
        disk: DiskId,
        /// Which blocks.
        extent: Extent,
    },
    /// The guest gave blocks back; they read as zeros from here on.
    Unmap {
        /// Where.
        disk: DiskId,
        /// Which blocks.
        extent: Extent,
    },
    /// An event.
    Event(EventBody),
}

impl Record {
    /// The disk whose blocks it changes; `None` for an event.
    pub fn disk(&self) -> Option<DiskId> {
        match &self.body {
            RecordBody::Write { disk, .. } | RecordBody::Zero { disk, .. } | RecordBody::Unmap { disk, .. } => {
                Some(*disk)
            }
            RecordBody::Event(_) => None,
        }
    }

    /// Bytes of its data, as [`crate::DomainLog::read`] counts them. Those of an event stand for its fields.
    pub fn data_bytes(&self) -> u64 {
        match &self.body {
            RecordBody::Write { data, .. } => data.len() as u64,
            RecordBody::Zero { .. } | RecordBody::Unmap { .. } => 0,
            RecordBody::Event(EventBody::VmConfig { body, .. }) => body.len() as u64,
            RecordBody::Event(_) => 0,
        }
    }

    /// The record of a descriptor and its data.
    pub(crate) fn from_batch(record: &BatchRecord, data: &[u8]) -> Result<Self, FormatError> {
        let (disk, extent) = (record.disk, record.extent);
        let body = match record.kind {
            RecordKind::Write => RecordBody::Write { disk, extent, data: Bytes::copy_from_slice(data) },
            RecordKind::Zero => RecordBody::Zero { disk, extent },
            RecordKind::Unmap => RecordBody::Unmap { disk, extent },
            RecordKind::Event => RecordBody::Event(EventBody::from_cbor(data, record.lsn)?),
        };
        Ok(Self { lsn: record.lsn, time: record.time, body })
    }
}

/// A record with its descriptor, and its data as it will stand on the device.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) record: Record,
    pub(crate) descriptor: BatchRecord,
    pub(crate) data: Bytes,
}

impl Prepared {
    /// Computes checksums: done by the caller of an append, before any lock is taken.
    pub(crate) fn new(record: Record) -> Result<Self, FormatError> {
        let none = (DiskId::new(0), Extent::new(0, 0));
        let (kind, (disk, extent), data) = match &record.body {
            RecordBody::Write { disk, extent, data } => (RecordKind::Write, (*disk, *extent), data.clone()),
            RecordBody::Zero { disk, extent } => (RecordKind::Zero, (*disk, *extent), Bytes::new()),
            RecordBody::Unmap { disk, extent } => (RecordKind::Unmap, (*disk, *extent), Bytes::new()),
            RecordBody::Event(body) => (RecordKind::Event, none, body.to_cbor().into()),
        };
        let descriptor = BatchRecord {
            lsn: record.lsn,
            time: record.time,
            kind,
            disk,
            extent,
            data_bytes: u32::try_from(data.len())
                .map_err(|_| FormatError::HeaderField { field: "record_data_bytes", value: data.len() as u64 })?,
            data_crc: if data.is_empty() { 0 } else { crc32c(&data) },
        };
        descriptor.check()?;
        Ok(Self { record, descriptor, data })
    }
}
