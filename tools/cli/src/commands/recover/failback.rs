//! `tidemark recover failback`: disks of the old site become what the recovery site has, and the domain is handed over to them.
//!
//! Twice the same: while the VMs of the recovery site still run, everything that differs; and once they are off and their appliance is fenced, what
//! changed since. Nothing is remembered but by the restores: run again, it finds what is there and goes on.

use super::handover::{HandedOver, SourceArgs};
use super::restore::{GAP_BYTES_MAX, PIN_LIFETIME};
use crate::args::{AttestArgs, BucketArgs, DiskName, DiskRef};
use crate::context::{disk_at, interrupted, open_bucket, open_domain, resolve};
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use tidemark_bucket::{Bucket, Op};
use tidemark_format::{DiskId, Lsn};
use tidemark_reader::{Domain, PinOptions, PointSpec, ReaderOptions};
use tidemark_rocva::{Heard, RestoreOptions, Restored, restore};

/// Bring disks of the old site up to date with the recovery site, and hand the domain back to them without loss
///
/// While the VMs at the recovery site run on, protected by an appliance there, the old images become equal to the newest point: only what
/// differs is fetched, as by `tidemark recover restore`. Then the VMs have to be off: the appliance brings its last writes into the bucket and is fenced,
/// and what changed meanwhile follows. At the end the images hold everything that was acknowledged, and the old site's appliance may take the
/// domain over and its VMs may start.
///
/// Until the appliance is fenced nothing at the recovery site has changed. Run again after it was stopped or killed, it goes on.
#[derive(Debug, Args)]
pub(crate) struct FailbackArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// A disk, and the raw image or block device that is to hold it; once for each disk of the domain
    #[arg(long = "to", value_name = "VM/DISK=FILE", required = true)]
    to: Vec<Target>,
    #[command(flatten)]
    source: SourceArgs,
    /// Only compare, and say what would be fetched while the VMs run
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    attest: AttestArgs,
}

/// A disk and where it is to be.
#[derive(Clone, Debug)]
struct Target {
    disk: DiskName,
    file: PathBuf,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (disk, file) = text
            .split_once('=')
            .filter(|(_, file)| !file.is_empty())
            .ok_or_else(|| format!("{text:?} is not VM/DISK=FILE, such as web1/root=/dev/vg0/web1-root"))?;
        Ok(Self { disk: disk.parse()?, file: file.into() })
    }
}

#[derive(Debug, Serialize)]
struct Report {
    dry_run: bool,
    /// Where the images stand.
    lsn: u64,
    /// Who handed the domain over; null in a dry run.
    source: Option<HandedOver>,
    disks: Vec<DiskReport>,
    total_fetched_bytes: u64,
    total_requests: u64,
}

#[derive(Debug, Serialize)]
struct DiskReport {
    disk: String,
    to: String,
    while_running: PassReport,
    after: Option<PassReport>,
}

#[derive(Debug, Serialize)]
struct PassReport {
    lsn: u64,
    compared_bytes: u64,
    fetched_bytes: u64,
    written_bytes: u64,
    zeroed_bytes: u64,
}

pub(super) async fn run(args: FailbackArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(&args.bucket)?;
    let pin = PinOptions { pinner: bucket.pinner(), owner: "failback".to_owned(), lifetime: PIN_LIFETIME };
    let reader = ReaderOptions {
        coalesce_gap_bytes_max: GAP_BYTES_MAX,
        pin: (!args.dry_run).then_some(pin),
        ..ReaderOptions::default()
    };
    let domain = open_domain(&bucket, reader).await?;
    tokio::select! {
        report = work(&args, &bucket, &domain, ui) => ui.answer(&report?, text)?,
        () = interrupted() => {
            return Err(Refused::interrupted("stopped").hint("run it again, and it goes on").into());
        }
    }
    domain.unpin().await?;
    Ok(Outcome::Done)
}

