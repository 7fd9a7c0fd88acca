//! Verification finds all damage, names it, and goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{LogBuilder, noise, small_options};
use std::path::{Path, PathBuf};
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_format::{DiskId, Epoch, EventBody, Extent, Lsn, ObjectKey, Role, Seq};
use tidemark_reader::{Sample, VerifyReport, verify, verify_sample};

struct Dir {
    dir: tempfile::TempDir,
    log: LogBuilder,
}

/// A bucket in a directory, with two epochs, a seeded disk and 6 segments.
async fn bucket() -> Dir {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(&BucketUrl::file(dir.path()), &BucketOptions::default()).unwrap();
    let mut log = LogBuilder::new(bucket).await;
    let disk = DiskId::new(1);
    log.event(EventBody::DiskAdd { disk, vm: "vm".into(), name: "disk".into(), blocks: 1024 });
    let start = log.event(EventBody::SeedStart { disk });
    log.seed_part(disk, start, 0, &noise(1, 512 << 9)).await;
    log.seed_part(disk, start, 512, &vec![0; 512 << 9]).await;
    log.event(EventBody::ConsistentFrom { disk });
    for i in 0..6u64 {
        log.pass(3);
        log.write(disk, i * 100, &noise(i + 9, 40_000 / 512 * 512));
        log.write(disk, i * 100 + 80, &noise(i + 9, 4096));
        log.seal().await;
        if i == 2 {
            log.begin_epoch().await;
        }
    }
    log.hint().await;
    Dir { dir, log }
}

