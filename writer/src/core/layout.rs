//! Turns the writes of one segment into sorted rows and the frames that hold their bytes.
//!
//! Invariants: rows ascend by (disk, start, lsn); each write's blocks are covered exactly once; the plaintext stream is
//! the bytes of the Data rows in row order, cut into frames of at most 64 KiB, at row edges where a row fits one frame.
//! Nothing is copied: frames name slices of the writes.

use bytes::Bytes;
use std::ops::Range;
use tidemark_format::{BLOCK_BYTES, DiskId, Extent, FRAME_PLAIN_BYTES_MAX, Lsn, Row, RowKind};

/// Zeros are recognised in aligned runs of this many blocks: 4 KiB, the page of every guest.
const ZERO_RUN_BLOCKS: u64 = 8;
const FRAME: usize = FRAME_PLAIN_BYTES_MAX as usize;
const BLOCK: usize = BLOCK_BYTES as usize;

/// One write as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) lsn: Lsn,
    pub(crate) disk: DiskId,
    pub(crate) extent: Extent,
    pub(crate) body: Body,
}

/// What a write says.
#[derive(Clone, Debug)]
pub enum Body {
    /// The bytes of `extent`.
    Data(Bytes),
    /// Zeros, written as such.
    Zero,
    /// Discarded.
    Unmap,
}

/// A segment's rows and the plan of its frames.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    pub(crate) rows: Vec<Row>,
    /// The plaintext stream, in order, as slices of the writes; no slice crosses a frame.
    pub(crate) slices: Vec<Slice>,
    /// For each frame, its slices.
    pub(crate) frames: Vec<Range<usize>>,
}

/// A run of bytes of one write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    /// Index of the write.
    pub(crate) entry: u32,
    /// First byte in it.
    pub(crate) offset: u32,
    /// Number of bytes.
    pub(crate) len: u32,
}

/// A row and where its bytes are.
struct Sourced {
    row: Row,
    entry: u32,
    offset: u32,
}

/// Lays out the writes of one segment.
pub(crate) fn lay_out(entries: &[Entry]) -> Layout {
    let mut sourced = Vec::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        let row = |extent, kind| Row { disk: entry.disk, extent, lsn: entry.lsn, kind };
        match &entry.body {
            Body::Zero => sourced.push(Sourced { row: row(entry.extent, RowKind::Zero), entry: 0, offset: 0 }),
            Body::Unmap => sourced.push(Sourced { row: row(entry.extent, RowKind::Unmap), entry: 0, offset: 0 }),
            Body::Data(data) => split_at_zeros(entry.extent, data, |extent, kind| {
                let offset = (extent.start - entry.extent.start) * BLOCK_BYTES;
                sourced.push(Sourced { row: row(extent, kind), entry: i as u32, offset: offset as u32 });
            }),
        }
    }
    sourced.sort_unstable_by_key(|s| (s.row.disk, s.row.extent.start, s.row.lsn));
    frame(sourced)
}

/// Cuts one write into Data rows and Zero rows, ascending. A write of nothing but zeros is one Zero row; within a write,
/// zeros count from one aligned 4 KiB page on.
fn split_at_zeros(extent: Extent, data: &Bytes, mut put: impl FnMut(Extent, RowKind)) {
    debug_assert_eq!(data.len() as u64, extent.byte_len());
    if is_zero(data) {
        return put(extent, RowKind::Zero);
    }
    let mut run = Extent::new(extent.start, 0);
    let mut run_kind = RowKind::Data;
    let mut at = extent.start;
    while at < extent.end() {
        let page_end = ((at / ZERO_RUN_BLOCKS + 1) * ZERO_RUN_BLOCKS).min(extent.end());
        let bytes = (at - extent.start) as usize * BLOCK..(page_end - extent.start) as usize * BLOCK;
        let zero = page_end - at == ZERO_RUN_BLOCKS && is_zero(&data[bytes]);
        let kind = if zero { RowKind::Zero } else { RowKind::Data };
        if kind != run_kind {
            if run.len > 0 {
                put(run, run_kind);
            }
            run = Extent::new(at, 0);
            run_kind = kind;
        }
        run.len += page_end - at;
        at = page_end;
    }
    put(run, run_kind);
}

/// True if all bytes are zero. Looks at 64 bytes at a time, and most data fails at the first.
fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Fills frames with the data of sorted rows.
fn frame(sourced: Vec<Sourced>) -> Layout {
    let mut layout = Layout { rows: Vec::with_capacity(sourced.len()), slices: Vec::new(), frames: Vec::new() };
    let (mut first, mut filled) = (0, 0);
    for Sourced { row, entry, mut offset } in sourced {
        layout.rows.push(row);
        if row.kind != RowKind::Data {
            continue;
        }
        let mut left = row.extent.byte_len() as usize;
        if filled > 0 && filled + left > FRAME && left <= FRAME {
            layout.frames.push(first..layout.slices.len());
            (first, filled) = (layout.slices.len(), 0);
        }
        while left > 0 {
            let len = left.min(FRAME - filled);
            layout.slices.push(Slice { entry, offset, len: len as u32 });
            offset += len as u32;
            left -= len;
            filled += len;
            if filled == FRAME {
                layout.frames.push(first..layout.slices.len());
                (first, filled) = (layout.slices.len(), 0);
            }
        }
    }
    if filled > 0 {
        layout.frames.push(first..layout.slices.len());
    }
    layout
}

