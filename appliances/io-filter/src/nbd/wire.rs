//! The bytes of the NBD protocol. Pure: slices in, numbers out, and back. Numbers are big endian.
//!
//! Names follow the protocol's document with its prefixes turned into modules.

/// What a server says first.
pub const GREETING_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// What follows it, and what precedes each option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Precedes each answer to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Precedes each request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Precedes each request with an extended header.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// Precedes a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Precedes a chunk of a structured reply.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// Precedes a chunk of a reply with an extended header.
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Bytes of the header of an option.
pub const OPTION_HEADER_BYTES: usize = 16;
/// Bytes of a greeting.
pub const GREETING_BYTES: usize = 18;
/// Bytes of a string at most, says the protocol.
pub const STRING_BYTES_MAX: usize = 4096;

/// Flags of the greeting, and of the client's answer: the two sides use the same bits.
pub mod handshake_flag {
    /// Options are answered one by one.
    pub const FIXED_NEWSTYLE: u16 = 1;
    /// No padding after the answer to [`super::option::EXPORT_NAME`].
    pub const NO_ZEROES: u16 = 2;
}

/// Options that a client may send.
#[allow(missing_docs, reason = "the protocol's own names")]
pub mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Kinds of answers to an option.
#[allow(missing_docs, reason = "the protocol's own names")]
pub mod option_reply {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const ERR_UNSUP: u32 = 1 << 31 | 1;
    pub const ERR_POLICY: u32 = 1 << 31 | 2;
    pub const ERR_INVALID: u32 = 1 << 31 | 3;
    pub const ERR_TLS_REQD: u32 = 1 << 31 | 5;
    pub const ERR_UNKNOWN: u32 = 1 << 31 | 6;
    pub const ERR_SHUTDOWN: u32 = 1 << 31 | 7;
    pub const ERR_TOO_BIG: u32 = 1 << 31 | 9;
    pub const ERR_EXT_HEADER_REQD: u32 = 1 << 31 | 10;
}

/// Kinds of information about an export.
#[allow(missing_docs, reason = "the protocol's own names")]
pub mod info {
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const DESCRIPTION: u16 = 2;
    pub const BLOCK_SIZE: u16 = 3;
}

/// What an export can do.
#[allow(missing_docs, reason = "the protocol's own names")]
pub mod transmission_flag {
    pub const HAS_FLAGS: u16 = 1;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const SEND_FLUSH: u16 = 1 << 2;
    pub const SEND_FUA: u16 = 1 << 3;
    pub const ROTATIONAL: u16 = 1 << 4;
    pub const SEND_TRIM: u16 = 1 << 5;
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub const SEND_DF: u16 = 1 << 7;
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    pub const SEND_CACHE: u16 = 1 << 10;
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// What a client asks.
#[allow(missing_docs, reason = "the protocol's own names")]
pub mod command {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

/// How it asks.
pub mod command_flag {
    /// Durable before the reply.
    pub const FUA: u16 = 1;
    /// Zeros with backing.
    pub const NO_HOLE: u16 = 1 << 1;
    /// One chunk of data.
    pub const DF: u16 = 1 << 2;
    /// One run of each context.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Fail rather than write zeros.
    pub const FAST_ZERO: u16 = 1 << 4;
    /// The length is that of a payload which follows.
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// Kinds of chunks of a reply.
#[allow(missing_docs, reason = "the protocol's own names")]
pub mod chunk {
    pub const NONE: u16 = 0;
    pub const OFFSET_DATA: u16 = 1;
    pub const OFFSET_HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    pub const BLOCK_STATUS_EXT: u16 = 6;
    pub const ERROR: u16 = 1 << 15 | 1;
}

/// The flag of the last chunk of a reply.
pub const REPLY_FLAG_DONE: u16 = 1;

/// Flags of a run of base:allocation.
pub mod allocation {
    /// It has no backing.
    pub const HOLE: u32 = 1;
    /// It reads as zeros.
    pub const ZERO: u32 = 1 << 1;
}

/// The flag of a run of a dirty bitmap.
pub const DIRTY: u32 = 1;

/// Errors that a reply can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the protocol's own names")]
#[repr(u32)]
pub enum Errno {
    Perm = 1,
    Io = 5,
    Inval = 22,
    NoSpace = 28,
    Overflow = 75,
    NotSup = 95,
    Shutdown = 108,
}

/// How requests and replies are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Framing {
    /// 32-bit lengths, a reply is a header and data.
    Simple,
    /// 32-bit lengths, a reply may come in chunks.
    Structured,
    /// 64-bit lengths, a reply comes in chunks.
    Extended,
}

impl Framing {
    /// Bytes of the header of a request.
    pub const fn request_bytes(self) -> usize {
        match self {
            Self::Simple | Self::Structured => 28,
            Self::Extended => 32,
        }
    }
}

/// The bytes are not of this protocol, or of another framing than was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} begins with {got:#x}")]
pub struct BadMagic {
    /// What should have begun.
    pub what: &'static str,
    /// What stood there.
    pub got: u64,
}

/// The header of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which one.
    pub option: u32,
    /// Bytes of data that follow.
    pub len: u32,
}

impl OptionHeader {
    /// Reads one.
    pub fn decode(raw: &[u8; OPTION_HEADER_BYTES]) -> Result<Self, BadMagic> {
        let mut cursor = Cursor(raw);
        match cursor.u64() {
            Some(OPTION_MAGIC) => {}
            got => return Err(BadMagic { what: "an option", got: got.unwrap_or_default() }),
        }
        Ok(Self { option: cursor.u32().unwrap_or_default(), len: cursor.u32().unwrap_or_default() })
    }
}

/// The header of a request, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// [`command_flag`]s.
    pub flags: u16,
    /// A [`command`].
    pub command: u16,
    /// What the reply must carry.
    pub cookie: u64,
    /// First byte concerned.
    pub offset: u64,
    /// Number of bytes concerned, or that follow.
    pub len: u64,
}

