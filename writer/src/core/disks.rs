//! The disks of the domain: what exists, how large it is, which requests make sense.

use crate::error::{Error, Result};
use tidemark_format::{DISK_BLOCKS_MAX, DiskId, DiskState, Event, Extent};

/// Bytes of a VM's or disk's name, of a bookmark's name, at most.
pub(crate) const NAME_BYTES_MAX: u64 = 1 << 10;
/// Disks that a domain may ever have had, at most.
const DISKS_MAX: u64 = 1 << 16;

/// Every disk that the domain ever had, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskTable {
    states: Vec<DiskState>,
}

impl DiskTable {
    pub(crate) fn new(states: Vec<DiskState>) -> Self {
        Self { states }
    }

    pub(crate) fn states(&self) -> &[DiskState] {
        &self.states
    }

    /// A disk that has not left.
    pub(crate) fn get(&self, disk: DiskId) -> Result<&DiskState> {
        self.states
            .binary_search_by_key(&disk, |state| state.disk)
            .ok()
            .map(|at| &self.states[at])
            .filter(|state| state.removed_at.is_none())
            .ok_or(Error::NoDisk { disk })
    }

    /// Checks a run of blocks against the disk as it is now.
    pub(crate) fn check(&self, disk: DiskId, extent: Extent) -> Result<()> {
        let blocks = self.get(disk)?.blocks;
        match extent.start.checked_add(extent.len) {
            Some(end) if extent.len > 0 && end <= blocks => Ok(()),
            _ => Err(Error::OutOfRange { disk, extent, blocks }),
        }
    }

    /// The id for a new disk.
    pub(crate) fn next_id(&self, vm: &str, name: &str, blocks: u64) -> Result<DiskId> {
        check_name("name of the vm", vm)?;
        check_name("name of the disk", name)?;
        check_blocks(blocks)?;
        let live = |state: &&DiskState| state.removed_at.is_none() && state.vm == vm && state.name == name;
        if let Some(there) = self.states.iter().find(live) {
            return Err(Error::DiskExists { vm: vm.to_owned(), name: name.to_owned(), disk: there.disk });
        }
        let count = self.states.len() as u64;
        if count >= DISKS_MAX {
            return Err(Error::Limit { what: "number of disks", value: count + 1, max: DISKS_MAX });
        }
        Ok(DiskId::new(self.states.last().map_or(0, |last| last.disk.get()) + 1))
    }

    /// Takes over what an event says. The caller has checked it.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<(), tidemark_format::FormatError> {
        DiskState::apply(&mut self.states, event)
    }
}

/// A name says something and is not a novel.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    match name.len() as u64 {
        0 => Err(Error::Empty { what }),
        value if value > NAME_BYTES_MAX => Err(Error::Limit { what, value, max: NAME_BYTES_MAX }),
        _ => Ok(()),
    }
}

/// A disk's size that the format can hold.
pub(crate) fn check_blocks(blocks: u64) -> Result<()> {
    if blocks > DISK_BLOCKS_MAX {
        return Err(Error::Limit { what: "size of the disk in blocks", value: blocks, max: DISK_BLOCKS_MAX });
    }
    Ok(())
}
