//! Object keys: where each object of a domain lives below its prefix (SPEC.md §keys).
//!
//! A key is fixed-width lower-case hex, so the order of the text is the order of the numbers.

use crate::ids::{BadName, Epoch, Role, Seq};
use crate::statistics::{Day, StatsTable};
use crate::text::{hex, shorten, unhex, unhex_number};
use std::fmt;
use std::str::FromStr;

/// The name of one object of a domain, relative to the domain's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// `tidemark.json`: what the domain is.
    Genesis,
    /// `claim/<role>/<epoch>`: who owns an epoch. Never deleted.
    Claim {
        /// Role of the owner.
        role: Role,
        /// The claimed epoch.
        epoch: Epoch,
    },
    /// `log/<epoch>/<seq>`: a log segment; seq 0 is the epoch's CUT.
    Log {
        /// Writer epoch.
        epoch: Epoch,
        /// Position in the epoch.
        seq: Seq,
    },
    /// `base/<role><epoch>/<n>`: LBA-sorted data.
    Base {
        /// Role that wrote it.
        role: Role,
        /// Epoch of that role.
        epoch: Epoch,
        /// Position in the epoch.
        seq: Seq,
    },
    /// `idx/<epoch>/<n>.parquet`: a table of the index.
    Index {
        /// Maintenance epoch.
        epoch: Epoch,
        /// Position in the epoch.
        seq: Seq,
    },
    /// `root/<epoch>/<n>`: which tables make up the index.
    Root {
        /// Maintenance epoch.
        epoch: Epoch,
        /// Position in the epoch, from 1 without a gap.
        seq: Seq,
    },
    /// `ledger/<epoch>`: what stands for the older part of the log, from which something was deleted.
    Ledger {
        /// Maintenance epoch.
        epoch: Epoch,
    },
    /// `v/hint`: where the newest objects were a while ago. Advisory, overwritten.
    Hint,
    /// `v/root`: a copy of a root that was the newest a while ago. Overwritten.
    RootCopy,
    /// `v/retention`: how long points shall stay. Overwritten.
    Retention,
    /// `v/pin/<nonce>`: a root that somebody reads by.
    Pin {
        /// Random name, one for each pin.
        nonce: [u8; 16],
    },
    /// `v/quarantine/<name>`: an object that was found damaged or wrong, and is left as it is.
    Quarantine {
        /// What the object's key makes it: [`ObjectKey::quarantine`].
        name: [u8; 16],
    },
    /// `v/probe/<nonce>`: written while a store's promises are tested at attach.
    Probe {
        /// Random name, so that no two probes meet.
        nonce: [u8; 16],
    },
    /// `v/stats/table=<table>/dt=<day>/<name>.parquet`: rows of a table of statistics. Advisory, outside of the truth.
    Statistics {
        /// Which table.
        table: StatsTable,
        /// The day, UTC, that its rows are of.
        day: Day,
        /// Time of the first row, then chance: no two files meet, and names sort by time.
        name: [u8; 16],
    },
}

impl ObjectKey {
    /// The CUT of an epoch.
    pub const fn cut(epoch: Epoch) -> Self {
        Self::Log { epoch, seq: Seq::new(0) }
    }
    /// Where it is said that an object is in quarantine.
    pub fn quarantine(&self) -> Self {
        let mut name = [0; 16];
        name.copy_from_slice(&blake3::hash(self.to_string().as_bytes()).as_bytes()[..16]);
        Self::Quarantine { name }
    }
    /// A writer's claim.
    pub const fn writer_claim(epoch: Epoch) -> Self {
        Self::Claim { role: Role::Writer, epoch }
    }
    /// A maintainer's claim.
    pub const fn maintenance_claim(epoch: Epoch) -> Self {
        Self::Claim { role: Role::Maintenance, epoch }
    }
    /// True for the few objects that may be overwritten; every other key holds one byte string for ever.
    pub const fn is_mutable(&self) -> bool {
        matches!(
            self,
            Self::Hint
                | Self::RootCopy
                | Self::Retention
                | Self::Pin { .. }
                | Self::Quarantine { .. }
                | Self::Probe { .. }
                | Self::Statistics { .. }
        )
    }
    /// The family of the key: where it begins. Requests are counted by it.
    pub const fn family(&self) -> KeyFamily {
        match self {
            Self::Genesis => KeyFamily::Genesis,
            Self::Claim { .. } => KeyFamily::Claim,
            Self::Log { .. } => KeyFamily::Log,
            Self::Base { .. } => KeyFamily::Base,
            Self::Index { .. } => KeyFamily::Index,
            Self::Root { .. } => KeyFamily::Root,
            Self::Ledger { .. } => KeyFamily::Ledger,
            Self::Hint
            | Self::RootCopy
            | Self::Retention
            | Self::Pin { .. }
            | Self::Quarantine { .. }
            | Self::Probe { .. } => KeyFamily::Volatile,
            Self::Statistics { .. } => KeyFamily::Statistics,
        }
    }
}

