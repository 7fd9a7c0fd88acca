//! What is measured: names, units and meaning, in one place.
//!
//! A [`Measure`] becomes one metric and, where its scope has a table, a few columns. Field ids in Parquet schemas are those
//! given here: each measure owns ten of them, and a number that was ever used is never given to something else.
//! Invariant: names are unique within a scope, and field ids within a table (tested).

use std::sync::LazyLock;
use tidemark_format::StatsTable;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Pieces.
    Pieces,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// A part of a whole, 0 to 1.
    Ratio,
}

impl Unit {
    /// The word for it in metrics; pieces have none.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pieces => "",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
            Self::Ratio => "ratio",
        }
    }

    /// The end of a column's name.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Pieces => "",
            Self::Bytes => "_bytes",
            Self::Seconds => "_s",
            Self::Ratio => "_ratio",
        }
    }
}

/// How a measure behaves, and so what is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows. The metric is a counter since the start of the process; the column has what the minute added.
    Sum,
    /// Goes up and down. The metric is a gauge; columns have mean and most of looks once a second.
    Level,
    /// As a level, where the tail matters: least, mean, 99th percentile and most.
    Lag,
    /// Known once a minute. The metric is a gauge with the last one.
    Estimate,
    /// How long single requests took. The metric is a histogram; columns have median, 99th percentile and most, each at most
    /// 6.25 % too high.
    Latency,
}

/// Something that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// First of the ten field ids that its columns have.
    pub field: i32,
    /// Its name, without scope and unit.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What its numbers count.
    pub unit: Unit,
    /// What it means.
    pub help: &'static str,
}

impl Measure {
    /// The name of its metric family.
    pub fn metric(&self, scope: &str) -> String {
        let name = format!("tidemark_{scope}_{}", self.name);
        match self.unit.word() {
            "" => name,
            unit => format!("{name}_{unit}"),
        }
    }

    /// Its columns in a table.
    pub fn columns(&self) -> Vec<Column> {
        let statistics: &[&str] = match self.kind {
            Kind::Sum | Kind::Estimate => &[""],
            Kind::Level => &["mean", "max"],
            Kind::Lag => &["min", "mean", "p99", "max"],
            Kind::Latency => &["p50", "p99", "max"],
        };
        let whole = self.kind == Kind::Sum && self.unit != Unit::Seconds;
        let column = |(nth, statistic): (usize, &&str)| {
            let joint = if statistic.is_empty() { "" } else { "_" };
            let words = match *statistic {
                "min" => "; least in the minute",
                "mean" => "; mean over the minute",
                "p50" => "; median of the minute",
                "p99" => "; 99th percentile of the minute",
                "max" => "; most in the minute",
                _ => "",
            };
            Column {
                field: self.field + nth as i32,
                name: format!("{}{joint}{statistic}{}", self.name, self.unit.suffix()),
                holds: if whole { Holds::Whole } else { Holds::Number },
                unit: self.unit,
                help: format!("{}{words}", self.help),
                required: false,
            }
        };
        statistics.iter().enumerate().map(column).collect()
    }
}

/// All that is measured of one kind of thing.
pub trait Measures: Copy + 'static {
    /// Their common first word in metrics.
    const SCOPE: &'static str;
    /// What tells two things of the kind apart: names of labels.
    const LABELS: &'static [&'static str];
    /// Every measure, in the order of the enum.
    const ALL: &'static [Measure];
    /// Its place in [`Self::ALL`].
    fn index(self) -> usize;
}

macro_rules! measures {
    ($(#[$about:meta])* $name:ident, $scope:literal, $labels:expr;
     $($variant:ident = $field:literal $measure:literal $kind:ident $unit:ident $help:literal;)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = $help] $variant,)*
        }

        impl Measures for $name {
            const SCOPE: &'static str = $scope;
            const LABELS: &'static [&'static str] = &$labels;
            const ALL: &'static [Measure] = &[
                $(Measure { field: $field, name: $measure, kind: Kind::$kind, unit: Unit::$unit, help: $help },)*
            ];
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

measures! {
    /// Of an appliance.
    ApplianceMeasure, "appliance", [];
    Uptime = 100 "uptime" Level Seconds "Time since the appliance started";
    LogStoreSize = 110 "log_store_size" Level Bytes "Room of the log store";
    LogStoreUsed = 120 "log_store_used" Level Bytes "Room of the log store that is taken";
    LogStoreFailed = 130 "log_store_failed" Level Ratio "1 if the log store takes no more writes";
    EventsInfo = 140 "info_events" Sum Pieces "Events of severity info";
    EventsWarning = 150 "warning_events" Sum Pieces "Events of severity warning";
    EventsError = 160 "error_events" Sum Pieces "Events of severity error";
    SpooledFiles = 170 "statistics_spooled_files" Level Pieces "Files of statistics that the bucket does not have yet";
    LostRows = 180 "statistics_lost_rows" Sum Pieces "Rows of statistics that were given up: there was no room for them, or they could not be written down";
}

