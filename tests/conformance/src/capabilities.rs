//! What a store can do, asked of the store itself: one row of the table in docs/providers.md.

use crate::raw::Raw;
use bytes::Bytes;
use futures::future::join_all;
use std::fmt;
use tidemark_bucket::{Attestation, Bucket, Created, Error, Pieces, attach_probe};
use tidemark_env::{Entropy, SystemEntropy};
use tidemark_format::{Epoch, ErrorKind, ObjectKey, Seq};

/// Creates of one key at the same time, and how often that is tried.
const RACERS: usize = 8;
const RACES: usize = 5;
/// As much as the largest segment of a writer: 128 MiB and one write more.
const LARGEST_PUT_MIB: usize = 160;

/// What was found. Shown as a row of a Markdown table.
#[derive(Clone, Debug)]
pub struct Capabilities {
    attached: String,
    winners: String,
    reads_after_writes: bool,
    largest_put: bool,
    suffix_reads: Option<bool>,
    object_lock: Option<bool>,
}

impl Capabilities {
    /// What the columns are.
    pub const HEAD: &str = "| store | attached as | winners of a race of 8 creates | reads see the last write | \
                            PUT of 160 MiB | suffix reads | object lock |\n|---|---|---|---|---|---|---|";

    /// Finds out; `raw` is for what the bucket itself never asks.
    ///
    /// # Errors
    /// Those of the store, where they are no answer.
    pub async fn of(bucket: &Bucket, raw: Option<&Raw>) -> Result<Self, Error> {
        let attached = match attach_probe(&bucket.appender(), &SystemEntropy, Attestation::None).await {
            Ok(mode) => format!("`{mode}`"),
            Err(Error::Liar { check, .. }) => format!("refused: {check}"),
            Err(error) => return Err(error),
        };
        let mut winners = Vec::new();
        for _ in 0..RACES {
            winners.push(race(bucket).await?);
        }
        winners.sort_unstable();
        winners.dedup();
        let winners: Vec<_> = winners.iter().map(ToString::to_string).collect();
        Ok(Self {
            attached,
            winners: winners.join(" to "),
            reads_after_writes: reads_after_writes(bucket).await?,
            largest_put: largest_put(bucket).await?,
            suffix_reads: raw.map(Raw::reads_suffixes),
            object_lock: raw.map(Raw::locks_objects),
        })
    }

    /// The row of a store.
    pub fn row(&self, store: &str) -> String {
        let (suffix, lock) = (Answer(self.suffix_reads), Answer(self.object_lock));
        let (reads, put) = (Answer(Some(self.reads_after_writes)), Answer(Some(self.largest_put)));
        format!("| {store} | {} | {} | {reads} | {put} | {suffix} | {lock} |", self.attached, self.winners)
    }
}

/// Yes, no, or a question that does not arise.
struct Answer(Option<bool>);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.map_or("-", |yes| if yes { "yes" } else { "no" }))
    }
}

/// How many of several creates of one key succeed.
async fn race(bucket: &Bucket) -> Result<usize, Error> {
    let (appender, key) = (bucket.appender(), ObjectKey::Probe { nonce: SystemEntropy.nonce() });
    let creates = (0..RACERS).map(|i| appender.create(&key, format!("{key} {i}").into_bytes()));
    let mut winners = 0;
    for created in join_all(creates).await {
        winners += usize::from(created? == Created::New);
    }
    Ok(winners)
}

/// True if what was written last is what is read, also where nothing was found before.
async fn reads_after_writes(bucket: &Bucket) -> Result<bool, Error> {
    let (key, pinner) = (ObjectKey::Probe { nonce: SystemEntropy.nonce() }, bucket.pinner());
    match pinner.get(&key).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(_) => return Ok(false),
    }
    for i in 0..20 {
        let body = format!("{i}");
        pinner.put(&key, body.clone().into_bytes()).await?;
        match pinner.get(&key).await {
            Ok(read) if read == body => {}
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// True if the largest segment goes in one request.
async fn largest_put(bucket: &Bucket) -> Result<bool, Error> {
    let key = ObjectKey::Log { epoch: Epoch::new(1), seq: Seq::new(1) };
    let mut noise = vec![0; 1 << 20];
    SystemEntropy.fill(&mut noise);
    let body = Pieces::from(vec![Bytes::from(noise); LARGEST_PUT_MIB]);
    match bucket.appender().put(&key, body).await {
        Ok(_) => Ok(bucket.read_only().head(&key).await? == (LARGEST_PUT_MIB as u64) << 20),
        Err(Error::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
