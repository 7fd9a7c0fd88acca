//! A writer to be killed: takes the domain over, does the guest's operations of one run, and prints each number whose
//! durability was promised, once it was.
//! usage: acked-writer DIR RUN FAULTS
#![allow(clippy::disallowed_macros, reason = "it reports on stdout")]

use std::io::Write;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl, Faults};
use tidemark_e2e::guest::op;
use tidemark_env::Env;
use tidemark_writer::{DomainWriter, Ticket, When, WriterOptions};
use tokio::sync::mpsc;

/// Promises that are waited for at a time.
const TICKETS_MAX: usize = 256;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, run, faults] = args.as_slice() else { return Err("usage: acked-writer DIR RUN FAULTS".into()) };
    let run: u64 = run.parse()?;
    let options = BucketOptions { backoff_first: std::time::Duration::from_millis(1), ..BucketOptions::default() };
    let mut bucket = Bucket::open(&BucketUrl::file(dir), &options)?;
    if !faults.is_empty() {
        bucket = bucket.with_faults(faults.parse::<Faults>()?);
    }
    // Small and hasty segments: many moments at which to die.
    let options = WriterOptions {
        owner: format!("run {run}"),
        segment_bytes_max: 48 << 10,
        age_ms_max: 3,
        retry_ms_first: 1,
        retry_ms_max: 8,
        ..WriterOptions::default()
    };
    let writer = DomainWriter::open(bucket.appender(), options, Env::system()).await?;
    say(&format!("open {}", writer.last_lsn()))?;
    let (send, mut tickets) = mpsc::channel::<(u64, Ticket)>(TICKETS_MAX);
    let acking = tokio::spawn(async move {
        while let Some((number, ticket)) = tickets.recv().await {
            let Ok(committed) = ticket.committed().await else { return };
            if say(&format!("ack {number} {}", committed.lsn)).is_err() {
                return;
            }
        }
    });
    for number in 0.. {
        let ticket = writer.submit(op(run, number).request(), When::Now).await?;
        if send.send((number, ticket)).await.is_err() {
            break;
        }
    }
    acking.await?;
    Ok(())
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
