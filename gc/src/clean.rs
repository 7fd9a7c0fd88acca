//! Rewrites what is mostly dead, says so in a ledger and a root, and deletes what nobody needs any more.
//!
//! The order of SPEC.md §deleting is the whole safety of it: claim, read, put, publish, check, list the pins, delete. A pass that is
//! killed anywhere leaves objects that nobody names; the next pass deletes them.
//!
//! Memory: for each segment up to the horizon some 100 bytes, for each object of the bucket its key, and what
//! [`crate::MaintenanceOptions::rows_held_max`] and [`crate::rewrite`] say.

use crate::core::compact::{Survey, choose, usage_of};
use crate::core::garbage::Reach;
use crate::core::liveness::{Gone, Needed, Standing};
use crate::core::plan::{Run, runs};
use crate::error::{Error, Result};
use crate::maintainer::{Maintainer, PassReport};
use crate::output::Part;
use crate::quarantine::{quarantined, refuse};
use crate::rewrite::{Group, compact};
use crate::status::newest_root;
use crate::sweeping::Sweeping;
use futures::stream::{self, StreamExt};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use tidemark_bucket::{Deleter, MeterSnapshot, Op, ReadOnly};
use tidemark_format::{
    Epoch, ErrorKind, Expect, KeyFamily, Ledger, LedgerPart, Lsn, ObjectKey, Pin, PlacedRow, Retained, Role, Root,
    RowKind, SegmentIdentity, SegmentKind, SegmentRow, TableKind, TableRef, Through, TimeNs,
};
use tidemark_history::{Rows, Tables};
use tidemark_prices::{Requests, Usage};

/// Deletions that are under way at a time.
const DELETES_AT_A_TIME: usize = 16;
/// Rows are dropped from the tables of a run if so many percent of them are needed by no point.
const DEAD_ROWS_PERCENT_MIN: u64 = 50;

/// Rows of a row group of a table of rows.
const GROUP_ROWS: u64 = 8192;
/// Listings of a pass that deletes.
const LISTS: u64 = 5 + 2 * 2;

/// What cleaning did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanReport {
    /// Segments that were replaced by compact ones.
    pub replaced: u64,
    /// Bytes of those.
    pub replaced_bytes: u64,
    /// Compact segments that were made.
    pub compacts: u64,
    /// Bytes that were fetched for them, heads not counted. Of a plan: as estimated.
    pub fetched_bytes: u64,
    /// Bytes of them. Of a plan: as estimated.
    pub written_bytes: u64,
    /// Rows that were dropped from tables of the index. Of a plan: that would be.
    pub rows_dropped: u64,
    /// Objects that were deleted. Of a plan: those that could be at once, and those that would be replaced.
    pub deleted: u64,
    /// Bytes of those.
    pub deleted_bytes: u64,
    /// Objects that the store would not delete yet: they are locked.
    pub locked: u64,
    /// What it asked of the store; of a plan: as estimated, without what the next pass indexes.
    pub usage: Usage,
    /// Pins that were honoured.
    pub pins: u64,
    /// Why older data cannot be cleaned though points were dropped, if so.
    pub held_back: Option<&'static str>,
}

fn add_usage(sum: &mut Usage, more: &Usage) {
    let (to, of) = (&mut sum.requests, more.requests);
    *to = Requests {
        put: to.put + of.put,
        get: to.get + of.get,
        list: to.list + of.list,
        delete: to.delete + of.delete,
        head: to.head + of.head,
    };
    sum.read_bytes += more.read_bytes;
}

fn usage_since(now: &MeterSnapshot, before: &MeterSnapshot) -> Usage {
    let asked = now.since(before);
    let count = |op| asked.total(op).requests;
    let (put, get, list) = (count(Op::Put), count(Op::Get), count(Op::List));
    let requests = Requests { put, get, list, delete: count(Op::Delete), head: count(Op::Head) };
    Usage { requests, read_bytes: asked.total(Op::Get).bytes }
}

