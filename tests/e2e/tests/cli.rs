//! The command line's promises: exit codes, hints, `--json`, help from one definition.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use tidemark_conformance::LyingS3;
use tidemark_e2e::promises::{members, promised};
use tidemark_e2e::sample::{BASE, LOG, path};
use tidemark_e2e::{Ran, Tidemark};

fn tidemark() -> Tidemark {
    Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"))
}

fn sample_domain(dir: &Path) -> String {
    let url = dir.join("bucket").display().to_string();
    let (base, log) = (path(BASE).display().to_string(), path(LOG).display().to_string());
    tidemark().ok(["domain", "create", &url, "--name", "payroll"]);
    tidemark().ok(["ingest", &url, "--disk", "web1/root", "--format", "raw", &base]);
    let start = "2300-01-01T09:00:00Z";
    let log = ["ingest", &url, "--disk", "web1/root", "--format", "blklogwrites", "--time-start", start, &log];
    tidemark().ok(log);
    url
}

/// Must fail with this code, say this, and give a hint that has these words.
fn fails(args: &[&str], code: i32, says: &str, hints: &str) -> Ran {
    let ran = tidemark().run(args);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{args:?}: {ran:?}");
    let mut lines = ran.stderr.lines();
    let (error, hint) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    assert!(error.starts_with("error: ") && error.contains(says), "{args:?}: {ran:?}");
    assert!(hint.starts_with("hint: ") && hint.contains(hints), "{args:?}: {ran:?}");
    assert!(!error.ends_with('.'), "no full stop after what may be copied: {error}");
    let mut json = vec!["--json"];
    json.extend(args);
    let ran_json = tidemark().run(&json);
    assert_eq!(ran_json.code, Some(code));
    let report: Value = serde_json::from_str(&ran_json.stderr).unwrap_or_else(|e| panic!("{e}: {ran_json:?}"));
    assert_eq!(report["exit_code"], code);
    assert_eq!(format!("error: {}", report["error"].as_str().unwrap()), error);
    assert_eq!(format!("hint: {}", report["hint"].as_str().unwrap()), hint);
    ran
}

#[test]
fn exit_codes_tell_kinds_of_failure_apart_and_each_has_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let url = sample_domain(dir.path());
    let missing = dir.path().join("nowhere").display().to_string();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.display().to_string();
    let out = dir.path().join("x.img").display().to_string();

    for command in ["points", "verify"] {
        fails(&[command, &missing], 10, "no such bucket or directory", "check the URL");
    }
    fails(&["points", &empty], 10, "tidemark.json", "tidemark domain create");
    fails(&["domain", "show", &empty], 10, "tidemark.json", "tidemark domain create");
    let log = path(LOG).display().to_string();
    let ingest = ["ingest", &empty, "--disk", "a/b", "--format", "blklogwrites", &log];
    fails(&ingest, 10, "no domain", "tidemark domain create");

    let export = |disk, at| ["export", url.as_str(), "--disk", disk, "--at", at, &out];
    fails(&export("web1/root", "lsn:100000"), 1, "the newest is lsn 464", "tidemark points");
    fails(&export("web1/root", "1999-01-01T00:00:00Z"), 1, "history starts at", "tidemark points");
    fails(&export("web1/root", "bookmark:none"), 1, "no bookmark named \"none\"", "tidemark points");
    fails(&export("web2/root", "latest"), 1, "no disk web2/root", "web1/root");
    std::fs::write(&out, "precious").unwrap();
    fails(&export("web1/root", "latest"), 1, "is there already", "--force");
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");

    let base = path(BASE).display().to_string();
    let raw_log = ["ingest", &url, "--disk", "web1/new", "--format", "blklogwrites", &base];
    fails(&raw_log, 1, "not a write log", "--format raw");
    fails(
        &["ingest", &url, "--disk", "web1/root", "--format", "raw", &base],
        1,
        "in the domain already",
        "another VM/DISK",
    );
    let small = ["ingest", &url, "--disk", "web1/new", "--format", "raw", "--size", "1M", &base];
    fails(&small, 1, "more than --size 1M", "leave --size out");
    fails(&["diff", &url, "--disk", "web1/root", "--from", "latest", "--to", "lsn:7"], 1, "is after --to", "swap");
}

