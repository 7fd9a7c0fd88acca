//! The appliance: the log store, the domains in it, and what can be asked of them.

use crate::control::{Answer, Control};
use crate::disk::{Disk, lock};
use crate::error::{Error, Result};
use crate::events::NewEvent;
use crate::host::{Host, Served, Site, State, seed, space, throttle, upload_limit};
use crate::inventory::{Entry, Inventory};
use crate::stats::Statistics;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tidemark_api::{
    ApplianceStatus, AttachRequest, Attachment, BookmarkLevel, BookmarkMade, BookmarkRequest, Check, Cost, DiskAddress,
    DiskExport, DiskSpec, DiskStatus, DomainSpec, DomainState, DomainStatus, DrainRequest, Drained, EventPage,
    EventQuery, Limit, LogStoreStatus, LogUse, ModeRequest, Problem, ProblemKind, ProtectionMode, Recorded,
    RemoveQuery, Removed, ResizeRequest, Rpo, SeedRequest, Settings, SettingsPatch, Severity, TakeoverRequest,
    Throttle, ThrottleStage, Throughput, Time, VmConfigRequest, VmStatus,
};
use tidemark_bucket::{MeterSnapshot, Op};
use tidemark_format::{DomainId, EventBody, Level, with_causes};
use tidemark_prices::{Money, Requests, Sheet, Usage};
use tidemark_rates::Stage;
use tidemark_replication::{Phase, Standing, TakeOver};
use tidemark_telemetry::Readings;
use tidemark_telemetry::registry::ApplianceMeasure;

/// All domains, by name.
pub(crate) struct Hosts {
    hosts: Mutex<BTreeMap<String, Arc<Host>>>,
}

impl Hosts {
    pub(crate) fn all(&self) -> Vec<Arc<Host>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Host>>> {
        lock(&self.hosts)
    }
}

/// An appliance.
pub(crate) struct Appliance {
    pub(crate) hosts: Arc<Hosts>,
    site: Site,
    log_store: PathBuf,
    started: Time,
    started_at: Duration,
    uris: Vec<String>,
    nbd_socket: Option<String>,
    inventory: Arc<Mutex<Inventory>>,
    pub(crate) statistics: Arc<Statistics>,
}

/// What an appliance is made of.
pub(crate) struct ApplianceParts {
    pub(crate) site: Site,
    pub(crate) log_store: PathBuf,
    pub(crate) inventory: Inventory,
    /// Domains that the configuration names: they are there, whatever the inventory says.
    pub(crate) configured: Vec<DomainSpec>,
    /// Where NBD clients connect, without the export's name.
    pub(crate) uris: Vec<String>,
    /// Where QEMU mirrors to.
    pub(crate) nbd_socket: Option<String>,
    pub(crate) statistics: Arc<Statistics>,
}

impl Appliance {
    /// Starts to protect everything that is configured or remembered.
    ///
    /// # Errors
    /// What cannot be remembered.
    pub(crate) fn start(parts: ApplianceParts) -> Result<Arc<Self>> {
        let ApplianceParts { site, log_store, mut inventory, configured, uris, nbd_socket, statistics } = parts;
        for spec in configured {
            match inventory.get_mut(&spec.name) {
                Some(entry) => ensure(&mut entry.spec, spec),
                None => inventory.domains.push(Entry { spec, id: None }),
            }
        }
        inventory.save()?;
        let started = Time::from(site.env.clock.wall());
        let started_at = site.env.clock.monotonic();
        let entries = inventory.domains.clone();
        let hosts = Arc::new(Hosts { hosts: Mutex::default() });
        let inventory = Arc::new(Mutex::new(inventory));
        let appliance =
            Arc::new(Self { hosts, site, log_store, started, started_at, uris, nbd_socket, inventory, statistics });
        for entry in entries {
            appliance.host(entry);
        }
        Ok(appliance)
    }

