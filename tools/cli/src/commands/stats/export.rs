//! `tidemark stats export`: tables as files.

use super::{Period, PeriodArgs};
use crate::args::BucketArgs;
use crate::context::open_bucket;
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tidemark_bucket::ReadOnly;
use tidemark_env::Env;
use tidemark_format::{StatsTable, TimeNs};
use tidemark_reader::TimeText;
use tidemark_telemetry::registry::{Holds, Table};
use tidemark_telemetry::{Cell, Row, TableReader, days};

/// Copy tables out of the bucket, as Parquet, CSV or JSON
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    period: PeriodArgs,
    /// Only this table; may be repeated
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<StatsTable>,
    /// Where to; made if absent
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "parquet")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The bucket's own files
    Parquet,
    /// One file for each table, with a line of names
    Csv,
    /// One file for each table, with an object on each line
    Json,
}

#[derive(Debug, Serialize)]
struct Report {
    location: String,
    out: String,
    tables: Vec<Exported>,
}

#[derive(Debug, Serialize)]
struct Exported {
    table: &'static str,
    files: u64,
    /// Null where files are copied as they are.
    rows: Option<u64>,
}

pub(crate) async fn run(args: ExportArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(&args.bucket)?.read_only();
    let period = args.period.at(Env::system().clock.wall())?;
    let tables = if args.tables.is_empty() { StatsTable::ALL.to_vec() } else { args.tables };
    std::fs::create_dir_all(&args.out).with_context(|| format!("make {}", args.out.display()))?;
    let (exported, damaged) = match args.format {
        Format::Parquet => (copy(&bucket, &tables, period, &args.out).await?, Vec::new()),
        format => write_rows(bucket.clone(), &tables, period, &args.out, format).await?,
    };
    let report = Report { location: bucket.location(), out: args.out.display().to_string(), tables: exported };
    ui.answer(&report, in_text)?;
    match damaged.first() {
        None => Ok(Outcome::Done),
        Some(first) => Err(Refused::partial(format!("{} files could not be read: {first}", damaged.len())).into()),
    }
}

async fn copy(bucket: &ReadOnly, tables: &[StatsTable], period: Period, out: &Path) -> anyhow::Result<Vec<Exported>> {
    let mut exported: Vec<_> =
        tables.iter().map(|table| Exported { table: table.name(), files: 0, rows: None }).collect();
    for ((table, day), files) in days(bucket).await? {
        let (Some(nth), true) = (tables.iter().position(|of| *of == table), period.days().contains(&day)) else {
            continue;
        };
        for (key, _) in files {
            let name = key.to_string();
            let path = out.join(name.trim_start_matches("v/stats/"));
            let place = path.parent().unwrap_or(out);
            std::fs::create_dir_all(place).with_context(|| format!("make {}", place.display()))?;
            std::fs::write(&path, bucket.get(&key).await?).with_context(|| format!("write {}", path.display()))?;
            exported[nth].files += 1;
        }
    }
    Ok(exported)
}

async fn write_rows(
    bucket: ReadOnly,
    tables: &[StatsTable],
    period: Period,
    out: &Path,
    format: Format,
) -> anyhow::Result<(Vec<Exported>, Vec<String>)> {
    let (mut exported, mut damaged) = (Vec::new(), Vec::new());
    // One table after the other: only one has to fit into memory.
    for table in tables {
        let found = TableReader::new(bucket.clone()).read(&[*table], period.days()).await?;
        let found = found.into_iter().next().unwrap_or_default();
        damaged.extend(found.damaged);
        let rows: Vec<_> =
            found.rows.iter().filter(|row| matches!(row[0], Cell::Whole(at) if period.has(at))).collect();
        let end = if format == Format::Csv { "csv" } else { "json" };
        let path = out.join(format!("{table}.{end}"));
        write_table(Table::of(*table), &rows, &path, format).with_context(|| format!("write {}", path.display()))?;
        exported.push(Exported { table: table.name(), files: 1, rows: Some(rows.len() as u64) });
    }
    Ok((exported, damaged))
}

fn write_table(table: &Table, rows: &[&Row], path: &Path, format: Format) -> anyhow::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    if format == Format::Csv {
        let names: Vec<_> = table.columns.iter().map(|column| column.name.as_str()).collect();
        writeln!(file, "{}", names.join(","))?;
    }
    for row in rows {
        let values = row.iter().zip(&table.columns).map(|(cell, column)| json_of(cell, column.holds));
        if format == Format::Csv {
            let cells: Vec<_> = values.map(|value| csv_of(&value)).collect();
            writeln!(file, "{}", cells.join(","))?;
        } else {
            let members = table.columns.iter().map(|column| column.name.clone()).zip(values);
            writeln!(file, "{}", serde_json::Value::Object(members.collect()))?;
        }
    }
    Ok(file.flush()?)
}

fn json_of(cell: &Cell, holds: Holds) -> serde_json::Value {
    match (cell, holds) {
        (Cell::Absent, _) => serde_json::Value::Null,
        (Cell::Whole(micros), Holds::Time) => {
            let ns = u64::try_from(*micros).unwrap_or_default().saturating_mul(1000);
            TimeText(TimeNs::new(ns)).to_string().into()
        }
        (Cell::Whole(whole), _) => (*whole).into(),
        (Cell::Number(number), _) => (*number).into(),
        (Cell::Text(text), _) => text.as_str().into(),
    }
}

fn csv_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) if text.contains([',', '"', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn in_text(report: &Report) -> String {
    let line = |exported: &Exported| match exported.rows {
        Some(rows) => format!("{}: {rows} rows", exported.table),
        None => format!("{}: {} files", exported.table, exported.files),
    };
    report.tables.iter().map(line).chain([format!("in {}", report.out)]).collect::<Vec<_>>().join("\n")
}
