//! Recovery disks on a machine that is killed and loses power: what was acknowledged is kept, what was not is old or new, never
//! anything else.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up must fail it")]

mod support;

use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use support::{CrashFiles, Dice, SECTOR, Toy};
use tidemark_env::Env;
use tidemark_format::ErrorKind;
use tidemark_overlay::{Error, HydrateOptions, Hydrator, Overlay, State, UNIT_BYTES};

/// 40 units and a short one.
const SIZE: u64 = 40 * UNIT_BYTES + 3 * SECTOR as u64;

/// Which seeds to run: so many, unless the environment says `FIRST..END`.
fn seeds(count: u64) -> Range<u64> {
    let chosen = std::env::var("TIDEMARK_OVERLAY_SEEDS").ok();
    let chosen = chosen.map(|text| {
        let (first, end) = text.split_once("..").expect("FIRST..END");
        first.parse().unwrap()..end.parse().unwrap()
    });
    chosen.unwrap_or(0..count)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn open(files: &CrashFiles, toy: &Arc<Toy>) -> tidemark_overlay::Result<Arc<Overlay>> {
    Overlay::open(Box::new(files.clone()), toy.clone(), &files.boot(), &Env::system())
}

fn whole(runtime: &tokio::runtime::Runtime, overlay: &Arc<Overlay>) -> Vec<u8> {
    runtime.block_on(overlay.read(0, SIZE as usize)).unwrap().to_vec()
}

/// What each sector may hold.
struct Model {
    now: Vec<[u8; SECTOR]>,
    /// After a loss of power: what was durable, and everything since.
    maybe: Vec<BTreeSet<[u8; SECTOR]>>,
}

impl Model {
    fn new(toy: &Toy) -> Self {
        let now: Vec<_> = (0..SIZE / SECTOR as u64).map(|sector| toy.sector(sector)).collect();
        let maybe = now.iter().map(|sector| BTreeSet::from([*sector])).collect();
        Self { now, maybe }
    }

    /// A write began; `done` if it was acknowledged.
    fn write(&mut self, range: Range<u64>, content: &[u8], done: bool) {
        for (at, bytes) in (range.start / SECTOR as u64..).zip(content.chunks(SECTOR)) {
            let bytes: [u8; SECTOR] = bytes.try_into().unwrap();
            self.maybe[at as usize].insert(bytes);
            if done {
                self.now[at as usize] = bytes;
            }
        }
    }

    fn flushed(&mut self) {
        self.maybe = self.now.iter().map(|sector| BTreeSet::from([*sector])).collect();
    }

    /// Takes what was found for what is.
    fn settle(&mut self, found: &[u8], durable: bool) {
        self.now = found.chunks(SECTOR).map(|sector| sector.try_into().unwrap()).collect();
        if durable {
            self.flushed();
        }
    }
}

/// A write that was stopped in the middle.
type Torn = Option<(Range<u64>, Vec<u8>)>;

struct Run<'a> {
    runtime: &'a tokio::runtime::Runtime,
    files: CrashFiles,
    toy: Arc<Toy>,
    model: Model,
    dice: Dice,
    stamp: u64,
}

