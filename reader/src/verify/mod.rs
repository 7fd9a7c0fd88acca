//! Reads every object of a domain and checks all that can be checked; goes on past damage and reports all of it.
//!
//! Checks: each object by itself ([`object`]: hashes, lengths, frames, dense LSNs), then all of them together ([`chain`]:
//! claims, CUTs, hash chain, disks, base objects). Objects are read in ranges, so memory is bounded whatever their size.
//! This is the one place of the reader that lists: it also reports what nothing refers to.
//! A routine check looks at everything but the frames, and at a [`Sample`] of those.
//! Not here: repair.

mod chain;
mod object;
mod sample;

pub use sample::Sample;

use crate::error::{Error, Result};
use crate::options::ReaderOptions;
use chain::Findings;
use futures::stream::{self, StreamExt};
use std::fmt;
use tidemark_bucket::ReadOnly;
use tidemark_format::{
    Claim, DiskId, DomainId, ErrorKind, Expect, Extent, Genesis, HEADER_BYTES, Hint, KeyFamily, Ledger, Lsn, ObjectKey,
    SegmentHeader,
};

/// Objects that are read at a time; each holds one range of at most [`object::RANGE_BYTES`] and one head.
const OBJECTS_AT_A_TIME: usize = 4;

/// Blocks whose bytes are lost, and the writes that put them there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DamagedBlocks {
    /// The disk.
    pub disk: DiskId,
    /// The blocks.
    pub extent: Extent,
    /// The oldest lost write.
    pub first_lsn: Lsn,
    /// The newest lost write.
    pub last_lsn: Lsn,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The object, by its key; text, because a key may be damaged too.
    pub object: String,
    /// What is wrong.
    pub what: String,
    /// The LSNs that the object holds, or must have held, as far as that is known.
    pub lsns: Option<(Lsn, Lsn)>,
    /// The blocks that are lost, as far as that is known. Empty for damage that costs no bytes by itself.
    pub blocks: Vec<DamagedBlocks>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)?;
        if let Some((first, last)) = self.lsns {
            write!(f, " (lsn {first} to {last})")?;
        }
        for lost in &self.blocks {
            write!(f, "; disk {} blocks {} of lsn {} to {}", lost.disk, lost.extent, lost.first_lsn, lost.last_lsn)?;
        }
        Ok(())
    }
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Objects read.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Frames decoded.
    pub frames: u64,
    /// Frames that a sample left out.
    pub frames_skipped: u64,
    /// Index rows checked.
    pub rows: u64,
    /// Events checked.
    pub events: u64,
    /// The first and last LSN of the history, if there is any.
    pub lsns: Option<(Lsn, Lsn)>,
    /// Everything that is wrong.
    pub damage: Vec<Damage>,
    /// Keys that nothing refers to: left by abandoned epochs or uploads, or put there by others. Harmless.
    pub unreferenced: Vec<String>,
}

impl VerifyReport {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Objects done.
    pub objects_done: u64,
    /// Objects in all.
    pub objects_total: u64,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Damage found so far.
    pub damage: u64,
}

/// Verifies the domain in `bucket`. What there is to do is told to `progress` before the first object is read. Damage is part of the report, not an error.
///
/// # Errors
/// `NoDomain`, and store errors other than "absent": a store that does not answer proves nothing.
pub async fn verify(
    bucket: &ReadOnly,
    options: &ReaderOptions,
    progress: impl FnMut(VerifyProgress),
) -> Result<VerifyReport> {
    check_all(bucket, options, None, progress).await
}

/// As [`verify`], but of the frames only a sample is read: for routine, at a small part of the cost. Whatever names data is read in
/// full.
///
/// # Errors
/// As [`verify`].
pub async fn verify_sample(
    bucket: &ReadOnly,
    options: &ReaderOptions,
    sample: Sample,
    progress: impl FnMut(VerifyProgress),
) -> Result<VerifyReport> {
    check_all(bucket, options, Some(sample), progress).await
}

async fn check_all(
    bucket: &ReadOnly,
    options: &ReaderOptions,
    sample: Option<Sample>,
    mut progress: impl FnMut(VerifyProgress),
) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let mut keys = list(bucket, &mut report).await?;
    let domain = identify(bucket, &keys, &mut report).await?;
    keys.retain(|(key, _)| *key != ObjectKey::Genesis);
    let mut seen = VerifyProgress {
        objects_total: keys.len() as u64,
        bytes_total: keys.iter().map(|(_, len)| len).sum(),
        ..VerifyProgress::default()
    };
    progress(seen);
    let mut findings = Findings::default();
    let absent_retries = options.absent_retries_max;
    // Tasks of their own, so that several cores hash and decompress.
    let checks = keys.iter().map(|&(key, len)| {
        let bucket = bucket.clone();
        let task = tokio::spawn(async move { check(&bucket, domain, key, len, sample, absent_retries).await });
        async move { task.await.unwrap_or(Err(Error::TaskLost)) }
    });
    let mut checks = stream::iter(checks).buffered(OBJECTS_AT_A_TIME);
    let mut at = 0;
    while let Some(found) = checks.next().await {
        let (key, len) = keys[at];
        at += 1;
        report.objects += 1;
        let found = found?;
        report.bytes += match &found {
            Found::Segment(checked) => checked.bytes,
            _ => len,
        };
        findings.take(key, found, &mut report);
        seen.objects_done += 1;
        seen.bytes_done += len;
        seen.damage = report.damage.len() as u64;
        progress(seen);
    }
    findings.judge(&mut report);
    report.unreferenced.sort_unstable();
    Ok(report)
}

