//! Disks that are there already go to a point, back and forth, for what differs: `tidemark recover restore`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tidemark_e2e::Tidemark;
use tidemark_e2e::promises::{members, promised};
use tidemark_e2e::sample::{BASE, DISK_BYTES, LOG, base, path};
use tidemark_e2e::system::until;
use tidemark_vm::NbdServer;

/// The first LSN at which the recorded VM's disk can be restored, one in the middle of its writes, and the last.
const FIRST: &str = "lsn:5";
const MIDDLE: &str = "lsn:250";
const LAST: &str = "lsn:464";

fn tidemark() -> Tidemark {
    Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"))
}

/// The recorded VM's bucket, and a place for images.
struct Site {
    dir: tempfile::TempDir,
    url: String,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("bucket").display().to_string();
        let (base, log) = (path(BASE).display().to_string(), path(LOG).display().to_string());
        tidemark().ok(["domain", "create", &url, "--name", "payroll"]);
        tidemark().ok(["ingest", &url, "--disk", "web1/root", "--format", "raw", &base]);
        tidemark().ok(["ingest", &url, "--disk", "web1/root", "--format", "blklogwrites", &log]);
        Self { dir, url }
    }

    /// An image that somebody has.
    fn image(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// The disk at a point, exported.
    fn at(&self, point: &str) -> Vec<u8> {
        let out = self.dir.path().join("exported").display().to_string();
        tidemark().ok(["export", &self.url, "--disk", "web1/root", "--at", point, "--force", &out]);
        std::fs::read(out).unwrap()
    }

    fn args(&self, image: &Path, at: &str, more: &[&str]) -> Vec<String> {
        let to = image.display().to_string();
        let args = ["recover", "restore", &self.url, "--disk", "web1/root", "--at", at, "--to", &to];
        args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
    }

    fn restore(&self, image: &Path, at: &str, more: &[&str]) -> Value {
        tidemark().json(self.args(image, at, more))
    }
}

fn number(report: &Value, member: &str) -> u64 {
    report[member].as_u64().unwrap_or_else(|| panic!("{member} of {report}"))
}

fn journal(image: &Path) -> PathBuf {
    PathBuf::from(format!("{}.restore", image.display()))
}

#[test]
fn an_image_goes_to_any_point_and_back_for_what_differs() {
    let site = Site::new();
    let image = site.image("disk.img", &base());
    let (first, middle, last) = (site.at(FIRST), site.at(MIDDLE), site.at(LAST));
    assert!(first == base() && first != middle && middle != last);
    let differ = first.chunks(512).zip(last.chunks(512)).filter(|(a, b)| a != b).count() as u64 * 512;

    let dry = site.restore(&image, LAST, &["--dry-run"]);
    assert_eq!(members(&dry), promised("recover restore"));
    assert!(std::fs::read(&image).unwrap() == first && !journal(&image).exists(), "a dry run writes nothing");

    let done = site.restore(&image, LAST, &[]);
    assert!(std::fs::read(&image).unwrap() == last && !journal(&image).exists());
    assert_eq!((&done["verified"], number(&done, "size_bytes")), (&true.into(), DISK_BYTES));
    let written = number(&done, "written_bytes") + number(&done, "zeroed_bytes");
    assert_eq!(written, differ, "nothing is written that is there already: {done}");
    assert_eq!(done["fetched_bytes"], dry["fetched_bytes"], "as was foretold");

    let again = site.restore(&image, LAST, &[]);
    assert_eq!((number(&again, "written_bytes"), number(&again, "zeroed_bytes")), (0, 0));

    // What is known to have changed is all that is looked at, in both directions.
    for (since, at, wanted) in [("464", MIDDLE, &middle), ("250", FIRST, &first), ("5", LAST, &last)] {
        let done = site.restore(&image, at, &["--since", since]);
        assert!(std::fs::read(&image).unwrap() == *wanted, "from {since} to {at}: {done}");
        assert!(number(&done, "compared_bytes") < DISK_BYTES / 4, "{done}");
    }

    // An image of another size, with other contents.
    for len in [1 << 20, DISK_BYTES as usize + (1 << 20)] {
        let other = site.image("other.img", &vec![0xa5; len]);
        site.restore(&other, MIDDLE, &[]);
        assert!(std::fs::read(&other).unwrap() == middle, "{len} bytes");
    }
}

