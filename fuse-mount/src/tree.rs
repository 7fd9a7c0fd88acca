//! A domain's history as a tree: every point in time is a directory of VMs with their disks.
//!
//! `lsn/<n>/<vm>/<disk>.raw` are the real directories and files; `latest`, `at/<time>` and `bookmarks/<name>` are links to one
//! of them, so a point has one path and its contents one place in the page cache. Names are resolved when they are
//! looked up: any LSN and any time of the history works, listings show a bounded sample.
//! Invariants: a disk is shown only at points from which it can be restored; what a number stands for never changes.
//! Not here: reading blocks (`tidemark-reader`), FUSE ([`crate::adapter`]).

use crate::error::{Error, Result};
use crate::fs::{Answer, Attr, DirEntry, DiskFs, Ino, NodeKind, ReadAnswer, SeekTo, Totals, Validity};
use crate::images::Images;
use crate::names::{escape, unescape};
use crate::nodes::{Node, Nodes, Shown};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tidemark_env::Env;
use tidemark_format::{ErrorKind, Lsn, with_causes};
use tidemark_reader::{DiskAt, DiskImage, Domain, Point, PointSpec, TimeText, Timeline};
use tokio::runtime::Handle;

/// Ending of every disk's file name.
pub(crate) const SUFFIX: &str = ".raw";

/// What a tree shows, and how fresh.
#[derive(Clone, Debug)]
pub struct TreeOptions {
    /// Show this point's VMs at the root, instead of all of time.
    pub at: Option<Point>,
    /// Looks for new writes at most this often.
    pub refresh_interval: Duration,
    /// Patience with one such look; then what is known is shown, and the next look waits as long.
    pub refresh_deadline: Duration,
    /// Points shown by listing `lsn` and `at`.
    pub list_points_max: usize,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self {
            at: None,
            refresh_interval: Duration::from_secs(1),
            refresh_deadline: Duration::from_secs(10),
            list_points_max: 64,
        }
    }
}

/// A domain's history as a tree of disk images.
#[derive(Clone)]
pub struct TimeTree {
    inner: Arc<Inner>,
}

struct Inner {
    domain: Domain,
    env: Env,
    options: TreeOptions,
    /// The only point shown, if not all are.
    single: Option<Shown>,
    nodes: Nodes,
    images: Images,
    freshness: Freshness,
    runtime: Handle,
}

struct Freshness {
    /// Monotonic time from which on the next look for new writes may begin.
    next_look: Mutex<Duration>,
    /// Held by whoever looks; the others wait and share the result.
    looking: tokio::sync::Mutex<()>,
}

impl TimeTree {
    /// The tree of an open domain.
    ///
    /// # Errors
    /// If `options.at` is no point of the domain.
    pub fn new(domain: Domain, options: TreeOptions, env: Env) -> Result<Self> {
        let timeline = domain.timeline();
        let single = match &options.at {
            None => None,
            Some(point) => Some(shown(&timeline, *point).ok_or_else(|| Error::NoEntry { name: point.to_string() })?),
        };
        let inner = Inner {
            nodes: Nodes::new(single.map_or(Node::Root, Node::Point)),
            images: Images::default(),
            freshness: Freshness {
                next_look: Mutex::new(env.clock.monotonic() + options.refresh_interval),
                looking: tokio::sync::Mutex::default(),
            },
            runtime: domain.runtime().clone(),
            domain,
            env,
            options,
            single,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Answers from what is known, or looks for new writes first if `wants_newest` and the last look is long ago. What is in
    /// memory is answered at once.
    fn answer<T, Found>(
        &self,
        wants_newest: bool,
        find: impl Fn(Arc<Inner>, Arc<Timeline>) -> Found + Send + 'static,
    ) -> Answer<T>
    where
        T: Send + 'static,
        Found: Future<Output = Result<T>> + Send + 'static,
    {
        let inner = self.inner.clone();
        if !(wants_newest && inner.is_stale()) {
            return self.at_once(find(inner.clone(), inner.domain.timeline()));
        }
        Answer::later(async move {
            inner.look_for_new_writes().await;
            find(inner.clone(), inner.domain.timeline()).await
        })
    }

    /// The answer of a future, now if it has it already.
    fn at_once<T>(&self, found: impl Future<Output = Result<T>> + Send + 'static) -> Answer<T> {
        let mut found = Box::pin(found);
        let _context = self.inner.runtime.enter();
        match pin!(&mut found).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Answer::Now(answer),
            Poll::Pending => Answer::Later(found),
        }
    }
}

/// Sets when the next look for new writes may begin, once this one ends in whatever way.
struct NextLook<'a> {
    inner: &'a Inner,
    pause: Duration,
}

