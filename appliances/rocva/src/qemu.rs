//! VMs as processes of QEMU.
//!
//! A VM is found again by its monitor's socket in its directory, whoever started it: processes outlive the one that started them. It
//! stops, instead of telling its guest of a broken disk, when a disk fails, so that a disk that comes back costs a pause.
//! Invariants: the process that is killed is the one that QEMU's own pid file names and that has this VM's directory in its command line.

use crate::error::{Error, Result};
use crate::hypervisor::{Card, Guest, GuestState, Hypervisor, Image};
use crate::machine::{BootFrom, Bus, Firmware};
use crate::process::{LOOK_EVERY, Process, last_words};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tidemark_env::Env;
use tidemark_qemu::{Address, Agent, AgentOptions, Qmp, QmpOptions};
use tidemark_runbook::Network;
use tokio::time::{Instant, sleep};

/// How long QEMU may take until it takes commands, and until it has gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a guest's requests wait for a server of disks that is gone; then the guest is halted.
const RECONNECT_DELAY: Duration = Duration::from_secs(3600);
/// Of a console's log, what is looked at: its end.
const CONSOLE_BYTES_MAX: u64 = 1 << 20;

/// What executes a guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor; if that does not work here, a translator, which is ten times slower.
    #[default]
    Best,
    /// The processor alone.
    Kvm,
    /// The translator alone.
    Tcg,
}

/// How to run QEMU.
#[derive(Clone, Debug)]
pub struct QemuOptions {
    /// The program.
    pub program: PathBuf,
    /// What UEFI guests start from.
    pub uefi: PathBuf,
    /// What executes their instructions.
    pub accelerator: Accelerator,
}

impl Default for QemuOptions {
    fn default() -> Self {
        Self {
            program: "qemu-system-x86_64".into(),
            uefi: "/usr/share/ovmf/OVMF.fd".into(),
            accelerator: Accelerator::Best,
        }
    }
}

/// VMs as processes of QEMU.
#[derive(Clone)]
pub struct Qemu {
    options: QemuOptions,
    env: Env,
}

impl Qemu {
    /// A hypervisor that starts processes.
    pub fn new(options: QemuOptions, env: Env) -> Self {
        Self { options, env }
    }

