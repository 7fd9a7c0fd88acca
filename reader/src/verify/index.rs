//! Judges the index: the newest root and its tables against the truth, pinned roots and theirs by themselves.
//!
//! Tables of segments and events are compared entry by entry. Of rows, a fingerprint is made for each segment ([`super::print`]):
//! where it is that of the segment itself, the table lacks nothing and has nothing in addition. Where it is not, rows may have been
//! left out rightly (IX-5), and [`super::differences`] finds out. Images are held against the rows ([`super::images`]).
//! Damage of the truth is not blamed on the index: LSNs of segments that cannot be read are not judged.

use super::chain::missing;
use super::differences::Differences;
use super::images::Images;
use super::object::{self, Head, RANGE_BYTES, hash_of};
use super::print::Print;
use super::{Damage, Sample, VerifyReport};
use crate::error::{Error, Result};
use crate::options::ReaderOptions;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use tidemark_bucket::ReadOnly;
use tidemark_extent_map::liveness::{Gone, Standing};
use tidemark_format::{
    DomainId, Epoch, EpochStart, ErrorKind, EventBody, EventRow, Expect, FormatError, Ledger, Lsn, ObjectKey, Pin,
    PlacedRow, Retained, Root, RowBounds, RowStart, SegmentKind, SegmentRow, Seq, TableFooter, TableKind, TableRef,
    TableRow,
};

/// A segment of the history that can be read.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) key: ObjectKey,
    pub(super) head: Head,
}

impl Known {
    pub(super) fn lsns(&self) -> (Lsn, Lsn) {
        (self.head.header.first_lsn, self.head.header.last_lsn)
    }

    pub(super) fn kind(&self) -> SegmentKind {
        self.head.header.identity.kind
    }
}

/// The history as its own objects tell it.
#[derive(Debug)]
pub(super) struct Truth {
    /// In LSN order. LSNs in between were lost.
    pub(super) segments: Vec<Known>,
    pub(super) ledger: Option<Ledger>,
    /// Where it ends.
    pub(super) last: Lsn,
}

impl Truth {
    /// Number of the segment that holds an LSN.
    pub(super) fn at(&self, lsn: Lsn) -> Option<usize> {
        let at = self.segments.partition_point(|known| known.lsns().1 < lsn);
        self.segments.get(at).filter(|known| known.lsns().0 <= lsn && known.head.readable).map(|_| at)
    }

    /// What the events say of blocks that are gone.
    pub(super) fn standing(&self) -> Vec<Standing> {
        let mut gone = Gone::default();
        self.segments.iter().flat_map(|known| &known.head.events).for_each(|event| gone.follow(event));
        gone.into_standing()
    }

    /// True if nothing is lost up to `lsn`.
    fn is_whole_to(&self, lsn: Lsn) -> bool {
        let mut next = Lsn::new(1);
        for known in self.segments.iter().take_while(|known| known.lsns().0 <= lsn) {
            if known.lsns().0 != next || !known.head.readable {
                return false;
            }
            next = known.lsns().1.next();
        }
        next > lsn
    }

    /// The writer epochs that have segments up to `lsn`, as a root names them.
    fn epochs_to(&self, lsn: Lsn) -> Vec<EpochStart> {
        let mut epochs = self.ledger.as_ref().map_or(Vec::new(), |ledger| ledger.epochs.clone());
        for known in self.segments.iter().filter(|known| known.kind() == SegmentKind::Log) {
            let (epoch, first_lsn) = (known.head.header.identity.epoch, known.lsns().0);
            if epochs.last().is_none_or(|last| last.epoch < epoch) {
                epochs.push(EpochStart { epoch, first_lsn });
            }
        }
        epochs.retain(|epoch| epoch.first_lsn <= lsn);
        epochs
    }
}

/// What names roots besides themselves.
#[derive(Debug, Default)]
pub(super) struct NamedRoots {
    pub(super) pins: Vec<Pin>,
    /// The root that `v/root` is a copy of.
    pub(super) copied: Option<ObjectKey>,
}

/// The index while it is judged.
#[derive(Debug)]
pub(super) struct Index {
    domain: DomainId,
    /// The newest one, if it can be read.
    root: Option<Root>,
    /// What it offers.
    retained: Arc<Option<Retained>>,
    pinned: Vec<Root>,
    truth: Arc<Truth>,
    /// Of each segment: what tables of rows hold of it.
    prints: Vec<Print>,
    /// LSNs of runs of which a table of rows cannot be read.
    unreadable: Vec<(Lsn, Lsn)>,
}

