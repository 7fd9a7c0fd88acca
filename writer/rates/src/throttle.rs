//! Turns the fill of a domain's log into how long each guest write is held, so that the guest writes no faster than the
//! bucket takes, and no write waits for longer than a configured time.
//!
//! # The control law
//!
//! Between `start_fill` and `overflow_fill` lies the throttle's band, in its middle the fill at which it settles. With
//! `e` the bytes in the log beyond that middle (negative below it), `B` half the band, `d` the measured drain rate and
//! `T` the delay of the loop (the longest hold and the interval between observations), the guest may write
//!
//! ```text
//! rate = d * W / (W + e)                W = max(B, 4 d T),   -B <= e <= B
//! hold of one write <= added_latency_max * min(1, (B + e) / B)
//! ```
//!
//! # Why it is stable
//!
//! The drain rate is fed forward, not sought: while there is a backlog it depends on the link alone, so it closes no loop.
//! It falls with the measured one, but takes 10 s to rise from 0 to it: when a link returns, the guest speeds up and does
//! not jump.
//!
//! What is left is the fill, an integrator: `e' = rate - d = -d e / (W + e)`. As `W + e > 0`, `e²` falls wherever `e` is
//! not 0: from any start the fill goes to the middle and never crosses it. Near the middle this is a first-order lag with
//! the time constant `W / d`, the time in which the drain empties half a band. A first-order loop with a delay of `T` does
//! not oscillate while `T` is less than 1/2.72 of its time constant; here it is at most 1/4. That is all that `4 d T` is
//! for: a log that is small beside what the link moves within `T` is steered more softly.
//!
//! The second line bounds the latency, and keeps out cliffs: at `start_fill` it allows no hold at all, whatever `d` is
//! measured to be, so holds grow from zero even if the link dies at that moment. It only ever lets more through than the
//! first line, and both fall as the fill rises, so together they cross `d` once: still one point of rest, approached from
//! either side. That point is above the middle only if the guest keeps so many bytes in flight that the longest hold
//! cannot slow it down to `d`: no bounded latency slows a guest below `bytes in flight / added_latency_max`. Then the log
//! overflows, and the policy of each disk decides.
//!
//! With a steady link, what remains after settling is half of the lump in which the log is freed, and what the guest may
//! write within the loop's delay: `|e| <= lump / 2 + d T`. Where lumps take up to 30 % longer or shorter, another 15 % of
//! `W`. Both are tested over seeds.
//!
//! # Fairness
//!
//! The rate is shared max-min: each disk may write at the same rate `share`, and what slow disks leave over goes to the
//! others. A disk that asks for less than its equal part of the rate is not held beyond what its own bursts cost.
//! In overflow, the disks that hold at least an equal part of the pending bytes stall or degrade; the others go on until
//! the log is filled half way from `overflow_fill` to the brim.
//!
//! # Stages
//!
//! [`Stage`] names what happens, with hysteresis where stages change: a stage is left for a lower one only 2 % of the
//! log below where it begins, overflow only when the fill is back at the middle of the band. Rates and holds follow the
//! fill itself, without steps.
//!
//! Invariants: a hold never exceeds `added_latency_max`, and is 0 below `start_fill`; what is admitted never fills the log
//! beyond `overflow_fill` for a heavy disk, nor beyond half way from there to the brim for any.
//! Not here: holding (the shell does it), remembering that a disk is degraded until its resync (the engine does), and how
//! much space a domain may have.

mod disk;
mod options;

pub use options::{ADDED_LATENCY_LIMIT, DiskOptions, OnOverflow, ThrottleOptions};

use crate::error::Result;
use crate::meter::{Meter, MeterOptions};
use crate::rate::{Rate, span};
use disk::Disk;
use std::collections::BTreeMap;
use std::time::Duration;
use tidemark_format::DiskId;

