//! Maintainers that are killed, overtaken and damaged: the index they leave is whole or absent, and the log shows through.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tidemark_bucket::{Bucket, Created, Fault, Faults, Op};
use tidemark_e2e::folder::{bucket_at, copy};
use tidemark_e2e::index::{newest_root, rows_of};
use tidemark_env::{Env, ManualClock};
use tidemark_format::{
    Claim, ClaimMode, DiskId, Epoch, ErrorKind, Expect, Genesis, Hold, KeyFamily, Level, Lsn, Mark, ObjectKey,
    PlacedRow, Policy, REGION_BLOCKS, Retention, Role, TableKind, TimeNs,
};
use tidemark_gc::{Error, From, Maintainer, MaintenanceOptions, retention_plan, status};
use tidemark_reader::{Domain, IndexUse, PointSpec, ReaderOptions};
use tidemark_writer::{Attach, Content, DomainWriter, NewDisk, Request, When, WriterOptions, create_domain};

const BLOCKS: u64 = 64;

fn env() -> Env {
    Env::seeded(7, Arc::new(ManualClock::new(TimeNs::new(1_790_000_000_000_000_000))))
}

fn options() -> MaintenanceOptions {
    MaintenanceOptions {
        run_rows: 12,
        fan_out: 3,
        image_rows_min: 8,
        table_rows_max: 10,
        heads_held_max: 5,
        ..MaintenanceOptions::default()
    }
}

fn bytes_of(n: u64) -> Bytes {
    Bytes::from(vec![n as u8 | 1; 1024])
}

/// A domain of one disk and `writes` writes of two blocks, a segment for each.
async fn history(bucket: &Bucket, writes: u64) {
    create_domain(&bucket.appender(), "kept", &env()).await.unwrap();
    more(bucket, writes).await;
}

async fn more(bucket: &Bucket, writes: u64) {
    let options = WriterOptions { age_ms_max: 5, attach: Attach::KnownCas, ..WriterOptions::default() };
    let writer = DomainWriter::open(bucket.appender(), options, env()).await.unwrap();
    if writer.last_lsn() == Lsn::ZERO {
        let new = NewDisk { vm: "vm".into(), name: "d".into(), size_bytes: BLOCKS * 512 };
        let _ = writer.submit_disk_add(&new, Content::Blank, When::Now).await.unwrap();
    }
    for n in 0..writes {
        let offset = n * 7 % (BLOCKS - 1) * 512;
        let write = Request::Write { disk: DiskId::new(1), offset, data: bytes_of(n) };
        let _ = writer.submit(write, When::Now).await.unwrap();
        writer.sync().await.unwrap();
    }
    writer.close().await.unwrap();
}

async fn open(bucket: &Bucket, index: IndexUse) -> Domain {
    let options = ReaderOptions { index, ..ReaderOptions::default() };
    Domain::open(bucket.read_only(), options, env()).await.unwrap()
}

/// With the index the disk reads as without, at several LSNs; the LSN that the index covers.
async fn check(bucket: &Bucket) -> Lsn {
    let (log, indexed) = (open(bucket, IndexUse::Never).await, open(bucket, IndexUse::IfThere).await);
    let latest = log.timeline().latest().lsn;
    assert_eq!(indexed.timeline().latest().lsn, latest);
    for lsn in [3, latest.get() / 3, latest.get() / 2, latest.get()].map(|lsn| Lsn::new(lsn.max(3))) {
        let one = log.disk(DiskId::new(1), lsn).await.unwrap();
        let other = indexed.disk(DiskId::new(1), lsn).await.unwrap();
        let len = (BLOCKS * 512) as usize;
        assert!(one.read(0, len).await.unwrap() == other.read(0, len).await.unwrap(), "lsn {lsn}");
    }
    indexed.timeline().indexed_through()
}

