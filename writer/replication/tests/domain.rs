//! A protected domain over a real log store file and a bucket that comes and goes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use async_trait::async_trait;
use bytes::Bytes;
use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tidemark_bucket::{Bucket, Faults};
use tidemark_env::Env;
use tidemark_format::{BLOCK_BYTES, DiskId, DomainId, ErrorKind, Extent, Level, Lsn};
use tidemark_log_store::{FormatOptions, LogStore, OpenOptions, Record, SpaceLimits};
use tidemark_reader::{Domain, ReaderOptions};
use tidemark_replication::{Compare, Ends, Phase, ProtectedDomain, ReplicationOptions, Source, Standing, TakeOver};
use tidemark_writer::{
    Attach, Body, Content, DomainWriter, NewDisk, SeedPiece, Submission, WriterOptions, create_domain,
};

const DISK_BLOCKS: u64 = 256;
const PATIENCE: Duration = Duration::from_secs(60);

/// A log store in a file and a bucket in memory.
struct Site {
    dir: TempDir,
    bucket: Bucket,
    faults: Faults,
    domain: DomainId,
    store: Option<LogStore>,
}

impl Site {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let bucket = Bucket::memory();
        let domain = create_domain(&bucket.appender(), "test", &Env::system()).await.unwrap().domain;
        let options = FormatOptions { size_bytes: Some(64 << 20), extent_bytes: 1 << 20, ..FormatOptions::default() };
        LogStore::format(&dir.path().join("lun"), &options).unwrap();
        Self { dir, bucket, faults: Faults::seeded(1).surfacing(), domain, store: None }
    }

    fn lun(&self) -> PathBuf {
        self.dir.path().join("lun")
    }

    /// Opens the log store anew, as after a crash, and the domain in it. Returns what its primaries may lack, too.
    async fn open(&mut self) -> (ProtectedDomain, Vec<Record>) {
        self.open_with(options()).await
    }

    async fn open_with(&mut self, options: ReplicationOptions) -> (ProtectedDomain, Vec<Record>) {
        self.store = None;
        let store = open_store(&self.lun()).await;
        let mut lacking = Vec::new();
        let bucket = self.bucket.with_faults(self.faults.clone());
        let env = Env::system();
        let recovered = |record: &Record| {
            lacking.push(record.clone());
            Ok(())
        };
        let domain = ProtectedDomain::open(&store, self.domain, bucket, options, env, recovered).await.unwrap();
        self.store = Some(store);
        (domain, lacking)
    }

    /// The domain with a new disk, of which one write is in the bucket.
    async fn drained(&mut self) -> (ProtectedDomain, DiskId) {
        let (domain, _) = self.open().await;
        let disk = domain.disk_add(&new_disk(), Content::Blank).await.unwrap();
        domain.applied(disk, domain.status().last_lsn);
        acked(&domain, disk, 1, 1).await;
        domain.drain().await.unwrap();
        (domain, disk)
    }

    async fn image(&self, disk: DiskId) -> Vec<u8> {
        let reader = Domain::open(self.bucket.read_only(), ReaderOptions::default(), Env::system()).await.unwrap();
        let last = reader.timeline().latest().lsn;
        let image = reader.disk(disk, last).await.unwrap();
        image.read(0, (DISK_BLOCKS * BLOCK_BYTES) as usize).await.unwrap().to_vec()
    }
}

