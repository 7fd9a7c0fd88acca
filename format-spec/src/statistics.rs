//! Where statistics lie: tables by name, files by day. What is in them is not the format's (docs/stats.md is).

use crate::ids::{BadName, TimeNs};
use crate::text::shorten;
use std::fmt;
use std::str::FromStr;

const DAY_NS: u64 = 24 * 3600 * 1_000_000_000;

/// A table of statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatsTable {
    /// A domain, minute by minute.
    DomainMinute,
    /// A disk, minute by minute.
    DiskMinute,
    /// What happened.
    Event,
    /// What maintenance did.
    GcPass,
    /// What recoveries did.
    RecoveryRun,
}

impl StatsTable {
    /// Every table.
    pub const ALL: [Self; 5] = [Self::DomainMinute, Self::DiskMinute, Self::Event, Self::GcPass, Self::RecoveryRun];

    /// Its name in keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DomainMinute => "domain_minute",
            Self::DiskMinute => "disk_minute",
            Self::Event => "event",
            Self::GcPass => "gc_pass",
            Self::RecoveryRun => "recovery_run",
        }
    }
}

impl fmt::Display for StatsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for StatsTable {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let found = Self::ALL.into_iter().find(|table| table.name() == text);
        found.ok_or_else(|| BadName { what: "table of statistics", text: shorten(text) })
    }
}

/// A day, UTC: `2026-11-25`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u32);

impl Day {
    /// So many days after 1 January 1970.
    pub const fn new(days: u32) -> Self {
        Self(days)
    }

    /// The day that a time is in.
    pub const fn of(time: TimeNs) -> Self {
        Self((time.get() / DAY_NS) as u32)
    }

    /// Days since 1 January 1970.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// When it begins.
    pub const fn start(self) -> TimeNs {
        TimeNs::new((self.0 as u64).saturating_mul(DAY_NS))
    }

    /// Year, month and day of the month. Counts in years that begin in March, so that the day that comes and goes is the last one.
    const fn civil(self) -> (u32, u32, u32) {
        let days = self.0 as u64 + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + (month <= 2) as u64;
        (year as u32, month as u32, day as u32)
    }

    fn from_civil(year: u32, month: u32, day: u32) -> Option<Self> {
        let year_from_march = u64::from(if month <= 2 { year.checked_sub(1)? } else { year });
        let from_march = u64::from(if month > 2 { month - 3 } else { month + 9 });
        let (era, year_of_era) = (year_from_march / 400, year_from_march % 400);
        let of_year = (153 * from_march + 2) / 5 + u64::from(day.checked_sub(1)?);
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        let days = (era * 146_097 + of_era).checked_sub(719_468)?;
        // What is no day of its month comes back as another one.
        let found = Self(u32::try_from(days).ok()?);
        (found.civil() == (year, month, day)).then_some(found)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Day {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let parse = || {
            let digits = |part: &str, len: usize| {
                let plain = part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit());
                if plain { part.parse::<u32>().ok() } else { None }
            };
            let mut parts = text.split('-');
            let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
            let (month, day) = (digits(month, 2)?, digits(day, 2)?);
            let known = parts.next().is_none() && (1..=12).contains(&month);
            if known { Self::from_civil(digits(year, 4)?, month, day) } else { None }
        };
        parse().ok_or_else(|| BadName { what: "day", text: shorten(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_read_back_as_written_through_leap_years() {
        let day = |text: &str| text.parse::<Day>().map(Day::get);
        assert_eq!((day("1970-01-01"), day("2000-03-01"), day("2026-11-25")), (Ok(0), Ok(11_017), Ok(20_782)));
        let mut before = String::new();
        for days in 0..80_000 {
            let text = Day::new(days).to_string();
            assert_eq!(day(&text), Ok(days), "{text}");
            assert!(text > before, "{text} sorts after {before}");
            before = text;
        }
        for text in ["2026-02-29", "2026-13-01", "2026-1-01", "2026-00-10", "1969-12-31", "2026-11-25-", "+026-11-25"] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_day_is_that_of_its_first_and_last_nanosecond() {
        let day = Day::new(20_782);
        let start = day.start();
        assert_eq!(Day::of(start), day);
        assert_eq!(Day::of(TimeNs::new(start.get() + DAY_NS - 1)), day);
        assert_eq!(Day::of(TimeNs::new(start.get() - 1)), Day::new(20_781));
    }
}
