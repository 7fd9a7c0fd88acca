//! Reading images: cost in requests, damage, the cache.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{LogBuilder, noise, open, small_options};
use std::sync::Arc;
use tidemark_bucket::{Bucket, Fault, Faults, Op};
use tidemark_env::Env;
use tidemark_format::{DiskId, Epoch, ErrorKind, EventBody, Extent, Lsn, ObjectKey, Seq};
use tidemark_reader::{DiskImage, Domain, Error, ReaderOptions};

const MIB: usize = 1 << 20;

/// A disk of 64 MiB with 16 MiB of seeded noise at its front, and random 4 KiB writes over that in 8 segments.
async fn seeded() -> (LogBuilder, DiskId, Vec<u8>) {
    let mut log = LogBuilder::in_memory().await;
    let disk = DiskId::new(1);
    log.event(EventBody::DiskAdd { disk, vm: "vm".into(), name: "disk".into(), blocks: 128 << 10 });
    let start = log.event(EventBody::SeedStart { disk });
    let mut content = noise(3, 16 * MIB);
    for part in 0..2 {
        let from = part * 8 * MIB;
        log.seed_part(disk, start, (from / 512) as u64, &content[from..from + 8 * MIB]).await;
    }
    log.seed_part(disk, start, 32 << 10, &vec![0; 48 * MIB]).await;
    content.resize(64 * MIB, 0);
    log.event(EventBody::SeedDone { disk });
    log.event(EventBody::ConsistentFrom { disk });
    log.seal().await;
    for i in 0..8 * 64u64 {
        let page = (i * 0x9e37_79b9) % 4096;
        let data = noise(i + 100, 4096);
        log.write(disk, page * 8, &data);
        content[page as usize * 4096..][..4096].copy_from_slice(&data);
        if i % 64 == 63 {
            log.seal().await;
        }
    }
    (log, disk, content)
}

async fn image_of(bucket: &Bucket, disk: DiskId, options: ReaderOptions) -> Arc<DiskImage> {
    let domain = Domain::open(bucket.read_only(), options, Env::system()).await.unwrap();
    let lsn = domain.timeline().latest().lsn;
    domain.disk(disk, lsn).await.unwrap()
}

fn gets(bucket: &Bucket) -> u64 {
    bucket.meter().snapshot().total(Op::Get).requests
}

#[tokio::test]
async fn a_cold_random_read_costs_at_most_1_2_requests() {
    let (log, disk, content) = seeded().await;
    let image = image_of(&log.bucket, disk, ReaderOptions::default()).await;
    // Opening the base objects once is not part of a read's cost.
    for page in [0, 2048, 4096] {
        image.read(page * 4096, 4096).await.unwrap();
    }
    let before = gets(&log.bucket);
    let (mut reads, mut misses) = (0, 0);
    for i in 0..400u64 {
        let page = (i * 0x85eb_ca6b + 77) % 4096;
        reads += 1;
        let hit = image.read_cached(page * 4096, 4096, |_| ()).is_some();
        misses += u64::from(!hit);
        let bytes = image.read(page * 4096, 4096).await.unwrap();
        assert_eq!(bytes, content[page as usize * 4096..][..4096]);
    }
    let cost = gets(&log.bucket) - before;
    assert!(cost as f64 <= 1.2 * misses as f64, "{cost} requests for {misses} misses of {reads} reads");
}

/// Writes all over the disk, in segments that each hold a few of every region.
#[tokio::test]
async fn scattering_reads_each_object_once() {
    let (log, disk, content) = seeded().await;
    let image = image_of(&log.bucket, disk, ReaderOptions { frame_cache_bytes_max: 0, ..Default::default() }).await;
    let before = gets(&log.bucket);
    let (to, mut from) = tokio::sync::mpsc::channel(1);
    let scatter = {
        let image = image.clone();
        tokio::spawn(async move { image.scatter(&[Extent::new(0, 128 << 10)], &to).await })
    };
    let mut bytes = 0;
    while let Some(batch) = from.recv().await {
        for (offset, piece) in batch {
            assert!(content[offset as usize..][..piece.len()] == piece, "at {offset}");
            bytes += piece.len();
        }
    }
    scatter.await.unwrap().unwrap();
    assert_eq!(bytes, 16 * MIB, "all data, and no zeros");
    // Eight segments and two seeds of 8 MiB; a request brings at most 8 MiB.
    let spent = gets(&log.bucket) - before;
    assert!(spent <= 8 + 2 * 2 + 3, "{spent} requests");
}

