//! INDEX: which blocks a segment holds, sorted by (disk, block, lsn) (SPEC.md §index).
//!
//! Decoding checks every row once and then keeps the packed bytes and a directory of their chunks: about 4.5 bytes a
//! row stay in memory, and any range of blocks can be looked up by unpacking the few chunks that overlap it.

use crate::column::{CHUNK_ROWS_MAX, put_packed, take_packed};
use crate::cursor::{Cursor, put_varint};
use crate::error::{FormatError, Result};
use crate::ids::{DiskId, Extent, Lsn};

/// Blocks that a disk may have at most: 2^54 of 512 bytes, 8 EiB (SPEC.md §limits).
pub const DISK_BLOCKS_MAX: u64 = 1 << 54;

/// What a row says of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKind {
    /// Bytes, found in DATA.
    Data,
    /// Zeros, written as such.
    Zero,
    /// Discarded: reads as zeros and counts as a hole.
    Unmap,
}

impl RowKind {
    pub(crate) const fn code(self) -> u64 {
        match self {
            Self::Data => 0,
            Self::Zero => 1,
            Self::Unmap => 2,
        }
    }
    pub(crate) const fn from_code(code: u64) -> Option<Self> {
        match code {
            0 => Some(Self::Data),
            1 => Some(Self::Zero),
            2 => Some(Self::Unmap),
            _ => None,
        }
    }
    /// One word for tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Zero => "zero",
            Self::Unmap => "unmap",
        }
    }
}

/// One version of a run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// The disk.
    pub disk: DiskId,
    /// The blocks; at least one.
    pub extent: Extent,
    /// Position of the write that made this version.
    pub lsn: Lsn,
    /// What the blocks hold.
    pub kind: RowKind,
}

/// A row and the place of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlacedRow {
    /// The row.
    pub row: Row,
    /// For a Data row: where its bytes begin in the segment's plaintext stream, in blocks. Else where they would.
    pub stream_block: u64,
}

/// Appends the INDEX section of `rows`, which must be sorted by (disk, start, lsn) and lie within the LSN range.
pub(crate) fn put_index(out: &mut Vec<u8>, rows: &[Row], first_lsn: Lsn) {
    let mut numbers = [0u64; CHUNK_ROWS_MAX];
    for of_disk in rows.chunk_by(|a, b| a.disk == b.disk) {
        for chunk in of_disk.chunks(CHUNK_ROWS_MAX) {
            put_varint(out, chunk[0].disk.get().into());
            out.push((chunk.len() - 1) as u8);
            put_varint(out, chunk[0].extent.start);
            for (slot, pair) in numbers.iter_mut().zip(chunk.windows(2)) {
                *slot = pair[1].extent.start - pair[0].extent.start;
            }
            put_packed(out, &numbers[..chunk.len() - 1]);
            let mut column = |of: &dyn Fn(&Row) -> u64| {
                for (slot, row) in numbers.iter_mut().zip(chunk) {
                    *slot = of(row);
                }
                put_packed(out, &numbers[..chunk.len()]);
            };
            column(&|row| row.extent.len);
            column(&|row| row.lsn.get() - first_lsn.get());
            column(&|row| row.kind.code());
        }
    }
}

/// Where a chunk lies and what it can overlap.
#[derive(Clone, Debug)]
struct Chunk {
    disk: DiskId,
    /// Offset of the chunk in the section.
    offset: u32,
    rows: u8,
    /// First block of its first row.
    start: u64,
    /// Largest end of its rows.
    end: u64,
    /// Place of its first row in the plaintext stream, in blocks.
    stream_block: u64,
}

/// A decoded INDEX, kept packed. Rows come in (disk, start, lsn) order.
#[derive(Clone, Debug)]
pub struct PackedIndex {
    bytes: Box<[u8]>,
    chunks: Box<[Chunk]>,
    first_lsn: Lsn,
    row_count: u64,
    stream_blocks: u64,
}

/// The columns of one chunk.
struct Columns {
    n: usize,
    disk: DiskId,
    start: [u64; CHUNK_ROWS_MAX],
    len: [u64; CHUNK_ROWS_MAX],
    lsn: [u64; CHUNK_ROWS_MAX],
    kind: [u64; CHUNK_ROWS_MAX],
}

impl Columns {
    fn take(from: &mut Cursor<'_>) -> Result<Self> {
        let disk = u32::try_from(from.varint()?).map_err(|_| FormatError::Column { why: "disk id exceeds 32 bits" })?;
        let n = usize::from(from.u8()?) + 1;
        if n > CHUNK_ROWS_MAX {
            return Err(FormatError::Column { why: "chunk has more than 128 rows" });
        }
        let empty = [0u64; CHUNK_ROWS_MAX];
        let mut columns = Self { n, disk: DiskId::new(disk), start: empty, len: empty, lsn: empty, kind: empty };
        columns.start[0] = from.varint()?;
        take_packed(from, &mut columns.start[1..n])?;
        for i in 1..n {
            columns.start[i] = columns.start[i - 1]
                .checked_add(columns.start[i])
                .ok_or(FormatError::Column { why: "block number exceeds 64 bits" })?;
        }
        take_packed(from, &mut columns.len[..n])?;
        take_packed(from, &mut columns.lsn[..n])?;
        take_packed(from, &mut columns.kind[..n])?;
        Ok(columns)
    }

    /// Row `i`; `None` if a field is out of the range that the format allows.
    fn row(&self, i: usize, first_lsn: Lsn) -> Option<Row> {
        Some(Row {
            disk: self.disk,
            extent: Extent::new(self.start[i], self.len[i]),
            lsn: Lsn::new(first_lsn.get().checked_add(self.lsn[i])?),
            kind: RowKind::from_code(self.kind[i])?,
        })
    }
}

