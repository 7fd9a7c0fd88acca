//! Sections and frames that break a rule behind right hashes.

use super::{forged, log};
use crate::forge::{self, Parts};
use crate::vectors::Vector;
use crate::vectors::positives::{mixed_bytes, two_raw_frames};
use tidemark_format::*;

pub(in crate::vectors) fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A packed column of constant numbers.
fn constant(value: u64) -> Vec<u8> {
    [&[0, 0][..], &varint(value)].concat()
}

/// A chunk of one row.
pub(super) fn chunk(disk: u64, start: u64, len: u64, lsn_offset: u64, kind: u64) -> Vec<u8> {
    [varint(disk), vec![0], varint(start), constant(0), constant(len), constant(lsn_offset), constant(kind)].concat()
}

pub(super) fn indexes() -> Vec<Vector> {
    let index = |name: &str, about: &str, rules: &[&'static str], error, chunks: &[Vec<u8>]| {
        forged(&format!("index-{name}"), about, rules, error, |parts| {
            *parts.section(1) = chunks.concat();
            parts.set("row_count", chunks.len() as u64);
        })
    };
    let (i1, i2, pc1): (&[_], &[_], &[_]) = (&["I-1"], &["I-2"], &["PC-1"]);
    let front = |disk: u64, rows: u8, start: u64| [varint(disk), vec![rows], varint(start)].concat();
    let with = |front: Vec<u8>, columns: &[&[u8]]| [&front[..], &columns.concat()].concat();
    let max = DISK_BLOCKS_MAX;
    let ten = [&[0xff; 9][..], &[0x02]].concat();
    vec![
        index("kind", "kind 3", i2, "Row", &[chunk(1, 0, 1, 0, 3)]),
        index("no-blocks", "a row of no blocks", i2, "Row", &[chunk(1, 0, 0, 0, 1)]),
        index("largest-disk", "a row one block beyond the largest disk", i2, "Row", &[chunk(1, max, 1, 0, 1)]),
        index("end-overflow", "first block plus length exceed 64 bits", i2, "Row", &[chunk(1, 2, u64::MAX, 0, 1)]),
        index("lsn-beyond", "an LSN behind the last", i2, "Row", &[chunk(1, 0, 1, 7, 1)]),
        index("lsn-overflow", "an LSN that exceeds 64 bits", i2, "Row", &[chunk(1, 0, 1, u64::MAX, 1)]),
        index("block-order", "blocks descend", i1, "Row", &[chunk(1, 8, 1, 0, 1), chunk(1, 7, 1, 1, 1)]),
        index("disk-order", "disks descend", i1, "Row", &[chunk(2, 8, 1, 0, 1), chunk(1, 9, 1, 1, 1)]),
        index("lsn-order", "LSNs of one block descend", i1, "Row", &[chunk(1, 8, 1, 1, 1), chunk(1, 8, 1, 0, 1)]),
        index("twins", "a row twice", i1, "Row", &[chunk(1, 8, 1, 0, 1), chunk(1, 8, 1, 0, 1)]),
        index("disk-id", "a disk id of 33 bits", pc1, "Column", &[chunk(1 << 32, 0, 1, 0, 1)]),
        index(
            "chunk-of-129",
            "a chunk of 129 rows",
            pc1,
            "Column",
            &[with(front(1, 128, 0), &[&constant(1), &constant(1), &constant(0), &constant(1)])],
        ),
        index(
            "width",
            "numbers of 65 bits",
            pc1,
            "Column",
            &[with(front(1, 0, 0), &[&[65, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]])],
        ),
        index(
            "shift",
            "32 bits shifted by 33",
            pc1,
            "Column",
            &[with(front(1, 0, 0), &[&constant(0), &[32, 33, 1, 0, 0, 0, 0]])],
        ),
        index(
            "shift-alone",
            "a shift without width",
            pc1,
            "Column",
            &[with(front(1, 0, 0), &[&constant(0), &[0, 1, 1]])],
        ),
        index(
            "padding",
            "a padding bit is 1",
            pc1,
            "Column",
            &[with(front(1, 0, 0), &[&constant(0), &[1, 0, 1, 0b10], &constant(0), &constant(1)])],
        ),
        index(
            "number-overflow",
            "a number that exceeds 64 bits",
            pc1,
            "Column",
            &[with(front(1, 0, 0), &[&constant(0), &[1, 0], &varint(u64::MAX), &[1]])],
        ),
        index("varint-overflow", "a varint that exceeds 64 bits", pc1, "Column", &[with(vec![1, 0], &[&ten])]),
        index("varint-long", "a varint of eleven bytes", pc1, "Column", &[with(vec![1, 0], &[&[0x80; 10], &[0]])]),
        index(
            "start-overflow",
            "first blocks exceed 64 bits",
            pc1,
            "Column",
            &[with(front(1, 1, u64::MAX), &[&constant(1)])],
        ),
        index(
            "cut-short",
            "a column that ends early",
            &[],
            "TooShort",
            &[with(front(1, 0, 0), &[&constant(0), &[8, 0, 0]])],
        ),
        index(
            "overlap",
            "two rows of one write, one behind the other, share a block",
            &["I-3"],
            "Row",
            &[chunk(1, 8, 4, 0, 1), chunk(1, 11, 1, 0, 1)],
        ),
        forged("index-too-many", "two rows where the header says five", &["I-4"], "Mismatch", |parts| {
            *parts.section(1) = [chunk(1, 8, 1, 0, 1), chunk(1, 9, 1, 1, 1)].concat();
        }),
    ]
}

