//! Replies on their way to the client: as many as possible in one vectored write, data as the volume gave it.
//!
//! Invariant: what a request costs is given back once the last byte of its reply was taken by the socket.

use super::wire::{self, ChunkHeader, Errno, Framing, allocation, chunk};
use crate::volume::{Part, RunState, StatusContext, StatusRun};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Pieces of one vectored write, at most.
const SLICES_MAX: usize = 64;
/// A read reply of more parts than this is sent as one chunk.
const CHUNKS_MAX: usize = 256;
/// Bytes of the words that go with an error.
const WORDS_BYTES_MAX: usize = 512;

/// Where zeros are sent from.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A stretch of the stream.
enum Piece {
    /// The next so many bytes of `heads`.
    Heads(usize),
    Data(Bytes),
}

/// Which request is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) cookie: u64,
    pub(super) offset: u64,
    /// To be given back.
    pub(super) cost_bytes: u64,
}

/// The queue.
pub(super) struct Outbox {
    framing: Framing,
    heads: BytesMut,
    pieces: VecDeque<Piece>,
    /// Position in the stream: of the next byte to send, and after the last one queued.
    sent: u64,
    queued: u64,
    /// Where replies end, and what is to be given back then.
    ends: VecDeque<(u64, u64)>,
}

impl Outbox {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, heads: BytesMut::new(), pieces: VecDeque::new(), sent: 0, queued: 0, ends: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The request was done, and there is nothing more to say.
    pub(super) fn done(&mut self, asked: Asked) {
        match self.framing {
            Framing::Simple | Framing::Structured => self.head(&wire::simple_reply(asked.cookie, 0)),
            Framing::Extended => self.chunk(asked, chunk::NONE, true, &[], 0),
        }
        self.end(asked);
    }

    /// The request failed.
    pub(super) fn error(&mut self, asked: Asked, error: Errno, words: &str) {
        if self.framing == Framing::Simple {
            self.head(&wire::simple_reply(asked.cookie, error as u32));
        } else {
            let words = &words.as_bytes()[..words.floor_char_boundary(WORDS_BYTES_MAX)];
            let mut payload = Vec::with_capacity(6 + words.len());
            payload.extend_from_slice(&(error as u32).to_be_bytes());
            payload.extend_from_slice(&(words.len() as u16).to_be_bytes());
            payload.extend_from_slice(words);
            self.chunk(asked, chunk::ERROR, true, &payload, 0);
        }
        self.end(asked);
    }

    /// What was read: `parts` of `len` bytes together, which fit the bound of a payload.
    pub(super) fn data(&mut self, asked: Asked, len: u64, parts: Vec<Part>, whole: bool) {
        if self.framing == Framing::Simple {
            self.head(&wire::simple_reply(asked.cookie, 0));
            parts.into_iter().for_each(|part| self.part(part));
        } else if len == 0 {
            self.chunk(asked, chunk::NONE, true, &[], 0);
        } else if whole || parts.len() > CHUNKS_MAX {
            self.chunk(asked, chunk::OFFSET_DATA, true, &asked.offset.to_be_bytes(), len as u32);
            parts.into_iter().for_each(|part| self.part(part));
        } else {
            let (mut offset, end) = (asked.offset, asked.offset + len);
            for part in parts.into_iter().filter(|part| !part.is_empty()) {
                let start = offset;
                offset += part.len();
                let done = offset == end;
                match part {
                    Part::Data(data) => {
                        self.chunk(asked, chunk::OFFSET_DATA, done, &start.to_be_bytes(), data.len() as u32);
                        self.bytes(data);
                    }
                    Part::Zero(zeros) => {
                        let mut payload = [0; 12];
                        payload[..8].copy_from_slice(&start.to_be_bytes());
                        payload[8..].copy_from_slice(&(zeros as u32).to_be_bytes());
                        self.chunk(asked, chunk::OFFSET_HOLE, done, &payload, 0);
                    }
                }
            }
        }
        self.end(asked);
    }

