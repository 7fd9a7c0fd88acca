//! The tables of one new run: built row by row, put when they are full.

use crate::core::images::{Cutter, Step};
use crate::error::{Error, Result};
use tidemark_bucket::Appender;
use tidemark_format::{
    DomainId, Epoch, Extent, FormatError, Lsn, ObjectKey, PlacedRow, Seq, TableBuilder, TableRef, TableRow,
};

/// Numbers and puts the tables of a maintenance epoch.
#[derive(Debug)]
pub(crate) struct Output {
    bucket: Appender,
    domain: DomainId,
    epoch: Epoch,
    next: Seq,
    next_compact: Seq,
    bytes: u64,
}

/// Tables of one kind of one run.
#[derive(Debug)]
pub(crate) struct Part<R: TableRow> {
    level: u32,
    lsns: (Lsn, Lsn),
    rows_max: u64,
    open: Option<TableBuilder<R>>,
    done: Vec<TableRef>,
}

impl Output {
    pub(crate) fn new(bucket: Appender, domain: DomainId, epoch: Epoch) -> Self {
        Self { bucket, domain, epoch, next: Seq::new(1), next_compact: Seq::new(1), bytes: 0 }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where the next compact segment goes.
    pub(crate) fn next_compact(&mut self) -> (Epoch, Seq) {
        let next = self.next_compact.next();
        (self.epoch, std::mem::replace(&mut self.next_compact, next))
    }

    /// Bytes put so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn next(&mut self) -> Seq {
        let next = self.next.next();
        std::mem::replace(&mut self.next, next)
    }

    fn failed(&self, source: FormatError) -> Error {
        Error::Format { key: ObjectKey::Index { epoch: self.epoch, seq: self.next }, source }
    }

    async fn put<R: TableRow>(&mut self, table: TableBuilder<R>, level: u32, lsns: (Lsn, Lsn)) -> Result<TableRef> {
        let (bytes, table) = table.finish(level, lsns).map_err(|source| self.failed(source))?;
        self.bytes += bytes.len() as u64;
        self.bucket
            .put(&table.key(), bytes)
            .await
            .map_err(|source| Error::store("put a table of the index", source))?;
        Ok(table)
    }
}

impl<R: TableRow> Part<R> {
    /// Tables of at most `rows_max` rows each, for a run of `level` that holds `lsns`.
    pub(crate) fn new(level: u32, lsns: (Lsn, Lsn), rows_max: u64) -> Self {
        Self { level, lsns, rows_max, open: None, done: Vec::new() }
    }

    /// Appends the next row.
    pub(crate) async fn push(&mut self, row: R, out: &mut Output) -> Result<()> {
        let table = match &mut self.open {
            Some(table) => table,
            None => {
                let table = TableBuilder::new(out.domain, out.epoch, out.next());
                self.open.insert(table.map_err(|source| out.failed(source))?)
            }
        };
        table.push(row).map_err(|source| out.failed(source))?;
        if table.rows() >= self.rows_max {
            self.end_table(out).await?;
        }
        Ok(())
    }

    async fn end_table(&mut self, out: &mut Output) -> Result<()> {
        if let Some(table) = self.open.take() {
            self.done.push(out.put(table, self.level, self.lsns).await?);
        }
        Ok(())
    }

    /// All tables, put.
    pub(crate) async fn finish(mut self, out: &mut Output) -> Result<Vec<TableRef>> {
        self.end_table(out).await?;
        Ok(self.done)
    }
}

/// The image of one region: one table, or several with a region of their own each.
#[derive(Debug)]
pub(crate) struct Image {
    at: Lsn,
    cutter: Cutter,
    open: Option<TableBuilder<PlacedRow>>,
    done: Vec<TableRef>,
}

impl Image {
    /// An image of `region` as of `at`, in tables of some `rows_max` rows.
    pub(crate) fn new(region: Extent, at: Lsn, rows_max: u64) -> Self {
        Self { at, cutter: Cutter::new(region, rows_max), open: None, done: Vec::new() }
    }

    /// Appends the next row; what lies outside of the region is left out. No two rows share a block.
    pub(crate) async fn push(&mut self, placed: PlacedRow, out: &mut Output) -> Result<()> {
        for step in self.cutter.next(placed) {
            match step {
                Step::End(region) => self.end_table(region, out).await?,
                Step::Push(row) => {
                    let table = match &mut self.open {
                        Some(table) => table,
                        None => {
                            let table = TableBuilder::image(out.domain, out.epoch, out.next());
                            self.open.insert(table.map_err(|source| out.failed(source))?)
                        }
                    };
                    table.push(row).map_err(|source| out.failed(source))?;
                }
            }
        }
        Ok(())
    }

    async fn end_table(&mut self, region: Extent, out: &mut Output) -> Result<()> {
        if let Some(table) = self.open.take() {
            let table = out.put(table, 0, (self.at, self.at)).await?;
            self.done.push(TableRef { region, ..table });
        }
        Ok(())
    }

    /// All tables, put.
    pub(crate) async fn finish(mut self, out: &mut Output) -> Result<Vec<TableRef>> {
        self.end_table(self.cutter.rest(), out).await?;
        Ok(self.done)
    }
}
