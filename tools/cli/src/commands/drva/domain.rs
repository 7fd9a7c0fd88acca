//! `tidemark drva domain`, and what else is done to whole domains.

use super::args::{Level, agent};
use super::remove::{self, RemoveArgs};
use super::settings::SettingsArgs;
use super::text;
use crate::args::span_ms;
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;
use tidemark_api::{
    BookmarkRequest, Client, DomainSpec, DomainStatus, DrainRequest, GuestAgent, Hook, TakeoverRequest,
    VM_CONFIG_BYTES_MAX, VmConfigRequest,
};

/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Add and remove protected domains
#[derive(Debug, Subcommand)]
pub(super) enum DomainCommand {
    /// Protect a domain from now on, also after a restart of the appliance
    Add(AddArgs),
    /// Stop protecting a domain here; its history in the bucket stays
    Remove(DomainRemoveArgs),
}

/// Protect a domain from now on
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// What the appliance is to call it; also the name of a new domain
    #[arg(value_name = "DOMAIN")]
    name: String,
    /// Its bucket; credentials come from the environment of the appliance
    #[arg(value_name = "URL")]
    url: String,
    /// Make the domain if the bucket holds none
    #[arg(long)]
    create: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Stop protecting a domain here
#[derive(Debug, Args)]
pub(super) struct DomainRemoveArgs {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    name: String,
    #[command(flatten)]
    how: RemoveArgs,
}

/// A domain
#[derive(Debug, Args)]
pub(super) struct NameArgs {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    name: String,
}

/// Name this moment of a domain
///
/// It is there once the command ends with 0. If the level cannot be had there is no bookmark.
#[derive(Debug, Args)]
pub(super) struct BookmarkArgs {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    domain: String,
    /// The name of the bookmark; the newest of a name counts
    #[arg(value_name = "NAME")]
    name: String,
    /// How consistent the guests have to be
    #[arg(long, value_enum, default_value_t = Level::Crash)]
    level: Level,
    /// Freeze the file systems of a VM through its QEMU guest agent; may be repeated
    #[arg(long = "agent", value_name = "VM=SOCKET", value_parser = agent)]
    agents: Vec<GuestAgent>,
    /// Thaw a guest after so long, bookmark or not; 10s at most
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = span_ms)]
    freeze_timeout: u64,
    /// Run this by /bin/sh on the appliance before; if it fails there is no bookmark
    #[arg(long, value_name = "COMMAND")]
    pre: Option<String>,
    /// Run this by /bin/sh on the appliance after, whatever came of it
    #[arg(long, value_name = "COMMAND")]
    post: Option<String>,
    /// Kill such a command after so long
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span_ms)]
    hook_timeout: u64,
}

/// Wait until everything acknowledged so far is in the bucket
#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    domain: String,
    /// Wait so long at most
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = span_ms)]
    timeout: u64,
}

/// Take a domain over again from whoever owns it now
///
/// For a domain that was fenced, or whose log here and bucket went different ways.
#[derive(Debug, Args)]
pub(super) struct TakeoverArgs {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    domain: String,
    /// Throw away what is in the log here and not in the bucket
    #[arg(long)]
    discard_local: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

/// Record what belongs to a VM besides its disks
#[derive(Debug, Subcommand)]
pub(super) enum VmCommand {
    /// Record a VM's configuration from now on
    Config(VmConfigArgs),
}

/// Record a VM's configuration from now on
#[derive(Debug, Args)]
pub(super) struct VmConfigArgs {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    domain: String,
    /// The VM
    #[arg(value_name = "VM")]
    vm: String,
    /// The configuration, as of `virsh dumpxml`; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What it is
    #[arg(long, default_value = "libvirt-xml")]
    format: String,
}

pub(super) async fn run(command: DomainCommand, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    match command {
        DomainCommand::Add(args) => {
            let AddArgs { name, url, create, settings } = args;
            let spec = DomainSpec { name, url, create, settings: settings.patch(), disks: Vec::new() };
            show(&client.domain_add(&spec).await?, ui)
        }
        DomainCommand::Remove(args) if args.how.dry_run => {
            let domain = client.domain(&args.name).await?;
            remove::plan(&args.name, pending(&domain), ui)
        }
        DomainCommand::Remove(args) => {
            let removed = client.domain_remove(&args.name, args.how.query()).await?;
            remove::done(&args.name, &removed, ui)
        }
    }
}

pub(super) async fn pause(args: NameArgs, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    show(&client.pause(&args.name).await?, ui)
}

pub(super) async fn resume(args: NameArgs, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    show(&client.resume(&args.name).await?, ui)
}

fn show(domain: &DomainStatus, ui: &Ui) -> anyhow::Result<Outcome> {
    ui.answer(domain, text::domain)?;
    Ok(Outcome::Done)
}

fn pending(domain: &DomainStatus) -> u64 {
    domain.disks.iter().fold(0, |sum, disk| sum.saturating_add(disk.pending_bytes))
}

pub(super) async fn bookmark(args: BookmarkArgs, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    let hook = |command: String| Hook {
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), command],
        timeout_ms: args.hook_timeout,
    };
    let request = BookmarkRequest {
        name: args.name,
        level: args.level.into(),
        agents: args.agents,
        freeze_timeout_ms: args.freeze_timeout,
        pre: args.pre.map(hook),
        post: args.post.map(hook),
    };
    let made = client.bookmark(&args.domain, &request).await?;
    ui.answer(&made, |made| {
        let frozen = made.frozen_ms.map_or(String::new(), |ms| format!(", guests frozen for {}", text::span_ms(ms)));
        format!("bookmark {} at lsn {}, {} ({} consistent{frozen})", made.name, made.lsn, made.time, made.level.name())
    })?;
    Ok(Outcome::Done)
}

