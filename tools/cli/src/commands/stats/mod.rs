//! `tidemark stats`: what was measured, from the tables in the bucket.

mod chart;
mod export;
pub(super) mod feed;
mod page;
mod report;
mod series;
mod show;
mod spent;

pub(super) use series::{Measured, Scale};

use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use clap::{Args, Subcommand};
use std::ops::RangeInclusive;
use tidemark_format::{Day, TimeNs};
use tidemark_reader::{PointSpec, parse_span};

/// Look at what was measured
#[derive(Debug, Subcommand)]
pub(crate) enum StatsCommand {
    /// Copy tables out of the bucket, as Parquet, CSV or JSON
    ///
    /// Parquet files are the bucket's own, partitions and all; they hold whole days. CSV and JSON have one file for each table,
    /// each row once. docs/stats.md says what columns mean.
    Export(export::ExportArgs),
    /// Draw recovery point, throughput and log fill in the terminal
    ///
    /// The newest rows reach the bucket ten minutes after they were measured, unless the appliance is told otherwise.
    Show(show::ShowArgs),
    /// Write a page with plots that needs nothing but a browser
    Report(report::ReportArgs),
}

pub(crate) async fn run(command: StatsCommand, ui: &Ui) -> anyhow::Result<Outcome> {
    match command {
        StatsCommand::Export(args) => export::run(args, ui).await,
        StatsCommand::Show(args) => show::run(args, ui).await,
        StatsCommand::Report(args) => report::run(args, ui).await,
    }
}

/// Which time.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PeriodArgs {
    /// From here on: a time, a day (UTC), or so long ago, as -24h
    #[arg(long, value_name = "TIME", default_value = "-24h", allow_hyphen_values = true, value_parser = moment)]
    from: Moment,
    /// Up to here
    #[arg(long, value_name = "TIME", default_value = "-0s", allow_hyphen_values = true, value_parser = moment)]
    to: Moment,
}

/// A moment as it was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Ago(u64),
    At(TimeNs),
}

/// Some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) from: TimeNs,
    pub(super) to: TimeNs,
}

fn moment(text: &str) -> Result<Moment, String> {
    let bad = || format!("{text:?} is no time: 2026-11-25, 2026-11-25T09:00:00Z, or -24h");
    if let Some(ago) = text.strip_prefix('-') {
        return parse_span(ago).map(Moment::Ago).ok_or_else(bad);
    }
    if let Ok(day) = text.parse::<Day>() {
        return Ok(Moment::At(day.start()));
    }
    match text.parse() {
        Ok(PointSpec::Time(time)) => Ok(Moment::At(time)),
        _ => Err(bad()),
    }
}

impl PeriodArgs {
    /// The period, as of now.
    pub(super) fn at(self, now: TimeNs) -> anyhow::Result<Period> {
        let absolute = |moment| match moment {
            Moment::Ago(ago) => TimeNs::new(now.get().saturating_sub(ago)),
            Moment::At(time) => time,
        };
        let period = Period { from: absolute(self.from), to: absolute(self.to) };
        if period.from >= period.to {
            return Err(Refused::usage("--from is not before --to").into());
        }
        Ok(period)
    }
}

impl Period {
    /// The days that it touches.
    pub(super) fn days(self) -> RangeInclusive<Day> {
        Day::of(self.from)..=Day::of(self.to)
    }

    /// Whether a row's time, in microseconds, is in it.
    pub(super) fn has(self, micros: i64) -> bool {
        let ns = u64::try_from(micros).unwrap_or_default().saturating_mul(1000);
        (self.from.get()..=self.to.get()).contains(&ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spans_days_and_times() {
        assert_eq!(moment("-24h"), Ok(Moment::Ago(24 * 3600 * 1_000_000_000)));
        assert_eq!(moment("1970-01-02"), Ok(Moment::At(TimeNs::new(86_400_000_000_000))));
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(Moment::At(TimeNs::new(1_000_000_000))));
        for bad in ["yesterday", "lsn:5", "-", "24h", "2026-02-30"] {
            assert!(moment(bad).unwrap_err().contains("is no time"), "{bad}");
        }
    }

    #[test]
    fn a_period_knows_its_days_and_rows() {
        let args = PeriodArgs { from: Moment::Ago(10_000_000_000), to: Moment::Ago(0) };
        let period = args.at(TimeNs::new(86_400_000_000_000 + 5_000_000_000)).unwrap();
        assert_eq!(period.days(), Day::new(0)..=Day::new(1));
        assert!(period.has(86_400_000_000) && !period.has(86_390_000_000) && !period.has(-5));
        assert!(PeriodArgs { from: Moment::Ago(0), to: Moment::Ago(5) }.at(TimeNs::new(9)).is_err());
    }
}
