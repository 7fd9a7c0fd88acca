//! The recorded VM through a real FUSE mount, with and without an index: file systems are whole at every flush, files are what
//! the guest saw.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tidemark_e2e::sample::{BASE, FINAL_SHA256, LOG, log, marks, path};
use tidemark_e2e::system::{LoopMount, is_mountpoint, run, sha256, try_run};
use tidemark_e2e::{Mounted, Tidemark};

fn tidemark() -> Tidemark {
    Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"))
}

/// The recorded VM in a bucket, mounted.
struct Recorded {
    /// Unmounted before its directory goes.
    mounted: Mounted,
    dir: tempfile::TempDir,
    url: String,
    first_lsn: u64,
    last_lsn: u64,
}

/// Whether the history is read through an index.
#[derive(PartialEq)]
enum Index {
    None,
    Whole,
}

fn recorded(index: Index) -> Recorded {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("bucket").display().to_string();
    let (base, log) = (path(BASE).display().to_string(), path(LOG).display().to_string());
    let tidemark = tidemark();
    tidemark.ok(["domain", "create", &url, "--name", "recorded"]);
    tidemark.ok(["ingest", &url, "--disk", "vm/root", "--format", "raw", &base]);
    let report = tidemark.json(["ingest", &url, "--disk", "vm/root", "--format", "blklogwrites", &log]);
    if index == Index::Whole {
        let built = tidemark.json(["gc", "run", &url]);
        assert_eq!(built["index"]["through_lsn"], tidemark.json(["points", &url])["latest"]["lsn"]);
        assert_eq!(tidemark.json(["gc", "status", &url])["index"], built["index"]);
    }
    let mounted = tidemark.mount(&url, &dir.path().join("time"), &[]);
    let lsn = |name: &str| report[name].as_u64().unwrap();
    Recorded { first_lsn: lsn("first_lsn"), last_lsn: lsn("last_lsn"), mounted, dir, url }
}

impl Recorded {
    fn at(&self, lsn: u64) -> PathBuf {
        self.mounted.disk(&format!("lsn/{lsn}"), "vm", "root")
    }

    /// LSNs of the flushes.
    fn flushes(&self) -> Vec<u64> {
        let entries = log(LOG).into_iter().enumerate();
        entries.filter(|(_, entry)| entry.data.is_empty()).map(|(i, _)| self.first_lsn + i as u64).collect()
    }
}

fn fsck(image: &Path) -> String {
    let (code, said) = try_run("e2fsck", ["-fn".as_ref(), image.as_os_str()]);
    assert_eq!(code, Some(0), "{}: {said}", image.display());
    said
}

#[test]
fn mount_of_every_flush_is_a_whole_file_system_with_the_files_that_the_guest_saw() {
    let recorded = recorded(Index::Whole);
    let marks: BTreeMap<u32, String> = marks().into_iter().collect();
    let copy = recorded.dir.path().join("copy.img");
    let files = recorded.dir.path().join("files");
    let (mut seen, mut newest) = (BTreeMap::new(), 0);
    let flushes = recorded.flushes();
    assert_eq!(flushes.len(), 182);
    for lsn in flushes {
        // A guest that lost its power here would replay the journal first; a mount is read-only, so a copy does.
        run("cp", ["--sparse=always".as_ref(), recorded.at(lsn).as_os_str(), copy.as_os_str()]);
        let (code, said) = try_run("e2fsck", ["-E".as_ref(), "journal_only".as_ref(), "-y".as_ref(), copy.as_os_str()]);
        assert!(matches!(code, Some(0 | 1)), "journal at lsn {lsn}: {said}");
        fsck(&copy);
        let _loop = LoopMount::new(&copy, &files, false);
        let list = std::fs::read_to_string(files.join("run/LIST")).unwrap_or_default();
        for line in list.lines() {
            let (number, hash) = line.split_once(' ').expect("the guest wrote two words a line");
            let number: u32 = number.parse().unwrap();
            assert_eq!(hash, marks[&number], "lsn {lsn}: the guest's list names another hash for file {number}");
            let file = files.join(format!("run/f{number}"));
            // The guest removes each fifth file of ten before it takes it off the list.
            if number % 10 == 5 && !file.exists() {
                continue;
            }
            // A file does not change once it is listed, so one look at its newest state is enough.
            if seen.get(&number) != Some(&std::fs::metadata(&file).unwrap().len()) || number > newest {
                assert_eq!(sha256(&file), hash, "lsn {lsn}: file {number}");
                seen.insert(number, std::fs::metadata(&file).unwrap().len());
            }
            newest = newest.max(number);
        }
    }
    assert_eq!(
        seen.keys().copied().collect::<Vec<_>>(),
        marks.keys().copied().collect::<Vec<_>>(),
        "each mark was met"
    );
}

