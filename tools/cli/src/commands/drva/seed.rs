//! `tidemark drva seed`: shipping what a disk held before it was protected.

use super::args::disk;
use super::disk::show;
use crate::args::DiskName;
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use clap::{Args, Subcommand};
use std::time::Duration;
use tidemark_api::{Client, DiskAddress, DiskState, DiskStatus, SeedRequest, SeedSource};

/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Ship what a disk held before it was protected
#[derive(Debug, Subcommand)]
pub(super) enum SeedCommand {
    /// Begin; what was shipped by an earlier run is not shipped again
    Start(StartArgs),
    /// Show how far it is
    Status(StatusArgs),
}

/// Begin to ship what a disk holds
#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// DOMAIN/VM/DISK
    #[arg(value_name = "DISK", value_parser = disk)]
    disk: DiskAddress,
    /// Take it from this image on the appliance, and from the primary only what differs
    #[arg(long, value_name = "PATH", conflicts_with = "from")]
    image: Option<String>,
    /// Take it from a disk of another domain in this bucket, and from the primary only what differs
    #[arg(long, value_name = "URL", requires = "from_disk")]
    from: Option<String>,
    /// The disk there
    #[arg(long, value_name = "VM/DISK", requires = "from")]
    from_disk: Option<DiskName>,
    /// As it was at this point
    #[arg(long, value_name = "POINT", default_value = "latest", requires = "from", allow_hyphen_values = true)]
    at: String,
    /// End when it is done
    #[arg(long)]
    wait: bool,
}

/// Show how far seeding is
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// DOMAIN/VM/DISK
    #[arg(value_name = "DISK", value_parser = disk)]
    disk: DiskAddress,
    /// End when it is done
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(command: SeedCommand, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    match command {
        SeedCommand::Start(args) => {
            let source = match (args.image, args.from, args.from_disk) {
                (Some(path), ..) => SeedSource::Image { path },
                (None, Some(url), Some(from)) => {
                    SeedSource::Domain { url, vm: from.vm, disk: from.disk, point: args.at }
                }
                _ => SeedSource::Primary,
            };
            let started = client.seed(&args.disk, &SeedRequest { source }).await?;
            finish(started, &args.disk, args.wait, client, ui).await
        }
        SeedCommand::Status(args) => {
            let status = client.disk(&args.disk).await?;
            finish(status, &args.disk, args.wait, client, ui).await
        }
    }
}

/// Waits, if that is wanted, and shows what came of it.
async fn finish(
    mut status: DiskStatus,
    disk: &DiskAddress,
    wait: bool,
    client: &Client,
    ui: &Ui,
) -> anyhow::Result<Outcome> {
    if wait {
        let bar = ui.bytes_bar("seeding", Some(status.size_bytes));
        while let DiskState::Seeding { done_bytes, total_bytes, .. }
        | DiskState::Resyncing { done_bytes, total_bytes, .. } = status.state
        {
            bar.set(done_bytes, total_bytes);
            tokio::time::sleep(LOOK_EVERY).await;
            status = client.disk(disk).await?;
        }
    }
    let protected = status.state == DiskState::Protected;
    let outcome = show(&status, ui)?;
    if wait && !protected {
        let hint = "`tidemark drva events` says what happened";
        return Err(Refused::partial(format!("{disk} is not protected after all")).hint(hint).into());
    }
    Ok(outcome)
}
