//! Which versions of blocks some retained point still needs, in one pass over rows in the order of a table.
//!
//! Of the points up to the horizon only a few are retained: the kept ones and the horizon itself. They cut the LSNs into
//! *spans*, each of which ends with the one retained point that sees all of it. Such a point sees the newest version of a block,
//! so within a span a version is needed exactly where no newer one of the span covers it, and spans never look at one another.
//! Behind the horizon every point is retained, and so is every version.
//!
//! The sweep goes from block to block. For each span it keeps a stack of the versions that reach beyond the current block and
//! are not hidden to their end: the newest on top, each one below reaching further. What is on top is needed; where the top
//! changes, a piece ends and another begins. What base objects hold, and what is gone, takes part in it as [`Standing`].
//!
//! Invariants: pieces come in the order of rows, each as long as can be; of a row they never overlap. What cannot be judged
//! counts as needed. Memory: the versions up to the horizon that hold the current block and show at it or further on, at most
//! one a span if rows are alike, however often a block was written; one number a span; and [`PENDING_MAX`] pieces.
//! Time: a row costs O(log) of these.
//! Not here: which points are retained, where rows come from, and what is done about what is not needed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use tidemark_format::{BLOCK_BYTES, DiskId, Event, EventBody, Extent, Lsn, PlacedRow, Retained, RowKind, RowStart};

/// Pieces that wait for one that is in front of them and has not ended. If there are more, that one is cut.
const PENDING_MAX: usize = 1 << 16;

/// What a disk is said to hold by something other than a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The disk.
    pub disk: DiskId,
    /// The blocks.
    pub extent: Extent,
    /// Older versions are hidden by it, newer ones hide it.
    pub lsn: Lsn,
    /// The first point that knows it; from `lsn` on.
    pub known: Lsn,
    /// From this point on it does not count: what it hid shows again.
    pub until: Option<Lsn>,
}

impl Standing {
    /// An extent of a base object of the seeding that began at `start`. A SEED_EXTENT at `named` names it, and `next_start` is
    /// where the disk was seeded anew, if it was.
    pub fn base(disk: DiskId, extent: Extent, start: Lsn, named: Lsn, next_start: Option<Lsn>) -> Self {
        Self { disk, extent, lsn: start, known: named.max(start), until: next_start }
    }

    /// Nothing is left from block `from` on: the disk became as small as that at `lsn`, or was removed if `from` is 0.
    pub fn gone(disk: DiskId, from: u64, lsn: Lsn) -> Self {
        Self { disk, extent: Extent::new(from, u64::MAX - from), lsn, known: lsn, until: None }
    }
}

/// What events, in their order, say of blocks that are gone: [`Standing::gone`] for each disk that shrank or was removed.
#[derive(Clone, Debug, Default)]
pub struct Gone {
    sizes: HashMap<DiskId, u64>,
    found: Vec<Standing>,
}

impl Gone {
    /// Takes in the next event.
    pub fn follow(&mut self, event: &Event) {
        match event.body {
            EventBody::DiskAdd { disk, blocks, .. } => drop(self.sizes.insert(disk, blocks)),
            EventBody::DiskResize { disk, blocks }
                if self.sizes.insert(disk, blocks).is_some_and(|old| blocks < old) =>
            {
                self.found.push(Standing::gone(disk, blocks, event.lsn));
            }
            EventBody::DiskRemove { disk } => self.found.push(Standing::gone(disk, 0, event.lsn)),
            _ => {}
        }
    }

    /// What was found.
    pub fn into_standing(self) -> Vec<Standing> {
        self.found
    }
}

/// A row, or part of one, that some retained point needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The part, with the place of its own bytes.
    pub placed: PlacedRow,
    /// True for one part of each row of which anything is needed.
    pub is_first: bool,
}

