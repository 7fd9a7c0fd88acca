//! The recorded writes of a real VM in `data/`, and the naive way to replay them.

use std::fs::File;
use std::path::{Path, PathBuf};
use tidemark_cli::logwrites::{Entry, Flags, LogReader};

/// A file of `data/`.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// The disk before the run.
pub const BASE: &str = "sample.base.img.zst";
/// Its writes.
pub const LOG: &str = "sample.blklogwrites.log.zst";
/// SHA-256 of the disk after the last entry.
pub const FINAL_SHA256: &str = "f02bb3f2983b7f88c7c8db25c79fe1f889511af2ea3dbc7bbffadef5df6ad33f";
/// Size of the disk.
pub const DISK_BYTES: u64 = 64 << 20;

/// The bytes of the disk before the run.
pub fn base() -> Vec<u8> {
    let mut bytes = Vec::new();
    zstd::stream::copy_decode(open(BASE), &mut bytes).expect("data/ is part of the tree");
    bytes
}

/// The entries of a recorded log.
pub fn log(name: &str) -> Vec<Entry> {
    let decoder = zstd::stream::read::Decoder::new(open(name)).expect("data/ is part of the tree");
    LogReader::open(decoder).and_then(Iterator::collect).expect("data/ is part of the tree")
}

fn open(name: &str) -> File {
    File::open(path(name)).expect("data/ is part of the tree")
}

/// What the guest said: after line `MARK i hash`, file `i` with that SHA-256 is durable.
pub fn marks() -> Vec<(u32, String)> {
    let text = std::fs::read_to_string(path("sample.vm.serial.txt")).expect("data/ is part of the tree");
    let mark = |line: &str| {
        let mut words = line.split(' ');
        (words.next() == Some("MARK")).then(|| {
            let number = words.next().and_then(|word| word.parse().ok()).expect("a mark has a number");
            (number, words.next().expect("a mark has a hash").to_owned())
        })
    };
    text.lines().filter_map(mark).collect()
}

/// Applies an entry to an image, the naive way.
pub fn apply(image: &mut [u8], entry: &Entry) {
    let range = entry.offset_bytes as usize..entry.end_bytes() as usize;
    if entry.flags.has(Flags::DISCARD) {
        image[range].fill(0);
    } else {
        image[range].copy_from_slice(&entry.data);
    }
}
