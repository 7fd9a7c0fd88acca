//! The indexed part of the history, read lazily: which segment holds an LSN or a time, and all versions of some blocks.
//!
//! A root names the tables; bounds in the root and in the footers say which row groups can matter, and only those are read.
//! So what a question costs depends on how many runs there are, not on how long the history is.
//! Not here: finding the root (`tidemark-history`), and what versions mean ([`crate::maps`]).

use crate::error::Result;
use crate::timeline::Timeline;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::ops::Deref;
use std::sync::Arc;
use tidemark_format::{DiskId, EventRow, Extent, Genesis, Lsn, PlacedRow, Root, SegmentRow, TableKind, TableRef};
use tidemark_history::{Log, Tables};

/// Row groups and footers that one question reads at a time.
const PARTS_AT_A_TIME: usize = 32;

/// An index as a root describes it.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) root: Arc<Root>,
    pub(crate) tables: Arc<Tables>,
}

/// Blocks of a disk, and LSNs behind the one, up to the other.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    extent: Extent,
    from: Lsn,
    to: Lsn,
}

/// A segment that the index knows.
#[derive(Clone, Debug)]
pub(crate) struct Indexed {
    group: Arc<Vec<SegmentRow>>,
    at: usize,
}

impl Deref for Indexed {
    type Target = SegmentRow;

    fn deref(&self) -> &SegmentRow {
        &self.group[self.at]
    }
}

impl Index {
    /// The timeline of the index with its events and of the log behind it.
    pub(crate) fn timeline(self, genesis: &Arc<Genesis>, events: &[EventRow], log: Log) -> Result<Timeline> {
        let retained = self.root.retained.clone();
        Timeline::build(Arc::clone(genesis), Some(self), retained, events, log)
    }

    fn segment_tables(&self) -> Vec<&TableRef> {
        self.root.tables_of(TableKind::Segments).collect()
    }

    /// The segment that holds `lsn`, which the index must cover.
    pub(crate) async fn segment_of(&self, lsn: Lsn) -> Result<Indexed> {
        let tables = self.segment_tables();
        let table = tables[tables.partition_point(|table| table.last_lsn < lsn)];
        let footer = self.tables.footer(table).await?;
        let groups = footer.groups();
        let number = groups.partition_point(|group| group.lsns(TableKind::Segments).1 < lsn).min(groups.len() - 1);
        let group = self.tables.segments(table, number).await?;
        let at = group.partition_point(|segment| segment.last_lsn < lsn).min(group.len() - 1);
        Ok(Indexed { group, at })
    }

    /// Shows every segment that holds an LSN of `from..=to`, in order.
    pub(crate) async fn for_each_segment(&self, from: Lsn, to: Lsn, each: impl FnMut(&SegmentRow)) -> Result<()> {
        Ok(self.tables.for_each_segment(&self.root, from..=to, each).await?)
    }

    /// Every event that a timeline is made of, oldest first.
    pub(crate) async fn events(&self) -> Result<Vec<EventRow>> {
        let tables: Vec<TableRef> = self.root.tables_of(TableKind::Events).copied().collect();
        let parts = stream::iter(tables).map(|table| {
            let tables = Arc::clone(&self.tables);
            async move { tables.events(&table).await }
        });
        let parts: Vec<Vec<EventRow>> = parts.buffered(PARTS_AT_A_TIME).try_collect().await?;
        Ok(parts.concat())
    }

    /// Row groups that may hold versions of blocks of `extent` with `from < lsn <= to`. The caller looks at each row.
    pub(crate) async fn groups(
        &self,
        disk: DiskId,
        extent: Extent,
        from: Lsn,
        to: Lsn,
    ) -> Result<Vec<Arc<Vec<PlacedRow>>>> {
        let wanted = Wanted { extent, from, to };
        self.load(disk, self.runs(disk, wanted).map(|table| (*table, wanted)).collect()).await
    }

