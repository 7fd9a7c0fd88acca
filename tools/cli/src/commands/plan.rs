//! `tidemark plan`: what protection takes, from what is known of a load.

use crate::args::{SizeBytes, UrlText};
use crate::commands::stats::{Measured, PeriodArgs, Scale};
use crate::context::open_bucket_at;
use crate::failure::{Outcome, Refused};
use crate::plan::{
    CostPlan, Distinct, Estimate, Ladder, Load, Plan, Price, RequestRates, Wishes, of_blklogwrites, of_blktrace,
    of_fio, of_iostat, plan,
};
use crate::ui::Ui;
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::fmt::Write;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use tidemark_env::Env;
use tidemark_format::StatsTable;
use tidemark_prices::{Money, Sheet};
use tidemark_reader::parse_span;
use tidemark_telemetry::TableReader;

const NS_PER_S: f64 = 1e9;
const MIB: f64 = 1_048_576.0;
const SECONDS_PER_DAY: f64 = 86_400.0;
/// The shortest time whose distinct blocks say something of a day.
const DISTINCT_S_MIN: f64 = 3_600.0;

/// Predict log store, uplink, bucket, requests, money and recovery time
///
/// From a domain's statistics, from a record of another tool, or from figures. Each figure has beside it what it will hardly be below and
/// above, and what was assumed stands at the end. What is known better can be said: --peak, --compression and --disks go before
/// what was found.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// From the statistics in this domain's bucket, over --from and --to
    #[arg(long, value_name = "URL", group = "source")]
    stats: Option<UrlText>,
    #[command(flatten)]
    period: PeriodArgs,
    /// From a record of writes
    #[arg(long, value_name = "FILE", group = "source", requires = "format")]
    record: Option<PathBuf>,
    /// What made the record
    #[arg(long, value_name = "FORMAT", requires = "record")]
    format: Option<Format>,
    /// How long a blklogwrites record took, or the interval of iostat
    #[arg(long, value_name = "SPAN", value_parser = seconds, requires = "record")]
    over: Option<f64>,
    /// Only this device of iostat
    #[arg(long, value_name = "DEVICE", requires = "record")]
    device: Option<String>,
    /// From this figure: what guests write in a day
    #[arg(long, value_name = "SIZE", group = "source")]
    written_per_day: Option<SizeBytes>,
    /// Bytes of a write, with --written-per-day
    #[arg(long, value_name = "SIZE", default_value = "16K")]
    write_size: SizeBytes,
    /// What guests write in the busiest second
    #[arg(long, value_name = "SIZE")]
    peak: Option<SizeBytes>,
    /// How well the data compresses: bytes before for each one after
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    compression: Option<f64>,
    /// The bucket may be away for so long without harm
    #[arg(long, value_name = "SPAN", default_value = "4h", value_parser = seconds)]
    outage: f64,
    /// A write is in the bucket after so long
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = seconds)]
    rpo: f64,
    /// Guest data of a segment
    #[arg(long, value_name = "SIZE", default_value = "64M")]
    segment: SizeBytes,
    /// Every point of so many days is kept
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    window: u32,
    /// Points an hour apart, before that
    #[arg(long, value_name = "N", default_value_t = 0)]
    hourly: u32,
    /// Points a day apart
    #[arg(long, value_name = "N", default_value_t = 0)]
    daily: u32,
    /// Points a week apart
    #[arg(long, value_name = "N", default_value_t = 0)]
    weekly: u32,
    /// Points a month apart
    #[arg(long, value_name = "N", default_value_t = 0)]
    monthly: u32,
    /// Bytes that the disks hold, without what is free [default: of statistics, the disks' sizes]
    #[arg(long, value_name = "SIZE")]
    disks: Option<SizeBytes>,
    /// Bytes a second that a recovery reads with
    #[arg(long, value_name = "SIZE", default_value = "100M")]
    downlink: SizeBytes,
    /// Bytes that a guest reads until it serves
    #[arg(long, value_name = "SIZE", default_value = "300M")]
    boot: SizeBytes,
    /// How long a guest takes until it serves, from a local disk
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = seconds)]
    boot_time: f64,
    /// What stores charge: names of price sheets, or files such as those in docs/ops/prices; may be repeated [default: what the URL of
    /// --stats tells, or every sheet that is part of the program]
    #[arg(long, value_name = "FILE|NAME")]
    prices: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// QEMU's blklogwrites or Linux' dm-log-writes: without times, with data
    Blklogwrites,
    /// The text that blkparse makes of a trace
    Blktrace,
    /// What `iostat -dx 1` prints
    Iostat,
    /// fio's log of each request (--write_lat_log and its like), or its JSON
    Fio,
}

