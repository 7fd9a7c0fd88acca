//! The real reader over the golden domains of `format-spec/vectors`: it says at every LSN what their JSON says.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl, ReadOnly};
use tidemark_env::Env;
use tidemark_format::{BLOCK_BYTES, DiskId, Lsn};
use tidemark_reader::{Domain, ReaderOptions};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../format-spec/vectors/domains").canonicalize().expect("it is there")
}

/// Name, JSON and bucket of each golden domain, the broken ones or the others.
fn domains(broken: bool) -> Vec<(String, Json, ReadOnly)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir()).expect("the folder of golden domains") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let json: Json = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
        let url: BucketUrl = format!("file://{}", dir().join(&name).display()).parse().expect("a URL");
        let bucket = Bucket::open(&url, &BucketOptions::default()).expect("a bucket");
        if json["error"].is_string() == broken {
            all.push((name, json, bucket.read_only()));
        }
    }
    assert!(!all.is_empty());
    all
}

async fn open(bucket: ReadOnly) -> tidemark_reader::Result<Domain> {
    Domain::open(bucket, ReaderOptions::default(), Env::system()).await
}

//= SPEC.md#reader-rules
//#
#[tokio::test]
async fn vector_domains_hold_at_every_lsn_what_their_json_says() {
    for (name, json, bucket) in domains(false) {
        let said = &json["meaning"];
        let domain = open(bucket).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let timeline = domain.timeline();
        assert_eq!(timeline.domain().to_string(), said["domain"], "{name}");
        assert_eq!(timeline.name(), said["name"], "{name}");
        assert_eq!(timeline.latest().lsn.get(), said["last_lsn"], "{name}");
        assert_eq!(timeline.final_through().get(), said["final_through"], "{name}");
        for (disk_name, disk) in said["disks"].as_object().expect("disks") {
            for point in disk["points"].as_array().expect("points") {
                let at = Lsn::new(point["lsn"].as_u64().expect("an LSN"));
                let id = DiskId::new(disk["disk"].as_u64().expect("an id") as u32);
                let what = format!("{name}: {disk_name} at lsn {at}");
                match domain.disk(id, at).await {
                    Ok(image) => {
                        assert_eq!(point["restorable"], true, "{what}");
                        check_image(&image, point, &what).await;
                    }
                    Err(e) => assert_eq!(point["restorable"], false, "{what}: {e}"),
                }
            }
        }
    }
}

async fn check_image(image: &tidemark_reader::DiskImage, point: &Json, what: &str) {
    let blocks = point["blocks"].as_u64().expect("a size");
    assert_eq!(image.size_bytes(), blocks * BLOCK_BYTES, "{what}");
    let runs: Vec<[u64; 2]> = serde_json::from_value(point["unknown"].clone()).expect("runs");
    let is_unknown = |block: u64| runs.iter().any(|[start, len]| (*start..start + len).contains(&block));
    let mut known = blake3::Hasher::new();
    for block in 0..blocks {
        match image.read(block * BLOCK_BYTES, BLOCK_BYTES as usize).await {
            Ok(bytes) => {
                assert!(!is_unknown(block), "{what}: block {block} is unknown, not {bytes:02x?}");
                known.update(&bytes);
            }
            Err(e) => assert!(is_unknown(block), "{what}: block {block}: {e}"),
        }
    }
    assert_eq!(known.finalize().to_hex().as_str(), point["known_blake3"], "{what}");
}

/// Damage is found when a domain is opened or when the damaged part is read, and is never shown as data.
#[tokio::test]
async fn vector_broken_domains_are_never_read_in_full() {
    for (name, json, bucket) in domains(true) {
        let Err(error) = read_everything(bucket).await else { panic!("{name}: nothing was found: {json:#}") };
        let kind = error.kind();
        // A key that is not there at all, or something at it that does not belong there.
        let fits = matches!(kind, tidemark_format::ErrorKind::DataLoss | tidemark_format::ErrorKind::NotFound);
        assert!(fits, "{name}: {error} is of kind {kind:?}");
    }
}

async fn read_everything(bucket: ReadOnly) -> tidemark_reader::Result<()> {
    let domain = open(bucket).await?;
    let timeline = domain.timeline();
    for lsn in 1..=timeline.latest().lsn.get() {
        for disk in timeline.disks_at(Lsn::new(lsn)) {
            let image = match domain.disk(disk.id, Lsn::new(lsn)).await {
                Ok(image) => image,
                Err(tidemark_reader::Error::NotRestorable { .. }) => continue,
                Err(e) => return Err(e),
            };
            let mut offset = 0;
            while offset < image.size_bytes() {
                match image.read(offset, BLOCK_BYTES as usize).await {
                    Err(tidemark_reader::Error::Unknown { .. }) => {}
                    Err(e) => return Err(e),
                    Ok(_) => {}
                }
                offset += BLOCK_BYTES;
            }
        }
    }
    Ok(())
}