impl Drop for NextLook<'_> {
    fn drop(&mut self) {
        let next = self.inner.env.clock.monotonic() + self.pause;
        *self.inner.freshness.next_look.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

impl Inner {
    fn is_stale(&self) -> bool {
        self.env.clock.monotonic() >= *self.freshness.next_look.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refreshes the timeline. If that fails the known one is still true, only older: said in the log, not to the caller.
    async fn look_for_new_writes(&self) {
        let _looking = self.freshness.looking.lock().await;
        if !self.is_stale() {
            return;
        }
        let patience = self.options.refresh_deadline;
        // Whoever asked may give up at any await: then, too, the next look waits as after a failure.
        let mut pause = NextLook { inner: self, pause: patience.max(self.options.refresh_interval) };
        let trouble = match tokio::time::timeout(patience, self.domain.refresh()).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(failed("look for new writes".into(), error)),
            Err(_) => Some(Error::Deadline { what: "look for new writes".into(), deadline: patience }),
        };
        if trouble.is_none() {
            pause.pause = self.options.refresh_interval;
        }
        drop(pause);
        if let Some(error) = trouble {
            let latest = self.domain.timeline().latest();
            tracing::warn!("{}; still showing {latest} as the newest", with_causes(&error));
        }
    }

    /// The point that a link of the tree leads to now.
    async fn resolve(&self, timeline: &Timeline, spec: &PointSpec) -> Result<Point> {
        let missing = || Error::NoEntry { name: spec.to_string() };
        let point = timeline.resolve(spec, self.env.clock.wall()).await;
        let point = point.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::FixRequest => missing(),
            _ => failed(format!("find {spec}"), error),
        })?;
        // Before the first write there is no point to show.
        if point.lsn == Lsn::ZERO { Err(missing()) } else { Ok(point) }
    }

    /// Attributes of a node, whatever its number.
    async fn attr(&self, timeline: &Timeline, ino: Ino, node: &Node) -> Result<Attr> {
        let directory =
            |changed, validity| Ok(Attr { ino, kind: NodeKind::Directory, size_bytes: 0, changed, validity });
        match node {
            Node::Root | Node::Times | Node::Lsns | Node::Bookmarks => {
                directory(timeline.latest().time, Validity::Brief)
            }
            Node::Latest | Node::At(_) | Node::Bookmark(_) => {
                let (point, target) = self.follow(timeline, node).await?;
                let size_bytes = target.len() as u64;
                Ok(Attr { ino, kind: NodeKind::Link, size_bytes, changed: point.time, validity: Validity::Brief })
            }
            Node::Point(point) | Node::Vm(point, _) | Node::Disk(point, _)
                if self.check_current(timeline, ino, *point).is_err() =>
            {
                Err(Error::Stale { ino: ino.get() })
            }
            Node::Point(shown) | Node::Vm(shown, _) => directory(shown.time, validity(timeline, *shown)),
            Node::Disk(shown, id) => {
                let disk = timeline.disks_at(shown.lsn).into_iter().find(|disk| disk.id == *id);
                let disk = disk.ok_or(Error::Stale { ino: ino.get() })?;
                Ok(Attr {
                    ino,
                    kind: NodeKind::Disk,
                    size_bytes: disk.size_bytes,
                    changed: shown.time,
                    validity: validity(timeline, *shown),
                })
            }
        }
    }

    /// Refuses a point that a takeover has cut off since the node was looked up; the kernel then looks its name up again.
    fn check_current(&self, timeline: &Timeline, ino: Ino, point: Shown) -> Result<()> {
        let current = timeline.epoch_of(point.lsn) == Some(point.epoch);
        if current { Ok(()) } else { Err(Error::Stale { ino: ino.get() }) }
    }

    /// Where a link leads: the point, and the text of the link.
    async fn follow(&self, timeline: &Timeline, link: &Node) -> Result<(Point, String)> {
        let (spec, up) = match link {
            Node::Latest => (PointSpec::Latest, ""),
            Node::At(text) => {
                let spec = text.parse().map_err(|_| Error::NoEntry { name: text.to_string() })?;
                (spec, "../")
            }
            Node::Bookmark(name) => (PointSpec::Bookmark(name.to_string()), "../"),
            other => return Err(Error::NotALink { ino: other.ino().get() }),
        };
        let point = self.resolve(timeline, &spec).await?;
        Ok((point, format!("{up}lsn/{}", point.lsn)))
    }

    /// The node that `name` stands for in the directory `parent`.
    async fn child(&self, timeline: &Timeline, parent: &Node, name: &str) -> Result<Node> {
        let missing = || Error::NoEntry { name: name.to_owned() };
        match parent {
            Node::Root => match name {
                "at" => Ok(Node::Times),
                "lsn" => Ok(Node::Lsns),
                "bookmarks" => Ok(Node::Bookmarks),
                "latest" => Ok(Node::Latest),
                _ => Err(missing()),
            },
            Node::Times => Ok(Node::At(name.into())),
            Node::Bookmarks => Ok(Node::Bookmark(unescape(name).ok_or_else(missing)?.into())),
            Node::Lsns => {
                let lsn: u64 = name.parse().map_err(|_| missing())?;
                // One name per point: no `007`, no `+7`.
                if lsn.to_string() != name {
                    return Err(missing());
                }
                let point = timeline.point_of(Lsn::new(lsn)).await;
                let point = point.map_err(|error| failed(format!("find lsn {lsn}"), error))?;
                point.and_then(|point| shown(timeline, point)).map(Node::Point).ok_or_else(missing)
            }
            Node::Point(point) => {
                let known = disks_by_vm(timeline, point.lsn).contains_key(name);
                if known { Ok(Node::Vm(*point, name.into())) } else { Err(missing()) }
            }
            Node::Vm(point, vm) => {
                let disks = disks_by_vm(timeline, point.lsn).remove(&**vm).unwrap_or_default();
                disks.get(name).map(|disk| Node::Disk(*point, disk.id)).ok_or_else(missing)
            }
            other => Err(Error::NotADirectory { ino: other.ino().get() }),
        }
    }

    /// Everything that a directory shows.
    async fn list(&self, timeline: &Timeline, dir: &Node) -> Result<Vec<DirEntry>> {
        let entry = |node: Node, kind, name: String| DirEntry { ino: node.ino(), kind, name: name.into() };
        let sample = async || {
            let sample = timeline.sample(self.options.list_points_max).await;
            sample.map_err(|error| failed("list points".into(), error))
        };
        let mut entries = match dir {
            Node::Root => vec![
                entry(Node::Times, NodeKind::Directory, "at".into()),
                entry(Node::Bookmarks, NodeKind::Directory, "bookmarks".into()),
                entry(Node::Latest, NodeKind::Link, "latest".into()),
                entry(Node::Lsns, NodeKind::Directory, "lsn".into()),
            ],
            Node::Times => {
                let sample = sample().await?;
                let mut names: Vec<String> = sample.iter().map(|point| TimeText(point.time).to_string()).collect();
                names.dedup();
                names.into_iter().map(|name| entry(Node::At(name.as_str().into()), NodeKind::Link, name)).collect()
            }
            Node::Lsns => {
                let mut points = sample().await?;
                points.push(timeline.latest());
                points.sort_unstable();
                points.dedup();
                let points = points.into_iter().filter_map(|point| shown(timeline, point));
                let dir = |point: Shown| entry(Node::Point(point), NodeKind::Directory, point.lsn.to_string());
                points.map(dir).collect()
            }
            Node::Bookmarks => {
                let mut names: Vec<&str> = timeline.bookmarks().iter().map(|mark| mark.name.as_str()).collect();
                names.sort_unstable();
                names.dedup();
                names.into_iter().map(|name| entry(Node::Bookmark(name.into()), NodeKind::Link, escape(name))).collect()
            }
            Node::Point(point) => disks_by_vm(timeline, point.lsn)
                .into_keys()
                .map(|vm| entry(Node::Vm(*point, vm.as_str().into()), NodeKind::Directory, vm))
                .collect(),
            Node::Vm(point, vm) => disks_by_vm(timeline, point.lsn)
                .remove(&**vm)
                .unwrap_or_default()
                .into_iter()
                .map(|(name, disk)| entry(Node::Disk(*point, disk.id), NodeKind::Disk, name))
                .collect(),
            other => return Err(Error::NotADirectory { ino: other.ino().get() }),
        };
        entries.dedup_by(|a, b| a.name == b.name);
        Ok(entries)
    }

    /// Extended attributes of a node, in the order in which they are listed.
    fn attributes(&self, timeline: &Timeline, node: &Node) -> Vec<(&'static str, String)> {
        let mut all = vec![("user.tidemark.domain", timeline.domain().to_string())];
        let (Node::Point(point) | Node::Vm(point, _) | Node::Disk(point, _)) = node else { return all };
        let finality = match validity(timeline, *point) {
            Validity::Forever => "final",
            Validity::Brief => "provisional",
        };
        all.push(("user.tidemark.lsn", point.lsn.to_string()));
        all.push(("user.tidemark.time", TimeText(point.time).to_string()));
        all.push(("user.tidemark.finality", finality.to_owned()));
        all.push(("user.tidemark.consistency", consistency(timeline, point.lsn)));
        if let Node::Disk(_, id) = node
            && let Some(disk) = timeline.disks_at(point.lsn).into_iter().find(|disk| disk.id == *id)
        {
            all.push(("user.tidemark.vm", disk.vm));
            all.push(("user.tidemark.disk", disk.name));
        }
        all
    }
}

