//! Frames: up to 64 KiB of plaintext, compres, hashed as stored (SPEC.md §frames).

use crate::cursor::Cursor;
use crate::error::{FormatError, Result};
use crate::ids::{BLOCK_BYTES, Extent};
use std::ops::Range;

/// Plaintext bytes in a frame at most (SPEC.md §frames).
pub const FRAME_PLAIN_BYTES_MAX: u32 = 64 << 10;
/// Bytes of one FRAMEDIR entry.
pub(crate) const ENTRY_BYTES: usize = 28;

/// How a frame's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameCodec {
    /// As they are.
    Raw,
    /// One zstd frame (RFC 8878) without dictionary.
    Zstd,
}

impl FrameCodec {
    const fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }
    /// One word for tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Zstd => "zstd",
        }
    }
}

/// One row of FRAMEDIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameEntry {
    /// Bytes in the object.
    pub stored_len: u32,
    /// Bytes of plaintext: a multiple of the block size, at most [`FRAME_PLAIN_BYTES_MAX`].
    pub plain_len: u32,
    /// How they are stored.
    pub codec: FrameCodec,
    /// First 16 bytes of the BLAKE3 of the stored bytes.
    pub hash: [u8; 16],
}

/// A frame ready to be stored.
#[derive(Clone, Debug)]
pub struct StoredFrame {
    /// The stored bytes.
    pub bytes: Vec<u8>,
    /// Its row in FRAMEDIR.
    pub entry: FrameEntry,
}

/// The first 16 bytes of BLAKE3, which is how frames are named.
pub fn frame_hash(stored: &[u8]) -> [u8; 16] {
    blake3::hash(stored).as_bytes()[..16].try_into().expect("BLAKE3 has 32 bytes")
}

/// A zstd context and buffers that are reu from frame to frame. One for each compressing thread.
pub struct FrameCompressor {
    compressor: zstd::bulk::Compressor<'static>,
    decoder: FrameDecoder,
    check: Vec<u8>,
}

impl FrameCompressor {
    /// A compressor of zstd `level` (1 to 19; 1 is the default of the format's writers).
    ///
    /// # Errors
    /// `Draft` if zstd refuses the level or cannot allocate its context.
    pub fn new(level: i32) -> Result<Self> {
        let refu = |e: std::io::Error| FormatError::Draft { why: format!("zstd level {level}: {e}") };
        let compressor = zstd::bulk::Compressor::new(level).map_err(refu)?;
        Ok(Self { compressor, decoder: FrameDecoder::new()?, check: Vec::new() })
    }

    /// Compresses one frame of plaintext and proves that it decompresses to the same bytes: compressors have lied
    /// (docs/lessons.md L15). Stored raw where zstd does not shrink it.
    ///
    /// # Errors
    /// `Draft` if the length is not 1 to 128 whole blocks, `CompressorLied` if decompression gives other bytes.
    pub fn compress(&mut self, plain: &[u8]) -> Result<StoredFrame> {
        let plain_len = check_plain_len(plain.len() as u64)
            .ok_or_else(|| FormatError::Draft { why: format!("a frame cannot hold {} bytes", plain.len()) })?;
        let mut bytes = Vec::with_capacity(zstd::zstd_safe::compress_bound(plain.len()));
        let shrunk = matches!(self.compressor.compress_to_buffer(plain, &mut bytes), Ok(n) if n < plain.len());
        if shrunk {
            self.check_compressed(plain, plain_len, &bytes)?;
        } else {
            bytes.clear();
            bytes.extend_from_slice(plain);
        }
        bytes.shrink_to_fit();
        let codec = if shrunk { FrameCodec::Zstd } else { FrameCodec::Raw };
        let entry = FrameEntry { stored_len: bytes.len() as u32, plain_len, codec, hash: frame_hash(&bytes) };
        Ok(StoredFrame { bytes, entry })
    }

    /// Whether these bytes, stored by this compressor, are the frame of `entry`. True is proof; false is none, for another compressor
    /// makes other bytes of them.
    pub fn would_store(&mut self, plain: &[u8], entry: &FrameEntry) -> bool {
        if plain.len() != entry.plain_len as usize {
            return false;
        }
        if entry.codec == FrameCodec::Raw {
            return frame_hash(plain) == entry.hash;
        }
        self.check.clear();
        self.check.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        let stored = self.compressor.compress_to_buffer(plain, &mut self.check);
        stored.is_ok_and(|len| len == entry.stored_len as usize) && frame_hash(&self.check) == entry.hash
    }

