//! Several domains, each with its thread and callers of its own, over a disk that stops in the middle of a write.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemark_format::{BLOCK_BYTES, DiskId, DomainId, Extent, Lsn, TimeNs};
use tidemark_log_store::*;

const LIMITS: SpaceLimits = SpaceLimits { min_bytes: 0, max_bytes: 10 * (64 << 10) };

fn domain(n: u8) -> DomainId {
    DomainId::new([n; 16])
}

fn write(domain: u8, lsn: u64) -> Record {
    let blocks = 1 + lsn % 13;
    let data = vec![lsn as u8 ^ domain; (blocks * BLOCK_BYTES) as usize].into();
    let body = RecordBody::Write { disk: DiskId::new(1), extent: Extent::new(lsn, blocks), data };
    Record { lsn: Lsn::new(lsn), time: TimeNs::new(lsn), body }
}

/// Appends in pairs, up to eight of them under way, and trims behind, until the log errs. Returns what was acknowledged.
fn work(disk: &CrashDisk, log: &DomainLog, n: u8) -> u64 {
    let (mut acked, mut lsn) = (log.last_lsn().get(), log.last_lsn().get());
    let trimmed = AtomicU64::new(log.first_lsn().get() - 1);
    let durable = AtomicU64::new(acked);
    let over = AtomicU64::new(0);
    std::thread::scope(|scope| {
        // The shipper: reads what is durable, checks it, trims it.
        scope.spawn(|| {
            while over.load(Ordering::Relaxed) == 0 {
                let (first, last) = (trimmed.load(Ordering::Relaxed) + 1, durable.load(Ordering::Acquire));
                if last < first + 10 {
                    std::thread::yield_now();
                    continue;
                }
                let Ok(records) = log.read(Lsn::new(first), 10_000) else { continue };
                for (record, lsn) in records.iter().zip(first..) {
                    assert_eq!(*record, write(n, lsn));
                }
                let through = records.last().unwrap().lsn;
                if log.trim(through).is_ok() {
                    trimmed.store(through.get(), Ordering::Relaxed);
                }
            }
        });
        let mut waiting = std::collections::VecDeque::new();
        loop {
            if disk.is_stopped() {
                break;
            }
            match log.append(vec![write(n, lsn + 1), write(n, lsn + 2)]) {
                Ok(appended) => {
                    lsn += 2;
                    waiting.push_back(appended);
                }
                Err(Error::Full { .. }) if log.failed().is_none() && !waiting.is_empty() => {}
                Err(Error::Full { .. }) if log.failed().is_none() => std::thread::yield_now(),
                Err(_) => break,
            }
            if waiting.len() == 8 || lsn % 64 == 0 || log.usage().available_bytes < 20_000 {
                let Some(appended) = waiting.pop_front() else { continue };
                match appended.wait() {
                    Ok(last) => acked = last.get(),
                    Err(_) => break,
                }
                durable.store(acked, Ordering::Release);
            }
        }
        // What was acknowledged before the disk stopped counts, whoever asks for it later.
        for appended in waiting {
            if let Ok(last) = appended.wait() {
                acked = acked.max(last.get());
            }
        }
        over.store(1, Ordering::Relaxed);
    });
    acked
}

#[test]
fn fault_domains_with_threads_lose_nothing_when_the_disk_stops() {
    let mut ever = [0; 3];
    for seed in 0..12 {
        let disk = Arc::new(CrashDisk::new(4 << 20, seed));
        let options = FormatOptions { extent_bytes: 64 << 10, domains_max: 3, ..Default::default() };
        LogStore::format_on(&*disk, "disk", &options).unwrap();
        let mut acked = [0; 3];
        for round in 0..3 {
            let store = LogStore::open_on(disk.clone(), OpenOptions::default()).unwrap();
            let logs = [1, 2, 3].map(|n| {
                let create = || store.create_domain(domain(n), LIMITS, Lsn::new(1)).unwrap();
                store.domain(domain(n)).unwrap_or_else(create)
            });
            for (log, acked) in logs.iter().zip(acked) {
                assert!(log.failed().is_none(), "seed {seed} round {round}: {:?}", log.failed());
                assert!(log.last_lsn().get() >= acked, "seed {seed} round {round}: ends at {}", log.last_lsn());
                assert_eq!(log.last_lsn().get() % 2, 0, "seed {seed} round {round}: half of a pair");
            }
            disk.inject(20 + 40 * round + 7 * seed, Fault::Crash);
            std::thread::scope(|scope| {
                let disk = &*disk;
                let workers: Vec<_> =
                    logs.iter().zip(1..).map(|(log, n)| scope.spawn(move || work(disk, log, n))).collect();
                // A thread that came late got nothing in: what it had before still counts.
                for (acked, worker) in acked.iter_mut().zip(workers) {
                    *acked = worker.join().unwrap().max(*acked);
                }
            });
            drop((logs, store));
            if seed % 2 == 0 { disk.lose_power() } else { disk.restart() }
        }
        assert_eq!(disk.unsynced_overwritten(), 0);
        ever.iter_mut().zip(acked).for_each(|(ever, acked)| *ever += acked);
    }
    assert!(ever.iter().all(|acked| *acked > 0), "nothing was ever acknowledged to some domain: {ever:?}");
}