/// A point of the timeline as the tree shows it; `None` outside the history.
fn shown(timeline: &Timeline, point: Point) -> Option<Shown> {
    timeline.epoch_of(point.lsn).map(|epoch| Shown { lsn: point.lsn, epoch, time: point.time })
}

/// A successor may still cut off what is not final, and use its name again.
fn validity(timeline: &Timeline, point: Shown) -> Validity {
    if point.lsn <= timeline.final_through() { Validity::Forever } else { Validity::Brief }
}

/// Every LSN is a crash-consistent cut of all disks; a bookmark exactly there may promise more.
fn consistency(timeline: &Timeline, lsn: Lsn) -> String {
    let marks = timeline.bookmarks();
    let here = marks.partition_point(|mark| mark.point.lsn < lsn);
    let level = marks[here..].iter().take_while(|mark| mark.point.lsn == lsn).map(|mark| mark.level).max();
    level.map_or("crash", |level| level.name()).to_owned()
}

/// File names of the VMs at a point, and in each the file names of the disks that can be restored there.
pub(crate) fn disks_by_vm(timeline: &Timeline, lsn: Lsn) -> BTreeMap<String, BTreeMap<String, DiskAt>> {
    let mut vms: BTreeMap<String, BTreeMap<String, DiskAt>> = BTreeMap::new();
    for disk in timeline.disks_at(lsn) {
        if disk.consistent_from.is_none_or(|from| from > lsn) {
            continue;
        }
        let disks = vms.entry(escape(&disk.vm)).or_default();
        let mut name = escape(&disk.name) + SUFFIX;
        if disks.contains_key(&name) {
            // Two live disks of one name are the writer's mistake; both must stay reachable.
            name = format!("{}~{}{SUFFIX}", escape(&disk.name), disk.id);
        }
        disks.insert(name, disk);
    }
    vms
}