measures! {
    /// Of a domain.
    DomainMeasure, "domain", ["domain"];
    Writes = 100 "writes" Sum Pieces "Writes of guests that were acknowledged";
    Written = 110 "written" Sum Bytes "Bytes of those";
    Reads = 120 "reads" Sum Pieces "Reads of guests";
    Read = 130 "read" Sum Bytes "Bytes of those";
    Zeroed = 140 "zeroed" Sum Bytes "Bytes that guests wrote as zeros without sending them";
    Unmapped = 150 "unmapped" Sum Bytes "Bytes that guests discarded";
    LoggedRecords = 160 "logged_records" Sum Pieces "Records handed to the log store: writes, zeros, discards and events, seeds too";
    Logged = 170 "logged" Sum Bytes "Data bytes of those";
    ShippedPlain = 180 "shipped_plain" Sum Bytes "Bytes packed into segments, before compression";
    ShippedStored = 190 "shipped_stored" Sum Bytes "The same bytes after compression";
    Seeded = 200 "seeded" Sum Bytes "Bytes read from disks by seeding and comparing";
    SegmentPuts = 210 "segment_puts" Sum Pieces "PUT requests of log and base segments; tries again count, as they do on the bill";
    Puts = 220 "put_requests" Sum Pieces "PUT requests of all kinds";
    PutBytes = 230 "put" Sum Bytes "Bytes sent by them";
    Gets = 240 "get_requests" Sum Pieces "GET requests";
    GetBytes = 250 "get" Sum Bytes "Bytes received by them";
    Lists = 260 "list_requests" Sum Pieces "LIST requests";
    Deletes = 270 "delete_requests" Sum Pieces "DELETE requests";
    Heads = 280 "head_requests" Sum Pieces "HEAD requests";
    StatisticsPuts = 290 "statistics_put_requests" Sum Pieces "Those of the PUT requests that carried statistics";
    StatisticsBytes = 300 "statistics_put" Sum Bytes "Bytes sent by them";
    Held = 310 "held" Sum Seconds "Time that backpressure held writes of guests, summed over writes";
    Rpo = 320 "rpo" Lag Seconds "Age of the oldest acknowledged write that the bucket lacks, looked at once a second";
    RpoTarget = 330 "rpo_target" Level Seconds "What it should stay below";
    LogUsed = 340 "log_used" Level Bytes "Bytes in the domain's log";
    LogFill = 350 "log_fill" Level Ratio "Part of the domain's room in the log store that is taken";
    ThrottleLatency = 360 "throttle_latency" Level Seconds "Longest that backpressure may hold one write now";
    ThrottleStage = 370 "throttle_stage" Level Pieces "0 free, 1 seeding slowed, 2 guests throttled, 3 the log is full";
    Replicating = 380 "replicating" Level Ratio "1 while the domain is ours and ships";
    Fenced = 390 "fenced" Level Ratio "1 after another owner took the domain, or wrote what this one has not";
    Disks = 400 "disks" Level Pieces "Disks under protection";
    Window = 410 "window" Level Seconds "So far back every point is offered, where this appliance maintains the bucket";
    WindowPromised = 420 "window_promised" Level Seconds "So far back every point is wished to be";
    WindowMissed = 430 "window_missed" Level Ratio "1 while points of that are gone";
    UpkeepFailed = 440 "upkeep_failed" Level Ratio "1 while the last pass of maintenance failed";
}

