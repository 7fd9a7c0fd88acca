"""The genesis, claims and hints. SPEC.md, Records and Genesis."""

import json
import re

from .wire import U64, Cbor, Refused, digest, fields, must

MAGIC = bytes.fromhex("89544c520d0a1a0a")
OBJECT_MAX = 65536
MASK, UUID = "[0-9a-f]{16}", "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TEXTS = {"features_read": MASK, "features_write": MASK, "features_gc": MASK, "features_compat": MASK,
         "domain": UUID, "name": "(?s:.*)", "created_ns": "[0-9]{1,20}", "granularity": "write"}


def read_genesis(_key, data, _domain=None):
    try:
        must(len(data) <= OBJECT_MAX, "Genesis", f"{len(data)} bytes")
        genesis = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise Refused("Genesis", error) from None
    must(isinstance(genesis, dict) and genesis.get("format") == "tidemark-log", "Genesis", "it is not of this format")
    numbers = [genesis.get(name) for name in ("major", "minor", "block_bytes")]
    must(all(type(n) is int and n >= 0 for n in numbers), "Genesis", f"major, minor, block_bytes: {numbers}")
    must(numbers[0] == 1, "Major", numbers[0])  # V-1
    head = data.rpartition(b'  "check": "')[0]
    must(data == head + b'  "check": "blake3:%s"\n}\n' % digest(head).hex().encode(), "Genesis", "check differs")  # G-1
    for name, form in TEXTS.items():
        text = genesis.get(name)
        must(isinstance(text, str) and re.fullmatch(form, text), "Genesis", f"{name} is {text!r}")
        must(name != "features_read" or int(text, 16) == 0, "ReadFeatures", text)  # V-2
    must(numbers[2] == 512 and int(genesis["created_ns"]) < U64, "Genesis", "block_bytes or created_ns")
    return genesis


def read_record(data, kind):
    """RC-1: the record in the envelope."""
    must(len(data) >= 48, "TooShort", f"{len(data)} bytes are no record")
    must(data[:8] == MAGIC, "Magic", data[:8].hex())
    found, major, length = (int.from_bytes(data[start:end], "little") for start, end in ((8, 10), (10, 12), (12, 16)))
    must(major == 1, "Major", major)
    must(len(data) >= 48 + length, "TooShort", f"{len(data)} bytes with a body of {length}")
    must(len(data) == 48 + length <= OBJECT_MAX, "TrailingBytes", f"{len(data)} bytes with a body of {length}")
    must(digest(data[:16] + data[48:]) == data[16:48], "RecordHash", "the record is not what was written")
    must(found == kind, "HeaderField", f"kind {found}")
    c = Cbor(data[48:])
    record = c.record()
    must(c.left() == 0, "TrailingBytes", f"{c.left()} bytes behind the record")
    return record


def read_claim(key, data, domain=None):
    claim = fields(read_record(data, 1), "domain role epoch nonce mode owner time")
    own_key = f"claim/{claim['role'][0]}/{claim['epoch']:016x}"
    must(domain in (None, claim["domain"]), "WrongDomain", claim["domain"].hex())
    must(key == own_key, "Misplaced", f"it calls itself {own_key}")
    return claim


def read_hint(data, domain=None):
    hint = fields(read_record(data, 2), "domain epoch seq")
    must(domain in (None, hint["domain"]), "WrongDomain", hint["domain"].hex())
    return hint
