"""Holds the reader to the vectors: what each says, or the error it must be refused with. See ../vectors/README.md."""

import io
import json
import pathlib
import sys
import uuid

from tlf import history, ledger, records, segment
from store import directory
from tlf.wire import BLOCK, Refused, digest, must

KINDS, ROLES = (None, "log", "base", "cut", "compact"), (None, "writer", "maintenance")


def shown(value):
    """A value as vectors write it: bytes as {"hex": ...}."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [shown(v) for v in value]
    return {k: shown(v) for k, v in value.items()} if isinstance(value, dict) else value


def header_meaning(h):
    meaning = {k: v.hex() if isinstance(v, bytes) else v for k, v in h._asdict().items()}
    for fixed in ("magic major granularity hash_algorithm frame_plain_max key_generation aead_and_reserved "
                  "section_table header_mac").split():
        del meaning[fixed]
    d = meaning["domain"]
    return meaning | {"kind": KINDS[h.kind], "role": ROLES[h.role], "domain": "-".join((d[:8], d[8:12], d[12:16], d[16:20], d[20:]))}


def meaning_of(key, data, domain):
    if key == "tidemark.json":
        g = records.read_genesis(key, data)
        masks = {f"features_{x}": int(g[f"features_{x}"], 16) for x in ("read", "write", "gc", "compat")}
        return {"genesis": {"domain": g["domain"], "name": g["name"], "created_ns": int(g["created_ns"])} | masks}
    if key == "v/hint":
        hint = records.read_record(data, 2, "domain epoch seq")
        must(hint["domain"] == domain, "WrongDomain", hint["domain"].hex())
        return {"hint": shown(hint)}
    if key.startswith("ledger/"):
        return {"ledger": shown(ledger.read_ledger(key, data, domain))}
    if key.startswith("claim/"):
        return {"claim": shown(records.read_claim(key, data, domain))}
    s = segment.Segment(key, data, domain)
    stream = b"".join(s.plaintext(n, data) for n in range(len(s.frames)))
    header = header_meaning(s.header)
    if s.cut is not None:
        return {"header": header, "cut": shown(s.cut)}
    return {
        "header": header,
        "rows": [[r.disk, r.start, r.blocks, r.lsn, ("data", "zero", "unmap")[r.kind], r.place] for r in s.rows],
        "frames": [{"offset": f.offset, "stored_len": f.stored_len, "plain_len": f.plain_len, "codec": ("raw", "zstd")[f.codec],
                    "hash": f.hash.hex()} for f in s.frames],
        "times": [list(step) for step in s.steps],
        "events": [{"lsn": e.lsn, "code": e.code, "name": e.name,
                    "fields": {k: v for k, v in shown(e.fields).items() if v is not None}} for e in s.events],
        "stream_blake3": digest(stream).hex(),
    }


def check_object(path):
    vector = json.loads(path.read_text())
    data = path.with_suffix(".bin").read_bytes()
    domain = bytes.fromhex(vector["domain"].replace("-", ""))
    try:
        found = meaning_of(vector["key"], data, domain)
    except Refused as refused:
        found = refused.error
    wanted = vector.get("error") or vector["meaning"]
    if found == wanted:
        return True
    print(f"{path.stem}: found {json.dumps(found)[:3000]}\n  wanted {json.dumps(wanted)[:3000]}")
    return False


def domain_meaning(store):
    h = history.History(store)
    disks = {}
    for id, name in sorted(h.disks.items()):
        points = []
        for lsn in filter(h.ledger.offers, range(h.sizes(id, h.last_lsn)[0][0], h.last_lsn + 1)):
            size = h.sizes(id, lsn)[-1][1]
            image = io.BytesIO(bytes(size * BLOCK))
            unknown = h.restore(id, lsn, image)
            known, at = [], 0
            for start, end in [*unknown, (size, size)]:
                known.append(image.getvalue()[at * BLOCK : start * BLOCK])
                at = end
            points.append({"lsn": lsn, "blocks": size, "restorable": h.restorable(id, lsn),
                           "unknown": [[a, b - a] for a, b in unknown], "known_blake3": digest(b"".join(known)).hex()})
        disks[name] = {"disk": id, "points": points}
    return {"domain": str(uuid.UUID(bytes=h.domain)), "name": h.name, "last_lsn": h.last_lsn,
            "last_time_ns": h.steps[-1][1] if h.steps else None, "final_through": h.final_through, "disks": disks,
            "bookmarks": [[e.lsn, e.fields["name"], e.fields["level"]] for e in h.events if e.name == "BOOKMARK"]}


def check_domain(path):
    vector = json.loads(path.read_text())
    try:
        found = domain_meaning(directory(path.with_suffix("")))
    except Refused as refused:
        found = {"error": refused.error, "key": refused.key}
    wanted = vector.get("meaning") or {name: vector[name] for name in ("error", "key")}
    if found == wanted:
        return True
    print(f"{path.stem}: found {json.dumps(found)[:3000]}\n  wanted {json.dumps(wanted)[:3000]}")
    return False


def of_index(path):
    """Of what a reader of level R0 never looks at."""
    return json.loads(path.read_text())["key"].startswith(("root/", "idx/", "v/root", "v/retention", "v/pin", "v/quarantine"))


root = pathlib.Path(sys.argv[1])
held = [check_object(p) for p in sorted(root.glob("*.json")) if not of_index(p)] + [check_domain(p) for p in sorted(root.glob("domains/*.json"))]
print(f"{sum(held)} of {len(held)} vectors hold")
sys.exit(0 if held and all(held) else 1)
