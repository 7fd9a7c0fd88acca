//! One wrong bit, anywhere: `verify` finds it, and no reader and no mount ever serves it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use std::path::{Path, PathBuf};
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_e2e::Tidemark;
use tidemark_e2e::guest::mix;
use tidemark_env::Env;
use tidemark_format::{DiskId, Level, Lsn};
use tidemark_reader::{Domain, ReaderOptions, verify};
use tidemark_writer::{Attach, Content, DomainWriter, NewDisk, Request, SeedPiece, When, WriterOptions, create_domain};

const DISK: DiskId = DiskId::new(1);
const DISK_BYTES: u64 = 256 << 10;

/// A domain with everything in it: a seed, two epochs, several segments, all kinds of rows.
async fn domain(dir: &Path) -> Bucket {
    let env = Env::system();
    let bucket = Bucket::open(&BucketUrl::file(dir), &BucketOptions::default()).unwrap();
    create_domain(&bucket.appender(), "fragile", &env).await.unwrap();
    let noise = |seed: u64, blocks: u64| {
        let words = (0..blocks * 64).flat_map(|i| mix(seed ^ mix(i / 2)).to_le_bytes());
        Bytes::from(words.collect::<Vec<u8>>())
    };
    for run in 0..2 {
        let options = WriterOptions { attach: Attach::KnownCas, ..WriterOptions::default() };
        let writer = DomainWriter::open(bucket.appender(), options, env.clone()).await.unwrap();
        if run == 0 {
            let disk = NewDisk { vm: "vm".into(), name: "root".into(), size_bytes: DISK_BYTES };
            writer.disk_add(&disk, Content::Existing).await.unwrap();
            let pieces = [
                SeedPiece::Data { offset: 0, data: noise(9, 128) },
                SeedPiece::Zero { offset: 64 << 10, len: DISK_BYTES - (64 << 10) },
            ];
            writer.seed(DISK, futures::stream::iter(pieces.map(Ok)), When::Now).await.unwrap();
        }
        for i in 0..24u64 {
            let offset = mix(run << 8 | i) % 500 * 512;
            let request = match i % 8 {
                6 => Request::Zero { disk: DISK, offset, len: 4096 },
                7 => Request::Unmap { disk: DISK, offset, len: 4096 },
                _ => Request::Write { disk: DISK, offset, data: noise(run << 8 | i, 8) },
            };
            let _ticket = writer.submit(request, When::Now).await.unwrap();
            if i % 9 == 8 {
                writer.bookmark(&format!("mark {run} {i}"), Level::FileSystem).await.unwrap();
            }
        }
        writer.close().await.unwrap();
    }
    bucket
}

/// Every file of the bucket that holds an object of the domain.
fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(path);
            // Probes are no part of a domain.
            } else if !path.to_string_lossy().contains("/v/probe/") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The disk at every LSN from which it can be read.
async fn all_images(bucket: &Bucket, last: Lsn) -> Vec<Option<Bytes>> {
    let opened = Domain::open(bucket.read_only(), ReaderOptions::default(), Env::system()).await;
    let mut images = Vec::new();
    for lsn in 1..=last.get() {
        let image = match &opened {
            Ok(domain) => domain.disk(DISK, Lsn::new(lsn)).await.ok(),
            Err(_) => None,
        };
        images.push(match image {
            // Block by block, so that what is whole of a damaged disk is looked at too.
            Some(image) => image.read(0, DISK_BYTES as usize).await.ok(),
            None => None,
        });
    }
    images
}

