//! Performs what the core decides: requests, compression, timers, waiting. Decides nothing itself.

pub(crate) mod build;
pub(crate) mod driver;
pub(crate) mod durability;
pub(crate) mod open;
pub(crate) mod retry;
pub(crate) mod shared;