    fn host(&self, entry: Entry) -> Arc<Host> {
        let (name, inventory) = (entry.spec.name.clone(), self.inventory.clone());
        let remembered = name.clone();
        let remember = move |id: DomainId| {
            let mut inventory = lock(&inventory);
            if let Some(entry) = inventory.get_mut(&remembered) {
                entry.id = Some(id.to_string());
            }
            if let Err(error) = inventory.save() {
                tracing::error!(%error, "the domain's id is not remembered: its bucket has to answer at the next start");
            }
        };
        let id = entry.id.as_deref().and_then(|id| id.parse().ok());
        let host = Host::start(self.site.clone(), entry.spec, id, remember);
        self.hosts.lock().insert(name, host.clone());
        host
    }

    /// How the appliance as a whole is doing, in numbers.
    pub(crate) fn readings(&self) -> Readings<ApplianceMeasure> {
        use ApplianceMeasure as M;
        let space = self.site.store.space();
        let failed =
            self.hosts.all().iter().any(|host| host.served().is_some_and(|of| of.domain.log_failed().is_some()));
        let uptime = self.site.env.clock.monotonic().saturating_sub(self.started_at);
        let mut readings = Readings::new();
        readings.now(M::Uptime, uptime.as_secs_f64()).now(M::LogStoreFailed, f64::from(u8::from(failed)));
        readings.now(M::LogStoreSize, space.total_bytes as f64);
        readings.now(M::LogStoreUsed, (space.total_bytes - space.free_bytes) as f64);
        readings
    }

    /// Ends service, cleanly where that takes no longer than `patience`.
    pub(crate) async fn stop(&self, patience: Duration) {
        let hosts = self.hosts.all();
        futures::future::join_all(hosts.iter().map(|host| host.stop(patience))).await;
    }

    fn find(&self, domain: &str) -> Answer<Arc<Host>> {
        self.hosts.lock().get(domain).cloned().ok_or_else(|| Problem::no_domain(domain))
    }

    /// The domain, open.
    fn open(&self, domain: &str) -> Answer<(Arc<Host>, Arc<Served>)> {
        let host = self.find(domain)?;
        let problem = match host.state() {
            State::Serving(served) => return Ok((host, served)),
            State::Waiting { why, .. } => {
                Problem::new(ProblemKind::Unavailable, format!("domain {domain:?} is not open yet: {why}"))
            }
            State::Failed { why } => Problem::conflict(format!("domain {domain:?} cannot be opened: {why}")),
        };
        Err(problem.hint("`tidemark drva events` says what is tried"))
    }

    fn find_disk(&self, address: &DiskAddress) -> Answer<(Arc<Host>, Arc<Served>, Arc<Disk>)> {
        let (host, served) = self.open(&address.domain)?;
        let disk = served.disk(&address.vm, &address.disk).ok_or_else(|| Problem::no_disk(address))?;
        Ok((host, served, disk))
    }

    /// Changes what is remembered of a domain, and remembers it.
    fn remember(&self, domain: &str, change: impl FnOnce(&mut DomainSpec)) -> Answer<()> {
        let mut inventory = lock(&self.inventory);
        if let Some(entry) = inventory.get_mut(domain) {
            change(&mut entry.spec);
        }
        inventory.save().map_err(|e| problem(&e))
    }

    /// Remembers the disks of a domain as they are now.
    fn remember_disks(&self, host: &Host) -> Answer<()> {
        let disks = host.spec().disks.clone();
        self.remember(&host.name(), |remembered| remembered.disks = disks)
    }

    fn forget(&self, domain: &str) -> Answer<()> {
        let mut inventory = lock(&self.inventory);
        inventory.domains.retain(|entry| entry.spec.name != domain);
        inventory.save().map_err(|e| problem(&e))
    }

