//! What an image holds that somebody's disk does not, for as few bytes from the bucket as will do: what restoring in place reads.
//!
//! A frame whose blocks all belong to the image is not fetched if the disk holds them already: its bytes there, stored as the
//! writer would have stored them, have the hash that stands in the frame's directory. A hash that differs proves nothing (another
//! compressor has other bytes), so such a frame is fetched and compared. Zeros are never fetched, they are named.
//! Invariant: nothing is called equal but by a hash or by its bytes. Memory is bounded as that of [`crate::scatter`], with which this shares its plan.
//! Not here: writing what differs.

use crate::core::scatter::{Holds, Item, Plan};
use crate::error::{Error, Result};
use crate::image::DiskImage;

use crate::scatter::{BATCH_BYTES, Carriers, ITEMS_MAX, OBJECTS_AT_A_TIME, Parts, is_damage};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tidemark_format::{
    BLOCK_BYTES, Extent, FRAME_PLAIN_BYTES_MAX, FrameCompressor, FrameEntry, FramePart, ObjectKey, frame_hash,
    with_causes,
};
use tidemark_history::{Segment, coalesce};
use tokio::sync::mpsc;

/// Plaintext of the first frames of an object that are looked at together: enough to find out how it was compressed.
const FIRST_BYTES: u64 = 1 << 20;
/// Levels of zstd that are tried with each frame, at most.
const LEVELS_MAX: usize = 3;
/// The level that writers use unless they are told another, and all that there are.
const LEVEL_FIRST: i32 = 1;
const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// A disk to compare with.
pub trait Known: Send + Sync + 'static {
    /// Fills `into` with what is there from `offset` on.
    ///
    /// # Errors
    /// What the system says; comparing ends with it.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// Something about which the disk and the image differ, or may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The image has these bytes, and the disk has others.
    Data {
        /// From this byte on.
        offset: u64,
        /// What the image has.
        bytes: Bytes,
    },
    /// The image has zeros here. What the disk has was not looked at.
    Zeros(Extent),
    /// Nobody has these blocks of the image any more.
    Missing {
        /// The blocks.
        extent: Extent,
        /// Why not.
        why: String,
    },
    /// So many bytes more were looked at.
    Looked(u64),
    /// Everything of an object was told: once it is on the disk, this proves it without the object.
    Proof(Proof),
}

/// Names what an image has of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The first block of the part of the disk that was planned with it.
    pub from: u64,
    /// The object.
    pub key: ObjectKey,
    /// A hash of the blocks that the image has of it.
    pub hash: [u8; 16],
}

/// Proofs by place and object.
pub type Proofs = HashMap<(u64, ObjectKey), [u8; 16]>;

/// How to compare.
#[derive(Clone, Debug, Default)]
pub struct CompareOptions {
    /// What an earlier comparison of the same image proved.
    pub proofs: Arc<Proofs>,
    /// Only count what would be fetched: no [`Difference::Data`].
    pub estimate: bool,
}

/// What comparing took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Bytes of the image that were found on the disk by a hash.
    pub recognised_bytes: u64,
    /// Bytes of objects that were fetched, heads and indexes not counted.
    pub fetched_bytes: u64,
    /// Requests for them.
    pub requests: u64,
}

impl Compared {
    fn plus(self, more: Self) -> Self {
        Self {
            recognised_bytes: self.recognised_bytes + more.recognised_bytes,
            fetched_bytes: self.fetched_bytes + more.fetched_bytes,
            requests: self.requests + more.requests,
        }
    }
}

/// What all objects of one comparison share.
struct Comparison<'a> {
    known: &'a Arc<dyn Known>,
    options: &'a CompareOptions,
    to: &'a mpsc::Sender<Difference>,
    /// Levels that frames were found to be compressed at, the last one first.
    levels: Arc<Mutex<Vec<i32>>>,
}

/// A frame, and the blocks of it that are wanted, in its order.
#[derive(Clone, Debug)]
struct Wanted {
    frame: u32,
    entry: FrameEntry,
    parts: Vec<FramePart>,
}

