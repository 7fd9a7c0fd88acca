//! Restoring in place: an image that is there already becomes equal to a point, and only what differs is fetched and written.
//!
//! Two passes over the same comparison. The first writes what differs. The second reads all of it back from the disk, and has to find
//! nothing. What the first found out about each object stands in a [`Journal`], so the second fetches nothing, and a restore that was
//! killed goes on by the same means: a note is believed only if the disk holds what it says.
//! Invariants: nothing is written that is there already; a disk that was half restored to one point is compared as a whole before it becomes
//! another; blocks that nobody has stay as they were, and are told.
//! Not here: comparing (`tidemark-reader`).

mod journal;
mod target;

use crate::error::{Error, Result};
use journal::Journal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use target::Target;
use tidemark_format::{DiskId, Extent, Lsn};
use tidemark_reader::{CompareOptions, Compared, Difference, DiskImage, Domain, Known};
use tokio::sync::mpsc;

/// Differences on their way from the bucket to the disk, each of at most some 64 KiB.
const DIFFERENCES_MAX: usize = 64;
/// Ranges that nobody has and that are told one by one.
const MISSING_MAX: usize = 256;

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// The disk holds what it held at this LSN, and nothing was written to it since.
    pub since: Option<Lsn>,
    /// Where to note what was done, so that a restore that is killed goes on there. By default beside a file, and nowhere for a device.
    pub journal: Option<PathBuf>,
    /// Write nothing, and say what would be.
    pub dry_run: bool,
}

/// A range that nobody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// The blocks.
    pub extent: Extent,
    /// Why not.
    pub why: String,
}

/// What a restore did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Size of the disk.
    pub size_bytes: u64,
    /// Bytes that were looked at, on the disk.
    pub compared_bytes: u64,
    /// Bytes of them that a hash showed to be there.
    pub recognised_bytes: u64,
    /// Bytes of contents that were fetched; what is read to find them is not counted.
    pub fetched_bytes: u64,
    /// Requests for them.
    pub requests: u64,
    /// Bytes of data that were written. Unknown in a dry run.
    pub written_bytes: u64,
    /// Bytes that became zeros.
    pub zeroed_bytes: u64,
    /// Whether an earlier restore had begun with another point: then all was compared.
    pub was_another: bool,
    /// Bytes that nobody has.
    pub lacking_bytes: u64,
    /// The first ranges of them.
    pub lacking: Vec<Lacking>,
    /// Whether everything was read back and compared.
    pub verified: bool,
}

/// Hears how many bytes of how many are done.
pub type Heard = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Makes the image or the block device at `to` equal to a disk at a point.
///
/// # Errors
/// If `to` is in use, too small, or no raw image; those of the domain and of the local disk; `Unverified` if the disk does not keep what was written.
pub async fn restore(
    domain: &Domain,
    (disk, at): (DiskId, Lsn),
    to: &Path,
    options: &RestoreOptions,
    heard: &Heard,
) -> Result<Restored> {
    let image = domain.disk(disk, at).await?;
    let target = {
        let (to, size, dry_run) = (to.to_owned(), image.size_bytes(), options.dry_run);
        blocking(move || Target::open(&to, size, dry_run)).await?
    };
    let path = options.journal.clone().or_else(|| target.journal_beside());
    if options.since.is_some() && path.is_none() {
        let why =
            "what changed since a point can be told apart only with a journal, for a restore that is killed".to_owned();
        return Err(Error::Restore { path: to.to_owned(), why });
    }
    let identity = image.identity();
    let since = options.since.map_or("nothing is known".to_owned(), |lsn| format!("it held lsn {lsn}"));
    let opened = Journal::open(path, &identity, &since)?;
    let mut journal = opened.journal;
    // A disk that somebody began to restore to another point, or from another one, holds neither.
    let since = options.since.filter(|_| !opened.was_another);
    let wanted: Arc<[Extent]> = wanted(domain, &image, since, target.old_size_bytes()).await?.into();
    let total = wanted.iter().map(|extent| extent.byte_len()).sum();
    if !options.dry_run {
        journal.begin(opened.was_another)?;
        let target = target.clone();
        blocking(move || target.resize()).await?;
    }
    let proofs = Arc::new(opened.proofs);
    let first = Pass { image: &image, wanted: &wanted, target: &target, total, heard };
    let options_of = |proofs| CompareOptions { proofs, estimate: options.dry_run };
    let (compared, applied, journal) = first.run(options_of(proofs), journal, options.dry_run).await?;
    let mut restored = Restored {
        size_bytes: image.size_bytes(),
        compared_bytes: total,
        recognised_bytes: compared.recognised_bytes,
        fetched_bytes: compared.fetched_bytes,
        requests: compared.requests,
        written_bytes: applied.written_bytes,
        zeroed_bytes: applied.zeroed_bytes,
        was_another: opened.was_another,
        lacking_bytes: applied.lacking_bytes,
        lacking: applied.lacking,
        verified: false,
    };
    if options.dry_run {
        return Ok(restored);
    }
    let durable = target.clone();
    blocking(move || durable.settle()).await?;
    let proofs = Arc::new(journal.proofs()?);
    let (_, again, journal) = first.run(options_of(proofs), journal, false).await?;
    if let Some(offset) = again.first_changed {
        return Err(Error::Unverified { path: to.to_owned(), offset });
    }
    restored.verified = true;
    journal.end()?;
    Ok(restored)
}

