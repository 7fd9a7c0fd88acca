//! Finds the log of a domain: what to GET next, which tail is final. No LIST, no guess.
//!
//! The walk asks for claims until the newest is known, for the newest CUT at or below it, for the CUTs that this one
//! continues, for the segments that each names, and probes the newest epoch until a segment is proven absent. Only then
//! it asks for the next claim: if that is absent, nobody can cut what was seen, and the log is final to its end.
//! Otherwise it goes on from the new claim with all that it knows.
//!
//! Invariants: every want is answered exactly once; only [`Answer::Absent`] ends a log; a segment that another object
//! names, or that stands below an acknowledged LSN, is never taken for absent.

use crate::error::{Error, Result};
use crate::log::{Log, Segment};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tidemark_format::{Epoch, Lsn, ObjectKey, Seq};

/// An object that the walk needs to know about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Where it would be.
    pub key: ObjectKey,
    /// Somebody names it, so absence would be damage: worth asking more than once.
    pub must: bool,
}

/// What the bucket said.
#[derive(Debug)]
pub enum Answer {
    /// Proven not to be there.
    Absent,
    /// A claim, decoded.
    Claim,
    /// A CUT or a log segment, decoded.
    Head(Arc<Segment>),
    /// It is there, but it is not what it must be.
    Damaged(Error),
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// GET this, and go on asking for steps meanwhile.
    Ask(Want),
    /// Nothing before another answer is in.
    Wait,
    /// Call [`Walk::finish`].
    Done,
}

/// CUTs that are asked for at a time while epochs without one are skipped, or a long chain is followed.
const BATCH_MAX: u64 = 16;
/// Segments of the newest epoch that are asked for at a time.
const WINDOW_MAX: usize = 32;
/// How often a hole in front of later segments is asked for again: its PUT may have overtaken our GET.
const HOLE_ASKS_MAX: u32 = 3;
/// How many segments an owner has under way at most (SPEC.md F-5), so how far behind a lost one to look for others.
const IN_FLIGHT_MAX: u64 = 16;
/// How many takeovers during one walk are followed before the end of the log is called provisional.
const ROUNDS_MAX: u32 = 8;

#[derive(Debug)]
enum Phase {
    /// Looks for the newest claim.
    Claims,
    /// Looks for the newest CUT from epoch `next` downwards; those above `asked_to` have been asked for.
    Cuts {
        next: u64,
        asked_to: u64,
        batch: u64,
    },
    /// Follows the CUTs back to what is known.
    Chain {
        batch: u64,
    },
    /// Reads the segments of all new epochs.
    Segments,
    /// The tail was seen; the next claim has been asked for.
    Confirm,
    Done,
}

/// The probe of the newest epoch: asks for several segments at once until one is absent.
#[derive(Debug)]
struct Probe {
    epoch: Epoch,
    /// First segment that was not known before the walk.
    from: u64,
    next: u64,
    /// There is no room for this one and later ones.
    end: u64,
    window: usize,
    /// The hint says that segments exist up to here.
    sure_through: u64,
    /// An absent or damaged one was met.
    stopped: bool,
    hole_asks: u32,
    /// Segments behind the end were asked for up to here.
    looked_to: u64,
}

/// The search for the log. See the module.
#[derive(Debug)]
pub struct Walk {
    /// What was known before.
    base: Log,
    phase: Phase,
    queue: VecDeque<Want>,
    asked: HashSet<ObjectKey>,
    known: BTreeMap<(Epoch, Seq), Arc<Segment>>,
    damaged: HashMap<ObjectKey, Error>,
    /// Newest claim seen; a greater one that was absent; how far to leap.
    claim_lo: u64,
    claim_hi: Option<u64>,
    stride: u64,
    /// CUTs of the new epochs, newest first.
    chain: Vec<Arc<Segment>>,
    /// Segments of closed epochs still to ask for: epoch, next, last.
    closed: Vec<(Epoch, u64, u64)>,
    probe: Option<Probe>,
    hint: Option<(Epoch, Seq)>,
    hint_tried: bool,
    rounds: u32,
    /// New segments that may still be read, and whether more were there.
    room: u64,
    cut_short: bool,
}

