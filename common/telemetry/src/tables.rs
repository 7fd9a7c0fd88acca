//! Tables in the bucket: read, merged day by day, and let go of when they are old.
//!
//! A day's files are merged once the day is over: the new file is put, then the old ones are deleted. Whoever reads in between,
//! or after a crash in between, finds rows twice; all rows differ, so taking each once is exact, and that is what [`read`]
//! does.

use crate::core::estimate::mix;
use crate::core::readings::Readings;
use crate::core::row::{Cell, Row};
use crate::core::window::Window;
use crate::error::{Error, Result};
use crate::file::{decode, encode};
use crate::registry::{PassMeasure, RecoveryMeasure};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use tidemark_bucket::{ReadOnly, Recorder};
use tidemark_env::Env;
use tidemark_format::{Day, ErrorKind, KeyFamily, ObjectKey, StatsTable, TimeNs, with_causes};

/// A day whose files are larger than this together is not merged: they are not small, and merging needs them in memory.
const MERGE_BYTES_MAX: u64 = 16 << 20;

const NS_PER_US: u64 = 1000;

/// The files of one day of one table, in the order of their names.
pub type DayFiles = Vec<(ObjectKey, u64)>;

/// What was read of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Each row once, by time.
    pub rows: Vec<Row>,
    /// Files that could not be read, and why: their rows are missing.
    pub damaged: Vec<String>,
}

/// Every file of statistics in a bucket. One LIST.
///
/// # Errors
/// What the store says.
pub async fn days(bucket: &ReadOnly) -> Result<BTreeMap<(StatsTable, Day), DayFiles>> {
    let listed = bucket.list(KeyFamily::Statistics).await;
    let failed = |source| Error::Store { what: "list", key: KeyFamily::Statistics.prefix().into(), source };
    let listed = listed.map_err(|source| failed(Box::new(source)))?;
    let mut days: BTreeMap<_, DayFiles> = BTreeMap::new();
    for (name, bytes) in listed {
        // Tables that a newer version made are not ours to read, merge or delete.
        if let Ok(key @ ObjectKey::Statistics { table, day, .. }) = name.parse() {
            days.entry((table, day)).or_default().push((key, bytes));
        }
    }
    Ok(days)
}

/// Reads tables, and files no more than once: they never change.
#[derive(Debug)]
pub struct TableReader {
    bucket: ReadOnly,
    /// Files of the days that were asked for last.
    files: BTreeMap<ObjectKey, Result<Vec<Row>, String>>,
}

impl TableReader {
    /// Of a bucket. Asks nothing.
    pub fn new(bucket: ReadOnly) -> Self {
        Self { bucket, files: BTreeMap::new() }
    }

    /// The rows of tables on some days, in their order. One LIST, and a GET for each file that was not there before.
    ///
    /// # Errors
    /// What the store says; damaged files are in the answer.
    pub async fn read(&mut self, tables: &[StatsTable], wanted: RangeInclusive<Day>) -> Result<Vec<Rows>> {
        let days = days(&self.bucket).await?;
        let mut before = std::mem::take(&mut self.files);
        let mut found: Vec<Rows> = tables.iter().map(|_| Rows::default()).collect();
        for ((table, _), files) in days.into_iter().filter(|((_, day), _)| wanted.contains(day)) {
            let Some(nth) = tables.iter().position(|of| *of == table) else { continue };
            for (key, _) in files {
                let rows = match before.remove(&key) {
                    Some(rows) => rows,
                    None => read_file(&self.bucket, table, &key).await?,
                };
                match &rows {
                    Ok(rows) => found[nth].rows.extend(rows.iter().cloned()),
                    Err(why) => found[nth].damaged.push(why.clone()),
                }
                self.files.insert(key, rows);
            }
        }
        for found in &mut found {
            found.rows.sort_unstable();
            found.rows.dedup();
        }
        Ok(found)
    }
}

/// The rows of a file, or why there are none.
async fn read_file(bucket: &ReadOnly, table: StatsTable, key: &ObjectKey) -> Result<Result<Vec<Row>, String>> {
    match bucket.get(key).await {
        Ok(bytes) => Ok(decode(table, &key.to_string(), bytes).map_err(|error| with_causes(&error))),
        // Merged since it was listed: its rows are in a file that the next look finds.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Err(format!("{key}: it is gone"))),
        Err(error) => Err(Error::store("read", key)(error)),
    }
}

