//! Turns the versions that overlap a region of a disk into the newest version of each block at or before an LSN.
//!
//! A [`Version`] is one row of some index: an extent, the LSN that wrote it, and what it says about those blocks. An
//! [`ExtentMap`] is the answer for one region: sorted, non-overlapping [`Piece`]s that cover the region without a hole.
//! Where no version speaks the piece is [`State::Unknown`], never zero; a shrunk disk hands in tombstones that say
//! `Unknown` too, so older data never shows through when the disk grows again.
//!
//! Invariants of a map: pieces are sorted, touch each other, start and end with the region, and none is empty.
//! [`liveness`] says which versions any of several points needs.
//! Not here: where the rows come from, and reading the bytes that a payload stands for.

pub mod liveness;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tidemark_format::{Extent, Lsn};

/// What one version says about its blocks. `P` says where the bytes of a data version lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State<P> {
    /// Bytes, to be found through the payload.
    Data(P),
    /// Written with zeros.
    Zero,
    /// Discarded: reads as zeros and is a hole.
    Unmap,
    /// Nobody knows: no version at all, or beyond the end of a disk that was shrunk.
    Unknown,
}

impl<P> State<P> {
    /// True if the blocks read as zeros without reading anything.
    pub const fn is_zeros(&self) -> bool {
        matches!(self, Self::Zero | Self::Unmap)
    }
}

/// A payload that can point into the middle of what it stands for.
pub trait Payload: Copy {
    /// The payload of the same version, `blocks` further on.
    #[must_use]
    fn advanced(self, blocks: u64) -> Self;
}

impl Payload for u64 {
    fn advanced(self, blocks: u64) -> Self {
        self.saturating_add(blocks)
    }
}

/// One version of a run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version<P> {
    /// The blocks.
    pub extent: Extent,
    /// The write that made this version. Of two versions of one block the greater LSN wins.
    pub lsn: Lsn,
    /// What it says; the payload stands for the first block of `extent`.
    pub state: State<P>,
}

/// A run of blocks that all have the same newest version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<P> {
    /// The blocks.
    pub extent: Extent,
    /// The write that made them so; [`Lsn::ZERO`] where no version speaks.
    pub lsn: Lsn,
    /// What they are; the payload stands for the first block of `extent`.
    pub state: State<P>,
}

/// The newest version of every block of a region at one LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentMap<P> {
    region: Extent,
    pieces: Box<[Piece<P>]>,
}

impl<P: Payload> ExtentMap<P> {
    /// Resolves `region` at `at` from all `versions` that overlap it, in any order; others are ignored.
    ///
    /// Costs `O(n log n)` for `n` versions. Two versions of one LSN never overlap in a valid log; if they do, one of
    /// them wins whole, the same one on every call.
    pub fn resolve(region: Extent, versions: impl IntoIterator<Item = Version<P>>, at: Lsn) -> Self {
        let mut seen: Vec<Version<P>> =
            versions.into_iter().filter(|v| v.lsn <= at && v.extent.overlaps(region)).collect();
        seen.sort_unstable_by_key(|v| (v.extent.start, v.lsn, v.extent.len));
        Self { region, pieces: sweep(region, &seen).into_boxed_slice() }
    }

    /// The region that the map covers.
    pub const fn region(&self) -> Extent {
        self.region
    }

    /// All pieces, sorted.
    pub fn pieces(&self) -> &[Piece<P>] {
        &self.pieces
    }

    /// The pieces that overlap `wanted`, clipped to it, sorted.
    pub fn clipped(&self, wanted: Extent) -> impl Iterator<Item = Piece<P>> + '_ {
        let from = self.pieces.partition_point(|p| p.extent.end() <= wanted.start);
        self.pieces[from..].iter().map_while(move |p| clip(p, wanted))
    }

    /// Memory that the pieces take, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        (size_of::<Self>() + self.pieces.len() * size_of::<Piece<P>>()) as u64
    }
}

/// The part of `piece` inside `wanted`.
fn clip<P: Payload>(piece: &Piece<P>, wanted: Extent) -> Option<Piece<P>> {
    let extent = piece.extent.intersection(wanted)?;
    let state = match piece.state {
        State::Data(payload) => State::Data(payload.advanced(extent.start - piece.extent.start)),
        other => other,
    };
    Some(Piece { extent, lsn: piece.lsn, state })
}

