//! A protected domain as its users see it.

use crate::core::backlog::Backlog;
use crate::core::ledger::{self, Ledger};
use crate::core::phase::{Cause, Phase};
use crate::core::sequencer::Sequencer;
use crate::error::{Error, Result};
use crate::options::{ReplicationOptions, TakeOver};
use crate::pace::Pace;
use crate::shared::{Shared, State, now};
use crate::status::{Ages, DomainStatus, Totals};
use crate::{keeper, shipper};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemark_bucket::Bucket;
use tidemark_env::Env;
use tidemark_format::{BLOCK_BYTES, DiskId, DomainId, EventBody, Level, Lsn, TimeNs};
use tidemark_log_store::{Appended, DomainLog, LogStore, Record, RecordBody, SpaceLimits};
use tidemark_rates::{Admission, DiskOptions, Limit, SeedOptions, Throttle, ThrottleOptions};
use tidemark_writer::{Content, DiskTable, NewDisk, Submission, open_domain};
use tokio::task::JoinHandle;

/// While something is on its way to the writer, this often.
const SHIPPED_LOOK: Duration = Duration::from_millis(20);
/// Bytes of records that are read from the log at once when a domain is opened.
const RECOVERY_READ_BYTES: u64 = 8 << 20;

/// A domain under protection: its disks' writes go through here.
///
/// Dropping it is a crash: what is logged stays in the log store, and the next [`Self::open`] goes on from it.
pub struct ProtectedDomain {
    pub(crate) shared: Arc<Shared>,
    shipper: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

/// A write or event that has its place but may not be durable yet.
#[derive(Debug)]
#[must_use = "what was logged is durable only once `durable` says so"]
pub struct Logged {
    /// Its position; of several, the last.
    pub lsn: Lsn,
    /// Its time.
    pub time: TimeNs,
    appended: Appended,
}

impl Logged {
    /// Waits until it is durable in the log store: now it may be acknowledged.
    ///
    /// # Errors
    /// What stopped the log. Whether it will be there after a restart is open then.
    pub async fn durable(self) -> Result<Lsn> {
        self.appended.await.map_err(Error::log("log what was written"))
    }
}

impl ProtectedDomain {
    /// Opens the domain in `bucket`, with its log in `store`.
    ///
    /// If the log store knows the domain, it goes on from there whether or not the bucket answers, and `recovered` is
    /// handed each record that the primaries may lack, in order. Otherwise the domain is claimed first.
    ///
    /// # Errors
    /// What the log store or `recovered` says; for a domain that is new here also what the bucket says.
    pub async fn open(
        store: &LogStore,
        domain: DomainId,
        bucket: Bucket,
        options: ReplicationOptions,
        env: Env,
        mut recovered: impl FnMut(&Record) -> Result<()>,
    ) -> Result<Self> {
        let log = match store.domain(domain) {
            Some(log) => log,
            None => {
                let make = store.create_domain(domain, options.space, Lsn::new(1));
                make.map_err(Error::log("make room for the domain's log"))?
            }
        };
        let known = log.meta(ledger::NAME).map_err(Error::log("read the ledger"))?;
        let monotonic = env.clock.monotonic();
        let bad = |source| Error::Options { source };
        let throttle = Throttle::new(options.throttle, monotonic).map_err(bad)?;
        let pace = Pace::new(options.seed, monotonic).map_err(bad)?;
        let empty = || Sequencer::new(Lsn::ZERO, TimeNs::default(), DiskTable::default());
        let state = match &known {
            Some(bytes) => recover(&log, Ledger::decode(bytes)?, throttle, &env, &mut recovered)?,
            None => State::new(empty(), Ledger::default(), throttle),
        };
        let shared = Shared::new(bucket, options, env, log, pace, state);
        if known.is_none() {
            // Nothing here says which LSN is next: the bucket has to.
            shipper::connect(&shared).await?;
        }
        let shipper = tokio::spawn(shipper::run(shared.clone()));
        let keeper = tokio::spawn(keeper::run(shared.clone()));
        Ok(Self { shared, shipper, keeper })
    }

