//! `tidemark recover restore`: disks that are there already go back, or forth, to a point.

use crate::args::{BucketArgs, DiskRef};
use crate::context::{disk_at, interrupted, open_bucket, open_domain, resolve};
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidemark_bucket::Op;
use tidemark_format::Lsn;
use tidemark_reader::{PinOptions, PointSpec, ReaderOptions, TimeText};
use tidemark_rocva::{Heard, RestoreOptions, Restored, restore};

/// A gap between two wanted frames that is fetched rather than asked around: about what a request costs in bytes.
pub(super) const GAP_BYTES_MAX: u64 = 16 << 10;
/// How long what is read stays in the bucket if this process dies.
pub(super) const PIN_LIFETIME: Duration = Duration::from_secs(3600);

/// Make an image or a block device that is there already equal to a disk at a point
///
/// Only what differs is fetched and written, and everything is read back at the end. What the image holds is recognised by hashes of its
/// own bytes, so that it need not be known where it comes from: an old primary, a copy, the disk as it was before something went wrong.
/// `--since` says at which point of the domain's history it stands, if that is known and nobody has written to it since: then only what
/// changed between the two points is looked at, in whichever order they are.
///
/// A restore that is killed goes on when it is run again. Until it has come to its end the image is neither the one nor the other.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// The disk: VM/DISK, or #N
    #[arg(long, value_name = "VM/DISK")]
    disk: DiskRef,
    /// The point: latest, lsn:N, an RFC 3339 time, -10m, or bookmark:NAME
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    at: PointSpec,
    /// The raw image or block device, which nobody may have open
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// The LSN that it stands at
    #[arg(long, value_name = "LSN")]
    since: Option<u64>,
    /// Where to note how far it is [default: FILE.restore; for a device nowhere]
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Only compare, and say what would be fetched
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    disk: String,
    lsn: u64,
    time: String,
    to: String,
    dry_run: bool,
    size_bytes: u64,
    compared_bytes: u64,
    recognised_bytes: u64,
    fetched_bytes: u64,
    requests: u64,
    /// Of all requests so far, those that found out what to fetch with them.
    total_fetched_bytes: u64,
    total_requests: u64,
    written_bytes: u64,
    zeroed_bytes: u64,
    was_another: bool,
    verified: bool,
    lacking_bytes: u64,
    lacking: Vec<Range>,
}

#[derive(Debug, Serialize)]
struct Range {
    offset: u64,
    bytes: u64,
    why: String,
}

pub(super) async fn run(args: RestoreArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(&args.bucket)?;
    let pin = PinOptions {
        pinner: bucket.pinner(),
        owner: format!("restore to {}", args.to.display()),
        lifetime: PIN_LIFETIME,
    };
    let reader = ReaderOptions {
        coalesce_gap_bytes_max: GAP_BYTES_MAX,
        pin: (!args.dry_run).then_some(pin),
        ..ReaderOptions::default()
    };
    let domain = open_domain(&bucket, reader).await?;
    let point = resolve(&domain, &args.at).await?;
    let disk = disk_at(&domain, &args.disk, point.lsn)?;
    let bar = Arc::new(ui.bytes_bar("restore", Some(disk.size_bytes)));
    let heard: Heard = {
        let bar = bar.clone();
        Arc::new(move |done, total| bar.set(done, total))
    };
    let options =
        RestoreOptions { since: args.since.map(Lsn::new), journal: args.journal.clone(), dry_run: args.dry_run };
    let restored = tokio::select! {
        restored = restore(&domain, (disk.id, point.lsn), &args.to, &options, &heard) => restored?,
        () = interrupted() => {
            return Err(Refused::interrupted(format!("stopped; {} is not restored", args.to.display()))
                .hint("run it again, and it goes on")
                .into());
        }
    };
    drop((heard, bar));
    domain.unpin().await?;
    let all = bucket.meter().snapshot().total(Op::Get);
    let Restored { lacking_bytes, .. } = restored;
    let report = Report {
        disk: format!("{}/{}", disk.vm, disk.name),
        lsn: point.lsn.get(),
        time: TimeText(point.time).to_string(),
        to: args.to.display().to_string(),
        dry_run: args.dry_run,
        size_bytes: restored.size_bytes,
        compared_bytes: restored.compared_bytes,
        recognised_bytes: restored.recognised_bytes,
        fetched_bytes: restored.fetched_bytes,
        requests: restored.requests,
        total_fetched_bytes: all.bytes,
        total_requests: all.requests,
        written_bytes: restored.written_bytes,
        zeroed_bytes: restored.zeroed_bytes,
        was_another: restored.was_another,
        verified: restored.verified,
        lacking_bytes,
        lacking: restored
            .lacking
            .into_iter()
            .map(|range| Range { offset: range.extent.byte_start(), bytes: range.extent.byte_len(), why: range.why })
            .collect(),
    };
    if report.was_another {
        ui.warn("an earlier restore was not finished: all of the image was compared");
    }
    ui.answer(&report, text)?;
    if lacking_bytes > 0 {
        let what = format!("{lacking_bytes} bytes are lost, and stayed as they were");
        return Err(Refused::partial(what).hint("`tidemark verify` says which points have them").into());
    }
    Ok(Outcome::Done)
}

fn text(report: &Report) -> String {
    let human = indicatif::HumanBytes;
    let Report { disk, to, lsn, .. } = report;
    let compared = human(report.compared_bytes);
    let (fetched, requests) = (human(report.fetched_bytes), report.requests);
    let mut text = if report.dry_run {
        format!(
            "would make {to} {disk} at lsn {lsn}: of {compared} to look at, {fetched} would be fetched in {requests} requests"
        )
    } else {
        let written = human(report.written_bytes + report.zeroed_bytes);
        format!(
            "{to} is {disk} at lsn {lsn}: of {compared} looked at, {fetched} were fetched in {requests} requests, {written} written; all was read back"
        )
    };
    for range in &report.lacking {
        text += &format!("\n  lost: {} bytes at {}: {}", range.bytes, range.offset, range.why);
    }
    text
}
