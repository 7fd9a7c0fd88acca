//! Writers that die, stall or race: no acknowledged write is lost, and nothing that nobody asked for appears.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use bytes::Bytes;
use common::{BLOCK, History, START, block_on, domain, options};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemark_bucket::{Bucket, Fault, Faults, Op};
use tidemark_env::{Entropy, Env, SeededEntropy};
use tidemark_format::{
    DiskId, Epoch, ErrorKind, Event, EventBody, Lsn, Role, RowKind, SegmentDraft, SegmentIdentity, SegmentKind, Seq,
    TimeStep, seal_segment,
};
use tidemark_writer::{Content, DomainWriter, Error, FenceCause, NewDisk};

const DISK: DiskId = DiskId::new(1);
const DISK_BLOCKS: u64 = 64;

/// Everything that was asked for and promised.
#[derive(Clone, Debug, Default)]
struct Ledger(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    submitted: HashMap<Lsn, Vec<(u64, Bytes)>>,
    acked: HashMap<Lsn, (u64, Bytes)>,
}

impl Ledger {
    fn submitted(&self, lsn: Lsn, start: u64, data: &Bytes) {
        self.0.lock().unwrap().submitted.entry(lsn).or_default().push((start, data.clone()));
    }

    fn acked(&self, lsn: Lsn, start: u64, data: &Bytes) {
        let before = self.0.lock().unwrap().acked.insert(lsn, (start, data.clone()));
        assert_eq!(before, None, "lsn {lsn} was acknowledged twice");
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().acked.len()
    }

    /// Every acknowledged write is there, whole; every write that is there was asked for, whole.
    fn judge(&self, history: &History) {
        let ledger = self.0.lock().unwrap();
        for (lsn, wanted) in &ledger.acked {
            let at = history.at.get(lsn.get() as usize - 1);
            assert_eq!(at.map(whole), Some(Some(wanted.clone())), "lsn {lsn} was acknowledged");
        }
        for (i, at) in history.at.iter().enumerate() {
            let lsn = Lsn::new(i as u64 + 1);
            if at.event.is_none() && lsn.get() > 3 {
                let found = whole(at).expect("an lsn is an event or a write");
                assert!(ledger.submitted[&lsn].contains(&found), "nobody asked for what is at lsn {lsn}");
            }
        }
    }
}

/// The write at an LSN, put together from its rows.
fn whole(at: &common::At) -> Option<(u64, Bytes)> {
    let mut rows = at.rows.clone();
    rows.sort_by_key(|(row, _)| row.extent.start);
    let start = rows.first()?.0.extent.start;
    let mut data = Vec::new();
    for (row, bytes) in rows {
        assert_eq!(row.extent.start, start + data.len() as u64 / BLOCK as u64);
        match row.kind {
            RowKind::Data => data.extend_from_slice(&bytes),
            RowKind::Zero | RowKind::Unmap => data.resize(data.len() + row.extent.byte_len() as usize, 0),
        }
    }
    Some((start, data.into()))
}

/// A domain with one blank disk.
async fn domain_with_disk() -> Bucket {
    let bucket = domain().await;
    let writer = DomainWriter::open(bucket.appender(), options(), Env::system()).await.unwrap();
    let disk = NewDisk { vm: "vm".into(), name: "disk".into(), size_bytes: DISK_BLOCKS * BLOCK as u64 };
    assert_eq!(writer.disk_add(&disk, Content::Blank).await.unwrap(), DISK);
    writer.close().await.unwrap();
    bucket
}

/// Writes until the writer stops, with several writes waiting at any time; returns why it stopped.
async fn write_until_stopped(writer: &DomainWriter, ledger: &Ledger, dice: &SeededEntropy, pace: Duration) -> Error {
    let mut waiting = tokio::task::JoinSet::new();
    loop {
        let blocks = dice.number() % 8 + 1;
        let start = dice.number() % (DISK_BLOCKS - blocks);
        let mut data = vec![0; blocks as usize * BLOCK];
        dice.fill(&mut data[..BLOCK]);
        let data = Bytes::from(data);
        let ticket = match writer.submit_write(DISK, start * BLOCK as u64, data.clone()).await {
            Ok(ticket) => ticket,
            Err(stopped) => return stopped,
        };
        ledger.submitted(ticket.lsn(), start, &data);
        let ledger = ledger.clone();
        waiting.spawn(async move {
            if let Ok(done) = ticket.committed().await {
                ledger.acked(done.lsn, start, &data);
            }
        });
        tokio::time::sleep(pace).await;
        while waiting.try_join_next().is_some() {}
    }
}

