//! What is ingested: a file, a compressed file, or stdin.

use anyhow::Context;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// First bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BUFFER_BYTES: usize = 1 << 20;
/// Largest window that a compressed input may ask memory for, as a power of two.
const WINDOW_LOG_MAX: u32 = 27;

/// A source of bytes that may be opened several times, unless it is a stream.
#[derive(Clone, Debug)]
pub(super) struct Input {
    path: Option<PathBuf>,
}

impl Input {
    pub(super) fn new(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { path: None });
        }
        let meta = std::fs::metadata(path).with_context(|| format!("open {}", path.display()))?;
        anyhow::ensure!(!meta.is_dir(), "{} is a directory", path.display());
        Ok(Self { path: Some(path.to_owned()) })
    }

    /// What messages call it.
    pub(super) fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "stdin".to_owned(), |path| path.display().to_string())
    }

    /// The path, if the bytes can be read more than once.
    pub(super) fn again(&self) -> Option<&Path> {
        let path = self.path.as_deref()?;
        path.metadata().is_ok_and(|meta| !is_stream(&meta)).then_some(path)
    }

    /// The bytes from the beginning, decompressed.
    pub(super) fn open(&self) -> anyhow::Result<Box<dyn Read + Send>> {
        let raw: Box<dyn Read + Send> = match &self.path {
            None => Box::new(io::stdin()),
            Some(path) => Box::new(File::open(path).with_context(|| format!("open {}", path.display()))?),
        };
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, raw);
        let mut magic = Vec::new();
        raw.by_ref().take(4).read_to_end(&mut magic).with_context(|| format!("read {}", self.name()))?;
        let whole = io::Cursor::new(magic.clone()).chain(raw);
        if magic != ZSTD_MAGIC {
            return Ok(Box::new(whole));
        }
        let mut decoder = zstd::stream::read::Decoder::new(whole).context("start zstd")?;
        decoder.window_log_max(WINDOW_LOG_MAX).context("start zstd")?;
        Ok(Box::new(decoder))
    }

    /// The file itself, if its bytes are the contents: with holes that can be looked for.
    pub(super) fn plain_file(&self) -> anyhow::Result<Option<File>> {
        let Some(path) = self.again() else { return Ok(None) };
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut magic = Vec::new();
        file.by_ref().take(4).read_to_end(&mut magic).with_context(|| format!("read {}", path.display()))?;
        if magic == ZSTD_MAGIC {
            return Ok(None);
        }
        file.rewind().with_context(|| format!("seek in {}", path.display()))?;
        Ok(Some(file))
    }
}

fn is_stream(meta: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let kind = meta.file_type();
    kind.is_fifo() || kind.is_char_device() || kind.is_socket()
}
