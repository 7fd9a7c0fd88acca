//! Pretends to be an appliance: remembers what it is told, protects nothing.

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidemark_api::{
    ApplianceStatus, AttachRequest, Attachment, BookmarkMade, BookmarkRequest, Check, Cost, DiskAddress, DiskExport,
    DiskSpec, DiskState, DiskStatus, DomainSpec, DomainState, DomainStatus, DrainRequest, Drained, EventPage,
    EventQuery, Limit, LogStoreStatus, LogUse, ModeRequest, OverflowPolicy, Problem, ProblemKind, ProtectionMode,
    Recorded, RemoveQuery, Removed, RequestCount, ResizeRequest, Rpo, SeedRequest, Settings, SettingsPatch, Severity,
    TakeoverRequest, TapState, Throttle, ThrottleStage, Throughput, Time, VmConfigRequest, VmStatus,
};
use tidemark_drva::events::{EventRing, NewEvent};
use tidemark_drva::{Answer, Control};
use tidemark_env::Env;
use tokio::sync::Semaphore;

/// Naming this domain makes the appliance panic.
pub const PANICS: &str = "panics";
/// Pausing this domain takes until [`Fake::let_go`].
pub const SLOW: &str = "slow";

/// An appliance that only pretends.
#[derive(Debug)]
pub struct Fake {
    env: Env,
    domains: Mutex<BTreeMap<String, Pretended>>,
    events: Mutex<std::sync::Arc<EventRing>>,
    gate: Semaphore,
    /// Requests that were carried through, by name, and slow ones that began.
    done: Mutex<Vec<String>>,
}

#[derive(Clone, Debug)]
struct Pretended {
    status: DomainStatus,
    settings: Settings,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    /// With a domain `accounting` that is a little behind, and its disks `web1/root`, protected inline, and `db1/data`, being
    /// seeded.
    pub fn with_accounting() -> Self {
        let env = Env::system();
        let events = Mutex::new(std::sync::Arc::new(EventRing::new(env.clone())));
        let fake = Self { env, domains: Mutex::default(), events, gate: Semaphore::new(0), done: Mutex::default() };
        let mut accounting = fake.pretended("accounting", "file:///srv/accounting", &SettingsPatch::default());
        let mut root = disk("accounting", &spec("web1", "root", Some("/dev/vg0/web1-root")));
        root.state = DiskState::Protected;
        root.pending_bytes = 3 << 20;
        root.attachment = Attachment::Inline { connections: 1 };
        let mut data = disk("accounting", &spec("db1", "data", None));
        data.state = DiskState::Seeding { done_bytes: 43 << 20, total_bytes: 100 << 20, eta_s: Some(720) };
        accounting.status.disks = vec![data, root];
        for name in ["accounting", SLOW] {
            let mut domain = accounting.clone();
            domain.status.name = name.to_owned();
            lock(&fake.domains).insert(name.to_owned(), domain);
        }
        fake
    }

    /// Records an event.
    pub fn happens(&self, severity: Severity, kind: &'static str, message: &str) {
        let disk = DiskAddress { domain: "accounting".into(), vm: "web1".into(), disk: "root".into() };
        self.ring().push(NewEvent::new(severity, kind, message).disk(&disk).with("lsn", 7));
    }

    /// Forgets all events, as a restart does.
    pub fn starts_anew(&self) {
        *lock(&self.events) = std::sync::Arc::new(EventRing::new(self.env.clone()));
    }

    /// Lets one slow request end.
    pub fn let_go(&self) {
        self.gate.add_permits(1);
    }

    /// Names of the requests that were carried through, and of slow ones that began.
    pub fn done(&self) -> Vec<String> {
        lock(&self.done).clone()
    }

    /// Changes the status of a domain.
    pub fn change(&self, domain: &str, change: impl FnOnce(&mut DomainStatus)) {
        if let Some(domain) = lock(&self.domains).get_mut(domain) {
            change(&mut domain.status);
        }
    }

