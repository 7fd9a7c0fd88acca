//! Large parts of an image, object by object: each object is streamed once and what it holds is scattered over the disk.
//! What hydration reads; what restoring in place reads is in [`crate::differences`].
//!
//! Memory is bounded: a plan of at most [`ITEMS_MAX`] runs, and [`OBJECTS_AT_A_TIME`] batches of some [`BATCH_BYTES`]. A disk
//! with more runs is planned in several windows.
//! Not here: what is planned ([`crate::core::scatter`]), and what is left out of it: [`DiskImage::read`] has that.

use crate::core::scatter::{Holds, Item, Plan};
use crate::error::{Error, Result};
use crate::image::DiskImage;
use crate::load::places;
use crate::maps::Place;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tidemark_extent_map::State;
use tidemark_format::{BLOCK_BYTES, ErrorKind, Extent, Lsn, ObjectKey, REGION_BLOCKS, Role};
use tidemark_history::Segment;
use tokio::sync::mpsc;

/// Blocks of a unit that is handed out whole: 4 KiB.
const UNIT_BLOCKS: u64 = 8;
const UNIT_BYTES: u64 = UNIT_BLOCKS * BLOCK_BYTES;
/// Runs planned at a time.
pub(crate) const ITEMS_MAX: usize = 1 << 19;
/// Plaintext of the frames that a batch is cut out of, at most by one frame more.
pub(crate) const BATCH_BYTES: u64 = 8 << 20;
/// Objects that are streamed side by side.
pub(crate) const OBJECTS_AT_A_TIME: usize = 4;

/// Runs of bytes with their offsets on the disk.
type Batch = Vec<(u64, Bytes)>;
/// A place in an object, as some version has it; any of them leads to the object.
pub(crate) type Carriers = HashMap<ObjectKey, (Lsn, Place)>;

/// The parts of extents, which ascend and do not overlap, that lie in one region each and on the disk.
pub(crate) struct Parts<'a> {
    wanted: &'a [Extent],
    from: u64,
    disk_blocks: u64,
}

impl<'a> Parts<'a> {
    pub(crate) fn of(wanted: &'a [Extent], disk_blocks: u64) -> Self {
        Self { wanted, from: 0, disk_blocks }
    }
}

impl Iterator for Parts<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        while let Some(extent) = self.wanted.first() {
            let (start, end) = (extent.start.max(self.from), extent.end().min(self.disk_blocks));
            self.from = ((start / REGION_BLOCKS + 1) * REGION_BLOCKS).min(end);
            if self.from >= end {
                self.wanted = &self.wanted[1..];
            }
            if start < self.from {
                return Some(Extent::new(start, self.from - start));
            }
        }
        None
    }
}

impl DiskImage {
    /// Sends what `wanted` holds, which ascends and does not overlap, to `to`: runs of whole units of 4 KiB, verified, batch by
    /// batch in the order of the objects that hold them. Left out are units of zeros alone, units that several objects hold
    /// parts of, and those that are unknown or damaged. Ends early if nobody receives any more.
    ///
    /// # Errors
    /// Those of the store; what was sent before is good.
    pub async fn scatter(&self, wanted: &[Extent], to: &mpsc::Sender<Batch>) -> Result<()> {
        let mut parts = Parts::of(wanted, self.blocks).peekable();
        while parts.peek().is_some() && !to.is_closed() {
            let mut plan = Plan::new(UNIT_BLOCKS, self.blocks);
            let mut carriers = Carriers::new();
            while let Some(part) = parts.next_if(|_| plan.len() < ITEMS_MAX) {
                self.plan(part, &mut plan, &mut carriers).await?;
                tokio::task::consume_budget().await;
            }
            let streams = stream::iter(plan.finish()).map(|(key, items)| {
                let sample = carriers.get(&key).copied();
                async move {
                    let (lsn, place) = sample.ok_or(Error::TaskLost)?;
                    let segment = self.segment(lsn, place).await?;
                    self.stream(&segment, &items, to).await
                }
            });
            streams.buffer_unordered(OBJECTS_AT_A_TIME).try_collect::<()>().await?;
        }
        Ok(())
    }

    /// Adds the pieces of a part of one region to a plan.
    async fn plan(&self, part: Extent, plan: &mut Plan<ObjectKey>, carriers: &mut Carriers) -> Result<()> {
        self.for_each_held(part, carriers, |extent, holds| plan.add(extent, holds)).await
    }