/// The tasks of a domain that was dropped let go of the log store when they are next looked at.
async fn open_store(lun: &Path) -> LogStore {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match LogStore::open(lun, OpenOptions { cache_bytes_max: 4 << 20, ..OpenOptions::default() }) {
            Err(tidemark_log_store::Error::InUse { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            opened => return opened.unwrap(),
        }
    }
}

fn options() -> ReplicationOptions {
    let writer = WriterOptions {
        segment_bytes_max: 64 << 10,
        age_ms_max: 5,
        buffer_bytes_max: 64 << 20,
        retry_ms_first: 1,
        retry_ms_max: 5,
        attach: Attach::KnownCas,
        ..WriterOptions::default()
    };
    let space = SpaceLimits { min_bytes: 2 << 20, max_bytes: 32 << 20 };
    ReplicationOptions { writer, space, keep_ms: 20, retry_ms_first: 2, retry_ms_max: 10, ..Default::default() }
}

fn new_disk() -> NewDisk {
    NewDisk { vm: "vm".into(), name: "vda".into(), size_bytes: DISK_BLOCKS * BLOCK_BYTES }
}

fn write(disk: DiskId, block: u64, value: u8) -> Submission {
    Submission::Write {
        disk,
        extent: Extent::new(block, 1),
        body: Body::Data(vec![value; BLOCK_BYTES as usize].into()),
    }
}

async fn acked(domain: &ProtectedDomain, disk: DiskId, block: u64, value: u8) -> Lsn {
    domain.log(write(disk, block, value), |_| {}).unwrap().durable().await.unwrap()
}

async fn phase(domain: &ProtectedDomain, wanted: Phase) {
    let reached = async {
        while domain.status().phase != wanted {
            domain.room_or(Duration::from_millis(5)).await;
        }
    };
    let why = || domain.status();
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("not {wanted}: {:?}", why()));
}

#[tokio::test]
async fn what_is_acknowledged_while_the_bucket_is_away_is_in_it_once_it_is_back() {
    let mut site = Site::new().await;
    let (domain, _) = site.open().await;
    let disk = domain.disk_add(&new_disk(), Content::Blank).await.unwrap();
    domain.drain().await.unwrap();
    site.faults.vanish();
    for block in 0..100 {
        acked(&domain, disk, block, block as u8 + 1).await;
    }
    assert!(domain.status().rpo_age > Duration::ZERO);
    assert!(domain.status().committed < domain.status().last_lsn);
    domain.bookmark("away", Level::Crash).await.unwrap();
    site.faults.come_back();
    domain.drain().await.unwrap();
    let status = domain.status();
    assert_eq!((status.committed, status.rpo_age), (status.last_lsn, Duration::ZERO));
    let image = site.image(disk).await;
    assert!((0..100).all(|block| image[block * 512] == block as u8 + 1));
}

#[tokio::test]
async fn an_old_epoch_ends_and_the_next_one_begins_without_a_write_being_held_or_lost() {
    let mut site = Site::new().await;
    let (domain, _) = site.open_with(ReplicationOptions { epoch_ms_max: 20, ..options() }).await;
    let disk = domain.disk_add(&new_disk(), Content::Existing).await.unwrap();
    let source = Memory(Mutex::new(contents()));
    let epoch = || domain.status().epoch.map_or(0, |epoch| epoch.get());
    let mut expected = contents();
    let writes = async {
        for n in 0.. {
            let (block, value) = (n % DISK_BLOCKS, (n % 250) as u8 + 1);
            // Like a primary: what is seeded later has what was written before the seed began.
            source.0.lock().unwrap()[block as usize * 512..][..512].fill(value);
            acked(&domain, disk, block, value).await;
            expected[block as usize * 512..][..512].fill(value);
            if epoch() >= 6 {
                break;
            }
        }
    };
    let seed = async { domain.seed(disk, &source, Ends::Restorable).await.unwrap() };
    tokio::time::timeout(PATIENCE, futures::future::join(writes, seed)).await.unwrap();
    domain.drain().await.unwrap();
    assert_eq!(site.image(disk).await, expected);
    // Nothing is written: the epoch goes on.
    let last = epoch();
    domain.room_or(Duration::from_millis(100)).await;
    assert!(epoch() <= last + 1);
}

#[tokio::test]
async fn a_restart_without_the_bucket_goes_on_from_the_log() {
    let mut site = Site::new().await;
    let (domain, _) = site.open().await;
    let disk = domain.disk_add(&new_disk(), Content::Blank).await.unwrap();
    domain.drain().await.unwrap();
    site.faults.vanish();
    let before = acked(&domain, disk, 1, 11).await;
    drop(domain);
    let (domain, _) = site.open().await;
    assert_eq!(acked(&domain, disk, 2, 22).await, before.next());
    phase(&domain, Phase::Offline).await;
    drop(domain);
    site.faults.come_back();
    let (domain, _) = site.open().await;
    phase(&domain, Phase::Replicating).await;
    domain.drain().await.unwrap();
    let image = site.image(disk).await;
    assert_eq!((image[512], image[1024]), (11, 22));
}

