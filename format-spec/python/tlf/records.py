"""The genesis and claims. SPEC.md, Records and Genesis."""

import json
import re

from .wire import U64, Cbor, Cursor, Refused, digest, fields, must

MAGIC, OBJECT_MAX = bytes.fromhex("89544c520d0a1a0a"), 65536
MASK, UUID = "[0-9a-f]{16}", "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# The members of the genesis, as JSON, in the order in which they are looked at.
MEMBERS = {"format": '"tidemark-log"', "major": "[0-9]+", "minor": "[0-9]+", "block_bytes": "[0-9]+", "features_read": f'"{MASK}"',
           "features_write": f'"{MASK}"', "features_gc": f'"{MASK}"', "features_compat": f'"{MASK}"', "domain": f'"{UUID}"',
           "name": '".*"', "created_ns": '"[0-9]{1,20}"', "granularity": '"write"'}


def read_genesis(_key, data, _domain=None):
    try:
        must(len(data) <= OBJECT_MAX, "Genesis", f"{len(data)} bytes")
        genesis = dict(json.loads(data.decode("utf-8")))
    except (TypeError, ValueError) as error:
        raise Refused("Genesis", error) from None
    head = data.rpartition(b'  "check": "')[0]
    checked = data == head + b'  "check": "blake3:%s"\n}\n' % digest(head).hex().encode()
    for name, form in MEMBERS.items():
        must(re.fullmatch(form, json.dumps(genesis.get(name))), "Genesis", f"{name} is {genesis.get(name)!r}")
        must(name != "major" or genesis[name] == 1, "Major", genesis[name])  # V-1
        must(name != "block_bytes" or checked, "Genesis", "check differs")  # G-1
        must(name != "features_read" or int(genesis[name], 16) == 0, "ReadFeatures", genesis[name])  # V-2
    must(genesis["block_bytes"] == 512 and int(genesis["created_ns"]) < U64, "Genesis", "block_bytes or created_ns")
    return genesis


def read_record(data, kind, names, longest=OBJECT_MAX):
    """RC-1: what is in the envelope."""
    c = Cursor(data)
    magic, found, major, length, hash = c.take(8), c.number(2), c.number(2), c.number(4), c.take(32)
    must(magic == MAGIC, "Magic", magic.hex())
    must(major == 1, "Major", major)
    body = Cbor(c.take(length), "Cbor")
    must(len(data) == 48 + length <= longest, "TrailingBytes", f"{len(data)} bytes with a body of {length}")
    must(digest(data[:16] + body.data) == hash, "RecordHash", "the record is not what was written")
    must(found == kind, "HeaderField", f"kind {found}")
    record = body.record()
    body.end()
    return fields(record, names)


def read_claim(key, data, domain=None):
    claim = read_record(data, 1, "domain role epoch nonce mode owner time")
    own_key = f"claim/{claim['role'][0]}/{claim['epoch']:016x}"
    must(domain in (None, claim["domain"]), "WrongDomain", claim["domain"].hex())
    must(key == own_key, "Misplaced", f"it calls itself {own_key}")
    return claim
