//! Finding the log: which objects are asked for, which tail is final, what is an error.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{LogBuilder, block_on, noise, open};
use proptest::collection::vec;
use proptest::prelude::*;
use tidemark_bucket::{Bucket, Fault, Faults, Op};
use tidemark_env::Env;
use tidemark_format::{DiskId, Epoch, ErrorKind, KeyFamily, Lsn, ObjectKey, Seq, TimeNs};
use tidemark_reader::{Domain, Error, PointSpec, ReaderOptions};

/// A disk and `n` segments of one write each.
async fn with_segments(n: u64) -> LogBuilder {
    let mut log = LogBuilder::in_memory().await;
    let disk = log.blank_disk(1, 64);
    log.seal().await;
    for i in 1..n {
        log.pass(10);
        log.write(disk, i % 64, &noise(i, 512));
        log.seal().await;
    }
    log
}

fn key(epoch: u64, seq: u64) -> ObjectKey {
    ObjectKey::Log { epoch: Epoch::new(epoch), seq: Seq::new(seq) }
}

#[tokio::test]
async fn opening_reading_and_refreshing_never_list() {
    let log = with_segments(20).await;
    let domain = log.open().await;
    let lsn = domain.timeline().latest().lsn;
    let disk = domain.timeline().disks_at(lsn)[0].id;
    domain.disk(disk, lsn).await.unwrap().read(0, 32_768).await.unwrap();
    domain.refresh().await.unwrap();
    assert_eq!(log.bucket.meter().snapshot().total(Op::List).requests, 0);
}

#[tokio::test]
async fn a_refresh_without_news_asks_for_the_next_segment_and_the_next_claim() {
    let log = with_segments(5).await;
    let domain = log.open().await;
    let before = log.bucket.meter().snapshot();
    domain.refresh().await.unwrap();
    let cost = log.bucket.meter().snapshot().since(&before);
    assert_eq!(cost.get(Op::Get, KeyFamily::Log).requests, 1);
    assert_eq!(cost.get(Op::Get, KeyFamily::Claim).requests, 1);
    assert_eq!(cost.total(Op::Get).requests, 2);
}

#[tokio::test]
async fn a_refresh_finds_new_segments_and_new_epochs() {
    let mut log = with_segments(3).await;
    let domain = log.open().await;
    let old = domain.timeline();
    let disk = old.disks_at(old.latest().lsn)[0].id;
    log.write(disk, 1, &[1; 512]);
    log.seal().await;
    assert_eq!(domain.refresh().await.unwrap().latest().lsn, log.latest());
    for _ in 0..3 {
        log.begin_epoch().await;
        log.write(disk, 2, &[2; 512]);
        log.seal().await;
    }
    let new = domain.refresh().await.unwrap();
    assert_eq!(new.latest().lsn, log.latest());
    assert_eq!(new.final_through(), log.latest());
    assert_eq!(old.latest().lsn.get() + 4, new.latest().lsn.get(), "the old timeline has not changed");
}

