//! Tidemark Log Format v1: the reference codec of `SPEC.md`.

pub mod ids;
pub mod key;
pub mod kind;
pub mod text;

pub use ids::{BLOCK_BYTES, BadName, DiskId, DomainId, Epoch, Extent, Lsn, Role, Seq, TimeNs};
pub use key::{KeyFamily, ObjectKey};
pub use kind::ErrorKind;