impl Run<'_> {
    fn range(&mut self) -> Range<u64> {
        let sectors = SIZE / SECTOR as u64;
        let (first, len) = (self.dice.below(sectors), 1 + self.dice.below(24));
        let mut range = first..(first + len).min(sectors);
        if self.dice.below(2) == 0 {
            range = range.start / 8 * 8..range.end.next_multiple_of(8).min(sectors);
        }
        range.start * SECTOR as u64..range.end * SECTOR as u64
    }

    /// One thing that a guest or the hydrator does. A torn write, if the machine stopped in it.
    fn step(&mut self, overlay: &Arc<Overlay>) -> Torn {
        let range = self.range();
        match self.dice.below(10) {
            0..=3 => {
                self.stamp += 1;
                let mut content = vec![0; (range.end - range.start) as usize];
                content.chunks_mut(8).for_each(|word| word.copy_from_slice(&(self.stamp << 20).to_le_bytes()));
                let done = match overlay.write_now(range.start, &content) {
                    Ok(true) => true,
                    Ok(false) => {
                        self.runtime.block_on(overlay.write(range.start, Bytes::from(content.clone()))).is_ok()
                    }
                    Err(_) => false,
                };
                self.model.write(range.clone(), &content, done);
                (!done).then_some((range, content))
            }
            4 => {
                let content = vec![0; (range.end - range.start) as usize];
                let done = self.runtime.block_on(overlay.discard(range.clone())).is_ok();
                self.model.write(range.clone(), &content, done);
                (!done).then_some((range, content))
            }
            5 => {
                if overlay.flush_blocking().is_ok() {
                    self.model.flushed();
                }
                None
            }
            6..=7 => {
                let _stopped = overlay.fill(range.start, &self.toy.bytes(range.clone()));
                None
            }
            8 => {
                let zeros = self.toy.bytes(range.clone()).iter().all(|byte| *byte == 0);
                if zeros {
                    let _stopped = overlay.fill_zeros(range);
                }
                None
            }
            _ => {
                let found = self.runtime.block_on(overlay.read(range.start, (range.end - range.start) as usize));
                if let Ok(found) = found {
                    let first = range.start as usize / SECTOR;
                    for (at, sector) in found.chunks(SECTOR).enumerate() {
                        assert!(sector == self.model.now[first + at], "sector {} reads old", first + at);
                    }
                }
                None
            }
        }
    }

    fn check_after(&mut self, power: bool, torn: Torn, overlay: &Arc<Overlay>, seed: u64) {
        let found = whole(self.runtime, overlay);
        for (at, sector) in found.chunks(SECTOR).enumerate() {
            let sector: [u8; SECTOR] = sector.try_into().unwrap();
            let by_torn = torn.as_ref().is_some_and(|(range, content)| {
                let offset = (at * SECTOR) as u64;
                range.contains(&offset) && content[(offset - range.start) as usize..][..SECTOR] == sector
            });
            let allowed = sector == self.model.now[at] || by_torn || power && self.model.maybe[at].contains(&sector);
            assert!(allowed, "seed {seed}: sector {at} after {}", if power { "power loss" } else { "a kill" });
        }
        self.model.settle(&found, power);
        self.check_dirty(&found, overlay, seed);
    }

    /// What the guest changed is known, unless the disk says that it may not be.
    fn check_dirty(&self, found: &[u8], overlay: &Arc<Overlay>, seed: u64) {
        if !overlay.stats().dirty_is_complete {
            return;
        }
        let original = self.toy.bytes(0..SIZE);
        for range in overlay.extents(State::Clean).chain(overlay.extents(State::Absent)) {
            let bytes = range.start as usize..range.end as usize;
            assert!(found[bytes.clone()] == original[bytes], "seed {seed}: {range:?} differs but is not dirty");
        }
    }
}

#[test]
fn sim_what_was_acknowledged_outlasts_kills_and_what_was_flushed_outlasts_power() {
    let runtime = runtime();
    let (mut kills, mut losses, mut torn_writes) = (0, 0, 0);
    for seed in seeds(400) {
        let toy = Arc::new(Toy::new(SIZE, seed));
        let mut run = Run {
            runtime: &runtime,
            files: CrashFiles::new(SIZE, seed),
            model: Model::new(&toy),
            toy,
            dice: Dice(seed ^ 0xabcd),
            stamp: 0,
        };
        let mut overlay = open(&run.files, &run.toy).unwrap();
        for _round in 0..5 {
            run.files.stop_after(1 + run.dice.below(40));
            let mut torn = None;
            while !run.files.is_stopped() {
                torn = run.step(&overlay);
            }
            let power = run.dice.below(2) == 0;
            (kills, losses) = (kills + u32::from(!power), losses + u32::from(power));
            torn_writes += u32::from(torn.is_some());
            let before = |run: &Run<'_>| if power { run.files.lose_power() } else { run.files.restart() };
            before(&run);
            if run.dice.below(4) == 0 {
                // It is stopped again while it comes back.
                run.files.stop_after(1);
                drop(open(&run.files, &run.toy));
                before(&run);
            }
            overlay = open(&run.files, &run.toy).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            run.check_after(power, torn, &overlay, seed);
        }
        let hydrator = Hydrator::new(overlay.clone(), HydrateOptions::default(), Env::system());
        assert!(runtime.block_on(hydrator.run()).unwrap().finished.is_some());
        let found = whole(&runtime, &overlay);
        assert!(found.chunks(SECTOR).eq(run.model.now.iter()), "seed {seed}: hydration changed what is read");
        run.files.lose_power();
        assert!(run.files.raw() == found, "seed {seed}: a hydrated disk is a plain image, durably");
    }
    assert!(
        kills > 100 && losses > 100 && torn_writes > 100 || kills + losses < 1000,
        "{kills} kills, {losses} losses, {torn_writes} torn"
    );
}

