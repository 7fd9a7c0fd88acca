//! A protected disk with what runs for it: the destager, and the care that brings it into the bucket.

use crate::compare::BeforeGap;
use crate::events::{EventRing, NewEvent};
use crate::tap::Attached;
use crate::volume::primary::Primary;
use crate::volume::{DiskVolume, blocking, destage};
use async_trait::async_trait;
use bytes::Bytes;
use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidemark_api::{Attachment, DiskAddress, DiskSpec, DiskState, Severity, TapState, Time};
use tidemark_bucket::ReadOnly;
use tidemark_env::Env;
use tidemark_format::{BLOCK_BYTES, DiskId, ErrorKind, EventBody, Extent, Lsn, with_causes};
use tidemark_io_filter::{Contention, WriteClaim};
use tidemark_qemu::TapState as QemuTap;
use tidemark_rates::{Progress as Advance, Stage};
use tidemark_reader::DiskImage;
use tidemark_replication::{Compare, Ends, Phase, Source, Standing};
use tidemark_writer::SeedPiece;
use tokio::task::JoinSet;

/// What the care of a disk waits before it looks, or tries, again.
const LOOK: Duration = Duration::from_millis(500);
/// A copy begins without anything to compare with if the bucket does not answer within this time.
const COMPARE_PATIENCE: Duration = Duration::from_secs(30);
/// How far a seed or a comparison is, is looked at this often.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// After a failure of the disk itself.
const LOOK_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// A disk under protection.
pub(crate) struct Disk {
    pub(crate) address: DiskAddress,
    spec: Mutex<DiskSpec>,
    pub(crate) volume: Arc<DiskVolume>,
    /// Which of its clients may write.
    pub(crate) claim: Arc<WriteClaim>,
    /// NBD connections that have it open.
    pub(crate) connections: AtomicU32,
    progress: Mutex<Progress>,
    /// How fast that goes.
    advance: Mutex<Option<Advance>>,
    pub(crate) bucket: ReadOnly,
    pub(crate) env: Env,
    events: Arc<EventRing>,
    tasks: Mutex<JoinSet<()>>,
    tap: Mutex<Option<Attached>>,
    /// Where the next seed comes from, if not from the primary.
    seed_from: Mutex<Option<SeedFrom>>,
}

/// Where a seed comes from.
pub(crate) enum SeedFrom {
    /// The disk itself.
    Primary,
    /// A raw image.
    Image(Arc<Primary>),
    /// A disk of some domain at a point.
    Point(Arc<DiskImage>),
}

/// What the care is at.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Since when writes bypass the log, or the bucket is known to lack some.
    gap_since: Option<Time>,
    /// Bytes compared, of so many.
    resync: Option<(u64, u64)>,
    /// A comparison was interrupted: what the bucket has is not what it had when the gap began.
    resync_tried: bool,
}

impl Disk {
    /// Takes a disk into care.
    pub(crate) fn start(
        address: DiskAddress,
        spec: DiskSpec,
        volume: Arc<DiskVolume>,
        bucket: ReadOnly,
        env: Env,
        events: Arc<EventRing>,
    ) -> Arc<Self> {
        // Whatever bypassed the log before a restart may have been compared in part.
        let progress = Progress { resync_tried: volume.is_bypassing(), ..Progress::default() };
        let contention = if spec.shared { Contention::Shared } else { Contention::LastPartyWins };
        let disk = Arc::new(Self {
            address,
            claim: Arc::new(WriteClaim::new(contention)),
            spec: Mutex::new(spec),
            volume: volume.clone(),
            connections: AtomicU32::new(0),
            progress: Mutex::new(progress),
            advance: Mutex::default(),
            bucket,
            env,
            events,
            tasks: Mutex::default(),
            tap: Mutex::new(None),
            seed_from: Mutex::new(None),
        });
        let mut tasks = lock(&disk.tasks);
        tasks.spawn(destage::run(volume.clone()));
        tasks.spawn(destage::keep(volume));
        tasks.spawn(care(Arc::downgrade(&disk)));
        tasks.spawn(measure(Arc::downgrade(&disk)));
        drop(tasks);
        disk
    }

