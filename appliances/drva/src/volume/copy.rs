//! A disk that is copied to us once more: what the bucket has already is acknowledged and not logged.
//!
//! From the start of a gap on, pages that are written are remembered; a page that was not written since is in the bucket
//! as it was when the gap began, and a copy of the same bytes says nothing new.
//!
//! QEMU begins a copy by making all of its target zeros, which would make all of it new. No moment of a gap is ever looked at,
//! so zeros wait: what is copied over them takes their place, and what is left of them is logged once the copy is complete.

use crate::compare::BeforeGap;
use crate::disk::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tidemark_format::{DiskId, Extent};
use tidemark_replication::Compare;
use tidemark_writer::Body;

/// Blocks of a page: 4 KiB.
const PAGE_BLOCKS: u64 = 8;
/// Pages of one word.
const WORD_PAGES: u64 = 64;
/// Runs of zeros that wait, at most: beyond it they are logged.
const ZERO_RUNS_MAX: usize = 1 << 16;

pub(crate) struct Copy {
    disk: DiskId,
    /// A bit a page: 32 MiB for a disk of 1 TiB.
    touched: Mutex<Vec<u64>>,
    known: Mutex<Option<Arc<BeforeGap>>>,
    zeros: Mutex<Zeros>,
}

/// Zeros that wait, as runs of blocks by their start: apart from each other.
#[derive(Debug, Default)]
struct Zeros {
    runs: BTreeMap<u64, u64>,
    /// The copy is complete: no more of them wait.
    ending: bool,
}

impl Zeros {
    /// Takes a range out; whether something of it was there.
    fn cut(&mut self, extent: Extent) -> bool {
        let over: Vec<_> = self.runs.range(..extent.end()).rev().take_while(|(_, end)| **end > extent.start).collect();
        let over: Vec<(u64, u64)> = over.into_iter().map(|(start, end)| (*start, *end)).collect();
        for (start, end) in &over {
            self.runs.remove(start);
            if *start < extent.start {
                self.runs.insert(*start, extent.start);
            }
            if *end > extent.end() {
                self.runs.insert(extent.end(), *end);
            }
        }
        !over.is_empty()
    }

    /// Lets a range wait, if it may.
    fn wait(&mut self, extent: Extent) -> bool {
        if self.ending || self.runs.len() >= ZERO_RUNS_MAX {
            return false;
        }
        self.cut(extent);
        self.runs.insert(extent.start, extent.end());
        true
    }
}

impl Copy {
    pub(crate) fn new(disk: DiskId, blocks: u64) -> Self {
        let words = blocks.div_ceil(PAGE_BLOCKS * WORD_PAGES) as usize;
        Self { disk, touched: Mutex::new(vec![0; words]), known: Mutex::new(None), zeros: Mutex::default() }
    }

    /// What the bucket had when the gap began.
    pub(crate) fn compare_with(&self, known: BeforeGap) {
        *lock(&self.known) = Some(Arc::new(known));
    }

    /// Whether a write need not be logged: it says nothing that the bucket does not have, or it waits. If it must be, its
    /// pages count as written from here on.
    pub(crate) async fn takes(&self, extent: Extent, body: &Body) -> bool {
        let known = lock(&self.known).clone();
        let taken = match (&known, body) {
            (None, _) => false,
            (Some(_), Body::Zero | Body::Unmap) => return lock(&self.zeros).wait(extent) || self.is_new(extent),
            (Some(known), Body::Data(data)) => {
                !self.touch(extent, Touch::Look) && known.known(self.disk, extent).await.is_some_and(|had| had == *data)
            }
        };
        let mut zeros = lock(&self.zeros);
        zeros.cut(extent);
        // What the bucket had may have been overwritten by zeros that waited, if they wait no more.
        if taken && !zeros.ending {
            return true;
        }
        self.is_new(extent)
    }