    fn ring(&self) -> std::sync::Arc<EventRing> {
        lock(&self.events).clone()
    }

    fn now(&self) -> Time {
        self.env.clock.wall().into()
    }

    fn pretended(&self, name: &str, url: &str, patch: &SettingsPatch) -> Pretended {
        let settings = Settings::default().with(patch);
        let requests = BTreeMap::from([("put".to_owned(), RequestCount { requests: 12, bytes: 99 << 20 })]);
        let rpo = Rpo { age_ms: 1_200, target_ms: settings.rpo_ms };
        let status = DomainStatus {
            name: name.to_owned(),
            id: Some("04c726b3-8e49-45e1-ba3b-3aae91796559".to_owned()),
            url: url.to_owned(),
            epoch: Some(7),
            state: DomainState::Replicating,
            last_lsn: 470,
            committed_lsn: 464,
            rpo,
            log: LogUse { used_bytes: 2 << 30, max_bytes: 8 << 30, fill: 0.25 },
            throttle: Throttle {
                stage: ThrottleStage::None,
                added_latency_ms: 0.0,
                guest_bytes_per_s: Limit::Unlimited,
            },
            throughput: Throughput { guest_bytes_per_s: 12 << 20, guest_writes_per_s: 340, ..Default::default() },
            compression_ratio: Some(2.5),
            requests,
            cost: Some(Cost {
                sheet: "aws-s3-standard".to_owned(),
                currency: "USD".to_owned(),
                counted_ms: 3_600_000,
                spent_nanos: 60_000,
                month_nanos: Some(43_829_100),
                stored_bytes: 99 << 20,
                kept_month_nanos: 2_223_633,
            }),
            maintenance: None,
            bookmarks: 1,
            vms: vec![VmStatus { name: "web1".to_owned(), rpo, pending_bytes: 3 << 20, config_lsn: None }],
            disks: Vec::new(),
        };
        Pretended { status, settings }
    }

    fn with<T>(&self, domain: &str, what: &str, work: impl FnOnce(&mut Pretended) -> Answer<T>) -> Answer<T> {
        assert_ne!(domain, PANICS, "as asked");
        let mut domains = lock(&self.domains);
        let found = domains.get_mut(domain).ok_or_else(|| Problem::no_domain(domain))?;
        let answer = work(found)?;
        lock(&self.done).push(format!("{what} {domain}"));
        Ok(answer)
    }

    fn with_disk<T>(&self, at: &DiskAddress, what: &str, work: impl FnOnce(&mut DiskStatus) -> T) -> Answer<T> {
        self.with(&at.domain, what, |domain| {
            let found = domain.status.disks.iter_mut().find(|disk| (&disk.vm, &disk.disk) == (&at.vm, &at.disk));
            found.map(work).ok_or_else(|| Problem::no_disk(at))
        })
    }

    fn changed_disk(&self, at: &DiskAddress, what: &str, work: impl FnOnce(&mut DiskStatus)) -> Answer<DiskStatus> {
        self.with_disk(at, what, |disk| {
            work(disk);
            disk.clone()
        })
    }
}

/// A disk of 100 MiB.
pub fn spec(vm: &str, disk: &str, primary: Option<&str>) -> DiskSpec {
    DiskSpec {
        vm: vm.to_owned(),
        disk: disk.to_owned(),
        primary: primary.map(str::to_owned),
        size_bytes: Some(100 << 20),
        mode: None,
        overflow: None,
        shared: false,
        export: None,
    }
}

