//! A runbook as it is written. The comments here are the descriptions in its schema.

use schemars::JsonSchema;
use serde::Deserialize;
use tidemark_config::{Size, Span};

/// A Tidemark runbook: what to start after a failover, in which order, and how to know that it runs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Runbook")]
pub(crate) struct File {
    /// The runbook itself.
    pub(crate) runbook: Head,
    /// VMs that start together. VMs in no group start when all groups are ready.
    #[serde(default)]
    pub(crate) group: Vec<Group>,
    /// What is special about a VM.
    #[serde(default)]
    pub(crate) vm: Vec<Vm>,
    /// What holds when the site fails over.
    #[serde(default)]
    pub(crate) failover: Section,
    /// What holds in a test.
    #[serde(default)]
    pub(crate) test: Section,
    /// What holds on the way back.
    #[serde(default)]
    pub(crate) failback: Section,
}

/// The runbook itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    /// Its name, in reports.
    pub(crate) name: String,
}

/// VMs that start together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    /// Its name, for `after`.
    pub(crate) name: String,
    /// Its VMs.
    pub(crate) vms: Vec<String>,
    /// Groups whose VMs are ready before this one starts; absent: the group that is written before it; []: none.
    pub(crate) after: Option<Vec<String>>,
    /// How long to wait when they are ready.
    pub(crate) delay: Option<Span>,
    /// Whether somebody has to approve before it starts.
    #[serde(default)]
    pub(crate) approve: bool,
}

/// What is special about a VM.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vm {
    /// The VM.
    pub(crate) name: String,
    /// Memory, instead of what its configuration says.
    pub(crate) memory: Option<Size>,
    /// Processors, instead of what its configuration says.
    pub(crate) cpus: Option<u32>,
    /// What to do when one of its steps fails, instead of what the section says.
    pub(crate) on_failure: Option<OnFailure>,
    /// Commands before it starts.
    #[serde(default)]
    pub(crate) pre: Vec<Script>,
    /// How to know that it is ready: all of these, one after the other.
    #[serde(default)]
    pub(crate) check: Vec<Check>,
    /// Commands when it is ready.
    #[serde(default)]
    pub(crate) post: Vec<Script>,
}

/// What to do when a step fails.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnFailure {
    /// Stop, and take back what was started.
    Abort,
    /// Go on as if it had not failed, and say so at the end.
    Continue,
    /// Wait until somebody approves or aborts.
    Pause,
}

/// A command of the recovery site. It finds TIDEMARK_VM, TIDEMARK_MODE and TIDEMARK_LSN in its environment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// It is killed then, and has failed. 1m unless it is said.
    pub(crate) timeout: Option<Span>,
}

/// How to know that a VM is ready: exactly one of agent, console, tcp, http and command.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    /// QEMU's guest agent answers.
    #[serde(default)]
    pub(crate) agent: bool,
    /// The serial console shows this text.
    pub(crate) console: Option<String>,
    /// Somebody listens at HOST:PORT.
    pub(crate) tcp: Option<String>,
    /// A page, http://..., answers.
    pub(crate) http: Option<String>,
    /// With this status; 200 unless it is said.
    pub(crate) status: Option<u16>,
    /// A command of the recovery site succeeds.
    pub(crate) command: Option<Vec<String>>,
    /// It has failed if it did not succeed until then. 5m unless it is said.
    pub(crate) timeout: Option<Span>,
    /// Between two looks. 1s unless it is said.
    pub(crate) every: Option<Span>,
}

/// What holds for one mode.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    /// What networks of the protected site become.
    #[serde(default)]
    pub(crate) network: Vec<Network>,
    /// What to do when a step fails; abort unless it is said.
    pub(crate) on_failure: Option<OnFailure>,
    /// VMs that do not start.
    #[serde(default)]
    pub(crate) skip: Vec<String>,
    /// Whether pauses for approval hold. Unless it is said they do, but for tests.
    pub(crate) approvals: Option<bool>,
    /// Commands before anything starts.
    #[serde(default)]
    pub(crate) pre: Vec<Script>,
    /// Commands when everything is ready.
    #[serde(default)]
    pub(crate) post: Vec<Script>,
}

/// What a network of the protected site becomes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Network {
    /// Its name in the VM's configuration; "*": every other.
    pub(crate) from: String,
    /// unplugged, isolated, outward, or bridge:NAME.
    pub(crate) to: String,
}
