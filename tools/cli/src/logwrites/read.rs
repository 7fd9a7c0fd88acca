//! Reading a log as a stream: no seeking, one entry in memory at a time.

use super::{
    DISK_BYTES_MAX, ENTRY_BYTES, ENTRY_DATA_BYTES_MAX, Entry, Flags, MAGIC, SECTOR_BYTES_MAX, SECTOR_BYTES_MIN, VERSION,
};
use bytes::Bytes;
use std::io::{self, Read};
use tidemark_format::ErrorKind;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The input failed.
    #[error("read {what} of the log")]
    Io {
        /// Which part.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not this format.
    #[error("not a write log: it begins with {found:#018x}, not {MAGIC:#018x}")]
    Magic {
        /// The first number.
        found: u64,
    },
    /// A format to come.
    #[error("write log of version {found}, only {VERSION} is known")]
    Version {
        /// Its version.
        found: u64,
    },
    /// No disk has such sectors.
    #[error("log sector of {found} bytes, must be a power of two in {SECTOR_BYTES_MIN}..={SECTOR_BYTES_MAX}")]
    SectorBytes {
        /// Its sector in bytes.
        found: u32,
    },
    /// The log promises more than it holds.
    #[error("log ends in entry {entry} of {entries}: wanted {wanted} bytes, got {got}")]
    Truncated {
        /// The entry, counted from 0.
        entry: u64,
        /// How many there should be.
        entries: u64,
        /// Bytes that should follow.
        wanted: u64,
        /// Bytes that do.
        got: u64,
    },
    /// What follows such an entry is unknown.
    #[error("entry {entry} has flags {bits:#x}, only {:#x} are known", Flags::KNOWN)]
    Flags {
        /// The entry, counted from 0.
        entry: u64,
        /// Its flags.
        bits: u64,
    },
    /// Neither a write nor anything else.
    #[error("entry {entry} says nothing: no length, no flag (a hole in the log?)")]
    Blank {
        /// The entry, counted from 0.
        entry: u64,
    },
    /// Data that no request carries.
    #[error("entry {entry} has {found} bytes of data, at most {ENTRY_DATA_BYTES_MAX} are read")]
    TooLong {
        /// The entry, counted from 0.
        entry: u64,
        /// Length of its data in bytes.
        found: u64,
    },
    /// Beyond any disk.
    #[error("entry {entry} covers {sectors} sectors from {sector}, a disk ends at {DISK_BYTES_MAX} bytes at most")]
    BeyondDisk {
        /// The entry, counted from 0.
        entry: u64,
        /// Its first sector.
        sector: u64,
        /// Its sectors.
        sectors: u64,
    },
    /// A mark's name must fit its sector.
    #[error("mark in entry {entry} has {found} bytes, at most {max} fit its sector")]
    MarkTooLong {
        /// The entry, counted from 0.
        entry: u64,
        /// Length of the name in bytes.
        found: u64,
        /// What fits.
        max: u64,
    },
}

impl LogError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Retry,
            _ => ErrorKind::FixRequest,
        }
    }

    /// What a person can do about it, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Magic { .. } => Some("for a plain disk image use `--format raw`"),
            Self::Truncated { .. } => Some("copy the log again, after its recorder has stopped"),
            _ => None,
        }
    }
}

/// A log, entry by entry.
#[derive(Debug)]
pub struct LogReader<R> {
    input: R,
    entries: u64,
    read: u64,
    sector: Vec<u8>,
    first: blake3::Hasher,
}

impl<R: Read> LogReader<R> {
    /// Reads the super sector.
    ///
    /// # Errors
    /// `Magic`, `Version`, `SectorBytes`, `Truncated` or `Io`.
    pub fn open(mut input: R) -> Result<Self, LogError> {
        let io = |source| LogError::Io { what: "the super sector".into(), source };
        let mut sector = vec![0; SECTOR_BYTES_MIN as usize];
        let got = fill(&mut input, &mut sector).map_err(io)?;
        let magic = number(&sector, 0);
        if magic != MAGIC {
            return Err(LogError::Magic { found: magic });
        }
        if number(&sector, 8) != VERSION {
            return Err(LogError::Version { found: number(&sector, 8) });
        }
        let entries = number(&sector, 16);
        let sector_bytes = u32::from_le_bytes(sector[24..28].try_into().expect("four bytes"));
        if !sector_bytes.is_power_of_two() || !(SECTOR_BYTES_MIN..=SECTOR_BYTES_MAX).contains(&sector_bytes) {
            return Err(LogError::SectorBytes { found: sector_bytes });
        }
        sector.resize(sector_bytes as usize, 0);
        let got = got + fill(&mut input, &mut sector[SECTOR_BYTES_MIN as usize..]).map_err(io)?;
        if got < sector.len() {
            let (wanted, got) = (sector.len() as u64, got as u64);
            return Err(LogError::Truncated { entry: 0, entries, wanted, got });
        }
        Ok(Self { input, entries, read: 0, sector, first: blake3::Hasher::new() })
    }

    /// How many entries the log claims to have.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// How many entries were read.
    pub fn entries_read(&self) -> u64 {
        self.read
    }

    /// The log's sector in bytes.
    pub fn sector_bytes(&self) -> u32 {
        self.sector.len() as u32
    }

    /// BLAKE3 of the first entry and its data, once that was read: tells logs apart that begin differently.
    pub fn first_entry_hash(&self) -> [u8; 32] {
        *self.first.finalize().as_bytes()
    }

