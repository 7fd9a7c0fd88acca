//! Which points a domain offers: what was wished, what is, and what the next pass makes of it.

use crate::core::retention::{Deciding, dropped};
use crate::error::{Error, Result};
use crate::status::{genesis, newest_root};
use std::ops::RangeInclusive;
use tidemark_bucket::ReadOnly;
use tidemark_env::Env;
use tidemark_format::{
    DomainId, ErrorKind, EventBody, Lsn, Mark, ObjectKey, Policy, Retained, Retention, Root, TableKind, TimeNs,
};
use tidemark_history::Tables;

/// What a pass does to the points of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionPlan {
    /// What was wished.
    pub wish: Retention,
    /// What the newest root offers.
    pub before: Retained,
    /// What the next one does.
    pub after: Retained,
    /// Points that go: runs of LSNs, oldest first.
    pub dropped: Vec<RangeInclusive<Lsn>>,
}

impl RetentionPlan {
    /// How long ago the oldest point was the newest from which on all are offered. Less than what was wished if the wish grew
    /// after points had gone, or if the history is younger.
    pub fn window_ns(&self, now: TimeNs) -> u64 {
        now.get().saturating_sub(self.after.horizon.time.get())
    }

    /// False if points that the window promises are gone.
    pub fn keeps_promise(&self, now: TimeNs) -> bool {
        let from_the_beginning = self.after.horizon.lsn.get() <= 1;
        from_the_beginning || self.wish.policy.is_none_or(|policy| self.window_ns(now) >= policy.window_ns)
    }
}

/// What is wished of the domain in `bucket`. Without a wish, everything stays.
///
/// # Errors
/// `NoDomain`; `Format` for a wish that is damaged; store errors.
pub async fn wish(bucket: &ReadOnly) -> Result<Retention> {
    wish_of(bucket, genesis(bucket).await?.domain).await
}

async fn wish_of(bucket: &ReadOnly, domain: DomainId) -> Result<Retention> {
    let key = ObjectKey::Retention;
    match bucket.get(&key).await {
        Ok(bytes) => Retention::decode(&bytes, domain).map_err(|source| Error::Format { key, source }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Retention::everything(domain)),
        Err(error) => Err(Error::store("read v/retention", error)),
    }
}

/// What the next pass does to the points of the domain in `bucket`, as far as the index reaches; `None` without an index: then
/// every point stays.
///
/// # Errors
/// As [`wish`], and those of reading the index.
pub async fn retention_plan(bucket: &ReadOnly, env: &Env) -> Result<Option<RetentionPlan>> {
    let domain = genesis(bucket).await?.domain;
    let Some(root) = newest_root(bucket, domain).await? else { return Ok(None) };
    plan_of(bucket, &root, env.clock.wall()).await.map(Some)
}

/// Footers and row groups of tables of segments, of which several questions ask the same.
const CACHE_BYTES: u64 = 16 << 20;

pub(crate) async fn plan_of(bucket: &ReadOnly, root: &Root, now: TimeNs) -> Result<RetentionPlan> {
    let wish = wish_of(bucket, root.domain).await?;
    let before = root.offers();
    let Some(policy) = wish.policy else {
        return Ok(RetentionPlan { wish, after: before.clone(), before, dropped: Vec::new() });
    };
    let tables = Tables::new(bucket.clone(), root.domain, CACHE_BYTES);
    let mut deciding = Deciding::new(&before, &policy, now);
    while let Some(time) = deciding.asks() {
        deciding.answer(tables.point_at(root, time).await?);
    }
    let after = deciding.finish(bookmarks(&tables, root, &policy).await?, &wish);
    let dropped = dropped(&before, &after);
    Ok(RetentionPlan { wish, before, after, dropped })
}

/// The bookmarks that the index knows, if the policy asks for any.
async fn bookmarks(tables: &Tables, root: &Root, policy: &Policy) -> Result<Vec<Mark>> {
    let mut found = Vec::new();
    for table in root.tables_of(TableKind::Events).filter(|_| policy.bookmarks_ns > 0) {
        let events = tables.events(table).await?.into_iter();
        let marks = events.filter(|row| matches!(row.event.body, EventBody::Bookmark { .. }));
        found.extend(marks.map(|row| Mark { lsn: row.event.lsn, time: row.time }));
    }
    Ok(found)
}
