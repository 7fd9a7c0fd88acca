//! What a domain holds at a point, as a recovery sees it: VMs with their configurations and disks.
//!
//! A VM is there if it has a disk there. Its configuration is the newest that was recorded at or before the point; a VM of which none
//! was recorded gets one processor, 1 GiB, and boots from its disks.
//! Not here: contents of disks.

use crate::error::{Error, Result};
use crate::machine::{Bus, LIBVIRT_XML, MachineConfig};
use std::collections::BTreeMap;
use tidemark_format::Lsn;
use tidemark_reader::{DiskAt, Domain, Point, VmConfig};
use tidemark_runbook::{Inventory, VmFacts};

/// What a domain holds at a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The point.
    pub point: Point,
    /// Its VMs, by name.
    pub vms: BTreeMap<String, RecordedVm>,
}

/// A VM as it was at the point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedVm {
    /// What it is.
    pub config: MachineConfig,
    /// Where its configuration was recorded; `None` if it never was.
    pub recorded: Option<Lsn>,
    /// Its disks, in the order of its buses.
    pub disks: Vec<DiskOfVm>,
}

/// A disk of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOfVm {
    /// As the domain has it.
    pub at: DiskAt,
    /// How the guest reaches it.
    pub bus: Bus,
}

impl Site {
    /// What `domain` holds at `point`.
    ///
    /// # Errors
    /// If there is no disk that can be restored, a configuration is not understood, or the domain cannot be read.
    pub async fn at(domain: &Domain, point: Point) -> Result<Self> {
        let timeline = domain.timeline();
        let mut disks: BTreeMap<String, Vec<DiskAt>> = BTreeMap::new();
        for disk in timeline.disks_at(point.lsn).into_iter().filter(|disk| disk.consistent_from.is_some()) {
            disks.entry(disk.vm.clone()).or_default().push(disk);
        }
        if disks.is_empty() {
            return Err(Error::NothingThere { at: point.to_string() });
        }
        let mut vms = BTreeMap::new();
        for (vm, disks) in disks {
            let recorded = timeline.vm_config(&vm, point.lsn);
            let config = match recorded {
                None => MachineConfig::default(),
                Some(VmConfig { format, body, .. }) => understood(&vm, format, body)?,
            };
            let disks = in_order(disks, &config);
            vms.insert(vm, RecordedVm { config, recorded: recorded.map(|config| config.recorded.lsn), disks });
        }
        Ok(Self { point, vms })
    }

    /// What a plan needs to know of it.
    pub fn inventory(&self) -> Inventory {
        let facts = |(name, vm): (&String, &RecordedVm)| VmFacts {
            name: name.clone(),
            networks: vm.config.nics.iter().map(|nic| nic.network.clone()).collect(),
        };
        Inventory { vms: self.vms.iter().map(facts).collect() }
    }
}

fn understood(vm: &str, format: &str, body: &[u8]) -> Result<MachineConfig> {
    let refuse = |why: String| Error::Configuration { vm: vm.to_owned(), format: format.to_owned(), why };
    if format != LIBVIRT_XML {
        return Err(refuse(format!("only {LIBVIRT_XML} is understood")));
    }
    let text = std::str::from_utf8(body).map_err(|e| refuse(e.to_string()))?;
    MachineConfig::of_libvirt_xml(text).map_err(refuse)
}

/// Disks that the configuration names stand where it has them, the others behind, oldest first.
fn in_order(mut disks: Vec<DiskAt>, config: &MachineConfig) -> Vec<DiskOfVm> {
    let place = |disk: &DiskAt| config.disks.iter().position(|slot| slot.names.contains(&disk.name));
    disks.sort_by_key(|disk| (place(disk).unwrap_or(usize::MAX), disk.id));
    let bus = |disk: &DiskAt| place(disk).map_or(Bus::default(), |slot| config.disks[slot].bus);
    disks.into_iter().map(|at| DiskOfVm { bus: bus(&at), at }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::DiskSlot;
    use tidemark_format::DiskId;

    #[test]
    fn disks_stand_where_the_configuration_has_them() {
        let disk = |id: u32, name: &str| DiskAt {
            id: DiskId::new(id),
            vm: "v".into(),
            name: name.into(),
            size_bytes: 512,
            consistent_from: Some(Lsn::new(1)),
        };
        let slot = |names: &[&str], bus| DiskSlot { names: names.iter().map(|name| (*name).to_owned()).collect(), bus };
        let slots = vec![slot(&["sda", "root"], Bus::Sata), slot(&["vdb"], Bus::Virtio)];
        let config = MachineConfig { disks: slots, ..MachineConfig::default() };
        let disks = vec![disk(1, "extra"), disk(2, "vdb"), disk(3, "root"), disk(4, "log")];
        let order: Vec<_> = in_order(disks, &config).into_iter().map(|disk| (disk.at.name, disk.bus)).collect();
        let want = [("root", Bus::Sata), ("vdb", Bus::Virtio), ("extra", Bus::Virtio), ("log", Bus::Virtio)];
        assert_eq!(order, want.map(|(name, bus)| (name.to_owned(), bus)));
    }

    #[test]
    fn a_configuration_of_another_kind_is_refused_by_name() {
        let said = understood("db", "vmx", b"x").unwrap_err().to_string();
        assert_eq!(
            said,
            "the configuration of VM db is no vmx that a VM can start from: only libvirt-xml is understood"
        );
    }
}
