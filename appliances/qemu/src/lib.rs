//! Taps the disks of a running QEMU, and freezes guests.
//!
//! [`Qmp`] speaks to a VM's monitor; [`find_disk`] finds a disk by any of its names; a [`Tap`] mirrors each of its writes to an
//! NBD export before the guest hears that it is done, and follows what becomes of that. [`Agent`] speaks to QEMU's guest agent, and
//! its [`Frozen`] holds a guest's file systems still for the moment of a bookmark.
//! Not here: the NBD server that the writes go to, and what is done with them.

mod address;
mod agent;
mod disk;
mod error;
mod lines;
mod qmp;
mod tap;

pub use address::{Address, BadAddress};
pub use agent::{Agent, AgentOptions, FREEZE_MAX_DEFAULT, Frozen};
pub use disk::{GuestDisk, disks, find_disk};
pub use error::{Error, Result};
pub use qmp::{EVENTS_MAX, Event, Events, Heard, LINE_BYTES_MAX, Qmp, QmpOptions, Version};
pub use tap::{GapCause, NbdTarget, Progress, Tap, TapOptions, TapState};
