//! The second half of a connection: requests in, replies out.
//!
//! One task does it all: it reads what came, starts each request, and answers whichever is done, so that requests of one
//! connection run side by side and replies leave together. It never waits for one thing alone.
//!
//! Invariants: a request is read only once its cost was taken from the account, and gives it back when its reply was
//! taken by the socket; what was started is driven to its end, even if nobody is left to hear of it.
//! Not here: what requests mean (`request`), doing them (`execute`), how replies look (`outbox`).

use super::budget::{Account, REQUEST_BYTES};
use super::execute::{Done, Job, STATUS_RUNS_MAX};
use super::inbox::{Inbox, SHARED_BYTES_MAX};
use super::limits::STALL_BYTES_MIN;
use super::negotiate::Session;
use super::outbox::{Asked, Outbox};
use super::request::{Command, Verdict, judge};
use super::wire::{Errno, RequestHeader};
use crate::error::{Error, Result};
use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use futures::stream::FuturesUnordered;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

/// Bytes behind a refused request that are read past; a client that sends more is cut off.
const SKIP_BYTES_MAX: u64 = 64 << 20;
/// What devices want direct writes to be aligned to in memory, at most.
const PAGE_BYTES: usize = 4096;
/// Requests that one connection may start before others get their turn.
const TURN_REQUESTS_MAX: usize = 1024;

/// What the next bytes are.
enum Expect {
    /// The header of a request.
    Header,
    /// Nothing is read until there is room for this request.
    Room { header: RequestHeader, verdict: Verdict, cost_bytes: u64 },
    /// The payload of a write, waited for in the inbox.
    Shared { command: Command, asked: Asked, len: usize },
    /// The payload of a write, read right into its own memory.
    Own { command: Command, asked: Asked, data: BytesMut, len: usize },
    /// The payload of a refused request.
    Skip { left: u64, asked: Asked, error: Errno, why: &'static str },
    /// No more is read.
    End(Result<()>),
}

/// Room for `len` bytes from the start of a page on: a volume may hand it to a device as it is.
fn page_aligned(len: usize) -> BytesMut {
    let mut memory = BytesMut::with_capacity(len + PAGE_BYTES);
    let front = memory.as_ptr().align_offset(PAGE_BYTES);
    memory.resize(front, 0);
    memory.split_off(front)
}

/// What keeps a connection from reading on.
enum Halt {
    /// Bytes.
    Bytes,
    /// Room, or it reads no more.
    Other,
}

pub(super) struct Transmission<S, F> {
    stream: S,
    session: Arc<Session>,
    payload_bytes_max: u32,
    stall: Duration,
    start: fn(Arc<Session>, Job) -> F,
    inbox: Inbox,
    expect: Expect,
    running: FuturesUnordered<F>,
    outbox: Outbox,
    account: Account,
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Bytes read and written, ever.
    moved: u64,
    /// Since when the client has moved too little, and what it had moved then.
    stalled: Option<(Pin<Box<Sleep>>, u64)>,
    /// Something was written that may still lie in the stream's own buffer.
    unflushed: bool,
    shutting: bool,
}

/// What a connection is made of.
pub(super) struct Parts<S> {
    pub(super) stream: S,
    pub(super) session: Session,
    pub(super) account: Account,
    pub(super) payload_bytes_max: u32,
    pub(super) stall: Duration,
    pub(super) stop: WaitForCancellationFutureOwned,
}

impl<S, F> Transmission<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Done>,
{
    /// A connection whose requests are done by `start`.
    pub(super) fn new(parts: Parts<S>, start: fn(Arc<Session>, Job) -> F) -> Self {
        Self {
            stream: parts.stream,
            outbox: Outbox::new(parts.session.framing),
            session: Arc::new(parts.session),
            payload_bytes_max: parts.payload_bytes_max,
            stall: parts.stall,
            start,
            inbox: Inbox::new(),
            expect: Expect::Header,
            running: FuturesUnordered::new(),
            account: parts.account,
            stop: Some(Box::pin(parts.stop)),
            moved: 0,
            stalled: None,
            unflushed: false,
            shutting: false,
        }
    }

