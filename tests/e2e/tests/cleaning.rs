//! Deleting: maintainers that are killed, overtaken and held back, readers that pin and readers that do not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidemark_bucket::{Bucket, Fault, Faults, Op};
use tidemark_e2e::folder::{bucket_at, copy};
use tidemark_env::{Env, ManualClock};
use tidemark_format::{
    DiskId, Epoch, ErrorKind, Expect, Extent, KeyFamily, Ledger, Lsn, ObjectKey, Policy, Retention, Role, SegmentDraft,
    SegmentHead, TimeNs, seal_segment,
};
use tidemark_gc::{CleanReport, Error, From, Maintainer, MaintenanceOptions};
use tidemark_history::Roots;
use tidemark_reader::{Domain, IndexUse, PinOptions, PointSpec, ReaderOptions, verify};
use tidemark_writer::{Attach, Content, DomainWriter, NewDisk, Request, When, WriterOptions, create_domain};

const BLOCKS: u64 = 64;
const START: TimeNs = TimeNs::new(1_790_000_000_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// A domain of one disk, what it held at each LSN, and the clock of everybody.
struct World {
    clock: Arc<ManualClock>,
    env: Env,
    images: BTreeMap<Lsn, Vec<u8>>,
    writes: u64,
    /// Bytes that were compared as hydration streams them.
    streamed: AtomicUsize,
}

fn options() -> MaintenanceOptions {
    MaintenanceOptions {
        run_rows: 12,
        fan_out: 3,
        image_rows_min: 8,
        table_rows_max: 10,
        heads_held_max: 5,
        small_object_bytes: 600,
        compact_bytes_max: 8 << 10,
        rows_held_max: 20,
        ..MaintenanceOptions::default()
    }
}

impl World {
    async fn new(bucket: &Bucket) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let env = Env::seeded(7, Arc::clone(&clock));
        create_domain(&bucket.appender(), "cleaned", &env).await.unwrap();
        Self { clock, env, images: BTreeMap::new(), writes: 0, streamed: AtomicUsize::new(0) }
    }

    /// Two epochs, of which the first is closed, and few points that are still wished.
    async fn thinned(bucket: &Bucket) -> Self {
        let mut world = Self::new(bucket).await;
        world.write(bucket, 30).await;
        world.write(bucket, 10).await;
        world.wish(bucket, 5, 0).await;
        world
    }

    /// An owner that writes so many times two blocks, one a minute and a segment for each, and closes its epoch.
    async fn write(&mut self, bucket: &Bucket, writes: u64) {
        let options = WriterOptions { age_ms_max: 5, attach: Attach::KnownCas, ..WriterOptions::default() };
        let writer = DomainWriter::open(bucket.appender(), options, self.env.clone()).await.unwrap();
        let mut image =
            self.images.last_key_value().map_or(vec![0; (BLOCKS * 512) as usize], |(_, image)| image.clone());
        if writer.last_lsn() == Lsn::ZERO {
            let new = NewDisk { vm: "vm".into(), name: "d".into(), size_bytes: BLOCKS * 512 };
            let _ = writer.submit_disk_add(&new, Content::Blank, When::Now).await.unwrap();
        }
        for _ in 0..writes {
            self.clock.advance(MINUTE);
            self.writes += 1;
            let offset = self.writes * 7 % (BLOCKS - 1) * 512;
            let data = vec![self.writes as u8 | 1; 1024];
            image[offset as usize..][..1024].copy_from_slice(&data);
            let write = Request::Write { disk: DiskId::new(1), offset, data: Bytes::from(data) };
            let ticket = writer.submit(write, When::Now).await.unwrap();
            self.images.insert(ticket.lsn(), image.clone());
            writer.sync().await.unwrap();
        }
        writer.close().await.unwrap();
    }

    async fn wish(&self, bucket: &Bucket, minutes: u64, hourly: u32) {
        let window_ns = minutes * MINUTE.as_nanos() as u64;
        let policy = Policy { window_ns, bookmarks_ns: 0, hourly, daily: 0, weekly: 0, monthly: 0 };
        let domain = self.open(bucket, IndexUse::Never).await.genesis().domain;
        let wish = Retention { policy: Some(policy), ..Retention::everything(domain) };
        bucket.appender().put_retention(wish.encode().unwrap()).await.unwrap();
    }

    async fn maintainer(&self, bucket: &Bucket) -> tidemark_gc::Result<Maintainer> {
        Maintainer::open(bucket.appender(), options(), self.env.clone()).await
    }

    async fn clean(&self, bucket: &Bucket) -> tidemark_gc::Result<CleanReport> {
        let mut maintainer = self.maintainer(bucket).await?;
        maintainer.pass(From::NewestRoot, |_| {}).await?;
        maintainer.clean(&bucket.deleter(), |_| {}).await
    }

    async fn open(&self, bucket: &Bucket, index: IndexUse) -> Domain {
        let options = ReaderOptions { index, ..ReaderOptions::default() };
        Domain::open(bucket.read_only(), options, self.env.clone()).await.unwrap()
    }

    /// Every offered point is as it was written, by index and by log, and others are refused. How many those are, by index.
    async fn check(&self, bucket: &Bucket) -> usize {
        let mut refused = 0;
        for index in [IndexUse::Never, IndexUse::IfThere] {
            let domain = self.open(bucket, index).await;
            assert_eq!(domain.timeline().latest().lsn, *self.images.last_key_value().unwrap().0);
            refused = 0;
            for lsn in self.images.keys() {
                match domain.timeline().resolve(&PointSpec::Lsn(*lsn), START).await {
                    Ok(_) => self.compare(&domain, *lsn).await,
                    Err(tidemark_reader::Error::NotRetained { .. }) => refused += 1,
                    Err(error) => panic!("lsn {lsn}: {error}"),
                }
            }
        }
        refused
    }

    async fn compare(&self, domain: &Domain, lsn: Lsn) {
        let image = domain.disk(DiskId::new(1), lsn).await.unwrap();
        let shown = image.read(0, (BLOCKS * 512) as usize).await.unwrap();
        assert!(shown == self.images[&lsn], "lsn {lsn} of {domain:?}");
        // What hydration streams object by object is the same, as far as it goes.
        let (to, mut streamed) = tokio::sync::mpsc::channel(1000);
        image.scatter(&[Extent::new(0, BLOCKS)], &to).await.unwrap();
        drop(to);
        while let Some(batch) = streamed.recv().await {
            for (offset, bytes) in batch {
                assert!(bytes == self.images[&lsn][offset as usize..][..bytes.len()], "lsn {lsn} of {domain:?}");
                self.streamed.fetch_add(bytes.len(), Ordering::Relaxed);
            }
        }
    }
}

