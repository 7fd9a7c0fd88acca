//! Where in a file something stands.

use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Line and column, from 1, of a byte; columns count characters.
pub(crate) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// First byte of the value at a path such as `domain[1].settings.rpo`; of the innermost table around it that is there, if
/// it is not.
pub(crate) fn of_value(text: &str, path: &str) -> usize {
    let Ok(document) = DeTable::parse(text) else { return 0 };
    let mut at: Range<usize> = document.span();
    let mut table = Some(document.get_ref());
    for step in path.split('.') {
        let (key, indexes) = step.split_once('[').unwrap_or((step, ""));
        let Some(found) = table.and_then(|table| table.get(key)) else { break };
        let mut value = found;
        for index in indexes.split(['[', ']']).filter_map(|index| index.parse::<usize>().ok()) {
            match value.get_ref().get(index) {
                Some(item) => value = item,
                None => break,
            }
        }
        at = value.span();
        table = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        };
    }
    at.start
}