fn seconds(text: &str) -> Result<f64, String> {
    let ns = parse_span(text).filter(|ns| *ns > 0);
    ns.map(|ns| ns as f64 / NS_PER_S).ok_or_else(|| format!("{text:?} is no span such as 5s, 10m or 4h"))
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio: &f64| (1.0..=1e6).contains(ratio));
    ratio.ok_or_else(|| format!("{text:?} is no ratio of 1 or more"))
}

pub(crate) async fn run(args: PlanArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let sheets = sheets(&args)?;
    let (mut load, measured_disks) = load(&args).await?;
    load.peak_bytes_per_s = args.peak.map(|peak| peak.get() as f64).or(load.peak_bytes_per_s);
    load.compression = args.compression.or(load.compression);
    let disk_bytes = args.disks.map(|disks| disks.get() as f64).or(measured_disks);
    let wishes = Wishes {
        outage_s: args.outage,
        rpo_s: args.rpo,
        segment_bytes: (args.segment.get() as f64).max(MIB),
        window_days: f64::from(args.window),
        ladder: Ladder { hourly: args.hourly, daily: args.daily, weekly: args.weekly, monthly: args.monthly },
        disk_bytes: disk_bytes
            .ok_or_else(|| Refused::usage("nobody knows how much the disks hold").hint("say --disks SIZE"))?,
        downlink_bytes_per_s: (args.downlink.get() as f64).max(1.0),
        boot_bytes: args.boot.get() as f64,
        boot_s: args.boot_time,
    };
    ui.answer(&plan(&load, &wishes, &sheets), in_text)?;
    Ok(Outcome::Done)
}

fn sheets(args: &PlanArgs) -> anyhow::Result<Vec<Sheet>> {
    match (&args.prices[..], &args.stats) {
        ([], Some(url)) => Ok(vec![Sheet::likely(&url.anywhere()?)]),
        ([], None) => Ok(Sheet::names().filter_map(Sheet::named).collect()),
        (chosen, _) => Ok(chosen.iter().map(|name| Sheet::chosen(name)).collect::<Result<_, _>>()?),
    }
}

/// The load, and what the disks hold if that is known with it.
async fn load(args: &PlanArgs) -> anyhow::Result<(Load, Option<f64>)> {
    if let Some(url) = &args.stats {
        return of_statistics(url, args.period).await;
    }
    if let Some(written) = args.written_per_day {
        let bytes = written.get() as f64;
        let writes = bytes / (args.write_size.get() as f64).max(512.0);
        return Ok((Load { writes, ..Load::new("the figure", vec![bytes], SECONDS_PER_DAY) }, None));
    }
    let (Some(path), Some(format)) = (&args.record, args.format) else {
        let hint = "say --stats URL, --record FILE --format FORMAT, or --written-per-day SIZE";
        return Err(Refused::usage("there is nothing to plan from").hint(hint).into());
    };
    let load = of_record(path, format, args.over, args.device.as_deref());
    Ok((load.with_context(|| format!("plan from {}", path.display()))?, None))
}

fn of_record(path: &Path, format: Format, over: Option<f64>, device: Option<&str>) -> anyhow::Result<Load> {
    let record = BufReader::new(File::open(path)?);
    let over = || over.ok_or_else(|| Refused::usage("it does not say how long it took").hint("say --over SPAN"));
    Ok(match format {
        Format::Blklogwrites => of_blklogwrites(record, over()?)?,
        Format::Blktrace => of_blktrace(record)?,
        Format::Iostat => of_iostat(record, over()?, device)?,
        Format::Fio => of_fio(record)?,
    })
}