/// A table and what is wrong with it.
#[derive(Debug)]
pub(super) struct CheckedTable {
    pub(super) table: TableRef,
    /// Bytes of the object, as listed.
    pub(super) len: u64,
    /// Bytes that were read.
    pub(super) bytes: u64,
    rows: u64,
    groups_skipped: u64,
    /// It cannot be read, at least in part.
    is_broken: bool,
    /// What it holds of each segment.
    prints: BTreeMap<usize, Print>,
    problems: Vec<Damage>,
}

impl Index {
    /// Reads the newest of the roots that are listed, and those that are pinned.
    pub(super) async fn open(
        bucket: &ReadOnly,
        domain: DomainId,
        roots: BTreeSet<(Epoch, Seq)>,
        named: &NamedRoots,
        truth: Arc<Truth>,
        report: &mut VerifyReport,
    ) -> Result<Self> {
        let prints = vec![Print::default(); truth.segments.len()];
        let (retained, pinned, unreadable) = (Arc::default(), Vec::new(), Vec::new());
        let mut index = Self { domain, root: None, retained, pinned, truth, prints, unreadable };
        let newest = roots.last().copied();
        let key = |(epoch, seq)| ObjectKey::Root { epoch, seq };
        if let Some((epoch, last)) = newest {
            index.root = index.read(bucket, key((epoch, last)), report).await?;
            //= SPEC.md#roots
            //# RT-1
            let absent = (1..last.get()).map(|seq| (epoch, Seq::new(seq))).filter(|id| !roots.contains(id));
            report.damage.extend(absent.map(|id| missing(key(id), "later roots of its epoch are there", None)));
        }
        let by_ledger = index.truth.ledger.as_ref().filter(|_| newest.is_none()).map(|ledger| ledger.epoch);
        match (named.copied, by_ledger) {
            (Some(copied), _) if newest.is_none_or(|newest| key(newest) < copied) => {
                report.damage.push(missing(copied, "v/root is a copy of it", None));
            }
            (_, Some(epoch)) => {
                let lost = missing(key((epoch, Seq::new(1))), "there is a ledger, and no root at all", None);
                report.damage.push(lost);
            }
            _ => {}
        }
        let mut needed: HashSet<ObjectKey> = newest.map(key).into_iter().collect();
        for pin in &named.pins {
            if needed.insert(pin.root()) {
                let pinned = index.read(bucket, pin.root(), report).await?;
                index.pinned.extend(pinned);
            }
        }
        let superseded = roots.into_iter().map(key).filter(|key| !needed.contains(key));
        report.unreferenced.extend(superseded.map(|key| key.to_string()));
        index.retained = Arc::new(index.root.as_ref().map(Root::offers));
        report.indexed_through = index.root.as_ref().map(|root| root.through.lsn);
        Ok(index)
    }

