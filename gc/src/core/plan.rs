//! What to do next with an index.

use crate::options::MaintenanceOptions;
use std::ops::Range;
use tidemark_format::{Lsn, Root, TableKind, TableRef};

/// A run, as the root's tables tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) level: u32,
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    /// Bytes of its table of segments.
    pub(crate) segments_bytes: u64,
}

impl Run {
    /// The tables of a kind that belong to it, in the order of their rows.
    pub(crate) fn tables<'a>(&self, root: &'a Root, kind: TableKind) -> impl Iterator<Item = &'a TableRef> + use<'a> {
        let run = *self;
        root.tables_of(kind).filter(move |table| run.owns(table))
    }

    pub(crate) fn owns(&self, table: &TableRef) -> bool {
        table.kind != TableKind::Images && (table.first_lsn, table.last_lsn) == (self.first, self.last)
    }
}

/// The runs of a root, oldest first. Each has exactly one table of segments.
pub(crate) fn runs(root: &Root) -> Vec<Run> {
    let run = |table: &TableRef| Run {
        level: table.level,
        first: table.first_lsn,
        last: table.last_lsn,
        segments_bytes: table.len,
    };
    root.tables_of(TableKind::Segments).map(run).collect()
}

/// The runs to merge next: the oldest `fan_out` of the lowest level that has so many in a row.
pub(crate) fn next_merge(runs: &[Run], options: &MaintenanceOptions) -> Option<Range<usize>> {
    let fan_out = options.fan_out.max(2);
    let fits = |runs: &[Run]| {
        let bytes: u64 = runs.iter().map(|run| run.segments_bytes).sum();
        runs.iter().all(|run| run.level == runs[0].level) && bytes <= options.segments_bytes_max
    };
    let windows = runs.windows(fan_out).enumerate().filter(|(_, window)| fits(window));
    let lowest = windows.min_by_key(|(at, window)| (window[0].level, *at));
    lowest.map(|(at, _)| at..at + fan_out)
}

/// How many of the segments at hand, given their rows, make the next run. `all` if no more will come: then what is left may be
/// shorter than a run. 0 if there is nothing to do.
pub(crate) fn next_run(rows: impl IntoIterator<Item = u64>, all: bool, options: &MaintenanceOptions) -> usize {
    let (mut count, mut sum) = (0, 0u64);
    for rows in rows {
        count += 1;
        sum += rows;
        if sum >= options.run_rows || count as u64 >= options.heads_held_max {
            return count;
        }
    }
    if all && count > options.unindexed_segments_max { count } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(levels: &[u32]) -> Vec<Run> {
        let run = |(at, level): (u64, &u32)| Run {
            level: *level,
            first: Lsn::new(at),
            last: Lsn::new(at),
            segments_bytes: 10,
        };
        (1..).zip(levels).map(run).collect()
    }

    fn options(fan_out: usize) -> MaintenanceOptions {
        MaintenanceOptions { fan_out, ..MaintenanceOptions::default() }
    }

    #[test]
    fn the_oldest_runs_of_the_lowest_level_are_merged_first() {
        let plan = |of: &[u32]| next_merge(&levels(of), &options(3));
        assert_eq!(plan(&[]), None);
        assert_eq!(plan(&[1, 1, 0, 0]), None);
        assert_eq!(plan(&[1, 1, 1, 0, 0]), Some(0..3));
        assert_eq!(plan(&[1, 1, 1, 0, 0, 0, 0]), Some(3..6));
        assert_eq!(plan(&[0, 0, 1, 0]), None, "they do not follow one another");
    }

    #[test]
    fn runs_with_too_many_segments_stay_as_they_are() {
        let options = MaintenanceOptions { segments_bytes_max: 29, ..options(3) };
        assert_eq!(next_merge(&levels(&[0, 0, 0]), &options), None);
    }

    #[test]
    fn merging_keeps_the_number_of_runs_logarithmic() {
        let options = options(4);
        let mut runs: Vec<Run> = Vec::new();
        for at in 1..=1000u64 {
            runs.push(Run { level: 0, first: Lsn::new(at), last: Lsn::new(at), segments_bytes: 1 });
            while let Some(range) = next_merge(&runs, &options) {
                let (first, last) = (runs[range.start], runs[range.end - 1]);
                let merged = Run { level: first.level + 1, first: first.first, last: last.last, segments_bytes: 1 };
                runs.splice(range, [merged]);
            }
            assert!(runs.len() <= 3 * 5, "{at}: {runs:?}");
            assert!(runs.windows(2).all(|pair| pair[0].last.next() == pair[1].first));
        }
    }

    #[test]
    fn a_run_ends_when_it_is_large_enough_and_a_rest_waits_if_it_may() {
        let options = MaintenanceOptions { run_rows: 100, unindexed_segments_max: 2, ..options(8) };
        assert_eq!(next_run([60, 60, 60], false, &options), 2);
        assert_eq!(next_run([200], false, &options), 1);
        assert_eq!(next_run([60], true, &options), 0);
        assert_eq!(next_run([1, 1, 1], true, &options), 3);
        assert_eq!(next_run([1, 1, 1], false, &options), 0);
        assert_eq!(next_run([], true, &MaintenanceOptions { unindexed_segments_max: 0, ..options }), 0);
    }
}
