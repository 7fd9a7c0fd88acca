//! Claims, hints, pins and records of quarantine: small objects in one envelope (SPEC.md §records).
//!
//! An envelope is a magic number, a kind, the length of the body, the BLAKE3 of all the rest, and the body.

use crate::cursor::Cursor;
use crate::error::{FormatError, Result};
use crate::fields::Fields;
use crate::header::{Expect, MAJOR};
use crate::ids::{DomainId, Epoch, Role, Seq, TimeNs};
use crate::key::ObjectKey;
use minicbor::Decoder;

/// First bytes of a record.
pub const RECORD_MAGIC: [u8; 8] = *b"\x89TLR\r\n\x1a\n";
/// Largest record in bytes (SPEC.md §limits).
pub const RECORD_BYTES_MAX: usize = 64 << 10;
const ENVELOPE_BYTES: usize = 48;
const KIND_CLAIM: u16 = 1;
const KIND_HINT: u16 = 2;
pub(crate) const KIND_ROOT: u16 = 3;
pub(crate) const KIND_LEDGER: u16 = 5;
const KIND_PIN: u16 = 6;
const KIND_QUARANTINE: u16 = 7;

pub(crate) fn seal(kind: u16, fields: &Fields) -> Vec<u8> {
    let mut body = Vec::new();
    fields.put(&mut body);
    let mut out = Vec::with_capacity(ENVELOPE_BYTES + body.len());
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&MAJOR.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let hash = record_hash(&out, &body);
    out.extend_from_slice(&hash);
    out.extend_from_slice(&body);
    out
}

fn record_hash(front: &[u8], body: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(front).update(body).finalize().as_bytes()
}

pub(crate) fn open(what: &'static str, kind: u16, bytes: &[u8], bytes_max: usize) -> Result<Fields> {
    if bytes.len() > bytes_max {
        return Err(FormatError::TrailingBytes { what, extra: (bytes.len() - bytes_max) as u64 });
    }
    let mut from = Cursor::new(what, bytes);
    if from.array()? != RECORD_MAGIC {
        return Err(FormatError::Magic { what });
    }
    let (found_kind, major, body_len) = (from.u16()?, from.u16()?, from.u32()?);
    if major != MAJOR {
        return Err(FormatError::Major { what, found: major.into(), known: MAJOR.into() });
    }
    let hash: [u8; 32] = from.array()?;
    let body = from.take(body_len as usize)?;
    from.finish()?;
    //= SPEC.md#records
    //# RC-1
    if hash != record_hash(&bytes[..16], body) {
        return Err(FormatError::RecordHash { what });
    }
    if found_kind != kind {
        return Err(FormatError::HeaderField { field: "kind", value: found_kind.into() });
    }
    let mut decoder = Decoder::new(body);
    let fields = Fields::take(&mut decoder, what)?;
    match body.len() - decoder.position() {
        0 => Ok(fields),
        extra => Err(FormatError::TrailingBytes { what, extra: extra as u64 }),
    }
}

/// How a writer's uniqueness is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClaimMode {
    /// By the store's create-if-absent, probed at attach.
    Cas,
    /// By the operator's word that there is only one writer.
    AttestedSingle,
}

impl ClaimMode {
    /// The word in records, tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cas => "cas",
            Self::AttestedSingle => "attested-single",
        }
    }
    /// The mode of a word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Cas, Self::AttestedSingle].into_iter().find(|mode| mode.name() == name)
    }
}

/// A claim: the immortal proof of who owns an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The domain.
    pub domain: DomainId,
    /// Role of the owner.
    pub role: Role,
    /// The claimed epoch.
    pub epoch: Epoch,
    /// Random bytes by which the owner knows its own claim.
    pub nonce: [u8; 16],
    /// How uniqueness is guarded.
    pub mode: ClaimMode,
    /// Who claims, for people.
    pub owner: String,
    /// When, by the owner's clock. An annotation.
    pub time: TimeNs,
}

impl Claim {
    /// The key of the claim.
    pub const fn key(&self) -> ObjectKey {
        ObjectKey::Claim { role: self.role, epoch: self.epoch }
    }

    /// The fields, as they stand in the object.
    pub fn fields(&self) -> Fields {
        Fields::default()
            .with("domain", self.domain.bytes().as_slice())
            .with("role", self.role.name())
            .with("epoch", self.epoch.get())
            .with("nonce", self.nonce.as_slice())
            .with("mode", self.mode.name())
            .with("owner", self.owner.as_str())
            .with("time", self.time.get())
    }

    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        seal(KIND_CLAIM, &self.fields())
    }

    /// Reads a claim and checks that it is the one that was asked for.
    ///
    /// # Errors
    /// `Magic`, `Major`, `RecordHash`, `Cbor`, `Field`, `WrongDomain`, `Misplaced` and length errors.
    pub fn decode(bytes: &[u8], expect: &Expect) -> Result<Self> {
        let what = "claim";
        let fields = open(what, KIND_CLAIM, bytes, RECORD_BYTES_MAX)?;
        let missing = |field| FormatError::Field { what, field };
        let claim = Self {
            domain: DomainId::new(fields.bytes(what, "domain")?),
            role: Role::from_name(&fields.text(what, "role")?).ok_or(missing("role"))?,
            epoch: Epoch::new(fields.uint(what, "epoch")?),
            nonce: fields.bytes(what, "nonce")?,
            mode: ClaimMode::from_name(&fields.text(what, "mode")?).ok_or(missing("mode"))?,
            owner: fields.text(what, "owner")?,
            time: TimeNs::new(fields.uint(what, "time")?),
        };
        if claim.domain != expect.domain {
            return Err(FormatError::WrongDomain { found: claim.domain, expected: expect.domain });
        }
        if claim.key() != expect.key {
            return Err(FormatError::Misplaced { found: claim.key().to_string(), expected: expect.key });
        }
        Ok(claim)
    }
}