#[tokio::test]
async fn hits_cost_nothing_and_are_one_slice() {
    let (log, disk, content) = seeded().await;
    let image = image_of(&log.bucket, disk, ReaderOptions::default()).await;
    assert!(image.read_cached(MIB as u64, MIB, |_| ()).is_none());
    image.read(MIB as u64, MIB).await.unwrap();
    let before = gets(&log.bucket);
    assert_eq!(image.read_cached(MIB as u64, MIB, |bytes| bytes == &content[MIB..2 * MIB]), Some(true));
    assert_eq!(image.read_cached(MIB as u64 + 5, 4096, |bytes| bytes == &content[MIB + 5..][..4096]), Some(true));
    assert_eq!(image.read_cached(64 << 20, 4096, <[u8]>::len), Some(0), "beyond the end");
    assert_eq!(gets(&log.bucket), before);
}

#[tokio::test]
async fn sequential_reads_are_read_ahead_and_share_requests() {
    let (log, disk, content) = seeded().await;
    let image = image_of(&log.bucket, disk, ReaderOptions::default()).await;
    let before = gets(&log.bucket);
    let mut hits = 0;
    for at in (0..16 * MIB).step_by(128 << 10) {
        hits += u64::from(image.read_cached(at as u64, 128 << 10, |_| ()).is_some());
        let bytes = image.read(at as u64, 128 << 10).await.unwrap();
        assert_eq!(bytes, content[at..at + (128 << 10)]);
    }
    let cost = gets(&log.bucket) - before;
    // 512 frames of base data and 8 segments of scattered writes.
    assert!(cost < 300, "{cost} requests");
    let _ = hits;
}

