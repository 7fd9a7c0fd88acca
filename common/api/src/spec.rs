//! What is to be protected: domains and disks as configuration and requests name them.

use crate::problem::{Problem, ProblemKind};
use crate::settings::{OverflowPolicy, ProtectionMode, SettingsPatch};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Bytes of the name of a domain, VM, disk or export at most.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes in which disks are counted.
const BLOCK_BYTES: u64 = 512;

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
    /// Its size, whole blocks of 512 bytes. Absent: that of the primary, or of what a tap is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// When writes are acknowledged. Absent: as the domain's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ProtectionMode>,
    /// What becomes of writes when the log is full. Absent: as the domain's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflow: Option<OverflowPolicy>,
    /// The name under which NBD clients find it. Absent: `DOMAIN/VM/DISK`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
}

/// Which disk of this appliance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
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

/// What is wrong with a member of a request or a key of a file. The text does not name it: files have other names for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Complaint {
    member: String,
    what: String,
    hint: Option<&'static str>,
}

impl Complaint {
    /// A member, such as `disks[1].size_bytes`, and what is wrong with it.
    pub fn new(member: impl Into<String>, what: impl Into<String>) -> Self {
        Self { member: member.into(), what: what.into(), hint: None }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// About another member.
    #[must_use]
    pub fn at(self, member: impl Into<String>) -> Self {
        Self { member: member.into(), ..self }
    }

    /// About a member of `outer`.
    #[must_use]
    pub fn within(self, outer: impl fmt::Display) -> Self {
        Self { member: format!("{outer}.{}", self.member), ..self }
    }

    /// Which member.
    pub fn member(&self) -> &str {
        &self.member
    }

    /// What to do about it.
    pub fn hint_text(&self) -> Option<&'static str> {
        self.hint
    }
}

impl From<Complaint> for Problem {
    fn from(complaint: Complaint) -> Self {
        let problem = Self::new(ProblemKind::InvalidRequest, format!("{}: {}", complaint.member, complaint.what));
        match complaint.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

impl DomainSpec {
    /// Refuses what cannot work.
    pub fn check(&self) -> Result<(), Complaint> {
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

impl DiskSpec {
    /// Refuses what cannot work.
    pub fn check(&self) -> Result<(), Complaint> {
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

/// A name that people type as `VM/DISK` and that stands in paths.
pub(crate) fn check_name(member: &str, name: &str) -> Result<(), Complaint> {
    check_length(member, name)?;
    if name.contains('/') {
        let what = format!("{name:?} has a slash");
        return Err(Complaint::new(member, what).hint("people name disks VM/DISK"));
    }
    Ok(())
}

/// A text that says something, in bounds and without line breaks.
pub(crate) fn check_length(member: &str, text: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return Err(Complaint::new(member, "the text is empty"));
    }
    if text.len() > NAME_BYTES_MAX {
        let what = format!("{} bytes, at most {NAME_BYTES_MAX} are allowed", text.len());
        return Err(Complaint::new(member, what));
    }
    if text.chars().any(char::is_control) {
        return Err(Complaint::new(member, format!("{text:?} has a control character")));
    }
    Ok(())
}

/// A size that a disk can have.
pub(crate) fn check_size(member: &str, size_bytes: u64) -> Result<(), Complaint> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(BLOCK_BYTES) {
        let what = format!("{size_bytes} bytes is not a multiple of {BLOCK_BYTES} above 0");
        return Err(Complaint::new(member, what).hint("disks are whole blocks of 512 bytes"));
    }
    Ok(())
}
