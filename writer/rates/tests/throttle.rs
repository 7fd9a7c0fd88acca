//! The throttle in a simulated site: it converges, does not oscillate, keeps its latency bound, and is fair.

mod sim;

use sim::{Dice, Guest, MIB, Pattern, Setup, flood, outage, run, secs, seeds, site, small_among_floods};
use std::time::Duration;
use tidemark_format::DiskId;
use tidemark_rates::throttle::OBSERVE_INTERVAL_MAX;
use tidemark_rates::{Admission, DiskOptions, Load, OnOverflow, Stage, Throttle, ThrottleOptions};

/// A site whose guest wants two to twenty times what the link takes, with everything else drawn at random; and the time
/// constant of its throttle.
fn any_flooded(seed: u64) -> (Setup, f64) {
    let mut dice = Dice(seed);
    let link = dice.within(2.0, 60.0) * MIB as f64;
    let options = ThrottleOptions {
        seed_fill: 0.2,
        start_fill: dice.within(0.3, 0.6),
        overflow_fill: dice.within(0.75, 0.95),
        added_latency_max: secs(dice.within(0.05, 1.0)),
    };
    let half_band_seconds = dice.within(2.0, 40.0);
    let space_bytes = half_band_seconds * link / (options.settle_fill() - options.start_fill);
    let mut setup = site(vec![], 0.0);
    setup.seed = seed;
    setup.options = options;
    setup.space_bytes = space_bytes as u64;
    setup.observe_every = secs(dice.within(0.02, 0.25));
    setup.used_bytes = (space_bytes * dice.within(0.0, 0.95)) as u64;
    setup.link.steps = vec![(0.0, link)];
    setup.link.lump_bytes = (link * half_band_seconds * dice.within(0.01, 0.2)) as u64;
    setup.link.commit = secs(dice.within(0.01, 0.5));
    // As much in flight as the longest hold can slow down to less than the link takes.
    let queue_depth = dice.pick(&[1, 4, 32]);
    let in_flight = link * options.added_latency_max.as_secs_f64() * dice.within(0.1, 0.8);
    setup.counts_held = seed.is_multiple_of(2);
    setup.guests = vec![Guest {
        pattern: Pattern::Closed { queue_depth, offered: link * dice.within(2.0, 20.0) },
        write_bytes: (in_flight / f64::from(queue_depth)) as u64,
        active: (0.0, f64::INFINITY),
        options: DiskOptions::default(),
    }];
    let constant = half_band_seconds.max(4.0 * delay(&options).as_secs_f64());
    setup.seconds = 30.0 + 12.0 * constant;
    (setup, constant)
}

fn delay(options: &ThrottleOptions) -> Duration {
    options.added_latency_max + OBSERVE_INTERVAL_MAX
}

/// `|e| <= lump / 2 + d T`, plus this part of the width of the control law.
fn assert_settles(setup: Setup, constant: f64, beyond: f64) {
    let link = setup.link.rate(0.0);
    let middle = setup.options.settle_fill() * setup.space_bytes as f64;
    let bound = setup.link.lump_bytes as f64 / 2.0 + link * delay(&setup.options).as_secs_f64();
    let bound = bound + beyond * link * constant;
    let settled = 20.0 + 8.0 * constant;
    let run = run(setup.clone());
    for sample in run.between(settled, setup.seconds) {
        let excess = sample.used_bytes as f64 - middle;
        assert!(excess.abs() <= bound, "{excess} bytes off the middle, at most {bound}: {sample:?} of {setup:?}");
    }
    let span = (setup.seconds - settled).floor();
    let written = run.written_mean(settled, settled + span);
    let allowed = beyond * link + 2.0 * bound / span;
    assert!((written - link).abs() <= allowed, "wrote {written} with a link of {link}: {setup:?}");
    assert!(run.hold_longest <= setup.options.added_latency_max, "held {:?}: {setup:?}", run.hold_longest);
}

