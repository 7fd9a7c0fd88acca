//! Why a recovery cannot go on.

use tidemark_format::ErrorKind;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Callers match on [`Error::kind`] only.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The domain cannot be read.
    #[error("read the domain")]
    Domain(#[from] tidemark_reader::Error),
    /// A VM's configuration, as it was recorded, is not one that we can start a VM from.
    #[error("the configuration of VM {vm} is no {format} that a VM can start from: {why}")]
    Configuration {
        /// The VM.
        vm: String,
        /// What it calls itself.
        format: String,
        /// What is wrong.
        why: String,
    },
    /// There is nothing to recover.
    #[error("the domain has no disk that can be restored at {at}")]
    NothingThere {
        /// The point.
        at: String,
    },
}

impl Error {
    /// What callers may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Domain(error) => error.kind(),
            Self::Configuration { .. } | Self::NothingThere { .. } => ErrorKind::FixRequest,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Domain(error) => return error.hint().map(str::to_owned),
            Self::Configuration { .. } => "choose a point at which `tidemark drva vm config` had recorded a right one",
            Self::NothingThere { .. } => "`tidemark points` lists the disks and from where on each can be restored",
        };
        Some(text.to_owned())
    }
}
