//! What can go wrong while reading a domain. Every message names the thing, the bound and the value.

use crate::point::PointSpec;
use std::sync::Arc;
use std::time::Duration;
use tidemark_format::{DiskId, ErrorKind, Extent, FormatError, Lsn, ObjectKey};

/// The result of reading.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a domain, a point or a range of a disk could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no domain at the bucket's location.
    #[error("no domain at {location}: tidemark.json is absent")]
    NoDomain {
        /// Where it was looked for.
        location: String,
    },
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
    /// The text does not name a point in time.
    #[error("{text:?} is not a point in time: {why}")]
    BadPoint {
        /// The text, shortened.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The point lies before the oldest one.
    #[error("cannot go to {wanted}: history starts at {oldest}")]
    BeforeHistory {
        /// The point asked for.
        wanted: PointSpec,
        /// The oldest point, as text.
        oldest: String,
    },
    /// The domain does not keep the point any longer.
    #[error("cannot go to lsn {wanted}: it is no longer retained; the nearest is {nearest}")]
    NotRetained {
        /// The LSN asked for.
        wanted: Lsn,
        /// The nearest points that are, before and behind it, as text.
        nearest: String,
    },
    /// The point is an LSN that does not exist yet.
    #[error("cannot go to lsn {wanted}: the newest is lsn {latest}")]
    AfterHistory {
        /// The LSN asked for.
        wanted: Lsn,
        /// The newest LSN.
        latest: Lsn,
    },
    /// No bookmark has this name.
    #[error("no bookmark named {name:?}")]
    NoBookmark {
        /// The name asked for.
        name: String,
    },
    /// The disk does not exist at the point.
    #[error("no disk {disk} at lsn {at}")]
    NoDisk {
        /// The disk.
        disk: DiskId,
        /// The point.
        at: Lsn,
    },
    /// The disk exists but cannot be restored at the point: still being seeded, or writes were lost around it.
    #[error("disk {disk} is not restorable at lsn {at}: {why}")]
    NotRestorable {
        /// The disk.
        disk: DiskId,
        /// The point.
        at: Lsn,
        /// Why not, and from where on it is.
        why: String,
    },
    /// Nobody knows what these blocks held. Never answered with zeros.
    #[error("disk {disk} blocks {extent} are unknown at lsn {at}")]
    Unknown {
        /// The disk.
        disk: DiskId,
        /// The blocks.
        extent: Extent,
        /// The point.
        at: Lsn,
    },
    /// The bytes of these blocks are damaged in the bucket.
    #[error("disk {disk} blocks {extent}, written at lsn {lsn}, are damaged in {key}")]
    Damaged {
        /// The disk.
        disk: DiskId,
        /// The blocks.
        extent: Extent,
        /// The write that they hold.
        lsn: Lsn,
        /// The object that holds them.
        key: ObjectKey,
        /// What is wrong with it.
        #[source]
        source: Arc<Error>,
    },
    /// The deadline passed. The same request may succeed later.
    #[error("{what} took longer than {} ms", .limit.as_millis())]
    Deadline {
        /// What was tried.
        what: String,
        /// The deadline.
        limit: Duration,
    },
    /// The sink of an export refused bytes.
    #[error("write export of disk {disk}")]
    Sink {
        /// The disk.
        disk: DiskId,
        /// The sink's own words.
        #[source]
        source: std::io::Error,
    },
    /// A task of the reader died: a bug.
    #[error("a read task ended without an answer")]
    TaskLost,
    /// The same failure, handed to several readers that waited for one request.
    #[error(transparent)]
    Shared(#[from] Arc<Error>),
}

impl From<tidemark_history::Error> for Error {
    fn from(error: tidemark_history::Error) -> Self {
        use tidemark_history::Error as E;
        match error {
            E::Store { key, source } => Self::Store { key, source },
            E::Format { key, source } => Self::Format { key, source },
            E::Chain { key, why } => Self::Chain { key, why },
            E::Missing { key, why } => Self::Missing { key, why },
            E::Retracted { was, now } => Self::Retracted { was, now },
            E::Deadline { what, limit } => Self::Deadline { what, limit },
            _ => Self::TaskLost,
        }
    }
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoDomain { .. } | Self::NoBookmark { .. } | Self::NoDisk { .. } | Self::AfterHistory { .. } => {
                ErrorKind::NotFound
            }
            Self::Store { source, .. } => source.kind(),
            Self::Format { source, .. } => source.kind(),
            Self::Damaged { source, .. } => match source.kind() {
                ErrorKind::NotFound => ErrorKind::DataLoss,
                other => other,
            },
            Self::Chain { .. } | Self::Missing { .. } | Self::Retracted { .. } | Self::Unknown { .. } => {
                ErrorKind::DataLoss
            }
            Self::BadPoint { .. }
            | Self::BeforeHistory { .. }
            | Self::NotRetained { .. }
            | Self::NotRestorable { .. }
            | Self::Sink { .. } => ErrorKind::FixRequest,
            Self::Deadline { .. } | Self::TaskLost => ErrorKind::Retry,
            Self::Shared(inner) => inner.kind(),
        }
    }

    /// What a person can do about it, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoDomain { .. } => {
                Some("check the URL, or make a domain with `tidemark domain create URL --name NAME`")
            }
            Self::BeforeHistory { .. }
            | Self::NotRetained { .. }
            | Self::AfterHistory { .. }
            | Self::NoBookmark { .. } => Some("list recovery points with `tidemark points URL`"),
            Self::BadPoint { .. } => {
                Some("use latest, lsn:N, an RFC 3339 time such as 2026-11-23T09:00:00Z, -10m, or bookmark:NAME")
            }
            Self::Chain { .. } | Self::Missing { .. } | Self::Damaged { .. } | Self::Format { .. } => {
                Some("see which points are affected with `tidemark verify URL`")
            }
            Self::Store { source, .. } => source.hint(),
            Self::Shared(inner) => inner.hint(),
            _ => None,
        }
    }

    /// The same error for one more reader.
    pub(crate) fn shared(error: &Arc<Self>) -> Self {
        Self::Shared(Arc::clone(error))
    }
}
