//! Keeps a protected domain replicated: orders its writes, logs them before they are acknowledged, ships them to the bucket.
//!
//! A [`ProtectedDomain`] gives every write and event its LSN and time and hands it to the domain's log in the local log
//! store; once that is durable the guest may be told. A shipper reads the log in order and replays it into a
//! [`tidemark_writer::DomainWriter`]; a keeper trims what the bucket has committed and the primary disks hold. The bucket
//! may be away for as long as the log has room.
//!
//! Invariants: what is shipped is durable in the log; what is trimmed is committed in the bucket (SPEC.md F-6) and applied
//! to its primary; only LSNs that this log store gave are continued from it.
//! The decisions live in `core`, without I/O or clock. Not here: the log's format (`tidemark-log-store`), segments
//! (`tidemark-writer`), primaries and front-ends (the DRVA).

mod core;
mod domain;
mod error;
mod gap;
mod keeper;
mod lineage;
mod options;
mod pace;
mod seeding;
mod shared;
mod shipper;
mod status;

pub use core::phase::{Cause, Phase};
pub use domain::{Logged, ProtectedDomain};
pub use error::{Error, Result};
pub use gap::Compare;
pub use options::{ReplicationOptions, TakeOver};
pub use pace::Throughput;
pub use seeding::{Ends, Source};
pub use status::{DiskStatus, DomainStatus, Standing, Totals};
