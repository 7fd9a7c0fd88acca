//! What to rewrite: which segments of the history are replaced by a compact one, and what that keeps besides rows.
//!
//! A group of neighbours is rewritten if so much of it is dead that what is won exceeds what is written by the given share, or if it is
//! many small objects. So the bytes that are kept for nothing stay below that share, and what is rewritten is bounded by what was written.
//! Where the store charges for it, rewriting has to pay as well: what is no longer kept has to save, within the given months, what
//! requests and reading cost. A group that does not pay waits until more of it is dead; the segments in it of which nothing is needed do
//! not wait for it: nothing of them is read. They come first.
//! Not here: which rows are needed ([`super::liveness`]), and reading and writing them.

use crate::options::MaintenanceOptions;
use std::ops::Range;
use tidemark_format::{BLOCK_BYTES, Event, EventBody, Lsn, Retained, SegmentRow, TimeStep};
use tidemark_prices::{Requests, Usage};

/// A segment of the history, and what of it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Number of the run that it belongs to. A compact segment lies within one run.
    pub(crate) run: usize,
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    /// Bytes of the object, of its DATA, and the plaintext of that in blocks.
    pub(crate) bytes: u64,
    pub(crate) data_bytes: u64,
    pub(crate) data_blocks: u64,
    /// Blocks of data, and rows, that some offered point needs.
    pub(crate) needed_blocks: u64,
    pub(crate) needed_rows: u64,
}

impl Survey {
    pub(crate) fn of(row: &SegmentRow, run: usize) -> Self {
        Self {
            run,
            first: row.first_lsn,
            last: row.last_lsn,
            bytes: row.bytes,
            data_bytes: row.data_bytes,
            data_blocks: row.data_blocks,
            needed_blocks: 0,
            needed_rows: 0,
        }
    }

    /// Stored bytes of its DATA that are needed, if all of it is compressed alike.
    pub(crate) fn live_bytes(&self) -> u64 {
        let share = u128::from(self.data_bytes) * u128::from(self.needed_blocks.min(self.data_blocks));
        (share / u128::from(self.data_blocks.max(1))) as u64
    }

    fn is_dead_enough(&self, percent: u64) -> bool {
        let dead = self.data_bytes - self.live_bytes();
        self.data_bytes > 0 && dead * 100 >= self.data_bytes * percent
    }
}

/// Bytes that one request fetches of what is still needed.
pub(crate) const FETCH_BYTES: u64 = 8 << 20;

/// What is kept less once a group is rewritten.
fn saved_bytes(group: &[Survey]) -> u64 {
    group.iter().map(|survey| survey.bytes - survey.live_bytes().min(survey.bytes)).sum()
}

/// What rewriting a group asks of the store: heads and what is needed are read, one object is put, the old ones are deleted.
pub(crate) fn usage_of(group: &[Survey]) -> Usage {
    let heads = group.len() as u64;
    let live = group.iter().map(Survey::live_bytes);
    let get = heads + live.clone().map(|bytes| bytes.div_ceil(FETCH_BYTES)).sum::<u64>();
    let requests = Requests { put: 1, get, delete: heads, ..Requests::default() };
    Usage { requests, read_bytes: live.sum() }
}

/// Whether rewriting saves within the given months what it costs.
fn pays(group: &[Survey], options: &MaintenanceOptions) -> bool {
    let saved = options.prices.month(saved_bytes(group).saturating_mul(options.payback_months_max.into()));
    saved >= options.prices.usage(&usage_of(group))
}

fn is_whole_dead(group: &[Survey]) -> bool {
    group.iter().all(|survey| survey.needed_rows == 0)
}

/// Groups of neighbours to rewrite, as ranges of `surveys`: first those of which nothing is needed, each oldest first. Only the segments that end at or before `through` may be
/// touched.
pub(crate) fn choose(surveys: &[Survey], through: Lsn, options: &MaintenanceOptions) -> Vec<Range<usize>> {
    let percent = options.dead_percent_min.clamp(1, 100);
    let is_small = |survey: &Survey| survey.bytes <= options.small_object_bytes;
    let may = |survey: &Survey| survey.last <= through && (is_small(survey) || survey.is_dead_enough(percent));
    let blocks_max = (options.compact_bytes_max / BLOCK_BYTES).max(1);
    let mut groups = Vec::new();
    let mut start = 0;
    while start < surveys.len() {
        let (mut end, mut blocks, mut rows) = (start, 0, 0);
        while let Some(next) = surveys.get(end).filter(|next| may(next) && next.run == surveys[start].run) {
            (blocks, rows) = (blocks + next.needed_blocks, rows + next.needed_rows);
            if end > start && (blocks > blocks_max || rows > options.rows_held_max) {
                break;
            }
            end += 1;
        }
        let group = &surveys[start..end];
        let data: u64 = group.iter().map(|survey| survey.data_bytes).sum();
        let live: u64 = group.iter().map(Survey::live_bytes).sum();
        let many_small = group.len() >= options.fan_out.max(2) && group.iter().all(is_small);
        let is_dead_enough = data > 0 && (data - live) * 100 >= data * percent;
        if many_small || (is_dead_enough && pays(group, options)) {
            groups.push(start..end);
        } else if is_dead_enough {
            let mut at = start;
            for run in group.chunk_by(|a, b| (a.needed_rows == 0) == (b.needed_rows == 0)) {
                if is_whole_dead(run) && pays(run, options) {
                    groups.push(at..at + run.len());
                }
                at += run.len();
            }
        }
        start = end.max(start + 1);
    }
    groups.sort_by_key(|group| !is_whole_dead(&surveys[group.clone()]));
    groups
}

