//! One domain's log: what is queued, which batch is written next and where, what is durable, what is trimmed.
//!
//! Appended units are queued in LSN order and written in batches: whatever came in while the last batch was written
//! makes the next one, up to a size. One batch is in flight at a time, so a batch on the device proves all before it.
//! A unit goes into one batch, a batch into one extent. Space is set aside when a unit is queued, by laying the queue
//! out with each unit in a batch of its own: batches only ever need less.
//!
//! Invariants, asserted after every event: LSNs are dense from the durable end through the queue; what is queued fits
//! into what is allocated and set aside; marks ascend.
//! Not here: encoding, writing and answering (the shell), and the extents of other domains ([`super::space`]).

use super::space::Space;
use super::{Mark, Place};
use crate::error::FullCause;
use crate::record::Prepared;
use crate::rules::{Rule, kept};
use std::collections::VecDeque;
use tidemark_format::logstore::{BatchChain, LunExtent, PAGE_BYTES, batch_bytes};
use tidemark_format::{DomainId, Lsn, TimeNs};

/// A batch of several units is not made larger than this.
pub(crate) const BATCH_BYTES_MAX: u64 = 1 << 20;

/// Bounds of a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) extent_pages: u32,
    pub(crate) queue_bytes_max: u64,
}

impl Limits {
    /// Pages of the largest unit. Half an extent: what a unit that does not fit leaves unused is bounded by it.
    pub(crate) const fn unit_pages_max(self) -> u32 {
        self.extent_pages / 2
    }
    /// Pages that data leaves for events.
    pub(crate) const fn headroom_pages(self) -> u32 {
        self.extent_pages / 16
    }
}

/// What whoever appended it waits for together.
#[derive(Debug)]
pub(crate) struct Unit<T> {
    pub(crate) records: Vec<Prepared>,
    pub(crate) data_bytes: u64,
    /// Nothing but events: may use what is kept for them.
    pub(crate) events_only: bool,
    pub(crate) answer: T,
}

impl<T> Unit<T> {
    fn pages(&self) -> u64 {
        batch_bytes(self.records.len() as u64, self.data_bytes) / PAGE_BYTES
    }
    fn last_lsn(&self) -> Lsn {
        self.records.last().expect("a unit has a record").record.lsn
    }
    fn last_time(&self) -> TimeNs {
        self.records.last().expect("a unit has a record").record.time
    }
}

/// A batch that is to be written.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    pub(crate) extent: LunExtent,
    pub(crate) page: u32,
    pub(crate) pages: u32,
    pub(crate) chain: BatchChain,
    pub(crate) units: Vec<Unit<T>>,
}

/// What the shell shall do next.
#[derive(Debug)]
pub(crate) enum Next<T> {
    /// Nothing.
    Idle,
    /// Take an extent that was set aside, make that durable, answer with [`Log::extent_added`].
    Allocate,
    /// Write it, answer with [`Log::committed`].
    Write(Batch<T>),
}

/// Why a unit was not queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotDense { expected: Lsn, found: Lsn },
    TimeGoesBack { lsn: Lsn, found: TimeNs, last: TimeNs },
    TooLarge { bytes: u64, max: u64 },
    Busy { queued_bytes: u64 },
    Full { cause: FullCause, need_bytes: u64 },
}

/// What is in flight.
#[derive(Debug)]
struct InFlight {
    place: Place,
    pages: u32,
    last_lsn: Lsn,
    last_time: TimeNs,
}

/// What a trim changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trim {
    pub(crate) first_lsn: Lsn,
    pub(crate) head: Mark,
    /// Extents at the front that hold nothing any more.
    pub(crate) freed: usize,
}

/// Where a log stands when it is taken up.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) extents: Vec<LunExtent>,
    pub(crate) marks: VecDeque<Mark>,
    pub(crate) head: Mark,
    pub(crate) end: Mark,
    pub(crate) first_lsn: Lsn,
}

