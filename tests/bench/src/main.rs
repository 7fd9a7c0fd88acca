//! Measures Tidemark beside the machine's own limits, in the same run, and holds the ratios against goals.
//!
//! Figures are medians over rounds. A missed goal ends with exit code 1, so that a change that costs speed shows.

mod corpus;
mod ingest;
mod limit;
mod mount;
mod open;
mod report;

use anyhow::Result;
use clap::{Parser, Subcommand};
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use tidemark_env::Env;

#[derive(Parser)]
#[command(about, version)]
struct Args {
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Ingest into memory against zstd -1 and BLAKE3 alone.
    Ingest {
        /// Data of one round in MiB.
        #[arg(long, default_value_t = 512)]
        data_mib: usize,
        /// Rounds.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Threads that compress, in both.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Requests for one GiB of guest data.
    Requests,
    /// Opening a domain of many segments, and cold reads.
    Open {
        /// Segments.
        #[arg(long, default_value_t = 1000)]
        segments: usize,
        /// Random 4 KiB writes of each.
        #[arg(long, default_value_t = 1000)]
        writes: usize,
        /// Cold random reads.
        #[arg(long, default_value_t = 2000)]
        reads: usize,
    },
    /// Hot reads of a mount against a plain file and qemu-storage-daemon, by fio.
    Mount {
        /// The `tidemark` binary.
        #[arg(long, default_value = "target/release/tidemark")]
        tidemark: PathBuf,
        /// Size of the disk in MiB.
        #[arg(long, default_value_t = 512)]
        disk_mib: usize,
        /// Rounds of all targets.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of one measurement.
        #[arg(long, default_value_t = 3)]
        seconds: u32,
    },
}

#[tokio::main]
#[expect(clippy::disallowed_macros, reason = "a program that prints its results")]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let report = run(args.bench).await?;
    if args.json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(if report.all_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(bench: Bench) -> Result<Report> {
    let env = Env::system();
    match bench {
        Bench::Ingest { data_mib, rounds, threads } => {
            ingest::run(&ingest::Options { data_mib, rounds, threads }, &env).await
        }
        Bench::Requests => ingest::requests(&env).await,
        Bench::Open { segments, writes, reads } => open::run(&open::Options { segments, writes, reads }, &env).await,
        Bench::Mount { tidemark, disk_mib, rounds, seconds } => {
            mount::run(&mount::Options { tidemark, disk_mib, rounds, seconds }, &*env.clock).await
        }
    }
}
