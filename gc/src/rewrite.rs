//! Makes a compact segment: fetches what is needed of the segments in its place, and packs it in the order of blocks.
//!
//! Memory: the needed plaintext of the new segment ([`MaintenanceOptions::compact_bytes_max`] and one object's more), its stored
//! frames, and the needed frames of one of the old segments.

use crate::core::compact::{keeps, thin_steps};
use crate::error::{Error, Result};
use crate::options::MaintenanceOptions;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tidemark_bucket::{Pieces, ReadOnly};
use tidemark_format::{
    BLOCK_BYTES, Event, Expect, Extent, FRAME_PLAIN_BYTES_MAX, FormatError, FrameCompressor, FrameDecoder, Lsn,
    PlacedRow, Retained, Row, RowKind, SegmentDraft, SegmentHead, SegmentIdentity, SegmentKind, SegmentRow, TimeNs,
    TimeStep, seal_segment,
};
use tidemark_history::{Heads, Segment};

/// Frames that lie apart by less than this are fetched together.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// Bytes of one request for frames.
const RUN_BYTES_MAX: u64 = 8 << 20;

/// What a compact segment is made from.
#[derive(Debug)]
pub(crate) struct Group {
    /// The segments in whose place it comes, oldest first.
    pub(crate) rows: Vec<SegmentRow>,
    /// What is needed of them, in the order of a table of rows.
    pub(crate) needed: Vec<PlacedRow>,
}

/// A compact segment that was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) body: Pieces,
    pub(crate) row: SegmentRow,
    /// Bytes that were fetched for it, heads not counted.
    pub(crate) fetched_bytes: u64,
}

