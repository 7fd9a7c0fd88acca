//! A whole image as a stream of extents, in order, holes told apart from data.

use crate::cache::Source;
use crate::error::{Error, Result};
use crate::image::DiskImage;
use futures::stream::{self, StreamExt};
use std::io;
use tidemark_format::{Extent, REGION_BLOCKS};

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
    pub async fn export(&self, sink: &mut dyn ExportSink, progress: impl FnMut(u64)) -> Result<()> {
        self.export_extents(&[Extent::new(0, self.blocks)], sink, progress).await
    }

    /// As [`Self::export`], but only `extents`, which ascend and do not overlap; clipped at the size.
    ///
    /// # Errors
    /// As [`Self::export`].
    pub async fn export_extents(
        &self,
        extents: &[Extent],
        sink: &mut dyn ExportSink,
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        let failed = |source| Error::Sink { disk: self.id, source };
        let mut zeros = Zeros::default();
        let mut done = 0;
        for wanted in extents {
            let end = wanted.end().min(self.blocks);
            let mut at = wanted.start;
            while at < end {
                let map = self.map_of(at / REGION_BLOCKS).await?;
                let part = Extent::new(at, map.region().end().min(end) - at);
                at = part.end();
                if map.clipped(part).all(|piece| piece.state.is_zeros()) {
                    zeros.add(part);
                    done += part.byte_len();
                    continue;
                }
                let steps = (part.start..part.end()).step_by(STEP_BLOCKS as usize);
                let loads = steps.map(|start| self.pieces(Extent::new(start, STEP_BLOCKS.min(part.end() - start))));
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
                        done += extent.byte_len();
                        progress(done);
                    }
                }
            }
            zeros.flush(sink).map_err(failed)?;
        }
        progress(done);
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
