//! What rustfmt and clippy do not look at: length of files, unfinished code, names of tests.

use crate::offence::{Offence, Source};

/// Lines of a Rust file at most. A ratchet: lower it, never raise it.
const LINES_MAX: usize = 800;

/// What must not stand in code, and why.
const BANNED: &[(&str, &str)] = &[
    ("todo!(", "unfinished code does not land"),
    ("unimplemented!(", "unfinished code does not land"),
    ("#[ignore", "a test that does not run proves nothing: make it fast, or move it to tests/bench"),
    ("fn test_", "a test is named after its claim: subject, condition, outcome"),
];

pub(crate) fn check(sources: &[Source]) -> Vec<Offence> {
    let mut found = Vec::new();
    for source in sources {
        let count = source.text.lines().count();
        if count > LINES_MAX {
            found.push(Offence::new(
                &source.path,
                LINES_MAX + 1,
                format!("{count} lines, at most {LINES_MAX}: a module per idea"),
            ));
        }
        // This file names what it bans.
        if source.path == "tools/xtask/src/style.rs" {
            continue;
        }
        for (number, line, _) in source.lines().filter(|(_, line, _)| !line.trim_start().starts_with("//")) {
            for (banned, why) in BANNED.iter().filter(|(banned, _)| line.contains(banned)) {
                found.push(Offence::new(&source.path, number, format!("`{banned}`: {why}")));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_code_and_long_files_are_found() {
        let source = |text: &str| [Source::new("writer/src/lib.rs", text)];
        assert_eq!(check(&source("fn a() {\n    todo!()\n}\n"))[0].line, 2);
        assert_eq!(check(&source("#[test]\n#[ignore = \"slow\"]\nfn test_a() {}\n")).len(), 2);
        assert_eq!(check(&source(&"\n".repeat(LINES_MAX + 1))).len(), 1);
        assert_eq!(check(&source("// todo!() in a comment is talk\n")), []);
    }

    #[test]
    fn the_repository_keeps_to_the_style() {
        crate::expect_none(check(&crate::offence::sources(&crate::root())));
    }
}