/// What one object turned out to be.
#[derive(Debug)]
enum Found {
    Claim(Claim),
    Hint(Hint),
    Ledger(Box<Ledger>),
    Segment(Box<object::Checked>),
    /// Something below `v/` that is not checked.
    Other,
    /// A part of the index.
    Derived,
    Damaged(String),
    /// Listed, but gone.
    Gone,
}

/// Every key of the domain with its length, without statistics: nothing depends on them. Names that are no keys are unreferenced.
async fn list(bucket: &ReadOnly, report: &mut VerifyReport) -> Result<Vec<(ObjectKey, u64)>> {
    let mut keys = Vec::new();
    for family in KeyFamily::ALL.into_iter().filter(|family| *family != KeyFamily::Statistics) {
        let key = ObjectKey::Genesis;
        let listed = bucket.list(family).await.map_err(|source| Error::Store { key, source })?;
        for (name, len) in listed {
            match name.parse::<ObjectKey>() {
                Ok(key) => keys.push((key, len)),
                Err(_) => report.unreferenced.push(name),
            }
        }
    }
    Ok(keys)
}

/// The domain's id: from genesis, or from the first segment that still has a header if genesis is damaged.
async fn identify(bucket: &ReadOnly, keys: &[(ObjectKey, u64)], report: &mut VerifyReport) -> Result<DomainId> {
    let key = ObjectKey::Genesis;
    let damaged = match bucket.get(&key).await {
        Ok(bytes) => {
            report.objects += 1;
            report.bytes += bytes.len() as u64;
            match Genesis::decode(&bytes) {
                Ok(genesis) => return Ok(genesis.domain),
                Err(error) => error.to_string(),
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => "it is missing".to_owned(),
        Err(source) => return Err(Error::Store { key, source }),
    };
    for (key, _) in keys.iter().filter(|(key, _)| matches!(key, ObjectKey::Log { .. })) {
        let front = bucket.get_prefix(key, HEADER_BYTES as u64).await;
        if let Some(header) = front.ok().and_then(|bytes| SegmentHeader::decode(&bytes).ok()) {
            report.damage.push(Damage {
                object: ObjectKey::Genesis.to_string(),
                what: damaged,
                lsns: None,
                blocks: vec![],
            });
            return Ok(header.identity.domain);
        }
    }
    Err(Error::NoDomain { location: bucket.location() })
}

async fn check(
    bucket: &ReadOnly,
    domain: DomainId,
    key: ObjectKey,
    len: u64,
    sample: Option<Sample>,
    absent_retries: u32,
) -> Result<Found> {
    let store = |source| Error::Store { key, source };
    let expect = Expect { domain, key };
    for attempt in 0.. {
        let small = match key {
            ObjectKey::Log { .. } | ObjectKey::Base { .. } => {
                object::check(bucket, &expect, len, sample).await.map(|checked| Found::Segment(Box::new(checked)))
            }
            ObjectKey::Probe { .. }
            | ObjectKey::Pin { .. }
            | ObjectKey::RootCopy
            | ObjectKey::Retention
            | ObjectKey::Statistics { .. }
            | ObjectKey::Genesis => {
                return Ok(Found::Other);
            }
            // Derived, and checked by whoever reads it: the truth is whole without it.
            ObjectKey::Index { .. } | ObjectKey::Root { .. } => return Ok(Found::Derived),
            ObjectKey::Claim { .. } => bucket.get(&key).await.map(|bytes| match Claim::decode(&bytes, &expect) {
                Ok(claim) => Found::Claim(claim),
                Err(error) => Found::Damaged(error.to_string()),
            }),
            ObjectKey::Ledger { .. } => bucket.get(&key).await.map(|bytes| match Ledger::decode(&bytes, &expect) {
                Ok(ledger) => Found::Ledger(Box::new(ledger)),
                Err(error) => Found::Damaged(error.to_string()),
            }),
            ObjectKey::Hint => bucket.get(&key).await.map(|bytes| match Hint::decode(&bytes, domain) {
                Ok(hint) => Found::Hint(hint),
                Err(error) => Found::Damaged(error.to_string()),
            }),
        };
        match small {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(store(error)),
            Err(_) if attempt < absent_retries => {}
            Err(_) => break,
        }
    }
    Ok(Found::Gone)
}
