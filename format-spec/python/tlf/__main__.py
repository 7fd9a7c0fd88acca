"""tlf restore URL --disk VM/DISK --at POINT OUT    a disk at a point, into a sparse file
tlf verify URL                                   every hash, chain and position, as JSON

URL is a directory or s3://BUCKET/PREFIX?endpoint=URL&region=R&ca=FILE; POINT is latest, lsn:N, a time or bookmark:NAME."""

import argparse
import datetime
import json
import sys

from .history import History
from .segment import BLOCK, DATA
from .store import open_store
from .wire import Refused

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def find_point(history, text):
    """The LSN of a point, or None. At a time is the last LSN whose time is not later; of equal bookmarks the newest counts."""
    kind, _, name = text.partition(":")
    if kind == "lsn":
        return int(name) if 1 <= int(name) <= history.last_lsn else None
    if kind == "bookmark":
        return max((e.lsn for e in history.events if e.name == "BOOKMARK" and e.fields["name"] == name), default=None)
    later = []
    if text != "latest":
        ns = (datetime.datetime.fromisoformat(text) - EPOCH) // datetime.timedelta(microseconds=1) * 1000
        later = [lsn for lsn, time in history.steps if time > ns]
    return (later[0] - 1 if later else history.last_lsn) or None


def restore(args):
    history = History(open_store(args.url))
    disk = max((id for id, name in history.disks.items() if args.disk in (name, f"#{id}")), default=None)
    point = find_point(history, args.at)
    if disk is None or point is None:
        sys.exit(f"error: no {args.disk} or no {args.at}: lsn 1 to {history.last_lsn}, disks {history.disks}")
    if not history.restorable(disk, point):
        sys.exit(f"error: {args.disk} is not restorable at lsn {point}")
    with open(args.out, "xb") as file:
        file.truncate(history.sizes(disk, point)[-1][1] * BLOCK)
        unknown = history.restore(disk, point, file)
    print(json.dumps({"disk": history.disks[disk], "lsn": point, "out": args.out, "unknown_blocks": unknown}))
    return 3 if unknown else 0


def verify(args):
    damage, counts, seen = [], {"frames": 0, "rows": 0, "events": 0}, set()

    def damaged(refused, first_lsn=None, last_lsn=None, ranges=()):
        ranges = [{"disk": history.disks.get(disk, f"#{disk}"), "disk_id": disk, "offset_bytes": start * BLOCK,
                   "len_bytes": (end - start) * BLOCK, "first_lsn": lsn, "last_lsn": lsn} for disk, start, end, lsn in ranges]
        damage.append({"object": refused.key, "error": refused.error, "what": str(refused.what), "first_lsn": first_lsn,
                       "last_lsn": last_lsn, "ranges": ranges})

    def check_frames(s):
        data = history.store.get(s.key)
        counts.update({name: count + len(getattr(s, name)) for name, count in counts.items()})
        for n in range(len(s.frames)):
            try:
                s.plaintext(n, data)
            except Refused as refused:
                hit = [(r, max(r.place, s.firsts[n]) - r.place, min(r.place + r.blocks, s.firsts[n + 1]) - r.place)
                       for r in s.rows if r.kind == DATA and n in s.frames_of(r.place, r.place + r.blocks)]
                ranges = [(r.disk, r.start + lo, r.start + hi, r.lsn) for r, lo, hi in hit]
                damaged(refused, s.header.first_lsn, s.header.last_lsn, ranges)

    history = History(open_store(args.url), damaged)
    for s in history.segments:
        check_frames(s)
    named = (history.extents(e.fields["disk"], e.lsn)[-1:] for e in history.events if e.name == "SEED_EXTENT")
    for seed, extent in (last for found in named for last in found):
        base = history.base(seed, extent)
        if isinstance(base, Refused):
            damaged(base, seed, seed, [(extent["disk"], extent["start"], extent["start"] + extent["blocks"], seed)])
        elif base.key not in seen:
            check_frames(base)
            seen.add(base.key)
    lsns = {"first_lsn": history.segments[0].header.first_lsn, "last_lsn": history.last_lsn} if history.last_lsn else {}
    print(json.dumps({"location": args.url, "intact": not damage, **counts, **lsns, "damage": damage}, indent=2))
    return 13 if damage else 0


def main():
    parser = argparse.ArgumentParser(prog="tlf", usage=__doc__)
    parser.add_argument("command", choices=["restore", "verify"])
    parser.add_argument("url")
    parser.add_argument("out", nargs="?")
    parser.add_argument("--disk")
    parser.add_argument("--at", default="latest")
    args = parser.parse_intermixed_args()
    try:
        return verify(args) if args.command == "verify" else restore(args)
    except Refused as refused:
        print(f"error: {refused.key}: {refused}", file=sys.stderr)
        return 13


if __name__ == "__main__":
    sys.exit(main())