/// Kinds of keys, by how they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyFamily {
    /// `tidemark.json`
    Genesis,
    /// `claim/`
    Claim,
    /// `log/`
    Log,
    /// `base/`
    Base,
    /// `idx/`
    Index,
    /// `root/`
    Root,
    /// `ledger/`
    Ledger,
    /// `v/`, without what is [`Self::Statistics`].
    Volatile,
    /// `v/stats/`
    Statistics,
}

impl KeyFamily {
    /// Every family, in key order of this list.
    pub const ALL: [Self; 9] = [
        Self::Genesis,
        Self::Claim,
        Self::Log,
        Self::Base,
        Self::Index,
        Self::Root,
        Self::Ledger,
        Self::Volatile,
        Self::Statistics,
    ];

    /// The path prefix of the family, ending in `/`; the whole key for the genesis object.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Genesis => "tidemark.json",
            Self::Claim => "claim/",
            Self::Log => "log/",
            Self::Base => "base/",
            Self::Index => "idx/",
            Self::Root => "root/",
            Self::Ledger => "ledger/",
            Self::Volatile => "v/",
            Self::Statistics => "v/stats/",
        }
    }
    /// One word for tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Genesis => "genesis",
            Self::Claim => "claim",
            Self::Log => "log",
            Self::Base => "base",
            Self::Index => "index",
            Self::Root => "root",
            Self::Ledger => "ledger",
            Self::Volatile => "volatile",
            Self::Statistics => "statistics",
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Genesis => f.write_str("tidemark.json"),
            Self::Claim { role, epoch } => write!(f, "claim/{}/{:016x}", role.letter(), epoch.get()),
            Self::Log { epoch, seq } => write!(f, "log/{:016x}/{:016x}", epoch.get(), seq.get()),
            Self::Base { role, epoch, seq } => {
                write!(f, "base/{}{:016x}/{:016x}", role.letter(), epoch.get(), seq.get())
            }
            Self::Index { epoch, seq } => write!(f, "idx/{:016x}/{:016x}.parquet", epoch.get(), seq.get()),
            Self::Root { epoch, seq } => write!(f, "root/{:016x}/{:016x}", epoch.get(), seq.get()),
            Self::Ledger { epoch } => write!(f, "ledger/{:016x}", epoch.get()),
            Self::Hint => f.write_str("v/hint"),
            Self::RootCopy => f.write_str("v/root"),
            Self::Retention => f.write_str("v/retention"),
            Self::Pin { nonce } => write!(f, "v/pin/{}", hex(nonce)),
            Self::Quarantine { name } => write!(f, "v/quarantine/{}", hex(name)),
            Self::Probe { nonce } => write!(f, "v/probe/{}", hex(nonce)),
            Self::Statistics { table, day, name } => {
                write!(f, "v/stats/table={table}/dt={day}/{}.parquet", hex(name))
            }
        }
    }
}

impl FromStr for ObjectKey {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        parse(text).ok_or_else(|| BadName { what: "object key", text: shorten(text) })
    }
}