/// What of the history is needed, segment by segment.
struct Surveyed {
    /// Every segment that ends there or before, in LSN order.
    segments: Vec<Survey>,
    groups: Vec<Range<usize>>,
    /// Of each run of the root: how many of its rows, and parts of rows, are needed.
    needed_rows: Vec<u64>,
    standing: Vec<Standing>,
}

/// Where the part of the history ends that a CUT has closed.
fn closed_before(root: &Root) -> Option<Lsn> {
    let [.., _, newest] = root.epochs.as_slice() else { return None };
    newest.first_lsn.get().checked_sub(1).map(Lsn::new)
}

impl Maintainer {
    /// Deletes what no offered point, no pin and no reader of the log needs, and rewrites what is mostly not needed. Nothing is
    /// claimed if there is nothing to do.
    ///
    /// # Errors
    /// `Fenced` once a newer maintainer has claimed; damage of the log, the index or a pin: then nothing was deleted; store errors.
    pub async fn clean(&mut self, deleter: &Deleter, mut progress: impl FnMut(&CleanReport)) -> Result<CleanReport> {
        let before = self.bucket.meter().snapshot();
        let Some(mut root) = self.newest_root().await? else { return Ok(CleanReport::default()) };
        refuse(&root, &quarantined(self.bucket.read_only(), self.domain).await?)?;
        let mut surveyed = self.survey(&root).await?;
        if surveyed.groups.is_empty() && !self.has_garbage(&root).await? {
            return Ok(CleanReport { held_back: surveyed.held_back(&root), ..CleanReport::default() });
        }
        //= SPEC.md#deleting
        //# D-1
        (self.owned, self.base) = (None, None);
        self.owned().await?;
        let newest = self.newest_root().await?;
        if let Some(newest) = newest.filter(|newest| newest.key() != root.key()) {
            refuse(&newest, &quarantined(self.bucket.read_only(), self.domain).await?)?;
            surveyed = self.survey(&newest).await?;
            root = newest;
        }
        let mut report = CleanReport { held_back: surveyed.held_back(&root), ..CleanReport::default() };
        let root = self.rewrite(root, surveyed, &mut report, &mut progress).await?;
        //= SPEC.md#deleting
        //# D-2
        let has_ledger = self.roots.newest_ledger().await?.is_some();
        let ledger = if report.compacts > 0 || has_ledger { self.put_ledger(&root).await? } else { None };
        let root = self.publish(root, &mut PassReport::default()).await?;
        // It was seen there that nobody newer has claimed: only now are the pins listed.
        let reach = self.reach(root.epoch, &root, ledger.as_ref()).await?;
        report.pins = reach.pins;
        delete(deleter, &reach, &mut report, &mut progress).await?;
        report.usage = usage_since(&self.bucket.meter().snapshot(), &before);
        Ok(report)
    }

