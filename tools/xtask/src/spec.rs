//! Traces the specifications: every numbered rule is cited by code and by a test, every citation is of a rule that exists.
//!
//! A rule is a paragraph that begins with its number in bold and says MUST. A citation is two lines of comment:
//! `//= SPEC.md#section-slug` (or `LOGSTORE.md`) and `//# H-1, H-2`. A golden vector cites by its member `rules`.

use crate::offence::{Offence, Source};
use std::collections::BTreeMap;

/// The specifications, and where their golden vectors are. The first folder that holds a vector is its own.
const SPECS: &[(&str, &str)] =
    &[("format-spec/LOGSTORE.md", "format-spec/vectors/logstore/"), ("format-spec/SPEC.md", "format-spec/vectors/")];

/// A specification.
pub(crate) struct Document<'a> {
    /// Relative to the root of the repository.
    path: &'a str,
    text: &'a str,
}

/// A numbered rule of the specification.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    line: usize,
    /// Slug of the heading that it stands under.
    anchor: String,
}

/// Rules by number, and what is wrong with them.
pub(crate) fn rules(spec: &Document<'_>) -> (BTreeMap<String, Rule>, Vec<Offence>) {
    let path = spec.path;
    let (mut rules, mut found) = (BTreeMap::new(), Vec::new());
    let mut anchor = String::new();
    let lines: Vec<_> = spec.text.lines().collect();
    let mut fenced = false;
    for (at, line) in lines.iter().enumerate() {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            anchor = slug(line.trim_start_matches('#'));
        }
        let Some((id, _)) = line.strip_prefix("**").and_then(|rest| rest.split_once("**")) else { continue };
        if !is_id(id) {
            continue;
        }
        let paragraph = lines[at..].iter().take_while(|line| !line.trim().is_empty());
        if !paragraph.into_iter().any(|line| line.contains("MUST")) {
            found.push(Offence::new(
                path,
                at + 1,
                format!("{id} does not say MUST: what cannot be broken has no number"),
            ));
        }
        if rules.insert(id.to_owned(), Rule { line: at + 1, anchor: anchor.clone() }).is_some() {
            found.push(Offence::new(path, at + 1, format!("{id} is used twice")));
        }
    }
    // A MUST outside of a rule cannot be cited.
    let mut in_rule = false;
    for (at, line) in lines.iter().enumerate() {
        in_rule =
            !line.trim().is_empty() && (in_rule || line.strip_prefix("**").is_some_and(|rest| rest.contains("**")));
        if line.contains("MUST") && !in_rule && !line.contains("RFC 2119") && !line.contains("Each MUST has a number") {
            found.push(Offence::new(path, at + 1, "a MUST without a number"));
        }
    }
    (rules, found)
}

/// Letters, a dash, digits: `FR-2`.
fn is_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(letters, digits)| {
        !letters.is_empty()
            && letters.bytes().all(|b| b.is_ascii_uppercase())
            && !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
    })
}

