//! Limits of maintenance. Every one has its unit in its name.

use std::time::Duration;
use tidemark_history::HeadOptions;
use tidemark_prices::Sheet;

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
    /// The image of a region is written anew when so many of its rows were merged, or as many as the image has if that is more.
    pub image_rows_min: u64,
    /// Runs are not merged if their tables of segments would exceed this together: a run has one.
    pub segments_bytes_max: u64,
    /// Heads of segments that are held at a time.
    pub heads_held_max: u64,
    /// Segments are rewritten if so many percent of their data are needed by no point. 1 to 100.
    pub dead_percent_min: u64,
    /// What the store charges.
    pub prices: Sheet,
    /// Segments are rewritten only if that saves within so many months what it costs. Where the store charges nothing for requests and
    /// reading, this is always so.
    pub payback_months_max: u32,
    /// Objects up to this size are joined with neighbours of their kind, `fan_out` or more at a time.
    pub small_object_bytes: u64,
    /// Plaintext of a compact segment at most, and of what is held in memory while one is made.
    pub compact_bytes_max: u64,
    /// Rows of compact segments that are held at a time.
    pub rows_held_max: u64,
    /// zstd level of compact segments, 1 to 19: what they hold is read more often than written.
    pub compression_level: i32,
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
            image_rows_min: 65_536,
            segments_bytes_max: 128 << 20,
            heads_held_max: 512,
            dead_percent_min: 25,
            prices: Sheet::named("own").expect("it is part of the program"),
            payback_months_max: 6,
            small_object_bytes: 1 << 20,
            compact_bytes_max: 64 << 20,
            rows_held_max: 1 << 20,
            compression_level: 3,
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