impl Dir {
    fn path(&self, key: ObjectKey) -> PathBuf {
        self.dir.path().join(key.to_string())
    }
    async fn verify(&self) -> VerifyReport {
        let mut last = 0;
        let (bucket, options) = (self.log.bucket.read_only(), small_options());
        let report = verify(&bucket, &options, |p| {
            // Once before the first of them, too.
            let is_next = p.objects_done == last + 1 || (p.objects_done, last) == (0, 0);
            assert!(is_next && p.objects_done <= p.objects_total);
            last = p.objects_done;
        });
        report.await.unwrap()
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

fn segment(epoch: u64, seq: u64) -> ObjectKey {
    ObjectKey::Log { epoch: Epoch::new(epoch), seq: Seq::new(seq) }
}

#[tokio::test]
async fn an_intact_domain_is_clean() {
    let dir = bucket().await;
    let report = dir.verify().await;
    assert!(report.is_clean(), "{:#?}", report.damage);
    assert!(report.unreferenced.is_empty(), "{:?}", report.unreferenced);
    assert_eq!(report.lsns, Some((Lsn::new(1), dir.log.latest())));
    // Genesis, 2 claims, 2 cuts, 6 segments, 2 base objects, the hint.
    assert_eq!((report.objects, report.events), (14, 5));
    assert!(report.rows >= 12 && report.frames >= 6);
}

#[tokio::test]
async fn one_flipped_bit_anywhere_in_any_object_is_found() {
    let dir = bucket().await;
    for path in files(dir.dir.path()) {
        let bytes = std::fs::read(&path).unwrap();
        let step = (bytes.len() / 40).max(1);
        for at in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, &flipped).unwrap();
            let report = dir.verify().await;
            assert!(!report.is_clean(), "bit of byte {at} of {}", path.display());
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(dir.verify().await.is_clean());
}

#[tokio::test]
async fn a_truncated_or_missing_object_is_found_wherever_it_is() {
    let dir = bucket().await;
    for path in files(dir.dir.path()) {
        let bytes = std::fs::read(&path).unwrap();
        for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert!(!dir.verify().await.is_clean(), "{} cut to {len}", path.display());
        }
        std::fs::remove_file(&path).unwrap();
        let report = dir.verify().await;
        // Losing the hint harms nobody.
        assert!(!report.is_clean() || path.ends_with("hint"), "{} is missing", path.display());
        std::fs::write(&path, &bytes).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_frame_is_named_as_disk_blocks_and_lsns() {
    let dir = bucket().await;
    let path = dir.path(segment(1, 2));
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 10;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let report = dir.verify().await;
    let [damage] = report.damage.as_slice() else { panic!("{:#?}", report.damage) };
    assert_eq!(damage.object, segment(1, 2).to_string());
    let wanted = (DiskId::new(1), Extent::new(100, 86));
    let lost = &damage.blocks;
    assert!(lost.iter().any(|l| l.disk == wanted.0 && l.extent.overlaps(wanted.1)), "{damage}");
    assert!(lost.iter().all(|l| l.first_lsn >= Lsn::new(8) && l.last_lsn <= Lsn::new(9)), "{damage}");
    assert_eq!(damage.lsns, Some((Lsn::new(8), Lsn::new(9))));
}

#[tokio::test]
async fn several_damages_are_all_reported_with_the_lsns_that_they_cost() {
    let dir = bucket().await;
    std::fs::remove_file(dir.path(segment(1, 2))).unwrap();
    let broken = dir.path(segment(2, 1));
    let mut bytes = std::fs::read(&broken).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&broken, &bytes).unwrap();
    let base = ObjectKey::Base { role: Role::Writer, epoch: Epoch::new(1), seq: Seq::new(1) };
    std::fs::remove_file(dir.path(base)).unwrap();
    let report = dir.verify().await;
    let of = |key: ObjectKey| {
        report.damage.iter().find(|d| d.object == key.to_string()).unwrap_or_else(|| panic!("{report:#?}"))
    };
    assert_eq!(of(segment(1, 2)).lsns, Some((Lsn::new(8), Lsn::new(9))));
    assert_eq!(of(segment(2, 1)).lsns, Some((Lsn::new(12), Lsn::new(13))));
    assert_eq!(of(base).blocks[0].extent, Extent::new(0, 512));
    assert_eq!(report.damage.len(), 3, "{:#?}", report.damage);
}

#[tokio::test]
async fn a_broken_base_segment_is_reported_once_with_all_that_it_costs() {
    let dir = bucket().await;
    let base = ObjectKey::Base { role: Role::Writer, epoch: Epoch::new(1), seq: Seq::new(1) };
    let whole = std::fs::read(dir.path(base)).unwrap();
    // Of the header, and of a section behind it.
    for at in [20, 520] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(dir.path(base), &bytes).unwrap();
        let report = dir.verify().await;
        let [damage] = report.damage.as_slice() else { panic!("{:#?}", report.damage) };
        assert_eq!((damage.object.clone(), damage.blocks[0].extent), (base.to_string(), Extent::new(0, 512)));
        assert_eq!(damage.lsns.map(|(first, _)| first), Some(damage.blocks[0].first_lsn));
    }
}

#[tokio::test]
async fn what_nothing_refers_to_is_listed_and_harmless() {
    let mut dir = bucket().await;
    let orphan = segment(1, 9);
    std::fs::copy(dir.path(segment(1, 3)), dir.path(orphan)).unwrap();
    std::fs::write(dir.dir.path().join("log/readme.txt"), b"hello").unwrap();
    let disk = DiskId::new(1);
    dir.log.write(disk, 0, &[1; 512]);
    let (_, _) = dir.log.sealed().unwrap();
    dir.log.write(disk, 0, &[2; 512]);
    let (late, bytes) = dir.log.sealed().unwrap();
    dir.log.bucket.appender().put(&late, bytes).await.unwrap();
    let report = dir.verify().await;
    assert!(report.unreferenced.contains(&late.to_string()), "{report:#?}");
    assert!(report.unreferenced.contains(&"log/readme.txt".to_owned()));
    assert!(report.unreferenced.contains(&orphan.to_string()));
    // The copy names itself by another key: it is damage and nothing refers to it.
    assert_eq!(report.damage.len(), 1, "{:#?}", report.damage);
}

/// A domain of frames that do not compress, and which bytes of which object each of them is.
async fn frames() -> (Dir, Vec<(PathBuf, std::ops::Range<u64>)>) {
    let dir = bucket().await;
    let mut all = Vec::new();
    let read_only = dir.log.bucket.read_only();
    let domain = tidemark_format::Genesis::decode(&read_only.get(&ObjectKey::Genesis).await.unwrap()).unwrap().domain;
    for path in files(dir.dir.path()) {
        let name = path.strip_prefix(dir.dir.path()).unwrap().to_str().unwrap().to_owned();
        let Ok(key @ (ObjectKey::Log { .. } | ObjectKey::Base { .. })) = name.parse::<ObjectKey>() else { continue };
        let bytes = read_only.get(&key).await.unwrap();
        let head = tidemark_format::SegmentHead::decode(&bytes, &tidemark_format::Expect { domain, key }).unwrap();
        all.extend((0..head.frames.len()).map(|frame| (path.clone(), head.frames.object_range(frame).unwrap())));
    }
    (dir, all)
}

impl Dir {
    async fn sample(&self, share: f64, seed: u64) -> VerifyReport {
        let sample = Sample::new(share, seed).unwrap();
        verify_sample(&self.log.bucket.read_only(), &small_options(), sample, |_| ()).await.unwrap()
    }
}

#[tokio::test]
async fn a_sample_of_all_frames_finds_what_a_full_check_finds() {
    let (dir, frames) = frames().await;
    let clean = dir.verify().await;
    assert_eq!(dir.sample(1.0, 5).await, clean);
    for (path, range) in frames.iter().step_by(3) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[range.end as usize - 1] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    let full = dir.verify().await;
    assert_eq!(full.damage.len(), frames.len().div_ceil(3));
    assert_eq!(dir.sample(1.0, 5).await.damage, full.damage);
}

#[tokio::test]
async fn a_sample_finds_planted_damage_as_often_as_its_share_says() {
    let (dir, frames) = frames().await;
    let (path, range) = &frames[frames.len() / 2];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[range.start as usize] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let (mut found, mut checked, runs) = (0.0, 0.0, 400);
    for seed in 0..runs {
        let report = dir.sample(0.25, seed).await;
        assert_eq!(report.frames + report.frames_skipped, frames.len() as u64);
        assert!(report.damage.len() <= 1);
        found += report.damage.len() as f64;
        checked += report.frames as f64;
        assert_eq!((report, seed), (dir.sample(0.25, seed).await, seed), "the same seed looks at the same frames");
    }
    // Within five standard deviations.
    let fair = |hits: f64, of: f64| (hits - of * 0.25).abs() <= 5.0 * (of * 0.25 * 0.75).sqrt();
    assert!(fair(found, f64::from(runs as u32)), "{found} of {runs}");
    assert!(fair(checked, f64::from(runs as u32) * frames.len() as f64), "{checked} frames in {runs} runs");
}

#[tokio::test]
async fn a_small_sample_reads_little_and_still_every_head() {
    let (dir, _) = frames().await;
    let nothing = f64::MIN_POSITIVE;
    let (full, sampled) = (dir.verify().await, dir.sample(nothing, 1).await);
    assert_eq!((sampled.frames, sampled.frames_skipped), (0, full.frames));
    assert_eq!((sampled.rows, sampled.events, sampled.lsns), (full.rows, full.events, full.lsns));
    assert!(sampled.is_clean() && sampled.bytes <= full.bytes, "{sampled:?}");
    let path = dir.path(segment(2, 1));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[520] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(!dir.sample(nothing, 1).await.is_clean(), "a head is damaged");
    bytes[520] ^= 1;
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(!dir.sample(nothing, 1).await.is_clean(), "an object lacks its end");
}
