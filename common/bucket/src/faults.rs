//! A store that misbehaves on purpose: what, where and how often follows from a seed, so that a failing run can be replayed.
//!
//! Whether a request is hit depends on the seed, the rule, the key and how often that key was asked for in that way, and on
//! nothing else: not on the order in which concurrent requests happen to arrive. The faults lie below the retries, so that
//! those are exercised too, unless [`Faults::surfacing`] shows them to the caller.
//! The fault that finds bugs is [`Fault::AppliedLost`].

mod layer;
mod text;

pub(crate) use layer::FaultyStore;

use crate::meter::Op;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails before it changes anything.
    Error,
    /// It is applied, and the answer is lost. Puts and deletes.
    AppliedLost,
    /// The answer lacks its end. Gets.
    Short,
    /// One bit of the answer is wrong. Gets.
    BitFlip,
    /// The answer is "not found", whatever is there. Gets and heads.
    Stale404,
    /// It is carried out late.
    Slow(Duration),
    /// It is never answered, and changes nothing.
    Hang,
    /// It stores even if something is there. Puts that should only create.
    IgnoreCondition,
}

/// A plan of faults. Clones share one state: counters, and whether the bucket has vanished.
#[derive(Clone, Debug)]
pub struct Faults {
    seed: u64,
    surfacing: bool,
    vanish_after: Option<u64>,
    rules: Vec<Rule>,
    state: Arc<State>,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    /// `None` = every kind of request.
    op: Option<Op>,
    prefix: String,
    fault: Fault,
    when: When,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// With this probability, per request.
    Chance(f64),
    /// At the n-th request that matches, counted from 1.
    Nth(u64),
}

#[derive(Debug, Default)]
struct State {
    vanished: AtomicBool,
    requests: AtomicU64,
    injected: AtomicU64,
    /// Requests that matched a rule with a number.
    matched: Mutex<HashMap<usize, u64>>,
    /// Requests per kind and key.
    asked: Mutex<HashMap<(Op, String), u64>>,
    meanwhile: Mutex<Vec<Meanwhile>>,
}

/// What others do while a request is on its way.
struct Meanwhile {
    op: Op,
    prefix: String,
    work: BoxFuture<'static, ()>,
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Meanwhile({} {})", self.op, self.prefix)
    }
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Verdict {
    delay: Duration,
    fault: Option<Fault>,
    /// Chance for the fault's details: which bit, how short.
    dice: u64,
    vanished: bool,
}