pub(super) fn frames() -> Vec<Vector> {
    let whole = mixed_bytes();
    let parts = Parts::split(&whole);
    let zstd_len = parts.data.len() - 512;
    let entries = parts.sections[1].bytes.clone();
    let patched = |name: &str, about: &str, rules: &[&'static str], error, at: usize, bytes: &[u8]| {
        forged(&format!("framedir-{name}"), about, rules, error, |parts| {
            parts.section(2)[at..at + bytes.len()].copy_from_slice(bytes);
        })
    };
    let u32s = |value: u32| value.to_le_bytes();
    let (fr1, fr2): (&[_], &[_]) = (&["FR-1"], &["FR-2"]);
    // A first frame of other stored bytes, with their right length and hash.
    let restored = |name: &str, about: &str, rules: &[&'static str], error, stored: Vec<u8>| {
        forged(name, about, rules, error, |parts| {
            let hash = frame::frame_hash(&stored);
            let entry = forge::frame_entry(stored.len() as u32, 3 * 512, [1, 0, 0, 0], hash);
            parts.section(2)[..28].copy_from_slice(&entry);
            parts.data = [&stored[..], &parts.data[zstd_len..]].concat();
        })
    };
    let compressed = |blocks: usize| compress_frame(&vec![b'x'; blocks * 512], 1).expect("whole blocks").bytes;
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0][..], &compressed(3)].concat();
    vec![
        patched("codec", "codec 2", fr2, "Frame", 8, &[2]),
        patched("reserved", "reserved bytes in use", fr2, "Frame", 9, &[1]),
        patched("plain-0", "a frame of no plaintext", fr2, "Frame", 4, &u32s(0)),
        patched("plain-513", "plaintext that is not whole blocks", fr2, "Frame", 4, &u32s(513)),
        patched("plain-large", "plaintext of 65 KiB", fr2, "Frame", 4, &u32s(66_560)),
        patched("stored-0", "a zstd frame of no bytes", fr2, "Frame", 0, &u32s(0)),
        patched("stored-large", "a zstd frame as large as its plaintext", fr2, "Frame", 0, &u32s(3 * 512)),
        patched("raw-lengths", "a raw frame of two lengths", fr2, "Frame", 28, &u32s(511)),
        patched("stored-sum", "stored lengths that do not sum up", fr1, "Mismatch", 0, &u32s(zstd_len as u32 - 1)),
        patched("plain-sum", "plaintext lengths that do not sum up", fr1, "Mismatch", 4, &u32s(2 * 512)),
        forged("framedir-trailing", "a byte behind the last entry", fr1, "TrailingBytes", |parts| {
            parts.section(2).push(0)
        }),
        forged("framedir-short", "the last entry lacks a byte", fr1, "TooShort", |parts| {
            parts.section(2).pop();
        }),
        log("frame-bit", "a bit of a compressed frame is turned over", &["FR-4"], "FrameHash", {
            let mut bytes = whole.clone();
            let at = bytes.len() - 512 - 3;
            bytes[at] ^= 1;
            bytes
        }),
        log("frame-raw-bit", "a bit of a raw frame is turned over", &["FR-4"], "FrameHash", {
            let mut bytes = whole.clone();
            *bytes.last_mut().expect("not empty") ^= 0x80;
            bytes
        }),
        log("frames-swapped", "the stored bytes of two frames of equal length are swapped", &["FR-4"], "FrameHash", {
            let mut parts = Parts::split(&two_raw_frames());
            parts.data.rotate_left(512);
            parts.build()
        }),
        forged("framedir-swapped", "the hashes of two frames are swapped", &["FR-4"], "FrameHash", |parts| {
            parts.section(2)[12..28].copy_from_slice(&entries[40..56]);
            parts.section(2)[40..56].copy_from_slice(&entries[12..28]);
        }),
        restored(
            "frame-not-zstd",
            "a right hash over what is not zstd",
            &["FR-5"],
            "FrameContents",
            b"not a zstd frame".to_vec(),
        ),
        restored("frame-inflates", "it holds a block more than it promises", &["FR-5"], "FrameContents", compressed(4)),
        restored("frame-deflates", "it holds a block less than it promises", &["FR-5"], "FrameContents", compressed(2)),
        restored("frame-of-two", "two zstd frames that hold the plaintext together", &["FR-5"], "FrameContents", {
            [compressed(1), compressed(2)].concat()
        }),
        restored("frame-skippable", "a skippable zstd frame in front", &["FR-5"], "FrameContents", skippable),
        restored("frame-cut-short", "a zstd frame that lacks its last byte", &["FR-5"], "FrameContents", {
            let mut stored = compressed(3);
            stored.pop();
            stored
        }),
    ]
}

