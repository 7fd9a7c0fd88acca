//! The columns of each kind of table.

use super::file::{Column, GroupIn, GroupInfo, GroupOut, LogicalType, Store, TableRow, TimeUnit};
use super::{RowBounds, TableKind};
use crate::error::{FormatError, Result};
use crate::event::{Event, put_events, take_events};
use crate::header::SegmentKind;
use crate::ids::{DiskId, Epoch, Extent, Lsn, Role, Seq, TimeNs};
use crate::index::{DISK_BLOCKS_MAX, PlacedRow, Row, RowKind};
use crate::key::ObjectKey;
use crate::segment::SegmentHead;
use crate::text::hex;
use crate::times::{PackedTimes, TimeStep, TimesBounds};
use crate::{Fields, Value};
use bytes::Bytes;

fn delta(name: &'static str, bounds: bool) -> Column {
    Column { name, store: Store::Delta, logical: None, bounds }
}
fn few(name: &'static str, bounds: bool) -> Column {
    Column { name, store: Store::Few, logical: None, bounds }
}
fn time(name: &'static str, bounds: bool) -> Column {
    let logical = Some(LogicalType::timestamp(true, TimeUnit::NANOS));
    Column { name, store: Store::Delta, logical, bounds }
}
fn blob(name: &'static str) -> Column {
    Column { name, store: Store::Bytes, logical: None, bounds: false }
}

fn bad(why: impl Into<String>) -> FormatError {
    FormatError::Table { why: why.into() }
}

/// Columns of a table of rows; those with bounds in the order that a group keeps them.
pub(super) fn rows() -> Vec<Column> {
    vec![
        few("disk", true),
        delta("block", true),
        few("blocks", true),
        delta("lsn", true),
        few("kind", false),
        delta("place", false),
    ]
}

/// Columns of a table of segments.
pub(super) fn segments() -> Vec<Column> {
    vec![
        delta("first_lsn", true),
        delta("last_lsn", true),
        time("first_time", true),
        time("last_time", true),
        few("kind", false),
        few("epoch", false),
        delta("seq", false),
        delta("rows", false),
        delta("bytes", false),
        delta("data_bytes", false),
        delta("data_blocks", false),
        few("tick_ns", false),
        blob("hash"),
        blob("times"),
        blob("events"),
    ]
}

/// Columns of a table of events.
pub(super) fn events() -> Vec<Column> {
    let text = |name, store| Column { name, store, logical: Some(LogicalType::String), bounds: false };
    vec![
        delta("lsn", true),
        time("time", false),
        few("code", false),
        text("event", Store::Words),
        text("detail", Store::Bytes),
        blob("fields"),
    ]
}

impl GroupInfo {
    /// Of a table of rows: false if no row of the group shares a block with `extent` of `disk`.
    pub fn may_hold(&self, disk: DiskId, extent: Extent) -> bool {
        let ((disk_low, disk_high), (block_low, block_high)) = (self.bounds(0), self.bounds(1));
        let (_, longest) = self.bounds(2);
        let disk = u64::from(disk.get());
        // Blocks of several disks in one group say nothing about one of them.
        let mixed = disk_low != disk_high;
        let blocks = block_low < extent.end() && block_high.saturating_add(longest) > extent.start;
        disk_low <= disk && disk <= disk_high && (mixed || blocks)
    }

    /// Of a table of rows: the least and the largest LSN. Of segments: the first and the last.
    pub fn lsns(&self, kind: TableKind) -> (Lsn, Lsn) {
        let (low, high) = match kind {
            TableKind::Rows | TableKind::Images => self.bounds(3),
            TableKind::Segments => (self.bounds(0).0, self.bounds(1).1),
            TableKind::Events => self.bounds(0),
        };
        (Lsn::new(low), Lsn::new(high))
    }

    /// Of a table of segments: when the first LSN happened.
    pub fn first_time(&self) -> TimeNs {
        TimeNs::new(self.bounds(2).0)
    }
}

impl TableRow for PlacedRow {
    const KIND: TableKind = TableKind::Rows;
    const ROWS_MAX: usize = 8192;
    const WEIGHT_MAX: usize = usize::MAX;

