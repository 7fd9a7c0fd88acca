//! What is measured, read by strangers: DuckDB, Arrow, Prometheus' own parser.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value as Json;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tidemark_bucket::{Bucket, BucketOptions};
use tidemark_e2e::Tidemark;
use tidemark_e2e::drva::Site;
use tidemark_e2e::promises::{members, promised};
use tidemark_e2e::system::until;
use tidemark_e2e::tables::{check, get, get_over};
use tidemark_env::Env;
use tidemark_format::{Day, StatsTable, TimeNs};
use tidemark_telemetry::registry::{DiskMeasure, DomainMeasure, Table};
use tidemark_telemetry::{
    Cell, Collector, DiskLook, DomainLook, Happened, Look, Produced, Readings, Row, append, read,
};

const TIDEMARK: &str = env!("CARGO_BIN_EXE_tidemark-under-test");
const DISK: &str = "vm/disk";

fn site(extra: &str) -> Site {
    let site = Site::new(
        TIDEMARK,
        &format!(
            r#"
            statistics = {{ period = "1s", ship = "1s"{extra} }}
            defaults = {{ rpo = "200ms" }}
            [[domain]]
            name = "d"
            url = "{{at}}/bucket"
            create = true
            [[domain.disk]]
            vm = "vm"
            disk = "disk"
            primary = "{{at}}/disk.img"
            "#
        ),
    );
    site.image("disk.img", 16 << 20);
    site
}

