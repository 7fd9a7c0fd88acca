//! Ledgers: what stands for the older part of the log, from which something was deleted (SPEC.md §ledgers).

use crate::error::{FormatError, Result};
use crate::fields::Fields;
use crate::header::{Expect, SegmentKind};
use crate::ids::{DomainId, Epoch, Lsn, Role, Seq, TimeNs};
use crate::key::ObjectKey;
use crate::record::{KIND_LEDGER, open, seal};
use crate::retention::Retained;
use crate::root::{EpochStart, Through};

/// Largest ledger in bytes (SPEC.md §limits).
pub const LEDGER_BYTES_MAX: usize = 16 << 20;

/// Objects of the history that follow one another: log segments of one epoch, or one compact segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerPart {
    /// `Log` or `Compact`.
    pub kind: SegmentKind,
    /// The epoch of its role.
    pub epoch: Epoch,
    /// Number of its first object.
    pub first: Seq,
    /// Number of its last object; of a compact segment the same.
    pub last: Seq,
    /// Last LSN of that one.
    pub last_lsn: Lsn,
    /// Header hash of that one.
    pub header_hash: [u8; 32],
}

impl LedgerPart {
    /// The keys of its objects, oldest first.
    pub fn keys(&self) -> impl Iterator<Item = ObjectKey> + use<> {
        let part = *self;
        (self.first.get()..=self.last.get()).map(move |seq| part.key(Seq::new(seq)))
    }

    /// The key of its last object.
    pub const fn last_key(&self) -> ObjectKey {
        self.key(self.last)
    }

    const fn key(&self, seq: Seq) -> ObjectKey {
        match self.kind {
            SegmentKind::Compact => ObjectKey::Base { role: Role::Maintenance, epoch: self.epoch, seq },
            _ => ObjectKey::Log { epoch: self.epoch, seq },
        }
    }

    fn fields(&self) -> Fields {
        Fields::default()
            .with("kind", self.kind.name())
            .with("epoch", self.epoch.get())
            .with("first", self.first.get())
            .with("last", self.last.get())
            .with("lsn", self.last_lsn.get())
            .with("hash", self.header_hash.as_slice())
    }

    fn from_fields(fields: &Fields) -> Result<Self> {
        let what = "part of a ledger";
        let uint = |field| fields.uint(what, field);
        let kind = match fields.text(what, "kind")?.as_str() {
            "log" => SegmentKind::Log,
            "compact" => SegmentKind::Compact,
            _ => return Err(FormatError::Field { what, field: "kind" }),
        };
        Ok(Self {
            kind,
            epoch: Epoch::new(uint("epoch")?),
            first: Seq::new(uint("first")?),
            last: Seq::new(uint("last")?),
            last_lsn: Lsn::new(uint("lsn")?),
            header_hash: fields.bytes(what, "hash")?,
        })
    }
}

/// The history from LSN 1 up to the end of a closed epoch, object by object. Immutable; the newest one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// The domain.
    pub domain: DomainId,
    /// Maintenance epoch that wrote it; it writes no other.
    pub epoch: Epoch,
    /// The tail of the last epoch that it describes, as the CUT behind it names it. The segment itself may be gone.
    pub through: Through,
    /// When LSN 1 happened.
    pub first_time: TimeNs,
    /// The writer epochs of that history, oldest first; epochs without a segment are left out.
    pub epochs: Vec<EpochStart>,
    /// The objects, in the order of their LSNs.
    pub parts: Vec<LedgerPart>,
    /// The points that they can show.
    pub retained: Retained,
}

impl Ledger {
    /// The key of the ledger.
    pub const fn key(&self) -> ObjectKey {
        ObjectKey::Ledger { epoch: self.epoch }
    }

    /// The keys of all objects, oldest first.
    pub fn keys(&self) -> impl Iterator<Item = ObjectKey> + '_ {
        self.parts.iter().flat_map(LedgerPart::keys)
    }

    /// The fields, as they stand in the object.
    pub fn fields(&self) -> Fields {
        let fields = Fields::default()
            .with("domain", self.domain.bytes().as_slice())
            .with("epoch", self.epoch.get())
            .with("first_time", self.first_time.get())
            .with("parts", self.parts.iter().map(LedgerPart::fields).collect::<Vec<_>>());
        self.retained.put(EpochStart::put(&self.epochs, self.through.put(fields)))
    }

    /// The object's bytes.
    ///
    /// # Errors
    /// `Draft` if they are too many, or the ledger breaks a rule that its readers check.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let bytes = seal(KIND_LEDGER, &self.fields());
        let expect = Expect { domain: self.domain, key: self.key() };
        match Self::decode(&bytes, &expect) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(FormatError::Draft { why: format!("{}: {error}", self.key()) }),
        }
    }

    /// Reads a ledger and checks that it is the one that was asked for.
    ///
    /// # Errors
    /// `Magic`, `Major`, `RecordHash`, `Cbor`, `Field`, `WrongDomain`, `Misplaced` and length errors.
    pub fn decode(bytes: &[u8], expect: &Expect) -> Result<Self> {
        let what = "ledger";
        let fields = open(what, KIND_LEDGER, bytes, LEDGER_BYTES_MAX)?;
        let through = Through::take(what, &fields)?;
        let ledger = Self {
            domain: DomainId::new(fields.bytes(what, "domain")?),
            epoch: Epoch::new(fields.uint(what, "epoch")?),
            through,
            first_time: TimeNs::new(fields.uint(what, "first_time")?),
            epochs: EpochStart::take(what, &fields, &through)?,
            parts: fields.list(what, "parts")?.iter().map(LedgerPart::from_fields).collect::<Result<_>>()?,
            retained: Retained::take(what, &fields)?.ok_or(FormatError::Field { what, field: "horizon" })?,
        };
        //= SPEC.md#reader-rules
        //#
        if ledger.domain != expect.domain {
            return Err(FormatError::WrongDomain { found: ledger.domain, expected: expect.domain });
        }
        if ledger.key() != expect.key {
            return Err(FormatError::Misplaced { found: ledger.key().to_string(), expected: expect.key });
        }
        ledger.check()?;
        Ok(ledger)
    }

    fn check(&self) -> Result<()> {
        let bad = |field| Err(FormatError::Field { what: "ledger", field });
        let (mut lsn, mut log_end) = (Lsn::ZERO, (Epoch::new(0), Seq::new(0)));
        for part in &self.parts {
            //= SPEC.md#ledgers
            //# LG-1
            // Each object holds an LSN at least: so a part cannot name more of them than it has LSNs.
            let more = part.last.get().checked_sub(part.first.get());
            let span = part.last_lsn.get().checked_sub(lsn.get());
            let (Some(more), Some(span)) = (more, span) else { return bad("parts") };
            if more >= span || part.first.get() == 0 || part.epoch.get() == 0 {
                return bad("parts");
            }
            match part.kind {
                SegmentKind::Compact if more > 0 || part.epoch > self.epoch => return bad("parts"),
                SegmentKind::Compact => {}
                _ if (part.epoch, part.first) <= log_end => return bad("parts"),
                _ => log_end = (part.epoch, part.last),
            }
            lsn = part.last_lsn;
        }
        let through = &self.through;
        let Some(last) = self.parts.last() else { return bad("parts") };
        let ends = match last.kind {
            SegmentKind::Log => {
                (last.epoch, last.last, last.header_hash) == (through.epoch, through.seq, through.header_hash)
            }
            _ => log_end <= (through.epoch, through.seq),
        };
        if lsn != through.lsn || !ends {
            return bad("tail_lsn");
        }
        Ok(())
    }
}
