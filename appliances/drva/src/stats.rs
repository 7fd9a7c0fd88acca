//! Statistics of the appliance: looks at every domain once a second, keeps rows on the local disk, brings them into buckets.
//!
//! A domain that panics while it is looked at is left out of that look; a bucket that does not answer keeps its own domain's
//! rows waiting, and nobody else's. Guests never wait for any of this.
//! Not here: what is counted while guests write (`DiskProbe`), and what looks become (`Collector`).

use crate::appliance::Appliance;
use crate::config;
use crate::disk::{Disk, lock};
use crate::events::{EventRing, NewEvent};
use crate::host::{Host, Served, State};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tidemark_api::{EVENTS_PER_PAGE_MAX, Event, EventQuery, Severity, Time};
use tidemark_bucket::{Op, Recorder};
use tidemark_env::Env;
use tidemark_format::text::hex;
use tidemark_format::{Day, KeyFamily, StatsTable, with_causes};
use tidemark_replication::{DiskStatus, DomainStatus, Phase, Standing};
use tidemark_telemetry::registry::{ApplianceMeasure, DiskMeasure, DomainMeasure};
use tidemark_telemetry::{
    Collector, DiskLook, DomainLook, Exposition, Features, Happened, Look, Moment, Produced, Readings, Row, Shipment,
    Signal, Spool, Turn,
};

/// Looks in a row; at most one a second.
const LOOKS_PER_ROW: u32 = 60;
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);
/// After a bucket did not take statistics, before they are sent again.
const RETRY_PAUSE: Duration = Duration::from_secs(60);
/// At the end, buckets may take so long.
const LAST_SHIPMENT_PATIENCE: Duration = Duration::from_secs(10);
/// Events of domains that are not open yet.
const EVENTS_WAITING_MAX: usize = 1_000;

/// What is kept between looks.
pub(crate) struct Statistics {
    options: config::Statistics,
    dir: PathBuf,
    env: Env,
    events: Arc<EventRing>,
    collector: Mutex<Collector>,
    followed: Mutex<Followed>,
    shelves: Mutex<BTreeMap<String, Shelf>>,
}

/// Events as far as they were seen.
#[derive(Default)]
struct Followed {
    last_seq: u64,
    /// By severity.
    counts: [u64; 3],
    /// Of domains that are not open, by name.
    waiting: BTreeMap<String, VecDeque<Row>>,
    lost: u64,
    /// Why a domain's rows cannot be kept, by name.
    not_kept: BTreeMap<String, String>,
}

/// The rows of one domain on their way to its bucket.
#[derive(Clone)]
struct Shelf {
    spool: Arc<Mutex<Spool>>,
    recorder: Recorder,
    /// Held by whoever sends; not before this time by the monotonic clock.
    sending: Arc<tokio::sync::Mutex<Duration>>,
}

impl Statistics {
    pub(crate) fn new(
        options: config::Statistics,
        dir: PathBuf,
        appliance: &str,
        env: Env,
        events: Arc<EventRing>,
    ) -> Arc<Self> {
        let run = hex(&env.entropy.nonce()[..8]);
        let collector = Mutex::new(Collector::new(appliance, &run, options.period));
        let (followed, shelves) = (Mutex::default(), Mutex::default());
        Arc::new(Self { options, dir, env, events, collector, followed, shelves })
    }

    fn now(&self) -> Look {
        Look { wall: self.env.clock.wall(), monotonic: self.env.clock.monotonic() }
    }

