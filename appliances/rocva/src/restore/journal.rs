//! What a restore has found out, for a later one: a line of text for each object.
//!
//! It begins with what is restored and from what; a journal of anything else says only that the disk holds neither. Lines need not be
//! durable: each is believed only if the disk holds what it says. That there is a journal has to be, before the disk is written to.

use crate::durable;
use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use tidemark_format::text::{hex, unhex};
use tidemark_reader::{Proof, Proofs};

const FIRST_LINE: &str = "tidemark restore 1";
/// Stands for what a disk held before an interrupted restore to another point.
const ANOTHER: &str = "nothing is known";
/// Objects that are remembered; more of them are compared again.
const PROOFS_MAX: usize = 1 << 18;

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    path: Option<PathBuf>,
    identity: String,
    since: String,
    file: Option<File>,
    /// Of a restore without a file.
    kept: Proofs,
}

/// A journal that was opened.
pub(super) struct Opened {
    pub(super) journal: Journal,
    pub(super) proofs: Proofs,
    /// It is of another restore, which did not come to its end.
    pub(super) was_another: bool,
}

impl Journal {
    /// Looks what is there; writes nothing.
    pub(super) fn open(path: Option<PathBuf>, identity: &str, since: &str) -> Result<Opened> {
        let mut journal =
            Self { path, identity: identity.to_owned(), since: since.to_owned(), file: None, kept: Proofs::new() };
        let (mut proofs, mut was_another) = (Proofs::new(), false);
        if let Some(read) = journal.read()? {
            match read.identity == identity && (read.since == since || read.since == ANOTHER) {
                true => (proofs, was_another) = (read.proofs, read.since != since),
                false => was_another = true,
            }
        }
        if was_another {
            journal.since = ANOTHER.to_owned();
        }
        Ok(Opened { journal, proofs, was_another })
    }

    /// Makes sure that there is one, durable, before anything is written to the disk.
    pub(super) fn begin(&mut self, was_another: bool) -> Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let own = |source| Error::Local { path: path.clone(), source };
        if was_another || self.read()?.is_none() {
            let header = format!("{FIRST_LINE}\n{}\n{}\n", self.identity, self.since);
            durable::write(&path, header.as_bytes()).map_err(own)?;
        }
        let mut file = OpenOptions::new().append(true).open(&path).map_err(own)?;
        // The last line may be torn.
        file.write_all(b"\n").map_err(own)?;
        self.file = Some(file);
        Ok(())
    }

    pub(super) fn note(&mut self, proof: &Proof) -> Result<()> {
        let Some(file) = &mut self.file else {
            if self.kept.len() < PROOFS_MAX {
                self.kept.insert((proof.from, proof.key), proof.hash);
            }
            return Ok(());
        };
        let line = format!("{} {} {}\n", proof.from, proof.key, hex(&proof.hash));
        let path = || self.path.clone().unwrap_or_default();
        file.write_all(line.as_bytes()).map_err(|source| Error::Local { path: path(), source })
    }

    /// What was found out so far.
    pub(super) fn proofs(&self) -> Result<Proofs> {
        match &self.file {
            Some(_) => Ok(self.read()?.map(|read| read.proofs).unwrap_or_default()),
            None => Ok(self.kept.clone()),
        }
    }

    /// Removes it: the disk is what it was to become.
    pub(super) fn end(self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let removed = std::fs::remove_file(path).and_then(|()| File::open(dir)?.sync_all());
        removed.map_err(|source| Error::Local { path: path.clone(), source })
    }

    fn read(&self) -> Result<Option<Read>> {
        let Some(path) = &self.path else { return Ok(None) };
        let own = |source| Error::Local { path: path.clone(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(own(source)),
        };
        let mut lines = BufReader::new(file).lines();
        let mut next = || lines.next().transpose().map_err(own);
        if next()?.as_deref() != Some(FIRST_LINE) {
            let why = "it is no journal of a restore: choose another with --journal".to_owned();
            return Err(Error::Damaged { path: path.clone(), why });
        }
        let (identity, since) = (next()?.unwrap_or_default(), next()?.unwrap_or_default());
        let mut proofs = Proofs::new();
        while let Some(line) = next()? {
            if let Some((place, hash)) = parse(&line).filter(|_| proofs.len() < PROOFS_MAX) {
                proofs.insert(place, hash);
            }
        }
        Ok(Some(Read { identity, since, proofs }))
    }
}

struct Read {
    identity: String,
    since: String,
    proofs: Proofs,
}

/// A line; `None` for one that is torn.
fn parse(line: &str) -> Option<((u64, tidemark_format::ObjectKey), [u8; 16])> {
    let mut words = line.split(' ');
    let (from, key, hash) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
    let hash = unhex(hash.as_bytes())?.try_into().ok()?;
    words.next().is_none().then_some(((from, key), hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_format::{Epoch, ObjectKey, Seq};

    fn proof(seq: u64) -> Proof {
        Proof { from: 7, key: ObjectKey::Log { epoch: Epoch::new(1), seq: Seq::new(seq) }, hash: [seq as u8; 16] }
    }

    #[test]
    fn notes_outlive_the_process_and_a_torn_one_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let opened = Journal::open(Some(path.clone()), "disk 1", "it held lsn 3").expect("there is none");
        assert!(opened.proofs.is_empty() && !opened.was_another && !path.exists());
        let mut journal = opened.journal;
        journal.begin(false).expect("begin");
        journal.note(&proof(1)).expect("note");
        let whole = std::fs::read(&path).expect("read");
        journal.note(&proof(2)).expect("note");
        let torn = std::fs::metadata(&path).expect("look").len() - 9;
        OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(torn)).expect("tear");
        let again = Journal::open(Some(path.clone()), "disk 1", "it held lsn 3").expect("open");
        assert_eq!(again.proofs, Proofs::from([((7, proof(1).key), proof(1).hash)]));
        let mut journal = again.journal;
        journal.begin(false).expect("begin again");
        journal.note(&proof(3)).expect("note");
        assert_eq!(journal.proofs().expect("read").len(), 2, "what follows a torn line counts");
        assert!(std::fs::read(&path).expect("read").starts_with(&whole));
        journal.end().expect("end");
        assert!(!path.exists());
    }

    #[test]
    fn an_interrupted_restore_of_another_point_makes_all_uncertain_until_one_comes_to_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = Some(dir.path().join("journal"));
        let mut first = Journal::open(path.clone(), "disk 1 at lsn 5", "it held lsn 3").expect("open").journal;
        first.begin(false).expect("begin");
        first.note(&proof(1)).expect("note");
        for (identity, since) in [("disk 1 at lsn 4", "it held lsn 3"), ("disk 1 at lsn 5", "it held lsn 2")] {
            let other = Journal::open(path.clone(), identity, since).expect("open");
            assert!(other.was_another && other.proofs.is_empty());
        }
        let mut other = Journal::open(path.clone(), "disk 1 at lsn 4", "it held lsn 3").expect("open").journal;
        other.begin(true).expect("begin");
        other.note(&proof(2)).expect("note");
        let again = Journal::open(path.clone(), "disk 1 at lsn 4", "it held lsn 3").expect("open");
        assert!(again.was_another, "also when the other one was interrupted, too");
        assert_eq!(again.proofs.len(), 1);
    }

    #[test]
    fn what_is_no_journal_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        std::fs::write(&path, "dear diary\n").expect("write");
        assert!(matches!(Journal::open(Some(path), "a", "b"), Err(Error::Damaged { .. })));
    }
}
