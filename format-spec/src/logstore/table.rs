//! The table: which domains there are, which extents are theirs, where their logs begin, what they have noted
//! (LOGSTORE.md §table). It is small, always written as a whole, and lies there in two copies.

use super::label::MAJOR;
use super::{
    BatchSeq, Geometry, Incarnation, LunExtent, LunId, META_NAME_BYTES_MAX, META_NAMES_MAX, PAGE_BYTES, pages_of,
};
use crate::cursor::Cursor;
use crate::error::{FormatError, Result};
use crate::ids::{DomainId, Lsn, TimeNs};

const MAGIC: [u8; 8] = *b"\x89TLT\r\n\x1a\n";
const WHAT: &str = "log store table";
/// Bytes in front of the first domain.
pub const TABLE_HEADER_BYTES: usize = 80;
/// Bytes of a domain without its lists.
pub(super) const DOMAIN_ENTRY_BYTES: usize = 120;
/// Bytes of a named value without its name and runs.
pub(super) const META_ENTRY_BYTES: usize = 40;
/// Bytes of a run.
pub(super) const RUN_BYTES: usize = 8;
/// Offset of the hash within the header.
const HASH_AT: usize = 48;

/// Everything that a LUN knows besides the logs themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The LUN that it belongs to.
    pub lun: LunId,
    /// Ascends with every change.
    pub generation: u64,
    /// In ascending order of their ids.
    pub domains: Vec<DomainEntry>,
}

/// A domain of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainEntry {
    /// The domain.
    pub domain: DomainId,
    /// The life of its log that is the current one.
    pub incarnation: Incarnation,
    /// Room that is kept for its log.
    pub min_bytes: u64,
    /// Room that its log may take at most.
    pub max_bytes: u64,
    /// First LSN that has not been trimmed.
    pub first_lsn: Lsn,
    /// Everything through this LSN was durable when the table was written.
    pub durable: Lsn,
    /// Where reading its log begins.
    pub head: Head,
    /// The extent of its named values.
    pub meta_extent: LunExtent,
    /// The extents of its log, in order.
    pub extents: Vec<LunExtent>,
    /// Its named values, in ascending order of their names.
    pub metas: Vec<MetaEntry>,
}

/// The first batch of a log that still matters, or the end of the log if none does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Page in the first extent of the log; behind its last page if the log goes on in the next one.
    pub page: u32,
    /// Chain value of the batch before, 0 if there was none.
    pub prev_crc: u32,
    /// The batch's number.
    pub seq: BatchSeq,
    /// The batch's first LSN.
    pub lsn: Lsn,
    /// Time of the LSN before, 0 if there was none.
    pub time: TimeNs,
}

/// A named value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaEntry {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub len: u32,
    /// BLAKE3 of its bytes.
    pub hash: [u8; 32],
    /// Its pages in the meta extent, in order.
    pub runs: Vec<Run>,
}

/// Pages of the meta extent in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First page.
    pub page: u32,
    /// Number of pages.
    pub pages: u32,
}

/// Bytes of a table, as its first page tells. Untrusted: check it against [`Geometry::table_bytes`].
///
/// # Errors
/// `TooShort`, `Magic` or `Major`.
pub fn table_len(page: &[u8]) -> Result<u64> {
    let mut from = Cursor::new(WHAT, page);
    if from.array()? != MAGIC {
        return Err(FormatError::Magic { what: WHAT });
    }
    let (major, _minor) = (from.u16()?, from.u16()?);
    if major != MAJOR {
        return Err(FormatError::Major { what: WHAT, found: major.into(), known: MAJOR.into() });
    }
    from.take(28)?;
    from.u64()
}

