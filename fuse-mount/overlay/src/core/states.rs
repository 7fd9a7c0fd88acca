//! What each unit of a recovery disk is, in memory: two bits for each 4 KiB.
//!
//! Readers look without a lock: a unit that is [`State::Clean`] or [`State::Dirty`] has its bytes in the local file, for good,
//! because a unit only ever moves forward. Who changes a unit holds the lock of its stripe ([`crate::overlay`]).

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of one unit.
pub const UNIT_BYTES: u64 = 4096;
/// Units in one word of the map.
pub(crate) const WORD_UNITS: u64 = 32;

/// What a unit is. It only moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Only the point has it.
    Absent,
    /// The local file has what the point has.
    Clean,
    /// The local file has it, and the guest wrote or discarded it.
    Dirty,
}

impl State {
    /// True if the local file has the unit's bytes.
    pub const fn is_present(self) -> bool {
        !matches!(self, Self::Absent)
    }

    pub(crate) const fn bits(self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Clean => 1,
            Self::Dirty => 2,
        }
    }

    pub(crate) const fn of_bits(bits: u64) -> Option<Self> {
        match bits {
            0 => Some(Self::Absent),
            1 => Some(Self::Clean),
            2 => Some(Self::Dirty),
            _ => None,
        }
    }
}

/// How many units are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Units that only the point has.
    pub absent: u64,
    /// Units hydrated and not written since.
    pub clean: u64,
    /// Units that the guest wrote.
    pub dirty: u64,
}

/// The states of all units of a disk.
pub(crate) struct States {
    words: Box<[AtomicU64]>,
    units: u64,
    clean: AtomicU64,
    dirty: AtomicU64,
}

impl States {
    /// All units absent.
    pub(crate) fn new(units: u64) -> Self {
        let words = (0..units.div_ceil(WORD_UNITS)).map(|_| AtomicU64::new(0)).collect();
        Self { words, units, clean: AtomicU64::new(0), dirty: AtomicU64::new(0) }
    }

    pub(crate) fn units(&self) -> u64 {
        self.units
    }

    pub(crate) fn counts(&self) -> Counts {
        let (clean, dirty) = (self.clean.load(Ordering::Relaxed), self.dirty.load(Ordering::Relaxed));
        // The two are not read at one instant.
        Counts { absent: self.units.saturating_sub(clean + dirty), clean, dirty }
    }

    /// The raw word, for writing the map down.
    pub(crate) fn word(&self, index: u64) -> u64 {
        self.words.get(index as usize).map_or(0, |word| word.load(Ordering::Acquire))
    }

    pub(crate) fn words(&self) -> u64 {
        self.words.len() as u64
    }

    pub(crate) fn get(&self, unit: u64) -> State {
        let bits = self.word(unit / WORD_UNITS) >> (unit % WORD_UNITS * 2) & 3;
        State::of_bits(bits).expect("only states are stored")
    }

    /// True if every unit of `range` is `wanted` or further.
    pub(crate) fn all_at_least(&self, wanted: State, range: Range<u64>) -> bool {
        self.next_run(range, |state| state < wanted).is_none()
    }

    /// The first run of units in `range` whose states all satisfy `wanted`.
    pub(crate) fn next_run(&self, range: Range<u64>, wanted: impl Fn(State) -> bool) -> Option<Range<u64>> {
        let end = range.end.min(self.units);
        let find = |mut unit: u64, sought: bool| {
            while unit < end {
                let (index, within) = (unit / WORD_UNITS, unit % WORD_UNITS);
                let word = self.word(index);
                // A whole word of one state is passed in one step.
                if within == 0
                    && let Some(state) = uniform(word)
                {
                    if wanted(state) == sought {
                        return Some(unit);
                    }
                    unit += WORD_UNITS;
                    continue;
                }
                let state = State::of_bits(word >> (within * 2) & 3).expect("only states are stored");
                if wanted(state) == sought {
                    return Some(unit);
                }
                unit += 1;
            }
            None
        };
        let start = find(range.start, true)?;
        Some(start..find(start, false).unwrap_or(end))
    }

