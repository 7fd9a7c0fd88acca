//! A domain goes over to a recovery site and comes back without loss, and only differences travel: `tidemark recover failback`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tidemark_e2e::Tidemark;
use tidemark_e2e::drva::{Daemon, Site};
use tidemark_e2e::promises::{members, promised};
use tidemark_e2e::system::until;
use tidemark_env::{Entropy, SeededEntropy};
use tidemark_vm::tool;

const TIDEMARK: &str = env!("CARGO_BIN_EXE_tidemark-under-test");
const DISK: &str = "vm/disk";
const MIB: u64 = 1 << 20;

/// MiB that the recovery site changes.
fn changed_mib() -> u64 {
    std::env::var("TIDEMARK_FAILBACK_MIB").map_or(24, |mib| mib.parse().expect("a number of MiB"))
}

fn config(bucket: &str) -> String {
    format!(
        "defaults = {{ rpo = \"1s\" }}\n[[domain]]\nname = \"d\"\nurl = \"{bucket}\"\ncreate = true\n\
         disk = [{{ vm = \"vm\", disk = \"disk\", primary = \"{{at}}/disk.img\" }}]\n"
    )
}

/// The old site, whose VM filled half of its disk and is off, and a recovery site that protects the same domain on a copy of the disk.
struct Two {
    old: Site,
    new: Site,
    daemon: Daemon,
    disk_bytes: u64,
}

fn write(site: &Site, seed: u64, offset: u64, len: u64) {
    let noise = site.path("noise");
    let dice = SeededEntropy::new(seed);
    let bytes: Vec<u8> = (0..len / 8).flat_map(|_| dice.number().to_le_bytes()).collect();
    std::fs::write(&noise, bytes).unwrap();
    let write = format!("write -s {} {offset} {len}", noise.display());
    let mut qemu_io = Command::new("qemu-io");
    let ran = qemu_io.args(["-f", "raw", "-t", "none", "-c", &write, "-c", "flush", &site.uri(DISK)]).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && !said.contains("failed"), "{said}");
}

/// Of images that may be larger than memory.
fn are_equal(a: &Path, b: &Path) -> bool {
    Command::new("cmp").arg("--silent").args([a, b]).status().unwrap().success()
}

fn two_sites() -> Two {
    let disk_bytes = (2 * changed_mib()).next_multiple_of(16) * MIB;
    let old = Site::new(TIDEMARK, &config("{at}/bucket"));
    old.image("disk.img", disk_bytes);
    let daemon = old.serve(DISK);
    old.until_disk_is(DISK, "protected");
    for at in (0..disk_bytes / 2).step_by(8 * MIB as usize) {
        write(&old, at, at, 8 * MIB);
    }
    old.drain();
    daemon.stop();
    let new = Site::new(TIDEMARK, &config(&old.bucket()));
    std::fs::copy(old.path("disk.img"), new.path("disk.img")).unwrap();
    let daemon = new.serve(DISK);
    new.until_disk_is(DISK, "protected");
    new.drain();
    Two { old, new, daemon, disk_bytes }
}

impl Two {
    fn args(&self, more: &[&str]) -> Vec<String> {
        let to = format!("{DISK}={}", self.old.path("disk.img").display());
        let source = self.new.path("api.sock").display().to_string();
        let bucket = self.old.bucket();
        let args = ["recover", "failback", &bucket, "--to", &to, "--source", &source];
        args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
    }

    fn failback(&self, more: &[&str]) -> Value {
        Tidemark::new(TIDEMARK).json(self.args(more))
    }

    fn is_fenced(&self) -> bool {
        self.new.status()["state"]["is"] == "fenced"
    }

    fn images_are_equal(&self) -> bool {
        are_equal(&self.old.path("disk.img"), &self.new.path("disk.img"))
    }
}

