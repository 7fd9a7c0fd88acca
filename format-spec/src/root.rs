//! Roots: which tables make up the index, and how far it reaches (SPEC.md §roots).

use crate::error::{FormatError, Result};
use crate::fields::Fields;
use crate::header::Expect;
use crate::ids::{DomainId, Epoch, Lsn, Seq, TimeNs};
use crate::key::ObjectKey;
use crate::record::{KIND_ROOT, open, seal};
use crate::retention::Retained;
use crate::table::{TableKind, TableRef};

/// Largest root in bytes (SPEC.md §limits).
pub const ROOT_BYTES_MAX: usize = 4 << 20;

/// Where a writer epoch begins in the indexed history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The writer epoch.
    pub epoch: Epoch,
    /// Its first LSN.
    pub first_lsn: Lsn,
}

/// The last log segment that the index covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Through {
    /// Writer epoch.
    pub epoch: Epoch,
    /// Its number in that epoch.
    pub seq: Seq,
    /// Its header hash.
    pub header_hash: [u8; 32],
    /// Its last LSN: the index covers every LSN from 1 to this one.
    pub lsn: Lsn,
    /// When that LSN happened.
    pub time: TimeNs,
}

/// What a maintainer publishes: the whole index at one moment. Immutable, replaced by the next root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The domain.
    pub domain: DomainId,
    /// Maintenance epoch that wrote it.
    pub epoch: Epoch,
    /// Its number in that epoch, from 1.
    pub seq: Seq,
    /// How far the index reaches.
    pub through: Through,
    /// When LSN 1 happened.
    pub first_time: TimeNs,
    /// The writer epochs of the indexed history, oldest first; epochs without a segment are left out.
    pub epochs: Vec<EpochStart>,
    /// All tables: by kind, then by LSN, then in the order of their rows.
    pub tables: Vec<TableRef>,
    /// The points that are offered; `None`: all.
    pub retained: Option<Retained>,
}

impl Root {
    /// The key of the root.
    pub const fn key(&self) -> ObjectKey {
        ObjectKey::Root { epoch: self.epoch, seq: self.seq }
    }

    /// The tables of a kind, oldest first.
    pub fn tables_of(&self, kind: TableKind) -> impl DoubleEndedIterator<Item = &TableRef> {
        self.tables.iter().filter(move |table| table.kind == kind)
    }

    /// The writer epoch of an LSN that the index covers.
    pub fn epoch_of(&self, lsn: Lsn) -> Option<Epoch> {
        let after = self.epochs.partition_point(|start| start.first_lsn <= lsn);
        let start = after.checked_sub(1).map(|at| self.epochs[at])?;
        (lsn <= self.through.lsn).then_some(start.epoch)
    }

    /// The fields, as they stand in the object.
    pub fn fields(&self) -> Fields {
        let epoch = |start: &EpochStart| {
            Fields::default().with("epoch", start.epoch.get()).with("first", start.first_lsn.get())
        };
        let fields = Fields::default()
            .with("domain", self.domain.bytes().as_slice())
            .with("epoch", self.epoch.get())
            .with("seq", self.seq.get())
            .with("tail_epoch", self.through.epoch.get())
            .with("tail_seq", self.through.seq.get())
            .with("tail_hash", self.through.header_hash.as_slice())
            .with("tail_lsn", self.through.lsn.get())
            .with("tail_time", self.through.time.get())
            .with("first_time", self.first_time.get())
            .with("epochs", self.epochs.iter().map(epoch).collect::<Vec<_>>())
            .with("tables", self.tables.iter().map(TableRef::fields).collect::<Vec<_>>());
        match &self.retained {
            Some(retained) => retained.put(fields),
            None => fields,
        }
    }

