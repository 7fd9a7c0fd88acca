//! What an appliance can be asked to do, and what it answers.

use crate::check::{Check, Complaint, check_length, check_name, check_size};
use crate::settings::ProtectionMode;
use crate::time::Time;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Bytes of a VM's configuration at most.
pub const VM_CONFIG_BYTES_MAX: usize = 1 << 20;
/// Milliseconds that one request may take at most: a day.
pub const TIMEOUT_MS_MAX: u64 = 86_400_000;
/// VMs that one bookmark may freeze at most, and words of a hook's command.
const LIST_MAX: usize = 256;
/// Milliseconds for which a guest may be frozen at most: Windows thaws by itself then.
const FREEZE_MS_MAX: u64 = 10_000;

/// How consistent the guests are at a bookmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BookmarkLevel {
    /// As after pulling the plug.
    Crash,
    /// File systems are frozen by the guest agents that are named.
    Fs,
    /// Applications are quiesced by the hooks that are given.
    App,
}

impl BookmarkLevel {
    /// The word in texts and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Fs => "fs",
            Self::App => "app",
        }
    }
}

/// Names this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BookmarkRequest {
    /// Its name; the newest of a name wins.
    pub name: String,
    /// How consistent it has to be. If that cannot be had, there is no bookmark.
    pub level: BookmarkLevel,
    /// Guest agents to freeze file systems with.
    #[serde(default)]
    pub agents: Vec<GuestAgent>,
    /// A guest is thawed after so long, bookmark or not; at most 10,000.
    #[serde(default = "freeze_ms")]
    #[schema(maximum = 10_000)]
    pub freeze_timeout_ms: u64,
    /// Run before; if it fails there is no bookmark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre: Option<Hook>,
    /// Run after, whatever came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<Hook>,
}

fn freeze_ms() -> u64 {
    5_000
}

/// The QEMU guest agent of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestAgent {
    /// The VM.
    pub vm: String,
    /// The host's end of its channel.
    pub socket: String,
}

/// A command that the appliance runs, as its own user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// It is killed after so long.
    pub timeout_ms: u64,
}

/// A bookmark that is in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BookmarkMade {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub lsn: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Time,
    /// How consistent it is.
    pub level: BookmarkLevel,
    /// For how long guests were frozen.
    pub frozen_ms: Option<u64>,
}

/// Waits until everything acknowledged so far is in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// For so long at most.
    pub timeout_ms: u64,
}

/// How far draining came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drained {
    /// Everything acknowledged before the request is in the bucket.
    pub complete: bool,
    /// The newest LSN when the request came.
    pub target_lsn: u64,
    /// Everything through here is in the bucket.
    pub committed_lsn: u64,
    /// Bytes that still wait.
    pub pending_bytes: u64,
}

/// How to stop protecting something. Its history in the bucket stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct RemoveQuery {
    /// Wait so long for what is not in the bucket yet.
    pub drain_timeout_ms: u64,
    /// Go ahead even if acknowledged writes never reach the bucket.
    pub discard_pending: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// Newest LSN that it had here.
    pub last_lsn: u64,
    /// Everything through here is in the bucket.
    pub committed_lsn: u64,
    /// Acknowledged bytes that never reached the bucket.
    pub discarded_bytes: u64,
}

/// Takes the domain over again from whoever owns it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeoverRequest {
    /// Throw away what is in the log here and not in the bucket, and go on from what the bucket has.
    #[serde(default)]
    pub discard_local: bool,
}

/// Changes a disk's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeRequest {
    /// Its new size, whole blocks of 512 bytes.
    pub size_bytes: u64,
    /// A smaller size loses what is beyond it; this says that it may.
    #[serde(default)]
    pub allow_shrink: bool,
}

/// Changes when a disk's writes are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModeRequest {
    /// The new mode.
    pub mode: ProtectionMode,
}

/// Ships what a disk holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SeedRequest {
    /// Where its contents come from.
    pub source: SeedSource,
}

/// Where a disk's contents come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "from", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SeedSource {
    /// Its primary.
    Primary,
    /// An image that was taken before and brought here; what differs from the primary is shipped besides.
    Image {
        /// A raw file or block device.
        path: String,
    },
    /// A disk of another domain, at a point; what differs from the primary is shipped besides.
    Domain {
        /// The bucket of the other domain.
        url: String,
        /// The VM there.
        vm: String,
        /// The disk there.
        disk: String,
        /// The point, such as `latest` or `lsn:47`.
        point: String,
    },
}

