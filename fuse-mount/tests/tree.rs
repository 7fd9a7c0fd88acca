//! The tree of a domain's history, asked directly: no FUSE, no kernel.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up must fail it")]

#[path = "../../reader/tests/common/mod.rs"]
mod common;

use common::{LogBuilder, START, block_on, noise, small_options};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;
use tidemark_bucket::Bucket;
use tidemark_env::{Env, ManualClock};
use tidemark_format::{BLOCK_BYTES, DiskId, EventBody, Extent, KeyFamily, Level, Lsn, ObjectKey, RowKind, Seq, TimeNs};
use tidemark_fuse::{
    Answer, Attr, DiskFs, Error, Ino, NodeKind, ReadAnswer, Result, SeekTo, TimeTree, TreeOptions, Validity, unescape,
};
use tidemark_model::{DomainModel, OpsShape, any_ops};
use tidemark_reader::{Domain, Point};

const BLOCK: u64 = BLOCK_BYTES;

/// A tree and the clock it looks at.
struct Fixture {
    tree: TimeTree,
    clock: Arc<ManualClock>,
}

async fn open(bucket: &Bucket, options: TreeOptions) -> Fixture {
    let clock = Arc::new(ManualClock::new(TimeNs::new(START.get() + 3_600_000_000_000)));
    let env = Env::seeded(1, clock.clone());
    let domain = Domain::open(bucket.read_only(), small_options(), env.clone()).await.unwrap();
    Fixture { tree: TimeTree::new(domain, options, env).unwrap(), clock }
}

async fn all_of_time(log: &LogBuilder) -> Fixture {
    open(&log.bucket, TreeOptions::default()).await
}

/// Adds a blank disk with a name of the test's choice.
fn add(log: &mut LogBuilder, id: u32, vm: &str, name: &str, blocks: u64) -> DiskId {
    let disk = DiskId::new(id);
    log.event(EventBody::DiskAdd { disk, vm: vm.into(), name: name.into(), blocks });
    log.range(disk, Extent::new(0, blocks), RowKind::Zero);
    log.event(EventBody::ConsistentFrom { disk });
    disk
}

impl Fixture {
    /// What the kernel would find at a path, links followed.
    async fn walk(&self, path: &str) -> Result<Attr> {
        let mut stack = vec![self.tree.getattr(Ino::ROOT).get().await?];
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        while let Some(name) = todo.pop() {
            if name == ".." {
                stack.pop();
                continue;
            }
            let parent = stack.last().expect("below the root").ino;
            let attr = self.tree.lookup(parent, OsStr::new(&name)).get().await?;
            if attr.kind == NodeKind::Link {
                let target = self.tree.readlink(attr.ino).get().await?.into_string().unwrap();
                todo.extend(target.split('/').rev().map(str::to_owned));
            } else {
                stack.push(attr);
            }
        }
        Ok(stack.pop().expect("below the root"))
    }

    async fn names(&self, path: &str) -> Vec<String> {
        let dir = if path.is_empty() { Ino::ROOT } else { self.walk(path).await.unwrap().ino };
        let entries = self.tree.readdir(dir).get().await.unwrap();
        entries.into_iter().map(|entry| entry.name.into_string().unwrap()).collect()
    }

    async fn link(&self, dir: &str, name: &str) -> String {
        let dir = if dir.is_empty() { Ino::ROOT } else { self.walk(dir).await.unwrap().ino };
        let link = self.tree.lookup(dir, OsStr::new(name)).get().await.unwrap();
        assert_eq!(link.kind, NodeKind::Link);
        self.tree.readlink(link.ino).get().await.unwrap().into_string().unwrap()
    }

    /// Bytes of a disk, by the same two ways as a transport: at hand, else later.
    async fn read(&self, path: &str, offset: u64, len: u32) -> Result<Vec<u8>> {
        let file = self.tree.open(self.walk(path).await?.ino).get().await?;
        let mut found = None;
        match self.tree.read(&file, offset, len, &mut |bytes| found = Some(bytes.to_vec())) {
            ReadAnswer::Hit => Ok(found.expect("a hit shows its bytes")),
            ReadAnswer::Later(pending) => {
                let bytes = pending.await?.to_vec();
                let mut again = None;
                // Now it is at hand, unless blocks around it cannot be had.
                if matches!(
                    self.tree.read(&file, offset, len, &mut |bytes| again = Some(bytes.to_vec())),
                    ReadAnswer::Hit
                ) {
                    assert_eq!(again.as_ref(), Some(&bytes));
                }
                Ok(bytes)
            }
            ReadAnswer::Failed(error) => Err(error),
        }
    }

