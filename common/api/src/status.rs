//! How an appliance, its domains and their disks are doing.

use crate::limit::Limit;
use crate::settings::{OverflowPolicy, ProtectionMode};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How an appliance is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApplianceStatus {
    /// What people call it.
    pub name: String,
    /// Its software.
    pub version: String,
    /// When it was started.
    #[schema(value_type = String, format = DateTime)]
    pub started: Time,
    /// For how long it has been running.
    pub uptime_ms: u64,
    /// The local store of replication logs.
    pub log_store: LogStoreStatus,
    /// Its domains, by name.
    pub domains: Vec<DomainStatus>,
}

/// The local store of replication logs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogStoreStatus {
    /// The file or device.
    pub path: String,
    /// What it can hold.
    pub size_bytes: u64,
    /// What is in it.
    pub used_bytes: u64,
    /// Used of size, 0 to 1.
    pub fill: f64,
    /// Why it takes no more writes, if it does not: nothing is acknowledged until the appliance is restarted.
    pub failed: Option<String>,
}

/// How a domain is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DomainStatus {
    /// What this appliance calls it.
    pub name: String,
    /// Its id, once it was opened.
    pub id: Option<String>,
    /// Its bucket.
    pub url: String,
    /// The epoch that this appliance owns, once it was opened.
    pub epoch: Option<u64>,
    /// What it is doing.
    pub state: DomainState,
    /// Newest LSN given to a write or event.
    pub last_lsn: u64,
    /// Everything through here is in the bucket.
    pub committed_lsn: u64,
    /// How far the bucket is behind.
    pub rpo: Rpo,
    /// Its part of the log store.
    pub log: LogUse,
    /// What is done to guest writes so that the log does not overflow.
    pub throttle: Throttle,
    /// Lately.
    pub throughput: Throughput,
    /// Bytes written by guests for each byte shipped, lately.
    pub compression_ratio: Option<f64>,
    /// Requests to the bucket since the start, by kind.
    pub requests: BTreeMap<String, RequestCount>,
    /// What they cost, once it was opened.
    #[serde(default)]
    pub cost: Option<Cost>,
    /// How its bucket is maintained, if this appliance does it, once it did.
    #[serde(default)]
    pub maintenance: Option<MaintenanceStatus>,
    /// How many named points this appliance made in it.
    pub bookmarks: u64,
    /// Its VMs, by name.
    pub vms: Vec<VmStatus>,
    /// Its disks, by VM and name.
    pub disks: Vec<DiskStatus>,
}

/// What a domain is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum DomainState {
    /// Looks for the end of its log in the bucket. Guest writes are logged.
    Opening,
    /// Writes go to the bucket.
    Replicating,
    /// The bucket cannot be reached; writes stay in the log and are shipped once it can.
    Offline {
        /// Why.
        reason: String,
        /// Since when.
        #[schema(value_type = String, format = DateTime)]
        since: Time,
    },
    /// An operator stopped shipping; writes stay in the log.
    Paused,
    /// Another appliance took the domain over. This one serves it no more.
    Fenced {
        /// How it was found out.
        reason: String,
    },
    /// The log here holds writes that the bucket's history does not continue from.
    Diverged {
        /// How it was found out.
        reason: String,
    },
    /// Stopped for good, until somebody acts.
    Failed {
        /// Why.
        reason: String,
    },
}

/// How far the bucket is behind what guests were told is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rpo {
    /// Age of the oldest acknowledged write that is not in the bucket; 0 if all are.
    pub age_ms: u64,
    /// What is configured.
    pub target_ms: u64,
}

/// A domain's part of the log store.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogUse {
    /// What is in it.
    pub used_bytes: u64,
    /// What it may grow to.
    pub max_bytes: u64,
    /// Used of maximum, 0 to 1.
    pub fill: f64,
}

/// What is done to guest writes so that the log does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Throttle {
    /// How far it went.
    pub stage: ThrottleStage,
    /// By how much a guest write is delayed, lately.
    pub added_latency_ms: f64,
    /// What guests may write.
    pub guest_bytes_per_s: Limit,
}

/// How far backpressure went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ThrottleStage {
    /// Nothing is slowed down.
    None,
    /// Seeding and resync make room.
    SeedSlowed,
    /// Guest writes are delayed.
    Throttled,
    /// Guest writes wait for room in the log.
    Stalled,
    /// Guest writes go by the log; the history of some disks has a gap.
    Degraded,
}

impl ThrottleStage {
    /// The word in texts and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SeedSlowed => "seed-slowed",
            Self::Throttled => "throttled",
            Self::Stalled => "stalled",
            Self::Degraded => "degraded",
        }
    }
}

