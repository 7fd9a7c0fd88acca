#!/bin/sh
# Installs what the tests of the format need into .tools/spec: the packages of the second reader in a Python of their own, and the
# Kaitai Struct compiler with its runtime. Versions are pinned, files are checked by hash, nothing outside of .tools/ is touched. Does nothing
# when they are there already.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
place=$root/.tools/spec
reader=$root/format-spec/python/requirements.txt
tools=$root/tests/spec/requirements.txt
lock=$root/tests/spec/package-lock.json

mkdir -p "$place"
cat "$reader" "$tools" >"$place/wanted"
if ! cmp -s "$place/wanted" "$place/python.done"; then
    python3 -m venv --clear "$place/python" || {
        echo "hint: apt-get install python3-venv" >&2
        exit 1
    }
    "$place/python/bin/pip" install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes -r "$place/wanted"
    mv "$place/wanted" "$place/python.done"
fi
if ! cmp -s "$lock" "$place/node.done"; then
    cp "$root/tests/spec/package.json" "$lock" "$place/"
    npm ci --silent --no-audit --no-fund --ignore-scripts --prefix "$place"
    cp "$lock" "$place/node.done"
fi
