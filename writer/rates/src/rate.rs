//! Bytes a second, and the little arithmetic with time that all controllers share.

use std::fmt;
use std::time::Duration;

/// Bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// Nothing moves.
    pub const ZERO: Self = Self(0);

    /// More than anything moves.
    pub const MAX: Self = Self(u64::MAX);

    /// Wraps bytes a second.
    pub const fn new(bytes_per_second: u64) -> Self {
        Self(bytes_per_second)
    }
    /// Bytes a second.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// Rounds to whole bytes; what is no number or negative counts as 0.
    pub(crate) fn from_f64(bytes_per_second: f64) -> Self {
        Self(bytes_per_second.round() as u64)
    }
}

/// As people write it, in binary units: `1.5 MiB/s`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB/s", "MiB/s", "GiB/s", "TiB/s", "PiB/s", "EiB/s"];
        if self.0 < 1024 {
            return write!(f, "{} B/s", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // What would print as 1024.0 is 1.0 of the next unit.
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

/// A time span of that many seconds; what no `Duration` can hold is as long as one can be.
pub(crate) fn span(seconds: f64) -> Duration {
    if seconds <= 0.0 { Duration::ZERO } else { Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_print_in_the_unit_that_people_would_take() {
        let printed =
            [0, 1023, 1024, 1_572_864, (1 << 30) - 1, 1 << 30, u64::MAX].map(|raw| Rate::new(raw).to_string());
        let wanted = ["0 B/s", "1023 B/s", "1.0 KiB/s", "1.5 MiB/s", "1.0 GiB/s", "1.0 GiB/s", "16.0 EiB/s"];
        assert_eq!(printed, wanted);
    }

    #[test]
    fn no_number_makes_a_time_span_panic() {
        assert_eq!([f64::NAN, f64::INFINITY, 1e300].map(span), [Duration::MAX; 3]);
        assert_eq!([-1.0, f64::NEG_INFINITY, 0.0].map(span), [Duration::ZERO; 3]);
        assert_eq!([-1.0, f64::NAN, 1.5].map(Rate::from_f64), [0, 0, 2].map(Rate::new));
    }
}