impl Walk {
    /// A walk from nothing. `hint` says where the newest objects once were, and may lie.
    pub fn open(hint: Option<(Epoch, Seq)>) -> Self {
        Self {
            base: Log::default(),
            phase: Phase::Claims,
            queue: VecDeque::new(),
            asked: HashSet::new(),
            known: BTreeMap::new(),
            damaged: HashMap::new(),
            claim_lo: 0,
            claim_hi: None,
            stride: 1,
            chain: Vec::new(),
            closed: Vec::new(),
            probe: None,
            hint,
            hint_tried: false,
            rounds: 0,
            room: u64::MAX,
            cut_short: false,
        }
    }

    /// A walk from what is known already. If nothing happened it asks for the next segment and the next claim only.
    pub fn refresh(base: Log) -> Self {
        Self::resume(base, None)
    }

    /// As [`Self::refresh`], with a hint as in [`Self::open`].
    pub fn resume(base: Log, hint: Option<(Epoch, Seq)>) -> Self {
        let mut walk = Self::open(hint);
        walk.claim_lo = base.newest_claim.get();
        let newest_cut = base.epochs.last().map_or(0, |e| e.epoch.get());
        walk.base = base;
        if hint.is_some_and(|(epoch, _)| epoch.get() > walk.claim_lo) {
            walk.phase = Phase::Claims;
        } else if newest_cut > 0 && walk.claim_lo == newest_cut {
            walk.start_segments();
        } else if newest_cut > 0 {
            walk.phase = Phase::Cuts { next: walk.claim_lo, asked_to: walk.claim_lo, batch: 1 };
        }
        walk
    }

    /// Reads at most `segments` new segments, the oldest. If that is not all, only what is acknowledged in them is final.
    #[must_use]
    pub fn at_most(mut self, segments: u64) -> Self {
        assert!(segments > 0 && self.asked.is_empty(), "a walk of {segments} segments, or one that has begun");
        self.room = segments;
        if matches!(self.phase, Phase::Segments) {
            self.start_segments();
        }
        self
    }

    /// What to do next.
    ///
    /// # Errors
    /// Damage, and claims or CUTs that are missing.
    pub fn step(&mut self) -> Result<Step> {
        loop {
            if let Some(want) = self.queue.pop_front().or_else(|| self.next_segment()) {
                assert!(self.asked.insert(want.key), "{} is asked for twice at a time", want.key);
                return Ok(Step::Ask(want));
            }
            if !self.asked.is_empty() {
                return Ok(Step::Wait);
            }
            match self.phase {
                Phase::Claims => self.judge_claims()?,
                Phase::Cuts { next, asked_to, batch } => self.judge_cuts(next, asked_to, batch)?,
                Phase::Chain { batch } => self.judge_chain(batch)?,
                Phase::Segments => self.judge_segments()?,
                Phase::Confirm => self.judge_confirm(),
                Phase::Done => return Ok(Step::Done),
            }
        }
    }

    /// Takes in the answer to a want.
    ///
    /// # Errors
    /// Damage and absence that no log may have there.
    pub fn answer(&mut self, want: Want, answer: Answer) -> Result<()> {
        let key = want.key;
        assert!(self.asked.remove(&key), "an answer to {key} that nobody asked for");
        match (key, answer) {
            (_, Answer::Absent) if want.must => {
                return Err(Error::Missing { key, why: "what is written behind it is there".into() });
            }
            (ObjectKey::Claim { epoch, .. }, Answer::Absent) => {
                self.claim_hi = Some(self.claim_hi.map_or(epoch.get(), |hi| hi.min(epoch.get())));
            }
            (ObjectKey::Claim { epoch, .. }, Answer::Claim) => self.claim_lo = self.claim_lo.max(epoch.get()),
            (ObjectKey::Log { epoch, seq }, Answer::Head(segment)) => {
                self.known.insert((epoch, seq), segment);
                if let Some(probe) = self.probe.as_mut().filter(|p| p.epoch == epoch) {
                    probe.window = (probe.window * 2).min(WINDOW_MAX);
                }
            }
            (_, Answer::Damaged(error)) if want.must || matches!(key, ObjectKey::Claim { .. }) => return Err(error),
            (ObjectKey::Log { epoch, seq }, answer @ (Answer::Absent | Answer::Damaged(_))) => {
                if let Some(probe) = self.probe.as_mut().filter(|p| p.epoch == epoch && seq.get() > 0) {
                    probe.stopped = true;
                }
                if let Answer::Damaged(error) = answer {
                    self.damaged.insert(key, error);
                }
            }
            (key, answer) => return Err(Error::Chain { key, why: format!("it was answered with {answer:?}") }),
        }
        Ok(())
    }

