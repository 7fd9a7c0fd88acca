//! A machine that can be killed and lose power, and a point in time to stand on.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "each test file uses its part")]

use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tidemark_format::ErrorKind;
use tidemark_overlay::{Batch, Error, Fetch, LocalFile, LocalFiles, Source, UNIT_BYTES};
use tokio::sync::{Semaphore, mpsc};

pub const SECTOR: usize = 512;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// One file: what is durable, and for each sector what it held since, one after the other.
#[derive(Clone, Debug, Default)]
struct Sectors {
    durable: Vec<u8>,
    cached: BTreeMap<usize, Vec<[u8; SECTOR]>>,
    len: usize,
}

impl Sectors {
    fn read(&self, buffer: &mut [u8], offset: usize) -> io::Result<()> {
        if offset + buffer.len() > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.fill(0);
        let durable = self.durable.get(offset..).unwrap_or_default();
        let n = durable.len().min(buffer.len());
        buffer[..n].copy_from_slice(&durable[..n]);
        let end = offset + buffer.len();
        for (sector, versions) in self.cached.range(offset / SECTOR..end.div_ceil(SECTOR)) {
            let version = versions.last().expect("a cached sector has contents");
            let (from, to) = ((sector * SECTOR).max(offset), ((sector + 1) * SECTOR).min(end));
            buffer[from - offset..to - offset].copy_from_slice(&version[from - sector * SECTOR..to - sector * SECTOR]);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        self.len = self.len.max(offset + bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let (sector, within) = ((offset + at) / SECTOR, (offset + at) % SECTOR);
            let n = (SECTOR - within).min(bytes.len() - at);
            let mut version = [0; SECTOR];
            let whole = (self.len - sector * SECTOR).min(SECTOR);
            self.read(&mut version[..whole], sector * SECTOR).unwrap();
            version[within..within + n].copy_from_slice(&bytes[at..at + n]);
            self.cached.entry(sector).or_default().push(version);
            at += n;
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.len.next_multiple_of(SECTOR), 0);
        for (sector, versions) in std::mem::take(&mut self.cached) {
            let version = versions.last().expect("a cached sector has contents");
            self.durable[sector * SECTOR..(sector + 1) * SECTOR].copy_from_slice(version);
        }
        self.durable.truncate(self.len);
    }

    fn lose_power(&mut self, dice: &mut Dice) {
        self.durable.resize(self.len.next_multiple_of(SECTOR), 0);
        for (sector, versions) in std::mem::take(&mut self.cached) {
            let pick = dice.below(versions.len() as u64 + 1) as usize;
            if let Some(version) = versions.get(pick) {
                self.durable[sector * SECTOR..(sector + 1) * SECTOR].copy_from_slice(version);
            }
        }
        self.durable.truncate(self.len);
    }
}

#[derive(Debug)]
struct Machine {
    data: Sectors,
    map: Option<Sectors>,
    dice: Dice,
    /// Everything stops at this operation.
    stop_at: Option<u64>,
    ops: u64,
    stopped: bool,
    /// Writes to the data file are refused beyond so many.
    room: Option<u64>,
    fail_sync: bool,
}

/// What a test does in the middle of something.
type Hook = Box<dyn FnOnce() + Send>;

/// The local disk of a machine, with the files of one overlay.
#[derive(Clone)]
pub struct CrashFiles {
    machine: Arc<Mutex<Machine>>,
    boots: Arc<AtomicU64>,
    data: Arc<dyn LocalFile>,
    after_sync: Arc<Mutex<Option<Hook>>>,
}

#[derive(Clone)]
pub struct CrashFile {
    machine: Arc<Mutex<Machine>>,
    is_map: bool,
    after_sync: Arc<Mutex<Option<Hook>>>,
}

impl CrashFiles {
    pub fn new(size_bytes: u64, seed: u64) -> Self {
        let data = Sectors { len: size_bytes as usize, ..Sectors::default() };
        let machine = Machine {
            data,
            map: None,
            dice: Dice(seed),
            stop_at: None,
            ops: 0,
            stopped: false,
            room: None,
            fail_sync: false,
        };
        let machine = Arc::new(Mutex::new(machine));
        let after_sync = Arc::default();
        let data = CrashFile { machine: machine.clone(), is_map: false, after_sync: Arc::clone(&after_sync) };
        Self { machine, boots: Arc::default(), data: Arc::new(data), after_sync }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap()
    }