async fn pass(bucket: &Bucket, from: From) -> tidemark_gc::Result<tidemark_gc::PassReport> {
    Maintainer::open(bucket.appender(), options(), env()).await?.pass(from, |_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_holds_every_row_of_the_log_once_and_few_runs() {
    let bucket = Bucket::memory();
    history(&bucket, 200).await;
    let report = pass(&bucket, From::NewestRoot).await.unwrap();
    assert!(report.merges > 4, "{report:?}");
    let root = newest_root(&bucket).await;
    let index = report.index.unwrap();
    assert_eq!((index.through, index.epoch, index.seq), (root.through.lsn, root.epoch, root.seq));
    assert!(index.levels.iter().all(|level| level.runs < 3), "{index:?}");
    assert!(index.levels.len() >= 3, "{index:?}");
    let mut indexed = Vec::new();
    for table in root.tables_of(TableKind::Rows) {
        let rows: Vec<PlacedRow> = rows_of(&bucket, &root, table).await;
        assert!(rows.iter().all(|p| table.first_lsn <= p.row.lsn && p.row.lsn <= table.last_lsn));
        indexed.extend(rows);
    }
    let mut logged = Vec::new();
    for (key, _) in bucket.read_only().list(KeyFamily::Log).await.unwrap() {
        let key: ObjectKey = key.parse().unwrap();
        let bytes = bucket.read_only().get(&key).await.unwrap();
        let head = tidemark_format::SegmentHead::decode(&bytes, &Expect { domain: root.domain, key }).unwrap();
        logged.extend(head.index.iter().map(|placed| match placed.row.kind {
            tidemark_format::RowKind::Data => placed,
            _ => PlacedRow { stream_block: 0, ..placed },
        }));
    }
    indexed.sort_unstable();
    logged.sort_unstable();
    assert!(indexed == logged, "{} rows in the index, {} in the log", indexed.len(), logged.len());
    assert_eq!(check(&bucket).await, root.through.lsn);
    // Nothing is left to do: nothing is claimed and nothing written.
    let before = bucket.meter().snapshot();
    let again = pass(&bucket, From::NewestRoot).await.unwrap();
    assert_eq!((again.runs, again.roots, again.index), (0, 0, Some(index)));
    assert_eq!(bucket.meter().snapshot().since(&before).total(Op::Put).requests, 0);
}

//= SPEC.md#roots
//# RT-1
#[tokio::test(flavor = "multi_thread")]
async fn fault_a_maintainer_that_dies_anywhere_leaves_an_index_that_is_true() {
    let origin = tempfile::tempdir().unwrap();
    history(&bucket_at(origin.path()), 25).await;
    let mut seen = BTreeSet::new();
    // Dead from some request on; or its last put was applied and nobody heard of it.
    let deaths: [fn(u64) -> Faults; 2] = [
        |n| Faults::seeded(n).vanish_after(n).surfacing(),
        |n| Faults::seeded(n).at("", Op::Put, Fault::AppliedLost, n).surfacing(),
    ];
    for (death, step) in deaths.into_iter().zip([5, 3]) {
        for n in (1..).step_by(step) {
            let dir = tempfile::tempdir().unwrap();
            copy(origin.path(), dir.path());
            let bucket = bucket_at(dir.path());
            let faults = death(n);
            let lived = pass(&bucket.with_faults(faults.clone()), From::NewestRoot).await.is_ok();
            seen.insert(check(&bucket).await);
            // Whoever comes next finishes the work.
            pass(&bucket, From::NewestRoot).await.unwrap();
            assert_eq!(
                check(&bucket).await,
                open(&bucket, IndexUse::Never).await.timeline().latest().lsn,
                "{faults:?}"
            );
            if lived && faults.injected() == 0 {
                break;
            }
        }
    }
    assert!(seen.len() > 4, "it died at too few places: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overtaken_maintainer_stops_and_its_successor_goes_on() {
    let bucket = Bucket::memory();
    history(&bucket, 20).await;
    let mut first = Maintainer::open(bucket.appender(), options(), env()).await.unwrap();
    first.pass(From::NewestRoot, |_| {}).await.unwrap();
    more(&bucket, 20).await;
    pass(&bucket, From::NewestRoot).await.unwrap();
    let root = newest_root(&bucket).await;
    assert_eq!(root.epoch.get(), 2);
    more(&bucket, 20).await;
    let error = first.pass(From::NewestRoot, |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Fenced { .. }) && error.kind() == ErrorKind::Fenced, "{error}");
    // What it still wrote is of its own epoch: the newest root is that of its successor.
    assert_eq!(newest_root(&bucket).await, root);
    check(&bucket).await;
    pass(&bucket, From::NewestRoot).await.unwrap();
    assert_eq!(check(&bucket).await, open(&bucket, IndexUse::Never).await.timeline().latest().lsn);
}

//= SPEC.md#roots
//# RT-5
#[tokio::test(flavor = "multi_thread")]
async fn without_its_roots_or_with_damaged_ones_the_log_is_read_and_a_rebuild_mends_it() {
    let origin = tempfile::tempdir().unwrap();
    history(&bucket_at(origin.path()), 40).await;
    pass(&bucket_at(origin.path()), From::NewestRoot).await.unwrap();
    let root = newest_root(&bucket_at(origin.path())).await;
    let flip = |dir: &Path, key: ObjectKey| {
        let path = dir.join(key.to_string());
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let remove = |dir: &Path, key: ObjectKey| std::fs::remove_file(dir.join(key.to_string())).unwrap();
    let events = root.tables_of(TableKind::Events).next().unwrap().key();
    type Harm<'a> = (&'a str, &'a (dyn Fn(&Path) + Sync), bool);
    let harms: [Harm<'_>; 6] = [
        ("the copy is lost", &|dir| remove(dir, ObjectKey::RootCopy), true),
        ("the copy is damaged", &|dir| flip(dir, ObjectKey::RootCopy), true),
        ("copy and root are damaged", &|dir| (flip(dir, ObjectKey::RootCopy), flip(dir, root.key())).1, false),
        (
            "all roots are lost",
            &|dir| (remove(dir, ObjectKey::RootCopy), std::fs::remove_dir_all(dir.join("root")).unwrap()).1,
            false,
        ),
        ("events are damaged", &|dir| flip(dir, events), false),
        ("events are lost", &|dir| remove(dir, events), false),
    ];
    for (what, harm, still_used) in harms {
        let dir = tempfile::tempdir().unwrap();
        copy(origin.path(), dir.path());
        harm(dir.path());
        let bucket = bucket_at(dir.path());
        let covered = check(&bucket).await;
        assert_eq!(covered > Lsn::ZERO, still_used, "{what}");
        let report = pass(&bucket, From::Scratch).await.unwrap();
        assert!(report.runs > 0, "{what}");
        assert_eq!(check(&bucket).await, root.through.lsn, "{what}");
        let said = status(&bucket.read_only()).await.unwrap().unwrap();
        assert_eq!((said.through, Some(said)), (root.through.lsn, report.index), "{what}");
    }
}

/// A domain of one large disk that is written here and there, in pieces that cross the borders of regions.
async fn large_disk(bucket: &Bucket, writes: u64) -> u64 {
    const SIZE: u64 = 64 * REGION_BLOCKS;
    create_domain(&bucket.appender(), "large", &env()).await.unwrap();
    let options = WriterOptions { age_ms_max: 5, attach: Attach::KnownCas, ..WriterOptions::default() };
    let writer = DomainWriter::open(bucket.appender(), options, env()).await.unwrap();
    let new = NewDisk { vm: "vm".into(), name: "d".into(), size_bytes: SIZE * 512 };
    let _ = writer.submit_disk_add(&new, Content::Blank, When::Now).await.unwrap();
    let disk = DiskId::new(1);
    for n in 0..writes {
        // Sixteen places, most of them a few blocks around a border of regions; then all over one region.
        let block = if n < writes / 2 { n % 16 * 4 * REGION_BLOCKS + n % 3 } else { 9 * REGION_BLOCKS + n * 37 % 900 };
        let offset = block.saturating_sub(1) * 512;
        let request = match n % 7 {
            5 => Request::Unmap { disk, offset, len: 3 * 512 },
            _ => Request::Write { disk, offset, data: bytes_of(n) },
        };
        let _ = writer.submit(request, When::Now).await.unwrap();
        writer.sync().await.unwrap();
    }
    writer.close().await.unwrap();
    SIZE
}

//= SPEC.md#images
//# IX-8
#[tokio::test(flavor = "multi_thread")]
async fn images_hold_the_newest_of_each_block_and_divide_the_disk() {
    let bucket = Bucket::memory();
    large_disk(&bucket, 400).await;
    let report = pass(&bucket, From::NewestRoot).await.unwrap();
    assert!(report.image_rows > 0 && report.image_rows <= 2 * report.rows, "{report:?}");
    let root = newest_root(&bucket).await;
    let mut rows = Vec::new();
    for table in root.tables_of(TableKind::Rows) {
        rows.extend(rows_of::<PlacedRow>(&bucket, &root, table).await);
    }
    let images: Vec<_> = root.tables_of(TableKind::Images).collect();
    let said = report.index.unwrap().images;
    assert_eq!((said.tables, said.rows), (images.len() as u64, images.iter().map(|image| image.rows).sum()));
    let regions: BTreeSet<_> = images.iter().map(|image| image.region).collect();
    assert!(regions.len() > 4, "{regions:?}");
    for image in images {
        let mut newest = BTreeMap::new();
        for placed in rows.iter().filter(|placed| placed.row.lsn <= image.last_lsn) {
            for block in placed.row.extent.start..placed.row.extent.end() {
                let (at, of) = (image.region.start <= block && block < image.region.end(), newest.get(&block));
                if at && of.is_none_or(|of: &PlacedRow| of.row.lsn < placed.row.lsn) {
                    newest.insert(block, *placed);
                }
            }
        }
        let mut held = BTreeMap::new();
        for placed in rows_of::<PlacedRow>(&bucket, &root, image).await {
            for block in placed.row.extent.start..placed.row.extent.end() {
                assert!(held.insert(block, placed).is_none(), "block {block} twice in {}", image.key());
            }
        }
        let place = |(block, placed): (u64, PlacedRow)| {
            let is_data = placed.row.kind == tidemark_format::RowKind::Data;
            let skipped = if is_data { block - placed.row.extent.start } else { 0 };
            (block, placed.row.lsn, placed.row.kind, placed.stream_block + skipped)
        };
        let (held, newest) = (held.into_iter().map(place), newest.into_iter().map(place));
        assert!(held.eq(newest), "{} of {:?}", image.key(), image.region);
    }
}

//= SPEC.md#images
//# IX-9
#[tokio::test(flavor = "multi_thread")]
async fn any_point_of_a_large_disk_reads_by_its_images_as_by_the_log_in_fewer_requests() {
    let bucket = Bucket::memory();
    let blocks = large_disk(&bucket, 400).await;
    pass(&bucket, From::NewestRoot).await.unwrap();
    let (log, indexed) = (open(&bucket, IndexUse::Never).await, open(&bucket, IndexUse::IfThere).await);
    let latest = log.timeline().latest().lsn;
    let disk = DiskId::new(1);
    for lsn in (3..=latest.get()).step_by(23).chain([latest.get()]).map(Lsn::new) {
        let (one, other) = (log.disk(disk, lsn).await.unwrap(), indexed.disk(disk, lsn).await.unwrap());
        for border in (0..blocks).step_by(REGION_BLOCKS as usize) {
            let (offset, len) = (border.saturating_sub(8) * 512, 1000 * 512);
            let (one, other) = (one.read(offset, len).await.unwrap(), other.read(offset, len).await.unwrap());
            assert!(one == other, "lsn {lsn}, block {border}");
        }
    }
    // Without images, by the runs alone.
    let gets = async |bucket: &Bucket| {
        let domain = open(bucket, IndexUse::IfThere).await;
        let image = domain.disk(disk, latest).await.unwrap();
        let before = bucket.meter().snapshot();
        image.read(9 * REGION_BLOCKS * 512, 4096).await.unwrap();
        bucket.meter().snapshot().since(&before).get(Op::Get, KeyFamily::Index).requests
    };
    let with = gets(&bucket).await;
    let mut root = newest_root(&bucket).await;
    root.tables.retain(|table| table.kind != TableKind::Images);
    bucket.appender().put_root_copy(root.encode().unwrap()).await.unwrap();
    let without = gets(&bucket).await;
    assert!(with * 3 < without * 2, "{with} requests with images, {without} without");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_rows_is_an_error_of_the_blocks_it_concerns_never_other_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = bucket_at(dir.path());
    history(&bucket, 40).await;
    pass(&bucket, From::NewestRoot).await.unwrap();
    let root = newest_root(&bucket).await;
    for table in root.tables.iter().filter(|table| table.kind.holds_versions()) {
        let path = dir.path().join(table.key().to_string());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[10] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    let domain = open(&bucket, IndexUse::IfThere).await;
    let image = domain.disk(DiskId::new(1), Lsn::new(20)).await.unwrap();
    let error = image.read(0, 512).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_and_reading_cost_the_same_number_of_requests_for_any_history() {
    let mut costs = Vec::new();
    for writes in [60, 480] {
        let bucket = Bucket::memory();
        history(&bucket, writes).await;
        // Tables as large as they come: all of this disk is one region, so every table of rows is read.
        let options = MaintenanceOptions { table_rows_max: 1 << 19, ..options() };
        let mut maintainer = Maintainer::open(bucket.appender(), options, env()).await.unwrap();
        maintainer.pass(From::NewestRoot, |_| {}).await.unwrap();
        let before = bucket.meter().snapshot();
        let domain = open(&bucket, IndexUse::IfThere).await;
        let image = domain.disk(DiskId::new(1), Lsn::new(writes / 2)).await.unwrap();
        image.read(0, 512).await.unwrap();
        let spent = bucket.meter().snapshot().since(&before);
        assert_eq!(spent.total(Op::List).requests, 0);
        costs.push(spent.total(Op::Get).requests);
    }
    // Eight times the segments are at most two levels more, of two runs each: a footer and a row group for each.
    assert!(costs[1] <= costs[0] + 8, "{costs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stays_moves_up_to_newer_roots() {
    let bucket = Bucket::memory();
    history(&bucket, 20).await;
    pass(&bucket, From::NewestRoot).await.unwrap();
    let options = ReaderOptions { unindexed_segments_max: 8, ..ReaderOptions::default() };
    let domain = Domain::open(bucket.read_only(), options, env()).await.unwrap();
    let was = domain.timeline().indexed_through();
    let image = domain.disk(DiskId::new(1), was).await.unwrap();
    let then = image.read(0, (BLOCKS * 512) as usize).await.unwrap();
    more(&bucket, 30).await;
    pass(&bucket, From::NewestRoot).await.unwrap();
    let timeline = domain.refresh().await.unwrap();
    assert!(timeline.indexed_through() > was);
    assert_eq!(timeline.latest().lsn, timeline.indexed_through());
    assert!(image.read(0, (BLOCKS * 512) as usize).await.unwrap() == then);
    let again = open(&bucket, IndexUse::Never).await.disk(DiskId::new(1), was).await.unwrap();
    assert!(again.read(0, (BLOCKS * 512) as usize).await.unwrap() == then);
}

//= SPEC.md#roots
//# RT-4
#[tokio::test(flavor = "multi_thread")]
async fn what_a_successor_may_still_cut_off_is_not_indexed() {
    let bucket = Bucket::memory();
    history(&bucket, 20).await;
    let latest = open(&bucket, IndexUse::Never).await.timeline().latest().lsn;
    // A successor has claimed and not yet cut: only what later segments prove acknowledged is final.
    let domain = open(&bucket, IndexUse::Never).await.timeline().domain();
    let claim = Claim {
        domain,
        role: Role::Writer,
        epoch: Epoch::new(2),
        nonce: [9; 16],
        mode: ClaimMode::Cas,
        owner: "test".into(),
        time: TimeNs::new(1),
    };
    assert_eq!(bucket.appender().create(&claim.key(), claim.encode()).await.unwrap(), Created::New);
    pass(&bucket, From::NewestRoot).await.unwrap();
    let covered = check(&bucket).await;
    assert!(covered > Lsn::ZERO && covered < latest, "{covered} of {latest}");
    assert!(covered <= open(&bucket, IndexUse::Never).await.timeline().final_through());
}

//= SPEC.md#retention
//# RN-1, RN-3, RN-4, RN-5
/// A history with a write each minute, thinned as its clock goes on.
#[tokio::test(flavor = "multi_thread")]
async fn points_that_are_retained_read_as_before_and_others_are_refused_with_their_neighbours() {
    const MINUTE_NS: u64 = 60_000_000_000;
    // What comes before makes the disk.
    const FIRST: u64 = 4;
    let bucket = Bucket::memory();
    let start = 1_790_000_000_000_000_000;
    let clock = Arc::new(ManualClock::new(TimeNs::new(start)));
    let env = Env::seeded(7, clock.clone());
    create_domain(&bucket.appender(), "kept", &env).await.unwrap();
    let writer_options = WriterOptions { age_ms_max: 5, attach: Attach::KnownCas, ..WriterOptions::default() };
    let writer = DomainWriter::open(bucket.appender(), writer_options, env.clone()).await.unwrap();
    let new = NewDisk { vm: "vm".into(), name: "d".into(), size_bytes: BLOCKS * 512 };
    let _ = writer.submit_disk_add(&new, Content::Blank, When::At(TimeNs::new(start))).await.unwrap();
    let domain = Genesis::decode(&bucket.read_only().get(&ObjectKey::Genesis).await.unwrap()).unwrap().domain;
    let hold = |lsn| {
        let point = Mark { lsn: Lsn::new(lsn), time: TimeNs::new(start + (lsn - FIRST) * MINUTE_NS) };
        Hold { point, until: TimeNs::new(u64::MAX) }
    };
    let policy = Policy {
        window_ns: 50 * MINUTE_NS,
        bookmarks_ns: 1000 * MINUTE_NS,
        hourly: 3,
        daily: 0,
        weekly: 0,
        monthly: 0,
    };
    let wish = Retention { domain, policy: Some(policy), holds: vec![hold(17)] };
    let mut offered: BTreeSet<u64> = BTreeSet::new();
    for n in 0..300u64 {
        let when = When::At(TimeNs::new(start + n * MINUTE_NS));
        let request = match n {
            40 => Request::Bookmark { name: "mark".into(), level: Level::Crash },
            _ => Request::Write { disk: DiskId::new(1), offset: n * 7 % (BLOCKS - 1) * 512, data: bytes_of(n) },
        };
        let _ = writer.submit(request, when).await.unwrap();
        if n % 60 != 59 {
            continue;
        }
        writer.sync().await.unwrap();
        clock.set_wall(TimeNs::new(start + n * MINUTE_NS));
        bucket.appender().put_retention(wish.encode().unwrap()).await.unwrap();
        let planned = retention_plan(&bucket.read_only(), &env).await.unwrap();
        let mut maintainer = Maintainer::open(bucket.appender(), options(), env.clone()).await.unwrap();
        let from = if n == 179 { From::Scratch } else { From::NewestRoot };
        maintainer.pass(from, |_| {}).await.unwrap();
        let after = retention_plan(&bucket.read_only(), &env).await.unwrap().unwrap();
        assert_eq!(after.before, after.after, "deciding again changes nothing");
        assert!(after.keeps_promise(env.clock.wall()), "{after:?}");
        assert!(planned.is_none_or(|plan| plan.dropped.iter().all(|run| !after.after.offers(*run.start()))));

        let (log, indexed) = (open(&bucket, IndexUse::Never).await, open(&bucket, IndexUse::IfThere).await);
        let mut now = BTreeSet::new();
        for lsn in FIRST..=indexed.timeline().latest().lsn.get() {
            let spec = PointSpec::Lsn(Lsn::new(lsn));
            let resolved = indexed.timeline().resolve(&spec, env.clock.wall()).await;
            let Ok(point) = resolved else {
                let refused = resolved.unwrap_err().to_string();
                let (before, behind) = after.after.nearest(Lsn::new(lsn));
                assert!(before.is_none_or(|mark| refused.contains(&format!("lsn {} at", mark.lsn))), "{refused}");
                assert!(refused.contains(&format!("lsn {} at", behind.lsn)), "{refused}");
                assert!(indexed.disk(DiskId::new(1), Lsn::new(lsn)).await.is_err());
                continue;
            };
            now.insert(lsn);
            let len = (BLOCKS * 512) as usize;
            let one = log.disk(DiskId::new(1), point.lsn).await.unwrap().read(0, len).await.unwrap();
            let other = indexed.disk(DiskId::new(1), point.lsn).await.unwrap().read(0, len).await.unwrap();
            assert!(one == other, "lsn {lsn}");
        }
        let known = indexed.timeline().latest().lsn.get() - 60;
        assert!(now.iter().all(|lsn| offered.contains(lsn) || *lsn > known), "a point came back");
        offered = now;
    }
    writer.close().await.unwrap();
    let window = offered.iter().filter(|lsn| **lsn > 300 - 60).count();
    assert!(window >= 50 && offered.contains(&17) && offered.contains(&(FIRST + 40)), "{offered:?}");
    // A hold, a bookmark, three full hours, and the window.
    assert!(offered.len() <= 1 + 1 + 3 + 51 + 1, "{offered:?}");

    // What cannot be read drops nothing.
    bucket.appender().put_retention(b"damaged".to_vec()).await.unwrap();
    clock.set_wall(TimeNs::new(start + 9000 * MINUTE_NS));
    let mut maintainer = Maintainer::open(bucket.appender(), options(), env.clone()).await.unwrap();
    assert_eq!(maintainer.pass(From::NewestRoot, |_| {}).await.unwrap_err().kind(), ErrorKind::DataLoss);
    let timeline = open(&bucket, IndexUse::IfThere).await.timeline();
    assert!(timeline.resolve(&PointSpec::Lsn(Lsn::new(17)), env.clock.wall()).await.is_ok());
}
