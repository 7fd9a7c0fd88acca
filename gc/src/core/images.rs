//! Which regions get a new image, where an image ends, and which images some offered point still uses.
//!
//! A region is written anew once as many of its rows were merged as its image has: so writing images costs at most what
//! writing those rows did, however large the disk is and wherever it is written. Rows are counted where runs of level 0 are
//! merged, which each of them is once; the counts stand in the root.
//! Not here: reading rows and putting tables ([`crate::images`]).

use std::collections::BTreeMap;
use tidemark_format::{DISK_BLOCKS_MAX, DiskId, Extent, PlacedRow, REGION_BLOCKS, Root, RowKind, TableKind, TableRef};

/// All blocks that a disk may have.
const WHOLE_DISK: Extent = Extent::new(0, DISK_BLOCKS_MAX);

/// A region, its newest image, and what was merged since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) disk: DiskId,
    pub(crate) extent: Extent,
    /// `None` if it never had one.
    pub(crate) image: Option<TableRef>,
    /// Rows of it that were merged behind the image.
    pub(crate) rows_since: u64,
}

/// The regions of a root, in order, counting rows.
#[derive(Debug)]
pub(crate) struct Regions {
    all: Vec<Region>,
    at: usize,
}

impl Regions {
    pub(crate) fn of(root: &Root) -> Self {
        let mut all: Vec<Region> = Vec::new();
        for image in root.tables_of(TableKind::Images).rev() {
            let disk = image.bounds.low.disk;
            // Newer ones come first, and lie within the region of an older one or outside of it.
            if !all.iter().any(|newer| newer.disk == disk && newer.extent.overlaps(image.region)) {
                all.push(Region { disk, extent: image.region, image: Some(*image), rows_since: image.rows_since });
            }
        }
        all.sort_by_key(|region| (region.disk, region.extent.start));
        Self { all, at: 0 }
    }

    /// Counts a row that is merged for the first time. Rows come in order.
    pub(crate) fn count(&mut self, placed: &PlacedRow) {
        let (disk, start) = (placed.row.disk, placed.row.extent.start);
        while self.all.get(self.at).is_some_and(|r| r.disk < disk || (r.disk == disk && r.extent.end() <= start)) {
            self.at += 1;
        }
        if self.all.get(self.at).is_none_or(|region| region.disk != disk) {
            self.all.insert(self.at, Region { disk, extent: WHOLE_DISK, image: None, rows_since: 0 });
        }
        self.all[self.at].rows_since += 1;
    }

    /// The regions that get a new image, and those that do not.
    pub(crate) fn divide(self, rows_min: u64) -> (Vec<Region>, Vec<Region>) {
        let is_due = |region: &Region| match region.image {
            Some(image) => region.rows_since >= image.rows.max(rows_min),
            None => true,
        };
        self.all.into_iter().partition(is_due)
    }
}

/// Cuts the rows of a region's image into tables, each with a region of its own.
#[derive(Debug)]
pub(crate) struct Cutter {
    region: Extent,
    rows_max: u64,
    /// Where the region of the open table begins, and its rows.
    from: u64,
    rows: u64,
    end: u64,
}

/// What to do with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It goes into the open table.
    Push(PlacedRow),
    /// The open table ends, with this region.
    End(Extent),
}

impl Cutter {
    /// Tables end with the first boundary of regions behind their row number `rows_max`.
    pub(crate) fn new(region: Extent, rows_max: u64) -> Self {
        Self { region, rows_max: rows_max.max(1), from: region.start, rows: 0, end: region.start }
    }

    /// Takes in the next row, of which only what lies in the region counts. No two rows share a block.
    pub(crate) fn next(&mut self, placed: PlacedRow) -> Vec<Step> {
        let Some(within) = placed.row.extent.intersection(self.region) else { return Vec::new() };
        let mut left = part(placed, within);
        let mut steps = Vec::new();
        if self.rows >= self.rows_max {
            let extent = left.row.extent;
            // The row may begin in this unit of 16 MiB and reach beyond it.
            let cut = (extent.start / REGION_BLOCKS * REGION_BLOCKS).max(self.end.next_multiple_of(REGION_BLOCKS));
            if extent.start < cut && cut < extent.end() {
                steps.push(Step::Push(part(left, Extent::new(extent.start, cut - extent.start))));
                left = part(left, Extent::new(cut, extent.end() - cut));
            }
            if left.row.extent.start >= cut {
                steps.push(Step::End(Extent::new(self.from, cut - self.from)));
                (self.from, self.rows) = (cut, 0);
            }
        }
        steps.push(Step::Push(left));
        self.rows += 1;
        self.end = left.row.extent.end();
        steps
    }

