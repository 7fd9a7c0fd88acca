//! The format is what SPEC.md says, not what our code does: a reader written from the text alone restores the same bytes
//! and finds the same damage.
//!
//! `TIDEMARK_TRIPLES=1000` makes the random comparison longer; it is the number of (history, disk, LSN) at least.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::io::Write;
use tidemark_conformance::SeaweedFs;
use tidemark_e2e::Tidemark;
use tidemark_e2e::life::{Dice, directory, play};
use tidemark_e2e::second_reader::python;
use tidemark_format::BLOCK_BYTES;

fn tidemark() -> Tidemark {
    Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"))
}

#[test]
fn the_second_reader_says_of_every_vector_what_the_vector_says() {
    let answer = python(&["check_vectors.py", "../vectors"], "", &[]);
    assert_eq!(answer.code, Some(0), "{}", answer.text);
}

#[test]
fn the_figures_of_the_spec_are_what_their_text_makes() {
    let answer = python(&["../figures/draw.py", "--check"], "", &[]);
    assert_eq!(answer.code, Some(0), "{}", answer.text);
}

#[test]
fn the_mutants_of_our_reader_find_what_they_take_out() {
    let answer = python(&["../../tests/spec/mutants.py", "--check"], "", &[]);
    assert_eq!(answer.code, Some(0), "{}", answer.text);
}