#[test]
fn fault_a_restore_that_is_killed_goes_on_and_fetches_no_object_again() {
    let site = Site::new();
    let last = site.at(LAST);
    let whole = site.restore(&site.image("whole.img", &[]), LAST, &[]);
    let image = site.image("disk.img", &[]);
    // The contents of the seed never come; those of the log do.
    let mut child = tidemark()
        .command(site.args(&image, LAST, &[]))
        .env("TIDEMARK_FAULTS", "get:base/:hang:@2")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let noted = || std::fs::read_to_string(journal(&image)).unwrap_or_default();
    until("an object of the log is noted", || noted().contains(" log/") && noted().ends_with('\n'));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(std::fs::read(&image).unwrap() != last);
    let rest = site.restore(&image, LAST, &[]);
    assert!(std::fs::read(&image).unwrap() == last && !journal(&image).exists());
    assert!(number(&rest, "fetched_bytes") < number(&whole, "fetched_bytes"), "{rest}\n{whole}");
    assert_eq!(rest["was_another"], false);
}

#[test]
fn after_a_restore_that_was_not_finished_nobody_believes_where_an_image_stands() {
    let site = Site::new();
    // Somebody began to bring it from lsn 5 to the last one, and was killed when all was written.
    let image = site.image("disk.img", &site.at(LAST));
    std::fs::write(journal(&image), "tidemark restore 1\nthe last lsn\nit held lsn 5\n").unwrap();
    let done = site.restore(&image, MIDDLE, &["--since", "5"]);
    assert_eq!(done["was_another"], true);
    assert!(std::fs::read(&image).unwrap() == site.at(MIDDLE));
    assert_eq!(number(&done, "compared_bytes"), DISK_BYTES, "all of it was looked at");
}

#[test]
fn what_must_not_be_restored_to_is_left_as_it_is() {
    let site = Site::new();
    let refused = |image: &Path, code: i32, says: &str| {
        let before = std::fs::read(image).ok();
        let ran = tidemark().run(site.args(image, LAST, &[]));
        assert!(ran.code == Some(code) && ran.stderr.contains(says), "{ran:?}");
        assert!(std::fs::read(image).ok() == before && !journal(image).exists());
    };
    refused(&site.image("disk.qcow2", b"QFI\xfb of a VM"), 1, "qcow2");
    refused(&site.dir.path().join("none.img"), 1, "none.img");
    refused(site.dir.path(), 1, "neither a file nor a block device");
    // A VM or whoever else has QEMU's locks on it.
    let image = site.image("disk.img", &base());
    let server = NbdServer::start(&image, &site.dir.path().join("nbd"));
    refused(&image, 1, "is in use");
    drop(server);
    site.restore(&image, LAST, &[]);
}

#[test]
fn fault_what_nobody_has_stays_as_it_was_and_is_told() {
    let site = Site::new();
    let last = site.at(LAST);
    let mut objects: Vec<PathBuf> = walk(&site.dir.path().join("bucket/base"));
    objects.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
    let largest = objects.last().unwrap();
    let mut bytes = std::fs::read(largest).unwrap();
    let at = bytes.len() - 10;
    bytes[at] ^= 1;
    std::fs::write(largest, bytes).unwrap();
    let image = site.image("disk.img", &vec![0x77; DISK_BYTES as usize]);
    let ran = tidemark().run(std::iter::once("--json".to_owned()).chain(site.args(&image, LAST, &[])));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let lost = number(&report, "lacking_bytes");
    assert!(lost > 0 && lost <= 64 << 10, "one frame: {report}");
    let now = std::fs::read(&image).unwrap();
    let differs = now.chunks(512).zip(last.chunks(512)).filter(|(a, b)| a != b);
    let stale = differs.inspect(|(now, _)| assert!(now.iter().all(|byte| *byte == 0x77))).count() as u64;
    assert_eq!(stale * 512, lost);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
