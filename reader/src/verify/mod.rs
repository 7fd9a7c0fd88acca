//! Reads every object of a domain and checks all that can be checked; goes on past damage and reports all of it.
//!
//! Checks: each object by itself ([`object`]: hashes, lengths, frames, dense LSNs), then all of them together ([`chain`]:
//! claims, CUTs, hash chain, disks, base objects), then the index against them ([`index`], [`differences`]: tables, counters,
//! events, and every row).
//! This is the one place of the reader that lists: it also reports what nothing refers to. What an index needs is listed before the
//! log, so whatever a root covers is in the listing; who finds damage while a maintainer works looks again.
//! A routine check looks at everything but the frames and the row groups of tables of rows, and at a [`Sample`] of those.
//!
//! Memory, whatever the history and its objects: a key for each object; for each segment its header, its events and 24 bytes more;
//! [`OBJECTS_AT_A_TIME`] ranges of [`object::RANGE_BYTES`], each with one head or the fingerprints of one table; and where index and
//! truth differ what [`differences`] says.
//! Not here: repair.

mod chain;
mod differences;
mod images;
mod index;
mod object;
mod print;
mod sample;

pub use sample::Sample;

use crate::error::{Error, Result};
use crate::options::ReaderOptions;
use chain::Findings;
use futures::stream::{self, StreamExt};
use index::Index;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use tidemark_bucket::ReadOnly;
use tidemark_format::{
    Claim, DiskId, DomainId, ErrorKind, Expect, Extent, Genesis, HEADER_BYTES, Hint, KeyFamily, Ledger, Lsn, ObjectKey,
    Pin, Quarantine, Retention, Root, SegmentHeader,
};
use tidemark_history::Roots;

/// Objects that are read at a time; each holds one range of at most [`object::RANGE_BYTES`] and one head.
const OBJECTS_AT_A_TIME: usize = 4;
/// How often everything is looked at again because a maintainer replaced what was being looked at.
const TRIES_MAX: u32 = 4;

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
    /// The blocks that are lost, or of which the index says something else than the truth, as far as that is known. Empty for damage
    /// that costs no bytes by itself.
    pub blocks: Vec<DamagedBlocks>,
}

impl Damage {
    fn of(key: ObjectKey, what: impl Into<String>) -> Self {
        Self { object: key.to_string(), what: what.into(), lsns: None, blocks: Vec::new() }
    }

    /// True if only the index is concerned: it can be made anew, and nothing is lost.
    pub fn is_of_index(&self) -> bool {
        let key = self.object.parse::<ObjectKey>();
        key.is_ok_and(|key| matches!(key, ObjectKey::Index { .. } | ObjectKey::Root { .. } | ObjectKey::RootCopy))
    }
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
    /// Rows of segments checked.
    pub rows: u64,
    /// Tables of the index checked.
    pub tables: u64,
    /// Rows of them.
    pub table_rows: u64,
    /// Row groups of them that a sample left out. With any, rows are not compared with the log.
    pub groups_skipped: u64,
    /// The index covers LSNs up to this one; `None` if there is none, or none that can be read.
    pub indexed_through: Option<Lsn>,
    /// Events checked.
    pub events: u64,
    /// The first and last LSN of the history, if there is any.
    pub lsns: Option<(Lsn, Lsn)>,
    /// Everything that is wrong.
    pub damage: Vec<Damage>,
    /// Keys that nothing refers to: superseded, left by abandoned epochs or uploads, or put there by others. Harmless.
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
    let mut tries = 0;
    loop {
        tries += 1;
        let (report, judged) = check_once(bucket, options, sample, &mut progress).await?;
        if report.is_clean() || tries == TRIES_MAX {
            return Ok(report);
        }
        //= SPEC.md#ledgers
        //# LG-3
        // Objects that a maintainer has just replaced are missing and no damage.
        let roots = Roots::new(bucket.clone(), judged.domain);
        let root = roots.newest(judged.root.as_ref()).await.ok().flatten().map(|root| root.key());
        let ledger = roots.newest_ledger().await.ok().flatten().map(|ledger| ledger.key());
        let newer = |found: Option<ObjectKey>, judged: Option<ObjectKey>| found.is_some() && found > judged;
        if !newer(root, judged.root.map(|root| root.key())) && !newer(ledger, judged.ledger) {
            return Ok(report);
        }
    }
}

/// What a check went by.
struct Judged {
    domain: DomainId,
    root: Option<Root>,
    ledger: Option<ObjectKey>,
}

