//! Two writers of one domain: exactly one survives, the other learns that it is fenced, no promise is broken.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_e2e::guest::mix;
use tidemark_e2e::system::pause;
use tidemark_env::Env;
use tidemark_format::{DiskId, ErrorKind, Lsn};
use tidemark_reader::{Domain, ReaderOptions};
use tidemark_writer::{Content, DomainWriter, Error, NewDisk, WriterOptions, create_domain};

const DISK: DiskId = DiskId::new(1);
const DISK_BYTES: u64 = 256 << 10;

fn options(owner: &str) -> WriterOptions {
    let owner = owner.to_owned();
    WriterOptions { owner, segment_bytes_max: 32 << 10, age_ms_max: 2, ..WriterOptions::default() }
}

/// Promised writes: what was put where, by LSN.
type Promised = BTreeMap<Lsn, (u64, Bytes)>;

/// Takes the domain over and writes until it is fenced, or has written `writes_max` times; with what it ended.
async fn race(bucket: Bucket, owner: u64, writes_max: u64) -> (Promised, Result<(), Error>) {
    let mut promised = Promised::new();
    let done = async {
        let writer = DomainWriter::open(bucket.appender(), options(&format!("racer {owner}")), Env::system()).await?;
        for number in 0..writes_max {
            let dice = mix(owner << 40 | number);
            let offset = dice % (DISK_BYTES / 4096) * 4096;
            let data = Bytes::from([owner, number, dice].map(u64::to_le_bytes).concat().repeat(4096 / 8)).slice(..4096);
            let committed = writer.write(DISK, offset, data.clone()).await?;
            assert!(promised.insert(committed.lsn, (offset, data)).is_none());
        }
        writer.close().await
    };
    let ended = done.await;
    (promised, ended)
}

async fn check(bucket: &Bucket, first: Lsn, all: &[Promised]) {
    let domain = Domain::open(bucket.read_only(), ReaderOptions::default(), Env::system()).await.unwrap();
    for (lsn, (offset, data)) in all.iter().flatten() {
        assert!(*lsn > first);
        let image = domain.disk(DISK, *lsn).await.unwrap_or_else(|e| panic!("lsn {lsn} was promised: {e}"));
        let shown = image.read(*offset, data.len()).await.unwrap();
        assert!(shown == data, "lsn {lsn} was promised and shows another write");
    }
    let report = tidemark_reader::verify(&bucket.read_only(), &ReaderOptions::default(), |_| ()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
}

async fn domain_in(bucket: &Bucket) -> Lsn {
    create_domain(&bucket.appender(), "contested", &Env::system()).await.unwrap();
    let writer = DomainWriter::open(bucket.appender(), options("founder"), Env::system()).await.unwrap();
    let disk = NewDisk { vm: "vm".into(), name: "root".into(), size_bytes: DISK_BYTES };
    writer.disk_add(&disk, Content::Blank).await.unwrap();
    writer.close().await.unwrap();
    writer.last_lsn()
}

/// Races two writers `rounds` times; the second starts a random moment after the first.
async fn two_writers(bucket: &Bucket, rounds: u64) {
    let first = domain_in(bucket).await;
    let mut all = Vec::new();
    let mut fenced = 0;
    for round in 0..rounds {
        let a = tokio::spawn(race(bucket.clone(), round * 2, 400));
        tokio::task::spawn_blocking(move || pause(std::time::Duration::from_millis(mix(round) % 24))).await.unwrap();
        let b = tokio::spawn(race(bucket.clone(), round * 2 + 1, 40));
        let ((of_a, a), (of_b, b)) = (a.await.unwrap(), b.await.unwrap());
        let survivors = [&a, &b].into_iter().filter(|ended| ended.is_ok()).count();
        for ended in [&a, &b].into_iter().filter_map(|ended| ended.as_ref().err()) {
            assert_eq!(ended.kind(), ErrorKind::Fenced, "round {round}: {ended}");
            fenced += 1;
        }
        // Both survive only where the first was done before the second came.
        assert!(survivors >= 1, "round {round}: nobody survived: {a:?}, {b:?}");
        let (last_a, first_b) = (of_a.keys().last(), of_b.keys().next());
        if survivors == 2 {
            assert!(last_a < first_b || of_a.keys().next() > of_b.keys().last(), "round {round}: two owners at once");
        }
        all.extend([of_a, of_b]);
    }
    assert!(fenced * 2 > rounds, "only {fenced} of {rounds} rounds were races: the test shows little");
    check(bucket, first, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_racing_writers_in_memory_one_survives_and_no_promise_is_broken() {
    two_writers(&Bucket::memory(), 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_racing_writers_on_a_directory_one_survives_and_no_promise_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    two_writers(&Bucket::open(&BucketUrl::file(dir.path()), &BucketOptions::default()).unwrap(), 15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_eight_writers_that_start_at_once_the_newest_claim_survives() {
    let bucket = Bucket::memory();
    let first = domain_in(&bucket).await;
    let gate = Arc::new(tokio::sync::Barrier::new(8));
    let racers: Vec<_> = (0..8)
        .map(|owner| {
            let (bucket, gate) = (bucket.clone(), gate.clone());
            tokio::spawn(async move {
                gate.wait().await;
                race(bucket, owner, 60).await
            })
        })
        .collect();
    let mut all = Vec::new();
    let mut survivors = 0;
    for racer in racers {
        let (promised, ended) = racer.await.unwrap();
        match ended {
            Ok(()) => survivors += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Fenced, "{error}"),
        }
        all.push(promised);
    }
    assert!(survivors >= 1);
    check(&bucket, first, &all).await;
}
