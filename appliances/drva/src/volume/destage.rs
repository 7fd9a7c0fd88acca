//! Writes what is pending to the primary, behind the log.
//!
//! All that is pending at one moment is a batch: its runs do not overlap, so they are written in any order. A batch is
//! written once all of it is durable in the log, and the next one only after it: so of a block the newest write always
//! comes last, and the primary never holds what the log could lose.
//!
//! In write-back nobody waits for the primary: batches are left to grow, so that what is overwritten soon is written once,
//! neighbours are written together, and the device is left to the log.

use crate::volume::pending::Batch;
use crate::volume::primary::Primary;
use crate::volume::{DiskVolume, blocking, put};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tidemark_api::ProtectionMode;
use tidemark_format::{BLOCK_BYTES, Extent, Lsn};
use tidemark_writer::Body;

/// Runs of a batch that are written at the same time: a disk on flash needs so many to be busy.
const WRITES_IN_FLIGHT: usize = 16;
/// A batch in write-back grows so long, unless somebody waits for it,
const LINGER: Duration = Duration::from_millis(100);
/// or until it has so many bytes.
pub(super) const LINGER_BYTES: u64 = 16 << 20;
/// Neighbouring runs are written with one call up to this size.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// The primary is made durable, so that the log may be trimmed, this often.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Destages until the disk breaks.
pub(crate) async fn run(volume: Arc<DiskVolume>) {
    let Some(primary) = volume.primary.clone() else { return };
    loop {
        volume.work.notified().await;
        if volume.mode() == ProtectionMode::WriteBack {
            let _ = tokio::time::timeout(LINGER, volume.hurry.notified()).await;
        }
        if volume.broken().is_some() {
            return;
        }
        let batch = volume.pending().batch();
        if batch.pieces.is_empty() {
            continue;
        }
        if let Err(why) = destage(&volume, &primary, batch).await {
            tracing::error!(disk = %volume.disk, primary = %primary.path().display(), why, "the disk takes no more writes");
            volume.break_with(why);
            return;
        }
    }
}

async fn destage(volume: &DiskVolume, primary: &Arc<Primary>, batch: Batch) -> Result<(), String> {
    let through = batch.through;
    volume.domain.durable_through(through).await.map_err(|e| e.to_string())?;
    let jobs = split(join(batch.pieces));
    let jobs = jobs.into_iter().map(|job| {
        let primary = primary.clone();
        blocking(move || job.iter().try_for_each(|run| run.put(&primary)))
    });
    futures::future::try_join_all(jobs)
        .await
        .map_err(|e| format!("cannot write to {}: {e}", primary.path().display()))?;
    volume.pending().applied(through);
    volume.applied.send_replace(through);
    Ok(())
}

/// Makes the primary durable now and then, and tells the domain how far.
pub(crate) async fn keep(volume: Arc<DiskVolume>) {
    let mut last = Lsn::ZERO;
    loop {
        tokio::time::sleep(SYNC_EVERY).await;
        if volume.broken().is_some() {
            return;
        }
        if let Err(why) = checkpoint(&volume, &mut last).await {
            volume.break_with(why.to_string());
            return;
        }
    }
}

/// Makes everything that is applied durable on the primary, and tells the domain.
pub(crate) async fn checkpoint(volume: &DiskVolume, last: &mut Lsn) -> io::Result<()> {
    let Some(primary) = volume.primary.clone() else { return Ok(()) };
    // With nothing pending the primary has all there is of this disk, though others may have gone on since.
    let through = {
        let logged = volume.domain.durable_lsn();
        let pending = volume.pending();
        if pending.is_empty() { logged } else { *volume.applied.borrow() }
    };
    if through > *last {
        blocking(move || primary.sync()).await?;
        volume.domain.applied(volume.disk, through);
        *last = through;
    }
    Ok(())
}

/// Runs that are written with one call.
enum Run {
    Data { start: u64, pieces: Vec<Bytes>, bytes: usize },
    Other { extent: Extent, body: Body },
}

impl Run {
    fn put(&self, primary: &Primary) -> io::Result<()> {
        match self {
            Self::Data { start, pieces, .. } => primary.write(start * BLOCK_BYTES, pieces),
            Self::Other { extent, body } => put(primary, *extent, body),
        }
    }
}

/// Joins neighbours.
fn join(pieces: Vec<(Extent, Body)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::with_capacity(pieces.len());
    for (extent, body) in pieces {
        let Body::Data(data) = body else {
            runs.push(Run::Other { extent, body });
            continue;
        };
        match runs.last_mut() {
            Some(Run::Data { start, pieces, bytes })
                if *start + *bytes as u64 / BLOCK_BYTES == extent.start && *bytes + data.len() <= WRITE_BYTES_MAX =>
            {
                *bytes += data.len();
                pieces.push(data);
            }
            _ => runs.push(Run::Data { start: extent.start, bytes: data.len(), pieces: vec![data] }),
        }
    }
    runs
}

/// Deals runs out.
fn split(runs: Vec<Run>) -> Vec<Vec<Run>> {
    let mut jobs: Vec<Vec<Run>> = (0..WRITES_IN_FLIGHT.min(runs.len())).map(|_| Vec::new()).collect();
    let count = jobs.len();
    for (i, run) in runs.into_iter().enumerate() {
        jobs[i % count].push(run);
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_up_to_a_bound() {
        let data = |blocks: u64| Body::Data(vec![1; (blocks * BLOCK_BYTES) as usize].into());
        let pieces = vec![
            (Extent::new(0, 8), data(8)),
            (Extent::new(8, 8), data(8)),
            (Extent::new(24, 8), data(8)),
            (Extent::new(32, 8), Body::Zero),
            (Extent::new(40, 2048), data(2048)),
            (Extent::new(2088, 8), data(8)),
        ];
        let lens: Vec<_> = join(pieces)
            .iter()
            .map(|run| match run {
                Run::Data { pieces, .. } => pieces.len(),
                Run::Other { .. } => 0,
            })
            .collect();
        assert_eq!(lens, [2, 1, 0, 1, 1]);
    }
}
