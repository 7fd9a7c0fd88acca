//! Formatting a LUN, opening it, and the domains on it.

use super::commit;
use super::domain::{Domain, DomainLog, extents_of};
use super::lock;
use super::read::damage;
use super::shared::{Shared, read_all, write_all};
use crate::buffer::AlignedBuffer;
use crate::core::Mark;
use crate::core::log::Start;
use crate::core::space::{Account, Space};
use crate::core::walk::{Outcome, Walk};
use crate::device::{Device, FileDevice};
use crate::error::{Error, Result};
use crate::options::{Existing, FormatOptions, OpenOptions, SpaceLimits, SpaceUsage};
use crate::rules::{Rule, kept};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tidemark_format::logstore::{
    BatchIdentity, DomainEntry, Geometry, Incarnation, LABEL_COPY_AT, Label, LunExtent, LunId, PAGE_BYTES, Table,
    table_len,
};
use tidemark_format::{DomainId, FormatError, Lsn, TimeNs};

/// A log store, open. Cheap to clone; it is closed when the last clone goes.
#[derive(Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    domains: Mutex<BTreeMap<DomainId, Running>>,
    threads: Threads,
}

/// Whether logs have threads, or a test writes their batches by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    OfTheirOwn,
    #[cfg(test)]
    None,
}

/// A log and its thread.
struct Running {
    log: DomainLog,
    thread: Option<JoinHandle<()>>,
}

impl LogStore {
    /// Makes a log store of a block device, a file that is there, or a file that is made and filled with zeros.
    ///
    /// # Errors
    /// `Formatted` if there is a log store already, a limit that the options exceed, or what the device says.
    pub fn format(device: &Path, options: &FormatOptions) -> Result<()> {
        let opened = match options.size_bytes {
            Some(bytes) => FileDevice::create(device, bytes / PAGE_BYTES * PAGE_BYTES)?,
            None => FileDevice::open(device)?,
        };
        Self::format_on(&opened, &device.display().to_string(), options)
    }

    /// Makes a log store of any device; `name` stands for it in errors.
    ///
    /// # Errors
    /// As [`Self::format`].
    pub fn format_on(device: &dyn Device, name: &str, options: &FormatOptions) -> Result<()> {
        let what = "layout";
        let geometry = Geometry::largest(device.len_bytes(), options.extent_bytes, options.domains_max)
            .map_err(|source| Error::Format { what, source })?;
        if options.existing == Existing::Refuse
            && let Ok((label, _)) = read_label(device)
        {
            return Err(Error::Formatted { device: name.to_owned(), lun: label.lun.to_string() });
        }
        let label = Label { lun: LunId::new(options.env.entropy.nonce()), geometry };
        let table = Table { lun: label.lun, generation: 1, domains: Vec::new() }.encode();
        // A LUN that is only half formatted has no label that fits its table.
        //= LOGSTORE.md#label
        //# LL-3
        for at in [0, LABEL_COPY_AT] {
            write_all(device, &[0; PAGE_BYTES as usize], at)?;
        }
        for at in geometry.tables_at() {
            write_all(device, &table, at)?;
        }
        for at in [LABEL_COPY_AT, 0] {
            write_all(device, &label.encode(), at)?;
        }
        Ok(())
    }

    /// Opens a log store and recovers every domain on it.
    ///
    /// A domain whose log is damaged does not keep the others from opening: [`DomainLog::failed`] says what is wrong
    /// with it, what is in front of the damage can be read, and nothing can be appended until it is
    /// [reset](DomainLog::reset).
    ///
    /// # Errors
    /// `InUse`, `Format` if this is no log store or both copies of a part are damaged, or what the device says.
    pub fn open(device: &Path, options: OpenOptions) -> Result<Self> {
        Self::open_on(Arc::new(FileDevice::open(device)?), options)
    }

