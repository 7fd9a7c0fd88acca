//! Performs the requests of [`Opening`], reading segment heads ahead.

use crate::core::log::Start;
use crate::core::opening::{Answer, Inputs, Opening, Request};
use crate::error::{Error, Result};
use crate::options::IN_FLIGHT_SEGMENTS_LIMIT;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tidemark_bucket::{self as bucket, Appender, Created, ReadOnly};
use tidemark_format::{DomainId, Epoch, ErrorKind, Expect, HEADER_BYTES, ObjectKey, SegmentHead, SegmentHeader, Seq};

/// Bytes that usually hold a whole head.
const HEAD_BYTES_GUESS: u64 = 128 << 10;

/// Claims the next epoch, finds the end of the log, and puts the CUT.
pub(crate) async fn take_over(bucket: &Appender, inputs: Inputs) -> Result<Start> {
    let mut heads = Heads { bucket: bucket.read_only(), domain: inputs.domain, at: None, ahead: FuturesOrdered::new() };
    let mut opening = Opening::new(inputs);
    while let Some(request) = opening.next() {
        let answer = match request {
            Request::Get(key) => match bucket.get(&key).await {
                Ok(bytes) => Answer::Found(bytes.into()),
                //= SPEC.md#store-assumptions
                //# S-2
                Err(e) if e.kind() == ErrorKind::NotFound || key == ObjectKey::Hint => Answer::Absent,
                Err(e) => return Err(Error::store("look for the newest claim", e)),
            },
            Request::Create(key, bytes) => match bucket.create(&key, bytes).await {
                Ok(Created::New) => Answer::Created,
                Ok(Created::Exists) => Answer::Exists,
                Err(e) if e.kind() == ErrorKind::Retry => Answer::Unclear,
                Err(e) => return Err(Error::store("claim the domain", e)),
            },
            Request::Head(epoch, seq) => match heads.get(epoch, seq).await? {
                Some(head) => Answer::Head(Box::new(head)),
                None => Answer::Absent,
            },
            Request::PutCut(key, bytes) => match bucket.put(&key, bytes).await {
                Ok(_) => Answer::Put,
                Err(e) if e.kind() == ErrorKind::Fenced => Answer::Collision,
                Err(e) => return Err(Error::store("put the cut", e)),
            },
        };
        opening.answer(answer)?;
    }
    Ok(opening.start().expect("a machine without requests is done"))
}

/// Reads the heads of one epoch in order, as many ahead as have to be looked at behind the end anyway.
struct Heads<'a> {
    bucket: &'a ReadOnly,
    domain: DomainId,
    /// Epoch and seq of the first and of the next after the last read ahead.
    at: Option<(Epoch, u64, u64)>,
    ahead: FuturesOrdered<BoxFuture<'a, Result<Option<SegmentHead>>>>,
}

impl Heads<'_> {
    async fn get(&mut self, epoch: Epoch, seq: Seq) -> Result<Option<SegmentHead>> {
        if seq == Seq::new(0) {
            return read_head(self.bucket, self.domain, epoch, seq).await;
        }
        let (mut first, mut next) = (seq.get(), seq.get());
        match self.at {
            Some((of, from, to)) if of == epoch && from == seq.get() => (first, next) = (from, to),
            _ => self.ahead = FuturesOrdered::new(),
        }
        while next < first + u64::from(IN_FLIGHT_SEGMENTS_LIMIT) {
            let (bucket, domain, seq) = (self.bucket, self.domain, Seq::new(next));
            self.ahead.push_back(Box::pin(read_head(bucket, domain, epoch, seq)));
            next += 1;
        }
        first += 1;
        self.at = Some((epoch, first, next));
        self.ahead.next().await.expect("at least one is under way")
    }
}

async fn read_head(bucket: &ReadOnly, domain: DomainId, epoch: Epoch, seq: Seq) -> Result<Option<SegmentHead>> {
    let key = ObjectKey::Log { epoch, seq };
    let store = |e: bucket::Error| Error::store("read the log", e);
    let bad = |source| Error::Format { key, source };
    let mut bytes = match bucket.get_prefix(&key, HEAD_BYTES_GUESS).await {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(store(e)),
    };
    let header = SegmentHeader::decode(&bytes[..bytes.len().min(HEADER_BYTES)]).map_err(bad)?;
    if header.head_len() > bytes.len() as u64 {
        bytes = bucket.get_prefix(&key, header.head_len()).await.map_err(store)?;
    }
    SegmentHead::decode(&bytes, &Expect { domain, key }).map(Some).map_err(bad)
}
