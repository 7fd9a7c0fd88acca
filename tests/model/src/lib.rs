//! Models too simple to be wrong: disk images per LSN, and the commit rules explored state by state.
//!
//! [`domain`] keeps every disk's whole image once per LSN, so "what does the disk look like at LSN n" is an array index;
//! [`ops`] makes random histories that the model and the code under test both apply; [`rules`] explores the commit and
//! fencing rules of SPEC.md with every actor free to stall for ever.
//! Not here: anything that a reader or writer of the real format shares. The models know no bytes of it.

pub mod domain;
pub mod ops;
pub mod rules;

pub use domain::{Cell, DiskModel, DomainModel};
pub use ops::{Op, OpsShape, any_ops, calls};
