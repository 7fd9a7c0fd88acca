//! The disks of the domain: what exists, how large it is, which requests make sense.

use super::layout::Body;
use super::log::Submission;
use crate::error::{Error, Result};
use tidemark_format::{DISK_BLOCKS_MAX, DiskId, DiskState, Event, EventBody, Extent, Lsn};

/// Bytes of a VM's or disk's name, of a bookmark's name, at most.
pub(crate) const NAME_BYTES_MAX: u64 = 1 << 10;
/// Disks that a domain may ever have had, at most.
const DISKS_MAX: u64 = 1 << 16;

/// What a new disk holds at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros: it is restorable at once.
    Blank,
    /// Something that seeding will bring; unknown until then.
    Existing,
}

/// Every disk that the domain ever had, by id.
#[derive(Clone, Debug, Default)]
pub struct DiskTable {
    states: Vec<DiskState>,
}

impl DiskTable {
    /// A table in ascending order of ids.
    pub fn new(states: Vec<DiskState>) -> Self {
        Self { states }
    }

    /// Every disk, in ascending order of ids, those that left included.
    pub fn states(&self) -> &[DiskState] {
        &self.states
    }

    /// A disk that has not left.
    ///
    /// # Errors
    /// `NoDisk` if there is none.
    pub fn get(&self, disk: DiskId) -> Result<&DiskState> {
        self.states
            .binary_search_by_key(&disk, |state| state.disk)
            .ok()
            .map(|at| &self.states[at])
            .filter(|state| state.removed_at.is_none())
            .ok_or(Error::NoDisk { disk })
    }

    /// Checks a run of blocks against the disk as it is now.
    ///
    /// # Errors
    /// `NoDisk`, and `OutOfRange` for a run that is empty or leaves the disk.
    pub fn check(&self, disk: DiskId, extent: Extent) -> Result<()> {
        let blocks = self.get(disk)?.blocks;
        match extent.start.checked_add(extent.len) {
            Some(end) if extent.len > 0 && end <= blocks => Ok(()),
            _ => Err(Error::OutOfRange { disk, extent, blocks }),
        }
    }

    /// The id for a new disk.
    fn next_id(&self, vm: &str, name: &str, blocks: u64) -> Result<DiskId> {
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

    /// Plans a new disk: its id, and what to log for it, with nothing in between.
    ///
    /// # Errors
    /// Kind `FixRequest` for a name that is taken, empty or too long, and for a size that the format cannot hold.
    pub fn plan_add(&self, vm: &str, name: &str, blocks: u64, content: Content) -> Result<(DiskId, Vec<Submission>)> {
        let disk = self.next_id(vm, name, blocks)?;
        let add = EventBody::DiskAdd { disk, vm: vm.to_owned(), name: name.to_owned(), blocks };
        let mut plan = vec![Submission::Event(add)];
        if content == Content::Blank {
            plan.extend(zeros(disk, 0, blocks));
            plan.push(Submission::Event(EventBody::ConsistentFrom { disk }));
        }
        Ok((disk, plan))
    }

    /// Plans a new size: what to log for it, with nothing in between. What the disk gains is zeros; what it loses is gone
    /// for good.
    ///
    /// # Errors
    /// `NoDisk`, and `Limit` for a size that the format cannot hold.
    pub fn plan_resize(&self, disk: DiskId, blocks: u64) -> Result<Vec<Submission>> {
        check_blocks(blocks)?;
        let before = self.get(disk)?.blocks;
        let mut plan = vec![Submission::Event(EventBody::DiskResize { disk, blocks })];
        //= SPEC.md#events
        //# E-4
        plan.extend(zeros(disk, before, blocks.saturating_sub(before)));
        Ok(plan)
    }

    /// Checks that an event makes sense as the next one.
    ///
    /// # Errors
    /// `BadEvent` for a disk that is not there, or an id that is taken.
    pub fn check_event(&self, lsn: Lsn, body: &EventBody) -> Result<()> {
        // Only disks change the table, and it is small: trying is the surest check.
        let mut states = self.states.clone();
        let event = Event { lsn, body: body.clone() };
        DiskState::apply(&mut states, &event).map_err(|source| Error::BadEvent { lsn, source })
    }

    /// Takes over what an event says. The caller has checked it.
    ///
    /// # Errors
    /// The codec's, for an event that makes no sense; nothing has changed then.
    pub fn apply(&mut self, event: &Event) -> Result<(), tidemark_format::FormatError> {
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

/// Zeros over a run of blocks, if there are any.
fn zeros(disk: DiskId, start: u64, len: u64) -> Option<Submission> {
    let extent = Extent::new(start, len);
    (len > 0).then_some(Submission::Write { disk, extent, body: Body::Zero })
}

/// A disk's size that the format can hold.
fn check_blocks(blocks: u64) -> Result<()> {
    if blocks > DISK_BLOCKS_MAX {
        return Err(Error::Limit { what: "size of the disk in blocks", value: blocks, max: DISK_BLOCKS_MAX });
    }
    Ok(())
}
