//! The figures of docs/backpressure.md, drawn from simulated runs. Same code, same bytes.

use crate::sim::{MIB, Run, Setup, flood, run, seed, site};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::ops::Range;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

const SIZE: (u32, u32) = (900, 720);
const BLUE: RGBColor = RGBColor(31, 104, 180);
const ORANGE: RGBColor = RGBColor(217, 95, 2);
const GREY: RGBColor = RGBColor(110, 110, 110);
const SHADE: RGBColor = RGBColor(240, 236, 222);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// File names below docs/figures, and contents.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    vec![
        ("throttle-tenth.svg", tenth()),
        ("throttle-outage.svg", outage()),
        ("throttle-fairness.svg", fairness()),
        ("seeding-busy-guest.svg", seeding()),
    ]
}

fn draw(height: u32, panels: usize, title: &str, fill: impl FnOnce(&[Area<'_>])) -> String {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (SIZE.0, height)).into_drawing_area();
        root.fill(&WHITE).expect("a string takes it");
        let root = root.titled(title, ("sans-serif", 20)).expect("a string takes it");
        fill(&root.split_evenly((panels, 1)));
        root.present().expect("a string takes it");
    }
    svg
}

/// A panel over seconds, with what lies between `shade` set off.
fn panel<'a>(
    area: &Area<'a>,
    what: &str,
    seconds: Range<f64>,
    values: Range<f64>,
    shade: Option<Range<f64>>,
    last: bool,
) -> Chart<'a> {
    let mut chart = ChartBuilder::on(area)
        .margin_left(8)
        .margin_right(24)
        .margin_top(8)
        .x_label_area_size(if last { 44 } else { 22 })
        .y_label_area_size(64)
        .build_cartesian_2d(seconds, values.clone())
        .expect("a string takes it");
    if let Some(shade) = shade {
        let corners = [(shade.start, values.start), (shade.end, values.end)];
        chart.draw_series([Rectangle::new(corners, SHADE.filled())]).expect("a string takes it");
    }
    let mut mesh = chart.configure_mesh();
    mesh.y_desc(what)
        .x_labels(12)
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GREY)
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .x_label_formatter(&|second| format!("{second:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"));
    if last {
        mesh.x_desc("seconds");
    }
    mesh.draw().expect("a string takes it");
    chart
}

fn line(chart: &mut Chart<'_>, name: &str, color: RGBColor, width: u32, points: impl IntoIterator<Item = (f64, f64)>) {
    let style = color.stroke_width(width);
    chart
        .draw_series(LineSeries::new(points, style))
        .expect("a string takes it")
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
}

/// A bound or a setting: a dashed line across.
fn level(chart: &mut Chart<'_>, name: &str, seconds: &Range<f64>, value: f64) {
    let style = GREY.stroke_width(1);
    chart
        .draw_series(DashedLineSeries::new([(seconds.start, value), (seconds.end, value)], 6, 4, style))
        .expect("a string takes it");
    let at = (seconds.start + (seconds.end - seconds.start) * 0.83, value);
    let style = ("sans-serif", 13).into_font().color(&GREY);
    chart.draw_series([EmptyElement::at(at) + Text::new(name.to_owned(), (0, -15), style)]).expect("a string takes it");
}

fn legend(chart: &mut Chart<'_>, at: SeriesLabelPosition) {
    chart
        .configure_series_labels()
        .position(at)
        .margin(8)
        .background_style(WHITE.mix(0.85))
        .label_font(("sans-serif", 14))
        .draw()
        .expect("a string takes it");
}

/// A line of steps that ends at `end`.
fn steps(steps: &[(f64, f64)], end: f64) -> Vec<(f64, f64)> {
    let ends = steps.iter().skip(1).map(|(from, _)| *from).chain([end]);
    steps.iter().zip(ends).flat_map(|((from, value), to)| [(*from, *value), (to, *value)]).collect()
}

fn mib(bytes: f64) -> f64 {
    bytes / MIB as f64
}

