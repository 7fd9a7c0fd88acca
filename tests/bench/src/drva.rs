//! Guest writes through the whole appliance: log store, checksums, destaging and replication at work, beside NBD servers
//! that make every write durable in the disk itself, by fio over unix sockets.
//!
//! Every round measures all of them back to back on one device, and ratios are taken within a round. The bucket lies in
//! memory: the uplink is not what is measured.

use crate::corpus;
use crate::fio::{self, Load};
use crate::ingest;
use crate::report::{Goal, Report, median};
use crate::server::Server;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_env::{Clock, Env};
use tidemark_writer::create_domain;

/// What is measured.
pub(crate) struct Options {
    /// The `tidemark` binary.
    pub(crate) tidemark: PathBuf,
    /// Where log and primaries lie: the device that is measured.
    pub(crate) dir: PathBuf,
    /// Rounds of all servers.
    pub(crate) rounds: usize,
    /// Seconds of one measurement.
    pub(crate) seconds: u32,
    /// Data that is replicated, in MiB.
    pub(crate) data_mib: usize,
}

/// Size of each disk.
const DISK_MIB: u32 = 1024;

/// Where everything of one run lies.
struct Site {
    work: tempfile::TempDir,
    bucket: tempfile::TempDir,
    tidemark: PathBuf,
}

