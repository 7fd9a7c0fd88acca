//! The log of one disk as it was written: every write and event between two points, in the order of LSNs.
//!
//! Whoever applies the steps to the disk as it was at the first point has the disk at the second. A segment's rows stand in
//! the order of blocks, so the frames of one segment that hold something of the disk are in memory while its steps are handed
//! out: at most its plaintext.
//! Not here: what became of it ([`DiskImage`](crate::DiskImage)), and what a step is exported as (`tidemark export`).

use crate::core::disks::disk_of;
use crate::domain::Domain;
use crate::error::{Error, Result};
use crate::load::failed;
use crate::point::Point;
use crate::timeline::Timeline;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use tidemark_format::{BLOCK_BYTES, DiskId, EventBody, Extent, FramePart, Lsn, PlacedRow, RowKind, TimeNs};
use tidemark_history::{Segment, time_in};

/// Bytes of one written step at most; a longer run comes in several.
const STEP_BYTES_MAX: u64 = 32 << 20;
const STEP_BLOCKS_MAX: u64 = STEP_BYTES_MAX / BLOCK_BYTES;

/// What happened at one LSN, or part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Blocks were written: at most 32 MiB, a longer write comes in several steps of one LSN.
    Written {
        /// Where.
        extent: Extent,
        /// What, in order and without gaps.
        parts: Vec<Part>,
    },
    /// Blocks were discarded.
    Unmapped {
        /// Where.
        extent: Extent,
    },
    /// Something else happened, to the disk or to the whole domain.
    Event(&'a EventBody),
}

/// Part of what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Bytes(Bytes),
    /// So many zero bytes.
    Zeros(u64),
}

/// Takes the steps of a replay.
pub trait ReplaySink: Send {
    /// The next step, at `at`.
    ///
    /// # Errors
    /// Whatever keeps the sink from taking it; the replay ends with it.
    fn step(&mut self, at: Point, step: Step<'_>) -> io::Result<()>;
}

/// Rows of one LSN that follow each other on the disk, all discarded or all written.
#[derive(Debug)]
struct Run {
    rows: Vec<PlacedRow>,
}

impl Run {
    fn is_unmap(&self) -> bool {
        self.rows.first().is_some_and(|placed| placed.row.kind == RowKind::Unmap)
    }

    fn extent(&self) -> Extent {
        let (Some(first), Some(last)) = (self.rows.first(), self.rows.last()) else { return Extent::new(0, 0) };
        Extent::new(first.row.extent.start, last.row.extent.end() - first.row.extent.start)
    }
}

impl Domain {
    /// Hands `sink` what happened to a disk with `from < lsn <= to`, oldest first, and tells `progress` which LSN is done. What
    /// a seeding brought counts as written where it began.
    ///
    /// # Errors
    /// `NoDisk` for an id that the domain never had, `Damaged` for the first write whose bytes cannot be had, `Sink`, and
    /// those of the store.
    pub async fn replay(
        &self,
        disk: DiskId,
        from: Lsn,
        to: Lsn,
        sink: &mut dyn ReplaySink,
        mut progress: impl FnMut(Lsn),
    ) -> Result<()> {
        let timeline = self.timeline();
        timeline.history_of(disk).ok_or(Error::NoDisk { disk, at: to })?;
        if let Some(index) = &timeline.index {
            let mut firsts = Vec::new();
            index
                .for_each_segment(from, to, |segment| {
                    firsts.extend((segment.last_lsn > from).then_some(segment.first_lsn))
                })
                .await?;
            for first in firsts {
                let segment = self.inner.indexed(index, first).await?;
                self.replay_segment(&timeline, &segment, disk, (from, to), sink).await?;
                progress(segment.last().min(to));
            }
        }
        let segments = &timeline.log.segments;
        let first = segments.partition_point(|segment| segment.last() <= from);
        for segment in segments[first..].iter().take_while(|segment| segment.first() <= to) {
            self.replay_segment(&timeline, segment, disk, (from, to), sink).await?;
            progress(segment.last().min(to));
            tokio::task::consume_budget().await;
        }
        Ok(())
    }