    /// The runs of `range`, each of one state.
    pub(crate) fn runs(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, State)> {
        let mut at = range.start;
        let end = range.end.min(self.units);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let state = self.get(at);
            // Looked at again as a run: a unit may have moved on meanwhile, and then the run is empty here.
            let to = self.next_run(at..end, |other| other == state).filter(|run| run.start == at);
            let run = at..to.map_or(at + 1, |run| run.end);
            at = run.end;
            Some((run, state))
        })
    }

    /// Moves the units of `range` to `state`. None moves back.
    pub(crate) fn advance(&self, range: Range<u64>, state: State) {
        assert!(range.end <= self.units, "units {range:?} of {}", self.units);
        let mut unit = range.start;
        while unit < range.end {
            let (index, within) = (unit / WORD_UNITS, unit % WORD_UNITS);
            let n = (WORD_UNITS - within).min(range.end - unit);
            let update = |word: u64| {
                (within..within + n).fold(word, |word, at| {
                    let old = word >> (at * 2) & 3;
                    word & !(3 << (at * 2)) | old.max(state.bits()) << (at * 2)
                })
            };
            self.replace(index, update);
            unit += n;
        }
    }

    /// Sets two words at once, as a record says; states only, and none beyond the end.
    pub(crate) fn load(&self, index: u64, words: [u64; 2]) -> Result<(), String> {
        for (at, new) in (index..).zip(words) {
            let units = (at * WORD_UNITS..(at + 1) * WORD_UNITS).enumerate();
            for (within, unit) in units {
                let bits = new >> (within * 2) & 3;
                if State::of_bits(bits).is_none() || bits != 0 && unit >= self.units {
                    return Err(format!("unit {unit} of {} cannot be {bits}", self.units));
                }
            }
            if at < self.words() {
                self.replace(at, |_| new);
            }
        }
        Ok(())
    }

    fn replace(&self, index: u64, update: impl Fn(u64) -> u64) {
        let word = &self.words[index as usize];
        let mut old = word.load(Ordering::Relaxed);
        loop {
            let new = update(old);
            match word.compare_exchange_weak(old, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => {
                    count(&self.clean, old, new, State::Clean);
                    count(&self.dirty, old, new, State::Dirty);
                    return;
                }
                Err(now) => old = now,
            }
        }
    }
}

/// The state of all units of a word, if it is one.
fn uniform(word: u64) -> Option<State> {
    [State::Absent, State::Clean, State::Dirty].into_iter().find(|state| word == state.bits() * (u64::MAX / 3))
}

fn count(counter: &AtomicU64, old: u64, new: u64, state: State) {
    // States have one bit each.
    let of = |word: u64| u64::from((word & (state.bits() * (u64::MAX / 3))).count_ones());
    // Wrapping addition of the difference.
    counter.fetch_add(of(new).wrapping_sub(of(old)), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_state() -> impl Strategy<Value = State> {
        prop_oneof![Just(State::Absent), Just(State::Clean), Just(State::Dirty)]
    }

    proptest! {
        #[test]
        fn prop_states_are_what_a_list_would_be(
            units in 1u64..200,
            moves in prop::collection::vec((0u64..200, 0u64..80, any_state()), 0..40),
        ) {
            let (states, mut model) = (States::new(units), vec![State::Absent; units as usize]);
            for (start, len, state) in moves {
                let range = start.min(units)..(start + len).min(units);
                states.advance(range.clone(), state);
                for unit in range {
                    model[unit as usize] = model[unit as usize].max(state);
                }
            }
            let found: Vec<State> = (0..units).map(|unit| states.get(unit)).collect();
            prop_assert_eq!(&found, &model);
            let runs = states.runs(0..units).flat_map(|(run, state)| run.map(move |_| state));
            prop_assert_eq!(runs.collect::<Vec<_>>(), model.clone());
            let of = |state| model.iter().filter(|s| **s == state).count() as u64;
            let counts = Counts { absent: of(State::Absent), clean: of(State::Clean), dirty: of(State::Dirty) };
            prop_assert_eq!(states.counts(), counts);
            let present = states.all_at_least(State::Clean, 0..units);
            prop_assert_eq!(present, model.iter().all(|s| s.is_present()));
            let copy = States::new(units);
            for index in (0..states.words()).step_by(2) {
                copy.load(index, [states.word(index), states.word(index + 1)]).unwrap();
            }
            prop_assert_eq!((0..units).map(|unit| copy.get(unit)).collect::<Vec<_>>(), model);
        }
    }

    #[test]
    fn words_that_hold_no_states_are_refused() {
        let states = States::new(33);
        assert!(states.load(0, [3, 0]).is_err());
        assert!(states.load(0, [0, 4]).is_err(), "a unit beyond the end");
        assert!(states.load(0, [1, 2]).is_ok());
    }
}