    fn weight(&self) -> usize {
        0
    }
    fn lsns(&self) -> (Lsn, Lsn) {
        (self.row.lsn, self.row.lsn)
    }
    fn grow_bounds(&self, bounds: &mut RowBounds, first: bool) {
        bounds.grow(first, self.row.disk, self.row.extent);
    }

    fn put(rows: &[Self], out: &mut GroupOut<'_, '_>) -> Result<()> {
        out.numbers(rows.iter().map(|placed| placed.row.disk.get().into()))?;
        out.numbers(rows.iter().map(|placed| placed.row.extent.start))?;
        out.numbers(rows.iter().map(|placed| placed.row.extent.len))?;
        out.numbers(rows.iter().map(|placed| placed.row.lsn.get()))?;
        out.numbers(rows.iter().map(|placed| placed.row.kind.code()))?;
        // Where the data of a row without data would be is of no use to anybody.
        out.numbers(rows.iter().map(|placed| if placed.row.kind == RowKind::Data { placed.stream_block } else { 0 }))
    }

    fn take(from: &mut GroupIn<'_>) -> Result<Vec<Self>> {
        let (disks, starts, lens) = (from.numbers()?, from.numbers()?, from.numbers()?);
        let (lsns, kinds, places) = (from.numbers()?, from.numbers()?, from.numbers()?);
        let mut rows: Vec<Self> = Vec::with_capacity(disks.len());
        for i in 0..disks.len() {
            let broken = |why| FormatError::Row { row: i as u64, why };
            let disk = u32::try_from(disks[i]).map_err(|_| broken("disk exceeds 32 bits"))?;
            let row = Row {
                disk: DiskId::new(disk),
                extent: Extent::new(starts[i], lens[i]),
                lsn: Lsn::new(lsns[i]),
                kind: RowKind::from_code(kinds[i]).ok_or(broken("unknown kind"))?,
            };
            //= SPEC.md#tables-of-rows
            //# IX-5
            if row.extent.len == 0 || row.extent.end() > DISK_BLOCKS_MAX {
                return Err(broken("no blocks, or beyond the largest disk"));
            }
            let key = |placed: &Self| (placed.row.disk, placed.row.extent.start, placed.row.lsn);
            let placed = Self { row, stream_block: places[i] };
            if rows.last().is_some_and(|before| key(before) >= key(&placed)) {
                return Err(broken("out of (disk, block, lsn) order"));
            }
            rows.push(placed);
        }
        Ok(rows)
    }
}

/// A segment of the history as the index knows it: its head without rows and frames.
#[derive(Clone, Debug)]
pub struct SegmentRow {
    /// First LSN.
    pub first_lsn: Lsn,
    /// Last LSN.
    pub last_lsn: Lsn,
    /// Time of the first LSN.
    pub first_time: TimeNs,
    /// Time of the last LSN.
    pub last_time: TimeNs,
    /// `Log`, or `Compact` if it stands for log segments that are gone.
    pub kind: SegmentKind,
    /// The epoch of its role.
    pub epoch: Epoch,
    /// Its number in that epoch.
    pub seq: Seq,
    /// Rows of its INDEX.
    pub rows: u64,
    /// Bytes of the object.
    pub bytes: u64,
    /// Bytes of its DATA.
    pub data_bytes: u64,
    /// Plaintext of that, in blocks.
    pub data_blocks: u64,
    /// Its header hash.
    pub header_hash: [u8; 32],
    /// When its LSNs happened.
    pub times: PackedTimes,
    /// All its events.
    pub events: Vec<Event>,
    events_bytes: Bytes,
}

impl SegmentRow {
    /// What the index keeps of a log or compact segment.
    ///
    /// # Errors
    /// `Table` for a segment of another kind.
    pub fn of(head: &SegmentHead) -> Result<Self> {
        let header = &head.header;
        let kind = header.identity.kind;
        let of_history = matches!(kind, SegmentKind::Log | SegmentKind::Compact);
        let Some(times) = head.times.as_ref().filter(|_| of_history) else {
            return Err(bad("only log and compact segments stand in a table of segments"));
        };
        let mut events = Vec::new();
        put_events(&mut events, &head.events);
        Ok(Self {
            first_lsn: header.first_lsn,
            last_lsn: header.last_lsn,
            first_time: header.first_time,
            last_time: header.last_time,
            kind,
            epoch: header.identity.epoch,
            seq: header.identity.seq,
            rows: header.row_count,
            bytes: header.total_len,
            data_bytes: header.data_len,
            data_blocks: header.stream_blocks,
            header_hash: header.header_hash,
            times: times.clone(),
            events: head.events.clone(),
            events_bytes: events.into(),
        })
    }

