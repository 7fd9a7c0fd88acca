//! What a writer says about itself, for people and metrics.

use crate::core::log::Log;
use crate::error::Error;
use std::time::Duration;
use tidemark_format::{DomainId, Epoch, Lsn};

/// Bytes in front of compression and behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// That guests wrote.
    pub plain_bytes: u64,
    /// That were stored instead, without what segments need besides.
    pub stored_bytes: u64,
}

/// How a writer is doing. Follow it with [`crate::DomainWriter::status`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WriterStatus {
    /// The domain.
    pub domain: DomainId,
    /// The epoch that this writer owns.
    pub epoch: Epoch,
    /// Newest LSN given to a write or event.
    pub logged: Lsn,
    /// Everything through here is committed to the bucket.
    pub committed: Lsn,
    /// Bytes held in memory for what is not committed.
    pub buffered_bytes: u64,
    /// Segments being compressed, put or checked.
    pub in_flight_segments: usize,
    /// When the oldest write that is not committed came in, by the monotonic clock of the writer's environment; `None`
    /// if all is committed. Now minus this is the RPO in effect.
    pub oldest_pending_since: Option<Duration>,
    /// What compression made of guest writes since this writer began.
    pub packed: Packed,
    /// Requests that failed since one last succeeded; above 0 the writer is trying again.
    pub failures_in_a_row: u32,
    /// The last failure; stays after success, for people.
    pub last_error: Option<Error>,
    /// Why the writer stopped, if it did.
    pub stopped: Option<Error>,
}

impl WriterStatus {
    pub(crate) fn new(domain: DomainId, epoch: Epoch, committed: Lsn) -> Self {
        Self {
            domain,
            epoch,
            logged: committed,
            committed,
            buffered_bytes: 0,
            in_flight_segments: 0,
            oldest_pending_since: None,
            packed: Packed::default(),
            failures_in_a_row: 0,
            last_error: None,
            stopped: None,
        }
    }

    /// True if something changed.
    pub(crate) fn update(&mut self, log: &Log) -> bool {
        let key = |s: &Self| {
            let stopped = s.stopped.is_some();
            (s.logged, s.committed, s.buffered_bytes, s.in_flight_segments, s.oldest_pending_since, s.packed, stopped)
        };
        let before = key(self);
        self.logged = log.last_lsn();
        self.committed = log.committed();
        self.buffered_bytes = log.buffered_bytes();
        self.in_flight_segments = log.in_flight_segments();
        self.oldest_pending_since = log.oldest_pending();
        self.packed = log.packed();
        self.stopped = log.stopped().cloned();
        key(self) != before
    }

    /// How old the oldest write is that is not committed, at `now` of the monotonic clock.
    pub fn rpo_age(&self, now: Duration) -> Duration {
        self.oldest_pending_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}
