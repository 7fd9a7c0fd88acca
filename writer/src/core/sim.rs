//! Drives the real cores of several writers over one fake store, one request at a time, in random order.
//!
//! Every request may lose its answer, every writer may stall for good, and new writers come at any time. In the end a
//! last writer opens the domain, and what was acknowledged has to be there. One seed decides everything.

use super::log::{Done, Effect, Limits, Log, Segment, Submission};
use super::opening::{Answer, Inputs, Opening, Request};
use super::{Now, disks::DiskTable};
use crate::error::Error;
use std::collections::BTreeMap;
use std::time::Duration;
use tidemark_env::{Entropy, SeededEntropy};
use tidemark_format::{
    ClaimMode, DomainId, Epoch, ErrorKind, EventBody, Expect, Level, Lsn, ObjectKey, Role, SegmentDraft, SegmentHead,
    SegmentIdentity, SegmentKind, Seq, TimeNs, seal_segment,
};

const DOMAIN: DomainId = DomainId::new([7; 16]);
const NOW: Now = Now { wall: TimeNs::new(1_795_000_000_000_000_000), monotonic: Duration::ZERO };

type Store = BTreeMap<ObjectKey, Vec<u8>>;

struct Dice(SeededEntropy);

impl Dice {
    fn below(&self, n: usize) -> usize {
        (self.0.number() % n as u64) as usize
    }
    fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// One writer.
struct Actor {
    stage: Stage,
    /// By LSN.
    submitted: BTreeMap<Lsn, String>,
    acked: Lsn,
    first: Lsn,
}

enum Stage {
    Opening(Box<Opening>),
    Working(Box<Working>),
    Over,
}

struct Working {
    log: Log,
    epoch: Epoch,
    /// Requests and computations under way.
    tasks: Vec<Task>,
    segments: BTreeMap<Seq, Segment>,
    frozen: BTreeMap<Seq, Vec<u8>>,
    /// What was in the store when a claim check began: nothing beyond it may be committed by that check.
    committed: Lsn,
}

enum Task {
    Compress(Seq),
    Seal(Seq, [u8; 32], Lsn),
    Put(Seq),
    Check,
}

impl Actor {
    fn new(dice: &Dice) -> Self {
        let inputs = Inputs {
            domain: DOMAIN,
            owner: "sim".into(),
            mode: ClaimMode::Cas,
            nonce: dice.0.nonce(),
            salt: [1; 32],
            wall: NOW.wall,
        };
        let stage = Stage::Opening(Box::new(Opening::new(inputs)));
        Self { stage, submitted: BTreeMap::new(), acked: Lsn::ZERO, first: Lsn::ZERO }
    }

