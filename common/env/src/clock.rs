//! Time: the wall's, for people and annotations, and a monotonic one, for intervals. No safety rests on either.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidemark_format::TimeNs;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The wall clock. It may jump either way: whoever stores times makes them monotone.
    fn wall(&self) -> TimeNs;

    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> TimeNs {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        TimeNs::new(saturating_ns(since_1970))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<ManualTime>,
}

#[derive(Clone, Copy, Debug)]
struct ManualTime {
    wall: TimeNs,
    monotonic: Duration,
}

impl ManualClock {
    /// A clock whose wall shows `wall` and whose monotonic time is zero.
    pub fn new(wall: TimeNs) -> Self {
        Self { now: Mutex::new(ManualTime { wall, monotonic: Duration::ZERO }) }
    }

    /// Lets `step` pass on both clocks.
    pub fn advance(&self, step: Duration) {
        self.update(|now| {
            now.wall = TimeNs::new(now.wall.get().saturating_add(saturating_ns(step)));
            now.monotonic = now.monotonic.saturating_add(step);
        });
    }

    /// Sets the wall clock, forwards or back, as an operator or NTP does; no monotonic time passes.
    pub fn set_wall(&self, wall: TimeNs) {
        self.update(|now| now.wall = wall);
    }

    fn update(&self, change: impl FnOnce(&mut ManualTime)) {
        change(&mut self.now.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    fn now(&self) -> ManualTime {
        *self.now.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> TimeNs {
        self.now().wall
    }

    fn monotonic(&self) -> Duration {
        self.now().monotonic
    }
}

/// Nanoseconds of `span`; those beyond 2^64 (584 years) saturate.
fn saturating_ns(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clock_shows_this_century_and_never_goes_back() {
        let clock = SystemClock::new();
        assert!(clock.wall() > TimeNs::new(1_700_000_000 * 1_000_000_000));
        let earlier = clock.monotonic();
        assert!(clock.monotonic() >= earlier);
    }

    #[test]
    fn manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(TimeNs::new(1_000));
        assert_eq!((clock.wall(), clock.monotonic()), (TimeNs::new(1_000), Duration::ZERO));
        clock.advance(Duration::from_nanos(5));
        assert_eq!((clock.wall(), clock.monotonic()), (TimeNs::new(1_005), Duration::from_nanos(5)));
        clock.set_wall(TimeNs::new(3));
        assert_eq!((clock.wall(), clock.monotonic()), (TimeNs::new(3), Duration::from_nanos(5)));
    }

    #[test]
    fn manual_clock_saturates_at_the_end_of_time() {
        let clock = ManualClock::new(TimeNs::new(u64::MAX - 1));
        clock.advance(Duration::MAX);
        assert_eq!((clock.wall(), clock.monotonic()), (TimeNs::new(u64::MAX), Duration::MAX));
    }
}