impl RequestHeader {
    /// Reads one from the start of `raw`; `None` if there are too few bytes.
    pub fn decode(framing: Framing, raw: &[u8]) -> Result<Option<Self>, BadMagic> {
        let mut cursor = Cursor(raw);
        let Some(magic) = cursor.u32() else { return Ok(None) };
        let wanted = if framing == Framing::Extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        if magic != wanted {
            return Err(BadMagic { what: "a request", got: magic.into() });
        }
        Ok(cursor.request(framing))
    }

    /// Writes one.
    pub fn encode(&self, framing: Framing, out: &mut Vec<u8>) {
        let magic = if framing == Framing::Extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        out.extend_from_slice(&magic.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.extend_from_slice(&self.command.to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        match framing {
            Framing::Extended => out.extend_from_slice(&self.len.to_be_bytes()),
            Framing::Simple | Framing::Structured => out.extend_from_slice(&(self.len as u32).to_be_bytes()),
        }
    }
}

/// What a client sends after the greeting: its flags.
pub fn client_flags(raw: [u8; 4]) -> u32 {
    u32::from_be_bytes(raw)
}

/// The greeting.
pub fn greeting() -> [u8; GREETING_BYTES] {
    let mut raw = [0; GREETING_BYTES];
    raw[..8].copy_from_slice(&GREETING_MAGIC.to_be_bytes());
    raw[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    raw[16..].copy_from_slice(&(handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES).to_be_bytes());
    raw
}

/// Appends an answer to an option. `data` is of this server's making: far below 4 GiB.
pub fn option_reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[&[u8]]) {
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    let len = data.iter().map(|part| part.len()).sum::<usize>();
    out.extend_from_slice(&(len as u32).to_be_bytes());
    data.iter().for_each(|part| out.extend_from_slice(part));
}

/// Bytes of a simple reply's header.
pub const SIMPLE_REPLY_BYTES: usize = 16;

/// The header of a simple reply; 0 is no error.
pub fn simple_reply(cookie: u64, error: u32) -> [u8; SIMPLE_REPLY_BYTES] {
    let mut raw = [0; SIMPLE_REPLY_BYTES];
    raw[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    raw[4..8].copy_from_slice(&error.to_be_bytes());
    raw[8..].copy_from_slice(&cookie.to_be_bytes());
    raw
}

/// The header of a chunk of a reply.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHeader {
    /// A [`chunk`].
    pub kind: u16,
    /// No other chunk of this reply follows.
    pub done: bool,
    /// Of the request.
    pub cookie: u64,
    /// Of the request; only extended headers have it.
    pub offset: u64,
    /// Bytes that follow.
    pub len: u32,
}

impl ChunkHeader {
    /// Appends it, in the structured or extended framing.
    pub fn encode(&self, framing: Framing, out: &mut impl bytes::BufMut) {
        let extended = framing == Framing::Extended;
        out.put_u32(if extended { EXTENDED_REPLY_MAGIC } else { STRUCTURED_REPLY_MAGIC });
        out.put_u16(if self.done { REPLY_FLAG_DONE } else { 0 });
        out.put_u16(self.kind);
        out.put_u64(self.cookie);
        if extended {
            out.put_u64(self.offset);
            out.put_u64(self.len.into());
        } else {
            out.put_u32(self.len);
        }
    }
}

/// Reads numbers and strings from the front of a slice; `None` where it is too short.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string after its length: UTF-8, without NUL, no longer than the protocol allows.
    pub(crate) fn string(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.u32()?).ok().filter(|len| *len <= STRING_BYTES_MAX)?;
        let (raw, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(raw).ok().filter(|text| !text.contains('\0'))
    }

    /// What follows the magic of a request.
    fn request(&mut self, framing: Framing) -> Option<RequestHeader> {
        Some(RequestHeader {
            flags: self.u16()?,
            command: self.u16()?,
            cookie: self.u64()?,
            offset: self.u64()?,
            len: if framing == Framing::Extended { self.u64()? } else { self.u32()?.into() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_framing() -> impl Strategy<Value = Framing> {
        prop_oneof![Just(Framing::Simple), Just(Framing::Structured), Just(Framing::Extended)]
    }

    proptest! {
        #[test]
        fn prop_a_request_reads_as_it_was_written_and_only_when_it_is_whole(
            framing in any_framing(), flags: u16, command: u16, cookie: u64, offset: u64, len: u64, cut in 0_usize..32,
        ) {
            let len = if framing == Framing::Extended { len } else { len & 0xffff_ffff };
            let header = RequestHeader { flags, command, cookie, offset, len };
            let mut raw = Vec::new();
            header.encode(framing, &mut raw);
            prop_assert_eq!(raw.len(), framing.request_bytes());
            prop_assert_eq!(RequestHeader::decode(framing, &raw), Ok(Some(header)));
            if cut < raw.len() {
                prop_assert_eq!(RequestHeader::decode(framing, &raw[..cut]), Ok(None));
            }
        }

        #[test]
        fn prop_any_bytes_are_a_request_or_a_refusal(framing in any_framing(), raw: Vec<u8>) {
            let _ = RequestHeader::decode(framing, &raw);
        }

        #[test]
        fn prop_strings_end_within_their_bytes(raw: Vec<u8>) {
            let mut cursor = Cursor(&raw);
            while cursor.string().is_some() {}
        }
    }

    #[test]
    fn the_other_framing_is_refused() {
        let header = RequestHeader { flags: 0, command: command::FLUSH, cookie: 1, offset: 0, len: 0 };
        let mut raw = Vec::new();
        header.encode(Framing::Extended, &mut raw);
        let error = RequestHeader::decode(Framing::Structured, &raw).expect_err("its magic differs");
        assert_eq!(error.to_string(), "a request begins with 0x21e41c71");
    }

    #[test]
    fn strings_are_text_of_bounded_length() {
        let string = |text: &[u8]| {
            let raw = [&(text.len() as u32).to_be_bytes()[..], text].concat();
            Cursor(&raw).string().map(str::to_owned)
        };
        assert_eq!(string("disk \u{e9}".as_bytes()).as_deref(), Some("disk \u{e9}"));
        assert_eq!(string(&[b'a'; STRING_BYTES_MAX]).map(|text| text.len()), Some(STRING_BYTES_MAX));
        assert_eq!(string(&[b'a'; STRING_BYTES_MAX + 1]), None);
        assert_eq!((string(b"a\0b"), string(b"\xff")), (None, None));
    }
}