/// Call [`Throttle::observe`] at least this often.
pub const OBSERVE_INTERVAL_MAX: Duration = Duration::from_millis(250);
/// The stages below overflow are left this much of the log below where they begin.
const STAGE_HYSTERESIS: f64 = 0.02;
/// The drain rate of the control law takes this long to rise from 0 to what is measured; it falls at once.
const DRAIN_RISE: Duration = Duration::from_secs(10);

/// What backpressure does at the moment, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Nothing is slowed.
    Free,
    /// Background replication is slowed, so that the link serves new writes.
    SeedSlowed,
    /// Background replication stands still and guest writes are held.
    Throttled,
    /// The log is full up to `overflow_fill`: heavy disks stall or degrade.
    Overflow,
}

/// What the engine knows of a domain's log. All counters are of plain bytes in the log, before compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Taken by records that are not free yet. Writes that were admitted and are still held may count or not; if they do
    /// not, the log may be filled beyond `overflow_fill` by what is held at one moment.
    pub used_bytes: u64,
    /// What the domain may take.
    pub space_bytes: u64,
    /// Freed since the domain was opened, because the bucket has them. Never falls.
    pub drained_bytes_total: u64,
}

/// What shall happen to a write of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Log it after so long, at most `added_latency_max`.
    Hold(Duration),
    /// Keep it back until an observation finds [`Throttle::is_overflowed`] false for its disk, then ask again, in order.
    Stall,
    /// Do not log it: mark its blocks in the disk's bitmap and record the gap. The disk stays degraded until its resync,
    /// and until then nobody asks here for its writes.
    Degrade,
}

/// What the throttle makes of the last observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signals {
    /// What happens.
    pub stage: Stage,
    /// Of the domain's space, 0 to 1.
    pub fill: f64,
    /// What all disks together may write; `None` if there is no limit, or if the drain rate is not known yet.
    pub guest_rate_max: Option<Rate>,
    /// What one disk may write; `None` as above.
    pub disk_rate_max: Option<Rate>,
    /// The bucket takes this much; `None` before it took anything.
    pub drain: Option<Rate>,
    /// No write is held longer than this now.
    pub hold_max: Duration,
    /// Background replication may use this part of its rate, 0 to 1.
    pub seed_share: f64,
}

/// The guest-write controller of one domain.
#[derive(Clone, Debug)]
pub struct Throttle {
    options: ThrottleOptions,
    disks: BTreeMap<DiskId, Disk>,
    drain: Meter,
    drained_bytes_total: Option<u64>,
    /// `d` of the control law, bytes a second.
    drain_ramped: f64,
    observed_at: Duration,
    space_bytes: u64,
    /// Used at the last observation, and admitted since.
    promised_bytes: u64,
    signals: Signals,
    /// Bytes a second that one disk may write; infinite if there is no limit.
    share: f64,
}

impl Throttle {
    /// A throttle that has seen nothing yet: it holds nothing before the first observation.
    ///
    /// # Errors
    /// Options that [`ThrottleOptions::check`] refuses.
    pub fn new(options: ThrottleOptions, now: Duration) -> Result<Self> {
        options.check()?;
        let signals = Signals {
            stage: Stage::Free,
            fill: 0.0,
            guest_rate_max: None,
            disk_rate_max: None,
            drain: None,
            hold_max: Duration::ZERO,
            seed_share: 1.0,
        };
        let drain = Meter::new(MeterOptions::LUMPS, now);
        let disks = BTreeMap::new();
        Ok(Self {
            options,
            disks,
            drain,
            drained_bytes_total: None,
            drain_ramped: 0.0,
            observed_at: now,
            space_bytes: u64::MAX,
            promised_bytes: 0,
            signals,
            share: f64::INFINITY,
        })
    }

    /// Changes the options; they take effect with the next observation.
    ///
    /// # Errors
    /// Options that [`ThrottleOptions::check`] refuses; the former ones stay.
    pub fn set_options(&mut self, options: ThrottleOptions) -> Result<()> {
        options.check()?;
        self.options = options;
        Ok(())
    }

