//! Why a recovery disk does not do what was asked. Every message names the thing, the bound and the value.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use tidemark_format::ErrorKind;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong with a recovery disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the disk cannot be made, opened or locked.
    #[error("{what} {}", path.display())]
    Open {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's own words.
        #[source]
        source: io::Error,
    },
    /// Another process has the disk open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// Its local file.
        path: PathBuf,
    },
    /// The local file belongs to another point, or to something else altogether.
    #[error("the overlay is of {found}, not of {wanted}")]
    Foreign {
        /// What was to be opened.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// The map of the local file cannot be believed, so neither can the file.
    #[error("the map of the overlay is damaged: {why}")]
    Damaged {
        /// What is wrong with it.
        why: String,
    },
    /// The local disk is full. What was acknowledged before is kept; this write is not.
    #[error("no space left on the local disk: {what}")]
    NoSpace {
        /// What was tried.
        what: String,
    },
    /// The local disk fails.
    #[error("{what}")]
    Local {
        /// What was tried.
        what: String,
        /// The system's own words.
        #[source]
        source: io::Error,
    },
    /// A flush failed before: nobody knows which writes the local disk lost, so none is acknowledged any more.
    #[error("the local disk failed to keep writes; the overlay cannot be trusted any more")]
    Failed {
        /// Why, if it happened in this process.
        #[source]
        source: Option<Arc<io::Error>>,
    },
    /// The disk was closed.
    #[error("the overlay is closed")]
    Closed,
    /// Beyond the end of the disk, which does not grow.
    #[error("bytes {}..{} are beyond the disk's {size_bytes}", range.start, range.end)]
    OutOfDisk {
        /// What was asked for.
        range: Range<u64>,
        /// The size.
        size_bytes: u64,
    },
    /// The point that the disk stands on could not be read.
    #[error("{what}")]
    Source {
        /// What was asked of it.
        what: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What can be done about it.
        kind: ErrorKind,
    },
    /// A task died: a bug.
    #[error("{what}: internal error")]
    TaskLost {
        /// What it was to do.
        what: &'static str,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse { .. } | Self::Local { .. } | Self::TaskLost { .. } => ErrorKind::Retry,
            Self::Open { .. } | Self::Foreign { .. } | Self::NoSpace { .. } | Self::OutOfDisk { .. } | Self::Closed => {
                ErrorKind::FixRequest
            }
            Self::Damaged { .. } | Self::Failed { .. } => ErrorKind::DataLoss,
            Self::Source { kind, .. } => *kind,
        }
    }

    /// What the operator can do next, if there is something to say.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSpace { .. } => Some("free space on the disk that holds the overlays, then resume the VM"),
            Self::Foreign { .. } => Some("give the overlay of this point a directory of its own"),
            Self::Damaged { .. } | Self::Failed { .. } => {
                Some("discard the overlay and recover the point anew; replace the local disk if it is to blame")
            }
            _ => None,
        }
    }

    /// An error of the local disk.
    pub(crate) fn local(what: impl Into<String>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { what: what.into() },
            _ => Self::Local { what: what.into(), source },
        }
    }
}
