//! The threads of a handle: they do all its I/O, and are gone when it is.

use crate::error::{Failure, TIDEMARK_INTERNAL};
use futures::FutureExt;
use std::cell::Cell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::sync_channel;
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads of a handle whose options do not say how many.
const THREADS_DEFAULT: usize = 2;
/// Threads that a handle may have.
const THREADS_MAX: u32 = 256;

thread_local! {
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// Makes the calling thread one of the library's: it takes no signals, and nothing on it waits for another.
pub(crate) fn become_ours() {
    OURS.set(true);
    // SAFETY: an empty set is a valid value, which sigfillset overwrites; both calls only look at what they are handed.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

/// True on the library's threads, and so in callbacks.
pub(crate) fn is_ours() -> bool {
    OURS.get()
}

/// Refuses to wait in a callback: what it would wait for comes after it.
pub(crate) fn check_may_wait(what: &str) -> Result<(), Failure> {
    if is_ours() {
        return Err(Failure::request(format!("{what} waits, so it may not be called from a callback")));
    }
    Ok(())
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Threads {
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl Threads {
    /// Starts `threads` of them, or a default for 0.
    pub(crate) fn start(name: &str, threads: u32) -> Result<Self, Failure> {
        if threads > THREADS_MAX {
            return Err(Failure::request(format!("threads_max is {threads}, at most {THREADS_MAX} is allowed")));
        }
        let threads = if threads == 0 { THREADS_DEFAULT } else { threads as usize };
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads).thread_name(name).on_thread_start(become_ours).enable_all();
        let runtime = builder.build();
        runtime
            .map(|runtime| Self { runtime: Some(runtime) })
            .map_err(|error| Failure::new(TIDEMARK_INTERNAL, format!("cannot start threads: {error}"), None))
    }

    /// Does `work` on these threads and waits for its end.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let (send, receive) = sync_channel(1);
        self.handle().spawn(async move {
            let done = AssertUnwindSafe(work).catch_unwind().await;
            // The one who waits is there until it has an answer.
            let _ = send.send(done.unwrap_or_else(|panic| Err(Failure::panicked(&*panic))));
        });
        let lost = || Failure::new(TIDEMARK_INTERNAL, "bug in tidemark: its threads ended", None);
        receive.recv().unwrap_or_else(|_| Err(lost()))
    }

    /// Does `work` on the calling thread, which waits; these threads do what it starts.
    pub(crate) fn help<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
    where
        Failure: From<E>,
    {
        let _here = self.handle().enter();
        Ok(futures::executor::block_on(work)?)
    }

    fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("it is taken when this is dropped").handle()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // Waits for the threads, unless the caller is a task of a runtime of its own, which must not wait.
        if Handle::try_current().is_ok() {
            runtime.shutdown_background();
        }
    }
}
