//! Damaged, misplaced and forged objects. Each is an object of `positives` with one thing wrong.

mod records;
mod sections;

pub(super) use sections::varint;

use super::positives::mixed_bytes;
use super::{Vector, domain, log_key};
use crate::forge::{HEADER_FIELDS, Parts, field, rehash_header};
use tidemark_format::*;

pub(super) fn all() -> Vec<Vector> {
    let mut all = header_bits();
    all.extend(header_values());
    all.extend(section_tables());
    all.extend(truncations());
    all.extend(identities());
    all.extend(sections::indexes());
    all.extend(sections::frames());
    all.extend(sections::times());
    all.extend(sections::events());
    all.extend(sections::density());
    all.extend(records::cuts());
    all.extend(records::bases());
    all.extend(records::records());
    all.extend(records::geneses());
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
            parts.header[216..248].fill(0);
        }),
    ]
}
