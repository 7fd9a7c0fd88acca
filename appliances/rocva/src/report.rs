//! What a recovery did and how long it took: for programs, and as a page to print.

use crate::core::{Record, StepState};
use crate::job::JobSpec;
use serde::Serialize;
use std::fmt::Write;
use tidemark_format::TimeNs;
use tidemark_reader::TimeText;
use tidemark_runbook::{Action, Plan, Step};

/// What a recovery did. Members are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The domain's name.
    pub domain: String,
    /// Where it is.
    pub url: String,
    /// What for.
    pub mode: String,
    /// The runbook's name.
    pub runbook: String,
    /// The point.
    pub lsn: u64,
    /// When that was.
    pub time: String,
    /// Where it stands.
    pub phase: String,
    /// Why it was reverted, if it was.
    pub reverted_for: Option<String>,
    /// When it began.
    pub began: String,
    /// From then until every VM was ready; `None` if that was never so.
    pub rto_ms: Option<u64>,
    /// Steps that failed, and were gone on after.
    pub failures: u64,
    /// Its VMs, in the order in which they were to start.
    pub vms: Vec<VmReport>,
    /// VMs that were not to start.
    pub skipped: Vec<String>,
    /// Its steps.
    pub steps: Vec<StepReport>,
}

/// What became of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VmReport {
    /// Its name.
    pub vm: String,
    /// Where its configuration was recorded; `None`: it was made up.
    pub recorded_lsn: Option<u64>,
    /// Bytes of its disks.
    pub disk_bytes: u64,
    /// From the beginning of the recovery until it was ready; `None` if it never was.
    pub rto_ms: Option<u64>,
    /// Whether each of its steps went well.
    pub ready: bool,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// Its number.
    pub step: usize,
    /// Its VM, if it is about one.
    pub vm: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// What was done.
    pub what: String,
    /// `waiting`, `running`, `asked`, `done` or `failed`.
    pub state: &'static str,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// From the beginning of the recovery until it began.
    pub after_ms: Option<u64>,
    /// How long it took.
    pub took_ms: Option<u64>,
}

impl Report {
    /// What is known so far.
    pub fn new(spec: &JobSpec, runbook: &str, plan: &Plan, record: &Record) -> Self {
        let since = |ns: u64| ns.saturating_sub(record.began_ns) / 1_000_000;
        let steps: Vec<StepReport> = plan.steps.iter().map(|step| step_report(step, record)).collect();
        let vm = |step: &Step| {
            let name = step.vm.clone().filter(|_| matches!(step.action, Action::Start(_)))?;
            let spec = spec.vms.iter().find(|vm| vm.name == name)?;
            let own = |other: &&Step| other.vm.as_ref() == Some(&name);
            let ends =
                plan.steps.iter().filter(own).filter(|step| matches!(step.action, Action::Start(_) | Action::Check(_)));
            let ends: Option<Vec<u64>> = ends.map(|step| record.steps[step.id.index()].ended_ns).collect();
            let ready =
                plan.steps.iter().filter(own).all(|step| record.steps[step.id.index()].state == StepState::Done);
            Some(VmReport {
                recorded_lsn: spec.recorded,
                disk_bytes: spec.disks.iter().map(|disk| disk.size_bytes).sum(),
                rto_ms: ends.and_then(|ends| ends.into_iter().max()).filter(|_| ready).map(since),
                ready,
                vm: name,
            })
        };
        let time = |ns: u64| TimeText(TimeNs::new(ns)).to_string();
        Self {
            domain: spec.domain.clone(),
            url: spec.url.clone(),
            mode: plan.mode.to_string(),
            runbook: runbook.to_owned(),
            lsn: spec.lsn,
            time: time(spec.time_ns),
            phase: record.phase.to_string(),
            reverted_for: record.reverted_for.clone(),
            began: time(record.began_ns),
            rto_ms: record.up_ns.map(since),
            failures: steps.iter().filter(|step| step.failure.is_some()).count() as u64,
            vms: plan.steps.iter().filter_map(vm).collect(),
            skipped: plan.skipped.clone(),
            steps,
        }
    }

    /// A page that needs nothing else, to look at and to print.
    pub fn html(&self) -> String {
        let mut page = String::new();
        let seconds = |ms: Option<u64>| ms.map_or("–".to_owned(), |ms| format!("{}.{:03} s", ms / 1000, ms % 1000));
        let mut say = |text: String| page.write_str(&text).expect("writing to a String cannot fail");
        let title = escape(&format!("{} of {}", self.mode, self.domain));
        say(format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n<style>{STYLE}</style>\n"
        ));
        say(format!("<h1>{title}</h1>\n<table>\n"));
        let mut row = |name: &str, value: &str| say(format!("<tr><th>{name}<td>{}\n", escape(value)));
        row("Bucket", &self.url);
        row("Point", &format!("lsn {} at {}", self.lsn, self.time));
        row("Runbook", &self.runbook);
        row("Began", &self.began);
        row("Measured RTO", &seconds(self.rto_ms));
        row("State", &self.phase);
        self.reverted_for.iter().for_each(|why| row("Reverted for", why));
        say("</table>\n<h2>VMs</h2>\n<table>\n<tr><th>VM<th>ready<th>RTO<th>disks\n".to_owned());
        for vm in &self.vms {
            let (name, ready) = (escape(&vm.vm), if vm.ready { "yes" } else { "no" });
            say(format!("<tr><td>{name}<td>{ready}<td>{}<td>{} MiB\n", seconds(vm.rto_ms), vm.disk_bytes >> 20));
        }
        for vm in &self.skipped {
            say(format!("<tr><td>{}<td>skipped<td>–<td>–\n", escape(vm)));
        }
        say("</table>\n<h2>Steps</h2>\n<table>\n<tr><th>#<th>VM<th>step<th>state<th>after<th>took\n".to_owned());
        for step in &self.steps {
            let whose = step.vm.as_ref().or(step.group.as_ref()).map_or("–".to_owned(), |name| escape(name));
            let failure = step.failure.as_ref().map_or(String::new(), |why| format!(": {}", escape(why)));
            let (what, state) = (escape(&step.what), step.state);
            let (after, took) = (seconds(step.after_ms), seconds(step.took_ms));
            say(format!(
                "<tr class={state}><td>{}<td>{whose}<td>{what}<td>{state}{failure}<td>{after}<td>{took}\n",
                step.step
            ));
        }
        say("</table>\n".to_owned());
        page
    }
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25em .6em;border-bottom:1px solid #ccc}\
.failed td{color:#a00}@media print{body{margin:0;max-width:none}}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn step_report(step: &Step, record: &Record) -> StepReport {
    let known = &record.steps[step.id.index()];
    let (state, failure) = match &known.state {
        StepState::Waiting => ("waiting", None),
        StepState::Running => ("running", None),
        StepState::Asked { failure } => ("asked", failure.clone()),
        StepState::Done => ("done", None),
        StepState::Failed { failure } => ("failed", Some(failure.clone())),
    };
    let ms = |from: u64, to: u64| to.saturating_sub(from) / 1_000_000;
    StepReport {
        step: step.id.index(),
        vm: step.vm.clone(),
        group: step.group.clone(),
        what: step.action.to_string(),
        state,
        failure,
        after_ms: known.began_ns.map(|began| ms(record.began_ns, began)),
        took_ms: known.began_ns.zip(known.ended_ns).map(|(began, ended)| ms(began, ended)),
    }
}
