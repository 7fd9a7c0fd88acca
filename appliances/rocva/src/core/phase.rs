//! The phases of a recovery: one table.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its disks are being made and served.
    Preparing,
    /// The runbook's steps are being done.
    Starting,
    /// Every step is done: its VMs run.
    Up,
    /// Its VMs run from local disks; nothing of the bucket is needed any more.
    Settled,
    /// Its VMs are being stopped, and its disks removed.
    Reverting,
    /// Nothing of it is left but its report.
    Reverted,
}

/// What moves a recovery on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Every disk is served.
    Prepared,
    /// The last step is done.
    Started,
    /// The last disk is local.
    Hydrated,
    /// Somebody wants it gone, or it cannot go on.
    Revert,
    /// Nothing of it is left.
    Gone,
}

/// Something that cannot happen now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a recovery that is {from} cannot {cause}")]
pub struct IllegalMove {
    /// The phase.
    pub from: Phase,
    /// What was to happen.
    pub cause: Cause,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 6] =
        [Self::Preparing, Self::Starting, Self::Up, Self::Settled, Self::Reverting, Self::Reverted];

    /// Where `cause` leads.
    ///
    /// # Errors
    /// If it leads nowhere from here.
    pub fn after(self, cause: Cause) -> Result<Self, IllegalMove> {
        match (self, cause) {
            (Self::Preparing, Cause::Prepared) => Ok(Self::Starting),
            (Self::Starting, Cause::Started) => Ok(Self::Up),
            (Self::Up, Cause::Hydrated) => Ok(Self::Settled),
            (Self::Preparing | Self::Starting | Self::Up | Self::Settled, Cause::Revert) => Ok(Self::Reverting),
            (Self::Reverting, Cause::Gone) => Ok(Self::Reverted),
            (from, cause) => Err(IllegalMove { from, cause }),
        }
    }

    /// Whether nothing happens any more unless somebody asks for it.
    pub fn is_at_rest(self) -> bool {
        matches!(self, Self::Settled | Self::Reverted)
    }
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 5] = [Self::Prepared, Self::Started, Self::Hydrated, Self::Revert, Self::Gone];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Settled => "settled",
            Self::Reverting => "reverting",
            Self::Reverted => "reverted",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepared => "become prepared",
            Self::Started => "become started",
            Self::Hydrated => "become hydrated",
            Self::Revert => "be reverted",
            Self::Gone => "be gone",
        })
    }
}
