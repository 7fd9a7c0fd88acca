//! One domain in the appliance: opened in the background, again and again until it works, and then served.
//!
//! Each domain has its own host; what goes wrong in one stays there. Opening goes: the bucket, the primaries, the log (what
//! primaries lack is put onto them), the disks that are to be protected. Only then are exports served.

use crate::disk::{Disk, lock};
use crate::error::{Error, Result};
use crate::events::{EventRing, NewEvent};
use crate::upkeep::Upkeep;
use crate::volume::primary::Primary;
use crate::volume::{DiskVolume, VolumeParts, blocking, put_record};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tidemark_api::{Day, DiskAddress, DiskSpec, DomainSpec, OverflowPolicy, Settings, Severity, Time, TimeOfDay};
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_env::Env;
use tidemark_format::{BLOCK_BYTES, DiskId, DomainId, ErrorKind, TimeNs, with_causes};
use tidemark_log_store::{LogStore, Record, SpaceLimits};
use tidemark_prices::Sheet;
use tidemark_rates::{DiskOptions, Limit, OnOverflow, Rate, SeedOptions, ThrottleOptions};
use tidemark_replication::{Error as Replication, ProtectedDomain, ReplicationOptions};
use tidemark_telemetry::{DiskProbe, DomainProbe};
use tidemark_writer::{Content, NewDisk, WriterOptions, create_domain};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Pauses between attempts to open a domain.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// The bandwidth calendar is looked at this often.
const CALENDAR_LOOK: Duration = Duration::from_secs(10);
/// A guest waits for its write, nobody for a segment: when processors are short, the log fills before guests feel it.
const COMPRESS_NICENESS: u8 = 10;
/// Data of one disk that may be logged and not yet on its primary.
const PENDING_BYTES_MAX: u64 = 64 << 20;

/// What all hosts share.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) store: Arc<LogStore>,
    pub(crate) defaults: Settings,
    pub(crate) events: Arc<EventRing>,
    pub(crate) env: Env,
    pub(crate) fence_check_ms: u64,
    pub(crate) time_zone: TimeZone,
    pub(crate) maintenance: crate::config::Maintenance,
    /// What buckets charge, if that is configured.
    pub(crate) prices: Option<Sheet>,
}

/// A domain of the appliance.
pub(crate) struct Host {
    pub(crate) site: Site,
    spec: Mutex<DomainSpec>,
    state: watch::Sender<State>,
    /// Maintains its bucket.
    pub(crate) upkeep: Upkeep,
    /// Opens the domain.
    opener: Mutex<Option<JoinHandle<()>>>,
}

/// How far a host has come.
#[derive(Clone)]
pub(crate) enum State {
    /// Not open yet, and why not.
    Waiting { why: String, since: Time },
    /// It will not be opened as it is.
    Failed { why: String },
    /// Open.
    Serving(Arc<Served>),
}

/// An open domain.
pub(crate) struct Served {
    pub(crate) domain: Arc<ProtectedDomain>,
    pub(crate) bucket: Bucket,
    /// When its requests began to be counted, by the monotonic clock.
    pub(crate) counted_from: Duration,
    /// Counts what the guests of all its disks ask for.
    pub(crate) probe: Arc<DomainProbe>,
    disks: Mutex<BTreeMap<(String, String), Arc<Disk>>>,
}

impl Host {
    /// Begins to open a domain. `remember` is told its id once it is known.
    pub(crate) fn start(
        site: Site,
        spec: DomainSpec,
        id: Option<DomainId>,
        remember: impl Fn(DomainId) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let since = Time::from(site.env.clock.wall());
        let state = watch::Sender::new(State::Waiting { why: "starting".to_owned(), since });
        let host =
            Arc::new(Self { site, spec: Mutex::new(spec), state, upkeep: Upkeep::default(), opener: Mutex::new(None) });
        let opening = host.clone();
        let opener = tokio::spawn(async move { opening.open(id, remember).await });
        *lock(&host.opener) = Some(opener);
        tokio::spawn(keep_calendar(Arc::downgrade(&host)));
        Upkeep::start(&host, host.site.maintenance);
        host
    }

