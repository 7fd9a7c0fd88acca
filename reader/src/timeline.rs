//! A domain's history as it was when the reader last looked: points, bookmarks, disks, gaps.
//!
//! Turns the checked log into answers about points in time. A timeline never changes; [`crate::Domain::refresh`] makes a
//! new one. Time is an annotation of LSNs: "at T" is the largest LSN whose time is not after T.
//! Not here: finding the log (`tidemark-history`), the tables of the index ([`crate::index`]), and disk contents
//! ([`crate::DiskImage`]).

use crate::core::disks::{DiskHistory, Disks};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::point::{Point, PointSpec};
use std::sync::Arc;
use tidemark_format::{
    BLOCK_BYTES, DiskId, DomainId, Epoch, Event, EventBody, EventRow, Genesis, Level, Lsn, ObjectKey, Retained,
    TableKind, TimeNs,
};
use tidemark_history::{Log, last_by, time_in};

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

/// What a VM was from some point on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// The VM.
    pub vm: String,
    /// From where on.
    pub recorded: Point,
    /// What `body` is, such as `libvirt-xml`.
    pub format: String,
    /// The configuration.
    pub body: Arc<[u8]>,
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

/// A disk, whenever it existed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskName {
    /// Its id, unique in the domain.
    pub id: DiskId,
    /// The VM that it belongs to.
    pub vm: String,
    /// Its name within the VM.
    pub name: String,
}

/// What a domain's history looks like. Immutable.
#[derive(Clone, Debug)]
pub struct Timeline {
    genesis: Arc<Genesis>,
    /// What the index covers, if there is one.
    pub(crate) index: Option<Index>,
    /// The points that are offered; `None`: all.
    pub(crate) retained: Option<Retained>,
    /// The segments behind it.
    pub(crate) log: Log,
    disks: Disks,
    bookmarks: Vec<Bookmark>,
    gaps: Vec<Gap>,
    /// In the order of the log.
    configs: Vec<VmConfig>,
}

impl Timeline {
    /// The timeline of an index with its events and of the log behind it.
    pub(crate) fn build(
        genesis: Arc<Genesis>,
        index: Option<Index>,
        retained: Option<Retained>,
        events: &[EventRow],
        log: Log,
    ) -> Result<Self> {
        let (disks, bookmarks, gaps, configs) = Default::default();
        let mut timeline = Self { genesis, index, retained, log: Log::default(), disks, bookmarks, gaps, configs };
        for row in events {
            timeline.apply(&row.event, row.time, ObjectKey::RootCopy)?;
        }
        timeline.extend(log)
    }

    /// The timeline of a log that begins with what is known, or of another log behind the same index. `None` if neither.
    pub(crate) fn continued(&self, log: &Log) -> Result<Option<Self>> {
        let same = |(a, b): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(a, b);
        let known = &self.log.segments;
        let continues =
            self.log.stem == log.stem && known.len() <= log.segments.len() && known.iter().zip(&log.segments).all(same);
        if continues { self.clone().extend(log.clone()).map(Some) } else { Ok(None) }
    }

    fn extend(mut self, log: Log) -> Result<Self> {
        for segment in &log.segments[self.log.segments.len()..] {
            for event in &segment.head.events {
                self.apply(event, time_in(&segment.head, event.lsn), segment.key)?;
            }
        }
        self.log = log;
        Ok(self)
    }