async fn bytes_of(bucket: &Bucket, families: &[KeyFamily]) -> u64 {
    let mut sum = 0;
    for family in families {
        sum += bucket.read_only().list(*family).await.unwrap().iter().map(|(_, len)| len).sum::<u64>();
    }
    sum
}

async fn newest_ledger(bucket: &Bucket, world: &World) -> Option<Ledger> {
    let domain = world.open(bucket, IndexUse::Never).await.genesis().domain;
    Roots::new(bucket.read_only(), domain).newest_ledger().await.unwrap()
}

/// A directory whose files cost nothing to make durable: what a crash leaves is not the question here.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

//= SPEC.md#compact-segments
//# CS-1, CS-2, CS-3
#[tokio::test(flavor = "multi_thread")]
async fn steady_overwrites_leave_a_bucket_that_does_not_grow() {
    let bucket = Bucket::memory();
    let mut world = World::new(&bucket).await;
    world.write(&bucket, 60).await;
    world.wish(&bucket, 30, 3).await;
    let (mut sizes, mut written, mut replaced) = (Vec::new(), 0, 0);
    for _ in 0..12 {
        world.write(&bucket, 60).await;
        let report = world.clean(&bucket).await.unwrap();
        written += report.written_bytes;
        replaced += report.replaced_bytes;
        assert_eq!(report.held_back, None);
        sizes.push(
            bytes_of(&bucket, &[KeyFamily::Log, KeyFamily::Base, KeyFamily::Index, KeyFamily::Root, KeyFamily::Ledger])
                .await,
        );
    }
    let refused = world.check(&bucket).await;
    assert!(refused > 600, "{refused} of 780 points are gone");
    assert!(world.streamed.load(Ordering::Relaxed) > 0);
    let (early, late) = (sizes[3], sizes[11]);
    assert!(late < early + early / 4, "it grows: {sizes:?}");
    assert!(written > 0 && written < replaced / 2, "{written} of {replaced} bytes were written again");
    assert_eq!(verify(&bucket.read_only(), &ReaderOptions::default(), |_| {}).await.unwrap().damage, []);
    // With nothing to do, nothing is claimed, written or deleted.
    let before = bucket.meter().snapshot();
    assert_eq!(world.clean(&bucket).await.unwrap(), CleanReport::default());
    let spent = bucket.meter().snapshot().since(&before);
    assert_eq!((spent.total(Op::Put).requests, spent.total(Op::Delete).requests), (0, 0));
}