pub(super) fn times() -> Vec<Vector> {
    let tick = u64::from(TICK_NS_DEFAULT);
    let first = Parts::split(&mixed_bytes()).get("first_time_ns") / tick;
    let one = |lsn: u64, ticks: u64| [vec![0], varint(lsn), varint(ticks), constant(0), constant(0)].concat();
    let two = |lsn_step: u64, tick_step: u64| {
        [vec![1], varint(100), varint(first), constant(lsn_step), constant(tick_step)].concat()
    };
    let times = |name: &str, about: &str, rules: &[&'static str], error, section: Vec<u8>| {
        forged(&format!("times-{name}"), about, rules, error, |parts| *parts.section(3) = section)
    };
    let (t1, t2): (&[_], &[_]) = (&["T-1"], &["T-2"]);
    vec![
        times("none", "no step", t2, "Times", Vec::new()),
        times("first-lsn", "the first step is not at the first LSN", t2, "Times", one(101, first + 90)),
        times("first-time", "the first step is not at the first time", t2, "Times", one(100, first + 90)),
        times("last-time", "the last step is not at the last time", t2, "Times", two(1, 89)),
        times("beyond", "a step behind the last LSN", t2, "Times", two(7, 90)),
        times("lsn-order", "two steps at one LSN", t1, "Times", two(0, 90)),
        times("time-order", "two steps at one time", t1, "Times", two(1, 0)),
        times("lsn-overflow", "an LSN that exceeds 64 bits", t1, "Times", two(u64::MAX, 1)),
        times("time-overflow", "a time that exceeds 64 bits", t1, "Times", two(1, u64::MAX / tick)),
        times("chunk-of-129", "a chunk of 129 steps", t1, "Times", [vec![128], one(100, first)[1..].to_vec()].concat()),
        times("chunk-order", "a chunk that goes back", t1, "Times", [two(3, 90), one(102, first)].concat()),
        times("cut-short", "a chunk that ends early", &[], "TooShort", vec![0, 100]),
    ]
}

