//! Gaps and what closes them: writes of a disk that the log does not have are declared, and later found by comparison.
//!
//! A GAP in the log makes its disk unrestorable from there on; the points before it stay. Closing it goes over the ranges
//! that may differ, compares them with what the bucket has, and logs what differs as writes of their own, in the order of
//! LSNs like any guest's: each range is held while it is read and logged. RESYNC_DONE and CONSISTENT_FROM end it.

use crate::domain::ProtectedDomain;
use crate::error::{Error, Result};
use crate::pace;
use crate::seeding::{READ_BLOCKS, Source};
use async_trait::async_trait;
use bytes::Bytes;
use tidemark_format::{BLOCK_BYTES, DiskId, EventBody, Extent};
use tidemark_writer::{Body, SeedPiece, Submission};

/// What the bucket has of a disk, to compare with.
#[async_trait]
pub trait Compare: Send + Sync {
    /// The bytes of a run of blocks as the bucket has them, as of some point behind the gap's start; `None` if it cannot
    /// say, and then all of it counts as different.
    async fn known(&self, disk: DiskId, extent: Extent) -> Option<Bytes>;
}

/// Differences are found in units of 4 KiB.
const UNIT_BYTES: usize = 4096;

impl ProtectedDomain {
    /// Declares that the log does not have all writes of a disk from here on. Durable on return.
    pub async fn open_gap(&self, disk: DiskId) -> Result<()> {
        let last = self.shared.state().sequencer.last_lsn();
        self.event(EventBody::Gap { disk, from: last, to: last }).await.map(drop)
    }

    /// Closes a gap: goes over `ranges`, ascending, and logs what differs. `done` is told the bytes looked at so far.
    ///
    /// # Errors
    /// `Source` if the disk cannot be read; `NotTaking` if the domain stops being protected here. The gap stays open then.
    pub async fn close_gap(
        &self,
        disk: DiskId,
        ranges: &[Extent],
        source: &dyn Source,
        compare: &dyn Compare,
        mut done: impl FnMut(u64),
    ) -> Result<()> {
        if self.shared.is_seeding(disk) {
            return Err(Error::DiskState { disk, state: "being seeded" });
        }
        self.log_when_room(vec![EventBody::ResyncStart { disk }]).await?;
        let mut bytes = 0;
        for range in ranges {
            let mut at = range.start;
            while at < range.end() {
                let extent = Extent::new(at, READ_BLOCKS.min(range.end() - at));
                pace::before_seeding(&self.shared, extent.byte_len()).await;
                let known = compare.known(disk, extent).await.filter(|known| known.len() as u64 == extent.byte_len());
                let held = source.hold(extent).await;
                let pieces = source.read(extent).await.map_err(|e| Error::Source { disk, why: e.to_string() })?;
                for piece in pieces {
                    for what in differences(disk, extent, &piece, known.as_ref()) {
                        self.log_waiting(|| vec![what.clone()], |_| {}).await?;
                    }
                }
                drop(held);
                at = extent.end();
                bytes += extent.byte_len();
                done(bytes);
            }
        }
        self.log_when_room(vec![EventBody::ResyncDone { disk }, EventBody::ConsistentFrom { disk }]).await
    }
}

/// What has to be logged of a piece of `extent`, of which the bucket has `known`.
fn differences(disk: DiskId, extent: Extent, piece: &SeedPiece, known: Option<&Bytes>) -> Vec<Submission> {
    let base = extent.start * BLOCK_BYTES;
    let write = |offset: u64, len: usize, body: Body| {
        let extent = Extent::new(offset / BLOCK_BYTES, len as u64 / BLOCK_BYTES);
        Submission::Write { disk, extent, body }
    };
    let (offset, len) = match piece {
        SeedPiece::Data { offset, data } => (*offset, data.len()),
        SeedPiece::Zero { offset, len } => (*offset, *len as usize),
    };
    let body = |range: std::ops::Range<usize>| match piece {
        SeedPiece::Data { data, .. } => Body::Data(data.slice(range)),
        SeedPiece::Zero { .. } => Body::Zero,
    };
    let Some(known) = known else { return vec![write(offset, len, body(0..len))] };
    let known = &known[(offset - base) as usize..][..len];
    let differs = |range: &std::ops::Range<usize>| match piece {
        SeedPiece::Data { data, .. } => data[range.clone()] != known[range.clone()],
        SeedPiece::Zero { .. } => known[range.clone()].iter().any(|byte| *byte != 0),
    };
    // Runs of units that differ, each one write.
    let mut found: Vec<std::ops::Range<usize>> = Vec::new();
    for at in (0..len).step_by(UNIT_BYTES) {
        let unit = at..(at + UNIT_BYTES).min(len);
        if differs(&unit) {
            match found.last_mut() {
                Some(last) if last.end == unit.start => last.end = unit.end,
                _ => found.push(unit),
            }
        }
    }
    found.into_iter().map(|run| write(offset + run.start as u64, run.len(), body(run))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: DiskId = DiskId::new(1);

    fn extents(piece: &SeedPiece, known: Option<&Bytes>) -> Vec<(u64, u64, bool)> {
        let found = differences(DISK, Extent::new(16, 64), piece, known);
        let describe = |what| match what {
            Submission::Write { extent, body, .. } => (extent.start, extent.len, matches!(body, Body::Zero)),
            Submission::Event(event) => panic!("an event: {event:?}"),
        };
        found.into_iter().map(describe).collect()
    }

    #[test]
    fn only_runs_that_differ_are_logged() {
        let data = Bytes::from(vec![7; 64 * 512]);
        let piece = SeedPiece::Data { offset: 16 * 512, data: data.clone() };
        assert_eq!(extents(&piece, Some(&data)), []);
        assert_eq!(extents(&piece, None), [(16, 64, false)]);
        let mut other = data.to_vec();
        for at in [0, 5000, 9000, 32767] {
            other[at] = 8;
        }
        assert_eq!(extents(&piece, Some(&other.into())), [(16, 24, false), (72, 8, false)]);
    }

    #[test]
    fn zeros_are_compared_with_zeros() {
        let piece = SeedPiece::Zero { offset: 24 * 512, len: 8 * 512 };
        let mut known = vec![0; 64 * 512];
        assert_eq!(extents(&piece, Some(&known.clone().into())), []);
        known[8 * 512 + 100] = 1;
        assert_eq!(extents(&piece, Some(&known.into())), [(24, 8, true)]);
    }
}