/// Takes rows in, hands out what of them is needed.
///
/// ```text
/// for row in rows { sweep.push(row); while let Some(needed) = sweep.poll() { … } }
/// sweep.finish(); while let Some(needed) = sweep.poll() { … }
/// ```
#[derive(Debug)]
pub struct Sweep {
    /// The retained points up to the horizon: each ends a span.
    points: Vec<Lsn>,
    spans: Vec<Span>,
    /// What stands, in the order of rows, and which of what was given it is.
    standing: VecDeque<(Standing, usize)>,
    /// Needed blocks of each.
    standing_blocks: Vec<u64>,
    /// The current block. What came for it is not settled before another one comes.
    at: RowStart,
    /// Spans whose top may have changed at the current block.
    touched: Vec<usize>,
    /// Where versions that were on top of a span end.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    /// Pieces in order. Some have not ended.
    pending: VecDeque<Piece>,
    pending_max: usize,
    /// Pieces that were handed out before those.
    polled: u64,
    /// The last row, to notice one that is out of order.
    last: Option<(RowStart, Lsn)>,
    serial: u64,
}

#[derive(Debug, Default)]
struct Span {
    /// Newest last; ends descend.
    stack: Vec<Version>,
    showing: Option<Showing>,
    is_touched: bool,
}

#[derive(Debug)]
struct Version {
    lsn: Lsn,
    end: u64,
    serial: u64,
    /// Whether it was on top; then its end stands in the heap.
    was_shown: bool,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Row(PlacedRow),
    Standing(usize),
}

/// What is on top of a span since some block.
#[derive(Clone, Copy, Debug)]
struct Showing {
    serial: u64,
    as_what: As,
}

#[derive(Clone, Copy, Debug)]
enum As {
    /// The piece of this number.
    Piece(u64),
    Standing {
        number: usize,
        since: u64,
    },
}

#[derive(Debug)]
struct Piece {
    of: PlacedRow,
    start: u64,
    /// Where it ends, or whose top it still is.
    end: Result<u64, usize>,
    is_first: bool,
}

impl Sweep {
    /// A sweep over the rows of a domain that retains these points. `standing` is what its base objects, resized and removed
    /// disks say; any order is fine.
    pub fn new(retained: &Retained, standing: &[Standing]) -> Self {
        let points: Vec<Lsn> = retained.kept.iter().chain([&retained.horizon]).map(|mark| mark.lsn).collect();
        let mut sorted: Vec<(Standing, usize)> = standing.iter().copied().zip(0..).collect();
        sorted.sort_by_key(|(standing, _)| place(standing.disk, standing.extent));
        Self {
            spans: points.iter().map(|_| Span::default()).collect(),
            points,
            standing: sorted.into(),
            standing_blocks: vec![0; standing.len()],
            at: RowStart::default(),
            touched: Vec::new(),
            ends: BinaryHeap::new(),
            pending: VecDeque::new(),
            pending_max: PENDING_MAX,
            polled: 0,
            last: None,
            serial: 0,
        }
    }

    /// Takes in the next row in the order of (disk, first block, LSN). One that is out of order is needed and hides nothing.
    pub fn push(&mut self, placed: PlacedRow) {
        let row = placed.row;
        let start = place(row.disk, row.extent);
        if row.extent.len == 0 || self.last.is_some_and(|last| last > (start, row.lsn)) {
            return self.pass(placed);
        }
        self.last = Some((start, row.lsn));
        while let Some((standing, number)) = self.standing.pop_front_if(|(s, _)| place(s.disk, s.extent) <= start) {
            self.enter_standing(standing, number);
        }
        self.advance(Some(start));
        match self.span_of(row.lsn) {
            Some(span) => self.enter(span, row.lsn, row.extent.end(), What::Row(placed)),
            None => {
                // Rows of one block come in the order of LSNs: no older one comes for this block.
                self.settle();
                self.pass(placed);
                self.cut_pending();
            }
        }
    }

