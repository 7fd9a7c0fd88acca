//! The map on the local disk: a header, a picture of all units, and a journal of what became of them since.
//!
//! Records are appended as units move on, so they outlast the process. Data is durable before the record that says so: a flush
//! syncs the data, then appends a commit that names the records written before that, then syncs the journal. After a boot of
//! the machine only what a commit names counts, and the rest is as if it never happened; within one boot all of it counts.
//! Invariant: a commit is durable, with everything before it, before the next one is written. So an invalid record before
//! the last commit but one is damage, not a torn end.

use crate::core::header::{HEADER_BYTES, Header, one_line};
use crate::core::record::{RECORD_BYTES, Record, Seal, UNITS_MAX};
use crate::core::states::{State, States, UNIT_BYTES, WORD_UNITS};
use crate::error::{Error, Result};
use crate::local::{Boot, LocalFile, LocalFiles};
use std::io;
use std::sync::Arc;

/// The journal's room is zeroed ahead in steps of this size, so that a commit need not change the file's size.
const ROOM_BYTES: u64 = 256 << 10;
/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// A map that is open for appending.
pub(crate) struct Journal {
    file: Arc<dyn LocalFile>,
    seal: Seal,
    /// Number of the next record.
    next: u64,
    /// Records before this one need no commit any more.
    committed: u64,
    /// The file has zeros from the next record up to here.
    room_end: u64,
    /// A failed append may have left anything behind: no other may follow it.
    broken: bool,
}

/// What a map said when it was opened.
pub(crate) struct Opened {
    pub(crate) states: States,
    pub(crate) journal: Journal,
    /// False if units called clean may hold writes of the guest.
    pub(crate) dirty_is_complete: bool,
}

/// What is opened, and where.
pub(crate) struct Opening<'a> {
    pub(crate) identity: &'a str,
    pub(crate) size_bytes: u64,
    pub(crate) boot: &'a Boot,
    /// Drawn anew each time.
    pub(crate) nonce: u64,
}

impl Opening<'_> {
    /// Opens the map, and makes one if there is none.
    pub(crate) fn open(&self, files: &dyn LocalFiles) -> Result<Opened> {
        let identity = one_line(self.identity);
        let units = self.size_bytes.div_ceil(UNIT_BYTES);
        if units >= UNITS_MAX {
            return Err(Error::OutOfDisk { range: 0..self.size_bytes, size_bytes: UNITS_MAX * UNIT_BYTES });
        }
        let failed = |error| Error::local("open the map", error);
        let Some(file) = files.map().map_err(failed)? else {
            return self.fresh(files, States::new(units), true);
        };
        let header = read_header(&*file)?;
        if header.identity != identity || header.size_bytes != self.size_bytes {
            let name = |identity: &str, bytes: u64| format!("{identity} ({bytes} bytes)");
            let (wanted, found) = (name(&identity, self.size_bytes), name(&header.identity, header.size_bytes));
            return Err(Error::Foreign { wanted, found });
        }
        let same_boot = header.boot == self.boot.name();
        let seal = header.seal();
        let found = scan(&*file, &header, &seal, same_boot)?;
        if found.failed {
            return Err(Error::Failed { source: None });
        }
        let states = States::new(units);
        for record in read_records(&*file, &seal, 0)?.take(found.believed as usize) {
            let Some(record) = record? else { break };
            apply(&states, record)?;
        }
        if same_boot {
            // Whoever wrote the last commit may have been killed before it was durable, and another must not follow it then.
            file.sync().map_err(failed)?;
            let room_end = file.len().map_err(failed)?;
            let mut journal =
                Journal { file, seal, next: found.end, committed: found.committed, room_end, broken: false };
            if found.closed {
                // It is open again: what a crash keeps from now on is not all that was written.
                let reopened = Record::Commit { through: found.end };
                journal.append(&[reopened]).and_then(|()| journal.file.sync()).map_err(failed)?;
                journal.committed = journal.next;
            }
            return Ok(Opened { states, journal, dirty_is_complete: header.dirty_is_complete });
        }
        // What no commit names must never be believed later, so the map is written anew without it.
        let complete = header.dirty_is_complete && (found.closed || states.counts().clean == 0);
        self.fresh(files, states, complete)
    }

    fn fresh(&self, files: &dyn LocalFiles, states: States, dirty_is_complete: bool) -> Result<Opened> {
        let records = picture(&states);
        let header = Header {
            identity: one_line(self.identity),
            size_bytes: self.size_bytes,
            records: records.len() as u64,
            boot: self.boot.name().to_owned(),
            dirty_is_complete,
            nonce: self.nonce,
        };
        let seal = header.seal();
        let mut contents = header.encode();
        for (number, record) in (0..).zip(&records) {
            contents.extend_from_slice(&record.encode(&seal, number));
        }
        let file = files.replace_map(&contents).map_err(|error| Error::local("write the map", error))?;
        let next = records.len() as u64;
        let room_end = contents.len() as u64;
        let journal = Journal { file, seal, next, committed: next, room_end, broken: false };
        Ok(Opened { states, journal, dirty_is_complete })
    }
}