impl DiskFs for TimeTree {
    type File = DiskImage;

    fn lookup(&self, parent: Ino, name: &OsStr) -> Answer<Attr> {
        let (parent, name) = match (self.inner.nodes.get(parent), name.to_str()) {
            (Err(error), _) => return Answer::Now(Err(error)),
            (_, None) => return Answer::Now(Err(Error::NoEntry { name: name.to_string_lossy().into_owned() })),
            (Ok(parent), Some(name)) => (parent, name.to_owned()),
        };
        let all_of_time = self.inner.single.is_none();
        let find = move |inner: Arc<Inner>, timeline: Arc<Timeline>| {
            let (parent, name) = (parent.clone(), name.clone());
            async move {
                let node = inner.child(&timeline, &parent, &name).await?;
                // Attributes first: a link that leads nowhere is not there, and gets no reference.
                let mut attr = inner.attr(&timeline, node.ino(), &node).await?;
                attr.ino = inner.nodes.refer(&node);
                Ok(attr)
            }
        };
        match self.answer(false, find.clone()) {
            // What is not there yet may be there after a look for new writes.
            Answer::Now(Err(Error::NoEntry { .. })) if all_of_time => self.answer(true, find),
            Answer::Now(found) => Answer::Now(found),
            Answer::Later(found) => {
                let tree = self.clone();
                Answer::later(async move {
                    match found.await {
                        Err(Error::NoEntry { .. }) if all_of_time => tree.answer(true, find).get().await,
                        found => found,
                    }
                })
            }
        }
    }

