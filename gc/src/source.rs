//! Rows in order: of a segment at hand, or of the tables of a run, a row group at a time; and of several of these.

use crate::core::merge::Merge;
use crate::error::Result;
use std::collections::VecDeque;
use tidemark_format::{PlacedRow, TableFooter, TableRef};
use tidemark_history::{Segment, Tables};

/// Memory: of tables, one footer and one row group.
pub(crate) enum Source<'a> {
    Segment(Box<dyn Iterator<Item = PlacedRow> + Send + 'a>),
    Tables {
        tables: &'a Tables,
        left: VecDeque<TableRef>,
        open: Option<Box<Open>>,
        rows: std::vec::IntoIter<PlacedRow>,
    },
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
        Self::Tables { tables, left: of.into_iter().collect(), open: None, rows: Vec::new().into_iter() }
    }

    /// The next row.
    pub(crate) async fn next(&mut self) -> Result<Option<PlacedRow>> {
        let (tables, left, open, rows) = match self {
            Self::Segment(rows) => return Ok(rows.next()),
            Self::Tables { tables, left, open, rows } => (tables, left, open, rows),
        };
        loop {
            if let Some(row) = rows.next() {
                return Ok(Some(row));
            }
            match open {
                Some(table) if table.next < table.footer.groups().len() => {
                    *rows = tables.load::<PlacedRow>(&table.table, &table.footer, table.next).await?.into_iter();
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
