//! A writer as a handle, and the calls that wait until what they ask for is durable.

use crate::args::{self, Sized_};
use crate::error::{Code, Failure, TIDEMARK_OK, call};
use crate::store::{Store, TIDEMARK_ATTESTED, open_bucket};
use crate::submit::Queue;
use crate::threads::{Threads, check_may_wait};
use bytes::Bytes;
use futures::stream;
use std::ffi::{c_char, c_int, c_void};
use std::future::Future;
use std::sync::Arc;
use tidemark_env::Env;
use tidemark_format::{BLOCK_BYTES, DiskId, Level};
use tidemark_writer::{self as writer, Attach, Committed, Content, DomainWriter, NewDisk, SeedPiece, When};

/// Bytes of one write at most.
pub const TIDEMARK_WRITE_BYTES_MAX: u64 = 32 << 20;
const _: () = assert!(TIDEMARK_WRITE_BYTES_MAX == writer::WRITE_BYTES_MAX);

/// A bookmark at which disks are as after pulling the plug.
pub const TIDEMARK_CRASH: u32 = 0;
/// A bookmark at which the guest's file systems were flushed or frozen.
pub const TIDEMARK_FILE_SYSTEM: u32 = 1;
/// A bookmark at which the guest's applications were quiesced.
pub const TIDEMARK_APPLICATION: u32 = 2;

/// Owns a domain and writes to it. Any threads may use it at once; closing it is the last use.
#[derive(Debug)]
pub struct Writer {
    pub(crate) writer: Arc<DomainWriter>,
    pub(crate) queue: Queue,
    threads: Threads,
    env: Env,
}

// Any threads may use a handle at once.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Writer>();
};

/// Limits and habits of a writer. Set size to sizeof(tidemark_writer_options) and the rest to zero, which stands for the
/// default. Only read during the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// sizeof(tidemark_writer_options).
    pub size: usize,
    /// Written into the claim, for people: which machine or program this is. NULL: "tidemark-c".
    pub owner: *const c_char,
    /// A segment is put into the bucket once it holds so many bytes of writes, at most 128 MiB. Default: 64 MiB.
    pub segment_bytes_max: u64,
    /// A segment is put into the bucket once its first write is this old: the RPO. Default: 5000.
    pub age_ms_max: u64,
    /// Bytes of writes held in memory; beyond it submitting waits. Default: 384 MiB, or what the segments need.
    pub buffer_bytes_max: u64,
    /// Submitted requests whose callback has not begun; beyond it submitting waits, and has what is there sent without waiting
    /// for age_ms_max. At most 65536. Default: 1024.
    pub in_flight_max: u32,
    /// Threads that compress and do I/O. Default: 2.
    pub threads_max: u32,
    /// TIDEMARK_PROBE or TIDEMARK_ATTESTED.
    pub attach: u32,
}

// SAFETY: it is repr(C), begins with its size, and zeros are values of all members.
unsafe impl Sized_ for WriterOptions {
    const NAME: &str = "tidemark_writer_options";
}

/// How a writer is doing. Set size to sizeof(tidemark_status) before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Status {
    /// sizeof(tidemark_status).
    pub size: usize,
    /// Newest LSN given to a request.
    pub logged_lsn: u64,
    /// Everything through here is durable.
    pub committed_lsn: u64,
    /// Bytes held in memory for what is not durable.
    pub buffered_bytes: u64,
    /// How old the oldest write is that is not durable: the RPO in effect.
    pub rpo_ms: u64,
    /// Requests to the store that failed since one last succeeded; above 0 the writer is trying again.
    pub failures_in_a_row: u32,
    /// Why the writer stopped, if it did: then every request fails with this code.
    pub stopped: Code,
}

// SAFETY: it is repr(C), begins with its size, and zeros are values of all members.
unsafe impl Sized_ for Status {
    const NAME: &str = "tidemark_status";
}

