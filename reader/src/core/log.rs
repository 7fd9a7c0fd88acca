//! The log as a chain of segments, checked link by link.
//!
//! Invariants: segments stand in LSN order without a gap; every one names the hash of the one before it; every CUT names
//! the tail that it cut.

use crate::error::{Error, Result};
use std::sync::Arc;
use tidemark_format::{Epoch, Lsn, ObjectKey, SegmentHead, Seq};

/// A segment whose head is in memory.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Unique among the segments that one reader has opened.
    pub(crate) uid: u32,
    pub(crate) key: ObjectKey,
    pub(crate) head: SegmentHead,
}

impl Segment {
    pub(crate) fn first(&self) -> Lsn {
        self.head.header.first_lsn
    }
    pub(crate) fn last(&self) -> Lsn {
        self.head.header.last_lsn
    }
    fn epoch(&self) -> Epoch {
        self.head.header.identity.epoch
    }
    fn seq(&self) -> Seq {
        self.head.header.identity.seq
    }
}

/// The part of the log that one writer epoch wrote.
#[derive(Clone, Debug)]
pub(crate) struct EpochLog {
    pub(crate) epoch: Epoch,
    pub(crate) cut: Arc<Segment>,
    /// Index of its first segment in [`Log::segments`].
    pub(crate) first: usize,
}

/// All segments of a domain that a reader has found, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) epochs: Vec<EpochLog>,
    pub(crate) segments: Vec<Arc<Segment>>,
    /// The newest writer claim that was seen.
    pub(crate) newest_claim: Epoch,
    /// No rule-abiding successor can cut the log before this.
    pub(crate) final_through: Lsn,
}

impl Log {
    /// The newest LSN, [`Lsn::ZERO`] if there is none.
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.tail().map_or(Lsn::ZERO, |tail| tail.last())
    }

    /// The segment that a next one must name: the last, or the CUT of an epoch without segments.
    pub(crate) fn tail(&self) -> Option<&Arc<Segment>> {
        let epoch = self.epochs.last()?;
        Some(if epoch.first < self.segments.len() { self.segments.last()? } else { &epoch.cut })
    }

    /// Appends the CUT of a new epoch.
    pub(crate) fn push_cut(&mut self, cut: Arc<Segment>) -> Result<()> {
        let body = cut.head.cut.as_ref().ok_or_else(|| broken(&cut, "seq 0 of an epoch is not a cut"))?;
        match (self.tail(), &body.predecessor) {
            (None, None) if body.next_lsn.get() != 1 => {
                return Err(broken(&cut, format!("the first epoch begins at lsn {}, not 1", body.next_lsn)));
            }
            (None, None) => {}
            (Some(tail), Some(named)) => {
                if (named.epoch, named.seq) != (tail.epoch(), tail.seq()) {
                    return Err(broken(
                        &cut,
                        format!("it continues log {}/{}, not {}", named.epoch, named.seq, tail.key),
                    ));
                }
                //= SPEC.md#cut
                //# C-2, C-3
                if named.header_hash != tail.head.header.header_hash {
                    return Err(broken(&cut, format!("it names another header hash than that of {}", tail.key)));
                }
                if Some(body.next_lsn) != tail.last().checked_next() {
                    return Err(broken(
                        &cut,
                        format!("it continues at lsn {}, {} ends at {}", body.next_lsn, tail.key, tail.last()),
                    ));
                }
                check_time(tail, &cut)?;
            }
            (Some(tail), None) => {
                return Err(broken(&cut, format!("it continues nothing, though {} came before", tail.key)));
            }
            (None, Some(_)) => return Err(broken(&cut, "its predecessor was not read")),
        }
        self.epochs.push(EpochLog { epoch: cut.epoch(), cut, first: self.segments.len() });
        Ok(())
    }

    /// Appends the next segment of the newest epoch.
    pub(crate) fn push_segment(&mut self, next: Arc<Segment>) -> Result<()> {
        let tail = self.tail().ok_or_else(|| broken(&next, "it belongs to no epoch"))?;
        if next.head.cut.is_some() {
            return Err(broken(&next, "a cut stands in the middle of an epoch"));
        }
        if next.epoch() != tail.epoch() || Some(next.seq()) != tail.seq().checked_next() {
            return Err(broken(&next, format!("it does not follow {}", tail.key)));
        }
        //= SPEC.md#order
        //# O-3
        if next.head.header.prev_header_hash != tail.head.header.header_hash {
            return Err(broken(&next, format!("it names another header hash than that of {}", tail.key)));
        }
        if Some(next.first()) != tail.last().checked_next() {
            return Err(broken(
                &next,
                format!("it begins at lsn {}, {} ends at {}", next.first(), tail.key, tail.last()),
            ));
        }
        check_time(tail, &next)?;
        self.segments.push(next);
        Ok(())
    }

    /// The log up to and including segment `seq` of epoch number `index`.
    pub(crate) fn truncated(&self, index: usize, seq: Seq) -> Self {
        let epoch = &self.epochs[index];
        let next_first = self.epochs.get(index + 1).map_or(self.segments.len(), |e| e.first);
        let keep = epoch.first.saturating_add(usize::try_from(seq.get()).unwrap_or(usize::MAX)).min(next_first);
        Self {
            epochs: self.epochs[..=index].to_vec(),
            segments: self.segments[..keep].to_vec(),
            newest_claim: self.newest_claim,
            final_through: self.final_through,
        }
    }

    /// Highest LSN that any segment says was acknowledged. CUTs prove nothing.
    pub(crate) fn acked_through(&self) -> Lsn {
        self.segments.iter().map(|s| s.head.header.acked_through).max().unwrap_or(Lsn::ZERO)
    }

    /// The segment that holds `lsn`.
    pub(crate) fn segment_of(&self, lsn: Lsn) -> Option<&Arc<Segment>> {
        let at = self.segments.partition_point(|s| s.first() <= lsn).checked_sub(1)?;
        self.segments.get(at).filter(|s| lsn <= s.last())
    }
}

fn check_time(before: &Segment, after: &Segment) -> Result<()> {
    let (was, is) = (before.head.header.last_time, after.head.header.first_time);
    if is < was {
        return Err(broken(after, format!("its time begins {} ns before {} ends", was.get() - is.get(), before.key)));
    }
    Ok(())
}

fn broken(at: &Segment, why: impl Into<String>) -> Error {
    Error::Chain { key: at.key, why: why.into() }
}
