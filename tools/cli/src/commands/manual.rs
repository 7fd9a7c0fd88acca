//! Man pages and completions, from the one definition of the command line.

use crate::args::Cli;
use crate::failure::Outcome;
use crate::ui::Ui;
use anyhow::Context;
use clap::{Args, CommandFactory};
use std::path::PathBuf;

/// Write the man pages into a directory
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory for tidemark.1, tidemark-mount.1 and so on; made if absent
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Write completions for a shell to stdout
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn man(args: &ManArgs) -> anyhow::Result<Outcome> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(|| format!("write man pages into {}", dir.display()))?;
    Ok(Outcome::Done)
}

pub(crate) fn completions(args: &CompletionsArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidemark", &mut script);
    ui.bytes(&script)?;
    Ok(Outcome::Done)
}
