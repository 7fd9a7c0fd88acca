//! Rows as a Parquet file, and back.
//!
//! zstd, sorted by time, field ids from the registry; the footer says the unit and the meaning of each column under
//! `tidemark.columns`, as JSON, since Parquet itself has no place for units. Reading takes columns by name: what a file lacks is
//! absent, what it has and we do not know is left out, so old and new files read alike.

use crate::core::row::{Cell, Row};
use crate::error::{Error, Result};
use crate::registry::{Column, Holds, Table};
use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::Field;
use parquet::schema::types::Type as SchemaType;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tidemark_format::StatsTable;

/// Rows that a file has at most: beyond, it is not one of ours.
const ROWS_MAX: i64 = 4 << 20;
const ZSTD_LEVEL: i32 = 3;
const KEY_TABLE: &str = "tidemark.table";
const KEY_COLUMNS: &str = "tidemark.columns";

fn bad(what: &str) -> impl Fn(&dyn Display) -> Error {
    move |why| Error::File { what: what.to_owned(), why: why.to_string() }
}

fn schema_of(table: &Table) -> std::result::Result<SchemaType, ParquetError> {
    let field = |column: &Column| {
        let (physical, logical) = match column.holds {
            Holds::Time => (Type::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
            Holds::Whole => (Type::INT64, None),
            Holds::Number => (Type::DOUBLE, None),
            Holds::Text => (Type::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let repetition = if column.required { Repetition::REQUIRED } else { Repetition::OPTIONAL };
        let field = SchemaType::primitive_type_builder(&column.name, physical)
            .with_repetition(repetition)
            .with_logical_type(logical)
            .with_id(Some(column.field));
        field.build().map(Arc::new)
    };
    let fields = table.columns.iter().map(field).collect::<std::result::Result<Vec<_>, _>>()?;
    SchemaType::group_type_builder(table.table.name()).with_fields(fields).build()
}

fn properties_of(table: &Table) -> std::result::Result<WriterProperties, ParquetError> {
    let described = |column: &Column| {
        let unit = column.unit.word();
        (column.name.clone(), serde_json::json!({ "unit": unit, "help": column.help }))
    };
    let columns: serde_json::Map<_, _> = table.columns.iter().map(described).collect();
    let kv = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    Ok(WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("tidemark".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(Some(vec![SortingColumn { column_idx: 0, descending: false, nulls_first: false }]))
        .set_key_value_metadata(Some(vec![
            kv(KEY_TABLE, table.table.name().to_owned()),
            kv(KEY_COLUMNS, serde_json::Value::Object(columns).to_string()),
        ]))
        .build())
}

/// A file of rows of a table; they are sorted by time first.
///
/// # Errors
/// Rows that are not of the table.
pub fn encode(table: StatsTable, mut rows: Vec<Row>) -> Result<Bytes> {
    let table = Table::of(table);
    rows.sort_unstable();
    let what = format!("a file of {}", table.table);
    let error = bad(&what);
    for row in &rows {
        if row.len() != table.columns.len() {
            return Err(error(&format!("a row of {} cells, the table has {}", row.len(), table.columns.len())));
        }
    }
    write(table, &rows).map_err(|e| error(&e))
}

fn write(table: &Table, rows: &[Row]) -> std::result::Result<Bytes, ParquetError> {
    let schema = Arc::new(schema_of(table)?);
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties_of(table)?))?;
    let mut group = file.next_row_group()?;
    for (index, column) in table.columns.iter().enumerate() {
        let cells = || rows.iter().map(|row| &row[index]);
        let levels: Vec<i16> = cells().map(|cell| i16::from(*cell != Cell::Absent)).collect();
        let levels = if column.required { None } else { Some(&levels[..]) };
        let mut writer = group.next_column()?.expect("the schema has this column");
        match column.holds {
            Holds::Time | Holds::Whole => {
                let whole = |cell: &Cell| if let Cell::Whole(whole) = cell { Some(*whole) } else { None };
                let values: Vec<_> = cells().filter_map(whole).collect();
                writer.typed::<Int64Type>().write_batch(&values, levels, None)?;
            }
            Holds::Number => {
                let values: Vec<_> = cells().filter_map(Cell::number).collect();
                writer.typed::<DoubleType>().write_batch(&values, levels, None)?;
            }
            Holds::Text => {
                let values: Vec<_> = cells().filter_map(Cell::text).map(ByteArray::from).collect();
                writer.typed::<ByteArrayType>().write_batch(&values, levels, None)?;
            }
        }
        writer.close()?;
    }
    group.close()?;
    file.into_inner().map(Bytes::from)
}

/// The rows of a file.
///
/// # Errors
/// What is no such file. Nothing that it says panics.
pub fn decode(table: StatsTable, what: &str, bytes: Bytes) -> Result<Vec<Row>> {
    let error = bad(what);
    // The decoder of Parquet is not total: what it panics on is damage like any other.
    match catch_unwind(AssertUnwindSafe(|| read(Table::of(table), bytes))) {
        Ok(rows) => rows.map_err(|e| error(&e)),
        Err(_) => Err(error(&"not a valid Parquet file")),
    }
}

fn read(table: &Table, bytes: Bytes) -> std::result::Result<Vec<Row>, ParquetError> {
    let general = |why: String| ParquetError::General(why);
    let reader = SerializedFileReader::new(bytes)?;
    let count = reader.metadata().file_metadata().num_rows();
    if !(0..=ROWS_MAX).contains(&count) {
        return Err(general(format!("{count} rows, at most {ROWS_MAX} are read")));
    }
    let mut rows = Vec::new();
    for record in reader.get_row_iter(None)? {
        let mut row = vec![Cell::Absent; table.columns.len()];
        for (name, field) in record?.get_column_iter() {
            let Some(index) = table.column(name) else { continue };
            row[index] = match (field, table.columns[index].holds) {
                (Field::Null, _) => Cell::Absent,
                (Field::Long(whole) | Field::TimestampMicros(whole), Holds::Time | Holds::Whole) => Cell::Whole(*whole),
                (Field::Double(number), Holds::Number) => Cell::Number(*number),
                (Field::Str(text), Holds::Text) => Cell::Text(text.clone()),
                (other, holds) => {
                    return Err(general(format!("column {name} has {other}, wanted {}", holds.parquet())));
                }
            };
        }
        if row.iter().zip(&table.columns).any(|(cell, column)| column.required && *cell == Cell::Absent) {
            return Err(general("a row lacks what every row has".to_owned()));
        }
        rows.push(row);
        if rows.len() as i64 > ROWS_MAX {
            return Err(general(format!("more than {ROWS_MAX} rows")));
        }
    }
    Ok(rows)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_rows(table: StatsTable) -> impl Strategy<Value = Vec<Row>> {
        let cell = |column: &'static Column| {
            let known = match column.holds {
                Holds::Time | Holds::Whole => (0..i64::MAX).prop_map(Cell::Whole).boxed(),
                Holds::Number => (-1e12_f64..1e12).prop_map(Cell::Number).boxed(),
                Holds::Text => ".{0,20}".prop_map(Cell::Text).boxed(),
            };
            let absent = if column.required { 0 } else { 1 };
            prop_oneof![3 => known, absent => Just(Cell::Absent)]
        };
        let row: Vec<_> = Table::of(table).columns.iter().map(cell).collect();
        proptest::collection::vec(row, 0..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn prop_rows_read_back_sorted(rows in any_rows(StatsTable::Event), disks in any_rows(StatsTable::DiskMinute)) {
            for (table, mut rows) in [(StatsTable::Event, rows), (StatsTable::DiskMinute, disks)] {
                let bytes = encode(table, rows.clone()).unwrap();
                rows.sort_unstable();
                prop_assert_eq!(decode(table, "x", bytes).unwrap(), rows);
            }
        }

        #[test]
        fn prop_damaged_files_are_errors_or_rows(at in any::<prop::sample::Index>(), bits in 1_u8.., cut in any::<bool>()) {
            let row: Row = Table::of(StatsTable::Event).columns.iter().map(|column| match column.holds {
                Holds::Text => "x".into(),
                _ => Cell::Whole(7),
            }).collect();
            let mut bytes = encode(StatsTable::Event, vec![row; 3]).unwrap().to_vec();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= bits }
            let _ = decode(StatsTable::Event, "x", bytes.into());
        }
    }

    #[test]
    fn a_file_of_another_table_is_refused() {
        let bytes = encode(StatsTable::GcPass, vec![]).unwrap();
        assert_eq!(
            decode(StatsTable::Event, "x", bytes).unwrap(),
            Vec::<Row>::new(),
            "without rows there is nothing to tell"
        );
        let cells = Table::of(StatsTable::GcPass).columns.iter().map(|column| match column.holds {
            Holds::Text => "x".into(),
            _ => Cell::Whole(1),
        });
        let bytes = encode(StatsTable::GcPass, vec![cells.collect()]).unwrap();
        let refused = decode(StatsTable::Event, "v/stats/x", bytes).unwrap_err();
        assert_eq!(refused.to_string(), "statistics in v/stats/x: Parquet error: a row lacks what every row has");
        assert!(encode(StatsTable::Event, vec![vec![]]).is_err());
    }
}
