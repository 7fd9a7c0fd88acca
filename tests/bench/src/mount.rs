//! Reads of a mounted disk from our cache, beside a plain tmpfs file and QEMU's FUSE export of it, by fio.
//!
//! Every round measures each target back to back, and ratios are taken within a round: the machine's speed drifts more
//! between minutes than the targets differ.

use crate::corpus;
use crate::fio::{self, Load};
use crate::ingest;
use crate::report::{Goal, Report};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tidemark_env::Clock;

/// What is measured.
pub(crate) struct Options {
    /// The `tidemark` binary.
    pub(crate) tidemark: PathBuf,
    /// Size of the disk in MiB.
    pub(crate) disk_mib: usize,
    /// Rounds of all targets.
    pub(crate) rounds: usize,
    /// Seconds of one measurement.
    pub(crate) seconds: u32,
}

/// (name, block size, queue depth).
const LOADS: [(&str, &str, u32); 4] =
    [("4k_qd1", "4k", 1), ("4k_qd32", "4k", 32), ("1m_qd1", "1m", 1), ("1m_qd4", "1m", 4)];
/// Seconds that a server may take until its file can be read.
const START_SECONDS_MAX: u64 = 30;

/// A server process that is stopped and unmounted when it goes out of scope.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) mounted: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = Command::new("kill").arg(self.child.id().to_string()).status();
        if !stopped.is_ok_and(|status| status.success()) {
            self.child.kill().ok();
        }
        self.child.wait().ok();
        // Already gone after a clean stop; this is for the other case.
        Command::new("umount").arg("-l").arg(&self.mounted).stderr(Stdio::null()).status().ok();
    }
}

pub(crate) async fn run(options: &Options, clock: &dyn Clock) -> Result<Report> {
    let work = tempfile::Builder::new().prefix("tidemark-bench").tempdir_in("/dev/shm")?;
    let plain = work.path().join("plain.raw");
    let disk = corpus::system_files(options.disk_mib << 20)?;
    std::fs::write(&plain, &disk)?;

    let bucket = work.path().join("bucket");
    ingest::seed_bucket(&bucket, &disk).await.context("fill a bucket with the disk")?;
    drop(disk);
    let ours_dir = work.path().join("ours");
    std::fs::create_dir(&ours_dir)?;
    let cache = format!("{}M", options.disk_mib * 2);
    let ours = Server {
        child: Command::new(&options.tidemark)
            .args(["mount", "--at", "latest", "--cache", &cache])
            .args([&bucket, &ours_dir])
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", options.tidemark.display()))?,
        mounted: ours_dir.clone(),
    };
    let ours_file = ours_dir.join("vm/disk.raw");
    wait_readable(&ours_file, options.disk_mib, clock)?;

    let peer_file = work.path().join("peer.raw");
    std::fs::write(&peer_file, b"")?;
    let _peer = Server {
        child: Command::new("qemu-storage-daemon")
            .args(["--blockdev", &format!("driver=file,node-name=f,filename={},read-only=on", plain.display())])
            .args(["--blockdev", "driver=raw,node-name=r,file=f,read-only=on"])
            .args(["--export", &format!("fuse,id=e,node-name=r,mountpoint={},writable=off", peer_file.display())])
            .spawn()
            .context("start qemu-storage-daemon (apt-get install qemu-utils)")?,
        mounted: peer_file.clone(),
    };
    wait_readable(&peer_file, options.disk_mib, clock)?;

    // Everything once through our cache, so that what is measured is a hit.
    let warmed = Command::new("cmp").arg(&plain).arg(&ours_file).status().context("compare the mount with the disk")?;
    ensure!(warmed.success(), "the mount differs from the disk that was ingested");

    let targets = [&plain, &ours_file, &peer_file].map(|file| fio::Target::Direct(file.clone()));
    let mut report = Report::default();
    for (name, block, depth) in LOADS {
        let load = Load { what: "randread", block, depth, seconds: options.seconds, disk_mib: options.disk_mib as u32 };
        let rounds = fio::rounds(options.rounds, &[&targets[0], &targets[1], &targets[2]], &load)?;
        for (index, target) in ["plain", "ours", "qsd"].iter().enumerate() {
            report.figure(format!("{name} {target}"), rounds.median(index), "IOPS");
        }
        report.figure(format!("{name} ours/plain"), rounds.ratio(1, 0), "ratio");
        report.goal(format!("{name} ours/qsd"), rounds.ratio(1, 2), "ratio", Goal::AtLeast(3.0));
    }
    report.figure("resident memory of the mount", resident_mib(ours.child.id())?, "MiB");
    report.figure("cache of the mount", (options.disk_mib * 2) as f64, "MiB");
    Ok(report)
}

/// Waits until the first and last block can be read.
pub(crate) fn wait_readable(file: &Path, disk_mib: usize, clock: &dyn Clock) -> Result<()> {
    let give_up = clock.monotonic() + std::time::Duration::from_secs(START_SECONDS_MAX);
    let size = (disk_mib as u64) << 20;
    while std::fs::metadata(file).map(|meta| meta.len()).ok() != Some(size) {
        ensure!(clock.monotonic() < give_up, "{} did not appear within {START_SECONDS_MAX} s", file.display());
        std::thread::yield_now();
    }
    Ok(())
}

fn resident_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no number in VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}
