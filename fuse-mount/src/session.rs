//! The life of a mount: begins with [`serve`], ends when it is unmounted, by us or by anybody else.
//!
//! Invariants: every fetch runs on a runtime of the mount's own, so that nothing the caller blocks on can stall its
//! readers; an unmount by somebody else is a success; only the mount made here is ever unmounted here.

use crate::adapter::Adapter;
use crate::crew::Crew;
use crate::error::{Error, Result};
use crate::fs::DiskFs;
use crate::health::Health;
use crate::mountpoint::{self, Force, MountEntry, MountRequest, MountedBy, Outcome};
use crate::options::ServeOptions;
use crate::stats::{Counters, MountStats};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tidemark_env::Env;
use tidemark_format::with_causes;

/// How often a busy mount is tried again while it has grace.
const BUSY_RETRY: Duration = Duration::from_millis(100);

/// How an unmount went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// It is gone and nobody used it.
    Clean,
    /// It is out of the tree, but files in it are still open and are served until the last is closed or this process ends.
    StillInUse,
}

/// A live mount. Dropping the handle unmounts it.
pub struct MountHandle {
    life: Arc<Life>,
    serving: Option<JoinHandle<()>>,
}

struct Life {
    entry: MountEntry,
    by: MountedBy,
    busy_grace: Duration,
    counters: Arc<Counters>,
    crew: Arc<Crew>,
    end: Mutex<Option<std::result::Result<(), io::Error>>>,
    ended: Condvar,
    announce: tokio::sync::watch::Sender<bool>,
}

/// Shows `fs` at `dir` until it is unmounted. Returns once the mount answers.
///
/// # Errors
/// If `dir` cannot be mounted on, or FUSE is missing or not permitted.
pub fn serve<F: DiskFs>(fs: Arc<F>, dir: &Path, options: &ServeOptions, env: &Env) -> Result<MountHandle> {
    let dir = mountpoint::prepare(dir)?;
    let failed = |source| Error::Session { dir: dir.clone(), source };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.io_threads.max(1))
        .thread_name("tidemark-io")
        .enable_all()
        .build()
        .map_err(failed)?;
    // A runtime must not be dropped by blocking where the caller may be asynchronous.
    let runtime = Background(Some(runtime));
    let counters = Arc::new(Counters::default());
    let health = Arc::new(Health::new(env.clock.clone()));
    let threads = options.answer_threads.clamp(1, 64);
    let crew = Arc::new(Crew::new(env.clock.clone(), threads));
    let writable = fs.is_writable();
    let adapter = Adapter::new(fs, runtime.handle(), health, counters.clone(), crew.clone(), options);

    let (source, allow_other) = (&*options.source_name, options.access.beyond_owner());
    let request = MountRequest { dir: &dir, source, allow_other, writable };
    let mounted = mountpoint::mount(&request)?;
    let (entry, by) = (mounted.entry, mounted.by);
    let mut config = fuser::Config::default();
    config.n_threads = Some(threads);
    // The kernel has checked who may ask before a request gets here.
    let session = fuser::Session::from_fd(adapter, mounted.connection, fuser::SessionACL::All, config);
    let session = session.map_err(|source| {
        mountpoint::unmount(&entry, by, Force::Detach).ok();
        failed(source)
    })?;
    if !mountpoint::set_read_ahead(&entry, options.read_ahead_kib) {
        tracing::debug!("not permitted to let the kernel read ahead further; sequential page cache reads are slower");
    }

    let (announce, _) = tokio::sync::watch::channel(false);
    let life = Arc::new(Life {
        entry,
        by,
        busy_grace: options.busy_grace,
        counters,
        crew,
        end: Mutex::new(None),
        ended: Condvar::new(),
        announce,
    });
    let serving = std::thread::Builder::new().name("tidemark-fuse".into()).spawn({
        let life = life.clone();
        move || {
            hurry();
            let end = session.run();
            drop(runtime);
            *life.end() = Some(end);
            life.ended.notify_all();
            life.announce.send_replace(true);
        }
    });
    let serving = serving.map_err(|source| {
        mountpoint::unmount(&life.entry, by, Force::Detach).ok();
        failed(source)
    })?;
    tracing::info!(dir = %life.entry.dir.display(), "mounted");
    Ok(MountHandle { life, serving: Some(serving) })
}

