//! One table as a Parquet file: row groups behind one another, a footer that names and hashes them.

use super::{FOOTER_BYTES_MAX, GROUP_BYTES_MAX, GROUP_ROWS_MAX, RowBounds, TableKind, TableRef};
use crate::error::{FormatError, Result};
use crate::header::Expect;
use crate::ids::{DomainId, Epoch, Extent, Lsn, Seq, TimeNs};
use crate::index::PlacedRow;
use crate::text::{hex, unhex};
use bytes::{Buf, Bytes};
use parquet::basic::{Compression, Encoding, Repetition, Type};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type as SchemaType};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

pub(super) use parquet::basic::{LogicalType, TimeUnit};

/// First and last bytes of a Parquet file.
const MAGIC: &[u8; 4] = b"PAR1";
/// Bytes of a hash of a row group.
const GROUP_HASH_BYTES: usize = 16;
const KEY_TABLE: &str = "tidemark.table";
const KEY_DOMAIN: &str = "tidemark.domain";
const KEY_OBJECT: &str = "tidemark.key";
const KEY_GROUPS: &str = "tidemark.groups";

/// How a column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    /// Whole numbers that differ little from row to row.
    Delta,
    /// Whole numbers of few values.
    Few,
    /// Texts of few values.
    Words,
    /// Bytes, all different.
    Bytes,
}

/// One column. All are required.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) store: Store,
    /// What it means to readers of Parquet.
    pub(super) logical: Option<LogicalType>,
    /// Least and largest value stand in the footer.
    pub(super) bounds: bool,
}

/// A row of some kind of table.
pub trait TableRow: Sized {
    /// The kind.
    const KIND: TableKind;
    /// A row group ends before a row that would make it longer than this.
    const ROWS_MAX: usize;
    /// A row group ends with the row that takes its weight to this.
    const WEIGHT_MAX: usize;

    /// Bytes that the row takes, roughly.
    fn weight(&self) -> usize;
    /// First and last LSN of the row.
    fn lsns(&self) -> (Lsn, Lsn);
    #[doc(hidden)]
    fn grow_bounds(&self, _bounds: &mut RowBounds, _first: bool) {}
    #[doc(hidden)]
    fn first_time(&self) -> TimeNs {
        TimeNs::default()
    }
    #[doc(hidden)]
    fn put(rows: &[Self], out: &mut GroupOut<'_, '_>) -> Result<()>;
    #[doc(hidden)]
    fn take(from: &mut GroupIn<'_>) -> Result<Vec<Self>>;
}

pub(super) fn columns_of(kind: TableKind) -> Vec<Column> {
    match kind {
        TableKind::Rows | TableKind::Images => super::columns::rows(),
        TableKind::Segments => super::columns::segments(),
        TableKind::Events => super::columns::events(),
    }
}

fn bad(why: impl Display) -> FormatError {
    FormatError::Table { why: why.to_string() }
}

fn from_parquet(error: ParquetError) -> FormatError {
    bad(error)
}

/// Runs the decoder of Parquet, which is not total: some bytes that no writer makes end in a panic inside of it. Only bytes
/// whose hash was right get there, so it takes a hostile maintainer; what it makes of them is an error like any other.
fn contained<T>(decode: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(bad("not a valid Parquet file")))
}

fn schema_of(kind: TableKind) -> Result<SchemaType> {
    let field = |column: Column| {
        let physical = match column.store {
            Store::Delta | Store::Few => Type::INT64,
            Store::Words | Store::Bytes => Type::BYTE_ARRAY,
        };
        let field = SchemaType::primitive_type_builder(column.name, physical)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(column.logical);
        field.build().map(Arc::new).map_err(from_parquet)
    };
    let fields = columns_of(kind).into_iter().map(field).collect::<Result<Vec<_>>>()?;
    SchemaType::group_type_builder(kind.name()).with_fields(fields).build().map_err(from_parquet)
}

