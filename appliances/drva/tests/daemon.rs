//! The whole appliance in this process: a real log store file, a bucket in a directory, and QEMU's own tools as the guest.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tidemark_api::{
    BookmarkLevel, BookmarkRequest, Client, DiskAddress, DiskState, DomainState, DrainRequest, EventQuery,
    MaintenanceStatus, ModeRequest, ProtectionMode, ResizeRequest, SeedRequest, SeedSource,
};
use tidemark_bucket::{Bucket, BucketOptions};
use tidemark_drva::config::Config;
use tidemark_env::{Clock, Env, SystemClock};
use tidemark_format::{EventBody, Lsn, Policy, Retention, TimeNs};
use tidemark_reader::{Domain, PointSpec, ReaderOptions};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(90);

/// Directories of one appliance, which may be run many times.
struct Site {
    dir: TempDir,
    config: String,
}

/// A running appliance.
struct Running {
    client: Client,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<tidemark_drva::Result<()>>,
}

impl Site {
    fn new(disks: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let config = format!(
            r#"
            [appliance]
            name = "test"
            state = "{at}/state"
            socket = "{at}/api.sock"
            fence_check = "1s"
            [log_store]
            path = "{at}/lun"
            size = "256MiB"
            [nbd]
            socket = "{at}/nbd.sock"
            [defaults]
            rpo = "100ms"
            [[domain]]
            name = "shop"
            url = "{at}/bucket"
            create = true
            {disks}
            "#
        );
        Self { dir, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A primary with something on it.
    fn primary(&self, name: &str, size_bytes: u64) -> PathBuf {
        let path = self.path(name);
        let mut bytes = vec![0; size_bytes as usize];
        for (n, page) in bytes.chunks_mut(4096).enumerate().filter(|(n, _)| n % 3 == 0) {
            page.fill(n as u8);
        }
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn start(&self) -> Running {
        self.start_at(Env::system())
    }

    fn start_at(&self, env: Env) -> Running {
        let config = Config::parse("drva.toml", &self.config).unwrap_or_else(|e| panic!("{e}"));
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(tidemark_drva::run(config, env, async move {
            let _ = stopped.await;
        }));
        Running { client: Client::new(self.path("api.sock")), stop, ended }
    }

    /// What the bucket has of a disk at its latest point.
    async fn restored(&self, disk: &str) -> Vec<u8> {
        self.restored_at(disk, "latest").await
    }

    async fn reader(&self) -> Domain {
        let url = self.path("bucket").display().to_string().parse().unwrap();
        let bucket = Bucket::open(&url, &BucketOptions::default()).unwrap();
        Domain::open(bucket.read_only(), ReaderOptions::default(), Env::system()).await.unwrap()
    }

    async fn restored_at(&self, disk: &str, point: &str) -> Vec<u8> {
        let domain = self.reader().await;
        let timeline = domain.timeline();
        let point: PointSpec = point.parse().unwrap();
        let at = timeline.resolve(&point, Env::system().clock.wall()).await.unwrap();
        let found = timeline.find_disk("web", disk, at.lsn).expect("the disk is there");
        let image = domain.disk(found.id, at.lsn).await.unwrap();
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < image.size_bytes() {
            let len = (image.size_bytes() - bytes.len() as u64).min(4 * MIB);
            bytes.extend_from_slice(&image.read(bytes.len() as u64, len as usize).await.unwrap());
        }
        bytes
    }

    /// QEMU's I/O tool on an export.
    async fn qemu_io(&self, disk: &str, commands: &[&str]) {
        let image = format!("nbd+unix:///shop/web/{disk}?socket={}", self.path("nbd.sock").display());
        let mut command = Command::new("qemu-io");
        command.args(["-f", "raw", "-t", "none"]);
        for line in commands {
            command.args(["-c", line]);
        }
        let output = run(command.arg(image)).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !text.contains("failed") && !text.contains("error"), "{text}");
    }
}

async fn run(command: &mut Command) -> Output {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = spawned.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

impl Running {
    /// Waits until a disk is as wanted.
    async fn until(&self, disk: &str, wanted: impl Fn(&DiskState) -> bool) {
        let address = address(disk);
        let reached = async {
            loop {
                match self.client.disk(&address).await {
                    Ok(status) if wanted(&status.state) => return,
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            panic!("{disk} is {:?}, {:?}", self.client.disk(&address).await, self.client.status().await);
        }
    }

    async fn protected(&self, disk: &str) {
        self.until(disk, |state| matches!(state, DiskState::Protected)).await;
    }

    /// Waits until a kind of event has come so many times.
    async fn events(&self, kind: &str, times: usize) {
        let came = async {
            loop {
                // It may not listen yet.
                let page = self.client.events(EventQuery::default()).await;
                if page.is_ok_and(|page| page.events.iter().filter(|event| event.kind == kind).count() >= times) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, came).await.unwrap_or_else(|_| panic!("{kind} did not come {times} times"));
    }

    async fn drain(&self) {
        let drained = self.client.drain("shop", DrainRequest { timeout_ms: 60_000 }).await.unwrap();
        assert!(drained.complete, "{drained:?}");
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.ended.await.unwrap().unwrap();
    }

    /// As close to a crash as one process allows: nothing is settled, nothing is said.
    async fn crash(self) {
        self.ended.abort();
        let _ = self.ended.await;
    }
}

fn address(disk: &str) -> DiskAddress {
    DiskAddress { domain: "shop".into(), vm: "web".into(), disk: disk.into() }
}

fn one_disk(mode: &str) -> Site {
    let mut site = Site::new("");
    let primary = site.primary("root.img", 8 * MIB);
    site.config += &format!(
        "[[domain.disk]]\nvm = \"web\"\ndisk = \"root\"\nprimary = \"{}\"\nmode = \"{mode}\"\n",
        primary.display()
    );
    site
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_seeded_protected_and_the_same_in_log_primary_and_bucket() {
    for mode in ["write-through", "write-back"] {
        let site = one_disk(mode);
        let drva = site.start();
        drva.protected("root").await;
        let commands =
            ["write -P 1 0 64k", "write -P 2 512 1k", "write -z 1M 64k", "discard 2M 64k", "flush", "write -P 3 4M 1M"];
        site.qemu_io("root", &commands).await;
        // What was written is read, wherever it is.
        site.qemu_io("root", &["read -P 2 512 1k", "read -P 0 1M 64k", "read -P 0 2M 64k", "read -P 3 4M 1M"]).await;
        let made = drva.client.bookmark("shop", &bookmark("half")).await.unwrap();
        site.qemu_io("root", &["write -P 9 0 8M"]).await;
        drva.drain().await;
        let half = site.restored_at("root", "bookmark:half").await;
        assert_eq!((half[0], half[512], half[1536], half[4 << 20]), (1, 2, 1, 3), "{mode}");
        assert_eq!(
            half[9 * 4096 + (5 << 20)],
            ((5 << 20) / 4096 + 9) as u8 * u8::from(((5 << 20) / 4096 + 9) % 3 == 0)
        );
        assert!(made.lsn > 0);
        drva.stop().await;
        let primary = std::fs::read(site.path("root.img")).unwrap();
        assert!(primary.iter().all(|byte| *byte == 9), "{mode}: all is on the primary after a clean stop");
        assert!(site.restored("root").await == primary, "{mode}");
    }
}

fn bookmark(name: &str) -> BookmarkRequest {
    serde_json::from_value(serde_json::json!({ "name": name, "level": BookmarkLevel::Crash })).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_appliance_that_comes_back_goes_on_from_its_log_store() {
    let site = one_disk("write-back");
    let drva = site.start();
    drva.protected("root").await;
    site.qemu_io("root", &["write -P 5 0 4M"]).await;
    drva.crash().await;
    let drva = restarted(&site).await;
    site.qemu_io("root", &["read -P 5 0 4M", "write -P 6 1M 64k"]).await;
    drva.drain().await;
    drva.stop().await;
    let primary = std::fs::read(site.path("root.img")).unwrap();
    assert_eq!((primary[0], primary[1 << 20], primary[(1 << 20) + (64 << 10)]), (5, 6, 5));
    assert!(site.restored("root").await == primary);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_appliance_maintains_its_bucket_if_it_is_told_to_and_says_whether_the_window_is_there() {
    let mut site = one_disk("write-back");
    site.config = site.config.replace("[defaults]", "[maintenance]\nevery = \"1s\"\ndelete = true\n[defaults]");
    let drva = site.start();
    drva.protected("root").await;
    site.qemu_io("root", &["write -P 1 0 64k", "write -P 2 0 64k", "write -P 3 0 64k"]).await;
    drva.drain().await;
    let kept = async |wanted: fn(&MaintenanceStatus) -> bool| {
        let reached = async {
            loop {
                let status = drva.client.domain("shop").await.unwrap();
                let upkeep = status.maintenance.unwrap_or_default();
                if upkeep.failed.is_none() && wanted(&upkeep) {
                    return (status.committed_lsn, upkeep);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.unwrap_or_else(|_| panic!("it is not as wanted"))
    };
    kept(|upkeep| upkeep.indexed_lsn.is_some()).await;
    drva.events("maintenance-done", 1).await;
    let domain = site.reader().await;
    assert!(domain.timeline().indexed_through() > Lsn::ZERO);
    // A wish that drops points, and then one that wants them back.
    let url = site.path("bucket").display().to_string().parse().unwrap();
    let bucket = Bucket::open(&url, &BucketOptions::default()).unwrap();
    let wish = async |window_ns: u64| {
        let policy = Policy { window_ns, bookmarks_ns: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0 };
        let wish = Retention { policy: Some(policy), ..Retention::everything(domain.genesis().domain) };
        bucket.appender().put_retention(wish.encode().unwrap()).await.unwrap();
    };
    wish(0).await;
    kept(|upkeep| upkeep.window_promised_ms == Some(0) && upkeep.window_kept).await;
    wish(86_400_000_000_000).await;
    kept(|upkeep| upkeep.window_promised_ms == Some(86_400_000) && !upkeep.window_kept).await;
    drva.events("window-missed", 1).await;
    // What cannot be read drops nothing, and is said once.
    bucket.appender().put_retention(b"damaged".to_vec()).await.unwrap();
    drva.events("maintenance-failed", 1).await;
    assert!(drva.client.domain("shop").await.unwrap().maintenance.unwrap().failed.is_some());
    wish(0).await;
    kept(|upkeep| upkeep.window_kept).await;
    drva.events("window-kept", 1).await;
    drva.stop().await;
    assert_eq!(site.restored("root").await[0], 3);
}

/// Starts anew once the tasks of a crashed appliance have let go.
async fn restarted(site: &Site) -> Running {
    restarted_at(site, Env::system()).await
}

async fn restarted_at(site: &Site, env: Env) -> Running {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let drva = site.start_at(env.clone());
        let served = async {
            while drva.client.disk(&address("root")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = async {
            while !drva.ended.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = served => return drva,
            () = ended => assert!(tokio::time::Instant::now() < deadline, "{:?}", drva.ended.await),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_starts_before_its_domain_is_open_waits_for_its_disk() {
    let site = one_disk("write-through");
    // The domain cannot be opened before its disk is there.
    std::fs::rename(site.path("root.img"), site.path("elsewhere.img")).unwrap();
    let drva = site.start();
    drva.events("domain-not-open", 1).await;
    let reads = ["read -P 0 4k 4k"];
    tokio::join!(site.qemu_io("root", &reads), async {
        drva.events("domain-not-open", 2).await;
        std::fs::rename(site.path("elsewhere.img"), site.path("root.img")).unwrap();
    });
    drva.stop().await;
}

/// Runs of an export that changed since an LSN, as nbdinfo tells them.
fn changed_since(site: &Site, lsn: u64) -> Vec<(u64, u64)> {
    let uri = format!("nbd+unix:///shop/web/root?socket={}", site.path("nbd.sock").display());
    let map = format!("--map=qemu:dirty-bitmap:since-lsn-{lsn}");
    let output = Command::new("nbdinfo").args(["--json", &map, &uri]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let runs: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let number = |run: &serde_json::Value, member: &str| run[member].as_u64().unwrap();
    let changed = runs.iter().filter(|run| number(run, "type") & 1 == 1);
    changed.map(|run| (number(run, "offset"), number(run, "length"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_nbd_client_can_ask_what_changed_since_a_point() {
    let site = one_disk("write-back");
    let drva = site.start();
    drva.protected("root").await;
    site.qemu_io("root", &["write -P 1 0 64k"]).await;
    let first = drva.client.bookmark("shop", &bookmark("first")).await.unwrap().lsn;
    site.qemu_io("root", &["write -P 2 1M 64k", "write -z 3M 4k"]).await;
    let second = drva.client.bookmark("shop", &bookmark("second")).await.unwrap().lsn;
    site.qemu_io("root", &["write -P 3 1088k 4k"]).await;
    let kib = |runs: &[(u64, u64)]| runs.iter().map(|(at, len)| (at >> 10, len >> 10)).collect::<Vec<_>>();
    assert_eq!(kib(&changed_since(&site, first)), [(1024, 68), (3072, 4)]);
    assert_eq!(kib(&changed_since(&site, second)), [(1088, 4)]);
    // A number that is none of its points is not offered.
    let uri = format!("nbd+unix:///shop/web/root?socket={}", site.path("nbd.sock").display());
    for (lsn, there) in [(second, true), (0, false), (1 << 40, false)] {
        let context = format!("--map=qemu:dirty-bitmap:since-lsn-{lsn}");
        let asked = Command::new("nbdinfo").args([&context, &uri]).output().unwrap();
        assert_eq!(asked.status.success(), there, "{lsn}");
    }
    drva.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushes_and_writes_that_are_forced_to_the_disk_are_flush_epochs() {
    let site = one_disk("write-through");
    let drva = site.start();
    drva.protected("root").await;
    let from = drva.client.domain("shop").await.unwrap().last_lsn;
    site.qemu_io("root", &["write -P 1 0 4k", "write -f -P 2 4k 4k", "write -P 3 8k 4k"]).await;
    drva.drain().await;
    let timeline = site.reader().await.timeline();
    let events = timeline.events(Lsn::new(from), timeline.latest().lsn).await.unwrap().into_iter();
    let flushes: Vec<_> = events.filter(|(_, event)| matches!(event, EventBody::Flush { .. })).collect();
    // The forced write's own, and that which qemu-io sends at its end.
    let at: Vec<_> = flushes.iter().map(|(at, _)| at.lsn.get() - from).collect();
    assert_eq!(at, [3, 5]);
    let epoch = site.restored_at("root", &format!("lsn:{}", from + 3)).await;
    assert_eq!((epoch[0], epoch[4096]), (1, 2));
    assert_ne!(epoch[8192], 3);
    drva.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_what_moves_and_when_a_seed_will_be_done() {
    let mut site = one_disk("write-through");
    site.config = site.config.replace("[defaults]", "[defaults]\nseed = \"2MiB/s\"\nsegment_size = \"1MiB\"");
    let drva = site.start();
    let told =
        |state: &DiskState| matches!(state, DiskState::Seeding { eta_s: Some(_), done_bytes, .. } if *done_bytes > 0);
    drva.until("root", told).await;
    let seeding = drva.client.domain("shop").await.unwrap().throughput;
    assert!(seeding.seed_bytes_per_s > 0, "{seeding:?}");
    let faster = serde_json::from_str("{\"seed_bytes_per_s\": \"unlimited\"}").unwrap();
    drva.client.change_settings("shop", &faster).await.unwrap();
    drva.protected("root").await;
    site.qemu_io("root", &["write -P 7 0 4M"]).await;
    drva.drain().await;
    let status = drva.client.domain("shop").await.unwrap();
    let flows = status.throughput;
    assert!(flows.guest_bytes_per_s > 0 && flows.guest_writes_per_s > 0, "{flows:?}");
    assert!(flows.shipped_bytes_per_s > 0, "{flows:?}");
    assert!(status.compression_ratio.is_some_and(|ratio| ratio > 10.0), "{:?}", status.compression_ratio);
    drva.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_clients_the_one_that_began_to_write_last_may_unless_they_share_the_disk() {
    use std::io::Write;
    for shared in [false, true] {
        let mut site = one_disk("write-back");
        site.config += &format!("shared = {shared}\n");
        let drva = site.start();
        drva.protected("root").await;
        // A client that stays, as the source of a live migration does.
        let image = format!("nbd+unix:///shop/web/root?socket={}", site.path("nbd.sock").display());
        let mut old = Command::new("qemu-io");
        old.args(["-f", "raw", "-t", "none", &image])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut old = old.spawn().unwrap();
        let mut says = old.stdin.take().unwrap();
        let start = drva.client.domain("shop").await.unwrap().last_lsn;
        writeln!(says, "write -P 1 0 4k").unwrap();
        while drva.client.domain("shop").await.unwrap().last_lsn == start {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        site.qemu_io("root", &["write -P 2 0 4k"]).await;
        writeln!(says, "write -P 3 0 4k").unwrap();
        drop(says);
        let said = tokio::task::spawn_blocking(move || old.wait_with_output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.contains("write failed"), !shared, "{said}");
        let (stays, reads) = if shared { ("3", "read -P 3 0 4k") } else { ("2", "read -P 2 0 4k") };
        site.qemu_io("root", &[reads]).await;
        drva.stop().await;
        let first = std::fs::read(site.path("root.img")).unwrap()[0];
        assert_eq!(first.to_string(), stays);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_appliance_takes_a_domain_over_and_the_old_one_stops_serving_writes_at_once() {
    let site = one_disk("write-through");
    let old = site.start();
    old.protected("root").await;
    site.qemu_io("root", &["write -P 1 0 1M"]).await;
    old.drain().await;
    // Another one, with a log store of its own and a copy of the disk that somebody brought there.
    let mut other = one_disk("write-through");
    other.config = other.config.replace(
        &format!("url = \"{}\"", other.path("bucket").display()),
        &format!("url = \"{}\"", site.path("bucket").display()),
    );
    let mut copy = std::fs::read(site.path("root.img")).unwrap();
    copy[4 << 20..5 << 20].fill(44);
    std::fs::write(other.path("root.img"), copy).unwrap();
    let new = other.start();
    new.protected("root").await;
    let fenced = async {
        while !matches!(old.client.domain("shop").await.unwrap().state, DomainState::Fenced { .. }) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, fenced).await.expect("the old one finds out");
    let image = format!("nbd+unix:///shop/web/root?socket={}", site.path("nbd.sock").display());
    let mut command = Command::new("qemu-io");
    let refused = run(command.args(["-f", "raw", "-t", "none", "-c", "write -P 2 0 4k", &image])).await;
    let said = String::from_utf8_lossy(&refused.stdout).into_owned() + &String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("failed"), "{said}");
    other.qemu_io("root", &["read -P 1 0 1M", "write -P 3 2M 4k"]).await;
    new.drain().await;
    old.stop().await;
    new.stop().await;
    // What the copy differed in was found by comparison.
    let restored = site.restored("root").await;
    let primary = std::fs::read(other.path("root.img")).unwrap();
    assert!(restored == primary && (restored[2 << 20], restored[4 << 20]) == (3, 44));
}

/// QEMU's server of a qcow2 image. Killed when it is dropped.
struct QemuNbd(std::process::Child);

impl QemuNbd {
    fn start(site: &Site) -> Self {
        let (image, socket) = (site.path("disk.qcow2"), site.path("upstream.sock"));
        std::fs::remove_file(&socket).ok();
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--format=qcow2", "--discard=unmap", "--export-name=disk", "--socket"]);
        let child = command.arg(&socket).arg(&image).spawn().unwrap();
        Self(child)
    }
}

impl Drop for QemuNbd {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_may_be_a_qcow2_image_behind_qemu_nbd_which_may_be_killed() {
    let mut site = Site::new("");
    let image = site.path("disk.qcow2");
    let qemu_img = |args: &[&str]| {
        let done = Command::new("qemu-img").args(args).arg(&image).arg("8M").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    qemu_img(&["create", "-q", "-f", "qcow2"]);
    let socket = site.path("upstream.sock").display().to_string();
    site.config += &format!(
        "[[domain.disk]]\nvm = \"web\"\ndisk = \"root\"\nprimary = \"nbd+unix:///disk?socket={socket}\"\nmode = \"write-back\"\n"
    );
    // It comes when it comes.
    let drva = site.start();
    drva.events("domain-not-open", 1).await;
    let upstream = QemuNbd::start(&site);
    drva.protected("root").await;
    site.qemu_io("root", &["write -P 1 0 2M", "write -z 1M 64k", "discard 1536k 64k", "flush", "write -P 2 4M 512"])
        .await;
    site.qemu_io("root", &["read -P 1 0 1M", "read -P 0 1M 64k", "read -P 2 4M 512"]).await;
    // What it had not flushed is lost with it; the log has it.
    drop(upstream);
    let refused = async {
        loop {
            let image = format!("nbd+unix:///shop/web/root?socket={}", site.path("nbd.sock").display());
            let mut command = Command::new("qemu-io");
            let output = run(command.args(["-f", "raw", "-t", "none", "-c", "write -P 3 6M 4k", &image])).await;
            if !output.status.success() || String::from_utf8_lossy(&output.stdout).contains("failed") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("a disk without its primary takes no more writes");
    drva.until("root", |state| matches!(state, DiskState::Failed { .. })).await;
    drva.crash().await;
    let upstream = QemuNbd::start(&site);
    let drva = restarted(&site).await;
    drva.protected("root").await;
    site.qemu_io("root", &["read -P 1 0 1M", "read -P 0 1M 64k", "read -P 2 4M 512"]).await;
    drva.drain().await;
    drva.stop().await;
    drop(upstream);
    let raw = site.path("raw.img");
    let mut convert = Command::new("qemu-img");
    let done = convert.args(["convert", "-O", "raw"]).arg(&image).arg(&raw).status().unwrap();
    assert!(done.success());
    assert!(site.restored("root").await == std::fs::read(raw).unwrap());
}

/// The machine's clocks, of which somebody sets the one on the wall back.
#[derive(Default)]
struct SetBack {
    system: SystemClock,
    by_s: AtomicU64,
}

impl Clock for SetBack {
    fn wall(&self) -> TimeNs {
        TimeNs::new(self.system.wall().get() - self.by_s.load(Ordering::Relaxed) * 1_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_a_clock_that_is_set_back_an_hour_is_logged_and_history_goes_on_in_order() {
    let site = one_disk("write-back");
    let clock = Arc::new(SetBack::default());
    let drva = site.start_at(Env { clock: clock.clone(), ..Env::system() });
    drva.protected("root").await;
    site.qemu_io("root", &["write -P 1 0 1M"]).await;
    let before = drva.client.bookmark("shop", &bookmark("before")).await.unwrap();
    clock.by_s.store(3600, Ordering::Relaxed);
    site.qemu_io("root", &["write -P 2 0 512k"]).await;
    let after = drva.client.bookmark("shop", &bookmark("after")).await.unwrap();
    assert!(after.time >= before.time, "{after:?} is not before {before:?}");
    drva.drain().await;
    let status = drva.client.domain("shop").await.unwrap();
    assert_eq!((status.rpo.age_ms, matches!(status.state, DomainState::Replicating)), (0, true), "{status:?}");
    drva.stop().await;
    // An hour earlier than its own end, the appliance goes on from there.
    let drva = restarted_at(&site, Env { clock, ..Env::system() }).await;
    drva.protected("root").await;
    site.qemu_io("root", &["write -P 3 0 4k"]).await;
    drva.drain().await;
    drva.stop().await;
    let timeline = site.reader().await.timeline();
    let steps = timeline.events(Lsn::new(before.lsn), timeline.latest().lsn).await.unwrap();
    assert!(steps.into_iter().any(|(_, event)| matches!(event, EventBody::ClockStep { .. })), "the step is logged");
    let [then, later] = [before.lsn, after.lsn].map(|lsn| format!("lsn:{lsn}"));
    let (then, later) = (site.restored_at("root", &then).await, site.restored_at("root", &later).await);
    assert_eq!((then[0], later[0], later[512 << 10]), (1, 2, 1));
    let primary = std::fs::read(site.path("root.img")).unwrap();
    assert!(primary[0] == 3 && site.restored("root").await == primary);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_come_change_and_go_while_others_are_served() {
    let site = one_disk("write-through");
    let drva = site.start();
    drva.protected("root").await;
    let data = site.primary("data.img", 4 * MIB);
    let spec = serde_json::json!({ "vm": "web", "disk": "data", "primary": data, "mode": "write-back" });
    drva.client.disk_add("shop", &serde_json::from_value(spec).unwrap()).await.unwrap();
    drva.protected("data").await;
    site.qemu_io("data", &["write -P 7 0 1M"]).await;
    let changed =
        drva.client.disk_mode(&address("data"), ModeRequest { mode: ProtectionMode::WriteThrough }).await.unwrap();
    assert_eq!(changed.mode, ProtectionMode::WriteThrough);
    let grown = ResizeRequest { size_bytes: 6 * MIB, allow_shrink: false };
    assert_eq!(drva.client.disk_resize(&address("data"), grown).await.unwrap().size_bytes, 6 * MIB);
    site.qemu_io("data", &["write -P 8 5M 1M", "read -P 0 4M 1M"]).await;
    let refused = ResizeRequest { size_bytes: MIB, allow_shrink: false };
    assert!(drva.client.disk_resize(&address("data"), refused).await.is_err());
    drva.drain().await;
    let restored = site.restored("data").await;
    assert_eq!((restored.len() as u64, restored[0], restored[5 << 20]), (6 * MIB, 7, 8));
    drva.client
        .disk_remove(
            &address("data"),
            serde_json::from_str("{\"drain_timeout_ms\": 60000, \"discard_pending\": false}").unwrap(),
        )
        .await
        .unwrap();
    assert!(drva.client.disk(&address("data")).await.is_err());
    site.qemu_io("root", &["write -P 1 0 4k"]).await;
    let status = drva.client.domain("shop").await.unwrap();
    assert!(matches!(status.state, DomainState::Replicating), "{:?}", status.state);
    drva.stop().await;
    // What was added and removed by commands is remembered.
    let drva = site.start();
    drva.protected("root").await;
    assert!(drva.client.disk(&address("data")).await.is_err());
    drva.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_was_brought_here_seeds_a_disk_and_what_differs_is_logged() {
    let site = one_disk("write-through");
    let mut image = std::fs::read(site.path("root.img")).unwrap();
    image[3 << 20..4 << 20].fill(99);
    std::fs::write(site.path("old.img"), &image).unwrap();
    let drva = site.start();
    drva.protected("root").await;
    let source = SeedSource::Image { path: site.path("old.img").display().to_string() };
    drva.client.seed(&address("root"), &SeedRequest { source }).await.unwrap();
    drva.events("disk-protected", 2).await;
    drva.drain().await;
    let primary = std::fs::read(site.path("root.img")).unwrap();
    assert!(site.restored("root").await == primary);
    drva.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_primary_stops_its_own_domain_alone() {
    let mut site = one_disk("write-through");
    site.config += &format!(
        "[[domain]]\nname = \"lab\"\nurl = \"{}\"\ncreate = true\n[[domain.disk]]\nvm = \"x\"\ndisk = \"y\"\nprimary = \"/no/such/disk\"\n",
        site.path("other").display()
    );
    let drva = site.start();
    drva.protected("root").await;
    site.qemu_io("root", &["write -P 1 0 4k"]).await;
    let lab = drva.client.domain("lab").await.unwrap();
    let DomainState::Offline { reason, .. } = lab.state else { panic!("{:?}", lab.state) };
    assert!(reason.contains("/no/such/disk"), "{reason}");
    drva.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_an_outage_longer_than_the_log_makes_a_gap_and_the_guest_goes_on() {
    let mut site = one_disk("write-back");
    site.config = site
        .config
        .replace("[defaults]", "[defaults]\nlog_max = \"64MiB\"")
        .replace("[[domain]]", "[defaults.throttle]\nlatency_max = \"10ms\"\n[[domain]]");
    let drva = site.start();
    drva.protected("root").await;
    site.qemu_io("root", &["write -P 1 0 8M", "flush"]).await;
    drva.client.bookmark("shop", &bookmark("before")).await.unwrap();
    // The bucket is away: something else is in its place.
    std::fs::rename(site.path("bucket"), site.path("away")).unwrap();
    std::fs::write(site.path("bucket"), "no directory").unwrap();
    for value in 2..26 {
        site.qemu_io("root", &[&format!("write -P {value} 0 8M")]).await;
    }
    drva.until("root", |state| matches!(state, DiskState::Gap { .. })).await;
    site.qemu_io("root", &["write -P 99 2M 1M", "read -P 99 2M 1M", "read -P 25 4M 4M"]).await;
    std::fs::remove_file(site.path("bucket")).unwrap();
    std::fs::rename(site.path("away"), site.path("bucket")).unwrap();
    drva.protected("root").await;
    site.qemu_io("root", &["write -P 77 1M 64k"]).await;
    drva.drain().await;
    let before = site.restored_at("root", "bookmark:before").await;
    assert!(before.iter().all(|byte| *byte == 1), "points before the gap stay");
    drva.stop().await;
    let primary = std::fs::read(site.path("root.img")).unwrap();
    assert_eq!((primary[0], primary[1 << 20], primary[2 << 20]), (25, 77, 99));
    assert!(site.restored("root").await == primary, "the gap is closed");
    let timeline = site.reader().await.timeline();
    let [gap] = timeline.gaps() else { panic!("{:?}", timeline.gaps()) };
    let inside = site.reader().await.disk(gap.disk, gap.recorded.lsn).await;
    assert!(inside.is_err(), "a point in the gap is not offered");
}

#[test]
fn the_tools_that_play_the_guest_are_installed() {
    for tool in ["qemu-io", "qemu-img"] {
        assert!(Path::new("/usr/bin").join(tool).exists(), "{tool}");
    }
}
