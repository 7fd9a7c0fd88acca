//! A domain's history as it was when the reader last looked: points, bookmarks, disks, gaps.
//!
//! Turns the checked log into answers about points in time. A timeline never changes; [`crate::Domain::refresh`] makes a
//! new one. Time is an annotation of LSNs: "at T" is the largest LSN whose time is not after T.
//! Not here: finding the log ([`crate::core::walk`]), and disk contents ([`crate::DiskImage`]).

use crate::core::disks::{DiskHistory, Disks};
use crate::core::log::Log;
use crate::error::{Error, Result};
use crate::point::{Point, PointSpec};
use std::sync::Arc;
use tidemark_format::{
    BLOCK_BYTES, DiskId, DomainId, Epoch, EventBody, Genesis, Level, Lsn, ObjectKey, SegmentHead, TimeNs,
};

/// A named point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub point: Point,
    /// How consistent it is.
    pub level: Level,
}

/// An interval in which writes to a disk may be missing: points with `from < lsn <= to` are not offered as consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The disk.
    pub disk: DiskId,
    /// Last position known good.
    pub from: Lsn,
    /// Last position that may miss writes.
    pub to: Lsn,
    /// Where the log records it.
    pub recorded: Point,
}

/// A disk as it was at some LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskAt {
    /// Its id, unique in the domain.
    pub id: DiskId,
    /// The VM that it belongs to.
    pub vm: String,
    /// Its name within the VM.
    pub name: String,
    /// Its size then.
    pub size_bytes: u64,
    /// From which LSN on it can be restored; `None` if it cannot be restored at the LSN that was asked about.
    pub consistent_from: Option<Lsn>,
}

/// What a domain's history looks like. Immutable.
#[derive(Clone, Debug)]
pub struct Timeline {
    genesis: Arc<Genesis>,
    pub(crate) log: Log,
    disks: Disks,
    bookmarks: Vec<Bookmark>,
    gaps: Vec<Gap>,
}

impl Timeline {
    /// The timeline of a log, taking over from `before` what has not changed.
    pub(crate) fn build(genesis: Arc<Genesis>, before: Option<&Self>, log: Log) -> Result<Self> {
        let known = before.filter(|old| {
            let same = |(a, b): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(a, b);
            old.log.segments.len() <= log.segments.len() && old.log.segments.iter().zip(&log.segments).all(same)
        });
        let (mut timeline, from) = match known {
            Some(old) => (old.clone(), old.log.segments.len()),
            None => {
                let (disks, bookmarks, gaps) = Default::default();
                (Self { genesis, log: Log::default(), disks, bookmarks, gaps }, 0)
            }
        };
        for segment in &log.segments[from..] {
            timeline.apply(&segment.head, segment.key)?;
        }
        timeline.log = log;
        Ok(timeline)
    }

