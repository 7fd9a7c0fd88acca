//! An index that is not what its log says: each way to be wrong is found, named, and mended without touching what is true.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidemark_bucket::{Bucket, Op};
use tidemark_e2e::folder::{bucket_at, copy};
use tidemark_e2e::index::{newest_root, rows_of};
use tidemark_e2e::process::Tidemark;
use tidemark_env::{Env, ManualClock};
use tidemark_format::{
    DiskId, Epoch, ErrorKind, EventBody, EventRow, Extent, Genesis, Level, Lsn, ObjectKey, PlacedRow, Policy,
    Retention, Root, RowKind, SegmentKind, SegmentRow, Seq, TableBuilder, TableKind, TableRef, TableRow, TimeNs,
};
use tidemark_gc::{CleanReport, Error, From, Maintainer, MaintenanceOptions, quarantined};
use tidemark_history::Tables;
use tidemark_reader::{Damage, ReaderOptions, Sample, VerifyReport, verify, verify_sample};
use tidemark_writer::{Attach, Content, DomainWriter, NewDisk, Request, When, WriterOptions, create_domain};

const BLOCKS: u64 = 256;
const DISK: DiskId = DiskId::new(1);
const START: TimeNs = TimeNs::new(1_790_000_000_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

fn options() -> MaintenanceOptions {
    MaintenanceOptions {
        run_rows: 40,
        fan_out: 3,
        image_rows_min: 20,
        table_rows_max: 25,
        heads_held_max: 9,
        small_object_bytes: 600,
        compact_bytes_max: 16 << 10,
        rows_held_max: 60,
        ..MaintenanceOptions::default()
    }
}

/// A directory whose files cost nothing to make durable.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

struct World {
    clock: Arc<ManualClock>,
    env: Env,
    writes: u64,
}

impl World {
    /// A domain of three epochs with an index that has been cleaned: compact segments, a ledger, and rows of each kind.
    async fn cleaned(bucket: &Bucket) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let env = Env::seeded(7, Arc::clone(&clock));
        create_domain(&bucket.appender(), "scrubbed", &env).await.unwrap();
        let mut world = Self { clock, env, writes: 0 };
        world.write(bucket, 50).await;
        world.write(bucket, 30).await;
        let domain = Genesis::decode(&bucket.read_only().get(&ObjectKey::Genesis).await.unwrap()).unwrap().domain;
        let window_ns = 20 * MINUTE.as_nanos() as u64;
        let policy = Policy { window_ns, bookmarks_ns: 0, hourly: 2, daily: 0, weekly: 0, monthly: 0 };
        let wish = Retention { policy: Some(policy), ..Retention::everything(domain) };
        bucket.appender().put_retention(wish.encode().unwrap()).await.unwrap();
        assert!(world.maintain(bucket).await.compacts > 0);
        world.write(bucket, 30).await;
        world.index(bucket).await;
        world
    }

    async fn write(&mut self, bucket: &Bucket, writes: u64) {
        let options = WriterOptions { age_ms_max: 5, attach: Attach::KnownCas, ..WriterOptions::default() };
        let writer = DomainWriter::open(bucket.appender(), options, self.env.clone()).await.unwrap();
        if writer.last_lsn() == Lsn::ZERO {
            let new = NewDisk { vm: "vm".into(), name: "d".into(), size_bytes: BLOCKS * 512 };
            let _ = writer.submit_disk_add(&new, Content::Blank, When::Now).await.unwrap();
        }
        for _ in 0..writes {
            self.clock.advance(MINUTE);
            self.writes += 1;
            let (offset, n) = (self.writes * 7 % (BLOCKS - 8) * 512, self.writes);
            let request = match n % 10 {
                3 => Request::Zero { disk: DISK, offset, len: 2048 },
                6 => Request::Unmap { disk: DISK, offset, len: 1024 },
                9 => Request::Bookmark { name: format!("mark {n}"), level: Level::Crash },
                _ => Request::Write { disk: DISK, offset, data: Bytes::from(vec![n as u8 | 1; 1536]) },
            };
            let _ = writer.submit(request, When::Now).await.unwrap();
            if n % 3 == 0 {
                writer.sync().await.unwrap();
            }
        }
        writer.close().await.unwrap();
    }

    async fn index(&self, bucket: &Bucket) {
        let mut maintainer = Maintainer::open(bucket.appender(), options(), self.env.clone()).await.unwrap();
        maintainer.pass(From::NewestRoot, |_| {}).await.unwrap();
    }

    async fn maintain(&self, bucket: &Bucket) -> CleanReport {
        let mut maintainer = Maintainer::open(bucket.appender(), options(), self.env.clone()).await.unwrap();
        maintainer.pass(From::NewestRoot, |_| {}).await.unwrap();
        maintainer.clean(&bucket.deleter(), |_| {}).await.unwrap()
    }
}

