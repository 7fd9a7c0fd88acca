//! `tidemark bench`: what a bucket can take and give, from here. The project's own measurements are in tests/bench.

use crate::args::{AttestArgs, BucketArgs, DiskRef, SizeBytes};
use crate::context::{disk_at, open_bucket, open_domain, resolve};
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::stream::{self, StreamExt};
use serde::Serialize;
use std::collections::BTreeMap;
use tidemark_bucket::MeterSnapshot;
use tidemark_env::Env;
use tidemark_format::BLOCK_BYTES;
use tidemark_reader::{PointSpec, ReaderOptions};
use tidemark_writer::{Content, DomainWriter, NewDisk, WriterOptions};

/// Measure what a bucket can take and give
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Write to a new disk of a domain and say how fast it became durable
    ///
    /// The domain keeps the disk, and its running writer is fenced: use a domain made for this.
    Write(WriteArgs),
    /// Read a disk at a point, with a cold cache
    Read(ReadArgs),
}

/// Measure writing
#[derive(Debug, Args)]
pub(crate) struct WriteArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// How much to write
    #[arg(long, value_name = "BYTES", default_value = "256M")]
    total: SizeBytes,
    /// Size of one write
    #[arg(long, value_name = "BYTES", default_value = "64K")]
    write_size: SizeBytes,
    /// Percent of each write that compresses away
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    compressible: u8,
    #[command(flatten)]
    attest: AttestArgs,
}

/// Measure reading
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// The disk: VM/DISK, or #N
    #[arg(long, value_name = "VM/DISK")]
    disk: DiskRef,
    /// The point: latest, lsn:N, an RFC 3339 time, -10m, or bookmark:NAME
    #[arg(long, value_name = "POINT", allow_hyphen_values = true, default_value = "latest")]
    at: PointSpec,
    /// Size of one read
    #[arg(long, value_name = "BYTES", default_value = "64K")]
    read_size: SizeBytes,
    /// Reads, at random places
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Reads at a time
    #[arg(long, default_value_t = 4)]
    depth: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    bytes: u64,
    operations: u64,
    seconds: f64,
    mib_per_second: f64,
    operations_per_second: f64,
    requests: BTreeMap<String, RequestCount>,
}

#[derive(Debug, Serialize)]
struct RequestCount {
    requests: u64,
    bytes: u64,
}

pub(crate) async fn run(command: BenchCommand, ui: &Ui) -> anyhow::Result<Outcome> {
    let report = match command {
        BenchCommand::Write(args) => write(args, ui).await?,
        BenchCommand::Read(args) => read(args, ui).await?,
    };
    ui.answer(&report, |report| {
        let requests =
            report.requests.iter().map(|(what, count)| format!("\n  {what}: {} ({} B)", count.requests, count.bytes));
        format!(
            "{} operations, {} in {:.2} s: {:.1} MiB/s, {:.0}/s{}",
            report.operations,
            indicatif::HumanBytes(report.bytes),
            report.seconds,
            report.mib_per_second,
            report.operations_per_second,
            requests.collect::<String>()
        )
    })?;
    Ok(Outcome::Done)
}

fn report(bytes: u64, operations: u64, seconds: f64, meter: &MeterSnapshot) -> Report {
    let requests = meter.iter().map(|(op, family, count)| {
        (format!("{op} {}", family.name()), RequestCount { requests: count.requests, bytes: count.bytes })
    });
    Report {
        bytes,
        operations,
        seconds,
        mib_per_second: bytes as f64 / seconds / f64::from(1 << 20),
        operations_per_second: operations as f64 / seconds,
        requests: requests.collect(),
    }
}

async fn write(args: WriteArgs, ui: &Ui) -> anyhow::Result<Report> {
    let size = args.write_size.get();
    if size == 0 || !size.is_multiple_of(BLOCK_BYTES) || size > tidemark_writer::WRITE_BYTES_MAX {
        return Err(Refused::new(format!("a write of {size} bytes is not whole blocks of 512, or too long")).into());
    }
    let env = Env::system();
    let bucket = open_bucket(&args.bucket)?;
    let attach = args.attest.attach();
    let options = WriterOptions { owner: "tidemark bench".to_owned(), attach, ..Default::default() };
    let writer = DomainWriter::open(bucket.appender(), options, env.clone()).await?;
    let writes = args.total.get().div_ceil(size).max(1);
    let name = format!("{:016x}", env.entropy.number());
    let disk = NewDisk { vm: "bench".to_owned(), name, size_bytes: writes * size };
    let disk = writer.disk_add(&disk, Content::Blank).await?;
    // A pool of writes that differ in what does not compress.
    let noise_bytes = (size * u64::from(100 - args.compressible) / 100) as usize;
    let pool: Vec<Bytes> = (0..64.min(writes))
        .map(|_| {
            let mut data = vec![0x5a; size as usize];
            env.entropy.fill(&mut data[..noise_bytes]);
            Bytes::from(data)
        })
        .collect();
    let bar = ui.bytes_bar("write", Some(writes * size));
    let (before, start) = (bucket.meter().snapshot(), env.clock.monotonic());
    for i in 0..writes {
        let data = pool[(i % pool.len() as u64) as usize].clone();
        // Durable when `sync` returns.
        let _ticket = writer.submit_write(disk, i * size, data).await?;
        bar.add(size);
    }
    writer.sync().await?;
    let seconds = (env.clock.monotonic() - start).as_secs_f64();
    let meter = bucket.meter().snapshot().since(&before);
    writer.close().await?;
    Ok(report(writes * size, writes, seconds, &meter))
}

async fn read(args: ReadArgs, ui: &Ui) -> anyhow::Result<Report> {
    let env = Env::system();
    let bucket = open_bucket(&args.bucket)?;
    let domain = open_domain(&bucket, ReaderOptions::default()).await?;
    let point = resolve(&domain, &args.at).await?;
    let image = domain.disk(disk_at(&domain, &args.disk, point.lsn)?.id, point.lsn).await?;
    let size = args.read_size.get().clamp(1, image.size_bytes());
    let places = (image.size_bytes() - size) / BLOCK_BYTES + 1;
    let offsets: Vec<u64> = (0..args.count).map(|_| env.entropy.number() % places * BLOCK_BYTES).collect();
    let bar = ui.bytes_bar("read", Some(args.count * size));
    let (before, start) = (bucket.meter().snapshot(), env.clock.monotonic());
    let mut reads = stream::iter(offsets)
        .map(|offset| {
            let image = &image;
            async move { image.read(offset, size as usize).await }
        })
        .buffer_unordered(args.depth.clamp(1, 256));
    let mut bytes = 0;
    while let Some(read) = reads.next().await {
        let len = read?.len() as u64;
        bytes += len;
        bar.add(len);
    }
    let seconds = (env.clock.monotonic() - start).as_secs_f64();
    Ok(report(bytes, args.count, seconds, &bucket.meter().snapshot().since(&before)))
}