    /// The next piece, if it is known where it ends. To be asked until there is none, after each row and after the end.
    pub fn poll(&mut self) -> Option<Needed> {
        let Piece { of, start, end, is_first } = self.pending.pop_front_if(|piece| piece.end.is_ok())?;
        self.polled += 1;
        let (mut placed, skipped) = (of, start - of.row.extent.start);
        placed.row.extent = Extent::new(start, end.unwrap_or(start) - start);
        if of.row.kind == RowKind::Data {
            placed.stream_block += skipped;
        }
        Some(Needed { placed, is_first })
    }

    /// No row comes any more: what is left ends where it ends.
    pub fn finish(&mut self) {
        while let Some((standing, number)) = self.standing.pop_front() {
            self.enter_standing(standing, number);
        }
        self.advance(None);
        assert!(self.pending.iter().all(|piece| piece.end.is_ok()), "a piece did not end");
        assert!(self.spans.iter().all(|span| span.stack.is_empty()), "a version did not end");
    }

    /// Of each [`Standing`], in the order in which they were given: how many of its blocks are needed. Known after
    /// [`Self::finish`]. Exact, but for two kinds of base objects, of which too many blocks may seem needed: those of a seeding
    /// that is not the disk's last, and those that were named behind a retained point which itself is behind the beginning of the
    /// seeding. Where base objects of one seeding share a block, one of them is needed there.
    pub fn standing_blocks(&self) -> &[u64] {
        &self.standing_blocks
    }

    /// The span that ends with the first retained point that knows `lsn`; `None` behind the horizon.
    fn span_of(&self, lsn: Lsn) -> Option<usize> {
        let span = self.points.partition_point(|point| *point < lsn);
        (span < self.points.len()).then_some(span)
    }

    /// Hands out a row as it is.
    fn pass(&mut self, placed: PlacedRow) {
        let extent = placed.row.extent;
        self.pending.push_back(Piece { of: placed, start: extent.start, end: Ok(extent.end()), is_first: true });
    }

    fn enter_standing(&mut self, standing: Standing, number: usize) {
        let known_to = self.span_of(standing.known);
        match (known_to, standing.until) {
            // The first retained point that knows it is none that reads it.
            (Some(span), Some(until)) if self.points[span] >= until => {}
            // What it hid shows again once it does not count: it hides nothing, and is needed as a whole.
            (None, _) | (_, Some(_)) => self.standing_blocks[number] = standing.extent.len,
            (Some(span), None) if standing.extent.len > 0 => {
                self.advance(Some(place(standing.disk, standing.extent)));
                self.enter(span, standing.lsn, standing.extent.end(), What::Standing(number));
            }
            (Some(_), None) => {}
        }
    }

    /// Puts a version that begins at the current block into its span.
    fn enter(&mut self, number: usize, lsn: Lsn, end: u64, what: What) {
        let Span { stack, is_touched, .. } = &mut self.spans[number];
        if !std::mem::replace(is_touched, true) {
            self.touched.push(number);
        }
        stack.truncate(stack.iter().rposition(|version| version.end > self.at.block).map_or(0, |last| last + 1));
        let newer = stack.partition_point(|version| version.lsn < lsn);
        if stack.get(newer).is_some_and(|newer| newer.end >= end) {
            return;
        }
        let hidden = stack[..newer].iter().rev().take_while(|older| older.end <= end).count();
        self.serial += 1;
        let version = Version { lsn, end, serial: self.serial, was_shown: false, what };
        stack.splice(newer - hidden..newer, [version]);
    }

