//! Data like that of a VM's disk: the files of this machine's own system, in order of their paths.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Directories whose files make a guest's system disk.
const ROOTS: [&str; 4] = ["/usr/lib", "/usr/bin", "/usr/share", "/usr/include"];

/// `bytes` of file contents, each file padded with zeros to 4 KiB as a file system would.
///
/// # Errors
/// If this machine has fewer bytes of files.
pub(crate) fn system_files(bytes: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes + (1 << 20));
    for root in ROOTS {
        collect(Path::new(root), bytes, &mut out).with_context(|| format!("read files below {root}"))?;
        if out.len() >= bytes {
            out.truncate(bytes);
            return Ok(out);
        }
    }
    bail!("only {} of {bytes} bytes of files below {ROOTS:?}", out.len())
}

fn collect(dir: &Path, bytes: usize, out: &mut Vec<u8>) -> Result<()> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    for path in entries {
        if out.len() >= bytes {
            return Ok(());
        }
        let meta = path.symlink_metadata()?;
        if meta.is_dir() {
            collect(&path, bytes, out)?;
        } else if meta.is_file()
            && meta.len() > 0
            && let Ok(contents) = std::fs::read(&path)
        {
            out.extend_from_slice(&contents);
            out.resize(out.len().next_multiple_of(4096), 0);
        }
    }
    Ok(())
}

/// A small reproducible random sequence (Steele, Lea, Flood: SplitMix64, OOPSLA 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * u128::from(bound)) >> 64) as u64
    }
}
