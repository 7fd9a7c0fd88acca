//! The sweep against an array that holds the newest version of each block.

use proptest::collection::vec;
use proptest::prelude::*;
use tidemark_extent_map::{ExtentMap, State, Version};
use tidemark_format::{Extent, Lsn};

const BLOCKS: u64 = 96;

fn any_version() -> impl Strategy<Value = (u64, u64, u8)> {
    (0..BLOCKS, 1..24u64, 0..6u8)
}

/// Payload of data: version number * 1000 + block within the version.
fn number(raw: Vec<(u64, u64, u8)>) -> Vec<Version<u64>> {
    let lsns = (1..).zip(raw);
    lsns.map(|(lsn, (start, len, kind))| Version {
        extent: Extent::new(start, len),
        lsn: Lsn::new(lsn),
        state: match kind {
            0..=2 => State::Data(lsn * 1000),
            3 => State::Zero,
            4 => State::Unmap,
            _ => State::Unknown,
        },
    })
    .collect()
}

fn naive(versions: &[Version<u64>], at: Lsn) -> Vec<(Lsn, State<u64>)> {
    let mut blocks = vec![(Lsn::ZERO, State::Unknown); 2 * BLOCKS as usize];
    for v in versions.iter().filter(|v| v.lsn <= at) {
        for block in v.extent.start..v.extent.end() {
            let state = match v.state {
                State::Data(p) => State::Data(p + block - v.extent.start),
                other => other,
            };
            blocks[block as usize] = (v.lsn, state);
        }
    }
    blocks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn prop_every_block_has_its_newest_version(
        raw in vec(any_version(), 0..40), start in 0..BLOCKS, len in 1..BLOCKS, at in 0..45u64, seed in any::<u64>()
    ) {
        let versions = number(raw);
        let at = Lsn::new(at);
        let model = naive(&versions, at);
        let mut shuffled = versions;
        let mut state = seed | 1;
        for i in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(i, (state >> 33) as usize % (i + 1));
        }
        let region = Extent::new(start, len);
        let map = ExtentMap::resolve(region, shuffled, at);

        let mut next = region.start;
        for (i, piece) in map.pieces().iter().enumerate() {
            prop_assert_eq!(piece.extent.start, next, "pieces touch");
            prop_assert!(piece.extent.len > 0);
            next = piece.extent.end();
            for block in piece.extent.start..piece.extent.end() {
                let state = match piece.state {
                    State::Data(p) => State::Data(p + block - piece.extent.start),
                    other => other,
                };
                prop_assert_eq!((piece.lsn, state), model[block as usize], "block {}", block);
            }
            if let Some(after) = map.pieces().get(i + 1) {
                prop_assert!(piece.lsn != after.lsn, "one version is one piece unless another lies between");
            }
        }
        prop_assert_eq!(next, region.end());
    }
}
