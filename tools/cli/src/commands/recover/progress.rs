//! What a person sees of a recovery: a line for each step that begins or ends, and a summary.

use crate::ui::Ui;
use std::fmt::Write;
use tidemark_rocva::{Phase, Recovery, Report, StepState};

/// Says what has changed since the last look.
pub(super) struct Progress {
    ui: Ui,
    phase: Option<Phase>,
    steps: Vec<StepState>,
}

impl Progress {
    pub(super) fn new(ui: Ui) -> Self {
        Self { ui, phase: None, steps: Vec::new() }
    }

    pub(super) fn show(&mut self, recovery: &Recovery) {
        let record = recovery.record();
        let known: Vec<StepState> = record.steps.iter().map(|step| step.state.clone()).collect();
        self.steps.resize(known.len(), StepState::Waiting);
        for (step, (now, before)) in recovery.plan().steps.iter().zip(known.iter().zip(&self.steps)) {
            if now == before {
                continue;
            }
            let times = &record.steps[step.id.index()];
            let since = |ns: Option<u64>| ns.map_or(0, |ns| ns.saturating_sub(record.began_ns) / 1_000_000);
            let how = match now {
                StepState::Waiting => continue,
                StepState::Running => "begins".to_owned(),
                StepState::Asked { failure: None } => "waits for approval".to_owned(),
                StepState::Asked { failure: Some(failure) } => format!("failed, and waits for approval: {failure}"),
                StepState::Done => "done".to_owned(),
                StepState::Failed { failure } => format!("failed: {failure}"),
            };
            let at = since(times.ended_ns.or(times.began_ns));
            let whose = step.vm.as_deref().or(step.group.as_deref()).unwrap_or("-");
            self.ui.say(format_args!("{:>4}.{:03} s  {whose:<12} {}: {how}", at / 1000, at % 1000, step.action));
        }
        if self.phase.is_some_and(|phase| phase != record.phase) {
            let why = record.reverted_for.as_ref().filter(|_| record.phase == Phase::Reverting);
            self.ui.say(format_args!("{}{}", record.phase, why.map_or(String::new(), |why| format!(": {why}"))));
        }
        (self.phase, self.steps) = (Some(record.phase), known);
    }
}

/// A report for people.
pub(super) fn text(report: &Report) -> String {
    let say = "writing to a String cannot fail";
    let seconds = |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| format!("{}.{:03} s", ms / 1000, ms % 1000));
    let mut out =
        format!("{} of {} at lsn {}, {}: {}\n", report.mode, report.domain, report.lsn, report.time, report.phase);
    for vm in &report.vms {
        let how = if vm.ready { "ready" } else { "not ready" };
        writeln!(out, "  {:<16} {how:<10} {}", vm.vm, seconds(vm.rto_ms)).expect(say);
    }
    for step in report.steps.iter().filter(|step| step.failure.is_some()) {
        let whose = step.vm.as_deref().unwrap_or("-");
        writeln!(out, "  {whose:<16} {} {}: {}", step.what, step.state, step.failure.as_deref().unwrap_or_default())
            .expect(say);
    }
    writeln!(out, "  measured RTO     {}", seconds(report.rto_ms)).expect(say);
    out
}
