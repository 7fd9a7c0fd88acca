//! Memory as O_DIRECT wants it: aligned to a page, without a line of unsafe code.

use tidemark_format::logstore::PAGE_BYTES;

/// Bytes whose address is a multiple of [`PAGE_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct AlignedBuffer {
    /// A page longer than asked for, so that an aligned part of the wanted length is in it.
    room: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    /// The first `len` bytes, with whatever they held before.
    pub(crate) fn bytes(&mut self, len: usize) -> &mut [u8] {
        if self.room.len() < self.start + len || self.room.is_empty() {
            self.room = vec![0; len + PAGE_BYTES as usize];
            self.start = self.room.as_ptr().align_offset(PAGE_BYTES as usize);
        }
        &mut self.room[self.start..self.start + len]
    }

    /// Gives memory beyond `len` bytes back.
    pub(crate) fn shrink_to(&mut self, len: usize) {
        if self.room.len() > len + PAGE_BYTES as usize {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_whatever_their_length() {
        let mut buffer = AlignedBuffer::default();
        for len in [4096, 8192, 512, 1 << 20, 4096] {
            let bytes = buffer.bytes(len);
            assert_eq!((bytes.len(), bytes.as_ptr().align_offset(PAGE_BYTES as usize)), (len, 0));
        }
        buffer.shrink_to(4096);
        assert_eq!(buffer.bytes(8192).len(), 8192);
    }
}
