//! What the length of a history costs a reader: opening it at a random point and reading 4 KiB, and random reads, through the
//! index and at level R0.
//!
//! Each opening begins with nothing. How many requests wait for one another is measured: with a store that answers each request
//! after the same long time, a chain of n takes n times as long.

use crate::corpus::Random;
use crate::history::{DISK, WRITE_BYTES, offset_of};
use crate::index::memory_mib;
use crate::report::{Goal, Report, median};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::Duration;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl, Fault, Faults, MeterSnapshot, Op};
use tidemark_env::{Clock, Env};
use tidemark_format::{KeyFamily, Lsn};
use tidemark_reader::{Domain, IndexUse, ReaderOptions};

/// What is measured.
pub(crate) struct Options {
    /// Domains that `index --dir` left, the shortest first.
    pub(crate) dirs: Vec<PathBuf>,
    /// Points at which each is opened.
    pub(crate) points: u64,
    /// Random reads of each.
    pub(crate) reads: usize,
    /// Longer domains are not read at level R0.
    pub(crate) r0_writes_max: u64,
}

/// Time of one request where chains of them are counted: long against the work between them.
const CHAIN_LINK: Duration = Duration::from_millis(250);
/// Time of one request to a store nearby.
const NEARBY: Duration = Duration::from_millis(20);
/// LSNs of the first events: the disk, its zeros, its consistency.
const FIRST_LSN: u64 = 16;

/// An opening and the first 4 KiB.
struct First {
    seconds: f64,
    used: MeterSnapshot,
    domain: Domain,
}

pub(crate) async fn run(options: &Options, env: &Env) -> Result<Report> {
    let mut report = Report::default();
    let mut nearby = Vec::new();
    for dir in &options.dirs {
        nearby.push(indexed(dir, options, env, &mut report).await.with_context(|| dir.display().to_string())?);
    }
    if let [first, .., last] = &nearby[..] {
        report.goal("longest against shortest, 20 ms a request", last / first, "ratio", Goal::AtMost(1.5));
    }
    let caches = ReaderOptions::default();
    let caches = caches.cache_bytes_max
        + caches.frame_cache_bytes_max
        + caches.map_cache_bytes_max
        + caches.index_cache_bytes_max
        + caches.head_cache_bytes_max;
    let caches_mib = (caches >> 20) as f64;
    report.figure("caches as configured", caches_mib, "MiB");
    report.goal("most memory of the process", memory_mib("VmHWM:")?, "MiB", Goal::AtMost(256.0 + caches_mib));
    for dir in &options.dirs {
        at_r0(dir, options, env, &mut report).await.with_context(|| dir.display().to_string())?;
    }
    Ok(report)
}

/// Through the index. Returns the seconds to the first byte with a store nearby.
async fn indexed(dir: &PathBuf, options: &Options, env: &Env, report: &mut Report) -> Result<f64> {
    let bucket = Bucket::open(&BucketUrl::file(dir), &BucketOptions::default())?;
    let domain = Domain::open(bucket.read_only(), ReaderOptions::default(), env.clone()).await?;
    let last = domain.timeline().latest().lsn;
    drop(domain);
    let name = format!("{:.0e} writes", last.get() as f64);
    let mut random = Random(3);
    let (mut requests, mut megabytes, mut seconds, mut memory) = (vec![], vec![], vec![], vec![]);
    let (mut nearby, mut links) = (vec![], vec![]);
    for _ in 0..options.points {
        let at = Lsn::new(FIRST_LSN + random.below(last.get() - FIRST_LSN));
        let first = first_read(&bucket, at, IndexUse::IfThere, env).await?;
        requests.push(first.used.total(Op::Get).requests as f64);
        megabytes.push(first.used.total(Op::Get).bytes as f64 / 1e6);
        seconds.push(first.seconds * 1e3);
        memory.push(state_mib(&first.domain));
        let slow = |each| bucket.with_faults(Faults::seeded(1).on("", None, Fault::Slow(each), 1.0));
        nearby.push(first_read(&slow(NEARBY), at, IndexUse::IfThere, env).await?.seconds);
        let chain = first_read(&slow(CHAIN_LINK), at, IndexUse::IfThere, env).await?.seconds;
        links.push((chain / CHAIN_LINK.as_secs_f64()).floor());
    }
    let most = |of: &[f64]| of.iter().copied().fold(0.0, f64::max);
    report.figure(format!("{name}: requests to the first byte, median"), median(&requests), "");
    report.figure(format!("{name}: requests to the first byte, most"), most(&requests), "");
    report.goal(format!("{name}: of these one after the other, most"), most(&links), "", Goal::AtMost(8.0));
    report.figure(format!("{name}: read for the first byte"), median(&megabytes), "MB");
    report.figure(format!("{name}: time to the first byte, median"), median(&seconds), "ms");
    report.figure(format!("{name}: the same, 20 ms a request"), median(&nearby) * 1e3, "ms");
    report.figure(format!("{name}: state of the open domain"), most(&memory), "MiB");
    reads(&bucket, &name, "indexed", IndexUse::IfThere, options, env, report).await?;
    Ok(median(&nearby))
}

