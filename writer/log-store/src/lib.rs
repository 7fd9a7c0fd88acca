//! The replication log store: the logs of all domains of an appliance, on one block device or file (the LUN).
//!
//! A guest write is durable here before it is acknowledged, and stays until the bucket has it. [`LogStore`] formats and
//! opens a LUN and recovers every domain on it; [`DomainLog`] appends records, reads them back for the shipper, trims
//! what the bucket has, and keeps small named values. Each domain's log has a thread of its own and takes extents of the
//! LUN as it needs them.
//!
//! Promises: what was acknowledged and not trimmed is read back exactly, or reading it is an error of kind `DataLoss`
//! that names the place; what was appended in one call is there as a whole or not at all; after a write that failed a
//! log acknowledges nothing more. One domain's damage, full log or bug never stops another's.
//!
//! The layout is normative in `format-spec/LOGSTORE.md`. `core` decides (which batch goes where, what a page means, who
//! may have an extent) and does no I/O; `shell` reads, writes and answers.
//! Not here: giving out LSNs and times, and knowing what the bucket has.

mod buffer;
mod core;
mod crash_disk;
mod device;
mod error;
mod options;
mod record;
mod rules;
mod shell;
#[cfg(test)]
mod sim;

pub use crash_disk::{CrashDisk, Fault};
pub use device::{Device, FileDevice};
pub use error::{Error, FullCause, Result};
pub use options::{Existing, FormatOptions, OpenOptions, SpaceLimits, SpaceUsage, Usage};
pub use record::{Record, RecordBody};
pub use shell::domain::{Appended, DomainLog};
pub use shell::store::LogStore;
