//! A protected disk as the IO filter sees it: the log store makes its writes durable, the primary gets them behind.
//!
//! A write gets its place in the domain's order and is pending from then on; reads see what is pending over what the
//! primary holds. The destager ([`destage`]) writes pending data to the primary once it is durable in the log. The
//! protection mode only says what an acknowledgement waits for.
//!
//! When the log is full and the disk's policy is to degrade, writes bypass the log: a gap is declared, regions are marked
//! in a map that is durable before the write, and once the link is back what may differ is compared and logged.

pub(crate) mod copy;
pub(crate) mod destage;
mod dirty;
mod pending;
pub(crate) mod primary;
mod upstream;

use crate::volume::copy::Copy;
use crate::volume::destage::LINGER_BYTES;
use crate::volume::dirty::Dirty;
use crate::volume::pending::Pending;
use crate::volume::primary::{Primary, Zeros};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use std::any::Any;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tidemark_api::ProtectionMode;
use tidemark_format::{BLOCK_BYTES, DiskId, ErrorKind, EventBody, Extent, Lsn, with_causes};
use tidemark_io_filter::{
    ByteRange, Error, Geometry, Part, Persist, RangeLock, Result, RunState, StatusContext, StatusRun, Volume,
    ZeroOptions,
};
use tidemark_log_store::{DomainLog, Record, RecordBody};
use tidemark_rates::Admission;
use tidemark_replication::{ProtectedDomain, Source};
use tidemark_telemetry::DiskProbe;
use tidemark_writer::{Body, SeedPiece, Submission};
use tokio::sync::{Notify, RwLock, watch};
use tokio::time::Instant;

/// Data of one record in the log at most: the log store writes no more than this at once.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// A stalled write looks again at least this often.
const STALL_LOOK: Duration = Duration::from_millis(250);

/// A protected disk.
pub(crate) struct DiskVolume {
    pub(crate) disk: DiskId,
    pub(crate) domain: Arc<ProtectedDomain>,
    /// Where what has to outlive a crash besides the log is written down.
    meta: DomainLog,
    pub(crate) primary: Option<Arc<Primary>>,
    ranges: RangeLock,
    size_blocks: AtomicU64,
    mode: AtomicU8,
    pending: Mutex<Pending>,
    pending_bytes_max: u64,
    /// Everything through here is on the primary.
    applied: watch::Sender<Lsn>,
    /// There is something to destage.
    work: Notify,
    /// It shall be destaged now.
    hurry: Notify,
    route: RwLock<Route>,
    /// While a gap of a tapped disk is open.
    copy: Mutex<Option<Arc<Copy>>>,
    /// Something was written since the last flush that was logged.
    unflushed: AtomicBool,
    /// Why the disk takes no more writes, if it does not.
    broken: Mutex<Option<String>>,
    /// Counts what the guest asks for.
    pub(crate) probe: DiskProbe,
}

/// Which way writes go.
enum Route {
    /// Through the log.
    Log,
    /// Past the log, marked. Locked while a mark is written down: maps are written in the order in which they grow.
    Bypass(tokio::sync::Mutex<Dirty>),
    /// Through the log again, while what was marked is compared.
    Resync(Dirty),
}

/// What a volume is made of.
pub(crate) struct VolumeParts {
    pub(crate) disk: DiskId,
    pub(crate) domain: Arc<ProtectedDomain>,
    pub(crate) meta: DomainLog,
    pub(crate) primary: Option<Arc<Primary>>,
    pub(crate) size_bytes: u64,
    pub(crate) mode: ProtectionMode,
    pub(crate) pending_bytes_max: u64,
    pub(crate) probe: DiskProbe,
}