    fn status_of(&self, host: &Host) -> DomainStatus {
        let spec = host.spec().clone();
        let settings = host.settings();
        let target_ms = settings.rpo_ms;
        let mut status = DomainStatus {
            name: spec.name.clone(),
            id: None,
            url: spec.url.clone(),
            epoch: None,
            state: DomainState::Opening,
            last_lsn: 0,
            committed_lsn: 0,
            rpo: Rpo { age_ms: 0, target_ms },
            log: LogUse { used_bytes: 0, max_bytes: 0, fill: 0.0 },
            throttle: Throttle {
                stage: ThrottleStage::None,
                added_latency_ms: 0.0,
                guest_bytes_per_s: Limit::Unlimited,
            },
            throughput: Throughput::default(),
            compression_ratio: None,
            requests: BTreeMap::new(),
            cost: None,
            maintenance: host.upkeep.status(),
            bookmarks: 0,
            vms: Vec::new(),
            disks: Vec::new(),
        };
        match host.state() {
            State::Waiting { why: reason, since } => status.state = DomainState::Offline { reason, since },
            State::Failed { why: reason } => status.state = DomainState::Failed { reason },
            State::Serving(served) => self.fill(&mut status, &settings, &served),
        }
        status
    }

    /// What the domain's requests cost so far, and its bytes from now on.
    fn cost(&self, url: &str, served: &Served, asked: &MeterSnapshot) -> Cost {
        let sheet = self.site.prices.clone().unwrap_or_else(|| Sheet::likely(url));
        let [put, get, list, delete, head] =
            [Op::Put, Op::Get, Op::List, Op::Delete, Op::Head].map(|op| asked.total(op));
        let requests = Requests {
            put: put.requests,
            get: get.requests,
            list: list.requests,
            delete: delete.requests,
            head: head.requests,
        };
        let spent = sheet.usage(&Usage { requests, read_bytes: get.bytes });
        let counted = self.site.env.clock.monotonic().saturating_sub(served.counted_from);
        Cost {
            sheet: sheet.name().to_owned(),
            currency: sheet.currency().to_owned(),
            counted_ms: counted.as_millis() as u64,
            spent_nanos: spent.nanos(),
            month_nanos: spent.per_month(counted).map(Money::nanos),
            stored_bytes: put.bytes,
            kept_month_nanos: sheet.month(put.bytes).nanos(),
        }
    }

    fn fill(&self, status: &mut DomainStatus, settings: &Settings, served: &Served) {
        let now = served.domain.status();
        let target_ms = status.rpo.target_ms;
        let rpo = |age: Duration| Rpo { age_ms: age.as_millis() as u64, target_ms };
        status.id = Some(now.domain.to_string());
        status.epoch = now.epoch.map(|epoch| epoch.get());
        let reason = now.why.clone();
        status.state = match now.phase {
            Phase::Opening => DomainState::Opening,
            Phase::Replicating => DomainState::Replicating,
            Phase::Offline => DomainState::Offline { reason, since: Time::from(now.since) },
            Phase::Paused => DomainState::Paused,
            Phase::Fenced => DomainState::Fenced { reason },
            Phase::Diverged => DomainState::Diverged { reason },
            Phase::Failed | Phase::Closed => DomainState::Failed { reason },
        };
        status.last_lsn = now.last_lsn.get();
        status.committed_lsn = now.committed.get();
        status.rpo = rpo(now.rpo_age);
        let max_bytes = (now.log.used_bytes + now.log.available_bytes).min(now.log.max_bytes);
        status.log = LogUse { used_bytes: now.log.used_bytes, max_bytes, fill: now.throttle.fill };
        let disks: Vec<_> = served.disks().values().cloned().collect();
        status.throttle = Throttle {
            stage: match now.throttle.stage {
                Stage::Free => ThrottleStage::None,
                Stage::SeedSlowed => ThrottleStage::SeedSlowed,
                Stage::Throttled => ThrottleStage::Throttled,
                Stage::Overflow if disks.iter().any(|disk| disk.volume.is_bypassing()) => ThrottleStage::Degraded,
                Stage::Overflow => ThrottleStage::Stalled,
            },
            added_latency_ms: now.throttle.hold_max.as_secs_f64() * 1e3,
            guest_bytes_per_s: now
                .throttle
                .guest_rate_max
                .map_or(Limit::Unlimited, |rate| Limit::at_most(rate.get()).unwrap_or(Limit::Unlimited)),
        };
        let asked = served.bucket.meter().snapshot();
        status.cost = Some(self.cost(&status.url, served, &asked));
        for (op, _, count) in asked.iter() {
            let entry = status.requests.entry(op.name().to_owned()).or_default();
            entry.requests += count.requests;
            entry.bytes += count.bytes;
        }
        status.throughput = Throughput {
            guest_bytes_per_s: now.throughput.guest_bytes.get(),
            guest_writes_per_s: now.throughput.guest_writes_per_s,
            shipped_bytes_per_s: now.throughput.shipped.get(),
            seed_bytes_per_s: now.throughput.seeded.get(),
        };
        status.compression_ratio = now.throughput.compression;
        status.bookmarks = now.bookmarks;
        let mut vms: BTreeMap<String, VmStatus> = BTreeMap::new();
        for disk in disks {
            let of_domain = now.disk(disk.volume.disk);
            let (age, pending) = of_domain.map_or((Duration::ZERO, 0), |of| (of.rpo_age, of.waiting_bytes));
            let standing = of_domain.map_or(Standing::Unprotected, |of| of.standing);
            let vm = vms.entry(disk.address.vm.clone()).or_insert_with(|| VmStatus {
                name: disk.address.vm.clone(),
                rpo: rpo(Duration::ZERO),
                pending_bytes: 0,
                config_lsn: None,
            });
            vm.rpo.age_ms = vm.rpo.age_ms.max(age.as_millis() as u64);
            vm.pending_bytes += pending;
            status.disks.push(self.disk_status(&disk, settings, standing, pending));
        }
        status.vms = vms.into_values().collect();
    }

