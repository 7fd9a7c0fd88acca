//! A recovery's directory: everything that another process needs to go on with it.
//!
//! `job.json` says what is recovered and never changes; it holds the VMs' configurations, so that going on takes no bucket.
//! `state.json` says how far it is, and is replaced as a whole. `vm0`, `vm1`, ... hold what belongs to a VM.
//! Invariant: one process at a time works on it, by the lock of `lock`.

use crate::core::{Record, Recovery};
use crate::durable;
use crate::error::{Error, Result};
use crate::hypervisor::{Card, Guest, GuestDisk, Image};
use crate::machine::{Bus, MachineConfig};
use crate::site::Site;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use tidemark_format::TimeNs;
use tidemark_runbook::{Inventory, Mode, Plan, Runbook, Start, VmFacts};

const VERSION: u32 = 1;
/// The longest name of a socket is 107 bytes, and `/vm9999/agent` follows.
const DIR_BYTES_MAX: usize = 94;

/// What is recovered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    version: u32,
    /// Where the domain is.
    pub url: String,
    /// The domain's name.
    pub domain: String,
    /// The point.
    pub lsn: u64,
    /// When that was, in nanoseconds since 1970.
    pub time_ns: u64,
    /// `test`, `failover` or `failback`.
    mode: String,
    /// The runbook's file, for errors.
    runbook_file: String,
    /// What stands in it.
    runbook: String,
    /// Whether the disks become local.
    pub hydrate: bool,
    /// The VMs that it knows, by name.
    pub vms: Vec<VmSpec>,
}

/// A VM of a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSpec {
    /// Its name.
    pub name: String,
    /// Where its configuration was recorded, if it was.
    pub recorded: Option<u64>,
    /// Its configuration.
    pub config: MachineConfig,
    /// Its disks, in order.
    pub disks: Vec<DiskSpec>,
}

/// A disk of a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Its number in the domain.
    pub id: u32,
    /// Its name within the VM.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// How the guest reaches it.
    pub bus: Bus,
}

/// What to recover, in the words of whoever wants it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where the domain is.
    pub url: String,
    /// Its name.
    pub domain: String,
    /// What for.
    pub mode: Mode,
    /// The runbook: its file, and what stands in it. Absent: every VM at once.
    pub runbook: Option<(String, String)>,
    /// Whether the disks become local.
    pub hydrate: bool,
}

impl JobSpec {
    /// What a site holds, to be recovered as somebody wants it.
    pub fn new(wanted: Wanted, site: &Site) -> Self {
        let everything = || (String::new(), Runbook::EVERYTHING_AT_ONCE.to_owned());
        let (runbook_file, runbook) = wanted.runbook.unwrap_or_else(everything);
        let vm = |(name, vm): (&String, &crate::site::RecordedVm)| VmSpec {
            name: name.clone(),
            recorded: vm.recorded.map(|lsn| lsn.get()),
            config: vm.config.clone(),
            disks: vm
                .disks
                .iter()
                .map(|disk| DiskSpec {
                    id: disk.at.id.get(),
                    name: disk.at.name.clone(),
                    size_bytes: disk.at.size_bytes,
                    bus: disk.bus,
                })
                .collect(),
        };
        Self {
            version: VERSION,
            url: wanted.url,
            domain: wanted.domain,
            lsn: site.point.lsn.get(),
            time_ns: site.point.time.get(),
            mode: wanted.mode.to_string(),
            runbook_file,
            runbook,
            hydrate: wanted.hydrate,
            vms: site.vms.iter().map(vm).collect(),
        }
    }

    /// Its runbook.
    ///
    /// # Errors
    /// If it cannot work.
    pub fn runbook(&self) -> Result<Runbook> {
        Ok(Runbook::parse(&self.runbook_file, &self.runbook)?)
    }

    /// What it is for.
    pub fn mode(&self) -> Mode {
        self.mode.parse().unwrap_or(Mode::Test)
    }

    /// What it will do.
    ///
    /// # Errors
    /// If the runbook cannot work or does not fit.
    pub fn plan(&self) -> Result<Plan> {
        let facts = |vm: &VmSpec| VmFacts {
            name: vm.name.clone(),
            networks: vm.config.nics.iter().map(|nic| nic.network.clone()).collect(),
        };
        Ok(self.runbook()?.plan(self.mode(), &Inventory { vms: self.vms.iter().map(facts).collect() })?)
    }
}

/// A recovery's directory that nobody else works on.
#[derive(Debug)]
pub struct Job {
    dir: PathBuf,
    spec: JobSpec,
    /// Unlocked when it is closed.
    _lock: File,
}

