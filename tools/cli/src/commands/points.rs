//! `tidemark points`: where one can go.

use crate::args::BucketArgs;
use crate::context::{open_bucket, open_domain};
use crate::failure::Outcome;
use crate::ui::Ui;
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use tidemark_reader::{Bookmark, DiskAt, Point, ReaderOptions, TimeText};

/// List recovery points: first, latest, bookmarks, disks
///
/// Every LSN from the horizon to the latest is a point, and those that are kept before it: name it lsn:N, by its time, as -10m, or by a bookmark.
#[derive(Debug, Args)]
pub(crate) struct PointsArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// Also show this many points spread over the history
    #[arg(long, value_name = "N", default_value_t = 0)]
    sample: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    domain: String,
    name: String,
    first: PointReport,
    /// Points before the horizon.
    kept: Vec<PointReport>,
    /// Every point from here on is offered.
    horizon: PointReport,
    latest: PointReport,
    /// Points up to this LSN can never go away by a takeover.
    final_through: u64,
    bookmarks: Vec<BookmarkReport>,
    sample: Vec<PointReport>,
    /// At the latest point.
    disks: Vec<DiskReport>,
    gaps: Vec<GapReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct PointReport {
    pub(super) lsn: u64,
    pub(super) time: String,
}

#[derive(Debug, Serialize)]
struct BookmarkReport {
    name: String,
    lsn: u64,
    time: String,
    level: &'static str,
}

#[derive(Debug, Serialize)]
struct DiskReport {
    disk: String,
    id: u32,
    size_bytes: u64,
    /// Absent if the disk is not restorable.
    consistent_from: Option<u64>,
}

#[derive(Debug, Serialize)]
struct GapReport {
    disk_id: u32,
    from: u64,
    to: u64,
}

impl From<Point> for PointReport {
    fn from(point: Point) -> Self {
        Self { lsn: point.lsn.get(), time: TimeText(point.time).to_string() }
    }
}

pub(crate) async fn run(args: PointsArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let domain = open_domain(&open_bucket(&args.bucket)?, ReaderOptions::default()).await?;
    let timeline = domain.timeline();
    let bookmark = |mark: &Bookmark| BookmarkReport {
        name: mark.name.clone(),
        lsn: mark.point.lsn.get(),
        time: TimeText(mark.point.time).to_string(),
        level: mark.level.name(),
    };
    let disk = |disk: DiskAt| DiskReport {
        disk: format!("{}/{}", disk.vm, disk.name),
        id: disk.id.get(),
        size_bytes: disk.size_bytes,
        consistent_from: disk.consistent_from.map(|lsn| lsn.get()),
    };
    let report = Report {
        domain: timeline.domain().to_string(),
        name: timeline.name().to_owned(),
        first: timeline.first().into(),
        kept: timeline.kept().into_iter().map(PointReport::from).collect(),
        horizon: timeline.horizon().into(),
        latest: timeline.latest().into(),
        final_through: timeline.final_through().get(),
        bookmarks: timeline.bookmarks().iter().map(bookmark).collect(),
        sample: timeline.sample(args.sample).await?.into_iter().map(PointReport::from).collect(),
        disks: timeline.disks_at(timeline.latest().lsn).into_iter().map(disk).collect(),
        gaps: timeline
            .gaps()
            .iter()
            .map(|gap| GapReport { disk_id: gap.disk.get(), from: gap.from.get(), to: gap.to.get() })
            .collect(),
    };
    ui.answer(&report, in_text)?;
    Ok(Outcome::Done)
}

fn in_text(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |name: &str, lsn: u64, time: &str, note: &str| {
        writeln!(out, "{name:<40} lsn:{lsn:<12} {time}  {note}").expect("writing to a String cannot fail");
    };
    for point in &report.kept {
        line("kept", point.lsn, &point.time, "");
    }
    line(if report.kept.is_empty() { "first" } else { "horizon" }, report.horizon.lsn, &report.horizon.time, "");
    for point in &report.sample {
        line("", point.lsn, &point.time, "");
    }
    for mark in &report.bookmarks {
        line(&format!("bookmark:{}", mark.name), mark.lsn, &mark.time, mark.level);
    }
    let provisional = if report.final_through < report.latest.lsn { "provisional" } else { "" };
    line("latest", report.latest.lsn, &report.latest.time, provisional);
    for gap in &report.gaps {
        let GapReport { disk_id, from, to } = gap;
        writeln!(out, "gap: writes to disk #{disk_id} between lsn {from} and lsn {to} may be missing")
            .expect("writing to a String cannot fail");
    }
    for disk in &report.disks {
        let since = match disk.consistent_from {
            Some(lsn) => format!("restorable from lsn:{lsn}"),
            None => "NOT restorable".to_owned(),
        };
        writeln!(out, "disk {:<35} #{} {} bytes, {since}", disk.disk, disk.id, disk.size_bytes)
            .expect("writing to a String cannot fail");
    }
    out
}