//= SPEC.md#commit-rules
//# F-1, F-6
//= SPEC.md#order
//# O-4
#[test]
fn fault_racing_writers_leave_one_survivor_and_lose_nothing() {
    block_on(async {
        let bucket = domain_with_disk().await;
        let ledger = Ledger::default();
        let mut racers = tokio::task::JoinSet::new();
        for i in 0..4u64 {
            let faults = Faults::seeded(i).on("", None, Fault::Slow(Duration::from_millis(2)), 0.3).on(
                "",
                Op::Put,
                Fault::AppliedLost,
                0.1,
            );
            let (bucket, ledger) = (bucket.with_faults(faults), ledger.clone());
            racers.spawn(async move {
                tokio::time::sleep(Duration::from_millis(15 * i)).await;
                let writer = match DomainWriter::open(bucket.appender(), options(), Env::system()).await {
                    Ok(writer) => writer,
                    Err(e) => return e,
                };
                let dice = SeededEntropy::new(i);
                let writing = write_until_stopped(&writer, &ledger, &dice, Duration::from_micros(300));
                tokio::time::timeout(Duration::from_millis(250), writing).await.unwrap_or(Error::Closed)
            });
        }
        let ends = racers.join_all().await;
        let fenced = ends.iter().filter(|e| e.kind() == ErrorKind::Fenced).count();
        assert_eq!(fenced, 3, "{ends:?}");
        let cause = |e: &Error| matches!(e, Error::Fenced { cause: FenceCause::EpochCollision, .. });
        assert!(!ends.iter().any(cause), "claims must never collide: {ends:?}");
        assert!(ledger.count() > 0);
        ledger.judge(&History::read(&bucket.read_only()).await);
    });
}

//= SPEC.md#commit-rules
//# F-2, F-3, F-6
//= SPEC.md#store-assumptions
//# S-2
#[test]
fn fault_a_stalled_writer_that_wakes_after_a_takeover_acknowledges_nothing() {
    block_on(async {
        let bucket = domain_with_disk().await;
        let (ledger, dice) = (Ledger::default(), SeededEntropy::new(1));
        let stall = Faults::seeded(1);
        let old =
            DomainWriter::open(bucket.with_faults(stall.clone()).appender(), options(), Env::system()).await.unwrap();
        let data = Bytes::from(vec![1; BLOCK]);
        let first = old.write(DISK, 0, data.clone()).await.unwrap();
        ledger.submitted(first.lsn, 0, &data);
        ledger.acked(first.lsn, 0, &data);
        stall.vanish();
        let lost = old.submit_write(DISK, 0, Bytes::from(vec![2; BLOCK])).await.unwrap();
        let new = DomainWriter::open(bucket.appender(), options(), Env::system()).await.unwrap();
        let second = new.write(DISK, 0, Bytes::from(vec![3; BLOCK])).await.unwrap();
        assert_eq!(second.lsn, lost.lsn(), "the new writer goes on where acknowledgements ended");
        ledger.submitted(second.lsn, 0, &Bytes::from(vec![3; BLOCK]));
        stall.come_back();
        assert_eq!(lost.committed().await.unwrap_err().kind(), ErrorKind::Fenced);
        assert_eq!(write_until_stopped(&old, &ledger, &dice, Duration::ZERO).await.kind(), ErrorKind::Fenced);
        new.close().await.unwrap();
        ledger.judge(&History::read(&bucket.read_only()).await);
    });
}

//= SPEC.md#commit-rules
//# F-7
#[test]
fn fault_a_cloned_writer_stops_at_the_first_object_that_is_not_its_own() {
    block_on(async {
        let bucket = domain().await;
        let original = DomainWriter::open(bucket.appender(), options(), Env::system()).await.unwrap();
        let disk = NewDisk { vm: "vm".into(), name: "disk".into(), size_bytes: DISK_BLOCKS * BLOCK as u64 };
        // Its twin wrote the next segment under the same epoch.
        let twin = tidemark_format::ObjectKey::Log { epoch: original.epoch(), seq: Seq::new(1) };
        bucket.appender().put(&twin, vec![1; 600]).await.unwrap();
        let error = original.disk_add(&disk, Content::Blank).await.unwrap_err();
        assert!(matches!(error, Error::Fenced { cause: FenceCause::EpochCollision, .. }), "{error:?}");
    });
}

/// One life of a writer on a store with faults, ended without warning.
fn live(bucket: &Bucket, ledger: &Ledger, seed: u64) {
    let dice = Arc::new(SeededEntropy::new(seed));
    let faults = Faults::seeded(seed)
        .on("", None, Fault::Error, 0.05)
        .on("", Op::Put, Fault::AppliedLost, 0.1)
        .on("", Op::Get, Fault::Short, 0.02)
        .on("log/", None, Fault::Slow(Duration::from_millis(3)), 0.2);
    let bucket = bucket.with_faults(faults);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let life = Duration::from_micros(5_000 + dice.number() % 40_000);
    let ledger = ledger.clone();
    runtime.block_on(async move {
        let _ = tokio::time::timeout(life, async {
            let writer = loop {
                match DomainWriter::open(bucket.appender(), options(), Env::system()).await {
                    Ok(writer) => break writer,
                    Err(e) => assert_ne!(e.kind(), ErrorKind::FixRequest, "{e:?}"),
                }
            };
            write_until_stopped(&writer, &ledger, &dice, Duration::from_micros(200)).await
        })
        .await;
    });
    runtime.shutdown_background();
}

