//! The disks of a running VM, by any name that people have for them.

use crate::error::{Error, Result};
use crate::qmp::Qmp;
use serde_json::{Value, json};

/// A disk of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDisk {
    /// What block commands take: the drive's alias if it has one, else its node.
    pub handle: String,
    /// Name of the topmost block node, which may be a filter.
    pub node: String,
    /// Path of the device in QEMU's object tree, such as `/machine/peripheral/vda/virtio-backend`.
    pub device: Option<String>,
    /// Size that the guest sees.
    pub size_bytes: u64,
    /// Driver of the topmost node, such as `qcow2`.
    pub driver: String,
    /// Where QEMU has it from: a path, or the URI of a server.
    pub file: String,
    /// The guest may not write to it.
    pub read_only: bool,
}

/// The node that a mirror puts above a disk's own while it runs.
const MIRROR: &str = "mirror_top";

impl GuestDisk {
    fn of(entry: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        // A drive without a medium is no disk.
        let inserted = entry.get("inserted")?;
        let (alias, node) = (text(&entry["device"]), text(&inserted["node-name"]));
        Some(Self {
            handle: alias.clone().or_else(|| node.clone())?,
            node: node.or(alias)?,
            device: text(&entry["qdev"]),
            size_bytes: inserted["image"]["virtual-size"].as_u64()?,
            driver: text(&inserted["drv"]).unwrap_or_default(),
            file: text(&inserted["file"]).unwrap_or_default(),
            read_only: inserted["ro"].as_bool().unwrap_or(false),
        })
    }

    /// True if people may call it so: by node, by alias, by the device's id or its whole path.
    fn goes_by(&self, name: &str) -> bool {
        let of_device = |path: &str| {
            let id = path.strip_prefix("/machine/peripheral/").and_then(|rest| rest.split('/').next());
            path == name || id == Some(name)
        };
        self.handle == name || self.node == name || self.device.as_deref().is_some_and(of_device)
    }
}

/// All disks that have a medium.
///
/// # Errors
/// If QEMU does not answer.
pub async fn disks(qmp: &Qmp) -> Result<Vec<GuestDisk>> {
    let answer = qmp.execute("query-block", json!({})).await?;
    let entries =
        answer.as_array().ok_or(Error::Incomplete { command: "query-block".to_owned(), what: "a list of drives" })?;
    Ok(entries.iter().filter_map(GuestDisk::of).collect())
}

/// The disk of that name: id or path of its device, name of its block node (below a running mirror's too), or alias of its
/// drive.
///
/// # Errors
/// If there is none, or several.
pub async fn find_disk(qmp: &Qmp, name: &str) -> Result<GuestDisk> {
    let disks = disks(qmp).await?;
    if disks.iter().any(|disk| disk.driver == MIRROR) && !disks.iter().any(|disk| disk.goes_by(name)) {
        let nodes = qmp.execute("query-named-block-nodes", json!({ "flat": true })).await?;
        if let Some(disk) = mirrored(&disks, &nodes, name) {
            return Ok(disk);
        }
    }
    pick(disks, name)
}

/// The disk that is being mirrored and has a node of this name below: both are of the same file.
fn mirrored(disks: &[GuestDisk], nodes: &Value, name: &str) -> Option<GuestDisk> {
    let node = nodes.as_array()?.iter().find(|node| node["node-name"] == name)?;
    disks.iter().find(|disk| disk.driver == MIRROR && node["file"] == disk.file.as_str()).cloned()
}

fn pick(mut disks: Vec<GuestDisk>, name: &str) -> Result<GuestDisk> {
    let known = || {
        let names: Vec<_> = disks.iter().map(|disk| disk.device.as_deref().unwrap_or(&disk.handle)).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    match disks.iter().filter(|disk| disk.goes_by(name)).count() {
        0 => Err(Error::NoDisk { name: name.to_owned(), known: known() }),
        1 => {
            disks.retain(|disk| disk.goes_by(name));
            Ok(disks.remove(0))
        }
        count => Err(Error::AmbiguousDisk { name: name.to_owned(), count }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn entry(alias: &str, device: &str, node: &str) -> Value {
        json!({
            "device": alias, "qdev": device,
            "inserted": { "node-name": node, "drv": "raw", "file": "vm.img", "ro": false, "image": { "virtual-size": 1 << 26 } },
        })
    }

    #[test]
    fn a_disk_is_found_by_every_name_it_has() {
        let of_blockdev = entry("", "/machine/peripheral/vda/virtio-backend", "node-vda");
        let of_drive = entry("drive0", "/machine/peripheral-anon/device[0]", "#block123");
        let empty = json!({ "device": "cd0", "qdev": "/machine/unattached/device[23]" });
        let disks: Vec<_> = [&of_blockdev, &of_drive, &empty].into_iter().filter_map(GuestDisk::of).collect();
        assert_eq!(disks.len(), 2);
        for name in ["vda", "node-vda", "/machine/peripheral/vda/virtio-backend"] {
            assert_eq!(pick(disks.clone(), name).unwrap().handle, "node-vda", "{name}");
        }
        for name in ["drive0", "#block123", "/machine/peripheral-anon/device[0]"] {
            assert_eq!(pick(disks.clone(), name).unwrap().handle, "drive0", "{name}");
        }
        for name in ["", "peripheral", "virtio-backend", "device[0]", "cd0", "vd"] {
            let error = pick(disks.clone(), name).unwrap_err();
            assert!(error.to_string().contains("it has /machine/peripheral/vda/virtio-backend, "), "{error}");
        }
        let nodes = json!([{ "node-name": "node-vda", "file": "vm.img" }, { "node-name": "tm", "file": "nbd://h:1" }]);
        let above = GuestDisk {
            node: "tmf".to_owned(),
            handle: "tmf".to_owned(),
            driver: MIRROR.to_owned(),
            ..disks[0].clone()
        };
        assert_eq!(mirrored(&[disks[1].clone(), above.clone()], &nodes, "node-vda"), Some(above.clone()));
        for name in ["tm", "vda"] {
            assert_eq!(mirrored(&[disks[1].clone(), above.clone()], &nodes, name), None, "{name}");
        }
        let twice = vec![disks[0].clone(), disks[0].clone()];
        assert_eq!(pick(twice, "vda").unwrap_err().to_string(), "2 disks of the VM go by the name \"vda\"");
    }
}
