"""A segment: 512 bytes of header, the sections that it lists, then DATA. SPEC.md, Segments."""

import struct
from bisect import bisect_left, bisect_right
from collections import namedtuple
from itertools import accumulate

import zstandard

from .wire import BLOCK, LIST, NUMBER, U64, Cbor, Cursor, Refused, digest, fields, must

MAGIC = bytes.fromhex("89544c460d0a1a0a")
LAYOUT = struct.Struct("<8s 2H 4B 4Q 16s 12Q 4I 8s 32s 32s 168s 32s 32s 32s")
Header = namedtuple("Header", """magic major minor kind role granularity hash_algorithm features_read features_write features_gc
    features_compat domain epoch seq total_len first_lsn last_lsn first_time_ns last_time_ns acked_through row_count head_len
    data_len stream_blocks frame_count frame_plain_max tick_ns key_generation aead_and_reserved salt prev_header_hash
    section_table meta_hash header_hash header_mac""")
Row = namedtuple("Row", "disk start blocks lsn kind place")  # place: where its data is in the plaintext stream, in blocks
Frame = namedtuple("Frame", "offset stored_len plain_len codec hash")
Event = namedtuple("Event", "lsn code name fields")

LOG, BASE, CUT = 1, 2, 3
WRITER, MAINTENANCE = 1, 2
DATA, ZERO, UNMAP = 0, 1, 2
INDEX, FRAMEDIR, TIMES, EVENTS, CUT_RECORD = range(1, 6)
OBJECT_MAX, ROWS_MAX, CHUNK_MAX, DISK_BLOCKS_MAX, FRAME_MAX = 2**28, 2**24, 128, 2**54, 65536
NONE = bytes(32)
CODES = {
    1: ("DISK_ADD", "disk vm name blocks"), 2: ("DISK_RESIZE", "disk blocks"), 3: ("DISK_REMOVE", "disk"),
    4: ("VM_CONFIG", "vm format body"), 5: ("FLUSH", "disk"), 6: ("BARRIER", ""), 7: ("BOOKMARK", "name level"),
    8: ("SEED_START", "disk"), 9: ("SEED_EXTENT", "disk role epoch seq hash start blocks"), 10: ("SEED_DONE", "disk"),
    11: ("GAP", "disk from to"), 12: ("RESYNC_START", "disk"), 13: ("RESYNC_DONE", "disk"), 14: ("CONSISTENT_FROM", "disk"),
    15: ("KEYGEN", "generation"), 16: ("CLOCK_STEP", "from to"),
}


def segment_key(kind, role, epoch, seq):
    return f"{f'base/{role}' if kind == BASE else 'log/'}{epoch:016x}/{seq:016x}"


