//! Roots: which tables make up the index, and how far it reaches (SPEC.md §roots).

use crate::error::{FormatError, Result};
use crate::fields::Fields;
use crate::header::Expect;
use crate::ids::{DomainId, Epoch, Lsn, Seq, TimeNs};
use crate::key::ObjectKey;
use crate::record::{KIND_ROOT, open, seal};
use crate::retention::{Mark, Retained};
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

impl EpochStart {
    fn fields(&self) -> Fields {
        Fields::default().with("epoch", self.epoch.get()).with("first", self.first_lsn.get())
    }

    pub(crate) fn put(epochs: &[Self], fields: Fields) -> Fields {
        fields.with("epochs", epochs.iter().map(Self::fields).collect::<Vec<_>>())
    }

    /// The epochs of a history that ends with `through`.
    pub(crate) fn take(what: &'static str, fields: &Fields, through: &Through) -> Result<Vec<Self>> {
        let epoch = |fields: &Fields| {
            let (epoch, first) = (fields.uint(what, "epoch")?, fields.uint(what, "first")?);
            Ok(Self { epoch: Epoch::new(epoch), first_lsn: Lsn::new(first) })
        };
        let epochs = fields.list(what, "epochs")?.iter().map(epoch).collect::<Result<Vec<_>>>()?;
        //= SPEC.md#roots
        //# RT-2
        let ascend = |pair: &[Self]| pair[0].epoch < pair[1].epoch && pair[0].first_lsn < pair[1].first_lsn;
        let ends = |last: &Self| last.epoch == through.epoch && last.first_lsn <= through.lsn;
        let begins = epochs.first().is_some_and(|first| first.first_lsn.get() == 1);
        if !begins || !epochs.last().is_some_and(ends) || !epochs.windows(2).all(ascend) {
            return Err(FormatError::Field { what, field: "epochs" });
        }
        Ok(epochs)
    }
}

/// A log segment that something reaches up to: the index, or a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Through {
    /// Writer epoch.
    pub epoch: Epoch,
    /// Its number in that epoch.
    pub seq: Seq,
    /// Its header hash.
    pub header_hash: [u8; 32],
    /// Its last LSN: every LSN from 1 to this one is covered.
    pub lsn: Lsn,
    /// When that LSN happened.
    pub time: TimeNs,
}

impl Through {
    pub(crate) fn put(&self, fields: Fields) -> Fields {
        fields
            .with("tail_epoch", self.epoch.get())
            .with("tail_seq", self.seq.get())
            .with("tail_hash", self.header_hash.as_slice())
            .with("tail_lsn", self.lsn.get())
            .with("tail_time", self.time.get())
    }

    pub(crate) fn take(what: &'static str, fields: &Fields) -> Result<Self> {
        let uint = |field| fields.uint(what, field);
        let through = Self {
            epoch: Epoch::new(uint("tail_epoch")?),
            seq: Seq::new(uint("tail_seq")?),
            header_hash: fields.bytes(what, "tail_hash")?,
            lsn: Lsn::new(uint("tail_lsn")?),
            time: TimeNs::new(uint("tail_time")?),
        };
        if through.seq.get() == 0 || through.lsn == Lsn::ZERO {
            return Err(FormatError::Field { what, field: "tail_seq" });
        }
        Ok(through)
    }
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

    /// Puts the tables into their order.
    pub fn sort_tables(&mut self) {
        self.tables.sort_by_key(|table| (table.kind, table.first_lsn, table.bounds.low, table.seq));
    }

    /// The points that are offered: without any word of it, all of them.
    pub fn offers(&self) -> Retained {
        let everything = || Retained { horizon: Mark { lsn: Lsn::new(1), time: self.first_time }, kept: Vec::new() };
        self.retained.clone().unwrap_or_else(everything)
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
        let fields = Fields::default()
            .with("domain", self.domain.bytes().as_slice())
            .with("epoch", self.epoch.get())
            .with("seq", self.seq.get())
            .with("first_time", self.first_time.get())
            .with("tables", self.tables.iter().map(TableRef::fields).collect::<Vec<_>>());
        let fields = EpochStart::put(&self.epochs, self.through.put(fields));
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
        let through = Through::take(what, &fields)?;
        let root = Self {
            domain: DomainId::new(fields.bytes(what, "domain")?),
            epoch: Epoch::new(uint("epoch")?),
            seq: Seq::new(uint("seq")?),
            through,
            first_time: TimeNs::new(uint("first_time")?),
            epochs: EpochStart::take(what, &fields, &through)?,
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
        //= SPEC.md#roots
        //# RT-3
        if self.tables.windows(2).any(|pair| (pair[0].kind, pair[0].first_lsn) > (pair[1].kind, pair[1].first_lsn)) {
            return broken("tables are not sorted by kind and LSN".into());
        }
        for kind in TableKind::ALL {
            let mut before: Option<&TableRef> = None;
            for table in self.tables_of(kind) {
                let same_run = before.is_some_and(|b| (b.first_lsn, b.last_lsn) == (table.first_lsn, table.last_lsn));
                let ok = match before {
                    Some(before) if same_run && kind == TableKind::Rows => {
                        before.level == table.level && before.bounds.high <= table.bounds.low
                    }
                    //= SPEC.md#images
                    //# IX-8
                    Some(before) if same_run && kind == TableKind::Images => {
                        let disks = (before.bounds.low.disk, table.bounds.low.disk);
                        disks.0 < disks.1 || (disks.0 == disks.1 && before.region.end() <= table.region.start)
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
        if let Some(late) = self.tables_of(TableKind::Images).find(|table| table.last_lsn > self.through.lsn) {
            return broken(format!("{} lies behind the end of the index", late.key()));
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
