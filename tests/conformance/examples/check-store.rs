//! Tries every promise on a store of yours: `cargo run --example check-store -- s3://bucket/scratch?endpoint=...`
//!
//! Credentials come from the environment. Some thousand small objects are left below the prefix.

use std::io::Write;
use std::process::ExitCode;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_conformance::{CHECKS, suite};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let text = std::env::args().nth(1).ok_or("usage: check-store URL")?;
    let (head, query) = text.split_once('?').map_or((text.as_str(), String::new()), |(h, q)| (h, format!("?{q}")));
    // Objects are never overwritten, so each run needs keys of its own.
    let run = u128::from_le_bytes(tidemark_env::Env::system().entropy.nonce());
    let mut buckets = Vec::new();
    for number in 0..CHECKS.len() {
        let url: BucketUrl = format!("{}/{run:032x}/{number}{query}", head.trim_end_matches('/')).parse()?;
        let bucket = Bucket::open(&url, &BucketOptions::default())?;
        // So that a directory is there; elsewhere it is one object more.
        bucket.pinner().put(&tidemark_format::ObjectKey::Probe { nonce: [0; 16] }, "check").await?;
        bucket.deleter().delete(&tidemark_format::ObjectKey::Probe { nonce: [0; 16] }).await?;
        buckets.push(bucket);
    }
    let broken = suite(|number| buckets[number].clone()).await;
    let mut out = std::io::stdout().lock();
    for broken in &broken {
        writeln!(out, "BROKEN  {broken}")?;
    }
    writeln!(out, "{} of {} promises kept", CHECKS.len() - broken.len(), CHECKS.len())?;
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
