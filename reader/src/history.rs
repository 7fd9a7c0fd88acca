//! Questions about history rather than about one image: every version of a block, and what changed between two points.

use crate::domain::Domain;
use crate::error::{Error, Result};
use crate::index::rows_in;
use crate::timeline::Timeline;
use std::sync::Arc;
use tidemark_extent_map::{ExtentMap, State, Version};
use tidemark_format::{BLOCK_BYTES, DiskId, Extent, Lsn, ObjectKey, PlacedRow, Row, RowKind, TimeNs};
use tidemark_history::{Segment, time_in};

/// A frame of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef {
    /// Number of the frame in its object, from 0.
    pub index: u32,
    /// First 16 bytes of the BLAKE3 of its stored bytes.
    pub hash: [u8; 16],
    /// First byte of its stored bytes in the object.
    pub object_offset: u64,
    /// Number of stored bytes.
    pub stored_len: u32,
}

/// One version of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockVersion {
    /// The write that made it.
    pub lsn: Lsn,
    /// When.
    pub time: TimeNs,
    /// What it says.
    pub kind: RowKind,
    /// All the blocks of the row that holds it.
    pub extent: Extent,
    /// The object that holds it.
    pub key: ObjectKey,
    /// The frame that holds its bytes; `None` for zeros.
    pub frame: Option<FrameRef>,
}

/// What became of blocks that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// They were written.
    Data,
    /// They were written with zeros.
    Zero,
    /// They were discarded.
    Unmap,
    /// The disk was shrunk below them.
    CutOff,
}

/// Blocks that changed, and what they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The blocks.
    pub extent: Extent,
    /// The last write of the interval that touched them.
    pub lsn: Lsn,
    /// What they are after it.
    pub kind: ChangeKind,
}

impl Domain {
    /// Every version of the block that holds byte `offset` of a disk, oldest first, up to the newest LSN.
    ///
    /// # Errors
    /// `NoDisk` for an id that the domain never had; store errors while base objects are opened.
    pub async fn versions(&self, disk: DiskId, offset: u64) -> Result<Vec<BlockVersion>> {
        let timeline = self.timeline();
        let block = Extent::new(offset / BLOCK_BYTES, 1);
        let mut found = Vec::new();
        for base in self.bases_of(&timeline, disk, block).await? {
            let time = timeline.time_of(base.first()).await?.unwrap_or_default();
            versions_in(&base, disk, block, |_| time, &mut found);
        }
        if let Some(index) = &timeline.index {
            let mut before = None;
            for lsn in
                indexed_lsns(&index.groups(disk, block, Lsn::ZERO, timeline.indexed_through()).await?, disk, block)
            {
                // A segment shows all its versions of the block at once.
                if before.is_none_or(|last| lsn > last) {
                    let segment = self.inner.indexed(index, lsn).await?;
                    versions_in(&segment, disk, block, |lsn| time_in(&segment.head, lsn), &mut found);
                    before = Some(segment.last());
                }
            }
        }
        for segment in &timeline.log.segments {
            versions_in(segment, disk, block, |lsn| time_in(&segment.head, lsn), &mut found);
        }
        found.sort_by_key(|version| version.lsn);
        Ok(found)
    }