    /// One look at everything, and writing down what came of it. Waits for the local disk.
    fn look(&self, hosts: &[Arc<Host>], end: End) {
        let now = self.now();
        let ends = end == End::OfRun || lock(&self.collector).is_due(now.wall);
        let mut looks = Vec::new();
        for host in hosts {
            let Some(served) = host.served() else { continue };
            self.shelve(host, &served);
            let look = catch_unwind(AssertUnwindSafe(|| {
                for disk in disks_of(&served) {
                    let newest = Moment { lsn: served.domain.status().last_lsn, time: now.wall };
                    disk.volume.probe.digest();
                    if let Some(signal) = disk.volume.probe.assess(now.monotonic, self.options.period, newest) {
                        self.events.push(suspicion(&signal).disk(&disk.address));
                    }
                    if ends {
                        disk.volume.probe.end_minute(Day::of(now.wall));
                    }
                }
                look_at(host, &served)
            }));
            match look {
                Ok(look) => looks.push(look),
                Err(_) => tracing::error!(domain = host.name(), "cannot be looked at: a bug"),
            }
        }
        let mut rows = {
            let mut collector = lock(&self.collector);
            let mut rows = collector.look(now, looks);
            if end == End::OfRun {
                rows.extend(collector.finish(now));
            }
            rows
        };
        rows.extend(self.events_of_open_domains());
        self.write_down(rows);
        let shelves: Vec<_> = lock(&self.shelves).values().cloned().collect();
        for shelf in shelves {
            let mut spool = lock(&shelf.spool);
            let sealed = if end == End::OfRun { spool.seal_all() } else { spool.seal_due() };
            sealed.unwrap_or_else(|error| tracing::warn!("statistics are lost: {}", with_causes(&error)));
        }
    }

    /// Makes room for the rows of a domain that is open.
    fn shelve(&self, host: &Host, served: &Served) {
        let name = host.name();
        if lock(&self.shelves).contains_key(&name) {
            return;
        }
        let dir = self.dir.join(served.domain.id().to_string());
        match Spool::open(&dir, self.options.ship_every, self.env.clone()) {
            Ok(spool) => {
                let (spool, recorder) = (Arc::new(Mutex::new(spool)), served.bucket.recorder());
                lock(&self.shelves).insert(name, Shelf { spool, recorder, sending: Arc::default() });
            }
            // Tried again at each look, and told once.
            Err(error) => {
                let why = with_causes(&error);
                if lock(&self.followed).not_kept.insert(name.clone(), why.clone()).as_ref() != Some(&why) {
                    tracing::warn!(domain = name, "statistics are not kept: {why}");
                }
            }
        }
    }

    fn write_down(&self, rows: Vec<Produced>) {
        let mut by_file: BTreeMap<(String, StatsTable), Vec<Row>> = BTreeMap::new();
        for Produced { domain, table, row } in rows {
            by_file.entry((domain, table)).or_default().push(row);
        }
        for ((domain, table), rows) in by_file {
            let shelf = lock(&self.shelves).get(&domain).cloned();
            let Some(shelf) = shelf else {
                lock(&self.followed).lost += rows.len() as u64;
                continue;
            };
            if let Err(error) = lock(&shelf.spool).append(table, rows) {
                tracing::warn!(domain, "statistics are only in memory: {}", with_causes(&error));
            }
        }
    }

    /// Takes note of what happened since the last look.
    async fn follow_events(&self) {
        loop {
            let after = lock(&self.followed).last_seq;
            let page = self.events.page(EventQuery { after, wait_s: 0, limit: EVENTS_PER_PAGE_MAX }).await;
            let open: Vec<String> = lock(&self.shelves).keys().cloned().collect();
            let mut followed = lock(&self.followed);
            followed.lost += page.lost;
            if page.events.is_empty() {
                return;
            }
            followed.last_seq = page.last_seq;
            for event in page.events {
                followed.counts[event.severity as usize] += 1;
                let row = self.event_row(&event);
                // What concerns the appliance as a whole concerns each domain in it.
                let domains = match event.domain {
                    Some(domain) => vec![domain],
                    None => open.clone(),
                };
                for domain in domains {
                    let waiting = followed.waiting.entry(domain).or_default();
                    waiting.push_back(row.clone());
                    if waiting.len() > EVENTS_WAITING_MAX {
                        waiting.pop_front();
                        followed.lost += 1;
                    }
                }
            }
        }
    }

