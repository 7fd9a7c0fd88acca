//! A protected site that is gone runs again from its bucket: real guests, from a DRVA's bucket through real mounts to QEMU.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemark_e2e::drva::{Daemon, Site};
use tidemark_e2e::promises::{members, promised};
use tidemark_e2e::system::{is_mountpoint, pause, signal};
use tidemark_e2e::tables::check;
use tidemark_e2e::{Ran, Tidemark};
use tidemark_env::{Entropy, SeededEntropy};
use tidemark_vm::{Disk, Job, Machine, Promises, Serial, initrd, kernel, tool, until};

const TIDEMARK: &str = env!("CARGO_BIN_EXE_tidemark-under-test");
const DISK_BYTES: u64 = 48 << 20;
const VMS: [&str; 2] = ["db", "web"];

/// The web server starts when the database has checked what it holds and its agent answers.
const RUNBOOK: &str = r#"
[runbook]
name = "both"
[[group]]
name = "first"
vms = ["db"]
[[group]]
name = "second"
vms = ["web"]
[[vm]]
name = "db"
check = [{ console = "READY", every = "50ms" }, { agent = true, every = "50ms" }]
[[vm]]
name = "web"
memory = "192MiB"
check = [{ console = "READY", every = "50ms" }]
"#;

/// A site whose VMs wrote until it was gone: what is left is the bucket, and what the guests saw as durable.
struct Gone {
    site: Site,
    promises: BTreeMap<&'static str, Promises>,
}

fn site_that_is_gone() -> Gone {
    let disk = |vm: &str| format!("{{ vm = \"{vm}\", disk = \"disk\", primary = \"{{at}}/{vm}.img\" }}");
    let disks = VMS.map(disk).join(", ");
    let config = format!(
        "defaults = {{ rpo = \"300ms\" }}\n[[domain]]\nname = \"d\"\nurl = \"{{at}}/bucket\"\ncreate = true\ndisk = [{disks}]\n"
    );
    let site = Site::new(TIDEMARK, &config);
    for vm in VMS {
        site.image(&format!("{vm}.img"), DISK_BYTES);
    }
    let daemon = site.serve("db/disk");
    for vm in VMS {
        site.until_disk_is(&format!("{vm}/disk"), "protected");
        let file = site.path(&format!("{vm}.xml"));
        std::fs::write(&file, libvirt_xml()).unwrap();
        site.drva(&["vm", "config", "d", vm, &file.display().to_string()]);
    }
    let guests = VMS.map(|vm| {
        let nbd = Disk::nbd(&site.path("nbd.sock"), &format!("d/{vm}/disk"), Duration::from_secs(60));
        (vm, Machine::new(site.dir(), vm).disk(nbd).job(Job::WRITE).boot())
    });
    let mut promises = BTreeMap::new();
    for (vm, mut guest) in guests {
        guest.wait_mark(20);
        let mut promised = Promises::default();
        promised.add(&guest.kill());
        promises.insert(vm, promised);
    }
    site.drain();
    Daemon::kill(daemon);
    Gone { site, promises }
}

/// What `virsh dumpxml` would say of these guests.
fn libvirt_xml() -> String {
    let (kernel, initrd) = (kernel().display().to_string(), initrd().display().to_string());
    let cmdline = "console=ttyS0 quiet panic=-1 rdinit=/init job=write disks=vda";
    format!(
        "<domain type='qemu'><memory unit='MiB'>256</memory><vcpu>1</vcpu>\
         <os><type>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{cmdline}</cmdline></os>\
         <devices><disk type='network' device='disk'><target dev='vda' bus='virtio'/><alias name='ua-disk'/></disk>\
         <interface type='network'><source network='office'/><mac address='52:54:00:00:00:01'/></interface></devices></domain>"
    )
}

/// Keeps nothing running that a test has started.
struct Recovery<'a> {
    gone: &'a Gone,
    dir: PathBuf,
}

impl Drop for Recovery<'_> {
    fn drop(&mut self) {
        if self.dir.join("job.json").exists() {
            self.tidemark().run(["recover", "discard", &self.dir.display().to_string()]);
        }
    }
}

impl<'a> Recovery<'a> {
    /// A recovery to be, in a directory of this name.
    fn new(gone: &'a Gone, name: &str) -> Self {
        std::fs::write(gone.site.path("runbook.toml"), RUNBOOK).unwrap();
        Self { gone, dir: gone.site.path(name) }
    }

    fn tidemark(&self) -> Tidemark {
        self.gone.site.tidemark().clone().env("TIDEMARK_QEMU", tool("qemu-system-x86_64")).env("TIDEMARK_ACCEL", "tcg")
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let runbook = self.gone.site.path("runbook.toml").display().to_string();
        let dir = self.dir.display().to_string();
        let args = ["recover", "test", &self.gone.site.bucket(), "--runbook", &runbook, "--dir", &dir];
        args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
    }

    fn ask(&self, verb: &str, more: &[&str]) -> Value {
        let dir = self.dir.display().to_string();
        self.tidemark().json(["recover", verb, &dir].iter().chain(more))
    }

