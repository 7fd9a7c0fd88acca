//! One recovery disk: reads, writes, discards, flushes, and what the hydrator brings in.
//!
//! What needs no waiting is answered at once, by the thread that asks ([`Overlay::read_now`], [`Overlay::write_now`]); everything
//! else is a future. Three orders carry the promises:
//! - An absent unit gets its bytes first and its record after them: before the record, nobody sees the bytes.
//! - A clean unit that is written gets its record first: whoever looks for what the guest changed never misses it.
//! - A flush makes the data durable first and the records after it.
//!
//! Whoever moves a unit on holds the lock of its stripe. A unit that is dirty stays dirty, so writing it again needs no lock.

use crate::core::access::AccessLog;
use crate::core::record::Record;
use crate::core::states::{Counts, State, States, UNIT_BYTES};
use crate::error::{Error, Result};
use crate::journal::{Journal, Opened, Opening};
use crate::local::{Boot, DiskFiles, LocalFiles};
use crate::source::Source;
use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tidemark_env::Env;
use tokio::sync::Notify;

/// Bytes that share a lock.
const STRIPE_BYTES: u64 = 1 << 20;
const STRIPE_UNITS: u64 = STRIPE_BYTES / UNIT_BYTES;
const STRIPES: u64 = 64;
/// Bytes read or discarded under one look at the map.
const STEP_BYTES: u64 = 1 << 20;

/// What a recovery disk has done, and where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverlayStats {
    /// Size of the disk.
    pub size_bytes: u64,
    /// Units by state; a unit has [`UNIT_BYTES`].
    pub units: Counts,
    /// False if units that are called clean may hold writes of the guest: the machine crashed over them.
    pub dirty_is_complete: bool,
    /// Bytes that readers and writers had to wait for the source to bring, since the disk was opened.
    pub demand_bytes: u64,
}

/// A disk whose local file is all there is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its size: the local file is a raw image of as many bytes.
    pub size_bytes: u64,
    /// Bytes that the guest wrote.
    pub dirty_bytes: u64,
}

/// A point in time that can be written to.
pub struct Overlay {
    source: Arc<dyn Source>,
    files: Box<dyn LocalFiles>,
    states: States,
    size_bytes: u64,
    stripes: Vec<Mutex<()>>,
    journal: Mutex<Journal>,
    /// Held by the one flush that is under way.
    flushing: Mutex<()>,
    dirty_is_complete: bool,
    failed: OnceLock<Arc<io::Error>>,
    closed: AtomicBool,
    demand: Demand,
    recording: AtomicBool,
    access: Mutex<AccessLog>,
}

/// Readers and writers that wait for the source. The hydrator gives way to them.
#[derive(Default)]
pub(crate) struct Demand {
    waiting: AtomicU64,
    bytes: AtomicU64,
    idle: Notify,
}

impl Demand {
    fn begin(&self, bytes: u64) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Waiting(self)
    }

    /// Completes when nobody waits.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.waiting.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }
}

struct Waiting<'a>(&'a Demand);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// What a change puts into its range.
#[derive(Clone)]
enum Content {
    Bytes(Bytes),
    Zeros,
}

#[derive(Clone, Copy)]
enum ContentRef<'a> {
    Bytes(&'a [u8]),
    Zeros,
}

impl Overlay {
    /// Opens `DIR/STEM.raw` with its map, or makes both, over `source`. Blocks while the map is read.
    ///
    /// # Errors
    /// `Foreign` if they are an overlay of something else, `InUse`, `Damaged`, and those of the local disk.
    pub fn open_at(dir: &Path, stem: &str, source: Arc<dyn Source>, env: &Env) -> Result<Arc<Self>> {
        let files = DiskFiles::open(dir, stem, source.size_bytes())?;
        Self::open(Box::new(files), source, &Boot::current()?, env)
    }