    /// The log as found, every link checked.
    ///
    /// # Errors
    /// `Chain`, `Missing`, `Retracted`.
    pub fn finish(self) -> Result<Log> {
        assert!(matches!(self.phase, Phase::Done), "the walk has not ended");
        let mut log = self.joined()?;
        for (i, cut) in self.chain.iter().enumerate().rev() {
            let reached = log.tail().map(|tail| (tail.epoch, tail.seq.get()));
            if self.cut_short && tail_named_by(cut).is_some_and(|named| Some(named) != reached) {
                break;
            }
            log.push_cut(Arc::clone(cut))?;
            let last =
                i.checked_sub(1).map_or(u64::MAX, |newer| tail_named_by(&self.chain[newer]).map_or(0, |(_, seq)| seq));
            self.push_known(&mut log, last)?;
        }
        if self.chain.is_empty() {
            self.push_known(&mut log, u64::MAX)?;
        }
        self.check_hole(&log)?;
        log.more = self.cut_short;
        log.newest_claim = Epoch::new(self.claim_lo);
        let confirmed = self.claim_hi == Some(self.claim_lo + 1) && self.newest_epoch() == self.claim_lo;
        let (was, now) = (self.base.final_through, log.last_lsn());
        if now < was {
            return Err(Error::Retracted { was, now });
        }
        //= SPEC.md#reader-rules
        //#
        log.final_through = if confirmed { now } else { log.acked_through().min(now).max(was) };
        Ok(log)
    }

    /// The part of what was known before that the new chain continues.
    fn joined(&self) -> Result<Log> {
        let Some(oldest) = self.chain.last() else { return Ok(self.base.clone()) };
        let Some((epoch, seq)) = tail_named_by(oldest) else { return Ok(Log::default()) };
        let index = self.base.epochs.iter().position(|e| e.epoch == epoch);
        let index =
            index.ok_or_else(|| Error::Chain { key: oldest.key, why: "its predecessor was not read".into() })?;
        let mut log = self.base.truncated(index, Seq::new(seq)).ok_or_else(|| {
            let why = format!("it cuts epoch {epoch} behind segment {seq}, in front of what the index covers");
            Error::Chain { key: oldest.key, why }
        })?;
        self.push_known(&mut log, seq)?;
        Ok(log)
    }

    /// Appends what is known of the newest epoch of `log`, up to segment `last` or the first unknown one.
    fn push_known(&self, log: &mut Log, last: u64) -> Result<()> {
        while let Some(tail) = log.tail() {
            let Some(next) = tail.seq.checked_next().filter(|next| next.get() <= last) else { break };
            let Some(segment) = self.known.get(&(tail.epoch, next)) else { break };
            let open_ended = last == u64::MAX;
            let continues = tail.header_hash == segment.head.header.prev_header_hash;
            //= SPEC.md#reader-rules
            //#
            if open_ended && !continues {
                // What a clone of the owner left behind its collision; `check_hole` sees whether it was acknowledged.
                break;
            }
            log.push_segment(Arc::clone(segment))?;
        }
        Ok(())
    }