/// The anchor that renderers of Markdown make of a heading.
fn slug(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// Where a rule is cited.
#[derive(Default)]
struct Cited {
    by_code: bool,
    by_test: bool,
}

/// Checks the citations of `sources` and of golden vectors: (path, text of the JSON).
pub(crate) fn check(spec: &Document<'_>, sources: &[Source], vectors: &[(String, String)]) -> Vec<Offence> {
    let path = spec.path;
    let citation = format!("//= {}#", spec.path.rsplit('/').next().expect("a path has a name"));
    let (rules, mut found) = rules(spec);
    let mut cited: BTreeMap<&str, Cited> = rules.keys().map(|id| (id.as_str(), Cited::default())).collect();
    for source in sources.iter().filter(|source| !source.path.starts_with("tools/xtask/")) {
        let lines: Vec<_> = source.lines().collect();
        for pair in lines.windows(2) {
            let [(number, first, test), (_, second, _)] = pair else { continue };
            let Some(anchor) = first.trim_start().strip_prefix(&citation) else { continue };
            let mut offend = |what: String| found.push(Offence::new(&source.path, *number, what));
            let Some(ids) = second.trim_start().strip_prefix("//# ") else {
                offend("a citation without `//# ID` in the next line".to_owned());
                continue;
            };
            for id in ids.split(',').map(str::trim) {
                match rules.get(id) {
                    None => offend(format!("{id} is not a rule of {path}")),
                    Some(rule) if rule.anchor != anchor.trim() => {
                        offend(format!("{id} stands in section #{}, not #{anchor}", rule.anchor));
                    }
                    Some(_) => {
                        let cited = cited.get_mut(id).expect("made of the rules");
                        cited.by_code |= !test;
                        cited.by_test |= test;
                    }
                }
            }
        }
    }
    for (file, text) in vectors {
        let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        for id in json["rules"].as_array().into_iter().flatten().filter_map(|id| id.as_str()) {
            match cited.get_mut(id) {
                Some(cited) => cited.by_test = true,
                None => found.push(Offence::new(file, 1, format!("{id} is not a rule of {path}"))),
            }
        }
    }
    for (id, cited) in cited {
        let line = rules[id].line;
        if !cited.by_code {
            found.push(Offence::new(path, line, format!("{id} is not cited by code")));
        }
        if !cited.by_test {
            found.push(Offence::new(path, line, format!("{id} is not cited by a test")));
        }
    }
    found.sort();
    found
}

/// [`check`] of the files below `root`.
pub(crate) fn check_repository(root: &std::path::Path, sources: &[Source]) -> Vec<Offence> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let vectors = crate::offence::files(root, &root.join("format-spec/vectors"), &["json"]);
    let vectors: Vec<_> = vectors.into_iter().map(|path| (path.clone(), read(&path))).collect();
    let own = |path: &str| SPECS.iter().find(|(_, folder)| path.starts_with(folder)).map(|(spec, _)| *spec);
    let of = |spec: &str| vectors.iter().filter(|(path, _)| own(path) == Some(spec)).cloned().collect::<Vec<_>>();
    let documents = SPECS.iter().map(|(path, _)| (*path, read(path)));
    documents.flat_map(|(path, text)| check(&Document { path, text: &text }, sources, &of(path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str =
        "# T\n\n## Packed columns\n\n**PC-1** A reader MUST refuse it.\n\n### Cut\n\n**C-1** It\nMUST NOT.\n";

    fn whats(spec: &str, files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        check(&Document { path: "format-spec/SPEC.md", text: spec }, &sources, &[])
            .into_iter()
            .map(|offence| offence.to_string())
            .collect()
    }

    #[test]
    fn a_rule_cited_by_code_and_by_a_test_is_traced() {
        let citation = "//= SPEC.md#packed-columns\n//# PC-1\n//= SPEC.md#cut\n//# C-1\n";
        assert!(whats(SMALL, &[("writer/src/a.rs", citation), ("writer/tests/a.rs", citation)]).is_empty());
        let missing = whats(SMALL, &[("writer/src/a.rs", citation)]);
        assert_eq!(missing.len(), 2);
        assert_eq!(missing[0], "format-spec/SPEC.md:5: PC-1 is not cited by a test");
    }

    #[test]
    fn wrong_citations_are_found() {
        let both = "//= SPEC.md#packed-columns\n//# PC-1\n//= SPEC.md#cut\n//# C-1\n";
        let files = |text| [("a/src/a.rs", both), ("a/tests/a.rs", both), ("a/src/b.rs", text)];
        assert!(whats(SMALL, &files("//= SPEC.md#cut\n//# PC-1\n"))[0].contains("stands in section #packed-columns"));
        assert!(whats(SMALL, &files("//= SPEC.md#cut\n//# C-9\n"))[0].contains("C-9 is not a rule"));
        assert!(whats(SMALL, &files("//= SPEC.md#cut\nlet a = 1;\n"))[0].contains("a citation without"));
    }

    #[test]
    fn rules_have_one_number_and_say_must() {
        let spec = "## A\n\n**A-1** It may.\n\n**A-1** It MUST.\n\nThis MUST be numbered.\n";
        let whats: Vec<_> = rules(&Document { path: "format-spec/SPEC.md", text: spec })
            .1
            .into_iter()
            .map(|offence| offence.what)
            .collect();
        assert_eq!(whats.len(), 3, "{whats:?}");
    }

    #[test]
    fn every_rule_of_the_specification_is_cited_by_code_and_by_a_test() {
        let root = crate::root();
        crate::expect_none(check_repository(&root, &crate::offence::sources(&root)));
    }
}