    pub fn boot(&self) -> tidemark_overlay::Boot {
        tidemark_overlay::Boot::named(&format!("boot {}", self.boots.load(Ordering::Relaxed)))
    }

    /// Everything stops in the middle of the operation that comes so many later.
    pub fn stop_after(&self, ops: u64) {
        let mut machine = self.machine();
        machine.stop_at = Some(machine.ops + ops);
    }

    pub fn is_stopped(&self) -> bool {
        self.machine().stopped
    }

    pub fn ops(&self) -> u64 {
        self.machine().ops
    }

    /// The process comes back and finds all that was written.
    pub fn restart(&self) {
        let mut machine = self.machine();
        (machine.stopped, machine.stop_at) = (false, None);
    }

    /// The machine comes back and finds what was durable, and of the rest what luck has kept.
    pub fn lose_power(&self) {
        self.restart();
        self.boots.fetch_add(1, Ordering::Relaxed);
        let machine = &mut *self.machine();
        machine.data.lose_power(&mut machine.dice);
        if let Some(map) = &mut machine.map {
            map.lose_power(&mut machine.dice);
        }
    }

    /// Refuses to write more than so many bytes of data; `None` for no limit.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.machine().room = bytes;
    }

    /// Once the contents are synced the next time, and before anything else happens.
    pub fn after_sync(&self, hook: impl FnOnce() + Send + 'static) {
        *self.after_sync.lock().unwrap() = Some(Box::new(hook));
    }

    /// Puts these bytes in the place of the map, durably.
    pub fn set_map(&self, bytes: &[u8]) {
        let map = Sectors { durable: bytes.to_vec(), cached: BTreeMap::new(), len: bytes.len() };
        self.machine().map = Some(map);
    }

    /// The map as it can be read.
    pub fn map_image(&self) -> Vec<u8> {
        let mut machine = self.machine();
        let map = machine.map.as_mut().unwrap();
        map.sync();
        map.durable.clone()
    }

    fn map_file(&self) -> Arc<dyn LocalFile> {
        Arc::new(CrashFile { machine: self.machine.clone(), is_map: true, after_sync: Arc::default() })
    }

    pub fn fail_sync(&self, fail: bool) {
        self.machine().fail_sync = fail;
    }

    /// The file of contents as it can be read.
    pub fn raw(&self) -> Vec<u8> {
        let machine = self.machine();
        let mut image = vec![0; machine.data.len];
        machine.data.read(&mut image, 0).unwrap();
        image
    }

    /// Changes the durable map, as rot does.
    pub fn damage_map(&self, offset: usize) {
        let mut machine = self.machine();
        let map = machine.map.as_mut().unwrap();
        map.sync();
        map.durable[offset] ^= 1;
    }

    pub fn map_bytes(&self) -> usize {
        self.machine().map.as_ref().map_or(0, |map| map.len)
    }
}

impl Machine {
    fn step(&mut self) -> io::Result<bool> {
        if self.stopped {
            return Err(io::Error::other("the machine is off"));
        }
        self.ops += 1;
        self.stopped = self.stop_at == Some(self.ops);
        Ok(self.stopped)
    }
}

