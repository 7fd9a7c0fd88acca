//! What can go wrong with a log store.

use std::sync::Arc;
use tidemark_format::logstore::LunExtent;
use tidemark_format::{DomainId, ErrorKind, FormatError, Lsn, TimeNs};

/// Result of the log store.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the log store did not do it. Cheap to clone: every waiter gets the error that stopped a log.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device refused.
    #[error("cannot {what} {device}")]
    Open {
        /// What was being done.
        what: &'static str,
        /// The device's path.
        device: String,
        /// The system's words.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A read or write of the device failed.
    #[error("cannot {what} {bytes} bytes at byte {offset} of the log store")]
    Device {
        /// What was being done.
        what: &'static str,
        /// Where.
        offset: u64,
        /// How much.
        bytes: u64,
        /// The system's words.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// Another process has the device open as a log store.
    #[error("{device} is in use by another process")]
    InUse {
        /// The device's path.
        device: String,
    },
    /// The device holds a log store already.
    #[error("{device} holds a log store already: LUN {lun}")]
    Formatted {
        /// The device.
        device: String,
        /// Name of the LUN that is there.
        lun: String,
    },
    /// What is on the device cannot be read as a log store.
    #[error("cannot read the {what} of the log store")]
    Format {
        /// Which part.
        what: &'static str,
        /// The codec's words.
        #[source]
        source: FormatError,
    },
    /// The device is smaller than its label says.
    #[error("the device has {bytes} bytes, the log store on it needs {need}")]
    TooSmall {
        /// Bytes of the device.
        bytes: u64,
        /// Bytes that the layout takes.
        need: u64,
    },
    /// Records that were durable cannot be read.
    #[error("log of {domain} is damaged from lsn {lsn} on, at {} page {page}: {why}", place(*extent))]
    Damaged {
        /// The domain.
        domain: DomainId,
        /// First LSN that cannot be read.
        lsn: Lsn,
        /// Where it should be; none if the table names no extent for it.
        extent: Option<LunExtent>,
        /// Page within the extent.
        page: u32,
        /// What is wrong, and what proves that something was there.
        why: String,
    },
    /// A named value cannot be read back.
    #[error("value {name:?} of {domain} is damaged in extent {extent}: its hash differs")]
    MetaDamaged {
        /// The domain.
        domain: DomainId,
        /// Its name.
        name: String,
        /// The extent of the domain's values.
        extent: LunExtent,
    },
    /// A write failed earlier: nobody knows what is on the device, so this log takes nothing more.
    #[error("log of {domain} takes no more writes: an earlier one failed")]
    Poisoned {
        /// The domain.
        domain: DomainId,
        /// The failure.
        #[source]
        source: Arc<Error>,
    },
    /// A write of the extent table failed earlier: no space is allocated or freed any more.
    #[error("the extent table takes no more changes: a write of it failed")]
    TablePoisoned {
        /// The failure.
        #[source]
        source: Arc<Error>,
    },
    /// There is no room. Nothing was queued.
    #[error("log of {domain} is full: {cause}; {need_bytes} bytes are needed, {available_bytes} available")]
    Full {
        /// The domain.
        domain: DomainId,
        /// Whose limit it is.
        cause: FullCause,
        /// Bytes that the request takes on the device.
        need_bytes: u64,
        /// Bytes that data may still take.
        available_bytes: u64,
    },
    /// More is queued than the options allow. Nothing was queued.
    #[error("log of {domain} has {queued_bytes} bytes queued, at most {max} are allowed")]
    Busy {
        /// The domain.
        domain: DomainId,
        /// Bytes in the queue.
        queued_bytes: u64,
        /// The bound.
        max: u64,
    },
    /// A record does not follow the one before.
    #[error("log of {domain} goes on at lsn {expected}, not {found}")]
    NotDense {
        /// The domain.
        domain: DomainId,
        /// The LSN that is next.
        expected: Lsn,
        /// The record's LSN.
        found: Lsn,
    },
    /// A record is older than the one before.
    #[error("lsn {lsn} is of {} ns, before the {} ns of the record in front of it", found.get(), last.get())]
    TimeGoesBack {
        /// The record.
        lsn: Lsn,
        /// Its time.
        found: TimeNs,
        /// Time of the record before.
        last: TimeNs,
    },
    /// A record that cannot be stored.
    #[error("cannot store lsn {lsn}")]
    Record {
        /// The record.
        lsn: Lsn,
        /// The broken rule.
        #[source]
        source: FormatError,
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
    /// Something is below a limit.
    #[error("{what} is {value}, at least {min} is needed")]
    BelowLimit {
        /// What.
        what: &'static str,
        /// How large it is.
        value: u64,
        /// The bound.
        min: u64,
    },
    /// What was asked for was trimmed.
    #[error("log of {domain} begins at lsn {first}; lsn {wanted} was trimmed")]
    Trimmed {
        /// The domain.
        domain: DomainId,
        /// What was asked for.
        wanted: Lsn,
        /// The oldest there is.
        first: Lsn,
    },
    /// What was to be trimmed is not durable yet.
    #[error("log of {domain} is durable through lsn {durable}; it cannot be trimmed through {wanted}")]
    TrimBeyondEnd {
        /// The domain.
        domain: DomainId,
        /// Through where it was to be trimmed.
        wanted: Lsn,
        /// Through where it is durable.
        durable: Lsn,
    },
    /// The store has the domain already.
    #[error("the log store has a log of {domain} already")]
    DomainExists {
        /// The domain.
        domain: DomainId,
    },
    /// The store has no such domain.
    #[error("the log store has no log of {domain}")]
    NoDomain {
        /// The domain.
        domain: DomainId,
    },
    /// The log was begun anew or removed while this was waiting.
    #[error("log of {domain} was given up")]
    GivenUp {
        /// The domain.
        domain: DomainId,
    },
    /// The store is closed.
    #[error("the log store is closed")]
    Closed,
    /// A thread of the store ended by a bug.
    #[error("the thread of the log of {domain} ended by a bug")]
    Bug {
        /// The domain.
        domain: DomainId,
    },
}

fn place(extent: Option<LunExtent>) -> String {
    extent.map_or_else(|| "no extent,".to_owned(), |extent| format!("extent {extent}"))
}

/// Whose limit a full log ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullCause {
    /// The domain's own maximum.
    DomainMax,
    /// Nothing is free on the LUN but what other domains were promised.
    Lun,
}

impl std::fmt::Display for FullCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::DomainMax => "it has reached its maximum",
            Self::Lun => "the log store has no room left",
        })
    }
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Open { source, .. } | Self::Device { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::FixRequest,
            },
            Self::Format { source, .. } => source.kind(),
            Self::Poisoned { source, .. } | Self::TablePoisoned { source } => source.kind(),
            Self::Full { .. } | Self::Busy { .. } | Self::InUse { .. } => ErrorKind::Retry,
            Self::Damaged { .. } | Self::MetaDamaged { .. } => ErrorKind::DataLoss,
            Self::NoDomain { .. } | Self::Trimmed { .. } => ErrorKind::NotFound,
            Self::Formatted { .. }
            | Self::TooSmall { .. }
            | Self::NotDense { .. }
            | Self::TimeGoesBack { .. }
            | Self::Record { .. }
            | Self::Limit { .. }
            | Self::BelowLimit { .. }
            | Self::TrimBeyondEnd { .. }
            | Self::DomainExists { .. }
            | Self::GivenUp { .. }
            | Self::Closed
            | Self::Bug { .. } => ErrorKind::FixRequest,
        }
    }

    /// What a person can do about it, if that is known.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Device { .. } | Self::Poisoned { .. } | Self::TablePoisoned { .. } => {
                Some("look at the device; a restart reads back what is durable, nothing acknowledged is given up")
            }
            Self::Damaged { .. } => {
                Some("the primary disks still have the data: record a gap, begin the log anew and let it resync")
            }
            Self::Full { cause: FullCause::DomainMax, .. } => Some("raise the domain's maximum, or let it drain"),
            Self::Full { cause: FullCause::Lun, .. } => Some("give the store a larger device, or let domains drain"),
            Self::InUse { .. } => Some("only one appliance may use a log store at a time"),
            _ => None,
        }
    }

    pub(crate) fn device(what: &'static str, offset: u64, bytes: usize, source: std::io::Error) -> Self {
        Self::Device { what, offset, bytes: bytes as u64, source: Arc::new(source) }
    }
}
