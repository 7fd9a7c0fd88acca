//! CUT: the first object of a writer epoch; it says where the predecessor's log ends (SPEC.md §cut).

use crate::error::{FormatError, Result};
use crate::event::Event;
use crate::fields::{Fields, Value};
use crate::ids::{DiskId, Epoch, Lsn, Seq};
use crate::index::DISK_BLOCKS_MAX;
use minicbor::Decoder;

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The epoch that ended.
    pub epoch: Epoch,
    /// Its last segment; 0 if it has only its CUT.
    pub seq: Seq,
    /// Header hash of that segment.
    pub header_hash: [u8; 32],
}

/// The state of one disk at a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskState {
    /// The disk.
    pub disk: DiskId,
    /// The VM that it belongs to.
    pub vm: String,
    /// Its name within the VM.
    pub name: String,
    /// Its size in blocks.
    pub blocks: u64,
    /// From which LSN on it is restorable, if it is.
    pub consistent_from: Option<Lsn>,
    /// LSN of its last SEED_START, if there was one.
    pub seeded_at: Option<Lsn>,
    /// Where it left the domain, if it did.
    pub removed_at: Option<Lsn>,
}

/// The body of a CUT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The log that this epoch continues; `None` for the first epoch of a domain.
    pub predecessor: Option<Tail>,
    /// First LSN of this epoch: one more than the predecessor's last.
    pub next_lsn: Lsn,
    /// Nonce of this epoch's claim.
    pub claim_nonce: [u8; 16],
    /// Every disk that the domain ever had.
    pub disks: Vec<DiskState>,
}

const WHAT: &str = "cut";

impl DiskState {
    /// Applies an event to the table of disks, as a reader does while it walks the log.
    ///
    /// # Errors
    /// `Event` if it names a disk that does not exist, or adds one that does.
    pub fn apply(table: &mut Vec<Self>, event: &Event) -> Result<()> {
        use crate::event::EventBody as B;
        let Event { lsn, body } = event;
        let lsn = *lsn;
        if let B::DiskAdd { disk, vm, name, blocks } = body {
            return match table.binary_search_by_key(disk, |state| state.disk) {
                //= SPEC.md#events
                //# E-3
                Ok(_) => Err(FormatError::Event { lsn, why: "adds a disk whose id is taken" }),
                Err(at) => {
                    let (vm, name) = (vm.clone(), name.clone());
                    let disk = *disk;
                    let state = Self {
                        disk,
                        vm,
                        name,
                        blocks: *blocks,
                        consistent_from: None,
                        seeded_at: None,
                        removed_at: None,
                    };
                    table.insert(at, state);
                    Ok(())
                }
            };
        }
        let (B::DiskResize { disk, .. }
        | B::DiskRemove { disk }
        | B::Flush { disk }
        | B::SeedStart { disk }
        | B::SeedExtent { disk, .. }
        | B::SeedDone { disk }
        | B::Gap { disk, .. }
        | B::ResyncStart { disk }
        | B::ResyncDone { disk }
        | B::ConsistentFrom { disk }) = body
        else {
            return Ok(());
        };
        let at = table
            .binary_search_by_key(disk, |state| state.disk)
            .map_err(|_| FormatError::Event { lsn, why: "names a disk that does not exist" })?;
        let state = &mut table[at];
        match body {
            B::DiskResize { blocks, .. } => state.blocks = *blocks,
            B::DiskRemove { .. } => state.removed_at = Some(lsn),
            B::SeedStart { .. } => state.seeded_at = Some(lsn),
            B::Gap { .. } => state.consistent_from = None,
            B::ConsistentFrom { .. } => state.consistent_from = Some(lsn),
            _ => {}
        }
        Ok(())
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::default()
            .with("disk", u64::from(self.disk.get()))
            .with("vm", self.vm.as_str())
            .with("name", self.name.as_str())
            .with("blocks", self.blocks);
        for (name, lsn) in
            [("consistent_from", self.consistent_from), ("seeded_at", self.seeded_at), ("removed_at", self.removed_at)]
        {
            if let Some(lsn) = lsn {
                fields = fields.with(name, lsn.get());
            }
        }
        fields
    }

