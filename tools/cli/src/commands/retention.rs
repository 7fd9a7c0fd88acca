//! `tidemark retention`: how long points stay.

use crate::args::BucketArgs;
use crate::context::{open_bucket, open_domain, resolve};
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fmt::Write;
use tidemark_bucket::Bucket;
use tidemark_env::Env;
use tidemark_format::retention::RUNG_MAX;
use tidemark_format::{Hold, Mark, Policy, Retention, TimeNs};
use tidemark_gc::{RetentionPlan, retention_plan, wish};
use tidemark_reader::{Point, PointSpec, ReaderOptions, SpanText, TimeText, parse_span};

/// Choose how long a domain's points stay
#[derive(Debug, Subcommand)]
pub(crate) enum RetentionCommand {
    /// Show what is wished, what is kept, and whether the promise is
    Show(ShowArgs),
    /// Replace the policy
    ///
    /// Takes effect with the next `tidemark gc run`. Points that went do not come back when more is wished. Without a
    /// policy every point stays.
    Set(SetArgs),
    /// Keep one point, whatever the policy says
    Hold(HoldArgs),
    /// Leave a point that was held to the policy
    Release(ReleaseArgs),
}

/// Show the policy and its effect
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    bucket: BucketArgs,
}

/// Replace the policy
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// Keep every point of so long, such as 7d or 36h; `all` for every point for ever
    #[arg(long, value_name = "SPAN", value_parser = window)]
    window: Window,
    /// Keep bookmarks for so long
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "0s")]
    bookmarks: u64,
    /// Before the window, keep the last point of each of N hours
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=i64::from(RUNG_MAX)))]
    hourly: u32,
    /// The same of N days
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=i64::from(RUNG_MAX)))]
    daily: u32,
    /// The same of N weeks
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=i64::from(RUNG_MAX)))]
    weekly: u32,
    /// The same of N months
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=i64::from(RUNG_MAX)))]
    monthly: u32,
}

/// Keep one point
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// The point
    #[arg(long, value_name = "POINT")]
    at: PointSpec,
    /// Keep it for so long from now on; without it, until it is released
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    span: Option<u64>,
}

/// Leave a held point to the policy
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// The point
    #[arg(long, value_name = "POINT")]
    at: PointSpec,
}

#[derive(Clone, Copy, Debug)]
enum Window {
    All,
    Span(u64),
}

fn span(text: &str) -> Result<u64, String> {
    parse_span(text).ok_or_else(|| "a span is like 90s, 10m, 1h30m or 2d".to_owned())
}

fn window(text: &str) -> Result<Window, String> {
    if text == "all" { Ok(Window::All) } else { span(text).map(Window::Span) }
}

#[derive(Debug, Serialize)]
struct Report {
    location: String,
    policy: Option<PolicyReport>,
    holds: Vec<HoldReport>,
    /// What the index offers; absent without one.
    retained: Option<RetainedReport>,
}

#[derive(Debug, Serialize)]
struct PolicyReport {
    window: String,
    bookmarks: String,
    hourly: u32,
    daily: u32,
    weekly: u32,
    monthly: u32,
}

#[derive(Debug, Serialize)]
struct HoldReport {
    lsn: u64,
    time: String,
    until: Option<String>,
}

#[derive(Debug, Serialize)]
struct RetainedReport {
    horizon_lsn: u64,
    horizon_time: String,
    kept: usize,
    achieved_window: String,
    promise_kept: bool,
}

impl Report {
    fn of(location: String, wish: &Retention, plan: Option<&RetentionPlan>, now: TimeNs) -> Self {
        let policy = |policy: Policy| PolicyReport {
            window: SpanText(policy.window_ns).to_string(),
            bookmarks: SpanText(policy.bookmarks_ns).to_string(),
            hourly: policy.hourly,
            daily: policy.daily,
            weekly: policy.weekly,
            monthly: policy.monthly,
        };
        let hold = |hold: &Hold| HoldReport {
            lsn: hold.point.lsn.get(),
            time: TimeText(hold.point.time).to_string(),
            until: (hold.until < FOR_EVER).then(|| TimeText(hold.until).to_string()),
        };
        let retained = |plan: &RetentionPlan| RetainedReport {
            horizon_lsn: plan.before.horizon.lsn.get(),
            horizon_time: TimeText(plan.before.horizon.time).to_string(),
            kept: plan.before.kept.len(),
            achieved_window: SpanText(plan.window_ns(now) / SECOND_NS * SECOND_NS).to_string(),
            promise_kept: plan.keeps_promise(now),
        };
        Self {
            location,
            policy: wish.policy.map(policy),
            holds: wish.holds.iter().map(hold).collect(),
            retained: plan.map(retained),
        }
    }
}

