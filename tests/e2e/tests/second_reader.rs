//! The format is what SPEC.md says, not what our code does: a reader written from the text alone restores the same bytes
//! and finds the same damage.
//!
//! `TIDEMARK_TRIPLES=1000` makes the random comparison longer; it is the number of (history, disk, LSN) at least.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::{Value as Json, json};
use std::io::Write;
use std::path::Path;
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

/// The second reader is documentation: it stays short. Fetching objects (store.py) is not what it is about.
#[test]
fn the_second_reader_has_at_most_600_lines_of_code() {
    let count = "import ast, pathlib, sys, tokenize
lines = 0
for path in pathlib.Path('tlf').glob('*.py'):
    if path.name == 'store.py':
        continue
    tokens = tokenize.generate_tokens(path.open().readline)
    noise = tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
    code = {n for t in tokens if t.type not in noise for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            code -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines += len(code)
print(lines)";
    let answer = python(&["-c", count], "", &[]);
    let lines = answer.json.first().and_then(Json::as_u64).unwrap_or_else(|| panic!("{}", answer.text));
    assert!((300..=600).contains(&lines), "{lines} lines of code");
}

#[test]
fn the_second_reader_restores_what_tidemark_exports() {
    let triples = std::env::var("TIDEMARK_TRIPLES").map_or(60, |n| n.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut compared, mut images, mut unknown, mut refused) = (0, 0, 0, 0);
    for seed in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("bucket").display().to_string();
        let (last, disks) = runtime.block_on(play(directory(url.as_ref()), seed, 60));
        let mut dice = Dice::new(!seed);
        let picks: Vec<_> = (0..10)
            .map(|_| {
                let (disk, lsns) = &disks[dice.below(disks.len() as u64) as usize];
                (*disk, (lsns.start + dice.below(lsns.end - lsns.start)).min(last))
            })
            .collect();
        let input: String = picks.iter().map(|(disk, lsn)| format!("{disk} {lsn}\n")).collect();
        let answer = python(&["check_images.py", &url], &input, &[]);
        assert_eq!(answer.code, Some(0), "history {seed}: {}", answer.text);
        assert_eq!(answer.json[0]["last_lsn"], last, "history {seed}");
        assert_eq!(answer.json[0]["final_through"], last, "history {seed}");
        for ((disk, lsn), said) in picks.iter().zip(&answer.json[1..]) {
            let what = format!("history {seed}, disk {disk} at lsn {lsn}: {said}");
            let out = dir.path().join("out.img");
            let at = ["--disk", &format!("#{disk}"), "--at", &format!("lsn:{lsn}"), "--force"].map(str::to_owned);
            let exported =
                tidemark().run([&["export".to_owned(), url.clone()], &at[..], &[out.display().to_string()]].concat());
            if said["restorable"] == false {
                assert_eq!(exported.code, Some(1), "{what}: {exported:?}");
                refused += 1;
            } else if said["unknown"] != json!([]) {
                assert_eq!(exported.code, Some(13), "{what}: {exported:?}");
                unknown += 1;
            } else {
                assert_eq!(exported.code, Some(0), "{what}: {exported:?}");
                let image = std::fs::read(&out).unwrap();
                assert_eq!(said["blocks"], image.len() as u64 / BLOCK_BYTES, "{what}");
                assert_eq!(said["blake3"], blake3::hash(&image).to_hex().as_str(), "{what}");
                images += 1;
            }
            compared += 1;
        }
        if compared >= triples {
            break;
        }
    }
    let found = format!("{compared} triples: {images} images, {refused} not restorable, {unknown} with unknown blocks");
    assert!(images * 2 > compared && refused > 0, "{found}");
    let _ = writeln!(std::io::stderr(), "{found}");
}

#[test]
fn the_second_reader_reads_a_real_s3_server_and_takes_no_refusal_for_absence() {
    let server = SeaweedFs::start();
    let environment = SeaweedFs::environment();
    let url = server.url("site1/random").to_string();
    tokio::runtime::Runtime::new().unwrap().block_on(play(server.bucket("site1/random"), 5, 30));
    let verified = python(&["-m", "tlf", "verify", &url], "", &environment);
    assert_eq!(verified.code, Some(0), "{}", verified.text);
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let args = |out: &Path| [&url, "--disk", "#1", "--at", "latest", &out.display().to_string()].map(str::to_owned);
    let tidemark = environment.iter().fold(tidemark(), |tidemark, (name, value)| tidemark.env(name, value));
    tidemark.ok([&["export".to_owned()], &args(&ours)[..]].concat());
    let restore: Vec<_> = ["-m", "tlf", "restore"].map(str::to_owned).into_iter().chain(args(&theirs)).collect();
    let restored = python(&restore.iter().map(String::as_str).collect::<Vec<_>>(), "", &environment);
    assert_eq!(restored.code, Some(0), "{}", restored.text);
    assert!(std::fs::read(ours).unwrap() == std::fs::read(theirs).unwrap(), "{}", restored.text);

    let wrong = [environment[0], ("AWS_SECRET_ACCESS_KEY", "wrong")];
    let refused = python(&["-m", "tlf", "verify", &url], "", &wrong);
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    assert!(refused.text.contains("403") && !refused.text.contains("Missing"), "{}", refused.text);
}
