//! Recovery disks on real files, with threads: races of the guest with itself and with the hydrator.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up must fail it")]

mod support;

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{Dice, Toy};
use tidemark_env::Env;
use tidemark_overlay::{Error, HydrateOptions, Hydrator, Overlay, Rate, State, UNIT_BYTES};

const SIZE: u64 = 8 << 20;

fn open(dir: &std::path::Path, toy: &Arc<Toy>) -> tidemark_overlay::Result<Arc<Overlay>> {
    Overlay::open_at(dir, "disk", toy.clone(), &Env::system())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_readers_and_a_hydrator_at_once_lose_nothing() {
    const WRITERS: u64 = 4;
    let dir = tempfile::tempdir().unwrap();
    let toy = Arc::new(Toy { streams: true, ..Toy::new(SIZE, 5) });
    let overlay = open(dir.path(), &toy).unwrap();
    // Each writer has every fourth sector to itself, so writers share units.
    let writers = (0..WRITERS).map(|writer| {
        let (overlay, toy) = (overlay.clone(), toy.clone());
        tokio::spawn(async move {
            let mut dice = Dice(writer);
            let mut mine = std::collections::BTreeMap::new();
            for n in 0..3000u64 {
                let sector = dice.below(SIZE / 512 / WRITERS) * WRITERS + writer;
                let content = [(n % 251) as u8 + 1; 512];
                match dice.below(8) {
                    0 => {
                        overlay.discard(sector * 512..(sector + 1) * 512).await.unwrap();
                        mine.insert(sector, [0; 512]);
                    }
                    1 => overlay.flush().await.unwrap(),
                    _ => {
                        if !overlay.write_now(sector * 512, &content).unwrap() {
                            overlay.write(sector * 512, Bytes::copy_from_slice(&content)).await.unwrap();
                        }
                        mine.insert(sector, content);
                    }
                }
                let back = overlay.read(sector * 512, 512).await.unwrap();
                let wanted = mine.get(&sector).copied().unwrap_or_else(|| toy.sector(sector));
                assert!(back[..] == wanted, "writer {writer}, sector {sector}");
            }
            mine
        })
    });
    let writers: Vec<_> = writers.collect();
    let hydrator = Hydrator::new(overlay.clone(), HydrateOptions::default(), Env::system());
    let hydrated = hydrator.run().await.unwrap();
    assert_eq!(hydrated.unfilled, []);
    let mut wanted = toy.bytes(0..SIZE);
    for writer in writers {
        for (sector, content) in writer.await.unwrap() {
            wanted[sector as usize * 512..][..512].copy_from_slice(&content);
        }
    }
    assert!(overlay.read(0, SIZE as usize).await.unwrap() == wanted);
    assert!(overlay.finished().is_some());
    overlay.close().unwrap();
    assert!(std::fs::read(dir.path().join("disk.raw")).unwrap() == wanted, "the local file is a raw image");
    drop((overlay, hydrator));
    assert!(open(dir.path(), &toy).unwrap().finished().is_some(), "and stays one");
}

#[tokio::test]
async fn a_unit_written_while_its_rest_was_fetched_keeps_both() {
    let dir = tempfile::tempdir().unwrap();
    let toy = Arc::new(Toy::new(SIZE, 9));
    toy.gated.store(true, Ordering::SeqCst);
    let overlay = open(dir.path(), &toy).unwrap();
    assert!(!overlay.write_now(512, &[1; 512]).unwrap(), "the rest of the unit is with the source");
    let slow = tokio::spawn({
        let overlay = overlay.clone();
        async move { overlay.write(512, Bytes::from_static(&[1; 512])).await }
    });
    while toy.reads.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(overlay.write_now(0, &[2; 4096]).unwrap(), "a whole unit waits for nobody");
    toy.gate.add_permits(1);
    slow.await.unwrap().unwrap();
    let mut wanted = vec![2; 4096];
    wanted[512..1024].fill(1);
    assert!(overlay.read(0, 4096).await.unwrap() == wanted);
}

#[tokio::test]
async fn whole_units_never_need_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let toy = Arc::new(Toy::new(SIZE + 512, 9));
    toy.away.store(u64::MAX, Ordering::SeqCst);
    let overlay = open(dir.path(), &toy).unwrap();
    assert!(overlay.write_now(4096, &[1; 8192]).unwrap());
    assert!(overlay.write_now(SIZE, &[3; 512]).unwrap(), "the last unit is short");
    overlay.discard(UNIT_BYTES * 8..UNIT_BYTES * 512).await.unwrap();
    assert_eq!(toy.reads.load(Ordering::SeqCst), 0);
    assert!(overlay.write(0, Bytes::from_static(&[1; 512])).await.is_err());
    let written: u64 = overlay.extents(State::Dirty).map(|range| range.end - range.start).sum();
    assert_eq!(written, 8192 + 512 + 504 * UNIT_BYTES);
}

