//! One disk at one LSN: an immutable image, read through the shared cache.
//!
//! A hit is a slice of the cache, without a copy or a lock ([`DiskImage::read_cached`]). A miss resolves the region, fetches
//! the frames behind it, verifies them, and fills whole pages ([`DiskImage::read`]). Sequential readers are noticed and
//! read ahead of; a reader that is served by hits alone is noticed by a marker in the chunk that it enters.
//! Not here: which frames hold a range ([`crate::load`]), what to read ahead ([`crate::core::prefetch`]).

use crate::cache::{CHUNK_BYTES, Chunk, ChunkTable, Lent, PAGE_BYTES, Piece, Source, lock};
use crate::core::disks::SeedPart;
use crate::core::prefetch::{Ahead, Prefetch};
use crate::domain::Inner;
use crate::error::{Error, Result};
use crate::maps::{Gather, Place, RegionMap};
use crate::point::{Point, PointSpec};
use crate::timeline::Timeline;
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use tidemark_extent_map::State;
use tidemark_format::{BLOCK_BYTES, DiskId, Extent, Lsn, REGION_BLOCKS};
use tidemark_history::{Segment, within};

const CHUNK: u64 = CHUNK_BYTES as u64;
const PAGE: u64 = PAGE_BYTES as u64;
const PAGE_BLOCKS: u64 = PAGE / BLOCK_BYTES;
/// What lies around a miss and comes for free with its frames is kept too, within a window of this size.
const AROUND_BYTES: u64 = 64 << 10;
const _: () = assert!(CHUNK.is_multiple_of(AROUND_BYTES) && (REGION_BLOCKS * BLOCK_BYTES).is_multiple_of(CHUNK));

/// The contents of one disk right after one LSN. They never change.
pub struct DiskImage {
    pub(crate) inner: Arc<Inner>,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) id: DiskId,
    pub(crate) at: Point,
    vm: String,
    name: String,
    /// Size in blocks.
    pub(crate) blocks: u64,
    /// Log segments that can hold rows of the image: the first so many.
    segments: usize,
    /// Base objects that seed the disk.
    pub(crate) parts: Vec<SeedPart>,
    shrinks: Vec<(Lsn, u64)>,
    /// Unique among the images of a reader.
    uid: u64,
    table: Arc<ChunkTable>,
    prefetch: Mutex<Prefetch>,
    /// Held while a region is resolved, so that readers that come at once do it once. Striped by region.
    resolving: [tokio::sync::Mutex<()>; 8],
    this: Weak<DiskImage>,
}

static NEXT_UID: AtomicU64 = AtomicU64::new(0);

impl DiskImage {
    pub(crate) async fn open(inner: &Arc<Inner>, timeline: &Arc<Timeline>, disk: DiskId, at: Lsn) -> Result<Arc<Self>> {
        let point = timeline.resolve(&PointSpec::Lsn(at), inner.env.clock.wall()).await?;
        let history = timeline.history_of(disk).filter(|d| d.exists_at(at)).ok_or(Error::NoDisk { disk, at })?;
        //= SPEC.md#reader-rules
        //#
        if history.consistent_from(at).is_none() {
            let why = match history.restorable_after(at) {
                Some(lsn) => format!("it is from lsn {lsn} on"),
                None => "it is not yet complete, or writes were lost".to_owned(),
            };
            return Err(Error::NotRestorable { disk, at, why });
        }
        let blocks = history.blocks_at(at);
        // Only the last seeding counts: what an earlier one brought is in the log, or lost.
        let start = history.seeded_at(at);
        let parts =
            history.seeds.iter().filter(|part| part.named <= at && Some(part.start) == start).copied().collect();
        let options = &inner.options;
        // What is read ahead must not push out what was read ahead before.
        let window_max = options.prefetch_bytes_max.min(options.cache_bytes_max / 4);
        Ok(Arc::new_cyclic(|this| Self {
            inner: Arc::clone(inner),
            timeline: Arc::clone(timeline),
            id: disk,
            at: point,
            vm: history.vm.clone(),
            name: history.name.clone(),
            blocks,
            segments: timeline.log.segments.partition_point(|s| s.first() <= at),
            parts,
            shrinks: history.shrinks(at).collect(),
            uid: NEXT_UID.fetch_add(1, Ordering::Relaxed),
            table: ChunkTable::new(blocks.saturating_mul(BLOCK_BYTES)),
            prefetch: Mutex::new(Prefetch::new(options.prefetch_start_bytes, window_max)),
            resolving: Default::default(),
            this: this.clone(),
        }))
    }