#[test]
fn a_domain_comes_back_without_loss_and_only_what_changed_travels() {
    let two = two_sites();
    let changed = changed_mib() * MIB;
    for at in (0..changed).step_by(8 * MIB as usize) {
        write(&two.new, 1000 + at, two.disk_bytes / 4 + at, 8 * MIB);
    }
    two.new.drain();
    assert!(!two.images_are_equal());
    let dry = two.failback(&["--dry-run"]);
    assert!(!two.is_fenced() && !two.images_are_equal() && dry["source"].is_null(), "{dry}");

    let done = two.failback(&[]);
    assert_eq!(members(&done), promised("recover failback"));
    assert!(two.images_are_equal());
    let sent = done["total_fetched_bytes"].as_u64().unwrap();
    assert!(sent as f64 <= 1.1 * changed as f64, "{sent} bytes for {changed}: {done}");
    until("the recovery site is fenced", || two.is_fenced());
    let last = done["source"]["last_lsn"].as_u64().unwrap();
    assert!(last < done["lsn"].as_u64().unwrap() && last == two.new.status()["last_lsn"], "{done}");

    // Again, as after a kill: it is known to be handed over, and there is nothing left to do.
    let again = two.failback(&[]);
    assert!(two.images_are_equal());
    assert_eq!(again["source"], done["source"]);
    let written = |report: &Value| report["disks"][0]["while_running"]["written_bytes"].as_u64().unwrap();
    assert_eq!(written(&again), 0, "{again}");
    assert!(written(&done) >= changed, "{done}");
    two.daemon.stop();

    // The old site goes on where the recovery site ended.
    let daemon = two.old.serve(DISK);
    until("it knows", || two.old.status()["state"]["is"] == "fenced");
    two.old.drva(&["takeover", "d"]);
    until("it goes on", || two.old.status()["state"]["is"] == "replicating");
    two.old.until_disk_is(DISK, "protected");
    write(&two.old, 5, 0, MIB);
    two.old.drain();
    let restored = two.old.restored(DISK, "latest");
    daemon.stop();
    assert!(are_equal(&restored, &two.old.path("disk.img")));
}

#[test]
fn nobody_is_fenced_while_a_vm_has_a_disk_open_or_something_is_not_in_the_bucket() {
    let two = two_sites();
    // A VM that is still there.
    let mut vm = Command::new("qemu-io")
        .args(["-f", "raw", "-t", "none", &two.new.uri(DISK)])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("it is connected", || two.new.disk(DISK)["attachment"]["connections"] == 1);
    let ran = Tidemark::new(TIDEMARK).run(two.args(&["--patience", "500ms"]));
    assert!(ran.code == Some(1) && ran.stderr.contains("still have disks of the domain open"), "{ran:?}");
    assert_eq!(two.new.status()["state"]["is"], "replicating");
    drop(vm.stdin.take());
    vm.wait().unwrap();
    // What ships stands still.
    two.new.drva(&["pause", "d"]);
    let ran = Tidemark::new(TIDEMARK).run(two.args(&["--patience", "500ms"]));
    assert!(ran.code == Some(1) && ran.stderr.contains("does not replicate"), "{ran:?}");
    two.new.drva(&["resume", "d"]);
    until("it replicates again", || two.new.status()["state"]["is"] == "replicating");
    // A disk of the domain that nobody speaks of.
    let to = format!("vm/other={}", two.old.path("disk.img").display());
    let source = two.new.path("api.sock").display().to_string();
    let args = ["recover", "failback", &two.old.bucket(), "--to", &to, "--source", &source];
    let ran = Tidemark::new(TIDEMARK).run(args);
    assert!(ran.code == Some(2) && ran.stderr.contains("vm/disk"), "{ran:?}");
    assert_eq!(two.new.status()["state"]["is"], "replicating");
    write(&two.new, 9, 0, MIB);
}

#[test]
fn a_planned_failover_loses_nothing_and_fences_the_old_site() {
    let site = Site::new(TIDEMARK, &config("{at}/bucket"));
    site.image("disk.img", 16 * MIB);
    let daemon = site.serve(DISK);
    site.until_disk_is(DISK, "protected");
    write(&site, 3, MIB, 8 * MIB);
    site.drain();
    write(&site, 4, MIB, MIB);
    let tidemark =
        Tidemark::new(TIDEMARK).env("TIDEMARK_QEMU", tool("qemu-system-x86_64")).env("TIDEMARK_ACCEL", "tcg");
    let (dir, source) = (site.path("recovery").display().to_string(), site.path("api.sock").display().to_string());
    let bucket = site.bucket();
    let args = ["recover", "planned", &bucket, "--dir", &dir, "--source", &source];
    // A command that is to shut VMs down, and fails: nothing has happened.
    let ran = tidemark.run(args.iter().copied().chain(["--shut-down", "exit 3"]));
    assert!(ran.code == Some(1) && ran.stderr.contains("--shut-down failed"), "{ran:?}");
    assert_eq!(site.status()["state"]["is"], "replicating");
    let report = tidemark.json(args.iter().copied().chain(["--shut-down", "true"]));
    assert_eq!(report["phase"], "up", "{report}");
    until("the old site is fenced", || site.status()["state"]["is"] == "fenced");
    let note: Value = serde_json::from_slice(&std::fs::read(site.path("recovery/handover.json")).unwrap()).unwrap();
    assert_eq!(note["last_lsn"], site.status()["last_lsn"]);
    tidemark.ok(["recover", "discard", &dir]);
    daemon.stop();
    let restored = site.restored(DISK, &format!("lsn:{}", note["last_lsn"]));
    assert!(are_equal(&restored, &site.path("disk.img")));
}