fn parse(text: &str) -> Option<ObjectKey> {
    let role = |letter: &str| match letter {
        "w" => Some(Role::Writer),
        "m" => Some(Role::Maintenance),
        _ => None,
    };
    let epoch = |text: &str| unhex_number(text).map(Epoch::new);
    let seq = |text: &str| unhex_number(text).map(Seq::new);
    let nonce = |text: &str| unhex(text.as_bytes())?.try_into().ok();
    let mut parts = text.split('/');
    let key = match (parts.next()?, parts.next(), parts.next()) {
        ("tidemark.json", None, None) => ObjectKey::Genesis,
        ("claim", Some(who), Some(number)) => ObjectKey::Claim { role: role(who)?, epoch: epoch(number)? },
        ("log", Some(of), Some(number)) => ObjectKey::Log { epoch: epoch(of)?, seq: seq(number)? },
        ("base", Some(of), Some(number)) => {
            let (who, of) = of.split_at_checked(1)?;
            ObjectKey::Base { role: role(who)?, epoch: epoch(of)?, seq: seq(number)? }
        }
        ("idx", Some(of), Some(name)) => {
            ObjectKey::Index { epoch: epoch(of)?, seq: seq(name.strip_suffix(".parquet")?)? }
        }
        ("root", Some(of), Some(number)) => ObjectKey::Root { epoch: epoch(of)?, seq: seq(number)? },
        ("ledger", Some(of), None) => ObjectKey::Ledger { epoch: epoch(of)? },
        ("v", Some("hint"), None) => ObjectKey::Hint,
        ("v", Some("root"), None) => ObjectKey::RootCopy,
        ("v", Some("retention"), None) => ObjectKey::Retention,
        ("v", Some("pin"), Some(name)) => ObjectKey::Pin { nonce: nonce(name)? },
        ("v", Some("quarantine"), Some(name)) => ObjectKey::Quarantine { name: nonce(name)? },
        ("v", Some("probe"), Some(name)) => ObjectKey::Probe { nonce: nonce(name)? },
        ("v", Some("stats"), Some(table)) => ObjectKey::Statistics {
            table: table.strip_prefix("table=")?.parse().ok()?,
            day: parts.next()?.strip_prefix("dt=")?.parse().ok()?,
            name: unhex(parts.next()?.strip_suffix(".parquet")?.as_bytes())?.try_into().ok()?,
        },
        _ => return None,
    };
    parts.next().is_none().then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_as_written() {
        let (epoch, seq) = (Epoch::new(0x2a), Seq::new(u64::MAX));
        for key in [
            ObjectKey::Genesis,
            ObjectKey::writer_claim(epoch),
            ObjectKey::Claim { role: Role::Maintenance, epoch },
            ObjectKey::Log { epoch, seq },
            ObjectKey::Base { role: Role::Writer, epoch, seq },
            ObjectKey::Index { epoch, seq },
            ObjectKey::Root { epoch, seq },
            ObjectKey::Ledger { epoch },
            ObjectKey::Pin { nonce: *b"fedcba9876543210" },
            ObjectKey::Hint.quarantine(),
            ObjectKey::Hint,
            ObjectKey::RootCopy,
            ObjectKey::Retention,
            ObjectKey::Probe { nonce: *b"0123456789abcdef" },
            ObjectKey::Statistics { table: StatsTable::DiskMinute, day: Day::new(20_782), name: *b"0123456789abcdef" },
        ] {
            let text = key.to_string();
            assert_eq!(text.parse(), Ok(key));
            assert!(text.starts_with(key.family().prefix()), "{text}");
        }
        assert_eq!(ObjectKey::cut(epoch).to_string(), "log/000000000000002a/0000000000000000");
    }

    #[test]
    fn keys_of_another_shape_are_refused() {
        for text in [
            "",
            "log",
            "log/1/2",
            "log/000000000000002A/0000000000000000",
            "claim/x/0000000000000001",
            "log/0000000000000001/0000000000000000/",
            "base/é/0000000000000000",
            "v/probe/00",
            "v/stats/table=weather/dt=2026-11-25/30313233343536373839616263646566.parquet",
            "v/stats/table=event/dt=2026-11-31/30313233343536373839616263646566.parquet",
            "v/stats/table=event/dt=2026-11-25/30313233343536373839616263646566.parquet/",
            "idx/0000000000000001/0000000000000001",
            "root/0000000000000001/1",
            "ledger/1",
            "v/pin/zz",
        ] {
            assert!(text.parse::<ObjectKey>().is_err(), "{text}");
        }
    }
}
