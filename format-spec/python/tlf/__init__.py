"""A reader of Tidemark buckets, written from SPEC.md alone: it shares no line with Tidemark. It is documentation that runs,
simple where it could be fast, and cites the rules that it enforces. Read in this order:

    wire      numbers, packed columns, CBOR records, and what a refusal is
    segment   header, index, frames, times, events, CUT
    records   genesis, claims
    ledger    what stands for the older part of the log, once something was deleted
    history   from the claims to the one true sequence of segments, and from there to a disk at a point
"""
