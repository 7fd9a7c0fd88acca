//! Limits of a reader. Every one has its unit in its name.

use crate::pins::PinOptions;
use std::time::Duration;
use tidemark_history::HeadOptions;

/// Whether a reader looks for an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexUse {
    /// Uses it if there is one.
    #[default]
    IfThere,
    /// Reads the log alone, at level R0: opening costs a request for each segment of the history.
    Never,
}

/// How much memory, parallelism and patience a reader has.
#[derive(Clone, Debug)]
pub struct ReaderOptions {
    /// Bytes of disk contents kept ready to be handed out, over all images.
    pub cache_bytes_max: u64,
    /// Bytes of decoded frames kept besides, over all images.
    pub frame_cache_bytes_max: u64,
    /// Bytes of resolved extent maps kept, over all images.
    pub map_cache_bytes_max: u64,
    /// Whether to look for an index.
    pub index: IndexUse,
    /// Bytes of the index's tables kept, over all images.
    pub index_cache_bytes_max: u64,
    /// Bytes of heads of segments that the index covers kept, over all images.
    pub head_cache_bytes_max: u64,
    /// A refresh looks for a newer root once so many segments are not covered by the index.
    pub unindexed_segments_max: usize,
    /// How long one read, open or refresh may take before it fails with kind `Retry`.
    pub request_deadline: Duration,
    /// Requests to the bucket that one open or one read keeps in flight.
    pub requests_in_flight_max: usize,
    /// Neighbouring frames of one object are fetched by one request if the gap between them is at most this.
    pub coalesce_gap_bytes_max: u64,
    /// One coalesced request covers at most this.
    pub coalesce_bytes_max: u64,
    /// First bytes of a segment that are read to open it; one request suffices if its head is not longer.
    pub head_bytes: u64,
    /// First window of a stream that turned out to be sequential.
    pub prefetch_start_bytes: u64,
    /// Largest window of a sequential stream; 0 turns prefetching off.
    pub prefetch_bytes_max: u64,
    /// Bytes that all streams of all images may have in flight at a time.
    pub prefetch_in_flight_bytes_max: u64,
    /// How often an object that must exist is asked for again after the store called it absent.
    pub absent_retries_max: u32,
    /// Keeps what is read by in the bucket, whatever maintenance deletes meanwhile. Without it, a reader whose tables or segments
    /// are deleted gets errors.
    pub pin: Option<PinOptions>,
}

impl ReaderOptions {
    pub(crate) fn heads(&self) -> HeadOptions {
        HeadOptions {
            head_bytes: self.head_bytes,
            request_deadline: self.request_deadline,
            requests_in_flight_max: self.requests_in_flight_max,
            absent_retries_max: self.absent_retries_max,
        }
    }
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self {
            cache_bytes_max: 256 << 20,
            frame_cache_bytes_max: 64 << 20,
            map_cache_bytes_max: 64 << 20,
            index: IndexUse::IfThere,
            index_cache_bytes_max: 64 << 20,
            head_cache_bytes_max: 64 << 20,
            unindexed_segments_max: 256,
            request_deadline: Duration::from_secs(30),
            requests_in_flight_max: 32,
            coalesce_gap_bytes_max: 256 << 10,
            coalesce_bytes_max: 8 << 20,
            head_bytes: 128 << 10,
            prefetch_start_bytes: 512 << 10,
            prefetch_bytes_max: 16 << 20,
            prefetch_in_flight_bytes_max: 64 << 20,
            absent_retries_max: 3,
            pin: None,
        }
    }
}
