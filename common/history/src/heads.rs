//! The requests of a walk, and heads of segments that must exist.

use crate::error::{Error, Result};
use crate::log::{Log, Segment};
use crate::walk::{Answer, Step, Walk, Want};
use futures::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tidemark_bucket::ReadOnly;
use tidemark_format::{Claim, DomainId, ErrorKind, Expect, HEADER_BYTES, ObjectKey, SegmentHead, SegmentHeader};

/// How patiently and how much at a time is read.
#[derive(Clone, Copy, Debug)]
pub struct HeadOptions {
    /// What the first request for a head asks for at most.
    pub head_bytes: u64,
    /// How long one answer may take, all attempts included.
    pub request_deadline: Duration,
    /// Requests that one walk keeps in flight.
    pub requests_in_flight_max: usize,
    /// How often an object that must exist is asked for again after the store called it absent.
    pub absent_retries_max: u32,
}

/// Reads claims and segment heads.
#[derive(Debug)]
pub struct Heads {
    bucket: ReadOnly,
    domain: DomainId,
    next_uid: AtomicU32,
    /// What the first request for a head asks for at most.
    prefix_bytes_max: u64,
    /// How long heads were lately; 0 before the first.
    usual_bytes: AtomicU64,
    deadline: Duration,
    in_flight_max: usize,
    absent_retries_max: u32,
}

/// Requests for heads are for multiples of this.
const HEAD_BYTES_STEP: u64 = 8 << 10;
/// First pause before an object that must exist is asked for again; doubles.
const ABSENT_PAUSE: Duration = Duration::from_millis(20);

impl Heads {
    /// A reader of heads of `domain`.
    pub fn new(bucket: ReadOnly, domain: DomainId, options: &HeadOptions) -> Self {
        Self {
            bucket,
            domain,
            next_uid: AtomicU32::new(0),
            prefix_bytes_max: options.head_bytes.max(HEADER_BYTES as u64),
            usual_bytes: AtomicU64::new(0),
            deadline: options.request_deadline,
            in_flight_max: options.requests_in_flight_max.max(1),
            absent_retries_max: options.absent_retries_max,
        }
    }

    pub(crate) fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    /// Performs a walk, many requests at a time.
    ///
    /// # Errors
    /// What the walk refuses; store errors; `Deadline`.
    pub async fn walk(&self, mut walk: Walk) -> Result<Log> {
        let mut flying = FuturesUnordered::new();
        loop {
            let step = if flying.len() < self.in_flight_max { walk.step()? } else { Step::Wait };
            match step {
                Step::Ask(want) => flying.push(async move { (want, self.answer(want).await) }),
                Step::Wait => {
                    let Some((want, answer)) = flying.next().await else { return Err(Error::TaskLost) };
                    walk.answer(want, answer?)?;
                }
                Step::Done => return walk.finish(),
            }
        }
    }

    /// The answer to one want, within the deadline.
    async fn answer(&self, want: Want) -> Result<Answer> {
        within(self.deadline, || format!("read {}", want.key), self.ask(want)).await
    }

    async fn ask(&self, want: Want) -> Result<Answer> {
        let mut pause = ABSENT_PAUSE;
        for attempt in 0.. {
            match self.look(want.key).await? {
                // Named by somebody, yet absent: some stores forget for a moment.
                Answer::Absent if want.must && attempt < self.absent_retries_max => tokio::time::sleep(pause).await,
                answer => return Ok(answer),
            }
            pause *= 2;
        }
        Ok(Answer::Absent)
    }

    async fn look(&self, key: ObjectKey) -> Result<Answer> {
        if let ObjectKey::Claim { .. } = key {
            return Ok(match self.bucket.get(&key).await {
                Ok(bytes) => match Claim::decode(&bytes, &self.expect(key)) {
                    Ok(_) => Answer::Claim,
                    Err(source) => Answer::Damaged(Error::Format { key, source }),
                },
                Err(error) if error.kind() == ErrorKind::NotFound => Answer::Absent,
                Err(source) => return Err(Error::Store { key, source }),
            });
        }
        match self.head(key).await {
            Ok(segment) => Ok(Answer::Head(segment)),
            Err(Error::Store { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Answer::Absent),
            Err(error @ Error::Format { .. }) => Ok(Answer::Damaged(error)),
            Err(error) => Err(error),
        }
    }

    fn expect(&self, key: ObjectKey) -> Expect {
        Expect { domain: self.domain, key }
    }

    /// The head of an object that must exist.
    ///
    /// # Errors
    /// `Missing`, `Format`; store errors; `Deadline`.
    pub async fn must(&self, key: ObjectKey) -> Result<Arc<Segment>> {
        match self.answer(Want { key, must: true }).await? {
            Answer::Head(segment) => Ok(segment),
            Answer::Damaged(error) => Err(error),
            Answer::Absent | Answer::Claim => Err(Error::Missing { key, why: "the log names it".into() }),
        }
    }

    /// Reads and decodes the head of a segment: one request if it fits into the usual prefix, else two. What does not
    /// decode is read once more, because bytes may break on the way.
    async fn head(&self, key: ObjectKey) -> Result<Arc<Segment>> {
        match self.head_once(key).await {
            Err(Error::Format { .. }) => self.head_once(key).await,
            other => other,
        }
    }

    async fn head_once(&self, key: ObjectKey) -> Result<Arc<Segment>> {
        let store = |source| Error::Store { key, source };
        let format = |source| Error::Format { key, source };
        let asked = self.prefix_bytes();
        let mut front = self.bucket.get_prefix(&key, asked).await.map_err(store)?;
        let header = SegmentHeader::decode(&front).map_err(format)?;
        if header.head_len > front.len() as u64 {
            front = self.bucket.get_prefix(&key, header.head_len).await.map_err(store)?;
        }
        let head = SegmentHead::decode(&front, &self.expect(key)).map_err(format)?;
        //= SPEC.md#reader-rules
        //#
        // A short answer is the whole object, so its length is known without another request.
        if (front.len() as u64) < asked {
            head.check_total_len(front.len() as u64).map_err(format)?;
        }
        self.met(head.header.head_len);
        let uid = self.next_uid.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Segment { uid, key, head }))
    }

    /// What to ask for so that one request very likely brings the whole head, and little else.
    fn prefix_bytes(&self) -> u64 {
        match self.usual_bytes.load(Ordering::Relaxed) {
            0 => self.prefix_bytes_max,
            usual => (usual + usual / 2).next_multiple_of(HEAD_BYTES_STEP).min(self.prefix_bytes_max),
        }
    }

    /// Remembers the length of a head; long ones are forgotten slowly. Two threads may overwrite each other: it is a guess.
    fn met(&self, head_len: u64) {
        let usual = self.usual_bytes.load(Ordering::Relaxed);
        self.usual_bytes.store(head_len.max(usual - usual / 8), Ordering::Relaxed);
    }
}

/// Gives up on `work` after `limit`, with an error of kind `Retry`.
///
/// # Errors
/// Those of `work`, and `Deadline`.
pub async fn within<T, E: From<Error>>(
    limit: Duration,
    what: impl FnOnce() -> String,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Deadline { what: what(), limit }.into()),
    }
}
