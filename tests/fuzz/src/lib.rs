//! What the fuzz targets share: forged segments, and what must hold of whatever decodes.

use tidemark_format::*;

#[path = "../../../format-spec/tests/forge/mod.rs"]
pub mod forge;
#[path = "../../../format-spec/tests/heap/mod.rs"]
pub mod heap;

pub use heap::bounded;

/// Decodes a segment under the name that it gives itself.
pub fn decode_own(bytes: &[u8]) -> Option<error::Result<SegmentHead>> {
    let header = bounded(bytes.len(), || SegmentHeader::decode(bytes)).ok()?;
    let expect = Expect { domain: header.identity.domain, key: header.identity.key() };
    Some(bounded(bytes.len(), || SegmentHead::decode(bytes, &expect)))
}

/// Decodes forged pieces; where two totals differ, the header is made to agree and the pieces are tried again.
pub fn decode_reconciled(parts: &mut forge::Parts) -> Option<SegmentHead> {
    for _ in 0..4 {
        match decode_own(&parts.build())? {
            Ok(head) => return Some(head),
            Err(FormatError::Mismatch { what, left, .. }) => match what {
                "index rows and header row_count" => drop(parts.set("row_count", left)),
                "blocks of data rows and header stream_blocks" => {
                    parts.set("stream_blocks", left);
                    frame_raw(parts, left);
                }
                "next_lsn of the cut and first_lsn of its header" => {
                    parts.set("first_lsn", left).set("last_lsn", left.wrapping_sub(1));
                }
                _ => return None,
            },
            Err(_) => return None,
        }
    }
    None
}

/// Gives a segment raw frames of `blocks` blocks in all, if that is not too many to make.
fn frame_raw(parts: &mut forge::Parts, blocks: u64) {
    if blocks > 1 << 14 {
        return;
    }
    let mut entries = Vec::new();
    let mut left = blocks * BLOCK_BYTES;
    let mut count = 0;
    while left > 0 {
        let len = left.min(FRAME_PLAIN_BYTES_MAX.into()) as u32;
        entries.extend(forge::frame_entry(len, len, [0; 4], [0; 16]));
        left -= u64::from(len);
        count += 1;
    }
    parts.set("frame_count", count);
    parts.data = vec![0; (blocks * BLOCK_BYTES) as usize];
    *parts.section(2) = entries;
}

/// A log segment of nothing but one time step: LSN 1 at tick 0.
pub fn empty_log(last_lsn: u64) -> forge::Parts {
    let identity = SegmentIdentity {
        domain: DomainId::new([7; 16]),
        kind: SegmentKind::Log,
        role: Role::Writer,
        epoch: Epoch::new(1),
        seq: Seq::new(1),
    };
    let times = [TimeStep { lsn: Lsn::new(1), time: TimeNs::new(0) }];
    let draft = SegmentDraft {
        identity,
        first_lsn: Lsn::new(1),
        last_lsn: Lsn::new(1),
        acked_through: Lsn::ZERO,
        prev_header_hash: [0; 32],
        salt: [0; 32],
        tick_ns: TICK_NS_DEFAULT,
        times: &times,
        rows: &[],
        events: &[Event { lsn: Lsn::new(1), body: EventBody::Barrier }],
        frames: &[],
    };
    let mut parts = forge::Parts::split(&seal_segment(&draft).expect("a valid draft").bytes);
    parts.set("last_lsn", last_lsn);
    parts
}

/// What must hold of any head that decodes.
pub fn check_head(head: &SegmentHead) {
    check_index(&head.index);
    check_frames(&head.frames);
    let _ = head.check_dense();
    if let Some(times) = &head.times {
        check_times(times, &head.header);
    }
    for event in &head.events {
        assert!(event.lsn >= head.header.first_lsn && event.lsn <= head.header.last_lsn);
    }
    if head.cut.is_none() && head.index.row_count() < 1 << 16 {
        check_reseal(head);
    }
}