    /// The disks that a log store knows of a domain and that have not left, as (disk, vm, name), without opening it.
    ///
    /// # Errors
    /// What the log store says.
    pub fn known_disks(store: &LogStore, domain: DomainId) -> Result<Vec<(DiskId, String, String)>> {
        let Some(log) = store.domain(domain) else { return Ok(Vec::new()) };
        let Some(bytes) = log.meta(ledger::NAME).map_err(Error::log("read the ledger"))? else { return Ok(Vec::new()) };
        let live = Ledger::decode(&bytes)?.disks.into_iter().filter(|state| state.removed_at.is_none());
        Ok(live.map(|state| (state.disk, state.vm, state.name)).collect())
    }

    /// Which domain a bucket holds.
    ///
    /// # Errors
    /// Kind `NotFound` if there is none, and those of the store.
    pub async fn identify(bucket: &Bucket) -> Result<(DomainId, String)> {
        let genesis = open_domain(&bucket.read_only()).await.map_err(Error::writer("find the domain"))?;
        Ok((genesis.domain, genesis.name))
    }

    /// The domain.
    pub fn id(&self) -> DomainId {
        self.shared.domain
    }

    /// Every disk that the domain ever had, as of the newest LSN.
    pub fn disks(&self) -> DiskTable {
        self.shared.state().sequencer.disks().clone()
    }

    /// How replication is doing.
    pub fn status(&self) -> DomainStatus {
        let now = self.shared.now();
        let log = self.shared.log.usage();
        let durable = self.shared.log.durable_through();
        let (packed, seeded_bytes) = self.shared.pace.totals();
        let state = self.shared.state();
        DomainStatus {
            domain: self.shared.domain,
            phase: state.phase,
            why: state.why.clone(),
            since: state.since,
            bookmarks: state.bookmarks,
            epoch: state.writer.as_ref().map(|writer| writer.epoch()),
            last_lsn: state.sequencer.last_lsn(),
            durable,
            committed: state.committed,
            rpo_age: state.ages.of_domain(now),
            log,
            throttle: state.throttle.signals(),
            throughput: self.shared.pace.throughput(now.monotonic),
            totals: Totals {
                logged_records: state.logged_records,
                logged_bytes: state.logged_bytes,
                packed_plain_bytes: packed.plain_bytes,
                packed_stored_bytes: packed.stored_bytes,
                seeded_bytes,
            },
            writer: state.writer.as_ref().map(|writer| writer.status().borrow().clone()),
            disks: state.disk_statuses(now),
        }
    }

    /// Gives `what` its place and queues it in the log. `placed` is told the records before anything later can get a
    /// place: whoever keeps an overlay of what is under way puts it there. Does not wait.
    ///
    /// # Errors
    /// `NotTaking` if this is not the owner, kind `FixRequest` for what makes no sense; [`Error::is_full`] if there is no
    /// room now. Nothing has happened then.
    pub fn log(&self, what: Submission, placed: impl FnOnce(&[Record])) -> Result<Logged> {
        self.log_all(vec![what], placed)
    }

    /// Like [`Self::log`], of several with nothing in between.
    ///
    /// # Errors
    /// Those of [`Self::log`]; all of them are logged or none.
    pub fn log_all(&self, what: Vec<Submission>, placed: impl FnOnce(&[Record])) -> Result<Logged> {
        self.log_planned(|_| Ok(what), placed)
    }

    /// What shall happen to a guest's write of so many bytes, by the state of the log (backpressure). Ask once a write, in
    /// the order of writes; what is to be logged is logged after the hold.
    pub fn admit(&self, disk: DiskId, bytes: u64) -> Admission {
        let now = self.shared.now();
        self.shared.state().throttle.admit(disk, bytes, now.monotonic)
    }

    /// Whether writes of a disk stall or degrade, as of the last look at the log.
    pub fn is_overflowed(&self, disk: DiskId) -> bool {
        self.shared.state().throttle.is_overflowed(disk)
    }

    /// How a disk is treated when the log is full; also makes it known to the throttle.
    pub fn set_disk_options(&self, disk: DiskId, options: DiskOptions) {
        let now = self.shared.now();
        self.shared.state().throttle.set_disk(disk, options, now.monotonic);
    }

