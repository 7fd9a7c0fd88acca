//! The README's first command, so that it never stops working.

use std::process::Command;

#[test]
fn demo_that_mounts_a_deleted_file_alive_leaves_nothing_behind() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/demo");
    let ran = Command::new(script).arg(env!("CARGO_BIN_EXE_tidemark-under-test")).output().expect("scripts/demo runs");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    let past = out.find("$ cat past/payroll.txt\nthe only copy of the payroll").expect("alive in the past");
    let now = out.find("now/payroll.txt: No such file").expect("gone in the present");
    assert!(past < now, "{out}");
    let work =
        out.lines().find_map(|line| line.split("file://").nth(1)?.split("/bucket").next()).expect("its directory");
    assert!(!std::path::Path::new(work).exists(), "{work} was left behind");
    let loops = tidemark_e2e::system::run("losetup", ["-l", "-n", "-O", "BACK-FILE"]);
    assert!(!loops.contains(work), "a loop device was left behind: {loops}");
}
