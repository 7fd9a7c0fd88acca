//! Real guests on a DRVA: inline and tapped, killed together with it at random moments, and compared with what they saw as
//! durable: on the primary, in the bucket, and at points around each crash.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::{Value, json};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tidemark_e2e::drva::{Daemon, Site};
use tidemark_e2e::system::{pause, until};
use tidemark_env::{Entropy, SeededEntropy};
use tidemark_format::{EventBody, Lsn};
use tidemark_qemu::{Address, Qmp, QmpOptions};
use tidemark_vm::{Disk, Guest, Job, Machine, Promises, Serial, fsck, fsck_copy, initrd, kernel, tool};

const TIDEMARK: &str = env!("CARGO_BIN_EXE_tidemark-under-test");
const DISK: &str = "vm/disk";
const EXPORT: &str = "d/vm/disk";
const DISK_BYTES: u64 = 64 << 20;
/// How long a guest waits for an appliance that is gone.
const RECONNECT_DELAY: Duration = Duration::from_secs(120);
/// Points that are looked at around each crash.
const POINTS: usize = 20;

/// How often everything is killed, if nobody says how often.
fn rounds(few: u64) -> u64 {
    std::env::var("TIDEMARK_GUEST_ROUNDS").map_or(few, |rounds| rounds.parse().expect("a number of rounds"))
}

fn domain(disks: &str) -> Site {
    let config = r#"
        defaults = { rpo = "300ms" }
        [[domain]]
        name = "d"
        url = "{at}/bucket"
        create = true
    "#;
    Site::new(TIDEMARK, &format!("{config}{disks}"))
}

/// A disk with a primary of its own.
fn inline(vm: &str, mode: &str) -> String {
    format!("[[domain.disk]]\nvm = \"{vm}\"\ndisk = \"disk\"\nprimary = \"{{at}}/{vm}.img\"\nmode = \"{mode}\"\n",)
}

fn dice(seed: u64, milliseconds: u64) -> impl FnMut() -> Duration {
    let entropy = SeededEntropy::new(seed);
    move || Duration::from_millis(entropy.number() % milliseconds)
}

/// A guest that checks what an image holds.
fn checked(dir: &Path, image: &Path) -> Serial {
    Machine::new(dir, "check").disk(Disk::raw(image)).job(Job::Verify).boot().wait_end()
}

/// Kills both, now the one first, now the other; what the guest had said.
fn kill_both(round: u64, daemon: Daemon, guest: &mut Guest) -> Serial {
    if round.is_multiple_of(3) {
        daemon.kill();
        return guest.kill();
    }
    let life = guest.kill();
    daemon.kill();
    life
}

/// Takes what a life found and promised.
fn note(promises: &mut Promises, life: &Serial) {
    if life.verdict().is_some() {
        promises.check(life).unwrap();
    }
    promises.add(life);
}

/// Mounts random points around LSNs at which everything was killed, and checks the file system at each.
fn check_points(site: &Site, points: &[u64], crashes: &[u64]) {
    let mounted = site.tidemark().mount(&site.bucket(), &site.path("time"), &[]);
    let entropy = SeededEntropy::new(3);
    for crash in crashes {
        let mut near = points.to_vec();
        near.sort_by_key(|lsn| lsn.abs_diff(*crash));
        near.truncate(3 * POINTS);
        assert!(near.len() >= POINTS, "{} points in all", points.len());
        for _ in 0..POINTS {
            let lsn = near.swap_remove(entropy.number() as usize % near.len());
            let image = mounted.disk(&format!("lsn/{lsn}"), "vm", "disk");
            fsck_copy(&image, &site.path("point.fsck")).unwrap_or_else(|e| panic!("lsn {lsn}, killed at {crash}: {e}"));
        }
    }
}

/// Where the guest flushed, from an LSN on.
fn flush_points(site: &Site, from: u64) -> Vec<u64> {
    let events = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let timeline = site.reader().await.timeline();
        timeline.events(Lsn::new(from), timeline.latest().lsn).await.unwrap()
    });
    let flushes = events.into_iter().filter(|(_, event)| matches!(event, EventBody::Flush { .. }));
    flushes.map(|(at, _)| at.lsn.get()).collect()
}

