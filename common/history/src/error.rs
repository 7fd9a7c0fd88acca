//! What can go wrong while a domain's history is looked for. Every message names the thing, the bound and the value.

use std::time::Duration;
use tidemark_format::{ErrorKind, FormatError, Lsn, ObjectKey};

/// The result of looking.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the history of a domain could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store did not answer, or refused.
    #[error("read {key}")]
    Store {
        /// The object.
        key: ObjectKey,
        /// The bucket's own words.
        #[source]
        source: tidemark_bucket::Error,
    },
    /// An object is there but is not what it must be.
    #[error("object {key} is damaged or of another kind")]
    Format {
        /// The object.
        key: ObjectKey,
        /// What the codec refused.
        #[source]
        source: FormatError,
    },
    /// Two objects contradict each other.
    #[error("log is broken at {key}: {why}")]
    Chain {
        /// The object at which it shows.
        key: ObjectKey,
        /// The contradiction.
        why: String,
    },
    /// An object that another one names is proven absent.
    #[error("object {key} is missing: {why}")]
    Missing {
        /// The object.
        key: ObjectKey,
        /// Who needs it.
        why: String,
    },
    /// The bucket now ends before an LSN that was final: somebody broke the rules, or it was restored from a copy.
    #[error("the log now ends at lsn {now}, though it was final through lsn {was}")]
    Retracted {
        /// Final through here before.
        was: Lsn,
        /// End now.
        now: Lsn,
    },
    /// The deadline passed. The same request may succeed later.
    #[error("{what} took longer than {} ms", .limit.as_millis())]
    Deadline {
        /// What was tried.
        what: String,
        /// The deadline.
        limit: Duration,
    },
    /// A task died: a bug.
    #[error("a read task ended without an answer")]
    TaskLost,
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store { source, .. } => source.kind(),
            Self::Format { source, .. } => source.kind(),
            Self::Chain { .. } | Self::Missing { .. } | Self::Retracted { .. } => ErrorKind::DataLoss,
            Self::Deadline { .. } | Self::TaskLost => ErrorKind::Retry,
        }
    }
}