    /// Changes where backpressure begins and ends.
    ///
    /// # Errors
    /// `Options` for what cannot work; nothing has changed then.
    pub fn set_throttle(&self, options: ThrottleOptions) -> Result<()> {
        self.shared.state().throttle.set_options(options).map_err(|source| Error::Options { source })
    }

    /// Uploads keep to this limit from now on.
    pub fn set_upload_limit(&self, limit: Limit) {
        self.shared.pace.set_upload_limit(limit, self.shared.env.clock.monotonic());
    }

    /// Changes how fast background replication may be.
    ///
    /// # Errors
    /// `Options` for what cannot work; nothing has changed then.
    pub fn set_seed_options(&self, options: SeedOptions) -> Result<()> {
        self.shared.pace.set_seed_options(options).map_err(|source| Error::Options { source })
    }

    /// A guest's write of so many bytes was acknowledged after `latency`, without what it was held for: background replication
    /// yields.
    pub fn guest_wrote(&self, bytes: u64, latency: Duration) {
        self.shared.pace.guest_write(bytes, latency, self.shared.env.clock.monotonic());
    }

    /// Changes what the log may take in the log store. Waits for the device.
    pub async fn set_space(&self, limits: SpaceLimits) -> Result<()> {
        self.shared.blocking(move |shared| shared.log.set_limits(limits).map_err(Error::log("resize the log"))).await
    }

    /// Waits until something moved that room in the log may depend on, or `longest` has passed.
    pub async fn room_or(&self, longest: Duration) {
        let (mut moves, mut durable) = (self.shared.moves(), self.shared.log.durable());
        moves.mark_unchanged();
        durable.mark_unchanged();
        tokio::select! {
            _ = moves.changed() => {}
            _ = durable.changed() => {}
            () = tokio::time::sleep(longest) => {}
        }
    }

    /// Logs what `plan` makes of the disks as they are, with nothing in between.
    pub(crate) fn log_planned(
        &self,
        plan: impl FnOnce(&DiskTable) -> Result<Vec<Submission>>,
        placed: impl FnOnce(&[Record]),
    ) -> Result<Logged> {
        log_planned(&self.shared, plan, placed)
    }

    /// Logs an event and waits until it is durable.
    pub async fn event(&self, body: EventBody) -> Result<Lsn> {
        self.event_with_time(body).await.map(|(lsn, _)| lsn)
    }

    /// Logs an event, waits until it is durable, and tells its time, too.
    pub async fn event_with_time(&self, body: EventBody) -> Result<(Lsn, TimeNs)> {
        let logged = self.log(Submission::Event(body), |_| {})?;
        let time = logged.time;
        Ok((logged.durable().await?, time))
    }

    /// Names this point in time. It is durable in the log store on return, and in the bucket with everything before it.
    pub async fn bookmark(&self, name: &str, level: Level) -> Result<Lsn> {
        self.event(EventBody::Bookmark { name: name.to_owned(), level }).await
    }

    /// Adds a disk.
    pub async fn disk_add(&self, disk: &NewDisk, content: Content) -> Result<DiskId> {
        let blocks = disk.size_bytes / BLOCK_BYTES;
        let mut id = DiskId::default();
        let plan = |disks: &DiskTable| {
            let (given, plan) =
                disks.plan_add(&disk.vm, &disk.name, blocks, content).map_err(Error::writer("add the disk"))?;
            id = given;
            Ok(plan)
        };
        self.log_planned(plan, |_| {})?.durable().await?;
        Ok(id)
    }

    /// Changes a disk's size. What it gains is zeros; what it loses is gone.
    pub async fn disk_resize(&self, disk: DiskId, size_bytes: u64) -> Result<Lsn> {
        let blocks = size_bytes / BLOCK_BYTES;
        let plan = |disks: &DiskTable| disks.plan_resize(disk, blocks).map_err(Error::writer("resize the disk"));
        self.log_planned(plan, |_| {})?.durable().await
    }

    /// Takes a disk out of the domain; its history stays.
    pub async fn disk_remove(&self, disk: DiskId) -> Result<Lsn> {
        self.event(EventBody::DiskRemove { disk }).await
    }

    /// A disk has a primary here, which holds everything through `lsn`, durably. The log is kept from there on.
    pub fn applied(&self, disk: DiskId, lsn: Lsn) {
        let mut state = self.shared.state();
        let applied = state.ledger.applied.entry(disk).or_insert(lsn);
        *applied = lsn.max(*applied);
    }

