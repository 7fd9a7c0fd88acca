//! Index tables: Parquet files of a fixed shape, read one row group at a time (SPEC.md §index-tables).
//!
//! A root names each table by length and by the hash of its footer, and the footer holds a hash of every row group: so any
//! single range of a table is verified before a decoder of Parquet sees it.
//! Not here: which tables there are ([`crate::root`]), the columns ([`columns`]), and merging.

mod columns;
mod file;

pub use columns::{EventRow, SegmentRow};
pub use file::{GroupInfo, TableBuilder, TableFooter, TableRow};

use crate::error::{FormatError, Result};
use crate::fields::Fields;
use crate::ids::{DiskId, Epoch, Extent, Lsn, Seq, TimeNs};
use crate::index::DISK_BLOCKS_MAX;
use crate::key::ObjectKey;

/// Largest footer of a table in bytes (SPEC.md §limits).
pub const FOOTER_BYTES_MAX: u64 = 4 << 20;
/// Largest row group of a table in bytes (SPEC.md §limits).
pub const GROUP_BYTES_MAX: u64 = 32 << 20;
/// Most rows of a row group (SPEC.md §limits).
pub const GROUP_ROWS_MAX: u64 = 1 << 16;
/// Regions of images begin and end at multiples of so many blocks: 16 MiB (SPEC.md §images).
pub const REGION_BLOCKS: u64 = 1 << 15;

/// What the rows of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableKind {
    /// Versions of blocks, sorted by (disk, first block, LSN).
    Rows,
    /// Log segments, in LSN order.
    Segments,
    /// Events that a timeline is made of, in LSN order.
    Events,
    /// Of each block of a region the version that was the newest at one LSN, sorted like rows.
    Images,
}

impl TableKind {
    /// The word in roots, tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Segments => "segments",
            Self::Events => "events",
            Self::Images => "images",
        }
    }
    /// All kinds, in the order in which a root names their tables.
    pub const ALL: [Self; 4] = [Self::Rows, Self::Segments, Self::Events, Self::Images];

    /// The kind of a word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// True of tables whose rows are versions of blocks.
    pub const fn holds_versions(self) -> bool {
        matches!(self, Self::Rows | Self::Images)
    }
}

/// Where a row begins, in the order of a table of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowStart {
    /// The disk.
    pub disk: DiskId,
    /// Its first block.
    pub block: u64,
}

/// Which blocks a table or a row group of rows can hold anything of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowBounds {
    /// Start of the first row.
    pub low: RowStart,
    /// Start of the last row.
    pub high: RowStart,
    /// Behind the last block of any row of the last row's disk.
    pub end: u64,
}

impl RowBounds {
    /// False if no row within the bounds shares a block with `extent` of `disk`. True proves nothing.
    pub fn may_hold(&self, disk: DiskId, extent: Extent) -> bool {
        let begins = self.low < RowStart { disk, block: extent.end() };
        let ends = match self.high.disk.cmp(&disk) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => self.end > extent.start,
            std::cmp::Ordering::Greater => true,
        };
        begins && ends
    }

    /// Takes in the next row, in order. `first` says that none came before it.
    pub fn grow(&mut self, first: bool, disk: DiskId, extent: Extent) {
        let start = RowStart { disk, block: extent.start };
        if first {
            self.low = start;
        }
        self.end = if !first && self.high.disk == disk { self.end.max(extent.end()) } else { extent.end() };
        self.high = start;
    }
}

/// A table as a root names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRef {
    /// What its rows are.
    pub kind: TableKind,
    /// How often its rows were merged.
    pub level: u32,
    /// Maintenance epoch that wrote it.
    pub epoch: Epoch,
    /// Its number in that epoch.
    pub seq: Seq,
    /// First LSN of the run that it belongs to.
    pub first_lsn: Lsn,
    /// Last LSN of the run.
    pub last_lsn: Lsn,
    /// Number of rows.
    pub rows: u64,
    /// Length of the object in bytes.
    pub len: u64,
    /// Bytes at the end of the object that are its footer.
    pub footer_len: u64,
    /// BLAKE3 of the footer.
    pub footer_hash: [u8; 32],
    /// Of a table of rows and of an image: the blocks that it can hold.
    pub bounds: RowBounds,
    /// Of an image: the blocks of its disk that it speaks for, also of those that nobody had written.
    pub region: Extent,
    /// Of an image: rows of its region that were merged since into runs behind it.
    pub rows_since: u64,
    /// Of a table of segments: time of its first LSN.
    pub first_time: TimeNs,
}

