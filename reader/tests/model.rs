//! Random histories, read back at random LSNs and ranges, against whole images kept per LSN.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Disk, LogBuilder, block_on, merged, small_options};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::sync::Arc;
use tidemark_env::Env;
use tidemark_format::{BLOCK_BYTES, DiskId, ErrorKind, EventBody, Extent, Lsn};
use tidemark_model::{DiskModel, DomainModel, Op, OpsShape, any_ops};
use tidemark_reader::{CompareOptions, DiskImage, Domain, Part, Point, ReplaySink, Step};

const BLOCK: u64 = BLOCK_BYTES;

/// Reads a range in every way there is and compares.
async fn check(image: &DiskImage, model: &DiskModel, offset: u64, len: usize) {
    let size = model.blocks() * BLOCK;
    let end = (offset + len as u64).min(size);
    let what = format!("{image:?} bytes {offset}+{len}");
    if offset >= end {
        assert!(image.read(offset, len).await.unwrap().is_empty(), "{what}");
        return;
    }
    let blocks = Extent::new(offset / BLOCK, end.div_ceil(BLOCK) - offset / BLOCK);
    match model.read(blocks) {
        Some(bytes) => {
            let skip = (offset - blocks.byte_start()) as usize;
            let wanted = &bytes[skip..skip + (end - offset) as usize];
            assert_eq!(image.read(offset, len).await.unwrap(), wanted, "{what}");
            if let Some(same) = image.read_cached(offset, len, |bytes| bytes == wanted) {
                assert!(same, "{what} from the cache");
            }
        }
        None => {
            assert_eq!(image.read(offset, len).await.unwrap_err().kind(), ErrorKind::DataLoss, "{what}");
            assert!(image.read_cached(offset, len, |_| ()).is_none(), "{what} must not be cached");
        }
    }
}

async fn check_holes(image: &DiskImage, model: &DiskModel) {
    let hole = |cell: &[u8; 512]| cell.iter().all(|b| *b == 0);
    let cells = model.image();
    let mut at = 0;
    while let Some(data) = image.next_data(at).await.unwrap() {
        for block in at / BLOCK..data / BLOCK {
            assert!(cells[block as usize].as_ref().is_some_and(hole), "block {block} of {image:?} is no hole");
        }
        at = image.next_hole(data).await.unwrap().unwrap();
        assert!(at > data);
    }
    for cell in &cells[(at / BLOCK) as usize..] {
        assert!(cell.as_ref().is_some_and(hole));
    }
}

/// What is scattered is what the disk holds, in whole units, each once, and only what was asked for.
async fn check_scatter(image: &DiskImage, model: &DiskModel, wanted: Extent) {
    let (to, mut from) = tokio::sync::mpsc::channel(1);
    let wanted = [Extent::new(0, wanted.start / 16 * 8), wanted];
    let take = async move {
        let mut all = Vec::new();
        while let Some(batch) = from.recv().await {
            all.extend(batch);
        }
        all
    };
    let scatter = async {
        let to = to;
        image.scatter(&wanted, &to).await
    };
    let (done, all) = tokio::join!(scatter, take);
    done.unwrap();
    let (cells, mut seen) = (model.image(), vec![false; model.image().len()]);
    for (offset, bytes) in all {
        for (block, bytes) in (offset / BLOCK..).zip(bytes.chunks(512)) {
            assert!(wanted.iter().any(|extent| extent.overlaps(Extent::new(block, 1))), "block {block} was not wanted");
            assert_eq!(cells[block as usize].as_ref().map(|cell| &cell[..]), Some(bytes), "block {block} of {image:?}");
            assert!(!std::mem::replace(&mut seen[block as usize], true), "block {block} came twice");
        }
    }
    for unit in seen.chunks(8) {
        assert!(unit.iter().all(|seen| *seen == unit[0]), "units come whole");
    }
}

/// A disk of another point, or of none, to which the differences are applied is the image's, as far as anybody knows that; also when the
/// first comparison's proofs are all that is asked. `since`: whether only what changed between the two points is compared.
async fn check_differences(domain: &Domain, model: &DomainModel, disk: DiskId, from: Lsn, to: Lsn, since: bool) {
    let image = domain.disk(disk, to).await.unwrap();
    let cells = model.disk(disk, to).unwrap().image();
    let before = model.disk(disk, from).map_or_else(Vec::new, DiskModel::image);
    let whole = Extent::new(0, cells.len() as u64);
    let mut wanted = vec![whole];
    if since {
        let changed = domain.changed(disk, from.min(to), from.max(to)).await.unwrap();
        wanted = changed.iter().filter_map(|changed| changed.extent.intersection(whole)).collect();
        wanted.extend(
            (before.len() < cells.len()).then(|| Extent::new(before.len() as u64, (cells.len() - before.len()) as u64)),
        );
        wanted = merged(wanted);
    }
    let there: Vec<u8> =
        (0..cells.len()).flat_map(|i| before.get(i).copied().flatten().unwrap_or([0xee; 512])).collect();
    let there = Arc::new(Disk::new(there));
    let first = there.become_like(&image, &wanted, &CompareOptions::default()).await;
    for (block, cell) in cells.iter().enumerate() {
        let there = &there.bytes()[block * 512..][..512];
        let missing = first.missing.iter().any(|extent| extent.overlaps(Extent::new(block as u64, 1)));
        match cell {
            Some(cell) => assert!(there == cell && !missing, "block {block} of {image:?} coming from {from}"),
            None => assert!(missing || since && before.get(block).is_some_and(Option::is_none), "block {block}"),
        }
    }
    let options = CompareOptions { proofs: Arc::new(first.proofs), estimate: false };
    let second = there.become_like(&image, &wanted, &options).await;
    assert_eq!((second.compared.requests, second.data_bytes), (0, 0), "it was proven");
    assert_eq!(second.looked_bytes, first.looked_bytes);
}

