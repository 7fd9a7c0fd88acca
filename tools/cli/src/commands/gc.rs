//! `tidemark gc`: the maintenance role.

use crate::args::BucketArgs;
use crate::context::{interrupted, open_bucket};
use crate::failure::Outcome;
use crate::ui::Ui;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::time::Duration;
use tidemark_env::Env;
use tidemark_format::{ErrorKind, Lsn};
use tidemark_gc::{From, IndexStatus, Maintainer, MaintenanceOptions, PassReport, retention_plan, status};
use tidemark_reader::TimeText;

/// Segments that `--watch` leaves to readers until they make a run.
const UNINDEXED_WHILE_WATCHING: usize = 16;

/// Keep a domain's index, so that any point opens at once
#[derive(Debug, Subcommand)]
pub(crate) enum GcCommand {
    /// Index what is final and not yet indexed, and merge what can be merged
    ///
    /// Then points that the domain's retention no longer wishes are no longer offered.
    ///
    /// Needs the right to read and to add objects; deletes nothing. Writers and readers are not disturbed, and a second
    /// maintainer does no harm: the newer one goes on, the older one stops. Stopped at any moment, the next run continues.
    Run(RunArgs),
    /// Show what the index covers
    Status(StatusArgs),
}

/// Index and merge
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// Go on, looking for something to do so many seconds after nothing was left
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    /// Change nothing; show which points would no longer be offered
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,
}

/// Show the index
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    bucket: BucketArgs,
}