/// What flows, averaged over the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Throughput {
    /// Written by guests.
    pub guest_bytes_per_s: u64,
    /// Guest writes.
    pub guest_writes_per_s: u64,
    /// Sent to the bucket.
    pub shipped_bytes_per_s: u64,
    /// Read from disks by seeding and resync.
    pub seed_bytes_per_s: u64,
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestCount {
    /// How many.
    pub requests: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// What a domain costs by a price sheet, in billionths of its currency's unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cost {
    /// The price sheet.
    pub sheet: String,
    /// Three letters.
    pub currency: String,
    /// How long requests and bytes have been counted.
    pub counted_ms: u64,
    /// The requests so far, and the bytes that they read.
    pub spent_nanos: u64,
    /// The same in a month that goes on like that; absent within the first second.
    pub month_nanos: Option<u64>,
    /// Bytes stored so far, whether they are still there or not.
    pub stored_bytes: u64,
    /// Keeping them for a month.
    pub kept_month_nanos: u64,
}

/// How the last pass of maintenance over a bucket went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MaintenanceStatus {
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Time>,
    /// Why it failed, if it did. The next one goes on from there.
    pub failed: Option<String>,
    /// The index reaches up to here.
    pub indexed_lsn: Option<u64>,
    /// So far back every point is offered; absent where all are, or nothing is promised.
    pub window_ms: Option<u64>,
    /// So far back every point was wished to be.
    pub window_promised_ms: Option<u64>,
    /// No point that is promised is gone.
    pub window_kept: bool,
}

impl Default for MaintenanceStatus {
    fn default() -> Self {
        Self {
            ended: None,
            failed: None,
            indexed_lsn: None,
            window_ms: None,
            window_promised_ms: None,
            window_kept: true,
        }
    }
}

/// How a VM is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmStatus {
    /// Its name.
    pub name: String,
    /// How far the bucket is behind its disks.
    pub rpo: Rpo,
    /// Acknowledged bytes that are not in the bucket.
    pub pending_bytes: u64,
    /// The LSN at which its configuration was recorded last.
    pub config_lsn: Option<u64>,
}

/// How a disk is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DiskStatus {
    /// The VM that it belongs to.
    pub vm: String,
    /// Its name within the VM.
    pub disk: String,
    /// Its number in the domain, once the domain knows it.
    pub id: Option<u32>,
    /// Its size.
    pub size_bytes: u64,
    /// When its writes are acknowledged.
    pub mode: ProtectionMode,
    /// What becomes of its writes when the log is full.
    pub overflow: OverflowPolicy,
    /// How well it is protected.
    pub state: DiskState,
    /// Acknowledged bytes that are not in the bucket.
    pub pending_bytes: u64,
    /// Acknowledged bytes that are not on the primary.
    pub unapplied_bytes: u64,
    /// The file, device or server with its contents; absent for a disk that a tap follows.
    pub primary: Option<String>,
    /// How guest writes come here.
    pub attachment: Attachment,
    /// Where NBD clients find it.
    pub export: DiskExport,
}

/// How well a disk is protected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum DiskState {
    /// What it holds is on its way to the bucket; it cannot be restored before that is done.
    Seeding {
        /// Bytes of the disk that are done.
        done_bytes: u64,
        /// Bytes of the disk.
        total_bytes: u64,
        /// Seconds to go at the present rate.
        eta_s: Option<u64>,
    },
    /// Every write is kept.
    Protected,
    /// Writes are not kept; points since then cannot be restored.
    Gap {
        /// Since when.
        #[schema(value_type = String, format = DateTime)]
        since: Time,
    },
    /// Writes are kept, and what a gap missed is on its way to the bucket.
    Resyncing {
        /// Bytes of the disk that are done.
        done_bytes: u64,
        /// Bytes of the disk that are looked at.
        total_bytes: u64,
        /// Seconds to go at the present rate.
        eta_s: Option<u64>,
    },
    /// It takes no more writes until its appliance is restarted: its primary, or the log, failed. What was acknowledged is in
    /// the log.
    Failed {
        /// Why.
        reason: String,
    },
    /// It was never seeded, or nothing feeds it.
    Unprotected,
    /// It left the domain.
    Removed,
}

/// How guest writes come here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Attachment {
    /// Not at all, at present.
    Nothing,
    /// The VM's disk is our export.
    Inline {
        /// NBD connections.
        connections: u32,
    },
    /// The VM has its own disk, and QEMU mirrors each write to us.
    Tap {
        /// QEMU's control socket.
        qmp_socket: String,
        /// The mirrored block node.
        node: String,
        /// How that goes.
        tap: TapState,
    },
}

/// How a tap is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum TapState {
    /// Talks to QEMU.
    Connecting,
    /// QEMU copies what is on the disk; writes come in as well.
    Copying {
        /// Bytes that are done.
        done_bytes: u64,
        /// Bytes in all, so far as QEMU knows.
        total_bytes: u64,
    },
    /// Every guest write is here before the guest's ack.
    Ready,
    /// QEMU went on without us.
    Lost {
        /// Why.
        reason: String,
    },
}

/// Where NBD clients find a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskExport {
    /// Its export name.
    pub name: String,
    /// NBD URIs, one for each way in.
    pub uris: Vec<String>,
}
