//! Writable recovery disks: an immutable point in time below, a local file over it, and what brings the one into the other.
//!
//! An [`Overlay`] is one disk. Its local file is sparse, has the disk's size, and holds every unit of 4 KiB at the unit's own
//! place; a map beside it says which units it holds and which of them the guest wrote. What it does not hold comes from the
//! [`Source`]. Any number of overlays stand on one point without knowing of each other. A [`Hydrator`] brings in what is
//! absent; once nothing is, the local file is the disk: a plain raw image.
//!
//! Invariants:
//! - A unit that the map calls present has its bytes in the local file. Durable alike: the map is durable after the data.
//! - Whoever was acknowledged keeps it: a write outlasts the process, a flush outlasts the machine.
//! - A unit never goes back; the hydrator writes only units that are absent, so a guest's write is never lost to it.
//! - What the local disk failed to keep is never called kept again, not even after a restart.
//!
//! Not here: FUSE (`tidemark-fuse`), VMs (appliances), finding and checking the bytes of a point (`tidemark-reader`).

mod core;
mod error;
mod hydrate;
mod journal;
mod local;
mod overlay;
mod source;

pub use crate::core::access::{ACCESS_RANGES_MAX, AccessLog};
pub use crate::core::pace::{Progress, Rate};
pub use crate::core::states::{Counts, State, UNIT_BYTES};
pub use error::{Error, Result};
pub use hydrate::{HydrateOptions, Hydrated, Hydrator, Unfilled};
pub use local::{Boot, DiskFiles, LocalFile, LocalFiles};
pub use overlay::{Finished, Overlay, OverlayStats};
pub use source::{Batch, Fetch, ImageSource, Source};
