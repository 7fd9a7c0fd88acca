//! Where things lie on a LUN: everything follows from four numbers (LOGSTORE.md §layout).

use super::LunExtent;
use super::table::{DOMAIN_ENTRY_BYTES, META_ENTRY_BYTES, RUN_BYTES, TABLE_HEADER_BYTES};
use crate::error::{FormatError, Result};

/// Bytes in a page, the unit of every read and write of a LUN.
pub const PAGE_BYTES: u64 = 4096;
/// Smallest extent.
pub const EXTENT_BYTES_MIN: u64 = 64 << 10;
/// Largest extent.
pub const EXTENT_BYTES_MAX: u64 = 1 << 30;
/// Most extents of a LUN.
pub const EXTENTS_MAX: u32 = 1 << 24;
/// Most domains that a LUN may be laid out for.
pub const DOMAINS_MAX: u32 = 1024;
/// Most named values of a domain.
pub const META_NAMES_MAX: usize = 64;
/// Longest name of a value.
pub const META_NAME_BYTES_MAX: usize = 64;
/// Bytes that the named values of a domain may take in all, in whole pages, on LUNs whose extents are large enough.
const META_BYTES_MAX: u64 = 4 << 20;
/// Byte offset of the label's second copy.
pub const LABEL_COPY_AT: u64 = 64 << 10;
/// Byte offset of the first table copy.
pub const TABLES_AT: u64 = 128 << 10;

/// Pages that hold so many bytes.
pub const fn pages_of(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_BYTES)
}

/// How a LUN is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    extent_bytes: u64,
    extents: u32,
    domains_max: u32,
}

impl Geometry {
    /// The layout of these three numbers.
    ///
    /// # Errors
    /// `HeaderField` for one that is outside of its range.
    pub fn new(extent_bytes: u64, extents: u32, domains_max: u32) -> Result<Self> {
        let field = |field, value| Err(FormatError::HeaderField { field, value });
        if !extent_bytes.is_power_of_two() || !(EXTENT_BYTES_MIN..=EXTENT_BYTES_MAX).contains(&extent_bytes) {
            return field("extent_bytes", extent_bytes);
        }
        if !(1..=EXTENTS_MAX).contains(&extents) {
            return field("extents", extents.into());
        }
        if !(1..=DOMAINS_MAX).contains(&domains_max) {
            return field("domains_max", domains_max.into());
        }
        Ok(Self { extent_bytes, extents, domains_max })
    }

    /// The layout with the most extents that fits into a LUN of `lun_bytes`.
    ///
    /// # Errors
    /// `HeaderField` for a number outside of its range, or a LUN without room for an extent.
    pub fn largest(lun_bytes: u64, extent_bytes: u64, domains_max: u32) -> Result<Self> {
        let mut layout = Self::new(extent_bytes, 1, domains_max)?;
        // Fewer extents make a smaller table, so the largest number that fits is found by going down from too many.
        let most = (lun_bytes / extent_bytes).min(EXTENTS_MAX.into()) as u32;
        layout.extents = most.max(1);
        while layout.extents > 1 && layout.lun_bytes() > lun_bytes {
            let beyond = layout.lun_bytes() - lun_bytes;
            let fewer = beyond.div_ceil(extent_bytes + 8).max(1).min(u64::from(layout.extents) - 1);
            layout.extents -= fewer as u32;
        }
        if layout.lun_bytes() > lun_bytes {
            return Err(FormatError::HeaderField { field: "lun_bytes", value: lun_bytes });
        }
        Ok(layout)
    }

    /// Bytes of an extent.
    pub const fn extent_bytes(self) -> u64 {
        self.extent_bytes
    }
    /// Pages of an extent.
    pub const fn extent_pages(self) -> u32 {
        (self.extent_bytes / PAGE_BYTES) as u32
    }
    /// Number of extents.
    pub const fn extents(self) -> u32 {
        self.extents
    }
    /// Most domains.
    pub const fn domains_max(self) -> u32 {
        self.domains_max
    }
    /// Pages that the named values of a domain may take in all: half of an extent at most, so that a value and its
    /// replacement always fit into the one extent that holds them.
    pub const fn meta_pages_max(self) -> u32 {
        let half = self.extent_pages() / 2;
        let most = (META_BYTES_MAX / PAGE_BYTES) as u32;
        if half < most { half } else { most }
    }
    /// Bytes set aside for one copy of the table: enough for whatever it may have to say.
    pub const fn table_bytes(self) -> u64 {
        let names = META_NAMES_MAX as u64 * (META_ENTRY_BYTES + META_NAME_BYTES_MAX) as u64;
        let runs = self.meta_pages_max() as u64 * RUN_BYTES as u64;
        let domain = DOMAIN_ENTRY_BYTES as u64 + names + runs;
        let all = TABLE_HEADER_BYTES as u64 + self.domains_max as u64 * domain + self.extents as u64 * 4;
        pages_of(all) * PAGE_BYTES
    }
    /// Byte offsets of the two copies of the table.
    pub const fn tables_at(self) -> [u64; 2] {
        [TABLES_AT, TABLES_AT + self.table_bytes()]
    }
    /// Byte offset of extent 0.
    pub const fn extents_at(self) -> u64 {
        TABLES_AT + 2 * self.table_bytes()
    }
    /// Bytes that a LUN must have at least.
    pub const fn lun_bytes(self) -> u64 {
        self.extents_at() + self.extents as u64 * self.extent_bytes
    }
    /// Byte offset of a page of an extent.
    pub const fn page_at(self, extent: LunExtent, page: u32) -> u64 {
        self.extents_at() + extent.get() as u64 * self.extent_bytes + page as u64 * PAGE_BYTES
    }
}
