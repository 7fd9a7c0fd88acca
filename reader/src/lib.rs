//! (disk, range, point in time) in, verified bytes out.
//!
//! A [`Domain`] finds the index of a bucket and the log behind it, without listing, and checks the chain. What the index covers is
//! read lazily; the front indexes of the rest are in memory. Without an index all of the log is the rest. Its
//! [`Timeline`] turns times, bookmarks and LSNs into points. A [`DiskImage`] is one disk at one LSN; every byte that it
//! hands out was verified when its frame was decoded, and a block that nobody knows is an error, never zeros.
//!
//! Invariants: nothing here writes; only a proven NotFound ends a log; memory is bounded by [`ReaderOptions`] plus the
//! front indexes.
//! Not here: the byte layout (`tidemark-format`), the store (`tidemark-bucket`), the mount (`tidemark-fuse`).

mod cache;
mod core;
mod differences;
mod domain;
mod error;
mod export;
mod frames;
mod history;
mod image;
mod index;
mod load;
mod maps;
mod options;
mod pins;
mod point;
mod replay;
mod scatter;
mod timeline;
mod verify;

pub use differences::{CompareOptions, Compared, Difference, Known, Proof, Proofs};
pub use domain::{Domain, MemoryUse};
pub use error::{Error, Result};
pub use export::ExportSink;
pub use history::{BlockVersion, ChangeKind, Changed, FrameRef};
pub use image::DiskImage;
pub use options::{IndexUse, ReaderOptions};
pub use pins::PinOptions;
pub use point::{Point, PointSpec, SpanText, TimeText, parse_span};
pub use replay::{Part, ReplaySink, Step};
pub use timeline::{Bookmark, DiskAt, DiskName, Gap, IndexMemory, Timeline, VmConfig};
pub use verify::{Damage, DamagedBlocks, Sample, VerifyProgress, VerifyReport, verify, verify_sample};