impl Journal {
    /// Appends records: they outlast the process once this returns.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        if self.broken {
            return Err(io::Error::other("an earlier record could not be written"));
        }
        let at = position(self.next);
        let end = at + (records.len() * RECORD_BYTES) as u64;
        if end > self.room_end {
            let zeros = vec![0; (end - self.room_end).next_multiple_of(ROOM_BYTES) as usize];
            self.file.write_at(&zeros, self.room_end)?;
            self.room_end += zeros.len() as u64;
        }
        let numbered = (self.next..).zip(records);
        let bytes: Vec<u8> = numbered.flat_map(|(number, record)| record.encode(&self.seal, number)).collect();
        if let Err(error) = self.file.write_at(&bytes, at) {
            // Half of it may be there: the place is good again only as zeros.
            self.broken = self.file.write_at(&vec![0; bytes.len()], at).is_err();
            return Err(error);
        }
        self.next += records.len() as u64;
        Ok(())
    }

    /// Number of records so far.
    pub(crate) fn through(&self) -> u64 {
        self.next
    }

    /// True if no record waits for a commit.
    pub(crate) fn is_committed(&self) -> bool {
        self.next == self.committed
    }

    /// The file, to sync it without holding up appends.
    pub(crate) fn file(&self) -> Arc<dyn LocalFile> {
        self.file.clone()
    }

    /// Notes that a commit of everything before `through` was appended as the last record, and is durable.
    pub(crate) fn committed(&mut self, through: u64, number: u64) {
        // Records that came between wait for the next commit.
        self.committed = if number == through { number + 1 } else { through };
    }
}

fn position(number: u64) -> u64 {
    HEADER_BYTES as u64 + number * RECORD_BYTES as u64
}

fn read_header(file: &dyn LocalFile) -> Result<Header> {
    let mut bytes = [0; HEADER_BYTES];
    file.read_at(&mut bytes, 0).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Damaged { why: "it is shorter than its header".into() },
        _ => Error::local("read the map", error),
    })?;
    Header::decode(&bytes).map_err(|why| Error::Damaged { why })
}

/// How far a journal can be believed.
#[derive(Debug, Default)]
struct Scan {
    /// Records that count.
    believed: u64,
    /// Valid records.
    end: u64,
    /// Records that need no commit.
    committed: u64,
    /// The last record is [`Record::Closed`].
    closed: bool,
    failed: bool,
}

