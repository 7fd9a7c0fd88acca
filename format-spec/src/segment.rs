//! Segments as a whole: sealing one before its PUT, opening one after its GET (SPEC.md §segments).
//!
//! Everything in front of DATA is known before the PUT, so the index stands in front and one ranged GET opens a segment.

use crate::cut::Cut;
use crate::error::{FormatError, Result};
use crate::event::{Event, put_events, take_events};
use crate::frame::{FrameDir, FrameEntry, put_frames};
use crate::header::{
    Expect, Features, HEADER_BYTES, MINOR, OBJECT_BYTES_MAX, SECTION_CUT, SECTION_EVENTS, SECTION_FRAMEDIR,
    SECTION_INDEX, SECTION_TIMES, Section, SegmentHeader, SegmentIdentity, SegmentKind, hash32,
};
use crate::ids::{BLOCK_BYTES, DiskId, Lsn, TimeNs};
use crate::index::{DISK_BLOCKS_MAX, PackedIndex, Row, RowKind, put_index};
use crate::times::{PackedTimes, TimeStep, TimesBounds, put_times};

/// Everything that a log or base segment says, except its bytes.
#[derive(Clone, Copy, Debug)]
pub struct SegmentDraft<'a> {
    /// Which segment; not a CUT.
    pub identity: SegmentIdentity,
    /// First LSN; for a base segment the LSN of the SEED_START.
    pub first_lsn: Lsn,
    /// Last LSN; for a base segment the same.
    pub last_lsn: Lsn,
    /// Highest LSN acknowledged so far; below `first_lsn` in the log.
    pub acked_through: Lsn,
    /// Header hash of the segment before; zeros for base segments.
    pub prev_header_hash: [u8; 32],
    /// Random bytes.
    pub salt: [u8; 32],
    /// Resolution of times in nanoseconds.
    pub tick_ns: u32,
    /// When LSNs happened: ascending in both fields, the first at `first_lsn`, times in whole ticks.
    pub times: &'a [TimeStep],
    /// Rows sorted by (disk, start, lsn).
    pub rows: &'a [Row],
    /// Events sorted by LSN.
    pub events: &'a [Event],
    /// Frames whose plaintext, in order, is that of the Data rows in order.
    pub frames: &'a [FrameEntry],
}

/// Everything that a CUT says.
#[derive(Clone, Copy, Debug)]
pub struct CutDraft<'a> {
    /// Which epoch; kind CUT, seq 0.
    pub identity: SegmentIdentity,
    /// The body. Its predecessor's header hash goes into the chain.
    pub cut: &'a Cut,
    /// When it was made: at or after the last LSN's time, in whole ticks.
    pub time: TimeNs,
    /// Resolution of times in nanoseconds.
    pub tick_ns: u32,
    /// Random bytes.
    pub salt: [u8; 32],
}

/// The front of a sealed segment. The object is `bytes` followed by the stored bytes of its frames in order.
#[derive(Clone, Debug)]
pub struct SealedHead {
    /// Header and sections.
    pub bytes: Vec<u8>,
    /// Its name in chains and references.
    pub header_hash: [u8; 32],
    /// Length of the whole object in bytes.
    pub total_len: u64,
}