    /// The region of the last table, behind the last row.
    pub(crate) fn rest(&self) -> Extent {
        Extent::new(self.from, self.region.end() - self.from)
    }
}

/// A part of a row, with the place of its own bytes.
fn part(placed: PlacedRow, extent: Extent) -> PlacedRow {
    let mut part = placed;
    part.row.extent = extent;
    if placed.row.kind == RowKind::Data {
        part.stream_block += extent.start - placed.row.extent.start;
    }
    part
}

/// Drops the images of a root, whose tables are sorted, that no reader of an offered point goes by. The newest one of a block
/// stays.
pub(crate) fn drop_unused(root: &mut Root) {
    let offers = root.offers();
    let mut by_disk: BTreeMap<DiskId, Vec<TableRef>> = BTreeMap::new();
    for image in root.tables_of(TableKind::Images) {
        by_disk.entry(image.bounds.low.disk).or_default().push(*image);
    }
    let is_used = |image: &TableRef| {
        let point = offers.first_from(image.last_lsn);
        let all = by_disk.get(&image.bounds.low.disk).into_iter().flatten();
        !covered(image.region, all.filter(|other| image.last_lsn < other.last_lsn && other.last_lsn <= point))
    };
    root.tables.retain(|table| table.kind != TableKind::Images || is_used(table));
}

