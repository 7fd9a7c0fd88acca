//! Whether a disk is written as it never was: an encryptor at work looks like that.
//!
//! Every ten seconds of writes become a [`Features`]: how random the data is, how much of it overwrites what the same ten seconds
//! wrote, and how fast it comes. Each is compared with the disk's own past by a robust z: its distance from the median over
//! 1.4826 times the median absolute deviation (which is a standard deviation where the past is normal), and a floor below which nothing
//! is unusual. The [score](Anomaly::take) is
//!
//! ```text
//! 0.5 clip(z of entropy, upwards) + 0.25 clip(z of rate, upwards) + 0.25 clip(z of overwriting, either way)
//! ```
//!
//! with clip(z) = min(z, 8) / 8, so 0 is usual and 1 unusual in every way. Two windows in a row at 0.6 or more raise an alarm, six
//! in a row below 0.3 clear it. More than half of the score is needed, so neither a burst of ordinary data nor a few
//! random blocks do it; what is written compressed and in bulk for the first time does, and looks the same to anybody who sees blocks only.
//! The past is one window of each minute that wrote, 1,440 of them: what happens every day is in it, and what goes on for half of
//! them becomes usual by itself. Invariant: at most 34 KiB of memory for a disk.
//! Not here: what is measured of blocks ([`crate::core::probe`]), and who is told (the appliance).

use crate::core::estimate::SAMPLE_BYTES;
use std::collections::VecDeque;
use std::time::Duration;

/// Windows in a period, which is a minute but for tests. One of them joins the past.
pub(crate) const WINDOWS_PER_PERIOD: u32 = 6;
/// Blocks that have to be sampled for a window to say anything.
const SAMPLES_MIN: u64 = 4;
/// Windows of the past, one of each minute that wrote.
const PAST_MAX: usize = 1_440;
/// With fewer nobody knows what is usual.
const PAST_MIN: usize = 30;
/// A z beyond this is as unusual as can be.
const Z_MAX: f64 = 8.0;
/// From the median absolute deviation to a standard deviation.
const MAD_TO_SIGMA: f64 = 1.4826;
/// What is below these is never unusual: entropy and overwriting as parts of 1, the rate in doublings.
const FLOORS: Features = Features { entropy: 0.03, overwrite: 0.1, rate: 0.5 };
const RAISE_SCORE: f64 = 0.6;
const RAISE_WINDOWS: u32 = 2;
const CLEAR_SCORE: f64 = 0.3;
const CLEAR_WINDOWS: u32 = 6;

/// What was written in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Features {
    /// Mean entropy of sampled blocks, 0 to 1.
    pub entropy: f64,
    /// Of the blocks written, the part that the window had written before, 0 to 1.
    pub overwrite: f64,
    /// The logarithm to base 2 of bytes a second.
    pub rate: f64,
}

impl Features {
    /// Of a window; `None` if so little was written that it says nothing.
    pub(crate) fn of(blocks: u64, distinct: f64, entropy_sum: f64, samples: u64, took: Duration) -> Option<Self> {
        if samples < SAMPLES_MIN || blocks == 0 || took.is_zero() {
            return None;
        }
        let blocks = blocks as f64;
        Some(Self {
            entropy: entropy_sum / samples as f64,
            overwrite: ((blocks - distinct) / blocks).clamp(0.0, 1.0),
            rate: (blocks * SAMPLE_BYTES as f64 / took.as_secs_f64()).log2(),
        })
    }
}

/// What a window made of an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It began.
    Raised,
    /// It is over.
    Cleared,
}

/// What is usual for a disk, and whether it still is.
#[derive(Debug, Default)]
pub(crate) struct Anomaly {
    past: VecDeque<Features>,
    /// When the newest of them was taken, by the monotonic clock.
    taken: Option<Duration>,
    score: Option<f64>,
    /// Windows in a row that speak for the other state.
    against: u32,
    alarmed: bool,
}

impl Anomaly {
    /// Takes in a window that ended now; the past has one of each `period`.
    pub(crate) fn take(&mut self, now: Duration, period: Duration, window: Features) -> Option<Turn> {
        self.score = self.score_of(window);
        if self.taken.is_none_or(|taken| now >= taken + period) {
            self.taken = Some(now);
            if self.past.len() == PAST_MAX {
                self.past.pop_front();
            }
            self.past.push_back(window);
        }
        let score = self.score?;
        let (speaks, needed) = match self.alarmed {
            false => (score >= RAISE_SCORE, RAISE_WINDOWS),
            true => (score < CLEAR_SCORE, CLEAR_WINDOWS),
        };
        self.settle(speaks, needed)
    }

    /// Takes in a window in which next to nothing was written.
    pub(crate) fn take_quiet(&mut self) -> Option<Turn> {
        self.score = (self.past.len() >= PAST_MIN).then_some(0.0);
        self.settle(self.alarmed, CLEAR_WINDOWS)
    }

    fn settle(&mut self, speaks: bool, needed: u32) -> Option<Turn> {
        self.against = if speaks { self.against + 1 } else { 0 };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.alarmed = !self.alarmed;
        Some(if self.alarmed { Turn::Raised } else { Turn::Cleared })
    }

    /// How unusual the newest window was, 0 to 1; `None` before enough of the past is known.
    pub(crate) fn score(&self) -> Option<f64> {
        self.score
    }