    pub(crate) fn spec(&self) -> MutexGuard<'_, DomainSpec> {
        lock(&self.spec)
    }

    pub(crate) fn name(&self) -> String {
        self.spec().name.clone()
    }

    pub(crate) fn settings(&self) -> Settings {
        self.site.defaults.with(&self.spec().settings)
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// The open domain, if it is open.
    pub(crate) fn served(&self) -> Option<Arc<Served>> {
        if let State::Serving(served) = &*self.state.borrow() { Some(served.clone()) } else { None }
    }

    /// Whether a disk of the domain is to be found under this name, be it open or not.
    pub(crate) fn is_to_export(&self, name: &str) -> bool {
        let spec = self.spec();
        spec.disks.iter().any(|disk| disk.export_name(&spec.name) == name)
    }

    /// Waits until the domain is open, or it is clear that it will not be as it is.
    pub(crate) async fn settled(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| !matches!(state, State::Waiting { .. })).await;
    }

    async fn open(&self, mut id: Option<DomainId>, remember: impl Fn(DomainId)) {
        let mut pause = RETRY_FIRST;
        let since = Time::from(self.site.env.clock.wall());
        loop {
            match self.open_once(&mut id, &remember).await {
                Ok(served) => {
                    self.event(Severity::Info, "domain-open", "the domain's disks are served");
                    self.state.send_replace(State::Serving(Arc::new(served)));
                    return;
                }
                Err(error) => {
                    let why = with_causes(&error);
                    // Rights, buckets and disks are mended by people, and then it goes on. Lost data is not.
                    let again = error.kind() != ErrorKind::DataLoss;
                    let severity = if again { Severity::Warning } else { Severity::Error };
                    self.event(severity, "domain-not-open", format!("cannot open the domain: {why}"));
                    if !again {
                        self.state.send_replace(State::Failed { why });
                        return;
                    }
                    self.state.send_replace(State::Waiting { why, since });
                }
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(RETRY_MAX);
        }
    }

    async fn open_once(&self, id: &mut Option<DomainId>, remember: &impl Fn(DomainId)) -> Result<Served> {
        let spec = self.spec().clone();
        let url: BucketUrl = spec.url.parse().map_err(Error::bucket("open the bucket"))?;
        let counted_from = self.site.env.clock.monotonic();
        let bucket = Bucket::open(&url, &BucketOptions::default()).map_err(Error::bucket("open the bucket"))?;
        let domain_id = match *id {
            Some(id) => id,
            None => {
                let found = identify(&bucket, &spec, &self.site.env).await?;
                remember(found);
                *id.insert(found)
            }
        };
        let mut primaries = BTreeMap::new();
        for disk in &spec.disks {
            if let Some(primary) = open_primary(disk).await? {
                primaries.insert((disk.vm.clone(), disk.disk.clone()), primary);
            }
        }
        // The ledger knows disks by number, the inventory by name: the log store says which is which.
        let names =
            ProtectedDomain::known_disks(&self.site.store, domain_id).map_err(Error::domain("open the domain"))?;
        let by_id: BTreeMap<DiskId, Arc<Primary>> = names
            .into_iter()
            .filter_map(|(disk, vm, name)| Some((disk, primaries.get(&(vm, name))?.clone())))
            .collect();
        let recovered = |record: &Record| {
            let Some((disk, primary)) = record.disk().and_then(|disk| by_id.get_key_value(&disk)) else {
                return Ok(());
            };
            put_record(primary, record).map_err(|e| {
                let why = format!("cannot write to {}: {e}", primary.path().display());
                Replication::Source { disk: *disk, why }
            })
        };
        let options = replication_options(&self.site.name, &self.settings(), self.site.fence_check_ms);
        let opened = ProtectedDomain::open(
            &self.site.store,
            domain_id,
            bucket.clone(),
            options,
            self.site.env.clone(),
            recovered,
        );
        let domain = Arc::new(opened.await.map_err(Error::domain("open the domain"))?);
        let last = domain.status().last_lsn;
        for (disk, primary) in &by_id {
            if domain.applied_through(*disk).is_some() {
                let syncing = primary.clone();
                let path = || primary.path().display().to_string();
                blocking(move || syncing.sync()).await.map_err(|source| Error::Primary { path: path(), source })?;
                domain.applied(*disk, last);
            }
        }
        let served = Served { domain, bucket, counted_from, probe: Arc::default(), disks: Mutex::default() };
        for disk in &spec.disks {
            let primary = primaries.remove(&(disk.vm.clone(), disk.disk.clone()));
            self.serve_disk(&served, disk, primary).await?;
        }
        Ok(served)
    }

    /// Protects a disk from now on.
    pub(crate) async fn add_disk(&self, served: &Served, disk: &DiskSpec) -> Result<Arc<Disk>> {
        self.serve_disk(served, disk, open_primary(disk).await?).await
    }

    async fn serve_disk(&self, served: &Served, spec: &DiskSpec, primary: Option<Arc<Primary>>) -> Result<Arc<Disk>> {
        let domain = &served.domain;
        let path = || spec.primary.clone().unwrap_or_default();
        let unusable = |source| Error::Primary { path: path(), source };
        let has = match &primary {
            None => None,
            Some(primary) => {
                let sized = primary.clone();
                Some(blocking(move || sized.size_bytes()).await.map_err(unusable)?)
            }
        };
        let table = domain.disks();
        let there = table
            .states()
            .iter()
            .find(|state| state.removed_at.is_none() && state.vm == spec.vm && state.name == spec.disk);
        let (id, size_bytes) = match there {
            Some(state) => (state.disk, state.blocks * BLOCK_BYTES),
            None => {
                let whole = |bytes: u64| bytes / BLOCK_BYTES * BLOCK_BYTES;
                let size_bytes = spec.size_bytes.or(has).map(whole).filter(|size| *size > 0);
                let size_bytes =
                    size_bytes.ok_or_else(|| Error::DiskSize { disk: format!("{}/{}", spec.vm, spec.disk) })?;
                let new = NewDisk { vm: spec.vm.clone(), name: spec.disk.clone(), size_bytes };
                let added = domain.disk_add(&new, Content::Existing).await;
                (added.map_err(Error::domain("add the disk"))?, size_bytes)
            }
        };
        if let Some(has) = has.filter(|has| *has < size_bytes) {
            return Err(Error::PrimarySize { path: path(), has, needs: size_bytes });
        }
        let known = domain.applied_through(id).is_some();
        if primary.is_some() && !known {
            // Nobody knows what a primary that was never ours holds of a disk that is in the bucket already.
            if there.is_some_and(|state| state.consistent_from.is_some()) {
                domain.open_gap(id).await.map_err(Error::domain("take the disk over"))?;
                domain.suspect(id);
            }
            domain.applied(id, domain.status().last_lsn);
        }
        // Before the first write is acknowledged, the log store has to know that there is a primary to keep records for.
        domain.keep().await.map_err(Error::domain("write the ledger"))?;
        let settings = self.settings();
        let meta = self.site.store.domain(domain.id()).ok_or(Error::NoLog)?;
        let volume = DiskVolume::new(VolumeParts {
            disk: id,
            domain: domain.clone(),
            meta,
            primary,
            size_bytes,
            mode: spec.mode.unwrap_or(settings.mode),
            pending_bytes_max: PENDING_BYTES_MAX,
            probe: DiskProbe::new(served.probe.clone()),
        });
        let volume = volume.map_err(unusable)?;
        if volume.is_bypassing() && there.is_some_and(|state| state.consistent_from.is_some()) {
            domain.open_gap(id).await.map_err(Error::domain("declare a gap"))?;
        }
        let on_overflow = match spec.overflow.unwrap_or(settings.overflow) {
            OverflowPolicy::Degrade if spec.primary.is_some() => OnOverflow::Degrade,
            _ => OnOverflow::Stall,
        };
        domain.set_disk_options(id, DiskOptions { on_overflow });
        let address = DiskAddress { domain: self.name(), vm: spec.vm.clone(), disk: spec.disk.clone() };
        let (bucket, env, events) = (served.bucket.read_only(), self.site.env.clone(), self.site.events.clone());
        let disk = Disk::start(address, spec.clone(), volume, bucket, env, events);
        if spec.primary.is_none() && there.is_some() {
            // Its VM may have gone on without us, and only a tap can say whether it did.
            disk.gap("the appliance was restarted").await.map_err(Error::domain("declare a gap"))?;
        }
        served.disks().insert((spec.vm.clone(), spec.disk.clone()), disk.clone());
        Ok(disk)
    }

    pub(crate) fn event(&self, severity: Severity, kind: &'static str, message: impl Into<String>) {
        self.site.events.push(NewEvent::new(severity, kind, message).domain(&self.name()));
    }

    /// Ends service: pending data goes to the primaries, what is logged to the bucket, as long as that takes no longer than
    /// `patience`. What is left goes on at the next start.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.upkeep.stop();
        if let Some(opener) = lock(&self.opener).take() {
            opener.abort();
        }
        let Some(served) = self.served() else { return };
        let disks: Vec<_> = served.disks().values().cloned().collect();
        let clean = async {
            for disk in &disks {
                if let Err(error) = disk.settle().await {
                    tracing::warn!(disk = %disk.address, %error, "not all is on the primary");
                }
            }
            if let Err(error) = served.domain.close().await {
                tracing::warn!(domain = self.name(), %error, "the domain was not closed cleanly");
            }
        };
        if tokio::time::timeout(patience, clean).await.is_err() {
            tracing::warn!(domain = self.name(), "not all is in the bucket: the next start goes on");
        }
        for disk in &disks {
            disk.stop().await;
        }
    }
}

