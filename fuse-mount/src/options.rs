//! What an operator can choose about a mount.

use std::time::Duration;

/// Who may look at the disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Only the user who mounts. The default: a disk image holds its guest's secrets.
    #[default]
    Owner,
    /// The user who mounts and the members of their group.
    Group,
    /// Everybody on this machine.
    Everyone,
}

impl Access {
    pub(crate) const fn file_mode(self) -> u16 {
        match self {
            Self::Owner => 0o400,
            Self::Group => 0o440,
            Self::Everyone => 0o444,
        }
    }
    pub(crate) const fn dir_mode(self) -> u16 {
        match self {
            Self::Owner => 0o500,
            Self::Group => 0o550,
            Self::Everyone => 0o555,
        }
    }
    /// Whoever may look may write.
    pub(crate) const fn writable_file_mode(self) -> u16 {
        self.file_mode() | self.file_mode() >> 1
    }
    pub(crate) const fn beyond_owner(self) -> bool {
        !matches!(self, Self::Owner)
    }
}

/// How a tree is served.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// What the mount table shows as the mounted thing.
    pub source_name: String,
    /// Who may look.
    pub access: Access,
    /// Longest time that a request may wait for the bucket before it fails with EIO.
    pub request_deadline: Duration,
    /// Bytes being fetched for requests at one time; more requests wait (and their deadline runs).
    pub in_flight_bytes_max: u64,
    /// Requests that the kernel may have waiting in the background.
    pub background_requests_max: u16,
    /// How far the kernel reads ahead of a sequential reader.
    pub read_ahead_kib: u32,
    /// Threads that take requests from the kernel and answer those that need no I/O.
    pub answer_threads: usize,
    /// Threads that fetch.
    pub io_threads: usize,
    /// How long unmounting waits for users to finish before it detaches the mount from under them.
    pub busy_grace: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            source_name: "tidemark".into(),
            access: Access::default(),
            request_deadline: Duration::from_secs(60),
            in_flight_bytes_max: 64 << 20,
            background_requests_max: 512,
            read_ahead_kib: 1024,
            answer_threads: cores.min(4),
            io_threads: cores.clamp(2, 8),
            busy_grace: Duration::from_secs(5),
        }
    }
}
