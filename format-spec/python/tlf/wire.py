"""What lies in objects: numbers, packed columns, and records of CBOR. SPEC.md, Packed columns, CBOR, Errors."""

from math import inf

from blake3 import blake3

BLOCK, DISK_BLOCKS_MAX, U64 = 512, 2**54, 2**64
NUMBER, NEGATIVE, BYTES, TEXT, LIST, MAP, TAG, SIMPLE = range(8)  # major types of CBOR
MAPS = [bytes([byte]) for byte in range(0xA0, 0xBC)]  # how a map of definite length begins
# A field has one type wherever its name stands: a number, if nothing else is said here. Some have a range.
BYTES_OF = {"domain": 16, "nonce": 16, "claim_nonce": 16, "hash": 32, "tail_hash": 32}
TEXTS_OF = {"role": ("writer", "maintenance"), "mode": ("cas", "attested-single"), "level": ("crash", "fs", "app"), "kind": ("log", "compact")}
MAX_OF = {"disk": 2**32 - 1, "generation": 2**32 - 1, "blocks": DISK_BLOCKS_MAX}
TYPES = {"vm": str, "name": str, "owner": str, "format": str, "body": bytes, "disks": list, "epochs": list, "parts": list, "horizon": list, "kept": list} | dict.fromkeys(BYTES_OF, bytes)


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

    def end(self):
        must(self.at == len(self.data), "TrailingBytes", f"they begin at {self.at} of {len(self.data)}")

    def take(self, n):
        must(self.at + n <= len(self.data), self.short, f"{n} bytes wanted at {self.at} of {len(self.data)}")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, width):
        return int.from_bytes(self.take(width), "little")

    def varint(self):
        value = shift = 0
        while (byte := self.number(1)) >= 128 and shift < 63:
            value, shift = value | (byte & 127) << shift, shift + 7
        value |= byte << shift
        must(value < U64, "Column", "a varint exceeds 64 bits")
        return value

    def column(self, n):
        """PC-1. The packed numbers are one long little-endian number."""
        width, shift, base = self.number(1), self.number(1), self.varint()
        must(shift <= 63 and width + shift <= 64 and (width or not shift), "Column", f"width {width}, shift {shift}")
        bits = int.from_bytes(self.take((n * width + 7) // 8), "little")
        must(bits >> n * width == 0, "Column", "a padding bit is not zero")
        numbers = [base + ((bits >> i * width & (1 << width) - 1) << shift) for i in range(n)]
        must(max(numbers, default=0) < U64, "Column", "a number exceeds 64 bits")
        return numbers


class Cbor(Cursor):
    """The little of CBOR that records need. A general library forgets whether names were in order, and lengths definite."""

    def head(self):
        """Major type and argument of the next item; an indefinite length is infinite."""
        major, info = divmod(self.number(1), 32)
        indefinite = info == 31 and major in (BYTES, TEXT, LIST, MAP)
        must(info < 28 or indefinite, "Cbor", f"an item of type {major} with argument {info}")
        return major, info if info < 24 else int.from_bytes(self.take(1 << info - 24), "big") if info < 28 else inf

    def open(self, wanted):
        """A number, or the length of a text, list or map."""
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
        """A number, bytes, a text or a list of records. Anything else is passed over, and `None`."""
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
        items = [1]  # how many are left in each list or map that is open: nesting costs no stack
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


def fields(record, names, optional=""):
    """CB-1: what this version knows of a record. All `names` must be there."""
    known = {name: record[name] for name in (names + " " + optional).split() if name in record}
    must(known.keys() >= set(names.split()), "Field", f"of {names}, only {list(known)} are there")
    for name, value in known.items():
        fits = value in TEXTS_OF[name] if name in TEXTS_OF else isinstance(value, TYPES.get(name, int))
        fits = fits and (name not in BYTES_OF or len(value) == BYTES_OF[name]) and (name not in MAX_OF or value <= MAX_OF[name])
        must(fits, "Field", f"{name} is {value!r}")
    return known
