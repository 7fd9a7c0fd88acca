//! Turns looks at domains and disks into rows, minute by minute.
//!
//! A minute ends with the first look in the next one, so what a row counts lies between two looks, and nothing lies between two
//! rows of a run: their sums are the counters themselves. What was after the last row of a run is lost with it.

use crate::core::readings::Readings;
use crate::core::row::{Cell, Row};
use crate::core::window::Window;
use crate::registry::{DiskMeasure, DomainMeasure};
use std::collections::BTreeMap;
use std::time::Duration;
use tidemark_format::{StatsTable, TimeNs};

const NS_PER_US: u64 = 1000;

/// What the clocks show.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Says which minute it is.
    pub wall: TimeNs,
    /// Says how long that was.
    pub monotonic: Duration,
}

/// A domain that was looked at.
#[derive(Clone, Debug)]
pub struct DomainLook {
    /// Its name.
    pub name: String,
    /// What was found.
    pub readings: Readings<DomainMeasure>,
    /// Its disks.
    pub disks: Vec<DiskLook>,
}

/// A disk that was looked at.
#[derive(Clone, Debug)]
pub struct DiskLook {
    /// Its VM.
    pub vm: String,
    /// Its name there.
    pub disk: String,
    /// What was found.
    pub readings: Readings<DiskMeasure>,
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub struct Happened<'a> {
    /// When.
    pub time: TimeNs,
    /// Its number in the run.
    pub seq: u64,
    /// info, warning or error.
    pub severity: &'a str,
    /// A stable word.
    pub kind: &'a str,
    /// What it is about.
    pub domain: Option<&'a str>,
    /// What it is about.
    pub vm: Option<&'a str>,
    /// What it is about.
    pub disk: Option<&'a str>,
    /// For people.
    pub message: &'a str,
    /// What belongs to it, as JSON.
    pub data: Option<&'a str>,
}

/// A row, and where it belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Produced {
    /// The domain, by name.
    pub domain: String,
    /// The table.
    pub table: StatsTable,
    /// The row.
    pub row: Row,
}

/// Turns looks into rows.
#[derive(Debug)]
pub struct Collector {
    appliance: String,
    run: String,
    period: Duration,
    /// The minute that is open, by number.
    minute: Option<u64>,
    domains: BTreeMap<String, Open>,
}

/// What is open of a domain.
#[derive(Debug)]
struct Open {
    began: Look,
    domain: Watched<DomainMeasure>,
    disks: BTreeMap<(String, String), Watched<DiskMeasure>>,
}

/// A window with the last look at it.
#[derive(Debug)]
struct Watched<M> {
    window: Window<M>,
    last: Readings<M>,
}

impl<M: crate::registry::Measures> Watched<M> {
    fn new() -> Self {
        Self { window: Window::new(), last: Readings::new() }
    }

    fn look(&mut self, readings: Readings<M>) {
        self.window.look(&readings);
        self.last = readings;
    }

    /// The cells of what ends; the next window is open.
    fn turn(&mut self) -> Vec<Cell> {
        std::mem::replace(&mut self.window, Window::after(self.last.clone())).close(&self.last)
    }
}

impl Collector {
    /// For one run of an appliance, which makes rows of `period`; a minute, but for tests.
    pub fn new(appliance: &str, run: &str, period: Duration) -> Self {
        let (appliance, run) = (appliance.to_owned(), run.to_owned());
        Self { appliance, run, period: period.max(Duration::from_millis(1)), minute: None, domains: BTreeMap::new() }
    }

