//! Rows of one domain on the local disk, until the bucket has them.
//!
//! A file here is the object that the bucket will get, under the name that it will have there. The newest file of each table
//! grows, rewritten in one step whenever rows come; once it is old enough or large enough it is sealed, and then sent. So what
//! was written down survives a crash, and sending it again changes nothing: no row is lost twice or counted twice.
//! Bounded: [`FILES_MAX`] files of [`ROWS_MAX`] rows. Beyond, the oldest go, and are counted.

use crate::core::row::Row;
use crate::error::{Error, Result};
use crate::file::{decode, encode};
use crate::tables::{new_key, time_of};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemark_bucket::Recorder;
use tidemark_env::Env;
use tidemark_format::{Day, ObjectKey, StatsTable};

/// Files that wait for the bucket: of three tables each 10 minutes, some 4 days.
pub(crate) const FILES_MAX: usize = 2048;
/// Rows of a file that grows.
pub(crate) const ROWS_MAX: usize = 10_000;

/// The files of one domain.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    env: Env,
    ship_every: Duration,
    growing: BTreeMap<StatsTable, Growing>,
    sealed: BTreeSet<ObjectKey>,
    lost_rows: u64,
}

#[derive(Debug)]
struct Growing {
    key: ObjectKey,
    day: Day,
    since: Duration,
    rows: Vec<Row>,
}

/// A file to be sent.
#[derive(Clone, Debug)]
pub struct Shipment {
    /// Where to.
    pub key: ObjectKey,
    path: PathBuf,
}

impl Spool {
    /// The spool in a directory, which is made; what an earlier run left there is sealed. A file is sealed `ship_every` after it
    /// began. Waits for the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(dir: &Path, ship_every: Duration, env: Env) -> Result<Self> {
        let failed = |what| move |source| Error::Spool { what, path: dir.display().to_string(), source };
        fs::create_dir_all(dir).map_err(failed("make"))?;
        let mut sealed = BTreeSet::new();
        for entry in fs::read_dir(dir).map_err(failed("list"))? {
            let entry = entry.map_err(failed("list"))?;
            let name = entry.file_name();
            match key_of(&name.to_string_lossy()) {
                Some(key) => drop(sealed.insert(key)),
                // Half of a file that a crash left.
                None if name.to_string_lossy().ends_with(".tmp") => {
                    fs::remove_file(entry.path()).map_err(failed("tidy"))?;
                }
                None => tracing::warn!(file = %entry.path().display(), "is no file of statistics: left alone"),
            }
        }
        Ok(Self { dir: dir.to_owned(), env, ship_every, growing: BTreeMap::new(), sealed, lost_rows: 0 })
    }

    /// Writes rows of a table down. On return they survive a crash; after an error they are kept in memory and written with the
    /// next ones. Waits for the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn append(&mut self, table: StatsTable, rows: Vec<Row>) -> Result<()> {
        let now = self.env.clock.monotonic();
        let mut failed = None;
        for row in rows {
            let time = time_of(&row).unwrap_or_default();
            let day = Day::of(time);
            let full = |growing: &Growing| growing.day != day || growing.rows.len() >= ROWS_MAX;
            if self.growing.get(&table).is_some_and(full)
                && let Err(error) = self.seal(table)
            {
                failed = Some(error);
            }
            let growing = self.growing.entry(table).or_insert_with(|| {
                let key = new_key(table, day, time, &self.env);
                Growing { key, day, since: now, rows: Vec::new() }
            });
            growing.rows.push(row);
        }
        self.write(table)?;
        failed.map_or(Ok(()), Err)
    }

    /// Seals what has grown for long enough.
    ///
    /// # Errors
    /// What the system says.
    pub fn seal_due(&mut self) -> Result<()> {
        let now = self.env.clock.monotonic();
        let due = |growing: &Growing| now.saturating_sub(growing.since) >= self.ship_every;
        let due: Vec<_> = self.growing.iter().filter(|(_, growing)| due(growing)).map(|(table, _)| *table).collect();
        due.into_iter().try_for_each(|table| self.seal(table))
    }

    /// Seals everything.
    ///
    /// # Errors
    /// What the system says.
    pub fn seal_all(&mut self) -> Result<()> {
        StatsTable::ALL.into_iter().try_for_each(|table| self.seal(table))
    }

    fn seal(&mut self, table: StatsTable) -> Result<()> {
        let sealed = self.write(table);
        let Some(growing) = self.growing.remove(&table) else { return Ok(()) };
        if let Err(error) = sealed {
            // It had been tried with each row: what cannot be written down now is given up, or memory would grow.
            self.lost_rows += growing.rows.len() as u64;
            return Err(error);
        }
        self.sealed.insert(growing.key);
        while self.sealed.len() > FILES_MAX {
            self.give_up_oldest();
        }
        Ok(())
    }

    fn give_up_oldest(&mut self) {
        let time = |key: &&ObjectKey| {
            if let ObjectKey::Statistics { day, name, .. } = key { (*day, *name) } else { (Day::new(0), [0; 16]) }
        };
        let Some(oldest) = self.sealed.iter().min_by_key(time).copied() else { return };
        let path = self.path(&oldest);
        if let (ObjectKey::Statistics { table, .. }, Ok(bytes)) = (oldest, fs::read(&path)) {
            let rows = decode(table, "the spool", bytes.into());
            self.lost_rows += rows.map_or(0, |rows| rows.len() as u64);
        }
        tracing::warn!(key = %oldest, "statistics are given up: the bucket has not taken any for long");
        self.shipped(&oldest);
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.dir.join(key.to_string().replace('/', "~"))
    }

    /// Writes the file of a table that grows, in one step.
    fn write(&self, table: StatsTable) -> Result<()> {
        let Some(growing) = self.growing.get(&table) else { return Ok(()) };
        let bytes = encode(table, growing.rows.clone())?;
        let path = self.path(&growing.key);
        let half = path.with_extension("tmp");
        let written = || -> io::Result<()> {
            let mut file = File::create(&half)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&half, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        written().map_err(|source| Error::Spool { what: "write", path: path.display().to_string(), source })
    }

    /// What is to be sent, the oldest table first.
    pub fn shipments(&self) -> Vec<Shipment> {
        self.sealed.iter().map(|key| Shipment { key: *key, path: self.path(key) }).collect()
    }

    /// The bucket has it.
    pub fn shipped(&mut self, key: &ObjectKey) {
        let path = self.path(key);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %path.display(), %error, "statistics that were sent are still here");
            return;
        }
        self.sealed.remove(key);
    }

    /// Files that the bucket does not have.
    pub fn waiting_files(&self) -> usize {
        self.sealed.len() + self.growing.len()
    }

    /// Rows that were given up.
    pub fn lost_rows(&self) -> u64 {
        self.lost_rows
    }
}

