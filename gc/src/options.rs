//! Limits of maintenance. Every one has its unit in its name.

use std::time::Duration;
use tidemark_history::HeadOptions;

/// How large things get, and how much is done at a time.
#[derive(Clone, Debug)]
pub struct MaintenanceOptions {
    /// Who claims, for people.
    pub owner: String,
    /// A new run ends with the segment that takes it to so many rows.
    pub run_rows: u64,
    /// Segments that may stay without an index at the end of a pass, if they have fewer rows than a run.
    pub unindexed_segments_max: usize,
    /// So many runs of a level that follow one another are merged into one of the next. At least 2.
    pub fan_out: usize,
    /// A table of rows ends with so many.
    pub table_rows_max: u64,
    /// Runs are not merged if their tables of segments would exceed this together: a run has one.
    pub segments_bytes_max: u64,
    /// Heads of segments that are held at a time.
    pub heads_held_max: u64,
    /// How long one answer may take.
    pub request_deadline: Duration,
    /// Requests for heads that are kept in flight.
    pub requests_in_flight_max: usize,
}

impl Default for MaintenanceOptions {
    fn default() -> Self {
        Self {
            owner: "tidemark gc".to_owned(),
            run_rows: 65_536,
            unindexed_segments_max: 0,
            fan_out: 8,
            table_rows_max: 1 << 19,
            segments_bytes_max: 128 << 20,
            heads_held_max: 512,
            request_deadline: Duration::from_secs(30),
            requests_in_flight_max: 32,
        }
    }
}

impl MaintenanceOptions {
    pub(crate) fn heads(&self) -> HeadOptions {
        HeadOptions {
            head_bytes: 128 << 10,
            request_deadline: self.request_deadline,
            requests_in_flight_max: self.requests_in_flight_max,
            absent_retries_max: 3,
        }
    }
}
