//! What changed on a disk since a point: from the bucket's indexes, for clients that fetch an increment over NBD.

use crate::disk::Disk;
use std::sync::Arc;
use std::time::Duration;
use tidemark_format::{BLOCK_BYTES, Extent, Lsn, with_causes};
use tidemark_io_filter::{ByteRange, RunState, StatusRun};
use tidemark_reader::{Domain, ReaderOptions};
use tokio::sync::Mutex;

/// The bucket has to have everything that was acknowledged, and to answer, within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one connection was told: all of its questions about a point are answered as of the first one.
#[derive(Default)]
pub(crate) struct Changes {
    told: Mutex<Vec<(Lsn, Arc<[Extent]>)>>,
}

impl Changes {
    /// Runs of `range` that may differ from what they were at `since`, and those that do not.
    pub(crate) async fn runs(&self, disk: &Disk, since: Lsn, range: ByteRange, runs_max: usize) -> Vec<StatusRun> {
        let changed = {
            let mut told = self.told.lock().await;
            match told.iter().find(|(lsn, _)| *lsn == since) {
                Some((_, changed)) => changed.clone(),
                None => {
                    let looked = tokio::time::timeout(PATIENCE, look(disk, since)).await;
                    let looked = looked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                    let changed: Arc<[Extent]> = match looked {
                        Ok(changed) => changed.into(),
                        // True of any disk, and the client fetches all of it.
                        Err(why) => {
                            tracing::warn!(disk = %disk.address, %since, why, "all of the disk counts as changed");
                            [Extent::new(0, disk.volume.blocks())].into()
                        }
                    };
                    // As many as a connection may select.
                    told.push((since, changed.clone()));
                    changed
                }
            }
        };
        cut(&changed, range, runs_max)
    }
}

async fn look(disk: &Disk, since: Lsn) -> Result<Vec<Extent>, String> {
    let volume = &disk.volume;
    volume.domain.drain().await.map_err(|e| with_causes(&e))?;
    let open = Domain::open(disk.bucket.clone(), ReaderOptions::default(), disk.env.clone());
    let domain = open.await.map_err(|e| with_causes(&e))?;
    let latest = domain.timeline().latest().lsn;
    let changed = domain.changed(volume.disk, since, latest).await.map_err(|e| with_causes(&e))?;
    let mut runs: Vec<Extent> = Vec::new();
    for extent in changed.into_iter().map(|changed| changed.extent) {
        match runs.last_mut() {
            Some(last) if last.end() >= extent.start => last.len = extent.end().max(last.end()) - last.start,
            _ => runs.push(extent),
        }
    }
    Ok(runs)
}

/// A range in runs, by what changed: sorted and apart from each other.
fn cut(changed: &[Extent], range: ByteRange, runs_max: usize) -> Vec<StatusRun> {
    let (mut at, end) = (range.offset, range.end());
    let mut runs = Vec::new();
    let mut run = |until: u64, state| {
        if until > at && runs.len() < runs_max {
            runs.push(StatusRun { bytes: until - at, state });
            at = until;
        }
    };
    for extent in &changed[changed.partition_point(|extent| extent.end().saturating_mul(BLOCK_BYTES) <= range.offset)..]
    {
        let [from, to] = [extent.start, extent.end()].map(|block| block.saturating_mul(BLOCK_BYTES).min(end));
        run(from, RunState::Same);
        run(to, RunState::Changed);
        if to == end {
            break;
        }
    }
    run(end, RunState::Same);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_told_in_runs_that_cover_it_up_to_the_bound() {
        let changed = [Extent::new(2, 2), Extent::new(8, 8)];
        let runs = |offset, len, max| {
            let told = cut(&changed, ByteRange::new(offset, len), max);
            told.iter().map(|run| (run.bytes, run.state == RunState::Changed)).collect::<Vec<_>>()
        };
        assert_eq!(runs(0, 8192, 9), [(1024, false), (1024, true), (2048, false), (4096, true)]);
        assert_eq!(runs(1536, 1024, 9), [(512, true), (512, false)]);
        assert_eq!(runs(8192, 512, 9), [(512, false)]);
        assert_eq!(runs(0, 8192, 2), [(1024, false), (1024, true)]);
        assert_eq!(runs(5120, 512, 9), [(512, true)]);
    }
}
