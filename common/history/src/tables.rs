//! Reads the tables that a root names: a footer, then row groups, each verified, kept within a bound of bytes.

use crate::cache::Bounded;
use crate::error::{Error, Result};
use crate::log::last_by;
use bytes::Bytes;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use tidemark_bucket::ReadOnly;
use tidemark_format::{
    DomainId, ErrorKind, EventRow, Expect, FormatError, Lsn, Mark, ObjectKey, PlacedRow, Root, SegmentRow, TableFooter,
    TableKind, TableRef, TableRow, TimeNs,
};

/// Tables of segments of at most so many bytes are read whole: one request in place of two that wait for each other, wherever
/// somebody asks which segment holds an LSN. Some 10,000 segments.
const WHOLE_BYTES_MAX: u64 = 1 << 20;

/// Names a footer or, with a number, a row group.
type PartId = (ObjectKey, Option<u32>);

#[derive(Clone)]
enum Part {
    Footer(Opened),
    Rows(Arc<Vec<PlacedRow>>),
    Segments(Arc<Vec<SegmentRow>>),
}

/// A footer, and the whole table if it is small and one of segments.
#[derive(Clone)]
struct Opened {
    footer: Arc<TableFooter>,
    whole: Option<Bytes>,
}

impl Part {
    fn memory_bytes(&self) -> u64 {
        let bytes = match self {
            Self::Footer(opened) => opened.footer.memory_bytes() + opened.whole.as_ref().map_or(0, Bytes::len),
            Self::Rows(rows) => rows.capacity() * size_of::<PlacedRow>(),
            Self::Segments(rows) => rows.iter().map(SegmentRow::memory_bytes).sum(),
        };
        bytes as u64
    }
}

/// The tables of a domain.
pub struct Tables {
    bucket: ReadOnly,
    domain: DomainId,
    parts: Bounded<PartId, Part>,
}

impl Tables {
    /// Tables of `domain`, keeping `cache_bytes_max` of what was read.
    pub fn new(bucket: ReadOnly, domain: DomainId, cache_bytes_max: u64) -> Self {
        Self { bucket, domain, parts: Bounded::new(cache_bytes_max) }
    }

    /// Bytes kept at the moment.
    pub fn used_bytes(&self) -> u64 {
        self.parts.used_bytes()
    }

    /// The footer of a table.
    ///
    /// # Errors
    /// `Missing`, `Format`; store errors.
    pub async fn footer(&self, table: &TableRef) -> Result<Arc<TableFooter>> {
        Ok(self.opened(table).await?.footer)
    }

    async fn opened(&self, table: &TableRef) -> Result<Opened> {
        let part = self.parts.get((table.key(), None), Part::memory_bytes, async {
            if table.kind != TableKind::Segments || table.len > WHOLE_BYTES_MAX {
                return Ok(Part::Footer(Opened { footer: Arc::new(self.load_footer(table).await?), whole: None }));
            }
            let read = self.verified(table, 0..table.len, |bytes| {
                Ok(Opened { footer: Arc::new(self.footer_of(table, &bytes)?), whole: Some(bytes) })
            });
            Ok(Part::Footer(read.await?))
        });
        match part.await? {
            Part::Footer(opened) => Ok(opened),
            _ => Err(Error::TaskLost),
        }
    }

    /// The footer in the bytes of a whole table.
    fn footer_of(&self, table: &TableRef, bytes: &Bytes) -> Result<TableFooter, FormatError> {
        let expect = Expect { domain: self.domain, key: table.key() };
        TableFooter::decode(&bytes.slice(table.footer_start() as usize..), table, &expect)
    }

    /// A row group of a table of rows.
    ///
    /// # Errors
    /// As [`Self::footer`].
    pub async fn rows(&self, table: &TableRef, number: usize) -> Result<Arc<Vec<PlacedRow>>> {
        let footer = self.footer(table).await?;
        let part = self.parts.get((table.key(), Some(number as u32)), Part::memory_bytes, async {
            Ok(Part::Rows(Arc::new(self.load(table, &footer, number).await?)))
        });
        match part.await? {
            Part::Rows(rows) => Ok(rows),
            _ => Err(Error::TaskLost),
        }
    }

    /// A row group of a table of segments.
    ///
    /// # Errors
    /// As [`Self::footer`].
    pub async fn segments(&self, table: &TableRef, number: usize) -> Result<Arc<Vec<SegmentRow>>> {
        let opened = self.opened(table).await?;
        self.segments_of(table, &opened, number).await
    }

