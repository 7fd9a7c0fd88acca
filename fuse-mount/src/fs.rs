//! What a tree of disk images must answer, whatever carries the questions.
//!
//! [`DiskFs`] knows no FUSE: it is tested by calling it, and FUSE is one thin adapter. Two rules shape it:
//! - An answer is given [`Answer::Now`] only if that takes microseconds and no I/O; everything else is [`Answer::Later`], a
//!   future that the transport runs away from its own threads, with a deadline, and may drop at any await.
//! - The contents behind an inode number never change, so a transport may cache them for as long as it likes. Which number a
//!   name has may change, as [`Validity`] says. Only a tree that [`DiskFs::is_writable`] is otherwise, and must not be cached.

use crate::error::{Error, Result};
use bytes::Bytes;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use tidemark_format::TimeNs;

/// Number of a node of the tree. The same node has the same number in every mount of the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(1);

    /// Wraps a raw number.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }
    /// The raw number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// An answer that may need I/O.
pub enum Answer<T> {
    /// Known already.
    Now(Result<T>),
    /// Needs I/O. Safe to drop at any time.
    Later(Pending<T>),
}

/// An answer on its way.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

impl<T> Answer<T> {
    /// An answer that `future` will find.
    pub fn later(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }

    /// The answer, however long it takes.
    ///
    /// # Errors
    /// Whatever the answer is.
    pub async fn get(self) -> Result<T> {
        match self {
            Self::Now(answer) => answer,
            Self::Later(pending) => pending.await,
        }
    }
}

/// How a read was answered.
pub enum ReadAnswer {
    /// The callback has seen the bytes.
    Hit,
    /// The callback was not called; the bytes need I/O.
    Later(Pending<Bytes>),
    /// The callback was not called.
    Failed(Error),
}

/// How a write was answered.
pub enum WriteAnswer {
    /// All of it is written, and outlasts this process.
    Done,
    /// Needs I/O.
    Later(Pending<()>),
    /// Nothing that was there before is lost.
    Failed(Error),
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A disk image.
    Disk,
}

/// What `stat` shows of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub ino: Ino,
    /// What it is.
    pub kind: NodeKind,
    /// Bytes in a disk, or in the text of a link; 0 for a directory.
    pub size_bytes: u64,
    /// When the contents were last changed: the time of the point it belongs to.
    pub changed: TimeNs,
    /// How long the name and these attributes may be remembered.
    pub validity: Validity,
}

/// How long a name and attributes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// For ever: they belong to a point whose contents are final.
    Forever,
    /// For a moment: they follow the newest writes, or the point is not final yet.
    Brief,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Number that a lookup of the name will find.
    pub ino: Ino,
    /// What it is.
    pub kind: NodeKind,
    /// The name.
    pub name: OsString,
}

/// Which way `lseek` looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// The next byte that may differ from zero.
    Data,
    /// The next byte in a hole; the end of the disk counts as one.
    Hole,
}

/// What `statfs` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sum of the sizes of the disks shown, in bytes.
    pub size_bytes: u64,
    /// Number of disks shown.
    pub disks: u64,
}

/// A tree of disk images, read-only unless it says otherwise.
pub trait DiskFs: Send + Sync + 'static {
    /// An open disk.
    type File: Send + Sync + 'static;

    /// Finds `name` in a directory. Each success is one reference to the number, see [`Self::forget`].
    fn lookup(&self, parent: Ino, name: &OsStr) -> Answer<Attr>;
    /// Drops `lookups` references to a number; one without references may be forgotten.
    fn forget(&self, ino: Ino, lookups: u64);
    /// What a node is; an error if the number is not referenced, or its point is gone.
    fn getattr(&self, ino: Ino) -> Answer<Attr>;
    /// The target of a link.
    fn readlink(&self, ino: Ino) -> Answer<OsString>;
    /// Everything a directory shows, without `.` and `..`; a bounded sample where any name works.
    fn readdir(&self, ino: Ino) -> Answer<Vec<DirEntry>>;
    /// Opens a disk.
    fn open(&self, ino: Ino) -> Answer<Arc<Self::File>>;
    /// Reads at most `len` bytes, fewer only at the end of the disk. If they are at hand, `hit` is called once, with all
    /// of them, before this returns.
    fn read(&self, file: &Arc<Self::File>, offset: u64, len: u32, hit: &mut dyn FnMut(&[u8])) -> ReadAnswer;
    /// Finds data or a hole at or after `offset`.
    fn seek(&self, file: &Arc<Self::File>, offset: u64, to: SeekTo) -> Answer<u64>;
    /// The value of an extended attribute.
    ///
    /// # Errors
    /// [`Error::NoAttribute`] if the node has none of this name.
    fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>>;
    /// The names of a node's extended attributes.
    ///
    /// # Errors
    /// If the number is not referenced, or its point is gone.
    fn listxattr(&self, ino: Ino) -> Result<Vec<&'static str>>;
    /// Totals of the disks shown.
    fn totals(&self) -> Totals;

    /// Whether disks can be written to.
    fn is_writable(&self) -> bool {
        false
    }
    /// Writes `bytes`, all of them.
    fn write(&self, _file: &Arc<Self::File>, _offset: u64, _bytes: &[u8]) -> WriteAnswer {
        WriteAnswer::Failed(Error::ReadOnly)
    }
    /// Makes a range zeros and gives its space back; what is beyond the end is left out.
    fn discard(&self, _file: &Arc<Self::File>, _range: Range<u64>) -> Answer<()> {
        Answer::Now(Err(Error::ReadOnly))
    }
    /// Makes every write that was answered durable.
    fn flush(&self, _file: &Arc<Self::File>) -> Answer<()> {
        Answer::Now(Ok(()))
    }
    /// A local file that has the disk's contents, byte for byte, now and whatever is written later.
    fn local_file(&self, _file: &Arc<Self::File>) -> Option<File> {
        None
    }
}