#[tokio::test]
async fn a_sequential_reader_that_only_hits_is_still_read_ahead_of() {
    let (log, disk, content) = seeded().await;
    let image = image_of(&log.bucket, disk, ReaderOptions::default()).await;
    let step = 64 << 10;
    for at in [0, step] {
        image.read(at as u64, step).await.unwrap();
    }
    // From here on nothing but hits: each window that is entered asks for the next one.
    let all_hit = async {
        for at in (2 * step..64 * MIB).step_by(step) {
            let right = |bytes: &[u8]| bytes == &content[at..at + step];
            while image.read_cached(at as u64, step, right).is_none_or(|same| !same) {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), all_hit).await.expect("the stream went dry");
}

#[tokio::test]
async fn many_readers_of_one_range_share_one_request() {
    let (log, disk, content) = seeded().await;
    let slow = Faults::seeded(1).on("base/", Op::Get, Fault::Slow(std::time::Duration::from_millis(30)), 1.0);
    let image = image_of(&log.bucket.with_faults(slow), disk, ReaderOptions::default()).await;
    let block = (0..4096u64)
        .find(|page| content[*page as usize * 4096..][..4096] == noise(3, 16 * MIB)[*page as usize * 4096..][..4096])
        .unwrap();
    image.read((block ^ 64) * 4096, 4096).await.unwrap();
    let before = gets(&log.bucket);
    let reads = (0..32).map(|_| image.read(block * 4096, 4096));
    for bytes in futures::future::join_all(reads).await {
        assert_eq!(bytes.unwrap(), content[block as usize * 4096..][..4096]);
    }
    assert!(gets(&log.bucket) - before <= 1);
}

#[tokio::test]
async fn small_caches_stay_within_their_bounds_and_give_right_bytes() {
    let (log, disk, content) = seeded().await;
    let options = ReaderOptions {
        cache_bytes_max: 2 << 20,
        frame_cache_bytes_max: 256 << 10,
        map_cache_bytes_max: 16 << 10,
        ..small_options()
    };
    let domain = Domain::open(log.bucket.read_only(), options.clone(), Env::system()).await.unwrap();
    let image = domain.disk(disk, log.latest()).await.unwrap();
    for i in 0..600u64 {
        let at = (i * 7_654_321) % (64 * MIB as u64);
        let len = 1 + (i * 977) as usize % (300 << 10);
        let end = (at as usize + len).min(64 * MIB);
        assert_eq!(image.read(at, len).await.unwrap(), content[at as usize..end]);
        let memory = domain.memory();
        assert!(memory.cache_bytes <= options.cache_bytes_max, "{memory:?}");
        assert!(memory.frame_bytes <= options.frame_cache_bytes_max, "{memory:?}");
        assert!(memory.map_bytes <= options.map_cache_bytes_max, "{memory:?}");
    }
    drop((image, domain));
}

#[tokio::test]
async fn the_largest_disk_costs_no_more_memory_than_its_data() {
    let mut log = LogBuilder::in_memory().await;
    let blocks = tidemark_format::DISK_BLOCKS_MAX;
    let disk = log.blank_disk(1, blocks);
    log.write(disk, blocks - 8, &noise(1, 4096));
    log.write(disk, 0, &noise(2, 4096));
    log.seal().await;
    let image = image_of(&log.bucket, disk, small_options()).await;
    assert_eq!(image.read((blocks - 8) * 512, 1 << 20).await.unwrap(), noise(1, 4096));
    assert_eq!(image.read(0, 8192).await.unwrap(), [noise(2, 4096), vec![0; 4096]].concat());
    assert!(image.read_cached(0, 8192, |_| ()).is_some());
    assert_eq!(image.next_data(0).await.unwrap(), Some(0));
}

/// Flips one bit of the stored bytes of the object at `key`.
async fn flip(bucket: &Bucket, key: ObjectKey, at: u64) {
    let mut bytes = bucket.read_only().get(&key).await.unwrap().to_vec();
    bytes[at as usize] ^= 0x10;
    bucket.deleter().delete(&key).await.unwrap();
    bucket.appender().put(&key, bytes).await.unwrap();
}

#[tokio::test]
async fn a_damaged_frame_is_named_and_its_neighbours_stay_readable() {
    let mut log = LogBuilder::in_memory().await;
    let disk = log.blank_disk(1, 4096);
    log.seal().await;
    let data = noise(5, 4 << 16);
    for part in 0..4u64 {
        log.write(disk, part * 128, &data[part as usize * 65_536..][..65_536]);
    }
    log.seal().await;
    let key = ObjectKey::Log { epoch: Epoch::new(1), seq: Seq::new(2) };
    let domain = log.open().await;
    let version = domain.versions(disk, 70_000).await.unwrap().pop().unwrap();
    assert_eq!((version.key, version.lsn), (key, Lsn::new(5)));
    flip(&log.bucket, key, version.frame.unwrap().object_offset + 1000).await;
    let image = image_of(&log.bucket, disk, small_options()).await;
    let error = image.read(65_536 + 512, 512).await.unwrap_err();
    let Error::Damaged { disk: d, extent, lsn, key: k, .. } = &error else { panic!("{error}") };
    assert_eq!((*d, *lsn, *k), (disk, Lsn::new(5), key));
    assert!(extent.start <= 129 && extent.end() >= 130 && extent.start >= 128 && extent.end() <= 256, "{extent}");
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(image.read(0, 4 << 16).await.is_err());
    assert!(image.read_cached(65_536, 4096, |_| ()).is_none());
    for part in [0, 2, 3] {
        assert_eq!(image.read(part * 65_536, 65_536).await.unwrap(), data[part as usize * 65_536..][..65_536]);
    }
    assert_eq!(image.read(4 << 16, 4096).await.unwrap(), vec![0; 4096]);
}

//= SPEC.md#reader-rules
//#
#[tokio::test]
async fn a_seed_stands_at_its_start_and_only_the_last_one_counts() {
    let mut log = LogBuilder::in_memory().await;
    let disk = DiskId::new(1);
    log.event(EventBody::DiskAdd { disk, vm: "vm".into(), name: "disk".into(), blocks: 64 });
    let block = |byte: u8| vec![byte; 512];
    // Block 0 is written before the first seeding, block 1 during it, block 2 between the two, block 3 during the second.
    log.write(disk, 0, &block(10));
    let first = log.event(EventBody::SeedStart { disk });
    log.write(disk, 1, &block(11));
    log.seed_part(disk, first, 0, &[block(1), block(1), block(1), block(1), block(1)].concat()).await;
    log.range(disk, tidemark_format::Extent::new(5, 59), tidemark_format::RowKind::Zero);
    let early = log.event(EventBody::ConsistentFrom { disk });
    log.seal().await;
    log.write(disk, 2, &block(12));
    let second = log.event(EventBody::SeedStart { disk });
    log.write(disk, 3, &block(13));
    log.seed_part(disk, second, 0, &[block(2), block(2), block(2), block(2)].concat()).await;
    let late = log.event(EventBody::ConsistentFrom { disk });
    log.seal().await;
    let domain = log.open().await;
    let image = domain.disk(disk, early).await.unwrap();
    assert_eq!(image.read(0, 5 * 512).await.unwrap(), [block(1), block(11), block(1), block(1), block(1)].concat());
    let image = domain.disk(disk, late).await.unwrap();
    // What the log held before the second seeding may be what a gap made stale.
    assert_eq!(image.read(0, 4 * 512).await.unwrap(), [block(2), block(2), block(2), block(13)].concat());
    // The second seeding did not bring block 4, and the first no longer counts.
    assert!(matches!(image.read(4 * 512, 512).await.unwrap_err(), Error::Unknown { .. }));
    assert_eq!(image.read(5 * 512, 512).await.unwrap(), block(0));
}

//= SPEC.md#reader-rules
//#
#[tokio::test]
async fn a_base_object_that_the_log_does_not_name_by_its_hash_is_refused() {
    let mut log = LogBuilder::in_memory().await;
    let disk = DiskId::new(1);
    log.event(EventBody::DiskAdd { disk, vm: "vm".into(), name: "disk".into(), blocks: 8 });
    let start = log.event(EventBody::SeedStart { disk });
    log.seed_part(disk, start, 0, &noise(1, 4096)).await;
    log.event(EventBody::ConsistentFrom { disk });
    log.seal().await;
    // An object of another history, under the same key and at the same LSN.
    let mut other = LogBuilder::in_memory().await;
    other.event(EventBody::DiskAdd { disk, vm: "vm".into(), name: "disk".into(), blocks: 8 });
    let same = other.event(EventBody::SeedStart { disk });
    other.seed_part(disk, same, 0, &noise(2, 4096)).await;
    let key = ObjectKey::Base { role: tidemark_format::Role::Writer, epoch: Epoch::new(1), seq: Seq::new(1) };
    let bytes = other.bucket.read_only().get(&key).await.unwrap();
    log.bucket.deleter().delete(&key).await.unwrap();
    log.bucket.appender().put(&key, bytes).await.unwrap();
    let image = image_of(&log.bucket, disk, small_options()).await;
    let error = image.read(0, 512).await.unwrap_err();
    assert!(matches!(error, Error::Chain { key: k, .. } if k == key), "{error}");
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    log.bucket.deleter().delete(&key).await.unwrap();
    let error = image_of(&log.bucket, disk, small_options()).await.read(0, 512).await.unwrap_err();
    assert!(matches!(error, Error::Missing { key: k, .. } if k == key), "{error}");
}

#[tokio::test]
async fn fault_bits_that_flip_on_the_way_are_never_served() {
    let (log, disk, content) = seeded().await;
    for seed in 0..6 {
        let chance = if seed % 2 == 0 { 0.05 } else { 0.6 };
        let faults = Faults::seeded(seed).on("log/", Op::Get, Fault::BitFlip, chance).on(
            "base/",
            Op::Get,
            Fault::BitFlip,
            chance,
        );
        let faulty = log.bucket.with_faults(faults.clone());
        let Ok(domain) = open(faulty.read_only()).await else { continue };
        if domain.timeline().latest().lsn != log.latest() {
            continue;
        }
        let image = domain.disk(disk, log.latest()).await.unwrap();
        let mut right = 0;
        for i in 0..300u64 {
            let at = (i * 1_234_577) % (17 * MIB as u64);
            let len = 1 + (i * 313) as usize % 40_000;
            match image.read(at, len).await {
                Ok(bytes) => {
                    right += 1;
                    assert_eq!(bytes, content[at as usize..at as usize + len]);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}"),
            }
        }
        assert!(faults.injected() > 0 && (chance > 0.5 || right > 250), "{right} right");
    }
}

#[tokio::test]
async fn fault_short_and_failing_answers_are_tried_again() {
    let (log, disk, content) = seeded().await;
    let faults = Faults::seeded(4).on("", Op::Get, Fault::Short, 0.1).on("", Op::Get, Fault::Error, 0.1);
    let image = image_of(&log.bucket.with_faults(faults), disk, small_options()).await;
    for i in 0..100u64 {
        let at = (i * 1_234_577) % (17 * MIB as u64);
        assert_eq!(image.read(at, 9000).await.unwrap(), content[at as usize..at as usize + 9000]);
    }
}

#[tokio::test]
async fn threads_that_hit_and_miss_at_once_see_right_bytes() {
    let (log, disk, content) = seeded().await;
    let image = image_of(&log.bucket, disk, ReaderOptions { cache_bytes_max: 4 << 20, ..small_options() }).await;
    let content = Arc::new(content);
    let tasks = (0..8u64).map(|task| {
        let (image, content) = (Arc::clone(&image), Arc::clone(&content));
        tokio::spawn(async move {
            for i in 0..200u64 {
                let at = ((i * 31 + task * 7) * 104_729) % (20 * MIB as u64) / 4096 * 4096;
                let wanted = &content[at as usize..at as usize + 8192];
                if image.read_cached(at, 8192, |bytes| assert_eq!(bytes, wanted)).is_none() {
                    assert_eq!(image.read(at, 8192).await.unwrap(), wanted);
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}