    /// A segment is absent in front of others, or does not continue the one before it. Above what was acknowledged, that is
    /// how parallel uploads and clones of an owner end; below, a segment was lost.
    fn check_hole(&self, log: &Log) -> Result<()> {
        let Some(tail) = log.tail() else { return Ok(()) };
        let Some(next) = tail.seq.checked_next() else { return Ok(()) };
        let behind = self.known.range((tail.epoch, next)..=(tail.epoch, Seq::new(u64::MAX)));
        let acked = behind.map(|(_, s)| s.head.header.acked_through).max().unwrap_or(Lsn::ZERO);
        //= SPEC.md#reader-rules
        //#
        if acked <= log.last_lsn() {
            return Ok(());
        }
        let key = ObjectKey::Log { epoch: tail.epoch, seq: next };
        let why = format!("lsn {acked} was acknowledged behind it");
        Err(match self.known.contains_key(&(tail.epoch, next)) {
            true => Error::Chain { key, why: format!("it does not continue {}, though {why}", tail.key()) },
            false => Error::Missing { key, why },
        })
    }

    /// The newest epoch that has a CUT; 0 if none has.
    fn newest_epoch(&self) -> u64 {
        let newest = self.chain.first().map(|cut| cut.head.header.identity.epoch);
        newest.or_else(|| self.base.epochs.last().map(|e| e.epoch)).map_or(0, Epoch::get)
    }

    fn want_claim(&mut self, number: u64) {
        self.queue.push_back(Want { key: ObjectKey::writer_claim(Epoch::new(number)), must: false });
    }

    /// Leaps upwards until a claim is absent, then bisects.
    fn judge_claims(&mut self) -> Result<()> {
        if let (false, Some((epoch, _))) = (std::mem::replace(&mut self.hint_tried, true), self.hint)
            && epoch.get() > 0
            && epoch.get() < u64::MAX
        {
            self.want_claim(epoch.get());
            self.want_claim(epoch.get() + 1);
            return Ok(());
        }
        match self.claim_hi {
            Some(hi) if hi <= self.claim_lo => self.want_lost_claim(hi),
            _ if self.claim_lo == u64::MAX => {
                let key = ObjectKey::writer_claim(Epoch::new(u64::MAX));
                return Err(Error::Chain { key, why: "no epoch can follow it".into() });
            }
            Some(hi) if hi == self.claim_lo + 1 => {
                // What would be written behind this claim: `judge_cuts` sees whether it is there.
                hi.checked_add(1).into_iter().for_each(|next| self.want_claim(next));
                self.want_cuts(self.claim_lo, hi, None);
                self.phase = Phase::Cuts { next: self.claim_lo, asked_to: self.claim_lo, batch: 1 };
                if self.claim_lo > 0 {
                    return self.judge_cuts(self.claim_lo, self.claim_lo, 1);
                }
            }
            Some(hi) => self.want_claim(self.claim_lo + (hi - self.claim_lo) / 2),
            None => {
                self.want_claim(self.claim_lo.saturating_add(self.stride));
                self.stride = self.stride.saturating_mul(2);
            }
        }
        Ok(())
    }

    /// Asks once more for a claim that was absent though there is something behind it: it may have come between the two.
    fn want_lost_claim(&mut self, number: u64) {
        self.claim_hi = None;
        self.queue.push_back(Want { key: ObjectKey::writer_claim(Epoch::new(number)), must: true });
    }

