//! What a domain has to remember in the log store besides its log: one small value, replaced as a whole.
//!
//! Written after the events that it reflects are durable, so a crash in between leaves it behind the log, never ahead:
//! whoever opens the domain goes over the log from [`Ledger::lsn`] on.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidemark_format::{DiskId, DiskState, Epoch, EventBody, Lsn, TimeNs};
use tidemark_log_store::{Record, RecordBody};

/// Name of the value.
pub(crate) const NAME: &str = "ledger";
/// Version of its layout.
const VERSION: u32 = 1;
/// Own epochs that are remembered: more starts than that without one write in between are not told apart from another's.
const EPOCHS_MAX: usize = 256;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Everything through here is reflected.
    pub(crate) lsn: Lsn,
    /// Its time.
    pub(crate) time: TimeNs,
    /// Every disk that the domain ever had.
    pub(crate) disks: Vec<DiskState>,
    /// How far the primary of a disk has everything, for disks that have one.
    pub(crate) applied: BTreeMap<DiskId, Lsn>,
    /// Epochs of the bucket that were fed from this log store, ascending.
    pub(crate) epochs: Vec<Epoch>,
    /// Seeds under way.
    pub(crate) seeds: BTreeMap<DiskId, Seed>,
    /// Disks whose primary may differ from the bucket, nobody knows where.
    pub(crate) suspects: BTreeSet<DiskId>,
}

/// How far a seed has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    /// Its SEED_START.
    pub(crate) from: Lsn,
    /// Time of that.
    pub(crate) time: TimeNs,
    /// Everything in front of this block is named in the log.
    pub(crate) next_block: u64,
}

impl Ledger {
    /// Remembers an epoch as our own.
    pub(crate) fn own(&mut self, epoch: Epoch) {
        if self.epochs.last() != Some(&epoch) {
            self.epochs.push(epoch);
        }
        let surplus = self.epochs.len().saturating_sub(EPOCHS_MAX);
        self.epochs.drain(..surplus);
    }