fn properties_of(kind: TableKind) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("tidemark".to_owned())
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(None)
        .set_data_page_row_count_limit(usize::MAX)
        .set_data_page_size_limit(usize::MAX)
        .set_offset_index_disabled(true);
    for column in columns_of(kind) {
        let path = || ColumnPath::from(column.name);
        properties = match column.store {
            Store::Delta => properties.set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED),
            Store::Few | Store::Words => properties.set_column_dictionary_enabled(path(), true),
            Store::Bytes => properties.set_column_encoding(path(), Encoding::PLAIN),
        };
        if column.bounds {
            properties = properties.set_column_statistics_enabled(path(), EnabledStatistics::Chunk);
        }
    }
    properties.build()
}

/// A table under construction. Rows go in, in order; the object's bytes and its entry for a root come out.
///
/// Memory: the bytes of the object, and the rows of one group.
pub struct TableBuilder<R: TableRow> {
    writer: SerializedFileWriter<Vec<u8>>,
    pending: Vec<R>,
    pending_weight: usize,
    rows: u64,
    lsns: Option<(Lsn, Lsn)>,
    bounds: RowBounds,
    first_time: TimeNs,
    identity: (DomainId, Epoch, Seq),
    kind: TableKind,
}

impl TableBuilder<PlacedRow> {
    /// As [`Self::new`], for an image. Its entry for a root has an empty region.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn image(domain: DomainId, epoch: Epoch, seq: Seq) -> Result<Self> {
        Self::of_kind(TableKind::Images, domain, epoch, seq)
    }
}

impl<R: TableRow> TableBuilder<R> {
    /// An empty table that will be put as `idx/<epoch>/<seq>.parquet`.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn new(domain: DomainId, epoch: Epoch, seq: Seq) -> Result<Self> {
        Self::of_kind(R::KIND, domain, epoch, seq)
    }

    fn of_kind(kind: TableKind, domain: DomainId, epoch: Epoch, seq: Seq) -> Result<Self> {
        let schema = Arc::new(schema_of(kind)?);
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties_of(kind)));
        Ok(Self {
            writer: writer.map_err(from_parquet)?,
            pending: Vec::new(),
            pending_weight: 0,
            rows: 0,
            lsns: None,
            bounds: RowBounds::default(),
            first_time: TimeNs::default(),
            identity: (domain, epoch, seq),
            kind,
        })
    }

    /// Appends the next row.
    ///
    /// # Errors
    /// `Table` if a number of the row does not fit into a signed 64-bit column.
    pub fn push(&mut self, row: R) -> Result<()> {
        row.grow_bounds(&mut self.bounds, self.rows == 0);
        if self.rows == 0 {
            self.first_time = row.first_time();
        }
        let (first, last) = row.lsns();
        self.lsns = Some(self.lsns.map_or((first, last), |(low, high)| (low.min(first), high.max(last))));
        self.rows += 1;
        self.pending_weight += row.weight();
        self.pending.push(row);
        if self.pending.len() >= R::ROWS_MAX || self.pending_weight >= R::WEIGHT_MAX {
            self.end_group()?;
        }
        Ok(())
    }

    /// Number of rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of the row groups that are complete.
    pub fn bytes(&self) -> u64 {
        self.writer.bytes_written() as u64
    }

    /// The least and the largest LSN of the rows so far.
    pub fn lsns(&self) -> Option<(Lsn, Lsn)> {
        self.lsns
    }

    fn end_group(&mut self) -> Result<()> {
        let mut group = self.writer.next_row_group().map_err(from_parquet)?;
        R::put(&self.pending, &mut GroupOut { group: &mut group })?;
        group.close().map_err(from_parquet)?;
        self.pending.clear();
        self.pending_weight = 0;
        Ok(())
    }

    /// The object's bytes, and its entry for a root, as part of `level` and of the run of `lsns`.
    ///
    /// # Errors
    /// `Table` if the footer would be too long.
    pub fn finish(mut self, level: u32, lsns: (Lsn, Lsn)) -> Result<(Vec<u8>, TableRef)> {
        if !self.pending.is_empty() {
            self.end_group()?;
        }
        self.writer.flush().map_err(bad)?;
        let ranges = self.writer.flushed_row_groups().iter().map(range_of).collect::<Result<Vec<_>>>()?;
        let hashes = ranges.iter().map(|range| {
            let bytes = self.writer.inner().get(range.start as usize..range.end as usize);
            bytes.map(|bytes| hex(&group_hash(bytes))).ok_or_else(|| bad("a row group was not written"))
        });
        let hashes = hashes.collect::<Result<String>>()?;
        let (domain, epoch, seq) = self.identity;
        let key = crate::key::ObjectKey::Index { epoch, seq };
        for (name, value) in [
            (KEY_TABLE, self.kind.name().to_owned()),
            (KEY_DOMAIN, domain.to_string()),
            (KEY_OBJECT, key.to_string()),
            (KEY_GROUPS, hashes),
        ] {
            self.writer.append_key_value_metadata(KeyValue::new(name.to_owned(), value));
        }
        let bytes = self.writer.into_inner().map_err(from_parquet)?;
        let start = ranges.last().map_or(MAGIC.len(), |range| range.end as usize);
        let footer = bytes.get(start..).ok_or_else(|| bad("the footer was not written"))?;
        if footer.len() as u64 > FOOTER_BYTES_MAX {
            return Err(bad(format!("its footer would have {} bytes, at most {FOOTER_BYTES_MAX} fit", footer.len())));
        }
        let table = TableRef {
            kind: self.kind,
            level,
            epoch,
            seq,
            first_lsn: lsns.0,
            last_lsn: lsns.1,
            rows: self.rows,
            len: bytes.len() as u64,
            footer_len: footer.len() as u64,
            footer_hash: *blake3::hash(footer).as_bytes(),
            bounds: self.bounds,
            region: Extent::default(),
            rows_since: 0,
            first_time: self.first_time,
        };
        Ok((bytes, table))
    }
}