/// Walks the edges of the versions from left to right with the versions that reach over the current block on a heap,
/// newest on top; ended ones leave the heap when they come to the top.
fn sweep<P: Payload>(region: Extent, sorted: &[Version<P>]) -> Vec<Piece<P>> {
    let mut pieces: Vec<Piece<P>> = Vec::new();
    let mut last_source = None;
    let mut live: BinaryHeap<(Lsn, Reverse<usize>)> = BinaryHeap::new();
    let mut next = 0;
    let mut at = region.start;
    while at < region.end() {
        while let Some(v) = sorted.get(next).filter(|v| v.extent.start <= at) {
            live.push((v.lsn, Reverse(next)));
            next += 1;
        }
        while live.peek().is_some_and(|(_, Reverse(i))| sorted[*i].extent.end() <= at) {
            live.pop();
        }
        let source = live.peek().map(|(_, Reverse(i))| *i);
        let opens = sorted.get(next).map_or(region.end(), |v| v.extent.start);
        let closes = source.map_or(region.end(), |i| sorted[i].extent.end());
        let end = opens.min(closes).min(region.end());
        match pieces.last_mut() {
            Some(last) if source == last_source => last.extent.len += end - at,
            _ => {
                let extent = Extent::new(at, end - at);
                pieces.push(match source {
                    Some(i) => piece_of(&sorted[i], extent),
                    None => Piece { extent, lsn: Lsn::ZERO, state: State::Unknown },
                });
                last_source = source;
            }
        }
        at = end;
    }
    pieces
}

fn piece_of<P: Payload>(version: &Version<P>, extent: Extent) -> Piece<P> {
    clip(&Piece { extent: version.extent, lsn: version.lsn, state: version.state }, extent)
        .expect("the sweep stays inside the version that it picked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(start: u64, len: u64, lsn: u64) -> Version<u64> {
        Version { extent: Extent::new(start, len), lsn: Lsn::new(lsn), state: State::Data(lsn * 1000) }
    }

    #[test]
    fn a_region_without_versions_is_unknown_not_zero() {
        let map = ExtentMap::<u64>::resolve(Extent::new(5, 10), [], Lsn::new(9));
        assert_eq!(map.pieces(), [Piece { extent: Extent::new(5, 10), lsn: Lsn::ZERO, state: State::Unknown }]);
    }

    #[test]
    fn a_newer_write_splits_an_older_one_and_the_payload_follows() {
        let map = ExtentMap::resolve(Extent::new(0, 10), [data(0, 10, 1), data(4, 2, 2)], Lsn::new(2));
        let states: Vec<_> = map.pieces().iter().map(|p| (p.extent.start, p.extent.len, p.state)).collect();
        assert_eq!(states, [(0, 4, State::Data(1000)), (4, 2, State::Data(2000)), (6, 4, State::Data(1006))]);
    }

    #[test]
    fn a_tombstone_hides_older_data_when_the_disk_grows_again() {
        let shrink = Version { extent: Extent::new(4, u64::MAX - 4), lsn: Lsn::new(2), state: State::Unknown };
        let grow = Version { extent: Extent::new(4, 2), lsn: Lsn::new(3), state: State::Zero };
        let map = ExtentMap::resolve(Extent::new(0, 8), [data(0, 8, 1), shrink, grow], Lsn::new(3));
        let states: Vec<_> = map.pieces().iter().map(|p| (p.extent.start, p.state)).collect();
        assert_eq!(states, [(0, State::Data(1000)), (4, State::Zero), (6, State::Unknown)]);
    }

    #[test]
    fn clipping_keeps_only_what_is_wanted() {
        let map = ExtentMap::resolve(Extent::new(0, 16), [data(2, 10, 1)], Lsn::new(1));
        let got: Vec<_> = map.clipped(Extent::new(8, 6)).collect();
        assert_eq!(got[0], Piece { extent: Extent::new(8, 4), lsn: Lsn::new(1), state: State::Data(1006) });
        assert_eq!(got[1].state, State::Unknown);
        assert_eq!(got.len(), 2);
    }
}