#[test]
fn fault_a_disk_that_did_not_keep_a_write_is_never_trusted_again() {
    let (runtime, files, toy) = (runtime(), CrashFiles::new(SIZE, 1), Arc::new(Toy::new(SIZE, 1)));
    let overlay = open(&files, &toy).unwrap();
    assert!(overlay.write_now(0, &[7; 4096]).unwrap());
    files.fail_sync(true);
    assert_eq!(overlay.flush_blocking().unwrap_err().kind(), ErrorKind::DataLoss);
    assert!(matches!(overlay.flush_blocking(), Err(Error::Failed { .. })), "the second look succeeds on such a disk");
    assert!(matches!(overlay.write_now(0, &[8; 4096]), Err(Error::Failed { .. })));
    assert!(matches!(runtime.block_on(overlay.discard(0..4096)), Err(Error::Failed { .. })));
    drop(overlay);
    for lose_power in [false, true] {
        if lose_power {
            files.lose_power();
        }
        assert!(matches!(open(&files, &toy), Err(Error::Failed { source: None })), "power lost: {lose_power}");
    }
}

#[test]
fn fault_a_full_local_disk_is_said_and_costs_only_the_write_that_did_not_fit() {
    let (runtime, files, toy) = (runtime(), CrashFiles::new(SIZE, 1), Arc::new(Toy::new(SIZE, 1)));
    let overlay = open(&files, &toy).unwrap();
    files.set_room(Some(8192));
    assert!(overlay.write_now(0, &[7; 4096]).unwrap());
    let error = overlay.write_now(4096, &[8; 8192]).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }) && error.kind() == ErrorKind::FixRequest, "{error}");
    assert!(error.to_string().contains("no space left on the local disk"), "{error}");
    overlay.flush_blocking().unwrap();
    files.set_room(None);
    let mut wanted = toy.bytes(0..SIZE);
    wanted[..4096].fill(7);
    assert!(whole(&runtime, &overlay) == wanted, "what did not fit is as it was");
    assert!(overlay.write_now(4096, &[8; 8192]).unwrap(), "and fits later");
    files.lose_power();
    assert!(whole(&runtime, &open(&files, &toy).unwrap()) == wanted);
}

#[test]
fn what_is_written_while_a_flush_is_under_way_waits_for_the_next_one() {
    for seed in 0..50 {
        let (runtime, files, toy) = (runtime(), CrashFiles::new(SIZE, seed), Arc::new(Toy::new(SIZE, seed)));
        let overlay = open(&files, &toy).unwrap();
        assert!(overlay.write_now(0, &[1; 4096]).unwrap());
        files.after_sync({
            let overlay = overlay.clone();
            move || assert!(overlay.write_now(8192, &[2; 4096]).unwrap())
        });
        overlay.flush_blocking().unwrap();
        files.lose_power();
        let found = whole(&runtime, &open(&files, &toy).unwrap());
        assert!(found[..4096] == [1; 4096], "seed {seed}: it was flushed");
        assert!(found[8192..12_288] == toy.bytes(8192..12_288), "seed {seed}: it was not, and its data is lost");
    }
}

#[test]
fn a_clean_unit_is_known_to_be_dirty_before_it_is_written() {
    let (runtime, files, toy) = (runtime(), CrashFiles::new(SIZE, 1), Arc::new(Toy::new(SIZE, 1)));
    let overlay = open(&files, &toy).unwrap();
    overlay.fill(0, &toy.bytes(0..SIZE)).unwrap();
    overlay.flush_blocking().unwrap();
    // Killed at each operation of a write.
    for stop in 1..6 {
        files.stop_after(stop);
        let _stopped = open(&files, &toy).and_then(|overlay| overlay.write_now(0, &[9; 8192]));
        files.restart();
        let overlay = open(&files, &toy).unwrap();
        let changed = whole(&runtime, &overlay) != toy.bytes(0..SIZE);
        assert!(!changed || overlay.extents(State::Dirty).next() == Some(0..8192), "stopped at {stop}");
    }
}