    /// Whether there is an alarm.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.alarmed
    }

    /// Whether nothing speaks for an alarm: no alarm, and the newest window is not half of one.
    pub(crate) fn is_clean(&self) -> bool {
        !self.alarmed && self.score.is_none_or(|score| score < CLEAR_SCORE)
    }

    fn score_of(&self, window: Features) -> Option<f64> {
        if self.past.len() < PAST_MIN {
            return None;
        }
        let z = |of: fn(&Features) -> f64| robust_z(self.past.iter().map(of).collect(), of(&window), of(&FLOORS));
        let clip = |z: f64| z.clamp(0.0, Z_MAX) / Z_MAX;
        let (entropy, rate) = (clip(z(|of| of.entropy)), clip(z(|of| of.rate)));
        let overwrite = clip(z(|of| of.overwrite).abs());
        Some(0.5 * entropy + 0.25 * rate + 0.25 * overwrite)
    }
}

/// How many deviations a value lies above the median of others, of which there is one at least.
fn robust_z(mut past: Vec<f64>, value: f64, floor: f64) -> f64 {
    let middle = median(&mut past);
    past.iter_mut().for_each(|of| *of = (*of - middle).abs());
    (value - middle) / (MAD_TO_SIGMA * median(&mut past)).max(floor)
}

fn median(values: &mut [f64]) -> f64 {
    let nth = values.len() / 2;
    *values.select_nth_unstable_by(nth, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::estimate::mix;

    /// Ordinary windows, a minute apart: text-like data, some overwriting, rates over a few doublings.
    fn usual(seed: u64) -> Features {
        let part = |salt: u64| (mix(seed << 8 | salt) % 1000) as f64 / 1000.0;
        Features { entropy: 0.5 + 0.1 * part(1), overwrite: 0.2 + 0.2 * part(2), rate: 18.0 + 3.0 * part(3) }
    }

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    fn learned(count: u64) -> Anomaly {
        let mut anomaly = Anomaly::default();
        for nth in 0..count {
            assert_eq!(anomaly.take(minutes(nth), PERIOD, usual(nth)), None, "{nth}: {anomaly:?}");
        }
        anomaly
    }

    const PERIOD: Duration = Duration::from_secs(60);
    const WINDOW: Duration = Duration::from_secs(10);
    const ENCRYPTOR: Features = Features { entropy: 0.99, overwrite: 0.0, rate: 24.0 };

    #[test]
    fn nothing_is_unusual_before_the_past_is_known() {
        let mut anomaly = learned(PAST_MIN as u64 - 1);
        assert_eq!((anomaly.take(minutes(100), PERIOD, ENCRYPTOR), anomaly.score()), (None, None));
        assert!(anomaly.is_clean());
    }

    #[test]
    fn a_jump_in_every_way_is_an_alarm_after_two_windows_and_quiet_clears_it() {
        let mut anomaly = learned(200);
        let at = minutes(200);
        assert_eq!(anomaly.take(at, PERIOD, ENCRYPTOR), None);
        assert!(anomaly.score().is_some_and(|score| score >= RAISE_SCORE) && !anomaly.is_clean());
        assert_eq!(anomaly.take(at + WINDOW, PERIOD, ENCRYPTOR), Some(Turn::Raised));
        assert_eq!(anomaly.take(at + 2 * WINDOW, PERIOD, ENCRYPTOR), None, "it is told once");
        for _ in 1..CLEAR_WINDOWS {
            assert_eq!(anomaly.take_quiet(), None);
        }
        assert_eq!(anomaly.take_quiet(), Some(Turn::Cleared));
        assert!(anomaly.is_clean() && !anomaly.is_alarmed());
    }

    #[test]
    fn one_way_alone_is_no_alarm() {
        let usual = Features { entropy: 0.55, overwrite: 0.3, rate: 19.5 };
        for window in [
            Features { rate: 30.0, ..usual },
            Features { entropy: 1.0, ..usual },
            Features { overwrite: 1.0, rate: 30.0, ..usual },
            Features { entropy: 0.0, rate: 30.0, ..usual },
        ] {
            let mut anomaly = learned(200);
            for nth in 0..20 {
                assert_eq!(anomaly.take(minutes(200) + nth * WINDOW, PERIOD, window), None, "{window:?}: {anomaly:?}");
            }
        }
    }

    #[test]
    fn what_goes_on_for_long_becomes_usual_and_memory_is_bounded() {
        let mut anomaly = learned(60);
        let turns: Vec<_> = (60..2000).filter_map(|nth| anomaly.take(minutes(nth), PERIOD, ENCRYPTOR)).collect();
        assert_eq!(turns, [Turn::Raised, Turn::Cleared]);
        assert_eq!(anomaly.past.len(), PAST_MAX);
        assert!(PAST_MAX * size_of::<Features>() <= 36 << 10);
    }

    #[test]
    fn windows_that_say_nothing_are_left_out() {
        let of = |blocks, samples, took| Features::of(blocks, 1.0, 2.0, samples, Duration::from_secs(took));
        assert_eq!((of(0, 9, 10), of(9, SAMPLES_MIN - 1, 10), of(9, 9, 0)), (None, None, None));
        let features = of(16, 4, 1).unwrap();
        assert_eq!((features.entropy, features.overwrite, features.rate), (0.5, 0.9375, 16.0));
    }
}
