//! Ranges of bytes, and a lock on them: many may write where they do not meet a read-modify-write.
//!
//! Invariants: an exclusive holder overlaps no other holder; waiters are served in the order in which they came, as far
//! as they overlap, so that none waits for ever.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// A run of bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl ByteRange {
    /// `len` bytes from `offset`.
    pub const fn new(offset: u64, len: u64) -> Self {
        Self { offset, len }
    }

    /// One past the last byte, saturating at 2^64 - 1.
    pub const fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }

    /// True if the two share a byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// True if both ends are multiples of `block_bytes`.
    pub const fn is_aligned(self, block_bytes: u64) -> bool {
        self.offset.is_multiple_of(block_bytes) && self.len.is_multiple_of(block_bytes)
    }

    /// The smallest range of whole blocks that covers this one, saturating.
    pub const fn outward(self, block_bytes: u64) -> Self {
        let offset = self.offset - self.offset % block_bytes;
        let end = match self.end().checked_next_multiple_of(block_bytes) {
            Some(end) => end,
            None => u64::MAX - u64::MAX % block_bytes,
        };
        Self { offset, len: end - offset }
    }

    /// The whole blocks within this one; empty if there are none.
    pub const fn inward(self, block_bytes: u64) -> Self {
        let end = self.end() - self.end() % block_bytes;
        match self.offset.checked_next_multiple_of(block_bytes) {
            Some(offset) if offset < end => Self { offset, len: end - offset },
            _ => Self { offset: self.offset, len: 0 },
        }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.offset, self.len)
    }
}

/// How a range is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Beside other writers of whole blocks: the volume orders them.
    Shared,
    /// Alone: it reads blocks and writes them back.
    Exclusive,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    range: ByteRange,
    mode: Mode,
}

impl Hold {
    fn conflicts(&self, other: &Self) -> bool {
        (self.mode == Mode::Exclusive || other.mode == Mode::Exclusive) && self.range.overlaps(other.range)
    }
}

#[derive(Debug)]
struct Waiter {
    hold: Hold,
    granted: oneshot::Sender<RangeGuard>,
}

#[derive(Debug, Default)]
struct State {
    /// Holders by slot; a slot is reused once it is free.
    held: Vec<Option<Hold>>,
    free: Vec<usize>,
    /// Exclusive holders, so that the many shared ones need not look at each other.
    exclusive: usize,
    waiting: VecDeque<Waiter>,
}

impl State {
    fn may_hold(&self, wanted: &Hold) -> bool {
        (wanted.mode == Mode::Shared && self.exclusive == 0)
            || !self.held.iter().flatten().any(|held| held.conflicts(wanted))
    }

    fn take(&mut self, hold: Hold) -> usize {
        self.exclusive += usize::from(hold.mode == Mode::Exclusive);
        match self.free.pop() {
            Some(slot) => {
                self.held[slot] = Some(hold);
                slot
            }
            None => {
                self.held.push(Some(hold));
                self.held.len() - 1
            }
        }
    }

    fn release(&mut self, slot: usize) {
        let hold = self.held[slot].take().expect("a guard holds its slot until it is dropped");
        self.exclusive -= usize::from(hold.mode == Mode::Exclusive);
        self.free.push(slot);
    }
}

/// One per disk, shared by all of its handles: keeps writes of whole blocks out of a read-modify-write of their blocks.
#[derive(Clone, Debug, Default)]
pub struct RangeLock {
    state: Arc<Mutex<State>>,
}

impl RangeLock {
    /// Nothing is held.
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds a range together with others that write whole blocks of it.
    pub async fn shared(&self, range: ByteRange) -> RangeGuard {
        self.hold(Hold { range, mode: Mode::Shared }).await
    }

    /// Holds a range alone.
    pub async fn exclusive(&self, range: ByteRange) -> RangeGuard {
        self.hold(Hold { range, mode: Mode::Exclusive }).await
    }

    async fn hold(&self, hold: Hold) -> RangeGuard {
        let granted = {
            let mut state = self.lock();
            if state.may_hold(&hold) && !state.waiting.iter().any(|waiter| waiter.hold.conflicts(&hold)) {
                return RangeGuard { lock: self.clone(), slot: state.take(hold) };
            }
            let (sender, granted) = oneshot::channel();
            state.waiting.push_back(Waiter { hold, granted: sender });
            granted
        };
        granted.await.expect("a waiter is removed only to be granted its range")
    }

