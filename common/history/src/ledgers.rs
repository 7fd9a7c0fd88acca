//! The history by the log alone: what the newest ledger says of its older part, and the log behind that.

use crate::error::{Error, Result};
use crate::heads::Heads;
use crate::log::{Link, Log, Segment};
use crate::roots::Roots;
use crate::walk::Walk;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::sync::Arc;
use tidemark_format::{Epoch, Expect, Ledger, LedgerPart, ObjectKey, Seq};

/// How often the history is looked for anew because a newer ledger dropped what an older one named.
const TRIES_MAX: u32 = 4;
/// Ledgers that are asked for at a time while epochs without one are passed by.
const LEDGERS_AT_A_TIME: u64 = 16;

/// A domain's history without its index.
#[derive(Clone, Debug)]
pub struct Truth {
    /// All of it.
    pub log: Log,
    /// What stands for its older part; `None` as long as nothing was deleted.
    pub ledger: Option<Arc<Ledger>>,
}

impl Roots {
    /// The newest ledger; `None` if nothing was ever deleted.
    ///
    /// # Errors
    /// Store errors other than absence; damage of a claim or of the ledger.
    pub async fn newest_ledger(&self) -> Result<Option<Ledger>> {
        //= SPEC.md#ledgers
        //# LG-2
        let mut next = self.newest_claim(Epoch::new(0)).await?.get();
        while next > 0 {
            let low = next.saturating_sub(LEDGERS_AT_A_TIME);
            let looks = (low + 1..=next).rev().map(|epoch| async move {
                let key = ObjectKey::Ledger { epoch: Epoch::new(epoch) };
                Ok::<_, Error>(self.get(key).await?.map(|bytes| (key, bytes)))
            });
            let found: Vec<_> = stream::iter(looks).buffered(LEDGERS_AT_A_TIME as usize).try_collect().await?;
            if let Some((key, bytes)) = found.into_iter().flatten().next() {
                let expect = Expect { domain: self.domain(), key };
                return Ledger::decode(&bytes, &expect).map(Some).map_err(|source| Error::Format { key, source });
            }
            next = low;
        }
        Ok(None)
    }
}

/// Finds the history of a domain by its ledger and its log, each link checked. `hint` is as in [`Walk::open`].
///
/// # Errors
/// What the walk refuses; damage of the ledger or of what it names; store errors; `Deadline`.
pub async fn truth(heads: &Heads, roots: &Roots, hint: Option<(Epoch, Seq)>) -> Result<Truth> {
    let mut ledger = roots.newest_ledger().await?.map(Arc::new);
    for tries in 1.. {
        let found = by_ledger(heads, ledger.as_deref(), hint).await;
        let Err(Error::Missing { .. }) = found else { return Ok(Truth { log: found?, ledger }) };
        //= SPEC.md#ledgers
        //# LG-3
        let newest = roots.newest_ledger().await?.map(Arc::new);
        if tries == TRIES_MAX || newest == ledger {
            return Ok(Truth { log: found?, ledger });
        }
        ledger = newest;
    }
    unreachable!("the last try returns")
}

async fn by_ledger(heads: &Heads, ledger: Option<&Ledger>, hint: Option<(Epoch, Seq)>) -> Result<Log> {
    let Some(ledger) = ledger else { return heads.walk(Walk::open(hint)).await };
    let log = heads.walk(Walk::resume(Log::behind(&ledger.through), hint)).await?;
    if log.stem.is_none() {
        let why = "the history does not pass through its end".to_owned();
        return Err(Error::Chain { key: ledger.key(), why });
    }
    let (mut past, mut segments) = (Past::new(heads, ledger), Vec::new());
    loop {
        match past.next(usize::MAX).await? {
            more if more.is_empty() => return Ok(log.behind_past(segments)),
            more => segments.extend(more),
        }
    }
}

/// Reads the objects that a ledger names, oldest first, checked against it and against one another.
#[derive(Debug)]
pub struct Past<'a> {
    heads: &'a Heads,
    ledger: &'a Ledger,
    /// Number of the part that comes next, and of its objects that were read.
    part: usize,
    read: usize,
    before: Option<Link>,
}

impl<'a> Past<'a> {
    /// Begins with the oldest.
    pub fn new(heads: &'a Heads, ledger: &'a Ledger) -> Self {
        Self { heads, ledger, part: 0, read: 0, before: None }
    }

    /// The next ones, at most `at_most` and at least one; none at the end.
    ///
    /// # Errors
    /// `Missing`, `Chain`, `Format`; store errors; `Deadline`.
    pub async fn next(&mut self, at_most: usize) -> Result<Vec<Arc<Segment>>> {
        let Some(part) = self.ledger.parts.get(self.part) else { return Ok(Vec::new()) };
        let keys: Vec<ObjectKey> = part.keys().skip(self.read).take(at_most.max(1)).collect();
        let reads = keys.into_iter().map(|key| self.heads.must(key));
        let segments: Vec<Arc<Segment>> =
            stream::iter(reads).buffered(self.heads.in_flight_max()).try_collect().await?;
        for segment in &segments {
            self.check(part, segment)?;
        }
        Ok(segments)
    }

    //= SPEC.md#ledgers
    //# LG-4
    fn check(&mut self, part: &LedgerPart, segment: &Segment) -> Result<()> {
        let broken = |why: String| Err(Error::Chain { key: segment.key, why });
        let next = self.before.map_or(1, |before| before.last.get() + 1);
        if segment.first().get() != next {
            return broken(format!("it begins at lsn {}, in the ledger lsn {next} is next", segment.first()));
        }
        if segment.head.header.identity.kind != part.kind {
            return broken("the ledger knows it as a segment of another kind".into());
        }
        let named = segment.head.header.prev_header_hash;
        if self.read > 0 && self.before.is_some_and(|before| before.header_hash != named) {
            return broken("it names another header hash than that of the segment before it".into());
        }
        let link = Link::of(segment);
        self.before = Some(link);
        self.read += 1;
        if segment.key == part.last_key() {
            if (link.header_hash, link.last) != (part.header_hash, part.last_lsn) {
                return broken("the ledger knows it by another header hash".into());
            }
            (self.part, self.read) = (self.part + 1, 0);
        }
        Ok(())
    }
}
