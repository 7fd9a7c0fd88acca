//! What it costs to count: a disk's probe fed with the same writes as the writer, in the same rounds.
//!
//! Guests pay for counting only; samples are measured by whoever looks, once a second, and are in the figure all the same: the
//! two share a machine.

use crate::corpus;
use crate::ingest;
use crate::report::{Goal, Report, median};
use anyhow::Result;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tidemark_bucket::Bucket;
use tidemark_env::{Clock, Env};
use tidemark_format::{Day, Lsn, TimeNs};
use tidemark_telemetry::{DiskProbe, DomainProbe, Moment};
use tidemark_writer::create_domain;

/// What is measured.
pub(crate) struct Options {
    /// Data of one round in MiB.
    pub(crate) data_mib: usize,
    /// Rounds.
    pub(crate) rounds: usize,
}

/// Looks come at least so often: more than once a second at any rate that the writer reaches.
const LOOK_EVERY_BYTES: usize = 128 << 20;
/// Small writes a second that the appliance is held to take.
const SMALL_PER_S: f64 = 100_000.0;

pub(crate) async fn run(options: &Options, env: &Env) -> Result<Report> {
    let clock: &dyn Clock = &*env.clock;
    let data = Bytes::from(corpus::system_files(options.data_mib << 20)?);
    let (mut ingested, mut counted, mut shares, mut small) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let bucket = Bucket::memory().appender();
        create_domain(&bucket, "bench", env).await?;
        let started = clock.monotonic();
        ingest::write_all(&bucket, &data, 2, env).await?;
        let ingest_s = (clock.monotonic() - started).as_secs_f64();
        let count_s = count(&data, ingest::WRITE_BYTES, clock);
        ingested.push(ingest_s);
        counted.push(count_s);
        shares.push(count_s / ingest_s);
        let writes = (data.len() / 4096) as f64;
        small.push(count(&data, 4096, clock) / writes);
    }
    let mut report = Report::default();
    let mib = options.data_mib as f64;
    report.figure("ingest, writes of 256 KiB", mib / median(&ingested), "MiB/s");
    report.figure("counting the same writes", mib / median(&counted), "MiB/s");
    report.goal("part of the ingest's time", median(&shares), "ratio", Goal::AtMost(0.02));
    report.figure("counting one write of 4 KiB", median(&small) * 1e9, "ns");
    let share = median(&small) * SMALL_PER_S;
    report.goal("part of a core at 100,000 of them a second", share, "ratio", Goal::AtMost(0.02));
    Ok(report)
}

/// Seconds that it takes to count `data`, written in pieces.
fn count(data: &Bytes, piece_bytes: usize, clock: &dyn Clock) -> f64 {
    let probe = DiskProbe::new(Arc::new(DomainProbe::default()));
    let started = clock.monotonic();
    for at in (0..data.len()).step_by(piece_bytes) {
        let piece = data.slice(at..data.len().min(at + piece_bytes));
        probe.wrote(at as u64, &piece, Duration::from_micros(80));
        if (at + piece_bytes).is_multiple_of(LOOK_EVERY_BYTES) {
            probe.digest();
            // Each look judges here, and not only one in ten.
            let newest = Moment { lsn: Lsn::new(at as u64), time: TimeNs::new(at as u64) };
            probe.assess(clock.monotonic(), Duration::ZERO, newest);
        }
    }
    probe.end_minute(Day::new(1));
    (clock.monotonic() - started).as_secs_f64()
}
