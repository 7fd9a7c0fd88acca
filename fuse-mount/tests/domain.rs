//! A domain's history through the real kernel: files, links and directories as any program sees them.
//! Needs root and /dev/fuse; without them these tests fail.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up must fail it")]

#[path = "../../reader/tests/common/mod.rs"]
mod common;

use common::{LogBuilder, hasty, noise, small_options};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemark_bucket::{Bucket, Faults, Op as Request};
use tidemark_env::Env;
use tidemark_format::{BLOCK_BYTES, DiskId, Extent, KeyFamily, Lsn, ObjectKey, RowKind};
use tidemark_fuse::{MountHandle, MountOptions, TreeOptions, Unmounted, mount};
use tidemark_model::{DomainModel, Op};
use tidemark_reader::{Domain, Point, ReaderOptions};

const BLOCK: u64 = BLOCK_BYTES;

/// A mounted domain, in a directory of its own.
struct Mounted {
    handle: MountHandle,
    dir: PathBuf,
    runtime: tokio::runtime::Runtime,
    _keep: tempfile::TempDir,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn quick() -> MountOptions {
    let mut options = MountOptions::default();
    options.serve.busy_grace = Duration::from_millis(200);
    options.serve.source_name = "tidemark:test".into();
    options.tree.refresh_interval = Duration::ZERO;
    options
}

fn mount_bucket(bucket: &Bucket, reader: ReaderOptions, options: &MountOptions) -> Mounted {
    let runtime = runtime();
    let domain = runtime.block_on(Domain::open(bucket.read_only(), reader, Env::system())).unwrap();
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path().canonicalize().unwrap();
    let handle = mount(domain, &dir, options, &Env::system()).unwrap();
    Mounted { handle, dir, runtime, _keep: keep }
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Two disks with writes, zeros, unmaps, growth and shrinking; several segments.
async fn history() -> (LogBuilder, DomainModel) {
    let (mut log, mut model) = (LogBuilder::in_memory().await, DomainModel::new());
    let (one, two) = (DiskId::new(1), DiskId::new(2));
    let extent = Extent::new;
    let mut ops = vec![
        Op::DiskAdd { disk: one, blocks: 600 },
        Op::Zero { disk: one, extent: extent(0, 600) },
        Op::ConsistentFrom { disk: one },
        Op::DiskAdd { disk: two, blocks: 40 },
        Op::Zero { disk: two, extent: extent(0, 40) },
        Op::ConsistentFrom { disk: two },
    ];
    for n in 0..40u64 {
        let (disk, blocks) = if n % 4 == 3 { (two, 40) } else { (one, 600) };
        let start = n * 97 % (blocks - 20);
        let data = if n % 5 == 0 { vec![b'a' + n as u8 % 26; 512 * 16] } else { noise(n, 512 * (1 + n as usize % 17)) };
        ops.push(Op::Write { disk, start, data });
        if n % 9 == 0 {
            ops.push(Op::Unmap { disk, extent: extent(start + 1, 3) });
        }
    }
    ops.push(Op::Resize { disk: two, blocks: 80 });
    ops.push(Op::Zero { disk: two, extent: extent(40, 40) });
    ops.push(Op::Write { disk: two, start: 79, data: noise(99, 512) });
    ops.push(Op::Resize { disk: one, blocks: 300 });
    ops.push(Op::DiskRemove { disk: two });
    for (n, op) in ops.iter().enumerate() {
        log.pass(1000);
        assert_eq!(log.op(op), model.apply(op));
        if n % 11 == 10 {
            log.seal().await;
        }
    }
    log.seal().await;
    (log, model)
}

fn image(model: &DomainModel, disk: DiskId, lsn: Lsn) -> Vec<u8> {
    known_image(model, disk, lsn).unwrap()
}

/// `None` while a grown part is neither written nor proven zero.
fn known_image(model: &DomainModel, disk: DiskId, lsn: Lsn) -> Option<Vec<u8>> {
    let disk = model.disk(disk, lsn).unwrap();
    disk.read(Extent::new(0, disk.blocks()))
}

#[test]
fn contract_every_point_reads_the_same_through_the_kernel_as_in_the_model() {
    let (log, model) = runtime().block_on(history());
    let it = mount_bucket(&log.bucket, small_options(), &quick());
    for n in 1..=model.latest().get() {
        let lsn = Lsn::new(n);
        let disks = model.at(lsn).iter().filter(|(_, disk)| disk.consistent);
        for (id, _) in disks {
            let file = it.dir.join(format!("lsn/{n}/vm/disk{id}.raw"));
            match known_image(&model, *id, lsn) {
                Some(wanted) => {
                    assert_eq!(fs::metadata(&file).unwrap().len(), wanted.len() as u64);
                    assert!(fs::read(&file).unwrap() == wanted, "{}", file.display());
                }
                None => assert_eq!(errno(fs::read(&file)), libc::EIO, "{}", file.display()),
            }
        }
    }
    assert_eq!(it.handle.unmount().unwrap(), Unmounted::Clean);
}

#[test]
fn contract_links_walk_like_directories() {
    let (log, model) = runtime().block_on(history());
    let it = mount_bucket(&log.bucket, small_options(), &quick());
    let latest = model.latest();
    assert_eq!(names(&it.dir), ["at", "bookmarks", "latest", "lsn"]);
    assert_eq!(fs::read_link(it.dir.join("latest")).unwrap(), Path::new(&format!("lsn/{latest}")));
    assert_eq!(names(&it.dir.join("latest")), ["vm"]);
    assert_eq!(names(&it.dir.join("latest/vm")), ["disk1.raw"]);
    for way in ["at/-10m", "at/2031-01-01T00:00:00Z", "latest", &format!("lsn/{latest}")] {
        let file = it.dir.join(way).join("vm/disk1.raw");
        assert!(fs::read(&file).unwrap() == image(&model, DiskId::new(1), latest), "{way}");
        assert_eq!(names(&it.dir.join(way).join("vm")), ["disk1.raw"], "{way}");
    }
    let canonical = fs::canonicalize(it.dir.join("at/-10m/vm/disk1.raw")).unwrap();
    assert_eq!(canonical, it.dir.join(format!("lsn/{latest}/vm/disk1.raw")), "one file, one page cache");
    // The time that a listing shows is the time that stat shows.
    for name in names(&it.dir.join("lsn")) {
        let meta = fs::metadata(it.dir.join("lsn").join(&name)).unwrap();
        let first = common::START.get() / 1_000_000_000;
        assert_eq!(meta.mtime() as u64, first + name.parse::<u64>().unwrap(), "one write a second");
    }
}

#[test]
fn contract_extended_attributes_are_read_by_any_program() {
    let (log, model) = runtime().block_on(history());
    let it = mount_bucket(&log.bucket, small_options(), &quick());
    let file = it.dir.join("latest/vm/disk1.raw");
    let get = |name: &str| {
        let mut room = [0; 256];
        let len = rustix::fs::getxattr(&file, name, &mut room).unwrap();
        String::from_utf8(room[..len].to_vec()).unwrap()
    };
    assert_eq!(get("user.tidemark.lsn"), model.latest().to_string());
    assert_eq!(get("user.tidemark.domain"), common::DOMAIN.to_string());
    assert_eq!((get("user.tidemark.vm"), get("user.tidemark.disk")), ("vm".into(), "disk1".into()));
    let mut room = [0; 1024];
    let len = rustix::fs::listxattr(&file, &mut room).unwrap();
    assert_eq!(room[..len].iter().filter(|b| **b == 0).count(), 7);
    assert_eq!(rustix::fs::getxattr(&file, "user.tidemark.lsn", &mut [0; 1]).unwrap_err(), rustix::io::Errno::RANGE);
}

#[test]
fn contract_copies_keep_the_holes() {
    let log = runtime().block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = log.blank_disk(1, 64 << 11);
        log.write(disk, 0, &noise(1, 4096));
        log.write(disk, 40_000, &noise(2, 65_536));
        log.seal().await;
        log
    });
    let it = mount_bucket(&log.bucket, small_options(), &quick());
    let source = it.dir.join("latest/vm/disk1.raw");
    let target = it.dir.parent().unwrap().join(format!("{}.copy", it.dir.file_name().unwrap().display()));
    let status = std::process::Command::new("cp").arg(&source).arg(&target).status().unwrap();
    assert!(status.success());
    let meta = fs::metadata(&target).unwrap();
    let same = fs::read(&source).unwrap() == fs::read(&target).unwrap();
    fs::remove_file(&target).unwrap();
    assert_eq!(meta.len(), 64 << 20);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    assert!(same);
    let stats = it.handle.stats();
    assert!(stats.bytes >= 64 << 20, "the comparison read it whole: {stats:?}");
}