//= SPEC.md#ledgers
//# LG-2, LG-3
//= SPEC.md#deleting
//# D-2, D-4, D-7
#[tokio::test(flavor = "multi_thread")]
async fn fault_a_cleaner_that_dies_anywhere_breaks_no_point_and_leaves_nothing_behind() {
    let origin = in_memory();
    let mut world = World::new(&bucket_at(origin.path())).await;
    // One pass was whole, so that there are compact segments, a ledger and roots to replace.
    world.write(&bucket_at(origin.path()), 24).await;
    world.write(&bucket_at(origin.path()), 12).await;
    world.wish(&bucket_at(origin.path()), 12, 2).await;
    assert!(world.clean(&bucket_at(origin.path())).await.unwrap().compacts > 0);
    world.write(&bucket_at(origin.path()), 24).await;
    world.write(&bucket_at(origin.path()), 6).await;
    let deaths: [fn(u64) -> Faults; 2] = [
        |n| Faults::seeded(n).vanish_after(n).surfacing(),
        |n| Faults::seeded(n).at("", Op::Put, Fault::AppliedLost, n).surfacing(),
    ];
    let mut cut_short = 0;
    // Every place takes some minutes: `TIDEMARK_EVERY_PLACE=1`.
    let every = std::env::var_os("TIDEMARK_EVERY_PLACE").is_some();
    for (death, step) in deaths.into_iter().zip(if every { [1, 1] } else { [13, 5] }) {
        for n in (1..).step_by(step) {
            let dir = in_memory();
            copy(origin.path(), dir.path());
            let bucket = bucket_at(dir.path());
            let faults = death(n);
            let lived = world.clean(&bucket.with_faults(faults.clone())).await.is_ok();
            world.check(&bucket).await;
            cut_short += u32::from(!lived);
            if !lived {
                world.clean(&bucket).await.unwrap();
            }
            let refused = world.check(&bucket).await;
            assert!(refused > 40, "{refused}");
            assert_eq!(verify(&bucket.read_only(), &ReaderOptions::default(), |_| {}).await.unwrap().damage, []);
            let again = world.clean(&bucket).await.unwrap();
            assert_eq!(again, CleanReport::default(), "after {faults:?} something was left");
            if lived && faults.injected() == 0 {
                break;
            }
        }
    }
    assert!(cut_short > 20, "{cut_short}");
}

//= SPEC.md#deleting
//# D-3, D-5, D-8
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pins_reads_on_and_one_that_does_not_gets_errors_never_other_bytes() {
    let bucket = Bucket::memory();
    let mut world = World::new(&bucket).await;
    world.write(&bucket, 30).await;
    world.write(&bucket, 30).await;
    world.maintainer(&bucket).await.unwrap().pass(From::NewestRoot, |_| {}).await.unwrap();
    // And some that the index does not cover.
    world.write(&bucket, 10).await;
    let pin = PinOptions { pinner: bucket.pinner(), owner: "test".into(), lifetime: MINUTE * 1000 };
    let small = ReaderOptions {
        index_cache_bytes_max: 0,
        head_cache_bytes_max: 0,
        cache_bytes_max: 0,
        frame_cache_bytes_max: 0,
        map_cache_bytes_max: 0,
        ..ReaderOptions::default()
    };
    let pinned = ReaderOptions { pin: Some(pin), ..small.clone() };
    let pinned = Domain::open(bucket.read_only(), pinned, world.env.clone()).await.unwrap();
    let free = Domain::open(bucket.read_only(), small, world.env.clone()).await.unwrap();
    // More comes, and most of what both read by is dropped, rewritten and, but for the pin, deleted.
    world.write(&bucket, 30).await;
    world.wish(&bucket, 10, 0).await;
    let segments = async || {
        let listed = bucket.read_only().list(KeyFamily::Log).await.unwrap();
        listed.iter().filter(|(key, _)| !key.ends_with("/0000000000000000")).count()
    };
    let before = segments().await;
    let report = world.clean(&bucket).await.unwrap();
    assert_eq!((report.pins, segments().await), (1, before));
    assert!(report.compacts > 0);
    for lsn in world.images.keys().take(70) {
        world.compare(&pinned, *lsn).await;
        world.compare(&free, *lsn).await;
    }
    pinned.unpin().await.unwrap();
    let report = world.clean(&bucket).await.unwrap();
    assert!(report.deleted > 60 && report.pins == 0, "{report:?}");
    let mut lost = 0;
    for lsn in world.images.keys().take(70) {
        for domain in [&pinned, &free] {
            let shown = async { domain.disk(DiskId::new(1), *lsn).await?.read(0, (BLOCKS * 512) as usize).await };
            match shown.await {
                Ok(shown) => assert!(shown == world.images[lsn], "lsn {lsn}"),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::DataLoss | ErrorKind::NotFound), "{error}");
                    lost += 1;
                }
            }
        }
    }
    assert!(lost > 60, "{lost}");
    assert!(world.check(&bucket).await > 60);
    // The pin itself was deleted.
    let volatile = bucket.read_only().list(KeyFamily::Volatile).await.unwrap();
    assert!(!volatile.iter().any(|(key, _)| key.starts_with("v/pin/")), "{volatile:?}");
}

