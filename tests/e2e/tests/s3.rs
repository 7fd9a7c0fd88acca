//! The whole path on a real S3 server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use tidemark_conformance::SeaweedFs;
use tidemark_e2e::Tidemark;
use tidemark_e2e::sample::{BASE, FINAL_SHA256, LOG, path};
use tidemark_e2e::system::sha256;

#[test]
fn recorded_vm_is_ingested_mounted_and_verified_on_a_real_s3_server() {
    let server = SeaweedFs::start();
    let dir = tempfile::tempdir().unwrap();
    let url = server.url("site1/payroll").to_string();
    let mut tidemark = Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"));
    for (name, value) in SeaweedFs::environment() {
        tidemark = tidemark.env(name, value);
    }
    let (base, log) = (path(BASE).display().to_string(), path(LOG).display().to_string());
    tidemark.ok(["domain", "create", &url, "--name", "payroll"]);
    tidemark.ok(["ingest", &url, "--disk", "web1/root", "--format", "raw", &base]);
    let small = ["--segment-size", "256K"];
    let args = [&["ingest", &url, "--disk", "web1/root", "--format", "blklogwrites", &log], &small[..]].concat();
    let report = tidemark.json(&args);
    assert_eq!(report["writes"], 275);
    let mounted = tidemark.mount(&url, &dir.path().join("time"), &[]);
    assert_eq!(sha256(&mounted.disk("latest", "web1", "root")), FINAL_SHA256);
    let before = format!("lsn/{}", report["first_lsn"].as_u64().unwrap() - 1);
    let image = mounted.disk(&before, "web1", "root");
    tidemark_e2e::system::run("e2fsck", ["-fn".as_ref(), image.as_os_str()]);
    assert_eq!(mounted.stop("TERM"), Some(0));
    let verified = tidemark.json(["verify", &url]);
    assert_eq!(
        (&verified["intact"], &verified["last_lsn"]),
        (&true.into(), &report["last_lsn"].as_u64().map(|n| n + 1).into())
    );

    let wrong = tidemark.clone().env("AWS_SECRET_ACCESS_KEY", "wrong").run(["points", &url]);
    assert_eq!(wrong.code, Some(12), "{wrong:?}");
}
