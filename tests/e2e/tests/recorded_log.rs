//! The recorded VM, ingested and read back: every point is byte for byte what a naive replay gives.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_cli::logwrites::Entry;
use tidemark_e2e::Tidemark;
use tidemark_e2e::guest::mix;
use tidemark_e2e::sample::{BASE, DISK_BYTES, FINAL_SHA256, LOG, apply, base, log, path};
use tidemark_e2e::system::sha256;
use tidemark_env::Env;
use tidemark_format::{DiskId, Lsn};
use tidemark_reader::{Domain, ExportSink, ReaderOptions};

const DISK: DiskId = DiskId::new(1);

fn tidemark() -> Tidemark {
    Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"))
}

/// Ingests a base image and a log; the LSN of the log's first entry and the directory of the bucket.
fn ingested(base: Option<&str>, name: &str) -> (tempfile::TempDir, String, u64) {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("bucket").display().to_string();
    let tidemark = tidemark();
    tidemark.ok(["domain", "create", &url, "--name", "recorded"]);
    if let Some(base) = base {
        let file = path(base).display().to_string();
        tidemark.ok(["ingest", &url, "--disk", "vm/root", "--format", "raw", &file]);
    }
    let file = path(name).display().to_string();
    let report = tidemark.json(["ingest", &url, "--disk", "vm/root", "--format", "blklogwrites", &file]);
    (dir, url, report["first_lsn"].as_u64().unwrap())
}

async fn open(url: &str) -> Domain {
    let bucket = Bucket::open(&BucketUrl::file(url), &BucketOptions::default()).unwrap();
    Domain::open(bucket.read_only(), ReaderOptions::default(), Env::system()).await.unwrap()
}

/// Compares a disk with the bytes that it must hold, as it is exported.
struct Same<'a> {
    wanted: &'a [u8],
    differs: Option<u64>,
    compared: u64,
}

impl Same<'_> {
    fn compare(&mut self, offset: u64, same: impl FnOnce(&[u8]) -> bool, len: usize) {
        assert_eq!(offset, self.compared, "an export has no gap");
        self.compared += len as u64;
        if !same(&self.wanted[offset as usize..][..len]) {
            self.differs.get_or_insert(offset);
        }
    }
}

impl ExportSink for Same<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.compare(offset, |wanted| wanted == bytes, bytes.len());
        Ok(())
    }

    fn zeros(&mut self, offset: u64, len: u64) -> io::Result<()> {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        let is_zero = |wanted: &[u8]| wanted.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()]);
        self.compare(offset, is_zero, len as usize);
        Ok(())
    }
}

