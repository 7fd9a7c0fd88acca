//! A VM's configuration, out of the libvirt XML that was recorded.
//!
//! What a recovery needs of it: memory, processors, how it boots, its disks' order and its network cards. Everything else is the
//! recovery site's own: devices of the protected site's host mean nothing there.
//! Not here: starting anything.

use roxmltree::{Document, Node};
use serde::{Deserialize, Serialize};

/// The one format that is understood: what `virsh dumpxml` prints.
pub(crate) const LIBVIRT_XML: &str = "libvirt-xml";

const MEMORY_BYTES_DEFAULT: u64 = 1 << 30;
const MEMORY_BYTES_MAX: u64 = 1 << 46;
const CPUS_MAX: u32 = 4096;
/// Cards and disks of one VM at most.
const DEVICES_MAX: usize = 256;

/// What a VM is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Memory.
    pub memory_bytes: u64,
    /// Processors.
    pub cpus: u32,
    /// How it boots.
    pub boot: BootFrom,
    /// Its disks, in the order in which they are written down.
    pub disks: Vec<DiskSlot>,
    /// Its network cards.
    pub nics: Vec<Nic>,
}

/// How a VM boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootFrom {
    /// From its disks.
    Disks(Firmware),
    /// A kernel of the host.
    Kernel {
        /// The kernel's file.
        kernel: String,
        /// The initrd's.
        initrd: Option<String>,
        /// Its command line.
        cmdline: String,
    },
}

/// What starts the boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// A PC's BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// A place for a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSlot {
    /// Every name that the disk goes by.
    pub names: Vec<String>,
    /// How the guest reaches it: it may have a driver for nothing else.
    pub bus: Bus,
}

/// How a guest reaches a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// virtio-blk.
    #[default]
    Virtio,
    /// virtio-scsi.
    Scsi,
    /// AHCI; IDE disks too, whose drivers are everywhere as well.
    Sata,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// The network that it is on: a name of libvirt's, or of a bridge.
    pub network: String,
    /// Its address.
    pub mac: Option<String>,
}

impl Default for MachineConfig {
    /// Of a VM of which nothing was recorded.
    fn default() -> Self {
        Self {
            memory_bytes: MEMORY_BYTES_DEFAULT,
            cpus: 1,
            boot: BootFrom::Disks(Firmware::Bios),
            disks: Vec::new(),
            nics: Vec::new(),
        }
    }
}

impl MachineConfig {
    /// Reads what `virsh dumpxml` printed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_libvirt_xml(text: &str) -> Result<Self, String> {
        let document = Document::parse(text).map_err(|e| e.to_string())?;
        let domain = document.root_element();
        if domain.tag_name().name() != "domain" {
            return Err(format!("it is a <{}>, not a <domain>", domain.tag_name().name()));
        }
        let memory_bytes = child(domain, "memory").map_or(Ok(MEMORY_BYTES_DEFAULT), memory)?;
        let cpus = match child(domain, "vcpu").and_then(|vcpu| vcpu.text()) {
            None => 1,
            Some(text) => text
                .trim()
                .parse()
                .ok()
                .filter(|cpus| (1..=CPUS_MAX).contains(cpus))
                .ok_or_else(|| format!("<vcpu> is {text:?}, which is no number within 1 and {CPUS_MAX}"))?,
        };
        let devices = || child(domain, "devices").into_iter().flat_map(|devices| devices.children());
        let named = |name: &'static str| devices().filter(move |device| device.tag_name().name() == name);
        let disks: Vec<_> = named("disk").filter(|disk| disk.attribute("device") != Some("cdrom")).map(slot).collect();
        let nics: Vec<_> = named("interface").map(nic).collect();
        if disks.len().max(nics.len()) > DEVICES_MAX {
            return Err(format!("it has more than {DEVICES_MAX} disks or network cards"));
        }
        Ok(Self { memory_bytes, cpus, boot: boot(domain), disks, nics })
    }
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.tag_name().name() == name)
}