    /// Runs a VM, unless it runs.
    async fn launch(&self, guest: &Guest, accelerator: &str) -> Result<()> {
        let log = guest.dir.join("qemu.log");
        let own = |source| Error::Local { path: guest.dir.clone(), source };
        let mut child = None;
        if !process(guest).lives() {
            let said = File::options().create(true).append(true).open(&log).map_err(own)?;
            // A group of its own: what is sent to our terminal's processes is not for it. Of two that start at once, QEMU's lock of
            // the pid file ends the second before it touches anything.
            let started = tokio::process::Command::new(&self.options.program)
                .args(self.args(guest, accelerator))
                .stdin(Stdio::null())
                .stdout(said.try_clone().map_err(own)?)
                .stderr(said)
                .process_group(0)
                .spawn();
            child = Some(started.map_err(|e| failed(guest, format!("{}: {e}", self.options.program.display())))?);
        }
        let until = Instant::now() + PATIENCE;
        loop {
            if self.monitor(guest).await.is_some() {
                return Ok(());
            }
            let ended = child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended && !process(guest).lives() {
                return Err(failed(guest, last_words(&log)));
            }
            if Instant::now() >= until {
                return Err(failed(guest, format!("QEMU takes no commands after {} s", PATIENCE.as_secs())));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn monitor(&self, guest: &Guest) -> Option<Qmp> {
        let address = Address::Unix(monitor(guest));
        let options = QmpOptions { answer_max: PATIENCE };
        Qmp::connect(&address, options).await.ok()
    }

    /// The monitor of a VM that has to be there.
    async fn reached(&self, guest: &Guest) -> Result<Qmp> {
        self.monitor(guest).await.ok_or_else(|| failed(guest, "it does not run"))
    }

    fn args(&self, guest: &Guest, accelerator: &str) -> Vec<String> {
        let mut args: Vec<String> = "-nodefaults -no-user-config -display none -machine q35 -cpu max -vga std"
            .split(' ')
            .map(str::to_owned)
            .collect();
        let mut arg = |option: &str, value: String| args.extend([option.to_owned(), value]);
        arg("-accel", accelerator.to_owned());
        arg("-name", format!("guest={}", comma(&guest.name)));
        arg("-m", format!("{}", guest.memory_bytes >> 20));
        arg("-smp", guest.cpus.to_string());
        arg("-pidfile", text(&pid_file(guest)));
        arg("-qmp", format!("unix:{},server=on,wait=off", comma(&text(&monitor(guest)))));
        let console = comma(&text(&console(guest)));
        arg("-chardev", format!("file,id=console,path={console},append=on"));
        arg("-serial", "chardev:console".to_owned());
        let agent = comma(&text(&agent(guest)));
        arg("-device", "virtio-serial-pci".to_owned());
        arg("-chardev", format!("socket,id=agent,path={agent},server=on,wait=off"));
        arg("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0".to_owned());
        match &guest.boot {
            BootFrom::Disks(Firmware::Bios) => {}
            BootFrom::Disks(Firmware::Uefi) => arg("-bios", text(&self.options.uefi)),
            BootFrom::Kernel { kernel, initrd, cmdline } => {
                arg("-kernel", kernel.clone());
                initrd.iter().for_each(|initrd| arg("-initrd", initrd.clone()));
                arg("-append", cmdline.clone());
            }
        }
        if guest.disks.iter().any(|disk| disk.bus == Bus::Scsi) {
            arg("-device", "virtio-scsi-pci,id=scsi".to_owned());
        }
        let mut sata = 0;
        for (number, disk) in guest.disks.iter().enumerate() {
            arg("-blockdev", node(number, &disk.image, &below(number, 0)).to_string());
            let device = match disk.bus {
                Bus::Virtio => "virtio-blk-pci".to_owned(),
                Bus::Scsi => "scsi-hd,bus=scsi.0".to_owned(),
                Bus::Sata => {
                    sata += 1;
                    format!("ide-hd,bus=ide.{}", sata - 1)
                }
            };
            let rest = format!("id=d{number},bootindex={},rerror=stop,werror=stop", number + 1);
            arg("-device", format!("{device},drive=disk{number},{rest}"));
        }
        for (number, Card { network, mac }) in guest.cards.iter().enumerate() {
            let backend = match network {
                Network::Unplugged => format!("hubport,hubid={number}"),
                Network::Isolated => "user,restrict=on".to_owned(),
                Network::Outward => "user".to_owned(),
                Network::Bridge(name) => format!("bridge,br={name}"),
            };
            arg("-netdev", format!("{backend},id=n{number}"));
            let mac = mac.as_ref().map_or(String::new(), |mac| format!(",mac={mac}"));
            arg("-device", format!("virtio-net-pci,netdev=n{number},romfile={mac}"));
        }
        args
    }
}

/// The top node of a disk: it stays when what is below is another.
fn node(number: usize, image: &Image, below: &str) -> Value {
    let mut below = match image {
        Image::File(path) => json!({ "driver": "file", "node-name": below, "filename": path }),
        Image::Nbd { socket, export } => json!({
            "driver": "nbd", "node-name": below, "export": export, "reconnect-delay": RECONNECT_DELAY.as_secs(),
            "server": { "type": "unix", "path": socket },
        }),
    };
    below["discard"] = "unmap".into();
    json!({ "driver": "raw", "node-name": format!("disk{number}"), "discard": "unmap", "file": below })
}

async fn nodes(monitor: &Qmp) -> Result<Vec<Value>> {
    match monitor.execute("query-named-block-nodes", json!({ "flat": true })).await? {
        Value::Array(nodes) => Ok(nodes),
        _ => Ok(Vec::new()),
    }
}

fn below(disk: usize, generation: u64) -> String {
    format!("below{disk}-{generation}")
}

fn monitor(guest: &Guest) -> PathBuf {
    guest.dir.join("qmp")
}

fn agent(guest: &Guest) -> PathBuf {
    guest.dir.join("agent")
}

fn console(guest: &Guest) -> PathBuf {
    guest.dir.join("console.log")
}

fn pid_file(guest: &Guest) -> PathBuf {
    guest.dir.join("pid")
}

fn process(guest: &Guest) -> Process {
    Process::new(pid_file(guest), &pid_file(guest))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// QEMU's way to write a comma within a value.
fn comma(text: &str) -> String {
    text.replace(',', ",,")
}

fn failed(guest: &Guest, why: impl Into<String>) -> Error {
    Error::Guest { vm: guest.name.clone(), why: why.into() }
}

#[async_trait]
impl Hypervisor for Qemu {
    async fn start(&self, guest: &Guest) -> Result<()> {
        match self.options.accelerator {
            Accelerator::Kvm => self.launch(guest, "kvm").await,
            Accelerator::Tcg => self.launch(guest, "tcg").await,
            Accelerator::Best => {
                let Err(error) = self.launch(guest, "kvm").await else { return Ok(()) };
                tracing::info!(vm = guest.name, %error, "without the processor's help");
                self.launch(guest, "tcg").await
            }
        }
    }

    async fn state(&self, guest: &Guest) -> Result<GuestState> {
        if !process(guest).lives() {
            return Ok(GuestState::Gone);
        }
        let status = self.reached(guest).await?.execute("query-status", json!({})).await?;
        Ok(match status["status"].as_str() {
            Some("running") => GuestState::Running,
            other => GuestState::Halted(other.unwrap_or("unknown").to_owned()),
        })
    }

    async fn agent_answers(&self, guest: &Guest) -> Result<()> {
        let options = AgentOptions::new(Arc::clone(&self.env.entropy));
        Agent::connect(&Address::Unix(agent(guest)), options).await?;
        Ok(())
    }

    async fn console(&self, guest: &Guest) -> Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let path = console(guest);
        let read = || {
            let file = File::open(&path)?;
            let len = file.metadata()?.len();
            let mut end = vec![0; len.min(CONSOLE_BYTES_MAX) as usize];
            file.read_exact_at(&mut end, len.saturating_sub(CONSOLE_BYTES_MAX))?;
            Ok(end)
        };
        read().map_err(|source| Error::Local { path: path.clone(), source })
    }

    async fn screenshot(&self, guest: &Guest, png: &Path) -> Result<()> {
        self.reached(guest).await?.execute("screendump", json!({ "filename": png, "format": "png" })).await?;
        Ok(())
    }

    async fn move_disk(&self, guest: &Guest, disk: usize, image: &Image) -> Result<()> {
        let monitor = self.reached(guest).await?;
        let nodes = nodes(&monitor).await?;
        let prefix = format!("below{disk}-");
        let generation = |node: &Value| node["node-name"].as_str()?.strip_prefix(&prefix)?.parse::<u64>().ok();
        let newest = nodes.iter().filter_map(|node| Some((generation(node)?, node))).max_by_key(|(number, _)| *number);
        let (number, node_now) = newest.ok_or_else(|| failed(guest, format!("it has no disk {disk}")))?;
        if matches!(image, Image::File(path) if node_now["file"].as_str() == Some(&text(path))) {
            return Ok(());
        }
        let name = below(disk, number + 1);
        let mut top = node(disk, image, &name);
        let added = std::mem::replace(&mut top["file"], name.clone().into());
        monitor.execute("blockdev-add", added).await?;
        let done = monitor.execute("blockdev-reopen", json!({ "options": [top] })).await;
        let unused = if done.is_ok() { below(disk, number) } else { name };
        // A node that came with the disk goes with it; one that was added has to be removed.
        if self::nodes(&monitor).await?.iter().any(|node| node["node-name"] == unused.as_str()) {
            monitor.execute("blockdev-del", json!({ "node-name": unused })).await?;
        }
        done?;
        tracing::debug!(vm = guest.name, disk, ?image, "moved a disk");
        Ok(())
    }

    async fn go_on(&self, guest: &Guest) -> Result<()> {
        let monitor = self.reached(guest).await?;
        if monitor.execute("query-status", json!({})).await?["status"] == "io-error" {
            monitor.execute("cont", json!({})).await?;
        }
        Ok(())
    }

    async fn stop(&self, guest: &Guest, grace: Duration) -> Result<()> {
        // A guest that may not end by itself has nothing to lose, and may wait for disks that are gone.
        if !grace.is_zero()
            && let Some(monitor) = self.monitor(guest).await
            && monitor.execute("system_powerdown", json!({})).await.is_ok()
        {
            process(guest).gone(grace).await;
        }
        process(guest).signal(rustix::process::Signal::KILL);
        if !process(guest).gone(PATIENCE).await {
            return Err(failed(guest, "its process cannot be ended"));
        }
        Ok(())
    }
}