#[test]
fn sim_a_guest_faster_than_the_link_settles_at_the_middle_of_the_band() {
    for seed in seeds() {
        let (setup, constant) = any_flooded(seed);
        assert_settles(setup, constant, 0.0);
    }
}

#[test]
fn sim_a_link_that_jitters_stays_within_its_bound() {
    for seed in seeds() {
        let (mut setup, constant) = any_flooded(seed);
        setup.link.jitter = 0.3;
        assert_settles(setup, constant, 0.15);
    }
}

#[test]
fn sim_a_link_at_a_tenth_of_the_offered_rate_is_met_without_oscillation() {
    let run = run(site(vec![flood(100.0)], 10.0));
    // The guest slows down and never speeds up again: no swing, not even a first one.
    let written: Vec<f64> = run.between(5.0, 300.0).map(|sample| sample.written_total() / MIB as f64).collect();
    for (second, pair) in written.windows(2).enumerate() {
        assert!(pair[1] <= pair[0] * 1.05 + 0.1, "{second}: from {} to {} MiB/s", pair[0], pair[1]);
    }
    let mean = run.written_mean(200.0, 300.0) / MIB as f64;
    assert!((9.9..10.1).contains(&mean), "{mean} MiB/s");
    assert!(run.fill_highest < 0.72, "{}", run.fill_highest);
    assert_eq!(run.stages.last().map(|(_, stage)| *stage), Some(Stage::Throttled));
    assert_eq!(run.stages.len(), 2, "{:?}", run.stages);
}

#[test]
fn sim_writes_slow_down_and_speed_up_again_around_an_outage_without_a_jump() {
    let run = run(outage());
    let of_interest: Vec<_> = run.between(60.0, 200.0).collect();
    for pair in of_interest.windows(2) {
        let (before, after) = (pair[0].written_total() / MIB as f64, pair[1].written_total() / MIB as f64);
        let smooth = after >= before * 0.5 && after <= before * 2.0;
        assert!(smooth, "{}: from {before} to {after} MiB/s", pair[1].at);
    }
    assert!(of_interest.iter().all(|sample| sample.written_total() > 3.0 * MIB as f64), "the guest never stops");
    assert!(run.written_mean(125.0, 300.0) > 19.5 * MIB as f64, "the guest is as fast as before");
    assert!(run.hold_longest <= ThrottleOptions::default().added_latency_max);
    assert_eq!(
        run.stages.iter().map(|(_, stage)| *stage).collect::<Vec<_>>(),
        [Stage::SeedSlowed, Stage::Throttled, Stage::SeedSlowed, Stage::Free]
    );
}

#[test]
fn sim_a_link_in_steps_is_followed_without_overflow() {
    for seed in seeds() {
        let (mut setup, constant) = any_flooded(seed);
        let link = setup.link.rate(0.0);
        let mut dice = Dice(seed);
        setup.link.steps = (0..6).map(|n| (f64::from(n) * 4.0 * constant, link * dice.within(0.5, 1.0))).collect();
        setup.link.steps[0].1 = link;
        setup.used_bytes = 0;
        setup.link.lump_bytes = setup.link.lump_bytes.min(setup.space_bytes / 100);
        // What is in flight must be slowed down to the slowest step.
        setup.guests[0].write_bytes /= 2;
        setup.seconds = 30.0 * constant;
        let run = run(setup.clone());
        assert!(run.fill_highest < setup.options.overflow_fill, "filled to {}: {setup:?}", run.fill_highest);
        assert!(run.stages.len() <= 2, "{:?}: {setup:?}", run.stages);
    }
}

