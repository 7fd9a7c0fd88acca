meta:
  id: tlf_segment
  title: Segment of Tidemark's log format (log segment, base segment, CUT)
  license: Apache-2.0
  endian: le
  imports:
    - tlf_number
doc: |
  SPEC.md, Segments. The grammar says where everything lies and which values a field may have. It does not compute hashes, and
  leaves CBOR (EVENTS, CUT) to tlf.cddl.
seq:
  - id: header
    type: header
    size: 512
instances:
  index:
    pos: header.sections[0].offset
    size: header.sections[0].len
    type: index
    if: header.kind != kind::cut
  framedir:
    pos: header.sections[1].offset
    size: header.sections[1].len
    type: framedir
    if: header.kind != kind::cut
  times:
    pos: header.sections[2].offset
    size: header.sections[2].len
    type: times
    if: header.kind != kind::cut
  events:
    doc: CBOR, `events` of tlf.cddl.
    pos: header.sections[3].offset
    size: header.sections[3].len
    if: header.kind != kind::cut
  cut:
    doc: CBOR, `cut` of tlf.cddl.
    pos: header.sections[0].offset
    size: header.sections[0].len
    if: header.kind == kind::cut
  data:
    pos: header.head_len
    size: header.data_len
    type: data
    if: header.kind != kind::cut
enums:
  kind:
    1: log
    2: base
    3: cut
    4: compact
  role:
    1: writer
    2: maintenance
  section:
    0: unused
    1: index
    2: framedir
    3: times
    4: events
    5: cut
  codec:
    0: raw
    1: zstd
types:
  header:
    seq:
      - id: magic
        contents: [0x89, 0x54, 0x4c, 0x46, 0x0d, 0x0a, 0x1a, 0x0a]
      - id: major
        type: u2
        valid: 1
      - id: minor
        type: u2
      - id: kind
        type: u1
        enum: kind
        valid:
          in-enum: true
      - id: role
        type: u1
        enum: role
        valid:
          in-enum: true
      - id: granularity
        type: u1
        valid: 1
      - id: hash_algorithm
        type: u1
        valid: 1
      - id: features_read
        type: u8
        valid: 0
      - id: features_write
        type: u8
      - id: features_gc
        type: u8
      - id: features_compat
        type: u8
      - id: domain
        size: 16
      - id: epoch
        type: u8
        valid:
          min: 1
      - id: seq
        type: u8
      - id: total_len
        type: u8
        valid:
          max: 0x10000000
      - id: first_lsn
        type: u8
        valid:
          min: 1
      - id: last_lsn
        type: u8
        valid:
          min: first_lsn - 1
      - id: first_time_ns
        type: u8
      - id: last_time_ns
        type: u8
        valid:
          min: first_time_ns
      - id: acked_through
        type: u8
        valid:
          max: first_lsn - 1
      - id: row_count
        type: u8
        valid:
          max: 0x1000000
      - id: head_len
        type: u8
        valid:
          min: 512
      - id: data_len
        type: u8
        valid: total_len - head_len
      - id: stream_blocks
        type: u8
      - id: frame_count
        type: u4
      - id: frame_plain_max
        type: u4
        valid: 65536
      - id: tick_ns
        type: u4
        valid:
          min: 1
      - id: key_generation
        type: u4
        valid: 0
      - id: aead
        contents: [0, 0, 0, 0, 0, 0, 0, 0]
        doc: And reserved bytes.
      - id: salt
        size: 32
      - id: prev_header_hash
        size: 32
      - id: sections
        type: slot
        repeat: expr
        repeat-expr: 7
      - id: meta_hash
        size: 32
      - id: header_hash
        size: 32
      - id: header_mac
        size: 32
  slot:
    seq:
      - id: id
        type: u2
        enum: section
      - id: flags
        type: u2
        doc: "Bit 0: critical."
        valid:
          max: 1
      - id: zero
        type: u4
        valid: 0
      - id: offset
        type: u8
      - id: len
        type: u8
  index:
    seq:
      - id: chunks
        type: index_chunk
        repeat: eos
  index_chunk:
    seq:
      - id: disk
        type: tlf_number::varint
      - id: rows_less_one
        type: u1
        valid:
          max: 127
      - id: first_block
        type: tlf_number::varint
      - id: block_steps
        type: tlf_number::column(rows_less_one)
      - id: lengths
        type: tlf_number::column(rows_less_one + 1)
      - id: lsns
        type: tlf_number::column(rows_less_one + 1)
        doc: Less the header's first_lsn.
      - id: kinds
        type: tlf_number::column(rows_less_one + 1)
        doc: 0 data, 1 zero, 2 unmap.
  framedir:
    seq:
      - id: entries
        type: frame_entry
        repeat: expr
        repeat-expr: _root.header.frame_count
  frame_entry:
    seq:
      - id: stored_len
        type: u4
      - id: plain_len
        type: u4
        valid:
          expr: _ >= 512 and _ <= 65536 and _ % 512 == 0
      - id: codec
        type: u1
        enum: codec
        valid:
          in-enum: true
      - id: zero
        contents: [0, 0, 0]
      - id: hash
        size: 16
  times:
    seq:
      - id: chunks
        type: times_chunk
        repeat: eos
  times_chunk:
    seq:
      - id: steps_less_one
        type: u1
        valid:
          max: 127
      - id: first_lsn
        type: tlf_number::varint
      - id: first_tick
        type: tlf_number::varint
      - id: lsn_steps
        type: tlf_number::column(steps_less_one)
      - id: tick_steps
        type: tlf_number::column(steps_less_one)
  data:
    seq:
      - id: frames
        size: _root.framedir.entries[_index].stored_len
        repeat: expr
        repeat-expr: _root.header.frame_count
        doc: Each is plaintext (codec raw) or one zstd frame.