    /// Row groups that may hold the newest versions of blocks of `extent` at `at`. The caller looks at each row.
    pub(crate) async fn newest(&self, disk: DiskId, extent: Extent, at: Lsn) -> Result<Vec<Arc<Vec<PlacedRow>>>> {
        let mut tables = Vec::new();
        for (extent, image) in images_at(&self.root, disk, extent, at) {
            //= SPEC.md#images
            //# IX-9
            let from = image.map_or(Lsn::ZERO, |image| image.last_lsn);
            let wanted = Wanted { extent, from, to: at };
            let image = image.filter(|image| image.bounds.may_hold(disk, extent));
            tables.extend(image.map(|image| (*image, Wanted { from: Lsn::ZERO, ..wanted })));
            tables.extend(self.runs(disk, wanted).map(|table| (*table, wanted)));
        }
        self.load(disk, tables).await
    }

    /// Tables of runs that may hold what is wanted.
    fn runs(&self, disk: DiskId, Wanted { extent, from, to }: Wanted) -> impl Iterator<Item = &TableRef> {
        self.root
            .tables_of(TableKind::Rows)
            .filter(move |table| table.last_lsn > from && table.first_lsn <= to && table.bounds.may_hold(disk, extent))
    }

    async fn load(&self, disk: DiskId, tables: Vec<(TableRef, Wanted)>) -> Result<Vec<Arc<Vec<PlacedRow>>>> {
        let parts = stream::iter(tables).map(|(table, Wanted { extent, from, to })| {
            let tables = Arc::clone(&self.tables);
            async move {
                let footer = tables.footer(&table).await?;
                let groups = footer.groups().iter().enumerate();
                let numbers = groups.filter(|(_, group)| {
                    let (first, last) = group.lsns(TableKind::Rows);
                    group.may_hold(disk, extent) && last > from && first <= to
                });
                let numbers: Vec<usize> = numbers.map(|(number, _)| number).collect();
                let parts = stream::iter(numbers).map(|number| tables.rows(&table, number));
                parts.buffered(PARTS_AT_A_TIME).try_collect::<Vec<_>>().await
            }
        });
        let parts: Vec<Vec<_>> = parts.buffered(PARTS_AT_A_TIME).try_collect().await?;
        Ok(parts.concat())
    }
}

/// The parts of `extent`, in order, each with the newest image up to `at` that speaks for all of it, if there is one.
fn images_at(root: &Root, disk: DiskId, extent: Extent, at: Lsn) -> Vec<(Extent, Option<&TableRef>)> {
    let speaks =
        |image: &&TableRef| image.last_lsn <= at && image.bounds.low.disk == disk && image.region.overlaps(extent);
    let images: Vec<&TableRef> = root.tables_of(TableKind::Images).filter(speaks).collect();
    let mut ends: Vec<u64> = images.iter().flat_map(|image| [image.region.start, image.region.end()]).collect();
    ends.retain(|end| extent.start < *end && *end < extent.end());
    ends.push(extent.end());
    ends.sort_unstable();
    ends.dedup();
    let mut start = extent.start;
    let part = |end| {
        let part = Extent::new(start, end - start);
        start = end;
        // Oldest first: the last one is the newest.
        (part, images.iter().rev().copied().find(|image| image.region.overlaps(part)))
    };
    ends.into_iter().map(part).collect()
}

/// Rows of `group` that share a block with `extent` of `disk` and have `from < lsn <= to`, in order.
pub(crate) fn rows_in(
    group: &[PlacedRow],
    disk: DiskId,
    extent: Extent,
    from: Lsn,
    to: Lsn,
) -> impl Iterator<Item = &PlacedRow> {
    let start = group.partition_point(|placed| placed.row.disk < disk);
    let end = group.partition_point(|placed| (placed.row.disk, placed.row.extent.start) < (disk, extent.end()));
    let rows = group.get(start..end).unwrap_or_default().iter();
    rows.filter(move |placed| placed.row.extent.overlaps(extent) && placed.row.lsn > from && placed.row.lsn <= to)
}