    /// Opens a log store on any device.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(device: Arc<dyn Device>, options: OpenOptions) -> Result<Self> {
        Self::open_with(device, options, Threads::OfTheirOwn)
    }

    pub(crate) fn open_with(device: Arc<dyn Device>, options: OpenOptions, threads: Threads) -> Result<Self> {
        // What can be read now may still be in a cache of the device, written by a process that was killed: were it
        // lost after something behind it was acknowledged, there would be a hole.
        //= LOGSTORE.md#recovery
        //# LX-4
        if kept(Rule::SyncBeforeUse) {
            device.sync().map_err(|e| Error::device("make durable", 0, 0, e))?;
        }
        let (label, bad_copy) = read_label(&*device)?;
        let geometry = label.geometry;
        if device.len_bytes() < geometry.lun_bytes() {
            return Err(Error::TooSmall { bytes: device.len_bytes(), need: geometry.lun_bytes() });
        }
        if let Some(at) = bad_copy {
            tracing::warn!(lun = %label.lun, offset = at, "a copy of the label was damaged: writing it again");
            write_all(&*device, &label.encode(), at)?;
        }
        let (table, stale) = read_tables(&*device, &label)?;
        let space = space_of(&geometry, &table);
        let entries = table.domains.clone();
        let shared = Arc::new(Shared::new(device, (label.lun, geometry), (table, stale), options, space));
        let mut domains = BTreeMap::new();
        for entry in &entries {
            let (start, damage) = recover(&shared, entry);
            //= LOGSTORE.md#recovery
            //# LX-5
            if let Some(damage) = &damage {
                tracing::error!(domain = %entry.domain, error = %damage, "log is damaged");
            }
            let domain = Domain::new(shared.clone(), entry, start, damage);
            domains.insert(entry.domain, Running { log: DomainLog { domain }, thread: None });
        }
        // Both copies are the same from here on, and say how far each log was found whole.
        shared.update(|_| Ok(()))?;
        if threads == Threads::OfTheirOwn {
            for running in domains.values_mut() {
                running.thread = Some(commit::spawn(running.log.domain.clone())?);
            }
        }
        Ok(Self { inner: Arc::new(Inner { shared, domains: Mutex::new(domains), threads }) })
    }

    /// The domains that have a log here, in order.
    pub fn domains(&self) -> Vec<DomainId> {
        lock(&self.inner.domains).keys().copied().collect()
    }

    /// A domain's log.
    pub fn domain(&self, id: DomainId) -> Option<DomainLog> {
        lock(&self.inner.domains).get(&id).map(|running| running.log.clone())
    }

    /// Makes an empty log for a domain, whose first record will be `next_lsn`; durable on return.
    ///
    /// # Errors
    /// `DomainExists`, `Full` if the LUN cannot promise the room, a limit that is exceeded, or what the device says.
    pub fn create_domain(&self, id: DomainId, limits: SpaceLimits, next_lsn: Lsn) -> Result<DomainLog> {
        if next_lsn == Lsn::ZERO {
            return Err(Error::BelowLimit { what: "first lsn of a log", value: 0, min: 1 });
        }
        let shared = &self.inner.shared;
        let (min, max) = extents_of(&shared.geometry, &limits)?;
        let mut domains = lock(&self.inner.domains);
        if domains.contains_key(&id) {
            return Err(Error::DomainExists { domain: id });
        }
        let domains_max = u64::from(shared.geometry.domains_max());
        if domains.len() as u64 >= domains_max {
            let value = domains.len() as u64 + 1;
            return Err(Error::Limit { what: "number of domains of the log store", value, max: domains_max });
        }
        let (meta_extent, available_bytes) = {
            let mut space = lock(&shared.space);
            let available = u64::from(space.free() - space.spoken_for()) * shared.geometry.extent_bytes();
            (space.create(id, min, max), available)
        };
        let meta_extent = meta_extent.map_err(|cause| Error::Full {
            domain: id,
            cause,
            need_bytes: u64::from(min + 1) * shared.geometry.extent_bytes(),
            available_bytes,
        })?;
        let (head, start) = Domain::empty(next_lsn, TimeNs::new(0));
        let entry = DomainEntry {
            domain: id,
            incarnation: Incarnation::new(shared.options.env.entropy.nonce()),
            min_bytes: limits.min_bytes,
            max_bytes: limits.max_bytes,
            first_lsn: next_lsn,
            durable: Lsn::new(next_lsn.get() - 1),
            head,
            meta_extent,
            extents: Vec::new(),
            metas: Vec::new(),
        };
        let known = shared.update(|table| {
            let at = table.domains.partition_point(|other| other.domain < id);
            table.domains.insert(at, entry.clone());
            Ok(())
        });
        if let Err(e) = known {
            // The table on the device may name the extent: it is not given to anybody.
            lock(&shared.space).remove(id, []);
            return Err(e);
        }
        let domain = Domain::new(shared.clone(), &entry, start, None);
        let thread = match self.inner.threads {
            Threads::OfTheirOwn => Some(commit::spawn(domain.clone())?),
            #[cfg(test)]
            Threads::None => None,
        };
        let log = DomainLog { domain };
        domains.insert(id, Running { log: log.clone(), thread });
        Ok(log)
    }

    /// Forgets a domain with all that it holds; durable on return. Whoever waits for it gets an error.
    ///
    /// # Errors
    /// `NoDomain`, or what the device says.
    pub fn remove_domain(&self, id: DomainId) -> Result<()> {
        let shared = &self.inner.shared;
        let mut domains = lock(&self.inner.domains);
        let Some(mut running) = domains.remove(&id) else { return Err(Error::NoDomain { domain: id }) };
        let domain = running.log.domain.clone();
        domain.fail(Error::GivenUp { domain: id });
        // Its extents must not be given away under a write that is under way.
        running.close();
        let _admin = lock(&domain.admin);
        let was = domain.state().stopped.replace(Error::GivenUp { domain: id });
        shared.unwatch(id);
        let entry = shared.entry(id)?;
        shared.update(|table| {
            table.domains.retain(|other| other.domain != id);
            Ok(())
        })?;
        // What a write that failed left in caches may reach the device at any time, until a restart has made it durable.
        //= LOGSTORE.md#space
        //# LS-4
        let free = !matches!(was, Some(Error::Poisoned { .. })) || !kept(Rule::KeptAfterFailure);
        let extents = entry.extents.into_iter().chain([entry.meta_extent]).filter(|_| free);
        lock(&shared.space).remove(id, extents);
        Ok(())
    }

    /// The room of the LUN.
    pub fn space(&self) -> SpaceUsage {
        let space = lock(&self.inner.shared.space);
        let extent_bytes = self.inner.shared.geometry.extent_bytes();
        SpaceUsage {
            total_bytes: u64::from(self.inner.shared.geometry.extents()) * extent_bytes,
            free_bytes: u64::from(space.free()) * extent_bytes,
            promised_bytes: u64::from(space.spoken_for()) * extent_bytes,
        }
    }

    /// Writes what is queued, stops all logs, and notes in the table how far each is durable. Handles that are left take
    /// nothing more.
    ///
    /// # Errors
    /// What the device says. Nothing that was acknowledged depends on it.
    pub fn close(&self) -> Result<()> {
        self.inner.close()
    }
}

