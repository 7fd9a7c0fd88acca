//! A domain's history as a read-only file tree.
//!
//! [`DiskFs`] says what a tree of disk images must answer. `session` mounts one through FUSE, `adapter` translates the
//! kernel's requests. What a mount promises its users is docs/contract.md, each paragraph of it a test.
//! Not here: finding and checking the bytes (`tidemark-reader`), and any writing.

mod adapter;
mod error;
mod fs;
mod health;
mod mountpoint;
mod names;
mod options;
mod session;
mod stats;

pub use error::{Error, Result};
pub use fs::{
    Answer, Attr, Caching, DirEntry, DiskFs, Ino, NodeKind, Opened, Pending, ReadAnswer, SeekTo, Totals, Validity,
};
pub use names::{ESCAPED_BYTES_MAX, escape, unescape};
pub use options::{Access, ServeOptions};
pub use session::{MountHandle, Unmounted, serve};
pub use stats::MountStats;
