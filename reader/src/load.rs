//! From a range of an image to the bytes of its blocks: pieces of the map, frames of the segments, slices of the frames.

use crate::cache::Source;
use crate::core::log::Segment;
use crate::error::{Error, Result};
use crate::image::{DiskImage, Failure};
use crate::maps::{Place, RegionMap};
use bytes::Bytes;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tidemark_extent_map::{Piece, State};
use tidemark_format::{BLOCK_BYTES, DiskId, ErrorKind, Extent, Lsn, ObjectKey};

/// What was found of a range.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Blocks and their bytes, in order.
    pub(crate) pieces: Vec<(Extent, Source)>,
    /// Blocks of the core that could not be had, in order.
    pub(crate) failures: Vec<Failure>,
    /// Blocks around the core that would have needed frames of their own.
    pub(crate) absent: Vec<Extent>,
}

/// Frames at hand: by segment and frame number.
type Frames = HashMap<(u32, u32), Result<Bytes, Arc<Error>>>;

/// A run of blocks that lies in one frame.
pub(crate) struct InFrame {
    pub(crate) extent: Extent,
    pub(crate) frame: u32,
    /// First byte in the frame's plaintext.
    from: usize,
}

impl InFrame {
    /// Its bytes, out of the frame's plaintext.
    pub(crate) fn of(&self, plain: &Bytes) -> Bytes {
        plain.slice(self.from..self.from + self.extent.byte_len() as usize)
    }
}

impl DiskImage {
    /// Loads the blocks of `core`, and those of `window` around it as far as they come from the same frames.
    pub(crate) async fn load(&self, map: &RegionMap, core: Extent, window: Extent) -> Result<Loaded> {
        let mut segments: BTreeMap<u32, (Arc<Segment>, BTreeSet<u32>)> = BTreeMap::new();
        for piece in map.clipped(core) {
            let State::Data(place) = piece.state else { continue };
            let (segment, frames) = match segments.entry(place.segment) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(slot) => slot.insert((self.segment(place.segment).await?, BTreeSet::new())),
            };
            frames.extend(in_frames(segment, piece.extent, place).map(|part| part.frame));
        }
        let fetches = segments.iter().map(|(number, (segment, frames))| async move {
            let frames: Vec<u32> = frames.iter().copied().collect();
            let outcomes = self.inner.frames.get(segment, &frames).await;
            frames.into_iter().zip(outcomes).map(|(frame, outcome)| ((*number, frame), outcome)).collect::<Vec<_>>()
        });
        let frames: Frames = futures::future::join_all(fetches).await.into_iter().flatten().collect();

        let mut loaded = Loaded::default();
        let left = Extent::new(window.start, core.start.saturating_sub(window.start));
        let right = Extent::new(core.end(), window.end().saturating_sub(core.end()));
        for (part, is_core) in [(left, false), (core, true), (right, false)] {
            if part.len == 0 {
                continue;
            }
            for piece in map.clipped(part) {
                match piece.state {
                    State::Zero | State::Unmap => {
                        loaded.pieces.push((piece.extent, Source::Zeros(piece.extent.byte_len() as usize)));
                    }
                    State::Unknown if is_core => {
                        let (disk, extent, at) = (self.id, piece.extent, self.at.lsn);
                        loaded.failures.push(Failure { extent, error: Error::Unknown { disk, extent, at } });
                    }
                    State::Unknown => loaded.absent.push(piece.extent),
                    State::Data(place) => match segments.get(&place.segment) {
                        Some((segment, _)) => self.cut_out(&piece, place, segment, &frames, is_core, &mut loaded),
                        None => loaded.absent.push(piece.extent),
                    },
                }
            }
        }
        Ok(loaded)
    }

    /// Slices the blocks of a data piece out of the frames at hand.
    fn cut_out(
        &self,
        piece: &Piece<Place>,
        place: Place,
        segment: &Segment,
        frames: &Frames,
        is_core: bool,
        loaded: &mut Loaded,
    ) {
        for part in in_frames(segment, piece.extent, place) {
            match frames.get(&(place.segment, part.frame)) {
                Some(Ok(plain)) => {
                    loaded.pieces.push((part.extent, Source::Bytes(part.of(plain))));
                }
                Some(Err(error)) if is_core => {
                    let error = failed(self.id, part.extent, piece.lsn, segment.key, error);
                    loaded.failures.push(Failure { extent: part.extent, error });
                }
                _ => loaded.absent.push(part.extent),
            }
        }
    }
}

/// Why the blocks of `extent`, written at `lsn` to an object, cannot be had.
pub(crate) fn failed(disk: DiskId, extent: Extent, lsn: Lsn, key: ObjectKey, error: &Arc<Error>) -> Error {
    match error.kind() {
        ErrorKind::DataLoss | ErrorKind::NotFound => {
            Error::Damaged { disk, extent, lsn, key, source: Arc::clone(error) }
        }
        _ => Error::shared(error),
    }
}

/// Cuts a data piece at the edges of its frames. A directory that ends too early, which decoding rules out, ends the list.
pub(crate) fn in_frames(segment: &Segment, extent: Extent, place: Place) -> impl Iterator<Item = InFrame> {
    let frames = &segment.head.frames;
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == extent.len {
            return None;
        }
        let (frame, from) = frames.locate((u64::from(place.block) + done) * BLOCK_BYTES)?;
        let left = (u64::from(frames.entry(frame)?.plain_len) - u64::from(from)) / BLOCK_BYTES;
        let len = left.min(extent.len - done);
        let part = InFrame { extent: Extent::new(extent.start + done, len), frame: frame as u32, from: from as usize };
        done += len;
        Some(part)
    })
}
