//! The maintenance role: keeps the index of a domain, so that opening a point costs the same however long the history is.
//!
//! A [`Maintainer`] claims an epoch of its own, turns the rows of final log segments into runs, merges eight runs of a level
//! into one of the next, and publishes each step as a root. A step is whole or absent: whoever comes next, after a crash or a
//! takeover, goes on from the newest root. At the end of a pass it decides which points the domain still offers; cleaning then rewrites
//! what is mostly needed by none of them, and deletes what nobody needs.
//!
//! Invariants: nothing is written before the claim is durable, no root before its tables; only final segments are indexed; what
//! to do is decided in [`core`], without I/O; memory is bounded by [`MaintenanceOptions`], however many rows a merge has.
//! Not here: reading disks (`tidemark-reader`), the layout of tables (`tidemark-format`).

mod claim;
mod clean;
mod core;
mod error;
mod images;
mod maintainer;
mod options;
mod output;
mod quarantine;
mod retain;
mod rewrite;
mod status;
mod sweeping;

pub use clean::CleanReport;
pub use error::{Error, Result};
pub use maintainer::{From, Maintainer, PassReport};
pub use options::MaintenanceOptions;
pub use quarantine::quarantined;
pub use retain::{RetentionPlan, retention_plan, wish};
pub use status::{ImagesStatus, IndexStatus, LevelStatus, status};
