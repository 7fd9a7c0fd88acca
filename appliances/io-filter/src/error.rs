//! Why a request, a connection or a listener failed: towards clients an errno of theirs, towards us an [`ErrorKind`].

use tidemark_format::ErrorKind;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What caused an error, whatever its type.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Everything that can go wrong in an IO filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The volume could not do it: a device, a log or a bucket failed. `EIO`.
    #[error("cannot {what}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: Cause,
    },
    /// There is no room for it, or it lies beyond the end. `ENOSPC`.
    #[error("no space: {what}")]
    NoSpace {
        /// What has no room.
        what: String,
    },
    /// It is not allowed: the export is read-only. `EPERM`.
    #[error("not permitted: {what}")]
    NotPermitted {
        /// What is not.
        what: String,
    },
    /// The request makes no sense. `EINVAL`.
    #[error("invalid request: {what}")]
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// Another client took the volume over: this one must never write again. `ESHUTDOWN`.
    #[error("fenced: {what}")]
    Fenced {
        /// Who took over.
        what: String,
    },
    /// The volume is being closed; the same request may work again once it is back. `ESHUTDOWN`.
    #[error("shutting down: {what}")]
    ShuttingDown {
        /// What is.
        what: String,
    },
    /// The volume never does this, or not as fast as was asked. `ENOTSUP`.
    #[error("not supported: {what}")]
    Unsupported {
        /// What is not.
        what: String,
    },
    /// The answer is larger than one answer may be. `EOVERFLOW`.
    #[error("{what} of {wanted_bytes} bytes, at most {max_bytes}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// What was asked for.
        wanted_bytes: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// There is no export of this name.
    #[error("no export {name:?}")]
    NoExport {
        /// The name.
        name: String,
    },
}

impl Error {
    /// [`Error::Failed`].
    pub fn failed(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Failed { what: what.into(), source: source.into() }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed { .. } | Self::NoSpace { .. } | Self::ShuttingDown { .. } => ErrorKind::Retry,
            Self::Invalid { .. } | Self::Unsupported { .. } | Self::TooLarge { .. } => ErrorKind::FixRequest,
            Self::NotPermitted { .. } => ErrorKind::Denied,
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::NoExport { .. } => ErrorKind::NotFound,
        }
    }
}
