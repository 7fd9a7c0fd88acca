//! Reading: what the page cache holds is copied at once, on the caller's thread; what is not waits on a thread that may block.

use super::{Inner, failure, uninterrupted};
use crate::store::{Failure, Got};
use bytes::Bytes;
use rustix::fs::{Dir, FileType, Mode, OFlags, fstat, openat};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::IoSliceMut;
use std::os::fd::OwnedFd;

/// Longest read that is copied on the caller's thread: some 30 us.
const INLINE_READ_BYTES_MAX: u64 = 256 << 10;

impl Inner {
    /// The bytes, if they can be had without waiting for a disk.
    pub(super) fn read_cached(&self, key: &str, offset: u64, len_max: u64) -> Result<Option<Got>, Failure> {
        let (file, object_len) = self.open_object(key)?;
        let len = object_len.saturating_sub(offset).min(len_max);
        if len > INLINE_READ_BYTES_MAX {
            return Ok(None);
        }
        let mut buffer = vec![0; len as usize];
        let mut done = 0;
        while done < buffer.len() {
            let into = &mut [IoSliceMut::new(&mut buffer[done..])];
            match rustix::io::preadv2(&file, into, offset + done as u64, ReadWriteFlags::NOWAIT) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(Errno::INTR) => {}
                // Not in memory, or a file system that cannot tell.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(None),
                Err(error) => return Err(failure(error)),
            }
        }
        buffer.truncate(done);
        Ok(Some(Got { bytes: Bytes::from(buffer), object_len: Some(object_len) }))
    }

    /// The bytes, however long it takes.
    pub(super) fn read(&self, key: &str, offset: u64, len_max: u64) -> Result<Got, Failure> {
        let (file, object_len) = self.open_object(key)?;
        let mut buffer = vec![0; object_len.saturating_sub(offset).min(len_max) as usize];
        let mut done = 0;
        while done < buffer.len() {
            match uninterrupted(|| rustix::io::pread(&file, &mut buffer[done..], offset + done as u64)) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(error) => return Err(failure(error)),
            }
        }
        buffer.truncate(done);
        Ok(Got { bytes: Bytes::from(buffer), object_len: Some(object_len) })
    }

    fn open_object(&self, key: &str) -> Result<(OwnedFd, u64), Failure> {
        let root = self.root()?;
        let file = match uninterrupted(|| {
            openat(&*root, key, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        }) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Err(self.absent(&root)),
            Err(error) => return Err(failure(error)),
        };
        let stat = fstat(&file).map_err(failure)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(failure(Errno::ISDIR));
        }
        Ok((file, u64::try_from(stat.st_size).unwrap_or_default()))
    }

    /// Every object whose key starts with `prefix`, with its length, sorted.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Failure> {
        let root = self.root()?;
        let start = super::write::parent(prefix);
        let mut found = Vec::new();
        let mut todo = vec![start.to_owned()];
        while let Some(path) = todo.pop() {
            let dir = match self.open_dir(&root, &path) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => match self.absent(&root) {
                    Failure::NotFound => continue,
                    other => return Err(other),
                },
                Err(error) => return Err(failure(error)),
            };
            for entry in Dir::read_from(&dir).map_err(failure)? {
                let entry = entry.map_err(failure)?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                if name.starts_with('.') {
                    continue;
                }
                let key = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                if !key.starts_with(prefix) && !prefix.starts_with(&format!("{key}/")) {
                    continue;
                }
                let stat = match rustix::fs::statat(&dir, entry.file_name(), rustix::fs::AtFlags::empty()) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(failure(error)),
                };
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => todo.push(key),
                    FileType::RegularFile => found.push((key, u64::try_from(stat.st_size).unwrap_or_default())),
                    _ => {}
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}
