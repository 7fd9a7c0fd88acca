//! A whole image as a stream of extents, in order, holes told apart from data.

use crate::cache::Source;
use crate::error::{Error, Result};
use crate::image::DiskImage;
use crate::maps::REGION_BLOCKS;
use futures::stream::{self, StreamExt};
use std::io;
use tidemark_format::{BLOCK_BYTES, Extent};

/// Takes the contents of a disk in order, without gaps and overlaps.
pub trait ExportSink: Send {
    /// Bytes from `offset` on.
    ///
    /// # Errors
    /// Whatever keeps the sink from taking them; the export ends with it.
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// `len` zero bytes from `offset` on.
    ///
    /// # Errors
    /// As [`Self::data`].
    fn zeros(&mut self, offset: u64, len: u64) -> io::Result<()>;
}

/// Blocks that are loaded at a time, and how many such loads run ahead of the sink.
const STEP_BLOCKS: u64 = 2048;
const STEPS_AHEAD: usize = 8;

impl DiskImage {
    /// Hands the whole disk to `sink`, from the first byte to the last, and tells `progress` how many bytes are done.
    /// Reads past the cache of disk contents; memory is bounded by some 8 MiB and the frame cache.
    ///
    /// # Errors
    /// As [`DiskImage::read`], and `Sink`.
    pub async fn export(&self, sink: &mut dyn ExportSink, mut progress: impl FnMut(u64)) -> Result<()> {
        let failed = |source| Error::Sink { disk: self.id, source };
        let mut zeros = Zeros::default();
        for region in 0..self.blocks.div_ceil(REGION_BLOCKS) {
            let map = self.map_of(region).await?;
            let extent = map.region();
            if map.pieces().iter().all(|piece| piece.state.is_zeros()) {
                zeros.add(extent);
                continue;
            }
            let steps = (extent.start..extent.end()).step_by(STEP_BLOCKS as usize);
            let loads = steps.map(|start| self.pieces(Extent::new(start, STEP_BLOCKS.min(extent.end() - start))));
            let mut loads = stream::iter(loads).buffered(STEPS_AHEAD);
            while let Some(pieces) = loads.next().await {
                for (extent, source) in pieces? {
                    match source {
                        Source::Zeros(_) => zeros.add(extent),
                        Source::Bytes(bytes) => {
                            zeros.flush(sink).map_err(failed)?;
                            sink.data(extent.byte_start(), &bytes).map_err(failed)?;
                        }
                    }
                    progress(extent.end() * BLOCK_BYTES);
                }
            }
        }
        zeros.flush(sink).map_err(failed)?;
        progress(self.size_bytes());
        Ok(())
    }
}

/// A run of zeros that may still grow.
#[derive(Default)]
struct Zeros(Option<Extent>);

impl Zeros {
    fn add(&mut self, extent: Extent) {
        let start = self.0.map_or(extent.start, |run| run.start);
        self.0 = Some(Extent::new(start, extent.end() - start));
    }

    fn flush(&mut self, sink: &mut dyn ExportSink) -> io::Result<()> {
        self.0.take().map_or(Ok(()), |run| sink.zeros(run.byte_start(), run.byte_len()))
    }
}
