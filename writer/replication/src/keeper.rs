//! Writes down what has to be remembered, and trims the log behind it.
//!
//! The order is the point: the ledger is written once the events that it reflects are durable in the log, and the log is
//! trimmed only through what the bucket has committed (SPEC.md F-6), every primary has applied, and the ledger reflects.

use crate::core::ledger;
use crate::error::{Error, Result};
use crate::pace;
use crate::shared::Shared;
use std::sync::Arc;
use std::time::Duration;
use tidemark_format::Lsn;

/// The log is asked this often whether it has failed, while it is waited for.
const LOOK_FOR_FAILURE: Duration = Duration::from_millis(200);

/// Keeps the domain until it is closed or the log fails.
pub(crate) async fn run(shared: Arc<Shared>) {
    let pause = Duration::from_millis(shared.options.keep_ms);
    loop {
        tokio::time::sleep(pause).await;
        if let Err(error) = keep(&shared).await {
            // Whoever writes next is told; the phase says why.
            let _ = shared.give_up(&error);
            return;
        }
    }
}

/// One round.
pub(crate) async fn keep(shared: &Arc<Shared>) -> Result<()> {
    let ledger = {
        let state = shared.state();
        let mut ledger = state.ledger.clone();
        ledger.lsn = state.sequencer.last_lsn();
        ledger.time = state.sequencer.last_time();
        ledger.disks = state.sequencer.disks().states().to_vec();
        ledger
    };
    durable(shared, ledger.lsn).await?;
    shared
        .blocking(move |shared| {
            // One at a time, and never an older one over a newer.
            let mut kept = shared.kept();
            if kept.as_ref().is_some_and(|kept| kept.lsn > ledger.lsn) {
                return Ok(());
            }
            if kept.as_ref() != Some(&ledger) {
                shared.log.put_meta(ledger::NAME, &ledger.encode()).map_err(Error::log("write the ledger"))?;
            }
            // Of the copy that is written down, not of what has gone on since.
            let applied = ledger.applied.values().copied().min().unwrap_or(ledger.lsn);
            let through = shared.state().committed.min(applied).min(ledger.lsn);
            *kept = Some(ledger);
            let trims = through >= shared.log.first_lsn();
            if trims {
                //= SPEC.md#commit-rules
                //# F-6
                shared.log.trim(through).map_err(Error::log("trim the log"))?;
            }
            let uploaded = pace::uploaded_bytes(&shared.bucket.meter().snapshot());
            shared.pace.uploaded(uploaded, shared.env.clock.monotonic());
            shared.state().observe(&shared.log, shared.now());
            if trims {
                shared.has_moved();
            }
            Ok(())
        })
        .await
}

/// Waits until everything through `lsn` is durable in the log.
pub(crate) async fn durable(shared: &Shared, lsn: Lsn) -> Result<()> {
    let mut durable = shared.log.durable();
    loop {
        if *durable.borrow_and_update() >= lsn {
            return Ok(());
        }
        if let Some(source) = shared.log.failed() {
            return Err(Error::Log { what: "log what was written", source });
        }
        // A log that fails says so to whoever appended, not here.
        let _ = tokio::time::timeout(LOOK_FOR_FAILURE, durable.changed()).await;
    }
}
