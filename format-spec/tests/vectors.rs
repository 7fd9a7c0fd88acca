//! The golden vectors: every object means what its JSON says, or is refused with the error that it names.
//!
//! `cargo xtask vectors --write-new` adds vectors. What was added once stays: a later version of the format adds others.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

// Shared with `cargo xtask`.
#[allow(unreachable_pub)]
mod meaning;
// Shared with `cargo xtask`, and a model for the tests of readers.
#[allow(unreachable_pub, dead_code)]
mod r0;

use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use tidemark_format::*;

struct Vector {
    name: String,
    json: Json,
    expect: Expect,
    bytes: Vec<u8>,
}

fn dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors"))
}

/// Names of files below the folder, without those that are about the vectors.
fn files() -> BTreeSet<String> {
    fn walk(dir: &Path, prefix: &str, into: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            match entry.file_type().unwrap().is_dir() {
                true => walk(&entry.path(), &format!("{name}/"), into),
                false => drop(into.insert(name)),
            }
        }
    }
    let mut names = BTreeSet::new();
    walk(&dir(), "", &mut names);
    names.retain(|name| name != "README.md" && name != "MANIFEST.blake3");
    names
}

fn all() -> Vec<Vector> {
    let names = files();
    let read = |name: &str| {
        let name = name.strip_suffix(".bin").filter(|name| !name.contains('/'))?;
        let bytes = fs::read(dir().join(format!("{name}.bin"))).unwrap();
        let json: Json = serde_json::from_slice(&fs::read(dir().join(format!("{name}.json"))).unwrap()).unwrap();
        let text = |member: &str| json[member].as_str().unwrap_or_else(|| panic!("{name}: {member}"));
        let expect = Expect { domain: text("domain").parse().unwrap(), key: text("key").parse().unwrap() };
        Some(Vector { name: name.to_owned(), expect, bytes, json })
    };
    let all: Vec<_> = names.iter().filter_map(|name| read(name)).collect();
    assert!(all.len() > 200, "only {} vectors were found", all.len());
    all
}

/// Every name that `FormatError::name` can return, from its source: the compiler keeps that match complete.
fn error_names() -> BTreeSet<String> {
    let source = include_str!("../src/error.rs");
    let matches = source.split_once("pub const fn name(").unwrap().1.split_once("\n    }\n").unwrap().0;
    let names: BTreeSet<_> =
        matches.lines().filter_map(|line| Some(line.split_once("=> \"")?.1.split_once('"')?.0.to_owned())).collect();
    assert!(names.len() > 20, "{names:?}");
    names
}

#[test]
fn vector_objects_mean_what_their_json_says() {
    for vector in all().iter().filter(|vector| vector.json["error"].is_null()) {
        let meaning = meaning::of(&vector.bytes, &vector.expect);
        assert_eq!(meaning.as_ref(), Ok(&vector.json["meaning"]), "{}", vector.name);
    }
}

#[test]
fn vector_bad_objects_are_refused_with_the_error_they_name() {
    for vector in all().iter().filter(|vector| !vector.json["error"].is_null()) {
        let got = meaning::of(&vector.bytes, &vector.expect).map_err(|e| e.name());
        assert_eq!(got, Err(vector.json["error"].as_str().unwrap()), "{}", vector.name);
    }
}

#[test]
fn vector_canonical_objects_are_written_to_the_same_bytes() {
    let mut count = 0;
    for vector in all().iter().filter(|vector| vector.json["canonical"] == true) {
        let written = meaning::written_anew(&vector.bytes, &vector.expect).unwrap();
        assert!(written == vector.bytes, "{} is written to other bytes", vector.name);
        count += 1;
    }
    assert!(count >= 20, "{count}");
}

/// Whole domains, read as "Restore at level R0" says.
#[test]
fn vector_domains_mean_what_their_json_says() {
    let files = files();
    let names = files.iter().filter_map(|file| file.strip_prefix("domains/")?.strip_suffix(".json"));
    let names: Vec<_> = names.filter(|name| !name.contains('/')).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let json: Json =
            serde_json::from_slice(&fs::read(dir().join(format!("domains/{name}.json"))).unwrap()).unwrap();
        let prefix = format!("domains/{name}/");
        let keys = files.iter().filter_map(|file| file.strip_prefix(&prefix));
        let bucket = keys.map(|key| (key.parse().unwrap(), fs::read(dir().join(&prefix).join(key)).unwrap())).collect();
        match (r0::History::open(&bucket), json["error"].as_str()) {
            (Ok(history), None) => assert_eq!(history.meaning(), json["meaning"], "{name}"),
            (Err(broken), Some(error)) => {
                assert_eq!(
                    (broken.error, broken.key.to_string().as_str()),
                    (error, json["key"].as_str().unwrap()),
                    "{name}"
                );
            }
            (got, wanted) => panic!("{name}: wanted error {wanted:?}, got {:?}", got.map(|history| history.last_lsn())),
        }
    }
}

