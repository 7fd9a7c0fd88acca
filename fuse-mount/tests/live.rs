//! Recovery disks through the real kernel: what is written, discarded, flushed and hydrated. Needs root and /dev/fuse.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up must fail it")]

#[path = "../../reader/tests/common/mod.rs"]
mod common;

use common::{LogBuilder, hasty, noise, small_options};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemark_bucket::{Bucket, Faults};
use tidemark_env::Env;
use tidemark_fuse::{LiveDisk, LiveTree, MountHandle, ServeOptions, open_disks, serve};
use tidemark_overlay::{Boot, DiskFiles, HydrateOptions, Hydrator, LocalFile, LocalFiles, Overlay};
use tidemark_reader::{Domain, Point};

const SIZE: u64 = 64 << 20;

/// A point's disks, mounted to be written to.
struct Live {
    mount: MountHandle,
    disks: Vec<LiveDisk>,
    dir: PathBuf,
    runtime: tokio::runtime::Runtime,
    _keep: tempfile::TempDir,
}

impl Live {
    fn file(&self) -> File {
        OpenOptions::new().read(true).write(true).open(self.path()).unwrap()
    }
    fn path(&self) -> PathBuf {
        self.dir.join("vm/disk1.raw")
    }
    fn hydrate(&self) {
        let hydrator = Hydrator::new(self.disks[0].overlay.clone(), HydrateOptions::default(), Env::system());
        assert!(self.runtime.block_on(hydrator.run()).unwrap().finished.is_some());
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn options() -> ServeOptions {
    ServeOptions {
        busy_grace: Duration::from_millis(200),
        source_name: "tidemark:test".into(),
        request_deadline: Duration::from_secs(5),
        ..ServeOptions::default()
    }
}

/// A disk with data, zeros and half-written units, and what it holds.
async fn point() -> (LogBuilder, Vec<u8>) {
    let mut log = LogBuilder::new(Bucket::memory_with(hasty())).await;
    let disk = log.blank_disk(1, SIZE / 512);
    let mut image = vec![0; SIZE as usize];
    for n in 0..60u64 {
        let (start, len) = (n * 1999 % (SIZE / 512 - 600), 1 + n * 37 % 500);
        let data = noise(n, len as usize * 512);
        log.write(disk, start, &data);
        image[start as usize * 512..][..data.len()].copy_from_slice(&data);
        if n % 20 == 19 {
            log.seal().await;
        }
    }
    (log, image)
}

async fn open(bucket: &Bucket) -> (Domain, Point) {
    let domain = Domain::open(bucket.read_only(), small_options(), Env::system()).await.unwrap();
    let at = domain.timeline().latest();
    (domain, at)
}

fn mount_disks(runtime: tokio::runtime::Runtime, disks: Vec<LiveDisk>) -> Live {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path().canonicalize().unwrap();
    let tree = Arc::new(LiveTree::new(disks.clone()));
    let mount = serve(tree, &dir, &options(), &Env::system()).unwrap();
    Live { mount, disks, dir, runtime, _keep: keep }
}

fn mount_overlay(bucket: &Bucket, local: &Path) -> Live {
    let runtime = runtime();
    let disks = runtime.block_on(async {
        let (domain, at) = open(bucket).await;
        open_disks(&domain, at, local, &Env::system()).await.unwrap()
    });
    mount_disks(runtime, disks)
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text.trim().to_owned()
}

/// Files that fail as a test says.
struct Trouble {
    files: DiskFiles,
    data: Arc<dyn LocalFile>,
}

struct TroubleFile {
    file: Arc<dyn LocalFile>,
    full: Arc<AtomicBool>,
    forgets: Arc<AtomicBool>,
}

impl LocalFile for TroubleFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }
    fn read_now(&self, buffer: &mut [u8], offset: u64) -> bool {
        self.file.read_now(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_at(bytes, offset)
    }
    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.file.punch(range)
    }
    fn sync(&self) -> io::Result<()> {
        if self.forgets.swap(false, Ordering::SeqCst) { Err(io::Error::other("lost")) } else { self.file.sync() }
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.next_data(offset)
    }
    fn next_hole(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.next_hole(offset)
    }
}