impl Wanted {
    fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.extent.byte_len()).sum()
    }

    /// Whether all of the frame is wanted, so that its hash says something.
    fn is_whole(&self) -> bool {
        let mut at = 0;
        let follows = self.parts.iter().all(|part| {
            let range = part.plain_range();
            std::mem::replace(&mut at, range.end) == range.start
        });
        follows && at == self.entry.plain_len as usize
    }
}

/// A frame beside what the disk has of it.
struct Looked {
    wanted: Wanted,
    there: Vec<u8>,
    is_recognised: bool,
}

impl DiskImage {
    /// Compares what `wanted` holds, which ascends and does not overlap, with `known`, and tells `to` where they differ. Ends early if
    /// nobody receives any more.
    ///
    /// # Errors
    /// Those of the store, and `Sink` if `known` cannot be read; what was told before is right.
    pub async fn differences(
        &self,
        wanted: &[Extent],
        known: &Arc<dyn Known>,
        options: &CompareOptions,
        to: &mpsc::Sender<Difference>,
    ) -> Result<Compared> {
        let comparison = Comparison { known, options, to, levels: Arc::new(Mutex::new(vec![LEVEL_FIRST])) };
        let mut all = Compared::default();
        let mut parts = Parts::of(wanted, self.blocks).peekable();
        while let Some(begins) = parts.peek().map(|part| part.start).filter(|_| !to.is_closed()) {
            let mut plan = Plan::new(1, self.blocks);
            let mut carriers = Carriers::new();
            while let Some(part) = parts.next_if(|_| plan.len() < ITEMS_MAX) {
                self.plan_differences(part, &mut plan, &mut carriers, to).await?;
                tokio::task::consume_budget().await;
            }
            let objects = stream::iter(plan.finish()).map(|(key, items)| {
                let (sample, comparison) = (carriers.get(&key).copied(), &comparison);
                async move {
                    let (lsn, place) = sample.ok_or(Error::TaskLost)?;
                    let segment = self.segment(lsn, place).await?;
                    self.compare(&segment, &items, begins, comparison).await
                }
            });
            let compared = objects.buffer_unordered(OBJECTS_AT_A_TIME);
            all = all.plus(compared.try_fold(Compared::default(), |sum, one| async move { Ok(sum.plus(one)) }).await?);
        }
        Ok(all)
    }

    /// Plans a part of one region; what is no data is told at once.
    async fn plan_differences(
        &self,
        part: Extent,
        plan: &mut Plan<ObjectKey>,
        carriers: &mut Carriers,
        to: &mpsc::Sender<Difference>,
    ) -> Result<()> {
        let mut told = Vec::new();
        let each = |extent: Extent, holds| match holds {
            Holds::Data { .. } => plan.add(extent, holds),
            Holds::Zeros => told.push(Difference::Zeros(extent)),
            Holds::Unknown => {
                let why = with_causes(&Error::Unknown { disk: self.id, extent, at: self.at.lsn });
                told.push(Difference::Missing { extent, why });
            }
        };
        self.for_each_held(part, carriers, each).await?;
        for difference in told {
            // Whoever receives no more is noticed by the caller.
            let _ = to.send(difference).await;
        }
        Ok(())
    }

