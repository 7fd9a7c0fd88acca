//! The disk that a VM had all along: a raw file, a block device, or an export of somebody's NBD server ([`upstream`]).
//!
//! Writes go around the page cache (O_DIRECT) where the file allows blocks of 512 bytes, so that a gigabyte of guest
//! writes does not push out what the host needs, and a write that returned is with the device; [`Primary::sync`] makes
//! it durable. Reads may be answered from the page cache, which the kernel keeps coherent with direct writes.
//! All calls block: they belong on a thread that may, except [`Primary::read_cached`].

use crate::volume::upstream::{self, Upstream};
use bytes::{Bytes, BytesMut};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tidemark_format::BLOCK_BYTES;

/// Addresses and lengths of direct writes are multiples of the block; memory of this, which suits every device.
const MEMORY_ALIGN: usize = 4096;
/// Pieces of one call, at most (IOV_MAX).
const PIECES_MAX: usize = 1024;
/// Bytes of zeros that are written at once where the file cannot make them.
const ZEROS_BYTES: usize = 1 << 20;

/// An open primary.
#[derive(Debug)]
pub(crate) struct Primary {
    path: PathBuf,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    Local(Local),
    /// Behind somebody's NBD server.
    Upstream(Upstream),
}

#[derive(Debug)]
struct Local {
    /// Around the page cache, if the file allows it.
    direct: Option<File>,
    file: File,
    device: bool,
}

/// How to make zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zeros {
    /// They keep their space.
    Allocated,
    /// Their space may go.
    Hole,
}

impl Primary {
    /// Opens it for reading and writing. It is there already: nothing is ever created here.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let uri = path.to_str().filter(|path| upstream::is_uri(path));
        let backing = match uri {
            Some(uri) => Backing::Upstream(Upstream::open(uri)?),
            None => Backing::Local(Local::open(path)?),
        };
        Ok(Self { path: path.to_owned(), backing })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub(crate) fn size_bytes(&self) -> io::Result<u64> {
        match &self.backing {
            Backing::Local(local) => Ok(rustix::fs::seek(&local.file, SeekFrom::End(0))?),
            Backing::Upstream(upstream) => Ok(upstream.size_bytes()),
        }
    }

    /// Makes a file longer or shorter; a device or a server is what it is.
    pub(crate) fn resize(&self, size_bytes: u64) -> io::Result<()> {
        match &self.backing {
            Backing::Local(Local { file, device: false, .. }) => file.set_len(size_bytes),
            _ => {
                let has = self.size_bytes()?;
                match has >= size_bytes {
                    true => Ok(()),
                    false => Err(io::Error::other(format!("it has {has} bytes, {size_bytes} are wanted"))),
                }
            }
        }
    }

    /// Reads if that needs no device; `None` if it does.
    pub(crate) fn read_cached(&self, offset: u64, len: usize) -> Option<Bytes> {
        let Backing::Local(local) = &self.backing else { return None };
        let mut bytes = BytesMut::zeroed(len);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let read = rustix::io::preadv2(&local.file, &mut slices, offset, ReadWriteFlags::NOWAIT);
        matches!(read, Ok(n) if n == len).then(|| bytes.freeze())
    }