async fn of_statistics(url: &UrlText, period: PeriodArgs) -> anyhow::Result<(Load, Option<f64>)> {
    let bucket = open_bucket_at(url)?;
    let period = period.at(Env::system().clock.wall())?;
    let tables = [StatsTable::DomainMinute, StatsTable::DiskMinute];
    let mut read = TableReader::new(bucket.read_only()).read(&tables, period.days()).await?.into_iter();
    let mut next = |table| Measured::new(table, read.next().unwrap_or_default().rows, period);
    let (domain, disks) = (next(StatsTable::DomainMinute), next(StatsTable::DiskMinute));
    let covered = domain.sum("period_s");
    if covered <= 0.0 {
        return Err(Refused::new("there are no statistics of that time").hint("widen --from and --to").into());
    }
    let a_second = |columns: &[&str]| columns.iter().map(|column| domain.sum(column)).sum::<f64>() / covered;
    let (plain, stored) = (domain.sum("shipped_plain_bytes"), domain.sum("shipped_stored_bytes"));
    let distinct = disks.newest_by(&["vm", "disk"], "day_distinct_bytes");
    let written: Vec<_> = domain.rows.iter().filter_map(|row| domain.number(row, "logged_bytes")).collect();
    let mut load = Load::new("the domain's statistics", written, covered / domain.rows.len() as f64);
    load.writes = domain.sum("logged_records");
    load.compression = (stored > 0.0).then(|| plain / stored);
    load.distinct = (covered >= DISTINCT_S_MIN && distinct > 0.0)
        .then(|| Distinct { bytes: distinct, over_s: covered.min(SECONDS_PER_DAY) });
    load.requests = Some(RequestRates {
        puts: a_second(&["put_requests"]),
        gets: a_second(&["get_requests", "head_requests"]),
        lists: a_second(&["list_requests"]),
    });
    let sizes = disks.newest_by(&["vm", "disk"], "size_max_bytes");
    Ok((load, (sizes > 0.0).then_some(sizes)))
}

fn in_text(plan: &Plan) -> String {
    let mut out = format!("{:<36} {:>13} {:>13} {:>13}\n", "", "likely", "at least", "at most");
    let mut row = |name: &str, [likely, low, high]: [String; 3]| {
        writeln!(out, "{name:<36} {likely:>13} {low:>13} {high:>13}").expect("writing to a String cannot fail");
    };
    let told = |scale: Scale, of: Estimate| [of.likely, of.low, of.high].map(|value| scale.told(value));
    let whole = |of: Estimate| [of.likely, of.low, of.high].map(|value| Scale::Pieces.told(value.round()));
    let ratio =
        [plan.compression.likely, plan.compression.low, plan.compression.high].map(|ratio| format!("{ratio:.2}"));
    row("written by guests in a day", told(Scale::Bytes, plan.written_bytes_per_day));
    row("compression, to 1", ratio);
    row("log store", told(Scale::Bytes, plan.log_store_bytes));
    row("uplink", told(Scale::BytesPerSecond, plan.uplink_bytes_per_s));
    row("shipped in a day", told(Scale::Bytes, plan.shipped_bytes_per_day));
    let bucket = &plan.bucket;
    row("bucket", told(Scale::Bytes, bucket.total_bytes));
    for (name, part) in [
        ("  what disks held at the beginning", bucket.base_bytes),
        ("  every write of the window", bucket.window_bytes),
        ("  points an hour apart", bucket.hourly_bytes),
        ("  points a day apart", bucket.daily_bytes),
        ("  points a week apart", bucket.weekly_bytes),
        ("  points a month apart", bucket.monthly_bytes),
    ] {
        if part.likely > 0.0 {
            row(name, told(Scale::Bytes, part));
        }
    }
    row("PUTs in a month", whole(plan.put_requests_per_month));
    row("GETs in a month", whole(plan.get_requests_per_month));
    row("LISTs in a month", whole(plan.list_requests_per_month));
    row("until a guest serves from its bucket", told(Scale::Seconds, plan.rto_start_s));
    row("until its disks are local again", told(Scale::Seconds, plan.rto_local_s));
    for CostPlan { sheet, currency, requests_per_month, storage_per_month, recovery } in &plan.costs {
        let told = |price: &Price| {
            [price.likely_nanos, price.low_nanos, price.high_nanos]
                .map(|nanos| format!("{currency} {}", Money::of_nanos(nanos)))
        };
        row(&format!("{sheet}: requests of a month"), told(requests_per_month));
        row("  storage of a month", told(storage_per_month));
        row("  a recovery of every disk", told(recovery));
    }
    out.push_str("\nassuming that\n");
    for assumption in &plan.assumptions {
        writeln!(out, "- {assumption}").expect("writing to a String cannot fail");
    }
    out
}