    /// The next entry with its data, or `None` after the last.
    ///
    /// # Errors
    /// Those of [`LogError`]; nothing sensible follows one.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LogError> {
        let Some(mut entry) = self.next_head()? else { return Ok(None) };
        let mut data = Vec::new();
        self.data(&entry, |chunk| data.extend_from_slice(chunk))?;
        entry.data = Bytes::from(data);
        self.read += 1;
        Ok(Some(entry))
    }

    /// Reads the rest of the log for what it says about itself, keeping none of its data.
    ///
    /// # Errors
    /// As [`Self::next_entry`]: a log that was surveyed can be read to its end.
    pub fn survey(mut self) -> Result<Survey, LogError> {
        let mut survey = Survey { sector_bytes: self.sector_bytes(), ..Survey::default() };
        while let Some(entry) = self.next_head()? {
            self.data(&entry, |_| ())?;
            survey.count(&entry);
            self.read += 1;
        }
        survey.first_entry_hash = self.first_entry_hash();
        Ok(survey)
    }

    /// The fields of the next entry.
    fn next_head(&mut self) -> Result<Option<Entry>, LogError> {
        if self.read == self.entries {
            return Ok(None);
        }
        let entry = self.read;
        let got = fill(&mut self.input, &mut self.sector).map_err(|source| self.io(source))?;
        if got < self.sector.len() {
            return Err(self.truncated(self.sector.len() as u64, got as u64));
        }
        if self.read == 0 {
            self.first.update(&self.sector);
        }
        let [sector, sectors, bits, text_len] = [0, 8, 16, 24].map(|at| number(&self.sector, at));
        let flags = Flags::from_bits(bits).ok_or(LogError::Flags { entry, bits })?;
        if sectors == 0 && flags == Flags::NONE {
            return Err(LogError::Blank { entry });
        }
        let unit = self.sector.len() as u64;
        let bytes = |sectors: u64| sectors.checked_mul(unit).filter(|&bytes| bytes <= DISK_BYTES_MAX);
        let (Some(offset_bytes), Some(len_bytes)) = (bytes(sector), bytes(sectors)) else {
            return Err(LogError::BeyondDisk { entry, sector, sectors });
        };
        if len_bytes > DISK_BYTES_MAX - offset_bytes {
            return Err(LogError::BeyondDisk { entry, sector, sectors });
        }
        let mark = if flags.has(Flags::MARK) {
            let max = (self.sector.len() - ENTRY_BYTES) as u64;
            if text_len > max {
                return Err(LogError::MarkTooLong { entry, found: text_len, max });
            }
            let text = &self.sector[ENTRY_BYTES..][..text_len as usize];
            Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
        } else {
            None
        };
        let entry = Entry { flags, offset_bytes, len_bytes, mark, data: Bytes::new() };
        if data_len(&entry) > ENTRY_DATA_BYTES_MAX {
            return Err(LogError::TooLong { entry: self.read, found: data_len(&entry) });
        }
        Ok(Some(entry))
    }

    /// Hands an entry's data to `sink` in chunks, as they arrive.
    fn data(&mut self, entry: &Entry, mut sink: impl FnMut(&[u8])) -> Result<(), LogError> {
        const CHUNK_BYTES: u64 = 64 << 10;
        let wanted = data_len(entry);
        let mut chunk = vec![0; wanted.min(CHUNK_BYTES) as usize];
        let mut got = 0;
        while got < wanted {
            let part = &mut chunk[..(wanted - got).min(CHUNK_BYTES) as usize];
            let read = fill(&mut self.input, part).map_err(|source| self.io(source))?;
            sink(&part[..read]);
            if self.read == 0 {
                self.first.update(&part[..read]);
            }
            got += read as u64;
            if read < part.len() {
                return Err(self.truncated(wanted, got));
            }
        }
        Ok(())
    }

    fn io(&self, source: io::Error) -> LogError {
        LogError::Io { what: format!("entry {} of {}", self.read, self.entries), source }
    }

    fn truncated(&self, wanted: u64, got: u64) -> LogError {
        LogError::Truncated { entry: self.read, entries: self.entries, wanted, got }
    }
}

impl<R: Read> Iterator for LogReader<R> {
    type Item = Result<Entry, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}

/// What a log says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The log's sector in bytes.
    pub sector_bytes: u32,
    /// Entries.
    pub entries: u64,
    /// Entries with data.
    pub writes: u64,
    /// Entries that discard.
    pub discards: u64,
    /// Entries that flush.
    pub flushes: u64,
    /// Entries that mark a position.
    pub marks: u64,
    /// Data in all entries, in bytes.
    pub data_bytes: u64,
    /// One past the last byte of the disk that any entry touches.
    pub end_bytes: u64,
    /// See [`LogReader::first_entry_hash`].
    pub first_entry_hash: [u8; 32],
}

impl Survey {
    fn count(&mut self, entry: &Entry) {
        let data = data_len(entry);
        self.entries += 1;
        self.writes += u64::from(data > 0);
        self.discards += u64::from(entry.flags.has(Flags::DISCARD));
        self.flushes += u64::from(entry.flags.has(Flags::FLUSH));
        self.marks += u64::from(entry.mark.is_some());
        self.data_bytes = self.data_bytes.saturating_add(data);
        self.end_bytes = self.end_bytes.max(entry.end_bytes());
    }
}

/// Bytes that follow an entry's sector.
fn data_len(entry: &Entry) -> u64 {
    if entry.flags.has(Flags::DISCARD) { 0 } else { entry.len_bytes }
}

fn number(sector: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(sector[at..at + 8].try_into().expect("eight bytes"))
}

/// Reads until `buffer` is full or the input ends; how many bytes arrived.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match input.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
