//! A heap that counts, to hold decoders to their promise: memory in proportion to the input, whatever the input says.

#![allow(dead_code)]
#![allow(unsafe_code, reason = "an allocator is unsafe to implement; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Heap bytes that a decoder may hold at once for each byte of its input. The worst case is a list of empty CBOR maps:
/// one byte each, 24 bytes in a `Vec` that is being moved to twice its room.
pub const HEAP_PER_INPUT_BYTE: usize = 96;
/// Heap bytes that a decoder may hold whatever its input: error messages, unpacked chunks.
pub const HEAP_BYTES_FIXED: usize = 64 << 10;

struct CountingHeap;
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system allocator unchanged; only numbers are kept besides.
unsafe impl GlobalAlloc for CountingHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static HEAP: CountingHeap = CountingHeap;

/// Runs a decoder on an input of `len` bytes and panics if it held more heap than the input justifies.
///
/// Counts the whole process: nothing else may run.
pub fn bounded<T>(len: usize, decode: impl FnOnce() -> T) -> T {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let out = decode();
    let held = PEAK.load(Relaxed).saturating_sub(before);
    let allowed = HEAP_BYTES_FIXED + len * HEAP_PER_INPUT_BYTE;
    assert!(held <= allowed, "decoding {len} bytes held {held} bytes of heap, at most {allowed} are justified");
    out
}