    /// What the next pass would do, if these points were offered; those of the newest root, if nothing else is said.
    ///
    /// # Errors
    /// As [`Self::clean`].
    pub async fn plan_clean(&self, retained: Option<Retained>) -> Result<CleanReport> {
        let Some(mut root) = newest_root(self.bucket.read_only(), self.domain).await? else {
            return Ok(CleanReport::default());
        };
        refuse(&root, &quarantined(self.bucket.read_only(), self.domain).await?)?;
        root.retained = retained.or(root.retained);
        let surveyed = self.survey(&root).await?;
        let mut report = CleanReport { held_back: surveyed.held_back(&root), ..CleanReport::default() };
        for group in &surveyed.groups {
            let group = &surveyed.segments[group.clone()];
            report.compacts += 1;
            report.replaced += group.len() as u64;
            report.replaced_bytes += group.iter().map(|survey| survey.bytes).sum::<u64>();
            report.written_bytes += group.iter().map(Survey::live_bytes).sum::<u64>();
            add_usage(&mut report.usage, &usage_of(group));
        }
        report.fetched_bytes = report.written_bytes;
        report.rows_dropped = surveyed.droppable(&root).iter().map(|(_, rows)| rows).sum();
        let ledger = self.roots.newest_ledger().await?;
        let reach = self.reach(root.epoch.next(), &root, ledger.as_ref()).await?;
        report.pins = reach.pins;
        for (_, bytes) in garbage(self.bucket.read_only(), &reach).await? {
            report.deleted += 1;
            report.deleted_bytes += bytes;
        }
        report.usage.requests.delete += report.deleted;
        report.deleted += report.replaced;
        report.deleted_bytes += report.replaced_bytes;
        if report.deleted > 0 {
            // A claim, a ledger, a root and its copy; each family of keys once, and pins and quarantine before it and behind.
            report.usage.requests.put += 4;
            report.usage.requests.list += LISTS;
            // To see what is needed, all tables of rows are read: once, and once more for what is gathered.
            let sweeps = if surveyed.groups.is_empty() { 1 } else { 2 };
            let tables = root.tables_of(TableKind::Rows);
            let (groups, bytes) = tables.fold((0, 0), |(groups, bytes), table| {
                (groups + table.rows.div_ceil(GROUP_ROWS) + 1, bytes + table.len)
            });
            report.usage.requests.get += sweeps * groups;
            report.usage.read_bytes += sweeps * bytes;
        }
        Ok(report)
    }

    async fn reach(&self, own: Epoch, root: &Root, ledger: Option<&Ledger>) -> Result<Reached> {
        reach(self.bucket.read_only(), &self.tables, (own, root, ledger), self.env.clock.wall()).await
    }

    async fn has_garbage(&self, root: &Root) -> Result<bool> {
        let ledger = self.roots.newest_ledger().await?;
        let reach = self.reach(root.epoch.next(), root, ledger.as_ref()).await?;
        Ok(!garbage(self.bucket.read_only(), &reach).await?.is_empty())
    }

    /// Looks at all that the index knows of the history up to the horizon.
    async fn survey(&self, root: &Root) -> Result<Surveyed> {
        let retained = root.offers();
        let through = closed_before(root).map_or(Lsn::ZERO, |closed| closed.min(retained.horizon.lsn));
        let all = runs(root);
        // Behind the horizon everything is needed, and no sweep looks at it.
        let horizon = retained.horizon.lsn;
        let mut surveyed = Surveyed {
            segments: Vec::new(),
            groups: Vec::new(),
            needed_rows: all.iter().map(|run| if run.first > horizon { u64::MAX } else { 0 }).collect(),
            standing: standing(&self.tables, root).await?,
        };
        let run_of = |lsn: Lsn| all.partition_point(|run| run.last < lsn);
        let add = |row: &SegmentRow| {
            surveyed.segments.extend((row.last_lsn <= through).then(|| Survey::of(row, run_of(row.first_lsn))));
        };
        self.tables.for_each_segment(root, Lsn::new(1)..=through, add).await?;
        if surveyed.segments.is_empty() {
            return Ok(surveyed);
        }
        let mut sweeping = sweep(&self.tables, root, &retained, &surveyed.standing).await?;
        while let Some(needed) = sweeping.next().await? {
            let row = needed.placed.row;
            surveyed.needed_rows[run_of(row.lsn)] += 1;
            let at = surveyed.segments.partition_point(|survey| survey.last < row.lsn);
            if let Some(survey) = surveyed.segments.get_mut(at) {
                survey.needed_rows += 1;
                survey.needed_blocks += if row.kind == RowKind::Data { row.extent.len } else { 0 };
            }
        }
        surveyed.groups = choose(&surveyed.segments, through, &self.options);
        Ok(surveyed)
    }

