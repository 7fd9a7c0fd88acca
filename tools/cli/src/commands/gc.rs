//! `tidemark gc`: the maintenance role.

use crate::args::BucketArgs;
use crate::commands::stats::feed::Feed;
use crate::context::{interrupted, open_bucket};
use crate::cost::PriceArgs;
use crate::failure::Outcome;
use crate::ui::Ui;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::time::Duration;
use tidemark_env::Env;
use tidemark_format::{ErrorKind, Lsn};
use tidemark_gc::{CleanReport, From, IndexStatus, Maintainer, MaintenanceOptions, PassReport, retention_plan, status};
use tidemark_prices::{Money, Sheet};
use tidemark_reader::TimeText;

/// Segments that `--watch` leaves to readers until they make a run.
const UNINDEXED_WHILE_WATCHING: usize = 16;

/// How long `--watch` waits between two cleanings: each lists the bucket.
const CLEAN_EVERY: Duration = Duration::from_secs(900);

/// Keep a domain's index, so that any point opens at once, and delete what no point needs
#[derive(Debug, Subcommand)]
pub(crate) enum GcCommand {
    /// Index what is final and not yet indexed, and merge what can be merged
    ///
    /// Then points that the domain's retention no longer wishes are no longer offered, what is mostly needed by no point is written anew
    /// without it, and what nobody needs is deleted.
    ///
    /// Needs the right to read, to add objects, and (but for --index-only) to delete them. Writers and readers are not disturbed, and a second
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
    /// Delete nothing, and write nothing but the index
    #[arg(long)]
    index_only: bool,
    /// Rewrite nothing of which less than this share is dead
    #[arg(long, value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=100))]
    dead_target: u64,
    /// Rewrite nothing unless that saves its cost within so many months; wholly dead segments come first, for they cost least
    #[arg(long, value_name = "MONTHS", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1200))]
    payback: u32,
    #[command(flatten)]
    prices: PriceArgs,
    /// Change nothing; show which points would no longer be offered, and what would be written and deleted
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
    images: Images,
}

#[derive(Debug, Serialize)]
struct Images {
    tables: u64,
    rows: u64,
    bytes: u64,
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
            images: Images { tables: status.images.tables, rows: status.images.rows, bytes: status.images.bytes },
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
    cleaned: Option<Cleaned>,
    index: Option<Index>,
}

/// What was rewritten and deleted, or would be.
#[derive(Debug, Serialize)]
struct Cleaned {
    replaced_segments: u64,
    replaced_bytes: u64,
    compact_segments: u64,
    fetched_bytes: u64,
    written_bytes: u64,
    dropped_rows: u64,
    deleted_objects: u64,
    deleted_bytes: u64,
    locked_objects: u64,
    pins: u64,
    held_back: Option<&'static str>,
    usage: Asked,
    cost: Cost,
}

/// What the store was asked, or would be.
#[derive(Debug, Serialize)]
struct Asked {
    put: u64,
    get: u64,
    list: u64,
    delete: u64,
    head: u64,
    read_bytes: u64,
}

/// What that costs, and what it saves. In billionths of the currency's unit.
#[derive(Debug, Serialize)]
struct Cost {
    sheet: String,
    currency: String,
    spent_nanos: u64,
    saved_month_nanos: u64,
}

impl Cleaned {
    fn of(report: &CleanReport, sheet: &Sheet) -> Self {
        let requests = report.usage.requests;
        let saved_bytes = report.deleted_bytes.saturating_sub(report.written_bytes);
        Self {
            replaced_segments: report.replaced,
            replaced_bytes: report.replaced_bytes,
            compact_segments: report.compacts,
            fetched_bytes: report.fetched_bytes,
            written_bytes: report.written_bytes,
            dropped_rows: report.rows_dropped,
            deleted_objects: report.deleted,
            deleted_bytes: report.deleted_bytes,
            locked_objects: report.locked,
            pins: report.pins,
            held_back: report.held_back,
            usage: Asked {
                put: requests.put,
                get: requests.get,
                list: requests.list,
                delete: requests.delete,
                head: requests.head,
                read_bytes: report.usage.read_bytes,
            },
            cost: Cost {
                sheet: sheet.name().to_owned(),
                currency: sheet.currency().to_owned(),
                spent_nanos: sheet.usage(&report.usage).nanos(),
                saved_month_nanos: sheet.month(saved_bytes).nanos(),
            },
        }
    }
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
    cleaned: Cleaned,
}