/// Taps a running VM: QEMU mirrors each write of a disk to this appliance from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// QEMU's control socket.
    pub qmp_socket: String,
    /// The block node or device in QEMU. Absent: the only one that can be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Records a VM's configuration from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmConfigRequest {
    /// What `body` is, such as `libvirt-xml`.
    pub format: String,
    /// The configuration, at most 1 MiB.
    pub body: String,
}

/// Where something was recorded; it is in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recorded {
    /// Its position.
    pub lsn: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Time,
}

fn check_timeout(member: &str, timeout_ms: u64, max: u64) -> Result<(), Complaint> {
    if timeout_ms > max {
        return Err(Complaint::new(member, format!("{timeout_ms} ms, at most {max} ms are allowed")));
    }
    Ok(())
}

impl Check for BookmarkRequest {
    fn check(&self) -> Result<(), Complaint> {
        check_length("name", &self.name)?;
        check_timeout("freeze_timeout_ms", self.freeze_timeout_ms, FREEZE_MS_MAX)?;
        if self.level == BookmarkLevel::Fs && self.agents.is_empty() {
            let what = "level fs needs the guest agent of at least one VM";
            return Err(Complaint::new("agents", what).hint("name its socket, or ask for level crash"));
        }
        if self.level == BookmarkLevel::App && self.pre.is_none() {
            let what = "level app needs a command that quiesces the applications";
            return Err(Complaint::new("pre", what).hint("give a pre hook, or ask for level fs or crash"));
        }
        if self.agents.len() > LIST_MAX {
            let what = format!("{} agents, at most {LIST_MAX} are allowed", self.agents.len());
            return Err(Complaint::new("agents", what));
        }
        for (number, agent) in self.agents.iter().enumerate() {
            check_name("vm", &agent.vm).map_err(|e| e.within(format!("agents[{number}]")))?;
        }
        for (member, hook) in [("pre", &self.pre), ("post", &self.post)] {
            if let Some(hook) = hook {
                hook.check().map_err(|e| e.within(member))?;
            }
        }
        Ok(())
    }
}

impl Hook {
    fn check(&self) -> Result<(), Complaint> {
        match self.command.len() {
            0 => return Err(Complaint::new("command", "the list is empty")),
            words if words > LIST_MAX => {
                return Err(Complaint::new("command", format!("{words} words, at most {LIST_MAX} are allowed")));
            }
            _ => {}
        }
        check_timeout("timeout_ms", self.timeout_ms, TIMEOUT_MS_MAX)
    }
}

impl Check for DrainRequest {
    fn check(&self) -> Result<(), Complaint> {
        check_timeout("timeout_ms", self.timeout_ms, TIMEOUT_MS_MAX)
    }
}

impl Check for RemoveQuery {
    fn check(&self) -> Result<(), Complaint> {
        check_timeout("drain_timeout_ms", self.drain_timeout_ms, TIMEOUT_MS_MAX)
    }
}

impl Check for ResizeRequest {
    fn check(&self) -> Result<(), Complaint> {
        check_size("size_bytes", self.size_bytes)
    }
}

impl Check for SeedRequest {
    fn check(&self) -> Result<(), Complaint> {
        match &self.source {
            SeedSource::Image { path } if path.is_empty() => Err(Complaint::new("source.path", "the text is empty")),
            SeedSource::Domain { url, .. } if url.is_empty() => Err(Complaint::new("source.url", "the text is empty")),
            _ => Ok(()),
        }
    }
}

impl Check for AttachRequest {
    fn check(&self) -> Result<(), Complaint> {
        if self.qmp_socket.is_empty() {
            return Err(Complaint::new("qmp_socket", "the text is empty"));
        }
        self.node.as_deref().map_or(Ok(()), |node| check_length("node", node))
    }
}

impl Check for VmConfigRequest {
    fn check(&self) -> Result<(), Complaint> {
        check_length("format", &self.format)?;
        if self.body.len() > VM_CONFIG_BYTES_MAX {
            let what = format!("{} bytes, at most {VM_CONFIG_BYTES_MAX} are allowed", self.body.len());
            return Err(Complaint::new("body", what));
        }
        Ok(())
    }
}

impl Check for TakeoverRequest {
    fn check(&self) -> Result<(), Complaint> {
        Ok(())
    }
}

impl Check for ModeRequest {
    fn check(&self) -> Result<(), Complaint> {
        Ok(())
    }
}