impl Writer {
    /// Waits until something is durable; its LSN.
    fn wait<F>(&self, what: &str, ask: impl FnOnce(Arc<DomainWriter>) -> F) -> Result<u64, Failure>
    where
        F: Future<Output = writer::Result<Committed>> + Send + 'static,
    {
        check_may_wait(what)?;
        let asked = ask(self.writer.clone());
        self.threads.run(async move { Ok(asked.await?.lsn.get()) })
    }
}

/// The level of a bookmark.
pub(crate) fn level(level: u32) -> Result<Level, Failure> {
    match level {
        TIDEMARK_CRASH => Ok(Level::Crash),
        TIDEMARK_FILE_SYSTEM => Ok(Level::FileSystem),
        TIDEMARK_APPLICATION => Ok(Level::Application),
        other => {
            Err(Failure::request(format!("level is {other}, must be TIDEMARK_CRASH, _FILE_SYSTEM or _APPLICATION")))
        }
    }
}

fn options(options: Option<&WriterOptions>) -> Result<writer::WriterOptions, Failure> {
    let mut with = writer::WriterOptions { owner: "tidemark-c".to_owned(), ..writer::WriterOptions::default() };
    let Some(options) = options else { return Ok(with) };
    // SAFETY: whoever called with these options vouches for their text.
    if let Some(owner) = unsafe { args::text_or_null("options.owner", options.owner)? } {
        owner.clone_into(&mut with.owner);
    }
    let or = |value: u64, default: u64| if value == 0 { default } else { value };
    with.segment_bytes_max = or(options.segment_bytes_max, with.segment_bytes_max);
    with.age_ms_max = or(options.age_ms_max, with.age_ms_max);
    let buffer = with.buffer_bytes_max.max(with.segment_bytes_max.saturating_mul(3));
    with.buffer_bytes_max = or(options.buffer_bytes_max, buffer);
    if options.threads_max > 0 {
        with.compress_threads_max = options.threads_max as usize;
    }
    crate::store::attestation(options.attach)?;
    if options.attach == TIDEMARK_ATTESTED {
        with.attach = Attach::AttestedSingle;
    }
    Ok(with)
}

/// Takes the domain of a store over: any other writer of it is fenced. Waits; options may be NULL. On success *writer is a
/// handle, to be closed by tidemark_writer_close or tidemark_writer_abort; else it is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_writer_open(
    store: *const Store,
    options: *const WriterOptions,
    writer: *mut *mut Writer,
    error: *mut *mut Failure,
) -> Code {
    let body = || {
        let place = args::place("writer", writer)?;
        // SAFETY: it is not null, and the caller vouches for the rest.
        unsafe { place.write(std::ptr::null_mut()) };
        check_may_wait("tidemark_writer_open")?;
        // SAFETY: the caller vouches for them.
        let (bucket, given) = unsafe { (open_bucket(store)?.appender(), args::sized(options)?) };
        let with = self::options(given.as_ref())?;
        let in_flight_max = given.map_or(0, |given| given.in_flight_max);
        let threads = Threads::start("tidemark-writer", given.map_or(0, |given| given.threads_max))?;
        let env = Env::system();
        let opening = env.clone();
        let writer = threads.run(async move { Ok(DomainWriter::open(bucket, with, opening).await?) })?;
        let writer = Arc::new(writer);
        let queue = Queue::start(in_flight_max)?;
        let handle = Box::new(Writer { writer, queue, threads, env });
        // SAFETY: as above.
        unsafe { place.write(Box::into_raw(handle)) };
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// Makes everything durable, has every callback called, and frees the handle, also if it fails. Waits: as long as the store is
/// out of reach, for one that must not, see tidemark_writer_abort. No other call on the handle may be under way. In a
/// callback it fails and the handle stays; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_writer_close(writer: *mut Writer, error: *mut *mut Failure) -> Code {
    // SAFETY: the caller vouches for them.
    unsafe { end(writer, error, "tidemark_writer_close", true) }
}

/// Frees the handle as a crash would: what is not durable may be lost, and its callbacks are called with TIDEMARK_RETRY. Waits for
/// callbacks only. Otherwise as tidemark_writer_close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_writer_abort(writer: *mut Writer, error: *mut *mut Failure) -> Code {
    // SAFETY: the caller vouches for them.
    unsafe { end(writer, error, "tidemark_writer_abort", false) }
}