impl DiskVolume {
    /// Opens a disk. Everything that the log store holds for it is on the primary already.
    ///
    /// # Errors
    /// What the log store says of the disk's map of regions that bypassed the log.
    pub(crate) fn new(parts: VolumeParts) -> io::Result<Arc<Self>> {
        let VolumeParts { disk, domain, meta, primary, size_bytes, mode, pending_bytes_max, probe } = parts;
        let blocks = size_bytes / BLOCK_BYTES;
        let marked = meta.meta(&dirty_name(disk)).map_err(io::Error::other)?;
        let suspect = domain.suspects().contains(&disk);
        let route = match marked {
            // A map that cannot be read marks everything.
            Some(bytes) => {
                Route::Bypass(tokio::sync::Mutex::new(Dirty::decode(&bytes).unwrap_or_else(|| Dirty::all(blocks))))
            }
            None if suspect => Route::Resync(Dirty::all(blocks)),
            None => Route::Log,
        };
        let applied = domain.applied_through(disk).unwrap_or_default();
        Ok(Arc::new(Self {
            disk,
            domain,
            meta,
            primary,
            ranges: RangeLock::new(),
            size_blocks: AtomicU64::new(blocks),
            mode: AtomicU8::new(mode as u8),
            pending: Mutex::default(),
            pending_bytes_max,
            applied: watch::Sender::new(applied),
            work: Notify::new(),
            hurry: Notify::new(),
            route: RwLock::new(route),
            copy: Mutex::new(None),
            unflushed: AtomicBool::new(true),
            broken: Mutex::new(None),
            probe,
        }))
    }

