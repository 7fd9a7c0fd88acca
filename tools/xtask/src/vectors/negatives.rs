//! Damaged, misplaced and forged objects. Each is an object of `positives` with one thing wrong.

use super::positives::{claim, cut_bytes, cut_with_disks, genesis_of, mixed_bytes, two_raw_frames};
use super::{Vector, domain, log_key};
use crate::forge::{self, HEADER_FIELDS, Parts, field, rehash_header};
use tidemark_format::*;

pub(super) fn all() -> Vec<Vector> {
    let mut all = header_bits();
    all.extend(header_values());
    all.extend(section_tables());
    all.extend(truncations());
    all.extend(identities());
    all.extend(indexes());
    all.extend(frames());
    all.extend(times());
    all.extend(events());
    all.extend(density());
    all.extend(cuts());
    all.extend(records());
    all.extend(geneses());
    all
}

fn bad(name: &str, about: &str, rules: &[&'static str], error: &'static str, key: ObjectKey, bytes: Vec<u8>) -> Vector {
    Vector {
        name: format!("bad-{name}"),
        about: about.to_owned(),
        rules: rules.to_vec(),
        expect: Expect { domain: domain(), key },
        bytes,
        canonical: false,
        error: Some(error),
    }
}

/// A damaged `log-mixed`.
fn log(name: &str, about: &str, rules: &[&'static str], error: &'static str, bytes: Vec<u8>) -> Vector {
    bad(&format!("log-{name}"), about, rules, error, log_key(2, 7), bytes)
}

/// A `log-mixed` that was changed in pieces and put together with right hashes.
fn forged(
    name: &str,
    about: &str,
    rules: &[&'static str],
    error: &'static str,
    change: impl FnOnce(&mut Parts),
) -> Vector {
    let mut parts = Parts::split(&mixed_bytes());
    change(&mut parts);
    log(name, about, rules, error, parts.build())
}

/// One bit turned over in each field of the header, hashes left as they were.
fn header_bits() -> Vec<Vector> {
    let beyond_hash: &[(&str, usize, usize)] = &[("header_hash", 448, 32), ("header_mac", 480, 32)];
    HEADER_FIELDS
        .iter()
        .chain(beyond_hash)
        .map(|&(name, at, len)| {
            let mut bytes = mixed_bytes();
            bytes[at + len / 2] ^= 0x04;
            let (rules, error): (&[_], _) = match name {
                "magic" => (&["H-1"], "Magic"),
                "major" => (&["V-1"], "Major"),
                "header_mac" => (&["H-5"], "HeaderField"),
                _ => (&["H-2"], "HeaderHash"),
            };
            log(
                &format!("bit-{}", name.replace('_', "-")),
                &format!("a bit of {name} is turned over"),
                rules,
                error,
                bytes,
            )
        })
        .collect()
}

/// Header fields with forbidden values under right hashes.
fn header_values() -> Vec<Vector> {
    // The totals are checked against each other, so they are set after the pieces are put together.
    let set = |change: &[(&str, u64)]| {
        let mut bytes = mixed_bytes();
        for (name, value) in change {
            let (at, len) = field(name);
            bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        }
        rehash_header(&mut bytes);
        bytes
    };
    let mixed = Parts::split(&mixed_bytes());
    let tick = u64::from(TICK_NS_DEFAULT);
    let one = |name: &str, about: &str, error, rules: &[&'static str], change: &[(&str, u64)]| {
        log(&format!("header-{name}"), about, rules, error, set(change))
    };
    let h5: &[_] = &["H-5"];
    vec![
        one("major", "major version 2", "Major", &["V-1"], &[("major", 2)]),
        one(
            "features-read",
            "an unknown bit in features_read",
            "ReadFeatures",
            &["V-2"],
            &[("features_read", 1 << 40)],
        ),
        one("kind", "kind 4", "HeaderField", h5, &[("kind", 4)]),
        one("role", "role 3", "HeaderField", h5, &[("role", 3)]),
        one("role-maintenance", "a log segment of the maintenance role", "HeaderField", h5, &[("role", 2)]),
        one("granularity", "granularity 2", "HeaderField", h5, &[("granularity", 2)]),
        one("hash-algorithm", "hash algorithm 2", "HeaderField", h5, &[("hash_algorithm", 2)]),
        one("epoch", "epoch 0", "HeaderField", h5, &[("epoch", 0)]),
        one("seq", "a log segment of seq 0", "HeaderField", &["C-1"], &[("seq", 0)]),
        one(
            "total-len-limit",
            "more than 256 MiB",
            "HeaderField",
            &["L-1"],
            &[("total_len", (256 << 20) + 1), ("data_len", (256 << 20) + 1 - mixed.get("head_len"))],
        ),
        one(
            "total-len",
            "total_len is not head_len + data_len",
            "HeaderField",
            h5,
            &[("total_len", mixed.get("total_len") + 1)],
        ),
        one(
            "head-len",
            "head_len below 512",
            "HeaderField",
            h5,
            &[("head_len", 511), ("data_len", mixed.get("total_len") - 511)],
        ),
        one("head-len-overflow", "head_len + data_len exceed 64 bits", "HeaderField", h5, &[("head_len", u64::MAX)]),
        one("first-lsn", "first LSN 0", "HeaderField", h5, &[("first_lsn", 0), ("acked_through", 0)]),
        one("last-lsn", "last LSN before the first", "HeaderField", h5, &[("last_lsn", 99)]),
        one(
            "first-time",
            "first time not in whole ticks",
            "HeaderField",
            h5,
            &[("first_time_ns", mixed.get("first_time_ns") + 1)],
        ),
        one(
            "last-time",
            "last time not in whole ticks",
            "HeaderField",
            h5,
            &[("last_time_ns", mixed.get("last_time_ns") + 1)],
        ),
        one(
            "time-order",
            "last time before the first",
            "HeaderField",
            &["T-1"],
            &[("last_time_ns", mixed.get("first_time_ns") - tick)],
        ),
        one("tick", "tick of 0 ns", "HeaderField", h5, &[("tick_ns", 0)]),
        one("acked-through", "its own first LSN acknowledged", "HeaderField", h5, &[("acked_through", 100)]),
        one("frame-plain-max", "frames of 128 KiB", "HeaderField", h5, &[("frame_plain_max", 131_072)]),
        one("key-generation", "a key generation", "HeaderField", h5, &[("key_generation", 1)]),
        one("aead", "an encryption", "HeaderField", h5, &[("aead", 1)]),
        one("reserved", "reserved bytes in use", "HeaderField", h5, &[("reserved", 1)]),
        one("row-count", "a row more than INDEX has", "Mismatch", &["I-4"], &[("row_count", 6)]),
        one("stream-blocks", "a block more than the rows have", "Mismatch", &["I-4"], &[("stream_blocks", 5)]),
        one(
            "data-len",
            "a byte more than the frames have",
            "Mismatch",
            &["FR-1"],
            &[("data_len", mixed.get("data_len") + 1), ("total_len", mixed.get("total_len") + 1)],
        ),
        one("frame-count-high", "a frame more than FRAMEDIR has", "TooShort", &["FR-1"], &[("frame_count", 3)]),
        one("frame-count-low", "a frame less than FRAMEDIR has", "TrailingBytes", &["FR-1"], &[("frame_count", 1)]),
        log("meta-bit", "a bit of INDEX is turned over", &["H-3"], "MetaHash", {
            let mut bytes = mixed_bytes();
            bytes[520] ^= 1;
            bytes
        }),
        log("meta-hash", "another meta hash under a right header hash", &["H-3"], "MetaHash", {
            let mut bytes = mixed_bytes();
            bytes[416] ^= 1;
            rehash_header(&mut bytes);
            bytes
        }),
    ]
}

fn section_tables() -> Vec<Vector> {
    let slot = 248;
    let table = |name: &str, about: &str, rules: &[&'static str], error, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = mixed_bytes();
        change(&mut bytes);
        rehash_header(&mut bytes);
        log(&format!("table-{name}"), about, rules, error, bytes)
    };
    let h4: &[_] = &["H-4"];
    let add = |bytes: &mut Vec<u8>, at: usize, by: u8| bytes[at] = bytes[at].wrapping_add(by);
    let critical = |id: u16| move |parts: &mut Parts| parts.section(id).extend_from_slice(b"future");
    let without = |id: u16| move |parts: &mut Parts| parts.sections.retain(|section| section.id != id);
    let mut all = vec![
        table("flags", "unknown flags", h4, "SectionTable", &|b| b[slot + 2] = 3),
        table("reserved", "reserved bytes in use", h4, "SectionTable", &|b| b[slot + 4] = 1),
        table("order", "ids do not ascend", h4, "SectionTable", &|b| b[slot + 24] = 1),
        table("gap", "a section begins a byte late", h4, "SectionTable", &|b| add(b, slot + 24 + 8, 1)),
        table("overlap", "a section begins a byte early", h4, "SectionTable", &|b| add(b, slot + 24 + 8, 255)),
        table("unused", "a used slot behind an unused one", h4, "SectionTable", &|b| {
            b.copy_within(slot + 72..slot + 96, slot + 96);
            b[slot + 72..slot + 96].fill(0);
        }),
        table("beyond", "the last section reaches beyond the head", h4, "SectionTable", &|b| add(b, slot + 72 + 16, 1)),
        table("huge", "the last section has 2^64 - 1 bytes", h4, "SectionTable", &|b| {
            b[slot + 88..slot + 96].fill(255)
        }),
        table("short", "the sections do not fill the head", h4, "SectionTable", &|b| add(b, slot + 72 + 16, 255)),
        forged("unknown-critical-section", "section 9, critical", &["V-3"], "UnknownCriticalSection", critical(9)),
        forged("foreign-section", "a log segment with a CUT section", h4, "SectionTable", critical(5)),
    ];
    for (id, name) in [(1, "index"), (2, "framedir"), (3, "times"), (4, "events")] {
        let about = format!("no section {}", name.to_uppercase());
        all.push(forged(&format!("without-{name}"), &about, h4, "SectionTable", without(id)));
    }
    all
}

fn truncations() -> Vec<Vector> {
    let whole = mixed_bytes();
    let parts = Parts::split(&whole);
    let mut edges = vec![("0", 0), ("7", 7), ("8", 8), ("511", 511), ("512", 512)];
    let mut at = 512;
    for (section, name) in parts.sections.iter().zip(["index", "framedir", "times", "events"]) {
        at += section.bytes.len();
        edges.push((name, at));
    }
    let head_len = at;
    edges.push(("head-less-1", head_len - 1));
    edges.push(("frame-1", whole.len() - 512));
    edges.push(("whole-less-1", whole.len() - 1));
    let mut all: Vec<_> = edges
        .into_iter()
        .map(|(name, len)| {
            let (rules, error): (&[_], _) = if len < head_len { (&[], "TooShort") } else { (&["R-2"], "TotalLen") };
            let about = format!("only the first {len} bytes");
            log(&format!("cut-short-{name}"), &about, rules, error, whole[..len].to_vec())
        })
        .collect();
    all.push(log("byte-too-many", "a byte behind the last frame", &["R-2"], "TotalLen", [&whole[..], &[0]].concat()));
    all
}

fn identities() -> Vec<Vector> {
    let whole = mixed_bytes();
    let r1: &[_] = &["R-1"];
    let misplaced = |name: &str, about: &str, key| bad(name, about, r1, "Misplaced", key, whole.clone());
    let base = ObjectKey::Base { role: Role::Writer, epoch: Epoch::new(2), seq: Seq::new(7) };
    let mut other_domain = Parts::split(&whole);
    other_domain.header[48] ^= 1;
    vec![
        log("wrong-domain", "a segment of another domain", r1, "WrongDomain", other_domain.build()),
        misplaced("log-stale-epoch", "a segment of an older epoch under a newer one's key", log_key(3, 7)),
        misplaced("log-other-seq", "a segment under the key of the next", log_key(2, 8)),
        misplaced("log-as-base", "a log segment under the key of a base segment", base),
        misplaced("log-as-cut", "a log segment under the key of a CUT", log_key(2, 0)),
        forged("kind-and-place", "a base segment under the key of a log segment", r1, "Misplaced", |parts| {
            parts.set("kind", 2).set("last_lsn", 100);
        }),
    ]
}

fn varint(mut value: u64) -> Vec<u8> {
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
fn chunk(disk: u64, start: u64, len: u64, lsn_offset: u64, kind: u64) -> Vec<u8> {
    [varint(disk), vec![0], varint(start), constant(0), constant(len), constant(lsn_offset), constant(kind)].concat()
}

fn indexes() -> Vec<Vector> {
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
        forged("index-too-many", "two rows where the header says five", &["I-4"], "Mismatch", |parts| {
            *parts.section(1) = [chunk(1, 8, 1, 0, 1), chunk(1, 9, 1, 1, 1)].concat();
        }),
    ]
}

fn frames() -> Vec<Vector> {
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

fn times() -> Vec<Vector> {
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

fn events() -> Vec<Vector> {
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

fn density() -> Vec<Vector> {
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

fn cuts() -> Vec<Vector> {
    let key = log_key(4, 0);
    let cut = |name: &str, about: &str, rules: &[&'static str], error, change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::split(&cut_bytes(4, &cut_with_disks()));
        change(&mut parts);
        bad(&format!("cut-{name}"), about, rules, error, key, parts.build())
    };
    // The body with one piece of its bytes replaced by another.
    let body = |name: &str, about: &str, rules: &[&'static str], error, from: &[u8], to: &[u8]| {
        cut(name, about, rules, error, &|parts| {
            let section = parts.section(5);
            let at = section.windows(from.len()).position(|window| window == from).expect("the sample holds it");
            section.splice(at..at + from.len(), to.iter().copied());
        })
    };
    let cb1: &[_] = &["CB-1"];
    let first = |next_lsn: u64, name: &str, about: &str| {
        let cut = Cut { predecessor: None, next_lsn: Lsn::new(1), claim_nonce: [1; 16], disks: Vec::new() };
        let mut parts = Parts::split(&cut_bytes(1, &cut));
        parts.set("first_lsn", next_lsn).set("last_lsn", next_lsn - 1);
        let section = parts.section(5);
        let at = section.windows(9).position(|w| w == b"next_lsn\x01").expect("the sample holds it");
        section[at + 8] = next_lsn as u8;
        bad(name, about, &["C-2"], "Mismatch", log_key(1, 0), parts.build())
    };
    vec![
        cut("seq", "a CUT of seq 1", &["C-1"], "HeaderField", &|parts| {
            parts.set("seq", 1);
        }),
        cut("role", "a CUT of the maintenance role", &["H-5"], "HeaderField", &|parts| {
            parts.set("role", 2);
        }),
        cut("acked", "a CUT that says what was acknowledged", &["C-4"], "HeaderField", &|parts| {
            parts.set("acked_through", 1);
        }),
        cut("last-lsn", "last LSN is not first LSN less 1", &["H-5"], "HeaderField", &|parts| {
            parts.set("last_lsn", 4_711);
        }),
        cut("next-lsn", "next_lsn is not the header's first LSN", &["C-2"], "Mismatch", &|parts| {
            parts.set("first_lsn", 4_712).set("last_lsn", 4_711);
        }),
        first(2, "cut-first-next-lsn", "a domain whose first LSN is 2"),
        cut("tail-hash", "tail_hash is not the header's prev_header_hash", &["C-3"], "Field", &|parts| {
            parts.header[216] ^= 1
        }),
        body("tail-epoch", "a predecessor of the same epoch", &["C-3"], "Field", b"tail_epoch\x02", b"tail_epoch\x04"),
        body("tail-seq-missing", "tail_epoch without tail_seq", cb1, "Field", b"tail_seq\x09", b"tall_seq\x09"),
        body("disk-order", "disks descend", cb1, "Field", b"\x64disk\x01", b"\x64disk\x05"),
        body("disk-twice", "a disk twice", cb1, "Field", b"\x64disk\x02", b"\x64disk\x01"),
        body("disk-name", "a disk without name", cb1, "Field", b"\x64name\x72", b"\x64nome\x72"),
        body("disks", "a CUT without list of disks", cb1, "Field", b"\x65disks", b"\x65disqs"),
        body("disk-lsn", "consistent_from is a text", cb1, "Field", b"consistent_from\x03", b"consistent_from\x60"),
        body("nonce", "a nonce of 15 bytes", cb1, "Field", b"\x50nonce of claim 4", b"\x4fnonce of claim "),
        body("list", "a list of numbers for disks", cb1, "Cbor", b"\x65disks\x84", b"\x65disks\x85\x01"),
        cut("trailing", "a byte behind the record", cb1, "TrailingBytes", &|parts| parts.section(5).push(0)),
        cut("without-cut", "no section CUT", &["H-4"], "SectionTable", &|parts| parts.sections.clear()),
        cut("with-index", "a CUT with an INDEX section", &["H-4"], "SectionTable", &|parts| {
            parts.section(1);
        }),
        cut("with-data", "a CUT with DATA", &["FR-1"], "Mismatch", &|parts| parts.data.push(0)),
        cut("with-rows", "a CUT that counts rows", &["I-4"], "Mismatch", &|parts| {
            parts.set("row_count", 1);
        }),
        bad(
            "base-last-lsn",
            "a base segment of two LSNs",
            &["H-5"],
            "HeaderField",
            ObjectKey::Base { role: Role::Writer, epoch: Epoch::new(2), seq: Seq::new(7) },
            {
                let mut parts = Parts::split(&mixed_bytes());
                parts.set("kind", 2);
                parts.build()
            },
        ),
    ]
}

fn records() -> Vec<Vector> {
    let (claim, key) = (claim(), claim().key());
    let whole = claim.encode();
    let record = |name: &str, about: &str, rules: &[&'static str], error, bytes: Vec<u8>| {
        bad(&format!("claim-{name}"), about, rules, error, key, bytes)
    };
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let body = whole[48..].to_vec();
    let replaced = |from: &[u8], to: &[u8]| {
        let at = body.windows(from.len()).position(|window| window == from).expect("the sample holds it");
        forge::record(1, 1, &[&body[..at], to, &body[at + from.len()..]].concat())
    };
    let (rc1, cb1, r1): (&[_], &[_], &[_]) = (&["RC-1"], &["CB-1"], &["R-1"]);
    let field = |name: &str, about: &str, from: &[u8], to: &[u8]| {
        record(&format!("field-{name}"), about, cb1, "Field", replaced(from, to))
    };
    let hint = Hint { domain: domain(), epoch: Epoch::new(4), seq: Seq::new(300) }.encode();
    let bad_hint = |name: &str, about: &str, rules: &[&'static str], error, bytes: Vec<u8>| {
        bad(&format!("hint-{name}"), about, rules, error, ObjectKey::Hint, bytes)
    };
    let other_key = ObjectKey::writer_claim(Epoch::new(5));
    let other_role = ObjectKey::Claim { role: Role::Maintenance, epoch: Epoch::new(4) };
    let too_large = forge::record(1, 1, &vec![0; (64 << 10) - 47]);
    vec![
        record("magic", "a bit of the magic number is turned over", &[], "Magic", flipped(2)),
        record("major", "major version 0", &["V-1"], "Major", flipped(10)),
        record("kind-bit", "a bit of the kind is turned over", rc1, "RecordHash", flipped(8)),
        record("length-bit", "the body is said to be shorter", rc1, "TrailingBytes", flipped(12)),
        record("hash-bit", "a bit of the hash is turned over", rc1, "RecordHash", flipped(20)),
        record("body-bit", "a bit of the body is turned over", rc1, "RecordHash", flipped(60)),
        record("kind", "a hint's kind in a claim's place", &[], "HeaderField", forge::record(2, 1, &body)),
        record("empty", "no bytes", &[], "TooShort", Vec::new()),
        record("cut-short", "the last byte is missing", rc1, "TooShort", whole[..whole.len() - 1].to_vec()),
        record("envelope-cut-short", "47 bytes", rc1, "TooShort", whole[..47].to_vec()),
        record("byte-too-many", "a byte behind the body", rc1, "TrailingBytes", [&whole[..], &[0]].concat()),
        record("too-large", "a byte more than 64 KiB", &[], "TrailingBytes", too_large),
        record("not-cbor", "not CBOR", cb1, "Cbor", forge::record(1, 1, b"\xff")),
        record("list", "a list", cb1, "Cbor", forge::record(1, 1, b"\x80")),
        record("no-fields", "no fields", cb1, "Field", forge::record(1, 1, b"\xa0")),
        record(
            "body-trailing",
            "a byte behind the record in the body",
            cb1,
            "TrailingBytes",
            forge::record(1, 1, &[&body[..], &[0]].concat()),
        ),
        field("mode", "an unknown mode", b"\x63cas", b"\x63cat"),
        field("role", "an unknown role", b"\x66writer", b"\x66waiter"),
        field("nonce", "a nonce of 17 bytes", b"\x50nonce of claim 4", b"\x51nonce of claim 42"),
        field("domain", "no domain", b"\x66domain\x50", b"\x66dumain\x50"),
        field("owner", "an owner that is bytes", b"\x65owner\x74", b"\x65owner\x54"),
        record("wrong-domain", "a claim of another domain", r1, "WrongDomain", {
            Claim { domain: DomainId::new([9; 16]), ..claim.clone() }.encode()
        }),
        bad("claim-other-epoch", "a claim under the key of the next", r1, "Misplaced", other_key, whole.clone()),
        bad(
            "claim-other-role",
            "a writer's claim under the key of maintenance",
            r1,
            "Misplaced",
            other_role,
            whole.clone(),
        ),
        bad_hint("wrong-domain", "a hint of another domain", r1, "WrongDomain", {
            Hint { domain: DomainId::new([9; 16]), epoch: Epoch::new(4), seq: Seq::new(300) }.encode()
        }),
        bad_hint("bit", "a bit of the body is turned over", rc1, "RecordHash", {
            let mut bytes = hint.clone();
            *bytes.last_mut().expect("not empty") ^= 1;
            bytes
        }),
        bad_hint("kind", "a claim in a hint's place", &[], "HeaderField", whole.clone()),
        bad_hint("field", "a hint without seq", cb1, "Field", {
            let at = hint.windows(4).position(|window| window == b"\x63seq").expect("a hint has one");
            let mut body = hint[48..].to_vec();
            body[at - 48 + 1] = b'S';
            forge::record(2, 1, &body)
        }),
    ]
}

fn geneses() -> Vec<Vector> {
    let whole = genesis_of("payroll", Features::default()).encode();
    let text = String::from_utf8(whole.clone()).expect("JSON");
    let lines = text[..text.find("  \"check\"").expect("a check line")].to_owned();
    let genesis = |name: &str, about: &str, rules: &[&'static str], error, bytes: Vec<u8>| {
        bad(&format!("genesis-{name}"), about, rules, error, ObjectKey::Genesis, bytes)
    };
    let said = |name: &str, about: &str, from: &str, to: &str| {
        assert!(lines.contains(from), "the sample holds {from}");
        genesis(name, about, &[], "Genesis", forge::genesis(&lines.replace(from, to)))
    };
    let replaced = |from: &str, to: &str| forge::genesis(&lines.replace(from, to));
    let g1: &[_] = &["G-1"];
    vec![
        genesis(
            "name-bit",
            "a bit of the name is turned over",
            g1,
            "Genesis",
            text.replace("payroll", "qayroll").into_bytes(),
        ),
        genesis("check-digit", "a digit of check differs", g1, "Genesis", {
            let mut bytes = whole.clone();
            let at = bytes.len() - 5;
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            bytes
        }),
        genesis(
            "without-check",
            "no check line",
            g1,
            "Genesis",
            format!("{}\n}}\n", lines.trim_end_matches(",\n")).into_bytes(),
        ),
        genesis("line-end", "no line feed at the end", g1, "Genesis", whole[..whole.len() - 1].to_vec()),
        genesis("byte-too-many", "a space behind it", g1, "Genesis", [&whole[..], b" "].concat()),
        genesis("cut-short", "the first 100 bytes", &[], "Genesis", whole[..100].to_vec()),
        genesis("empty", "no bytes", &[], "Genesis", Vec::new()),
        genesis("not-utf8", "not UTF-8", &[], "Genesis", vec![b'{', 0xff, b'}']),
        genesis("list", "a JSON list", &[], "Genesis", b"[]".to_vec()),
        genesis("major", "major version 2", &["V-1"], "Major", replaced("\"major\": 1", "\"major\": 2")),
        genesis("features-read", "an unknown bit in features_read", &["V-2"], "ReadFeatures", {
            replaced("\"features_read\": \"0000000000000000\"", "\"features_read\": \"0000000000000001\"")
        }),
        said("format", "another format", "tidemark-log", "tidemark-lag"),
        said("block-bytes", "blocks of 4096 bytes", "\"block_bytes\": 512", "\"block_bytes\": 4096"),
        said("granularity", "granularity segment", "\"granularity\": \"write\"", "\"granularity\": \"segment\""),
        said(
            "mask",
            "a feature mask of 15 digits",
            "\"features_gc\": \"0000000000000000\"",
            "\"features_gc\": \"000000000000000\"",
        ),
        said("domain", "a domain in upper case", "\"domain\": \"6", "\"domain\": \"A"),
        said("name", "no name", "\"name\"", "\"nome\""),
        said("created", "a time that is not a number", "\"created_ns\": \"1", "\"created_ns\": \"x"),
        said("major-type", "a major version that is not whole", "\"major\": 1,\n", "\"major\": 1.5,\n"),
    ]
}