#[derive(Debug, Serialize)]
struct Level {
    level: u32,
    runs: u64,
    tables: u64,
    rows: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Index {
    root: String,
    through_lsn: u64,
    through_time: String,
    segments: u64,
    levels: Vec<Level>,
}

impl std::convert::From<&IndexStatus> for Index {
    fn from(status: &IndexStatus) -> Self {
        let level = |level: &tidemark_gc::LevelStatus| Level {
            level: level.level,
            runs: level.runs,
            tables: level.tables,
            rows: level.rows,
            bytes: level.bytes,
        };
        Self {
            root: tidemark_format::ObjectKey::Root { epoch: status.epoch, seq: status.seq }.to_string(),
            through_lsn: status.through.get(),
            through_time: TimeText(status.time).to_string(),
            segments: status.segments,
            levels: status.levels.iter().map(level).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    location: String,
    index: Option<Index>,
}

#[derive(Debug, Serialize)]
struct Report {
    location: String,
    segments: u64,
    rows: u64,
    runs: u64,
    merges: u64,
    merged_rows: u64,
    roots: u64,
    bytes: u64,
    dropped: Vec<Dropped>,
    index: Option<Index>,
}

/// Points that are no longer offered.
#[derive(Debug, Serialize)]
struct Dropped {
    first_lsn: u64,
    last_lsn: u64,
}

#[derive(Debug, Serialize)]
struct Plan {
    location: String,
    dropped: Vec<Dropped>,
}

impl std::convert::From<&RangeInclusive<Lsn>> for Dropped {
    fn from(lsns: &RangeInclusive<Lsn>) -> Self {
        Self { first_lsn: lsns.start().get(), last_lsn: lsns.end().get() }
    }
}

pub(crate) async fn run(command: GcCommand, ui: &Ui) -> anyhow::Result<Outcome> {
    match command {
        GcCommand::Run(args) if args.dry_run => {
            let bucket = open_bucket(&args.bucket)?;
            let plan = retention_plan(&bucket.read_only(), &Env::system()).await?;
            let dropped = plan.iter().flat_map(|plan| &plan.dropped).map(Dropped::from).collect();
            let plan = Plan { location: bucket.location(), dropped };
            ui.answer(&plan, |plan| dropped_in_text("would no longer be offered", &plan.dropped))?;
            Ok(Outcome::Done)
        }
        GcCommand::Run(args) => maintain(&args.bucket, From::NewestRoot, args.watch.map(Duration::from_secs), ui).await,
        GcCommand::Status(args) => show(args, ui).await,
    }
}

/// Makes passes until nothing is left to do, or for ever.
pub(super) async fn maintain(
    bucket: &BucketArgs,
    from: From,
    watch: Option<Duration>,
    ui: &Ui,
) -> anyhow::Result<Outcome> {
    let mut stop = std::pin::pin!(interrupted());
    let bucket = open_bucket(bucket)?;
    let unindexed_segments_max = watch.map_or(0, |_| UNINDEXED_WHILE_WATCHING);
    let options = MaintenanceOptions { unindexed_segments_max, ..MaintenanceOptions::default() };
    let mut maintainer = Maintainer::open(bucket.appender(), options, Env::system()).await?;
    let bar = ui.count_bar("indexing", 0);
    loop {
        let progress = |report: &PassReport| bar.say(format!("{} rows, {} merges", report.rows, report.merges));
        let passed = tokio::select! {
            biased;
            () = &mut stop => return Ok(Outcome::Interrupted),
            passed = maintainer.pass(from, progress) => passed,
        };
        match (passed, watch) {
            (Ok(passed), None) => {
                drop(bar);
                ui.answer(&report(bucket.location(), &passed), in_text)?;
                return Ok(Outcome::Done);
            }
            (Ok(passed), Some(_)) => ui.say(format!("{} segments, {} rows indexed", passed.segments, passed.rows)),
            (Err(error), Some(_)) if error.kind() == ErrorKind::Retry => {
                ui.warn(format!("{:#}; trying again", anyhow::Error::from(error)));
            }
            (Err(error), _) => return Err(error.into()),
        }
        tokio::select! {
            biased;
            () = &mut stop => return Ok(Outcome::Interrupted),
            () = tokio::time::sleep(watch.unwrap_or_default()) => {}
        }
    }
}

fn report(location: String, passed: &PassReport) -> Report {
    Report {
        location,
        segments: passed.segments,
        rows: passed.rows,
        runs: passed.runs,
        merges: passed.merges,
        merged_rows: passed.merged_rows,
        roots: passed.roots,
        bytes: passed.bytes,
        dropped: passed.dropped.iter().map(Dropped::from).collect(),
        index: passed.index.as_ref().map(Index::from),
    }
}

fn in_text(report: &Report) -> String {
    let done = format!(
        "indexed  {} segments, {} rows in {} runs; merged {} times, {} rows; {} bytes in {} roots",
        report.segments, report.rows, report.runs, report.merges, report.merged_rows, report.bytes, report.roots
    );
    let dropped = dropped_in_text("are no longer offered", &report.dropped);
    format!("{done}\n{dropped}{}", index_in_text(report.index.as_ref()))
}

fn dropped_in_text(what: &str, dropped: &[Dropped]) -> String {
    let points: u64 = dropped.iter().map(|run| run.last_lsn - run.first_lsn + 1).sum();
    let mut out = format!("points   {points} {what}\n");
    for Dropped { first_lsn, last_lsn } in dropped {
        writeln!(out, "         lsn:{first_lsn} to lsn:{last_lsn}").expect("writing to a String cannot fail");
    }
    out
}

fn index_in_text(index: Option<&Index>) -> String {
    let Some(index) = index else { return "index    none: reading opens every segment of the log".to_owned() };
    let Index { root, through_lsn, through_time, segments, levels } = index;
    let mut out = format!("index    {root}: {segments} segments through lsn {through_lsn} at {through_time}\n");
    for Level { level, runs, tables, rows, bytes } in levels {
        writeln!(out, "level {level}  {runs} runs, {rows} rows in {tables} tables, {bytes} bytes")
            .expect("writing to a String cannot fail");
    }
    out
}

async fn show(args: StatusArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(&args.bucket)?;
    let found = status(&bucket.read_only()).await?;
    let shown = Shown { location: bucket.location(), index: found.as_ref().map(Index::from) };
    ui.answer(&shown, |shown| index_in_text(shown.index.as_ref()))?;
    Ok(Outcome::Done)
}