    /// The key of the segment.
    pub const fn key(&self) -> ObjectKey {
        let Self { epoch, seq, .. } = *self;
        match self.kind {
            SegmentKind::Compact => ObjectKey::Base { role: Role::Maintenance, epoch, seq },
            _ => ObjectKey::Log { epoch, seq },
        }
    }

    /// The time of an LSN of the segment.
    pub fn time_of(&self, lsn: Lsn) -> TimeNs {
        self.times.time_of(lsn).unwrap_or(self.first_time)
    }

    /// Bytes that it takes in memory, roughly.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.times.memory_bytes() + 3 * self.events_bytes.len()
    }
}

impl TableRow for SegmentRow {
    const KIND: TableKind = TableKind::Segments;
    const ROWS_MAX: usize = 512;
    const WEIGHT_MAX: usize = 256 << 10;

    fn weight(&self) -> usize {
        self.times.section().len() + self.events_bytes.len()
    }
    fn lsns(&self) -> (Lsn, Lsn) {
        (self.first_lsn, self.last_lsn)
    }
    fn first_time(&self) -> TimeNs {
        self.first_time
    }

    fn put(rows: &[Self], out: &mut GroupOut<'_, '_>) -> Result<()> {
        out.numbers(rows.iter().map(|s| s.first_lsn.get()))?;
        out.numbers(rows.iter().map(|s| s.last_lsn.get()))?;
        out.numbers(rows.iter().map(|s| s.first_time.get()))?;
        out.numbers(rows.iter().map(|s| s.last_time.get()))?;
        out.numbers(rows.iter().map(|s| s.kind.code().into()))?;
        out.numbers(rows.iter().map(|s| s.epoch.get()))?;
        out.numbers(rows.iter().map(|s| s.seq.get()))?;
        out.numbers(rows.iter().map(|s| s.rows))?;
        out.numbers(rows.iter().map(|s| s.bytes))?;
        out.numbers(rows.iter().map(|s| s.data_bytes))?;
        out.numbers(rows.iter().map(|s| s.data_blocks))?;
        out.numbers(rows.iter().map(|s| s.times.tick_ns().into()))?;
        out.bytes(rows.iter().map(|s| s.header_hash.as_slice()))?;
        out.bytes(rows.iter().map(|s| s.times.section()))?;
        out.bytes(rows.iter().map(|s| s.events_bytes.as_ref()))
    }

    fn take(from: &mut GroupIn<'_>) -> Result<Vec<Self>> {
        let (firsts, lasts) = (from.numbers()?, from.numbers()?);
        let (first_times, last_times) = (from.numbers()?, from.numbers()?);
        let (kinds, epochs, seqs, counts) = (from.numbers()?, from.numbers()?, from.numbers()?, from.numbers()?);
        let (bytes, data_bytes, data_blocks, ticks) =
            (from.numbers()?, from.numbers()?, from.numbers()?, from.numbers()?);
        let (hashes, times, events) = (from.bytes()?, from.bytes()?, from.bytes()?);
        let mut rows: Vec<Self> = Vec::with_capacity(firsts.len());
        for i in 0..firsts.len() {
            let (first_lsn, last_lsn) = (Lsn::new(firsts[i]), Lsn::new(lasts[i]));
            //= SPEC.md#tables-of-segments
            //# IX-6
            if first_lsn == Lsn::ZERO || last_lsn < first_lsn {
                return Err(bad("a segment ends before it begins"));
            }
            if rows.last().is_some_and(|before| before.last_lsn.checked_next() != Some(first_lsn)) {
                return Err(bad("segments do not follow one another"));
            }
            let tick_ns =
                u32::try_from(ticks[i]).ok().filter(|tick| *tick > 0).ok_or_else(|| bad("a forbidden tick"))?;
            let (first_time, last_time) = (TimeNs::new(first_times[i]), TimeNs::new(last_times[i]));
            let bounds = TimesBounds {
                first: TimeStep { lsn: first_lsn, time: first_time },
                last: TimeStep { lsn: last_lsn, time: last_time },
                tick_ns,
            };
            let kind = match kinds[i] {
                1 => SegmentKind::Log,
                4 => SegmentKind::Compact,
                _ => return Err(bad("a segment of a kind that holds no LSNs")),
            };
            rows.push(Self {
                first_lsn,
                last_lsn,
                first_time,
                last_time,
                kind,
                epoch: Epoch::new(epochs[i]),
                seq: Seq::new(seqs[i]),
                rows: counts[i],
                bytes: bytes[i],
                data_bytes: data_bytes[i],
                data_blocks: data_blocks[i],
                header_hash: hashes[i].as_ref().try_into().map_err(|_| bad("a header hash is not of 32 bytes"))?,
                times: PackedTimes::decode(&times[i], bounds)?,
                events: take_events(&events[i], first_lsn, last_lsn)?,
                events_bytes: events[i].clone(),
            });
        }
        Ok(rows)
    }
}