impl Shipment {
    /// Its bytes, from the local disk. Waits for it.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self) -> Result<Bytes> {
        let failed = |source| Error::Spool { what: "read", path: self.path.display().to_string(), source };
        fs::read(&self.path).map(Bytes::from).map_err(failed)
    }

    /// Sends it.
    ///
    /// # Errors
    /// What the store says. It may have been stored; sending it again is harmless.
    pub async fn send(&self, recorder: &Recorder, bytes: Bytes) -> Result<()> {
        recorder.put(&self.key, bytes).await.map_err(Error::store("send", &self.key))
    }
}

fn key_of(name: &str) -> Option<ObjectKey> {
    let key: ObjectKey = name.replace('~', "/").parse().ok()?;
    matches!(key, ObjectKey::Statistics { .. }).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::row::Cell;
    use crate::registry::{Holds, Table};
    use std::sync::Arc;
    use tidemark_env::ManualClock;
    use tidemark_format::TimeNs;

    const MINUTE: Duration = Duration::from_secs(60);

    fn row(second: u64) -> Row {
        let table = Table::of(StatsTable::Event);
        let cell = |holds| if holds == Holds::Text { "x".into() } else { Cell::from(second) };
        let mut row: Row = table.columns.iter().map(|column| cell(column.holds)).collect();
        row[0] = Cell::from(second * 1_000_000);
        row
    }

    fn env() -> (Env, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(TimeNs::new(1)));
        (Env::seeded(7, clock.clone()), clock)
    }

    fn rows_in(spool: &Spool) -> Vec<Row> {
        let read = |shipment: Shipment| decode(StatsTable::Event, "x", shipment.read().unwrap()).unwrap();
        spool.shipments().into_iter().flat_map(read).collect()
    }

    #[test]
    fn what_was_written_down_survives_a_crash_and_is_there_once() {
        let (dir, (env, _)) = (tempfile::tempdir().unwrap(), env());
        let mut spool = Spool::open(dir.path(), 10 * MINUTE, env.clone()).unwrap();
        spool.append(StatsTable::Event, vec![row(1), row(2)]).unwrap();
        spool.append(StatsTable::Event, vec![row(3)]).unwrap();
        assert_eq!(spool.shipments().len(), 0, "it grows");
        drop(spool);
        fs::write(dir.path().join("half.tmp"), "half").unwrap();
        let mut spool = Spool::open(dir.path(), 10 * MINUTE, env).unwrap();
        assert_eq!(rows_in(&spool), [row(1), row(2), row(3)]);
        spool.append(StatsTable::Event, vec![row(4)]).unwrap();
        spool.seal_all().unwrap();
        assert_eq!(rows_in(&spool).len(), 4);
        let keys: Vec<_> = spool.shipments().iter().map(|shipment| shipment.key).collect();
        keys.iter().for_each(|key| spool.shipped(key));
        assert_eq!((spool.waiting_files(), fs::read_dir(dir.path()).unwrap().count()), (0, 0));
    }

    #[test]
    fn a_file_is_sealed_when_it_is_old_or_its_day_is_over() {
        let (dir, (env, clock)) = (tempfile::tempdir().unwrap(), env());
        let mut spool = Spool::open(dir.path(), 10 * MINUTE, env).unwrap();
        spool.append(StatsTable::Event, vec![row(86_399)]).unwrap();
        spool.append(StatsTable::Event, vec![row(86_400)]).unwrap();
        let first = spool.shipments()[0].key.to_string();
        assert!(first.starts_with("v/stats/table=event/dt=1970-01-01/00004e9"), "{first}");
        clock.advance(9 * MINUTE);
        spool.seal_due().unwrap();
        assert_eq!(spool.shipments().len(), 1);
        clock.advance(MINUTE);
        spool.seal_due().unwrap();
        assert_eq!(spool.shipments().len(), 2);
    }

    #[test]
    fn a_spool_that_nobody_empties_keeps_the_newest() {
        let (dir, (env, _)) = (tempfile::tempdir().unwrap(), env());
        let mut spool = Spool::open(dir.path(), MINUTE, env).unwrap();
        for second in 0..5 {
            spool.append(StatsTable::Event, vec![row(second), row(second)]).unwrap();
            spool.seal_all().unwrap();
        }
        spool.give_up_oldest();
        assert_eq!((spool.lost_rows(), spool.waiting_files()), (2, 4));
        assert!(!rows_in(&spool).contains(&row(0)));
    }
}