    fn xattr(&self, ino: Ino, name: &str) -> String {
        let name = format!("user.tidemark.{name}");
        String::from_utf8(self.tree.getxattr(ino, OsStr::new(&name)).unwrap()).unwrap()
    }
}

/// Requests of every kind that the bucket has seen.
fn requests(bucket: &Bucket) -> u64 {
    bucket.meter().snapshot().iter().map(|(_, _, count)| count.requests).sum()
}

fn errno<T>(result: Result<T>) -> i32 {
    result.err().map_or(0, |error| error.errno())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// docs/contract.md, "A point is frozen", "Only what can be restored".
    #[test]
    fn contract_prop_every_point_shows_exactly_its_disks_and_their_bytes(
        ops in any_ops(OpsShape::default()),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        block_on(async {
            let mut model = DomainModel::new();
            let mut log = LogBuilder::in_memory().await;
            let ends: Vec<usize> = cuts.iter().map(|at| at.index(ops.len())).collect();
            for (i, op) in ops.iter().enumerate() {
                log.pass(1);
                assert_eq!(log.op(op), model.apply(op));
                if ends.contains(&i) {
                    log.seal().await;
                }
            }
            log.seal().await;
            let it = all_of_time(&log).await;
            for n in 1..=model.latest().get() {
                let disks = model.at(Lsn::new(n));
                let mut wanted: Vec<String> =
                    disks.iter().filter(|(_, disk)| disk.consistent).map(|(id, _)| format!("disk{id}.raw")).collect();
                wanted.sort();
                let vms = it.names(&format!("lsn/{n}")).await;
                assert_eq!(vms.len(), usize::from(!wanted.is_empty()));
                if vms.is_empty() { continue }
                assert_eq!(it.names(&format!("lsn/{n}/vm")).await, wanted, "at lsn {n}");
                for (id, disk) in disks.iter().filter(|(_, disk)| disk.consistent) {
                    let path = format!("lsn/{n}/vm/disk{id}.raw");
                    assert_eq!(it.walk(&path).await.unwrap().size_bytes, disk.blocks() * BLOCK, "{path}");
                    for (block, bytes) in disk.image().into_iter().enumerate() {
                        let got = it.read(&path, block as u64 * BLOCK, BLOCK as u32).await;
                        match bytes {
                            Some(bytes) => assert_eq!(got.unwrap(), bytes, "block {block} of {path}"),
                            None => assert_eq!(errno(got), libc::EIO, "block {block} of {path} is unknown"),
                        }
                    }
                }
            }
        });
    }
}

#[test]
fn contract_every_way_to_name_a_point_leads_to_one_directory() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = add(&mut log, 1, "db", "root", 8);
        log.pass(60_000);
        let marked = log.write(disk, 0, &noise(1, 512));
        log.pass(1);
        let mark = log.event(EventBody::Bookmark { name: "before/upgrade".into(), level: Level::Application });
        log.pass(60_000);
        let last = log.write(disk, 1, &noise(2, 512));
        log.seal().await;
        let it = all_of_time(&log).await;
        assert_eq!(it.names("").await, ["at", "bookmarks", "latest", "lsn"]);
        assert_eq!(it.link("", "latest").await, format!("lsn/{last}"));
        assert_eq!(it.link("bookmarks", "before%2Fupgrade").await, format!("../lsn/{mark}"));
        assert_eq!(it.link("at", "2023-11-14T22:14:20Z").await, format!("../lsn/{marked}"));
        assert_eq!(it.link("at", "2023-11-14T23:14:20.0009+01:00").await, format!("../lsn/{marked}"));
        // The clock shows START + 1 h.
        assert_eq!(it.link("at", "-59m").await, format!("../lsn/{marked}"));
        assert_eq!(it.link("at", "-58m59s").await, format!("../lsn/{mark}"));
        assert_eq!(it.link("at", "-1s").await, format!("../lsn/{last}"));
        assert_eq!(
            it.link("at", "2099-01-01T00:00:00Z").await,
            format!("../lsn/{last}"),
            "a time to come is the newest"
        );
        let by_path = it.walk("latest/db/root.raw").await.unwrap();
        assert_eq!(by_path, it.walk(&format!("lsn/{last}/db/root.raw")).await.unwrap());
        assert_eq!(it.read("latest/db/root.raw", 512, 512).await.unwrap(), noise(2, 512));
        assert_eq!(it.read("bookmarks/before%2Fupgrade/db/root.raw", 0, 1024).await.unwrap()[512..], [0; 512]);
    });
}

