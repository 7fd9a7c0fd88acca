//! Turns an operation into attempts on a store: limits first, then a time-out inside a retry, each attempt counted.
//!
//! Invariants: no more requests or body bytes under way than the options allow; an operation ends within its patience;
//! an answer shorter than the object allows is an attempt that failed, never a result.
//! Not here: who may do what ([`crate::handles`]).

use crate::error::{At, Cause, Error, Result};
use crate::meter::{Count, Meter, Op};
use crate::options::BucketOptions;
use crate::pieces::{Pieces, join};
use crate::probe::StoreMode;
use crate::store::{CreatePromise, Failure, Got, Put, PutRule, Store};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemark_format::{KeyFamily, ObjectKey};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// Most bytes fetched by one request of a body whose length is not known.
const CHUNK_BYTES: u64 = 8 << 20;
/// Longest time granted to a transfer, whatever length was asked for.
const TRANSFER_MAX: Duration = Duration::from_secs(3600);
/// Attempts that may come back short before the object is taken to be damaged.
const SHORT_ATTEMPTS_MAX: u32 = 3;
/// Bodies up to this length do not wait for the byte limit: a claim must not queue behind a segment's upload.
const SMALL_BODY_BYTES: u64 = 64 << 10;
/// Unit of the byte limit.
const PERMIT_BYTES: u64 = 4 << 10;

/// A store with limits, patience and a meter.
pub(crate) struct Dispatch {
    store: Arc<dyn Store>,
    location: Arc<str>,
    options: BucketOptions,
    meter: Meter,
    limits: Arc<Limits>,
    /// True once a probe has shown that the store honours create-if-absent.
    creates: AtomicBool,
}

struct Limits {
    requests: Arc<Semaphore>,
    permits: Arc<Semaphore>,
    permits_max: u32,
}

/// What holds an operation's share of the limits.
struct Share {
    _request: OwnedSemaphorePermit,
    _bytes: Option<OwnedSemaphorePermit>,
}

/// A result, and what the attempts before it may have left behind.
struct Outcome<T> {
    value: T,
    /// True if an earlier attempt ended without an answer and so may have been applied.
    ambiguous: bool,
}

impl Dispatch {
    pub(crate) fn new(store: Arc<dyn Store>, location: Arc<str>, options: BucketOptions) -> Self {
        let permits_max =
            options.bytes_in_flight_max.div_ceil(PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS as u64 / 2);
        let permits_max = u32::try_from(permits_max).unwrap_or(u32::MAX / 2);
        let limits = Limits {
            requests: Arc::new(Semaphore::new(options.requests_in_flight_max.max(1) as usize)),
            permits: Arc::new(Semaphore::new(permits_max as usize)),
            permits_max,
        };
        let creates = AtomicBool::new(store.create() == CreatePromise::Ours);
        Self { store, location, options, meter: Meter::default(), limits: Arc::new(limits), creates }
    }

    /// The same bucket with `wrap` around its store; limits and meter stay shared.
    pub(crate) fn with_store(&self, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        Self {
            store: wrap(self.store.clone()),
            location: self.location.clone(),
            options: self.options.clone(),
            meter: self.meter.clone(),
            limits: self.limits.clone(),
            creates: AtomicBool::new(self.creates.load(Ordering::Relaxed)),
        }
    }