/// Writes the head of a log or base segment.
///
/// # Errors
/// `Draft` if the draft breaks a rule of the format. What is sealed here always decodes.
pub fn seal_segment(draft: &SegmentDraft<'_>) -> Result<SealedHead> {
    let no = |why: String| Err(FormatError::Draft { why });
    if draft.identity.kind == SegmentKind::Cut {
        return no("a cut is sealed by seal_cut".into());
    }
    if draft.tick_ns == 0 {
        return no("tick_ns is 0".into());
    }
    if let Some(bad) = draft.rows.iter().find(|row| {
        row.extent.len == 0
            || row.extent.end() > DISK_BLOCKS_MAX
            || row.lsn < draft.first_lsn
            || row.lsn > draft.last_lsn
    }) {
        return no(format!("row out of range: {bad:?}"));
    }
    let key = |row: &Row| (row.disk, row.extent.start, row.lsn);
    if let Some(pair) = draft.rows.windows(2).find(|pair| key(&pair[0]) >= key(&pair[1])) {
        return no(format!("rows out of order: {pair:?}"));
    }
    let whole = |time: TimeNs| time.get().is_multiple_of(draft.tick_ns.into());
    let ascend = |pair: &[TimeStep]| pair[0].lsn < pair[1].lsn && pair[0].time < pair[1].time;
    let (Some(first), Some(last)) = (draft.times.first(), draft.times.last()) else {
        return no("no time step".into());
    };
    if first.lsn != draft.first_lsn
        || last.lsn > draft.last_lsn
        || !draft.times.windows(2).all(ascend)
        || !draft.times.iter().all(|step| whole(step.time))
    {
        return no("time steps out of range, out of order or not in whole ticks".into());
    }
    if draft.events.windows(2).any(|pair| pair[0].lsn >= pair[1].lsn)
        || draft.events.iter().any(|event| event.lsn < draft.first_lsn || event.lsn > draft.last_lsn)
    {
        return no("events out of order or out of range".into());
    }
    let mut data_rows = draft.rows.iter().filter(|row| row.kind == RowKind::Data);
    let Some(stream_blocks) = data_rows.try_fold(0u64, |sum, row| sum.checked_add(row.extent.len)) else {
        return no("rows hold more than 2^64 blocks of data".into());
    };
    let framed: u64 = draft.frames.iter().map(|frame| u64::from(frame.plain_len)).sum();
    if !framed.is_multiple_of(BLOCK_BYTES) || framed / BLOCK_BYTES != stream_blocks {
        return no(format!("rows hold {stream_blocks} blocks of data, frames {framed} bytes"));
    }
    let mut head = Head::new();
    head.section(SECTION_INDEX, |out| put_index(out, draft.rows, draft.first_lsn));
    head.section(SECTION_FRAMEDIR, |out| put_frames(out, draft.frames));
    head.section(SECTION_TIMES, |out| put_times(out, draft.times, draft.tick_ns));
    head.section(SECTION_EVENTS, |out| put_events(out, draft.events));
    head.seal(SegmentHeader {
        acked_through: draft.acked_through,
        row_count: draft.rows.len() as u64,
        data_len: draft.frames.iter().map(|frame| u64::from(frame.stored_len)).sum(),
        stream_blocks,
        frame_count: draft.frames.len() as u32,
        tick_ns: draft.tick_ns,
        salt: draft.salt,
        prev_header_hash: draft.prev_header_hash,
        ..SegmentHeader::blank(draft.identity, (draft.first_lsn, first.time), (draft.last_lsn, last.time))
    })
}

/// Writes a CUT. The object is the head alone.
///
/// # Errors
/// `Draft` if the draft breaks a rule of the format.
pub fn seal_cut(draft: &CutDraft<'_>) -> Result<SealedHead> {
    let no = |why: &str| Err(FormatError::Draft { why: why.into() });
    if draft.tick_ns == 0 || !draft.time.get().is_multiple_of(draft.tick_ns.into()) {
        return no("time is not in whole ticks");
    }
    let next = draft.cut.next_lsn;
    let Some(last) = next.get().checked_sub(1).map(Lsn::new) else { return no("next lsn is 0") };
    let mut head = Head::new();
    head.section(SECTION_CUT, |out| out.extend_from_slice(&draft.cut.encode()));
    head.seal(SegmentHeader {
        tick_ns: draft.tick_ns,
        salt: draft.salt,
        prev_header_hash: draft.cut.predecessor.map_or([0; 32], |tail| tail.header_hash),
        ..SegmentHeader::blank(draft.identity, (next, draft.time), (last, draft.time))
    })
}

/// A head under construction: sections are appended behind room for the header.
struct Head {
    bytes: Vec<u8>,
    sections: Vec<Section>,
}

impl Head {
    fn new() -> Self {
        Self { bytes: vec![0; HEADER_BYTES], sections: Vec::new() }
    }

    fn section(&mut self, id: u16, write: impl FnOnce(&mut Vec<u8>)) {
        let offset = self.bytes.len() as u64;
        write(&mut self.bytes);
        self.sections.push(Section { id, critical: true, offset, len: self.bytes.len() as u64 - offset });
    }

    fn seal(mut self, mut header: SegmentHeader) -> Result<SealedHead> {
        header.head_len = self.bytes.len() as u64;
        header.total_len = header.head_len + header.data_len;
        header.meta_hash = hash32(&self.bytes[HEADER_BYTES..]);
        header.sections[..self.sections.len()].copy_from_slice(&self.sections);
        let encoded = header.encode();
        if header.total_len > OBJECT_BYTES_MAX {
            return Err(FormatError::Draft {
                why: format!(
                    "{} would have {} bytes, at most {OBJECT_BYTES_MAX} fit",
                    header.identity.key(),
                    header.total_len
                ),
            });
        }
        self.bytes[..HEADER_BYTES].copy_from_slice(&encoded);
        // The rules that a reader enforces are the rules that a writer keeps: one implementation of them.
        let expect = Expect { domain: header.identity.domain, key: header.identity.key() };
        SegmentHead::decode(&self.bytes, &expect).map_err(|e| FormatError::Draft { why: e.to_string() })?;
        Ok(SealedHead { bytes: self.bytes, header_hash: header.header_hash, total_len: header.total_len })
    }
}

