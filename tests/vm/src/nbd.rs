//! QEMU's own NBD server, as the peer that ours is measured by, and a check of what is left of a file system.

use crate::process::{Process, tool, until};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `qemu-nbd` that serves a raw image, for any number of connections one after the other. Killed when dropped.
#[derive(Debug)]
pub struct NbdServer {
    process: Process,
    image: PathBuf,
    socket: PathBuf,
}

impl NbdServer {
    /// The name of its export.
    pub const EXPORT: &str = "vm/disk";

    /// Serves `image` as [`EXPORT`](Self::EXPORT) on the Unix socket `socket`, and waits until it listens.
    pub fn start(image: &Path, socket: &Path) -> Self {
        std::fs::remove_file(socket).ok();
        let mut args: Vec<String> =
            ["--persistent", "--shared=0", "--format=raw", "--cache=writeback", "--discard=unmap"]
                .map(str::to_owned)
                .into();
        args.push(format!("--export-name={}", Self::EXPORT));
        args.push(format!("--socket={}", socket.display()));
        args.push(image.display().to_string());
        let mut process = Process::start(&tool("qemu-nbd"), &args, socket.with_extension("nbd.log"));
        until("NBD server", || {
            assert_eq!(process.ended(), None, "qemu-nbd: {}", process.said());
            UnixStream::connect(socket).ok()
        });
        Self { process, image: image.to_owned(), socket: socket.to_owned() }
    }

    /// SIGKILL. What it answered before is in the image: the page cache outlives it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: the connections stay, and nothing is answered any more.
    pub fn hang(&self) {
        let stopped = Command::new("kill").args(["-STOP", &self.process.pid().to_string()]).status();
        assert!(stopped.is_ok_and(|status| status.success()), "kill -STOP");
    }

    /// Serves the same image at the same place again.
    pub fn restart(&mut self) {
        *self = Self::start(&self.image, &self.socket);
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Replays the journal of the ext4 in a copy of `image`, as the next mount would, then checks it; what `e2fsck` said.
///
/// # Errors
/// If it found anything wrong.
pub fn fsck(image: &Path) -> Result<(), String> {
    fsck_copy(image, &image.with_extension("fsck"))
}

/// Like [`fsck`], of an image that nothing can be written beside; the copy is gone afterwards.
///
/// # Errors
/// If it found anything wrong.
pub fn fsck_copy(image: &Path, copy: &Path) -> Result<(), String> {
    let run = |program: &str, args: &[&str]| {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new(program).args(args).env("PATH", format!("{path}:/usr/sbin:/sbin")).output();
        let output = output.unwrap_or_else(|e| panic!("{program}: {e} (scripts/install puts it here)"));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.success() { Ok(()) } else { Err(format!("{program} {args:?}: {said}")) }
    };
    let (from, to) = (image.display().to_string(), copy.display().to_string());
    run("cp", &["--sparse=always", &from, &to])?;
    let checked = run("e2fsck", &["-E", "journal_only", "-p", &to]).and_then(|()| run("e2fsck", &["-fn", &to]));
    std::fs::remove_file(copy).ok();
    checked
}
