//! docs/stats.md, from the registry.

use crate::registry::{ApplianceMeasure, Column, DiskMeasure, DomainMeasure, Kind, Measures, Table, Unit};
use std::fmt::Write;
use tidemark_format::StatsTable;

/// What stands in front of the tables.
const HEAD: &str = include_str!("head.md");

/// The whole of docs/stats.md.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    for table in StatsTable::ALL.map(Table::of) {
        write_table(&mut text, table);
    }
    text.push_str("\n## Metrics\n\nCounters begin at zero when the appliance starts.\n");
    write_metrics::<ApplianceMeasure>(&mut text);
    write_metrics::<DomainMeasure>(&mut text);
    write_metrics::<DiskMeasure>(&mut text);
    text
}

fn write_table(text: &mut String, table: &Table) {
    let head = "| column | type | field id | |\n|---|---|---|---|\n";
    push(text, format_args!("\n### `{}`\n\n{}\n\n{head}", table.table, table.about));
    for Column { field, name, holds, help, required, .. } in &table.columns {
        let always = if *required { ", never null" } else { "" };
        push(text, format_args!("| `{name}` | {}{always} | {field} | {help} |\n", holds.parquet()));
    }
}

fn write_metrics<M: Measures>(text: &mut String) {
    let labels = match M::LABELS {
        [] => String::new(),
        labels => {
            format!(" Labels: {}.", labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", "))
        }
    };
    push(text, format_args!("\n### Of each {}\n\n{labels}\n\n", M::SCOPE));
    text.push_str("| metric | type | unit | |\n|---|---|---|---|\n");
    for measure in M::ALL {
        let (end, kind) = match measure.kind {
            Kind::Sum => ("_total", "counter"),
            Kind::Level | Kind::Lag | Kind::Estimate => ("", "gauge"),
            Kind::Latency => ("", "histogram"),
        };
        let unit = if measure.unit == Unit::Pieces { "" } else { measure.unit.word() };
        push(text, format_args!("| `{}{end}` | {kind} | {unit} | {} |\n", measure.metric(M::SCOPE), measure.help));
    }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    fn docs(path: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).join(path)
    }

    /// `TIDEMARK_WRITE_DOCS=1` writes it anew.
    #[test]
    fn docs_stats_md_is_what_the_registry_says() {
        let (path, wanted) = (docs("stats.md"), reference());
        if std::env::var_os("TIDEMARK_WRITE_DOCS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            there == wanted,
            "docs/stats.md is old: TIDEMARK_WRITE_DOCS=1 cargo nextest run --workspace docs_stats_md"
        );
    }

    /// Names of samples as a scraper sees them.
    fn samples<M: Measures>() -> Vec<String> {
        let of = |measure: &crate::registry::Measure| {
            let name = measure.metric(M::SCOPE);
            let ends: &[&str] = match measure.kind {
                Kind::Sum => &["_total"],
                Kind::Level | Kind::Lag | Kind::Estimate => &[""],
                Kind::Latency => &["_bucket", "_count", "_sum"],
            };
            ends.iter().map(move |end| format!("{name}{end}")).collect::<Vec<_>>()
        };
        M::ALL.iter().flat_map(of).collect()
    }

    #[test]
    fn every_metric_that_alerts_and_the_dashboard_name_exists() {
        let known: BTreeSet<_> = [samples::<ApplianceMeasure>(), samples::<DomainMeasure>(), samples::<DiskMeasure>()]
            .concat()
            .into_iter()
            .collect();
        for file in ["ops/alerts.yml", "ops/dashboard.json", "ops/alerts.md"] {
            let text = std::fs::read_to_string(docs(file)).unwrap();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let named: BTreeSet<_> = words.filter(|word| word.starts_with("tidemark_")).collect();
            assert!(named.len() > 10 || file.ends_with("md"), "{file} names {named:?}");
            for name in named {
                assert!(known.contains(name), "{file} names {name}, which is not measured");
            }
        }
        let dashboard = std::fs::read_to_string(docs("ops/dashboard.json")).unwrap();
        let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
        assert!(dashboard["panels"].as_array().unwrap().len() > 10);
    }

    #[test]
    fn every_alert_names_cause_evidence_action_and_when_it_clears() {
        let text = std::fs::read_to_string(docs("ops/alerts.yml")).unwrap();
        let alerts: Vec<_> = text.split("- alert: ").skip(1).collect();
        assert!(alerts.len() > 10);
        for alert in alerts {
            let name = alert.lines().next().unwrap_or_default();
            for key in ["expr:", "severity:", "summary:", "cause:", "evidence:", "action:", "clears:"] {
                assert!(alert.contains(key), "{name} lacks {key}");
            }
        }
    }
}
