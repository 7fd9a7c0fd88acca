//! What a recovery will do: steps, each after those that it waits for.

use crate::order::order;
use crate::{Approval, Check, Group, Mode, Network, OnFailure, Resources, Runbook, Script, VmRule};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a domain holds at a point, as far as a plan needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Its VMs.
    pub vms: Vec<VmFacts>,
}

/// A VM of the domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmFacts {
    /// Its name.
    pub name: String,
    /// The networks that its cards are on.
    pub networks: Vec<String>,
}

/// Number of a step: its place in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(usize);

impl StepId {
    /// Its place in [`Plan::steps`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub id: StepId,
    /// The VM that it is about.
    pub vm: Option<String>,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// What is done.
    pub action: Action,
    /// What has to be done before; smaller numbers all.
    pub after: Vec<StepId>,
    /// What to do when it fails.
    pub on_failure: OnFailure,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Somebody approves.
    Approve,
    /// Time passes.
    Wait(Duration),
    /// A command runs on the recovery site.
    Script(Script),
    /// A VM starts.
    Start(Start),
    /// A VM is ready.
    Check(Check),
}

/// How a VM starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Instead of what its configuration says.
    pub resources: Resources,
    /// What the networks of its cards become, card by card.
    pub networks: Vec<Network>,
}

/// What a recovery will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What for.
    pub mode: Mode,
    /// In an order in which they can be done.
    pub steps: Vec<Step>,
    /// VMs of the domain that do not start.
    pub skipped: Vec<String>,
}

/// Why a runbook does not fit a domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It names VMs that are not there.
    #[error("the runbook names {}, which the domain does not have at that point; it has {}", unknown.join(", "), known.join(", "))]
    UnknownVms {
        /// Those.
        unknown: Vec<String>,
        /// The domain's.
        known: Vec<String>,
    },
    /// It does not say what becomes of a network.
    #[error("the runbook does not say what network {network:?} of VM {vm} becomes in a {mode}")]
    UnmappedNetwork {
        /// The VM.
        vm: String,
        /// The network.
        network: String,
        /// The section that is silent.
        mode: Mode,
    },
}

impl PlanError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownVms { .. } => "remove them from the runbook, or choose another point".to_owned(),
            Self::UnmappedNetwork { mode, network, .. } => {
                format!("add [[{mode}.network]] with from = {network:?} and to = \"bridge:br0\", say")
            }
        }
    }
}

/// Builds a plan; [`Runbook::plan`] is the way in.
struct Planner<'a> {
    runbook: &'a Runbook,
    mode: Mode,
    on_failure: OnFailure,
    steps: Vec<Step>,
}

impl Planner<'_> {
    fn step(&mut self, vm: Option<&VmRule>, group: Option<&str>, action: Action, after: Vec<StepId>) -> Vec<StepId> {
        let id = StepId(self.steps.len());
        let on_failure = vm.and_then(|vm| vm.on_failure).unwrap_or(self.on_failure);
        let vm = vm.map(|vm| vm.name.clone());
        self.steps.push(Step { id, vm, group: group.map(str::to_owned), action, after, on_failure });
        vec![id]
    }

    fn scripts(&mut self, scripts: &[Script], mut after: Vec<StepId>) -> Vec<StepId> {
        for script in scripts {
            after = self.step(None, None, Action::Script(script.clone()), after);
        }
        after
    }

    /// Everything about one VM, one after the other.
    fn vm(&mut self, facts: &VmFacts, group: &str, mut after: Vec<StepId>) -> Result<Vec<StepId>, PlanError> {
        let none = VmRule { name: facts.name.clone(), ..VmRule::default() };
        let rule = self.runbook.vm(&facts.name).cloned().unwrap_or(none);
        let networks = facts.networks.iter().map(|name| self.network(&facts.name, name)).collect::<Result<_, _>>()?;
        let start = Action::Start(Start { resources: rule.resources, networks });
        let actions = (rule.pre.iter().cloned().map(Action::Script))
            .chain([start])
            .chain(rule.checks.iter().cloned().map(Action::Check))
            .chain(rule.post.iter().cloned().map(Action::Script));
        for action in actions {
            after = self.step(Some(&rule), Some(group), action, after);
        }
        Ok(after)
    }

    fn network(&self, vm: &str, name: &str) -> Result<Network, PlanError> {
        let section = self.runbook.section(self.mode);
        let found = section.networks.get(name).or(section.other_networks.as_ref());
        found.cloned().ok_or_else(|| PlanError::UnmappedNetwork {
            vm: vm.to_owned(),
            network: name.to_owned(),
            mode: self.mode,
        })
    }

    /// A group, when `after` is done; its last steps, or `after` if none of its VMs starts.
    fn group(&mut self, group: &Group, vms: &[&VmFacts], mut after: Vec<StepId>) -> Result<Vec<StepId>, PlanError> {
        if vms.is_empty() {
            return Ok(after);
        }
        if group.approval == Approval::Needed && self.runbook.section(self.mode).approvals {
            after = self.step(None, Some(&group.name), Action::Approve, after);
        }
        if !group.delay.is_zero() {
            after = self.step(None, Some(&group.name), Action::Wait(group.delay), after);
        }
        let mut ends = Vec::new();
        for vm in vms {
            ends.extend(self.vm(vm, &group.name, after.clone())?);
        }
        Ok(ends)
    }
}

