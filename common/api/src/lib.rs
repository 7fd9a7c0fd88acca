//! What appliances say over their control sockets: wire types, and a client for them.
//!
//! Everything here is a promise to scripts and to other appliances: members are only ever added; units stand last in names;
//! times are RFC 3339 in UTC; requests with unknown members are refused, so that a misspelt option is never ignored.
//! What can be checked without an appliance is checked here ([`Check`]), once for the API and for configuration files.
//! Not here: serving requests (`tidemark-drva`), and domain types, which are never serialized.

mod check;
mod client;
mod event;
mod limit;
mod problem;
mod request;
mod settings;
mod spec;
mod status;
mod time;
pub mod units;

pub use check::{Check, Complaint, NAME_BYTES_MAX};
pub use client::{Client, Error, Result};
pub use event::{EVENTS_PER_PAGE_MAX, Event, EventPage, EventQuery, Severity, WAIT_S_MAX};
pub use limit::{Limit, NotALimit};
pub use problem::{Problem, ProblemKind};
pub use request::{
    AttachRequest, BookmarkLevel, BookmarkMade, BookmarkRequest, DrainRequest, Drained, GuestAgent, Hook, ModeRequest,
    Recorded, RemoveQuery, Removed, ResizeRequest, SeedRequest, SeedSource, TIMEOUT_MS_MAX, TakeoverRequest,
    VM_CONFIG_BYTES_MAX, VmConfigRequest,
};
pub use settings::{
    BandwidthWindow, Day, NotATimeOfDay, OverflowPolicy, ProtectionMode, Settings, SettingsPatch, TimeOfDay,
};
pub use spec::{DiskAddress, DiskSpec, DomainSpec};
pub use status::{
    ApplianceStatus, Attachment, Cost, DiskExport, DiskState, DiskStatus, DomainState, DomainStatus, LogStoreStatus,
    LogUse, MaintenanceStatus, RequestCount, Rpo, TapState, Throttle, ThrottleStage, Throughput, VmStatus,
};
pub use time::Time;

/// Where a DRVA listens unless it is told otherwise.
pub const DRVA_SOCKET: &str = "/run/tidemark/drva.sock";
