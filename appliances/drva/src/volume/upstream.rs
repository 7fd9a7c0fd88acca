//! A primary behind an NBD server, such as a qcow2 image behind `qemu-nbd`.
//!
//! One connection, one request at a time: whoever writes behind a log store need not be fast. Once something went wrong the
//! connection is over for good: what its server had acknowledged and not flushed may be gone with it, and only a restart,
//! which puts the log onto the primary from the last flush on, knows what that is.
//! All calls block: they belong on a thread that may.

use bytes::Bytes;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidemark_io_filter::nbd::wire::{
    self, Framing, RequestHeader, command, command_flag, info, option, option_reply, transmission_flag,
};

/// A server that is silent for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Data of one request at most: what every server takes.
const REQUEST_BYTES_MAX: u64 = 32 << 20;
/// Zeros of one request at most.
const ZERO_BYTES_MAX: u64 = 1 << 30;
/// Bytes of an answer to an option at most.
const ANSWER_BYTES_MAX: u32 = 64 << 10;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection to an export.
pub(crate) struct Upstream {
    size_bytes: u64,
    flags: u16,
    /// Until something went wrong.
    stream: Mutex<Option<Box<dyn Stream>>>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

/// Where an export is: `nbd+unix:///EXPORT?socket=PATH` or `nbd://HOST[:PORT]/EXPORT`.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Unix(String),
    Tcp(String),
}

/// Whether a primary is named by the URI of a server.
pub(crate) fn is_uri(primary: &str) -> bool {
    primary.starts_with("nbd://") || primary.starts_with("nbd+unix://")
}

/// The place and the export's name.
fn parse(uri: &str) -> Option<(Place, String)> {
    if let Some(rest) = uri.strip_prefix("nbd+unix:///") {
        let (export, query) = rest.split_once('?')?;
        let socket = query.strip_prefix("socket=")?;
        return Some((Place::Unix(decode(socket)?), decode(export)?)).filter(|_| !socket.is_empty());
    }
    let rest = uri.strip_prefix("nbd://")?;
    let (host, export) = rest.split_once('/').unwrap_or((rest, ""));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if has_port { host.to_owned() } else { format!("{host}:10809") };
    Some((Place::Tcp(host), decode(export)?)).filter(|_| !rest.starts_with('/') && !rest.is_empty())
}

/// Takes percent signs out of a part of a URI.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        rest = behind;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

impl Upstream {
    /// Connects to an export that can be written.
    pub(crate) fn open(uri: &str) -> io::Result<Self> {
        let bad = || io::Error::new(io::ErrorKind::InvalidInput, "it is no URI such as nbd+unix:///EXPORT?socket=PATH");
        let (place, export) = parse(uri).ok_or_else(bad)?;
        let mut stream: Box<dyn Stream> = match place {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        let (size_bytes, flags) = negotiate(&mut *stream, &export)?;
        if flags & transmission_flag::READ_ONLY != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the server's export is read-only"));
        }
        Ok(Self { size_bytes, flags, stream: Mutex::new(Some(stream)) })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        let mut at = offset;
        for piece in bytes.chunks_mut(REQUEST_BYTES_MAX as usize) {
            self.ask(command::READ, 0, at, piece.len() as u64, &[], piece)?;
            at += piece.len() as u64;
        }
        Ok(bytes.into())
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut at = offset;
        for piece in data.chunks(REQUEST_BYTES_MAX as usize) {
            self.ask(command::WRITE, 0, at, piece.len() as u64, piece, &mut [])?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes zeros that keep their space, or need not; false if the server has no command for that.
    pub(crate) fn zero(&self, offset: u64, len: u64, keeps_space: bool) -> io::Result<bool> {
        if self.flags & transmission_flag::SEND_WRITE_ZEROES == 0 {
            return Ok(false);
        }
        let flags = if keeps_space { command_flag::NO_HOLE } else { 0 };
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(ZERO_BYTES_MAX);
            self.ask(command::WRITE_ZEROES, flags, offset + done, piece, &[], &mut [])?;
            done += piece;
        }
        Ok(true)
    }

    /// A server without the command promises that each write is durable when it is answered.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.flags & transmission_flag::SEND_FLUSH == 0 {
            return Ok(());
        }
        self.ask(command::FLUSH, 0, 0, 0, &[], &mut [])
    }

    /// One request, and its answer.
    fn ask(&self, command: u16, flags: u16, offset: u64, len: u64, out: &[u8], into: &mut [u8]) -> io::Result<()> {
        let mut guard = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let over = || io::Error::new(io::ErrorKind::NotConnected, "the connection to the server failed before");
        // Whatever goes wrong, there is no second use of it.
        let mut stream = guard.take().ok_or_else(over)?;
        let mut header = Vec::new();
        RequestHeader { flags, command, cookie: 1, offset, len }.encode(Framing::Simple, &mut header);
        stream.write_all(&header)?;
        stream.write_all(out)?;
        let [magic, error] = [u32(&mut *stream)?, u32(&mut *stream)?];
        let cookie = u64(&mut *stream)?;
        if magic != wire::SIMPLE_REPLY_MAGIC || cookie != 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the server's answer is none to what was asked"));
        }
        if error != 0 {
            // The protocol's errors are those of Linux.
            return Err(io::Error::from_raw_os_error(error.min(i32::MAX as u32) as i32));
        }
        stream.read_exact(into)?;
        *guard = Some(stream);
        Ok(())
    }
}

