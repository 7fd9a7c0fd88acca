"""From the claims to the one true sequence of segments, and from there to a disk at a point. SPEC.md, Reader rules."""

from bisect import bisect_left, bisect_right

from .records import read_claim, read_genesis
from .segment import BASE, BLOCK, CUT, DATA, LOG, Segment, segment_key
from .wire import Refused

IN_FLIGHT_MAX = 16  # F-5: so far behind the end of the log R-3 looks


def stop(refused, *_):
    raise refused


class History:
    """What a bucket says. `damaged(refused, first_lsn, last_lsn)` is told what breaks a rule; if it returns, reading goes on."""

    def __init__(self, store, damaged=stop):
        self.store, self.damaged, self.domain = store, damaged, None
        genesis = self.read("tidemark.json", read_genesis)
        if self.usable(genesis):
            self.domain, self.name = bytes.fromhex(genesis["domain"].replace("-", "")), genesis["name"]
        self.claims = 0  # number of the newest, c
        while not absent(claim := self.read(self.next_claim(), read_claim)):
            self.usable(claim)
            self.claims += 1
        chain, behind = self.walk()
        self.check_chain(chain)
        self.check_end(behind)
        acked = max((s.header.acked_through for s in self.segments), default=0)
        newest = self.epoch == self.claims and self.store.get(self.next_claim()) is None
        self.final_through = self.last_lsn if newest else acked
        self.events = [event for s in self.segments for event in s.events]
        self.steps = [step for s in self.segments for step in s.steps]
        self.check_disks(whole=len(chain) == len(self.segments))

    def next_claim(self):
        return f"claim/w/{self.claims + 1:016x}"

    def read(self, key, decode=Segment):
        """The object under a key, or the `Refused` that says what is wrong with it."""
        data = self.store.get(key)
        try:
            return Refused("Missing", "it is not there", key) if data is None else decode(key, data, self.domain)
        except Refused as refused:
            return Refused(refused.error, refused.what, key)

    def usable(self, found, *lsns):
        if isinstance(found, Refused):
            self.damaged(found, *lsns)
        return not isinstance(found, Refused)

    def walk(self):
        """R-3: (key, object) of the history, oldest first, and of what lies behind its end."""
        self.epoch = self.claims  # becomes that of the newest CUT, h
        while self.epoch and absent(self.read(segment_key(LOG, "w", self.epoch, 0))):
            self.epoch -= 1
        if not self.epoch:
            return [], []
        log = ((key, self.read(key)) for key in (segment_key(LOG, "w", self.epoch, seq) for seq in range(2**64)))
        chain = [next(log)]
        for key, found in log:
            both = isinstance(found, Segment) and isinstance(chain[-1][1], Segment)
            if absent(found) or (both and found.header.prev_header_hash != chain[-1][1].header.header_hash):
                break
            chain.append((key, found))
        behind = [(key, found), *(entry for _, entry in zip(range(IN_FLIGHT_MAX), log))]
        while isinstance(chain[0][1], Segment) and "tail_epoch" in (cut := chain[0][1].cut):
            keys = [segment_key(LOG, "w", cut["tail_epoch"], seq) for seq in range(cut["tail_seq"] + 1)]
            chain = [(key, self.read(key)) for key in keys] + chain
        return chain, behind

    def check_chain(self, chain):
        """O-3, C-2, C-3, T-1. Objects that cannot be used cost the LSNs between their neighbours."""
        self.segments, last, next_lsn = [], None, None
        for i, (key, s) in enumerate(chain):
            if isinstance(s, Refused):
                first = next((t.header.first_lsn for _, t in chain[i:] if isinstance(t, Segment)), 0)
                lost = () if next_lsn is None or first <= next_lsn else (next_lsn, first - 1)
                self.usable(s, *lost)
                last, next_lsn = None, first if lost else next_lsn
                continue
            h, breach = s.header, None
            if next_lsn not in (None, h.first_lsn):
                breach = f"it begins at lsn {h.first_lsn}, lsn {next_lsn} is next"
            elif last and h.prev_header_hash != last.header.header_hash:
                breach = f"it continues another object than {last.key}"
            elif last and h.first_time_ns < last.header.last_time_ns:
                breach = f"it begins before the time at which {last.key} ends"
            if breach:
                self.damaged(Refused("Chain", breach, key), *(() if h.kind == CUT else (h.first_lsn, h.last_lsn)))
            self.segments.append(s)
            last, next_lsn = s, h.last_lsn + 1
        self.last_lsn = self.segments[-1].header.last_lsn if self.segments else 0

    def check_end(self, behind):
        """R-3: whether something was acknowledged that is not there."""
        acked = max((s.header.acked_through for _, s in behind if isinstance(s, Segment)), default=0)
        if acked > self.last_lsn:
            key, found = behind[0]
            error = "Missing" if absent(found) else "Chain"
            self.damaged(Refused(error, f"lsn {acked} was acknowledged behind it", key), self.last_lsn + 1, acked)

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
        """R-5, newest first: a block belongs to the first row that covers it. Writes data into `file`, which is zeros, and returns
        the runs of blocks that are unknown."""
        bases = [base for base in (self.base(*extent) for extent in self.extents(disk, point)) if self.usable(base)]
        layers = [(row.lsn, row, s) for s in self.segments + bases for row in s.rows if row.disk == disk and row.lsn <= point]
        size = 0
        for lsn, blocks in self.sizes(disk, point):
            layers += [(lsn, None, blocks)] if blocks < size else []
            size = blocks
        undecided, limit, wanted = Runs(size), size, {}
        for _, row, s in sorted(layers, key=lambda layer: -layer[0]):
            if row is None:  # the disk shrank: what is older has nothing to say of blocks from here on
                limit = min(limit, s)
                continue
            for start, end in undecided.take(row.start, min(row.start + row.blocks, limit)):
                if row.kind == DATA:
                    wanted.setdefault(s, []).append((row.place + start - row.start, start, end - start))
        for s, pieces in wanted.items():
            data, opened = self.store.get(s.key), {}
            for first, start, blocks in sorted(pieces):
                for n in s.frames_of(first, first + blocks):
                    opened = opened if n in opened else {n: s.plaintext(n, data)}
                    lo, hi = max(first, s.firsts[n]), min(first + blocks, s.firsts[n + 1])
                    file.seek((start + lo - first) * BLOCK)
                    file.write(opened[n][(lo - s.firsts[n]) * BLOCK : (hi - s.firsts[n]) * BLOCK])
        return undecided.runs


def absent(found):
    return isinstance(found, Refused) and found.error == "Missing"


class Runs:
    """Disjoint runs of blocks, in order."""

    def __init__(self, blocks):
        self.runs = [(0, blocks)] if blocks else []

    def take(self, start, end):
        """Takes a range out, and returns those parts of it that were there."""
        if start >= end:
            return []
        i = bisect_right(self.runs, start, key=lambda run: run[1])
        j = bisect_left(self.runs, end, key=lambda run: run[0])
        hit = self.runs[i:j]
        self.runs[i:j] = [(a, b) for run in hit for a, b in ((run[0], min(run[1], start)), (max(run[0], end), run[1])) if a < b]
        return [(max(a, start), min(b, end)) for a, b in hit]