    pub(crate) fn spec(&self) -> MutexGuard<'_, DiskSpec> {
        lock(&self.spec)
    }

    /// How well it is protected.
    pub(crate) fn state(&self, standing: Standing) -> DiskState {
        if let Some(reason) = self.volume.broken() {
            return DiskState::Failed { reason };
        }
        let progress = *lock(&self.progress);
        let eta = |done_bytes, total_bytes| self.eta(done_bytes, total_bytes).map(|eta| eta.as_secs());
        match (standing, progress) {
            (_, Progress { resync: Some((done_bytes, total_bytes)), .. }) => {
                DiskState::Resyncing { done_bytes, total_bytes, eta_s: eta(done_bytes, total_bytes) }
            }
            (_, Progress { gap_since: Some(since), .. }) => DiskState::Gap { since },
            (Standing::Protected, _) => DiskState::Protected,
            (Standing::Seeding { done_bytes, total_bytes }, _) => {
                DiskState::Seeding { done_bytes, total_bytes, eta_s: eta(done_bytes, total_bytes) }
            }
            (Standing::Unprotected, _) => DiskState::Unprotected,
        }
    }

    /// How long it takes to do the rest, going by how fast it was of late.
    fn eta(&self, done_bytes: u64, total_bytes: u64) -> Option<Duration> {
        let now = self.env.clock.monotonic();
        let mut advance = lock(&self.advance);
        // Another seed or comparison, if it is not the same total or begins anew.
        let goes_on = |of: &Advance| of.total_bytes() == total_bytes && of.done_bytes() <= done_bytes;
        let of = match &mut *advance {
            Some(of) if goes_on(of) => of,
            other => other.insert(Advance::new(total_bytes, done_bytes, now)),
        };
        of.advance(done_bytes - of.done_bytes(), now);
        of.eta(now)
    }

    pub(crate) fn open_connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The name under which NBD clients find it.
    pub(crate) fn export_name(&self) -> String {
        self.spec().export_name(&self.address.domain)
    }

    /// Runs something as long as the disk is cared for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.tasks).spawn(task);
    }

    /// How its tap is doing, if it is tapped.
    pub(crate) fn tap(&self) -> Option<Attachment> {
        let tap = lock(&self.tap);
        let attached = tap.as_ref()?;
        let state = match attached.tap.state() {
            QemuTap::Seeding(p) | QemuTap::Lagging(p) => {
                TapState::Copying { done_bytes: p.done_bytes, total_bytes: p.total_bytes }
            }
            QemuTap::Ready => TapState::Ready,
            lost => TapState::Lost { reason: lost.to_string() },
        };
        let (qmp_socket, node) = (attached.qmp_socket.clone(), attached.node.clone());
        Some(Attachment::Tap { qmp_socket, node, tap: state })
    }

    /// Whether QEMU mirrors to us, or will once it can.
    pub(crate) fn is_tapped(&self) -> bool {
        let over = |state| matches!(state, QemuTap::Failed(_) | QemuTap::Detached | QemuTap::Gone(_));
        lock(&self.tap).as_ref().is_some_and(|attached| !over(attached.tap.state()))
    }

    pub(crate) fn attached(&self, attached: Attached) {
        *lock(&self.tap) = Some(attached);
    }

    pub(crate) fn detached(&self) -> Option<Attached> {
        lock(&self.tap).take()
    }

    /// From where on the disk can be restored, if it can be now.
    pub(crate) fn restorable_from(&self) -> Option<Lsn> {
        self.volume.domain.disks().get(self.volume.disk).ok()?.consistent_from
    }

    /// Whether the disk is restorable now.
    fn is_restorable(&self) -> bool {
        self.restorable_from().is_some()
    }

    /// Writes of the disk are missing from here on, until a copy is complete.
    pub(crate) async fn gap(&self, why: &str) -> Result<(), tidemark_replication::Error> {
        self.volume.copy_begins();
        if self.is_restorable() {
            self.volume.domain.open_gap(self.volume.disk).await?;
            lock(&self.progress).gap_since = Some(Time::from(self.env.clock.wall()));
            self.event(Severity::Error, "disk-gap", format!("points from here on are lost: {why}"));
        }
        Ok(())
    }

    /// QEMU is about to copy the disk to us.
    pub(crate) async fn begin_copy(&self) -> Result<(), tidemark_replication::Error> {
        self.gap("its VM copies the disk again").await?;
        let domain = &self.volume.domain;
        // The gap has to be in the bucket to be found there.
        if tokio::time::timeout(COMPARE_PATIENCE, domain.drain()).await.is_ok_and(|drained| drained.is_ok()) {
            let known = BeforeGap::open(self.bucket.clone(), self.env.clone(), self.volume.disk).await;
            self.volume.copy_begins().compare_with(known);
        }
        Ok(())
    }

    /// Every write is here before the guest hears of it, and so is everything that the disk held.
    pub(crate) async fn copied(&self) -> Result<(), tidemark_replication::Error> {
        let why = |e: tidemark_io_filter::Error| tidemark_replication::Error::Source {
            disk: self.volume.disk,
            why: with_causes(&e),
        };
        self.volume.copy_ends().await.map_err(why)?;
        if !self.is_restorable() {
            self.volume.domain.event(EventBody::ConsistentFrom { disk: self.volume.disk }).await?;
            lock(&self.progress).gap_since = None;
            self.event(Severity::Info, "disk-protected", "the disk can be restored from here on");
        }
        Ok(())
    }

    /// Has the disk seeded anew.
    pub(crate) fn seed_from(&self, from: SeedFrom) -> Result<(), String> {
        if lock(&self.progress).resync.is_some() {
            return Err(format!("{} is being compared with the bucket", self.address));
        }
        *lock(&self.seed_from) = Some(from);
        Ok(())
    }

    pub(crate) fn event(&self, severity: Severity, kind: &'static str, message: impl Into<String>) {
        self.events.push(NewEvent::new(severity, kind, message).disk(&self.address));
    }

    /// One look at what the disk needs, and doing it.
    async fn attend(&self) -> Result<(), tidemark_replication::Error> {
        let volume = &self.volume;
        let status = volume.domain.status();
        if volume.is_bypassing() {
            let begins = {
                let mut progress = lock(&self.progress);
                let begins = progress.gap_since.is_none();
                progress.gap_since.get_or_insert(Time::from(self.env.clock.wall()));
                begins
            };
            if begins {
                let message = "the log is full: writes bypass it, points from here on are lost";
                self.event(Severity::Error, "disk-gap", message);
            }
        }
        let calm = status.phase == Phase::Replicating && status.throttle.stage == Stage::Free;
        if !calm {
            return Ok(());
        }
        let standing = status.disk(volume.disk).map(|disk| disk.standing);
        if let Some(ranges) = volume.reroute().await {
            return self.resync(&ranges).await;
        }
        let asked = lock(&self.seed_from).take();
        match (asked, standing) {
            (Some(from), _) => self.seed(from).await,
            (None, Some(Standing::Seeding { .. })) => self.seed(SeedFrom::Primary).await,
            (None, Some(Standing::Unprotected)) if volume.primary.is_some() => self.seed(SeedFrom::Primary).await,
            _ => Ok(()),
        }
    }

    async fn seed(&self, from: SeedFrom) -> Result<(), tidemark_replication::Error> {
        self.event(Severity::Info, "seed-begun", format!("bringing {from} into the bucket"));
        let (domain, disk) = (&self.volume.domain, self.volume.disk);
        if matches!(from, SeedFrom::Primary) {
            domain.seed(disk, &*self.volume, Ends::Restorable).await?;
        } else {
            // Until the comparison is done the disk is not what its base objects say.
            if self.is_restorable() {
                domain.open_gap(disk).await?;
            }
            domain.seed(disk, &from, Ends::Compared).await?;
            let all = [Extent::new(0, self.volume.blocks())];
            domain.close_gap(disk, &all, &*self.volume, &from, |_| {}).await?;
        }
        self.event(Severity::Info, "disk-protected", "the disk can be restored from here on");
        Ok(())
    }

    async fn resync(&self, ranges: &[Extent]) -> Result<(), tidemark_replication::Error> {
        let total: u64 = ranges.iter().map(|range| range.len * BLOCK_BYTES).sum();
        let tried = std::mem::replace(&mut lock(&self.progress).resync_tried, true);
        lock(&self.progress).resync = Some((0, total));
        self.event(Severity::Info, "resync-begun", format!("comparing {total} bytes with the bucket"));
        let domain = &self.volume.domain;
        // What was acknowledged before the gap has to be there to compare with.
        domain.drain().await?;
        let known = match tried {
            true => BeforeGap::nothing(),
            false => BeforeGap::open(self.bucket.clone(), self.env.clone(), self.volume.disk).await,
        };
        let done = |bytes| lock(&self.progress).resync = Some((bytes, total));
        domain.close_gap(self.volume.disk, ranges, &*self.volume, &known, done).await?;
        if let Err(error) = self.volume.resynced().await {
            // The map stays: after a restart the same ranges are compared once more, which harms nothing.
            tracing::warn!(disk = %self.address, %error, "cannot forget what bypassed the log");
        }
        *lock(&self.progress) = Progress::default();
        self.event(Severity::Info, "disk-protected", "the gap is closed: the disk can be restored from here on");
        Ok(())
    }

    /// Lets go of the disk: nothing of it is written any more.
    pub(crate) async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
    }

    /// Puts everything that is pending onto the primary, for a clean end.
    pub(crate) async fn settle(&self) -> std::io::Result<()> {
        self.volume.settled().await.map_err(std::io::Error::other)?;
        destage::checkpoint(&self.volume, &mut tidemark_format::Lsn::default()).await
    }
}