    fn from_fields(fields: &Fields) -> Result<Self> {
        let lsn = |field| match fields.get(field) {
            None => Ok(None),
            Some(Value::Uint(lsn)) => Ok(Some(Lsn::new(*lsn))),
            Some(_) => Err(FormatError::Field { what: WHAT, field }),
        };
        let blocks = fields.uint(WHAT, "blocks")?;
        if blocks > DISK_BLOCKS_MAX {
            return Err(FormatError::Field { what: WHAT, field: "blocks" });
        }
        Ok(Self {
            disk: DiskId::new(fields.uint32(WHAT, "disk")?),
            vm: fields.text(WHAT, "vm")?,
            name: fields.text(WHAT, "name")?,
            blocks,
            consistent_from: lsn("consistent_from")?,
            seeded_at: lsn("seeded_at")?,
            removed_at: lsn("removed_at")?,
        })
    }
}

impl Cut {
    /// The fields, as they stand in the object.
    pub fn fields(&self) -> Fields {
        let mut fields =
            Fields::default().with("next_lsn", self.next_lsn.get()).with("claim_nonce", self.claim_nonce.as_slice());
        if let Some(tail) = &self.predecessor {
            fields = fields
                .with("tail_epoch", tail.epoch.get())
                .with("tail_seq", tail.seq.get())
                .with("tail_hash", tail.header_hash.as_slice());
        }
        fields.with("disks", Value::List(self.disks.iter().map(DiskState::fields).collect()))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.fields().put(&mut out);
        out
    }

    pub(crate) fn decode(section: &[u8]) -> Result<Self> {
        let mut from = Decoder::new(section);
        let fields = Fields::take(&mut from, WHAT)?;
        if from.position() != section.len() {
            return Err(FormatError::TrailingBytes { what: WHAT, extra: (section.len() - from.position()) as u64 });
        }
        let predecessor = match fields.get("tail_epoch") {
            None => None,
            Some(_) => Some(Tail {
                epoch: Epoch::new(fields.uint(WHAT, "tail_epoch")?),
                seq: Seq::new(fields.uint(WHAT, "tail_seq")?),
                header_hash: fields.bytes(WHAT, "tail_hash")?,
            }),
        };
        let disks: Vec<_> = fields.list(WHAT, "disks")?.iter().map(DiskState::from_fields).collect::<Result<_>>()?;
        if disks.windows(2).any(|pair| pair[0].disk >= pair[1].disk) {
            return Err(FormatError::Field { what: WHAT, field: "disks" });
        }
        Ok(Self {
            predecessor,
            next_lsn: Lsn::new(fields.uint(WHAT, "next_lsn")?),
            claim_nonce: fields.bytes(WHAT, "claim_nonce")?,
            disks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventBody;

    fn apply(table: &mut Vec<DiskState>, lsn: u64, body: EventBody) -> std::result::Result<(), &'static str> {
        DiskState::apply(table, &Event { lsn: Lsn::new(lsn), body }).map_err(|e| e.name())
    }

    //= SPEC.md#events
    //# E-3
    #[test]
    fn events_name_disks_that_exist_and_ids_are_never_reused() {
        let (disk, blocks) = (DiskId::new(1), 8);
        let add = || EventBody::DiskAdd { disk, vm: "db".into(), name: "vda".into(), blocks };
        let mut table = Vec::new();
        assert_eq!(apply(&mut table, 1, EventBody::Flush { disk }), Err("Event"));
        assert_eq!(apply(&mut table, 1, EventBody::Barrier), Ok(()));
        assert_eq!(apply(&mut table, 2, add()), Ok(()));
        assert_eq!(apply(&mut table, 3, EventBody::DiskResize { disk, blocks: 16 }), Ok(()));
        assert_eq!(apply(&mut table, 4, EventBody::ConsistentFrom { disk }), Ok(()));
        assert_eq!(apply(&mut table, 5, EventBody::DiskRemove { disk }), Ok(()));
        assert_eq!(apply(&mut table, 6, add()), Err("Event"));
        let state = &table[0];
        assert_eq!((table.len(), state.blocks, state.consistent_from), (1, 16, Some(Lsn::new(4))));
        assert_eq!(state.removed_at, Some(Lsn::new(5)));
    }
}
