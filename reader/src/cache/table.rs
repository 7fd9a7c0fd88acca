//! Which chunk holds which MiB of an image, and which chunk has to go.

use super::arena::Arena;
use super::chunk::{CHUNK_BYTES, Chunk, PAGE_BYTES, Used};
use super::lock;
use arc_swap::{ArcSwapOption, Guard};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// Chunks that one leaf of the table names: 1 GiB of a disk in 8 KiB.
const LEAF: usize = 1024;
/// Leaves of one table: a disk's first PiB can be cached. What lies beyond is read past the cache.
const LEAVES_MAX: u64 = 1 << 20;
/// Chunks that a cache holds at most, whatever its size: 64 GiB of address space.
const CHUNKS_MAX: usize = 64 << 10;

type Leaf = Box<[ArcSwapOption<Chunk>]>;

/// The chunks of one image, by number. Looking one up takes no lock.
#[derive(Debug)]
pub(crate) struct ChunkTable {
    leaves: Box<[OnceLock<Leaf>]>,
}

impl ChunkTable {
    /// A table for a disk of `size` bytes.
    pub(crate) fn new(size: u64) -> Arc<Self> {
        let leaves = size.div_ceil((LEAF * CHUNK_BYTES) as u64).min(LEAVES_MAX);
        Arc::new(Self { leaves: (0..leaves).map(|_| OnceLock::new()).collect() })
    }

    /// Chunk `number`, if it is there.
    #[inline]
    pub(crate) fn get(&self, number: usize) -> Option<Guard<Option<Arc<Chunk>>>> {
        let guard = self.leaves.get(number / LEAF)?.get()?[number % LEAF].load();
        guard.is_some().then_some(guard)
    }

    fn cell(&self, number: usize) -> Option<&ArcSwapOption<Chunk>> {
        let leaf = self.leaves.get(number / LEAF)?;
        let leaf = leaf.get_or_init(|| (0..LEAF).map(|_| ArcSwapOption::empty()).collect());
        leaf.get(number % LEAF)
    }
}

/// A chunk on the clock.
#[derive(Debug)]
struct Entry {
    chunk: Arc<Chunk>,
    table: Weak<ChunkTable>,
    number: usize,
}

/// All chunks of all images of a reader, bounded in memory.
#[derive(Debug)]
pub(crate) struct ImageCache {
    arena: Arc<Arena>,
    used: Used,
    bytes_max: u64,
    clock: Mutex<VecDeque<Entry>>,
}

impl ImageCache {
    /// A cache of at most `bytes_max` bytes of touched pages.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let slots = usize::try_from(bytes_max / PAGE_BYTES as u64).unwrap_or(CHUNKS_MAX).clamp(8, CHUNKS_MAX);
        Self { arena: Arena::new(slots), used: Used::default(), bytes_max, clock: Mutex::default() }
    }

    /// Bytes of touched pages.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Chunk `number` of `table`, made if it is not there. `None` if there is no memory for it: all is in use.
    pub(crate) fn chunk(&self, table: &Arc<ChunkTable>, number: usize) -> Option<Arc<Chunk>> {
        if let Some(chunk) = table.get(number) {
            return (*chunk).clone();
        }
        let cell = table.cell(number)?;
        let mut clock = lock(&self.clock);
        if let Some(chunk) = cell.load_full() {
            return Some(chunk);
        }
        let mut slot = self.arena.take();
        while slot.is_none() && Self::turn(&mut clock) {
            slot = self.arena.take();
        }
        let chunk = Arc::new(Chunk::new(slot?, Arc::clone(&self.used)));
        cell.store(Some(Arc::clone(&chunk)));
        clock.push_back(Entry { chunk: Arc::clone(&chunk), table: Arc::downgrade(table), number });
        Some(chunk)
    }

    /// Gives memory back until the bound holds. To be called after pages were filled.
    pub(crate) fn settle(&self) {
        if self.used_bytes() <= self.bytes_max {
            return;
        }
        let mut clock = lock(&self.clock);
        while self.used_bytes() > self.bytes_max && Self::turn(&mut clock) {}
    }

    /// Takes one chunk out of its table: one of a dropped image, else the first that the hand finds unused. False if there
    /// is none. Its memory is given back when the last reader lets go of it.
    fn turn(clock: &mut VecDeque<Entry>) -> bool {
        for _ in 0..2 * clock.len() {
            let Some(entry) = clock.pop_front() else { return false };
            let Some(table) = entry.table.upgrade() else { return true };
            if entry.chunk.take_referenced() {
                clock.push_back(entry);
                continue;
            }
            if let Some(cell) = table.cell(entry.number) {
                cell.store(None);
            }
            return true;
        }
        false
    }

    /// Gives back the chunks of images that are gone.
    pub(crate) fn forget_dropped(&self) {
        lock(&self.clock).retain(|entry| entry.table.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunk::{Piece, Source};
    use super::*;

    fn fill(cache: &ImageCache, table: &Arc<ChunkTable>, number: usize) {
        let chunk = cache.chunk(table, number).unwrap();
        chunk.fill(0..256, &[Piece { at: 0, source: Source::Bytes(vec![number as u8; CHUNK_BYTES].into()) }]);
        drop(chunk);
        cache.settle();
    }

    #[test]
    fn memory_stays_within_the_bound_and_used_chunks_stay_longer() {
        let cache = ImageCache::new(8 * CHUNK_BYTES as u64);
        let table = ChunkTable::new(1 << 40);
        for number in 0..64 {
            fill(&cache, &table, number);
            assert!(cache.used_bytes() <= 8 * CHUNK_BYTES as u64);
            if let Some(first) = table.get(0) {
                assert_eq!(first.as_ref().unwrap().get(0..1).unwrap().0, [0]);
            }
        }
        assert!(table.get(0).is_some(), "chunk 0 was used in every round");
        assert!(table.get(1).is_none());
    }

    #[test]
    fn a_chunk_in_use_outlives_its_eviction() {
        let cache = ImageCache::new(CHUNK_BYTES as u64);
        let table = ChunkTable::new(1 << 30);
        fill(&cache, &table, 5);
        let held = cache.chunk(&table, 5).unwrap();
        for number in 6..20 {
            fill(&cache, &table, number);
        }
        assert!(table.get(5).is_none());
        assert_eq!(held.get(0..10).unwrap().0, [5; 10]);
    }

    #[test]
    fn a_dropped_image_gives_its_memory_back() {
        let cache = ImageCache::new(64 * CHUNK_BYTES as u64);
        let table = ChunkTable::new(1 << 30);
        fill(&cache, &table, 1);
        assert!(cache.used_bytes() > 0);
        drop(table);
        cache.forget_dropped();
        assert_eq!(cache.used_bytes(), 0);
    }
}