/// The rows of a table on some days.
///
/// # Errors
/// What the store says; damaged files are in the answer.
pub async fn read(bucket: &ReadOnly, table: StatsTable, wanted: RangeInclusive<Day>) -> Result<Rows> {
    let found = TableReader::new(bucket.clone()).read(&[table], wanted).await?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// Puts rows into a new file.
///
/// # Errors
/// What the store says. The file may have been stored.
pub async fn append(recorder: &Recorder, table: StatsTable, rows: Vec<Row>, env: &Env) -> Result<()> {
    let first = rows.iter().filter_map(time_of).min().unwrap_or(env.clock.wall());
    let key = new_key(table, Day::of(first), first, env);
    recorder.put(&key, encode(table, rows)?).await.map_err(Error::store("write", &key))
}

/// The time of a row.
pub(crate) fn time_of(row: &Row) -> Option<TimeNs> {
    let Some(Cell::Whole(micros)) = row.first() else { return None };
    u64::try_from(*micros).ok().map(|micros| TimeNs::new(micros.saturating_mul(NS_PER_US)))
}

/// The key of a file that nobody has, which begins at a time.
pub(crate) fn new_key(table: StatsTable, day: Day, first: TimeNs, env: &Env) -> ObjectKey {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&first.get().to_be_bytes());
    name[8..].copy_from_slice(&mix(env.entropy.number()).to_be_bytes());
    ObjectKey::Statistics { table, day, name }
}

/// The row of a pass of maintenance that ended at a time.
pub fn pass_row(ended: TimeNs, run: &str, domain: &str, readings: &Readings<PassMeasure>) -> Row {
    let mut row = vec![Cell::from(ended.get() / NS_PER_US), run.into(), domain.into()];
    row.extend(Window::new().close(readings));
    row
}

/// How far a recovery came.
#[derive(Clone, Copy, Debug)]
pub struct Recovered<'a> {
    /// When it began: this tells it from others.
    pub began: TimeNs,
    /// The domain's name.
    pub domain: &'a str,
    /// test, failover or failback.
    pub mode: &'a str,
    /// Where it stands.
    pub phase: &'a str,
    /// The point.
    pub lsn: u64,
    /// Why it was reverted, if it was.
    pub reverted_for: Option<&'a str>,
    /// Its steps, as JSON.
    pub steps: &'a str,
}

/// The row of a recovery.
pub fn recovery_row(of: &Recovered<'_>, readings: &Readings<RecoveryMeasure>) -> Row {
    let Recovered { began, domain, mode, phase, lsn, reverted_for, steps } = *of;
    let run = format!("{:016x}", began.get());
    let mut row =
        vec![Cell::from(began.get() / NS_PER_US), run.as_str().into(), domain.into(), mode.into(), phase.into()];
    row.extend([Cell::from(lsn), reverted_for.into(), steps.into()]);
    row.extend(Window::new().close(readings));
    row
}

/// What upkeep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Files that were merged into others.
    pub merged_files: u64,
    /// Files that were older than they are kept.
    pub expired_files: u64,
}

/// Merges the files of days that are over, and deletes those of days more than `keep_days` ago.
///
/// # Errors
/// What the store says. A day with a damaged file is left as it is.
pub async fn upkeep(recorder: &Recorder, now: TimeNs, keep_days: u32, env: &Env) -> Result<Upkeep> {
    let today = Day::of(now);
    let mut done = Upkeep::default();
    // Whoever may not delete must not merge: rows would be in more and more files.
    let nothing = new_key(StatsTable::Event, today, now, env);
    recorder.delete(&nothing).await.map_err(Error::store("delete", &nothing))?;
    for ((table, day), files) in days(recorder).await? {
        if day.get().saturating_add(keep_days) < today.get() {
            delete(recorder, &files).await?;
            done.expired_files += files.len() as u64;
        } else if day < today && files.len() > 1 && files.iter().map(|(_, bytes)| bytes).sum::<u64>() <= MERGE_BYTES_MAX
        {
            let mut rows = Vec::new();
            let mut damaged = None;
            for (key, _) in &files {
                match read_file(recorder, table, key).await? {
                    Ok(more) => rows.extend(more),
                    Err(why) => damaged = Some(why),
                }
            }
            if let Some(why) = damaged {
                tracing::warn!(%table, %day, "not merged: {why}");
                continue;
            }
            rows.sort_unstable();
            rows.dedup();
            let key = new_key(table, day, day.start(), env);
            let bytes = encode(table, rows)?;
            recorder.put(&key, bytes).await.map_err(Error::store("write", &key))?;
            delete(recorder, &files).await?;
            done.merged_files += files.len() as u64;
        }
    }
    Ok(done)
}

