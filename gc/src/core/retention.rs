//! Which points stay: a window, a ladder of older points, bookmarks and holds.
//!
//! Deciding needs to know which point was the newest at a few times. It asks for one after the other, so that it is a value
//! without I/O: [`Deciding::asks`], [`Deciding::answer`], until nothing is asked.
//! Invariants: what was not offered before is not offered again, for its data may be gone; the newest point always stays; of a
//! period of the ladder only its last point stays, and only once the window has left the period behind.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use tidemark_format::{Lsn, Mark, Policy, Retained, Retention, TimeNs};

/// A length of time of which the ladder keeps the last point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Period {
    Hour,
    Day,
    Week,
    Month,
}

const HOUR_NS: u64 = 3_600_000_000_000;
const DAY_NS: u64 = 24 * HOUR_NS;
/// 1970-01-01 was a Thursday, three days after a Monday.
const MONDAY_NS: u64 = 3 * DAY_NS;

impl Period {
    /// When the period that holds `time` began, in UTC.
    fn start(self, time: TimeNs) -> u64 {
        let ns = time.get();
        match self {
            Self::Hour => ns - ns % HOUR_NS,
            Self::Day => ns - ns % DAY_NS,
            Self::Week => (ns - ns % DAY_NS).saturating_sub((ns / DAY_NS * DAY_NS + MONDAY_NS) % (7 * DAY_NS)),
            Self::Month => {
                let date = Timestamp::from_nanosecond(i128::from(ns)).map(|at| at.to_zoned(TimeZone::UTC));
                let days = date.map_or(0, |date| u64::from(date.day().unsigned_abs()) - 1);
                (ns - ns % DAY_NS).saturating_sub(days * DAY_NS)
            }
        }
    }
}

/// A rung of the ladder while it is being filled.
#[derive(Clone, Copy, Debug)]
struct Rung {
    period: Period,
    left: u32,
    /// The last point before this time is the next one of the rung.
    before: u64,
}

/// What is known while it is decided which points stay.
#[derive(Debug)]
pub(crate) struct Deciding<'a> {
    before: &'a Retained,
    policy: &'a Policy,
    now: TimeNs,
    /// The new horizon, once it is known.
    horizon: Option<Mark>,
    kept: BTreeSet<Mark>,
    rungs: Vec<Rung>,
}

impl<'a> Deciding<'a> {
    /// Begins with the points that were offered before. `bookmarks` are those that the index knows.
    pub(crate) fn new(before: &'a Retained, policy: &'a Policy, now: TimeNs) -> Self {
        Self { before, policy, now, horizon: None, kept: BTreeSet::new(), rungs: Vec::new() }
    }

    /// A time of which the last point that is not later is wanted.
    pub(crate) fn asks(&self) -> Option<TimeNs> {
        match (self.horizon, self.rungs.last()) {
            (None, _) => Some(TimeNs::new(self.now.get().saturating_sub(self.policy.window_ns))),
            (Some(_), Some(rung)) => Some(TimeNs::new(rung.before.saturating_sub(1))),
            (Some(_), None) => None,
        }
    }

    /// The point that was asked for; `None` if the history is younger.
    pub(crate) fn answer(&mut self, found: Option<Mark>) {
        let Some(horizon) = self.horizon else { return self.begin(found) };
        let Some(rung) = self.rungs.last_mut() else { return };
        // Of what the horizon has passed, only the kept points are there.
        let found = found.filter(|mark| mark.lsn >= self.before.horizon.lsn).or_else(|| {
            let until = self.before.kept.partition_point(|mark| mark.time.get() < rung.before);
            until.checked_sub(1).map(|at| self.before.kept[at])
        });
        match found.filter(|mark| mark.lsn < horizon.lsn && mark.time.get() < rung.before) {
            Some(mark) => {
                self.kept.insert(mark);
                (rung.left, rung.before) = (rung.left - 1, rung.period.start(mark.time));
            }
            None => rung.left = 0,
        }
        self.drop_full();
    }

    fn begin(&mut self, found: Option<Mark>) {
        let horizon = found.filter(|mark| mark.lsn > self.before.horizon.lsn).unwrap_or(self.before.horizon);
        self.horizon = Some(horizon);
        // A window that has grown reaches behind the horizon: what is left there stays.
        let window = found.map_or(Lsn::ZERO, |mark| mark.lsn);
        self.kept.extend(self.before.kept.iter().filter(|mark| mark.lsn >= window));
        let Policy { hourly, daily, weekly, monthly, .. } = *self.policy;
        let rungs = [(Period::Hour, hourly), (Period::Day, daily), (Period::Week, weekly), (Period::Month, monthly)];
        let rung = |(period, left): (Period, u32)| Rung { period, left, before: period.start(horizon.time) };
        self.rungs = rungs.map(rung).to_vec();
        self.drop_full();
    }

    fn drop_full(&mut self) {
        while self.rungs.last().is_some_and(|rung| rung.left == 0 || rung.before == 0) {
            self.rungs.pop();
        }
    }