    /// Puts the compact segments, and the tables that name them; the root comes back unpublished.
    async fn rewrite(
        &mut self,
        mut root: Root,
        surveyed: Surveyed,
        report: &mut CleanReport,
        progress: &mut impl FnMut(&CleanReport),
    ) -> Result<Root> {
        let Some(retained) = root.retained.clone() else { return Ok(root) };
        let droppable = surveyed.droppable(&root);
        let mut made: BTreeMap<Lsn, SegmentRow> = BTreeMap::new();
        let mut left = surveyed.groups.as_slice();
        let mut drop_from: Vec<usize> = droppable.iter().map(|(run, _)| *run).collect();
        while !left.is_empty() || !drop_from.is_empty() {
            // As many groups as fit into memory, the first one in any case; what one sweep can show, in the order of LSNs, is gathered in one.
            let (mut rows, mut end) = (0, 0);
            let fits = left.iter().take_while(|group| {
                rows += surveyed.segments[(*group).clone()].iter().map(|survey| survey.needed_rows).sum::<u64>();
                let ascends = end <= group.start;
                end = group.end;
                ascends && rows <= self.options.rows_held_max
            });
            let (now, later) = left.split_at(fits.count().max(1).min(left.len()));
            let mut needed: Vec<Vec<PlacedRow>> = vec![Vec::new(); now.len()];
            let tables = self.gather(&root, &retained, &surveyed, now, &drop_from, &mut needed).await?;
            for (range, needed) in now.iter().zip(needed) {
                let group = &surveyed.segments[range.clone()];
                let mut rows = Vec::new();
                let lsns = group[0].first..=group[group.len() - 1].last;
                self.tables.for_each_segment(&root, lsns, |row| rows.push(row.clone())).await?;
                let row = self.put_compact(Group { rows, needed }, &retained, report).await?;
                report.replaced += group.len() as u64;
                report.replaced_bytes += group.iter().map(|survey| survey.bytes).sum::<u64>();
                made.insert(row.first_lsn, row);
                progress(report);
            }
            if !drop_from.is_empty() {
                let all = runs(&root);
                let is_old = |table: &TableRef| drop_from.iter().any(|run| all[*run].owns(table));
                root.tables.retain(|table| table.kind != TableKind::Rows || !is_old(table));
                root.tables.extend(tables);
                drop_from.clear();
            }
            left = later;
        }
        report.rows_dropped = droppable.iter().map(|(_, rows)| rows).sum();
        self.name_compacts(&mut root, made).await?;
        root.sort_tables();
        Ok(root)
    }

    /// One sweep: gathers what the groups need, and writes the tables of the runs `drop_from` anew, without rows that nobody needs.
    async fn gather(
        &mut self,
        root: &Root,
        retained: &Retained,
        surveyed: &Surveyed,
        groups: &[Range<usize>],
        drop_from: &[usize],
        needed: &mut [Vec<PlacedRow>],
    ) -> Result<Vec<TableRef>> {
        let all = runs(root);
        let rows_max = self.options.table_rows_max;
        let mut parts: HashMap<usize, Part<PlacedRow>> = HashMap::new();
        for run in drop_from {
            parts.insert(*run, Part::new(all[*run].level, (all[*run].first, all[*run].last), rows_max));
        }
        let lasts: Vec<Lsn> = groups.iter().map(|group| surveyed.segments[group.end - 1].last).collect();
        let tables = Arc::clone(&self.tables);
        let mut sweeping = sweep(&tables, root, retained, &surveyed.standing).await?;
        while let Some(Needed { placed, .. }) = sweeping.next().await? {
            let lsn = placed.row.lsn;
            let at = lasts.partition_point(|last| *last < lsn);
            if groups.get(at).is_some_and(|group| surveyed.segments[group.start].first <= lsn) {
                needed[at].push(placed);
            }
            if let Some(part) = parts.get_mut(&all.partition_point(|run| run.last < lsn)) {
                part.push(placed, self.owned().await?.output()).await?;
            }
        }
        let mut made = Vec::new();
        for (_, part) in parts {
            made.extend(part.finish(self.owned().await?.output()).await?);
        }
        Ok(made)
    }

