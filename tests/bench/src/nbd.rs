//! What the NBD server itself costs: a disk in memory behind it, beside nbdkit's memory plugin, by fio over a unix socket.
//!
//! Every round measures both back to back, and ratios are taken within a round.

use crate::fio::{self, Load};
use crate::report::{Goal, Report};
use crate::server::Server;
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;
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
const LOADS: [(&str, &str, &str, u32, f64); 6] = [
    ("4k_write_qd1", "randwrite", "4k", 1, 0.9),
    ("4k_write_qd16", "randwrite", "4k", 16, 1.0),
    ("4k_write_qd64", "randwrite", "4k", 64, 0.9),
    ("4k_read_qd64", "randread", "4k", 64, 0.9),
    ("1m_write_qd4", "write", "1m", 4, 0.8),
    ("1m_read_qd4", "read", "1m", 4, 0.8),
];
const DISK_MIB: u32 = 256;

pub(crate) fn run(options: &Options, clock: &dyn Clock) -> Result<Report> {
    let work = tempfile::Builder::new().prefix("tidemark-bench").tempdir()?;
    let socket = |name: &str| work.path().join(name);
    let mut command = Command::new(&options.server);
    command.args(["--size-bytes", &(u64::from(DISK_MIB) << 20).to_string(), "--unix"]).arg(socket("ours"));
    let ours = Server::start(command, &socket("ours"), &[""], clock)?;
    let mut command = Command::new("nbdkit");
    command.arg("--foreground").arg("--unix").arg(socket("peer")).args(["memory", &format!("{DISK_MIB}M")]);
    let peer = Server::start(command, &socket("peer"), &[""], clock)?;
    let targets = [ours.export(""), peer.export("")];
    for target in &targets {
        // Pages that are there, so that no load pays for making them.
        fio::run(target, &Load { what: "write", block: "1m", depth: 4, seconds: 0, disk_mib: DISK_MIB })?;
    }
    let mut report = Report::default();
    for (name, what, block, depth, least) in LOADS {
        let load = Load { what, block, depth, seconds: options.seconds, disk_mib: DISK_MIB };
        let rounds = fio::rounds(options.rounds, &[&targets[0], &targets[1]], &load)?;
        report.figure(format!("{name} ours"), rounds.median(0), "IOPS");
        report.figure(format!("{name} nbdkit"), rounds.median(1), "IOPS");
        report.goal(format!("{name} ours/nbdkit"), rounds.ratio(0, 1), "ratio", Goal::AtLeast(least));
    }
    Ok(report)
}
