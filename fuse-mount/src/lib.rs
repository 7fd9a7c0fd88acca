//! A domain's history as a read-only file tree, and recovery disks as one that can be written to.
//!
//! [`TimeTree`] shows every point of a domain's history as a directory of VMs and disks. It answers as a [`DiskFs`], which
//! knows no FUSE; `session` mounts one, `adapter` translates the kernel's requests. What a mount promises its users is docs/contract.md, each paragraph of it a test.
//! [`LiveTree`] shows recovery disks, each of them an overlay over a point.
//! Not here: finding and checking the bytes (`tidemark-reader`), and what becomes of a write (`tidemark-overlay`).

mod adapter;
mod crew;
mod error;
mod fs;
mod handles;
mod health;
mod images;
mod live;
mod mountpoint;
mod names;
mod nodes;
mod options;
mod passthrough;
mod session;
mod stats;
mod tree;

pub use error::{Error, Result};
pub use fs::{
    Answer, Attr, DirEntry, DiskFs, Ino, NodeKind, Pending, ReadAnswer, SeekTo, Totals, Validity, WriteAnswer,
};
pub use live::{LiveDisk, LiveTree, open_disks};
pub use names::{ESCAPED_BYTES_MAX, escape, unescape};
pub use options::{Access, ServeOptions};
pub use session::{MountHandle, Unmounted, serve};
pub use stats::MountStats;
pub use tree::{TimeTree, TreeOptions};

use std::path::Path;
use std::sync::Arc;
use tidemark_env::Env;
use tidemark_reader::Domain;

/// How a domain is mounted.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    /// What is shown.
    pub tree: TreeOptions,
    /// How it is served.
    pub serve: ServeOptions,
}

/// Mounts a domain at `dir`. May block for a moment; the mount lives until the handle is dropped or it is unmounted.
///
/// # Errors
/// If `options.tree.at` names no point, `dir` cannot be mounted on, or FUSE is missing or not permitted.
pub fn mount(domain: Domain, dir: &Path, options: &MountOptions, env: &Env) -> Result<MountHandle> {
    let mut tree = options.tree.clone();
    // A look for new writes that fails must leave time to show what is known.
    tree.refresh_deadline = tree.refresh_deadline.min(options.serve.request_deadline / 2);
    let tree = TimeTree::new(domain, tree, env.clone())?;
    serve(Arc::new(tree), dir, &options.serve, env)
}