fn check_index(index: &PackedIndex) {
    if index.row_count() > 1 << 16 {
        return;
    }
    let placed: Vec<_> = index.iter().collect();
    assert_eq!(placed.len() as u64, index.row_count());
    let mut stream = 0;
    for pair in placed.windows(2) {
        let key = |p: &PlacedRow| (p.row.disk, p.row.extent.start, p.row.lsn);
        assert!(key(&pair[0]) < key(&pair[1]), "rows out of order");
    }
    for p in &placed {
        assert_eq!(p.stream_block, stream);
        if p.row.kind == RowKind::Data {
            stream += p.row.extent.len;
        }
    }
    assert_eq!(stream, index.stream_blocks());
    let Some(last) = placed.last() else { return };
    for p in [placed[0], placed[placed.len() / 2], *last] {
        let start = p.row.extent.start;
        for extent in [p.row.extent, Extent::new(start, 1), Extent::new(start / 2, start), Extent::new(0, u64::MAX)] {
            let mut found = Vec::new();
            index.for_each_overlapping(p.row.disk, extent, |row| found.push(row));
            let overlaps = |q: &&PlacedRow| q.row.disk == p.row.disk && q.row.extent.overlaps(extent);
            assert!(found.iter().eq(placed.iter().filter(overlaps)), "lookup and scan differ");
        }
    }
}

fn check_frames(frames: &FrameDir) {
    let mut end = None;
    for i in 0..frames.len() {
        let (entry, range) = (frames.entry(i).expect("in range"), frames.object_range(i).expect("in range"));
        assert!(end.is_none_or(|end| end == range.start));
        assert_eq!(range.end - range.start, u64::from(entry.stored_len));
        end = Some(range.end);
        let start = frames.stream_start(i).expect("in range");
        assert_eq!(frames.locate(start), Some((i, 0)));
        let last = start + u64::from(entry.plain_len) - 1;
        assert_eq!(frames.locate(last), Some((i, entry.plain_len - 1)));
    }
    assert_eq!(frames.entry(frames.len()), None);
    assert_eq!(frames.locate(u64::MAX), None);
}

fn check_times(times: &PackedTimes, header: &SegmentHeader) {
    let steps: Vec<_> = times.iter().collect();
    assert_eq!(steps.first().map(|s| (s.lsn, s.time)), Some((header.first_lsn, header.first_time)));
    assert_eq!(steps.last().map(|s| s.time), Some(header.last_time));
    for (i, step) in steps.iter().enumerate().step_by(steps.len() / 64 + 1) {
        assert_eq!(times.time_of(step.lsn), Some(step.time));
        assert_eq!(times.first_after(step.time), steps.get(i + 1).map(|next| next.lsn));
    }
    assert_eq!(times.time_of(header.last_lsn), Some(header.last_time));
    assert_eq!(times.time_of(Lsn::new(header.first_lsn.get() - 1)), None);
}

/// What decodes can be sealed again, and then says the same.
fn check_reseal(head: &SegmentHead) {
    let header = &head.header;
    let rows: Vec<_> = head.index.iter().map(|placed| placed.row).collect();
    let times: Vec<_> = head.times.iter().flat_map(PackedTimes::iter).collect();
    let frames: Vec<_> = (0..head.frames.len()).map(|i| *head.frames.entry(i).expect("in range")).collect();
    let draft = SegmentDraft {
        identity: header.identity,
        first_lsn: header.first_lsn,
        last_lsn: header.last_lsn,
        acked_through: header.acked_through,
        prev_header_hash: header.prev_header_hash,
        salt: header.salt,
        tick_ns: header.tick_ns,
        times: &times,
        rows: &rows,
        events: &head.events,
        frames: &frames,
    };
    let sealed = match seal_segment(&draft) {
        Ok(sealed) => sealed,
        // Another packing of the same rows may be longer, and then pass the limit of an object.
        Err(FormatError::Draft { why }) if why.contains("at most") => return,
        // A writer may be stricter than a reader must be: it never seals a segment with holes.
        Err(_) if head.check_dense().is_err() => return,
        Err(e) => panic!("what decoded does not seal: {e}"),
    };
    let again = decode_own(&sealed.bytes).expect("a sealed header decodes").expect("a sealed head decodes");
    assert!(again.index.iter().map(|placed| placed.row).eq(rows));
    assert!(again.times.iter().flat_map(PackedTimes::iter).eq(times));
    assert_eq!(again.events, head.events);
    assert!((0..frames.len()).all(|i| again.frames.entry(i) == Some(&frames[i])));
}
