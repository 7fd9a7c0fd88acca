//! NBD: the server's side of a connection, from the first greeting to the last reply.
//!
//! [`wire`] has the bytes, [`negotiate`] settles which export is used and how, [`request`] tells what is asked; these are
//! pure. [`Server`] accepts connections and moves bytes.
//!
//! What it speaks: fixed newstyle, structured replies, extended headers, block status, TLS. Of its own it sets every
//! bound in [`Limits`], so that no client can make it panic, take unbounded memory, or keep others from their disks.

mod budget;
mod connection;
mod contexts;
mod execute;
mod inbox;
mod limits;
mod listen;
pub mod negotiate;
mod outbox;
pub mod request;
mod server;
mod tls;
mod transmission;
pub mod wire;

pub use connection::{HANDSHAKE_BYTES_MAX, HANDSHAKE_OPTIONS_MAX};
pub use limits::{Limits, STALL_BYTES_MIN};
pub use listen::Listener;
pub use server::{Server, Stopped};
pub use tls::{TlsNeed, TlsOptions};