#[test]
fn usage_errors_exit_2_and_secrets_in_urls_are_refused() {
    for args in [
        &["frobnicate"][..],
        &["export", "b"],
        &["points", "s3://key:hunter2@bucket/prefix"],
        &["points", "s3://bucket/prefix?secret_key=hunter2"],
        &["points", "ftp://bucket"],
        &["export", "b", "--disk", "vm", "--at", "latest", "out"],
        &["export", "b", "--disk", "vm/d", "--at", "yesterday", "out"],
        &["ingest", "b", "--disk", "vm/d", "--format", "raw", "--size", "513", "f"],
        &["inspect", "b", "log/1/2"],
        &["verify", "b", "--sample", "0%"],
        &["verify", "b", "--sample", "101%"],
        &["verify", "b", "--sample", "5"],
        &["verify", "b", "--seed", "5"],
    ] {
        let ran = tidemark().run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?}: {ran:?}");
        assert!(!ran.stderr.contains("hunter2"), "a secret was repeated: {ran:?}");
    }
}

#[test]
fn json_answers_have_the_members_that_were_promised() {
    let dir = tempfile::tempdir().unwrap();
    let url = sample_domain(dir.path());
    let json = |args: &[&str]| tidemark().json(args);

    let points = json(&["points", &url, "--sample", "3"]);
    assert_eq!(members(&points), promised("points"));
    assert_eq!(points["latest"]["lsn"], 464);
    assert_eq!(points["bookmarks"][0]["time"], "2300-01-01T08:59:59.999Z", "before the first entry");
    assert_eq!(points["disks"][0]["disk"], "web1/root");
    assert_eq!(points["disks"][0]["size_bytes"], 64 << 20);

    let verified = json(&["verify", &url]);
    assert_eq!(members(&verified), promised("verify"));
    assert_eq!((&verified["intact"], &verified["last_lsn"]), (&Value::Bool(true), &464.into()));
    assert_eq!(verified["damage"], Value::Array(vec![]));

    let sample = ["verify", &url, "--sample", "50%", "--seed", "7"];
    let sampled = json(&sample);
    assert_eq!(members(&sampled), promised("verify"));
    let wanted =
        serde_json::json!({ "share": 0.5, "seed": 7, "frames_total": verified["frames"], "finds_damaged_frames": 7 });
    assert_eq!(sampled["sample"], wanted);
    assert!(sampled["frames"].as_u64() < verified["frames"].as_u64() && sampled["intact"] == true, "{sampled}");
    assert_eq!(json(&sample), sampled, "the same seed looks at the same frames");

    let explained = json(&["explain", &url, "--disk", "web1/root", "--offset", "1024"]);
    assert_eq!(members(&explained), promised("explain"));
    let lsns: Vec<_> = explained["versions"].as_array().unwrap().iter().map(|v| v["lsn"].as_u64().unwrap()).collect();
    assert_eq!(lsns, [2, 7, 438, 462], "the superblock's versions: the seed, and three writes");
    assert_eq!(explained["versions"][1]["kind"], "data");
    assert_eq!(explained["versions"][1]["object"], "log/0000000000000002/0000000000000001");

    let policy = ["retention", "set", &url, "--window", "7d", "--daily", "30", "--bookmarks", "90d"];
    assert_eq!(json(&policy)["policy"]["window"], "7d");
    let held = json(&["retention", "hold", &url, "--at", "lsn:7"]);
    assert_eq!(members(&held), promised("retention"));
    assert_eq!((&held["holds"][0]["lsn"], &held["holds"][0]["until"]), (&7.into(), &Value::Null));
    assert_eq!(json(&["retention", "release", &url, "--at", "lsn:7"])["holds"], Value::Array(vec![]));
    assert_eq!(members(&json(&["gc", "run", "--dry-run", &url])), promised("gc run --dry-run"));
    assert_eq!(json(&["retention", "set", &url, "--window", "all"])["policy"], Value::Null);

    let diff = json(&["diff", &url, "--disk", "web1/root", "--from", "lsn:461", "--to", "lsn:463"]);
    assert_eq!(members(&diff), promised("diff"));
    assert_eq!(diff["changed_bytes"], 1024);
    assert_eq!(diff["ranges"][0]["offset_bytes"], 1024);
    assert_eq!(diff["ranges"][0]["lsn"], 462);

    let listing = json(&["inspect", &url]);
    for object in listing["objects"].as_array().unwrap() {
        let key = object["key"].as_str().unwrap();
        let shown = json(&["inspect", &url, key]);
        assert_eq!(shown["key"], key);
        if key.starts_with("log/") {
            assert_eq!(shown["total_bytes"], object["bytes"]);
        }
    }
    let segment = json(&["inspect", &url, "log/0000000000000002/0000000000000001", "--rows"]);
    assert_eq!(segment["index"].as_array().unwrap().len() as u64, segment["rows"].as_u64().unwrap());

    let shown = json(&["domain", "show", &url]);
    assert_eq!(members(&shown), promised("domain show"));
    assert_eq!((&shown["name"], &shown["last_lsn"]), (&"payroll".into(), &464.into()));
    let read = json(&["bench", "read", &url, "--disk", "web1/root", "--count", "20"]);
    assert_eq!(read["operations"], 20);
    assert_eq!(members(&read), promised("bench"));
    let wrote = json(&["bench", "write", &url, "--total", "1M"]);
    assert_eq!(wrote["bytes"], 1 << 20);
    let out = dir.path().join("out.img").display().to_string();
    let exported = json(&["export", &url, "--disk", "web1/root", "--at", "lsn:7", &out]);
    assert_eq!(members(&exported), promised("export"));
    let disk = ["--disk", "web1/root", "--from", "lsn:461"];
    let log = ["export", &url, "--format", "dm-log-writes", "--force", &out];
    assert_eq!(members(&json(&[&log[..], &disk].concat())), promised("export --format dm-log-writes"));
    let diff = ["diff", &url, "--format", "rbd-export-diff", "--out", &out];
    assert_eq!(members(&json(&[&diff[..], &disk].concat())), promised("diff --format rbd-export-diff"));
    let other = dir.path().join("other").display().to_string();
    assert_eq!(members(&json(&["domain", "create", &other, "--name", "other"])), promised("domain create"));
    let log = path("sample.qemuio-discard-zero.log.zst").display().to_string();
    let ingested = json(&["ingest", &other, "--disk", "a/b", "--format", "dm-log-writes", &log]);
    assert_eq!(members(&ingested), promised("ingest"));
}