    /// As [`Self::open_at`], with files of whatever kind.
    ///
    /// # Errors
    /// As [`Self::open_at`].
    pub fn open(files: Box<dyn LocalFiles>, source: Arc<dyn Source>, boot: &Boot, env: &Env) -> Result<Arc<Self>> {
        let size_bytes = source.size_bytes();
        let nonce = u64::from_le_bytes(env.entropy.nonce()[..8].try_into().expect("a nonce has 16 bytes"));
        let opening = Opening { identity: &source.identity(), size_bytes, boot, nonce };
        let Opened { states, journal, dirty_is_complete } = opening.open(&*files)?;
        Ok(Arc::new(Self {
            source,
            files,
            states,
            size_bytes,
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            journal: Mutex::new(journal),
            flushing: Mutex::default(),
            dirty_is_complete,
            failed: OnceLock::new(),
            closed: AtomicBool::new(false),
            demand: Demand::default(),
            recording: AtomicBool::new(false),
            access: Mutex::default(),
        }))
    }

    /// Size of the disk. It does not change.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What the disk stands on.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Where it stands.
    pub fn stats(&self) -> OverlayStats {
        OverlayStats {
            size_bytes: self.size_bytes,
            units: self.states.counts(),
            dirty_is_complete: self.dirty_is_complete,
            demand_bytes: self.demand.bytes.load(Ordering::Relaxed),
        }
    }

    /// The disk as a plain raw image, if nothing of it is absent any more. Durable only after a flush.
    pub fn finished(&self) -> Option<Finished> {
        let counts = self.states.counts();
        let done = counts.absent == 0 && self.states.all_at_least(State::Clean, 0..self.states.units());
        done.then(|| Finished {
            size_bytes: self.size_bytes,
            dirty_bytes: (counts.dirty * UNIT_BYTES).min(self.size_bytes),
        })
    }

    /// The local file, for reading; it is the disk once that is finished. `None` if others cannot open it.
    pub fn local_file(&self) -> Option<File> {
        self.files.reopen()
    }

    /// The next run of bytes from `offset` on whose units are `state`.
    pub fn next_extent(&self, state: State, offset: u64) -> Option<Range<u64>> {
        let run = self.states.next_run(offset / UNIT_BYTES..self.states.units(), |other| other == state)?;
        let range = self.bytes_of(&run);
        Some(range.start.max(offset)..range.end)
    }

