meta:
  id: tlf_record
  title: Record of Tidemark's log format (claim, hint, root, retention, ledger, pin, quarantine)
  license: Apache-2.0
  endian: le
doc: SPEC.md, Records. The body is CBOR, `claim`, `hint`, `root`, `retention`, `ledger`, `pin` or `quarantine` of tlf.cddl.
seq:
  - id: magic
    contents: [0x89, 0x54, 0x4c, 0x52, 0x0d, 0x0a, 0x1a, 0x0a]
  - id: kind
    type: u2
    enum: kind
    valid:
      in-enum: true
  - id: major
    type: u2
    valid: 1
  - id: body_len
    type: u4
    valid: _io.size - 48
  - id: hash
    size: 32
    doc: BLAKE3 of the 16 bytes before it, followed by the body.
  - id: body
    size: body_len
enums:
  kind:
    1: claim
    2: hint
    3: root
    4: retention
    5: ledger
    6: pin
    7: quarantine
