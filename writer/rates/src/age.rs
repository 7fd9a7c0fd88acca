//! Turns acknowledged and committed LSNs into the recovery point: the age of the oldest acknowledged write that the bucket
//! does not hold durably. Measured, never derived from settings.
//!
//! Writes that came in close to each other share a slot, and a slot is as old as its oldest write until its last one is
//! committed. So the age is never too small. When all slots are taken, neighbours are merged, the closest ones first to
//! last in one pass, which frees about half of them.
//!
//! Invariants: slots are in order of LSN and of time; there are at most `entries_max`; the age is too large by at most
//! [`AgeTracker::slack`], which never exceeds `max(resolution, 4 * P / entries_max)`, P being the largest age measured since
//! there was last nothing pending.
//! Not here: what makes a write durable in the bucket (SPEC F-6); whoever calls [`AgeTracker::committed`] knows.

use crate::error::{Result, require};
use std::collections::VecDeque;
use std::time::Duration;
use tidemark_format::Lsn;

/// Slots that an [`AgeTracker`] needs at least.
pub const AGE_ENTRIES_MIN: usize = 4;

/// Nanoseconds on the caller's monotonic clock; before 0 for writes that are older than the clock.
type Instant = i64;

fn instant(now: Duration) -> Instant {
    Instant::try_from(now.as_nanos()).unwrap_or(Instant::MAX)
}

/// Writes that were acknowledged between `oldest` and `newest`, all with LSNs after those of the slot before.
#[derive(Clone, Copy, Debug)]
struct Slot {
    oldest: Instant,
    newest: Instant,
    last: Lsn,
}

/// The age of the oldest acknowledged write that is not durable in the bucket. One per domain, and one per disk or VM
/// that is fed with its own writes alone: their LSNs need to rise, not to be dense.
#[derive(Clone, Debug)]
pub struct AgeTracker {
    slots: VecDeque<Slot>,
    entries_max: usize,
    resolution: Instant,
    committed: Lsn,
}

impl AgeTracker {
    /// Tracks with at most `entries_max` slots of 24 bytes; writes that came in within `resolution` of each other share
    /// one.
    ///
    /// # Errors
    /// Fewer slots than [`AGE_ENTRIES_MIN`].
    pub fn new(entries_max: usize, resolution: Duration) -> Result<Self> {
        require(entries_max >= AGE_ENTRIES_MIN, "entries_max", entries_max, "at least 4")?;
        Ok(Self { slots: VecDeque::new(), entries_max, resolution: instant(resolution), committed: Lsn::ZERO })
    }

    /// A write was acknowledged. LSNs rise from call to call; one that does not, or is committed already, changes nothing.
    pub fn logged(&mut self, lsn: Lsn, now: Duration) {
        self.push(lsn, instant(now));
    }

    /// A write was acknowledged `age` before `now`: by a process before this one, say, and found in the log again.
    pub fn recovered(&mut self, lsn: Lsn, age: Duration, now: Duration) {
        self.push(lsn, instant(now).saturating_sub(instant(age)));
    }

    fn push(&mut self, lsn: Lsn, at: Instant) {
        if lsn <= self.committed {
            return;
        }
        // A clock that steps back must not make a write look younger than those before it: they share its time.
        let at = match self.slots.back() {
            Some(back) if lsn <= back.last => return,
            Some(back) => at.max(back.newest),
            None => at,
        };
        let resolution = self.resolution;
        if let Some(back) = self.slots.back_mut().filter(|back| at.saturating_sub(back.oldest) <= resolution) {
            back.newest = at;
            back.last = lsn;
            return;
        }
        if self.slots.len() == self.entries_max {
            self.merge(at);
        }
        self.slots.push_back(Slot { oldest: at, newest: at, last: lsn });
        assert!(self.slots.len() <= self.entries_max, "{} slots, at most {}", self.slots.len(), self.entries_max);
    }

    /// Merges neighbours that together span at most 4 / `entries_max` of all. Two neighbours that are left span more, so
    /// at most `entries_max / 2 + 1` slots are left.
    fn merge(&mut self, now: Instant) {
        let spanned = self.slots.front().map_or(0, |front| now.saturating_sub(front.oldest));
        let share = i128::from(spanned) * 4 / self.entries_max as i128;
        let span_max = self.resolution.max(Instant::try_from(share).unwrap_or(Instant::MAX));
        let mut kept: VecDeque<Slot> = VecDeque::with_capacity(self.entries_max);
        for slot in self.slots.drain(..) {
            match kept.back_mut() {
                Some(back) if slot.newest.saturating_sub(back.oldest) <= span_max => {
                    back.newest = slot.newest;
                    back.last = slot.last;
                }
                _ => kept.push_back(slot),
            }
        }
        self.slots = kept;
    }

    /// Everything up to and including this LSN is durable in the bucket, or no longer owed to it.
    pub fn committed(&mut self, through: Lsn) {
        self.committed = self.committed.max(through);
        while self.slots.front().is_some_and(|front| front.last <= through) {
            self.slots.pop_front();
        }
    }

    /// How long ago the oldest pending write was acknowledged; 0 if none is pending.
    pub fn age(&self, now: Duration) -> Duration {
        let age = self.slots.front().map_or(0, |front| instant(now).saturating_sub(front.oldest));
        Duration::from_nanos(u64::try_from(age).unwrap_or(0))
    }

    /// By how much [`Self::age`] may be too large at this moment.
    pub fn slack(&self) -> Duration {
        let span = self.slots.front().map_or(0, |front| front.newest.saturating_sub(front.oldest));
        Duration::from_nanos(u64::try_from(span).unwrap_or(0))
    }

    /// Slots in use.
    pub fn entries(&self) -> usize {
        self.slots.len()
    }
}