    /// Errs if `compressed` does not decompress to `plain`.
    fn check_compressed(&mut self, plain: &[u8], plain_len: u32, compressed: &[u8]) -> Result<()> {
        let lied = FormatError::CompressorLied { plain_len: plain_len.into() };
        //= SPEC.md#frames
        //# FR-3
        match self.decoder.unzstd(compressed, plain_len, &mut self.check) {
            Ok(()) if self.check == plain => Ok(()),
            _ => Err(lied),
        }
    }
}

/// Compresses one frame with a context of its own; see [`FrameCompressor`] for many.
///
/// # Errors
/// As [`FrameCompressor::compress`].
pub fn compress_frame(plain: &[u8], level: i32) -> Result<StoredFrame> {
    FrameCompressor::new(level)?.compress(plain)
}

/// A zstd context that is reu from frame to frame. One for each reading thread.
pub struct FrameDecoder {
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl FrameDecoder {
    /// A decoder.
    ///
    /// # Errors
    /// `Draft` if zstd cannot allocate its context.
    pub fn new() -> Result<Self> {
        let decompressor =
            zstd::bulk::Decompressor::new().map_err(|e| FormatError::Draft { why: format!("zstd context: {e}") })?;
        Ok(Self { decompressor })
    }

    /// Verifies the stored bytes of one frame and replaces `plain` with its plaintext.
    ///
    /// Allocates at most [`FRAME_PLAIN_BYTES_MAX`] bytes, whatever the input.
    ///
    /// # Errors
    /// `TooShort` or `TrailingBytes` for another length than the entry's, `FrameHash` for altered bytes,
    /// `FrameContents` if they do not decompress to exactly `plain_len` bytes. `plain` is empty then.
    pub fn decode(&mut self, entry: &FrameEntry, stored: &[u8], plain: &mut Vec<u8>) -> Result<()> {
        plain.clear();
        check_stored(entry, stored)?;
        match entry.codec {
            FrameCodec::Raw => {
                plain.extend_from_slice(stored);
                Ok(())
            }
            FrameCodec::Zstd => self.unzstd(stored, entry.plain_len, plain),
        }
    }

    fn unzstd(&mut self, stored: &[u8], plain_len: u32, plain: &mut Vec<u8>) -> Result<()> {
        plain.clear();
        plain.reserve_exact(plain_len as usize);
        let bad = |why: String| FormatError::FrameContents { plain_len, why };
        // zstd itself would go on through any number of frames, others stop behind the first: only one is allowed.
        if !matches!(zstd::zstd_safe::find_frame_compressed_size(stored), Ok(n) if n == stored.len()) {
            return Err(bad("it is not exactly one zstd frame".to_owned()));
        }
        // The vector's spare capacity may exceed what was asked for, so the length is checked afterwards.
        //= SPEC.md#frames
        //# FR-5
        let result = self.decompressor.decompress_to_buffer(stored, plain);
        match result {
            Ok(n) if n == plain_len as usize => Ok(()),
            Ok(n) => {
                plain.clear();
                Err(bad(format!("it holds {n}")))
            }
            Err(e) => {
                plain.clear();
                Err(bad(e.to_string()))
            }
        }
    }
}

/// Verifies and decodes one frame with a context of its own; see [`FrameDecoder`] for many.
///
/// # Errors
/// As [`FrameDecoder::decode`].
pub fn decode_frame(entry: &FrameEntry, stored: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    FrameDecoder::new()?.decode(entry, stored, &mut plain)?;
    Ok(plain)
}

/// Verifies the stored bytes of one frame without decompressing them.
///
/// # Errors
/// `TooShort` or `TrailingBytes` for another length than the entry's, `FrameHash` for altered bytes.
pub fn check_stored(entry: &FrameEntry, stored: &[u8]) -> Result<()> {
    let (need, have) = (u64::from(entry.stored_len), stored.len() as u64);
    if have < need {
        return Err(FormatError::TooShort { what: "frame", need, have });
    }
    if have > need {
        return Err(FormatError::TrailingBytes { what: "frame", extra: have - need });
    }
    let computed = frame_hash(stored);
    //= SPEC.md#frames
    //# FR-4
    if computed != entry.hash {
        return Err(FormatError::frame_hash(&entry.hash, &computed));
    }
    Ok(())
}

/// `len` as a frame's plaintext length, if it may be one.
fn check_plain_len(len: u64) -> Option<u32> {
    (len > 0 && len <= u64::from(FRAME_PLAIN_BYTES_MAX) && len.is_multiple_of(BLOCK_BYTES)).then_some(len as u32)
}

/// A decoded FRAMEDIR: the frames of a segment in order, with their places.
#[derive(Clone, Debug)]
pub struct FrameDir {
    entries: Box<[FrameEntry]>,
    /// For each frame, where it begins behind `data_offset`, in bytes.
    stored_at: Box<[u32]>,
    /// For each frame, where its plaintext begins in the stream, in blocks.
    stream_at: Box<[u32]>,
    data_offset: u64,
}

pub(crate) fn put_frames(out: &mut Vec<u8>, frames: &[FrameEntry]) {
    for frame in frames {
        out.extend_from_slice(&frame.stored_len.to_le_bytes());
        out.extend_from_slice(&frame.plain_len.to_le_bytes());
        out.extend_from_slice(&[frame.codec.code(), 0, 0, 0]);
        out.extend_from_slice(&frame.hash);
    }
}

/// Blocks that lie in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePart {
    /// The blocks.
    pub extent: Extent,
    /// Number of the frame.
    pub frame: u32,
    from: usize,
}

