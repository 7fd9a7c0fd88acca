//! Turns the latency of guest writes into the rate of background replication, and what is done into when it will end.
//!
//! # The control law
//!
//! A guest write that takes longer than the bound is slow, and one of a hundred may be. While the guest is active:
//!
//! - the rate is halved as soon as more than that are slow, and those that were saved up, at most what four seconds earn:
//!   guests write in clusters, so slow writes come in clusters too. What was under way then is not held against the new rate: for a tenth of a second nothing follows.
//! - it rises by a step every half second in which at most half of the allowed writes were slow, once what was slow beyond
//!   them has been made up for. So over time at most 1 % of the writes are slow, the probing included.
//! - it is halved from what was really reached, and rises only while at least half of it is used: a maximum far beyond
//!   what the device can do, or none at all ([`Rate::MAX`]), is as good as a close one.
//! - in between it stands still: at the 99th percentile itself, not beyond it and back. Around the rate that last was too
//!   high, steps are an eighth as long, so most of the time is spent just below it.
//!
//! When the guest did nothing for a second, the configured maximum holds at once; when it comes back, what it last bore.
//!
//! A guest that is slow on its own would stop seeding for ever: the rate never falls below `rate_min`, and no more slow
//! writes have to be made up for than half a minute earns. Only backpressure goes further: the share that the throttle
//! leaves ([`crate::Signals::seed_share`]) scales the result, down to 0.
//!
//! Not here: reading disks and keeping to the rate ([`crate::bandwidth::TokenBucket`] does).

use crate::error::{Result, require};
use crate::meter::{Meter, MeterOptions};
use crate::rate::{Rate, span};
use std::time::Duration;

/// How often the rate is decided upon.
pub const STEP: Duration = Duration::from_millis(500);
/// A guest without writes for so long is idle.
pub const IDLE_AFTER: Duration = Duration::from_secs(1);
/// From 0 to what last was too much in 16 s.
const STEPS: f64 = 32.0;
/// Steps are at least those of the way to the maximum or to this, in so many times the time.
const FAR: f64 = (1u64 << 30) as f64;
/// Beyond this much more than what was reached, a rate is a wish.
const HEADROOM: f64 = 1.25;
/// At least this part of the rate has to be used for it to rise.
const USED: f64 = 0.5;
/// How what was reached is measured.
const REACHED: MeterOptions = MeterOptions { window: STEP, lumps_min: 2 };
/// Without seeding for so long, the guest's latency says nothing about it.
const UNUSED_AFTER: Duration = Duration::from_secs(2);
/// Between these parts of what was too much, steps are shorter.
const NEAR: std::ops::Range<f64> = 0.75..1.25;
const NEAR_STEP: f64 = 0.125;
/// Writes that are answered so soon after the rate was halved say nothing about the new rate.
const SETTLE: Duration = Duration::from_millis(100);
/// Slow writes are saved up for so many steps.
const STEPS_OF_CREDIT: f64 = 8.0;
/// Slow writes are made up for in at most so many steps.
const STEPS_OF_DEBT: f64 = 60.0;
/// One write of so many may be slow.
const WRITES_PER_SLOW: f64 = 100.0;
/// Ends further away than this are not told: 100 days.
const ETA_MAX: Duration = Duration::from_secs(100 * 86_400);

/// How fast background replication may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedOptions {
    /// Never faster; [`Rate::MAX`] for no limit.
    pub rate_max: Rate,
    /// Never slower for the sake of latency; at most `rate_max`.
    pub rate_min: Rate,
    /// 99 % of the guest's writes shall be this fast.
    pub latency_bound: Duration,
}

impl Default for SeedOptions {
    /// At most 256 MiB/s, at least 1 MiB/s, writes within 20 ms.
    fn default() -> Self {
        Self { rate_max: Rate::new(256 << 20), rate_min: Rate::new(1 << 20), latency_bound: Duration::from_millis(20) }
    }
}

impl SeedOptions {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// A maximum of 0 or below the minimum, or a bound of 0.
    pub fn check(&self) -> Result<()> {
        require(self.rate_max > Rate::ZERO, "seed_rate_max", self.rate_max, "more than 0")?;
        require(self.rate_min <= self.rate_max, "seed_rate_min", self.rate_min, "at most seed_rate_max")?;
        let bound = self.latency_bound;
        require(!bound.is_zero(), "seed_latency_bound", format!("{bound:?}"), "more than 0")
    }
}

/// The rate of background replication of one domain.
#[derive(Clone, Debug)]
pub struct SeedControl {
    options: SeedOptions,
    /// What the guest bears, bytes a second.
    borne: f64,
    /// What it last did not bear.
    too_much: f64,
    /// When the current step began.
    stepped_at: Duration,
    /// Writes that are answered from then on count.
    counts_from: Duration,
    last_write: Option<Duration>,
    last_seeded: Option<Duration>,
    reached: Meter,
    /// In the current step.
    writes: u64,
    slow: u64,
    /// Slow writes that were saved up by the steps before; negative if they have to be made up for.
    saved: f64,
}

impl SeedControl {
    /// Begins with a quarter of the maximum for an active guest.
    ///
    /// # Errors
    /// Options that [`SeedOptions::check`] refuses.
    pub fn new(options: SeedOptions, now: Duration) -> Result<Self> {
        options.check()?;
        let max = options.rate_max.get() as f64;
        Ok(Self {
            options,
            borne: max / 4.0,
            too_much: max,
            stepped_at: now,
            counts_from: now,
            last_write: None,
            last_seeded: None,
            reached: Meter::new(REACHED, now),
            writes: 0,
            slow: 0,
            saved: 0.0,
        })
    }