impl<R: TableRow> std::fmt::Debug for TableBuilder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TableBuilder({} with {} rows)", self.kind.name(), self.rows)
    }
}

fn group_hash(bytes: &[u8]) -> [u8; GROUP_HASH_BYTES] {
    let mut short = [0; GROUP_HASH_BYTES];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..GROUP_HASH_BYTES]);
    short
}

/// The bytes of a row group: those of its columns, which must follow one another.
fn range_of(group: &RowGroupMetaData) -> Result<Range<u64>> {
    let mut range: Option<Range<u64>> = None;
    for column in group.columns() {
        let offset = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
        let (Ok(start), Ok(len)) = (u64::try_from(offset), u64::try_from(column.compressed_size())) else {
            return Err(bad("a column lies at a negative offset"));
        };
        let end = start.checked_add(len).ok_or_else(|| bad("a column ends beyond 2^64"))?;
        range = Some(match range {
            None => start..end,
            Some(before) if before.end == start => before.start..end,
            Some(_) => return Err(bad("columns of a row group do not follow one another")),
        });
    }
    range.ok_or_else(|| bad("a row group has no column"))
}

/// Where a row group lies, and what it can hold.
#[derive(Clone, Debug)]
pub struct GroupInfo {
    /// Its bytes in the object.
    pub range: Range<u64>,
    /// Its rows.
    pub rows: u64,
    hash: [u8; GROUP_HASH_BYTES],
    /// Least and largest value of the columns that have bounds, in the order of the columns.
    bounds: Vec<(u64, u64)>,
}

/// The footer of a table, checked. Kept in memory by whoever reads the table.
#[derive(Clone, Debug)]
pub struct TableFooter {
    kind: TableKind,
    groups: Vec<GroupInfo>,
    metadata: ParquetMetaData,
    len: u64,
}

