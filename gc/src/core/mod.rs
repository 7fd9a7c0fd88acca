//! Decisions without I/O: which runs to merge, which segments make a run, in which order rows go into a table.

pub(crate) mod merge;
pub(crate) mod plan;