    async fn put_compact(&mut self, group: Group, retained: &Retained, report: &mut CleanReport) -> Result<SegmentRow> {
        let mut salt = [0; 32];
        self.env.entropy.fill(&mut salt);
        let domain = self.domain;
        let (epoch, seq) = self.owned().await?.output().next_compact();
        let (kind, role) = (SegmentKind::Compact, Role::Maintenance);
        let identity = SegmentIdentity { domain, kind, role, epoch, seq };
        let bucket = self.bucket.clone();
        let made = compact(bucket.read_only(), &self.heads, group, identity, salt, retained, &self.options).await?;
        let put = bucket.put(&identity.key(), made.body).await;
        put.map_err(|source| Error::store("put a compact segment", source))?;
        report.compacts += 1;
        report.fetched_bytes += made.fetched_bytes;
        report.written_bytes += made.row.bytes;
        Ok(made.row)
    }

    /// Writes the tables of segments anew that name segments which compact ones replace.
    async fn name_compacts(&mut self, root: &mut Root, made: BTreeMap<Lsn, SegmentRow>) -> Result<()> {
        let touched = |table: &TableRef| {
            table.kind == TableKind::Segments && made.range(table.first_lsn..=table.last_lsn).next().is_some()
        };
        let (old, mut kept): (Vec<TableRef>, Vec<TableRef>) = root.tables.iter().partition(|table| touched(table));
        let tables = Arc::clone(&self.tables);
        for table in old {
            let lsns = (table.first_lsn, table.last_lsn);
            let mut part = Part::new(table.level, lsns, u64::MAX);
            let footer = tables.load_footer(&table).await?;
            for number in 0..footer.groups().len() {
                for row in tables.load::<SegmentRow>(&table, &footer, number).await? {
                    let in_place = made.range(..=row.first_lsn).next_back();
                    match in_place.filter(|(_, compact)| row.last_lsn <= compact.last_lsn) {
                        Some((first, compact)) if *first == row.first_lsn => {
                            part.push(compact.clone(), self.owned().await?.output()).await?;
                        }
                        Some(_) => {}
                        None => part.push(row, self.owned().await?.output()).await?,
                    }
                }
            }
            kept.extend(part.finish(self.owned().await?.output()).await?);
        }
        root.tables = kept;
        Ok(())
    }

    /// Puts the ledger of our epoch: what a root says of the history up to the end of the last closed epoch. `None` if none is closed.
    pub(crate) async fn put_ledger(&mut self, root: &Root) -> Result<Option<Ledger>> {
        let Some(closed) = closed_before(root) else { return Ok(None) };
        let mut parts: Vec<LedgerPart> = Vec::new();
        let mut last_time = TimeNs::default();
        let add = |row: &SegmentRow| {
            last_time = row.last_time;
            add_part(&mut parts, row);
        };
        self.tables.for_each_segment(root, Lsn::new(1)..=closed, add).await?;
        let epochs = root.epochs[..root.epochs.len() - 1].to_vec();
        let through = self.tail_of(epochs[epochs.len() - 1].epoch, &parts, closed, last_time, root).await?;
        let retained = root.offers();
        let (domain, first_time) = (self.domain, root.first_time);
        let epoch = self.owned().await?.output().epoch();
        let ledger = Ledger { domain, epoch, through, first_time, epochs, parts, retained };
        self.put_own_ledger(&ledger).await?;
        Ok(Some(ledger))
    }

