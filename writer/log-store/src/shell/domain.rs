//! The handle of one domain's log.

use super::lock;
use super::read::Cache;
use super::shared::Shared;
use crate::core::log::{Limits, Log, Refusal, Start, Trim, Unit};
use crate::core::space::LOG_EXTENTS_MIN;
use crate::error::{Error, Result};
use crate::options::{SpaceLimits, Usage};
use crate::record::{Prepared, Record, RecordBody};
use crate::rules::{Rule, kept};
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tidemark_format::logstore::{
    BatchIdentity, BatchSeq, DomainEntry, Geometry, Head, Incarnation, LunExtent, PAGE_BYTES,
};
use tidemark_format::{DomainId, Lsn, TimeNs};
use tokio::sync::{oneshot, watch};

/// Who waits for a unit.
pub(crate) type Answer = oneshot::Sender<Result<Lsn>>;

/// The log of one domain. Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub struct DomainLog {
    pub(crate) domain: Arc<Domain>,
}

/// What the handles and the thread of a log share.
pub(crate) struct Domain {
    pub(crate) id: DomainId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: Mutex<State>,
    /// Something was queued, or the log is closing, or a batch is done.
    pub(crate) wake: Condvar,
    /// Last durable LSN, for the table.
    pub(crate) watermark: Arc<AtomicU64>,
    /// The same for whoever waits for it to move.
    pub(crate) durable: watch::Sender<Lsn>,
    /// Held by what changes the domain's entry in the table: trims, limits, named values.
    pub(crate) admin: Mutex<()>,
}

pub(crate) struct State {
    pub(crate) identity: BatchIdentity,
    pub(crate) log: Log<Answer>,
    pub(crate) cache: Cache,
    pub(crate) stopped: Option<Error>,
    /// The thread shall end once the queue is empty.
    pub(crate) closing: bool,
}

/// Resolves to the last LSN of what was appended once it is durable, or to the error that stopped the log before.
#[derive(Debug)]
#[must_use = "what was appended is durable only once this says so"]
pub struct Appended {
    answer: oneshot::Receiver<Result<Lsn>>,
}

impl Future for Appended {
    type Output = Result<Lsn>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| answer.unwrap_or(Err(Error::Closed)))
    }
}

impl Appended {
    /// Waits on this thread, which must not be one of an asynchronous runtime.
    ///
    /// # Errors
    /// What stopped the log.
    pub fn wait(self) -> Result<Lsn> {
        self.answer.blocking_recv().unwrap_or(Err(Error::Closed))
    }
}

/// Limits in whole extents.
pub(crate) fn extents_of(geometry: &Geometry, limits: &SpaceLimits) -> Result<(u32, u32)> {
    let SpaceLimits { min_bytes, max_bytes } = *limits;
    let extent_bytes = geometry.extent_bytes();
    let max = (max_bytes / extent_bytes).min(u32::MAX.into()) as u32;
    if max < LOG_EXTENTS_MIN {
        let min = extent_bytes * u64::from(LOG_EXTENTS_MIN);
        return Err(Error::BelowLimit { what: "max_bytes of a log", value: max_bytes, min });
    }
    let min = min_bytes.div_ceil(extent_bytes).max(LOG_EXTENTS_MIN.into());
    if min > max.into() {
        return Err(Error::Limit { what: "min_bytes of a log", value: min_bytes, max: u64::from(max) * extent_bytes });
    }
    Ok((min as u32, max))
}

