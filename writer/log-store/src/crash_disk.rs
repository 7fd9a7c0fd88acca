//! A disk in memory that loses power, tears writes and fails: what the promises of the store are tested on.

use crate::device::Device;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard};

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It errs. Some of its sectors are written, none is sure to be durable; the disk goes on.
    Fail,
    /// It is cut short: some whole pages at its front are durable, and the caller is told how many bytes.
    Short,
    /// Everything stops in the middle of it: it errs, some of its sectors are written, and so does every call after it,
    /// until [`CrashDisk::restart`] or [`CrashDisk::lose_power`].
    Crash,
}

/// A disk with a durable image and a live one. A write that succeeds is durable, alone: sectors that an earlier one left
/// in the cache stay there. One seed decides what is torn and what is lost.
pub struct CrashDisk {
    state: Mutex<State>,
}

struct State {
    durable: Vec<u8>,
    /// Sectors that can be read and may be lost, each with what it held one after the other.
    cached: BTreeMap<usize, Vec<[u8; SECTOR_BYTES]>>,
    random: u64,
    writes: u64,
    faults: BTreeMap<u64, Fault>,
    stopped: bool,
    overwritten: u64,
}

impl CrashDisk {
    /// A disk of zeros.
    pub fn new(len_bytes: u64, seed: u64) -> Self {
        let state = State {
            durable: vec![0; len_bytes as usize],
            cached: BTreeMap::new(),
            random: seed,
            writes: 0,
            faults: BTreeMap::new(),
            stopped: false,
            overwritten: 0,
        };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Lets `fault` happen to a write: 1 is the next one.
    pub fn inject(&self, write: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.writes + write;
        state.faults.insert(at, fault);
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// True once a [`Fault::Crash`] has happened.
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Stops everything between two writes, as [`Fault::Crash`] does in the middle of one.
    pub fn stop(&self) {
        self.state().stopped = true;
    }

    /// The process was killed and comes back: it reads what was written, durable or not.
    pub fn restart(&self) {
        let mut state = self.state();
        state.stopped = false;
        state.faults.clear();
    }

    /// The power was lost and comes back: of each sector that was not durable, anything that was ever written to it since
    /// may be there, or what was durable before.
    pub fn lose_power(&self) {
        let mut state = self.state();
        state.stopped = false;
        state.faults.clear();
        for (sector, versions) in std::mem::take(&mut state.cached) {
            let pick = state.random(versions.len() as u64 + 1) as usize;
            if let Some(version) = versions.get(pick) {
                let at = sector * SECTOR_BYTES;
                state.durable[at..at + SECTOR_BYTES].copy_from_slice(version);
            }
        }
    }

    /// How often bytes were written over others that were not durable: which of the two outlasts a loss of power then is
    /// up to the disk.
    pub fn unsynced_overwritten(&self) -> u64 {
        self.state().overwritten
    }

    /// Changes bytes of the disk, as rot or a stray write does.
    pub fn damage(&self, offset: u64, change: impl FnOnce(&mut [u8])) {
        let mut state = self.state();
        change(&mut state.durable[offset as usize..]);
    }

    /// A copy of what can be read.
    pub fn image(&self) -> Vec<u8> {
        let state = self.state();
        let mut image = vec![0; state.durable.len()];
        state.read(&mut image, 0);
        image
    }
}

impl State {
    /// A number below `bound`.
    fn random(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn read(&self, buffer: &mut [u8], offset: usize) {
        buffer.copy_from_slice(&self.durable[offset..offset + buffer.len()]);
        let (first, last) = (offset / SECTOR_BYTES, (offset + buffer.len()).div_ceil(SECTOR_BYTES));
        for (sector, versions) in self.cached.range(first..last) {
            let at = sector * SECTOR_BYTES - offset;
            buffer[at..at + SECTOR_BYTES].copy_from_slice(versions.last().expect("a cached sector has contents"));
        }
    }

    /// Some sectors of a write reach the cache: all, none, or any of them.
    fn tear(&mut self, bytes: &[u8], offset: usize) {
        let kind = self.random(4);
        for (i, sector) in bytes.chunks_exact(SECTOR_BYTES).enumerate() {
            let written = match kind {
                0 => false,
                1 => true,
                _ => self.random(2) == 0,
            };
            if written {
                let versions = self.cached.entry(offset / SECTOR_BYTES + i).or_default();
                self.overwritten += u64::from(!versions.is_empty());
                versions.push(sector.try_into().expect("a whole sector"));
            }
        }
    }

    fn store(&mut self, bytes: &[u8], offset: usize) {
        let (first, last) = (offset / SECTOR_BYTES, (offset + bytes.len()) / SECTOR_BYTES);
        let cached: Vec<_> = self.cached.range(first..last).map(|(sector, _)| *sector).collect();
        self.overwritten += cached.len() as u64;
        // Which of the two the disk writes last is up to it.
        for sector in cached {
            let at = sector * SECTOR_BYTES - offset;
            let newest = bytes[at..at + SECTOR_BYTES].try_into().expect("a whole sector");
            self.cached.get_mut(&sector).expect("found above").push(newest);
        }
        self.durable[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

fn stopped() -> io::Error {
    io::Error::other("the disk has stopped")
}

impl Device for CrashDisk {
    fn len_bytes(&self) -> u64 {
        self.state().durable.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.state();
        if state.stopped {
            return Err(stopped());
        }
        if offset + buffer.len() as u64 > state.durable.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state.read(buffer, offset as usize);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state();
        if state.stopped {
            return Err(stopped());
        }
        state.writes += 1;
        let (writes, offset) = (state.writes, offset as usize);
        match state.faults.remove(&writes) {
            None => state.store(bytes, offset),
            Some(Fault::Short) => {
                let pages = bytes.len() / 4096;
                let written = state.random(pages as u64) as usize * 4096;
                state.store(&bytes[..written], offset);
                return Ok(written);
            }
            Some(fault) => {
                state.tear(bytes, offset);
                state.stopped = fault == Fault::Crash;
                return Err(io::Error::other(format!("{fault:?} of write {writes}")));
            }
        }
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.stopped {
            return Err(stopped());
        }
        for (sector, versions) in std::mem::take(&mut state.cached) {
            let newest = versions.last().expect("a cached sector has contents");
            let at = sector * SECTOR_BYTES;
            state.durable[at..at + SECTOR_BYTES].copy_from_slice(newest);
        }
        Ok(())
    }
}
