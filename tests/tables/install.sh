#!/bin/sh
# Installs what reads the statistics in the tests into .tools/tables, a Python of its own: DuckDB, Arrow and the parser of Prometheus.
# Versions are pinned, files are checked by hash, nothing outside of .tools/ is touched. Does nothing when they are there already.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
place=$root/.tools/tables
wanted=$root/tests/tables/requirements.txt

mkdir -p "$place"
cmp -s "$wanted" "$place/python.done" && exit 0
python3 -m venv --clear "$place/python" || {
    echo "hint: apt-get install python3-venv" >&2
    exit 1
}
"$place/python/bin/pip" install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes -r "$wanted"
cp "$wanted" "$place/python.done"