impl SegmentHeader {
    fn blank(identity: SegmentIdentity, first: (Lsn, TimeNs), last: (Lsn, TimeNs)) -> Self {
        Self {
            minor: MINOR,
            features: Features::default(),
            identity,
            total_len: 0,
            first_lsn: first.0,
            last_lsn: last.0,
            first_time: first.1,
            last_time: last.1,
            acked_through: Lsn::ZERO,
            row_count: 0,
            head_len: 0,
            data_len: 0,
            stream_blocks: 0,
            frame_count: 0,
            tick_ns: 1,
            salt: [0; 32],
            prev_header_hash: [0; 32],
            meta_hash: [0; 32],
            header_hash: [0; 32],
            sections: Default::default(),
        }
    }
}

/// LSNs that are checked for density in one pass over the rows.
const DENSE_WINDOW_LSNS: u64 = 1 << 18;
const MISSING: &str = "is missing from the segment";

/// A decoded head: all of a segment but its bytes.
#[derive(Clone, Debug)]
pub struct SegmentHead {
    /// The header.
    pub header: SegmentHeader,
    /// Which blocks it holds. Empty in a CUT.
    pub index: PackedIndex,
    /// Where their bytes are. Empty in a CUT.
    pub frames: FrameDir,
    /// When its LSNs happened; `None` in a CUT, which spans none.
    pub times: Option<PackedTimes>,
    /// What else happened.
    pub events: Vec<Event>,
    /// The body of a CUT.
    pub cut: Option<Cut>,
}

impl SegmentHead {
    /// Decodes and checks the first `head_len` bytes of an object; more bytes are ignored.
    ///
    /// # Errors
    /// Those of [`SegmentHeader::decode`] and [`SegmentHeader::check_identity`], then `TooShort`, `MetaHash`, and those
    /// of each section.
    pub fn decode(bytes: &[u8], expect: &Expect) -> Result<Self> {
        let header = SegmentHeader::decode(bytes)?;
        header.check_identity(expect)?;
        let Some(meta) = bytes.get(HEADER_BYTES..header.head_len as usize) else {
            return Err(FormatError::TooShort {
                what: "segment head",
                need: header.head_len,
                have: bytes.len() as u64,
            });
        };
        let computed = hash32(meta);
        //= SPEC.md#segment-header
        //# H-3
        if header.meta_hash != computed {
            return Err(FormatError::meta_hash(&header.meta_hash, &computed));
        }
        let section = |id| header.section(id).map(|range| &bytes[range]);
        let need = |id, why| section(id).ok_or(FormatError::SectionTable { why });
        let (first, last) = (header.first_lsn, header.last_lsn);
        let is_cut = header.identity.kind == SegmentKind::Cut;
        let foreign: &[u16] = match is_cut {
            true => &[SECTION_INDEX, SECTION_FRAMEDIR, SECTION_TIMES, SECTION_EVENTS],
            false => &[SECTION_CUT],
        };
        if foreign.iter().any(|id| section(*id).is_some()) {
            return Err(FormatError::SectionTable { why: "section of another kind of segment" });
        }
        let (index, frames, times, events) = if is_cut {
            (&[][..], &[][..], None, None)
        } else {
            (
                need(SECTION_INDEX, "segment without INDEX")?,
                need(SECTION_FRAMEDIR, "segment without FRAMEDIR")?,
                Some(need(SECTION_TIMES, "segment without TIMES")?),
                Some(need(SECTION_EVENTS, "segment without EVENTS")?),
            )
        };
        let bounds = TimesBounds {
            first: TimeStep { lsn: first, time: header.first_time },
            last: TimeStep { lsn: last, time: header.last_time },
            tick_ns: header.tick_ns,
        };
        let index = PackedIndex::decode(index, first, last, header.row_count, header.stream_blocks)?;
        let frames =
            FrameDir::decode(frames, header.frame_count, header.head_len, header.data_len, header.stream_blocks)?;
        let times = times.map(|section| PackedTimes::decode(section, bounds)).transpose()?;
        let events = events.map_or(Ok(Vec::new()), |section| take_events(section, first, last))?;
        let cut = if is_cut { Some(Self::decode_cut(&header, need(SECTION_CUT, "cut without CUT")?)?) } else { None };
        Ok(Self { header, index, frames, times, events, cut })
    }

