//! The DR virtual appliance: guest writes in, a domain's history in its bucket out.
//!
//! [`config`] turns a file into checked settings; [`api`] serves the control API over a unix socket, over whatever
//! implements [`Control`]; [`events`] remembers what happened lately; [`notify`] tells systemd.
//! Not here: the command line, and the wire types (`tidemark-api`).

pub mod api;
mod appliance;
mod bookmark;
mod changes;
mod compare;
pub mod config;
mod control;
mod disk;
mod error;
pub mod events;
mod exports;
mod host;
mod import;
mod inventory;
pub mod notify;
mod run;
mod stats;
mod tap;
mod upkeep;
mod volume;

pub use control::{Answer, Control};
pub use error::{Error, Result};
pub use run::run;
