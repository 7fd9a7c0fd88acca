//! The store as its users see it, on real files.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use bytes::Bytes;
use std::path::PathBuf;
use tempfile::TempDir;
use tidemark_format::{BLOCK_BYTES, DiskId, DomainId, ErrorKind, EventBody, Extent, Level, Lsn, TimeNs};
use tidemark_log_store::*;

const EXTENT_BYTES: u64 = 64 << 10;

struct Lun {
    _dir: TempDir,
    path: PathBuf,
}

fn lun(extents: u64) -> Lun {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lun");
    let size_bytes = Some((1 << 20) + extents * EXTENT_BYTES);
    let options = FormatOptions { size_bytes, extent_bytes: EXTENT_BYTES, domains_max: 4, ..Default::default() };
    LogStore::format(&path, &options).unwrap();
    Lun { _dir: dir, path }
}

impl Lun {
    fn open(&self) -> LogStore {
        LogStore::open(&self.path, OpenOptions::default()).unwrap()
    }
}

fn domain(n: u8) -> DomainId {
    DomainId::new([n; 16])
}

fn write(lsn: u64, blocks: u64) -> Record {
    let data = vec![lsn as u8; (blocks * BLOCK_BYTES) as usize];
    let body = RecordBody::Write { disk: DiskId::new(1), extent: Extent::new(lsn, blocks), data: data.into() };
    Record { lsn: Lsn::new(lsn), time: TimeNs::new(lsn * 1000), body }
}

fn event(lsn: u64) -> Record {
    let body = EventBody::Bookmark { name: format!("at {lsn}"), level: Level::Crash };
    Record { lsn: Lsn::new(lsn), time: TimeNs::new(lsn * 1000), body: RecordBody::Event(body) }
}

const LIMITS: SpaceLimits = SpaceLimits { min_bytes: 0, max_bytes: 1 << 40 };

#[test]
fn what_was_acknowledged_is_read_back_after_a_restart() {
    let lun = lun(16);
    let disk = DiskId::new(2);
    let records = |first: u64| {
        let at = |lsn: u64, body| Record { lsn: Lsn::new(lsn), time: TimeNs::new(lsn * 1000), body };
        vec![
            write(first, 8),
            at(first + 1, RecordBody::Zero { disk, extent: Extent::new(0, 1 << 40) }),
            at(first + 2, RecordBody::Unmap { disk, extent: Extent::new(5, 1) }),
            event(first + 3),
        ]
    };
    let mut written = Vec::new();
    {
        let store = lun.open();
        let log = store.create_domain(domain(1), LIMITS, Lsn::new(101)).unwrap();
        for first in (101..181).step_by(4) {
            written.extend(records(first));
            assert_eq!(log.append(records(first)).unwrap().wait().unwrap(), Lsn::new(first + 3));
        }
        assert_eq!(log.read(Lsn::new(101), u64::MAX).unwrap(), written);
        log.put_meta("checkpoint", b"lsn 7").unwrap();
    }
    let store = lun.open();
    assert_eq!(store.domains(), [domain(1)]);
    let log = store.domain(domain(1)).unwrap();
    assert!(log.failed().is_none(), "{:?}", log.failed());
    assert_eq!((log.first_lsn(), log.last_lsn(), log.durable_through()), (Lsn::new(101), Lsn::new(180), Lsn::new(180)));
    assert_eq!(log.last_time(), TimeNs::new(180_000));
    assert_eq!(log.read(Lsn::new(101), u64::MAX).unwrap(), written);
    assert_eq!(log.read(Lsn::new(150), u64::MAX).unwrap(), written[49..]);
    assert_eq!(
        log.read(Lsn::new(150), 1).unwrap().len(),
        3,
        "zero, unmap and event have no data, the write behind has"
    );
    assert_eq!(log.meta("checkpoint").unwrap(), Some(Bytes::from_static(b"lsn 7")));
    assert_eq!(log.meta("other").unwrap(), None);
}

#[test]
fn a_trimmed_log_goes_on_for_many_times_its_room() {
    let lun = lun(8);
    let store = lun.open();
    let log = store.create_domain(domain(1), LIMITS, Lsn::new(1)).unwrap();
    let mut last = None;
    for lsn in 1..2000 {
        last = Some(log.append(vec![write(lsn, 9)]).unwrap());
        if lsn % 20 == 0 {
            last.take().unwrap().wait().unwrap();
            log.trim(Lsn::new(lsn - 5)).unwrap();
        }
    }
    last.unwrap().wait().unwrap();
    drop((log, store));
    let log = lun.open().domain(domain(1)).unwrap();
    assert_eq!((log.first_lsn(), log.last_lsn()), (Lsn::new(1976), Lsn::new(1999)));
    let wanted: Vec<_> = (1976..2000).map(|lsn| write(lsn, 9)).collect();
    assert_eq!(log.read(Lsn::new(1976), u64::MAX).unwrap(), wanted);
    let e = log.read(Lsn::new(1975), 1).unwrap_err();
    assert!(matches!(e, Error::Trimmed { .. }), "{e}");
}

#[test]
fn what_a_log_can_hold_does_not_jump_as_extents_come_free() {
    let lun = lun(16);
    let store = lun.open();
    let limits = SpaceLimits { min_bytes: 0, max_bytes: 4 * EXTENT_BYTES };
    let log = store.create_domain(domain(1), limits, Lsn::new(1)).unwrap();
    let empty = log.usage();
    // A batch takes a page besides its records; the last page of an extent may stay empty.
    let slack = 4 * 4096;
    let mut last = 0;
    while log.usage().used_bytes + slack < empty.steady_bytes {
        last += 1;
        log.append(vec![write(last, 8)]).unwrap().wait().unwrap();
    }
    for lsn in 1..last {
        let usage = log.usage();
        assert!(usage.steady_bytes.abs_diff(empty.steady_bytes) <= slack, "{empty:?} became {usage:?}");
        assert!(usage.used_bytes + usage.available_bytes + slack >= usage.steady_bytes, "it is there: {usage:?}");
        log.trim(Lsn::new(lsn)).unwrap();
    }
}

#[test]
fn a_full_log_refuses_data_before_it_is_queued_and_still_takes_events() {
    let lun = lun(16);
    let store = lun.open();
    let limits = SpaceLimits { min_bytes: 0, max_bytes: 4 * EXTENT_BYTES };
    let log = store.create_domain(domain(1), limits, Lsn::new(1)).unwrap();
    let mut lsn = 1;
    let full = loop {
        match log.append(vec![write(lsn, 8)]) {
            Ok(appended) => drop(appended.wait().unwrap()),
            Err(e) => break e,
        }
        lsn += 1;
    };
    assert!(matches!(full, Error::Full { cause: FullCause::DomainMax, .. }), "{full}");
    assert_eq!((full.kind(), log.last_lsn()), (ErrorKind::Retry, Lsn::new(lsn - 1)));
    assert!(log.usage().available_bytes < 2 * 4096, "{:?}", log.usage());
    assert!(lsn > 24, "{lsn} writes of two pages fill four extents of 16 pages");
    log.append(vec![event(lsn)]).unwrap().wait().unwrap();
    log.trim(Lsn::new(lsn - 2)).unwrap();
    log.append(vec![write(lsn + 1, 8)]).unwrap().wait().unwrap();
}
