//! `tidemark stats report`: a page with plots.

use super::page::{Line, PARTS, head, plot, safe, strips, table};
use super::series::{Fold, Measured, Scale};
use super::spent::{Spent, covered};
use super::{Period, PeriodArgs};
use crate::args::BucketArgs;
use crate::context::open_bucket;
use crate::cost::{PriceArgs, reading};
use crate::failure::Outcome;
use crate::ui::Ui;
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tidemark_bucket::ReadOnly;
use tidemark_env::Env;
use tidemark_format::{KeyFamily, StatsTable, TimeNs};
use tidemark_prices::{MONTH, Money, Requests, Sheet};
use tidemark_reader::TimeText;
use tidemark_telemetry::{Row, TableReader};
use tidemark_writer::open_domain;

/// Events that are listed, the newest.
const EVENTS_MAX: usize = 100;
const NS_PER_S: f64 = 1e9;

/// Write a page with plots that needs nothing but a browser
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    period: PeriodArgs,
    #[command(flatten)]
    prices: PriceArgs,
    /// The page
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Serialize)]
struct Report {
    location: String,
    from: String,
    to: String,
    rows: usize,
    cost: Spent,
    damaged: Vec<String>,
    out: String,
}

/// Everything that the page is made of.
struct Found {
    domain: Measured,
    disks: Measured,
    events: Measured,
    passes: Measured,
    recoveries: Measured,
    /// Bytes and objects of the bucket, by what they are.
    space: Vec<(KeyFamily, u64, u64)>,
}

pub(crate) async fn run(args: ReportArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(&args.bucket)?;
    let sheet = args.prices.sheet(&args.bucket.url)?;
    let name = open_domain(&bucket.read_only()).await?.name;
    let period = args.period.at(Env::system().clock.wall())?;
    let tables = [
        StatsTable::DomainMinute,
        StatsTable::DiskMinute,
        StatsTable::Event,
        StatsTable::GcPass,
        StatsTable::RecoveryRun,
    ];
    let read = TableReader::new(bucket.read_only()).read(&tables, period.days()).await?;
    let damaged: Vec<_> = read.iter().flat_map(|found| found.damaged.iter().cloned()).collect();
    let mut measured = tables.into_iter().zip(read).map(|(table, found)| Measured::new(table, found.rows, period));
    let mut next = || measured.next().expect("there is one for each table");
    let space = space(&bucket.read_only()).await?;
    let found = Found { domain: next(), disks: next(), events: next(), passes: next(), recoveries: next(), space };
    let Found { domain, disks, events, passes, recoveries, .. } = &found;
    let rows = [domain, disks, events, passes, recoveries].iter().map(|of| of.rows.len()).sum();
    let page = page(&name, &bucket.location(), period, &found, &sheet, &damaged);
    std::fs::write(&args.out, page).with_context(|| format!("write {}", args.out.display()))?;
    let time = |time| TimeText(time).to_string();
    let out = args.out.display().to_string();
    let report = Report {
        location: bucket.location(),
        from: time(period.from),
        to: time(period.to),
        rows,
        cost: Spent::of(&found.domain, &sheet),
        damaged,
        out,
    };
    ui.answer(&report, |report| format!("{} rows in {}", report.rows, report.out))?;
    Ok(Outcome::Done)
}

/// What a bucket holds: a LIST for each thousand objects.
async fn space(bucket: &ReadOnly) -> anyhow::Result<Vec<(KeyFamily, u64, u64)>> {
    let mut space = Vec::new();
    for family in KeyFamily::ALL.into_iter().filter(|family| *family != KeyFamily::Genesis) {
        let listed = bucket.list(family).await?;
        space.push((family, listed.iter().map(|(_, bytes)| bytes).sum(), listed.len() as u64));
    }
    Ok(space)
}