    /// Reads; what lies beyond a short file's end is zeros.
    pub(crate) fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        match &self.backing {
            Backing::Local(local) => local.read(offset, len),
            Backing::Upstream(upstream) => upstream.read(offset, len),
        }
    }

    /// Writes pieces that follow each other on the disk.
    pub(crate) fn write(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        match (&self.backing, pieces) {
            (Backing::Local(local), _) => local.write(offset, pieces),
            (Backing::Upstream(upstream), [only]) => upstream.write(offset, only),
            (Backing::Upstream(upstream), _) => upstream.write(offset, &pieces.concat()),
        }
    }

    /// Makes zeros.
    pub(crate) fn zero(&self, offset: u64, len: u64, how: Zeros) -> io::Result<()> {
        let done = match &self.backing {
            Backing::Local(local) => local.zero(offset, len, how)?,
            Backing::Upstream(upstream) => upstream.zero(offset, len, how == Zeros::Allocated)?,
        };
        if done { Ok(()) } else { self.write_zeros(offset, len) }
    }

    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = Bytes::from(vec![0; ZEROS_BYTES.min(len as usize)]);
        let mut done = 0;
        while done < len {
            let n = (len - done).min(ZEROS_BYTES as u64) as usize;
            self.write(offset + done, &[zeros.slice(..n)])?;
            done += n as u64;
        }
        Ok(())
    }

    /// Everything written so far is durable on return.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match &self.backing {
            Backing::Local(local) => local.file.sync_data(),
            Backing::Upstream(upstream) => upstream.sync(),
        }
    }

    /// Runs of a range that hold data (true) and holes (false), in order, covering it; at most `runs_max`.
    pub(crate) fn allocation(&self, offset: u64, len: u64, runs_max: usize) -> io::Result<Vec<(u64, bool)>> {
        match &self.backing {
            Backing::Local(local) => Ok(local.allocation(offset, len, runs_max)),
            // All of it may be data.
            Backing::Upstream(_) => Ok(vec![(len, true)]),
        }
    }
}

impl Local {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let device = file.metadata()?.file_type().is_block_device();
        let mut direct =
            OpenOptions::new().read(true).write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path).ok();
        // Some file systems want 4 KiB: guests write 512 bytes.
        if let Some(file) = &direct {
            let mut probe = aligned(BLOCK_BYTES as usize);
            match file.read_at(probe.bytes(), 0) {
                Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => direct = None,
                _ => {}
            }
        }
        Ok(Self { direct, file, device })
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(len);
        let mut done = 0;
        while done < len {
            match self.file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(bytes.freeze())
    }

    fn write(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        match &self.direct {
            // Pieces that came in memory that suits the device go there as they are.
            Some(direct) if pieces.iter().all(|piece| piece.as_ptr().align_offset(MEMORY_ALIGN) == 0) => {
                write_pieces(direct, offset, pieces)
            }
            Some(direct) => {
                let mut buffer = aligned(pieces.iter().map(Bytes::len).sum());
                let mut rest = buffer.bytes();
                for piece in pieces {
                    let (start, behind) = rest.split_at_mut(piece.len());
                    start.copy_from_slice(piece);
                    rest = behind;
                }
                direct.write_all_at(buffer.bytes(), offset)
            }
            None => write_pieces(&self.file, offset, pieces),
        }
    }

    /// False if the file system has no call for that.
    fn zero(&self, offset: u64, len: u64, how: Zeros) -> io::Result<bool> {
        let flags = match how {
            Zeros::Hole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            Zeros::Allocated => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        };
        match rustix::fs::fallocate(&self.file, flags, offset, len) {
            Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::INVAL) => Ok(false),
            done => Ok(done.map(|()| true)?),
        }
    }

    fn allocation(&self, offset: u64, len: u64, runs_max: usize) -> Vec<(u64, bool)> {
        let (mut at, end) = (offset, offset + len);
        let mut runs = Vec::new();
        while at < end && runs.len() < runs_max {
            let data = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) => data.min(end),
                Err(Errno::NXIO) => end,
                // A file system or device that does not know: all of it may be data.
                Err(_) => at,
            };
            if data > at {
                runs.push((data - at, false));
                at = data;
                continue;
            }
            let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(at)).map_or(end, |hole| hole.clamp(at + 1, end));
            runs.push((hole - at, true));
            at = hole;
        }
        runs
    }
}