    /// Serves it to its end.
    pub(super) async fn run(mut self) -> Result<()> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(stop) = &mut self.stop
            && stop.as_mut().poll(cx).is_ready()
        {
            self.stop = None;
            self.end(Ok(()));
        }
        let mut started = 0;
        loop {
            let mut progress = self.poll_read(cx, &mut started);
            progress |= self.poll_running(cx);
            progress |= self.poll_write(cx);
            if matches!(self.expect, Expect::End(_)) && self.running.is_empty() && self.outbox.is_empty() {
                return self.poll_shutdown(cx);
            }
            if !progress {
                return self.poll_stalled(cx);
            }
            if started > TURN_REQUESTS_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Reads no more. The first reason stays.
    fn end(&mut self, why: Result<()>) {
        if !matches!(self.expect, Expect::End(_)) {
            self.expect = Expect::End(why);
        }
    }

    /// Reads once and starts what is whole. True if anything moved.
    fn poll_read(&mut self, cx: &mut Context<'_>, started: &mut usize) -> bool {
        let before = *started;
        if let Halt::Other = self.advance(cx, started) {
            return *started > before;
        }
        let stream = Pin::new(&mut self.stream);
        let read = match &mut self.expect {
            Expect::Own { data, len, .. } => {
                let missing = *len - data.len();
                tokio_util::io::poll_read_buf(stream, cx, &mut data.limit(missing))
            }
            _ => self.inbox.poll_fill(stream, cx),
        };
        match read {
            Poll::Pending => return *started > before,
            Poll::Ready(Ok(0)) => self.end(Ok(())),
            Poll::Ready(Ok(read)) => self.moved += read as u64,
            Poll::Ready(Err(error)) => {
                self.outbox.abandon();
                self.end(Err(Error::failed("read from the client", error)));
            }
        }
        self.advance(cx, started);
        true
    }

    /// Goes as far as the bytes that are here and the account allow.
    fn advance(&mut self, cx: &mut Context<'_>, started: &mut usize) -> Halt {
        loop {
            match std::mem::replace(&mut self.expect, Expect::Header) {
                Expect::Header => match RequestHeader::decode(self.session.framing, self.inbox.bytes()) {
                    Ok(Some(header)) => {
                        self.inbox.skip(self.session.framing.request_bytes());
                        self.expect = self.judge(header);
                    }
                    Ok(None) => return Halt::Bytes,
                    Err(error) => {
                        let source = Box::new(error);
                        self.expect = Expect::End(Err(Error::Failed { what: "read a request".into(), source }));
                    }
                },
                Expect::Room { header, verdict, cost_bytes } => {
                    if self.account.poll_take(cx, cost_bytes).is_pending() {
                        self.expect = Expect::Room { header, verdict, cost_bytes };
                        return Halt::Other;
                    }
                    *started += 1;
                    self.admit(&header, verdict, cost_bytes);
                }
                Expect::Shared { command, asked, len } => {
                    if self.inbox.bytes().len() < len {
                        self.expect = Expect::Shared { command, asked, len };
                        return Halt::Bytes;
                    }
                    let (data, chunk) = self.inbox.take(len);
                    self.launch(Job { command, asked, data, chunk });
                }
                Expect::Own { command, asked, mut data, len } => {
                    let here = self.inbox.bytes().len().min(len - data.len());
                    data.put_slice(&self.inbox.bytes()[..here]);
                    self.inbox.skip(here);
                    if data.len() < len {
                        self.expect = Expect::Own { command, asked, data, len };
                        return Halt::Bytes;
                    }
                    self.launch(Job { command, asked, data: data.freeze(), chunk: None });
                }
                Expect::Skip { left, asked, error, why } => {
                    let here = left.min(self.inbox.bytes().len() as u64);
                    self.inbox.skip(here as usize);
                    if here < left {
                        self.expect = Expect::Skip { left: left - here, asked, error, why };
                        return Halt::Bytes;
                    }
                    self.outbox.error(asked, error, why);
                }
                Expect::End(why) => {
                    self.expect = Expect::End(why);
                    return Halt::Other;
                }
            }
        }
    }

    /// What a header leads to.
    fn judge(&self, header: RequestHeader) -> Expect {
        let geometry = self.session.volume.geometry();
        let verdict = judge(&header, self.session.framing, &geometry, self.payload_bytes_max);
        let data_bytes = match verdict {
            Verdict::Disconnect => return Expect::End(Ok(())),
            Verdict::Refuse { skip_bytes, .. } if skip_bytes > SKIP_BYTES_MAX => {
                let what = "payload of a refused request";
                let error = Error::TooLarge { what, wanted_bytes: skip_bytes, max_bytes: SKIP_BYTES_MAX };
                return Expect::End(Err(error));
            }
            Verdict::Do(Command::Read { range, .. } | Command::Write { range, .. }) => range.len,
            // In memory and in its reply.
            Verdict::Do(Command::Status { .. }) => (self.session.contexts.len() * STATUS_RUNS_MAX * 32) as u64,
            Verdict::Do(_) | Verdict::Refuse { .. } => 0,
        };
        Expect::Room { header, verdict, cost_bytes: REQUEST_BYTES + data_bytes }
    }

    /// Begins a request whose cost was taken.
    fn admit(&mut self, header: &RequestHeader, verdict: Verdict, cost_bytes: u64) {
        let asked = Asked { cookie: header.cookie, offset: header.offset, cost_bytes };
        match verdict {
            Verdict::Do(command @ Command::Write { range, .. }) => {
                // Bounded by the limit of a payload.
                let len = range.len as usize;
                self.expect = if len <= SHARED_BYTES_MAX.max(self.inbox.bytes().len()) {
                    Expect::Shared { command, asked, len }
                } else {
                    Expect::Own { command, asked, data: page_aligned(len), len }
                };
            }
            Verdict::Do(command) => self.launch(Job { command, asked, data: Bytes::new(), chunk: None }),
            Verdict::Refuse { error, why, skip_bytes } => {
                self.expect = Expect::Skip { left: skip_bytes, asked, error, why };
            }
            Verdict::Disconnect => {}
        }
    }

    fn launch(&mut self, job: Job) {
        self.running.push((self.start)(self.session.clone(), job));
    }

    /// Queues the replies of what is done. True if anything was.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(done)) = Pin::new(&mut self.running).poll_next(cx) {
            if let Some(chunk) = done.chunk {
                self.inbox.unpin(chunk);
            }
            done.reply(&self.session, &mut self.outbox);
            any = true;
        }
        any
    }

