//! One recovery: its phase, and how far each step of its plan is.
//!
//! Invariants, checked after every event: a step runs only after those that it waits for; no step runs outside of
//! [`Phase::Starting`]; it is up only when every step has ended.
//! What was under way when the process died is done again: effects are such that doing them twice is doing them once.

use crate::core::phase::{Cause, IllegalMove, Phase};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tidemark_format::TimeNs;
use tidemark_runbook::{Action, OnFailure, Plan, StepId};

/// How far a step is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum StepState {
    /// Others come before it.
    #[default]
    Waiting,
    /// It is being done.
    Running,
    /// Somebody has to approve: because the runbook says so, or because it failed.
    Asked {
        /// Why it failed, if it did.
        failure: Option<String>,
    },
    /// It is done, or was approved.
    Done,
    /// It failed, and the runbook says to go on.
    Failed {
        /// Why.
        failure: String,
    },
}

impl StepState {
    /// Whether those behind it may go on.
    fn has_ended(&self) -> bool {
        matches!(self, Self::Done | Self::Failed { .. })
    }
}

/// What is remembered of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// How far it is.
    pub state: StepState,
    /// When it began, in nanoseconds since 1970.
    pub began_ns: Option<u64>,
    /// When it ended, in nanoseconds since 1970.
    pub ended_ns: Option<u64>,
}

/// What is remembered of a recovery beside its plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where it stands.
    pub phase: Phase,
    /// When it began, in nanoseconds since 1970.
    pub began_ns: u64,
    /// When every step had ended, in nanoseconds since 1970.
    pub up_ns: Option<u64>,
    /// Why it is being reverted, if it is: what failed, or that somebody wanted it so.
    pub reverted_for: Option<String>,
    /// One for each step of the plan.
    pub steps: Vec<StepRecord>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Every disk is served.
    Prepared,
    /// The disks cannot be made.
    NotPrepared(String),
    /// A step is done.
    Done(StepId),
    /// A step failed.
    Failed(StepId, String),
    /// Somebody approves whatever is waiting for it.
    Approve,
    /// The last disk is local.
    Hydrated,
    /// Somebody wants it gone.
    Revert(String),
    /// Nothing of it is left.
    Gone,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make and serve the disks that are not.
    Prepare,
    /// Do a step.
    Do(StepId),
    /// Keep VMs and disks running, and say when the last disk is local.
    Keep,
    /// Stop everything, and remove the disks.
    Revert,
}

/// A recovery under way.
#[derive(Debug)]
pub struct Recovery {
    plan: Plan,
    record: Record,
    effects: VecDeque<Effect>,
}

impl Recovery {
    /// A recovery that begins.
    pub fn begin(plan: Plan, now: TimeNs) -> Self {
        let steps = vec![StepRecord::default(); plan.steps.len()];
        let (phase, began_ns) = (Phase::Preparing, now.get());
        let record = Record { phase, began_ns, up_ns: None, reverted_for: None, steps };
        Self { plan, record, effects: [Effect::Prepare].into() }
    }

    /// A recovery that goes on where another process left it. `None` if the record is of another plan.
    pub fn resume(plan: Plan, mut record: Record) -> Option<Self> {
        if record.steps.len() != plan.steps.len() {
            return None;
        }
        for step in record.steps.iter_mut().filter(|step| step.state == StepState::Running) {
            *step = StepRecord::default();
        }
        let first = match record.phase {
            // Whether the disks have outlived the process is seen by preparing them again; that leads on from here.
            Phase::Preparing | Phase::Starting => {
                record.phase = Phase::Preparing;
                Some(Effect::Prepare)
            }
            Phase::Up => Some(Effect::Keep),
            Phase::Reverting => Some(Effect::Revert),
            Phase::Settled | Phase::Reverted => None,
        };
        Some(Self { plan, record, effects: first.into_iter().collect() })
    }

