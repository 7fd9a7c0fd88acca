//! Seeding: what a disk held before it was protected becomes base objects, beside the running log.
//!
//! The log marks the start (SEED_START at LSN P0); base objects hold rows that are logically at P0, so whatever the guest
//! has written since wins over them, in whatever order they arrive. Each base object is named by a SEED_EXTENT event after
//! its PUT, and SEED_DONE and CONSISTENT_FROM close the seed.

use crate::core::layout::{Body, Entry};
use crate::error::{Error, FenceCause, Result};
use crate::options::WRITE_BYTES_MAX;
use crate::shell::build::{Built, Compressors, Frozen, freeze};
use crate::shell::driver::salt;
use crate::shell::retry::put_owned;
use crate::shell::shared::Shared;
use crate::writer::{DomainWriter, When, whole_blocks};
use bytes::Bytes;
use futures::stream::FuturesOrdered;
use futures::{Stream, StreamExt};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tidemark_bucket::Appender;
use tidemark_format::{
    BaseRef, DiskId, EventBody, Extent, Lsn, ObjectKey, Role, SegmentDraft, SegmentIdentity, SegmentKind, Seq,
    TICK_NS_DEFAULT, TimeNs, TimeStep,
};
use tokio::task::JoinSet;

/// Base objects under way at once; each holds up to a segment of plaintext.
const IN_FLIGHT_MAX: usize = 2;
/// Pieces of one base object at most.
const PIECES_MAX: usize = 1 << 17;

/// A run of a disk's contents, in ascending order of offsets.
#[derive(Clone, Debug)]
pub enum SeedPiece {
    /// Bytes. Runs of zeros in them are recognised.
    Data {
        /// First byte, on a block edge.
        offset: u64,
        /// Whole blocks, at most [`WRITE_BYTES_MAX`] bytes.
        data: Bytes,
    },
    /// Known to be zeros, as a hole of a sparse file is.
    Zero {
        /// First byte, on a block edge.
        offset: u64,
        /// Bytes, whole blocks.
        len: u64,
    },
}

/// What a seed amounted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeded {
    /// The point that the base objects stand for.
    pub from: Lsn,
    /// From here on the disk is restorable.
    pub consistent_from: Lsn,
    /// Base objects written.
    pub objects: u64,
    /// Bytes of their data, compressed.
    pub stored_bytes: u64,
}

/// A base object being filled: one run of blocks without a hole.
#[derive(Default)]
struct Filling {
    entries: Vec<Entry>,
    bytes: u64,
    extent: Option<Extent>,
}

/// A base object that is durable in the bucket. It counts once a SEED_EXTENT in the log names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseObject {
    /// The object.
    pub base: BaseRef,
    /// The blocks that it covers, every one of them.
    pub extent: Extent,
    /// Bytes of its data, compressed.
    pub stored_bytes: u64,
}

impl DomainWriter {
    /// Brings the existing contents of a disk into the bucket and waits until the disk is restorable. The guest may go on
    /// writing meanwhile. Blocks that `pieces` leaves out stay unknown.
    ///
    /// # Errors
    /// `Seed` if the pieces overlap, leave the disk or fail to come; why the writer stopped, if it did. The seed may be
    /// started over then.
    pub async fn seed(
        &self,
        disk: DiskId,
        pieces: impl Stream<Item = std::io::Result<SeedPiece>>,
        when: When,
    ) -> Result<Seeded> {
        let (from, time) = self.submit_disk_event(disk, EventBody::SeedStart { disk }, when).await?;
        let blocks = self.shared.log().disks().get(disk)?.blocks;
        let mut pieces = pin!(pieces);
        let mut under_way = FuturesOrdered::new();
        let mut filling = Filling::default();
        let mut next_block = 0;
        let mut seeded = Seeded { from, consistent_from: from, objects: 0, stored_bytes: 0 };
        loop {
            let entry = match pieces.next().await {
                None => None,
                Some(Ok(piece)) => Some(piece.entry(disk, from)?),
                Some(Err(e)) => return Err(Error::Seed { disk, why: e.to_string() }),
            };
            let fits = |e: Extent| e.start >= next_block && e.len > 0 && e.end() <= blocks;
            if let Some(bad) = entry.as_ref().map(|entry| entry.extent).filter(|extent| !fits(*extent)) {
                let why = format!("piece {bad} is empty, out of order or beyond block {blocks}");
                return Err(Error::Seed { disk, why });
            }
            let over = entry.as_ref().is_none_or(|entry| filling.is_full(self.shared.options.segment_bytes_max, entry));
            if let (true, Some(extent)) = (over, filling.extent) {
                if under_way.len() >= IN_FLIGHT_MAX {
                    let stored = under_way.next().await.expect("some are under way");
                    self.name(disk, stored?, when, &mut seeded).await?;
                }
                let entries = std::mem::take(&mut filling).entries;
                under_way.push_back(start(self.base(from, time, entries, extent)));
            }
            let Some(entry) = entry else { break };
            next_block = entry.extent.end();
            filling.add(entry);
        }
        while let Some(stored) = under_way.next().await {
            self.name(disk, stored?, when, &mut seeded).await?;
        }
        self.submit_disk_event(disk, EventBody::SeedDone { disk }, when).await?;
        let (lsn, time) = self.submit_disk_event(disk, EventBody::ConsistentFrom { disk }, when).await?;
        self.cut_now();
        self.ticket(lsn, time).committed().await?;
        seeded.consistent_from = lsn;
        Ok(seeded)
    }