impl Served {
    pub(crate) fn disks(&self) -> MutexGuard<'_, BTreeMap<(String, String), Arc<Disk>>> {
        lock(&self.disks)
    }

    pub(crate) fn disk(&self, vm: &str, disk: &str) -> Option<Arc<Disk>> {
        self.disks().get(&(vm.to_owned(), disk.to_owned())).cloned()
    }
}

/// The primary of a disk that has one.
async fn open_primary(disk: &DiskSpec) -> Result<Option<Arc<Primary>>> {
    let Some(path) = disk.primary.clone() else { return Ok(None) };
    let opening = path.clone();
    let opened = blocking(move || Primary::open(Path::new(&opening))).await;
    opened.map(|primary| Some(Arc::new(primary))).map_err(|source| Error::Primary { path, source })
}

/// Which domain a bucket holds; makes one if there is none and the spec says so.
async fn identify(bucket: &Bucket, spec: &DomainSpec, env: &Env) -> Result<DomainId> {
    if spec.create {
        match create_domain(&bucket.appender(), &spec.name, env).await {
            Ok(genesis) => return Ok(genesis.domain),
            Err(tidemark_writer::Error::DomainExists { domain, .. }) => return Ok(domain),
            Err(source) => return Err(Error::Writer { what: "make the domain", source }),
        }
    }
    ProtectedDomain::identify(bucket).await.map_err(Error::domain("open the domain")).map(|(id, _)| id)
}