    /// Changes the options while it runs.
    ///
    /// # Errors
    /// Options that [`SeedOptions::check`] refuses; the former ones stay.
    pub fn set_options(&mut self, options: SeedOptions) -> Result<()> {
        options.check()?;
        self.options = options;
        Ok(())
    }

    /// A guest write was acknowledged after `latency`, without what the throttle held it for.
    pub fn guest_write(&mut self, latency: Duration, now: Duration) {
        if self.is_idle(now) {
            // What was counted before the pause says nothing about the time after it.
            self.begin_step(now);
            self.counts_from = now.saturating_add(SETTLE);
        }
        self.last_write = Some(self.last_write.map_or(now, |at| at.max(now)));
        let slow = latency > self.options.latency_bound;
        if now >= self.counts_from {
            self.writes = self.writes.saturating_add(1);
            self.slow = self.slow.saturating_add(u64::from(slow));
        } else {
            self.saved += 1.0 / WRITES_PER_SLOW - if slow { 1.0 } else { 0.0 };
        }
    }

    /// So many bytes were read for background replication.
    pub fn seeded(&mut self, bytes: u64, now: Duration) {
        self.reached.add(bytes, now);
        self.last_seeded = Some(self.last_seeded.map_or(now, |at| at.max(now)));
    }

    /// True if the guest wrote nothing of late.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.last_write.is_none_or(|at| now.saturating_sub(at) >= IDLE_AFTER)
    }

    /// The rate from now on. Ask a few times a second; `seed_share` is what the throttle leaves, 0 to 1.
    pub fn rate(&mut self, seed_share: f64, now: Duration) -> Rate {
        let (min, max) = (self.options.rate_min.get() as f64, self.options.rate_max.get() as f64);
        let idle = self.is_idle(now);
        if !idle {
            self.decide(max, now);
        }
        self.borne = self.borne.clamp(min, max);
        let rate = if idle { max } else { self.borne };
        Rate::from_f64(rate * seed_share.clamp(0.0, 1.0))
    }

    fn decide(&mut self, max: f64, now: Duration) {
        if self.last_seeded.is_none_or(|at| now.saturating_sub(at) >= UNUSED_AFTER) {
            return self.begin_step(now);
        }
        let reached = self.reached.rate_f64(now).unwrap_or(0.0);
        let earned = self.writes as f64 / WRITES_PER_SLOW;
        let slow = self.slow as f64;
        let too_many = slow - earned > f64::max(self.saved, 1.0);
        if !too_many && now.saturating_sub(self.stepped_at) < STEP {
            return;
        }
        let elapsed = now.saturating_sub(self.stepped_at).max(SETTLE).as_secs_f64() / STEP.as_secs_f64();
        let step_earns = f64::max(earned / elapsed, 1.0);
        let saved = self.saved + earned - slow;
        self.saved = saved.clamp(-STEPS_OF_DEBT * step_earns, STEPS_OF_CREDIT * step_earns);
        if too_many {
            self.too_much = self.borne.min(reached * HEADROOM);
            self.borne = self.too_much / 2.0;
            self.counts_from = now.saturating_add(SETTLE);
        } else if self.writes > 0 && slow <= earned / 2.0 && self.saved >= 0.0 && reached >= USED * self.borne {
            let near = NEAR.contains(&(self.borne / self.too_much));
            let reach = f64::max(self.borne, self.too_much).max(max.min(FAR) / STEPS);
            self.borne += reach / STEPS * if near { NEAR_STEP } else { 1.0 };
        }
        self.begin_step(now);
    }

    fn begin_step(&mut self, now: Duration) {
        self.stepped_at = self.stepped_at.max(now);
        (self.writes, self.slow) = (0, 0);
    }
}

/// How far background replication of one disk is, and when it will end.
#[derive(Clone, Debug)]
pub struct Progress {
    total_bytes: u64,
    before_bytes: u64,
    meter: Meter,
}

impl Progress {
    /// Of `total_bytes`, `done_bytes` were done before: by a run before this one, say. They do not count as speed.
    pub fn new(total_bytes: u64, done_bytes: u64, now: Duration) -> Self {
        Self { total_bytes, before_bytes: done_bytes, meter: Meter::new(MeterOptions::PROGRESS, now) }
    }

    /// So many more bytes are done: shipped, or found to need no shipping.
    pub fn advance(&mut self, bytes: u64, now: Duration) {
        self.meter.add(bytes, now);
    }

    /// The disk was resized.
    pub fn set_total_bytes(&mut self, total_bytes: u64) {
        self.total_bytes = total_bytes;
    }

    /// Bytes that are done, at most all.
    pub fn done_bytes(&self) -> u64 {
        self.before_bytes.saturating_add(self.meter.total_bytes()).min(self.total_bytes)
    }

    /// Bytes in all.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// From 0 to 1; 1 for nothing to do.
    pub fn fraction(&self) -> f64 {
        if self.total_bytes == 0 { 1.0 } else { self.done_bytes() as f64 / self.total_bytes as f64 }
    }

    /// Of the last minute, bytes a second; `None` before anything was done.
    pub fn rate(&self, now: Duration) -> Option<Rate> {
        self.meter.rate(now)
    }

    /// How long it will take at the rate of the last minute; `None` while that is not known, or beyond 100 days.
    pub fn eta(&self, now: Duration) -> Option<Duration> {
        let left = self.total_bytes - self.done_bytes();
        if left == 0 {
            return Some(Duration::ZERO);
        }
        let rate = self.meter.rate_f64(now)?;
        Some(span(left as f64 / rate)).filter(|eta| *eta <= ETA_MAX)
    }
}
