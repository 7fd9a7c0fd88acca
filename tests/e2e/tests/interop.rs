//! In and out of other tools: logs of writes byte for byte, images of every kind as sparse as the disk, diffs for Ceph.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use serde_json::Value;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_cli::logwrites::{Entry, Flags, LogReader};
use tidemark_e2e::Tidemark;
use tidemark_e2e::guest::mix;
use tidemark_e2e::sample::{BASE, LOG, apply, path};
use tidemark_e2e::system::run;
use tidemark_env::Env;
use tidemark_format::{DiskId, Level};
use tidemark_writer::{Content, DomainWriter, NewDisk, Request, When, WriterOptions};

fn tidemark() -> Tidemark {
    Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Makes a domain in a directory, perhaps with what a disk held before; its URL.
fn domain(dir: &Path, base: Option<&Path>) -> String {
    let url = text(&dir.join("bucket"));
    tidemark().ok(["domain", "create", &url, "--name", "interop"]);
    if let Some(base) = base {
        tidemark().ok(["ingest", &url, "--disk", "vm/root", "--format", "raw", &text(base)]);
    }
    url
}

fn ingest(url: &str, log: &Path) -> Value {
    tidemark().json(["ingest", url, "--disk", "vm/root", "--format", "blklogwrites", &text(log)])
}

/// What was written to `vm/root` after one point and up to another, as a log.
fn export_log(url: &str, format: &str, from: &str, to: &str, out: &Path) -> Value {
    let args = ["export", url, "--disk", "vm/root", "--format", format, "--from", from, "--to", to, &text(out)];
    tidemark().json(args)
}

fn export_image(url: &str, format: &str, at: &str, out: &Path) {
    tidemark().ok(["export", url, "--disk", "vm/root", "--format", format, "--at", at, &text(out)]);
}

fn entries(log: &[u8]) -> Vec<Entry> {
    LogReader::open(log).and_then(Iterator::collect).unwrap()
}

/// Ingests a log, exports what it became, and compares every byte up to the end of the last entry.
fn comes_back(dir: &Path, base: Option<&Path>, log: &Path, recorded: &[u8]) -> (String, Value) {
    let url = domain(dir, base);
    let report = ingest(&url, log);
    let (first, last) = (report["first_lsn"].as_u64().unwrap(), report["last_lsn"].as_u64().unwrap());
    for format in ["blklogwrites", "dm-log-writes"] {
        let out = dir.join(format);
        let exported = export_log(&url, format, &format!("lsn:{}", first - 1), &format!("lsn:{last}"), &out);
        assert_eq!(exported["entries"], report["entries"]);
        assert_eq!(exported["data_bytes"], report["data_bytes"]);
        assert_eq!(exported["not_carried"], serde_json::json!({}));
        let again = std::fs::read(&out).unwrap();
        let (same, padding) = recorded.split_at(again.len());
        assert!(again == same, "{format}: {:?} are not {:?}", entries(&again), entries(recorded));
        assert!(padding.iter().all(|byte| *byte == 0), "{format}: the recorder wrote more than padding behind the end");
    }
    (url, report)
}

#[test]
fn recorded_logs_come_back_byte_for_byte() {
    for (base, name) in [(Some(path(BASE)), LOG), (None, "sample.qemuio-discard-zero.log.zst")] {
        let dir = tempfile::tempdir().unwrap();
        let mut recorded = Vec::new();
        let file = std::fs::File::open(path(name)).unwrap();
        zstd::stream::read::Decoder::new(file).unwrap().read_to_end(&mut recorded).unwrap();
        comes_back(dir.path(), base.as_deref(), &path(name), &recorded);
    }
}

#[test]
fn a_log_recorded_live_comes_back_byte_for_byte_and_leads_to_the_same_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, base, log) = (dir.path().join("disk"), dir.path().join("base"), dir.path().join("log"));
    std::fs::write(&disk, vec![0x5a; 4 << 20]).unwrap();
    std::fs::copy(&disk, &base).unwrap();
    std::fs::write(&log, []).unwrap();
    let node = format!(
        "driver=blklogwrites,discard=unmap,file.driver=file,file.discard=unmap,file.filename={},log.driver=file,\
         log.filename={}",
        disk.display(),
        log.display()
    );
    let guest = [
        "write -P 0x11 0 64k",
        "write -z 128k 64k",
        "flush",
        "discard 1M 512k",
        "write -z -u 2M 1M",
        "write -f -P 0x22 4k 512",
        "write -P 0x33 1M 4k",
        "aio_write -P 0x44 3M 128k",
        "aio_flush",
        "write -P 0 60k 8k",
        "flush",
    ];
    let mut args = vec!["--image-opts".to_owned(), node];
    args.extend(guest.iter().flat_map(|command| ["-c".to_owned(), (*command).to_owned()]));
    run("qemu-io", args);
    let recorded = std::fs::read(&log).unwrap();
    assert!(recorded.starts_with(b"rhswfsj\0"), "qemu-io recorded a log");
    let all = entries(&recorded);
    let (discards, flushes) = (Flags::DISCARD, Flags::FLUSH);
    assert!(all.iter().any(|e| e.flags.has(discards)) && all.iter().any(|e| e.flags.has(flushes)), "{all:?}");
    assert!(all.iter().any(|e| e.len_bytes > 0 && e.data.iter().all(|b| *b == 0) && !e.data.is_empty()), "{all:?}");

    let (url, report) = comes_back(dir.path(), Some(&base), &log, &recorded);
    let out = dir.path().join("out.raw");
    export_image(&url, "raw", &format!("lsn:{}", report["last_lsn"]), &out);
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&disk).unwrap(), "the disk is not as qemu-io left it");
}

