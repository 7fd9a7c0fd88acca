//! The label: what a LUN is and how it is laid out. Written once, in two copies (LOGSTORE.md §label).

use super::{Geometry, LunId, PAGE_BYTES};
use crate::cursor::Cursor;
use crate::error::{FormatError, Result};

const MAGIC: [u8; 8] = *b"\x89TLL\r\n\x1a\n";
pub(super) const MAJOR: u16 = 1;
const HASH_AT: usize = PAGE_BYTES as usize - 32;

/// What a LUN says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub lun: LunId,
    /// Its layout.
    pub geometry: Geometry,
}

impl Label {
    /// The page.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PAGE_BYTES as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&MAJOR.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&self.lun.bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.geometry.extent_bytes().to_le_bytes());
        out.extend_from_slice(&self.geometry.extents().to_le_bytes());
        out.extend_from_slice(&self.geometry.domains_max().to_le_bytes());
        out.extend_from_slice(&self.geometry.table_bytes().to_le_bytes());
        out.resize(HASH_AT, 0);
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    /// Reads a page.
    ///
    /// # Errors
    /// `TooShort`, `Magic`, `Major`, `RecordHash`, `ReadFeatures` or `HeaderField`.
    pub fn decode(page: &[u8]) -> Result<Self> {
        let what = "log store label";
        let mut from = Cursor::new(what, page);
        if from.array()? != MAGIC {
            return Err(FormatError::Magic { what });
        }
        let (major, _minor) = (from.u16()?, from.u16()?);
        //= LOGSTORE.md#versions
        //# LV-1
        if major != MAJOR {
            return Err(FormatError::Major { what, found: major.into(), known: MAJOR.into() });
        }
        if page.len() != PAGE_BYTES as usize {
            return Err(match (page.len() as u64).checked_sub(PAGE_BYTES) {
                Some(extra) => FormatError::TrailingBytes { what, extra },
                None => FormatError::TooShort { what, need: PAGE_BYTES, have: page.len() as u64 },
            });
        }
        //= LOGSTORE.md#label
        //# LL-1
        if *blake3::hash(&page[..HASH_AT]).as_bytes() != page[HASH_AT..] {
            return Err(FormatError::RecordHash { what });
        }
        from.u32()?;
        let lun = LunId::new(from.array()?);
        let features = from.u64()?;
        //= LOGSTORE.md#versions
        //# LV-2
        if features != 0 {
            return Err(FormatError::ReadFeatures { bits: features });
        }
        //= LOGSTORE.md#label
        //# LL-2
        let geometry = Geometry::new(from.u64()?, from.u32()?, from.u32()?)?;
        let table_bytes = from.u64()?;
        if table_bytes != geometry.table_bytes() {
            return Err(FormatError::HeaderField { field: "table_bytes", value: table_bytes });
        }
        Ok(Self { lun, geometry })
    }
}
