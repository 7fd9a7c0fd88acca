//! Runbooks as code: what to start after a failover, in which order, and how to know that it runs.
//!
//! [`Runbook::parse`] turns a TOML file (docs/ops/runbook.toml explains every key) into groups, VMs and sections, all relations between
//! them checked; [`Runbook::plan`] turns it and what a domain holds at a point into a [`Plan`]: steps, each after those that it waits for.
//! Both are pure, so that a simulation shows what a recovery will do.
//! Invariants: the steps of a plan are in an order in which they can be done; a group's steps wait for every VM of the groups before it.
//! Not here: doing any of it (`tidemark-rocva`).

mod check;
mod file;
mod order;
mod plan;
#[cfg(test)]
mod tests;
mod words;

pub use plan::{Action, Inventory, Plan, PlanError, Start, Step, StepId, VmFacts};
pub use tidemark_config::ConfigError;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tidemark_config::Source;

/// A file that explains every key.
const EXAMPLE: &str = "docs/ops/runbook.toml";

/// What a recovery is for. Each has a section of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To the recovery site, in earnest.
    Failover,
    /// Beside what runs: isolated, and thrown away.
    Test,
    /// Back to the protected site.
    Failback,
}

/// What happens in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runbook {
    /// Its name.
    pub name: String,
    /// VMs that start together.
    pub groups: Vec<Group>,
    /// What is special about VMs.
    pub vms: Vec<VmRule>,
    failover: Section,
    test: Section,
    failback: Section,
}

/// VMs that start together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its VMs.
    pub vms: Vec<String>,
    /// Indexes of the groups whose VMs are ready before.
    pub after: Vec<usize>,
    /// How long to wait when they are.
    pub delay: Duration,
    /// Whether somebody has to approve before it starts.
    pub approval: Approval,
}

/// Whether a person has a say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approval {
    /// Go on.
    #[default]
    NotNeeded,
    /// Wait until somebody approves.
    Needed,
}

/// What is special about a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmRule {
    /// The VM.
    pub name: String,
    /// Instead of what its configuration says.
    pub resources: Resources,
    /// Instead of what the section says.
    pub on_failure: Option<OnFailure>,
    /// Before it starts, on the recovery site.
    pub pre: Vec<Script>,
    /// How to know that it is ready; all of them, one after the other.
    pub checks: Vec<Check>,
    /// When it is ready, on the recovery site.
    pub post: Vec<Script>,
}

/// Instead of what a VM's configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Processors.
    pub cpus: Option<u32>,
}

/// What to do when a step fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Stop, and take back what was started.
    #[default]
    Abort,
    /// Go on as if it had not failed, and say so at the end.
    Continue,
    /// Wait until somebody approves or aborts.
    Pause,
}

/// A command of the recovery site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Program and arguments.
    pub command: Vec<String>,
    /// It is killed then, and has failed.
    pub timeout: Duration,
}

/// How to know that a VM is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is looked at.
    pub probe: Probe,
    /// It has failed if it did not succeed until then.
    pub timeout: Duration,
    /// Between two looks.
    pub every: Duration,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// QEMU's guest agent answers.
    Agent,
    /// The serial console shows this text.
    Console(String),
    /// Somebody listens at `HOST:PORT`.
    Tcp(String),
    /// A page answers with this status.
    Http {
        /// Its address.
        url: String,
        /// Such as 200.
        status: u16,
    },
    /// A command of the recovery site succeeds.
    Command(Vec<String>),
}

/// What a network of the protected site becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// A card without a cable.
    Unplugged,
    /// The guest sees nobody but its own host's DHCP.
    Isolated,
    /// The guest reaches what its host reaches; nobody reaches the guest.
    Outward,
    /// A bridge of the host.
    Bridge(String),
}

/// What holds for one mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What networks become, by name.
    pub networks: BTreeMap<String, Network>,
    /// What those become that are not named; `None`: they have to be named.
    pub other_networks: Option<Network>,
    /// What to do when a step fails.
    pub on_failure: OnFailure,
    /// VMs that do not start.
    pub skip: Vec<String>,
    /// Whether pauses for approval hold.
    pub approvals: bool,
    /// Before anything starts.
    pub pre: Vec<Script>,
    /// When everything is ready.
    pub post: Vec<Script>,
}

impl Runbook {
    /// Reads a file.
    ///
    /// # Errors
    /// The first thing in it that cannot work.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::checked(&Source::load(path, EXAMPLE)?)
    }

    /// Reads what stands in `file`.
    ///
    /// # Errors
    /// The first thing in it that cannot work.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        Self::checked(&Source::new(file, text, EXAMPLE))
    }

    /// The text of [`Self::everything_at_once`].
    pub const EVERYTHING_AT_ONCE: &str = "[runbook]\nname = \"everything at once\"\n";

    /// The runbook of those who have none: every VM at once.
    pub fn everything_at_once() -> Self {
        Self::parse("", Self::EVERYTHING_AT_ONCE).expect("it is right, as a test shows")
    }

    /// What holds for a mode.
    pub fn section(&self, mode: Mode) -> &Section {
        match mode {
            Mode::Failover => &self.failover,
            Mode::Test => &self.test,
            Mode::Failback => &self.failback,
        }
    }

    /// What is special about a VM.
    pub fn vm(&self, name: &str) -> Option<&VmRule> {
        self.vms.iter().find(|vm| vm.name == name)
    }

    fn checked(source: &Source) -> Result<Self, ConfigError> {
        check::checked(source.read()?).map_err(|complaint| source.complain(&complaint))
    }
}

/// The JSON schema of runbooks, for editors and other tools.
pub fn schema() -> String {
    let schema = schemars::schema_for!(file::File);
    serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n"
}