#[tokio::test]
async fn a_primary_gets_what_it_may_lack_and_the_log_waits_for_it() {
    let mut site = Site::new().await;
    let (domain, _) = site.open().await;
    let disk = domain.disk_add(&new_disk(), Content::Blank).await.unwrap();
    domain.applied(disk, domain.status().last_lsn);
    domain.keep().await.unwrap();
    let first = acked(&domain, disk, 1, 1).await;
    let second = acked(&domain, disk, 2, 2).await;
    domain.drain().await.unwrap();
    domain.keep().await.unwrap();
    drop(domain);
    let (domain, lacking) = site.open().await;
    let lacking: Vec<_> = lacking.iter().map(|record| record.lsn).collect();
    assert_eq!(lacking, [first, second], "committed in the bucket, but the primary lacks them");
    domain.applied(disk, first);
    domain.keep().await.unwrap();
    drop(domain);
    let (domain, lacking) = site.open().await;
    assert_eq!(lacking.iter().map(|record| record.lsn).collect::<Vec<_>>(), [second]);
    domain.applied(disk, second);
    phase(&domain, Phase::Replicating).await;
    domain.drain().await.unwrap();
    domain.keep().await.unwrap();
    drop(domain);
    let (_domain, lacking) = site.open().await;
    assert!(lacking.is_empty());
}

#[tokio::test]
async fn fault_crashes_at_random_moments_on_a_failing_bucket_lose_nothing_acknowledged() {
    for seed in 0..8_u64 {
        let mut site = Site::new().await;
        site.faults = Faults::seeded(seed)
            .surfacing()
            .on("log/", tidemark_bucket::Op::Put, tidemark_bucket::Fault::AppliedLost, 0.2)
            .on("", None, tidemark_bucket::Fault::Error, 0.01);
        let mut model = vec![0_u8; DISK_BLOCKS as usize];
        let mut disk = None;
        for round in 0..6_u64 {
            let domain = loop {
                // A domain that is new here needs the bucket.
                site.store = None;
                let store = open_store(&site.lun()).await;
                let bucket = site.bucket.with_faults(site.faults.clone());
                match ProtectedDomain::open(&store, site.domain, bucket, options(), Env::system(), |_| Ok(())).await {
                    Ok(domain) => {
                        site.store = Some(store);
                        break domain;
                    }
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Retry, "{e}"),
                }
            };
            let disk = match disk {
                Some(disk) => disk,
                None => *disk.insert(domain.disk_add(&new_disk(), Content::Blank).await.unwrap()),
            };
            for step in 0..40 {
                let block = (seed * 7 + round * 31 + step * 13) % DISK_BLOCKS;
                let value = (round * 40 + step + 1) as u8;
                acked(&domain, disk, block, value).await;
                model[block as usize] = value;
                if step % 16 == seed % 16 {
                    tokio::task::yield_now().await;
                }
            }
        }
        site.faults = Faults::seeded(seed);
        let (domain, _) = site.open().await;
        phase(&domain, Phase::Replicating).await;
        domain.drain().await.unwrap();
        let image = site.image(disk.unwrap()).await;
        let found: Vec<u8> = image.chunks(512).map(|block| block[0]).collect();
        assert_eq!(found, model, "seed {seed}");
    }
}