const FOR_EVER: TimeNs = TimeNs::new(u64::MAX);
const SECOND_NS: u64 = 1_000_000_000;

pub(crate) async fn run(command: RetentionCommand, ui: &Ui) -> anyhow::Result<Outcome> {
    let env = Env::system();
    match command {
        RetentionCommand::Show(args) => {
            let bucket = open_bucket(&args.bucket)?;
            show(&bucket, &wish(&bucket.read_only()).await?, &env, ui).await
        }
        RetentionCommand::Set(args) => {
            let policy = match args.window {
                Window::All => None,
                Window::Span(window_ns) => Some(Policy {
                    window_ns,
                    bookmarks_ns: args.bookmarks,
                    hourly: args.hourly,
                    daily: args.daily,
                    weekly: args.weekly,
                    monthly: args.monthly,
                }),
            };
            change(&args.bucket, &env, ui, async |wish, _| Ok(Retention { policy, ..wish })).await
        }
        RetentionCommand::Hold(args) => {
            let until = args.span.map_or(FOR_EVER, |span| TimeNs::new(env.clock.wall().get().saturating_add(span)));
            change(&args.bucket, &env, ui, async |mut wish, bucket| {
                let point = point(bucket, &args.at).await?;
                let hold = Hold { point: Mark { lsn: point.lsn, time: point.time }, until };
                match wish.holds.binary_search_by_key(&point.lsn, |hold| hold.point.lsn) {
                    Ok(at) => wish.holds[at] = hold,
                    Err(at) => wish.holds.insert(at, hold),
                }
                Ok(wish)
            })
            .await
        }
        RetentionCommand::Release(args) => {
            change(&args.bucket, &env, ui, async |mut wish, bucket| {
                let point = point(bucket, &args.at).await?;
                match wish.holds.binary_search_by_key(&point.lsn, |hold| hold.point.lsn) {
                    Ok(at) => drop(wish.holds.remove(at)),
                    Err(_) => return Err(Refused::new(format!("nobody holds lsn {}", point.lsn)).into()),
                }
                Ok(wish)
            })
            .await
        }
    }
}

/// The point that a person meant.
async fn point(bucket: &Bucket, at: &PointSpec) -> anyhow::Result<Point> {
    resolve(&open_domain(bucket, ReaderOptions::default()).await?, at).await
}

async fn change(
    args: &BucketArgs,
    env: &Env,
    ui: &Ui,
    make: impl AsyncFnOnce(Retention, &Bucket) -> anyhow::Result<Retention>,
) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(args)?;
    let wish = make(wish(&bucket.read_only()).await?, &bucket).await?;
    bucket.appender().put_retention(wish.encode()?).await?;
    show(&bucket, &wish, env, ui).await
}

async fn show(bucket: &Bucket, wish: &Retention, env: &Env, ui: &Ui) -> anyhow::Result<Outcome> {
    let plan = retention_plan(&bucket.read_only(), env).await?;
    let report = Report::of(bucket.location(), wish, plan.as_ref(), env.clock.wall());
    if let (Some(RetainedReport { promise_kept: false, achieved_window, .. }), Some(policy)) =
        (&report.retained, &report.policy)
    {
        ui.warn(format!("the window is {achieved_window}, not yet the {} that are wished", policy.window));
    }
    ui.answer(&report, in_text)?;
    Ok(Outcome::Done)
}

fn in_text(report: &Report) -> String {
    const INFALLIBLE: &str = "writing to a String cannot fail";
    let mut out = match &report.policy {
        None => "policy   none: every point stays\n".to_owned(),
        Some(PolicyReport { window, bookmarks, hourly, daily, weekly, monthly }) => format!(
            "policy   all of {window}, bookmarks {bookmarks}; {hourly} hourly, {daily} daily, {weekly} weekly, {monthly} monthly\n"
        ),
    };
    for HoldReport { lsn, time, until } in &report.holds {
        let until = until.as_deref().unwrap_or("it is released");
        writeln!(out, "hold     lsn:{lsn} at {time}, until {until}").expect(INFALLIBLE);
    }
    match &report.retained {
        None => writeln!(out, "index    none: every point is offered").expect(INFALLIBLE),
        Some(RetainedReport { horizon_lsn, horizon_time, kept, achieved_window, .. }) => writeln!(
            out,
            "offered  all from lsn:{horizon_lsn} at {horizon_time} on ({achieved_window}), and {kept} points before it"
        )
        .expect(INFALLIBLE),
    }
    out
}
