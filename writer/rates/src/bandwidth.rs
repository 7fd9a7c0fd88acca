//! Turns a weekly calendar of rates into when the next object may be sent.
//!
//! A [`Calendar`] says what limit holds at a local time of the week. A [`TokenBucket`] keeps it: tokens are bytes, they come
//! in at the limit's rate, at most `burst_bytes` of them are saved up, and an object takes its size. One that is larger
//! than the burst goes once the bucket is full, and leaves a debt that the following objects wait for. So in any stretch
//! of time, at most
//!
//! ```text
//! rate * time + max(burst_bytes, largest object)
//! ```
//!
//! are started, and in the long run exactly `rate` if there is enough to send: tokens are counted in whole billionths of a
//! byte, nothing is ever rounded away.
//!
//! Not here: the local time and its zone. When the clocks change, the caller's local time jumps, and the limit with it.

use crate::error::{Result, require};
use crate::rate::Rate;
use std::fmt;
use std::time::Duration;

/// Windows of a calendar at most.
pub const WINDOWS_MAX: usize = 168;
const DAY_SECONDS: u32 = 86_400;
const WEEK_SECONDS: u32 = 7 * DAY_SECONDS;
const NS: i128 = 1_000_000_000;

/// How much may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// As much as the link takes.
    Unlimited,
    /// This much; nothing at all if it is zero.
    AtMost(Rate),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::AtMost(rate) => rate.fmt(f),
        }
    }
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they are the days of the week")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Weekday {
    /// All seven, from Monday.
    pub const ALL: [Self; 7] =
        [Self::Monday, Self::Tuesday, Self::Wednesday, Self::Thursday, Self::Friday, Self::Saturday, Self::Sunday];
}

/// A local time within the week, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeekTime(u32);

impl WeekTime {
    /// So many seconds after local midnight of that day. A leap second counts as the last of its day.
    pub fn new(day: Weekday, second: u32) -> Self {
        Self(day as u32 * DAY_SECONDS + second.min(DAY_SECONDS - 1))
    }
    /// Seconds since midnight from Sunday to Monday.
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

/// On some days, from one time of the day to another, another limit holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalendarWindow {
    /// The days on which it begins.
    pub days: Vec<Weekday>,
    /// Seconds after local midnight, below 86,400: the first second in it.
    pub from_second: u32,
    /// Seconds after local midnight, up to 86,400: the first second after it. Not after `from_second` if it is on the
    /// next day.
    pub to_second: u32,
    /// What holds.
    pub limit: Limit,
}

/// What limit holds at which time of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    windows: Vec<CalendarWindow>,
    otherwise: Limit,
}

impl Calendar {
    /// The same limit all week.
    pub fn always(limit: Limit) -> Self {
        Self { windows: Vec::new(), otherwise: limit }
    }

    /// Where windows overlap, the first in the list holds; `otherwise` where there is none.
    ///
    /// # Errors
    /// More than [`WINDOWS_MAX`] windows, one without days, or times beyond the day. A window from a time to the same time
    /// lasts 24 hours.
    pub fn new(windows: Vec<CalendarWindow>, otherwise: Limit) -> Result<Self> {
        require(windows.len() <= WINDOWS_MAX, "calendar", windows.len(), "at most 168 windows")?;
        for CalendarWindow { days, from_second, to_second, .. } in &windows {
            require(!days.is_empty(), "days", "empty", "at least one day")?;
            require(*from_second < DAY_SECONDS, "from", from_second, "a second of the day, below 86400")?;
            require(*to_second <= DAY_SECONDS, "to", to_second, "a second of the day, at most 86400")?;
        }
        Ok(Self { windows, otherwise })
    }

    /// What holds at this time.
    pub fn limit(&self, at: WeekTime) -> Limit {
        self.windows.iter().find(|window| window.holds(at.0)).map_or(self.otherwise, |window| window.limit)
    }