    fn disk_status(&self, disk: &Disk, settings: &Settings, standing: Standing, pending_bytes: u64) -> DiskStatus {
        use tidemark_io_filter::Volume;
        let spec = disk.spec().clone();
        let name = disk.export_name();
        let connections = disk.open_connections();
        DiskStatus {
            vm: spec.vm.clone(),
            disk: spec.disk.clone(),
            id: Some(disk.volume.disk.get()),
            size_bytes: disk.volume.geometry().size_bytes,
            mode: disk.volume.mode(),
            overflow: spec.overflow.unwrap_or(settings.overflow),
            state: disk.state(standing),
            pending_bytes,
            unapplied_bytes: disk.volume.pending_bytes(),
            primary: spec.primary.clone(),
            attachment: disk.tap().unwrap_or(match connections {
                0 => Attachment::Nothing,
                connections => Attachment::Inline { connections },
            }),
            export: DiskExport { uris: self.uris.iter().map(|uri| uri.replace("{export}", &name)).collect(), name },
        }
    }

    fn one_disk(&self, address: &DiskAddress) -> Answer<DiskStatus> {
        let host = self.find(&address.domain)?;
        let status = self.status_of(&host);
        let found = status.disks.into_iter().find(|disk| disk.vm == address.vm && disk.disk == address.disk);
        found.ok_or_else(|| Problem::no_disk(address))
    }

    /// Waits until everything acknowledged is in the bucket, or the time is over.
    async fn drained(served: &Served, timeout_ms: u64) -> Answer<bool> {
        match tokio::time::timeout(Duration::from_millis(timeout_ms), served.domain.drain()).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) => Err(refused(&error)),
            Err(_) => Ok(false),
        }
    }

    /// Refuses to let go of what is acknowledged and not in the bucket, unless that was asked for.
    async fn let_go(served: &Served, how: &RemoveQuery) -> Answer<Removed> {
        let complete = Self::drained(served, how.drain_timeout_ms).await.unwrap_or(false);
        let status = served.domain.status();
        if !complete && !how.discard_pending {
            let missing = status.committed.next().count_to(status.last_lsn);
            let detail = format!("{missing} acknowledged writes and events are not in the bucket");
            return Err(Problem::conflict(detail).hint("drain first, or say that they may be discarded"));
        }
        Ok(Removed {
            last_lsn: status.last_lsn.get(),
            committed_lsn: status.committed.get(),
            discarded_bytes: if complete { 0 } else { status.log.used_bytes },
        })
    }
}

