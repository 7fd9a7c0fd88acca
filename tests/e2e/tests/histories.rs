//! Random histories over several disks, through writers that are closed, die and are followed by others, with and without an
//! index that grows meanwhile: at any LSN a reader sees what the model has.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;
use tidemark_bucket::{Bucket, Faults};
use tidemark_env::{Env, ManualClock};
use tidemark_format::{BLOCK_BYTES, ErrorKind, Extent, Level, Lsn, Policy, Retention, TimeNs};
use tidemark_gc::{CleanReport, From, Maintainer, MaintenanceOptions};
use tidemark_model::ops::calls;
use tidemark_model::{DomainModel, Op, OpsShape, any_ops};
use tidemark_reader::{Damage, Domain, IndexUse, PointSpec, ReaderOptions, verify};
use tidemark_writer::{Attach, Content, DomainWriter, NewDisk, Request, When, WriterOptions, create_domain};

/// What happens to the writer before a call.
#[derive(Clone, Copy, Debug)]
enum Fate {
    GoesOn,
    CommitsAll,
    Closes,
    Dies,
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        20 => Just(Fate::GoesOn),
        3 => Just(Fate::CommitsAll),
        1 => Just(Fate::Closes),
        1 => Just(Fate::Dies),
    ]
}

fn options() -> WriterOptions {
    WriterOptions { segment_bytes_max: 24 << 10, age_ms_max: 5, attach: Attach::KnownCas, ..WriterOptions::default() }
}

/// Runs of a few rows, tables of fewer, merged by threes.
fn small_runs() -> MaintenanceOptions {
    MaintenanceOptions {
        run_rows: 12,
        unindexed_segments_max: 2,
        fan_out: 3,
        image_rows_min: 8,
        table_rows_max: 10,
        heads_held_max: 4,
        // Compact segments of a few writes, gathered a few at a time.
        small_object_bytes: 1500,
        compact_bytes_max: 12 << 10,
        rows_held_max: 30,
        ..MaintenanceOptions::default()
    }
}

async fn maintain(bucket: &Bucket, env: &Env) {
    let mut maintainer = Maintainer::open(bucket.appender(), small_runs(), env.clone()).await.unwrap();
    maintainer.pass(From::NewestRoot, |_| {}).await.unwrap();
}

/// A whole pass, deleting included; by a maintainer that dies after so many requests, if any.
async fn clean(bucket: &Bucket, env: &Env, dies_after: Option<u64>) -> tidemark_gc::Result<CleanReport> {
    let bucket = match dies_after {
        Some(requests) => bucket.with_faults(Faults::seeded(requests).vanish_after(requests).surfacing()),
        None => bucket.clone(),
    };
    let mut maintainer = Maintainer::open(bucket.appender(), small_runs(), env.clone()).await?;
    maintainer.pass(From::NewestRoot, |_| {}).await?;
    maintainer.clean(&bucket.deleter(), |_| {}).await
}

/// Submits one call of the model's; its last LSN is that of its last operation.
async fn submit(writer: &DomainWriter, call: &[Op]) -> Lsn {
    let ticket = match &call[0] {
        Op::DiskAdd { disk, blocks } => {
            let new = NewDisk { vm: "vm".into(), name: format!("d{disk}"), size_bytes: blocks * BLOCK_BYTES };
            let (id, ticket) = writer.submit_disk_add(&new, Content::Blank, When::Now).await.unwrap();
            assert_eq!(id, *disk);
            ticket
        }
        Op::Resize { disk, blocks } => writer.submit_disk_resize(*disk, blocks * BLOCK_BYTES, When::Now).await.unwrap(),
        Op::DiskRemove { disk } => writer.submit_disk_remove(*disk, When::Now).await.unwrap(),
        op => {
            let request = match op {
                Op::Write { disk, start, data } => {
                    let data = Bytes::from(data.clone());
                    Request::Write { disk: *disk, offset: start * BLOCK_BYTES, data }
                }
                Op::Zero { disk, extent } => {
                    Request::Zero { disk: *disk, offset: extent.byte_start(), len: extent.byte_len() }
                }
                Op::Unmap { disk, extent } => {
                    Request::Unmap { disk: *disk, offset: extent.byte_start(), len: extent.byte_len() }
                }
                _ => Request::Bookmark { name: "mark".into(), level: Level::Crash },
            };
            writer.submit(request, When::Now).await.unwrap()
        }
    };
    ticket.lsn()
}

