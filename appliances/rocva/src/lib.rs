//! The recovery appliance: a domain's VMs, running from its bucket.
//!
//! A [`Site`] is what a domain holds at a point: VMs, their configurations as they were recorded, their disks. A [`Job`] is a recovery of it,
//! in a directory from which any process can go on; [`Recovery`] decides what comes next, and a [`Runner`] does it, with a [`Hypervisor`]
//! that runs VMs ([`Qemu`]) and [`Disks`] that they run on ([`Rvms`]). A [`Report`] says what was done and how long it took.
//! [`restore()`] makes an image that is there already equal to a point.
//! Not here: what starts in which order (`tidemark-runbook`), the disks' contents (`tidemark-reader`, `tidemark-overlay`).

mod core;
mod disks;
mod durable;
mod error;
mod hypervisor;
mod job;
mod machine;
mod probe;
mod process;
mod qemu;
mod report;
mod restore;
mod runner;
mod rvm;
mod site;

pub use crate::core::{Cause, Effect, Event, IllegalMove, Phase, Record, Recovery, StepRecord, StepState};
pub use disks::{Disks, DisksOf, Hydration};
pub use error::{Error, Result};
pub use hypervisor::{Card, Guest, GuestDisk, GuestState, Hypervisor, Image};
pub use job::{DiskSpec, Job, JobSpec, VmSpec, Wanted, look};
pub use machine::{BootFrom, Bus, DiskSlot, Firmware, MachineConfig, Nic};
pub use qemu::{Accelerator, Qemu, QemuOptions};
pub use report::{Report, StepReport, VmReport};
pub use restore::{Heard, Lacking, RestoreOptions, Restored, restore};
pub use runner::{Runner, Until, WISHES_MAX, Wish};
pub use rvm::{Rvms, serve_rvm};
pub use site::{DiskOfVm, RecordedVm, Site};