    async fn replay_segment(
        &self,
        timeline: &Timeline,
        segment: &Arc<Segment>,
        disk: DiskId,
        (from, to): (Lsn, Lsn),
        sink: &mut dyn ReplaySink,
    ) -> Result<()> {
        let mut events: BTreeMap<Lsn, &EventBody> = BTreeMap::new();
        for event in segment.head.events.iter().filter(|event| from < event.lsn && event.lsn <= to) {
            if disk_of(&event.body).is_none_or(|of| of == disk) {
                events.insert(event.lsn, &event.body);
            }
        }
        let replay = Replay { domain: self, disk, time: &|lsn| time_in(&segment.head, lsn) };
        let runs = runs_of(segment, disk, from, to);
        let frames = replay.frames(segment, &runs).await?;
        let mut runs = runs.into_iter().peekable();
        let lsns: BTreeSet<Lsn> = events.keys().copied().chain([segment.last().min(to)]).collect();
        for lsn in lsns {
            while let Some((at, runs)) = runs.next_if(|(at, _)| *at <= lsn) {
                replay.hand_out(sink, segment, at, &runs, &frames)?;
            }
            let Some(event) = events.get(&lsn) else { continue };
            let at = Point { lsn, time: time_in(&segment.head, lsn) };
            sink.step(at, Step::Event(event)).map_err(|source| Error::Sink { disk, source })?;
            if let EventBody::SeedStart { .. } = event {
                self.replay_seed(timeline, disk, at, to, sink).await?;
            }
        }
        Ok(())
    }

    /// Hands out what the seeding that began at `at` brought, as far as it was named up to `to`.
    async fn replay_seed(
        &self,
        timeline: &Timeline,
        disk: DiskId,
        at: Point,
        to: Lsn,
        sink: &mut dyn ReplaySink,
    ) -> Result<()> {
        let history = timeline.history_of(disk).ok_or(Error::NoDisk { disk, at: to })?;
        for part in history.seeds.iter().filter(|part| part.start == at.lsn && part.named <= to) {
            let base = self.inner.base(&part.base, part.start).await?;
            let replay = Replay { domain: self, disk, time: &|_| at.time };
            let runs = runs_of(&base, disk, Lsn::ZERO, at.lsn);
            let frames = replay.frames(&base, &runs).await?;
            for (lsn, runs) in runs {
                replay.hand_out(sink, &base, lsn, &runs, &frames)?;
            }
        }
        Ok(())
    }
}

/// What the segments of one replay have in common.
struct Replay<'a> {
    domain: &'a Domain,
    disk: DiskId,
    time: &'a (dyn Fn(Lsn) -> TimeNs + Sync),
}

impl Replay<'_> {
    /// The decoded frames that hold data of `runs`, fetched together.
    async fn frames(&self, segment: &Arc<Segment>, runs: &BTreeMap<Lsn, Vec<Run>>) -> Result<Frames> {
        let rows = runs.values().flatten().flat_map(|run| &run.rows);
        let wanted: BTreeSet<u32> = rows.flat_map(|placed| frames_of(segment, placed)).map(|part| part.frame).collect();
        let wanted: Vec<u32> = wanted.into_iter().collect();
        let outcomes = self.domain.inner.frames.get(segment, &wanted).await;
        Ok(wanted.into_iter().zip(outcomes).collect())
    }

    fn hand_out(
        &self,
        sink: &mut dyn ReplaySink,
        segment: &Segment,
        lsn: Lsn,
        runs: &[Run],
        frames: &Frames,
    ) -> Result<()> {
        let at = Point { lsn, time: (self.time)(lsn) };
        let mut put = |step| sink.step(at, step).map_err(|source| Error::Sink { disk: self.disk, source });
        for run in runs {
            if run.is_unmap() {
                put(Step::Unmapped { extent: run.extent() })?;
                continue;
            }
            let mut step = Building { start: run.extent().start, blocks: 0, parts: Vec::new() };
            for placed in &run.rows {
                for (part, blocks) in self.parts(segment, placed, frames)? {
                    step.add(part, blocks, &mut put)?;
                }
            }
            step.finish(&mut put)?;
        }
        Ok(())
    }

    /// The parts of a written row, each with its blocks.
    fn parts(&self, segment: &Segment, placed: &PlacedRow, frames: &Frames) -> Result<Vec<(Part, u64)>> {
        let extent = placed.row.extent;
        if placed.row.kind != RowKind::Data {
            return Ok(vec![(Part::Zeros(extent.byte_len()), extent.len)]);
        }
        let mut parts = Vec::new();
        for part in frames_of(segment, placed) {
            let bytes = match frames.get(&part.frame) {
                Some(Ok(plain)) => plain.slice(part.plain_range()),
                Some(Err(error)) => return Err(failed(self.disk, part.extent, placed.row.lsn, segment.key, error)),
                None => return Err(Error::TaskLost),
            };
            parts.push((Part::Bytes(bytes), part.extent.len));
        }
        Ok(parts)
    }
}

