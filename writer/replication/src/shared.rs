//! What the handles and tasks of a domain share.

use crate::core::backlog::Backlog;
use crate::core::ledger::Ledger;
use crate::core::phase::{Cause, Phase};
use crate::core::sequencer::{Now, Sequencer};
use crate::error::{Error, Result};
use crate::options::{ReplicationOptions, TakeOver};
use crate::pace::Pace;
use crate::status::Ages;
use std::sync::{Arc, Mutex, MutexGuard};
use tidemark_bucket::Bucket;
use tidemark_env::Env;
use tidemark_format::{DomainId, ErrorKind, Lsn, TimeNs, with_causes};
use tidemark_log_store::DomainLog;
use tidemark_rates::throttle::{Load, Throttle};
use tidemark_writer::DomainWriter;
use tokio::sync::watch;

pub(crate) struct Shared {
    pub(crate) domain: DomainId,
    pub(crate) bucket: Bucket,
    pub(crate) options: ReplicationOptions,
    pub(crate) env: Env,
    pub(crate) log: DomainLog,
    pub(crate) pace: Pace,
    state: Mutex<State>,
    /// The ledger as it is written down, if it is known. Held while it is written.
    kept: Mutex<Option<Ledger>>,
    /// Counts what others may wait for: a phase, a commit, room in the log.
    moved: watch::Sender<u64>,
}

pub(crate) struct State {
    pub(crate) sequencer: Sequencer,
    /// Its positions and disks are those of when the domain was opened: the sequencer's count.
    pub(crate) ledger: Ledger,
    pub(crate) phase: Phase,
    /// How it came to that, for people.
    pub(crate) why: String,
    /// When.
    pub(crate) since: TimeNs,
    /// Bookmarks logged since the domain was opened.
    pub(crate) bookmarks: u64,
    /// Records handed to the log since then, and their data.
    pub(crate) logged_records: u64,
    pub(crate) logged_bytes: u64,
    /// What an operator asked for, until it is done.
    pub(crate) take_over: Option<TakeOver>,
    pub(crate) committed: Lsn,
    pub(crate) ages: Ages,
    pub(crate) backlog: Backlog,
    pub(crate) throttle: Throttle,
    /// Takes nothing more: what is there is shipped before the end.
    pub(crate) closing: bool,
    /// While the domain is ours.
    pub(crate) writer: Option<Arc<DomainWriter>>,
}

impl Shared {
    pub(crate) fn new(
        bucket: Bucket,
        options: ReplicationOptions,
        env: Env,
        log: DomainLog,
        pace: Pace,
        state: State,
    ) -> Arc<Self> {
        Arc::new(Self {
            pace,
            domain: log.id(),
            bucket,
            options,
            env,
            log,
            state: Mutex::new(state),
            kept: Mutex::new(None),
            moved: watch::Sender::new(0),
        })
    }

    /// The state, for a moment: nobody waits or blocks while holding it.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a broken invariant: nothing must be acknowledged after it.
        self.state.lock().expect("no invariant of the domain is broken")
    }

    pub(crate) fn kept(&self) -> MutexGuard<'_, Option<Ledger>> {
        self.kept.lock().expect("no invariant of the domain is broken")
    }

    pub(crate) fn now(&self) -> Now {
        now(&self.env)
    }

    /// Follows whatever may be waited for.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    pub(crate) fn has_moved(&self) {
        self.moved.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Moves the domain on. What cannot happen in its phase is refused and changes nothing.
    pub(crate) fn enter(&self, cause: Cause, why: impl Into<String>) -> Result<Phase> {
        let mut state = self.state();
        let from = state.phase;
        let to = from.after(cause)?;
        state.why = why.into();
        if from != to {
            state.since = self.env.clock.wall();
        }
        state.phase = to;
        if !matches!(to, Phase::Replicating | Phase::Paused) {
            state.writer = None;
        }
        if from != to {
            let (domain, why) = (self.domain, &state.why);
            match to {
                Phase::Fenced | Phase::Diverged | Phase::Failed => tracing::error!(%domain, %from, %to, why, "phase"),
                _ => tracing::info!(%domain, %from, %to, why, "phase"),
            }
        }
        drop(state);
        self.has_moved();
        Ok(to)
    }

    /// Takes note of an error that ends or interrupts shipping. What people can mend, such as rights or a bucket that is
    /// not there, leaves guests alone as an outage does.
    pub(crate) fn give_up(&self, error: &Error) -> Result<Phase> {
        let cause = match (error, error.kind()) {
            (Error::Log { .. } | Error::Ledger { .. }, _) | (_, ErrorKind::DataLoss) => Cause::Broken,
            (_, ErrorKind::Fenced) => Cause::ClaimLost,
            _ => Cause::Unreachable,
        };
        self.enter(cause, with_causes(error))
    }

    /// Waits until `done`, looking whenever something moved.
    pub(crate) async fn wait_until(&self, mut done: impl FnMut(&State) -> bool) {
        let mut moves = self.moves();
        loop {
            moves.mark_unchanged();
            if done(&self.state()) {
                return;
            }
            moves.changed().await.expect("the sender lives as long as we do");
        }
    }

    /// Runs what waits for the device on a thread that may.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.clone();
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(result) => result,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Gone),
            },
        }
    }
}

/// What the clocks show.
pub(crate) fn now(env: &Env) -> Now {
    Now { wall: env.clock.wall(), monotonic: env.clock.monotonic() }
}

impl State {
    /// Lets the throttle look at the log.
    pub(crate) fn observe(&mut self, log: &DomainLog, now: Now) {
        self.backlog.freed(Lsn::new(log.first_lsn().get() - 1));
        let usage = log.usage();
        let load = Load {
            used_bytes: usage.used_bytes,
            space_bytes: usage.steady_bytes.max(1),
            drained_bytes_total: self.backlog.freed_bytes_total(),
        };
        let backlog = &self.backlog;
        self.throttle.observe(load, |disk| backlog.waiting_bytes(disk), now.monotonic);
    }

    /// Refuses writes of whoever is not the owner.
    pub(crate) fn check_taking(&self) -> Result<()> {
        if self.phase.takes_writes() && !self.closing {
            return Ok(());
        }
        let (phase, why) = if self.closing { (Phase::Closed, "closing") } else { (self.phase, self.why.as_str()) };
        Err(Error::NotTaking { phase, why: why.to_owned() })
    }
}
