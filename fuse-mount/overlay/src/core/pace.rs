//! How fast to hydrate, and how long it will still take. Time comes in as a number.

use std::time::Duration;

/// A limit of bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    bytes_per_second: u64,
}

impl Rate {
    /// At most so many bytes in each second; at least one.
    pub const fn bytes_per_second(bytes: u64) -> Self {
        Self { bytes_per_second: if bytes == 0 { 1 } else { bytes } }
    }
}

/// Keeps a stream of steps at a rate: what was done early is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    rate: Option<Rate>,
    /// When the bytes so far are paid for.
    due: Duration,
}

/// Idle time that counts for later steps.
const CREDIT_MAX: Duration = Duration::from_millis(100);

impl Pace {
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self { rate, due: Duration::ZERO }
    }

    /// Takes `bytes` at `now`, and says how long to wait before the next step.
    pub(crate) fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let cost = Duration::from_secs_f64(bytes as f64 / rate.bytes_per_second as f64);
        self.due = self.due.max(now.saturating_sub(CREDIT_MAX)).saturating_add(cost);
        self.due.saturating_sub(now)
    }
}

/// How far a hydration is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Bytes of the disk that are present.
    pub done_bytes: u64,
    /// Size of the disk.
    pub total_bytes: u64,
    /// Bytes that came over from the source since this hydration began, zeros not counted.
    pub fetched_bytes: u64,
    /// Bytes per second of late, zeros counted.
    pub bytes_per_second: f64,
    /// Time left at this rate, once it is known.
    pub left: Option<Duration>,
}

/// Turns what was done into a rate and a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    mark: Duration,
    mark_bytes: u64,
    rate: Option<f64>,
}

/// A rate is taken over at least this long.
const WINDOW: Duration = Duration::from_millis(500);
/// Weight of the newest window.
const NEWEST: f64 = 0.3;

impl Meter {
    pub(crate) fn new(now: Duration, done_bytes: u64) -> Self {
        Self { mark: now, mark_bytes: done_bytes, rate: None }
    }

    pub(crate) fn note(&mut self, now: Duration, mut progress: Progress) -> Progress {
        let span = now.saturating_sub(self.mark);
        if span >= WINDOW {
            let newest = progress.done_bytes.saturating_sub(self.mark_bytes) as f64 / span.as_secs_f64();
            self.rate = Some(self.rate.map_or(newest, |rate| rate + NEWEST * (newest - rate)));
            (self.mark, self.mark_bytes) = (now, progress.done_bytes);
        }
        let left_bytes = progress.total_bytes.saturating_sub(progress.done_bytes);
        progress.bytes_per_second = self.rate.unwrap_or(0.0);
        let left = self.rate.filter(|rate| *rate > 0.0).map(|rate| left_bytes as f64 / rate);
        progress.left = left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_over_any_steps_and_idle_time_is_not_saved_up() {
        let mut pace = Pace::new(Some(Rate::bytes_per_second(1000)));
        let mut now = Duration::from_secs(100);
        let begun = now;
        for _ in 0..100 {
            now += pace.take(now, 50);
        }
        let spent = now - begun;
        assert!(spent >= Duration::from_secs(5) - CREDIT_MAX && spent <= Duration::from_secs(5), "{spent:?}");
        now += Duration::from_secs(1000);
        assert!(pace.take(now, 1000) >= Duration::from_millis(900));
        assert_eq!(Pace::new(None).take(now, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn time_left_follows_the_rate() {
        let mut meter = Meter::new(Duration::ZERO, 0);
        let progress = |done_bytes| Progress { done_bytes, total_bytes: 10_000, ..Progress::default() };
        assert_eq!(meter.note(Duration::from_millis(100), progress(10)).left, None, "too early to tell");
        let known = meter.note(Duration::from_secs(1), progress(1000));
        assert_eq!((known.bytes_per_second, known.left), (1000.0, Some(Duration::from_secs(9))));
        let stalled = (2..60).map(|s| meter.note(Duration::from_secs(s), progress(1000))).last().unwrap();
        assert!(stalled.left.unwrap() > Duration::from_secs(900), "{stalled:?}");
    }
}