impl SeedFrom {
    /// Bytes that it has; `None` if it has what is needed by its nature.
    pub(crate) fn size_bytes(&self) -> std::io::Result<Option<u64>> {
        match self {
            Self::Primary => Ok(None),
            Self::Image(image) => image.size_bytes().map(Some),
            Self::Point(image) => Ok(Some(image.size_bytes())),
        }
    }

    async fn bytes(&self, extent: Extent) -> std::io::Result<Bytes> {
        let (offset, len) = (extent.start * BLOCK_BYTES, extent.byte_len() as usize);
        match self {
            Self::Primary => Err(std::io::Error::other("the primary is read through its volume")),
            Self::Image(image) => {
                let image = image.clone();
                blocking(move || image.read(offset, len)).await
            }
            Self::Point(image) => image.read(offset, len).await.map_err(std::io::Error::other),
        }
    }
}

impl std::fmt::Display for SeedFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Primary => f.write_str("what the disk holds"),
            Self::Image(image) => write!(f, "{}", image.path().display()),
            Self::Point(image) => write!(f, "{}/{} at lsn {}", image.vm(), image.name(), image.at().lsn),
        }
    }
}

#[async_trait]
impl Source for SeedFrom {
    async fn read(&self, extent: Extent) -> std::io::Result<Vec<SeedPiece>> {
        let data = self.bytes(extent).await?;
        Ok(vec![SeedPiece::Data { offset: extent.start * BLOCK_BYTES, data }])
    }

