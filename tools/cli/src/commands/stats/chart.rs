//! A line drawn with the dots of braille: two across and four down in each character.

use super::series::{Scale, Series, newest_and_most};
use std::fmt::Write;

/// Characters from side to side, and lines.
pub(super) const WIDTH: usize = 72;
const HEIGHT: usize = 6;
/// Values that fit side by side.
pub(super) const PARTS: usize = 2 * WIDTH;

/// A chart with its title and scale. What is not known is left blank.
pub(super) fn chart(title: &str, scale: Scale, series: &Series) -> String {
    let Some((newest, most)) = newest_and_most(series) else { return format!("{title}: nothing was measured\n") };
    let mut out = format!("{title}: now {}, most {}\n", scale.told(newest), scale.told(most));
    let top = if most > 0.0 { most } else { 1.0 };
    let mut dots = [[0_u8; WIDTH]; HEIGHT];
    let height = |value: f64| ((value / top).clamp(0.0, 1.0) * (4 * HEIGHT - 1) as f64).round() as usize;
    let mut before: Option<usize> = None;
    for (x, value) in series.iter().take(PARTS).enumerate() {
        let Some(y) = value.map(height) else {
            before = None;
            continue;
        };
        // Up or down to the next value, so that the line hangs together.
        let from = before.unwrap_or(y);
        for y in from.min(y)..=from.max(y) {
            set(&mut dots, x, y);
        }
        before = Some(y);
    }
    for (nth, line) in dots.iter().enumerate() {
        let label = match nth {
            0 => scale.told(top),
            nth if nth + 1 == HEIGHT => scale.told(0.0),
            _ => String::new(),
        };
        let line: String = line.iter().map(|dots| char::from_u32(0x2800 + u32::from(*dots)).unwrap_or(' ')).collect();
        writeln!(out, "{label:>11} ┤{line}").expect("writing to a String cannot fail");
    }
    out
}

/// Sets a dot, counted from the left and from the bottom.
fn set(dots: &mut [[u8; WIDTH]; HEIGHT], x: usize, y: usize) {
    const LEFT: [u8; 4] = [0x40, 0x04, 0x02, 0x01];
    const RIGHT: [u8; 4] = [0x80, 0x20, 0x10, 0x08];
    let side = if x.is_multiple_of(2) { LEFT } else { RIGHT };
    if let Some(cell) = dots.get_mut(HEIGHT - 1 - y / 4).and_then(|line| line.get_mut(x / 2)) {
        *cell |= side[y % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_rises_from_the_bottom_to_the_top() {
        let series: Series = (0..PARTS).map(|x| Some(x as f64)).collect();
        let drawn = chart("rising", Scale::Pieces, &series);
        let lines: Vec<_> = drawn.lines().collect();
        assert_eq!(lines[0], "rising: now 143, most 143");
        assert!(lines[1].starts_with("        143 ┤") && lines[1].ends_with('⠉'), "{drawn}");
        assert!(lines[6].starts_with("          0 ┤⣀"), "{drawn}");
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn what_is_unknown_is_blank_and_zero_is_not() {
        let mut series: Series = vec![None; PARTS];
        assert_eq!(chart("rpo", Scale::Seconds, &series), "rpo: nothing was measured\n");
        series[0] = Some(0.0);
        let drawn = chart("rpo", Scale::Seconds, &series);
        assert!(drawn.contains("0 s ┤⡀") && drawn.matches('⠀').count() == 6 * WIDTH - 1, "{drawn}");
    }
}
