//! Decides what a tap is, from what QEMU says of its job, and what to do next.
//!
//! Looks at the job are the truth; QEMU's events only make the next look come sooner. So nothing depends on an event that was
//! missed or came late.
//! Invariants: [`TapState::Ready`] is entered only on QEMU's word that the mirror is in sync; a tap that is over stays so until it
//! is started again; a job that was ready is never seeding again.
//! Not here: speaking to QEMU, and time (the shell does both).

use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// What a tap is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapState {
    /// The disk is being copied for the first time. New writes come too, in an order that is none of the guest's.
    Seeding(Progress),
    /// Source and target hold the same, and each write is answered by both before the guest hears of it.
    Ready,
    /// Writes are not mirrored, or not all. QEMU keeps account of the blocks that differ.
    Gap(GapCause),
    /// After a gap, the blocks that differ are being copied, in no order of the guest's.
    Lagging(Progress),
    /// The job ended though nobody here asked for it. The guest runs on, without us.
    Failed(String),
    /// Ended as asked.
    Detached,
    /// The monitor is gone, and most likely the VM. If it lives, so does the job: attach again.
    Gone(String),
}

/// How far a copy has come. QEMU raises the total as the guest writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes copied.
    pub done_bytes: u64,
    /// Bytes to copy in all.
    pub total_bytes: u64,
}

/// Why there is a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// The target did not take a write: it is gone, or answered with an error.
    TargetFailed,
    /// The target has no room.
    TargetFull,
    /// Somebody paused the job.
    Paused,
}

impl fmt::Display for TapState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seeding(Progress { done_bytes, total_bytes }) => {
                write!(f, "seeding, {done_bytes} of {total_bytes} bytes")
            }
            Self::Ready => f.write_str("ready"),
            Self::Gap(GapCause::TargetFailed) => f.write_str("gap: the target does not answer"),
            Self::Gap(GapCause::TargetFull) => f.write_str("gap: the target is full"),
            Self::Gap(GapCause::Paused) => f.write_str("gap: somebody paused the job"),
            Self::Lagging(Progress { done_bytes, total_bytes }) => {
                write!(f, "lagging, {done_bytes} of {total_bytes} bytes")
            }
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Detached => f.write_str("detached"),
            Self::Gone(why) => write!(f, "gone: {why}"),
        }
    }
}

/// A state without its figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Asked for, not seen yet.
    Started,
    Seeding,
    Ready,
    Gap,
    Lagging,
    Failed,
    Detached,
    Gone,
}

/// What moves a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The job copies, and never was ready.
    Copying,
    /// The job copies after a gap.
    CatchingUp,
    /// QEMU says that the mirror is in sync.
    Synced,
    /// The job stands still.
    Stopped,
    /// The job is over, and nobody here asked for it.
    Ended,
    /// The job was ended as asked.
    Detach,
    /// The monitor is gone.
    Lost,
    /// A new job was started.
    Restart,
}

/// What cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IllegalMove {
    pub(crate) from: Phase,
    pub(crate) cause: Cause,
}

impl fmt::Display for IllegalMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} while {:?}", self.cause, self.from)
    }
}

impl Phase {
    /// The whole life of a tap.
    pub(crate) fn next(self, cause: Cause) -> Result<Self, IllegalMove> {
        use {Cause as C, Phase::*};
        match (self, cause) {
            (Started | Seeding | Gap, C::Copying) => Ok(Seeding),
            (Started | Ready | Gap | Lagging, C::CatchingUp) => Ok(Lagging),
            (Started | Seeding | Ready | Gap | Lagging, C::Synced) => Ok(Ready),
            (Started | Seeding | Ready | Gap | Lagging, C::Stopped) => Ok(Gap),
            (Started | Seeding | Ready | Gap | Lagging, C::Ended) => Ok(Failed),
            (Started | Seeding | Ready | Gap | Lagging | Failed, C::Detach) => Ok(Detached),
            (Started | Seeding | Ready | Gap | Lagging | Failed, C::Lost) => Ok(Gone),
            (Failed, C::Restart) => Ok(Started),
            (from, cause) => Err(IllegalMove { from, cause }),
        }
    }

    /// Whether there is a job to look at.
    fn has_job(self) -> bool {
        matches!(self, Self::Started | Self::Seeding | Self::Ready | Self::Gap | Self::Lagging)
    }
}

/// What QEMU says of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobSeen {
    standing: Standing,
    progress: Progress,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Copying,
    CatchingUp,
    Synced,
    Stopped(GapCause),
    Ended(String),
}

impl JobSeen {
    /// Of an entry of `query-block-jobs`; `None` if it is not complete.
    pub(crate) fn of(entry: &Value) -> Option<Self> {
        let progress = Progress { done_bytes: entry["offset"].as_u64()?, total_bytes: entry["len"].as_u64()? };
        let (ready, synced) = (entry["ready"].as_bool()?, entry["actively-synced"].as_bool()?);
        let standing = match entry["status"].as_str()? {
            "concluded" | "aborting" | "null" => {
                Standing::Ended(entry["error"].as_str().unwrap_or("somebody ended the job").to_owned())
            }
            "paused" | "standby" => Standing::Stopped(match entry["io-status"].as_str()? {
                "nospace" => GapCause::TargetFull,
                "failed" => GapCause::TargetFailed,
                _ => GapCause::Paused,
            }),
            _ if ready && synced => Standing::Synced,
            _ if ready => Standing::CatchingUp,
            _ => Standing::Copying,
        };
        Some(Self { standing, progress })
    }

