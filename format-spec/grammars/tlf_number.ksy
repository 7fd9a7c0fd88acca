meta:
  id: tlf_number
  title: Variable-length and packed numbers of Tidemark's log format
  license: Apache-2.0
  endian: le
doc: |
  SPEC.md, Packed columns. Numbers have up to 64 bits: values are exact in target languages whose integers do not overflow,
  such as Python.
types:
  varint:
    doc: Unsigned LEB128 of at most ten bytes.
    seq:
      - id: groups
        type: u1
        repeat: until
        repeat-until: _ < 128 or _index == 9
    instances:
      len:
        value: groups.size
      value:
        value: >-
          (groups[0] & 127)
          + (len >= 2 ? (groups[1] & 127) << 7 : 0) + (len >= 3 ? (groups[2] & 127) << 14 : 0)
          + (len >= 4 ? (groups[3] & 127) << 21 : 0) + (len >= 5 ? (groups[4] & 127) << 28 : 0)
          + (len >= 6 ? (groups[5] & 127) << 35 : 0) + (len >= 7 ? (groups[6] & 127) << 42 : 0)
          + (len >= 8 ? (groups[7] & 127) << 49 : 0) + (len >= 9 ? (groups[8] & 127) << 56 : 0)
          + (len >= 10 ? (groups[9] & 127) << 63 : 0)
  column:
    doc: Frame-of-reference coding with a power of two taken out; PC-1.
    params:
      - id: count
        type: u4
    seq:
      - id: width
        type: u1
        valid:
          max: 64
      - id: shift
        type: u1
        valid:
          max: 63
      - id: base
        type: varint
      - id: packed
        size: (count * width + 7) / 8
    instances:
      numbers:
        type: packed_number(_index)
        repeat: expr
        repeat-expr: count
  packed_number:
    params:
      - id: index
        type: u4
    instances:
      column:
        value: _parent.as<column>
      first:
        value: index * column.width / 8
      len:
        value: column.packed.size
      bits:
        doc: The nine bytes in which the number must lie, whatever its first bit.
        value: >-
          (first < len ? column.packed[first] : 0)
          + (first + 1 < len ? column.packed[first + 1] << 8 : 0) + (first + 2 < len ? column.packed[first + 2] << 16 : 0)
          + (first + 3 < len ? column.packed[first + 3] << 24 : 0) + (first + 4 < len ? column.packed[first + 4] << 32 : 0)
          + (first + 5 < len ? column.packed[first + 5] << 40 : 0) + (first + 6 < len ? column.packed[first + 6] << 48 : 0)
          + (first + 7 < len ? column.packed[first + 7] << 56 : 0) + (first + 8 < len ? column.packed[first + 8] << 64 : 0)
      value:
        value: column.base.value + (((bits >> (index * column.width % 8)) & ((1 << column.width) - 1)) << column.shift)
