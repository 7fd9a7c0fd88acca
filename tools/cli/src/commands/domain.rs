//! `tidemark domain`: making and looking at protected domains.

use crate::args::{AttestArgs, BucketArgs};
use crate::context::{open_bucket, open_domain};
use crate::failure::Outcome;
use crate::ui::Ui;
use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use tidemark_bucket::{Bucket, attach_probe};
use tidemark_env::Env;
use tidemark_reader::{ReaderOptions, TimeText};
use tidemark_writer::create_domain;

/// Make and look at protected domains
#[derive(Debug, Subcommand)]
pub(crate) enum DomainCommand {
    /// Make a domain in a bucket (or below a prefix) that holds none
    ///
    /// Tests first whether the store keeps the promises that a domain's safety rests on.
    Create(CreateArgs),
    /// Show what domain a bucket holds
    Show(ShowArgs),
}

/// Make a domain
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// What people call the domain
    #[arg(long)]
    name: String,
    #[command(flatten)]
    attest: AttestArgs,
}

/// Show a domain
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    bucket: BucketArgs,
}

#[derive(Debug, Serialize)]
struct Created {
    domain: String,
    name: String,
    location: String,
    mode: String,
}

#[derive(Debug, Serialize)]
struct Shown {
    domain: String,
    name: String,
    location: String,
    created: String,
    epoch: u64,
    segments: usize,
    first_lsn: u64,
    last_lsn: u64,
    final_through: u64,
    disks: usize,
}

pub(crate) async fn run(command: DomainCommand, ui: &Ui) -> anyhow::Result<Outcome> {
    match command {
        DomainCommand::Create(args) => create(args, ui).await,
        DomainCommand::Show(args) => show(args, ui).await,
    }
}

async fn create(args: CreateArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(&args.bucket)?;
    make_directory(&bucket)?;
    let env = Env::system();
    let mode = attach_probe(&bucket.appender(), &*env.entropy, args.attest.attestation()).await?;
    let genesis = create_domain(&bucket.appender(), &args.name, &env).await?;
    let created = Created {
        domain: genesis.domain.to_string(),
        name: genesis.name,
        location: bucket.location(),
        mode: mode.to_string(),
    };
    ui.answer(&created, |created| {
        format!("made domain {} ({}) in {}, mode {}", created.name, created.domain, created.location, created.mode)
    })?;
    Ok(Outcome::Done)
}

/// A new domain may name a directory that is not there yet; buckets are made with their store's own tools.
fn make_directory(bucket: &Bucket) -> anyhow::Result<()> {
    let location = bucket.location();
    let url = url::Url::parse(&location).ok().filter(|url| url.scheme() == "file");
    let Some(dir) = url.and_then(|url| url.to_file_path().ok()) else { return Ok(()) };
    std::fs::create_dir_all(&dir).with_context(|| format!("make directory {}", dir.display()))
}

async fn show(args: ShowArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(&args.bucket)?;
    let domain = open_domain(&bucket, ReaderOptions::default()).await?;
    let timeline = domain.timeline();
    let shown = Shown {
        domain: timeline.domain().to_string(),
        name: timeline.name().to_owned(),
        location: bucket.location(),
        created: TimeText(timeline.created()).to_string(),
        epoch: timeline.newest_claim().get(),
        segments: timeline.segment_count(),
        first_lsn: timeline.first().lsn.get(),
        last_lsn: timeline.latest().lsn.get(),
        final_through: timeline.final_through().get(),
        disks: timeline.disks_at(timeline.latest().lsn).len(),
    };
    ui.answer(&shown, |shown| {
        format!(
            "domain   {} ({})\nin       {}\ncreated  {}\nwriter   epoch {}\nlog      {} segments, lsn {}..{}, final through {}\n\
             disks    {}",
            shown.name,
            shown.domain,
            shown.location,
            shown.created,
            shown.epoch,
            shown.segments,
            shown.first_lsn,
            shown.last_lsn,
            shown.final_through,
            shown.disks
        )
    })?;
    Ok(Outcome::Done)
}
