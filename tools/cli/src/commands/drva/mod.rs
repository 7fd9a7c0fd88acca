//! `tidemark drva`: the appliance that protects running VMs, and everything that can be asked of it.
//!
//! All but `run` and `check` use only the control API of the appliance that listens on the socket.

mod args;
mod disk;
mod domain;
mod events;
mod remove;
mod seed;
mod settings;
mod status;
mod text;

use crate::context::interrupted;
use crate::failure::Outcome;
use crate::ui::Ui;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::PathBuf;
use tidemark_api::{Client, DRVA_SOCKET};
use tidemark_drva::config::Config;
use tidemark_env::Env;

/// Run and control a DR virtual appliance
///
/// DISK is DOMAIN/VM/DISK, such as accounting/web1/root.
#[derive(Debug, Args)]
pub(crate) struct DrvaArgs {
    /// The control socket of the appliance
    #[arg(long, global = true, env = "TIDEMARK_DRVA_SOCKET", default_value = DRVA_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    #[command(subcommand)]
    command: DrvaCommand,
}

impl DrvaArgs {
    pub(super) fn is_service(&self) -> bool {
        matches!(self.command, DrvaCommand::Run(_))
    }
}

#[derive(Debug, Subcommand)]
enum DrvaCommand {
    /// Run the appliance until SIGINT or SIGTERM; what is acknowledged then is brought where it belongs first
    Run(ConfigArgs),
    /// Say whether a configuration file can work
    Check(ConfigArgs),
    /// Show how the appliance, its domains and disks are doing
    Status(status::StatusArgs),
    /// Show what happened lately
    Events(events::EventsArgs),
    /// Add and remove protected domains
    #[command(subcommand)]
    Domain(domain::DomainCommand),
    /// Add, remove and change protected disks
    #[command(subcommand)]
    Disk(disk::DiskCommand),
    /// Ship what a disk held before it was protected
    #[command(subcommand)]
    Seed(seed::SeedCommand),
    /// Record what belongs to a VM besides its disks
    #[command(subcommand)]
    Vm(domain::VmCommand),
    /// Stop shipping a domain's writes; they stay in the log
    Pause(domain::NameArgs),
    /// Ship a domain's writes again
    Resume(domain::NameArgs),
    /// Name this moment of a domain
    Bookmark(domain::BookmarkArgs),
    /// Wait until everything acknowledged so far is in the bucket
    Drain(domain::DrainArgs),
    /// Take a domain over again from whoever owns it now
    Takeover(domain::TakeoverArgs),
    /// Tap a running VM: QEMU sends us each write of a disk from now on
    Attach(disk::AttachArgs),
    /// End a tap; the VM goes on with its own disk
    Detach(disk::DetachArgs),
    /// Show or change how a domain is protected
    Limits(settings::LimitsArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Serialize)]
struct Checked {
    config: String,
    name: String,
    domains: usize,
    disks: usize,
}

pub(crate) async fn run(args: DrvaArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let client = Client::new(args.socket);
    match args.command {
        DrvaCommand::Run(args) => serve(args, ui).await,
        DrvaCommand::Check(args) => check(args, ui),
        DrvaCommand::Status(args) => status::run(args, &client, ui).await,
        DrvaCommand::Events(args) => events::run(args, &client, ui).await,
        DrvaCommand::Domain(command) => domain::run(command, &client, ui).await,
        DrvaCommand::Disk(command) => disk::run(command, &client, ui).await,
        DrvaCommand::Seed(command) => seed::run(command, &client, ui).await,
        DrvaCommand::Vm(command) => domain::vm(command, &client, ui).await,
        DrvaCommand::Pause(args) => domain::pause(args, &client, ui).await,
        DrvaCommand::Resume(args) => domain::resume(args, &client, ui).await,
        DrvaCommand::Bookmark(args) => domain::bookmark(args, &client, ui).await,
        DrvaCommand::Drain(args) => domain::drain(args, &client, ui).await,
        DrvaCommand::Takeover(args) => domain::takeover(args, &client, ui).await,
        DrvaCommand::Attach(args) => disk::attach(args, &client, ui).await,
        DrvaCommand::Detach(args) => disk::detach(args, &client, ui).await,
        DrvaCommand::Limits(args) => settings::run(args, &client, ui).await,
    }
}

async fn serve(args: ConfigArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let stop = interrupted();
    let config = Config::load(&args.config)?;
    ui.say(format!("appliance {}; its control socket is {}", config.appliance.name, config.appliance.socket.display()));
    tidemark_drva::run(config, Env::system(), stop).await?;
    Ok(Outcome::Done)
}

fn check(args: ConfigArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let config = Config::load(&args.config)?;
    let checked = Checked {
        config: args.config.display().to_string(),
        name: config.appliance.name,
        domains: config.domains.len(),
        disks: config.domains.iter().map(|domain| domain.disks.len()).sum(),
    };
    ui.answer(&checked, |checked| {
        let Checked { config, name, domains, disks } = checked;
        format!("{config} can work: appliance {name}, {domains} domains, {disks} disks")
    })?;
    Ok(Outcome::Done)
}
