//! The first bad point, found through a real mount: `tidemark bisect`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use tidemark_cli::logwrites::{Entry, encode};
use tidemark_e2e::Tidemark;
use tidemark_e2e::promises::{members, promised};
use tidemark_e2e::system::is_mountpoint;

const DISK_BYTES: u64 = 1 << 20;

fn tidemark() -> Tidemark {
    Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"))
}

/// A domain of so many recorded writes, all of them discards but the one that damages the second block; its URL, and the LSNs of the
/// first entry and of the damage.
fn damaged(dir: &Path, entries: u64, damage_at: u64) -> (String, u64, u64) {
    let (url, base, log) = (dir.join("bucket"), dir.join("base.img"), dir.join("log"));
    std::fs::write(&base, vec![0; DISK_BYTES as usize]).unwrap();
    let entry =
        |number| if number == damage_at { Entry::write(512, vec![0xbd; 512]) } else { Entry::discard(4096, 512) };
    std::fs::write(&log, encode(512, &(0..entries).map(entry).collect::<Vec<_>>())).unwrap();
    let (url, base, log) = (url.display().to_string(), base.display().to_string(), log.display().to_string());
    tidemark().ok(["domain", "create", &url, "--name", "d"]);
    tidemark().ok(["ingest", &url, "--disk", "vm/root", "--format", "raw", &base]);
    let report = tidemark().json(["ingest", &url, "--disk", "vm/root", "--format", "blklogwrites", &log]);
    tidemark().ok(["gc", "run", &url]);
    let first = report["first_lsn"].as_u64().unwrap();
    (url, first, first + damage_at)
}

/// A command that is content while the second block has no damage, and counts its runs in `runs`.
fn look(runs: &Path) -> String {
    format!("echo {{}} >> {}; ! od -An -tx1 -j512 -N1 {{}}/vm/root.raw | grep -q bd", runs.display())
}

#[test]
fn mount_bisect_finds_the_first_bad_of_a_hundred_thousand_writes_in_twenty_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (url, first, bad) = damaged(dir.path(), 100_000, 61_803);
    let runs = dir.path().join("runs");
    let from = format!("lsn:{first}");
    let command = look(&runs);
    let args = ["bisect", &url, "--from", &from, "--to", "latest"];
    let found = tidemark().json(args.iter().copied().chain(["--", "sh", "-c", &command]));
    assert_eq!(members(&found), promised("bisect"));
    assert_eq!((&found["first_bad"]["lsn"], &found["last_good"]["lsn"]), (&bad.into(), &(bad - 1).into()), "{found}");
    let points = std::fs::read_to_string(&runs).unwrap();
    let count = points.lines().count();
    assert_eq!(found["checks"], count);
    assert!(count <= 20, "{count} runs");
    // Nothing stays behind.
    let mount = Path::new(points.lines().next().unwrap()).ancestors().nth(2).unwrap();
    assert!(!is_mountpoint(mount) && !mount.exists(), "{}", mount.display());

    // Several at once: the same answer, in fewer rounds.
    let found = tidemark().json(args.iter().copied().chain(["--jobs", "3", "--", "sh", "-c", &command]));
    assert_eq!(found["first_bad"]["lsn"], bad, "{found}");
}

#[test]
fn mount_bisect_answers_only_what_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let (url, first, bad) = damaged(dir.path(), 40, 20);
    let from = format!("lsn:{first}");
    let bisect = |from: &str, to: &str, command: &str| {
        tidemark().run(["bisect", &url, "--from", from, "--to", to, "--", "sh", "-c", command])
    };
    let content = look(&dir.path().join("runs"));
    let refused = |ran: tidemark_e2e::Ran, code: i32, says: &str, hint: &str| {
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
        assert!(ran.stderr.contains(says) && ran.stderr.contains(hint), "{ran:?}");
    };
    refused(bisect("latest", &from, &content), 2, "which is not before --to", "the good point comes first");
    refused(bisect(&from, &format!("lsn:{}", bad - 1), &content), 1, "is good, not bad", "--to a bad one");
    refused(bisect(&format!("lsn:{bad}"), "latest", &content), 1, "is bad, not good", "--from names a good point");
    refused(bisect(&from, "latest", "nosuchcommand"), 1, "exited with 127 at lsn", "no such command");
    refused(bisect(&from, "latest", "kill -9 $$"), 1, "was ended by a signal", "0 is good");
    // It cannot tell one before the damage from the damage: both could be the first.
    let unsure = format!("case {{}} in */{}|*/{}) exit 125;; esac; {content}", bad - 1, bad - 2);
    let ran = bisect(&from, "latest", &unsure);
    assert!(
        ran.stdout.contains(&format!("first bad point: lsn {bad} ")) && ran.stdout.contains("2 unclear"),
        "{ran:?}"
    );
    assert!(ran.stdout.contains(&format!("last good point: lsn {} ", bad - 3)), "{ran:?}");
}
