//! Puts rows of several sources, each in order, into one order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tidemark_format::{DiskId, Lsn, PlacedRow};

/// Order of a table of rows. No two rows of a history are alike in it.
type Place = (DiskId, u64, Lsn);

/// The next row of each source. Memory: one row a source.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    heap: BinaryHeap<Reverse<Entry>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    place: Place,
    source: usize,
    row: PlacedRow,
}

impl Merge {
    /// Takes in the next row of a source, which must not come before its last one.
    pub(crate) fn offer(&mut self, source: usize, row: PlacedRow) {
        let place = (row.row.disk, row.row.extent.start, row.row.lsn);
        self.heap.push(Reverse(Entry { place, source, row }));
    }

    /// The first row of all, and the source whose next row has to be offered now.
    pub(crate) fn pop(&mut self) -> Option<(PlacedRow, usize)> {
        self.heap.pop().map(|Reverse(entry)| (entry.row, entry.source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemark_format::{Extent, Row, RowKind};

    fn row((disk, start, lsn): (u32, u64, u64)) -> PlacedRow {
        let (disk, extent, lsn) = (DiskId::new(disk), Extent::new(start, 1), Lsn::new(lsn));
        PlacedRow { row: Row { disk, extent, lsn, kind: RowKind::Zero }, stream_block: 0 }
    }

    proptest! {
        #[test]
        fn prop_merged_sources_come_in_order_and_whole(
            sources in proptest::collection::vec(
                proptest::collection::btree_set((0u32..3, 0u64..20, 1u64..50), 0..20), 0..6)
        ) {
            let mut all: Vec<_> = sources.iter().flatten().map(|place| row(*place)).collect();
            all.sort_by_key(|placed| (placed.row.disk, placed.row.extent.start, placed.row.lsn));
            let mut left: Vec<_> = sources.into_iter().map(|source| source.into_iter()).collect();
            let mut merge = Merge::default();
            for (number, source) in left.iter_mut().enumerate() {
                source.next().into_iter().for_each(|place| merge.offer(number, row(place)));
            }
            let mut merged = Vec::new();
            while let Some((placed, source)) = merge.pop() {
                merged.push(placed);
                left[source].next().into_iter().for_each(|place| merge.offer(source, row(place)));
            }
            prop_assert_eq!(merged, all);
        }
    }
}