    /// One step: one request, or one submission.
    fn step(&mut self, store: &mut Store, dice: &Dice, name: &str) {
        match &mut self.stage {
            Stage::Over => {}
            Stage::Opening(opening) => {
                let request = opening.next().expect("an opening that is done works");
                if let Some(answer) = answer(request, store, dice)
                    && let Err(e) = opening.answer(answer)
                {
                    assert_eq!(e.kind(), ErrorKind::Fenced, "{e}");
                    self.stage = Stage::Over;
                    return;
                }
                if opening.next().is_none() {
                    let Stage::Opening(opening) = std::mem::replace(&mut self.stage, Stage::Over) else {
                        unreachable!()
                    };
                    let start = opening.start().expect("it is done");
                    (self.first, self.acked) = (start.next_lsn, Lsn::new(start.next_lsn.get() - 1));
                    let limits = Limits {
                        segment_bytes_max: 1 << 20,
                        segment_entries_max: 1 + dice.below(3),
                        segment_age_max: Duration::from_secs(1),
                        in_flight_segments_max: 1 + dice.below(4),
                        hint_every_segments: 1,
                    };
                    let epoch = start.epoch;
                    let log = Log::new(limits, start);
                    let (tasks, segments, frozen) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
                    let working = Working { log, epoch, tasks, segments, frozen, committed: self.acked };
                    self.stage = Stage::Working(Box::new(working));
                }
            }
            Stage::Working(working) => {
                if working.tasks.is_empty() || dice.one_in(3) {
                    let name = format!("{name}/{}", working.log.last_lsn().next());
                    let body = EventBody::Bookmark { name: name.clone(), level: Level::Crash };
                    match working.log.submit(NOW, None, Submission::Event(body)) {
                        Ok((lsn, _)) => self.submitted.insert(lsn, name),
                        Err(_) => return self.stage = Stage::Over,
                    };
                    if dice.one_in(4) {
                        working.log.cut_now();
                    }
                } else {
                    let task = working.tasks.swap_remove(dice.below(working.tasks.len()));
                    working.run(task, store, dice);
                }
                if working.drain(store) {
                    self.acked = working.committed;
                    return self.stage = Stage::Over;
                }
                self.acked = working.committed;
            }
        }
    }
}

impl Working {
    fn run(&mut self, task: Task, store: &mut Store, dice: &Dice) {
        match task {
            Task::Compress(seq) => self.log.handle(Done::Compressed { seq, stored_bytes: 0 }),
            Task::Seal(seq, prev_header_hash, acked_through) => {
                let segment = &self.segments[&seq];
                let (kind, role, epoch) = (SegmentKind::Log, Role::Writer, self.epoch);
                let head = seal_segment(&SegmentDraft {
                    identity: SegmentIdentity { domain: DOMAIN, kind, role, epoch, seq },
                    first_lsn: segment.first_lsn,
                    last_lsn: segment.last_lsn,
                    acked_through,
                    prev_header_hash,
                    salt: [2; 32],
                    tick_ns: 1_000_000,
                    times: &segment.times,
                    rows: &[],
                    events: &segment.events,
                    frames: &[],
                })
                .unwrap();
                self.frozen.insert(seq, head.bytes);
                self.log.handle(Done::Sealed { seq, header_hash: head.header_hash });
            }
            Task::Put(seq) => {
                let bytes = &self.frozen[&seq];
                // The request is lost, or applied; the answer is lost, or comes.
                if dice.one_in(5) {
                    return self.tasks.push(Task::Put(seq));
                }
                let stored = store.entry(ObjectKey::Log { epoch: self.epoch, seq }).or_insert_with(|| bytes.clone());
                assert!(stored == bytes, "epochs collide");
                if dice.one_in(5) {
                    return self.tasks.push(Task::Put(seq));
                }
                self.log.handle(Done::Put { seq });
            }
            Task::Check => {
                if dice.one_in(5) {
                    return self.tasks.push(Task::Check);
                }
                let present = store.contains_key(&ObjectKey::writer_claim(self.epoch.next()));
                self.log.handle(Done::ClaimSeen { present });
            }
        }
    }

