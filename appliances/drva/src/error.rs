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
    /// What is protected cannot be remembered or recalled.
    #[error("cannot use {path}: {why}")]
    Inventory {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The log store cannot be used.
    #[error("cannot {what}")]
    LogStore {
        /// What was tried.
        what: &'static str,
        /// The log store's words.
        #[source]
        source: tidemark_log_store::Error,
    },
    /// The domain has no log in the log store.
    #[error("the domain has no log in the log store")]
    NoLog,
    /// A bucket cannot be used.
    #[error("cannot {what}")]
    Bucket {
        /// What was tried.
        what: &'static str,
        /// The bucket's words.
        #[source]
        source: tidemark_bucket::Error,
    },
    /// A domain cannot be made.
    #[error("cannot {what}")]
    Writer {
        /// What was tried.
        what: &'static str,
        /// The writer's words.
        #[source]
        source: tidemark_writer::Error,
    },
    /// A domain cannot be protected.
    #[error("cannot {what}")]
    Domain {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: tidemark_replication::Error,
    },
    /// A primary disk cannot be used.
    #[error("cannot use primary {path}")]
    Primary {
        /// Its path.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A primary is smaller than its disk.
    #[error("primary {path} has {has} bytes, its disk has {needs}")]
    PrimarySize {
        /// Its path.
        path: String,
        /// Its size.
        has: u64,
        /// The size of the disk.
        needs: u64,
    },
    /// Nothing says how large a disk is.
    #[error("disk {disk} has no primary and no size_bytes")]
    DiskSize {
        /// The disk.
        disk: String,
    },
    /// The NBD server cannot be started.
    #[error("cannot {what}")]
    Nbd {
        /// What was tried.
        what: &'static str,
        /// The server's words.
        #[source]
        source: tidemark_io_filter::Error,
    },
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
    pub(crate) fn bucket(what: &'static str) -> impl FnOnce(tidemark_bucket::Error) -> Self {
        move |source| Self::Bucket { what, source }
    }

    pub(crate) fn domain(what: &'static str) -> impl FnOnce(tidemark_replication::Error) -> Self {
        move |source| Self::Domain { what, source }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::LogStore { source, .. } => source.kind(),
            Self::Bucket { source, .. } => source.kind(),
            Self::Domain { source, .. } => source.kind(),
            Self::Writer { source, .. } => source.kind(),
            Self::Nbd { source, .. } => source.kind(),
            Self::Primary { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            // A disk that is not there yet, as after a boot, may come.
            Self::Primary { .. } => ErrorKind::Retry,
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
            Self::Bucket { source, .. } => source.hint(),
            Self::Domain { source, .. } => source.hint(),
            Self::Writer { source, .. } => source.hint(),
            Self::Primary { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("make the file or attach the device: primaries are never made here")
            }
            Self::DiskSize { .. } => Some("say size_bytes, or name a primary"),
            Self::Inventory { .. } => {
                Some("the file is in `state` of [appliance]; what it says can be added again by the API")
            }
            _ => None,
        }
    }
}
