//! `tidemark drva disk`, and taps.

use super::args::{Mode, Overflow, disk, disk_size};
use super::remove::{self, RemoveArgs};
use super::text;
use crate::failure::Outcome;
use crate::ui::Ui;
use clap::{Args, Subcommand};
use tidemark_api::{AttachRequest, Client, DiskAddress, DiskSpec, DiskStatus, ModeRequest, ResizeRequest};

/// Add, remove and change protected disks
#[derive(Debug, Subcommand)]
pub(super) enum DiskCommand {
    /// Protect a disk from now on, also after a restart of the appliance
    Add(AddArgs),
    /// Stop protecting a disk; its history in the bucket stays
    Remove(DiskRemoveArgs),
    /// Change a disk's size
    Resize(ResizeArgs),
    /// Change when a disk's writes are acknowledged
    Mode(ModeArgs),
}

/// Protect a disk from now on
///
/// What it holds already is shipped by `tidemark drva seed start`.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// DOMAIN/VM/DISK
    #[arg(value_name = "DISK", value_parser = disk)]
    disk: DiskAddress,
    /// Raw file, block device or NBD URI with its contents; leave it out for a disk that a tap follows
    #[arg(long, value_name = "PATH")]
    primary: Option<String>,
    /// Its size; leave it out to take that of the primary; a new disk that a tap follows needs it
    #[arg(long, value_name = "BYTES", value_parser = disk_size)]
    size: Option<u64>,
    /// When its writes are acknowledged; leave it out to follow the domain's settings
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// What becomes of its writes when the log is full; leave it out to follow the domain's settings
    #[arg(long, value_enum)]
    overflow: Option<Overflow>,
    /// Several clients write it at once; otherwise the one that began to write last may
    #[arg(long)]
    shared: bool,
    /// The name under which NBD clients find it; leave it out for DOMAIN/VM/DISK
    #[arg(long, value_name = "NAME")]
    export: Option<String>,
}

/// Stop protecting a disk
#[derive(Debug, Args)]
pub(super) struct DiskRemoveArgs {
    /// DOMAIN/VM/DISK
    #[arg(value_name = "DISK", value_parser = disk)]
    disk: DiskAddress,
    #[command(flatten)]
    how: RemoveArgs,
}

/// Change a disk's size
#[derive(Debug, Args)]
pub(super) struct ResizeArgs {
    /// DOMAIN/VM/DISK
    #[arg(value_name = "DISK", value_parser = disk)]
    disk: DiskAddress,
    /// Its new size
    #[arg(value_name = "BYTES", value_parser = disk_size)]
    size: u64,
    /// Make it smaller, which loses what is beyond
    #[arg(long)]
    allow_shrink: bool,
}

/// Change when a disk's writes are acknowledged
#[derive(Debug, Args)]
pub(super) struct ModeArgs {
    /// DOMAIN/VM/DISK
    #[arg(value_name = "DISK", value_parser = disk)]
    disk: DiskAddress,
    /// The new mode
    #[arg(value_enum)]
    mode: Mode,
}

/// Tap a running VM: QEMU sends us each write of a disk from now on
///
/// QEMU first copies what the disk holds; `tidemark drva status` shows how far it is. Until the tap is ready and the disk is
/// protected, no point of it can be restored.
#[derive(Debug, Args)]
pub(super) struct AttachArgs {
    /// DOMAIN/VM/DISK, as it was added
    #[arg(long, value_name = "DISK", value_parser = disk)]
    disk: DiskAddress,
    /// QEMU's control socket (QMP)
    #[arg(long, value_name = "SOCKET")]
    qmp: String,
    /// The disk's block node or device in QEMU; may be left out if there is only one that can be written
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

/// End a tap
#[derive(Debug, Args)]
pub(super) struct DetachArgs {
    /// DOMAIN/VM/DISK
    #[arg(long, value_name = "DISK", value_parser = disk)]
    disk: DiskAddress,
}

pub(super) async fn run(command: DiskCommand, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    match command {
        DiskCommand::Add(args) => {
            let DiskAddress { domain, vm, disk } = args.disk;
            let spec = DiskSpec {
                vm,
                disk,
                primary: args.primary,
                size_bytes: args.size,
                mode: args.mode.map(Into::into),
                overflow: args.overflow.map(Into::into),
                shared: args.shared,
                export: args.export,
            };
            show(&client.disk_add(&domain, &spec).await?, ui)
        }
        DiskCommand::Remove(args) if args.how.dry_run => {
            let status = client.disk(&args.disk).await?;
            remove::plan(&args.disk.to_string(), status.pending_bytes, ui)
        }
        DiskCommand::Remove(args) => {
            let removed = client.disk_remove(&args.disk, args.how.query()).await?;
            remove::done(&args.disk.to_string(), &removed, ui)
        }
        DiskCommand::Resize(args) => {
            let request = ResizeRequest { size_bytes: args.size, allow_shrink: args.allow_shrink };
            show(&client.disk_resize(&args.disk, request).await?, ui)
        }
        DiskCommand::Mode(args) => {
            let request = ModeRequest { mode: args.mode.into() };
            show(&client.disk_mode(&args.disk, request).await?, ui)
        }
    }
}

pub(super) async fn attach(args: AttachArgs, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    let request = AttachRequest { qmp_socket: args.qmp, node: args.node };
    show(&client.attach(&args.disk, &request).await?, ui)
}

pub(super) async fn detach(args: DetachArgs, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    show(&client.detach(&args.disk).await?, ui)
}

pub(super) fn show(disk: &DiskStatus, ui: &Ui) -> anyhow::Result<Outcome> {
    ui.answer(disk, text::disk)?;
    Ok(Outcome::Done)
}
