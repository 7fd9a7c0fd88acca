//! Performs what the core decides: reads, writes, threads, answers.

pub(crate) mod commit;
pub(crate) mod domain;
pub(crate) mod meta;
pub(crate) mod read;
pub(crate) mod shared;
pub(crate) mod store;

use std::sync::{Mutex, MutexGuard};

/// Locks; a thread that panicked with the lock held has left its own log stopped, and nothing half-done elsewhere.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