    /// A disk is protected from now on, or with other options.
    pub fn set_disk(&mut self, id: DiskId, options: DiskOptions, now: Duration) {
        self.disks.entry(id).or_insert_with(|| Disk::new(now)).options = options;
    }

    /// A disk is not protected any more.
    pub fn remove_disk(&mut self, id: DiskId) {
        self.disks.remove(&id);
    }

    /// What the last observation led to.
    pub fn signals(&self) -> Signals {
        self.signals
    }

    /// Bytes a second that this disk writes into the log.
    pub fn guest_rate(&self, id: DiskId, now: Duration) -> Rate {
        self.disks.get(&id).and_then(|disk| disk.written.rate(now)).unwrap_or_default()
    }

    /// True if writes of this disk stall or degrade now.
    pub fn is_overflowed(&self, id: DiskId) -> bool {
        self.disks.get(&id).is_some_and(|disk| disk.overflowed)
    }

    /// Takes in the state of the log; `pending_bytes` tells how many of the used bytes are of a disk. Call it at every
    /// commit, and at least every [`OBSERVE_INTERVAL_MAX`].
    pub fn observe(&mut self, load: Load, mut pending_bytes: impl FnMut(DiskId) -> u64, now: Duration) -> Signals {
        // The first total is a starting point, not a transfer.
        let before = self.drained_bytes_total.replace(load.drained_bytes_total);
        let drained = load.drained_bytes_total.saturating_sub(before.unwrap_or(load.drained_bytes_total));
        if drained > 0 {
            self.drain.add(drained, now);
        } else if load.used_bytes == 0 {
            self.drain.idle(now);
        } else {
            self.drain.busy(now);
        }
        for (id, disk) in &mut self.disks {
            disk.pending_bytes = pending_bytes(*id);
        }

        self.space_bytes = load.space_bytes.max(1);
        self.promised_bytes = load.used_bytes;
        let space = self.space_bytes as f64;
        let fill = (load.used_bytes as f64 / space).min(1.0);
        let drain = self.drain.rate_f64(now);
        let since = now.saturating_sub(self.observed_at).as_secs_f64();
        self.observed_at = self.observed_at.max(now);
        // A link of which nothing is known is taken for one that is away: only the latency bound lets writes through.
        let measured = drain.unwrap_or(0.0);
        self.drain_ramped = measured.min(self.drain_ramped + measured * since / DRAIN_RISE.as_secs_f64());
        let rate = self.guest_rate_max(load.used_bytes as f64, space);
        self.share = self.fair_share(rate, now);
        let stage = self.next_stage(fill);
        // Once a disk stalls or degrades, it does until overflow is left.
        for disk in self.disks.values_mut() {
            disk.overflowed &= stage == Stage::Overflow;
        }
        let limit = |rate: f64| (drain.is_some() && rate.is_finite()).then(|| Rate::from_f64(rate));
        self.signals = Signals {
            stage,
            fill,
            guest_rate_max: limit(rate),
            disk_rate_max: limit(self.share),
            drain: drain.map(Rate::from_f64),
            hold_max: self.hold_max(fill),
            seed_share: self.seed_share(fill),
        };
        self.signals
    }

    /// The first line of the control law; infinite at and below `start_fill`.
    fn guest_rate_max(&self, used: f64, space: f64) -> f64 {
        let start = self.options.start_fill * space;
        if used <= start {
            return f64::INFINITY;
        }
        let drain = self.drain_ramped;
        let middle = self.options.settle_fill() * space;
        let half_band = middle - start;
        let delay = (self.options.added_latency_max + OBSERVE_INTERVAL_MAX).as_secs_f64();
        let width = half_band.max(4.0 * drain * delay);
        let excess = (used - middle).min(half_band);
        drain * width / (width + excess)
    }