/// What has to be looked at: everything, or what changed between two points, in whichever order they are.
async fn wanted(domain: &Domain, image: &DiskImage, since: Option<Lsn>, old_size_bytes: u64) -> Result<Vec<Extent>> {
    const BLOCK: u64 = tidemark_format::BLOCK_BYTES;
    let whole = Extent::new(0, image.size_bytes() / BLOCK);
    let Some(since) = since else { return Ok(vec![whole]) };
    // Whether the disk was a whole one there.
    domain.disk(image.id(), since).await?;
    let at = image.at().lsn;
    let changed = domain.changed(image.id(), since.min(at), since.max(at)).await?;
    let old = old_size_bytes / BLOCK;
    let grown = (old < whole.len).then(|| Extent::new(old, whole.len - old));
    let mut extents: Vec<Extent> = changed.into_iter().map(|changed| changed.extent).chain(grown).collect();
    extents.sort_unstable();
    let mut merged: Vec<Extent> = Vec::new();
    for extent in extents.into_iter().filter_map(|extent| extent.intersection(whole)) {
        match merged.last_mut() {
            Some(last) if last.end() >= extent.start => last.len = last.end().max(extent.end()) - last.start,
            _ => merged.push(extent),
        }
    }
    Ok(merged)
}

/// One look at everything.
struct Pass<'a> {
    image: &'a Arc<DiskImage>,
    wanted: &'a Arc<[Extent]>,
    target: &'a Arc<Target>,
    total: u64,
    heard: &'a Heard,
}

#[derive(Default)]
struct Applied {
    written_bytes: u64,
    zeroed_bytes: u64,
    /// The first byte that was not as it is to be.
    first_changed: Option<u64>,
    lacking_bytes: u64,
    lacking: Vec<Lacking>,
}

impl Pass<'_> {
    async fn run(
        &self,
        options: CompareOptions,
        journal: Journal,
        dry_run: bool,
    ) -> Result<(Compared, Applied, Journal)> {
        let (to, from) = mpsc::channel(DIFFERENCES_MAX);
        let known: Arc<dyn Known> = self.target.clone();
        let compare = async {
            let to = to;
            self.image.differences(self.wanted, &known, &options, &to).await
        };
        let (target, heard, total) = (self.target.clone(), self.heard.clone(), self.total);
        let apply = blocking(move || apply(&target, from, journal, dry_run, &|done| heard(done, total)));
        let (compared, applied) = tokio::join!(compare, apply);
        // What the disk refuses ends the comparison, too.
        let (applied, journal) = applied?;
        Ok((compared?, applied, journal))
    }
}

/// Writes what differs, as it is told.
fn apply(
    target: &Target,
    mut from: mpsc::Receiver<Difference>,
    mut journal: Journal,
    dry_run: bool,
    heard: &dyn Fn(u64),
) -> Result<(Applied, Journal)> {
    let (mut applied, mut done) = (Applied::default(), 0);
    while let Some(difference) = from.blocking_recv() {
        match difference {
            Difference::Data { offset, bytes } => {
                target.write(offset, &bytes)?;
                applied.written_bytes += bytes.len() as u64;
                applied.first_changed.get_or_insert(offset);
            }
            Difference::Zeros(extent) => {
                if let Some((first, bytes)) = target.make_zeros(extent, dry_run)? {
                    applied.zeroed_bytes += bytes;
                    applied.first_changed.get_or_insert(first);
                }
                done += extent.byte_len();
            }
            Difference::Missing { extent, why } => {
                applied.lacking_bytes += extent.byte_len();
                let full = applied.lacking.len() == MISSING_MAX;
                match applied.lacking.last_mut() {
                    Some(last) if last.extent.end() == extent.start => last.extent.len += extent.len,
                    _ if full => {}
                    _ => applied.lacking.push(Lacking { extent, why }),
                }
            }
            Difference::Looked(bytes) => done += bytes,
            Difference::Proof(proof) => journal.note(&proof)?,
        }
        heard(done);
    }
    Ok((applied, journal))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(lost) => std::panic::resume_unwind(lost.into_panic()),
    }
}