    /// What a recovered VM said over all its lives.
    fn console(&self, number: usize) -> Serial {
        Serial::new(&std::fs::read(self.dir.join(format!("vm{number}/console.log"))).unwrap_or_default())
    }

    fn pid(&self, number: usize, file: &str) -> u32 {
        std::fs::read_to_string(self.dir.join(format!("vm{number}/{file}"))).unwrap().trim().parse().unwrap()
    }

    /// Every VM found what it had been promised, and goes on to write.
    fn check_guests(&self) {
        for (number, vm) in VMS.into_iter().enumerate() {
            let console = self.console(number);
            self.gone.promises[vm].check(&console).unwrap_or_else(|e| panic!("{vm}: {e}"));
            let before = console.last_mark();
            until("writes of a recovered VM", || Some(()).filter(|()| self.console(number).last_mark() > before + 3));
        }
    }

    /// Nothing runs any more, nothing is mounted, and no disk is left.
    fn check_discarded(&self) {
        for number in 0..VMS.len() {
            let vm = self.dir.join(format!("vm{number}"));
            assert!(!is_mountpoint(&vm.join("mnt")) && !vm.join("disks").exists(), "{}", vm.display());
            for file in ["pid", "rvm.pid"] {
                let pid = std::fs::read_to_string(vm.join(file)).unwrap_or_default();
                let command = std::fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
                let command = String::from_utf8_lossy(&command).into_owned();
                assert!(pid.is_empty() || !command.contains(&vm.display().to_string()), "{command}");
            }
        }
    }
}

/// Every object of a bucket with its length.
fn objects(bucket: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![bucket.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => drop(found.insert(entry.path(), entry.metadata().unwrap().len())),
            }
        }
    }
    found
}

#[test]
fn a_site_that_is_gone_runs_again_from_its_bucket_in_order_and_leaves_no_trace() {
    let gone = site_that_is_gone();
    let recovery = Recovery::new(&gone, "r");
    let before = objects(Path::new(&gone.site.bucket()));
    let report = recovery.tidemark().json(recovery.args(&["--keep"]));
    assert_eq!(members(&report), promised("recover test"));
    assert_eq!((&report["phase"], &report["failures"]), (&"up".into(), &0.into()), "{report}");
    let steps: Vec<(&str, &str, u64, u64)> = report["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| {
            let ms = |name: &str| step[name].as_u64().unwrap();
            (step["vm"].as_str().unwrap(), step["state"].as_str().unwrap(), ms("after_ms"), ms("took_ms"))
        })
        .collect();
    assert_eq!(
        steps.iter().map(|step| (step.0, step.1)).collect::<Vec<_>>(),
        [("db", "done"), ("db", "done"), ("db", "done"), ("web", "done"), ("web", "done")]
    );
    assert!(steps[3].2 >= steps[2].2 + steps[2].3, "the web server waits for the database: {steps:?}");
    assert!(report["rto_ms"].as_u64() >= report["vms"][1]["rto_ms"].as_u64(), "{report}");
    recovery.check_guests();
    assert!(std::fs::read_to_string(recovery.dir.join("report.html")).unwrap().contains("Measured RTO"));
    assert_eq!(objects(Path::new(&gone.site.bucket())), before, "a test leaves the bucket as it is");
    assert_eq!(recovery.ask("status", &[])["phase"], "up");
    assert_eq!(recovery.ask("discard", &[])["phase"], "reverted");
    recovery.check_discarded();
    assert_eq!(objects(Path::new(&gone.site.bucket())), before);

    // Without --keep it ends by itself, and the report stays.
    let recovery = Recovery::new(&gone, "once");
    let report = recovery.tidemark().json(recovery.args(&[]));
    assert_eq!((&report["phase"], report["rto_ms"].is_u64()), (&"reverted".into(), true), "{report}");
    recovery.check_discarded();

    // A check that fails ends it too, and is named.
    let recovery = Recovery::new(&gone, "failed");
    let never = RUNBOOK.replace("{ agent = true, every", "{ console = \"NEVER\", timeout = \"300ms\", every");
    std::fs::write(gone.site.path("runbook.toml"), never).unwrap();
    let Ran { code, stderr, .. } = recovery.tidemark().run(recovery.args(&["--keep"]));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("the console does not show \"NEVER\""), "{stderr}");
    recovery.check_discarded();
}