#[test]
fn points_are_named_by_time_and_by_how_long_ago() {
    let dir = tempfile::tempdir().unwrap();
    let url = sample_domain(dir.path());
    let diff = |from: &str, to: &str| {
        let report = tidemark().json(["diff", &url, "--disk", "web1/root", "--from", from, "--to", to]);
        (report["from"]["lsn"].as_u64().unwrap(), report["to"]["lsn"].as_u64().unwrap())
    };
    assert_eq!(diff("lsn:6", "latest"), (6, 464));
    let points = tidemark().json(["points", &url]);
    let name = format!("bookmark:{}", points["bookmarks"][0]["name"].as_str().unwrap());
    assert_eq!(diff(&name, "2300-01-01T09:00:00.100Z").0, 6);
    let ago = tidemark().run(["diff", &url, "--disk", "web1/root", "--from", "-10m"]);
    assert!(matches!(ago.code, Some(0 | 1)), "-10m is a point, not a flag: {ago:?}");
}

#[test]
fn a_log_from_stdin_is_ingested_and_needs_a_size() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("bucket").display().to_string();
    tidemark().ok(["domain", "create", &url, "--name", "piped"]);
    let ingest = |more: &[&str]| {
        let mut args = vec!["--json", "ingest", &url, "--disk", "vm/d", "--format", "blklogwrites", "-"];
        args.extend(more);
        let file = std::fs::File::open(path("sample.qemuio-discard-zero.log.zst")).unwrap();
        tidemark().command(&args).stdin(file).output().unwrap()
    };
    let refused = ingest(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--size"));
    let done = ingest(&["--size", "1M"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&report["entries"], &report["complete"]), (&7.into(), &true.into()));
    let again = ingest(&["--size", "1M"]);
    assert_eq!(again.status.code(), Some(1), "a stream is not ingested twice either");
}

