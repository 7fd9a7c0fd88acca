//! A protected site: directories of an appliance whose daemon is started, killed and started again, and what its bucket
//! holds then.

use crate::process::Tidemark;
use crate::system::{signal, until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tidemark_bucket::{Bucket, BucketOptions};
use tidemark_env::Env;
use tidemark_reader::{Domain, ReaderOptions};

/// What every configuration begins with; `{at}` is the site's directory.
const HEAD: &str = r#"
appliance = { name = "e2e", state = "{at}/state", socket = "{at}/api.sock", fence_check = "1s" }
log_store = { path = "{at}/lun", size = "256MiB" }
nbd = { socket = "{at}/nbd.sock" }
"#;

/// A site with one domain, `d`.
#[derive(Debug)]
pub struct Site {
    dir: TempDir,
    tidemark: Tidemark,
}

impl Site {
    /// A site that is configured by what follows the appliance's own sections, in which `{at}` is the site's directory.
    pub fn new(binary: &str, config: &str) -> Self {
        Self::with(Tidemark::new(binary), config)
    }

    /// Like [`Self::new`], with a command line that finds something in its environment.
    pub fn with(tidemark: Tidemark, config: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        let config = format!("{HEAD}{config}").replace("{at}", &dir.path().display().to_string());
        std::fs::write(dir.path().join("drva.toml"), config).expect("a file in a test's own place");
        Self { dir, tidemark }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command line.
    pub fn tidemark(&self) -> &Tidemark {
        &self.tidemark
    }

    /// The domain's bucket.
    pub fn bucket(&self) -> String {
        self.path("bucket").display().to_string()
    }

    /// Makes an empty image, a primary say.
    pub fn image(&self, name: &str, size_bytes: u64) -> PathBuf {
        let path = self.path(name);
        std::fs::File::create(&path).and_then(|file| file.set_len(size_bytes)).expect("a file in a test's own place");
        path
    }

    /// Where NBD clients find a disk, `vm/disk`.
    pub fn uri(&self, disk: &str) -> String {
        format!("nbd+unix:///d/{disk}?socket={}", self.path("nbd.sock").display())
    }

    /// Starts the daemon; it goes on starting on its own.
    pub fn start(&self) -> Daemon {
        let log = std::fs::File::options().append(true).create(true).open(self.path("drva.log"));
        let args = ["drva", "run", "--config"].into_iter().map(Into::into).chain([self.path("drva.toml")]);
        let mut command = self.tidemark.command(args.map(PathBuf::into_os_string));
        let child = command.stdout(Stdio::null()).stderr(log.expect("a file in a test's own place")).spawn();
        Daemon { child: child.expect("the binary was built"), site: self.dir.path().to_owned() }
    }

    /// Takes a daemon of this site that somebody else started.
    pub fn adopt(&self, child: Child) -> Daemon {
        Daemon { child, site: self.dir.path().to_owned() }
    }

    /// Starts the daemon and waits until it serves a disk.
    pub fn serve(&self, disk: &str) -> Daemon {
        let mut daemon = self.start();
        let uri = self.uri(disk);
        until("NBD server", || {
            assert_eq!(daemon.child.try_wait().expect("it is our child"), None, "{}", daemon.said());
            let asked = Command::new("nbdinfo").args(["--size", &uri]).output();
            asked.expect("nbdinfo is installed by scripts/install").status.success()
        });
        daemon
    }

    /// What a command of `tidemark drva` answers.
    pub fn drva(&self, args: &[&str]) -> Value {
        let socket = self.path("api.sock").display().to_string();
        self.tidemark.json(["drva", "--socket", &socket].iter().chain(args))
    }

    /// The status of the domain.
    pub fn status(&self) -> Value {
        self.drva(&["status", "d"])
    }

    /// The status of a disk, `vm/disk`.
    pub fn disk(&self, disk: &str) -> Value {
        let status = self.status();
        let named = |found: &&Value| disk == format!("{}/{}", text(&found["vm"]), text(&found["disk"]));
        let found = status["disks"].as_array().and_then(|disks| disks.iter().find(named));
        found.unwrap_or_else(|| panic!("no disk {disk}: {status}")).clone()
    }

    /// Waits until a disk is `protected`, `gap`, ...
    pub fn until_disk_is(&self, disk: &str, state: &str) {
        until(&format!("{disk} that is {state}"), || self.disk(disk)["state"]["is"] == state);
    }

    /// Waits until everything acknowledged is in the bucket.
    pub fn drain(&self) {
        let drained = self.drva(&["drain", "d"]);
        assert_eq!(drained["complete"], true, "{drained}");
    }

    /// A disk as the bucket has it at a point.
    pub fn restored(&self, disk: &str, point: &str) -> PathBuf {
        self.restored_of(&self.bucket(), disk, point)
    }

    /// Like [`Self::restored`], of a bucket that is elsewhere.
    pub fn restored_of(&self, bucket: &str, disk: &str, point: &str) -> PathBuf {
        let out = self.path("restored.raw");
        std::fs::remove_file(&out).ok();
        self.tidemark.ok(["export", bucket, "--disk", disk, "--at", point, &out.display().to_string()]);
        out
    }

    /// The domain as its bucket tells it.
    pub async fn reader(&self) -> Domain {
        let url = self.bucket().parse().expect("a directory is a bucket");
        let bucket = Bucket::open(&url, &BucketOptions::default()).expect("it is there");
        Domain::open(bucket.read_only(), ReaderOptions::default(), Env::system()).await.expect("it holds a domain")
    }
}

/// A member that is a text.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    site: PathBuf,
}

impl Daemon {
    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Stops it as a service manager does.
    pub fn stop(mut self) {
        signal(self.child.id(), "TERM");
        let status = self.child.wait().expect("it is our child");
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }

    /// What it said over all its lives.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.site.join("drva.log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
