//! Values by key within a bound of bytes, each loaded once however many wait for it.

use crate::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

/// A cache. The values not used lately go first (CLOCK); values are cheap to clone.
pub struct Bounded<K, V> {
    state: Mutex<State<K, V>>,
    bytes_max: u64,
}

struct State<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// Keys whose values are counted.
    clock: VecDeque<K>,
    bytes: u64,
}

struct Slot<V> {
    cell: Arc<OnceCell<V>>,
    /// What the value takes; 0 until it is counted.
    bytes: u64,
    used: bool,
}

impl<K: Copy + Eq + Hash, V: Clone> Bounded<K, V> {
    /// An empty cache that keeps values of `bytes_max` in all.
    pub fn new(bytes_max: u64) -> Self {
        Self { state: Mutex::new(State { slots: HashMap::new(), clock: VecDeque::new(), bytes: 0 }), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the values that are kept.
    pub fn used_bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// The value of `key`: the one at hand, or what `load` brings. Who comes while it is being loaded waits for it; after a
    /// failure the next one loads again.
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn get(&self, key: K, weigh: impl FnOnce(&V) -> u64, load: impl Future<Output = Result<V>>) -> Result<V> {
        let cell = {
            let mut state = self.lock();
            let slot = state.slots.entry(key).or_insert_with(|| Slot { cell: Arc::default(), bytes: 0, used: false });
            slot.used = true;
            Arc::clone(&slot.cell)
        };
        let found = cell.get_or_try_init(|| load).await;
        let mut state = self.lock();
        let value = match found {
            Ok(value) => value.clone(),
            Err(error) => {
                // Nobody else waits for this cell: then nothing is kept of the failure.
                if state.slots.get(&key).is_some_and(|slot| Arc::ptr_eq(&slot.cell, &cell) && !cell.initialized()) {
                    state.slots.remove(&key);
                }
                return Err::<V, Error>(error);
            }
        };
        state.count(key, &cell, weigh(&value).max(1));
        state.evict(self.bytes_max);
        Ok(value)
    }
}

impl<K: Copy + Eq + Hash, V> State<K, V> {
    /// Counts a value that has just come, unless somebody did.
    fn count(&mut self, key: K, cell: &Arc<OnceCell<V>>, bytes: u64) {
        let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.bytes == 0 && Arc::ptr_eq(&slot.cell, cell))
        else {
            return;
        };
        slot.bytes = bytes;
        self.bytes += bytes;
        self.clock.push_back(key);
    }

    fn evict(&mut self, bytes_max: u64) {
        while self.bytes > bytes_max {
            let Some(oldest) = self.clock.pop_front() else { break };
            let Some(slot) = self.slots.get_mut(&oldest) else { continue };
            if std::mem::take(&mut slot.used) {
                self.clock.push_back(oldest);
            } else {
                self.bytes -= slot.bytes;
                self.slots.remove(&oldest);
            }
        }
    }
}

impl<K, V> fmt::Debug for Bounded<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bounded({} bytes at most)", self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    async fn get(cache: &Bounded<u32, u32>, key: u32, loads: &AtomicU32) -> Result<u32> {
        let load = async {
            loads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            if key == 13 { Err(Error::TaskLost) } else { Ok(key * 2) }
        };
        cache.get(key, |_| 10, load).await
    }

    #[tokio::test]
    async fn a_value_is_loaded_once_for_all_who_wait() {
        let (cache, loads) = (Bounded::new(100), AtomicU32::new(0));
        let all = futures::future::join_all((0..8).map(|_| get(&cache, 4, &loads))).await;
        assert!(all.into_iter().all(|value| value.is_ok_and(|value| value == 8)));
        assert_eq!((loads.load(Ordering::Relaxed), cache.used_bytes()), (1, 10));
    }

    #[tokio::test]
    async fn values_go_when_there_are_too_many_and_failures_are_not_kept() {
        let (cache, loads) = (Bounded::new(50), AtomicU32::new(0));
        for key in 100..130 {
            get(&cache, key, &loads).await.expect("it loads");
            assert!(cache.used_bytes() <= 50);
        }
        assert!(get(&cache, 13, &loads).await.is_err() && get(&cache, 13, &loads).await.is_err());
        assert_eq!(loads.load(Ordering::Relaxed), 32);
        assert_eq!(cache.lock().slots.len(), 5);
    }
}
