//! Why something in a mount does not work: towards people as text, towards programs as an errno or an [`ErrorKind`].

use std::path::PathBuf;
use std::time::Duration;
use tidemark_format::ErrorKind;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong in a mount.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that the tree does not have.
    #[error("{name:?} is not in this directory")]
    NoEntry {
        /// The name.
        name: String,
    },
    /// A number that no node has, or no longer has.
    #[error("node {ino} is gone")]
    Stale {
        /// The number.
        ino: u64,
    },
    /// A takeover replaced this write while an image of the old one was open.
    #[error("disk {disk} at lsn {lsn} was replaced by a takeover; close the files that show the old one")]
    Replaced {
        /// The disk.
        disk: String,
        /// The write.
        lsn: u64,
    },
    /// A directory was needed.
    #[error("node {ino} is not a directory")]
    NotADirectory {
        /// Its number.
        ino: u64,
    },
    /// A disk was needed.
    #[error("node {ino} is a directory")]
    IsADirectory {
        /// Its number.
        ino: u64,
    },
    /// A link was needed.
    #[error("node {ino} is not a symbolic link")]
    NotALink {
        /// Its number.
        ino: u64,
    },
    /// An extended attribute that the node does not have.
    #[error("no attribute {name:?}")]
    NoAttribute {
        /// Its name.
        name: String,
    },
    /// Nothing here can be changed.
    #[error("the tree is read-only")]
    ReadOnly,
    /// A local file or directory cannot be used.
    #[error("use {}", path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The overlay of a disk cannot be opened.
    #[error("open the overlay of {disk}")]
    Overlay {
        /// The disk, as VM/DISK.
        disk: String,
        /// Why not.
        #[source]
        source: tidemark_overlay::Error,
    },
    /// The local disk of the overlays is full.
    #[error("{what}")]
    NoSpace {
        /// What was tried.
        what: String,
    },
    /// `lseek` found nothing up to the end of the disk.
    #[error("nothing to find at or after byte {offset}")]
    NothingBeyond {
        /// Where it began.
        offset: u64,
    },
    /// The domain's history could not answer.
    #[error("{what}")]
    Read {
        /// What was asked of it.
        what: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What can be done about it.
        kind: ErrorKind,
    },
    /// No answer in time.
    #[error("{what}: no answer from the bucket within {deadline:?}")]
    Deadline {
        /// What was asked.
        what: String,
        /// How long it may take.
        deadline: Duration,
    },
    /// A bug: the code that answered panicked.
    #[error("{what}: internal error")]
    Panicked {
        /// What was asked.
        what: &'static str,
    },
    /// The directory cannot be mounted on.
    #[error("cannot mount on {}", dir.display())]
    Mountpoint {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The directory holds what is left of a mount whose process died.
    #[error("cannot mount on {}: a dead mount of {fs_type} is there", dir.display())]
    DeadMount {
        /// The directory.
        dir: PathBuf,
        /// Type of the dead file system.
        fs_type: String,
    },
    /// Another Tidemark serves this directory.
    #[error("cannot mount on {}: {source_name} is mounted there", dir.display())]
    AlreadyMounted {
        /// The directory.
        dir: PathBuf,
        /// What is mounted.
        source_name: String,
    },
    /// There is no FUSE here.
    #[error("cannot open /dev/fuse")]
    NoFuse {
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Without root's rights mounting needs the helper, which failed.
    #[error("fusermount3 refused: {message}")]
    Helper {
        /// What it said.
        message: String,
    },
    /// The mount cannot be taken away.
    #[error("cannot unmount {}", dir.display())]
    Unmount {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Somebody mounted something over it.
    #[error("cannot unmount {}: {fs_type} is mounted over it", dir.display())]
    Covered {
        /// The directory.
        dir: PathBuf,
        /// Type of the file system on top.
        fs_type: String,
    },
    /// The conversation with the kernel could not begin, or broke off.
    #[error("serve {}", dir.display())]
    Session {
        /// Where it is mounted.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoEntry { .. } | Self::Stale { .. } | Self::NoAttribute { .. } | Self::NothingBeyond { .. } => {
                ErrorKind::NotFound
            }
            Self::Read { kind, .. } => *kind,
            Self::Overlay { source, .. } => source.kind(),
            Self::Deadline { .. } | Self::Replaced { .. } | Self::Unmount { .. } | Self::Session { .. } => {
                ErrorKind::Retry
            }
            Self::NoFuse { .. } | Self::Helper { .. } => ErrorKind::Denied,
            Self::Mountpoint { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                ErrorKind::Denied
            }
            Self::NotADirectory { .. }
            | Self::IsADirectory { .. }
            | Self::NotALink { .. }
            | Self::ReadOnly
            | Self::NoSpace { .. }
            | Self::Local { .. }
            | Self::Panicked { .. }
            | Self::Mountpoint { .. }
            | Self::DeadMount { .. }
            | Self::AlreadyMounted { .. }
            | Self::Covered { .. } => ErrorKind::FixRequest,
        }
    }

    /// What the program that asked is told.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoEntry { .. } => libc::ENOENT,
            Self::Stale { .. } => libc::ESTALE,
            Self::NotADirectory { .. } => libc::ENOTDIR,
            Self::IsADirectory { .. } => libc::EISDIR,
            Self::NotALink { .. } => libc::EINVAL,
            Self::NoAttribute { .. } => libc::ENODATA,
            Self::NothingBeyond { .. } => libc::ENXIO,
            Self::ReadOnly => libc::EROFS,
            Self::NoSpace { .. } => libc::ENOSPC,
            _ => libc::EIO,
        }
    }

    /// What the operator can do next, if there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::DeadMount { dir, .. } => Some(format!("remove it with `umount -l {}`", dir.display())),
            Self::AlreadyMounted { dir, .. } => Some(format!("unmount it with `umount {}` first", dir.display())),
            Self::Covered { dir, .. } => Some(format!("unmount what is on top of {} first", dir.display())),
            Self::Overlay { source, .. } => source.hint().map(Into::into),
            Self::NoFuse { .. } => Some("load the kernel module with `modprobe fuse`, or pass /dev/fuse in".into()),
            Self::Helper { .. } => Some("install fuse3 (`apt install fuse3`), or run as root".into()),
            _ => None,
        }
    }
}
