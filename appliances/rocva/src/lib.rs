//! The recovery appliance: a domain's VMs, running from its bucket.
//!
//! A [`Site`] is what a domain holds at a point: VMs, their configurations as they were recorded, their disks.
//! Not here: what starts in which order (`tidemark-runbook`), the disks' contents (`tidemark-reader`).

mod error;
mod machine;
mod site;

pub use error::{Error, Result};
pub use machine::{BootFrom, Bus, DiskSlot, Firmware, MachineConfig, Nic};
pub use site::{DiskOfVm, RecordedVm, Site};
