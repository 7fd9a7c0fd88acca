//! The commands, one file each. A command's doc comment is its help.

mod bench;
mod bisect;
mod diff;
mod domain;
mod drva;
mod explain;
mod export;
mod gc;
mod index;
mod ingest;
mod inspect;
mod manual;
mod mount;
mod pins;
mod plan;
mod points;
mod recover;
mod repair;
mod retention;
mod runbook;
mod stats;
mod verify;

use crate::failure::Outcome;
use crate::ui::Ui;
use clap::Subcommand;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make and look at protected domains
    #[command(subcommand)]
    Domain(domain::DomainCommand),
    /// Put a disk's contents, or recorded writes of it, into a domain
    Ingest(ingest::IngestArgs),
    /// List recovery points: first, latest, bookmarks, disks
    Points(points::PointsArgs),
    /// Mount a domain's disks, at all points in time or at one
    Mount(mount::MountArgs),
    /// Write a disk as it was at a point into an image file
    Export(export::ExportArgs),
    /// Check every hash, chain and position in a bucket
    Verify(verify::VerifyArgs),
    /// Make what is derived anew, and say which points damage has spoiled
    Repair(repair::RepairArgs),
    /// Show any object of a bucket, or what there is
    Inspect(inspect::InspectArgs),
    /// List every version of one block of a disk
    Explain(explain::ExplainArgs),
    /// List what changed on a disk between two points
    Diff(diff::DiffArgs),
    /// Find the first point at which something is wrong
    Bisect(bisect::BisectArgs),
    /// Run a domain's VMs from its bucket
    #[command(subcommand)]
    Recover(recover::RecoverCommand),
    /// Check runbooks: what starts after a failover, in which order, and how to know that it runs
    #[command(subcommand)]
    Runbook(runbook::RunbookCommand),
    /// Run and control a DR virtual appliance
    Drva(drva::DrvaArgs),
    /// Keep a domain's index, so that any point opens at once
    #[command(subcommand)]
    Gc(gc::GcCommand),
    /// Make a domain's index anew
    #[command(subcommand)]
    Index(index::IndexCommand),
    /// List pins: who reads by which root, and until when
    Pins(pins::PinsArgs),
    /// Choose how long a domain's points stay
    #[command(subcommand)]
    Retention(retention::RetentionCommand),
    /// Look at what was measured
    #[command(subcommand)]
    Stats(stats::StatsCommand),
    /// Predict log store, uplink, bucket, requests, money and recovery time
    Plan(plan::PlanArgs),
    /// Measure what a bucket can take and give
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man(manual::ManArgs),
    /// Write completions for a shell to stdout
    #[command(hide = true)]
    Completions(manual::CompletionsArgs),
}

impl Command {
    /// Whether it runs until it is stopped, and its log is what there is to see of it.
    pub(crate) fn is_service(&self) -> bool {
        match self {
            Self::Drva(args) => args.is_service(),
            Self::Recover(command) => command.is_service(),
            _ => false,
        }
    }
}

pub(crate) async fn run(command: Command, ui: &Ui) -> anyhow::Result<Outcome> {
    match command {
        Command::Domain(command) => domain::run(command, ui).await,
        Command::Ingest(args) => ingest::run(args, ui).await,
        Command::Points(args) => points::run(args, ui).await,
        Command::Mount(args) => mount::run(args, ui).await,
        Command::Export(args) => export::run(args, ui).await,
        Command::Verify(args) => verify::run(args, ui).await,
        Command::Repair(args) => repair::run(args, ui).await,
        Command::Inspect(args) => inspect::run(args, ui).await,
        Command::Explain(args) => explain::run(args, ui).await,
        Command::Diff(args) => diff::run(args, ui).await,
        Command::Bisect(args) => bisect::run(args, ui).await,
        Command::Recover(command) => recover::run(command, ui).await,
        Command::Runbook(command) => runbook::run(command, ui).await,
        Command::Drva(args) => drva::run(args, ui).await,
        Command::Gc(command) => gc::run(command, ui).await,
        Command::Index(command) => index::run(command, ui).await,
        Command::Pins(args) => pins::run(args, ui).await,
        Command::Retention(command) => retention::run(command, ui).await,
        Command::Stats(command) => stats::run(command, ui).await,
        Command::Plan(args) => plan::run(args, ui).await,
        Command::Bench(command) => bench::run(command, ui).await,
        Command::Man(args) => manual::man(&args),
        Command::Completions(args) => manual::completions(&args, ui),
    }
}
