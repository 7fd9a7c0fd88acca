//! `tidemark ingest`: existing contents or recorded writes of a disk, into a domain.

mod input;
mod items;
mod log;
mod raw;

use crate::args::{AttestArgs, BucketArgs, DiskName, SizeBytes, disk_size};
use crate::context::open_bucket;
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use clap::{Args, ValueEnum};
use input::Input;
use serde::Serialize;
use std::path::PathBuf;
use tidemark_env::Env;
use tidemark_format::{DiskState, TimeNs};
use tidemark_reader::PointSpec;
use tidemark_writer::{DomainWriter, WriterOptions};

pub(crate) use items::{Item, items_of};

/// Put a disk's contents, or recorded writes of it, into a domain
///
/// `raw` takes a disk's contents as they are and makes them the oldest point of a new disk. `blklogwrites` (QEMU) and
/// `dm-log-writes` (Linux) take recorded writes: each becomes one LSN, flushes become FLUSH events, marks bookmarks,
/// discards holes. Such a log has no times: its entries get times one millisecond apart.
///
/// FILE may be compressed with zstd, or `-` for stdin. The disk is added if it is new. Whoever writes to the domain at
/// the moment is fenced off. A log whose ingestion was cut short is continued by the same command; one that is complete is
/// refused.
#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// The disk that FILE is of
    #[arg(long, value_name = "VM/DISK")]
    disk: DiskName,
    /// What FILE is
    #[arg(long, value_enum)]
    format: Format,
    /// Size of the disk [default: of a raw image its own, of a log its highest byte rounded up to 1 MiB]
    #[arg(long, value_name = "BYTES", value_parser = disk_size)]
    size: Option<SizeBytes>,
    /// Time of a log's first entry, RFC 3339 [default: its last entry is now, or all of it right after the newest point]
    #[arg(long, value_name = "TIME", value_parser = time)]
    time_start: Option<TimeNs>,
    /// Seal a segment at this many bytes of writes
    #[arg(long, value_name = "BYTES", default_value = "64M")]
    segment_size: SizeBytes,
    /// Seal a segment when its oldest write is this old, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    segment_age_ms: u64,
    /// zstd level, 1 to 19
    #[arg(long, value_name = "LEVEL", default_value_t = 1)]
    level: i32,
    #[command(flatten)]
    attest: AttestArgs,
    /// What to read: a file, or `-` for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A disk's contents, byte for byte
    Raw,
    /// A log by QEMU's blklogwrites driver
    Blklogwrites,
    /// A log by Linux' dm-log-writes target
    DmLogWrites,
}

fn time(text: &str) -> Result<TimeNs, String> {
    match text.parse() {
        Ok(PointSpec::Time(time)) => Ok(time),
        _ => Err(format!("{text:?} is not an RFC 3339 time such as 2026-11-23T09:00:00Z")),
    }
}

/// What became of an ingestion.
#[derive(Debug, Default, Serialize)]
struct Report {
    domain: String,
    disk: String,
    disk_id: u32,
    size_bytes: u64,
    /// Entries of the log; 0 for a raw image.
    entries: u64,
    /// Entries that an earlier run had ingested.
    entries_before: u64,
    writes: u64,
    discards: u64,
    flushes: u64,
    bookmarks: u64,
    data_bytes: u64,
    /// LSN of the first entry, or of the point that a raw image became.
    first_lsn: u64,
    /// LSN of the last entry, or from where on a raw image is restorable.
    last_lsn: u64,
    complete: bool,
}

pub(crate) async fn run(args: IngestArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let input = Input::new(&args.file)?;
    let (report, outcome) = match args.format {
        Format::Raw => raw::ingest(&args, &input, ui).await?,
        Format::Blklogwrites | Format::DmLogWrites => log::ingest(&args, &input, ui).await?,
    };
    ui.answer(&report, in_text)?;
    if outcome == Outcome::Interrupted {
        ui.say("interrupted; what was read is durable. Run the same command again to continue");
    }
    Ok(outcome)
}

fn in_text(report: &Report) -> String {
    let Report { disk, size_bytes, first_lsn, last_lsn, entries, .. } = report;
    let size = SizeBytes::new(*size_bytes);
    if *entries == 0 {
        return format!("{disk} ({size}): contents seeded at lsn {first_lsn}, restorable from lsn {last_lsn}");
    }
    let Report { writes, discards, flushes, bookmarks, data_bytes, .. } = report;
    format!(
        "{disk} ({size}): lsn {first_lsn}..{last_lsn}: {writes} writes ({}), {discards} discards, {flushes} flushes, \
         {bookmarks} bookmarks",
        indicatif::HumanBytes(*data_bytes)
    )
}

/// Takes over the domain of a command.
async fn open_writer(args: &IngestArgs) -> anyhow::Result<DomainWriter> {
    let bucket = open_bucket(&args.bucket)?;
    let defaults = WriterOptions::default();
    let segment_bytes_max = args.segment_size.get();
    let options = WriterOptions {
        owner: "tidemark ingest".to_owned(),
        segment_bytes_max,
        age_ms_max: args.segment_age_ms,
        buffer_bytes_max: defaults.buffer_bytes_max.max(segment_bytes_max.saturating_mul(3)),
        zstd_level: args.level,
        attach: args.attest.attach(),
        ..defaults
    };
    Ok(DomainWriter::open(bucket.appender(), options, Env::system()).await?)
}

/// The disk of a name that is in the domain now.
fn find_disk(writer: &DomainWriter, name: &DiskName) -> Option<DiskState> {
    let disks = writer.disks().into_iter();
    disks.filter(|disk| disk.removed_at.is_none()).find(|disk| (&disk.vm, &disk.name) == (&name.vm, &name.disk))
}

fn no_size(args: &IngestArgs) -> Refused {
    Refused::new(format!("cannot know the size of {} from a stream", args.disk)).hint("say it with --size")
}