/// True if `by` hold every block of `region` together.
fn covered<'a>(region: Extent, by: impl Iterator<Item = &'a TableRef>) -> bool {
    let mut parts: Vec<Extent> = by.filter_map(|table| table.region.intersection(region)).collect();
    parts.sort_unstable();
    let mut end = region.start;
    for part in parts {
        if part.start > end {
            return false;
        }
        end = end.max(part.end());
    }
    end >= region.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tidemark_format::{
        DomainId, Epoch, EpochStart, Lsn, Mark, Retained, Row, RowBounds, RowStart, Seq, Through, TimeNs,
    };

    const UNIT: u64 = REGION_BLOCKS;

    fn row(disk: u32, start: u64, len: u64) -> PlacedRow {
        let (disk, extent, lsn) = (DiskId::new(disk), Extent::new(start, len), Lsn::new(7));
        PlacedRow { row: Row { disk, extent, lsn, kind: RowKind::Data }, stream_block: start }
    }

    /// The image of units `from..to` of a disk as of `at`.
    fn image(disk: u32, (from, to): (u64, u64), at: u64, rows: u64) -> TableRef {
        let disk = DiskId::new(disk);
        let (low, high) = (RowStart { disk, block: from * UNIT }, RowStart { disk, block: from * UNIT });
        TableRef {
            kind: TableKind::Images,
            level: 0,
            epoch: Epoch::new(1),
            seq: Seq::new(at * 100 + from),
            first_lsn: Lsn::new(at),
            last_lsn: Lsn::new(at),
            rows,
            len: 1000,
            footer_len: 100,
            footer_hash: [0; 32],
            bounds: RowBounds { low, high, end: from * UNIT + 1 },
            region: Extent::new(from * UNIT, (to - from) * UNIT),
            rows_since: 0,
            first_time: TimeNs::default(),
        }
    }

    fn root(images: &[TableRef], retained: Option<Retained>) -> Root {
        let mark = (Lsn::new(1000), TimeNs::new(1000));
        let through =
            Through { epoch: Epoch::new(1), seq: Seq::new(1), header_hash: [0; 32], lsn: mark.0, time: mark.1 };
        let mut root = Root {
            domain: DomainId::new([1; 16]),
            epoch: Epoch::new(1),
            seq: Seq::new(1),
            through,
            first_time: TimeNs::new(1),
            epochs: vec![EpochStart { epoch: Epoch::new(1), first_lsn: Lsn::new(1) }],
            tables: images.to_vec(),
            retained,
        };
        root.sort_tables();
        root
    }

    fn offers(horizon: u64, kept: &[u64]) -> Option<Retained> {
        let mark = |lsn: u64| Mark { lsn: Lsn::new(lsn), time: TimeNs::new(lsn) };
        Some(Retained { horizon: mark(horizon), kept: kept.iter().copied().map(mark).collect() })
    }

    #[test]
    fn a_region_is_written_anew_when_as_much_was_merged_as_it_has() {
        let old = image(1, (0, 9), 10, 3);
        let images = [old, image(1, (0, 2), 20, 3), image(1, (2, 9), 20, 1), image(2, (0, 9), 10, 100)];
        let mut regions = Regions::of(&root(&images, None));
        let rows = [
            row(1, 5, 1),
            row(1, 2 * UNIT - 1, 9),
            row(1, 2 * UNIT, 1),
            row(1, 3 * UNIT, 1),
            row(2, 0, 1),
            row(3, 0, 1),
        ];
        rows.iter().for_each(|row| regions.count(row));
        let (due, waiting) = regions.divide(2);
        let of = |regions: &[Region]| -> Vec<(u32, u64, u64)> {
            regions.iter().map(|r| (r.disk.get(), r.extent.start / UNIT, r.rows_since)).collect()
        };
        assert_eq!(of(&due), [(1, 2, 2), (3, 0, 1)], "one that has reached its size, and a disk that had none");
        assert_eq!(of(&waiting), [(1, 0, 2), (2, 0, 1)]);
        assert!(due[1].image.is_none() && due[0].image == Some(images[2]), "{due:?}");
    }

    #[test]
    fn an_image_stays_as_long_as_an_offered_point_goes_by_it() {
        let (whole, left, right) = (image(1, (0, 9), 10, 1), image(1, (0, 4), 20, 1), image(1, (4, 9), 30, 1));
        let other = image(2, (0, 9), 5, 1);
        let kept = |retained| {
            let mut root = root(&[whole, left, right, other], retained);
            drop_unused(&mut root);
            root.tables.iter().map(|table| table.last_lsn.get()).collect::<Vec<_>>()
        };
        assert_eq!(kept(None), [5, 10, 20, 30], "all points are offered");
        assert_eq!(kept(offers(30, &[])), [5, 20, 30]);
        assert_eq!(kept(offers(29, &[])), [5, 10, 20, 30], "nothing newer speaks for all of its region at 29");
        assert_eq!(kept(offers(40, &[15])), [5, 10, 20, 30]);
        assert_eq!(kept(offers(40, &[9])), [5, 20, 30], "a point before it");
    }

    proptest! {
        #[test]
        fn prop_tables_of_an_image_split_its_region_and_hold_its_rows(
            gaps in vec((0..UNIT * 2, 1..UNIT * 2), 1..40),
            rows_max in 1u64..6,
            (from, units) in (0u64..4, 1u64..60),
        ) {
            let region = Extent::new(from * UNIT, units * UNIT);
            let mut at = 0;
            let rows: Vec<PlacedRow> = gaps.iter().map(|(gap, len)| {
                let start = at + gap;
                at = start + len;
                row(1, start, *len)
            }).collect();
            let mut cutter = Cutter::new(region, rows_max);
            let (mut tables, mut open) = (Vec::new(), Vec::new());
            for step in rows.iter().flat_map(|row| cutter.next(*row)) {
                match step {
                    Step::Push(row) => open.push(row),
                    Step::End(region) => tables.push((region, std::mem::take(&mut open))),
                }
            }
            tables.push((cutter.rest(), open));
            let mut start = region.start;
            for (number, (part, rows)) in tables.iter().enumerate() {
                prop_assert!(part.start == start && part.len > 0 && part.start.is_multiple_of(UNIT));
                prop_assert!(rows.iter().all(|row| row.row.extent.intersection(*part) == Some(row.row.extent)));
                prop_assert!(rows.len() as u64 >= rows_max || number + 1 == tables.len());
                // Behind the last row that fits, only the rest of its unit may come.
                let full = rows.get(rows_max as usize - 1).map(|row| row.row.extent.end().next_multiple_of(UNIT));
                prop_assert!(full.is_none_or(|full| rows.iter().all(|row| row.row.extent.end() <= full + 2 * UNIT)));
                start = part.end();
            }
            prop_assert_eq!(start, region.end());
            let blocks = |rows: &mut dyn Iterator<Item = PlacedRow>| -> Vec<(u64, u64)> {
                let mut all: Vec<(u64, u64)> = Vec::new();
                for row in rows {
                    let Some(within) = row.row.extent.intersection(region) else { continue };
                    assert_eq!(row.stream_block, row.row.extent.start, "the place of its own bytes");
                    match all.last_mut() {
                        Some((_, end)) if *end == within.start => *end = within.end(),
                        _ => all.push((within.start, within.end())),
                    }
                }
                all
            };
            let held = blocks(&mut tables.iter().flat_map(|(_, rows)| rows.iter().copied()));
            prop_assert_eq!(held, blocks(&mut rows.iter().copied()));
        }
    }
}