proptest::proptest! {
    #[test]
    fn prop_a_map_of_any_bytes_is_opened_or_refused(
        at in 0usize..9000, bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), cut in 0usize..9000,
    ) {
        let (files, toy) = (CrashFiles::new(SIZE, 1), Arc::new(Toy::new(SIZE, 1)));
        let overlay = open(&files, &toy).unwrap();
        assert!(overlay.write_now(4096, &[7; 4096]).unwrap());
        overlay.flush_blocking().unwrap();
        let mut map = files.map_image();
        map.truncate(cut.max(1));
        let at = at.min(map.len());
        let end = (at + bytes.len()).min(map.len());
        map[at..end].copy_from_slice(&bytes[..end - at]);
        files.set_map(&map);
        let _opened_or_refused = open(&files, &toy);
    }
}

#[test]
fn fault_a_damaged_map_is_refused() {
    let (files, toy) = (CrashFiles::new(SIZE, 1), Arc::new(Toy::new(SIZE, 1)));
    let overlay = open(&files, &toy).unwrap();
    for unit in 0..20 {
        assert!(overlay.write_now(2 * unit * UNIT_BYTES, &[7; 4096]).unwrap());
        overlay.flush_blocking().unwrap();
    }
    drop(overlay);
    for (lose_power, offset) in [(false, 4096 + 5), (true, 4096 + 5), (true, 10), (false, 0)] {
        files.damage_map(offset);
        if lose_power {
            files.lose_power();
        }
        let error = open(&files, &toy).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "byte {offset}: {error}");
        files.damage_map(offset);
    }
    assert!(open(&files, &toy).is_ok());
}

#[test]
fn a_file_is_an_overlay_of_one_point_alone() {
    let (files, toy) = (CrashFiles::new(SIZE, 1), Arc::new(Toy::new(SIZE, 1)));
    drop(open(&files, &toy).unwrap());
    let error = open(&files, &Arc::new(Toy::new(SIZE, 2))).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("toy 1") && error.to_string().contains("toy 2"), "{error}");
}

#[test]
fn what_the_guest_wrote_stays_known_across_a_boot_if_the_disk_was_closed() {
    let toy = Arc::new(Toy::new(SIZE, 1));
    for close in [true, false] {
        let files = CrashFiles::new(SIZE, 1);
        let overlay = open(&files, &toy).unwrap();
        overlay.fill(0, &toy.bytes(0..SIZE)).unwrap();
        overlay.flush_blocking().unwrap();
        if close {
            overlay.close().unwrap();
            assert!(matches!(overlay.write_now(0, &[1; 4096]), Err(Error::Closed)));
            assert!(matches!(overlay.fill(0, &[1; 4096]), Err(Error::Closed)));
        }
        files.lose_power();
        let overlay = open(&files, &toy).unwrap();
        assert_eq!(overlay.stats().dirty_is_complete, close);
        // Open again in the same boot, it is no longer closed.
        drop(overlay);
        open(&files, &toy).unwrap().close().unwrap();
        drop(open(&files, &toy).unwrap());
        files.lose_power();
        assert!(!open(&files, &toy).unwrap().stats().dirty_is_complete);
    }
}

#[test]
fn a_map_takes_little_room() {
    let toy = Arc::new(Toy::new(SIZE, 1));
    let files = CrashFiles::new(SIZE, 1);
    let overlay = open(&files, &toy).unwrap();
    for _ in 0..1000 {
        assert!(overlay.write_now(0, &[7; 4096]).unwrap());
        overlay.flush_blocking().unwrap();
    }
    assert!(files.map_bytes() <= 4096 + (256 << 10) + 64, "writing a unit again needs no record");
    files.lose_power();
    drop(open(&files, &toy).unwrap());
    assert_eq!(files.map_bytes(), 4096 + 32);
}