    fn judge_cuts(&mut self, next: u64, asked_to: u64, batch: u64) -> Result<()> {
        //= SPEC.md#reader-rules
        //#
        if let Some(hi) = self.claim_hi {
            let cut = (Epoch::new(hi), Seq::new(0));
            let has_cut = self.known.contains_key(&cut) || self.damaged.contains_key(&ObjectKey::cut(cut.0));
            if has_cut || hi <= self.claim_lo {
                (self.phase, self.stride) = (Phase::Claims, 1);
                self.want_lost_claim(hi);
                return Ok(());
            }
        }
        for number in (asked_to + 1..=next).rev() {
            let epoch = Epoch::new(number);
            if let Some(error) = self.damaged.remove(&ObjectKey::cut(epoch)) {
                return Err(error);
            }
            if let Some(cut) = self.known.get(&(epoch, Seq::new(0))) {
                self.chain = vec![Arc::clone(cut)];
                self.phase = Phase::Chain { batch: 1 };
                return Ok(());
            }
            //= SPEC.md#reader-rules
            //#
            // Nothing is written in front of a CUT: it was late, or it is lost.
            let first = ObjectKey::Log { epoch, seq: Seq::new(1) };
            if self.known.contains_key(&(epoch, Seq::new(1))) || self.damaged.contains_key(&first) {
                self.queue.push_back(Want { key: ObjectKey::cut(epoch), must: true });
                return Ok(());
            }
        }
        let floor = self.base.epochs.last().map_or(0, |e| e.epoch.get());
        if asked_to <= floor {
            self.start_segments();
            return Ok(());
        }
        let low = asked_to.saturating_sub(batch).max(floor);
        self.want_cuts(low, asked_to, None);
        // Their first segments too: one is needed anyway, and the others prove that no CUT was lost.
        for number in low + 1..=asked_to {
            let (epoch, seq) = (Epoch::new(number), Seq::new(1));
            if !self.known.contains_key(&(epoch, seq)) {
                self.queue.push_back(Want { key: ObjectKey::Log { epoch, seq }, must: false });
            }
        }
        self.phase = Phase::Cuts { next: asked_to, asked_to: low, batch: (batch * 2).min(BATCH_MAX) };
        Ok(())
    }

    /// Asks for the CUTs of epochs `low + 1 ..= high` as far as they are unknown.
    fn want_cuts(&mut self, low: u64, high: u64, must: Option<Epoch>) {
        for number in (low + 1..=high).rev() {
            let epoch = Epoch::new(number);
            if !self.known.contains_key(&(epoch, Seq::new(0))) {
                self.queue.push_back(Want { key: ObjectKey::cut(epoch), must: must == Some(epoch) });
            }
        }
    }

    fn judge_chain(&mut self, batch: u64) -> Result<()> {
        loop {
            let oldest = self.chain.last().expect("the chain begins with the newest cut");
            let Some((epoch, _)) = tail_named_by(oldest) else { break };
            if self.base.epochs.iter().any(|e| e.epoch == epoch) {
                break;
            }
            if let Some(error) = self.damaged.remove(&ObjectKey::cut(epoch)) {
                return Err(error);
            }
            let Some(cut) = self.known.get(&(epoch, Seq::new(0))) else {
                let floor = self.base.epochs.last().map_or(0, |e| e.epoch.get());
                let low = epoch.get().saturating_sub(batch).max(floor.min(epoch.get().saturating_sub(1)));
                self.want_cuts(low, epoch.get(), Some(epoch));
                self.phase = Phase::Chain { batch: (batch * 2).min(BATCH_MAX) };
                return Ok(());
            };
            self.chain.push(Arc::clone(cut));
        }
        self.start_segments();
        Ok(())
    }

    fn start_segments(&mut self) {
        self.phase = Phase::Segments;
        self.closed.clear();
        // Of the epoch that the chain joins, as many segments are known as it has.
        let joined = self.chain.last().and_then(tail_named_by);
        let in_base = |epoch: Epoch, base: &Log| {
            let at = base.epochs.iter().position(|e| e.epoch == epoch)?;
            let end = base.epochs.get(at + 1).map_or(base.segments.len(), |e| e.first);
            Some(base.epochs[at].link.seq.get() + (end - base.epochs[at].first) as u64)
        };
        if let Some((epoch, seq)) = joined
            && let Some(have) = in_base(epoch, &self.base)
        {
            self.closed.push((epoch, have + 1, seq));
        }
        for pair in self.chain.windows(2).rev() {
            let epoch = pair[1].head.header.identity.epoch;
            let last = tail_named_by(&pair[0]).map_or(0, |(_, seq)| seq);
            self.closed.push((epoch, 1, last));
        }
        // What there is no room for is left out, the newest first.
        let mut room = self.room;
        for (_, next, last) in &mut self.closed {
            let there = (*last + 1).saturating_sub(*next);
            if there > room {
                *last = *next + room - 1;
                self.cut_short = true;
            }
            room -= there.min(room);
        }
        self.closed.reverse();
        let newest = Epoch::new(self.newest_epoch());
        let from = if self.chain.is_empty() { in_base(newest, &self.base).unwrap_or(0) + 1 } else { 1 };
        let sure_through = self.hint.filter(|(epoch, _)| *epoch == newest).map_or(0, |(_, seq)| seq.get());
        self.probe = (newest.get() > 0).then_some(Probe {
            epoch: newest,
            from,
            next: from,
            end: u64::MAX,
            window: 1,
            sure_through,
            stopped: false,
            hole_asks: 0,
            looked_to: 0,
        });
        if self.cut_short {
            self.probe = None;
        } else if let Some(probe) = &mut self.probe {
            probe.end = probe.from.saturating_add(room);
        }
    }

