//! `tidemark` as its users meet it: a process with arguments, output and an exit code.

use crate::system::{is_mountpoint, until};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The binary under test, and what its processes find in their environment.
#[derive(Clone, Debug)]
pub struct Tidemark {
    binary: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it answered.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Tidemark {
    /// `binary` is `env!("CARGO_BIN_EXE_tidemark-under-test")` of the test.
    pub fn new(binary: &str) -> Self {
        Self { binary: binary.into(), environment: Vec::new() }
    }

    /// With one more variable in the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// A command that has not started.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).stdin(Stdio::null()).env_remove("TIDEMARK_FAULTS").env_remove("TIDEMARK_LOG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.command(args).output().expect("the binary was built with the tests"))
    }

    /// Runs it to its end, which must be success.
    pub fn ok<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran
    }

    /// Runs it with `--json`; its answer, after success.
    pub fn json<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Value {
        let args = std::iter::once(OsString::from("--json")).chain(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        let ran = self.ok(args);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
    }

    /// Mounts a domain at `dir`, which is made, and waits until it answers.
    pub fn mount(&self, url: &str, dir: &Path, more: &[&str]) -> Mounted {
        std::fs::create_dir_all(dir).expect("a directory in a test's own place");
        let args = ["mount", url].into_iter().map(OsString::from).chain([dir.into()]);
        let mut command = self.command(args.chain(more.iter().map(OsString::from)));
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary was built");
        let mut mounted = Mounted { child, dir: dir.to_owned() };
        until("mount", || {
            let ended = mounted.child.try_wait().expect("it is our child");
            assert_eq!(ended, None, "the mount ended: {}", mounted.said());
            is_mountpoint(dir)
        });
        mounted
    }
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A mount in a process of its own. Dropping it stops the process as SIGTERM does.
#[derive(Debug)]
pub struct Mounted {
    child: Child,
    dir: PathBuf,
}

impl Mounted {
    /// A disk's file at a point, such as `lsn/7`.
    pub fn disk(&self, point: &str, vm: &str, disk: &str) -> PathBuf {
        self.dir.join(point).join(vm).join(format!("{disk}.raw"))
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sends a signal and waits for the end; the exit code.
    pub fn stop(mut self, signal: &str) -> Option<i32> {
        crate::system::signal(self.child.id(), signal);
        self.child.wait().expect("it is our child").code()
    }

    fn said(&mut self) -> String {
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut said).ok();
        }
        said
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            crate::system::signal(self.child.id(), "TERM");
            self.child.wait().ok();
        }
        if is_mountpoint(&self.dir) {
            Command::new("umount").arg("-l").arg(&self.dir).status().ok();
        }
    }
}