/// Every step of `ends`, once each; if there is none, `begun`.
fn all_of<'a>(ends: impl Iterator<Item = &'a Vec<StepId>>, begun: &[StepId]) -> Vec<StepId> {
    let all: BTreeSet<StepId> = ends.flatten().copied().collect();
    if all.is_empty() { begun.to_vec() } else { all.into_iter().collect() }
}

impl Runbook {
    /// What a recovery of what `inventory` lists will do.
    ///
    /// # Errors
    /// If the runbook does not fit it.
    pub fn plan(&self, mode: Mode, inventory: &Inventory) -> Result<Plan, PlanError> {
        let known: BTreeMap<&str, &VmFacts> = inventory.vms.iter().map(|vm| (vm.name.as_str(), vm)).collect();
        let section = self.section(mode);
        let named = (self.groups.iter().flat_map(|group| &group.vms))
            .chain(self.vms.iter().map(|vm| &vm.name))
            .chain(&section.skip);
        let unknown: BTreeSet<&String> = named.filter(|name| !known.contains_key(name.as_str())).collect();
        if !unknown.is_empty() {
            return Err(PlanError::UnknownVms {
                unknown: unknown.into_iter().cloned().collect(),
                known: known.into_keys().map(str::to_owned).collect(),
            });
        }
        let skips = |name: &str| section.skip.iter().any(|skipped| skipped == name);
        let starts = |name: &&String| !skips(name);

        let mut planner = Planner { runbook: self, mode, on_failure: section.on_failure, steps: Vec::new() };
        let begun = planner.scripts(&section.pre, Vec::new());
        let waits: Vec<_> = self.groups.iter().map(|group| group.after.clone()).collect();
        let order = order(&waits).expect("a runbook without an order was refused");
        let mut ends: BTreeMap<usize, Vec<StepId>> = BTreeMap::new();
        for at in order {
            let group = &self.groups[at];
            let after = all_of(group.after.iter().map(|before| &ends[before]), &begun);
            let vms: Vec<_> = group.vms.iter().filter(starts).map(|name| known[name.as_str()]).collect();
            let end = planner.group(group, &vms, after)?;
            ends.insert(at, end);
        }
        let all = all_of(ends.values(), &begun);
        let grouped: BTreeSet<&String> = self.groups.iter().flat_map(|group| &group.vms).collect();
        let others: Vec<_> =
            inventory.vms.iter().filter(|vm| !grouped.contains(&vm.name) && !skips(&vm.name)).collect();
        let rest = Group {
            name: "others".to_owned(),
            vms: Vec::new(),
            after: Vec::new(),
            delay: Duration::ZERO,
            approval: Approval::NotNeeded,
        };
        let all = planner.group(&rest, &others, all)?;
        planner.scripts(&section.post, all);
        let skipped = inventory.vms.iter().map(|vm| vm.name.clone()).filter(|name| skips(name)).collect();
        let plan = Plan { mode, steps: planner.steps, skipped };
        plan.check();
        Ok(plan)
    }
}

impl Plan {
    fn check(&self) {
        for step in &self.steps {
            assert!(step.after.iter().all(|before| *before < step.id), "step {} waits for a later one", step.id.0);
        }
    }

    /// A step.
    pub fn step(&self, id: StepId) -> &Step {
        &self.steps[id.0]
    }

    /// How long it takes if nothing takes any time but what is to be waited for, and if everything takes as long as it may.
    pub fn span(&self) -> (Duration, Duration) {
        let longest = |of: &dyn Fn(&Action) -> Duration| {
            let mut ends: Vec<Duration> = Vec::with_capacity(self.steps.len());
            for step in &self.steps {
                let begin = step.after.iter().map(|before| ends[before.0]).max().unwrap_or_default();
                ends.push(begin + of(&step.action));
            }
            ends.into_iter().max().unwrap_or_default()
        };
        let least = longest(&|action| match action {
            Action::Wait(span) => *span,
            _ => Duration::ZERO,
        });
        let most = longest(&|action| match action {
            Action::Wait(span) => *span,
            Action::Script(script) => script.timeout,
            Action::Check(check) => check.timeout,
            Action::Approve | Action::Start(_) => Duration::ZERO,
        });
        (least, most)
    }
}
