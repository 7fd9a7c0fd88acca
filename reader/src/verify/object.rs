//! Checks one segment by itself: header, sections, length, frames, every LSN.

use super::print::Print;
use super::{DamagedBlocks, Sample};
use crate::frames::decode;
use bytes::{Bytes, BytesMut};
use std::hash::{DefaultHasher, Hash, Hasher};
use tidemark_bucket::{Error, ReadOnly};
use tidemark_format::{
    BLOCK_BYTES, ErrorKind, Event, Expect, Extent, HEADER_BYTES, OBJECT_BYTES_MAX, PackedTimes, RowKind, SegmentHead,
    SegmentHeader, TimeNs,
};
use tidemark_history::{Segment, time_in};

/// Bytes that are read at a time.
pub(super) const RANGE_BYTES: u64 = 16 << 20;
/// The same at the front of an object of which only a sample is looked at: that usually holds its head.
const HEAD_BYTES: u64 = 128 << 10;

/// A segment and what is wrong with it.
#[derive(Debug)]
pub(super) struct Checked {
    /// Its head, if that can be decoded. The index is gone: it has been checked.
    pub(super) head: Option<Head>,
    pub(super) frames: u64,
    /// Frames that are not in the sample.
    pub(super) frames_skipped: u64,
    pub(super) rows: u64,
    /// Bytes that were read.
    pub(super) bytes: u64,
    pub(super) problems: Vec<Problem>,
}

/// What the chain needs to know of a segment.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) header: SegmentHeader,
    /// False if what follows the header is damaged: then it is only known which LSNs are lost.
    pub(super) readable: bool,
    pub(super) events: Vec<Event>,
    /// When each of them happened.
    pub(super) event_times: Vec<TimeNs>,
    pub(super) cut: Option<tidemark_format::Cut>,
    /// Of its rows.
    pub(super) print: Print,
    /// A hash of its steps of time.
    pub(super) times: u64,
}

impl Head {
    fn of(header: SegmentHeader, readable: bool) -> Self {
        let (events, event_times, cut) = (Vec::new(), Vec::new(), None);
        Self { header, readable, events, event_times, cut, print: Print::default(), times: 0 }
    }
}

/// A hash of steps of time.
pub(super) fn hash_of(times: &PackedTimes) -> u64 {
    let mut hasher = DefaultHasher::new();
    times.iter().for_each(|step| (step.lsn, step.time).hash(&mut hasher));
    hasher.finish()
}

/// Something wrong within one object.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) what: String,
    pub(super) blocks: Vec<DamagedBlocks>,
}

impl Checked {
    fn broken(what: String, bytes: u64) -> Self {
        let problems = vec![Problem { what, blocks: Vec::new() }];
        Self { head: None, frames: 0, frames_skipped: 0, rows: 0, bytes, problems }
    }

    fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(Problem { what: what.into(), blocks: Vec::new() });
    }
}

/// Reads an object in order, range by range, or only some of it.
struct Stream<'a> {
    bucket: &'a ReadOnly,
    expect: &'a Expect,
    len: u64,
    /// Bytes `at - buffer.len() .. at` of the object.
    buffer: Bytes,
    at: u64,
    /// What is asked for beside what is needed, so that requests are few.
    ahead: u64,
    bytes: u64,
}

impl Stream<'_> {
    fn start(&self) -> u64 {
        self.at - self.buffer.len() as u64
    }

    /// The bytes `from..to`, never before those of the last call; fewer where the object ends.
    async fn take(&mut self, from: u64, to: u64) -> Result<Bytes, Error> {
        let to = to.min(self.len);
        let from = from.min(to);
        if from > self.at {
            (self.at, self.buffer) = (from, Bytes::new());
        }
        if to > self.at {
            let keep =
                self.buffer.slice((from.max(self.start()) - self.start()).min(self.buffer.len() as u64) as usize..);
            let end = (self.at + self.ahead).max(to).min(self.len);
            let more = match self.bucket.get_range(&self.expect.key, self.at..end).await {
                // Shorter than listed: what is there is checked, and its length will not fit.
                Err(error) if error.kind() == ErrorKind::DataLoss => {
                    self.len = self.at;
                    Bytes::new()
                }
                other => other?,
            };
            self.at += more.len() as u64;
            self.bytes += more.len() as u64;
            let mut joined = BytesMut::with_capacity(keep.len() + more.len());
            joined.extend_from_slice(&keep);
            joined.extend_from_slice(&more);
            self.buffer = joined.freeze();
        }
        let (start, have) = (self.start(), self.buffer.len() as u64);
        let cut = |at: u64| (at.saturating_sub(start)).min(have) as usize;
        Ok(self.buffer.slice(cut(from)..cut(to)))
    }
}