fn page(name: &str, location: &str, period: Period, found: &Found, sheet: &Sheet, damaged: &[String]) -> String {
    let Found { domain, disks, .. } = found;
    let line = |name, columns: &[&str], fold| Line { name, series: domain.series(columns, fold, PARTS) };
    let time = |time| TimeText(time).to_string();
    let mut page = head(&format!("{name}: statistics"));
    page += &format!(
        "<h1>{}</h1><p>{} &middot; {} to {}</p>\n",
        safe(name),
        safe(location),
        time(period.from),
        time(period.to)
    );
    page += &tiles(found);
    for why in damaged {
        page += &format!("<p class=alarm>Not read: {}</p>\n", safe(why));
    }
    page += &plot(
        "Recovery point",
        "Age of the oldest acknowledged write that the bucket lacks.",
        Scale::Seconds,
        period,
        &[
            line("worst", &["rpo_max_s"], Fold::Max),
            line("mean", &["rpo_mean_s"], Fold::Mean),
            line("target", &["rpo_target_max_s"], Fold::Max),
        ],
    );
    page += &plot(
        "Churn",
        "What guests wrote, and what of it went to the bucket.",
        Scale::BytesPerSecond,
        period,
        &[
            line("written by guests", &["written_bytes"], Fold::PerSecond),
            line("shipped, before compression", &["shipped_plain_bytes"], Fold::PerSecond),
            line("after", &["shipped_stored_bytes"], Fold::PerSecond),
        ],
    );
    page += &plot(
        "Log fill and backpressure",
        "Part of the domain's room in the log store that is taken.",
        Scale::Ratio,
        period,
        &[line("log fill", &["log_fill_max_ratio"], Fold::Max)],
    );
    page += &plot(
        "Requests",
        "Of all kinds, as they are billed.",
        Scale::Pieces,
        period,
        &[line(
            "a second",
            &["put_requests", "get_requests", "list_requests", "delete_requests", "head_requests"],
            Fold::PerSecond,
        )],
    );
    page += &gap_map(disks, period);
    page += &disk_table(disks);
    page += &space_table(&found.space, sheet);
    page += &request_table(domain, sheet);
    page += &recovery_table(&found.recoveries);
    page += &event_table(&found.events);
    page + "</main></html>\n"
}

fn tiles(found: &Found) -> String {
    let domain = &found.domain;
    let most = |column| domain.rows.iter().filter_map(|row| domain.number(row, column)).reduce(f64::max);
    let told = |value: Option<f64>, scale: Scale| value.map_or("not measured".to_owned(), |value| scale.told(value));
    let (plain, stored) = (domain.sum("shipped_plain_bytes"), domain.sum("shipped_stored_bytes"));
    let ratio = if stored > 0.0 { format!("{:.2}", plain / stored) } else { "nothing shipped".to_owned() };
    let tiles = [
        (told(most("rpo_max_s"), Scale::Seconds), "worst recovery point"),
        (domain.sum_told("written_bytes", Scale::Bytes), "written by guests"),
        (domain.sum_told("shipped_stored_bytes", Scale::Bytes), "shipped"),
        (ratio, "compression"),
        (told(most("log_fill_max_ratio"), Scale::Ratio), "most of the log taken"),
        (domain.sum_told("held_s", Scale::Seconds), "guests held, summed over writes"),
        (Scale::Pieces.told(found.passes.rows.len() as f64), "passes of maintenance"),
    ];
    let tiles = tiles.map(|(value, name)| format!("<div><b>{value}</b>{name}</div>"));
    format!("<div class=tiles>{}</div>\n", tiles.concat())
}

/// Rows of each disk, by VM/DISK.
fn by_disk(disks: &Measured, period: Period) -> BTreeMap<String, Measured> {
    let mut rows: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for row in &disks.rows {
        let name = |column| disks.cell(row, column).text().unwrap_or_default();
        rows.entry(format!("{}/{}", name("vm"), name("disk"))).or_default().push(row.clone());
    }
    rows.into_iter().map(|(name, rows)| (name, Measured::new(StatsTable::DiskMinute, rows, period))).collect()
}