    fn period_ns(&self) -> u64 {
        u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether a look now ends a minute. Estimates of it have to be made before that look.
    pub fn is_due(&self, wall: TimeNs) -> bool {
        self.minute.is_some_and(|minute| minute != wall.get() / self.period_ns())
    }

    /// Takes a look in. Domains and disks that are not there any more end with the last one; the minute ends if it is over.
    pub fn look(&mut self, now: Look, looks: Vec<DomainLook>) -> Vec<Produced> {
        let due = self.is_due(now.wall);
        self.minute = Some(now.wall.get() / self.period_ns());
        let mut rows = Vec::new();
        let gone = self.domains.keys().filter(|name| looks.iter().all(|look| look.name != **name)).cloned();
        for name in gone.collect::<Vec<_>>() {
            if let Some(mut open) = self.domains.remove(&name) {
                self.turn(&name, &mut open, now, &mut rows);
            }
        }
        for look in looks {
            let mut open = self.domains.remove(&look.name).unwrap_or_else(|| Open {
                began: now,
                domain: Watched::new(),
                disks: BTreeMap::new(),
            });
            open.domain.look(look.readings);
            let mut here = BTreeMap::new();
            for DiskLook { vm, disk, readings } in look.disks {
                let mut watched = open.disks.remove(&(vm.clone(), disk.clone())).unwrap_or_else(Watched::new);
                watched.look(readings);
                here.insert((vm, disk), watched);
            }
            for ((vm, disk), mut watched) in std::mem::replace(&mut open.disks, here) {
                rows.push(self.disk_row(&look.name, &vm, &disk, open.began, now, watched.turn()));
            }
            if due {
                self.turn(&look.name, &mut open, now, &mut rows);
            }
            self.domains.insert(look.name, open);
        }
        rows
    }

    /// Ends the run: every open minute ends with the last look.
    pub fn finish(&mut self, now: Look) -> Vec<Produced> {
        self.look(now, Vec::new())
    }

    fn turn(&self, name: &str, open: &mut Open, now: Look, rows: &mut Vec<Produced>) {
        let mut row = self.start_of_row(open.began, now);
        row.push(name.into());
        row.extend(open.domain.turn());
        rows.push(Produced { domain: name.to_owned(), table: StatsTable::DomainMinute, row });
        for ((vm, disk), watched) in &mut open.disks {
            rows.push(self.disk_row(name, vm, disk, open.began, now, watched.turn()));
        }
        open.began = now;
    }

    fn disk_row(&self, domain: &str, vm: &str, disk: &str, began: Look, now: Look, cells: Vec<Cell>) -> Produced {
        let mut row = self.start_of_row(began, now);
        row.extend([domain.into(), vm.into(), disk.into()]);
        row.extend(cells);
        Produced { domain: domain.to_owned(), table: StatsTable::DiskMinute, row }
    }

    fn start_of_row(&self, began: Look, now: Look) -> Row {
        let start = began.wall.get() - began.wall.get() % self.period_ns();
        let covers = now.monotonic.saturating_sub(began.monotonic).as_secs_f64();
        let (appliance, run) = (self.appliance.as_str(), self.run.as_str());
        vec![Cell::from(start / NS_PER_US), Cell::Number(covers), appliance.into(), run.into()]
    }

    /// The row of an event.
    pub fn event(&self, event: Happened<'_>) -> Row {
        let Happened { time, seq, severity, kind, domain, vm, disk, message, data } = event;
        let (appliance, run) = (self.appliance.as_str(), self.run.as_str());
        vec![
            Cell::from(time.get() / NS_PER_US),
            appliance.into(),
            run.into(),
            Cell::from(seq),
            severity.into(),
            kind.into(),
            domain.into(),
            vm.into(),
            disk.into(),
            message.into(),
            data.into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Table;
    use proptest::prelude::*;

    const MINUTE_NS: u64 = 60_000_000_000;

    fn at(seconds: u64) -> Look {
        Look { wall: TimeNs::new(1_000 * MINUTE_NS + seconds * 1_000_000_000), monotonic: Duration::from_secs(seconds) }
    }

    fn domain(written: u64, rpo: f64, disks: &[(&str, u64)]) -> DomainLook {
        let mut readings = Readings::new();
        readings.sum(DomainMeasure::Written, written).now(DomainMeasure::Rpo, rpo);
        let disk = |(disk, written): &(&str, u64)| {
            let mut readings = Readings::new();
            readings.sum(DiskMeasure::Written, *written);
            DiskLook { vm: "vm1".into(), disk: (*disk).into(), readings }
        };
        DomainLook { name: "d".into(), readings, disks: disks.iter().map(disk).collect() }
    }

    fn cell(produced: &Produced, column: &str) -> Cell {
        produced.row[Table::of(produced.table).column(column).unwrap()].clone()
    }

    fn rows(collector: &mut Collector, at: Look, looks: Vec<DomainLook>) -> Vec<Produced> {
        let rows = collector.look(at, looks);
        for produced in &rows {
            assert_eq!(produced.row.len(), Table::of(produced.table).columns.len(), "{produced:?}");
        }
        rows
    }

    #[test]
    fn a_minute_ends_with_the_first_look_in_the_next() {
        let mut collector = Collector::new("a", "r", Duration::from_secs(60));
        assert_eq!(rows(&mut collector, at(10), vec![domain(5, 1.0, &[("root", 5)])]), []);
        assert_eq!(rows(&mut collector, at(30), vec![domain(9, 4.0, &[("root", 9)])]), []);
        assert!(collector.is_due(at(61).wall));
        let ended = rows(&mut collector, at(61), vec![domain(10, 1.0, &[("root", 10)])]);
        assert_eq!(ended.len(), 2);
        assert_eq!(cell(&ended[0], "written_bytes"), Cell::Whole(10), "what was before the first look counts, too");
        assert_eq!(cell(&ended[0], "rpo_mean_s"), Cell::Number(2.0));
        assert_eq!(
            (cell(&ended[0], "rpo_min_s"), cell(&ended[0], "rpo_max_s")),
            (Cell::Number(1.0), Cell::Number(4.0))
        );
        assert_eq!(cell(&ended[0], "reads"), Cell::Absent, "what nobody looked at is not zero");
        assert_eq!(cell(&ended[0], "time"), Cell::Whole((1_000 * MINUTE_NS / 1000) as i64));
        assert_eq!(cell(&ended[1], "period_s"), Cell::Number(51.0));
        let last = collector.finish(at(70));
        assert_eq!((cell(&last[0], "written_bytes"), cell(&last[0], "period_s")), (Cell::Whole(0), Cell::Number(9.0)));
        assert_eq!(collector.finish(at(71)), [], "it has ended");
    }

    #[test]
    fn a_disk_that_left_ends_with_its_last_look_and_one_that_came_counts_from_zero() {
        let mut collector = Collector::new("a", "r", Duration::from_secs(60));
        rows(&mut collector, at(1), vec![domain(5, 0.0, &[("old", 5)])]);
        let left = rows(&mut collector, at(2), vec![domain(5, 0.0, &[("new", 3)])]);
        assert_eq!((cell(&left[0], "disk"), cell(&left[0], "written_bytes")), ("old".into(), Cell::Whole(5)));
        let ended = rows(&mut collector, at(60), vec![domain(9, 0.0, &[("new", 7)])]);
        assert_eq!((cell(&ended[1], "disk"), cell(&ended[1], "written_bytes")), ("new".into(), Cell::Whole(7)));
        let gone = rows(&mut collector, at(61), vec![]);
        assert_eq!(gone.len(), 2, "so does a domain");
    }

    #[test]
    fn a_counter_that_began_anew_counts_from_zero() {
        let mut collector = Collector::new("a", "r", Duration::from_secs(60));
        rows(&mut collector, at(1), vec![domain(100, 0.0, &[])]);
        rows(&mut collector, at(60), vec![domain(100, 0.0, &[])]);
        let ended = rows(&mut collector, at(120), vec![domain(7, 0.0, &[])]);
        assert_eq!(cell(&ended[0], "written_bytes"), Cell::Whole(7));
    }

    #[test]
    fn a_clock_that_is_set_back_ends_the_minute_and_loses_nothing() {
        let mut collector = Collector::new("a", "r", Duration::from_secs(60));
        rows(&mut collector, at(600), vec![domain(1, 0.0, &[])]);
        let back = Look { wall: at(10).wall, monotonic: Duration::from_secs(601) };
        let ended = rows(&mut collector, back, vec![domain(3, 0.0, &[])]);
        assert_eq!(
            (cell(&ended[0], "written_bytes"), cell(&ended[0], "period_s")),
            (Cell::Whole(3), Cell::Number(1.0))
        );
    }

    proptest! {
        /// However looks fall into minutes, rows add up to the counter.
        #[test]
        fn prop_rows_add_up_to_the_counter(steps in proptest::collection::vec((0_u64..200, 0_u64..1000), 1..60)) {
            let mut collector = Collector::new("a", "r", Duration::from_secs(60));
            let (mut second, mut written, mut sum) = (0, 0, 0.0);
            let add = |rows: Vec<Produced>| rows.iter().filter(|row| row.table == StatsTable::DomainMinute)
                .filter_map(|row| cell(row, "written_bytes").number()).sum::<f64>();
            for (wait, more) in steps {
                second += wait;
                written += more;
                sum += add(collector.look(at(second), vec![domain(written, 0.0, &[("root", written)])]));
            }
            sum += add(collector.finish(at(second)));
            prop_assert_eq!(sum, written as f64);
        }
    }
}
