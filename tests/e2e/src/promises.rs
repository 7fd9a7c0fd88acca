//! What docs/cli.md promises to scripts, to be held against what the command line answers.

use serde_json::Value;
use std::collections::BTreeSet;

/// The members of a JSON object.
pub fn members(value: &Value) -> BTreeSet<String> {
    value.as_object().expect("an object").keys().cloned().collect()
}

/// The members that docs/cli.md promises of a command's answer, those of nested objects not among them.
pub fn promised(command: &str) -> BTreeSet<String> {
    let doc = include_str!("../../../docs/cli.md");
    let row = doc.lines().find_map(|line| line.strip_prefix(&format!("| `{command}` | "))).expect(command);
    let (mut depth, mut plain) = (0, String::new());
    for c in row.chars() {
        match c {
            '{' | '(' => depth += 1,
            '}' | ')' => depth -= 1,
            ';' => break,
            c if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    plain.split('`').skip(1).step_by(2).map(|name| name.trim_end_matches("[]").to_owned()).collect()
}