    /// How far the primary of a disk holds everything, if it has one here.
    pub fn applied_through(&self, disk: DiskId) -> Option<Lsn> {
        self.shared.state().ledger.applied.get(&disk).copied()
    }

    /// The primary of a disk may differ from the bucket, nobody knows where: until a comparison is complete.
    pub fn suspect(&self, disk: DiskId) {
        self.shared.state().ledger.suspects.insert(disk);
    }

    /// Disks whose primary may differ from the bucket, nobody knows where.
    pub fn suspects(&self) -> Vec<DiskId> {
        self.shared.state().ledger.suspects.iter().copied().collect()
    }

    /// Why the log takes no more writes, if it does not.
    pub fn log_failed(&self) -> Option<String> {
        self.shared.log.failed().map(|error| error.to_string())
    }

    /// Everything through here is durable in the log.
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.log.durable_through()
    }

    /// Waits until everything through `lsn` is durable in the log.
    ///
    /// # Errors
    /// What stopped the log.
    pub async fn durable_through(&self, lsn: Lsn) -> Result<()> {
        keeper::durable(&self.shared, lsn).await
    }

    /// Waits until the domain may have moved: a phase, a commit.
    pub async fn moved(&self) {
        let mut moves = self.shared.moves();
        moves.mark_unchanged();
        let _ = moves.changed().await;
    }

    /// Holds shipping. Guests go on into the log store.
    pub async fn pause(&self) -> Result<()> {
        self.shared.enter(Cause::Pause, "paused by an operator")?;
        let writer = self.shared.state().writer.take();
        if let Some(writer) = writer {
            writer.close().await.map_err(Error::writer("pause"))?;
        }
        Ok(())
    }

    /// Goes on shipping.
    pub fn resume(&self) -> Result<()> {
        self.shared.enter(Cause::Resume, "resumed by an operator").map(drop)
    }

    /// Takes the domain over (again) after another owner had it.
    pub fn take_over(&self, how: TakeOver) -> Result<()> {
        self.shared.state().take_over = Some(how);
        self.shared.enter(Cause::TakeOver, "taken over by an operator").map(drop)
    }

    /// Waits until everything acknowledged so far is in the bucket, and has it shipped at once.
    ///
    /// # Errors
    /// `NotTaking` if the domain stops being replicated meanwhile.
    pub async fn drain(&self) -> Result<Lsn> {
        let target = self.shared.state().sequencer.last_lsn();
        self.ship_through(target, |state| state.check_taking().is_err()).await?;
        let state = self.shared.state();
        if state.committed < target {
            state.check_taking()?;
        }
        Ok(target)
    }

    /// Writes down what has to be remembered and trims the log, now.
    pub async fn keep(&self) -> Result<()> {
        keeper::keep(&self.shared).await
    }

    /// Ends protection here, cleanly: nothing more is taken, what is logged is shipped as long as the bucket answers, and
    /// the log store remembers where to go on. May be given up on at any time: the next [`Self::open`] goes on all the same.
    pub async fn close(&self) -> Result<()> {
        self.shared.state().closing = true;
        let writer = self.shared.state().writer.clone();
        if let Some(writer) = &writer {
            let last = self.shared.state().sequencer.last_lsn();
            self.ship_through(last, |state| state.phase != Phase::Replicating).await?;
            writer.close().await.map_err(Error::writer("close"))?;
        }
        self.shared.enter(Cause::Close, "closed")?;
        keeper::keep(&self.shared).await
    }

    /// Waits until everything through `target` is committed, and has it shipped at once; or until `over`.
    async fn ship_through(&self, target: Lsn, over: impl Fn(&State) -> bool) -> Result<()> {
        let mut moves = self.shared.moves();
        loop {
            moves.mark_unchanged();
            let writer = {
                let state = self.shared.state();
                if state.committed >= target || over(&state) {
                    return Ok(());
                }
                state.writer.clone()
            };
            if let Some(writer) = writer.filter(|writer| writer.last_lsn() >= target) {
                writer.sync().await.map_err(Error::writer("ship the log"))?;
            }
            // What is still on its way to the writer moves nothing: look again soon.
            let _ = tokio::time::timeout(SHIPPED_LOOK, moves.changed()).await;
        }
    }
}

