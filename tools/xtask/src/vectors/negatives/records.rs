//! CUTs, base segments, claims, hints and geneses that break a rule.

use super::bad;
use super::sections::chunk;
use crate::forge::{self, Parts};
use crate::vectors::positives::{base_bytes, claim, cut_bytes, cut_with_disks, genesis_of, mixed_bytes};
use crate::vectors::{Vector, domain, log_key};
use tidemark_format::*;

pub(super) fn cuts() -> Vec<Vector> {
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
        body(
            "disks-of-numbers",
            "disks with a number among them",
            cb1,
            "Field",
            b"\x65disks\x84",
            b"\x65disks\x85\x01",
        ),
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

pub(super) fn bases() -> Vec<Vector> {
    let base = |name: &str, about: &str, rules: &[&'static str], error, change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::split(&base_bytes(Role::Writer, 2, 1));
        change(&mut parts);
        let key = ObjectKey::Base { role: Role::Writer, epoch: Epoch::new(2), seq: Seq::new(1) };
        bad(&format!("base-{name}"), about, rules, error, key, parts.build())
    };
    let h5: &[_] = &["H-5"];
    vec![
        base("prev-header-hash", "a base segment in a chain", h5, "HeaderField", &|parts| parts.header[216] = 1),
        base("acked-through", "its own LSN acknowledged", h5, "HeaderField", &|parts| {
            parts.set("acked_through", 30);
        }),
        base("overlap", "two rows share a block", &["I-3"], "Row", &|parts| {
            *parts.section(1) = [chunk(1, 0, 4, 0, 0), chunk(1, 3, 2, 0, 0)].concat();
            parts.set("row_count", 2);
        }),
        base("with-cut", "a base segment with a CUT section", &["H-4"], "SectionTable", &|parts| {
            parts.section(5);
        }),
    ]
}

pub(super) fn records() -> Vec<Vector> {
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

pub(super) fn geneses() -> Vec<Vector> {
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