    /// Its size in blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.size_blocks.load(Ordering::Relaxed)
    }

    pub(crate) fn mode(&self) -> ProtectionMode {
        if self.mode.load(Ordering::Relaxed) == ProtectionMode::WriteBack as u8 {
            ProtectionMode::WriteBack
        } else {
            ProtectionMode::WriteThrough
        }
    }

    /// Takes effect with the next write.
    pub(crate) fn set_mode(&self, mode: ProtectionMode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// A gap of a tapped disk begins, or one that had begun goes on.
    pub(crate) fn copy_begins(&self) -> Arc<Copy> {
        let blocks = self.size_blocks.load(Ordering::Relaxed);
        lock(&self.copy).get_or_insert_with(|| Arc::new(Copy::new(self.disk, blocks))).clone()
    }

    /// The copy is complete: logs what had waited for that.
    pub(crate) async fn copy_ends(&self) -> Result<()> {
        let Some(copy) = lock(&self.copy).clone() else { return Ok(()) };
        for extent in copy.ends() {
            let range = ByteRange::new(extent.start * BLOCK_BYTES, extent.byte_len());
            // Whoever writes there is before this, and took its part out, or comes after it.
            let _held = self.ranges.exclusive(range).await;
            for zeros in copy.still_zero(extent) {
                self.logged(zeros, Body::Zero, Persist::Normal).await?;
            }
        }
        *lock(&self.copy) = None;
        Ok(())
    }

    /// Gives the disk another size: logged first, then on the primary; a smaller primary is cut last.
    pub(crate) async fn resize(self: &Arc<Self>, size_bytes: u64) -> io::Result<()> {
        // No write is under way beyond the new end, and none is placed before the event.
        let _all = self.route.write().await;
        self.settled().await.map_err(io::Error::other)?;
        let grows = size_bytes / BLOCK_BYTES > self.size_blocks.load(Ordering::Relaxed);
        if let (Some(primary), true) = (self.primary.clone(), grows) {
            blocking(move || primary.resize(size_bytes)).await?;
        }
        self.domain.disk_resize(self.disk, size_bytes).await.map_err(io::Error::other)?;
        self.pending().cut(size_bytes / BLOCK_BYTES);
        self.size_blocks.store(size_bytes / BLOCK_BYTES, Ordering::Relaxed);
        if let (Some(primary), false) = (self.primary.clone(), grows) {
            blocking(move || primary.resize(size_bytes)).await?;
        }
        Ok(())
    }

    /// Bytes that are logged and not on the primary.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.pending().bytes()
    }

    /// Why the disk takes no more writes, if it does not.
    pub(crate) fn broken(&self) -> Option<String> {
        lock(&self.broken).clone()
    }

    fn break_with(&self, why: String) {
        lock(&self.broken).get_or_insert(why);
        // Whoever waits for the primary is told.
        self.applied.send_modify(|_| {});
        self.work.notify_one();
        self.hurry.notify_one();
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        lock(&self.pending)
    }

    /// Waits until the primary has everything through `lsn`.
    async fn applied(&self, lsn: Lsn) -> Result<()> {
        let mut applied = self.applied.subscribe();
        // The disk may have been in write-back when this was logged.
        self.hurry.notify_one();
        let reached = applied.wait_for(|applied| *applied >= lsn || self.broken().is_some()).await;
        let reached = *reached.expect("the sender is ours");
        match self.broken() {
            Some(why) if reached < lsn => Err(Error::failed("write to the primary", why)),
            _ => Ok(()),
        }
    }

    /// Logs a change, waits until it is durable, and in write-through until the primary has it.
    async fn change(&self, extent: Extent, body: Body, persist: Persist) -> Result<()> {
        if let Some(why) = self.broken() {
            return Err(Error::failed("write to the disk", why));
        }
        let copy = lock(&self.copy).clone();
        match copy {
            Some(copy) if copy.takes(extent, &body).await => Ok(()),
            _ => self.logged(extent, body, persist).await,
        }
    }

    async fn logged(&self, extent: Extent, body: Body, persist: Persist) -> Result<()> {
        let bytes = if let Body::Data(data) = &body { data.len() as u64 } else { 0 };
        let mut admitted = false;
        let mut placed_at = Lsn::ZERO;
        let logged = loop {
            let route = self.route.read().await;
            if let Route::Bypass(dirty) = &*route {
                return self.bypass(dirty, extent, &body).await;
            }
            if !admitted {
                match self.domain.admit(self.disk, bytes) {
                    Admission::Hold(Duration::ZERO) => {}
                    Admission::Hold(hold) => {
                        tokio::time::sleep(hold).await;
                        self.probe.held(hold);
                    }
                    Admission::Stall => {
                        // Whoever reroutes the disk must not have to wait for this write.
                        drop(route);
                        let stalled_at = Instant::now();
                        while self.domain.is_overflowed(self.disk) {
                            self.domain.room_or(STALL_LOOK).await;
                            self.taking()?;
                        }
                        self.probe.held(stalled_at.elapsed());
                        continue;
                    }
                    Admission::Degrade => {
                        drop(route);
                        self.degrade().await?;
                        continue;
                    }
                }
                admitted = true;
            }
            if self.pending().bytes() + bytes > self.pending_bytes_max && self.primary.is_some() {
                self.some_applied().await?;
                continue;
            }
            let mut what = vec![Submission::Write { disk: self.disk, extent, body: body.clone() }];
            if persist == Persist::Fua {
                what.push(Submission::Event(EventBody::Flush { disk: self.disk }));
            }
            let placed = |records: &[Record]| {
                let write = records.iter().find(|record| !matches!(record.body, RecordBody::Event(_)));
                placed_at = write.expect("a write was submitted").lsn;
                if self.primary.is_some() {
                    let mut pending = self.pending();
                    pending.insert(placed_at, extent, body.clone());
                    if pending.bytes() >= LINGER_BYTES {
                        self.hurry.notify_one();
                    }
                }
            };
            match self.domain.log_all(what, placed) {
                Ok(logged) => break logged,
                Err(e) if e.is_full() => {
                    drop(route);
                    self.domain.room_or(STALL_LOOK).await;
                }
                Err(e) => return Err(refused(e)),
            }
        };
        let logged_at = Instant::now();
        self.unflushed.store(true, Ordering::Relaxed);
        self.work.notify_one();
        if let Err(e) = logged.durable().await {
            self.break_with(with_causes(&e));
            return Err(refused(e));
        }
        if self.primary.is_some() && self.mode() == ProtectionMode::WriteThrough {
            self.applied(placed_at).await?;
        }
        self.domain.guest_wrote(bytes, logged_at.elapsed());
        Ok(())
    }

    /// Waits until the destager made some room.
    async fn some_applied(&self) -> Result<()> {
        let mut applied = self.applied.subscribe();
        applied.mark_unchanged();
        if self.pending().is_empty() {
            return Ok(());
        }
        self.hurry.notify_one();
        let _ = applied.changed().await;
        self.broken().map_or(Ok(()), |why| Err(Error::failed("write to the primary", why)))
    }

    fn taking(&self) -> Result<()> {
        let status = self.domain.status();
        if status.phase.takes_writes() {
            return Ok(());
        }
        Err(Error::ShuttingDown { what: format!("the domain is {}: {}", status.phase, status.why) })
    }

    /// Writes past the log. The region is marked, durably, before the write.
    async fn bypass(&self, dirty: &tokio::sync::Mutex<Dirty>, extent: Extent, body: &Body) -> Result<()> {
        let Some(primary) = self.primary.clone() else {
            return Err(Error::NoSpace { what: "the log is full, and there is no primary".into() });
        };
        {
            // Whoever finds its region marked finds it marked on the device, too.
            let mut dirty = dirty.lock().await;
            if dirty.set(extent)
                && let Err(error) = self.write_down(&dirty).await
            {
                self.break_with(error.to_string());
                return Err(error);
            }
        }
        let body = body.clone();
        blocking(move || put(&primary, extent, &body)).await.map_err(|e| Error::failed("write past the log", e))
    }

    /// Makes a map of what bypasses the log durable.
    async fn write_down(&self, dirty: &Dirty) -> Result<()> {
        let (meta, name, map) = (self.meta.clone(), dirty_name(self.disk), dirty.encode());
        let written = blocking(move || meta.put_meta(&name, &map).map_err(io::Error::other)).await;
        written.map_err(|e| Error::failed("remember what bypasses the log", e))
    }

    /// Lets writes bypass the log from here on.
    async fn degrade(&self) -> Result<()> {
        let mut route = self.route.write().await;
        if matches!(*route, Route::Bypass(_)) {
            return Ok(());
        }
        self.settled().await?;
        let blocks = self.size_blocks.load(Ordering::Relaxed);
        // What a comparison had not reached yet still differs.
        let dirty = if let Route::Resync(dirty) = &*route { dirty.clone() } else { Dirty::new(blocks) };
        self.write_down(&dirty).await?;
        self.domain.open_gap(self.disk).await.map_err(refused)?;
        tracing::warn!(disk = %self.disk, "the log is full: writes bypass it, a gap begins");
        *route = Route::Bypass(tokio::sync::Mutex::new(dirty));
        Ok(())
    }

    /// Waits until nothing is pending.
    pub(crate) async fn settled(&self) -> Result<()> {
        while !self.pending().is_empty() {
            self.some_applied().await?;
        }
        Ok(())
    }

    /// Lets writes go through the log again if they bypass it, and returns what has to be compared with the bucket.
    pub(crate) async fn reroute(&self) -> Option<Vec<Extent>> {
        let mut route = self.route.write().await;
        if let Route::Bypass(dirty) = &*route {
            let dirty = dirty.lock().await.clone();
            *route = Route::Resync(dirty);
        }
        if let Route::Resync(dirty) = &*route { Some(dirty.extents()) } else { None }
    }

    /// All that had to be compared is.
    pub(crate) async fn resynced(&self) -> io::Result<()> {
        let mut route = self.route.write().await;
        if matches!(*route, Route::Resync(_)) {
            let (meta, name) = (self.meta.clone(), dirty_name(self.disk));
            blocking(move || meta.remove_meta(&name).map_err(io::Error::other)).await?;
            *route = Route::Log;
        }
        Ok(())
    }

    /// Whether writes bypass the log.
    pub(crate) fn is_bypassing(&self) -> bool {
        self.route.try_read().is_ok_and(|route| matches!(*route, Route::Bypass(_)))
    }

    async fn read_parts(&self, range: ByteRange) -> Result<Vec<Part>> {
        let Some(primary) = &self.primary else {
            return Err(Error::Unsupported { what: "reading a disk that is tapped: its VM has it".into() });
        };
        let extent = extent_of(range);
        // First what is pending, then the primary: what is applied in between is in both.
        let pending = self.pending().within(extent);
        if let [(all, Body::Data(data))] = &pending[..]
            && *all == extent
        {
            return Ok(vec![Part::Data(data.clone())]);
        }
        let len = range.len as usize;
        let bytes = match primary.read_cached(range.offset, len) {
            Some(bytes) => bytes,
            None => {
                let (primary, offset) = (primary.clone(), range.offset);
                blocking(move || primary.read(offset, len)).await.map_err(|e| Error::failed("read the primary", e))?
            }
        };
        if pending.is_empty() {
            return Ok(vec![Part::Data(bytes)]);
        }
        let mut bytes = BytesMut::from(bytes);
        for (piece, body) in pending {
            let at = ((piece.start - extent.start) * BLOCK_BYTES) as usize;
            let into = &mut bytes[at..at + piece.byte_len() as usize];
            match body {
                Body::Data(data) => into.copy_from_slice(&data),
                Body::Zero | Body::Unmap => into.fill(0),
            }
        }
        Ok(vec![Part::Data(bytes.freeze())])
    }

    /// Logs the guest's flush, if there is anything that it could be about.
    async fn flushed(&self) -> Result<()> {
        if let Some(why) = self.broken() {
            return Err(Error::failed("flush the disk", why));
        }
        if let Route::Bypass(_) = &*self.route.read().await {
            let Some(primary) = self.primary.clone() else { return Ok(()) };
            return blocking(move || primary.sync()).await.map_err(|e| Error::failed("flush the primary", e));
        }
        // All that was acknowledged is durable in the log.
        if !self.unflushed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let flush = || Submission::Event(EventBody::Flush { disk: self.disk });
        loop {
            match self.domain.log(flush(), |_| {}) {
                Ok(logged) => return logged.durable().await.map(drop).map_err(refused),
                Err(e) if e.is_full() => self.domain.room_or(STALL_LOOK).await,
                Err(e) => return Err(refused(e)),
            }
        }
    }

    async fn allocation(&self, range: ByteRange, runs_max: usize) -> Result<Vec<StatusRun>> {
        let Some(primary) = self.primary.clone() else {
            return Ok(vec![StatusRun { bytes: range.len, state: RunState::Data }]);
        };
        // Before the primary is asked: what is destaged in between is data in both.
        let pending = self.pending().within(extent_of(range));
        if let Some((first, body)) = pending.first() {
            let at = first.start * BLOCK_BYTES;
            if at == range.offset {
                let state = match body {
                    Body::Data(_) => RunState::Data,
                    Body::Zero => RunState::Zero,
                    Body::Unmap => RunState::Hole,
                };
                return Ok(vec![StatusRun { bytes: first.byte_len(), state }]);
            }
        }
        let until = pending.first().map_or(range.end(), |(first, _)| first.start * BLOCK_BYTES);
        let (offset, len) = (range.offset, until - range.offset);
        let runs = blocking(move || primary.allocation(offset, len, runs_max)).await;
        let runs = runs.map_err(|e| Error::failed("ask the primary for its holes", e))?;
        let run = |(bytes, data)| StatusRun { bytes, state: if data { RunState::Data } else { RunState::Hole } };
        Ok(runs.into_iter().map(run).collect())
    }
}