#[test]
fn fault_a_recovery_that_dies_at_any_moment_is_gone_on_with_and_ends_the_same() {
    let gone = site_that_is_gone();
    let rounds = std::env::var("TIDEMARK_RECOVERY_KILLS").map_or(2, |rounds| rounds.parse().expect("a number"));
    let entropy = SeededEntropy::new(11);
    for round in 0..rounds {
        let recovery = Recovery::new(&gone, &format!("r{round}"));
        let mut first = recovery.tidemark().command(recovery.args(&["--keep"])).spawn().unwrap();
        pause(Duration::from_millis(entropy.number() % 6000));
        first.kill().unwrap();
        first.wait().unwrap();
        if !recovery.dir.join("job.json").exists() {
            // It had not begun: nothing is there to go on with, and nothing runs.
            continue;
        }
        let mut second =
            recovery.tidemark().command(["recover", "resume", &recovery.dir.display().to_string()]).spawn().unwrap();
        pause(Duration::from_millis(entropy.number() % 3000));
        second.kill().unwrap();
        second.wait().unwrap();
        let report = recovery.ask("resume", &[]);
        assert_eq!((&report["phase"], &report["failures"]), (&"up".into(), &0.into()), "{report}");
        recovery.check_guests();
        // Each booted once: who goes on takes over what runs.
        for number in 0..VMS.len() {
            let console = recovery.console(number);
            assert_eq!(console.text().lines().filter(|line| *line == "READY").count(), 1, "{}", console.text());
        }
        if round == 0 {
            guests_outlive_what_serves_their_disks(&recovery);
        }
        recovery.ask("discard", &[]);
        recovery.check_discarded();
    }
}

/// A guest whose disks are gone waits; when they are there again it goes on, and has noticed nothing.
fn guests_outlive_what_serves_their_disks(recovery: &Recovery<'_>) {
    let qemus = [0, 1].map(|number| recovery.pid(number, "pid"));
    for number in [0, 1] {
        signal(recovery.pid(number, "rvm.pid"), "KILL");
    }
    recovery.ask("resume", &[]);
    recovery.check_guests();
    assert_eq!(qemus, [0, 1].map(|number| recovery.pid(number, "pid")), "the same processes");
    for number in [0, 1] {
        let text = recovery.console(number).text().to_owned();
        assert!(!text.contains("I/O error") && !text.contains("FAILED"), "{text}");
    }
}

#[test]
fn a_forced_failover_fences_the_old_site_and_its_guests_move_to_local_disks_while_they_write() {
    let gone = site_that_is_gone();
    let recovery = Recovery::new(&gone, "r");
    let bucket = gone.site.bucket();
    let networks = "[[failover.network]]\nfrom = \"*\"\nto = \"isolated\"\n";
    std::fs::write(gone.site.path("runbook.toml"), format!("{RUNBOOK}{networks}")).unwrap();
    let runbook = gone.site.path("runbook.toml").display().to_string();
    let dir = recovery.dir.display().to_string();
    let args = ["recover", "forced", &bucket, "--runbook", &runbook, "--dir", &dir];
    let would = recovery.tidemark().json(args.iter().copied().chain(["--dry-run"]));
    assert_eq!(members(&would), promised("recover forced --dry-run"));
    let epoch = |tidemark: &Tidemark| tidemark.json(["domain", "show", &bucket])["epoch"].as_u64().unwrap();
    let before = epoch(gone.site.tidemark());
    assert_eq!(would["would_fence_epoch"], before);
    let report = recovery.tidemark().json(args.iter().copied().chain(["--settle"]));
    assert_eq!((&report["phase"], &report["mode"]), (&"settled".into(), &"failover".into()), "{report}");
    assert_eq!(epoch(gone.site.tidemark()), before + 1);
    // Whoever asks later finds its times in the domain's statistics.
    let recoveries = check(&["sums", &format!("{bucket}/v/stats"), "recovery_run"], "");
    let run = recoveries.as_object().unwrap().values().next().unwrap();
    let steps = report["steps"].as_array().unwrap().len() as u64;
    assert_eq!((&run["rows"], &run["vms"], &run["ready_vms"]), (&1.into(), &2.into(), &2.into()), "{recoveries}");
    assert_eq!((&run["steps"], &run["lsn"]), (&steps.into(), &report["lsn"]), "{recoveries}");
    // Nothing of the bucket is needed any more, and no guest was started again.
    std::fs::rename(&bucket, gone.site.path("away")).unwrap();
    recovery.check_guests();
    for number in 0..VMS.len() {
        let console = recovery.console(number);
        assert_eq!(console.text().lines().filter(|line| *line == "READY").count(), 1, "{}", console.text());
        assert!(!console.text().contains("FAILED"), "{}", console.text());
    }
    std::fs::rename(gone.site.path("away"), &bucket).unwrap();

    // The old site comes back, and learns that it is fenced.
    let daemon = gone.site.start();
    until("a fenced site", || Some(()).filter(|()| is_fenced(&gone.site)));
    daemon.kill();
    assert_eq!(recovery.ask("discard", &[])["phase"], "reverted");
    recovery.check_discarded();
}

/// Whether the appliance says that another one owns its domain: it is fenced, or has writes that came too late.
fn is_fenced(site: &Site) -> bool {
    let socket = site.path("api.sock").display().to_string();
    let ran = site.tidemark().run(["--json", "drva", "--socket", &socket, "status", "d"]);
    let status = serde_json::from_str::<Value>(&ran.stdout).unwrap_or_default();
    ran.code == Some(0) && ["fenced", "diverged"].iter().any(|state| status["state"]["is"] == *state)
}