    async fn hold(&self, _: Extent) -> Box<dyn Any + Send> {
        Box::new(())
    }
}

#[async_trait]
impl Compare for SeedFrom {
    async fn known(&self, _: DiskId, extent: Extent) -> Option<Bytes> {
        self.bytes(extent).await.ok()
    }
}

/// Looks after a disk until it is let go.
async fn care(disk: std::sync::Weak<Disk>) {
    loop {
        let Some(disk) = disk.upgrade() else { return };
        let pause = match disk.attend().await {
            Ok(()) => LOOK,
            Err(error) if error.kind() == ErrorKind::Retry || error.kind() == ErrorKind::Fenced => LOOK,
            Err(error) => {
                disk.event(
                    Severity::Error,
                    "disk-unprotected",
                    format!("cannot protect the disk: {}", with_causes(&error)),
                );
                LOOK_AFTER_FAILURE
            }
        };
        lock(&disk.progress).resync = None;
        drop(disk);
        tokio::time::sleep(pause).await;
    }
}

/// Looks at how far a seed or a comparison is, so that its end can be told whenever somebody asks, and at whether the disk
/// has failed.
async fn measure(disk: std::sync::Weak<Disk>) {
    loop {
        tokio::time::sleep(MEASURE_EVERY).await;
        let Some(disk) = disk.upgrade() else { return };
        if let Some(why) = disk.volume.broken() {
            disk.event(Severity::Error, "disk-failed", format!("the disk takes no more writes: {why}"));
            return;
        }
        let status = disk.volume.domain.status();
        if let Some(of) = status.disk(disk.volume.disk) {
            let _ = disk.state(of.standing);
        }
    }
}

/// What a panic left half done in there does no harm.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