/// An event with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// The event.
    pub event: Event,
    /// When it happened.
    pub time: TimeNs,
}

/// The fields as JSON, for people and their queries.
fn detail(fields: &Fields) -> String {
    let value = |value: &Value| match value {
        Value::Uint(number) => serde_json::json!(number),
        Value::Text(text) => serde_json::json!(text),
        Value::Bytes(bytes) => serde_json::json!(hex(bytes)),
        Value::List(records) => serde_json::json!(records.len()),
    };
    serde_json::Value::Object(fields.iter().map(|(name, of)| (name.to_owned(), value(of))).collect()).to_string()
}

impl TableRow for EventRow {
    const KIND: TableKind = TableKind::Events;
    const ROWS_MAX: usize = 4096;
    const WEIGHT_MAX: usize = 1 << 20;

    fn weight(&self) -> usize {
        match &self.event.body {
            crate::EventBody::VmConfig { body, .. } => 64 + 3 * body.len(),
            _ => 64,
        }
    }
    fn lsns(&self) -> (Lsn, Lsn) {
        (self.event.lsn, self.event.lsn)
    }

    fn put(rows: &[Self], out: &mut GroupOut<'_, '_>) -> Result<()> {
        let fields: Vec<Fields> = rows.iter().map(|row| row.event.body.fields()).collect();
        let details: Vec<String> = fields.iter().map(detail).collect();
        // Each as a list of one event, so that one decoder reads them all.
        let encoded: Vec<Vec<u8>> = rows
            .iter()
            .map(|row| {
                let mut out = Vec::new();
                put_events(&mut out, std::slice::from_ref(&row.event));
                out
            })
            .collect();
        out.numbers(rows.iter().map(|row| row.event.lsn.get()))?;
        out.numbers(rows.iter().map(|row| row.time.get()))?;
        out.numbers(rows.iter().map(|row| row.event.body.code()))?;
        out.bytes(rows.iter().map(|row| row.event.body.name().as_bytes()))?;
        out.bytes(details.iter().map(|text| text.as_bytes()))?;
        out.bytes(encoded.iter().map(Vec::as_slice))
    }

    fn take(from: &mut GroupIn<'_>) -> Result<Vec<Self>> {
        let (lsns, times, _codes) = (from.numbers()?, from.numbers()?, from.numbers()?);
        let (_names, _details, encoded) = (from.bytes()?, from.bytes()?, from.bytes()?);
        let mut rows: Vec<Self> = Vec::with_capacity(lsns.len());
        for i in 0..lsns.len() {
            let lsn = Lsn::new(lsns[i]);
            //= SPEC.md#tables-of-events
            //# IX-7
            if rows.last().is_some_and(|before| before.event.lsn >= lsn) {
                return Err(bad("events are out of lsn order"));
            }
            let mut event = take_events(&encoded[i], lsn, lsn)?;
            let event = event.pop().ok_or_else(|| bad("an event is missing"))?;
            rows.push(Self { event, time: TimeNs::new(times[i]) });
        }
        Ok(rows)
    }
}
