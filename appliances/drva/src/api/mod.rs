//! The control API: HTTP over a unix socket, for whoever may open it.
//!
//! Turns requests into calls of [`Control`], and answers into JSON; what goes wrong is a problem of RFC 9457 with a kind
//! and a hint. Bounded are connections, heads, bodies and the time that each may take to arrive. What changes something is
//! carried through even if whoever asked hangs up, and a panic costs one request.
//! Not here: what requests mean ([`Control`]), and the wire types (`tidemark-api`).
//!
//! [`Control`]: crate::Control

mod extract;
mod reply;
mod routes;
mod serve;
mod socket;

pub use routes::openapi;
pub use serve::{CONNECTIONS_MAX, serve, serve_metrics};
pub use socket::ApiSocket;
