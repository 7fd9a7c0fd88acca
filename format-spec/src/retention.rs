//! Which points of a domain stay (SPEC.md §retention): what somebody wishes, and what a root says is so.

use crate::error::{FormatError, Result};
use crate::fields::Fields;
use crate::ids::{DomainId, Lsn, TimeNs};
use crate::record::{RECORD_BYTES_MAX, open, seal};

const KIND_RETENTION: u16 = 4;

/// Most points of one rung of the ladder (SPEC.md §retention).
pub const RUNG_MAX: u32 = 4096;
/// Most points that are held (SPEC.md §retention).
pub const HOLDS_MAX: usize = 1024;
/// Most points that a root keeps below its horizon (SPEC.md §retention).
pub const KEPT_MAX: usize = 32_768;

/// A point in the history: everything up to and including an LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The last LSN that it includes.
    pub lsn: Lsn,
    /// When that happened.
    pub time: TimeNs,
}

impl Mark {
    fn fields(&self) -> Fields {
        Fields::default().with("lsn", self.lsn.get()).with("time", self.time.get())
    }

    fn from_fields(what: &'static str, fields: &Fields) -> Result<Self> {
        Ok(Self { lsn: Lsn::new(fields.uint(what, "lsn")?), time: TimeNs::new(fields.uint(what, "time")?) })
    }
}

/// The points that a root offers: all from the horizon on, and a few before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Every point from here on.
    pub horizon: Mark,
    /// Points before it, oldest first.
    pub kept: Vec<Mark>,
}

impl Retained {
    /// Whether the point of an LSN is one of them.
    pub fn offers(&self, lsn: Lsn) -> bool {
        //= SPEC.md#retention
        //# RN-1
        lsn >= self.horizon.lsn || self.kept.binary_search_by_key(&lsn, |mark| mark.lsn).is_ok()
    }

    /// The first one from an LSN on.
    pub fn first_from(&self, lsn: Lsn) -> Lsn {
        let at = self.kept.partition_point(|mark| mark.lsn < lsn);
        let kept = self.kept.get(at).unwrap_or(&self.horizon);
        if lsn >= self.horizon.lsn { lsn } else { kept.lsn }
    }

    /// The oldest one.
    pub fn oldest(&self) -> Mark {
        self.kept.first().copied().unwrap_or(self.horizon)
    }

    /// The nearest before and behind an LSN that is not offered.
    pub fn nearest(&self, lsn: Lsn) -> (Option<Mark>, Mark) {
        let after = self.kept.partition_point(|mark| mark.lsn <= lsn);
        let before = after.checked_sub(1).map(|at| self.kept[at]);
        (before, self.kept.get(after).copied().unwrap_or(self.horizon))
    }

    pub(crate) fn put(&self, fields: Fields) -> Fields {
        let kept = self.kept.iter().map(Mark::fields).collect::<Vec<_>>();
        fields.with("horizon", vec![self.horizon.fields()]).with("kept", kept)
    }

    pub(crate) fn take(what: &'static str, fields: &Fields) -> Result<Option<Self>> {
        if fields.get("horizon").is_none() {
            return Ok(None);
        }
        let bad = |field| FormatError::Field { what, field };
        let [horizon] = fields.list(what, "horizon")? else { return Err(bad("horizon")) };
        let horizon = Mark::from_fields(what, horizon)?;
        let kept = fields.list(what, "kept")?.iter().map(|mark| Mark::from_fields(what, mark));
        let kept = kept.collect::<Result<Vec<_>>>()?;
        //= SPEC.md#retention
        //# RN-2
        let ascend = kept.iter().chain([&horizon]).is_sorted_by(|a, b| a.lsn < b.lsn && a.time <= b.time);
        if !ascend || kept.first().unwrap_or(&horizon).lsn == Lsn::ZERO || kept.len() > KEPT_MAX {
            return Err(bad("kept"));
        }
        Ok(Some(Self { horizon, kept }))
    }
}

