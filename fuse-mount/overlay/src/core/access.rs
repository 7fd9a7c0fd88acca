//! Which parts of a disk were read, in the order of their first reading: what a recovery fetches first the next time.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges that are kept; reads that come after that are not noted any more.
pub const ACCESS_RANGES_MAX: usize = 64 << 10;
/// Reads are noted in steps of this size.
const STEP_BYTES: u64 = 64 << 10;

/// Ranges of a disk in the order in which they were first read, without repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLog {
    order: Vec<Range<u64>>,
    /// What is in `order`, joined: end by start.
    seen: BTreeMap<u64, u64>,
}

impl AccessLog {
    /// Takes note of a read.
    pub fn note(&mut self, read: Range<u64>) {
        if read.is_empty() {
            return;
        }
        let mut at = read.start / STEP_BYTES * STEP_BYTES;
        let end = read.end.next_multiple_of(STEP_BYTES);
        while at < end {
            let before = self.seen.range(..=at).next_back().filter(|(_, seen)| **seen > at);
            if let Some((_, seen)) = before {
                at = *seen;
                continue;
            }
            let next = self.seen.range(at..).next().map_or(end, |(start, _)| (*start).min(end));
            if !self.add(at..next) {
                return;
            }
            at = next;
        }
    }

    fn add(&mut self, range: Range<u64>) -> bool {
        let full = self.order.len() == ACCESS_RANGES_MAX;
        match self.order.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if full => return false,
            _ => self.order.push(range.clone()),
        }
        let start = match self.seen.range(..=range.start).next_back() {
            Some((start, end)) if *end == range.start => *start,
            _ => range.start,
        };
        let end = self.seen.remove(&range.end).unwrap_or(range.end);
        self.seen.insert(start, end);
        true
    }

    /// The ranges, first read first.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.order
    }

    /// Bytes in all of them.
    pub fn bytes(&self) -> u64 {
        self.seen.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const K64: u64 = 64 << 10;

    #[test]
    fn reads_are_kept_in_the_order_of_their_first_time() {
        let mut log = AccessLog::default();
        log.note(10 * K64..10 * K64 + 1);
        log.note(0..4096);
        log.note(4096..2 * K64);
        log.note(9 * K64..12 * K64);
        assert_eq!(log.ranges(), [10 * K64..11 * K64, 0..2 * K64, 9 * K64..10 * K64, 11 * K64..12 * K64]);
        assert_eq!(log.bytes(), 5 * K64);
    }

    #[test]
    fn a_log_is_bounded() {
        let mut log = AccessLog::default();
        (0..2 * ACCESS_RANGES_MAX as u64).for_each(|n| log.note(2 * n * K64..2 * n * K64 + 1));
        assert_eq!(log.ranges().len(), ACCESS_RANGES_MAX);
    }

    proptest! {
        #[test]
        fn prop_every_step_is_there_once(reads in prop::collection::vec((0u64..100, 0u64..30), 0..60)) {
            let (mut log, mut model) = (AccessLog::default(), BTreeSet::new());
            for (start, len) in reads {
                log.note(start * K64..(start + len) * K64);
                model.extend(start..start + len);
            }
            let steps: Vec<u64> = log.ranges().iter().flat_map(|r| r.start / K64..r.end / K64).collect();
            prop_assert_eq!(steps.len(), model.len(), "no repeats");
            prop_assert_eq!(steps.into_iter().collect::<BTreeSet<_>>(), model);
            prop_assert_eq!(log.bytes(), log.ranges().iter().map(|r| r.end - r.start).sum::<u64>());
        }
    }
}