    /// The pages of what has to be logged: false.
    fn is_new(&self, extent: Extent) -> bool {
        self.touch(extent, Touch::Mark);
        false
    }

    /// No more zeros wait from here on; the runs that do. Each is taken by [`Self::still_zero`] once nothing is being written there.
    pub(crate) fn ends(&self) -> Vec<Extent> {
        let mut zeros = lock(&self.zeros);
        zeros.ending = true;
        zeros.runs.iter().map(|(start, end)| Extent::new(*start, end - start)).collect()
    }

    /// What still waits of a range; it does no more.
    pub(crate) fn still_zero(&self, extent: Extent) -> Vec<Extent> {
        let mut zeros = lock(&self.zeros);
        let within = zeros.runs.range(extent.start..extent.end());
        let runs: Vec<_> = within.map(|(start, end)| Extent::new(*start, end.min(&extent.end()) - start)).collect();
        zeros.cut(extent);
        runs
    }

    /// Whether a page of `extent` was written.
    fn touch(&self, extent: Extent, how: Touch) -> bool {
        let mut touched = lock(&self.touched);
        let mut any = false;
        for page in extent.start / PAGE_BLOCKS..extent.end().div_ceil(PAGE_BLOCKS) {
            let bit = 1 << (page % WORD_PAGES);
            let Some(word) = touched.get_mut((page / WORD_PAGES) as usize) else { return true };
            any |= *word & bit != 0;
            if how == Touch::Mark {
                *word |= bit;
            }
        }
        any
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Touch {
    Look,
    Mark,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_were_written_count_as_new_for_good() {
        let copy = Copy::new(DiskId::new(1), 1000);
        assert!(!copy.touch(Extent::new(0, 1000), Touch::Look));
        copy.touch(Extent::new(15, 2), Touch::Mark);
        assert!(copy.touch(Extent::new(8, 1), Touch::Look) && copy.touch(Extent::new(23, 1), Touch::Look));
        assert!(!copy.touch(Extent::new(0, 8), Touch::Look) && !copy.touch(Extent::new(24, 100), Touch::Look));
        assert!(copy.touch(Extent::new(5000, 1), Touch::Look), "beyond the end nothing is known");
    }

    #[tokio::test]
    async fn without_anything_to_compare_with_everything_is_new() {
        let copy = Copy::new(DiskId::new(1), 1000);
        let data = Body::Data(vec![1; 8 * 512].into());
        assert!(!copy.takes(Extent::new(0, 8), &Body::Zero).await);
        copy.compare_with(BeforeGap::nothing());
        assert!(!copy.takes(Extent::new(8, 8), &data).await);
    }

    #[tokio::test]
    async fn zeros_wait_for_what_is_copied_over_them_until_the_copy_is_complete() {
        let copy = Copy::new(DiskId::new(1), 1000);
        copy.compare_with(BeforeGap::nothing());
        let data = |blocks: usize| Body::Data(vec![1; blocks * 512].into());
        assert!(copy.takes(Extent::new(0, 1000), &Body::Unmap).await, "the whole target");
        for (start, blocks) in [(0, 8), (20, 4), (996, 4)] {
            assert!(!copy.takes(Extent::new(start, blocks as u64), &data(blocks)).await);
        }
        assert!(copy.takes(Extent::new(21, 1), &Body::Zero).await);
        let runs = [Extent::new(8, 12), Extent::new(21, 1), Extent::new(24, 972)];
        assert_eq!(copy.ends(), runs);
        assert!(!copy.takes(Extent::new(0, 8), &Body::Zero).await, "no more of them wait");
        assert!(!copy.takes(Extent::new(30, 2), &data(2)).await);
        assert_eq!(copy.still_zero(runs[2]), [Extent::new(24, 6), Extent::new(32, 964)], "written meanwhile");
        assert_eq!(copy.still_zero(runs[2]), []);
        assert_eq!(copy.ends(), runs[..2]);
    }
}