impl Job {
    /// Makes the directory of a new recovery.
    ///
    /// # Errors
    /// If there is one already, its runbook does not fit, or the directory cannot be used.
    pub fn create(dir: &Path, spec: JobSpec, now: TimeNs) -> Result<(Self, Recovery)> {
        let plan = spec.plan()?;
        let own = |source| Error::Local { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(own)?;
        let dir = dir.canonicalize().map_err(own)?;
        let bytes = dir.as_os_str().len();
        if bytes > DIR_BYTES_MAX {
            return Err(Error::LongName { dir, bytes, max: DIR_BYTES_MAX });
        }
        let lock = lock(&dir)?;
        if dir.join("job.json").exists() {
            return Err(Error::AlreadyThere { dir });
        }
        for number in 0..spec.vms.len() {
            std::fs::create_dir_all(dir.join(format!("vm{number}"))).map_err(own)?;
        }
        let recovery = Recovery::begin(plan, now);
        let job = Self { dir, spec, _lock: lock };
        // The state first: whoever finds the job finds its state.
        job.save(recovery.record())?;
        durable::save(&job.dir.join("job.json"), &job.spec).map_err(own)?;
        Ok((job, recovery))
    }

    /// Goes on with the recovery in a directory.
    ///
    /// # Errors
    /// If there is none, or somebody else works on it.
    pub fn resume(dir: &Path) -> Result<(Self, Recovery)> {
        let (spec, record) = look(dir)?;
        let dir = dir.canonicalize().map_err(|source| Error::Local { path: dir.to_owned(), source })?;
        let lock = lock(&dir)?;
        // It may have moved on until it was ours.
        let (spec, record) = look(&dir).unwrap_or((spec, record));
        let recovery = Recovery::resume(spec.plan()?, record).ok_or_else(|| Error::Damaged {
            path: dir.join("state.json"),
            why: "it has another number of steps than the plan".to_owned(),
        })?;
        Ok((Self { dir, spec, _lock: lock }, recovery))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is recovered.
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// Remembers how far it is. Durable on return.
    ///
    /// # Errors
    /// Those of the local disk.
    pub fn save(&self, record: &Record) -> Result<()> {
        let path = self.dir.join("state.json");
        durable::save(&path, record).map_err(|source| Error::Local { path, source })
    }

    /// The place of a VM among [`JobSpec::vms`].
    pub(crate) fn number_of(&self, vm: &str) -> Option<usize> {
        self.spec.vms.iter().position(|known| known.name == vm)
    }

    /// The directory of a VM.
    pub(crate) fn vm_dir(&self, number: usize) -> PathBuf {
        self.dir.join(format!("vm{number}"))
    }

    /// A VM as the hypervisor gets it, with its disks in these images. `start` is what the plan says.
    pub(crate) fn guest(&self, number: usize, start: &Start, images: &[Image]) -> Guest {
        let VmSpec { name, config, disks, .. } = &self.spec.vms[number];
        let disk = |(image, disk): (&Image, &DiskSpec)| GuestDisk { image: image.clone(), bus: disk.bus };
        let card = |(network, nic): (&tidemark_runbook::Network, &crate::machine::Nic)| Card {
            network: network.clone(),
            mac: nic.mac.clone(),
        };
        Guest {
            name: name.clone(),
            dir: self.vm_dir(number),
            memory_bytes: start.resources.memory_bytes.unwrap_or(config.memory_bytes),
            cpus: start.resources.cpus.unwrap_or(config.cpus),
            boot: config.boot.clone(),
            disks: images.iter().zip(disks).map(disk).collect(),
            cards: start.networks.iter().zip(&config.nics).map(card).collect(),
        }
    }
}

/// How far the recovery in a directory is, whoever works on it.
///
/// # Errors
/// If there is none.
pub fn look(dir: &Path) -> Result<(JobSpec, Record)> {
    let read = |name: &str| dir.join(name);
    let damaged = |name: &str, why: String| Error::Damaged { path: read(name), why };
    let spec: Option<JobSpec> = durable::load(&read("job.json")).map_err(|e| damaged("job.json", e.to_string()))?;
    let spec = spec.ok_or_else(|| Error::NoRecovery { dir: dir.to_owned() })?;
    if spec.version != VERSION {
        let why = format!("its version is {}, this program knows {VERSION}", spec.version);
        return Err(damaged("job.json", why));
    }
    let record: Option<Record> =
        durable::load(&read("state.json")).map_err(|e| damaged("state.json", e.to_string()))?;
    let record = record.ok_or_else(|| damaged("state.json", "it is not there".to_owned()))?;
    Ok((spec, record))
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let own = |source| Error::Local { path: path.clone(), source };
    let file = File::options().create(true).append(true).open(&path).map_err(own)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::InUse { dir: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(Error::Local { path: path.clone(), source }),
    }
}

/// Removes a recovery that is over.
///
/// # Errors
/// Those of the local disk.
pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
