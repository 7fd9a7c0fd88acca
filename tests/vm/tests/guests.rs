//! The guests themselves: what they promise is true on a plain file, and a lie is found out.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemark_vm::{Disk, Job, Machine, NbdServer, Promises, fsck};

const DISK_BYTES: u64 = 64 << 20;

fn image(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    File::create(&path).unwrap().set_len(DISK_BYTES).unwrap();
    path
}

/// The number that [`Job::Lead`] and [`Job::Follow`] keep on their disk.
fn number(image: &Path) -> u64 {
    let mut block = [0; 4096];
    File::open(image).unwrap().read_exact_at(&mut block, 4096).unwrap();
    String::from_utf8_lossy(&block).trim_matches([' ', '\n', '\0']).parse().unwrap_or(0)
}

#[test]
fn what_a_killed_guest_promised_is_on_its_disks() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (image(dir.path(), "one.raw"), image(dir.path(), "two.raw"));
    let machine = Machine::new(dir.path(), "vm").disk(Disk::raw(&one)).disk(Disk::raw(&two));
    let mut promises = Promises::default();

    let mut guest = machine.clone().job(Job::WRITE).boot();
    guest.wait_mark(40);
    let life = guest.kill();
    assert_eq!(life.formatted(), ["vda", "vdb"]);
    promises.add(&life);

    // The next life checks, goes on behind the last step, and is killed too.
    let mut guest = machine.clone().job(Job::WRITE).boot();
    guest.wait_mark(promises.last() + 10);
    let life = guest.kill();
    assert_eq!(life.formatted(), [""; 0]);
    promises.check(&life).unwrap();
    promises.add(&life);
    fsck(&one).unwrap();
    fsck(&two).unwrap();

    let found = machine.job(Job::Verify).boot().wait_end();
    promises.check(&found).unwrap();
}

#[test]
fn a_guest_finds_a_flipped_bit_in_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let disk = image(dir.path(), "disk.raw");
    let machine = Machine::new(dir.path(), "vm").disk(Disk::raw(&disk));
    let mut promises = Promises::default();
    promises.add(&machine.clone().job(Job::Write { steps: 8 }).boot().wait_end());
    assert_eq!(promises.last(), 8);

    // The last file's first block holds random bytes, and no other block of the disk the same.
    let mut bytes = Vec::new();
    File::open(&disk).unwrap().read_to_end(&mut bytes).unwrap();
    let random = |block: &[u8]| block.iter().filter(|byte| **byte == 0).count() < 64;
    let at = bytes.chunks(4096).rposition(random).unwrap();
    let mut file = File::options().write(true).open(&disk).unwrap();
    file.seek(SeekFrom::Start(at as u64 * 4096)).unwrap();
    file.write_all(&[bytes[at * 4096] ^ 1]).unwrap();

    let found = machine.job(Job::Verify).boot().wait_end();
    assert_eq!(found.verdict().unwrap().bad, 1);
    assert!(promises.check(&found).unwrap_err().contains("1 damaged"));
}

#[test]
fn a_guest_never_notices_that_its_nbd_server_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = image(dir.path(), "disk.raw");
    let mut server = NbdServer::start(&disk, &dir.path().join("nbd.sock"));
    let machine =
        Machine::new(dir.path(), "vm").disk(Disk::nbd(server.socket(), NbdServer::EXPORT, Duration::from_secs(120)));
    let mut guest = machine.job(Job::WRITE).boot();
    guest.wait_mark(5);
    for _ in 0..3 {
        server.kill();
        server.restart();
        guest.wait_more_marks(5);
    }
    let mut promises = Promises::default();
    promises.add(&guest.kill());
    server.kill();
    fsck(&disk).unwrap();
    promises
        .check(&Machine::new(dir.path(), "check").disk(Disk::raw(&disk)).job(Job::Verify).boot().wait_end())
        .unwrap();
}

#[test]
fn a_follower_writes_only_what_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let (leads, follows) = (image(dir.path(), "leads.raw"), image(dir.path(), "follows.raw"));
    let mut leader = Machine::new(dir.path(), "a").disk(Disk::raw(&leads)).job(Job::Lead { steps: 30 }).boot();
    let mut follower = Machine::new(dir.path(), "b").disk(Disk::raw(&follows)).job(Job::Follow).boot();
    leader.relay_to(&mut follower, 30, |marked| {
        assert!(number(&leads) >= marked);
        assert!(number(&follows) <= marked);
    });
    assert_eq!((number(&leads), number(&follows)), (30, 30));
}

#[test]
fn a_churning_guest_writes_all_over_its_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = image(dir.path(), "disk.raw");
    let mut guest = Machine::new(dir.path(), "vm").disk(Disk::raw(&disk)).job(Job::Churn { steps: 100 }).boot();
    assert_eq!(guest.wait_end().last_mark(), 100);
    let bytes = std::fs::read(&disk).unwrap();
    let written = |part: &[u8]| part.iter().any(|byte| *byte != 0);
    assert!(bytes.chunks(DISK_BYTES as usize / 8).all(written), "a part of the disk was never written");
}