#[test]
fn contract_names_that_are_not_there_are_enoent() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        add(&mut log, 1, "db", "root", 8);
        log.seal().await;
        let it = all_of_time(&log).await;
        for path in [
            "lsn/0",
            "lsn/4",
            "lsn/99999999999999999999",
            "lsn/01",
            "lsn/+1",
            "lsn/x",
            "lsn/3/web",
            "lsn/3/db/root",
            "lsn/3/db/data.raw",
            "at/yesterday",
            "at/1999-01-01T00:00:00Z",
            "at/-2d",
            "bookmarks/none",
            "bookmarks/%2f",
            "future",
            "latest/db/root.raw.raw",
        ] {
            assert_eq!(errno(it.walk(path).await), libc::ENOENT, "{path}");
        }
        assert_eq!(errno(it.walk("lsn/3/db/root.raw/x").await), libc::ENOTDIR);
    });
}

#[test]
fn contract_an_empty_domain_is_an_empty_tree() {
    block_on(async {
        let log = LogBuilder::in_memory().await;
        let it = all_of_time(&log).await;
        assert_eq!(errno(it.walk("latest").await), libc::ENOENT);
        for dir in ["lsn", "at", "bookmarks"] {
            assert!(it.names(dir).await.is_empty(), "{dir}");
        }
        assert_eq!(it.tree.totals().disks, 0);
    });
}

#[test]
fn contract_sizes_follow_the_disk_through_time() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = add(&mut log, 1, "db", "root", 8);
        let small = log.write(disk, 7, &noise(1, 512));
        log.event(EventBody::DiskResize { disk, blocks: 16 });
        let grown = log.range(disk, Extent::new(8, 8), RowKind::Zero);
        let shrunk = log.event(EventBody::DiskResize { disk, blocks: 4 });
        log.seal().await;
        let it = all_of_time(&log).await;
        for (lsn, blocks) in [(small, 8), (grown, 16), (shrunk, 4)] {
            let attr = it.walk(&format!("lsn/{lsn}/db/root.raw")).await.unwrap();
            assert_eq!(attr.size_bytes, blocks * BLOCK);
            let read = it.read(&format!("lsn/{lsn}/db/root.raw"), 0, 1 << 20).await.unwrap();
            assert_eq!(read.len() as u64, blocks * BLOCK);
        }
        assert_eq!(it.tree.totals().size_bytes, 4 * BLOCK);
    });
}

#[test]
fn contract_only_disks_that_can_be_restored_at_a_point_are_shown_there() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = DiskId::new(1);
        let added = log.event(EventBody::DiskAdd { disk, vm: "db".into(), name: "root".into(), blocks: 8 });
        let zeroed = log.range(disk, Extent::new(0, 8), RowKind::Zero);
        let whole = log.event(EventBody::ConsistentFrom { disk });
        let removed = log.event(EventBody::DiskRemove { disk });
        log.seal().await;
        let it = all_of_time(&log).await;
        for (lsn, there) in [(added, false), (zeroed, false), (whole, true), (removed, false)] {
            assert_eq!(it.names(&format!("lsn/{lsn}")).await.len(), usize::from(there), "lsn {lsn}");
            assert_eq!(it.walk(&format!("lsn/{lsn}/db/root.raw")).await.is_ok(), there, "lsn {lsn}");
        }
    });
}

