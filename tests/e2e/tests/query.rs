//! Anybody can ask the history: what docs/query.md asks of the index is answered with what was written, and a bucket with an
//! index is still restored by who knows nothing of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_e2e::Tidemark;
use tidemark_e2e::life::{Dice, directory, play};
use tidemark_e2e::second_reader::{python, root};
use tidemark_env::{Env, ManualClock};
use tidemark_format::{BLOCK_BYTES, DiskId, KeyFamily, Lsn, TimeNs};
use tidemark_gc::{From, Maintainer, MaintenanceOptions, PassReport};
use tidemark_reader::{Domain, ReaderOptions};
use tidemark_writer::{Attach, Content, DomainWriter, NewDisk, Request, When, WriterOptions, create_domain};

/// 2026-03-01T10:00:00Z, when the page's disks join.
const START: TimeNs = TimeNs::new(1_772_359_200_000_000_000);
const MINUTES: u64 = 8;
const WRITES_A_MINUTE: u64 = 60;
const MIB_BLOCKS: u64 = (1 << 20) / BLOCK_BYTES;
/// VM, disk, and blocks.
const DISKS: [(&str, &str, u64); 3] =
    [("db", "data", 64 * MIB_BLOCKS), ("db", "root", 16 * MIB_BLOCKS), ("web", "root", 32 * MIB_BLOCKS)];

/// A write of data, or of nothing: zeros and holes.
struct Written {
    disk: usize,
    minute: u64,
    start: u64,
    blocks: u64,
    has_data: bool,
}

fn env(clock: &Arc<ManualClock>) -> Env {
    Env::seeded(7, Arc::clone(clock))
}

/// Many small runs and some merges, so that there are tables that no longer count.
async fn index(bucket: &Bucket, clock: &Arc<ManualClock>, run_rows: u64) -> PassReport {
    let options = MaintenanceOptions { run_rows, fan_out: 3, table_rows_max: 100, ..MaintenanceOptions::default() };
    let mut maintainer = Maintainer::open(bucket.appender(), options, env(clock)).await.unwrap();
    maintainer.pass(From::NewestRoot, |_| {}).await.unwrap()
}

/// Disks of two VMs that are written for some minutes, a segment each minute.
async fn history(bucket: &Bucket, clock: &Arc<ManualClock>) -> Vec<Written> {
    create_domain(&bucket.appender(), "asked", &env(clock)).await.unwrap();
    let options = WriterOptions { attach: Attach::KnownCas, age_ms_max: 600_000, ..WriterOptions::default() };
    let writer = DomainWriter::open(bucket.appender(), options, env(clock)).await.unwrap();
    for (vm, name, blocks) in DISKS {
        let new = NewDisk { vm: vm.into(), name: name.into(), size_bytes: blocks * BLOCK_BYTES };
        let _ = writer.submit_disk_add(&new, Content::Blank, When::Now).await.unwrap();
    }
    let mut dice = Dice::new(19);
    let mut all: Vec<Written> = (0..)
        .zip(DISKS)
        .map(|(disk, (_, _, blocks))| Written { disk, minute: 0, start: 0, blocks, has_data: false })
        .collect();
    for minute in 0..MINUTES {
        for n in 0..WRITES_A_MINUTE {
            let disk = dice.below(DISKS.len() as u64) as usize;
            // Half of the writes go to one MiB, so that some regions are hotter than others.
            let span = if dice.below(2) == 0 { MIB_BLOCKS } else { DISKS[disk].2 };
            let (blocks, start) = (1 + dice.below(64), dice.below(span));
            let blocks = blocks.min(DISKS[disk].2 - start);
            let (id, offset, len) = (DiskId::new(disk as u32 + 1), start * BLOCK_BYTES, blocks * BLOCK_BYTES);
            let has_data = dice.below(8) > 0;
            let request = match has_data {
                true => Request::Write { disk: id, offset, data: Bytes::from(vec![n as u8 | 1; len as usize]) },
                false if dice.below(2) == 0 => Request::Zero { disk: id, offset, len },
                false => Request::Unmap { disk: id, offset, len },
            };
            let _ = writer.submit(request, When::Now).await.unwrap();
            all.push(Written { disk, minute, start, blocks, has_data });
        }
        writer.sync().await.unwrap();
        if minute == MINUTES / 2 {
            index(bucket, clock, 50).await;
        }
        clock.advance(Duration::from_secs(60));
    }
    writer.close().await.unwrap();
    all
}

