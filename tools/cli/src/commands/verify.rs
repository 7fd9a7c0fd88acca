//! `tidemark verify`: is everything in the bucket as it was written?

use crate::args::BucketArgs;
use crate::context::{interrupted, open_bucket, open_domain};
use crate::cost::{Known, PriceArgs, reading, say_before};
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use tidemark_bucket::Bucket;
use tidemark_env::Env;
use tidemark_format::{DiskId, KeyFamily, Lsn};
use tidemark_reader::{Damage, ReaderOptions, Sample, VerifyProgress, verify, verify_sample};

/// A request that reads on in an object brings so much.
const RANGE_BYTES: u64 = 16 << 20;

/// Check every hash, chain and position in a bucket
///
/// Reads every object once. Damage is named as disk, byte range and interval of LSNs. Exits 13 if there is any.
///
/// The index is compared with the log that it was made from: every row, event and counter. Where they disagree it is the index that is
/// wrong; nothing is lost, and `tidemark repair` mends it.
///
/// With --sample reads all that names data, but of the data itself only such a share of frames, each with the same chance: a cheap
/// check for every day. It says how much damage it cannot miss. Each run looks at other frames, unless --seed repeats one.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    prices: PriceArgs,
    /// Check this share of all frames only
    #[arg(long, value_name = "SHARE%", value_parser = share)]
    sample: Option<f64>,
    /// Which frames a sample has: those of the run that said this number
    #[arg(long, value_name = "N", requires = "sample")]
    seed: Option<u64>,
}

/// A share in percent, as a number above 0 and at most 1.
fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    let share = percent.map(|percent| percent / 100.0).filter(|share| Sample::new(*share, 0).is_some());
    share.ok_or_else(|| "it is a share above 0% and at most 100%, such as 1%".to_owned())
}

