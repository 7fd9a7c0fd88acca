//! Recovery disks beside a plain file and QEMU's overlay of the same disk: writes, a file system on a loop device, a hydrated disk
//! opened anew, and how fast hydration goes.
//!
//! As in [`crate::mount`], every round measures each target back to back, and ratios are taken within a round.

use crate::corpus;
use crate::fio::{self, Load, Target};
use crate::ingest;
use crate::mount::{Server, wait_readable};
use crate::report::{Goal, Report, median};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl, ReadOnly};
use tidemark_env::{Clock, Env};
use tidemark_format::{KeyFamily, ObjectKey};
use tidemark_overlay::{HydrateOptions, Hydrator, ImageSource, Overlay};
use tidemark_reader::{Domain, ReaderOptions};

/// What is measured.
pub(crate) struct Options {
    /// The `tidemark` binary.
    pub(crate) tidemark: PathBuf,
    /// Where local files lie: the device that is measured.
    pub(crate) dir: PathBuf,
    /// Size of the disk in MiB.
    pub(crate) disk_mib: usize,
    /// Rounds of all targets.
    pub(crate) rounds: usize,
    /// Seconds of one measurement.
    pub(crate) seconds: u32,
}

pub(crate) async fn run(options: &Options, env: &Env) -> Result<Report> {
    let shm = tempfile::Builder::new().prefix("tidemark-bench").tempdir_in("/dev/shm")?;
    let work = tempfile::Builder::new().prefix("tidemark-bench").tempdir_in(&options.dir)?;
    let disk = corpus::system_files(options.disk_mib << 20)?;
    let (bucket, plain) = (shm.path().join("bucket"), work.path().join("plain.raw"));
    ingest::seed_bucket(&bucket, &disk).await.context("fill a bucket with the disk")?;
    write_durably(&plain, &disk)?;

    let mut report = Report::default();
    hydration(options, &bucket, work.path(), &disk, env, &mut report).await?;
    drop(disk);
    let scene = Scene { options, bucket: &bucket, plain: &plain, work: work.path(), clock: &*env.clock };
    scene.writes(&mut report)?;
    scene.file_system(&mut report)?;
    scene.reopened(&mut report)?;
    Ok(report)
}

fn write_durably(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(file)?;
    file.write_all(bytes)?;
    Ok(file.sync_all()?)
}

/// Hydration against what the store gives and what the local disk takes, in the same rounds.
async fn hydration(
    options: &Options,
    bucket: &Path,
    work: &Path,
    disk: &[u8],
    env: &Env,
    report: &mut Report,
) -> Result<()> {
    let clock: &dyn Clock = &*env.clock;
    let store = Bucket::open(&BucketUrl::file(bucket), &BucketOptions::default())?.read_only();
    let (mut gets, mut writes, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let mut ratios = Vec::new();
    let mib = disk.len() as f64 / f64::from(1 << 20);
    for round in 0..options.rounds {
        let begun = clock.monotonic();
        fetch_all(&store).await?;
        let get = mib / (clock.monotonic() - begun).as_secs_f64();

        let begun = clock.monotonic();
        let copy = work.join("copy.raw");
        write_durably(&copy, disk)?;
        let write = mib / (clock.monotonic() - begun).as_secs_f64();
        std::fs::remove_file(&copy)?;

        let domain = Domain::open(store.clone(), ReaderOptions::default(), env.clone()).await?;
        let at = domain.timeline().latest().lsn;
        let id = domain.timeline().disks_at(at).first().context("no disk in the bucket")?.id;
        let source = Arc::new(ImageSource::new(domain.disk(id, at).await?));
        let stem = format!("hydrated{round}");
        let overlay = Overlay::open_at(work, &stem, source, env)?;
        let begun = clock.monotonic();
        let hydrated = Hydrator::new(overlay, HydrateOptions::default(), env.clone()).run().await?;
        let own = mib / (clock.monotonic() - begun).as_secs_f64();
        ensure!(hydrated.finished.is_some(), "{} bytes stayed absent", hydrated.unfilled_bytes);
        let raw = work.join(format!("{stem}.raw"));
        ensure!(round > 0 || std::fs::read(&raw)? == disk, "the hydrated disk differs");
        std::fs::remove_file(raw)?;
        gets.push(get);
        writes.push(write);
        ours.push(own);
        ratios.push(own / get.min(write));
    }
    report.figure("the disk's bytes, fetched with no more done", median(&gets), "MiB/s");
    report.figure("the disk's bytes, written and synced", median(&writes), "MiB/s");
    report.figure("hydration", median(&ours), "MiB/s");
    report.goal("hydration/lower of the two", median(&ratios), "ratio", Goal::AtLeast(0.8));
    Ok(())
}

/// Every object of the log, four at a time.
async fn fetch_all(store: &ReadOnly) -> Result<()> {
    let names = store.list(KeyFamily::Log).await?;
    let keys: Vec<ObjectKey> = names.iter().filter_map(|(name, _)| name.parse().ok()).collect();
    ensure!(!keys.is_empty(), "the bucket has no segments");
    let bodies = stream::iter(keys).map(|key| async move { store.get(&key).await });
    bodies.buffer_unordered(4).try_for_each(|_| async { Ok(()) }).await?;
    Ok(())
}

struct Scene<'a> {
    options: &'a Options,
    bucket: &'a Path,
    plain: &'a Path,
    work: &'a Path,
    clock: &'a dyn Clock,
}

