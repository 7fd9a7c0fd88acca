//! How many bytes of which disk wait in the log, and how many were let go: what backpressure looks at.
//!
//! Kept in slots of about [`SLOT_BYTES`], so memory is bounded by the log's size over that; what is let go is counted by
//! whole slots, later rather than earlier.

use std::collections::{BTreeMap, VecDeque};
use tidemark_format::{DiskId, Lsn};
use tidemark_log_store::Record;

/// Data of one slot.
const SLOT_BYTES: u64 = 1 << 20;
/// What a record takes in the log besides its data.
const RECORD_BYTES: u64 = 64;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    slots: VecDeque<Slot>,
    waiting: BTreeMap<DiskId, u64>,
    freed_bytes_total: u64,
}

#[derive(Debug)]
struct Slot {
    last: Lsn,
    bytes: u64,
    disks: BTreeMap<DiskId, u64>,
}

impl Backlog {
    pub(crate) fn logged(&mut self, record: &Record) {
        let Some(disk) = record.disk() else { return };
        let bytes = record.data_bytes() + RECORD_BYTES;
        if self.slots.back().is_none_or(|slot| slot.bytes >= SLOT_BYTES) {
            self.slots.push_back(Slot { last: record.lsn, bytes: 0, disks: BTreeMap::new() });
        }
        let slot = self.slots.back_mut().expect("one was pushed if there was none");
        slot.last = record.lsn;
        slot.bytes += bytes;
        *slot.disks.entry(disk).or_default() += bytes;
        *self.waiting.entry(disk).or_default() += bytes;
    }

    /// The log has let go of everything through `through`.
    pub(crate) fn freed(&mut self, through: Lsn) {
        while let Some(slot) = self.slots.pop_front_if(|slot| slot.last <= through) {
            self.freed_bytes_total += slot.bytes;
            for (disk, bytes) in slot.disks {
                if let Some(waiting) = self.waiting.get_mut(&disk) {
                    *waiting = waiting.saturating_sub(bytes);
                }
            }
        }
    }

    pub(crate) fn freed_bytes_total(&self) -> u64 {
        self.freed_bytes_total
    }

    pub(crate) fn waiting_bytes(&self, disk: DiskId) -> u64 {
        self.waiting.get(&disk).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_format::{Extent, TimeNs};
    use tidemark_log_store::RecordBody;

    fn write(lsn: u64, disk: u32, bytes: usize) -> Record {
        let data = vec![1; bytes].into();
        let body = RecordBody::Write { disk: DiskId::new(disk), extent: Extent::new(0, bytes as u64 / 512), data };
        Record { lsn: Lsn::new(lsn), time: TimeNs::default(), body }
    }

    #[test]
    fn what_waits_is_counted_by_disk_and_let_go_by_slots() {
        let mut backlog = Backlog::default();
        for lsn in 1..=64 {
            backlog.logged(&write(lsn, 1 + lsn as u32 % 2, 64 << 10));
        }
        let one = |backlog: &Backlog| backlog.waiting_bytes(DiskId::new(1));
        let all = 32 * ((64 << 10) + RECORD_BYTES);
        assert_eq!(one(&backlog), all);
        backlog.freed(Lsn::new(3));
        assert_eq!((one(&backlog), backlog.freed_bytes_total()), (all, 0), "not a whole slot yet");
        backlog.freed(Lsn::new(40));
        assert!(one(&backlog) >= all * 24 / 64 && one(&backlog) < all);
        backlog.freed(Lsn::new(64));
        assert_eq!((one(&backlog), backlog.freed_bytes_total()), (0, 2 * all));
        assert_eq!(backlog.slots.len(), 0);
    }
}
