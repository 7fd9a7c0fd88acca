//! The bucket against the bytes that a rate allows.

use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;
use tidemark_rates::{Limit, Rate, TokenBucket};

proptest! {
    #[test]
    fn prop_no_stretch_of_time_carries_more_than_its_rate_and_a_burst(
        objects in vec(1..40_000_000u64, 1..120), pauses_ms in vec(0..400u64, 120),
        rate in 1..50_000_000u64, burst in 1..20_000_000u64
    ) {
        let mut bucket = TokenBucket::new(Limit::AtMost(Rate::new(rate)), burst, Duration::ZERO).unwrap();
        let (mut now, mut started) = (Duration::ZERO, Vec::new());
        for (bytes, pause) in objects.iter().zip(pauses_ms) {
            now += Duration::from_millis(pause);
            now += bucket.delay(*bytes, now);
            prop_assert_eq!(bucket.delay(*bytes, now), Duration::ZERO, "a wait that was kept is over");
            bucket.take(*bytes, now);
            started.push((now, *bytes));
            prop_assert!(bucket.debt_bytes(now) <= bytes.saturating_sub(burst.min(*bytes)) + 1);
        }
        let beyond = burst.max(*objects.iter().max().unwrap());
        for (first, (from, _)) in started.iter().enumerate() {
            let mut sum = 0;
            for (at, bytes) in &started[first..] {
                sum += bytes;
                let allowed = (*at - *from).as_secs_f64() * rate as f64 + beyond as f64;
                prop_assert!(sum as f64 <= allowed + 2.0, "{sum} bytes in {:?}, at most {allowed}", *at - *from);
            }
        }
    }

    #[test]
    fn prop_there_is_no_drift_however_often_one_asks(
        rate in 1..1_000_000_000u64, object in 1..5_000_000u64, asks_ns in 1..10_000_000u64
    ) {
        let burst = 1 << 20;
        let mut bucket = TokenBucket::new(Limit::AtMost(Rate::new(rate)), burst, Duration::ZERO).unwrap();
        let (mut now, mut sent) = (Duration::ZERO, 0u128);
        for _ in 0..2_000 {
            // Filling at odd moments in between changes nothing.
            let delay = bucket.delay(object, now);
            if !delay.is_zero() {
                bucket.set_limit(Limit::AtMost(Rate::new(rate)), now + delay.min(Duration::from_nanos(asks_ns)) / 2);
            }
            now += delay;
            bucket.take(object, now);
            sent += u128::from(object);
        }
        let allowed = now.as_nanos() * u128::from(rate) / 1_000_000_000;
        let beyond = u128::from(object.max(burst));
        prop_assert!(sent <= allowed + beyond + 1, "sent {sent}, allowed {allowed}");
        // Waits are rounded up to nanoseconds, at which a fast link moves a byte.
        prop_assert!(sent + u128::from(rate / 1_000_000_000 + 1) * 2 >= allowed, "sent {sent}, allowed {allowed}");
    }
}

#[test]
fn a_limit_that_changes_holds_at_once_and_keeps_the_debt() {
    let mib = |n: u64| n << 20;
    let at = Duration::from_secs;
    let mut bucket = TokenBucket::new(Limit::AtMost(Rate::new(mib(1))), mib(1), at(0)).unwrap();
    bucket.take(mib(11), at(0));
    assert_eq!(bucket.debt_bytes(at(0)), mib(10));
    assert_eq!(bucket.delay(mib(1), at(0)), at(11));
    bucket.set_limit(Limit::AtMost(Rate::new(mib(5))), at(5));
    assert_eq!(bucket.debt_bytes(at(5)), mib(5));
    assert_eq!(bucket.delay(mib(1), at(5)), Duration::from_millis(1_200));
    bucket.set_limit(Limit::AtMost(Rate::ZERO), at(5));
    assert_eq!(bucket.delay(1, at(1_000_000)), Duration::MAX);
    bucket.set_limit(Limit::Unlimited, at(6));
    bucket.take(mib(1_000), at(6));
    assert_eq!(bucket.delay(mib(1_000), at(6)), Duration::ZERO);
    bucket.set_limit(Limit::AtMost(Rate::new(mib(1))), at(7));
    assert_eq!(bucket.delay(mib(1), at(7)), Duration::ZERO, "without a limit the bucket is full");
}

#[test]
fn no_number_makes_the_bucket_panic() {
    let mut bucket = TokenBucket::new(Limit::AtMost(Rate::new(u64::MAX)), u64::MAX, Duration::MAX).unwrap();
    for _ in 0..100 {
        bucket.take(u64::MAX, Duration::ZERO);
        bucket.set_limit(Limit::AtMost(Rate::new(1)), Duration::MAX);
    }
    assert_eq!(bucket.delay(u64::MAX, Duration::ZERO), Duration::MAX);
    assert_eq!(bucket.debt_bytes(Duration::ZERO), u64::MAX);
}

#[test]
fn a_bucket_without_room_for_a_byte_is_refused_with_the_bound_and_the_value() {
    let none = TokenBucket::new(Limit::Unlimited, 0, Duration::ZERO).unwrap_err();
    assert_eq!(none.to_string(), "burst_bytes is 0: at least 1");
}