    fn event_row(&self, event: &Event) -> Row {
        let data = if event.data.is_empty() { None } else { serde_json::to_string(&event.data).ok() };
        let happened = Happened {
            time: event.time.get(),
            seq: event.seq,
            severity: event.severity.name(),
            kind: &event.kind,
            domain: event.domain.as_deref(),
            vm: event.vm.as_deref(),
            disk: event.disk.as_deref(),
            message: &event.message,
            data: data.as_deref(),
        };
        lock(&self.collector).event(happened)
    }

    fn events_of_open_domains(&self) -> Vec<Produced> {
        let shelves = lock(&self.shelves);
        let mut rows = Vec::new();
        for (domain, waiting) in &mut lock(&self.followed).waiting {
            if shelves.contains_key(domain) {
                let produced = |row| Produced { domain: domain.clone(), table: StatsTable::Event, row };
                rows.extend(waiting.drain(..).map(produced));
            }
        }
        rows
    }

    /// Sends what is sealed, each domain by itself. Does not wait.
    fn ship(&self) -> Vec<tokio::task::JoinHandle<()>> {
        let shelves: Vec<_> = lock(&self.shelves).values().cloned().collect();
        let now = self.env.clock.monotonic();
        let mut sending = Vec::new();
        for shelf in shelves {
            let Ok(not_before) = shelf.sending.clone().try_lock_owned() else { continue };
            let shipments = lock(&shelf.spool).shipments();
            if *not_before <= now && !shipments.is_empty() {
                sending.push(tokio::spawn(send(shelf, shipments, not_before, self.env.clone())));
            }
        }
        sending
    }

    /// What a scraper sees.
    pub(crate) fn exposition(&self, appliance: &Appliance) -> String {
        let hosts = appliance.hosts.all();
        let mut readings = appliance.readings();
        {
            use ApplianceMeasure as M;
            // Of these locks nobody who scrapes holds two.
            let ([info, warning, error], given_up) = {
                let followed = lock(&self.followed);
                (followed.counts, followed.lost)
            };
            readings.sum(M::EventsInfo, info).sum(M::EventsWarning, warning).sum(M::EventsError, error);
            let spools: Vec<_> = lock(&self.shelves).values().map(|shelf| shelf.spool.clone()).collect();
            let waiting: usize = spools.iter().map(|spool| lock(spool).waiting_files()).sum();
            let lost: u64 = spools.iter().map(|spool| lock(spool).lost_rows()).sum();
            readings.now(M::SpooledFiles, waiting as f64).sum(M::LostRows, given_up + lost);
        }
        let look = |host: &Arc<Host>| match host.served() {
            Some(served) => look_at(host, &served),
            None => not_open(host),
        };
        let looks: Vec<DomainLook> = hosts.iter().map(look).collect();
        let domains: Vec<_> = looks.iter().map(|look| (vec![look.name.as_str()], &look.readings)).collect();
        let of_domain = |look: &'_ DomainLook| look.disks.len();
        let mut disks = Vec::with_capacity(looks.iter().map(of_domain).sum());
        for look in &looks {
            for disk in &look.disks {
                disks.push((vec![look.name.as_str(), disk.vm.as_str(), disk.disk.as_str()], &disk.readings));
            }
        }
        let mut text = Exposition::new();
        text.add(&[(vec![], &readings)]).add(&domains).add(&disks);
        text.finish()
    }
}

/// What a look ends besides itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The minute, if it is over.
    MaybeOfMinute,
    /// All that is open.
    OfRun,
}

