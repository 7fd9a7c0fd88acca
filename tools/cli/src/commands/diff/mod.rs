//! `tidemark diff`: what changed on a disk between two points, as a list, or with its contents for other tools.

mod rbd;

use super::points::PointReport;
use crate::args::{BucketArgs, DiskRef};
use crate::context::{any_disk, open_bucket, open_domain, resolve};
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;
use tidemark_format::DiskId;
use tidemark_reader::{ChangeKind, Changed, Domain, Point, PointSpec, ReaderOptions};

/// List what changed on a disk between two points
///
/// Each byte range that was written after the first point and up to the second, once, with the newest of those writes. A
/// range that was written with what it held before is listed as well.
///
/// `rbd-export-diff` writes the changes with their contents, as `rbd import-diff` of Ceph takes them (format v1); points are
/// snapshots named lsn-N. Without `--from` it holds the whole disk.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// The disk: VM/DISK, or #N
    #[arg(long, value_name = "VM/DISK")]
    disk: DiskRef,
    /// The earlier point: latest, lsn:N, an RFC 3339 time, -10m, or bookmark:NAME; a list needs it
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    from: Option<PointSpec>,
    /// The later point
    #[arg(long, value_name = "POINT", allow_hyphen_values = true, default_value = "latest")]
    to: PointSpec,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::List)]
    format: Format,
    /// Where to write what is not a list [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The ranges, for people or as JSON
    List,
    /// What `rbd import-diff` takes
    RbdExportDiff,
}

#[derive(Debug, Serialize)]
struct Report {
    disk: String,
    disk_id: u32,
    from: PointReport,
    to: PointReport,
    changed_bytes: u64,
    ranges: Vec<RangeReport>,
}

#[derive(Debug, Serialize)]
struct RangeReport {
    offset_bytes: u64,
    len_bytes: u64,
    /// `data`, `zero`, `unmap`, or `cut-off` where the disk became smaller.
    kind: &'static str,
    /// The newest write to the range.
    lsn: u64,
}

pub(crate) async fn run(args: DiffArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    match args.format {
        Format::List if args.from.is_none() => {
            return Err(Refused::usage("a list needs two points").hint("say --from POINT").into());
        }
        Format::List if args.out.is_some() => {
            return Err(Refused::usage("--out is for --format rbd-export-diff").hint("a list goes to stdout").into());
        }
        Format::RbdExportDiff if args.out.is_none() => rbd::check_stdout(ui)?,
        Format::List | Format::RbdExportDiff => {}
    }
    let domain = open_domain(&open_bucket(&args.bucket)?, ReaderOptions::default()).await?;
    let from = match &args.from {
        Some(from) => Some(resolve(&domain, from).await?),
        None => None,
    };
    let to = resolve(&domain, &args.to).await?;
    if let Some(from) = from.filter(|from| from.lsn > to.lsn) {
        return Err(Refused::new(format!("--from, {from}, is after --to, {to}")).hint("swap them").into());
    }
    let (id, disk) = any_disk(&domain, &args.disk)?;
    match (args.format, from) {
        (Format::List, Some(from)) => list(&domain, (id, disk), from, to, ui).await,
        _ => rbd::write(&domain, (id, disk), from, to, args.out.as_deref(), ui).await,
    }
}

async fn list(
    domain: &Domain,
    (id, disk): (DiskId, String),
    from: Point,
    to: Point,
    ui: &Ui,
) -> anyhow::Result<Outcome> {
    let changed = domain.changed(id, from.lsn, to.lsn).await?;
    let report = Report {
        disk,
        disk_id: id.get(),
        from: from.into(),
        to: to.into(),
        changed_bytes: changed.iter().map(|changed| changed.extent.byte_len()).sum(),
        ranges: changed.iter().map(RangeReport::from).collect(),
    };
    ui.answer(&report, in_text)?;
    Ok(Outcome::Done)
}

impl From<&Changed> for RangeReport {
    fn from(changed: &Changed) -> Self {
        Self {
            offset_bytes: changed.extent.byte_start(),
            len_bytes: changed.extent.byte_len(),
            kind: match changed.kind {
                ChangeKind::Data => "data",
                ChangeKind::Zero => "zero",
                ChangeKind::Unmap => "unmap",
                ChangeKind::CutOff => "cut-off",
            },
            lsn: changed.lsn.get(),
        }
    }
}

fn in_text(report: &Report) -> String {
    let mut out = String::new();
    for range in &report.ranges {
        let RangeReport { offset_bytes, len_bytes, kind, lsn } = range;
        writeln!(out, "{offset_bytes:>14}  {len_bytes:>12}  {kind:<7}  lsn {lsn}").expect("a String takes all");
    }
    let Report { disk, from, to, changed_bytes, .. } = report;
    let size = indicatif::HumanBytes(*changed_bytes);
    let (a, b) = ((from.lsn, &from.time), (to.lsn, &to.time));
    write!(out, "{disk}: {size} changed from lsn {} ({}) to lsn {} ({})", a.0, a.1, b.0, b.1)
        .expect("a String takes all");
    out
}