    /// Its plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What has to be remembered. It holds whatever was handled.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Takes what happened.
    ///
    /// # Errors
    /// If it cannot happen now; nothing has changed then.
    pub fn handle(&mut self, now: TimeNs, event: Event) -> Result<(), IllegalMove> {
        match event {
            Event::Prepared => {
                self.enter(Cause::Prepared)?;
                self.go_on(now);
            }
            Event::NotPrepared(why) | Event::Revert(why) => self.revert(why)?,
            Event::Done(step) => self.end(step, now, StepState::Done),
            Event::Failed(step, failure) => {
                let (vm, action) = (self.plan.step(step).vm.as_deref(), &self.plan.step(step).action);
                let whole = format!("{}{action}: {failure}", vm.map_or(String::new(), |vm| format!("{vm}: ")));
                match self.plan.step(step).on_failure {
                    OnFailure::Abort if self.is_running(step) => self.revert(whole)?,
                    OnFailure::Abort => {}
                    OnFailure::Continue => self.end(step, now, StepState::Failed { failure }),
                    OnFailure::Pause if self.is_running(step) => {
                        self.record.steps[step.index()].state = StepState::Asked { failure: Some(failure) };
                    }
                    OnFailure::Pause => {}
                }
            }
            Event::Approve => {
                for step in self.record.steps.iter_mut() {
                    if matches!(step.state, StepState::Asked { .. }) {
                        step.state = StepState::Done;
                        step.ended_ns = Some(now.get());
                    }
                }
                self.go_on(now);
            }
            Event::Hydrated => self.enter(Cause::Hydrated)?,
            Event::Gone => self.enter(Cause::Gone)?,
        }
        self.check();
        Ok(())
    }

    fn is_running(&self, step: StepId) -> bool {
        self.record.phase == Phase::Starting && self.record.steps[step.index()].state == StepState::Running
    }

    /// A step that is no longer wanted ends without a trace.
    fn end(&mut self, step: StepId, now: TimeNs, state: StepState) {
        if self.is_running(step) {
            self.record.steps[step.index()].state = state;
            self.record.steps[step.index()].ended_ns = Some(now.get());
            self.go_on(now);
        }
    }

    fn enter(&mut self, cause: Cause) -> Result<(), IllegalMove> {
        self.record.phase = self.record.phase.after(cause)?;
        Ok(())
    }

    fn revert(&mut self, why: String) -> Result<(), IllegalMove> {
        self.enter(Cause::Revert)?;
        self.record.reverted_for = Some(why);
        self.effects = [Effect::Revert].into();
        Ok(())
    }

    /// Begins every step that can begin; goes up when there is none left.
    fn go_on(&mut self, now: TimeNs) {
        if self.record.phase != Phase::Starting {
            return;
        }
        for step in &self.plan.steps {
            let ready = step.after.iter().all(|before| self.record.steps[before.index()].state.has_ended());
            let record = &mut self.record.steps[step.id.index()];
            if !ready || record.state != StepState::Waiting {
                continue;
            }
            record.began_ns = Some(now.get());
            if step.action == Action::Approve {
                record.state = StepState::Asked { failure: None };
            } else {
                record.state = StepState::Running;
                self.effects.push_back(Effect::Do(step.id));
            }
        }
        if self.record.steps.iter().all(|step| step.state.has_ended()) {
            self.enter(Cause::Started).expect("it is starting");
            self.record.up_ns = Some(now.get());
            self.effects.push_back(Effect::Keep);
        }
    }

    fn check(&self) {
        let steps = &self.record.steps;
        for step in &self.plan.steps {
            let begun = steps[step.id.index()].state != StepState::Waiting;
            let ready = step.after.iter().all(|before| steps[before.index()].state.has_ended());
            assert!(!begun || ready, "step {} began too early", step.id.index());
        }
        let up = matches!(self.record.phase, Phase::Up | Phase::Settled);
        assert!(!up || steps.iter().all(|step| step.state.has_ended()), "it is up before its last step");
        assert!(
            up || self.record.phase == Phase::Reverting
                || self.record.phase == Phase::Reverted
                || self.record.up_ns.is_none(),
            "it was up, and is not any more"
        );
    }
}