impl Volume for DiskVolume {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.size_blocks.load(Ordering::Relaxed) * BLOCK_BYTES)
    }

    fn ranges(&self) -> &RangeLock {
        &self.ranges
    }

    fn read(&self, range: ByteRange) -> BoxFuture<'_, Result<Vec<Part>>> {
        Box::pin(async move {
            let began = Instant::now();
            let parts = self.read_parts(range).await?;
            self.probe.read(range.len, began.elapsed());
            Ok(parts)
        })
    }

    /// Durable in the log before it is acknowledged, whatever `persist` says: that only makes it a flush epoch.
    fn write(&self, offset: u64, data: Bytes, persist: Persist) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let began = Instant::now();
            // A guest counts on whole blocks only, so a large write may be several records.
            let mut done = 0;
            while done < data.len() {
                let piece = data.slice(done..data.len().min(done + RECORD_BYTES_MAX));
                let extent = extent_of(ByteRange::new(offset + done as u64, piece.len() as u64));
                done += piece.len();
                let persist = if done == data.len() { persist } else { Persist::Normal };
                self.change(extent, Body::Data(piece), persist).await?;
            }
            self.probe.wrote(offset, &data, began.elapsed());
            Ok(())
        })
    }

    fn zero(&self, range: ByteRange, options: ZeroOptions, persist: Persist) -> BoxFuture<'_, Result<()>> {
        let extent = extent_of(range);
        Box::pin(async move {
            if options.may_unmap {
                self.change(extent, Body::Unmap, persist).await?;
                self.probe.unmapped(extent);
            } else {
                self.change(extent, Body::Zero, persist).await?;
                self.probe.zeroed(extent);
            }
            Ok(())
        })
    }

    fn trim(&self, range: ByteRange, persist: Persist) -> BoxFuture<'_, Result<()>> {
        let extent = extent_of(range);
        Box::pin(async move {
            self.change(extent, Body::Unmap, persist).await?;
            self.probe.unmapped(extent);
            Ok(())
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.flushed().await?;
            self.probe.flushed();
            Ok(())
        })
    }

    fn status<'a>(
        &'a self,
        range: ByteRange,
        context: &'a StatusContext,
        runs_max: usize,
    ) -> BoxFuture<'a, Result<Vec<StatusRun>>> {
        match context {
            StatusContext::Allocation => Box::pin(self.allocation(range, runs_max)),
            // True of any disk, and all that is known without the bucket.
            StatusContext::ChangedSince(_) => {
                Box::pin(std::future::ready(Ok(vec![StatusRun { bytes: range.len, state: RunState::Changed }])))
            }
        }
    }
}