/// One domain's log.
#[derive(Debug)]
pub(crate) struct Log<T> {
    domain: DomainId,
    limits: Limits,
    /// Ordinal of the first extent.
    base: u64,
    extents: VecDeque<LunExtent>,
    /// Extents set aside besides those in `extents`.
    reserved: u32,
    first_lsn: Lsn,
    /// Where reading begins after a restart.
    head: Mark,
    /// Batches to begin reading at; the first is `head`, unless nothing is left to read.
    marks: VecDeque<Mark>,
    /// Behind the last durable batch.
    end: Mark,
    in_flight: Option<InFlight>,
    /// An extent is being made this log's.
    allocating: bool,
    /// Behind the batch in flight.
    next_place: Place,
    queue: VecDeque<Unit<T>>,
    queued_bytes: u64,
    /// Of the last record queued.
    last_lsn: Lsn,
    last_time: TimeNs,
    /// The queue laid out with each unit on its own: pages left in its last extent, and extents used beyond the current.
    laid_out: Layout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    left: u64,
    extents: u32,
}

impl Layout {
    fn add(&mut self, pages: u64, extent_pages: u32) {
        if pages > self.left {
            self.extents += 1;
            self.left = extent_pages.into();
        }
        self.left -= pages;
    }
    /// Extents that it takes, with room for events behind it.
    fn with_headroom(self, limits: Limits) -> u32 {
        self.extents + u32::from(self.left < limits.headroom_pages().into())
    }
}

impl<T> Log<T> {
    pub(crate) fn new(domain: DomainId, limits: Limits, start: Start) -> Self {
        let Start { extents, marks, head, end, first_lsn } = start;
        let (last_lsn, last_time) = (Lsn::new(end.lsn.get() - 1), end.time);
        let mut log = Self {
            domain,
            limits,
            base: head.place.ordinal,
            extents: extents.into(),
            reserved: 0,
            first_lsn,
            head,
            marks,
            end,
            in_flight: None,
            allocating: false,
            next_place: end.place,
            queue: VecDeque::new(),
            queued_bytes: 0,
            last_lsn,
            last_time,
            laid_out: Layout { left: 0, extents: 0 },
        };
        log.laid_out = log.lay_out();
        log.check();
        log
    }