    fn next_segment(&mut self) -> Option<Want> {
        if !matches!(self.phase, Phase::Segments) {
            return None;
        }
        while let Some((epoch, next, last)) = self.closed.last_mut() {
            if *next > *last {
                self.closed.pop();
                continue;
            }
            let (epoch, seq) = (*epoch, Seq::new(*next));
            *next += 1;
            if !self.known.contains_key(&(epoch, seq)) {
                return Some(Want { key: ObjectKey::Log { epoch, seq }, must: true });
            }
        }
        let probe = self.probe.as_mut()?;
        while self.known.contains_key(&(probe.epoch, Seq::new(probe.next))) {
            probe.next += 1;
        }
        let room = probe.next <= probe.sure_through || self.asked.len() < probe.window;
        if probe.stopped || !room || probe.next >= probe.end {
            return None;
        }
        let key = ObjectKey::Log { epoch: probe.epoch, seq: Seq::new(probe.next) };
        probe.next += 1;
        Some(Want { key, must: false })
    }

    fn judge_segments(&mut self) -> Result<()> {
        if let Some(probe) = self.probe.as_mut() {
            let mut missing = probe.from;
            while self.known.contains_key(&(probe.epoch, Seq::new(missing))) {
                missing += 1;
            }
            let key = ObjectKey::Log { epoch: probe.epoch, seq: Seq::new(missing) };
            if let Some(error) = self.damaged.remove(&key) {
                return Err(error);
            }
            //= SPEC.md#reader-rules
            //#
            // One look at the log of an epoch that is new to this reader: polls of a log that it knows do not pay for it.
            let look_to = missing.saturating_add(IN_FLIGHT_MAX);
            self.cut_short = missing >= probe.end;
            if !self.cut_short && !self.chain.is_empty() && probe.looked_to < look_to {
                for seq in (missing + 1).max(probe.next).max(probe.looked_to + 1)..=look_to {
                    let key = ObjectKey::Log { epoch: probe.epoch, seq: Seq::new(seq) };
                    self.queue.push_back(Want { key, must: false });
                }
                probe.looked_to = look_to;
                return Ok(());
            }
            let behind = (probe.epoch, Seq::new(missing))..=(probe.epoch, Seq::new(u64::MAX));
            if self.known.range(behind).next().is_some() && probe.hole_asks < HOLE_ASKS_MAX {
                (probe.stopped, probe.next, probe.window) = (false, missing, 1);
                probe.hole_asks += 1;
                return Ok(());
            }
        }
        if self.cut_short || self.newest_epoch() != self.claim_lo || self.claim_lo == 0 || self.rounds >= ROUNDS_MAX {
            self.claim_hi = None;
            self.phase = Phase::Done;
        } else {
            // What was seen of this claim before the tail was read proves nothing.
            self.claim_hi = None;
            self.want_claim(self.claim_lo + 1);
            self.phase = Phase::Confirm;
        }
        Ok(())
    }

    fn judge_confirm(&mut self) {
        if self.claim_hi.is_some() {
            self.phase = Phase::Done;
            return;
        }
        (self.phase, self.stride, self.probe) = (Phase::Claims, 1, None);
        self.rounds += 1;
        self.chain.clear();
        self.closed.clear();
    }
}

/// Epoch and segment that a CUT continues.
fn tail_named_by(cut: &Arc<Segment>) -> Option<(Epoch, u64)> {
    cut.head.cut.as_ref()?.predecessor.map(|tail| (tail.epoch, tail.seq.get()))
}