    async fn segments_of(&self, table: &TableRef, opened: &Opened, number: usize) -> Result<Arc<Vec<SegmentRow>>> {
        let footer = &opened.footer;
        let part = self.parts.get((table.key(), Some(number as u32)), Part::memory_bytes, async {
            let at_hand = opened.whole.as_ref().zip(footer.groups().get(number)).and_then(|(whole, group)| {
                let bytes = whole.slice(group.range.start as usize..group.range.end as usize);
                footer.decode_group::<SegmentRow>(number, bytes).ok()
            });
            // What does not decode is read once more, as ever.
            let rows = match at_hand {
                Some(rows) => rows,
                None => self.load(table, footer, number).await?,
            };
            Ok(Part::Segments(Arc::new(rows)))
        });
        match part.await? {
            Part::Segments(rows) => Ok(rows),
            _ => Err(Error::TaskLost),
        }
    }

    /// Shows each segment of an index that holds some of `lsns`, in order.
    ///
    /// # Errors
    /// As [`Self::footer`].
    pub async fn for_each_segment(
        &self,
        root: &Root,
        lsns: RangeInclusive<Lsn>,
        mut each: impl FnMut(&SegmentRow),
    ) -> Result<()> {
        let touches = |(first, last): (Lsn, Lsn)| first <= *lsns.end() && *lsns.start() <= last;
        for table in root.tables_of(TableKind::Segments).filter(|table| touches((table.first_lsn, table.last_lsn))) {
            let opened = self.opened(table).await?;
            for (number, group) in opened.footer.groups().iter().enumerate() {
                if touches(group.lsns(TableKind::Segments)) {
                    let rows = self.segments_of(table, &opened, number).await?;
                    rows.iter().filter(|row| touches((row.first_lsn, row.last_lsn))).for_each(&mut each);
                }
            }
        }
        Ok(())
    }

    /// The last point whose time is not after `time`, as far as the index reaches; `None` before the history.
    ///
    /// # Errors
    /// As [`Self::footer`].
    pub async fn point_at(&self, root: &Root, time: TimeNs) -> Result<Option<Mark>> {
        let tables: Vec<&TableRef> = root.tables_of(TableKind::Segments).collect();
        let Some(at) = tables.partition_point(|table| table.first_time <= time).checked_sub(1) else { return Ok(None) };
        let footer = self.footer(tables[at]).await?;
        let number = footer.groups().partition_point(|group| group.first_time() <= time).saturating_sub(1);
        let group = self.segments(tables[at], number).await?;
        let segment = &group[group.partition_point(|segment| segment.first_time <= time).saturating_sub(1)];
        let lsn = last_by(Some(&segment.times), segment.last_lsn, time);
        Ok(Some(Mark { lsn, time: segment.time_of(lsn) }))
    }

    /// All rows of a table of events. Not kept.
    ///
    /// # Errors
    /// As [`Self::footer`].
    pub async fn events(&self, table: &TableRef) -> Result<Vec<EventRow>> {
        // All of it is wanted, so one request brings all of it.
        let read = self.verified(table, 0..table.len, |bytes| {
            let footer = self.footer_of(table, &bytes)?;
            let mut rows = Vec::new();
            for (number, group) in footer.groups().iter().enumerate() {
                let bytes = bytes.slice(group.range.start as usize..group.range.end as usize);
                rows.extend(footer.decode_group::<EventRow>(number, bytes)?);
            }
            Ok(rows)
        });
        read.await
    }

    /// The footer of a table, past the cache.
    ///
    /// # Errors
    /// As [`Self::footer`].
    pub async fn load_footer(&self, table: &TableRef) -> Result<TableFooter> {
        let range = table.footer_start()..table.len;
        let expect = Expect { domain: self.domain, key: table.key() };
        self.verified(table, range, |bytes| TableFooter::decode(&bytes, table, &expect)).await
    }

    /// A row group, past the cache.
    ///
    /// # Errors
    /// As [`Self::footer`].
    pub async fn load<R: TableRow>(&self, table: &TableRef, footer: &TableFooter, number: usize) -> Result<Vec<R>> {
        let group = footer.groups().get(number).ok_or(Error::TaskLost)?;
        self.verified(table, group.range.clone(), |bytes| footer.decode_group::<R>(number, bytes)).await
    }

    /// Reads and decodes a range. What does not decode is read once more, because bytes may break on the way.
    async fn verified<T>(
        &self,
        table: &TableRef,
        range: Range<u64>,
        decode: impl Fn(Bytes) -> Result<T, FormatError>,
    ) -> Result<T> {
        let key = table.key();
        let mut again = true;
        loop {
            let bytes = match self.bucket.get_range(&key, range.clone()).await {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(Error::Missing { key, why: "the root names it".into() });
                }
                Err(source) => return Err(Error::Store { key, source }),
            };
            match decode(bytes) {
                Ok(decoded) => return Ok(decoded),
                Err(_) if std::mem::take(&mut again) => {}
                Err(source) => return Err(Error::Format { key, source }),
            }
        }
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tables({} in {})", self.domain, self.bucket.location())
    }
}
