//! How fast a sweep says which versions are needed: the part of deletion that grows with the history.

use crate::corpus::Random;
use crate::report::{Goal, Report};
use anyhow::Result;
use tidemark_env::Clock;
use tidemark_extent_map::liveness::{Sweep, Tally};
use tidemark_format::{DiskId, Extent, Lsn, Mark, PlacedRow, Retained, Row, RowKind, TimeNs};

/// What is measured.
pub(crate) struct Options {
    /// Rows of 4 KiB.
    pub(crate) rows: u64,
    /// Versions of each block, on average.
    pub(crate) versions: u64,
    /// Kept points, beside the horizon.
    pub(crate) kept: u64,
}

/// Rows of one log segment.
const SEGMENT_ROWS: u64 = 16_384;
/// 1 TiB of writes of 4 KiB.
const TIB_ROWS: f64 = (1u64 << 28) as f64;
/// Blocks of a write.
const WRITE_BLOCKS: u64 = 8;

pub(crate) fn run(options: &Options, clock: &dyn Clock) -> Result<Report> {
    let mut report = Report::default();
    report.figure("rows", options.rows as f64, "");
    report.figure("kept points", options.kept as f64, "");
    for (name, longest) in [("aligned 4 KiB", 1), ("4 KiB to 128 KiB", 32)] {
        let (seconds, needed) = sweep(options, longest, clock);
        let rate = options.rows as f64 / seconds;
        report.goal(format!("{name}: rows a second on one core"), rate / 1e6, "M/s", Goal::AtLeast(2.0));
        report.figure(format!("{name}: parts that are needed"), needed as f64 / options.rows as f64, "a row");
        report.figure(format!("{name}: metadata of 1 TiB"), TIB_ROWS / rate, "s");
    }
    Ok(report)
}

/// Sweeps over uniformly random writes of 1 to `longest` times 4 KiB, the older half of them behind the horizon, and adds up what
/// is needed of each segment. The rows are made up a batch at a time, outside of what is measured.
fn sweep(options: &Options, longest: u64, clock: &dyn Clock) -> (f64, u64) {
    let mut random = Random(11);
    let mark = |lsn: u64| Mark { lsn: Lsn::new(lsn), time: TimeNs::default() };
    let horizon = options.rows / 2;
    let kept = (1..=options.kept).map(|n| mark(n * horizon / (options.kept + 1))).collect();
    let mut sweep = Sweep::new(&Retained { horizon: mark(horizon), kept }, &[]);
    let mut tally = Tally::new((0..=options.rows / SEGMENT_ROWS).map(|n| Lsn::new(n * SEGMENT_ROWS)).collect());
    let (mut needed_parts, mut seconds) = (0, 0.0);
    let (mut place, mut made) = (0, 0);
    while made < options.rows {
        let mut batch = Vec::with_capacity(1 << 16);
        while batch.len() < 1 << 16 && made < options.rows {
            let versions = (1 + random.below(2 * options.versions - 1)).min(options.rows - made);
            let mut lsns: Vec<u64> = (0..versions).map(|_| random.below(options.rows)).collect();
            lsns.sort_unstable();
            lsns.dedup();
            made += versions;
            batch.extend(lsns.into_iter().map(|lsn| {
                let extent = Extent::new(place * WRITE_BLOCKS, WRITE_BLOCKS * (1 + random.below(longest)));
                let (disk, lsn) = (DiskId::new(1), Lsn::new(lsn));
                PlacedRow { row: Row { disk, extent, lsn, kind: RowKind::Data }, stream_block: 0 }
            }));
            place += 1;
        }
        let started = clock.monotonic();
        for row in &batch {
            tally.count(row);
            sweep.push(*row);
            while let Some(needed) = sweep.poll() {
                tally.count_needed(&needed);
                needed_parts += 1;
            }
        }
        seconds += clock.monotonic().saturating_sub(started).as_secs_f64();
    }
    sweep.finish();
    needed_parts += std::iter::from_fn(|| sweep.poll()).count() as u64;
    std::hint::black_box(tally.objects());
    (seconds, needed_parts)
}