impl Running {
    /// Ends the thread once what is queued is answered.
    fn close(&mut self) {
        let domain = &self.log.domain;
        domain.state().closing = true;
        domain.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic was answered to whoever waits already.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn close(&self) -> Result<()> {
        let mut domains = lock(&self.domains);
        domains.values_mut().for_each(Running::close);
        if domains.is_empty() {
            return Ok(());
        }
        domains.clear();
        self.shared.update(|_| Ok(()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(e) = self.close() {
            tracing::warn!(error = %e, "the log store could not note its end");
        }
    }
}

/// The label, and the offset of a copy of it that is damaged.
fn read_label(device: &dyn Device) -> Result<(Label, Option<u64>)> {
    let mut buffer = AlignedBuffer::default();
    let mut read = |at| {
        let page = buffer.bytes(PAGE_BYTES as usize);
        read_all(device, page, at)?;
        Label::decode(page).map_err(|source| Error::Format { what: "label", source })
    };
    //= LOGSTORE.md#label
    //# LL-4
    match (read(0), read(LABEL_COPY_AT)) {
        (Ok(label), Ok(copy)) if label == copy => Ok((label, None)),
        (Ok(label), _) => Ok((label, Some(LABEL_COPY_AT))),
        (Err(_), Ok(copy)) => Ok((copy, Some(0))),
        (Err(e), Err(_)) => Err(e),
    }
}

/// The newest table that is whole, and the copy that is to be written first.
//= LOGSTORE.md#table
//# LT-8
fn read_tables(device: &dyn Device, label: &Label) -> Result<(Table, usize)> {
    let mut buffer = AlignedBuffer::default();
    let mut read = |at| -> Result<Table> {
        let bad = |source| Error::Format { what: "extent table", source };
        let page = buffer.bytes(PAGE_BYTES as usize);
        read_all(device, page, at)?;
        let len = table_len(page).map_err(bad)?;
        if len > label.geometry.table_bytes() {
            return Err(bad(FormatError::HeaderField { field: "table_len", value: len }));
        }
        let bytes = buffer.bytes((len.div_ceil(PAGE_BYTES) * PAGE_BYTES) as usize);
        read_all(device, bytes, at)?;
        Table::decode(bytes, label.lun, &label.geometry).map_err(bad)
    };
    let [first, second] = label.geometry.tables_at();
    match (read(first), read(second)) {
        (Ok(first), Ok(second)) if first.generation >= second.generation => Ok((first, 1)),
        (_, Ok(second)) => Ok((second, 0)),
        (Ok(first), Err(e)) => {
            tracing::warn!(error = %e, "the second copy of the extent table is damaged: writing it again");
            Ok((first, 1))
        }
        (Err(e), Err(_)) => Err(e),
    }
}

/// Who has what, as the table says.
fn space_of(geometry: &Geometry, table: &Table) -> Space {
    let mut free: BTreeSet<_> = (0..geometry.extents()).map(LunExtent::new).collect();
    for entry in &table.domains {
        free.remove(&entry.meta_extent);
        for extent in &entry.extents {
            free.remove(extent);
        }
    }
    let mut space = Space::new(free);
    for entry in &table.domains {
        let limits = SpaceLimits { min_bytes: entry.min_bytes, max_bytes: entry.max_bytes };
        // Limits were checked when they were set; an entry that somebody else wrote gets the least that works.
        let least = crate::core::space::LOG_EXTENTS_MIN;
        let (min, max) = extents_of(geometry, &limits).unwrap_or((least, least));
        let allocated = entry.extents.len() as u32;
        space.enter(entry.domain, Account { min, max, allocated, reserved: 0 });
    }
    space
}

/// Finds out where a log begins and ends, and what of it is damaged.
fn recover(shared: &Shared, entry: &DomainEntry) -> (Start, Option<Error>) {
    let identity = BatchIdentity { lun: shared.lun, domain: entry.domain, incarnation: entry.incarnation };
    let head = Mark::from_head(&entry.head, 0);
    let mut walk = Walk::new(identity, shared.geometry.extent_pages(), (0, entry.extents.clone()), head);
    let mut marks: VecDeque<Mark> = VecDeque::new();
    let mut buffer = AlignedBuffer::default();
    let outcome = loop {
        let want = match walk.want() {
            Ok(want) => want,
            Err(outcome) => break Ok(outcome),
        };
        let bytes = buffer.bytes(want.pages as usize * PAGE_BYTES as usize);
        if let Err(e) = shared.read(bytes, shared.geometry.page_at(want.extent, want.page)) {
            break Err(e);
        }
        walk.feed(bytes, &mut |mark, _, _| {
            if marks.back().is_none_or(|last| mark.is_apart(last)) {
                marks.push_back(*mark);
            }
            ControlFlow::Continue(())
        });
    };
    let end = walk.at();
    //= LOGSTORE.md#recovery
    //# LX-3
    let why = match outcome {
        Err(e) => Some(format!("{e}: {}", std::error::Error::source(&e).map_or(String::new(), ToString::to_string))),
        Ok(Outcome::Damaged { why }) => Some(why),
        Ok(_) if end.lsn <= entry.durable && kept(Rule::NoEndBeforeWatermark) => {
            Some(format!("the log ends here, and the table says that lsn {} was durable", entry.durable))
        }
        Ok(_) => None,
    };
    let damaged = why.map(|why| damage(entry.domain, end, (0, &entry.extents), why));
    let first_lsn = entry.first_lsn.min(end.lsn);
    (Start { extents: entry.extents.clone(), marks, head, end, first_lsn }, damaged)
}
