//! Why a domain's replication refused or stopped.

use crate::core::phase::{Cause, Phase};
use tidemark_bucket as bucket;
use tidemark_format::{DiskId, ErrorKind, FormatError, Lsn, ObjectKey};
use tidemark_log_store as log_store;
use tidemark_writer as writer;

/// The result of asking a protected domain.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What replication can fail with. Callers match on [`Error::kind`] only.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something cannot happen in this phase.
    #[error("cannot {cause} while {from}")]
    IllegalMove {
        /// The phase.
        from: Phase,
        /// What was asked for.
        cause: Cause,
    },
    /// Writes are refused.
    #[error("the domain is {phase}: {why}")]
    NotTaking {
        /// The phase.
        phase: Phase,
        /// How it came to that.
        why: String,
    },
    /// Options that cannot work.
    #[error("the options of the domain cannot work")]
    Options {
        /// Which and why.
        #[source]
        source: tidemark_rates::Error,
    },
    /// The log store refused or failed.
    #[error("cannot {what}")]
    Log {
        /// What was being done.
        what: &'static str,
        /// The log store's words.
        #[source]
        source: log_store::Error,
    },
    /// The writer refused or stopped.
    #[error("cannot {what}")]
    Writer {
        /// What was being done.
        what: &'static str,
        /// The writer's words.
        #[source]
        source: writer::Error,
    },
    /// The bucket failed.
    #[error("cannot {what}")]
    Bucket {
        /// What was being done.
        what: &'static str,
        /// The bucket's words; shared, as every waiter gets the error.
        #[source]
        source: std::sync::Arc<bucket::Error>,
    },
    /// An object of the bucket cannot be decoded.
    #[error("cannot read {key}")]
    Object {
        /// The object.
        key: ObjectKey,
        /// The codec's words.
        #[source]
        source: FormatError,
    },
    /// What the log store remembers of the domain cannot be read.
    #[error("cannot read what the log store remembers of the domain: {why}")]
    Ledger {
        /// What is wrong.
        why: String,
    },
    /// The bucket ends in front of what it had committed.
    #[error("the bucket goes on at lsn {next}, but lsn {first} and after were all that the log store still needed")]
    BucketLost {
        /// Next LSN of the bucket.
        next: Lsn,
        /// Oldest LSN of the log store.
        first: Lsn,
    },
    /// Seeding or comparing a disk failed.
    #[error("cannot read disk {disk} to bring it into the bucket: {why}")]
    Source {
        /// The disk.
        disk: DiskId,
        /// What is wrong.
        why: String,
    },
    /// A disk is in a state in which this makes no sense.
    #[error("disk {disk} is {state}")]
    DiskState {
        /// The disk.
        disk: DiskId,
        /// What it is.
        state: &'static str,
    },
    /// A task ended by a bug or because the runtime is going away.
    #[error("the domain's task has ended")]
    Gone,
}

impl Error {
    pub(crate) fn log(what: &'static str) -> impl FnOnce(log_store::Error) -> Self {
        move |source| Self::Log { what, source }
    }

    pub(crate) fn writer(what: &'static str) -> impl FnOnce(writer::Error) -> Self {
        move |source| Self::Writer { what, source }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::IllegalMove { .. } | Self::DiskState { .. } | Self::Options { .. } => ErrorKind::FixRequest,
            Self::NotTaking { phase: Phase::Fenced | Phase::Diverged, .. } => ErrorKind::Fenced,
            Self::NotTaking { phase: Phase::Failed, .. } | Self::BucketLost { .. } | Self::Ledger { .. } => {
                ErrorKind::DataLoss
            }
            Self::NotTaking { .. } | Self::Source { .. } | Self::Gone => ErrorKind::Retry,
            Self::Log { source, .. } => source.kind(),
            Self::Writer { source, .. } => source.kind(),
            Self::Bucket { source, .. } => source.kind(),
            Self::Object { source, .. } => source.kind(),
        }
    }

    /// True if there is no room in the log, for now.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Log { source: log_store::Error::Full { .. } | log_store::Error::Busy { .. }, .. })
    }

    /// What a person can do about it, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotTaking { phase: Phase::Fenced, .. } => Some(
                "another appliance protects this domain now; take it over here only if that one was stopped on purpose",
            ),
            Self::NotTaking { phase: Phase::Diverged, .. } => Some(
                "take over with discard-local to follow the bucket's branch; the writes held here are given up then",
            ),
            Self::BucketLost { .. } => Some("find out with `tidemark verify URL` what is missing; nothing was changed"),
            Self::Writer { source, .. } => source.hint(),
            Self::Bucket { source, .. } => source.hint(),
            _ => None,
        }
    }
}