/// Rates, fill and holds of a run, above each other.
fn backpressure(title: &str, setup: &Setup, rate_max: f64, outage: Option<Range<f64>>) -> String {
    let run = run(setup.clone());
    let seconds = 0.0..setup.seconds;
    let legend_at = if outage.is_some() { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::UpperRight };
    let options = setup.options;
    draw(SIZE.1, 3, title, |areas| {
        let mut chart = panel(&areas[0], "MiB/s", seconds.clone(), 0.0..rate_max * 1.15, outage.clone(), false);
        let link: Vec<_> = setup.link.steps.iter().map(|(from, rate)| (*from, mib(*rate))).collect();
        line(&mut chart, "the link takes", ORANGE, 2, steps(&link, setup.seconds));
        line(&mut chart, "the guest writes", BLUE, 2, written(&run, |sample| sample.written_total()));
        legend(&mut chart, legend_at);

        let mut chart = panel(&areas[1], "log fill, %", seconds.clone(), 0.0..100.0, outage.clone(), false);
        level(&mut chart, "overflow", &seconds, options.overflow_fill * 100.0);
        level(&mut chart, "it settles here", &seconds, options.settle_fill() * 100.0);
        level(&mut chart, "start_fill", &seconds, options.start_fill * 100.0);
        let fill = run.samples.iter().map(|sample| (sample.at, sample.signals.fill * 100.0));
        line(&mut chart, "log fill", BLUE, 2, fill);

        let bound = options.added_latency_max.as_secs_f64() * 1000.0;
        let mut chart = panel(&areas[2], "hold per write, ms", seconds.clone(), 0.0..bound * 1.2, outage, true);
        level(&mut chart, "latency_max", &seconds, bound);
        let hold = run.samples.iter().map(|sample| (sample.at, sample.hold_mean[0].as_secs_f64() * 1000.0));
        line(&mut chart, "hold per write", BLUE, 2, hold);
    })
}

fn written(run: &Run, of: impl Fn(&crate::sim::Sample) -> f64) -> Vec<(f64, f64)> {
    run.samples.iter().map(|sample| (sample.at, mib(of(sample)))).collect()
}

fn tenth() -> String {
    let mut setup = site(vec![flood(100.0)], 10.0);
    setup.seconds = 180.0;
    backpressure("A guest of 100 MiB/s on a link of 10 MiB/s, with a log of 1 GiB", &setup, 100.0, None)
}

fn outage() -> String {
    let setup = crate::sim::outage();
    let title = "A guest of 20 MiB/s while a link of 30 MiB/s is away for 50 seconds";
    backpressure(title, &Setup { seconds: 200.0, ..setup }, 30.0, Some(60.0..110.0))
}

fn fairness() -> String {
    let setup = Setup { seconds: 180.0, ..crate::sim::small_among_floods() };
    let run = run(setup.clone());
    let title = "Three disks on a link of 12 MiB/s: two floods, and one that writes 1 MiB/s";
    draw(520, 2, title, |areas| {
        let seconds = 0.0..setup.seconds;
        let names = [
            ("disk that writes 1 MiB/s", ORANGE),
            ("flood, 32 writes in flight", BLUE),
            ("flood, 8 writes in flight", GREY),
        ];
        let mut chart = panel(&areas[0], "MiB/s", seconds.clone(), 0.0..16.0, None, false);
        for (disk, (name, color)) in names.into_iter().enumerate() {
            line(
                &mut chart,
                name,
                color,
                2,
                written(&run, |sample| sample.written[disk]).into_iter().filter(|(_, mib)| *mib < 16.0),
            );
        }
        legend(&mut chart, SeriesLabelPosition::UpperRight);
        let mut chart = panel(&areas[1], "longest hold, ms", seconds, 0.0..500.0, None, true);
        for (disk, (name, color)) in names.into_iter().enumerate() {
            let hold = run.samples.iter().map(|sample| (sample.at, sample.hold_max[disk].as_secs_f64() * 1000.0));
            line(&mut chart, name, color, 2, hold);
        }
    })
}

fn seeding() -> String {
    let setup = seed::busy();
    let samples = seed::run(&setup);
    let seconds = 0.0..setup.seconds;
    let active = Some(30.0..120.0);
    let title = "Seeding from a device of 200 MiB/s whose guest writes 2,000 times a second for 90 seconds";
    draw(520, 2, title, |areas| {
        let mut chart = panel(&areas[0], "MiB/s", seconds.clone(), 0.0..240.0, active.clone(), false);
        let left: Vec<_> =
            setup.guest.iter().map(|(from, writes)| (*from, mib(setup.device - writes * 16384.0))).collect();
        line(&mut chart, "the guest leaves", ORANGE, 2, steps(&left, setup.seconds));
        line(&mut chart, "seeding reads", BLUE, 2, samples.iter().map(|sample| (sample.at, mib(sample.seeded))));
        legend(&mut chart, SeriesLabelPosition::LowerRight);

        let bound = setup.options.latency_bound.as_secs_f64() * 1000.0;
        let mut chart = panel(&areas[1], "write latency p99, ms", seconds.clone(), 0.0..bound * 2.6, active, true);
        level(&mut chart, "seed_guest_latency_max", &seconds, bound);
        let p99 = samples.iter().filter(|sample| sample.writes > 100);
        let p99 = p99.map(|sample| (sample.at, sample.latency_p99.as_secs_f64() * 1000.0));
        line(&mut chart, "write latency, p99 of each second", BLUE, 2, p99);
    })
}
