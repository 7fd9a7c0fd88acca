//! Decoded frames: fetched once however many readers wait, verified before anybody sees a byte, kept within a bound.
//!
//! Single flight by (object, frame): the first reader that misses starts a task, the others wait for its result. The task
//! outlives a reader that gave up, so nobody is left waiting. Neighbouring frames share one ranged GET.
//! A frame that fails its check is fetched once more by itself, because bytes may also break on the way; then it is
//! damaged, and its neighbours are not.

use crate::cache::lock;
use crate::error::{Error, Result};
use crate::options::ReaderOptions;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tidemark_bucket::ReadOnly;
use tidemark_format::{ErrorKind, FormatError, FrameDecoder, FrameEntry};
use tidemark_history::{Run, Segment, coalesce};
use tokio::sync::{Notify, Semaphore};

/// Frames that are decoded before other tasks have a turn: about a millisecond.
const FRAMES_A_TURN: usize = 16;

/// A frame of an opened segment.
type FrameId = (u32, u32);
type Outcome = Result<Bytes, Arc<Error>>;

/// A fetch that somebody waits for.
#[derive(Debug, Default)]
struct Flight {
    outcome: OnceLock<Outcome>,
    landed: Notify,
}

impl Flight {
    async fn wait(&self) -> Outcome {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            landed.await;
        }
    }
}

/// Decoded frames within a bound of bytes; the ones not used lately go first (CLOCK).
#[derive(Debug, Default)]
struct Kept {
    frames: HashMap<FrameId, (Bytes, AtomicBool)>,
    clock: VecDeque<FrameId>,
    bytes: u64,
}

impl Kept {
    fn get(&self, id: FrameId) -> Option<Bytes> {
        let (bytes, used) = self.frames.get(&id)?;
        used.store(true, Ordering::Relaxed);
        Some(bytes.clone())
    }