/// A disk to which the steps of a replay are applied.
struct Replayed {
    cells: Vec<Option<[u8; 512]>>,
    last: Lsn,
}

impl ReplaySink for Replayed {
    fn step(&mut self, at: Point, step: Step<'_>) -> std::io::Result<()> {
        let again = matches!(step, Step::Event(_)) && self.last == at.lsn;
        assert!(self.last <= at.lsn && !again, "lsn {} after {}", at.lsn, self.last);
        self.last = at.lsn;
        match step {
            Step::Written { extent, parts } => {
                let bytes: Vec<u8> = parts
                    .iter()
                    .flat_map(|part| match part {
                        Part::Bytes(bytes) => bytes.to_vec(),
                        Part::Zeros(len) => vec![0; *len as usize],
                    })
                    .collect();
                assert_eq!(bytes.len() as u64, extent.byte_len());
                let cells = &mut self.cells[extent.start as usize..extent.end() as usize];
                cells.iter_mut().zip(bytes.chunks(512)).for_each(|(cell, bytes)| *cell = bytes.try_into().ok());
            }
            Step::Unmapped { extent } => {
                self.cells[extent.start as usize..extent.end() as usize].fill(Some([0; 512]));
            }
            Step::Event(EventBody::DiskAdd { blocks, .. } | EventBody::DiskResize { blocks, .. }) => {
                self.cells.resize(*blocks as usize, None);
            }
            Step::Event(_) => {}
        }
        Ok(())
    }
}

