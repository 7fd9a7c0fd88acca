//! Damage at rest: what rots, and what must be said about it.

use crate::buffer::AlignedBuffer;
use crate::rules::{Rule, without};
use crate::shell::commit::Step;
use crate::shell::store::Threads;
use crate::{
    CrashDisk, DomainLog, Error, Existing, Fault, FormatOptions, FullCause, LogStore, OpenOptions, Record, RecordBody,
    SpaceLimits,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tidemark_env::{Env, ManualClock};
use tidemark_format::logstore::{Geometry, LABEL_COPY_AT, LunExtent, PAGE_BYTES};
use tidemark_format::{BLOCK_BYTES, DiskId, DomainId, ErrorKind, EventBody, Extent, Lsn, TimeNs};

const EXTENT_BYTES: u64 = 64 << 10;
const LUN_BYTES: u64 = 2 << 20;
const LIMITS: SpaceLimits = SpaceLimits { min_bytes: 0, max_bytes: 1 << 30 };

fn env() -> Env {
    Env::seeded(7, Arc::new(ManualClock::new(TimeNs::new(0))))
}

fn disk() -> Arc<CrashDisk> {
    let disk = Arc::new(CrashDisk::new(LUN_BYTES, 1));
    let options = FormatOptions { extent_bytes: EXTENT_BYTES, domains_max: 2, env: env(), ..Default::default() };
    LogStore::format_on(&*disk, "disk", &options).unwrap();
    disk
}

fn geometry() -> Geometry {
    Geometry::largest(LUN_BYTES, EXTENT_BYTES, 2).unwrap()
}

fn open(disk: &Arc<CrashDisk>) -> Result<LogStore, Error> {
    LogStore::open_with(disk.clone(), OpenOptions { cache_bytes_max: 0, ..Default::default() }, Threads::None)
}

fn domain(n: u8) -> DomainId {
    DomainId::new([n; 16])
}

fn write(lsn: u64) -> Record {
    let (disk, extent) = (DiskId::new(1), Extent::new(lsn, 8));
    let data = vec![lsn as u8; 8 * BLOCK_BYTES as usize].into();
    Record { lsn: Lsn::new(lsn), time: TimeNs::new(lsn), body: RecordBody::Write { disk, extent, data } }
}

fn flush(lsn: u64) -> Record {
    let body = RecordBody::Event(EventBody::Flush { disk: DiskId::new(1) });
    Record { lsn: Lsn::new(lsn), time: TimeNs::new(lsn), body }
}

/// Appends a record in a batch of its own.
fn put(log: &DomainLog, record: Record) -> Result<Lsn, Error> {
    let appended = log.append(vec![record])?;
    let mut buffer = AlignedBuffer::default();
    while log.domain.step(&mut buffer) == Step::Worked {}
    appended.wait()
}

/// Two domains with `count` batches of two pages each, and a process that was killed.
fn two_logs(count: u64) -> Arc<CrashDisk> {
    let disk = disk();
    let store = open(&disk).unwrap();
    for n in [2, 1] {
        let log = store.create_domain(domain(n), LIMITS, Lsn::new(1)).unwrap();
        for lsn in 1..=count {
            put(&log, write(lsn)).unwrap();
        }
    }
    disk.stop();
    drop(store);
    disk.restart();
    disk
}

/// Where batch `lsn` of domain 1 lies: the other domain has extents 0 to 2, its own values 3, its log those from 4 on.
fn batch_at(lsn: u64) -> u64 {
    let pages = (lsn - 1) as u32 * 2;
    geometry().page_at(LunExtent::new(4 + pages / 16), pages % 16)
}

fn flip(disk: &CrashDisk, at: u64) {
    disk.damage(at, |bytes| bytes[0] ^= 1);
}

//= LOGSTORE.md#recovery
//# LX-2, LX-5
#[test]
fn a_bad_batch_in_front_of_a_good_one_is_an_alarm_that_names_the_place() {
    // In the header, in a descriptor, in data; in the middle of an extent, at its end, at its beginning.
    for at in [batch_at(3), batch_at(3) + 130, batch_at(3) + 4200, batch_at(8) + 64, batch_at(9) + 300] {
        let disk = two_logs(10);
        flip(&disk, at);
        let lsn = Lsn::new(if at < batch_at(8) {
            3
        } else if at < batch_at(9) {
            8
        } else {
            9
        });
        let store = open(&disk).unwrap();
        let log = store.domain(domain(1)).unwrap();
        let Some(e @ Error::Damaged { lsn: found, .. }) = log.failed() else { panic!("{at}: {:?}", log.failed()) };
        assert_eq!((found, e.kind()), (lsn, ErrorKind::DataLoss), "{e}");
        // Nothing behind the damage is shown or taken, and nothing in front of it is lost.
        assert_eq!(log.durable_through().next(), lsn);
        let records = log.read(Lsn::new(1), u64::MAX).unwrap();
        assert_eq!(records, (1..lsn.get()).map(write).collect::<Vec<_>>());
        assert!(matches!(log.read(lsn, 1), Err(Error::Damaged { .. })));
        assert!(matches!(put(&log, write(lsn.get())), Err(Error::Damaged { .. })));
        // The other domain goes on.
        let other = store.domain(domain(2)).unwrap();
        assert!(other.failed().is_none());
        put(&other, write(11)).unwrap();
        // The log can be begun anew, and then is whole.
        log.reset(Lsn::new(100)).unwrap();
        put(&log, write(100)).unwrap();
        drop((store, log, other));
        let store = open(&disk).unwrap();
        let log = store.domain(domain(1)).unwrap();
        assert!(log.failed().is_none());
        assert_eq!(log.read(Lsn::new(100), 1).unwrap(), [write(100)]);
    }
    let disk = two_logs(10);
    flip(&disk, batch_at(9));
    let log = without(Rule::NoEndBeforeLater, || open(&disk).unwrap().domain(domain(1)).unwrap());
    assert!(log.failed().is_none() && log.last_lsn() == Lsn::new(8), "the rule would make no difference");
}

//= LOGSTORE.md#recovery
//# LX-3
//= LOGSTORE.md#table
//# LT-7
#[test]
fn a_bad_batch_that_was_noted_as_durable_is_an_alarm_also_at_the_end() {
    let noted = || {
        let disk = two_logs(10);
        // Opening notes how far the logs were whole.
        drop(open(&disk).unwrap());
        flip(&disk, batch_at(10) + 4096);
        disk
    };
    let log = open(&noted()).unwrap().domain(domain(1)).unwrap();
    let Some(e @ Error::Damaged { lsn, .. }) = log.failed() else { panic!("{:?}", log.failed()) };
    assert_eq!((lsn, log.durable_through()), (Lsn::new(10), Lsn::new(9)), "{e}");
    let log = without(Rule::NoEndBeforeWatermark, || open(&noted()).unwrap().domain(domain(1)).unwrap());
    assert!(log.failed().is_none(), "the rule would make no difference");
}

//= LOGSTORE.md#recovery
//# LX-1
#[test]
fn a_batch_of_an_earlier_lap_is_not_taken_for_a_new_one() {
    let disk = disk();
    let store = open(&disk).unwrap();
    let log = store.create_domain(domain(1), LIMITS, Lsn::new(1)).unwrap();
    // Time stands still, so that nothing but the chain tells the laps apart.
    let write = |lsn| Record { time: TimeNs::new(1), ..write(lsn) };
    for lsn in 1..=16 {
        put(&log, write(lsn)).unwrap();
    }
    // Frees the first extent, into which the log goes on: batches 4 to 8 are still in it, behind batch 19.
    log.trim(Lsn::new(16)).unwrap();
    for lsn in 17..=19 {
        put(&log, write(lsn)).unwrap();
    }
    assert!(disk.image().windows(8).filter(|bytes| *bytes == b"\x89TLB\r\n\x1a\n").count() == 16);
    disk.stop();
    drop((store, log));
    disk.restart();
    let last = || open(&disk).unwrap().domain(domain(1)).unwrap().last_lsn();
    assert_eq!(last(), Lsn::new(19));
    let taken = without(Rule::ChainContinues, || catch_unwind(AssertUnwindSafe(last)));
    assert!(!taken.is_ok_and(|last| last == Lsn::new(19)), "the rule would make no difference");
}

#[test]
fn a_torn_last_batch_that_nobody_was_told_of_is_no_damage() {
    let disk = two_logs(10);
    flip(&disk, batch_at(10) + 4096);
    let store = open(&disk).unwrap();
    let log = store.domain(domain(1)).unwrap();
    assert!(log.failed().is_none());
    assert_eq!(log.last_lsn(), Lsn::new(9));
    put(&log, write(10)).unwrap();
    assert_eq!(log.read(Lsn::new(10), 1).unwrap(), [write(10)]);
}

#[test]
fn damage_found_while_reading_is_an_error_and_what_is_in_front_of_it_is_read() {
    let disk = two_logs(10);
    let store = open(&disk).unwrap();
    let log = store.domain(domain(1)).unwrap();
    flip(&disk, batch_at(5) + 4096);
    assert_eq!(log.read(Lsn::new(3), u64::MAX).unwrap(), [write(3), write(4)]);
    let e = log.read(Lsn::new(5), 1).unwrap_err();
    let Error::Damaged { lsn, extent, page, .. } = e else { panic!("{e}") };
    assert_eq!((lsn, extent, page), (Lsn::new(5), Some(LunExtent::new(4)), 8));
}

//= LOGSTORE.md#label
//# LL-1, LL-4
#[test]
fn one_damaged_copy_of_the_label_is_written_again_and_two_are_an_error() {
    for at in [0, LABEL_COPY_AT] {
        let disk = two_logs(2);
        flip(&disk, at + 40);
        assert_eq!(open(&disk).unwrap().domains().len(), 2);
        flip(&disk, (LABEL_COPY_AT - at) + 40);
        assert_eq!(open(&disk).unwrap().domains().len(), 2, "the copy at {at} was not written again");
    }
    let disk = two_logs(2);
    flip(&disk, 40);
    flip(&disk, LABEL_COPY_AT + 40);
    let e = open(&disk).err().unwrap();
    assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::DataLoss, "cannot read the label of the log store"));
}

