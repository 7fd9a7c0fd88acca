//! How a throttle is set up.

use crate::error::{Result, require};
use std::time::Duration;

/// The longest hold that can be configured: guests give up on a disk after some 30 s.
pub const ADDED_LATENCY_LIMIT: Duration = Duration::from_secs(10);

/// Where backpressure begins and ends, in parts of the log space that a domain may take, and how long a write may wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThrottleOptions {
    /// From here on background replication is slowed; at `start_fill` it stands still.
    pub seed_fill: f64,
    /// From here on guest writes are held.
    pub start_fill: f64,
    /// From here on disks stall or degrade.
    pub overflow_fill: f64,
    /// No write is held longer. At most 10 s.
    pub added_latency_max: Duration,
}

impl Default for ThrottleOptions {
    fn default() -> Self {
        Self { seed_fill: 0.3, start_fill: 0.5, overflow_fill: 0.9, added_latency_max: Duration::from_millis(500) }
    }
}

impl ThrottleOptions {
    /// Where the fill settles while the guest wants to write faster than the bucket takes: half way between start and
    /// overflow.
    pub fn settle_fill(&self) -> f64 {
        (self.start_fill + self.overflow_fill) / 2.0
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// Fills that are not in the order 0 <= seed < start < overflow < 1 with 2 % between them, or a latency of 0 or more
    /// than 10 s.
    pub fn check(&self) -> Result<()> {
        let apart = |low: f64, high: f64| high - low >= 0.02;
        let Self { seed_fill, start_fill, overflow_fill, added_latency_max } = *self;
        require(seed_fill >= 0.0, "seed_fill", seed_fill, "at least 0")?;
        require(apart(seed_fill, start_fill), "start_fill", start_fill, "at least 0.02 above seed_fill")?;
        require(apart(start_fill, overflow_fill), "overflow_fill", overflow_fill, "at least 0.02 above start_fill")?;
        require(apart(overflow_fill, 1.0), "overflow_fill", overflow_fill, "at most 0.98")?;
        let holds = !added_latency_max.is_zero() && added_latency_max <= ADDED_LATENCY_LIMIT;
        require(holds, "added_latency_max", format!("{added_latency_max:?}"), "more than 0 and at most 10s")
    }
}

/// What becomes of a disk's writes once the log is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOverflow {
    /// They wait until there is room: no point in time is lost, but the guest stands still.
    #[default]
    Stall,
    /// They bypass the log: the guest goes on, and the disk has a gap until it is synchronised again.
    Degrade,
}

/// How one disk is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskOptions {
    /// What becomes of its writes once the log is full.
    pub on_overflow: OnOverflow,
}
