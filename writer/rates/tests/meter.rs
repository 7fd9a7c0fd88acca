//! Rates of flows whose true rate is known.

mod sim;

use proptest::collection::vec;
use proptest::prelude::*;
use sim::{Dice, secs};
use std::time::Duration;
use tidemark_rates::{Meter, MeterOptions, Reduction};

fn rate(meter: &Meter, at: f64) -> f64 {
    meter.rate(secs(at)).map_or(0.0, |rate| rate.get() as f64)
}

proptest! {
    #[test]
    fn prop_a_regular_flow_of_lumps_has_no_ripple(lump in 1_000..100_000_000u64, every_ms in 20..20_000u64) {
        let mut meter = Meter::new(MeterOptions::LUMPS, Duration::ZERO);
        let every = every_ms as f64 / 1000.0;
        let want = lump as f64 / every;
        for n in 1..200 {
            meter.add(lump, secs(f64::from(n) * every));
            if f64::from(n) * every < 2.0 && every < 0.07 {
                continue;
            }
            for part in [0.0, 0.3, 0.6, 0.99] {
                let measured = rate(&meter, (f64::from(n) + part) * every);
                // Lumps closer than a slot of the window are seen in groups.
                let ripple = if every < 0.07 { 0.07 } else { 1e-3 };
                prop_assert!((measured / want - 1.0).abs() <= ripple + 1.0 / want, "{measured}, is {want}, lump {n}");
            }
        }
    }

    #[test]
    fn prop_any_flow_is_within_its_extremes_and_bounded_in_memory(
        events in vec((0..50_000_000u64, 0..3_000u64), 1..500)
    ) {
        let mut meter = Meter::new(MeterOptions::STREAM, Duration::ZERO);
        let (mut now, mut total) = (Duration::ZERO, 0);
        for (bytes, pause_ms) in events {
            now += Duration::from_millis(pause_ms);
            meter.add(bytes, now);
            total += bytes;
            prop_assert_eq!(meter.total_bytes(), total);
            if let Some(rate) = meter.rate(now) {
                // The shortest stretch that counts is a slot.
                prop_assert!(rate.get() as f64 <= 1.01 * total as f64 / 0.0624);
            }
        }
    }
}

#[test]
fn after_its_end_a_flow_fades_like_one_over_time() {
    let mut meter = Meter::new(MeterOptions::LUMPS, Duration::ZERO);
    for second in 1..=20 {
        meter.add(8_000_000, secs(f64::from(second)));
    }
    assert_eq!(rate(&meter, 20.9), 8e6, "the next lump is not late yet");
    assert!((rate(&meter, 34.0) / (7.0 * 8e6 / 20.0) - 1.0).abs() < 1e-6, "{}", rate(&meter, 34.0));
    assert!(rate(&meter, 1000.0) < 6e4);
}

#[test]
fn a_stream_of_writes_is_forgotten_once_it_ended() {
    let mut meter = Meter::new(MeterOptions::STREAM, Duration::ZERO);
    for n in 1..=10_000 {
        meter.add(4096, secs(f64::from(n) / 1000.0));
    }
    assert!((rate(&meter, 10.0) / 4_096_000.0 - 1.0).abs() < 0.05, "{}", rate(&meter, 10.0));
    assert!(rate(&meter, 20.0) < 60_000.0, "{}", rate(&meter, 20.0));
}

#[test]
fn a_new_rate_is_known_after_a_window() {
    let mut meter = Meter::new(MeterOptions::LUMPS, Duration::ZERO);
    let mut at = 0.0;
    for _ in 0..50 {
        at += 1.0;
        meter.add(1_000_000, secs(at));
    }
    for _ in 0..30 {
        at += 0.1;
        meter.add(1_000_000, secs(at));
    }
    assert!((rate(&meter, at) / 1e7 - 1.0).abs() < 0.01, "{}", rate(&meter, at));
}

#[test]
fn idle_time_does_not_count_and_busy_time_does() {
    let flow = |idle: bool| {
        let mut meter = Meter::new(MeterOptions::LUMPS, Duration::ZERO);
        for n in 0..20 {
            let begin = f64::from(n) * 10.0;
            if idle {
                meter.idle(secs(begin));
            } else {
                meter.busy(secs(begin));
            }
            meter.add(1_000_000, secs(begin + 1.0));
        }
        rate(&meter, 191.0)
    };
    assert_eq!(flow(true), 1e6);
    assert_eq!(flow(false), 1e5);
}

#[test]
fn lumps_that_jitter_by_a_third_are_measured_to_a_third() {
    let mut dice = Dice(7);
    let mut meter = Meter::new(MeterOptions::LUMPS, Duration::ZERO);
    let mut at = 0.0;
    for n in 0..2_000 {
        at += dice.within(0.7, 1.3);
        meter.add(1_000_000, secs(at));
        if n > 10 {
            assert!((rate(&meter, at) / 1e6 - 1.0).abs() < 0.33, "{}", rate(&meter, at));
        }
    }
}

#[test]
fn reduction_follows_the_data_without_a_jump() {
    let mut reduction = Reduction::new(1 << 20);
    assert_eq!(reduction.ratio(), None);
    let mut last = 4.0;
    for stored in [1_024; 200].into_iter().chain([4_096; 2_000]) {
        reduction.add(4_096, stored);
        let ratio = reduction.ratio().unwrap();
        assert!((ratio - last).abs() < 0.1, "from {last} to {ratio}");
        last = ratio;
    }
    assert!((last - 1.0).abs() < 0.1, "{last}");
}