    fn apply(&mut self, head: &SegmentHead, key: ObjectKey) -> Result<()> {
        for event in &head.events {
            self.disks.apply(event, key)?;
            let time = time_in(head, event.lsn);
            let point = Point { lsn: event.lsn, time };
            match &event.body {
                EventBody::Bookmark { name, level } => {
                    self.bookmarks.push(Bookmark { name: name.clone(), point, level: *level });
                }
                EventBody::Gap { disk, from, to } => {
                    self.gaps.push(Gap { disk: *disk, from: *from, to: *to, recorded: point });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The domain.
    pub fn domain(&self) -> DomainId {
        self.genesis.domain
    }

    /// The domain's name for people.
    pub fn name(&self) -> &str {
        &self.genesis.name
    }

    /// When the domain was made.
    pub fn created(&self) -> TimeNs {
        self.genesis.created
    }

    /// True if nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.log.segments.is_empty()
    }

    /// The oldest point. [`Lsn::ZERO`] at the domain's creation if nothing was ever written.
    pub fn first(&self) -> Point {
        self.log.segments.first().map_or(self.beginning(), |s| Point { lsn: s.first(), time: s.head.header.first_time })
    }

    /// The newest point, provisional or not.
    pub fn latest(&self) -> Point {
        self.log.segments.last().map_or(self.beginning(), |s| Point { lsn: s.last(), time: s.head.header.last_time })
    }

    fn beginning(&self) -> Point {
        Point { lsn: Lsn::ZERO, time: self.genesis.created }
    }

    /// Points up to here can never go away by a takeover; later ones are provisional.
    pub fn final_through(&self) -> Lsn {
        self.log.final_through
    }

    /// The newest writer epoch that was claimed.
    pub fn newest_claim(&self) -> Epoch {
        self.log.newest_claim
    }

    /// When `lsn` happened; `None` if it is not in the history.
    pub fn time_of(&self, lsn: Lsn) -> Option<TimeNs> {
        self.log.segment_of(lsn).map(|s| time_in(&s.head, lsn))
    }

    /// The point of an LSN.
    pub fn point_of(&self, lsn: Lsn) -> Option<Point> {
        self.time_of(lsn).map(|time| Point { lsn, time })
    }

    /// The object that holds `lsn`.
    pub fn object_of(&self, lsn: Lsn) -> Option<ObjectKey> {
        self.log.segment_of(lsn).map(|s| s.key)
    }

    /// The point that `spec` names, when the clock shows `now`.
    ///
    /// # Errors
    /// `BeforeHistory` naming the oldest point, `AfterHistory` for an LSN to come, `NoBookmark`. A time after the newest
    /// point is that point.
    pub fn resolve(&self, spec: &PointSpec, now: TimeNs) -> Result<Point> {
        let too_early = || {
            let oldest = self.first();
            Error::BeforeHistory { wanted: spec.clone(), oldest: oldest.to_string() }
        };
        match spec {
            PointSpec::Latest => Ok(self.latest()),
            PointSpec::Lsn(lsn) if *lsn > self.latest().lsn => {
                Err(Error::AfterHistory { wanted: *lsn, latest: self.latest().lsn })
            }
            PointSpec::Lsn(lsn) => self.point_of(*lsn).ok_or_else(too_early),
            PointSpec::Time(time) => self.at_time(*time).ok_or_else(too_early),
            PointSpec::Ago(ns) => {
                let time = TimeNs::new(now.get().checked_sub(*ns).ok_or_else(too_early)?);
                self.at_time(time).ok_or_else(too_early)
            }
            PointSpec::Bookmark(name) => {
                let newest = self.bookmarks.iter().rev().find(|b| b.name == *name);
                newest.map(|b| b.point).ok_or_else(|| Error::NoBookmark { name: name.clone() })
            }
        }
    }

    /// The last point whose time is not after `time`; `None` before the history.
    pub fn at_time(&self, time: TimeNs) -> Option<Point> {
        let segments = &self.log.segments;
        let at = segments.partition_point(|s| s.head.header.first_time <= time).checked_sub(1)?;
        let head = &segments[at].head;
        let after = head.times.as_ref().and_then(|times| times.first_after(time));
        let lsn = after.map_or(head.header.last_lsn, |lsn| Lsn::new(lsn.get() - 1));
        Some(Point { lsn, time: time_in(head, lsn) })
    }

    /// Every bookmark, oldest first. Of several with one name the newest is meant by `bookmark:NAME`.
    pub fn bookmarks(&self) -> &[Bookmark] {
        &self.bookmarks
    }

    /// Every recorded loss, oldest first.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The disks that exist at `lsn`, by id.
    pub fn disks_at(&self, lsn: Lsn) -> Vec<DiskAt> {
        let mut disks: Vec<_> = self.disks.all.iter().filter(|d| d.exists_at(lsn)).map(|d| disk_at(d, lsn)).collect();
        disks.sort_by_key(|d| d.id);
        disks
    }

    /// The disk named `name` of VM `vm` at `lsn`.
    pub fn find_disk(&self, vm: &str, name: &str, lsn: Lsn) -> Option<DiskAt> {
        let found = self.disks.all.iter().rev().find(|d| d.vm == vm && d.name == name && d.exists_at(lsn));
        found.map(|d| disk_at(d, lsn))
    }

    pub(crate) fn history_of(&self, disk: DiskId) -> Option<&DiskHistory> {
        self.disks.get(disk)
    }

    /// About `n` points spread over the history, oldest first, among them the newest. Each is the last point of its time, so
    /// that naming its time leads back to it.
    pub fn sample(&self, n: usize) -> Vec<Point> {
        let (first, last) = (self.first().lsn, self.latest().lsn);
        if self.is_empty() || n == 0 {
            return Vec::new();
        }
        let (span, n) = (last.get() - first.get(), n as u64);
        let spread = (1..=n).map(|i| Lsn::new(first.get() + (u128::from(span) * u128::from(i) / u128::from(n)) as u64));
        let mut points: Vec<Point> = spread.filter_map(|lsn| self.at_time(self.time_of(lsn)?)).collect();
        points.dedup();
        points
    }

    /// Events with `from <= lsn <= to`, oldest first.
    pub fn events(&self, from: Lsn, to: Lsn) -> impl Iterator<Item = (Point, &EventBody)> {
        let start = self.log.segments.partition_point(|s| s.last() < from);
        let segments = self.log.segments[start..].iter().take_while(move |s| s.first() <= to);
        segments.flat_map(move |s| {
            let wanted = s.head.events.iter().filter(move |e| from <= e.lsn && e.lsn <= to);
            wanted.map(|e| (Point { lsn: e.lsn, time: time_in(&s.head, e.lsn) }, &e.body))
        })
    }

    /// What the timeline and the front indexes behind it take.
    pub fn memory(&self) -> IndexMemory {
        let mut memory = IndexMemory { segments: self.log.segments.len() as u64, ..IndexMemory::default() };
        for segment in &self.log.segments {
            memory.rows += segment.head.index.row_count();
            memory.index_bytes += segment.head.index.memory_bytes() as u64;
            memory.bytes += segment.head.memory_bytes() as u64;
        }
        memory
    }

    /// Number of log segments.
    pub fn segment_count(&self) -> usize {
        self.log.segments.len()
    }
}

/// Memory that a reader holds for a domain's log, contents not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexMemory {
    /// Log segments.
    pub segments: u64,
    /// Rows of their indexes.
    pub rows: u64,
    /// Bytes of the packed indexes.
    pub index_bytes: u64,
    /// Bytes of indexes, frame directories, times and headers.
    pub bytes: u64,
}

fn disk_at(disk: &DiskHistory, lsn: Lsn) -> DiskAt {
    DiskAt {
        id: disk.id,
        vm: disk.vm.clone(),
        name: disk.name.clone(),
        size_bytes: disk.blocks_at(lsn) * BLOCK_BYTES,
        consistent_from: disk.consistent_from(lsn),
    }
}

/// The time of an LSN of a segment.
pub(crate) fn time_in(head: &SegmentHead, lsn: Lsn) -> TimeNs {
    head.times.as_ref().and_then(|times| times.time_of(lsn)).unwrap_or(head.header.first_time)
}
