//! FUSE requests in, [`DiskFs`] questions out. The only module that speaks `fuser`.
//!
//! An answer that is at hand is written by the thread that took the request; for any other the reply token moves into the
//! I/O runtime and the task that has the answer writes it. So no FUSE thread ever waits. Whatever goes wrong, each request
//! is answered once: a token dropped by a panic or by a lost task answers EIO by itself.
//! Not here: mounting ([`crate::mountpoint`]) and what the tree looks like ([`crate::tree`]).

use crate::crew::Crew;
use crate::error::{Error, Result};
use crate::fs::{Answer, Attr, DirEntry, DiskFs, Ino, NodeKind, ReadAnswer, SeekTo, Validity, WriteAnswer};
use crate::handles::Handles;
use crate::health::Health;
use crate::options::ServeOptions;
use crate::passthrough::Passed;
use crate::stats::Counters;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// Long enough to be for ever, short enough for every kernel's arithmetic.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const BRIEF: Duration = Duration::from_secs(1);
/// The unit that `statfs` counts in, and the size that `stat` recommends for reads.
const STAT_BLOCK_BYTES: u32 = 4096;
const NAME_BYTES_MAX: u32 = 255;
/// Largest request asked for: 1 MiB of data.
const REQUEST_BYTES_MAX: u32 = 1 << 20;

pub(crate) struct Adapter<F: DiskFs> {
    fs: Arc<F>,
    io: tokio::runtime::Handle,
    files: Arc<Handles<F::File>>,
    listings: Arc<Handles<Vec<DirEntry>>>,
    desk: Arc<Desk>,
    crew: Arc<Crew>,
    look: Look,
    background_requests_max: u16,
    writable: bool,
    /// Opens that the kernel serves from local files.
    passed: Arc<Passed>,
}

/// How nodes look to `stat`.
#[derive(Clone, Copy)]
struct Look {
    uid: u32,
    gid: u32,
    file_mode: u16,
    dir_mode: u16,
}

/// What a task needs to finish a request on its own.
struct Desk {
    health: Arc<Health>,
    counters: Arc<Counters>,
    deadline: Duration,
    /// One permit per KiB that may be in flight.
    budget: Arc<Semaphore>,
    budget_kib: u32,
}

impl<F: DiskFs> Adapter<F> {
    pub(crate) fn new(
        fs: Arc<F>,
        io: tokio::runtime::Handle,
        health: Arc<Health>,
        counters: Arc<Counters>,
        crew: Arc<Crew>,
        options: &ServeOptions,
    ) -> Self {
        // Room for at least one whole request, and no more than a semaphore can count.
        let budget_kib =
            (options.in_flight_bytes_max / 1024).clamp(u64::from(REQUEST_BYTES_MAX / 1024), 1 << 28) as u32;
        let desk = Desk {
            health,
            counters,
            deadline: options.request_deadline,
            budget: Arc::new(Semaphore::new(budget_kib as usize)),
            budget_kib,
        };
        let writable = fs.is_writable();
        let look = Look {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            file_mode: if writable { options.access.writable_file_mode() } else { options.access.file_mode() },
            dir_mode: options.access.dir_mode(),
        };
        Self {
            fs,
            io,
            files: Arc::default(),
            listings: Arc::default(),
            desk: Arc::new(desk),
            crew,
            look,
            background_requests_max: options.background_requests_max,
            writable,
            passed: Arc::default(),
        }
    }

