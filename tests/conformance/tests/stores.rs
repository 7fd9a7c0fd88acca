//! The suite on every store that is built in or can be installed, and the refusal of one that lies.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use tidemark_bucket::{Attestation, Bucket, BucketOptions, BucketUrl, Check, Error, S3Key, StoreMode, attach_probe};
use tidemark_conformance::{Capabilities, LyingS3, NamedStore, SeaweedFs, Tls, suite};
use tidemark_env::SystemEntropy;
use tidemark_format::{ErrorKind, ObjectKey};

async fn keeps_every_promise(fresh: impl FnMut(usize) -> Bucket) {
    let broken = suite(fresh).await;
    let list: Vec<_> = broken.iter().map(ToString::to_string).collect();
    assert!(broken.is_empty(), "{} broken promises:\n{}", list.len(), list.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_keeps_every_promise() {
    keeps_every_promise(|_| Bucket::memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_directory_keeps_every_promise() {
    let dir = tempfile::tempdir().unwrap();
    let open = |n: usize| Bucket::open(&BucketUrl::file(dir.path().join(n.to_string())), &BucketOptions::default());
    keeps_every_promise(|n| {
        let bucket = open(n).unwrap();
        std::fs::create_dir(dir.path().join(n.to_string())).unwrap();
        bucket
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_real_s3_server_keeps_every_promise() {
    let server = SeaweedFs::start();
    keeps_every_promise(|n| server.bucket(&format!("check/{n}"))).await;
}

/// Runs `check-store` on a store by name; what it printed.
fn checked(name: &str) -> String {
    let ran = std::process::Command::new(env!("CARGO_BIN_EXE_check-store")).arg(name).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let keeps = name != "rclone";
    assert_eq!(ran.status.success(), keeps, "{out}{err}");
    assert_eq!(out.contains("BROKEN"), !keeps, "{out}");
    out.into_owned()
}

/// docs/providers.md must say of a store what it was just seen to do.
fn is_as_documented(out: &str) {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/providers.md")).unwrap();
    assert!(docs.contains(Capabilities::HEAD), "the table has other columns: run `make providers`");
    let row = out.lines().find(|line| line.starts_with('|')).unwrap_or_else(|| panic!("no row in {out}"));
    assert!(docs.lines().any(|line| line == row), "docs/providers.md lacks this row, run `make providers`:\n{row}");
}

#[test]
fn an_azure_server_keeps_every_promise_and_is_as_documented() {
    is_as_documented(&checked("azurite"));
}

#[test]
fn what_is_built_in_is_as_documented() {
    ["memory", "file"].iter().for_each(|name| is_as_documented(&checked(name)));
}

#[test]
fn an_s3_server_keeps_every_promise_over_https_and_is_as_documented() {
    is_as_documented(&checked("seaweedfs-tls"));
}

#[test]
fn a_store_that_ignores_conditions_is_as_documented() {
    let out = checked("rclone");
    assert!(out.contains("refused"), "{out}");
    is_as_documented(&out);
}

#[test]
fn a_store_of_no_known_name_is_refused_with_those_there_are() {
    let ran = std::process::Command::new(env!("CARGO_BIN_EXE_check-store")).arg("minio").output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && NamedStore::NAMES.iter().all(|name| said.contains(name)), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_where_the_url_names_it_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = SeaweedFs::start_tls(&Tls::make(dir.path()));
    let bucket = server.bucket("tls");
    assert_eq!(attach_probe(&bucket.appender(), &SystemEntropy, Attestation::None).await.unwrap(), StoreMode::Cas);

    let unknown = format!("s3://{}/tls?endpoint={}&region=us-east-1", SeaweedFs::BUCKET, server.endpoint());
    let strict = Bucket::open(&unknown.parse().unwrap(), &SeaweedFs::options()).unwrap();
    let error = strict.read_only().get(&ObjectKey::Genesis).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_ignores_conditions_is_refused_unless_a_single_writer_is_attested() {
    let server = LyingS3::start();
    let appender = server.bucket("domain").appender();
    let error = attach_probe(&appender, &SystemEntropy, Attestation::None).await.unwrap_err();
    assert!(matches!(error, Error::Liar { check: Check::SecondCreateWins, .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::FixRequest);
    assert!(error.hint().is_some_and(|hint| hint.contains("attest")));
    let mode = attach_probe(&appender, &SystemEntropy, Attestation::SingleWriterAttested).await.unwrap();
    assert_eq!(mode, StoreMode::AttestedSingle);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_access_to_a_server_is_told_apart() {
    let mut server = SeaweedFs::start();
    let open = |text: &str, key: Option<S3Key>| {
        let options =
            BucketOptions { s3_key: key, give_up_after: std::time::Duration::from_secs(3), ..BucketOptions::default() };
        Bucket::open(&text.parse().unwrap(), &options).unwrap().read_only()
    };
    let (right, endpoint) = (SeaweedFs::options().s3_key.unwrap(), server.endpoint());
    let bucket = format!("s3://{}/x?endpoint={endpoint}", SeaweedFs::BUCKET);
    let secret = "notthesecretofthatkey";

    let wrong_secret = S3Key { id: right.id.clone(), secret: secret.to_owned() };
    let unknown_key = S3Key { id: "nobody".to_owned(), secret: secret.to_owned() };
    for key in [wrong_secret, unknown_key] {
        let error = open(&bucket, Some(key)).get(&ObjectKey::Genesis).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("AWS_")));
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }

    let missing = open(&format!("s3://no-such-bucket/x?endpoint={endpoint}"), Some(right.clone()));
    let error = missing.get(&ObjectKey::Genesis).await.unwrap_err();
    assert!(error.is_no_bucket(), "{error:?}");

    let there = open(&bucket, Some(right));
    assert_eq!(there.get(&ObjectKey::Genesis).await.unwrap_err().kind(), ErrorKind::NotFound);
    server.kill();
    let error = there.get(&ObjectKey::Genesis).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "a server that is gone says nothing about objects: {error:?}");
}
