//! Points in time, and the words that people use for them.

use crate::error::Error;
use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;
use tidemark_format::{Lsn, Mark, TimeNs};

/// A point in a domain's history: everything up to and including `lsn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    /// The last LSN that the point includes.
    pub lsn: Lsn,
    /// When that LSN happened. An annotation: the LSN is the truth.
    pub time: TimeNs,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lsn {} at {}", self.lsn, TimeText(self.time))
    }
}

impl From<Mark> for Point {
    fn from(mark: Mark) -> Self {
        Self { lsn: mark.lsn, time: mark.time }
    }
}

/// How a person names a point: `latest`, `lsn:N`, an RFC 3339 time, `-10m`, or `bookmark:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PointSpec {
    /// The newest point.
    Latest,
    /// Exactly this LSN.
    Lsn(Lsn),
    /// The last LSN at or before a time.
    Time(TimeNs),
    /// The last LSN at or before so many nanoseconds ago.
    Ago(u64),
    /// The newest bookmark of this name.
    Bookmark(String),
}

impl fmt::Display for PointSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Lsn(lsn) => write!(f, "lsn:{lsn}"),
            Self::Time(time) => write!(f, "{}", TimeText(*time)),
            Self::Ago(ns) => write!(f, "-{}", SpanText(*ns)),
            Self::Bookmark(name) => write!(f, "bookmark:{name}"),
        }
    }
}

impl FromStr for PointSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::BadPoint { text: text.chars().take(80).collect(), why: why.to_owned() };
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some(number) = text.strip_prefix("lsn:") {
            return number.parse().map(|n| Self::Lsn(Lsn::new(n))).map_err(|_| bad("lsn: needs a number"));
        }
        if let Some(name) = text.strip_prefix("bookmark:") {
            return if name.is_empty() {
                Err(bad("bookmark: needs a name"))
            } else {
                Ok(Self::Bookmark(name.to_owned()))
            };
        }
        if let Some(span) = text.strip_prefix('-') {
            return parse_span(span).map(Self::Ago).ok_or_else(|| bad("a span is like 90s, 10m, 1h30m or 2d"));
        }
        let time: Timestamp = text.parse().map_err(|e: jiff::Error| bad(&e.to_string()))?;
        let ns =
            u64::try_from(time.as_nanosecond()).map_err(|_| bad("times before 1970 or after 2554 are not known"))?;
        Ok(Self::Time(TimeNs::new(ns)))
    }
}

const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("m", 60_000_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("s", 1_000_000_000),
];

/// Nanoseconds of a text like `1h30m`; `None` if it is none.
pub fn parse_span(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text, 0u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, ns) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total = total.checked_add(number.checked_mul(*ns)?)?;
    }
    Some(total)
}

/// A span of so many nanoseconds in the same words as [`parse_span`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanText(pub u64);

impl fmt::Display for SpanText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0;
        if left == 0 {
            return f.write_str("0s");
        }
        let mut by_size = UNITS;
        by_size.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
        for (unit, ns) in by_size {
            if left >= ns {
                write!(f, "{}{unit}", left / ns)?;
                left %= ns;
            }
        }
        Ok(())
    }
}

/// A time as RFC 3339 in UTC, with as many decimals as it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeText(pub TimeNs);

impl fmt::Display for TimeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_nanosecond(i128::from(self.0.get())) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "{} ns after 1970", self.0.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_read_back_as_written() {
        for text in [
            "latest",
            "lsn:42",
            "2026-11-23T09:00:00Z",
            "2026-11-23T09:00:00.001Z",
            "-10m",
            "-1h30m",
            "-2d",
            "-1ms",
            "-90s",
            "bookmark:before upgrade",
        ] {
            let spec: PointSpec = text.parse().unwrap();
            let again: PointSpec = spec.to_string().parse().unwrap();
            assert_eq!(spec, again, "{text}");
        }
        assert_eq!("2026-11-23T10:00:00+01:00".parse::<PointSpec>().unwrap().to_string(), "2026-11-23T09:00:00Z");
    }

    #[test]
    fn text_that_names_no_point_is_refused_with_the_reason() {
        for text in [
            "",
            "lsn:",
            "lsn:x",
            "-",
            "-10",
            "-m",
            "bookmark:",
            "yesterday",
            "1969-12-31T23:59:59Z",
            "-99999999999999d",
        ] {
            let error = text.parse::<PointSpec>().unwrap_err();
            assert_eq!(error.kind(), tidemark_format::ErrorKind::FixRequest, "{text}");
        }
    }
}