    /// Compares the runs of one object.
    async fn compare(
        &self,
        segment: &Arc<Segment>,
        items: &[Item],
        begins: u64,
        with: &Comparison<'_>,
    ) -> Result<Compared> {
        let mut compared = Compared::default();
        let frames = frames_of(segment, items);
        let bytes: u64 = frames.iter().map(Wanted::bytes).sum();
        let place = (begins, segment.key);
        if let Some(hash) = with.options.proofs.get(&place).copied()
            && with.hash_of(&frames).await.map_err(|source| self.unreadable(source))? == hash
        {
            compared.recognised_bytes = bytes;
            let _ = with.to.send(Difference::Looked(bytes)).await;
            return Ok(compared);
        }
        let mut hashes: Vec<u8> = Vec::with_capacity(frames.len() * 16);
        let (mut complete, mut is_foreign) = (true, false);
        let (mut rest, mut bytes_max) = (frames.as_slice(), FIRST_BYTES);
        while !rest.is_empty() && !with.to.is_closed() {
            let batch;
            (batch, rest) = rest.split_at(batch_len(rest, std::mem::replace(&mut bytes_max, BATCH_BYTES)));
            let looked = with.look(batch.to_vec(), is_foreign).await.map_err(|source| self.unreadable(source))?;
            let lacking = || looked.iter().filter(|looked| !looked.is_recognised).map(|looked| looked.wanted.frame);
            let ranges = lacking().filter_map(|f| Some((f, segment.head.frames.object_range(f as usize)?)));
            let options = &self.inner.options;
            for run in coalesce(ranges, options.coalesce_gap_bytes_max, options.coalesce_bytes_max) {
                compared.requests += 1;
                compared.fetched_bytes += run.bytes.end - run.bytes.start;
            }
            let mut fetched = HashMap::new();
            if !with.options.estimate {
                let frames: Vec<u32> = lacking().collect();
                let outcomes = self.inner.frames.get(segment, &frames).await;
                fetched.extend(frames.into_iter().zip(outcomes));
            }
            let mut looked_at = 0;
            for looked in &looked {
                looked_at += looked.wanted.bytes();
                if looked.is_recognised {
                    compared.recognised_bytes += looked.wanted.bytes();
                    hashes.extend(frame_hash(&looked.there));
                    continue;
                }
                match fetched.get(&looked.wanted.frame) {
                    None => complete = false,
                    Some(Ok(plain)) => {
                        let (differs, hash) = with.tell(looked, plain).await;
                        hashes.extend(hash);
                        // It was there, and its hash did not say so: it was compressed in another way.
                        if !differs && !is_foreign && looked.wanted.is_whole() {
                            is_foreign = !with.learn(looked.wanted.entry, plain.clone()).await;
                        }
                    }
                    Some(Err(error)) if is_damage(error.kind()) => {
                        complete = false;
                        for part in &looked.wanted.parts {
                            let why = with_causes(error.as_ref());
                            let _ = with.to.send(Difference::Missing { extent: part.extent, why }).await;
                        }
                    }
                    Some(Err(error)) => return Err(Error::shared(error)),
                }
            }
            let _ = with.to.send(Difference::Looked(looked_at)).await;
        }
        if complete {
            let proof = Proof { from: begins, key: segment.key, hash: frame_hash(&hashes) };
            let _ = with.to.send(Difference::Proof(proof)).await;
        }
        Ok(compared)
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Sink { disk: self.id, source }
    }
}

