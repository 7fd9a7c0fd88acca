#!/bin/sh
# Installs the validator of OpenAPI documents into .tools/openapi. Versions are pinned, nothing outside .tools/ is touched.
# Does nothing when it is there already.
set -eu

root=$(cd "$(dirname "$0")/../../.." && pwd)
venv=$root/.tools/openapi
wanted=$root/tests/control/openapi/requirements.txt
stamp=$venv/.installed

if [ -x "$venv/bin/python" ] && cmp -s "$wanted" "$stamp"; then
    exit 0
fi
mkdir -p "$root/.tools"
python3 -m venv "$venv" || {
    echo "hint: apt-get install python3-venv" >&2
    exit 1
}
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --no-deps -r "$wanted"
cp "$wanted" "$stamp"