    /// All runs of bytes whose units are `state`, ascending.
    pub fn extents(&self, state: State) -> impl Iterator<Item = Range<u64>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let found = self.next_extent(state, at).filter(|_| at < self.size_bytes)?;
            at = found.end;
            Some(found)
        })
    }

    /// Begins to note which ranges are read, in order, and forgets what was noted before.
    pub fn record_access(&self) {
        *lock(&self.access) = AccessLog::default();
        self.recording.store(true, Ordering::Relaxed);
    }

    /// Stops noting, and hands out what was noted.
    pub fn take_access(&self) -> AccessLog {
        self.recording.store(false, Ordering::Relaxed);
        std::mem::take(&mut *lock(&self.access))
    }

    fn note_read(&self, range: &Range<u64>) {
        if self.recording.load(Ordering::Relaxed) {
            lock(&self.access).note(range.clone());
        }
    }

    // Reading.

    /// Hands at most `len` bytes from `offset` on to `hit`, once, if that needs no waiting; says whether it did. Fewer bytes
    /// only at the end of the disk.
    pub fn read_now(&self, offset: u64, len: usize, hit: &mut dyn FnMut(&[u8])) -> bool {
        thread_local! { static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) }; }
        let range = self.clip(offset, len);
        if range.is_empty() {
            hit(&[]);
            return true;
        }
        let units = touched(&range);
        let done = if self.states.all_at_least(State::Clean, units.clone()) {
            BUFFER.with_borrow_mut(|buffer| {
                let len = (range.end - range.start) as usize;
                if buffer.len() < len {
                    buffer.resize(len, 0);
                }
                let read = self.files.data().read_now(&mut buffer[..len], range.start);
                if read {
                    hit(&buffer[..len]);
                }
                read
            })
        } else if self.states.next_run(units, State::is_present).is_none() {
            self.source.read_now(range.clone(), hit)
        } else {
            false
        };
        if done {
            self.note_read(&range);
        }
        done
    }

    /// At most `len` bytes from `offset` on, fewer only at the end of the disk.
    ///
    /// # Errors
    /// Those of the source and of the local disk.
    pub async fn read(self: &Arc<Self>, offset: u64, len: usize) -> Result<Bytes> {
        let range = self.clip(offset, len);
        self.note_read(&range);
        let runs: Vec<_> = self.states.runs(touched(&range)).collect();
        let parts = runs.into_iter().map(|(run, state)| {
            let run = self.bytes_of(&run);
            let part = run.start.max(range.start)..run.end.min(range.end);
            async move { if state.is_present() { self.read_local(part).await } else { self.demand(part).await } }
        });
        let parts = futures::future::try_join_all(parts).await?;
        if let [one] = parts.as_slice() {
            return Ok(one.clone());
        }
        let mut all = BytesMut::with_capacity((range.end - range.start) as usize);
        parts.iter().for_each(|part| all.extend_from_slice(part));
        Ok(all.freeze())
    }

    async fn read_local(self: &Arc<Self>, range: Range<u64>) -> Result<Bytes> {
        self.blocking("read the local disk", move |this| {
            let mut bytes = BytesMut::zeroed((range.end - range.start) as usize);
            let read = this.files.data().read_at(&mut bytes, range.start);
            read.map_err(|error| Error::local(format!("read {range:?} of the local disk"), error))?;
            Ok(bytes.freeze())
        })
        .await
    }

    /// Reads the source for somebody who waits.
    async fn demand(&self, range: Range<u64>) -> Result<Bytes> {
        let _waiting = self.demand.begin(range.end - range.start);
        let (len, what) = (range.end - range.start, format!("read {range:?}"));
        let bytes = self.source.read(range).await?;
        if bytes.len() as u64 != len {
            let source = format!("{} bytes came of {len}", bytes.len()).into();
            return Err(Error::Source { what, source, kind: tidemark_format::ErrorKind::DataLoss });
        }
        Ok(bytes)
    }

    /// The first byte from `offset` on that may differ from zero; `None` if only zeros follow.
    ///
    /// # Errors
    /// Those of the source and of the local disk.
    pub async fn next_data(self: &Arc<Self>, offset: u64) -> Result<Option<u64>> {
        self.next_of(offset, false).await
    }

    /// The first byte from `offset` on that is in a hole; the end of the disk counts as one. `None` beyond the end.
    ///
    /// # Errors
    /// Those of the source and of the local disk.
    pub async fn next_hole(self: &Arc<Self>, offset: u64) -> Result<Option<u64>> {
        let found = self.next_of(offset, true).await?;
        Ok(found.or_else(|| (offset < self.size_bytes).then_some(self.size_bytes)))
    }

    async fn next_of(self: &Arc<Self>, offset: u64, hole: bool) -> Result<Option<u64>> {
        let mut at = offset;
        while at < self.size_bytes {
            let units = at / UNIT_BYTES..self.states.units();
            let present = self.states.get(units.start).is_present();
            let run = self.states.next_run(units, |state| state.is_present() == present);
            let end = run.map_or(self.size_bytes, |run| self.bytes_of(&run).end).max(at + 1);
            let found = match (present, hole) {
                (false, true) => self.source.next_hole(at).await?,
                (false, false) => self.source.next_data(at).await?,
                (true, hole) => {
                    let seek = move |this: &Self| {
                        let data = this.files.data();
                        let found = if hole { data.next_hole(at) } else { data.next_data(at) };
                        found.map_err(|error| Error::local(format!("seek from {at} on the local disk"), error))
                    };
                    self.blocking("seek on the local disk", seek).await?
                }
            };
            if let Some(found) = found.filter(|found| *found < end) {
                return Ok(Some(found.max(offset)));
            }
            at = end;
        }
        Ok(None)
    }

    // Writing.

    /// Writes `bytes` at `offset` unless that needs the source: false if so, and nothing was written. Whole units never need
    /// it. Once it returns true the bytes outlast this process; only a flush makes them durable.
    ///
    /// # Errors
    /// `NoSpace`, `OutOfDisk`, `Failed`, and those of the local disk. What was acknowledged before is kept.
    pub fn write_now(&self, offset: u64, bytes: &[u8]) -> Result<bool> {
        let range = self.within(offset, bytes.len() as u64)?;
        self.check_alive()?;
        if self.states.all_at_least(State::Dirty, touched(&range)) {
            self.put(&range, ContentRef::Bytes(bytes))?;
            return Ok(true);
        }
        let _stripes = self.lock_stripes(touched(&range));
        self.check_alive()?;
        if self.open_edges(&range).next().is_some() {
            return Ok(false);
        }
        self.change(&range, ContentRef::Bytes(bytes), &[])?;
        Ok(true)
    }

    /// Writes `bytes` at `offset`, reading what it must from the source first.
    ///
    /// # Errors
    /// As [`Self::write_now`], and those of the source.
    pub async fn write(self: &Arc<Self>, offset: u64, bytes: Bytes) -> Result<()> {
        let range = self.within(offset, bytes.len() as u64)?;
        self.change_filled(range, Content::Bytes(bytes)).await
    }

    /// Makes `range` zeros and gives its space back: for discards and for writing zeros.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn discard(self: &Arc<Self>, range: Range<u64>) -> Result<()> {
        let range = self.within(range.start, range.end.saturating_sub(range.start))?;
        self.change_filled(range, Content::Zeros).await
    }

    async fn change_filled(self: &Arc<Self>, range: Range<u64>, content: Content) -> Result<()> {
        self.check_alive()?;
        if range.is_empty() {
            return Ok(());
        }
        let edges: Vec<u64> = self.open_edges(&range).collect();
        let fills = edges.into_iter().map(async |unit| {
            let part = self.bytes_of(&(unit..unit + 1));
            self.demand(part).await.map(|bytes| (unit, bytes))
        });
        let fills = futures::future::try_join_all(fills).await?;
        self.blocking("write", move |this| {
            let mut at = range.start;
            while at < range.end {
                // A discard may be as long as the disk: not all of it under one lock.
                let end = match content {
                    Content::Bytes(_) => range.end,
                    Content::Zeros => (at / STEP_BYTES + STRIPES).saturating_mul(STEP_BYTES).min(range.end),
                };
                let part = at..end;
                let _stripes = this.lock_stripes(touched(&part));
                this.check_alive()?;
                let content = match &content {
                    Content::Bytes(bytes) => ContentRef::Bytes(bytes),
                    Content::Zeros => ContentRef::Zeros,
                };
                this.change(&part, content, &fills)?;
                at = end;
            }
            Ok(())
        })
        .await
    }

    /// Units that `range` covers in part and that are absent.
    fn open_edges(&self, range: &Range<u64>) -> impl Iterator<Item = u64> {
        let whole = self.covered(range);
        let units = touched(range);
        let edges = [units.start, units.end.saturating_sub(1)];
        let partial = move |unit: &u64| units.contains(unit) && !whole.contains(unit);
        let one_each = if edges[0] == edges[1] { &edges[..1] } else { &edges[..] };
        let found: Vec<u64> =
            one_each.iter().copied().filter(partial).filter(|unit| !self.states.get(*unit).is_present()).collect();
        found.into_iter()
    }

    /// Puts `content` into `range`, whose stripes are locked. `fills` has the source's bytes of units that are covered in part.
    fn change(&self, range: &Range<u64>, content: ContentRef<'_>, fills: &[(u64, Bytes)]) -> Result<()> {
        let units = touched(range);
        let set = |run: Range<u64>| Record::Set { start: run.start, len: run.end - run.start, state: State::Dirty };
        let runs: Vec<_> = self.states.runs(units.clone()).collect();
        let clean: Vec<_> = runs.iter().filter(|(_, state)| *state == State::Clean).map(|(run, _)| run).collect();
        self.append(clean.iter().map(|run| set((*run).clone())).collect())?;
        clean.iter().for_each(|run| self.states.advance((*run).clone(), State::Dirty));

        for (unit, bytes) in fills.iter().filter(|(unit, _)| units.contains(unit)) {
            // Somebody may have written it while the source was read.
            if !self.states.get(*unit).is_present() {
                let part = self.bytes_of(&(*unit..unit + 1));
                self.put(&part, ContentRef::Bytes(bytes))?;
            }
        }
        self.put(range, content)?;
        if runs.iter().any(|(_, state)| *state == State::Absent) {
            self.append(vec![set(units.clone())])?;
            self.states.advance(units, State::Dirty);
        }
        Ok(())
    }

    fn put(&self, range: &Range<u64>, content: ContentRef<'_>) -> Result<()> {
        let done = match content {
            ContentRef::Bytes(bytes) => self.files.data().write_at(bytes, range.start),
            ContentRef::Zeros => self.files.data().punch(range.clone()),
        };
        done.map_err(|error| Error::local(format!("write {range:?} of the local disk"), error))
    }

    fn append(&self, records: Vec<Record>) -> Result<()> {
        let done = lock(&self.journal).append(&records);
        done.map_err(|error| Error::local("write the map", error))
    }

    // Hydrating.

    /// Puts the source's `bytes` at `offset` where units are absent; bytes of units that are not covered whole are left out.
    /// Says how many bytes came in. Blocks.
    ///
    /// # Errors
    /// `NoSpace`, `Failed`, and those of the local disk.
    pub fn fill(&self, offset: u64, bytes: &[u8]) -> Result<u64> {
        let range = self.within(offset, bytes.len() as u64)?;
        self.fill_with(range, |part| ContentRef::Bytes(&bytes[(part.start - offset) as usize..][..part_len(part)]))
    }

    /// As [`Self::fill`] with zeros, however many.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub fn fill_zeros(&self, range: Range<u64>) -> Result<u64> {
        let range = self.within(range.start, range.end.saturating_sub(range.start))?;
        // A hole may hold what a crash kept of a write that it lost: it is punched, not taken for empty.
        self.fill_with(range, |_| ContentRef::Zeros)
    }

    fn fill_with<'a>(&self, range: Range<u64>, content: impl Fn(&Range<u64>) -> ContentRef<'a>) -> Result<u64> {
        self.check_alive()?;
        let mut units = self.covered(&range);
        let mut filled = 0;
        while units.start < units.end {
            let step = units.start..units.end.min((units.start / STRIPE_UNITS + STRIPES / 2) * STRIPE_UNITS);
            units.start = step.end;
            let _stripes = self.lock_stripes(step.clone());
            self.check_alive()?;
            let absent: Vec<_> = self.states.runs(step).filter(|(_, state)| *state == State::Absent).collect();
            let mut records = Vec::with_capacity(absent.len());
            for (run, _) in &absent {
                let part = self.bytes_of(run);
                self.put(&part, content(&part))?;
                filled += part.end - part.start;
                records.push(Record::Set { start: run.start, len: run.end - run.start, state: State::Clean });
            }
            self.append(records)?;
            absent.into_iter().for_each(|(run, _)| self.states.advance(run, State::Clean));
        }
        Ok(filled)
    }

    pub(crate) fn demand_waiting(&self) -> &Demand {
        &self.demand
    }

    // Keeping.

    /// Makes everything that was acknowledged durable.
    ///
    /// # Errors
    /// Those of the local disk. After that nothing is acknowledged any more: nobody knows what the disk lost.
    pub async fn flush(self: &Arc<Self>) -> Result<()> {
        self.blocking("flush", |this| this.flush_blocking()).await
    }

    /// As [`Self::flush`], on this thread.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn flush_blocking(&self) -> Result<()> {
        self.keep(|through| Record::Commit { through }, false)
    }

    /// Flushes, and notes that nothing follows: then what the guest wrote stays known in full across a boot. Nothing can be
    /// written any more until the disk is opened again.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        // Whoever is at it still finishes first.
        drop(self.lock_stripes(0..STRIPES * STRIPE_UNITS));
        self.keep(|through| Record::Closed { through }, true)
    }

    fn keep(&self, commit: impl Fn(u64) -> Record, always: bool) -> Result<()> {
        let _alone = lock(&self.flushing);
        self.check_trusted()?;
        let through = lock(&self.journal).through();
        self.files.data().sync().map_err(|error| self.fail(error))?;
        let (file, number) = {
            let mut journal = lock(&self.journal);
            if journal.is_committed() && !always {
                return Ok(());
            }
            let number = journal.through();
            journal.append(&[commit(through)]).map_err(|error| Error::local("write the map", error))?;
            (journal.file(), number)
        };
        file.sync().map_err(|error| self.fail(error))?;
        lock(&self.journal).committed(through, number);
        Ok(())
    }

    /// The local disk did not keep what it was given.
    fn fail(&self, error: io::Error) -> Error {
        let error = self.failed.get_or_init(|| Arc::new(error));
        // A later process must not believe what this one could not keep.
        let journal = &mut *lock(&self.journal);
        if let Err(error) = journal.append(&[Record::Failed]).and_then(|()| journal.file().sync()) {
            tracing::error!(%error, "the local disk failed, and its map could not be marked so");
        }
        Error::Failed { source: Some(error.clone()) }
    }

    fn check_alive(&self) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) { Err(Error::Closed) } else { self.check_trusted() }
    }

    fn check_trusted(&self) -> Result<()> {
        self.failed.get().map_or(Ok(()), |error| Err(Error::Failed { source: Some(error.clone()) }))
    }

    // Arithmetic.

    fn clip(&self, offset: u64, len: usize) -> Range<u64> {
        let end = offset.saturating_add(len as u64).min(self.size_bytes);
        offset.min(end)..end
    }

    fn within(&self, offset: u64, len: u64) -> Result<Range<u64>> {
        let range = offset..offset.saturating_add(len);
        let size_bytes = self.size_bytes;
        if range.end > size_bytes { Err(Error::OutOfDisk { range, size_bytes }) } else { Ok(range) }
    }

    /// Units that `range` covers whole; the last one of a disk may be short.
    fn covered(&self, range: &Range<u64>) -> Range<u64> {
        let end = if range.end == self.size_bytes { self.states.units() } else { range.end / UNIT_BYTES };
        let start = range.start.div_ceil(UNIT_BYTES);
        start..end.max(start)
    }

    fn bytes_of(&self, units: &Range<u64>) -> Range<u64> {
        units.start * UNIT_BYTES..(units.end * UNIT_BYTES).min(self.size_bytes)
    }

    fn lock_stripes(&self, units: Range<u64>) -> Vec<MutexGuard<'_, ()>> {
        let stripes = units.start / STRIPE_UNITS..units.end.div_ceil(STRIPE_UNITS);
        // Always in the order of the list, so that nobody waits for somebody who waits for them.
        let wanted = |at: &u64| {
            let first = stripes.start + (at + STRIPES - stripes.start % STRIPES) % STRIPES;
            first < stripes.end
        };
        (0..STRIPES).filter(wanted).map(|at| lock(&self.stripes[at as usize])).collect()
    }

    /// Runs `work`, which may block, on a thread for that.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.unwrap_or_else(|_| Err(Error::TaskLost { what }))
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Overlay({} {:?})", self.source.identity(), self.states.counts())
    }
}

/// Units that a range touches.
fn touched(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / UNIT_BYTES..range.end.div_ceil(UNIT_BYTES) }
}

fn part_len(part: &Range<u64>) -> usize {
    (part.end - part.start) as usize
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
