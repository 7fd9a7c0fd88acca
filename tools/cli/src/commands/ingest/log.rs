//! Recorded writes: each entry of the log becomes the items of [`super::items`], in order, each with an LSN of its own.
//!
//! Two bookmarks enclose an ingestion. Between them stand the log's items and nothing else, so a later run of the same
//! command counts how many are there and goes on behind them; if it cannot be sure, it refuses.

use super::input::Input;
use super::{IngestArgs, Item, Report, find_disk, items_of, no_size, open_writer};
use crate::context::{interrupted, open_bucket, open_domain};
use crate::failure::{Outcome, Refused};
use crate::logwrites::{DISK_BYTES_MAX, Entry, LogReader, Survey};
use crate::ui::{Bar, Ui};
use anyhow::Context;
use std::io::Read;
use std::pin::pin;
use std::sync::mpsc::{Receiver, sync_channel};
use tidemark_env::Env;
use tidemark_format::{BLOCK_BYTES, DiskId, Level, Lsn, TimeNs};
use tidemark_reader::{Domain, ReaderOptions};
use tidemark_writer::{Content, DomainWriter, NewDisk, Request, When};
use tokio::sync::mpsc;

/// Time between two entries.
const STEP_NS: u64 = 1_000_000;
/// A disk whose size only the log tells is rounded up to this.
const SIZE_STEP_BYTES: u64 = 1 << 20;
/// Entries read ahead of the writer; each may hold 32 MiB.
const ENTRIES_AHEAD_MAX: usize = 8;
/// First bytes of the names of the bookmarks around an ingestion.
const BOOKMARK_PREFIX: &str = "ingest-";

/// The bookmarks around an ingestion.
struct Marks {
    start: String,
    end: String,
}

impl Marks {
    /// Named after the disk and the log's first entry.
    fn of(args: &IngestArgs, sector_bytes: u32, first_entry_hash: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(args.disk.to_string().as_bytes()).update(&sector_bytes.to_le_bytes()).update(first_entry_hash);
        let start = format!("{BOOKMARK_PREFIX}{}", &hasher.finalize().to_hex()[..16]);
        Self { end: format!("{start}-end"), start }
    }
}

/// How far an earlier run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Earlier {
    /// There was none; the domain's newest point has this time.
    Nothing { latest: TimeNs },
    /// It stopped after so many items; the first has the LSN after `start`.
    Partly { start: Lsn, time: TimeNs, items: u64 },
    /// It is complete.
    Complete { start: Lsn, end: Lsn },
    /// Somebody else wrote to the domain since.
    Overtaken { start: Lsn, by: Lsn },
}

pub(super) async fn ingest(args: &IngestArgs, input: &Input, ui: &Ui) -> anyhow::Result<(Report, Outcome)> {
    let named = || format!("read {}", input.name());
    // A log that is going to be refused is refused before the domain is touched.
    let survey = match input.again() {
        Some(_) => Some(LogReader::open(input.open()?).and_then(LogReader::survey).with_context(named)?),
        None => None,
    };
    let log = LogReader::open(input.open()?).with_context(named)?;
    let entries = log.entries();
    let mut source = EntrySource::start(log);
    let Some((first, first_hash)) = source.first(entries).await.with_context(named)? else {
        return Err(Refused::new(format!("{} has no entry", input.name())).into());
    };
    let marks = Marks::of(args, source.sector_bytes, &first_hash);
    // Looking first, so that a refusal fences nobody.
    refuse(args, &marks, &earlier(args, &marks).await?)?;
    let writer = open_writer(args).await?;
    let earlier = earlier(args, &marks).await?;
    refuse(args, &marks, &earlier)?;
    let mut run = Run::start(args, &writer, &marks, survey.as_ref(), entries, earlier).await?;
    let bar = ui.count_bar("ingest", entries);
    let pumped = pump(&mut run, &mut source, first, &bar).await;
    let end = match &pumped {
        Ok(Outcome::Done) => Some(writer.submit(bookmark(&marks.end), run.when()).await?),
        _ => None,
    };
    // Whatever happened, what was read becomes durable; unless the store does not take it and patience ends.
    let closed = tokio::select! {
        closed = writer.close() => closed,
        () = interrupted() => {
            let what = format!("stopped before all was durable; lsn {} is", writer.status().borrow().committed);
            return Err(Refused::interrupted(what).hint("run the same command again to continue").into());
        }
    };
    let mut report = run.report;
    report.complete = end.is_some();
    let outcome = match pumped {
        Ok(outcome) => {
            closed?;
            outcome
        }
        Err(error) if report.last_lsn >= report.first_lsn && closed.is_ok() => {
            let what = format!("{error:#}; {} of {entries} entries are durable", run.entry);
            return Err(Refused::partial(what).hint("mend the log and run the same command again to continue").into());
        }
        Err(error) => return Err(error),
    };
    Ok((report, outcome))
}

