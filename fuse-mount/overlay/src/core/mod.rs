//! Decisions without I/O: what each unit of a disk is, how that is written down, what to fetch next and how fast.

pub(crate) mod access;
pub(crate) mod header;
pub(crate) mod pace;
pub(crate) mod record;
pub(crate) mod states;
