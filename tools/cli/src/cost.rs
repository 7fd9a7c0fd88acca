//! What a command will cost, said before it begins.
//!
//! A forecast comes from what is known anyhow: it asks the bucket for nothing. Not here: prices (`tidemark-prices`).

use crate::args::UrlText;
use crate::ui::Ui;
use clap::Args;
use indicatif::{BinaryBytes, HumanCount};
use tidemark_format::FRAME_PLAIN_BYTES_MAX;
use tidemark_prices::{Requests, Sheet, Usage};

/// Whose prices.
#[derive(Clone, Debug, Args)]
pub(crate) struct PriceArgs {
    /// What the store charges: the name of a price sheet, or a file such as those in docs/ops/prices [default: what the URL tells]
    #[arg(long, value_name = "FILE|NAME")]
    prices: Option<String>,
}

impl PriceArgs {
    /// The sheet for the bucket at `url`.
    pub(crate) fn sheet(&self, url: &UrlText) -> anyhow::Result<Sheet> {
        match &self.prices {
            Some(chosen) => Ok(Sheet::chosen(chosen)?),
            None => Ok(Sheet::likely(&url.anywhere()?)),
        }
    }
}

/// How well a forecast is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It will be close to this.
    About,
    /// It will not be more.
    AtMost,
}

/// Says what a command is going to ask of its bucket, and what that costs.
pub(crate) fn say_before(ui: &Ui, sheet: &Sheet, usage: &Usage, known: Known) {
    ui.say(forecast(sheet, usage, known));
}

/// Says what reading costs, where nobody knows beforehand how much will be read.
pub(crate) fn say_rates(ui: &Ui, sheet: &Sheet) {
    const MILLION: u64 = 1_000_000;
    let (gib, gets) = (sheet.read(1 << 30), sheet.requests(&reading(0, MILLION).requests));
    if gib.plus(gets).nanos() > 0 {
        let (gib, gets) = (sheet.told(gib), sheet.told(gets));
        ui.say(format_args!("a GiB read costs {gib}, a million requests {gets}, by the prices of {}", sheet.name()));
    }
}

fn forecast(sheet: &Sheet, usage: &Usage, known: Known) -> String {
    let words = match known {
        Known::About => "about",
        Known::AtMost => "at most",
    };
    let (requests, bytes) = (HumanCount(usage.requests.total()), BinaryBytes(usage.read_bytes));
    let asked = format!("this takes {words} {requests} requests that read {bytes}");
    let cost = sheet.usage(usage);
    if cost.nanos() == 0 {
        return asked;
    }
    format!("{asked}: {} by the prices of {}", sheet.told(cost), sheet.name())
}

/// Reading so many bytes in so many requests.
pub(crate) fn reading(bytes: u64, gets: u64) -> Usage {
    Usage { requests: Requests { get: gets, ..Requests::default() }, read_bytes: bytes }
}

/// Reading so many bytes of disks, wherever they lie: at worst each frame by itself, and not smaller than it was.
pub(crate) fn reading_data(bytes: u64) -> Usage {
    reading(bytes, bytes.div_ceil(u64::from(FRAME_PLAIN_BYTES_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_says_requests_bytes_and_money_where_it_costs_any() {
        let usage = reading(3 << 30, 50_000);
        let sheet = |name| Sheet::named(name).expect("it is part of the program");
        assert_eq!(
            forecast(&sheet("aws-s3-standard"), &usage, Known::AtMost),
            "this takes at most 50,000 requests that read 3.00 GiB: USD 0.29 by the prices of aws-s3-standard"
        );
        assert_eq!(
            forecast(&sheet("own"), &usage, Known::About),
            "this takes about 50,000 requests that read 3.00 GiB"
        );
    }
}
