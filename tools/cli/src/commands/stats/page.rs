//! Pieces of a page: plots as inline SVG, and text made safe. No script, no font, no image comes from elsewhere.

use super::Period;
use super::series::{Scale, Series};
use std::fmt::Write;
use tidemark_format::TimeNs;
use tidemark_reader::TimeText;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;
/// Lines across.
const RULES: usize = 4;
/// Times below.
const TIMES: usize = 5;
/// Values from side to side.
pub(super) const PARTS: usize = 340;

/// A line of a plot.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) series: Series,
}

/// Text as it may stand in HTML.
pub(super) fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// A figure with lines over time. The first line is filled. What is not known is not drawn.
pub(super) fn plot(title: &str, about: &str, scale: Scale, period: Period, lines: &[Line]) -> String {
    let most = lines.iter().flat_map(|line| line.series.iter().flatten().copied()).fold(0.0, f64::max);
    let unit = scale.unit_of(most);
    let top = round_up(most / unit) * unit;
    let x = |part: usize| LEFT + (WIDTH - LEFT - RIGHT) * (part as f64 + 0.5) / PARTS as f64;
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value / top);
    let mut svg = open_svg(HEIGHT, title);
    for rule in 0..=RULES {
        let value = top * rule as f64 / RULES as f64;
        let (at, label) = (y(value), scale.told(value));
        push(&mut svg, format_args!("<path class=rule d='M{LEFT} {at:.1}H{}'/>", WIDTH - RIGHT));
        push(&mut svg, format_args!("<text class=y x={} y={:.1}>{label}</text>", LEFT - 6.0, at + 4.0));
    }
    push_times(&mut svg, period, HEIGHT);
    for (nth, line) in lines.iter().enumerate() {
        for run in runs(&line.series) {
            let points: Vec<_> = run.iter().map(|(part, value)| format!("{:.1} {:.1}", x(*part), y(*value))).collect();
            let (first, last) = (x(run[0].0), x(run[run.len() - 1].0));
            if nth == 0 {
                let bottom = y(0.0);
                push(
                    &mut svg,
                    format_args!("<path class=fill d='M{first:.1} {bottom:.1}L{}V{bottom:.1}Z'/>", points.join("L")),
                );
            }
            // A single value would be a line without length.
            let end = if run.len() == 1 { format!("H{:.1}", last + 1.5) } else { String::new() };
            push(&mut svg, format_args!("<path class=line{nth} d='M{}{end}'/>", points.join("L")));
        }
    }
    svg.push_str("</svg>");
    let known = lines.iter().filter(|line| line.series.iter().any(Option::is_some)).count();
    let key = |(nth, line): (usize, &Line)| format!("<span class=key{nth}>{}</span>", safe(line.name));
    let keys: String = lines.iter().enumerate().map(key).collect();
    let shown = if known == 0 { "<p class=none>Nothing was measured.</p>".to_owned() } else { svg };
    format!("<figure><h2>{}</h2><p>{} {keys}</p>{shown}</figure>\n", safe(title), safe(about))
}

/// A figure with a strip for each name: 1 is good, less is not, and what is not known is blank.
pub(super) fn strips(title: &str, about: &str, period: Period, strips: &[(String, Series)]) -> String {
    const STRIP: f64 = 20.0;
    let height = TOP + STRIP * strips.len().max(1) as f64 + BOTTOM;
    let mut svg = open_svg(height, title);
    let part = (WIDTH - LEFT - RIGHT) / PARTS as f64;
    for (nth, (name, series)) in strips.iter().enumerate() {
        let y = TOP + STRIP * nth as f64;
        let label: String = name.chars().rev().take(11).collect::<Vec<_>>().into_iter().rev().collect();
        push(
            &mut svg,
            format_args!(
                "<text class=y x={} y={:.1}>{}<title>{}</title></text>",
                LEFT - 6.0,
                y + 13.0,
                safe(&label),
                safe(name)
            ),
        );
        for run in runs(&series.iter().map(|value| value.map(|value| if value >= 1.0 { 1.0 } else { 0.0 })).collect()) {
            for piece in run.chunk_by(|a, b| a.1 == b.1) {
                let class = if piece[0].1 >= 1.0 { "good" } else { "bad" };
                let (from, width) = (LEFT + part * piece[0].0 as f64, part * piece.len() as f64);
                push(&mut svg, format_args!("<rect class={class} x={from:.1} y={y:.1} width={width:.1} height=14 />"));
            }
        }
    }
    push_times(&mut svg, period, height);
    svg.push_str("</svg>");
    format!("<figure><h2>{}</h2><p>{}</p>{svg}</figure>\n", safe(title), safe(about))
}

/// A table; cells are HTML already.
pub(super) fn table(title: &str, names: &[&str], rows: &[Vec<String>]) -> String {
    let head: String = names.iter().map(|name| format!("<th>{}", safe(name))).collect();
    let body: String = rows
        .iter()
        .map(|row| format!("<tr>{}", row.iter().map(|cell| format!("<td>{cell}")).collect::<String>()))
        .collect();
    let body = if rows.is_empty() { format!("<tr><td colspan={} class=none>None.", names.len()) } else { body };
    format!("<section><h2>{}</h2><table><tr>{head}{body}</table></section>\n", safe(title))
}

fn open_svg(height: f64, title: &str) -> String {
    format!("<svg viewBox='0 0 {WIDTH} {height}' role=img aria-label=\"{}\">", safe(title))
}

