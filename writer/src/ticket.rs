//! The promise given for one write.

use crate::error::{Error, Result};
use crate::shell::durability::Promise;
use tidemark_format::{Lsn, TimeNs};
use tokio::sync::watch;

/// Where a write stands in the domain's history, once it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its position.
    pub lsn: Lsn,
    /// Its time.
    pub time: TimeNs,
}

/// A write that has its LSN but may not be durable yet.
#[derive(Clone, Debug)]
#[must_use = "a write is durable only once its ticket says so"]
pub struct Ticket {
    lsn: Lsn,
    time: TimeNs,
    promise: watch::Receiver<Promise>,
}

impl Ticket {
    pub(crate) fn new(lsn: Lsn, time: TimeNs, promise: watch::Receiver<Promise>) -> Self {
        Self { lsn, time, promise }
    }

    /// The write's position.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The write's time.
    pub fn time(&self) -> TimeNs {
        self.time
    }

    /// Waits until the write is durable.
    ///
    /// # Errors
    /// Why the writer stopped before. The write may or may not be in the log then; a successor decides.
    pub async fn committed(mut self) -> Result<Committed> {
        let lsn = self.lsn;
        let promise =
            self.promise.wait_for(|p| p.through >= lsn || p.stopped.is_some()).await.map_err(|_| Error::Closed)?;
        match &promise.stopped {
            Some(stop) if promise.through < lsn => Err(stop.clone()),
            _ => Ok(Committed { lsn, time: self.time }),
        }
    }
}