#[tokio::test]
async fn beyond_the_end_nothing_is_written_and_reads_are_short() {
    let dir = tempfile::tempdir().unwrap();
    let toy = Arc::new(Toy::new(SIZE, 9));
    let overlay = open(dir.path(), &toy).unwrap();
    assert!(matches!(overlay.write_now(SIZE - 512, &[1; 1024]), Err(Error::OutOfDisk { .. })));
    assert!(matches!(overlay.write_now(u64::MAX, &[1; 1024]), Err(Error::OutOfDisk { .. })));
    assert!(matches!(overlay.discard(SIZE..SIZE + 1).await, Err(Error::OutOfDisk { .. })));
    assert_eq!(overlay.read(SIZE - 100, 4096).await.unwrap().len(), 100);
    assert_eq!(overlay.read(u64::MAX, 4096).await.unwrap().len(), 0);
    assert_eq!((overlay.next_data(SIZE).await.unwrap(), overlay.next_hole(SIZE).await.unwrap()), (None, None));
}

#[tokio::test]
async fn holes_are_those_of_the_point_and_those_that_were_made() {
    let dir = tempfile::tempdir().unwrap();
    let toy = Arc::new(Toy::new(SIZE, 9));
    let overlay = open(dir.path(), &toy).unwrap();
    overlay.discard(1 << 20..2 << 20).await.unwrap();
    assert!(overlay.write_now(3 << 20, &vec![1; 1 << 20]).unwrap());
    assert_eq!(overlay.next_hole(3 << 20).await.unwrap().map(|at| at >= 4 << 20), Some(true));
    assert_eq!(overlay.next_hole(1 << 20).await.unwrap(), Some(1 << 20));
    assert!(overlay.next_data(1 << 20).await.unwrap().unwrap() >= 2 << 20);
    // Whoever skips holes meets all data.
    let all = overlay.read(0, SIZE as usize).await.unwrap();
    let mut at = 0;
    while let Some(data) = overlay.next_data(at).await.unwrap() {
        assert!(all[at as usize..data as usize].iter().all(|byte| *byte == 0), "{at}..{data}");
        at = overlay.next_hole(data).await.unwrap().unwrap();
        assert!(at > data);
    }
    assert!(all[at as usize..].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn one_process_at_a_time_and_no_file_that_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    let toy = Arc::new(Toy::new(SIZE, 9));
    let overlay = open(dir.path(), &toy).unwrap();
    assert!(matches!(open(dir.path(), &toy), Err(Error::InUse { .. })));
    drop(overlay);
    assert!(open(dir.path(), &toy).is_ok());
    std::fs::write(dir.path().join("other.raw"), vec![1; SIZE as usize]).unwrap();
    let refused = Overlay::open_at(dir.path(), "other", toy.clone(), &Env::system());
    assert!(matches!(refused, Err(Error::Foreign { .. })));
    assert!(std::fs::read(dir.path().join("other.raw")).unwrap() == vec![1; SIZE as usize]);
    let larger = Arc::new(Toy::new(SIZE * 2, 9));
    assert!(matches!(open(dir.path(), &larger), Err(Error::Foreign { .. })));
}

#[tokio::test]
async fn hydration_skips_what_nobody_knows_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut toy = Toy { streams: true, ..Toy::new(SIZE, 9) };
    toy.unknown = vec![3, 700, 701];
    let toy = Arc::new(toy);
    let overlay = open(dir.path(), &toy).unwrap();
    let options = HydrateOptions { retry_pause: Duration::ZERO, ..HydrateOptions::default() };
    toy.away.store(5, Ordering::SeqCst);
    let hydrated = Hydrator::new(overlay.clone(), options.clone(), Env::system()).run().await.unwrap();
    assert_eq!((hydrated.finished, hydrated.unfilled_bytes), (None, 3 * UNIT_BYTES));
    let ranges: Vec<_> = hydrated.unfilled.iter().map(|unfilled| unfilled.range.clone()).collect();
    assert_eq!(ranges, [3 * UNIT_BYTES..4 * UNIT_BYTES, 700 * UNIT_BYTES..702 * UNIT_BYTES]);
    assert_eq!(overlay.extents(State::Absent).collect::<Vec<_>>(), ranges);
    // A guest that writes there makes the disk whole.
    for range in ranges {
        assert!(overlay.write_now(range.start, &vec![1; (range.end - range.start) as usize]).unwrap());
    }
    let hydrated = Hydrator::new(overlay, options, Env::system()).run().await.unwrap();
    assert_eq!(hydrated.finished.unwrap().dirty_bytes, 3 * UNIT_BYTES);
}