async fn work(args: &FailbackArgs, bucket: &Bucket, domain: &Domain, ui: &Ui) -> anyhow::Result<Report> {
    // Whoever does not answer, or cannot hand over, is better known before hours of copying.
    args.source.look(domain).await?;
    complete(args, domain, domain.timeline().latest().lsn)?;
    let running = pass(args, domain, None, "running", ui).await?;
    let mut report = Report {
        dry_run: args.dry_run,
        lsn: running.lsn.get(),
        source: None,
        disks: Vec::new(),
        total_fetched_bytes: 0,
        total_requests: 0,
    };
    let mut after = None;
    if !args.dry_run {
        report.source = Some(args.source.hand_over(bucket, domain, &args.attest, ui).await?);
        let last = pass(args, domain, Some(running.lsn), "after", ui).await?;
        report.lsn = last.lsn.get();
        after = Some(last);
    }
    for (number, target) in args.to.iter().enumerate() {
        report.disks.push(DiskReport {
            disk: target.disk.to_string(),
            to: target.file.display().to_string(),
            while_running: running.report(number),
            after: after.as_ref().map(|pass| pass.report(number)),
        });
    }
    let all = bucket.meter().snapshot().total(Op::Get);
    (report.total_fetched_bytes, report.total_requests) = (all.bytes, all.requests);
    Ok(report)
}

/// Refuses to hand a domain back by halves.
fn complete(args: &FailbackArgs, domain: &Domain, at: Lsn) -> anyhow::Result<()> {
    for disk in domain.timeline().disks_at(at) {
        let named = args.to.iter().filter(|to| (&to.disk.vm, &to.disk.disk) == (&disk.vm, &disk.name)).count();
        if named != 1 {
            let (vm, name) = (disk.vm, disk.name);
            let what = format!("disk {vm}/{name} of the domain is named {named} times");
            return Err(Refused::usage(what).hint(format!("say --to {vm}/{name}=FILE once")).into());
        }
    }
    Ok(())
}

/// What became of each disk at one point.
struct Pass {
    lsn: Lsn,
    disks: Vec<Restored>,
}

impl Pass {
    fn report(&self, number: usize) -> PassReport {
        let restored = &self.disks[number];
        PassReport {
            lsn: self.lsn.get(),
            compared_bytes: restored.compared_bytes,
            fetched_bytes: restored.fetched_bytes,
            written_bytes: restored.written_bytes,
            zeroed_bytes: restored.zeroed_bytes,
        }
    }
}

/// Brings every disk to the newest point.
async fn pass(args: &FailbackArgs, domain: &Domain, since: Option<Lsn>, what: &str, ui: &Ui) -> anyhow::Result<Pass> {
    domain.refresh().await?;
    let lsn = resolve(domain, &PointSpec::Latest).await?.lsn;
    let mut disks = Vec::new();
    for Target { disk, file } in &args.to {
        let id: DiskId = disk_at(domain, &DiskRef::Name(disk.clone()), lsn)?.id;
        let bar = Arc::new(ui.bytes_bar(what, None));
        let heard: Heard = {
            let bar = bar.clone();
            Arc::new(move |done, total| bar.set(done, total))
        };
        let options = RestoreOptions { since, journal: None, dry_run: args.dry_run };
        // A device has no journal, so that all of it is compared.
        let options = match std::fs::metadata(file).is_ok_and(|file| file.is_file()) {
            true => options,
            false => RestoreOptions { since: None, ..options },
        };
        let restored = restore(domain, (id, lsn), file, &options, &heard).await?;
        if restored.lacking_bytes > 0 {
            let what = format!("{} bytes of {disk} are lost", restored.lacking_bytes);
            return Err(Refused::partial(what)
                .hint("`tidemark recover restore` says where; the recovery site has them")
                .into());
        }
        disks.push(restored);
    }
    Ok(Pass { lsn, disks })
}

fn text(report: &Report) -> String {
    let human = indicatif::HumanBytes;
    let fetched = human(report.total_fetched_bytes);
    let mut text = match report.source {
        Some(HandedOver { last_lsn, epoch }) => format!(
            "the images stand at lsn {}; the appliance of epoch {epoch} is fenced, and its last lsn {last_lsn} is among them; {fetched} fetched",
            report.lsn
        ),
        None => format!("would bring the images to lsn {} and then hand the domain over", report.lsn),
    };
    for disk in &report.disks {
        let of = |pass: &PassReport| {
            format!("{} fetched, {} written", human(pass.fetched_bytes), human(pass.written_bytes + pass.zeroed_bytes))
        };
        let after = disk.after.as_ref().map_or(String::new(), |pass| format!("; then {}", of(pass)));
        text += &format!("\n  {} in {}: {}{after}", disk.disk, disk.to, of(&disk.while_running));
    }
    text
}