async fn send(
    shelf: Shelf,
    shipments: Vec<Shipment>,
    mut not_before: tokio::sync::OwnedMutexGuard<Duration>,
    env: Env,
) {
    for shipment in shipments {
        let (reading, key) = (shipment.clone(), shipment.key);
        let sent = match tokio::task::spawn_blocking(move || reading.read()).await {
            Ok(Ok(bytes)) => shipment.send(&shelf.recorder, bytes).await,
            Ok(Err(error)) => Err(error),
            Err(_) => return,
        };
        if let Err(error) = sent {
            tracing::warn!("statistics wait: {}", with_causes(&error));
            *not_before = env.clock.monotonic() + RETRY_PAUSE;
            return;
        }
        let spool = shelf.spool.clone();
        let _ = tokio::task::spawn_blocking(move || lock(&spool).shipped(&key)).await;
    }
}

/// What to say about how a disk is written.
fn suspicion(signal: &Signal) -> NewEvent {
    let Signal { turn, score, seen, clean } = signal;
    let clean_point = clean.map_or("none is known".to_owned(), |clean| format!("lsn:{}", clean.lsn));
    let event = match turn {
        Turn::Raised => NewEvent::new(
            Severity::Warning,
            "disk-suspicious",
            format!(
                "the disk is written as it never was, as by an encryptor (score {score:.2}); last clean point {clean_point}: look at it \
                 with `tidemark mount URL DIR --at {clean_point}` before anything older goes"
            ),
        ),
        Turn::Cleared => NewEvent::new(Severity::Info, "disk-unsuspicious", "the disk is written as usual again"),
    };
    let event = event.with("score", *score);
    let event = match seen {
        Some(Features { entropy, overwrite, rate }) => {
            event.with("entropy", *entropy).with("overwrite", *overwrite).with("bytes_per_s", rate.exp2())
        }
        None => event,
    };
    match (turn, clean) {
        (Turn::Raised, Some(clean)) => {
            event.with("clean_lsn", clean.lsn.get()).with("clean_time", Time::from(clean.time).to_string())
        }
        _ => event,
    }
}

fn disks_of(served: &Served) -> Vec<Arc<Disk>> {
    served.disks().values().cloned().collect()
}

/// A domain that is not open is known to be just that.
fn not_open(host: &Host) -> DomainLook {
    let mut readings = Readings::new();
    let failed = matches!(host.state(), State::Failed { .. });
    readings.now(DomainMeasure::Replicating, 0.0).now(DomainMeasure::Fenced, f64::from(u8::from(failed)));
    DomainLook { name: host.name(), readings, disks: Vec::new() }
}

fn look_at(host: &Host, served: &Served) -> DomainLook {
    use DomainMeasure as M;
    let status = served.domain.status();
    let disks = disks_of(served);
    let mut readings = Readings::new();
    served.probe.read_into(&mut readings);
    let totals = status.totals;
    readings.sum(M::LoggedRecords, totals.logged_records).sum(M::Logged, totals.logged_bytes);
    readings.sum(M::ShippedPlain, totals.packed_plain_bytes).sum(M::ShippedStored, totals.packed_stored_bytes);
    readings.sum(M::Seeded, totals.seeded_bytes);
    let asked = served.bucket.meter().snapshot();
    let segments = [KeyFamily::Log, KeyFamily::Base].map(|family| asked.get(Op::Put, family).requests);
    readings.sum(M::SegmentPuts, segments.iter().sum());
    for (op, requests, bytes) in
        [(Op::Put, M::Puts, Some(M::PutBytes)), (Op::Get, M::Gets, Some(M::GetBytes)), (Op::List, M::Lists, None)]
    {
        let count = asked.total(op);
        readings.sum(requests, count.requests);
        bytes.map(|measure| readings.sum(measure, count.bytes));
    }
    readings.sum(M::Deletes, asked.total(Op::Delete).requests).sum(M::Heads, asked.total(Op::Head).requests);
    let own = asked.get(Op::Put, KeyFamily::Statistics);
    readings.sum(M::StatisticsPuts, own.requests).sum(M::StatisticsBytes, own.bytes);
    levels(&mut readings, host, &status);
    readings.now(M::Disks, disks.len() as f64);
    if let Some(upkeep) = host.upkeep.status() {
        let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
        upkeep.window_ms.map(|ms| readings.now(M::Window, seconds(ms)));
        upkeep.window_promised_ms.map(|ms| readings.now(M::WindowPromised, seconds(ms)));
        readings.now(M::WindowMissed, f64::from(u8::from(!upkeep.window_kept)));
        readings.now(M::UpkeepFailed, f64::from(u8::from(upkeep.failed.is_some())));
    }
    let disks = disks.iter().map(|disk| look_at_disk(disk, &status)).collect();
    DomainLook { name: host.name(), readings, disks }
}

