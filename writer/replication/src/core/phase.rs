//! The life of a domain's replication as one table.

use crate::error::{Error, Result};
use std::fmt;

/// Where a domain's replication stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The domain is being claimed in its bucket. Guests write, into the log store.
    Opening,
    /// What is logged is shipped.
    Replicating,
    /// The bucket is out of reach; trying again. Guests write, into the log store.
    Offline,
    /// Shipping is held on request. Guests write, into the log store.
    Paused,
    /// Another owner has claimed the domain. Writes are refused.
    Fenced,
    /// Another owner has gone on, and the log store holds acknowledged writes that the bucket lacks. Writes are refused.
    Diverged,
    /// Something is broken that waiting does not mend. Writes are refused.
    Failed,
    /// Closed on request. Writes are refused.
    Closed,
}

/// What moves a domain on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The domain was claimed and continues the log store.
    Claimed,
    /// The bucket does not answer.
    Unreachable,
    /// An operator holds shipping.
    Pause,
    /// An operator goes on.
    Resume,
    /// A newer claim was seen.
    ClaimLost,
    /// The bucket's log is another's, and the log store is not empty.
    BranchSeen,
    /// An operator takes the domain over (again).
    TakeOver,
    /// The log store failed, or the bucket contradicts it.
    Broken,
    /// The domain is closed.
    Close,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Opening,
        Self::Replicating,
        Self::Offline,
        Self::Paused,
        Self::Fenced,
        Self::Diverged,
        Self::Failed,
        Self::Closed,
    ];

    /// The phase after `cause`.
    ///
    /// # Errors
    /// `IllegalMove` for what cannot happen now.
    pub fn after(self, cause: Cause) -> Result<Self> {
        use Phase::*;
        match (self, cause) {
            (Opening | Offline, Cause::Claimed) => Ok(Replicating),
            (Opening | Replicating | Offline, Cause::Unreachable) => Ok(Offline),
            (Opening | Replicating | Offline, Cause::Pause) => Ok(Paused),
            (Paused, Cause::Resume) => Ok(Opening),
            (Opening | Replicating | Offline | Paused, Cause::ClaimLost) => Ok(Fenced),
            (Opening | Offline, Cause::BranchSeen) => Ok(Diverged),
            (Fenced | Diverged | Failed, Cause::TakeOver) => Ok(Opening),
            (Opening | Replicating | Offline | Paused | Fenced | Diverged, Cause::Broken) => Ok(Failed),
            (Closed, Cause::Close) => Err(Error::IllegalMove { from: self, cause }),
            (_, Cause::Close) => Ok(Closed),
            (from, cause) => Err(Error::IllegalMove { from, cause }),
        }
    }

    /// Whether guests may write.
    pub const fn takes_writes(self) -> bool {
        matches!(self, Self::Opening | Self::Replicating | Self::Offline | Self::Paused)
    }
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Claimed,
        Self::Unreachable,
        Self::Pause,
        Self::Resume,
        Self::ClaimLost,
        Self::BranchSeen,
        Self::TakeOver,
        Self::Broken,
        Self::Close,
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening",
            Self::Replicating => "replicating",
            Self::Offline => "offline",
            Self::Paused => "paused",
            Self::Fenced => "fenced",
            Self::Diverged => "diverged",
            Self::Failed => "failed",
            Self::Closed => "closed",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claimed => "go on as the owner",
            Self::Unreachable => "go offline",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::ClaimLost => "be fenced",
            Self::BranchSeen => "diverge",
            Self::TakeOver => "be taken over",
            Self::Broken => "fail",
            Self::Close => "close",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_matrix_is_as_agreed() {
        let mut matrix = String::new();
        for from in Phase::ALL {
            matrix += &format!("{from}:");
            for cause in Cause::ALL {
                match from.after(cause) {
                    Ok(to) => matrix += &format!(" {to}"),
                    Err(_) => matrix += " -",
                }
            }
            matrix += "\n";
        }
        // Columns: Claimed Unreachable Pause Resume ClaimLost BranchSeen TakeOver Broken Close.
        let agreed = "\
opening: replicating offline paused - fenced diverged - failed closed
replicating: - offline paused - fenced - - failed closed
offline: replicating offline paused - fenced diverged - failed closed
paused: - - - opening fenced - - failed closed
fenced: - - - - - - opening failed closed
diverged: - - - - - - opening failed closed
failed: - - - - - - opening - closed
closed: - - - - - - - - -
";
        assert_eq!(matrix, agreed);
    }

    #[test]
    fn who_is_not_the_owner_takes_no_writes() {
        let taking: Vec<_> = Phase::ALL.into_iter().filter(|phase| phase.takes_writes()).collect();
        assert_eq!(taking, [Phase::Opening, Phase::Replicating, Phase::Offline, Phase::Paused]);
        let refused = Phase::Fenced.after(Cause::Resume).unwrap_err();
        assert_eq!(refused.to_string(), "cannot resume while fenced");
    }
}
