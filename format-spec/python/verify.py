"""Verifies every hash, chain and position of a bucket, and says what damage costs, in the JSON of `tidemark verify`.

usage: verify.py URL     a directory or s3://BUCKET/PREFIX?endpoint=URL&region=R&ca=FILE"""

import json
import sys

from store import open_store
from tlf.history import History
from tlf.segment import DATA
from tlf.wire import BLOCK, Refused


def main(url):
    damage, counts, bases = [], {"frames": 0, "rows": 0, "events": 0}, {}

    def damaged(refused, first_lsn=None, last_lsn=None, ranges=()):
        ranges = [{"disk": history.disks.get(disk, f"#{disk}"), "disk_id": disk, "offset_bytes": start * BLOCK,
                   "len_bytes": blocks * BLOCK, "first_lsn": lsn, "last_lsn": lsn} for disk, start, blocks, lsn in ranges]
        damage.append({"object": refused.key, "error": refused.error, "what": str(refused.what), "first_lsn": first_lsn,
                       "last_lsn": last_lsn, "ranges": ranges})

    history = History(open_store(url), damaged)
    for event in (event for event in history.events if event.name == "SEED_EXTENT"):
        for seed, extent in history.extents(event.fields["disk"], event.lsn)[-1:]:
            base = history.base(seed, extent)
            if isinstance(base, Refused):
                damaged(base, seed, seed, [(extent["disk"], extent["start"], extent["blocks"], seed)])
            else:
                bases[base.key] = base
    for s in [*history.segments, *bases.values()]:
        counts = {name: count + len(getattr(s, name)) for name, count in counts.items()}
        data = history.get(s.key)
        for n in range(len(s.frames)):
            try:
                s.plaintext(n, data)
            except Refused as refused:
                hit = [(row, first, end) for row in s.rows if row.kind == DATA
                       for frame, first, end in s.frames_of(row.place, row.blocks) if frame == n]
                ranges = [(row.disk, row.start + first - row.place, end - first, row.lsn) for row, first, end in hit]
                damaged(refused, s.header.first_lsn, s.header.last_lsn, ranges)
    lsns = {"first_lsn": history.segments[0].header.first_lsn, "last_lsn": history.last_lsn} if history.last_lsn else {}
    print(json.dumps({"location": url, "intact": not damage, **counts, **lsns, "damage": damage}, indent=2))
    return 13 if damage else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        sys.exit(main(sys.argv[1]))
    except Refused as refused:
        print(f"error: {refused.key}: {refused}", file=sys.stderr)
        sys.exit(13)