#[test]
fn a_log_that_breaks_off_on_stdin_exits_3_and_leaves_what_came_before() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("bucket").display().to_string();
    tidemark().ok(["domain", "create", &url, "--name", "piped"]);
    let mut log = Vec::new();
    zstd::stream::copy_decode(std::fs::File::open(path(LOG)).unwrap(), &mut log).unwrap();
    let cut = dir.path().join("cut.log");
    std::fs::write(&cut, &log[..log.len() / 2]).unwrap();
    let ingest = ["ingest", &url, "--disk", "vm/d", "--format", "blklogwrites", "--size", "64M", "-"];
    let broken = tidemark().command(ingest).stdin(std::fs::File::open(&cut).unwrap()).output().unwrap();
    assert_eq!(broken.status.code(), Some(3), "{broken:?}");
    std::fs::write(&cut, &log).unwrap();
    let mut mended = tidemark().command(["--json"].iter().chain(&ingest));
    let mended = mended.stdin(std::fs::File::open(&cut).unwrap()).output().unwrap();
    let report: Value = serde_json::from_slice(&mended.stdout).unwrap_or_else(|e| panic!("{e}: {mended:?}"));
    let before = report["entries_before"].as_u64().unwrap();
    assert!(before > 100 && before < 457, "{report}");
    assert_eq!((&report["entries"], &report["complete"]), (&457.into(), &true.into()));
    let lsns = report["last_lsn"].as_u64().unwrap() - report["first_lsn"].as_u64().unwrap() + 1;
    assert_eq!(lsns, 457, "each entry once");
}

#[test]
fn an_ingestion_stopped_by_sigint_exits_130_keeps_what_it_read_and_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("bucket").display().to_string();
    tidemark().ok(["domain", "create", &url, "--name", "stopped"]);
    let mut log = Vec::new();
    zstd::stream::copy_decode(std::fs::File::open(path(LOG)).unwrap(), &mut log).unwrap();
    let whole = dir.path().join("whole.log");
    std::fs::write(&whole, &log).unwrap();
    let ingest =
        ["ingest", &url, "--disk", "a/b", "--format", "blklogwrites", "--size", "64M", "--segment-age-ms", "20", "-"];
    let mut child = tidemark().command(ingest).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // A pipe that stays open: there may be more to come.
    let mut pipe = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut pipe, &log[..log.len() / 2]).unwrap();
    tidemark_e2e::system::until("first segment", || {
        dir.path().join("bucket/log/0000000000000001").read_dir().is_ok_and(|entries| entries.count() >= 2)
    });
    tidemark_e2e::system::signal(child.id(), "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(pipe);

    let stopped_at = tidemark().json(["points", &url])["latest"]["lsn"].as_u64().unwrap();
    assert!(stopped_at > 50, "what was read is there: {stopped_at}");
    let mut rest = tidemark().command(["--json"].iter().chain(&ingest));
    let rest = rest.stdin(std::fs::File::open(&whole).unwrap()).output().unwrap();
    let report: Value = serde_json::from_slice(&rest.stdout).unwrap_or_else(|e| panic!("{e}: {rest:?}"));
    assert_eq!(
        report["last_lsn"].as_u64().unwrap() - report["first_lsn"].as_u64().unwrap() + 1,
        457,
        "each entry once"
    );
    tidemark().ok(["verify", &url]);
}

