//! The stores that the suite knows by name.

use crate::raw::Raw;
use crate::server::process::{Running, free_ports, tool};
use crate::server::{LyingS3, START_MAX, SeaweedFs, Tls};
use std::fmt;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A store that was started, or needs no starting. It ends with this value.
pub struct NamedStore {
    /// What the table calls it.
    pub title: &'static str,
    /// URL of a bucket without a prefix; what follows a `?` comes after the prefix.
    pub url: String,
    /// Variables with the credentials, for a process that talks to it.
    pub environment: Vec<(&'static str, String)>,
    /// For what Tidemark itself never asks.
    pub raw: Option<Raw>,
    _holds: Vec<Box<dyn Send>>,
}

impl fmt::Debug for NamedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedStore").field("title", &self.title).field("url", &self.url).finish_non_exhaustive()
    }
}

/// The bucket that each server has.
const BUCKET: &str = "tidemark";

impl NamedStore {
    /// Their names. Ceph is not installed with the others: `tests/stores/install.sh ceph`.
    pub const NAMES: [&str; 8] =
        ["memory", "file", "seaweedfs", "seaweedfs-tls", "azurite", "ceph", "ceph-versioned", "rclone"];

    /// Starts the one of this name; `None` if there is none.
    ///
    /// # Panics
    /// If it is not installed or does not come up.
    pub fn start(name: &str) -> Option<Self> {
        Some(match name {
            "memory" => Self::local("memory (tests only)", "memory:check".to_owned(), Vec::new()),
            "file" => {
                let dir = tempfile::tempdir().expect("a directory for the store");
                let url = format!("file://{}", dir.path().display());
                Self::local("`file://`, ext4 or tmpfs", url, vec![Box::new(dir)])
            }
            "seaweedfs" => Self::seaweedfs("SeaweedFS 4.48", SeaweedFs::start(), Vec::new()),
            "seaweedfs-tls" => {
                let dir = tempfile::tempdir().expect("a directory for certificates");
                let server = SeaweedFs::start_tls(&Tls::make(dir.path()));
                Self::seaweedfs("SeaweedFS 4.48, HTTPS", server, vec![Box::new(dir)])
            }
            "azurite" => Self::azurite(),
            "ceph" => Self::ceph("Ceph RGW 16.2", false),
            "ceph-versioned" => Self::ceph("Ceph RGW 16.2, versioned bucket", true),
            "rclone" => Self::rclone(),
            _ => return None,
        })
    }

    fn local(title: &'static str, url: String, holds: Vec<Box<dyn Send>>) -> Self {
        Self { title, url, environment: Vec::new(), raw: None, _holds: holds }
    }

    fn s3(title: &'static str, endpoint: String, keys: [&str; 2], ca: Option<String>) -> Self {
        let [access_key, secret_key] = keys.map(str::to_owned);
        let environment =
            vec![("AWS_ACCESS_KEY_ID", access_key.clone()), ("AWS_SECRET_ACCESS_KEY", secret_key.clone())];
        let trust = ca.as_ref().map(|path| format!("&ca={path}")).unwrap_or_default();
        let url = format!("s3://{BUCKET}?endpoint={endpoint}&region=us-east-1{trust}");
        let raw = Some(Raw { kind: "s3".to_owned(), endpoint, access_key, secret_key, ca });
        Self { title, url, environment, raw, _holds: Vec::new() }
    }

    fn seaweedfs(title: &'static str, server: SeaweedFs, mut holds: Vec<Box<dyn Send>>) -> Self {
        let keys = [SeaweedFs::ACCESS_KEY, SeaweedFs::SECRET_KEY];
        let store = Self::s3(title, server.endpoint(), keys, server.ca().map(|path| path.display().to_string()));
        // Dropped in order: the server before what it reads.
        holds.insert(0, Box::new(server));
        Self { _holds: holds, ..store }
    }

    fn rclone() -> Self {
        let server = LyingS3::start();
        let store = Self::s3("rclone 1.75 `serve s3`", server.endpoint(), LyingS3::KEYS, None);
        let url = store.url.replacen(BUCKET, LyingS3::BUCKET, 1);
        Self { url, _holds: vec![Box::new(server)], ..store }
    }

    /// Microsoft's own emulator of Azure Blob, in memory.
    fn azurite() -> Self {
        // The account that every emulator of Azure has.
        const ACCOUNT: &str = "devstoreaccount1";
        const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
        let dir = tempfile::tempdir().expect("a directory for the server");
        let [port] = free_ports();
        let mut command = Command::new(tool("azurite/node_modules/.bin/azurite-blob"));
        command.current_dir(dir.path()).args(["--silent", "--inMemoryPersistence", "--disableTelemetry"]);
        command.args(["--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
        let running = Running::start("azurite", command, START_MAX, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let endpoint = format!("http://127.0.0.1:{port}/{ACCOUNT}");
        let (access_key, secret_key) = (ACCOUNT.to_owned(), KEY.to_owned());
        let environment =
            vec![("AZURE_STORAGE_ACCOUNT_NAME", access_key.clone()), ("AZURE_STORAGE_ACCOUNT_KEY", secret_key.clone())];
        let url = format!("azblob://{BUCKET}?endpoint={endpoint}");
        let raw = Raw { kind: "azblob".to_owned(), endpoint, access_key, secret_key, ca: None };
        raw.make_bucket(BUCKET, &[]);
        let holds: Vec<Box<dyn Send>> = vec![Box::new(running), Box::new(dir)];
        Self { title: "Azurite 3.35 (Azure Blob)", url, environment, raw: Some(raw), _holds: holds }
    }

    fn ceph(title: &'static str, versioned: bool) -> Self {
        const KEYS: [&str; 2] = ["tidemarktestkey", "tidemarktestsecret"];
        let dir: TempDir = tempfile::tempdir().expect("a directory for the server's data");
        let [port] = free_ports();
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../stores/ceph.sh"));
        command.arg(dir.path()).arg(port.to_string()).args(KEYS);
        let ready = dir.path().join("ready");
        let running = Running::start("ceph", command, Duration::from_secs(180), || ready.exists());
        let mut store = Self::s3(title, format!("http://127.0.0.1:{port}"), KEYS, None);
        let raw = store.raw.as_ref().expect("it is S3");
        raw.make_bucket(BUCKET, &[]);
        if versioned {
            let rule = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                        <Status>Enabled</Status></VersioningConfiguration>";
            let (set, answer) = raw.send("PUT", &format!("{BUCKET}?versioning"), &[], rule);
            assert!(set, "turn on versioning: {answer}");
        }
        store._holds = vec![Box::new(running), Box::new(dir)];
        store
    }
}
