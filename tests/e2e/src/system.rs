//! The machine around the tests: commands, mounts, loop devices.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tidemark_env::Env;

/// How long a condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within a minute.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = Env::system().clock;
    let start = clock.monotonic();
    while !condition() {
        assert!(clock.monotonic() - start < PATIENCE, "no {what} within {PATIENCE:?}");
        pause(Duration::from_millis(5));
    }
}

/// Lets some time pass, for what has no condition to wait for: a moment to kill at, a poll's interval.
pub fn pause(time: Duration) {
    // A channel that nobody sends on.
    let (_open, never) = mpsc::sync_channel::<()>(0);
    never.recv_timeout(time).ok();
}

/// Runs a command of the system; its output. Root's tools are found too.
///
/// # Panics
/// If it is missing or fails: what the tests need is installed by `scripts/install`.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> String {
    let (code, text) = try_run(program, args);
    assert_eq!(code, Some(0), "{program}: {text}");
    text
}

/// Runs a command of the system; its exit code and everything it printed.
///
/// # Panics
/// If it is missing.
pub fn try_run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> (Option<i32>, String) {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(args)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e} (scripts/install puts it here)"));
    let both = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&both).into_owned())
}

/// Sends a signal by name, such as `KILL`.
pub fn signal(process: u32, name: &str) {
    try_run("kill", [format!("-{name}"), process.to_string()]);
}

/// True if something is mounted at `dir`.
pub fn is_mountpoint(dir: &Path) -> bool {
    let dir = dir.to_string_lossy();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(&*dir))
}

/// An image that is loop-mounted read-only. Dropping it unmounts.
#[derive(Debug)]
pub struct LoopMount {
    dir: PathBuf,
}

impl LoopMount {
    /// Mounts the ext4 in `image` at `dir`, which is made; without replaying its journal if `noload`.
    pub fn new(image: &Path, dir: &Path, noload: bool) -> Self {
        std::fs::create_dir_all(dir).expect("a directory in a test's own place");
        let options = if noload { "loop,ro,noload" } else { "loop,ro" };
        run(
            "mount",
            [OsStr::new("-t"), "ext4".as_ref(), "-o".as_ref(), options.as_ref(), image.as_ref(), dir.as_ref()],
        );
        Self { dir: dir.to_owned() }
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        run("umount", [&self.dir]);
    }
}

/// SHA-256 of a file, as `sha256sum` says it.
pub fn sha256(file: &Path) -> String {
    run("sha256sum", [file]).split(' ').next().unwrap_or_default().to_owned()
}
