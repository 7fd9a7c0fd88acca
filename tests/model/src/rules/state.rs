//! One state of the model, and every step that leads out of it.
//!
//! A step is one request to the store: requests are atomic, and everything that a writer does in its own memory between
//! two requests happens with the first of them. A PUT that lands late is a writer that takes its step late.

use super::{Rule, Scenario, history};

/// Claims, and so epochs, at most: 3 writers and 2 abandoned claims.
pub(super) const EPOCHS: usize = 5;
/// Segments that one writer writes at most.
pub(super) const SEGMENTS: usize = 3;
/// LSNs at most; one segment carries one LSN.
pub(super) const LSNS: usize = EPOCHS * SEGMENTS + 1;
/// PUTs that may be on their way at once.
const IN_FLIGHT: usize = 2;
/// The nonce in a claim that nobody will ever use.
const NOBODY: u8 = u8::MAX;
pub(super) const WRITERS: usize = 3;

/// A log object. `by` stands for its hash: a writer puts at most one byte string under each key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Object {
    /// Its writer, from 1; 0 where there is no object.
    pub(super) by: u8,
    /// `by` of the object before it in the chain; for a CUT, of its predecessor's tail.
    pub(super) prev_by: u8,
    /// The LSN of a segment; the next LSN of a CUT.
    pub(super) lsn: u8,
    /// Acknowledged through this LSN when it was made.
    pub(super) acked_through: u8,
    /// CUT: the epoch it continues, 0 for none.
    pub(super) pred: u8,
    /// CUT: where that epoch ends.
    pub(super) tail: u8,
}

/// Everything in the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Store {
    /// Nonce in claim e at index e - 1; 0 = absent.
    pub(super) claims: [u8; EPOCHS],
    /// Epoch e at index e - 1, seq as second index.
    pub(super) log: [[Object; SEGMENTS + 1]; EPOCHS],
}

