//! What any object store must do before a domain is entrusted to it, and the real stores that tests talk to.
//!
//! [`suite`] turns a way to get empty buckets into a list of broken promises; it is run on memory, on a directory and on
//! real servers of S3 and Azure Blob, and by `check-store` on any other. [`Capabilities`] is what a store can do, a row of
//! docs/providers.md. [`SeaweedFs`] and [`LyingS3`] are servers for these tests and for others.
//! Not here: tests of the stores' own insides (crash safety of a directory stands in `tests/`).

mod capabilities;
mod checks;
mod raw;
mod server;
mod stores;

pub use capabilities::Capabilities;
pub use checks::{Broken, CHECKS, suite};
pub use raw::Raw;
pub use server::{LyingS3, SeaweedFs, Tls};
pub use stores::NamedStore;

/// The bytes of a segment that tells by itself which one it is: up to 256 KiB that depend on its numbers alone.
pub fn segment_of(epoch: u64, seq: u64) -> Vec<u8> {
    use tidemark_env::Entropy;
    let noise = tidemark_env::SeededEntropy::new(epoch << 32 | seq);
    let mut segment = vec![0; 1 + (noise.number() % (256 << 10)) as usize];
    noise.fill(&mut segment);
    segment
}
