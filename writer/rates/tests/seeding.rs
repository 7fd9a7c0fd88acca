//! Seeding beside a guest: the guest's latency keeps its bound, and the rest of the device is used.

mod sim;

use proptest::collection::vec;
use proptest::prelude::*;
use sim::seed::{SeedSample, SeedSetup, busy, run};
use sim::{Dice, MIB, secs, seeds};
use std::time::Duration;
use tidemark_rates::{Progress, Rate, SeedControl, SeedOptions};

fn slow_part(samples: &[SeedSample], from: f64, to: f64) -> f64 {
    let (slow, writes) = samples
        .iter()
        .filter(|sample| sample.at > from && sample.at <= to)
        .fold((0, 0), |(slow, writes), sample| (slow + sample.slow, writes + sample.writes));
    slow as f64 / writes as f64
}

fn seeded_mean(samples: &[SeedSample], from: f64, to: f64) -> f64 {
    samples.iter().filter(|sample| sample.at > from && sample.at <= to).map(|sample| sample.seeded).sum::<f64>()
        / (to - from)
}

#[test]
fn sim_a_busy_guest_keeps_its_latency_and_seeding_takes_what_is_left() {
    let samples = run(&busy());
    assert!(seeded_mean(&samples, 0.0, 30.0) > 195.0 * MIB as f64, "an idle guest leaves the whole device");
    // At once, not after a ramp.
    assert!(seeded_mean(&samples, 122.0, 124.0) > 195.0 * MIB as f64, "and does so again");
    let slow = slow_part(&samples, 30.0, 121.0);
    assert!(slow < 0.01, "{slow} of the writes are slow, the return of the guest included");
    // 2,000 writes of 16 KiB leave 169 MiB/s.
    let seeded = seeded_mean(&samples, 45.0, 120.0) / MIB as f64;
    assert!((120.0..169.0).contains(&seeded), "{seeded} MiB/s");
}

#[test]
fn sim_any_guest_keeps_its_latency_and_leaves_much_of_the_rest() {
    // Around what the device can do, far beyond it, none.
    let maxima = [Rate::new(512 << 20), Rate::new(10 << 30), Rate::MAX];
    for seed in seeds() {
        let mut dice = Dice(seed);
        let device = dice.within(50.0, 500.0) * MIB as f64;
        let latency_bound = secs(dice.within(0.005, 0.020));
        let writes = device * dice.within(0.02, 0.4) / 16384.0;
        let setup = SeedSetup {
            seed,
            seconds: 240.0,
            options: SeedOptions { latency_bound, rate_max: dice.pick(&maxima), ..SeedOptions::default() },
            device,
            guest: vec![(0.0, writes)],
            read_bytes: (device * latency_bound.as_secs_f64() / 5.0) as u64,
            base: latency_bound / 10,
            ..busy()
        };
        let samples = run(&setup);
        let slow = slow_part(&samples, 40.0, 240.0);
        assert!(slow <= 0.01, "{slow} of the writes are slow: {setup:?}");
        let (seeded, left) = (seeded_mean(&samples, 40.0, 240.0), device - writes * 16384.0);
        // On a slow device the clusters of the guest's own writes come near the bound.
        assert!(seeded > 0.4 * left, "seeds {seeded} of {left}: {setup:?}");
    }
}

#[test]
fn sim_a_guest_that_is_slow_on_its_own_slows_seeding_to_its_minimum_and_no_further() {
    let mut setup = busy();
    setup.guest = vec![(0.0, 100.0)];
    setup.base = Duration::from_millis(100);
    let rate = seeded_mean(&run(&setup), 20.0, 180.0) / MIB as f64;
    assert!((0.9..1.1).contains(&rate), "{rate} MiB/s");
}

#[test]
fn sim_backpressure_stops_seeding_whatever_the_guest_does() {
    let mut setup = busy();
    setup.share = vec![(0.0, 1.0), (60.0, 0.0), (90.0, 1.0)];
    let samples = run(&setup);
    assert_eq!(seeded_mean(&samples, 61.0, 90.0), 0.0);
    let after = seeded_mean(&samples, 92.0, 120.0) / MIB as f64;
    assert!((90.0..169.0).contains(&after), "{after} MiB/s");
}

