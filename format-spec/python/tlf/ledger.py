"""What stands for the older part of the log, once something of it was deleted. SPEC.md, Ledgers. A bucket without one needs nothing
of this file."""

from itertools import count

from .records import read_claim, read_record
from .segment import COMPACT, LOG, Segment, segment_key
from .wire import Refused, fields, must

LEDGER_MAX = 16 << 20
NAMES = "domain epoch tail_epoch tail_seq tail_hash tail_lsn tail_time first_time epochs parts horizon kept"


def read_ledger(key, data, domain):
    ledger = read_record(data, 5, NAMES, LEDGER_MAX)
    must(ledger["domain"] == domain, "WrongDomain", ledger["domain"].hex())
    must(key == f"ledger/{ledger['epoch']:016x}", "Misplaced", f"it is that of epoch {ledger['epoch']}")
    lsn, log_end = 0, (0, 0)
    for part in ledger["parts"]:  # LG-1
        part |= fields(part, "kind epoch first last lsn hash")
        more, is_log = part["last"] - part["first"], part["kind"] == "log"
        fits = 0 <= more < part["lsn"] - lsn and part["epoch"] * part["first"] > 0
        fits &= (part["epoch"], part["first"]) > log_end if is_log else more == 0 and part["epoch"] <= ledger["epoch"]
        must(fits, "Field", f"{part} behind lsn {lsn}")
        lsn, log_end = part["lsn"], (part["epoch"], part["last"]) if is_log else log_end
    must(lsn == ledger["tail_lsn"] > 0 and len(ledger["horizon"]) == 1, "Field", f"its parts end with lsn {lsn}")
    for mark in ledger["horizon"] + ledger["kept"]:
        fields(mark, "lsn time")
    return ledger


class Ledger:
    """The newest ledger: what it names, oldest first, and the points that this can show."""

    def __init__(self, history):
        """LG-2: at or below the newest claim of maintenance."""

        def there(key, decode):
            found = history.read(key, decode)
            missing = isinstance(found, Refused) and found.error == "Missing"
            return found if not missing and history.usable(found) else None

        claimed = next(e for e in count() if not there(f"claim/m/{e + 1:016x}", read_claim))
        found = (there(f"ledger/{e:016x}", read_ledger) for e in range(claimed, 0, -1))
        self.fields = next((ledger for ledger in found if ledger), None)

    def is_tail(self, cut):
        return bool(self.fields) and all(self.fields[name] == cut[name] for name in ("tail_epoch", "tail_seq", "tail_hash"))

    def objects(self, read):
        """LG-4, as far as a part goes: its last object has the hash that the ledger knows."""
        for part in self.fields["parts"]:
            kind, role = (LOG, "w") if part["kind"] == "log" else (COMPACT, "m")
            for seq in range(part["first"], part["last"] + 1):
                s = read(segment_key(kind, role, part["epoch"], seq))
                if seq == part["last"] and isinstance(s, Segment) and s.header.header_hash != part["hash"]:
                    s = Refused("Chain", "the ledger knows it by another header hash", s.key)
                yield s

    def offers(self, lsn):
        """RN-1."""
        marks = [mark["lsn"] for mark in self.fields["kept"]] if self.fields else []
        return not self.fields or lsn >= self.fields["horizon"][0]["lsn"] or lsn in marks
