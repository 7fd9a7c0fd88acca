//! The DR virtual appliance: guest writes in, a domain's history in its bucket out.
//!
//! [`config`] is what it is told when it starts, [`Control`] what it can be asked to do, [`notify`] tells systemd.
//! Not here: the command line, and the wire types (`tidemark-api`).

pub mod config;
mod control;
pub mod notify;

pub use control::{Answer, Control};