    /// Asks the file system, and gives its answer to `reply`, at once or from the I/O runtime.
    fn answer<T: Send + 'static>(
        &self,
        what: &'static str,
        ask: impl FnOnce(&F) -> Answer<T>,
        reply: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        self.crew.call();
        match guarded(what, || ask(&self.fs)) {
            Ok(Answer::Now(answer)) => reply(answer.inspect_err(|error| self.desk.report(error))),
            Ok(Answer::Later(pending)) => {
                let desk = self.desk.clone();
                self.io.spawn(async move {
                    let answer = tokio::time::timeout(desk.deadline, pending).await;
                    let answer = answer
                        .unwrap_or_else(|_| Err(Error::Deadline { what: what.to_owned(), deadline: desk.deadline }));
                    desk.close(&answer);
                    reply(answer);
                });
            }
            Err(error) => {
                self.desk.report(&error);
                reply(Err(error));
            }
        }
    }

    /// Answers a request for a file that has no other answer than that it is done.
    fn settle(
        &self,
        what: &'static str,
        fh: FileHandle,
        ask: impl FnOnce(&F, &Arc<F::File>) -> Answer<()>,
        reply: ReplyEmpty,
    ) {
        let Some(file) = self.files.get(fh.0) else { return reply.error(Errno::EBADF) };
        self.answer(
            what,
            |fs| ask(fs, &file),
            move |answer| match answer {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    /// Asks something that needs no I/O.
    fn now<T>(&self, what: &'static str, ask: impl FnOnce(&F) -> Result<T>) -> std::result::Result<T, Errno> {
        self.crew.call();
        guarded(what, || ask(&self.fs)).flatten().map_err(|error| {
            self.desk.report(&error);
            errno(&error)
        })
    }
}

impl Desk {
    /// Logs a failure that is more than a plain "no such thing".
    fn report(&self, error: &Error) {
        if error.errno() != libc::EIO {
            return;
        }
        self.counters.failures.fetch_add(1, Relaxed);
        if let Some(line) = self.health.failed(error) {
            tracing::error!("{line}");
        }
    }

    /// Notes how an answer that needed I/O came out.
    fn close<T>(&self, answer: &Result<T>) {
        match answer {
            Err(error) => self.report(error),
            Ok(_) => {
                if let Some(failed) = self.health.worked() {
                    tracing::info!("the bucket answers again after {failed} failed requests");
                }
            }
        }
    }
}

/// Runs `ask`; a panic becomes an error instead of the end of a FUSE thread.
fn guarded<T>(what: &'static str, ask: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(ask)).map_err(|_| Error::Panicked { what })
}

fn errno(error: &Error) -> Errno {
    Errno::from_i32(error.errno())
}

fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::Directory => FileType::Directory,
        NodeKind::Link => FileType::Symlink,
        NodeKind::Disk => FileType::RegularFile,
    }
}

fn ttl(attr: &Attr) -> Duration {
    match attr.validity {
        Validity::Forever => FOREVER,
        Validity::Brief => BRIEF,
    }
}

impl Look {
    fn attr(self, attr: &Attr) -> FileAttr {
        let time = UNIX_EPOCH + Duration::from_nanos(attr.changed.get());
        let (perm, nlink) = match attr.kind {
            NodeKind::Directory => (self.dir_mode, 2),
            NodeKind::Link => (0o777, 1),
            NodeKind::Disk => (self.file_mode, 1),
        };
        // One page less than the size: copying tools look for holes only in files that take less room than their size.
        let blocks = match attr.kind {
            NodeKind::Disk => (attr.size_bytes / 512).saturating_sub(u64::from(STAT_BLOCK_BYTES) / 512),
            NodeKind::Directory | NodeKind::Link => 0,
        };
        FileAttr {
            ino: INodeNo(attr.ino.get()),
            size: attr.size_bytes,
            blocks,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: file_type(attr.kind),
            perm,
            nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: STAT_BLOCK_BYTES,
            flags: 0,
        }
    }
}

fn ino(ino: INodeNo) -> Ino {
    Ino::new(ino.0)
}