#[tokio::test]
async fn what_a_boot_reads_comes_first_and_what_was_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let toy = Arc::new(Toy::new(SIZE, 9));
    let overlay = open(dir.path(), &toy).unwrap();
    overlay.record_access();
    overlay.read(5 << 20, 4096).await.unwrap();
    assert!(overlay.read_now(1 << 20, 4096, &mut |_| {}));
    let log = overlay.take_access();
    overlay.read(0, 4096).await.unwrap();
    assert_eq!(log.ranges(), [5 << 20..(5 << 20) + (64 << 10), 1 << 20..(1 << 20) + (64 << 10)]);
    drop(overlay);

    let other = tempfile::tempdir().unwrap();
    let overlay = open(other.path(), &toy).unwrap();
    let first = log.ranges().to_vec();
    // So slow that the rest would take a month: what comes first is there long before.
    let rate = Some(Rate::bytes_per_second(1));
    let options = HydrateOptions { first: first.clone(), rate, ..HydrateOptions::default() };
    let hydrator = Hydrator::new(overlay.clone(), options, Env::system());
    let mut progress = hydrator.progress();
    let run = hydrator.run();
    tokio::pin!(run);
    tokio::select! {
        _ = &mut run => panic!("it cannot be done yet"),
        _ = progress.wait_for(|progress| progress.done_bytes > 0) => {}
    }
    let present = overlay.extents(State::Clean).next().unwrap();
    assert!(first[0].start <= present.start && present.end <= first[0].end, "{present:?}");
}

#[tokio::test]
async fn many_overlays_stand_on_one_point() {
    let dir = tempfile::tempdir().unwrap();
    let toy = Arc::new(Toy::new(SIZE, 9));
    let overlays: Vec<_> = (0..8u8)
        .map(|n| Overlay::open_at(dir.path(), &format!("d{n}"), toy.clone(), &Env::system()).unwrap())
        .collect();
    for (n, overlay) in (0..).zip(&overlays) {
        assert!(overlay.write_now(u64::from(n) * 4096, &[n; 4096]).unwrap());
    }
    for (n, overlay) in (0..).zip(&overlays) {
        let mut wanted = toy.bytes(0..64 << 10);
        wanted[usize::from(n) * 4096..][..4096].fill(n);
        assert!(overlay.read(0, 64 << 10).await.unwrap() == wanted);
    }
}
