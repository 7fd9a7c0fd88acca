//! Why QEMU, its guest agent or the way to them failed us.

use crate::address::Address;
use crate::qmp::Version;
use std::time::Duration;
use tidemark_format::ErrorKind;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Callers match on [`Error::kind`] only.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens, or we may not speak to them.
    #[error("connect to {address}")]
    Connect {
        /// Where.
        address: Address,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The connection is over, and with it everything that was asked through it.
    #[error("{address} is closed: {why}")]
    Closed {
        /// Whose.
        address: Address,
        /// How it ended.
        why: String,
    },
    /// The other side speaks something else.
    #[error("{address} does not speak {protocol}: {what}")]
    Garbage {
        /// Whose.
        address: Address,
        /// What was expected.
        protocol: &'static str,
        /// What came.
        what: String,
    },
    /// No answer in time. What was asked may still happen.
    #[error("no answer to {command} within {} ms", within.as_millis())]
    Timeout {
        /// What was asked.
        command: String,
        /// How long was waited.
        within: Duration,
    },
    /// It was understood and refused.
    #[error("{command} was refused ({class}): {description}")]
    Refused {
        /// What was asked.
        command: String,
        /// QEMU's class of error.
        class: String,
        /// QEMU's words.
        description: String,
    },
    /// An answer lacks what every answer to this command has.
    #[error("the answer to {command} lacks {what}")]
    Incomplete {
        /// What was asked.
        command: String,
        /// What is missing.
        what: &'static str,
    },
    /// The VM has no such disk.
    #[error("no disk {name:?} in the VM; it has {known}")]
    NoDisk {
        /// What was looked for.
        name: String,
        /// Names that would be found.
        known: String,
    },
    /// Several disks go by that name.
    #[error("{count} disks of the VM go by the name {name:?}")]
    AmbiguousDisk {
        /// What was looked for.
        name: String,
        /// How many.
        count: usize,
    },
    /// A tap's name becomes the name of a job, and QEMU has rules for those.
    #[error("{name:?} cannot name a tap: {max} letters, digits, '-', '.' or '_' at most, and at least one")]
    BadName {
        /// The name.
        name: String,
        /// Longest one.
        max: usize,
    },
    /// This QEMU cannot say whether a mirror is in sync.
    #[error("a tap needs QEMU {wanted} or newer: this is {found}")]
    TooOld {
        /// The running one.
        found: Version,
        /// The oldest that will do.
        wanted: Version,
    },
    /// The tap is over.
    #[error("the tap {name} is over: {state}")]
    Over {
        /// The tap.
        name: String,
        /// How it ended.
        state: String,
    },
    /// The guest's file systems could not be thawed. They may be frozen still.
    #[error("the guest may still be frozen: no thaw within {} ms", within.as_millis())]
    StillFrozen {
        /// How long it was tried.
        within: Duration,
        /// What the last try met.
        #[source]
        source: Box<Error>,
    },
    /// The freeze lasted longer than it may, and was ended; what was done meanwhile is not consistent.
    #[error("the freeze was ended after {} ms", max.as_millis())]
    ThawedEarly {
        /// How long a freeze may last.
        max: Duration,
    },
}

impl Error {
    /// What callers may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Retry,
            },
            Self::Closed { .. }
            | Self::Timeout { .. }
            | Self::StillFrozen { .. }
            | Self::ThawedEarly { .. }
            | Self::Over { .. } => ErrorKind::Retry,
            Self::NoDisk { .. } => ErrorKind::NotFound,
            Self::Garbage { .. }
            | Self::Refused { .. }
            | Self::Incomplete { .. }
            | Self::AmbiguousDisk { .. }
            | Self::BadName { .. }
            | Self::TooOld { .. } => ErrorKind::FixRequest,
        }
    }
}
