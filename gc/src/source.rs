//! Rows in order: of a segment at hand, or of the tables of a run, a row group at a time; of several of these; and what of them
//! some points need.

use crate::core::liveness::{Needed, Standing, Sweep};
use crate::core::merge::Merge;
use crate::error::Result;
use std::collections::VecDeque;
use tidemark_format::{DiskId, Extent, Lsn, PlacedRow, Retained, TableFooter, TableKind, TableRef};
use tidemark_history::{Segment, Tables};

/// Memory: of tables, one footer and one row group.
pub(crate) enum Source<'a> {
    Segment(Box<dyn Iterator<Item = PlacedRow> + Send + 'a>),
    Tables {
        tables: &'a Tables,
        left: VecDeque<TableRef>,
        open: Option<Box<Open>>,
        rows: std::vec::IntoIter<PlacedRow>,
        only: Option<Only>,
    },
}

/// Which rows of tables are wanted. Others may come, too, if they lie outside of the blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Only {
    pub(crate) disk: DiskId,
    pub(crate) extent: Extent,
    /// LSNs behind the one, up to the other.
    pub(crate) behind: Lsn,
    pub(crate) through: Lsn,
}

/// A table that is being read.
pub(crate) struct Open {
    table: TableRef,
    footer: TableFooter,
    next: usize,
}

impl<'a> Source<'a> {
    pub(crate) fn segment(segment: &'a Segment) -> Self {
        Self::Segment(Box::new(segment.head.index.iter()))
    }

    pub(crate) fn tables(tables: &'a Tables, of: impl IntoIterator<Item = TableRef>) -> Self {
        Self::Tables { tables, left: of.into_iter().collect(), open: None, rows: Vec::new().into_iter(), only: None }
    }

    /// A part of tables of rows.
    pub(crate) fn part(tables: &'a Tables, of: impl IntoIterator<Item = TableRef>, only: Only) -> Self {
        let left = of.into_iter().filter(|table| table.bounds.may_hold(only.disk, only.extent)).collect();
        Self::Tables { tables, left, open: None, rows: Vec::new().into_iter(), only: Some(only) }
    }

    /// The next row.
    pub(crate) async fn next(&mut self) -> Result<Option<PlacedRow>> {
        let (tables, left, open, rows, only) = match self {
            Self::Segment(rows) => return Ok(rows.next()),
            Self::Tables { tables, left, open, rows, only } => (tables, left, open, rows, only),
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

/// The rows of several sources, in one order.
pub(crate) struct Merged<'a> {
    sources: Vec<Source<'a>>,
    merge: Merge,
}

impl<'a> Merged<'a> {
    pub(crate) async fn begin(mut sources: Vec<Source<'a>>) -> Result<Self> {
        let mut merge = Merge::default();
        for (number, source) in sources.iter_mut().enumerate() {
            if let Some(row) = source.next().await? {
                merge.offer(number, row);
            }
        }
        Ok(Self { sources, merge })
    }

    /// The next row.
    pub(crate) async fn next(&mut self) -> Result<Option<PlacedRow>> {
        let Some((row, number)) = self.merge.pop() else { return Ok(None) };
        if let Some(next) = self.sources[number].next().await? {
            self.merge.offer(number, next);
        }
        Ok(Some(row))
    }
}

/// Rows of several sources, and what of them some points need.
pub(crate) struct Sweeping<'a> {
    rows: Merged<'a>,
    sweep: Sweep,
    ended: bool,
}

impl<'a> Sweeping<'a> {
    pub(crate) async fn begin(sources: Vec<Source<'a>>, retained: &Retained, standing: &[Standing]) -> Result<Self> {
        Ok(Self { rows: Merged::begin(sources).await?, sweep: Sweep::new(retained, standing), ended: false })
    }

    /// The next part of a row that some offered point needs.
    pub(crate) async fn next(&mut self) -> Result<Option<Needed>> {
        loop {
            if let Some(needed) = self.sweep.poll() {
                return Ok(Some(needed));
            }
            if self.ended {
                return Ok(None);
            }
            match self.rows.next().await? {
                Some(row) => self.sweep.push(row),
                None => {
                    self.sweep.finish();
                    self.ended = true;
                }
            }
        }
    }
}
