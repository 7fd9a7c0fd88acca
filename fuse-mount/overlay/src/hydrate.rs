//! Brings in what is absent: what a boot needs first, then object by object, then what is left, from the front to the back.
//!
//! The map is all the state there is: a hydrator that was killed begins again and finds less to do. Whoever waits for the source goes
//! first. Memory is bounded by what the source streams and by [`BATCHES`] batches.
//! Invariant: only whole, verified units come in, and only where nothing is.

use crate::core::pace::{Meter, Pace, Progress, Rate};
use crate::core::states::{State, UNIT_BYTES};
use crate::error::{Error, Result};
use crate::overlay::{Finished, Overlay};
use crate::source::Batch;
use bytes::{Bytes, BytesMut};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemark_env::Env;
use tidemark_format::{ErrorKind, with_causes};
use tokio::sync::{mpsc, watch};

/// Batches that wait to be written.
const BATCHES: usize = 2;
/// Absent runs asked for at one time.
const RUNS_MAX: usize = 64 << 10;
/// Bytes read at a time where the source does not stream, and below what size damage is looked for.
const STEP_BYTES: u64 = 1 << 20;
/// How long somebody who waits for the source holds up the hydrator, at most: it must come to an end, too.
const GIVE_WAY_MAX: Duration = Duration::from_millis(100);
/// Ranges that could not be had and are told one by one.
const UNFILLED_MAX: usize = 256;

/// How to hydrate.
#[derive(Clone, Debug)]
pub struct HydrateOptions {
    /// Ranges to bring in first, in this order: what was read when the disk was last booted.
    pub first: Vec<Range<u64>>,
    /// Limit, if there is one.
    pub rate: Option<Rate>,
    /// A flush begins after so many bytes, so that a crash costs no more.
    pub flush_bytes: u64,
    /// Pause before the source is asked again after it failed.
    pub retry_pause: Duration,
}

impl Default for HydrateOptions {
    fn default() -> Self {
        Self { first: Vec::new(), rate: None, flush_bytes: 256 << 20, retry_pause: Duration::from_secs(1) }
    }
}

/// A range that nobody has the bytes of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfilled {
    /// Where.
    pub range: Range<u64>,
    /// Why not.
    pub why: String,
}

/// How a hydration ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hydrated {
    /// The disk, if nothing is absent. Durable.
    pub finished: Option<Finished>,
    /// What is absent still, because it is damaged or unknown: the first of it.
    pub unfilled: Vec<Unfilled>,
    /// Bytes of that in all.
    pub unfilled_bytes: u64,
}

/// Hydrates one disk.
pub struct Hydrator {
    overlay: Arc<Overlay>,
    options: HydrateOptions,
    env: Env,
    news: watch::Sender<Progress>,
    state: Mutex<Working>,
}

struct Working {
    pace: Pace,
    meter: Meter,
    fetched_bytes: u64,
    unflushed_bytes: u64,
}

impl Hydrator {
    /// A hydrator of `overlay`.
    pub fn new(overlay: Arc<Overlay>, options: HydrateOptions, env: Env) -> Self {
        let now = env.clock.monotonic();
        let progress = base_progress(&overlay);
        let state = Working {
            pace: Pace::new(options.rate),
            meter: Meter::new(now, progress.done_bytes),
            fetched_bytes: 0,
            unflushed_bytes: 0,
        };
        Self { overlay, options, env, news: watch::Sender::new(progress), state: Mutex::new(state) }
    }