    /// The points that stay, once nothing is asked any more. Of bookmarks and holds, those that are offered and not expired.
    pub(crate) fn finish(mut self, bookmarks: impl IntoIterator<Item = Mark>, wish: &Retention) -> Retained {
        assert!(self.asks().is_none(), "the ladder is not filled");
        let horizon = self.horizon.unwrap_or(self.before.horizon);
        //= SPEC.md#retention
        //# RN-5
        let bookmarks = bookmarks
            .into_iter()
            .filter(|mark| mark.time.get().saturating_add(self.policy.bookmarks_ns) > self.now.get());
        let holds = wish.holds.iter().filter(|hold| hold.until > self.now).map(|hold| hold.point);
        //= SPEC.md#retention
        //# RN-4
        let there = bookmarks.chain(holds).filter(|mark| self.before.offers(mark.lsn) && mark.lsn < horizon.lsn);
        self.kept.extend(there);
        Retained { horizon, kept: self.kept.into_iter().collect() }
    }
}

/// Runs of points that `before` offers and `after` does not, oldest first.
pub(crate) fn dropped(before: &Retained, after: &Retained) -> Vec<RangeInclusive<Lsn>> {
    let mut runs: Vec<RangeInclusive<Lsn>> = Vec::new();
    let single = before.kept.iter().map(|mark| mark.lsn).filter(|lsn| !after.offers(*lsn));
    runs.extend(single.map(|lsn| lsn..=lsn));
    let mut from = before.horizon.lsn;
    let stays = after.kept.iter().map(|mark| mark.lsn).filter(|lsn| *lsn >= before.horizon.lsn);
    for lsn in stays.chain([after.horizon.lsn]) {
        if from < lsn {
            runs.push(from..=Lsn::new(lsn.get() - 1));
        }
        from = from.max(lsn.next());
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tidemark_format::{DomainId, Hold};

    fn wish(policy: Policy, holds: Vec<Hold>) -> Retention {
        Retention { domain: DomainId::new([1; 16]), policy: Some(policy), holds }
    }

    fn decide(all: &[Mark], before: &Retained, wish: &Retention, bookmarks: &[Mark], now: u64) -> Retained {
        let policy = wish.policy.expect("a policy");
        let mut deciding = Deciding::new(before, &policy, TimeNs::new(now));
        let mut asked = 0;
        while let Some(time) = deciding.asks() {
            asked += 1;
            deciding.answer(all.iter().rev().find(|mark| mark.time <= time).copied());
        }
        assert!(asked <= 5 + policy.hourly + policy.daily + policy.weekly + policy.monthly);
        deciding.finish(bookmarks.iter().copied(), wish)
    }

    /// A history of one LSN at each of these hours.
    fn at_hours(hours: &[u64]) -> Vec<Mark> {
        let mark = |(lsn, hour): (u64, &u64)| Mark { lsn: Lsn::new(lsn), time: TimeNs::new(hour * HOUR_NS + 1) };
        (1..).zip(hours).map(mark).collect()
    }

    fn lsns(retained: &Retained) -> (Vec<u64>, u64) {
        (retained.kept.iter().map(|mark| mark.lsn.get()).collect(), retained.horizon.lsn.get())
    }

    const NONE: Policy = Policy { window_ns: 0, bookmarks_ns: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0 };

    #[test]
    fn periods_begin_at_full_hours_midnights_mondays_and_firsts() {
        let at =
            |text: &str| u64::try_from(text.parse::<Timestamp>().expect("a time").as_nanosecond()).expect("after 1970");
        let time = TimeNs::new(at("2026-03-01T13:45:10.5Z"));
        assert_eq!(Period::Hour.start(time), at("2026-03-01T13:00:00Z"));
        assert_eq!(Period::Day.start(time), at("2026-03-01T00:00:00Z"));
        assert_eq!(Period::Week.start(time), at("2026-02-23T00:00:00Z"), "it was a Sunday");
        assert_eq!(Period::Month.start(time), at("2026-03-01T00:00:00Z"));
        assert_eq!(Period::Week.start(TimeNs::new(at("2026-02-23T00:00:00Z"))), at("2026-02-23T00:00:00Z"));
        assert_eq!(Period::Month.start(TimeNs::new(at("2028-02-29T23:59:59Z"))), at("2028-02-01T00:00:00Z"));
        assert_eq!((Period::Week.start(TimeNs::new(5)), Period::Month.start(TimeNs::new(u64::MAX)) > 0), (0, true));
    }

    #[test]
    fn the_window_stays_whole_and_the_ladder_keeps_the_last_point_of_each_period() {
        let all = at_hours(&[0, 1, 1, 2, 2, 5, 5, 6, 7, 8, 9]);
        let before = Retained { horizon: all[0], kept: vec![] };
        let policy = Policy { window_ns: 2 * HOUR_NS, hourly: 3, ..NONE };
        let after = decide(&all, &before, &wish(policy, vec![]), &[], 9 * HOUR_NS + 1);
        // The window begins with what was the newest at 7 h; idle hours do not count.
        assert_eq!(lsns(&after), (vec![5, 7, 8], 9));
        assert_eq!(dropped(&before, &after), [1..=4, 6..=6].map(|r| Lsn::new(*r.start())..=Lsn::new(*r.end())));
        let idle = decide(&all, &after, &wish(policy, vec![]), &[], 900 * HOUR_NS);
        assert_eq!(lsns(&idle), (vec![8, 9, 10], 11), "the newest point stays however old it is");
    }

    #[test]
    fn what_is_gone_does_not_come_back_when_more_is_wished() {
        let all = at_hours(&[0, 1, 2, 3, 4, 5]);
        let before = Retained { horizon: all[4], kept: vec![all[1]] };
        let generous = Policy { window_ns: 100 * HOUR_NS, bookmarks_ns: u64::MAX, hourly: 100, ..NONE };
        let hold = |at: usize| Hold { point: all[at], until: TimeNs::new(u64::MAX) };
        let after = decide(&all, &before, &wish(generous, vec![hold(0), hold(1)]), &[all[2]], 5 * HOUR_NS + 1);
        assert_eq!(lsns(&after), (vec![2], 5));
    }

    #[test]
    fn what_is_left_behind_the_horizon_stays_while_a_window_that_has_grown_covers_it() {
        let all = at_hours(&[0, 1, 2, 3, 4, 5]);
        let before = Retained { horizon: all[4], kept: vec![all[0], all[1], all[3]] };
        let policy = Policy { window_ns: 3 * HOUR_NS, ..NONE };
        let after = decide(&all, &before, &wish(policy, vec![]), &[], 4 * HOUR_NS + 1);
        assert_eq!(lsns(&after), (vec![2, 4], 5));
    }

    #[test]
    fn bookmarks_and_holds_stay_until_they_expire() {
        let all = at_hours(&[0, 1, 2, 3, 4, 5]);
        let before = Retained { horizon: all[0], kept: vec![] };
        let policy = Policy { bookmarks_ns: 4 * HOUR_NS, ..NONE };
        let hold = Hold { point: all[2], until: TimeNs::new(10 * HOUR_NS) };
        let wish = wish(policy, vec![hold]);
        let at_5 = decide(&all, &before, &wish, &[all[0], all[1]], 5 * HOUR_NS + 1 - 1);
        assert_eq!(lsns(&at_5), (vec![2, 3], 5));
        let at_10 = decide(&all, &at_5, &wish, &[all[0], all[1]], 10 * HOUR_NS);
        assert_eq!(lsns(&at_10), (vec![], 6));
    }

    proptest! {
        /// Points only ever leave; every point of the window, and every hold that was offered, is there.
        #[test]
        fn prop_points_only_leave_and_what_was_promised_stays(
            steps in vec((0u64..5, 0u64..60), 1..60),
            passes in vec((0u64..100, 0u64..60, 0u32..5, 0u32..5, 0u32..3, 0u64..100), 1..12),
            held in any::<prop::sample::Index>(),
        ) {
            let mut hour = 0;
            let hours: Vec<u64> = steps.iter().map(|(gap, _)| { hour += gap; hour }).collect();
            let all = at_hours(&hours);
            let held = all[held.index(all.len())];
            let hold = Hold { point: held, until: TimeNs::new(u64::MAX) };
            let mut before = Retained { horizon: all[0], kept: vec![] };
            let mut now = all[all.len() - 1].time.get();
            for (later, window, hourly, daily, weekly, bookmarks) in passes {
                now += later * HOUR_NS;
                let (window_ns, bookmarks_ns) = (window * HOUR_NS, bookmarks * HOUR_NS);
                let policy = Policy { window_ns, bookmarks_ns, hourly, daily, weekly, monthly: 2 };
                let wish = wish(policy, vec![hold]);
                let after = decide(&all, &before, &wish, &all[..1], now);
                let gone = dropped(&before, &after);
                for (at, mark) in all.iter().enumerate() {
                    let (was, is) = (before.offers(mark.lsn), after.offers(mark.lsn));
                    prop_assert!(was || !is, "{mark:?} came back");
                    prop_assert_eq!(was && !is, gone.iter().any(|run| run.contains(&mark.lsn)));
                    // It was the newest within the window: the next one came in it, or none did.
                    let until = all.get(at + 1).map_or(u64::MAX, |next| next.time.get());
                    prop_assert!(is || !was || until <= now - window_ns.min(now), "{mark:?} was promised");
                }
                prop_assert!(after.offers(held.lsn) && after.offers(all[all.len() - 1].lsn));
                let counts = (hourly + daily + weekly + 2) as usize;
                prop_assert!(after.kept.len() <= (counts + 2).max(before.kept.len()), "{after:?}");
                prop_assert!(after.kept.iter().chain([&after.horizon]).is_sorted_by(|a, b| a.lsn < b.lsn));
                // Deciding again changes nothing.
                prop_assert_eq!(&decide(&all, &after, &wish, &all[..1], now), &after);
                before = after;
            }
        }
    }
}