    /// The object's bytes.
    ///
    /// # Errors
    /// `Draft` if they are too many, or the root breaks a rule that its readers check.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let bytes = seal(KIND_ROOT, &self.fields());
        let expect = Expect { domain: self.domain, key: self.key() };
        match Self::decode(&bytes, &expect) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(FormatError::Draft { why: format!("{}: {error}", self.key()) }),
        }
    }

    /// Reads a root and checks that it is the one that was asked for, and that its tables cover the history once.
    ///
    /// # Errors
    /// `Misplaced`, and those of [`Self::decode_copy`].
    pub fn decode(bytes: &[u8], expect: &Expect) -> Result<Self> {
        let root = Self::decode_copy(bytes, expect.domain)?;
        //= SPEC.md#reader-rules
        //#
        if root.key() != expect.key {
            return Err(FormatError::Misplaced { found: root.key().to_string(), expected: expect.key });
        }
        Ok(root)
    }

    /// Reads a copy of a root, which may be any root of the domain.
    ///
    /// # Errors
    /// `Magic`, `Major`, `RecordHash`, `Cbor`, `Field`, `WrongDomain`, `Table` and length errors.
    pub fn decode_copy(bytes: &[u8], domain: DomainId) -> Result<Self> {
        let what = "root";
        let fields = open(what, KIND_ROOT, bytes, ROOT_BYTES_MAX)?;
        let uint = |field| fields.uint(what, field);
        let epoch = |fields: &Fields| {
            let (epoch, first) = (fields.uint(what, "epoch")?, fields.uint(what, "first")?);
            Ok(EpochStart { epoch: Epoch::new(epoch), first_lsn: Lsn::new(first) })
        };
        let root = Self {
            domain: DomainId::new(fields.bytes(what, "domain")?),
            epoch: Epoch::new(uint("epoch")?),
            seq: Seq::new(uint("seq")?),
            through: Through {
                epoch: Epoch::new(uint("tail_epoch")?),
                seq: Seq::new(uint("tail_seq")?),
                header_hash: fields.bytes(what, "tail_hash")?,
                lsn: Lsn::new(uint("tail_lsn")?),
                time: TimeNs::new(uint("tail_time")?),
            },
            first_time: TimeNs::new(uint("first_time")?),
            epochs: fields.list(what, "epochs")?.iter().map(epoch).collect::<Result<_>>()?,
            tables: fields.list(what, "tables")?.iter().map(TableRef::from_fields).collect::<Result<_>>()?,
            retained: Retained::take(what, &fields)?,
        };
        if root.domain != domain {
            return Err(FormatError::WrongDomain { found: root.domain, expected: domain });
        }
        root.check()?;
        Ok(root)
    }

    fn check(&self) -> Result<()> {
        let broken = |why: String| Err(FormatError::Table { why });
        let bad = |field| Err(FormatError::Field { what: "root", field });
        if self.through.seq.get() == 0 || self.through.lsn == Lsn::ZERO {
            return bad("tail_seq");
        }
        //= SPEC.md#roots
        //# RT-2
        let ascend = |pair: &[EpochStart]| pair[0].epoch < pair[1].epoch && pair[0].first_lsn < pair[1].first_lsn;
        let (Some(first), Some(last)) = (self.epochs.first(), self.epochs.last()) else { return bad("epochs") };
        if first.first_lsn.get() != 1
            || last.epoch != self.through.epoch
            || last.first_lsn > self.through.lsn
            || !self.epochs.windows(2).all(ascend)
        {
            return bad("epochs");
        }
        //= SPEC.md#roots
        //# RT-3
        if self.tables.windows(2).any(|pair| (pair[0].kind, pair[0].first_lsn) > (pair[1].kind, pair[1].first_lsn)) {
            return broken("tables are not sorted by kind and LSN".into());
        }
        for kind in [TableKind::Rows, TableKind::Segments, TableKind::Events] {
            let mut before: Option<&TableRef> = None;
            for table in self.tables_of(kind) {
                let same_run = before.is_some_and(|b| (b.first_lsn, b.last_lsn) == (table.first_lsn, table.last_lsn));
                let ok = match before {
                    Some(before) if same_run && kind == TableKind::Rows => {
                        before.level == table.level && before.bounds.high <= table.bounds.low
                    }
                    Some(before) => !same_run && before.last_lsn < table.first_lsn,
                    None => true,
                };
                if !ok {
                    return broken(format!("{} overlaps the table before it", table.key()));
                }
                before = Some(table);
            }
        }
        // Every LSN belongs to a segment, so the tables of segments have to be without a gap.
        let mut next = Lsn::new(1);
        for table in self.tables_of(TableKind::Segments) {
            match table.last_lsn.checked_next() {
                Some(after) if table.first_lsn == next => next = after,
                _ => return broken(format!("{} does not begin at lsn {next}", table.key())),
            }
        }
        if Some(next) != self.through.lsn.checked_next() {
            return broken(format!("segments end before lsn {next}, the index at {}", self.through.lsn));
        }
        Ok(())
    }
}