fn u32(stream: &mut dyn Stream) -> io::Result<u32> {
    let mut raw = [0; 4];
    stream.read_exact(&mut raw)?;
    Ok(u32::from_be_bytes(raw))
}

fn u64(stream: &mut dyn Stream) -> io::Result<u64> {
    let mut raw = [0; 8];
    stream.read_exact(&mut raw)?;
    Ok(u64::from_be_bytes(raw))
}

/// Goes to an export; its size and what it can do.
fn negotiate(stream: &mut dyn Stream, export: &str) -> io::Result<(u64, u16)> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    if (u64(stream)?, u64(stream)?) != (wire::GREETING_MAGIC, wire::OPTION_MAGIC) {
        return Err(bad("whoever listens there speaks no NBD".to_owned()));
    }
    let mut flags = [0; 2];
    stream.read_exact(&mut flags)?;
    let flags = u16::from_be_bytes(flags) & (wire::handshake_flag::FIXED_NEWSTYLE | wire::handshake_flag::NO_ZEROES);
    let name_len = export.len() as u32;
    let mut go = u32::from(flags).to_be_bytes().to_vec();
    go.extend_from_slice(&wire::OPTION_MAGIC.to_be_bytes());
    go.extend_from_slice(&option::GO.to_be_bytes());
    go.extend_from_slice(&(name_len + 6).to_be_bytes());
    go.extend_from_slice(&name_len.to_be_bytes());
    go.extend_from_slice(export.as_bytes());
    go.extend_from_slice(&0_u16.to_be_bytes());
    stream.write_all(&go)?;
    let mut found = None;
    loop {
        let (magic, asked, kind, len) = (u64(stream)?, u32(stream)?, u32(stream)?, u32(stream)?);
        if magic != wire::OPTION_REPLY_MAGIC || asked != option::GO || len > ANSWER_BYTES_MAX {
            return Err(bad("the server's answer is none to what was asked".to_owned()));
        }
        let mut data = vec![0; len as usize];
        stream.read_exact(&mut data)?;
        match (kind, &data[..]) {
            (option_reply::ACK, _) => return found.ok_or_else(|| bad("the server tells no size".to_owned())),
            (option_reply::INFO, [k0, k1, size @ .., f0, f1]) if u16::from_be_bytes([*k0, *k1]) == info::EXPORT => {
                let size = size.try_into().map_err(|_| bad("the server tells no size".to_owned()))?;
                found = Some((u64::from_be_bytes(size), u16::from_be_bytes([*f0, *f1])));
            }
            (option_reply::INFO, _) => {}
            (_, words) => {
                let words: String = String::from_utf8_lossy(words).chars().take(200).collect();
                return Err(bad(format!("the server refuses export {export:?}: {words}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_name_a_place_and_an_export() {
        let unix = |path: &str, export: &str| Some((Place::Unix(path.to_owned()), export.to_owned()));
        let tcp = |host: &str, export: &str| Some((Place::Tcp(host.to_owned()), export.to_owned()));
        assert_eq!(parse("nbd+unix:///a/b?socket=/run/x.sock"), unix("/run/x.sock", "a/b"));
        assert_eq!(parse("nbd+unix:///?socket=/run/with%20space"), unix("/run/with space", ""));
        assert_eq!(parse("nbd://host:99/disk%2f1"), tcp("host:99", "disk/1"));
        assert_eq!(parse("nbd://host"), tcp("host:10809", ""));
        for bad in
            ["nbd+unix:///x", "nbd+unix:///x?socket=", "nbd+unix:///%zz?socket=/x", "nbd:///", "nbds://h/x", "/x"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert!(is_uri("nbd://h/x") && is_uri("nbd+unix:///x?socket=/y") && !is_uri("/dev/nbd0"));
    }

    #[test]
    fn whoever_speaks_no_nbd_is_no_primary() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            client.write_all(&[7; 64]).expect("it reads");
        });
        let error = Upstream::open(&format!("nbd+unix:///x?socket={}", path.display())).expect_err("no NBD");
        assert!(error.to_string().contains("speaks no NBD"), "{error}");
        server.join().expect("it answered");
    }
}