    async fn read(&self, bucket: &ReadOnly, key: ObjectKey, report: &mut VerifyReport) -> Result<Option<Root>> {
        let bytes = match bucket.get(&key).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                report.damage.push(missing(key, "it is listed or pinned", None));
                return Ok(None);
            }
            Err(source) => return Err(Error::Store { key, source }),
        };
        report.bytes += bytes.len() as u64;
        match Root::decode(&bytes, &Expect { domain: self.domain, key }) {
            Ok(root) => Ok(Some(root)),
            Err(error) => {
                report.damage.push(Damage::of(key, error.to_string()));
                Ok(None)
            }
        }
    }

    pub(super) fn into_root(self) -> Option<Root> {
        self.root
    }

    /// Judges what the newest root says of the history itself.
    pub(super) fn judge_root(&self, report: &mut VerifyReport) {
        let Some(root) = &self.root else { return };
        let truth = &self.truth;
        let mut damage = |what: String| report.damage.push(Damage::of(root.key(), what));
        let through = &root.through;
        if through.lsn > truth.last {
            // What an index covers was final: it is the log that lacks its end.
            let key = ObjectKey::Log { epoch: through.epoch, seq: through.seq };
            let lost = truth.last.checked_next().map(|first| (first, through.lsn));
            report.damage.push(missing(key, "the index covers it, and only what is final is indexed", lost));
            return;
        }
        let by_ledger = truth.ledger.as_ref().map(|ledger| ledger.through).filter(|ledger| ledger.lsn == through.lsn);
        let by_log = truth.at(through.lsn).map(|at| &truth.segments[at].head.header);
        let by_log = by_log.filter(|header| header.identity.kind == SegmentKind::Log);
        //= SPEC.md#roots
        //# RT-5
        match (by_ledger, by_log) {
            (Some(tail), _) if tail != *through => damage("the ledger ends at the same lsn in another segment".into()),
            (None, Some(header)) => {
                let identity = header.identity;
                let found = (identity.epoch, identity.seq, header.header_hash, header.last_lsn, header.last_time);
                if found != (through.epoch, through.seq, through.header_hash, through.lsn, through.time) {
                    damage(format!("the history does not pass through its tail at lsn {}", through.lsn));
                }
            }
            _ => {}
        }
        if let Some(first) = truth.segments.first().filter(|known| known.lsns().0.get() == 1)
            && first.head.header.first_time != root.first_time
        {
            damage("it names another time for lsn 1 than its segment".into());
        }
        if truth.is_whole_to(through.lsn) && truth.epochs_to(through.lsn) != root.epochs {
            damage("it names other writer epochs than the history has".into());
        }
        if let Some(ledger) = &truth.ledger {
            let offered = root.offers();
            let below = offered.kept.iter().chain([&offered.horizon]).filter(|mark| mark.lsn <= ledger.through.lsn);
            let gone: Vec<String> = below
                .filter(|mark| !ledger.retained.offers(mark.lsn))
                .map(|mark| format!("lsn {}", mark.lsn))
                .collect();
            if !gone.is_empty() {
                damage(format!("it offers points that the ledger has not kept: {}", gone.join(", ")));
            }
        }
        let mut events = truth.segments.iter().flat_map(|known| &known.head.events);
        let has_table =
            |lsn: Lsn| root.tables_of(TableKind::Events).any(|table| table.first_lsn <= lsn && lsn <= table.last_lsn);
        if let Some(event) =
            events.find(|event| event.lsn <= through.lsn && event.body.is_of_timeline() && !has_table(event.lsn))
        {
            damage(format!("it names no table for the event at lsn {}", event.lsn));
        }
    }

    /// The tables that a root names and that are there, with their lengths.
    pub(super) fn tables(&self, listed: &BTreeMap<ObjectKey, u64>, report: &mut VerifyReport) -> Vec<(TableRef, u64)> {
        let mut named: BTreeMap<ObjectKey, (TableRef, ObjectKey)> = BTreeMap::new();
        for root in self.pinned.iter().chain(&self.root) {
            named.extend(root.tables.iter().map(|table| (table.key(), (*table, root.key()))));
        }
        let mut there = Vec::new();
        for (key, (table, root)) in named {
            match listed.get(&key) {
                Some(len) => there.push((table, *len)),
                None => report.damage.push(missing(key, &format!("{root} names it"), lsns_of(&table))),
            }
        }
        there
    }

    fn is_newest(&self, table: &TableRef) -> bool {
        self.root.as_ref().is_some_and(|root| root.tables.contains(table))
    }

    /// Reads a table and compares it with the truth, if the newest root names it.
    pub(super) fn check(
        &self,
        bucket: &ReadOnly,
        table: TableRef,
        len: u64,
        sample: Option<Sample>,
    ) -> impl Future<Output = Result<CheckedTable>> + Send + use<> {
        let truth = self.is_newest(&table).then(|| Arc::clone(&self.truth));
        let retained = Arc::clone(&self.retained);
        let (bucket, domain) = (bucket.clone(), self.domain);
        async move {
            let mut checking = Checking {
                bucket,
                sample: sample.filter(|_| !matches!(table.kind, TableKind::Segments | TableKind::Events)),
                found: CheckedTable {
                    table,
                    len,
                    bytes: 0,
                    rows: 0,
                    groups_skipped: 0,
                    is_broken: false,
                    prints: BTreeMap::new(),
                    problems: Vec::new(),
                },
            };
            if len != table.len {
                checking.damage(format!("it has {len} bytes, its root says {}", table.len));
                checking.found.is_broken = true;
                return Ok(checking.found);
            }
            let against = truth.as_deref().zip(retained.as_ref().as_ref());
            let truth = against.map(|(truth, _)| truth);
            let checked = if table.kind == TableKind::Segments {
                checking.segments(domain, truth).await
            } else if table.kind == TableKind::Events {
                checking.events(domain, against).await
            } else {
                // What is not a row of the log itself is judged by itself.
                checking.rows(domain, truth.filter(|_| table.kind == TableKind::Rows)).await
            };
            if let Err(broken) = checked {
                match broken {
                    Broken::Store(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(Error::Store { key: table.key(), source: error });
                    }
                    Broken::Store(_) => checking.damage("the store lists it but does not have it"),
                    Broken::Format(error) => checking.damage(error.to_string()),
                }
                checking.found.is_broken = true;
            }
            Ok(checking.found)
        }
    }

    /// Takes in a table.
    pub(super) fn take(&mut self, checked: CheckedTable, report: &mut VerifyReport) {
        report.tables += 1;
        report.table_rows += checked.rows;
        report.groups_skipped += checked.groups_skipped;
        let table = checked.table;
        let is_rows = table.kind == TableKind::Rows && self.is_newest(&table);
        if is_rows && (checked.is_broken || checked.groups_skipped > 0) {
            self.unreadable.push((table.first_lsn, table.last_lsn));
        }
        for (at, print) in checked.prints {
            self.prints[at].join(print);
        }
        report.damage.extend(checked.problems);
    }

    /// Judges what the tables of rows hold of each segment, all of them together.
    pub(super) async fn judge_rows(
        &self,
        bucket: &ReadOnly,
        options: &ReaderOptions,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let lacking = report.damage.iter().filter_map(|damage| damage.object.parse::<ObjectKey>().ok());
        let lacking: HashSet<ObjectKey> = lacking.collect();
        let absent = root.tables_of(TableKind::Rows).filter(|table| lacking.contains(&table.key()));
        let mut unreadable = self.unreadable.clone();
        unreadable.extend(absent.map(|table| (table.first_lsn, table.last_lsn)));
        let (horizon, mut suspects) = (root.offers().horizon.lsn, BTreeSet::new());
        // What is needed up to the horizon can be told only with all that is known up to there.
        let unknown_below = unreadable.iter().any(|(first, _)| *first <= horizon);
        for (at, known) in self.truth.segments.iter().enumerate() {
            let (first, last) = known.lsns();
            let is_unreadable = unreadable.iter().any(|run| run.0 <= last && first <= run.1);
            if last <= root.through.lsn
                && known.head.readable
                && !is_unreadable
                && !(unknown_below && first <= horizon)
                && self.prints[at] != known.head.print
            {
                suspects.insert(at);
            }
        }
        if suspects.is_empty() {
            return Ok(());
        }
        let differences = Differences { bucket, domain: self.domain, root, truth: &self.truth, suspects };
        report.damage.extend(differences.find(options).await?);
        Ok(())
    }

    /// Judges what the images hold. Where rows or images are damaged already, there is nothing to judge by.
    pub(super) async fn judge_images(&self, bucket: &ReadOnly, report: &mut VerifyReport) -> Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        if !report.damage.iter().any(Damage::is_of_index) {
            let images = Images { bucket, domain: self.domain, root, truth: &self.truth };
            report.damage.extend(images.find().await?);
        }
        Ok(())
    }
}