//= SPEC.md#deleting
//# D-8
#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_was_replaced_while_it_was_being_pinned_is_not_relied_on() {
    let bucket = Bucket::memory();
    let world = World::thinned(&bucket).await;
    world.maintainer(&bucket).await.unwrap().pass(From::NewestRoot, |_| {}).await.unwrap();
    let (other, env) = (bucket.clone(), world.env.clone());
    let stalls = Faults::seeded(1).meanwhile("v/pin/", Op::Put, async move {
        let mut maintainer = Maintainer::open(other.appender(), options(), env).await.unwrap();
        assert!(maintainer.clean(&other.deleter(), |_| {}).await.unwrap().deleted > 0);
    });
    let pin = PinOptions { pinner: bucket.with_faults(stalls).pinner(), owner: "test".into(), lifetime: MINUTE };
    let pinned = ReaderOptions { pin: Some(pin), ..ReaderOptions::default() };
    let domain = Domain::open(bucket.read_only(), pinned, world.env.clone()).await.unwrap();
    let offered = domain.timeline().horizon().lsn;
    for lsn in world.images.keys().filter(|lsn| **lsn >= offered) {
        world.compare(&domain, *lsn).await;
    }
}

//= SPEC.md#deleting
//# D-6
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_or_a_table_that_cannot_be_read_stops_the_deleting() {
    let bucket = Bucket::memory();
    let world = World::thinned(&bucket).await;
    let pin = ObjectKey::Pin { nonce: [3; 16] };
    bucket.pinner().put(&pin, b"not a pin".to_vec()).await.unwrap();
    let before = bucket.meter().snapshot();
    let error = world.clean(&bucket).await.unwrap_err();
    assert!(matches!(error, Error::Format { key, .. } if key == pin), "{error}");
    assert_eq!(bucket.meter().snapshot().since(&before).total(Op::Delete).requests, 0);
    world.check(&bucket).await;
    bucket.deleter().delete(&pin).await.unwrap();
    assert!(world.clean(&bucket).await.unwrap().deleted > 0);
    assert!(world.check(&bucket).await > 20);
}

//= SPEC.md#deleting
//# D-1
#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_maintainer_has_replaced_is_not_built_upon() {
    let bucket = Bucket::memory();
    let mut world = World::thinned(&bucket).await;
    // This one has read the root, and stalls in front of its claim: the other one makes a whole pass then.
    world.maintainer(&bucket).await.unwrap().pass(From::NewestRoot, |_| {}).await.unwrap();
    world.write(&bucket, 10).await;
    let other = (bucket.clone(), world.env.clone());
    let stalls = Faults::seeded(1).meanwhile("claim/m", Op::Put, async move {
        let (bucket, env) = other;
        let mut maintainer = Maintainer::open(bucket.appender(), options(), env).await.unwrap();
        maintainer.pass(From::NewestRoot, |_| {}).await.unwrap();
        assert!(maintainer.clean(&bucket.deleter(), |_| {}).await.unwrap().deleted > 0);
    });
    world.clean(&bucket.with_faults(stalls)).await.unwrap();
    assert!(world.check(&bucket).await > 20);
    assert_eq!(world.clean(&bucket).await.unwrap(), CleanReport::default());
}

