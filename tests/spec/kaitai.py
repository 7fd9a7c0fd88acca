"""Parses objects of a domain with the parsers that the Kaitai Struct grammars generate, and shows what they found, a line of JSON
for each.

usage: kaitai.py GENERATED FILE...     GENERATED is what compile.cjs made"""

import json
import sys
from itertools import accumulate

sys.path.insert(0, sys.argv[1])
import tlf_record  # noqa: E402
import tlf_segment  # noqa: E402

PLAIN = ("minor features_read features_write features_gc features_compat epoch seq total_len first_lsn last_lsn first_time_ns "
         "last_time_ns acked_through row_count head_len data_len stream_blocks frame_count tick_ns").split()
HEX = "domain salt prev_header_hash meta_hash header_hash".split()


def numbers(column):
    return [number.value for number in column.numbers]


def segment(path):
    s = tlf_segment.TlfSegment.from_file(path)
    h = s.header
    found = {"header": {name: getattr(h, name) for name in PLAIN} | {name: getattr(h, name).hex() for name in HEX}}
    found["header"] |= {"kind": h.kind.name, "role": h.role.name}
    if h.kind.name == "cut":
        return found | {"cbor": s.cut.hex()}
    rows, place = [], 0
    for c in s.index.chunks:
        starts = accumulate(numbers(c.block_steps), initial=c.first_block.value)
        for start, blocks, lsn, kind in zip(starts, numbers(c.lengths), numbers(c.lsns), numbers(c.kinds)):
            rows.append([c.disk.value, start, blocks, h.first_lsn + lsn, ("data", "zero", "unmap")[kind], None if kind else place])
            place += 0 if kind else blocks
    steps = []
    for c in s.times.chunks:
        lsns = accumulate(numbers(c.lsn_steps), initial=c.first_lsn.value)
        ticks = accumulate(numbers(c.tick_steps), initial=c.first_tick.value)
        steps += [[lsn, tick * h.tick_ns] for lsn, tick in zip(lsns, ticks)]
    offsets = accumulate((len(frame) for frame in s.data.frames), initial=h.head_len)
    frames = [{"offset": offset, "stored_len": e.stored_len, "plain_len": e.plain_len, "codec": e.codec.name, "hash": e.hash.hex()}
              for e, offset in zip(s.framedir.entries, offsets)]
    return found | {"rows": rows, "frames": frames, "times": steps, "cbor": s.events.hex()}


def record(path):
    r = tlf_record.TlfRecord.from_file(path)
    return {"record": r.kind.name, "cbor": r.body.hex()}


for path in sys.argv[2:]:
    with open(path, "rb") as file:
        parse = {b"F": segment, b"R": record}[file.read(4)[3:]]
    print(json.dumps(parse(path)))