/// Writes the history. After each commit, and each time that the writer has closed its epoch, somebody else has a turn.
async fn play(ops: &[Op], fates: &[Fate], env: &Env, mut others: impl AsyncFnMut(&Bucket)) -> (Bucket, DomainModel) {
    let bucket = Bucket::memory();
    create_domain(&bucket.appender(), "random", env).await.unwrap();
    let mut model = DomainModel::new();
    let mut writer = DomainWriter::open(bucket.appender(), options(), env.clone()).await.unwrap();
    let mut committed = Lsn::ZERO;
    let mut fates = fates.iter().copied().chain(std::iter::repeat(Fate::GoesOn));
    let mut rest = ops;
    while !rest.is_empty() {
        match fates.next().expect("there is no end of them") {
            Fate::GoesOn => {}
            Fate::CommitsAll => {
                writer.sync().await.unwrap();
                committed = model.latest();
                others(&bucket).await;
            }
            fate => {
                if let Fate::Closes = fate {
                    writer.close().await.unwrap();
                    committed = model.latest();
                }
                drop(writer);
                others(&bucket).await;
                writer = DomainWriter::open(bucket.appender(), options(), env.clone()).await.unwrap();
                let survived = writer.last_lsn();
                assert!(survived >= committed, "lsn {committed} was promised, the log ends at lsn {survived}");
                assert!(survived <= model.latest(), "lsn {survived} was never given");
                model.truncate(survived);
                // Operation i has LSN i + 1: what was lost is done again.
                rest = &ops[survived.get() as usize..];
                continue;
            }
        }
        let call = calls_from(ops, rest);
        for op in call {
            model.apply(op);
        }
        assert_eq!(submit(&writer, call).await, model.latest());
        rest = &rest[call.len()..];
    }
    writer.close().await.unwrap();
    (bucket, model)
}

/// The call that begins where `rest` does.
fn calls_from<'a>(ops: &'a [Op], rest: &[Op]) -> &'a [Op] {
    let mut at = 0;
    for call in calls(ops) {
        if at == ops.len() - rest.len() {
            return call;
        }
        at += call.len();
    }
    panic!("a crash cut a call in two: lsn {} is inside of one", ops.len() - rest.len());
}

async fn open(bucket: &Bucket, index: IndexUse, env: &Env) -> Domain {
    // Small caches, so that parts of the index are read again and again.
    let options = ReaderOptions {
        index,
        index_cache_bytes_max: 20_000,
        head_cache_bytes_max: 20_000,
        ..ReaderOptions::default()
    };
    Domain::open(bucket.read_only(), options, env.clone()).await.unwrap()
}

/// Everything that can be asked of a history is answered alike with and without the index.
async fn check_alike(bucket: &Bucket, lsn: Lsn, env: &Env) -> Result<(), TestCaseError> {
    let (log, indexed) = (open(bucket, IndexUse::Never, env).await, open(bucket, IndexUse::IfThere, env).await);
    let (one, other) = (log.timeline(), indexed.timeline());
    prop_assert_eq!(one.indexed_through(), Lsn::ZERO);
    prop_assert_eq!((one.first(), one.latest()), (other.first(), other.latest()));
    prop_assert_eq!((one.bookmarks(), one.gaps()), (other.bookmarks(), other.gaps()));
    prop_assert_eq!((one.all_disks(), one.disks_at(lsn)), (other.all_disks(), other.disks_at(lsn)));
    prop_assert_eq!((one.final_through(), one.segment_count()), (other.final_through(), other.segment_count()));
    let time = one.time_of(lsn).await.unwrap();
    prop_assert_eq!((one.epoch_of(lsn), time), (other.epoch_of(lsn), other.time_of(lsn).await.unwrap()));
    let spec = PointSpec::Time(time.unwrap());
    prop_assert_eq!(
        one.resolve(&spec, TimeNs::default()).await.unwrap(),
        other.resolve(&spec, TimeNs::default()).await.unwrap()
    );
    prop_assert_eq!(one.sample(5).await.unwrap(), other.sample(5).await.unwrap());
    prop_assert_eq!(one.events(Lsn::new(1), lsn).await.unwrap(), other.events(Lsn::new(1), lsn).await.unwrap());
    for disk in one.all_disks() {
        let block = lsn.get() % 8 * BLOCK_BYTES;
        prop_assert_eq!(log.versions(disk.id, block).await.unwrap(), indexed.versions(disk.id, block).await.unwrap());
        let from = Lsn::new(lsn.get() / 2);
        prop_assert_eq!(
            log.changed(disk.id, from, lsn).await.unwrap(),
            indexed.changed(disk.id, from, lsn).await.unwrap()
        );
    }
    Ok(())
}