    fn forget(&self, ino: Ino, lookups: u64) {
        self.inner.nodes.forget(ino, lookups);
    }

    fn getattr(&self, ino: Ino) -> Answer<Attr> {
        let node = match self.inner.nodes.get(ino) {
            Ok(node) => node,
            Err(error) => return Answer::Now(Err(error)),
        };
        let inner = self.inner.clone();
        self.at_once(async move { inner.attr(&inner.domain.timeline(), ino, &node).await })
    }

    fn readlink(&self, ino: Ino) -> Answer<OsString> {
        match self.inner.nodes.get(ino) {
            Ok(node) => {
                let newest = follows_newest(&node);
                self.answer(newest, move |inner, timeline| {
                    let node = node.clone();
                    async move { Ok(inner.follow(&timeline, &node).await?.1.into()) }
                })
            }
            Err(error) => Answer::Now(Err(error)),
        }
    }

    fn readdir(&self, ino: Ino) -> Answer<Vec<DirEntry>> {
        match self.inner.nodes.get(ino) {
            Ok(node) => {
                let grows = matches!(node, Node::Times | Node::Lsns | Node::Bookmarks);
                self.answer(grows, move |inner, timeline| {
                    let node = node.clone();
                    async move { inner.list(&timeline, &node).await }
                })
            }
            Err(error) => Answer::Now(Err(error)),
        }
    }

    fn open(&self, ino: Ino) -> Answer<Arc<DiskImage>> {
        let (point, id) = match self.inner.nodes.get(ino) {
            Ok(Node::Disk(point, id)) => (point, id),
            Ok(_) => return Answer::Now(Err(Error::IsADirectory { ino: ino.get() })),
            Err(error) => return Answer::Now(Err(error)),
        };
        if let Some(file) = self.inner.images.get(point, id) {
            return Answer::Now(Ok(file));
        }
        let inner = self.inner.clone();
        Answer::later(async move {
            inner.check_current(&inner.domain.timeline(), ino, point)?;
            let image = inner.domain.disk(id, point.lsn).await;
            let image = image.map_err(|error| failed(format!("open disk {id} at lsn {}", point.lsn), error))?;
            // The timeline may have moved on meanwhile, and the reader shares images by LSN alone: what a takeover replaced
            // must not come back under the new number.
            inner.check_current(&inner.domain.timeline(), ino, point)?;
            if !inner.images.keep(point, id, &image) {
                inner.images.forget_idle();
                return Err(Error::Replaced { disk: id.to_string(), lsn: point.lsn.get() });
            }
            Ok(image)
        })
    }

