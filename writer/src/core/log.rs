//! Turns writes and events into segments, and segments into commits.
//!
//! A write gets its LSN when it comes in; a segment is cut by age or size, compressed, sealed in order (its header names
//! the one before), and put with others in parallel. A run of segments without a hole is committed once a look at the
//! next claim that began after the last of their PUTs ended found it absent (F6). Any sign of a newer owner fences the
//! log for good: no acknowledgement follows.
//!
//! Invariants, asserted after every event: LSNs are dense over the segments under way and the open one; nothing is
//! committed that was not put; no more segments are under way than allowed; time never goes back.
//! Not here: compressing, PUTs, GETs and timers (the shell performs the effects), and waiting for room (the shell asks
//! before it submits; [`Effect::Release`] says when there is room again).

use super::disks::DiskTable;
use super::layout::{Body, Entry};
use super::{Now, floor_to_tick};
use crate::error::{Error, FenceCause, Result};
use crate::status::Packed;
use std::collections::VecDeque;
use std::time::Duration;
use tidemark_format::{
    BLOCK_BYTES, DiskId, Epoch, Event, EventBody, Extent, FormatError, Lsn, Seq, Tail, TimeNs, TimeStep,
};

/// Bounds of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) segment_bytes_max: u64,
    pub(crate) segment_entries_max: usize,
    pub(crate) segment_age_max: Duration,
    pub(crate) in_flight_segments_max: usize,
    pub(crate) hint_every_segments: u64,
}

/// Where an epoch begins.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) epoch: Epoch,
    pub(crate) next_lsn: Lsn,
    pub(crate) last_time: TimeNs,
    pub(crate) tick_ns: u32,
    /// Of the CUT.
    pub(crate) header_hash: [u8; 32],
    pub(crate) predecessor: Option<Tail>,
    pub(crate) disks: DiskTable,
}

/// One thing to log; it takes one LSN.
#[derive(Clone, Debug)]
pub enum Submission {
    /// A disk's blocks change.
    Write {
        /// Where.
        disk: DiskId,
        /// Which blocks.
        extent: Extent,
        /// What they hold from here on.
        body: Body,
    },
    /// Something happens besides writes.
    Event(EventBody),
}

impl Submission {
    /// Bytes that it brings along.
    fn bytes(&self) -> u64 {
        match self {
            Self::Write { body: Body::Data(data), .. } => data.len() as u64,
            Self::Event(EventBody::VmConfig { vm, format, body }) => (vm.len() + format.len() + body.len()) as u64,
            Self::Event(EventBody::Bookmark { name, .. }) => name.len() as u64,
            Self::Event(EventBody::DiskAdd { vm, name, .. }) => (vm.len() + name.len()) as u64,
            Self::Event(_) | Self::Write { .. } => 0,
        }
    }
    /// Memory that it takes, in units of 512 bytes: its bytes and an allowance for its bookkeeping.
    pub(crate) fn units(&self) -> u32 {
        1 + self.bytes().div_ceil(BLOCK_BYTES) as u32
    }
}

/// Everything that goes into one segment. Frozen: it is never changed once cut.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) seq: Seq,
    pub(crate) first_lsn: Lsn,
    pub(crate) last_lsn: Lsn,
    pub(crate) times: Vec<TimeStep>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) events: Vec<Event>,
}

/// What the shell shall do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Lay out and compress; answer with [`Done::Compressed`].
    Compress(Box<Segment>),
    /// Seal the head; answer with [`Done::Sealed`].
    Seal { seq: Seq, prev_header_hash: [u8; 32], acked_through: Lsn },
    /// Put the object, again and again until it is there; answer with [`Done::Put`].
    Put { seq: Seq },
    /// Look for the claim of the next epoch, starting now; answer with [`Done::ClaimSeen`].
    CheckClaim,
    /// Everything through this LSN is committed.
    Commit { through: Lsn },
    /// That many units of 512 bytes are free again.
    Release { units: u32 },
    /// Refresh the hint; no answer.
    Hint { seq: Seq },
    /// The log is over; nothing is acknowledged any more.
    Stop(Error),
}