#[test]
fn an_idle_guest_leaves_the_maximum_and_a_waking_one_what_it_bore_before() {
    let mut control = SeedControl::new(SeedOptions::default(), Duration::ZERO).unwrap();
    let max = SeedOptions::default().rate_max;
    assert_eq!(control.rate(1.0, secs(1.0)), max);
    for n in 0..1_000 {
        let now = secs(2.0 + f64::from(n) / 100.0);
        control.seeded(1 << 20, now);
        control.guest_write(Duration::from_millis(50), now);
        control.rate(1.0, now);
    }
    let borne = control.rate(1.0, secs(12.0));
    assert_eq!(borne, SeedOptions::default().rate_min);
    assert_eq!(control.rate(1.0, secs(20.0)), max);
    assert_eq!(control.rate(0.25, secs(20.0)).get(), max.get() / 4);
    control.guest_write(Duration::from_millis(1), secs(20.1));
    assert_eq!(control.rate(1.0, secs(20.1)), borne);
}

#[test]
fn a_guest_that_is_slow_while_nothing_is_seeded_says_nothing_about_seeding() {
    let mut control = SeedControl::new(SeedOptions::default(), Duration::ZERO).unwrap();
    for n in 0..1_000 {
        let now = secs(f64::from(n) / 100.0);
        control.guest_write(Duration::from_millis(50), now);
        assert_eq!(control.rate(1.0, now).get(), SeedOptions::default().rate_max.get() / 4);
    }
}

#[test]
fn options_that_cannot_work_are_refused() {
    let refused = |change: fn(&mut SeedOptions)| {
        let mut options = SeedOptions::default();
        change(&mut options);
        SeedControl::new(options, Duration::ZERO).unwrap_err().to_string()
    };
    assert_eq!(refused(|o| o.rate_max = Rate::ZERO), "seed_rate_max is 0 B/s: more than 0");
    assert_eq!(refused(|o| o.rate_max = Rate::new(1)), "seed_rate_min is 1.0 MiB/s: at most seed_rate_max");
    assert_eq!(refused(|o| o.latency_bound = Duration::ZERO), "seed_latency_bound is 0ns: more than 0");
}

proptest! {
    #[test]
    fn prop_the_eta_of_a_steady_run_is_right_and_never_panics(
        total in 1_000_000_000..100_000_000_000u64, rate in 1_000_000..100_000_000u64, before in 0..900_000_000u64,
        stumbles in vec(0..10u64, 0..40)
    ) {
        let mut progress = Progress::new(total, before, Duration::ZERO);
        prop_assert_eq!(progress.eta(secs(1.0)), None);
        let mut now = 0.0;
        for pause in stumbles {
            now += pause as f64;
            progress.advance(rate, secs(now));
            progress.eta(secs(now));
        }
        // After a minute at one rate, nothing else counts.
        while now < 470.0 && progress.done_bytes() < total {
            now += 1.0;
            progress.advance(rate, secs(now));
        }
        let left = (total - progress.done_bytes()) as f64 / rate as f64;
        let eta = progress.eta(secs(now)).unwrap().as_secs_f64();
        prop_assert!((eta - left).abs() <= left * 0.02 + 1e-6, "{eta}, is {left}");
        prop_assert!((0.0..=1.0).contains(&progress.fraction()));
    }
}

#[test]
fn a_run_that_stands_still_has_no_end_in_sight() {
    let mut progress = Progress::new(1 << 36, 0, Duration::ZERO);
    for second in 1..=100 {
        progress.advance(1 << 20, secs(f64::from(second)));
    }
    let eta = progress.eta(secs(100.0)).unwrap();
    assert!((eta.as_secs_f64() / f64::from((1 << 16) - 100) - 1.0).abs() < 0.02, "{eta:?}");
    // The estimate grows with the standstill, and ends.
    assert!(progress.eta(secs(200.0)).unwrap() > eta);
    assert_eq!(progress.eta(secs(2_000.0)), None);
    assert_eq!(Progress::new(0, 0, Duration::ZERO).fraction(), 1.0);
    progress.set_total_bytes(50 << 20);
    assert_eq!((progress.fraction(), progress.eta(secs(2_000.0))), (1.0, Some(Duration::ZERO)));
}
