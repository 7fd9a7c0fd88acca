//! Sums of money.

use serde::de::{Deserializer, Error, Visitor};
use std::fmt;
use std::time::Duration;

const NANOS: u128 = 1_000_000_000;
/// Digits behind the point that an amount can have.
const DIGITS: usize = 9;
/// A twelfth of the mean year, in milliseconds.
const MONTH_MS: u128 = 2_629_746_000;

/// A month, as bills mean it over the years: a twelfth of 365.2425 days.
pub const MONTH: Duration = Duration::from_millis(MONTH_MS as u64);

/// An amount of money: billionths of a currency's unit. Sums that do not fit stay at the largest one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(u64);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many billionths.
    pub const fn of_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Billionths.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Both.
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// So many times this for each `of`; what is left over counts as a whole billionth.
    pub(crate) fn times(self, count: u128, of: u128) -> Self {
        let nanos = u128::from(self.0).saturating_mul(count).div_ceil(of);
        Self(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// What a month costs if it goes on as it did over a time. Unknown if that is less than a second.
    pub fn per_month(self, over: Duration) -> Option<Self> {
        (over >= Duration::from_secs(1)).then(|| self.times(MONTH_MS, over.as_millis()))
    }
}

impl fmt::Display for Money {
    /// Two digits behind the point; of less than one unit, two that are not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = u128::from(self.0);
        let digits = match self.0 {
            0 => return f.write_str("0"),
            nanos if u128::from(nanos) >= NANOS => 2,
            nanos => (DIGITS - nanos.ilog10() as usize + 1).clamp(2, DIGITS),
        };
        let step = 10_u128.pow((DIGITS - digits) as u32);
        let rounded = (nanos + step / 2) / step * step;
        let behind = format!("{:09}", rounded % NANOS);
        write!(f, "{}.{}", rounded / NANOS, &behind[..digits])
    }
}

/// A price as it stands in a file: a number with at most nine digits behind the point, taken as it is written.
pub(crate) struct Price(pub(crate) Money);

impl Price {
    /// A decimal number, such as `0.0004`.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (whole, behind) = text.split_once('.').unwrap_or((text, ""));
        if behind.len() > DIGITS {
            return Err("a price has at most nine digits behind the point");
        }
        let digits = format!("{whole}{behind:0<DIGITS$}");
        let all_digits = !whole.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let nanos = all_digits.then(|| digits.parse().ok()).flatten();
        nanos.map(|nanos| Self(Money(nanos))).ok_or("a price is a number from 0 to 18446744073")
    }
}

impl<'de> serde::Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Price;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a price such as 0.005")
            }
            fn visit_i64<E: Error>(self, whole: i64) -> Result<Price, E> {
                Price::parse(&whole.to_string()).map_err(E::custom)
            }
            // The shortest decimal that reads as this number is what was written, up to fifteen digits.
            fn visit_f64<E: Error>(self, number: f64) -> Result<Price, E> {
                Price::parse(&number.to_string()).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well_from_billionths_to_billions() {
        for (nanos, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (400, "0.00000040"),
            (12_345, "0.000012"),
            (23_000_000, "0.023"),
            (123_456_789, "0.12"),
            (999_999_999, "1.00"),
            (1_005_000_000, "1.01"),
            (12_340_000_000, "12.34"),
            (u64::MAX, "18446744073.71"),
        ] {
            assert_eq!(Money(nanos).to_string(), text, "{nanos}");
        }
    }

    #[test]
    fn prices_are_what_is_written() {
        for (text, nanos) in [
            ("0", 0),
            ("0.0004", 400_000),
            ("0.016106127", 16_106_127),
            ("18446744073", 18_446_744_073 * 1_000_000_000),
        ] {
            assert_eq!(Price::parse(text).map(|price| price.0.nanos()), Ok(nanos), "{text}");
        }
        for text in ["", ".5", "-1", "1e3", "NaN", "inf", "0.0000000001", "18446744074", "1.2.3", "+1"] {
            assert!(Price::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_month_goes_on_as_it_began_and_nothing_overflows() {
        assert_eq!(Money(1000).per_month(MONTH), Some(Money(1000)));
        assert_eq!(Money(1000).per_month(MONTH * 2), Some(Money(500)));
        assert_eq!(Money(1).per_month(Duration::from_millis(999)), None);
        assert_eq!(Money(u64::MAX).per_month(Duration::from_secs(1)), Some(Money(u64::MAX)));
        assert_eq!(Money(3).times(1, 1000), Money(1), "nothing is cheaper than it is");
        assert_eq!(Money(u64::MAX).plus(Money(1)), Money(u64::MAX));
    }
}
