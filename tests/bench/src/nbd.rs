//! What the NBD server itself costs: a disk in memory behind it, beside nbdkit's memory plugin, by fio over a unix socket.
//!
//! Every round measures both back to back, and ratios are taken within a round.

use crate::report::{Goal, Report, median};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tidemark_env::Clock;

/// What is measured.
pub(crate) struct Options {
    /// The `tidemark-memory-disk` binary.
    pub(crate) server: PathBuf,
    /// Rounds of both servers.
    pub(crate) rounds: usize,
    /// Seconds of one measurement.
    pub(crate) seconds: u32,
}

/// (name, what fio does, block size, queue depth, least ratio).
const LOADS: [(&str, &str, &str, u32, Option<f64>); 6] = [
    ("4k_write_qd1", "randwrite", "4k", 1, Some(0.9)),
    ("4k_write_qd16", "randwrite", "4k", 16, Some(1.0)),
    ("4k_write_qd64", "randwrite", "4k", 64, Some(0.9)),
    ("4k_read_qd64", "randread", "4k", 64, Some(0.9)),
    ("1m_write_qd4", "write", "1m", 4, Some(0.8)),
    ("1m_read_qd4", "read", "1m", 4, Some(0.8)),
];
const DISK_MIB: u32 = 256;
/// Seconds that a server may take until it listens.
const START_SECONDS_MAX: u64 = 30;

/// A server process that is stopped when it goes out of scope.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    fn start(mut command: Command, socket: PathBuf, clock: &dyn Clock) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("start {name}"))?;
        let server = Self { child, socket };
        let give_up = clock.monotonic() + std::time::Duration::from_secs(START_SECONDS_MAX);
        while std::os::unix::net::UnixStream::connect(&server.socket).is_err() {
            ensure!(clock.monotonic() < give_up, "{name} did not listen within {START_SECONDS_MAX} s");
            std::thread::yield_now();
        }
        Ok(server)
    }
}

pub(crate) fn run(options: &Options, clock: &dyn Clock) -> Result<Report> {
    let work = tempfile::Builder::new().prefix("tidemark-bench").tempdir()?;
    let socket = |name: &str| work.path().join(name);
    let mut command = Command::new(&options.server);
    command.args(["--size-bytes", &(u64::from(DISK_MIB) << 20).to_string(), "--unix"]).arg(socket("ours"));
    let ours = Server::start(command, socket("ours"), clock)?;
    let mut command = Command::new("nbdkit");
    command.arg("--foreground").arg("--unix").arg(socket("peer")).args(["memory", &format!("{DISK_MIB}M")]);
    let peer = Server::start(command, socket("peer"), clock)?;
    for server in [&ours, &peer] {
        // Pages that are there, so that no load pays for making them.
        fio(&server.socket, "write", "1m", 4, None)?;
    }
    let mut report = Report::default();
    for (name, what, block, depth, least) in LOADS {
        let (mut iops, mut ratios) = ([vec![], vec![]], Vec::new());
        for _ in 0..options.rounds {
            let one = [&ours, &peer].map(|server| fio(&server.socket, what, block, depth, Some(options.seconds)));
            let [ours, peer] = one;
            let (ours, peer) = (ours?, peer?);
            ratios.push(ours / peer);
            iops[0].push(ours);
            iops[1].push(peer);
        }
        report.figure(format!("{name} ours"), median(&iops[0]), "IOPS");
        report.figure(format!("{name} nbdkit"), median(&iops[1]), "IOPS");
        match least {
            Some(least) => {
                report.goal(format!("{name} ours/nbdkit"), median(&ratios), "ratio", Goal::AtLeast(least));
            }
            None => report.figure(format!("{name} ours/nbdkit"), median(&ratios), "ratio"),
        }
    }
    Ok(report)
}

/// Operations a second; over the whole disk once, or for so long.
fn fio(socket: &Path, what: &str, block: &str, depth: u32, seconds: Option<u32>) -> Result<f64> {
    let mut command = Command::new("fio");
    command
        .args(["--name=nbd", "--ioengine=nbd", "--randrepeat=0", "--output-format=json", &format!("--rw={what}")])
        .arg(format!("--uri=nbd+unix:///?socket={}", socket.display()))
        .args([format!("--bs={block}"), format!("--iodepth={depth}"), format!("--size={DISK_MIB}m")]);
    if let Some(seconds) = seconds {
        command.args(["--time_based", &format!("--runtime={seconds}")]);
    }
    let out = command.output().context("run fio (apt-get install fio)")?;
    if !out.status.success() {
        bail!("fio on {}: {}", socket.display(), String::from_utf8_lossy(&out.stderr));
    }
    // The engine says hello on stdout.
    let start = out.stdout.iter().position(|byte| *byte == b'{').context("fio printed no JSON")?;
    let json: Value = serde_json::from_slice(&out.stdout[start..]).context("parse fio's JSON")?;
    let job = &json["jobs"][0];
    ensure!(job["error"] == 0, "fio on {} met error {}", socket.display(), job["error"]);
    let side = if what.ends_with("read") { "read" } else { "write" };
    job[side]["iops"].as_f64().context("fio reports no iops")
}
