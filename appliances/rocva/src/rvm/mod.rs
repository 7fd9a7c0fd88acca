//! The representation VM: what stands in for a VM while it is rehydrated. A process of its own for each VM serves its disks and brings
//! their contents to the local disk; it outlives whoever started it, and is gone when the VM has its final disks.
//!
//! In the VM's directory: `rvm.json` is what it serves, `disks/` the local files, `nbd` the socket where the hypervisor finds the disks,
//! `hydration.json` how far it is, `rvm.pid` its process, `rvm.log` what it says.
//! A hypervisor waits for a server that is gone, so that a crash or an upgrade of this process costs its guest a pause.
//! Invariants: one process serves a VM's disks, by the lock of its pid file; what is killed is the process that this file names and that
//! has the directory in its command line.

mod serve;

pub use serve::serve_rvm;

use crate::disks::{Disks, DisksOf, Hydration};
use crate::durable;
use crate::error::{Error, Result};
use crate::hypervisor::Image;
use crate::job::DiskSpec;
use crate::process::{LOOK_EVERY, Process, last_words};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

/// How long it may take until they are served: the domain has to be opened first.
const SERVE_PATIENCE: Duration = Duration::from_secs(120);
/// How long the process may take to end when it is asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// What a representation VM serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Spec {
    url: String,
    lsn: u64,
    disks: Vec<DiskSpec>,
    hydrate: bool,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Reached {
    local_bytes: u64,
    total_bytes: u64,
    /// Every disk is a raw image in `disks/`, durable.
    finished: bool,
}

fn stem(disk: &DiskSpec) -> String {
    format!("disk{}", disk.id)
}

fn local_image(dir: &Path, disk: &DiskSpec) -> PathBuf {
    dir.join("disks").join(format!("{}.raw", stem(disk)))
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("nbd")
}

/// Representation VMs as processes of `program ARGS... DIR`, which call [`serve_rvm`].
#[derive(Clone, Debug)]
pub struct Rvms {
    program: PathBuf,
    args: Vec<String>,
}

impl Rvms {
    /// Started in this way.
    pub fn new(program: PathBuf, args: impl IntoIterator<Item = &'static str>) -> Self {
        Self { program, args: args.into_iter().map(str::to_owned).collect() }
    }
}

fn process(of: DisksOf<'_>) -> Process {
    Process::new(of.dir.join("rvm.pid"), of.dir)
}

fn failed(of: DisksOf<'_>, why: impl Into<String>) -> Error {
    Error::Disks { vm: of.vm.name.clone(), why: why.into() }
}

fn images(of: DisksOf<'_>) -> Vec<Image> {
    let image = |disk: &DiskSpec| Image::Nbd { socket: socket(of.dir), export: stem(disk) };
    of.vm.disks.iter().map(image).collect()
}

#[async_trait]
impl Disks for Rvms {
    async fn serve(&self, of: DisksOf<'_>) -> Result<Vec<Image>> {
        if self.is_served(of).await {
            return Ok(images(of));
        }
        let own = |source: io::Error| Error::Local { path: of.dir.to_owned(), source };
        let mut child = None;
        if !process(of).lives() {
            let spec = Spec { url: of.url.to_owned(), lsn: of.lsn, disks: of.vm.disks.clone(), hydrate: of.hydrate };
            durable::save(&of.dir.join("rvm.json"), &spec).map_err(own)?;
            std::fs::create_dir_all(of.dir.join("disks")).map_err(own)?;
            let said = File::options().create(true).append(true).open(of.dir.join("rvm.log")).map_err(own)?;
            let started = tokio::process::Command::new(&self.program)
                .args(&self.args)
                .arg(of.dir)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(said)
                .process_group(0)
                .spawn();
            child = Some(started.map_err(|e| failed(of, format!("{}: {e}", self.program.display())))?);
        }
        let until = Instant::now() + SERVE_PATIENCE;
        loop {
            if self.is_served(of).await {
                return Ok(images(of));
            }
            let ended = child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended && !process(of).lives() {
                return Err(failed(of, last_words(&of.dir.join("rvm.log"))));
            }
            if Instant::now() >= until {
                return Err(failed(of, format!("nobody serves them after {} s", SERVE_PATIENCE.as_secs())));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn is_served(&self, of: DisksOf<'_>) -> bool {
        process(of).lives() && UnixStream::connect(socket(of.dir)).await.is_ok()
    }

    async fn hydration(&self, of: DisksOf<'_>) -> Result<Hydration> {
        let path = of.dir.join("hydration.json");
        let reached: Option<Reached> = durable::load(&path).map_err(|source| Error::Local { path, source })?;
        let Reached { local_bytes, total_bytes, finished } = reached.unwrap_or_default();
        let images = finished.then(|| of.vm.disks.iter().map(|disk| Image::File(local_image(of.dir, disk))).collect());
        Ok(Hydration { local_bytes, total_bytes, images })
    }

    async fn release(&self, of: DisksOf<'_>) -> Result<()> {
        let process = process(of);
        process.signal(rustix::process::Signal::TERM);
        if !process.gone(STOP_PATIENCE).await {
            process.signal(rustix::process::Signal::KILL);
            if !process.gone(STOP_PATIENCE).await {
                return Err(failed(of, "the process that serves them does not end"));
            }
        }
        Ok(())
    }
}
