//! A place that breaks a rule of the house, and how files are walked to find some.

use std::fmt;
use std::path::{Path, PathBuf};

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Offence {
    /// Relative to the root of the repository.
    pub(crate) file: PathBuf,
    /// From 1.
    pub(crate) line: usize,
    /// What is wrong, and what to do instead.
    pub(crate) what: String,
}

impl Offence {
    pub(crate) fn new(file: impl Into<PathBuf>, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.into(), line, what: what.into() }
    }
}

/// As compilers print it, so that editors jump there.
impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// A Rust file of the repository.
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// For each line, whether it is test code.
    pub(crate) test: Vec<bool>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let test = lines_of_tests(path, text);
        Self { path: path.to_owned(), text: text.to_owned(), test }
    }

    /// Number from 1, text, and whether it is test code.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        self.text.lines().zip(&self.test).enumerate().map(|(i, (line, test))| (i + 1, line, *test))
    }
}

/// Every Rust file below `root`, in order of path; build output and hidden folders left out.
pub(crate) fn sources(root: &Path) -> Vec<Source> {
    let mut sources: Vec<_> = files(root, root, &["rs"])
        .into_iter()
        .filter_map(|path| Some(Source::new(&path, &std::fs::read_to_string(root.join(&path)).ok()?)))
        .collect();
    // A file that is declared as `#[cfg(test)] mod name;` is test code from its first line on.
    let modules: Vec<String> = sources.iter().flat_map(modules_of_tests).collect();
    for source in &mut sources {
        if modules
            .iter()
            .any(|module| source.path == format!("{module}.rs") || source.path.starts_with(&format!("{module}/")))
        {
            source.test.fill(true);
        }
    }
    sources
}

/// Paths of files with one of these extensions, relative to `root`.
pub(crate) fn files(root: &Path, dir: &Path, extensions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !name.starts_with('.') && !matches!(name.as_str(), "target" | "corpus" | "seeds" | "artifacts") {
                found.extend(files(root, &path, extensions));
            }
        } else if extensions.iter().any(|extension| path.extension().is_some_and(|e| e == *extension)) {
            let relative = path.strip_prefix(root).expect("found below the root");
            found.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
    found.sort();
    found
}

/// Whether a whole file is test code by its place: `tests/` at the top or within a crate, or an example.
fn is_test_path(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "examples" | "benches")) || path.ends_with("/tests.rs")
}

/// Marks the lines of `#[cfg(test)] mod name { ... }`, as rustfmt lays them out.
fn lines_of_tests(path: &str, text: &str) -> Vec<bool> {
    let whole = is_test_path(path);
    let mut closing: Option<String> = None;
    let mut cfg = false;
    let mut test = Vec::new();
    for line in text.lines() {
        let (indent, code) = (line.len() - line.trim_start().len(), line.trim());
        if closing.is_none() && cfg && code.contains("mod ") && code.ends_with('{') {
            closing = Some(format!("{}}}", " ".repeat(indent)));
        }
        test.push(whole || closing.is_some());
        if closing.as_deref() == Some(line) {
            closing = None;
        }
        // Other attributes may stand between the two.
        cfg = code.starts_with("#[cfg(test)]") || cfg && code.starts_with("#[");
    }
    test
}

/// Paths, without extension, of modules that a file declares as `#[cfg(test)] mod name;`.
fn modules_of_tests(source: &Source) -> Vec<String> {
    let stem = source.path.trim_end_matches(".rs");
    let dir = match stem.rsplit_once('/') {
        Some((dir, "mod" | "lib" | "main")) => dir,
        _ => stem,
    };
    let lines: Vec<_> = source.text.lines().map(str::trim).collect();
    let declared = |pair: &[&str]| {
        let name = pair[1].strip_suffix(';')?.rsplit_once("mod ")?.1;
        pair[0].starts_with("#[cfg(test)]").then(|| format!("{dir}/{name}"))
    };
    lines.windows(2).filter_map(declared).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_tests_is_told_from_code_by_module_and_by_place() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        assert_eq!(Source::new("writer/src/lib.rs", text).test, [false, false, true, true, true, false]);
        assert!(Source::new("writer/tests/a.rs", text).test.iter().all(|test| *test));
        assert!(Source::new("tests/model/src/a.rs", text).test.iter().all(|test| *test));
        let declares = Source::new("writer/src/core/mod.rs", "#[cfg(test)]\nmod probes;\n");
        assert_eq!(modules_of_tests(&declares), ["writer/src/core/probes"]);
    }
}
