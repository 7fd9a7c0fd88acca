//! What submitters and the driver share.

use crate::core::Now;
use crate::core::log::{Log, Submission};
use crate::error::{Error, Result};
use crate::options::WriterOptions;
use crate::shell::durability::Durability;
use crate::status::WriterStatus;
use std::sync::{Mutex, MutexGuard};
use tidemark_bucket as bucket;
use tidemark_env::Env;
use tidemark_format::{DomainId, Epoch, Lsn, TimeNs};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};

pub(crate) struct Shared {
    pub(crate) domain: DomainId,
    pub(crate) epoch: Epoch,
    pub(crate) options: WriterOptions,
    pub(crate) env: Env,
    log: Mutex<Log>,
    /// The log has effects, or another time to wake at.
    pub(crate) work: Notify,
    /// Free units of 512 bytes.
    pub(crate) room: Semaphore,
    pub(crate) durability: Durability,
    status: watch::Sender<WriterStatus>,
}

impl Shared {
    pub(crate) fn new(domain: DomainId, epoch: Epoch, options: WriterOptions, env: Env, log: Log) -> Self {
        let durability = Durability::new(log.committed());
        let room = Semaphore::new((options.buffer_bytes_max / tidemark_format::BLOCK_BYTES) as usize);
        let status = watch::Sender::new(WriterStatus::new(domain, epoch, log.committed()));
        Self { domain, epoch, options, env, log: Mutex::new(log), work: Notify::new(), room, durability, status }
    }

    pub(crate) fn now(&self) -> Now {
        Now { wall: self.env.clock.wall(), monotonic: self.env.clock.monotonic() }
    }

    /// The log, for a moment: nobody waits or blocks while holding it.
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        // A panic under the lock is a broken invariant: the log must not go on after it.
        self.log.lock().expect("no invariant of the log is broken")
    }

    /// Waits until there is room for `what`, then gives it its LSN and time.
    pub(crate) async fn submit(&self, at: Option<TimeNs>, what: Submission) -> Result<(Lsn, TimeNs)> {
        let room = self.make_room(what.units()).await?;
        let mut log = self.log();
        let given = self.log_one(&mut log, at, what)?;
        room.forget();
        Ok(given)
    }

    /// Waits for `units` of room, then lets `plan` say what to log, given the log as it is, and logs it with nothing in
    /// between. Returns the LSN and time of the last piece.
    pub(crate) async fn submit_planned(
        &self,
        at: Option<TimeNs>,
        units: u32,
        plan: impl FnOnce(&Log) -> Result<Vec<Submission>>,
    ) -> Result<(Lsn, TimeNs)> {
        let mut room = self.make_room(units).await?;
        let mut log = self.log();
        let mut last = None;
        for what in plan(&log)? {
            let taken = room.split(what.units() as usize).expect("a plan keeps within its room");
            last = Some(self.log_one(&mut log, at, what)?);
            taken.forget();
        }
        Ok(last.expect("a plan has at least one piece"))
    }

    async fn make_room(&self, units: u32) -> Result<SemaphorePermit<'_>> {
        if let Ok(room) = self.room.try_acquire_many(units) {
            return Ok(room);
        }
        self.room.acquire_many(units).await.map_err(|_| {
            let stopped = self.durability.promise().borrow().stopped.clone();
            stopped.unwrap_or(Error::Closed)
        })
    }

    /// Logs one piece. The log will release the room that it takes.
    fn log_one(&self, log: &mut Log, at: Option<TimeNs>, what: Submission) -> Result<(Lsn, TimeNs)> {
        log.admit(&what)?;
        let asleep = log.wake_at().is_none();
        let given = log.submit(self.now(), at, what)?;
        if log.has_effects() || (asleep && log.wake_at().is_some()) {
            self.work.notify_one();
        }
        Ok(given)
    }

    pub(crate) fn status(&self) -> watch::Receiver<WriterStatus> {
        self.status.subscribe()
    }

    /// Brings the status up to date with the log.
    pub(crate) fn publish(&self) {
        let log = self.log();
        self.status.send_if_modified(|status| status.update(&log));
    }

    pub(crate) fn report_failure(&self, what: &'static str, error: bucket::Error) {
        self.status.send_modify(|status| {
            status.failures_in_a_row += 1;
            status.last_error = Some(Error::store(what, error));
        });
    }

    pub(crate) fn report_success(&self) {
        self.status.send_if_modified(|status| std::mem::take(&mut status.failures_in_a_row) > 0);
    }
}