impl Table {
    /// The bytes, filled up with zeros to whole pages.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&MAJOR.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(self.domains.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.lun.bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.resize(TABLE_HEADER_BYTES, 0);
        self.domains.iter().for_each(|domain| domain.put(&mut out));
        let len = out.len() as u64;
        out[40..HASH_AT].copy_from_slice(&len.to_le_bytes());
        let hash = hash(&out);
        out[HASH_AT..TABLE_HEADER_BYTES].copy_from_slice(&hash);
        out.resize((pages_of(len) * PAGE_BYTES) as usize, 0);
        out
    }

    /// Reads a table of a LUN. `bytes` may go on behind it.
    ///
    /// # Errors
    /// `TooShort`, `Magic`, `Major`, `RecordHash`, `Mismatch` for a table of another LUN, or `HeaderField`.
    pub fn decode(bytes: &[u8], lun: LunId, geometry: &Geometry) -> Result<Self> {
        let len = table_len(bytes)?;
        if len < TABLE_HEADER_BYTES as u64 || len > geometry.table_bytes() {
            return Err(field("table_len", len));
        }
        let have = bytes.len() as u64;
        let bytes = bytes.get(..len as usize).ok_or(FormatError::TooShort { what: WHAT, need: len, have })?;
        //= LOGSTORE.md#table
        //# LT-1
        if hash(bytes) != bytes[HASH_AT..TABLE_HEADER_BYTES] {
            return Err(FormatError::RecordHash { what: WHAT });
        }
        let mut from = Cursor::new(WHAT, bytes);
        from.take(12)?;
        let count = from.u32()?;
        //= LOGSTORE.md#table
        //# LT-2
        if LunId::new(from.array()?) != lun {
            return Err(FormatError::HeaderField { field: "lun", value: 0 });
        }
        let generation = from.u64()?;
        from.take(TABLE_HEADER_BYTES - 40)?;
        if count > geometry.domains_max() {
            return Err(field("domains", count.into()));
        }
        let mut domains = Vec::new();
        for _ in 0..count {
            domains.push(DomainEntry::take(&mut from, geometry)?);
        }
        from.finish()?;
        let table = Self { lun, generation, domains };
        table.check(geometry)?;
        Ok(table)
    }

    /// Checks what holds between domains.
    ///
    /// # Errors
    /// `HeaderField` names the rule that is broken.
    pub fn check(&self, geometry: &Geometry) -> Result<()> {
        //= LOGSTORE.md#table
        //# LT-3
        if let Some(pair) = self.domains.windows(2).find(|pair| pair[0].domain >= pair[1].domain) {
            return Err(field("domain", u64::from(pair[1].domain.bytes()[0])));
        }
        //= LOGSTORE.md#table
        //# LT-4
        let mut named: Vec<u32> = Vec::new();
        for domain in &self.domains {
            named.push(domain.meta_extent.get());
            named.extend(domain.extents.iter().map(|extent| extent.get()));
        }
        named.sort_unstable();
        if let Some(last) = named.last().filter(|last| **last >= geometry.extents()) {
            return Err(field("extent", (*last).into()));
        }
        match named.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(field("extent", pair[0].into())),
            None => Ok(()),
        }
    }
}

const fn field(field: &'static str, value: u64) -> FormatError {
    FormatError::HeaderField { field, value }
}

/// Over everything but the hash itself.
fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(&bytes[..HASH_AT]).update(&bytes[TABLE_HEADER_BYTES..]).finalize().as_bytes()
}

