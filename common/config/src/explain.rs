//! What the parser says, in the words of the file.

/// The parser's words in ours, and what to do.
pub(crate) fn explain(message: &str) -> (String, Option<String>) {
    let message = message.trim_end().replace('\n', ", ");
    let Some((unknown, known)) = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) else {
        return (in_words_of_files(&message), None);
    };
    let known = known.split('`').skip(1).step_by(2).collect::<Vec<_>>();
    let close = known.iter().map(|name| (strsim::damerau_levenshtein(unknown, name), name));
    let hint = match close.min().filter(|(distance, _)| *distance <= 1 + unknown.len() / 4) {
        Some((_, name)) => format!("did you mean {name}?"),
        None => format!("keys here are {}", known.join(", ")),
    };
    (format!("unknown key {unknown}"), Some(hint))
}

/// Without the words of the language that this is written in.
fn in_words_of_files(message: &str) -> String {
    let (found, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let found = found.replace("missing field", "missing key");
    match expected {
        "" => found,
        "i32" | "u32" => format!("{found}, expected a whole number"),
        "f64" => format!("{found}, expected a number"),
        _ if expected.starts_with("struct ") => format!("{found}, expected a table"),
        _ => format!("{found}, expected {expected}"),
    }
}