async fn check(
    bucket: &Bucket,
    model: &DomainModel,
    lsn: Lsn,
    index: IndexUse,
    env: &Env,
) -> Result<(), TestCaseError> {
    let domain = open(bucket, index, env).await;
    prop_assert_eq!(domain.timeline().latest().lsn, model.latest());
    prop_assert_eq!(domain.timeline().final_through(), model.latest());
    let wanted = model.at(lsn);
    let shown = domain.timeline().disks_at(lsn);
    prop_assert_eq!(shown.iter().map(|disk| disk.id).collect::<Vec<_>>(), wanted.keys().copied().collect::<Vec<_>>());
    for disk in shown {
        let model = &wanted[&disk.id];
        prop_assert_eq!(disk.size_bytes, model.blocks() * BLOCK_BYTES, "size of disk {} at lsn {}", disk.id, lsn);
        prop_assert_eq!(disk.consistent_from.is_some(), model.consistent, "disk {} at lsn {}", disk.id, lsn);
        if !model.consistent {
            continue;
        }
        let image = domain.disk(disk.id, lsn).await.unwrap();
        // Unknown blocks: what a disk has just gained, until the next LSN says that it is zeros.
        let cells = model.image();
        let mut start = 0;
        for run in cells.chunk_by(|a, b| a.is_some() == b.is_some()) {
            let shown = image.read(start as u64 * BLOCK_BYTES, run.len() * BLOCK_BYTES as usize).await;
            match (shown, model.read(Extent::new(start as u64, run.len() as u64))) {
                (Ok(shown), Some(wanted)) => prop_assert!(shown == wanted, "disk {} at lsn {}", disk.id, lsn),
                (Err(error), None) => prop_assert_eq!(error.kind(), ErrorKind::DataLoss, "{}", error),
                (shown, wanted) => {
                    let (shown, wanted) = (shown.is_ok(), wanted.is_some());
                    prop_assert!(false, "disk {} at lsn {}: known {}, must be {}", disk.id, lsn, shown, wanted);
                }
            }
            start += run.len();
        }
    }
    Ok(())
}

/// Each point up to `latest` that a reader is offered is as the model has it, and others are refused.
async fn check_offered(bucket: &Bucket, model: &DomainModel, env: &Env) -> Result<u64, TestCaseError> {
    let mut refused = 0;
    for index in [IndexUse::Never, IndexUse::IfThere] {
        let domain = open(bucket, index, env).await;
        let timeline = domain.timeline();
        for lsn in (1..=model.latest().get()).map(Lsn::new) {
            let offered = lsn >= timeline.horizon().lsn || timeline.kept().iter().any(|kept| kept.lsn == lsn);
            if offered {
                check(bucket, model, lsn, index, env).await?;
            } else {
                let error = timeline.resolve(&PointSpec::Lsn(lsn), TimeNs::default()).await.unwrap_err();
                prop_assert!(matches!(error, tidemark_reader::Error::NotRetained { .. }), "{}", error);
                refused += 1;
            }
        }
    }
    Ok(refused)
}

/// What is wrong with a bucket.
async fn damage(bucket: &Bucket) -> Vec<Damage> {
    verify(&bucket.read_only(), &ReaderOptions::default(), |_| {}).await.unwrap().damage
}