pub(super) async fn drain(args: DrainArgs, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    let mut before = pending(&client.domain(&args.domain).await?);
    let bar = ui.bytes_bar("draining", Some(before));
    let mut draining = std::pin::pin!(client.drain(&args.domain, DrainRequest { timeout_ms: args.timeout }));
    let drained = loop {
        tokio::select! {
            drained = &mut draining => break drained?,
            () = tokio::time::sleep(LOOK_EVERY) => {
                let left = pending(&client.domain(&args.domain).await?);
                before = before.max(left);
                bar.set(before - left, before);
            }
        }
    };
    drop(bar);
    ui.answer(&drained, |drained| {
        format!("lsn {} of {} is in the bucket", drained.committed_lsn.min(drained.target_lsn), drained.target_lsn)
    })?;
    if drained.complete {
        return Ok(Outcome::Done);
    }
    let waiting = text::bytes(drained.pending_bytes);
    let late = Refused::partial(format!("{waiting} are not in the bucket after {}", text::span_ms(args.timeout)));
    Err(late.hint("`tidemark drva status` says why; then drain again").into())
}

#[derive(Debug, Serialize)]
struct TakeoverPlan<'a> {
    would_take_over: &'a str,
    discarded_bytes: u64,
}

pub(super) async fn takeover(args: TakeoverArgs, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    if !args.dry_run {
        let request = TakeoverRequest { discard_local: args.discard_local };
        return show(&client.takeover(&args.domain, request).await?, ui);
    }
    let domain = client.domain(&args.domain).await?;
    let discarded_bytes = if args.discard_local { pending(&domain) } else { 0 };
    ui.answer(&TakeoverPlan { would_take_over: &args.domain, discarded_bytes }, |plan| {
        let lost = text::bytes(plan.discarded_bytes);
        format!(
            "would take {} over from its present owner, and discard {lost} of acknowledged writes",
            plan.would_take_over
        )
    })?;
    Ok(Outcome::Done)
}

pub(super) async fn vm(command: VmCommand, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    let VmCommand::Config(args) = command;
    let body = tokio::task::spawn_blocking(move || read(&args.file)).await.context("read the configuration")??;
    let request = VmConfigRequest { format: args.format, body };
    let recorded = client.vm_config(&args.domain, &args.vm, &request).await?;
    ui.answer(&recorded, |recorded| {
        format!("configuration of {} recorded at lsn {}, {}", args.vm, recorded.lsn, recorded.time)
    })?;
    Ok(Outcome::Done)
}

/// A text of bounded length.
fn read(file: &PathBuf) -> anyhow::Result<String> {
    let name = file.display();
    let source: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(|| format!("open {name}"))?)
    };
    let mut text = String::new();
    source.take(VM_CONFIG_BYTES_MAX as u64 + 1).read_to_string(&mut text).with_context(|| format!("read {name}"))?;
    if text.len() > VM_CONFIG_BYTES_MAX {
        return Err(
            Refused::new(format!("{name} is more than the {VM_CONFIG_BYTES_MAX} bytes that are allowed")).into()
        );
    }
    Ok(text)
}
