//! Rows of an index in order: of a segment at hand, or of the tables of a run, a row group at a time; and of several of these.

use crate::error::Result;
use crate::log::Segment;
use crate::tables::Tables;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use tidemark_format::{DiskId, Extent, Lsn, PlacedRow, RowStart, TableFooter, TableKind, TableRef};

/// Order of a table of rows. No two rows of a history are alike in it.
pub type Place = (RowStart, Lsn);

/// The place of a row.
pub fn place_of(placed: &PlacedRow) -> Place {
    (RowStart { disk: placed.row.disk, block: placed.row.extent.start }, placed.row.lsn)
}

/// Which rows of tables are wanted. Others may come, too, if they lie outside of the blocks.
#[derive(Clone, Copy, Debug)]
pub struct Only {
    /// The disk.
    pub disk: DiskId,
    /// Its blocks.
    pub extent: Extent,
    /// LSNs behind this one.
    pub behind: Lsn,
    /// LSNs up to this one.
    pub through: Lsn,
}

/// Rows in the order of a table. Memory: of tables, one footer and one row group.
pub struct Rows<'a>(Source<'a>);

enum Source<'a> {
    Segment(Box<dyn Iterator<Item = PlacedRow> + Send + 'a>),
    Tables {
        tables: &'a Tables,
        left: VecDeque<TableRef>,
        open: Option<Box<Open>>,
        rows: std::vec::IntoIter<PlacedRow>,
        only: Option<Only>,
    },
}

/// A table that is being read.
struct Open {
    table: TableRef,
    footer: TableFooter,
    next: usize,
}

impl<'a> Rows<'a> {
    /// The rows of a segment.
    pub fn segment(segment: &'a Segment) -> Self {
        Self(Source::Segment(Box::new(segment.head.index.iter())))
    }

    /// The rows of the tables of one run, or of one image, which are given in the order of their rows.
    pub fn tables(tables: &'a Tables, of: impl IntoIterator<Item = TableRef>) -> Self {
        Self::from_tables(tables, of.into_iter().collect(), None)
    }

    /// Some of these rows.
    pub fn part(tables: &'a Tables, of: impl IntoIterator<Item = TableRef>, only: Only) -> Self {
        let left = of.into_iter().filter(|table| table.bounds.may_hold(only.disk, only.extent)).collect();
        Self::from_tables(tables, left, Some(only))
    }

    fn from_tables(tables: &'a Tables, left: VecDeque<TableRef>, only: Option<Only>) -> Self {
        Self(Source::Tables { tables, left, open: None, rows: Vec::new().into_iter(), only })
    }

    /// The next row.
    ///
    /// # Errors
    /// `Missing`, `Format`; store errors.
    pub async fn next(&mut self) -> Result<Option<PlacedRow>> {
        let (tables, left, open, rows, only) = match &mut self.0 {
            Source::Segment(rows) => return Ok(rows.next()),
            Source::Tables { tables, left, open, rows, only } => (tables, left, open, rows, only),
        };
        let is_wanted = |lsn: Lsn| only.is_none_or(|only| only.behind < lsn && lsn <= only.through);
        loop {
            if let Some(row) = rows.find(|placed| is_wanted(placed.row.lsn)) {
                return Ok(Some(row));
            }
            match open {
                Some(table) if table.next < table.footer.groups().len() => {
                    let group = &table.footer.groups()[table.next];
                    let (first, last) = group.lsns(TableKind::Rows);
                    if only.is_none_or(|only| {
                        group.may_hold(only.disk, only.extent) && only.behind < last && first <= only.through
                    }) {
                        *rows = tables.load::<PlacedRow>(&table.table, &table.footer, table.next).await?.into_iter();
                    }
                    table.next += 1;
                }
                _ => {
                    let Some(table) = left.pop_front() else { return Ok(None) };
                    *open = Some(Box::new(Open { table, footer: tables.load_footer(&table).await?, next: 0 }));
                }
            }
        }
    }
}

impl fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Segment(_) => "Rows(of a segment)",
            Source::Tables { .. } => "Rows(of tables)",
        })
    }
}

/// The rows of several sources, in one order. Memory: that of the sources, and one row of each.
#[derive(Debug)]
pub struct Merged<'a> {
    sources: Vec<Rows<'a>>,
    merge: Merge,
}

impl<'a> Merged<'a> {
    /// Of these sources.
    ///
    /// # Errors
    /// As [`Rows::next`].
    pub async fn begin(mut sources: Vec<Rows<'a>>) -> Result<Self> {
        let mut merge = Merge::default();
        for (number, source) in sources.iter_mut().enumerate() {
            if let Some(row) = source.next().await? {
                merge.offer(number, row);
            }
        }
        Ok(Self { sources, merge })
    }

    /// Where the next row stands.
    pub fn peek(&self) -> Option<Place> {
        self.merge.0.peek().map(|Reverse(entry)| entry.place)
    }

    /// The next row.
    ///
    /// # Errors
    /// As [`Rows::next`].
    pub async fn next(&mut self) -> Result<Option<PlacedRow>> {
        let Some((row, number)) = self.merge.pop() else { return Ok(None) };
        if let Some(next) = self.sources[number].next().await? {
            self.merge.offer(number, next);
        }
        Ok(Some(row))
    }
}

/// The next row of each source.
#[derive(Debug, Default)]
struct Merge(BinaryHeap<Reverse<Entry>>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    place: Place,
    source: usize,
    row: PlacedRow,
}

impl Merge {
    /// Takes in the next row of a source, which must not come before its last one.
    fn offer(&mut self, source: usize, row: PlacedRow) {
        self.0.push(Reverse(Entry { place: place_of(&row), source, row }));
    }

    /// The first row of all, and the source whose next row has to be offered now.
    fn pop(&mut self) -> Option<(PlacedRow, usize)> {
        self.0.pop().map(|Reverse(entry)| (entry.row, entry.source))
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
