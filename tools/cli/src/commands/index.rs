//! `tidemark index`: the index as a whole.

use crate::args::BucketArgs;
use crate::commands::gc::{Work, maintain};
use crate::failure::Outcome;
use crate::ui::Ui;
use clap::{Args, Subcommand};
use tidemark_gc::MaintenanceOptions;

/// Make a domain's index anew
#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// Make the index anew from the log, leaving the old one aside
    ///
    /// For an index that is damaged or lost. Readers use the log until the new one covers it.
    Rebuild(RebuildArgs),
}

/// Make the index anew
#[derive(Debug, Args)]
pub(crate) struct RebuildArgs {
    #[command(flatten)]
    bucket: BucketArgs,
}

pub(crate) async fn run(command: IndexCommand, ui: &Ui) -> anyhow::Result<Outcome> {
    match command {
        IndexCommand::Rebuild(args) => {
            maintain(&args.bucket, Work::Rebuild, MaintenanceOptions::default(), None, ui).await
        }
    }
}