impl LocalFiles for Trouble {
    fn data(&self) -> &Arc<dyn LocalFile> {
        &self.data
    }
    fn map(&self) -> io::Result<Option<Arc<dyn LocalFile>>> {
        self.files.map()
    }
    fn replace_map(&self, contents: &[u8]) -> io::Result<Arc<dyn LocalFile>> {
        self.files.replace_map(contents)
    }
}

/// A disk on a local disk that can be told to be full, or to forget.
fn mount_trouble(local: &Path) -> (Live, Arc<AtomicBool>, Arc<AtomicBool>) {
    let runtime = runtime();
    let (full, forgets) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let disks = runtime.block_on(async {
        let (log, _) = point().await;
        let (domain, at) = open(&log.bucket).await;
        let disk = domain.timeline().disks_at(at.lsn)[0].clone();
        let source = Arc::new(tidemark_overlay::ImageSource::new(domain.disk(disk.id, at.lsn).await.unwrap()));
        let files = DiskFiles::open(local, "disk1", SIZE).unwrap();
        let file = TroubleFile { file: files.data().clone(), full: full.clone(), forgets: forgets.clone() };
        let files = Trouble { files, data: Arc::new(file) };
        let overlay = Overlay::open(Box::new(files), source, &Boot::current().unwrap(), &Env::system()).unwrap();
        vec![LiveDisk { id: disk.id, vm: disk.vm, name: disk.name, time: at.time, overlay }]
    });
    (mount_disks(runtime, disks), full, forgets)
}

#[test]
fn contract_a_recovery_disk_reads_as_it_was_written_over_its_point() {
    let local = tempfile::tempdir().unwrap();
    let (log, mut wanted) = runtime().block_on(point());
    let live = mount_overlay(&log.bucket, local.path());
    let meta = fs::metadata(live.path()).unwrap();
    assert_eq!((meta.len(), meta.mode() & 0o777), (SIZE, 0o600));
    let file = live.file();
    for n in 0..200u64 {
        let (offset, len) = (n * 104_729 * 17 % (SIZE - 70_000), 1 + n * 997 % 69_000);
        let data = noise(n + 1000, len as usize);
        file.write_all_at(&data, offset).unwrap();
        wanted[offset as usize..][..data.len()].copy_from_slice(&data);
        let (from, len) = (offset.saturating_sub(5000), data.len() + 10_000);
        let mut back = vec![0; len.min((SIZE - from) as usize)];
        live.file().read_exact_at(&mut back, from).unwrap();
        assert!(back == wanted[from as usize..][..back.len()], "write {n} of {len} at {offset}");
    }
    drop(file);
    assert!(fs::read(live.path()).unwrap() == wanted);
    assert!(live.mount.stats().writes >= 200);
    assert_eq!(errno(fs::write(live.dir.join("vm/new"), b"x")), libc::EROFS);
    assert_eq!(errno(fs::remove_file(live.path())), libc::EROFS);
}

#[test]
fn contract_overlays_of_one_point_do_not_see_each_other() {
    let local = tempfile::tempdir().unwrap();
    let (log, original) = runtime().block_on(point());
    let lives = ["a", "b"].map(|name| mount_overlay(&log.bucket, &local.path().join(name)));
    for (n, live) in (1u8..).zip(&lives) {
        live.file().write_all_at(&[n; 8192], u64::from(n) * 4096).unwrap();
    }
    for (n, live) in (1u8..).zip(&lives) {
        let mut wanted = original.clone();
        wanted[usize::from(n) * 4096..][..8192].fill(n);
        assert!(fs::read(live.path()).unwrap() == wanted);
    }
    let objects = mount_overlay(&log.bucket, &local.path().join("c"));
    assert!(fs::read(objects.path()).unwrap() == original, "the point is as it was");
}