measures! {
    /// Of a disk.
    DiskMeasure, "disk", ["domain", "vm", "disk"];
    Writes = 100 "writes" Sum Pieces "Writes of the guest that were acknowledged";
    Written = 110 "written" Sum Bytes "Bytes of those";
    Reads = 120 "reads" Sum Pieces "Reads of the guest";
    Read = 130 "read" Sum Bytes "Bytes of those";
    Flushes = 140 "flushes" Sum Pieces "Flushes of the guest";
    Zeroed = 150 "zeroed" Sum Bytes "Bytes written as zeros without sending them";
    Unmapped = 160 "unmapped" Sum Bytes "Bytes discarded";
    Held = 170 "held" Sum Seconds "Time that backpressure held writes, summed over writes";
    WriteLatency = 180 "write_latency" Latency Seconds "From a write's arrival to its acknowledgement, backpressure included";
    ReadLatency = 190 "read_latency" Latency Seconds "From a read's arrival to its answer";
    Rpo = 200 "rpo" Lag Seconds "Age of the disk's oldest acknowledged write that the bucket lacks";
    Waiting = 210 "waiting" Level Bytes "Bytes of the disk that wait in the log";
    Restorable = 220 "restorable" Level Ratio "1 while the disk can be restored as of now: no gap, no seed under way";
    Size = 230 "size" Level Bytes "Size of the disk";
    Touched = 240 "touched" Estimate Bytes "Distinct MiB that the minute's writes, zeros and discards touched, times 1 MiB; exact";
    Distinct = 250 "distinct" Estimate Bytes "Distinct 4 KiB blocks written in the minute, times 4 KiB; HyperLogLog, standard error 1.6 %";
    DayDistinct = 260 "day_distinct" Estimate Bytes "The same since midnight UTC or the appliance's start; standard error 0.8 %";
    Overwrite = 270 "overwrite" Estimate Ratio "Of the 4 KiB blocks written in the minute, the part that the same minute had written before";
    Entropy = 280 "entropy" Estimate Ratio "Shannon entropy of bytes within sampled 4 KiB blocks over 8 bits; 1 is random. Random data reads 0.994";
    Compressed = 290 "compressed" Estimate Ratio "Size of sampled 4 KiB blocks under zstd level 1 over their size. Segments compress better, as they see more at once";
    Sampled = 300 "sampled_blocks" Sum Pieces "Blocks sampled for entropy";
    Anomaly = 310 "anomaly" Level Ratio "How unlike the disk's own past the last ten seconds of writes are, 0 to 1: from entropy, overwriting and rate";
    Suspicious = 320 "suspicious" Level Ratio "1 while writes are so unlike the disk's past that an encryptor may be at work";
}

measures! {
    /// Of a pass of maintenance. No metric: the process ends with it.
    PassMeasure, "gc_pass", [];
    Duration = 100 "duration" Estimate Seconds "How long it took";
    Segments = 110 "segments" Sum Pieces "Log segments indexed";
    Rows = 120 "rows" Sum Pieces "Rows of those";
    Runs = 130 "runs" Sum Pieces "Runs written";
    Merges = 140 "merges" Sum Pieces "Merges of runs";
    MergedRows = 150 "merged_rows" Sum Pieces "Rows rewritten by merges";
    Written = 160 "written" Sum Bytes "Bytes of tables and roots put";
    Roots = 170 "roots" Sum Pieces "Roots published";
    DroppedPoints = 180 "dropped_points" Sum Pieces "Points in time no longer offered";
    Puts = 190 "put_requests" Sum Pieces "PUT requests";
    Gets = 200 "get_requests" Sum Pieces "GET requests";
    GetBytes = 210 "get" Sum Bytes "Bytes received by them";
    Lists = 220 "list_requests" Sum Pieces "LIST requests";
    Deletes = 230 "delete_requests" Sum Pieces "DELETE requests";
}

measures! {
    /// Of a recovery. No metric: the process ends with it.
    RecoveryMeasure, "recovery_run", [];
    Rto = 100 "rto" Estimate Seconds "From its beginning until every VM was ready; null if that was never so";
    Vms = 110 "vms" Sum Pieces "VMs that were to start";
    ReadyVms = 120 "ready_vms" Sum Pieces "VMs of which every step went well";
    Steps = 130 "steps" Sum Pieces "Steps of its plan";
    FailedSteps = 140 "failed_steps" Sum Pieces "Steps that failed, and were gone on after";
    Disks = 150 "disks" Sum Bytes "Bytes of the disks of those VMs";
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// A moment: microseconds since 1970, UTC.
    Time,
    /// A whole number.
    Whole,
    /// A number.
    Number,
    /// Text.
    Text,
}

impl Holds {
    /// Its type in Parquet.
    pub const fn parquet(self) -> &'static str {
        match self {
            Self::Time => "TIMESTAMP(MICROS, UTC)",
            Self::Whole => "INT64",
            Self::Number => "DOUBLE",
            Self::Text => "STRING",
        }
    }
}

/// A column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its field id.
    pub field: i32,
    /// Its name; the unit stands last.
    pub name: String,
    /// What it holds.
    pub holds: Holds,
    /// What its numbers count.
    pub unit: Unit,
    /// What it means.
    pub help: String,
    /// Never absent.
    pub required: bool,
}

impl Column {
    fn key(field: i32, name: &str, holds: Holds, help: &str) -> Self {
        let unit = if name.ends_with("_s") { Unit::Seconds } else { Unit::Pieces };
        Self { field, name: name.to_owned(), holds, unit, help: help.to_owned(), required: false }
    }

    fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

/// A table below `v/stats/`.
#[derive(Clone, Debug)]
pub struct Table {
    /// Which.
    pub table: StatsTable,
    /// What a row is.
    pub about: &'static str,
    /// Its columns; the first is the time.
    pub columns: Vec<Column>,
    /// So many of them say what the row is about; measures follow.
    pub keys: usize,
}

impl Table {
    /// The definition of a table.
    pub fn of(table: StatsTable) -> &'static Self {
        static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| StatsTable::ALL.map(define).into());
        TABLES.iter().find(|of| of.table == table).expect("every table is defined")
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

fn define(table: StatsTable) -> Table {
    let time = |help| Column::key(1, "time", Holds::Time, help).required();
    let text = |field, name, help| Column::key(field, name, Holds::Text, help).required();
    let period =
        Column::key(2, "period_s", Holds::Number, "Time that the row covers: 60, less where a run begins or ends");
    let appliance = text(3, "appliance", "Name of the appliance");
    let run =
        text(4, "run", "Which start of the appliance, by chance: a crash loses what was after the run's last row");
    let domain = text(5, "domain", "Name of the domain");
    let (about, mut columns, measures): (_, _, &[Measure]) = match table {
        StatsTable::DomainMinute => (
            "One domain in one minute, as one run of an appliance saw it.",
            vec![time("Start of the minute"), period.required(), appliance, run, domain],
            DomainMeasure::ALL,
        ),
        StatsTable::DiskMinute => (
            "One disk in one minute, as one run of an appliance saw it.",
            vec![
                time("Start of the minute"),
                period.required(),
                appliance,
                run,
                domain,
                text(6, "vm", "Name of the VM"),
                text(7, "disk", "Name of the disk within its VM"),
            ],
            DiskMeasure::ALL,
        ),
        StatsTable::Event => (
            "Something that happened: alarms, gaps, changes of mode, claims.",
            vec![
                time("When"),
                appliance,
                run,
                Column::key(8, "seq", Holds::Whole, "Number within the run, from 1").required(),
                text(9, "severity", "info, warning or error"),
                text(10, "kind", "A stable word such as disk-gap"),
                Column::key(5, "domain", Holds::Text, "The domain that it is about"),
                Column::key(6, "vm", Holds::Text, "The VM that it is about"),
                Column::key(7, "disk", Holds::Text, "The disk that it is about"),
                text(11, "message", "The same for people"),
                Column::key(12, "data", Holds::Text, "Numbers and names that belong to it, as JSON"),
            ],
            &[],
        ),
        StatsTable::GcPass => {
            ("One pass of maintenance that changed something.", vec![time("Its end"), run, domain], PassMeasure::ALL)
        }
        StatsTable::RecoveryRun => (
            "A recovery, as far as it was when a command left it: rows of one recovery have the same run, and the last of them holds.",
            vec![
                time("Its beginning"),
                run,
                domain,
                text(13, "mode", "test, failover or failback"),
                text(14, "phase", "Where it stood: up, settled, reverted, ..."),
                Column::key(15, "lsn", Holds::Whole, "The point").required(),
                Column::key(16, "reverted_for", Holds::Text, "Why it was reverted, if it was"),
                text(17, "step_times", "Its steps as JSON: what, vm, group, state, failure, after_ms, took_ms"),
            ],
            RecoveryMeasure::ALL,
        ),
    };
    let keys = columns.len();
    columns.extend(measures.iter().flat_map(Measure::columns));
    Table { table, about, columns, keys }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_field_ids_are_unique_and_the_time_comes_first() {
        for table in StatsTable::ALL.map(Table::of) {
            let names: BTreeSet<_> = table.columns.iter().map(|column| &column.name).collect();
            let fields: BTreeSet<_> = table.columns.iter().map(|column| column.field).collect();
            assert_eq!((names.len(), fields.len()), (table.columns.len(), table.columns.len()), "{}", table.table);
            assert_eq!((table.columns[0].name.as_str(), table.columns[0].holds), ("time", Holds::Time));
        }
        let scopes =
            [ApplianceMeasure::ALL, DomainMeasure::ALL, DiskMeasure::ALL, PassMeasure::ALL, RecoveryMeasure::ALL];
        for measures in scopes {
            let names: BTreeSet<_> = measures.iter().map(|measure| measure.metric("x")).collect();
            assert_eq!(names.len(), measures.len());
            assert!(measures.iter().all(|measure| measure.field % 10 == 0 && measure.field >= 100));
        }
    }

    #[test]
    fn a_unit_ends_the_name() {
        let rpo = DomainMeasure::ALL[DomainMeasure::Rpo.index()];
        assert_eq!(rpo.metric("domain"), "tidemark_domain_rpo_seconds");
        let names: Vec<_> = rpo.columns().into_iter().map(|column| column.name).collect();
        assert_eq!(names, ["rpo_min_s", "rpo_mean_s", "rpo_p99_s", "rpo_max_s"]);
        assert_eq!(DiskMeasure::ALL[DiskMeasure::Written.index()].columns()[0].name, "written_bytes");
    }
}
