//! What a replication log store keeps on its LUN: the reference codec of `LOGSTORE.md`.
//!
//! A LUN is one block device or file. It holds a [`Label`] that says how it is laid out, a [`Table`] in two copies that
//! says which extent belongs to which domain, and the extents: logs of [batches](Preamble), and small named values.
//! Every decoder takes any bytes, never panics, and allocates no more than a small multiple of its input.
//!
//! Not here: which page to read or write next, and what to make of a page that cannot be read (tidemark-log-store).

mod batch;
mod geometry;
mod label;
mod table;

pub use batch::{
    BATCH_HEADER_BYTES, BatchChain, BatchHead, BatchIdentity, BatchRecord, Preamble, RECORD_DESCRIPTOR_BYTES,
    RecordKind, batch_bytes, encode_batch, put_batch_head,
};
pub use geometry::{
    DOMAINS_MAX, EXTENT_BYTES_MAX, EXTENT_BYTES_MIN, EXTENTS_MAX, Geometry, LABEL_COPY_AT, META_NAME_BYTES_MAX,
    META_NAMES_MAX, PAGE_BYTES, TABLES_AT, pages_of,
};
pub use label::Label;
pub use table::{DomainEntry, Head, MetaEntry, Run, TABLE_HEADER_BYTES, Table, table_len};

use std::fmt;

/// CRC-32C (Castagnoli), as in iSCSI.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The random 128-bit name of a LUN, written as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LunId([u8; 16]);

/// The random 128-bit name of one life of a domain's log: a log that begins anew takes another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation([u8; 16]);

macro_rules! random_name {
    ($name:ident) => {
        impl $name {
            /// Wraps 16 bytes in the order in which a UUID is written.
            pub const fn new(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
            /// The 16 bytes in the order in which a UUID is written.
            pub const fn bytes(self) -> [u8; 16] {
                self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&crate::ids::DomainId::new(self.0), f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}
random_name!(LunId);
random_name!(Incarnation);

/// Position of a batch within its incarnation's log. Dense, from 1; never given twice to batches that were
/// acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchSeq(u64);

impl BatchSeq {
    /// Of the first batch.
    pub const FIRST: Self = Self(1);
    /// Wraps a raw number.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }
    /// The raw number.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The successor.
    ///
    /// # Panics
    /// At 2^64: no device lives long enough to get there.
    pub const fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("2^64 batches are beyond any device's life"))
    }
}

impl fmt::Display for BatchSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Number of an extent of a LUN, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LunExtent(u32);

impl LunExtent {
    /// Wraps a raw number.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }
    /// The raw number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for LunExtent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