fn gap_map(disks: &Measured, period: Period) -> String {
    // The mean of each row is 1 only if every look of the minute found the disk restorable.
    let worst = |of: &Measured| {
        let mut of_parts: Vec<Option<f64>> = of.series(&["restorable_mean_ratio"], Fold::Mean, PARTS);
        of_parts.iter_mut().flatten().for_each(|value| *value = if *value > 0.999 { 1.0 } else { *value });
        of_parts
    };
    let of_disks = by_disk(disks, period);
    let drawn: Vec<_> = of_disks.iter().map(|(name, of)| (name.clone(), worst(of))).collect();
    strips(
        "Gap map",
        "Green: every point of the minute can be restored. Red: a gap, or a seed under way. Blank: nobody measured.",
        period,
        &drawn,
    )
}

fn disk_table(disks: &Measured) -> String {
    let names = [
        "disk",
        "writes",
        "written",
        "read",
        "write latency p99",
        "overwritten",
        "touched in a minute",
        "entropy",
        "compressed to",
        "most unlike its past",
    ];
    let rows = by_disk(disks, disks.period).into_iter().map(|(name, of)| {
        let known = |column: &str| of.rows.iter().filter_map(|row| of.number(row, column)).collect::<Vec<_>>();
        let mean = |column, scale: Scale| match &known(column)[..] {
            [] => "unknown".to_owned(),
            values => scale.told(values.iter().sum::<f64>() / values.len() as f64),
        };
        let most = |column, scale: Scale| {
            known(column).into_iter().reduce(f64::max).map_or("unknown".to_owned(), |value| scale.told(value))
        };
        vec![
            safe(&name),
            of.sum_told("writes", Scale::Pieces),
            of.sum_told("written_bytes", Scale::Bytes),
            of.sum_told("read_bytes", Scale::Bytes),
            most("write_latency_p99_s", Scale::Seconds),
            mean("overwrite_ratio", Scale::Ratio),
            most("touched_bytes", Scale::Bytes),
            mean("entropy_ratio", Scale::Ratio),
            mean("compressed_ratio", Scale::Ratio),
            most("anomaly_max_ratio", Scale::Ratio),
        ]
    });
    table("Disks", &names, &rows.collect::<Vec<_>>())
}

fn request_table(domain: &Measured, sheet: &Sheet) -> String {
    let covered = covered(domain);
    let count = |column| domain.sum(column) as u64;
    let (put, get, list) = (count("put_requests"), count("get_requests"), count("list_requests"));
    let statistics = count("statistics_put_requests");
    let none = Requests::default();
    let kinds = [
        ("PUT", put, Some("put_bytes"), sheet.requests(&Requests { put, ..none })),
        (
            "of them statistics",
            statistics,
            Some("statistics_put_bytes"),
            sheet.requests(&Requests { put: statistics, ..none }),
        ),
        ("GET, with what is read", get, Some("get_bytes"), sheet.usage(&reading(count("get_bytes"), get))),
        ("LIST", list, None, sheet.requests(&Requests { list, ..none })),
        (
            "DELETE",
            count("delete_requests"),
            None,
            sheet.requests(&Requests { delete: count("delete_requests"), ..none }),
        ),
        ("HEAD", count("head_requests"), None, sheet.requests(&Requests { head: count("head_requests"), ..none })),
    ];
    let row = |(name, count, bytes, cost): (&str, u64, Option<&str>, Money)| {
        let unknown = || "unknown".to_owned();
        let bytes = bytes.map_or(String::new(), |bytes| domain.sum_told(bytes, Scale::Bytes));
        if covered.is_zero() {
            return vec![name.to_owned(), unknown(), unknown(), unknown(), unknown(), unknown()];
        }
        let month = Scale::Pieces.told(count as f64 * MONTH.as_secs_f64() / covered.as_secs_f64());
        let cost_month = cost.per_month(covered).map_or_else(unknown, |cost| sheet.told(cost));
        vec![name.to_owned(), Scale::Pieces.told(count as f64), bytes, month, sheet.told(cost), cost_month]
    };
    let title = format!("Requests of the appliance, by the prices of {}", sheet.name());
    let columns = ["kind", "in this time", "bytes", "in a month at this rate", "cost", "cost of a month"];
    table(&title, &columns, &kinds.map(row))
}