/// Lets the threads that answer go ahead of batch work, where that is permitted: an answer takes microseconds, and a guest
/// waits for it. They inherit it from the thread that starts them.
fn hurry() {
    const NICENESS: i32 = -10;
    if rustix::process::setpriority_process(None, NICENESS).is_err() {
        tracing::debug!("not permitted to answer ahead of other work");
    }
}

/// A runtime that is told to end, not waited for.
struct Background(Option<tokio::runtime::Runtime>);

impl Background {
    fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().expect("only taken on drop").handle().clone()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Life {
    fn end(&self) -> MutexGuard<'_, Option<std::result::Result<(), io::Error>>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the session ended within `patience`.
    fn ended_within(&self, patience: Duration) -> bool {
        let end = self.ended.wait_timeout_while(self.end(), patience, |end| end.is_none());
        end.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    fn result(&self) -> Result<()> {
        match &*self.end() {
            Some(Err(error)) => Err(Error::Session {
                dir: self.entry.dir.clone(),
                source: io::Error::new(error.kind(), error.to_string()),
            }),
            Some(Ok(())) | None => Ok(()),
        }
    }

    fn unmount(&self) -> Result<Unmounted> {
        if self.end().is_some() {
            return Ok(Unmounted::Clean);
        }
        // Counted, not timed: each round ends early if the mount does.
        let mut rounds = self.busy_grace.as_millis() / BUSY_RETRY.as_millis();
        loop {
            match mountpoint::unmount(&self.entry, self.by, Force::IfIdle)? {
                Outcome::Gone => break,
                Outcome::Busy if rounds == 0 => {
                    mountpoint::unmount(&self.entry, self.by, Force::Detach)?;
                    self.crew.dismiss();
                    let dir = self.entry.dir.display();
                    if self.ended_within(BUSY_RETRY) {
                        return Ok(Unmounted::Clean);
                    }
                    tracing::warn!(%dir, "still in use: detached; open files are served until they are closed");
                    return Ok(Unmounted::StillInUse);
                }
                Outcome::Busy => {
                    rounds -= 1;
                    if self.ended_within(BUSY_RETRY) {
                        break;
                    }
                }
            }
        }
        self.crew.dismiss();
        // Gone from our tree; a lazy unmount by somebody else may have left users, as may another mount namespace.
        Ok(if self.ended_within(self.busy_grace.max(BUSY_RETRY)) { Unmounted::Clean } else { Unmounted::StillInUse })
    }
}

impl MountHandle {
    /// The directory mounted on.
    pub fn dir(&self) -> PathBuf {
        self.life.entry.dir.clone()
    }

    /// What it has done so far.
    pub fn stats(&self) -> MountStats {
        self.life.counters.snapshot()
    }

    /// Blocks until the mount has ended.
    ///
    /// # Errors
    /// If serving it broke off; that somebody unmounted it is a success.
    pub fn wait(&self) -> Result<()> {
        let end = self.life.ended.wait_while(self.life.end(), |end| end.is_none());
        drop(end.unwrap_or_else(PoisonError::into_inner));
        self.life.result()
    }

    /// Completes when the mount has ended; for `select!` beside signals.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn ended(&self) -> Result<()> {
        let mut news = self.life.announce.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        news.wait_for(|&ended| ended).await.ok();
        self.life.result()
    }

    /// Unmounts. A mount in use is tried again for the configured grace, then detached. Blocks meanwhile.
    ///
    /// # Errors
    /// If something is mounted over it, or the kernel refuses. The mount then lives on.
    pub fn unmount(&self) -> Result<Unmounted> {
        self.life.unmount()
    }
}

impl Drop for MountHandle {
    fn drop(&mut self) {
        if self.life.end().is_none() {
            let gone = mountpoint::unmount(&self.life.entry, self.life.by, Force::Detach);
            self.life.crew.dismiss();
            if let Err(error) = gone {
                tracing::warn!("{}", with_causes(&error));
            }
        }
        // Joined only if it has ended: with files still open it ends when they do.
        if self.life.ended_within(BUSY_RETRY)
            && let Some(serving) = self.serving.take()
        {
            serving.join().ok();
        }
    }
}

impl std::fmt::Debug for MountHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountHandle").field("dir", &self.life.entry.dir).finish_non_exhaustive()
    }
}
