//! The DRVA as a process: killed at random moments under writes, started again, and compared with what was acknowledged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tidemark_e2e::process::Tidemark;
use tidemark_e2e::system::{signal, until};
use tidemark_env::{Entropy, SeededEntropy};

const TIDEMARK: &str = env!("CARGO_BIN_EXE_tidemark-under-test");
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

struct Site {
    dir: TempDir,
    tidemark: Tidemark,
}

/// What may be in a block: the last acknowledged number, or one that was sent after it.
#[derive(Clone, Debug, Default)]
struct Block {
    acked: u64,
    sent: Vec<u64>,
}

impl Site {
    fn new(mode: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let at = dir.path().display();
        std::fs::File::create(dir.path().join("disk.img")).unwrap().set_len(DISK_BYTES).unwrap();
        let config = format!(
            r#"
            appliance = {{ name = "e2e", state = "{at}/state", socket = "{at}/api.sock" }}
            log_store = {{ path = "{at}/lun", size = "256MiB" }}
            nbd = {{ socket = "{at}/nbd.sock" }}
            defaults = {{ rpo = "200ms" }}
            [[domain]]
            name = "d"
            url = "{at}/bucket"
            create = true
            [[domain.disk]]
            vm = "vm"
            disk = "disk"
            primary = "{at}/disk.img"
            mode = "{mode}"
            "#
        );
        std::fs::write(dir.path().join("drva.toml"), config).unwrap();
        Self { dir, tidemark: Tidemark::new(TIDEMARK) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///d/vm/disk?socket={}", self.path("nbd.sock").display())
    }

    /// Starts the daemon and waits until the disk is served.
    fn start(&self) -> Daemon {
        let log = std::fs::File::options().append(true).create(true).open(self.path("drva.log")).unwrap();
        let args = ["drva", "run", "--config"].into_iter().map(Into::into).chain([self.path("drva.toml")]);
        let mut command = self.tidemark.command(args.map(PathBuf::into_os_string));
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut daemon = Daemon { child, site: self.dir.path().to_owned() };
        let socket = self.path("api.sock").display().to_string();
        until("the disk is served", || {
            assert_eq!(daemon.child.try_wait().unwrap(), None, "{}", daemon.said());
            self.tidemark.run(["--json", "drva", "--socket", &socket, "status", "d"]).stdout.contains("nbd+unix")
                && Command::new("nbdinfo").arg("--size").arg(self.uri()).output().unwrap().status.success()
        });
        daemon
    }

    fn drva(&self, args: &[&str]) -> serde_json::Value {
        let socket = self.path("api.sock").display().to_string();
        self.tidemark.json(["drva", "--socket", &socket].iter().chain(args))
    }

    /// Writes until the daemon dies, and notes what it was told.
    fn write_until_killed(
        &self,
        seed: u64,
        start: u64,
        daemon: Daemon,
        after: Duration,
        blocks: &mut BTreeMap<u64, Block>,
    ) -> u64 {
        let script = WRITER
            .replace("SEED", &seed.to_string())
            .replace("START", &start.to_string())
            .replace("DEPTH", &(1 + seed % 16).to_string());
        // Debian's own Python has the bindings, whichever one comes first in PATH.
        let mut writer = Command::new("/usr/bin/python3");
        writer.args(["-m", "nbd", "-u", &self.uri(), "-c", &script]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut writer = writer.spawn().unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let killer = std::thread::spawn(move || {
            // The moment is the point: nothing is waited for.
            std::thread::park_timeout(after);
            daemon.kill();
        });
        let mut last = start;
        for line in lines.map_while(Result::ok) {
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
        killer.join().unwrap();
        writer.wait().unwrap();
        last
    }
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

struct Daemon {
    child: Child,
    site: PathBuf,
}

impl Daemon {
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it as a service manager does.
    fn stop(mut self) {
        signal(self.child.id(), "TERM");
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.site.join("drva.log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn rounds() -> u64 {
    std::env::var("TIDEMARK_KILL_ROUNDS").map_or(6, |rounds| rounds.parse().expect("a number of rounds"))
}

fn kill_rounds(mode: &str) {
    let site = Site::new(mode);
    let dice = SeededEntropy::new(7);
    let (mut blocks, mut last) = (BTreeMap::new(), 0);
    for round in 0..rounds() {
        let daemon = site.start();
        let after = Duration::from_millis(50 + dice.number() % 900);
        last = site.write_until_killed(round, last, daemon, after, &mut blocks);
        let daemon = site.start();
        let image = export(&site);
        check(&image, &mut blocks, &format!("round {round}, through the daemon"));
        daemon.kill();
    }
    assert!(last > rounds() * 10, "{last} writes in all");
    let daemon = site.start();
    until("the disk is protected", || site.drva(&["status", "d"])["disks"][0]["state"]["is"] == "protected");
    site.drva(&["drain", "d"]);
    daemon.stop();
    let primary = std::fs::read(site.path("disk.img")).unwrap();
    check(&primary, &mut blocks, "the primary");
    let bucket = site.path("bucket").display().to_string();
    let out = site.path("restored.raw");
    site.tidemark.ok(["export", &bucket, "--disk", "vm/disk", "--at", "latest", out.to_str().unwrap()]);
    assert!(std::fs::read(&out).unwrap() == primary, "bucket and primary are the same");
    site.tidemark.ok(["verify", &bucket]);
}

/// The disk as a client reads it.
fn export(site: &Site) -> Vec<u8> {
    let out = site.path("read.raw");
    let copied = Command::new("nbdcopy").arg(site.uri()).arg(&out).status().unwrap();
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
fn fio_verifies_what_it_wrote_through_the_daemon_on_the_primary_and_in_the_bucket() {
    let site = Site::new("write-back");
    let daemon = site.start();
    let fio = |extra: &[&str]| {
        let uri = format!("--uri={}", site.uri());
        let mut command = Command::new("fio");
        command.current_dir(site.dir.path());
        command.args(["--name=job", "--ioengine=nbd", &uri, "--rw=randrw", "--bs=4k", "--iodepth=16", "--size=16M"]);
        command.args(["--verify=crc32c", "--verify_fatal=1", "--randseed=7"]).args(extra);
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    fio(&["--do_verify=1"]);
    let through = export(&site);
    site.drva(&["drain", "d"]);
    daemon.stop();
    let primary = std::fs::read(site.path("disk.img")).unwrap();
    assert!(primary == through, "the primary is what clients read");
    let bucket = site.path("bucket").display().to_string();
    let out = site.path("restored.raw");
    site.tidemark.ok(["export", &bucket, "--disk", "vm/disk", "--at", "latest", out.to_str().unwrap()]);
    assert!(std::fs::read(Path::new(&out)).unwrap() == primary);
}
