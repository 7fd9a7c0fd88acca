//! What an index costs: bytes of a version, bytes written over a version's life, and how fast runs are built and merged.

use crate::history;
use crate::report::{Goal, Report};
use anyhow::{Context, Result};
use std::path::PathBuf;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl, Op};
use tidemark_env::{Clock, Env};
use tidemark_format::KeyFamily;
use tidemark_gc::{From, Maintainer, MaintenanceOptions};

/// What is measured.
pub(crate) struct Options {
    /// Writes of the domain.
    pub(crate) writes: u64,
    /// Where to leave it; nowhere if not said.
    pub(crate) dir: Option<PathBuf>,
}

pub(crate) async fn run(options: &Options, env: &Env) -> Result<Report> {
    let clock: &dyn Clock = &*env.clock;
    let scratch = tempfile::Builder::new().prefix("tidemark-bench").tempdir()?;
    let dir = options.dir.clone().unwrap_or_else(|| scratch.path().to_owned());
    let bucket = Bucket::open(&BucketUrl::file(&dir), &BucketOptions::default())?;
    let started = clock.monotonic();
    let (first, last) = history::make(&bucket, options.writes, env).await.context("make a domain")?;
    let made = clock.monotonic().saturating_sub(started);
    let writes = (last.get() - first.get() + 1) as f64;

    let before = bucket.meter().snapshot();
    let (started, cpu) = (clock.monotonic(), cpu_seconds());
    let mut maintainer = Maintainer::open(bucket.appender(), MaintenanceOptions::default(), env.clone()).await?;
    let pass = maintainer.pass(From::NewestRoot, |_| {}).await.context("index the domain")?;
    let took = clock.monotonic().saturating_sub(started).as_secs_f64();
    let cpu = cpu_seconds() - cpu;
    let used = bucket.meter().snapshot().since(&before);
    let index = pass.index.context("there is no index")?;
    let runs: u64 = index.levels.iter().map(|level| level.runs).sum();
    let (bytes, rows) = index.levels.iter().fold((0, 0), |(b, r), level| (b + level.bytes, r + level.rows));

    let mut report = Report::default();
    report.figure("writes", writes, "");
    report.figure("making the log", made.as_secs_f64(), "s");
    report.figure("runs at the end", runs as f64, "");
    report.goal("bytes of a version in runs", bytes as f64 / rows as f64, "B", Goal::AtMost(9.0));
    report.goal("bytes written to the index for a write", pass.bytes as f64 / writes, "B", Goal::AtMost(30.0));
    let read = used.get(Op::Get, KeyFamily::Index).bytes as f64;
    report.figure("bytes read from the index for a write", read / writes, "B");
    let moved = (pass.rows + pass.merged_rows) as f64;
    report.figure("times that a version was written", moved / writes, "");
    report.figure("indexing", took, "s");
    report.figure("rows built and merged a second and core", moved / cpu / 1e6, "M/s");
    report.figure("rows built and merged a second", moved / took / 1e6, "M/s");
    report.figure("most memory of the process so far", memory_mib("VmHWM:")?, "MiB");
    Ok(report)
}

/// Processor time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: state is field 3, utime and stime are 14 and 15, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let hundredths = |at: usize| fields.get(at - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (hundredths(14) + hundredths(15)) / 100.0
}

/// A figure of /proc/self/status in MiB.
pub(crate) fn memory_mib(name: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
    let kib: f64 = line.split_whitespace().nth(1).with_context(|| format!("no number in {name}"))?.parse()?;
    Ok(kib / 1024.0)
}
