//! The shell: reads what is new, builds runs, merges them, publishes roots, one step after the other.

use crate::claim;
use crate::core::images::{Regions, drop_unused};
use crate::core::plan::{Run, next_merge, next_run, runs};
use crate::error::{Error, Result};
use crate::options::MaintenanceOptions;
use crate::output::{Output, Part};
use crate::retain::plan_of;
use crate::status::{IndexStatus, genesis};
use std::ops::RangeInclusive;
use std::sync::Arc;
use tidemark_bucket::Appender;
use tidemark_env::Env;
use tidemark_format::{
    DomainId, Epoch, EpochStart, EventRow, Hint, Ledger, Lsn, Mark, ObjectKey, PlacedRow, Retained, Root, SegmentRow,
    Seq, TableKind, TableRef, Through, TimeNs, with_causes,
};
use tidemark_history::{Heads, Log, Merged, Past, Roots, Rows, Segment, Tables, Walk, time_in};

/// Bytes of tables kept while merging: footers and groups are read once, so none.
const CACHE_BYTES: u64 = 0;

/// Where a pass begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the newest root.
    NewestRoot,
    /// At nothing: all tables are made anew from the log.
    Scratch,
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassReport {
    /// Log segments that the index covers now and did not before.
    pub segments: u64,
    /// Rows of those.
    pub rows: u64,
    /// New runs.
    pub runs: u64,
    /// Merges.
    pub merges: u64,
    /// Rows that were rewritten by them.
    pub merged_rows: u64,
    /// Rows of new images.
    pub image_rows: u64,
    /// Bytes of tables and roots that were put.
    pub bytes: u64,
    /// Roots that were published.
    pub roots: u64,
    /// Points that are no longer offered: runs of LSNs, oldest first.
    pub dropped: Vec<RangeInclusive<Lsn>>,
    /// The index after it; `None` if there is nothing to index.
    pub index: Option<IndexStatus>,
}

/// Keeps the index of one domain.
#[derive(Debug)]
pub struct Maintainer {
    pub(crate) bucket: Appender,
    pub(crate) options: MaintenanceOptions,
    pub(crate) env: Env,
    pub(crate) domain: DomainId,
    pub(crate) heads: Arc<Heads>,
    pub(crate) roots: Roots,
    pub(crate) tables: Arc<Tables>,
    pub(crate) owned: Option<Owned>,
    /// The root that what is being done builds on, if any. Nobody may have published another one before our claim.
    pub(crate) base: Option<ObjectKey>,
}

/// An epoch that is ours.
#[derive(Debug)]
pub(crate) struct Owned {
    epoch: Epoch,
    output: Output,
    /// Number of the next root.
    next_root: Seq,
    /// The ledger of the epoch is in place, or none is needed.
    has_ledger: bool,
}

impl Owned {
    pub(crate) fn output(&mut self) -> &mut Output {
        &mut self.output
    }
}

impl Maintainer {
    /// A maintainer of the domain in `bucket`. Claims nothing before there is something to do.
    ///
    /// # Errors
    /// `NoDomain`, `Features`, `Format`; store errors.
    pub async fn open(bucket: Appender, options: MaintenanceOptions, env: Env) -> Result<Self> {
        let domain = genesis(&bucket).await?.domain;
        let heads = Arc::new(Heads::new(bucket.read_only().clone(), domain, &options.heads()));
        let roots = Roots::new(bucket.read_only().clone(), domain);
        let tables = Arc::new(Tables::new(bucket.read_only().clone(), domain, CACHE_BYTES));
        Ok(Self { bucket, options, env, domain, heads, roots, tables, owned: None, base: None })
    }

    /// Indexes what is final and not yet indexed, and merges until nothing is left to merge. Each step is published, so a pass
    /// that is interrupted loses at most the step that it is in.
    ///
    /// # Errors
    /// `Fenced` once a newer maintainer has claimed; damage of the log; store errors.
    pub async fn pass(&mut self, from: From, mut progress: impl FnMut(&PassReport)) -> Result<PassReport> {
        loop {
            match self.pass_once(from, &mut progress).await {
                // We own the newest epoch now, so this comes up once.
                Err(Error::Overtaken { .. }) => {}
                passed => return passed,
            }
        }
    }

