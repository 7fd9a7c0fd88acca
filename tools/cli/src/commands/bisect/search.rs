//! Where to look next: a search for the first bad one among things of which the first is good and the last is bad.
//!
//! Invariant: `good < bad`; everything asked about lies between. With one look at a time, n things take log2(n) looks.
//! Not here: what is looked at, and how.

use std::collections::BTreeSet;

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// It cannot be told.
    Unclear,
}

/// A good one behind a bad one: there is no first bad one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotOnce {
    /// The bad one.
    pub(super) bad: u64,
    /// The good one behind it.
    pub(super) good: u64,
}

/// What is known.
#[derive(Clone, Debug)]
pub(super) struct Search {
    good: u64,
    bad: u64,
    unclear: BTreeSet<u64>,
}

impl Search {
    /// `good` is good, and `bad` behind it is bad.
    pub(super) fn new(good: u64, bad: u64) -> Self {
        assert!(good < bad, "{good} is not before {bad}");
        Self { good, bad, unclear: BTreeSet::new() }
    }

    /// The last that is known to be good, and the first that is known to be bad.
    pub(super) fn known(&self) -> (u64, u64) {
        (self.good, self.bad)
    }

    /// At most `count` to look at, ascending, that cut what is left into equal parts. None: the search is over.
    pub(super) fn next(&self, count: u64) -> Vec<u64> {
        let between = self.bad - self.good;
        let parts = count.clamp(1, between).saturating_add(1);
        let cuts =
            (1..parts).map(|part| self.good + (u128::from(between) * u128::from(part) / u128::from(parts)) as u64);
        let mut chosen = BTreeSet::new();
        for cut in cuts {
            chosen.extend(self.near(cut, &chosen));
        }
        chosen.into_iter().collect()
    }

    /// The one nearest to `cut` that was not looked at.
    fn near(&self, cut: u64, chosen: &BTreeSet<u64>) -> Option<u64> {
        let free = |at: &u64| *at > self.good && *at < self.bad && !self.unclear.contains(at) && !chosen.contains(at);
        // Only as many are in the way as were looked at in vain.
        let reach = (self.unclear.len() + chosen.len() + 1) as u64;
        (0..=reach).flat_map(|by| [cut.checked_add(by), cut.checked_sub(by)]).flatten().find(free)
    }

    /// Takes what a round found.
    ///
    /// # Errors
    /// If a good one is behind a bad one.
    pub(super) fn take(&mut self, found: &[(u64, Verdict)]) -> Result<(), NotOnce> {
        let of = |wanted| found.iter().filter(move |(_, verdict)| *verdict == wanted).map(|(at, _)| *at);
        let bad = of(Verdict::Bad).min().unwrap_or(self.bad).min(self.bad);
        let good = of(Verdict::Good).max().unwrap_or(self.good).max(self.good);
        self.unclear.extend(of(Verdict::Unclear));
        if good > bad {
            return Err(NotOnce { bad, good });
        }
        (self.good, self.bad) = (good, bad);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a search to its end; what is known then, and the number of looks.
    fn run(last: u64, width: u64, look: impl Fn(u64) -> Verdict) -> ((u64, u64), usize) {
        let (mut search, mut looks) = (Search::new(0, last), 0);
        loop {
            let next = search.next(width);
            if next.is_empty() {
                return (search.known(), looks);
            }
            assert!(next.len() as u64 <= width && next.is_sorted(), "{next:?}");
            looks += next.len();
            let found: Vec<_> = next.into_iter().map(|at| (at, look(at))).collect();
            search.take(&found).unwrap();
        }
    }

    fn from(first_bad: u64) -> impl Fn(u64) -> Verdict {
        move |at| if at >= first_bad { Verdict::Bad } else { Verdict::Good }
    }

    #[test]
    fn a_hundred_thousand_take_seventeen_looks() {
        let most = (1..=99_999).step_by(37).map(|bad| {
            let (known, looks) = run(99_999, 1, from(bad));
            assert_eq!(known, (bad - 1, bad));
            looks
        });
        assert_eq!(most.max(), Some(17));
    }

    #[test]
    fn a_good_one_behind_a_bad_one_is_said() {
        let mut search = Search::new(0, 100);
        let found = [(25, Verdict::Good), (50, Verdict::Bad), (75, Verdict::Good)];
        assert_eq!(search.take(&found), Err(NotOnce { bad: 50, good: 75 }));
        assert_eq!(search.known(), (0, 100));
    }

    proptest! {
        #[test]
        fn prop_the_first_bad_one_is_found_at_any_width(last in 1u64..5_000, pick in any::<prop::sample::Index>(), width in 1u64..9) {
            let bad = 1 + pick.index(last as usize) as u64;
            let (known, _) = run(last, width, from(bad));
            prop_assert_eq!(known, (bad - 1, bad));
        }

        #[test]
        fn prop_what_is_unclear_only_widens_the_answer(last in 1u64..300, pick in any::<prop::sample::Index>(),
                                                       unclear in proptest::collection::btree_set(1u64..300, 0..40), width in 1u64..5) {
            let bad = 1 + pick.index(last as usize) as u64;
            let look = |at: u64| if unclear.contains(&at) { Verdict::Unclear } else { from(bad)(at) };
            let ((good, found), _) = run(last, width, look);
            prop_assert!(good < bad && bad <= found);
            prop_assert!((good + 1..found).all(|at| unclear.contains(&at)), "{good} {found}");
        }
    }
}