#[test]
fn man_pages_and_completions_name_every_command() {
    let dir = tempfile::tempdir().unwrap();
    tidemark().ok(["man", dir.path().to_str().unwrap()]);
    let commands =
        ["domain", "ingest", "points", "mount", "export", "verify", "inspect", "explain", "diff", "plan", "bench"];
    for command in commands {
        let page = dir.path().join(format!("tidemark-{command}.1"));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        assert!(text.contains(".SH OPTIONS") || text.contains(".SH SUBCOMMANDS"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = tidemark().ok(["completions", shell]).stdout;
        assert!(commands.iter().all(|command| script.contains(command)), "{shell}");
    }
    let help = tidemark().ok(["--help"]).stdout;
    assert!(commands.iter().all(|command| help.contains(command)) && help.contains("Exit codes"), "{help}");
    assert!(!help.contains("completions"), "what packagers need is hidden from everybody else");
}

#[test]
fn an_answer_is_alone_on_stdout_and_a_closed_pipe_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let url = sample_domain(dir.path());
    let quiet = tidemark().ok(["--quiet", "points", &url]);
    assert_eq!(quiet.stderr, "");
    let mut child = tidemark().command(["inspect", &url]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_fenced_ingestion_exits_11() {
    let dir = tempfile::tempdir().unwrap();
    let url = dir.path().join("bucket").display().to_string();
    tidemark().ok(["domain", "create", &url, "--name", "fenced"]);
    let log = path(LOG).display().to_string();
    let slow = tidemark().env("TIDEMARK_FAULTS", "put:log/:slow-200ms:1");
    let first = ["ingest", &url, "--disk", "a/b", "--format", "blklogwrites", "--segment-size", "16K", &log];
    let mut first = slow.command(first).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    tidemark_e2e::system::until("log segment of the first ingestion", || {
        dir.path().join("bucket/log/0000000000000001").read_dir().is_ok_and(|entries| entries.count() >= 3)
    });
    tidemark().ok(["bench", "write", &url, "--total", "64K"]);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut first.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(11), "{said}");
    assert!(said.contains("hint: another writer has taken over"), "{said}");
}

#[test]
fn a_store_that_lies_is_refused_at_attach_with_the_promise_that_it_broke() {
    let server = LyingS3::start();
    let (url, [id, secret]) = (server.url("domain").to_string(), LyingS3::KEYS);
    let tidemark = tidemark().env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
    let create = ["domain", "create", &url, "--name", "lied-to"];
    let ran = tidemark.run(create);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    let (error, hint) = ran.stderr.trim_end().split_once('\n').unwrap();
    let says = format!("error: cannot attach {url}: create-if-absent of an object that exists succeeds");
    assert_eq!(error, says);
    assert_eq!(hint, "hint: use a store with conditional writes, or attest that there is only ever one writer");
    // Nothing was made: the same command refuses again, and not because there is a domain.
    assert_eq!(tidemark.run(create).stderr, ran.stderr);
    let attested = tidemark.json([&create[..], &["--attest-single-writer"]].concat());
    assert_eq!(attested["mode"], "attested-single");

    // Each writer of such a domain needs the promise again.
    let image = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(image.path(), [7; 4096]).unwrap();
    let file = image.path().display().to_string();
    let ingest = ["ingest", &url, "--disk", "a/b", "--format", "raw", &file];
    let refused = tidemark.run(ingest);
    assert_eq!((refused.code, refused.stderr.lines().nth(1)), (Some(1), Some(hint)), "{refused:?}");
    tidemark.ok([&ingest[..], &["--attest-single-writer"]].concat());
    tidemark.ok(["bench", "write", &url, "--total", "64K", "--attest-single-writer"]);
    assert_eq!(tidemark.json(["verify", &url])["intact"], true);
}

#[test]
fn what_a_command_costs_is_said_before_it_begins_by_a_sheet_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let url = sample_domain(dir.path());
    let mine = dir.path().join("mine.toml");
    let sheet = include_str!("../../../docs/ops/prices/aws-s3-standard.toml").replace("get = 0.0004", "get = 1000");
    std::fs::write(&mine, sheet.replace("\"USD\"", "\"EUR\"")).unwrap();
    let mine = mine.display().to_string();
    let out = dir.path().join("x.img").display().to_string();
    let export = ["export", &url, "--disk", "web1/root", "--at", "latest", "--prices", &mine, &out];
    for (known, args) in [("about", &["verify", &url, "--prices", &mine][..]), ("at most", &export)] {
        let said = tidemark().ok(args).stderr;
        let words: Vec<_> = said.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "requests").unwrap_or_else(|| panic!("{args:?}: {said}"));
        let (gets, euros) =
            (words[at - 1].parse::<f64>().unwrap(), words.iter().position(|word| *word == "EUR").unwrap());
        assert!(said.starts_with(&format!("this takes {known} ")), "{said}");
        assert!((words[euros + 1].parse::<f64>().unwrap() - gets).abs() < 0.1, "one each: {said}");
        let force = if known == "at most" { &["--force"][..] } else { &[] };
        assert_eq!(tidemark().ok([&["--quiet"], args, force].concat()).stderr, "");
    }
    let free = tidemark().ok(["verify", &url]).stderr;
    assert!(free.starts_with("this takes about ") && !free.contains(" by the prices of "), "{free}");
    std::fs::write(&mine, "name = \"mine\"\nabuot = 1\n").unwrap();
    fails(&["verify", &url, "--prices", &mine], 2, &format!("{mine}:2:1: unknown key abuot"), "did you mean about?");
    fails(
        &["verify", &url, "--prices", "aws"],
        2,
        "cannot read aws",
        "price sheets without a file are aws-s3-standard, ",
    );
}
