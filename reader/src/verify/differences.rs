//! Finds which rows the index lacks, and which it has in addition, where fingerprints differ.
//!
//! A table may lack rows that no offered point needs, and a compact segment may, too, so it is not rows that are compared but what
//! the offered points need of them: once by the index alone, and once by the index with the suspected segments' own rows in place of
//! the index's. Each side goes through a [`Sweep`] in the order of blocks; what both need goes up in nothing at once, and what is left
//! in the end are the differences. Behind the horizon every row is needed, so there it is all rows.
//!
//! Memory: of each run a footer and a row group; [`ROWS_HELD_MAX`] rows of the suspected segments (48 MiB), so their heads are
//! read again for each so many of their rows; two sweeps; and [`EDGES_MAX`] edges of what is not settled (96 MiB).

use super::index::Truth;
use super::print::Version;
use super::{Damage, DamagedBlocks};
use crate::error::{Error, Result};
use crate::options::ReaderOptions;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use tidemark_bucket::ReadOnly;
use tidemark_extent_map::liveness::Sweep;
use tidemark_format::{DomainId, Extent, Lsn, ObjectKey, PlacedRow, Root, RowStart, TableKind, TableRef};
use tidemark_history::{Heads, Merged, Place, Rows, Tables, place_of};

/// Rows of suspected segments that are held at a time.
const ROWS_HELD_MAX: usize = 1 << 20;
/// Edges of pieces that only one side has shown yet. If there are more, the rest is not looked at.
const EDGES_MAX: usize = 1 << 20;
/// Blocks that are named for each table and segment.
pub(super) const BLOCKS_NAMED_MAX: usize = 64;

/// What is to be compared.
pub(super) struct Differences<'a> {
    pub(super) bucket: &'a ReadOnly,
    pub(super) domain: DomainId,
    pub(super) root: &'a Root,
    pub(super) truth: &'a Truth,
    /// Numbers of segments whose rows do not all stand in the index as they are.
    pub(super) suspects: BTreeSet<usize>,
}

impl Differences<'_> {
    /// All differences, by table and segment.
    pub(super) async fn find(&self, options: &ReaderOptions) -> Result<Vec<Damage>> {
        let tables = Tables::new(self.bucket.clone(), self.domain, 0);
        let heads = Heads::new(self.bucket.clone(), self.domain, &options.heads());
        let retained = self.root.offers();
        let standing = self.truth.standing();
        let runs = self.runs(retained.horizon.lsn).into_iter().map(|run| Rows::tables(&tables, run));
        let mut index = Merged::begin(runs.collect()).await?;
        let mut own = OwnRows { from: self, heads: &heads, rows: VecDeque::new(), next: Some(Place::default()) };
        let mut by_index = Sweep::new(&retained, &standing);
        let mut by_truth = Sweep::new(&retained, &standing);
        let mut edges = Edges::default();
        loop {
            let (of_index, of_truth) = (index.peek(), own.peek().await?);
            match (of_index, of_truth) {
                (None, None) => break,
                (Some(at), other) if other.is_none_or(|other| at <= other) => {
                    let Some(row) = index.next().await? else { break };
                    by_index.push(row);
                    if !self.is_suspect(row.row.lsn) {
                        by_truth.push(row);
                    }
                }
                _ => {
                    if let Some(row) = own.rows.pop_front() {
                        by_truth.push(row);
                    }
                }
            }
            self.drain(&mut by_index, 1, &mut edges);
            self.drain(&mut by_truth, -1, &mut edges);
            if edges.are_too_many() {
                break;
            }
        }
        by_index.finish();
        by_truth.finish();
        self.drain(&mut by_index, 1, &mut edges);
        self.drain(&mut by_truth, -1, &mut edges);
        Ok(self.named(&edges))
    }

    fn is_suspect(&self, lsn: Lsn) -> bool {
        self.truth.at(lsn).is_some_and(|at| self.suspects.contains(&at))
    }

    fn drain(&self, sweep: &mut Sweep, side: i32, edges: &mut Edges) {
        while let Some(needed) = sweep.poll() {
            let at = self.truth.at(needed.placed.row.lsn).filter(|at| self.suspects.contains(at));
            if let Some(at) = at {
                let version = Version::of(&needed.placed, self.truth.segments[at].kind());
                edges.add(version, needed.placed.row.extent, side);
            }
        }
    }

    /// The tables of rows of the runs that have to be looked at: up to the horizon all of them, for what hides what.
    fn runs(&self, horizon: Lsn) -> Vec<Vec<TableRef>> {
        let lsns: Vec<(Lsn, Lsn)> = self.suspects.iter().map(|at| self.truth.segments[*at].lsns()).collect();
        let below = lsns.iter().any(|(first, _)| *first <= horizon);
        let mut runs: BTreeMap<Lsn, Vec<TableRef>> = BTreeMap::new();
        for table in self.root.tables_of(TableKind::Rows) {
            let holds_suspect = lsns.iter().any(|(first, last)| table.first_lsn <= *last && *first <= table.last_lsn);
            if holds_suspect || (below && table.first_lsn <= horizon) {
                runs.entry(table.first_lsn).or_default().push(*table);
            }
        }
        runs.into_values().collect()
    }

    /// What is left, in words.
    fn named(&self, edges: &Edges) -> Vec<Damage> {
        let mut found: BTreeMap<(ObjectKey, usize, bool), Vec<DamagedBlocks>> = BTreeMap::new();
        for (version, extent, side) in edges.pieces() {
            let Version { disk, lsn, .. } = version;
            let Some(at) = self.truth.at(lsn) else { continue };
            let of_run = || {
                let tables = self.root.tables_of(TableKind::Rows);
                tables.filter(move |table| table.first_lsn <= lsn && lsn <= table.last_lsn)
            };
            // The one that the blocks would stand in.
            let start = RowStart { disk, block: extent.start };
            let table = of_run().rfind(|table| table.bounds.low <= start).or_else(|| of_run().next());
            let object = table.map_or(self.root.key(), TableRef::key);
            let blocks = found.entry((object, at, side > 0)).or_default();
            match blocks.last_mut() {
                Some(last) if last.disk == disk && last.extent.end() == extent.start => {
                    last.extent.len += extent.len;
                    (last.first_lsn, last.last_lsn) = (last.first_lsn.min(lsn), last.last_lsn.max(lsn));
                }
                _ => blocks.push(DamagedBlocks { disk, extent, first_lsn: lsn, last_lsn: lsn }),
            }
        }
        let named = found.into_iter().map(|((object, at, is_extra), mut blocks)| {
            let segment = self.truth.segments[at].key;
            let more = blocks.len().saturating_sub(BLOCKS_NAMED_MAX);
            blocks.truncate(BLOCKS_NAMED_MAX);
            let what = if is_extra { "it has rows that" } else { "it lacks rows that" };
            let verb = if is_extra { "has not" } else { "has" };
            let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
            let lsns = Some(self.truth.segments[at].lsns());
            Damage { lsns, blocks, ..Damage::of(object, format!("{what} {segment} {verb}{rest}")) }
        });
        let mut named: Vec<Damage> = named.collect();
        if edges.are_too_many() {
            let what = "it differs from the log in more places than are counted";
            named.push(Damage::of(self.root.key(), what));
        }
        named
    }
}

