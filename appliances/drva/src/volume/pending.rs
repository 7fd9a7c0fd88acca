//! What is logged and not yet on the primary: the newest of it for each block.
//!
//! A pure map from runs of blocks to what they hold. Reads look here first; the destager takes all of it at once, writes it
//! behind, and drops what it wrote. Of a block only the newest write is kept, so a write that is overtaken while it waits
//! never reaches the primary.
//!
//! Invariants: runs do not overlap and none is empty; `bytes` is the data that they hold.

use std::collections::BTreeMap;
use tidemark_format::{BLOCK_BYTES, Extent, Lsn};
use tidemark_writer::Body;

/// The map.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// By first block.
    runs: BTreeMap<u64, Run>,
    bytes: u64,
    newest: Lsn,
}

#[derive(Clone, Debug)]
struct Run {
    len: u64,
    lsn: Lsn,
    body: Body,
}

/// Everything that was pending at one moment, in the order of blocks.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Once the batch is on the primary, everything through here is, or was overtaken by what is in the batch.
    pub(crate) through: Lsn,
    pub(crate) pieces: Vec<(Extent, Body)>,
}

impl Pending {
    /// Bytes of data that are held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// A write got its place. Called in the order of LSNs.
    pub(crate) fn insert(&mut self, lsn: Lsn, extent: Extent, body: Body) {
        assert!(lsn > self.newest, "lsn {lsn} comes after {}", self.newest);
        self.newest = lsn;
        self.clear(extent);
        self.add(extent.start, Run { len: extent.len, lsn, body });
    }

    /// What is pending within `wanted`, ascending, clipped to it.
    pub(crate) fn within(&self, wanted: Extent) -> Vec<(Extent, Body)> {
        let first = self.runs.range(..=wanted.start).next_back().map_or(wanted.start, |(start, _)| *start);
        let runs = self.runs.range(first..wanted.end());
        let clip = |(start, run): (&u64, &Run)| {
            let extent = Extent::new(*start, run.len).intersection(wanted)?;
            Some((extent, slice(&run.body, extent.start - start, extent.len)))
        };
        runs.filter_map(clip).collect()
    }

    /// All of it. What is inserted later is not in it, and overtakes it.
    pub(crate) fn batch(&self) -> Batch {
        let pieces = self.runs.iter().map(|(start, run)| (Extent::new(*start, run.len), run.body.clone())).collect();
        Batch { through: self.newest, pieces }
    }

    /// Everything through `through` is on the primary, or overtaken by what is.
    pub(crate) fn applied(&mut self, through: Lsn) {
        let bytes = &mut self.bytes;
        self.runs.retain(|_, run| {
            let stays = run.lsn > through;
            *bytes -= if stays { 0 } else { held(&run.body) };
            stays
        });
    }

    /// Forgets what lies at or beyond a block: the disk became smaller.
    pub(crate) fn cut(&mut self, blocks: u64) {
        if let Some((last, run)) = self.runs.iter().next_back() {
            let end = last + run.len;
            self.clear(Extent::new(blocks, end.saturating_sub(blocks)));
        }
    }

    /// Makes room for `extent`: what overlaps it is cut back.
    fn clear(&mut self, extent: Extent) {
        let first = self.runs.range(..=extent.start).next_back().map_or(extent.start, |(start, _)| *start);
        let overlapping: Vec<u64> = self
            .runs
            .range(first..extent.end().max(first))
            .filter(|(start, run)| Extent::new(**start, run.len).overlaps(extent))
            .map(|(start, _)| *start)
            .collect();
        for start in overlapping {
            let run = self.runs.remove(&start).expect("it was just found");
            self.bytes -= held(&run.body);
            let end = start + run.len;
            if start < extent.start {
                let len = extent.start - start;
                self.add(start, Run { len, lsn: run.lsn, body: slice(&run.body, 0, len) });
            }
            if end > extent.end() {
                let (skip, len) = (extent.end() - start, end - extent.end());
                self.add(extent.end(), Run { len, lsn: run.lsn, body: slice(&run.body, skip, len) });
            }
        }
    }

    fn add(&mut self, start: u64, run: Run) {
        self.bytes += held(&run.body);
        self.runs.insert(start, run);
    }
}

fn held(body: &Body) -> u64 {
    if let Body::Data(data) = body { data.len() as u64 } else { 0 }
}