impl Site {
    fn new(options: &Options) -> Result<Self> {
        let work = tempfile::Builder::new().prefix("tidemark-bench").tempdir_in(&options.dir)?;
        let bucket = tempfile::Builder::new().prefix("tidemark-bench").tempdir_in("/dev/shm")?;
        let tidemark = options.tidemark.clone();
        Ok(Self { work, bucket, tidemark })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// A disk whose blocks were all written once: the first write of a block costs more.
    fn disk(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        let mut file = std::fs::File::create(&path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..DISK_MIB {
            std::io::Write::write_all(&mut file, &zeros)?;
        }
        file.sync_all()?;
        Ok(path)
    }

    /// The appliance with one disk in each mode.
    fn appliance(&self, clock: &dyn Clock) -> Result<Server> {
        let (at, bucket) = (self.work.path().display(), self.bucket.path().display());
        let mut config = format!(
            r#"
            appliance = {{ name = "bench", state = "{at}/state", socket = "{at}/api.sock" }}
            log_store = {{ path = "{at}/lun", size = "4GiB" }}
            nbd = {{ socket = "{at}/drva.sock" }}
            "#
        );
        for (name, mode) in [("back", "write-back"), ("through", "write-through")] {
            self.disk(name)?;
            config += &format!(
                r#"
                [[domain]]
                name = "{name}"
                url = "{bucket}/{name}"
                create = true
                [[domain.disk]]
                vm = "vm"
                disk = "disk"
                export = "{name}"
                primary = "{at}/{name}"
                mode = "{mode}"
                "#
            );
        }
        let file = self.path("drva.toml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(&self.tidemark);
        command.args(["drva", "run", "--config"]).arg(file).stdout(Stdio::null());
        Server::start(command, &self.path("drva.sock"), &["back", "through"], clock)
    }

    /// Runs one of the appliance's commands.
    fn drva(&self, args: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.tidemark);
        command.args(["drva", "--socket"]).arg(self.path("api.sock")).args(args).stdout(Stdio::null());
        ensure!(command.status()?.success(), "drva {} failed", args.join(" "));
        Ok(())
    }
}

pub(crate) async fn run(options: &Options, env: &Env) -> Result<Report> {
    let clock = &*env.clock;
    let site = Site::new(options)?;
    let ours = site.appliance(clock)?;
    let nbdkit_fua = {
        let mut command = Command::new("nbdkit");
        command.arg("--foreground").arg("--unix").arg(site.path("nbdkit.sock")).arg("file").arg(site.disk("nbdkit")?);
        command.args(["--filter=fua", "fuamode=force"]);
        Server::start(command, &site.path("nbdkit.sock"), &[""], clock)?
    };
    let qemu_nbd = {
        let mut command = Command::new("qemu-nbd");
        command.args(["--cache=directsync", "--format=raw", "--persistent", "--shared=0", "--export-name=disk"]);
        command.arg("--socket").arg(site.path("qemu.sock")).arg(site.disk("qemu")?);
        Server::start(command, &site.path("qemu.sock"), &["disk"], clock)?
    };
    let back = ours.export("back");
    let through = ours.export("through");
    let nbdkit = nbdkit_fua.export("");
    let qemu = qemu_nbd.export("disk");
    let bare = site.disk("bare")?;
    let bare = fio::Target::Durable(bare);

    let mut report = Report::default();
    let load = |what, block, depth| Load { what, block, depth, seconds: options.seconds, disk_mib: DISK_MIB };
    for (depth, to_nbdkit, to_qemu) in [(1, 1.0, 1.0), (64, 3.0, 5.0)] {
        let load = load("randwrite", "4k", depth);
        let rounds = fio::rounds(options.rounds, &[&back, &nbdkit, &qemu], &load)?;
        let name = format!("4 KiB random writes, QD{depth}");
        report.figure(format!("{name}: write-back"), rounds.median(0), "IOPS");
        report.figure(format!("{name}: nbdkit fua"), rounds.median(1), "IOPS");
        report.figure(format!("{name}: qemu-nbd directsync"), rounds.median(2), "IOPS");
        report.goal(format!("{name}: to nbdkit"), rounds.ratio(0, 1), "ratio", Goal::AtLeast(to_nbdkit));
        report.goal(format!("{name}: to qemu-nbd"), rounds.ratio(0, 2), "ratio", Goal::AtLeast(to_qemu));
        site.drva(&["drain", "back"])?;
    }
    let whole = Load { seconds: 0, ..load("write", "1m", 4) };
    let rounds = fio::rounds(options.rounds, &[&back, &bare], &whole)?;
    report.figure("1 MiB sequential writes: write-back", rounds.median(0), "MiB/s");
    report.figure("1 MiB sequential writes: device, O_DSYNC", rounds.median(1), "MiB/s");
    report.goal("1 MiB sequential writes: to the device", rounds.ratio(0, 1), "ratio", Goal::AtLeast(0.8));
    site.drva(&["drain", "back"])?;
    for target in [&back, &nbdkit] {
        // Both read from the host's page cache: what is compared is the way there.
        fio::run(target, &Load { seconds: 0, ..load("read", "1m", 4) })?;
    }
    for depth in [1, 64] {
        let rounds = fio::rounds(options.rounds, &[&back, &nbdkit], &load("randread", "4k", depth))?;
        let name = format!("4 KiB random reads, QD{depth}");
        report.figure(format!("{name}: appliance"), rounds.median(0), "IOPS");
        report.figure(format!("{name}: nbdkit file"), rounds.median(1), "IOPS");
        report.goal(format!("{name}: to nbdkit"), rounds.ratio(0, 1), "ratio", Goal::AtLeast(0.9));
    }
    for (what, target) in [("bare primary, O_DSYNC", &bare), ("write-through", &through), ("write-back", &back)] {
        let sample = fio::run(target, &load("randwrite", "4k", 1))?;
        report.figure(format!("latency of 4 KiB writes, {what}: p50"), sample.p50_us, "us");
        report.figure(format!("latency of 4 KiB writes, {what}: p99"), sample.p99_us, "us");
    }
    site.drva(&["drain", "through"])?;
    replication(options, &site, &through, env, &mut report).await?;
    Ok(report)
}

/// How fast the appliance ships what is in its log, beside the writer library that has the same data in memory.
async fn replication(
    options: &Options,
    site: &Site,
    export: &fio::Target,
    env: &Env,
    report: &mut Report,
) -> Result<()> {
    let data = Bytes::from(corpus::system_files(options.data_mib << 20)?);
    let image = site.path("image");
    std::fs::write(&image, &data)?;
    let seconds = |since| env.clock.monotonic().saturating_sub(since).as_secs_f64();
    let (mut alone, mut shipped, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let dir = site.bucket.path().join(format!("alone{round}"));
        let bucket = Bucket::open(&BucketUrl::file(&dir), &BucketOptions::default())?.appender();
        create_domain(&bucket, "bench", env).await?;
        let started = env.clock.monotonic();
        ingest::write_all(&bucket, &data, 2, env).await?;
        let took_alone = seconds(started);
        std::fs::remove_dir_all(&dir)?;

        site.drva(&["pause", "through"])?;
        copy(&image, export)?;
        let started = env.clock.monotonic();
        site.drva(&["resume", "through"])?;
        site.drva(&["drain", "through"])?;
        let took = seconds(started);
        let mib = options.data_mib as f64;
        alone.push(mib / took_alone);
        shipped.push(mib / took);
        ratios.push(took_alone / took);
    }
    report.figure("replication: writer library alone", median(&alone), "MiB/s");
    report.figure("replication: log to bucket", median(&shipped), "MiB/s");
    report.goal("replication: to the library", median(&ratios), "ratio", Goal::AtLeast(0.85));
    Ok(())
}

/// Writes an image to the start of an export.
fn copy(image: &Path, export: &fio::Target) -> Result<()> {
    let fio::Target::Export(uri) = export else { anyhow::bail!("no export to copy to") };
    let mut command = Command::new("nbdcopy");
    command.arg("--destination-is-zero").arg(image).arg(uri);
    ensure!(command.status().context("run nbdcopy (apt-get install libnbd-bin)")?.success(), "nbdcopy failed");
    Ok(())
}
