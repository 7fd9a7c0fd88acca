//! Turns weighted durations into minimum, mean, 99th percentile and maximum over a sliding window, in bounded memory.
//!
//! The window slides in slices. Each has a histogram with eight buckets an octave, so a percentile is too large by at most
//! an eighth, and never larger than the maximum. Minimum, mean and maximum are exact to the microsecond.

use std::collections::VecDeque;
use std::time::Duration;

/// Slices of a window.
const SLICES: u64 = 12;
/// log2 of the buckets an octave.
const OCTAVE_BITS: u32 = 3;
/// Longer durations share the last bucket: 12 days.
const VALUE_US_MAX: u64 = (1 << 40) - 1;
const BUCKETS: usize = bucket(VALUE_US_MAX) + 1;

/// Values below 8 have a bucket each; above, the three bits after the leading one choose among eight.
const fn bucket(value_us: u64) -> usize {
    let octave = (value_us | 1).ilog2();
    if octave < OCTAVE_BITS {
        return value_us as usize;
    }
    let shift = octave - OCTAVE_BITS;
    ((shift as usize) << OCTAVE_BITS) + (value_us >> shift) as usize
}

/// The largest value of a bucket.
const fn bucket_last(bucket: usize) -> u64 {
    let octave = bucket >> OCTAVE_BITS;
    if octave == 0 {
        return bucket as u64;
    }
    let shift = octave - 1;
    let first = (bucket - (shift << OCTAVE_BITS)) as u64;
    ((first + 1) << shift) - 1
}

const _: () = assert!(bucket_last(bucket(7)) == 7 && bucket_last(bucket(8)) == 8 && bucket_last(bucket(17)) == 17);
const _: () = assert!(bucket_last(BUCKETS - 1) == VALUE_US_MAX);

/// What a window held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The smallest.
    pub min: Duration,
    /// The mean, weighted.
    pub mean: Duration,
    /// 99 % of the weight is at most this large. Rounded up, by at most an eighth.
    pub p99: Duration,
    /// The largest.
    pub max: Duration,
}

#[derive(Clone, Debug)]
struct Slice {
    number: u64,
    weights: Vec<u64>,
    sum_us: u128,
    min_us: u64,
    max_us: u64,
}

/// Durations over a sliding window.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    slice_us: u64,
    slices: VecDeque<Slice>,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Window {
    pub(crate) fn new(length: Duration) -> Self {
        Self { slice_us: micros(length).div_ceil(SLICES).max(1000 / SLICES), slices: VecDeque::new() }
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_micros(self.slice_us.saturating_mul(SLICES))
    }

    fn number(&self, now: Duration) -> u64 {
        // A clock that steps back goes on in the slice where it was.
        (micros(now) / self.slice_us).max(self.slices.back().map_or(0, |slice| slice.number))
    }

    pub(crate) fn add(&mut self, value: Duration, weight: u64, now: Duration) {
        let number = self.number(now);
        while self.slices.front().is_some_and(|slice| slice.number + SLICES <= number) {
            self.slices.pop_front();
        }
        if self.slices.back().is_none_or(|slice| slice.number < number) {
            let weights = vec![0; BUCKETS];
            self.slices.push_back(Slice { number, weights, sum_us: 0, min_us: u64::MAX, max_us: 0 });
        }
        let value_us = micros(value);
        if let Some(slice) = self.slices.back_mut() {
            let in_bucket = &mut slice.weights[bucket(value_us.min(VALUE_US_MAX))];
            *in_bucket = in_bucket.saturating_add(weight);
            slice.sum_us = slice.sum_us.saturating_add(u128::from(value_us) * u128::from(weight));
            slice.min_us = slice.min_us.min(value_us);
            slice.max_us = slice.max_us.max(value_us);
        }
        assert!(self.slices.len() as u64 <= SLICES, "{} slices, at most {SLICES}", self.slices.len());
    }

    fn live(&self, now: Duration) -> impl Iterator<Item = &Slice> {
        let number = self.number(now);
        self.slices.iter().filter(move |slice| slice.number + SLICES > number)
    }

    pub(crate) fn summary(&self, now: Duration) -> Option<Summary> {
        let min_us = self.live(now).map(|slice| slice.min_us).min()?;
        let max_us = self.live(now).map(|slice| slice.max_us).max()?;
        let sum_us = self.live(now).fold(0u128, |sum, slice| sum.saturating_add(slice.sum_us));
        let weight_of =
            |bucket: usize| self.live(now).map(move |slice| u128::from(slice.weights[bucket])).sum::<u128>();
        let weight: u128 = (0..BUCKETS).map(weight_of).sum();
        let mut above = weight;
        let p99_us = (0..BUCKETS).find(|&bucket| {
            above -= weight_of(bucket);
            above * 100 <= weight
        });
        // The last bucket has no upper end.
        let p99_us = p99_us.filter(|&bucket| bucket + 1 < BUCKETS).map_or(max_us, bucket_last).clamp(min_us, max_us);
        let mean_us = u64::try_from(sum_us / weight.max(1)).unwrap_or(u64::MAX).clamp(min_us, max_us);
        let [min, mean, p99, max] = [min_us, mean_us, p99_us, max_us].map(Duration::from_micros);
        Some(Summary { min, mean, p99, max })
    }
}