    fn put(&mut self, id: FrameId, bytes: Bytes, bytes_max: u64) {
        if self.frames.contains_key(&id) || bytes.len() as u64 > bytes_max {
            return;
        }
        self.bytes += bytes.len() as u64;
        self.frames.insert(id, (bytes, AtomicBool::new(false)));
        self.clock.push_back(id);
        while self.bytes > bytes_max {
            let Some(oldest) = self.clock.pop_front() else { break };
            match self.frames.get(&oldest) {
                Some((_, used)) if used.swap(false, Ordering::Relaxed) => self.clock.push_back(oldest),
                _ => {
                    let freed = self.frames.remove(&oldest).map_or(0, |(bytes, _)| bytes.len() as u64);
                    self.bytes -= freed;
                }
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FrameStore {
    bucket: ReadOnly,
    kept: Mutex<Kept>,
    flights: Mutex<HashMap<FrameId, Arc<Flight>>>,
    requests: Semaphore,
    bytes_max: u64,
    gap_bytes_max: u64,
    run_bytes_max: u64,
}

impl FrameStore {
    pub(crate) fn new(bucket: ReadOnly, options: &ReaderOptions) -> Self {
        Self {
            bucket,
            kept: Mutex::default(),
            flights: Mutex::default(),
            requests: Semaphore::new(options.requests_in_flight_max.max(1)),
            bytes_max: options.frame_cache_bytes_max,
            gap_bytes_max: options.coalesce_gap_bytes_max,
            run_bytes_max: options.coalesce_bytes_max,
        }
    }

    /// The plaintext of `frames` (ascending, without repeats) of `segment`, one outcome each, in order.
    pub(crate) async fn get(self: &Arc<Self>, segment: &Arc<Segment>, frames: &[u32]) -> Vec<Outcome> {
        enum Place {
            Here(Bytes),
            Flying(Arc<Flight>),
        }
        let mut mine = Vec::new();
        let places: Vec<Place> = {
            let kept = lock(&self.kept);
            let mut flights = lock(&self.flights);
            frames
                .iter()
                .map(|&frame| {
                    let id = (segment.uid, frame);
                    if let Some(bytes) = kept.get(id) {
                        return Place::Here(bytes);
                    }
                    let flight = flights.entry(id).or_insert_with(|| {
                        mine.push(frame);
                        Arc::default()
                    });
                    Place::Flying(Arc::clone(flight))
                })
                .collect()
        };
        let ranges = mine.iter().filter_map(|&f| Some((f, segment.head.frames.object_range(f as usize)?)));
        debug_assert!(mine.iter().all(|f| (*f as usize) < segment.head.frames.len()), "frames come from the directory");
        for run in coalesce(ranges, self.gap_bytes_max, self.run_bytes_max) {
            let landing = Landing { store: Arc::clone(self), uid: segment.uid, frames: run.frames.clone() };
            tokio::spawn(Arc::clone(self).fetch(Arc::clone(segment), run, landing));
        }
        let mut outcomes = Vec::with_capacity(places.len());
        for place in places {
            outcomes.push(match place {
                Place::Here(bytes) => Ok(bytes),
                Place::Flying(flight) => flight.wait().await,
            });
        }
        outcomes
    }

    async fn fetch(self: Arc<Self>, segment: Arc<Segment>, run: Run, mut landing: Landing) {
        let _permit = self.requests.acquire().await;
        let whole = match self.bucket.get_range(&segment.key, run.bytes.clone()).await {
            Ok(bytes) => Some(bytes),
            // An object that ends too early may still hold some of the frames, and bytes may get lost on the way.
            Err(error) if error.kind() == ErrorKind::DataLoss => None,
            Err(source) => return landing.fail(Error::Store { key: segment.key, source }),
        };
        for (i, &frame) in run.frames.iter().enumerate() {
            if i % FRAMES_A_TURN == FRAMES_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
            let first_try = whole.as_ref().and_then(|bytes| {
                let range = segment.head.frames.object_range(frame as usize)?;
                let (from, to) = (range.start - run.bytes.start, range.end - run.bytes.start);
                decode(&segment, frame, bytes.get(from as usize..to as usize)?).ok()
            });
            let outcome = match first_try {
                Some(bytes) => Ok(bytes),
                None => self.fetch_alone(&segment, frame).await,
            };
            if let Ok(bytes) = &outcome {
                lock(&self.kept).put((segment.uid, frame), bytes.clone(), self.bytes_max);
            }
            landing.land(frame, outcome.map_err(Arc::new));
        }
    }

    async fn fetch_alone(&self, segment: &Segment, frame: u32) -> Result<Bytes> {
        let range = segment.head.frames.object_range(frame as usize).ok_or(Error::TaskLost)?;
        let stored = self.bucket.get_range(&segment.key, range).await;
        let stored = stored.map_err(|source| Error::Store { key: segment.key, source })?;
        decode(segment, frame, &stored).map_err(|source| Error::Format { key: segment.key, source })
    }

    /// Bytes of decoded frames.
    pub(crate) fn kept_bytes(&self) -> u64 {
        lock(&self.kept).bytes
    }
}

/// The flights that a fetch has to end, whatever becomes of it.
struct Landing {
    store: Arc<FrameStore>,
    uid: u32,
    frames: Vec<u32>,
}

impl Landing {
    fn land(&mut self, frame: u32, outcome: Outcome) {
        self.frames.retain(|f| *f != frame);
        if let Some(flight) = lock(&self.store.flights).remove(&(self.uid, frame)) {
            // Only the task that made the flight ends it.
            let _ = flight.outcome.set(outcome);
            flight.landed.notify_waiters();
        }
    }

    fn fail(&mut self, error: Error) {
        let error = Arc::new(error);
        for frame in std::mem::take(&mut self.frames) {
            self.land(frame, Err(Arc::clone(&error)));
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.fail(Error::TaskLost);
    }
}

/// Verifies and decodes one frame.
pub(crate) fn decode(segment: &Segment, frame: u32, stored: &[u8]) -> Result<Bytes, FormatError> {
    thread_local! {
        static DECODER: RefCell<Option<FrameDecoder>> = const { RefCell::new(None) };
    }
    let what = "frame directory";
    let entry: &FrameEntry = segment.head.frames.entry(frame as usize).ok_or(FormatError::TooShort {
        what,
        need: u64::from(frame) + 1,
        have: segment.head.frames.len() as u64,
    })?;
    DECODER.with_borrow_mut(|slot| {
        let decoder = match slot {
            Some(decoder) => decoder,
            None => slot.insert(FrameDecoder::new()?),
        };
        let mut plain = Vec::with_capacity(entry.plain_len as usize);
        decoder.decode(entry, stored, &mut plain)?;
        Ok(Bytes::from(plain))
    })
}
