//! Loads by fio, and rounds of them.

use crate::report::median;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// What is read or written.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// An NBD export, by its URI.
    Export(String),
    /// A file, read past the page cache.
    Direct(PathBuf),
    /// A file, each write durable before the next.
    Durable(PathBuf),
}

/// A load.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// fio's `rw`.
    pub(crate) what: &'static str,
    /// fio's `bs`.
    pub(crate) block: &'static str,
    /// Requests in flight.
    pub(crate) depth: u32,
    /// How long; 0 for once over the target.
    pub(crate) seconds: u32,
    /// What part of the target is used, in MiB.
    pub(crate) disk_mib: u32,
}

/// What one run reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Operations a second.
    pub(crate) iops: f64,
    /// Completion latencies in microseconds.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Runs one load.
///
/// # Errors
/// If fio cannot run, or met an error.
pub(crate) fn run(target: &Target, load: &Load) -> Result<Sample> {
    let mut command = Command::new("fio");
    command.args(["--name=load", "--randrepeat=0", "--output-format=json", &format!("--rw={}", load.what)]);
    command.args([format!("--bs={}", load.block), format!("--iodepth={}", load.depth)]);
    command.arg(format!("--size={}m", load.disk_mib));
    match target {
        Target::Export(uri) => command.args(["--ioengine=nbd", &format!("--uri={uri}")]),
        Target::Direct(file) => command.args(["--ioengine=libaio", "--direct=1"]).arg(filename(file)),
        Target::Durable(file) => command.args(["--ioengine=libaio", "--direct=1", "--sync=dsync"]).arg(filename(file)),
    };
    if load.seconds > 0 {
        command.args(["--time_based", &format!("--runtime={}", load.seconds)]);
    }
    let out = command.output().context("run fio (apt-get install fio)")?;
    if !out.status.success() {
        bail!("fio on {target:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    // The engine for NBD says hello on stdout.
    let start = out.stdout.iter().position(|byte| *byte == b'{').context("fio printed no JSON")?;
    let json: Value = serde_json::from_slice(&out.stdout[start..]).context("parse fio's JSON")?;
    let job = &json["jobs"][0];
    ensure!(job["error"] == 0, "fio on {target:?} met error {}", job["error"]);
    let side = &job[if load.what.ends_with("read") { "read" } else { "write" }];
    let percentile = |name: &str| side["clat_ns"]["percentile"][name].as_f64().map_or(f64::NAN, |ns| ns / 1000.0);
    let iops = side["iops"].as_f64().context("fio reports no iops")?;
    Ok(Sample { iops, p50_us: percentile("50.000000"), p99_us: percentile("99.000000") })
}

fn filename(file: &std::path::Path) -> String {
    format!("--filename={}", file.display())
}

/// Operations a second by target, of several rounds.
pub(crate) struct Rounds(Vec<Vec<f64>>);

/// Runs `load` on each target back to back, again and again.
///
/// # Errors
/// As for [`run`].
pub(crate) fn rounds(count: usize, targets: &[&Target], load: &Load) -> Result<Rounds> {
    let mut by_target = vec![Vec::new(); targets.len()];
    for _ in 0..count {
        for (samples, target) in by_target.iter_mut().zip(targets) {
            samples.push(run(target, load)?.iops);
        }
    }
    Ok(Rounds(by_target))
}

impl Rounds {
    /// Operations a second of one target.
    pub(crate) fn median(&self, target: usize) -> f64 {
        median(&self.0[target])
    }

    /// How one target compares with another, taken within each round.
    pub(crate) fn ratio(&self, target: usize, peer: usize) -> f64 {
        let ratios: Vec<_> = self.0[target].iter().zip(&self.0[peer]).map(|(a, b)| a / b).collect();
        median(&ratios)
    }
}
