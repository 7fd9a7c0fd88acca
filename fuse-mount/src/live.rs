//! Writable recovery disks as a tree: `<vm>/<disk>.raw`, each an overlay over its point.
//!
//! What is shown is fixed when the tree is made. A disk that is hydrated whole hands its local file to the kernel, so that whoever
//! opens it read-only from then on reads it without us.
//! Not here: what a write does to the local file (`tidemark-overlay`), hydrating, FUSE ([`crate::adapter`]).

use crate::error::{Error, Result};
use crate::fs::{Answer, Attr, DirEntry, DiskFs, Ino, NodeKind, ReadAnswer, SeekTo, Totals, Validity, WriteAnswer};
use crate::names::escape;
use crate::tree::{SUFFIX, disks_by_vm};
use bytes::Bytes;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tidemark_env::Env;
use tidemark_format::{DiskId, TimeNs, with_causes};
use tidemark_overlay::{ImageSource, Overlay, UNIT_BYTES};
use tidemark_reader::{Domain, Point};

/// A recovery disk and where it is shown.
#[derive(Clone, Debug)]
pub struct LiveDisk {
    /// Which disk it is of.
    pub id: DiskId,
    /// The VM that it belongs to.
    pub vm: String,
    /// Its name within the VM.
    pub name: String,
    /// Time of the point that it stands on.
    pub time: TimeNs,
    /// The disk.
    pub overlay: Arc<Overlay>,
}

/// A tree of recovery disks.
#[derive(Debug)]
pub struct LiveTree {
    /// VMs by file name, ascending, each with its disks by file name.
    vms: Vec<Vm>,
}

#[derive(Debug)]
struct Vm {
    name: String,
    disks: Vec<(String, LiveDisk)>,
}

/// Disks of one VM at most.
const DISKS_MAX: u64 = 1 << 20;

enum Node<'a> {
    Root,
    Vm(&'a Vm),
    Disk(&'a LiveDisk),
}

impl LiveTree {
    /// A tree of these disks. Of two with one name the later has its number in its file's name.
    pub fn new(disks: impl IntoIterator<Item = LiveDisk>) -> Self {
        let mut vms: Vec<Vm> = Vec::new();
        for disk in disks {
            let (vm, name) = (escape(&disk.vm), escape(&disk.name) + SUFFIX);
            let at = vms.binary_search_by(|other| other.name.as_str().cmp(&vm)).unwrap_or_else(|at| {
                vms.insert(at, Vm { name: vm, disks: Vec::new() });
                at
            });
            let disks = &mut vms[at].disks;
            let place = |disks: &[(String, LiveDisk)], name: &str| {
                disks.binary_search_by(|(other, _)| other.as_str().cmp(name))
            };
            match place(disks, &name) {
                Err(at) => disks.insert(at, (name, disk)),
                Ok(_) => {
                    let name = format!("{}~{}{SUFFIX}", escape(&disk.name), disk.id);
                    if let Err(at) = place(disks, &name) {
                        disks.insert(at, (name, disk));
                    }
                }
            }
        }
        Self { vms }
    }

    /// The number of a VM, and of its disk from 1 on.
    fn ino(vm: usize, disk: usize) -> Ino {
        Ino::new((vm as u64 + 1) * DISKS_MAX + disk as u64)
    }

    fn node(&self, ino: Ino) -> Result<Node<'_>> {
        let stale = Error::Stale { ino: ino.get() };
        if ino == Ino::ROOT {
            return Ok(Node::Root);
        }
        let (vm, disk) = (ino.get() / DISKS_MAX, ino.get() % DISKS_MAX);
        let vm = vm.checked_sub(1).and_then(|vm| self.vms.get(vm as usize));
        match (vm, disk) {
            (Some(vm), 0) => Ok(Node::Vm(vm)),
            (Some(vm), disk) => vm.disks.get(disk as usize - 1).map(|(_, disk)| Node::Disk(disk)).ok_or(stale),
            (None, _) => Err(stale),
        }
    }

    fn attr(&self, ino: Ino) -> Result<Attr> {
        let newest = |disks: &mut dyn Iterator<Item = &LiveDisk>| disks.map(|disk| disk.time).max().unwrap_or_default();
        let (kind, size_bytes, changed) = match self.node(ino)? {
            Node::Root => {
                let all = &mut self.vms.iter().flat_map(|vm| &vm.disks).map(|(_, disk)| disk);
                (NodeKind::Directory, 0, newest(all))
            }
            Node::Vm(vm) => (NodeKind::Directory, 0, newest(&mut vm.disks.iter().map(|(_, disk)| disk))),
            Node::Disk(disk) => (NodeKind::Disk, disk.overlay.size_bytes(), disk.time),
        };
        Ok(Attr { ino, kind, size_bytes, changed, validity: Validity::Forever })
    }

    fn list(&self, ino: Ino) -> Result<Vec<DirEntry>> {
        match self.node(ino)? {
            Node::Root => Ok((0..)
                .zip(&self.vms)
                .map(|(at, vm)| entry(Self::ino(at, 0), NodeKind::Directory, &vm.name))
                .collect()),
            Node::Vm(vm) => Ok((1..)
                .zip(&vm.disks)
                .map(|(at, (name, _))| entry(Ino::new(ino.get() + at), NodeKind::Disk, name))
                .collect()),
            Node::Disk(_) => Err(Error::NotADirectory { ino: ino.get() }),
        }
    }

    fn attributes(&self, ino: Ino) -> Result<Vec<(&'static str, String)>> {
        let Node::Disk(disk) = self.node(ino)? else { return Ok(Vec::new()) };
        let (stats, finished) = (disk.overlay.stats(), disk.overlay.finished().is_some());
        let hydrated = (stats.units.clean + stats.units.dirty) * UNIT_BYTES;
        Ok(vec![
            ("user.tidemark.vm", disk.vm.clone()),
            ("user.tidemark.disk", disk.name.clone()),
            ("user.tidemark.of", disk.overlay.source().identity()),
            ("user.tidemark.hydrated_bytes", hydrated.min(stats.size_bytes).to_string()),
            ("user.tidemark.dirty_bytes", (stats.units.dirty * UNIT_BYTES).min(stats.size_bytes).to_string()),
            ("user.tidemark.finished", finished.to_string()),
        ])
    }
}