fn disk(domain: &str, spec: &DiskSpec) -> DiskStatus {
    let name = spec.export_name(domain);
    DiskStatus {
        vm: spec.vm.clone(),
        disk: spec.disk.clone(),
        id: Some(1),
        size_bytes: spec.size_bytes.unwrap_or(100 << 20),
        mode: spec.mode.unwrap_or(ProtectionMode::WriteThrough),
        overflow: spec.overflow.unwrap_or(OverflowPolicy::Degrade),
        state: DiskState::Unprotected,
        pending_bytes: 0,
        unapplied_bytes: 0,
        primary: spec.primary.clone(),
        attachment: Attachment::Nothing,
        export: DiskExport { uris: vec![format!("nbd+unix:///{name}?socket=/run/tidemark/nbd.sock")], name },
    }
}

fn removed(pending_bytes: u64, how: RemoveQuery) -> Answer<Removed> {
    if pending_bytes > 0 && !how.discard_pending {
        let problem = Problem::conflict(format!("{pending_bytes} bytes of acknowledged writes are not in the bucket"));
        return Err(problem.hint("wait longer with --drain, or lose them with --discard-pending"));
    }
    Ok(Removed { last_lsn: 470, committed_lsn: 464, discarded_bytes: pending_bytes })
}

#[async_trait]
impl Control for Fake {
    async fn status(&self) -> Answer<ApplianceStatus> {
        let domains = lock(&self.domains).values().map(|domain| domain.status.clone()).collect();
        Ok(ApplianceStatus {
            name: "drva1".to_owned(),
            version: "0.1.0".to_owned(),
            started: self.now(),
            uptime_ms: 7_200_000,
            log_store: LogStoreStatus {
                path: "/var/lib/tidemark/log".to_owned(),
                size_bytes: 32 << 30,
                used_bytes: 2 << 30,
                fill: 0.0625,
                failed: None,
            },
            domains,
        })
    }

    async fn metrics(&self) -> Answer<String> {
        Ok("# EOF\n".to_owned())
    }

    async fn domain(&self, domain: &str) -> Answer<DomainStatus> {
        self.with(domain, "domain", |domain| Ok(domain.status.clone()))
    }

    async fn disk(&self, disk: &DiskAddress) -> Answer<DiskStatus> {
        self.with_disk(disk, "disk", |disk| disk.clone())
    }

    async fn events(&self, query: EventQuery) -> Answer<EventPage> {
        if query.wait_s > 0 {
            lock(&self.done).push("begin to wait".to_owned());
        }
        Ok(self.ring().page(query).await)
    }

    async fn domain_add(&self, spec: DomainSpec) -> Answer<DomainStatus> {
        let mut domain = self.pretended(&spec.name, &spec.url, &spec.settings);
        domain.settings.check()?;
        domain.status.state = DomainState::Opening;
        domain.status.disks = spec.disks.iter().map(|disk_spec| disk(&spec.name, disk_spec)).collect();
        let mut domains = lock(&self.domains);
        if domains.contains_key(&spec.name) {
            return Err(Problem::conflict(format!("domain {:?} is there already", spec.name)));
        }
        domains.insert(spec.name, domain.clone());
        Ok(domain.status)
    }

    async fn domain_remove(&self, domain: &str, how: RemoveQuery) -> Answer<Removed> {
        let removed = self.with(domain, "remove", |domain| {
            removed(domain.status.disks.iter().map(|disk| disk.pending_bytes).sum(), how)
        })?;
        lock(&self.domains).remove(domain);
        Ok(removed)
    }

    async fn settings(&self, domain: &str) -> Answer<Settings> {
        self.with(domain, "settings", |domain| Ok(domain.settings.clone()))
    }

    async fn change_settings(&self, domain: &str, patch: SettingsPatch) -> Answer<Settings> {
        self.with(domain, "change settings", |domain| {
            let settings = domain.settings.with(&patch);
            settings.check()?;
            domain.settings = settings.clone();
            Ok(settings)
        })
    }

    async fn pause(&self, domain: &str) -> Answer<DomainStatus> {
        if domain == SLOW {
            lock(&self.done).push("begin to pause".to_owned());
            self.gate.acquire().await.expect("nobody closes it").forget();
        }
        self.with(domain, "pause", |domain| {
            domain.status.state = DomainState::Paused;
            Ok(domain.status.clone())
        })
    }