    fn decode_cut(header: &SegmentHeader, section: &[u8]) -> Result<Cut> {
        let cut = Cut::decode(section)?;
        //= SPEC.md#cut
        //# C-2
        if cut.next_lsn != header.first_lsn {
            let (left, right) = (cut.next_lsn.get(), header.first_lsn.get());
            return Err(FormatError::Mismatch { what: "next_lsn of the cut and first_lsn of its header", left, right });
        }
        if cut.predecessor.is_none() && cut.next_lsn != Lsn::ZERO.next() {
            let what = "next_lsn of the cut of a first epoch and the first lsn";
            return Err(FormatError::Mismatch { what, left: cut.next_lsn.get(), right: 1 });
        }
        //= SPEC.md#cut
        //# C-3
        if cut.predecessor.map_or([0; 32], |tail| tail.header_hash) != header.prev_header_hash {
            return Err(FormatError::Field { what: "cut", field: "tail_hash" });
        }
        if cut.predecessor.is_some_and(|tail| tail.epoch >= header.identity.epoch) {
            return Err(FormatError::Field { what: "cut", field: "tail_epoch" });
        }
        Ok(cut)
    }

    /// Checks the length of the whole object as the store reports it.
    ///
    /// # Errors
    /// `TotalLen`.
    pub fn check_total_len(&self, actual: u64) -> Result<()> {
        //= SPEC.md#reader-rules
        //#
        if self.header.total_len == actual {
            Ok(())
        } else {
            Err(FormatError::TotalLen { header: self.header.total_len, actual })
        }
    }

    /// Checks that rows and events together hold every LSN of a log segment, that no LSN is both, and that the rows of
    /// one write do not share a block.
    ///
    /// Looks at a window of LSNs at a time: one pass over the rows for a quarter of a million LSNs, 16 passes at most. Takes
    /// 16 bytes for each LSN of the window, and refuses a range that is larger than the rows and events at hand.
    ///
    /// # Errors
    /// `Row` for rows of one write that share a block, `NotDense` naming an LSN that is missing or is both a write and an
    /// event.
    pub fn check_dense(&self) -> Result<()> {
        let (first, last) = (self.header.first_lsn, self.header.last_lsn);
        if self.header.identity.kind != SegmentKind::Log {
            return Ok(());
        }
        let span = first.count_to(last);
        // Fewer entries than LSNs: some LSN must be missing. Also bounds the memory by the input.
        if span > self.index.row_count() + self.events.len() as u64 {
            return Err(FormatError::NotDense { lsn: first, why: MISSING });
        }
        let window = DENSE_WINDOW_LSNS.max(span.div_ceil(16));
        let mut from = 0;
        while from < span {
            self.check_dense_window(from, window.min(span - from) as usize)?;
            from += window;
        }
        Ok(())
    }

    /// [`Self::check_dense`] for the `len` LSNs from the segment's first plus `from` on.
    fn check_dense_window(&self, from: u64, len: usize) -> Result<()> {
        let first = self.header.first_lsn.get() + from;
        let at = |lsn: Lsn| lsn.get().checked_sub(first).map(|at| at as usize);
        // For each LSN, disk and end of its last row so far, which come in order of disk and block. 0: no row yet.
        let mut ends = vec![(DiskId::new(0), 0u64); len];
        for (number, placed) in self.index.iter().enumerate() {
            let Row { disk, extent, lsn, .. } = placed.row;
            let Some(end) = at(lsn).and_then(|at| ends.get_mut(at)) else { continue };
            //= SPEC.md#index
            //# I-3
            if end.0 == disk && end.1 > extent.start {
                return Err(FormatError::Row { row: number as u64, why: "shares a block with its own write" });
            }
            *end = (disk, extent.end());
        }
        for event in &self.events {
            let Some(end) = at(event.lsn).and_then(|at| ends.get_mut(at)) else { continue };
            //= SPEC.md#order
            //# O-2
            if end.1 != 0 {
                return Err(FormatError::NotDense { lsn: event.lsn, why: "is both a write and an event" });
            }
            end.1 = u64::MAX;
        }
        //= SPEC.md#order
        //# O-1
        match ends.iter().position(|end| end.1 == 0) {
            Some(at) => Err(FormatError::NotDense { lsn: Lsn::new(first + at as u64), why: MISSING }),
            None => Ok(()),
        }
    }

    /// Bytes held in memory, events not counted.
    pub fn memory_bytes(&self) -> usize {
        let times = self.times.as_ref().map_or(0, PackedTimes::memory_bytes);
        size_of::<Self>() + self.index.memory_bytes() + self.frames.memory_bytes() + times
    }
}