/// What the shell did.
#[derive(Debug)]
pub(crate) enum Done {
    /// The segment's plaintext is gone; `stored_bytes` took its place.
    Compressed { seq: Seq, stored_bytes: u64 },
    /// The head is sealed.
    Sealed { seq: Seq, header_hash: [u8; 32] },
    /// The object is in the store.
    Put { seq: Seq },
    /// Another object is in the store under this key (F7).
    Collision,
    /// What the look at the next claim found.
    ClaimSeen { present: bool },
    /// The codec refused.
    Failed { seq: Seq, error: FormatError },
}

/// How far a segment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Compressing,
    Compressed,
    Sealing,
    Putting,
    Put,
}

/// A segment under way.
#[derive(Debug)]
struct InFlight {
    seq: Seq,
    first_lsn: Lsn,
    last_lsn: Lsn,
    opened_at: Duration,
    stage: Stage,
    /// Bytes that guests wrote in it.
    bytes: u64,
    /// Units held in memory for it.
    units: u32,
}

/// The segment that takes writes.
#[derive(Debug)]
struct Open {
    first_lsn: Lsn,
    opened_at: Duration,
    times: Vec<TimeStep>,
    entries: Vec<Entry>,
    events: Vec<Event>,
    bytes: u64,
    units: u32,
}

/// The log of one epoch.
#[derive(Debug)]
pub(crate) struct Log {
    limits: Limits,
    epoch: Epoch,
    tick_ns: u32,
    disks: DiskTable,
    next_lsn: Lsn,
    last_time: TimeNs,
    open: Option<Open>,
    /// Cut, but too many are under way.
    waiting: VecDeque<(Box<Segment>, InFlight)>,
    in_flight: VecDeque<InFlight>,
    next_seq: Seq,
    /// Hash of the last sealed header.
    header_hash: [u8; 32],
    committed: Lsn,
    committed_seq: Seq,
    packed: Packed,
    /// A look at the next claim is under way; it covers what was put through this segment when it began.
    checking: Option<Seq>,
    hinted_seq: Seq,
    closing: bool,
    stopped: Option<Error>,
    effects: VecDeque<Effect>,
}

impl Log {
    pub(crate) fn new(limits: Limits, start: Start) -> Self {
        Self {
            limits,
            epoch: start.epoch,
            tick_ns: start.tick_ns,
            disks: start.disks,
            next_lsn: start.next_lsn,
            last_time: start.last_time,
            open: None,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            next_seq: Seq::new(1),
            header_hash: start.header_hash,
            committed: Lsn::new(start.next_lsn.get() - 1),
            committed_seq: Seq::new(0),
            packed: Packed::default(),
            checking: None,
            hinted_seq: Seq::new(0),
            closing: false,
            stopped: None,
            effects: VecDeque::new(),
        }
    }