/// `len` blocks of a body, from block `skip` of it.
fn slice(body: &Body, skip: u64, len: u64) -> Body {
    match body {
        Body::Data(data) => {
            Body::Data(data.slice((skip * BLOCK_BYTES) as usize..((skip + len) * BLOCK_BYTES) as usize))
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCKS: u64 = 64;

    #[derive(Clone, Debug)]
    enum Step {
        Write {
            start: u64,
            len: u64,
            zero: bool,
        },
        /// Takes a batch and applies it, so many writes later.
        Destage {
            later: usize,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let write = (0..BLOCKS, 1..16_u64, any::<bool>()).prop_map(|(start, len, zero)| Step::Write {
            start,
            len: len.min(BLOCKS - start),
            zero,
        });
        prop_oneof![4 => write, 1 => (0..4_usize).prop_map(|later| Step::Destage { later })]
    }

    fn value(body: &Body, block: u64) -> u64 {
        match body {
            Body::Data(data) => {
                let at = (block * BLOCK_BYTES) as usize;
                u64::from_le_bytes(data[at..at + 8].try_into().expect("eight bytes"))
            }
            _ => 0,
        }
    }

    fn put(image: &mut [u64], extent: Extent, body: &Body) {
        for block in 0..extent.len {
            image[(extent.start + block) as usize] = value(body, block);
        }
    }

    proptest! {
        #[test]
        fn prop_primary_and_pending_together_read_as_all_that_was_written(steps in prop::collection::vec(step(), 1..60)) {
            let (mut pending, mut lsn) = (Pending::default(), Lsn::ZERO);
            let (mut model, mut primary) = (vec![0; BLOCKS as usize], vec![0; BLOCKS as usize]);
            let mut destaging: Option<(Batch, usize)> = None;
            for step in steps {
                match step {
                    Step::Write { start, len, zero } => {
                        lsn = lsn.next();
                        let extent = Extent::new(start, len);
                        let block = [&lsn.get().to_le_bytes()[..], &[0; BLOCK_BYTES as usize - 8]].concat();
                        let body = if zero { Body::Zero } else { Body::Data(block.repeat(len as usize).into()) };
                        put(&mut model, extent, &body);
                        pending.insert(lsn, extent, body);
                    }
                    Step::Destage { later } if destaging.is_none() => destaging = Some((pending.batch(), later)),
                    Step::Destage { .. } => {}
                }
                match destaging.take() {
                    Some((batch, 0)) => {
                        batch.pieces.iter().for_each(|(extent, body)| put(&mut primary, *extent, body));
                        pending.applied(batch.through);
                    }
                    Some((batch, later)) => destaging = Some((batch, later - 1)),
                    None => {}
                }
                let mut read = primary.clone();
                for (extent, body) in pending.within(Extent::new(0, BLOCKS)) {
                    put(&mut read, extent, &body);
                }
                prop_assert_eq!(&read, &model);
                let held: u64 = pending.runs.values().map(|run| held(&run.body)).sum();
                prop_assert_eq!(pending.bytes(), held);
            }
        }
    }

    #[test]
    fn a_batch_says_through_where_the_primary_is_good_even_if_its_last_write_was_overtaken() {
        let mut pending = Pending::default();
        let data = |n: usize| Body::Data(vec![1; n * 512].into());
        pending.insert(Lsn::new(5), Extent::new(0, 4), data(4));
        pending.insert(Lsn::new(6), Extent::new(0, 4), Body::Zero);
        let batch = pending.batch();
        assert_eq!((batch.through, batch.pieces.len()), (Lsn::new(6), 1));
        pending.insert(Lsn::new(9), Extent::new(2, 1), data(1));
        pending.applied(batch.through);
        assert_eq!(pending.within(Extent::new(0, 4)).len(), 1, "what came later stays");
        assert_eq!(pending.bytes(), 512);
    }

    #[test]
    fn what_lies_beyond_a_smaller_end_is_forgotten() {
        let mut pending = Pending::default();
        pending.insert(Lsn::new(1), Extent::new(4, 8), Body::Data(vec![1; 8 * 512].into()));
        pending.insert(Lsn::new(2), Extent::new(20, 8), Body::Unmap);
        pending.cut(6);
        assert_eq!(
            pending.within(Extent::new(0, 100)).iter().map(|(e, _)| *e).collect::<Vec<_>>(),
            [Extent::new(4, 2)]
        );
        assert_eq!(pending.bytes(), 1024);
        pending.cut(0);
        assert!(pending.is_empty());
    }
}