#[test]
fn contract_listings_are_bounded_and_every_name_in_them_works() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = add(&mut log, 1, "db", "root", 8);
        for n in 0..500 {
            log.pass(1 + n % 3 * 1000);
            log.write(disk, n % 8, &noise(n, 512));
            if n % 100 == 0 {
                log.event(EventBody::Bookmark { name: format!("mark {n}"), level: Level::Crash });
                log.seal().await;
            }
        }
        log.seal().await;
        let it = all_of_time(&log).await;
        for (dir, at_most) in [("lsn", 65), ("at", 65), ("bookmarks", 5)] {
            let names = it.names(dir).await;
            assert!(names.len() >= 5 && names.len() <= at_most, "{dir} lists {}", names.len());
            let mut targets = Vec::new();
            for name in &names {
                let attr = it.walk(&format!("{dir}/{name}")).await.unwrap();
                assert_eq!(attr.kind, NodeKind::Directory, "{dir}/{name}");
                targets.push(attr.ino);
            }
            targets.sort_unstable();
            targets.dedup();
            assert_eq!(targets.len(), names.len(), "each name in {dir} is another point");
        }
        assert_eq!(it.names("lsn").await.last().unwrap(), &log.latest().to_string());
        // What a listing says is what a lookup finds.
        let lsns = it.walk("lsn").await.unwrap().ino;
        for entry in it.tree.readdir(lsns).get().await.unwrap() {
            assert_eq!(it.tree.lookup(lsns, &entry.name).get().await.unwrap().ino, entry.ino);
        }
    });
}

#[test]
fn contract_any_name_of_a_vm_or_disk_is_a_file_name() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let odd = ["..", "a/b", ".hidden", "100%", "tab\there", "Größe", " "];
        for (at, name) in odd.iter().enumerate() {
            add(&mut log, at as u32 + 1, name, name, 8);
        }
        log.seal().await;
        let it = all_of_time(&log).await;
        let mut found: Vec<String> = it.names("latest").await.iter().map(|file| unescape(file).unwrap()).collect();
        let mut wanted = odd.map(str::to_owned).to_vec();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted);
        for vm in it.names("latest").await {
            assert_eq!(it.names(&format!("latest/{vm}")).await, [format!("{vm}.raw")]);
            assert_eq!(it.read(&format!("latest/{vm}/{vm}.raw"), 0, 512).await.unwrap(), [0; 512]);
        }
    });
}

#[test]
fn contract_extended_attributes_tell_what_a_file_is() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = add(&mut log, 1, "db/1", "root", 8);
        log.pass(1);
        let mark = log.event(EventBody::Bookmark { name: "m".into(), level: Level::FileSystem });
        log.write(disk, 0, &noise(1, 512));
        log.seal().await;
        let it = all_of_time(&log).await;
        let file = it.walk(&format!("lsn/{mark}/db%2F1/root.raw")).await.unwrap();
        let domain = common::DOMAIN.to_string();
        for (name, value) in [
            ("domain", domain.as_str()),
            ("lsn", "4"),
            ("time", "2023-11-14T22:13:20.001Z"),
            ("vm", "db/1"),
            ("disk", "root"),
            ("finality", "final"),
            ("consistency", "fs"),
        ] {
            assert_eq!(it.xattr(file.ino, name), value, "{name}");
        }
        assert_eq!(it.tree.listxattr(file.ino).unwrap().len(), 7);
        assert_eq!(it.xattr(it.walk("latest/db%2F1/root.raw").await.unwrap().ino, "consistency"), "crash");
        assert_eq!(errno(it.tree.getxattr(file.ino, OsStr::new("user.other"))), libc::ENODATA);
        assert_eq!(it.xattr(Ino::ROOT, "domain"), domain);
        assert_eq!(file.changed.get(), START.get() + 1_000_000, "its time is the point's");
    });
}

#[test]
fn contract_latest_follows_the_writer_within_the_refresh_interval() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = add(&mut log, 1, "db", "root", 8);
        log.seal().await;
        let it = all_of_time(&log).await;
        let before = it.link("", "latest").await;
        let frozen = it.walk("latest/db/root.raw").await.unwrap();
        let next = log.write(disk, 0, &noise(1, 512));
        log.seal().await;
        let quiet = requests(&log.bucket);
        for _ in 0..10 {
            assert_eq!(it.link("", "latest").await, before, "not looked again yet");
        }
        assert_eq!(requests(&log.bucket), quiet, "no request within the interval");
        it.clock.advance(Duration::from_secs(1));
        assert_eq!(it.link("", "latest").await, format!("lsn/{next}"));
        let now = it.walk("latest/db/root.raw").await.unwrap();
        assert_ne!(now.ino, frozen.ino);
        assert_eq!(it.tree.getattr(frozen.ino).get().await.unwrap(), frozen, "the older point stays as it was");
        // A point that was not there is looked for again, without anybody asking for the latest.
        let later = log.write(disk, 0, &noise(2, 512));
        log.seal().await;
        assert_eq!(errno(it.walk(&format!("lsn/{later}")).await), libc::ENOENT);
        it.clock.advance(Duration::from_secs(1));
        assert_eq!(it.walk(&format!("lsn/{later}")).await.unwrap().kind, NodeKind::Directory);
    });
}

