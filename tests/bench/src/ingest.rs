//! How fast the writer takes in a VM's data, beside what compression and hashing alone reach; and what it asks of a store.

use crate::corpus;
use crate::limit;
use crate::report::{Goal, Report, median};
use anyhow::{Result, ensure};
use bytes::Bytes;
use std::path::Path;
use tidemark_bucket::{Appender, Bucket, BucketOptions, BucketUrl, MeterSnapshot, Op};
use tidemark_env::{Clock, Env};
use tidemark_format::{DiskId, KeyFamily};
use tidemark_writer::{Content, DomainWriter, NewDisk, WriterOptions, create_domain};

/// Bytes of one write: the largest that Linux guests send by default is 1 MiB, most are smaller.
pub(crate) const WRITE_BYTES: usize = 256 << 10;
const GIB: usize = 1 << 30;

/// What is measured.
pub(crate) struct Options {
    /// Data of one round in MiB.
    pub(crate) data_mib: usize,
    /// Rounds of limit and writer, back to back.
    pub(crate) rounds: usize,
    /// Threads that compress, in both.
    pub(crate) threads: usize,
}

/// A new domain with one disk `vm/disk` that holds `disk`, written through the log.
pub(crate) async fn seed_bucket(dir: &Path, disk: &[u8]) -> Result<()> {
    let bucket = Bucket::open(&BucketUrl::file(dir), &BucketOptions::default())?.appender();
    let env = Env::system();
    create_domain(&bucket, "bench", &env).await?;
    write_all(&bucket, &Bytes::copy_from_slice(disk), 2, &env).await
}

/// Writes `data` from the start of a new disk on, and waits until all of it is durable.
pub(crate) async fn write_all(bucket: &Appender, data: &Bytes, threads: usize, env: &Env) -> Result<()> {
    let options = WriterOptions { compress_threads_max: threads, ..WriterOptions::default() };
    let writer = DomainWriter::open(bucket.clone(), options, env.clone()).await?;
    let disk = NewDisk { vm: "vm".into(), name: "disk".into(), size_bytes: data.len() as u64 };
    let (disk, _) = writer.submit_disk_add(&disk, Content::Blank, tidemark_writer::When::Now).await?;
    write_range(&writer, disk, data).await?;
    writer.close().await?;
    Ok(())
}

async fn write_range(writer: &DomainWriter, disk: DiskId, data: &Bytes) -> Result<()> {
    for at in (0..data.len()).step_by(WRITE_BYTES) {
        let write = data.slice(at..data.len().min(at + WRITE_BYTES));
        let _later = writer.submit_write(disk, at as u64, write).await?;
    }
    Ok(())
}

/// Ingest of compressible data into memory against the limit.
pub(crate) async fn run(options: &Options, env: &Env) -> Result<Report> {
    let clock: &dyn Clock = &*env.clock;
    let data = Bytes::from(corpus::system_files(options.data_mib << 20)?);
    let mib = data.len() as f64 / f64::from(1 << 20);
    let (mut limits, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut stored = 0;
    for _ in 0..options.rounds {
        let limit = limit::zstd_and_blake3(&data, options.threads, clock)?.as_secs_f64();
        let bucket = Bucket::memory();
        create_domain(&bucket.appender(), "bench", env).await?;
        let started = clock.monotonic();
        write_all(&bucket.appender(), &data, options.threads, env).await?;
        let took = clock.monotonic().saturating_sub(started).as_secs_f64();
        stored = bucket.meter().snapshot().get(Op::Put, KeyFamily::Log).bytes;
        limits.push(mib / limit);
        ours.push(mib / took);
        ratios.push(limit / took);
    }
    let mut report = Report::default();
    report.figure("data", mib, "MiB");
    report.figure("stored / data", stored as f64 / data.len() as f64, "ratio");
    report.figure("zstd -1 and BLAKE3 alone", median(&limits), "MiB/s");
    report.figure("writer into memory", median(&ours), "MiB/s");
    report.goal("writer / limit", median(&ratios), "ratio", Goal::AtLeast(0.7));
    Ok(report)
}

/// Requests for one GiB of guest data with 64 MiB segments.
pub(crate) async fn requests(env: &Env) -> Result<Report> {
    let bucket = Bucket::memory();
    create_domain(&bucket.appender(), "bench", env).await?;
    // A domain and its disk exist; a writer starts, takes in one GiB, and stops.
    let writer = DomainWriter::open(bucket.appender(), WriterOptions::default(), env.clone()).await?;
    let size_bytes = GIB as u64;
    let disk = writer.disk_add(&NewDisk { vm: "vm".into(), name: "disk".into(), size_bytes }, Content::Blank).await?;
    writer.close().await?;
    let before = bucket.meter().snapshot();
    let writer = DomainWriter::open(bucket.appender(), WriterOptions::default(), env.clone()).await?;
    let mut random = corpus::Random(7);
    let piece: Bytes = (0..WRITE_BYTES).map(|_| random.below(256) as u8).collect::<Vec<u8>>().into();
    for at in (0..GIB).step_by(WRITE_BYTES) {
        let _later = writer.submit_write(disk, at as u64, piece.clone()).await?;
    }
    writer.close().await?;
    let used = bucket.meter().snapshot().since(&before);
    ensure!(used.get(Op::Put, KeyFamily::Log).requests > 0, "nothing was put");
    let mut report = Report::default();
    let puts = |family| used.get(Op::Put, family).requests as f64;
    report.figure("PUTs of segments and CUT a GiB", puts(KeyFamily::Log), "");
    report.figure("PUTs of claims a GiB", puts(KeyFamily::Claim), "");
    report.goal("PUTs of log and claims a GiB", puts(KeyFamily::Log) + puts(KeyFamily::Claim), "", Goal::AtMost(18.0));
    report.figure("PUTs below v/: attach probe and hints", puts(KeyFamily::Volatile), "");
    report.goal("LISTs while writing", lists(&used), "", Goal::AtMost(0.0));
    Ok(report)
}

/// LIST requests of a run.
pub(crate) fn lists(used: &MeterSnapshot) -> f64 {
    used.total(Op::List).requests as f64
}