fn send_xattr(reply: ReplyXattr, value: &[u8], room: u32) {
    match u32::try_from(value.len()) {
        Ok(len) if room == 0 => reply.size(len),
        Ok(len) if len <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

impl<F: DiskFs> Filesystem for Adapter<F> {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without ASYNC_DIO the kernel sends the parts of a direct read one after the other. Never WRITEBACK_CACHE.
        let wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
        let mut offered = wanted & config.capabilities();
        // A shared mapping would make the kernel cache the disk, and then refuse to hand it the local file.
        if self.writable {
            offered.remove(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        }
        // The kernel may read a local file by itself, but not one that lies on a file system stacked like this one.
        if self.writable && config.capabilities().contains(InitFlags::FUSE_PASSTHROUGH) {
            let stacked = config.set_max_stack_depth(1).is_ok();
            offered.set(InitFlags::FUSE_PASSTHROUGH, stacked);
            self.passed.permit(stacked);
        }
        config.add_capabilities(offered).expect("these are among the offered");
        // Each refusal of a setting names the nearest that is possible.
        config.set_max_background(self.background_requests_max.max(1)).ok();
        if let Err(nearest) = config.set_max_write(REQUEST_BYTES_MAX) {
            config.set_max_write(nearest).ok();
        }
        if let Err(nearest) = config.set_max_readahead(REQUEST_BYTES_MAX) {
            config.set_max_readahead(nearest).ok();
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let look = self.look;
        self.answer(
            "look up a name",
            |fs| fs.lookup(ino(parent), name),
            move |answer| match answer {
                Ok(attr) => reply.entry(&ttl(&attr), &look.attr(&attr), Generation(0)),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn forget(&self, _req: &Request, node: INodeNo, lookups: u64) {
        if let Err(error) = guarded("forget", || self.fs.forget(ino(node), lookups)) {
            self.desk.report(&error);
        }
    }

    fn getattr(&self, _req: &Request, node: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let look = self.look;
        self.answer(
            "stat",
            |fs| fs.getattr(ino(node)),
            move |answer| match answer {
                Ok(attr) => reply.attr(&ttl(&attr), &look.attr(&attr)),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn readlink(&self, _req: &Request, node: INodeNo, reply: ReplyData) {
        self.answer(
            "follow a link",
            |fs| fs.readlink(ino(node)),
            move |answer| match answer {
                Ok(target) => reply.data(target.as_encoded_bytes()),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn opendir(&self, _req: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let listings = self.listings.clone();
        self.answer(
            "list a directory",
            |fs| fs.readdir(ino(node)),
            move |answer| match answer {
                Ok(entries) => reply.opened(FileHandle(listings.insert(Arc::new(entries))), FopenFlags::empty()),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn readdir(&self, _req: &Request, node: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(entries) = self.listings.get(fh.0) else { return reply.error(Errno::EBADF) };
        let dots = [".", ".."].map(|name| (node, FileType::Directory, OsStr::new(name)));
        let named =
            entries.iter().map(|entry| (INodeNo(entry.ino.get()), file_type(entry.kind), entry.name.as_os_str()));
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (node, kind, name)) in dots.into_iter().chain(named).enumerate().skip(from) {
            if reply.add(node, at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _req: &Request, _node: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.listings.remove(fh.0);
        reply.ok();
    }

    fn open(&self, _req: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let reads_only = flags.acc_mode() == OpenAccMode::O_RDONLY;
        if !reads_only && !self.writable {
            return reply.error(Errno::EROFS);
        }
        let how = match (self.writable, reads_only) {
            // What may be written, or handed to the kernel once it is local, is never cached here: the two do not mix.
            (true, true) => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH,
            (true, false) => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
            (false, _) if flags.0 & libc::O_DIRECT != 0 => FopenFlags::FOPEN_DIRECT_IO,
            (false, _) => FopenFlags::FOPEN_KEEP_CACHE,
        };
        let (files, fs, passed) = (self.files.clone(), self.fs.clone(), self.passed.clone());
        self.answer(
            "open a disk",
            |fs| fs.open(ino(node)),
            move |answer| match answer {
                Ok(file) => {
                    let local = || if reads_only { fs.local_file(&file) } else { None };
                    let backing = passed.backing(node, local, |file| reply.open_backing(file));
                    let number = files.insert(file);
                    match backing {
                        Some(backing) => {
                            // Kept before the kernel can close it.
                            passed.opened(number, backing.clone());
                            reply.opened_passthrough(FileHandle(number), FopenFlags::FOPEN_NOFLUSH, &backing);
                        }
                        None => reply.opened(FileHandle(number), how),
                    }
                }
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn read(
        &self,
        _req: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _shift = self.crew.begin();
        let Some(file) = self.files.get(fh.0) else { return reply.error(Errno::EBADF) };
        let counters = &self.desk.counters;
        counters.reads.fetch_add(1, Relaxed);
        let mut token = Some(reply);
        let outcome = guarded("read", || {
            self.fs.read(&file, offset, size, &mut |bytes| {
                if let Some(reply) = token.take() {
                    counters.hits.fetch_add(1, Relaxed);
                    counters.bytes.fetch_add(bytes.len() as u64, Relaxed);
                    reply.data(bytes);
                }
            })
        });
        let Some(reply) = token else { return };
        let error = match outcome {
            Ok(ReadAnswer::Later(pending)) => {
                let desk = self.desk.clone();
                self.io.spawn(async move {
                    let whole = size.div_ceil(1024).min(desk.budget_kib);
                    let mut permit = None;
                    let answer = tokio::time::timeout(desk.deadline, async {
                        permit = desk.budget.clone().acquire_many_owned(whole).await.ok();
                        pending.await
                    });
                    let answer = answer.await.unwrap_or_else(|_| {
                        let what = format!("read {size} bytes at {offset} of node {node}");
                        Err(Error::Deadline { what, deadline: desk.deadline })
                    });
                    desk.close(&answer);
                    match answer {
                        Ok(bytes) => {
                            desk.counters.bytes.fetch_add(bytes.len() as u64, Relaxed);
                            reply.data(&bytes);
                        }
                        Err(error) => reply.error(errno(&error)),
                    }
                    drop(permit);
                });
                return;
            }
            // It promised to have called back: its bug, our EIO.
            Ok(ReadAnswer::Hit) => Error::Panicked { what: "read" },
            Ok(ReadAnswer::Failed(error)) | Err(error) => error,
        };
        self.desk.report(&error);
        reply.error(errno(&error));
    }

    fn lseek(&self, _req: &Request, _node: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let to = match whence {
            libc::SEEK_DATA => SeekTo::Data,
            libc::SEEK_HOLE => SeekTo::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Some(file) = self.files.get(fh.0) else { return reply.error(Errno::EBADF) };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        self.answer(
            "seek",
            |fs| fs.seek(&file, offset, to),
            move |answer| match answer {
                Ok(found) => match i64::try_from(found) {
                    Ok(found) => reply.offset(found),
                    Err(_) => reply.error(Errno::EOVERFLOW),
                },
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn release(
        &self,
        _req: &Request,
        _node: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.remove(fh.0);
        self.passed.released(fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _node: INodeNo, reply: ReplyStatfs) {
        match self.now("statfs", |fs| Ok(fs.totals())) {
            Ok(totals) => {
                let blocks = totals.size_bytes.div_ceil(u64::from(STAT_BLOCK_BYTES));
                reply.statfs(blocks, 0, 0, totals.disks, 0, STAT_BLOCK_BYTES, NAME_BYTES_MAX, STAT_BLOCK_BYTES);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn getxattr(&self, _req: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.now("read an attribute", |fs| fs.getxattr(ino(node), name)) {
            Ok(value) => send_xattr(reply, &value, size),
            Err(errno) => reply.error(errno),
        }
    }

    fn listxattr(&self, _req: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        match self.now("list attributes", |fs| fs.listxattr(ino(node))) {
            Ok(names) => {
                let list: Vec<u8> = names.iter().flat_map(|name| name.bytes().chain([0])).collect();
                send_xattr(reply, &list, size);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _req: &Request, _node: INodeNo, fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        if !self.writable {
            // A close needs nothing: "not implemented" makes the kernel stop asking.
            return reply.error(Errno::ENOSYS);
        }
        self.settle("flush at a close", fh, |fs, file| fs.flush(file), reply);
    }
    fn fsync(&self, _req: &Request, _node: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.settle("flush", fh, |fs, file| fs.flush(file), reply);
    }
    fn fsyncdir(&self, _req: &Request, _node: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }
    fn ioctl(
        &self,
        _req: &Request,
        _node: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
    fn poll(
        &self,
        _req: &Request,
        _node: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    // Of a read-only tree nothing can be changed. The kernel says so by itself on a read-only mount; root can remount it. Of a
    // recovery disk the contents can be, and nothing else; that it was touched is taken note of by nobody.
    fn setattr(
        &self,
        _req: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if !self.writable {
            return reply.error(Errno::EROFS);
        }
        let look = self.look;
        let other = mode.is_some() || uid.is_some() || gid.is_some();
        self.answer(
            "change a disk",
            |fs| fs.getattr(ino(node)),
            move |answer| match answer {
                Ok(attr) if !other && size.is_none_or(|size| size == attr.size_bytes) => {
                    reply.attr(&ttl(&attr), &look.attr(&attr));
                }
                Ok(_) => reply.error(Errno::EPERM),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }
    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }
    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }
    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }
    fn rename(&self, _: &Request, _: INodeNo, _: &OsStr, _: INodeNo, _: &OsStr, _: RenameFlags, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }
    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EROFS);
    }
    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _shift = self.crew.begin();
        let Some(file) = self.files.get(fh.0) else { return reply.error(Errno::EBADF) };
        let len = data.len() as u32;
        let counters = &self.desk.counters;
        counters.writes.fetch_add(1, Relaxed);
        let error = match guarded("write", || self.fs.write(&file, offset, data)) {
            Ok(WriteAnswer::Done) => {
                counters.written_bytes.fetch_add(u64::from(len), Relaxed);
                return reply.written(len);
            }
            Ok(WriteAnswer::Later(pending)) => {
                let desk = self.desk.clone();
                self.io.spawn(async move {
                    let whole = len.div_ceil(1024).min(desk.budget_kib);
                    let mut permit = None;
                    let answer = tokio::time::timeout(desk.deadline, async {
                        permit = desk.budget.clone().acquire_many_owned(whole).await.ok();
                        pending.await
                    });
                    let answer = answer.await.unwrap_or_else(|_| {
                        let what = format!("write {len} bytes at {offset} of node {node}");
                        Err(Error::Deadline { what, deadline: desk.deadline })
                    });
                    desk.close(&answer);
                    match answer {
                        Ok(()) => {
                            desk.counters.written_bytes.fetch_add(u64::from(len), Relaxed);
                            reply.written(len);
                        }
                        Err(error) => reply.error(errno(&error)),
                    }
                    drop(permit);
                });
                return;
            }
            Ok(WriteAnswer::Failed(error)) | Err(error) => error,
        };
        self.desk.report(&error);
        reply.error(errno(&error));
    }
    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if !self.writable {
            return reply.error(Errno::EROFS);
        }
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        match mode & !libc::FALLOC_FL_KEEP_SIZE {
            _ if mode == PUNCH => {}
            libc::FALLOC_FL_ZERO_RANGE => {}
            // Space cannot be promised: it is taken as units are written.
            _ => return reply.error(Errno::EOPNOTSUPP),
        }
        let range = offset..offset.saturating_add(length);
        self.settle("discard", fh, |fs, file| fs.discard(file, range), reply);
    }
    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // Copying out to another file system goes through plain reads.
        reply.error(Errno::EXDEV);
    }
    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
}
