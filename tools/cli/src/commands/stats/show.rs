//! `tidemark stats show`: charts in the terminal.

use super::chart::{PARTS, chart};
use super::series::{Fold, Measured, Scale};
use super::spent::Spent;
use super::{Period, PeriodArgs};
use crate::args::BucketArgs;
use crate::context::{interrupted, open_bucket};
use crate::cost::PriceArgs;
use crate::failure::Outcome;
use crate::ui::{Reader, Ui};
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;
use tidemark_env::Env;
use tidemark_format::StatsTable;
use tidemark_prices::Sheet;
use tidemark_reader::TimeText;
use tidemark_telemetry::TableReader;

/// Draw recovery point, throughput and log fill in the terminal
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    period: PeriodArgs,
    #[command(flatten)]
    prices: PriceArgs,
    /// Draw again every so many seconds: one LIST each time, and one GET for each new file
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60",
          value_parser = clap::value_parser!(u64).range(1..))]
    live: Option<u64>,
}

/// What was measured of a domain in a period.
#[derive(Debug, Serialize)]
struct Summary {
    location: String,
    from: String,
    to: String,
    rows: usize,
    rpo_worst_s: Option<f64>,
    written_bytes: u64,
    shipped_plain_bytes: u64,
    shipped_stored_bytes: u64,
    log_fill_most: Option<f64>,
    anomaly_most: Option<f64>,
    held_s: f64,
    requests: u64,
    cost: Spent,
    damaged: Vec<String>,
    #[serde(skip)]
    charts: String,
}

pub(crate) async fn run(args: ShowArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(&args.bucket)?;
    let sheet = args.prices.sheet(&args.bucket.url)?;
    let mut reader = TableReader::new(bucket.read_only());
    let mut stop = std::pin::pin!(interrupted());
    let clock = Env::system().clock;
    loop {
        let period = args.period.at(clock.wall())?;
        let shown = tokio::select! {
            biased;
            () = &mut stop => return Ok(Outcome::Interrupted),
            shown = look(&mut reader, bucket.location(), period, &sheet) => shown?,
        };
        let Some(pause) = args.live else {
            ui.answer(&shown, in_text)?;
            return Ok(Outcome::Done);
        };
        if ui.instead(&shown, in_text)? == Reader::Gone {
            return Ok(Outcome::Done);
        }
        tokio::select! {
            biased;
            () = &mut stop => return Ok(Outcome::Interrupted),
            () = tokio::time::sleep(Duration::from_secs(pause)) => {}
        }
    }
}

async fn look(reader: &mut TableReader, location: String, period: Period, sheet: &Sheet) -> anyhow::Result<Summary> {
    let mut found = reader.read(&[StatsTable::DomainMinute, StatsTable::DiskMinute], period.days()).await?.into_iter();
    let (found, of_disks) = (found.next().unwrap_or_default(), found.next().unwrap_or_default());
    let measured = Measured::new(StatsTable::DomainMinute, found.rows, period);
    let disks = Measured::new(StatsTable::DiskMinute, of_disks.rows, period);
    let series = |columns: &[&str], fold| measured.series(columns, fold, PARTS);
    let (rpo, fill) = (series(&["rpo_max_s"], Fold::Max), series(&["log_fill_max_ratio"], Fold::Max));
    let anomaly = disks.series(&["anomaly_max_ratio"], Fold::Max, PARTS);
    let most = |series: &super::series::Series| series.iter().flatten().copied().reduce(f64::max);
    let charts = [
        chart("RPO", Scale::Seconds, &rpo),
        chart("written by guests", Scale::BytesPerSecond, &series(&["written_bytes"], Fold::PerSecond)),
        chart("shipped", Scale::BytesPerSecond, &series(&["shipped_stored_bytes"], Fold::PerSecond)),
        chart("log fill", Scale::Ratio, &fill),
        chart("writes unlike a disk's past", Scale::Ratio, &anomaly),
    ];
    let whole = |column: &str| measured.sum(column) as u64;
    Ok(Summary {
        location,
        from: TimeText(period.from).to_string(),
        to: TimeText(period.to).to_string(),
        rows: measured.rows.len(),
        rpo_worst_s: most(&rpo),
        written_bytes: whole("written_bytes"),
        shipped_plain_bytes: whole("shipped_plain_bytes"),
        shipped_stored_bytes: whole("shipped_stored_bytes"),
        log_fill_most: most(&fill),
        anomaly_most: most(&anomaly),
        held_s: measured.sum("held_s"),
        requests: ["put_requests", "get_requests", "list_requests", "delete_requests", "head_requests"]
            .map(whole)
            .iter()
            .sum(),
        cost: Spent::of(&measured, sheet),
        damaged: [found.damaged, of_disks.damaged].concat(),
        charts: charts.join("\n"),
    })
}

fn in_text(shown: &Summary) -> String {
    let mut out = format!("{}  {} to {}\n\n{}\n", shown.location, shown.from, shown.to, shown.charts);
    let stored = match shown.shipped_stored_bytes {
        0 => "nothing shipped".to_owned(),
        stored => format!(
            "{} shipped as {}",
            Scale::Bytes.told(shown.shipped_plain_bytes as f64),
            Scale::Bytes.told(stored as f64)
        ),
    };
    let written = Scale::Bytes.told(shown.written_bytes as f64);
    writeln!(
        out,
        "{written} written, {stored}, guests held for {}, {} requests",
        Scale::Seconds.told(shown.held_s),
        shown.requests
    )
    .expect("writing to a String cannot fail");
    if let Some(cost) = shown.cost.told() {
        writeln!(out, "{cost}").expect("writing to a String cannot fail");
    }
    for damaged in &shown.damaged {
        writeln!(out, "damaged: {damaged}").expect("writing to a String cannot fail");
    }
    out
}