    /// Puts one base object for a seed that began at `from`, whose time is `time`: pieces in ascending order without a hole
    /// between them. For callers that log SEED_START, SEED_EXTENT and SEED_DONE themselves, in a replication log.
    ///
    /// # Errors
    /// `Seed` for pieces that are not so, and why the writer stopped, if it did.
    pub async fn put_base(&self, disk: DiskId, from: Lsn, time: TimeNs, pieces: Vec<SeedPiece>) -> Result<BaseObject> {
        let mut filling = Filling::default();
        for piece in pieces {
            let entry = piece.entry(disk, from)?;
            if entry.extent.len == 0 || filling.is_full(u64::MAX, &entry) {
                let why = format!("piece {} is empty, does not adjoin, or is one too many", entry.extent);
                return Err(Error::Seed { disk, why });
            }
            filling.add(entry);
        }
        let nothing = || Error::Seed { disk, why: "there is nothing to put".to_owned() };
        let extent = filling.extent.ok_or_else(nothing)?;
        start(self.base(from, time, filling.entries, extent)).await
    }

    /// The task that builds and puts one base object.
    fn base(
        &self,
        from: Lsn,
        time: TimeNs,
        entries: Vec<Entry>,
        extent: Extent,
    ) -> impl Future<Output = Result<BaseObject>> + Send + 'static {
        let seq = Seq::new(self.base_seq.fetch_add(1, Ordering::Relaxed));
        let identity = SegmentIdentity {
            domain: self.shared.domain,
            kind: SegmentKind::Base,
            role: Role::Writer,
            epoch: self.shared.epoch,
            seq,
        };
        let step = TimeStep { lsn: from, time };
        let (shared, bucket, compressors) = (self.shared.clone(), self.bucket.clone(), self.compressors.clone());
        put_base(shared, bucket, compressors, identity, step, entries, extent)
    }

    /// Says in the log that a base object is there.
    async fn name(&self, disk: DiskId, stored: BaseObject, when: When, seeded: &mut Seeded) -> Result<()> {
        let BaseObject { base, extent, stored_bytes } = stored;
        self.submit_disk_event(disk, EventBody::SeedExtent { disk, base, extent }, when).await?;
        seeded.objects += 1;
        seeded.stored_bytes += stored_bytes;
        Ok(())
    }
}

impl SeedPiece {
    fn entry(self, disk: DiskId, lsn: Lsn) -> Result<Entry> {
        let (extent, body) = match self {
            Self::Zero { offset, len } => (whole_blocks(disk, offset, len)?, Body::Zero),
            Self::Data { offset, data } => {
                let value = data.len() as u64;
                if value > WRITE_BYTES_MAX {
                    return Err(Error::Limit {
                        what: "length of a seed's piece in bytes",
                        value,
                        max: WRITE_BYTES_MAX,
                    });
                }
                (whole_blocks(disk, offset, value)?, Body::Data(data))
            }
        };
        Ok(Entry { lsn, disk, extent, body })
    }
}

impl Filling {
    /// True if `next` must go into another object: this one is full, or `next` does not adjoin.
    fn is_full(&self, bytes_max: u64, next: &Entry) -> bool {
        let adjoins = self.extent.is_none_or(|extent| extent.end() == next.extent.start);
        !adjoins || self.bytes >= bytes_max || self.entries.len() >= PIECES_MAX
    }

    fn add(&mut self, entry: Entry) {
        self.extent = Some(match self.extent {
            Some(extent) => Extent::new(extent.start, extent.len + entry.extent.len),
            None => entry.extent,
        });
        if let Body::Data(data) = &entry.body {
            self.bytes += data.len() as u64;
        }
        self.entries.push(entry);
    }
}

async fn put_base(
    shared: Arc<Shared>,
    bucket: Appender,
    compressors: Compressors,
    identity: SegmentIdentity,
    step: TimeStep,
    entries: Vec<Entry>,
    extent: Extent,
) -> Result<BaseObject> {
    let key = ObjectKey::Base { role: identity.role, epoch: identity.epoch, seq: identity.seq };
    let seal = |source| Error::Seal { key, source };
    let built = compressors.build(entries).await.map_err(seal)?;
    let stored_bytes = built.stored_bytes();
    let salt = salt(&shared);
    let freezing = tokio::task::spawn_blocking(move || {
        let Built { rows, frames, data } = built;
        let draft = SegmentDraft {
            identity,
            first_lsn: step.lsn,
            last_lsn: step.lsn,
            acked_through: Lsn::ZERO,
            prev_header_hash: [0; 32],
            salt,
            tick_ns: TICK_NS_DEFAULT,
            times: &[step],
            rows: &rows,
            events: &[],
            frames: &frames,
        };
        freeze(&draft, data)
    });
    let Frozen { object, header_hash } = freezing.await.map_err(|_| Error::Closed)?.map_err(seal)?;
    //= SPEC.md#events
    //# E-5
    if put_owned(&shared, &bucket, key, &object).await.is_err() {
        let fenced = Error::Fenced { epoch: identity.epoch, cause: FenceCause::EpochCollision };
        return Err(shared.log().stopped().cloned().unwrap_or(fenced));
    }
    let base = BaseRef { role: identity.role, epoch: identity.epoch, seq: identity.seq, header_hash };
    Ok(BaseObject { base, extent, stored_bytes })
}

/// Starts `work` on its own, so that it goes on while the next piece is awaited; dropping the result ends it.
fn start(work: impl Future<Output = Result<BaseObject>> + Send + 'static) -> impl Future<Output = Result<BaseObject>> {
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    async move {
        match tasks.join_next().await.expect("one task was spawned") {
            Ok(done) => done,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Closed),
            },
        }
    }
}