#[test]
fn sim_a_small_writer_is_not_starved_by_a_flood() {
    let run = run(small_among_floods());
    let mut mean = [0.0; 3];
    for sample in run.between(100.0, 300.0) {
        assert_eq!(sample.signals.stage, Stage::Throttled);
        assert_eq!(sample.hold_max[0], Duration::ZERO, "the small writer is held: {sample:?}");
        for (mean, written) in mean.iter_mut().zip(&sample.written) {
            *mean += written / MIB as f64 / 200.0;
        }
    }
    assert!((0.95..1.05).contains(&mean[0]), "{mean:?} MiB/s");
    for flood in &mean[1..] {
        assert!((5.2..5.8).contains(flood), "the floods share what is left: {mean:?} MiB/s");
    }
}

#[test]
fn sim_a_guest_that_no_bounded_hold_slows_down_overflows_and_stalls() {
    let mut setup = site(vec![flood(100.0)], 10.0);
    setup.guests[0].pattern = Pattern::Open { offered: 40.0 * MIB as f64 };
    let run = run(setup);
    assert!(run.hold_longest <= ThrottleOptions::default().added_latency_max);
    assert!(run.stalled[0] > 0 && run.degraded[0] == 0);
    assert!(run.fill_highest < 0.9, "{}", run.fill_highest);
    let back = run.stages.iter().filter(|(_, stage)| *stage == Stage::Throttled).count();
    assert!(back <= 20, "overflow is left only at the middle of the band: {:?}", run.stages);
}

#[test]
fn sim_the_heavy_disk_degrades_and_the_light_one_goes_on() {
    let degrade = DiskOptions { on_overflow: OnOverflow::Degrade };
    let light = Guest {
        pattern: Pattern::Open { offered: 0.1 * MIB as f64 },
        write_bytes: 8 << 10,
        active: (0.0, f64::INFINITY),
        options: DiskOptions::default(),
    };
    let mut setup = site(vec![light, Guest { options: degrade, ..flood(100.0) }], 10.0);
    setup.link.steps = vec![(0.0, 10.0 * MIB as f64), (20.0, 0.0)];
    let run = run(setup);
    assert!(run.degraded[1] > 0, "the flood fills the log and degrades");
    assert_eq!((run.stalled[0], run.degraded[0]), (0, 0), "the light disk is not touched");
    assert!(run.fill_highest < 0.95, "{}", run.fill_highest);
    for sample in run.between(100.0, 300.0) {
        assert!((0.05..0.15).contains(&(sample.written[0] / MIB as f64)), "{sample:?}");
    }
}

#[test]
fn while_overflow_is_left_no_disk_joins_it() {
    let [heavy, light] = [DiskId::new(1), DiskId::new(2)];
    let mut throttle = Throttle::new(ThrottleOptions::default(), Duration::ZERO).unwrap();
    throttle.set_disk(heavy, DiskOptions { on_overflow: OnOverflow::Degrade }, Duration::ZERO);
    throttle.set_disk(light, DiskOptions::default(), Duration::ZERO);
    let mut now = Duration::ZERO;
    let mut observe = |throttle: &mut Throttle, of_heavy: u64, of_light: u64| {
        now += Duration::from_millis(100);
        let load = Load { used_bytes: of_heavy + of_light, space_bytes: 1000, drained_bytes_total: 0 };
        throttle.observe(load, |id| if id == heavy { of_heavy } else { of_light }, now).stage
    };
    assert_eq!(observe(&mut throttle, 500, 399), Stage::Throttled);
    assert_eq!(throttle.admit(heavy, 1, secs(0.1)), Admission::Degrade);
    assert_eq!(
        throttle.signals().stage,
        Stage::Overflow,
        "from the write that does not fit, not from the next observation"
    );
    assert!(matches!(throttle.admit(light, 1, secs(0.1)), Admission::Hold(_)));
    // The light disk has more in the log by now, and the fill is on its way down.
    assert_eq!(observe(&mut throttle, 380, 420), Stage::Overflow);
    assert!(matches!(throttle.admit(light, 1, secs(0.2)), Admission::Hold(_)));
    assert_eq!(throttle.admit(heavy, 1, secs(0.2)), Admission::Degrade);
    // Close to the brim, nobody goes on.
    assert_eq!(observe(&mut throttle, 550, 400), Stage::Overflow);
    assert_eq!(throttle.admit(light, 1, secs(0.3)), Admission::Stall);
    assert!(throttle.is_overflowed(light));
    assert_eq!(observe(&mut throttle, 300, 400), Stage::Throttled, "back in the middle");
    for disk in [heavy, light] {
        assert!(matches!(throttle.admit(disk, 1, secs(0.4)), Admission::Hold(_)));
    }
}

