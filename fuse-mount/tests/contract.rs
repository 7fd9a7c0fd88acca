//! docs/contract.md and the tests say the same: each paragraph names tests that exist, each test is named.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up must fail it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Names of the functions below `dir` that hold a paragraph, with their files.
fn tests_below(dir: &Path, found: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            for line in fs::read_to_string(&path).unwrap().lines() {
                let name = line.trim_start().trim_start_matches("async ").strip_prefix("fn contract_");
                if let Some(name) = name.and_then(|rest| rest.split('(').next()) {
                    found.insert(format!("contract_{name}"), path.display().to_string());
                }
            }
        }
    }
}

/// The paragraphs of the contract: number and the tests that it names.
fn paragraphs(text: &str) -> Vec<(u32, BTreeSet<String>)> {
    let mut all: Vec<(u32, BTreeSet<String>)> = Vec::new();
    for line in text.lines() {
        let number = line.strip_prefix('C').and_then(|rest| rest.split_once(". ")).and_then(|(n, _)| n.parse().ok());
        if let Some(number) = number {
            all.push((number, BTreeSet::new()));
        }
        for quoted in line.split('`').skip(1).step_by(2).filter(|word| word.starts_with("contract_")) {
            let (_, names) = all.last_mut().expect("tests are named after the paragraph's number");
            names.insert(quoted.to_owned());
        }
    }
    all
}

#[test]
fn every_paragraph_of_the_contract_names_tests_that_exist_and_every_test_is_named() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut tests = BTreeMap::new();
    for dir in ["fuse-mount/src", "fuse-mount/tests", "tests/e2e"] {
        tests_below(&root.join(dir), &mut tests);
    }
    let all = paragraphs(&fs::read_to_string(root.join("docs/contract.md")).unwrap());
    assert!(all.len() > 20);
    let mut named = BTreeSet::new();
    for (at, (number, names)) in all.iter().enumerate() {
        assert_eq!(*number as usize, at + 1, "paragraphs are numbered from 1 without gaps");
        assert!(!names.is_empty(), "C{number} names no test");
        for name in names {
            assert!(tests.contains_key(name), "C{number} names {name}, which does not exist");
        }
        named.extend(names.iter().cloned());
    }
    for (name, file) in &tests {
        assert!(named.contains(name), "{name} in {file} holds no paragraph of docs/contract.md");
    }
}
