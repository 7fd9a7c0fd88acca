//! What can go wrong while an index is kept. Every message names the thing, the bound and the value.

use tidemark_format::{Epoch, ErrorKind, FormatError, ObjectKey};

/// The result of maintenance.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why maintenance stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no domain at the bucket's location.
    #[error("no domain at {location}: tidemark.json is absent")]
    NoDomain {
        /// Where it was looked for.
        location: String,
    },
    /// Another maintainer has claimed a newer epoch.
    #[error("maintenance epoch {epoch} is fenced: a newer maintainer has claimed the domain")]
    Fenced {
        /// The epoch of this maintainer.
        epoch: Epoch,
    },
    /// Another maintainer published a root before this one had claimed. The pass begins anew.
    #[error("root {base} was replaced while the domain was being claimed")]
    Overtaken {
        /// What the pass had begun with.
        base: ObjectKey,
    },
    /// The index is not to be trusted, so nothing is deleted by it.
    #[error("root {root} builds on {object}, which is in quarantine")]
    Quarantined {
        /// The newest root.
        root: ObjectKey,
        /// The root itself, or a table that it names.
        object: ObjectKey,
    },
    /// The domain needs something that this version does not know.
    #[error("the domain needs maintenance features {bits:#x} that this version does not know")]
    Features {
        /// The unknown bits.
        bits: u64,
    },
    /// The store did not answer, or refused.
    #[error("{what}")]
    Store {
        /// What was tried.
        what: &'static str,
        /// The bucket's own words.
        #[source]
        source: tidemark_bucket::Error,
    },
    /// An object is not what it must be, or cannot be made as the format asks.
    #[error("object {key}")]
    Format {
        /// The object.
        key: ObjectKey,
        /// The codec's words.
        #[source]
        source: FormatError,
    },
    /// The log or the index cannot be read.
    #[error(transparent)]
    History(#[from] tidemark_history::Error),
}

impl Error {
    pub(crate) fn store(what: &'static str, source: tidemark_bucket::Error) -> Self {
        Self::Store { what, source }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoDomain { .. } => ErrorKind::NotFound,
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::Overtaken { .. } => ErrorKind::Retry,
            Self::Features { .. } => ErrorKind::FixRequest,
            Self::Quarantined { .. } => ErrorKind::DataLoss,
            Self::Store { source, .. } => source.kind(),
            Self::Format { source, .. } => source.kind(),
            Self::History(source) => source.kind(),
        }
    }

    /// What a person can do about it, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoDomain { .. } => Some("check the URL"),
            Self::Fenced { .. } => Some("one maintainer a domain is enough: let the newer one do the work"),
            Self::Features { .. } => Some("use the version of tidemark that the domain's appliance runs"),
            Self::Quarantined { .. } => Some("make the index anew with `tidemark repair URL`"),
            Self::Store { source, .. } => source.hint(),
            Self::Format { key: ObjectKey::Index { .. } | ObjectKey::Root { .. }, .. } => {
                Some("make the index anew with `tidemark index rebuild URL`")
            }
            Self::History(
                tidemark_history::Error::Missing { key, .. } | tidemark_history::Error::Format { key, .. },
            ) if matches!(key, ObjectKey::Index { .. } | ObjectKey::Root { .. }) => {
                Some("make the index anew with `tidemark index rebuild URL`")
            }
            _ => None,
        }
    }
}
