//! Replaying what a replication log acknowledged earlier, with the positions and times that it has there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use bytes::Bytes;
use common::{History, block_on, domain, writer};
use tidemark_format::{DiskId, ErrorKind, EventBody, Extent, Lsn, TimeNs};
use tidemark_writer::{Body, Content, DiskTable, Error, SeedPiece, Submission};

const MS: u64 = 1_000_000;

/// What a replication log holds: a disk that is being seeded, and a write.
fn logged() -> Vec<(Lsn, TimeNs, Submission)> {
    let (disk, plan) = DiskTable::default().plan_add("vm", "a", 64, Content::Existing).unwrap();
    let write = Submission::Write { disk, extent: Extent::new(8, 1), body: Body::Data(Bytes::from_static(&[7; 512])) };
    let plan = plan.into_iter().chain([Submission::Event(EventBody::SeedStart { disk }), write]);
    plan.zip(1..).map(|(what, n)| (Lsn::new(n), TimeNs::new(1_700_000_000_000 * MS + n * MS), what)).collect()
}

#[test]
fn what_is_replayed_keeps_its_position_and_its_time_over_any_number_of_writers() {
    block_on(async {
        let bucket = domain().await;
        let log = logged();
        for (lsn, time, what) in log.clone() {
            // Each record by a writer of its own: it begins where the one before ended.
            let writer = writer(&bucket).await;
            assert_eq!(writer.last_lsn().next(), lsn);
            assert_eq!(writer.predecessor().is_none(), lsn == Lsn::new(1));
            let ticket = writer.replay(lsn, time, what).await.unwrap();
            assert_eq!((ticket.lsn(), ticket.time()), (lsn, time));
            writer.close().await.unwrap();
        }
        let history = History::read(&bucket.read_only()).await;
        assert_eq!(history.last(), Lsn::new(log.len() as u64));
        for (at, (_, time, _)) in history.at.iter().zip(&log) {
            assert_eq!(at.time, *time);
        }
    });
}

#[test]
fn what_does_not_continue_the_log_is_refused_and_changes_nothing() {
    block_on(async {
        let bucket = domain().await;
        let writer = writer(&bucket).await;
        let [first, second, _]: [_; 3] = logged().try_into().expect("three records");
        let early = writer.replay(second.0, second.1, second.2.clone()).await.unwrap_err();
        assert!(matches!(early, Error::NotNext { got, next } if got == second.0 && next == first.0), "{early}");
        let nonsense = writer.replay(first.0, first.1, second.2.clone()).await.unwrap_err();
        assert!(matches!(nonsense, Error::BadEvent { .. }), "no disk was added: {nonsense}");
        assert_eq!(nonsense.kind(), ErrorKind::FixRequest);
        let _ticket = writer.replay(first.0, first.1, first.2).await.unwrap();
        assert_eq!(writer.last_lsn(), first.0);
    });
}

#[test]
fn base_objects_count_once_the_replayed_log_names_them() {
    block_on(async {
        let bucket = domain().await;
        let writer = writer(&bucket).await;
        let disk = DiskId::new(1);
        let mut last = (Lsn::ZERO, TimeNs::default());
        for (lsn, time, what) in logged() {
            let _ticket = writer.replay(lsn, time, what).await.unwrap();
            last = (lsn, time);
        }
        let pieces = vec![
            SeedPiece::Data { offset: 0, data: vec![1; 4096].into() },
            SeedPiece::Zero { offset: 4096, len: 512 * 56 },
        ];
        let from = (Lsn::new(2), TimeNs::new(last.1.get() - MS));
        let stored = writer.put_base(disk, from.0, from.1, pieces).await.unwrap();
        assert_eq!(stored.extent, Extent::new(0, 64));
        let events = [
            EventBody::SeedExtent { disk, base: stored.base, extent: stored.extent },
            EventBody::SeedDone { disk },
            EventBody::ConsistentFrom { disk },
        ];
        for event in events {
            last.0 = last.0.next();
            let _ticket = writer.replay(last.0, last.1, Submission::Event(event)).await.unwrap();
        }
        writer.close().await.unwrap();
        let history = History::read(&bucket.read_only()).await;
        let rows = &history.at[1].rows;
        assert_eq!(rows.iter().map(|(row, _)| row.extent).collect::<Vec<_>>(), [Extent::new(0, 8), Extent::new(8, 56)]);
    });
}

#[test]
fn base_objects_with_holes_or_without_pieces_are_refused() {
    block_on(async {
        let bucket = domain().await;
        let writer = writer(&bucket).await;
        let zero = |offset, len| SeedPiece::Zero { offset, len };
        for pieces in [vec![], vec![zero(0, 512), zero(1024, 512)], vec![zero(0, 0)]] {
            let refused = writer.put_base(DiskId::new(1), Lsn::new(1), TimeNs::new(MS), pieces).await.unwrap_err();
            assert!(matches!(refused, Error::Seed { .. }), "{refused}");
        }
    });
}