/// Where the disk can be restored, from an LSN on: a mirror is sent no flushes, and every point is one that a crash may leave.
fn restorable_points(site: &Site, from: u64) -> Vec<u64> {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let reader = site.reader().await;
        let timeline = reader.timeline();
        let mut points = Vec::new();
        for lsn in (from..=timeline.latest().lsn.get()).map(Lsn::new) {
            let disk = timeline.find_disk("vm", "disk", lsn).unwrap();
            if reader.disk(disk.id, lsn).await.is_ok() {
                points.push(lsn.get());
            }
        }
        points
    })
}

#[test]
fn guest_and_appliance_are_killed_together_and_what_was_durable_is_on_the_primary_and_in_the_bucket() {
    let site = domain(&inline("vm", "write-back"));
    let primary = site.image("vm.img", DISK_BYTES);
    let daemon = site.serve(DISK);
    site.until_disk_is(DISK, "protected");
    daemon.stop();
    let nbd = site.path("nbd.sock");
    let machine = Machine::new(site.dir(), "guest").disk(Disk::nbd(&nbd, EXPORT, RECONNECT_DELAY)).job(Job::WRITE);
    let mut moment = dice(5, 1500);
    let (mut promises, mut crashes, mut whole_from) = (Promises::default(), Vec::new(), 0);
    for round in 0..rounds(2) {
        let mut daemon = site.start();
        until("NBD socket", || UnixStream::connect(&nbd).is_ok());
        // Whether the domain is open by then or not.
        let mut guest = machine.boot();
        if round % 5 == 4 {
            // While the guest boots, replays its journal or checks.
            pause(4 * moment());
        } else {
            guest.wait_ready();
            guest.wait_more_marks(2);
            pause(moment());
        }
        if round == 0 {
            whole_from = site.status()["last_lsn"].as_u64().unwrap();
        }
        if round % 2 == 0 {
            // The guest notices nothing of a restart, and goes on in the other mode.
            daemon.kill();
            daemon = site.serve(DISK);
            let mode = if round % 4 == 0 { "write-through" } else { "write-back" };
            site.drva(&["disk", "mode", "d/vm/disk", mode]);
            if round % 5 != 4 {
                guest.wait_more_marks(2);
            }
            pause(moment());
        }
        let life = kill_both(round, daemon, &mut guest);
        note(&mut promises, &life);
        let daemon = site.serve(DISK);
        crashes.push(site.status()["last_lsn"].as_u64().unwrap());
        site.drain();
        daemon.stop();
        let restored = site.restored(DISK, "latest");
        assert!(std::fs::read(&primary).unwrap() == std::fs::read(&restored).unwrap(), "round {round}");
        fsck(&primary).unwrap_or_else(|e| panic!("round {round}: {e}"));
    }
    check_points(&site, &flush_points(&site, whole_from), &crashes);
    let restored = site.restored(DISK, "latest");
    promises.check(&checked(site.dir(), &restored)).unwrap();
    promises.check(&checked(site.dir(), &primary)).unwrap();
    site.tidemark().ok(["verify", &site.bucket()]);
}

/// A site with a disk that is tapped, a guest that runs on its own disk, and the image of that.
fn tapped() -> (Site, Machine) {
    let disk = format!("[[domain.disk]]\nvm = \"vm\"\ndisk = \"disk\"\nsize = \"{DISK_BYTES}\"\n");
    let site = domain(&disk);
    let own = site.image("own.img", DISK_BYTES);
    let machine = Machine::new(site.dir(), "guest").disk(Disk::raw(&own)).job(Job::WRITE);
    (site, machine)
}

fn attach(site: &Site, guest: &Guest) {
    let qmp = guest.qmp_socket().display().to_string();
    site.drva(&["attach", "--qmp", &qmp, "--disk", "d/vm/disk", "--node", "vda"]);
}