/// What keeping the bucket costs, now.
fn space_table(space: &[(KeyFamily, u64, u64)], sheet: &Sheet) -> String {
    let what = |family| match family {
        KeyFamily::Log => "writes: all of the window, and of older ones what kept points need",
        KeyFamily::Base => "what disks held when they were seeded",
        KeyFamily::Index => "index",
        KeyFamily::Statistics => "statistics",
        KeyFamily::Root | KeyFamily::Ledger => "roots and ledgers",
        KeyFamily::Claim | KeyFamily::Genesis => "claims",
        KeyFamily::Volatile => "hints, pins and the like",
    };
    let line = |name: &str, bytes: u64, objects: u64| {
        let told = Scale::Bytes.told(bytes as f64);
        vec![name.to_owned(), told, Scale::Pieces.told(objects as f64), sheet.told(sheet.month(bytes))]
    };
    let mut by_what: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (family, bytes, objects) in space.iter().filter(|(_, _, objects)| *objects > 0) {
        let sums = by_what.entry(what(*family)).or_default();
        *sums = (sums.0 + bytes, sums.1 + objects);
    }
    let mut parts: Vec<_> = by_what.into_iter().collect();
    parts.sort_by_key(|(_, (bytes, _))| std::cmp::Reverse(*bytes));
    let mut rows: Vec<_> = parts.iter().map(|(name, (bytes, objects))| line(name, *bytes, *objects)).collect();
    let all = parts.iter().fold((0, 0), |sum, (_, part)| (sum.0 + part.0, sum.1 + part.1));
    rows.push(line("all", all.0, all.1));
    let title = format!("Space in the bucket now, by the prices of {}", sheet.name());
    table(&title, &["what it is for", "bytes", "objects", "cost of a month"], &rows)
}

/// The last word on each recovery.
fn recovery_table(recoveries: &Measured) -> String {
    let text = |row, column| safe(recoveries.cell(row, column).text().unwrap_or_default());
    let mut last: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in &recoveries.rows {
        let number = |column, scale: Scale| {
            recoveries.number(row, column).map_or_else(|| "never".to_owned(), |value| scale.told(value))
        };
        let vms = format!("{} of {}", number("ready_vms", Scale::Pieces), number("vms", Scale::Pieces));
        let began = moment_of(row);
        let cells = vec![
            began,
            text(row, "mode"),
            text(row, "phase"),
            number("rto_s", Scale::Seconds),
            vms,
            number("failed_steps", Scale::Pieces),
        ];
        last.insert(text(row, "run"), cells);
    }
    let rows: Vec<_> = last.into_values().rev().collect();
    table(
        "Recoveries, newest first",
        &["began (UTC)", "mode", "phase", "every VM ready after", "ready VMs", "failed steps"],
        &rows,
    )
}

/// The time of a row.
fn moment_of(row: &Row) -> String {
    let micros = row[0].number().unwrap_or_default();
    let time = TimeText(TimeNs::new((micros / 1e6 * NS_PER_S) as u64)).to_string();
    time.get(..19).unwrap_or(&time).replace('T', " ")
}

fn event_table(events: &Measured) -> String {
    let rows = events.rows.iter().rev().take(EVENTS_MAX).map(|row| {
        let text = |column| events.cell(row, column).text().unwrap_or_default();
        let about =
            [text("vm"), text("disk")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        let class = if text("severity") == "error" { " class=alarm" } else { "" };
        let kind = format!("<span{class}>{}</span>", safe(text("kind")));
        vec![moment_of(row), kind, safe(&about), safe(text("message"))]
    });
    table("Events, newest first", &["time (UTC)", "kind", "about", ""], &rows.collect::<Vec<_>>())
}