    /// How long until another limit may hold; `None` if it never changes.
    pub fn until_change(&self, at: WeekTime) -> Option<Duration> {
        let now = self.limit(at);
        let mut edges: Vec<u32> = self.windows.iter().flat_map(CalendarWindow::edges).collect();
        edges.sort_by_key(|edge| (edge + WEEK_SECONDS - at.0 - 1) % WEEK_SECONDS);
        let next = edges.into_iter().find(|edge| self.limit(WeekTime(*edge)) != now)?;
        Some(Duration::from_secs(u64::from((next + WEEK_SECONDS - at.0 - 1) % WEEK_SECONDS + 1)))
    }
}

impl CalendarWindow {
    fn length(&self) -> u32 {
        let wrapped = if self.to_second > self.from_second { 0 } else { DAY_SECONDS };
        self.to_second + wrapped - self.from_second
    }
    fn starts(&self) -> impl Iterator<Item = u32> {
        self.days.iter().map(|day| *day as u32 * DAY_SECONDS + self.from_second)
    }
    fn holds(&self, second: u32) -> bool {
        self.starts().any(|start| (second + WEEK_SECONDS - start) % WEEK_SECONDS < self.length())
    }
    fn edges(&self) -> impl Iterator<Item = u32> {
        self.starts().flat_map(|start| [start, (start + self.length()) % WEEK_SECONDS])
    }
}

/// A limit, kept.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    limit: Limit,
    burst_bytes: u64,
    /// Billionths of a byte; negative is a debt.
    tokens: i128,
    filled_at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    ///
    /// # Errors
    /// A burst of 0 bytes.
    pub fn new(limit: Limit, burst_bytes: u64, now: Duration) -> Result<Self> {
        require(burst_bytes > 0, "burst_bytes", burst_bytes, "at least 1")?;
        Ok(Self { limit, burst_bytes, tokens: i128::from(burst_bytes) * NS, filled_at: now })
    }

    /// What holds.
    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// Another limit holds from now on. Tokens and debt stay, so switching between rates gains nothing; without a limit
    /// the bucket is full at once. Waits that [`Self::delay`] told before are void.
    pub fn set_limit(&mut self, limit: Limit, now: Duration) {
        self.fill(now);
        self.limit = limit;
    }

    fn full(&self) -> i128 {
        i128::from(self.burst_bytes) * NS
    }

    fn filled(&self, now: Duration) -> i128 {
        match self.limit {
            Limit::Unlimited => self.full(),
            Limit::AtMost(rate) => {
                let ns = i128::try_from(now.saturating_sub(self.filled_at).as_nanos()).unwrap_or(i128::MAX);
                self.tokens.saturating_add(ns.saturating_mul(i128::from(rate.get()))).min(self.full())
            }
        }
    }

    fn fill(&mut self, now: Duration) {
        self.tokens = self.filled(now);
        self.filled_at = self.filled_at.max(now);
    }

    /// How long until an object of `bytes` may be started; [`Duration::MAX`] if not before the limit changes.
    pub fn delay(&self, bytes: u64, now: Duration) -> Duration {
        let missing = i128::from(bytes.min(self.burst_bytes)) * NS - self.filled(now);
        match self.limit {
            _ if missing <= 0 => Duration::ZERO,
            Limit::Unlimited => Duration::ZERO,
            Limit::AtMost(Rate::ZERO) => Duration::MAX,
            Limit::AtMost(rate) => {
                let rate = i128::from(rate.get());
                let ns = (missing + rate - 1) / rate;
                // A clock that stepped back has to come to where it was first.
                let behind = self.filled_at.saturating_sub(now);
                u64::try_from(ns).map_or(Duration::MAX, Duration::from_nanos).saturating_add(behind)
            }
        }
    }

    /// An object of `bytes` was started. Nobody is stopped from doing so before its time: it costs the same.
    pub fn take(&mut self, bytes: u64, now: Duration) {
        self.fill(now);
        self.tokens = self.tokens.saturating_sub(i128::from(bytes) * NS);
    }

    /// Bytes that were started ahead of time, or are larger than the burst, and are not paid for yet.
    pub fn debt_bytes(&self, now: Duration) -> u64 {
        u64::try_from(self.filled(now).min(0).saturating_neg() / NS).unwrap_or(u64::MAX)
    }
}
