//! Tries every promise on a store, and says what it can do: `make conformance STORE=...`
//!
//! `check-store NAME` starts a store of the tests; `check-store URL` takes one of yours, with credentials from the environment,
//! and leaves some thousand small objects below the prefix. Prints the broken promises, how many are kept, and the row of
//! docs/providers.md. Fails if a promise is broken.

use std::io::Write;
use std::process::{Command, ExitCode};
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_conformance::{CHECKS, Capabilities, NamedStore, Raw, suite};
use tidemark_format::ObjectKey;

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<ExitCode, Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--head"] => {
            writeln!(std::io::stdout(), "{}", Capabilities::HEAD)?;
            Ok(ExitCode::SUCCESS)
        }
        [name] => match NamedStore::start(name) {
            Some(store) => started(&store),
            None if name.contains("://") || name.contains('/') => check(name, name, None),
            None => Err(format!("no store {name}: there are {}, or a URL", NamedStore::NAMES.join(", ")).into()),
        },
        [url, "--title", title] => check(url, title, None),
        [url, "--title", title, "--raw", kind, endpoint, ca] => check(url, title, Some((kind, endpoint, ca))),
        _ => Err("usage: check-store NAME|URL".into()),
    }
}

/// Checks a store that was started, in a process that has its credentials in the environment.
fn started(store: &NamedStore) -> Result<ExitCode, Failed> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args([&store.url, "--title", store.title]).envs(store.environment.iter().map(|(name, value)| (name, value)));
    if let Some(raw) = &store.raw {
        child.args(["--raw", &raw.kind, &raw.endpoint, raw.ca.as_deref().unwrap_or_default()]);
        child.env("ACCESS_KEY", &raw.access_key).env("SECRET_KEY", &raw.secret_key);
    }
    let status = child.status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[tokio::main]
async fn check(url: &str, title: &str, raw: Option<(&str, &str, &str)>) -> Result<ExitCode, Failed> {
    let raw = raw.map(|(kind, endpoint, ca)| -> Result<Raw, Failed> {
        let ca = Some(ca.to_owned()).filter(|ca| !ca.is_empty());
        let (access_key, secret_key) = (std::env::var("ACCESS_KEY")?, std::env::var("SECRET_KEY")?);
        Ok(Raw { kind: kind.to_owned(), endpoint: endpoint.to_owned(), access_key, secret_key, ca })
    });
    let raw = raw.transpose()?;
    let (head, query) = url.split_once('?').map_or((url, String::new()), |(h, q)| (h, format!("?{q}")));
    // Objects are never overwritten, so each run needs keys of its own.
    let run = u128::from_le_bytes(tidemark_env::Env::system().entropy.nonce());
    let mut buckets = Vec::new();
    for number in 0..=CHECKS.len() {
        let url: BucketUrl = format!("{}/{run:032x}/{number}{query}", head.trim_end_matches('/')).parse()?;
        let bucket = Bucket::open(&url, &BucketOptions::default())?;
        // So that a directory is there; elsewhere it is one object more.
        bucket.pinner().put(&ObjectKey::Probe { nonce: [0; 16] }, "check").await?;
        bucket.deleter().delete(&ObjectKey::Probe { nonce: [0; 16] }).await?;
        buckets.push(bucket);
    }
    let broken = suite(|number| buckets[number].clone()).await;
    let capabilities = Capabilities::of(&buckets[CHECKS.len()], raw.as_ref()).await?;
    let mut out = std::io::stdout().lock();
    for broken in &broken {
        writeln!(out, "BROKEN  {broken}")?;
    }
    writeln!(out, "{} of {} promises kept", CHECKS.len() - broken.len(), CHECKS.len())?;
    writeln!(out, "{}", capabilities.row(title))?;
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