#[derive(Debug, Serialize)]
struct Report {
    location: String,
    intact: bool,
    objects: u64,
    bytes: u64,
    frames: u64,
    /// `None`: all frames were checked.
    sample: Option<SampleReport>,
    rows: u64,
    events: u64,
    tables: u64,
    /// Rows of those. They were compared with the log, unless a sample left some out.
    table_rows: u64,
    first_lsn: Option<u64>,
    last_lsn: Option<u64>,
    /// `None`: there is no index, or none that can be read.
    indexed_through_lsn: Option<u64>,
    damage: Vec<DamageReport>,
    /// Keys that nothing refers to: superseded, or left by a crash. Harmless.
    unreferenced: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SampleReport {
    share: f64,
    seed: u64,
    frames_total: u64,
    /// If so many frames are damaged, one at least is found with a probability of 99 %.
    finds_damaged_frames: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct DamageReport {
    pub(super) object: String,
    pub(super) what: String,
    /// True if only the index is concerned, which can be made anew.
    index: bool,
    /// LSNs that the object holds or must have held, as far as that is known.
    first_lsn: Option<u64>,
    last_lsn: Option<u64>,
    /// The bytes that are lost, or that the index is wrong about, as far as that is known.
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
    let sheet = args.prices.sheet(&args.bucket.url)?;
    let bar = ui.bytes_bar("verify", Some(0));
    let options = ReaderOptions::default();
    let read_only = bucket.read_only();
    let share = args.sample.unwrap_or(1.0);
    let progress = |progress: VerifyProgress| {
        if progress.objects_done == 0 {
            let bytes = (progress.bytes_total as f64 * share) as u64;
            say_before(ui, &sheet, &reading(bytes, progress.objects_total + bytes / RANGE_BYTES), Known::About);
        }
        bar.set(progress.bytes_done, progress.bytes_total);
    };
    let seed = args.seed.unwrap_or_else(|| Env::system().entropy.number());
    let sample = args.sample.and_then(|share| Sample::new(share, seed));
    let work = async {
        match sample {
            Some(sample) => verify_sample(&read_only, &options, sample, progress).await,
            None => verify(&read_only, &options, progress).await,
        }
    };
    let verified = tokio::select! {
        verified = work => verified?,
        () = interrupted() => return Err(Refused::interrupted("stopped; nothing is known of the rest").into()),
    };
    drop(bar);
    let names = disk_names(&bucket).await;
    let report = Report {
        location: bucket.location(),
        intact: verified.is_clean(),
        objects: verified.objects,
        bytes: verified.bytes,
        frames: verified.frames,
        sample: sample.map(|sample| SampleReport {
            share: sample.share(),
            seed: sample.seed(),
            frames_total: verified.frames + verified.frames_skipped,
            finds_damaged_frames: sample.finds(0.99),
        }),
        rows: verified.rows,
        events: verified.events,
        tables: verified.tables,
        table_rows: verified.table_rows,
        first_lsn: verified.lsns.map(|(first, _)| first.get()),
        last_lsn: verified.lsns.map(|(_, last)| last.get()),
        indexed_through_lsn: verified.indexed_through.map(Lsn::get),
        damage: verified.damage.iter().map(|damage| damage_report(damage, &names)).collect(),
        unreferenced: verified.unreferenced,
    };
    ui.answer(&report, in_text)?;
    Ok(if report.intact { Outcome::Done } else { Outcome::Corrupt })
}

/// Names make a report readable; a damaged domain may not have any.
pub(super) async fn disk_names(bucket: &Bucket) -> BTreeMap<DiskId, String> {
    match open_domain(bucket, ReaderOptions::default()).await {
        Ok(domain) => {
            let disks = domain.timeline().all_disks().into_iter();
            disks.map(|disk| (disk.id, format!("{}/{}", disk.vm, disk.name))).collect()
        }
        Err(_) => BTreeMap::new(),
    }
}

pub(super) fn damage_report(damage: &Damage, names: &BTreeMap<DiskId, String>) -> DamageReport {
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
        index: damage.is_of_index(),
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
            let what = if damage.index { "concerns" } else { "lost" };
            line(format!(
                "         {what}: {disk} bytes {offset_bytes}+{len_bytes} as written at lsn {first_lsn}..{last_lsn}"
            ));
        }
    }
    // There are many of these, and nobody has to do anything about one of them.
    let heaps = [
        ("v/probe/", "left by tests of the store"),
        (KeyFamily::Root.prefix(), "superseded"),
        (KeyFamily::Index.prefix(), "superseded"),
        (KeyFamily::Ledger.prefix(), "superseded"),
    ];
    for key in report.unreferenced.iter().filter(|key| !heaps.iter().any(|(prefix, _)| key.starts_with(prefix))) {
        line(format!("unused   {key}: nothing refers to it (left by a crash; harmless)"));
    }
    for (prefix, why) in heaps {
        let count = report.unreferenced.iter().filter(|key| key.starts_with(prefix)).count();
        if count > 0 {
            line(format!("unused   {count} objects below {prefix}, {why} (harmless)"));
        }
    }
    let Report { objects, bytes, frames, rows, events, .. } = report;
    let size = indicatif::HumanBytes(*bytes);
    line(format!("checked {objects} objects ({size}): {frames} frames, {rows} rows, {events} events"));
    if let Some(through) = report.indexed_through_lsn {
        let Report { tables, table_rows, .. } = report;
        line(format!("index: {tables} tables, {table_rows} rows, through lsn {through}"));
    }
    if let Some(SampleReport { share, seed, frames_total, finds_damaged_frames }) = &report.sample {
        line(format!("sample: {frames} of {frames_total} frames ({}%), --seed {seed}", share * 100.0));
        line(format!("        damage of {finds_damaged_frames} frames or more is found with 99 % certainty"));
    }
    if let (Some(first), Some(last)) = (report.first_lsn, report.last_lsn) {
        line(format!("history: lsn {first}..{last}"));
    }
    let intact = if report.sample.is_some() { "nothing damaged in what was checked" } else { "intact" };
    line(if report.intact { intact.to_owned() } else { format!("DAMAGED in {} places", report.damage.len()) });
    out
}