/// How long points stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Every point that was the newest within so many nanoseconds.
    pub window_ns: u64,
    /// Bookmarks, for so many nanoseconds.
    pub bookmarks_ns: u64,
    /// The last point of each of so many hours before the window.
    pub hourly: u32,
    /// The same of days.
    pub daily: u32,
    /// The same of weeks, which begin on Monday.
    pub weekly: u32,
    /// The same of calendar months.
    pub monthly: u32,
}

/// A point that stays whatever the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The point.
    pub point: Mark,
    /// Until then.
    pub until: TimeNs,
}

/// What somebody wishes: `v/retention`, overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The domain.
    pub domain: DomainId,
    /// `None`: every point stays for ever.
    pub policy: Option<Policy>,
    /// Points that stay in any case, oldest first.
    pub holds: Vec<Hold>,
}

impl Retention {
    /// Every point stays.
    pub fn everything(domain: DomainId) -> Self {
        Self { domain, policy: None, holds: Vec::new() }
    }

    /// The fields, as they stand in the object.
    pub fn fields(&self) -> Fields {
        let hold = |hold: &Hold| hold.point.fields().with("until", hold.until.get());
        let policy = |policy: &Policy| {
            Fields::default()
                .with("window", policy.window_ns)
                .with("bookmarks", policy.bookmarks_ns)
                .with("hourly", u64::from(policy.hourly))
                .with("daily", u64::from(policy.daily))
                .with("weekly", u64::from(policy.weekly))
                .with("monthly", u64::from(policy.monthly))
        };
        Fields::default()
            .with("domain", self.domain.bytes().as_slice())
            .with("policy", self.policy.iter().map(policy).collect::<Vec<_>>())
            .with("holds", self.holds.iter().map(hold).collect::<Vec<_>>())
    }

    /// The object's bytes.
    ///
    /// # Errors
    /// `Draft` if it breaks a rule that its readers check.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let bytes = seal(KIND_RETENTION, &self.fields());
        match Self::decode(&bytes, self.domain) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(FormatError::Draft { why: error.to_string() }),
        }
    }

    /// Reads a wish.
    ///
    /// # Errors
    /// `Magic`, `Major`, `RecordHash`, `Cbor`, `Field`, `WrongDomain` and length errors.
    pub fn decode(bytes: &[u8], domain: DomainId) -> Result<Self> {
        let what = "retention";
        let fields = open(what, KIND_RETENTION, bytes, RECORD_BYTES_MAX)?;
        let bad = |field| FormatError::Field { what, field };
        let found = DomainId::new(fields.bytes(what, "domain")?);
        if found != domain {
            return Err(FormatError::WrongDomain { found, expected: domain });
        }
        let policy = match fields.list(what, "policy")? {
            [] => None,
            [policy] => {
                //= SPEC.md#retention
                //# RN-3
                let rung = |field| match policy.uint32(what, field)? {
                    points if points <= RUNG_MAX => Ok(points),
                    _ => Err(bad(field)),
                };
                Some(Policy {
                    window_ns: policy.uint(what, "window")?,
                    bookmarks_ns: policy.uint(what, "bookmarks")?,
                    hourly: rung("hourly")?,
                    daily: rung("daily")?,
                    weekly: rung("weekly")?,
                    monthly: rung("monthly")?,
                })
            }
            _ => return Err(bad("policy")),
        };
        let hold = |fields: &Fields| {
            Ok(Hold { point: Mark::from_fields(what, fields)?, until: TimeNs::new(fields.uint(what, "until")?) })
        };
        let holds = fields.list(what, "holds")?.iter().map(hold).collect::<Result<Vec<_>>>()?;
        //= SPEC.md#retention
        //# RN-3
        if !holds.is_sorted_by(|a, b| a.point.lsn < b.point.lsn) || holds.len() > HOLDS_MAX {
            return Err(bad("holds"));
        }
        Ok(Self { domain, policy, holds })
    }
}
