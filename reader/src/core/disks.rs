//! What the events of the log say about each disk: when it came, how large it was, from where on it can be restored.

use crate::error::{Error, Result};
use tidemark_format::{BaseRef, DiskId, DiskState, Event, EventBody, Extent, Lsn, ObjectKey};

/// A base object that seeds part of a disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeedPart {
    /// The SEED_START that its rows stand at.
    pub(crate) start: Lsn,
    /// The SEED_EXTENT that names it.
    pub(crate) named: Lsn,
    pub(crate) base: BaseRef,
    pub(crate) extent: Extent,
}

impl SeedPart {
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey::Base { role: self.base.role, epoch: self.base.epoch, seq: self.base.seq }
    }
}

/// The life of one disk.
#[derive(Clone, Debug)]
pub(crate) struct DiskHistory {
    pub(crate) id: DiskId,
    pub(crate) vm: String,
    pub(crate) name: String,
    pub(crate) added: Lsn,
    pub(crate) removed: Option<Lsn>,
    /// Size in blocks from each LSN on, the first at `added`.
    pub(crate) sizes: Vec<(Lsn, u64)>,
    /// From each LSN on: where the disk is consistent from, if it is.
    consistency: Vec<(Lsn, Option<Lsn>)>,
    /// Intervals `from < lsn <= to` that may miss writes.
    losses: Vec<(Lsn, Lsn)>,
    pub(crate) seeds: Vec<SeedPart>,
    seed_starts: Vec<Lsn>,
}

/// All disks of a domain, and the table of the newest LSN.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disks {
    pub(crate) all: Vec<DiskHistory>,
    pub(crate) table: Vec<DiskState>,
}

impl DiskHistory {
    pub(crate) fn exists_at(&self, lsn: Lsn) -> bool {
        self.added <= lsn && self.removed.is_none_or(|removed| lsn < removed)
    }

    /// Size in blocks at `lsn`; 0 before the disk came.
    pub(crate) fn blocks_at(&self, lsn: Lsn) -> u64 {
        let after = self.sizes.partition_point(|(from, _)| *from <= lsn);
        after.checked_sub(1).map_or(0, |i| self.sizes[i].1)
    }

    /// Where the disk is consistent from, if it can be restored at `lsn`.
    pub(crate) fn consistent_from(&self, lsn: Lsn) -> Option<Lsn> {
        if self.losses.iter().any(|(from, to)| *from < lsn && lsn <= *to) {
            return None;
        }
        let after = self.consistency.partition_point(|(from, _)| *from <= lsn);
        after.checked_sub(1).and_then(|i| self.consistency[i].1)
    }

    /// The last SEED_START at or before `lsn`.
    pub(crate) fn seeded_at(&self, lsn: Lsn) -> Option<Lsn> {
        self.seed_starts.iter().copied().rfind(|start| *start <= lsn)
    }

    /// The first LSN from `lsn` on at which the disk can be restored.
    pub(crate) fn restorable_after(&self, lsn: Lsn) -> Option<Lsn> {
        self.consistency.iter().find(|(from, at)| *from > lsn && at.is_some()).map(|(from, _)| *from)
    }

    /// Each shrink up to `at`: blocks from the size on are unknown from the LSN on.
    pub(crate) fn shrinks(&self, at: Lsn) -> impl Iterator<Item = (Lsn, u64)> + '_ {
        let known = self.sizes.partition_point(|(from, _)| *from <= at);
        self.sizes[..known].windows(2).filter(|pair| pair[1].1 < pair[0].1).map(|pair| pair[1])
    }
}

impl Disks {
    pub(crate) fn get(&self, id: DiskId) -> Option<&DiskHistory> {
        self.all.iter().find(|d| d.id == id)
    }

    /// Applies the next event, which stands in `key`.
    pub(crate) fn apply(&mut self, event: &Event, key: ObjectKey) -> Result<()> {
        DiskState::apply(&mut self.table, event).map_err(|source| Error::Format { key, source })?;
        let lsn = event.lsn;
        if let EventBody::DiskAdd { disk, vm, name, blocks } = &event.body {
            self.all.push(DiskHistory {
                id: *disk,
                vm: vm.clone(),
                name: name.clone(),
                added: lsn,
                removed: None,
                sizes: vec![(lsn, *blocks)],
                consistency: Vec::new(),
                losses: Vec::new(),
                seeds: Vec::new(),
                seed_starts: Vec::new(),
            });
            return Ok(());
        }
        let Some(id) = disk_of(&event.body) else { return Ok(()) };
        let Some(disk) = self.all.iter_mut().find(|d| d.id == id) else { return Ok(()) };
        match &event.body {
            EventBody::DiskResize { blocks, .. } => disk.sizes.push((lsn, *blocks)),
            EventBody::DiskRemove { .. } => disk.removed = Some(lsn),
            EventBody::SeedStart { .. } => disk.seed_starts.push(lsn),
            EventBody::SeedExtent { base, extent, .. } => {
                let why = "names a base object before any SEED_START";
                let start = disk
                    .seed_starts
                    .last()
                    .copied()
                    .ok_or_else(|| Error::Chain { key, why: format!("lsn {lsn} {why}") })?;
                disk.seeds.push(SeedPart { start, named: lsn, base: *base, extent: *extent });
            }
            EventBody::Gap { from, to, .. } => {
                disk.losses.push((*from, *to));
                disk.consistency.push((lsn, None));
            }
            EventBody::ConsistentFrom { .. } => disk.consistency.push((lsn, Some(lsn))),
            _ => {}
        }
        Ok(())
    }
}

/// The disk that an event is about.
pub(crate) fn disk_of(body: &EventBody) -> Option<DiskId> {
    match body {
        EventBody::DiskAdd { disk, .. }
        | EventBody::DiskResize { disk, .. }
        | EventBody::DiskRemove { disk }
        | EventBody::Flush { disk }
        | EventBody::SeedStart { disk }
        | EventBody::SeedExtent { disk, .. }
        | EventBody::SeedDone { disk }
        | EventBody::Gap { disk, .. }
        | EventBody::ResyncStart { disk }
        | EventBody::ResyncDone { disk }
        | EventBody::ConsistentFrom { disk } => Some(*disk),
        _ => None,
    }
}
