//! The log as a chain of segments, checked link by link.
//!
//! Invariants: segments stand in LSN order without a gap; every one names the hash of the one before it; every CUT names
//! the tail that it cut. A log may begin behind a stem: what an index covers, of which the last segment's hash is known.

use crate::error::{Error, Result};
use std::sync::Arc;
use tidemark_format::{Epoch, Lsn, ObjectKey, PackedTimes, SegmentHead, SegmentKind, Seq, Through, TimeNs};

/// A segment whose head is in memory.
#[derive(Debug)]
pub struct Segment {
    /// Unique among the segments that one reader has opened.
    pub uid: u32,
    /// Where it is.
    pub key: ObjectKey,
    /// All of it but its bytes.
    pub head: SegmentHead,
}

impl Segment {
    /// False for base segments: what they hold is found through events, not by its LSN.
    pub fn holds_lsns(&self) -> bool {
        matches!(self.head.header.identity.kind, SegmentKind::Log | SegmentKind::Compact)
    }
    /// Its first LSN.
    pub fn first(&self) -> Lsn {
        self.head.header.first_lsn
    }
    /// Its last LSN.
    pub fn last(&self) -> Lsn {
        self.head.header.last_lsn
    }
    fn epoch(&self) -> Epoch {
        self.head.header.identity.epoch
    }
    fn seq(&self) -> Seq {
        self.head.header.identity.seq
    }
}

/// What the next object of the log must name: a segment, a CUT, or the end of what an index covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Writer epoch.
    pub epoch: Epoch,
    /// Its number in the epoch.
    pub seq: Seq,
    /// Its header hash.
    pub header_hash: [u8; 32],
    /// The last LSN up to there.
    pub last: Lsn,
    /// The time of that.
    pub last_time: TimeNs,
}

impl Link {
    pub(crate) fn of(segment: &Segment) -> Self {
        let header = &segment.head.header;
        let (last, last_time) = (header.last_lsn, header.last_time);
        Self { epoch: segment.epoch(), seq: segment.seq(), header_hash: header.header_hash, last, last_time }
    }

    /// Where it is.
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey::Log { epoch: self.epoch, seq: self.seq }
    }
}

/// The part of the log that one writer epoch wrote.
#[derive(Clone, Debug)]
pub struct EpochLog {
    /// The epoch.
    pub epoch: Epoch,
    /// What its first segment in [`Log::segments`] follows: its CUT, or the last segment that an index covers.
    pub link: Link,
    /// Index of that segment.
    pub first: usize,
}

/// The segments of a domain that were found, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Where the log begins, if it begins behind what an index covers.
    pub stem: Option<Through>,
    /// Its epochs, from that of the stem on.
    pub epochs: Vec<EpochLog>,
    /// Its segments.
    pub segments: Vec<Arc<Segment>>,
    /// The newest writer claim that was seen.
    pub newest_claim: Epoch,
    /// No rule-abiding successor can cut the log before this.
    pub final_through: Lsn,
    /// More segments follow, for which the walk had no room.
    pub more: bool,
}

impl Log {
    /// A log of which nothing is known but where an index ends. What is indexed is final.
    pub fn behind(stem: &Through) -> Self {
        let link = Link {
            epoch: stem.epoch,
            seq: stem.seq,
            header_hash: stem.header_hash,
            last: stem.lsn,
            last_time: stem.time,
        };
        Self {
            stem: Some(*stem),
            epochs: vec![EpochLog { epoch: stem.epoch, link, first: 0 }],
            segments: Vec::new(),
            newest_claim: stem.epoch,
            final_through: stem.lsn,
            more: false,
        }
    }

    /// The same log behind a newer stem; `None` if it does not hold the segment that the stem ends with.
    pub fn rebased(&self, stem: &Through) -> Option<Self> {
        let at = self.segments.partition_point(|segment| segment.last() < stem.lsn);
        self.segments.get(at).filter(|segment| segment.head.header.header_hash == stem.header_hash)?;
        let mut log = Self::behind(stem);
        (log.newest_claim, log.final_through, log.more) = (self.newest_claim, self.final_through, self.more);
        log.segments = self.segments[at + 1..].to_vec();
        let later = self.epochs.iter().filter(|epoch| epoch.first > at);
        log.epochs.extend(later.map(|epoch| EpochLog { first: epoch.first - at - 1, ..epoch.clone() }));
        Some(log)
    }

    /// The same log with the segments that its stem stands for in front of it.
    pub(crate) fn behind_past(mut self, mut past: Vec<Arc<Segment>>) -> Self {
        self.epochs.iter_mut().for_each(|epoch| epoch.first += past.len());
        past.append(&mut self.segments);
        Self { stem: None, segments: past, ..self }
    }

    /// The newest LSN, [`Lsn::ZERO`] if there is none.
    pub fn last_lsn(&self) -> Lsn {
        self.tail().map_or(Lsn::ZERO, |tail| tail.last)
    }