impl TableRef {
    /// The key of the object.
    pub const fn key(&self) -> ObjectKey {
        ObjectKey::Index { epoch: self.epoch, seq: self.seq }
    }

    /// First byte of the footer.
    pub const fn footer_start(&self) -> u64 {
        self.len - self.footer_len
    }

    pub(crate) fn fields(&self) -> Fields {
        let fields = Fields::default()
            .with("kind", self.kind.name())
            .with("level", u64::from(self.level))
            .with("epoch", self.epoch.get())
            .with("seq", self.seq.get())
            .with("first", self.first_lsn.get())
            .with("last", self.last_lsn.get())
            .with("rows", self.rows)
            .with("len", self.len)
            .with("foot", self.footer_len)
            .with("hash", self.footer_hash.as_slice());
        let bounds = |fields: Fields| {
            fields
                .with("low_disk", u64::from(self.bounds.low.disk.get()))
                .with("low_block", self.bounds.low.block)
                .with("high_disk", u64::from(self.bounds.high.disk.get()))
                .with("high_block", self.bounds.high.block)
                .with("end", self.bounds.end)
        };
        match self.kind {
            TableKind::Rows => bounds(fields),
            TableKind::Images => bounds(fields)
                .with("from", self.region.start)
                .with("to", self.region.end())
                .with("since", self.rows_since),
            TableKind::Segments => fields.with("time", self.first_time.get()),
            TableKind::Events => fields,
        }
    }

    pub(crate) fn from_fields(fields: &Fields) -> Result<Self> {
        let what = "table of a root";
        let uint = |field| fields.uint(what, field);
        let bad = |field| FormatError::Field { what, field };
        let kind = TableKind::from_name(&fields.text(what, "kind")?).ok_or(bad("kind"))?;
        let start = |disk, block| -> Result<RowStart> {
            Ok(RowStart { disk: DiskId::new(fields.uint32(what, disk)?), block: uint(block)? })
        };
        let bounds = match kind {
            TableKind::Rows | TableKind::Images => RowBounds {
                low: start("low_disk", "low_block")?,
                high: start("high_disk", "high_block")?,
                end: uint("end")?,
            },
            TableKind::Segments | TableKind::Events => RowBounds::default(),
        };
        let (region, rows_since) = match kind {
            TableKind::Images => {
                let (from, to) = (uint("from")?, uint("to")?);
                let len = to.checked_sub(from).filter(|len| *len > 0 && to <= DISK_BLOCKS_MAX).ok_or(bad("to"))?;
                (Extent::new(from, len), uint("since")?)
            }
            _ => (Extent::default(), 0),
        };
        let table = Self {
            kind,
            level: fields.uint32(what, "level")?,
            epoch: Epoch::new(uint("epoch")?),
            seq: Seq::new(uint("seq")?),
            first_lsn: Lsn::new(uint("first")?),
            last_lsn: Lsn::new(uint("last")?),
            rows: uint("rows")?,
            len: uint("len")?,
            footer_len: uint("foot")?,
            footer_hash: fields.bytes(what, "hash")?,
            bounds,
            region,
            rows_since,
            first_time: if kind == TableKind::Segments { TimeNs::new(uint("time")?) } else { TimeNs::default() },
        };
        if table.first_lsn == Lsn::ZERO || table.last_lsn < table.first_lsn {
            return Err(bad("last"));
        }
        if table.footer_len > FOOTER_BYTES_MAX
            || table.footer_len.saturating_add(4) > table.len
            || table.footer_len < 12
        {
            return Err(bad("foot"));
        }
        if table.rows == 0 {
            return Err(bad("rows"));
        }
        if table.len > crate::header::OBJECT_BYTES_MAX {
            return Err(bad("len"));
        }
        if table.bounds.low > table.bounds.high {
            return Err(bad("high_block"));
        }
        //= SPEC.md#images
        //# IX-8
        if kind == TableKind::Images {
            let (low, high) = (table.bounds.low, table.bounds.high);
            if table.first_lsn != table.last_lsn {
                return Err(bad("first"));
            }
            if !region.start.is_multiple_of(REGION_BLOCKS) || !region.end().is_multiple_of(REGION_BLOCKS) {
                return Err(bad("from"));
            }
            if low.disk != high.disk || low.block < region.start || table.bounds.end > region.end() {
                return Err(bad("end"));
            }
        }
        Ok(table)
    }
}