impl CrashFile {
    fn change(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let machine = &mut *self.machine.lock().unwrap();
        let stops = machine.step()?;
        if !self.is_map
            && let Some(room) = &mut machine.room
        {
            *room = room.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::StorageFull)?;
        }
        // Whoever is stopped in the middle has written some of it, from the front.
        let sectors = (bytes.len() / SECTOR) as u64 + 1;
        let len = if stops { machine.dice.below(sectors) as usize * SECTOR } else { bytes.len() };
        let Machine { data, map, .. } = machine;
        let file = if self.is_map { map.as_mut().unwrap() } else { data };
        file.write(&bytes[..len.min(bytes.len())], offset as usize);
        if stops { Err(io::Error::other("the machine went off")) } else { Ok(()) }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Sectors) -> T) -> io::Result<T> {
        let machine = &mut *self.machine.lock().unwrap();
        if machine.stopped {
            return Err(io::Error::other("the machine is off"));
        }
        Ok(look(if self.is_map { machine.map.as_mut().unwrap() } else { &mut machine.data }))
    }
}

impl LocalFile for CrashFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|file| file.len as u64)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|file| file.read(buffer, offset as usize))?
    }
    fn read_now(&self, buffer: &mut [u8], offset: u64) -> bool {
        self.read_at(buffer, offset).is_ok()
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(bytes, offset)
    }
    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.change(&vec![0; (range.end - range.start) as usize], range.start)
    }
    fn sync(&self) -> io::Result<()> {
        self.sync_alone()?;
        let hook = self.after_sync.lock().unwrap().take();
        hook.into_iter().for_each(|hook| hook());
        Ok(())
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.with(|file| {
            let mut image = vec![0; file.len];
            file.read(&mut image, 0).unwrap();
            (offset..file.len as u64).find(|at| image[*at as usize] != 0)
        })
    }
    fn next_hole(&self, offset: u64) -> io::Result<Option<u64>> {
        self.with(|file| {
            let mut image = vec![0; file.len];
            file.read(&mut image, 0).unwrap();
            (offset..=file.len as u64).find(|at| image.get(*at as usize).is_none_or(|byte| *byte == 0))
        })
    }
}

impl CrashFile {
    fn sync_alone(&self) -> io::Result<()> {
        let machine = &mut *self.machine.lock().unwrap();
        if machine.step()? {
            return Err(io::Error::other("the machine went off"));
        }
        if machine.fail_sync && !self.is_map {
            // As Linux does it: the error is told once, and what was not written is forgotten.
            machine.data.cached.clear();
            machine.fail_sync = false;
            return Err(io::Error::other("cannot write back"));
        }
        let Machine { data, map, .. } = machine;
        if self.is_map { map.as_mut().unwrap() } else { data }.sync();
        Ok(())
    }
}

impl LocalFiles for CrashFiles {
    fn data(&self) -> &Arc<dyn LocalFile> {
        &self.data
    }
    fn map(&self) -> io::Result<Option<Arc<dyn LocalFile>>> {
        let there = self.machine().map.is_some();
        Ok(there.then(|| self.map_file()))
    }
    fn replace_map(&self, contents: &[u8]) -> io::Result<Arc<dyn LocalFile>> {
        let machine = &mut *self.machine();
        let stops = machine.step()?;
        if !stops || machine.dice.below(2) == 0 {
            let map = Sectors { durable: contents.to_vec(), cached: BTreeMap::new(), len: contents.len() };
            machine.map = Some(map);
        }
        if stops {
            return Err(io::Error::other("the machine went off"));
        }
        Ok(self.map_file())
    }
}

/// A point in time whose bytes follow from a seed. Some units are zeros, some in part, some may be unknown.
pub struct Toy {
    pub size_bytes: u64,
    pub seed: u64,
    /// Units that nobody knows.
    pub unknown: Vec<u64>,
    /// Permits let reads through, one each, if it is not open.
    pub gate: Arc<Semaphore>,
    pub gated: AtomicBool,
    /// Reads fail so many times as if the bucket were away.
    pub away: Arc<AtomicU64>,
    pub reads: AtomicU64,
    pub streams: bool,
}

impl Toy {
    pub fn new(size_bytes: u64, seed: u64) -> Self {
        Self {
            size_bytes,
            seed,
            unknown: Vec::new(),
            gate: Arc::new(Semaphore::new(0)),
            gated: AtomicBool::new(false),
            away: Arc::default(),
            reads: AtomicU64::new(0),
            streams: false,
        }
    }