    /// Frees a slot and grants what waited for it.
    fn release(&self, slot: usize) {
        let mut granted = Vec::new();
        {
            let mut state = self.lock();
            state.release(slot);
            if state.waiting.is_empty() {
                return;
            }
            let mut still = VecDeque::with_capacity(state.waiting.len());
            while let Some(waiter) = state.waiting.pop_front() {
                let blocked = !state.may_hold(&waiter.hold)
                    || still.iter().any(|earlier: &Waiter| earlier.hold.conflicts(&waiter.hold));
                if waiter.granted.is_closed() {
                    // It gave up.
                } else if blocked {
                    still.push_back(waiter);
                } else {
                    let slot = state.take(waiter.hold);
                    granted.push((waiter.granted, RangeGuard { lock: self.clone(), slot }));
                }
            }
            state.waiting = still;
        }
        // Outside of the lock: if the waiter gave up just now, its guard is dropped here, and that locks again.
        for (waiter, guard) in granted {
            drop(waiter.send(guard));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A held range; dropping it frees it.
#[derive(Debug)]
#[must_use = "the range is free again once this is dropped"]
pub struct RangeGuard {
    lock: RangeLock,
    slot: usize,
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        self.lock.release(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn ranges_round_to_blocks_both_ways() {
        let range = ByteRange::new(700, 1000);
        assert_eq!(range.outward(512), ByteRange::new(512, 1536));
        assert_eq!(range.inward(512), ByteRange::new(1024, 512));
        assert_eq!(ByteRange::new(700, 100).inward(512).len, 0);
        assert_eq!(ByteRange::new(u64::MAX - 3, 3).outward(512).end(), u64::MAX - 511);
        assert_eq!(ByteRange::new(u64::MAX - 3, 3).inward(512).len, 0);
        assert!(ByteRange::new(512, 1024).is_aligned(512) && !ByteRange::new(512, 1).is_aligned(512));
    }

    #[test]
    fn an_exclusive_range_waits_for_writers_and_later_ones_wait_for_it() {
        let lock = RangeLock::new();
        let blocks = ByteRange::new(0, 1024);
        let first = lock.shared(blocks).now_or_never().expect("free");
        let second = lock.shared(blocks).now_or_never().expect("shared with the first");
        let mut alone = Box::pin(lock.exclusive(ByteRange::new(512, 512)));
        assert!(alone.as_mut().now_or_never().is_none());
        let mut late = Box::pin(lock.shared(blocks));
        assert!(late.as_mut().now_or_never().is_none(), "it came after one that waits for the same blocks");
        let elsewhere = lock.exclusive(ByteRange::new(1024, 512)).now_or_never();
        assert!(elsewhere.is_some(), "it meets nobody");
        drop((first, second));
        let alone = alone.now_or_never().expect("the writers are done");
        assert!(late.as_mut().now_or_never().is_none());
        drop(alone);
        assert!(late.now_or_never().is_some());
    }

    #[test]
    fn one_that_gives_up_waiting_blocks_nobody() {
        let lock = RangeLock::new();
        let range = ByteRange::new(0, 512);
        let held = lock.exclusive(range).now_or_never().expect("free");
        let mut gives_up = Box::pin(lock.exclusive(range));
        assert!(gives_up.as_mut().now_or_never().is_none());
        let mut stays = Box::pin(lock.exclusive(range));
        assert!(stays.as_mut().now_or_never().is_none());
        drop(gives_up);
        drop(held);
        assert!(stays.now_or_never().is_some());
        assert!(lock.lock().held.iter().all(Option::is_none));
    }

    #[test]
    fn one_that_gives_up_after_it_was_granted_blocks_nobody() {
        let lock = RangeLock::new();
        let range = ByteRange::new(0, 512);
        let held = lock.exclusive(range).now_or_never().expect("free");
        let mut gives_up = Box::pin(lock.exclusive(range));
        assert!(gives_up.as_mut().now_or_never().is_none());
        drop(held);
        drop(gives_up);
        assert!(lock.exclusive(range).now_or_never().is_some());
    }
}
