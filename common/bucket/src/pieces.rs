//! A body made of parts that are sent one after the other without ever being copied together.

use bytes::{Bytes, BytesMut};

/// The parts of an object's body, in order. Cheap to clone: the bytes are shared.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    parts: Vec<Bytes>,
    len_bytes: u64,
}

impl Pieces {
    /// Length of the body in bytes.
    pub fn len(&self) -> u64 {
        self.len_bytes
    }

    /// True if the body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len_bytes == 0
    }

    /// The parts, in order; none is empty.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// The parts, in order; none is empty.
    pub fn into_parts(self) -> Vec<Bytes> {
        self.parts
    }

    /// The bytes from `offset`, at most `len_max` of them. Copies only where the range spans parts.
    pub fn slice(&self, offset: u64, len_max: u64) -> Bytes {
        let end = offset.saturating_add(len_max).min(self.len_bytes);
        let mut found: Vec<Bytes> = Vec::new();
        let mut at = 0;
        for part in &self.parts {
            let (from, to) = (offset.max(at), end.min(at + part.len() as u64));
            if from < to {
                found.push(part.slice((from - at) as usize..(to - at) as usize));
            }
            at += part.len() as u64;
            if at >= end {
                break;
            }
        }
        join(found)
    }
}

/// One run of bytes of several; copies only if there is more than one.
pub(crate) fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| all.extend_from_slice(part));
    all.freeze()
}

impl From<Vec<Bytes>> for Pieces {
    fn from(mut parts: Vec<Bytes>) -> Self {
        parts.retain(|part| !part.is_empty());
        let len_bytes = parts.iter().map(|part| part.len() as u64).sum();
        Self { parts, len_bytes }
    }
}

impl From<Bytes> for Pieces {
    fn from(body: Bytes) -> Self {
        vec![body].into()
    }
}

impl From<Vec<u8>> for Pieces {
    fn from(body: Vec<u8>) -> Self {
        Bytes::from(body).into()
    }
}

impl From<&'static [u8]> for Pieces {
    fn from(body: &'static [u8]) -> Self {
        Bytes::from_static(body).into()
    }
}

impl From<&'static str> for Pieces {
    fn from(body: &'static str) -> Self {
        body.as_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_equal_those_of_the_joined_body() {
        let pieces = Pieces::from(["abc", "", "d", "efgh"].map(Bytes::from).to_vec());
        let whole = b"abcdefgh";
        assert_eq!(pieces.len(), 8);
        for offset in 0..10 {
            for len in 0..10 {
                let want = &whole[offset.min(8)..(offset + len).min(8)];
                assert_eq!(pieces.slice(offset as u64, len as u64), want, "{offset}+{len}");
            }
        }
        assert_eq!(pieces.slice(7, u64::MAX), &b"h"[..]);
    }

    #[test]
    fn slice_within_one_part_shares_its_memory() {
        let part = Bytes::from(vec![7; 100]);
        let pieces = Pieces::from(vec![Bytes::from_static(b"head"), part.clone()]);
        assert_eq!(pieces.slice(4, 100).as_ptr(), part.as_ptr());
    }
}