    fn read(&self, file: &Arc<DiskImage>, offset: u64, len: u32, hit: &mut dyn FnMut(&[u8])) -> ReadAnswer {
        let len = file.size_bytes().saturating_sub(offset).min(u64::from(len)) as usize;
        if file.read_cached(offset, len, &mut *hit).is_some() || gather(file, offset, len, hit) {
            return ReadAnswer::Hit;
        }
        let file = file.clone();
        ReadAnswer::Later(Box::pin(async move {
            let bytes = file.read(offset, len).await;
            bytes.map_err(|error| {
                let (id, at) = (file.id(), file.at().lsn);
                failed(format!("read {len} bytes at {offset} of disk {id} at lsn {at}"), error)
            })
        }))
    }

    fn seek(&self, file: &Arc<DiskImage>, offset: u64, to: SeekTo) -> Answer<u64> {
        if offset >= file.size_bytes() {
            return Answer::Now(Err(Error::NothingBeyond { offset }));
        }
        let file = file.clone();
        Answer::later(async move {
            let found = match to {
                SeekTo::Data => file.next_data(offset).await,
                SeekTo::Hole => file.next_hole(offset).await,
            };
            let found = found.map_err(|error| {
                failed(format!("seek from {offset} of disk {} at lsn {}", file.id(), file.at().lsn), error)
            })?;
            found.ok_or(Error::NothingBeyond { offset })
        })
    }

    fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        let node = self.inner.nodes.get(ino)?;
        let all = self.inner.attributes(&self.inner.domain.timeline(), &node);
        let value = all.into_iter().find(|(key, _)| name == *key).map(|(_, value)| value.into_bytes());
        value.ok_or_else(|| Error::NoAttribute { name: name.to_string_lossy().into_owned() })
    }

    fn listxattr(&self, ino: Ino) -> Result<Vec<&'static str>> {
        let node = self.inner.nodes.get(ino)?;
        let all = self.inner.attributes(&self.inner.domain.timeline(), &node);
        Ok(all.into_iter().map(|(key, _)| key).collect())
    }

    fn totals(&self) -> Totals {
        let timeline = self.inner.domain.timeline();
        let lsn = self.inner.single.map_or(timeline.latest().lsn, |point| point.lsn);
        disks_by_vm(&timeline, lsn).into_values().flatten().fold(Totals::default(), |sum, (_, disk)| Totals {
            size_bytes: sum.size_bytes.saturating_add(disk.size_bytes),
            disks: sum.disks + 1,
        })
    }
}

/// A read across an edge of the cache's slices: if every part is at hand, they are copied together.
fn gather(file: &DiskImage, offset: u64, len: usize, hit: &mut dyn FnMut(&[u8])) -> bool {
    /// The cache lends no slice across a multiple of this.
    const SLICE_BYTES: u64 = 1 << 20;
    thread_local! { static WHOLE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) }; }
    let first = (SLICE_BYTES - offset % SLICE_BYTES) as usize;
    if len <= first || len - first > SLICE_BYTES as usize {
        return false;
    }
    WHOLE.with_borrow_mut(|whole| {
        whole.clear();
        let parts = [(offset, first), (offset + first as u64, len - first)];
        let all =
            parts.iter().all(|(at, len)| file.read_cached(*at, *len, |part| whole.extend_from_slice(part)).is_some());
        if all {
            hit(whole);
        }
        all
    })
}

/// A reader's error, with what was asked of it.
fn failed(what: String, error: tidemark_reader::Error) -> Error {
    Error::Read { what, kind: error.kind(), source: error.into() }
}

/// True for links whose target moves as writes arrive.
fn follows_newest(node: &Node) -> bool {
    matches!(node, Node::Latest | Node::At(_))
}