#[test]
fn contract_concurrent_readers_of_any_kind_agree_with_the_model() {
    let (log, model) = runtime().block_on(history());
    // A cache far too small: everything is evicted and fetched again and again.
    let tiny = ReaderOptions { cache_bytes_max: 1 << 20, frame_cache_bytes_max: 64 << 10, ..small_options() };
    let it = mount_bucket(&log.bucket, tiny, &quick());
    std::thread::scope(|scope| {
        for reader in 0..8u64 {
            let (it, model) = (&it, &model);
            scope.spawn(move || {
                let flags = if reader % 2 == 0 { libc::O_DIRECT } else { 0 };
                for n in 0..60 {
                    let lsn = Lsn::new(3 + (n * 7 + reader * 13) % 40);
                    let path = it.dir.join(format!("lsn/{lsn}/vm/disk1.raw"));
                    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap();
                    let wanted = image(model, DiskId::new(1), lsn);
                    let mut room = vec![0u8; 65_536 + 4096];
                    let aligned = room.as_ptr().align_offset(4096);
                    let offset = (n * 31 % 70) * 4096;
                    let got = file.read_at(&mut room[aligned..aligned + 65_536], offset).unwrap();
                    let end = wanted.len().min(offset as usize + 65_536);
                    assert!(
                        room[aligned..aligned + got] == wanted[offset as usize..end],
                        "reader {reader} at {offset}"
                    );
                }
            });
        }
    });
    assert_eq!(it.handle.stats().failures, 0);
}