    /// The second line of the control law.
    fn hold_max(&self, fill: f64) -> Duration {
        let start = self.options.start_fill;
        let along = ((fill - start) / (self.options.settle_fill() - start)).clamp(0.0, 1.0);
        span(self.options.added_latency_max.as_secs_f64() * along).min(self.options.added_latency_max)
    }

    fn seed_share(&self, fill: f64) -> f64 {
        let ThrottleOptions { seed_fill, start_fill, .. } = self.options;
        if fill <= seed_fill {
            return 1.0;
        }
        ((start_fill - fill) / (start_fill - seed_fill)).max(0.0)
    }

    /// What each disk may write so that all together write `rate`: disks that were held take as much as they get, the
    /// others what they took of late. Never less than an equal part for each disk that writes.
    fn fair_share(&mut self, rate: f64, now: Duration) -> f64 {
        let (mut held, mut writing, mut taken) = (0.0, 0.0, 0.0);
        for disk in self.disks.values_mut() {
            let written = disk.written.rate_f64(now).unwrap_or(0.0);
            let was_held = disk.take_held(now);
            if was_held {
                held += 1.0;
            } else {
                taken += written;
            }
            if was_held || written > 0.0 {
                writing += 1.0;
            }
        }
        let left = rate - taken;
        let equal = rate / f64::max(writing, 1.0);
        f64::max(left / f64::max(held, 1.0), equal)
    }

    fn next_stage(&self, fill: f64) -> Stage {
        let ThrottleOptions { seed_fill, start_fill, overflow_fill, .. } = self.options;
        let from = self.signals.stage;
        let begins = [(Stage::SeedSlowed, seed_fill), (Stage::Throttled, start_fill), (Stage::Overflow, overflow_fill)];
        let reached = |(stage, begin): &(Stage, f64)| {
            let kept = match stage {
                Stage::Overflow => self.options.settle_fill(),
                _ => begin - STAGE_HYSTERESIS,
            };
            if from >= *stage { fill > kept } else { fill >= *begin }
        };
        begins.iter().rev().find(|entry| reached(entry)).map_or(Stage::Free, |(stage, _)| *stage)
    }

    /// What the log holds and `bytes` more fill it so far that this disk has to stop.
    fn overflows(&self, id: DiskId, bytes: u64) -> bool {
        let promised = self.promised_bytes.saturating_add(bytes);
        let fill = promised as f64 / self.space_bytes as f64;
        let overflow_fill = self.options.overflow_fill;
        // While overflow is left, no disk joins it, however the parts shift.
        if fill < overflow_fill {
            return false;
        }
        let pending = |disk: &Disk| u128::from(disk.pending_bytes);
        let sharers = self.disks.values().filter(|disk| disk.pending_bytes > 0).count() as u128;
        let own = self.disks.get(&id).map_or(0, pending) + u128::from(bytes);
        own * sharers >= self.disks.values().map(pending).sum() || fill >= (overflow_fill + 1.0) / 2.0
    }

    /// A write of `bytes` came in: what shall happen to it. A disk that was never set is not throttled.
    pub fn admit(&mut self, id: DiskId, bytes: u64, now: Duration) -> Admission {
        let overflows = self.overflows(id, bytes);
        let hold_max = self.signals.hold_max;
        let Some(disk) = self.disks.get_mut(&id) else {
            return Admission::Hold(Duration::ZERO);
        };
        if overflows || disk.overflowed {
            disk.overflowed = true;
            self.signals.stage = Stage::Overflow;
            return match disk.options.on_overflow {
                OnOverflow::Stall => Admission::Stall,
                OnOverflow::Degrade => Admission::Degrade,
            };
        }
        let hold = disk.pace(bytes, self.share, hold_max, self.options.added_latency_max, now);
        disk.pending_bytes = disk.pending_bytes.saturating_add(bytes);
        self.promised_bytes = self.promised_bytes.saturating_add(bytes);
        assert!(hold <= hold_max, "a write is held {hold:?}, at most {hold_max:?}");
        Admission::Hold(hold)
    }
}
