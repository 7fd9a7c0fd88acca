//! What this machine can reach: zstd level 1 and BLAKE3 over the same data on the same number of threads, and nothing else.

use anyhow::Result;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidemark_env::Clock;
use tidemark_format::FRAME_PLAIN_BYTES_MAX;

/// Time to compress and to hash every frame of `data`, each thread taking the next frame.
pub(crate) fn zstd_and_blake3(data: &[u8], threads: usize, clock: &dyn Clock) -> Result<Duration> {
    let started = clock.monotonic();
    let next = AtomicUsize::new(0);
    let frame_bytes = FRAME_PLAIN_BYTES_MAX as usize;
    let work = || -> Result<u64> {
        let mut compressor = zstd::bulk::Compressor::new(1)?;
        let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(frame_bytes));
        let mut sum = 0u64;
        while let Some(frame) = data.chunks(frame_bytes).nth(next.fetch_add(1, Ordering::Relaxed)) {
            out.clear();
            sum += compressor.compress_to_buffer(frame, &mut out)? as u64;
            sum += u64::from(blake3::hash(frame).as_bytes()[0]);
        }
        Ok(sum)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            // The sum keeps the work from being optimised away.
            std::hint::black_box(worker.join().expect("a worker does not panic")?);
        }
        Ok(clock.monotonic().saturating_sub(started))
    })
}