impl FramePart {
    /// Where their bytes are in the frame's plaintext.
    pub fn plain_range(&self) -> Range<usize> {
        self.from..self.from + self.extent.byte_len() as usize
    }
}

impl FrameDir {
    /// Checks and keeps a FRAMEDIR section of `count` frames, `data_len` stored bytes and `stream_blocks` of plaintext.
    ///
    /// # Errors
    /// `TooShort` or `TrailingBytes` for another length, `Frame` for a forbidden entry, `Mismatch` for other totals.
    pub(crate) fn decode(
        section: &[u8],
        count: u32,
        data_offset: u64,
        data_len: u64,
        stream_blocks: u64,
    ) -> Result<Self> {
        let mut cursor = Cursor::new("frame directory", section);
        let need = u64::from(count) * ENTRY_BYTES as u64;
        if (section.len() as u64) < need {
            return Err(FormatError::TooShort { what: "frame directory", need, have: section.len() as u64 });
        }
        let n = count as usize;
        let (mut entries, mut stored_at, mut stream_at) =
            (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
        let (mut stored, mut stream) = (0u64, 0u64);
        for i in 0..u64::from(count) {
            let bad = |why| FormatError::Frame { frame: i, why };
            let (stored_len, plain_len) = (cursor.u32()?, cursor.u32()?);
            let codec = match cursor.array::<4>()? {
                [0, 0, 0, 0] => FrameCodec::Raw,
                [1, 0, 0, 0] => FrameCodec::Zstd,
                _ => return Err(bad("unknown codec, or reserved bytes are not zero")),
            };
            let hash = cursor.array()?;
            if check_plain_len(plain_len.into()).is_none() {
                return Err(bad("plaintext length is not 1 to 128 whole blocks"));
            }
            match codec {
                //= SPEC.md#frames
                //# FR-2
                FrameCodec::Raw if stored_len != plain_len => return Err(bad("raw frame of two lengths")),
                FrameCodec::Zstd if stored_len == 0 || stored_len >= plain_len => {
                    return Err(bad("compres frame is not smaller than its plaintext"));
                }
                _ => {}
            }
            entries.push(FrameEntry { stored_len, plain_len, codec, hash });
            stored_at.push(u32::try_from(stored).map_err(|_| bad("data exceeds 4 GiB"))?);
            stream_at.push(u32::try_from(stream).map_err(|_| bad("stream exceeds 2^32 blocks"))?);
            stored += u64::from(stored_len);
            stream += u64::from(plain_len) / BLOCK_BYTES;
        }
        cursor.finish()?;
        //= SPEC.md#frames
        //# FR-1
        if stored != data_len {
            return Err(FormatError::Mismatch {
                what: "stored bytes of frames and data_len",
                left: stored,
                right: data_len,
            });
        }
        if stream != stream_blocks {
            let what = "plaintext blocks of frames and stream_blocks";
            return Err(FormatError::Mismatch { what, left: stream, right: stream_blocks });
        }
        Ok(Self { entries: entries.into(), stored_at: stored_at.into(), stream_at: stream_at.into(), data_offset })
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if the segment carries no data.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Frame `i`, if there is one.
    pub fn entry(&self, i: usize) -> Option<&FrameEntry> {
        self.entries.get(i)
    }

    /// The frame that holds a byte of the plaintext stream, and the byte's offset in that frame's plaintext.
    pub fn locate(&self, stream_byte: u64) -> Option<(usize, u32)> {
        let block = stream_byte / BLOCK_BYTES;
        let i = self.stream_at.partition_point(|&at| u64::from(at) <= block).checked_sub(1)?;
        let offset = u32::try_from(stream_byte - u64::from(self.stream_at[i]) * BLOCK_BYTES).ok()?;
        (offset < self.entries[i].plain_len).then_some((i, offset))
    }

    /// Cuts blocks that lie from `stream_block` of the plaintext stream on at the edges of their frames. Ends early where no frame
    /// holds them, which decoding rules out.
    pub fn cut(&self, extent: Extent, stream_block: u64) -> impl Iterator<Item = FramePart> + '_ {
        let mut done = 0;
        std::iter::from_fn(move || {
            if done == extent.len {
                return None;
            }
            let (frame, from) = self.locate((stream_block + done) * BLOCK_BYTES)?;
            let left = (u64::from(self.entries[frame].plain_len) - u64::from(from)) / BLOCK_BYTES;
            let part = Extent::new(extent.start + done, left.min(extent.len - done));
            done += part.len;
            Some(FramePart { extent: part, frame: frame as u32, from: from as usize })
        })
    }

    /// Where frame `i` begins in the plaintext stream, in bytes.
    pub fn stream_start(&self, i: usize) -> Option<u64> {
        Some(u64::from(*self.stream_at.get(i)?) * BLOCK_BYTES)
    }

    /// The bytes of frame `i` in the object.
    pub fn object_range(&self, i: usize) -> Option<Range<u64>> {
        let start = self.data_offset + u64::from(*self.stored_at.get(i)?);
        Some(start..start + u64::from(self.entries[i].stored_len))
    }

    /// Bytes held in memory.
    pub fn memory_bytes(&self) -> usize {
        self.entries.len() * (size_of::<FrameEntry>() + 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_shrink_where_they_can_and_read_back() {
        let text: Vec<u8> = b"tidemark ".iter().copied().cycle().take(65_536).collect();
        let noise: Vec<u8> =
            (0..4096u32).flat_map(|i| blake3::hash(&i.to_le_bytes()).as_bytes()[..1].to_vec()).collect();
        for (plain, codec) in [(text, FrameCodec::Zstd), (noise, FrameCodec::Raw)] {
            let stored = compress_frame(&plain, 1).unwrap();
            assert_eq!(stored.entry.codec, codec);
            assert_eq!(decode_frame(&stored.entry, &stored.bytes).unwrap(), plain);
        }
    }

    #[test]
    fn frames_of_other_lengths_are_not_made() {
        for len in [0, 511, 65_536 + 512] {
            assert_eq!(compress_frame(&vec![0; len], 1).unwrap_err().name(), "Draft");
        }
    }

    //= SPEC.md#frames
    //# FR-3
    #[test]
    fn a_compressor_that_lies_is_caught_before_its_bytes_are_stored() {
        let mut compressor = FrameCompressor::new(1).unwrap();
        let (plain, other) = ([7; 4096], [8; 4096]);
        let of_other = compress_frame(&other, 1).unwrap().bytes;
        assert_eq!(compressor.check_compressed(&other, 4096, &of_other), Ok(()));
        for lie in [&of_other[..], &of_other[..of_other.len() - 1], b"not zstd"] {
            assert_eq!(compressor.check_compressed(&plain, 4096, lie).unwrap_err().name(), "CompressorLied");
        }
    }

    #[test]
    fn one_flipped_bit_is_found_by_the_hash() {
        let mut stored = compress_frame(&[7; 4096], 1).unwrap();
        stored.bytes[3] ^= 1;
        assert_eq!(decode_frame(&stored.entry, &stored.bytes).unwrap_err().name(), "FrameHash");
    }

    #[test]
    fn a_frame_that_inflates_beyond_its_promise_is_refu() {
        let mut stored = compress_frame(&[0; 65_536], 1).unwrap();
        stored.entry.plain_len = 512;
        assert_eq!(decode_frame(&stored.entry, &stored.bytes).unwrap_err().name(), "FrameContents");
    }
}