#[test]
fn vector_files_never_change() {
    let manifest = fs::read_to_string(dir().join("MANIFEST.blake3")).unwrap();
    let mut frozen = BTreeMap::new();
    for line in manifest.lines() {
        let (hash, file) = line.split_once("  ").unwrap();
        assert!(frozen.insert(file.to_owned(), hash.to_owned()).is_none(), "{file} is listed twice");
    }
    for file in files() {
        let hash = blake3::hash(&fs::read(dir().join(&file)).unwrap()).to_hex().to_string();
        assert_eq!(frozen.remove(&file), Some(hash), "{file}");
    }
    assert_eq!(frozen, BTreeMap::new(), "files that are gone");
}

#[test]
fn vector_every_error_of_a_reader_has_one() {
    // Only writers err so: `Draft` is a caller's bug, `CompressorLied` takes a zstd that is broken.
    let writers = ["CompressorLied", "Draft"].map(str::to_owned);
    let named: BTreeSet<_> =
        all().iter().filter_map(|vector| vector.json["error"].as_str().map(str::to_owned)).chain(writers).collect();
    assert_eq!(named, error_names());
}

#[test]
fn vector_rules_exist_in_the_specification() {
    let spec = include_str!("../SPEC.md");
    for vector in all() {
        for rule in vector.json["rules"].as_array().unwrap() {
            let rule = rule.as_str().unwrap();
            assert!(spec.contains(&format!("**{rule}**")), "{}: {rule}", vector.name);
        }
    }
}

#[test]
fn the_specification_lists_every_error_name() {
    let spec = include_str!("../SPEC.md");
    let table = spec.split_once("\n## Errors\n").unwrap().1.split_once("\n## ").unwrap().0;
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| name "));
    let names: Vec<_> =
        rows.flat_map(|row| row.split('|').nth(1).unwrap().split(',')).map(|name| name.trim().to_owned()).collect();
    let set: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(names.len(), set.len(), "a name is listed twice");
    // What no single object shows: the names of broken domains.
    let of_domains = ["Chain", "Missing"].map(str::to_owned);
    assert_eq!(set, error_names().into_iter().chain(of_domains).collect());
}

#[test]
fn the_specification_lists_every_shape_of_key() {
    let (epoch, seq, role) = (Epoch::new(42), Seq::new(7), Role::Maintenance);
    let (table, day) = (StatsTable::Event, Day::new(20_782));
    let keys = [
        ObjectKey::Genesis,
        ObjectKey::Claim { role, epoch },
        ObjectKey::Log { epoch, seq },
        ObjectKey::Base { role, epoch, seq },
        ObjectKey::Index { epoch, seq },
        ObjectKey::Root { epoch, seq },
        ObjectKey::Ledger { epoch },
        ObjectKey::Pin { nonce: [0xab; 16] },
        ObjectKey::Quarantine { name: [0xab; 16] },
        ObjectKey::Hint,
        ObjectKey::RootCopy,
        ObjectKey::Retention,
        ObjectKey::Probe { nonce: [0xab; 16] },
        ObjectKey::Statistics { table, day, name: [0xab; 16] },
    ];
    let hex = |number: u64| format!("{number:016x}");
    let written = |shape: &str| {
        let shape = shape.replace("<epoch>", &hex(epoch.get())).replace("<seq>", &hex(seq.get()));
        let shape = shape.replace("<table>", table.name()).replace("<YYYY-MM-DD>", &day.to_string());
        shape.replace("<role>", "m").replace("<32 hex digits>", &"ab".repeat(16))
    };
    let spec = include_str!("../SPEC.md");
    let table = spec.split_once("\n## Keys\n").unwrap().1.split_once("\n**").unwrap().0;
    let rows = table.lines().filter(|line| line.starts_with("| `") && !line.contains("reserved"));
    let shapes: BTreeSet<_> = rows.map(|row| written(row.split('`').nth(1).unwrap())).collect();
    assert_eq!(shapes, keys.iter().map(ToString::to_string).collect());
}

/// Truncated or lengthened anywhere, no object decodes as if it were whole.
#[test]
fn vector_truncation_at_every_byte_is_refused() {
    for vector in all().iter().filter(|vector| vector.json["error"].is_null() && vector.bytes.len() < 4_096) {
        for len in 0..vector.bytes.len() {
            assert!(meaning::of(&vector.bytes[..len], &vector.expect).is_err(), "{} cut to {len}", vector.name);
        }
        let longer = [&vector.bytes[..], b"\0"].concat();
        assert!(meaning::of(&longer, &vector.expect).is_err(), "{} with a byte more", vector.name);
    }
}

/// A table's footer is under the hash of a root, which is not at hand here: `tables.rs` alters tables under their roots.
#[test]
fn vector_one_flipped_bit_anywhere_is_refused() {
    let in_root = |vector: &Vector| matches!(vector.expect.key, ObjectKey::Index { .. });
    for vector in all().iter().filter(|vector| vector.json["error"].is_null() && !in_root(vector)) {
        if vector.bytes.len() >= 1_500 {
            continue;
        }
        for bit in 0..vector.bytes.len() * 8 {
            let mut bytes = vector.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(meaning::of(&bytes, &vector.expect).is_err(), "{} with bit {bit} turned over", vector.name);
        }
    }
}
