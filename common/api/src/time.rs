//! Points of time on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use tidemark_format::TimeNs;

/// A time: RFC 3339 in UTC on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(TimeNs);

impl Time {
    /// The time in nanoseconds.
    pub const fn get(self) -> TimeNs {
        self.0
    }
}

impl From<TimeNs> for Time {
    fn from(time: TimeNs) -> Self {
        Self(time)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All of 64 bits lie within what RFC 3339 can say: they end in the year 2554.
        let time = Timestamp::from_nanosecond(i128::from(self.0.get())).unwrap_or(Timestamp::MAX);
        time.fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let time: Timestamp = String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)?;
        let ns = u64::try_from(time.as_nanosecond());
        ns.map(|ns| Self(TimeNs::new(ns))).map_err(|_| serde::de::Error::custom("a time before 1970 or after 2554"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_and_keep_their_nanoseconds() {
        for ns in [0, 1, 1_795_000_000_123_456_789, u64::MAX] {
            let time = Time::from(TimeNs::new(ns));
            let text = serde_json::to_string(&time).unwrap();
            assert!(text.ends_with("Z\""), "{text}");
            assert_eq!(serde_json::from_str::<Time>(&text).unwrap(), time);
        }
        assert!(serde_json::from_str::<Time>("\"1969-12-31T23:59:59Z\"").is_err());
        assert!(serde_json::from_str::<Time>("\"yesterday\"").is_err());
    }
}
