//! What a recovery wants of a hypervisor.
//!
//! Every call may be repeated: starting what runs, stopping what is gone and moving a disk to where it is are done at once.
//! Not here: in which order VMs start, and when they are ready.

use crate::error::Result;
use crate::machine::{BootFrom, Bus};
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemark_runbook::Network;

/// A VM to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Where its sockets, its console's log and the like are; the directory of no other VM.
    pub dir: PathBuf,
    /// Memory.
    pub memory_bytes: u64,
    /// Processors.
    pub cpus: u32,
    /// How it boots.
    pub boot: BootFrom,
    /// Its disks, in order.
    pub disks: Vec<GuestDisk>,
    /// Its network cards, in order.
    pub cards: Vec<Card>,
}

/// A disk of a VM to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDisk {
    /// Where its bytes are.
    pub image: Image,
    /// How the guest reaches it.
    pub bus: Bus,
}

/// Where the bytes of a disk are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// A raw image.
    File(PathBuf),
    /// An export of a server that may go and come back.
    Nbd {
        /// Where it listens.
        socket: PathBuf,
        /// The export's name.
        export: String,
    },
}

/// A network card of a VM to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// What it is plugged into.
    pub network: Network,
    /// Its address.
    pub mac: Option<String>,
}

/// How a VM is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestState {
    /// It executes.
    Running,
    /// It is there and does not execute: a disk failed it, say.
    Halted(String),
    /// There is no such VM.
    Gone,
}

/// Something that runs VMs.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// Runs a VM, unless it runs.
    async fn start(&self, guest: &Guest) -> Result<()>;
    /// How it is doing.
    async fn state(&self, guest: &Guest) -> Result<GuestState>;
    /// Whether the agent in it answers.
    async fn agent_answers(&self, guest: &Guest) -> Result<()>;
    /// What its serial console said.
    async fn console(&self, guest: &Guest) -> Result<Vec<u8>>;
    /// A picture of its screen, as PNG, into a file.
    async fn screenshot(&self, guest: &Guest, png: &Path) -> Result<()>;
    /// Lets a disk go on in another place that has the same contents, without the guest noticing.
    async fn move_disk(&self, guest: &Guest, disk: usize, image: &Image) -> Result<()>;
    /// Lets a guest go on that was halted since a disk failed.
    async fn go_on(&self, guest: &Guest) -> Result<()>;
    /// Asks the guest to end, for so long; then ends it.
    async fn stop(&self, guest: &Guest, grace: Duration) -> Result<()>;
}