impl Slice {
    /// Its bytes.
    pub(crate) fn of<'a>(&self, entries: &'a [Entry]) -> &'a [u8] {
        match &entries[self.entry as usize].body {
            Body::Data(data) => &data[self.offset as usize..(self.offset + self.len) as usize],
            Body::Zero | Body::Unmap => unreachable!("only data is sliced"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(lsn: u64, disk: u32, start: u64, data: Vec<u8>) -> Entry {
        let extent = Extent::new(start, data.len() as u64 / BLOCK_BYTES);
        Entry { lsn: Lsn::new(lsn), disk: DiskId::new(disk), extent, body: Body::Data(data.into()) }
    }

    fn kinds(layout: &Layout) -> Vec<(u64, u64, RowKind)> {
        layout.rows.iter().map(|row| (row.extent.start, row.extent.len, row.kind)).collect()
    }

    #[test]
    fn aligned_pages_of_zeros_become_zero_rows_of_the_same_write() {
        let mut data = vec![1; 24 * BLOCK];
        data[8 * BLOCK..16 * BLOCK].fill(0);
        let layout = lay_out(&[entry(1, 1, 16, data)]);
        let want = [(16, 8, RowKind::Data), (24, 8, RowKind::Zero), (32, 8, RowKind::Data)];
        assert_eq!(kinds(&layout), want);
    }

    #[test]
    fn zeros_that_fill_no_aligned_page_stay_data() {
        let mut data = vec![1; 16 * BLOCK];
        data[4 * BLOCK..12 * BLOCK].fill(0);
        assert_eq!(kinds(&lay_out(&[entry(1, 1, 0, data)])), [(0, 16, RowKind::Data)]);
    }

    #[test]
    fn a_write_of_zeros_alone_is_one_zero_row_however_it_lies() {
        assert_eq!(kinds(&lay_out(&[entry(1, 1, 3, vec![0; 2 * BLOCK])])), [(3, 2, RowKind::Zero)]);
        assert_eq!(kinds(&lay_out(&[entry(1, 1, 3, vec![0; 9 * BLOCK])])), [(3, 9, RowKind::Zero)]);
        assert_eq!(kinds(&lay_out(&[entry(1, 1, 3, vec![0; 21 * BLOCK])])), [(3, 21, RowKind::Zero)]);
    }

    #[test]
    fn a_row_that_fits_a_frame_is_not_cut() {
        let rows = [entry(1, 1, 0, vec![1; 40 * BLOCK]), entry(2, 1, 50, vec![2; 100 * BLOCK])];
        let layout = lay_out(&rows);
        assert_eq!(layout.frames, [0..1, 1..2]);
    }

    fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
        let one = (1..4u32, 0..300u64, 1..200u64, any::<u8>(), 0..4u8);
        proptest::collection::vec(one, 0..40).prop_map(|draws| {
            let make = |(i, (disk, start, blocks, byte, kind)): (usize, (u32, u64, u64, u8, u8))| {
                let mut data: Vec<u8> = (0..blocks).flat_map(|b| [byte.wrapping_add(b as u8); BLOCK]).collect();
                if kind == 0 {
                    data[..blocks as usize / 2 * BLOCK].fill(0);
                }
                let extent = Extent::new(start, blocks);
                let body = match kind {
                    1 => Body::Zero,
                    2 => Body::Unmap,
                    _ => Body::Data(data.into()),
                };
                Entry { lsn: Lsn::new(i as u64 + 1), disk: DiskId::new(disk), extent, body }
            };
            draws.into_iter().enumerate().map(make).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn prop_rows_are_sorted_and_frames_hold_exactly_the_bytes_of_the_rows(entries in any_entries()) {
            let layout = lay_out(&entries);
            let key = |row: &Row| (row.disk, row.extent.start, row.lsn);
            prop_assert!(layout.rows.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])));
            let mut stream = Vec::new();
            let mut next = 0;
            for frame in &layout.frames {
                prop_assert_eq!(frame.start, next);
                next = frame.end;
                let len: usize = layout.slices[frame.clone()].iter().map(|s| s.len as usize).sum();
                prop_assert!((1..=FRAME).contains(&len) && len.is_multiple_of(BLOCK));
                for slice in &layout.slices[frame.clone()] {
                    stream.extend_from_slice(slice.of(&entries));
                }
            }
            prop_assert_eq!(next, layout.slices.len());
            let mut at = 0;
            let mut covered: Vec<u64> = vec![0; entries.len()];
            for row in &layout.rows {
                let entry = &entries[row.lsn.get() as usize - 1];
                prop_assert_eq!(row.disk, entry.disk);
                prop_assert_eq!(row.extent.intersection(entry.extent), Some(row.extent));
                covered[row.lsn.get() as usize - 1] += row.extent.len;
                let from = ((row.extent.start - entry.extent.start) * BLOCK_BYTES) as usize;
                let len = row.extent.byte_len() as usize;
                match (&entry.body, row.kind) {
                    (Body::Data(data), RowKind::Data) => {
                        prop_assert_eq!(&stream[at..at + len], &data[from..from + len]);
                        at += len;
                    }
                    (Body::Data(data), RowKind::Zero) => prop_assert!(data[from..from + len].iter().all(|b| *b == 0)),
                    (Body::Zero, RowKind::Zero) | (Body::Unmap, RowKind::Unmap) => {}
                    (body, kind) => prop_assert!(false, "{body:?} became {kind:?}"),
                }
            }
            prop_assert_eq!(at, stream.len());
            for (blocks, entry) in covered.iter().zip(&entries) {
                prop_assert_eq!(*blocks, entry.extent.len);
            }
        }
    }
}