#[test]
fn loop_mount_straight_from_the_fuse_mount_has_every_file_of_the_guest() {
    let recorded = recorded(Index::None);
    let marks: BTreeMap<u32, String> = marks().into_iter().collect();
    for point in [format!("lsn/{}", recorded.last_lsn), "latest".to_owned()] {
        let image = recorded.mounted.disk(&point, "vm", "root");
        assert_eq!(sha256(&image), FINAL_SHA256);
        fsck(&image);
        let files = LoopMount::new(&image, &recorded.dir.path().join("files"), true);
        let list = std::fs::read_to_string(recorded.dir.path().join("files/run/LIST")).unwrap();
        assert_eq!(list.lines().count(), 36, "40 written, 4 removed");
        for line in list.lines() {
            let (number, hash) = line.split_once(' ').unwrap();
            assert_eq!(hash, marks[&number.parse().unwrap()]);
            assert_eq!(sha256(&recorded.dir.path().join(format!("files/run/f{number}"))), hash, "file {number}");
        }
        drop(files);
    }
    // Before its first write the disk is the image that was there before.
    fsck(&recorded.at(recorded.first_lsn - 1));
}

#[test]
fn mount_shows_points_by_lsn_time_and_bookmark_and_goes_on_sigterm_and_sigint() {
    let recorded = recorded(Index::Whole);
    let points = tidemark().json(["points", &recorded.url]);
    let bookmark = points["bookmarks"][0]["name"].as_str().unwrap();
    let time = points["bookmarks"][0]["time"].as_str().unwrap();
    let dir = recorded.mounted.dir().to_owned();
    let hash = |point: String| sha256(&recorded.mounted.disk(&point, "vm", "root"));
    let before = hash(format!("lsn/{}", recorded.first_lsn - 1));
    assert_eq!(hash(format!("bookmarks/{bookmark}")), before);
    assert_eq!(hash("latest".into()), FINAL_SHA256);
    assert_eq!(hash(format!("at/{time}")), before, "the last lsn of that millisecond is the bookmark's");
    assert_eq!(recorded.mounted.stop("TERM"), Some(0));
    assert!(!is_mountpoint(&dir));

    let single = tidemark().mount(&recorded.url, &dir, &["--at", &format!("lsn:{}", recorded.last_lsn)]);
    assert_eq!(sha256(&dir.join("vm/root.raw")), FINAL_SHA256);
    assert_eq!(single.stop("INT"), Some(0));
    assert!(!is_mountpoint(&dir));
}

/// Random 4 KiB writes of one mebibyte after the other, each block once, as fio can check them later.
fn fio(file: &Path, start_mib: u32, more: &[&str]) -> std::process::Command {
    let mut fio = std::process::Command::new("fio");
    fio.args(["--name=overlay", "--ioengine=libaio", "--direct=1", "--bs=4k", "--iodepth=16", "--verify=crc32c"]);
    fio.args(["--rw=randwrite", "--size=4m", "--randseed=7", "--allrandrepeat=1", "--verify_state_save=0"]);
    fio.arg(format!("--offset={start_mib}m")).arg(format!("--filename={}", file.display())).args(more);
    fio.stderr(std::process::Stdio::null());
    fio
}

#[test]
fn contract_what_was_written_is_there_after_a_kill() {
    let recorded = recorded(Index::Whole);
    let (dir, local) = (recorded.dir.path().join("live"), recorded.dir.path().join("local"));
    let local = local.display().to_string();
    let file = dir.join("vm/root.raw");
    let mut written = Vec::new();
    for round in 0..4 {
        let at = format!("lsn:{}", recorded.last_lsn);
        let more =
            if round == 0 { vec!["--at", &at, "--overlay", &local] } else { vec!["--overlay", &*local, "--hydrate"] };
        let live = tidemark().mount(&recorded.url, &dir, &more);
        for start in &written {
            let found = fio(&file, *start, &["--verify_only=1"]).output().unwrap();
            assert!(found.status.success(), "round {round}: {}", String::from_utf8_lossy(&found.stdout));
        }
        let start = round * 8;
        let done = fio(&file, start, &["--do_verify=0"]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        written.push(start);
        // Killed in the middle of others, and nothing was flushed.
        let endless = ["--do_verify=0", "--time_based", "--runtime=60"];
        let mut others = fio(&file, start + 4, &endless).stdout(std::process::Stdio::null()).spawn().unwrap();
        let blocks = || {
            std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(Path::new(&local).join("vm/root.raw")).unwrap())
        };
        let before = blocks();
        tidemark_e2e::system::until("writes", || blocks() > before);
        assert_eq!(live.stop("KILL"), None);
        others.wait().unwrap();
    }
    let live = tidemark().mount(&recorded.url, &dir, &["--overlay", &local]);
    let original = recorded.at(recorded.last_lsn);
    let (ours, theirs) = (std::fs::read(&file).unwrap(), std::fs::read(original).unwrap());
    assert!(ours[32 << 20..] == theirs[32 << 20..], "what nobody wrote is as it was at the point");
    assert_eq!(live.stop("TERM"), Some(0));
}
