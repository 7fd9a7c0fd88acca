"""Restores a disk at a point into a sparse file.

usage: restore.py URL DISK POINT OUT

URL is a directory or s3://BUCKET/PREFIX?endpoint=URL&region=R&ca=FILE; DISK is VM/DISK or #ID; POINT is latest, lsn:N, bookmark:NAME
or a time."""

import datetime
import json
import sys

from store import open_store
from tlf.history import History
from tlf.wire import BLOCK, Refused

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def find_point(history, text):
    """The LSN that a text means, 0 if there is none."""
    kind, _, name = text.partition(":")
    if text == "latest":
        return history.last_lsn
    if kind == "lsn":
        return int(name) if int(name) <= history.last_lsn else 0
    if kind == "bookmark":
        return history.bookmark(name)
    time = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return history.at((time - EPOCH) // datetime.timedelta(microseconds=1) * 1000)


def main(url, name, at, out):
    history = History(open_store(url))
    disk = max((disk for disk, known in history.disks.items() if name in (known, f"#{disk}")), default=0)
    lsn = find_point(history, at)
    if not history.ledger.offers(lsn):
        sys.exit(f"error: {at} (lsn {lsn}) is no longer kept: {history.ledger.fields['horizon'][0]} is the oldest of which all are")
    if not history.restorable(disk, lsn):
        sys.exit(f"error: {name} is not restorable at {at} (lsn {lsn} of {history.last_lsn}); there are {history.disks}")
    with open(out, "xb") as file:
        file.truncate(history.sizes(disk, lsn)[-1][1] * BLOCK)
        unknown = history.restore(disk, lsn, file)
    print(json.dumps({"disk": history.disks[disk], "lsn": lsn, "out": out, "unknown_blocks": unknown}))
    return 3 if unknown else 0


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    try:
        sys.exit(main(*sys.argv[1:]))
    except Refused as refused:
        print(f"error: {refused.key}: {refused}", file=sys.stderr)
        sys.exit(13)
