//! `tidemark bisect`: the first point at which something is wrong.

mod search;

use crate::args::BucketArgs;
use crate::commands::points::PointReport;
use crate::context::{interrupted, open_bucket, open_domain, resolve};
use crate::failure::{Outcome, Refused};
use crate::ui::{Bar, Ui};
use anyhow::Context;
use clap::Args;
use search::{NotOnce, Search, Verdict};
use serde::Serialize;
use std::ffi::OsString;
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tidemark_env::Env;
use tidemark_format::Lsn;
use tidemark_fuse::{MountOptions, ServeOptions, mount};
use tidemark_reader::{Domain, Point, PointSpec, ReaderOptions, Timeline};

/// What CMD finds the point's directory under.
const POINT_VARIABLE: &str = "TIDEMARK_POINT";
/// "Cannot be told", as for `git bisect run`.
const UNCLEAR: i32 = 125;

/// Find the first point at which something is wrong
///
/// Mounts points between --from, which is good, and --to, which is bad, and runs CMD on each until the first bad one is found: among
/// 100,000 writes in 19 runs. CMD is told the point's directory, with VM/DISK.raw in it, in place of each {} and as TIDEMARK_POINT.
/// It exits with 0 if the point is good, 125 if it cannot tell, and any other code up to 124 if it is bad. What it prints goes to stderr.
#[derive(Debug, Args)]
pub(crate) struct BisectArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// A point that is good
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    from: PointSpec,
    /// A point that is bad
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    to: PointSpec,
    /// Run CMD on so many points at once: fewer rounds, more runs
    #[arg(long, short, value_name = "N", default_value = "1")]
    jobs: NonZeroU16,
    /// Give up if a run takes longer
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// The command
    #[arg(value_name = "CMD", required = true, last = true)]
    command: Vec<OsString>,
}

#[derive(Debug, Serialize)]
struct Found {
    first_bad: PointReport,
    last_good: PointReport,
    /// Points between the two that could not be told.
    unclear: u64,
    checks: u64,
}

/// The points to choose from, by number: those that are kept one by one, and every LSN behind.
#[derive(Debug)]
struct Points {
    kept: Vec<Lsn>,
    dense_from: u64,
    count: u64,
}

impl Points {
    /// Those from `from` to `to` that are offered.
    fn between(timeline: &Timeline, from: Point, to: Point) -> Self {
        let horizon = timeline.horizon().lsn;
        let within = |lsn: &Lsn| *lsn >= from.lsn && *lsn <= to.lsn && *lsn < horizon;
        let kept: Vec<Lsn> = timeline.kept().iter().map(|point| point.lsn).filter(within).collect();
        let dense_from = from.lsn.max(horizon).get();
        let dense = (to.lsn.get() + 1).saturating_sub(dense_from);
        Self { count: kept.len() as u64 + dense, kept, dense_from }
    }

    fn lsn(&self, number: u64) -> Lsn {
        let kept = usize::try_from(number).ok().and_then(|number| self.kept.get(number));
        kept.copied().unwrap_or_else(|| Lsn::new(self.dense_from + (number - self.kept.len() as u64)))
    }
}

pub(crate) async fn run(args: BisectArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    // Listening from before the mount is there, so that no signal leaves it behind.
    let mut stop = std::pin::pin!(interrupted());
    let domain = tokio::select! {
        biased;
        () = &mut stop => return Ok(Outcome::Interrupted),
        domain = async { open_domain(&open_bucket(&args.bucket)?, ReaderOptions::default()).await } => domain?,
    };
    let timeline = domain.timeline();
    let (from, to) = (resolve(&domain, &args.from).await?, resolve(&domain, &args.to).await?);
    if from.lsn >= to.lsn {
        let refused = Refused::usage(format!("--from is {from}, which is not before --to, {to}"));
        return Err(refused.hint("the good point comes first").into());
    }
    let points = Points::between(&timeline, from, to);
    let dir = tempfile::Builder::new().prefix("tidemark-bisect-").tempdir().context("make a directory to mount at")?;
    let mounted = {
        let (domain, dir) = (domain.clone(), dir.path().to_owned());
        let serve = ServeOptions { source_name: format!("tidemark:{}", timeline.name()), ..Default::default() };
        let options = MountOptions { serve, ..Default::default() };
        tokio::task::spawn_blocking(move || mount(domain, &dir, &options, &Env::system())).await.context("mount")??
    };
    let mounted = Arc::new(mounted);
    let judge = Judge { dir: dir.path(), command: &args.command, timeout: Duration::from_secs(args.timeout.max(1)) };
    let ended = tokio::select! {
        biased;
        () = &mut stop => Ok(None),
        found = find(&points, &judge, u64::from(args.jobs.get()), ui) => found.map(Some),
    };
    tokio::task::spawn_blocking(move || mounted.unmount()).await.context("unmount")??;
    let Some((search, checks)) = ended? else { return Ok(Outcome::Interrupted) };
    let (good, bad) = search.known();
    let found = Found {
        first_bad: point(&domain, points.lsn(bad)).await?,
        last_good: point(&domain, points.lsn(good)).await?,
        unclear: bad - good - 1,
        checks,
    };
    ui.answer(&found, |found| {
        let unclear =
            if found.unclear == 0 { String::new() } else { format!(", and {} unclear before it", found.unclear) };
        format!(
            "first bad point: lsn {} at {}{unclear} ({} checks)\nlast good point: lsn {} at {}",
            found.first_bad.lsn, found.first_bad.time, found.checks, found.last_good.lsn, found.last_good.time
        )
    })?;
    Ok(Outcome::Done)
}