    /// What is known, by the number of the context.
    pub(super) fn status(&mut self, asked: Asked, contexts: &[StatusContext], answers: &[Vec<StatusRun>]) {
        let extended = self.framing == Framing::Extended;
        for (id, (context, runs)) in contexts.iter().zip(answers).enumerate() {
            let mut payload = BytesMut::with_capacity(8 + runs.len() * 16);
            payload.put_u32(id as u32);
            if extended {
                payload.put_u32(runs.len() as u32);
            }
            for run in runs {
                let flags = flags(context, run.state);
                if extended {
                    payload.put_u64(run.bytes);
                    payload.put_u64(flags.into());
                } else {
                    // A request of 32 bits asked for it.
                    payload.put_u32(run.bytes as u32);
                    payload.put_u32(flags);
                }
            }
            let kind = if extended { chunk::BLOCK_STATUS_EXT } else { chunk::BLOCK_STATUS };
            self.chunk(asked, kind, id + 1 == contexts.len(), &payload, 0);
        }
        self.end(asked);
    }

    /// A chunk with the start of its payload; `more_bytes` of it are queued next.
    fn chunk(&mut self, asked: Asked, kind: u16, done: bool, payload: &[u8], more_bytes: u32) {
        let len = payload.len() as u32 + more_bytes;
        let header = ChunkHeader { kind, done, cookie: asked.cookie, offset: asked.offset, len };
        let start = self.heads.len();
        header.encode(self.framing, &mut self.heads);
        self.heads.extend_from_slice(payload);
        self.headed(self.heads.len() - start);
    }

    fn head(&mut self, raw: &[u8]) {
        self.heads.extend_from_slice(raw);
        self.headed(raw.len());
    }

    fn headed(&mut self, len: usize) {
        self.queued += len as u64;
        match self.pieces.back_mut() {
            Some(Piece::Heads(last)) => *last += len,
            _ => self.pieces.push_back(Piece::Heads(len)),
        }
    }

    fn part(&mut self, part: Part) {
        match part {
            Part::Data(data) => self.bytes(data),
            Part::Zero(mut left) => {
                while left > 0 {
                    let len = left.min(ZEROS.len() as u64);
                    self.bytes(Bytes::from_static(&ZEROS[..len as usize]));
                    left -= len;
                }
            }
        }
    }

    fn bytes(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.queued += data.len() as u64;
            self.pieces.push_back(Piece::Data(data));
        }
    }

    fn end(&mut self, asked: Asked) {
        self.ends.push_back((self.queued, asked.cost_bytes));
    }

    /// Writes what it can; tells how many bytes. Not called when there is nothing.
    pub(super) fn poll_write<S: AsyncWrite>(
        &mut self,
        stream: Pin<&mut S>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let written = match self.pieces.front() {
            Some(Piece::Heads(len)) if self.pieces.len() == 1 => ready!(stream.poll_write(cx, &self.heads[..*len])),
            _ => {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut heads = &self.heads[..];
                let count = self.pieces.len().min(SLICES_MAX);
                for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                    *slice = IoSlice::new(match piece {
                        Piece::Heads(len) => {
                            let (these, rest) = heads.split_at(*len);
                            heads = rest;
                            these
                        }
                        Piece::Data(data) => data,
                    });
                }
                ready!(stream.poll_write_vectored(cx, &slices[..count]))
            }
        }?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, written: usize) {
        self.sent += written as u64;
        let mut left = written;
        while left > 0 {
            let piece = self.pieces.front_mut().expect("no more is written than was queued");
            let (step, len) = match piece {
                Piece::Heads(len) => {
                    let step = left.min(*len);
                    self.heads.advance(step);
                    *len -= step;
                    (step, *len)
                }
                Piece::Data(data) => {
                    let step = left.min(data.len());
                    data.advance(step);
                    (step, data.len())
                }
            };
            left -= step;
            if len == 0 {
                self.pieces.pop_front();
            }
        }
        if self.heads.is_empty() {
            self.heads.clear();
        }
    }

    /// The cost of a request whose reply is sent; call until there is none.
    pub(super) fn next_sent(&mut self) -> Option<u64> {
        let (end, cost_bytes) = *self.ends.front()?;
        (end <= self.sent).then(|| {
            self.ends.pop_front();
            cost_bytes
        })
    }

    /// Forgets everything: nobody will take it.
    pub(super) fn abandon(&mut self) {
        self.heads.clear();
        self.pieces.clear();
        self.sent = self.queued;
    }
}

