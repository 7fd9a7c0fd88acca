//! The image or the block device that becomes equal to a point.
//!
//! Invariant: nobody else has it open for writing, as far as locks tell: not QEMU, not a mount, not another restore.

use crate::error::{Error, Result};
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_format::{BLOCK_BYTES, Extent};
use tidemark_reader::Known;

/// What is looked at for zeros at a time.
const CHUNK_BYTES: u64 = 1 << 20;
/// What images begin with that are not raw ones.
const FORMATS: [(&[u8], &str); 3] = [(b"QFI\xfb", "qcow2"), (b"KDMV", "vmdk"), (b"vhdxfile", "vhdx")];

/// See the module.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    file: File,
    is_device: bool,
    size_bytes: u64,
    old_size_bytes: u64,
}

impl Target {
    /// Opens what is there.
    pub(super) fn open(path: &Path, size_bytes: u64, dry_run: bool) -> Result<Arc<Self>> {
        let own = |source| Error::Local { path: path.to_owned(), source };
        let refused = |why: String| Error::Restore { path: path.to_owned(), why };
        let kind = std::fs::metadata(path).map_err(own)?.file_type();
        let is_device = kind.is_block_device();
        if !is_device && !kind.is_file() {
            return Err(refused("it is neither a file nor a block device".to_owned()));
        }
        let mut open = OpenOptions::new();
        open.read(true).write(!dry_run);
        if is_device && !dry_run {
            // Refused while it is mounted or part of something.
            open.custom_flags(OFlags::EXCL.bits() as i32);
        }
        let file = match open.open(path) {
            Err(e) if e.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                return Err(Error::Busy { path: path.to_owned() });
            }
            opened => opened.map_err(own)?,
        };
        if !dry_run {
            // QEMU holds locks of this kind on the images of VMs that run.
            match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::AGAIN | Errno::ACCESS) => return Err(Error::Busy { path: path.to_owned() }),
                done => done.map_err(|e| own(e.into()))?,
            }
        }
        let old_size_bytes = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|e| own(e.into()))?;
        if is_device && old_size_bytes < size_bytes {
            return Err(refused(format!("the device has {old_size_bytes} bytes, the disk {size_bytes}")));
        }
        let mut first = [0; 8];
        let read = file.read_at(&mut first, 0).map_err(own)?;
        if let Some((_, name)) = FORMATS.iter().find(|(magic, _)| first[..read].starts_with(magic)) {
            return Err(refused(format!("it is a {name} image, and what is restored is raw")));
        }
        Ok(Arc::new(Self { path: path.to_owned(), file, is_device, size_bytes, old_size_bytes }))
    }

    /// How large it was.
    pub(super) fn old_size_bytes(&self) -> u64 {
        self.old_size_bytes
    }

    /// Where a file's journal is unless somebody says otherwise.
    pub(super) fn journal_beside(&self) -> Option<PathBuf> {
        let name = self.path.file_name().filter(|_| !self.is_device)?;
        let mut journal = name.to_owned();
        journal.push(".restore");
        Some(self.path.with_file_name(journal))
    }

    /// Gives a file the size of the disk.
    pub(super) fn resize(&self) -> Result<()> {
        if self.is_device || self.old_size_bytes == self.size_bytes {
            return Ok(());
        }
        self.file.set_len(self.size_bytes).map_err(|source| self.failed(source))
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|source| self.failed(source))
    }

    /// Makes zeros of what is not, unless it is only to be said; the first byte and how many they were.
    pub(super) fn make_zeros(&self, extent: Extent, dry_run: bool) -> Result<Option<(u64, u64)>> {
        let mut found: Option<(u64, u64)> = None;
        let (mut at, end) = (extent.byte_start(), extent.byte_start() + extent.byte_len());
        let mut chunk = vec![0; CHUNK_BYTES.min(extent.byte_len()) as usize];
        while let Some(data) = self.next_data(at, end) {
            let chunk = &mut chunk[..CHUNK_BYTES.min(end - data) as usize];
            self.read(data, chunk).map_err(|source| self.failed(source))?;
            at = data + chunk.len() as u64;
            let is_zero = |block: &&[u8]| block.iter().all(|byte| *byte == 0);
            let blocks = || chunk.chunks(BLOCK_BYTES as usize);
            let Some(first) = blocks().position(|block| !is_zero(&block)) else { continue };
            let last = blocks().rposition(|block| !is_zero(&block)).unwrap_or(first);
            let from = data + first as u64 * BLOCK_BYTES;
            let bytes = blocks().filter(|block| !is_zero(block)).count() as u64 * BLOCK_BYTES;
            if !dry_run {
                self.punch(from, (last - first + 1) as u64 * BLOCK_BYTES)?;
            }
            found = Some(found.map_or((from, bytes), |(first, before)| (first, before + bytes)));
        }
        Ok(found)
    }

    /// The first byte from `at` on that is not in a hole, before `end`.
    fn next_data(&self, at: u64, end: u64) -> Option<u64> {
        if at >= end {
            return None;
        }
        match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
            // Holes begin and end where the file system likes.
            Ok(data) => Some(data / BLOCK_BYTES * BLOCK_BYTES).map(|data| data.max(at)).filter(|data| *data < end),
            Err(Errno::NXIO) => None,
            // A file system or device that does not know: all of it may be data.
            Err(_) => Some(at),
        }
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, offset, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::INVAL) => self.write(offset, &vec![0; len as usize]),
            Err(errno) => Err(self.failed(errno.into())),
        }
    }

    /// Everything written is durable on return, and read from the device from then on.
    pub(super) fn settle(&self) -> Result<()> {
        self.file.sync_all().map_err(|source| self.failed(source))?;
        let whole = NonZeroU64::new(self.size_bytes);
        // Only advice: what stays in memory is compared all the same.
        let _ = rustix::fs::fadvise(&self.file, 0, whole, Advice::DontNeed);
        Ok(())
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Local { path: self.path.clone(), source }
    }
}

impl Known for Target {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(&mut into[done..], offset + done as u64) {
                // What lies beyond a short file's end is zeros once it has its size.
                Ok(0) => {
                    into[done..].fill(0);
                    break;
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
