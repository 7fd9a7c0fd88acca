//! What any object store must do before a domain is entrusted to it, and the real stores that tests talk to.
//!
//! [`suite`] turns a way to get empty buckets into a list of broken promises; it is run on memory, on a directory and on a
//! real S3 server. [`SeaweedFs`] and [`LyingS3`] are such servers, for these tests and for others.
//! Not here: tests of the stores' own insides (crash safety of a directory stands in `tests/`).

mod checks;
mod server;

pub use checks::{Broken, CHECKS, suite};
pub use server::{LyingS3, SeaweedFs, Tls};
