//! Takes objects apart and puts them together again with right hashes and lengths, whatever they then say.
//!
//! Random damage stops at the first hash. Damage that was forged reaches the checks behind it: vectors, property tests
//! and fuzz targets all need that. Knows the layout of SPEC.md by itself, so that it also checks the codec's.

#![allow(dead_code)]

/// Bytes of the segment header.
pub const HEADER_BYTES: usize = 512;
const TABLE_AT: usize = 248;
const TABLE_SLOTS: usize = 7;
const META_HASH_AT: usize = 416;
const HEADER_HASH_AT: usize = 448;

/// Every field of the segment header in front of its hash: name in SPEC.md, offset, length in bytes.
pub const HEADER_FIELDS: &[(&str, usize, usize)] = &[
    ("magic", 0, 8),
    ("major", 8, 2),
    ("minor", 10, 2),
    ("kind", 12, 1),
    ("role", 13, 1),
    ("granularity", 14, 1),
    ("hash_algorithm", 15, 1),
    ("features_read", 16, 8),
    ("features_write", 24, 8),
    ("features_gc", 32, 8),
    ("features_compat", 40, 8),
    ("domain", 48, 16),
    ("epoch", 64, 8),
    ("seq", 72, 8),
    ("total_len", 80, 8),
    ("first_lsn", 88, 8),
    ("last_lsn", 96, 8),
    ("first_time_ns", 104, 8),
    ("last_time_ns", 112, 8),
    ("acked_through", 120, 8),
    ("row_count", 128, 8),
    ("head_len", 136, 8),
    ("data_len", 144, 8),
    ("stream_blocks", 152, 8),
    ("frame_count", 160, 4),
    ("frame_plain_max", 164, 4),
    ("tick_ns", 168, 4),
    ("key_generation", 172, 4),
    ("aead", 176, 4),
    ("reserved", 180, 4),
    ("salt", 184, 32),
    ("prev_header_hash", 216, 32),
    ("section_table", TABLE_AT, TABLE_SLOTS * 24),
    ("meta_hash", META_HASH_AT, 32),
];

/// Offset and length of a header field.
pub fn field(name: &str) -> (usize, usize) {
    let (_, at, len) = HEADER_FIELDS.iter().find(|field| field.0 == name).expect("a field of the table above");
    (*at, *len)
}

/// A section of a segment.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its number in the section table.
    pub id: u16,
    /// 1 if it is critical.
    pub flags: u16,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A segment in pieces.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The header; lengths, section table and hashes are made anew by [`Parts::build`].
    pub header: [u8; HEADER_BYTES],
    /// The sections in order; at most seven are kept.
    pub sections: Vec<Section>,
    /// The stored frames.
    pub data: Vec<u8>,
}

impl Parts {
    /// Takes any bytes apart, as far as they go.
    pub fn split(bytes: &[u8]) -> Self {
        let mut header = [0; HEADER_BYTES];
        let have = bytes.len().min(HEADER_BYTES);
        header[..have].copy_from_slice(&bytes[..have]);
        let mut rest = &bytes[have..];
        let mut sections = Vec::new();
        for slot in header[TABLE_AT..META_HASH_AT].chunks_exact(24) {
            let number = |at: usize, len: usize| little_endian(&slot[at..at + len]);
            if number(0, 2) == 0 {
                break;
            }
            let (taken, left) = rest.split_at((number(16, 8) as usize).min(rest.len()));
            sections.push(Section { id: number(0, 2) as u16, flags: number(2, 2) as u16, bytes: taken.to_vec() });
            rest = left;
        }
        Self { header, sections, data: rest.to_vec() }
    }

    /// A number of the header.
    pub fn get(&self, name: &str) -> u64 {
        let (at, len) = field(name);
        little_endian(&self.header[at..at + len])
    }

