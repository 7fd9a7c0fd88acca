//! Bytes from the client. Small payloads stay where they were read, as views of a chunk that neighbours share.
//!
//! Invariant: running requests keep at most [`CHUNKS_MAX`] chunks alive; beyond it payloads are copied out, so that a
//! client cannot pin a chunk with each small write that takes long.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncRead;

/// Chunks that running requests keep alive, at most.
const CHUNKS_MAX: usize = 8;
/// Bytes of a chunk: it grows while reads fill it, and shrinks while they do not.
const CHUNK_BYTES_MIN: usize = 16 << 10;
const CHUNK_BYTES_MAX: usize = 128 << 10;
/// Payloads up to this are waited for in a chunk; larger ones get a buffer of their own and are read right into it.
pub(super) const SHARED_BYTES_MAX: usize = CHUNK_BYTES_MIN / 2;

/// The chunk that a payload keeps alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkId(u64);

/// The bytes that came and were not looked at.
pub(super) struct Inbox {
    bytes: BytesMut,
    chunk_bytes: usize,
    chunk: ChunkId,
    /// Chunks with the number of running requests that hold a view.
    pinned: VecDeque<(ChunkId, usize)>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { bytes: BytesMut::new(), chunk_bytes: CHUNK_BYTES_MIN, chunk: ChunkId(0), pinned: VecDeque::new() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn skip(&mut self, len: usize) {
        self.bytes.advance(len);
    }

    /// Reads once; 0 at the end of the stream.
    pub(super) fn poll_fill<S: AsyncRead>(
        &mut self,
        stream: Pin<&mut S>,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        self.make_room();
        let room = self.bytes.capacity() - self.bytes.len();
        let read = ready!(tokio_util::io::poll_read_buf(stream, cx, &mut self.bytes))?;
        if read == room {
            self.chunk_bytes = (self.chunk_bytes * 2).min(CHUNK_BYTES_MAX);
        } else if read < self.chunk_bytes / 8 {
            self.chunk_bytes = (self.chunk_bytes / 2).max(CHUNK_BYTES_MIN);
        }
        Poll::Ready(Ok(read))
    }

    /// Room for a payload that may be waited for, and a header.
    fn make_room(&mut self) {
        if self.bytes.capacity() - self.bytes.len() >= SHARED_BYTES_MAX {
            return;
        }
        if self.pinned.back().is_some_and(|(chunk, _)| *chunk == self.chunk) {
            let mut fresh = BytesMut::with_capacity(self.chunk_bytes + self.bytes.len());
            fresh.extend_from_slice(&self.bytes);
            self.bytes = fresh;
            self.chunk.0 += 1;
        } else {
            // Uses the same memory again unless the volume kept a view.
            self.bytes.reserve(self.chunk_bytes);
        }
    }

    /// Takes a payload that is here; with the chunk, if it is a view of one.
    pub(super) fn take(&mut self, len: usize) -> (Bytes, Option<ChunkId>) {
        // Chunks are pinned in their order.
        let full = self.pinned.len() == CHUNKS_MAX;
        match self.pinned.back_mut() {
            Some((chunk, requests)) if *chunk == self.chunk => *requests += 1,
            _ if full => {
                let copy = Bytes::copy_from_slice(&self.bytes[..len]);
                self.bytes.advance(len);
                return (copy, None);
            }
            _ => self.pinned.push_back((self.chunk, 1)),
        }
        (self.bytes.split_to(len).freeze(), Some(self.chunk))
    }

    /// A request that held a view is done.
    pub(super) fn unpin(&mut self, chunk: ChunkId) {
        let at = self.pinned.iter().position(|(pinned, _)| *pinned == chunk).expect("it was pinned when it was taken");
        self.pinned[at].1 -= 1;
        if self.pinned[at].1 == 0 {
            self.pinned.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::future::poll_fn;

    fn fill(inbox: &mut Inbox, mut from: &[u8]) -> usize {
        let read = poll_fn(|cx| inbox.poll_fill(Pin::new(&mut from), cx));
        read.now_or_never().expect("a slice is ready").expect("a slice does not fail")
    }

    #[test]
    fn small_writes_that_take_long_pin_a_bounded_number_of_chunks() {
        let mut inbox = Inbox::new();
        let stream = vec![7; 1 << 20];
        let mut views = Vec::new();
        for round in 0..100 {
            assert!(fill(&mut inbox, &stream) > 0);
            let (data, chunk) = inbox.take(512);
            assert_eq!(&data[..], [7; 512]);
            views.push((data, chunk));
            inbox.skip(inbox.bytes().len());
            assert!(inbox.pinned.len() <= CHUNKS_MAX, "round {round}");
        }
        assert_eq!(views.iter().filter(|(_, chunk)| chunk.is_some()).count(), CHUNKS_MAX);
        for chunk in views.into_iter().filter_map(|(_, chunk)| chunk) {
            inbox.unpin(chunk);
        }
        assert!(inbox.pinned.is_empty());
    }

    #[test]
    fn chunks_grow_with_the_stream_and_shrink_without() {
        let mut inbox = Inbox::new();
        let stream = vec![7; 1 << 20];
        for _ in 0..8 {
            fill(&mut inbox, &stream);
            inbox.skip(inbox.bytes().len());
        }
        assert_eq!(inbox.chunk_bytes, CHUNK_BYTES_MAX);
        for _ in 0..8 {
            fill(&mut inbox, &[7; 28]);
            inbox.skip(28);
        }
        assert_eq!(inbox.chunk_bytes, CHUNK_BYTES_MIN);
    }
}
