//! NBD servers as processes.

use crate::fio::Target;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tidemark_env::Clock;

/// Seconds that a server may take until it serves.
const START_SECONDS_MAX: u64 = 60;

/// A server that is stopped when it goes out of scope.
pub(crate) struct Server {
    child: Child,
    socket: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    /// Starts `command` and waits until it serves `exports` on `socket`.
    pub(crate) fn start(mut command: Command, socket: &Path, exports: &[&str], clock: &dyn Clock) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("start {name}"))?;
        let server = Self { child, socket: socket.to_owned() };
        let give_up = clock.monotonic() + std::time::Duration::from_secs(START_SECONDS_MAX);
        for export in exports {
            let Target::Export(uri) = server.export(export) else { continue };
            let mut info = Command::new("nbdinfo");
            info.arg("--size").arg(uri).stdout(Stdio::null()).stderr(Stdio::null());
            while !info.status().context("run nbdinfo (apt-get install libnbd-bin)")?.success() {
                ensure!(clock.monotonic() < give_up, "{name} does not serve {export:?} after {START_SECONDS_MAX} s");
                std::thread::yield_now();
            }
        }
        Ok(server)
    }

    /// One of its exports.
    pub(crate) fn export(&self, name: &str) -> Target {
        Target::Export(format!("nbd+unix:///{name}?socket={}", self.socket.display()))
    }
}