/// Frames at hand, by number.
type Frames = BTreeMap<u32, Result<Bytes, Arc<Error>>>;

/// A written step that still grows.
struct Building {
    start: u64,
    blocks: u64,
    parts: Vec<Part>,
}

impl Building {
    /// Adds a part, and hands out what is full.
    fn add(
        &mut self,
        mut part: Part,
        mut blocks: u64,
        put: &mut impl FnMut(Step<'static>) -> Result<()>,
    ) -> Result<()> {
        while self.blocks + blocks > STEP_BLOCKS_MAX {
            let fits = STEP_BLOCKS_MAX - self.blocks;
            let bytes = fits * BLOCK_BYTES;
            let head = match &mut part {
                Part::Bytes(rest) => Part::Bytes(rest.split_to(bytes as usize)),
                Part::Zeros(rest) => {
                    *rest -= bytes;
                    Part::Zeros(bytes)
                }
            };
            self.parts.push(head);
            self.blocks += fits;
            blocks -= fits;
            self.finish(put)?;
        }
        self.parts.push(part);
        self.blocks += blocks;
        Ok(())
    }

    fn finish(&mut self, put: &mut impl FnMut(Step<'static>) -> Result<()>) -> Result<()> {
        if self.blocks == 0 {
            return Ok(());
        }
        let extent = Extent::new(self.start, self.blocks);
        (self.start, self.blocks) = (extent.end(), 0);
        put(Step::Written { extent, parts: std::mem::take(&mut self.parts) })
    }
}

/// The rows of a disk with `from < lsn <= to`, by LSN, joined where they follow each other.
fn runs_of(segment: &Segment, disk: DiskId, from: Lsn, to: Lsn) -> BTreeMap<Lsn, Vec<Run>> {
    let mut runs: BTreeMap<Lsn, Vec<Run>> = BTreeMap::new();
    // Rows come in the order of blocks, so those of one LSN do as well.
    segment.head.index.for_each_overlapping(disk, Extent::new(0, u64::MAX), |placed| {
        let row = placed.row;
        if row.lsn <= from || to < row.lsn {
            return;
        }
        let of_lsn = runs.entry(row.lsn).or_default();
        match of_lsn.last_mut() {
            Some(run) if run.extent().end() == row.extent.start && run.is_unmap() == (row.kind == RowKind::Unmap) => {
                run.rows.push(placed);
            }
            _ => of_lsn.push(Run { rows: vec![placed] }),
        }
    });
    runs
}

/// A data row cut at the edges of its frames; nothing for other rows.
fn frames_of(segment: &Segment, placed: &PlacedRow) -> impl Iterator<Item = FramePart> {
    let mut extent = placed.row.extent;
    if placed.row.kind != RowKind::Data {
        extent.len = 0;
    }
    segment.head.frames.cut(extent, placed.stream_block)
}