impl Scene<'_> {
    /// A mount with an overlay of its own; its file.
    fn ours(&self, name: &str, more: &[&str]) -> Result<(Server, PathBuf)> {
        let (dir, local) = (self.work.join(name), self.work.join(format!("{name}.local")));
        std::fs::create_dir(&dir)?;
        let mut command = Command::new(&self.options.tidemark);
        command.arg("mount").arg(self.bucket).arg(&dir).arg("--overlay").arg(&local).args(more);
        let child = command.stdout(Stdio::null()).spawn();
        let child = child.with_context(|| format!("start {}", self.options.tidemark.display()))?;
        let file = dir.join("vm/disk.raw");
        let server = Server { child, mounted: dir };
        wait_readable(&file, self.options.disk_mib, self.clock)?;
        Ok((server, file))
    }

    /// QEMU's export of an image; its file.
    fn peer(&self, name: &str, driver: &str, image: &Path) -> Result<(Server, PathBuf)> {
        let file = self.work.join(name);
        std::fs::write(&file, b"")?;
        let child = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &format!("driver=file,node-name=f,filename={}", image.display())])
            .args(["--blockdev", &format!("driver={driver},node-name=r,file=f")])
            .args(["--export", &format!("fuse,id=e,node-name=r,mountpoint={},writable=on", file.display())])
            .spawn()
            .context("start qemu-storage-daemon (apt-get install qemu-utils)")?;
        let server = Server { child, mounted: file.clone() };
        wait_readable(&file, self.options.disk_mib, self.clock)?;
        Ok((server, file))
    }

    fn load(&self, what: &'static str, block: &'static str, depth: u32) -> Load {
        let Options { seconds, disk_mib, .. } = *self.options;
        Load { what, block, depth, seconds, disk_mib: disk_mib as u32 }
    }

    /// Writes over the point, against QEMU's overlay.
    fn writes(&self, report: &mut Report) -> Result<()> {
        let image = self.work.join("peer.qcow2");
        let backing = self.work.join("backing.raw");
        std::fs::copy(self.plain, &backing)?;
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .args([&backing, &image])
            .status()
            .context("run qemu-img")?;
        ensure!(made.success(), "qemu-img made no overlay");
        let (_peer, theirs) = self.peer("peer.raw", "qcow2", &image)?;
        let (_ours, ours) = self.ours("ours", &[])?;
        let direct = |file: &Path| Target::Direct(file.to_owned());
        let durable = |file: &Path| Target::Durable(file.to_owned());
        type Kind<'a> = &'a dyn Fn(&Path) -> Target;
        let shapes: [(&str, Kind<'_>, Load, f64); 3] = [
            ("write 4k_qd32", &direct, self.load("randwrite", "4k", 32), 2.0),
            ("write 1m_qd4", &direct, self.load("write", "1m", 4), 2.0),
            ("write 4k_each_durable", &durable, self.load("randwrite", "4k", 1), 1.0),
        ];
        for (name, kind, load, goal) in shapes {
            let targets = [kind(self.plain), kind(&ours), kind(&theirs)];
            let rounds = fio::rounds(self.options.rounds, &[&targets[0], &targets[1], &targets[2]], &load)?;
            for (index, target) in ["plain", "ours", "qsd qcow2"].iter().enumerate() {
                report.figure(format!("{name} {target}"), rounds.median(index), "IOPS");
            }
            report.figure(format!("{name} ours/plain"), rounds.ratio(1, 0), "ratio");
            report.goal(format!("{name} ours/qsd qcow2"), rounds.ratio(1, 2), "ratio", Goal::AtLeast(goal));
        }
        Ok(())
    }

    /// A file of ext4 on a loop device on the disk, which was written to both beforehand.
    fn file_system(&self, report: &mut Report) -> Result<()> {
        let (image, tree) = (self.work.join("loop.raw"), self.work.join("tree"));
        let part = self.options.disk_mib as u32 / 2;
        std::fs::create_dir(&tree)?;
        write_durably(&tree.join("file"), &corpus::system_files((part as usize) << 20)?)?;
        write_durably(&image, &[])?;
        File::options().write(true).open(&image)?.set_len((self.options.disk_mib as u64) << 20)?;
        let made =
            Command::new("mkfs.ext4").args(["-q", "-d"]).args([&tree, &image]).status().context("run mkfs.ext4")?;
        ensure!(made.success(), "mkfs.ext4");
        let (_peer, theirs) = self.peer("loop-peer.raw", "raw", &image)?;
        let (_ours, ours) = self.ours("loop", &[])?;
        let copied = std::io::copy(&mut File::open(&image)?, &mut File::options().write(true).open(&ours)?)?;
        ensure!(copied == (self.options.disk_mib as u64) << 20, "{copied} bytes were copied");
        let ours = Looped::new(&ours, &self.work.join("loop.ours"))?;
        let theirs = Looped::new(&theirs, &self.work.join("loop.theirs"))?;
        let load = Load { disk_mib: part, ..self.load("randread", "4k", 32) };
        let targets = [&ours, &theirs].map(|looped| Target::Direct(looped.dir.join("file")));
        let rounds = fio::rounds(self.options.rounds, &[&targets[0], &targets[1]], &load)?;
        report.figure("ext4 on loop 4k_qd32 ours", rounds.median(0), "IOPS");
        report.figure("ext4 on loop 4k_qd32 qsd raw", rounds.median(1), "IOPS");
        report.goal("ext4 on loop 4k_qd32 ours/qsd raw", rounds.ratio(0, 1), "ratio", Goal::AtLeast(2.5));
        Ok(())
    }

    /// A hydrated disk that is opened anew to be read.
    fn reopened(&self, report: &mut Report) -> Result<()> {
        let (_ours, ours) = self.ours("hydrated", &["--hydrate"])?;
        let (_peer, theirs) = self.peer("reopened.raw", "raw", self.plain)?;
        let finished = || {
            let mut value = [0; 8];
            let len = rustix::fs::getxattr(&ours, "user.tidemark.finished", &mut value)?;
            Ok::<_, rustix::io::Errno>(&value[..len] == b"true")
        };
        let give_up = self.clock.monotonic() + std::time::Duration::from_secs(120);
        while !finished()? {
            ensure!(self.clock.monotonic() < give_up, "not hydrated within two minutes");
        }
        let targets = [self.plain, &ours, &theirs].map(|file| Target::Direct(file.to_owned()));
        for (name, block, depth, goal) in
            [("4k_qd1", "4k", 1, 0.95), ("4k_qd32", "4k", 32, 0.75), ("1m_qd1", "1m", 1, 0.95)]
        {
            let load = self.load("randread", block, depth);
            let rounds = fio::rounds(self.options.rounds, &[&targets[0], &targets[1], &targets[2]], &load)?;
            for (index, target) in ["plain", "ours", "qsd raw"].iter().enumerate() {
                report.figure(format!("hydrated {name} {target}"), rounds.median(index), "IOPS");
            }
            report.goal(format!("hydrated {name} ours/plain"), rounds.ratio(1, 0), "ratio", Goal::AtLeast(goal));
        }
        Ok(())
    }
}

/// The file system in a file, on a loop device, read-only.
struct Looped {
    device: String,
    dir: PathBuf,
}

impl Looped {
    fn new(file: &Path, dir: &Path) -> Result<Self> {
        std::fs::create_dir(dir)?;
        let out =
            Command::new("losetup").args(["--find", "--show", "--read-only", "--direct-io=on"]).arg(file).output()?;
        ensure!(out.status.success(), "losetup: {}", String::from_utf8_lossy(&out.stderr));
        let looped = Self { device: String::from_utf8(out.stdout)?.trim().to_owned(), dir: dir.to_owned() };
        ensure!(Command::new("mount").args(["-o", "ro"]).arg(&looped.device).arg(dir).status()?.success(), "mount");
        Ok(looped)
    }
}

impl Drop for Looped {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.dir).status().ok();
        Command::new("losetup").args(["-d", &self.device]).status().ok();
    }
}
