//! Processes that outlive the one that started them, and are found again.

use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks at a process that comes or goes.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A process that writes its number into a file, and has `mark` as a word of its command line, whole or behind a `=`: numbers are used
/// again.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pid_file: PathBuf,
    mark: PathBuf,
}

impl Process {
    pub(crate) fn new(pid_file: PathBuf, mark: &Path) -> Self {
        Self { pid_file, mark: mark.to_owned() }
    }

    fn pid(&self) -> Option<Pid> {
        use std::os::unix::ffi::OsStrExt;
        let pid: i32 = std::fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()?;
        // Of a process that has ended and that nobody waited for it is empty.
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mark = self.mark.as_os_str().as_bytes();
        let is_ours = command.split(|byte| *byte == 0).any(|word| word == mark);
        is_ours.then(|| Pid::from_raw(pid)).flatten()
    }

    /// Whether it lives.
    pub(crate) fn lives(&self) -> bool {
        self.pid().is_some()
    }

    /// Sends it a signal, if it lives.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // It may be gone by now.
            kill_process(pid, signal).ok();
        }
    }

    /// Waits until it has gone; says whether it has.
    pub(crate) async fn gone(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.lives() {
            if Instant::now() >= until {
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
        true
    }
}

/// The end of what a process said, for people.
pub(crate) fn last_words(path: &Path) -> String {
    const LINES: usize = 3;
    let said = std::fs::read(path).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let last: Vec<&str> = said.lines().rev().take(LINES).collect();
    if last.is_empty() {
        "it ended without a word".to_owned()
    } else {
        last.into_iter().rev().collect::<Vec<_>>().join("; ")
    }
}
