//! How long requests took: counts in buckets that grow with the time they stand for.
//!
//! Up to 32 µs each microsecond has a bucket; beyond, each doubling has 16. So a quantile, told as the upper end of its bucket,
//! is never too low and at most 6.25 % too high. Bounds that are powers of two of a microsecond fall between buckets: counts
//! below them are exact.

use std::time::Duration;

/// Buckets of one microsecond each.
const EXACT: usize = 32;
/// Buckets of each doubling beyond.
const PER_DOUBLING: usize = 16;
/// Longest that is told apart, as a power of two of microseconds: 19 h.
const DOUBLINGS_MAX: u32 = 36;
const BUCKETS: usize = EXACT + (DOUBLINGS_MAX as usize - 5) * PER_DOUBLING;

/// Durations that were counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    counts: Box<[u64; BUCKETS]>,
    count: u64,
    total_ns: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), count: 0, total_ns: 0 }
    }
}

impl Latency {
    /// Bounds for metrics, in powers of two of a microsecond: 64 µs to 16.8 s.
    pub const METRIC_BOUNDS: [u32; 10] = [6, 8, 10, 12, 14, 16, 18, 20, 22, 24];

    /// Counts a request.
    pub fn add(&mut self, took: Duration) {
        self.counts[bucket(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))] += 1;
        self.count += 1;
        self.total_ns = self.total_ns.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How long all of them took.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns)
    }

    /// What was counted since `earlier`; all of it if that is not an earlier state of this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts.clone();
        for (count, before) in counts.iter_mut().zip(earlier.counts.iter()) {
            match count.checked_sub(*before) {
                Some(more) => *count = more,
                None => return self.clone(),
            }
        }
        Self { counts, count: self.count - earlier.count, total_ns: self.total_ns.saturating_sub(earlier.total_ns) }
    }

    /// The least time that at least `share` of the requests kept to; `None` if there were none.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.map(|at| Duration::from_micros(upper_us(at)))
    }

    /// Requests that took less than 2^`power` µs.
    pub fn below(&self, power: u32) -> u64 {
        self.counts[..bucket(1 << power)].iter().sum()
    }
}

/// The bucket of a time in microseconds.
fn bucket(us: u64) -> usize {
    if us < EXACT as u64 {
        return us as usize;
    }
    let doubling = us.ilog2();
    if doubling >= DOUBLINGS_MAX {
        return BUCKETS - 1;
    }
    let within = (us >> (doubling - 4)) as usize & (PER_DOUBLING - 1);
    EXACT + (doubling as usize - 5) * PER_DOUBLING + within
}

/// Where a bucket ends.
fn upper_us(bucket: usize) -> u64 {
    if bucket < EXACT {
        return bucket as u64 + 1;
    }
    let (doubling, within) = ((bucket - EXACT) / PER_DOUBLING + 5, (bucket - EXACT) % PER_DOUBLING);
    ((PER_DOUBLING + within + 1) as u64) << (doubling - 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_a_quantile_is_never_too_low_and_at_most_a_sixteenth_too_high(
            mut times in proptest::collection::vec(0_u64..60_000_000, 1..300),
            share in 0.01_f64..1.0,
        ) {
            let mut latency = Latency::default();
            times.iter().for_each(|us| latency.add(Duration::from_micros(*us)));
            times.sort_unstable();
            let exact = times[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1];
            let told = latency.quantile(share).unwrap().as_micros() as u64;
            prop_assert!(told > exact && told as f64 <= exact as f64 * 1.0625 + 1.0, "{told} for {exact}");
        }

        #[test]
        fn prop_counts_below_a_power_of_two_are_exact(times in proptest::collection::vec(0_u64..60_000_000, 0..300)) {
            let mut latency = Latency::default();
            times.iter().for_each(|us| latency.add(Duration::from_micros(*us)));
            for power in Latency::METRIC_BOUNDS {
                prop_assert_eq!(latency.below(power), times.iter().filter(|us| **us < 1 << power).count() as u64);
            }
        }
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for at in 0..BUCKETS - 1 {
            assert_eq!(bucket(upper_us(at)), at + 1);
            assert_eq!(bucket(upper_us(at) - 1), at);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn what_was_counted_since_is_the_difference() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(0.5), None);
        latency.add(Duration::from_micros(10));
        let before = latency.clone();
        latency.add(Duration::from_millis(5));
        let since = latency.since(&before);
        assert_eq!((since.count(), since.total()), (1, Duration::from_millis(5)));
        assert_eq!(before.since(&latency), before, "a counter that began anew counts from its start");
    }
}