#[test]
fn contract_a_flush_that_fails_is_an_error_and_so_is_every_later_one() {
    let local = tempfile::tempdir().unwrap();
    let (live, _, forgets) = mount_trouble(local.path());
    let file = live.file();
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(&[2; 4096], 0).unwrap();
    forgets.store(true, Ordering::SeqCst);
    assert_eq!(errno(file.sync_data()), libc::EIO);
    assert_eq!(errno(file.sync_data()), libc::EIO);
    assert_eq!(errno(file.write_all_at(&[3; 4096], 0)), libc::EIO);
    let mut page = [0; 4096];
    file.read_exact_at(&mut page, 0).unwrap();
}

#[test]
fn contract_discards_read_as_zeros_and_the_size_stays() {
    use rustix::fs::{FallocateFlags as How, fallocate};
    let local = tempfile::tempdir().unwrap();
    let (log, mut wanted) = runtime().block_on(point());
    let live = mount_overlay(&log.bucket, local.path());
    let file = live.file();
    file.write_all_at(&noise(1, 4 << 20), 1 << 20).unwrap();
    wanted[1 << 20..5 << 20].copy_from_slice(&noise(1, 4 << 20));
    file.sync_all().unwrap();
    let raw = local.path().join("vm/disk1.raw");
    let before = fs::metadata(&raw).unwrap().blocks();
    let punch = How::PUNCH_HOLE | How::KEEP_SIZE;
    for (how, range) in [
        (punch, 2 << 20..4 << 20),
        (How::ZERO_RANGE, 4_999_999..5_001_111),
        (How::ZERO_RANGE | How::KEEP_SIZE, 20 << 20..30 << 20),
        (punch, SIZE - 777..SIZE + 12_345),
    ] {
        fallocate(&file, how, range.start, range.end - range.start).unwrap();
        wanted[range.start as usize..(range.end as usize).min(SIZE as usize)].fill(0);
    }
    assert!(fs::read(live.path()).unwrap() == wanted);
    file.sync_all().unwrap();
    assert!(fs::metadata(&raw).unwrap().blocks() + 3000 < before, "the space is free again");
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(20 << 20)).unwrap();
    assert_eq!(hole, 20 << 20);
    assert_eq!(errno(file.set_len(SIZE * 2)), libc::EPERM);
    assert_eq!(errno(file.set_len(0)), libc::EPERM);
    file.set_len(SIZE).unwrap();
    assert!(file.write_all_at(&[1; 4096], SIZE).is_err());
    assert_eq!(fallocate(&file, How::empty(), 0, 4096), Err(rustix::io::Errno::OPNOTSUPP));
    assert_eq!(fs::metadata(live.path()).unwrap().len(), SIZE);
}

#[test]
fn contract_whole_units_are_written_without_the_bucket() {
    let local = tempfile::tempdir().unwrap();
    let (log, _) = runtime().block_on(point());
    let away = Faults::seeded(1).surfacing();
    let bucket = log.bucket.with_faults(away.clone());
    let live = mount_overlay(&bucket, local.path());
    away.vanish();
    let file = live.file();
    file.write_all_at(&noise(1, 8192), 40 << 20).unwrap();
    let mut back = vec![0; 8192];
    file.read_exact_at(&mut back, 40 << 20).unwrap();
    assert!(back == noise(1, 8192));
    file.sync_all().unwrap();
    assert_eq!(errno(file.write_all_at(&[1; 512], 512)), libc::EIO);
    away.come_back();
    file.write_all_at(&[1; 512], 512).unwrap();
}

