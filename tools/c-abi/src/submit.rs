//! Requests that do not wait: each takes its LSN during the call, and a callback tells when it is durable.
//!
//! One thread calls all callbacks of a writer, one after the other, in the order of LSNs: a lock is held from taking an LSN to
//! standing in the queue, and tickets come true in that order. Requests in flight are bounded by permits; a request's is free
//! again when its callback begins, so that a callback may submit the next.

use crate::args;
use crate::error::{Code, Failure, TIDEMARK_INTERNAL, TIDEMARK_RETRY, call};
use crate::threads::{become_ours, is_ours};
use crate::writer::{TIDEMARK_WRITE_BYTES_MAX, Writer, level};
use bytes::Bytes;
use futures::executor::block_on;
use std::ffi::{c_char, c_void};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use tidemark_format::DiskId;
use tidemark_writer::{DomainWriter, Request, Ticket, When};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

/// Requests in flight where the options do not say how many.
const IN_FLIGHT_DEFAULT: u32 = 1024;
/// Requests in flight that options may ask for.
const IN_FLIGHT_LIMIT: u32 = 1 << 16;

/// Tells that a submitted request is durable (error is NULL) or that the writer stopped before (the request may or may not be
/// part of the domain then). user and lsn are those of the request; error is valid during the callback only.
///
/// Called exactly once for each request that was accepted, on a thread of the library, one at a time and in the order of LSNs.
/// It must not wait, throw or jump out. It may submit further requests; where submitting would have to wait for room
/// among those in flight, it fails with TIDEMARK_RETRY instead.
pub type Done = Option<unsafe extern "C" fn(user: *mut c_void, lsn: u64, error: *const Failure)>;

/// The pointer that a caller wants back.
struct User(*mut c_void);

// SAFETY: it is handed back and never looked at; whoever submits it vouches that the callback may use it.
unsafe impl Send for User {}

/// A request that has its LSN.
struct Pending {
    ticket: Ticket,
    done: Done,
    user: User,
    permit: OwnedSemaphorePermit,
}

/// The requests in flight of a writer.
pub(crate) struct Queue {
    room: Arc<Semaphore>,
    in_flight_max: u32,
    /// Held from taking an LSN to standing in the queue.
    send: Mutex<SyncSender<Pending>>,
    caller: JoinHandle<()>,
}

impl Queue {
    pub(crate) fn start(in_flight_max: u32) -> Result<Self, Failure> {
        if in_flight_max > IN_FLIGHT_LIMIT {
            let why = format!("in_flight_max is {in_flight_max}, at most {IN_FLIGHT_LIMIT} is allowed");
            return Err(Failure::request(why));
        }
        let in_flight_max = if in_flight_max == 0 { IN_FLIGHT_DEFAULT } else { in_flight_max };
        // Never full: whoever sends holds a permit.
        let (send, receive) = sync_channel(in_flight_max as usize);
        let caller = std::thread::Builder::new().name("tidemark-done".into()).spawn(move || call_back(&receive));
        let failed = |error| Failure::new(TIDEMARK_INTERNAL, format!("cannot start a thread: {error}"), None);
        let room = Arc::new(Semaphore::new(in_flight_max as usize));
        Ok(Self { room, in_flight_max, send: Mutex::new(send), caller: caller.map_err(failed)? })
    }

    /// Gives a request its LSN; `cut` makes it durable at once instead of when its segment is full or old.
    fn submit(
        &self,
        writer: &DomainWriter,
        request: Request,
        cut: bool,
        (done, user): (Done, User),
    ) -> Result<u64, Failure> {
        let permit = self.room.clone().try_acquire_owned().or_else(|_| {
            // Whoever waits for room waits for what is in flight: it goes now, not when its segment is full or old.
            writer.cut_now();
            if is_ours() {
                let why =
                    format!("{} requests are in flight, and a callback may not wait for room", self.in_flight_max);
                return Err(Failure::new(TIDEMARK_RETRY, why, None));
            }
            Ok(block_on(self.room.clone().acquire_owned()).expect("it is never closed"))
        })?;
        block_on(async {
            let send = self.send.lock().await;
            let ticket = writer.submit(request, When::Now).await?;
            let lsn = ticket.lsn().get();
            let lost = |_| Failure::new(TIDEMARK_INTERNAL, "bug in tidemark: nobody is left to call back", None);
            send.send(Pending { ticket, done, user, permit }).map_err(lost)?;
            if cut {
                writer.cut_now();
            }
            Ok(lsn)
        })
    }