/// Checks the segment that must lie at `expect.key` and has `len` bytes: all frames, or those of a sample.
pub(super) async fn check(
    bucket: &ReadOnly,
    expect: &Expect,
    len: u64,
    sample: Option<Sample>,
) -> Result<Checked, Error> {
    if len > OBJECT_BYTES_MAX {
        return Ok(Checked::broken(format!("it has {len} bytes, at most {OBJECT_BYTES_MAX} are allowed"), 0));
    }
    let ahead = if sample.is_some() { HEAD_BYTES } else { RANGE_BYTES };
    let mut stream = Stream { bucket, expect, len, buffer: Bytes::new(), at: 0, ahead, bytes: 0 };
    let front = stream.take(0, HEADER_BYTES as u64).await?;
    let header = match SegmentHeader::decode(&front) {
        Ok(header) => header,
        Err(error) => return Ok(Checked::broken(error.to_string(), stream.bytes)),
    };
    let front = stream.take(0, header.head_len).await?;
    let head = match SegmentHead::decode(&front, expect) {
        Ok(head) => head,
        Err(error) => {
            // The header is whole, so the chain can go on past the object; everything in it is lost.
            let mut checked = Checked::broken(error.to_string(), stream.bytes);
            if header.identity.key() == expect.key && header.identity.domain == expect.domain {
                checked.head = Some(Head::of(header, false));
            }
            return Ok(checked);
        }
    };
    let rows = head.index.row_count();
    let mut checked = Checked { head: None, frames: 0, frames_skipped: 0, rows, bytes: 0, problems: Vec::new() };
    if let Err(error) = head.check_total_len(len) {
        checked.problem(error.to_string());
    }
    if let Err(error) = head.check_dense() {
        checked.problem(error.to_string());
    }
    let segment = Segment { uid: 0, key: expect.key, head };
    if sample.is_some() {
        stream.ahead = 0;
    }
    for frame in 0..segment.head.frames.len() {
        if sample.is_some_and(|sample| !sample.has(&expect.key, frame)) {
            checked.frames_skipped += 1;
            continue;
        }
        checked.frames += 1;
        let Some(range) = segment.head.frames.object_range(frame) else { break };
        let stored = stream.take(range.start, range.end).await?;
        if let Err(error) = decode(&segment, frame as u32, &stored) {
            checked
                .problems
                .push(Problem { what: format!("frame {frame}: {error}"), blocks: rows_of(&segment, frame) });
        }
        if frame % 16 == 15 {
            tokio::task::yield_now().await;
        }
    }
    if stream.len != len {
        checked.problem(format!("it ends before the {len} bytes that the store lists"));
    }
    checked.bytes = stream.bytes;
    let mut known = Head::of(segment.head.header.clone(), true);
    known.event_times = segment.head.events.iter().map(|event| time_in(&segment.head, event.lsn)).collect();
    let kind = segment.head.header.identity.kind;
    segment.head.index.iter().for_each(|placed| known.print.add(&placed, kind));
    known.times = segment.head.times.as_ref().map_or(0, hash_of);
    let SegmentHead { events, cut, .. } = segment.head;
    (known.events, known.cut) = (events, cut);
    checked.head = Some(known);
    Ok(checked)
}

/// The blocks whose bytes lie in a frame, neighbours joined.
fn rows_of(segment: &Segment, frame: usize) -> Vec<DamagedBlocks> {
    let frames = &segment.head.frames;
    let (Some(start), Some(entry)) = (frames.stream_start(frame), frames.entry(frame)) else { return Vec::new() };
    let bytes = Extent::new(start / BLOCK_BYTES, u64::from(entry.plain_len) / BLOCK_BYTES);
    let mut lost: Vec<DamagedBlocks> = Vec::new();
    for placed in segment.head.index.iter().filter(|placed| placed.row.kind == RowKind::Data) {
        let row = placed.row;
        let Some(part) = Extent::new(placed.stream_block, row.extent.len).intersection(bytes) else { continue };
        let extent = Extent::new(row.extent.start + (part.start - placed.stream_block), part.len);
        match lost.last_mut() {
            Some(last) if last.disk == row.disk && last.extent.end() == extent.start => {
                last.extent.len += extent.len;
                last.first_lsn = last.first_lsn.min(row.lsn);
                last.last_lsn = last.last_lsn.max(row.lsn);
            }
            _ => lost.push(DamagedBlocks { disk: row.disk, extent, first_lsn: row.lsn, last_lsn: row.lsn }),
        }
    }
    lost
}