#[test]
fn options_that_cannot_work_are_refused_with_the_bound_and_the_value() {
    let refused = |change: fn(&mut ThrottleOptions)| {
        let mut options = ThrottleOptions::default();
        change(&mut options);
        Throttle::new(options, Duration::ZERO).unwrap_err().to_string()
    };
    assert_eq!(refused(|o| o.start_fill = 0.3), "start_fill is 0.3: at least 0.02 above seed_fill");
    assert_eq!(refused(|o| o.overflow_fill = 1.0), "overflow_fill is 1: at most 0.98");
    assert_eq!(refused(|o| o.seed_fill = f64::NAN), "seed_fill is NaN: at least 0");
    assert_eq!(refused(|o| o.added_latency_max = secs(11.0)), "added_latency_max is 11s: more than 0 and at most 10s");
}

#[test]
fn no_number_makes_the_throttle_panic() {
    let mut throttle = Throttle::new(ThrottleOptions::default(), Duration::MAX).unwrap();
    let disk = DiskId::new(1);
    assert_eq!(throttle.admit(disk, u64::MAX, Duration::ZERO), Admission::Hold(Duration::ZERO), "unknown disks pass");
    throttle.set_disk(disk, DiskOptions::default(), Duration::MAX);
    let numbers = [0, 1, 1 << 40, u64::MAX];
    for used_bytes in numbers {
        for space_bytes in numbers {
            for drained_bytes_total in numbers {
                for now in [Duration::ZERO, secs(5.0), Duration::MAX] {
                    throttle.observe(Load { used_bytes, space_bytes, drained_bytes_total }, |_| used_bytes, now);
                    for bytes in numbers {
                        throttle.admit(disk, bytes, now);
                    }
                }
            }
        }
    }
}

#[test]
fn sim_below_start_no_write_is_held() {
    let run = run(site(vec![flood(50.0)], 60.0));
    assert_eq!(run.hold_longest, Duration::ZERO);
    assert_eq!(run.stages, []);
}

#[test]
fn sim_a_log_that_is_small_beside_the_link_is_steered_more_softly() {
    // Half a band lasts 0.5 s, the delay of the loop 1.25 s: without the second term of `W` the fill swings from 62 % to
    // 86 % for ever, and the rate from a half to twice the link.
    for (queue_depth, counts_held) in [(8, true), (64, true), (64, false)] {
        let link = 20.0 * MIB as f64;
        let mut setup = site(vec![], 20.0);
        setup.options.added_latency_max = secs(1.0);
        setup.space_bytes = (0.5 * link / 0.2) as u64;
        setup.link.lump_bytes = 64 << 10;
        setup.link.commit = secs(0.01);
        setup.observe_every = OBSERVE_INTERVAL_MAX;
        setup.counts_held = counts_held;
        setup.seconds = 120.0;
        setup.guests = vec![Guest {
            pattern: Pattern::Closed { queue_depth, offered: 5.0 * link },
            write_bytes: (0.8 * link) as u64 / u64::from(queue_depth),
            active: (0.0, f64::INFINITY),
            options: DiskOptions::default(),
        }];
        for sample in run(setup).between(60.0, 120.0) {
            let rate = sample.signals.guest_rate_max.expect("throttled").get() as f64 / link;
            assert!((0.95..1.05).contains(&rate), "{queue_depth}: {rate} of the link: {sample:?}");
            assert!((0.65..0.77).contains(&sample.signals.fill), "{queue_depth}: {sample:?}");
        }
    }
}