fn text_of(node: Node<'_, '_>, name: &str) -> Option<String> {
    let text = child(node, name)?.text()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Libvirt counts in KiB unless it says otherwise.
fn memory(node: Node<'_, '_>) -> Result<u64, String> {
    let unit = node.attribute("unit").unwrap_or("KiB");
    let scale: u64 = match unit {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return Err(format!("<memory> is in {unit:?}, which is no unit")),
    };
    let text = node.text().unwrap_or_default().trim();
    let bytes = text.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    // Hypervisors count in MiB.
    let bytes = bytes.map(|bytes| bytes.next_multiple_of(1 << 20));
    bytes
        .filter(|bytes| (1 << 20..=MEMORY_BYTES_MAX).contains(bytes))
        .ok_or_else(|| format!("<memory> is {text:?} {unit}, which is no memory of 1 MiB to 64 TiB"))
}

fn boot(domain: Node<'_, '_>) -> BootFrom {
    let Some(os) = child(domain, "os") else { return BootFrom::Disks(Firmware::Bios) };
    if let Some(kernel) = text_of(os, "kernel") {
        let cmdline = text_of(os, "cmdline").unwrap_or_default();
        return BootFrom::Kernel { kernel, initrd: text_of(os, "initrd"), cmdline };
    }
    let flash = child(os, "loader").is_some_and(|loader| loader.attribute("type") == Some("pflash"));
    let uefi = flash || os.attribute("firmware") == Some("efi");
    BootFrom::Disks(if uefi { Firmware::Uefi } else { Firmware::Bios })
}

/// What a disk goes by: its place on the bus, its alias, its serial number, its file.
fn slot(disk: Node<'_, '_>) -> DiskSlot {
    let attribute = |tag, name| child(disk, tag).and_then(|node| node.attribute(name)).map(str::to_owned);
    let alias = attribute("alias", "name").map(|alias| alias.trim_start_matches("ua-").to_owned());
    let file = attribute("source", "file").or_else(|| attribute("source", "dev"));
    let file = file.and_then(|path| Some(std::path::Path::new(&path).file_stem()?.to_string_lossy().into_owned()));
    let bus = match attribute("target", "bus").as_deref() {
        Some("sata" | "ide") => Bus::Sata,
        Some("scsi") => Bus::Scsi,
        _ => Bus::Virtio,
    };
    let names = [attribute("target", "dev"), alias, text_of(disk, "serial"), file].into_iter().flatten().collect();
    DiskSlot { names, bus }
}

fn nic(interface: Node<'_, '_>) -> Nic {
    let source = child(interface, "source");
    let named = |name| source.and_then(|source| source.attribute(name));
    let network = named("network").or_else(|| named("bridge")).or_else(|| named("dev"));
    let network = network.or_else(|| interface.attribute("type")).unwrap_or("unknown").to_owned();
    let mac = child(interface, "mac").and_then(|mac| mac.attribute("address"));
    let is_mac = |mac: &&str| mac.len() == 17 && mac.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    Nic { network, mac: mac.filter(is_mac).map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMPED: &str = r#"<domain type='kvm' id='3'>
  <name>db1</name>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>1048576</currentMemory>
  <vcpu placement='static'>2</vcpu>
  <os firmware='efi'><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><boot dev='hd'/></os>
  <devices>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
    <disk type='file' device='disk'>
      <source file='/var/lib/libvirt/images/db1-root.qcow2' index='1'/>
      <target dev='vda' bus='virtio'/><serial>R00T</serial><alias name='ua-root'/>
    </disk>
    <disk type='network' device='disk'><source protocol='nbd' name='d/db1/data'/><target dev='sdb' bus='sata'/></disk>
    <interface type='network'>
      <mac address='52:54:00:12:34:56'/><source network='office' portid='x'/><model type='virtio'/>
    </interface>
    <interface type='bridge'><source bridge='br7'/><mac address='no,id=x'/></interface>
  </devices>
</domain>"#;

    #[test]
    fn what_virsh_dumps_is_understood() {
        let config = MachineConfig::of_libvirt_xml(DUMPED).expect("it is right");
        assert_eq!((config.memory_bytes, config.cpus), (2 << 30, 2));
        assert_eq!(config.boot, BootFrom::Disks(Firmware::Uefi));
        let slot = |names: &[&str], bus| DiskSlot { names: names.iter().map(|name| (*name).to_owned()).collect(), bus };
        let disks = [slot(&["vda", "root", "R00T", "db1-root"], Bus::Virtio), slot(&["sdb"], Bus::Sata)];
        assert_eq!(config.disks, disks);
        let nic = |network: &str, mac: Option<&str>| Nic { network: network.into(), mac: mac.map(str::to_owned) };
        assert_eq!(config.nics, [nic("office", Some("52:54:00:12:34:56")), nic("br7", None)]);
    }

    #[test]
    fn a_kernel_of_the_host_goes_before_the_disks() {
        let text = "<domain><memory>65537</memory><os><kernel> /k </kernel><cmdline>a b</cmdline></os></domain>";
        let config = MachineConfig::of_libvirt_xml(text).expect("it is right");
        assert_eq!(config.boot, BootFrom::Kernel { kernel: "/k".into(), initrd: None, cmdline: "a b".into() });
        assert_eq!((config.memory_bytes, config.cpus), (65 << 20, 1));
    }

    #[test]
    fn what_is_no_configuration_says_why() {
        let why = |text: &str| MachineConfig::of_libvirt_xml(text).expect_err(text);
        assert_eq!(why("<network/>"), "it is a <network>, not a <domain>");
        assert_eq!(
            why("<domain><vcpu>none</vcpu></domain>"),
            "<vcpu> is \"none\", which is no number within 1 and 4096"
        );
        assert!(
            why("<domain><memory unit='GiB'>99999999999</memory></domain>").contains("no memory of 1 MiB to 64 TiB")
        );
        assert!(why("<domain><memory unit='stone'>1</memory></domain>").contains("no unit"));
        assert!(!why("").is_empty() && !why("<domain>").is_empty());
        // Entities that grow are not even read.
        assert!(!why("<!DOCTYPE d [<!ENTITY a \"aa\">]><domain>&a;</domain>").is_empty());
    }
}