    /// Says what the blocks of a part of one region hold, in order.
    pub(crate) async fn for_each_held(
        &self,
        part: Extent,
        carriers: &mut Carriers,
        mut each: impl FnMut(Extent, Holds<ObjectKey>),
    ) -> Result<()> {
        let map = self.map_of(part.start / REGION_BLOCKS).await?;
        let mut last: Option<(Lsn, ObjectKey)> = None;
        for piece in map.clipped(part) {
            let place = match piece.state {
                State::Zero | State::Unmap => {
                    each(piece.extent, Holds::Zeros);
                    continue;
                }
                State::Unknown => {
                    each(piece.extent, Holds::Unknown);
                    continue;
                }
                State::Data(place) => place,
            };
            let key = match last.filter(|(lsn, _)| *lsn == piece.lsn && place.segment == Place::INDEXED) {
                Some((_, key)) => key,
                None => self.key_of(piece.lsn, place).await?,
            };
            last = Some((piece.lsn, key));
            carriers.entry(key).or_insert((piece.lsn, place));
            let held = match key {
                // Where its bytes are, a compact segment says itself.
                ObjectKey::Base { role: Role::Maintenance, .. } if place.segment == Place::INDEXED => {
                    places(self.id, &piece, place, &*self.segment(piece.lsn, place).await?)
                }
                _ => vec![(piece.extent, place)],
            };
            let mut at = piece.extent.start;
            for (extent, place) in held {
                if at < extent.start {
                    each(Extent::new(at, extent.start - at), Holds::Unknown);
                }
                each(extent, Holds::Data { carrier: key, block: place.block });
                at = extent.end();
            }
            if at < piece.extent.end() {
                each(Extent::new(at, piece.extent.end() - at), Holds::Unknown);
            }
        }
        Ok(())
    }

    /// The object that a place of a version of `lsn` points into, without reading it.
    async fn key_of(&self, lsn: Lsn, place: Place) -> Result<ObjectKey> {
        let number = place.segment;
        if let Some(index) = self.timeline.index.as_ref().filter(|_| number == Place::INDEXED) {
            return Ok(index.segment_of(lsn).await?.key());
        }
        let key = if number & Place::BASE == 0 {
            self.timeline.log.segments.get(number as usize).map(|segment| segment.key)
        } else {
            self.parts.get((number & !Place::BASE) as usize).map(|part| part.key())
        };
        key.ok_or(Error::TaskLost)
    }

    /// Streams the runs of one object.
    async fn stream(&self, segment: &Arc<Segment>, items: &[Item], to: &mpsc::Sender<Batch>) -> Result<()> {
        let mut rest = items;
        while !rest.is_empty() && !to.is_closed() {
            let (batch, frames) = next_batch(segment, rest);
            rest = &rest[batch.len()..];
            let wanted: Vec<u32> = frames.into_iter().collect();
            let outcomes = self.inner.frames.get(segment, &wanted).await;
            let frames: BTreeMap<u32, _> = wanted.into_iter().zip(outcomes).collect();
            let mut pieces = Batch::new();
            for item in batch {
                let mut at = item.extent.byte_start();
                let Some(block) = item.block else {
                    const ZEROS: &[u8] = &[0; UNIT_BYTES as usize];
                    pieces.push((at, Bytes::from_static(&ZEROS[..item.extent.byte_len() as usize])));
                    continue;
                };
                for part in segment.head.frames.cut(item.extent, block.into()) {
                    match frames.get(&part.frame) {
                        Some(Ok(plain)) => pieces.push((at, plain.slice(part.plain_range()))),
                        // Whoever reads these blocks is told what is wrong with them.
                        Some(Err(error)) if is_damage(error.kind()) => {}
                        Some(Err(error)) => return Err(Error::shared(error)),
                        None => return Err(Error::TaskLost),
                    }
                    at += part.extent.byte_len();
                }
            }
            if to.send(pieces).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

pub(crate) fn is_damage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::DataLoss | ErrorKind::NotFound)
}

/// The first of `items` whose frames together have some [`BATCH_BYTES`], with these frames. Ends at the edge of a unit.
fn next_batch<'a>(segment: &Segment, items: &'a [Item]) -> (&'a [Item], BTreeSet<u32>) {
    let (mut frames, mut bytes) = (BTreeSet::new(), 0);
    for (at, item) in items.iter().enumerate() {
        if bytes >= BATCH_BYTES && item.extent.start.is_multiple_of(UNIT_BLOCKS) {
            return (&items[..at], frames);
        }
        let Some(block) = item.block else { continue };
        for part in segment.head.frames.cut(item.extent, block.into()) {
            if frames.insert(part.frame) {
                let entry = segment.head.frames.entry(part.frame as usize);
                bytes += entry.map_or(0, |entry| u64::from(entry.plain_len));
            }
        }
    }
    (items, frames)
}