async fn point(domain: &Domain, lsn: Lsn) -> anyhow::Result<PointReport> {
    Ok(resolve(domain, &PointSpec::Lsn(lsn)).await?.into())
}

/// Both ends first: an answer that rests on a wrong assumption is worse than none.
async fn find(points: &Points, judge: &Judge<'_>, jobs: u64, ui: &Ui) -> anyhow::Result<(Search, u64)> {
    let last = points.count - 1;
    let rounds = u64::from((points.count.max(2) - 1).ilog(jobs + 1)) + 2;
    let bar = ui.count_bar("round", rounds);
    let mut checks = 0;
    for (number, wanted) in [(0, Verdict::Good), (last, Verdict::Bad)] {
        let found = judge.all(points, &[number], &bar).await?;
        checks += 1;
        if found[0].1 != wanted {
            let name = |verdict| match verdict {
                Verdict::Good => "good",
                Verdict::Bad => "bad",
                Verdict::Unclear => "unclear",
            };
            let what = format!("lsn {} is {}, not {}", points.lsn(number), name(found[0].1), name(wanted));
            let hint = "--from names a good point and --to a bad one; CMD exits with 0 on good ones, 1 on bad ones";
            return Err(Refused::new(what).hint(hint).into());
        }
    }
    let mut search = Search::new(0, last);
    loop {
        let next = search.next(jobs);
        if next.is_empty() {
            return Ok((search, checks));
        }
        bar.add(1);
        let found = judge.all(points, &next, &bar).await?;
        checks += found.len() as u64;
        search.take(&found).map_err(|NotOnce { bad, good }| {
            let what = format!("lsn {} is bad, and lsn {} behind it is good", points.lsn(bad), points.lsn(good));
            Refused::new(what).hint("it went wrong more than once: bisect between points with one change")
        })?;
        let (good, bad) = search.known();
        ui.say(format_args!("between lsn {} and lsn {}", points.lsn(good), points.lsn(bad)));
    }
}

/// Runs the command on points.
struct Judge<'a> {
    dir: &'a Path,
    command: &'a [OsString],
    timeout: Duration,
}

impl Judge<'_> {
    /// Runs it on all of these points at once.
    async fn all(&self, points: &Points, numbers: &[u64], bar: &Bar) -> anyhow::Result<Vec<(u64, Verdict)>> {
        let one = |number: u64| async move { anyhow::Ok((number, self.one(points.lsn(number)).await?)) };
        bar.say(numbers.iter().map(|number| format!("lsn {}", points.lsn(*number))).collect::<Vec<_>>().join(", "));
        futures::future::try_join_all(numbers.iter().copied().map(one)).await
    }

    async fn one(&self, lsn: Lsn) -> anyhow::Result<Verdict> {
        let point: PathBuf = self.dir.join("lsn").join(lsn.to_string());
        let said = || anyhow::Ok(Stdio::from(std::io::stderr().as_fd().try_clone_to_owned()?));
        let words: Vec<OsString> = self.command.iter().map(|word| filled_in(word, &point)).collect();
        let program = words[0].to_string_lossy().into_owned();
        let mut child = tokio::process::Command::new(&words[0])
            .args(&words[1..])
            .env(POINT_VARIABLE, &point)
            .stdin(Stdio::null())
            .stdout(said()?)
            .stderr(said()?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("run {program}"))?;
        let ended = tokio::time::timeout(self.timeout, child.wait()).await;
        let Ok(status) = ended else {
            let what = format!("{program} did not end within {} s at lsn {lsn}", self.timeout.as_secs());
            return Err(Refused::new(what).hint("give it more with --timeout").into());
        };
        match status.with_context(|| format!("run {program}"))?.code() {
            Some(0) => Ok(Verdict::Good),
            Some(UNCLEAR) => Ok(Verdict::Unclear),
            Some(1..UNCLEAR) => Ok(Verdict::Bad),
            Some(code) => Err(gave_up(&program, &format!("exited with {code}"), lsn)),
            None => Err(gave_up(&program, "was ended by a signal", lsn)),
        }
    }
}

fn gave_up(program: &str, how: &str, lsn: Lsn) -> anyhow::Error {
    let what = format!("{program} {how} at lsn {lsn}: nothing follows from that");
    Refused::new(what)
        .hint("0 is good, 1 to 124 are bad, 125 is unclear; shells exit with 127 if there is no such command")
        .into()
}

/// A word with the point in place of each `{}`.
fn filled_in(word: &OsString, point: &Path) -> OsString {
    match word.to_str() {
        Some(text) if text.contains("{}") => text.replace("{}", &point.to_string_lossy()).into(),
        _ => word.clone(),
    }
}
