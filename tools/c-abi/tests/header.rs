//! What C programs see: the header is what the code says, the manual knows every function, the library exports no others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    let path = crate_dir().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a tool says, which has to succeed.
fn output(tool: &str, args: &[&str]) -> String {
    let home = std::env::var_os("CARGO_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"), PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([home.join("bin")]);
    let path = std::env::join_paths(dirs).unwrap();
    let ran = Command::new(tool).args(args).env("PATH", path).output();
    let ran = ran.unwrap_or_else(|error| panic!("{tool}: {error}\nhint: run scripts/install test"));
    assert!(ran.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// Words that begin with `tidemark_` and are followed by `after`.
fn functions(text: &str, after: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("tidemark_") {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if rest[end..].starts_with(after) {
            found.insert(rest[..end].to_owned());
        }
    }
    found
}

#[test]
fn the_header_is_what_cbindgen_makes_of_the_code() {
    let dir = crate_dir().display().to_string();
    let made = output("cbindgen", &["--quiet", &dir]);
    assert!(made == read("include/tidemark.h"), "tidemark.h is out of date\nhint: run `make header`");
}

#[test]
fn the_manual_names_every_function_and_no_other() {
    let header = read("include/tidemark.h");
    let synopsis = read("tidemark.3");
    let synopsis = &synopsis[..synopsis.find(".SH DESCRIPTION").unwrap()];
    let declared = functions(&header, "(");
    assert_eq!(functions(synopsis, "\\fR("), declared);
    assert!(declared.len() > 30, "{declared:?}");
}

#[test]
fn the_manual_explains_every_code() {
    let (header, manual) = (read("include/tidemark.h"), read("tidemark.3"));
    let codes =
        header.lines().filter_map(|line| line.strip_prefix("#define TIDEMARK_")).filter(|line| line.contains(' '));
    let codes: Vec<_> = codes.map(|line| format!("TIDEMARK_{}", line.split(' ').next().unwrap())).collect();
    for code in codes.iter().filter(|code| ["OK", "RETRY", "FENCED", "INTERNAL"].iter().any(|c| code.ends_with(c))) {
        assert!(manual.contains(code.as_str()), "{code}");
    }
    assert!(codes.contains(&"TIDEMARK_OK".to_owned()), "{codes:?}");
}

#[test]
fn the_shared_library_exports_the_functions_of_the_header_alone() {
    // Cargo leaves it beside this test.
    let library = std::env::current_exe().unwrap().with_file_name("libtidemark.so");
    assert!(Path::new(&library).exists(), "{}", library.display());
    let symbols = output("nm", &["--dynamic", "--defined-only", "--format=posix", library.to_str().unwrap()]);
    let exported: BTreeSet<_> = symbols.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(exported, functions(&read("include/tidemark.h"), "("));
}
