//! A store in a directory: one file per object, complete and durable before it can be seen, created by exactly one.
//!
//! An object is written to a temporary file beside its place, synced, and only then linked to its name: `link(2)` fails if the
//! name is taken, so racing creates have one winner, and a crash at any moment leaves the whole object or none (docs/lessons.md L21).
//! The directory is synced before the answer, and so are the directories above it that were made on the way.
//! Invariants: a name, once it shows, shows all its bytes for ever; a name whose store was answered survives power loss.
//! Temporary files that a crash leaves behind start with a dot, which no key does: they are never listed and never read.

mod read;
mod write;

use crate::error::Cause;
use crate::pieces::Pieces;
use crate::store::{CreatePromise, Failure, Got, Put, PutRule, Store};
use async_trait::async_trait;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tidemark_env::Entropy;

/// A directory that holds objects. It is made by the first put.
pub(crate) struct DirStore {
    inner: Arc<Inner>,
}

struct Inner {
    root_path: PathBuf,
    /// Opened once: a file system mounted over or unmounted from the path later never silently takes the bucket's place.
    root: Mutex<Option<Arc<OwnedFd>>>,
    /// Directories below the root whose own names are durable.
    durable_dirs: Mutex<HashSet<String>>,
    entropy: Arc<dyn Entropy>,
}

impl DirStore {
    pub(crate) fn new(root: &Path, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            inner: Arc::new(Inner {
                root_path: root.to_owned(),
                root: Mutex::default(),
                durable_dirs: Mutex::default(),
                entropy,
            }),
        }
    }

    /// Runs file I/O where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => Err(Failure::Transient(Cause::new(format!("the file task ended early: {error}")))),
        }
    }
}

impl Inner {
    /// The root directory, if it is there.
    fn root(&self) -> Result<Arc<OwnedFd>, Failure> {
        let mut root = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fd) = &*root {
            return Ok(fd.clone());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&self.root_path, flags, Mode::empty()) {
            Ok(fd) => Ok(root.insert(Arc::new(fd)).clone()),
            Err(Errno::NOENT) => Err(Failure::NoBucket),
            Err(error) => Err(failure(error)),
        }
    }

    /// What a missing name means: the object is absent only if the root still exists.
    fn absent(&self, root: &OwnedFd) -> Failure {
        match rustix::fs::fstat(root) {
            Ok(stat) if stat.st_nlink == 0 => Failure::NoBucket,
            Ok(_) => Failure::NotFound,
            Err(error) => failure(error),
        }
    }
}

/// A failed system call, classified. A missing name is not `NotFound` here: only [`Inner::absent`] proves that.
fn failure(error: Errno) -> Failure {
    match error {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Failure::Denied(std::io::Error::from(error).into()),
        Errno::ISDIR | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL | Errno::FBIG | Errno::LOOP => {
            Failure::Refused(std::io::Error::from(error).into())
        }
        _ => Failure::Transient(std::io::Error::from(error).into()),
    }
}

/// Tries a system call until no signal interrupts it.
fn uninterrupted<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

#[async_trait]
impl Store for DirStore {
    async fn get(&self, key: &str, offset: u64, len_max: u64) -> Result<Got, Failure> {
        if let Some(got) = self.inner.read_cached(key, offset, len_max)? {
            return Ok(got);
        }
        let key = key.to_owned();
        self.blocking(move |inner| inner.read(&key, offset, len_max)).await
    }

    async fn put(&self, key: &str, body: Pieces, rule: PutRule) -> Result<Put, Failure> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.write(&key, &body, rule)).await
    }

    async fn head(&self, key: &str) -> Result<u64, Failure> {
        let root = self.inner.root()?;
        match statat(&*root, key, AtFlags::empty()) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => Err(failure(Errno::ISDIR)),
            Ok(stat) => Ok(u64::try_from(stat.st_size).unwrap_or_default()),
            Err(Errno::NOENT) => Err(self.inner.absent(&root)),
            Err(error) => Err(failure(error)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Failure> {
        let prefix = prefix.to_owned();
        self.blocking(move |inner| inner.list(&prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<(), Failure> {
        let key = key.to_owned();
        self.blocking(move |inner| {
            let root = inner.root()?;
            match unlinkat(&*root, key.as_str(), AtFlags::empty()) {
                Ok(()) => inner.sync_dir(&root, write::parent(&key)),
                Err(Errno::NOENT) => match inner.absent(&root) {
                    Failure::NotFound => Ok(()),
                    other => Err(other),
                },
                Err(error) => Err(failure(error)),
            }
        })
        .await
    }

    fn create(&self) -> CreatePromise {
        CreatePromise::Ours
    }
}

impl Inner {
    /// Opens a directory below the root; the empty path is the root.
    fn open_dir(&self, root: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        openat(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Makes the names in a directory durable.
    fn sync_dir(&self, root: &OwnedFd, path: &str) -> Result<(), Failure> {
        let dir = self.open_dir(root, path).map_err(failure)?;
        uninterrupted(|| rustix::fs::fsync(&dir)).map_err(failure)
    }
}

#[cfg(test)]
mod tests;
