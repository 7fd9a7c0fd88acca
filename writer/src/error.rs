//! Why a writer refused, stopped or could not start.

use std::sync::Arc;
use tidemark_bucket as bucket;
use tidemark_format::{DiskId, DomainId, Epoch, ErrorKind, Extent, FormatError, Lsn, ObjectKey};

/// The result of asking a writer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a writer can fail with. Callers match on [`Error::kind`] only.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another writer has claimed a newer epoch, or acts under this one's name.
    #[error("epoch {epoch} is fenced: {cause}")]
    Fenced {
        /// The epoch of this writer.
        epoch: Epoch,
        /// How it was found out.
        cause: FenceCause,
    },
    /// The writer was closed, or its runtime has gone.
    #[error("the writer is closed")]
    Closed,
    /// The system gives no threads to compress on.
    #[error("cannot start a thread that compresses")]
    Threads {
        /// Its words.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The writer's own work failed in a way that retrying cannot help.
    #[error("cannot seal segment {key}")]
    Seal {
        /// The segment.
        key: ObjectKey,
        /// The codec's words.
        #[source]
        source: FormatError,
    },
    /// What was logged elsewhere does not continue this log.
    #[error("lsn {got} cannot be replayed here: the next one is {next}")]
    NotNext {
        /// The position that it has.
        got: Lsn,
        /// The next position here.
        next: Lsn,
    },
    /// An event that makes no sense at its position.
    #[error("the event at lsn {lsn} makes no sense there")]
    BadEvent {
        /// Its position.
        lsn: Lsn,
        /// The codec's words.
        #[source]
        source: FormatError,
    },
    /// No such disk in the domain.
    #[error("no disk {disk} in the domain")]
    NoDisk {
        /// The disk.
        disk: DiskId,
    },
    /// A disk of that name is there already.
    #[error("{vm}/{name} is in the domain already, as disk {disk}")]
    DiskExists {
        /// Its VM.
        vm: String,
        /// Its name.
        name: String,
        /// The one that is there.
        disk: DiskId,
    },
    /// The range is not made of whole blocks.
    #[error("bytes {offset}+{len} of disk {disk} are not whole blocks of 512 bytes")]
    Unaligned {
        /// The disk.
        disk: DiskId,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// The range is empty or reaches beyond the end of the disk.
    #[error("blocks {extent} of disk {disk} are not within its {blocks} blocks")]
    OutOfRange {
        /// The disk.
        disk: DiskId,
        /// The blocks.
        extent: Extent,
        /// Size of the disk in blocks.
        blocks: u64,
    },
    /// Something exceeds a limit.
    #[error("{what} is {value}, at most {max} is allowed")]
    Limit {
        /// What.
        what: &'static str,
        /// How large it is.
        value: u64,
        /// The bound.
        max: u64,
    },
    /// A text that must say something is empty.
    #[error("{what} is empty")]
    Empty {
        /// Which text.
        what: &'static str,
    },
    /// An option that cannot work.
    #[error("option {option} is {value}: {why}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        value: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The source of a seed failed or contradicts itself.
    #[error("cannot seed disk {disk}: {why}")]
    Seed {
        /// The disk.
        disk: DiskId,
        /// What is wrong.
        why: String,
    },
    /// There is no domain in the bucket.
    #[error("no domain at {location}")]
    NoDomain {
        /// The bucket.
        location: String,
    },
    /// Another domain is in the bucket already.
    #[error("{location} holds domain {domain} already")]
    DomainExists {
        /// The bucket.
        location: String,
        /// The domain that is there.
        domain: DomainId,
    },
    /// The domain needs a feature that this writer lacks.
    #[error("the domain needs write features {bits:#x} that this writer does not know")]
    WriteFeatures {
        /// The unknown bits.
        bits: u64,
    },
    /// Segments that a predecessor acknowledged are missing.
    #[error("{key} proves writes acknowledged through lsn {acked_through}, but the log ends at lsn {tail}")]
    AckedLost {
        /// The object that proves it.
        key: ObjectKey,
        /// Through where.
        acked_through: Lsn,
        /// Where the log ends.
        tail: Lsn,
    },
    /// A segment contradicts the one before it.
    #[error("{key} does not continue the log: {why}")]
    Chain {
        /// The segment.
        key: ObjectKey,
        /// What is wrong.
        why: &'static str,
    },
    /// An object cannot be decoded.
    #[error("cannot read {key}")]
    Format {
        /// The object.
        key: ObjectKey,
        /// The codec's words.
        #[source]
        source: FormatError,
    },
    /// The store failed.
    #[error("cannot {what}")]
    Store {
        /// What was being done.
        what: &'static str,
        /// The bucket's words; shared, as every waiter gets the error.
        #[source]
        source: std::sync::Arc<bucket::Error>,
    },
}

/// How a writer learnt that it is no longer the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceCause {
    /// The next epoch is claimed.
    NewerClaim,
    /// One of its own keys holds another object: it was cloned or reverted to a snapshot.
    EpochCollision,
}

impl std::fmt::Display for FenceCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NewerClaim => "another writer has claimed the next one",
            Self::EpochCollision => "another copy of this writer has written under it",
        })
    }
}

impl Error {
    pub(crate) fn store(what: &'static str, source: bucket::Error) -> Self {
        Self::Store { what, source: std::sync::Arc::new(source) }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::Closed | Self::Threads { .. } => ErrorKind::Retry,
            Self::NoDomain { .. } => ErrorKind::NotFound,
            Self::NotNext { .. }
            | Self::BadEvent { .. }
            | Self::NoDisk { .. }
            | Self::DiskExists { .. }
            | Self::Unaligned { .. }
            | Self::OutOfRange { .. }
            | Self::Limit { .. }
            | Self::Empty { .. }
            | Self::Option { .. }
            | Self::Seed { .. }
            | Self::DomainExists { .. }
            | Self::WriteFeatures { .. } => ErrorKind::FixRequest,
            Self::AckedLost { .. } | Self::Chain { .. } => ErrorKind::DataLoss,
            Self::Seal { source, .. } | Self::Format { source, .. } => source.kind(),
            Self::Store { source, .. } => source.kind(),
        }
    }

    /// What a person can do about it, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Fenced { cause: FenceCause::NewerClaim, .. } => {
                Some("another writer has taken over this domain; start again only after it was stopped on purpose")
            }
            Self::Fenced { cause: FenceCause::EpochCollision, .. } => {
                Some("stop the other copy of this machine, then start again: a new epoch is claimed")
            }
            Self::NoDomain { .. } => Some("make one with `tidemark domain create URL --name NAME`"),
            Self::AckedLost { .. } => {
                Some("find out with `tidemark verify URL` which writes are missing; nothing was changed")
            }
            Self::Store { source, .. } => source.hint(),
            _ => None,
        }
    }
}