/// Which bits of an object of so many bytes to turn over: some in each part of it.
fn bits(object: u64, len: usize) -> Vec<(usize, u8)> {
    let samples = if len < 2048 { len / 6 } else { 400 };
    let bit = |at: usize, i: u64| (at, 1u8 << (mix(object ^ i << 20) % 8));
    let spread = (0..samples).map(|i| bit(i * len / samples, i as u64));
    // Headers are dense in meaning: each eighth byte of the first 512.
    let header = (0..len.min(512)).step_by(8).map(|at| bit(at + (mix(at as u64) % 8) as usize % (len - at), 7));
    spread.chain(header).chain([bit(len - 1, 3)]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_bit_in_any_object_is_found_by_verify_and_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = domain(dir.path()).await;
    let clean = verify(&bucket.read_only(), &ReaderOptions::default(), |_| ()).await.unwrap();
    assert!(clean.is_clean(), "{:?}", clean.damage);
    let last = clean.lsns.unwrap().1;
    let truth = all_images(&bucket, last).await;
    assert!(truth.iter().flatten().count() > 40);

    let mut flips = 0u64;
    let objects = objects(dir.path());
    assert!(objects.len() >= 12, "{objects:?}");
    for (i, path) in objects.iter().enumerate() {
        let whole = std::fs::read(path).unwrap();
        for (at, mask) in bits(i as u64, whole.len()) {
            let mut damaged = whole.clone();
            damaged[at] ^= mask;
            std::fs::write(path, &damaged).unwrap();
            let found = verify(&bucket.read_only(), &ReaderOptions::default(), |_| ()).await;
            let detected = !matches!(&found, Ok(report) if report.is_clean());
            assert!(detected, "{}: bit {mask:#x} of byte {at} was not found", path.display());
            flips += 1;
            // Reading every LSN takes longer: each 8th flip.
            if flips.is_multiple_of(8) {
                for (lsn, (shown, truth)) in all_images(&bucket, last).await.iter().zip(&truth).enumerate() {
                    let served_wrong = shown.is_some() && shown != truth;
                    assert!(!served_wrong, "{}: byte {at} was served at lsn {}", path.display(), lsn + 1);
                }
            }
        }
        std::fs::write(path, &whole).unwrap();
    }
    let clean = verify(&bucket.read_only(), &ReaderOptions::default(), |_| ()).await.unwrap();
    assert!(clean.is_clean(), "mended, {:?}", clean.damage);
    assert!(flips > 1000, "only {flips} flips");
}

#[test]
fn mount_never_serves_a_flipped_bit() {
    let tidemark = Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"));
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("bucket");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(domain(&bucket));
    let url = bucket.display().to_string();
    let mounted = tidemark.mount(&url, &dir.path().join("whole"), &[]);
    let truth = std::fs::read(mounted.disk("latest", "vm", "root")).unwrap();
    mounted.stop("TERM");

    let (mut refused, mut failed, mut whole_reads) = (0, 0, 0);
    for (i, path) in objects(&bucket).iter().enumerate() {
        let whole = std::fs::read(path).unwrap();
        let mut damaged = whole.clone();
        // In DATA where there is any, else in the middle.
        let at = if whole.len() > 2048 { whole.len() - 700 } else { whole.len() / 2 };
        damaged[at] ^= 1;
        std::fs::write(path, &damaged).unwrap();
        let found = tidemark.run(["verify", &url]);
        assert_eq!(found.code, Some(13), "{}: {found:?}", path.display());
        let opened = tidemark.run(["points", &url]);
        if opened.code == Some(0) {
            let mounted = tidemark.mount(&url, &dir.path().join(format!("m{i}")), &[]);
            match std::fs::read(mounted.disk("latest", "vm", "root")) {
                Ok(bytes) => {
                    assert!(bytes == truth, "{}: a flipped bit was served", path.display());
                    whole_reads += 1;
                }
                Err(_) => failed += 1,
            }
        } else {
            assert_eq!(opened.code, Some(13), "{}: {opened:?}", path.display());
            refused += 1;
        }
        std::fs::write(path, &whole).unwrap();
    }
    assert!(refused > 0 && failed > 0 && whole_reads > 0, "{refused} refused, {failed} failed, {whole_reads} whole");
}