#[test]
fn a_tapped_guest_outlives_its_appliance_and_what_was_durable_is_in_the_bucket() {
    let (site, machine) = tapped();
    let mut moment = dice(6, 1500);
    let (mut promises, mut crashes, mut whole_from) = (Promises::default(), Vec::new(), 0);
    for round in 0..rounds(1) {
        let mut daemon = site.serve(DISK);
        let mut guest = machine.boot();
        guest.wait_ready();
        attach(&site, &guest);
        site.until_disk_is(DISK, "protected");
        if round == 0 {
            whole_from = site.status()["last_lsn"].as_u64().unwrap();
        }
        guest.wait_more_marks(2);
        pause(moment());
        if round % 2 == 0 {
            // It dies alone: the guest goes on, whatever becomes of us.
            daemon.kill();
            pause(moment());
            daemon = site.serve(DISK);
            assert_eq!(site.disk(DISK)["state"]["is"], "gap", "nobody knows what the guest wrote meanwhile");
            guest.wait_more_marks(2);
            attach(&site, &guest);
            site.until_disk_is(DISK, "protected");
            guest.wait_more_marks(2);
            pause(moment());
        }
        let life = kill_both(round, daemon, &mut guest);
        promises.add(&life);
        let daemon = site.serve(DISK);
        site.drain();
        crashes.push(site.status()["committed_lsn"].as_u64().unwrap());
        daemon.stop();
        // The point before the gap that the restart began.
        let end = end_of_history(&site);
        let restored = site.restored(DISK, &format!("lsn:{end}"));
        fsck(&restored).unwrap_or_else(|e| panic!("round {round}: {e}"));
        promises.check(&checked(site.dir(), &restored)).unwrap();
    }
    check_points(&site, &restorable_points(&site, whole_from), &crashes);
    site.tidemark().ok(["verify", &site.bucket()]);
}

/// The newest point at which the disk can be restored: where its last gap begins.
fn end_of_history(site: &Site) -> u64 {
    let reader = tokio::runtime::Runtime::new().unwrap().block_on(site.reader());
    let timeline = reader.timeline();
    timeline.gaps().last().map_or(timeline.latest().lsn, |gap| gap.from).get()
}

/// The number that a disk of [`Job::Lead`] and [`Job::Follow`] holds at a point.
async fn number(image: &tidemark_reader::DiskImage) -> u64 {
    let block = image.read(4096, 4096).await.unwrap();
    String::from_utf8_lossy(&block).trim_matches([' ', '\n', '\0']).parse().unwrap_or(0)
}

#[test]
fn a_follower_is_at_no_point_ahead_of_the_vm_whose_acknowledged_writes_it_follows() {
    let steps = std::env::var("TIDEMARK_GUEST_STEPS").map_or(60, |steps| steps.parse().expect("a number of steps"));
    let site = domain(&(inline("a", "write-back") + &inline("b", "write-through")));
    for vm in ["a", "b"] {
        site.image(&format!("{vm}.img"), DISK_BYTES);
    }
    let daemon = site.serve("b/disk");
    for vm in ["a/disk", "b/disk"] {
        site.until_disk_is(vm, "protected");
    }
    let nbd = site.path("nbd.sock");
    let boot = |vm: &str, job| {
        let disk = Disk::nbd(&nbd, &format!("d/{vm}/disk"), RECONNECT_DELAY);
        Machine::new(site.dir(), vm).disk(disk).job(job).boot()
    };
    let mut leader = boot("a", Job::Lead { steps });
    let mut follower = boot("b", Job::Follow);
    leader.relay_to(&mut follower, steps, |_| {});
    site.drain();
    daemon.stop();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let reader = site.reader().await;
        let timeline = reader.timeline();
        let latest = timeline.latest().lsn.get();
        let [a, b] = ["a", "b"].map(|vm| timeline.find_disk(vm, "disk", timeline.latest().lsn).unwrap());
        let both = async |lsn: u64| {
            let at = Lsn::new(lsn);
            // Both can be restored from where the later one was seeded.
            let (Ok(a), Ok(b)) = (reader.disk(a.id, at).await, reader.disk(b.id, at).await) else { return None };
            Some((number(&a).await, number(&b).await))
        };
        assert_eq!(both(latest).await, Some((steps, steps)));
        let entropy = SeededEntropy::new(4);
        let (mut looked_at, mut between) = (0, 0);
        while looked_at < 1000 {
            let lsn = 1 + entropy.number() % latest;
            let Some((leads, follows)) = both(lsn).await else { continue };
            assert!(follows <= leads, "at lsn {lsn} the follower is at {follows}, the leader at {leads}");
            looked_at += 1;
            between += u64::from(follows > 0 && follows < steps);
        }
        assert!(between > 500, "{between} of {looked_at} points lie between the first step and the last");
    });
}

