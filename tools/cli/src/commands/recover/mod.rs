//! `tidemark recover`: a domain's VMs, running from its bucket. No appliance is needed: VMs and their disks are processes of their own,
//! and the recovery's directory is all that another process needs to go on with it.

mod failback;
mod handover;
mod progress;
mod restore;
mod start;
mod statistics;

use crate::context::interrupted;
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use progress::Progress;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_env::Env;
use tidemark_rocva::{
    Accelerator, Job, JobSpec, Phase, Qemu, QemuOptions, Record, Recovery, Report, Runner, Rvms, Until, WISHES_MAX,
    Wish, look,
};
use tidemark_runbook::Mode;
use tokio::sync::mpsc;

/// Run a domain's VMs from its bucket
#[derive(Debug, Subcommand)]
pub(crate) enum RecoverCommand {
    /// Start a domain's VMs as they were at a point, isolated, and throw them away when they have shown that they start
    Test(start::TestArgs),
    /// Hand a domain over to this site without loss, and start its VMs here
    Planned(start::PlannedArgs),
    /// Start a domain's VMs in earnest although its site may still be there: whoever protects it is fenced first
    Forced(start::ForcedArgs),
    /// Make an image or a block device that is there already equal to a disk at a point
    Restore(restore::RestoreArgs),
    /// Bring disks of the old site up to date with the recovery site, and hand the domain back to them without loss
    Failback(failback::FailbackArgs),
    /// Go on with a recovery whose process was killed
    Resume(ResumeArgs),
    /// Say how far a recovery is
    Status(DirArgs),
    /// Stop a recovery's VMs and remove their disks; the bucket stays as it is
    Discard(DiscardArgs),
    /// Serve the disks of one VM
    #[command(hide = true)]
    Rvm(RvmArgs),
}

impl RecoverCommand {
    pub(super) fn is_service(&self) -> bool {
        matches!(self, Self::Rvm(_))
    }
}