    /// True if the log has stopped.
    fn drain(&mut self, store: &Store) -> bool {
        while let Some(effect) = self.log.poll() {
            match effect {
                Effect::Compress(segment) => {
                    self.tasks.push(Task::Compress(segment.seq));
                    self.segments.insert(segment.seq, *segment);
                }
                Effect::Seal { seq, prev_header_hash, acked_through } => {
                    self.tasks.push(Task::Seal(seq, prev_header_hash, acked_through));
                }
                Effect::Put { seq } => self.tasks.push(Task::Put(seq)),
                Effect::CheckClaim => self.tasks.push(Task::Check),
                Effect::Commit { through } => {
                    for segment in self.segments.values().filter(|s| s.last_lsn <= through) {
                        let key = ObjectKey::Log { epoch: self.epoch, seq: segment.seq };
                        assert!(store.contains_key(&key), "{key} is committed but was never put");
                    }
                    self.committed = through;
                }
                Effect::Release { .. } | Effect::Hint { .. } => {}
                Effect::Stop(_) => return true,
            }
        }
        false
    }
}

/// Performs a request; `None` if it is lost, or its answer, and will be sent again.
fn answer(request: Request, store: &mut Store, dice: &Dice) -> Option<Answer> {
    let lost = dice.one_in(8);
    Some(match request {
        Request::Get(key) => match store.get(&key) {
            _ if lost => return None,
            Some(bytes) => Answer::Found(bytes.clone()),
            None => Answer::Absent,
        },
        Request::Create(key, bytes) => {
            if lost && dice.one_in(2) {
                return Some(Answer::Unclear);
            }
            let new = !store.contains_key(&key);
            store.entry(key).or_insert(bytes);
            match (lost, new) {
                (true, _) => Answer::Unclear,
                (false, true) => Answer::Created,
                (false, false) => Answer::Exists,
            }
        }
        Request::Head(epoch, seq) => {
            let key = ObjectKey::Log { epoch, seq };
            match store.get(&key) {
                _ if lost => return None,
                Some(bytes) => {
                    Answer::Head(Box::new(SegmentHead::decode(bytes, &Expect { domain: DOMAIN, key }).unwrap()))
                }
                None => Answer::Absent,
            }
        }
        Request::PutCut(key, bytes) => {
            let stored = store.entry(key).or_insert_with(|| bytes.clone());
            match (*stored == bytes, lost) {
                (false, _) => Answer::Collision,
                (true, true) => return None,
                (true, false) => Answer::Put,
            }
        }
    })
}

/// The bookmarks of the log that ends in the CUT of `epoch`, by LSN.
fn read_back(store: &Store, epoch: Epoch) -> BTreeMap<Lsn, String> {
    let head = |key| SegmentHead::decode(&store[&key], &Expect { domain: DOMAIN, key }).unwrap();
    let mut names = BTreeMap::new();
    let mut at = head(ObjectKey::cut(epoch)).cut.unwrap().predecessor;
    while let Some(tail) = at {
        for seq in 1..=tail.seq.get() {
            for event in head(ObjectKey::Log { epoch: tail.epoch, seq: Seq::new(seq) }).events {
                let EventBody::Bookmark { name, .. } = event.body else { panic!("only bookmarks were submitted") };
                assert_eq!(names.insert(event.lsn, name), None, "lsn {} is there twice", event.lsn);
            }
        }
        at = head(ObjectKey::cut(tail.epoch)).cut.unwrap().predecessor;
    }
    names
}

/// Returns how many LSNs were acknowledged.
fn simulate(seed: u64) -> usize {
    let dice = Dice(SeededEntropy::new(seed));
    let mut store = Store::new();
    let mut actors: Vec<Actor> = Vec::new();
    for _ in 0..400 {
        if actors.len() < 6 && (actors.is_empty() || dice.one_in(60)) {
            actors.push(Actor::new(&dice));
        }
        // Some stall for a while: the dice may leave them out for a hundred steps.
        let favourite = if dice.one_in(2) { actors.len() - 1 } else { dice.below(actors.len()) };
        actors[favourite].step(&mut store, &dice, &format!("{favourite}"));
    }
    // Whoever has not stopped by now never moves again; a last writer comes.
    let mut last = Actor::new(&dice);
    while let Stage::Opening(_) = last.stage {
        last.step(&mut store, &dice, "last");
    }
    let Stage::Working(working) = &last.stage else { panic!("nobody is there to fence the last writer") };
    let found = read_back(&store, working.epoch);
    assert_eq!(found.len() as u64 + 1, last.first.get(), "seed {seed}: lsns are not dense");
    let mut count = 0;
    for actor in &actors {
        for (lsn, name) in actor.submitted.range(..=actor.acked).filter(|(lsn, _)| **lsn >= actor.first) {
            assert_eq!(found.get(lsn), Some(name), "seed {seed}: lsn {lsn} was acknowledged");
            count += 1;
        }
    }
    count
}

//= SPEC.md#commit-rules
//# F-1, F-2, F-3, F-4, F-5, F-6
#[test]
fn sim_writers_that_stall_race_and_lose_answers_keep_every_acknowledged_write() {
    let acknowledged: usize = (0..400).map(simulate).sum();
    assert!(acknowledged > 4_000, "only {acknowledged} lsns were acknowledged");
}

/// A log of epoch 1 with that many entries a segment and segments under way at most.
fn log(segment_entries_max: usize, in_flight_segments_max: usize) -> Log {
    let limits = Limits {
        segment_bytes_max: 1 << 20,
        segment_entries_max,
        segment_age_max: Duration::from_secs(1),
        in_flight_segments_max,
        hint_every_segments: 100,
    };
    let start = super::log::Start {
        epoch: Epoch::new(1),
        next_lsn: Lsn::new(1),
        last_time: TimeNs::default(),
        tick_ns: 1_000_000,
        header_hash: [0; 32],
        predecessor: None,
        disks: DiskTable::default(),
    };
    Log::new(limits, start)
}

#[test]
fn a_fenced_log_acknowledges_nothing_more() {
    let mut log = log(1, 4);
    for _ in 0..2 {
        log.submit(NOW, None, Submission::Event(EventBody::Barrier)).unwrap();
    }
    let (one, two) = (Seq::new(1), Seq::new(2));
    for seq in [one, two] {
        log.handle(Done::Compressed { seq, stored_bytes: 0 });
    }
    for seq in [one, two] {
        log.handle(Done::Sealed { seq, header_hash: [seq.get() as u8; 32] });
    }
    // The second lands first: nothing to check yet.
    log.handle(Done::Put { seq: two });
    assert!(!std::iter::from_fn(|| log.poll()).any(|e| matches!(e, Effect::CheckClaim)));
    log.handle(Done::Put { seq: one });
    assert!(std::iter::from_fn(|| log.poll()).any(|e| matches!(e, Effect::CheckClaim)));
    log.handle(Done::ClaimSeen { present: true });
    assert_eq!(log.stopped().map(Error::kind), Some(ErrorKind::Fenced));
    log.handle(Done::ClaimSeen { present: false });
    let after: Vec<_> = std::iter::from_fn(|| log.poll()).collect();
    assert!(matches!(after[..], [Effect::Stop(_)]), "{after:?}");
    assert_eq!(log.committed(), Lsn::ZERO);
    let refused = log.submit(NOW, None, Submission::Event(EventBody::Barrier)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Fenced);
}

#[test]
fn while_the_store_is_away_age_cuts_no_further_segments() {
    let mut log = log(1 << 10, 2);
    let at = |s: u64| Now { monotonic: Duration::from_secs(s), ..NOW };
    let compressed =
        |log: &mut Log| std::iter::from_fn(|| log.poll()).filter(|e| matches!(e, Effect::Compress(_))).count();
    let mut started = Vec::new();
    for second in 0..10 {
        log.submit(at(second), None, Submission::Event(EventBody::Barrier)).unwrap();
        log.tick(at(second + 1));
        started.push(compressed(&mut log));
    }
    assert_eq!(started, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(log.wake_at(), None);
    let seq = Seq::new(1);
    log.handle(Done::Compressed { seq, stored_bytes: 0 });
    log.handle(Done::Sealed { seq, header_hash: [1; 32] });
    log.handle(Done::Put { seq });
    log.handle(Done::ClaimSeen { present: false });
    assert_eq!(log.committed(), Lsn::new(1));
    log.tick(at(11));
    let waiting = std::iter::from_fn(|| log.poll()).find_map(|effect| match effect {
        Effect::Compress(segment) => Some((segment.first_lsn, segment.last_lsn)),
        _ => None,
    });
    assert_eq!(waiting, Some((Lsn::new(3), Lsn::new(10))), "all that waited goes at once");
}