    /// The tail of a closed epoch, as the CUT behind it names it.
    async fn tail_of(
        &self,
        epoch: Epoch,
        parts: &[LedgerPart],
        closed: Lsn,
        time: TimeNs,
        root: &Root,
    ) -> Result<Through> {
        let last = parts.last().filter(|part| part.last_lsn == closed);
        let Some(last) = last else {
            let why = format!("no segment of the index ends with lsn {closed}");
            return Err(tidemark_history::Error::Chain { key: root.key(), why }.into());
        };
        if last.kind == SegmentKind::Log {
            return Ok(Through { epoch, seq: last.last, header_hash: last.header_hash, lsn: closed, time });
        }
        // The tail itself is gone. The CUT of the next epoch that has one still names it, and so does the ledger before.
        let mut number = epoch.get();
        while number < root.through.epoch.get() {
            number += 1;
            let key = ObjectKey::cut(Epoch::new(number));
            match self.heads.must(key).await {
                Ok(segment) => {
                    let named = segment.head.cut.as_ref().and_then(|cut| cut.predecessor);
                    let named = named.filter(|tail| tail.epoch == epoch);
                    if let Some(tail) = named {
                        let (seq, header_hash) = (tail.seq, tail.header_hash);
                        return Ok(Through { epoch, seq, header_hash, lsn: closed, time });
                    }
                }
                Err(tidemark_history::Error::Missing { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let why = format!("no CUT names the tail of epoch {epoch}");
        Err(tidemark_history::Error::Chain { key: root.key(), why }.into())
    }
}

impl Surveyed {
    /// Runs of whose rows so many are needed by no point that their tables are written anew, and how many that are.
    fn droppable(&self, root: &Root) -> Vec<(usize, u64)> {
        if self.segments.is_empty() {
            return Vec::new();
        }
        let rows_of = |run: Run| run.tables(root, TableKind::Rows).map(|table| table.rows).sum::<u64>();
        let rows = runs(root).into_iter().map(rows_of);
        let needed = self.needed_rows.iter();
        // A row of which several parts are needed counts as often: then less is dropped than could be.
        let dead = rows.zip(needed).map(|(rows, needed)| (rows, rows.saturating_sub(*needed)));
        let worth =
            dead.enumerate().filter(|(_, (rows, dead))| *rows > 0 && dead * 100 >= rows * DEAD_ROWS_PERCENT_MIN);
        worth.map(|(run, (_, dead))| (run, dead)).collect()
    }

    /// Why nothing of what was dropped can be cleaned.
    fn held_back(&self, root: &Root) -> Option<&'static str> {
        let dropped = root.retained.as_ref().is_some_and(|retained| retained.horizon.lsn.get() > 1);
        let held =
            "only epochs that a newer one has closed are cleaned: it begins when the writer next opens the domain";
        (dropped && closed_before(root).is_none()).then_some(held)
    }
}

/// Appends a segment to the parts of a ledger.
fn add_part(parts: &mut Vec<LedgerPart>, row: &SegmentRow) {
    if let Some(part) = parts.last_mut()
        && row.kind == SegmentKind::Log
        && part.kind == SegmentKind::Log
        && part.epoch == row.epoch
        && part.last.checked_next() == Some(row.seq)
    {
        (part.last, part.last_lsn, part.header_hash) = (row.seq, row.last_lsn, row.header_hash);
        return;
    }
    parts.push(LedgerPart {
        kind: row.kind,
        epoch: row.epoch,
        first: row.seq,
        last: row.seq,
        last_lsn: row.last_lsn,
        header_hash: row.header_hash,
    });
}

/// What the events of the index say of blocks that are gone.
async fn standing(tables: &Tables, root: &Root) -> Result<Vec<Standing>> {
    let mut gone = Gone::default();
    for table in root.tables_of(TableKind::Events) {
        tables.events(table).await?.iter().for_each(|row| gone.follow(&row.event));
    }
    Ok(gone.into_standing())
}

/// A sweep over all rows of the index up to the horizon.
async fn sweep<'a>(
    tables: &'a Tables,
    root: &Root,
    retained: &Retained,
    standing: &[Standing],
) -> Result<Sweeping<'a>> {
    let all = runs(root).into_iter().filter(|run| run.first <= retained.horizon.lsn);
    let sources = all.map(|run| Rows::tables(tables, run.tables(root, TableKind::Rows).copied()));
    Sweeping::begin(sources.collect(), retained, standing).await
}

/// What is needed, and how many pins had a say in it.
struct Reached {
    reach: Reach,
    pins: u64,
    expired: Vec<ObjectKey>,
}

/// All that the newest root, the newest ledger and the pins need; objects of maintenance epoch `own` are not judged.
async fn reach(
    bucket: &ReadOnly,
    tables: &Tables,
    (own, root, ledger): (Epoch, &Root, Option<&Ledger>),
    now: TimeNs,
) -> Result<Reached> {
    let mut reached = Reached { reach: Reach::new(own), pins: 0, expired: Vec::new() };
    if let Some(ledger) = ledger {
        reached.reach.follow(ledger);
    }
    need_root(&mut reached.reach, tables, root).await?;
    reached.reach.need(quarantined(bucket, root.domain).await?.into_iter().map(|held| held.object));
    let listed = bucket.list(KeyFamily::Volatile).await.map_err(|source| Error::store("list the pins", source))?;
    for key in listed.into_iter().filter_map(|(name, _)| name.parse::<ObjectKey>().ok()) {
        let ObjectKey::Pin { .. } = key else { continue };
        //= SPEC.md#deleting
        //# D-6
        let bytes = match bucket.get(&key).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::store("read a pin", source)),
        };
        let pin = Pin::decode(&bytes, root.domain).map_err(|source| Error::Format { key, source })?;
        if pin.until < now {
            reached.expired.push(key);
            continue;
        }
        reached.pins += 1;
        let key = pin.root();
        let bytes = bucket.get(&key).await.map_err(|source| Error::store("read a pinned root", source))?;
        let pinned = Root::decode(&bytes, &Expect { domain: root.domain, key });
        let pinned = pinned.map_err(|source| Error::Format { key, source })?;
        reached.reach.pin(&pinned.through);
        need_root(&mut reached.reach, tables, &pinned).await?;
    }
    Ok(reached)
}