fn push_times(svg: &mut String, period: Period, height: f64) {
    let (from, to) = (period.from.get(), period.to.get());
    let long = to - from > 36 * 3600 * 1_000_000_000;
    for nth in 0..TIMES {
        let share = nth as f64 / (TIMES - 1) as f64;
        let time = TimeText(TimeNs::new(from + ((to - from) as f64 * share) as u64)).to_string();
        // 2026-11-25T09:00:00Z: the day, or the time of day.
        let label = time.get(if long { 5..16 } else { 11..16 }).unwrap_or_default().replace('T', " ");
        let anchor = match nth {
            0 => "start",
            nth if nth + 1 == TIMES => "end",
            _ => "middle",
        };
        let x = LEFT + (WIDTH - LEFT - RIGHT) * share;
        push(svg, format_args!("<text class=x text-anchor={anchor} x={x:.1} y={:.1}>{label}</text>", height - 8.0));
    }
}

/// What is known, in one piece each, with its place.
fn runs(series: &Series) -> Vec<Vec<(usize, f64)>> {
    let mut runs: Vec<Vec<(usize, f64)>> = Vec::new();
    let mut open = false;
    for (part, value) in series.iter().enumerate() {
        match (value, open) {
            (Some(value), true) => runs.last_mut().expect("one is open").push((part, *value)),
            (Some(value), false) => runs.push(vec![(part, *value)]),
            (None, _) => {}
        }
        open = value.is_some();
    }
    runs
}

/// The next value of 1, 2, 4, 5, 8 or 10 times a power of ten, so that rules fall on short numbers.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].into_iter().find(|step| step * power >= value * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a String cannot fail");
}

/// What stands before the page's own pieces.
pub(super) fn head(title: &str) -> String {
    format!("<!doctype html><html lang=en><meta charset=utf-8><title>{}</title>\n{STYLE}<main>\n", safe(title))
}

const STYLE: &str = "<meta name=viewport content='width=device-width'>
<style>
:root { --ink: #1c2530; --soft: #64717f; --paper: #fff; --rule: #e3e8ed; --a: #1769aa; --b: #d9730d; --c: #2e8b57; --bad: #c8372d; --good: #2e8b57 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --soft: #93a0ad; --paper: #141a21; --rule: #2a333d; --a: #5aaaf0; --b: #f0a35a; --c: #6cc793; --bad: #f0685e; --good: #4fae78 } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif }
main { max-width: 860px; margin: 0 auto; padding: 24px 20px 60px }
h1 { font-size: 24px; margin: 0 } h2 { font-size: 16px; margin: 28px 0 2px } p { margin: 0 0 6px; color: var(--soft) }
figure { margin: 0 } svg { width: 100%; height: auto; display: block }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 18px 0 }
.tiles div { border: 1px solid var(--rule); border-radius: 8px; padding: 8px 12px; color: var(--soft) } .tiles b { display: block; font-size: 20px; color: var(--ink) }
text { font: 11px system-ui, sans-serif; fill: var(--soft) } .y { text-anchor: end } .rule { stroke: var(--rule) }
[class^=line] { fill: none; stroke-width: 1.5; stroke-linejoin: round } .line0 { stroke: var(--a) } .line1 { stroke: var(--b) } .line2 { stroke: var(--c) } .fill { fill: var(--a); opacity: .12 }
[class^=key] { margin-left: 10px; white-space: nowrap } [class^=key]::before { content: ''; display: inline-block; width: 14px; border-top: 3px solid; margin-right: 4px; vertical-align: middle }
.key0 { color: var(--a) } .key1 { color: var(--b) } .key2 { color: var(--c) } .good { fill: var(--good) } .bad { fill: var(--bad) }
table { border-collapse: collapse; width: 100%; font-size: 14px } th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--rule); vertical-align: top } th { color: var(--soft); font-weight: 500 } .none { color: var(--soft) } .alarm { color: var(--bad) }
</style>
";

#[cfg(test)]
mod tests {
    use super::*;

    fn period() -> Period {
        Period { from: TimeNs::new(0), to: TimeNs::new(3_600_000_000_000) }
    }

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let name = "<script>\"&'".to_owned();
        let strip = strips("Gaps", "x", period(), &[(name, vec![Some(1.0), Some(0.5), None, Some(1.0)])]);
        assert!(!strip.contains("<script>") && strip.contains("&lt;script&gt;&quot;&amp;"), "{strip}");
        assert_eq!((strip.matches("class=good").count(), strip.matches("class=bad").count()), (2, 1));
    }

    #[test]
    fn a_plot_draws_what_is_known_in_pieces() {
        let mut series: Series = vec![None; PARTS];
        series[1] = Some(3.0);
        series[2] = Some(3.9);
        series[9] = Some(1.0);
        let drawn = plot("RPO", "age", Scale::Seconds, period(), &[Line { name: "worst", series }]);
        assert_eq!((drawn.matches("class=line0").count(), drawn.matches("class=fill").count()), (2, 2));
        assert!(drawn.contains(">4 s<") && drawn.contains(">00:30<"), "{drawn}");
        let nothing =
            plot("RPO", "age", Scale::Seconds, period(), &[Line { name: "worst", series: vec![None; PARTS] }]);
        assert!(nothing.contains("Nothing was measured"));
    }

    #[test]
    fn the_top_is_a_short_number_at_or_above_the_most() {
        for (most, top) in [(0.0, 1.0), (0.03, 0.04), (1.0, 1.0), (3.0, 4.0), (7.0, 8.0), (9.5, 10.0), (1234.0, 2000.0)]
        {
            assert!((round_up(most) - top).abs() < 1e-9, "{most}: {}", round_up(most));
        }
    }
}
