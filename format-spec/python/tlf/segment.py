"""A segment: 512 bytes of header, the sections that it lists, then DATA. SPEC.md, Segments."""

import struct
from bisect import bisect_left, bisect_right
from collections import namedtuple
from itertools import accumulate, pairwise

import zstandard

from .wire import BLOCK, DISK_BLOCKS_MAX, LIST, NUMBER, U64, Cbor, Cursor, Refused, digest, fields, must

MAGIC, NONE = bytes.fromhex("89544c460d0a1a0a"), bytes(32)
LAYOUT = struct.Struct("<8s 2H 4B 4Q 16s 12Q 4I 8s 32s 32s 168s 32s 32s 32s")
Header = namedtuple("Header", """magic major minor kind role granularity hash_algorithm features_read features_write features_gc
    features_compat domain epoch seq total_len first_lsn last_lsn first_time_ns last_time_ns acked_through row_count head_len
    data_len stream_blocks frame_count frame_plain_max tick_ns key_generation aead_and_reserved salt prev_header_hash
    section_table meta_hash header_hash header_mac""")
Row = namedtuple("Row", "disk start lsn blocks kind place")  # place: where its data is in the plaintext stream, in blocks
Frame = namedtuple("Frame", "offset stored_len plain_len codec hash")
Event = namedtuple("Event", "lsn code name fields")

LOG, BASE, CUT, COMPACT = 1, 2, 3, 4  # kinds of segments
WRITER, MAINTENANCE = 1, 2
DATA, ZERO, UNMAP = 0, 1, 2  # kinds of rows
INDEX, FRAMEDIR, TIMES, EVENTS, CUT_RECORD = SECTIONS = range(1, 6)
OBJECT_MAX, ROWS_MAX, CHUNK_MAX, FRAME_MAX = 2**28, 2**24, 128, 65536
FIXED = dict(granularity=1, hash_algorithm=1, frame_plain_max=65536, key_generation=0, aead_and_reserved=bytes(8), header_mac=NONE)
CODES = {
    1: ("DISK_ADD", "disk vm name blocks"), 2: ("DISK_RESIZE", "disk blocks"), 3: ("DISK_REMOVE", "disk"),
    4: ("VM_CONFIG", "vm format body"), 5: ("FLUSH", "disk"), 6: ("BARRIER", ""), 7: ("BOOKMARK", "name level"),
    8: ("SEED_START", "disk"), 9: ("SEED_EXTENT", "disk role epoch seq hash start blocks"), 10: ("SEED_DONE", "disk"),
    11: ("GAP", "disk from to"), 12: ("RESYNC_START", "disk"), 13: ("RESYNC_DONE", "disk"), 14: ("CONSISTENT_FROM", "disk"),
    15: ("KEYGEN", "generation"), 16: ("CLOCK_STEP", "from to"),
}


def segment_key(kind, role, epoch, seq):
    return f"{f'base/{role}' if kind in (BASE, COMPACT) else 'log/'}{epoch:016x}/{seq:016x}"


