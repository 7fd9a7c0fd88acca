//! What a domain says about its replication, for people and metrics.

use crate::core::phase::Phase;
use crate::core::sequencer::Now;
use crate::pace::Throughput;
use crate::shared::State;
use std::collections::BTreeMap;
use std::time::Duration;
use tidemark_format::{BLOCK_BYTES, DiskId, DiskState, DomainId, Epoch, Lsn, TimeNs};
use tidemark_log_store::{Record, Usage};
use tidemark_rates::{AgeTracker, Signals};
use tidemark_writer::WriterStatus;

/// Slots that an age is tracked in; with [`AGE_RESOLUTION`] exact for a minute, coarser, never younger, beyond.
const AGE_ENTRIES_MAX: usize = 1 << 12;
/// Writes that come within this time share a slot.
const AGE_RESOLUTION: Duration = Duration::from_millis(10);

/// How a domain's replication is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DomainStatus {
    /// The domain.
    pub domain: DomainId,
    /// Where it stands.
    pub phase: Phase,
    /// How it came to that.
    pub why: String,
    /// Since when; 0 if it has not moved yet.
    pub since: TimeNs,
    /// Bookmarks logged since the domain was opened here.
    pub bookmarks: u64,
    /// The epoch that is owned in the bucket, if one is.
    pub epoch: Option<Epoch>,
    /// Newest LSN given.
    pub last_lsn: Lsn,
    /// Everything through here is durable in the log store.
    pub durable: Lsn,
    /// Everything through here is committed to the bucket.
    pub committed: Lsn,
    /// Age of the oldest acknowledged write that is not committed.
    pub rpo_age: Duration,
    /// Room of the log.
    pub log: Usage,
    /// What backpressure does.
    pub throttle: Signals,
    /// What moves.
    pub throughput: Throughput,
    /// What moved since the domain was opened here.
    pub totals: Totals,
    /// Of the writer, while there is one.
    pub writer: Option<WriterStatus>,
    /// Disks that have not left.
    pub disks: Vec<DiskStatus>,
}

impl DomainStatus {
    /// Of one disk, if it has not left.
    pub fn disk(&self, disk: DiskId) -> Option<&DiskStatus> {
        self.disks.iter().find(|of| of.state.disk == disk)
    }
}

/// What moved since a domain was opened. Counts only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Records handed to the log.
    pub logged_records: u64,
    /// Data of those.
    pub logged_bytes: u64,
    /// Bytes packed into segments, before compression.
    pub packed_plain_bytes: u64,
    /// The same after compression.
    pub packed_stored_bytes: u64,
    /// Bytes read from disks by seeding and comparing.
    pub seeded_bytes: u64,
}

/// How one disk is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DiskStatus {
    /// What the domain knows of it.
    pub state: DiskState,
    /// Whether it can be restored.
    pub standing: Standing,
    /// Age of its oldest acknowledged write that is not committed.
    pub rpo_age: Duration,
    /// Bytes of its writes that wait in the log.
    pub waiting_bytes: u64,
}

/// Whether a disk can be restored as of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// From its last CONSISTENT_FROM on.
    Protected,
    /// Its contents are being brought into the bucket.
    Seeding {
        /// Bytes in front of this are there.
        done_bytes: u64,
        /// Of so many.
        total_bytes: u64,
    },
    /// Not before a seed or a comparison is complete.
    Unprotected,
}

/// Ages of what is acknowledged and not committed: of the domain and of each disk.
#[derive(Debug)]
pub(crate) struct Ages {
    domain: AgeTracker,
    disks: BTreeMap<DiskId, AgeTracker>,
}

impl Ages {
    pub(crate) fn new() -> Self {
        Self { domain: tracker(), disks: BTreeMap::new() }
    }

    /// Records were found in the log, the oldest of them so old.
    pub(crate) fn recovered(&mut self, lsn: Lsn, age: Duration, now: Now) {
        self.domain.recovered(lsn, age, now.monotonic);
    }

    pub(crate) fn logged(&mut self, record: &Record, now: Now) {
        self.domain.logged(record.lsn, now.monotonic);
        if let Some(disk) = record.disk() {
            self.disks.entry(disk).or_insert_with(tracker).logged(record.lsn, now.monotonic);
        }
    }

    pub(crate) fn committed(&mut self, through: Lsn) {
        self.domain.committed(through);
        self.disks.values_mut().for_each(|disk| disk.committed(through));
    }

    pub(crate) fn of_domain(&self, now: Now) -> Duration {
        self.domain.age(now.monotonic)
    }

    pub(crate) fn of_disk(&self, disk: DiskId, now: Now) -> Duration {
        self.disks.get(&disk).map_or(Duration::ZERO, |ages| ages.age(now.monotonic))
    }
}

fn tracker() -> AgeTracker {
    AgeTracker::new(AGE_ENTRIES_MAX, AGE_RESOLUTION).expect("the constants are within the tracker's limits")
}

impl State {
    /// Status of the disks that have not left.
    pub(crate) fn disk_statuses(&self, now: Now) -> Vec<DiskStatus> {
        let live = self.sequencer.disks().states().iter().filter(|state| state.removed_at.is_none());
        let status = |state: &DiskState| {
            let seeding = self.ledger.seeds.get(&state.disk).map(|seed| Standing::Seeding {
                done_bytes: seed.next_block.min(state.blocks) * BLOCK_BYTES,
                total_bytes: state.blocks * BLOCK_BYTES,
            });
            let protected = state.consistent_from.map(|_| Standing::Protected);
            DiskStatus {
                state: state.clone(),
                standing: seeding.or(protected).unwrap_or(Standing::Unprotected),
                rpo_age: self.ages.of_disk(state.disk, now),
                waiting_bytes: self.backlog.waiting_bytes(state.disk),
            }
        };
        live.map(status).collect()
    }
}
