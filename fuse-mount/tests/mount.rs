//! The mount itself, through the real kernel: how it begins and ends, and that no request can hang or break it.
//! Needs root and /dev/fuse; without them these tests fail.

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::time::Duration;
use support::*;
use tidemark_env::Env;
use tidemark_fuse::{Access, ServeOptions, Unmounted};

fn errno(error: io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| panic!("no errno: {error}"))
}

#[test]
fn contract_reads_are_exact_at_any_offset_and_length() {
    let toy = mount_toy(&quick());
    for name in ["hit.raw", "miss.raw"] {
        let file = File::open(toy.path(name)).unwrap();
        for (offset, len) in [(0, 1), (511, 2), (4096, 4096), (12_345, 200_000), (DISK_BYTES - 3, 3)] {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, offset).unwrap();
            assert_eq!(bytes, contents(offset, len), "{name} {offset}+{len}");
        }
        let mut tail = Vec::new();
        assert_eq!(file.read_at(&mut [0; 10], DISK_BYTES).unwrap(), 0);
        File::open(toy.path(name)).unwrap().read_to_end(&mut tail).unwrap();
        assert_eq!(tail, contents(0, DISK_BYTES as usize), "{name}");
    }
}

#[test]
fn contract_direct_reads_bypass_the_page_cache_and_others_use_it() {
    let toy = mount_toy(&quick());
    let read = |flags: i32| {
        let file = OpenOptions::new().read(true).custom_flags(flags).open(toy.path("hit.raw")).unwrap();
        let mut buffer = vec![0; 8192];
        let aligned = buffer.as_ptr().align_offset(4096);
        file.read_exact_at(&mut buffer[aligned..aligned + 4096], 65_536).unwrap();
        assert_eq!(buffer[aligned..aligned + 4096], contents(65_536, 4096));
    };
    read(0);
    let cold = toy.mount.stats();
    assert_eq!(cold.hits, cold.reads);
    read(0);
    assert_eq!(toy.mount.stats().reads, cold.reads, "the second look, by another open, is served by the page cache");
    read(libc::O_DIRECT);
    read(libc::O_DIRECT);
    assert_eq!(toy.mount.stats().reads, cold.reads + 2);
}

#[test]
fn contract_a_slow_read_holds_up_nobody_else() {
    let toy = mount_toy(&ServeOptions { answer_threads: 1, ..quick() });
    let gated = toy.path("gated.raw");
    std::thread::scope(|scope| {
        // Far more waiting reads than threads that answer.
        let waiting: Vec<_> = (0..32)
            .map(|n| {
                let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&gated).unwrap();
                scope.spawn(move || {
                    let mut buffer = vec![0; 8192];
                    let aligned = buffer.as_ptr().align_offset(4096);
                    file.read_exact_at(&mut buffer[aligned..aligned + 4096], n * 4096).unwrap();
                    assert_eq!(buffer[aligned..aligned + 4096], contents(n * 4096, 4096));
                })
            })
            .collect();
        while toy.mount.stats().reads < 32 {
            std::thread::yield_now();
        }
        let quick = fs::read(toy.path("hit.raw")).unwrap();
        assert_eq!(quick.len(), DISK_BYTES as usize);
        assert_eq!(fs::read(toy.path("miss.raw")).unwrap(), quick);
        assert!(waiting.iter().all(|reader| !reader.is_finished()));
        toy.toy.gate.add_permits(32);
    });
}

#[test]
fn contract_a_silent_bucket_is_eio_within_the_deadline() {
    let toy = mount_toy(&ServeOptions { request_deadline: Duration::from_millis(300), ..quick() });
    let clock = Env::system().clock;
    let begun = clock.monotonic();
    let error = File::open(toy.path("silent.raw")).unwrap().read_at(&mut [0; 4096], 0).unwrap_err();
    assert_eq!(errno(error), libc::EIO);
    let took = clock.monotonic() - begun;
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(20), "{took:?}");
    assert!(toy.mount.stats().failures >= 1);
    assert_eq!(fs::read(toy.path("hit.raw")).unwrap().len(), DISK_BYTES as usize, "the mount lives on");
}

#[test]
fn contract_reads_in_flight_are_bounded_in_bytes() {
    // Room for one request of 1 MiB at a time: a thousand small ones still all get through.
    let toy = mount_toy(&ServeOptions { in_flight_bytes_max: 1, ..quick() });
    toy.toy.gate.add_permits(1 << 20);
    assert_eq!(fs::read(toy.path("gated.raw")).unwrap(), contents(0, DISK_BYTES as usize));
}

#[test]
fn contract_damage_is_eio_never_data() {
    let toy = mount_toy(&quick());
    let error = fs::read(toy.path("damaged.raw")).unwrap_err();
    assert_eq!(errno(error), libc::EIO);
}

#[test]
fn contract_a_bug_costs_one_request_not_the_mount() {
    let toy = mount_toy(&quick());
    for _ in 0..8 {
        assert_eq!(errno(fs::read(toy.path("panic.raw")).unwrap_err()), libc::EIO);
        assert_eq!(errno(fs::read(toy.path("latepanic.raw")).unwrap_err()), libc::EIO);
    }
    assert_eq!(fs::read(toy.path("hit.raw")).unwrap(), contents(0, DISK_BYTES as usize));
    assert_eq!(toy.mount.unmount().unwrap(), Unmounted::Clean);
}

