//! The DRVA as a process: killed at random moments under writes, started again, and compared with what was acknowledged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tidemark_e2e::drva::{Daemon, Site};
use tidemark_e2e::system::{run, until};
use tidemark_env::{Entropy, SeededEntropy};

const TIDEMARK: &str = env!("CARGO_BIN_EXE_tidemark-under-test");
const DISK: &str = "vm/disk";
const DISK_BYTES: u64 = 16 << 20;
const BLOCK: u64 = 4096;

/// Writes blocks one after the other, from several requests in flight, and says which are acknowledged.
const WRITER: &str = r#"
import random, sys
random.seed(SEED)
blocks = h.get_size() // 4096
live = {}
n = START
while True:
    while len(live) < DEPTH:
        n += 1
        block = random.randrange(blocks)
        if block in live.values():
            continue
        buf = nbd.Buffer.from_bytearray(bytearray(n.to_bytes(8, "little") * 512))
        print("sent", block, n, flush=True)
        live[h.aio_pwrite(buf, block * 4096)] = block
    h.poll(-1)
    done = h.aio_peek_command_completed()
    while done > 0:
        h.aio_command_completed(done)
        print("acked", live.pop(done), flush=True)
        done = h.aio_peek_command_completed()
"#;

/// What may be in a block: the last acknowledged number, or one that was sent after it.
#[derive(Clone, Debug, Default)]
struct Block {
    acked: u64,
    sent: Vec<u64>,
}

fn site(mode: &str) -> Site {
    let site = Site::new(
        TIDEMARK,
        &format!(
            r#"
            defaults = {{ rpo = "200ms" }}
            [[domain]]
            name = "d"
            url = "{{at}}/bucket"
            create = true
            [[domain.disk]]
            vm = "vm"
            disk = "disk"
            primary = "{{at}}/disk.img"
            mode = "{mode}"
            "#
        ),
    );
    site.image("disk.img", DISK_BYTES);
    site
}

/// A client that writes until it is refused, or its server dies.
fn writer(site: &Site, seed: u64, start: u64) -> Child {
    let script = WRITER
        .replace("SEED", &seed.to_string())
        .replace("START", &start.to_string())
        .replace("DEPTH", &(1 + seed % 16).to_string());
    // Debian's own Python has the bindings, whichever one comes first in PATH.
    let mut writer = Command::new("/usr/bin/python3");
    writer.args(["-m", "nbd", "-u", &site.uri(DISK), "-c", &script]).stdout(Stdio::piped()).stderr(Stdio::null());
    writer.spawn().unwrap()
}

/// Notes what it sends and is told, until it ends; the last number that it sent.
fn take_answers(writer: &mut Child, start: u64, blocks: &mut BTreeMap<u64, Block>) -> u64 {
    let mut last = start;
    for line in BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["sent", block, n] => {
                last = n.parse().unwrap();
                blocks.entry(block.parse().unwrap()).or_default().sent.push(last);
            }
            ["acked", block] => {
                let block = blocks.get_mut(&block.parse().unwrap()).unwrap();
                block.acked = block.sent.pop().unwrap();
                block.sent.clear();
            }
            _ => {}
        }
    }
    last
}

/// Writes until the daemon dies, and notes what it was told.
fn write_until_killed(
    site: &Site,
    seed: u64,
    start: u64,
    daemon: Daemon,
    after: Duration,
    blocks: &mut BTreeMap<u64, Block>,
) -> u64 {
    let mut writer = writer(site, seed, start);
    let killer = std::thread::spawn(move || {
        // The moment is the point: nothing is waited for.
        std::thread::park_timeout(after);
        daemon.kill();
    });
    let last = take_answers(&mut writer, start, blocks);
    killer.join().unwrap();
    writer.wait().unwrap();
    last
}

/// Compares an image with what was acknowledged, and settles what an unanswered write came to.
fn check(image: &[u8], blocks: &mut BTreeMap<u64, Block>, what: &str) {
    for (number, block) in blocks {
        let at = (number * BLOCK) as usize;
        let words: Vec<u64> =
            image[at..at + BLOCK as usize].as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        assert!(words.iter().all(|word| *word == words[0]), "{what}: block {number} is torn");
        let allowed = words[0] == block.acked || block.sent.contains(&words[0]);
        assert!(allowed, "{what}: block {number} holds {}, {block:?} was acknowledged", words[0]);
        *block = Block { acked: words[0], sent: Vec::new() };
    }
}

fn rounds() -> u64 {
    std::env::var("TIDEMARK_KILL_ROUNDS").map_or(6, |rounds| rounds.parse().expect("a number of rounds"))
}

