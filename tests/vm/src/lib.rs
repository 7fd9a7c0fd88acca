//! Real QEMU guests, emulated, for the tests of whatever a guest's disk goes through.
//!
//! A [`Machine`] says which disks a guest has and which [`Job`] it does; booted, it is a [`Guest`], which says on its serial
//! console what its disk told it is durable ([`Serial`]). A test kills it at any moment, boots another on what is left, and
//! [`Promises`] tells whether everything promised was held. [`NbdServer`] is the peer: QEMU's own server of an image.
//! Everything waits for conditions, with a deadline; everything ends with its guard, and with the process of the test.
//!
//! `tests/vm/install.sh` (called by `scripts/install`) puts QEMU, a kernel and an initrd below `.tools/vm`; what runs in the
//! guest is `guest/init`.

mod guest;
mod nbd;
mod process;
mod serial;

pub use guest::{Disk, Guest, Job, Machine};
pub use nbd::{NbdServer, fsck, fsck_copy};
pub use process::{initrd, kernel, tool, until};
pub use serial::{KEPT_STEPS, Promises, Serial, Verdict};
