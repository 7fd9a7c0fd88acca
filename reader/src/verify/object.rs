//! Checks one segment by itself: header, sections, length, every frame, every LSN.

use super::DamagedBlocks;
use crate::frames::decode;
use bytes::{Bytes, BytesMut};
use tidemark_bucket::{Error, ReadOnly};
use tidemark_format::{
    BLOCK_BYTES, ErrorKind, Expect, Extent, HEADER_BYTES, OBJECT_BYTES_MAX, RowKind, SegmentHead, SegmentHeader,
};
use tidemark_history::Segment;

/// Bytes that are read at a time.
pub(super) const RANGE_BYTES: u64 = 16 << 20;

/// A segment and what is wrong with it.
#[derive(Debug)]
pub(super) struct Checked {
    /// Its head, if that can be decoded. The index is gone: it has been checked.
    pub(super) head: Option<Head>,
    pub(super) frames: u64,
    pub(super) rows: u64,
    pub(super) problems: Vec<Problem>,
}

/// What the chain needs to know of a segment.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) header: SegmentHeader,
    /// False if what follows the header is damaged: then it is only known which LSNs are lost.
    pub(super) readable: bool,
    pub(super) events: Vec<tidemark_format::Event>,
    pub(super) cut: Option<tidemark_format::Cut>,
}

/// Something wrong within one object.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) what: String,
    pub(super) blocks: Vec<DamagedBlocks>,
}

impl Checked {
    fn broken(what: String) -> Self {
        Self { head: None, frames: 0, rows: 0, problems: vec![Problem { what, blocks: Vec::new() }] }
    }

    fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(Problem { what: what.into(), blocks: Vec::new() });
    }
}

/// Reads an object in order, range by range.
struct Stream<'a> {
    bucket: &'a ReadOnly,
    expect: &'a Expect,
    len: u64,
    /// Bytes `at - buffer.len() .. at` of the object.
    buffer: Bytes,
    at: u64,
}

impl Stream<'_> {
    fn start(&self) -> u64 {
        self.at - self.buffer.len() as u64
    }

    /// The bytes `from..to`, never before those of the last call; fewer where the object ends.
    async fn take(&mut self, from: u64, to: u64) -> Result<Bytes, Error> {
        let to = to.min(self.len);
        let from = from.min(to);
        if to > self.at {
            let keep =
                self.buffer.slice((from.max(self.start()) - self.start()).min(self.buffer.len() as u64) as usize..);
            let end = (self.at + RANGE_BYTES).max(to).min(self.len);
            let more = match self.bucket.get_range(&self.expect.key, self.at..end).await {
                // Shorter than listed: what is there is checked, and its length will not fit.
                Err(error) if error.kind() == ErrorKind::DataLoss => {
                    self.len = self.at;
                    Bytes::new()
                }
                other => other?,
            };
            self.at += more.len() as u64;
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

/// Checks the segment that must lie at `expect.key` and has `len` bytes.
pub(super) async fn check(bucket: &ReadOnly, expect: &Expect, len: u64) -> Result<Checked, Error> {
    if len > OBJECT_BYTES_MAX {
        return Ok(Checked::broken(format!("it has {len} bytes, at most {OBJECT_BYTES_MAX} are allowed")));
    }
    let mut stream = Stream { bucket, expect, len, buffer: Bytes::new(), at: 0 };
    let front = stream.take(0, HEADER_BYTES as u64).await?;
    let header = match SegmentHeader::decode(&front) {
        Ok(header) => header,
        Err(error) => return Ok(Checked::broken(error.to_string())),
    };
    let front = stream.take(0, header.head_len).await?;
    let head = match SegmentHead::decode(&front, expect) {
        Ok(head) => head,
        Err(error) => {
            // The header is whole, so the chain can go on past the object; everything in it is lost.
            let mut checked = Checked::broken(error.to_string());
            if header.identity.key() == expect.key && header.identity.domain == expect.domain {
                checked.head = Some(Head { header, readable: false, events: Vec::new(), cut: None });
            }
            return Ok(checked);
        }
    };
    let mut checked =
        Checked { head: None, frames: head.frames.len() as u64, rows: head.index.row_count(), problems: Vec::new() };
    if let Err(error) = head.check_total_len(len) {
        checked.problem(error.to_string());
    }
    if let Err(error) = head.check_dense() {
        checked.problem(error.to_string());
    }
    let segment = Segment { uid: 0, key: expect.key, head };
    for frame in 0..segment.head.frames.len() {
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
    let SegmentHead { header, events, cut, .. } = segment.head;
    checked.head = Some(Head { header, readable: true, events, cut });
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