    /// Changes a number of the header.
    pub fn set(&mut self, name: &str, value: u64) -> &mut Self {
        let (at, len) = field(name);
        self.header[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        self
    }

    /// The bytes of a section, made if it is not there.
    pub fn section(&mut self, id: u16) -> &mut Vec<u8> {
        let at = match self.sections.iter().position(|s| s.id >= id) {
            Some(at) if self.sections[at].id == id => at,
            other => {
                let at = other.unwrap_or(self.sections.len());
                self.sections.insert(at, Section { id, flags: 1, bytes: Vec::new() });
                at
            }
        };
        &mut self.sections[at].bytes
    }

    /// The object: contiguous sections, right lengths, right hashes; all else as it stands in the pieces.
    pub fn build(&self) -> Vec<u8> {
        let mut to = self.clone();
        to.header[TABLE_AT..META_HASH_AT].fill(0);
        let mut meta = Vec::new();
        for (slot, section) in self.sections.iter().take(TABLE_SLOTS).enumerate() {
            let at = TABLE_AT + slot * 24;
            to.header[at..at + 2].copy_from_slice(&section.id.to_le_bytes());
            to.header[at + 2..at + 4].copy_from_slice(&section.flags.to_le_bytes());
            to.header[at + 8..at + 16].copy_from_slice(&((HEADER_BYTES + meta.len()) as u64).to_le_bytes());
            to.header[at + 16..at + 24].copy_from_slice(&(section.bytes.len() as u64).to_le_bytes());
            meta.extend_from_slice(&section.bytes);
        }
        let head_len = (HEADER_BYTES + meta.len()) as u64;
        let data_len = self.data.len() as u64;
        to.set("head_len", head_len).set("data_len", data_len).set("total_len", head_len + data_len);
        let mut out = to.header.to_vec();
        out.extend(meta);
        out.extend_from_slice(&self.data);
        rehash_segment(&mut out);
        out
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    let mut wide = [0; 8];
    let n = bytes.len().min(8);
    wide[..n].copy_from_slice(&bytes[..n]);
    u64::from_le_bytes(wide)
}

/// Makes both hashes of a segment right again, as far as it has a header.
pub fn rehash_segment(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let (at, len) = field("head_len");
    let head_len = little_endian(&bytes[at..at + len]).clamp(HEADER_BYTES as u64, bytes.len() as u64) as usize;
    let meta_hash = *blake3::hash(&bytes[HEADER_BYTES..head_len]).as_bytes();
    bytes[META_HASH_AT..HEADER_HASH_AT].copy_from_slice(&meta_hash);
    rehash_header(bytes);
}

/// Makes the header hash alone right again.
pub fn rehash_header(bytes: &mut [u8]) {
    let header_hash = *blake3::hash(&bytes[..HEADER_HASH_AT]).as_bytes();
    bytes[HEADER_HASH_AT..HEADER_HASH_AT + 32].copy_from_slice(&header_hash);
}

/// A claim or hint with a kind, a version and a body: magic, right length, right hash.
pub fn record(kind: u16, major: u16, body: &[u8]) -> Vec<u8> {
    let mut out = b"\x89TLR\r\n\x1a\n".to_vec();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&major.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let hash = *blake3::Hasher::new().update(&out).update(body).finalize().as_bytes();
    out.extend_from_slice(&hash);
    out.extend_from_slice(body);
    out
}

/// A genesis object of these lines (everything in front of the check line), with a right check.
pub fn genesis(lines: &str) -> Vec<u8> {
    let check = blake3::hash(lines.as_bytes()).to_hex();
    format!("{lines}  \"check\": \"blake3:{check}\"\n}}\n").into_bytes()
}

/// A FRAMEDIR entry.
pub fn frame_entry(stored_len: u32, plain_len: u32, codec: [u8; 4], hash: [u8; 16]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&stored_len.to_le_bytes());
    out.extend_from_slice(&plain_len.to_le_bytes());
    out.extend_from_slice(&codec);
    out.extend_from_slice(&hash);
    out
}