impl TableRef {
    /// A table as its own bytes tell it, for tools that have no root at hand. What only a root knows is left blank.
    ///
    /// # Errors
    /// `Table` if the bytes are no table.
    pub fn of_object(bytes: &[u8]) -> Result<Self> {
        let ends = || bad("it does not end like a Parquet file");
        let tail = bytes.len().checked_sub(8).ok_or_else(ends)?;
        let body_len = bytes[tail..].strip_suffix(MAGIC).and_then(|len| Some(u32::from_le_bytes(len.try_into().ok()?)));
        let start = body_len.and_then(|len| tail.checked_sub(len as usize)).ok_or_else(ends)?;
        let decoded = contained(|| ParquetMetaDataReader::decode_metadata(&bytes[start..tail]).map_err(from_parquet))?;
        let pairs = decoded.file_metadata().key_value_metadata().into_iter().flatten();
        let kind =
            pairs.filter(|pair| pair.key == KEY_TABLE).find_map(|pair| TableKind::from_name(pair.value.as_deref()?));
        Ok(Self {
            kind: kind.ok_or_else(|| bad("tidemark.table is missing or unknown"))?,
            level: 0,
            epoch: Epoch::default(),
            seq: Seq::default(),
            first_lsn: Lsn::ZERO,
            last_lsn: Lsn::ZERO,
            rows: u64::try_from(decoded.file_metadata().num_rows())
                .map_err(|_| bad("it has a negative number of rows"))?,
            len: bytes.len() as u64,
            footer_len: (bytes.len() - start) as u64,
            footer_hash: *blake3::hash(&bytes[start..]).as_bytes(),
            bounds: RowBounds::default(),
            region: Extent::default(),
            rows_since: 0,
            first_time: TimeNs::default(),
        })
    }
}

impl TableFooter {
    /// Checks and keeps the footer that `table` names: the last bytes of the object.
    ///
    /// # Errors
    /// `TableHash` if it is not the one that the root means; `WrongDomain`, `Misplaced`; `Table` for any other shape.
    pub fn decode(footer: &[u8], table: &TableRef, expect: &Expect) -> Result<Self> {
        contained(|| Self::decode_uncontained(footer, table, expect))
    }

    fn decode_uncontained(footer: &[u8], table: &TableRef, expect: &Expect) -> Result<Self> {
        //= SPEC.md#index-tables
        //# IX-2
        if *blake3::hash(footer).as_bytes() != table.footer_hash || footer.len() as u64 != table.footer_len {
            return Err(FormatError::TableHash { what: "footer" });
        }
        let (body, tail) = footer.split_at_checked(footer.len().saturating_sub(8)).unwrap_or((&[], footer));
        let Some(at) = tail.strip_suffix(MAGIC).and_then(|len| Some(u32::from_le_bytes(len.try_into().ok()?))) else {
            return Err(bad("its footer does not end like that of a Parquet file"));
        };
        if at as usize != body.len() {
            return Err(bad(format!("its footer has {} bytes and says {at}", body.len())));
        }
        let metadata = ParquetMetaDataReader::decode_metadata(body).map_err(from_parquet)?;
        let said: BTreeMap<&str, &str> = metadata
            .file_metadata()
            .key_value_metadata()
            .into_iter()
            .flatten()
            .filter_map(|pair| Some((pair.key.as_str(), pair.value.as_deref()?)))
            .collect();
        let need = |key: &str| said.get(key).copied().ok_or_else(|| bad(format!("{key} is missing")));
        //= SPEC.md#index-tables
        //# IX-3
        let domain: DomainId = need(KEY_DOMAIN)?.parse().map_err(|_| bad("tidemark.domain is no UUID"))?;
        if domain != expect.domain {
            return Err(FormatError::WrongDomain { found: domain, expected: expect.domain });
        }
        let found = need(KEY_OBJECT)?;
        if found != expect.key.to_string() {
            let found = found.chars().take(80).collect();
            return Err(FormatError::Misplaced { found, expected: expect.key });
        }
        if need(KEY_TABLE)? != table.kind.name() {
            return Err(bad(format!("it is not a table of {}", table.kind.name())));
        }
        let columns = columns_of(table.kind);
        check_schema(&metadata, table.kind)?;
        let hashes = unhex(need(KEY_GROUPS)?.as_bytes()).ok_or_else(|| bad("tidemark.groups is not hexadecimal"))?;
        let mut groups = Vec::new();
        let (mut at, mut rows) = (MAGIC.len() as u64, 0u64);
        let mut hashes = hashes.chunks(GROUP_HASH_BYTES);
        for group in metadata.row_groups() {
            let range = range_of(group)?;
            let count = u64::try_from(group.num_rows()).unwrap_or(u64::MAX);
            //= SPEC.md#index-tables
            //# IX-4
            if range.start != at || range.end > table.footer_start() || range.end - range.start > GROUP_BYTES_MAX {
                return Err(bad("a row group does not follow the one before, or is too long"));
            }
            if count == 0 || count > GROUP_ROWS_MAX {
                return Err(bad(format!("a row group has {count} rows, at least 1 and at most {GROUP_ROWS_MAX} fit")));
            }
            let hash =
                hashes.next().and_then(|hash| hash.try_into().ok()).ok_or_else(|| bad("a row group has no hash"))?;
            let bounds = columns.iter().zip(group.columns()).filter(|(column, _)| column.bounds);
            let bounds = bounds.map(|(column, chunk)| {
                let Some(Statistics::Int64(values)) = chunk.statistics() else {
                    return Err(bad(format!("column {} has no bounds", column.name)));
                };
                match (values.min_opt().map(|v| u64::try_from(*v)), values.max_opt().map(|v| u64::try_from(*v))) {
                    (Some(Ok(low)), Some(Ok(high))) if low <= high => Ok((low, high)),
                    _ => Err(bad(format!("column {} has no bounds", column.name))),
                }
            });
            let bounds = bounds.collect::<Result<Vec<_>>>()?;
            at = range.end;
            rows += count;
            groups.push(GroupInfo { range, rows: count, hash, bounds });
        }
        if at != table.footer_start() || rows != table.rows || hashes.next().is_some() {
            return Err(bad("its row groups are not those that the root names"));
        }
        Ok(Self { kind: table.kind, groups, metadata, len: table.len })
    }