    /// Takes in what a record says about seeds under way and about suspects.
    pub(crate) fn follow(&mut self, record: &Record) {
        let RecordBody::Event(body) = &record.body else { return };
        match body {
            EventBody::SeedStart { disk } => {
                self.seeds.insert(*disk, Seed { from: record.lsn, time: record.time, next_block: 0 });
            }
            EventBody::SeedExtent { disk, extent, .. } => {
                if let Some(seed) = self.seeds.get_mut(disk) {
                    seed.next_block = seed.next_block.max(extent.end());
                }
            }
            EventBody::SeedDone { disk } | EventBody::ResyncDone { disk } => {
                self.seeds.remove(disk);
                self.suspects.remove(disk);
            }
            EventBody::DiskRemove { disk } => {
                self.seeds.remove(disk);
                self.suspects.remove(disk);
                self.applied.remove(disk);
            }
            _ => {}
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let stored = Stored {
            version: VERSION,
            lsn: self.lsn.get(),
            time_ns: self.time.get(),
            disks: self.disks.iter().map(StoredDisk::from).collect(),
            applied: self.applied.iter().map(|(disk, lsn)| (disk.get(), lsn.get())).collect(),
            epochs: self.epochs.iter().map(|epoch| epoch.get()).collect(),
            seeds: self
                .seeds
                .iter()
                .map(|(disk, s)| {
                    (disk.get(), StoredSeed { from: s.from.get(), time_ns: s.time.get(), next_block: s.next_block })
                })
                .collect(),
            suspects: self.suspects.iter().map(|disk| disk.get()).collect(),
        };
        serde_json::to_vec(&stored).expect("numbers and texts are JSON")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::Ledger { why };
        let stored: Stored = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if stored.version != VERSION {
            return Err(bad(format!("its version is {}, this program knows {VERSION}", stored.version)));
        }
        let ledger = Self {
            lsn: Lsn::new(stored.lsn),
            time: TimeNs::new(stored.time_ns),
            disks: stored.disks.into_iter().map(DiskState::from).collect(),
            applied: stored.applied.into_iter().map(|(disk, lsn)| (DiskId::new(disk), Lsn::new(lsn))).collect(),
            epochs: stored.epochs.into_iter().map(Epoch::new).collect(),
            seeds: stored
                .seeds
                .into_iter()
                .map(|(disk, s)| {
                    let seed = Seed { from: Lsn::new(s.from), time: TimeNs::new(s.time_ns), next_block: s.next_block };
                    (DiskId::new(disk), seed)
                })
                .collect(),
            suspects: stored.suspects.into_iter().map(DiskId::new).collect(),
        };
        if ledger.disks.windows(2).any(|pair| pair[0].disk >= pair[1].disk) {
            return Err(bad("its disks are not in order".to_owned()));
        }
        Ok(ledger)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    lsn: u64,
    time_ns: u64,
    disks: Vec<StoredDisk>,
    applied: BTreeMap<u32, u64>,
    epochs: Vec<u64>,
    seeds: BTreeMap<u32, StoredSeed>,
    suspects: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct StoredDisk {
    disk: u32,
    vm: String,
    name: String,
    blocks: u64,
    consistent_from: Option<u64>,
    seeded_at: Option<u64>,
    removed_at: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct StoredSeed {
    from: u64,
    time_ns: u64,
    next_block: u64,
}

impl From<&DiskState> for StoredDisk {
    fn from(state: &DiskState) -> Self {
        Self {
            disk: state.disk.get(),
            vm: state.vm.clone(),
            name: state.name.clone(),
            blocks: state.blocks,
            consistent_from: state.consistent_from.map(Lsn::get),
            seeded_at: state.seeded_at.map(Lsn::get),
            removed_at: state.removed_at.map(Lsn::get),
        }
    }
}

impl From<StoredDisk> for DiskState {
    fn from(stored: StoredDisk) -> Self {
        Self {
            disk: DiskId::new(stored.disk),
            vm: stored.vm,
            name: stored.name,
            blocks: stored.blocks,
            consistent_from: stored.consistent_from.map(Lsn::new),
            seeded_at: stored.seeded_at.map(Lsn::new),
            removed_at: stored.removed_at.map(Lsn::new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let disk = |id, removed_at| DiskState {
            disk: DiskId::new(id),
            vm: "db".into(),
            name: format!("disk {id} \"quoted\""),
            blocks: 1 << 40,
            consistent_from: Some(Lsn::new(4)),
            seeded_at: None,
            removed_at,
        };
        let mut ledger = Ledger {
            lsn: Lsn::new(u64::MAX),
            time: TimeNs::new(1_700_000_000_000_000_000),
            disks: vec![disk(1, None), disk(3, Some(Lsn::new(9)))],
            applied: [(DiskId::new(1), Lsn::new(7))].into(),
            epochs: Vec::new(),
            seeds: [(DiskId::new(1), Seed { from: Lsn::new(2), time: TimeNs::new(5), next_block: 77 })].into(),
            suspects: [DiskId::new(1)].into(),
        };
        ledger.own(Epoch::new(2));
        ledger.own(Epoch::new(2));
        ledger.own(Epoch::new(5));
        ledger
    }

    #[test]
    fn a_ledger_survives_its_encoding() {
        let ledger = ledger();
        assert_eq!(ledger.epochs, [Epoch::new(2), Epoch::new(5)]);
        assert_eq!(Ledger::decode(&ledger.encode()).unwrap(), ledger);
        assert_eq!(Ledger::decode(&Ledger::default().encode()).unwrap(), Ledger::default());
    }

    #[test]
    fn what_is_no_ledger_is_refused() {
        let text = String::from_utf8(ledger().encode()).unwrap();
        let disorder = text.replace("\"disk\":3", "\"disk\":1");
        for bad in ["", "{}", &text[1..], &text.replace("\"version\":1", "\"version\":2"), &disorder] {
            assert!(matches!(Ledger::decode(bad.as_bytes()), Err(Error::Ledger { .. })), "{bad}");
        }
    }

    #[test]
    fn no_more_epochs_are_remembered_than_fit() {
        let mut ledger = Ledger::default();
        (0..2 * EPOCHS_MAX as u64).for_each(|epoch| ledger.own(Epoch::new(epoch)));
        assert_eq!((ledger.epochs.len(), ledger.epochs[0]), (EPOCHS_MAX, Epoch::new(EPOCHS_MAX as u64)));
    }
}