/// A log whose last write was not acknowledged, and beside it the same log taken over before that write.
async fn two_successions() -> (LogBuilder, LogBuilder, Lsn) {
    let (mut loser, mut winner) = (LogBuilder::in_memory().await, LogBuilder::in_memory().await);
    let mut lost = Lsn::ZERO;
    for (log, byte) in [(&mut loser, 1), (&mut winner, 2)] {
        let disk = add(log, 1, "db", "root", 8);
        log.seal().await;
        if byte == 2 {
            log.begin_epoch().await;
        }
        lost = log.write(disk, 0, &noise(byte, 512));
        log.seal().await;
    }
    (loser, winner, lost)
}

#[test]
fn contract_points_that_are_not_final_are_marked_and_looked_up_again() {
    block_on(async {
        let (mut log, _, open_end) = two_successions().await;
        // Somebody has claimed the next epoch: it may cut off what no header says was acknowledged.
        log.claim(log.epoch.next()).await;
        let it = all_of_time(&log).await;
        let path = format!("lsn/{open_end}/db/root.raw");
        let provisional = it.walk(&path).await.unwrap();
        assert_eq!(it.xattr(provisional.ino, "finality"), "provisional");
        assert_eq!(provisional.validity, Validity::Brief);
        assert_eq!(it.read(&path, 0, 512).await.unwrap(), noise(1, 512));
        let done = it.walk("lsn/3/db/root.raw").await.unwrap();
        assert_eq!((it.xattr(done.ino, "finality").as_str(), done.validity), ("final", Validity::Forever));
        // The successor takes over behind it: now it is final, and still the same file.
        log.cut(log.epoch.next()).await;
        it.clock.advance(Duration::from_secs(1));
        it.link("", "latest").await;
        let settled = it.walk(&path).await.unwrap();
        assert_eq!((it.xattr(settled.ino, "finality").as_str(), settled.validity), ("final", Validity::Forever));
        assert_eq!(settled.ino, provisional.ino);
    });
}

#[test]
fn contract_a_write_that_a_takeover_replaced_is_another_file() {
    block_on(async {
        let (log, winner, lsn) = two_successions().await;
        let epoch = log.epoch.next();
        log.claim(epoch).await;
        let it = all_of_time(&log).await;
        let path = format!("lsn/{lsn}/db/root.raw");
        let lost = it.walk(&path).await.unwrap();
        let held = it.tree.open(lost.ino).get().await.unwrap();
        assert_eq!(it.read(&path, 0, 512).await.unwrap(), noise(1, 512));
        for seq in [Seq::new(0), Seq::new(1)] {
            let key = ObjectKey::Log { epoch, seq };
            let object = winner.bucket.read_only().get(&key).await.unwrap();
            log.bucket.appender().put(&key, object).await.unwrap();
        }
        it.clock.advance(Duration::from_secs(1));
        it.link("", "latest").await;
        // The old number is stale, so that its name is looked up again; files that are open keep their bytes.
        assert_eq!(errno(it.tree.getattr(lost.ino).get().await), libc::ESTALE);
        assert_eq!(held.read(0, 512).await.unwrap(), noise(1, 512));
        let won = it.walk(&path).await.unwrap();
        assert_ne!(won.ino, lost.ino);
        // Never the old bytes under the new number, whoever still holds them.
        assert_eq!(it.read(&path, 0, 512).await.unwrap(), noise(2, 512));
        drop(held);
        assert_eq!(it.read(&path, 0, 512).await.unwrap(), noise(2, 512));
    });
}

