//! What was written to a disk between two points, as a log of block writes.
//!
//! Each LSN is one entry: a write with its data, a discard, a flush, or for a bookmark a mark. Such a log knows no zeroing:
//! zeros are written as data, as QEMU does, but take no room in the file. What else happened cannot be carried, and is told.

use super::{ExportArgs, partial_beside, publish};
use crate::args::SizeBytes;
use crate::commands::points::PointReport;
use crate::context::{any_disk, interrupted, open_bucket, open_domain, resolve};
use crate::failure::{Outcome, Refused};
use crate::logwrites::{ENTRY_BYTES, Entry, Flags, LogWriter, Run, SECTOR_BYTES_MAX, SECTOR_BYTES_MIN};
use crate::ui::Ui;
use anyhow::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use tidemark_format::{EventBody, Lsn};
use tidemark_reader::{Part, Point, PointSpec, ReaderOptions, ReplaySink, Step};

/// A log's sector: a power of two.
pub(super) fn sector_size(text: &str) -> Result<SizeBytes, String> {
    let size: SizeBytes = text.parse()?;
    let (least, most) = (u64::from(SECTOR_BYTES_MIN), u64::from(SECTOR_BYTES_MAX));
    if size.get().is_power_of_two() && (least..=most).contains(&size.get()) {
        return Ok(size);
    }
    Err(format!("{size} is not a power of two from {least} to {most}"))
}

#[derive(Debug, Serialize)]
struct Report {
    disk: String,
    disk_id: u32,
    /// Absent if the log begins with the disk itself.
    from: Option<PointReport>,
    to: PointReport,
    entries: u64,
    writes: u64,
    discards: u64,
    flushes: u64,
    marks: u64,
    data_bytes: u64,
    /// How often something happened that a log cannot carry.
    not_carried: BTreeMap<&'static str, u64>,
    out: String,
}

pub(super) async fn export(args: &ExportArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let domain = open_domain(&open_bucket(&args.bucket)?, ReaderOptions::default()).await?;
    let from = match &args.from {
        Some(from) => Some(resolve(&domain, from).await?),
        None => None,
    };
    let to = resolve(&domain, args.to.as_ref().unwrap_or(&PointSpec::Latest)).await?;
    if let Some(from) = from.filter(|from| from.lsn > to.lsn) {
        return Err(Refused::new(format!("--from, {from}, is after --to, {to}")).hint("swap them").into());
    }
    let (id, disk) = any_disk(&domain, &args.disk)?;
    // Replaying a log has to lead somewhere.
    domain.disk(id, to.lsn).await?;
    let partial = partial_beside(&args.out)?;
    let sector_bytes = args.sector_size.map_or(SECTOR_BYTES_MIN, |size| size.get() as u32);
    let file = partial.as_file().try_clone().context("write the log")?;
    let report = Report {
        disk,
        disk_id: id.get(),
        from: from.map(PointReport::from),
        to: to.into(),
        entries: 0,
        writes: 0,
        discards: 0,
        flushes: 0,
        marks: 0,
        data_bytes: 0,
        not_carried: BTreeMap::new(),
        out: args.out.display().to_string(),
    };
    let mut sink = Sink { log: LogWriter::create(file, sector_bytes).context("write the log")?, sector_bytes, report };
    let start = from.map_or(Lsn::ZERO, |from| from.lsn);
    let bar = ui.count_bar("export", to.lsn.get() - start.get());
    tokio::select! {
        replayed = domain.replay(id, start, to.lsn, &mut sink, |lsn| bar.set(lsn.get() - start.get(), to.lsn.get() - start.get())) => replayed?,
        () = interrupted() => {
            return Err(Refused::interrupted(format!("stopped; {} was not written", args.out.display())).into());
        }
    }
    drop(bar);
    let Sink { log, mut report, .. } = sink;
    tokio::task::block_in_place(|| {
        let (file, entries) = log.finish()?;
        report.entries = entries;
        file.sync_all()
    })
    .context("write the log")?;
    publish(partial.into_temp_path(), &args.out)?;
    if !report.not_carried.is_empty() {
        let list: Vec<_> = report.not_carried.iter().map(|(what, count)| format!("{count} {what}")).collect();
        ui.warn(format!("a log of writes cannot carry what else happened: {}", list.join(", ")));
    }
    ui.answer(&report, in_text)?;
    Ok(Outcome::Done)
}

fn in_text(report: &Report) -> String {
    let Report { disk, from, to, entries, writes, discards, flushes, marks, data_bytes, out, .. } = report;
    let from = from.as_ref().map_or("its beginning".to_owned(), |from| format!("lsn {} ({})", from.lsn, from.time));
    let data = indicatif::HumanBytes(*data_bytes);
    format!(
        "{disk} from {from} to lsn {} ({}): {entries} entries: {writes} writes ({data}), {discards} discards, \
         {flushes} flushes, {marks} marks, in {out}",
        to.lsn, to.time
    )
}

struct Sink {
    log: LogWriter,
    sector_bytes: u32,
    report: Report,
}

impl ReplaySink for Sink {
    fn step(&mut self, at: Point, step: Step<'_>) -> io::Result<()> {
        let (entry, parts) = match step {
            Step::Written { extent, parts } => {
                self.report.writes += 1;
                self.report.data_bytes += extent.byte_len();
                (Entry { offset_bytes: extent.byte_start(), len_bytes: extent.byte_len(), ..Entry::default() }, parts)
            }
            Step::Unmapped { extent } => {
                self.report.discards += 1;
                (Entry::discard(extent.byte_start(), extent.byte_len()), Vec::new())
            }
            Step::Event(EventBody::Flush { .. }) => {
                self.report.flushes += 1;
                (Entry::flush(), Vec::new())
            }
            Step::Event(EventBody::Bookmark { name, .. }) => {
                self.report.marks += 1;
                (Entry::mark(self.fitting(name)), Vec::new())
            }
            Step::Event(event) => {
                if is_missed(event) {
                    *self.report.not_carried.entry(event.name()).or_default() += 1;
                }
                return Ok(());
            }
        };
        let unit = u64::from(self.sector_bytes);
        if !entry.offset_bytes.is_multiple_of(unit) || !entry.len_bytes.is_multiple_of(unit) {
            let (offset, len) = (entry.offset_bytes, entry.len_bytes);
            let what = format!("bytes {offset}+{len} of lsn {} are not whole sectors of {unit} bytes", at.lsn);
            return Err(io::Error::other(what));
        }
        debug_assert!(parts.is_empty() || !entry.flags.has(Flags::DISCARD));
        let runs = parts.iter().map(|part| match part {
            Part::Bytes(bytes) => Run::Bytes(bytes),
            Part::Zeros(len) => Run::Zeros(*len),
        });
        tokio::task::block_in_place(|| self.log.put(&entry, runs))
    }
}

impl Sink {
    /// As much of a bookmark's name as fits the sector of its mark.
    fn fitting<'a>(&self, name: &'a str) -> &'a str {
        &name[..name.floor_char_boundary(self.sector_bytes as usize - ENTRY_BYTES)]
    }
}

/// True for an event without which the disk, or what is known of it, may not be what the log says.
fn is_missed(event: &EventBody) -> bool {
    use EventBody as E;
    matches!(
        event,
        E::DiskResize { .. }
            | E::DiskRemove { .. }
            | E::Gap { .. }
            | E::ResyncStart { .. }
            | E::ResyncDone { .. }
            | E::Barrier
            | E::VmConfig { .. }
    )
}
