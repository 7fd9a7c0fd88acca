//! What clients of the IO filter send, from the greeting to the last request: whole connections over a small disk.
#![no_main]
use libfuzzer_sys::fuzz_target;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};
use tidemark_fuzz::bounded;
use tidemark_io_filter::nbd::negotiate::{CONTEXTS_MAX, OPTION_BYTES_MAX};
use tidemark_io_filter::nbd::wire::{self, Framing, option};
use tidemark_io_filter::nbd::{Limits, Server};
use tidemark_io_filter::{Client, Error, ExportInfo, Exports, MemoryVolume, Peer, Result, Volume};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const DISK_BYTES: u64 = 256 << 10;
/// Of the disk, of the buffers of one connection, of one option and its answer.
const HEAP_BYTES_MAX: usize = DISK_BYTES as usize * 2 + (4 << 20);

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"));

struct Only(Arc<MemoryVolume>);

impl Exports for Only {
    fn list(&self, _: &Client) -> Vec<ExportInfo> {
        vec![ExportInfo { name: "disk".into(), description: "a disk".into() }]
    }
    fn open(&self, name: &str, _: &Client) -> Result<Arc<dyn Volume>> {
        if name == "disk" { Ok(self.0.clone()) } else { Err(Error::NoExport { name: name.into() }) }
    }
}

/// A client that sends these bytes in pieces, and counts what it gets.
struct Bytes<'a> {
    rest: &'a [u8],
    piece_bytes: usize,
    received: &'a Mutex<Vec<u8>>,
}

impl AsyncRead for Bytes<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let len = self.rest.len().min(self.piece_bytes).min(into.remaining());
        let (piece, rest) = self.rest.split_at(len);
        into.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bytes<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let len = bytes.len().min(self.piece_bytes * 16);
        let mut received = self.received.lock().expect("one thread");
        // Replies may be many times the requests: their start is enough to look at.
        if received.len() < 64 << 10 {
            received.extend_from_slice(&bytes[..len]);
        }
        Poll::Ready(Ok(len))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A handshake up to the first request, so that not every input has to invent it.
fn handshake(framing: Framing, contexts: bool) -> Vec<u8> {
    let mut bytes = 3_u32.to_be_bytes().to_vec();
    let mut say = |option: u32, data: &[u8]| {
        bytes.extend_from_slice(&wire::OPTION_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&option.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(data);
    };
    match framing {
        Framing::Simple => {}
        Framing::Structured => say(option::STRUCTURED_REPLY, &[]),
        Framing::Extended => say(option::EXTENDED_HEADERS, &[]),
    }
    if contexts {
        say(option::SET_META_CONTEXT, b"\0\0\0\x04disk\0\0\0\x01\0\0\0\x0fbase:allocation");
    }
    say(option::GO, b"\0\0\0\x04disk\0\0");
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, sent)) = bytes.split_first() else { return };
    let framing = [Framing::Simple, Framing::Structured, Framing::Extended][usize::from(how & 3).min(2)];
    let piece_bytes = [1 << 20, 1, 7, 100][usize::from(how >> 2 & 3)];
    let start = match how >> 4 & 3 {
        0 => Vec::new(),
        1 => 3_u32.to_be_bytes().to_vec(),
        more => handshake(framing, more == 2),
    };
    let all = [&start[..], sent].concat();
    let received = Mutex::new(Vec::with_capacity(256 << 10));
    let limits = Limits { connection_requests_max: 8, ..Limits::default() };
    let answers = (OPTION_BYTES_MAX as usize + CONTEXTS_MAX * 64) * 2;
    bounded(HEAP_BYTES_MAX + answers + all.len() * 8, || {
        let disk = Arc::new(MemoryVolume::new(DISK_BYTES).expect("small"));
        let server = Server::new(Arc::new(Only(disk)), limits, None).expect("sound limits");
        let stream = Bytes { rest: &all, piece_bytes, received: &received };
        // Any end will do; a hang is found by the fuzzer.
        let _ = RUNTIME.block_on(server.serve_stream(stream, Peer::Unix { pid: None, uid: 0 }));
    });
    let received = received.into_inner().expect("one thread");
    assert_eq!(received[..wire::GREETING_BYTES], wire::greeting());
});
