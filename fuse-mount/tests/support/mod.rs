//! A toy tree for tests of the mount itself: what each file does is in its name.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up must fail it")]
use bytes::Bytes;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidemark_env::Env;
use tidemark_format::TimeNs;
use tidemark_fuse::*;
use tokio::sync::Semaphore;

/// Size of every toy disk.
pub(crate) const DISK_BYTES: u64 = 1 << 20;

/// The byte at an offset of every toy disk.
pub(crate) fn byte_at(offset: u64) -> u8 {
    (offset / 512 * 7 + offset % 251) as u8
}

/// Contents of a toy disk.
pub(crate) fn contents(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(byte_at).collect()
}

/// How a toy disk answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// At once, from memory.
    Hit,
    /// From a task.
    Miss,
    /// When the test adds a permit to [`Toy::gate`].
    Gated,
    /// Never.
    Silent,
    /// Panics on the thread that asks.
    Panic,
    /// Panics in the task that fetches.
    LatePanic,
    /// Answers that the data is damaged.
    Damaged,
}

/// Name of the file of each manner; inode numbers follow from the order.
pub(crate) const FILES: [(&str, Manner); 7] = [
    ("hit.raw", Manner::Hit),
    ("miss.raw", Manner::Miss),
    ("gated.raw", Manner::Gated),
    ("silent.raw", Manner::Silent),
    ("panic.raw", Manner::Panic),
    ("latepanic.raw", Manner::LatePanic),
    ("damaged.raw", Manner::Damaged),
];

/// The toy tree.
pub(crate) struct Toy {
    /// Permits let gated reads through, one each.
    pub(crate) gate: Arc<Semaphore>,
}

impl Toy {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { gate: Arc::new(Semaphore::new(0)) })
    }

    fn attr(ino: Ino) -> Attr {
        let (kind, size_bytes) = if ino == Ino::ROOT { (NodeKind::Directory, 0) } else { (NodeKind::Disk, DISK_BYTES) };
        Attr { ino, kind, size_bytes, changed: TimeNs::new(1_700_000_000_123_456_789), validity: Validity::Forever }
    }
}

impl DiskFs for Toy {
    type File = Manner;

    fn lookup(&self, _parent: Ino, name: &OsStr) -> Answer<Attr> {
        let at = FILES.iter().position(|(file, _)| name == *file);
        Answer::Now(match at {
            Some(at) => Ok(Self::attr(Ino::new(at as u64 + 2))),
            None => Err(Error::NoEntry { name: name.to_string_lossy().into_owned() }),
        })
    }
    fn forget(&self, _ino: Ino, _lookups: u64) {}
    fn getattr(&self, ino: Ino) -> Answer<Attr> {
        Answer::Now(Ok(Self::attr(ino)))
    }
    fn readlink(&self, ino: Ino) -> Answer<OsString> {
        Answer::Now(Err(Error::NotALink { ino: ino.get() }))
    }
    fn readdir(&self, _ino: Ino) -> Answer<Vec<DirEntry>> {
        let entry = |(at, (name, _)): (usize, &(&str, Manner))| DirEntry {
            ino: Ino::new(at as u64 + 2),
            kind: NodeKind::Disk,
            name: (*name).into(),
        };
        Answer::Now(Ok(FILES.iter().enumerate().map(entry).collect()))
    }
    fn open(&self, ino: Ino) -> Answer<Arc<Manner>> {
        let (_, manner) = FILES[ino.get() as usize - 2];
        Answer::later(async move { Ok(Arc::new(manner)) })
    }
    fn read(&self, file: &Arc<Manner>, offset: u64, len: u32, hit: &mut dyn FnMut(&[u8])) -> ReadAnswer {
        let len = u64::from(len).min(DISK_BYTES.saturating_sub(offset)) as usize;
        let found = move || Ok(Bytes::from(contents(offset, len)));
        match **file {
            Manner::Hit => {
                hit(&contents(offset, len));
                ReadAnswer::Hit
            }
            Manner::Miss => ReadAnswer::Later(Box::pin(async move { found() })),
            Manner::Gated => {
                let gate = self.gate.clone();
                ReadAnswer::Later(Box::pin(async move {
                    gate.acquire().await.expect("never closed").forget();
                    found()
                }))
            }
            Manner::Silent => ReadAnswer::Later(Box::pin(std::future::pending())),
            Manner::Panic => panic!("a bug in the tree"),
            Manner::LatePanic => ReadAnswer::Later(Box::pin(async move { panic!("a bug in a fetch") })),
            Manner::Damaged => ReadAnswer::Failed(Error::Read {
                what: "read a damaged block".into(),
                source: "hash differs".into(),
                kind: tidemark_format::ErrorKind::DataLoss,
            }),
        }
    }
    fn seek(&self, _file: &Arc<Manner>, offset: u64, to: SeekTo) -> Answer<u64> {
        Answer::Now(match to {
            _ if offset >= DISK_BYTES => Err(Error::NothingBeyond { offset }),
            SeekTo::Data => Ok(offset),
            SeekTo::Hole => Ok(DISK_BYTES),
        })
    }
    fn getxattr(&self, _ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        if name == "user.toy" {
            return Ok(b"yes".to_vec());
        }
        Err(Error::NoAttribute { name: name.to_string_lossy().into_owned() })
    }
    fn listxattr(&self, _ino: Ino) -> Result<Vec<&'static str>> {
        Ok(vec!["user.toy"])
    }
    fn totals(&self) -> Totals {
        Totals { size_bytes: DISK_BYTES * FILES.len() as u64, disks: FILES.len() as u64 }
    }
}

/// A toy mounted in a directory of its own.
pub(crate) struct ToyMount {
    pub(crate) toy: Arc<Toy>,
    pub(crate) mount: MountHandle,
    pub(crate) dir: PathBuf,
    _keep: tempfile::TempDir,
}

impl ToyMount {
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }
}

/// Options for tests: short patience everywhere.
pub(crate) fn quick() -> ServeOptions {
    ServeOptions {
        request_deadline: Duration::from_secs(20),
        busy_grace: Duration::from_millis(200),
        source_name: "tidemark:toy".into(),
        ..ServeOptions::default()
    }
}

/// Mounts a toy. Fails where FUSE is missing: a mount that cannot be tested must not look tested.
pub(crate) fn mount_toy(options: &ServeOptions) -> ToyMount {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path().canonicalize().unwrap();
    let toy = Toy::new();
    let mount = serve(toy.clone(), &dir, options, &Env::system()).unwrap();
    ToyMount { toy, mount, dir, _keep: keep }
}

/// True if the kernel's mount table has something at `dir`.
pub(crate) fn is_mounted(dir: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == dir.to_str())
}