    /// Sends what the socket takes. True if anything moved.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while !self.outbox.is_empty() {
            match self.outbox.poll_write(Pin::new(&mut self.stream), cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(written)) => {
                    self.moved += written as u64;
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => {
                    self.outbox.abandon();
                    self.end(Err(Error::failed("write to the client", error)));
                }
            }
            any = true;
        }
        while let Some(cost_bytes) = self.outbox.next_sent() {
            self.account.give(cost_bytes);
            any = true;
        }
        if self.unflushed {
            // An error comes again with the next write or read.
            self.unflushed = Pin::new(&mut self.stream).poll_flush(cx).is_pending();
        }
        any
    }

    /// Says goodbye below NBD, and tells how it ended.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.shutting = true;
        // A client that is gone, or does not take it, is no error.
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending => self.poll_stalled(cx),
            Poll::Ready(_) => Poll::Ready(match std::mem::replace(&mut self.expect, Expect::Header) {
                Expect::End(why) => why,
                _ => Ok(()),
            }),
        }
    }

    /// Pending, unless the client holds memory that others wait for and has moved next to nothing.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let by_client = match self.expect {
            Expect::Shared { .. } | Expect::Own { .. } | Expect::Skip { .. } => true,
            _ => !self.outbox.is_empty(),
        };
        let suspect = self.shutting || (by_client && self.account.holds_shared());
        if !suspect {
            self.stalled = None;
            return Poll::Pending;
        }
        let (sleep, moved) = self.stalled.get_or_insert_with(|| (Box::pin(tokio::time::sleep(self.stall)), self.moved));
        while sleep.as_mut().poll(cx).is_ready() {
            if self.shutting || (self.account.is_contended() && self.moved - *moved < STALL_BYTES_MIN) {
                return Poll::Ready(Err(Error::failed("wait for the client", "it moves nothing while others wait")));
            }
            *moved = self.moved;
            sleep.set(tokio::time::sleep(self.stall));
        }
        Poll::Pending
    }
}
