//! A guest whose every operation follows from its run and number, so that whoever finds an LSN in a bucket can tell what
//! must be there, although the guest was killed before it could say anything.

use bytes::Bytes;
use tidemark_format::{BLOCK_BYTES, DiskId, Level};
use tidemark_writer::Request;

/// Disks that the guest has.
pub const DISKS: u32 = 2;
/// Size of each in bytes.
pub const DISK_BYTES: u64 = 512 << 10;
/// Longest operation in blocks.
const OP_BLOCKS_MAX: u64 = 24;

/// What the guest does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes bytes.
    Write(DiskId, u64, Bytes),
    /// Zeroes a range.
    Zero(DiskId, u64, u64),
    /// Discards a range.
    Unmap(DiskId, u64, u64),
    /// Flushes a disk.
    Flush(DiskId),
    /// Names a point.
    Bookmark(String),
}

/// splitmix64: any mixer will do.
pub fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Operation `number` of run `run`.
pub fn op(run: u64, number: u64) -> Op {
    let dice = mix(run << 32 ^ number);
    let disk = DiskId::new((dice % u64::from(DISKS)) as u32 + 1);
    let blocks = DISK_BYTES / BLOCK_BYTES;
    let len = 1 + mix(dice) % OP_BLOCKS_MAX;
    let start = mix(dice ^ 1) % (blocks - len);
    let (offset, len_bytes) = (start * BLOCK_BYTES, len * BLOCK_BYTES);
    match dice >> 32 & 15 {
        0 => Op::Zero(disk, offset, len_bytes),
        1 => Op::Unmap(disk, offset, len_bytes),
        2 => Op::Flush(disk),
        3 => Op::Bookmark(format!("run {run} op {number}")),
        _ => Op::Write(disk, offset, payload(run, number, start, len)),
    }
}

/// Bytes that say in each block who wrote them and where; half of them do not compress.
fn payload(run: u64, number: u64, start: u64, len: u64) -> Bytes {
    let mut data = Vec::with_capacity((len * BLOCK_BYTES) as usize);
    for block in start..start + len {
        let noise = mix(run ^ mix(number ^ mix(block)));
        for word in 0..BLOCK_BYTES / 8 {
            let value = match word {
                0 => run,
                1 => number,
                2 => block,
                word if word % 2 == 0 => mix(noise ^ word),
                _ => 0x7469_6465_6d61_726b,
            };
            data.extend_from_slice(&value.to_le_bytes());
        }
    }
    data.into()
}

impl Op {
    /// As the writer wants it.
    pub fn request(self) -> Request {
        match self {
            Self::Write(disk, offset, data) => Request::Write { disk, offset, data },
            Self::Zero(disk, offset, len) => Request::Zero { disk, offset, len },
            Self::Unmap(disk, offset, len) => Request::Unmap { disk, offset, len },
            Self::Flush(disk) => Request::Flush { disk },
            Self::Bookmark(name) => Request::Bookmark { name, level: Level::Crash },
        }
    }

    /// Applies it to the images of the guest's disks, in order of their ids from 1.
    pub fn apply(&self, images: &mut [Vec<u8>]) {
        let mut put = |disk: DiskId, offset: u64, bytes: &[u8]| {
            images[disk.get() as usize - 1][offset as usize..][..bytes.len()].copy_from_slice(bytes);
        };
        match self {
            Self::Write(disk, offset, data) => put(*disk, *offset, data),
            Self::Zero(disk, offset, len) | Self::Unmap(disk, offset, len) => {
                put(*disk, *offset, &vec![0; *len as usize]);
            }
            Self::Flush(_) | Self::Bookmark(_) => {}
        }
    }
}