/// Writes pieces that follow each other without copying them together.
fn write_pieces(file: &File, mut offset: u64, pieces: &[Bytes]) -> io::Result<()> {
    for pieces in pieces.chunks(PIECES_MAX) {
        let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut done = match rustix::io::pwritev(file, &slices, offset) {
            Err(Errno::INTR) => 0,
            written => written? as u64,
        };
        for piece in pieces {
            let len = piece.len() as u64;
            // What the call left over goes piece by piece.
            let here = done.min(len);
            if here < len {
                file.write_all_at(&piece[here as usize..], offset + here)?;
            }
            (done, offset) = (done - here, offset + len);
        }
    }
    Ok(())
}

/// Memory that suits direct I/O.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

fn aligned(len: usize) -> Aligned {
    let memory = vec![0_u8; len + MEMORY_ALIGN];
    let start = memory.as_ptr().align_offset(MEMORY_ALIGN);
    Aligned { memory, start, len }
}

impl Aligned {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(len: u64) -> (tempfile::NamedTempFile, Primary) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(len).expect("set its length");
        let primary = Primary::open(file.path()).expect("open it");
        (file, primary)
    }

    #[test]
    fn what_is_written_around_the_cache_is_read_through_it() {
        let (_file, primary) = disk(1 << 20);
        assert_eq!(primary.size_bytes().expect("a size"), 1 << 20);
        let before = primary.read(4096, 1024).expect("read zeros");
        assert!(before.iter().all(|byte| *byte == 0));
        primary.write(4096 + 512, &[Bytes::from(vec![1; 512]), Bytes::from(vec![2; 1024])]).expect("write");
        primary.sync().expect("sync");
        let after = primary.read(4096, 2560).expect("read");
        assert_eq!((after[511], after[512], after[1024], after[2047], after[2048]), (0, 1, 2, 2, 0));
        assert_eq!(primary.read_cached(4096, 2560).as_ref(), Some(&after), "it was just read");
    }

    #[test]
    fn pieces_arrive_in_order_whatever_memory_they_are_in() {
        let (_file, primary) = disk(16 << 20);
        let memory = Bytes::from((0..3 << 20).map(|i| (i / 512) as u8).collect::<Vec<_>>());
        let start = memory.as_ptr().align_offset(MEMORY_ALIGN);
        for skew in [0, 16] {
            for len in [512, 4096] {
                let all = memory.slice(start + skew..start + skew + 1500 * 1024);
                let pieces: Vec<_> = (0..all.len() / len).map(|i| all.slice(i * len..(i + 1) * len)).collect();
                primary.write(1 << 20, &pieces).expect("write");
                let read = primary.read(1 << 20, all.len()).expect("read");
                assert!(read == all, "skew {skew}, pieces of {len}");
                primary.zero(0, 16 << 20, Zeros::Hole).expect("punch");
            }
        }
    }

    #[test]
    fn zeros_and_holes_read_as_zeros_and_holes_are_known_as_such() {
        let (_file, primary) = disk(1 << 20);
        primary.write(0, &[Bytes::from(vec![7; 256 << 10])]).expect("write");
        primary.zero(64 << 10, 64 << 10, Zeros::Hole).expect("punch");
        primary.zero(8192, 4096, Zeros::Allocated).expect("zero");
        let all = primary.read(0, 256 << 10).expect("read");
        let zeros = all.iter().filter(|byte| **byte == 0).count();
        assert_eq!(zeros, (64 << 10) + 4096);
        let runs = primary.allocation(0, 1 << 20, 10).expect("runs");
        assert_eq!(runs, [(64 << 10, true), (64 << 10, false), (128 << 10, true), (768 << 10, false)]);
        assert_eq!(primary.allocation(0, 1 << 20, 1).expect("runs"), [(64 << 10, true)]);
    }

    #[test]
    fn a_file_follows_its_disks_size() {
        let (_file, primary) = disk(4096);
        primary.resize(8192).expect("grow");
        assert_eq!(primary.size_bytes().expect("a size"), 8192);
        primary.resize(512).expect("shrink");
        assert_eq!(primary.read(0, 1024).expect("read").len(), 1024, "beyond the end is zeros");
    }
}