class Segment:
    """What a segment says, held to every rule that a single object can break, except those of its frames."""

    def __init__(self, key, data, domain=None):
        h = read_header(data)
        sections, own_key = read_table(h), segment_key(h.kind, " wm"[h.role], h.epoch, h.seq)
        must(domain in (None, h.domain), "WrongDomain", h.domain.hex())
        must(key == own_key, "Misplaced", f"it calls itself {own_key}")
        must(len(data) >= h.head_len, "TooShort", f"{len(data)} bytes, the head has {h.head_len}")
        must(digest(data[512 : h.head_len]) == h.meta_hash, "MetaHash", "the sections are not those of the header")  # H-3
        need = {CUT_RECORD} if h.kind == CUT else {INDEX, FRAMEDIR, TIMES, EVENTS}
        must(need <= sections.keys(), "SectionTable", f"no section {need - sections.keys()}")
        index, framedir, times, events, cut = (data[slice(*sections.get(id, (0, 0)))] for id in SECTIONS)
        self.key, self.header, self.rows, self.frames = key, h, read_index(index, h), read_framedir(framedir, h)
        self.steps, self.events = ([], []) if h.kind == CUT else (read_times(times, h), read_events(events, h))
        self.cut = read_cut(cut, h) if h.kind == CUT else None
        must(len(data) == h.total_len, "TotalLen", f"{len(data)} bytes, the header says {h.total_len}")
        check_lsns(self.rows, self.events, h)
        self.firsts = list(accumulate((frame.plain_len // BLOCK for frame in self.frames), initial=0))

    def frames_of(self, place, blocks):
        """Which frames hold these blocks of the plaintext stream, and from where to where."""
        for n in range(bisect_right(self.firsts, place) - 1, bisect_left(self.firsts, place + blocks)):
            yield n, max(place, self.firsts[n]), min(place + blocks, self.firsts[n + 1])

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
    log, base, cut, compact = (h.kind == kind for kind in (LOG, BASE, CUT, COMPACT))
    rules = {  # H-5
        "kind and role": h.role == WRITER if log or cut else base and h.role == WRITER or (base or compact) and h.role == MAINTENANCE,
        "what is fixed": all(getattr(h, name) == value for name, value in FIXED.items()),
        "epoch and seq": h.epoch >= 1 and (h.seq == 0 if cut else h.seq >= 1 or base),  # C-1
        "lengths": 512 <= h.head_len == h.total_len - h.data_len and h.total_len <= OBJECT_MAX and h.row_count <= ROWS_MAX,  # L-1
        "LSNs": h.first_lsn >= 1 and (h.last_lsn >= h.first_lsn if log or compact else h.last_lsn == h.first_lsn - cut),
        "times": h.first_time_ns <= h.last_time_ns and h.tick_ns and h.first_time_ns % h.tick_ns == 0 == h.last_time_ns % h.tick_ns,
        "acked_through": h.acked_through == 0 if cut or compact else h.acked_through < h.first_lsn,  # C-4
        "prev_header_hash": h.prev_header_hash == NONE or not (base or compact),
    }
    for what, holds in rules.items():
        must(holds, "HeaderField", f"{what} of {h}")
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
        if id in SECTIONS:
            must((id == CUT_RECORD) == (h.kind == CUT), "SectionTable", f"section {id} in a segment of kind {h.kind}")
            sections[id] = offset, at
        must(id in SECTIONS or not flags, "UnknownCriticalSection", id)
    must(at == h.head_len, "SectionTable", f"sections end at {at}, the head at {h.head_len}")
    return sections


def read_index(section, h):
    c, rows, place = Cursor(section), [], 0
    while c.at < len(section):
        disk, n, first = c.varint(), c.number(1) + 1, c.varint()
        must(disk < 2**32 and n <= CHUNK_MAX, "Column", f"a chunk of {n} rows of disk {disk}")
        starts = list(accumulate(c.column(n - 1), initial=first))
        must(starts[-1] < U64, "Column", "a first block exceeds 64 bits")
        for start, blocks, lsn, kind in zip(starts, c.column(n), c.column(n), c.column(n)):
            rows.append(Row(disk, start, h.first_lsn + lsn, blocks, kind, None if kind else place))
            fits = blocks >= 1 and start + blocks <= DISK_BLOCKS_MAX and h.first_lsn + lsn <= h.last_lsn and kind <= UNMAP
            must(fits, "Row", rows[-1])  # I-2
            place += 0 if kind else blocks
        must(len(rows) <= h.row_count, "Mismatch", f"more than {h.row_count} rows")
    for a, b in pairwise(rows):
        must(a[:3] < b[:3], "Row", f"{b} behind {a}")  # I-1
        must(not share_a_block(a, b), "Row", f"{a} shares a block with {b}")  # I-3, as far as it shows here
    found, said = (len(rows), place), (h.row_count, h.stream_blocks)
    must(found == said, "Mismatch", f"rows and blocks of data are {found}, the header says {said}")  # I-4
    return rows


def read_framedir(section, h):
    c, frames, offset, plain = Cursor(section), [], h.head_len, 0
    for _ in range(h.frame_count):
        stored_len, plain_len, codec, zero, hash = struct.unpack("<2IB3s16s", c.take(28))
        frames.append(Frame(offset, stored_len, plain_len, codec, hash))
        fits = stored_len == plain_len if codec == 0 else 0 < stored_len < plain_len and codec == 1
        must(fits and 0 < plain_len <= FRAME_MAX and plain_len % BLOCK == 0 and not any(zero), "Frame", frames[-1])  # FR-2
        offset, plain = offset + stored_len, plain + plain_len
    c.end()
    found, said = (offset, plain), (h.total_len, h.stream_blocks * BLOCK)
    must(found == said, "Mismatch", f"frames end at byte and plaintext {found}, the header says {said}")  # FR-1
    return frames


def read_times(section, h):
    """The steps, each (LSN, nanoseconds)."""
    c, steps = Cursor(section), []
    while c.at < len(section):
        n, first_lsn, first_tick = c.number(1) + 1, c.varint(), c.varint()
        must(n <= CHUNK_MAX, "Times", f"a chunk of {n} steps")
        lsns, ticks = (accumulate(c.column(n - 1), initial=first) for first in (first_lsn, first_tick))
        steps += [(lsn, tick * h.tick_ns) for lsn, tick in zip(lsns, ticks)]
    first, (last_lsn, last_time) = steps[:1], steps[-1] if steps else (0, None)
    ends = first == [(h.first_lsn, h.first_time_ns)] and last_lsn <= h.last_lsn and last_time == h.last_time_ns
    must(ends, "Times", "they are not those of the header")  # T-2
    must(all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(steps)), "Times", "steps do not ascend")  # T-1
    return steps


def read_events(section, h):
    c, events, last = Cbor(section, "Cbor"), [], h.first_lsn - 1
    for _ in range(c.open(LIST)):
        must(c.open(LIST) == 3, "Cbor", "an event is a list of three")
        lsn, code, record = c.open(NUMBER), c.open(NUMBER), c.record()
        must(last < lsn <= h.last_lsn, "Event", f"lsn {lsn} behind lsn {last}")  # E-2
        must(code in CODES or code >= 128, "UnknownCriticalEvent", code)  # E-1
        name, names = CODES.get(code, ("OTHER", ""))
        events.append(Event(lsn, code, name, fields(record, names) if code in CODES else record))
        last = lsn
    c.end()
    for extent in (event.fields for event in events if event.name == "SEED_EXTENT"):
        start, blocks = extent["start"], extent["blocks"]
        must(blocks >= 1 and start + blocks <= DISK_BLOCKS_MAX, "Field", f"an extent from {start} of {blocks} blocks")
    return events


def read_cut(section, h):
    c = Cbor(section, "Cbor")
    cut = fields(c.record(), "next_lsn claim_nonce disks", "tail_epoch tail_seq tail_hash")
    c.end()
    cut["disks"] = [fields(disk, "disk vm name blocks", "consistent_from seeded_at removed_at") for disk in cut["disks"]]
    ids = [disk["disk"] for disk in cut["disks"]]
    must(ids == sorted(set(ids)), "Field", f"disks {ids} do not ascend")
    tail = cut.keys() & {"tail_epoch", "tail_seq", "tail_hash"}
    must(len(tail) in (0, 3), "Field", "a part of the tail is missing")
    must(cut["next_lsn"] == h.first_lsn and (tail or h.first_lsn == 1), "Mismatch", f"next_lsn is {cut['next_lsn']}")  # C-2
    must(cut.get("tail_hash", NONE) == h.prev_header_hash, "Field", "tail_hash is not prev_header_hash")  # C-3
    must(cut.get("tail_epoch", 0) < h.epoch, "Field", f"it continues epoch {cut.get('tail_epoch')}")
    return cut


def check_lsns(rows, events, h):
    for a, b in pairwise(sorted(rows, key=lambda row: (row.lsn, row.disk, row.start))):
        must(not share_a_block(a, b), "Row", f"{a} shares a block with {b}")  # I-3
    if h.kind == LOG:
        writes, others = {row.lsn for row in rows}, {event.lsn for event in events}
        must(not writes & others, "NotDense", f"both a write and an event: {writes & others}")  # O-2
        must(len(writes | others) == h.last_lsn - h.first_lsn + 1, "NotDense", "an lsn is neither a write nor an event")  # O-1


def share_a_block(a, b):
    return (a.lsn, a.disk) == (b.lsn, b.disk) and b.start < a.start + a.blocks
