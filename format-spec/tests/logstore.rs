//! The golden vectors of LOGSTORE.md: every structure means what its JSON says, or is refused with the error that it
//! names. `cargo xtask vectors --write-new` adds vectors; `tests/vectors.rs` sees to it that none changes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

// Shared with `cargo xtask`.
#[allow(unreachable_pub, dead_code)]
mod meaning;

use meaning::logstore::{Structure, of, written_anew};
use serde_json::Value as Json;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use tidemark_format::logstore::*;
use tidemark_format::{BLOCK_BYTES, DiskId, DomainId, EventBody, Extent, FormatError, Lsn, TimeNs};

const SPEC: &str = include_str!("../LOGSTORE.md");

struct Vector {
    name: String,
    json: Json,
    structure: Structure,
    bytes: Vec<u8>,
}

fn all() -> Vec<Vector> {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/logstore"));
    let mut all = Vec::new();
    for file in fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let json: Json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let structure = Structure::from_json(&json).unwrap_or_else(|| panic!("{name}"));
            all.push(Vector { name, json, structure, bytes: fs::read(path.with_extension("bin")).unwrap() });
        }
    }
    assert!(all.len() > 100, "only {} vectors were found", all.len());
    all
}

fn good() -> impl Iterator<Item = Vector> {
    all().into_iter().filter(|vector| vector.json["error"].is_null())
}

#[test]
fn vector_structures_mean_what_their_json_says() {
    for vector in good() {
        let meaning = of(&vector.structure, &vector.bytes);
        assert_eq!(meaning.as_ref(), Ok(&vector.json["meaning"]), "{}", vector.name);
    }
}

#[test]
fn vector_bad_structures_are_refused_with_the_error_they_name() {
    let mut count = 0;
    for vector in all().iter().filter(|vector| !vector.json["error"].is_null()) {
        let got = of(&vector.structure, &vector.bytes).map_err(|e| e.name());
        assert_eq!(got, Err(vector.json["error"].as_str().unwrap()), "{}", vector.name);
        count += 1;
    }
    assert!(count > 80, "{count}");
}

#[test]
fn vector_canonical_structures_are_written_to_the_same_bytes() {
    for vector in good() {
        let written = written_anew(&vector.structure, &vector.bytes).unwrap();
        assert_eq!(written == vector.bytes, vector.json["canonical"] == true, "{}", vector.name);
    }
}

#[test]
fn vector_rules_exist_in_the_specification() {
    for vector in all() {
        for rule in vector.json["rules"].as_array().unwrap() {
            let rule = rule.as_str().unwrap();
            assert!(SPEC.contains(&format!("**{rule}**")), "{}: {rule}", vector.name);
        }
    }
}

/// Every bit is under a checksum, but for those that fill up the last page.
#[test]
fn vector_one_flipped_bit_is_refused_or_means_the_same() {
    for vector in good().filter(|vector| vector.bytes.len() <= 8192) {
        // One bit of each byte, each of the eight in turn.
        for bit in (0..vector.bytes.len()).map(|byte| byte * 8 + byte % 8) {
            let mut bytes = vector.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(meaning) = of(&vector.structure, &bytes) {
                let minor = (10..12).contains(&(bit / 8));
                let padding = vector.bytes[bit / 8] == 0 && !matches!(vector.structure, Structure::Label);
                assert!(minor || padding, "{} with bit {bit} turned over", vector.name);
                assert_eq!(meaning, vector.json["meaning"], "{} with bit {bit} turned over", vector.name);
            }
        }
    }
}

#[test]
fn vector_truncation_at_every_byte_is_refused() {
    for vector in good() {
        let needed = match &vector.structure {
            Structure::Table(..) => table_len(&vector.bytes).unwrap() as usize,
            _ => vector.bytes.len(),
        };
        for len in (0..needed).step_by(1 + needed / 5000) {
            assert!(of(&vector.structure, &vector.bytes[..len]).is_err(), "{} cut to {len}", vector.name);
        }
    }
}

