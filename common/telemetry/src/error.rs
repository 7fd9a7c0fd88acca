//! What can go wrong with statistics.

use tidemark_format::{ErrorKind, ObjectKey};

/// The result of whatever can go wrong with statistics.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why statistics cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is not what it should be.
    #[error("statistics in {what}: {why}")]
    File {
        /// Which file.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The local disk.
    #[error("{what} {path}")]
    Spool {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The bucket.
    #[error("{what} {key}")]
    Store {
        /// What was tried.
        what: &'static str,
        /// On what.
        key: String,
        /// What the store says.
        #[source]
        source: Box<tidemark_bucket::Error>,
    },
}

impl Error {
    pub(crate) fn store(what: &'static str, key: &ObjectKey) -> impl FnOnce(tidemark_bucket::Error) -> Self {
        let key = key.to_string();
        move |source| Self::Store { what, key, source: Box::new(source) }
    }

    /// What callers do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File { .. } => ErrorKind::DataLoss,
            Self::Spool { .. } => ErrorKind::Retry,
            Self::Store { source, .. } => source.kind(),
        }
    }
}