impl Comparison<'_> {
    /// Reads what the disk has of some frames, and recognises those that it has.
    async fn look(&self, batch: Vec<Wanted>, is_foreign: bool) -> io::Result<Vec<Looked>> {
        let (known, levels) = (Arc::clone(self.known), lock(&self.levels).clone());
        blocking(move || {
            let mut compressors: Vec<FrameCompressor> =
                levels.iter().filter_map(|level| FrameCompressor::new(*level).ok()).collect();
            let look = |wanted: Wanted| {
                let there = read_all(&*known, &wanted)?;
                let is_recognised = !is_foreign
                    && wanted.is_whole()
                    && compressors.iter_mut().any(|compressor| compressor.would_store(&there, &wanted.entry));
                Ok(Looked { wanted, there, is_recognised })
            };
            batch.into_iter().map(look).collect()
        })
        .await
    }

    /// The hash of what the disk has of an object, as a [`Proof`] has it.
    async fn hash_of(&self, frames: &[Wanted]) -> io::Result<[u8; 16]> {
        let (known, frames) = (Arc::clone(self.known), frames.to_vec());
        blocking(move || {
            let mut hashes = Vec::with_capacity(frames.len() * 16);
            for wanted in &frames {
                hashes.extend(frame_hash(&read_all(&*known, wanted)?));
            }
            Ok(frame_hash(&hashes))
        })
        .await
    }

    /// Tells where a frame's plaintext differs from what is there; whether it does, and the hash of what is wanted of it.
    async fn tell(&self, looked: &Looked, plain: &Bytes) -> (bool, [u8; 16]) {
        let (mut differs, mut at) = (false, 0);
        let mut all = Vec::with_capacity(looked.there.len());
        for part in &looked.wanted.parts {
            let range = part.plain_range();
            let wanted = plain.slice(range.clone());
            let there = &looked.there[at..at + wanted.len()];
            at += wanted.len();
            for run in runs_that_differ(there, &wanted) {
                differs = true;
                let offset = part.extent.byte_start() + run.start as u64;
                let _ = self.to.send(Difference::Data { offset, bytes: wanted.slice(run) }).await;
            }
            all.extend_from_slice(&wanted);
        }
        (differs, frame_hash(&all))
    }

    /// Finds out at which level a frame was compressed; false if none of ours makes it.
    async fn learn(&self, entry: FrameEntry, plain: Bytes) -> bool {
        let known = lock(&self.levels).clone();
        let found = blocking(move || {
            let fits = |level: &i32| {
                FrameCompressor::new(*level).is_ok_and(|mut compressor| compressor.would_store(&plain, &entry))
            };
            // Another frame may have taught it meanwhile.
            Ok(known.iter().copied().chain(LEVELS.filter(|level| !known.contains(level))).find(fits))
        });
        let Ok(Some(level)) = found.await else { return false };
        let mut levels = lock(&self.levels);
        levels.retain(|known| *known != level);
        levels.insert(0, level);
        levels.truncate(LEVELS_MAX);
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|lost| Err(io::Error::other(lost)))
}

/// What the disk has of the wanted blocks of a frame, in the frame's order.
fn read_all(known: &dyn Known, wanted: &Wanted) -> io::Result<Vec<u8>> {
    let mut all = vec![0; wanted.bytes() as usize];
    let mut at = 0;
    for part in &wanted.parts {
        let len = part.extent.byte_len() as usize;
        known.read(part.extent.byte_start(), &mut all[at..at + len])?;
        at += len;
    }
    Ok(all)
}

/// Runs of blocks that are not the same in both.
fn runs_that_differ(a: &[u8], b: &[u8]) -> Vec<Range<usize>> {
    const BLOCK: usize = BLOCK_BYTES as usize;
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (at, (a, b)) in a.chunks(BLOCK).zip(b.chunks(BLOCK)).enumerate().filter(|(_, (a, b))| a != b) {
        let start = at * BLOCK;
        let end = start + a.len().max(b.len());
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

/// The frames that hold the runs, ascending, each with its blocks in its own order.
fn frames_of(segment: &Segment, items: &[Item]) -> Vec<Wanted> {
    let mut frames: BTreeMap<u32, Vec<FramePart>> = BTreeMap::new();
    let data = items.iter().filter_map(|item| Some((item.extent, item.block?)));
    for part in data.flat_map(|(extent, block)| segment.head.frames.cut(extent, block.into())) {
        frames.entry(part.frame).or_default().push(part);
    }
    let wanted = |(frame, mut parts): (u32, Vec<FramePart>)| {
        parts.sort_unstable_by_key(|part| part.plain_range().start);
        let entry = *segment.head.frames.entry(frame as usize)?;
        Some(Wanted { frame, entry, parts })
    };
    frames.into_iter().filter_map(wanted).collect()
}

/// How many of the first frames have so many bytes together; at least one.
fn batch_len(frames: &[Wanted], bytes_max: u64) -> usize {
    let mut bytes = 0;
    let fits = |wanted: &&Wanted| {
        bytes += u64::from(wanted.entry.plain_len);
        bytes <= bytes_max
    };
    frames.iter().take_while(fits).count().max(1)
}

const _: () = assert!(FRAME_PLAIN_BYTES_MAX as u64 <= FIRST_BYTES && FIRST_BYTES <= BATCH_BYTES);