fn lsns_of(table: &TableRef) -> Option<(Lsn, Lsn)> {
    Some((table.first_lsn, table.last_lsn))
}

/// Why a table cannot be read.
enum Broken {
    Store(tidemark_bucket::Error),
    Format(FormatError),
}

impl From<FormatError> for Broken {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

impl From<tidemark_bucket::Error> for Broken {
    fn from(error: tidemark_bucket::Error) -> Self {
        Self::Store(error)
    }
}

/// A table while it is read.
struct Checking {
    bucket: ReadOnly,
    sample: Option<Sample>,
    found: CheckedTable,
}

impl Checking {
    fn damage(&mut self, what: impl Into<String>) {
        let table = &self.found.table;
        self.found.problems.push(Damage { lsns: lsns_of(table), ..Damage::of(table.key(), what) });
    }

    async fn range(&mut self, from: u64, to: u64) -> Result<Bytes, Broken> {
        let bytes = self.bucket.get_range(&self.found.table.key(), from..to).await;
        let bytes = match bytes {
            Err(error) if error.kind() == ErrorKind::DataLoss => {
                return Err(FormatError::TableHash { what: "table" }.into());
            }
            other => other?,
        };
        self.found.bytes += bytes.len() as u64;
        Ok(bytes)
    }

    /// Shows the rows of each row group, or of those of a sample, in order.
    async fn for_each<R: TableRow>(&mut self, domain: DomainId, mut each: impl FnMut(Vec<R>)) -> Result<(), Broken> {
        let table = self.found.table;
        let expect = Expect { domain, key: table.key() };
        let footer = self.range(table.footer_start(), table.len).await?;
        let footer = TableFooter::decode(&footer, &table, &expect)?;
        let groups = footer.groups();
        let mut next = 0;
        while next < groups.len() {
            if self.sample.is_some_and(|sample| !sample.has(&expect.key, next)) {
                self.found.groups_skipped += 1;
                next += 1;
                continue;
            }
            // Neighbours in one request; of a sample, one alone.
            let from = groups[next].range.start;
            let fits = groups[next..].iter().take_while(|group| group.range.end - from <= RANGE_BYTES).count().max(1);
            let end = next + if self.sample.is_some() { 1 } else { fits };
            let bytes = self.range(from, groups[end - 1].range.end).await?;
            for (number, group) in groups.iter().enumerate().take(end).skip(next) {
                let part = bytes.slice((group.range.start - from) as usize..(group.range.end - from) as usize);
                let rows = footer.decode_group::<R>(number, part)?;
                self.found.rows += rows.len() as u64;
                each(rows);
                tokio::task::consume_budget().await;
            }
            next = end;
        }
        Ok(())
    }