    pub(crate) fn disks(&self) -> &DiskTable {
        &self.disks
    }
    pub(crate) fn last_lsn(&self) -> Lsn {
        Lsn::new(self.next_lsn.get() - 1)
    }
    pub(crate) fn last_time(&self) -> TimeNs {
        self.last_time
    }
    pub(crate) fn committed(&self) -> Lsn {
        self.committed
    }
    pub(crate) fn committed_seq(&self) -> Seq {
        self.committed_seq
    }
    pub(crate) fn packed(&self) -> Packed {
        self.packed
    }
    pub(crate) fn stopped(&self) -> Option<&Error> {
        self.stopped.as_ref()
    }
    /// Nothing is open or under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_none() && self.waiting.is_empty() && self.in_flight.is_empty()
    }
    /// Bytes held for writes that are not committed yet.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        let under_way = self.in_flight.iter().chain(self.waiting.iter().map(|(_, state)| state));
        let units =
            under_way.map(|s| u64::from(s.units)).sum::<u64>() + self.open.as_ref().map_or(0, |o| o.units.into());
        units * BLOCK_BYTES
    }
    /// When the oldest write that is not committed came in.
    pub(crate) fn oldest_pending(&self) -> Option<Duration> {
        let first = self.in_flight.front().or(self.waiting.front().map(|(_, state)| state));
        first.map(|s| s.opened_at).or(self.open.as_ref().map(|open| open.opened_at))
    }
    /// Segments under way.
    pub(crate) fn in_flight_segments(&self) -> usize {
        self.in_flight.len()
    }

    /// When [`Self::tick`] has something to do.
    ///
    /// While as many segments are under way as may be, an old one gains nothing by being cut: it would only wait. So a
    /// store that is away for an hour gets one large segment afterwards, not hundreds of small ones.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let may_start = self.stopped.is_none() && self.in_flight.len() < self.limits.in_flight_segments_max;
        let open = self.open.as_ref().filter(|_| may_start)?;
        Some(open.opened_at.saturating_add(self.limits.segment_age_max))
    }

    pub(crate) fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// The next thing to do, if there is one. The shell drains them after every event.
    pub(crate) fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Says whether [`Self::submit`] would take it.
    pub(crate) fn admit(&self, what: &Submission) -> Result<()> {
        if let Some(stop) = &self.stopped {
            return Err(stop.clone());
        }
        if self.closing {
            return Err(Error::Closed);
        }
        match what {
            Submission::Write { disk, extent, .. } => self.disks.check(*disk, *extent),
            Submission::Event(_) => Ok(()),
        }
    }

    /// Says whether `what` continues this log at exactly `lsn`: it got that position elsewhere.
    pub(crate) fn admit_at(&self, lsn: Lsn, what: &Submission) -> Result<()> {
        if lsn != self.next_lsn {
            return Err(Error::NotNext { got: lsn, next: self.next_lsn });
        }
        match what {
            Submission::Write { .. } => Ok(()),
            Submission::Event(body) => self.disks.check_event(lsn, body),
        }
    }

    /// Gives a write or an event its LSN and time. `at` is the caller's own time for it, made monotone like any other.
    ///
    /// The order of calls is the order of LSNs, so of two overlapping writes the later call wins, wherever they meet.
    pub(crate) fn submit(&mut self, now: Now, at: Option<TimeNs>, what: Submission) -> Result<(Lsn, TimeNs)> {
        self.admit(&what)?;
        //= SPEC.md#order
        //# O-4
        let lsn = self.next_lsn;
        let time = floor_to_tick(at.unwrap_or(now.wall), self.tick_ns).max(self.last_time);
        let open = self.open.get_or_insert_with(|| Open {
            first_lsn: lsn,
            opened_at: now.monotonic,
            times: Vec::new(),
            entries: Vec::new(),
            events: Vec::new(),
            bytes: 0,
            units: 0,
        });
        if open.times.last().is_none_or(|step| step.time < time) {
            open.times.push(TimeStep { lsn, time });
        }
        open.bytes += what.bytes();
        open.units += what.units();
        match what {
            Submission::Write { disk, extent, body } => open.entries.push(Entry { lsn, disk, extent, body }),
            Submission::Event(body) => {
                let event = Event { lsn, body };
                self.disks.apply(&event).expect("events are checked against the table before they are submitted");
                open.events.push(event);
            }
        }
        // The second bound is for small writes: what they cost in memory, a waiting submitter must get back.
        let full = open.bytes >= self.limits.segment_bytes_max
            || u64::from(open.units) * BLOCK_BYTES >= 2 * self.limits.segment_bytes_max
            || open.entries.len() + open.events.len() >= self.limits.segment_entries_max;
        self.next_lsn = lsn.next();
        self.last_time = time;
        if full {
            self.cut();
        }
        self.check();
        Ok((lsn, time))
    }

    /// Cuts the open segment if it is old enough.
    pub(crate) fn tick(&mut self, now: Now) {
        if self.wake_at().is_some_and(|at| at <= now.monotonic) {
            self.cut();
            self.check();
        }
    }

    /// Cuts the open segment now, whatever its age and size.
    pub(crate) fn cut_now(&mut self) {
        if self.stopped.is_none() {
            self.cut();
            self.check();
        }
    }

    /// Takes no more writes; what is there is cut now and committed as usual.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.cut_now();
    }

    /// True once a closing log has committed everything.
    pub(crate) fn is_drained(&self) -> bool {
        self.closing && self.is_idle()
    }

    /// Takes in what the shell did.
    pub(crate) fn handle(&mut self, done: Done) {
        if self.stopped.is_some() {
            return;
        }
        match done {
            Done::Compressed { seq, stored_bytes } => {
                let state = self.under_way(seq, Stage::Compressing);
                state.stage = Stage::Compressed;
                // Compressed or raw, a segment takes no more than its plaintext did, but for its index.
                let kept = (stored_bytes.div_ceil(BLOCK_BYTES) as u32).min(state.units);
                let freed = state.units - kept;
                state.units = kept;
                let bytes = state.bytes;
                self.packed.plain_bytes += bytes;
                self.packed.stored_bytes += stored_bytes;
                self.release(freed);
            }
            Done::Sealed { seq, header_hash } => {
                self.under_way(seq, Stage::Sealing).stage = Stage::Putting;
                self.header_hash = header_hash;
                self.effects.push_back(Effect::Put { seq });
            }
            Done::Put { seq } => {
                let state = self.under_way(seq, Stage::Putting);
                state.stage = Stage::Put;
                let freed = std::mem::take(&mut state.units);
                self.release(freed);
            }
            //= SPEC.md#commit-rules
            //# F-7
            Done::Collision => self.stop(Error::Fenced { epoch: self.epoch, cause: FenceCause::EpochCollision }),
            Done::ClaimSeen { present: true } => {
                self.stop(Error::Fenced { epoch: self.epoch, cause: FenceCause::NewerClaim });
            }
            Done::ClaimSeen { present: false } => {
                let through = self.checking.take().expect("an answer follows its question");
                self.commit(through);
            }
            Done::Failed { seq, error } => {
                let key = tidemark_format::ObjectKey::Log { epoch: self.epoch, seq };
                self.stop(Error::Seal { key, source: error });
            }
        }
        self.advance();
        self.check();
    }

    /// Ends the log: whatever is not committed now never will be by this writer.
    pub(crate) fn stop(&mut self, why: Error) {
        self.stopped = Some(why.clone());
        self.effects.clear();
        self.effects.push_back(Effect::Stop(why));
    }

    fn release(&mut self, units: u32) {
        if units > 0 {
            self.effects.push_back(Effect::Release { units });
        }
    }

    fn under_way(&mut self, seq: Seq, expected: Stage) -> &mut InFlight {
        let state = self.in_flight.iter_mut().find(|s| s.seq == seq).expect("answers are about segments under way");
        assert!(state.stage == expected, "segment {seq} is {:?}, the answer is for {expected:?}", state.stage);
        state
    }

    fn cut(&mut self) {
        let Some(open) = self.open.take() else { return };
        let seq = self.next_seq;
        self.next_seq = seq.next();
        let last_lsn = self.last_lsn();
        let (first_lsn, opened_at, bytes, units) = (open.first_lsn, open.opened_at, open.bytes, open.units);
        let Open { times, entries, events, .. } = open;
        let segment = Box::new(Segment { seq, first_lsn, last_lsn, times, entries, events });
        let state = InFlight { seq, first_lsn, last_lsn, opened_at, stage: Stage::Compressing, bytes, units };
        self.waiting.push_back((segment, state));
        self.advance();
    }

    /// Starts whatever may start now.
    fn advance(&mut self) {
        if self.stopped.is_some() {
            return;
        }
        while self.in_flight.len() < self.limits.in_flight_segments_max {
            let Some((segment, state)) = self.waiting.pop_front() else { break };
            self.in_flight.push_back(state);
            self.effects.push_back(Effect::Compress(segment));
        }
        // Heads are sealed one after the other: each names the hash of the one before.
        let next = self.in_flight.iter_mut().find(|s| s.stage <= Stage::Sealing);
        if let Some(state) = next.filter(|s| s.stage == Stage::Compressed) {
            state.stage = Stage::Sealing;
            let (prev_header_hash, acked_through) = (self.header_hash, self.committed);
            self.effects.push_back(Effect::Seal { seq: state.seq, prev_header_hash, acked_through });
        }
        // Only now that these PUTs have ended may the look at the next claim begin.
        //= SPEC.md#commit-rules
        //# F-6
        let through = self.in_flight.iter().take_while(|s| s.stage == Stage::Put).last().map(|s| s.seq);
        if let Some(through) = through.filter(|_| self.checking.is_none()) {
            self.checking = Some(through);
            self.effects.push_back(Effect::CheckClaim);
        }
    }

    fn commit(&mut self, through: Seq) {
        while let Some(state) = self.in_flight.pop_front_if(|s| s.seq <= through) {
            assert!(state.stage == Stage::Put, "segment {} is committed while {:?}", state.seq, state.stage);
            self.committed = state.last_lsn;
            self.committed_seq = state.seq;
        }
        self.effects.push_back(Effect::Commit { through: self.committed });
        if self.committed_seq.get() >= self.hinted_seq.get() + self.limits.hint_every_segments {
            self.hinted_seq = self.committed_seq;
            self.effects.push_back(Effect::Hint { seq: self.committed_seq });
        }
    }

    /// What always holds between two events.
    fn check(&self) {
        assert!(self.committed < self.next_lsn, "lsn {} is committed before it was given", self.committed);
        assert!(self.last_time.get().is_multiple_of(self.tick_ns.into()), "time is not in whole ticks");
        assert!(self.in_flight.len() <= self.limits.in_flight_segments_max, "{} under way", self.in_flight.len());
        let (mut lsn, mut seq) = (self.committed, self.committed_seq);
        for state in self.in_flight.iter().chain(self.waiting.iter().map(|(_, state)| state)) {
            assert!(
                state.first_lsn == lsn.next(),
                "segment {} begins at {}, not behind {lsn}",
                state.seq,
                state.first_lsn
            );
            assert!(state.last_lsn >= state.first_lsn, "segment {} is empty", state.seq);
            assert!(state.seq == seq.next(), "segment {} follows {seq}", state.seq);
            (lsn, seq) = (state.last_lsn, state.seq);
        }
        assert!(self.next_seq == seq.next(), "segment {} is next after {seq}", self.next_seq);
        if let Some(open) = &self.open {
            assert!(open.first_lsn == lsn.next(), "the open segment begins at {}, not behind {lsn}", open.first_lsn);
            let held = (open.entries.len() + open.events.len()) as u64;
            assert!(open.first_lsn.count_to(self.last_lsn()) == held, "the open segment holds {held} entries");
        } else {
            assert!(lsn == self.last_lsn(), "lsn {} is nowhere", self.last_lsn());
        }
        if let Some(through) = self.checking.filter(|_| self.stopped.is_none()) {
            let put = self.in_flight.iter().take_while(|s| s.seq <= through).all(|s| s.stage == Stage::Put);
            assert!(put, "a claim check covers segment {through}, which is not put");
        }
        let sealing = self.in_flight.iter().filter(|s| s.stage == Stage::Sealing).count();
        assert!(sealing <= 1, "{sealing} heads are being sealed at once");
    }
}