    /// The row groups, in order.
    pub fn groups(&self) -> &[GroupInfo] {
        &self.groups
    }

    /// Rows of all groups.
    pub fn rows(&self) -> u64 {
        self.groups.iter().map(|group| group.rows).sum()
    }

    /// Bytes that it takes in memory, roughly.
    pub fn memory_bytes(&self) -> usize {
        self.metadata.memory_size() + self.groups.len() * (size_of::<GroupInfo>() + 64)
    }

    /// Verifies and decodes a row group.
    ///
    /// # Errors
    /// `TableHash` for other bytes than the footer names; `Table` for rows out of bounds or order, `Row` for one that breaks
    /// a rule.
    pub fn decode_group<R: TableRow>(&self, number: usize, bytes: Bytes) -> Result<Vec<R>> {
        let fits = R::KIND == self.kind || (R::KIND.holds_versions() && self.kind.holds_versions());
        assert!(fits, "a table of {} is read as one of {}", self.kind.name(), R::KIND.name());
        let group = self.groups.get(number).ok_or_else(|| bad("there is no such row group"))?;
        //= SPEC.md#index-tables
        //# IX-2
        if bytes.len() as u64 != group.range.end - group.range.start || group_hash(&bytes) != group.hash {
            return Err(FormatError::TableHash { what: "row group" });
        }
        let window = Arc::new(Window { start: group.range.start, bytes, len: self.len });
        let from = &mut GroupIn { window, group: self.metadata.row_group(number), next: 0, rows: group.rows as usize };
        let rows = contained(move || R::take(from))?;
        if rows.len() as u64 != group.rows {
            return Err(bad(format!("a row group has {} rows and says {}", rows.len(), group.rows)));
        }
        Ok(rows)
    }
}

impl GroupInfo {
    /// Least and largest value of the `n`-th column that has bounds.
    pub(super) fn bounds(&self, n: usize) -> (u64, u64) {
        self.bounds[n]
    }
}

