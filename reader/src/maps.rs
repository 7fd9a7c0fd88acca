//! Extent maps of disk regions, resolved on first use and kept within a bound.
//!
//! A region's map is made of the rows that the front indexes hold for it, newest segment first, until every block is
//! covered, and then of those that the index holds. Base objects stand at the LSN of their SEED_START and are asked only if blocks are open when that is reached.
//! So the first byte of a disk never needs a map of the whole disk.

use crate::cache::lock;
use crate::index::rows_in;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tidemark_extent_map::{ExtentMap, Payload, State, Version};
use tidemark_format::{DiskId, Extent, Lsn, PlacedRow, RowKind};
use tidemark_history::Segment;

/// Where the bytes of a data row are: a segment of the image, and a block of its plaintext stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index into the image's log segments, or [`Self::BASE`] plus an index into its seed parts, or [`Self::INDEXED`].
    pub(crate) segment: u32,
    pub(crate) block: u32,
}

impl Place {
    /// Marks a base object.
    pub(crate) const BASE: u32 = 1 << 31;
    /// The segment that holds the piece's LSN, which the index knows.
    pub(crate) const INDEXED: u32 = u32::MAX;
}

impl Payload for Place {
    fn advanced(self, blocks: u64) -> Self {
        Self { segment: self.segment, block: self.block.saturating_add(blocks as u32) }
    }
}

pub(crate) type RegionMap = ExtentMap<Place>;

/// The versions of one region of a disk, gathered newest segment first.
pub(crate) struct Gather {
    disk: DiskId,
    region: Extent,
    at: Lsn,
    versions: Vec<Version<Place>>,
    /// One bit for each block that some version covers.
    covered: Vec<u64>,
    open: u64,
    /// Rows older than this do not count as covering: a seed that stands here is still to come, and wins over them.
    floor: Lsn,
}

impl Gather {
    pub(crate) fn new(disk: DiskId, region: Extent, at: Lsn) -> Self {
        let words = region.len.div_ceil(64) as usize;
        Self { disk, region, at, versions: Vec::new(), covered: vec![0; words], open: region.len, floor: Lsn::ZERO }
    }

    /// Announces a seed that stands at `lsn` and is still to be added; [`Lsn::ZERO`] when it was.
    pub(crate) fn set_floor(&mut self, lsn: Lsn) {
        self.floor = lsn;
    }

    /// True if no older segment can add anything.
    pub(crate) fn is_covered(&self) -> bool {
        self.open == 0
    }

    /// Adds the rows of a segment. Rows of an older segment than one given before lose to its rows, by their LSNs.
    pub(crate) fn add_segment(&mut self, number: u32, segment: &Segment) {
        let (disk, region, at) = (self.disk, self.region, self.at);
        segment.head.index.for_each_overlapping(disk, region, |placed| {
            if placed.row.lsn <= at {
                self.add(number, &placed);
            }
        });
    }

    /// Adds the rows of a row group of the index, which are older than those of any log segment.
    pub(crate) fn add_group(&mut self, group: &[PlacedRow]) {
        for placed in rows_in(group, self.disk, self.region, Lsn::ZERO, self.at) {
            self.add(Place::INDEXED, placed);
        }
    }

    fn add(&mut self, segment: u32, placed: &PlacedRow) {
        let row = placed.row;
        let state = match row.kind {
            RowKind::Data => State::Data(Place { segment, block: placed.stream_block as u32 }),
            RowKind::Zero => State::Zero,
            RowKind::Unmap => State::Unmap,
        };
        self.versions.push(Version { extent: row.extent, lsn: row.lsn, state });
        if row.lsn >= self.floor {
            self.cover(row.extent);
        }
    }

    /// Adds a tombstone: blocks from `from` on are unknown since `lsn`.
    pub(crate) fn add_shrink(&mut self, lsn: Lsn, from: u64) {
        let Some(extent) = Extent::new(from, u64::MAX - from).intersection(self.region) else { return };
        self.versions.push(Version { extent, lsn, state: State::Unknown });
    }

    fn cover(&mut self, extent: Extent) {
        let Some(part) = extent.intersection(self.region) else { return };
        let (mut bit, end) = (part.start - self.region.start, part.end() - self.region.start);
        while bit < end {
            let (word, shift) = ((bit / 64) as usize, bit % 64);
            let n = (64 - shift).min(end - bit);
            let mask = (u64::MAX >> (64 - n)) << shift;
            self.open -= u64::from((mask & !self.covered[word]).count_ones());
            self.covered[word] |= mask;
            bit += n;
        }
    }

    pub(crate) fn resolve(self) -> RegionMap {
        ExtentMap::resolve(self.region, self.versions, self.at)
    }
}

type MapId = (u64, u64);

/// Maps of all images, the ones not used lately going first.
#[derive(Debug)]
pub(crate) struct MapCache {
    state: Mutex<Kept>,
    bytes_max: u64,
}

#[derive(Debug, Default)]
struct Kept {
    maps: HashMap<MapId, (Arc<RegionMap>, AtomicBool)>,
    clock: VecDeque<MapId>,
    bytes: u64,
}

impl MapCache {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { state: Mutex::default(), bytes_max }
    }

    /// The map of a region of an image.
    pub(crate) fn get(&self, image: u64, region: u64) -> Option<Arc<RegionMap>> {
        let kept = lock(&self.state);
        let (map, used) = kept.maps.get(&(image, region))?;
        used.store(true, Ordering::Relaxed);
        Some(Arc::clone(map))
    }

    pub(crate) fn put(&self, image: u64, region: u64, map: &Arc<RegionMap>) {
        let mut kept = lock(&self.state);
        let id = (image, region);
        if kept.maps.contains_key(&id) {
            return;
        }
        kept.bytes += map.memory_bytes();
        kept.maps.insert(id, (Arc::clone(map), AtomicBool::new(false)));
        kept.clock.push_back(id);
        while kept.bytes > self.bytes_max {
            let Some(oldest) = kept.clock.pop_front() else { break };
            match kept.maps.get(&oldest) {
                Some((_, used)) if used.swap(false, Ordering::Relaxed) => kept.clock.push_back(oldest),
                _ => {
                    let freed = kept.maps.remove(&oldest).map_or(0, |(map, _)| map.memory_bytes());
                    kept.bytes -= freed;
                }
            }
        }
    }

    /// Drops the maps of an image that is gone.
    pub(crate) fn forget(&self, image: u64) {
        let mut kept = lock(&self.state);
        kept.clock.retain(|id| id.0 != image);
        let mut freed = 0;
        kept.maps.retain(|id, (map, _)| {
            let keep = id.0 != image;
            freed += if keep { 0 } else { map.memory_bytes() };
            keep
        });
        kept.bytes -= freed;
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        lock(&self.state).bytes
    }
}