async fn delete(recorder: &Recorder, files: &DayFiles) -> Result<()> {
    for (key, _) in files {
        recorder.delete(key).await.map_err(Error::store("delete", key))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Holds, Table};
    use std::sync::Arc;
    use tidemark_bucket::{Bucket, Fault, Faults, Op};
    use tidemark_env::ManualClock;

    const TABLE: StatsTable = StatsTable::Event;

    fn row(day: u32, nth: u64) -> Row {
        let cell = |holds| if holds == Holds::Text { "x".into() } else { Cell::from(nth) };
        let mut row: Row = Table::of(TABLE).columns.iter().map(|column| cell(column.holds)).collect();
        row[0] = Cell::from(Day::new(day).start().get() / 1000 + nth);
        row
    }

    async fn put(bucket: &Bucket, day: u32, name: u8, rows: &[Row]) -> ObjectKey {
        let key = ObjectKey::Statistics { table: TABLE, day: Day::new(day), name: [name; 16] };
        bucket.recorder().put(&key, encode(TABLE, rows.to_vec()).unwrap()).await.unwrap();
        key
    }

    async fn all(bucket: &Bucket) -> Rows {
        read(&bucket.read_only(), TABLE, Day::new(0)..=Day::new(u32::MAX)).await.unwrap()
    }

    fn env() -> Env {
        Env::seeded(1, Arc::new(ManualClock::new(TimeNs::new(1))))
    }

    #[tokio::test]
    async fn days_that_are_over_become_one_file_and_old_ones_go() {
        let bucket = Bucket::memory();
        put(&bucket, 10, 1, &[row(10, 1)]).await;
        for name in 0..5 {
            put(&bucket, 99, name, &[row(99, u64::from(name))]).await;
        }
        put(&bucket, 100, 1, &[row(100, 1)]).await;
        put(&bucket, 100, 2, &[row(100, 2)]).await;
        let before = all(&bucket).await;
        let now = TimeNs::new(Day::new(100).start().get() + 5);
        let done = upkeep(&bucket.recorder(), now, 89, &env()).await.unwrap();
        assert_eq!(done, Upkeep { merged_files: 5, expired_files: 1 });
        let days = days(&bucket.read_only()).await.unwrap();
        let files: Vec<_> = days.iter().map(|((_, day), files)| (day.get(), files.len())).collect();
        assert_eq!(files, [(99, 1), (100, 2)], "today is left alone");
        assert_eq!(all(&bucket).await.rows, before.rows[1..]);
        assert_eq!(upkeep(&bucket.recorder(), now, 89, &env()).await.unwrap(), Upkeep::default());
    }

    #[tokio::test]
    async fn a_merge_that_was_cut_short_counts_nothing_twice() {
        let bucket = Bucket::memory();
        for name in 0..5 {
            put(&bucket, 5, name, &[row(5, u64::from(name)), row(5, 100 + u64::from(name))]).await;
        }
        let before = all(&bucket).await;
        let now = Day::new(6).start();
        let may_not_delete =
            bucket.with_faults(Faults::seeded(1).on("v/stats", Op::Delete, Fault::Error, 1.0).surfacing());
        upkeep(&may_not_delete.recorder(), now, 400, &env()).await.unwrap_err();
        let files = days(&bucket.read_only()).await.unwrap().values().map(Vec::len).sum::<usize>();
        assert_eq!(files, 5, "whoever may not delete merges nothing");
        // The delete of a file that is there fails, that of nothing at the beginning does not.
        let cut = bucket.with_faults(
            Faults::seeded(1).on("v/stats/table=event/dt=1970-01-06", Op::Delete, Fault::Error, 1.0).surfacing(),
        );
        upkeep(&cut.recorder(), now, 400, &env()).await.unwrap_err();
        assert_eq!(days(&bucket.read_only()).await.unwrap().values().map(Vec::len).sum::<usize>(), 6);
        assert_eq!(all(&bucket).await, before);
        upkeep(&bucket.recorder(), now, 400, &Env::seeded(2, Arc::new(ManualClock::new(TimeNs::new(1)))))
            .await
            .unwrap();
        assert_eq!(all(&bucket).await, before);
        assert_eq!(days(&bucket.read_only()).await.unwrap().values().map(Vec::len).sum::<usize>(), 1);
    }

    #[tokio::test]
    async fn damage_is_told_and_left_alone() {
        let bucket = Bucket::memory();
        put(&bucket, 5, 1, &[row(5, 1)]).await;
        let key = put(&bucket, 5, 2, &[row(5, 2)]).await;
        bucket.recorder().put(&key, "not Parquet").await.unwrap();
        let found = all(&bucket).await;
        assert_eq!((found.rows.len(), found.damaged.len()), (1, 1));
        assert!(found.damaged[0].contains(&key.to_string()), "{:?}", found.damaged);
        upkeep(&bucket.recorder(), Day::new(6).start(), 400, &env()).await.unwrap();
        assert_eq!(all(&bucket).await, found);
    }
}
