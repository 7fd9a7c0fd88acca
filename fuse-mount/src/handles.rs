//! Open files and listings, which the kernel holds by number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// Things by number. Numbers are not reused.
pub(crate) struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), open: RwLock::default() }
    }
}

impl<T> Handles<T> {
    /// Keeps a thing under a new number.
    pub(crate) fn insert(&self, thing: Arc<T>) -> u64 {
        let number = self.next.fetch_add(1, Relaxed);
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(number, thing);
        number
    }

    /// The thing of a number.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<T>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// Lets go of it; whoever still uses it keeps it alive.
    pub(crate) fn remove(&self, number: u64) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}