    async fn resume(&self, domain: &str) -> Answer<DomainStatus> {
        self.with(domain, "resume", |domain| {
            domain.status.state = DomainState::Replicating;
            Ok(domain.status.clone())
        })
    }

    async fn drain(&self, domain: &str, request: DrainRequest) -> Answer<Drained> {
        self.with(domain, "drain", |domain| {
            let complete = request.timeout_ms > 0;
            let pending_bytes = if complete { 0 } else { 3 << 20 };
            let status = &mut domain.status;
            status.committed_lsn = if complete { status.last_lsn } else { status.committed_lsn };
            Ok(Drained { complete, target_lsn: status.last_lsn, committed_lsn: status.committed_lsn, pending_bytes })
        })
    }

    async fn takeover(&self, domain: &str, _: TakeoverRequest) -> Answer<DomainStatus> {
        self.with(domain, "takeover", |domain| match &domain.status.state {
            DomainState::Fenced { reason } => {
                Err(Problem::new(ProblemKind::Fenced, reason.clone()).hint("is the other appliance still running?"))
            }
            _ => {
                domain.status.epoch = domain.status.epoch.map(|epoch| epoch + 1);
                Ok(domain.status.clone())
            }
        })
    }

    async fn bookmark(&self, domain: &str, request: BookmarkRequest) -> Answer<BookmarkMade> {
        let time = self.now();
        self.with(domain, "bookmark", |domain| {
            domain.status.bookmarks += 1;
            let frozen_ms = (!request.agents.is_empty()).then_some(42);
            Ok(BookmarkMade { name: request.name, lsn: 471, time, level: request.level, frozen_ms })
        })
    }

    async fn vm_config(&self, domain: &str, vm: &str, request: VmConfigRequest) -> Answer<Recorded> {
        let time = self.now();
        self.with(domain, &format!("config of {vm} in {} bytes", request.body.len()), |_| {
            Ok(Recorded { lsn: 472, time })
        })
    }

    async fn disk_add(&self, domain: &str, spec: DiskSpec) -> Answer<DiskStatus> {
        let name = domain;
        self.with(name, "disk add", |domain| {
            let disk = disk(name, &spec);
            domain.status.disks.push(disk.clone());
            Ok(disk)
        })
    }

    async fn disk_remove(&self, disk: &DiskAddress, how: RemoveQuery) -> Answer<Removed> {
        let pending = self.with_disk(disk, "disk remove", |disk| disk.pending_bytes)?;
        removed(pending, how)
    }

    async fn disk_resize(&self, disk: &DiskAddress, request: ResizeRequest) -> Answer<DiskStatus> {
        self.changed_disk(disk, "resize", |disk| disk.size_bytes = request.size_bytes)
    }

    async fn disk_mode(&self, disk: &DiskAddress, request: ModeRequest) -> Answer<DiskStatus> {
        self.changed_disk(disk, "mode", |disk| disk.mode = request.mode)
    }

    async fn seed(&self, disk: &DiskAddress, _: SeedRequest) -> Answer<DiskStatus> {
        let total_bytes = 100 << 20;
        self.changed_disk(disk, "seed", |disk| {
            disk.state = DiskState::Seeding { done_bytes: 0, total_bytes, eta_s: None };
        })
    }

    async fn attach(&self, disk: &DiskAddress, request: AttachRequest) -> Answer<DiskStatus> {
        self.changed_disk(disk, "attach", |disk| {
            let node = request.node.unwrap_or_else(|| "#block123".to_owned());
            disk.attachment = Attachment::Tap { qmp_socket: request.qmp_socket, node, tap: TapState::Connecting };
        })
    }

    async fn detach(&self, disk: &DiskAddress) -> Answer<DiskStatus> {
        self.changed_disk(disk, "detach", |disk| disk.attachment = Attachment::Nothing)
    }
}