#[tokio::test]
async fn a_fenced_domain_refuses_writes_and_keeps_both_branches_apart() {
    let mut site = Site::new().await;
    let (domain, disk) = site.drained().await;
    let writer_options = options().writer;
    let other = DomainWriter::open(site.bucket.appender(), writer_options, Env::system()).await.unwrap();
    other.write(disk, 2 * 512, vec![2; 512].into()).await.unwrap();
    // It learns of it at the next look, and until then acknowledges into its own log alone.
    let mut block = 10;
    while domain.status().phase.takes_writes() {
        match domain.log(write(disk, block, 9), |_| {}) {
            Ok(logged) => drop(logged.durable().await.unwrap()),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Fenced, "{e}"),
        }
        block = block % 100 + 10;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(domain.status().phase, Phase::Fenced);
    assert_eq!(domain.log(write(disk, 1, 1), |_| {}).unwrap_err().kind(), ErrorKind::Fenced);
    other.close().await.unwrap();

    // Once more, and the other's branch is seen.
    domain.take_over(TakeOver::KeepLocal).unwrap();
    phase(&domain, Phase::Diverged).await;
    domain.take_over(TakeOver::DiscardLocal).unwrap();
    phase(&domain, Phase::Replicating).await;
    assert_eq!(domain.suspects(), [disk], "its primary holds what was given up");
    assert_eq!(domain.status().disks[0].standing, Standing::Unprotected);
    domain.drain().await.unwrap();
    let reader = Domain::open(site.bucket.read_only(), ReaderOptions::default(), Env::system()).await.unwrap();
    assert!(reader.disk(disk, reader.timeline().latest().lsn).await.is_err(), "a gap is not offered");
}

#[tokio::test]
async fn who_comes_back_does_not_claim_what_another_owner_has_claimed_since() {
    let mut site = Site::new().await;
    let (domain, disk) = site.drained().await;
    // It dies with everything in the bucket, and nothing trimmed.
    drop(domain);
    let elsewhere = WriterOptions { owner: "another site".into(), ..options().writer };
    let other = DomainWriter::open(site.bucket.appender(), elsewhere, Env::system()).await.unwrap();
    other.write(disk, 2 * 512, vec![2; 512].into()).await.unwrap();

    let (domain, _) = site.open().await;
    phase(&domain, Phase::Fenced).await;
    assert!(domain.status().why.contains("another site"), "{}", domain.status().why);
    assert_eq!(domain.log(write(disk, 1, 1), |_| {}).unwrap_err().kind(), ErrorKind::Fenced);
    other.write(disk, 3 * 512, vec![3; 512].into()).await.unwrap();
    drop(domain);
    // And so after each restart, until somebody says otherwise.
    let (domain, _) = site.open().await;
    phase(&domain, Phase::Fenced).await;
    other.write(disk, 4 * 512, vec![4; 512].into()).await.unwrap();
    other.close().await.unwrap();
    domain.take_over(TakeOver::KeepLocal).unwrap();
    // What the log store holds was committed before the other came: nothing is given up.
    phase(&domain, Phase::Replicating).await;
}

/// A disk in memory.
struct Memory(Mutex<Vec<u8>>);

#[async_trait]
impl Source for Memory {
    async fn read(&self, extent: Extent) -> std::io::Result<Vec<SeedPiece>> {
        let (offset, len) = (extent.start * BLOCK_BYTES, extent.byte_len() as usize);
        let data = self.0.lock().unwrap()[offset as usize..][..len].to_vec();
        Ok(vec![SeedPiece::Data { offset, data: data.into() }])
    }

    async fn hold(&self, _: Extent) -> Box<dyn Any + Send> {
        Box::new(())
    }
}

/// What the bucket has, or nothing.
struct Known(Option<Vec<u8>>);

#[async_trait]
impl Compare for Known {
    async fn known(&self, _: DiskId, extent: Extent) -> Option<Bytes> {
        let all = self.0.as_ref()?;
        Some(Bytes::copy_from_slice(&all[(extent.start * 512) as usize..][..extent.byte_len() as usize]))
    }
}

fn contents() -> Vec<u8> {
    (0..DISK_BLOCKS).flat_map(|block| vec![block as u8; BLOCK_BYTES as usize]).collect()
}