/// A run's flags. A state that does not belong to the context becomes the one that makes nobody lose data.
fn flags(context: &StatusContext, state: RunState) -> u32 {
    match (context, state) {
        (StatusContext::Allocation, RunState::Zero) => allocation::ZERO,
        (StatusContext::Allocation, RunState::Hole) => allocation::HOLE | allocation::ZERO,
        (StatusContext::Allocation, _) | (StatusContext::ChangedSince(_), RunState::Same) => 0,
        (StatusContext::ChangedSince(_), _) => wire::DIRTY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::future::poll_fn;
    use tidemark_format::Lsn;

    /// A stream that takes a few bytes at a time.
    struct Narrow(Vec<u8>, usize);

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let len = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..len]);
            Poll::Ready(Ok(len))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn asked(cookie: u64) -> Asked {
        Asked { cookie, offset: 0, cost_bytes: cookie }
    }

    fn sent(outbox: &mut Outbox, step: usize) -> (Vec<u8>, Vec<(usize, u64)>) {
        let mut stream = Narrow(Vec::new(), step);
        let mut given = Vec::new();
        while !outbox.is_empty() {
            let written = poll_fn(|cx| outbox.poll_write(Pin::new(&mut stream), cx));
            written.now_or_never().expect("it takes some").expect("it does not fail");
            while let Some(cost_bytes) = outbox.next_sent() {
                given.push((stream.0.len(), cost_bytes));
            }
        }
        (stream.0, given)
    }

    #[test]
    fn any_steps_send_the_same_bytes_and_give_back_at_the_end_of_each_reply() {
        let fill = || {
            let mut outbox = Outbox::new(Framing::Structured);
            outbox.done(asked(1));
            outbox.data(asked(2), 8192, vec![Part::Data(vec![2; 4096].into()), Part::Zero(4096)], false);
            outbox.data(asked(3), 8192, vec![Part::Zero(4096), Part::Data(vec![3; 4096].into())], true);
            outbox.error(asked(4), Errno::Io, "it broke");
            outbox
        };
        let (whole, _) = sent(&mut fill(), usize::MAX);
        let lengths = [16, 28 + 4096 + 32, 28 + 8192, 26 + 8];
        assert_eq!(whole.len(), lengths.iter().sum::<usize>());
        for step in [1, 7, 100, 5000] {
            let (bytes, given) = sent(&mut fill(), step);
            assert!(bytes == whole, "step {step}");
            let mut end = 0;
            for (i, (at, cost_bytes)) in given.into_iter().enumerate() {
                end += lengths[i];
                assert_eq!(cost_bytes, i as u64 + 1);
                assert!(at >= end && at < end + step, "reply {i} of step {step}");
            }
        }
    }

    #[test]
    fn words_are_cut_to_their_bound() {
        let mut outbox = Outbox::new(Framing::Structured);
        outbox.error(asked(1), Errno::Io, &"\u{e9}".repeat(WORDS_BYTES_MAX));
        let (bytes, _) = sent(&mut outbox, usize::MAX);
        assert_eq!(bytes.len(), 26 + WORDS_BYTES_MAX);
    }

    #[test]
    fn a_state_of_another_context_makes_nobody_lose_data() {
        let since = StatusContext::ChangedSince(Lsn::new(1));
        assert_eq!(flags(&StatusContext::Allocation, RunState::Same), 0, "data");
        assert_eq!(flags(&since, RunState::Hole), wire::DIRTY);
        assert_eq!([RunState::Same, RunState::Changed].map(|state| flags(&since, state)), [0, wire::DIRTY]);
    }

    #[test]
    fn what_is_abandoned_is_given_back() {
        let mut outbox = Outbox::new(Framing::Simple);
        outbox.data(asked(5), 4096, vec![Part::Zero(4096)], false);
        outbox.abandon();
        assert_eq!((outbox.next_sent(), outbox.next_sent(), outbox.is_empty()), (Some(5), None, true));
    }
}
