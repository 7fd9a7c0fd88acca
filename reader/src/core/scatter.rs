//! Which object to stream for which part of a disk: the pieces of an image sorted by the object that holds them, so that each
//! object is read once, from front to back, and what it holds is scattered over the disk.
//!
//! Pieces go in as they follow each other on the disk. What comes out are whole units, each with everything that it is made
//! of: zeros stand with the data beside them. Units that are zeros alone, whose data lies in several objects, or of which something is
//! unknown are left out.
//! Not here: fetching ([`crate::scatter`]).

use std::collections::HashMap;
use std::hash::Hash;
use tidemark_format::Extent;

/// What some blocks hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds<C> {
    /// Bytes of an object, from this block of its plaintext on.
    Data { carrier: C, block: u32 },
    /// Zeros.
    Zeros,
    /// Nobody knows.
    Unknown,
}

/// A run of blocks to be taken out of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) extent: Extent,
    /// Where its bytes are; `None` for zeros that complete a unit.
    pub(crate) block: Option<u32>,
}

/// Objects in the order in which the disk first needs them, each with the runs that it holds, ascending.
#[derive(Debug)]
pub(crate) struct Plan<C> {
    unit_blocks: u64,
    /// Blocks of the disk: its last unit may be short.
    end: u64,
    carriers: Vec<(C, Vec<Item>)>,
    numbers: HashMap<C, usize>,
    items: usize,
    unit: Vec<(Extent, Holds<C>)>,
}

impl<C: Copy + Eq + Hash> Plan<C> {
    pub(crate) fn new(unit_blocks: u64, disk_blocks: u64) -> Self {
        Self {
            unit_blocks,
            end: disk_blocks,
            carriers: Vec::new(),
            numbers: HashMap::new(),
            items: 0,
            unit: Vec::new(),
        }
    }

    /// Items so far.
    pub(crate) fn len(&self) -> usize {
        self.items
    }

    /// Adds the next piece of the disk.
    pub(crate) fn add(&mut self, extent: Extent, holds: Holds<C>) {
        let (mut at, end) = (extent.start, extent.end());
        let part = |from: u64, to: u64| {
            let holds = match holds {
                Holds::Data { carrier, block } => Holds::Data { carrier, block: block + (from - extent.start) as u32 },
                other => other,
            };
            (Extent::new(from, to - from), holds)
        };
        while at < end {
            let unit_start = at / self.unit_blocks * self.unit_blocks;
            let whole_end = end / self.unit_blocks * self.unit_blocks;
            if at == unit_start && whole_end > at {
                self.finish_unit();
                if let (extent, Holds::Data { carrier, block }) = part(at, whole_end) {
                    self.push(carrier, Item { extent, block: Some(block) });
                }
                at = whole_end;
                continue;
            }
            if self.unit.last().is_some_and(|(last, _)| last.end() != at || last.end() == unit_start) {
                self.finish_unit();
            }
            let to = end.min(unit_start + self.unit_blocks);
            self.unit.push(part(at, to));
            at = to;
        }
    }

    /// Ends a unit that pieces cover in part each.
    fn finish_unit(&mut self) {
        let parts = std::mem::take(&mut self.unit);
        let (Some((first, _)), Some((last, _))) = (parts.first(), parts.last()) else { return };
        let whole_end = (first.start / self.unit_blocks + 1) * self.unit_blocks;
        let mut carriers = parts.iter().filter_map(|(_, holds)| match holds {
            Holds::Data { carrier, .. } => Some(*carrier),
            _ => None,
        });
        let Some(carrier) = carriers.next() else { return };
        let whole = first.start.is_multiple_of(self.unit_blocks) && last.end() == whole_end.min(self.end);
        let known = parts.iter().all(|(_, holds)| *holds != Holds::Unknown);
        if whole && known && carriers.all(|other| other == carrier) {
            for (extent, holds) in parts {
                let block = if let Holds::Data { block, .. } = holds { Some(block) } else { None };
                self.push(carrier, Item { extent, block });
            }
        }
    }