fn refuse(args: &IngestArgs, marks: &Marks, earlier: &Earlier) -> anyhow::Result<()> {
    let (what, hint) = match earlier {
        Earlier::Nothing { .. } | Earlier::Partly { .. } => return Ok(()),
        Earlier::Complete { start, end } => (
            format!("this log of {} is in the domain already, between lsn {start} and lsn {end}", args.disk),
            format!("see it with `tidemark points URL`: bookmarks {} and {}", marks.start, marks.end),
        ),
        Earlier::Overtaken { start, by } => (
            format!("this log of {} was ingested in part from lsn {start} on, then lsn {by} was written", args.disk),
            "it can no longer be continued: ingest it as another disk, or into another domain".to_owned(),
        ),
    };
    Err(Refused::new(what).hint(hint).into())
}

/// Looks in the domain for an earlier run of the same ingestion.
async fn earlier(args: &IngestArgs, marks: &Marks) -> anyhow::Result<Earlier> {
    let domain = open_domain(&open_bucket(&args.bucket)?, ReaderOptions::default()).await?;
    let timeline = domain.timeline();
    let newest = |name: &str| timeline.bookmarks().iter().rev().find(|mark| mark.name == name).map(|mark| mark.point);
    let Some(start) = newest(&marks.start) else { return Ok(Earlier::Nothing { latest: timeline.latest().time }) };
    if let Some(end) = newest(&marks.end).filter(|end| end.lsn > start.lsn) {
        return Ok(Earlier::Complete { start: start.lsn, end: end.lsn });
    }
    let by_another = timeline
        .bookmarks()
        .iter()
        .find(|mark| mark.point.lsn > start.lsn && mark.name.starts_with(BOOKMARK_PREFIX))
        .map(|mark| mark.point.lsn);
    let by = match by_another {
        Some(by) => Some(by),
        None => {
            use tidemark_format::EventBody as B;
            let events = timeline.events(start.lsn.next(), timeline.latest().lsn).await?;
            // No item is one of these.
            let added = events.iter().find(|(_, event)| !matches!(event, B::Flush { .. } | B::Bookmark { .. }));
            added.map(|(point, _)| point.lsn)
        }
    };
    if let Some(by) = by {
        return Ok(Earlier::Overtaken { start: start.lsn, by });
    }
    let items = timeline.latest().lsn.get() - start.lsn.get();
    Ok(Earlier::Partly { start: start.lsn, time: start.time, items })
}

fn bookmark(name: &str) -> Request {
    Request::Bookmark { name: name.to_owned(), level: Level::Crash }
}

/// An ingestion under way.
struct Run<'a> {
    writer: &'a DomainWriter,
    args: &'a IngestArgs,
    disk: DiskId,
    start: Lsn,
    time: TimeNs,
    /// Entries handled so far.
    entry: u64,
    /// Items of an earlier run that are still to be passed over.
    items_before: u64,
    /// The last write that an earlier run made, to be compared with what is in the domain.
    last_before: Option<(Lsn, u64, bytes::Bytes)>,
    report: Report,
}

