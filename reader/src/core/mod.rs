//! Decisions without I/O: what the events of the log mean, what to fetch together and ahead.
//!
//! Events and accesses go in, answers and plans come out; the shell ([`crate::frames`], [`crate::image`]) performs them. Nothing here awaits, reads a clock or names a bucket.

pub(crate) mod disks;
pub(crate) mod prefetch;
pub(crate) mod scatter;
