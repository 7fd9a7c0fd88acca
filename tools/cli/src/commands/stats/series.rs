//! Columns of tables over time, as something to draw.

use super::Period;
use std::collections::BTreeMap;
use tidemark_format::StatsTable;
use tidemark_telemetry::registry::Table;
use tidemark_telemetry::{Cell, Row};

const US_PER_S: f64 = 1e6;

/// What becomes of several rows that share a place on the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    /// The mean.
    Mean,
    /// The most.
    Max,
    /// Their sum for each second.
    PerSecond,
}

/// A value for each of some equal parts of a period; `None` where there is no row.
pub(super) type Series = Vec<Option<f64>>;

/// Rows of one table within a period.
#[derive(Debug)]
pub(in crate::commands) struct Measured {
    pub(super) table: &'static Table,
    pub(in crate::commands) rows: Vec<Row>,
    pub(super) period: Period,
}

impl Measured {
    pub(in crate::commands) fn new(table: StatsTable, mut rows: Vec<Row>, period: Period) -> Self {
        rows.retain(|row| matches!(row[0], Cell::Whole(micros) if period.has(micros)));
        Self { table: Table::of(table), rows, period }
    }

    /// A column of a row, by name.
    pub(super) fn cell<'a>(&self, row: &'a Row, column: &str) -> &'a Cell {
        let at = self.table.column(column).unwrap_or_else(|| panic!("{} has no column {column}", self.table.table));
        &row[at]
    }

    pub(in crate::commands) fn number(&self, row: &Row, column: &str) -> Option<f64> {
        self.cell(row, column).number()
    }

    /// The sum of a column with its unit, or that nobody knows any of it.
    pub(super) fn sum_told(&self, column: &str, scale: Scale) -> String {
        let known: Vec<_> = self.rows.iter().filter_map(|row| self.number(row, column)).collect();
        if known.is_empty() { "unknown".to_owned() } else { scale.told(known.iter().sum()) }
    }

    /// The sum of a column over all rows.
    pub(in crate::commands) fn sum(&self, column: &str) -> f64 {
        self.rows.iter().filter_map(|row| self.number(row, column)).sum()
    }

    /// The newest value of a column for each thing that differs in some other columns, added up.
    pub(in crate::commands) fn newest_by(&self, names: &[&str], column: &str) -> f64 {
        let mut newest: BTreeMap<Vec<&Cell>, f64> = BTreeMap::new();
        for row in &self.rows {
            if let Some(value) = self.number(row, column) {
                newest.insert(names.iter().map(|name| self.cell(row, name)).collect(), value);
            }
        }
        newest.values().sum()
    }

    /// Columns, added up, over `parts` of the period. A row counts where it begins.
    pub(super) fn series(&self, columns: &[&str], fold: Fold, parts: usize) -> Series {
        let (from, to) = (self.period.from.get() as f64 / 1e3, self.period.to.get() as f64 / 1e3);
        let mut folded: BTreeMap<usize, (f64, f64, u64)> = BTreeMap::new();
        for row in &self.rows {
            let known: Vec<_> = columns.iter().filter_map(|column| self.number(row, column)).collect();
            let (Some(time), false) = (row[0].number(), known.is_empty()) else { continue };
            let value: f64 = known.iter().sum();
            let part = ((time - from) / (to - from) * parts as f64) as usize;
            let (sum, most, count) = folded.entry(part.min(parts.saturating_sub(1))).or_insert((0.0, value, 0));
            (*sum, *most, *count) = (*sum + value, most.max(value), *count + 1);
        }
        let part_s = ((to - from) / parts as f64 / US_PER_S).max(self.row_s());
        let told = |part: usize| {
            let (sum, most, count) = folded.get(&part).copied()?;
            Some(match fold {
                Fold::Mean => sum / count as f64,
                Fold::Max => most,
                Fold::PerSecond => sum / part_s,
            })
        };
        (0..parts).map(told).collect()
    }

    /// How long a row is, mostly: a part that is shorter holds a whole row all the same.
    fn row_s(&self) -> f64 {
        self.rows.iter().filter_map(|row| self.number(row, "period_s")).fold(0.0, f64::max)
    }
}

/// The newest value, and the largest.
pub(super) fn newest_and_most(series: &Series) -> Option<(f64, f64)> {
    let newest = series.iter().rev().flatten().next()?;
    Some((*newest, series.iter().flatten().fold(*newest, |most, value| most.max(*value))))
}