const DISK: DiskId = DiskId::new(1);
const MIB: u64 = 1 << 20;

/// A domain with everything that a writer may do to a disk, and the LSNs of three points.
async fn everything(url: &str) -> [u64; 3] {
    let bucket = Bucket::open(&BucketUrl::file(url), &BucketOptions::default()).unwrap();
    let writer = DomainWriter::open(bucket.appender(), WriterOptions::default(), Env::system()).await.unwrap();
    let disk = NewDisk { vm: "vm".into(), name: "root".into(), size_bytes: 64 * MIB };
    assert_eq!(writer.disk_add(&disk, Content::Blank).await.unwrap(), DISK);
    let other = NewDisk { name: "other".into(), ..disk };
    let other = writer.disk_add(&other, Content::Blank).await.unwrap();
    let write = |offset, data: Bytes| Request::Write { disk: DISK, offset, data };
    let noise = |seed, len: u64| Bytes::from_iter((0..len / 8).flat_map(|i| mix(seed ^ mix(i)).to_le_bytes()));
    // A write with zeros in its middle is one entry, as it was one write.
    let holed = Bytes::from([&noise(1, 8192)[..], &[0; 16384], &noise(2, 512)].concat());
    let mut lsns = Vec::new();
    for requests in [
        vec![write(0, noise(3, MIB)), write(8 * MIB, holed.clone()), Request::Flush { disk: DISK }],
        vec![
            Request::Zero { disk: DISK, offset: 0, len: 40 * MIB },
            Request::Write { disk: other, offset: 0, data: noise(9, 512) },
            Request::Flush { disk: other },
            Request::Bookmark { name: format!("a {}", "long name ".repeat(60)), level: Level::Crash },
            write(MIB, noise(4, 32 * MIB)),
            Request::Unmap { disk: DISK, offset: 2 * MIB, len: 50 * MIB },
            write(63 * MIB, noise(5, MIB)),
        ],
    ] {
        for request in requests {
            let _durable_when_closed = writer.submit(request, When::Now).await.unwrap();
        }
        lsns.push(writer.last_lsn().get());
    }
    writer.disk_resize(DISK, 48 * MIB).await.unwrap();
    writer.disk_resize(DISK, 80 * MIB).await.unwrap();
    let _durable_when_closed = writer.submit(write(70 * MIB, noise(6, 4096)), When::Now).await.unwrap();
    lsns.push(writer.last_lsn().get());
    writer.close().await.unwrap();
    lsns.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_holds_all_that_happened_to_the_disk_and_says_what_it_cannot_hold() {
    let dir = tempfile::tempdir().unwrap();
    let url = domain(dir.path(), None);
    let [first, second, third] = everything(&url).await;
    let (log, from, to) = (dir.path().join("log"), format!("lsn:{first}"), format!("lsn:{second}"));
    let report = export_log(&url, "dm-log-writes", &from, &to, &log);
    // Of the other disk there is nothing; 40 MiB of zeros are more than one entry holds.
    let wanted = [(4, "writes"), (1, "discards"), (0, "flushes"), (1, "marks"), (6, "entries")];
    wanted.iter().for_each(|(count, what)| assert_eq!(report[what], *count, "{what} of {report}"));
    assert_eq!(report["not_carried"], serde_json::json!({}));
    let all = entries(&std::fs::read(&log).unwrap());
    let shape: Vec<_> = all.iter().map(|e| (e.offset_bytes / MIB, e.len_bytes / MIB, e.flags.bits())).collect();
    assert_eq!(shape, [(0, 32, 0), (32, 8, 0), (0, 0, 8), (1, 32, 0), (2, 50, 4), (63, 1, 0)]);
    assert!(all[2].mark.as_ref().is_some_and(|name| name.len() == 480 && name.starts_with("a long name")));
    let meta = log.metadata().unwrap();
    assert!(meta.len() > 72 * MIB && meta.blocks() * 512 < 34 * MIB, "zeros take no room in {meta:?}");

    // The disk at the first point, and the log: the disk at the second.
    let (before, after) = (dir.path().join("before"), dir.path().join("after"));
    export_image(&url, "raw", &from, &before);
    export_image(&url, "raw", &to, &after);
    let mut replayed = std::fs::read(&before).unwrap();
    all.iter().for_each(|entry| apply(&mut replayed, entry));
    assert!(replayed == std::fs::read(&after).unwrap(), "the log does not lead from {from} to {to}");

    let ran = tidemark().ok(["export", &url, "--disk", "vm/root", "--format", "blklogwrites", "--force", &text(&log)]);
    assert!(ran.stderr.contains("cannot carry what else happened: 2 DISK_RESIZE"), "{ran:?}");
    let all = entries(&std::fs::read(&log).unwrap());
    assert_eq!(all.iter().filter(|entry| entry.flags.has(Flags::FLUSH)).count(), 1);
    assert_eq!((all[0].offset_bytes, all[0].len_bytes), (0, 32 * MIB), "it begins with the zeros of a new disk");
    let last = all.last().unwrap();
    assert_eq!((last.offset_bytes, last.len_bytes, third), (70 * MIB, 4096, second + 4));

    let large = ["export", &url, "--disk", "vm/root", "--format", "dm-log-writes", "--sector-size", "4096"];
    let out = text(&dir.path().join("4k"));
    let ran = tidemark().run([&large[..], &["--from", "lsn:3", &out]].concat());
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("not whole sectors of 4096 bytes"), "{ran:?}");
    tidemark().ok([&large[..], &["--from", &from, &out]].concat());
    let all = entries(&std::fs::read(out).unwrap());
    assert!(all[2].mark.as_ref().is_some_and(|name| name.len() > 480), "a larger sector holds a longer name");
}