#[test]
fn contract_nothing_can_be_changed() {
    let toy = mount_toy(&quick());
    let file = toy.path("hit.raw");
    let refused = [
        OpenOptions::new().write(true).open(&file).map(drop),
        fs::write(toy.path("new"), b"x"),
        fs::create_dir(toy.path("new")),
        fs::remove_file(&file),
        fs::rename(&file, toy.path("new")),
        fs::set_permissions(&file, fs::Permissions::from_mode(0o777)),
        std::os::unix::fs::symlink("x", toy.path("new")),
        fs::hard_link(&file, toy.path("new")),
    ];
    for (at, result) in refused.into_iter().enumerate() {
        assert_eq!(errno(result.unwrap_err()), libc::EROFS, "operation {at}");
    }
}

#[test]
fn contract_only_the_owner_may_look_unless_told_otherwise() {
    let toy = mount_toy(&quick());
    let meta = fs::metadata(toy.path("hit.raw")).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.uid()), (0o400, rustix::process::getuid().as_raw()));
    assert_eq!(fs::metadata(&toy.dir).unwrap().mode() & 0o777, 0o500);
    let toy = mount_toy(&ServeOptions { access: Access::Everyone, ..quick() });
    assert_eq!(fs::metadata(toy.path("hit.raw")).unwrap().mode() & 0o777, 0o444);
    assert_eq!(fs::metadata(&toy.dir).unwrap().mode() & 0o777, 0o555);
}

#[test]
fn contract_stat_shows_size_time_and_a_whole_tree_for_df() {
    let toy = mount_toy(&quick());
    let meta = fs::metadata(toy.path("hit.raw")).unwrap();
    assert_eq!((meta.len(), meta.blksize()), (DISK_BYTES, 4096));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_700_000_000, 123_456_789));
    assert!(meta.blocks() * 512 < DISK_BYTES, "copying tools look for holes only then");
    let statfs = rustix::fs::statvfs(&toy.dir).unwrap();
    assert_eq!(statfs.f_blocks * statfs.f_frsize, DISK_BYTES * FILES.len() as u64);
    assert_eq!((statfs.f_bfree, statfs.f_namemax), (0, 255));
    let mut names: Vec<_> = fs::read_dir(&toy.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), FILES.len());
}

#[test]
fn contract_unmount_leaves_nothing_behind() {
    let toy = mount_toy(&quick());
    fs::read(toy.path("hit.raw")).unwrap();
    assert!(is_mounted(&toy.dir));
    assert_eq!(toy.mount.unmount().unwrap(), Unmounted::Clean);
    assert!(!is_mounted(&toy.dir));
    toy.mount.wait().unwrap();
    assert_eq!(fs::read_dir(&toy.dir).unwrap().count(), 0);
    assert_eq!(toy.mount.unmount().unwrap(), Unmounted::Clean, "unmounting twice is no error");
}

#[test]
fn contract_unmount_by_others_ends_the_mount_with_success() {
    let toy = mount_toy(&quick());
    rustix::mount::unmount(&toy.dir, rustix::mount::UnmountFlags::empty()).unwrap();
    toy.mount.wait().unwrap();
    futures::executor::block_on(toy.mount.ended()).unwrap();
}

#[test]
fn contract_a_mount_in_use_is_detached_after_its_grace_and_served_to_the_last_close() {
    let toy = mount_toy(&quick());
    let file = File::open(toy.path("miss.raw")).unwrap();
    assert_eq!(toy.mount.unmount().unwrap(), Unmounted::StillInUse);
    assert!(!is_mounted(&toy.dir));
    let mut bytes = [0; 4096];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[..], contents(0, 4096));
    drop(file);
    toy.mount.wait().unwrap();
}

#[test]
fn contract_one_directory_shows_one_mount() {
    let toy = mount_toy(&quick());
    let second = tidemark_fuse::serve(Toy::new(), &toy.dir, &quick(), &Env::system());
    let error = second.unwrap_err();
    assert!(error.to_string().ends_with("tidemark:toy is mounted there"), "{error}");
    assert!(error.hint().unwrap().contains("umount"), "{error}");
    assert_eq!(fs::read(toy.path("hit.raw")).unwrap().len(), DISK_BYTES as usize);
}

#[test]
fn contract_what_is_mounted_over_it_is_never_unmounted() {
    let toy = mount_toy(&quick());
    let top = tempfile::tempdir().unwrap();
    fs::write(top.path().join("theirs"), b"x").unwrap();
    rustix::mount::mount_bind(top.path(), &toy.dir).unwrap();
    let error = toy.mount.unmount().unwrap_err();
    assert!(error.to_string().contains("mounted over it"), "{error}");
    assert!(toy.path("theirs").exists());
    rustix::mount::unmount(&toy.dir, rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(toy.mount.unmount().unwrap(), Unmounted::Clean);
}

#[test]
fn contract_the_kernel_reads_ahead_as_far_as_asked() {
    let toy = mount_toy(&ServeOptions { read_ahead_kib: 512, ..quick() });
    let dev = fs::metadata(&toy.dir).unwrap().dev();
    let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", libc::major(dev), libc::minor(dev));
    assert_eq!(fs::read_to_string(path).unwrap().trim(), "512");
}