    /// There is no such job any more.
    pub(crate) fn absent() -> Self {
        Self { standing: Standing::Ended("somebody ended the job".to_owned()), progress: Progress::default() }
    }

    /// Whether the job is still there to be taken over.
    pub(crate) fn lives(&self) -> bool {
        !matches!(self.standing, Standing::Ended(_))
    }
}

/// How often to look and to try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Between looks while bytes are being copied.
    pub(crate) look_copying: Duration,
    /// Between looks otherwise: events tell the rest.
    pub(crate) look_calm: Duration,
    /// Between a hint and the look that it causes: QEMU sends an event for each write that its target refuses.
    pub(crate) look_hinted: Duration,
    /// Between tries to resume a job that stopped.
    pub(crate) resume: Duration,
}

/// What the shell shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Look at the job; answer with [`Core::seen`].
    Look,
    /// Resume the job; no answer.
    Resume,
}

/// A tap.
#[derive(Debug)]
pub(crate) struct Core {
    pace: Pace,
    phase: Phase,
    state: TapState,
    progress: Progress,
    look_at: Duration,
    /// While there is a gap that is not somebody's wish.
    resume_at: Option<Duration>,
}

impl Core {
    /// Of a job that was just started or found.
    pub(crate) fn new(now: Duration, pace: Pace) -> Self {
        let progress = Progress::default();
        Self {
            pace,
            phase: Phase::Started,
            state: TapState::Seeding(progress),
            progress,
            look_at: now,
            resume_at: None,
        }
    }

    /// For everybody.
    pub(crate) fn state(&self) -> &TapState {
        &self.state
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// When to ask [`Self::due`] again.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        match self.phase {
            Phase::Gap => Some(self.resume_at.map_or(self.look_at, |at| at.min(self.look_at))),
            phase => phase.has_job().then_some(self.look_at),
        }
    }

    /// What to do now, if anything.
    pub(crate) fn due(&mut self, now: Duration) -> Option<Effect> {
        if self.phase == Phase::Gap && self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = Some(now + self.pace.resume);
            // Not at once: what the job copies first shows whether the target is back.
            self.look_at = now + self.pace.look_hinted;
            return Some(Effect::Resume);
        }
        (self.phase.has_job() && self.look_at <= now).then(|| {
            self.look_at = now + self.look_every();
            Effect::Look
        })
    }

    fn look_every(&self) -> Duration {
        match self.phase {
            Phase::Ready => self.pace.look_calm,
            _ => self.pace.look_copying,
        }
    }

    /// QEMU had an event for the job.
    pub(crate) fn hint(&mut self, now: Duration) {
        // In a gap each of the guest's writes makes one.
        if self.phase != Phase::Gap {
            self.look_at = self.look_at.min(now + self.pace.look_hinted);
        }
    }

    /// The target is said to be back, or a pause to be over.
    pub(crate) fn nudge(&mut self, now: Duration) {
        if self.phase == Phase::Gap {
            self.resume_at = Some(now);
        }
    }

    /// What a look found.
    pub(crate) fn seen(&mut self, now: Duration, job: JobSeen) -> Result<(), IllegalMove> {
        let JobSeen { standing, progress } = job;
        // A job runs for a moment after each try to resume it. It is out of the gap once something got through.
        let stuck = self.phase == Phase::Gap && progress.done_bytes <= self.progress.done_bytes;
        let (cause, state) = match standing {
            Standing::Copying | Standing::CatchingUp if stuck => return Ok(()),
            Standing::Copying => (Cause::Copying, TapState::Seeding(progress)),
            Standing::CatchingUp => (Cause::CatchingUp, TapState::Lagging(progress)),
            Standing::Synced => (Cause::Synced, TapState::Ready),
            Standing::Stopped(cause) => (Cause::Stopped, TapState::Gap(cause)),
            Standing::Ended(why) => (Cause::Ended, TapState::Failed(why)),
        };
        self.enter(cause, state)?;
        self.progress = progress;
        self.resume_at = match self.state {
            // Whoever paused it has a reason, and resumes it.
            TapState::Gap(GapCause::Paused) => None,
            TapState::Gap(_) => self.resume_at.or(Some(now + self.pace.resume)),
            _ => None,
        };
        self.look_at = now + self.look_every();
        Ok(())
    }

    /// The job was ended as asked.
    pub(crate) fn detached(&mut self) -> Result<(), IllegalMove> {
        self.enter(Cause::Detach, TapState::Detached)
    }

    /// The monitor is gone.
    pub(crate) fn lost(&mut self, why: String) -> Result<(), IllegalMove> {
        self.enter(Cause::Lost, TapState::Gone(why))
    }

    /// A new job was started in place of one that failed.
    pub(crate) fn restarted(&mut self, now: Duration) -> Result<(), IllegalMove> {
        self.enter(Cause::Restart, TapState::Seeding(Progress::default()))?;
        (self.progress, self.look_at) = (Progress::default(), now);
        Ok(())
    }

    fn enter(&mut self, cause: Cause, state: TapState) -> Result<(), IllegalMove> {
        self.phase = self.phase.next(cause)?;
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