impl std::convert::From<&RangeInclusive<Lsn>> for Dropped {
    fn from(lsns: &RangeInclusive<Lsn>) -> Self {
        Self { first_lsn: lsns.start().get(), last_lsn: lsns.end().get() }
    }
}

impl RunArgs {
    fn options(&self) -> anyhow::Result<MaintenanceOptions> {
        Ok(MaintenanceOptions {
            dead_percent_min: self.dead_target,
            payback_months_max: self.payback,
            prices: self.prices.sheet(&self.bucket.url)?,
            ..MaintenanceOptions::default()
        })
    }
}

pub(crate) async fn run(command: GcCommand, ui: &Ui) -> anyhow::Result<Outcome> {
    match command {
        GcCommand::Run(args) if args.dry_run => {
            let bucket = open_bucket(&args.bucket)?;
            let plan = retention_plan(&bucket.read_only(), &Env::system()).await?;
            let dropped = plan.iter().flat_map(|plan| &plan.dropped).map(Dropped::from).collect();
            let options = args.options()?;
            let sheet = options.prices.clone();
            let maintainer = Maintainer::open(bucket.appender(), options, Env::system()).await?;
            let cleaned = Cleaned::of(&maintainer.plan_clean(plan.map(|plan| plan.after)).await?, &sheet);
            let plan = Plan { location: bucket.location(), dropped, cleaned };
            ui.answer(&plan, |plan| {
                let dropped = dropped_in_text("would no longer be offered", &plan.dropped);
                format!("{dropped}{}", cleaned_in_text("would be ", &plan.cleaned))
            })?;
            Ok(Outcome::Done)
        }
        GcCommand::Run(args) => {
            let work = if args.index_only { Work::Index } else { Work::IndexAndClean };
            maintain(&args.bucket, work, args.options()?, args.watch.map(Duration::from_secs), ui).await
        }
        GcCommand::Status(args) => show(args, ui).await,
    }
}

/// What a pass does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Index,
    IndexAndClean,
    Rebuild,
}

