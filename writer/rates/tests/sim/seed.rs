//! A disk that is seeded while its guest writes: one device, which serves reads and writes in turn.

use super::{Dice, MIB, secs};
use std::time::Duration;
use tidemark_rates::{Limit, SeedControl, SeedOptions, TokenBucket};

/// A device, a guest and a seeder.
#[derive(Clone, Debug)]
pub(crate) struct SeedSetup {
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) options: SeedOptions,
    /// Bytes a second that the device moves, reading or writing.
    pub(crate) device: f64,
    /// From a second on: writes a second of the guest, 16 KiB each. 0 is a pause.
    pub(crate) guest: Vec<(f64, f64)>,
    /// From a second on: what the throttle leaves.
    pub(crate) share: Vec<(f64, f64)>,
    /// What is read at once.
    pub(crate) read_bytes: u64,
    /// Every write takes at least this long.
    pub(crate) base: Duration,
}

/// One second of the run.
#[derive(Clone, Debug)]
pub(crate) struct SeedSample {
    pub(crate) at: f64,
    /// Bytes a second.
    pub(crate) seeded: f64,
    pub(crate) writes: u64,
    pub(crate) slow: u64,
    pub(crate) latency_p99: Duration,
    pub(crate) latency_max: Duration,
}

pub(crate) fn step_of(steps: &[(f64, f64)], at: f64) -> f64 {
    steps.iter().rev().find(|(from, _)| *from <= at).map_or(0.0, |(_, value)| *value)
}

pub(crate) fn run(setup: &SeedSetup) -> Vec<SeedSample> {
    const WRITE_BYTES: f64 = 16384.0;
    let mut dice = Dice(setup.seed);
    let mut control = SeedControl::new(setup.options, Duration::ZERO).expect("options hold");
    let rate = control.rate(1.0, Duration::ZERO);
    let mut bucket = TokenBucket::new(Limit::AtMost(rate), setup.read_bytes, Duration::ZERO).expect("a burst");
    let (mut next_write, mut next_read, mut next_rate, mut next_sample) = (0.0, 0.0, 0.0, 1.0);
    let mut device_free_at = 0.0;
    let mut answers: Vec<(f64, f64)> = Vec::new();
    let (mut samples, mut seeded, mut latencies) = (Vec::new(), 0.0, Vec::new());
    loop {
        let now = f64::min(f64::min(next_write, next_read), f64::min(next_rate, next_sample));
        if now > setup.seconds {
            return samples;
        }
        if now == next_write {
            let writes = step_of(&setup.guest, now);
            if writes == 0.0 {
                next_write = setup.guest.iter().map(|(from, _)| *from).find(|from| *from > now).unwrap_or(f64::MAX);
                continue;
            }
            // Guests write in clusters.
            let cluster = dice.pick(&[1, 1, 2, 4, 8]);
            for _ in 0..cluster {
                device_free_at = f64::max(device_free_at, now) + WRITE_BYTES / setup.device;
                let latency = device_free_at - now + setup.base.as_secs_f64() * dice.within(0.5, 1.5);
                answers.push((now + latency, latency));
            }
            next_write = now + f64::from(cluster) / writes * dice.within(0.0, 2.0);
        } else if now == next_read {
            let at = secs(now);
            let delay = bucket.delay(setup.read_bytes, at);
            if delay.is_zero() && device_free_at <= now + 0.02 {
                bucket.take(setup.read_bytes, at);
                device_free_at = f64::max(device_free_at, now) + setup.read_bytes as f64 / setup.device;
                seeded += setup.read_bytes as f64;
                control.seeded(setup.read_bytes, at);
            }
            next_read = now + f64::max(delay.as_secs_f64(), 0.0005).min(0.05);
        } else if now == next_rate {
            // Answers are told when they are known.
            answers.retain(|(at, latency)| {
                if *at <= now {
                    control.guest_write(secs(*latency), secs(*at));
                    latencies.push(secs(*latency));
                }
                *at > now
            });
            let rate = control.rate(step_of(&setup.share, now), secs(now));
            bucket.set_limit(Limit::AtMost(rate), secs(now));
            next_rate = now + 0.05;
        } else {
            latencies.sort();
            let slow = latencies.iter().filter(|latency| **latency > setup.options.latency_bound).count() as u64;
            let writes = latencies.len() as u64;
            let at_99 = latencies.len().saturating_sub(1) * 99 / 100;
            samples.push(SeedSample {
                at: now,
                seeded,
                writes,
                slow,
                latency_p99: latencies.get(at_99).copied().unwrap_or_default(),
                latency_max: latencies.last().copied().unwrap_or_default(),
            });
            seeded = 0.0;
            latencies.clear();
            next_sample = now + 1.0;
        }
    }
}

/// A guest with 2,000 writes a second from second 30 to 120 on a device of 200 MiB/s, which is seeded.
pub(crate) fn busy() -> SeedSetup {
    SeedSetup {
        seed: 1,
        seconds: 180.0,
        options: SeedOptions { latency_bound: Duration::from_millis(10), ..SeedOptions::default() },
        device: 200.0 * MIB as f64,
        guest: vec![(0.0, 0.0), (30.0, 2_000.0), (120.0, 0.0)],
        share: vec![(0.0, 1.0)],
        read_bytes: MIB / 2,
        base: Duration::from_millis(1),
    }
}
