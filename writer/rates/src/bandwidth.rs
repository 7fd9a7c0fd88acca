//! Turns a rate into when the next object may be sent.
//!
//! A [`TokenBucket`] keeps to a limit: tokens are bytes, they come in at the limit's rate, at most `burst_bytes` of them are
//! saved up, and an object takes its size. One that is larger
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
//! Not here: which limit holds when (`tidemark_api::Settings::upload_limit_at`).

use crate::error::{Result, require};
use crate::rate::Rate;
use std::fmt;
use std::time::Duration;

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
