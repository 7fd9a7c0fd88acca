//! Real servers, one process each, that end with the value that holds them.
//!
//! They listen on loopback, on ports that were free, keep their data in a directory that is removed, and are killed also when
//! the process that started them is: a shell between us and the server waits for its input to end.

pub(crate) mod process;

use process::{Running, free_ports, tool};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl, S3Key};

/// How long a server may take until it answers.
pub(crate) const START_MAX: Duration = Duration::from_secs(60);

/// SeaweedFS with its S3 gateway and one bucket: the real S3 server of the tests.
#[derive(Debug)]
pub struct SeaweedFs {
    running: Running,
    scheme: &'static str,
    port: u16,
    ca: Option<PathBuf>,
    /// Unix sockets that it makes outside its directory, and leaves behind when it is killed.
    sockets: Vec<PathBuf>,
    // Removed last: the server writes there until it is gone.
    _dir: TempDir,
}

/// A certificate and the authority to trust for it.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM file with the authority's certificate.
    pub ca: PathBuf,
    /// PEM file with the server's certificate.
    pub certificate: PathBuf,
    /// PEM file with the server's key.
    pub key: PathBuf,
}

impl SeaweedFs {
    /// The access key that every such server knows.
    pub const ACCESS_KEY: &str = "tidemarktestkey";
    /// Its secret.
    pub const SECRET_KEY: &str = "tidemarktestsecret";
    /// The bucket that is there from the start.
    pub const BUCKET: &str = "tidemark";

    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// If it is not installed or does not come up: a test that needs it fails, never skips.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts one that speaks HTTPS.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_tls(tls: &Tls) -> Self {
        Self::start_with(Some(tls))
    }

    fn start_with(tls: Option<&Tls>) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the server's data");
        let config = dir.path().join("s3.json");
        std::fs::write(&config, Self::identities()).expect("write the server's configuration");
        let [master, master_rpc, volume, volume_rpc, filer, filer_rpc, s3, s3_rpc, https] = free_ports();
        let mut command = Command::new(tool("stores/bin/weed"));
        command.current_dir(dir.path()).env("WEED_MASTER_VOLUME_GROWTH_COPY_1", "1");
        command.args(["server", "-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]);
        command.args(["-master.volumeSizeLimitMB=1024", "-volume.max=0", "-filer", "-s3", "-s3.config=s3.json"]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        for (flag, port) in [
            ("master.port", master),
            ("master.port.grpc", master_rpc),
            ("volume.port", volume),
            ("volume.port.grpc", volume_rpc),
            ("filer.port", filer),
            ("filer.port.grpc", filer_rpc),
            ("s3.port", s3),
            ("s3.port.grpc", s3_rpc),
        ] {
            command.arg(format!("-{flag}={port}"));
        }
        let path = |flag: &str, path: &Path| format!("-s3.{flag}.file={}", path.display());
        if let Some(tls) = tls {
            command.args([path("cert", &tls.certificate), path("key", &tls.key), format!("-s3.port.https={https}")]);
        }
        let (scheme, port) = if tls.is_some() { ("https", https) } else { ("http", s3) };
        let running = Running::start("weed", command, START_MAX, || {
            // 409: an earlier try made it, before the gateway was up.
            let made = post(filer, &format!("/buckets/{}/", Self::BUCKET));
            let made = made.is_some_and(|answer| [" 201 ", " 409 "].iter().any(|status| answer.contains(status)));
            made && TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let sockets = [
            ("master-grpc", master_rpc),
            ("volume-grpc", volume_rpc),
            ("filer", filer),
            ("filer-grpc", filer_rpc),
            ("s3", s3),
            ("s3-grpc", s3_rpc),
        ];
        let sockets = sockets.map(|(name, port)| PathBuf::from(format!("/tmp/seaweedfs-{name}-{port}.sock"))).to_vec();
        Self { running, scheme, port, ca: tls.map(|tls| tls.ca.clone()), sockets, _dir: dir }
    }

    fn identities() -> String {
        let (id, secret) = (Self::ACCESS_KEY, Self::SECRET_KEY);
        let credentials = format!(r#"[{{"accessKey":"{id}","secretKey":"{secret}"}}]"#);
        let actions = r#"["Admin","Read","Write","List","Tagging"]"#;
        format!(r#"{{"identities":[{{"name":"test","credentials":{credentials},"actions":{actions}}}]}}"#)
    }

    /// Where the server answers.
    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// The authority to trust, for one that speaks HTTPS.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// The URL of a prefix in its bucket. Credentials: [`Self::environment`] or [`Self::options`].
    pub fn url(&self, prefix: &str) -> BucketUrl {
        let ca = self.ca.as_ref().map(|path| format!("&ca={}", path.display())).unwrap_or_default();
        let text = format!("s3://{}/{prefix}?endpoint={}&region=us-east-1{ca}", Self::BUCKET, self.endpoint());
        text.parse().expect("a URL made of known parts")
    }

    /// A prefix in its bucket, opened.
    ///
    /// # Panics
    /// If the client cannot be set up.
    pub fn bucket(&self, prefix: &str) -> Bucket {
        Bucket::open(&self.url(prefix), &Self::options()).expect("a client for the server")
    }

    /// Options that hold the credentials.
    pub fn options() -> BucketOptions {
        let s3_key = S3Key { id: Self::ACCESS_KEY.to_owned(), secret: Self::SECRET_KEY.to_owned() };
        BucketOptions { s3_key: Some(s3_key), ..BucketOptions::default() }
    }

    /// Variables that give a child process the credentials.
    pub fn environment() -> [(&'static str, &'static str); 2] {
        [("AWS_ACCESS_KEY_ID", Self::ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", Self::SECRET_KEY)]
    }

    /// Kills the server at once, as a power cut does to its clients: connections are refused from now on.
    pub fn kill(&mut self) {
        self.running.kill();
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        self.running.kill();
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// `rclone serve s3`: answers 200 to a conditional put and overwrites. No domain may be attached to it unattested.
#[derive(Debug)]
pub struct LyingS3 {
    _running: Running,
    port: u16,
    _dir: TempDir,
}

impl LyingS3 {
    /// The key that it knows, and its secret.
    pub const KEYS: [&str; 2] = ["tidemarktestkey1", "tidemarktestsecret1"];
    /// The bucket that is there from the start.
    pub const BUCKET: &str = "liar";

    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// If it is not installed or does not come up.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory for the server's data");
        std::fs::create_dir(dir.path().join(Self::BUCKET)).expect("make its bucket");
        let [port] = free_ports();
        let mut command = Command::new(tool("stores/bin/rclone"));
        command.args(["serve", "s3", "--config=", "--addr", &format!("127.0.0.1:{port}"), "--auth-key"]);
        command.arg(Self::KEYS.join(",")).arg(dir.path());
        let running = Running::start("rclone", command, START_MAX, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { _running: running, port, _dir: dir }
    }

    /// Where the server answers.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The URL of a prefix in its bucket.
    pub fn url(&self, prefix: &str) -> BucketUrl {
        let text = format!("s3://{}/{prefix}?endpoint={}&region=us-east-1", Self::BUCKET, self.endpoint());
        text.parse().expect("a URL made of known parts")
    }

    /// A prefix in its bucket, opened.
    ///
    /// # Panics
    /// If the client cannot be set up.
    pub fn bucket(&self, prefix: &str) -> Bucket {
        let [id, secret] = Self::KEYS.map(str::to_owned);
        let options = BucketOptions { s3_key: Some(S3Key { id, secret }), ..BucketOptions::default() };
        Bucket::open(&self.url(prefix), &options).expect("a client for the server")
    }
}

impl Tls {
    /// Makes a private authority and a certificate for `localhost` and `127.0.0.1`, in `dir`, with openssl.
    ///
    /// # Panics
    /// If openssl is missing or fails.
    pub fn make(dir: &Path) -> Self {
        let openssl = |args: &[&str]| {
            let done = Command::new("openssl").args(args).current_dir(dir).output().expect("openssl is installed");
            assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let ca = ["-subj", "/CN=tidemark test authority", "-addext", "basicConstraints=critical,CA:TRUE"];
        openssl(&[&new[..], &ca[..], &["-keyout", "ca.key", "-out", "ca.pem"]].concat());
        let names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
        let end = ["-addext", "basicConstraints=critical,CA:FALSE", "-CA", "ca.pem", "-CAkey", "ca.key"];
        openssl(&[&new[..], &names[..], &end[..], &["-keyout", "server.key", "-out", "server.pem"]].concat());
        Self { ca: dir.join("ca.pem"), certificate: dir.join("server.pem"), key: dir.join("server.key") }
    }
}

/// The status line and headers of a POST without a body, if the server answers at all.
fn post(port: u16, path: &str) -> Option<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
