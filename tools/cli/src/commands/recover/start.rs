//! From a bucket to VMs that run: `tidemark recover test`, `planned` and `forced`.

use super::handover::SourceArgs;
use super::{HypervisorArgs, Interrupt, answer, finish, runner, statistics, work};
use crate::args::{AttestArgs, BucketArgs};
use crate::context::{open_bucket, open_domain, resolve};
use crate::cost::{Known, PriceArgs, reading_data, say_before};
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tidemark_bucket::Bucket;
use tidemark_env::Env;
use tidemark_format::Level;
use tidemark_prices::Sheet;
use tidemark_reader::{Domain, PointSpec, ReaderOptions};
use tidemark_rocva::{Job, JobSpec, Phase, Site, Until, Wanted, Wish};
use tidemark_runbook::{Mode, Runbook};
use tidemark_writer::{DomainWriter, WriterOptions};

/// What is recovered, and how.
#[derive(Debug, Args)]
pub(crate) struct WhatArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    prices: PriceArgs,
    /// The point: latest, lsn:N, an RFC 3339 time, -10m, or bookmark:NAME
    #[arg(long, value_name = "POINT", default_value = "latest", allow_hyphen_values = true)]
    at: PointSpec,
    /// What to start in which order, and how to know that it runs [default: every VM at once]
    #[arg(long, value_name = "FILE")]
    runbook: Option<PathBuf>,
    #[command(flatten)]
    hypervisor: HypervisorArgs,
}

/// Start a domain's VMs as they were at a point, isolated, and throw them away when they have shown that they start
///
/// The VMs start in the runbook's order, as QEMU processes, on writable disks whose contents come from the bucket as they are read.
/// Nobody but this machine sees their networks unless the runbook says so, and neither the bucket nor what protects the domain
/// notices. When every check has succeeded the report is written, and the VMs are gone unless --keep is given.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    what: WhatArgs,
    /// A new directory for disks, logs and the report [default: one in the system's place for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave the VMs running; `tidemark recover discard` ends them
    #[arg(long)]
    keep: bool,
    /// Leave its times in the domain's statistics; otherwise the bucket stays as it is
    #[arg(long)]
    record: bool,
}

/// Start a domain's VMs in earnest although its site may still be there: whoever protects it is fenced first
///
/// A new epoch is claimed in the bucket: from that moment on nothing of the old site's writer counts. Then the VMs start as in a test, by the
/// runbook's section for failovers, and their disks become local behind them.
#[derive(Debug, Args)]
pub(crate) struct ForcedArgs {
    #[command(flatten)]
    what: WhatArgs,
    /// A new directory for disks, logs and the report
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Stay until every disk is local and every VM runs from its own
    #[arg(long)]
    settle: bool,
    /// Only say what would be fenced and started
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    attest: AttestArgs,
}

/// Hand a domain over to this site without loss: its VMs are off, everything is in the bucket, the old site is fenced, and they start here
///
/// The appliance that protects the domain has to be within reach. Nothing changes before all it acknowledged is in the bucket and no VM has a disk
/// open any more; then a new epoch is claimed, and the bucket has to show that nothing is missing before anything starts.
#[derive(Debug, Args)]
pub(crate) struct PlannedArgs {
    #[command(flatten)]
    forced: ForcedArgs,
    #[command(flatten)]
    source: SourceArgs,
}

/// What is known before anything is done.
struct Prepared {
    bucket: Bucket,
    sheet: Sheet,
    domain: Domain,
    wanted: Wanted,
    at: PointSpec,
}

impl Prepared {
    async fn new(what: &WhatArgs, mode: Mode) -> anyhow::Result<Self> {
        let runbook = match &what.runbook {
            None => None,
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
                Runbook::parse(&file.display().to_string(), &text)?;
                Some((file.display().to_string(), text))
            }
        };
        let bucket = open_bucket(&what.bucket)?;
        let domain = open_domain(&bucket, ReaderOptions::default()).await?;
        let url = what.bucket.url.anywhere()?;
        let wanted =
            Wanted { url, domain: domain.timeline().name().to_owned(), mode, runbook, hydrate: mode != Mode::Test };
        let sheet = what.prices.sheet(&what.bucket.url)?;
        Ok(Self { bucket, sheet, domain, wanted, at: what.at.clone() })
    }

    /// What would be recovered, if it were now; its plan fits.
    async fn spec(&self) -> anyhow::Result<JobSpec> {
        let site = Site::at(&self.domain, resolve(&self.domain, &self.at).await?).await?;
        let spec = JobSpec::new(self.wanted.clone(), &site);
        spec.plan()?;
        Ok(spec)
    }
}