impl PackedIndex {
    /// Checks and keeps an INDEX section.
    ///
    /// Memory: the section itself and 40 bytes for each chunk, which has at least 17 bytes of its own.
    ///
    /// # Errors
    /// `Column` or `TooShort` for a malformed section, `Row` for a row that breaks a rule, `Mismatch` for other counts
    /// than the header's.
    pub(crate) fn decode(
        section: &[u8],
        first_lsn: Lsn,
        last_lsn: Lsn,
        row_count: u64,
        stream_blocks: u64,
    ) -> Result<Self> {
        let mut cursor = Cursor::new("index", section);
        let mut chunks = Vec::new();
        let (mut rows, mut stream) = (0u64, 0u64);
        let mut previous: Option<Row> = None;
        while cursor.remaining() > 0 {
            let offset =
                u32::try_from(cursor.position()).map_err(|_| FormatError::Column { why: "index exceeds 4 GiB" })?;
            let columns = Columns::take(&mut cursor)?;
            let stream_at_start = stream;
            let mut end = 0;
            for i in 0..columns.n {
                let bad = |why| FormatError::Row { row: rows + i as u64, why };
                let row = columns.row(i, first_lsn).ok_or(bad("unknown kind, or lsn exceeds 64 bits"))?;
                //= SPEC.md#index
                //# I-2
                if row.extent.len == 0 {
                    return Err(bad("no blocks"));
                }
                if row.extent.end() > DISK_BLOCKS_MAX {
                    return Err(bad("reaches beyond the largest disk"));
                }
                if row.lsn > last_lsn {
                    return Err(bad("lsn lies outside of the segment"));
                }
                let key = |row: &Row| (row.disk, row.extent.start, row.lsn);
                //= SPEC.md#index
                //# I-1
                if previous.is_some_and(|before| key(&before) >= key(&row)) {
                    return Err(bad("out of (disk, block, lsn) order"));
                }
                // Complete for a base segment, whose rows all have one LSN; `check_dense` does the rest for the log.
                let shares = |before: Row| before.lsn == row.lsn && before.disk == row.disk;
                //= SPEC.md#index
                //# I-3
                if previous.is_some_and(|before| shares(before) && before.extent.overlaps(row.extent)) {
                    return Err(bad("shares a block with its own write"));
                }
                previous = Some(row);
                end = end.max(row.extent.end());
                if row.kind == RowKind::Data {
                    stream = stream.checked_add(row.extent.len).ok_or(bad("data exceeds 64 bits"))?;
                }
            }
            rows += columns.n as u64;
            chunks.push(Chunk {
                disk: columns.disk,
                offset,
                rows: columns.n as u8,
                start: columns.start[0],
                end,
                stream_block: stream_at_start,
            });
        }
        //= SPEC.md#index
        //# I-4
        if rows != row_count {
            return Err(FormatError::Mismatch {
                what: "index rows and header row_count",
                left: rows,
                right: row_count,
            });
        }
        if stream != stream_blocks {
            let what = "blocks of data rows and header stream_blocks";
            return Err(FormatError::Mismatch { what, left: stream, right: stream_blocks });
        }
        Ok(Self { bytes: section.into(), chunks: chunks.into(), first_lsn, row_count: rows, stream_blocks: stream })
    }

    /// Number of rows.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Length of the plaintext stream in blocks.
    pub fn stream_blocks(&self) -> u64 {
        self.stream_blocks
    }

    /// Bytes held in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.chunks.len() * size_of::<Chunk>()
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = PlacedRow> + '_ {
        self.chunks.iter().flat_map(|chunk| self.unpack(chunk))
    }

    /// Calls `each` for every row of `disk` that shares a block with `extent`, in order.
    pub fn for_each_overlapping(&self, disk: DiskId, extent: Extent, mut each: impl FnMut(PlacedRow)) {
        let from = self.chunks.partition_point(|chunk| chunk.disk < disk);
        let to = self.chunks.partition_point(|chunk| (chunk.disk, chunk.start) < (disk, extent.end()));
        for chunk in self.chunks.get(from..to).unwrap_or_default().iter().filter(|chunk| chunk.end > extent.start) {
            self.unpack(chunk).filter(|placed| placed.row.extent.overlaps(extent)).for_each(&mut each);
        }
    }

    /// Calls `each` for the data that the write `lsn` left in `extent` of `disk`: which blocks, in order, and where they begin in the
    /// plaintext stream, in blocks.
    pub fn for_each_data_of(&self, disk: DiskId, extent: Extent, lsn: Lsn, mut each: impl FnMut(Extent, u64)) {
        self.for_each_overlapping(disk, extent, |placed| {
            let row = placed.row;
            let shared = row.extent.intersection(extent).filter(|_| row.lsn == lsn && row.kind == RowKind::Data);
            if let Some(shared) = shared {
                each(shared, placed.stream_block + (shared.start - row.extent.start));
            }
        });
    }

    fn unpack(&self, chunk: &Chunk) -> impl Iterator<Item = PlacedRow> + use<> {
        let mut cursor = Cursor::new("index", &self.bytes[chunk.offset as usize..]);
        let columns = Columns::take(&mut cursor).expect("the chunk was decoded before");
        let (first_lsn, mut stream_block) = (self.first_lsn, chunk.stream_block);
        (0..usize::from(chunk.rows)).map(move |i| {
            let row = columns.row(i, first_lsn).expect("the row was checked before");
            let placed = PlacedRow { row, stream_block };
            if row.kind == RowKind::Data {
                stream_block += row.extent.len;
            }
            placed
        })
    }
}
