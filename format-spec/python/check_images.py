"""Restores many disks at many points of one bucket, for tests: lines of `disk point` in, a line of JSON for each out.

usage: check_images.py URL"""

import io
import json
import sys

from restore import find_point
from store import open_store
from tlf.history import History
from tlf.wire import BLOCK, digest

history = History(open_store(sys.argv[1]))
print(json.dumps({"last_lsn": history.last_lsn, "final_through": history.final_through}))
for line in sys.stdin:
    disk, point = line.rstrip("\n").split(" ", 1)
    disk, lsn = int(disk), find_point(history, point)
    sizes = history.sizes(disk, lsn)
    file = io.BytesIO(bytes(sizes[-1][1] * BLOCK if sizes else 0))
    unknown = history.restore(disk, lsn, file)
    print(json.dumps({"lsn": lsn, "restorable": history.restorable(disk, lsn), "offered": history.ledger.offers(lsn), "blocks": len(file.getvalue()) // BLOCK, "unknown": unknown,
                      "blake3": digest(file.getvalue()).hex()}))