/// Takes a configured spec over into what is remembered: its own disks stay, the configuration's win.
fn ensure(remembered: &mut DomainSpec, configured: DomainSpec) {
    remembered.url = configured.url;
    remembered.create |= configured.create;
    remembered.settings = remembered.settings.with(&configured.settings);
    for disk in configured.disks {
        match remembered.disks.iter_mut().find(|there| (&there.vm, &there.disk) == (&disk.vm, &disk.disk)) {
            Some(there) => *there = disk,
            None => remembered.disks.push(disk),
        }
    }
}

pub(crate) fn problem(error: &Error) -> Problem {
    told(ProblemKind::from(error.kind()), error, error.hint())
}

/// What a domain refused, with its causes.
pub(crate) fn refused(error: &tidemark_replication::Error) -> Problem {
    let kind = match error {
        tidemark_replication::Error::IllegalMove { .. } => ProblemKind::Conflict,
        _ => ProblemKind::from(error.kind()),
    };
    told(kind, error, error.hint())
}

pub(crate) fn told(kind: ProblemKind, error: &dyn std::error::Error, hint: Option<&str>) -> Problem {
    let problem = Problem::new(kind, with_causes(error));
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

#[async_trait]
impl Control for Appliance {
    async fn status(&self) -> Answer<ApplianceStatus> {
        let space = self.site.store.space();
        let used_bytes = space.total_bytes - space.free_bytes;
        let uptime = self.site.env.clock.monotonic().saturating_sub(self.started_at);
        Ok(ApplianceStatus {
            name: self.site.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            uptime_ms: uptime.as_millis() as u64,
            log_store: LogStoreStatus {
                path: self.log_store.display().to_string(),
                size_bytes: space.total_bytes,
                used_bytes,
                fill: used_bytes as f64 / space.total_bytes.max(1) as f64,
                failed: self.hosts.all().iter().find_map(|host| host.served()?.domain.log_failed()),
            },
            domains: self.hosts.all().iter().map(|host| self.status_of(host)).collect(),
        })
    }

    async fn metrics(&self) -> Answer<String> {
        Ok(self.statistics.exposition(self))
    }

    async fn domain(&self, domain: &str) -> Answer<DomainStatus> {
        Ok(self.status_of(&*self.find(domain)?))
    }

    async fn disk(&self, disk: &DiskAddress) -> Answer<DiskStatus> {
        self.one_disk(disk)
    }

    async fn events(&self, query: EventQuery) -> Answer<EventPage> {
        Ok(self.site.events.page(query).await)
    }

    async fn domain_add(&self, spec: DomainSpec) -> Answer<DomainStatus> {
        if self.hosts.lock().contains_key(&spec.name) {
            return Err(Problem::conflict(format!("domain {:?} is protected here already", spec.name)));
        }
        self.site.defaults.with(&spec.settings).check().map_err(Problem::from)?;
        let entry = Entry { spec, id: None };
        {
            let mut inventory = lock(&self.inventory);
            inventory.domains.push(entry.clone());
            inventory.save().map_err(|e| problem(&e))?;
        }
        let host = self.host(entry);
        Ok(self.status_of(&host))
    }

    async fn domain_remove(&self, domain: &str, how: RemoveQuery) -> Answer<Removed> {
        let host = self.find(domain)?;
        let removed = match host.state() {
            State::Serving(served) => {
                let removed = Self::let_go(&served, &how).await?;
                host.stop(Duration::from_secs(10)).await;
                let id = served.domain.id();
                let store = self.site.store.clone();
                self.hosts.lock().remove(domain);
                drop(served);
                let removing = tokio::task::spawn_blocking(move || store.remove_domain(id)).await;
                if let Ok(Err(error)) = removing {
                    tracing::warn!(domain, %error, "the domain's log keeps its space");
                }
                removed
            }
            _ => {
                host.stop(Duration::ZERO).await;
                self.hosts.lock().remove(domain);
                Removed { last_lsn: 0, committed_lsn: 0, discarded_bytes: 0 }
            }
        };
        self.forget(domain)?;
        let event = NewEvent::new(Severity::Warning, "domain-removed", "the domain is not protected here any more");
        self.site.events.push(event.domain(domain));
        Ok(removed)
    }

    async fn settings(&self, domain: &str) -> Answer<Settings> {
        Ok(self.find(domain)?.settings())
    }

    async fn change_settings(&self, domain: &str, patch: SettingsPatch) -> Answer<Settings> {
        let host = self.find(domain)?;
        let patched = host.spec().settings.with(&patch);
        let settings = self.site.defaults.with(&patched);
        settings.check().map_err(Problem::from)?;
        if let Some(served) = host.served() {
            served.domain.set_space(space(&settings)).await.map_err(|e| refused(&e))?;
            served.domain.set_throttle(throttle(&settings)).map_err(|e| refused(&e))?;
            served.domain.set_seed_options(seed(&settings)).map_err(|e| refused(&e))?;
            let limit = upload_limit(&settings, &self.site.time_zone, self.site.env.clock.wall());
            served.domain.set_upload_limit(limit);
        }
        host.spec().settings = patched.clone();
        self.remember(domain, |spec| spec.settings = patched)?;
        Ok(settings)
    }

    async fn pause(&self, domain: &str) -> Answer<DomainStatus> {
        let (host, served) = self.open(domain)?;
        served.domain.pause().await.map_err(|e| refused(&e))?;
        host.event(Severity::Warning, "domain-paused", "shipping is held; writes stay in the log");
        Ok(self.status_of(&host))
    }

    async fn resume(&self, domain: &str) -> Answer<DomainStatus> {
        let (host, served) = self.open(domain)?;
        served.domain.resume().map_err(|e| refused(&e))?;
        host.event(Severity::Info, "domain-resumed", "shipping goes on");
        Ok(self.status_of(&host))
    }

    async fn drain(&self, domain: &str, request: DrainRequest) -> Answer<Drained> {
        let (_, served) = self.open(domain)?;
        let target = served.domain.status().last_lsn;
        let complete = Self::drained(&served, request.timeout_ms).await?;
        let status = served.domain.status();
        let pending_bytes = if complete { 0 } else { status.log.used_bytes };
        Ok(Drained { complete, target_lsn: target.get(), committed_lsn: status.committed.get(), pending_bytes })
    }

    async fn takeover(&self, domain: &str, request: TakeoverRequest) -> Answer<DomainStatus> {
        let (host, served) = self.open(domain)?;
        let how = if request.discard_local { TakeOver::DiscardLocal } else { TakeOver::KeepLocal };
        served.domain.take_over(how).map_err(|e| refused(&e))?;
        host.event(Severity::Warning, "domain-takeover", "an operator takes the domain over");
        Ok(self.status_of(&host))
    }

    async fn bookmark(&self, domain: &str, request: BookmarkRequest) -> Answer<BookmarkMade> {
        let (host, served) = self.open(domain)?;
        let made = crate::bookmark::make(&served, &request).await?;
        host.event(Severity::Info, "bookmark", format!("{:?} at lsn {}", made.name, made.lsn));
        Ok(made)
    }

    async fn vm_config(&self, domain: &str, vm: &str, request: VmConfigRequest) -> Answer<Recorded> {
        let (_, served) = self.open(domain)?;
        let event = EventBody::VmConfig { vm: vm.to_owned(), format: request.format, body: request.body.into_bytes() };
        let logged = served.domain.event_with_time(event).await.map_err(|e| refused(&e))?;
        served.domain.drain().await.map_err(|e| refused(&e))?;
        Ok(Recorded { lsn: logged.0.get(), time: Time::from(logged.1) })
    }

    async fn disk_add(&self, domain: &str, spec: DiskSpec) -> Answer<DiskStatus> {
        let (host, served) = self.open(domain)?;
        if served.disk(&spec.vm, &spec.disk).is_some() {
            return Err(Problem::conflict(format!("{}/{} of {domain} is protected already", spec.vm, spec.disk)));
        }
        host.add_disk(&served, &spec).await.map_err(|e| problem(&e))?;
        host.spec().disks.push(spec.clone());
        self.remember_disks(&host)?;
        let address = DiskAddress { domain: domain.to_owned(), vm: spec.vm, disk: spec.disk };
        self.site.events.push(NewEvent::new(Severity::Info, "disk-added", "the disk is protected").disk(&address));
        self.one_disk(&address)
    }

    async fn disk_remove(&self, address: &DiskAddress, how: RemoveQuery) -> Answer<Removed> {
        let (host, served, disk) = self.find_disk(address)?;
        let removed = Self::let_go(&served, &how).await?;
        disk.settle().await.map_err(|e| told(ProblemKind::Unavailable, &e, None))?;
        served.disks().remove(&(address.vm.clone(), address.disk.clone()));
        disk.stop().await;
        served.domain.disk_remove(disk.volume.disk).await.map_err(|e| refused(&e))?;
        host.spec().disks.retain(|there| (&there.vm, &there.disk) != (&address.vm, &address.disk));
        self.remember_disks(&host)?;
        let event = NewEvent::new(Severity::Warning, "disk-removed", "the disk is not protected any more");
        self.site.events.push(event.disk(address));
        Ok(removed)
    }

    async fn disk_resize(&self, address: &DiskAddress, request: ResizeRequest) -> Answer<DiskStatus> {
        use tidemark_io_filter::Volume;
        let (_, _, disk) = self.find_disk(address)?;
        let before = disk.volume.geometry().size_bytes;
        if request.size_bytes < before && !request.allow_shrink {
            let detail = format!("{} bytes are less than the {before} bytes that the disk has", request.size_bytes);
            return Err(Problem::conflict(detail).hint("what a smaller disk loses is gone: say that it may shrink"));
        }
        disk.volume
            .resize(request.size_bytes)
            .await
            .map_err(|e| Problem::new(ProblemKind::Unavailable, format!("cannot resize the disk: {e}")))?;
        self.one_disk(address)
    }

    async fn disk_mode(&self, address: &DiskAddress, request: ModeRequest) -> Answer<DiskStatus> {
        let (host, _, disk) = self.find_disk(address)?;
        if disk.volume.primary.is_none() && request.mode == ProtectionMode::WriteBack {
            return Err(Problem::conflict("a disk without a primary cannot be write-back"));
        }
        disk.volume.set_mode(request.mode);
        disk.spec().mode = Some(request.mode);
        for there in &mut host.spec().disks {
            if (&there.vm, &there.disk) == (&address.vm, &address.disk) {
                there.mode = Some(request.mode);
            }
        }
        self.remember_disks(&host)?;
        self.one_disk(address)
    }

    async fn seed(&self, address: &DiskAddress, request: SeedRequest) -> Answer<DiskStatus> {
        let (_, _, disk) = self.find_disk(address)?;
        crate::import::begin(&disk, request).await?;
        self.one_disk(address)
    }

    async fn attach(&self, address: &DiskAddress, request: AttachRequest) -> Answer<DiskStatus> {
        let (_, _, disk) = self.find_disk(address)?;
        crate::tap::attach(&disk, request, self.nbd_socket.as_deref()).await?;
        self.one_disk(address)
    }

    async fn detach(&self, address: &DiskAddress) -> Answer<DiskStatus> {
        let (_, _, disk) = self.find_disk(address)?;
        crate::tap::detach(&disk).await?;
        self.one_disk(address)
    }
}

/// The level of a bookmark, in the format's words.
pub(crate) fn level(level: BookmarkLevel) -> Level {
    match level {
        BookmarkLevel::Crash => Level::Crash,
        BookmarkLevel::Fs => Level::FileSystem,
        BookmarkLevel::App => Level::Application,
    }
}
