//! The local files of a recovery disk, behind a trait so that tests can lose power under them.

use crate::error::{Error, Result};
use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A local file. What is written can be read at once, outlasts the process, and is durable after [`Self::sync`].
pub trait LocalFile: Send + Sync {
    /// Its length.
    ///
    /// # Errors
    /// What the system says; so for all others here.
    fn len(&self) -> io::Result<u64>;
    /// True if it has no bytes.
    ///
    /// # Errors
    /// As [`Self::len`].
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// Fills `buffer` from `offset` on; what is beyond the end is an error.
    ///
    /// # Errors
    /// As [`Self::len`].
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// As [`Self::read_at`] if that needs no waiting; else false, and `buffer` holds anything.
    fn read_now(&self, buffer: &mut [u8], offset: u64) -> bool;
    /// Writes at `offset`.
    ///
    /// # Errors
    /// As [`Self::len`].
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes `range` read as zeros, and gives its space back. The length stays.
    ///
    /// # Errors
    /// As [`Self::len`].
    fn punch(&self, range: Range<u64>) -> io::Result<()>;
    /// Makes all that was written durable.
    ///
    /// # Errors
    /// As [`Self::len`]. Then nobody knows what was lost.
    fn sync(&self) -> io::Result<()>;
    /// The first byte from `offset` on that is not in a hole.
    ///
    /// # Errors
    /// As [`Self::len`].
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
    /// The first byte from `offset` on that is in a hole, the end at the latest.
    ///
    /// # Errors
    /// As [`Self::len`].
    fn next_hole(&self, offset: u64) -> io::Result<Option<u64>>;
}

/// The two files of a recovery disk.
pub trait LocalFiles: Send + Sync {
    /// The contents, as long as the disk.
    fn data(&self) -> &Arc<dyn LocalFile>;
    /// The map, if there is one yet.
    ///
    /// # Errors
    /// What the system says.
    fn map(&self) -> io::Result<Option<Arc<dyn LocalFile>>>;
    /// Puts a new map in the place of the old one: after a crash there is one of the two, whole. Durable on return.
    ///
    /// # Errors
    /// What the system says.
    fn replace_map(&self, contents: &[u8]) -> io::Result<Arc<dyn LocalFile>>;
    /// The file of contents, open for reading, if it is one that others can open.
    fn reopen(&self) -> Option<File> {
        None
    }
}

/// Names one boot of a machine: what is in the page cache is lost with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot(String);

impl Boot {
    /// A boot of this name.
    pub fn named(name: &str) -> Self {
        Self(name.trim().to_owned())
    }

    /// The boot that this process runs in.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn current() -> Result<Self> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| Error::Open { what: "read", path: path.into(), source })?;
        Ok(Self::named(&text))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }
}

/// A real file.
#[derive(Debug)]
struct PlainFile(File);

impl LocalFile for PlainFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
    fn read_now(&self, buffer: &mut [u8], offset: u64) -> bool {
        let len = buffer.len();
        let read = rustix::io::preadv2(&self.0, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT);
        read == Ok(len)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.0, how, range.start, range.end - range.start) {
            // A file system without holes: zeros are as good, and take space.
            Err(Errno::OPNOTSUPP) => {
                static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
                let mut at = range.start;
                while at < range.end {
                    let len = (range.end - at).min(ZEROS.len() as u64);
                    self.0.write_all_at(&ZEROS[..len as usize], at)?;
                    at += len;
                }
                Ok(())
            }
            done => Ok(done?),
        }
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        seek(&self.0, SeekFrom::Data(offset))
    }
    fn next_hole(&self, offset: u64) -> io::Result<Option<u64>> {
        seek(&self.0, SeekFrom::Hole(offset))
    }
}

fn seek(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `STEM.raw` and `STEM.map` in a directory of a local file system, locked against other processes.
pub struct DiskFiles {
    data: Arc<dyn LocalFile>,
    raw: PathBuf,
    map: PathBuf,
}

impl DiskFiles {
    /// Opens the files of a disk of `size_bytes`, and makes them if they are not there. The directory must exist.
    ///
    /// # Errors
    /// `Open`, `InUse`, and `Foreign` if there is a file of contents that no map belongs to.
    pub fn open(dir: &Path, stem: &str, size_bytes: u64) -> Result<Self> {
        let (raw, map) = (dir.join(format!("{stem}.raw")), dir.join(format!("{stem}.map")));
        let failed = |what| {
            let path = raw.clone();
            move |source| Error::Open { what, path, source }
        };
        // An image holds its guest's secrets.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&raw).map_err(failed("open"))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => Error::InUse { path: raw.clone() },
            error => failed("lock")(error.into()),
        })?;
        let meta = file.metadata().map_err(failed("measure"))?;
        if !map.try_exists().map_err(failed("look beside"))? {
            // Made by us a moment before a crash, it has nothing in it.
            if meta.blocks() > 0 {
                let found = format!("something without a map: {} is not ours to write", raw.display());
                return Err(Error::Foreign { wanted: "a new overlay".into(), found });
            }
            file.set_len(size_bytes).map_err(failed("size"))?;
            file.sync_all().and_then(|()| sync_dir(dir)).map_err(failed("make"))?;
        } else if meta.len() != size_bytes {
            let (wanted, found) = (format!("a disk of {size_bytes} bytes"), format!("one of {} bytes", meta.len()));
            return Err(Error::Foreign { wanted, found });
        }
        Ok(Self { data: Arc::new(PlainFile(file)), raw, map })
    }

    /// The file of contents.
    pub fn raw(&self) -> &Path {
        &self.raw
    }
}

impl LocalFiles for DiskFiles {
    fn data(&self) -> &Arc<dyn LocalFile> {
        &self.data
    }

    fn map(&self) -> io::Result<Option<Arc<dyn LocalFile>>> {
        match OpenOptions::new().read(true).write(true).open(&self.map) {
            Ok(file) => Ok(Some(Arc::new(PlainFile(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn replace_map(&self, contents: &[u8]) -> io::Result<Arc<dyn LocalFile>> {
        let fresh = self.map.with_extension("map.new");
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(contents)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.map)?;
        if let Some(dir) = self.map.parent() {
            sync_dir(dir)?;
        }
        Ok(Arc::new(PlainFile(file)))
    }

    fn reopen(&self) -> Option<File> {
        File::open(&self.raw).ok()
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
