//! When a write's promise holds: the step between "has an LSN" and "the guest may be told".
//!
//! Today the promise is the bucket's: a write is durable once its segment is committed (F6). A replication log on local
//! storage promises earlier; it then is handed every write here, in LSN order, and told what it may trim.

use crate::core::log::Submission;
use crate::error::Error;
use tidemark_format::Lsn;
use tokio::sync::watch;

/// How far the promise holds.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    /// Everything through this LSN is durable.
    pub(crate) through: Lsn,
    /// Nothing more will be.
    pub(crate) stopped: Option<Error>,
}

/// Makes writes durable and says so.
pub(crate) trait Durability: Send + Sync {
    /// A write or event got its LSN. Called in LSN order with the log locked: take it over, do not wait.
    fn logged(&self, lsn: Lsn, what: &Submission);
    /// Everything through `lsn` is committed to the bucket.
    fn committed(&self, lsn: Lsn);
    /// Nothing more will be committed. The first reason counts.
    fn stopped(&self, why: &Error);
    /// Follows the promise.
    fn promise(&self) -> watch::Receiver<Promise>;
}

/// Durable means committed to the bucket.
#[derive(Debug)]
pub(crate) struct BucketCommit(watch::Sender<Promise>);

impl BucketCommit {
    pub(crate) fn new(through: Lsn) -> Self {
        Self(watch::Sender::new(Promise { through, stopped: None }))
    }
}

impl Durability for BucketCommit {
    fn logged(&self, _: Lsn, _: &Submission) {}

    fn committed(&self, lsn: Lsn) {
        self.0.send_modify(|promise| promise.through = promise.through.max(lsn));
    }

    fn stopped(&self, why: &Error) {
        self.0.send_if_modified(|promise| {
            let first = promise.stopped.is_none();
            promise.stopped.get_or_insert_with(|| why.clone());
            first
        });
    }

    fn promise(&self) -> watch::Receiver<Promise> {
        self.0.subscribe()
    }
}
