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
        let wanted =
            |table: &&TableRef| table.last_lsn > from && table.first_lsn <= to && table.bounds.may_hold(disk, extent);
        let tables: Vec<TableRef> = self.root.tables_of(TableKind::Rows).filter(wanted).copied().collect();
        let parts = stream::iter(tables).map(|table| {
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