    async fn rows(&mut self, domain: DomainId, truth: Option<&Truth>) -> Result<(), Broken> {
        let table = self.found.table;
        let mut prints: BTreeMap<usize, Print> = BTreeMap::new();
        let (mut bounds, mut before) = (None::<RowBounds>, None);
        let (mut disorder, mut strange) = (None, None);
        self.for_each(domain, |rows: Vec<PlacedRow>| {
            for placed in rows {
                let row = placed.row;
                let start = RowStart { disk: row.disk, block: row.extent.start };
                //= SPEC.md#tables-of-rows
                //# IX-5
                if before.replace((start, row.lsn)).is_some_and(|before| before >= (start, row.lsn)) {
                    disorder.get_or_insert((row.disk, row.extent, row.lsn));
                }
                let is_early = table.kind == TableKind::Rows && row.lsn < table.first_lsn;
                if is_early || table.last_lsn < row.lsn {
                    strange.get_or_insert((row.disk, row.extent, row.lsn));
                }
                let is_first = bounds.is_none();
                bounds.get_or_insert(RowBounds::default()).grow(is_first, row.disk, row.extent);
                if let Some((truth, at)) = truth.and_then(|truth| Some((truth, truth.at(row.lsn)?))) {
                    prints.entry(at).or_default().add(&placed, truth.segments[at].kind());
                }
            }
        })
        .await?;
        if let Some((disk, extent, lsn)) = disorder {
            self.damage(format!("disk {disk} blocks {extent} of lsn {lsn} are out of order"));
        }
        if let Some((disk, extent, lsn)) = strange {
            self.damage(format!("disk {disk} blocks {extent} of lsn {lsn} are of another run"));
        }
        if self.found.groups_skipped == 0 && bounds.is_some_and(|bounds| bounds != table.bounds) {
            self.damage("its rows begin or end elsewhere than its root says");
        }
        self.found.prints = prints;
        Ok(())
    }

