//! Background replication: brings what a disk holds already into the bucket, while its guest writes.
//!
//! SEED_START in the log marks P0; base objects hold what the disk reads as, in the order of blocks, and are logically at
//! P0, so whatever the guest has written since wins over them (SPEC.md R-5). Each is named by a SEED_EXTENT once it is
//! durable; SEED_DONE and CONSISTENT_FROM end the seed. All of it is in the log, so a seed goes on behind a restart from
//! its last SEED_EXTENT.

use crate::core::phase::Phase;
use crate::domain::{ProtectedDomain, log_planned};
use crate::error::{Error, Result};
use crate::pace;
use crate::shared::Shared;
use async_trait::async_trait;
use std::any::Any;
use std::time::Duration;
use tidemark_format::{BLOCK_BYTES, DiskId, ErrorKind, EventBody, Extent};
use tidemark_log_store::Record;
use tidemark_writer::{DomainWriter, SeedPiece, Submission};

/// Blocks that are read from a source at once: 1 MiB.
pub(crate) const READ_BLOCKS: u64 = (1 << 20) / BLOCK_BYTES;
/// Blocks that one base object covers at most, however empty they are: 64 GiB.
const OBJECT_BLOCKS_MAX: u64 = (64 << 30) / BLOCK_BYTES;
/// Room in the log is asked for again at least this often.
pub(crate) const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// What a seed leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// A restorable disk: the source was the disk itself.
    Restorable,
    /// A disk that is to be compared first: the source was a copy of it.
    Compared,
}

/// A disk's contents as its guest sees them.
#[async_trait]
pub trait Source: Send + Sync {
    /// What a run of blocks holds: pieces in order that cover all of it. Everything that had its place in the log before
    /// the call is in it.
    async fn read(&self, extent: Extent) -> std::io::Result<Vec<SeedPiece>>;

    /// Keeps guest writes out of a run of blocks until the guard is dropped: none gets its place in the log meanwhile.
    async fn hold(&self, extent: Extent) -> Box<dyn Any + Send>;
}

impl ProtectedDomain {
    /// Seeds a disk, or goes on with a seed that a restart interrupted, and returns once that is logged: the disk is
    /// restorable then, or to be compared by [`Self::close_gap`]. The guest may write meanwhile. Blocks that cannot be read end it; it may be begun again.
    ///
    /// # Errors
    /// `Source` if the disk cannot be read; `NotTaking` if the domain stops being protected here.
    pub async fn seed(&self, disk: DiskId, source: &dyn Source, ends: Ends) -> Result<()> {
        let blocks = self.disks().get(disk).map_err(Error::writer("seed the disk"))?.blocks;
        let under_way = self.shared.state().ledger.seeds.get(&disk).copied();
        let seed = match under_way {
            Some(seed) => seed,
            None => {
                self.log_when_room(vec![EventBody::SeedStart { disk }]).await?;
                let state = self.shared.state();
                *state.ledger.seeds.get(&disk).ok_or(Error::DiskState { disk, state: "gone" })?
            }
        };
        let mut next = seed.next_block;
        while next < blocks {
            let (pieces, end) = self.gather(source, disk, next, blocks).await?;
            let stored = loop {
                let writer = self.writer().await?;
                match writer.put_base(disk, seed.from, seed.time, pieces.clone()).await {
                    Ok(stored) => break stored,
                    // The writer was replaced by another of ours, or is about to be: the next one can put it.
                    Err(e) if matches!(e.kind(), ErrorKind::Retry | ErrorKind::Fenced) => {
                        self.writer_is_over(&writer).await
                    }
                    Err(e) => return Err(Error::writer("seed the disk")(e)),
                }
            };
            //= SPEC.md#events
            //# E-5
            self.log_when_room(vec![EventBody::SeedExtent { disk, base: stored.base, extent: stored.extent }]).await?;
            next = end;
        }
        let restorable = (ends == Ends::Restorable).then_some(EventBody::ConsistentFrom { disk });
        self.log_when_room([EventBody::SeedDone { disk }].into_iter().chain(restorable).collect()).await
    }

    /// The pieces of the next base object, and the block behind them.
    async fn gather(
        &self,
        source: &dyn Source,
        disk: DiskId,
        first: u64,
        blocks: u64,
    ) -> Result<(Vec<SeedPiece>, u64)> {
        let bytes_max = self.shared.options.writer.segment_bytes_max;
        let (mut pieces, mut bytes, mut at) = (Vec::new(), 0, first);
        while at < blocks && bytes < bytes_max && at - first < OBJECT_BLOCKS_MAX {
            let extent = Extent::new(at, READ_BLOCKS.min(blocks - at));
            let bad = |why: String| Error::Source { disk, why };
            pace::before_seeding(&self.shared, extent.byte_len()).await;
            let read = source.read(extent).await.map_err(|e| bad(e.to_string()))?;
            let mut covered = extent.start * BLOCK_BYTES;
            for piece in read {
                let (offset, len) = match &piece {
                    SeedPiece::Data { offset, data } => (*offset, data.len() as u64),
                    SeedPiece::Zero { offset, len } => (*offset, *len),
                };
                if offset != covered {
                    return Err(bad(format!("byte {covered} is missing from what was read of {extent}")));
                }
                covered += len;
                bytes += if matches!(piece, SeedPiece::Data { .. }) { len } else { 0 };
                pieces.push(piece);
            }
            if covered != extent.end() * BLOCK_BYTES {
                return Err(bad(format!("what was read of {extent} ends at byte {covered}")));
            }
            at = extent.end();
        }
        Ok((pieces, at))
    }

    /// The writer, once the domain is ours.
    async fn writer(&self) -> Result<std::sync::Arc<DomainWriter>> {
        loop {
            {
                let state = self.shared.state();
                state.check_taking()?;
                if let (Phase::Replicating, Some(writer)) = (state.phase, &state.writer) {
                    return Ok(writer.clone());
                }
            }
            self.shared.wait_until(|state| state.writer.is_some() || !state.phase.takes_writes()).await;
        }
    }

    /// Waits until the domain has let go of a writer.
    async fn writer_is_over(&self, writer: &DomainWriter) {
        let epoch = writer.epoch();
        self.shared.wait_until(|state| state.writer.as_ref().is_none_or(|writer| writer.epoch() != epoch)).await;
    }

    /// Logs events with nothing in between, waiting for room if there is none, and waits until they are durable.
    pub(crate) async fn log_when_room(&self, events: Vec<EventBody>) -> Result<()> {
        let plan = || events.iter().cloned().map(Submission::Event).collect();
        self.log_waiting(plan, |_| {}).await
    }

    pub(crate) async fn log_waiting(
        &self,
        plan: impl Fn() -> Vec<Submission>,
        placed: impl Fn(&[Record]),
    ) -> Result<()> {
        loop {
            match log_planned(&self.shared, |_| Ok(plan()), &placed) {
                Ok(logged) => return logged.durable().await.map(drop),
                Err(e) if e.is_full() => self.room_or(ROOM_PAUSE).await,
                Err(e) => return Err(e),
            }
        }
    }
}

impl Shared {
    /// Whether a seed of the disk is under way.
    pub(crate) fn is_seeding(&self, disk: DiskId) -> bool {
        self.state().ledger.seeds.contains_key(&disk)
    }
}