impl Domain {
    /// Takes up a log where `start` says.
    pub(crate) fn new(shared: Arc<Shared>, entry: &DomainEntry, start: Start, stopped: Option<Error>) -> Arc<Self> {
        let limits =
            Limits { extent_pages: shared.geometry.extent_pages(), queue_bytes_max: shared.options.queue_bytes_max };
        let identity = BatchIdentity { lun: shared.lun, domain: entry.domain, incarnation: entry.incarnation };
        let log = Log::new(entry.domain, limits, start);
        let durable = log.durable();
        let watermark = Arc::new(AtomicU64::new(durable.get()));
        shared.watch(entry.domain, &watermark);
        Arc::new(Self {
            id: entry.domain,
            shared,
            state: Mutex::new(State { identity, log, cache: Cache::default(), stopped, closing: false }),
            wake: Condvar::new(),
            watermark,
            durable: watch::Sender::new(durable),
            admin: Mutex::new(()),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Stops the log for good: whoever waits gets the error, and so does everybody who comes.
    pub(crate) fn fail(&self, why: Error) {
        let mut state = self.state();
        // Of a log that is being given up it must still be known whether a write failed.
        let given_up = matches!(state.stopped, Some(Error::GivenUp { .. })) && matches!(why, Error::Poisoned { .. });
        if state.stopped.is_none() || given_up {
            tracing::error!(domain = %self.id, error = %why, "log stopped");
            state.stopped = Some(why);
        }
        let why = state.stopped.clone().expect("set above");
        let units = state.log.give_up();
        drop(state);
        self.wake.notify_all();
        for unit in units {
            // Whoever appended may have gone.
            let _ = unit.answer.send(Err(why.clone()));
        }
    }

    /// An empty log that begins at `next_lsn`.
    pub(crate) fn empty(next_lsn: Lsn, time: TimeNs) -> (Head, Start) {
        let head = Head { page: 0, prev_crc: 0, seq: BatchSeq::FIRST, lsn: next_lsn, time };
        let mark = crate::core::Mark::from_head(&head, 0);
        let start = Start { extents: Vec::new(), marks: VecDeque::new(), head: mark, end: mark, first_lsn: next_lsn };
        (head, start)
    }
}

impl DomainLog {
    /// The domain.
    pub fn id(&self) -> DomainId {
        self.domain.id
    }

    /// The oldest LSN that has not been trimmed; one more than [`Self::last_lsn`] if nothing is left.
    pub fn first_lsn(&self) -> Lsn {
        self.domain.state().log.first_lsn()
    }

    /// The newest LSN that was appended, durable or not.
    pub fn last_lsn(&self) -> Lsn {
        self.domain.state().log.last_lsn()
    }

    /// Time of [`Self::last_lsn`], also if it was trimmed; 0 if there never was a record.
    pub fn last_time(&self) -> TimeNs {
        self.domain.state().log.last_time()
    }

    /// Everything through this LSN is durable.
    pub fn durable_through(&self) -> Lsn {
        *self.domain.durable.borrow()
    }

    /// The same, to wait for it to move.
    pub fn durable(&self) -> watch::Receiver<Lsn> {
        self.domain.durable.subscribe()
    }

    /// What stopped the log, if something did. It is never taken up again, but for damage found when the store was
    /// opened, which [`Self::reset`] leaves behind.
    pub fn failed(&self) -> Option<Error> {
        self.domain.state().stopped.clone()
    }

    /// Queues records, which must follow what was appended before, to become durable all together or not at all.
    ///
    /// Does not wait: neither for the device nor for room.
    ///
    /// # Errors
    /// `Full` and `Busy`, where nothing was queued and the same may work later; what stopped the log; and whatever is
    /// wrong with the records.
    pub fn append(&self, records: Vec<Record>) -> Result<Appended> {
        let Some(first) = records.first() else {
            return Err(Error::BelowLimit { what: "number of records in an append", value: 0, min: 1 });
        };
        let (lsn, mut data_bytes, mut events_only) = (first.lsn, 0, true);
        let mut prepared = Vec::with_capacity(records.len());
        for record in records {
            events_only &= matches!(record.body, RecordBody::Event(_));
            let lsn = record.lsn;
            let record = Prepared::new(record).map_err(|source| Error::Record { lsn, source })?;
            data_bytes += record.data.len() as u64;
            prepared.push(record);
        }
        let (answer, receiver) = oneshot::channel();
        let unit = Unit { records: prepared, data_bytes, events_only, answer };
        let domain = &*self.domain;
        let mut state = domain.state();
        if let Some(stopped) = &state.stopped {
            return Err(stopped.clone());
        }
        if state.closing {
            return Err(Error::Closed);
        }
        let was_idle = state.log.is_idle();
        let submitted = state.log.submit(unit, &mut lock(&domain.shared.space));
        if let Err(refusal) = submitted {
            let available_bytes = self.usage_of(&state).available_bytes;
            return Err(self.refused(lsn, refusal, available_bytes));
        }
        drop(state);
        if was_idle {
            domain.wake.notify_all();
        }
        Ok(Appended { answer: receiver })
    }

    fn refused(&self, lsn: Lsn, refusal: Refusal, available_bytes: u64) -> Error {
        let domain = self.domain.id;
        match refusal {
            Refusal::NotDense { expected, found } => Error::NotDense { domain, expected, found },
            Refusal::TimeGoesBack { lsn, found, last } => Error::TimeGoesBack { lsn, found, last },
            Refusal::TooLarge { bytes, max } => {
                tracing::debug!(%domain, %lsn, bytes, "an append is too large");
                Error::Limit { what: "size of an append in bytes, in whole pages,", value: bytes, max }
            }
            Refusal::Busy { queued_bytes } => {
                Error::Busy { domain, queued_bytes, max: self.domain.shared.options.queue_bytes_max }
            }
            Refusal::Full { cause, need_bytes } => Error::Full { domain, cause, need_bytes, available_bytes },
        }
    }

    /// Records from `from` on, in order: at least one if there is one that is durable, and more as long as their data
    /// stays within `bytes_max`. Recent ones come from memory, others from the device, verified.
    ///
    /// # Errors
    /// `Trimmed`, `Damaged`, or what the device says.
    pub fn read(&self, from: Lsn, bytes_max: u64) -> Result<Vec<Record>> {
        self.domain.read(from, bytes_max)
    }

    /// Gives up all records through `through`: on return they will not come back, and extents without any others are
    /// free. What was trimmed before is no error.
    ///
    /// # Errors
    /// `TrimBeyondEnd`, or what the device says.
    pub fn trim(&self, through: Lsn) -> Result<()> {
        let _admin = lock(&self.domain.admin);
        match self.domain.plan_trim(through)? {
            Some(trim) => self.domain.trim(&trim),
            None => Ok(()),
        }
    }

    /// Sets one of the domain's small named values; durable on return. Until then the old value stays.
    ///
    /// # Errors
    /// `Limit`, or what the device says.
    pub fn put_meta(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.domain.put_meta(name, bytes)
    }

    /// One of the domain's named values.
    ///
    /// # Errors
    /// `MetaDamaged`, or what the device says.
    pub fn meta(&self, name: &str) -> Result<Option<Bytes>> {
        self.domain.meta(name)
    }

    /// Names of the domain's values, in order.
    ///
    /// # Errors
    /// `NoDomain` after the domain was removed.
    pub fn meta_names(&self) -> Result<Vec<String>> {
        Ok(self.domain.shared.entry(self.domain.id)?.metas.into_iter().map(|meta| meta.name).collect())
    }

    /// Forgets one of the domain's named values; durable on return. One that is not there is no error.
    ///
    /// # Errors
    /// What the device says.
    pub fn remove_meta(&self, name: &str) -> Result<()> {
        self.domain.remove_meta(name)
    }

    /// The room that the log takes and may take.
    pub fn usage(&self) -> Usage {
        self.usage_of(&self.domain.state())
    }

    fn usage_of(&self, state: &State) -> Usage {
        let space = lock(&self.domain.shared.space);
        let extent_bytes = self.domain.shared.geometry.extent_bytes();
        let account = space.account(self.domain.id);
        let (obtainable, _) = space.obtainable(self.domain.id);
        let (used, available) = (state.log.used_pages(), state.log.available_pages(obtainable));
        let max_bytes = u64::from(account.max) * extent_bytes;
        // The extent at the head comes free as a whole: until then what was trimmed of it counts as there, and one extent
        // never counts.
        let whole_bytes = (used + available + state.log.lead_pages()) * PAGE_BYTES;
        Usage {
            used_bytes: used * PAGE_BYTES,
            allocated_bytes: u64::from(state.log.allocated()) * extent_bytes,
            queued_bytes: state.log.queued_bytes(),
            available_bytes: available * PAGE_BYTES,
            steady_bytes: whole_bytes.min(max_bytes).saturating_sub(extent_bytes),
            min_bytes: u64::from(account.min) * extent_bytes,
            max_bytes,
        }
    }

    /// Changes the room that the log may take. What it holds beyond a lower maximum stays until it is trimmed.
    ///
    /// # Errors
    /// `Full` if the LUN cannot promise so much, or what the device says.
    pub fn set_limits(&self, limits: SpaceLimits) -> Result<()> {
        let domain = &*self.domain;
        let (min, max) = extents_of(&domain.shared.geometry, &limits)?;
        let _admin = lock(&domain.admin);
        let available_bytes = self.usage().available_bytes;
        lock(&domain.shared.space).set_limits(domain.id, min, max).map_err(|cause| Error::Full {
            domain: domain.id,
            cause,
            need_bytes: limits.min_bytes,
            available_bytes,
        })?;
        domain.shared.update_entry(domain.id, |entry| {
            (entry.min_bytes, entry.max_bytes) = (limits.min_bytes, limits.max_bytes);
            Ok(())
        })
    }

    /// Forgets every record and every named value and begins a new log at `next_lsn`; durable on return.
    ///
    /// What is queued gets an error. A log that was found damaged can be used again; one whose write failed cannot, as
    /// nobody knows what its device does.
    ///
    /// # Errors
    /// What stopped the log, or what the device says.
    pub fn reset(&self, next_lsn: Lsn) -> Result<()> {
        if next_lsn == Lsn::ZERO {
            return Err(Error::BelowLimit { what: "first lsn of a log", value: 0, min: 1 });
        }
        let domain = &*self.domain;
        let _admin = lock(&domain.admin);
        domain.shared.entry_to_change(domain.id)?;
        let given_up = Error::GivenUp { domain: domain.id };
        let mut state = domain.state();
        match &state.stopped {
            Some(Error::Damaged { .. }) | None => state.stopped = Some(given_up.clone()),
            Some(stopped) => return Err(stopped.clone()),
        }
        let units = state.log.give_up();
        // Its extents must not be given away under a write that is under way.
        while state.log.is_busy() {
            state = domain.wake.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        let (time, stopped) = (state.log.last_time(), state.stopped.clone());
        drop(state);
        for unit in units {
            let _ = unit.answer.send(Err(given_up.clone()));
        }
        if let Some(poisoned @ Error::Poisoned { .. }) = stopped {
            return Err(poisoned);
        }
        let incarnation = Incarnation::new(domain.shared.options.env.entropy.nonce());
        let (head, start) = Domain::empty(next_lsn, time);
        domain.shared.unwatch(domain.id);
        let freed = domain.shared.update_entry(domain.id, |entry| {
            let extents = std::mem::take(&mut entry.extents);
            entry.metas.clear();
            entry.incarnation = incarnation;
            (entry.first_lsn, entry.durable, entry.head) = (next_lsn, Lsn::new(next_lsn.get() - 1), head);
            Ok(extents)
        })?;
        domain.restart(incarnation, start, freed);
        Ok(())
    }
}

impl Domain {
    /// What trimming through an LSN would change; nothing if it was trimmed before.
    pub(crate) fn plan_trim(&self, through: Lsn) -> Result<Option<Trim>> {
        let state = self.state();
        let durable = state.log.durable();
        if through > durable {
            return Err(Error::TrimBeyondEnd { domain: self.id, wanted: through, durable });
        }
        Ok(state.log.plan_trim(through))
    }

    /// Gives up what a plan says. Batches may have been written since it was made.
    pub(crate) fn trim(&self, trim: &Trim) -> Result<()> {
        self.shared.update_entry(self.id, |entry| {
            entry.first_lsn = trim.first_lsn;
            if kept(Rule::FreeOnceKnown) {
                entry.head = trim.head.head();
                entry.extents.drain(..trim.freed);
            }
            Ok(())
        })?;
        let mut state = self.state();
        let freed = state.log.trimmed(trim);
        state.cache.trim(trim.first_lsn);
        //= LOGSTORE.md#space
        //# LS-2
        lock(&self.shared.space).give_back(self.id, freed);
        Ok(())
    }

    /// The table on the device knows of the new log.
    fn restart(&self, incarnation: Incarnation, start: Start, freed: Vec<LunExtent>) {
        let mut state = self.state();
        let limits = Limits {
            extent_pages: self.shared.geometry.extent_pages(),
            queue_bytes_max: self.shared.options.queue_bytes_max,
        };
        let mut space = lock(&self.shared.space);
        let reserved = space.account(self.id).reserved;
        space.unreserve(self.id, reserved);
        space.give_back(self.id, freed);
        drop(space);
        state.identity.incarnation = incarnation;
        state.log = Log::new(self.id, limits, start);
        state.cache = Cache::default();
        let durable = state.log.durable();
        self.watermark.store(durable.get(), Ordering::Release);
        self.durable.send_replace(durable);
        self.shared.watch(self.id, &self.watermark);
        if !matches!(state.stopped, Some(Error::Closed)) {
            state.stopped = None;
        }
    }
}
