//! The device under a log store: bytes that are durable once a write returns.

use crate::error::{Error, Result};
use rustix::fs::{FileType, FlockOperation, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// A block device, or what passes for one. Offsets and lengths are whole pages, buffers are aligned to a page.
pub trait Device: Send + Sync {
    /// Its size.
    fn len_bytes(&self) -> u64;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// What the system says; an end in front of the buffer's is an error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes at `offset` and returns how many bytes are durable now: they outlast a loss of power. Writes of different
    /// threads may run side by side.
    ///
    /// # Errors
    /// What the system says. Then nobody knows what of it was written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes durable whatever can be read now, also if another process wrote it.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self) -> io::Result<()>;
}

/// A file or block device, opened with `O_DIRECT | O_DSYNC` and locked against other processes.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    len_bytes: u64,
}

impl FileDevice {
    /// Opens a file or block device that is there.
    ///
    /// # Errors
    /// `Open`, or `InUse`.
    pub fn open(path: &Path) -> Result<Self> {
        Self::with(path, &mut std::fs::OpenOptions::new())
    }

    /// Makes a file of `bytes` zeros, or takes a file or block device that is there and has as many.
    ///
    /// The zeros are written: blocks that a file system has set aside but never written cost a journal commit each.
    pub(crate) fn create(path: &Path, bytes: u64) -> Result<Self> {
        if std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            let device = Self::with(path, std::fs::OpenOptions::new().create_new(true))?;
            if let Err(e) = device.fill(bytes) {
                // Half a file is of no use, and the next attempt must not find it.
                let _ = std::fs::remove_file(path);
                return Err(open_error("fill", path, e));
            }
        }
        let device = Self::open(path)?;
        let have = device.len_bytes();
        if have < bytes { Err(Error::TooSmall { bytes: have, need: bytes }) } else { Ok(device) }
    }

    fn with(path: &Path, options: &mut std::fs::OpenOptions) -> Result<Self> {
        let flags = (OFlags::DIRECT | OFlags::DSYNC | OFlags::CLOEXEC).bits() as i32;
        let file =
            options.read(true).write(true).custom_flags(flags).open(path).map_err(|e| open_error("open", path, e))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
            rustix::io::Errno::WOULDBLOCK => Error::InUse { device: path.display().to_string() },
            e => open_error("lock", path, e.into()),
        })?;
        let len_bytes = len_of(&file).map_err(|e| open_error("measure", path, e))?;
        Ok(Self { file, len_bytes })
    }

    /// Writes zeros all over, made durable once at the end.
    fn fill(&self, bytes: u64) -> io::Result<()> {
        rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        let mut buffer = crate::buffer::AlignedBuffer::default();
        let zeros = buffer.bytes(4 << 20);
        let mut at = 0;
        while at < bytes {
            let len = (bytes - at).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..len as usize], at)?;
            at += len;
        }
        self.file.sync_all()
    }
}

fn open_error(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Open { what, device: path.display().to_string(), source: Arc::new(source) }
}

fn len_of(file: &File) -> io::Result<u64> {
    let stat = rustix::fs::fstat(file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?),
        FileType::RegularFile => Ok(stat.st_size as u64),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device")),
    }
}

impl Device for FileDevice {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
