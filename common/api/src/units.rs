//! Sizes, spans and rates as people write them: `64MiB`, `5s`, `50MiB/s`.
//!
//! Sizes count in powers of 1024 and say so (`64MiB`, or `64M` for short); rates of lines count in bits and powers of 1000
//! (`400Mbit/s`). What could be read either way (`64MB`) is refused.

use crate::limit::Limit;
use std::time::Duration;

/// A text that is no size, span or rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAUnit {
    /// Something else.
    #[error("{text:?} is not a {what}")]
    Other {
        /// The text, cut short.
        text: String,
        /// What was wanted, with examples.
        what: &'static str,
    },
    /// A unit that some read as powers of 1000 and others as powers of 1024.
    #[error("{text:?} can be read in two ways: write {instead} for powers of 1024")]
    Ambiguous {
        /// The text, cut short.
        text: String,
        /// The unit to use.
        instead: String,
    },
    /// More than 64 bits hold.
    #[error("{text} is more than can be counted")]
    TooMuch {
        /// The text, cut short.
        text: String,
    },
}

/// Powers of 1024, by letter.
const POWERS: [(char, u32); 5] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];

const SIZE: &str = "size such as 4096, 64KiB or 10GiB";
const RATE: &str = "rate such as 50MiB/s, 400Mbit/s or unlimited";
const SPAN: &str = "span of time such as 200ms, 5s, 10m or 1h";

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

/// The number in front, and what is behind it.
fn split<'a>(text: &'a str, what: &'static str) -> Result<(u64, &'a str), NotAUnit> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(NotAUnit::Other { text: shorten(text), what });
    }
    let number = digits.parse().map_err(|_| NotAUnit::TooMuch { text: shorten(text) })?;
    Ok((number, unit.trim_start_matches(' ')))
}

fn scaled(number: u64, by: u64, text: &str) -> Result<u64, NotAUnit> {
    number.checked_mul(by).ok_or_else(|| NotAUnit::TooMuch { text: shorten(text) })
}

/// A size in bytes.
pub fn parse_size(text: &str) -> Result<u64, NotAUnit> {
    parse_bytes(text, text, SIZE)
}

fn parse_bytes(number: &str, text: &str, what: &'static str) -> Result<u64, NotAUnit> {
    let (number, unit) = split(number, what)?;
    let mut letters = unit.chars();
    let letter = letters.next().map(|letter| letter.to_ascii_uppercase());
    let power = POWERS.iter().find(|(name, _)| Some(*name) == letter);
    match (power, letters.as_str()) {
        (None, "") if matches!(letter, None | Some('B')) => Ok(number),
        (Some((_, shift)), "" | "iB" | "ib") => scaled(number, 1 << shift, text),
        (Some((name, _)), "B" | "b") => {
            Err(NotAUnit::Ambiguous { text: shorten(text), instead: format!("{number}{name}iB") })
        }
        _ => Err(NotAUnit::Other { text: shorten(text), what }),
    }
}

/// A size in bytes, or `unlimited`.
pub fn parse_size_limit(text: &str) -> Result<Limit, NotAUnit> {
    limited(text, "size such as 64KiB, 10GiB or unlimited, above 0", parse_size)
}

/// A rate in bytes a second, or `unlimited`.
pub fn parse_rate(text: &str) -> Result<Limit, NotAUnit> {
    let bad = || NotAUnit::Other { text: shorten(text), what: RATE };
    limited(text, RATE, |text| {
        let amount = text.strip_suffix("/s").ok_or_else(bad)?;
        let Some(bits) = amount.strip_suffix("bit") else { return parse_bytes(amount, text, RATE) };
        let (number, unit) = split(bits, RATE)?;
        let thousands = match unit {
            "" => 1,
            "k" | "K" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            _ => return Err(bad()),
        };
        Ok(scaled(number, thousands, text)?.div_ceil(8))
    })
}

fn limited(
    text: &str,
    what: &'static str,
    bounded: impl FnOnce(&str) -> Result<u64, NotAUnit>,
) -> Result<Limit, NotAUnit> {
    if text == "unlimited" {
        return Ok(Limit::Unlimited);
    }
    Limit::at_most(bounded(text)?).map_err(|_| NotAUnit::Other { text: shorten(text), what })
}

/// A span of time.
pub fn parse_span(text: &str) -> Result<Duration, NotAUnit> {
    let (number, unit) = split(text, SPAN)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(NotAUnit::Other { text: shorten(text), what: SPAN }),
    };
    Ok(Duration::from_millis(scaled(number, unit_ms, text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_rates_and_spans_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("7B", 7),
            ("64K", 65_536),
            ("64KiB", 65_536),
            ("1 GiB", 1 << 30),
            ("2P", 2 << 50),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, bytes) in
            [("1/s", 1), ("50MiB/s", 50 << 20), ("400Mbit/s", 50_000_000), ("9bit/s", 2), ("8kbit/s", 1000)]
        {
            assert_eq!(parse_rate(text).unwrap().get(), Some(bytes), "{text}");
        }
        for (text, ms) in
            [("0s", 0), ("200ms", 200), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_span(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse_rate("unlimited"), Ok(Limit::Unlimited));
        assert_eq!(parse_size_limit("unlimited"), Ok(Limit::Unlimited));
        assert_eq!(parse_size_limit("8GiB").unwrap().get(), Some(8 << 30));
    }

    #[test]
    fn what_is_none_says_what_would_be() {
        let size = |text: &str| parse_size(text).unwrap_err().to_string();
        assert_eq!(size("64MB"), "\"64MB\" can be read in two ways: write 64MiB for powers of 1024");
        assert_eq!(size("big"), "\"big\" is not a size such as 4096, 64KiB or 10GiB");
        assert_eq!(size("99999999999G"), "99999999999G is more than can be counted");
        for text in ["", "M", "1.5G", "-1", "64X", "64MiBs", "99999999999999999999"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for text in ["", "50MiB", "50/m", "0/s", "0bit/s", "5MB/s", "1Tbit/s", "fast"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        for text in ["", "5", "s", "5 weeks", "1h30m", "300000000000d"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }
}
