//! Writing a log, byte for byte as its recorders do.

use super::{ENTRY_BYTES, Entry, Flags, MAGIC, VERSION};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

/// The bytes of a log with these entries.
///
/// # Panics
/// If an entry is not in whole sectors, or a mark's name does not fit one: the caller made it.
pub fn encode(sector_bytes: u32, entries: &[Entry]) -> Vec<u8> {
    let mut out = super_sector(sector_bytes, entries.len() as u64);
    for entry in entries {
        encode_entry(&mut out, sector_bytes, entry);
    }
    out
}

/// The first sector of a log.
fn super_sector(sector_bytes: u32, entries: u64) -> Vec<u8> {
    let mut sector = Vec::with_capacity(sector_bytes as usize);
    sector.extend_from_slice(&MAGIC.to_le_bytes());
    sector.extend_from_slice(&VERSION.to_le_bytes());
    sector.extend_from_slice(&entries.to_le_bytes());
    sector.extend_from_slice(&sector_bytes.to_le_bytes());
    sector.resize(sector_bytes as usize, 0);
    sector
}

/// Appends one entry and its data.
///
/// # Panics
/// As [`encode`].
pub fn encode_entry(out: &mut Vec<u8>, sector_bytes: u32, entry: &Entry) {
    encode_head(out, sector_bytes, entry);
    if !entry.flags.has(Flags::DISCARD) {
        assert_eq!(entry.data.len() as u64, entry.len_bytes, "an entry's data is as long as it says");
        out.extend_from_slice(&entry.data);
    }
}

/// Appends the sector of an entry.
fn encode_head(out: &mut Vec<u8>, sector_bytes: u32, entry: &Entry) {
    let unit = u64::from(sector_bytes);
    let sectors = |bytes: u64| {
        assert!(bytes.is_multiple_of(unit), "{bytes} bytes are not whole sectors of {unit}");
        bytes / unit
    };
    let text = entry.mark.as_deref().unwrap_or_default().as_bytes();
    assert!(text.len() + ENTRY_BYTES <= unit as usize, "mark of {} bytes in a sector of {unit}", text.len());
    let start = out.len();
    let fields = [sectors(entry.offset_bytes), sectors(entry.len_bytes), entry.flags.bits(), text.len() as u64];
    fields.iter().for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
    out.extend_from_slice(text);
    out.resize(start + unit as usize, 0);
}

/// A run of an entry's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many zeros.
    Zeros(u64),
}

/// Writes a log into a file that may have holes, as the entries come.
#[derive(Debug)]
pub struct LogWriter {
    out: BufWriter<File>,
    sector_bytes: u32,
    entries: u64,
    len_bytes: u64,
}

impl LogWriter {
    /// Begins a log in an empty file.
    ///
    /// # Errors
    /// Those of the file.
    pub fn create(out: File, sector_bytes: u32) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 20, out);
        out.write_all(&super_sector(sector_bytes, 0))?;
        Ok(Self { out, sector_bytes, entries: 0, len_bytes: sector_bytes.into() })
    }

    /// Appends an entry and, as its data, `runs`. Zeros become holes of the file.
    ///
    /// # Errors
    /// Those of the file.
    ///
    /// # Panics
    /// As [`encode`].
    pub fn put<'a>(&mut self, entry: &Entry, runs: impl IntoIterator<Item = Run<'a>>) -> io::Result<()> {
        let mut head = Vec::with_capacity(self.sector_bytes as usize);
        encode_head(&mut head, self.sector_bytes, entry);
        self.out.write_all(&head)?;
        self.len_bytes += head.len() as u64;
        for run in runs {
            self.len_bytes += match run {
                Run::Bytes(bytes) => {
                    self.out.write_all(bytes)?;
                    bytes.len() as u64
                }
                Run::Zeros(len) => {
                    self.out.seek_relative(i64::try_from(len).map_err(io::Error::other)?)?;
                    len
                }
            };
        }
        self.entries += 1;
        Ok(())
    }

    /// Completes the log: its first sector tells how many entries there are. Returns the file, and that number.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(mut self) -> io::Result<(File, u64)> {
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&super_sector(self.sector_bytes, self.entries))?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        // The last entry may end in a hole.
        file.set_len(self.len_bytes)?;
        Ok((file, self.entries))
    }
}
