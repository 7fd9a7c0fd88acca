//! Measures Tidemark beside the machine's own limits, in the same run, and holds the ratios against goals.
//!
//! Figures are medians over rounds. A missed goal ends with exit code 1, so that a change that costs speed shows.

mod corpus;
mod drva;
mod fio;
mod history;
mod index;
mod ingest;
mod limit;
mod liveness;
mod log_store;
mod mount;
mod nbd;
mod open;
mod overlay;
mod report;
mod scale;
mod server;
mod statistics;

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
    /// What to measure; everything if not said.
    #[command(subcommand)]
    bench: Option<Bench>,
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
    /// Counting what guests write, against writing it.
    Statistics {
        /// Data of one round in MiB.
        #[arg(long, default_value_t = 512)]
        data_mib: usize,
        /// Rounds.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
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
    /// Building and merging the index of a synthetic domain of random 4 KiB writes.
    Index {
        /// Writes.
        #[arg(long, default_value_t = 1_000_000)]
        writes: u64,
        /// An empty directory to leave the domain in, for `scale`.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Opening domains that `index --dir` left, at random points, and random reads.
    Scale {
        /// The domains, the shortest first.
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
        /// Points at which each is opened.
        #[arg(long, default_value_t = 9)]
        points: u64,
        /// Random reads of each.
        #[arg(long, default_value_t = 1000)]
        reads: usize,
        /// Longer domains are not read at level R0.
        #[arg(long, default_value_t = 20_000_000)]
        r0_writes_max: u64,
    },
    /// Which versions are needed, over the rows of a long history.
    Liveness {
        /// Rows.
        #[arg(long, default_value_t = 20_000_000)]
        rows: u64,
        /// Versions of each block, on average.
        #[arg(long, default_value_t = 4)]
        versions: u64,
        /// Kept points, beside the horizon.
        #[arg(long, default_value_t = 48)]
        kept: u64,
    },
    /// The log store against a bare group-commit loop on the same device.
    LogStore {
        /// Where the files lie: the device that is measured.
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// Size of each file in MiB.
        #[arg(long, default_value_t = 1024)]
        file_mib: u64,
        /// Rounds of all shapes.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// Milliseconds of one measurement.
        #[arg(long, default_value_t = 700)]
        round_ms: u64,
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
    /// Recovery disks: writes, a file system on a loop device, hydration and what follows it, against qemu-storage-daemon.
    Overlay {
        /// The `tidemark` binary.
        #[arg(long, default_value = "target/release/tidemark")]
        tidemark: PathBuf,
        /// Where the local files lie: the device that is measured.
        #[arg(long, default_value = ".")]
        dir: PathBuf,
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
    /// Durable guest writes through the appliance, against nbdkit, qemu-nbd and the device, by fio.
    Drva {
        /// The `tidemark` binary.
        #[arg(long, default_value = "target/release/tidemark")]
        tidemark: PathBuf,
        /// Where log and primaries lie: the device that is measured.
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// Rounds of all servers.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of one measurement.
        #[arg(long, default_value_t = 3)]
        seconds: u32,
        /// Data that is replicated, in MiB.
        #[arg(long, default_value_t = 512)]
        data_mib: usize,
    },
    /// What the NBD server costs, against nbdkit's memory plugin, by fio.
    Nbd {
        /// The `tidemark-memory-disk` binary.
        #[arg(long, default_value = "target/release/tidemark-memory-disk")]
        server: PathBuf,
        /// Rounds of both servers.
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
    let benches = match args.bench {
        Some(bench) => vec![bench],
        // Each with the defaults of its own command line.
        None => [
            "ingest",
            "statistics",
            "requests",
            "open",
            "index",
            "liveness",
            "log-store",
            "mount",
            "overlay",
            "nbd",
            "drva",
        ]
        .iter()
        .filter_map(|name| Args::try_parse_from(["tidemark-bench", name]).ok()?.bench)
        .collect(),
    };
    let mut all_met = true;
    let mut json = serde_json::Map::new();
    for bench in benches {
        let name = bench.name();
        let report = run(bench).await?;
        all_met &= report.all_met();
        if args.json {
            json.insert(name.to_owned(), report.json());
        } else {
            println!("{name}\n{}", report.table());
        }
    }
    if args.json {
        println!("{:#}", serde_json::Value::Object(json));
    }
    Ok(if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Bench {
    const fn name(&self) -> &'static str {
        match self {
            Self::Ingest { .. } => "ingest",
            Self::Statistics { .. } => "statistics",
            Self::Requests => "requests",
            Self::Open { .. } => "open",
            Self::Index { .. } => "index",
            Self::Scale { .. } => "scale",
            Self::Liveness { .. } => "liveness",
            Self::LogStore { .. } => "log-store",
            Self::Mount { .. } => "mount",
            Self::Overlay { .. } => "overlay",
            Self::Nbd { .. } => "nbd",
            Self::Drva { .. } => "drva",
        }
    }
}

async fn run(bench: Bench) -> Result<Report> {
    let env = Env::system();
    match bench {
        Bench::Ingest { data_mib, rounds, threads } => {
            ingest::run(&ingest::Options { data_mib, rounds, threads }, &env).await
        }
        Bench::Statistics { data_mib, rounds } => {
            statistics::run(&statistics::Options { data_mib, rounds }, &env).await
        }
        Bench::Requests => ingest::requests(&env).await,
        Bench::Open { segments, writes, reads } => open::run(&open::Options { segments, writes, reads }, &env).await,
        Bench::Index { writes, dir } => index::run(&index::Options { writes, dir }, &env).await,
        Bench::Scale { dirs, points, reads, r0_writes_max } => {
            scale::run(&scale::Options { dirs, points, reads, r0_writes_max }, &env).await
        }
        Bench::Liveness { rows, versions, kept } => {
            liveness::run(&liveness::Options { rows, versions, kept }, &*env.clock)
        }
        Bench::LogStore { dir, file_mib, rounds, round_ms } => {
            log_store::run(&log_store::Options { dir, file_mib, rounds, round_ms }, &*env.clock).await
        }
        Bench::Mount { tidemark, disk_mib, rounds, seconds } => {
            mount::run(&mount::Options { tidemark, disk_mib, rounds, seconds }, &*env.clock).await
        }
        Bench::Overlay { tidemark, dir, disk_mib, rounds, seconds } => {
            overlay::run(&overlay::Options { tidemark, dir, disk_mib, rounds, seconds }, &env).await
        }
        Bench::Drva { tidemark, dir, rounds, seconds, data_mib } => {
            drva::run(&drva::Options { tidemark, dir, rounds, seconds, data_mib }, &env).await
        }
        Bench::Nbd { server, rounds, seconds } => nbd::run(&nbd::Options { server, rounds, seconds }, &*env.clock),
    }
}