    /// The disk.
    pub fn id(&self) -> DiskId {
        self.id
    }

    /// The point that the image shows.
    pub fn at(&self) -> Point {
        self.at
    }

    /// The VM that the disk belongs to.
    pub fn vm(&self) -> &str {
        &self.vm
    }

    /// The name of the disk within its VM.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names the contents: the same text means the same bytes, for ever. An LSN alone does not, for a takeover may replace
    /// a write that was not final.
    pub fn identity(&self) -> String {
        let (domain, lsn) = (self.inner.genesis.domain, self.at.lsn);
        let epoch = self.timeline.epoch_of(lsn).map_or_else(|| "none".to_owned(), |epoch| epoch.to_string());
        format!("disk {} of domain {domain} at lsn {lsn} of epoch {epoch}: {}/{}", self.id, self.vm, self.name)
    }

    /// Size at the point.
    pub fn size_bytes(&self) -> u64 {
        self.blocks * BLOCK_BYTES
    }

    /// Hands `len` bytes from `offset` on to `f` if they are ready: one slice of the cache, no copy, no lock, no waiting.
    /// `None` on a miss, and for ranges that cross a multiple of 1 MiB: then [`Self::read`] is needed. Clipped at the size.
    #[inline]
    pub fn read_cached<R>(&self, offset: u64, len: usize, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let end = offset.saturating_add(len as u64).min(self.size_bytes());
        if offset >= end {
            return Some(f(&[]));
        }
        let number = offset / CHUNK;
        if (end - 1) / CHUNK != number {
            return None;
        }
        let guard = self.table.get(number as usize)?;
        let chunk = guard.as_ref()?;
        let start = number * CHUNK;
        let (bytes, ahead) = chunk.get((offset - start) as usize..(end - start) as usize)?;
        if ahead {
            self.note(offset..end);
        }
        Some(f(bytes))
    }

