//! Whole disk images, one per LSN.
//!
//! A block is a pointer to its 512 bytes, so an image costs eight bytes a block and cloning all of them for each LSN is
//! affordable for the small disks of a property test. Nothing is indexed, merged or shared cleverly: that is the point.

use crate::ops::Op;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_format::{BLOCK_BYTES, DiskId, Extent, Lsn};

const BLOCK: usize = BLOCK_BYTES as usize;

/// What one block of one disk holds at one LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Nothing was ever written and nothing is proven zero: a read fails. Seeding may fill it.
    Unknown,
    /// Cut off by a shrink and not written since: a read fails, and older data, seeded or not, never shows through.
    CutOff,
    /// Proven zero.
    Zero,
    /// Unmapped: reads as zeros and is a hole.
    Hole,
    /// Bytes that the guest wrote or that were there before.
    Data(Arc<[u8; BLOCK]>),
}

impl Cell {
    /// The bytes that a read returns, or `None` if it must fail.
    pub fn bytes(&self) -> Option<[u8; BLOCK]> {
        match self {
            Self::Unknown | Self::CutOff => None,
            Self::Zero | Self::Hole => Some([0; BLOCK]),
            Self::Data(bytes) => Some(**bytes),
        }
    }

    fn of(bytes: &[u8]) -> Self {
        Self::Data(Arc::new(bytes.try_into().expect("callers cut data into blocks")))
    }
}

/// The image of one disk at one LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskModel {
    /// One cell per block; its length is the size of the disk.
    pub cells: Vec<Cell>,
    /// True from the disk's CONSISTENT_FROM on.
    pub consistent: bool,
}

impl DiskModel {
    /// Size in blocks.
    pub fn blocks(&self) -> u64 {
        self.cells.len() as u64
    }

    /// Bytes of `extent`, or `None` if a block of it is unknown or beyond the end.
    pub fn read(&self, extent: Extent) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for block in extent.start..extent.end() {
            bytes.extend_from_slice(&self.cells.get(block as usize)?.bytes()?);
        }
        Some(bytes)
    }

    /// The whole disk, `None` for each block that must not be served.
    pub fn image(&self) -> Vec<Option<[u8; BLOCK]>> {
        self.cells.iter().map(Cell::bytes).collect()
    }

    fn fill(&mut self, extent: Extent, cell: &Cell) {
        for block in extent.start..extent.end() {
            self.cells[block as usize] = cell.clone();
        }
    }
}

/// Every disk of a domain, at every LSN.
#[derive(Clone, Debug)]
pub struct DomainModel {
    /// `images[n]` is the domain right after LSN n; `images[0]` is empty.
    images: Vec<BTreeMap<DiskId, DiskModel>>,
}

impl Default for DomainModel {
    fn default() -> Self {
        Self::new()
    }
}

impl DomainModel {
    /// A domain with no disks, before its first LSN.
    pub fn new() -> Self {
        Self { images: vec![BTreeMap::new()] }
    }

    /// The newest LSN; [`Lsn::ZERO`] at first.
    pub fn latest(&self) -> Lsn {
        Lsn::new(self.images.len() as u64 - 1)
    }

    /// All disks right after `lsn`.
    ///
    /// # Panics
    /// If `lsn` is newer than the latest.
    pub fn at(&self, lsn: Lsn) -> &BTreeMap<DiskId, DiskModel> {
        &self.images[lsn.get() as usize]
    }

    /// One disk right after `lsn`; `None` if it does not exist there.
    pub fn disk(&self, disk: DiskId, lsn: Lsn) -> Option<&DiskModel> {
        self.at(lsn).get(&disk)
    }

