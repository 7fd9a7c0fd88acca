//! Random histories: what a guest and its operator may do to a domain, one LSN each.

use proptest::collection::vec;
use proptest::prelude::*;
use tidemark_format::{BLOCK_BYTES, DiskId, Extent};

const BLOCK: usize = BLOCK_BYTES as usize;

/// One operation; it takes exactly one LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A new disk, all of it unknown.
    DiskAdd {
        /// Its id.
        disk: DiskId,
        /// Its size in blocks.
        blocks: u64,
    },
    /// The disk is gone from here on.
    DiskRemove {
        /// Which one.
        disk: DiskId,
    },
    /// A new size. New blocks are unknown until somebody says more.
    Resize {
        /// Which disk.
        disk: DiskId,
        /// Its new size in blocks.
        blocks: u64,
    },
    /// The disk may be restored from here on.
    ConsistentFrom {
        /// Which disk.
        disk: DiskId,
    },
    /// A guest write.
    Write {
        /// Which disk.
        disk: DiskId,
        /// First block.
        start: u64,
        /// Bytes, whole blocks.
        data: Vec<u8>,
    },
    /// The guest or an operator proves a range zero.
    Zero {
        /// Which disk.
        disk: DiskId,
        /// Which blocks.
        extent: Extent,
    },
    /// The guest no longer needs a range.
    Unmap {
        /// Which disk.
        disk: DiskId,
        /// Which blocks.
        extent: Extent,
    },
    /// Takes an LSN and changes no image: flush, bookmark, barrier, configuration.
    Mark,
}

/// Bounds of a random history.
#[derive(Clone, Copy, Debug)]
pub struct OpsShape {
    /// Disks, numbered from 1, added as blank disks at the start.
    pub disks: u32,
    /// Size of each disk at most, in blocks.
    pub disk_blocks_max: u64,
    /// Length of a write, zero or unmap at most, in blocks.
    pub op_blocks_max: u64,
    /// Operations after the disks were added, at most.
    pub ops_max: usize,
}

impl Default for OpsShape {
    fn default() -> Self {
        Self { disks: 3, disk_blocks_max: 96, op_blocks_max: 40, ops_max: 80 }
    }
}

/// A history as a list of LSNs: `Op` number i gets LSN i + 1. Disks start blank, as a writer adds them (DISK_ADD, ZERO
/// over the whole disk, CONSISTENT_FROM); growing is followed by a ZERO of the new part. Data comes as noise, as
/// repeated bytes and with runs of zeros, so that every path of a compressor and of zero detection is walked.
pub fn any_ops(shape: OpsShape) -> impl Strategy<Value = Vec<Op>> {
    let sizes = vec(1..=shape.disk_blocks_max, shape.disks as usize);
    (sizes, vec(any_step(shape), 0..=shape.ops_max)).prop_map(move |(sizes, steps)| {
        let mut ops = Vec::new();
        let mut sizes_now: Vec<u64> = Vec::new();
        for (i, blocks) in sizes.into_iter().enumerate() {
            let disk = DiskId::new(i as u32 + 1);
            ops.push(Op::DiskAdd { disk, blocks });
            ops.push(Op::Zero { disk, extent: Extent::new(0, blocks) });
            ops.push(Op::ConsistentFrom { disk });
            sizes_now.push(blocks);
        }
        for step in steps {
            step.push_onto(&mut ops, &mut sizes_now);
        }
        ops
    })
}

/// Splits a history of [`any_ops`] into what a writer does in one call: adding a blank disk takes three LSNs, growing one
/// takes two.
pub fn calls(ops: &[Op]) -> Vec<&[Op]> {
    let mut sizes = std::collections::BTreeMap::new();
    let mut calls = Vec::new();
    let mut rest = ops;
    while let Some(first) = rest.first() {
        let len = match first {
            Op::DiskAdd { disk, blocks } => {
                sizes.insert(*disk, *blocks);
                3
            }
            Op::Resize { disk, blocks } => {
                let before = sizes.insert(*disk, *blocks);
                if before.is_some_and(|before| before < *blocks) { 2 } else { 1 }
            }
            _ => 1,
        };
        calls.push(&rest[..len]);
        rest = &rest[len..];
    }
    calls
}

/// A random wish; it becomes an operation once the sizes at that moment are known.
#[derive(Clone, Debug)]
struct Step {
    kind: StepKind,
    disk: prop::sample::Index,
    start: prop::sample::Index,
    blocks: u64,
    data: DataShape,
}

#[derive(Clone, Copy, Debug)]
enum StepKind {
    Write,
    Zero,
    Unmap,
    Resize,
    Mark,
}

#[derive(Clone, Copy, Debug)]
struct DataShape {
    seed: u64,
    noisy: bool,
    zero_runs: bool,
}

fn any_step(shape: OpsShape) -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        10 => Just(StepKind::Write),
        2 => Just(StepKind::Zero),
        2 => Just(StepKind::Unmap),
        1 => Just(StepKind::Resize),
        1 => Just(StepKind::Mark),
    ];
    let data = (any::<u64>(), any::<bool>(), any::<bool>()).prop_map(|(seed, noisy, zero_runs)| DataShape {
        seed,
        noisy,
        zero_runs,
    });
    (kind, any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..=shape.op_blocks_max, data)
        .prop_map(|(kind, disk, start, blocks, data)| Step { kind, disk, start, blocks, data })
}

impl Step {
    fn push_onto(self, ops: &mut Vec<Op>, sizes: &mut [u64]) {
        if sizes.is_empty() {
            return ops.push(Op::Mark);
        }
        let at = self.disk.index(sizes.len());
        let (disk, size) = (DiskId::new(at as u32 + 1), sizes[at]);
        let start = self.start.index(size as usize) as u64;
        let extent = Extent::new(start, self.blocks.min(size - start));
        match self.kind {
            StepKind::Write => ops.push(Op::Write { disk, start, data: self.data.make(extent.len) }),
            StepKind::Zero => ops.push(Op::Zero { disk, extent }),
            StepKind::Unmap => ops.push(Op::Unmap { disk, extent }),
            StepKind::Mark => ops.push(Op::Mark),
            StepKind::Resize => {
                // Between half and one and a half times the size.
                let blocks = (size / 2 + start).max(1);
                ops.push(Op::Resize { disk, blocks });
                if blocks > size {
                    ops.push(Op::Zero { disk, extent: Extent::new(size, blocks - size) });
                }
                sizes[at] = blocks;
            }
        }
    }
}

impl DataShape {
    fn make(self, blocks: u64) -> Vec<u8> {
        // splitmix64: any mixer will do, and this one needs no crate.
        let mut state = self.seed;
        let mut next = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let mut data = Vec::with_capacity(blocks as usize * BLOCK);
        for _ in 0..blocks {
            let draw = next();
            if self.zero_runs && draw & 3 != 0 {
                data.extend_from_slice(&[0; BLOCK]);
            } else if self.noisy {
                data.extend((0..BLOCK / 8).flat_map(|_| next().to_le_bytes()));
            } else {
                data.extend_from_slice(&[(draw >> 8) as u8; BLOCK]);
            }
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DomainModel;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn prop_every_history_applies_and_takes_one_lsn_per_op(ops in any_ops(OpsShape::default())) {
            let mut model = DomainModel::new();
            for (i, op) in ops.iter().enumerate() {
                prop_assert_eq!(model.apply(op).get(), i as u64 + 1);
            }
        }
    }
}