/// The end of a handle.
///
/// # Safety
/// `handle` is null or one that was not closed, and this is its last use; `error` is null or may be written to.
unsafe fn end(handle: *mut Writer, error: *mut *mut Failure, what: &str, durable: bool) -> Code {
    let body = || {
        if handle.is_null() {
            return Ok(());
        }
        check_may_wait(what)?;
        // SAFETY: it was made by `Box::into_raw`, and the caller vouches that this is its last use.
        let Writer { writer, queue, threads, .. } = *unsafe { Box::from_raw(handle) };
        let closed = if durable {
            let closing = writer.clone();
            threads.run(async move { Ok(closing.close().await?) })
        } else {
            Ok(())
        };
        // Dropping the last of it stops what is under way, so that no callback is waited for in vain.
        drop(writer);
        queue.finish();
        drop(threads);
        closed
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// Tells how the writer is doing. Does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_writer_status(
    writer: *const Writer,
    status: *mut Status,
    error: *mut *mut Failure,
) -> Code {
    let body = || {
        // SAFETY: the caller vouches for it.
        let writer = unsafe { args::handle("writer", writer)? };
        let now = writer.env.clock.monotonic();
        let found = writer.writer.status().borrow().clone();
        let value = Status {
            size: 0,
            logged_lsn: found.logged.get(),
            committed_lsn: found.committed.get(),
            buffered_bytes: found.buffered_bytes,
            rpo_ms: u64::try_from(found.rpo_age(now).as_millis()).unwrap_or(u64::MAX),
            failures_in_a_row: found.failures_in_a_row,
            stopped: found.stopped.map_or(TIDEMARK_OK, |stopped| Failure::from(stopped).code()),
        };
        // SAFETY: the caller vouches for it.
        unsafe { args::put_sized(status, &value) }
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// Adds a disk that holds zeros, and waits until that is durable. *disk is its number in all other calls. size_bytes is a
/// multiple of 512.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_disk_add(
    writer: *const Writer,
    vm: *const c_char,
    name: *const c_char,
    size_bytes: u64,
    disk: *mut u32,
    error: *mut *mut Failure,
) -> Code {
    // SAFETY: the caller vouches for them.
    unsafe { add(writer, (vm, name), size_bytes, disk, error, ("tidemark_disk_add", Content::Blank)) }
}

/// Adds a disk that holds something already: its blocks are unknown, and it is not restorable, until tidemark_disk_seed has
/// brought them. Otherwise as tidemark_disk_add. Its guest may write from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_disk_add_existing(
    writer: *const Writer,
    vm: *const c_char,
    name: *const c_char,
    size_bytes: u64,
    disk: *mut u32,
    error: *mut *mut Failure,
) -> Code {
    // SAFETY: the caller vouches for them.
    unsafe { add(writer, (vm, name), size_bytes, disk, error, ("tidemark_disk_add_existing", Content::Existing)) }
}

/// Adds a disk.
///
/// # Safety
/// Every pointer is null or as the manual says.
unsafe fn add(
    writer: *const Writer,
    (vm, name): (*const c_char, *const c_char),
    size_bytes: u64,
    disk: *mut u32,
    error: *mut *mut Failure,
    (what, content): (&str, Content),
) -> Code {
    let body = || {
        // SAFETY: the caller vouches for them.
        let (writer, vm, name) =
            unsafe { (args::handle("writer", writer)?, args::text("vm", vm)?, args::text("name", name)?) };
        let disk = args::place("disk", disk)?;
        check_may_wait(what)?;
        let new = NewDisk { vm: vm.to_owned(), name: name.to_owned(), size_bytes };
        let adding = writer.writer.clone();
        let id = writer.threads.run(async move { Ok(adding.disk_add(&new, content).await?) })?;
        // SAFETY: it is not null, and the caller vouches for the rest.
        unsafe { disk.write(id.get()) };
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// Reads what a disk holds, len bytes from offset on, into data. Returns 0, or an errno if it cannot.
///
/// Called during tidemark_disk_seed, on the thread that called it, for one range after the other. It may wait; it must not throw
/// or jump out.
pub type Source = Option<unsafe extern "C" fn(user: *mut c_void, offset: u64, data: *mut c_void, len: usize) -> c_int>;

/// Bytes that a seed asks for at a time.
const SEED_BYTES: u64 = 1 << 20;

/// Brings the existing contents of a disk into the domain, and waits until it is restorable: from *lsn on, which may be NULL. Its
/// guest may go on writing, if each write is on the disk before it is submitted: then what read finds has it, or it wins over
/// what read found. A seed that failed, or was cut short by a crash, is started again by the same call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_disk_seed(
    writer: *const Writer,
    disk: u32,
    read: Source,
    user: *mut c_void,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let body = || {
        // SAFETY: the caller vouches for it.
        let writer = unsafe { args::handle("writer", writer)? };
        let read = read.ok_or_else(|| Failure::request("read is NULL"))?;
        check_may_wait("tidemark_disk_seed")?;
        let id = DiskId::new(disk);
        let known = writer.writer.disks().into_iter().find(|known| known.disk == id && known.removed_at.is_none());
        let size_bytes = known.map_or(0, |known| known.blocks * BLOCK_BYTES);
        let piece = |n: u64| {
            let offset = n * SEED_BYTES;
            let mut data = vec![0; (size_bytes - offset).min(SEED_BYTES) as usize];
            // SAFETY: the caller vouches that it may be called with this pointer; the buffer has this length.
            match unsafe { read(user, offset, data.as_mut_ptr().cast(), data.len()) } {
                0 => Ok(SeedPiece::Data { offset, data: data.into() }),
                errno => Err(std::io::Error::from_raw_os_error(errno)),
            }
        };
        let pieces = stream::iter((0..size_bytes.div_ceil(SEED_BYTES)).map(piece));
        let seeded = writer.threads.help(writer.writer.seed(id, pieces, When::Now))?;
        if !lsn.is_null() {
            // SAFETY: it is not null, and the caller vouches for the rest.
            unsafe { lsn.write(seeded.consistent_from.get()) };
        }
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// Finds a disk of the domain by its names: its number, and its size now. size_bytes may be NULL. Does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_disk_find(
    writer: *const Writer,
    vm: *const c_char,
    name: *const c_char,
    disk: *mut u32,
    size_bytes: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let body = || {
        // SAFETY: the caller vouches for them.
        let (writer, vm, name) =
            unsafe { (args::handle("writer", writer)?, args::text("vm", vm)?, args::text("name", name)?) };
        let disk = args::place("disk", disk)?;
        let disks = writer.writer.disks();
        let found = disks.iter().find(|disk| disk.removed_at.is_none() && disk.vm == vm && disk.name == name);
        let Some(found) = found else {
            let why = format!("no disk {vm}/{name} in the domain");
            return Err(Failure::new(crate::error::TIDEMARK_NOT_FOUND, why, None));
        };
        // SAFETY: they are not null, and the caller vouches for the rest.
        unsafe {
            disk.write(found.disk.get());
            if !size_bytes.is_null() {
                size_bytes.write(found.blocks * BLOCK_BYTES);
            }
        }
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// Runs a call that waits until something is durable.
///
/// # Safety
/// Every pointer is null or as the manual says.
unsafe fn waiting<F>(
    writer: *const Writer,
    lsn: *mut u64,
    error: *mut *mut Failure,
    what: &str,
    ask: impl FnOnce(Arc<DomainWriter>) -> Result<F, Failure>,
) -> Code
where
    F: Future<Output = writer::Result<Committed>> + Send + 'static,
{
    let body = || {
        // SAFETY: the caller vouches for it.
        let writer = unsafe { args::handle("writer", writer)? };
        let asked = ask(writer.writer.clone())?;
        let committed = writer.wait(what, |_| asked)?;
        if !lsn.is_null() {
            // SAFETY: it is not null, and the caller vouches for the rest.
            unsafe { lsn.write(committed) };
        }
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// Changes the size of a disk, a multiple of 512, and waits until that is durable. What it gains is zeros; what it loses is
/// gone for good. lsn may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_disk_resize(
    writer: *const Writer,
    disk: u32,
    size_bytes: u64,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let ask = |writer: Arc<DomainWriter>| Ok(async move { writer.disk_resize(DiskId::new(disk), size_bytes).await });
    // SAFETY: the caller vouches for them.
    unsafe { waiting(writer, lsn, error, "tidemark_disk_resize", ask) }
}

/// Takes a disk out of the domain, and waits until that is durable; its history stays. lsn may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_disk_remove(
    writer: *const Writer,
    disk: u32,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let ask = |writer: Arc<DomainWriter>| Ok(async move { writer.disk_remove(DiskId::new(disk)).await });
    // SAFETY: the caller vouches for them.
    unsafe { waiting(writer, lsn, error, "tidemark_disk_remove", ask) }
}

/// Writes bytes and waits until they are durable, which takes up to age_ms_max unless somebody flushes. offset and len are
/// multiples of 512; len is at most TIDEMARK_WRITE_BYTES_MAX. data is copied. lsn may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_write(
    writer: *const Writer,
    disk: u32,
    offset: u64,
    data: *const c_void,
    len: usize,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let ask = |writer: Arc<DomainWriter>| {
        // SAFETY: the caller vouches for them.
        let data = Bytes::copy_from_slice(unsafe { args::bytes(data, len, TIDEMARK_WRITE_BYTES_MAX)? });
        Ok(async move { writer.write(DiskId::new(disk), offset, data).await })
    };
    // SAFETY: the caller vouches for them.
    unsafe { waiting(writer, lsn, error, "tidemark_write", ask) }
}

/// Writes zeros and waits until they are durable. offset and len are multiples of 512, len of any size. lsn may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_zero(
    writer: *const Writer,
    disk: u32,
    offset: u64,
    len: u64,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let ask = |writer: Arc<DomainWriter>| Ok(async move { writer.zero(DiskId::new(disk), offset, len).await });
    // SAFETY: the caller vouches for them.
    unsafe { waiting(writer, lsn, error, "tidemark_zero", ask) }
}

/// Discards a range, which reads as zeros and counts as a hole, and waits until that is durable. As tidemark_zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_unmap(
    writer: *const Writer,
    disk: u32,
    offset: u64,
    len: u64,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let ask = |writer: Arc<DomainWriter>| Ok(async move { writer.unmap(DiskId::new(disk), offset, len).await });
    // SAFETY: the caller vouches for them.
    unsafe { waiting(writer, lsn, error, "tidemark_unmap", ask) }
}

/// Records a flush of a disk and waits until it, and so everything before it, is durable. Does not wait for age_ms_max. lsn may
/// be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_flush(
    writer: *const Writer,
    disk: u32,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let ask = |writer: Arc<DomainWriter>| Ok(async move { writer.flush(DiskId::new(disk)).await });
    // SAFETY: the caller vouches for them.
    unsafe { waiting(writer, lsn, error, "tidemark_flush", ask) }
}

/// Names this point in time and waits until that, and so everything before it, is durable. level is TIDEMARK_CRASH,
/// TIDEMARK_FILE_SYSTEM or TIDEMARK_APPLICATION. lsn may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_bookmark(
    writer: *const Writer,
    name: *const c_char,
    level: u32,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let ask = |writer: Arc<DomainWriter>| {
        // SAFETY: the caller vouches for it.
        let name = unsafe { args::text("name", name)? }.to_owned();
        let level = self::level(level)?;
        Ok(async move { writer.bookmark(&name, level).await })
    };
    // SAFETY: the caller vouches for them.
    unsafe { waiting(writer, lsn, error, "tidemark_bookmark", ask) }
}
