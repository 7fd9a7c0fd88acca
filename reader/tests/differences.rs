//! Comparing a disk with an image: what it costs, and what it never believes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Disk, LogBuilder, noise};
use std::sync::Arc;
use tidemark_bucket::Op;
use tidemark_env::Env;
use tidemark_format::{DiskId, EventBody, Extent};
use tidemark_reader::{CompareOptions, DiskImage, Domain, ReaderOptions};

const MIB: usize = 1 << 20;
const DISK: DiskId = DiskId::new(1);
const WHOLE: [Extent; 1] = [Extent::new(0, (32 * MIB / 512) as u64)];

/// Text, of which zstd makes a tenth; different for each seed.
fn text(seed: u64, len: usize) -> Vec<u8> {
    noise(seed, len.div_ceil(16)).iter().flat_map(|byte| format!("{byte:016b}").into_bytes()).take(len).collect()
}

/// A disk of 32 MiB: 8 MiB of seeded noise, 16 MiB of seeded text, and holes. With a log behind that wrote `changed` bytes over the
/// text, all at once.
async fn seeded(level: i32, changed: usize) -> (LogBuilder, Vec<u8>, Vec<u8>) {
    let mut log = LogBuilder::in_memory().await;
    log.level = level;
    log.event(EventBody::DiskAdd { disk: DISK, vm: "vm".into(), name: "disk".into(), blocks: (32 * MIB / 512) as u64 });
    let start = log.event(EventBody::SeedStart { disk: DISK });
    let mut before = [noise(3, 8 * MIB), text(4, 16 * MIB)].concat();
    log.seed_part(DISK, start, 0, &before[..16 * MIB]).await;
    log.seed_part(DISK, start, (16 * MIB / 512) as u64, &before[16 * MIB..]).await;
    log.seed_part(DISK, start, (24 * MIB / 512) as u64, &vec![0; 8 * MIB]).await;
    before.resize(32 * MIB, 0);
    log.event(EventBody::SeedDone { disk: DISK });
    log.event(EventBody::ConsistentFrom { disk: DISK });
    log.seal().await;
    let mut after = before.clone();
    for (number, at) in (0..changed).step_by(64 << 10).enumerate() {
        let data = noise(number as u64 + 9, (64 << 10).min(changed - at));
        log.write(DISK, ((8 * MIB + at) / 512) as u64, &data);
        after[8 * MIB + at..][..data.len()].copy_from_slice(&data);
    }
    log.seal().await;
    (log, before, after)
}

async fn image_of(log: &LogBuilder) -> Arc<DiskImage> {
    let options = ReaderOptions { coalesce_gap_bytes_max: 4096, ..ReaderOptions::default() };
    let domain = Domain::open(log.bucket.read_only(), options, Env::system()).await.unwrap();
    let lsn = domain.timeline().latest().lsn;
    domain.disk(DISK, lsn).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_fetched_of_a_disk_of_which_nothing_is_known() {
    const CHANGED: usize = 4 * MIB;
    let (log, before, after) = seeded(1, CHANGED).await;
    let image = image_of(&log).await;
    let disk = Arc::new(Disk::new(before));
    let fetched = || log.bucket.meter().snapshot().total(Op::Get).bytes;
    let heads = fetched();
    let told = disk.become_like(&image, &WHOLE, &CompareOptions::default()).await;
    assert!(disk.bytes() == after);
    assert_eq!(told.data_bytes, CHANGED as u64);
    assert!(told.compared.fetched_bytes <= (CHANGED + CHANGED / 20) as u64, "{:?}", told.compared);
    assert!(told.compared.recognised_bytes >= 19 * MIB as u64, "{:?}", told.compared);
    let all = fetched() - heads;
    assert!(all <= (CHANGED + CHANGED / 10) as u64, "{all} bytes of everything");
    assert_eq!(told.looked_bytes, 24 * MIB as u64, "all but the hole");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estimate_fetches_nothing_and_says_what_would_be() {
    let (log, before, _) = seeded(1, MIB).await;
    let image = image_of(&log).await;
    let disk = Arc::new(Disk::new(before.clone()));
    let options = CompareOptions { estimate: true, ..CompareOptions::default() };
    let estimated = disk.become_like(&image, &WHOLE, &options).await;
    assert!(disk.bytes() == before && estimated.data_bytes == 0);
    let done = disk.become_like(&image, &WHOLE, &CompareOptions::default()).await;
    assert_eq!(estimated.compared, done.compared);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_level_compressed_is_recognised_once_the_level_is_found_out() {
    let (log, before, _) = seeded(7, 0).await;
    let image = image_of(&log).await;
    let disk = Arc::new(Disk::new(before));
    let told = disk.become_like(&image, &WHOLE, &CompareOptions::default()).await;
    assert_eq!(told.data_bytes, 0);
    // The first frames of each object were on their way before the level was known.
    assert!(told.compared.recognised_bytes >= 22 * MIB as u64, "{:?}", told.compared);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_lies_about_one_bit_is_found_out_also_after_it_was_proven() {
    let (log, before, after) = seeded(1, MIB).await;
    let image = image_of(&log).await;
    let disk = Arc::new(Disk::new(before));
    let first = disk.become_like(&image, &WHOLE, &CompareOptions::default()).await;
    let options = CompareOptions { proofs: Arc::new(first.proofs), estimate: false };
    for bit in [5 * MIB, 9 * MIB - 1, 17 * MIB + 777] {
        let mut bytes = after.clone();
        bytes[bit] ^= 4;
        let disk = Arc::new(Disk::new(bytes));
        let told = disk.become_like(&image, &WHOLE, &options).await;
        assert_eq!(told.data_bytes, 512);
        assert!(disk.bytes() == after);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_damage_is_told_and_nothing_else_is_left_out() {
    let (log, before, after) = seeded(1, MIB).await;
    let image = image_of(&log).await;
    let domain = log.open().await;
    let version = domain.versions(DISK, (8 * MIB + 300_000) as u64).await.unwrap().pop().unwrap();
    let mut bytes = log.bucket.read_only().get(&version.key).await.unwrap().to_vec();
    bytes[version.frame.unwrap().object_offset as usize + 100] ^= 0x10;
    log.bucket.deleter().delete(&version.key).await.unwrap();
    log.bucket.appender().put(&version.key, bytes).await.unwrap();
    let disk = Arc::new(Disk::new(before));
    let told = disk.become_like(&image, &WHOLE, &CompareOptions::default()).await;
    let missing: u64 = told.missing.iter().map(|extent| extent.byte_len()).sum();
    assert_eq!(missing, 64 << 10, "a frame of noise, and no more");
    for (block, (there, wanted)) in disk.bytes().chunks(512).zip(after.chunks(512)).enumerate() {
        let missing = told.missing.iter().any(|extent| extent.overlaps(Extent::new(block as u64, 1)));
        assert!(missing || there == wanted, "block {block}");
    }
    assert!(!told.proofs.keys().any(|(_, key)| *key == version.key), "what lacks something is not proven");
}