    async fn segments(&mut self, domain: DomainId, truth: Option<&Truth>) -> Result<(), Broken> {
        let table = self.found.table;
        let (mut next, mut problems) = (table.first_lsn, Vec::new());
        self.for_each(domain, |rows: Vec<SegmentRow>| {
            for row in rows {
                let mut damage = |what: String| {
                    let lsns = Some((row.first_lsn, row.last_lsn));
                    problems.push(Damage { lsns, ..Damage::of(table.key(), what) });
                };
                //= SPEC.md#tables-of-segments
                //# IX-6
                if row.first_lsn != next {
                    damage(format!("it goes on at lsn {}, where lsn {next} is next", row.first_lsn));
                } else if row.first_lsn == table.first_lsn && row.first_time != table.first_time {
                    damage("its root names another time for its first lsn".into());
                }
                next = row.last_lsn.checked_next().unwrap_or(row.last_lsn);
                if let Some((truth, at)) = truth.and_then(|truth| Some((truth, truth.at(row.first_lsn)?))) {
                    let known = &truth.segments[at];
                    if known.key != row.key() {
                        damage(format!("it names {}, the history has {}", row.key(), known.key));
                    } else if let Some(field) = difference(&row, &known.head) {
                        damage(format!("it says otherwise than {} of its {field}", known.key));
                    }
                }
            }
        })
        .await?;
        if Some(next) != table.last_lsn.checked_next() {
            self.damage(format!("it ends before lsn {next}, its run at lsn {}", table.last_lsn));
        }
        self.found.problems.extend(problems);
        Ok(())
    }

    async fn events(&mut self, domain: DomainId, against: Option<(&Truth, &Retained)>) -> Result<(), Broken> {
        let table = self.found.table;
        let mut rows: Vec<EventRow> = Vec::new();
        self.for_each(domain, |more| rows.extend(more)).await?;
        //= SPEC.md#tables-of-events
        //# IX-7
        if rows.windows(2).any(|pair| pair[0].event.lsn >= pair[1].event.lsn) {
            self.damage("its events are out of order");
        }
        let Some((truth, retained)) = against else { return Ok(()) };
        let said: BTreeMap<Lsn, &EventRow> = rows.iter().map(|row| (row.event.lsn, row)).collect();
        let mut true_lsns = HashSet::new();
        let mut wrong = Vec::new();
        for known in &truth.segments {
            for (event, time) in known.head.events.iter().zip(&known.head.event_times) {
                let lsn = event.lsn;
                if lsn < table.first_lsn || table.last_lsn < lsn || !event.body.is_of_timeline() {
                    continue;
                }
                true_lsns.insert(lsn);
                match said.get(&lsn) {
                    None => wrong.push((lsn, format!("it lacks the event at lsn {lsn} of {}", known.key))),
                    Some(row) if row.event != *event => {
                        wrong.push((lsn, format!("it has another event at lsn {lsn} than {}", known.key)));
                    }
                    // A compact segment may have left out the step of a point that is not offered.
                    Some(row) if row.time != *time && known.kind() == SegmentKind::Log => {
                        wrong.push((lsn, format!("it has another time for lsn {lsn} than {}", known.key)));
                    }
                    Some(_) => {}
                }
            }
        }
        for row in rows.iter().filter(|row| !true_lsns.contains(&row.event.lsn)) {
            let lsn = row.event.lsn;
            let Some(at) = truth.at(lsn) else { continue };
            //= SPEC.md#compact-segments
            //# CS-2
            let may_be_gone = truth.segments[at].kind() == SegmentKind::Compact
                && matches!(row.event.body, EventBody::Bookmark { .. })
                && !retained.offers(lsn);
            if !may_be_gone {
                wrong.push((lsn, format!("it has an event at lsn {lsn} that {} has not", truth.segments[at].key)));
            }
        }
        let damage = |(lsn, what): (Lsn, String)| Damage { lsns: Some((lsn, lsn)), ..Damage::of(table.key(), what) };
        self.found.problems.extend(wrong.into_iter().map(damage));
        Ok(())
    }
}

/// What a table of segments says otherwise than the segment itself.
fn difference(row: &SegmentRow, head: &object::Head) -> Option<&'static str> {
    let header = &head.header;
    let checks = [
        ("header hash", row.header_hash == header.header_hash),
        ("LSNs", (row.first_lsn, row.last_lsn) == (header.first_lsn, header.last_lsn)),
        ("times", (row.first_time, row.last_time) == (header.first_time, header.last_time)),
        ("number of rows", row.rows == header.row_count),
        ("length", row.bytes == header.total_len),
        ("length of its data", row.data_bytes == header.data_len),
        ("blocks of data", row.data_blocks == header.stream_blocks),
        ("resolution of times", row.times.tick_ns() == header.tick_ns),
        ("steps of time", hash_of(&row.times) == head.times),
        ("events", row.events == head.events),
    ];
    checks.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
}
