//! Serves a file's bytes from memory through the FUSE adapter: what the adapter alone costs, without any history.
//!
//! `cargo run --release -p tidemark-fuse --example memory_disk -- FILE DIR [THREADS]`, then read `DIR/disk.raw`; `umount DIR`
//! ends it.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use tidemark_env::Env;
use tidemark_format::TimeNs;
use tidemark_fuse::*;

struct OneDisk {
    bytes: Arc<Vec<u8>>,
}

const DISK: Ino = Ino::new(2);

impl OneDisk {
    fn attr(&self, ino: Ino) -> Attr {
        let (kind, size_bytes) = match ino {
            DISK => (NodeKind::Disk, self.bytes.len() as u64),
            _ => (NodeKind::Directory, 0),
        };
        Attr { ino, kind, size_bytes, changed: TimeNs::new(0), validity: Validity::Forever }
    }
}

impl DiskFs for OneDisk {
    type File = Vec<u8>;

    fn lookup(&self, _parent: Ino, name: &OsStr) -> Answer<Attr> {
        Answer::Now(match name.to_str() {
            Some("disk.raw") => Ok(self.attr(DISK)),
            _ => Err(Error::NoEntry { name: name.to_string_lossy().into_owned() }),
        })
    }
    fn forget(&self, _ino: Ino, _lookups: u64) {}
    fn getattr(&self, ino: Ino) -> Answer<Attr> {
        Answer::Now(Ok(self.attr(ino)))
    }
    fn readlink(&self, ino: Ino) -> Answer<OsString> {
        Answer::Now(Err(Error::NotALink { ino: ino.get() }))
    }
    fn readdir(&self, _ino: Ino) -> Answer<Vec<DirEntry>> {
        Answer::Now(Ok(vec![DirEntry { ino: DISK, kind: NodeKind::Disk, name: "disk.raw".into() }]))
    }
    fn open(&self, _ino: Ino) -> Answer<Arc<Vec<u8>>> {
        Answer::Now(Ok(self.bytes.clone()))
    }
    fn read(&self, file: &Arc<Vec<u8>>, offset: u64, len: u32, hit: &mut dyn FnMut(&[u8])) -> ReadAnswer {
        let from = (offset as usize).min(file.len());
        let to = (from + len as usize).min(file.len());
        hit(&file[from..to]);
        ReadAnswer::Hit
    }
    fn seek(&self, file: &Arc<Vec<u8>>, offset: u64, to: SeekTo) -> Answer<u64> {
        Answer::Now(match to {
            _ if offset >= file.len() as u64 => Err(Error::NothingBeyond { offset }),
            SeekTo::Data => Ok(offset),
            SeekTo::Hole => Ok(file.len() as u64),
        })
    }
    fn getxattr(&self, _ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        Err(Error::NoAttribute { name: name.to_string_lossy().into_owned() })
    }
    fn listxattr(&self, _ino: Ino) -> Result<Vec<&'static str>> {
        Ok(Vec::new())
    }
    fn totals(&self) -> Totals {
        Totals { size_bytes: self.bytes.len() as u64, disks: 1 }
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, file, dir, threads @ ..] = args.as_slice() else {
        return Err("usage: memory_disk FILE DIR [THREADS]".into());
    };
    let mut options = ServeOptions::default();
    if let Some(threads) = threads.first() {
        options.answer_threads = threads.parse()?;
    }
    let disk = OneDisk { bytes: Arc::new(std::fs::read(file)?) };
    let mount = serve(Arc::new(disk), dir.as_ref(), &options, &Env::system())?;
    mount.wait()?;
    Ok(())
}