async fn need_root(reach: &mut Reach, tables: &Tables, root: &Root) -> Result<()> {
    reach.need([root.key()]);
    reach.need(root.tables.iter().map(TableRef::key));
    let all = Lsn::new(1)..=root.through.lsn;
    Ok(tables.for_each_segment(root, all, |row| reach.need([row.key()])).await?)
}

/// Objects that may be deleted, with their lengths.
async fn garbage(bucket: &ReadOnly, reached: &Reached) -> Result<Vec<(ObjectKey, u64)>> {
    let mut found: Vec<(ObjectKey, u64)> = reached.expired.iter().map(|key| (*key, 0)).collect();
    for family in [KeyFamily::Log, KeyFamily::Base, KeyFamily::Index, KeyFamily::Root, KeyFamily::Ledger] {
        let listed = bucket.list(family).await.map_err(|source| Error::store("list the objects", source))?;
        let keys = listed.into_iter().filter_map(|(name, len)| Some((name.parse::<ObjectKey>().ok()?, len)));
        found.extend(keys.filter(|(key, _)| reached.reach.is_garbage(key)));
    }
    Ok(found)
}

async fn delete(
    deleter: &Deleter,
    reached: &Reached,
    report: &mut CleanReport,
    progress: &mut impl FnMut(&CleanReport),
) -> Result<()> {
    let garbage = garbage(deleter.read_only(), reached).await?;
    let deletes = garbage.into_iter().map(|(key, len)| async move { (len, deleter.delete(&key).await) });
    let mut deletes = stream::iter(deletes).buffer_unordered(DELETES_AT_A_TIME);
    while let Some((len, deleted)) = deletes.next().await {
        match deleted {
            Ok(()) => {
                report.deleted += 1;
                report.deleted_bytes += len;
            }
            // An object lock that has not run out.
            Err(error) if error.kind() == ErrorKind::Denied => report.locked += 1,
            Err(source) => return Err(Error::store("delete what nobody needs", source)),
        }
        progress(report);
    }
    Ok(())
}
