"""Reads what Tidemark measures the way strangers do, and says what it found as JSON.

  check.py openmetrics < TEXT      parsed by Prometheus' own strict parser: {family: {type, unit, samples: [[name, labels, value]]}}
  check.py sums DIR TABLE          sums of all whole-number columns, by run: read by DuckDB and by Arrow, which have to agree
  check.py schema DIR TABLE        {column: {type, field_id, unit, help}} as Arrow sees a file
  check.py evolve FROM OLD NEW     writes a file without half of the columns, and one with another column
  check.py union FILE...           what DuckDB makes of files read together by name: [rows, columns, nulls in the last column]
"""

import json
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from prometheus_client.openmetrics.parser import text_string_to_metric_families


def openmetrics():
    found = {}
    for family in text_string_to_metric_families(sys.stdin.read()):
        samples = [[sample.name, sample.labels, sample.value] for sample in family.samples]
        assert family.name not in found, family.name
        found[family.name] = {"type": family.type, "unit": family.unit, "help": family.documentation, "samples": samples}
    return found


def sums(directory, table):
    place = Path(directory) / f"table={table}"
    whole = [field.name for field in ds.dataset(place, partitioning="hive").schema if field.type == pa.int64()]
    columns = ", ".join(f'coalesce(sum("{name}"), 0)::BIGINT AS "{name}"' for name in whole)
    relation = duckdb.sql(
        f"SELECT run, count(*) AS rows, {columns} FROM (SELECT DISTINCT * FROM read_parquet('{place}/*/*.parquet',"
        " hive_partitioning = true, union_by_name = true)) GROUP BY run"
    )
    by_duckdb = {row[0]: dict(zip(["rows", *whole], row[1:])) for row in relation.fetchall()}
    everything = ds.dataset(place, partitioning="hive").to_table()
    by_arrow = {}
    for run in everything["run"].unique().to_pylist():
        rows = everything.filter(pc.equal(everything["run"], run))
        by_arrow[run] = {"rows": rows.num_rows, **{name: pc.sum(rows[name]).as_py() or 0 for name in whole}}
    assert by_duckdb == by_arrow, (by_duckdb, by_arrow)
    for path in place.glob("*/*.parquet"):
        times = pq.read_table(path, partitioning=None)["time"].to_pylist()
        assert times == sorted(times), path
        group = pq.ParquetFile(path).metadata.row_group(0)
        assert group.column(0).compression == "ZSTD", path
        assert [sorting.column_index for sorting in group.sorting_columns] == [0], path
    return by_duckdb


def schema(directory, table):
    path = next((Path(directory) / f"table={table}").glob("*/*.parquet"))
    found = pq.read_schema(path)
    told = json.loads(found.metadata[b"tidemark.columns"])
    return {
        field.name: {"type": str(field.type), "field_id": int(field.metadata[b"PARQUET:field_id"]), **told[field.name]}
        for field in found
    }


def evolve(source, old, new):
    rows = pq.read_table(source, partitioning=None)
    kept = [name for nth, name in enumerate(rows.column_names) if nth % 2 == 0 or not rows.schema.field(name).nullable]
    pq.write_table(rows.select(kept), old, compression="zstd")
    pq.write_table(rows.append_column("phase_of_the_moon", pa.array([0.5] * rows.num_rows)), new, compression="zstd")
    return {"rows": rows.num_rows, "columns": rows.num_columns, "old_columns": len(kept)}


def union(*files):
    relation = duckdb.sql(f"FROM read_parquet({list(files)}, union_by_name = true, hive_partitioning = false)")
    last = relation.columns[-1]
    nulls = len(relation.filter(f'"{last}" IS NULL'))
    return {"rows": len(relation), "columns": len(relation.columns), "last": last, "nulls": nulls}


if __name__ == "__main__":
    commands = {"openmetrics": openmetrics, "sums": sums, "schema": schema, "evolve": evolve, "union": union}
    print(json.dumps(commands[sys.argv[1]](*sys.argv[2:])))