#[test]
fn options_that_make_no_sense_together_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    let (url, out) = (domain(dir.path(), None), text(&dir.path().join("out")));
    for (args, says) in [
        (vec!["export", "--format", "dm-log-writes", "--at", "latest", &out], "a log has no --at"),
        (vec!["export", "--format", "vmdk", "--from", "lsn:1", &out], "are for logs"),
        (vec!["export", "--format", "vmdk", &out], "an image needs a point"),
        (vec!["export", "--at", "latest", "--to", "latest", &out], "cannot be used with"),
        (vec!["export", "--format", "dm-log-writes", "--sector-size", "513", &out], "513 is not a power of two"),
        (vec!["diff"], "a list needs two points"),
        (vec!["diff", "--from", "latest", "--out", &out], "--out is for"),
        (vec!["diff", "--json", "--format", "rbd-export-diff"], "both the diff and JSON"),
    ] {
        let (command, args) = args.split_first().unwrap();
        let ran = tidemark().run([&[*command, url.as_str(), "--disk", "vm/root"], args].concat());
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{args:?}: {ran:?}");
    }
}

#[test]
fn images_of_every_kind_have_the_same_contents_and_keep_their_holes() {
    const SIZE: u64 = 256 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base.raw");
    let file = std::fs::File::create(&base).unwrap();
    file.set_len(SIZE).unwrap();
    let noise = |seed, len: u64| Vec::from_iter((0..len / 8).flat_map(|i| mix(seed ^ mix(i)).to_le_bytes()));
    let places: Vec<u64> = (0..24).map(|i| mix(i) % (SIZE / 4096) * 4096).collect();
    places.iter().for_each(|at| file.write_all_at(&noise(*at, 4096), *at).unwrap());
    file.write_all_at(&noise(1, 3 * MIB), 100 * MIB).unwrap();
    let url = domain(dir.path(), Some(&base));

    // What each kind allocates at least for one byte, and what it may need besides.
    for (format, unit, besides) in
        [("raw", 4096, MIB), ("qcow2", 64 << 10, MIB), ("vmdk", 64 << 10, MIB), ("vhdx", MIB, 8 * MIB)]
    {
        let out = dir.path().join(format!("out.{format}"));
        export_image(&url, format, "latest", &out);
        run("qemu-img", ["compare", "-f", "raw", "-F", format, &text(&base), &text(&out)]);
        let info = run("qemu-img", ["info", "--output=json", "-f", format, &text(&out)]);
        let info: Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["virtual-size"], SIZE, "{format}");
        let allocated = out.metadata().unwrap().blocks() * 512;
        let allowed = (places.len() as u64 + 1) * unit.max(4096) + 3 * MIB + besides;
        assert!(allocated <= allowed, "{format} takes {allocated} bytes, at most {allowed} may be");
    }
}

