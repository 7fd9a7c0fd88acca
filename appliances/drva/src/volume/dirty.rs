//! Which regions of a disk were written past the log: pure, small enough to be written down as a whole.
//!
//! A bit stands for a region; the region grows with the disk so that a map never takes more than [`MAP_BYTES_MAX`]. A set
//! bit says that the region may differ from the bucket, never that it does.

use tidemark_format::Extent;

/// Bytes of the largest map.
pub(crate) const MAP_BYTES_MAX: u64 = 64 << 10;
/// Blocks of the smallest region: 64 KiB.
const REGION_BLOCKS_MIN: u64 = 128;
/// First bytes of a map that is written down.
const MAGIC: [u8; 8] = *b"tmdirty1";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dirty {
    blocks: u64,
    region_blocks: u64,
    bits: Vec<u8>,
}

impl Dirty {
    /// A clean map of a disk.
    pub(crate) fn new(blocks: u64) -> Self {
        let region_blocks = blocks.div_ceil(MAP_BYTES_MAX * 8).next_power_of_two().max(REGION_BLOCKS_MIN);
        let regions = blocks.div_ceil(region_blocks);
        Self { blocks, region_blocks, bits: vec![0; regions.div_ceil(8) as usize] }
    }

    /// A map that says that all of a disk may differ.
    pub(crate) fn all(blocks: u64) -> Self {
        let mut dirty = Self::new(blocks);
        dirty.set(Extent::new(0, blocks));
        dirty
    }

    /// Sets the regions of `extent`; true if one of them was clean.
    pub(crate) fn set(&mut self, extent: Extent) -> bool {
        let mut news = false;
        let end = extent.end().min(self.blocks).div_ceil(self.region_blocks);
        for region in extent.start / self.region_blocks..end {
            let bit = 1 << (region % 8);
            let byte = &mut self.bits[(region / 8) as usize];
            news |= *byte & bit == 0;
            *byte |= bit;
        }
        news
    }

    /// The dirty runs, ascending.
    pub(crate) fn extents(&self) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        for region in 0..self.blocks.div_ceil(self.region_blocks) {
            if self.bits[(region / 8) as usize] & 1 << (region % 8) == 0 {
                continue;
            }
            let start = region * self.region_blocks;
            let len = self.region_blocks.min(self.blocks - start);
            match extents.last_mut() {
                Some(last) if last.end() == start => last.len += len,
                _ => extents.push(Extent::new(start, len)),
            }
        }
        extents
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        [&MAGIC[..], &self.blocks.to_le_bytes(), &self.bits].concat()
    }

    /// Reads what [`Self::encode`] made; `None` for anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (blocks, bits) = bytes.strip_prefix(&MAGIC)?.split_first_chunk::<8>()?;
        let empty = Self::new(u64::from_le_bytes(*blocks).min(tidemark_format::DISK_BLOCKS_MAX));
        (bits.len() == empty.bits.len()).then(|| Self { bits: bits.to_vec(), ..empty })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_set_once_and_come_back_as_runs() {
        let mut dirty = Dirty::new(1000);
        assert!(dirty.set(Extent::new(127, 2)), "two regions");
        assert!(!dirty.set(Extent::new(0, 256)));
        assert!(dirty.set(Extent::new(999, 1)));
        assert_eq!(dirty.extents(), [Extent::new(0, 256), Extent::new(896, 104)]);
        assert_eq!(Dirty::all(1000).extents(), [Extent::new(0, 1000)]);
    }

    #[test]
    fn a_map_survives_its_encoding_and_nothing_else_passes_for_one() {
        let mut dirty = Dirty::new(100_000);
        dirty.set(Extent::new(5000, 3));
        let bytes = dirty.encode();
        assert_eq!(Dirty::decode(&bytes), Some(dirty));
        for bad in [&bytes[1..], &bytes[..bytes.len() - 1], b"", b"tmdirty1"] {
            assert_eq!(Dirty::decode(bad), None);
        }
    }

    #[test]
    fn the_map_of_the_largest_disk_is_bounded() {
        let blocks = tidemark_format::DISK_BLOCKS_MAX;
        assert!(Dirty::new(blocks).encode().len() as u64 <= MAP_BYTES_MAX + 16);
        assert_eq!(Dirty::new(1 << 21).region_blocks, REGION_BLOCKS_MIN, "1 GiB");
    }
}