impl DomainEntry {
    fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.domain.bytes());
        out.extend_from_slice(&self.incarnation.bytes());
        out.extend_from_slice(&self.min_bytes.to_le_bytes());
        out.extend_from_slice(&self.max_bytes.to_le_bytes());
        out.extend_from_slice(&self.first_lsn.get().to_le_bytes());
        out.extend_from_slice(&self.durable.get().to_le_bytes());
        out.extend_from_slice(&self.head.page.to_le_bytes());
        out.extend_from_slice(&self.head.prev_crc.to_le_bytes());
        out.extend_from_slice(&self.head.seq.get().to_le_bytes());
        out.extend_from_slice(&self.head.lsn.get().to_le_bytes());
        out.extend_from_slice(&self.head.time.get().to_le_bytes());
        out.extend_from_slice(&self.meta_extent.get().to_le_bytes());
        out.extend_from_slice(&(self.extents.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.metas.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 12]);
        debug_assert_eq!(out.len() - start, DOMAIN_ENTRY_BYTES);
        self.extents.iter().for_each(|extent| out.extend_from_slice(&extent.get().to_le_bytes()));
        for meta in &self.metas {
            out.extend_from_slice(&(meta.name.len() as u16).to_le_bytes());
            out.extend_from_slice(&(meta.runs.len() as u16).to_le_bytes());
            out.extend_from_slice(&meta.len.to_le_bytes());
            out.extend_from_slice(&meta.hash);
            out.extend_from_slice(meta.name.as_bytes());
            for run in &meta.runs {
                out.extend_from_slice(&run.page.to_le_bytes());
                out.extend_from_slice(&run.pages.to_le_bytes());
            }
        }
    }

    fn take(from: &mut Cursor<'_>, geometry: &Geometry) -> Result<Self> {
        let mut entry = Self {
            domain: DomainId::new(from.array()?),
            incarnation: Incarnation::new(from.array()?),
            min_bytes: from.u64()?,
            max_bytes: from.u64()?,
            first_lsn: Lsn::new(from.u64()?),
            durable: Lsn::new(from.u64()?),
            head: Head {
                page: from.u32()?,
                prev_crc: from.u32()?,
                seq: BatchSeq::new(from.u64()?),
                lsn: Lsn::new(from.u64()?),
                time: TimeNs::new(from.u64()?),
            },
            meta_extent: LunExtent::new(from.u32()?),
            extents: Vec::new(),
            metas: Vec::new(),
        };
        let (extents, metas) = (from.u32()?, from.u32()?);
        from.take(12)?;
        for bytes in from.take(extents as usize * 4)?.chunks_exact(4) {
            entry.extents.push(LunExtent::new(u32::from_le_bytes(bytes.try_into().expect("four bytes"))));
        }
        if metas as usize > META_NAMES_MAX {
            return Err(field("metas", metas.into()));
        }
        for _ in 0..metas {
            entry.metas.push(MetaEntry::take(from)?);
        }
        entry.check(geometry)?;
        Ok(entry)
    }

    //= LOGSTORE.md#table
    //# LT-5
    fn check(&self, geometry: &Geometry) -> Result<()> {
        let head = &self.head;
        let page_max = if self.extents.is_empty() { 0 } else { geometry.extent_pages() };
        if head.page > page_max {
            return Err(field("head_page", head.page.into()));
        }
        if head.seq.get() == 0 {
            return Err(field("head_seq", 0));
        }
        if head.lsn == Lsn::ZERO {
            return Err(field("head_lsn", 0));
        }
        if self.first_lsn < head.lsn {
            return Err(field("first_lsn", self.first_lsn.get()));
        }
        if self.durable.get() < self.first_lsn.get() - 1 {
            return Err(field("durable", self.durable.get()));
        }
        if self.min_bytes > self.max_bytes {
            return Err(field("min_bytes", self.min_bytes));
        }
        if let Some(pair) = self.metas.windows(2).find(|pair| pair[0].name >= pair[1].name) {
            return Err(field("meta_name", pair[1].name.len() as u64));
        }
        self.check_runs(geometry)
    }

    //= LOGSTORE.md#named-values
    //# LM-1
    fn check_runs(&self, geometry: &Geometry) -> Result<()> {
        let mut all: Vec<Run> = Vec::new();
        for meta in &self.metas {
            let pages: u64 = meta.runs.iter().map(|run| u64::from(run.pages)).sum();
            if pages != pages_of(meta.len.into()) || meta.runs.iter().any(|run| run.pages == 0) {
                return Err(field("meta_pages", pages));
            }
            all.extend(&meta.runs);
        }
        all.sort_unstable_by_key(|run| run.page);
        let (mut end, mut total) = (0, 0);
        for run in &all {
            let run_end = u64::from(run.page) + u64::from(run.pages);
            if u64::from(run.page) < end || run_end > geometry.extent_pages().into() {
                return Err(field("meta_run", run.page.into()));
            }
            end = run_end;
            total += u64::from(run.pages);
        }
        if total > geometry.meta_pages_max().into() { Err(field("meta_pages", total)) } else { Ok(()) }
    }
}

impl MetaEntry {
    fn take(from: &mut Cursor<'_>) -> Result<Self> {
        let (name_len, run_count) = (from.u16()?, from.u16()?);
        let (len, hash) = (from.u32()?, from.array()?);
        if name_len == 0 || usize::from(name_len) > META_NAME_BYTES_MAX {
            return Err(field("meta_name", name_len.into()));
        }
        let name = std::str::from_utf8(from.take(name_len.into())?).map_err(|_| field("meta_name", name_len.into()))?;
        let mut runs = Vec::new();
        for bytes in from.take(usize::from(run_count) * RUN_BYTES)?.chunks_exact(RUN_BYTES) {
            let mut run = Cursor::new(WHAT, bytes);
            runs.push(Run { page: run.u32()?, pages: run.u32()? });
        }
        Ok(Self { name: name.to_owned(), len, hash, runs })
    }
}