    pub(crate) fn location(&self) -> &Arc<str> {
        &self.location
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Records what a probe found: only then are conditional puts sent where they are not needed for safety.
    pub(crate) fn record_mode(&self, mode: StoreMode) {
        self.creates.store(mode == StoreMode::Cas, Ordering::Relaxed);
    }

    /// The whole object.
    pub(crate) async fn get(&self, key: &ObjectKey) -> Result<Bytes> {
        self.get_prefix(key, u64::MAX).await
    }

    /// The first bytes of the object: `len_max` of them, or all.
    pub(crate) async fn get_prefix(&self, key: &ObjectKey, len_max: u64) -> Result<Bytes> {
        let mut parts = Vec::new();
        let mut at = 0;
        loop {
            let wanted = CHUNK_BYTES.min(len_max - at);
            let got = self.get_some(key, at, wanted).await?;
            let received = got.bytes.len() as u64;
            at += received;
            parts.push(got.bytes);
            let at_end = got.object_len.map_or(received < wanted, |len| at >= len);
            if at_end || at == len_max {
                return Ok(join(parts));
            }
        }
    }

    /// Exactly the bytes in `range`.
    pub(crate) async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes> {
        let wanted = range.end.saturating_sub(range.start);
        let got = self.get_some(key, range.start, wanted).await?.bytes;
        if got.len() as u64 == wanted {
            return Ok(got);
        }
        Err(Error::Short { at: self.at(Op::Get, key.to_string()), offset: range.start, wanted, got: got.len() as u64 })
    }

    /// Up to `len_max` bytes from `offset`, never fewer than the object has there.
    async fn get_some(&self, key: &ObjectKey, offset: u64, len_max: u64) -> Result<Got> {
        let (text, family) = (key.to_string(), key.family());
        let mut short = 0;
        loop {
            let got = self
                .run(Op::Get, family, &text, len_max, || async {
                    let got = self.store.get(&text, offset, len_max).await?;
                    self.meter.add(Op::Get, family, Count { requests: 0, bytes: got.bytes.len() as u64 });
                    Ok(got)
                })
                .await?
                .value;
            let received = got.bytes.len() as u64;
            let wanted = got.object_len.map_or(received, |len| len.saturating_sub(offset).min(len_max));
            if received == wanted {
                return Ok(got);
            }
            short += 1;
            tracing::warn!(key = %text, location = %self.location, wanted, received, "the store cut an answer short");
            if received > wanted || short >= SHORT_ATTEMPTS_MAX {
                return Err(Error::Short { at: self.at(Op::Get, text), offset, wanted, got: received });
            }
        }
    }

    /// Stores `body` if nothing is there. `false` if another body is.
    pub(crate) async fn create(&self, key: &ObjectKey, body: Pieces) -> Result<bool> {
        let done = self.put_under(key, body.clone(), PutRule::IfAbsent).await?;
        match done.value {
            Put::Stored => Ok(true),
            // Our own earlier attempt may be what stands there: its answer was lost (docs/lessons.md L14).
            Put::Exists if done.ambiguous => {
                Ok(self.head(key).await? == body.len() && self.get(key).await? == body.slice(0, u64::MAX))
            }
            Put::Exists => Ok(false),
        }
    }

    /// Stores `body` under a key that holds one byte string for ever. `false` if it is there already.
    pub(crate) async fn put_immutable(&self, key: &ObjectKey, body: Pieces) -> Result<bool> {
        let rule = if self.creates.load(Ordering::Relaxed) { PutRule::IfAbsent } else { PutRule::Overwrite };
        if self.put_under(key, body.clone(), rule).await?.value == Put::Stored {
            return Ok(true);
        }
        // The first bytes of a segment hold a hash of the rest.
        const HEADER_BYTES: u64 = 512;
        let telling = match key.family() {
            KeyFamily::Log | KeyFamily::Base => HEADER_BYTES,
            _ => u64::MAX,
        };
        let same =
            self.head(key).await? == body.len() && self.get_prefix(key, telling).await? == body.slice(0, telling);
        if same { Ok(false) } else { Err(Error::Collision { at: self.at(Op::Put, key.to_string()) }) }
    }

    /// Stores `body`, whatever is there.
    pub(crate) async fn put_mutable(&self, key: &ObjectKey, body: Pieces) -> Result<()> {
        self.put_under(key, body, PutRule::Overwrite).await.map(|_| ())
    }

    async fn put_under(&self, key: &ObjectKey, body: Pieces, rule: PutRule) -> Result<Outcome<Put>> {
        let (text, family) = (key.to_string(), key.family());
        self.run(Op::Put, family, &text, body.len(), || {
            self.meter.add(Op::Put, family, Count { requests: 0, bytes: body.len() });
            self.store.put(&text, body.clone(), rule)
        })
        .await
    }

    /// Length of the object in bytes.
    pub(crate) async fn head(&self, key: &ObjectKey) -> Result<u64> {
        let text = key.to_string();
        Ok(self.run(Op::Head, key.family(), &text, 0, || self.store.head(&text)).await?.value)
    }

    /// Every key of a family with its length in bytes, sorted.
    pub(crate) async fn list(&self, family: KeyFamily) -> Result<Vec<(String, u64)>> {
        const PAGE_KEYS: u64 = 1000;
        let prefix = family.prefix();
        let mut found = self.run(Op::List, family, prefix, 0, || self.store.list(prefix)).await?.value;
        self.meter.add(Op::List, family, Count { requests: found.len() as u64 / PAGE_KEYS, bytes: 0 });
        if family == KeyFamily::Volatile {
            found.retain(|(key, _)| !key.starts_with(KeyFamily::Statistics.prefix()));
        }
        Ok(found)
    }

    pub(crate) async fn delete(&self, key: &ObjectKey) -> Result<()> {
        let text = key.to_string();
        self.run(Op::Delete, key.family(), &text, 0, || self.store.delete(&text)).await.map(|_| ())
    }

    /// Makes attempts until one succeeds, fails for good, or patience ends.
    async fn run<T, Attempt>(
        &self,
        op: Op,
        family: KeyFamily,
        key: &str,
        body_bytes: u64,
        mut attempt: impl FnMut() -> Attempt,
    ) -> Result<Outcome<T>>
    where
        Attempt: Future<Output = Result<T, Failure>>,
    {
        let started = Instant::now();
        let transfer_ms = body_bytes.saturating_mul(1000) / self.options.bytes_per_second_min.max(1);
        let transfer = Duration::from_millis(transfer_ms).min(TRANSFER_MAX);
        let deadline = started + self.options.give_up_after + transfer;
        let mut attempts = 0;
        let gave_up = |attempts: u32, source: Cause| {
            let waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            Error::Unavailable { at: self.at(op, key), attempts, waited_ms, source }
        };
        let Ok(_share) = timeout_at(deadline, self.limits.share(body_bytes)).await else {
            return Err(gave_up(0, Cause::new("earlier requests left no room for this one")));
        };
        let mut ambiguous = false;
        loop {
            attempts += 1;
            self.meter.add(op, family, Count { requests: 1, bytes: 0 });
            let patience = (self.options.attempt_timeout + transfer).min(deadline - Instant::now());
            let failure = match timeout(patience, attempt()).await {
                Ok(Ok(value)) => return Ok(Outcome { value, ambiguous }),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Transient(Cause::new(format!("no answer within {} ms", patience.as_millis()))),
            };
            let cause = match failure {
                Failure::Transient(cause) => cause,
                Failure::Surface(source) => return Err(gave_up(attempts, source)),
                Failure::NotFound => return Err(Error::NotFound(self.at(op, key))),
                Failure::NoBucket => return Err(Error::NoBucket(self.at(op, key))),
                Failure::Denied(source) => return Err(Error::Denied { at: self.at(op, key), source }),
                Failure::Refused(source) => return Err(Error::Refused { at: self.at(op, key), source }),
            };
            ambiguous = true;
            let pause = self.pause_after(attempts);
            if attempts >= self.options.attempts_max || Instant::now() + pause >= deadline {
                return Err(gave_up(attempts, cause));
            }
            tracing::debug!(%op, key, location = %self.location, attempts, %cause, "trying again");
            tokio::time::sleep(pause).await;
        }
    }

    /// How long to wait after the `attempts`-th failed attempt.
    fn pause_after(&self, attempts: u32) -> Duration {
        let doubled = self.options.backoff_first.saturating_mul(1 << (attempts - 1).min(20));
        let longest = doubled.min(self.options.backoff_max);
        let share = (self.options.entropy.number() >> 32) as f64 / f64::from(u32::MAX);
        longest.mul_f64(1.0 - share / 2.0)
    }

    fn at(&self, op: Op, key: impl Into<String>) -> At {
        At { op, key: key.into(), location: self.location.clone() }
    }
}

impl Limits {
    /// Waits until a request with a body of `body_bytes` fits. Bytes before requests, always: so no cycle of waiting.
    async fn share(&self, body_bytes: u64) -> Share {
        const OPEN: &str = "the limits are never closed";
        let bytes = if body_bytes <= SMALL_BODY_BYTES {
            None
        } else {
            let permits = u32::try_from(body_bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX).min(self.permits_max);
            Some(self.permits.clone().acquire_many_owned(permits).await.expect(OPEN))
        };
        Share { _request: self.requests.clone().acquire_owned().await.expect(OPEN), _bytes: bytes }
    }
}

#[cfg(test)]
mod tests;