#[tokio::test]
async fn a_seed_goes_on_behind_a_restart_and_live_writes_win_over_it() {
    let mut site = Site::new().await;
    let (domain, _) = site.open().await;
    let disk = domain.disk_add(&new_disk(), Content::Existing).await.unwrap();
    let source = Memory(Mutex::new(contents()));
    site.faults.vanish();
    // The seed begins, and cannot put its first object.
    let began = async {
        while !matches!(domain.status().disks[0].standing, Standing::Seeding { .. }) {
            domain.room_or(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        done = domain.seed(disk, &source, Ends::Restorable) => panic!("without a bucket: {done:?}"),
        () = began => {}
    }
    acked(&domain, disk, 3, 200).await;
    drop(domain);
    site.faults.come_back();
    let (domain, _) = site.open().await;
    assert!(matches!(domain.status().disks[0].standing, Standing::Seeding { done_bytes: 0, .. }));
    domain.seed(disk, &source, Ends::Restorable).await.unwrap();
    assert_eq!(domain.status().disks[0].standing, Standing::Protected);
    domain.drain().await.unwrap();
    let mut expected = contents();
    expected[3 * 512..4 * 512].fill(200);
    assert_eq!(site.image(disk).await, expected);
}

#[tokio::test]
async fn a_gap_is_closed_by_logging_what_differs_and_nothing_else() {
    let mut site = Site::new().await;
    let (domain, _) = site.open().await;
    let disk = domain.disk_add(&new_disk(), Content::Existing).await.unwrap();
    let source = Memory(Mutex::new(contents()));
    domain.seed(disk, &source, Ends::Restorable).await.unwrap();
    domain.drain().await.unwrap();
    let before = site.image(disk).await;
    domain.open_gap(disk).await.unwrap();
    assert_eq!(domain.status().disks[0].standing, Standing::Unprotected);
    source.0.lock().unwrap()[100 * 512..108 * 512].fill(77);
    let expected = source.0.lock().unwrap().clone();
    let first = domain.status().last_lsn;
    let ranges = [Extent::new(0, DISK_BLOCKS)];
    domain.close_gap(disk, &ranges, &source, &Known(Some(before)), |_| {}).await.unwrap();
    // RESYNC_START, one or two writes around the edges of 4 KiB, RESYNC_DONE, CONSISTENT_FROM.
    assert!(first.count_to(domain.status().last_lsn) <= 1 + 5);
    assert_eq!(domain.status().disks[0].standing, Standing::Protected);
    domain.drain().await.unwrap();
    assert_eq!(site.image(disk).await, expected);
}

#[tokio::test]
async fn a_full_log_says_so_and_takes_writes_again_once_the_bucket_has_them() {
    let mut site = Site::new().await;
    let (domain, _) = site.open().await;
    let size_bytes = 64 << 20;
    let disk = domain.disk_add(&NewDisk { size_bytes, ..new_disk() }, Content::Blank).await.unwrap();
    site.faults.vanish();
    let data = Bytes::from(vec![1; 256 << 10]);
    let big =
        |n: u64| Submission::Write { disk, extent: Extent::new(n % 100 * 512, 512), body: Body::Data(data.clone()) };
    let mut written = 0;
    let full = loop {
        match domain.log(big(written), |_| {}) {
            Ok(logged) => drop(logged.durable().await.unwrap()),
            Err(e) => break e,
        }
        written += 1;
    };
    assert!(full.is_full(), "{full}");
    assert!(written * (256 << 10) > 16 << 20, "{written} writes fit into 32 MiB");
    domain.bookmark("events still fit", Level::Crash).await.unwrap();
    site.faults.come_back();
    let again = async {
        while domain.log(big(0), |_| {}).is_err() {
            domain.room_or(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("there is room again");
}

#[tokio::test]
async fn a_closed_domain_has_shipped_everything_and_the_next_one_goes_on() {
    let mut site = Site::new().await;
    let (domain, _) = site.open().await;
    let disk = domain.disk_add(&new_disk(), Content::Blank).await.unwrap();
    let last = acked(&domain, disk, 1, 1).await;
    domain.close().await.unwrap();
    assert_eq!(domain.status().committed, last);
    assert!(domain.log(write(disk, 1, 1), |_| {}).is_err());
    drop(domain);
    let (domain, _) = site.open().await;
    assert!(matches!(acked(&domain, disk, 1, 2).await, lsn if lsn == last.next()));
    assert!(matches!(domain.disks().get(disk).unwrap().blocks, DISK_BLOCKS));
}