    pub(crate) fn first_lsn(&self) -> Lsn {
        self.first_lsn
    }
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.last_lsn
    }
    pub(crate) fn last_time(&self) -> TimeNs {
        self.last_time
    }
    pub(crate) fn durable(&self) -> Lsn {
        Lsn::new(self.end.lsn.get() - 1)
    }
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }
    /// The shell is at work on something for it.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.is_some() || self.allocating
    }
    /// The extents that it holds, in order, and the ordinal of the first.
    pub(crate) fn extents(&self) -> (u64, Vec<LunExtent>) {
        (self.base, self.extents.iter().copied().collect())
    }
    pub(crate) fn allocated(&self) -> u32 {
        self.extents.len() as u32
    }
    /// Pages from the head to the durable end.
    pub(crate) fn used_pages(&self) -> u64 {
        let at = |place: Place| place.ordinal * u64::from(self.limits.extent_pages) + u64::from(place.page);
        at(self.end.place) - at(self.head.place)
    }

    /// Pages in front of the head, in its extent.
    pub(crate) fn lead_pages(&self) -> u64 {
        self.head.place.page.into()
    }

    /// Pages that data can still take if `obtainable` more extents can be set aside.
    pub(crate) fn available_pages(&self, obtainable: u32) -> u64 {
        let ahead = self.granted().saturating_sub(self.laid_out.extents) + obtainable;
        let pages = self.laid_out.left + u64::from(ahead) * u64::from(self.limits.extent_pages);
        pages.saturating_sub(self.limits.headroom_pages().into())
    }

    /// The last batch that begins at or before an LSN, to read from.
    pub(crate) fn mark_before(&self, lsn: Lsn) -> Mark {
        let at = self.marks.partition_point(|mark| mark.lsn <= lsn);
        at.checked_sub(1).map_or(self.head, |at| self.marks[at])
    }

    /// Queues a unit, or refuses it and changes nothing.
    pub(crate) fn submit(&mut self, unit: Unit<T>, space: &mut Space) -> Result<(), Refusal> {
        let (mut lsn, mut time) = (self.last_lsn, self.last_time);
        for Prepared { record, .. } in &unit.records {
            if record.lsn != lsn.next() {
                return Err(Refusal::NotDense { expected: lsn.next(), found: record.lsn });
            }
            if record.time < time {
                return Err(Refusal::TimeGoesBack { lsn: record.lsn, found: record.time, last: time });
            }
            (lsn, time) = (record.lsn, record.time);
        }
        let pages = unit.pages();
        let max = u64::from(self.limits.unit_pages_max());
        if pages > max {
            return Err(Refusal::TooLarge { bytes: pages * PAGE_BYTES, max: max * PAGE_BYTES });
        }
        if self.queued_bytes > 0 && self.queued_bytes + unit.data_bytes > self.limits.queue_bytes_max {
            return Err(Refusal::Busy { queued_bytes: self.queued_bytes });
        }
        //= LOGSTORE.md#space
        //# LS-3
        let mut laid_out = self.laid_out;
        laid_out.add(pages, self.limits.extent_pages);
        let need = if unit.events_only || !kept(Rule::RoomForEvents) {
            laid_out.extents
        } else {
            laid_out.with_headroom(self.limits)
        };
        let lacking = need.saturating_sub(self.granted());
        space.reserve(self.domain, lacking).map_err(|cause| Refusal::Full { cause, need_bytes: pages * PAGE_BYTES })?;
        self.reserved += lacking;
        self.laid_out = laid_out;
        self.queued_bytes += unit.data_bytes;
        (self.last_lsn, self.last_time) = (lsn, time);
        self.queue.push_back(unit);
        self.check();
        Ok(())
    }

    /// What to do next.
    pub(crate) fn poll(&mut self) -> Next<T> {
        //= LOGSTORE.md#appending
        //# LA-1
        if self.is_busy() {
            return Next::Idle;
        }
        let Some(first) = self.queue.front() else { return Next::Idle };
        if first.pages() > self.left() {
            if self.is_allocated(self.next_place) {
                self.next_place = Place { ordinal: self.next_place.ordinal + 1, page: 0 };
            }
            if !self.is_allocated(self.next_place) {
                self.allocating = true;
                return Next::Allocate;
            }
        }
        let (left, most) = (self.left(), BATCH_BYTES_MAX / PAGE_BYTES);
        let (mut records, mut data_bytes, mut count, mut pages) = (0, 0, 0, 0);
        for unit in &self.queue {
            let (with_records, with_bytes) = (records + unit.records.len() as u64, data_bytes + unit.data_bytes);
            let with_pages = batch_bytes(with_records, with_bytes) / PAGE_BYTES;
            if count > 0 && with_pages > left.min(most) {
                break;
            }
            (records, data_bytes, pages) = (with_records, with_bytes, with_pages);
            count += 1;
        }
        let units: Vec<_> = self.queue.drain(..count).collect();
        let last = units.last().expect("there is a first");
        let (place, pages) = (self.next_place, pages as u32);
        self.in_flight = Some(InFlight { place, pages, last_lsn: last.last_lsn(), last_time: last.last_time() });
        self.next_place.page += pages;
        let chain = BatchChain { seq: self.end.seq, first_lsn: self.end.lsn, prev_crc: self.end.prev_crc };
        let extent = self.extents[(place.ordinal - self.base) as usize];
        self.laid_out = self.lay_out();
        self.check();
        Next::Write(Batch { extent, page: place.page, pages, chain, units })
    }

    /// An extent that was set aside is now this log's, and the device knows.
    pub(crate) fn extent_added(&mut self, extent: LunExtent) {
        assert!(self.reserved > 0, "an extent is set aside before it is added");
        self.reserved -= 1;
        self.allocating = false;
        self.extents.push_back(extent);
        self.laid_out = self.lay_out();
        self.check();
    }

    /// The batch in flight is durable; `head_crc` is its chain value and `data_bytes` what it held.
    pub(crate) fn committed(&mut self, head_crc: u32, data_bytes: u64, space: &mut Space) {
        let InFlight { place, pages, last_lsn, last_time } = self.in_flight.take().expect("a batch was in flight");
        let mark = Mark { place, ..self.end };
        if self.marks.back().is_none_or(|last| mark.is_apart(last)) {
            self.marks.push_back(mark);
        }
        let place = Place { page: place.page + pages, ..place };
        self.end = Mark { place, seq: self.end.seq.next(), lsn: last_lsn.next(), prev_crc: head_crc, time: last_time };
        self.queued_bytes -= data_bytes;
        self.laid_out = self.lay_out();
        let surplus = self.granted().saturating_sub(self.laid_out.with_headroom(self.limits)).min(self.reserved);
        if surplus > 0 {
            space.unreserve(self.domain, surplus);
            self.reserved -= surplus;
        }
        self.check();
    }

    /// Gives everything up that is queued: the units, to be answered. Nothing is queued after that.
    pub(crate) fn give_up(&mut self) -> Vec<Unit<T>> {
        let units = self.queue.drain(..).collect();
        self.queued_bytes = 0;
        self.laid_out = self.lay_out();
        let end = (self.durable(), self.end.time);
        (self.last_lsn, self.last_time) = self.in_flight.as_ref().map_or(end, |f| (f.last_lsn, f.last_time));
        self.check();
        units
    }

    /// What was under way did not become durable, or nobody shall be told that it did. The log is given up before.
    pub(crate) fn abandoned(&mut self) {
        (self.in_flight, self.allocating) = (None, false);
        (self.last_lsn, self.last_time) = (self.durable(), self.end.time);
        self.check();
    }

    /// What trimming through an LSN would change; nothing if it was trimmed before.
    pub(crate) fn plan_trim(&self, through: Lsn) -> Option<Trim> {
        assert!(through <= self.durable(), "the caller has checked that lsn {through} is durable");
        if through < self.first_lsn {
            return None;
        }
        let first_lsn = through.next();
        let head = if first_lsn == self.end.lsn { self.end } else { self.mark_before(first_lsn) };
        Some(Trim { first_lsn, head, freed: (head.place.ordinal - self.base) as usize })
    }

    /// The device knows of the trim: the extents that are free now.
    pub(crate) fn trimmed(&mut self, trim: &Trim) -> Vec<LunExtent> {
        self.first_lsn = trim.first_lsn;
        self.head = trim.head;
        self.base += trim.freed as u64;
        while self.marks.front().is_some_and(|mark| mark.lsn < trim.head.lsn) {
            self.marks.pop_front();
        }
        // Batches were written since the trim was planned, the first of them too close to a mark that is gone now.
        if self.head.lsn < self.end.lsn && self.marks.front().is_none_or(|mark| mark.lsn != self.head.lsn) {
            self.marks.push_front(self.head);
        }
        let freed = self.extents.drain(..trim.freed).collect();
        self.check();
        freed
    }

    fn is_allocated(&self, place: Place) -> bool {
        place.ordinal < self.base + self.extents.len() as u64
    }
    /// Pages left in the current extent.
    fn left(&self) -> u64 {
        if self.is_allocated(self.next_place) { (self.limits.extent_pages - self.next_place.page).into() } else { 0 }
    }
    /// Extents beyond the current one that can be counted on.
    fn granted(&self) -> u32 {
        let behind = (self.base + self.extents.len() as u64).saturating_sub(self.next_place.ordinal + 1);
        behind as u32 + self.reserved
    }
    fn lay_out(&self) -> Layout {
        let mut layout = Layout { left: self.left(), extents: 0 };
        self.queue.iter().for_each(|unit| layout.add(unit.pages(), self.limits.extent_pages));
        layout
    }

    fn check(&self) {
        let queued: u64 = self.last_lsn.get() - self.in_flight.as_ref().map_or(self.durable(), |f| f.last_lsn).get();
        assert!(self.queue.is_empty() == (queued == 0), "{queued} lsns are queued in {} units", self.queue.len());
        assert!(self.first_lsn <= self.end.lsn, "trimmed to {} beyond {}", self.first_lsn, self.end.lsn);
        assert!(self.head.lsn <= self.first_lsn, "head {} is behind {}", self.head.lsn, self.first_lsn);
        let (needs, granted) = (self.laid_out.extents, self.granted());
        assert!(needs <= granted, "the queue needs {needs} more extents, {granted} are granted");
        let first = self.marks.front().map_or(self.end.lsn, |mark| mark.lsn);
        assert!(first == self.head.lsn, "reading can begin at {first}, the head is {}", self.head.lsn);
    }
}