    /// Waits until the last callback has returned. The writer must have stopped, so that every ticket has its answer.
    pub(crate) fn finish(self) {
        drop(self.send);
        // It ends with the queue; a callback that unwinds ends the process instead.
        let _ = self.caller.join();
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("in_flight_max", &self.in_flight_max).finish_non_exhaustive()
    }
}

/// Calls every callback, until nobody can submit any more.
fn call_back(receive: &Receiver<Pending>) {
    become_ours();
    while let Ok(Pending { ticket, done, user, permit }) = receive.recv() {
        let lsn = ticket.lsn().get();
        let failure = block_on(ticket.committed()).err().map(Failure::from);
        drop(permit);
        if let Some(done) = done {
            // SAFETY: whoever submitted it vouches that it may be called once with this pointer, from this thread.
            unsafe { done(user.0, lsn, failure.as_ref().map_or(std::ptr::null(), std::ptr::from_ref)) };
        }
    }
}

/// Runs a call that submits a request.
///
/// # Safety
/// Every pointer is null or as the manual says.
unsafe fn submitting(
    writer: *const Writer,
    lsn: *mut u64,
    error: *mut *mut Failure,
    back: (Done, *mut c_void),
    request: impl FnOnce() -> Result<(Request, bool), Failure>,
) -> Code {
    let body = || {
        // SAFETY: the caller vouches for it.
        let writer = unsafe { args::handle("writer", writer)? };
        let (request, cut) = request()?;
        let given = writer.queue.submit(&writer.writer, request, cut, (back.0, User(back.1)))?;
        if !lsn.is_null() {
            // SAFETY: it is not null, and the caller vouches for the rest.
            unsafe { lsn.write(given) };
        }
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}

/// Submits a write: of two that overlap the one submitted later wins. Waits only for room. offset and len are multiples of
/// 512; len is at most TIDEMARK_WRITE_BYTES_MAX. data is copied. done and lsn may be NULL. Where this fails, done is not called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_submit_write(
    writer: *const Writer,
    disk: u32,
    offset: u64,
    data: *const c_void,
    len: usize,
    done: Done,
    user: *mut c_void,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let request = || {
        // SAFETY: the caller vouches for them.
        let data = Bytes::copy_from_slice(unsafe { args::bytes(data, len, TIDEMARK_WRITE_BYTES_MAX)? });
        Ok((Request::Write { disk: DiskId::new(disk), offset, data }, false))
    };
    // SAFETY: the caller vouches for them.
    unsafe { submitting(writer, lsn, error, (done, user), request) }
}

/// Submits zeros. As tidemark_submit_write, with a len of any size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_submit_zero(
    writer: *const Writer,
    disk: u32,
    offset: u64,
    len: u64,
    done: Done,
    user: *mut c_void,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let request = || Ok((Request::Zero { disk: DiskId::new(disk), offset, len }, false));
    // SAFETY: the caller vouches for them.
    unsafe { submitting(writer, lsn, error, (done, user), request) }
}

/// Submits a discard: the range reads as zeros and counts as a hole. As tidemark_submit_zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_submit_unmap(
    writer: *const Writer,
    disk: u32,
    offset: u64,
    len: u64,
    done: Done,
    user: *mut c_void,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let request = || Ok((Request::Unmap { disk: DiskId::new(disk), offset, len }, false));
    // SAFETY: the caller vouches for them.
    unsafe { submitting(writer, lsn, error, (done, user), request) }
}

/// Submits a flush of a disk: done tells that it, and so everything before it, is durable. Sends what is there without waiting
/// for age_ms_max. Otherwise as tidemark_submit_write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_submit_flush(
    writer: *const Writer,
    disk: u32,
    done: Done,
    user: *mut c_void,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let request = || Ok((Request::Flush { disk: DiskId::new(disk) }, true));
    // SAFETY: the caller vouches for them.
    unsafe { submitting(writer, lsn, error, (done, user), request) }
}

/// Submits a name for this point in time, of a level as for tidemark_bookmark. As tidemark_submit_flush.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_submit_bookmark(
    writer: *const Writer,
    name: *const c_char,
    level: u32,
    done: Done,
    user: *mut c_void,
    lsn: *mut u64,
    error: *mut *mut Failure,
) -> Code {
    let request = || {
        // SAFETY: the caller vouches for it.
        let name = unsafe { args::text("name", name)? }.to_owned();
        Ok((Request::Bookmark { name, level: self::level(level)? }, true))
    };
    // SAFETY: the caller vouches for them.
    unsafe { submitting(writer, lsn, error, (done, user), request) }
}