/// Runs libnbd's Python against the disk.
fn guest(site: &Site, script: &str) {
    let mut guest = Command::new("/usr/bin/python3");
    let ran = guest.args(["-m", "nbd", "-u", &site.uri(DISK), "-c", script]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

fn writes(count: u64) -> String {
    format!("import os\nfor n in range({count}): h.pwrite(os.urandom(4096 * (1 + n % 3)), 65536 * (n % 200))")
}

fn written(count: u64) -> u64 {
    (0..count).map(|n| 4096 * (1 + n % 3)).sum()
}

/// One counter of the metrics.
fn counter(site: &Site, name: &str) -> f64 {
    let (_, text) = get(&site.path("api.sock"), "/metrics");
    let line = text.lines().find(|line| line.starts_with(&format!("{name}_total")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

async fn rows(site: &Site, table: StatsTable) -> Vec<Row> {
    let bucket = Bucket::open(&site.bucket().parse().unwrap(), &BucketOptions::default()).unwrap();
    let found = read(&bucket.read_only(), table, Day::new(0)..=Day::new(u32::MAX)).await.unwrap();
    assert_eq!(found.damaged, Vec::<String>::new());
    found.rows
}

/// The sum of a column over the bucket's rows.
fn sum(site: &Site, table: StatsTable, column: &str) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let at = Table::of(table).column(column).unwrap();
    let rows = runtime.block_on(rows(site, table));
    rows.iter().map(|row| if let Cell::Whole(whole) = row[at] { whole as u64 } else { 0 }).sum()
}

/// Sums by run that DuckDB and Arrow agree on; their runs in order of time are not known, so the numbers of one column find a run.
fn run_with(sums: &Json, column: &str, value: u64) -> Json {
    let mut runs = sums.as_object().unwrap().values();
    runs.find(|run| run[column] == value).unwrap_or_else(|| panic!("no run with {column} {value}: {sums}")).clone()
}

#[test]
fn fault_rows_add_up_to_the_counters_exactly_across_a_crash_and_a_restart() {
    let site = site("");
    let (mut counters, mut last_lsn, mut events_before) = (Vec::new(), Vec::new(), 0);
    let stats = PathBuf::from(site.bucket()).join("v/stats").display().to_string();
    for (count, clean) in [(200, false), (90, true)] {
        let daemon = site.serve(DISK);
        site.until_disk_is(DISK, "protected");
        let before = sum(&site, StatsTable::DiskMinute, "writes");
        guest(
            &site,
            &format!(
                "{}\nh.flush()\nh.zero(8192, 0, nbd.CMD_FLAG_NO_HOLE)\nh.trim(65536, 1 << 20)\nh.pread(12288, 4096)",
                writes(count)
            ),
        );
        site.drain();
        let names = ["disk_writes", "disk_written_bytes", "disk_reads", "disk_read_bytes", "disk_flushes"];
        let names =
            names.into_iter().chain(["domain_logged_records", "domain_logged_bytes", "domain_shipped_plain_bytes"]);
        counters.push(names.map(|name| counter(&site, &format!("tidemark_{name}")) as u64).collect::<Vec<_>>());
        last_lsn.push(site.status()["last_lsn"].as_u64().unwrap());
        // Each event of the domain is in its table, once.
        let mut told = (0, 0);
        until("all events in the bucket", || {
            let events = site.drva(&["events"]);
            let seqs = events.as_array().unwrap().iter().filter(|event| event["domain"] == "d");
            let seqs: Vec<_> = seqs.map(|event| event["seq"].as_u64().unwrap()).collect();
            told = (seqs.len() as u64, seqs.iter().sum::<u64>());
            sum(&site, StatsTable::Event, "seq") == events_before + told.1
        });
        events_before += told.1;
        let events = check(&["sums", &stats, "event"], "");
        assert_eq!(run_with(&events, "seq", told.1)["rows"], told.0, "{events}");
        if clean {
            daemon.stop();
        } else {
            // The row that has the last write is in the bucket; what crashes then has nothing to lose.
            until("row with all writes", || sum(&site, StatsTable::DiskMinute, "writes") == before + count);
            daemon.kill();
        }
    }
    assert_eq!(counters[0][..2], [200, written(200)], "the guest's own count");
    let disk = check(&["sums", &stats, "disk_minute"], "");
    let domain = check(&["sums", &stats, "domain_minute"], "");
    assert_eq!(disk.as_object().unwrap().len(), 2, "{disk}");
    for of in &counters {
        let told = run_with(&disk, "writes", of[0]);
        for (column, value) in ["writes", "written_bytes", "reads", "read_bytes", "flushes"].into_iter().zip(of) {
            assert_eq!(told[column], *value, "{column}: {told}");
        }
        assert_eq!((&told["zeroed_bytes"], &told["unmapped_bytes"]), (&8192.into(), &65536.into()));
        let told = run_with(&domain, "writes", of[0]);
        for (column, value) in ["logged_records", "logged_bytes", "shipped_plain_bytes"].into_iter().zip(&of[5..]) {
            assert_eq!(told[column], *value, "{column}: {told}");
        }
        assert_eq!(told["written_bytes"], of[1]);
    }
    assert_eq!(counters[0][5], last_lsn[0], "every LSN is a record");
    assert_eq!(last_lsn[0] + counters[1][5], last_lsn[1]);
    let events = check(&["sums", &stats, "event"], "");
    assert_eq!(events.as_object().unwrap().len(), 2, "{events}");
    // What maintenance says of itself is what its row says.
    let gc = site.tidemark().json(["gc", "run", &site.bucket()]);
    let passes = check(&["sums", &stats, "gc_pass"], "");
    let pass = passes.as_object().unwrap().values().next().unwrap();
    assert_eq!(pass["rows"], gc["rows"], "rows of segments, in a column that is called so: {passes}");
    for (column, member) in [
        ("segments", "segments"),
        ("runs", "runs"),
        ("merges", "merges"),
        ("merged_rows", "merged_rows"),
        ("roots", "roots"),
        ("written_bytes", "bytes"),
    ] {
        assert_eq!(pass[column], gc[member], "{column}: {passes}");
    }
}

#[test]
fn fault_a_crash_under_writes_loses_no_more_than_the_open_row() {
    let site = site("");
    let daemon = site.serve(DISK);
    site.until_disk_is(DISK, "protected");
    let mut guest = Command::new("/usr/bin/python3");
    let script = "import os\nwhile True: h.pwrite(os.urandom(4096), 0)";
    let mut guest = guest.args(["-m", "nbd", "-u", &site.uri(DISK), "-c", script]).spawn().unwrap();
    until("rows with writes in them", || sum(&site, StatsTable::DiskMinute, "writes") > 0);
    let in_bucket = sum(&site, StatsTable::DiskMinute, "writes");
    daemon.kill();
    guest.wait().unwrap();
    let daemon = site.serve(DISK);
    let logged = site.status()["last_lsn"].as_u64().unwrap();
    daemon.stop();
    let after = sum(&site, StatsTable::DiskMinute, "writes");
    assert!((in_bucket..=logged).contains(&after), "{in_bucket} were in the bucket, {logged} logged: {after}");
}

#[test]
fn metrics_pass_the_strict_parser_on_the_socket_and_over_tcp() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let site = site(&format!(", listen = \"127.0.0.1:{port}\", prices = \"aws-s3-standard\""));
    let daemon = site.serve(DISK);
    site.until_disk_is(DISK, "protected");
    guest(&site, &writes(20));
    until("estimates of a minute", || {
        get(&site.path("api.sock"), "/metrics").1.contains("tidemark_disk_entropy_ratio{")
    });
    let (head, text) = get(&site.path("api.sock"), "/metrics");
    assert!(head.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    let families = check(&["openmetrics"], &text);
    let families = families.as_object().unwrap();
    let (written, latency) =
        (&families["tidemark_disk_written_bytes"], &families["tidemark_disk_write_latency_seconds"]);
    assert_eq!((&written["type"], &written["unit"]), (&"counter".into(), &"bytes".into()));
    assert_eq!(latency["type"], "histogram");
    assert!(families.len() > 50, "{} families", families.len());
    let (_, over_tcp) = get_over(TcpStream::connect(("127.0.0.1", port)).unwrap(), "/metrics");
    assert_eq!(check(&["openmetrics"], &over_tcp).as_object().unwrap().len(), families.len());
    until("a second's count of requests", || site.status()["cost"]["month_nanos"].is_u64());
    let status = site.status();
    let (cost, count) = (&status["cost"], |op: &str| status["requests"][op]["requests"].as_u64().unwrap_or(0));
    let read = status["requests"]["get"]["bytes"].as_u64().unwrap_or(0);
    let requests = 5_000 * (count("put") + count("list")) + 400 * (count("get") + count("head"));
    assert_eq!(cost["spent_nanos"], requests + (read * 90_000_000).div_ceil(1 << 30), "{status}");
    assert_eq!((&cost["sheet"], &cost["currency"]), (&"aws-s3-standard".into(), &"USD".into()));
    assert!(cost["month_nanos"].as_u64() > cost["spent_nanos"].as_u64(), "{cost}");
    let (head, _) = get_over(TcpStream::connect(("127.0.0.1", port)).unwrap(), "/v1/status");
    assert!(head.starts_with("HTTP/1.1 404"), "nothing else is served there: {head}");
    daemon.stop();
}

#[test]
fn tables_say_their_units_and_old_and_new_files_read_together() {
    let site = site("");
    let daemon = site.serve(DISK);
    site.until_disk_is(DISK, "protected");
    guest(&site, &writes(20));
    daemon.stop();
    let stats = PathBuf::from(site.bucket()).join("v/stats");
    for table in [StatsTable::DomainMinute, StatsTable::DiskMinute, StatsTable::Event] {
        let schema = check(&["schema", &stats.display().to_string(), table.name()], "");
        for column in &Table::of(table).columns {
            let told = &schema[&column.name];
            assert_eq!(
                (&told["field_id"], &told["unit"]),
                (&column.field.into(), &column.unit.word().into()),
                "{told}"
            );
        }
        assert_eq!(schema["time"]["type"], "timestamp[us, tz=UTC]");
    }
    let day = std::fs::read_dir(stats.join("table=disk_minute")).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::read_dir(&day).unwrap().next().unwrap().unwrap().path().display().to_string();
    let name = |digit: &str| day.join(format!("{}.parquet", digit.repeat(32))).display().to_string();
    let (old, new) = (name("a"), name("b"));
    let made = check(&["evolve", &file, &old, &new], "");
    let rows_of = |n: u64| made["rows"].as_u64().unwrap() * n;
    let together = check(&["union", &old, &file, &new], "");
    assert_eq!((&together["rows"], &together["last"]), (&rows_of(3).into(), &"phase_of_the_moon".into()), "{together}");
    assert_eq!(together["columns"].as_u64(), made["columns"].as_u64().map(|columns| columns + 1));
    assert_eq!(together["nulls"], rows_of(2));
    // Our own reader, too: what it does not know it leaves out, and the new file's rows are the same then.
    std::fs::remove_file(&old).unwrap();
    let before = sum(&site, StatsTable::DiskMinute, "writes");
    std::fs::remove_file(&new).unwrap();
    assert_eq!(before, sum(&site, StatsTable::DiskMinute, "writes"));
}

const MINUTE: u64 = 60_000_000_000;

/// A day in the life of a domain, looked at once a minute: office hours, a nightly job, and an outage with a gap at noon.
fn a_day(start: TimeNs) -> Vec<Produced> {
    let mut collector = Collector::new("drva1", "run", Duration::from_secs(60));
    let (mut written, mut puts, mut rows) = (0, 0, Vec::new());
    for minute in 0..1440_u64 {
        let now =
            Look { wall: TimeNs::new(start.get() + minute * MINUTE), monotonic: Duration::from_secs(60 * minute) };
        let (office, night, outage) =
            ((480..1080).contains(&minute), (120..180).contains(&minute), (720..750).contains(&minute));
        let load = 1 + u64::from(office) * (8 + minute * 7919 % 13) + u64::from(night) * 60;
        written += load << 20;
        puts += if outage { 0 } else { 1 + load / 8 };
        let behind = if outage { (minute - 719) as f64 * 60.0 } else { 0.8 + (minute * 7919 % 31) as f64 / 20.0 };
        let mut domain = Readings::new();
        domain
            .sum(DomainMeasure::Written, written)
            .sum(DomainMeasure::Puts, puts)
            .sum(DomainMeasure::PutBytes, written / 2);
        domain.sum(DomainMeasure::ShippedPlain, written).sum(DomainMeasure::ShippedStored, written / 2);
        domain.now(DomainMeasure::Rpo, behind).now(DomainMeasure::RpoTarget, 5.0);
        domain.now(DomainMeasure::LogFill, if outage { (minute - 719) as f64 / 40.0 } else { 0.02 });
        let disk = |(name, share): (&str, u64)| {
            let mut readings = Readings::new();
            readings.sum(DiskMeasure::Written, written * share / 4).sum(DiskMeasure::Writes, written * share / 65536);
            let gap = name == "data" && (740..780).contains(&minute);
            readings.now(DiskMeasure::Restorable, if gap { 0.0 } else { 1.0 }).now(DiskMeasure::Entropy, 0.61);
            DiskLook { vm: "web1".into(), disk: name.into(), readings }
        };
        let disks = [("root", 1), ("data", 3)].map(disk).into();
        rows.extend(collector.look(now, vec![DomainLook { name: "shop".into(), readings: domain, disks }]));
    }
    let happened = Happened {
        time: TimeNs::new(start.get() + 740 * MINUTE),
        seq: 1,
        severity: "error",
        kind: "disk-gap",
        domain: Some("shop"),
        vm: Some("web1"),
        disk: Some("data"),
        message: "the log is full: writes bypass it, points from here on are lost <b>",
        data: None,
    };
    rows.push(Produced { domain: "shop".into(), table: StatsTable::Event, row: collector.event(happened) });
    rows
}

/// A bucket with that day in it.
fn bucket_of_a_day(tidemark: &Tidemark, place: &Path) -> String {
    let url = place.join("bucket").display().to_string();
    tidemark.ok(["domain", "create", &url, "--name", "shop"]);
    let bucket = Bucket::open(&url.parse().unwrap(), &BucketOptions::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for table in StatsTable::ALL {
        let of_table = |produced: Produced| (produced.table == table).then_some(produced.row);
        let rows: Vec<_> = a_day(Day::new(20_782).start()).into_iter().filter_map(of_table).collect();
        if rows.is_empty() {
            continue;
        }
        runtime.block_on(append(&bucket.recorder(), table, rows, &Env::system())).unwrap();
    }
    url
}

const THAT_DAY: [&str; 4] = ["--from", "2026-11-25", "--to", "2026-11-25T23:59:59Z"];

#[test]
fn a_browser_shows_the_report_without_asking_anybody() {
    let dir = tempfile::tempdir().unwrap();
    let tidemark = Tidemark::new(TIDEMARK);
    let url = bucket_of_a_day(&tidemark, dir.path());
    let (page, shot) = (dir.path().join("report.html"), dir.path().join("report.png"));
    let out = page.display().to_string();
    tidemark.ok([&["stats", "report", &url, "--out", &out, "--prices", "aws-s3-standard"][..], &THAT_DAY].concat());
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(
        !html.contains("http://") && !html.contains("https://") && !html.contains("<script"),
        "it is self-contained"
    );
    let mut browser = Command::new("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]);
    browser.arg(format!("--user-data-dir={}", dir.path().join("profile").display()));
    browser.arg(format!("--screenshot={}", shot.display())).args(["--window-size=900,2600", "--dump-dom"]);
    let shown = browser.arg(format!("file://{out}")).output().expect("scripts/install puts chromium here");
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    // The browser's own idea of the page, after parsing.
    let dom = String::from_utf8_lossy(&shown.stdout);
    for (what, times) in [("<svg", 5), ("class=\"fill\"", 4), ("class=\"bad\"", 1), ("<table", 3), ("disk-gap", 1)] {
        assert!(dom.matches(what).count() >= times, "{what} {times} times: {dom}");
    }
    assert!(dom.contains("are lost &lt;b&gt;"), "names and messages are text");
    // A page that is blank packs into a few KiB.
    assert!(std::fs::metadata(&shot).unwrap().len() > 50_000);
    if let Ok(keep) = std::env::var("TIDEMARK_KEEP_SCREENSHOT") {
        std::fs::copy(shot, keep).unwrap();
    }
}

#[test]
fn stats_are_drawn_in_the_terminal_and_exported_for_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let tidemark = Tidemark::new(TIDEMARK);
    let url = bucket_of_a_day(&tidemark, dir.path());
    let drawn = tidemark.ok([&["stats", "show", &url][..], &THAT_DAY].concat()).stdout;
    assert!(drawn.contains("RPO: now ") && drawn.contains("most 30 min"), "{drawn}");
    let told = tidemark.json([&["stats", "show", &url, "--prices", "aws-s3-standard"][..], &THAT_DAY].concat());
    assert_eq!(told["cost"]["spent_nanos"], told["requests"].as_u64().unwrap() * 5_000, "they are all PUTs");
    let out = |format: &str| dir.path().join(format).display().to_string();
    for format in ["parquet", "csv", "json"] {
        tidemark.ok([&["stats", "export", &url, "--format", format, "--out", &out(format)][..], &THAT_DAY].concat());
    }
    let sums = check(&["sums", &out("parquet"), "domain_minute"], "");
    assert_eq!(sums["run"]["written_bytes"], told["written_bytes"]);
    let csv = std::fs::read_to_string(dir.path().join("csv/domain_minute.csv")).unwrap();
    let names: Vec<_> = csv.lines().next().unwrap().split(',').collect();
    let at = names.iter().position(|name| *name == "written_bytes").unwrap();
    let sum: u64 = csv.lines().skip(1).map(|line| line.split(',').nth(at).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(told["written_bytes"], sum);
    let json = std::fs::read_to_string(dir.path().join("json/event.json")).unwrap();
    let event: Json = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&event["kind"], &event["time"]), (&"disk-gap".into(), &"2026-11-25T12:20:00Z".into()));
}

/// Within a fifth of what was measured.
fn holds(what: &str, planned: f64, measured: f64) {
    assert!((planned / measured - 1.0).abs() <= 0.2, "{what}: planned {planned}, measured {measured}");
}

/// Bytes of the log's objects in a bucket.
fn log_bytes(tidemark: &Tidemark, url: &str) -> f64 {
    let listed = tidemark.json(["inspect", url]);
    let objects = listed["objects"].as_array().unwrap().iter();
    let log = objects.filter(|object| object["key"].as_str().unwrap().starts_with("log/"));
    log.map(|object| object["bytes"].as_f64().unwrap()).sum()
}

#[test]
fn what_is_planned_from_a_log_of_writes_is_what_its_ingest_takes() {
    let dir = tempfile::tempdir().unwrap();
    let tidemark = Tidemark::new(TIDEMARK);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let unpack = |name: &str, to: &str| {
        let packed = std::fs::File::open(tidemark_e2e::sample::path(name)).unwrap();
        zstd::stream::copy_decode(packed, std::fs::File::create(path(to)).unwrap()).unwrap();
    };
    unpack(tidemark_e2e::sample::BASE, "base.img");
    unpack(tidemark_e2e::sample::LOG, "writes.log");
    let (base, log, url) = (path("base.img"), path("writes.log"), path("bucket"));
    let record = ["plan", "--record", &log, "--format", "blklogwrites", "--over", "10m", "--disks", "64M"];
    let planned = tidemark.json(record);
    assert_eq!(members(&planned), promised("plan"));
    tidemark.ok(["domain", "create", &url, "--name", "d"]);
    tidemark.ok(["ingest", &url, "--disk", "vm/disk", "--format", "raw", &base]);
    let before = log_bytes(&tidemark, &url);
    let ingested = tidemark.json(["ingest", &url, "--disk", "vm/disk", "--format", "blklogwrites", &log]);
    let of_record = |figure: &str| planned[figure]["likely"].as_f64().unwrap() / 144.0;
    holds("written", of_record("written_bytes_per_day"), ingested["data_bytes"].as_f64().unwrap());
    holds("shipped", of_record("shipped_bytes_per_day"), log_bytes(&tidemark, &url) - before);
    assert_eq!(planned["costs"].as_array().unwrap().len(), 8, "one for each sheet of the program");
    let text = tidemark.ok(record).stdout;
    assert!(text.contains("log store") && text.contains("assuming that"), "{text}");
    let refused = tidemark.run(&record[..6]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
}

#[test]
fn what_is_planned_from_statistics_is_what_another_run_takes() {
    let site = site("");
    // Half of each block is noise.
    let load = |count: u64| {
        format!("import os\nfor n in range({count}): h.pwrite(os.urandom(4096) + bytes(4096), 8192 * (n % 1000))")
    };
    let daemon = site.serve(DISK);
    site.until_disk_is(DISK, "protected");
    guest(&site, &load(1500));
    daemon.stop();
    let url = site.bucket();
    let plan = ["plan", "--stats", &url, "--from", "-1h", "--outage", "24h", "--rpo", "5s", "--prices", "wasabi"];
    let planned = site.tidemark().json(plan);
    let figure = |name: &str| planned[name]["likely"].as_f64().unwrap();
    let per_written = |name: &str| figure(name) / figure("written_bytes_per_day");
    assert_eq!(planned["costs"][0]["sheet"], "wasabi");

    let daemon = site.serve(DISK);
    let before = log_bytes(site.tidemark(), &url);
    site.drva(&["pause", "d"]);
    let used = || site.status()["log"]["used_bytes"].as_f64().unwrap();
    let used_before = used();
    guest(&site, &load(1000));
    let written = 1000.0 * 8192.0;
    // A log store is planned to be half full at the end of an outage.
    holds("room in the log", per_written("log_store_bytes") / 2.0 * written, used() - used_before);
    site.drva(&["resume", "d"]);
    site.drain();
    daemon.stop();
    holds("shipped", per_written("shipped_bytes_per_day") * written, log_bytes(site.tidemark(), &url) - before);
}