fn levels(readings: &mut Readings<DomainMeasure>, host: &Host, status: &DomainStatus) {
    use DomainMeasure as M;
    let flag = |is: bool| f64::from(u8::from(is));
    readings.now(M::Rpo, status.rpo_age.as_secs_f64());
    readings.now(M::RpoTarget, Duration::from_millis(host.settings().rpo_ms).as_secs_f64());
    readings.now(M::LogUsed, status.log.used_bytes as f64).now(M::LogFill, status.throttle.fill);
    readings.now(M::ThrottleLatency, status.throttle.hold_max.as_secs_f64());
    readings.now(M::ThrottleStage, f64::from(status.throttle.stage as u8));
    readings.now(M::Replicating, flag(status.phase == Phase::Replicating));
    readings.now(M::Fenced, flag(matches!(status.phase, Phase::Fenced | Phase::Diverged | Phase::Failed)));
}

fn look_at_disk(disk: &Disk, status: &DomainStatus) -> DiskLook {
    use DiskMeasure as M;
    let mut readings = Readings::new();
    disk.volume.probe.read_into(&mut readings);
    if let Some(DiskStatus { standing, rpo_age, waiting_bytes, .. }) = status.disk(disk.volume.disk) {
        readings.now(M::Rpo, rpo_age.as_secs_f64()).now(M::Waiting, *waiting_bytes as f64);
        let restorable = *standing == Standing::Protected && !disk.volume.is_bypassing();
        readings.now(M::Restorable, f64::from(u8::from(restorable)));
    }
    readings.now(M::Size, (disk.volume.blocks() * tidemark_format::BLOCK_BYTES) as f64);
    DiskLook { vm: disk.address.vm.clone(), disk: disk.address.disk.clone(), readings }
}

/// Looks until `stop`; the run then ends with a last look, and what is left goes to the buckets if they take it soon.
pub(crate) async fn run(appliance: Arc<Appliance>, stop: impl Future<Output = ()>) {
    let statistics = appliance.statistics.clone();
    let every = (statistics.options.period / LOOKS_PER_ROW).min(LOOK_EVERY_MAX);
    let look = async |end| {
        statistics.follow_events().await;
        let (statistics, hosts) = (statistics.clone(), appliance.hosts.all());
        if let Err(failed) = tokio::task::spawn_blocking(move || statistics.look(&hosts, end)).await {
            tracing::error!("a look at the appliance failed: {failed}");
        }
    };
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = tokio::time::sleep(every) => {}
        }
        look(End::MaybeOfMinute).await;
        statistics.ship();
    }
    look(End::OfRun).await;
    let sent = async {
        let shelves: Vec<_> = lock(&statistics.shelves).values().cloned().collect();
        for shelf in shelves {
            // Whoever still sends has to end first.
            *shelf.sending.lock().await = Duration::ZERO;
        }
        futures::future::join_all(statistics.ship()).await;
    };
    if tokio::time::timeout(LAST_SHIPMENT_PATIENCE, sent).await.is_err() {
        tracing::warn!("not all statistics are in the buckets: the next start goes on");
    }
}

/// The index of a severity in counts.
const _: () = assert!(Severity::Info as usize == 0 && Severity::Error as usize == 2);
