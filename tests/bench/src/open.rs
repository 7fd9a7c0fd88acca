//! Opening a domain of many segments, cold reads, and the memory that an open domain takes.

use crate::corpus::Random;
use crate::ingest::lists;
use crate::report::{Goal, Report};
use anyhow::{Context, Result};
use bytes::Bytes;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl, Op};
use tidemark_env::{Clock, Env};
use tidemark_format::KeyFamily;
use tidemark_reader::{Domain, ReaderOptions};
use tidemark_writer::{Content, DomainWriter, NewDisk, Request, When, WriterOptions, create_domain};

/// What is measured.
pub(crate) struct Options {
    /// Segments of the domain.
    pub(crate) segments: usize,
    /// Random 4 KiB writes of each segment.
    pub(crate) writes: usize,
    /// Cold random reads.
    pub(crate) reads: usize,
}

const WRITE_BYTES: u64 = 4096;
const DISK_BYTES: u64 = 16 << 30;

pub(crate) async fn run(options: &Options, env: &Env) -> Result<Report> {
    let clock: &dyn Clock = &*env.clock;
    let dir = tempfile::Builder::new().prefix("tidemark-bench").tempdir()?;
    let url = BucketUrl::file(dir.path());
    let written = fill(&url, options, env).await.context("fill a bucket")?;

    let bucket = Bucket::open(&url, &BucketOptions::default())?;
    let started = clock.monotonic();
    let domain = Domain::open(bucket.read_only(), ReaderOptions::default(), env.clone()).await?;
    let opened = clock.monotonic().saturating_sub(started);
    let timeline = domain.timeline();
    let point = timeline.latest();
    let disk = timeline.disks_at(point.lsn).first().context("the domain has no disk")?.id;
    let image = domain.disk(disk, point.lsn).await?;
    image.read(0, WRITE_BYTES as usize).await?;
    let first_byte = clock.monotonic().saturating_sub(started);

    let mut report = Report::default();
    let writes = options.segments * options.writes;
    report.figure("segments", options.segments as f64, "");
    report.figure("writes", writes as f64, "");
    report.figure("open", opened.as_secs_f64() * 1e3, "ms");
    let ms = first_byte.as_secs_f64() * 1e3;
    report.goal(format!("time to first byte, {} segments", options.segments), ms, "ms", Goal::AtMost(1000.0));
    let state = domain.memory().log.bytes as f64;
    report.figure("state of the open domain", state / f64::from(1 << 20), "MiB");
    report.figure("state for a million writes", state / writes as f64 * 1e6 / f64::from(1 << 20), "MiB");

    let before = bucket.meter().snapshot();
    let mut random = Random(99);
    for _ in 0..options.reads {
        image.read(written[random.below(written.len() as u64) as usize], WRITE_BYTES as usize).await?;
    }
    let used = bucket.meter().snapshot().since(&before);
    let gets = used.get(Op::Get, KeyFamily::Log).requests as f64;
    report.goal("ranged GETs of a cold random 4 KiB read", gets / options.reads as f64, "", Goal::AtMost(1.2));
    report.goal("LISTs while opening and reading", lists(&bucket.meter().snapshot()), "", Goal::AtMost(0.0));
    Ok(report)
}

/// A bucket of `segments` segments with uniformly random writes of incompressible data. Returns their offsets in bytes.
async fn fill(url: &BucketUrl, options: &Options, env: &Env) -> Result<Vec<u64>> {
    let bucket = Bucket::open(url, &BucketOptions::default())?.appender();
    create_domain(&bucket, "bench", env).await?;
    let writer_options = WriterOptions {
        segment_bytes_max: options.writes as u64 * WRITE_BYTES,
        age_ms_max: 3_600_000,
        in_flight_segments_max: 16,
        ..WriterOptions::default()
    };
    let writer = DomainWriter::open(bucket, writer_options, env.clone()).await?;
    let disk = NewDisk { vm: "vm".into(), name: "disk".into(), size_bytes: DISK_BYTES };
    let disk = writer.disk_add(&disk, Content::Blank).await?;
    let mut random = Random(5);
    let noise: Bytes = (0..64 << 10).map(|_| random.below(256) as u8).collect::<Vec<u8>>().into();
    let mut written = Vec::with_capacity(options.segments * options.writes);
    for _ in 0..options.segments * options.writes {
        let from = random.below((noise.len() as u64 - WRITE_BYTES) / 512) as usize * 512;
        let data = noise.slice(from..from + WRITE_BYTES as usize);
        let offset = random.below(DISK_BYTES / WRITE_BYTES) * WRITE_BYTES;
        let _later = writer.submit(Request::Write { disk, offset, data }, When::Now).await?;
        written.push(offset);
    }
    writer.close().await?;
    Ok(written)
}
