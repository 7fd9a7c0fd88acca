//! When a write's promise holds: once its segment is committed to the bucket (F6).

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

/// Tells whoever waits how far the promise holds.
#[derive(Debug)]
pub(crate) struct Durability(watch::Sender<Promise>);

impl Durability {
    pub(crate) fn new(through: Lsn) -> Self {
        Self(watch::Sender::new(Promise { through, stopped: None }))
    }

    /// Everything through `lsn` is committed to the bucket.
    pub(crate) fn committed(&self, lsn: Lsn) {
        self.0.send_modify(|promise| promise.through = promise.through.max(lsn));
    }

    /// Nothing more will be committed. The first reason counts.
    pub(crate) fn stopped(&self, why: &Error) {
        self.0.send_if_modified(|promise| {
            let first = promise.stopped.is_none();
            promise.stopped.get_or_insert_with(|| why.clone());
            first
        });
    }

    /// Follows the promise.
    pub(crate) fn promise(&self) -> watch::Receiver<Promise> {
        self.0.subscribe()
    }
}