//= SPEC.md#deleting
//# D-3
#[tokio::test(flavor = "multi_thread")]
async fn a_cleaner_that_was_overtaken_deletes_nothing() {
    let bucket = Bucket::memory();
    let world = World::thinned(&bucket).await;
    let mut maintainer = world.maintainer(&bucket).await.unwrap();
    maintainer.pass(From::NewestRoot, |_| {}).await.unwrap();
    // A newer claim appears while it publishes.
    let claimer = (bucket.clone(), world.env.clone());
    let overtaken = Faults::seeded(1).meanwhile("ledger/", Op::Put, async move {
        let (bucket, env) = claimer;
        let mut newer = Maintainer::open(bucket.appender(), options(), env).await.unwrap();
        newer.pass(From::Scratch, |_| {}).await.unwrap();
    });
    let slow = bucket.with_faults(overtaken);
    let mut maintainer = world.maintainer(&slow).await.unwrap();
    let before = bucket.meter().snapshot();
    let error = maintainer.clean(&slow.deleter(), |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Fenced { .. }), "{error}");
    assert_eq!(bucket.meter().snapshot().since(&before).total(Op::Delete).requests, 0);
    world.check(&bucket).await;
    world.clean(&bucket).await.unwrap();
    world.check(&bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_newest_epoch_is_never_touched_and_the_report_says_why() {
    let bucket = Bucket::memory();
    let mut world = World::new(&bucket).await;
    world.write(&bucket, 40).await;
    world.wish(&bucket, 5, 0).await;
    let log = bytes_of(&bucket, &[KeyFamily::Log]).await;
    let report = world.clean(&bucket).await.unwrap();
    assert_eq!((report.compacts, bytes_of(&bucket, &[KeyFamily::Log]).await), (0, log));
    assert!(report.held_back.unwrap().contains("when the writer next opens"), "{report:?}");
    assert_eq!(newest_ledger(&bucket, &world).await, None);
    // The next owner closes it.
    world.write(&bucket, 1).await;
    assert!(world.clean(&bucket).await.unwrap().compacts > 0);
    let ledger = newest_ledger(&bucket, &world).await.unwrap();
    assert_eq!(ledger.through.epoch, Epoch::new(1));
    // An owner that comes then finds the log's end as ever.
    world.write(&bucket, 3).await;
    assert!(world.check(&bucket).await > 30);
}

/// The same segment under another header hash: as good by itself, and not the one that anybody named.
fn sealed_anew(bytes: &[u8], expect: &Expect) -> Vec<u8> {
    let head = SegmentHead::decode(bytes, expect).unwrap();
    let header = &head.header;
    let sealed = seal_segment(&SegmentDraft {
        identity: header.identity,
        first_lsn: header.first_lsn,
        last_lsn: header.last_lsn,
        acked_through: header.acked_through,
        prev_header_hash: header.prev_header_hash,
        salt: [0x5a; 32],
        tick_ns: header.tick_ns,
        times: &head.times.iter().flat_map(|times| times.iter()).collect::<Vec<_>>(),
        rows: &head.index.iter().map(|placed| placed.row).collect::<Vec<_>>(),
        events: &head.events,
        frames: &(0..head.frames.len()).map(|n| *head.frames.entry(n).unwrap()).collect::<Vec<_>>(),
    });
    [&sealed.unwrap().bytes, &bytes[header.head_len() as usize..]].concat()
}

//= SPEC.md#ledgers
//# LG-4
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_damaged_compact_segment_or_ledger_is_named_and_nothing_else_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::thinned(&bucket_at(dir.path())).await;
    world.clean(&bucket_at(dir.path())).await.unwrap();
    let ledger = newest_ledger(&bucket_at(dir.path()), &world).await.unwrap();
    let compact = ledger.keys().find(|key| matches!(key, ObjectKey::Base { role: Role::Maintenance, .. })).unwrap();
    let flip = |dir: &Path, key: ObjectKey, at: usize| {
        let path = dir.join(key.to_string());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    type Harm<'a> = (ObjectKey, &'a dyn Fn(&Path));
    let domain = ledger.domain;
    let harms: [Harm<'_>; 4] = [
        (compact, &|dir| std::fs::remove_file(dir.join(compact.to_string())).unwrap()),
        (compact, &|dir| flip(dir, compact, 530)),
        (ledger.key(), &|dir| flip(dir, ledger.key(), 60)),
        (compact, &|dir| {
            let path = dir.join(compact.to_string());
            let bytes = sealed_anew(&std::fs::read(&path).unwrap(), &Expect { domain, key: compact });
            std::fs::write(path, bytes).unwrap();
        }),
    ];
    for (named, harm) in harms {
        let harmed = tempfile::tempdir().unwrap();
        copy(dir.path(), harmed.path());
        harm(harmed.path());
        let bucket = bucket_at(harmed.path());
        let options = ReaderOptions { index: IndexUse::Never, ..ReaderOptions::default() };
        let error = Domain::open(bucket.read_only(), options, world.env.clone()).await.unwrap_err();
        assert!(error.to_string().contains(&named.to_string()), "{error}");
        let report = verify(&bucket.read_only(), &ReaderOptions::default(), |_| {}).await.unwrap();
        assert!(report.damage.iter().any(|damage| damage.object == named.to_string()), "{:?}", report.damage);
    }
}