/// How VMs are run.
#[derive(Clone, Debug, Args)]
struct HypervisorArgs {
    /// The QEMU that runs the VMs
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64", env = "TIDEMARK_QEMU")]
    qemu: PathBuf,
    /// What VMs with UEFI start from
    #[arg(long, value_name = "FILE", default_value = "/usr/share/ovmf/OVMF.fd")]
    uefi: PathBuf,
    /// What executes the VMs' instructions
    #[arg(long, value_enum, default_value_t = Accel::Best, env = "TIDEMARK_ACCEL")]
    accel: Accel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Accel {
    /// The processor if that works here, else a translator, which is ten times slower
    Best,
    /// The processor
    Kvm,
    /// The translator
    Tcg,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    at: DirArgs,
    #[command(flatten)]
    hypervisor: HypervisorArgs,
    /// Go on with what waits for approval
    #[arg(long)]
    approve: bool,
    /// Stay until every disk is local and every VM runs from its own
    #[arg(long)]
    settle: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiscardArgs {
    #[command(flatten)]
    at: DirArgs,
    #[command(flatten)]
    hypervisor: HypervisorArgs,
    /// Only say what would be stopped and removed
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DirArgs {
    /// The recovery's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RvmArgs {
    /// The VM's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) async fn run(command: RecoverCommand, ui: &Ui) -> anyhow::Result<Outcome> {
    match command {
        RecoverCommand::Test(args) => start::test(args, ui).await,
        RecoverCommand::Planned(args) => start::planned(args, ui).await,
        RecoverCommand::Forced(args) => start::forced(args, ui).await,
        RecoverCommand::Restore(args) => restore::run(args, ui).await,
        RecoverCommand::Failback(args) => failback::run(args, ui).await,
        RecoverCommand::Resume(args) => resume(args, ui).await,
        RecoverCommand::Status(args) => {
            let (spec, record) = look(&args.dir)?;
            ui.answer(&report_of(&spec, &record)?, progress::text)?;
            Ok(Outcome::Done)
        }
        RecoverCommand::Discard(args) => discard(args, ui).await,
        RecoverCommand::Rvm(args) => {
            tidemark_rocva::serve_rvm(&args.dir, Env::system(), interrupted()).await?;
            Ok(Outcome::Done)
        }
    }
}

fn report_of(spec: &JobSpec, record: &Record) -> anyhow::Result<Report> {
    Ok(Report::new(spec, &spec.runbook()?.name, &spec.plan()?, record))
}

fn runner(parts: (Job, Recovery), hypervisor: &HypervisorArgs) -> anyhow::Result<Runner> {
    let env = Env::system();
    let accelerator = match hypervisor.accel {
        Accel::Best => Accelerator::Best,
        Accel::Kvm => Accelerator::Kvm,
        Accel::Tcg => Accelerator::Tcg,
    };
    let options = QemuOptions { program: hypervisor.qemu.clone(), uefi: hypervisor.uefi.clone(), accelerator };
    let ourselves = std::env::current_exe().context("find this program")?;
    let rvms = Rvms::new(ourselves, ["recover", "rvm"]);
    Ok(Runner::new(parts, Arc::new(Qemu::new(options, env.clone())), Arc::new(rvms), env))
}

/// What an interrupt means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interrupt {
    /// It is a test: nothing of it may stay.
    Discards,
    /// The recovery stays as it is.
    Leaves,
}

/// Works on a recovery until `until`; where it stands then, and whether it was interrupted.
async fn work(
    runner: &mut Runner,
    until: Until,
    interrupt: Interrupt,
    first: Option<Wish>,
    ui: &Ui,
) -> anyhow::Result<(Phase, bool)> {
    let (wish, mut wishes) = mpsc::channel(WISHES_MAX);
    let mut progress = Progress::new(*ui);
    let mut told = |recovery: &Recovery| progress.show(recovery);
    if let Some(first) = first {
        wish.send(first).await.context("the recovery listens")?;
    }
    let mut stop = std::pin::pin!(interrupted());
    let mut was_interrupted = false;
    let mut working = std::pin::pin!(runner.run(until, &mut wishes, &mut told));
    loop {
        tokio::select! {
            phase = &mut working => return Ok((phase?, was_interrupted)),
            () = &mut stop, if !was_interrupted => {
                was_interrupted = true;
                ui.say("interrupted");
                let wanted = match interrupt {
                    Interrupt::Discards => Wish::Revert("it was interrupted".to_owned()),
                    Interrupt::Leaves => Wish::Leave,
                };
                wish.send(wanted).await.context("the recovery listens")?;
            }
        }
    }
}

/// The report of a recovery that is left as it is now: written beside it, and into the domain's statistics unless it is a test, which leaves
/// no trace.
async fn finish(runner: &Runner, ui: &Ui) -> anyhow::Result<Report> {
    let record = runner.recovery().record();
    let report = report_of(runner.job().spec(), record)?;
    write_report(runner.job().dir(), &report)?;
    if runner.job().spec().mode() != Mode::Test {
        statistics::put(&report, record, ui).await;
    }
    Ok(report)
}

/// Writes the report beside the recovery.
fn write_report(dir: &Path, report: &Report) -> anyhow::Result<()> {
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    write("report.json", serde_json::to_string_pretty(report)? + "\n")?;
    write("report.html", report.html())
}

/// Answers with the report; the exit code says how it went.
fn answer(report: &Report, dir: &Path, ui: &Ui) -> anyhow::Result<Outcome> {
    ui.answer(report, progress::text)?;
    if let Some(why) = report.reverted_for.as_ref().filter(|_| report.rto_ms.is_none()) {
        return Err(Refused::new(format!("the recovery was reverted: {why}"))
            .hint(format!("{} has the logs", dir.display()))
            .into());
    }
    if report.failures > 0 {
        let what = format!("{} steps failed", report.failures);
        return Err(Refused::partial(what).hint(format!("{} has the logs", dir.display())).into());
    }
    Ok(Outcome::Done)
}

async fn resume(args: ResumeArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let mut runner = runner(Job::resume(&args.at.dir)?, &args.hypervisor)?;
    let until = if args.settle { Until::Settled } else { Until::Up };
    let first = args.approve.then_some(Wish::Approve);
    let (phase, interrupted) = work(&mut runner, until, Interrupt::Leaves, first, ui).await?;
    let report = finish(&runner, ui).await?;
    if interrupted && phase != Phase::Up && !phase.is_at_rest() {
        return Ok(Outcome::Interrupted);
    }
    answer(&report, runner.job().dir(), ui)
}

async fn discard(args: DiscardArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    if args.dry_run {
        let (spec, record) = look(&args.at.dir)?;
        ui.answer(&report_of(&spec, &record)?, |report| {
            let vms: Vec<&str> = report.vms.iter().map(|vm| vm.vm.as_str()).collect();
            format!("would stop {} and remove their disks: the recovery is {}", vms.join(", "), report.phase)
        })?;
        return Ok(Outcome::Done);
    }
    let mut runner = runner(Job::resume(&args.at.dir)?, &args.hypervisor)?;
    if runner.recovery().record().phase != Phase::Reverted {
        let mode = runner.job().spec().mode();
        let first = Wish::Revert(if mode == Mode::Test { "it was discarded" } else { "it was aborted" }.to_owned());
        work(&mut runner, Until::Settled, Interrupt::Leaves, Some(first), ui).await?;
    }
    let report = finish(&runner, ui).await?;
    ui.answer(&report, |report| {
        format!("{}: {}", report.phase, report.vms.iter().map(|vm| vm.vm.as_str()).collect::<Vec<_>>().join(", "))
    })?;
    Ok(Outcome::Done)
}