/// The second reader is documentation: it stays short. All of `tlf` is at most 600 lines, comments and blank ones too; with the
/// programs around it, and the access to stores, it is at most 600 lines of code. What it takes to read a bucket from which
/// something was deleted is a module of its own, of at most 80 lines.
#[test]
fn the_second_reader_has_at_most_600_lines_and_needs_three_packages() {
    let count = "import ast, json, pathlib, sys, tokenize
ledger = pathlib.Path('tlf/ledger.py')
reader, programs = sorted(set(pathlib.Path('tlf').glob('*.py')) - {ledger}), [pathlib.Path(n) for n in ('restore.py', 'verify.py', 'store.py')]
lines = sum(len(path.read_text().splitlines()) for path in reader)
code_lines, packages = 0, set()
for path in reader + programs:
    tokens = tokenize.generate_tokens(path.open().readline)
    noise = tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
    code = {n for t in tokens if t.type not in noise for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            code -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            packages.add(node.module.split('.')[0])
        elif isinstance(node, ast.Import):
            packages |= {name.name.split('.')[0] for name in node.names}
    code_lines += len(code)
packages -= sys.stdlib_module_names | {'tlf', 'store', 'restore', 'verify'}
print(json.dumps({'lines': lines, 'code_lines': code_lines, 'ledger_lines': len(ledger.read_text().splitlines()), 'packages': sorted(packages)}))";
    let answer = python(&["-c", count], "", &[]);
    let counted = answer.json.first().unwrap_or_else(|| panic!("{}", answer.text));
    for count in ["lines", "code_lines"] {
        assert!((300..=600).contains(&counted[count].as_u64().unwrap()), "{counted}");
    }
    assert!((30..=80).contains(&counted["ledger_lines"].as_u64().unwrap()), "{counted}");
    let allowed = ["blake3", "cbor2", "zstandard"].map(Json::from);
    assert!(counted["packages"].as_array().unwrap().iter().all(|package| allowed.contains(package)), "{counted}");
}

/// Points of a history: (disk, how it is named), by LSN, by time and by bookmark.
fn points(url: &str, last: u64, disks: &[(u32, std::ops::Range<u64>)], dice: &mut Dice) -> Vec<(u32, String)> {
    let said = tidemark().json(["points", url, "--sample", "8"]);
    let times = said["sample"].as_array().unwrap().iter().map(|point| point["time"].as_str().unwrap().to_owned());
    let marks = said["bookmarks"].as_array().unwrap().iter();
    let marks = marks.map(|mark| format!("bookmark:{}", mark["name"].as_str().unwrap()));
    let named: Vec<_> = times.chain(marks).collect();
    let pick = |n| {
        let (disk, lsns) = &disks[dice.below(disks.len() as u64) as usize];
        let lsn = (lsns.start + dice.below(lsns.end - lsns.start)).min(last);
        let named = &named[dice.below(named.len() as u64) as usize];
        (*disk, if n % 3 == 0 { named.clone() } else { format!("lsn:{lsn}") })
    };
    (0..10).map(pick).collect()
}

#[test]
fn the_second_reader_restores_what_tidemark_exports() {
    let triples = std::env::var("TIDEMARK_TRIPLES").map_or(60, |n| n.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut compared, mut images, mut unknown, mut refused, mut named) = (0, 0, 0, 0, [0, 0]);
    for seed in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("bucket").display().to_string();
        let (last, disks) = runtime.block_on(play(directory(url.as_ref()), seed, 60));
        let picks = points(&url, last, &disks, &mut Dice::new(!seed));
        let input: String = picks.iter().map(|(disk, point)| format!("{disk} {point}\n")).collect();
        let answer = python(&["check_images.py", &url], &input, &[]);
        assert_eq!(answer.code, Some(0), "history {seed}: {}", answer.text);
        assert_eq!(answer.json[0]["last_lsn"], last, "history {seed}");
        assert_eq!(answer.json[0]["final_through"], last, "history {seed}");
        for ((disk, point), said) in picks.iter().zip(&answer.json[1..]) {
            let what = format!("history {seed}, disk {disk} at {point}: {said}");
            let out = dir.path().join("out.img");
            let disk = format!("#{disk}");
            let args =
                ["--json", "export", &url, "--disk", &disk, "--at", point, "--force", &out.display().to_string()];
            let exported = tidemark().run(args);
            if said["restorable"] == false {
                assert_eq!(exported.code, Some(1), "{what}: {exported:?}");
                refused += 1;
            } else if said["unknown"] != json!([]) {
                assert_eq!(exported.code, Some(13), "{what}: {exported:?}");
                unknown += 1;
            } else {
                assert_eq!(exported.code, Some(0), "{what}: {exported:?}");
                let report: Json = serde_json::from_str(&exported.stdout).unwrap();
                assert_eq!(report["lsn"], said["lsn"], "{what}");
                let image = std::fs::read(&out).unwrap();
                assert_eq!(said["blocks"], image.len() as u64 / BLOCK_BYTES, "{what}");
                assert_eq!(said["blake3"], blake3::hash(&image).to_hex().as_str(), "{what}");
                images += 1;
                named[0] += u32::from(point.starts_with("bookmark:"));
                named[1] += u32::from(point.starts_with("20"));
            }
            compared += 1;
        }
        if compared >= triples {
            break;
        }
    }
    let found = format!(
        "{compared} triples: {images} images ({} by bookmark, {} by time), {refused} not restorable, {unknown} with unknown blocks",
        named[0], named[1]
    );
    assert!(images * 2 > compared && refused > 0 && named.iter().all(|n| *n > 0), "{found}");
    let _ = writeln!(std::io::stderr(), "{found}");
}

/// What `verify` says of damage, but for words: objects, LSNs, and the blocks if the object has its full length.
fn damage(report: &Json, full: bool) -> BTreeSet<String> {
    let entries = report["damage"].as_array().unwrap_or_else(|| panic!("{report}"));
    let number = |json: &Json| json.as_u64().expect("a number");
    let lines = entries.iter().map(|entry| {
        let mut blocks = BTreeSet::new();
        for range in entry["ranges"].as_array().expect("ranges").iter().filter(|_| full) {
            let start = number(&range["offset_bytes"]) / BLOCK_BYTES;
            let end = start + number(&range["len_bytes"]) / BLOCK_BYTES;
            blocks.extend((start..end).map(|block| (number(&range["disk_id"]), block)));
        }
        format!("{}: lsn {}..{}: {blocks:?}", entry["object"], entry["first_lsn"], entry["last_lsn"])
    });
    lines.collect()
}