/// Where the newest objects were when the hint was written. Advisory: a reader goes on from there, never trusts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The domain.
    pub domain: DomainId,
    /// A writer epoch that was claimed.
    pub epoch: Epoch,
    /// A segment of that epoch that was durable.
    pub seq: Seq,
}

impl Hint {
    /// The fields, as they stand in the object.
    pub fn fields(&self) -> Fields {
        Fields::default()
            .with("domain", self.domain.bytes().as_slice())
            .with("epoch", self.epoch.get())
            .with("seq", self.seq.get())
    }

    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        seal(KIND_HINT, &self.fields())
    }

    /// Reads a hint. Callers ignore a bad one.
    ///
    /// # Errors
    /// As [`Claim::decode`].
    pub fn decode(bytes: &[u8], domain: DomainId) -> Result<Self> {
        let what = "hint";
        let fields = open(what, KIND_HINT, bytes, RECORD_BYTES_MAX)?;
        let hint = Self {
            domain: DomainId::new(fields.bytes(what, "domain")?),
            epoch: Epoch::new(fields.uint(what, "epoch")?),
            seq: Seq::new(fields.uint(what, "seq")?),
        };
        if hint.domain == domain {
            Ok(hint)
        } else {
            Err(FormatError::WrongDomain { found: hint.domain, expected: domain })
        }
    }
}

/// Somebody reads by a root: what it reaches stays. Advisory below `v/`, overwritten to prolong it, deleted when it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The domain.
    pub domain: DomainId,
    /// The root: its maintenance epoch.
    pub epoch: Epoch,
    /// Its number in that epoch.
    pub seq: Seq,
    /// Until when it counts.
    pub until: TimeNs,
    /// Who reads, for people.
    pub owner: String,
}

impl Pin {
    /// The root that it names.
    pub const fn root(&self) -> ObjectKey {
        ObjectKey::Root { epoch: self.epoch, seq: self.seq }
    }

    /// The fields, as they stand in the object.
    pub fn fields(&self) -> Fields {
        Fields::default()
            .with("domain", self.domain.bytes().as_slice())
            .with("epoch", self.epoch.get())
            .with("seq", self.seq.get())
            .with("until", self.until.get())
            .with("owner", self.owner.as_str())
    }

    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        seal(KIND_PIN, &self.fields())
    }

    /// Reads a pin.
    ///
    /// # Errors
    /// As [`Claim::decode`].
    pub fn decode(bytes: &[u8], domain: DomainId) -> Result<Self> {
        let what = "pin";
        let fields = open(what, KIND_PIN, bytes, RECORD_BYTES_MAX)?;
        let pin = Self {
            domain: DomainId::new(fields.bytes(what, "domain")?),
            epoch: Epoch::new(fields.uint(what, "epoch")?),
            seq: Seq::new(fields.uint(what, "seq")?),
            until: TimeNs::new(fields.uint(what, "until")?),
            owner: fields.text(what, "owner")?,
        };
        if pin.domain == domain {
            Ok(pin)
        } else {
            Err(FormatError::WrongDomain { found: pin.domain, expected: domain })
        }
    }
}

/// An object that was found damaged or wrong. It is left as it is, and nobody builds on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// The domain.
    pub domain: DomainId,
    /// The object.
    pub object: ObjectKey,
    /// BLAKE3 of its bytes, as they were found.
    pub hash: [u8; 32],
    /// How many those are.
    pub len: u64,
    /// What is wrong with it, for people.
    pub why: String,
}

impl Quarantine {
    /// The hash that it has of an object.
    pub fn hash_of(object: &[u8]) -> [u8; 32] {
        *blake3::hash(object).as_bytes()
    }

    /// The key of the record.
    pub fn key(&self) -> ObjectKey {
        self.object.quarantine()
    }

    /// The fields, as they stand in the object.
    pub fn fields(&self) -> Fields {
        Fields::default()
            .with("domain", self.domain.bytes().as_slice())
            .with("object", self.object.to_string().as_str())
            .with("hash", self.hash.as_slice())
            .with("len", self.len)
            .with("why", self.why.as_str())
    }

    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        seal(KIND_QUARANTINE, &self.fields())
    }

    /// Reads a record of quarantine and checks that it is the one that was asked for.
    ///
    /// # Errors
    /// As [`Claim::decode`].
    pub fn decode(bytes: &[u8], expect: &Expect) -> Result<Self> {
        let what = "quarantine";
        let fields = open(what, KIND_QUARANTINE, bytes, RECORD_BYTES_MAX)?;
        let object = fields.text(what, "object")?.parse();
        let quarantine = Self {
            domain: DomainId::new(fields.bytes(what, "domain")?),
            object: object.map_err(|_| FormatError::Field { what, field: "object" })?,
            hash: fields.bytes(what, "hash")?,
            len: fields.uint(what, "len")?,
            why: fields.text(what, "why")?,
        };
        if quarantine.domain != expect.domain {
            return Err(FormatError::WrongDomain { found: quarantine.domain, expected: expect.domain });
        }
        if quarantine.key() != expect.key {
            return Err(FormatError::Misplaced { found: quarantine.key().to_string(), expected: expect.key });
        }
        Ok(quarantine)
    }
}