async fn scrub(bucket: &Bucket) -> VerifyReport {
    verify(&bucket.read_only(), &ReaderOptions::default(), |_| {}).await.unwrap()
}

/// Publishes a root that names another table in the place of `table`: whole in itself, and wrong.
async fn forge<R: TableRow>(bucket: &Bucket, root: &Root, table: &TableRef, rows: Vec<R>) -> ObjectKey {
    let seq = Seq::new(1_000_000 + table.seq.get());
    let builder = TableBuilder::new(root.domain, root.epoch, seq).unwrap();
    put_forged(bucket, root, table, builder, rows).await
}

async fn put_forged<R: TableRow>(
    bucket: &Bucket,
    root: &Root,
    table: &TableRef,
    mut builder: TableBuilder<R>,
    rows: Vec<R>,
) -> ObjectKey {
    rows.into_iter().for_each(|row| builder.push(row).unwrap());
    let (bytes, forged) = builder.finish(table.level, (table.first_lsn, table.last_lsn)).unwrap();
    let forged = TableRef { region: table.region, rows_since: table.rows_since, ..forged };
    bucket.appender().put(&forged.key(), bytes).await.unwrap();
    let mut root = Root { seq: root.seq.next(), ..root.clone() };
    *root.tables.iter_mut().find(|named| *named == table).unwrap() = forged;
    root.sort_tables();
    publish(bucket, &root).await;
    forged.key()
}

async fn publish(bucket: &Bucket, root: &Root) {
    bucket.appender().put(&root.key(), root.encode().unwrap()).await.unwrap();
    bucket.appender().put_root_copy(root.encode().unwrap()).await.unwrap();
}

/// The one damage that there is.
fn only(report: &VerifyReport) -> &Damage {
    let [damage] = report.damage.as_slice() else { panic!("{:#?}", report.damage) };
    damage
}

/// Damage names a table of the run: that in which the blocks would stand, which for a row that begins in front of them, or was the
/// first of its table, may be the next one, or the one before.
fn is_of_run(damage: &Damage, root: &Root, table: &TableRef, forged: ObjectKey) -> bool {
    let run = root.tables_of(TableKind::Rows).filter(|other| other.first_lsn == table.first_lsn);
    run.map(TableRef::key).chain([forged]).any(|key| key.to_string() == damage.object)
}