//= SPEC.md#commit-rules
//# F-5
//= SPEC.md#keys
//# K-1
//= SPEC.md#order
//# O-3
#[test]
fn fault_crashes_at_random_moments_lose_no_acknowledged_write() {
    let bucket = block_on(domain_with_disk());
    let ledger = Ledger::default();
    for seed in 0..40 {
        live(&bucket, &ledger, seed);
        if seed % 8 == 7 {
            ledger.judge(&block_on(History::read(&bucket.read_only())));
        }
    }
    assert!(ledger.count() > 100, "only {} writes were acknowledged", ledger.count());
}

#[test]
fn fault_acknowledged_writes_that_vanished_are_an_alarm_and_nothing_is_changed() {
    block_on(async {
        let bucket = domain_with_disk().await;
        let writer = DomainWriter::open(bucket.appender(), options(), Env::system()).await.unwrap();
        let epoch = writer.epoch();
        for _ in 0..4 {
            let _ticket = writer.submit_write(DISK, 0, Bytes::from(vec![1; BLOCK])).await.unwrap();
            writer.sync().await.unwrap();
        }
        writer.close().await.unwrap();
        let lost = tidemark_format::ObjectKey::Log { epoch, seq: Seq::new(2) };
        bucket.deleter().delete(&lost).await.unwrap();
        let error = DomainWriter::open(bucket.appender(), options(), Env::system()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss);
        assert!(matches!(error, Error::AckedLost { .. }), "{error:?}");
        let cut = tidemark_format::ObjectKey::cut(epoch.next());
        assert_eq!(bucket.read_only().get(&cut).await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

/// A segment that a clone put behind a collision: valid in itself, but it continues another segment than the log's last.
async fn leave_behind(bucket: &Bucket, epoch: Epoch, seq: u64, first_lsn: Lsn, acked_through: Lsn) {
    let domain = tidemark_writer::open_domain(&bucket.read_only()).await.unwrap().domain;
    let identity = SegmentIdentity { domain, kind: SegmentKind::Log, role: Role::Writer, epoch, seq: Seq::new(seq) };
    let head = seal_segment(&SegmentDraft {
        identity,
        first_lsn,
        last_lsn: first_lsn,
        acked_through,
        prev_header_hash: [9; 32],
        salt: [0; 32],
        tick_ns: 1,
        times: &[TimeStep { lsn: first_lsn, time: START }],
        rows: &[],
        events: &[Event { lsn: first_lsn, body: EventBody::Barrier }],
        frames: &[],
    })
    .unwrap();
    bucket.appender().put(&identity.key(), head.bytes).await.unwrap();
}

//= SPEC.md#commit-rules
//# F-2
#[test]
fn fault_what_a_clone_left_behind_its_collision_ends_the_log_unless_it_proves_acknowledged_writes() {
    block_on(async {
        for (behind, proves) in [(1, false), (2, false), (5, false), (1, true), (2, true), (16, true)] {
            let bucket = domain_with_disk().await;
            let writer = DomainWriter::open(bucket.appender(), options(), Env::system()).await.unwrap();
            let last = writer.write(DISK, 0, Bytes::from(vec![1; BLOCK])).await.unwrap().lsn;
            writer.close().await.unwrap();
            let acked = if proves { last.next() } else { last };
            leave_behind(&bucket, writer.epoch(), 1 + behind, acked.next(), acked).await;
            let next = DomainWriter::open(bucket.appender(), options(), Env::system()).await;
            if proves {
                assert!(matches!(next.unwrap_err(), Error::AckedLost { .. }), "{behind} behind the tail");
            } else {
                let next = next.unwrap();
                assert_eq!(next.last_lsn(), last);
                next.write(DISK, 0, Bytes::from(vec![2; BLOCK])).await.unwrap();
                next.close().await.unwrap();
                assert_eq!(History::read(&bucket.read_only()).await.last(), last.next());
            }
        }
    });
}

//= SPEC.md#order
//# O-3
#[test]
fn fault_a_damaged_segment_is_an_alarm_and_never_the_end_of_the_log() {
    block_on(async {
        let bucket = domain_with_disk().await;
        let flips = Faults::seeded(1).on("log/", Op::Get, Fault::BitFlip, 1.0);
        let error =
            DomainWriter::open(bucket.with_faults(flips).appender(), options(), Env::system()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
        // Read right, it goes on where the log ends.
        let writer = DomainWriter::open(bucket.appender(), options(), Env::system()).await.unwrap();
        assert_eq!(writer.last_lsn(), Lsn::new(3));
    });
}
