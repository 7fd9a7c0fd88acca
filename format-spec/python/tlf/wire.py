"""What lies in objects: numbers, packed columns, and records. SPEC.md, Packed columns, CBOR, Errors."""

from math import inf

from blake3 import blake3

BLOCK, U64 = 512, 2**64
NUMBER, NEGATIVE, BYTES, TEXT, LIST, MAP, TAG, SIMPLE = range(8)  # major types of CBOR
MAPS = [bytes([byte]) for byte in range(0xA0, 0xBC)]  # how a map of definite length begins
SKIPPED = object()  # stands for a value of a type that records do not have


class Refused(Exception):
    """An object breaks the format. `error` is one of the names in SPEC.md, Errors."""

    def __init__(self, error, what, key=None):
        super().__init__(f"{error}: {what}")
        self.error, self.what, self.key = error, what, key


def must(holds, error, what, key=None):
    if not holds:
        raise Refused(error, what, key)


def digest(data):
    return blake3(data).digest()


class Cursor:
    """Takes bytes apart from front to back. `short` names the error where they end too early."""

    def __init__(self, data, short="TooShort"):
        self.data, self.at, self.short = data, 0, short

    def left(self):
        return len(self.data) - self.at

    def take(self, n):
        must(n <= self.left(), self.short, f"{n} bytes wanted, {self.left()} are left")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, width):
        return int.from_bytes(self.take(width), "little")

    def varint(self):
        value = shift = 0
        while (byte := self.number(1)) >= 128:
            value, shift = value | (byte & 127) << shift, shift + 7
            must(shift < 70, "Column", "a varint of more than ten bytes")
        value |= byte << shift
        must(value < U64, "Column", "a varint exceeds 64 bits")
        return value

    def column(self, n):
        """PC-1. The packed numbers are one long little-endian number."""
        width, shift, base = self.number(1), self.number(1), self.varint()
        must(shift <= 63 and width + shift <= 64 and (width or not shift), "Column", f"width {width}, shift {shift}")
        bits = int.from_bytes(self.take((n * width + 7) // 8), "little")
        must(bits >> n * width == 0, "Column", "a padding bit is not zero")
        mask = (1 << width) - 1
        numbers = [base + ((bits >> i * width & mask) << shift) for i in range(n)]
        must(max(numbers, default=0) < U64, "Column", "a number exceeds 64 bits")
        return numbers


class Cbor(Cursor):
    """The little of CBOR that records need. A general library forgets whether names were in order, and lengths definite."""

    def __init__(self, data):
        super().__init__(data, short="Cbor")

    def head(self):
        """Major type and argument of the next item; an indefinite length is infinite."""
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info
        indefinite = info == 31 and major in (BYTES, TEXT, LIST, MAP)
        must(info < 28 or indefinite, "Cbor", f"byte {first:#x}")
        return major, inf if indefinite else int.from_bytes(self.take(1 << info - 24), "big")

    def open(self, wanted):
        """A number, or the length of a list or map."""
        major, n = self.head()
        must(major == wanted and n < inf, "Cbor", f"major type {major}, length {n}, where {wanted} is wanted")
        return n

    def text(self, n):
        try:
            return str(self.take(n), "utf-8")
        except UnicodeDecodeError:
            raise Refused("Cbor", "text that is not UTF-8") from None

    def record(self):
        """CB-1."""
        record, last = {}, (-1, b"")
        for _ in range(self.open(MAP)):
            name = self.text(self.open(TEXT))
            order = len(name.encode()), name.encode()
            must(order > last, "Cbor", f"field {name} is out of order")
            record[name], last = self.value(), order
        return record

    def value(self):
        start = self.at
        major, n = self.head()
        if major == NUMBER:
            return n
        if major in (BYTES, TEXT) and n < inf:
            return self.take(n) if major == BYTES else self.text(n)
        records = []
        while major == LIST and len(records) < n < inf and self.data[self.at : self.at + 1] in MAPS:
            records.append(self.record())
        if major == LIST and len(records) == n:
            return records
        self.at = start
        return self.skip()

    def skip(self):
        """Passes over one item of any type. Nesting costs no stack."""
        items = [1]  # how many are left in each list or map that is open
        while items:
            if items[-1] == 0 or (items[-1] == inf and self.data[self.at : self.at + 1] == b"\xff"):
                self.at += items.pop() == inf
                continue
            items[-1] -= 1
            major, n = self.head()
            if major in (BYTES, TEXT) and n < inf:
                self.take(n)
            elif major in (BYTES, TEXT, LIST, MAP, TAG):
                items.append({MAP: 2 * n, TAG: 1}.get(major, n))
        return SKIPPED


ID16, HASH, ROLE = bytes(16), bytes(32), ("writer", "maintenance")
# A field has one type wherever it stands: a type, bytes of this length, one of these texts, or a number below this one.
TYPES = {
    "vm": str, "name": str, "owner": str, "format": str, "body": bytes, "disks": list, "domain": ID16, "nonce": ID16,
    "claim_nonce": ID16, "hash": HASH, "tail_hash": HASH, "role": ROLE, "mode": ("cas", "attested-single"),
    "level": ("crash", "fs", "app"), "disk": 2**32, "generation": 2**32, "blocks": 2**54 + 1,
}


def fits(value, kind):
    if isinstance(kind, type):
        return isinstance(value, kind)
    if isinstance(kind, bytes):
        return isinstance(value, bytes) and len(value) == len(kind)
    return value in kind if isinstance(kind, tuple) else isinstance(value, int) and value < kind


def fields(record, names, optional=""):
    """CB-1: what this version knows of a record. All `names` must be there."""
    missing = [name for name in names.split() if name not in record]
    must(not missing, "Field", f"there is no {missing}")
    known = {name: record[name] for name in (names + " " + optional).split() if name in record}
    for name, value in known.items():
        must(fits(value, TYPES.get(name, U64)), "Field", f"{name} is {value!r}")
    return known
