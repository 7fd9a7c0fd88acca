//! Readings as OpenMetrics text: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
//!
//! Families come in the order of the registry, each with its samples together; what is not known has no sample.

use crate::core::latency::Latency;
use crate::core::readings::{Readings, Value};
use crate::registry::{Kind, Measure, Measures, Unit};
use std::fmt::Write;

/// What a server says of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A text that grows.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds all that is measured of one kind of thing. `things` are their labels, in the order of [`Measures::LABELS`], with what
    /// was found.
    pub fn add<M: Measures>(&mut self, things: &[(Vec<&str>, &Readings<M>)]) -> &mut Self {
        for (index, measure) in M::ALL.iter().enumerate() {
            let known = things.iter().filter(|(_, readings)| *readings.at(index) != Value::Unknown);
            let known: Vec<_> = known.collect();
            if known.is_empty() {
                continue;
            }
            let name = measure.metric(M::SCOPE);
            self.family(&name, measure);
            for (values, readings) in known {
                let labels: Vec<_> = M::LABELS.iter().copied().zip(values.iter().copied()).collect();
                self.sample(&name, measure, &labels, readings.at(index));
            }
        }
        self
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.text.write_fmt(line).expect("writing to a String cannot fail");
        self.text.push('\n');
    }

    fn family(&mut self, name: &str, measure: &Measure) {
        let kind = match measure.kind {
            Kind::Sum => "counter",
            Kind::Level | Kind::Lag | Kind::Estimate => "gauge",
            Kind::Latency => "histogram",
        };
        self.line(format_args!("# TYPE {name} {kind}"));
        if measure.unit != Unit::Pieces {
            self.line(format_args!("# UNIT {name} {}", measure.unit.word()));
        }
        self.line(format_args!("# HELP {name} {}", escaped(measure.help)));
    }

    fn sample(&mut self, name: &str, measure: &Measure, labels: &[(&str, &str)], value: &Value) {
        match value {
            Value::Unknown => {}
            Value::Sum(total) if measure.unit == Unit::Seconds => {
                let seconds = *total as f64 / 1e9;
                self.line(format_args!("{name}_total{} {seconds}", Labels(labels, None)));
            }
            Value::Sum(total) => self.line(format_args!("{name}_total{} {total}", Labels(labels, None))),
            Value::Now(value) => self.line(format_args!("{name}{} {value}", Labels(labels, None))),
            Value::Latency(counted) => {
                for power in Latency::METRIC_BOUNDS {
                    let bound = ((1_u64 << power) as f64 / 1e6).to_string();
                    let below = counted.below(power);
                    self.line(format_args!("{name}_bucket{} {below}", Labels(labels, Some(&bound))));
                }
                let (count, total) = (counted.count(), counted.total().as_secs_f64());
                self.line(format_args!("{name}_bucket{} {count}", Labels(labels, Some("+Inf"))));
                self.line(format_args!("{name}_count{} {count}", Labels(labels, None)));
                self.line(format_args!("{name}_sum{} {total}", Labels(labels, None)));
            }
        }
    }
}

/// Labels in braces, a bucket's bound last.
struct Labels<'a>(&'a [(&'a str, &'a str)], Option<&'a str>);

impl std::fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(labels, bound) = self;
        let all: Vec<_> = labels.iter().copied().chain(bound.map(|bound| ("le", bound))).collect();
        for (nth, (name, value)) in all.iter().enumerate() {
            let before = if nth == 0 { "{" } else { "," };
            write!(f, "{before}{name}=\"{}\"", escaped(value))?;
        }
        if all.is_empty() { Ok(()) } else { f.write_str("}") }
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{ApplianceMeasure, DiskMeasure};
    use std::time::Duration;

    #[test]
    fn families_have_type_unit_help_and_samples() {
        let (mut one, mut two, mut appliance) = (Readings::new(), Readings::new(), Readings::new());
        one.sum(DiskMeasure::Written, 7).time(DiskMeasure::Held, Duration::from_millis(1500));
        two.sum(DiskMeasure::Written, 8);
        appliance.now(ApplianceMeasure::LogStoreUsed, 5.0);
        let mut text = Exposition::new();
        text.add(&[(vec![], &appliance)]);
        text.add(&[(vec!["d", "a\"b", "c\\d"], &one), (vec!["d", "vm", "e\nf"], &two)]);
        assert_eq!(
            text.finish(),
            "# TYPE tidemark_appliance_log_store_used_bytes gauge\n\
             # UNIT tidemark_appliance_log_store_used_bytes bytes\n\
             # HELP tidemark_appliance_log_store_used_bytes Room of the log store that is taken\n\
             tidemark_appliance_log_store_used_bytes 5\n\
             # TYPE tidemark_disk_written_bytes counter\n\
             # UNIT tidemark_disk_written_bytes bytes\n\
             # HELP tidemark_disk_written_bytes Bytes of those\n\
             tidemark_disk_written_bytes_total{domain=\"d\",vm=\"a\\\"b\",disk=\"c\\\\d\"} 7\n\
             tidemark_disk_written_bytes_total{domain=\"d\",vm=\"vm\",disk=\"e\\nf\"} 8\n\
             # TYPE tidemark_disk_held_seconds counter\n\
             # UNIT tidemark_disk_held_seconds seconds\n\
             # HELP tidemark_disk_held_seconds Time that backpressure held writes, summed over writes\n\
             tidemark_disk_held_seconds_total{domain=\"d\",vm=\"a\\\"b\",disk=\"c\\\\d\"} 1.5\n\
             # EOF\n"
        );
    }

    #[test]
    fn a_histogram_ends_with_everything() {
        let mut latency = Latency::default();
        latency.add(Duration::from_micros(63));
        latency.add(Duration::from_secs(100));
        let mut disk = Readings::new();
        disk.latency(DiskMeasure::WriteLatency, latency);
        let mut text = Exposition::new();
        text.add(&[(vec!["d", "v", "k"], &disk)]);
        let text = text.finish();
        assert!(text.contains("_bucket{domain=\"d\",vm=\"v\",disk=\"k\",le=\"0.000064\"} 1\n"), "{text}");
        assert!(
            text.contains("le=\"+Inf\"} 2\n") && text.contains("_count{domain=\"d\",vm=\"v\",disk=\"k\"} 2\n"),
            "{text}"
        );
    }
}
