//! A DRVA behind a line that is too slow, cut, or ends at a store with too much to do; under load all the while.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tidemark_conformance::SeaweedFs;
use tidemark_e2e::Tidemark;
use tidemark_e2e::drva::Site;
use tidemark_e2e::link::{Line, Link};
use tidemark_e2e::system::{pause, until};

const TIDEMARK: &str = env!("CARGO_BIN_EXE_tidemark-under-test");
const DISK: &str = "vm/disk";
const DISK_BYTES: u64 = 16 << 20;
const MIB: u64 = 1 << 20;

/// A site whose bucket is on a real server behind a line.
struct Uplink {
    site: Site,
    link: Link,
    /// The way to the bucket that nothing happens to.
    direct: String,
    _server: SeaweedFs,
}

impl Uplink {
    fn new(defaults: &str) -> Self {
        let server = SeaweedFs::start();
        let direct = server.url("d").to_string();
        let link = Link::to(server.endpoint().trim_start_matches("http://").parse().unwrap());
        let url = direct.replace(&server.endpoint(), &format!("http://127.0.0.1:{}", link.port()));
        let config = format!(
            r#"
            [defaults]
            rpo = "200ms"
            mode = "write-back"
            {defaults}
            [[domain]]
            name = "d"
            url = "{url}"
            create = true
            [[domain.disk]]
            vm = "vm"
            disk = "disk"
            primary = "{{at}}/disk.img"
            "#
        );
        let mut tidemark = Tidemark::new(TIDEMARK);
        for (name, value) in SeaweedFs::environment() {
            tidemark = tidemark.env(name, value);
        }
        let site = Site::with(tidemark, &config);
        site.image("disk.img", DISK_BYTES);
        Self { site, link, direct, _server: server }
    }

    /// A guest that writes as fast as it may, up to a rate, what cannot be compressed.
    fn load(&self, more: &[&str]) -> Load {
        let mut command = Command::new("fio");
        command.current_dir(self.site.dir()).args(["--name=load", "--ioengine=nbd", "--rw=randwrite", "--thread"]);
        command.arg(format!("--uri={}", self.site.uri(DISK)));
        command.args(["--bs=64k", "--iodepth=8", "--size=16M", "--refill_buffers", "--output-format=json"]).args(more);
        Load { child: command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap() }
    }

    /// Everything is in the bucket, and it is what the primary holds.
    fn bucket_is_the_primary(&self) {
        let out = self.site.path("restored.raw");
        std::fs::remove_file(&out).ok();
        let args = ["export", &self.direct, "--disk", DISK, "--at", "latest", out.to_str().unwrap()];
        self.site.tidemark().ok(args);
        let read = |path: &Path| std::fs::read(path).unwrap();
        assert!(read(&out) == read(&self.site.path("disk.img")), "bucket and primary differ");
        self.site.tidemark().ok(["verify", &self.direct]);
    }
}

struct Load {
    child: Child,
}

impl Load {
    fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What fio found of its writes.
    fn report(self) -> Value {
        let output = self.child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let json = text.find('{').map_or("", |start| &text[start..]);
        serde_json::from_str::<Value>(json).unwrap()["jobs"][0]["write"].clone()
    }
}

/// One look at the status.
#[derive(Debug)]
struct Look {
    fill: f64,
    guest: f64,
    shipped: f64,
    stage: String,
}

impl Look {
    fn at(site: &Site) -> Self {
        let status = site.status();
        let number = |value: &Value| value.as_f64().unwrap();
        Self {
            fill: number(&status["log"]["fill"]),
            guest: number(&status["throughput"]["guest_bytes_per_s"]),
            shipped: number(&status["throughput"]["shipped_bytes_per_s"]),
            stage: status["throttle"]["stage"].as_str().unwrap().to_owned(),
        }
    }
}

fn mean(looks: &[Look], what: fn(&Look) -> f64) -> f64 {
    looks.iter().map(what).sum::<f64>() / looks.len() as f64
}

fn spread(looks: &[Look], what: fn(&Look) -> f64) -> (f64, f64) {
    looks.iter().map(what).fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
}

