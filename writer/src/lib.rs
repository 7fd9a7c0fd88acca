//! Guest writes in, committed segments in a bucket out.
//!
//! A [`DomainWriter`] owns one domain: it claims an epoch, finds where the log ends, and from then on gives every guest
//! write and event the next LSN, packs them into segments, and puts those into the bucket. A write is durable once its
//! [`Ticket`] says so: its segment, and all before it, were in the bucket before a look at the next claim found none
//! (SPEC.md §commit). A writer that finds a newer claim stops for good, with an error of kind `Fenced`.
//!
//! The rules live in a core without I/O, clock or await; the shell around it performs requests, compression and waiting.
//! Memory is bounded by [`WriterOptions`]; beyond it submitting waits.
//! Not here: reading a domain (`tidemark-reader`), deleting from it, and a replication log on local storage.

mod core;
mod domain;
mod error;
mod options;
mod seed;
mod shell;
mod status;
mod ticket;
mod writer;

pub use core::disks::{Content, DiskTable};
pub use core::layout::Body;
pub use core::log::Submission;
pub use domain::{create_domain, open_domain};
pub use error::{Error, FenceCause, Result};
pub use options::{
    Attach, IN_FLIGHT_SEGMENTS_LIMIT, SEGMENT_BYTES_LIMIT, SEGMENT_ENTRIES_MAX, WRITE_BYTES_MAX, WriterOptions,
};
pub use seed::{BaseObject, SeedPiece, Seeded};
pub use status::{Packed, WriterStatus};
pub use ticket::{Committed, Ticket};
pub use writer::{DomainWriter, NewDisk, Request, When};