//= LOGSTORE.md#table
//# LT-9
#[test]
fn after_a_failed_table_no_value_is_written_over_one_that_it_names() {
    let run = || {
        let disk = disk();
        let store = open(&disk).unwrap();
        let log = store.create_domain(domain(1), LIMITS, Lsn::new(1)).unwrap();
        log.put_meta("a", b"old").unwrap();
        // The value, the first copy of the table, and the second one, which fails: the first one names the new value.
        disk.inject(3, Fault::Fail);
        log.put_meta("a", b"new").unwrap_err();
        log.put_meta("b", b"other").unwrap_err();
        drop((store, log));
        disk.lose_power();
        open(&disk).unwrap().domain(domain(1)).unwrap().meta("a")
    };
    assert_eq!(run().unwrap().unwrap(), "new");
    let e = without(Rule::NoValueAfterTableFailure, run).unwrap_err();
    assert!(matches!(e, Error::MetaDamaged { .. }), "the rule would make no difference: {e}");
}

//= LOGSTORE.md#space
//# LS-4
#[test]
fn extents_of_a_log_whose_write_failed_are_not_given_away_before_a_restart() {
    let overwritten = || {
        let mut sum = 0;
        for seed in 0..16 {
            let disk = Arc::new(CrashDisk::new(LUN_BYTES, seed));
            let options =
                FormatOptions { extent_bytes: EXTENT_BYTES, domains_max: 2, env: env(), ..Default::default() };
            LogStore::format_on(&*disk, "disk", &options).unwrap();
            let store = open(&disk).unwrap();
            let log = store.create_domain(domain(1), LIMITS, Lsn::new(1)).unwrap();
            put(&log, write(1)).unwrap();
            disk.inject(1, Fault::Fail);
            put(&log, write(2)).unwrap_err();
            store.remove_domain(domain(1)).unwrap();
            let log = store.create_domain(domain(2), LIMITS, Lsn::new(1)).unwrap();
            for lsn in 1..=16 {
                put(&log, write(lsn)).unwrap();
            }
            sum += disk.unsynced_overwritten();
        }
        sum
    };
    assert_eq!(overwritten(), 0);
    assert!(without(Rule::KeptAfterFailure, overwritten) > 0, "the rule would make no difference");
}