/// What the page's blocks answer in `dir`, by heading.
fn ask(dir: &Path) -> Json {
    let python = root(".tools/tables/python/bin/python");
    assert!(python.exists(), "there is no {}\nhint: run tests/tables/install.sh", python.display());
    let tools = dir.join("tools");
    std::fs::create_dir(&tools).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tidemark-under-test"), tools.join("tidemark")).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(python);
    command.arg(root("tests/tables/query.py")).arg(root("docs/query.md")).current_dir(dir);
    let output = command.env("PATH", format!("{}:{path}", tools.display())).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Sums for each key that comes up, in order.
fn sums<K: Ord>(pairs: impl IntoIterator<Item = (K, u64)>) -> BTreeMap<K, u64> {
    let mut sums = BTreeMap::new();
    pairs.into_iter().for_each(|(key, value)| *sums.entry(key).or_default() += value);
    sums
}

fn blocks_of<'a>(written: impl IntoIterator<Item = &'a Written>) -> BTreeSet<u64> {
    written.into_iter().flat_map(|w| w.start..w.start + w.blocks).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_on_queries_says_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("bucket");
    let bucket = Bucket::open(&BucketUrl::file(&bucket), &BucketOptions::default()).unwrap();
    let clock = Arc::new(ManualClock::new(START));
    let all = history(&bucket, &clock).await;
    let report = index(&bucket, &clock, 50).await;
    let tables = bucket.read_only().list(KeyFamily::Index).await.unwrap().len() as u64;
    let counting: u64 = report.index.unwrap().levels.iter().map(|level| level.tables).sum();
    assert!(tables > counting + 10, "{counting} of {tables} tables count");
    let answers = ask(dir.path());

    let name = |disk: usize| (DISKS[disk].0, DISKS[disk].1);
    let data = || all.iter().filter(|w| w.has_data);
    let minute = |minute: u64| format!("2026-03-01T10:{minute:02}:00Z");
    let disks: Vec<Json> = (0..3).map(|disk| json!([disk + 1, name(disk).0, name(disk).1])).collect();
    assert_eq!(answers["Names of disks"], json!(disks));

    let per_minute = sums(data().map(|w| ((w.disk, w.minute), w.blocks * BLOCK_BYTES)));
    let wanted: Vec<Json> = per_minute
        .iter()
        .map(|((disk, at), bytes)| json!([name(*disk).0, name(*disk).1, minute(*at), bytes]))
        .collect();
    assert_eq!(answers["Bytes written per minute"], json!(wanted));

    let regions = sums(data().map(|w| ((w.disk, w.start / MIB_BLOCKS), w.blocks * BLOCK_BYTES)));
    let writes = sums(data().map(|w| ((w.disk, w.start / MIB_BLOCKS), 1)));
    let mut hottest: Vec<_> = regions.into_iter().collect();
    hottest.sort_by_key(|(region, bytes)| (std::cmp::Reverse(*bytes), *region));
    let region = |((disk, mib), bytes): &((usize, u64), u64)| {
        json!([name(*disk).0, name(*disk).1, mib, writes[&(*disk, *mib)], bytes])
    };
    assert_eq!(answers["Hottest regions"], hottest[..10].iter().map(region).collect::<Json>());

    let rates = (0..3).map(|disk| {
        let written: u64 = data().filter(|w| w.disk == disk).map(|w| w.blocks * BLOCK_BYTES).sum();
        let distinct = blocks_of(data().filter(|w| w.disk == disk)).len() as u64 * BLOCK_BYTES;
        json!([name(disk).0, name(disk).1, written, distinct, written as f64 / distinct as f64])
    });
    assert_eq!(answers["How much is overwritten"], rates.collect::<Json>());

    let totals = (0..3).map(|disk| {
        let bytes: u64 = data().filter(|w| w.disk == disk).map(|w| w.blocks * BLOCK_BYTES).sum();
        (format!("{}/{}", name(disk).0, name(disk).1), json!(bytes))
    });
    assert_eq!(answers["Data bytes of each disk, with Arrow"], totals.collect::<Json>());

    // What the reader says.
    let options = ReaderOptions::default();
    let domain = Domain::open(bucket.read_only(), options, env(&clock)).await.unwrap();
    let tidemark = Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"));
    let url = dir.path().join("bucket").display().to_string();
    let mut changed = Vec::new();
    for disk in 0..3 {
        let which = format!("{}/{}", name(disk).0, name(disk).1);
        let (from, to) = ("2026-03-01T10:02:30Z", "2026-03-01T10:05:30Z");
        let diff = tidemark.json(["diff", &url, "--disk", &which, "--from", from, "--to", to]);
        let own = blocks_of(all.iter().filter(|w| w.disk == disk && (3..=5).contains(&w.minute))).len() as u64;
        assert_eq!(diff["changed_bytes"], own * BLOCK_BYTES);
        changed.push(json!([name(disk).0, name(disk).1, own]));
    }
    assert_eq!(answers["Blocks changed between two times"], json!(changed));

    let placed = answers["When and where"].as_array().unwrap();
    assert_eq!(placed.len(), 20);
    for row in placed {
        let [lsn, disk, block, blocks, kind, time, object, place] = &row.as_array().unwrap()[..] else {
            panic!("{row}")
        };
        let lsn = Lsn::new(lsn.as_u64().unwrap());
        assert_eq!(time, &json!(minute(0)), "the first segment");
        let shown = tidemark.json(["inspect", &url, object.as_str().unwrap(), "--rows"]);
        assert!(
            shown["first_lsn"].as_u64() <= Some(lsn.get()) && Some(lsn.get()) <= shown["last_lsn"].as_u64(),
            "{row}"
        );
        // In front of a row's data are those of all data rows before it.
        let rows = shown["index"].as_array().unwrap();
        let is_it = |r: &&Json| {
            r["lsn"] == lsn.get() && r["disk"] == *disk && r["offset_bytes"] == block.as_u64().unwrap() * BLOCK_BYTES
        };
        let at = rows.iter().position(|r| is_it(&r)).unwrap();
        let code = json!({ "data": 0, "zero": 1, "unmap": 2 })[rows[at]["kind"].as_str().unwrap()].clone();
        assert_eq!((&rows[at]["len_bytes"], &code), (&json!(blocks.as_u64().unwrap() * BLOCK_BYTES), kind));
        let before = rows[..at].iter().filter(|r| r["kind"] == "data").map(|r| r["len_bytes"].as_u64().unwrap());
        let in_front = before.sum::<u64>() / BLOCK_BYTES;
        assert_eq!(place, &json!(if *kind == 0 { in_front } else { 0 }), "{row}");
    }

    let in_range = answers["Writes to a range of a disk, with Arrow"].as_array().unwrap();
    let wanted: Vec<(u64, u64)> =
        all.iter().filter(|w| w.disk == 0 && w.start < 32768).map(|w| (w.start, w.blocks)).collect();
    let number = |row: &Json, column: &str| row[column].as_u64().unwrap();
    let found: Vec<(u64, u64)> = in_range.iter().map(|row| (number(row, "block"), number(row, "blocks"))).collect();
    assert_eq!(found, wanted);
    assert_eq!(domain.timeline().indexed_through(), domain.timeline().latest().lsn);
}

/// Level R0: claims, log and base segments are all that is needed, and all that is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_reader_restores_a_bucket_that_has_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = directory(dir.path());
    let (last, disks) = play(bucket.clone(), 11, 90).await;
    let url = dir.path().display().to_string();
    let mut picks = String::new();
    for (disk, lsns) in &disks {
        for lsn in [lsns.start + 4, (lsns.start + lsns.end) / 2, (lsns.end - 1).min(last)] {
            picks += &format!("{disk} lsn:{lsn}\n");
        }
    }
    let without = python(&["check_images.py", &url], &picks, &[]);
    let report = index(&bucket, &Arc::new(ManualClock::new(START)), 10).await;
    assert!(report.runs > 0 && report.merges > 0, "{report:?}");
    let with = python(&["check_images.py", &url], &picks, &[]);
    assert_eq!((with.code, &with.json), (Some(0), &without.json), "{}", with.text);
    let images =
        with.json[1..].iter().filter(|said| said["restorable"] == true && said["unknown"] == json!([])).count();
    assert!(images > 5, "{}", with.text);
    let verified = python(&["verify.py", &url], "", &[]);
    assert_eq!(verified.code, Some(0), "{}", verified.text);
}