#[test]
fn contract_a_single_point_shows_its_vms_at_the_root() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = add(&mut log, 1, "db", "root", 8);
        let then = log.write(disk, 0, &noise(1, 512));
        log.write(disk, 0, &noise(2, 512));
        log.seal().await;
        let at = |lsn| TreeOptions { at: Some(Point { lsn, time: log.now() }), ..TreeOptions::default() };
        let it = open(&log.bucket, at(then)).await;
        assert_eq!(it.names("").await, ["db"]);
        assert_eq!(it.read("db/root.raw", 0, 512).await.unwrap(), noise(1, 512));
        assert_eq!(it.xattr(Ino::ROOT, "lsn"), then.to_string());
        assert_eq!(errno(it.walk("latest").await), libc::ENOENT);
        let env = Env::seeded(1, it.clock.clone());
        let domain = Domain::open(log.bucket.read_only(), small_options(), env.clone()).await.unwrap();
        let error = TimeTree::new(domain, at(Lsn::new(99)), env).err().unwrap();
        assert_eq!(error.errno(), libc::ENOENT, "{error}");
    });
}

#[test]
fn contract_holes_are_found_from_the_indexes() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = add(&mut log, 1, "db", "root", 4096);
        log.write(disk, 100, &noise(1, 4 * 512));
        log.write(disk, 3000, &noise(2, 512));
        log.range(disk, Extent::new(101, 1), RowKind::Unmap);
        log.seal().await;
        let it = all_of_time(&log).await;
        let file = it.tree.open(it.walk("latest/db/root.raw").await.unwrap().ino).get().await.unwrap();
        let before = requests(&log.bucket);
        let mut edges = Vec::new();
        let mut at = 0;
        while let Ok(data) = it.tree.seek(&file, at, SeekTo::Data).get().await {
            at = it.tree.seek(&file, data, SeekTo::Hole).get().await.unwrap();
            edges.push((data / BLOCK, at / BLOCK));
        }
        assert_eq!(edges, [(100, 101), (102, 104), (3000, 3001)]);
        assert_eq!(requests(&log.bucket), before, "no request for it");
        assert_eq!(errno(it.tree.seek(&file, 4096 * BLOCK, SeekTo::Hole).get().await), libc::ENXIO);
    });
}

#[test]
fn contract_looking_around_lists_nothing_in_the_bucket() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = add(&mut log, 1, "db", "root", 8);
        for n in 0..20 {
            log.write(disk, n % 8, &noise(n, 512));
            log.seal().await;
        }
        let it = all_of_time(&log).await;
        for dir in ["", "lsn", "at", "latest", "latest/db"] {
            it.names(dir).await;
        }
        it.read("latest/db/root.raw", 0, 4096).await.unwrap();
        it.clock.advance(Duration::from_secs(5));
        it.link("", "latest").await;
        let snapshot = log.bucket.meter().snapshot();
        for family in KeyFamily::ALL {
            assert_eq!(snapshot.get(tidemark_bucket::Op::List, family).requests, 0, "{}", family.name());
        }
    });
}

#[test]
fn a_read_across_slices_of_the_cache_is_still_a_hit() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        let disk = add(&mut log, 1, "db", "root", 8192);
        let bytes = noise(1, 64 << 10);
        log.write(disk, 2048 - 64, &bytes);
        log.seal().await;
        let it = all_of_time(&log).await;
        let offset = (2048 - 64) * BLOCK;
        assert_eq!(it.read("latest/db/root.raw", offset, 64 << 10).await.unwrap(), bytes);
        let file = it.tree.open(it.walk("latest/db/root.raw").await.unwrap().ino).get().await.unwrap();
        let mut seen = Vec::new();
        let answer = it.tree.read(&file, offset + 3, 60_000, &mut |part| seen.extend_from_slice(part));
        assert!(matches!(answer, ReadAnswer::Hit));
        assert_eq!(seen, bytes[3..60_003]);
    });
}

#[test]
fn what_the_kernel_forgot_is_stale_and_comes_back_under_its_number() {
    block_on(async {
        let mut log = LogBuilder::in_memory().await;
        add(&mut log, 1, "db", "root", 8);
        log.seal().await;
        let it = all_of_time(&log).await;
        let file = it.walk("latest/db/root.raw").await.unwrap();
        it.tree.forget(file.ino, 1);
        assert!(matches!(it.tree.getattr(file.ino).get().await, Err(Error::Stale { .. })));
        assert!(matches!(it.tree.lookup(file.ino, OsStr::new("x")), Answer::Now(Err(Error::Stale { .. }))));
        assert_eq!(it.walk("latest/db/root.raw").await.unwrap(), file);
    });
}