#[test]
fn the_specification_lists_every_error_that_a_vector_expects() {
    let errors = SPEC.split_once("\n## Errors\n").unwrap().1.split_once("\n## ").unwrap().0;
    for vector in all().iter().filter(|vector| !vector.json["error"].is_null()) {
        let name = vector.json["error"].as_str().unwrap();
        assert!(errors.contains(&format!("`{name}`")), "{}: {name}", vector.name);
    }
}

#[test]
fn the_layout_of_the_specification_is_that_of_the_codec() {
    assert_eq!((LABEL_COPY_AT, TABLES_AT, PAGE_BYTES), (65_536, 131_072, 4_096));
    assert_eq!((BATCH_HEADER_BYTES, RECORD_DESCRIPTOR_BYTES, TABLE_HEADER_BYTES), (128, 48, 80));
    for (extent_bytes, extents, domains_max) in [(64 << 10, 1, 1), (16 << 20, 640, 64), (1 << 30, 1 << 24, 1024)] {
        let geometry = Geometry::new(extent_bytes, extents, domains_max).unwrap();
        let meta_pages_max = (extent_bytes / 4096 / 2).min(1024);
        assert_eq!(u64::from(geometry.meta_pages_max()), meta_pages_max);
        let table = 80 + u64::from(domains_max) * (120 + 64 * 104 + 8 * meta_pages_max) + 4 * u64::from(extents);
        assert_eq!(geometry.table_bytes(), table.div_ceil(4096) * 4096);
        assert_eq!(geometry.extents_at(), 131_072 + 2 * geometry.table_bytes());
    }
}

#[test]
fn the_largest_layout_fits_and_one_extent_more_does_not() {
    for extent_bytes in [64 << 10, 1 << 20, 16 << 20] {
        for lun_bytes in (1..40).map(|n| (n * n * n + 1) * 700_001) {
            let Ok(geometry) = Geometry::largest(lun_bytes, extent_bytes, 4) else {
                let least = Geometry::new(extent_bytes, 1, 4).unwrap();
                assert!(least.lun_bytes() > lun_bytes, "{lun_bytes}");
                continue;
            };
            assert!(geometry.lun_bytes() <= lun_bytes);
            let more = Geometry::new(extent_bytes, geometry.extents() + 1, 4).unwrap();
            assert!(more.lun_bytes() > lun_bytes, "{lun_bytes} has room for more than {}", geometry.extents());
        }
    }
}

/// The table with the most to say fits into the room set aside for it.
#[test]
fn the_largest_table_fits() {
    let geometry = Geometry::new(64 << 10, 40, 2).unwrap();
    let mut extents = (0..40).map(LunExtent::new);
    let runs = |n: usize| (0..usize::from(n < 8)).map(|_| Run { page: n as u32 * 2, pages: 1 }).collect::<Vec<_>>();
    let domains = [1, 2].map(|n| DomainEntry {
        domain: DomainId::new([n; 16]),
        incarnation: Incarnation::new([n; 16]),
        min_bytes: 0,
        max_bytes: u64::MAX,
        first_lsn: Lsn::new(1),
        durable: Lsn::new(1),
        head: Head { page: 0, prev_crc: 0, seq: BatchSeq::FIRST, lsn: Lsn::new(1), time: TimeNs::new(0) },
        meta_extent: extents.next().unwrap(),
        extents: extents.by_ref().take(19).collect(),
        metas: (0..META_NAMES_MAX)
            .map(|n| MetaEntry {
                name: format!("{n:0>64}"),
                len: if n < 8 { 4096 } else { 0 },
                hash: [7; 32],
                runs: runs(n),
            })
            .collect(),
    });
    let lun = LunId::new([1; 16]);
    let table = Table { lun, generation: 1, domains: domains.to_vec() };
    let bytes = table.encode();
    assert!(bytes.len() as u64 <= geometry.table_bytes(), "{} of {}", bytes.len(), geometry.table_bytes());
    assert_eq!(Table::decode(&bytes, lun, &geometry), Ok(table));
}

