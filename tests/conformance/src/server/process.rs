//! A child process that is ready when it says so by answering, and never outlives us.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;
use tidemark_env::{Clock, SystemClock};

/// The path of an installed store, below `.tools/`.
///
/// # Panics
/// If it is missing, with the command that installs it.
pub(crate) fn tool(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join(".tools").join(name);
    assert!(path.exists(), "{name} is not installed at {}\nhint: run tests/stores/install.sh", path.display());
    path.canonicalize().expect("it exists")
}

/// Ports that nobody listened on a moment ago, all different.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let bound: Vec<_> = (0..N).map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port on loopback")).collect();
    std::array::from_fn(|i| bound[i].local_addr().expect("a bound socket has an address").port())
}

/// A server and the shell that guards it.
#[derive(Debug)]
pub(crate) struct Running {
    guard: Child,
}

impl Running {
    /// Starts `command` and waits until `ready` says so; asked whenever the server prints a line.
    ///
    /// # Panics
    /// If the server ends or takes longer than `longest`, with the end of what it printed.
    pub(crate) fn start(name: &str, command: Command, longest: Duration, mut ready: impl FnMut() -> bool) -> Self {
        // The shell keeps no pipe open but its input, so the end of the server's output means the end of the server.
        const GUARD: &str =
            r#""$@" </dev/null & server=$!; exec 2>/dev/null; cat >/dev/null; kill -9 $server; wait $server"#;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", GUARD, name]).arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut guard = shell.spawn().unwrap_or_else(|error| panic!("start {name}: {error}"));
        let lines = lines(guard.stderr.take().expect("it is piped"));
        let mut running = Self { guard };
        let (clock, mut printed) = (SystemClock::new(), Vec::new());
        loop {
            let ended = match lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    printed.push(line);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if !ended && ready() {
                return running;
            }
            if ended || clock.monotonic() > longest {
                running.kill();
                let tail = printed.len().saturating_sub(20);
                panic!("{name} did not come up within {longest:?}; it printed:\n{}", printed[tail..].join("\n"));
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        // Closing its input makes the guard kill the server and end.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the server prints, line by line; the rest is read and dropped once nobody listens, so that it never blocks.
fn lines(output: ChildStderr) -> Receiver<String> {
    const LINES_MAX: usize = 64;
    let (send, receive) = sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        let mut heard = true;
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            heard = heard && send.send(String::from_utf8_lossy(&line).into_owned()).is_ok();
        }
    });
    receive
}