    fn push(&mut self, carrier: C, item: Item) {
        let number = *self.numbers.entry(carrier).or_insert_with(|| {
            self.carriers.push((carrier, Vec::new()));
            self.carriers.len() - 1
        });
        let items = &mut self.carriers[number].1;
        if let Some(last) = items.last_mut()
            && last.extent.end() == item.extent.start
            && last.block.map(|block| u64::from(block) + last.extent.len) == item.block.map(u64::from)
            && last.block.is_some()
        {
            last.extent.len += item.extent.len;
            return;
        }
        items.push(item);
        self.items += 1;
    }

    /// The objects, each with its runs.
    pub(crate) fn finish(mut self) -> Vec<(C, Vec<Item>)> {
        self.finish_unit();
        self.carriers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(pieces: &[(u64, Holds<char>)], disk: u64) -> Vec<(char, Vec<Item>)> {
        let mut plan = Plan::new(8, disk);
        let mut at = 0;
        for (len, holds) in pieces {
            plan.add(Extent::new(at, *len), *holds);
            at += len;
        }
        plan.finish()
    }

    fn data(carrier: char, block: u32) -> Holds<char> {
        Holds::Data { carrier, block }
    }

    #[test]
    fn objects_come_in_the_order_of_the_disk_each_once() {
        let found = plan(&[(16, data('b', 0)), (8, data('a', 4)), (8, data('b', 99))], 32);
        let item = |start, len, block| Item { extent: Extent::new(start, len), block };
        assert_eq!(found[0], ('b', vec![item(0, 16, Some(0)), item(24, 8, Some(99))]));
        assert_eq!(found[1], ('a', vec![item(16, 8, Some(4))]));
    }

    #[test]
    fn zeros_stand_with_the_data_of_their_unit_and_mixed_units_are_left_out() {
        let found = plan(&[(3, data('a', 0)), (13, Holds::Zeros), (4, data('a', 3)), (4, data('b', 0))], 24);
        let item = |start, len, block| Item { extent: Extent::new(start, len), block };
        assert_eq!(found, [('a', vec![item(0, 3, Some(0)), item(3, 5, None)])]);
        assert!(plan(&[(4, data('a', 0)), (4, Holds::Unknown)], 8).is_empty());
        let short = plan(&[(8, Holds::Zeros), (3, data('a', 0))], 11);
        assert_eq!(short, [('a', vec![item(8, 3, Some(0))])], "the last unit of a disk may be short");
    }

    proptest! {
        #[test]
        fn prop_what_is_planned_is_what_the_pieces_say(
            pieces in prop::collection::vec((1u64..20, prop_oneof![
                Just(Holds::Zeros), Just(Holds::Unknown),
                (prop::sample::select(vec!['a', 'b']), 0u32..1000).prop_map(|(carrier, block)| data(carrier, block)),
            ]), 1..40),
        ) {
            let blocks: Vec<(char, u32)> = pieces.iter().flat_map(|(len, holds)| (0..*len as u32).map(move |n| match holds {
                Holds::Data { carrier, block } => (*carrier, block + n),
                Holds::Zeros => ('0', 0),
                Holds::Unknown => ('?', 0),
            })).collect();
            let disk = blocks.len() as u64;
            let mut planned = std::collections::BTreeMap::new();
            for (carrier, items) in plan(&pieces, disk) {
                prop_assert!(items.is_sorted_by_key(|item| item.extent.start));
                for item in items {
                    for n in 0..item.extent.len {
                        let is = item.block.map_or(('0', 0), |block| (carrier, block + n as u32));
                        prop_assert_eq!(planned.insert(item.extent.start + n, is), None, "twice");
                    }
                }
            }
            for start in (0..disk).step_by(8) {
                let unit = &blocks[start as usize..disk.min(start + 8) as usize];
                let data = |c: &char| c.is_alphabetic();
                let mut carriers: Vec<char> = unit.iter().map(|(c, _)| *c).filter(data).collect();
                carriers.dedup();
                carriers.sort_unstable();
                carriers.dedup();
                let wanted = carriers.len() == 1 && unit.iter().all(|(c, _)| *c != '?');
                for (n, block) in (start..).zip(unit) {
                    prop_assert_eq!(planned.get(&n), wanted.then_some(block), "block {}", n);
                }
            }
        }
    }
}
