//! Standard tools take our objects apart: parsers that Kaitai Struct generates from `format-spec/grammars/*.ksy`, and a CDDL
//! validator for what is CBOR or JSON.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use cddl_cat::{validate_cbor_bytes, validate_json_str};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tidemark_e2e::Tidemark;
use tidemark_e2e::life::{directory, play};
use tidemark_e2e::second_reader::{python, root};
use tidemark_e2e::system::run;

/// The parsers that the grammars generate.
struct Parsers(tempfile::TempDir);

impl Parsers {
    fn generate() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let modules = root(".tools/spec/node_modules");
        assert!(modules.exists(), "there is no {}\nhint: run tests/spec/install.sh", modules.display());
        let paths = [&root("tests/spec/compile.cjs"), &root("format-spec/grammars"), dir.path()];
        let set = format!("NODE_PATH={}", modules.canonicalize().unwrap().display());
        run("env", [set.as_ref(), "node".as_ref()].into_iter().chain(paths.map(Path::as_os_str)));
        Self(dir)
    }

    /// What is in the objects of `files`.
    fn parse(&self, files: &[PathBuf]) -> Vec<Json> {
        let script = root("tests/spec/kaitai.py").display().to_string();
        let mut args = vec![script, self.0.path().display().to_string()];
        args.extend(files.iter().map(|file| file.canonicalize().unwrap().display().to_string()));
        let answer = python(&args.iter().map(String::as_str).collect::<Vec<_>>(), "", &[]);
        assert_eq!(answer.code, Some(0), "{}", answer.text);
        assert_eq!(answer.json.len(), files.len(), "{}", answer.text);
        answer.json
    }
}

fn schema() -> String {
    std::fs::read_to_string(root("format-spec/grammars/tlf.cddl")).unwrap()
}

/// The CBOR of a parsed object, and the rule of the grammar that it must follow.
fn cbor(parsed: &Json) -> (&'static str, Vec<u8>) {
    let hex = parsed["cbor"].as_str().expect("hex");
    let bytes = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    let rule = match (parsed["record"].as_str(), parsed["header"]["kind"].as_str()) {
        (Some("claim"), _) => "claim",
        (Some("hint"), _) => "hint",
        (Some("root"), _) => "root",
        (Some("retention"), _) => "retention",
        (Some("ledger"), _) => "ledger",
        (Some("pin"), _) => "pin",
        (Some("quarantine"), _) => "quarantine",
        (None, Some("cut")) => "cut",
        (None, Some(_)) => "events",
        other => panic!("{other:?} has no CBOR"),
    };
    (rule, bytes)
}

/// Name and JSON of every vector whose name passes.
fn vectors(wanted: impl Fn(&str) -> bool) -> Vec<(String, Json, PathBuf)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root("format-spec/vectors")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "json") && wanted(&name) {
            let json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            found.push((name, json, path.with_extension("bin")));
        }
    }
    found
}

#[test]
fn vector_objects_mean_to_a_generated_parser_what_their_json_says() {
    let good = vectors(|name| !["bad-", "genesis", "table-"].iter().any(|prefix| name.starts_with(prefix)));
    let files: Vec<_> = good.iter().map(|(_, _, file)| file.clone()).collect();
    let schema = schema();
    for ((name, json, _), mut parsed) in good.iter().zip(Parsers::generate().parse(&files)) {
        let meaning = &json["meaning"];
        let (rule, body) = cbor(&parsed);
        // The validator does not know tags, which this one has in a field to be skipped.
        if name != "log-unknown-field-types" {
            validate_cbor_bytes(rule, &schema, &body).unwrap_or_else(|e| panic!("{name}: {rule}: {e}"));
        }
        if let Some(domain) = parsed["header"].get_mut("domain") {
            assert_eq!(*domain, meaning["header"]["domain"].as_str().unwrap().replace('-', ""), "{name}");
            *domain = meaning["header"]["domain"].clone();
        }
        for part in ["header", "rows", "frames", "times"] {
            assert_eq!(
                parsed[part],
                if parsed[part].is_null() { Json::Null } else { meaning[part].clone() },
                "{name}: {part}"
            );
        }
    }
    assert!(good.len() > 20);
}