async fn check_once(
    bucket: &ReadOnly,
    options: &ReaderOptions,
    sample: Option<Sample>,
    progress: &mut impl FnMut(VerifyProgress),
) -> Result<(VerifyReport, Judged)> {
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
    let (tables, keys): (Vec<_>, Vec<_>) =
        keys.into_iter().partition(|(key, _)| matches!(key, ObjectKey::Index { .. }));
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
    let mut step = |len: u64, report: &VerifyReport| {
        seen.objects_done += 1;
        seen.bytes_done += len;
        seen.damage = report.damage.len() as u64;
        progress(seen);
    };
    while let Some(found) = checks.next().await {
        let (key, len) = keys[at];
        at += 1;
        report.objects += 1;
        let found = found?;
        report.bytes += match &found {
            Found::Segment(checked) => checked.bytes,
            Found::Derived => 0,
            _ => len,
        };
        findings.take(key, found, &mut report);
        step(len, &report);
    }
    let (truth, named) = findings.judge(&mut report);
    let ledger = truth.ledger.as_ref().map(Ledger::key);
    let roots = keys.iter().filter_map(|(key, _)| match *key {
        ObjectKey::Root { epoch, seq } => Some((epoch, seq)),
        _ => None,
    });
    let truth = Arc::new(truth);
    let listed: BTreeMap<ObjectKey, u64> = tables.into_iter().collect();
    let mut index = Index::open(bucket, domain, roots.collect(), &named, Arc::clone(&truth), &mut report).await?;
    index.judge_root(&mut report);
    let named = index.tables(&listed, &mut report);
    let names: BTreeSet<ObjectKey> = named.iter().map(|(table, _)| table.key()).collect();
    for (key, len) in listed.iter().filter(|(key, _)| !names.contains(*key)) {
        report.objects += 1;
        report.unreferenced.push(key.to_string());
        step(*len, &report);
    }
    let checks: Vec<_> = named.iter().map(|(table, len)| index.check(bucket, *table, *len, sample)).collect();
    let checks = checks.into_iter().map(|check| {
        let task = tokio::spawn(check);
        async move { task.await.unwrap_or(Err(Error::TaskLost)) }
    });
    let mut checks = stream::iter(checks).buffered(OBJECTS_AT_A_TIME);
    while let Some(checked) = checks.next().await {
        let checked = checked?;
        report.objects += 1;
        report.bytes += checked.bytes;
        let len = checked.len;
        index.take(checked, &mut report);
        step(len, &report);
    }
    index.judge_rows(bucket, options, &mut report).await?;
    if sample.is_none() {
        index.judge_images(bucket, &mut report).await?;
    }
    report.unreferenced.sort_unstable();
    Ok((report, Judged { domain, root: index.into_root(), ledger }))
}

/// What one object turned out to be.
#[derive(Debug)]
enum Found {
    Claim(Claim),
    Hint(Hint),
    Ledger(Box<Ledger>),
    Segment(Box<object::Checked>),
    Pin(Pin),
    /// A copy of the root of this key.
    RootCopy(ObjectKey),
    /// Something below `v/` that is as it must be, and means nothing to the history.
    Advisory,
    /// Something below `v/` that is not checked.
    Other,
    /// A part of the index, to be checked later.
    Derived,
    Damaged(String),
    /// Listed, but gone.
    Gone,
}

/// Every key of the domain with its length, without statistics: nothing depends on them. Names that are no keys are unreferenced.
async fn list(bucket: &ReadOnly, report: &mut VerifyReport) -> Result<Vec<(ObjectKey, u64)>> {
    let mut keys = Vec::new();
    // What names others comes in front of them: they were there when it was put.
    let first = [KeyFamily::Volatile, KeyFamily::Ledger, KeyFamily::Root];
    let others =
        KeyFamily::ALL.into_iter().filter(|family| *family != KeyFamily::Statistics && !first.contains(family));
    for family in first.into_iter().chain(others) {
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
            ObjectKey::Probe { .. } | ObjectKey::Statistics { .. } | ObjectKey::Genesis => return Ok(Found::Other),
            // Checked against what the truth turns out to be.
            ObjectKey::Index { .. } | ObjectKey::Root { .. } => return Ok(Found::Derived),
            ObjectKey::RootCopy => bucket.get(&key).await.map(|bytes| match Root::decode_copy(&bytes, domain) {
                Ok(root) => Found::RootCopy(root.key()),
                Err(error) => Found::Damaged(error.to_string()),
            }),
            ObjectKey::Retention => bucket.get(&key).await.map(|bytes| match Retention::decode(&bytes, domain) {
                Ok(_) => Found::Advisory,
                Err(error) => Found::Damaged(error.to_string()),
            }),
            ObjectKey::Quarantine { .. } => match bucket.get(&key).await {
                Ok(bytes) => Ok(match Quarantine::decode(&bytes, &expect) {
                    Ok(_) => Found::Advisory,
                    Err(error) => Found::Damaged(error.to_string()),
                }),
                // It was released.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Advisory),
                Err(error) => Err(error),
            },
            ObjectKey::Pin { .. } => match bucket.get(&key).await {
                Ok(bytes) => Ok(match Pin::decode(&bytes, domain) {
                    Ok(pin) => Found::Pin(pin),
                    Err(error) => Found::Damaged(error.to_string()),
                }),
                // Its reader is done.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Advisory),
                Err(error) => Err(error),
            },
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