/// Of the steps of several segments that follow one another, those that a compact one in their place keeps: so that the time of
/// each offered LSN, and of the first and the last one, is right. All steps are in LSN order.
pub(crate) fn thin_steps(steps: &[TimeStep], last: Lsn, retained: &Retained) -> Vec<TimeStep> {
    let mut ascending: Vec<TimeStep> = Vec::with_capacity(steps.len());
    for step in steps {
        // Where one segment ends and the next begins, time may stand still.
        if ascending.last().is_none_or(|before| before.time < step.time) {
            ascending.push(*step);
        }
    }
    let governing = |lsn: Lsn| ascending.partition_point(|step| step.lsn <= lsn).checked_sub(1);
    let Some(first) = ascending.first().map(|step| step.lsn) else { return Vec::new() };
    let kept = retained.kept.iter().chain([&retained.horizon]).map(|mark| mark.lsn);
    let kept = kept.filter(|lsn| first <= *lsn && *lsn <= last).flat_map(|lsn| [lsn, lsn.next()]);
    let mut wanted: Vec<usize> = kept.chain([first, last]).filter_map(governing).collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted.into_iter().map(|at| ascending[at]).collect()
}

/// Whether a compact segment keeps an event.
pub(crate) fn keeps(event: &Event, retained: &Retained) -> bool {
    //= SPEC.md#compact-segments
    //# CS-2
    match event.body {
        EventBody::Bookmark { .. } => retained.offers(event.lsn),
        _ => event.body.is_of_timeline(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tidemark_format::{Mark, TimeNs};
    use tidemark_prices::Sheet;

    const MIB: u64 = 1 << 20;

    fn options() -> MaintenanceOptions {
        MaintenanceOptions {
            dead_percent_min: 25,
            small_object_bytes: MIB,
            compact_bytes_max: 64 * MIB,
            rows_held_max: 1000,
            fan_out: 4,
            ..MaintenanceOptions::default()
        }
    }

    /// Segments of one run: MiB of each, and how many percent of it are needed.
    fn surveys(of: &[(u64, u64)]) -> Vec<Survey> {
        let survey = |(number, (mib, percent)): (u64, &(u64, u64))| Survey {
            run: 0,
            first: Lsn::new(number),
            last: Lsn::new(number),
            bytes: mib * MIB,
            data_bytes: mib * MIB,
            data_blocks: mib * MIB / BLOCK_BYTES,
            needed_blocks: mib * MIB / BLOCK_BYTES * percent / 100,
            needed_rows: 1,
        };
        (1..).zip(of).map(survey).collect()
    }

    #[test]
    fn what_is_dead_enough_is_rewritten_with_its_neighbours() {
        let all = surveys(&[(32, 100), (32, 0), (32, 50), (32, 90), (32, 75), (32, 0)]);
        assert_eq!(choose(&all, Lsn::new(6), &options()), [1..3, 4..6]);
        assert_eq!(choose(&all, Lsn::new(2), &options()).last(), Some(&(1..2)), "later ones may not be touched");
        assert_eq!(choose(&surveys(&[(32, 76), (32, 100)]), Lsn::new(9), &options()), []);
    }

    #[test]
    fn a_group_is_no_larger_than_a_compact_segment_may_be_and_lies_in_one_run() {
        let mut all = surveys(&[(40, 70), (40, 70), (40, 70), (40, 70), (40, 70)]);
        assert_eq!(choose(&all, Lsn::new(9), &options()), [0..2, 2..4, 4..5]);
        all[1].run = 1;
        all[2].run = 1;
        assert_eq!(choose(&all, Lsn::new(9), &options()), [0..1, 1..3, 3..5]);
        all.iter_mut().for_each(|survey| survey.needed_rows = 1000);
        assert_eq!(choose(&all, Lsn::new(9), &options()).len(), 5, "so many rows are not held");
    }

    /// Surveys of which nothing is needed have no needed row.
    fn of(mib_and_live: &[(u64, u64)]) -> Vec<Survey> {
        let mut all = surveys(mib_and_live);
        all.iter_mut().for_each(|survey| survey.needed_rows = u64::from(survey.needed_blocks > 0));
        all
    }

    #[test]
    fn where_reading_costs_more_than_it_saves_a_group_waits_until_more_of_it_is_dead() {
        let from_afar = |months| MaintenanceOptions {
            prices: Sheet::named("aws-s3-standard").unwrap(),
            payback_months_max: months,
            ..options()
        };
        // USD 0.09 for a GiB that is read, 0.023 a month for one that is kept.
        let chosen =
            |live, months| choose(&of(&[(32, live)]), Lsn::new(9), &from_afar(months)).first() == Some(&(0..1));
        assert_eq!([70, 50, 30, 10].map(|live| chosen(live, 1)), [false, false, false, true]);
        assert_eq!([70, 50, 30, 10].map(|live| chosen(live, 4)), [false, true, true, true]);
        assert_eq!([76, 70].map(|live| chosen(live, 60)), [false, true], "less than the target is never rewritten");
        // A store that charges nothing for it: the target alone counts.
        assert_eq!(choose(&of(&[(32, 74)]), Lsn::new(9), &options()).first(), Some(&(0..1)));
    }

    #[test]
    fn what_is_wholly_dead_does_not_wait_for_its_neighbours_and_comes_first() {
        let prices = Sheet::named("aws-s3-standard").unwrap();
        let options = MaintenanceOptions { prices, payback_months_max: 1, ..options() };
        let all = of(&[(32, 60), (32, 0), (32, 0), (32, 70), (32, 100), (32, 10), (32, 100), (32, 0)]);
        // The first four together do not pay.
        assert_eq!(choose(&all, Lsn::new(9), &options), [1..3, 7..8, 5..6]);
    }

    #[test]
    fn a_plan_counts_what_rewriting_asks_of_the_store() {
        let usage = usage_of(&of(&[(32, 50), (32, 0)]));
        let requests = Requests { put: 1, get: 2 + 2, delete: 2, ..Requests::default() };
        assert_eq!(usage, Usage { requests, read_bytes: 16 * MIB });
    }

    #[test]
    fn small_objects_are_joined_once_they_are_many() {
        assert_eq!(choose(&surveys(&[(1, 100); 3]), Lsn::new(9), &options()), []);
        assert_eq!(choose(&surveys(&[(1, 100); 4]), Lsn::new(9), &options()).last(), Some(&(0..4)));
        // What came of it is not rewritten again.
        assert_eq!(choose(&surveys(&[(4, 100)]), Lsn::new(9), &options()), []);
        assert_eq!(choose(&surveys(&[(0, 100)]), Lsn::new(9), &options()), [], "events alone");
    }

    proptest! {
        #[test]
        fn prop_offered_points_keep_their_times(
            gaps in vec((1u64..5, 0u64..4), 1..40),
            kept in vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let (mut lsn, mut ms) = (10, 50);
            let mut steps = vec![TimeStep { lsn: Lsn::new(lsn), time: TimeNs::new(ms) }];
            for (lsns, more) in gaps {
                (lsn, ms) = (lsn + lsns, ms + more);
                steps.push(TimeStep { lsn: Lsn::new(lsn), time: TimeNs::new(ms) });
            }
            let last = Lsn::new(lsn + 3);
            let time = |steps: &[TimeStep], lsn: Lsn| steps[steps.partition_point(|step| step.lsn <= lsn) - 1].time;
            let mut kept: Vec<Lsn> = kept.iter().map(|at| Lsn::new(10 + at.index((lsn - 6) as usize) as u64)).collect();
            kept.sort();
            kept.dedup();
            let mark = |lsn: Lsn| Mark { lsn, time: time(&steps, lsn) };
            let horizon = Mark { lsn: Lsn::new(10_000), time: TimeNs::new(10_000) };
            let retained = Retained { horizon, kept: kept.iter().map(|lsn| mark(*lsn)).collect() };
            let thin = thin_steps(&steps, last, &retained);
            prop_assert!(thin.is_sorted_by(|a, b| a.lsn < b.lsn && a.time < b.time));
            prop_assert_eq!(thin[0], steps[0]);
            prop_assert_eq!(thin[thin.len() - 1].time, time(&steps, last));
            prop_assert!(thin.len() <= 2 * kept.len() + 2);
            for lsn in kept {
                prop_assert_eq!(time(&thin, lsn), time(&steps, lsn));
                // "At that time" still means that LSN, if it did.
                let at_time = |steps: &[TimeStep]| {
                    let after = steps.iter().find(|step| step.time > time(steps, lsn));
                    after.map_or(last.get(), |step| step.lsn.get() - 1)
                };
                if at_time(&steps) == lsn.get() {
                    prop_assert_eq!(at_time(&thin), lsn.get());
                }
            }
        }
    }
}