#[async_trait]
impl Source for DiskVolume {
    async fn read(&self, extent: Extent) -> io::Result<Vec<SeedPiece>> {
        let range = ByteRange::new(extent.start * BLOCK_BYTES, extent.byte_len());
        let parts = self.read_parts(range).await.map_err(io::Error::other)?;
        let mut offset = range.offset;
        let piece = |part: Part| {
            let (at, len) = (offset, part.len());
            offset += len;
            match part {
                Part::Data(data) => SeedPiece::Data { offset: at, data },
                Part::Zero(len) => SeedPiece::Zero { offset: at, len },
            }
        };
        Ok(parts.into_iter().map(piece).collect())
    }

    async fn hold(&self, extent: Extent) -> Box<dyn Any + Send> {
        let range = ByteRange::new(extent.start * BLOCK_BYTES, extent.byte_len());
        Box::new(self.ranges.exclusive(range).await)
    }
}

fn extent_of(range: ByteRange) -> Extent {
    Extent::new(range.offset / BLOCK_BYTES, range.len / BLOCK_BYTES)
}

fn dirty_name(disk: DiskId) -> String {
    format!("dirty/{disk}")
}

/// Towards the guest.
fn refused(error: tidemark_replication::Error) -> Error {
    match error.kind() {
        ErrorKind::Fenced => Error::Fenced { what: with_causes(&error) },
        ErrorKind::FixRequest => Error::Invalid { what: with_causes(&error) },
        _ => Error::failed("log the write", error),
    }
}

/// Puts a record that the primary may lack onto it.
pub(crate) fn put_record(primary: &Primary, record: &Record) -> io::Result<()> {
    match &record.body {
        RecordBody::Write { extent, data, .. } => put(primary, *extent, &Body::Data(data.clone())),
        RecordBody::Zero { extent, .. } => put(primary, *extent, &Body::Zero),
        RecordBody::Unmap { extent, .. } => put(primary, *extent, &Body::Unmap),
        RecordBody::Event(_) => Ok(()),
    }
}

/// Writes a run to the primary.
fn put(primary: &Primary, extent: Extent, body: &Body) -> io::Result<()> {
    let (offset, len) = (extent.start * BLOCK_BYTES, extent.byte_len());
    match body {
        Body::Data(data) => primary.write(offset, std::slice::from_ref(data)),
        Body::Zero => primary.zero(offset, len, Zeros::Allocated),
        Body::Unmap => primary.zero(offset, len, Zeros::Hole),
    }
}

/// Runs what waits for a device on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => Err(io::Error::other(failed.to_string())),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no invariant of the disk is broken")
}
