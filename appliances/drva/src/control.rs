//! What the control API can ask of an appliance.

use async_trait::async_trait;
use tidemark_api::{
    ApplianceStatus, AttachRequest, BookmarkMade, BookmarkRequest, DiskAddress, DiskSpec, DiskStatus, DomainSpec,
    DomainStatus, DrainRequest, Drained, EventPage, EventQuery, ModeRequest, Problem, Recorded, RemoveQuery, Removed,
    ResizeRequest, SeedRequest, Settings, SettingsPatch, TakeoverRequest, VmConfigRequest,
};

/// What an appliance answers.
pub type Answer<T> = Result<T, Problem>;

/// An appliance, as its control API sees it.
///
/// Requests were checked (`check` of their types) before they get here, and names in addresses are any text. What changes
/// something is carried through to its end even if whoever asked has gone: no future is dropped halfway. Only
/// [`Self::status`], [`Self::metrics`], [`Self::domain`], [`Self::disk`], [`Self::settings`] and [`Self::events`] may be
/// dropped.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// How the appliance, its domains and disks are doing. Never waits for a bucket or a disk.
    async fn status(&self) -> Answer<ApplianceStatus>;
    /// What is measured, as OpenMetrics text. Never waits for a bucket or a disk.
    async fn metrics(&self) -> Answer<String>;
    /// How one domain is doing.
    async fn domain(&self, domain: &str) -> Answer<DomainStatus>;
    /// How one disk is doing.
    async fn disk(&self, disk: &DiskAddress) -> Answer<DiskStatus>;
    /// What happened; waits for it if that is asked for.
    async fn events(&self, query: EventQuery) -> Answer<EventPage>;

    /// Protects a domain from now on, also after a restart.
    async fn domain_add(&self, spec: DomainSpec) -> Answer<DomainStatus>;
    /// Stops protecting a domain here; refuses if that loses acknowledged writes and `how` does not say that it may.
    async fn domain_remove(&self, domain: &str, how: RemoveQuery) -> Answer<Removed>;
    /// The settings in force, except the modes and policies of single disks.
    async fn settings(&self, domain: &str) -> Answer<Settings>;
    /// Changes settings, also after a restart; answers with those in force. The outcome has to
    /// pass its own check.
    async fn change_settings(&self, domain: &str, patch: SettingsPatch) -> Answer<Settings>;
    /// Stops shipping; writes stay in the log.
    async fn pause(&self, domain: &str) -> Answer<DomainStatus>;
    /// Ships again.
    async fn resume(&self, domain: &str) -> Answer<DomainStatus>;
    /// Waits until everything acknowledged so far is in the bucket, or the time is over, which is no failure.
    async fn drain(&self, domain: &str, request: DrainRequest) -> Answer<Drained>;
    /// Takes the domain over again from whoever owns it now.
    async fn takeover(&self, domain: &str, request: TakeoverRequest) -> Answer<DomainStatus>;
    /// Names this moment, and waits until that is in the bucket.
    async fn bookmark(&self, domain: &str, request: BookmarkRequest) -> Answer<BookmarkMade>;
    /// Records a VM's configuration, and waits until that is in the bucket.
    async fn vm_config(&self, domain: &str, vm: &str, request: VmConfigRequest) -> Answer<Recorded>;

    /// Protects a disk from now on, also after a restart.
    async fn disk_add(&self, domain: &str, spec: DiskSpec) -> Answer<DiskStatus>;
    /// Stops protecting a disk; refuses as [`Self::domain_remove`] does.
    async fn disk_remove(&self, disk: &DiskAddress, how: RemoveQuery) -> Answer<Removed>;
    /// Changes a disk's size.
    async fn disk_resize(&self, disk: &DiskAddress, request: ResizeRequest) -> Answer<DiskStatus>;
    /// Changes when a disk's writes are acknowledged.
    async fn disk_mode(&self, disk: &DiskAddress, request: ModeRequest) -> Answer<DiskStatus>;
    /// Begins to ship what a disk holds; the disk's state tells how that goes.
    async fn seed(&self, disk: &DiskAddress, request: SeedRequest) -> Answer<DiskStatus>;
    /// Taps a running VM; the disk's attachment tells how that goes.
    async fn attach(&self, disk: &DiskAddress, request: AttachRequest) -> Answer<DiskStatus>;
    /// Ends a tap; the VM goes on with its own disk.
    async fn detach(&self, disk: &DiskAddress) -> Answer<DiskStatus>;
}