/// Opens the overlay of every disk that can be restored at `at`, as `DIR/<vm>/<disk>.raw` and `.map`, and makes those that are
/// not there.
///
/// # Errors
/// If there is no such point, a disk cannot be read there, or a local file is not what it must be.
pub async fn open_disks(domain: &Domain, at: Point, dir: &Path, env: &Env) -> Result<Vec<LiveDisk>> {
    let mut disks = Vec::new();
    for (vm, names) in disks_by_vm(&domain.timeline(), at.lsn) {
        let dir = dir.join(vm);
        std::fs::create_dir_all(&dir).map_err(|source| Error::Local { path: dir.clone(), source })?;
        for (file, disk) in names {
            let image = domain.disk(disk.id, at.lsn).await.map_err(|error| Error::Read {
                what: format!("open disk {} at lsn {}", disk.id, at.lsn),
                kind: error.kind(),
                source: error.into(),
            })?;
            let stem = file.strip_suffix(SUFFIX).unwrap_or(&file).to_owned();
            let (dir, env) = (dir.clone(), env.clone());
            let opened = tokio::task::spawn_blocking(move || {
                Overlay::open_at(&dir, &stem, Arc::new(ImageSource::new(image)), &env)
            });
            let opened = opened.await.map_err(|_| Error::Panicked { what: "open an overlay" })?;
            let overlay =
                opened.map_err(|error| Error::Overlay { disk: format!("{}/{}", disk.vm, disk.name), source: error })?;
            disks.push(LiveDisk { id: disk.id, vm: disk.vm, name: disk.name, time: at.time, overlay });
        }
    }
    Ok(disks)
}

fn entry(ino: Ino, kind: NodeKind, name: &str) -> DirEntry {
    DirEntry { ino, kind, name: name.into() }
}

fn failed(error: tidemark_overlay::Error) -> Error {
    match error {
        tidemark_overlay::Error::NoSpace { .. } => Error::NoSpace { what: with_causes(&error) },
        error => Error::Read { what: "use a recovery disk".into(), kind: error.kind(), source: error.into() },
    }
}

