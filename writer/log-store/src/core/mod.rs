//! Decides everything, does nothing: no I/O, no clock, no threads.

pub(crate) mod log;
pub(crate) mod meta;
pub(crate) mod space;
pub(crate) mod walk;

use tidemark_format::logstore::{BatchSeq, Head};
use tidemark_format::{Lsn, TimeNs};

/// A page of a domain's log: extents are counted from the first one that the log had when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) ordinal: u64,
    pub(crate) page: u32,
}

/// What must be known to read a log from some batch on, or to append that batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) place: Place,
    pub(crate) seq: BatchSeq,
    /// First LSN of the batch.
    pub(crate) lsn: Lsn,
    /// Chain value of the batch before.
    pub(crate) prev_crc: u32,
    /// Time of the LSN before.
    pub(crate) time: TimeNs,
}

/// Where reading can begin is remembered once for so many pages of log.
const MARK_PAGES: u32 = 256;

impl Mark {
    /// Far enough from the last mark to be remembered.
    pub(crate) fn is_apart(&self, last: &Self) -> bool {
        self.place.ordinal != last.place.ordinal || self.place.page - last.place.page >= MARK_PAGES
    }

    /// The head of a table as the first mark of a log whose first extent is `ordinal`.
    pub(crate) fn from_head(head: &Head, ordinal: u64) -> Self {
        let Head { page, prev_crc, seq, lsn, time } = *head;
        Self { place: Place { ordinal, page }, seq, lsn, prev_crc, time }
    }
    pub(crate) fn head(&self) -> Head {
        Head { page: self.place.page, prev_crc: self.prev_crc, seq: self.seq, lsn: self.lsn, time: self.time }
    }
}