impl Store {
    pub(super) fn newest_claim(&self) -> u8 {
        self.claims.iter().take_while(|c| **c != 0).count() as u8
    }
    pub(super) fn claimed(&self, epoch: u8) -> bool {
        self.claims.get(epoch as usize - 1).is_some_and(|c| *c != 0)
    }
    pub(super) fn object(&self, epoch: u8, seq: u8) -> Object {
        self.log.get(epoch as usize - 1).and_then(|e| e.get(seq as usize)).copied().unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    #[default]
    Idle,
    /// Wants to create claim `n`.
    Claim,
    /// Has sent it and got no answer.
    Unclear,
    /// Looks for the newest epoch at or below `n` that has a CUT.
    FindPredecessor,
    /// Follows epoch `pred`; `tail` is the last segment seen.
    Probe,
    PutCut,
    Recheck,
    Work,
    Stopped,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Writer {
    pub(super) phase: Phase,
    /// Written into its claim; a clone has its original's.
    nonce: u8,
    pub(super) epoch: u8,
    pub(super) n: u8,
    pub(super) pred: u8,
    pub(super) tail: u8,
    tail_by: u8,
    pub(super) next_lsn: u8,
    /// Bit s: the PUT of seq s has finished.
    landed: u8,
    /// `by` of what it believes to have put under each seq of its epoch.
    chain: [u8; SEGMENTS + 1],
    /// Without [`Rule::CheckAfterPuts`]: highest seq covered by a check that came too early.
    covered: u8,
    /// Highest seq acknowledged.
    acked: u8,
}

impl Writer {
    /// Highest seq below which no PUT is missing.
    fn prefix(&self) -> u8 {
        (1..=SEGMENTS as u8).take_while(|s| self.landed & (1 << s) != 0).count() as u8
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum ReaderPhase {
    #[default]
    Idle,
    FindCut,
    Tail,
    Recheck,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reader {
    pub(super) phase: ReaderPhase,
    pub(super) newest_claim: u8,
    pub(super) epoch: u8,
    pub(super) tail: u8,
    /// What it called final: content by LSN.
    fixed: [u8; LSNS],
}

/// The bucket, every actor's memory, and what was promised to guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) store: Store,
    pub(super) writers: [Writer; WRITERS],
    pub(super) reader: Reader,
    abandoned: u8,
    cloned: bool,
    /// Ghost: whose content was acknowledged at each LSN; 0 = none.
    promised: [u8; LSNS],
    /// Ghost: newest epoch that acknowledged anything.
    promised_epoch: u8,
}

/// One step of one actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Somebody claims the next epoch and vanishes.
    Abandon,
    /// The next request of a writer that has only one to choose from.
    Step(u8),
    /// A writer's claim is created, the answer is lost.
    LoseAnswer(u8),
    /// A writer's PUT of a segment lands.
    Land(u8, u8),
    /// A writer looks at the next claim.
    Check(u8),
    /// A writer is copied into the last free place.
    Clone(u8),
    /// The reader's next request.
    Read,
}

impl State {
    /// Before anybody did anything.
    pub fn start(_: &Scenario) -> Self {
        let mut writers = [Writer::default(); WRITERS];
        for (i, writer) in writers.iter_mut().enumerate() {
            writer.nonce = i as u8 + 1;
        }
        Self {
            store: Store::default(),
            writers,
            reader: Reader::default(),
            abandoned: 0,
            cloned: false,
            promised: [0; LSNS],
            promised_epoch: 0,
        }
    }

    /// Two independent 64-bit hashes.
    pub(super) fn fingerprint(&self) -> u128 {
        use std::hash::{Hash, Hasher};
        let mut hasher = Mixer(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);
        self.hash(&mut hasher);
        let low = hasher.finish();
        u128::from(low) | u128::from(mix(hasher.1 ^ low.rotate_left(32))) << 64
    }

    /// Lists what may happen next.
    pub(super) fn actions(&self, scenario: &Scenario, out: &mut Vec<Action>) {
        if self.abandoned < scenario.abandoned_claims && (self.store.newest_claim() as usize) < EPOCHS {
            out.push(Action::Abandon);
        }
        for (i, writer) in self.writers.iter().enumerate() {
            let w = i as u8;
            // Writers are alike until they start, so they start in order: states that differ by a swap are one.
            let idle = writer.phase == Phase::Idle;
            if idle && (w >= scenario.writers || (i > 0 && self.writers[i - 1].phase == Phase::Idle)) {
                continue;
            }
            match writer.phase {
                Phase::Stopped => continue,
                Phase::Work => {
                    let last = scenario.segments.min(writer.prefix() + IN_FLIGHT as u8);
                    out.extend((1..=last).filter(|s| writer.landed & (1 << s) == 0).map(|s| Action::Land(w, s)));
                    // A check that would cover nothing new still fences; but then so does the next one that covers.
                    if scenario.has(Rule::AckAfterCheck)
                        && (writer.landed >> 1 >= 1 << writer.acked || !scenario.has(Rule::CheckAfterPuts))
                    {
                        out.push(Action::Check(w));
                    }
                }
                Phase::Claim => out.extend([Action::Step(w), Action::LoseAnswer(w)]),
                _ => out.push(Action::Step(w)),
            }
            if scenario.clone && !self.cloned && !idle {
                out.push(Action::Clone(w));
            }
        }
        if scenario.reader && self.reader.phase != ReaderPhase::Done {
            out.push(Action::Read);
        }
    }

    /// Takes one step; an error is a promise broken by the step itself.
    pub(super) fn apply(&mut self, scenario: &Scenario, action: Action) -> Result<(), String> {
        match action {
            Action::Abandon => {
                self.abandoned += 1;
                self.store.claims[self.store.newest_claim() as usize] = NOBODY;
                Ok(())
            }
            Action::Step(w) => self.step(scenario, w),
            Action::LoseAnswer(w) => {
                self.put_claim(scenario, w);
                self.writers[w as usize].phase = Phase::Unclear;
                Ok(())
            }
            Action::Land(w, seq) => self.land(scenario, w, seq),
            Action::Check(w) => self.check(scenario, w),
            Action::Clone(w) => {
                self.cloned = true;
                self.writers[WRITERS - 1] = self.writers[w as usize];
                Ok(())
            }
            Action::Read => {
                self.read(scenario);
                Ok(())
            }
        }
    }

    fn step(&mut self, scenario: &Scenario, w: u8) -> Result<(), String> {
        let me = w + 1;
        let mut writer = self.writers[w as usize];
        match writer.phase {
            Phase::Idle => {
                writer.n = self.store.newest_claim();
                if scenario.has(Rule::ClaimBeforeProbe) {
                    writer.n += 1;
                    writer.phase = Phase::Claim;
                } else {
                    writer.phase = Phase::FindPredecessor;
                    writer.next_lsn = 1;
                }
            }
            Phase::Claim => {
                if self.put_claim(scenario, w) {
                    writer = claimed(scenario, writer);
                } else {
                    writer.n += 1;
                    writer.phase = if writer.n as usize > EPOCHS { Phase::Stopped } else { Phase::Claim };
                }
            }
            Phase::Unclear => match self.store.claims[writer.n as usize - 1] {
                0 => writer.phase = Phase::Claim,
                nonce if nonce == writer.nonce => writer = claimed(scenario, writer),
                _ => {
                    writer.n += 1;
                    writer.phase = if writer.n as usize > EPOCHS { Phase::Stopped } else { Phase::Claim };
                }
            },
            Phase::FindPredecessor => {
                let cut = if writer.n == 0 { Object::default() } else { self.store.object(writer.n, 0) };
                if cut.by != 0 {
                    writer.pred = writer.n;
                    writer.tail = 0;
                    writer.tail_by = cut.by;
                    writer.next_lsn = cut.lsn;
                    writer.phase = Phase::Probe;
                } else if writer.n <= 1 {
                    writer = self.probed(scenario, writer);
                } else {
                    writer.n -= 1;
                }
            }
            Phase::Probe => {
                let next = self.store.object(writer.pred, writer.tail + 1);
                if next.by != 0 && (next.prev_by == writer.tail_by || !scenario.has(Rule::HashChain)) {
                    writer.tail += 1;
                    writer.tail_by = next.by;
                    writer.next_lsn = next.lsn + 1;
                } else {
                    let beyond = (writer.tail + 1..=SEGMENTS as u8).map(|seq| self.store.object(writer.pred, seq));
                    if let Some(lost) = beyond.filter(|o| o.by != 0).find(|o| o.acked_through >= writer.next_lsn) {
                        let (epoch, through) = (writer.pred, lost.acked_through);
                        return Err(format!(
                            "a segment behind the tail of epoch {epoch} proves acks through lsn {through}"
                        ));
                    }
                    writer = self.probed(scenario, writer);
                }
            }
            Phase::PutCut => {
                let cut = Object {
                    by: me,
                    prev_by: writer.tail_by,
                    lsn: writer.next_lsn,
                    // It has not been checked yet that no newer writer saw another tail.
                    acked_through: if scenario.has(Rule::CutIsNoProof) { 0 } else { writer.next_lsn - 1 },
                    pred: writer.pred,
                    tail: writer.tail,
                };
                let next = if scenario.has(Rule::CutRecheck) { Phase::Recheck } else { Phase::Work };
                writer.chain[0] = me;
                writer.phase = if self.put(scenario, writer.epoch, 0, cut) { next } else { Phase::Stopped };
            }
            Phase::Recheck => {
                writer.phase = if self.store.claimed(writer.epoch + 1) { Phase::Stopped } else { Phase::Work };
            }
            Phase::Work | Phase::Stopped => unreachable!("no single next step while {:?}", writer.phase),
        }
        self.writers[w as usize] = writer;
        Ok(())
    }

    /// The tail is known: on to the CUT, or, in the wrong order, to the claim.
    fn probed(&self, scenario: &Scenario, mut writer: Writer) -> Writer {
        writer.phase = Phase::PutCut;
        if !scenario.has(Rule::ClaimBeforeProbe) {
            writer.n = self.store.newest_claim() + 1;
            writer.phase = if writer.n as usize > EPOCHS { Phase::Stopped } else { Phase::Claim };
        }
        writer
    }

    /// True if the claim is this writer's afterwards.
    fn put_claim(&mut self, scenario: &Scenario, w: u8) -> bool {
        let writer = &self.writers[w as usize];
        let claim = &mut self.store.claims[writer.n as usize - 1];
        if *claim == 0 || !scenario.has(Rule::AtomicClaims) {
            *claim = writer.nonce;
        }
        *claim == writer.nonce
    }

    /// False if another object was in the way.
    fn put(&mut self, scenario: &Scenario, epoch: u8, seq: u8, object: Object) -> bool {
        let place = &mut self.store.log[epoch as usize - 1][seq as usize];
        if place.by == 0 || !scenario.has(Rule::SegmentCreate) {
            *place = object;
        }
        place.by == object.by
    }

    fn land(&mut self, scenario: &Scenario, w: u8, seq: u8) -> Result<(), String> {
        let me = w + 1;
        let mut writer = self.writers[w as usize];
        let lsn = writer.next_lsn + seq - 1;
        let acked_through = writer.next_lsn + writer.acked - 1;
        // Its bytes name the hash of the one before, so with it everything before it is frozen too.
        for frozen in writer.chain[1..=seq as usize].iter_mut().filter(|by| **by == 0) {
            *frozen = me;
        }
        let (by, prev_by) = (writer.chain[seq as usize], writer.chain[seq as usize - 1]);
        let object = Object { by, prev_by, lsn, acked_through, pred: 0, tail: 0 };
        if !self.put(scenario, writer.epoch, seq, object) {
            writer.phase = Phase::Stopped;
        } else {
            writer.landed |= 1 << seq;
        }
        self.writers[w as usize] = writer;
        if writer.phase == Phase::Stopped {
            return Ok(());
        }
        if !scenario.has(Rule::AckAfterCheck) {
            self.acknowledge(w, writer.prefix())?;
        } else if !scenario.has(Rule::CheckAfterPuts) {
            self.acknowledge(w, writer.prefix().min(writer.covered))?;
        }
        Ok(())
    }

    fn check(&mut self, scenario: &Scenario, w: u8) -> Result<(), String> {
        let mut writer = self.writers[w as usize];
        if self.store.claimed(writer.epoch + 1) {
            self.writers[w as usize].phase = Phase::Stopped;
            return Ok(());
        }
        if !scenario.has(Rule::CheckAfterPuts) {
            writer.covered = scenario.segments.min(writer.prefix() + IN_FLIGHT as u8);
            self.writers[w as usize] = writer;
        }
        let through = writer.prefix();
        if !scenario.has(Rule::AckPrefix) {
            for seq in (1..=SEGMENTS as u8).filter(|s| writer.landed & (1 << s) != 0) {
                self.promise(w, seq)?;
            }
        }
        self.acknowledge(w, through)
    }

    fn acknowledge(&mut self, w: u8, through: u8) -> Result<(), String> {
        for seq in self.writers[w as usize].acked + 1..=through {
            self.promise(w, seq)?;
            self.writers[w as usize].acked = seq;
        }
        Ok(())
    }

    fn promise(&mut self, w: u8, seq: u8) -> Result<(), String> {
        let writer = &self.writers[w as usize];
        let lsn = writer.next_lsn + seq - 1;
        let content = writer.chain[seq as usize];
        let promised = &mut self.promised[lsn as usize];
        if *promised != 0 && *promised != content {
            return Err(format!(
                "lsn {lsn} was acknowledged by writer {promised} and again, as another write, by {}",
                w + 1
            ));
        }
        if writer.epoch < self.promised_epoch {
            let newer = self.promised_epoch;
            return Err(format!("epoch {} acknowledged lsn {lsn} after epoch {newer} had begun to", writer.epoch));
        }
        *promised = content;
        self.promised_epoch = writer.epoch;
        Ok(())
    }

    fn read(&mut self, scenario: &Scenario) {
        let mut reader = self.reader;
        match reader.phase {
            ReaderPhase::Idle => {
                reader.newest_claim = self.store.newest_claim();
                reader.epoch = reader.newest_claim;
                reader.phase = if reader.epoch == 0 { ReaderPhase::Done } else { ReaderPhase::FindCut };
            }
            ReaderPhase::FindCut => {
                if self.store.object(reader.epoch, 0).by != 0 {
                    reader.phase = ReaderPhase::Tail;
                } else {
                    reader.epoch -= 1;
                    if reader.epoch == 0 {
                        reader.phase = ReaderPhase::Done;
                    }
                }
            }
            ReaderPhase::Tail => {
                let (last, next) =
                    (self.store.object(reader.epoch, reader.tail), self.store.object(reader.epoch, reader.tail + 1));
                if next.by != 0 && (next.prev_by == last.by || !scenario.has(Rule::HashChain)) {
                    reader.tail += 1;
                } else {
                    reader.phase = ReaderPhase::Recheck;
                }
            }
            ReaderPhase::Recheck => {
                let fenced = scenario.has(Rule::ReaderRecheck) && self.store.claimed(reader.newest_claim + 1);
                let other = scenario.has(Rule::ReaderOwnEpoch) && reader.epoch != reader.newest_claim;
                let log = history::walk(&self.store, scenario, reader.epoch, Some(reader.tail));
                let through = if fenced || other { log.acked_through as usize } else { LSNS - 1 };
                reader.fixed[..=through].copy_from_slice(&log.content[..=through]);
                reader.phase = ReaderPhase::Done;
            }
            ReaderPhase::Done => unreachable!("a reader reads once"),
        }
        self.reader = reader;
    }

    /// What is broken here, judged by what any future writer or reader finds.
    pub(super) fn violation(&self, scenario: &Scenario) -> Option<String> {
        let newest = (1..=EPOCHS as u8).rev().find(|e| self.store.object(*e, 0).by != 0);
        let log = match newest {
            Some(epoch) => history::walk(&self.store, scenario, epoch, None),
            None => history::Log::default(),
        };
        if let Some(broken) = log.broken {
            return Some(broken);
        }
        for (lsn, (promised, found)) in self.promised.iter().zip(&log.content).enumerate() {
            if *promised != 0 && promised != found {
                return Some(match found {
                    0 => format!("lsn {lsn}, acknowledged to a guest of writer {promised}, is lost"),
                    _ => {
                        format!("lsn {lsn}, acknowledged to a guest of writer {promised}, now holds a write of {found}")
                    }
                });
            }
        }
        for (lsn, (fixed, found)) in self.reader.fixed.iter().zip(&log.content).enumerate() {
            if *fixed != 0 && fixed != found {
                return Some(format!("lsn {lsn} was final for a reader with a write of {fixed}, now it has {found}"));
            }
        }
        None
    }
}

/// The claim is ours: what comes next depends on whether the probe is already behind us.
fn claimed(scenario: &Scenario, mut writer: Writer) -> Writer {
    writer.epoch = writer.n;
    if scenario.has(Rule::ClaimBeforeProbe) {
        writer.n -= 1;
        writer.next_lsn = 1;
        writer.phase = Phase::FindPredecessor;
    } else {
        writer.phase = Phase::PutCut;
    }
    writer
}

struct Mixer(u64, u64);

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Mixer {
    fn add(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.1 = (self.1.rotate_left(23) ^ value).wrapping_mul(0x9fb2_1c65_1e98_df25);
    }
}

impl std::hash::Hasher for Mixer {
    fn finish(&self) -> u64 {
        mix(self.0)
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.add(u64::from(value));
    }
    fn write_isize(&mut self, value: isize) {
        self.add(value as u64);
    }
    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }
}
