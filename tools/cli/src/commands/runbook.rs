//! `tidemark runbook`: what a runbook would do, without doing it.

use crate::args::UrlText;
use crate::context::{open_bucket_at, open_domain, resolve};
use crate::failure::Outcome;
use crate::ui::Ui;
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;
use tidemark_reader::{PointSpec, ReaderOptions};
use tidemark_rocva::Site;
use tidemark_runbook::{Inventory, Mode, Plan, Runbook, VmFacts};

/// Check runbooks: what starts after a failover, in which order, and how to know that it runs
#[derive(Debug, Subcommand)]
pub(crate) enum RunbookCommand {
    /// Say whether a runbook can work, and what it would do, without starting anything
    Check(CheckArgs),
    /// Print the JSON schema of runbooks
    Schema,
}

/// Say whether a runbook can work, and what it would do, without starting anything
///
/// With URL it is laid over what the domain holds at the point: its VMs, and the networks that their configurations name.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The runbook
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The domain that it is for
    #[arg(value_name = "URL")]
    url: Option<UrlText>,
    /// The point: latest, lsn:N, an RFC 3339 time, -10m, or bookmark:NAME
    #[arg(long, value_name = "POINT", default_value = "latest", allow_hyphen_values = true, requires = "url")]
    at: PointSpec,
    /// What the recovery would be for
    #[arg(long, value_enum, default_value_t = For::Test)]
    mode: For,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum For {
    /// To the recovery site
    Failover,
    /// Isolated, beside what runs
    Test,
    /// Back to the protected site
    Failback,
}

#[derive(Debug, Serialize)]
struct Checked {
    runbook: String,
    mode: String,
    vms: usize,
    skipped: Vec<String>,
    /// If nothing took any time but what is to be waited for.
    least_ms: u64,
    /// If every script and check took as long as it may.
    most_ms: u64,
    steps: Vec<StepReport>,
}

#[derive(Debug, Serialize)]
struct StepReport {
    step: usize,
    vm: Option<String>,
    group: Option<String>,
    what: String,
    after: Vec<usize>,
    on_failure: String,
}

pub(crate) async fn run(command: RunbookCommand, ui: &Ui) -> anyhow::Result<Outcome> {
    match command {
        RunbookCommand::Check(args) => check(args, ui).await,
        RunbookCommand::Schema => {
            ui.data(tidemark_runbook::schema().trim_end())?;
            Ok(Outcome::Done)
        }
    }
}

async fn check(args: CheckArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let runbook = Runbook::load(&args.file)?;
    let inventory = match &args.url {
        None => itself(&runbook),
        Some(url) => {
            let domain = open_domain(&open_bucket_at(url)?, ReaderOptions::default()).await?;
            let point = resolve(&domain, &args.at).await?;
            Site::at(&domain, point).await?.inventory()
        }
    };
    let mode = match args.mode {
        For::Failover => Mode::Failover,
        For::Test => Mode::Test,
        For::Failback => Mode::Failback,
    };
    let plan = runbook.plan(mode, &inventory).with_context(|| format!("{}", args.file.display()))?;
    ui.answer(&report(&runbook, &plan, &inventory), text)?;
    Ok(Outcome::Done)
}

/// A domain that has exactly the runbook's VMs.
fn itself(runbook: &Runbook) -> Inventory {
    let named = runbook.groups.iter().flat_map(|group| &group.vms).chain(runbook.vms.iter().map(|vm| &vm.name));
    let modes = [Mode::Failover, Mode::Test, Mode::Failback];
    let skipped = modes.iter().flat_map(|mode| &runbook.section(*mode).skip);
    let names: std::collections::BTreeSet<&String> = named.chain(skipped).collect();
    Inventory { vms: names.into_iter().map(|name| VmFacts { name: name.clone(), networks: Vec::new() }).collect() }
}

fn report(runbook: &Runbook, plan: &Plan, inventory: &Inventory) -> Checked {
    let (least, most) = plan.span();
    let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let step = |step: &tidemark_runbook::Step| StepReport {
        step: step.id.index(),
        vm: step.vm.clone(),
        group: step.group.clone(),
        what: step.action.to_string(),
        after: step.after.iter().map(|id| id.index()).collect(),
        on_failure: step.on_failure.to_string(),
    };
    Checked {
        runbook: runbook.name.clone(),
        mode: plan.mode.to_string(),
        vms: inventory.vms.len() - plan.skipped.len(),
        skipped: plan.skipped.clone(),
        least_ms: ms(least),
        most_ms: ms(most),
        steps: plan.steps.iter().map(step).collect(),
    }
}

fn text(checked: &Checked) -> String {
    let mut out = String::new();
    let say = "writing to a String cannot fail";
    for step in &checked.steps {
        let whose = step.vm.as_deref().or(step.group.as_deref()).unwrap_or("-");
        let after = step.after.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let after = if after.is_empty() { after } else { format!("  after {after}") };
        writeln!(out, "{:>4}  {whose:<16} {}{after}", step.step, step.what).expect(say);
    }
    for vm in &checked.skipped {
        writeln!(out, "      {vm:<16} does not start").expect(say);
    }
    let seconds = |ms: u64| ms.div_ceil(1000);
    let (steps, least, most) = (checked.steps.len(), seconds(checked.least_ms), seconds(checked.most_ms));
    writeln!(
        out,
        "{}: {steps} steps, {} VMs; {least} to {most} s, and what VMs take to start",
        checked.mode, checked.vms
    )
    .expect(say);
    out
}
