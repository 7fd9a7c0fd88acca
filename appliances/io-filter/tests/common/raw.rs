//! A client that says exactly what it is told, right or wrong.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use tidemark_io_filter::nbd::wire::{self, Framing, RequestHeader, option, option_reply};

/// A server that says nothing for so long is broken.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Raw {
    pub stream: UnixStream,
    pub framing: Framing,
}

/// The answer to an option, or a part of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub kind: u32,
    pub data: Vec<u8>,
}

/// A piece of a structured reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    pub kind: u16,
    pub done: bool,
    pub cookie: u64,
    pub payload: Vec<u8>,
}

impl Chunk {
    /// The error of an error chunk.
    pub fn error(&self) -> u32 {
        assert_eq!(self.kind, wire::chunk::ERROR, "{self:?}");
        u32::from_be_bytes(self.payload[..4].try_into().expect("an error has a number"))
    }
}

impl Raw {
    /// Connected, nothing read.
    pub fn silent(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("a server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream, framing: Framing::Simple }
    }

    /// Greeted, with flags sent.
    pub fn greeted(socket: &Path) -> Self {
        let mut raw = Self::silent(socket);
        assert_eq!(raw.read(wire::GREETING_BYTES), wire::greeting());
        raw.write(&3_u32.to_be_bytes());
        raw
    }

    /// In transmission on the export "disk".
    pub fn open(socket: &Path, framing: Framing) -> Self {
        let mut raw = Self::greeted(socket);
        raw.frame(framing);
        raw.go("disk");
        raw
    }

    pub fn frame(&mut self, framing: Framing) {
        let option = match framing {
            Framing::Simple => return,
            Framing::Structured => option::STRUCTURED_REPLY,
            Framing::Extended => option::EXTENDED_HEADERS,
        };
        assert_eq!(self.ask(option, &[]).last().map(|answer| answer.kind), Some(option_reply::ACK));
        self.framing = framing;
    }

    /// Goes to transmission; the export's size.
    pub fn go(&mut self, name: &str) -> u64 {
        let answers = self.ask(option::GO, &go_data(name));
        assert_eq!(answers.last().map(|answer| answer.kind), Some(option_reply::ACK), "{answers:?}");
        let export = &answers[answers.len() - 2].data;
        u64::from_be_bytes(export[2..10].try_into().expect("a size"))
    }

    pub fn write(&mut self, raw: &[u8]) {
        self.stream.write_all(raw).expect("the server reads");
    }

    pub fn read(&mut self, len: usize) -> Vec<u8> {
        let mut raw = vec![0; len];
        self.stream.read_exact(&mut raw).expect("the server answers");
        raw
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.read(2).try_into().expect("two bytes"))
    }
    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.read(4).try_into().expect("four bytes"))
    }
    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.read(8).try_into().expect("eight bytes"))
    }

    /// True once the server closed the connection, whatever it says before.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Sends an option.
    pub fn say(&mut self, option: u32, data: &[u8]) {
        let header = [&wire::OPTION_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &(data.len() as u32).to_be_bytes()];
        self.write(&[&header.concat(), data].concat());
    }

    /// Sends an option; all answers up to the final one.
    pub fn ask(&mut self, option: u32, data: &[u8]) -> Vec<Answer> {
        self.say(option, data);
        let mut answers = Vec::new();
        loop {
            assert_eq!(self.u64(), wire::OPTION_REPLY_MAGIC);
            assert_eq!(self.u32(), option);
            let kind = self.u32();
            let len = self.u32() as usize;
            answers.push(Answer { kind, data: self.read(len) });
            if !matches!(kind, option_reply::SERVER | option_reply::INFO | option_reply::META_CONTEXT) {
                return answers;
            }
        }
    }

    /// Sends a request.
    pub fn request(&mut self, command: u16, flags: u16, cookie: u64, offset: u64, len: u64) {
        let raw = self.header(command, flags, cookie, offset, len);
        self.write(&raw);
    }

    pub fn header(&self, command: u16, flags: u16, cookie: u64, offset: u64, len: u64) -> Vec<u8> {
        let mut raw = Vec::new();
        RequestHeader { flags, command, cookie, offset, len }.encode(self.framing, &mut raw);
        raw
    }

    /// Sends a write.
    pub fn put(&mut self, cookie: u64, offset: u64, data: &[u8]) {
        let flags = if self.framing == Framing::Extended { wire::command_flag::PAYLOAD_LEN } else { 0 };
        let header = self.header(wire::command::WRITE, flags, cookie, offset, data.len() as u64);
        self.write(&[&header, data].concat());
    }

    /// The header of a simple reply: cookie and error.
    pub fn simple(&mut self) -> (u64, u32) {
        assert_eq!(self.u32(), wire::SIMPLE_REPLY_MAGIC);
        let error = self.u32();
        (self.u64(), error)
    }

    /// A chunk of a structured reply, or a simple reply in its place.
    pub fn chunk(&mut self) -> Chunk {
        match self.u32() {
            wire::SIMPLE_REPLY_MAGIC if self.framing == Framing::Structured => {
                let (error, cookie) = (self.u32(), self.u64());
                assert_eq!(error, 0, "errors come as chunks");
                Chunk { kind: wire::chunk::NONE, done: true, cookie, payload: Vec::new() }
            }
            magic => {
                let extended = self.framing == Framing::Extended;
                let wanted = if extended { wire::EXTENDED_REPLY_MAGIC } else { wire::STRUCTURED_REPLY_MAGIC };
                assert_eq!(magic, wanted);
                let done = self.u16() & wire::REPLY_FLAG_DONE != 0;
                let (kind, cookie) = (self.u16(), self.u64());
                let len = if extended {
                    self.u64();
                    self.u64() as usize
                } else {
                    self.u32() as usize
                };
                Chunk { kind, done, cookie, payload: self.read(len) }
            }
        }
    }
}

/// The data of GO and INFO, without special wishes.
pub fn go_data(name: &str) -> Vec<u8> {
    [&(name.len() as u32).to_be_bytes()[..], name.as_bytes(), &[0, 0]].concat()
}

/// The data of the meta context options.
pub fn context_data(export: &str, queries: &[&str]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    let queries: Vec<u8> =
        (queries.len() as u32).to_be_bytes().into_iter().chain(queries.iter().flat_map(|query| text(query))).collect();
    [text(export), queries].concat()
}
