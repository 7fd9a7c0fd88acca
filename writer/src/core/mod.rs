//! The rules, without I/O, clock or await: events and `now` go in, effects come out, the shell performs them.
//!
//! [`opening`] takes a domain over (F1 to F4), [`log`] turns writes into committed segments (F5, F6), [`layout`] turns
//! one segment's writes into sorted rows and frames.

pub(crate) mod disks;
pub(crate) mod layout;
pub(crate) mod log;
pub(crate) mod opening;
#[cfg(test)]
mod sim;

use std::time::Duration;
use tidemark_format::TimeNs;

/// What the clocks show when an event comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// The wall clock, for the time of writes.
    pub(crate) wall: TimeNs,
    /// The monotonic clock, for intervals.
    pub(crate) monotonic: Duration,
}

/// Rounds down to whole ticks.
pub(crate) fn floor_to_tick(time: TimeNs, tick_ns: u32) -> TimeNs {
    TimeNs::new(time.get() - time.get() % u64::from(tick_ns))
}

/// Rounds up to whole ticks.
pub(crate) fn ceil_to_tick(time: TimeNs, tick_ns: u32) -> TimeNs {
    let tick = u64::from(tick_ns);
    TimeNs::new(time.get().div_ceil(tick).saturating_mul(tick)).min(floor_to_tick(TimeNs::new(u64::MAX), tick_ns))
}
