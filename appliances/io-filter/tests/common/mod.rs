//! A server in the test's own process, a volume that can be held up, and a client that says exactly what it is told.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod raw;

use bytes::Bytes;
use futures::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tidemark_io_filter::nbd::{Limits, Listener, Server, Stopped, TlsOptions};
use tidemark_io_filter::{
    ByteRange, Client, Error, ExportInfo, Exports, Geometry, MemoryVolume, Part, Persist, RangeLock, Result,
    StatusContext, StatusRun, Volume, ZeroOptions,
};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Volumes by name.
pub struct Disks(pub Vec<(&'static str, Arc<dyn Volume>)>);

impl Exports for Disks {
    fn list(&self, _: &Client) -> Vec<ExportInfo> {
        let info = |(name, _): &(&str, _)| ExportInfo { name: (*name).into(), description: format!("the {name} disk") };
        self.0.iter().map(info).collect()
    }

    fn open(&self, name: &str, _: &Client) -> Result<Arc<dyn Volume>> {
        let found = self.0.iter().find(|(own, _)| *own == name);
        found.map(|(_, volume)| volume.clone()).ok_or_else(|| Error::NoExport { name: name.into() })
    }
}

/// A server on a unix socket and on a TCP port.
pub struct Host {
    pub dir: TempDir,
    pub port: u16,
    runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<Stopped>>,
}

impl Host {
    /// Serves one volume as "disk".
    pub fn of(volume: Arc<dyn Volume>) -> Self {
        Self::new(Arc::new(Disks(vec![("disk", volume)])), Limits::default(), None)
    }

    pub fn with_limits(volume: Arc<dyn Volume>, limits: Limits) -> Self {
        Self::new(Arc::new(Disks(vec![("disk", volume)])), limits, None)
    }

    pub fn new(exports: Arc<dyn Exports>, limits: Limits, tls: Option<&TlsOptions>) -> Self {
        let dir = tempfile::tempdir().expect("a place for a socket");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let (stop, stopped) = oneshot::channel();
        let _entered = runtime.enter();
        let unix = Listener::unix(&dir.path().join("nbd.sock"), 0o600).expect("a socket of our own");
        let tcp = Listener::tcp("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let port = tcp.tcp_address().expect("it is TCP").port();
        let server = Server::new(exports, limits, tls).expect("sound options");
        let serving = tokio::spawn(async move { server.serve(vec![unix, tcp], async { drop(stopped.await) }).await });
        drop(_entered);
        Self { dir, port, runtime, stop: Some(stop), serving: Some(serving) }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("nbd.sock")
    }

    /// Of the export "disk".
    pub fn uri(&self) -> String {
        format!("nbd+unix:///disk?socket={}", self.socket().display())
    }

    /// A file in the server's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Asks it to stop.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops it and waits for its end.
    pub fn stop(&mut self) -> Stopped {
        self.begin_stop();
        let serving = self.serving.take().expect("stopped once");
        self.runtime.block_on(serving).expect("the server does not panic")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.serving.is_some() && !std::thread::panicking() {
            assert_eq!(self.stop().cut_off, 0, "connections that did not end");
        }
    }
}

/// Runs a tool to its end, which must be success; what it printed.
pub fn run(program: &str, args: &[&str]) -> String {
    let (ok, output) = attempt(program, args);
    assert!(ok, "{program} {args:?}:\n{output}");
    output
}

/// Runs a tool to its end; whether it succeeded, and what it printed.
pub fn attempt(program: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; run scripts/install test"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("tests have plain paths")
}

/// Bytes that differ at each place, and by seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A volume whose writes below [`HELD_BELOW`] wait until they are let go.
pub struct Gate {
    memory: MemoryVolume,
    open: watch::Sender<bool>,
    waiting: AtomicUsize,
    pub waiting_max: AtomicUsize,
}

/// Writes before this offset are held.
pub const HELD_BELOW: u64 = 1 << 20;

impl Gate {
    pub fn new(size_bytes: u64) -> Arc<Self> {
        let memory = MemoryVolume::new(size_bytes).expect("small");
        let (open, _) = watch::channel(false);
        Arc::new(Self { memory, open, waiting: AtomicUsize::new(0), waiting_max: AtomicUsize::new(0) })
    }

    /// Writes that wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Lets all go, also those to come.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

impl Volume for Gate {
    fn geometry(&self) -> Geometry {
        self.memory.geometry()
    }
    fn ranges(&self) -> &RangeLock {
        self.memory.ranges()
    }
    fn read(&self, range: ByteRange) -> BoxFuture<'_, Result<Vec<Part>>> {
        self.memory.read(range)
    }
    fn write(&self, offset: u64, data: Bytes, persist: Persist) -> BoxFuture<'_, Result<()>> {
        if offset >= HELD_BELOW {
            return self.memory.write(offset, data, persist);
        }
        Box::pin(async move {
            let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
            self.waiting_max.fetch_max(waiting, Ordering::SeqCst);
            let let_go = self.open.subscribe().wait_for(|open| *open).await.is_ok();
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            assert!(let_go);
            self.memory.write(offset, data, persist).await
        })
    }
    fn zero(&self, range: ByteRange, options: ZeroOptions, persist: Persist) -> BoxFuture<'_, Result<()>> {
        self.memory.zero(range, options, persist)
    }
    fn trim(&self, range: ByteRange, persist: Persist) -> BoxFuture<'_, Result<()>> {
        self.memory.trim(range, persist)
    }
    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.memory.flush()
    }
    fn status<'a>(
        &'a self,
        range: ByteRange,
        context: &'a StatusContext,
        runs_max: usize,
    ) -> BoxFuture<'a, Result<Vec<StatusRun>>> {
        self.memory.status(range, context, runs_max)
    }
}

/// Waits for a condition, for as long as a loaded machine may need.
#[allow(clippy::disallowed_methods, reason = "tests wait for other processes")]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 60, "waited in vain: {what}");
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
}