class Segment:
    """What a segment says, held to every rule that a single object can break, except those of its frames."""

    def __init__(self, key, data, domain=None):
        self.key, self.header, self.cut = key, read_header(data), None
        h, own_key = self.header, segment_key(self.header.kind, " wm"[self.header.role], self.header.epoch, self.header.seq)
        sections = read_table(h)
        must(domain in (None, h.domain), "WrongDomain", h.domain.hex())
        must(key == own_key, "Misplaced", f"it calls itself {own_key}")
        must(len(data) >= h.head_len, "TooShort", f"{len(data)} bytes, the head has {h.head_len}")
        must(digest(data[512 : h.head_len]) == h.meta_hash, "MetaHash", "the sections are not those of the header")  # H-3
        need = {CUT_RECORD} if h.kind == CUT else {INDEX, FRAMEDIR, TIMES, EVENTS}
        must(need <= sections.keys(), "SectionTable", f"no section {need - sections.keys()}")
        index, framedir, times, events, cut = (data[slice(*sections.get(id, (0, 0)))] for id in range(INDEX, CUT_RECORD + 1))
        self.rows, self.frames = read_index(index, h), read_framedir(framedir, h)
        self.steps, self.events = ([], []) if h.kind == CUT else (read_times(times, h), read_events(events, h))
        if h.kind == CUT:
            self.cut = read_cut(cut, h)
        must(len(data) == h.total_len, "TotalLen", f"{len(data)} bytes, the header says {h.total_len}")
        self.check_lsns()
        self.firsts = list(accumulate((frame.plain_len // BLOCK for frame in self.frames), initial=0))

    def check_lsns(self):
        """I-3, O-1, O-2."""
        last = 0, 0, 0
        for row in sorted(self.rows, key=lambda row: (row.lsn, row.disk, row.start)):
            must((row.lsn, row.disk, row.start) >= last, "Row", f"{row} shares a block with another of its lsn")
            last = row.lsn, row.disk, row.start + row.blocks
        if self.header.kind == LOG:
            writes, events = {row.lsn for row in self.rows}, {event.lsn for event in self.events}
            must(not writes & events, "NotDense", f"both a write and an event: {writes & events}")
            lsns = self.header.last_lsn - self.header.first_lsn + 1
            must(len(writes) + len(events) == lsns, "NotDense", "an lsn is neither a write nor an event")

    def frames_of(self, first, end):
        """Numbers of the frames that hold the blocks from `first` to `end` of the plaintext stream."""
        return range(bisect_right(self.firsts, first) - 1, bisect_left(self.firsts, end))

    def plaintext(self, n, data):
        """Frame `n` of the object `data`, opened: FR-4, FR-5."""
        frame = self.frames[n]
        stored = data[frame.offset : frame.offset + frame.stored_len]
        must(digest(stored)[:16] == frame.hash, "FrameHash", f"frame {n} is not what was written", self.key)
        if frame.codec == 0:
            return stored
        try:
            found = zstandard.get_frame_parameters(stored)
            honest = stored[:4] == zstandard.FRAME_HEADER and found.dict_id == 0
            honest &= found.content_size in (frame.plain_len, zstandard.CONTENTSIZE_UNKNOWN)
            must(honest, "FrameContents", f"frame {n} is not one zstd frame of {frame.plain_len} bytes", self.key)
            plain = zstandard.ZstdDecompressor().decompress(stored, max_output_size=frame.plain_len, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Refused("FrameContents", f"frame {n}: {error}", self.key) from None
        must(len(plain) == frame.plain_len, "FrameContents", f"frame {n} holds {len(plain)} bytes", self.key)
        return plain


def read_header(data):
    must(len(data) >= 512, "TooShort", f"{len(data)} bytes are no header")
    h = Header._make(LAYOUT.unpack_from(data))
    must(h.magic == MAGIC, "Magic", h.magic.hex())  # H-1
    must(h.major == 1, "Major", h.major)  # V-1
    must(digest(data[:448]) == h.header_hash, "HeaderHash", "the header is not what was written")  # H-2
    must(h.features_read == 0, "ReadFeatures", f"{h.features_read:#x}")  # V-2
    log, base, cut = (h.kind == kind for kind in (LOG, BASE, CUT))
    tick = max(h.tick_ns, 1)
    rules = {  # H-5, L-1, C-1, C-4
        "kind": log or base or cut,
        "role": h.role == WRITER or (base and h.role == MAINTENANCE),
        "granularity": h.granularity == 1,
        "hash_algorithm": h.hash_algorithm == 1,
        "epoch": h.epoch >= 1,
        "seq": h.seq == 0 if cut else h.seq >= 1 or base,
        "total_len": h.total_len == h.head_len + h.data_len <= OBJECT_MAX,
        "first_lsn": h.first_lsn >= 1,
        "last_lsn": h.last_lsn >= h.first_lsn if log else h.last_lsn == h.first_lsn - cut,
        "first_time_ns": h.first_time_ns % tick == 0,
        "last_time_ns": h.last_time_ns % tick == 0 and h.last_time_ns >= h.first_time_ns,
        "acked_through": h.acked_through == 0 if cut else h.acked_through < h.first_lsn,
        "row_count": h.row_count <= ROWS_MAX,
        "head_len": h.head_len >= 512,
        "frame_plain_max": h.frame_plain_max == FRAME_MAX,
        "tick_ns": h.tick_ns >= 1,
        "key_generation": h.key_generation == 0,
        "aead_and_reserved": h.aead_and_reserved == bytes(8),
        "prev_header_hash": h.prev_header_hash == NONE or not base,
        "header_mac": h.header_mac == NONE,
    }
    for name, holds in rules.items():
        must(holds, "HeaderField", f"{name} is {getattr(h, name)}")
    return h


def read_table(h):
    """H-4, V-3: where each known section begins and ends."""
    sections, at, last = {}, 512, 0
    for slot in range(0, len(h.section_table), 24):
        id, flags, zero, offset, length = struct.unpack_from("<2HI2Q", h.section_table, slot)
        if id == 0:
            must(not any(h.section_table[slot:]), "SectionTable", "something is in or behind an unused slot")
            break
        must(id > last and flags <= 1 and zero == 0 and offset == at, "SectionTable", f"slot of section {id}")
        last, at = id, at + length
        if id <= CUT_RECORD:
            must((id == CUT_RECORD) == (h.kind == CUT), "SectionTable", f"section {id} in a segment of kind {h.kind}")
            sections[id] = offset, at
        must(id <= CUT_RECORD or not flags, "UnknownCriticalSection", id)
    must(at == h.head_len, "SectionTable", f"sections end at {at}, the head at {h.head_len}")
    return sections


def read_index(section, h):
    c, rows, place, last = Cursor(section), [], 0, Row(-1, 0, 0, 0, 0, 0)
    while c.left():
        disk, n, first = c.varint(), c.number(1) + 1, c.varint()
        must(disk < 2**32 and n <= CHUNK_MAX, "Column", f"a chunk of {n} rows of disk {disk}")
        starts = list(accumulate(c.column(n - 1), initial=first))
        must(starts[-1] < U64, "Column", "a first block exceeds 64 bits")
        for start, blocks, lsn, kind in zip(starts, c.column(n), c.column(n), c.column(n)):
            row = Row(disk, start, blocks, h.first_lsn + lsn, kind, place if kind == DATA else None)
            fits = blocks >= 1 and start + blocks <= DISK_BLOCKS_MAX and row.lsn <= h.last_lsn and kind <= UNMAP
            must(fits, "Row", row)  # I-2
            must((disk, start, row.lsn) > (last.disk, last.start, last.lsn), "Row", f"{row} behind {last}")  # I-1
            overlap = (disk, row.lsn) == (last.disk, last.lsn) and start < last.start + last.blocks
            must(not overlap, "Row", f"{row} shares a block with {last}")  # I-3
            rows.append(row)
            place, last = place + (blocks if kind == DATA else 0), row
        must(len(rows) <= h.row_count, "Mismatch", f"more than {h.row_count} rows")
    must(len(rows) == h.row_count, "Mismatch", f"{len(rows)} rows, the header says {h.row_count}")  # I-4
    must(place == h.stream_blocks, "Mismatch", f"{place} blocks of data, the header says {h.stream_blocks}")
    return rows


def read_framedir(section, h):
    for error, fits in ("TooShort", len(section) >= 28 * h.frame_count), ("TrailingBytes", len(section) <= 28 * h.frame_count):
        must(fits, error, f"{len(section)} bytes for {h.frame_count} frames")
    frames, offset, plain = [], h.head_len, 0
    for stored_len, plain_len, codec, zero, hash in struct.iter_unpack("<2IB3s16s", section):
        frame = Frame(offset, stored_len, plain_len, codec, hash)
        fits = stored_len == plain_len if codec == 0 else 0 < stored_len < plain_len and codec == 1
        must(fits and 0 < plain_len <= FRAME_MAX and plain_len % BLOCK == 0 and not any(zero), "Frame", frame)  # FR-2
        frames.append(frame)
        offset, plain = offset + stored_len, plain + plain_len
    must(offset == h.total_len, "Mismatch", f"frames end at {offset}, the object at {h.total_len}")  # FR-1
    must(plain == h.stream_blocks * BLOCK, "Mismatch", f"frames of {plain} bytes for {h.stream_blocks} blocks")
    return frames


def read_times(section, h):
    """T-1, T-2: the steps, each (LSN, nanoseconds)."""
    c, steps = Cursor(section), []
    while c.left():
        n, lsn, tick = c.number(1) + 1, c.varint(), c.varint()
        must(n <= CHUNK_MAX, "Times", f"a chunk of {n} steps")
        for lsn, tick in zip(accumulate(c.column(n - 1), initial=lsn), accumulate(c.column(n - 1), initial=tick)):
            time = tick * h.tick_ns
            ascends = lsn > steps[-1][0] and time > steps[-1][1] if steps else (lsn, time) == (h.first_lsn, h.first_time_ns)
            must(ascends and lsn <= h.last_lsn and time < U64, "Times", f"step to {time} at lsn {lsn}")
            steps.append((lsn, time))
    must(steps and steps[-1][1] == h.last_time_ns, "Times", "the last step is not to the last time")
    return steps


def read_events(section, h):
    c, events, last = Cbor(section), [], h.first_lsn - 1
    for _ in range(c.open(LIST)):
        must(c.open(LIST) == 3, "Cbor", "an event is a list of three")
        lsn, code, record = c.open(NUMBER), c.open(NUMBER), c.record()
        must(last < lsn <= h.last_lsn, "Event", f"lsn {lsn} behind lsn {last}")  # E-2
        must(code in CODES or code >= 128, "UnknownCriticalEvent", code)  # E-1
        name, names = CODES.get(code, ("OTHER", ""))
        event = Event(lsn, code, name, fields(record, names) if code in CODES else record)
        extent = [event.fields[name] for name in ("start", "blocks")] if name == "SEED_EXTENT" else [0, 1]
        must(extent[1] >= 1 and sum(extent) <= DISK_BLOCKS_MAX, "Field", f"an extent from {extent[0]} of {extent[1]} blocks")
        events.append(event)
        last = lsn
    must(c.left() == 0, "TrailingBytes", f"{c.left()} bytes behind the events")
    return events


def read_cut(section, h):
    c = Cbor(section)
    cut = fields(c.record(), "next_lsn claim_nonce disks", "tail_epoch tail_seq tail_hash")
    must(c.left() == 0, "TrailingBytes", f"{c.left()} bytes behind the CUT")
    cut["disks"] = [fields(disk, "disk vm name blocks", "consistent_from seeded_at removed_at") for disk in cut["disks"]]
    ids = [disk["disk"] for disk in cut["disks"]]
    must(ids == sorted(set(ids)), "Field", f"disks {ids} do not ascend")
    tail = [cut[name] for name in ("tail_epoch", "tail_seq", "tail_hash") if name in cut]
    must(len(tail) in (0, 3), "Field", "a part of the tail is missing")
    must(cut["next_lsn"] == h.first_lsn and (tail or h.first_lsn == 1), "Mismatch", f"next_lsn is {cut['next_lsn']}")  # C-2
    must(cut.get("tail_hash", NONE) == h.prev_header_hash, "Field", "tail_hash is not prev_header_hash")  # C-3
    must(cut.get("tail_epoch", 0) < h.epoch, "Field", f"it continues epoch {cut.get('tail_epoch')}")
    return cut