fn check_schema(metadata: &ParquetMetaData, kind: TableKind) -> Result<()> {
    let schema = metadata.file_metadata().schema_descr();
    let columns = columns_of(kind);
    let wanted = |store: Store| match store {
        Store::Delta | Store::Few => Type::INT64,
        Store::Words | Store::Bytes => Type::BYTE_ARRAY,
    };
    //= SPEC.md#index-tables
    //# IX-1
    let same = schema.num_columns() == columns.len()
        && columns.iter().zip(schema.columns()).all(|(column, found)| {
            found.path().parts() == [column.name]
                && found.physical_type() == wanted(column.store)
                && found.max_def_level() == 0
                && found.max_rep_level() == 0
        });
    let plain = metadata
        .row_groups()
        .iter()
        .flat_map(RowGroupMetaData::columns)
        .all(|chunk| chunk.compression() == Compression::UNCOMPRESSED);
    if same && plain { Ok(()) } else { Err(bad(format!("its columns are not those of a table of {}", kind.name()))) }
}

/// The bytes of one row group, at their place in the file.
struct Window {
    start: u64,
    bytes: Bytes,
    len: u64,
}

impl Window {
    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let skip = start.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let skip = skip.filter(|skip| *skip <= self.bytes.len());
        skip.map(|skip| self.bytes.slice(skip..)).ok_or_else(|| ParquetError::EOF("outside of the row group".into()))
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Window {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF("a page reaches beyond the row group".into()));
        }
        Ok(bytes.slice(..length))
    }
}

/// Takes the columns of one row group, in order.
#[doc(hidden)]
pub struct GroupOut<'a, 'b> {
    group: &'a mut SerializedRowGroupWriter<'b, Vec<u8>>,
}

impl GroupOut<'_, '_> {
    fn column<T: DataType>(&mut self, values: &[T::T]) -> Result<()> {
        let column = self.group.next_column().map_err(from_parquet)?;
        let mut column = column.ok_or_else(|| bad("more columns than the schema has"))?;
        column.typed::<T>().write_batch(values, None, None).map_err(from_parquet)?;
        column.close().map_err(from_parquet)
    }

    pub(super) fn numbers(&mut self, values: impl Iterator<Item = u64>) -> Result<()> {
        let signed = values.map(|v| i64::try_from(v).map_err(|_| bad(format!("{v} does not fit into 63 bits"))));
        self.column::<Int64Type>(&signed.collect::<Result<Vec<_>>>()?)
    }

    pub(super) fn bytes<'v>(&mut self, values: impl Iterator<Item = &'v [u8]>) -> Result<()> {
        let values: Vec<ByteArray> = values.map(ByteArray::from).collect();
        self.column::<ByteArrayType>(&values)
    }
}

/// Hands out the columns of one row group, in order.
#[doc(hidden)]
pub struct GroupIn<'a> {
    window: Arc<Window>,
    group: &'a RowGroupMetaData,
    next: usize,
    rows: usize,
}

impl GroupIn<'_> {
    fn column<T: DataType>(&mut self) -> Result<Vec<T::T>> {
        let chunk = self.group.columns().get(self.next).ok_or_else(|| bad("fewer columns than the schema has"))?;
        self.next += 1;
        let pages =
            SerializedPageReader::new(Arc::clone(&self.window), chunk, self.rows, None).map_err(from_parquet)?;
        let mut column = ColumnReaderImpl::<T>::new(chunk.column_descr_ptr(), Box::new(pages));
        let mut values = Vec::new();
        // A chunk may hold more values than its group has rows: one more is enough to see it.
        column.read_records(self.rows + 1, None, None, &mut values).map_err(from_parquet)?;
        if values.len() != self.rows {
            return Err(bad(format!("a column has {} values for {} rows", values.len(), self.rows)));
        }
        Ok(values)
    }

    pub(super) fn numbers(&mut self) -> Result<Vec<u64>> {
        let values = self.column::<Int64Type>()?;
        let unsigned = values.into_iter().map(|v| u64::try_from(v).map_err(|_| bad(format!("{v} is negative"))));
        unsigned.collect()
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<Bytes>> {
        Ok(self.column::<ByteArrayType>()?.into_iter().map(|v| Bytes::copy_from_slice(v.data())).collect())
    }
}
