//! Decisions without I/O: what to ask the bucket next, what the answers mean, what to fetch together and ahead.
//!
//! Answers go in, wants and plans come out; the shell ([`crate::domain`], [`crate::frames`], [`crate::image`]) performs
//! them. Nothing here awaits, reads a clock or names a bucket.

pub(crate) mod coalesce;
pub(crate) mod disks;
pub(crate) mod log;
pub(crate) mod prefetch;
pub(crate) mod walk;