#[test]
fn the_second_reader_finds_the_damage_that_tidemark_verify_finds() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("bucket");
    let url = root.display().to_string();
    tokio::runtime::Runtime::new().unwrap().block_on(play(directory(&root), 4, 90));
    let clean = tidemark().json(["verify", &url]);
    let counts = |report: &Json| ["intact", "first_lsn", "last_lsn"].map(|name| report[name].clone());
    let second = python(&["verify.py", &url], "", &[]);
    assert_eq!(counts(&second.json[0]), counts(&clean), "{}", second.text);

    // What the history does not need is no business of a reader: it goes. Nor is what is derived from it, and what hints and probes hold.
    for key in clean["unreferenced"].as_array().unwrap() {
        std::fs::remove_file(root.join(key.as_str().unwrap())).unwrap();
    }
    let listed = tidemark().json(["inspect", &url]);
    let keys = listed["objects"].as_array().unwrap().iter().map(|object| &object["key"]);
    let of_history = |key: &str| ["tidemark.json", "claim/", "log/", "base/"].iter().any(|kind| key.starts_with(kind));
    let keys: Vec<_> = keys.filter(|key| of_history(key.as_str().unwrap())).collect();
    assert!(keys.len() > 20, "{keys:?}");
    // Only `verify`, which lists, sees more than 16 segments behind one that the newest log has lost.
    let newest = keys.iter().filter_map(|key| key.as_str()?.strip_prefix("log/")?.split('/').next()).max().unwrap();
    let may_vanish = |key: &str| !key.starts_with(&format!("log/{newest}")) || key.ends_with("/0000000000000000");
    // And it takes the LSNs of the newest segment from a header that is whole, where others have neighbours on both sides.
    let tail = keys.iter().filter_map(|key| key.as_str().filter(|key| key.starts_with("log/"))).max().unwrap();
    let keys: Vec<_> = keys.iter().filter_map(|key| key.as_str()).filter(|key| *key != tail).collect();
    let mut dice = Dice::new(1);
    for round in 0..24 {
        let key = keys[dice.below(keys.len() as u64) as usize];
        let path = root.join(key);
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        let at = dice.below(whole.len() as u64) as usize;
        match round % 3 {
            0 if may_vanish(key) => std::fs::remove_file(&path).unwrap(),
            0 | 1 => {
                damaged[at] ^= 1 << dice.below(8);
                std::fs::write(&path, &damaged).unwrap();
            }
            _ => std::fs::write(&path, &damaged[..at]).unwrap(),
        }
        let what = format!("round {round}: byte {at} of {key}");
        let ours = tidemark().run(["--json", "verify", &url]);
        let theirs = python(&["verify.py", &url], "", &[]);
        assert_eq!((ours.code, theirs.code), (Some(13), Some(13)), "{what}: {ours:?} {}", theirs.text);
        let ours: Json = serde_json::from_str(&ours.stdout).unwrap();
        let full = round % 3 != 2;
        assert_eq!(damage(&theirs.json[0], full), damage(&ours, full), "{what}: {}", theirs.text);
        std::fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn the_second_reader_reads_a_real_s3_server_and_takes_no_refusal_for_absence() {
    let server = SeaweedFs::start();
    let environment = SeaweedFs::environment();
    let url = server.url("site1/random").to_string();
    tokio::runtime::Runtime::new().unwrap().block_on(play(server.bucket("site1/random"), 5, 30));
    let verified = python(&["verify.py", &url], "", &environment);
    assert_eq!(verified.code, Some(0), "{}", verified.text);
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let tidemark = environment.iter().fold(tidemark(), |tidemark, (name, value)| tidemark.env(name, value));
    tidemark.ok(["export", &url, "--disk", "#1", "--at", "latest", &ours.display().to_string()]);
    let restored = python(&["restore.py", &url, "#1", "latest", &theirs.display().to_string()], "", &environment);
    assert_eq!(restored.code, Some(0), "{}", restored.text);
    assert!(std::fs::read(ours).unwrap() == std::fs::read(theirs).unwrap(), "{}", restored.text);

    let wrong = [environment[0], ("AWS_SECRET_ACCESS_KEY", "wrong")];
    let refused = python(&["verify.py", &url], "", &wrong);
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    assert!(refused.text.contains("403") && !refused.text.contains("Missing"), "{}", refused.text);
}