    /// The blocks of a disk that some write with `from < lsn <= to` touched, sorted, each with its newest such write.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub async fn changed(&self, disk: DiskId, from: Lsn, to: Lsn) -> Result<Vec<Changed>> {
        let timeline = self.timeline();
        let history = timeline.history_of(disk).ok_or(Error::NoDisk { disk, at: to })?;
        let blocks = history.sizes.iter().map(|(_, blocks)| *blocks).max().unwrap_or(0);
        let whole = Extent::new(0, blocks);
        let mut versions: Vec<Version<u64>> = Vec::new();
        let mut add = |row: Row| {
            if from < row.lsn && row.lsn <= to {
                let state = match row.kind {
                    RowKind::Data => State::Data(0),
                    RowKind::Zero => State::Zero,
                    RowKind::Unmap => State::Unmap,
                };
                versions.push(Version { extent: row.extent, lsn: row.lsn, state });
            }
        };
        if let Some(index) = &timeline.index {
            for group in index.groups(disk, whole, from, to).await? {
                rows_in(&group, disk, whole, from, to).for_each(|placed| add(placed.row));
            }
        }
        let mut take =
            |segment: &Segment| segment.head.index.for_each_overlapping(disk, whole, |placed| add(placed.row));
        for base in self.bases_of(&timeline, disk, whole).await? {
            take(&base);
        }
        let segments = &timeline.log.segments;
        let first = segments.partition_point(|s| s.last() <= from);
        segments[first..].iter().take_while(|s| s.first() <= to).for_each(|s| take(s));
        for (lsn, end) in history.shrinks(to).filter(|(lsn, _)| *lsn > from) {
            versions.push(Version { extent: Extent::new(end, u64::MAX - end), lsn, state: State::Unknown });
        }
        let map = ExtentMap::resolve(whole, versions, to);
        let touched = map.pieces().iter().filter(|piece| piece.lsn > Lsn::ZERO);
        Ok(touched
            .map(|piece| {
                let kind = match piece.state {
                    State::Data(_) => ChangeKind::Data,
                    State::Zero => ChangeKind::Zero,
                    State::Unmap => ChangeKind::Unmap,
                    State::Unknown => ChangeKind::CutOff,
                };
                Changed { extent: piece.extent, lsn: piece.lsn, kind }
            })
            .collect())
    }

    /// Until which point some block of `extent` still is what a write of `from..=through` made it, if all that is known of what came
    /// behind is right; `None`: at the newest point, too. So these are the points that a lost write spoils: `from` up to here.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub async fn shown_until(&self, disk: DiskId, extent: Extent, through: Lsn) -> Result<Option<Lsn>> {
        let timeline = self.timeline();
        let latest = timeline.latest().lsn;
        let history = timeline.history_of(disk).ok_or(Error::NoDisk { disk, at: latest })?;
        let mut later: Vec<(Lsn, Extent)> = Vec::new();
        if let Some(index) = &timeline.index {
            for group in index.groups(disk, extent, through, latest).await? {
                let rows = rows_in(&group, disk, extent, through, latest);
                later.extend(rows.map(|placed| (placed.row.lsn, placed.row.extent)));
            }
        }
        for segment in timeline.log.segments.iter().filter(|segment| segment.last() > through) {
            segment.head.index.for_each_overlapping(disk, extent, |placed| {
                later.extend((placed.row.lsn > through).then_some((placed.row.lsn, placed.row.extent)));
            });
        }
        let cut_off = history.shrinks(latest).map(|(lsn, end)| (lsn, Extent::new(end, u64::MAX - end)));
        later.extend(cut_off.filter(|(lsn, _)| *lsn > through));
        later.sort_unstable();
        let mut left = vec![extent];
        for (lsn, over) in later {
            left = left.into_iter().flat_map(|part| without(part, over)).collect();
            if left.is_empty() {
                return Ok(lsn.get().checked_sub(1).map(Lsn::new));
            }
        }
        Ok(None)
    }

    /// The base objects that seed blocks of `extent`.
    async fn bases_of(&self, timeline: &Timeline, disk: DiskId, extent: Extent) -> Result<Vec<Arc<Segment>>> {
        let at = timeline.latest().lsn;
        let history = timeline.history_of(disk).ok_or(Error::NoDisk { disk, at })?;
        let mut bases = Vec::new();
        for part in history.seeds.iter().filter(|part| part.extent.overlaps(extent)) {
            bases.push(self.inner.base(&part.base, part.start).await?);
        }
        Ok(bases)
    }
}

/// What is left of `extent` without the blocks of `over`.
fn without(extent: Extent, over: Extent) -> impl Iterator<Item = Extent> {
    let before = Extent::new(extent.start, over.start.min(extent.end()).saturating_sub(extent.start));
    let start = over.end().clamp(extent.start, extent.end());
    let behind = Extent::new(start, extent.end() - start);
    // Where they share no block, all of it is left, once.
    let parts = if extent.overlaps(over) { [before, behind] } else { [extent, Extent::new(extent.start, 0)] };
    parts.into_iter().filter(|part| part.len > 0)
}

/// LSNs of versions of `block` in row groups of the index, ascending.
fn indexed_lsns(groups: &[Arc<Vec<PlacedRow>>], disk: DiskId, block: Extent) -> Vec<Lsn> {
    let rows = groups.iter().flat_map(|group| rows_in(group, disk, block, Lsn::ZERO, Lsn::new(u64::MAX)));
    let mut lsns: Vec<Lsn> = rows.map(|placed| placed.row.lsn).collect();
    lsns.sort_unstable();
    lsns
}

fn versions_in(
    segment: &Segment,
    disk: DiskId,
    block: Extent,
    time: impl Fn(Lsn) -> TimeNs,
    found: &mut Vec<BlockVersion>,
) {
    let frames = &segment.head.frames;
    segment.head.index.for_each_overlapping(disk, block, |placed| {
        let row = placed.row;
        let place = (placed.stream_block + (block.start - row.extent.start)) * BLOCK_BYTES;
        let frame = (row.kind == RowKind::Data).then(|| frames.locate(place)).flatten().and_then(|(index, _)| {
            let (entry, range) = (frames.entry(index)?, frames.object_range(index)?);
            let (hash, stored_len) = (entry.hash, entry.stored_len);
            Some(FrameRef { index: index as u32, hash, object_offset: range.start, stored_len })
        });
        let (lsn, kind, extent, key) = (row.lsn, row.kind, row.extent, segment.key);
        found.push(BlockVersion { lsn, time: time(lsn), kind, extent, key, frame });
    });
}