    /// `len` bytes from `offset` on, clipped at the size; verified, and kept for [`Self::read_cached`].
    ///
    /// # Errors
    /// `Unknown` or `Damaged` naming the first blocks that cannot be had; `Deadline` and store errors.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        let end = offset.saturating_add(len as u64).min(self.size_bytes());
        if offset >= end {
            return Ok(Bytes::new());
        }
        self.note(offset..end);
        let what = || format!("read disk {} at byte {offset}", self.id);
        within(self.inner.options.request_deadline, what, async {
            let parts = futures::future::try_join_all(chunks_of(offset..end).map(|part| self.read_part(part))).await?;
            if let [one] = parts.as_slice() {
                return Ok(one.clone());
            }
            let mut all = BytesMut::with_capacity((end - offset) as usize);
            parts.iter().for_each(|part| all.extend_from_slice(part));
            Ok(all.freeze())
        })
        .await
    }

    /// Reads a range that lies in one chunk.
    async fn read_part(&self, range: Range<u64>) -> Result<Bytes> {
        let number = range.start / CHUNK;
        let within = (range.start - number * CHUNK) as usize..(range.end - number * CHUNK) as usize;
        let Some(chunk) = self.inner.cache.chunk(&self.table, number as usize) else {
            return self.assemble(range).await;
        };
        if let Some(bytes) = Lent::bytes(&chunk, within.clone()) {
            return Ok(bytes);
        }
        let wanted = blocks_of(&range);
        for failure in self.fill(&chunk, number, within.clone()).await? {
            if failure.extent.overlaps(wanted) {
                return Err(failure.error);
            }
        }
        match Lent::bytes(&chunk, within) {
            Some(bytes) => Ok(bytes),
            // Some page holds blocks that cannot be had, beside those that were asked for.
            None => self.assemble(range).await,
        }
    }

    /// Brings the pages of `within` into chunk `number`, as far as they can be had, and says what could not.
    async fn fill(&self, chunk: &Arc<Chunk>, number: u64, within: Range<usize>) -> Result<Vec<Failure>> {
        let mut pages = within.start / PAGE_BYTES..within.end.div_ceil(PAGE_BYTES);
        while pages.start < pages.end && chunk.has(pages.start..pages.start + 1) {
            pages.start += 1;
        }
        while pages.start < pages.end && chunk.has(pages.end - 1..pages.end) {
            pages.end -= 1;
        }
        if pages.is_empty() {
            return Ok(Vec::new());
        }
        let first_page = number * CHUNK / PAGE;
        let extent = |pages: &Range<u64>| {
            let start = (first_page + pages.start) * PAGE_BLOCKS;
            let end = ((first_page + pages.end) * PAGE_BLOCKS).min(self.blocks);
            Extent::new(start, end.saturating_sub(start))
        };
        let core = pages.start as u64..pages.end as u64;
        let per_window = AROUND_BYTES / PAGE;
        let window = core.start / per_window * per_window..core.end.div_ceil(per_window) * per_window;
        let map = self.map_of(number * CHUNK / BLOCK_BYTES / REGION_BLOCKS).await?;
        let loaded = self.load(&map, extent(&core), extent(&window)).await?;

        let origin = first_page * PAGE_BLOCKS;
        let mut pieces: Vec<Piece> = Vec::with_capacity(loaded.pieces.len() + 1);
        for (extent, source) in loaded.pieces {
            pieces.push(Piece { at: ((extent.start - origin) * BLOCK_BYTES) as usize, source });
        }
        // The last page of a disk may reach beyond its end.
        let mut whole = extent(&window);
        let end = (first_page + window.end) * PAGE_BLOCKS;
        if whole.end() < end && whole.end() == self.blocks {
            let at = ((self.blocks - origin) * BLOCK_BYTES) as usize;
            pieces.push(Piece { at, source: Source::Zeros(PAGE_BYTES - at % PAGE_BYTES) });
            whole.len = (self.blocks.div_ceil(PAGE_BLOCKS) * PAGE_BLOCKS) - whole.start;
        }
        // Fill the runs of pages between those that lack something.
        let page_of = |block: u64| ((block - origin) / PAGE_BLOCKS) as usize;
        let mut lacking: Vec<Extent> = loaded.absent;
        lacking.extend(loaded.failures.iter().map(|failure| failure.extent));
        lacking.sort_unstable();
        let mut from = page_of(whole.start);
        for gap in &lacking {
            let to = page_of(gap.start);
            if from < to {
                chunk.fill(from..to, &pieces);
            }
            from = from.max(page_of(gap.end() - 1) + 1);
        }
        let to = page_of(whole.end() - 1) + 1;
        if from < to {
            chunk.fill(from..to, &pieces);
        }
        self.inner.cache.settle();
        Ok(loaded.failures)
    }

    /// Reads a range past the cache.
    async fn assemble(&self, range: Range<u64>) -> Result<Bytes> {
        let extent = blocks_of(&range);
        let mut all = BytesMut::zeroed(extent.byte_len() as usize);
        for (part, source) in self.pieces(extent).await? {
            if let Source::Bytes(bytes) = source {
                let at = ((part.start - extent.start) * BLOCK_BYTES) as usize;
                all[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        let skip = (range.start - extent.byte_start()) as usize;
        Ok(all.freeze().slice(skip..skip + (range.end - range.start) as usize))
    }

    /// What the blocks of `extent` hold, in order, past the cache.
    pub(crate) async fn pieces(&self, extent: Extent) -> Result<Vec<(Extent, Source)>> {
        let what = || format!("read disk {} blocks {extent}", self.id);
        within(self.inner.options.request_deadline, what, async {
            let mut all = Vec::new();
            let mut start = extent.start;
            while start < extent.end() {
                let region = start / REGION_BLOCKS;
                let end = ((region + 1) * REGION_BLOCKS).min(extent.end());
                let part = Extent::new(start, end - start);
                let loaded = self.load(&*self.map_of(region).await?, part, part).await?;
                if let Some(failure) = loaded.failures.into_iter().next() {
                    return Err(failure.error);
                }
                all.extend(loaded.pieces);
                start = end;
            }
            Ok(all)
        })
        .await
    }

    /// The extent map of a region.
    pub(crate) async fn map_of(&self, region: u64) -> Result<Arc<RegionMap>> {
        if let Some(map) = self.inner.maps.get(self.uid, region) {
            return Ok(map);
        }
        let _alone = self.resolving[region as usize % self.resolving.len()].lock().await;
        if let Some(map) = self.inner.maps.get(self.uid, region) {
            return Ok(map);
        }
        let start = region * REGION_BLOCKS;
        let extent = Extent::new(start, REGION_BLOCKS.min(self.blocks.saturating_sub(start)));
        let mut gather = Gather::new(self.id, extent, self.at.lsn);
        for (lsn, from) in &self.shrinks {
            gather.add_shrink(*lsn, *from);
        }
        //= SPEC.md#reader-rules
        //#
        let seeded_at = self.parts.first().map_or(Lsn::ZERO, |part| part.start);
        gather.set_floor(seeded_at);
        let mut seed_to_come = !self.parts.is_empty();
        for (number, segment) in self.timeline.log.segments[..self.segments].iter().enumerate().rev() {
            if seed_to_come && segment.last() < seeded_at && !gather.is_covered() {
                seed_to_come = false;
                self.add_seed(&mut gather, extent).await?;
            }
            if gather.is_covered() {
                break;
            }
            gather.add_segment(number as u32, segment);
        }
        if seed_to_come && !gather.is_covered() && seeded_at > self.timeline.indexed_through() {
            seed_to_come = false;
            self.add_seed(&mut gather, extent).await?;
        }
        if let Some(index) = self.timeline.index.as_ref().filter(|_| !gather.is_covered()) {
            let groups = index.newest(self.id, extent, self.at.lsn).await?;
            groups.iter().for_each(|group| gather.add_group(group));
        }
        if seed_to_come && !gather.is_covered() {
            self.add_seed(&mut gather, extent).await?;
        }
        let map = Arc::new(gather.resolve());
        self.inner.maps.put(self.uid, region, &map);
        Ok(map)
    }

    /// Adds the rows of the base objects that overlap `extent`; older rows count as covering from now on.
    async fn add_seed(&self, gather: &mut Gather, extent: Extent) -> Result<()> {
        gather.set_floor(Lsn::ZERO);
        for (number, part) in self.parts.iter().enumerate().filter(|(_, part)| part.extent.overlaps(extent)) {
            let base = self.inner.base(&part.base, part.start).await?;
            gather.add_segment(Place::BASE | number as u32, &base);
        }
        Ok(())
    }

    /// The segment that a place of a version of `lsn` points into.
    pub(crate) async fn segment(&self, lsn: Lsn, place: Place) -> Result<Arc<Segment>> {
        let number = place.segment;
        if let Some(index) = self.timeline.index.as_ref().filter(|_| number == Place::INDEXED) {
            return self.inner.indexed(index, lsn).await;
        }
        if number & Place::BASE == 0 {
            return Ok(Arc::clone(&self.timeline.log.segments[number as usize]));
        }
        let part = &self.parts[(number & !Place::BASE) as usize];
        self.inner.base(&part.base, part.start).await
    }

    /// Tells the policy about an access and starts what it asks for.
    fn note(&self, access: Range<u64>) {
        let size = self.size_bytes();
        let Some(ahead) = lock(&self.prefetch).access(access, size) else { return };
        let kib = ((ahead.fetch.end - ahead.fetch.start) >> 10).clamp(1, u64::from(u32::MAX)) as u32;
        let permit = Arc::clone(&self.inner.prefetch_room).try_acquire_many_owned(kib);
        let (Ok(permit), Some(this)) = (permit, self.this.upgrade()) else {
            lock(&self.prefetch).dropped(&ahead.fetch);
            return;
        };
        let permit = Arc::new(permit);
        for part in chunks_of(ahead.fetch.clone()) {
            let (this, permit, ahead) = (Arc::clone(&this), Arc::clone(&permit), ahead.clone());
            self.inner.runtime.spawn(async move {
                this.read_ahead(part, &ahead).await;
                drop(permit);
            });
        }
    }

    async fn read_ahead(&self, part: Range<u64>, ahead: &Ahead) {
        let number = part.start / CHUNK;
        let Some(chunk) = self.inner.cache.chunk(&self.table, number as usize) else { return };
        if part.contains(&ahead.marker) {
            chunk.set_marker((ahead.marker % CHUNK) as usize);
        }
        let within = (part.start % CHUNK) as usize..(part.start % CHUNK + (part.end - part.start)) as usize;
        // What fails here fails again, and is reported, when somebody asks for it.
        if let Err(error) = self.fill(&chunk, number, within).await {
            tracing::debug!(disk = %self.id, lsn = %self.at.lsn, offset = part.start, %error, "read ahead failed");
        }
    }

    /// The first byte from `offset` on that is not in a hole; `None` if only holes follow. Blocks that nobody knows are
    /// not holes, so that whoever skips holes still meets them.
    ///
    /// # Errors
    /// Store errors, if a base object has to be opened.
    pub async fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        self.next_of(offset, false).await
    }

    /// The first byte from `offset` on that is in a hole, at most the size: the end of a disk counts as one. `None` if
    /// `offset` is at or beyond the size.
    ///
    /// # Errors
    /// As [`Self::next_data`].
    pub async fn next_hole(&self, offset: u64) -> Result<Option<u64>> {
        let found = self.next_of(offset, true).await?;
        Ok(found.or_else(|| (offset < self.size_bytes()).then(|| self.size_bytes())))
    }

    async fn next_of(&self, offset: u64, hole: bool) -> Result<Option<u64>> {
        let what = || format!("look for holes of disk {} from byte {offset} on", self.id);
        within(self.inner.options.request_deadline, what, async {
            let mut at = offset / BLOCK_BYTES;
            while at < self.blocks {
                let map = self.map_of(at / REGION_BLOCKS).await?;
                let rest = Extent::new(at, map.region().end() - at);
                if let Some(piece) = map.clipped(rest).find(|piece| piece.state.is_zeros() == hole) {
                    return Ok(Some(piece.extent.byte_start().max(offset)));
                }
                at = rest.end();
                // A large empty disk is a long walk without anything to wait for.
                tokio::task::consume_budget().await;
            }
            Ok(None)
        })
        .await
    }

    /// Bytes that are neither holes nor unknown.
    ///
    /// # Errors
    /// As [`Self::next_data`].
    pub async fn data_bytes(&self) -> Result<u64> {
        let mut blocks = 0;
        for region in 0..self.blocks.div_ceil(REGION_BLOCKS) {
            let map = self.map_of(region).await?;
            let data = map.pieces().iter().filter(|p| matches!(p.state, State::Data(_)));
            blocks += data.map(|p| p.extent.len).sum::<u64>();
        }
        Ok(blocks * BLOCK_BYTES)
    }
}

impl Drop for DiskImage {
    fn drop(&mut self) {
        self.inner.maps.forget(self.uid);
        self.table = ChunkTable::new(0);
        self.inner.cache.forget_dropped();
    }
}

impl fmt::Debug for DiskImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskImage({}/{} at {})", self.vm, self.name, self.at)
    }
}

/// Blocks that could not be had.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) extent: Extent,
    pub(crate) error: Error,
}

/// The parts of a byte range that lie in one chunk each.
fn chunks_of(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let numbers = range.start / CHUNK..range.end.div_ceil(CHUNK);
    numbers.map(move |n| range.start.max(n * CHUNK)..range.end.min((n + 1) * CHUNK))
}

/// The blocks that a byte range touches.
fn blocks_of(range: &Range<u64>) -> Extent {
    let start = range.start / BLOCK_BYTES;
    Extent::new(start, range.end.div_ceil(BLOCK_BYTES) - start)
}
