//! How a domain is replicated.

use tidemark_log_store::SpaceLimits;
use tidemark_rates::{SeedOptions, ThrottleOptions};
use tidemark_writer::WriterOptions;

/// Limits and habits of a domain's replication.
#[derive(Clone, Debug)]
pub struct ReplicationOptions {
    /// Of the segments: their age is the RPO setting.
    pub writer: WriterOptions,
    /// What the domain's log may take in the log store.
    pub space: SpaceLimits,
    /// Where backpressure begins and ends.
    pub throttle: ThrottleOptions,
    /// How fast background replication may be.
    pub seed: SeedOptions,
    /// While nothing is committed, the claim of the next epoch is looked for this often.
    pub fence_check_ms: u64,
    /// An epoch in which something was written ends after this long, and the next one begins.
    pub epoch_ms_max: u64,
    /// Bytes of records that the shipper reads from the log at once.
    pub read_bytes_max: u64,
    /// The log is trimmed, looked at by the throttle, and what has to be remembered is written down this often.
    pub keep_ms: u64,
    /// First pause before the bucket is tried again; doubled each time.
    pub retry_ms_first: u64,
    /// Longest pause before the bucket is tried again.
    pub retry_ms_max: u64,
}

impl Default for ReplicationOptions {
    fn default() -> Self {
        Self {
            writer: WriterOptions::default(),
            space: SpaceLimits { min_bytes: 64 << 20, max_bytes: 1 << 40 },
            throttle: ThrottleOptions::default(),
            seed: SeedOptions::default(),
            fence_check_ms: 5_000,
            epoch_ms_max: 6 * 3_600_000,
            read_bytes_max: 8 << 20,
            keep_ms: 200,
            retry_ms_first: 200,
            retry_ms_max: 10_000,
        }
    }
}

/// What becomes of acknowledged writes that only this log store has, when another owner has gone on without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// Nothing may be given up: stay out if there are any.
    KeepLocal,
    /// Give them up and follow the bucket.
    DiscardLocal,
}
