//! One of several processes that use the same bucket at once. Driven by `tests/processes.rs`, line by line.
//!
//! `race URL NAME`: for each line N on stdin, creates claim N with NAME in it and prints `new` or `exists`.
//! `churn URL EPOCH`: puts segments for ever, and prints the number of each one once it is stored.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use tidemark_bucket::{Bucket, BucketOptions, Created};
use tidemark_conformance::segment_of;
use tidemark_format::{Epoch, ObjectKey, Seq};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["race", url, name] => race(url, name).await,
        ["churn", url, epoch] => churn(url, epoch).await,
        _ => Err("usage: tidemark-store-child race URL NAME | churn URL EPOCH".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), Box<dyn std::error::Error>>;

fn say(what: impl std::fmt::Display) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")?;
    out.flush()
}

async fn race(url: &str, name: &str) -> Done {
    let appender = Bucket::open(&url.parse()?, &BucketOptions::default())?.appender();
    say("ready")?;
    for line in std::io::stdin().lock().lines() {
        let claim = ObjectKey::writer_claim(Epoch::new(line?.parse()?));
        let created = appender.create(&claim, format!("claim of {name}").into_bytes()).await?;
        say(if created == Created::New { "new" } else { "exists" })?;
    }
    Ok(())
}

async fn churn(url: &str, epoch: &str) -> Done {
    let appender = Bucket::open(&url.parse()?, &BucketOptions::default())?.appender();
    let epoch = Epoch::new(epoch.parse()?);
    for n in 1.. {
        let segment = segment_of(epoch.get(), n);
        appender.put_hint(segment.clone()).await?;
        appender.put(&ObjectKey::Log { epoch, seq: Seq::new(n) }, segment).await?;
        say(n)?;
    }
    Ok(())
}