    /// Goes on to a later block, or to the end, from one end of a version to the next.
    fn advance(&mut self, to: Option<RowStart>) {
        while to.is_none_or(|to| self.at < to) {
            self.settle();
            let next = self.ends.peek().map(|Reverse((end, _))| *end);
            let on_the_way = |end: &u64| to.is_none_or(|to| self.at.disk < to.disk || *end <= to.block);
            let Some(end) = next.filter(on_the_way) else {
                self.at = to.unwrap_or(self.at);
                return;
            };
            self.at.block = end;
            while let Some(top) = self.ends.peek_mut().filter(|top| top.0.0 == end) {
                let Reverse((_, span)) = std::collections::binary_heap::PeekMut::pop(top);
                if !std::mem::replace(&mut self.spans[span].is_touched, true) {
                    self.touched.push(span);
                }
            }
        }
    }

    /// Everything has come for the current block: ends the pieces of versions that are no longer on top, begins those of
    /// versions that are.
    fn settle(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        let at = self.at.block;
        // Spans ascend in LSNs, and so do the pieces that begin here.
        self.touched.sort_unstable();
        for number in std::mem::take(&mut self.touched) {
            let span = &mut self.spans[number];
            span.is_touched = false;
            while span.stack.pop_if(|version| version.end <= at).is_some() {}
            let top = span.stack.last_mut();
            if top.as_ref().map(|top| top.serial) == span.showing.map(|showing| showing.serial) {
                continue;
            }
            match span.showing.take().map(|showing| showing.as_what) {
                Some(As::Piece(piece)) => self.pending[(piece - self.polled) as usize].end = Ok(at),
                Some(As::Standing { number, since }) => self.standing_blocks[number] += at - since,
                None => {}
            }
            let Some(top) = top else { continue };
            let is_first = !std::mem::replace(&mut top.was_shown, true);
            if is_first {
                self.ends.push(Reverse((top.end, number)));
            }
            let as_what = match top.what {
                What::Row(of) => {
                    self.pending.push_back(Piece { of, start: at, end: Err(number), is_first });
                    As::Piece(self.polled + self.pending.len() as u64 - 1)
                }
                What::Standing(number) => As::Standing { number, since: at },
            };
            span.showing = Some(Showing { serial: top.serial, as_what });
        }
        self.cut_pending();
    }

    /// Cuts pieces that too many others wait for behind the current block, which is settled. The next block goes on with them.
    fn cut_pending(&mut self) {
        let behind = self.at.block.saturating_add(1);
        let too_many = self.pending.len().saturating_sub(self.pending_max);
        for piece in self.pending.iter_mut().take(too_many) {
            if let Err(span) = piece.end {
                piece.end = Ok(behind);
                self.spans[span].showing = None;
                self.ends.push(Reverse((behind, span)));
            }
        }
    }
}

fn place(disk: DiskId, extent: Extent) -> RowStart {
    RowStart { disk, block: extent.start }
}

/// What of an object is there, and what of that is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rows.
    pub rows: u64,
    /// Rows of which at least a part is needed.
    pub needed_rows: u64,
    /// Plaintext of data rows.
    pub data_bytes: u64,
    /// Plaintext that is needed.
    pub needed_data_bytes: u64,
}

/// Adds up, object by object, how much is there and how much is needed. Memory: 40 bytes an object.
#[derive(Debug)]
pub struct Tally {
    /// The first LSN of each object, ascending.
    firsts: Vec<Lsn>,
    objects: Vec<Usage>,
}

impl Tally {
    /// Of objects that hold LSNs from these on, in ascending order, each until the next one. LSNs before the first belong to it.
    pub fn new(firsts: Vec<Lsn>) -> Self {
        Self { objects: vec![Usage::default(); firsts.len()], firsts }
    }

    /// Adds a row.
    pub fn count(&mut self, row: &PlacedRow) {
        if let Some(object) = self.object_of(row.row.lsn) {
            object.rows += 1;
            object.data_bytes += data_bytes(row);
        }
    }

    /// Adds what is needed of a row.
    pub fn count_needed(&mut self, needed: &Needed) {
        if let Some(object) = self.object_of(needed.placed.row.lsn) {
            object.needed_rows += u64::from(needed.is_first);
            object.needed_data_bytes += data_bytes(&needed.placed);
        }
    }

