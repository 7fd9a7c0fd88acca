//! How a writer is set up.

use crate::error::{Error, Result};
use std::time::Duration;
use tidemark_format::{BLOCK_BYTES, OBJECT_BYTES_MAX};

/// Segments that may be under way at once, whatever the options say: how far behind a hole a successor has to look.
pub const IN_FLIGHT_SEGMENTS_LIMIT: u32 = 16;
/// Bytes of one guest write at most.
pub const WRITE_BYTES_MAX: u64 = 32 << 20;
/// Plaintext bytes of one segment at most, before the write that fills it.
pub const SEGMENT_BYTES_LIMIT: u64 = 128 << 20;
/// Writes and events of one segment at most: bounds its index, whatever their size.
pub const SEGMENT_ENTRIES_MAX: usize = 1 << 18;

// A full segment, incompressible, with a row of 40 bytes an entry, fits one PUT.
const _: () =
    assert!(SEGMENT_BYTES_LIMIT + WRITE_BYTES_MAX + (SEGMENT_ENTRIES_MAX as u64) * 40 + (32 << 20) < OBJECT_BYTES_MAX);

/// Limits and habits of a writer. `Default` is what a DRVA starts from.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Written into the claim, for people: which machine or appliance this is.
    pub owner: String,
    /// A segment is cut once it holds this many bytes of writes.
    pub segment_bytes_max: u64,
    /// A segment is cut once its first write is this old: the RPO setting.
    pub age_ms_max: u64,
    /// Segments under way at once, at most [`IN_FLIGHT_SEGMENTS_LIMIT`].
    pub in_flight_segments_max: u32,
    /// Bytes of writes and segments held in memory; beyond it submitting waits.
    pub buffer_bytes_max: u64,
    /// Threads that compress, hash and verify.
    pub compress_threads_max: usize,
    /// How far these threads stand behind the process's others for the processor, 0 to 19, as with nice(1).
    pub compress_niceness: u8,
    /// zstd level, 1 to 19.
    pub zstd_level: i32,
    /// First pause after a failed request; doubled each time.
    pub retry_ms_first: u64,
    /// Longest pause between requests that keep failing.
    pub retry_ms_max: u64,
    /// The hint is refreshed every so many segments, and when the writer closes.
    pub hint_every_segments: u64,
    /// How the store is trusted.
    pub attach: Attach,
}

/// Whether the store's promises are tested when the writer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// Probe it; a store that cannot create atomically is refused.
    Probe,
    /// It is known to create atomically: it was probed when the domain was made.
    KnownCas,
    /// The operator vouches that there is only this one writer.
    AttestedSingle,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            owner: String::new(),
            segment_bytes_max: 64 << 20,
            age_ms_max: 5_000,
            in_flight_segments_max: 4,
            buffer_bytes_max: 384 << 20,
            compress_threads_max: std::thread::available_parallelism().map_or(2, usize::from),
            compress_niceness: 0,
            zstd_level: 1,
            retry_ms_first: 100,
            retry_ms_max: 10_000,
            hint_every_segments: 16,
            attach: Attach::Probe,
        }
    }
}

impl WriterOptions {
    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        let no = |option, value: u64, why| Err(Error::Option { option, value, why });
        if self.segment_bytes_max == 0 || self.segment_bytes_max > SEGMENT_BYTES_LIMIT {
            return no("segment_bytes_max", self.segment_bytes_max, "a segment holds 1 byte to 128 MiB");
        }
        if self.in_flight_segments_max == 0 || self.in_flight_segments_max > IN_FLIGHT_SEGMENTS_LIMIT {
            return no(
                "in_flight_segments_max",
                self.in_flight_segments_max.into(),
                "1 to 16 segments may be under way",
            );
        }
        let buffer = u64::from(u32::MAX >> 3) * BLOCK_BYTES;
        if !(2 * self.segment_bytes_max + WRITE_BYTES_MAX..=buffer).contains(&self.buffer_bytes_max) {
            return no(
                "buffer_bytes_max",
                self.buffer_bytes_max,
                "two segments and 32 MiB have to fit, and 256 GiB is the end",
            );
        }
        if self.compress_threads_max == 0 {
            return no("compress_threads_max", 0, "somebody has to compress");
        }
        if self.compress_niceness > 19 {
            return no("compress_niceness", self.compress_niceness.into(), "19 is the last step");
        }
        if !(1..=19).contains(&self.zstd_level) {
            return no("zstd_level", self.zstd_level.unsigned_abs().into(), "zstd knows levels 1 to 19");
        }
        if self.retry_ms_first == 0 || self.retry_ms_max < self.retry_ms_first {
            return no("retry_ms_max", self.retry_ms_max, "pauses grow from retry_ms_first, which is at least 1");
        }
        if self.hint_every_segments == 0 {
            return no("hint_every_segments", 0, "at least 1");
        }
        Ok(())
    }

    pub(crate) fn age_max(&self) -> Duration {
        Duration::from_millis(self.age_ms_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_options_that_cannot_are_refused() {
        let good = WriterOptions::default;
        assert!(good().check().is_ok());
        for bad in [
            WriterOptions { segment_bytes_max: 0, ..good() },
            WriterOptions { segment_bytes_max: SEGMENT_BYTES_LIMIT + 1, buffer_bytes_max: 1 << 30, ..good() },
            WriterOptions { in_flight_segments_max: 0, ..good() },
            WriterOptions { in_flight_segments_max: IN_FLIGHT_SEGMENTS_LIMIT + 1, ..good() },
            WriterOptions { buffer_bytes_max: 128 << 20, ..good() },
            WriterOptions { buffer_bytes_max: u64::MAX, ..good() },
            WriterOptions { compress_threads_max: 0, ..good() },
            WriterOptions { compress_niceness: 20, ..good() },
            WriterOptions { zstd_level: 0, ..good() },
            WriterOptions { zstd_level: 23, ..good() },
            WriterOptions { retry_ms_first: 0, ..good() },
            WriterOptions { retry_ms_max: 1, ..good() },
            WriterOptions { hint_every_segments: 0, ..good() },
        ] {
            assert!(matches!(bad.check(), Err(Error::Option { .. })), "{bad:?}");
        }
    }
}
