//! What the appliance's requests cost, from its statistics.

use super::series::Measured;
use crate::cost::reading;
use serde::Serialize;
use std::time::Duration;
use tidemark_prices::{Money, Requests, Sheet, Usage};

/// What the requests of a period cost, in billionths of the currency's unit.
#[derive(Debug, Serialize)]
pub(super) struct Spent {
    sheet: String,
    currency: String,
    spent_nanos: u64,
    /// In a month that goes on like that; null if less than a second was measured.
    month_nanos: Option<u64>,
}

impl Spent {
    /// By the rows of `domain_minute`.
    pub(super) fn of(domain: &Measured, sheet: &Sheet) -> Self {
        let count = |column: &str| domain.sum(column) as u64;
        let requests = Requests {
            put: count("put_requests"),
            get: count("get_requests"),
            list: count("list_requests"),
            delete: count("delete_requests"),
            head: count("head_requests"),
        };
        let spent = sheet.usage(&Usage { requests, ..reading(count("get_bytes"), 0) });
        Self {
            sheet: sheet.name().to_owned(),
            currency: sheet.currency().to_owned(),
            spent_nanos: spent.nanos(),
            month_nanos: spent.per_month(covered(domain)).map(Money::nanos),
        }
    }

    /// For people; `None` where requests cost nothing.
    pub(super) fn told(&self) -> Option<String> {
        let told = |nanos| format!("{} {}", self.currency, Money::of_nanos(nanos));
        let month = self.month_nanos.map_or(String::new(), |nanos| format!(", {} a month like this", told(nanos)));
        (self.spent_nanos > 0)
            .then(|| format!("requests cost {}{month}, by the prices of {}", told(self.spent_nanos), self.sheet))
    }
}

/// How long was measured.
pub(super) fn covered(domain: &Measured) -> Duration {
    Duration::try_from_secs_f64(domain.sum("period_s")).unwrap_or_default()
}
