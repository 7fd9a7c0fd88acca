//! What a recovery disk stands on: contents that never change, wherever they come from.

use crate::error::{Error, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::ops::Range;
use std::sync::Arc;
use tidemark_format::{BLOCK_BYTES, Extent};
use tidemark_reader::DiskImage;
use tokio::sync::mpsc;

/// An answer on its way. Safe to drop at any time.
pub type Fetch<T> = BoxFuture<'static, Result<T>>;

/// Bytes of the disk, each run with its offset, ascending.
pub type Batch = Vec<(u64, Bytes)>;

/// Contents of a disk at a point. They never change.
pub trait Source: Send + Sync + 'static {
    /// Names the contents: the same text means the same bytes, for ever.
    fn identity(&self) -> String;
    /// Size of the disk.
    fn size_bytes(&self) -> u64;
    /// Hands `range` to `hit`, once, if all of it is at hand; says whether it did.
    fn read_now(&self, range: Range<u64>, hit: &mut dyn FnMut(&[u8])) -> bool;
    /// All of `range`, which lies within the size, verified.
    fn read(&self, range: Range<u64>) -> Fetch<Bytes>;
    /// The first byte from `offset` on that is not known to be zero.
    fn next_data(&self, offset: u64) -> Fetch<Option<u64>>;
    /// The first byte from `offset` on that is known to be zero, the size at the latest.
    fn next_hole(&self, offset: u64) -> Fetch<Option<u64>>;
    /// Sends whole units out of `wanted`, which ascend, in whatever order is cheapest to get; what is left out is got
    /// by [`Self::read`] later. The default sends nothing. A closed channel ends it.
    fn scatter(&self, _wanted: Vec<Range<u64>>, _to: mpsc::Sender<Batch>) -> Fetch<()> {
        Box::pin(async { Ok(()) })
    }
}

/// A disk of a domain at a point.
#[derive(Debug)]
pub struct ImageSource(Arc<DiskImage>);

impl ImageSource {
    /// The contents of `image`.
    pub fn new(image: Arc<DiskImage>) -> Self {
        Self(image)
    }

    fn failed(&self, what: String, error: tidemark_reader::Error) -> Error {
        let what = format!("{what} of disk {} at lsn {}", self.0.id(), self.0.at().lsn);
        Error::Source { what, kind: error.kind(), source: error.into() }
    }

    fn ask<T, F>(&self, what: String, question: impl FnOnce(Arc<DiskImage>) -> F) -> Fetch<T>
    where
        F: Future<Output = tidemark_reader::Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, this) = (question(self.0.clone()), Self(self.0.clone()));
        Box::pin(async move { answer.await.map_err(|error| this.failed(what, error)) })
    }
}

impl Source for ImageSource {
    fn identity(&self) -> String {
        self.0.identity()
    }

    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_now(&self, range: Range<u64>, hit: &mut dyn FnMut(&[u8])) -> bool {
        self.0.read_cached(range.start, (range.end - range.start) as usize, hit).is_some()
    }

    fn read(&self, range: Range<u64>) -> Fetch<Bytes> {
        let len = range.end - range.start;
        let what = format!("read {len} bytes at {}", range.start);
        self.ask(what, move |image| async move { image.read(range.start, len as usize).await })
    }

    fn next_data(&self, offset: u64) -> Fetch<Option<u64>> {
        self.ask(format!("seek data from {offset}"), move |image| async move { image.next_data(offset).await })
    }

    fn next_hole(&self, offset: u64) -> Fetch<Option<u64>> {
        self.ask(format!("seek a hole from {offset}"), move |image| async move { image.next_hole(offset).await })
    }

    fn scatter(&self, wanted: Vec<Range<u64>>, to: mpsc::Sender<Batch>) -> Fetch<()> {
        let extent = |range: &Range<u64>| {
            let start = range.start / BLOCK_BYTES;
            Extent::new(start, range.end.div_ceil(BLOCK_BYTES) - start)
        };
        let wanted: Vec<Extent> = wanted.iter().map(extent).collect();
        self.ask("stream the objects".into(), move |image| async move { image.scatter(&wanted, &to).await })
    }
}