/// Reads the segments of `group` and makes the compact one.
pub(crate) async fn compact(
    bucket: &ReadOnly,
    heads: &Heads,
    group: Group,
    identity: SegmentIdentity,
    salt: [u8; 32],
    retained: &Retained,
    options: &MaintenanceOptions,
) -> Result<Made> {
    let mut plain: Vec<Option<Vec<u8>>> = group.needed.iter().map(|_| None).collect();
    let (mut events, mut steps, mut fetched_bytes) = (Vec::<Event>::new(), Vec::<TimeStep>::new(), 0);
    let mut tick_ns = 0;
    for row in &group.rows {
        let segment = heads.must(row.key()).await?;
        //= SPEC.md#tables-of-segments
        //# IX-6
        if segment.head.header.header_hash != row.header_hash {
            return Err(lacks(&segment, "the index knows it by another header hash".into()));
        }
        fetched_bytes += fetch(bucket, &segment, &group.needed, &mut plain, options).await?;
        events.extend(segment.head.events.iter().filter(|event| keeps(event, retained)).cloned());
        steps.extend(segment.head.times.iter().flat_map(|times| times.iter()));
        tick_ns = gcd(tick_ns, segment.head.header.tick_ns);
    }
    let (Some(first), Some(last)) = (group.rows.first(), group.rows.last()) else {
        unreachable!("a group has a segment at least")
    };
    let (lsns, last_time) = ((first.first_lsn, last.last_lsn), last.last_time);
    let steps = thin_steps(&steps, lsns.1, retained);
    let level = options.compression_level;
    let key = identity.key();
    let pack = move || pack(identity, lsns, last_time, &steps, tick_ns, salt, &group.needed, plain, &events, level);
    let packed = tokio::task::spawn_blocking(pack).await.map_err(|_| tidemark_history::Error::TaskLost)?;
    let (body, row) = packed.map_err(|source| Error::Format { key, source })?;
    Ok(Made { body, row, fetched_bytes })
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn lacks(segment: &Segment, why: String) -> Error {
    tidemark_history::Error::Chain { key: segment.key, why }.into()
}

/// A part of a needed row and where its first block is in the plaintext of a segment.
struct Part {
    number: usize,
    extent: Extent,
    stream_block: u64,
}

//= SPEC.md#compact-segments
//# CS-1
/// Fetches the bytes of the needed rows that `segment` holds. Says how many bytes that took.
async fn fetch(
    bucket: &ReadOnly,
    segment: &Segment,
    needed: &[PlacedRow],
    plain: &mut [Option<Vec<u8>>],
    options: &MaintenanceOptions,
) -> Result<u64> {
    let mut parts = Vec::new();
    for (number, placed) in needed.iter().enumerate() {
        let row = placed.row;
        if row.kind != RowKind::Data || row.lsn < segment.first() || segment.last() < row.lsn {
            continue;
        }
        let mut found = 0;
        // The segment itself says where its bytes are: the index may be older than a compact segment.
        segment.head.index.for_each_overlapping(row.disk, row.extent, |held| {
            let shared = held.row.extent.intersection(row.extent);
            let same = held.row.lsn == row.lsn && held.row.kind == RowKind::Data;
            if let Some(extent) = shared.filter(|_| same) {
                let stream_block = held.stream_block + (extent.start - held.row.extent.start);
                parts.push(Part { number, extent, stream_block });
                found += extent.len;
            }
        });
        if found != row.extent.len {
            let (disk, extent, lsn) = (row.disk, row.extent, row.lsn);
            return Err(lacks(segment, format!("it lacks blocks {extent} of disk {disk} at lsn {lsn}")));
        }
        plain[number] = Some(vec![0; row.extent.byte_len() as usize]);
    }
    let frames = &segment.head.frames;
    let mut wanted = BTreeSet::new();
    for part in &parts {
        for_each_frame(segment, part, |frame, _, _, _| {
            wanted.insert(frame);
        })?;
    }
    let wanted: Vec<usize> = wanted.into_iter().collect();
    let runs = runs_of(segment, &wanted);
    let fetched: u64 = runs.iter().map(|(range, _)| range.end - range.start).sum();
    let key = segment.key;
    let reads = runs.into_iter().map(|(range, numbers)| async move {
        let bytes = bucket.get_range(&key, range.clone()).await;
        Ok::<_, Error>((range, numbers, bytes.map_err(|source| Error::store("read what is still needed", source))?))
    });
    let mut reads = stream::iter(reads).buffer_unordered(options.requests_in_flight_max.clamp(1, 8));
    let format = |source| Error::Format { key, source };
    let mut decoder = FrameDecoder::new().map_err(format)?;
    let mut plains: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    while let Some((range, numbers, bytes)) = reads.try_next().await? {
        for number in numbers {
            let (Some(entry), Some(at)) = (frames.entry(number), frames.object_range(number)) else { continue };
            let stored = &bytes[(at.start - range.start) as usize..(at.end - range.start) as usize];
            let mut frame = Vec::new();
            decoder.decode(entry, stored, &mut frame).map_err(format)?;
            plains.insert(number, frame);
        }
        tokio::task::consume_budget().await;
    }
    drop(reads);
    for part in &parts {
        let row = needed[part.number].row;
        let skip = ((part.extent.start - row.extent.start) * BLOCK_BYTES) as usize;
        let Some(into) = plain[part.number].as_mut() else { continue };
        for_each_frame(segment, part, |frame, from, at, len| {
            if let Some(bytes) = plains.get(&frame) {
                into[skip + at..skip + at + len].copy_from_slice(&bytes[from..from + len]);
            }
        })?;
    }
    Ok(fetched)
}

/// Shows each frame that holds something of `part`: its number, the first byte in its plaintext, the first byte in the part, and how
/// many.
fn for_each_frame(segment: &Segment, part: &Part, mut each: impl FnMut(usize, usize, usize, usize)) -> Result<()> {
    let frames = &segment.head.frames;
    let (mut done, len) = (0, part.extent.byte_len());
    while done < len {
        let place = frames.locate(part.stream_block * BLOCK_BYTES + done);
        let Some((number, from, entry)) = place.and_then(|(n, from)| Some((n, from, frames.entry(n)?))) else {
            return Err(lacks(segment, format!("no frame holds block {} of its data", part.stream_block)));
        };
        let here = u64::from(entry.plain_len - from).min(len - done);
        each(number, from as usize, done as usize, here as usize);
        done += here;
    }
    Ok(())
}

/// Ranges of the object that hold `wanted` frames, and which.
fn runs_of(segment: &Segment, wanted: &[usize]) -> Vec<(Range<u64>, Vec<usize>)> {
    let mut runs: Vec<(Range<u64>, Vec<usize>)> = Vec::new();
    for number in wanted {
        let Some(range) = segment.head.frames.object_range(*number) else { continue };
        match runs.last_mut() {
            Some((run, numbers))
                if range.start - run.end <= GAP_BYTES_MAX && range.end - run.start <= RUN_BYTES_MAX =>
            {
                run.end = range.end;
                numbers.push(*number);
            }
            _ => runs.push((range, vec![*number])),
        }
    }
    runs
}

#[allow(clippy::too_many_arguments, reason = "each is a part of the object")]
fn pack(
    identity: SegmentIdentity,
    (first_lsn, last_lsn): (Lsn, Lsn),
    last_time: TimeNs,
    steps: &[TimeStep],
    tick_ns: u32,
    salt: [u8; 32],
    needed: &[PlacedRow],
    plain: Vec<Option<Vec<u8>>>,
    events: &[Event],
    level: i32,
) -> Result<(Pieces, SegmentRow), FormatError> {
    let mut compressor = FrameCompressor::new(level)?;
    let (mut entries, mut stored) = (Vec::new(), Vec::<Bytes>::new());
    let mut open: Vec<u8> = Vec::with_capacity(FRAME_PLAIN_BYTES_MAX as usize);
    let mut close = |open: &mut Vec<u8>| -> Result<(), FormatError> {
        let frame = compressor.compress(open)?;
        entries.push(frame.entry);
        stored.push(frame.bytes.into());
        open.clear();
        Ok(())
    };
    for bytes in plain.into_iter().flatten() {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let fits = rest.len().min(FRAME_PLAIN_BYTES_MAX as usize - open.len());
            open.extend_from_slice(&rest[..fits]);
            rest = &rest[fits..];
            if open.len() == FRAME_PLAIN_BYTES_MAX as usize {
                close(&mut open)?;
            }
        }
    }
    if !open.is_empty() {
        close(&mut open)?;
    }
    let rows: Vec<Row> = needed.iter().map(|placed| placed.row).collect();
    let draft = SegmentDraft {
        identity,
        first_lsn,
        last_lsn,
        acked_through: Lsn::ZERO,
        prev_header_hash: [0; 32],
        salt,
        tick_ns,
        times: steps,
        rows: &rows,
        events,
        frames: &entries,
    };
    debug_assert_eq!(draft.identity.kind, SegmentKind::Compact);
    debug_assert_eq!(steps.last().map(|step| step.time), Some(last_time));
    let sealed = seal_segment(&draft)?;
    let expect = Expect { domain: identity.domain, key: identity.key() };
    let row = SegmentRow::of(&SegmentHead::decode(&sealed.bytes, &expect)?)?;
    let body = std::iter::once(Bytes::from(sealed.bytes)).chain(stored).collect::<Vec<_>>();
    Ok((body.into(), row))
}
