//! The decisions, without I/O, clock or await.
//!
//! [`sequencer`] gives positions and times, [`relation`] says how the log store and the bucket belong together after a
//! restart, [`phase`] is the life of a domain's replication as one table, [`ledger`] is what has to be remembered besides
//! the log, [`backlog`] what backpressure looks at.

pub(crate) mod backlog;
pub(crate) mod ledger;
pub(crate) mod phase;
pub(crate) mod relation;
pub(crate) mod sequencer;