fn kill_rounds(mode: &str) {
    let site = site(mode);
    let dice = SeededEntropy::new(7);
    let (mut blocks, mut last) = (BTreeMap::new(), 0);
    for round in 0..rounds() {
        let daemon = site.serve(DISK);
        let after = Duration::from_millis(50 + dice.number() % 900);
        last = write_until_killed(&site, round, last, daemon, after, &mut blocks);
        let daemon = site.serve(DISK);
        let image = export(&site);
        check(&image, &mut blocks, &format!("round {round}, through the daemon"));
        daemon.kill();
    }
    assert!(last > rounds() * 10, "{last} writes in all");
    let daemon = site.serve(DISK);
    site.until_disk_is(DISK, "protected");
    site.drain();
    daemon.stop();
    let primary = std::fs::read(site.path("disk.img")).unwrap();
    check(&primary, &mut blocks, "the primary");
    let out = site.restored(DISK, "latest");
    assert!(std::fs::read(&out).unwrap() == primary, "bucket and primary are the same");
    site.tidemark().ok(["verify", &site.bucket()]);
}

/// The disk as a client reads it.
fn export(site: &Site) -> Vec<u8> {
    let out = site.path("read.raw");
    let copied = Command::new("nbdcopy").arg(site.uri(DISK)).arg(&out).status().unwrap();
    assert!(copied.success());
    std::fs::read(out).unwrap()
}

#[test]
fn kill_9_at_random_moments_loses_no_acknowledged_write_in_write_back() {
    kill_rounds("write-back");
}

#[test]
fn kill_9_at_random_moments_loses_no_acknowledged_write_in_write_through() {
    kill_rounds("write-through");
}

#[test]
fn fio_verifies_what_it_wrote_through_the_daemon_on_the_primary_and_on_the_mount_of_the_last_lsn() {
    for mode in ["write-back", "write-through"] {
        let site = site(mode);
        let daemon = site.serve(DISK);
        let fio = |engine: &str, target: &str, extra: &[&str]| {
            let mut command = Command::new("fio");
            command.current_dir(site.dir()).args(["--name=job", engine, target, "--bs=4k", "--randseed=7", "--thread"]);
            // Two jobs, each with connections and a half of the disk of its own.
            command.args(["--numjobs=2", "--offset_increment=8M", "--size=8M", "--verify=crc32c", "--verify_fatal=1"]);
            let ran = command.args(extra).output().unwrap();
            assert!(ran.status.success(), "{mode}: {}", String::from_utf8_lossy(&ran.stderr));
        };
        let uri = format!("--uri={}", site.uri(DISK));
        fio("--ioengine=nbd", &uri, &["--iodepth=16", "--rw=randtrimwrite", "--do_verify=0"]);
        fio("--ioengine=nbd", &uri, &["--iodepth=16", "--rw=randrw", "--do_verify=1"]);
        let through = export(&site);
        let converted = site.path("converted.raw");
        run("qemu-img", ["convert", "-f", "raw", "-O", "raw", &site.uri(DISK), converted.to_str().unwrap()]);
        assert!(std::fs::read(&converted).unwrap() == through, "{mode}: qemu-img and nbdcopy read the same");
        assert!(daemon.said().contains("INFO"), "a service says what it does");
        site.drain();
        daemon.stop();
        assert!(std::fs::read(site.path("disk.img")).unwrap() == through, "{mode}: the primary is what clients read");
        let mounted = site.tidemark().mount(&site.bucket(), &site.path("time"), &[]);
        let image = mounted.disk("latest", "vm", "disk");
        assert!(std::fs::read(&image).unwrap() == through, "{mode}: and so is the mount");
        let file = format!("--filename={}", site.path("disk.img").display());
        fio("--ioengine=psync", &file, &["--rw=randrw", "--verify_only=1"]);
    }
}

/// A file system in memory that is full at some point.
struct Small(PathBuf);

impl Small {
    fn new(dir: PathBuf, megabytes: u64) -> Self {
        std::fs::create_dir(&dir).unwrap();
        let size = format!("size={megabytes}M");
        run("mount", ["-t", "tmpfs", "-o", &size, "none", dir.to_str().unwrap()]);
        Self(dir)
    }

    fn grow(&self, megabytes: u64) {
        run("mount", ["-o", &format!("remount,size={megabytes}M"), self.0.to_str().unwrap()]);
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", ["-l", self.0.to_str().unwrap()]);
    }
}