impl Drop for ProtectedDomain {
    fn drop(&mut self) {
        self.shipper.abort();
        self.keeper.abort();
    }
}

impl std::fmt::Debug for ProtectedDomain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProtectedDomain").field("domain", &self.id()).finish_non_exhaustive()
    }
}

impl State {
    fn new(sequencer: Sequencer, ledger: Ledger, throttle: Throttle) -> Self {
        Self {
            sequencer,
            ledger,
            phase: Phase::Opening,
            why: "starting".to_owned(),
            since: TimeNs::default(),
            bookmarks: 0,
            logged_records: 0,
            logged_bytes: 0,
            take_over: None,
            committed: Lsn::ZERO,
            ages: Ages::new(),
            backlog: Backlog::default(),
            throttle,
            closing: false,
            writer: None,
        }
    }
}

/// Gives what `plan` makes its place and queues it.
pub(crate) fn log_planned(
    shared: &Shared,
    plan: impl FnOnce(&DiskTable) -> Result<Vec<Submission>>,
    placed: impl FnOnce(&[Record]),
) -> Result<Logged> {
    let now = shared.now();
    let mut state = shared.state();
    state.check_taking()?;
    let plan = plan(state.sequencer.disks())?;
    let numbered = state.sequencer.number(now, plan)?;
    // Under the state's lock, so that the order in the log is the order of positions.
    let appended = shared.log.append(numbered.records.clone()).map_err(Error::log("log what was written"))?;
    state.sequencer.taken(&numbered);
    for record in &numbered.records {
        state.ledger.follow(record);
        state.ages.logged(record, now);
        state.backlog.logged(record);
        state.logged_records += 1;
        state.logged_bytes += record.data_bytes();
        state.bookmarks += u64::from(matches!(record.body, RecordBody::Event(EventBody::Bookmark { .. })));
    }
    placed(&numbered.records);
    let last = numbered.records.last().expect("a plan has at least one piece");
    Ok(Logged { lsn: last.lsn, time: last.time, appended })
}

/// Goes over the log from what the ledger reflects, and hands over what primaries may lack.
fn recover(
    log: &DomainLog,
    mut ledger: Ledger,
    throttle: Throttle,
    env: &Env,
    recovered: &mut impl FnMut(&Record) -> Result<()>,
) -> Result<State> {
    let mut sequencer = Sequencer::new(ledger.lsn, ledger.time, DiskTable::new(ledger.disks.clone()));
    let (first, last) = (log.first_lsn(), log.last_lsn());
    if ledger.lsn.next() < first || ledger.lsn > last {
        let why = format!("it reflects lsn {}, but the log holds {first}..={last}", ledger.lsn);
        return Err(Error::Ledger { why });
    }
    let applied: BTreeMap<_, _> = ledger.applied.clone();
    let lowest = applied.values().copied().min().unwrap_or(ledger.lsn).min(ledger.lsn);
    let mut next = lowest.next().max(first);
    while next <= last {
        for record in log.read(next, RECOVERY_READ_BYTES).map_err(Error::log("read the log"))? {
            if record.lsn > sequencer.last_lsn() {
                sequencer.follow(&record);
                ledger.follow(&record);
            }
            if lacks(&applied, &record) {
                recovered(&record)?;
            }
            next = record.lsn.next();
        }
    }
    let mut state = State::new(sequencer, ledger, throttle);
    state.committed = Lsn::new(first.get() - 1);
    if first <= last {
        let oldest = log.read(first, 0).map_err(Error::log("read the log"))?;
        let since = oldest.first().map_or(0, |record| env.clock.wall().get().saturating_sub(record.time.get()));
        state.ages.recovered(last, Duration::from_nanos(since), now(env));
    }
    Ok(state)
}

/// Whether the primary of a record's disk may lack it.
fn lacks(applied: &BTreeMap<DiskId, Lsn>, record: &Record) -> bool {
    let applied = record.disk().and_then(|disk| applied.get(&disk));
    applied.is_some_and(|applied| record.lsn > *applied)
}