/// What numbers of a series count, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::commands) enum Scale {
    Seconds,
    BytesPerSecond,
    Bytes,
    Ratio,
    Pieces,
}

impl Scale {
    /// The unit in which a value is told: rules across a plot fall on short numbers of it.
    pub(super) fn unit_of(self, value: f64) -> f64 {
        match self {
            Self::Seconds if value >= 600.0 => 60.0,
            Self::Bytes | Self::BytesPerSecond if value >= 1024.0 => 1024_f64.powf(value.log2().div_euclid(10.0)),
            _ => 1.0,
        }
    }

    /// A value with its unit.
    pub(in crate::commands) fn told(self, value: f64) -> String {
        let prefixed = |value: f64, unit: &str| {
            const PREFIXES: [&str; 6] = ["", "K", "M", "G", "T", "P"];
            let (mut value, mut nth) = (value, 0);
            while value >= 1024.0 && nth + 1 < PREFIXES.len() {
                (value, nth) = (value / 1024.0, nth + 1);
            }
            let i = if nth == 0 { "" } else { "i" };
            format!("{} {}{i}{unit}", short(value), PREFIXES[nth])
        };
        match self {
            Self::Seconds if value > 0.0 && value < 1.0 => format!("{} ms", short(value * 1e3)),
            Self::Seconds if value < 600.0 => format!("{} s", short(value)),
            Self::Seconds => format!("{} min", short(value / 60.0)),
            Self::BytesPerSecond => prefixed(value, "B/s"),
            Self::Bytes => prefixed(value, "B"),
            Self::Ratio => format!("{} %", short(value * 100.0)),
            Self::Pieces => short(value),
        }
    }
}

fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_format::TimeNs;

    fn measured(rows: &[(i64, f64, i64)]) -> Measured {
        let table = Table::of(StatsTable::DomainMinute);
        let row = |(second, rpo, written): &(i64, f64, i64)| {
            let mut row = vec![Cell::Absent; table.columns.len()];
            let mut set = |column: &str, cell| row[table.column(column).unwrap()] = cell;
            set("time", Cell::Whole(second * 1_000_000));
            set("period_s", Cell::Number(60.0));
            set("rpo_max_s", Cell::Number(*rpo));
            set("written_bytes", Cell::Whole(*written));
            row
        };
        let period = Period { from: TimeNs::new(0), to: TimeNs::new(600_000_000_000) };
        Measured::new(StatsTable::DomainMinute, rows.iter().map(row).collect(), period)
    }

    #[test]
    fn rows_fall_into_parts_and_what_has_none_is_unknown() {
        let measured = measured(&[(0, 1.0, 600), (60, 3.0, 1200), (540, 2.0, 0), (700, 9.0, 9)]);
        assert_eq!(measured.rows.len(), 3, "one is beyond the period");
        assert_eq!(measured.series(&["rpo_max_s"], Fold::Max, 5), [Some(3.0), None, None, None, Some(2.0)]);
        assert_eq!(measured.series(&["rpo_max_s"], Fold::Mean, 5)[0], Some(2.0));
        assert_eq!(measured.series(&["written_bytes"], Fold::PerSecond, 5)[0], Some(15.0));
        assert_eq!(
            measured.series(&["written_bytes"], Fold::PerSecond, 100)[0],
            Some(10.0),
            "a row is longer than its part"
        );
        assert_eq!(measured.series(&["reads"], Fold::Max, 5), [None; 5]);
        assert_eq!(measured.sum("written_bytes"), 1800.0);
    }

    #[test]
    fn values_are_told_with_three_digits_and_their_unit() {
        let told = |scale: Scale, value| scale.told(value);
        assert_eq!(told(Scale::Bytes, 1536.0), "1.5 KiB");
        assert_eq!(told(Scale::BytesPerSecond, 250.0 * 1048576.0), "250 MiB/s");
        assert_eq!((told(Scale::Seconds, 0.25), told(Scale::Seconds, 4.0)), ("250 ms".into(), "4 s".into()));
        assert_eq!((told(Scale::Seconds, 1800.0), told(Scale::Ratio, 0.123)), ("30 min".into(), "12.3 %".into()));
        assert_eq!((Scale::Bytes.unit_of(1536.0), Scale::Bytes.unit_of(3e9)), (1024.0, 1_073_741_824.0));
        assert_eq!((told(Scale::Pieces, 0.0), told(Scale::Pieces, 1234.0)), ("0".into(), "1234".into()));
    }
}