/// Writes until it is refused; the last number that was sent.
fn write_until_refused(site: &Site, blocks: &mut BTreeMap<u64, Block>) -> u64 {
    let mut writer = writer(site, 3, 0);
    let last = take_answers(&mut writer, 0, blocks);
    assert!(!writer.wait().unwrap().success(), "it was refused a write");
    last
}

/// What was acknowledged is there after a restart, on the primary and in the bucket.
fn restarted_without_loss(site: &Site, primary: &Path, blocks: &mut BTreeMap<u64, Block>) {
    let daemon = site.serve(DISK);
    check(&export(site), blocks, "through the daemon");
    site.until_disk_is(DISK, "protected");
    site.drain();
    daemon.stop();
    let primary = std::fs::read(primary).unwrap();
    check(&primary, blocks, "the primary");
    assert!(std::fs::read(site.restored(DISK, "latest")).unwrap() == primary, "bucket and primary are the same");
}

#[test]
fn fault_a_primary_without_space_stops_its_disk_says_so_and_loses_nothing() {
    let site = site("write-back");
    let small = Small::new(site.path("small"), 4);
    let primary = site.image("small/disk.img", DISK_BYTES);
    let config = std::fs::read_to_string(site.path("drva.toml")).unwrap();
    std::fs::write(site.path("drva.toml"), config.replace("/disk.img", "/small/disk.img")).unwrap();
    let daemon = site.serve(DISK);
    site.until_disk_is(DISK, "protected");
    let mut blocks = BTreeMap::new();
    assert!(write_until_refused(&site, &mut blocks) > 900, "four megabytes of blocks fit");
    site.until_disk_is(DISK, "failed");
    let state = site.disk(DISK)["state"].to_string();
    assert!(state.contains("small/disk.img") && state.contains("No space left"), "{state}");
    until("event", || site.drva(&["events"]).to_string().contains("disk-failed"));
    daemon.kill();
    small.grow(64);
    restarted_without_loss(&site, &primary, &mut blocks);
}

#[test]
fn fault_a_log_device_that_fails_at_some_write_stops_all_acknowledgements_and_loses_nothing() {
    let site = site("write-through");
    // Room for the log store, of which only what was written takes any after its zeros are dug out.
    let small = Small::new(site.path("small"), 160);
    let config = std::fs::read_to_string(site.path("drva.toml")).unwrap();
    let config = config.replace("/lun\"", "/small/lun\"").replace("256MiB", "144MiB");
    std::fs::write(site.path("drva.toml"), config).unwrap();
    let daemon = site.serve(DISK);
    site.until_disk_is(DISK, "protected");
    daemon.stop();
    run("fallocate", ["--dig-holes", site.path("small/lun").to_str().unwrap()]);
    let used: u64 = run("du", ["-sk", small.0.to_str().unwrap()]).split_whitespace().next().unwrap().parse().unwrap();
    small.grow(used.div_ceil(1024) + 2);
    let daemon = site.serve(DISK);
    let mut blocks = BTreeMap::new();
    assert!(write_until_refused(&site, &mut blocks) > 50);
    let status = site.drva(&["status"]);
    let failed = status["log_store"]["failed"].to_string();
    assert!(failed.len() > 10, "{status}");
    until("failed domain", || site.status()["state"]["is"] == "failed");
    assert!(blocks.values().any(|block| block.acked > 0));
    daemon.kill();
    small.grow(160);
    restarted_without_loss(&site, &site.path("disk.img"), &mut blocks);
}

#[test]
fn a_service_manager_that_listens_in_its_place_starts_it_for_the_first_client_and_hears_when_it_is_ready() {
    let site = site("write-through");
    let notify = std::os::unix::net::UnixDatagram::bind(site.path("notify")).unwrap();
    // What systemd does: it binds, hands the socket on as the third file, and names it in the environment.
    let manager = format!(
        "import os, socket\n\
         s = socket.socket(socket.AF_UNIX)\n\
         s.bind({:?})\n\
         s.listen()\n\
         os.dup2(s.fileno(), 3)\n\
         os.set_inheritable(3, True)\n\
         os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', NOTIFY_SOCKET={:?})\n\
         os.execv({TIDEMARK:?}, ['tidemark', 'drva', 'run', '--config', {:?}])\n",
        site.path("nbd.sock"),
        site.path("notify"),
        site.path("drva.toml"),
    );
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", &manager]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let daemon = site.adopt(command.spawn().unwrap());
    notify.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut heard = [0; 64];
    let len = notify.recv(&mut heard).unwrap();
    assert_eq!(&heard[..len], b"READY=1");
    assert_eq!(export(&site).len() as u64, DISK_BYTES, "the first client is served");
    daemon.stop();
}
