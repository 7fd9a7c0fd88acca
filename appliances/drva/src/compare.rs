//! What the bucket has of a disk, to compare with after a gap.

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use tidemark_bucket::ReadOnly;
use tidemark_env::Env;
use tidemark_format::{BLOCK_BYTES, DiskId, Extent};
use tidemark_reader::{DiskImage, Domain, ReaderOptions};
use tidemark_replication::Compare;

/// Memory for what is read of the bucket.
const CACHE_BYTES: u64 = 64 << 20;

/// The disk as it was when its last gap began, or nothing.
pub(crate) struct BeforeGap {
    image: Option<Arc<DiskImage>>,
}

impl BeforeGap {
    /// Nothing is known: all that is looked at counts as different.
    pub(crate) fn nothing() -> Self {
        Self { image: None }
    }

    /// Opens the bucket at the point where the newest gap of a disk began. What cannot be opened is not known: comparing
    /// only saves work.
    pub(crate) async fn open(bucket: ReadOnly, env: Env, disk: DiskId) -> Self {
        let options = ReaderOptions { cache_bytes_max: CACHE_BYTES, ..ReaderOptions::default() };
        let Ok(domain) = Domain::open(bucket, options, env).await else { return Self::nothing() };
        let timeline = domain.timeline();
        let gap = timeline.gaps().iter().filter(|gap| gap.disk == disk).max_by_key(|gap| gap.from);
        let Some(gap) = gap else { return Self::nothing() };
        Self { image: domain.disk(disk, gap.from).await.ok() }
    }
}

#[async_trait]
impl Compare for BeforeGap {
    async fn known(&self, _: DiskId, extent: Extent) -> Option<Bytes> {
        let image = self.image.as_ref()?;
        image.read(extent.start * BLOCK_BYTES, extent.byte_len() as usize).await.ok()
    }
}
