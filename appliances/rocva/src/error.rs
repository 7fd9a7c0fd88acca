//! Why a recovery cannot go on.

use std::path::PathBuf;
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
    /// The runbook does not fit the domain.
    #[error(transparent)]
    Plan(#[from] tidemark_runbook::PlanError),
    /// The runbook cannot work.
    #[error(transparent)]
    Runbook(#[from] tidemark_runbook::ConfigError),
    /// A local file or directory.
    #[error("use {path}")]
    Local {
        /// Which.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The directory of a recovery holds something that is none.
    #[error("{path} is no recovery that can go on: {why}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is a recovery in the directory already.
    #[error("there is a recovery in {dir} already")]
    AlreadyThere {
        /// The directory.
        dir: PathBuf,
    },
    /// There is no recovery in the directory.
    #[error("there is no recovery in {dir}")]
    NoRecovery {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process works on the recovery.
    #[error("another process works on the recovery in {dir}")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory's name is too long for sockets in it.
    #[error("{dir} has {bytes} bytes, more than the {max} that leave room for sockets in it")]
    LongName {
        /// The directory.
        dir: PathBuf,
        /// Its length.
        bytes: usize,
        /// The longest that will do.
        max: usize,
    },
    /// The hypervisor does not do with a VM what it should.
    #[error("VM {vm}: {why}")]
    Guest {
        /// The VM.
        vm: String,
        /// The hypervisor's words.
        why: String,
    },
    /// The hypervisor's monitor, or a guest's agent.
    #[error("the hypervisor does not answer as it should")]
    Qemu(#[from] tidemark_qemu::Error),
    /// The disks of a VM cannot be made or mounted.
    #[error("the disks of VM {vm}: {why}")]
    Disks {
        /// The VM.
        vm: String,
        /// What went wrong.
        why: String,
    },
    /// What is to be restored in place is not what can be.
    #[error("cannot restore to {path}: {why}")]
    Restore {
        /// The image or device.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody else works with an image.
    #[error("{path} is in use")]
    Busy {
        /// The image or device.
        path: PathBuf,
    },
    /// A disk does not hold what was written to it.
    #[error("{path} was restored, and reads back other bytes at {offset}")]
    Unverified {
        /// The image or device.
        path: PathBuf,
        /// The first byte.
        offset: u64,
    },
    /// It is not in a state for what was asked.
    #[error(transparent)]
    IllegalMove(#[from] crate::core::IllegalMove),
}

impl Error {
    /// What callers may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Domain(error) => error.kind(),
            Self::Qemu(error) => error.kind(),
            Self::Local { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            Self::Local { .. } | Self::InUse { .. } | Self::Guest { .. } | Self::Disks { .. } => ErrorKind::Retry,
            Self::Busy { .. } => ErrorKind::Retry,
            Self::Unverified { .. } => ErrorKind::DataLoss,
            Self::NoRecovery { .. } => ErrorKind::NotFound,
            Self::Restore { .. }
            | Self::Configuration { .. }
            | Self::NothingThere { .. }
            | Self::Plan(_)
            | Self::Runbook(_)
            | Self::Damaged { .. }
            | Self::AlreadyThere { .. }
            | Self::LongName { .. }
            | Self::IllegalMove(_) => ErrorKind::FixRequest,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Domain(error) => return error.hint().map(str::to_owned),
            Self::Plan(error) => return Some(error.hint()),
            Self::Runbook(error) => return error.hint().map(str::to_owned),
            Self::Configuration { .. } => "choose a point at which `tidemark drva vm config` had recorded a right one",
            Self::NothingThere { .. } => "`tidemark points` lists the disks and from where on each can be restored",
            Self::AlreadyThere { .. } => {
                "`tidemark recover resume` goes on with it, `tidemark recover discard` ends it"
            }
            Self::NoRecovery { .. } => "--dir names the directory that `tidemark recover` was told or told you",
            Self::LongName { .. } => "choose a shorter --dir",
            Self::InUse { .. } => "`tidemark recover status` says how far it is",
            Self::Busy { .. } => "stop the VM, the mount or the restore that has it",
            Self::Unverified { .. } => "the device does not keep what it is told, or somebody else writes to it",
            Self::Restore { .. } => "`tidemark export` makes a new image of any format",
            Self::Disks { .. } | Self::Guest { .. } => "its directory has the logs",
            _ => return None,
        };
        Some(text.to_owned())
    }
}
