//! Lays out, compresses, verifies and hashes a segment on a bounded number of threads, and seals its head.
//!
//! A segment is compressed in jobs of a few frames, so that two threads share even a single one. Each thread keeps its
//! zstd contexts and its frame buffer; the writes' bytes are copied once, into that buffer, and not at all where a frame
//! is one run of one write.

use crate::core::layout::{Entry, Layout, lay_out};
use bytes::Bytes;
use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use tidemark_bucket::Pieces;
use tidemark_format::{
    FRAME_PLAIN_BYTES_MAX, FormatError, FrameCompressor, FrameEntry, Row, SegmentDraft, seal_segment,
};
use tokio::sync::{Semaphore, oneshot};

/// Frames of one job: about 2 MiB, a few milliseconds.
const FRAMES_A_JOB: usize = 32;

/// The threads that compress. They end when the last clone is dropped and the work is done.
#[derive(Clone, Debug)]
pub(crate) struct Compressors {
    /// One permit a thread: so many jobs are out at most.
    idle: Arc<Semaphore>,
    jobs: SyncSender<Job>,
    threads_max: usize,
    level: i32,
}

type Job = Box<dyn FnOnce() + Send>;

/// A segment whose bytes are ready to be stored.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) rows: Vec<Row>,
    pub(crate) frames: Vec<FrameEntry>,
    /// The stored bytes of each frame.
    pub(crate) data: Vec<Bytes>,
}

/// A sealed segment: its bytes never change again.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) object: Pieces,
    pub(crate) header_hash: [u8; 32],
}

impl Built {
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.stored_len)).sum()
    }
}

impl Compressors {
    /// Starts `threads_max` threads, each `niceness` steps below what the process has (nice(2): 0 to 19).
    ///
    /// # Errors
    /// If the system gives no threads.
    pub(crate) fn new(threads_max: usize, level: i32, niceness: u8) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(threads_max);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads_max {
            let queue = queue.clone();
            std::thread::Builder::new().name("compress".to_owned()).spawn(move || {
                // On Linux a thread has a niceness of its own. Without it the work is done all the same.
                let _ = rustix::process::nice(niceness.into());
                loop {
                    let next = queue.lock().expect("nobody panics while waiting for work").recv();
                    let Ok(job) = next else { return };
                    job();
                }
            })?;
        }
        Ok(Self { idle: Arc::new(Semaphore::new(threads_max)), jobs, threads_max, level })
    }

    /// Turns writes into rows and stored frames.
    pub(crate) async fn build(&self, entries: Vec<Entry>) -> Result<Built, FormatError> {
        let (entries, layout) = self
            .run(move || {
                let layout = lay_out(&entries);
                Ok((Arc::new(entries), Arc::new(layout)))
            })
            .await?;
        let count = layout.frames.len();
        // Each thread takes the next frames until none are left: handing out every job anew would let threads sleep between.
        let next = Arc::new(AtomicUsize::new(0));
        let shares = (0..self.threads_max.min(count.div_ceil(FRAMES_A_JOB))).map(|_| {
            let (entries, layout, next, level) = (entries.clone(), layout.clone(), next.clone(), self.level);
            self.run(move || {
                let mut share = Vec::new();
                loop {
                    let first = next.fetch_add(FRAMES_A_JOB, Ordering::Relaxed);
                    if first >= count {
                        return Ok(share);
                    }
                    let frames = first..(first + FRAMES_A_JOB).min(count);
                    share.push((first, compress(&entries, &layout, frames, level)?));
                }
            })
        });
        let mut done: Vec<_> = futures::future::try_join_all(shares).await?.into_iter().flatten().collect();
        done.sort_unstable_by_key(|(first, _)| *first);
        let mut built = Built { rows: Vec::new(), frames: Vec::with_capacity(count), data: Vec::with_capacity(count) };
        for (entry, bytes) in done.into_iter().flat_map(|(_, frames)| frames) {
            built.frames.push(entry);
            built.data.push(bytes);
        }
        built.rows = Arc::try_unwrap(layout).map_or_else(|shared| shared.rows.clone(), |layout| layout.rows);
        Ok(built)
    }

    /// Runs `job` on one of the threads.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, FormatError> + Send + 'static,
    ) -> Result<T, FormatError> {
        let thread = self.idle.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (answer, done) = oneshot::channel();
        let job = move || {
            // A panic is whoever waits' affair.
            let result = std::panic::catch_unwind(AssertUnwindSafe(job));
            drop(thread);
            // Whoever waited may have gone.
            let _ = answer.send(result);
        };
        self.jobs.send(Box::new(job)).expect("the threads stay while there are senders");
        match done.await.expect("a job that was taken is done") {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Seals the head of a log or base segment. Runs on a blocking thread: encoding an index takes a millisecond or two.
pub(crate) fn freeze(draft: &SegmentDraft<'_>, data: Vec<Bytes>) -> Result<Frozen, FormatError> {
    let head = seal_segment(draft)?;
    let mut parts = Vec::with_capacity(data.len() + 1);
    parts.push(Bytes::from(head.bytes));
    parts.extend(data);
    let object = Pieces::from(parts);
    assert!(object.len() == head.total_len, "object has {} bytes, its header says {}", object.len(), head.total_len);
    Ok(Frozen { object, header_hash: head.header_hash })
}

struct Tools {
    level: i32,
    compressor: FrameCompressor,
    gathered: Vec<u8>,
}

thread_local! {
    static TOOLS: RefCell<Option<Tools>> = const { RefCell::new(None) };
}

fn compress(
    entries: &[Entry],
    layout: &Layout,
    frames: Range<usize>,
    level: i32,
) -> Result<Vec<(FrameEntry, Bytes)>, FormatError> {
    TOOLS.with_borrow_mut(|slot| {
        let tools = match slot.take().filter(|tools| tools.level == level) {
            Some(tools) => slot.insert(tools),
            None => slot.insert(Tools {
                level,
                compressor: FrameCompressor::new(level)?,
                gathered: Vec::with_capacity(FRAME_PLAIN_BYTES_MAX as usize),
            }),
        };
        let mut done = Vec::with_capacity(frames.len());
        for slices in &layout.frames[frames] {
            let slices = &layout.slices[slices.clone()];
            let plain = if let [only] = slices {
                only.of(entries)
            } else {
                tools.gathered.clear();
                for slice in slices {
                    tools.gathered.extend_from_slice(slice.of(entries));
                }
                &tools.gathered
            };
            let stored = tools.compressor.compress(plain)?;
            done.push((stored.entry, Bytes::from(stored.bytes)));
        }
        Ok(done)
    })
}