    async fn pass_once(&mut self, from: From, progress: &mut impl FnMut(&PassReport)) -> Result<PassReport> {
        let mut report = PassReport::default();
        let (mut root, retained) = match from {
            From::NewestRoot => (self.newest_root().await?, None),
            From::Scratch => self.past(&mut report).await?,
        };
        self.base = root.as_ref().map(Root::key);
        let mut room = self.options.heads_held_max.max(1);
        loop {
            let mut log = self.read_log(root.as_ref(), room).await?;
            let mut indexed_any = false;
            loop {
                let ready = final_segments(&log);
                let rows = ready.iter().map(|segment| segment.head.header.row_count);
                let count = next_run(rows, !log.more, &self.options);
                if count == 0 {
                    break;
                }
                let run: Vec<Arc<Segment>> = ready[..count].to_vec();
                let next = self.add_run(root.as_ref(), &run, &retained, &mut report).await?;
                log = log.rebased(&next.through).expect("the run ends with a segment of the log");
                root = Some(self.merge_all(next, &mut report).await?);
                indexed_any = true;
                progress(&report);
            }
            if !log.more {
                break;
            }
            // Nothing of what was read is final yet: the proof stands further on.
            room = if indexed_any { self.options.heads_held_max.max(1) } else { room.saturating_mul(2) };
        }
        if let Some(newest) = root.take() {
            let newest = self.merge_all(newest, &mut report).await?;
            root = Some(self.retain(newest, &mut report).await?);
        }
        report.index = root.as_ref().map(IndexStatus::of);
        Ok(report)
    }

    /// What a root made anew begins with: an index of what the ledger describes, if there is one; and the points that are offered.
    async fn past(&mut self, report: &mut PassReport) -> Result<(Option<Root>, Option<Retained>)> {
        self.owned().await?;
        let ledger = self.roots.newest_ledger().await?;
        // Nothing of the newest root is used but which points it offers. Without it, all are that the data can show.
        let retained = match self.newest_root().await {
            Ok(root) => root.and_then(|root| root.retained),
            Err(error) => {
                tracing::warn!("{}; points that it no longer offered may be offered again", with_causes(&error));
                None
            }
        };
        let Some(ledger) = ledger else { return Ok((None, retained)) };
        let mut tables = Vec::new();
        let heads = Arc::clone(&self.heads);
        let mut past = Past::new(&heads, &ledger);
        loop {
            let run = past.next(usize::try_from(self.options.heads_held_max).unwrap_or(usize::MAX)).await?;
            if run.is_empty() {
                break;
            }
            tables.extend(self.build_run(&run, report).await?);
        }
        let (through, first_time, epochs) = (ledger.through, ledger.first_time, ledger.epochs.clone());
        let retained = Some(retained.unwrap_or_else(|| ledger.retained.clone()));
        let (domain, epoch, seq) = (self.domain, Epoch::new(0), Seq::new(0));
        let root = Root { domain, epoch, seq, through, first_time, epochs, tables, retained };
        Ok((Some(self.publish(root, report).await?), None))
    }

    /// Publishes which points are offered from now on, if that changed.
    async fn retain(&mut self, root: Root, report: &mut PassReport) -> Result<Root> {
        let plan = plan_of(self.bucket.read_only(), &root, self.env.clock.wall()).await?;
        if plan.after == plan.before {
            return Ok(root);
        }
        report.dropped = plan.dropped;
        self.publish(Root { retained: Some(plan.after), ..root }, report).await
    }

    pub(crate) async fn newest_root(&self) -> Result<Option<Root>> {
        let copy = self.roots.copy().await;
        let root = self.roots.newest(copy.as_ref()).await?;
        if let Some(root) = root.as_ref().filter(|root| copy.is_none_or(|copy| copy.key() != root.key())) {
            // Who published it died before it was copied, or was slow.
            self.copy_root(root, root.encode().map_err(|source| Error::Format { key: root.key(), source })?).await;
        }
        Ok(root)
    }

    /// Copies a root to where readers look first. Without it they find the root in more requests.
    async fn copy_root(&self, root: &Root, bytes: Vec<u8>) {
        if let Err(error) = self.bucket.put_root_copy(bytes).await {
            tracing::warn!(root = %root.key(), %error, "cannot copy the root");
        }
    }

    /// The segments behind the index, at most `room`.
    async fn read_log(&self, root: Option<&Root>, room: u64) -> Result<Log> {
        let hint = self.bucket.get(&ObjectKey::Hint).await.ok();
        let hint = hint.and_then(|bytes| Hint::decode(&bytes, self.domain).ok()).map(|hint| (hint.epoch, hint.seq));
        let walk = match root {
            Some(root) => Walk::resume(Log::behind(&root.through), hint),
            None => Walk::open(hint),
        };
        let log = self.heads.walk(walk.at_most(room)).await?;
        if let Some(root) = root.filter(|_| log.stem.is_none()) {
            let why = "the history does not pass through the end of its index".to_owned();
            return Err(tidemark_history::Error::Chain { key: root.key(), why }.into());
        }
        Ok(log)
    }

