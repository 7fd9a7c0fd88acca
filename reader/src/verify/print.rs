//! Fingerprints of sets of rows. They depend neither on the order of the rows nor on how rows are cut, so what a table holds of a
//! segment can be compared with the segment itself without both at hand.

use std::hash::{DefaultHasher, Hash, Hasher};
use tidemark_format::{DiskId, Lsn, PlacedRow, RowKind, SegmentKind};

/// What all blocks of a row have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Version {
    pub(super) disk: DiskId,
    pub(super) lsn: Lsn,
    kind: RowKind,
    /// How far the place of its bytes lies behind that of its blocks.
    shift: u64,
}

impl Version {
    /// That of a row which a segment of such a kind holds.
    pub(super) fn of(placed: &PlacedRow, kind: SegmentKind) -> Self {
        let row = placed.row;
        //= SPEC.md#compact-segments
        //# CS-3
        let has_place = row.kind == RowKind::Data && kind == SegmentKind::Log;
        let shift = if has_place { placed.stream_block.wrapping_sub(row.extent.start) } else { 0 };
        Self { disk: row.disk, lsn: row.lsn, kind: row.kind, shift }
    }
}

/// The fingerprint of rows. A row counts as its end less its start, so what two pieces of it share is gone from the sum. Sets that
/// differ have the same one with a chance of 2^-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Print(u64);

impl Print {
    /// Takes in a row.
    pub(super) fn add(&mut self, placed: &PlacedRow, kind: SegmentKind) {
        let version = Version::of(placed, kind);
        let edge = |block: u64| {
            let mut hasher = DefaultHasher::new();
            (version, block).hash(&mut hasher);
            hasher.finish()
        };
        let extent = placed.row.extent;
        self.0 = self.0.wrapping_add(edge(extent.end())).wrapping_sub(edge(extent.start));
    }

    /// Takes in all rows of another set.
    pub(super) fn join(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tidemark_format::{Extent, Row};

    fn placed(start: u64, len: u64, lsn: u64, kind: RowKind) -> PlacedRow {
        let row = Row { disk: DiskId::new(1), extent: Extent::new(start, len), lsn: Lsn::new(lsn), kind };
        PlacedRow { row, stream_block: if kind == RowKind::Data { start + 7 } else { 0 } }
    }

    fn print(rows: &[PlacedRow]) -> Print {
        let mut print = Print::default();
        rows.iter().for_each(|row| print.add(row, SegmentKind::Log));
        print
    }

    proptest! {
        #[test]
        fn prop_cuts_and_order_do_not_matter_and_everything_else_does(
            rows in vec((0u64..1000, 2u64..50, any::<bool>()), 1..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let kind = |zero| if zero { RowKind::Zero } else { RowKind::Data };
            let rows = (1..).zip(&rows).map(|(lsn, (start, len, zero))| placed(*start, *len, lsn, kind(*zero)));
            let rows: Vec<PlacedRow> = rows.collect();
            let whole = print(&rows);
            let at = cut.index(rows.len());
            let one = rows[at];
            let (start, len, lsn, kind) = (one.row.extent.start, one.row.extent.len, one.row.lsn.get(), one.row.kind);
            let mut others = rows.clone();
            others.swap_remove(at);
            let with = |pieces: &[PlacedRow]| { print(&[pieces, &others].concat()) };
            let pieces = [placed(start + 1, len - 1, lsn, kind), placed(start, 1, lsn, kind)];
            prop_assert_eq!(with(&pieces), whole);
            let mut moved = one;
            moved.stream_block += 1;
            let other_kind = if kind == RowKind::Zero { RowKind::Unmap } else { RowKind::Zero };
            for wrong in [
                vec![],
                vec![one, one],
                vec![placed(start, len - 1, lsn, kind)],
                vec![placed(start + 1, len, lsn, kind)],
                vec![placed(start, len, lsn + 100, kind)],
                vec![placed(start, len, lsn, other_kind)],
            ] {
                prop_assert_ne!(with(&wrong), whole, "{:?}", wrong);
            }
            // Where the bytes are counts for data of log segments alone.
            prop_assert_eq!(with(&[moved]) == whole, kind != RowKind::Data);
        }
    }
}
