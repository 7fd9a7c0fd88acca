//! The IO filter: sees every write of a VM before it is acknowledged.
//!
//! A front-end (NBD today) turns a client's requests into calls of a [`Volume`]; what stands behind the volume logs,
//! orders and answers them. Volumes see whole blocks only: [`edges`] does the rest. Who may write is settled by a
//! [`WriteClaim`], so that a live migration has two hosts connected and one that writes.
//!
//! Not here: logging and protection modes (the DRVA's volume), reading the past (the reader).

mod claim;
mod client;
pub mod edges;
mod error;
mod memory;
pub mod nbd;
mod range;
mod volume;

pub use claim::{Claimed, Contention, FENCED_PARTIES_MAX, WriteClaim};
pub use client::{Client, Party, Peer};
pub use error::{Cause, Error, Result};
pub use memory::{MEMORY_BYTES_MAX, MemoryVolume};
pub use range::{ByteRange, RangeGuard, RangeLock};
pub use volume::{
    ExportInfo, Exports, Geometry, OFFERED_LSNS_MAX, Part, Persist, RunState, StatusContext, StatusRun, Volume,
    ZeroOptions,
};