/// From the log alone.
async fn at_r0(dir: &PathBuf, options: &Options, env: &Env, report: &mut Report) -> Result<()> {
    let bucket = Bucket::open(&BucketUrl::file(dir), &BucketOptions::default())?;
    let domain = Domain::open(bucket.read_only(), ReaderOptions::default(), env.clone()).await?;
    let last = domain.timeline().latest().lsn;
    drop(domain);
    if last.get() > options.r0_writes_max {
        return Ok(());
    }
    let name = format!("{:.0e} writes", last.get() as f64);
    let first = first_read(&bucket, Lsn::new(last.get() / 2), IndexUse::Never, env).await?;
    report.figure(format!("{name}: R0 requests to the first byte"), first.used.total(Op::Get).requests as f64, "");
    report.figure(format!("{name}: R0 time to the first byte"), first.seconds * 1e3, "ms");
    report.figure(format!("{name}: R0 state of the open domain"), state_mib(&first.domain), "MiB");
    reads(&bucket, &name, "R0", IndexUse::Never, options, env, report).await
}

/// Opens the domain, and reads what the write at `at` wrote as of that point.
async fn first_read(bucket: &Bucket, at: Lsn, index: IndexUse, env: &Env) -> Result<First> {
    let clock: &dyn Clock = &*env.clock;
    let before = bucket.meter().snapshot();
    let started = clock.monotonic();
    let options = ReaderOptions { index, ..ReaderOptions::default() };
    let domain = Domain::open(bucket.read_only(), options, env.clone()).await?;
    let read = domain.disk(DISK, at).await?.read(offset_of(at), WRITE_BYTES as usize).await?;
    let seconds = clock.monotonic().saturating_sub(started).as_secs_f64();
    anyhow::ensure!(read.iter().all(|byte| *byte == b'A'), "lsn {at} reads as something else");
    let used = bucket.meter().snapshot().since(&before);
    Ok(First { seconds, used, domain })
}

/// Random reads at the newest point: cold ones, each of another place, and the same places again.
async fn reads(
    bucket: &Bucket,
    name: &str,
    how: &str,
    index: IndexUse,
    options: &Options,
    env: &Env,
    report: &mut Report,
) -> Result<()> {
    let clock: &dyn Clock = &*env.clock;
    let reader = ReaderOptions { index, ..ReaderOptions::default() };
    let domain = Domain::open(bucket.read_only(), reader, env.clone()).await?;
    let last = domain.timeline().latest().lsn;
    let image = domain.disk(DISK, last).await?;
    let mut random = Random(77);
    let places: Vec<u64> =
        (0..options.reads).map(|_| offset_of(Lsn::new(FIRST_LSN + random.below(last.get() - FIRST_LSN)))).collect();
    for pass in ["cold", "warm"] {
        let before = bucket.meter().snapshot();
        let mut micros = Vec::with_capacity(places.len());
        for offset in &places {
            let started = clock.monotonic();
            image.read(*offset, WRITE_BYTES as usize).await?;
            micros.push(clock.monotonic().saturating_sub(started).as_secs_f64() * 1e6);
        }
        let used = bucket.meter().snapshot().since(&before);
        let each = |family| used.get(Op::Get, family).requests as f64 / places.len() as f64;
        micros.sort_by(f64::total_cmp);
        report.figure(format!("{name}: {pass} 4 KiB read, {how}, median"), median(&micros), "us");
        report.figure(format!("{name}: {pass} 4 KiB read, {how}, 99 %"), micros[micros.len() * 99 / 100], "us");
        report.figure(format!("{name}: {pass} 4 KiB read, {how}, GETs of the index"), each(KeyFamily::Index), "");
        report.figure(format!("{name}: {pass} 4 KiB read, {how}, GETs of the log"), each(KeyFamily::Log), "");
    }
    Ok(())
}

fn state_mib(domain: &Domain) -> f64 {
    let memory = domain.memory();
    (memory.log.bytes + memory.base_bytes + memory.map_bytes + memory.index_bytes) as f64 / f64::from(1 << 20)
}
