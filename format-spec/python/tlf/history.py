"""From the claims to the one true sequence of segments, and from there to a disk at a point. SPEC.md, Reader rules."""

from bisect import bisect_left
from itertools import count, islice, pairwise

from .ledger import Ledger
from .records import read_claim, read_genesis
from .segment import BASE, COMPACT, CUT, DATA, LOG, Segment, segment_key
from .wire import BLOCK, DISK_BLOCKS_MAX, Refused

IN_FLIGHT_MAX = 16  # F-5: so far behind the end of the log R-3 looks


def stop(refused, *_):
    raise refused


def absent(found):
    return isinstance(found, Refused) and found.error == "Missing"


class History:
    """What a bucket says. `damaged(refused, first_lsn, last_lsn)` is told what breaks a rule; if it returns, reading goes on."""

    def __init__(self, get, damaged=stop):
        self.get, self.damaged, self.domain, self.name = get, damaged, None, None
        if self.usable(genesis := self.read("tidemark.json", read_genesis)):
            self.domain, self.name = bytes.fromhex(genesis["domain"].replace("-", "")), genesis["name"]
        claims, self.ledger = self.newest_claim(), Ledger(self)
        epoch, chain, behind = self.walk(claims)
        self.check_chain(chain)
        self.check_end(behind)
        acked = max((s.header.acked_through for s in self.segments), default=0)
        self.final_through = self.last_lsn if epoch == claims and absent(self.claim(claims + 1)) else acked
        self.events = [event for s in self.segments for event in s.events]
        self.steps = [step for s in self.segments for step in s.steps]
        self.check_disks(whole=len(chain) == len(self.segments))

    def read(self, key, decode=Segment):
        """The object under a key, or the `Refused` that says what is wrong with it."""
        data = self.get(key)
        try:
            return Refused("Missing", "it is not there", key) if data is None else decode(key, data, self.domain)
        except Refused as refused:
            return Refused(refused.error, refused.what, key)

    def usable(self, found, *lsns):
        return not isinstance(found, Refused) or self.damaged(found, *lsns) is not None

    def claim(self, epoch):
        return self.read(f"claim/w/{epoch:016x}", read_claim)

    def newest_claim(self):
        """c. R-8: a claim is lost if the next one, or its own CUT, is there without it."""
        for epoch in count(1):
            if absent(self.claim(epoch)) and absent(self.claim(epoch + 1)) and absent(self.read(segment_key(LOG, "w", epoch, 0))):
                return epoch - 1
            self.usable(self.claim(epoch))  # asked for again: it may have come between the two

    def walk(self, claims):
        """R-3: the newest epoch with a CUT, h; the objects of the history, oldest first, and those that lie behind its end."""
        epoch = claims
        while epoch and all(absent(self.read(segment_key(LOG, "w", epoch, seq))) for seq in (0, 1)):
            epoch -= 1
        if not epoch:
            return epoch, [], []
        log = (self.read(segment_key(LOG, "w", epoch, seq)) for seq in count())
        chain = [next(log)]
        for found in log:
            both = isinstance(found, Segment) and isinstance(chain[-1], Segment)
            if absent(found) or (both and found.header.prev_header_hash != chain[-1].header.header_hash):
                break
            chain.append(found)
        behind = [found, *islice(log, IN_FLIGHT_MAX)]
        while isinstance(chain[0], Segment) and "tail_epoch" in (cut := chain[0].cut or {}):
            named = [segment_key(LOG, "w", cut["tail_epoch"], seq) for seq in range(cut["tail_seq"] + 1)]
            chain[:0] = self.ledger.objects(self.read) if self.ledger.is_tail(cut) else map(self.read, named)
        return epoch, chain, behind

    def check_chain(self, chain):
        """O-3, C-2, C-3, T-1. Objects that cannot be used cost the LSNs between their neighbours."""
        self.segments, last, next_lsn = [], None, None
        for i, s in enumerate(chain):
            if isinstance(s, Refused):
                first = next((t.header.first_lsn for t in chain[i:] if isinstance(t, Segment)), 0)
                lost = () if next_lsn is None or first <= next_lsn else (next_lsn, first - 1)
                self.usable(s, *lost)
                last, next_lsn = None, first if lost else next_lsn
                continue
            h, breach = s.header, None
            if next_lsn not in (None, h.first_lsn):
                breach = f"it begins at lsn {h.first_lsn}, lsn {next_lsn} is next"
            elif last and COMPACT not in (h.kind, last.header.kind) and h.prev_header_hash != last.header.header_hash:
                breach = f"it continues another object than {last.key}"
            elif last and h.first_time_ns < last.header.last_time_ns:
                breach = f"it begins before the time at which {last.key} ends"
            if breach:
                self.damaged(Refused("Chain", breach, s.key), *(() if h.kind == CUT else (h.first_lsn, h.last_lsn)))
            self.segments.append(s)
            last, next_lsn = s, h.last_lsn + 1
        self.last_lsn = self.segments[-1].header.last_lsn if self.segments else 0

    def check_end(self, behind):
        """R-3: whether something was acknowledged that is not there."""
        acked = max((s.header.acked_through for s in behind if isinstance(s, Segment)), default=0)
        if acked > self.last_lsn:
            found = Refused("Missing" if absent(behind[0]) else "Chain", f"lsn {acked} was acknowledged behind it", behind[0].key)
            self.damaged(found, self.last_lsn + 1, acked)

    def check_disks(self, whole):
        """E-3. Where a part of the log cannot be read, the CUTs say which disks there are."""
        cuts = [s.cut for s in self.segments if s.cut and not whole]
        self.disks = {disk["disk"]: f"{disk['vm']}/{disk['name']}" for cut in cuts for disk in cut["disks"]}
        for s, e in ((s, e) for s in self.segments for e in s.events if e.code < 128 and "disk" in e.fields):
            disk, is_new = e.fields["disk"], e.name == "DISK_ADD"
            if whole and (disk in self.disks) == is_new:
                self.damaged(Refused("Event", f"{e.name} of disk {disk} at lsn {e.lsn}", s.key), e.lsn, e.lsn)
            if is_new:
                self.disks[disk] = f"{e.fields['vm']}/{e.fields['name']}"

    def bookmark(self, name):
        """The LSN of a bookmark, of equal names the newest; 0 if there is none."""
        return max((e.lsn for e in self.events if e.name == "BOOKMARK" and e.fields["name"] == name), default=0)

    def at(self, time_ns):
        """The last LSN whose time is not later than this; 0 if there is none."""
        return next((lsn - 1 for lsn, time in self.steps if time > time_ns), self.last_lsn)

    def of_disk(self, disk, point, *names):
        """Events of a disk at or before a point."""
        return [e for e in self.events if e.name in names and e.lsn <= point and e.fields["disk"] == disk]

    def sizes(self, disk, point):
        return [(e.lsn, e.fields["blocks"]) for e in self.of_disk(disk, point, "DISK_ADD", "DISK_RESIZE")]

    def restorable(self, disk, point):
        """R-6."""
        marks = self.of_disk(disk, point, "CONSISTENT_FROM", "GAP")
        gaps = [e.fields for e in self.of_disk(disk, self.last_lsn, "GAP")]
        gone = self.of_disk(disk, point, "DISK_REMOVE") or any(gap["from"] < point <= gap["to"] for gap in gaps)
        return bool(marks) and marks[-1].name == "CONSISTENT_FROM" and not gone

    def extents(self, disk, point):
        """R-5: what was named of the disk's last SEED_START: (LSN of that one, fields)."""
        seed = max((e.lsn for e in self.of_disk(disk, point, "SEED_START")), default=0)
        return [(seed, e.fields) for e in self.of_disk(disk, point, "SEED_EXTENT") if e.lsn > seed > 0]

    def base(self, seed, extent):
        """R-7."""
        s = self.read(segment_key(BASE, extent["role"][0], extent["epoch"], extent["seq"]))
        if isinstance(s, Segment) and (s.header.header_hash, s.header.first_lsn) != (extent["hash"], seed):
            return Refused("Chain", "it is not the one that the log names", s.key)
        return s

    def restore(self, disk, point, file):
        """R-5. Writes data into `file`, which is zeros, and returns the runs of blocks that are unknown."""
        bases = [base for base in (self.base(*extent) for extent in self.extents(disk, point)) if self.usable(base)]
        rows = [(row, s) for s in self.segments + bases for row in s.rows if row.disk == disk and row.lsn <= point]
        layers = [(row.lsn, row.start, row.start + row.blocks, (row, s)) for row, s in rows]
        sizes = self.sizes(disk, point)
        layers += [(lsn, new, DISK_BLOCKS_MAX, None) for (_, old), (lsn, new) in pairwise(sizes) if new < old]
        size = sizes[-1][1] if sizes else 0
        bounds = sorted({0, size} | {min(bound, size) for layer in layers for bound in layer[1:3]})
        runs = [None] * (len(bounds) - 1)
        for _, start, end, layer in sorted(layers, key=lambda layer: layer[0]):
            first, last = bisect_left(bounds, start), bisect_left(bounds, min(end, size))
            runs[first:last] = [layer] * (last - first)
        unknown, pieces = [], {}
        for (start, end), layer in zip(pairwise(bounds), runs):
            if layer is None:
                unknown.append((unknown.pop()[0] if unknown and unknown[-1][1] == start else start, end))
            elif (row := layer[0]).kind == DATA:
                pieces.setdefault(layer[1], []).append((row.place + start - row.start, start, end - start))
        for s, wanted in pieces.items():
            data = self.get(s.key)
            for place, start, blocks in wanted:
                file.seek(start * BLOCK)
                for n, first, end in s.frames_of(place, blocks):
                    file.write(s.plaintext(n, data)[(first - s.firsts[n]) * BLOCK : (end - s.firsts[n]) * BLOCK])
        return unknown
