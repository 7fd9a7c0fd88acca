//! `tidemark drva ...`: exit codes, hints, tables and JSON, against an appliance that only pretends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};
use tidemark_api::{DiskState, DomainState, Severity, ThrottleStage};
use tidemark_control::Served;
use tidemark_e2e::promises::{members, promised};
use tidemark_e2e::{Ran, Tidemark};

/// The command line of an appliance.
struct Cli {
    served: Served,
    tidemark: Tidemark,
}

impl Cli {
    fn new() -> Self {
        let served = Served::new();
        let tidemark = Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"));
        let tidemark = tidemark.env("TIDEMARK_DRVA_SOCKET", served.socket());
        Self { served, tidemark }
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.tidemark.run([&["drva"], args].concat())
    }

    /// Must succeed; what it printed.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}: {ran:?}");
        ran.stdout
    }

    fn json(&self, args: &[&str]) -> Value {
        self.tidemark.json([&["drva"], args].concat())
    }

    /// Must fail with this code, say this, and give a hint that has these words.
    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, says: &str, hints: &str) {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
        let mut lines = ran.stderr.lines();
        let (error, hint) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        assert!(error.starts_with("error: ") && error.contains(says), "{args:?}: {ran:?}");
        assert!(hint.contains(hints) && hint.starts_with("hint: "), "{args:?}: {ran:?}");
        let json = self.tidemark.run([&["--json", "drva"], args].concat());
        let report: Value = serde_json::from_str(&json.stderr).unwrap_or_else(|e| panic!("{e}: {json:?}"));
        assert_eq!(report["exit_code"], code);
    }

    /// Follows the lines of a command that does not end by itself.
    fn follow(&self, args: &[&str]) -> Lines {
        let mut command = self.tidemark.command([&["drva"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Lines { child, stdout }
    }
}

struct Lines {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Lines {
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn status_tells_people_and_scripts_how_everything_is() {
    let cli = Cli::new();
    let domain = "\
accounting: replicating, epoch 7
  bucket     file:///srv/accounting
  rpo        1.2 s of 5.0 s
  lsn        470, in the bucket through 464
  log        2.00 GiB of 8.00 GiB (25 %)
  throttle   none
  guests     12.00 MiB/s, 340 writes/s
  shipped    0 B/s, compressed 2.5 : 1, seeding reads 0 B/s
  requests   USD 0.000060 in 60 minutes, USD 0.044 a month at this pace (aws-s3-standard)
  kept       99.00 MiB stored since, USD 0.0022 a month
  DISK       SIZE        MODE           STATE                          PENDING   FED BY
  db1/data   100.00 MiB  write-through  seeding 43 %, 12 minutes to go  0 B       nothing
  web1/root  100.00 MiB  write-through  protected                      3.00 MiB  inline, 1 connection
";
    let squeeze =
        |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(squeeze(&cli.ok(&["status", "accounting"])), squeeze(domain));
    let all = cli.ok(&["status"]);
    assert!(
        all.starts_with(
            "drva1 0.1.0, up 2 hours\nlog store /var/lib/tidemark/log: 2.00 GiB of 32.00 GiB (6 %)\n\naccounting: "
        ),
        "{all}"
    );
    let json = cli.json(&["status"]);
    assert_eq!(json["domains"][0]["disks"][0]["state"]["is"], "seeding");
    assert_eq!(json["domains"][0]["rpo"]["age_ms"], 1_200);

    cli.served.fake.change("accounting", |domain| {
        domain.state = DomainState::Failed { reason: "the bucket holds another domain".into() };
        domain.rpo.age_ms = 61_000;
        domain.throttle.stage = ThrottleStage::Degraded;
        domain.disks[1].state = DiskState::Gap { since: serde_json::from_str("\"1970-01-01T00:00:00Z\"").unwrap() };
    });
    let bad = cli.ok(&["status", "accounting"]);
    for loud in [
        "accounting: FAILED: the bucket holds another domain, epoch 7",
        "61 seconds of 5.0 s, BEHIND",
        "DEGRADED, 0.0 ms added to a write, guests may write unlimited",
        "GAP since 1970-01-01T00:00:00Z",
    ] {
        assert!(bad.contains(loud), "{loud}: {bad}");
    }
}

#[test]
fn watching_goes_on_until_nobody_reads() {
    let cli = Cli::new();
    let mut lines = cli.follow(&["status", "--watch", "--json"]);
    for _ in 0..2 {
        let status: Value = serde_json::from_str(&lines.next()).unwrap();
        assert_eq!(status["name"], "drva1");
    }
    let Lines { child, stdout } = &mut lines;
    // Closing the pipe: as `| head -2` does.
    let (reader, _) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(std::mem::replace(stdout, BufReader::new(ChildStdout::from(std::os::fd::OwnedFd::from(reader)))));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn events_are_shown_filtered_and_followed_through_a_restart() {
    let mut cli = Cli::new();
    assert_eq!(cli.ok(&["events"]), "\n");
    cli.served.fake.happens(Severity::Info, "seed-done", "seeding is complete");
    cli.served.fake.happens(Severity::Error, "disk-gap", "writes are not kept");
    let shown = cli.ok(&["events"]);
    assert!(shown.contains("Z info    seed-done accounting/web1/root: seeding is complete\n"), "{shown}");
    assert_eq!(cli.json(&["events", "--severity", "warning"]).as_array().unwrap().len(), 1);
    assert_eq!(cli.json(&["events", "--after", "2"]), Value::Array(vec![]));
    assert_eq!(cli.json(&["events", "--domain", "none"]), Value::Array(vec![]));

    let mut lines = cli.follow(&["events", "--follow", "--after", "1"]);
    assert!(lines.next().ends_with("disk-gap accounting/web1/root: writes are not kept"));
    // It waits for more: stopping the appliance finds it in the middle of that.
    tidemark_e2e::system::until("question", || cli.served.fake.done().len() >= 2);
    cli.served.fake.happens(Severity::Warning, "throttle", "slowing down");
    assert!(lines.next().contains("warning throttle"));
    cli.served.stop();
    cli.served.fake.starts_anew();
    cli.served.fake.happens(Severity::Info, "started", "the appliance is up");
    cli.served.start();
    let line = lines.next();
    assert!(line.contains("info    started"), "numbers begin at 1 again, and nothing is missed: {line:?}");
}

#[test]
fn operations_do_what_they_say() {
    let cli = Cli::new();
    let says = |args: &[&str], text: &str| {
        let said = cli.ok(args);
        assert!(said.contains(text), "{args:?}: {said}");
    };
    says(&["pause", "accounting"], "accounting: paused");
    says(&["resume", "accounting"], "accounting: replicating");
    says(&["drain", "accounting"], "lsn 470 of 470 is in the bucket");
    says(
        &["takeover", "accounting", "--dry-run"],
        "would take accounting over from its present owner, and discard 0 B",
    );
    says(&["takeover", "accounting", "--dry-run", "--discard-local"], "discard 3.00 MiB of acknowledged writes");
    says(&["takeover", "accounting"], "epoch 8");
    let bookmark = ["bookmark", "accounting", "upgrade", "--level", "fs", "--agent", "web1=/run/qga.sock"];
    says(&bookmark, "bookmark upgrade at lsn 471, ");
    says(&bookmark, "(fs consistent, guests frozen for 42 ms)");

    says(
        &["domain", "add", "files", "/srv/files", "--create", "--rpo", "2s", "--upload", "400Mbit/s"],
        "files: opening",
    );
    says(&["limits", "files"], "rpo                     2.0 s\n");
    says(&["limits", "files"], "upload                  47.68 MiB/s\n");
    let windows = ["--bandwidth", "mon-fri 08:00-18:00 10MiB/s", "--bandwidth", "daily 00:00-24:00 unlimited"];
    says(
        &[&["limits", "files"], &windows[..]].concat(),
        "bandwidth               mon,tue,wed,thu,fri 08:00-18:00 10.00 MiB/s\n",
    );
    assert_eq!(cli.json(&["limits", "files", "--overflow", "stall"])["overflow"], "stall");
    assert_eq!(cli.json(&["limits", "files"])["bandwidth"].as_array().unwrap().len(), 2, "what is not named stays");
    assert_eq!(cli.json(&["limits", "files", "--no-bandwidth"])["bandwidth"], Value::Array(vec![]));
    says(&["domain", "remove", "files", "--dry-run"], "would stop protecting files; 0 B are not in the bucket yet");
    says(&["domain", "remove", "files"], "files is no longer protected here");
    cli.fails(&["domain", "remove", "files"], 10, "no domain \"files\"", "tidemark drva status");

    let added =
        cli.ok(&["disk", "add", "accounting/web2/root", "--primary", "/dev/x", "--mode", "write-back", "--size", "1G"]);
    assert!(added.contains("web2/root  1.00 GiB  write-back") && added.contains("primary  /dev/x"), "{added}");
    assert!(added.contains("export   nbd+unix:///accounting/web2/root?socket=/run/tidemark/nbd.sock"), "{added}");
    says(&["disk", "resize", "accounting/web2/root", "2G"], "2.00 GiB");
    says(&["disk", "mode", "accounting/web2/root", "write-through"], "write-through");
    says(&["seed", "start", "accounting/web2/root"], "seeding 0 %");
    let from =
        ["seed", "start", "accounting/web2/root", "--from", "/srv/old", "--from-disk", "web1/root", "--at", "-10m"];
    says(&from, "seeding 0 %");
    says(&["seed", "status", "accounting/db1/data"], "seeding 43 %");
    says(&["attach", "--qmp", "/run/qmp.sock", "--disk", "accounting/db1/data"], "tap of #block123, connecting");
    says(&["detach", "--disk", "accounting/db1/data"], "nothing");
    says(&["disk", "remove", "accounting/db1/data"], "db1/data of accounting is no longer protected here");

    let file = cli.served.dir().join("web1.xml");
    std::fs::write(&file, "<domain/>").unwrap();
    says(&["vm", "config", "accounting", "web1", file.to_str().unwrap()], "configuration of web1 recorded at lsn 472");
    assert!(cli.served.fake.done().contains(&"config of web1 in 9 bytes accounting".to_owned()));
}

#[test]
fn waiting_for_a_seed_ends_with_what_came_of_it() {
    let cli = Cli::new();
    let mut waiting = cli.follow(&["seed", "status", "accounting/db1/data", "--wait"]);
    cli.served.fake.change("accounting", |domain| domain.disks[0].state = DiskState::Protected);
    assert_eq!(waiting.child.wait().unwrap().code(), Some(0));
    cli.served.fake.change("accounting", |domain| domain.disks[0].state = DiskState::Unprotected);
    cli.fails(&["seed", "status", "accounting/db1/data", "--wait"], 3, "not protected after all", "drva events");
}

#[test]
fn failures_have_codes_and_hints() {
    let mut cli = Cli::new();
    cli.fails(&["status", "none"], 10, "no domain \"none\" on this appliance", "tidemark drva status");
    cli.fails(
        &["disk", "mode", "accounting/web1/none", "write-back"],
        1,
        "no disk web1/none of accounting",
        "lists the disks",
    );
    let pending = "3145728 bytes of acknowledged writes are not in the bucket";
    cli.fails(&["disk", "remove", "accounting/web1/root"], 1, pending, "--discard-pending");
    let lost = "3.00 MiB of acknowledged writes never reached the bucket";
    let ran = cli.run(&["disk", "remove", "accounting/web1/root", "--discard-pending"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains(lost) && ran.stdout.contains("is no longer protected here"), "{ran:?}");
    cli.fails(
        &["drain", "accounting", "--timeout", "0s"],
        3,
        "3.00 MiB are not in the bucket after 0 ms",
        "drain again",
    );
    let below = "log_bytes_max: the maximum of 1 bytes is below the minimum";
    cli.fails(&["limits", "accounting", "--log-max", "1"], 1, below, "raise the one");
    cli.fails(&["bookmark", "accounting", "x", "--level", "app"], 1, "pre: level app needs a command", "pre hook");
    cli.served.fake.change("accounting", |domain| {
        domain.state = DomainState::Fenced { reason: "epoch 9 belongs to drva2".into() };
    });
    cli.fails(&["takeover", "accounting"], 11, "epoch 9 belongs to drva2", "is the other appliance still running?");
    cli.served.stop();
    cli.fails(&["status"], 1, "no appliance listens on", "systemctl start tidemark-drva");
    let elsewhere = cli.served.dir().join("elsewhere.sock");
    std::fs::write(&elsewhere, "").unwrap();
    let ran = cli.run(&["status", "--socket", elsewhere.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("elsewhere.sock"), "{ran:?}");
}

#[test]
fn words_that_make_no_sense_are_usage_errors() {
    let cli = Cli::new();
    for args in [
        &["disk", "add", "web1/root"][..],
        &["disk", "resize", "accounting/web1/root", "1000"],
        &["disk", "mode", "accounting/web1/root", "write-around"],
        &["limits", "accounting", "--upload", "50MB/s"],
        &["limits", "accounting", "--rpo", "5"],
        &["limits", "accounting", "--bandwidth", "weekdays 1MiB/s"],
        &["limits", "accounting", "--no-bandwidth", "--bandwidth", "daily 00:00-24:00 1MiB/s"],
        &["bookmark", "accounting", "x", "--agent", "web1"],
        &["seed", "start", "accounting/web1/root", "--from", "/b"],
        &["attach", "--disk", "accounting/web1/root"],
        &[],
    ] {
        let ran = cli.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
    }
    assert!(cli.served.fake.done().is_empty(), "nothing was asked of the appliance");
}

#[test]
fn a_configuration_is_checked_without_an_appliance() {
    let cli = Cli::new();
    let file = cli.served.dir().join("drva.toml");
    let path = file.to_str().unwrap().to_owned();
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ops/drva.toml"), &file).unwrap();
    assert!(cli.ok(&["check", "--config", &path]).ends_with("can work: appliance drva1, 1 domains, 2 disks\n"));
    assert_eq!(cli.json(&["check", "--config", &path])["disks"], 2);
    std::fs::write(&file, "[appliance]\nnmae = \"drva1\"\n").unwrap();
    cli.fails(&["check", "--config", &path], 2, "drva.toml:2:1: unknown key nmae", "did you mean name?");
    cli.fails(&["check", "--config", "/nowhere.toml"], 2, "cannot read /nowhere.toml", "docs/ops/drva.toml");
}

#[test]
fn man_pages_and_completions_know_every_command() {
    let cli = Cli::new();
    let dir = cli.served.dir().join("man");
    cli.tidemark.ok(["man", dir.to_str().unwrap()]);
    let help = cli.ok(&["--help"]);
    let commands: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .collect();
    assert!(commands.len() >= 15, "{commands:?}");
    let script = cli.tidemark.ok(["completions", "bash"]).stdout;
    for command in commands {
        let page = dir.join(format!("tidemark-drva-{command}.1"));
        assert!(page.exists(), "{}", page.display());
        assert!(script.contains(&format!("tidemark__subcmd__drva__subcmd__{command}")), "{command}");
    }
}

#[test]
fn json_answers_have_the_members_that_were_promised() {
    let cli = Cli::new();
    cli.served.fake.happens(Severity::Info, "seed-done", "seeding is complete");
    let status = cli.json(&["status"]);
    assert_eq!(members(&status), promised("drva status"));
    assert_eq!(members(&status["domains"][0]), promised("drva status DOMAIN"));
    assert_eq!(members(&cli.json(&["status", "accounting"])), promised("drva status DOMAIN"));
    assert_eq!(members(&status["domains"][0]["disks"][1]), promised("drva disk"));
    assert_eq!(members(&cli.json(&["disk", "mode", "accounting/web1/root", "write-back"])), promised("drva disk"));
    assert_eq!(members(&cli.json(&["limits", "accounting"])), promised("drva limits"));
    assert_eq!(members(&cli.json(&["events"])[0]), promised("drva events"));
    assert_eq!(members(&cli.json(&["drain", "accounting"])), promised("drva drain"));
    let mut made = members(&cli.json(&["bookmark", "accounting", "x"]));
    assert_eq!(made, promised("drva bookmark"));
    made = members(&cli.json(&["disk", "remove", "accounting/db1/data"]));
    assert_eq!(made, promised("drva domain remove"));
    let plan = cli.json(&["domain", "remove", "accounting", "--dry-run"]);
    assert_eq!(members(&plan), promised("drva domain remove --dry-run"));
    let plan = cli.json(&["takeover", "accounting", "--dry-run"]);
    assert_eq!(members(&plan), promised("drva takeover --dry-run"));
    let mut config = cli.tidemark.command(["--json", "drva", "vm", "config", "accounting", "web1", "-"]);
    let mut config = config.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    config.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    config.wait().unwrap();
    assert_eq!(members(&serde_json::from_str(&said).unwrap()), promised("drva vm config"));
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ops/drva.toml");
    assert_eq!(members(&cli.json(&["check", "--config", example])), promised("drva check"));
}