    /// What the next object must name.
    pub fn tail(&self) -> Option<Link> {
        let epoch = self.epochs.last()?;
        Some(if epoch.first < self.segments.len() { Link::of(self.segments.last()?) } else { epoch.link })
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
                if (named.epoch, named.seq) != (tail.epoch, tail.seq) {
                    return Err(broken(
                        &cut,
                        format!("it continues log {}/{}, not {}", named.epoch, named.seq, tail.key()),
                    ));
                }
                //= SPEC.md#cut
                //# C-2, C-3
                if named.header_hash != tail.header_hash {
                    return Err(broken(&cut, format!("it names another header hash than that of {}", tail.key())));
                }
                if Some(body.next_lsn) != tail.last.checked_next() {
                    return Err(broken(
                        &cut,
                        format!("it continues at lsn {}, {} ends at {}", body.next_lsn, tail.key(), tail.last),
                    ));
                }
                check_time(&tail, &cut)?;
            }
            (Some(tail), None) => {
                return Err(broken(&cut, format!("it continues nothing, though {} came before", tail.key())));
            }
            (None, Some(_)) => return Err(broken(&cut, "its predecessor was not read")),
        }
        self.epochs.push(EpochLog { epoch: cut.epoch(), link: Link::of(&cut), first: self.segments.len() });
        Ok(())
    }

    /// Appends the next segment of the newest epoch.
    pub(crate) fn push_segment(&mut self, next: Arc<Segment>) -> Result<()> {
        let tail = self.tail().ok_or_else(|| broken(&next, "it belongs to no epoch"))?;
        if next.head.cut.is_some() {
            return Err(broken(&next, "a cut stands in the middle of an epoch"));
        }
        if next.epoch() != tail.epoch || Some(next.seq()) != tail.seq.checked_next() {
            return Err(broken(&next, format!("it does not follow {}", tail.key())));
        }
        //= SPEC.md#order
        //# O-3
        if next.head.header.prev_header_hash != tail.header_hash {
            return Err(broken(&next, format!("it names another header hash than that of {}", tail.key())));
        }
        if Some(next.first()) != tail.last.checked_next() {
            return Err(broken(
                &next,
                format!("it begins at lsn {}, {} ends at {}", next.first(), tail.key(), tail.last),
            ));
        }
        check_time(&tail, &next)?;
        self.segments.push(next);
        Ok(())
    }

    /// The log up to and including segment `seq` of epoch number `index`; `None` if that lies in the stem.
    pub(crate) fn truncated(&self, index: usize, seq: Seq) -> Option<Self> {
        let epoch = &self.epochs[index];
        let next_first = self.epochs.get(index + 1).map_or(self.segments.len(), |e| e.first);
        let behind = seq.get().checked_sub(epoch.link.seq.get())?;
        let keep = epoch.first.saturating_add(usize::try_from(behind).unwrap_or(usize::MAX)).min(next_first);
        Some(Self {
            stem: self.stem,
            epochs: self.epochs[..=index].to_vec(),
            segments: self.segments[..keep].to_vec(),
            newest_claim: self.newest_claim,
            final_through: self.final_through,
            more: false,
        })
    }

    /// Highest LSN that any segment says was acknowledged. CUTs prove nothing.
    pub(crate) fn acked_through(&self) -> Lsn {
        let stem = self.stem.map_or(Lsn::ZERO, |stem| stem.lsn);
        self.segments.iter().map(|s| s.head.header.acked_through).max().unwrap_or(Lsn::ZERO).max(stem)
    }

    /// The segment that holds `lsn`, if it does not lie in the stem.
    pub fn segment_of(&self, lsn: Lsn) -> Option<&Arc<Segment>> {
        let at = self.segments.partition_point(|s| s.first() <= lsn).checked_sub(1)?;
        self.segments.get(at).filter(|s| lsn <= s.last())
    }
}

/// The time of an LSN of a segment.
pub fn time_in(head: &SegmentHead, lsn: Lsn) -> TimeNs {
    head.times.as_ref().and_then(|times| times.time_of(lsn)).unwrap_or(head.header.first_time)
}

/// The last LSN of a segment that happened by `time`, which is not before the segment; `last` is its last one.
pub fn last_by(times: Option<&PackedTimes>, last: Lsn, time: TimeNs) -> Lsn {
    let after = times.and_then(|times| times.first_after(time));
    after.map_or(last, |after| Lsn::new(after.get() - 1))
}

fn check_time(before: &Link, after: &Segment) -> Result<()> {
    let (was, is) = (before.last_time, after.head.header.first_time);
    if is < was {
        return Err(broken(after, format!("its time begins {} ns before {} ends", was.get() - is.get(), before.key())));
    }
    Ok(())
}

fn broken(at: &Segment, why: impl Into<String>) -> Error {
    Error::Chain { key: at.key, why: why.into() }
}