    fn apply(&mut self, event: &Event, time: TimeNs, key: ObjectKey) -> Result<()> {
        self.disks.apply(event, key)?;
        let point = Point { lsn: event.lsn, time };
        match &event.body {
            EventBody::Bookmark { name, level } if self.check_offered(event.lsn).is_ok() => {
                self.bookmarks.push(Bookmark { name: name.clone(), point, level: *level });
            }
            EventBody::Gap { disk, from, to } => {
                self.gaps.push(Gap { disk: *disk, from: *from, to: *to, recorded: point });
            }
            EventBody::VmConfig { vm, format, body } => {
                let (vm, format, body) = (vm.clone(), format.clone(), body.as_slice().into());
                self.configs.push(VmConfig { vm, recorded: point, format, body });
            }
            _ => {}
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
        self.latest().lsn == Lsn::ZERO
    }

    /// Points before the continuous part of the history that are offered, oldest first.
    pub fn kept(&self) -> Vec<Point> {
        self.retained.as_ref().map_or(Vec::new(), |retained| retained.kept.iter().copied().map(Point::from).collect())
    }

    /// Every point from this one on is offered.
    pub fn horizon(&self) -> Point {
        self.retained.as_ref().map_or_else(|| self.first(), |retained| retained.horizon.into())
    }

    /// The oldest point that is offered. [`Lsn::ZERO`] at the domain's creation if nothing was ever written.
    pub fn first(&self) -> Point {
        if let Some(retained) = &self.retained {
            return retained.oldest().into();
        }
        if let Some(index) = &self.index {
            return Point { lsn: Lsn::new(1), time: index.root.first_time };
        }
        self.log.segments.first().map_or(self.beginning(), |s| Point { lsn: s.first(), time: s.head.header.first_time })
    }

    /// The newest point, provisional or not.
    pub fn latest(&self) -> Point {
        let indexed = self.log.stem.map(|stem| Point { lsn: stem.lsn, time: stem.time });
        let last = self.log.segments.last().map(|s| Point { lsn: s.last(), time: s.head.header.last_time });
        last.or(indexed).unwrap_or(self.beginning())
    }

    fn beginning(&self) -> Point {
        Point { lsn: Lsn::ZERO, time: self.genesis.created }
    }

    /// Points up to here can never go away by a takeover; later ones are provisional.
    pub fn final_through(&self) -> Lsn {
        self.log.final_through
    }

    /// Points up to here are read through the index; [`Lsn::ZERO`] if there is none.
    pub fn indexed_through(&self) -> Lsn {
        self.log.stem.map_or(Lsn::ZERO, |stem| stem.lsn)
    }

    /// The newest writer epoch that was claimed.
    pub fn newest_claim(&self) -> Epoch {
        self.log.newest_claim
    }

    /// The writer epoch of `lsn`; `None` if it is not in the history. What an LSN of an epoch stands for never changes.
    pub fn epoch_of(&self, lsn: Lsn) -> Option<Epoch> {
        match self.log.segment_of(lsn) {
            Some(segment) => Some(segment.head.header.identity.epoch),
            None => self.index.as_ref().and_then(|index| index.root.epoch_of(lsn)),
        }
    }

    /// When `lsn` happened; `None` if it is not in the history.
    ///
    /// # Errors
    /// Those of reading the index.
    pub async fn time_of(&self, lsn: Lsn) -> Result<Option<TimeNs>> {
        if let Some(segment) = self.log.segment_of(lsn) {
            return Ok(Some(time_in(&segment.head, lsn)));
        }
        match self.index.as_ref().filter(|_| lsn > Lsn::ZERO && lsn <= self.indexed_through()) {
            Some(index) => Ok(Some(index.segment_of(lsn).await?.time_of(lsn))),
            None => Ok(None),
        }
    }

    /// The point of an LSN.
    ///
    /// # Errors
    /// Those of reading the index.
    pub async fn point_of(&self, lsn: Lsn) -> Result<Option<Point>> {
        Ok(self.time_of(lsn).await?.map(|time| Point { lsn, time }))
    }

    /// The point that `spec` names, when the clock shows `now`.
    ///
    /// # Errors
    /// `BeforeHistory` naming the oldest point, `NotRetained` naming the nearest, `AfterHistory` for an LSN to come, `NoBookmark`; those of reading the index. A
    /// time after the newest point is that point.
    pub async fn resolve(&self, spec: &PointSpec, now: TimeNs) -> Result<Point> {
        let too_early = || {
            let oldest = self.first();
            Error::BeforeHistory { wanted: spec.clone(), oldest: oldest.to_string() }
        };
        let point = match spec {
            PointSpec::Latest => self.latest(),
            PointSpec::Lsn(lsn) if *lsn > self.latest().lsn => {
                return Err(Error::AfterHistory { wanted: *lsn, latest: self.latest().lsn });
            }
            PointSpec::Lsn(lsn) => self.point_of(*lsn).await?.ok_or_else(too_early)?,
            PointSpec::Time(time) => self.at_time(*time).await?.ok_or_else(too_early)?,
            PointSpec::Ago(ns) => {
                let time = TimeNs::new(now.get().checked_sub(*ns).ok_or_else(too_early)?);
                self.at_time(time).await?.ok_or_else(too_early)?
            }
            PointSpec::Bookmark(name) => {
                let newest = self.bookmarks.iter().rev().find(|b| b.name == *name);
                newest.map(|b| b.point).ok_or_else(|| Error::NoBookmark { name: name.clone() })?
            }
        };
        self.check_offered(point.lsn)?;
        Ok(point)
    }

    /// Refuses a point that is no longer offered.
    fn check_offered(&self, wanted: Lsn) -> Result<()> {
        let Some(retained) = self.retained.as_ref().filter(|retained| !retained.offers(wanted)) else { return Ok(()) };
        //= SPEC.md#retention
        //# RN-1
        let (before, after) = retained.nearest(wanted);
        let before = before.map_or(String::new(), |mark| format!("{}, and ", Point::from(mark)));
        Err(Error::NotRetained { wanted, nearest: format!("{before}{}", Point::from(after)) })
    }

    /// The last point whose time is not after `time`; `None` before the history.
    ///
    /// # Errors
    /// Those of reading the index.
    pub async fn at_time(&self, time: TimeNs) -> Result<Option<Point>> {
        let segments = &self.log.segments;
        if let Some(at) = segments.partition_point(|s| s.head.header.first_time <= time).checked_sub(1) {
            let head = &segments[at].head;
            let lsn = last_by(head.times.as_ref(), head.header.last_lsn, time);
            return Ok(Some(Point { lsn, time: time_in(head, lsn) }));
        }
        let Some(index) = &self.index else { return Ok(None) };
        Ok(index.tables.point_at(&index.root, time).await?.map(Point::from))
    }

    /// Every bookmark of a point that is offered, oldest first. Of several with one name the newest is meant by `bookmark:NAME`.
    pub fn bookmarks(&self) -> &[Bookmark] {
        &self.bookmarks
    }

    /// Every recorded loss, oldest first.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// What VM `vm` was at `lsn`, if that was recorded.
    pub fn vm_config(&self, vm: &str, lsn: Lsn) -> Option<&VmConfig> {
        self.configs.iter().rev().find(|config| config.vm == vm && config.recorded.lsn <= lsn)
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

    /// Every disk that the domain ever had, oldest first.
    pub fn all_disks(&self) -> Vec<DiskName> {
        let name = |disk: &DiskHistory| DiskName { id: disk.id, vm: disk.vm.clone(), name: disk.name.clone() };
        self.disks.all.iter().map(name).collect()
    }

    /// About `n` points spread over the history, oldest first, among them the newest. Each is the last point of its time, so
    /// that naming its time leads back to it.
    ///
    /// # Errors
    /// Those of reading the index.
    pub async fn sample(&self, n: usize) -> Result<Vec<Point>> {
        let (first, last) = (self.first().lsn, self.latest().lsn);
        if self.is_empty() || n == 0 {
            return Ok(Vec::new());
        }
        let (span, n) = (last.get() - first.get(), n as u64);
        let mut points = Vec::new();
        for i in 1..=n {
            let lsn = Lsn::new(first.get() + (u128::from(span) * u128::from(i) / u128::from(n)) as u64);
            if let Some(time) = self.time_of(lsn).await? {
                points.extend(self.at_time(time).await?.filter(|point| self.check_offered(point.lsn).is_ok()));
            }
        }
        points.dedup();
        Ok(points)
    }

    /// Events with `from <= lsn <= to`, oldest first.
    ///
    /// # Errors
    /// Those of reading the index.
    pub async fn events(&self, from: Lsn, to: Lsn) -> Result<Vec<(Point, EventBody)>> {
        let mut found = Vec::new();
        if let Some(index) = self.index.as_ref().filter(|_| from <= self.indexed_through()) {
            index
                .for_each_segment(from, to, |segment| {
                    let wanted = segment.events.iter().filter(|e| from <= e.lsn && e.lsn <= to);
                    found.extend(wanted.map(|e| (Point { lsn: e.lsn, time: segment.time_of(e.lsn) }, e.body.clone())));
                })
                .await?;
        }
        let start = self.log.segments.partition_point(|s| s.last() < from);
        for s in self.log.segments[start..].iter().take_while(|s| s.first() <= to) {
            let wanted = s.head.events.iter().filter(|e| from <= e.lsn && e.lsn <= to);
            found.extend(wanted.map(|e| (Point { lsn: e.lsn, time: time_in(&s.head, e.lsn) }, e.body.clone())));
        }
        Ok(found)
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

    /// Number of log segments, indexed or not.
    pub fn segment_count(&self) -> usize {
        let indexed: u64 = self.index.iter().flat_map(|i| i.root.tables_of(TableKind::Segments)).map(|t| t.rows).sum();
        self.log.segments.len() + indexed as usize
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