/// Makes passes until nothing is left to do, or for ever.
pub(super) async fn maintain(
    bucket: &BucketArgs,
    work: Work,
    options: MaintenanceOptions,
    watch: Option<Duration>,
    ui: &Ui,
) -> anyhow::Result<Outcome> {
    let mut stop = std::pin::pin!(interrupted());
    let bucket = open_bucket(bucket)?;
    let unindexed_segments_max = watch.map_or(0, |_| UNINDEXED_WHILE_WATCHING);
    let options = MaintenanceOptions { unindexed_segments_max, ..options };
    let sheet = options.prices.clone();
    let env = Env::system();
    let mut maintainer = Maintainer::open(bucket.appender(), options, env.clone()).await?;
    let name = tidemark_writer::open_domain(&bucket.read_only()).await?.name;
    let mut feed = Feed::new(&bucket, &name, &env);
    let bar = ui.count_bar("indexing", 0);
    let from = if work == Work::Rebuild { From::Scratch } else { From::NewestRoot };
    let mut cleaned_at: Option<Duration> = None;
    let clock = env.clock.clone();
    loop {
        let progress = |report: &PassReport| bar.say(format!("{} rows, {} merges", report.rows, report.merges));
        feed.begins();
        let passed = tokio::select! {
            biased;
            () = &mut stop => return Ok(Outcome::Interrupted),
            passed = maintainer.pass(from, progress) => passed,
        };
        let due = cleaned_at.is_none_or(|at| clock.monotonic() >= at + CLEAN_EVERY);
        let cleaned = if passed.is_ok() && work == Work::IndexAndClean && due {
            cleaned_at = Some(clock.monotonic());
            let progress = |report: &CleanReport| {
                bar.say(format!("{} segments rewritten, {} objects deleted", report.replaced, report.deleted));
            };
            let deleter = bucket.deleter();
            tokio::select! {
                biased;
                () = &mut stop => return Ok(Outcome::Interrupted),
                cleaned = maintainer.clean(&deleter, progress) => Some(cleaned),
            }
        } else {
            None
        };
        let (passed, cleaned) = match cleaned.transpose() {
            Ok(cleaned) => (passed, cleaned),
            Err(error) => (Err(error), None),
        };
        if let (Ok(passed), Work::IndexAndClean) = (&passed, work) {
            feed.passed(passed, ui).await;
        }
        match (passed, watch) {
            (Ok(passed), None) => {
                drop(bar);
                let cleaned = cleaned.map(|cleaned| Cleaned::of(&cleaned, &sheet));
                ui.answer(&report(bucket.location(), &passed, cleaned), in_text)?;
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

fn report(location: String, passed: &PassReport, cleaned: Option<Cleaned>) -> Report {
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
        cleaned,
        index: passed.index.as_ref().map(Index::from),
    }
}

fn in_text(report: &Report) -> String {
    let done = format!(
        "indexed  {} segments, {} rows in {} runs; merged {} times, {} rows; {} bytes in {} roots",
        report.segments, report.rows, report.runs, report.merges, report.merged_rows, report.bytes, report.roots
    );
    let dropped = dropped_in_text("are no longer offered", &report.dropped);
    let cleaned = report.cleaned.as_ref().map_or(String::new(), |cleaned| cleaned_in_text("", cleaned));
    format!("{done}\n{dropped}{cleaned}{}", index_in_text(report.index.as_ref()))
}

/// `would` stands in front of what was not done.
fn cleaned_in_text(would: &str, cleaned: &Cleaned) -> String {
    let mut out = format!(
        "cleaned  {} segments of {} bytes {would}rewritten as {} of {} bytes; {} objects of {} bytes {would}deleted\n",
        cleaned.replaced_segments,
        cleaned.replaced_bytes,
        cleaned.compact_segments,
        cleaned.written_bytes,
        cleaned.deleted_objects,
        cleaned.deleted_bytes
    );
    let Asked { put, get, list, delete, head, read_bytes } = cleaned.usage;
    let (requests, Cost { sheet, currency, spent_nanos, saved_month_nanos }) =
        (put + get + list + delete + head, &cleaned.cost);
    if requests > 0 {
        let told = |nanos: u64| format!("{currency} {}", Money::of_nanos(nanos));
        let (spent, saved) = (told(*spent_nanos), told(*saved_month_nanos));
        writeln!(
            out,
            "cost     {requests} requests that read {read_bytes} bytes: {spent}; saves {saved} a month ({sheet})"
        )
        .expect("writing to a String cannot fail");
    }
    if cleaned.locked_objects > 0 {
        writeln!(out, "         {} objects are locked and stay for now", cleaned.locked_objects)
            .expect("writing to a String cannot fail");
    }
    if cleaned.pins > 0 {
        writeln!(out, "         {} pins keep what they need: see `tidemark pins`", cleaned.pins)
            .expect("writing to a String cannot fail");
    }
    if let Some(why) = cleaned.held_back {
        writeln!(out, "         {why}").expect("writing to a String cannot fail");
    }
    out
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
    let Index { root, through_lsn, through_time, segments, levels, images } = index;
    let mut out = format!("index    {root}: {segments} segments through lsn {through_lsn} at {through_time}\n");
    for Level { level, runs, tables, rows, bytes } in levels {
        writeln!(out, "level {level}  {runs} runs, {rows} rows in {tables} tables, {bytes} bytes")
            .expect("writing to a String cannot fail");
    }
    let Images { tables, rows, bytes } = images;
    if *tables > 0 {
        writeln!(out, "images   {rows} rows in {tables} tables, {bytes} bytes")
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
