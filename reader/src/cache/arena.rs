//! Memory for chunks: large anonymous mappings cut into slots. An untouched page costs nothing and reads as zeros.
//!
//! One mapping for many chunks, because a mapping each would run into the kernel's limit on mappings. A slot that comes
//! back is emptied with `MADV_DONTNEED`, so every slot is handed out all zero.
#![allow(unsafe_code)]

use super::chunk::CHUNK_BYTES;
use super::lock;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

/// Slots of one mapping. Only address space: 256 MiB.
const SLOTS_PER_MAPPING: usize = 256;
const MAPPING_BYTES: usize = SLOTS_PER_MAPPING * CHUNK_BYTES;

/// The mappings and their free slots.
#[derive(Debug)]
pub(crate) struct Arena {
    state: Mutex<State>,
    slots_max: usize,
}

#[derive(Debug, Default)]
struct State {
    mappings: Vec<Mapping>,
    free: Vec<NonNull<u8>>,
}

// SAFETY: the pointers are to mappings that the arena owns and that no thread has a claim on.
unsafe impl Send for State {}

#[derive(Debug)]
struct Mapping(NonNull<u8>);

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `Arena::grow` with this length; every slot in it holds the arena alive, so
        // nobody points into it any more.
        let unmapped = unsafe { munmap(self.0.as_ptr().cast(), MAPPING_BYTES) };
        debug_assert!(unmapped.is_ok());
    }
}

impl Arena {
    pub(crate) fn new(slots_max: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::default()), slots_max })
    }

    /// A slot of zeros, or `None` if all are taken or the system has no more memory to map.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Slot> {
        let mut state = lock(&self.state);
        if state.free.is_empty() {
            self.grow(&mut state)?;
        }
        state.free.pop().map(|at| Slot { at, arena: Arc::clone(self) })
    }

    fn grow(&self, state: &mut State) -> Option<()> {
        let room = self.slots_max.saturating_sub(state.mappings.len() * SLOTS_PER_MAPPING).min(SLOTS_PER_MAPPING);
        if room == 0 {
            return None;
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let at =
            unsafe { mmap_anonymous(std::ptr::null_mut(), MAPPING_BYTES, ProtFlags::READ | ProtFlags::WRITE, flags) };
        let at = NonNull::new(at.ok()?.cast::<u8>())?;
        // A huge page would make one touched 4 KiB page cost 2 MiB. Kernels without huge pages refuse; all the same.
        // SAFETY: the range is the mapping just made.
        let _ = unsafe { madvise(at.as_ptr().cast(), MAPPING_BYTES, Advice::LinuxNoHugepage) };
        state.mappings.push(Mapping(at));
        // SAFETY: every offset lies inside the mapping.
        state.free.extend((0..room).rev().map(|i| unsafe { at.add(i * CHUNK_BYTES) }));
        Some(())
    }
}

/// [`CHUNK_BYTES`] of memory, all zero when taken, owned by whoever holds it.
#[derive(Debug)]
pub(crate) struct Slot {
    at: NonNull<u8>,
    arena: Arc<Arena>,
}

// SAFETY: a slot is plain memory that belongs to its holder alone.
unsafe impl Send for Slot {}
// SAFETY: through `&Slot` only the address can be had; the chunk that uses it says who may touch which page when.
unsafe impl Sync for Slot {}

impl Slot {
    /// First byte; valid for [`CHUNK_BYTES`] as long as the slot lives.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.at.as_ptr()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the slot is CHUNK_BYTES of a live mapping, and its holder, the only user, is letting go of it.
        let emptied = unsafe { madvise(self.at.as_ptr().cast(), CHUNK_BYTES, Advice::LinuxDontNeed) };
        // Not emptied means not zero: then the slot is lost rather than handed out with old bytes.
        if emptied.is_ok() {
            lock(&self.arena.state).free.push(self.at);
        }
    }
}
