//! Processes that never outlive their test, and waiting for conditions.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tidemark_env::Env;

/// How long a condition may take: emulated guests boot in 4 s on a quiet machine, and others use the machine too.
const PATIENCE: Duration = Duration::from_secs(180);

/// What `tests/vm/install.sh` put below `.tools/vm`.
fn installed(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/vm").join(name);
    assert!(path.exists(), "there is no {}: run scripts/install test", path.display());
    path
}

/// A program of the QEMU that the tests run: `qemu-system-x86_64`, `qemu-nbd`, `qemu-img`, `qemu-io`, `qemu-storage-daemon`.
///
/// # Panics
/// If it was not installed.
pub fn tool(name: &str) -> PathBuf {
    installed("bin").join(name)
}

/// The kernel that guests boot.
///
/// # Panics
/// If it was not installed.
pub fn kernel() -> PathBuf {
    installed("vmlinuz")
}

/// Its initrd, whose job the kernel's command line names.
///
/// # Panics
/// If it was not installed.
pub fn initrd() -> PathBuf {
    installed("initrd")
}

/// Waits until `look` finds something.
///
/// # Panics
/// If it does not in time.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = Env::system().clock;
    let start = clock.monotonic();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(clock.monotonic() - start < PATIENCE, "no {what} within {PATIENCE:?}");
        pause();
    }
}

/// The interval of a poll.
fn pause() {
    // A channel that nobody sends on.
    let (_open, never) = mpsc::sync_channel::<()>(0);
    never.recv_timeout(Duration::from_millis(5)).ok();
}

/// A process that is killed when it is dropped, and by the kernel when the test's thread ends.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    said: PathBuf,
}

impl Process {
    /// Starts a program; what it says goes to the file `said`.
    pub(crate) fn start(program: &Path, args: &[String], said: PathBuf) -> Self {
        let log = File::create(&said).expect("a file in a test's own place");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("it is open"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("setpriv of util-linux: {e}"));
        Self { child, said }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// What it said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
