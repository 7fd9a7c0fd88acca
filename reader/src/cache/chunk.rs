//! One MiB of one image. Pages are written once, then published, then never written again.
//!
//! The one place where bytes are shared between threads without a lock: a page belongs to the thread that holds the fill
//! lock until its bit in `present` is set (release); from then on it is read-only for everybody who saw the bit (acquire).
#![allow(unsafe_code)]

use super::arena::Slot;
use super::lock;
use bytes::Bytes;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Bytes of a chunk. A read of up to this size is one slice if it does not cross a multiple of it.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Bytes of a page, the unit of presence.
pub(crate) const PAGE_BYTES: usize = 4096;
const PAGES: usize = CHUNK_BYTES / PAGE_BYTES;
const WORDS: usize = PAGES / 64;
const NO_MARKER: u16 = u16::MAX;

/// Where the bytes of a piece come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Bytes(Bytes),
    /// So many zeros.
    Zeros(usize),
}

/// Bytes and their place in a chunk.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) at: usize,
    pub(crate) source: Source,
}

impl Piece {
    pub(crate) fn len(&self) -> usize {
        match &self.source {
            Source::Bytes(bytes) => bytes.len(),
            Source::Zeros(n) => *n,
        }
    }
}

/// Bytes of memory that all chunks of a cache take.
pub(crate) type Used = Arc<AtomicU64>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Chunk {
    slot: Slot,
    present: [AtomicU64; WORDS],
    /// Held while pages are written. Guards the number of pages that cost memory.
    fill: Mutex<u64>,
    /// Used since the clock hand last came by.
    referenced: AtomicBool,
    /// The page whose first use asks for more to be read ahead.
    marker: AtomicU16,
    used: Used,
}

impl Chunk {
    pub(crate) fn new(slot: Slot, used: Used) -> Self {
        Self {
            slot,
            present: Default::default(),
            fill: Mutex::new(0),
            referenced: AtomicBool::new(false),
            marker: AtomicU16::new(NO_MARKER),
            used,
        }
    }

    /// The bytes in `range`, if every page of it is present, as a use of the chunk. The flag says that more should be read
    /// ahead.
    #[inline]
    pub(crate) fn get(&self, range: Range<usize>) -> Option<(&[u8], bool)> {
        let bytes = self.peek(range.clone())?;
        if !self.referenced.load(Ordering::Relaxed) {
            self.referenced.store(true, Ordering::Relaxed);
        }
        let marker = self.marker.load(Ordering::Relaxed);
        let ahead = marker != NO_MARKER
            && (range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)).contains(&usize::from(marker))
            && self.marker.compare_exchange(marker, NO_MARKER, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Some((bytes, ahead))
    }

    /// The bytes in `range`, if every page of it is present.
    #[inline]
    fn peek(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start >= range.end || range.end > CHUNK_BYTES {
            return None;
        }
        if !self.has(range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)) {
            return None;
        }
        // SAFETY: the range lies inside the slot; `has` saw all its pages published with acquire ordering, and a published
        // page is never written again while the chunk lives, which the borrow of `self` makes sure of.
        Some(unsafe { std::slice::from_raw_parts(self.slot.as_ptr().add(range.start), range.len()) })
    }

    /// True if all `pages` are present.
    #[inline]
    pub(crate) fn has(&self, pages: Range<usize>) -> bool {
        let mut page = pages.start;
        while page < pages.end {
            let (word, bit) = (page / 64, page % 64);
            let n = (64 - bit).min(pages.end - page);
            let mask = (u64::MAX >> (64 - n)) << bit;
            if self.present[word].load(Ordering::Acquire) & mask != mask {
                return false;
            }
            page += n;
        }
        true
    }

    /// Writes and publishes those of `pages` that are absent. `pieces` cover every byte of them, or lie elsewhere.
    pub(crate) fn fill(&self, pages: Range<usize>, pieces: &[Piece]) {
        let pages = pages.start..pages.end.min(PAGES);
        let mut costly = lock(&self.fill);
        let mut page = pages.start;
        while page < pages.end {
            if self.has(page..page + 1) {
                page += 1;
                continue;
            }
            let mut end = page + 1;
            while end < pages.end && !self.has(end..end + 1) {
                end += 1;
            }
            let cost = self.write(page..end, pieces);
            *costly += cost;
            self.used.fetch_add(cost * PAGE_BYTES as u64, Ordering::Relaxed);
            for page in page..end {
                self.present[page / 64].fetch_or(1 << (page % 64), Ordering::Release);
            }
            page = end;
        }
    }

    /// Copies what falls into absent pages; says how many of them now take memory.
    fn write(&self, pages: Range<usize>, pieces: &[Piece]) -> u64 {
        let (start, end) = (pages.start * PAGE_BYTES, pages.end * PAGE_BYTES);
        let mut touched = [0u64; WORDS];
        for piece in pieces {
            let (from, to) = (piece.at.max(start), (piece.at + piece.len()).min(end));
            // Zeros are there already.
            let (Source::Bytes(bytes), true) = (&piece.source, from < to) else { continue };
            let source = &bytes[from - piece.at..to - piece.at];
            // SAFETY: `from..to` lies inside the slot. Its pages are absent, so nobody reads them, and the fill lock is
            // held, so nobody else writes them. The source is other memory: slots are only ever lent out read-only.
            unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), self.slot.as_ptr().add(from), source.len()) };
            for page in from / PAGE_BYTES..to.div_ceil(PAGE_BYTES) {
                touched[page / 64] |= 1 << (page % 64);
            }
        }
        touched.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Asks for more to be read ahead when the page at byte `at` is used first.
    pub(crate) fn set_marker(&self, at: usize) {
        self.marker.store((at / PAGE_BYTES) as u16, Ordering::Relaxed);
    }

    /// True if it was used since the last call.
    pub(crate) fn take_referenced(&self) -> bool {
        self.referenced.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let costly = *self.fill.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.used.fetch_sub(costly * PAGE_BYTES as u64, Ordering::Relaxed);
    }
}