//= LOGSTORE.md#label
//# LL-3
#[test]
fn a_device_that_loses_power_while_it_is_formatted_is_the_old_store_or_a_new_one_or_none() {
    let options =
        FormatOptions { extent_bytes: EXTENT_BYTES, domains_max: 2, existing: Existing::Discard, ..Default::default() };
    let mut seen = [0; 3];
    for seed in 0..40 {
        for write in 1..=6 {
            let disk = Arc::new(CrashDisk::new(LUN_BYTES, seed));
            LogStore::format_on(&*disk, "disk", &options).unwrap();
            open(&disk).unwrap().create_domain(domain(1), LIMITS, Lsn::new(1)).unwrap();
            disk.inject(write, Fault::Crash);
            LogStore::format_on(&*disk, "disk", &options).unwrap_err();
            disk.lose_power();
            seen[match open(&disk) {
                Ok(store) => store.domains().len(),
                Err(e) => {
                    assert!(matches!(e, Error::Format { what: "label", .. }), "seed {seed} write {write}: {e}");
                    2
                }
            }] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    let disk = disk();
    let refused = LogStore::format_on(&*disk, "disk", &FormatOptions { existing: Existing::Refuse, ..options });
    assert!(matches!(refused, Err(Error::Formatted { .. })));
}

//= LOGSTORE.md#table
//# LT-1, LT-8
#[test]
fn one_damaged_copy_of_the_table_is_written_again_and_two_are_an_error() {
    let [first, second] = geometry().tables_at();
    for (bad, other) in [(first, second), (second, first)] {
        let disk = two_logs(2);
        flip(&disk, bad + 100);
        assert_eq!(open(&disk).unwrap().domains().len(), 2);
        flip(&disk, other + 100);
        let store = open(&disk).unwrap();
        assert_eq!(store.domain(domain(1)).unwrap().last_lsn(), Lsn::new(2), "the copy at {bad} was not written again");
    }
    let disk = two_logs(2);
    flip(&disk, first + 100);
    flip(&disk, second + 100);
    assert_eq!(open(&disk).err().unwrap().kind(), ErrorKind::DataLoss);
}

//= LOGSTORE.md#space
//# LS-3
#[test]
fn events_still_fit_where_data_does_not() {
    // Data of one page and a bit, until it is refused: then as many events as the headroom promises.
    let fill = || {
        let disk = disk();
        let store = open(&disk).unwrap();
        let limits = SpaceLimits { min_bytes: 0, max_bytes: 2 * EXTENT_BYTES };
        let log = store.create_domain(domain(1), limits, Lsn::new(1)).unwrap();
        let mut lsn = 1;
        let e = loop {
            match put(&log, write(lsn)) {
                Ok(_) => lsn += 1,
                Err(e) => break e,
            }
        };
        assert!(matches!(e, Error::Full { cause: FullCause::DomainMax, .. }), "{e}");
        assert_eq!(log.last_lsn().next(), Lsn::new(lsn), "nothing was queued");
        put(&log, flush(lsn)).is_ok()
    };
    assert!(fill());
    assert!(!without(Rule::RoomForEvents, fill), "the rule would make no difference");
}

#[test]
fn a_full_lun_leaves_each_domain_what_it_was_promised() {
    let disk = disk();
    let store = open(&disk).unwrap();
    let greedy = store.create_domain(domain(1), LIMITS, Lsn::new(1)).unwrap();
    let promised = SpaceLimits { min_bytes: 4 * EXTENT_BYTES, max_bytes: 8 * EXTENT_BYTES };
    let modest = store.create_domain(domain(2), promised, Lsn::new(1)).unwrap();
    let fill = |log: &DomainLog| (1..).find_map(|lsn| put(log, write(lsn)).err()).unwrap();
    let e = fill(&greedy);
    assert!(matches!(e, Error::Full { cause: FullCause::Lun, .. }), "{e}");
    let space = store.space();
    assert_eq!(space.free_bytes, space.promised_bytes);
    fill(&modest);
    assert_eq!(modest.usage().allocated_bytes, 4 * EXTENT_BYTES);
    // What the greedy one gives back, the modest one can have.
    greedy.trim(Lsn::new(30)).unwrap();
    put(&modest, write(modest.last_lsn().next().get())).unwrap();
}

#[test]
fn values_are_limited_and_pages_reused() {
    let disk = disk();
    let store = open(&disk).unwrap();
    let log = store.create_domain(domain(1), LIMITS, Lsn::new(1)).unwrap();
    let max = u64::from(geometry().meta_pages_max()) * PAGE_BYTES;
    let big = vec![1; max as usize];
    assert!(matches!(log.put_meta("big", &[&big[..], &[0]].concat()), Err(Error::Limit { .. })));
    for n in 0..5 {
        log.put_meta("big", &[n; 32 << 10][..max as usize]).unwrap();
    }
    assert!(matches!(log.put_meta("small", b"x"), Err(Error::Limit { .. })));
    log.put_meta("empty", b"").unwrap();
    assert!(matches!(log.put_meta("", b"x"), Err(Error::BelowLimit { .. })));
    assert!(matches!(log.put_meta(&"n".repeat(65), b"x"), Err(Error::Limit { .. })));
    assert_eq!(log.meta_names().unwrap(), ["big", "empty"]);
    log.remove_meta("big").unwrap();
    log.put_meta("small", b"x").unwrap();
    assert_eq!((log.meta("small").unwrap().unwrap(), log.meta("empty").unwrap().unwrap()), ("x".into(), "".into()));
    flip(&disk, geometry().page_at(LunExtent::new(0), 0));
    let e = log.meta("small").unwrap_err();
    assert!(matches!(e, Error::MetaDamaged { .. }), "{e}");
}
