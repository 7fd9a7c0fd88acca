//! Rounds, medians, and how results are shown.

use serde_json::{Map, Value, json};

/// The middle of `samples`; the mean of the middle two if their number is even. 0 if there are none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Results of one benchmark, each with the goal that it is held against.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    goal: Option<Goal>,
}

/// Which side of a figure is good.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
}

impl Goal {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
        }
    }
}

impl Report {
    /// A figure that is only told.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push(Row { name: name.into(), value, unit, goal: None });
    }

    /// A figure that is held against a goal.
    pub(crate) fn goal(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.rows.push(Row { name: name.into(), value, unit, goal: Some(goal) });
    }

    /// True if every goal is met.
    pub(crate) fn all_met(&self) -> bool {
        self.rows.iter().all(|row| row.goal.is_none_or(|goal| goal.met(row.value)))
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let line = |row: &Row| {
            let goal = row.goal.map_or(String::new(), |goal| {
                format!("   goal {:<10} {}", goal.text(), if goal.met(row.value) { "met" } else { "MISSED" })
            });
            format!("{:<width$}  {:>12.3} {:<8}{goal}\n", row.name, row.value, row.unit)
        };
        self.rows.iter().map(line).collect()
    }

    /// The same for machines.
    pub(crate) fn json(&self) -> Value {
        let row = |row: &Row| {
            let mut map = Map::new();
            map.insert("value".into(), json!(row.value));
            map.insert("unit".into(), json!(row.unit));
            if let Some(goal) = row.goal {
                map.insert("goal".into(), json!(goal.text()));
                map.insert("met".into(), json!(goal.met(row.value)));
            }
            (row.name.clone(), Value::Object(map))
        };
        Value::Object(self.rows.iter().map(row).collect())
    }
}
