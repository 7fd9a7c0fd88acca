//! Counts what a mount does.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) reads: AtomicU64,
    pub(crate) hits: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
}

/// What a mount has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountStats {
    /// Read requests taken from the kernel. Reads that the page cache served never get here.
    pub reads: u64,
    /// Of those, answered from memory on the spot.
    pub hits: u64,
    /// Bytes given to readers.
    pub bytes: u64,
    /// Requests of any kind that failed with EIO.
    pub failures: u64,
    /// Write requests taken from the kernel.
    pub writes: u64,
    /// Bytes taken from writers.
    pub written_bytes: u64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> MountStats {
        MountStats {
            reads: self.reads.load(Relaxed),
            hits: self.hits.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            failures: self.failures.load(Relaxed),
            writes: self.writes.load(Relaxed),
            written_bytes: self.written_bytes.load(Relaxed),
        }
    }
}