/// Applies what `rbd import-diff` takes to an image, checking every record; the names of the snapshots and the new image.
fn import_diff(diff: &[u8], mut image: Vec<u8>) -> (Option<String>, String, Vec<u8>) {
    let mut rest = diff.strip_prefix(b"rbd diff v1\n").expect("it begins with its version");
    let mut take = |len: usize| {
        let (head, tail) = rest.split_at(len);
        rest = tail;
        head
    };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |all, byte| all << 8 | u64::from(*byte)) as usize;
    let (mut from, mut to, mut size, mut done) = (None, None, None, 0);
    loop {
        match take(1)[0] {
            b'f' if to.is_none() => {
                let len = number(take(4));
                from = Some(String::from_utf8(take(len).to_vec()).unwrap());
            }
            b't' if size.is_none() => {
                let len = number(take(4));
                to = Some(String::from_utf8(take(len).to_vec()).unwrap());
            }
            b's' => {
                size = Some(number(take(8)));
                image.resize(size.unwrap(), 0);
            }
            tag @ (b'w' | b'z') => {
                let (offset, len) = (number(take(8)), number(take(8)));
                assert!(offset >= done && len > 0, "records ascend");
                done = offset + len;
                let target = &mut image[offset..done];
                if tag == b'w' { target.copy_from_slice(take(len)) } else { target.fill(0) }
            }
            b'e' => break,
            other => panic!("tag {other}"),
        }
    }
    assert!(rest.is_empty(), "nothing follows the end");
    assert_eq!(size, Some(image.len()));
    (from, to.unwrap(), image)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_for_ceph_leads_from_one_point_to_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let url = domain(dir.path(), None);
    let points = everything(&url).await;
    let image = |lsn: u64| {
        let out = dir.path().join(lsn.to_string());
        if !out.exists() {
            export_image(&url, "raw", &format!("lsn:{lsn}"), &out);
        }
        std::fs::read(out).unwrap()
    };
    let diff = |from: Option<u64>, to: u64| {
        let out = dir.path().join("diff");
        let (from, to) = (from.map(|lsn| format!("lsn:{lsn}")), format!("lsn:{to}"));
        let mut args = vec!["diff", &url, "--disk", "vm/root", "--format", "rbd-export-diff", "--to", &to];
        from.iter().for_each(|from| args.extend(["--from", from]));
        // To stdout and to a file it is the same.
        let piped = tidemark().command(&args).output().unwrap();
        assert!(piped.status.success(), "{piped:?}");
        let out_text = text(&out);
        args.extend(["--out", &out_text]);
        let report = tidemark().json(&args);
        let written = std::fs::read(&out).unwrap();
        assert!(piped.stdout == written);
        (report, written)
    };
    let [first, second, third] = points;
    for (from, to) in [(first, second), (second, third), (first, third), (third, third)] {
        let (report, written) = diff(Some(from), to);
        let (from_name, to_name, result) = import_diff(&written, image(from));
        assert_eq!((from_name, to_name), (Some(format!("lsn-{from}")), format!("lsn-{to}")));
        assert!(result == image(to), "the diff does not lead from lsn {from} to lsn {to}");
        assert!((written.len() as u64) < report["data_bytes"].as_u64().unwrap() + 100_000, "{report}");
    }
    let (report, written) = diff(None, third);
    assert_eq!(report["from"], Value::Null);
    let (from_name, _, result) = import_diff(&written, Vec::new());
    assert_eq!(from_name, None);
    assert!(result == image(third), "the whole disk as a diff is not the disk");
}