/// Threads, and an environment whose clock and dice are its own.
fn world(seed: u64) -> (tokio::runtime::Runtime, Env) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    (runtime, Env::seeded(seed, Arc::new(ManualClock::new(TimeNs::new(1_790_000_000_000_000_000)))))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn prop_any_lsn_of_any_history_equals_the_model(
        ops in any_ops(OpsShape::default()),
        fates in prop::collection::vec(any_fate(), 100),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 8),
        seed in any::<u64>(),
    ) {
        let (runtime, env) = world(seed);
        runtime.block_on(async {
            let (bucket, model) = play(&ops, &fates, &env, async |_| {}).await;
            check(&bucket, &model, model.latest(), IndexUse::Never, &env).await?;
            for pick in &picks {
                let lsn = Lsn::new(pick.index(model.latest().get() as usize) as u64 + 1);
                check(&bucket, &model, lsn, IndexUse::IfThere, &env).await?;
            }
            Ok::<_, TestCaseError>(())
        })?;
    }

    #[test]
    fn prop_cleaning_leaves_every_offered_point_as_it_was(
        ops in any_ops(OpsShape::default()),
        fates in prop::collection::vec(any_fate(), 100),
        policies in prop::collection::vec((0u64..300, 0u64..600, 0u32..4, 0u32..3, prop::option::of(0u64..120)), 1..20),
        seed in any::<u64>(),
    ) {
        let clock = Arc::new(ManualClock::new(TimeNs::new(1_790_000_000_000_000_000)));
        let (runtime, env) = (world(seed).0, Env::seeded(seed, Arc::clone(&clock)));
        runtime.block_on(async {
            let mut policies = policies.iter().cycle();
            let others = async |bucket: &Bucket| {
                let (later, window, hourly, daily, dies_after) = *policies.next().expect("there is no end of them");
                clock.advance(Duration::from_secs(later * 60));
                let window_ns = window * 60_000_000_000;
                let policy = Policy { window_ns, bookmarks_ns: window_ns * 2, hourly, daily, weekly: 0, monthly: 1 };
                let domain = open(bucket, IndexUse::Never, &env).await.genesis().domain;
                let wish = Retention { policy: Some(policy), ..Retention::everything(domain) };
                bucket.appender().put_retention(wish.encode().unwrap()).await.unwrap();
                let cleaned = clean(bucket, &env, dies_after).await;
                assert!(cleaned.is_ok() || dies_after.is_some(), "{cleaned:?}");
            };
            let (bucket, model) = play(&ops, &fates, &env, others).await;
            check_offered(&bucket, &model, &env).await?;
            clean(&bucket, &env, None).await.unwrap();
            check_offered(&bucket, &model, &env).await?;
            // Whatever died on the way, nothing is left behind.
            prop_assert_eq!(clean(&bucket, &env, None).await.unwrap().deleted, 0);
            prop_assert_eq!(damage(&bucket).await, Vec::new());
            // The index can be made anew from what is left.
            let mut maintainer = Maintainer::open(bucket.appender(), small_runs(), env.clone()).await.unwrap();
            maintainer.pass(From::Scratch, |_| {}).await.unwrap();
            check_offered(&bucket, &model, &env).await?;
            Ok::<_, TestCaseError>(())
        })?;
    }

    #[test]
    fn prop_the_index_shows_any_lsn_as_the_log_does(
        ops in any_ops(OpsShape::default()),
        fates in prop::collection::vec(any_fate(), 100),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 8),
        seed in any::<u64>(),
    ) {
        let (runtime, env) = world(seed);
        runtime.block_on(async {
            let (bucket, model) = play(&ops, &fates, &env, async |bucket| maintain(bucket, &env).await).await;
            maintain(&bucket, &env).await;
            for pick in &picks {
                let lsn = Lsn::new(pick.index(model.latest().get() as usize) as u64 + 1);
                check(&bucket, &model, lsn, IndexUse::Never, &env).await?;
                check(&bucket, &model, lsn, IndexUse::IfThere, &env).await?;
                check_alike(&bucket, lsn, &env).await?;
            }
            Ok::<_, TestCaseError>(())
        })?;
    }
}
