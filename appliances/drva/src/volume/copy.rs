//! A disk that is copied to us once more: what the bucket has already is acknowledged and not logged.
//!
//! From the start of a gap on, pages that are written are remembered; a page that was not written since is in the bucket
//! as it was when the gap began, and a copy of the same bytes says nothing new.

use crate::compare::BeforeGap;
use crate::disk::lock;
use std::sync::{Arc, Mutex};
use tidemark_format::{DiskId, Extent};
use tidemark_replication::Compare;
use tidemark_writer::Body;

/// Blocks of a page: 4 KiB.
const PAGE_BLOCKS: u64 = 8;
/// Pages of one word.
const WORD_PAGES: u64 = 64;

pub(crate) struct Copy {
    disk: DiskId,
    /// A bit a page: 32 MiB for a disk of 1 TiB.
    touched: Mutex<Vec<u64>>,
    known: Mutex<Option<Arc<BeforeGap>>>,
}

impl Copy {
    pub(crate) fn new(disk: DiskId, blocks: u64) -> Self {
        let words = blocks.div_ceil(PAGE_BLOCKS * WORD_PAGES) as usize;
        Self { disk, touched: Mutex::new(vec![0; words]), known: Mutex::new(None) }
    }

    /// What the bucket had when the gap began.
    pub(crate) fn compare_with(&self, known: BeforeGap) {
        *lock(&self.known) = Some(Arc::new(known));
    }

    /// Whether a write says nothing that the bucket does not have. If it does, its pages count as written from here on.
    pub(crate) async fn is_known(&self, extent: Extent, body: &Body) -> bool {
        let known = lock(&self.known).clone();
        let same = match known {
            Some(known) if !self.touch(extent, Touch::Look) => match known.known(self.disk, extent).await {
                None => false,
                Some(bytes) => match body {
                    Body::Data(data) => *data == bytes,
                    Body::Zero | Body::Unmap => bytes.iter().all(|byte| *byte == 0),
                },
            },
            _ => false,
        };
        if !same {
            self.touch(extent, Touch::Mark);
        }
        same
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
        assert!(!copy.is_known(Extent::new(0, 8), &Body::Zero).await);
        copy.compare_with(BeforeGap::nothing());
        assert!(!copy.is_known(Extent::new(8, 8), &Body::Zero).await);
    }
}