    /// Applies one operation and returns the LSN it got.
    ///
    /// # Panics
    /// If it names a missing disk or blocks beyond the end: such an operation gets no LSN in the first place.
    pub fn apply(&mut self, op: &Op) -> Lsn {
        let mut disks = self.images.last().expect("there is always image 0").clone();
        match op {
            Op::DiskAdd { disk, blocks } => {
                let cells = vec![Cell::Unknown; *blocks as usize];
                let before = disks.insert(*disk, DiskModel { cells, consistent: false });
                assert!(before.is_none(), "disk {disk} added twice");
            }
            Op::DiskRemove { disk } => {
                assert!(disks.remove(disk).is_some(), "disk {disk} removed but never added");
            }
            Op::Resize { disk, blocks } => {
                let cells = &mut disks.get_mut(disk).expect("resized disk exists").cells;
                cells.truncate(*blocks as usize);
                cells.resize(*blocks as usize, Cell::CutOff);
            }
            Op::ConsistentFrom { disk } => {
                disks.get_mut(disk).expect("disk exists").consistent = true;
            }
            Op::Write { disk, start, data } => {
                let cells = &mut disks.get_mut(disk).expect("written disk exists").cells;
                for (i, block) in data.chunks(BLOCK).enumerate() {
                    cells[*start as usize + i] = Cell::of(block);
                }
            }
            Op::Zero { disk, extent } => {
                disks.get_mut(disk).expect("zeroed disk exists").fill(*extent, &Cell::Zero);
            }
            Op::Unmap { disk, extent } => {
                disks.get_mut(disk).expect("unmapped disk exists").fill(*extent, &Cell::Hole);
            }
            Op::Mark => {}
        }
        self.images.push(disks);
        self.latest()
    }

    /// Seeded bytes: what the disk held at `from`, learnt only later. They show at every LSN from `from` on in which
    /// the block has not been written, zeroed, unmapped or cut off since. Takes no LSN.
    pub fn seed(&mut self, disk: DiskId, from: Lsn, start: u64, data: &[u8]) {
        for (i, block) in data.chunks(BLOCK).enumerate() {
            for disks in &mut self.images[from.get() as usize..] {
                match disks.get_mut(&disk).and_then(|d| d.cells.get_mut(start as usize + i)) {
                    Some(cell @ Cell::Unknown) => *cell = Cell::of(block),
                    _ => break,
                }
            }
        }
    }

    /// Forgets every LSN after `last`, as a crash does with what was never committed.
    pub fn truncate(&mut self, last: Lsn) {
        self.images.truncate(last.get() as usize + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: DiskId = DiskId::new(1);

    fn with_disk(blocks: u64) -> DomainModel {
        let mut model = DomainModel::new();
        model.apply(&Op::DiskAdd { disk: DISK, blocks });
        model
    }

    #[test]
    fn a_block_nobody_wrote_is_unknown_and_fails_the_read_that_touches_it() {
        let mut model = with_disk(4);
        let lsn = model.apply(&Op::Write { disk: DISK, start: 1, data: vec![7; BLOCK] });
        let disk = model.disk(DISK, lsn).unwrap();
        assert_eq!(disk.read(Extent::new(1, 1)), Some(vec![7; BLOCK]));
        assert_eq!(disk.read(Extent::new(0, 2)), None);
        assert_eq!(disk.read(Extent::new(4, 1)), None);
    }

    #[test]
    fn old_points_keep_their_image_when_newer_writes_come() {
        let mut model = with_disk(1);
        let old = model.apply(&Op::Write { disk: DISK, start: 0, data: vec![1; BLOCK] });
        let new = model.apply(&Op::Zero { disk: DISK, extent: Extent::new(0, 1) });
        assert_eq!(model.disk(DISK, old).unwrap().read(Extent::new(0, 1)), Some(vec![1; BLOCK]));
        assert_eq!(model.disk(DISK, new).unwrap().read(Extent::new(0, 1)), Some(vec![0; BLOCK]));
    }

    #[test]
    fn data_cut_off_by_a_shrink_never_comes_back() {
        let mut model = with_disk(2);
        let from = model.latest();
        model.apply(&Op::Write { disk: DISK, start: 1, data: vec![9; BLOCK] });
        model.apply(&Op::Resize { disk: DISK, blocks: 1 });
        let grown = model.apply(&Op::Resize { disk: DISK, blocks: 2 });
        model.seed(DISK, from, 0, &[5; 2 * BLOCK]);
        let disk = model.disk(DISK, grown).unwrap();
        assert_eq!(disk.read(Extent::new(0, 1)), Some(vec![5; BLOCK]));
        assert_eq!(disk.read(Extent::new(1, 1)), None);
    }

    #[test]
    fn seeded_bytes_show_only_under_what_was_written_since() {
        let mut model = with_disk(2);
        let from = model.apply(&Op::Mark);
        let written = model.apply(&Op::Write { disk: DISK, start: 0, data: vec![3; BLOCK] });
        model.seed(DISK, from, 0, &[8; 2 * BLOCK]);
        let image = |lsn| model.disk(DISK, lsn).unwrap().read(Extent::new(0, 2)).unwrap();
        assert_eq!(image(from), vec![8; 2 * BLOCK]);
        assert_eq!(image(written), [vec![3; BLOCK], vec![8; BLOCK]].concat());
    }
}
