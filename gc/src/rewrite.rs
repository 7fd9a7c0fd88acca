//! Makes a compact segment: fetches what is needed of the segments in its place, and packs it in the order of blocks.
//!
//! Memory: the needed plaintext of the new segment ([`MaintenanceOptions::compact_bytes_max`] and one object's more), its stored
//! frames, and the needed frames of one of the old segments.

use crate::core::compact::{FETCH_BYTES, keeps, thin_steps};
use crate::error::{Error, Result};
use crate::options::MaintenanceOptions;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use tidemark_bucket::{Pieces, ReadOnly};
use tidemark_format::{
    BLOCK_BYTES, Event, Expect, FRAME_PLAIN_BYTES_MAX, FormatError, FrameCompressor, FrameDecoder, FrameEntry, Lsn,
    PlacedRow, Retained, Row, RowKind, SegmentDraft, SegmentHead, SegmentIdentity, SegmentRow, TimeStep, seal_segment,
};
use tidemark_history::{Heads, Segment, coalesce};

/// Frames that lie apart by less than this are fetched together.
const GAP_BYTES_MAX: u64 = 64 << 10;

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
    let (first_lsn, last_lsn) = (first.first_lsn, last.last_lsn);
    let steps = thin_steps(&steps, last_lsn, retained);
    let level = options.compression_level;
    let rows: Vec<Row> = group.needed.iter().map(|placed| placed.row).collect();
    let pack = move || {
        let (frames, stored) = pack(plain, level)?;
        let sealed = seal_segment(&SegmentDraft {
            identity,
            first_lsn,
            last_lsn,
            acked_through: Lsn::ZERO,
            prev_header_hash: [0; 32],
            salt,
            tick_ns,
            times: &steps,
            rows: &rows,
            events: &events,
            frames: &frames,
        })?;
        let expect = Expect { domain: identity.domain, key: identity.key() };
        let row = SegmentRow::of(&SegmentHead::decode(&sealed.bytes, &expect)?)?;
        let body = std::iter::once(Bytes::from(sealed.bytes)).chain(stored).collect::<Vec<_>>();
        Ok((Pieces::from(body), row))
    };
    let packed = tokio::task::spawn_blocking(pack).await.map_err(|_| tidemark_history::Error::TaskLost)?;
    let (body, row) = packed.map_err(|source| Error::Format { key: identity.key(), source })?;
    Ok(Made { body, row, fetched_bytes })
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn lacks(segment: &Segment, why: String) -> Error {
    tidemark_history::Error::Chain { key: segment.key, why }.into()
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
        segment.head.index.for_each_data_of(row.disk, row.extent, row.lsn, |extent, stream_block| {
            let cut = segment.head.frames.cut(extent, stream_block);
            parts.extend(cut.inspect(|part| found += part.extent.len).map(|part| (number, part)));
        });
        if found != row.extent.len {
            let (disk, extent, lsn) = (row.disk, row.extent, row.lsn);
            return Err(lacks(segment, format!("it lacks blocks {extent} of disk {disk} at lsn {lsn}")));
        }
        plain[number] = Some(vec![0; row.extent.byte_len() as usize]);
    }
    let frames = &segment.head.frames;
    let wanted: BTreeSet<u32> = parts.iter().map(|(_, part)| part.frame).collect();
    let ranges = wanted.into_iter().filter_map(|frame| Some((frame, frames.object_range(frame as usize)?)));
    let runs = coalesce(ranges, GAP_BYTES_MAX, FETCH_BYTES);
    let fetched: u64 = runs.iter().map(|run| run.bytes.end - run.bytes.start).sum();
    let key = segment.key;
    let reads = runs.into_iter().map(|run| async move {
        let bytes = bucket.get_range(&key, run.bytes.clone()).await;
        Ok::<_, Error>((run, bytes.map_err(|source| Error::store("read what is still needed", source))?))
    });
    let mut reads = stream::iter(reads).buffer_unordered(options.requests_in_flight_max.clamp(1, 8));
    let format = |source| Error::Format { key, source };
    let mut decoder = FrameDecoder::new().map_err(format)?;
    let mut plains: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    while let Some((run, bytes)) = reads.try_next().await? {
        for number in run.frames {
            let place = (frames.entry(number as usize), frames.object_range(number as usize));
            let (Some(entry), Some(at)) = place else { continue };
            let stored = &bytes[(at.start - run.bytes.start) as usize..(at.end - run.bytes.start) as usize];
            let mut frame = Vec::new();
            decoder.decode(entry, stored, &mut frame).map_err(format)?;
            plains.insert(number, frame);
        }
        tokio::task::consume_budget().await;
    }
    drop(reads);
    for (number, part) in &parts {
        let at = ((part.extent.start - needed[*number].row.extent.start) * BLOCK_BYTES) as usize;
        if let (Some(into), Some(bytes)) = (plain[*number].as_mut(), plains.get(&part.frame)) {
            let bytes = &bytes[part.plain_range()];
            into[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
    Ok(fetched)
}

/// Compresses pieces of plaintext, one behind the other, into frames: what describes them, and their stored bytes.
fn pack(plain: Vec<Option<Vec<u8>>>, level: i32) -> Result<(Vec<FrameEntry>, Vec<Bytes>), FormatError> {
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
    Ok((entries, stored))
}
