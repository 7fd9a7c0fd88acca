//! `tidemark verify`: is everything in the bucket as it was written?

use crate::args::BucketArgs;
use crate::context::{interrupted, open_bucket, open_domain};
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use tidemark_format::DiskId;
use tidemark_reader::{Damage, ReaderOptions, verify};

/// Check every hash, chain and position in a bucket
///
/// Reads every object once. Damage is named as disk, byte range and interval of LSNs. Exits 13 if there is any.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    bucket: BucketArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    location: String,
    intact: bool,
    objects: u64,
    bytes: u64,
    frames: u64,
    rows: u64,
    events: u64,
    first_lsn: Option<u64>,
    last_lsn: Option<u64>,
    damage: Vec<DamageReport>,
    /// Keys that nothing refers to: left by a crash, harmless.
    unreferenced: Vec<String>,
}

#[derive(Debug, Serialize)]
struct DamageReport {
    object: String,
    what: String,
    /// LSNs that the object holds or must have held, as far as that is known.
    first_lsn: Option<u64>,
    last_lsn: Option<u64>,
    /// The bytes that are lost, as far as that is known.
    ranges: Vec<RangeReport>,
}

#[derive(Debug, Serialize)]
struct RangeReport {
    disk: String,
    disk_id: u32,
    offset_bytes: u64,
    len_bytes: u64,
    /// The oldest and the newest write that are lost there.
    first_lsn: u64,
    last_lsn: u64,
}

pub(crate) async fn run(args: VerifyArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(&args.bucket)?;
    let bar = ui.bytes_bar("verify", Some(0));
    let options = ReaderOptions::default();
    let read_only = bucket.read_only();
    let verified = tokio::select! {
        verified = verify(&read_only, &options, |progress| bar.set(progress.bytes_done, progress.bytes_total)) => verified?,
        () = interrupted() => return Err(Refused::interrupted("stopped; nothing is known of the rest").into()),
    };
    drop(bar);
    // Names make the report readable; a damaged domain may not have any.
    let names = match open_domain(&bucket, options).await {
        Ok(domain) => {
            let timeline = domain.timeline();
            let disks = timeline.disks_at(timeline.latest().lsn).into_iter();
            disks.map(|disk| (disk.id, format!("{}/{}", disk.vm, disk.name))).collect()
        }
        Err(_) => BTreeMap::new(),
    };
    let report = Report {
        location: bucket.location(),
        intact: verified.is_clean(),
        objects: verified.objects,
        bytes: verified.bytes,
        frames: verified.frames,
        rows: verified.rows,
        events: verified.events,
        first_lsn: verified.lsns.map(|(first, _)| first.get()),
        last_lsn: verified.lsns.map(|(_, last)| last.get()),
        damage: verified.damage.iter().map(|damage| damage_report(damage, &names)).collect(),
        unreferenced: verified.unreferenced,
    };
    ui.answer(&report, in_text)?;
    Ok(if report.intact { Outcome::Done } else { Outcome::Corrupt })
}

fn damage_report(damage: &Damage, names: &BTreeMap<DiskId, String>) -> DamageReport {
    let ranges = damage.blocks.iter().map(|lost| RangeReport {
        disk: names.get(&lost.disk).cloned().unwrap_or_else(|| format!("#{}", lost.disk)),
        disk_id: lost.disk.get(),
        offset_bytes: lost.extent.byte_start(),
        len_bytes: lost.extent.byte_len(),
        first_lsn: lost.first_lsn.get(),
        last_lsn: lost.last_lsn.get(),
    });
    DamageReport {
        object: damage.object.clone(),
        what: damage.what.clone(),
        first_lsn: damage.lsns.map(|(first, _)| first.get()),
        last_lsn: damage.lsns.map(|(_, last)| last.get()),
        ranges: ranges.collect(),
    }
}

fn in_text(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
    for damage in &report.damage {
        let lsns = match (damage.first_lsn, damage.last_lsn) {
            (Some(first), Some(last)) => format!(" (lsn {first}..{last})"),
            _ => String::new(),
        };
        line(format!("damaged  {}{lsns}: {}", damage.object, damage.what));
        for range in &damage.ranges {
            let RangeReport { disk, offset_bytes, len_bytes, first_lsn, last_lsn, .. } = range;
            line(format!(
                "         lost: {disk} bytes {offset_bytes}+{len_bytes} as written at lsn {first_lsn}..{last_lsn}"
            ));
        }
    }
    let (probes, unused): (Vec<_>, Vec<_>) = report.unreferenced.iter().partition(|key| key.starts_with("v/probe/"));
    for key in unused {
        line(format!("unused   {key}: nothing refers to it (left by a crash; harmless)"));
    }
    if !probes.is_empty() {
        line(format!("unused   {} objects below v/probe/, left by tests of the store (harmless)", probes.len()));
    }
    let Report { objects, bytes, frames, rows, events, .. } = report;
    let size = indicatif::HumanBytes(*bytes);
    line(format!("checked {objects} objects ({size}): {frames} frames, {rows} rows, {events} events"));
    if let (Some(first), Some(last)) = (report.first_lsn, report.last_lsn) {
        line(format!("history: lsn {first}..{last}"));
    }
    line(if report.intact { "intact".to_owned() } else { format!("DAMAGED in {} places", report.damage.len()) });
    out
}