/// Commands QEMU; one client at a time.
async fn command(guest: &Guest, name: &str, arguments: Value) -> Value {
    let address = Address::Unix(guest.qmp_socket());
    let qmp = Qmp::connect(&address, QmpOptions::default()).await.unwrap();
    qmp.execute(name, arguments).await.unwrap()
}

#[test]
fn a_tap_that_is_attached_again_transfers_only_what_differs() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (site, machine) = tapped();
    let own = site.path("own.img");
    let entropy = SeededEntropy::new(8);
    let noise: Vec<u8> = (0..DISK_BYTES / 8).flat_map(|_| entropy.number().to_le_bytes()).collect();
    std::fs::write(&own, noise).unwrap();
    let daemon = site.serve(DISK);
    let guest = machine.asleep().boot();
    let shipped = || site.status()["requests"]["put"]["bytes"].as_u64().unwrap();
    attach(&site, &guest);
    site.until_disk_is(DISK, "protected");
    let again =
        site.tidemark().run(["drva", "--socket", site.path("api.sock").to_str().unwrap(), "attach"].iter().chain(&[
            "--qmp",
            "/no/such/qmp",
            "--disk",
            "d/vm/disk",
        ]));
    assert!(again.stderr.contains("is tapped already"), "{again:?}");
    site.drain();
    let first = shipped();
    assert!(first > DISK_BYTES, "all of it: {first} bytes");
    site.drva(&["detach", "--disk", "d/vm/disk"]);
    site.until_disk_is(DISK, "gap");
    let write = json!({ "command-line": "qemu-io -d /machine/peripheral/vda/virtio-backend \"write -P 7 8M 1M\"" });
    runtime.block_on(command(&guest, "human-monitor-command", write));
    attach(&site, &guest);
    site.until_disk_is(DISK, "protected");
    site.drain();
    let second = shipped() - first;
    assert!(second < 1 << 20, "what differs: {second} bytes");
    daemon.stop();
    let image = std::fs::read(&own).unwrap();
    assert_eq!(image[8 << 20], 7);
    assert!(std::fs::read(site.restored(DISK, "latest")).unwrap() == image);
}

#[test]
fn a_guest_migrates_live_and_the_host_that_it_left_can_write_no_more() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let site = domain(&inline("vm", "write-back"));
    let primary = site.image("vm.img", DISK_BYTES);
    let daemon = site.serve(DISK);
    site.until_disk_is(DISK, "protected");
    let nbd = site.path("nbd.sock");
    let host =
        |name: &str| Machine::new(site.dir(), name).disk(Disk::nbd(&nbd, EXPORT, RECONNECT_DELAY)).job(Job::WRITE);
    let mut left = host("left").boot();
    left.wait_mark(5);
    let way = site.path("migration");
    let mut right = host("right").incoming(&way).boot();
    until("the other host", || way.exists());
    runtime.block_on(command(&left, "migrate", json!({ "uri": format!("unix:{}", way.display()) })));
    until("migration", || {
        let status = runtime.block_on(command(&left, "query-migrate", json!({})));
        assert_ne!(status["status"], "failed", "{status}");
        status["status"] == "completed"
    });
    right.wait_more_marks(3);
    // Somebody lets the old one go on: it does not get far.
    runtime.block_on(command(&left, "cont", json!({})));
    left.wait_for("failure", |guest| guest.serial().failure().map(str::to_owned));
    right.wait_more_marks(3);
    let mut promises = Promises::default();
    promises.add(&left.kill());
    promises.add(&right.kill());
    site.drain();
    daemon.stop();
    fsck(&primary).unwrap();
    let restored = site.restored(DISK, "latest");
    assert!(std::fs::read(&primary).unwrap() == std::fs::read(&restored).unwrap());
    promises.check(&checked(site.dir(), &restored)).unwrap();
}

/// A libvirt of its own, in namespaces of its own: with the directory in which it finds `vm.xml` as the first word.
const LIBVIRT: &str = r#"
set -e
for dir in /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
    mkdir -p $dir
    mount -t tmpfs none $dir