/// Compares the images after the given entries (0 = before the first) with a naive replay.
async fn compare(domain: &Domain, first_lsn: u64, mut replay: Vec<u8>, log: &[Entry], points: &BTreeSet<usize>) {
    for done in 0..=log.len() {
        if done > 0 {
            apply(&mut replay, &log[done - 1]);
        }
        if points.contains(&done) {
            let lsn = first_lsn + done as u64 - 1;
            let disk = domain.disk(DISK, Lsn::new(lsn)).await.unwrap();
            let mut same = Same { wanted: &replay, differs: None, compared: 0 };
            disk.export(&mut same, |_| ()).await.unwrap();
            assert_eq!((same.differs, same.compared), (None, replay.len() as u64), "lsn {lsn}, after {done} entries");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn image_at_200_random_lsns_and_at_every_flush_equals_a_naive_replay() {
    let (_dir, url, first_lsn) = ingested(Some(BASE), LOG);
    let (base, log) = (base(), log(LOG));
    assert_eq!((base.len() as u64, log.len()), (DISK_BYTES, 457));
    let random = (0u64..).map(|i| mix(i) as usize % (log.len() + 1));
    let mut points: BTreeSet<usize> = [0, log.len()].into();
    for point in random {
        points.insert(point);
        if points.len() >= 202 {
            break;
        }
    }
    // Where the guest was told that its data is safe.
    points.extend((1..=log.len()).filter(|&done| log[done - 1].data.is_empty()));
    compare(&open(&url).await, first_lsn, base, &log, &points).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discards_and_zeroes_of_a_recorded_log_read_as_zeros_at_every_lsn() {
    let name = "sample.qemuio-discard-zero.log.zst";
    let (_dir, url, first_lsn) = ingested(None, name);
    let log = log(name);
    let domain = open(&url).await;
    let size = domain.timeline().disks_at(Lsn::new(first_lsn))[0].size_bytes as usize;
    compare(&domain, first_lsn, vec![0; size], &log, &(0..=log.len()).collect()).await;
}

#[test]
fn export_of_the_newest_point_is_the_disk_that_the_guest_left() {
    let (dir, url, first_lsn) = ingested(Some(BASE), LOG);
    let raw = dir.path().join("out.img");
    tidemark().ok(["export", &url, "--disk", "vm/root", "--at", "latest", raw.to_str().unwrap()]);
    assert_eq!(sha256(&raw), FINAL_SHA256);
    let used = std::os::unix::fs::MetadataExt::blocks(&raw.metadata().unwrap()) * 512;
    assert!(used < DISK_BYTES / 8, "{used} bytes used: holes were filled");

    let at = format!("lsn:{}", first_lsn - 1);
    let qcow2 = dir.path().join("before.qcow2");
    let args = ["export", &url, "--disk", "vm/root", "--at", &at, "--format", "qcow2", qcow2.to_str().unwrap()];
    tidemark().ok(args);
    let again = dir.path().join("before.img");
    let convert = ["convert", "-O", "raw", qcow2.to_str().unwrap(), again.to_str().unwrap()];
    tidemark_e2e::system::run("qemu-img", convert);
    assert!(std::fs::read(&again).unwrap() == base(), "the point before the first write is the base image");
}

#[test]
fn a_log_that_is_ingested_twice_is_refused_and_a_truncated_one_not_begun() {
    let (dir, url, _) = ingested(Some(BASE), LOG);
    let log = path(LOG).display().to_string();
    let ingest = |file: &str| tidemark().run(["ingest", &url, "--disk", "vm/root", "--format", "dm-log-writes", file]);
    let before = tidemark().json(["points", &url]);
    let again = ingest(&log);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("is in the domain already"), "{again:?}");

    let cut = dir.path().join("cut.log");
    let mut bytes = Vec::new();
    zstd::stream::copy_decode(std::fs::File::open(&log).unwrap(), &mut bytes).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let refused = ingest(cut.to_str().unwrap());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("log ends in entry"), "{refused:?}");
    assert_eq!(tidemark().json(["points", &url]), before, "nothing was written");
}

#[test]
fn kill_of_an_ingestion_at_any_moment_is_continued_without_doubling() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("bucket").display().to_string();
    let log = path(LOG).display().to_string();
    let base = path(BASE).display().to_string();
    tidemark().ok(["domain", "create", &url, "--name", "recorded"]);
    tidemark().ok(["ingest", &url, "--disk", "vm/root", "--format", "raw", &base]);
    let small = ["--segment-size", "16K", "--segment-age-ms", "2"];
    let args = [&["ingest", &url, "--disk", "vm/root", "--format", "blklogwrites"], &small[..], &[&log]].concat();
    // Slow puts, so that there are moments to die at.
    let slow = tidemark().env("TIDEMARK_FAULTS", "seed=1,put:log/:slow-30ms:1");
    let mut cut_short = 0;
    for attempt in 0..100u64 {
        let mut child = slow.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tidemark_e2e::system::pause(Duration::from_millis(40 + mix(attempt) % 150));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        cut_short += 1;
    }
    assert!(cut_short >= 3, "only {cut_short} were cut short: the test shows little");
    let last = tidemark().run(&args);
    assert!(last.code == Some(0) || last.stderr.contains("is in the domain already"), "{last:?}");
    let points = tidemark().json(["points", &url]);
    let bookmarks = points["bookmarks"].as_array().unwrap();
    let lsn = |i: usize| bookmarks[i]["lsn"].as_u64().unwrap();
    assert_eq!(bookmarks.len(), 2, "{points}");
    assert_eq!(lsn(1) - lsn(0) - 1, 457, "each entry is there once");
    let out = dir.path().join("out.img");
    tidemark().ok(["export", &url, "--disk", "vm/root", "--at", "latest", out.to_str().unwrap()]);
    assert_eq!(sha256(&out), FINAL_SHA256);
    tidemark().ok(["verify", &url]);
}

#[test]
fn kill_of_a_seeding_is_started_over_and_the_disk_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("bucket").display().to_string();
    let base_file = path(BASE).display().to_string();
    tidemark().ok(["domain", "create", &url, "--name", "recorded"]);
    let args = ["ingest", &url, "--disk", "vm/root", "--format", "raw", "--segment-age-ms", "20", &base_file];
    let slow = tidemark().env("TIDEMARK_FAULTS", "put:base/:hang:1");
    let mut child = slow.command(args).stdout(Stdio::null()).spawn().unwrap();
    tidemark_e2e::system::until("log segment that begins the seed", || {
        dir.path().join("bucket/log/0000000000000001").read_dir().is_ok_and(|entries| entries.count() >= 2)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let out = dir.path().join("out.img").display().to_string();
    let export = ["export", &url, "--disk", "vm/root", "--at", "latest", &out];
    let refused = tidemark().run(export);
    assert_eq!(refused.code, Some(1), "half a seed is no disk: {refused:?}");
    tidemark().ok(args);
    tidemark().ok(export);
    assert!(std::fs::read(&out).unwrap() == base(), "the seed is the image");
    tidemark().ok(["verify", &url]);
}