fn blocks_of(damage: &Damage) -> Vec<(Extent, Lsn)> {
    damage.blocks.iter().map(|lost| (lost.extent, lost.first_lsn)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_right_is_clean_and_what_it_superseded_is_named() {
    let bucket = Bucket::memory();
    let world = World::cleaned(&bucket).await;
    let (report, root) = (scrub(&bucket).await, newest_root(&bucket).await);
    assert_eq!(report.damage, []);
    assert_eq!(report.tables, root.tables.len() as u64);
    assert_eq!(report.table_rows, root.tables.iter().map(|table| table.rows).sum::<u64>());
    assert_eq!(report.indexed_through, Some(root.through.lsn));
    let before = ObjectKey::Root { epoch: root.epoch, seq: Seq::new(1) };
    assert!(root.seq.get() > 1 && report.unreferenced.contains(&before.to_string()), "{:?}", report.unreferenced);
    assert!(root.tables.iter().all(|table| !report.unreferenced.contains(&table.key().to_string())));
    // A pass that cleans leaves nothing unnamed.
    world.maintain(&bucket).await;
    let left: Vec<String> = scrub(&bucket).await.unreferenced;
    assert!(left.iter().all(|key| key.starts_with("root/")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_bit_anywhere_in_the_index_is_found() {
    let origin = in_memory();
    World::cleaned(&bucket_at(origin.path())).await;
    let bucket = bucket_at(origin.path());
    let root = newest_root(&bucket).await;
    let tables = root.tables.iter().map(TableRef::key);
    let ledgers = (1..=root.epoch.get()).map(|epoch| ObjectKey::Ledger { epoch: Epoch::new(epoch) });
    let newest_ledger = ledgers.rev().find(|key| origin.path().join(key.to_string()).exists());
    for key in tables.chain([root.key(), ObjectKey::RootCopy, ObjectKey::Retention]).chain(newest_ledger) {
        let path = origin.path().join(key.to_string());
        let bytes = std::fs::read(&path).unwrap();
        // One place in each of four parts of the object, another one in each object.
        for part in 0..4 {
            let at = (bytes.len() * part / 4 + key.to_string().len() * 7 % 13).min(bytes.len() - 1);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, flipped).unwrap();
            let report = scrub(&bucket).await;
            // The first four bytes of a Parquet file are under no hash, and nobody reads them.
            let is_read = at >= 4 || !matches!(key, ObjectKey::Index { .. });
            assert_eq!(report.is_clean(), !is_read, "byte {at} of {key}");
            assert!(report.damage.iter().all(|damage| damage.object == key.to_string()), "{:#?}", report.damage);
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(scrub(&bucket).await.is_clean());
}

//= SPEC.md#tables-of-rows
//# IX-5
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_missing_invented_or_changed_is_named_with_its_blocks_lsn_and_table() {
    let origin = in_memory();
    World::cleaned(&bucket_at(origin.path())).await;
    let root = newest_root(&bucket_at(origin.path())).await;
    let horizon = root.offers().horizon.lsn;
    let newest = root.tables_of(TableKind::Rows).last().unwrap();
    let bucket = bucket_at(origin.path());
    let rows: Vec<PlacedRow> = rows_of(&bucket, &root, newest).await;
    let of_log = |placed: &PlacedRow| placed.row.kind == RowKind::Data && placed.row.lsn > horizon;
    let at = rows.iter().position(of_log).unwrap();
    let (row, key) = (rows[at].row, format!("log/{:016x}/", root.through.epoch.get()));
    type Change = fn(&mut Vec<PlacedRow>, usize);
    let changes: [(&str, Change); 6] = [
        ("lacks", |rows, at| {
            rows.remove(at);
        }),
        ("has", |rows, at| {
            let mut invented = rows[at];
            // The first row of its table is in order wherever that begins.
            invented.row.extent.len = 1;
            invented.row.lsn = Lsn::new(invented.row.lsn.get() + 1);
            rows.insert(at + 1, invented);
        }),
        ("lacks", |rows, at| rows[at].row.extent.len -= 1),
        ("has", |rows, at| rows[at].row.extent.len += 1),
        ("lacks", |rows, at| rows[at].stream_block += 1),
        ("lacks", |rows, at| rows[at].row.kind = RowKind::Zero),
    ];
    for (verb, change) in changes {
        let dir = in_memory();
        copy(origin.path(), dir.path());
        let bucket = bucket_at(dir.path());
        let mut wrong = rows.clone();
        change(&mut wrong, at);
        let forged = forge(&bucket, &root, newest, wrong).await;
        let report = scrub(&bucket).await;
        let found = report.damage.iter().find(|damage| damage.what.starts_with(&format!("it {verb} rows")));
        let found = found.unwrap_or_else(|| panic!("{verb}: {:#?}", report.damage));
        assert!(is_of_run(found, &root, newest, forged), "{found}");
        assert!(found.what.contains(&key) && found.is_of_index(), "{found}");
        assert!(report.damage.iter().all(Damage::is_of_index), "{:#?}", report.damage);
        let lost = &found.blocks[0];
        assert!(lost.disk == DISK && lost.extent.start.abs_diff(row.extent.start) <= 3, "{found}");
        assert!(lost.first_lsn >= row.lsn && lost.first_lsn <= row.lsn.next(), "{found}");
    }
}

//= SPEC.md#compact-segments
//# CS-1
//= SPEC.md#images
//# IX-8
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_shows_something_else_than_the_rows_is_named_with_the_blocks() {
    let dir = in_memory();
    World::cleaned(&bucket_at(dir.path())).await;
    let root = newest_root(&bucket_at(dir.path())).await;
    let images: Vec<TableRef> = root.tables_of(TableKind::Images).copied().collect();
    assert!(!images.is_empty());
    type Change = fn(&mut Vec<PlacedRow>);
    // Of many rows each, for some of them are overwritten before the first point that is offered.
    let changes: [(&str, Change); 4] = [
        ("rows are missing", |rows| rows.truncate(rows.len() / 2)),
        ("rows are of older versions", |rows| {
            rows.iter_mut().for_each(|placed| placed.row.lsn = Lsn::new(placed.row.lsn.get() - 1));
        }),
        ("rows are of another kind", |rows| {
            rows.iter_mut()
                .filter(|placed| placed.row.kind == RowKind::Zero)
                .for_each(|placed| placed.row.kind = RowKind::Unmap);
        }),
        ("rows are shorter", |rows| {
            rows.iter_mut().filter(|placed| placed.row.extent.len > 1).for_each(|placed| placed.row.extent.len -= 1);
        }),
    ];
    for (what, change) in changes {
        let scratch = in_memory();
        copy(dir.path(), scratch.path());
        let bucket = bucket_at(scratch.path());
        let image = images.last().unwrap();
        let mut rows: Vec<PlacedRow> = rows_of(&bucket, &root, image).await;
        change(&mut rows);
        let builder = TableBuilder::image(root.domain, root.epoch, Seq::new(1_000_000)).unwrap();
        let forged = put_forged(&bucket, &root, image, builder, rows).await;
        let report = scrub(&bucket).await;
        let damage = only(&report);
        assert_eq!(damage.object, forged.to_string(), "{what}: {damage}");
        assert!(!damage.blocks.is_empty() && damage.what.contains("other versions"), "{what}: {damage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn up_to_the_horizon_only_what_an_offered_point_needs_has_to_be_there() {
    let origin = in_memory();
    World::cleaned(&bucket_at(origin.path())).await;
    let root = newest_root(&bucket_at(origin.path())).await;
    let bucket = bucket_at(origin.path());
    let domain = root.domain;
    let read = |bucket: &Bucket| Tables::new(bucket.read_only(), domain, 0);
    // By LSN: is it in a compact segment?
    let mut compact = BTreeSet::new();
    read(&bucket)
        .for_each_segment(&root, Lsn::new(1)..=root.through.lsn, |row| {
            let is_compact = row.kind == SegmentKind::Compact;
            compact.extend((row.first_lsn.get()..=row.last_lsn.get()).filter(|_| is_compact));
        })
        .await
        .unwrap();
    let (mut needed, mut idle) = (0, 0);
    for table in root.tables_of(TableKind::Rows).filter(|table| table.first_lsn <= root.offers().horizon.lsn) {
        let rows: Vec<PlacedRow> = rows_of(&bucket, &root, table).await;
        for at in 0..rows.len() {
            let dir = in_memory();
            copy(origin.path(), dir.path());
            let bucket = bucket_at(dir.path());
            let mut wrong = rows.clone();
            let gone = wrong.remove(at).row;
            if wrong.is_empty() {
                continue;
            }
            let forged = forge(&bucket, &root, table, wrong).await;
            let report = scrub(&bucket).await;
            if report.is_clean() {
                idle += 1;
                continue;
            }
            needed += 1;
            // What it hid shows in its place, and may be in no segment any more.
            let lacks = |damage: &&Damage| damage.what.starts_with("it lacks rows");
            let damage = report.damage.iter().find(lacks).unwrap_or_else(|| panic!("{:#?}", report.damage));
            assert!(report.damage.iter().all(|damage| is_of_run(damage, &root, table, forged)), "{report:#?}");
            let named = blocks_of(damage);
            assert!(named.iter().all(|(extent, _)| gone.extent.intersection(*extent) == Some(*extent)), "{damage}");
        }
    }
    assert!(!compact.is_empty() && needed > 5, "{needed} needed, {idle} idle, {} compact", compact.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_events_and_tables_that_are_swapped_are_named() {
    let origin = in_memory();
    World::cleaned(&bucket_at(origin.path())).await;
    let bucket = bucket_at(origin.path());
    let root = newest_root(&bucket).await;
    let segments = root.tables_of(TableKind::Segments).last().unwrap();
    let events = root.tables_of(TableKind::Events).last().unwrap();
    type ChangeOfSegments = fn(&mut Vec<SegmentRow>);
    let wrong_segments: [(&str, ChangeOfSegments); 4] = [
        ("blocks of data", |rows| rows[0].data_blocks += 1),
        ("number of rows", |rows| rows[0].rows += 1),
        ("header hash", |rows| rows[0].header_hash[0] ^= 1),
        ("the history has", |rows| rows[0].seq = Seq::new(77)),
    ];
    let mut checked = 0;
    for (what, change) in wrong_segments {
        let dir = in_memory();
        copy(origin.path(), dir.path());
        let bucket = bucket_at(dir.path());
        let mut rows: Vec<SegmentRow> = rows_of(&bucket, &root, segments).await;
        change(&mut rows);
        let forged = forge(&bucket, &root, segments, rows).await;
        let report = scrub(&bucket).await;
        let damage = only(&report);
        assert!(damage.object == forged.to_string() && damage.what.contains(what), "{what}: {damage}");
        checked += 1;
    }
    type ChangeOfEvents = fn(&mut Vec<EventRow>);
    let wrong_events: [(&str, ChangeOfEvents); 3] = [
        ("lacks the event", |rows| drop(rows.pop())),
        ("another event", |rows| {
            let last = rows.last_mut().unwrap();
            last.event.body = EventBody::Bookmark { name: "other".into(), level: Level::Crash };
        }),
        ("another time", |rows| {
            let last = rows.last_mut().unwrap();
            last.time = TimeNs::new(last.time.get() + 1);
        }),
    ];
    for (what, change) in wrong_events {
        let dir = in_memory();
        copy(origin.path(), dir.path());
        let bucket = bucket_at(dir.path());
        let mut rows: Vec<EventRow> = rows_of(&bucket, &root, events).await;
        assert!(rows.len() > 1);
        change(&mut rows);
        let forged = forge(&bucket, &root, events, rows).await;
        let report = scrub(&bucket).await;
        let damage = only(&report);
        assert!(damage.object == forged.to_string() && damage.what.contains(what), "{what}: {damage}");
        checked += 1;
    }
    // Two tables under one another's keys.
    let [one, other] = [root.tables[0].key(), root.tables[1].key()].map(|key| origin.path().join(key.to_string()));
    let (first, second) = (std::fs::read(&one).unwrap(), std::fs::read(&other).unwrap());
    std::fs::write(&one, &second).unwrap();
    std::fs::write(&other, &first).unwrap();
    assert_eq!(scrub(&bucket).await.damage.len(), 2);
    std::fs::write(&one, first).unwrap();
    std::fs::remove_file(&other).unwrap();
    let report = scrub(&bucket).await;
    assert!(only(&report).what.starts_with("it is missing"), "{:?}", report.damage);
    assert_eq!(checked, 7);
}

//= SPEC.md#roots
//# RT-1, RT-5
#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_contradicts_the_log_is_named_and_a_log_that_lost_its_end_is_not_blamed_on_it() {
    let origin = in_memory();
    World::cleaned(&bucket_at(origin.path())).await;
    let root = newest_root(&bucket_at(origin.path())).await;
    type Change = fn(&mut Root);
    let changes: [(&str, Change); 4] = [
        ("does not pass through its tail", |root| root.through.header_hash[3] ^= 1),
        ("another time for lsn 1", |root| root.first_time = TimeNs::new(root.first_time.get() + 1)),
        ("other writer epochs", |root| {
            root.epochs.remove(1);
        }),
        ("the ledger has not kept: lsn 3", |root| {
            let retained = root.retained.as_mut().unwrap();
            let time = retained.kept.first().unwrap_or(&retained.horizon).time;
            retained.kept.insert(0, tidemark_format::Mark { lsn: Lsn::new(3), time });
        }),
    ];
    for (what, change) in changes {
        let dir = in_memory();
        copy(origin.path(), dir.path());
        let bucket = bucket_at(dir.path());
        let mut wrong = Root { seq: root.seq.next(), ..root.clone() };
        change(&mut wrong);
        publish(&bucket, &wrong).await;
        let report = scrub(&bucket).await;
        let found = report.damage.iter().find(|damage| damage.what.contains(what));
        assert_eq!(found.map(|damage| damage.object.clone()), Some(wrong.key().to_string()), "{what}: {report:#?}");
    }
    let without = |key: ObjectKey| {
        let dir = in_memory();
        copy(origin.path(), dir.path());
        std::fs::remove_file(dir.path().join(key.to_string())).unwrap();
        dir
    };
    // Roots of an epoch are found by counting.
    let gap = without(ObjectKey::Root { epoch: root.epoch, seq: Seq::new(1) });
    assert!(only(&scrub(&bucket_at(gap.path())).await).what.contains("later roots of its epoch are there"));
    let tail = ObjectKey::Log { epoch: root.through.epoch, seq: root.through.seq };
    let dir = without(tail);
    std::fs::remove_file(dir.path().join("v/hint")).unwrap();
    let report = scrub(&bucket_at(dir.path())).await;
    let damage = only(&report);
    assert!(damage.object == tail.to_string() && !damage.is_of_index(), "{damage}");
    assert_eq!(damage.lsns.map(|(_, last)| last), Some(root.through.lsn));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_reads_footers_counters_and_few_rows_of_the_index() {
    let dir = in_memory();
    World::cleaned(&bucket_at(dir.path())).await;
    let bucket = bucket_at(dir.path());
    let root = newest_root(&bucket).await;
    let sampled = |share: f64, seed| {
        let bucket = bucket.clone();
        async move {
            let sample = Sample::new(share, seed).unwrap();
            verify_sample(&bucket.read_only(), &ReaderOptions::default(), sample, |_| {}).await.unwrap()
        }
    };
    let (full, none) = (scrub(&bucket).await, sampled(f64::MIN_POSITIVE, 1).await);
    let row_groups = root.tables.iter().filter(|table| table.kind.holds_versions()).count() as u64;
    assert_eq!((none.groups_skipped, full.groups_skipped), (row_groups, 0), "each small table has one group");
    assert!(none.is_clean() && none.tables == full.tables && none.bytes < full.bytes);
    assert_eq!(sampled(1.0, 1).await, full);
    // Damage of a row group is found by the samples that have it, and by no other.
    let table = root.tables_of(TableKind::Rows).next().unwrap();
    let path = dir.path().join(table.key().to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let mut found = 0;
    for seed in 0..40 {
        found += u64::from(!sampled(0.5, seed).await.is_clean());
    }
    assert!((8..=32).contains(&found), "{found} of 40");
    bytes[10] ^= 1;
    let end = bytes.len() - 20;
    bytes[end] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(!sampled(f64::MIN_POSITIVE, 1).await.is_clean(), "a footer is always read");
}

/// A maintainer works while the bucket is looked at: what it replaces is no damage.
#[tokio::test(flavor = "multi_thread")]
async fn objects_that_are_replaced_meanwhile_are_no_damage() {
    let bucket = Bucket::memory();
    let mut world = World::cleaned(&bucket).await;
    world.write(&bucket, 40).await;
    world.write(&bucket, 10).await;
    let other = bucket.clone();
    let work = async move {
        let report = world.maintain(&other).await;
        assert!(report.deleted > 0 && report.compacts > 0, "{report:?}");
    };
    // After the listing, as the first segment is read.
    let faults = tidemark_bucket::Faults::seeded(1).meanwhile("log/", Op::Get, work);
    let report = scrub(&bucket.with_faults(faults)).await;
    assert_eq!(report.damage, []);
}

/// What `tidemark repair` says, and its exit code.
fn repair(dir: &Path, more: &[&str], faults: &str) -> (Option<i32>, serde_json::Value) {
    let url = dir.to_str().unwrap();
    let binary = Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test")).env("TIDEMARK_FAULTS", faults);
    let ran = binary.run(["--json", "repair", url].iter().chain(more));
    (ran.code, serde_json::from_str(&ran.stdout).unwrap_or(serde_json::Value::Null))
}

fn flip(dir: &Path, key: ObjectKey, at: usize) {
    let path = dir.join(key.to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn ledger_of(dir: &Path) -> ObjectKey {
    let ledgers = std::fs::read_dir(dir.join("ledger")).unwrap().map(|entry| entry.unwrap().file_name());
    format!("ledger/{}", ledgers.max().unwrap().to_str().unwrap()).parse().unwrap()
}

/// Every object but what may be overwritten, by name, with its bytes.
fn objects(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, root: &Path, all: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() { walk(&path, root, all) } else { drop(all.insert(name, std::fs::read(&path).unwrap())) }
        }
    }
    let mut all = BTreeMap::new();
    walk(dir, dir, &mut all);
    all.retain(|name, _| !name.starts_with("v/"));
    all
}

type Harm = fn(&Path, &Root);

/// Each kind of damage of what is derived, and what mends it.
const HARMS: [(&str, Harm, &str, &str); 7] = [
    (
        "a table of rows",
        |dir, root| flip(dir, root.tables_of(TableKind::Rows).next().unwrap().key(), 9),
        "rebuilt",
        "kept",
    ),
    (
        "a table of segments is gone",
        |dir, root| {
            let key = root.tables_of(TableKind::Segments).next().unwrap().key();
            std::fs::remove_file(dir.join(key.to_string())).unwrap();
        },
        "rebuilt",
        "kept",
    ),
    ("the newest root", |dir, root| flip(dir, root.key(), 99), "rebuilt", "kept"),
    (
        "all roots are gone",
        |dir, _| {
            std::fs::remove_dir_all(dir.join("root")).unwrap();
            std::fs::remove_file(dir.join("v/root")).unwrap();
        },
        "rebuilt",
        "kept",
    ),
    ("the copy of the root", |dir, _| flip(dir, ObjectKey::RootCopy, 60), "copied", "kept"),
    ("the ledger", |dir, _| flip(dir, ledger_of(dir), 99), "kept", "rebuilt"),
    (
        "the ledger and a table",
        |dir, root| {
            flip(dir, ledger_of(dir), 99);
            flip(dir, root.tables_of(TableKind::Events).next().unwrap().key(), 9);
        },
        "rebuilt",
        "rebuilt",
    ),
];

//= SPEC.md#quarantine
//#
#[tokio::test(flavor = "multi_thread")]
async fn damage_of_what_is_derived_is_mended_and_nothing_is_deleted_or_overwritten() {
    let origin = in_memory();
    let world = World::cleaned(&bucket_at(origin.path())).await;
    let root = newest_root(&bucket_at(origin.path())).await;
    for (what, harm, index, ledger) in HARMS {
        let dir = in_memory();
        copy(origin.path(), dir.path());
        harm(dir.path(), &root);
        let before = objects(dir.path());
        let (code, said) = repair(dir.path(), &["--dry-run"], "");
        assert_eq!(objects(dir.path()), before, "{what}: a dry run changes nothing");
        assert_eq!((code, &said["dry_run"]), (Some(13), &true.into()), "{what}: {said}");
        let (code, said) = repair(dir.path(), &[], "");
        assert_eq!(
            (code, said["index"].as_str(), said["ledger"].as_str()),
            (Some(0), Some(index), Some(ledger)),
            "{what}: {said}"
        );
        assert_eq!((&said["intact"], &said["damage"]), (&true.into(), &serde_json::json!([])), "{what}");
        let after = objects(dir.path());
        assert!(
            before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)),
            "{what}: an object is not what it was"
        );
        let bucket = bucket_at(dir.path());
        assert_eq!(scrub(&bucket).await.damage, [], "{what}");
        // Again there is nothing to do, and maintenance goes on.
        let (code, again) = repair(dir.path(), &[], "");
        assert_eq!(
            (code, again["index"].as_str(), &again["quarantined"]),
            (Some(0), Some("kept"), &serde_json::json!([]))
        );
        world.maintain(&bucket).await;
        let left = objects(dir.path());
        for held in said["quarantined"].as_array().unwrap() {
            let name = held["object"].as_str().unwrap();
            assert_eq!(left.get(name), before.get(name), "{what}: {name} was deleted");
        }
        assert_eq!(scrub(&bucket).await.damage, [], "{what}");
    }
}

//= SPEC.md#quarantine
//#
#[tokio::test(flavor = "multi_thread")]
async fn fault_a_repair_that_dies_anywhere_is_done_again_with_the_same_result() {
    let origin = in_memory();
    World::cleaned(&bucket_at(origin.path())).await;
    let root = newest_root(&bucket_at(origin.path())).await;
    let (_, harm, ..) = HARMS[6];
    harm(origin.path(), &root);
    let every = std::env::var_os("TIDEMARK_EVERY_PLACE").is_some();
    let mut cut_short = 0;
    for n in (1..).step_by(if every { 1 } else { 37 }) {
        let dir = in_memory();
        copy(origin.path(), dir.path());
        let before = objects(dir.path());
        let (code, _) = repair(dir.path(), &[], &format!("vanish-after={n},surface"));
        cut_short += u32::from(code != Some(0));
        let (again, said) = repair(dir.path(), &[], "");
        assert_eq!((again, &said["intact"]), (Some(0), &true.into()), "after {n} requests: {said}");
        assert_eq!(scrub(&bucket_at(dir.path())).await.damage, [], "after {n} requests");
        let after = objects(dir.path());
        assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)), "after {n} requests");
        let held = |key: ObjectKey| dir.path().join(key.quarantine().to_string()).exists();
        assert!(held(ledger_of(origin.path())) && held(root.tables_of(TableKind::Events).next().unwrap().key()));
        if code == Some(0) {
            break;
        }
    }
    assert!(cut_short > 3, "{cut_short}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_the_truth_stays_where_it_is_and_the_points_that_it_spoils_are_named() {
    let dir = in_memory();
    let bucket = bucket_at(dir.path());
    World::cleaned(&bucket).await;
    let root = newest_root(&bucket).await;
    // A segment of the window, of which one frame is damaged.
    let key = ObjectKey::Log { epoch: root.through.epoch, seq: Seq::new(root.through.seq.get() - 2) };
    flip(dir.path(), key, usize::MAX);
    let (code, said) = repair(dir.path(), &[], "");
    assert_eq!((code, &said["intact"]), (Some(13), &false.into()), "{said}");
    assert_eq!(said["quarantined"][0]["object"], key.to_string());
    assert_eq!((&said["index"], &said["ledger"]), (&"kept".into(), &"kept".into()));
    let spoiled = said["spoiled"].as_array().unwrap();
    assert!(!spoiled.is_empty() && spoiled.iter().all(|part| part["disk"] == "vm/d"), "{said}");
    // Each of them cannot be read at its first and last point, and can just before and behind.
    let domain =
        tidemark_reader::Domain::open(bucket.read_only(), ReaderOptions::default(), Env::system()).await.unwrap();
    for part in spoiled {
        let number = |member: &str| part[member].as_u64();
        let (offset, len) = (number("offset_bytes").unwrap(), number("len_bytes").unwrap() as usize);
        let first = number("first_lsn").unwrap();
        let last = number("last_lsn").unwrap_or(domain.timeline().latest().lsn.get());
        let reads = async |lsn: u64| domain.disk(DISK, Lsn::new(lsn)).await.unwrap().read(offset, len).await.is_ok();
        assert_eq!((reads(first).await, reads(last).await), (false, false), "{part}");
        assert!(reads(first - 1).await && (number("last_lsn").is_none() || reads(last + 1).await), "{part}");
    }
    assert!(dir.path().join(key.to_string()).exists());
}

//= SPEC.md#quarantine
//#
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_quarantine_is_not_deleted_and_an_index_that_builds_on_it_deletes_nothing() {
    let bucket = Bucket::memory();
    let mut world = World::cleaned(&bucket).await;
    world.write(&bucket, 40).await;
    world.write(&bucket, 5).await;
    let maintainer = Maintainer::open(bucket.appender(), options(), world.env.clone()).await.unwrap();
    let root = newest_root(&bucket).await;
    // An old root would be deleted by the next pass.
    let old = ObjectKey::Root { epoch: root.epoch, seq: Seq::new(1) };
    maintainer.quarantine(old, "a test").await.unwrap().unwrap();
    assert_eq!(quarantined(&bucket.read_only(), root.domain).await.unwrap()[0].object, old);
    assert!(world.maintain(&bucket).await.deleted > 0);
    assert!(bucket.read_only().head(&old).await.is_ok(), "it was deleted");
    // A table that the newest root names: nothing is rewritten or deleted before the index is made anew.
    world.write(&bucket, 40).await;
    world.write(&bucket, 5).await;
    world.index(&bucket).await;
    let root = newest_root(&bucket).await;
    let table = root.tables_of(TableKind::Rows).next().unwrap().key();
    maintainer.quarantine(table, "a test").await.unwrap().unwrap();
    let before = bucket.meter().snapshot();
    let mut cleaner = Maintainer::open(bucket.appender(), options(), world.env.clone()).await.unwrap();
    let error = cleaner.clean(&bucket.deleter(), |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Quarantined { object, .. } if object == table), "{error}");
    assert!(cleaner.plan_clean(None).await.is_err());
    let spent = bucket.meter().snapshot().since(&before);
    assert_eq!((spent.total(Op::Put).requests, spent.total(Op::Delete).requests), (0, 0));
    cleaner.pass(From::Scratch, |_| {}).await.unwrap();
    cleaner.clean(&bucket.deleter(), |_| {}).await.unwrap();
    assert!(bucket.read_only().head(&table).await.is_ok());
    // A record that cannot be read may name anything.
    world.write(&bucket, 40).await;
    world.write(&bucket, 5).await;
    world.index(&bucket).await;
    bucket.pinner().put(&table.quarantine(), b"damaged".to_vec()).await.unwrap();
    let before = bucket.meter().snapshot();
    assert_eq!(cleaner.clean(&bucket.deleter(), |_| {}).await.unwrap_err().kind(), ErrorKind::DataLoss);
    assert_eq!(bucket.meter().snapshot().since(&before).total(Op::Delete).requests, 0);
    bucket.deleter().delete(&table.quarantine()).await.unwrap();
    let mut cleaner = Maintainer::open(bucket.appender(), options(), world.env.clone()).await.unwrap();
    cleaner.clean(&bucket.deleter(), |_| {}).await.unwrap();
    assert!(bucket.read_only().head(&table).await.is_err(), "what was released is deleted");
    assert_eq!(scrub(&bucket).await.damage, []);
}
