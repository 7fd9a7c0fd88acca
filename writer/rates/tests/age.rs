//! The measured recovery point against a list of all writes.

use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;
use tidemark_format::Lsn;
use tidemark_rates::AgeTracker;

#[derive(Clone, Debug)]
enum Step {
    /// The next write, so many LSNs on: other disks have those in between.
    Write { lsns: u64, after_us: u64 },
    /// This part of what is pending becomes durable.
    Commit { part: f64, after_us: u64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    let pause = prop_oneof![4 => 0..2_000u64, 1 => 0..5_000_000u64];
    prop_oneof![
        12 => (1..4u64, pause.clone()).prop_map(|(lsns, after_us)| Step::Write { lsns, after_us }),
        1 => (0.0..1.2f64, pause).prop_map(|(part, after_us)| Step::Commit { part, after_us }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn prop_the_age_is_never_too_small_and_too_large_by_the_slack_at_most(
        steps in vec(any_step(), 1..400), entries_max in 4..40usize, resolution_us in 0..3_000u64
    ) {
        let resolution = Duration::from_micros(resolution_us);
        let mut tracker = AgeTracker::new(entries_max, resolution).unwrap();
        let mut pending: Vec<(u64, Duration)> = Vec::new();
        let (mut lsn, mut now, mut peak) = (0, Duration::ZERO, Duration::ZERO);
        for step in steps {
            match step {
                Step::Write { lsns, after_us } => {
                    lsn += lsns;
                    now += Duration::from_micros(after_us);
                    tracker.logged(Lsn::new(lsn), now);
                    pending.push((lsn, now));
                }
                Step::Commit { part, after_us } => {
                    now += Duration::from_micros(after_us);
                    peak = peak.max(tracker.age(now));
                    let first = pending.first().map_or(lsn, |(first, _)| *first);
                    let through = first + ((lsn - first) as f64 * part) as u64;
                    tracker.committed(Lsn::new(through));
                    // What is committed before it is logged is never pending.
                    lsn = lsn.max(through);
                    pending.retain(|(lsn, _)| *lsn > through);
                }
            }
            let age = pending.first().map_or(Duration::ZERO, |(_, at)| now - *at);
            let measured = tracker.age(now);
            peak = if pending.is_empty() { Duration::ZERO } else { peak.max(measured) };
            prop_assert!(measured >= age, "measured {measured:?}, is {age:?}");
            prop_assert!(measured - age <= tracker.slack(), "measured {measured:?}, is {age:?}");
            let slack_max = resolution.max(4 * peak / entries_max as u32);
            prop_assert!(tracker.slack() <= slack_max, "slack {:?}, at most {slack_max:?}", tracker.slack());
            prop_assert!(tracker.entries() <= entries_max);
        }
    }
}

#[test]
fn writes_of_an_earlier_process_keep_their_age() {
    let mut tracker = AgeTracker::new(16, Duration::from_millis(10)).unwrap();
    let now = Duration::from_secs(2);
    tracker.recovered(Lsn::new(7), Duration::from_secs(3_600), now);
    tracker.logged(Lsn::new(8), now);
    assert_eq!(tracker.age(now), Duration::from_secs(3_600));
    tracker.committed(Lsn::new(7));
    assert_eq!(tracker.age(Duration::from_secs(3)), Duration::from_secs(1));
    tracker.committed(Lsn::new(8));
    assert_eq!(tracker.age(Duration::from_secs(9)), Duration::ZERO);
}

#[test]
fn a_clock_that_steps_back_makes_no_write_younger() {
    let mut tracker = AgeTracker::new(4, Duration::ZERO).unwrap();
    let at = Duration::from_secs;
    tracker.logged(Lsn::new(1), at(100));
    tracker.logged(Lsn::new(2), at(40));
    assert_eq!(tracker.age(at(40)), Duration::ZERO);
    tracker.committed(Lsn::new(1));
    assert_eq!(tracker.age(at(101)), at(1));
}

#[test]
fn too_few_entries_are_refused_with_the_bound_and_the_value() {
    let error = AgeTracker::new(3, Duration::ZERO).unwrap_err();
    assert_eq!(error.to_string(), "entries_max is 3: at least 4");
}
