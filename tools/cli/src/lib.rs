//! The command line of Tidemark: one file per command below [`commands`], its doc comment is its help.
//!
//! Data goes to stdout, talk to stderr; `--json` is a promise (docs/cli.md); exit codes are those of [`failure`]. The
//! libraries are mute, this crate talks.
//! Not here: what a domain is, how it is written or read (the library crates).

mod args;
mod commands;
mod context;
mod cost;
mod failure;
pub mod logwrites;
pub mod plan;
mod ui;

pub use args::{DiskName, SizeBytes};

use args::Cli;
use clap::Parser;
use std::process::ExitCode;
use ui::Ui;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = Ui::new(&cli.global);
    ui.start_log(cli.global.verbose + u8::from(cli.command.is_service()));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return ui.fail(&anyhow::Error::new(e).context("start threads")),
    };
    let ended = runtime.block_on(commands::run(cli.command, &ui));
    // What is still under way belongs to a request that nobody waits for any more.
    runtime.shutdown_background();
    match ended {
        Ok(outcome) => outcome.exit_code(),
        Err(error) => ui.fail(&error),
    }
}
