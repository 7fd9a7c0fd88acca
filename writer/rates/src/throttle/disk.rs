//! Turns one disk's part of the rate into the hold of each of its writes.

use super::options::DiskOptions;
use crate::meter::{Meter, MeterOptions};
use crate::rate::span;
use std::time::Duration;

/// One disk of a domain.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) options: DiskOptions,
    pub(super) pending_bytes: u64,
    pub(super) overflowed: bool,
    pub(super) written: Meter,
    /// When all that was admitted is paid for at the disk's share.
    paid_at: Duration,
    held: bool,
}

impl Disk {
    pub(super) fn new(now: Duration) -> Self {
        let written = Meter::new(MeterOptions::STREAM, now);
        Self {
            options: DiskOptions::default(),
            pending_bytes: 0,
            overflowed: false,
            written,
            paid_at: now,
            held: false,
        }
    }

    /// Holds a write until the disk has paid for those before it, at `share` bytes a second; the write itself is paid for
    /// by the ones after it, so one of any size goes at once after a pause. A disk that was below its share may be ahead
    /// by `credit`, which is what one that is above may be held at most in the end.
    pub(super) fn pace(
        &mut self,
        bytes: u64,
        share: f64,
        hold_max: Duration,
        credit: Duration,
        now: Duration,
    ) -> Duration {
        // What a hold cannot make up for is forgiven.
        let earliest = now.saturating_sub(credit);
        let latest = now.saturating_add(hold_max);
        let at = self.paid_at.clamp(earliest, latest);
        let hold = at.saturating_sub(now);
        self.paid_at = at.saturating_add(span(bytes as f64 / share));
        self.held |= !hold.is_zero();
        self.written.add(bytes, now);
        hold
    }

    /// True if a write was held since the last call, or would be now.
    pub(super) fn take_held(&mut self, now: Duration) -> bool {
        std::mem::take(&mut self.held) || self.paid_at > now
    }
}