pub(super) fn events() -> Vec<Vector> {
    let events = |name: &str, about: &str, rules: &[&'static str], error, section: &[u8]| {
        forged(&format!("events-{name}"), about, rules, error, |parts| *parts.section(4) = section.to_vec())
    };
    // One event at LSN 105 (0x69) of a code, with these fields.
    let one = |code: &[u8], fields: &[u8]| [b"\x81\x83\x18\x69", code, fields].concat();
    let field = |name: &str, about: &str, code: u8, fields: &[u8]| {
        events(&format!("field-{name}"), about, &["CB-1"], "Field", &one(&[code], fields))
    };
    let (cb1, e2): (&[_], &[_]) = (&["CB-1"], &["E-2"]);
    let hash = [0x58, 0x20].into_iter().chain([7; 32]).collect::<Vec<_>>();
    let seed = |role: &[u8], start: &[u8], blocks: &[u8]| {
        let front: &[u8] = b"\xa7\x63seq\x01\x64disk\x01\x64hash";
        [front, &hash, b"\x64role", role, b"\x65epoch\x01\x65start", start, b"\x66blocks", blocks].concat()
    };
    vec![
        events("not-cbor", "not CBOR", cb1, "Cbor", b"\xff\xff"),
        events("empty", "no CBOR at all", cb1, "Cbor", b""),
        events("not-a-list", "a map", cb1, "Cbor", b"\xa0"),
        events("indefinite", "a list of indefinite length", cb1, "Cbor", b"\x9f\xff"),
        events("cut-short", "a list that ends early", cb1, "Cbor", b"\x82\x83\x18\x69\x06\xa0"),
        events("huge-list", "a list of 2^64 - 1 events", cb1, "Cbor", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
        events("not-three", "an event of four items", cb1, "Cbor", b"\x81\x84\x18\x69\x06\xa0\x00"),
        events("indefinite-map", "fields of indefinite length", cb1, "Cbor", &one(&[6], b"\xbf\xff")),
        events("name-order", "field names out of order", cb1, "Cbor", &one(&[6], b"\xa2\x61b\x01\x61a\x01")),
        events(
            "name-length-order",
            "a longer name before a shorter",
            cb1,
            "Cbor",
            &one(&[6], b"\xa2\x62aa\x01\x61b\x01"),
        ),
        events("name-twice", "a field name twice", cb1, "Cbor", &one(&[5], b"\xa2\x64disk\x01\x64disk\x01")),
        events("skipped-order", "a skipped field out of order", cb1, "Cbor", &one(&[5], b"\xa2\x64disk\x01\x61a\xf6")),
        events("name-not-text", "a field name that is a number", cb1, "Cbor", &one(&[6], b"\xa1\x01\x01")),
        events("not-utf8", "text that is not UTF-8", cb1, "Cbor", &one(&[6], b"\xa1\x61a\x61\xff")),
        events("trailing", "a byte behind the list", cb1, "TrailingBytes", b"\x80\x00"),
        events("unknown-critical", "code 127", &["E-1"], "UnknownCriticalEvent", &one(&[0x18, 127], b"\xa0")),
        events("code-0", "code 0", &["E-1"], "UnknownCriticalEvent", &one(&[0], b"\xa0")),
        events("order", "LSNs descend", e2, "Event", b"\x82\x83\x18\x6a\x06\xa0\x83\x18\x69\x06\xa0"),
        events("twins", "two events at one LSN", e2, "Event", b"\x82\x83\x18\x69\x06\xa0\x83\x18\x69\x06\xa0"),
        events("before", "an event before the first LSN", e2, "Event", b"\x81\x83\x18\x63\x06\xa0"),
        events("behind", "an event behind the last LSN", e2, "Event", b"\x81\x83\x18\x6b\x06\xa0"),
        field("missing", "FLUSH without disk", 5, b"\xa0"),
        field("type", "FLUSH of a disk that is a text", 5, b"\xa1\x64disk\x611"),
        field("unknown-type", "FLUSH of a disk that is null", 5, b"\xa1\x64disk\xf6"),
        field("disk-id", "FLUSH of a disk id of 33 bits", 5, b"\xa1\x64disk\x1b\x00\x00\x00\x01\x00\x00\x00\x00"),
        field(
            "blocks",
            "a disk larger than the largest",
            2,
            b"\xa2\x64disk\x01\x66blocks\x1b\x00\x40\x00\x00\x00\x00\x00\x01",
        ),
        field("level", "a bookmark of unknown level", 7, b"\xa2\x64name\x61n\x65level\x61x"),
        field("body", "a configuration that is a text", 4, b"\xa3\x62vm\x61v\x64body\x61x\x66format\x61f"),
        field("role", "a base segment of unknown role", 9, &seed(b"\x61x", b"\x00", b"\x01")),
        field("extent-empty", "a base segment of no blocks", 9, &seed(b"\x66writer", b"\x00", b"\x00")),
        field(
            "extent-beyond",
            "a base segment beyond the largest disk",
            9,
            &seed(b"\x66writer", b"\x1b\x00\x40\x00\x00\x00\x00\x00\x00", b"\x01"),
        ),
        field(
            "generation",
            "a key generation of 33 bits",
            15,
            b"\xa1\x6ageneration\x1b\x00\x00\x00\x01\x00\x00\x00\x00",
        ),
    ]
}

pub(super) fn density() -> Vec<Vector> {
    let events = |section: &[u8]| {
        let section = section.to_vec();
        move |parts: &mut Parts| *parts.section(4) = section
    };
    let (o1, o2): (&[_], &[_]) = (&["O-1"], &["O-2"]);
    let both = b"\x83\x83\x18\x68\x06\xa0\x83\x18\x69\x06\xa0\x83\x18\x6a\x06\xa0";
    vec![
        forged(
            "lsn-missing",
            "LSN 105 is neither a row nor an event",
            o1,
            "NotDense",
            events(b"\x81\x83\x18\x6a\x06\xa0"),
        ),
        forged("lsn-missing-last", "the last LSN is missing", o1, "NotDense", events(b"\x81\x83\x18\x69\x06\xa0")),
        forged("lsn-range", "a range of 2^63 LSNs for seven entries", o1, "NotDense", |parts| {
            parts.set("last_lsn", 1 << 63);
        }),
        forged("lsn-of-both", "LSN 104 is a row and an event", o2, "NotDense", events(both)),
        forged("lsn-split-overlap", "two rows of one write share a block", &["I-3"], "Row", |parts| {
            let rows = [chunk(1, 0, 8, 0, 1), chunk(1, 4, 2, 1, 1), chunk(1, 7, 8, 0, 1)];
            *parts.section(1) = rows.concat();
            *parts.section(2) = Vec::new();
            *parts.section(3) =
                [vec![0], varint(100), varint(parts.get("first_time_ns") / 1_000_000), constant(0), constant(0)]
                    .concat();
            *parts.section(4) = b"\x80".to_vec();
            parts.data = Vec::new();
            let first_time = parts.get("first_time_ns");
            parts.set("row_count", 3).set("stream_blocks", 0).set("frame_count", 0);
            parts.set("last_lsn", 101).set("last_time_ns", first_time);
        }),
    ]
}
