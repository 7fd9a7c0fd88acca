//! Why an appliance did not start.

use crate::config;
use std::io;
use tidemark_format::ErrorKind;

/// The result of setting an appliance up.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an appliance did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// Another appliance listens there.
    #[error("another appliance listens on {socket}")]
    SocketInUse {
        /// The socket.
        socket: String,
    },
    /// Something else than a socket is there.
    #[error("{socket} is there and is no socket")]
    NotASocket {
        /// The path.
        socket: String,
    },
    /// The socket cannot be made.
    #[error("cannot {what} {path}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Socket { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::FixRequest,
        }
    }

    /// What a person can do about it, if that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Config(error) => error.hint(),
            Self::SocketInUse { .. } => Some("stop it, or give this one another `socket` and `state` in [appliance]"),
            Self::NotASocket { .. } => Some("name another path as `socket` in [appliance]"),
            Self::Socket { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("make its directory, or name another path as `socket` in [appliance]")
            }
            Self::Socket { .. } => None,
        }
    }
}
