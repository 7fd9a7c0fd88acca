//! What any object store must do before a domain is entrusted to it, and the real stores that tests talk to.
//!
//! [`suite`] turns a way to get empty buckets into a list of broken promises; it is run on memory, on a directory and on a
//! real S3 server. [`SeaweedFs`] and [`LyingS3`] are such servers, for these tests and for others.
//! Not here: tests of the stores' own insides (crash safety of a directory stands in `tests/`).

mod checks;
mod server;

pub use checks::{Broken, CHECKS, suite};
pub use server::{LyingS3, SeaweedFs, Tls};

/// The bytes of a segment that tells by itself which one it is: up to 256 KiB that depend on its numbers alone.
pub fn segment_of(epoch: u64, seq: u64) -> Vec<u8> {
    use tidemark_env::Entropy;
    let noise = tidemark_env::SeededEntropy::new(epoch << 32 | seq);
    let mut segment = vec![0; 1 + (noise.number() % (256 << 10)) as usize];
    noise.fill(&mut segment);
    segment
}