/// The disk as it was at `from`, and the steps from there, must give the disk as it was at `to`.
async fn check_replay(domain: &Domain, model: &DomainModel, disk: DiskId, from: Lsn, to: Lsn) {
    let cells = model.disk(disk, from).map_or_else(Vec::new, DiskModel::image);
    let mut replayed = Replayed { cells, last: from };
    domain.replay(disk, from, to, &mut replayed, |_| ()).await.unwrap();
    assert!(replayed.last <= to);
    assert!(replayed.cells == model.disk(disk, to).unwrap().image(), "disk {disk} from lsn {from} to {to}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn prop_every_point_in_time_matches_the_model(
        ops in any_ops(OpsShape::default()),
        cuts in vec(any::<(Index, bool)>(), 0..12),
        reads in vec((any::<Index>(), any::<Index>(), any::<Index>(), 1..80_000usize), 24),
    ) {
        block_on(async {
            let mut model = DomainModel::new();
            let mut log = LogBuilder::in_memory().await;
            let mut ends: Vec<(usize, bool)> = cuts.iter().map(|(at, epoch)| (at.index(ops.len()), *epoch)).collect();
            ends.sort_unstable();
            for (i, op) in ops.iter().enumerate() {
                log.pass(1);
                assert_eq!(log.op(op), model.apply(op));
                for (_, epoch) in ends.iter().filter(|(at, _)| *at == i) {
                    log.seal().await;
                    if *epoch {
                        log.begin_epoch().await;
                    }
                }
            }
            log.seal().await;
            let domain = log.open().await;
            let timeline = domain.timeline();
            assert_eq!(timeline.latest().lsn, model.latest());
            assert_eq!(timeline.final_through(), model.latest());
            for (lsn, disk, offset, len) in reads {
                let lsn = Lsn::new(lsn.index(model.latest().get() as usize) as u64 + 1);
                let at = timeline.disks_at(lsn);
                assert_eq!(at.iter().map(|d| d.id).collect::<Vec<_>>(), model.at(lsn).keys().copied().collect::<Vec<_>>());
                if at.is_empty() { continue }
                let disk = &at[disk.index(at.len())];
                let wanted = model.disk(disk.id, lsn).unwrap();
                assert_eq!(disk.size_bytes, wanted.blocks() * BLOCK);
                if !wanted.consistent {
                    assert!(domain.disk(disk.id, lsn).await.is_err());
                    continue;
                }
                let image = domain.disk(disk.id, lsn).await.unwrap();
                check(&image, wanted, 0, disk.size_bytes as usize).await;
                check(&image, wanted, offset.index(disk.size_bytes as usize + 600) as u64, len).await;
                check_holes(&image, wanted).await;
                let part = (offset.index(wanted.blocks() as usize) / 8 * 8) as u64;
                check_scatter(&image, wanted, Extent::new(part, wanted.blocks() - part)).await;
                let from = Lsn::new(offset.index(lsn.get() as usize + 1) as u64);
                check_replay(&domain, &model, disk.id, from, lsn).await;
                let since = model.disk(disk.id, from).is_some_and(|disk| disk.consistent);
                check_differences(&domain, &model, disk.id, from, lsn, since && len % 2 == 0).await;
            }
        });
    }

    //= SPEC.md#reader-rules
    //#
    /// Seeding runs beside writes, a shrink and a growth; the disk counts from its CONSISTENT_FROM on.
    #[test]
    fn prop_seeded_disks_match_the_model(
        ops in vec((0..96u64, 1..30u64, 0..6u8, any::<u64>()), 0..40),
        parts in vec(any::<Index>(), 4),
        shrink in any::<Option<(Index, u64)>>(),
        seeds in any::<u64>(),
    ) {
        const BLOCKS: u64 = 96;
        const DISK: DiskId = DiskId::new(3);
        block_on(async {
            let mut model = DomainModel::new();
            let mut log = LogBuilder::in_memory().await;
            let mut blocks = BLOCKS;
            let op = Op::DiskAdd { disk: DISK, blocks };
            assert_eq!(log.op(&op), model.apply(&op));
            let start = log.event(EventBody::SeedStart { disk: DISK });
            model.apply(&Op::Mark);
            let old = [common::noise(seeds, 24 * 512), vec![0; 24 * 512], common::noise(seeds ^ 1, 48 * 512)].concat();
            let mut turns: Vec<(usize, u64)> =
                parts.iter().enumerate().map(|(i, at)| (at.index(ops.len() + 1), i as u64)).collect();
            turns.sort_unstable();
            let shrink = shrink.map(|(at, to)| (at.index(ops.len() + 1), to % BLOCKS + 1));
            for i in 0..=ops.len() {
                for (_, part) in turns.iter().filter(|(at, _)| *at == i) {
                    let bytes = &old[(part * 24 * 512) as usize..][..24 * 512];
                    log.seed_part(DISK, start, part * 24, bytes).await;
                    model.apply(&Op::Mark);
                }
                if let Some((_, to)) = shrink.filter(|(at, _)| *at == i) {
                    for size in [to, BLOCKS] {
                        let op = Op::Resize { disk: DISK, blocks: size };
                        assert_eq!(log.op(&op), model.apply(&op));
                    }
                    if to < BLOCKS {
                        let op = Op::Zero { disk: DISK, extent: Extent::new(to, BLOCKS - to) };
                        assert_eq!(log.op(&op), model.apply(&op));
                    }
                    blocks = BLOCKS;
                }
                let Some((at, len, kind, seed)) = ops.get(i) else { continue };
                let extent = Extent::new(*at, (*len).min(blocks - at));
                let op = match kind {
                    0 => Op::Zero { disk: DISK, extent },
                    1 => Op::Unmap { disk: DISK, extent },
                    _ => Op::Write { disk: DISK, start: *at, data: common::noise(*seed, extent.byte_len() as usize) },
                };
                assert_eq!(log.op(&op), model.apply(&op));
                if seed % 5 == 0 {
                    log.seal().await;
                }
            }
            log.event(EventBody::SeedDone { disk: DISK });
            model.apply(&Op::Mark);
            let op = Op::ConsistentFrom { disk: DISK };
            let from = log.op(&op);
            model.apply(&op);
            for seed in 0..6 {
                let op = Op::Write { disk: DISK, start: seed * 11, data: common::noise(seed, 512 * 7) };
                assert_eq!(log.op(&op), model.apply(&op));
            }
            log.seal().await;
            model.seed(DISK, start, 0, &old);
            let domain = Domain::open(log.bucket.read_only(), small_options(), Env::system()).await.unwrap();
            assert!(domain.disk(DISK, Lsn::new(from.get() - 1)).await.is_err(), "not before CONSISTENT_FROM");
            for lsn in from.get()..=model.latest().get() {
                let lsn = Lsn::new(lsn);
                let image = domain.disk(DISK, lsn).await.unwrap();
                let wanted = model.disk(DISK, lsn).unwrap();
                for block in 0..wanted.blocks() {
                    check(&image, wanted, block * 512, 512).await;
                }
                check(&image, wanted, 1000, 30_000).await;
                check_replay(&domain, &model, DISK, Lsn::ZERO, lsn).await;
                check_replay(&domain, &model, DISK, from, lsn).await;
            }
        });
    }
}
