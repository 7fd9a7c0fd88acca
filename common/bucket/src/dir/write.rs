//! Writing: temporary file, sync, link or rename, sync of the directory.

use super::{Inner, failure, uninterrupted};
use crate::error::Cause;
use crate::pieces::Pieces;
use crate::store::{Failure, Put, PutRule};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, linkat, mkdirat, openat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

/// Start of every temporary file's name.
pub(super) const TEMPORARY: &str = ".tmp-";
/// Buffers handed to one write call.
const SLICES_MAX: usize = 256;
/// Directories remembered as durable; beyond it, they are looked after anew.
const DURABLE_DIRS_MAX: usize = 4096;

/// The directory part of a key; empty for the root.
pub(super) fn parent(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Inner {
    pub(super) fn write(&self, key: &str, body: &Pieces, rule: PutRule) -> Result<Put, Failure> {
        let root = self.make_root()?;
        let dir_path = parent(key);
        self.make_dirs(&root, dir_path)?;
        let dir = match self.open_dir(&root, dir_path) {
            Ok(dir) => dir,
            Err(error) => {
                // Somebody removed the directory: forget that it is durable, so that the next attempt makes it again.
                self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner).clear();
                return Err(failure(error));
            }
        };
        let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
        let temporary = format!("{TEMPORARY}{:032x}", u128::from_le_bytes(self.entropy.nonce()));
        let file = create_file(&dir, &temporary).map_err(failure)?;
        let published = write_durably(&file, body).and_then(|()| match rule {
            PutRule::IfAbsent => publish_new(&dir, &temporary, name),
            PutRule::Overwrite => renameat(&dir, temporary.as_str(), &dir, name).map(|()| Put::Stored),
        });
        if !matches!((rule, &published), (PutRule::Overwrite, Ok(_))) {
            // A leftover is harmless, so failing to remove it is no failure.
            let _ = unlinkat(&dir, temporary.as_str(), AtFlags::empty());
        }
        let put = published.map_err(failure)?;
        // Also after a lost race: the winner may have crashed before its sync, and our caller will act on what it saw.
        uninterrupted(|| rustix::fs::fsync(&dir)).map_err(failure)?;
        Ok(put)
    }

    /// The root directory, made durable with all that is above it if it is new.
    fn make_root(&self) -> Result<Arc<OwnedFd>, Failure> {
        match self.root() {
            Err(Failure::NoBucket) => {}
            done => return done,
        }
        let missing: Vec<_> = self.root_path.ancestors().take_while(|path| !path.exists()).collect();
        for path in missing.into_iter().rev() {
            match std::fs::create_dir(path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
            let above = path.parent().unwrap_or(path);
            std::fs::File::open(above).and_then(|dir| dir.sync_all())?;
        }
        self.root()
    }

    /// Makes the directories on the way to `path` and their names durable.
    fn make_dirs(&self, root: &OwnedFd, path: &str) -> Result<(), Failure> {
        let durable = |path: &str| self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner).contains(path);
        if path.is_empty() || durable(path) {
            return Ok(());
        }
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let dir = &path[..end];
            if durable(dir) {
                continue;
            }
            match mkdirat(root, dir, Mode::from_raw_mode(0o777)) {
                // One that exists may be another process' and not durable yet: sync it as well.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Err(Failure::Transient(Cause::new(format!("{dir} lost its parent")))),
                Err(error) => return Err(failure(error)),
            }
            self.sync_dir(root, parent(dir))?;
            let mut known = self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= DURABLE_DIRS_MAX {
                known.clear();
            }
            known.insert(dir.to_owned());
        }
        Ok(())
    }
}

/// A new file; an error if the name is taken.
fn create_file(dir: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    uninterrupted(|| openat(dir, name, flags, Mode::from_raw_mode(0o666)))
}

/// All of `body` on stable storage.
fn write_durably(file: &OwnedFd, body: &Pieces) -> rustix::io::Result<()> {
    for parts in body.parts().chunks(SLICES_MAX) {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            let written = uninterrupted(|| rustix::io::writev(file, left))?;
            if written == 0 {
                return Err(Errno::IO);
            }
            IoSlice::advance_slices(&mut left, written);
        }
    }
    // After a failed sync the kernel may drop the pages and report success the next time: so never the same file twice.
    uninterrupted(|| rustix::fs::fsync(file))
}

/// Gives `temporary` its final name, unless that is taken.
fn publish_new(dir: &OwnedFd, temporary: &str, name: &str) -> rustix::io::Result<Put> {
    match linkat(dir, temporary, dir, name, AtFlags::empty()) {
        Ok(()) => return Ok(Put::Stored),
        Err(Errno::EXIST) => return Ok(Put::Exists),
        // File systems without hard links.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::ACCESS) => {}
        Err(error) => return Err(error),
    }
    publish_by_rename(dir, temporary, name)
}

/// The same, for file systems without hard links.
pub(super) fn publish_by_rename(dir: &OwnedFd, temporary: &str, name: &str) -> rustix::io::Result<Put> {
    match renameat_with(dir, temporary, dir, name, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Put::Stored),
        Err(Errno::EXIST) => Ok(Put::Exists),
        Err(error) => Err(error),
    }
}
