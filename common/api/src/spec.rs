//! What is to be protected: domains and disks as configuration and requests name them.

use crate::check::{Check, Complaint, check_length, check_name, check_size};
use crate::settings::{OverflowPolicy, ProtectionMode, SettingsPatch};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::{IntoParams, ToSchema};

/// A domain to protect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DomainSpec {
    /// What this appliance calls it; also the name that a new domain gets.
    pub name: String,
    /// Its bucket.
    pub url: String,
    /// Make the domain if the bucket holds none.
    #[serde(default)]
    pub create: bool,
    /// How it is protected where that differs from the appliance's defaults.
    #[serde(default)]
    pub settings: SettingsPatch,
    /// Its disks.
    #[serde(default)]
    pub disks: Vec<DiskSpec>,
}

/// A disk to protect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// The VM that it belongs to.
    pub vm: String,
    /// Its name within the VM.
    pub disk: String,
    /// The raw file or block device with its contents, or the NBD URI of a server that has them. Absent: the VM has its disk
    /// elsewhere and a tap sends what changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Its size, whole blocks of 512 bytes. Absent: that which it has in the domain already, or else that of the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// When writes are acknowledged. Absent: as the domain's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ProtectionMode>,
    /// What becomes of writes when the log is full. Absent: as the domain's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflow: Option<OverflowPolicy>,
    /// Several clients write it at once, as a cluster file system does. Otherwise the one that began to write last may, and
    /// the one before is fenced: after a live migration the old host must not write.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// The name under which NBD clients find it. Absent: `DOMAIN/VM/DISK`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
}

/// Which disk of this appliance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Path)]
pub struct DiskAddress {
    /// The domain.
    pub domain: String,
    /// The VM.
    pub vm: String,
    /// Its name within the VM.
    pub disk: String,
}

impl fmt::Display for DiskAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} of {}", self.vm, self.disk, self.domain)
    }
}

impl Check for DomainSpec {
    fn check(&self) -> Result<(), Complaint> {
        check_name("name", &self.name)?;
        if self.url.is_empty() {
            return Err(
                Complaint::new("url", "the text is empty").hint("a directory, or s3://BUCKET/PREFIX?endpoint=URL")
            );
        }
        for (number, disk) in self.disks.iter().enumerate() {
            let at = format!("disks[{number}]");
            disk.check().map_err(|e| e.within(&at))?;
            let same = |other: &&DiskSpec| (&other.vm, &other.disk) == (&disk.vm, &disk.disk);
            if self.disks[..number].iter().any(|other| same(&other)) {
                let what = format!("{}/{} is there twice", disk.vm, disk.disk);
                return Err(Complaint::new("disk", what).within(&at).hint("a VM and a name make a disk"));
            }
        }
        Ok(())
    }
}

impl Check for DiskSpec {
    fn check(&self) -> Result<(), Complaint> {
        check_name("vm", &self.vm)?;
        check_name("disk", &self.disk)?;
        if let Some(export) = &self.export {
            check_length("export", export)?;
        }
        if self.primary.as_deref() == Some("") {
            let hint = "leave it out for a disk that a tap follows";
            return Err(Complaint::new("primary", "the text is empty").hint(hint));
        }
        if self.primary.is_none() && self.mode == Some(ProtectionMode::WriteBack) {
            let what = "a disk without a primary cannot be write-back: nothing is to be written behind";
            return Err(Complaint::new("mode", what).hint("leave mode out, or name the primary"));
        }
        self.size_bytes.map_or(Ok(()), |size| check_size("size_bytes", size))
    }
}

impl DiskSpec {
    /// The name under which NBD clients find it.
    pub fn export_name(&self, domain: &str) -> String {
        self.export.clone().unwrap_or_else(|| format!("{domain}/{}/{}", self.vm, self.disk))
    }
}