    /// Builds a run of level 0 from segments that follow what `root` covers, and publishes it.
    async fn add_run(
        &mut self,
        root: Option<&Root>,
        run: &[Arc<Segment>],
        retained: &Option<Retained>,
        report: &mut PassReport,
    ) -> Result<Root> {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        let mut tables = self.build_run(run, report).await?;
        let header = &last.head.header;
        let through = Through {
            epoch: header.identity.epoch,
            seq: header.identity.seq,
            header_hash: header.header_hash,
            lsn: header.last_lsn,
            time: header.last_time,
        };
        let mut epochs = root.map_or(Vec::new(), |root| root.epochs.clone());
        for segment in run {
            let epoch = segment.head.header.identity.epoch;
            if epochs.last().is_none_or(|known| known.epoch != epoch) {
                epochs.push(EpochStart { epoch, first_lsn: segment.first() });
            }
        }
        let first_time = root.map_or(first.head.header.first_time, |root| root.first_time);
        tables.extend(root.iter().flat_map(|root| root.tables.iter().copied()));
        let retained = root.map_or(retained, |root| &root.retained).clone();
        let (domain, epoch, seq) = (self.domain, Epoch::new(0), Seq::new(0));
        self.publish(Root { domain, epoch, seq, through, first_time, epochs, tables, retained }, report).await
    }

    /// Puts the tables of a run of level 0 that holds these segments, which follow one another.
    async fn build_run(&mut self, run: &[Arc<Segment>], report: &mut PassReport) -> Result<Vec<TableRef>> {
        let lsns = (run[0].first(), run[run.len() - 1].last());
        let sources = run.iter().map(|segment| Rows::segment(segment)).collect();
        let rows_max = self.options.table_rows_max;
        let owned = self.owned().await?;
        let (mut tables, rows) = merge_rows(sources, 0, lsns, rows_max, &mut owned.output, |_| {}).await?;
        let mut segments = Part::new(0, lsns, u64::MAX);
        let mut events = Part::new(0, lsns, u64::MAX);
        for segment in run {
            let format = |source| Error::Format { key: segment.key, source };
            segments.push(SegmentRow::of(&segment.head).map_err(format)?, &mut owned.output).await?;
            for event in segment.head.events.iter().filter(|event| event.body.is_of_timeline()) {
                let row = EventRow { event: event.clone(), time: time_in(&segment.head, event.lsn) };
                events.push(row, &mut owned.output).await?;
            }
        }
        tables.extend(segments.finish(&mut owned.output).await?);
        tables.extend(events.finish(&mut owned.output).await?);
        report.segments += run.len() as u64;
        report.rows += rows;
        report.runs += 1;
        Ok(tables)
    }

    /// Merges until there is nothing to merge.
    async fn merge_all(&mut self, mut root: Root, report: &mut PassReport) -> Result<Root> {
        loop {
            let all = runs(&root);
            let Some(range) = next_merge(&all, &self.options) else { return Ok(root) };
            root = self.merge(&root, &all[range], report).await?;
        }
    }

    /// Merges runs that follow one another into one of the next level, and publishes it.
    async fn merge(&mut self, root: &Root, merged: &[Run], report: &mut PassReport) -> Result<Root> {
        let (level, lsns) = (merged[0].level + 1, (merged[0].first, merged[merged.len() - 1].last));
        self.owned().await?;
        let owned = self.owned.as_mut().expect("it was claimed just now");
        let tables = &Arc::clone(&self.tables);
        let sources =
            merged.iter().map(|run| Rows::tables(tables, run.tables(root, TableKind::Rows).copied())).collect();
        let rows_max = self.options.table_rows_max;
        // Each row goes from level 0 to level 1 once.
        let mut regions = (level == 1).then(|| Regions::of(root));
        let count = |row: &PlacedRow| regions.iter_mut().for_each(|regions| regions.count(row));
        let (mut made, rows) = merge_rows(sources, level, lsns, rows_max, &mut owned.output, count).await?;
        // Segments and events of runs that follow one another do so too.
        let mut segments = Part::new(level, lsns, u64::MAX);
        let mut events = Part::new(level, lsns, u64::MAX);
        let mut time = TimeNs::default();
        for run in merged {
            for table in run.tables(root, TableKind::Segments) {
                let footer = tables.load_footer(table).await?;
                for number in 0..footer.groups().len() {
                    for row in tables.load::<SegmentRow>(table, &footer, number).await? {
                        time = row.last_time;
                        segments.push(row, &mut owned.output).await?;
                    }
                }
            }
            for table in run.tables(root, TableKind::Events) {
                for row in tables.events(table).await? {
                    events.push(row, &mut owned.output).await?;
                }
            }
        }
        made.extend(segments.finish(&mut owned.output).await?);
        made.extend(events.finish(&mut owned.output).await?);
        let kept = root.tables.iter().filter(|table| !merged.iter().any(|run| run.owns(table)));
        made.extend(kept.copied());
        report.merges += 1;
        report.merged_rows += rows;
        let mut next = Root { tables: made, ..root.clone() };
        if let Some(regions) = regions {
            report.image_rows += self.add_images(&mut next, regions, Mark { lsn: lsns.1, time }).await?;
        }
        self.publish(next, report).await
    }