    /// How far it is, as it goes on.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.news.subscribe()
    }

    /// Brings in everything that can be had. A source that fails is asked again, for as long as it takes; drop the future
    /// to stop.
    ///
    /// # Errors
    /// Those of the local disk, and those of the source that waiting does not mend.
    pub async fn run(&self) -> Result<Hydrated> {
        for range in &self.options.first {
            let range = range.start..range.end.min(self.overlay.size_bytes());
            self.sweep(range, &mut Missing::default()).await?;
        }
        self.stream().await?;
        let mut missing = Missing::default();
        self.sweep(0..self.overlay.size_bytes(), &mut missing).await?;
        self.overlay.flush().await?;
        let finished = self.overlay.finished();
        self.tell(0);
        Ok(Hydrated { finished, unfilled: missing.ranges, unfilled_bytes: missing.bytes })
    }

    /// What the source streams, in the order that suits it.
    async fn stream(&self) -> Result<()> {
        let mut at = 0;
        while at < self.overlay.size_bytes() {
            let mut wanted = Vec::new();
            let mut next = at;
            while wanted.len() < RUNS_MAX
                && let Some(run) = self.overlay.next_extent(State::Absent, next)
            {
                next = run.end;
                wanted.push(run);
                if next >= self.overlay.size_bytes() {
                    break;
                }
            }
            if wanted.is_empty() {
                return Ok(());
            }
            let (to, mut from) = mpsc::channel::<Batch>(BATCHES);
            let take = async move {
                while let Some(batch) = from.recv().await {
                    let bytes = batch.iter().map(|(_, bytes)| bytes.len() as u64).sum();
                    self.put_batch(batch).await?;
                    self.wait(bytes).await;
                }
                Ok(())
            };
            let (fetched, taken) = tokio::join!(self.overlay.source().scatter(wanted, to), take);
            taken?;
            match fetched {
                // What could not be streamed is met again, one by one, by the sweep.
                Ok(()) => at = next,
                Err(error) if error.kind() == ErrorKind::DataLoss => at = next,
                Err(error) => self.after(error).await?,
            }
        }
        Ok(())
    }

    async fn put_batch(&self, batch: Batch) -> Result<()> {
        let overlay = self.overlay.clone();
        let work = move || {
            let mut filled = 0;
            let mut pieces = batch.into_iter().peekable();
            while let Some((offset, first)) = pieces.next() {
                let mut end = offset + first.len() as u64;
                let follows = |end: u64| move |(at, _): &(u64, Bytes)| *at == end;
                let Some((_, second)) = pieces.next_if(follows(end)) else {
                    filled += overlay.fill(offset, &first)?;
                    continue;
                };
                let mut run = BytesMut::from(&first[..]);
                run.extend_from_slice(&second);
                end += second.len() as u64;
                while let Some((_, next)) = pieces.next_if(follows(end)) {
                    end += next.len() as u64;
                    run.extend_from_slice(&next);
                }
                filled += overlay.fill(offset, &run)?;
            }
            Ok(filled)
        };
        let filled = self.blocking(work).await?;
        self.filled(filled, filled).await
    }

    /// What is absent in `range`, from the front to the back.
    async fn sweep(&self, range: Range<u64>, missing: &mut Missing) -> Result<()> {
        let mut at = range.start / UNIT_BYTES * UNIT_BYTES;
        while at < range.end
            && let Some(run) = self.overlay.next_extent(State::Absent, at)
            && run.start < range.end
        {
            let run = run.start..run.end.min(range.end.next_multiple_of(UNIT_BYTES)).min(self.overlay.size_bytes());
            let data = match self.overlay.source().next_data(run.start).await {
                Ok(data) => data.unwrap_or(u64::MAX),
                Err(error) => {
                    self.after(error).await?;
                    continue;
                }
            };
            let zeros_end = if data >= run.end { run.end } else { data / UNIT_BYTES * UNIT_BYTES };
            at = if zeros_end > run.start {
                let (overlay, zeros) = (self.overlay.clone(), run.start..zeros_end);
                let filled = self.blocking(move || overlay.fill_zeros(zeros)).await?;
                self.filled(filled, 0).await?;
                zeros_end
            } else {
                let step = run.start..run.end.min((run.start / STEP_BYTES + 1) * STEP_BYTES);
                let end = step.end;
                self.bring(step, missing).await?;
                end
            };
        }
        Ok(())
    }

    /// Brings in one step. What is damaged in it is found by halving.
    async fn bring(&self, step: Range<u64>, missing: &mut Missing) -> Result<()> {
        let mut todo = vec![step];
        while let Some(part) = todo.pop() {
            tokio::time::timeout(GIVE_WAY_MAX, self.overlay.demand_waiting().idle()).await.ok();
            let len = part.end - part.start;
            match self.overlay.source().read(part.clone()).await {
                Ok(bytes) => {
                    let (overlay, offset) = (self.overlay.clone(), part.start);
                    let filled = self.blocking(move || overlay.fill(offset, &bytes)).await?;
                    self.filled(filled, filled).await?;
                    self.wait(len).await;
                }
                Err(error) if error.kind() == ErrorKind::DataLoss && len > UNIT_BYTES => {
                    let middle = (part.start / UNIT_BYTES + len.div_ceil(2 * UNIT_BYTES)) * UNIT_BYTES;
                    todo.extend([middle..part.end, part.start..middle]);
                }
                Err(error) if error.kind() == ErrorKind::DataLoss => missing.note(part, &error),
                Err(error) => {
                    self.after(error).await?;
                    todo.push(part);
                }
            }
        }
        Ok(())
    }

    /// After a failure of the source: a pause, if that may help.
    async fn after(&self, error: Error) -> Result<()> {
        if error.kind() != ErrorKind::Retry || !matches!(error, Error::Source { .. }) {
            return Err(error);
        }
        tracing::warn!("{}; hydration goes on when it can be reached", with_causes(&error));
        tokio::time::sleep(self.options.retry_pause).await;
        Ok(())
    }

    /// Gives way, and keeps to the rate.
    async fn wait(&self, bytes: u64) {
        tokio::time::timeout(GIVE_WAY_MAX, self.overlay.demand_waiting().idle()).await.ok();
        let pause = self.working(|state, now| state.pace.take(now, bytes));
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    async fn filled(&self, filled: u64, fetched: u64) -> Result<()> {
        self.tell(fetched);
        let due = self.working(|state, _| {
            state.unflushed_bytes += filled;
            let due = state.unflushed_bytes >= self.options.flush_bytes;
            if due {
                state.unflushed_bytes = 0;
            }
            due
        });
        if due { self.overlay.flush().await } else { Ok(()) }
    }

    fn tell(&self, fetched: u64) {
        let progress = self.working(|state, now| {
            state.fetched_bytes += fetched;
            let fetched_bytes = state.fetched_bytes;
            state.meter.note(now, Progress { fetched_bytes, ..base_progress(&self.overlay) })
        });
        self.news.send_replace(progress);
    }

    fn working<T>(&self, work: impl FnOnce(&mut Working, Duration) -> T) -> T {
        let now = self.env.clock.monotonic();
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner), now)
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|_| Err(Error::TaskLost { what: "hydrate" }))
    }
}

#[derive(Default)]
struct Missing {
    ranges: Vec<Unfilled>,
    bytes: u64,
}

impl Missing {
    fn note(&mut self, range: Range<u64>, error: &Error) {
        self.bytes += range.end - range.start;
        let full = self.ranges.len() == UNFILLED_MAX;
        match self.ranges.last_mut() {
            Some(last) if last.range.end == range.start => last.range.end = range.end,
            _ if full => {}
            _ => self.ranges.push(Unfilled { range, why: with_causes(error) }),
        }
    }
}

fn base_progress(overlay: &Overlay) -> Progress {
    let (total_bytes, units) = (overlay.size_bytes(), overlay.stats().units);
    let done_bytes = ((units.clean + units.dirty) * UNIT_BYTES).min(total_bytes);
    Progress { done_bytes, total_bytes, ..Progress::default() }
}