fn scan(file: &dyn LocalFile, header: &Header, seal: &Seal, same_boot: bool) -> Result<Scan> {
    let mut scan = Scan { believed: header.records, committed: header.records, ..Scan::default() };
    let mut broken_at: Option<u64> = None;
    let mut commits_beyond = 0;
    for (number, record) in (0..).zip(read_records(file, seal, 0)?) {
        let record = record?;
        match (record, broken_at) {
            (None, None) => broken_at = Some(number),
            (None, Some(_)) => {}
            (Some(Record::Failed), _) => scan.failed = true,
            (Some(record), None) => {
                scan.end = number + 1;
                scan.closed = matches!(record, Record::Closed { .. });
                if let Record::Commit { through } | Record::Closed { through } = record {
                    scan.believed = scan.believed.max(through);
                    scan.committed = if through == number { number + 1 } else { through };
                }
            }
            (Some(Record::Commit { .. } | Record::Closed { .. }), Some(_)) => commits_beyond += 1,
            (Some(_), Some(at)) if same_boot => {
                return Err(Error::Damaged { why: format!("record {at} is invalid, record {number} is not") });
            }
            (Some(_), Some(_)) => {}
        }
    }
    if scan.end < header.records {
        let why = format!("record {} of its first {} is invalid", scan.end, header.records);
        return Err(Error::Damaged { why });
    }
    // The last commit may be torn, with what stands before it. One that another followed was durable.
    if let Some(at) = broken_at.filter(|_| commits_beyond > usize::from(!same_boot)) {
        return Err(Error::Damaged { why: format!("record {at} is invalid, and was committed") });
    }
    if same_boot {
        scan.believed = scan.end;
    }
    Ok(scan)
}

/// All records from number `first` on, up to the end of the file; `None` where there is no valid one.
fn read_records<'a>(
    file: &'a dyn LocalFile,
    seal: &'a Seal,
    first: u64,
) -> Result<impl Iterator<Item = Result<Option<Record>>> + use<'a>> {
    let len = file.len().map_err(|error| Error::local("measure the map", error))?;
    let end = len.saturating_sub(HEADER_BYTES as u64) / RECORD_BYTES as u64;
    let (mut buffer, mut from, mut number) = (Vec::new(), first, first);
    Ok(std::iter::from_fn(move || {
        if number >= end {
            return None;
        }
        let within = |number: u64, from: u64| (number - from) as usize * RECORD_BYTES;
        if within(number, from) >= buffer.len() {
            from = number;
            let left = (end - from) as usize * RECORD_BYTES;
            buffer.resize(left.min(READ_BYTES), 0);
            if let Err(error) = file.read_at(&mut buffer, position(from)) {
                number = end;
                return Some(Err(Error::local("read the map", error)));
            }
        }
        let at = within(number, from);
        let bytes = buffer[at..at + RECORD_BYTES].try_into().expect("a whole record");
        let record = Record::decode(seal, number, bytes);
        number += 1;
        Some(Ok(record))
    }))
}

fn apply(states: &States, record: Record) -> Result<()> {
    let damaged = |why: String| Error::Damaged { why };
    match record {
        Record::Set { start, len, state } => {
            let end = start.checked_add(len).filter(|end| *end <= states.units());
            let end = end.ok_or_else(|| damaged(format!("{len} units from {start} on, of {}", states.units())))?;
            states.advance(start..end, state);
            Ok(())
        }
        Record::Words { index, words } => states.load(index, words).map_err(damaged),
        Record::Commit { .. } | Record::Closed { .. } | Record::Failed => Ok(()),
    }
}

/// Records that make `states` out of nothing.
fn picture(states: &States) -> Vec<Record> {
    const PAIR_UNITS: u64 = 2 * WORD_UNITS;
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(present) = states.next_run(at..states.units(), State::is_present) {
        let state = states.get(present.start);
        let run = states.next_run(present.clone(), |other| other == state).unwrap_or(present);
        let pair = run.start / PAIR_UNITS;
        if run.end - run.start >= PAIR_UNITS {
            records.push(Record::Set { start: run.start, len: run.end - run.start, state });
            at = run.end;
        } else {
            let index = pair * 2;
            records.push(Record::Words { index, words: [states.word(index), states.word(index + 1)] });
            at = (pair + 1) * PAIR_UNITS;
        }
    }
    records
}