impl<'a> Run<'a> {
    /// Makes the disk ready and marks the beginning, unless an earlier run did.
    async fn start(
        args: &'a IngestArgs,
        writer: &'a DomainWriter,
        marks: &Marks,
        survey: Option<&Survey>,
        entries: u64,
        earlier: Earlier,
    ) -> anyhow::Result<Self> {
        let now = Env::system().clock.wall();
        let span_ns = entries.saturating_mul(STEP_NS);
        // So that the last entry is now; but behind what is there already, or many entries would share one time.
        let latest = match earlier {
            Earlier::Nothing { latest } => latest,
            _ => TimeNs::default(),
        };
        let begins = now.get().saturating_sub(span_ns).max(latest.get().saturating_add(2 * STEP_NS));
        let time = args.time_start.unwrap_or(TimeNs::new(begins));
        // The point before the first entry has a time of its own.
        let before = TimeNs::new(time.get().saturating_sub(STEP_NS));
        let (disk, size_bytes) = ready_disk(args, writer, survey, When::At(before)).await?;
        let (start, before, items_before) = match earlier {
            Earlier::Partly { start, time, items } => (start, time, items),
            _ => {
                let mark = writer.submit(bookmark(&marks.start), When::At(before)).await?;
                (mark.lsn(), mark.time(), 0)
            }
        };
        let time = TimeNs::new(before.get().saturating_add(STEP_NS));
        let report = Report {
            domain: writer.domain().to_string(),
            disk: args.disk.to_string(),
            disk_id: disk.get(),
            size_bytes,
            entries,
            first_lsn: start.next().get(),
            last_lsn: start.get() + items_before,
            ..Report::default()
        };
        Ok(Self { writer, args, disk, start, time, entry: 0, items_before, last_before: None, report })
    }

    /// The time of the entry at hand.
    fn when(&self) -> When {
        When::At(TimeNs::new(self.time.get().saturating_add(self.entry.saturating_mul(STEP_NS))))
    }

    /// Gives the items of an entry their LSNs, or passes over those that have theirs.
    async fn entry(&mut self, entry: Entry) -> anyhow::Result<()> {
        let mut passed = false;
        for item in items_of(self.entry, entry) {
            match &item {
                Item::Write { data, .. } => {
                    self.report.writes += 1;
                    self.report.data_bytes += data.len() as u64;
                }
                Item::Unmap { .. } => self.report.discards += 1,
                Item::Flush => self.report.flushes += 1,
                Item::Bookmark(_) => self.report.bookmarks += 1,
            }
            if self.items_before > 0 {
                self.items_before -= 1;
                passed = true;
                if let Item::Write { offset_bytes, data } = item {
                    let lsn = Lsn::new(self.report.last_lsn - self.items_before);
                    self.last_before = Some((lsn, offset_bytes, data));
                }
                continue;
            }
            if let Some(last) = self.last_before.take() {
                self.compare(last).await?;
            }
            let disk = self.disk;
            let request = match item {
                Item::Write { offset_bytes: offset, data } => Request::Write { disk, offset, data },
                Item::Unmap { offset_bytes: offset, len_bytes: len } => Request::Unmap { disk, offset, len },
                Item::Flush => Request::Flush { disk },
                Item::Bookmark(name) => Request::Bookmark { name, level: Level::Crash },
            };
            self.report.last_lsn = self.writer.submit(request, self.when()).await?.lsn().get();
        }
        self.entry += 1;
        self.report.entries_before += u64::from(passed);
        Ok(())
    }

    /// The last write of an earlier run must be in the domain where it is expected.
    async fn compare(&self, (lsn, offset, data): (Lsn, u64, bytes::Bytes)) -> anyhow::Result<()> {
        let domain = open_domain(&open_bucket(&self.args.bucket)?, ReaderOptions::default()).await?;
        if read(&domain, self.disk, lsn, offset, data.len()).await? == data {
            return Ok(());
        }
        let what =
            format!("lsn {lsn} of the domain is not entry {} of the log: it was begun with another log", self.entry);
        Err(Refused::new(what).hint("ingest it as another disk, or into another domain").into())
    }
}

async fn read(domain: &Domain, disk: DiskId, at: Lsn, offset: u64, len: usize) -> anyhow::Result<bytes::Bytes> {
    let image = domain.disk(disk, at).await?;
    Ok(image.read(offset, len).await?)
}