done
for file in passwd group; do
    cp /etc/$file "$1/$file"
    grep -q ^libvirt-qemu: "$1/$file" || echo libvirt-qemu:x:64055:64055 >>"$1/$file"
    grep -q ^kvm: "$1/$file" || echo kvm:x:64056: >>"$1/$file"
    sed -i 's/^\(libvirt-qemu:x:[0-9]*:[0-9]*\)$/\1::\/:\/bin\/false/' "$1/passwd"
    mount --bind "$1/$file" /etc/$file
done
printf 'user = "root"\ngroup = "root"\nstdio_handler = "file"\nsecurity_driver = "none"\nnamespaces = []\n' >/etc/libvirt/qemu.conf
/usr/sbin/libvirtd &
until virsh -q -c qemu:///system list >/dev/null 2>&1; do sleep 0.1; done
virsh -q -c qemu:///system create "$1/vm.xml"
wait
"#;

/// A process, and all that it started, for as long as this lives.
struct Namespace(std::process::Child);

impl Drop for Namespace {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts libvirt with a VM that writes to its own disk, and has a second control socket for us.
fn libvirt(site: &Site) -> Namespace {
    let at = site.dir().display();
    let (emulator, kernel, initrd) = (tool("qemu-system-x86_64"), kernel(), initrd());
    let [emulator, kernel, initrd] = [&emulator, &kernel, &initrd].map(|path| path.canonicalize().unwrap());
    let xml = format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
           <name>vm</name><memory unit='MiB'>192</memory><vcpu>1</vcpu>
           <os>
             <type arch='x86_64' machine='q35'>hvm</type><kernel>{}</kernel><initrd>{}</initrd>
             <cmdline>console=ttyS0 quiet panic=-1 rdinit=/init job=write steps=1000000 disks=vda</cmdline>
           </os>
           <features><acpi/></features>
           <devices>
             <emulator>{}</emulator>
             <disk type='file' device='disk'>
               <driver name='qemu' type='raw' cache='none' discard='unmap'/><source file='{at}/own.img'/>
               <target dev='vda' bus='virtio'/>
             </disk>
             <serial type='file'><source path='{at}/serial'/></serial><memballoon model='none'/>
           </devices>
           <qemu:commandline>
             <qemu:arg value='-qmp'/><qemu:arg value='unix:{at}/qmp,server=on,wait=off'/>
           </qemu:commandline>
         </domain>",
        kernel.display(),
        initrd.display(),
        emulator.display(),
    );
    std::fs::write(site.path("vm.xml"), xml).unwrap();
    let log = std::fs::File::create(site.path("libvirt.log")).unwrap();
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "--",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.args(["sh", "-c", LIBVIRT, "libvirt"]).arg(site.dir()).stdin(Stdio::null());
    Namespace(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
}

#[test]
fn a_vm_that_libvirt_runs_is_tapped_and_goes_on_when_the_appliance_dies() {
    let (site, _) = tapped();
    let daemon = site.serve(DISK);
    let vm = libvirt(&site);
    let serial = || Serial::new(&std::fs::read(site.path("serial")).unwrap_or_default());
    let more = |steps: u64| {
        let wanted = serial().last_mark() + steps;
        tidemark_vm::until("marks", || {
            assert_eq!(serial().failure(), None);
            Some(()).filter(|()| serial().last_mark() >= wanted)
        });
    };
    let attach = || {
        let qmp = site.path("qmp").display().to_string();
        site.drva(&["attach", "--qmp", &qmp, "--disk", "d/vm/disk", "--node", "libvirt-1-format"]);
        site.until_disk_is(DISK, "protected");
    };
    more(3);
    attach();
    more(3);
    daemon.kill();
    more(1);
    let daemon = site.serve(DISK);
    attach();
    more(3);
    drop(vm);
    let mut promises = Promises::default();
    promises.add(&serial());
    daemon.kill();
    let daemon = site.serve(DISK);
    site.drain();
    daemon.stop();
    let restored = site.restored(DISK, &format!("lsn:{}", end_of_history(&site)));
    fsck(&restored).unwrap();
    promises.check(&checked(site.dir(), &restored)).unwrap();
}
