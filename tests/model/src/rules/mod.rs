//! The commit, fencing and recovery rules (SPEC.md §commit), explored state by state.
//!
//! Two or three writers share one bucket. Each takes its steps one request at a time, in any interleaving, and may stop
//! taking steps at any moment and for ever: a crash, a stalled VM and a lost request all look like that. Claims may also
//! be taken and abandoned, and a writer may be cloned with all its memory (a snapshot revert of an appliance). In every
//! reachable state the model asks what a future writer or reader would find in the bucket.
//!
//! The search is breadth-first with a visited set of 128-bit fingerprints, so a counterexample is a shortest one. The
//! chance that two of a few million states share a fingerprint, hiding one of them, is below 10^-24.
//! Not here: time, LISTs, deletion. No rule needs the first two; deletion has its own rules and will extend this model.

mod history;
mod state;
mod trace;

pub use state::{Action, State};

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

/// One rule that can be switched off, to see what it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// F1: a claim is created only if it is absent.
    AtomicClaims,
    /// F1 before F2: the predecessor's tail is probed only after the own claim is in place.
    ClaimBeforeProbe,
    /// F2: whoever follows a log checks that each segment names the hash of the one before.
    HashChain,
    /// F3: a closed epoch ends where its successor's CUT says, whatever lies behind.
    ClosedTail,
    /// F3: a CUT alone proves no LSN acknowledged or final: a newer writer may have passed it by.
    CutIsNoProof,
    /// F4: the next claim is checked between the CUT and the first segment, so a segment proves its CUT final.
    CutRecheck,
    /// F6: no acknowledgement without a look at the next claim.
    AckAfterCheck,
    /// F6: that look starts after the PUTs have finished.
    CheckAfterPuts,
    /// F6: only a prefix without holes is acknowledged.
    AckPrefix,
    /// F7: segments and CUTs are created only if absent; another object in their place stops the writer.
    SegmentCreate,
    /// Reader: what it calls final is checked against the next claim after the tail was read.
    ReaderRecheck,
    /// Reader: a tail is final only if its epoch is the newest claimed one.
    ReaderOwnEpoch,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 12] = [
        Self::AtomicClaims,
        Self::ClaimBeforeProbe,
        Self::HashChain,
        Self::ClosedTail,
        Self::CutIsNoProof,
        Self::CutRecheck,
        Self::AckAfterCheck,
        Self::CheckAfterPuts,
        Self::AckPrefix,
        Self::SegmentCreate,
        Self::ReaderRecheck,
        Self::ReaderOwnEpoch,
    ];
}

/// What takes part, and which rules hold.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Writers that start from nothing, 1 to 3.
    pub writers: u8,
    /// Segments that each writer wants to write, at most 3.
    pub segments: u8,
    /// Claims that somebody takes and never uses.
    pub abandoned_claims: u8,
    /// One writer may be copied, memory and all, at any moment.
    pub clone: bool,
    /// One reader opens the domain, once, at any moment.
    pub reader: bool,
    /// Rules switched off.
    pub without: Vec<Rule>,
}

impl Scenario {
    /// `writers` writers of two segments each, all rules on.
    pub fn of(writers: u8) -> Self {
        Self { writers, segments: 2, abandoned_claims: 0, clone: false, reader: false, without: Vec::new() }
    }
    /// With that many segments a writer.
    pub fn with_segments(self, segments: u8) -> Self {
        Self { segments, ..self }
    }
    /// With claims that nobody uses.
    pub fn abandoning(self, abandoned_claims: u8) -> Self {
        Self { abandoned_claims, ..self }
    }
    /// With a writer that may be cloned.
    pub fn cloning(self) -> Self {
        Self { clone: true, ..self }
    }
    /// With a reader.
    pub fn reading(self) -> Self {
        Self { reader: true, ..self }
    }
    /// Without one more rule.
    pub fn without(mut self, rule: Rule) -> Self {
        self.without.push(rule);
        self
    }
    /// True if the rule is on.
    pub fn has(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }
}

/// What an exploration found.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every reachable state was visited and none broke a promise.
    Exhausted {
        /// How many states there are.
        states: usize,
    },
    /// A shortest way to a broken promise.
    Broken(Counterexample),
}

/// A run that breaks a promise. Its `Display` is one line per step.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// What each step was.
    pub steps: Vec<String>,
    /// What is broken in the end.
    pub broken: String,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:>3}. {step}", i + 1)?;
        }
        write!(f, "  => {}", self.broken)
    }
}

/// Visits every reachable state of `scenario`, shortest runs first.
pub fn explore(scenario: &Scenario) -> Outcome {
    let start = State::start(scenario);
    // parents[i] leads to state i; states themselves are dropped once expanded and replayed for a counterexample.
    let mut parents: Vec<(u32, Action)> = vec![(0, Action::Abandon)];
    let mut seen: HashSet<u128, BuildHasherDefault<Identity>> = HashSet::default();
    let mut queue = VecDeque::from([(start, 0u32)]);
    seen.insert(start.fingerprint());
    let mut actions = Vec::new();
    while let Some((state, index)) = queue.pop_front() {
        actions.clear();
        state.actions(scenario, &mut actions);
        for &action in &actions {
            let mut next = state;
            let broken = next.apply(scenario, action).err();
            if broken.is_none() && !seen.insert(next.fingerprint()) {
                continue;
            }
            parents.push((index, action));
            let child = parents.len() as u32 - 1;
            if let Some(broken) = broken.or_else(|| next.violation(scenario)) {
                return Outcome::Broken(Counterexample { steps: replay(scenario, start, &parents, child), broken });
            }
            queue.push_back((next, child));
        }
    }
    Outcome::Exhausted { states: seen.len() }
}

fn replay(scenario: &Scenario, start: State, parents: &[(u32, Action)], mut at: u32) -> Vec<String> {
    let mut path = Vec::new();
    while at != 0 {
        let (parent, action) = parents[at as usize];
        path.push(action);
        at = parent;
    }
    let mut state = start;
    path.into_iter()
        .rev()
        .map(|action| {
            let told = state.describe(scenario, action);
            // The last step may be the one that breaks a promise; its effect is told by `broken`.
            let _ = state.apply(scenario, action);
            told
        })
        .collect()
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are stored")
    }
    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}