    fn is_zero(&self, sector: u64) -> bool {
        let unit = sector / 8;
        Dice(self.seed ^ unit << 8).below(4) == 0 || unit % 7 == 3 && sector % 8 > 4
    }

    pub fn sector(&self, sector: u64) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        if !self.is_zero(sector) {
            let mut dice = Dice(self.seed.wrapping_mul(31) ^ sector);
            bytes.chunks_mut(8).for_each(|word| word.copy_from_slice(&(dice.below(u64::MAX) | 1).to_le_bytes()));
        }
        bytes
    }

    pub fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let sectors = range.start / SECTOR as u64..range.end.div_ceil(SECTOR as u64);
        let skip = (range.start - sectors.start * SECTOR as u64) as usize;
        let all: Vec<u8> = sectors.flat_map(|sector| self.sector(sector)).collect();
        all[skip..skip + (range.end - range.start) as usize].to_vec()
    }

    fn known(&self, range: &Range<u64>) -> bool {
        !self.unknown.iter().any(|unit| (range.start / UNIT_BYTES..range.end.div_ceil(UNIT_BYTES)).contains(unit))
    }

    fn zeros_from(&self, offset: u64, zero: bool) -> Option<u64> {
        let sector = SECTOR as u64;
        let mut sectors = offset / sector..self.size_bytes.div_ceil(sector);
        let found = sectors.find(|s| (self.is_zero(*s) && self.known(&(s * sector..s * sector + 1))) == zero);
        found.map(|s| (s * sector).max(offset))
    }
}

impl Source for Toy {
    fn identity(&self) -> String {
        format!("toy {} of {} bytes", self.seed, self.size_bytes)
    }
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
    fn read_now(&self, range: Range<u64>, hit: &mut dyn FnMut(&[u8])) -> bool {
        let at_hand = !self.gated.load(Ordering::SeqCst) && self.known(&range);
        if at_hand {
            hit(&self.bytes(range));
        }
        at_hand
    }
    fn read(&self, range: Range<u64>) -> Fetch<Bytes> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let bytes = Bytes::from(self.bytes(range.clone()));
        let failed = |kind| Error::Source { what: format!("read {range:?}"), source: "toy".into(), kind };
        let away = self.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        let answer = match (away, self.known(&range)) {
            (true, _) => Err(failed(ErrorKind::Retry)),
            (_, false) => Err(failed(ErrorKind::DataLoss)),
            _ => Ok(bytes),
        };
        let gate = self.gated.load(Ordering::SeqCst).then(|| self.gate.clone());
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
            answer
        })
    }
    fn next_data(&self, offset: u64) -> Fetch<Option<u64>> {
        let found = self.zeros_from(offset, false);
        Box::pin(async move { Ok(found) })
    }
    fn next_hole(&self, offset: u64) -> Fetch<Option<u64>> {
        let found = self.zeros_from(offset, true).or((offset < self.size_bytes).then_some(self.size_bytes));
        Box::pin(async move { Ok(found) })
    }
    fn scatter(&self, wanted: Vec<Range<u64>>, to: mpsc::Sender<Batch>) -> Fetch<()> {
        // Every other unit of what is wanted, from the back.
        let units = wanted.iter().flat_map(|run| (run.start / UNIT_BYTES..run.end.div_ceil(UNIT_BYTES)).step_by(2));
        let mut units: Vec<u64> = units.filter(|unit| !self.unknown.contains(unit) && self.streams).collect();
        units.reverse();
        let piece = |unit: &u64| {
            let range = unit * UNIT_BYTES..((unit + 1) * UNIT_BYTES).min(self.size_bytes);
            (range.start, Bytes::from(self.bytes(range)))
        };
        let batches: Vec<Batch> = units.chunks(16).map(|some| some.iter().rev().map(piece).collect()).collect();
        Box::pin(async move {
            for batch in batches {
                if to.send(batch).await.is_err() {
                    break;
                }
            }
            Ok(())
        })
    }
}
