//! Drives the real store over a disk that crashes, one write at a time, from one seed.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::buffer::AlignedBuffer;
use crate::shell::commit::Step;
use crate::shell::store::Threads;
use crate::{CrashDisk, DomainLog, Fault, FormatOptions, LogStore, OpenOptions, Record, RecordBody, SpaceLimits};
use std::sync::Arc;
use tidemark_format::{BLOCK_BYTES, DiskId, DomainId, Extent, Lsn, TimeNs};

fn open(disk: &Arc<CrashDisk>) -> LogStore {
    LogStore::open_with(disk.clone(), OpenOptions::default(), Threads::None).unwrap()
}

fn drain(log: &DomainLog) {
    let mut buffer = AlignedBuffer::default();
    while log.domain.step(&mut buffer) == Step::Worked {}
}

#[test]
fn sim_a_batch_that_is_torn_never_half_appears() {
    for seed in 0..50 {
        let disk = Arc::new(CrashDisk::new(2 << 20, seed));
        let options = FormatOptions { extent_bytes: 64 << 10, domains_max: 2, ..Default::default() };
        LogStore::format_on(&*disk, "disk", &options).unwrap();
        let domain = DomainId::new([1; 16]);
        let limits = SpaceLimits { min_bytes: 0, max_bytes: 1 << 30 };
        let store = open(&disk);
        let log = store.create_domain(domain, limits, Lsn::new(1)).unwrap();
        let record = |lsn: u64| {
            let (disk, extent) = (DiskId::new(1), Extent::new(lsn, 8));
            let data = vec![lsn as u8; 8 * BLOCK_BYTES as usize].into();
            Record { lsn: Lsn::new(lsn), time: TimeNs::new(lsn), body: RecordBody::Write { disk, extent, data } }
        };
        let first = log.append(vec![record(1)]).unwrap();
        drain(&log);
        first.wait().unwrap();
        disk.inject(1, Fault::Crash);
        let second = log.append(vec![record(2), record(3)]).unwrap();
        drain(&log);
        second.wait().unwrap_err();
        drop((log, store));
        disk.lose_power();
        let log = open(&disk).domain(domain).unwrap();
        assert!(log.failed().is_none(), "seed {seed}: {:?}", log.failed());
        let last = log.last_lsn().get();
        assert!(last == 1 || last == 3, "seed {seed}: the log ends at {last}");
        let wanted: Vec<_> = (1..=last).map(record).collect();
        assert_eq!(log.read(Lsn::new(1), u64::MAX).unwrap(), wanted);
    }
}