/// Where pieces begin (with the sign of their side) and end (with the other one). What both sides have adds up to nothing.
#[derive(Debug, Default)]
pub(super) struct Edges(BTreeMap<(Version, u64), i32>);

impl Edges {
    /// True if there are more than are counted.
    pub(super) fn are_too_many(&self) -> bool {
        self.0.len() > EDGES_MAX
    }

    pub(super) fn add(&mut self, version: Version, extent: Extent, side: i32) {
        for (block, sign) in [(extent.start, side), (extent.end(), -side)] {
            let edge = self.0.entry((version, block)).or_default();
            *edge += sign;
            if *edge == 0 {
                self.0.remove(&(version, block));
            }
        }
    }

    /// What only one side has, and which.
    pub(super) fn pieces(&self) -> Vec<(Version, Extent, i32)> {
        let mut pieces = Vec::new();
        let mut open: Option<(Version, u64, i32)> = None;
        for ((version, block), sign) in &self.0 {
            let (start, depth) = match open {
                Some((of, start, depth)) if of == *version => (start, depth),
                _ => (*block, 0),
            };
            if depth != 0 {
                pieces.push((*version, Extent::new(start, block - start), depth.signum()));
            }
            open = Some((*version, *block, depth + sign));
        }
        pieces
    }
}

/// The rows of the suspected segments themselves in one order, some at a time.
struct OwnRows<'a> {
    from: &'a Differences<'a>,
    heads: &'a Heads,
    rows: VecDeque<PlacedRow>,
    /// Where the next ones begin; `None` at the end.
    next: Option<Place>,
}

impl OwnRows<'_> {
    async fn peek(&mut self) -> Result<Option<Place>> {
        while self.rows.is_empty() {
            let Some(from) = self.next else { return Ok(None) };
            self.gather(from).await?;
        }
        Ok(self.rows.front().map(place_of))
    }

    /// The first rows from a place on, as many as may be held.
    async fn gather(&mut self, from: Place) -> Result<()> {
        let mut held: BinaryHeap<(Place, PlacedRow)> = BinaryHeap::new();
        let mut left_out: Option<Place> = None;
        for at in &self.from.suspects {
            let segment = self.heads.must(self.from.truth.segments[*at].key).await.map_err(Error::from)?;
            for row in segment.head.index.iter().filter(|row| place_of(row) >= from) {
                if left_out.is_some_and(|first| place_of(&row) >= first) {
                    continue;
                }
                held.push((place_of(&row), row));
                if held.len() > ROWS_HELD_MAX {
                    left_out = held.pop().map(|(place, _)| place);
                }
            }
        }
        self.rows = held.into_sorted_vec().into_iter().map(|(_, row)| row).collect();
        self.next = left_out;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_format::{DiskId, Row, RowKind, SegmentKind};

    #[test]
    fn what_both_sides_have_is_gone_however_it_is_cut_and_the_rest_is_named_with_its_side() {
        let version = |lsn| {
            let (disk, lsn) = (DiskId::new(1), Lsn::new(lsn));
            let row = Row { disk, extent: Extent::new(0, 1), lsn, kind: RowKind::Zero };
            Version::of(&PlacedRow { row, stream_block: 0 }, SegmentKind::Log)
        };
        let mut edges = Edges::default();
        edges.add(version(5), Extent::new(0, 10), 1);
        for start in [0, 4] {
            edges.add(version(5), Extent::new(start, if start == 0 { 4 } else { 6 }), -1);
        }
        assert!(edges.0.is_empty() && edges.pieces().is_empty());
        edges.add(version(5), Extent::new(10, 10), 1);
        edges.add(version(5), Extent::new(12, 3), -1);
        edges.add(version(6), Extent::new(20, 5), -1);
        let wanted = [(5, 10, 2, 1), (5, 15, 5, 1), (6, 20, 5, -1)];
        assert_eq!(edges.pieces(), wanted.map(|(lsn, start, len, side)| (version(lsn), Extent::new(start, len), side)));
    }
}