    /// The sums, one an object.
    pub fn objects(&self) -> &[Usage] {
        &self.objects
    }

    fn object_of(&mut self, lsn: Lsn) -> Option<&mut Usage> {
        let number = self.firsts.partition_point(|first| *first <= lsn).saturating_sub(1);
        self.objects.get_mut(number)
    }
}

fn data_bytes(placed: &PlacedRow) -> u64 {
    if placed.row.kind == RowKind::Data { placed.row.extent.len * BLOCK_BYTES } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};
    use tidemark_format::{Mark, Row, TimeNs};

    const DISKS: u32 = 2;
    const BLOCKS: u64 = 24;

    /// What happens at one LSN.
    #[derive(Clone, Debug)]
    enum Op {
        Write { disk: u32, start: u64, len: u64, kind: RowKind, gap: Option<u64> },
        SeedStart { disk: u32 },
        SeedExtent { disk: u32, start: u64, len: u64 },
        Shrink { disk: u32, from: u64 },
        Remove { disk: u32 },
        Other,
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let disk = || 0..DISKS;
        let kind = prop_oneof![3 => Just(RowKind::Data), 1 => Just(RowKind::Zero), 1 => Just(RowKind::Unmap)];
        let write = (disk(), 0..BLOCKS, prop_oneof![1u64..4, 1..=BLOCKS], kind, prop::option::of(1u64..3));
        prop_oneof![
            20 => write.prop_map(|(disk, start, len, kind, gap)| Op::Write { disk, start, len, kind, gap }),
            1 => disk().prop_map(|disk| Op::SeedStart { disk }),
            4 => (disk(), 0..BLOCKS, 1u64..12).prop_map(|(disk, start, len)| Op::SeedExtent { disk, start, len }),
            1 => (disk(), 0..BLOCKS).prop_map(|(disk, from)| Op::Shrink { disk, from }),
            1 => disk().prop_map(|disk| Op::Remove { disk }),
            1 => Just(Op::Other),
        ]
    }

    /// A history as the log tells it.
    #[derive(Debug, Default)]
    struct History {
        rows: Vec<PlacedRow>,
        /// (what it is, LSN of the seeding that it belongs to) of base objects; none for what is gone.
        standing: Vec<(Standing, Option<Lsn>)>,
        seed_starts: Vec<(DiskId, Lsn)>,
        newest: Lsn,
    }

    fn history(ops: &[Op]) -> History {
        let mut all = History::default();
        let mut removed = BTreeSet::new();
        let mut place = 0;
        for (lsn, op) in (1..).map(Lsn::new).zip(ops) {
            all.newest = lsn;
            match *op {
                Op::Write { disk, start, len, kind, gap } if !removed.contains(&disk) => {
                    // A guest write is several rows if it has zeros in it.
                    let middle = gap.map_or(len, |_| len / 2).max(1);
                    let behind = (start + middle + gap.unwrap_or(0), len - middle);
                    for (start, len) in [(start, middle), behind].into_iter().filter(|(_, len)| *len > 0) {
                        let row = Row { disk: DiskId::new(disk), extent: Extent::new(start, len), lsn, kind };
                        all.rows.push(PlacedRow { row, stream_block: place });
                        place += if kind == RowKind::Data { len } else { 0 };
                    }
                }
                Op::SeedStart { disk } => all.seed_starts.push((DiskId::new(disk), lsn)),
                Op::SeedExtent { disk, start, len } => {
                    let disk = DiskId::new(disk);
                    let seed = all.seed_starts.iter().rev().find(|(of, _)| *of == disk);
                    let extent = Extent::new(start, len);
                    let is_there = |(other, of): &(Standing, Option<Lsn>)| {
                        other.disk == disk && *of == seed.map(|(_, at)| *at) && other.extent.overlaps(extent)
                    };
                    if let Some((_, at)) = seed.filter(|_| !all.standing.iter().any(is_there)) {
                        all.standing.push((Standing::base(disk, extent, *at, lsn, None), Some(*at)));
                    }
                }
                Op::Shrink { disk, from } => all.standing.push((Standing::gone(DiskId::new(disk), from, lsn), None)),
                Op::Remove { disk } => {
                    removed.insert(disk);
                    all.standing.push((Standing::gone(DiskId::new(disk), 0, lsn), None));
                }
                _ => {}
            }
        }
        for (standing, seed) in &mut all.standing {
            let next = all.seed_starts.iter().find(|(of, at)| *of == standing.disk && seed.is_some_and(|s| *at > s));
            standing.until = next.map(|(_, at)| *at).filter(|_| seed.is_some());
        }
        all.rows.sort_by_key(|placed| (placed.row.disk, placed.row.extent.start, placed.row.lsn));
        all
    }

    /// Blocks that are needed: of each row, by number, and of what stands.
    type Blocks = BTreeSet<(usize, u64)>;

    /// Reads every block at every retained point (R-5).
    fn model(history: &History, retained: &Retained) -> (Blocks, Blocks) {
        let (mut rows, mut standing) = (Blocks::new(), Blocks::new());
        let points = (1..=history.newest.get().max(60)).map(Lsn::new).filter(|lsn| retained.offers(*lsn));
        for (point, disk) in points.flat_map(|point| (0..DISKS).map(move |disk| (point, DiskId::new(disk)))) {
            let seed = history.seed_starts.iter().rev().find(|(of, at)| *of == disk && *at <= point).map(|(_, at)| *at);
            for block in 0..2 * BLOCKS + 3 {
                let holds = |extent: Extent| extent.overlaps(Extent::new(block, 1));
                let of_rows = history.rows.iter().enumerate().filter(|(_, placed)| {
                    let row = placed.row;
                    row.disk == disk && holds(row.extent) && row.lsn <= point
                });
                let of_standing = history.standing.iter().enumerate().filter(|(_, (standing, of))| {
                    let of_seed = of.is_none() || *of == seed;
                    standing.disk == disk && holds(standing.extent) && standing.known <= point && of_seed
                });
                let newest_row = of_rows.max_by_key(|(_, placed)| placed.row.lsn);
                let newest_standing = of_standing.max_by_key(|(_, (standing, _))| standing.lsn);
                match (newest_row, newest_standing) {
                    (Some((_, row)), Some((number, (standing_there, _)))) if standing_there.lsn > row.row.lsn => {
                        standing.insert((number, block));
                    }
                    (Some((number, _)), _) => drop(rows.insert((number, block))),
                    (None, Some((number, _))) => drop(standing.insert((number, block))),
                    (None, None) => {}
                }
            }
        }
        (rows, standing)
    }

    fn retained(kept: &[u64], horizon: u64) -> Retained {
        let mark = |lsn: u64| Mark { lsn: Lsn::new(lsn), time: TimeNs::default() };
        Retained { horizon: mark(horizon), kept: kept.iter().copied().map(mark).collect() }
    }

    /// Everything that a sweep hands out, and what it says of what stands.
    fn sweep(history: &History, retained: &Retained, pending_max: usize) -> (Vec<Needed>, Vec<u64>) {
        let standing: Vec<Standing> = history.standing.iter().map(|(standing, _)| *standing).collect();
        let mut sweep = Sweep { pending_max, ..Sweep::new(retained, &standing) };
        let mut out = Vec::new();
        for row in &history.rows {
            sweep.push(*row);
            out.extend(std::iter::from_fn(|| sweep.poll()));
            assert!(sweep.pending.len() <= pending_max.max(2 * sweep.spans.len()) + 1, "{}", sweep.pending.len());
        }
        sweep.finish();
        out.extend(std::iter::from_fn(|| sweep.poll()));
        (out, sweep.standing_blocks().to_vec())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(4096)))]

        /// Against a model that reads every block at every retained point.
        #[test]
        fn prop_needed_is_exactly_what_some_retained_point_reads(
            ops in vec(any_op(), 1..60),
            points in btree_set(1u64..60, 1..6),
            pending_max in prop_oneof![Just(PENDING_MAX), 1usize..6],
        ) {
            let points: Vec<u64> = points.into_iter().collect();
            let (horizon, kept) = points.split_last().expect("at least one");
            let (history, retained) = (history(&ops), retained(kept, *horizon));
            let (rows_wanted, standing_wanted) = model(&history, &retained);
            let (out, standing_blocks) = sweep(&history, &retained, pending_max);

            let order = |placed: &PlacedRow| (placed.row.disk, placed.row.extent.start, placed.row.lsn);
            prop_assert!(out.is_sorted_by(|a, b| order(&a.placed) < order(&b.placed)), "{out:#?}");
            let mut rows = Blocks::new();
            let mut parts: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
            for Needed { placed, is_first } in &out {
                let of = history.rows.iter().enumerate().find(|(_, whole)| {
                    let (part, whole) = (placed.row, whole.row);
                    (part.lsn, part.disk, part.kind) == (whole.lsn, whole.disk, whole.kind)
                        && whole.extent.start <= part.extent.start && part.extent.end() <= whole.extent.end()
                });
                let (number, whole) = of.expect("a part of a row");
                let skipped = placed.row.extent.start - whole.row.extent.start;
                let data = placed.row.kind == RowKind::Data;
                prop_assert_eq!(placed.stream_block, whole.stream_block + if data { skipped } else { 0 });
                prop_assert!(placed.row.extent.len > 0);
                let (firsts, end) = parts.entry(number).or_default();
                *firsts += u64::from(*is_first);
                prop_assert!(pending_max < PENDING_MAX || *end == 0 || *end < placed.row.extent.start, "cut in vain");
                *end = placed.row.extent.end();
                let blocks = placed.row.extent.start..placed.row.extent.end();
                prop_assert!(blocks.into_iter().all(|block| rows.insert((number, block))), "twice");
            }
            // A disk that was seeded again shows what its first seeding hid: not all of that is looked for.
            let seeded_once = history.standing.iter().all(|(standing, _)| standing.until.is_none());
            prop_assert!(rows.is_superset(&rows_wanted), "{rows:?} of {rows_wanted:?}");
            prop_assert!(!seeded_once || rows == rows_wanted, "{rows:?} of {rows_wanted:?}");
            prop_assert!(parts.values().all(|(firsts, _)| *firsts == 1));

            for (number, (standing, seed)) in history.standing.iter().enumerate().filter(|(_, (_, of))| of.is_some()) {
                let wanted = standing_wanted.iter().filter(|(of, _)| *of == number).count() as u64;
                let (start, found) = (seed.expect("a seed"), standing_blocks[number]);
                prop_assert!(wanted <= found, "{standing:?}: {found} of {wanted} blocks needed");
                let named_late = (start.get()..standing.known.get()).any(|lsn| retained.offers(Lsn::new(lsn)));
                prop_assert!(!seeded_once || named_late || wanted == found, "{standing:?}: {found} of {wanted} blocks needed");
            }
        }

        /// However the rows are cut into objects, the sums are those of the rows.
        #[test]
        fn prop_a_tally_says_what_of_each_object_is_needed(
            mut ops in vec(any_op(), 1..60), horizon in 1u64..60, firsts in btree_set(1u64..60, 1..6),
        ) {
            ops.retain(|op| !matches!(op, Op::SeedStart { .. }));
            let (history, retained) = (history(&ops), retained(&[], horizon));
            let (wanted, _) = model(&history, &retained);
            let firsts: Vec<Lsn> = firsts.into_iter().map(Lsn::new).collect();
            let mut tally = Tally::new(firsts.clone());
            history.rows.iter().for_each(|row| tally.count(row));
            sweep(&history, &retained, PENDING_MAX).0.iter().for_each(|needed| tally.count_needed(needed));
            let mut sums = vec![Usage::default(); firsts.len()];
            for (number, placed) in history.rows.iter().enumerate() {
                let object = firsts.iter().rposition(|first| *first <= placed.row.lsn).unwrap_or(0);
                let blocks = wanted.iter().filter(|(of, _)| *of == number).count() as u64;
                let bytes = if placed.row.kind == RowKind::Data { BLOCK_BYTES } else { 0 };
                sums[object].rows += 1;
                sums[object].needed_rows += u64::from(blocks > 0);
                sums[object].data_bytes += placed.row.extent.len * bytes;
                sums[object].needed_data_bytes += blocks * bytes;
            }
            prop_assert_eq!(tally.objects(), sums);
        }
    }

    fn row(start: u64, len: u64, lsn: u64) -> PlacedRow {
        let (disk, extent, lsn) = (DiskId::new(1), Extent::new(start, len), Lsn::new(lsn));
        PlacedRow { row: Row { disk, extent, lsn, kind: RowKind::Data }, stream_block: 1000 * lsn.get() }
    }

    fn all_of(rows: &[PlacedRow], retained: &Retained) -> Vec<(u64, u64, u64)> {
        let history = History { rows: rows.to_vec(), ..History::default() };
        let parts = sweep(&history, retained, PENDING_MAX).0;
        parts
            .iter()
            .map(|part| (part.placed.row.extent.start, part.placed.row.extent.len, part.placed.row.lsn.get()))
            .collect()
    }

    #[test]
    fn a_row_is_split_where_only_its_middle_was_overwritten() {
        let rows = [row(0, 10, 1), row(3, 2, 2)];
        assert_eq!(all_of(&rows, &retained(&[], 2)), [(0, 3, 1), (3, 2, 2), (5, 5, 1)]);
        assert_eq!(all_of(&rows, &retained(&[1], 2)), [(0, 10, 1), (3, 2, 2)], "the kept point sees all of it");
        assert_eq!(all_of(&rows, &retained(&[], 1)), [(0, 10, 1), (3, 2, 2)], "as does the horizon");
    }

    #[test]
    fn the_newest_version_stays_however_old_it_is() {
        assert_eq!(all_of(&[row(0, 8, 1), row(0, 8, 2)], &retained(&[], 900)), [(0, 8, 2)]);
    }

    #[test]
    fn a_row_out_of_order_is_kept_and_hides_nothing() {
        let rows = [row(8, 8, 1), row(0, 16, 2), row(8, 0, 3), row(9, 1, 4)];
        assert_eq!(all_of(&rows, &retained(&[], 9)), [(0, 16, 2), (8, 0, 3), (8, 1, 1), (9, 1, 4), (10, 6, 1)]);
    }

    /// A journal is written at one place for ever: only what can still matter is remembered.
    #[test]
    fn memory_does_not_follow_how_often_a_block_was_written() {
        let mut sweep = Sweep::new(&retained(&[1000, 2000], 3000), &[]);
        let mut needed = 0;
        for lsn in 1..=100_000 {
            sweep.push(row(0, 8, lsn));
            needed += std::iter::from_fn(|| sweep.poll()).count();
            let open: usize = sweep.spans.iter().map(|span| span.stack.len()).sum();
            assert!(open <= 3 && sweep.ends.len() <= 6 && sweep.touched.len() <= 3, "{open} at {lsn}");
            assert!(sweep.pending.len() <= PENDING_MAX, "{}", sweep.pending.len());
        }
        sweep.finish();
        needed += std::iter::from_fn(|| sweep.poll()).count();
        // One block of each version that waited too long was handed out by itself.
        assert_eq!(needed, 97_000 + 3 + 3);
    }
}