pub(super) async fn test(args: TestArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let prepared = Prepared::new(&args.what, Mode::Test).await?;
    let spec = prepared.spec().await?;
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => tempfile::Builder::new().prefix("tidemark-test-").tempdir().context("make a directory")?.keep(),
    };
    let job = begin(&dir, spec, &prepared.sheet, ui)?;
    let mut runner = runner(job, &args.what.hypervisor)?;
    let (phase, interrupted) = work(&mut runner, Until::Up, Interrupt::Discards, None, ui).await?;
    if phase == Phase::Up && !args.keep {
        let wish = Wish::Revert("the test is over".to_owned());
        work(&mut runner, Until::Settled, Interrupt::Discards, Some(wish), ui).await?;
    }
    let report = finish(&runner, ui).await?;
    if args.record {
        statistics::put(&report, runner.recovery().record(), ui).await;
    }
    if interrupted {
        return Ok(Outcome::Interrupted);
    }
    if phase == Phase::Up && args.keep {
        ui.say(format_args!("they run on; `tidemark recover discard {}` ends them", dir.display()));
    }
    answer(&report, runner.job().dir(), ui)
}

fn begin(dir: &Path, spec: JobSpec, sheet: &Sheet, ui: &Ui) -> anyhow::Result<(Job, tidemark_rocva::Recovery)> {
    let (name, lsn) = (spec.domain.clone(), spec.lsn);
    let sizes = spec.vms.iter().flat_map(|vm| &vm.disks).map(|disk| disk.size_bytes);
    say_before(ui, sheet, &reading_data(sizes.fold(0, u64::saturating_add)), Known::AtMost);
    let job = Job::create(dir, spec, Env::system().clock.wall())?;
    ui.say(format_args!("recovering {name} at lsn {lsn} in {}", dir.display()));
    Ok(job)
}

#[derive(Debug, Serialize)]
struct WouldFail<'a> {
    would_fence_epoch: u64,
    lsn: u64,
    would_start: Vec<&'a str>,
}

pub(super) async fn forced(args: ForcedArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    fail_over(args, None, ui).await
}

pub(super) async fn planned(args: PlannedArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    if args.forced.what.at != PointSpec::Latest {
        let refused = Refused::usage("a planned failover goes to the newest point");
        return Err(refused.hint("`tidemark recover forced --at` goes to an older one").into());
    }
    fail_over(args.forced, Some(args.source), ui).await
}

async fn fail_over(args: ForcedArgs, source: Option<SourceArgs>, ui: &Ui) -> anyhow::Result<Outcome> {
    let prepared = Prepared::new(&args.what, Mode::Failover).await?;
    // Whatever does not fit is better known before anybody is fenced.
    let spec = prepared.spec().await?;
    if let Some(source) = &source {
        source.look(&prepared.domain).await?;
    }
    if args.dry_run {
        let would_fence_epoch = prepared.domain.timeline().newest_claim().get();
        let would_start = spec.vms.iter().map(|vm| vm.name.as_str()).collect();
        ui.answer(&WouldFail { would_fence_epoch, lsn: spec.lsn, would_start }, |would| {
            let vms = would.would_start.join(", ");
            format!("would fence the writer of epoch {}, and start {vms} at lsn {}", would.would_fence_epoch, would.lsn)
        })?;
        return Ok(Outcome::Done);
    }
    if args.dir.join("job.json").exists() {
        let hint = "`tidemark recover resume` goes on with it";
        return Err(Refused::new(format!("there is a recovery in {} already", args.dir.display())).hint(hint).into());
    }
    let handed_over = match &source {
        Some(source) => Some(source.hand_over(&prepared.bucket, &prepared.domain, &args.attest, ui).await?),
        None => {
            fence(&prepared.bucket, &args.attest, ui).await?;
            None
        }
    };
    prepared.domain.refresh().await?;
    let job = begin(&args.dir, prepared.spec().await?, &prepared.sheet, ui)?;
    if let Some(handed_over) = handed_over {
        let path = args.dir.join("handover.json");
        std::fs::write(&path, serde_json::to_string_pretty(&handed_over)? + "\n")
            .with_context(|| format!("write {}", path.display()))?;
    }
    let mut runner = runner(job, &args.what.hypervisor)?;
    let until = if args.settle { Until::Settled } else { Until::Up };
    let (phase, interrupted) = work(&mut runner, until, Interrupt::Leaves, None, ui).await?;
    let report = finish(&runner, ui).await?;
    if interrupted && phase != Phase::Up && !phase.is_at_rest() {
        return Ok(Outcome::Interrupted);
    }
    answer(&report, runner.job().dir(), ui)
}

/// Claims a new epoch, names the moment, and gives the domain up again: nothing of the writer before counts any more.
pub(super) async fn fence(bucket: &Bucket, attest: &AttestArgs, ui: &Ui) -> anyhow::Result<()> {
    let options = WriterOptions { attach: attest.attach(), ..WriterOptions::default() };
    let writer = DomainWriter::open(bucket.appender(), options, Env::system()).await.context("fence the old writer")?;
    let epoch = writer.epoch();
    let marked = writer.bookmark(&format!("failover-{epoch}"), Level::Crash).await.context("name the moment")?;
    writer.close().await.context("give the domain up again")?;
    ui.say(format_args!("epoch {epoch} is claimed: the writer before is fenced at lsn {}", marked.lsn));
    Ok(())
}