#[test]
fn contract_a_bucket_that_vanishes_is_eio_in_time_and_reads_work_when_it_is_back() {
    let deadline = Duration::from_secs(3);
    let (faults, bucket) = runtime().block_on(async {
        let mut log = LogBuilder::new(Bucket::memory_with(hasty())).await;
        let disk = log.blank_disk(1, 4096);
        for n in 0..8 {
            log.write(disk, n * 512, &noise(n, 256 << 10));
            log.seal().await;
        }
        let faults = Faults::seeded(1);
        let bucket = log.bucket.with_faults(faults.clone());
        (faults, bucket)
    });
    let mut options = quick();
    options.serve.request_deadline = deadline;
    options.tree.refresh_deadline = Duration::from_millis(500);
    options.tree.refresh_interval = Duration::from_millis(1);
    let no_prefetch = ReaderOptions { prefetch_bytes_max: 0, ..small_options() };
    let it = mount_bucket(&bucket, no_prefetch, &options);
    let path = it.dir.join("latest/vm/disk1.raw");
    let direct = || OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let read = |block: u64| {
        let mut room = vec![0u8; 8192];
        let aligned = room.as_ptr().align_offset(4096);
        direct().read_exact_at(&mut room[aligned..aligned + 4096], block * BLOCK)?;
        Ok::<_, std::io::Error>(room[aligned..aligned + 4096].to_vec())
    };
    assert_eq!(read(0).unwrap(), noise(0, 256 << 10)[..4096]);
    faults.vanish();
    let clock = Env::system().clock;
    let begun = clock.monotonic();
    assert_eq!(errno(read(5 * 512)), libc::EIO);
    let took = clock.monotonic() - begun;
    assert!(took < deadline + Duration::from_secs(10), "{took:?}");
    assert_eq!(read(0).unwrap(), noise(0, 256 << 10)[..4096], "what is at hand is still served");
    assert_eq!(names(&it.dir.join("latest/vm")), ["disk1.raw"], "so is what is known of the history");
    assert!(it.handle.stats().failures >= 1);
    faults.come_back();
    assert_eq!(read(5 * 512).unwrap(), noise(5, 256 << 10)[..4096]);
    faults.vanish();
    assert_eq!(it.handle.unmount().unwrap(), Unmounted::Clean, "unmounting needs no bucket");
}