/// Settings in the words of the parts that they concern.
pub(crate) fn replication_options(owner: &str, settings: &Settings, fence_check_ms: u64) -> ReplicationOptions {
    let segment_bytes_max = settings.segment_bytes;
    let defaults = WriterOptions::default();
    let writer = WriterOptions {
        owner: owner.to_owned(),
        segment_bytes_max,
        age_ms_max: settings.rpo_ms,
        zstd_level: settings.zstd_level,
        compress_niceness: COMPRESS_NICENESS,
        buffer_bytes_max: defaults.buffer_bytes_max.max(2 * segment_bytes_max + (64 << 20)),
        ..defaults
    };
    ReplicationOptions {
        writer,
        space: space(settings),
        throttle: throttle(settings),
        seed: seed(settings),
        fence_check_ms,
        ..ReplicationOptions::default()
    }
}

/// Background replication as the settings want it.
pub(crate) fn seed(settings: &Settings) -> SeedOptions {
    let defaults = SeedOptions::default();
    let rate_max = settings.seed_bytes_per_s.get().map_or(Rate::new(u64::MAX >> 16), Rate::new);
    SeedOptions {
        rate_max,
        rate_min: defaults.rate_min.min(rate_max),
        latency_bound: Duration::from_millis(settings.seed_guest_latency_ms_max),
    }
}

/// The upload limit of the settings at a time.
pub(crate) fn upload_limit(settings: &Settings, zone: &TimeZone, now: TimeNs) -> Limit {
    let local = Timestamp::from_nanosecond(now.get().into()).unwrap_or(Timestamp::MAX).to_zoned(zone.clone());
    let day = Day::ALL[local.weekday().to_monday_zero_offset() as usize];
    let minute = TimeOfDay::from_minutes((local.hour() as u16) * 60 + local.minute() as u16);
    settings.upload_limit_at(day, minute).get().map_or(Limit::Unlimited, |rate| Limit::AtMost(Rate::new(rate)))
}

/// Keeps a domain's uploads to its calendar until it is gone.
async fn keep_calendar(host: std::sync::Weak<Host>) {
    loop {
        {
            let Some(host) = host.upgrade() else { return };
            if let Some(served) = host.served() {
                let now = host.site.env.clock.wall();
                served.domain.set_upload_limit(upload_limit(&host.settings(), &host.site.time_zone, now));
            }
        }
        tokio::time::sleep(CALENDAR_LOOK).await;
    }
}

pub(crate) fn space(settings: &Settings) -> SpaceLimits {
    SpaceLimits { min_bytes: settings.log_bytes_min, max_bytes: settings.log_bytes_max.get().unwrap_or(u64::MAX >> 1) }
}

pub(crate) fn throttle(settings: &Settings) -> ThrottleOptions {
    let start_fill = settings.throttle_start_fill;
    let defaults = ThrottleOptions::default();
    let latest = Duration::from_millis(settings.throttle_latency_ms_max);
    ThrottleOptions {
        start_fill,
        seed_fill: defaults.seed_fill.min(start_fill / 2.0),
        overflow_fill: defaults.overflow_fill.max((start_fill + 1.0) / 2.0),
        added_latency_max: latest.min(tidemark_rates::throttle::ADDED_LATENCY_LIMIT),
    }
}
