//! Disk contents ready to be handed out: a bounded, shared cache of 1 MiB chunks, filled by 4 KiB pages.
//!
//! A reader gets one contiguous slice and no copy; it takes no lock, only a reference to the chunk. Memory is counted by
//! touched pages and given back chunk by chunk, the ones not used lately first (CLOCK).

mod arena;
mod chunk;
mod table;

pub(crate) use chunk::{CHUNK_BYTES, Chunk, Lent, PAGE_BYTES, Piece, Source};
pub(crate) use table::{ChunkTable, ImageCache};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks even if another thread panicked while it held the lock: what the caches guard is valid between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