#[test]
fn what_is_in_a_page_of_its_own_is_refused_as_another_thing() {
    let by_name = |name: &str| good().find(|vector| vector.name == name).unwrap();
    let (label, table, batch) = (by_name("label-usual"), by_name("table-domains"), by_name("batch-mixed"));
    let kinds = [&label, &table, &batch];
    for (i, bytes) in kinds.iter().enumerate() {
        for structure in kinds.iter().enumerate().filter(|(k, _)| *k != i).map(|(_, vector)| vector.structure) {
            let refused = of(&structure, &bytes.bytes).unwrap_err();
            assert!(matches!(refused, FormatError::Magic { .. }), "{refused}");
        }
    }
}

const BEGIN: &str = "<!-- worked example: begin (kept by tests/logstore.rs) -->\n";
const END: &str = "<!-- worked example: end -->";

/// A batch of a write of one block and a flush.
fn example() -> String {
    let identity = BatchIdentity {
        lun: LunId::new(*b"tidemark LUN 001"),
        domain: "7469646d-6172-6b20-6578-616d706c6521".parse().unwrap(),
        incarnation: Incarnation::new(*b"the first life!!"),
    };
    let chain = BatchChain { seq: BatchSeq::FIRST, first_lsn: Lsn::new(1), prev_crc: 0 };
    let data = [b'A'; BLOCK_BYTES as usize];
    let flush = EventBody::Flush { disk: DiskId::new(1) }.to_cbor();
    let record = |lsn, kind, disk, extent, data: &[u8]| BatchRecord {
        lsn: Lsn::new(lsn),
        time: TimeNs::new(1_750_000_000_000_000_000 + lsn),
        kind,
        disk: DiskId::new(disk),
        extent,
        data_bytes: data.len() as u32,
        data_crc: crc32c(data),
    };
    let records = [
        (record(1, RecordKind::Write, 1, Extent::new(2, 1), &data), &data[..]),
        (record(2, RecordKind::Event, 0, Extent::new(0, 0), &flush), &flush[..]),
    ];
    let bytes = encode_batch(&identity, &chain, &records);
    BatchHead::decode(&bytes).unwrap().check_data(&bytes).unwrap();
    let dump = |from: usize, to: usize| {
        let mut out = String::new();
        for at in (from..to).step_by(16) {
            let line = &bytes[at..to.min(at + 16)];
            let hex: Vec<_> = line.iter().map(|b| format!("{b:02x}")).collect();
            let text: String = line.iter().map(|&b| if (32..127).contains(&b) { b as char } else { '.' }).collect();
            writeln!(out, "{at:04x}  {:<47}  {text}", hex.join(" ")).unwrap();
        }
        out
    };
    let end = 224 + data.len() + flush.len();
    format!(
        "\nA batch of {} bytes: LSN 1 writes a block of `A` at block 2 of disk 1, LSN 2 is a FLUSH of that disk. Header:\n\n```\n{}```\n\n\
         Descriptors:\n\n```\n{}```\n\nThe first bytes of the write's data, and the event behind it; zeros follow:\n\n```\n{}...\n{}```\n\n",
        bytes.len(),
        dump(0, 128),
        dump(128, 224),
        dump(224, 240),
        dump(end - flush.len(), end),
    )
}

#[test]
fn the_worked_example_is_what_the_codec_makes() {
    let from = SPEC.find(BEGIN).expect("begin mark") + BEGIN.len();
    let to = SPEC.find(END).expect("end mark");
    if std::env::var_os("UPDATE_SPEC").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/LOGSTORE.md");
        fs::write(path, format!("{}{}{}", &SPEC[..from], example(), &SPEC[to..])).unwrap();
        return;
    }
    assert!(SPEC[from..to] == example(), "LOGSTORE.md differs; run UPDATE_SPEC=1 cargo test -p tidemark-format");
}