    /// Puts a root whose tables are all durable as the next one of our epoch, copies it, and looks whether somebody newer has
    /// come.
    pub(crate) async fn publish(&mut self, mut root: Root, report: &mut PassReport) -> Result<Root> {
        //= SPEC.md#deleting
        //# D-7
        if !self.owned().await?.has_ledger {
            let epoch = self.owned().await?.epoch;
            match self.roots.newest_ledger().await? {
                Some(before) => self.put_own_ledger(&Ledger { epoch, ..before }).await?,
                None => self.owned().await?.has_ledger = true,
            }
        }
        root.sort_tables();
        drop_unused(&mut root);
        let bucket = self.bucket.clone();
        let owned = self.owned().await?;
        (root.epoch, root.seq) = (owned.epoch, owned.next_root);
        let bytes = root.encode().map_err(|source| Error::Format { key: root.key(), source })?;
        let put = bucket.put(&root.key(), bytes.clone()).await;
        put.map_err(|source| Error::store("publish a root", source))?;
        owned.next_root = owned.next_root.next();
        report.roots += 1;
        report.bytes = owned.output.bytes();
        //= SPEC.md#deleting
        //# D-3
        claim::check(&bucket, root.epoch).await?;
        self.copy_root(&root, bytes).await;
        Ok(root)
    }

    /// Puts the ledger of our epoch.
    pub(crate) async fn put_own_ledger(&mut self, ledger: &Ledger) -> Result<()> {
        let key = ledger.key();
        let bytes = ledger.encode().map_err(|source| Error::Format { key, source })?;
        let put = self.bucket.put(&key, bytes).await;
        put.map_err(|source| Error::store("put the ledger", source))?;
        self.owned().await?.has_ledger = true;
        Ok(())
    }

    /// Our epoch, claimed when it is first needed.
    pub(crate) async fn owned(&mut self) -> Result<&mut Owned> {
        if self.owned.is_none() {
            let epoch = claim::claim(&self.bucket, self.domain, &self.options.owner, &self.env).await?;
            let output = Output::new(self.bucket.clone(), self.domain, epoch);
            self.owned = Some(Owned { epoch, output, next_root: Seq::new(1), has_ledger: false });
            //= SPEC.md#deleting
            //# D-1
            // What was read before the claim may have been replaced, and deleted, by the maintainer before us.
            if let Some(base) = self.base.take() {
                let newest = self.newest_root().await?.map(|root| root.key());
                if newest != Some(base) {
                    return Err(Error::Overtaken { base });
                }
            }
        }
        Ok(self.owned.as_mut().expect("it was claimed"))
    }
}

/// The segments at the front of a log that nobody can take back.
fn final_segments(log: &Log) -> &[Arc<Segment>] {
    //= SPEC.md#roots
    //# RT-4
    let count = log.segments.partition_point(|segment| segment.last() <= log.final_through);
    &log.segments[..count]
}

/// Writes the rows of all sources, in order, into tables of a run. Also says how many there were.
async fn merge_rows(
    sources: Vec<Rows<'_>>,
    level: u32,
    lsns: (Lsn, Lsn),
    rows_max: u64,
    out: &mut Output,
    mut each: impl FnMut(&PlacedRow),
) -> Result<(Vec<TableRef>, u64)> {
    let mut rows = Merged::begin(sources).await?;
    let mut part = Part::<PlacedRow>::new(level, lsns, rows_max);
    let mut count = 0;
    while let Some(row) = rows.next().await? {
        each(&row);
        part.push(row, out).await?;
        count += 1;
    }
    Ok((part.finish(out).await?, count))
}