impl DiskFs for LiveTree {
    type File = Overlay;

    fn lookup(&self, parent: Ino, name: &OsStr) -> Answer<Attr> {
        let found = self.list(parent).and_then(|entries| {
            let missing = || Error::NoEntry { name: name.to_string_lossy().into_owned() };
            let found = entries.into_iter().find(|entry| entry.name == name).ok_or_else(missing)?;
            self.attr(found.ino)
        });
        Answer::Now(found)
    }

    fn forget(&self, _ino: Ino, _lookups: u64) {}

    fn getattr(&self, ino: Ino) -> Answer<Attr> {
        Answer::Now(self.attr(ino))
    }

    fn readlink(&self, ino: Ino) -> Answer<OsString> {
        Answer::Now(Err(Error::NotALink { ino: ino.get() }))
    }

    fn readdir(&self, ino: Ino) -> Answer<Vec<DirEntry>> {
        Answer::Now(self.list(ino))
    }

    fn open(&self, ino: Ino) -> Answer<Arc<Overlay>> {
        Answer::Now(match self.node(ino) {
            Ok(Node::Disk(disk)) => Ok(disk.overlay.clone()),
            Ok(_) => Err(Error::IsADirectory { ino: ino.get() }),
            Err(error) => Err(error),
        })
    }

    fn read(&self, file: &Arc<Overlay>, offset: u64, len: u32, hit: &mut dyn FnMut(&[u8])) -> ReadAnswer {
        if file.read_now(offset, len as usize, hit) {
            return ReadAnswer::Hit;
        }
        let file = file.clone();
        ReadAnswer::Later(Box::pin(async move { file.read(offset, len as usize).await.map_err(failed) }))
    }

    fn seek(&self, file: &Arc<Overlay>, offset: u64, to: SeekTo) -> Answer<u64> {
        let file = file.clone();
        Answer::later(async move {
            let found = match to {
                SeekTo::Data => file.next_data(offset).await,
                SeekTo::Hole => file.next_hole(offset).await,
            };
            found.map_err(failed)?.ok_or(Error::NothingBeyond { offset })
        })
    }

    fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        let value = self.attributes(ino)?.into_iter().find(|(key, _)| name == *key);
        let missing = || Error::NoAttribute { name: name.to_string_lossy().into_owned() };
        value.map(|(_, value)| value.into_bytes()).ok_or_else(missing)
    }

    fn listxattr(&self, ino: Ino) -> Result<Vec<&'static str>> {
        Ok(self.attributes(ino)?.into_iter().map(|(key, _)| key).collect())
    }

    fn totals(&self) -> Totals {
        let disks = self.vms.iter().flat_map(|vm| &vm.disks);
        disks.fold(Totals::default(), |sum, (_, disk)| Totals {
            size_bytes: sum.size_bytes.saturating_add(disk.overlay.size_bytes()),
            disks: sum.disks + 1,
        })
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn write(&self, file: &Arc<Overlay>, offset: u64, bytes: &[u8]) -> WriteAnswer {
        match file.write_now(offset, bytes) {
            Ok(true) => WriteAnswer::Done,
            Ok(false) => {
                let (file, bytes) = (file.clone(), Bytes::copy_from_slice(bytes));
                WriteAnswer::Later(Box::pin(async move { file.write(offset, bytes).await.map_err(failed) }))
            }
            Err(error) => WriteAnswer::Failed(failed(error)),
        }
    }

    fn discard(&self, file: &Arc<Overlay>, range: Range<u64>) -> Answer<()> {
        let file = file.clone();
        let range = range.start..range.end.min(file.size_bytes());
        if range.is_empty() {
            return Answer::Now(Ok(()));
        }
        Answer::later(async move { file.discard(range).await.map_err(failed) })
    }

    fn flush(&self, file: &Arc<Overlay>) -> Answer<()> {
        let file = file.clone();
        Answer::later(async move { file.flush().await.map_err(failed) })
    }

    fn local_file(&self, file: &Arc<Overlay>) -> Option<File> {
        file.finished().and_then(|_| file.local_file())
    }
}
