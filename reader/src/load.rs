//! From a range of an image to the bytes of its blocks: pieces of the map, frames of the segments, slices of the frames.

use crate::cache::Source;
use crate::error::{Error, Result};
use crate::image::{DiskImage, Failure};
use crate::maps::{Place, RegionMap};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tidemark_extent_map::{Piece, State};
use tidemark_format::{DiskId, ErrorKind, Extent, Lsn, ObjectKey, SegmentKind};
use tidemark_history::Segment;

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

/// Frames at hand: by uid of the segment and frame number.
type Frames = HashMap<(u32, u32), Result<Bytes, Arc<Error>>>;

/// The segments that hold the blocks at hand, by uid, and the frames wanted of each.
#[derive(Default)]
struct Segments(BTreeMap<u32, (Arc<Segment>, BTreeSet<u32>)>);

impl Segments {
    /// The segment that a place of a version of `lsn` points into, if it is at hand.
    fn find(&self, image: &DiskImage, lsn: Lsn, place: Place) -> Option<&(Arc<Segment>, BTreeSet<u32>)> {
        let mut all = self.0.values();
        match place.segment {
            Place::INDEXED => all.find(|(s, _)| s.holds_lsns() && s.first() <= lsn && lsn <= s.last()),
            number if number & Place::BASE != 0 => {
                let key = image.parts.get((number & !Place::BASE) as usize)?.key();
                all.find(|(s, _)| s.key == key)
            }
            number => self.0.get(&image.timeline.log.segments.get(number as usize)?.uid),
        }
    }

    fn of(&mut self, image: &DiskImage, lsn: Lsn, place: Place) -> Option<&mut (Arc<Segment>, BTreeSet<u32>)> {
        let uid = self.find(image, lsn, place)?.0.uid;
        self.0.get_mut(&uid)
    }
}

impl DiskImage {
    /// Loads the blocks of `core`, and those of `window` around it as far as they come from the same frames.
    pub(crate) async fn load(&self, map: &RegionMap, core: Extent, window: Extent) -> Result<Loaded> {
        let data = map.clipped(core).filter_map(|piece| match piece.state {
            State::Data(place) => Some((piece, place)),
            _ => None,
        });
        let data: Vec<_> = data.collect();
        let mut wanted: Vec<(Lsn, Place)> = data.iter().map(|(piece, place)| (piece.lsn, *place)).collect();
        wanted.dedup_by_key(|(lsn, place)| (*lsn, place.segment));
        let found = stream::iter(wanted).map(|(lsn, place)| self.segment(lsn, place));
        let found: Vec<Arc<Segment>> =
            found.buffered(self.inner.options.requests_in_flight_max.max(1)).try_collect().await?;
        let mut segments = Segments::default();
        for segment in found {
            segments.0.entry(segment.uid).or_insert((segment, BTreeSet::new()));
        }
        for (piece, place) in data {
            if let Some((segment, frames)) = segments.of(self, piece.lsn, place) {
                for (extent, place) in places(self.id, &piece, place, segment) {
                    frames.extend(segment.head.frames.cut(extent, place.block.into()).map(|part| part.frame));
                }
            }
        }
        let segments = segments;
        let fetches = segments.0.iter().map(|(uid, (segment, frames))| async move {
            let frames: Vec<u32> = frames.iter().copied().collect();
            let outcomes = self.inner.frames.get(segment, &frames).await;
            frames.into_iter().zip(outcomes).map(|(frame, outcome)| ((*uid, frame), outcome)).collect::<Vec<_>>()
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
                    State::Data(place) => match segments.find(self, piece.lsn, place) {
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
        let places = places(self.id, piece, place, segment);
        let held: u64 = places.iter().map(|(extent, _)| extent.len).sum();
        if held < piece.extent.len {
            if !is_core {
                loaded.absent.push(piece.extent);
                return;
            }
            let why = format!("it lacks blocks {} of disk {} at lsn {}", piece.extent, self.id, piece.lsn);
            let error = Error::Chain { key: segment.key, why };
            loaded.failures.push(Failure { extent: piece.extent, error });
            return;
        }
        for part in places.iter().flat_map(|(extent, place)| segment.head.frames.cut(*extent, place.block.into())) {
            match frames.get(&(segment.uid, part.frame)) {
                Some(Ok(plain)) => {
                    loaded.pieces.push((part.extent, Source::Bytes(plain.slice(part.plain_range()))));
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

/// Where the blocks of a data piece are. The index knows it of log segments; a compact segment, which came later, says it itself.
pub(crate) fn places(disk: DiskId, piece: &Piece<Place>, place: Place, segment: &Segment) -> Vec<(Extent, Place)> {
    //= SPEC.md#compact-segments
    //# CS-3
    if place.segment != Place::INDEXED || segment.head.header.identity.kind != SegmentKind::Compact {
        return vec![(piece.extent, place)];
    }
    let mut found = Vec::new();
    segment.head.index.for_each_data_of(disk, piece.extent, piece.lsn, |extent, block| {
        found.push((extent, Place { segment: place.segment, block: block as u32 }));
    });
    found
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