/// Every object that a writer makes, seen by the generated parsers and by `inspect`.
#[test]
fn everything_that_a_writer_makes_follows_the_grammars_and_is_what_inspect_shows() {
    let tidemark = Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"));
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("bucket");
    tokio::runtime::Runtime::new().unwrap().block_on(play(directory(&bucket), 11, 120));
    let url = bucket.display().to_string();
    tidemark.ok(["gc", "run", &url]);
    let schema = schema();
    let genesis = std::fs::read_to_string(bucket.join("tidemark.json")).unwrap();
    validate_json_str("genesis", &schema, &genesis).unwrap();

    let listed = tidemark.json(["inspect", &url]);
    let keys: Vec<_> =
        listed["objects"].as_array().unwrap().iter().map(|o| o["key"].as_str().unwrap().to_owned()).collect();
    // Tables of the index and of statistics have a grammar of their own: Parquet.
    let others = ["tidemark.json", "v/probe/", "v/stats/", "idx/"];
    let keys: Vec<_> = keys.into_iter().filter(|key| !others.iter().any(|other| key.starts_with(other))).collect();
    let files: Vec<_> = keys.iter().map(|key| bucket.join(key)).collect();
    let mut kinds = BTreeSet::new();
    for (key, parsed) in keys.iter().zip(Parsers::generate().parse(&files)) {
        let (rule, body) = cbor(&parsed);
        validate_cbor_bytes(rule, &schema, &body).unwrap_or_else(|e| panic!("{key}: {rule}: {e}"));
        let shown = tidemark.json(["inspect", &url, key]);
        let header = &parsed["header"];
        if header.is_null() {
            assert_eq!(parsed["record"], shown["kind"], "{key}");
            kinds.insert(parsed["record"].to_string());
            continue;
        }
        kinds.insert(header["kind"].to_string());
        for (name, theirs) in [
            ("kind", "kind"),
            ("role", "role"),
            ("minor", "minor"),
            ("epoch", "epoch"),
            ("seq", "seq"),
            ("first_lsn", "first_lsn"),
            ("last_lsn", "last_lsn"),
            ("acked_through", "acked_through"),
            ("tick_ns", "tick_ns"),
            ("head_len", "head_bytes"),
            ("data_len", "data_bytes"),
            ("total_len", "total_bytes"),
            ("row_count", "rows"),
            ("frame_count", "frames"),
            ("header_hash", "header_hash"),
            ("meta_hash", "meta_hash"),
            ("prev_header_hash", "prev_header_hash"),
        ] {
            assert_eq!(header[name], shown[theirs], "{key}: {name}");
        }
        let plain: u64 =
            parsed["frames"].as_array().into_iter().flatten().map(|f| f["plain_len"].as_u64().unwrap()).sum();
        assert_eq!(plain, shown["plain_bytes"], "{key}");
        assert_eq!(parsed["rows"].as_array().map_or(0, Vec::len) as u64, header["row_count"], "{key}");
    }
    let all = ["\"base\"", "\"claim\"", "\"cut\"", "\"hint\"", "\"log\"", "\"root\""];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

/// What CDDL can see of the vectors that break CB-1, and of a genesis.
#[test]
fn vector_records_with_missing_or_wrong_fields_do_not_follow_the_cddl() {
    let bad = vectors(|name| name.starts_with("bad-"));
    let bad: Vec<_> = bad.into_iter().filter(|(_, json, _)| json["error"] == "Field").collect();
    let files: Vec<_> = bad.iter().map(|(_, _, file)| file.clone()).collect();
    let schema = schema();
    let mut follow = BTreeSet::new();
    for ((name, ..), parsed) in bad.iter().zip(Parsers::generate().parse(&files)) {
        let (rule, body) = cbor(&parsed);
        if validate_cbor_bytes(rule, &schema, &body).is_ok() {
            follow.insert(name.trim_start_matches("bad-"));
        }
    }
    // What one field says of another, and optional fields, which a later version's could be, is beyond CDDL.
    let unseen = [
        "cut-disk-lsn",
        "cut-disk-order",
        "cut-disk-twice",
        "cut-tail-epoch",
        "cut-tail-hash",
        "cut-tail-seq-missing",
        "ledger-backwards",
        "ledger-compact-run",
        "ledger-crowded",
        "ledger-later-compact",
        "ledger-order",
        "ledger-short",
        "log-events-field-extent-beyond",
        "root-image-disks",
        "root-image-empty",
        "root-image-interval",
        "root-image-outside",
        "root-image-unaligned",
    ];
    assert!(follow.iter().all(|name| unseen.contains(name)), "{follow:?}");
    assert!(bad.len() > follow.len() + 15, "only {} vectors", bad.len());
    // Not bad-genesis-created: the validator looks for what a pattern says anywhere in a text.
    let broken = ["bad-genesis-domain", "bad-genesis-mask", "bad-genesis-name", "bad-genesis-format"];
    for (name, _, file) in vectors(|name| name.starts_with("genesis") || broken.contains(&name)) {
        let text = std::fs::read_to_string(file).unwrap();
        let follows = validate_json_str("genesis", &schema, &text);
        assert_eq!(follows.is_ok(), !name.starts_with("bad-"), "{name}: {follows:?}");
    }
}