#[test]
fn on_a_line_of_a_tenth_of_its_rate_a_guest_is_slowed_to_what_the_line_takes_and_stays_there() {
    let up = Uplink::new(
        "segment_size = \"512KiB\"\nlog_min = \"16MiB\"\nlog_max = \"64MiB\"\noverflow = \"stall\"\nthrottle = { latency_max = \"2s\" }",
    );
    let daemon = up.site.serve(DISK);
    up.site.until_disk_is(DISK, "protected");
    up.link.set(Line::Open(2 * MIB));
    let mut load = up.load(&["--rate=20m", "--time_based", "--runtime=18"]);
    let mut looks = Vec::new();
    while !load.ended() {
        looks.push(Look::at(&up.site));
        pause(Duration::from_millis(200));
    }
    load.report();
    if let Some(path) = std::env::var_os("TIDEMARK_SERIES") {
        let line = |look: &Look| format!("{:.3} {:.0} {:.0} {}\n", look.fill, look.guest, look.shipped, look.stage);
        std::fs::write(path, looks.iter().map(line).collect::<String>()).unwrap();
    }
    assert!(looks.iter().all(|look| look.stage != "stalled"), "throttled before the log was full: {looks:?}");
    // What is said of the last third holds from when it has settled.
    let settled = &looks[2 * looks.len() / 3..];
    assert!(settled.iter().all(|look| look.stage == "throttled"), "{settled:?}");
    let (low, high) = spread(settled, |look| look.fill);
    assert!(high - low < 0.15, "the log's fill goes between {low} and {high}: {settled:?}");
    let (guest, shipped) = (mean(settled, |look| look.guest), mean(settled, |look| look.shipped));
    assert!((0.7..1.4).contains(&(guest / shipped)), "guests write {guest} B/s, {shipped} are shipped");
    let (low, high) = spread(settled, |look| look.guest);
    assert!(low > 0.4 * guest && high < 1.9 * guest, "guests write {low} to {high} B/s: {settled:?}");
    up.link.set(Line::Open(u64::MAX));
    up.site.drain();
    daemon.stop();
    up.bucket_is_the_primary();
}

#[test]
fn fault_while_the_line_is_cut_for_longer_than_the_log_holds_the_guest_goes_on_and_the_gap_is_closed_after() {
    let up = Uplink::new("log_min = \"16MiB\"\nlog_max = \"64MiB\"\nthrottle = { latency_max = \"100ms\" }");
    let daemon = up.site.serve(DISK);
    up.site.until_disk_is(DISK, "protected");
    up.load(&["--io_size=16M"]).report();
    up.site.drva(&["bookmark", "d", "before"]);
    let before = std::fs::read(up.site.restored_of(&up.direct, DISK, "bookmark:before")).unwrap();
    let mut load = up.load(&["--rate=20m", "--time_based", "--runtime=5"]);
    up.link.set(Line::Cut);
    up.site.until_disk_is(DISK, "gap");
    assert!(!load.ended(), "it writes on");
    let report = load.report();
    // The bound on what is added, a change of ways, and a machine that others use too.
    let longest_s = report["clat_ns"]["max"].as_f64().unwrap() / 1e9;
    assert!(longest_s < 3.0, "a write took {longest_s} s");
    up.link.set(Line::Open(u64::MAX));
    up.site.until_disk_is(DISK, "protected");
    up.load(&["--io_size=1M"]).report();
    up.site.drain();
    let again = std::fs::read(up.site.restored_of(&up.direct, DISK, "bookmark:before")).unwrap();
    assert!(before == again, "points before the gap stay");
    daemon.stop();
    up.bucket_is_the_primary();
}

#[test]
fn fault_a_storm_of_503_delays_the_bucket_and_nothing_else() {
    let up = Uplink::new("");
    let daemon = up.site.serve(DISK);
    up.site.until_disk_is(DISK, "protected");
    up.link.set(Line::Storm);
    let load = up.load(&["--rate=4m", "--io_size=8M", "--verify=crc32c", "--do_verify=1"]);
    until("refused requests", || up.link.refused() >= 10);
    load.report();
    let status = up.site.status();
    assert!(status["committed_lsn"].as_u64() < status["last_lsn"].as_u64(), "{status}");
    assert_eq!(status["disks"][0]["state"]["is"], "protected", "what is acknowledged is in the log");
    up.link.set(Line::Open(u64::MAX));
    up.site.drain();
    daemon.stop();
    up.bucket_is_the_primary();
}