#[tokio::test]
async fn a_bucket_without_a_domain_says_so() {
    let error = open(Bucket::memory().read_only()).await.unwrap_err();
    assert!(matches!(error, Error::NoDomain { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_domain_without_writes_is_empty_and_not_an_error() {
    let log = LogBuilder::in_memory().await;
    let domain = log.open().await;
    assert!(domain.timeline().is_empty());
    assert_eq!(domain.timeline().latest().lsn, Lsn::ZERO);
}

//= SPEC.md#reader-rules
//#
#[tokio::test]
async fn a_claim_without_a_cut_makes_the_unacknowledged_tail_provisional() {
    let mut log = with_segments(4).await;
    let domain = log.open().await;
    assert_eq!(domain.timeline().final_through(), log.latest());
    let disk = domain.timeline().disks_at(log.latest())[0].id;
    let acked = log.latest();
    log.write(disk, 9, &[9; 512]);
    log.seal().await;
    log.claim(Epoch::new(2)).await;
    let fresh = log.open().await.timeline();
    assert_eq!((fresh.latest().lsn, fresh.final_through()), (log.latest(), acked));
    // The domain that was opened before knew the acknowledged part, and learns the same.
    let refreshed = domain.refresh().await.unwrap();
    assert_eq!((refreshed.latest().lsn, refreshed.final_through()), (log.latest(), acked));
}

#[tokio::test]
async fn a_provisional_tail_may_be_cut_by_the_successor() {
    let mut log = with_segments(4).await;
    let disk = log.open().await.timeline().disks_at(log.latest())[0].id;
    log.claim(Epoch::new(2)).await;
    // The old owner is late: its segment lands after the successor has looked for the tail.
    let tail = log.latest();
    let acked = log.acked;
    let mut late = with_segments(4).await;
    late.acked = acked;
    late.write(disk, 9, &[9; 512]);
    let (late_key, late_bytes) = late.sealed().unwrap();
    log.bucket.appender().put(&late_key, late_bytes).await.unwrap();
    let domain = log.open().await;
    assert_eq!(domain.timeline().latest().lsn, tail.next());
    assert_eq!(domain.timeline().final_through(), acked);
    log.cut(Epoch::new(2)).await;
    let refreshed = domain.refresh().await.unwrap();
    assert_eq!((refreshed.latest().lsn, refreshed.final_through()), (tail, tail));
    log.write(disk, 3, &[3; 512]);
    log.seal().await;
    assert_eq!(domain.refresh().await.unwrap().latest().lsn, tail.next());
}

#[tokio::test]
async fn a_log_that_loses_what_was_final_is_an_error() {
    let mut log = with_segments(4).await;
    let domain = log.open().await;
    let was = domain.timeline().final_through();
    // A successor that does not see the last segment: against the rules, or the bucket was restored from a copy.
    let mut rival = with_segments(3).await;
    rival.epoch = log.epoch;
    log.claim(Epoch::new(2)).await;
    rival.bucket = log.bucket.clone();
    rival.cut(Epoch::new(2)).await;
    let error = domain.refresh().await.unwrap_err();
    assert!(matches!(error, Error::Retracted { was: w, .. } if w == was), "{error}");
    assert_eq!(domain.timeline().latest().lsn, was, "what was known stays");
    log.pass(1);
}

#[tokio::test]
async fn a_missing_segment_of_a_closed_epoch_is_named() {
    let mut log = with_segments(6).await;
    log.begin_epoch().await;
    log.bucket.deleter().delete(&key(1, 3)).await.unwrap();
    let error = log.open_error().await;
    assert!(matches!(error, Error::Missing { key: k, .. } if k == key(1, 3)), "{error}");
    assert_eq!(error.kind(), ErrorKind::DataLoss);
}

//= SPEC.md#reader-rules
//#
#[tokio::test]
async fn a_hole_below_an_acknowledged_lsn_is_an_error_and_above_it_is_the_end() {
    // Also the first of all, where nothing has made the reader look far ahead yet, and as many as an owner has under way.
    for lost in [1..2, 2..3, 3..4, 5..6, 1..17] {
        let log = with_segments(lost.end + 1).await;
        for seq in lost.clone() {
            log.bucket.deleter().delete(&key(1, seq)).await.unwrap();
        }
        let error = log.open_error().await;
        assert!(matches!(error, Error::Missing { key: k, .. } if k == key(1, lost.start)), "{lost:?} lost: {error}");
    }

    // The same hole, but nobody was told that anything behind it is durable.
    let mut log = LogBuilder::in_memory().await;
    let disk = log.blank_disk(1, 64);
    log.seal().await;
    log.acked = Lsn::new(3);
    let mut sealed = Vec::new();
    for i in 0..3 {
        log.write(disk, i, &[1; 512]);
        sealed.push(log.sealed().unwrap());
    }
    for (key, bytes) in [sealed[0].clone(), sealed[2].clone()] {
        log.bucket.appender().put(&key, bytes).await.unwrap();
    }
    assert_eq!(log.open().await.timeline().latest().lsn, Lsn::new(4));
}

#[tokio::test]
async fn a_corrupt_header_in_the_history_is_named_and_never_the_end() {
    for seq in [0, 1, 3, 5] {
        let log = with_segments(5).await;
        let bad = key(1, seq);
        let mut bytes = log.bucket.read_only().get(&bad).await.unwrap().to_vec();
        bytes[100] ^= 4;
        log.bucket.deleter().delete(&bad).await.unwrap();
        log.bucket.appender().put(&bad, bytes).await.unwrap();
        let error = log.open_error().await;
        assert!(matches!(error, Error::Format { key: k, .. } if k == bad), "{error}");
    }
}

#[tokio::test]
async fn a_segment_of_another_place_is_refused() {
    let log = with_segments(5).await;
    let bytes = log.bucket.read_only().get(&key(1, 2)).await.unwrap();
    log.bucket.deleter().delete(&key(1, 4)).await.unwrap();
    log.bucket.appender().put(&key(1, 4), bytes).await.unwrap();
    let error = log.open_error().await;
    assert!(matches!(error, Error::Format { key: k, .. } if k == key(1, 4)), "{error}");
}

#[tokio::test]
async fn a_segment_that_breaks_the_hash_chain_is_refused() {
    // Same place, same LSNs, another history: in the newest epoch, and in one that another has closed.
    for closed in [false, true] {
        let mut log = with_segments(5).await;
        if closed {
            log.begin_epoch().await;
        }
        let mut other = LogBuilder::in_memory().await;
        other.blank_disk(1, 32);
        other.seal().await;
        let bytes = other.bucket.read_only().get(&key(1, 1)).await.unwrap();
        log.bucket.deleter().delete(&key(1, 1)).await.unwrap();
        log.bucket.appender().put(&key(1, 1), bytes).await.unwrap();
        let error = log.open_error().await;
        assert!(matches!(error, Error::Chain { key: k, .. } if k == key(1, 2)), "closed: {closed}, {error}");
    }
}

//= SPEC.md#reader-rules
//#
#[tokio::test]
async fn a_clone_of_the_owner_ends_the_newest_epoch_where_their_segments_part() {
    let mut log = LogBuilder::in_memory().await;
    let disk = log.blank_disk(1, 64);
    log.seal().await;
    // Both had segment 1; the clone was first with segment 2, and the owner had segment 3 in flight.
    let mut clone = LogBuilder::in_memory().await;
    clone.blank_disk(1, 64);
    clone.seal().await;
    clone.write(disk, 0, &[1; 512]);
    clone.write(disk, 0, &[1; 512]);
    log.write(disk, 0, &[2; 512]);
    let _ = log.sealed().unwrap();
    log.write(disk, 0, &[3; 512]);
    for (key, bytes) in [clone.sealed().unwrap(), log.sealed().unwrap()] {
        log.bucket.appender().put(&key, bytes).await.unwrap();
    }
    assert_eq!(log.open().await.timeline().latest().lsn, Lsn::new(5), "the clone's segment continues segment 1");
}

//= SPEC.md#reader-rules
//#
#[tokio::test]
async fn a_lost_claim_is_named_and_hides_neither_a_domain_nor_its_newest_history() {
    for (claims, lost) in [(1, 1), (2, 2), (3, 2), (9, 9), (4, 4)] {
        let mut log = with_segments(3).await;
        for _ in 1..claims {
            log.begin_epoch().await;
        }
        let lost_key = ObjectKey::writer_claim(Epoch::new(lost));
        let faults = Faults::seeded(1).on(&lost_key.to_string(), Op::Get, Fault::Stale404, 1.0);
        // Readers that leap over the lost claim find the history that there is.
        match open(log.bucket.with_faults(faults).read_only()).await {
            Err(error) => assert!(matches!(error, Error::Missing { key, .. } if key == lost_key), "{error}"),
            Ok(domain) => {
                assert!(lost < claims, "claim {lost} of {claims} is lost");
                assert_eq!(domain.timeline().newest_claim(), log.epoch);
            }
        }
    }
}

/// A claim that comes between the two questions is no lost one.
#[tokio::test]
async fn fault_a_claim_that_a_reader_just_missed_is_found_when_its_cut_is() {
    let mut log = with_segments(3).await;
    log.begin_epoch().await;
    log.write(DiskId::new(1), 1, &[1; 512]);
    log.seal().await;
    let faults = Faults::seeded(1).at("claim/w/0000000000000002", Op::Get, Fault::Stale404, 1);
    let domain = open(log.bucket.with_faults(faults).read_only()).await.unwrap();
    assert_eq!((domain.timeline().latest().lsn, domain.timeline().final_through()), (log.latest(), log.latest()));
}

//= SPEC.md#reader-rules
//#
#[tokio::test]
async fn a_lost_cut_is_named_and_does_not_hide_its_epoch() {
    let mut log = with_segments(3).await;
    log.begin_epoch().await;
    let disk = log.open().await.timeline().disks_at(log.latest())[0].id;
    log.write(disk, 0, &[1; 512]);
    log.seal().await;
    log.bucket.deleter().delete(&key(2, 0)).await.unwrap();
    let error = log.open_error().await;
    assert!(matches!(error, Error::Missing { key: k, .. } if k == key(2, 0)), "{error}");
}

#[tokio::test]
async fn fault_answers_that_are_no_proof_of_absence_never_end_the_log() {
    let mut log = with_segments(12).await;
    log.begin_epoch().await;
    for (fault, rule) in [(Fault::Error, "log/"), (Fault::Stale404, "log/0000000000000001"), (Fault::Short, "log/")] {
        for nth in 1..12 {
            let faults = Faults::seeded(nth).at(rule, Op::Get, fault, nth);
            let faulty = log.bucket.with_faults(faults.clone());
            let domain = open(faulty.read_only()).await.unwrap();
            assert_eq!(domain.timeline().latest().lsn, log.latest(), "{fault:?} at request {nth}");
            assert_eq!(faults.injected(), 1);
        }
    }
}

#[tokio::test]
async fn fault_a_vanished_bucket_gives_an_error_of_kind_retry() {
    let log = {
        let mut log = LogBuilder::new(Bucket::memory_with(common::hasty())).await;
        let disk = log.blank_disk(1, 4096);
        log.write(disk, 0, &noise(1, 65_536));
        log.seal().await;
        log
    };
    let faults = Faults::seeded(1);
    let bucket = log.bucket.with_faults(faults.clone());
    let domain = open(bucket.read_only()).await.unwrap();
    let disk = domain.timeline().disks_at(log.latest())[0].id;
    let image = domain.disk(disk, log.latest()).await.unwrap();
    faults.vanish();
    assert_eq!(image.read(0, 4096).await.unwrap_err().kind(), ErrorKind::Retry);
    assert_eq!(domain.refresh().await.unwrap_err().kind(), ErrorKind::Retry);
    assert_eq!(open(bucket.read_only()).await.unwrap_err().kind(), ErrorKind::Retry);
    faults.come_back();
    assert_eq!(image.read(0, 65_536).await.unwrap(), noise(1, 65_536));
}

#[tokio::test]
async fn fault_a_store_that_never_answers_runs_into_the_deadline() {
    let log = with_segments(3).await;
    let bucket = log.bucket.with_faults(Faults::seeded(1).on("log/", Op::Get, Fault::Hang, 1.0));
    let options = ReaderOptions { request_deadline: std::time::Duration::from_millis(50), ..common::small_options() };
    let error = Domain::open(bucket.read_only(), options, Env::system()).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Retry);
}

impl LogBuilder {
    async fn open_error(&self) -> Error {
        open(self.bucket.read_only()).await.unwrap_err()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Epochs with any number of segments, abandoned claims between them, any hint: the log is found whole.
    //= SPEC.md#records
    //# RC-2
    #[test]
    fn prop_the_walk_finds_every_segment_whatever_the_hint(
        epochs in vec((0..6u64, 0..20u64), 1..8), hint in any::<Option<(u64, u64)>>(), honest in any::<bool>(), look in 0..8usize,
    ) {
        block_on(async {
            let mut log = LogBuilder::in_memory().await;
            let disk = log.blank_disk(1, 64);
            log.seal().await;
            let mut early = None;
            for (i, (segments, abandoned)) in epochs.iter().enumerate() {
                if i == look {
                    early = Some(log.open().await);
                }
                for s in 0..*segments {
                    log.write(disk, s, &[s as u8 + 1; 512]);
                    log.seal().await;
                }
                if honest {
                    log.hint().await;
                }
                let next = log.epoch.get() + 1;
                for number in next..next + abandoned {
                    log.claim(Epoch::new(number)).await;
                }
                log.claim(Epoch::new(next + abandoned)).await;
                log.cut(Epoch::new(next + abandoned)).await;
            }
            if let (false, Some((epoch, seq))) = (honest, hint) {
                let (epoch, seq) = (Epoch::new(epoch % 200), Seq::new(seq % 200));
                let lie = tidemark_format::Hint { domain: common::DOMAIN, epoch, seq };
                log.bucket.appender().put_hint(lie.encode()).await.unwrap();
            }
            let timeline = log.open().await.timeline();
            assert_eq!((timeline.latest().lsn, timeline.final_through()), (log.latest(), log.latest()));
            assert_eq!(timeline.newest_claim(), log.epoch);
            if let Some(early) = early {
                let timeline = early.refresh().await.unwrap();
                assert_eq!((timeline.latest().lsn, timeline.final_through()), (log.latest(), log.latest()));
            }
        });
    }
}

/// Whoever opens a domain, or reads of one, may do so in a task of a runtime with many threads.
#[test]
fn what_a_reader_awaits_moves_between_threads() {
    fn moves<T: Send>(_: impl FnOnce(tidemark_bucket::ReadOnly, tidemark_env::Env) -> T) {}
    moves(|bucket, env| async move {
        let domain = Domain::open(bucket, ReaderOptions::default(), env).await?;
        let timeline = domain.refresh().await?;
        let at = timeline.resolve(&PointSpec::Latest, TimeNs::default()).await?;
        timeline.events(Lsn::ZERO, at.lsn).await?;
        domain.disk(DiskId::new(1), at.lsn).await?.read(0, 4096).await
    });
}