#[test]
fn contract_a_full_local_disk_is_enospc_and_loses_nothing() {
    let local = tempfile::tempdir().unwrap();
    let (live, full, _) = mount_trouble(local.path());
    let file = live.file();
    file.write_all_at(&[1; 4096], 0).unwrap();
    full.store(true, Ordering::SeqCst);
    assert_eq!(errno(file.write_all_at(&[2; 4096], 4096)), libc::ENOSPC);
    file.sync_all().unwrap();
    full.store(false, Ordering::SeqCst);
    let mut page = [0; 4096];
    file.read_exact_at(&mut page, 0).unwrap();
    assert_eq!(page, [1; 4096]);
    file.write_all_at(&[2; 4096], 4096).unwrap();
}

#[test]
fn contract_a_file_system_on_a_loop_device_stays_clean() {
    let local = tempfile::tempdir().unwrap();
    let (log, _) = runtime().block_on(point());
    let live = mount_overlay(&log.bucket, local.path());
    let path = live.path();
    let device = run("losetup", &["--find", "--show", "--direct-io=on", path.to_str().unwrap()]);
    let detach = scopeguard(|| drop(Command::new("losetup").args(["-d", &device]).output()));
    run("mkfs.ext4", &["-q", &device]);
    let root = tempfile::tempdir().unwrap();
    let at = root.path().to_str().unwrap();
    run("mount", &[&device, at]);
    let unmount = scopeguard(|| drop(Command::new("umount").arg(at).output()));
    for n in 0..20 {
        fs::write(root.path().join(format!("f{n}")), noise(n, 300_000)).unwrap();
    }
    (0..20).step_by(2).for_each(|n| fs::remove_file(root.path().join(format!("f{n}"))).unwrap());
    run("fstrim", &[at]);
    run("sync", &["-f", at]);
    for n in (1..20).step_by(2) {
        assert!(fs::read(root.path().join(format!("f{n}"))).unwrap() == noise(n, 300_000));
    }
    drop(unmount);
    run("e2fsck", &["-fn", &device]);
    drop(detach);
    live.mount.unmount().unwrap();
}

/// Runs its closure when it goes out of scope.
fn scopeguard<F: FnMut()>(end: F) -> impl Drop {
    struct Guard<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Guard<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Guard(end)
}

#[test]
fn contract_a_hydrated_disk_needs_no_bucket_and_is_a_raw_image() {
    let local = tempfile::tempdir().unwrap();
    let (log, mut wanted) = runtime().block_on(point());
    let away = Faults::seeded(1).surfacing();
    let bucket = log.bucket.with_faults(away.clone());
    let live = mount_overlay(&bucket, local.path());
    let file = live.file();
    file.write_all_at(&[7; 5000], 1000).unwrap();
    wanted[1000..6000].fill(7);
    let held = File::open(live.path()).unwrap();
    live.hydrate();
    away.vanish();
    assert!(fs::read(live.path()).unwrap() == wanted);
    let reads = live.mount.stats().reads;
    assert!(fs::read(live.path()).unwrap() == wanted, "opened anew");
    assert_eq!(live.mount.stats().reads, reads, "the kernel reads the local file by itself");
    let mut page = [0; 4096];
    held.read_exact_at(&mut page, 0).unwrap();
    assert!(page == wanted[..4096], "opened before");
    // Writing goes on, and all see it.
    file.write_all_at(&[9; 4096], 8192).unwrap();
    wanted[8192..12_288].fill(9);
    assert!(fs::read(live.path()).unwrap() == wanted);
    file.sync_all().unwrap();
    assert!(fs::read(local.path().join("vm/disk1.raw")).unwrap() == wanted);
    let attribute = |name: &str| {
        let mut value = [0; 64];
        let len = rustix::fs::getxattr(live.path(), format!("user.tidemark.{name}"), &mut value).unwrap();
        String::from_utf8(value[..len].to_vec()).unwrap()
    };
    assert_eq!((attribute("finished"), attribute("dirty_bytes")), ("true".into(), (3 * 4096).to_string()));
}