impl Faults {
    /// No faults yet; those added hit by the chances of `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, surfacing: false, vanish_after: None, rules: Vec::new(), state: Arc::default() }
    }

    /// Hits requests of one kind (or of all, given `None`) on keys that start with `prefix`, each with probability `chance`.
    pub fn on(self, prefix: &str, op: impl Into<Option<Op>>, fault: Fault, chance: f64) -> Self {
        self.with(Rule { op: op.into(), prefix: prefix.to_owned(), fault, when: When::Chance(chance) })
    }

    /// Hits the `nth` such request, counted from 1, and no other.
    pub fn at(self, prefix: &str, op: impl Into<Option<Op>>, fault: Fault, nth: u64) -> Self {
        self.with(Rule { op: op.into(), prefix: prefix.to_owned(), fault, when: When::Nth(nth) })
    }

    fn with(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Shows each failure to the caller at once instead of trying again.
    pub fn surfacing(mut self) -> Self {
        self.surfacing = true;
        self
    }

    /// Lets the bucket vanish after that many requests.
    pub fn vanish_after(mut self, requests: u64) -> Self {
        self.vanish_after = Some(requests);
        self
    }

    /// Holds the first such request back until `work` is done: what others do while whoever asked is stalled. Once.
    pub fn meanwhile(self, prefix: &str, op: Op, work: impl Future<Output = ()> + Send + 'static) -> Self {
        let held = Meanwhile { op, prefix: prefix.to_owned(), work: Box::pin(work) };
        self.state.meanwhile.lock().unwrap_or_else(PoisonError::into_inner).push(held);
        self
    }

    /// What has to happen before this request.
    fn first(&self, op: Op, key: &str) -> Option<BoxFuture<'static, ()>> {
        let mut held = self.state.meanwhile.lock().unwrap_or_else(PoisonError::into_inner);
        let at = held.iter().position(|held| held.op == op && key.starts_with(&held.prefix))?;
        Some(held.remove(at).work)
    }

    /// From now on every request fails, as if the network were unplugged.
    pub fn vanish(&self) {
        self.state.vanished.store(true, Ordering::SeqCst);
    }

    /// Ends [`Self::vanish`].
    pub fn come_back(&self) {
        self.state.vanished.store(false, Ordering::SeqCst);
    }

    /// Number of requests that were hit so far.
    pub fn injected(&self) -> u64 {
        self.state.injected.load(Ordering::Relaxed)
    }

    fn judge(&self, op: Op, key: &str) -> Verdict {
        if self.state.requests.fetch_add(1, Ordering::Relaxed) + 1 > self.vanish_after.unwrap_or(u64::MAX) {
            self.vanish();
        }
        let mut verdict = Verdict { vanished: self.state.vanished.load(Ordering::SeqCst), ..Verdict::default() };
        let asked = self.asked(op, key);
        for (i, rule) in self.rules.iter().enumerate() {
            if rule.op.is_some_and(|only| only != op) || !key.starts_with(&rule.prefix) || !rule.fault.fits(op) {
                continue;
            }
            let dice = self.dice(i, op, key, asked);
            let hit = match rule.when {
                When::Chance(chance) => (dice[0] as f64) < chance * u64::MAX as f64,
                When::Nth(nth) => self.matched(i) == nth,
            };
            match rule.fault {
                _ if !hit => {}
                Fault::Slow(delay) => verdict.delay += delay,
                fault if verdict.fault.is_none() => (verdict.fault, verdict.dice) = (Some(fault), dice[1]),
                _ => {}
            }
        }
        if verdict.vanished || verdict.fault.is_some() || !verdict.delay.is_zero() {
            self.state.injected.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    /// How often this was asked before.
    fn asked(&self, op: Op, key: &str) -> u64 {
        // Beyond it, the count starts anew: a run of that length is no longer replayed exactly.
        const KEYS_MAX: usize = 1 << 20;
        let mut asked = self.state.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= KEYS_MAX {
            asked.clear();
        }
        let count = asked.entry((op, key.to_owned())).or_default();
        *count += 1;
        *count - 1
    }

    /// How many requests have matched the rule, with this one.
    fn matched(&self, rule: usize) -> u64 {
        let mut matched = self.state.matched.lock().unwrap_or_else(PoisonError::into_inner);
        let count = matched.entry(rule).or_default();
        *count += 1;
        *count
    }

    /// Two uniform numbers that depend on the arguments and the seed alone.
    fn dice(&self, rule: usize, op: Op, key: &str, asked: u64) -> [u64; 2] {
        let mut hasher = blake3::Hasher::new();
        for number in [self.seed, rule as u64, op as u64, asked] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(key.as_bytes());
        let mut raw = [0; 16];
        hasher.finalize_xof().fill(&mut raw);
        let both = u128::from_le_bytes(raw);
        [both as u64, (both >> 64) as u64]
    }
}

impl Fault {
    /// True if the fault can happen to such a request.
    const fn fits(self, op: Op) -> bool {
        match self {
            Self::Error | Self::Slow(_) | Self::Hang => true,
            Self::AppliedLost => matches!(op, Op::Put | Op::Delete),
            Self::Short | Self::BitFlip => matches!(op, Op::Get),
            Self::Stale404 => matches!(op, Op::Get | Op::Head),
            Self::IgnoreCondition => matches!(op, Op::Put),
        }
    }
}

#[cfg(test)]
mod tests;
