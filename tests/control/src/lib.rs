//! An appliance that only pretends, behind the real API on a real socket.
//!
//! Not here: the tests (`tests/`), and what a real appliance does.

pub mod fake;

use fake::Fake;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tidemark_api::Client;
use tidemark_drva::api::{ApiSocket, serve};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A pretended appliance that is being served. Dropping it ends it.
#[derive(Debug)]
pub struct Served {
    /// What answers.
    pub fake: Arc<Fake>,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
    runtime: Runtime,
    dir: TempDir,
}

impl Served {
    /// Serves an appliance with a domain `accounting` of two disks.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("tests have room");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("tests have threads");
        let socket = dir.path().join("drva.sock");
        let mut served = Self { fake: Arc::new(Fake::with_accounting()), socket, stop: None, task: None, runtime, dir };
        served.start();
        served
    }

    /// Serves, again after [`Self::stop`].
    pub fn start(&mut self) {
        let _runtime = self.runtime.enter();
        let socket = ApiSocket::bind(&self.socket).expect("nobody else is in the directory");
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            stopped.await.ok();
        };
        self.task = Some(self.runtime.spawn(serve(socket, self.fake.clone(), stopped)));
        self.stop = Some(stop);
    }

    /// Ends it as SIGTERM does, and waits for that.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(task) = self.task.take() {
            self.runtime.block_on(task).expect("serving does not panic");
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A place for files of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    /// Runs something to its end.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

impl Default for Served {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}