/// A range of a chunk as an owner of bytes: keeps the chunk alive, copies nothing.
pub(crate) struct Lent {
    chunk: Arc<Chunk>,
    range: Range<usize>,
}

impl Lent {
    /// The bytes of `range`, if all are present.
    pub(crate) fn bytes(chunk: &Arc<Chunk>, range: Range<usize>) -> Option<Bytes> {
        chunk.peek(range.clone())?;
        Some(Bytes::from_owner(Self { chunk: Arc::clone(chunk), range }))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.chunk.peek(self.range.clone()).expect("present pages stay present")
    }
}

#[cfg(test)]
mod tests {
    use super::super::arena::Arena;
    use super::*;

    fn chunk(used: &Used) -> Chunk {
        Chunk::new(Arena::new(4).take().unwrap(), Arc::clone(used))
    }

    fn piece(at: usize, byte: u8, len: usize) -> Piece {
        Piece { at, source: Source::Bytes(vec![byte; len].into()) }
    }

    #[test]
    fn only_published_pages_are_handed_out_and_counted() {
        let used = Used::default();
        let chunk = chunk(&used);
        assert!(chunk.get(0..4096).is_none());
        chunk.fill(1..3, &[piece(4096, 7, 6000), Piece { at: 10_096, source: Source::Zeros(2192) }]);
        assert_eq!(chunk.get(4096..10_096).unwrap().0, vec![7; 6000]);
        assert_eq!(chunk.get(10_096..12_288).unwrap().0, vec![0; 2192]);
        assert!(chunk.get(4095..4097).is_none());
        assert!(chunk.get(12_287..12_289).is_none());
        assert_eq!(used.load(Ordering::Relaxed), 8192);
        drop(chunk);
        assert_eq!(used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_present_page_is_never_written_again() {
        let chunk = chunk(&Used::default());
        chunk.fill(0..1, &[piece(0, 1, 4096)]);
        chunk.fill(0..2, &[piece(0, 2, 8192)]);
        assert_eq!(chunk.get(0..4096).unwrap().0, vec![1; 4096]);
        assert_eq!(chunk.get(4096..8192).unwrap().0, vec![2; 4096]);
    }

    #[test]
    fn zeros_take_no_memory_and_the_whole_chunk_is_one_slice() {
        let used = Used::default();
        let chunk = chunk(&used);
        chunk.fill(0..256, &[Piece { at: 0, source: Source::Zeros(CHUNK_BYTES) }]);
        assert!(chunk.get(0..CHUNK_BYTES).unwrap().0.iter().all(|b| *b == 0));
        assert_eq!(used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_marker_fires_once() {
        let chunk = chunk(&Used::default());
        chunk.fill(0..4, &[piece(0, 1, 16_384)]);
        chunk.set_marker(8192);
        assert!(!chunk.get(0..4096).unwrap().1);
        assert!(chunk.get(4096..12_288).unwrap().1);
        assert!(!chunk.get(4096..12_288).unwrap().1);
    }

    #[test]
    fn a_slot_comes_back_all_zero() {
        let arena = Arena::new(1);
        let chunk = Chunk::new(arena.take().unwrap(), Used::default());
        chunk.fill(0..1, &[piece(0, 9, 4096)]);
        assert!(arena.take().is_none(), "one slot only");
        drop(chunk);
        let again = Chunk::new(arena.take().unwrap(), Used::default());
        again.fill(0..1, &[Piece { at: 0, source: Source::Zeros(4096) }]);
        assert_eq!(again.get(0..4096).unwrap().0, vec![0; 4096]);
    }
}
