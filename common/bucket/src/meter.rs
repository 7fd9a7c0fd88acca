//! The cost meter: how many requests of which kind, on which family of keys, moved how many bytes.
//!
//! Every attempt counts, as it does on the bill: also one that failed, timed out or was retried.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemark_format::KeyFamily;

/// Kinds of requests, as stores price them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Reads a body or a part of it.
    Get,
    /// Stores a body, on a condition or not.
    Put,
    /// Lists keys; one per page of 1,000 keys.
    List,
    /// Removes an object.
    Delete,
    /// Asks for an object's length.
    Head,
}

impl Op {
    /// Every kind, in the order of this list.
    pub const ALL: [Self; 5] = [Self::Get, Self::Put, Self::List, Self::Delete, Self::Head];

    /// One word for tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Head => "head",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const OPS: usize = Op::ALL.len();
const FAMILIES: usize = KeyFamily::ALL.len();

/// Requests and the bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Attempts sent.
    pub requests: u64,
    /// Body bytes sent by puts (per attempt) or received by gets.
    pub bytes: u64,
}

impl Count {
    fn plus(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, bytes: self.bytes + other.bytes }
    }
}

/// Counts what a bucket is asked for. Cheap to clone: clones count together.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    cells: Arc<[[Cell; FAMILIES]; OPS]>,
}

#[derive(Debug, Default)]
struct Cell {
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    pub(crate) fn add(&self, op: Op, family: KeyFamily, more: Count) {
        let cell = &self.cells[op as usize][family as usize];
        cell.requests.fetch_add(more.requests, Ordering::Relaxed);
        cell.bytes.fetch_add(more.bytes, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> MeterSnapshot {
        let read = |cell: &Cell| Count {
            requests: cell.requests.load(Ordering::Relaxed),
            bytes: cell.bytes.load(Ordering::Relaxed),
        };
        MeterSnapshot { counts: std::array::from_fn(|op| std::array::from_fn(|family| read(&self.cells[op][family]))) }
    }
}

/// The counts at one moment, or between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterSnapshot {
    counts: [[Count; FAMILIES]; OPS],
}

impl MeterSnapshot {
    /// Requests of one kind on one family of keys.
    pub fn get(&self, op: Op, family: KeyFamily) -> Count {
        self.counts[op as usize][family as usize]
    }

    /// Requests of one kind on all keys.
    pub fn total(&self, op: Op) -> Count {
        self.counts[op as usize].iter().fold(Count::default(), |sum, count| sum.plus(*count))
    }

    /// What was counted since `earlier`, a snapshot of the same meter.
    pub fn since(&self, earlier: &Self) -> Self {
        let minus = |a: Count, b: Count| Count {
            requests: a.requests.saturating_sub(b.requests),
            bytes: a.bytes.saturating_sub(b.bytes),
        };
        Self {
            counts: std::array::from_fn(|op| {
                std::array::from_fn(|family| minus(self.counts[op][family], earlier.counts[op][family]))
            }),
        }
    }

    /// Everything that was asked for at least once.
    pub fn iter(&self) -> impl Iterator<Item = (Op, KeyFamily, Count)> {
        let all = Op::ALL.into_iter().flat_map(|op| KeyFamily::ALL.map(|family| (op, family)));
        all.map(|(op, family)| (op, family, self.get(op, family))).filter(|(_, _, count)| count.requests > 0)
    }
}

impl fmt::Display for MeterSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (op, family, count)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{op} {}: {} ({} B)", family.name(), count.requests, count.bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meter_keeps_kinds_and_families_apart() {
        let meter = Meter::default();
        for (at, op) in Op::ALL.into_iter().enumerate() {
            for (i, family) in KeyFamily::ALL.into_iter().enumerate() {
                meter.add(op, family, Count { requests: 1, bytes: (at * 10 + i) as u64 });
            }
        }
        let all = meter.snapshot();
        assert_eq!(all.get(Op::Delete, KeyFamily::Log), Count { requests: 1, bytes: 32 });
        assert_eq!(all.total(Op::Put), Count { requests: 9, bytes: (10..19).sum() });
        assert_eq!(all.iter().count(), Op::ALL.len() * KeyFamily::ALL.len());
    }

    #[test]
    fn difference_of_snapshots_is_what_happened_between() {
        let meter = Meter::default();
        meter.add(Op::Get, KeyFamily::Log, Count { requests: 2, bytes: 10 });
        let before = meter.snapshot();
        meter.add(Op::Get, KeyFamily::Log, Count { requests: 1, bytes: 7 });
        let between = meter.snapshot().since(&before);
        assert_eq!(between.iter().collect::<Vec<_>>(), [(Op::Get, KeyFamily::Log, Count { requests: 1, bytes: 7 })]);
        assert_eq!(between.to_string(), "get log: 1 (7 B)");
    }
}