#[test]
fn contract_a_flipped_bit_is_eio_never_served() {
    let (bucket, good) = runtime().block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = log.blank_disk(1, 1024);
        let good = noise(1, 256 << 10);
        log.write(disk, 0, &good);
        log.seal().await;
        let key = ObjectKey::Log { epoch: log.epoch, seq: log.seq };
        let mut bytes = log.bucket.read_only().get(&key).await.unwrap().to_vec();
        // In the frames, 100 KiB before the end: a frame in the middle of the write.
        let at = bytes.len() - (100 << 10);
        bytes[at] ^= 4;
        log.bucket.deleter().delete(&key).await.unwrap();
        log.bucket.appender().put(&key, bytes::Bytes::from(bytes)).await.unwrap();
        (log.bucket.clone(), good)
    });
    let it = mount_bucket(&bucket, small_options(), &quick());
    let file = File::open(it.dir.join("latest/vm/disk1.raw")).unwrap();
    let (mut bad, mut page) = (0, vec![0; 4096]);
    for at in (0..good.len()).step_by(4096) {
        match file.read_exact_at(&mut page, at as u64) {
            Ok(()) => assert!(page == good[at..at + 4096], "byte {at}"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO));
                bad += 1;
            }
        }
    }
    assert!((1..=32).contains(&bad), "{bad} of 64 pages cannot be read: one or two frames of 16 pages");
}

#[test]
fn contract_the_newest_writes_appear_without_remounting() {
    let runtime_of_writer = runtime();
    let (mut log, disk) = runtime_of_writer.block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = log.blank_disk(1, 64);
        log.seal().await;
        (log, disk)
    });
    let it = mount_bucket(&log.bucket, small_options(), &quick());
    let then = File::open(it.dir.join("latest/vm/disk1.raw")).unwrap();
    for n in 0..10 {
        runtime_of_writer.block_on(async {
            log.write(disk, 0, &noise(n, 512));
            log.seal().await;
        });
        let now = fs::read(it.dir.join("latest/vm/disk1.raw")).unwrap();
        assert!(now[..512] == noise(n, 512), "write {n}");
    }
    let mut first = [1; 512];
    then.read_exact_at(&mut first, 0).unwrap();
    assert_eq!(first, [0; 512], "a file that was opened before stays at its point");
}

#[test]
fn contract_one_point_can_be_mounted_alone() {
    let (log, model) = runtime().block_on(history());
    let at = Point { lsn: Lsn::new(20), time: log.now() };
    let options = MountOptions { tree: TreeOptions { at: Some(at), ..TreeOptions::default() }, ..quick() };
    let it = mount_bucket(&log.bucket, small_options(), &options);
    assert_eq!(names(&it.dir), ["vm"]);
    assert!(fs::read(it.dir.join("vm/disk1.raw")).unwrap() == image(&model, DiskId::new(1), Lsn::new(20)));
    let totals = rustix::fs::statvfs(&it.dir).unwrap();
    assert_eq!(totals.f_blocks * totals.f_frsize, 640 * BLOCK / 4096 * 4096);
}

#[test]
fn contract_a_mount_sends_no_list_request() {
    let (log, _) = runtime().block_on(history());
    let before = log.bucket.meter().snapshot();
    let it = mount_bucket(&log.bucket, small_options(), &quick());
    names(&it.dir.join("lsn"));
    fs::read(it.dir.join("latest/vm/disk1.raw")).unwrap();
    it.runtime.block_on(async { tokio::task::yield_now().await });
    let spent = log.bucket.meter().snapshot().since(&before);
    for family in KeyFamily::ALL {
        assert_eq!(spent.get(Request::List, family).requests, 0);
    }
}

#[test]
fn contract_unknown_blocks_are_eio_beside_blocks_that_are_known() {
    let log = runtime().block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = log.blank_disk(1, 64);
        log.op(&Op::Resize { disk, blocks: 32 });
        // Growing again does not bring back what was cut off, and nobody has proven the new part zero.
        log.op(&Op::Resize { disk, blocks: 64 });
        log.range(disk, Extent::new(56, 8), RowKind::Zero);
        log.seal().await;
        log
    });
    let it = mount_bucket(&log.bucket, small_options(), &quick());
    let path = it.dir.join("latest/vm/disk1.raw");
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let mut room = vec![1u8; 8192];
    let aligned = room.as_ptr().align_offset(4096);
    let page = &mut room[aligned..aligned + 4096];
    for (block, known) in [(0, true), (24, true), (32, false), (48, false), (56, true)] {
        let result = file.read_exact_at(page, block * BLOCK);
        if known {
            result.unwrap();
            assert!(page.iter().all(|b| *b == 0), "block {block}");
        } else {
            assert_eq!(errno(result), libc::EIO, "block {block}");
        }
    }
}