/// The disk of the log: added if it is new, grown if `--size` says so.
async fn ready_disk(
    args: &IngestArgs,
    writer: &DomainWriter,
    survey: Option<&Survey>,
    when: When,
) -> anyhow::Result<(DiskId, u64)> {
    let end_bytes = survey.map(|survey| survey.end_bytes);
    let size = args.size.map(|size| size.get());
    if let (Some(size), Some(end)) = (size, end_bytes)
        && end > size
    {
        let what = format!("the log touches {} up to byte {end}, beyond --size {size}", args.disk);
        return Err(Refused::new(what).hint("leave --size out, or make it larger").into());
    }
    let Some(disk) = find_disk(writer, &args.disk) else {
        let from_log = || end_bytes.map(|end| end.max(1).next_multiple_of(SIZE_STEP_BYTES).min(DISK_BYTES_MAX));
        let size_bytes = size.or_else(from_log).ok_or_else(|| no_size(args))?;
        let disk = NewDisk { vm: args.disk.vm.clone(), name: args.disk.disk.clone(), size_bytes };
        let (id, _) = writer.submit_disk_add(&disk, Content::Blank, when).await?;
        return Ok((id, size_bytes));
    };
    let has_bytes = disk.blocks * BLOCK_BYTES;
    if disk.consistent_from.is_none() {
        let what = format!("{} is not restorable yet: its seeding was cut short", args.disk);
        return Err(Refused::new(what).hint("finish it with `tidemark ingest --format raw` first").into());
    }
    match size {
        Some(size) if size != has_bytes => {
            // Durable when the writer is closed, as all that follows.
            let _ticket = writer.submit_disk_resize(disk.disk, size, when).await?;
            Ok((disk.disk, size))
        }
        None if end_bytes.is_some_and(|end| end > has_bytes) => {
            let end = end_bytes.unwrap_or_default();
            let what = format!("the log touches {} up to byte {end}, the disk has {has_bytes}", args.disk);
            Err(Refused::new(what).hint(format!("if it has grown, say --size {end}")).into())
        }
        _ => Ok((disk.disk, has_bytes)),
    }
}

/// Moves the log into the domain, until its end or a signal.
async fn pump(run: &mut Run<'_>, source: &mut EntrySource, first: Entry, bar: &Bar) -> anyhow::Result<Outcome> {
    let mut stop = pin!(interrupted());
    let mut next = Some(first);
    while let Some(entry) = next {
        run.entry(entry).await?;
        bar.add(1);
        bar.say(format!("lsn {}", run.report.last_lsn));
        next = tokio::select! {
            biased;
            () = &mut stop => return Ok(Outcome::Interrupted),
            entry = source.next() => entry?,
        };
    }
    if run.items_before > 0 {
        let what = format!("the domain has {} more entries of this log than the log itself", run.items_before);
        return Err(Refused::new(what).into());
    }
    if let Some(last) = run.last_before.take() {
        run.compare(last).await?;
    }
    debug_assert!(run.start < Lsn::new(run.report.last_lsn));
    Ok(Outcome::Done)
}

/// The entries of a log, read by a thread of their own.
struct EntrySource {
    sector_bytes: u32,
    entries: mpsc::Receiver<Result<Entry, crate::logwrites::LogError>>,
    first_hash: Receiver<[u8; 32]>,
}

impl EntrySource {
    fn start(mut log: LogReader<Box<dyn Read + Send>>) -> Self {
        let (send, entries) = mpsc::channel(ENTRIES_AHEAD_MAX);
        let (send_hash, first_hash) = sync_channel(1);
        let sector_bytes = log.sector_bytes();
        tokio::task::spawn_blocking(move || {
            while let Some(entry) = log.next() {
                if log.entries_read() <= 1 {
                    // Nobody waits for it if the first entry failed.
                    let _ = send_hash.try_send(log.first_entry_hash());
                }
                let failed = entry.is_err();
                if send.blocking_send(entry).is_err() || failed {
                    return;
                }
            }
        });
        Self { sector_bytes, entries, first_hash }
    }

    async fn next(&mut self) -> anyhow::Result<Option<Entry>> {
        Ok(self.entries.recv().await.transpose()?)
    }

    /// The first entry and its hash.
    async fn first(&mut self, entries: u64) -> anyhow::Result<Option<(Entry, [u8; 32])>> {
        if entries == 0 {
            return Ok(None);
        }
        let Some(entry) = self.next().await? else { return Ok(None) };
        let hash = self.first_hash.try_recv().context("the log's reader ended early")?;
        Ok(Some((entry, hash)))
    }
}

const _: () = assert!(crate::logwrites::ENTRY_DATA_BYTES_MAX <= tidemark_writer::WRITE_BYTES_MAX);
