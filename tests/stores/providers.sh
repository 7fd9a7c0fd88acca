#!/bin/bash
# Asks every store that the tests know what it can do, and puts the answers into the table of docs/providers.md.
# usage: providers.sh CHECK_STORE      Installs what is missing, Ceph too: run as root.
set -euo pipefail
check=$(realpath "$1")
cd "$(dirname "$0")/../.."
tests/stores/install.sh ceph
docs=docs/providers.md
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
"$check" --head >"$rows"
for store in file seaweedfs seaweedfs-tls azurite ceph ceph-versioned rclone memory; do
    echo "asking $store" >&2
    # A store that breaks promises is part of the table.
    out=$("$check" "$store") || true
    grep '^|' <<<"$out" >>"$rows" || { echo "error: no answer of $store: $out" >&2; exit 1; }
done
# The old table lies between the markers.
sed -i -e "/^<!-- probed -->\$/,/^<!-- end -->\$/{//!d}" -e "/^<!-- probed -->\$/r $rows" "$docs"
