//! A domain opened for reading: its index and the log behind it, and what all its images share.

use crate::cache::{ImageCache, lock};
use crate::error::{Error, Result};
use crate::frames::FrameStore;
use crate::image::DiskImage;
use crate::index::Index;
use crate::maps::MapCache;
use crate::options::{IndexUse, ReaderOptions};
use crate::pins::Pins;
use crate::timeline::{IndexMemory, Timeline};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tidemark_bucket::ReadOnly;
use tidemark_env::Env;
use tidemark_format::{BaseRef, DiskId, Epoch, ErrorKind, Genesis, Hint, Lsn, ObjectKey, Root, Seq, with_causes};
use tidemark_history::{Bounded, Heads, Log, Roots, Segment, Tables, Walk, truth, within};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};

/// A protected domain, opened for reading. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Domain {
    pub(crate) inner: Arc<Inner>,
}

/// What the images of a domain share.
pub(crate) struct Inner {
    pub(crate) bucket: ReadOnly,
    pub(crate) options: ReaderOptions,
    pub(crate) env: Env,
    pub(crate) runtime: Handle,
    pub(crate) frames: Arc<FrameStore>,
    pub(crate) cache: ImageCache,
    pub(crate) maps: MapCache,
    /// Bytes that may still be read ahead, in KiB.
    pub(crate) prefetch_room: Arc<Semaphore>,
    pub(crate) genesis: Arc<Genesis>,
    timeline: ArcSwap<Timeline>,
    refreshing: tokio::sync::Mutex<()>,
    images: Mutex<HashMap<(DiskId, Lsn), Weak<DiskImage>>>,
    bases: Mutex<HashMap<ObjectKey, Arc<OnceCell<Arc<Segment>>>>>,
    heads: Heads,
    roots: Roots,
    tables: Arc<Tables>,
    /// Heads of segments that the index covers.
    indexed: Bounded<ObjectKey, Arc<Segment>>,
    pins: Option<Arc<Pins>>,
}

/// Memory that a reader takes at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Front indexes of the log.
    pub log: IndexMemory,
    /// Front indexes of base objects, in bytes.
    pub base_bytes: u64,
    /// Disk contents ready to be handed out, in bytes.
    pub cache_bytes: u64,
    /// Decoded frames, in bytes.
    pub frame_bytes: u64,
    /// Resolved extent maps, in bytes.
    pub map_bytes: u64,
    /// Tables of the index, and heads of segments that it covers, in bytes.
    pub index_bytes: u64,
}

impl Domain {
    /// Opens the domain in `bucket`: reads genesis, the newest root and the events of the index, then claims, CUTs and the heads
    /// of the segments that the index does not cover, and checks the chain. Never lists. An index that cannot be believed is
    /// left aside, with a warning: the log alone is the truth. Must be called on a tokio runtime, which then also does the
    /// reading ahead.
    ///
    /// # Errors
    /// `NoDomain`; `Missing`, `Chain` or `Format` naming the first object that is not as it must be; store errors.
    pub async fn open(bucket: ReadOnly, options: ReaderOptions, env: Env) -> Result<Self> {
        let key = ObjectKey::Genesis;
        let copy = async {
            match options.index {
                IndexUse::IfThere => bucket.get(&ObjectKey::RootCopy).await.ok(),
                IndexUse::Never => None,
            }
        };
        let all = async { Ok::<_, Error>(futures::join!(bucket.get(&key), bucket.get(&ObjectKey::Hint), copy)) };
        let (genesis, hint, copy) = within(options.request_deadline, || format!("read {key}"), all).await?;
        let genesis = genesis.map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::NoDomain { location: bucket.location() },
            _ => Error::Store { key, source },
        })?;
        let genesis = Arc::new(Genesis::decode(&genesis).map_err(|source| Error::Format { key, source })?);
        //= SPEC.md#records
        //# RC-2
        // The hint is advisory: without one, or with a bad one, the walk takes a little longer.
        let hint = hint.ok().and_then(|bytes| Hint::decode(&bytes, genesis.domain).ok());
        let copy = copy.and_then(|bytes| Root::decode_copy(&bytes, genesis.domain).ok());
        let look = Look {
            heads: Heads::new(bucket.clone(), genesis.domain, &options.heads()),
            roots: Roots::new(bucket.clone(), genesis.domain),
            tables: Arc::new(Tables::new(bucket.clone(), genesis.domain, options.index_cache_bytes_max)),
            hint: hint.map(|hint| (hint.epoch, hint.seq)),
            pins: options.pin.clone().map(|pin| Arc::new(Pins::new(pin, genesis.domain, env.clone()))),
            genesis,
            deadline: options.request_deadline,
        };
        let timeline = match options.index {
            IndexUse::IfThere => look.at_index(copy).await?,
            IndexUse::Never => look.at_log().await?,
        };
        let prefetch_kib = usize::try_from(options.prefetch_in_flight_bytes_max >> 10).unwrap_or(usize::MAX);
        let inner = Inner {
            frames: Arc::new(FrameStore::new(bucket.clone(), &options)),
            cache: ImageCache::new(options.cache_bytes_max),
            maps: MapCache::new(options.map_cache_bytes_max),
            prefetch_room: Arc::new(Semaphore::new(prefetch_kib.min(Semaphore::MAX_PERMITS))),
            runtime: Handle::current(),
            timeline: ArcSwap::from_pointee(timeline),
            refreshing: tokio::sync::Mutex::new(()),
            images: Mutex::default(),
            bases: Mutex::default(),
            indexed: Bounded::new(options.head_cache_bytes_max),
            genesis: look.genesis,
            heads: look.heads,
            roots: look.roots,
            tables: look.tables,
            pins: look.pins,
            bucket,
            options,
            env,
        };
        let inner = Arc::new(inner);
        if let Some(pins) = inner.pins.clone() {
            inner.runtime.spawn(prolong(pins, Arc::downgrade(&inner)));
        }
        Ok(Self { inner })
    }

    /// Ends the pins of this reader, so that what it kept may go at once. Reading on is not safe then.
    ///
    /// # Errors
    /// Store errors; pins that are not ended run out by themselves.
    pub async fn unpin(&self) -> Result<()> {
        match &self.inner.pins {
            Some(pins) => pins.prolong(true).await,
            None => Ok(()),
        }
    }

    /// Looks for what was written since. If nothing was: two requests.
    ///
    /// # Errors
    /// As [`Self::open`]; what was known stays valid then. `Retracted` if the bucket lost what was final.
    pub async fn refresh(&self) -> Result<Arc<Timeline>> {
        let inner = &self.inner;
        let _alone = inner.refreshing.lock().await;
        let before = self.timeline();
        let log = inner.heads.walk(Walk::refresh(before.log.clone())).await?;
        let timeline = match before.continued(&log)? {
            Some(timeline) => timeline,
            // A takeover replaced segments: the events of those are no longer true.
            None => match before.index.clone() {
                Some(index) if log.stem.is_some() => {
                    let events = index.events().await?;
                    index.timeline(&inner.genesis, &events, log)?
                }
                Some(index) => return Err(not_through(&index.root)),
                None => Timeline::build(Arc::clone(&inner.genesis), None, before.retained.clone(), &[], log)?,
            },
        };
        let timeline = Arc::new(inner.moved_up(timeline).await);
        inner.timeline.store(Arc::clone(&timeline));
        Ok(timeline)
    }

    /// The history as of the last look.
    pub fn timeline(&self) -> Arc<Timeline> {
        self.inner.timeline.load_full()
    }

    /// The contents of a disk right after `at`. Images of one disk and LSN are shared.
    ///
    /// # Errors
    /// `NoDisk`, `NotRestorable`, `BeforeHistory` or `AfterHistory`.
    pub async fn disk(&self, disk: DiskId, at: Lsn) -> Result<Arc<DiskImage>> {
        let inner = &self.inner;
        let timeline = self.timeline();
        // A takeover may have given a provisional LSN to another epoch: then the old image is not this point's.
        let shared = |images: &HashMap<(DiskId, Lsn), Weak<DiskImage>>| {
            let image = images.get(&(disk, at)).and_then(Weak::upgrade)?;
            (image.timeline.epoch_of(at) == timeline.epoch_of(at)).then_some(image)
        };
        if let Some(image) = shared(&lock(&inner.images)) {
            return Ok(image);
        }
        let image = DiskImage::open(inner, &timeline, disk, at).await?;
        let mut images = lock(&inner.images);
        if let Some(other) = shared(&images) {
            return Ok(other);
        }
        images.retain(|_, image| image.strong_count() > 0);
        images.insert((disk, at), Arc::downgrade(&image));
        Ok(image)
    }

    /// The bucket that the domain is read from.
    pub fn bucket(&self) -> &ReadOnly {
        &self.inner.bucket
    }

    /// The runtime that it was opened on.
    pub fn runtime(&self) -> &Handle {
        &self.inner.runtime
    }

    /// What the domain is.
    pub fn genesis(&self) -> &Genesis {
        &self.inner.genesis
    }

    /// Memory taken at the moment.
    pub fn memory(&self) -> MemoryUse {
        let inner = &self.inner;
        let bases: u64 =
            lock(&inner.bases).values().filter_map(|cell| Some(cell.get()?.head.memory_bytes() as u64)).sum();
        MemoryUse {
            log: self.timeline().memory(),
            base_bytes: bases,
            cache_bytes: inner.cache.used_bytes(),
            frame_bytes: inner.frames.kept_bytes(),
            map_bytes: inner.maps.used_bytes(),
            index_bytes: inner.tables.used_bytes() + inner.indexed.used_bytes(),
        }
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({} in {})", self.inner.genesis.domain, self.inner.bucket.location())
    }
}

/// What it takes to look at a domain for the first time.
struct Look {
    genesis: Arc<Genesis>,
    heads: Heads,
    roots: Roots,
    tables: Arc<Tables>,
    hint: Option<(Epoch, Seq)>,
    deadline: Duration,
    pins: Option<Arc<Pins>>,
}

impl Look {
    /// The history by the log alone.
    async fn at_log(&self) -> Result<Timeline> {
        let truth = truth(&self.heads, &self.roots, self.hint).await?;
        //= SPEC.md#retention
        //# RN-1
        let retained = truth.ledger.map(|ledger| ledger.retained.clone());
        Timeline::build(Arc::clone(&self.genesis), None, retained, &[], truth.log)
    }

    /// The history by the index and the log behind it; by the log alone if there is no index, or none to be believed.
    async fn at_index(&self, copy: Option<Root>) -> Result<Timeline> {
        let root = async { Ok(self.roots.for_reading(copy).await?) };
        let found = match within(self.deadline, || "look for the newest root".into(), root).await {
            Ok(None) => return self.at_log().await,
            Ok(Some(root)) => match self.behind(root.clone()).await {
                Err(error) if error.kind() == ErrorKind::NotFound => self.behind_newest(root, error).await,
                found => found,
            },
            Err(error) => Err(error),
        };
        //= SPEC.md#roots
        //# RT-5
        match found {
            Err(error) if error.kind() != ErrorKind::Retry => {
                tracing::warn!(
                    domain = %self.genesis.domain,
                    error = %with_causes(&error),
                    "the index cannot be used, reading the whole log instead: `tidemark index rebuild` makes it anew"
                );
                self.at_log().await
            }
            found => found,
        }
    }

    /// The history behind the newest root, if that is another one than `old`, of which something is missing: its copy was old,
    /// and what it names was deleted.
    async fn behind_newest(&self, old: Root, error: Error) -> Result<Timeline> {
        let newest = async { Ok::<_, Error>(self.roots.newest(None).await?) };
        match within(self.deadline, || "look for a newer root".into(), newest).await? {
            Some(root) if root.key() != old.key() => self.behind(root).await,
            _ => Err(error),
        }
    }

    async fn behind(&self, root: Root) -> Result<Timeline> {
        let mut root = Arc::new(root);
        if let Some(pins) = &self.pins {
            let pinned = async {
                while let Some(newer) = hold(pins, &self.roots, &root).await? {
                    root = Arc::new(newer);
                }
                Ok::<_, Error>(())
            };
            within(self.deadline, || "pin the newest root".into(), pinned).await?;
        }
        let index = Index { root, tables: Arc::clone(&self.tables) };
        let base = Log::behind(&index.root.through);
        let log = async { Ok(self.heads.walk(Walk::resume(base, self.hint)).await?) };
        let events = within(self.deadline, || "read the events of the index".into(), index.events());
        let (log, events) = futures::try_join!(log, events)?;
        if log.stem.is_none() {
            return Err(not_through(&index.root));
        }
        index.timeline(&self.genesis, &events, log)
    }
}

/// Pins a root; if it is no longer the newest one, says which is: that one has to be pinned instead. A store that does not let us
/// write is read without a pin.
async fn hold(pins: &Pins, roots: &Roots, root: &Arc<Root>) -> Result<Option<Root>> {
    match pins.hold(root).await {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::Denied => {
            tracing::warn!(error = %with_causes(&error), "reading without a pin: what maintenance deletes may be missed");
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    //= SPEC.md#deleting
    //# D-8
    Ok(roots.newest(Some(root)).await?.filter(|newest| newest.key() != root.key()))
}

/// Prolongs pins for as long as somebody has the domain open.
async fn prolong(pins: Arc<Pins>, domain: Weak<Inner>) {
    loop {
        tokio::time::sleep(pins.interval()).await;
        let end = domain.strong_count() == 0;
        if let Err(error) = pins.prolong(end).await {
            tracing::warn!(error = %with_causes(&error), "cannot prolong a pin");
        }
        if end {
            return;
        }
    }
}

fn not_through(root: &Root) -> Error {
    Error::Chain { key: root.key(), why: "the history does not pass through the end of its index".into() }
}

impl Inner {
    /// The same history behind a newer root, once many segments are not covered by the index. If there is no newer one, or it
    /// cannot be had, what is known is still true.
    async fn moved_up(&self, timeline: Timeline) -> Timeline {
        let uncovered = timeline.log.segments.len();
        if self.options.index == IndexUse::Never || uncovered <= self.options.unindexed_segments_max {
            return timeline;
        }
        let work = async {
            let Some(root) = self.roots.copy().await else { return Ok(None) };
            let Some(log) = timeline.log.rebased(&root.through) else { return Ok(None) };
            let root = Arc::new(root);
            if let Some(pins) = &self.pins
                && hold(pins, &self.roots, &root).await?.is_some()
            {
                // Something newer was published just now: the next refresh finds it.
                return Ok(None);
            }
            let index = Index { root, tables: Arc::clone(&self.tables) };
            let events = index.events().await?;
            index.timeline(&self.genesis, &events, log).map(Some)
        };
        match within(self.options.request_deadline, || "move up to a newer root".into(), work).await {
            Ok(Some(newer)) => newer,
            Ok(None) => timeline,
            Err(error) => {
                tracing::warn!(error = %with_causes(&error), uncovered, "cannot use the newer index; going on with the older one");
                timeline
            }
        }
    }

    /// The head of the segment that holds an LSN that the index covers.
    pub(crate) async fn indexed(&self, index: &Index, lsn: Lsn) -> Result<Arc<Segment>> {
        let row = index.segment_of(lsn).await?;
        let key = row.key();
        let weigh = |segment: &Arc<Segment>| segment.head.memory_bytes() as u64;
        let segment = self.indexed.get(key, weigh, self.heads.must(key)).await?;
        //= SPEC.md#tables-of-segments
        //# IX-6
        if segment.head.header.header_hash != row.header_hash || lsn < segment.first() || segment.last() < lsn {
            return Err(Error::Chain { key, why: "the index knows it by another header hash".into() });
        }
        Ok(segment)
    }

    /// The head of a base object that the log names, read once.
    pub(crate) async fn base(&self, base: &BaseRef, start: Lsn) -> Result<Arc<Segment>> {
        let key = ObjectKey::Base { role: base.role, epoch: base.epoch, seq: base.seq };
        let cell = Arc::clone(lock(&self.bases).entry(key).or_default());
        let segment = cell.get_or_try_init(|| self.heads.must(key)).await?;
        let header = &segment.head.header;
        //= SPEC.md#reader-rules
        //#
        if header.header_hash != base.header_hash {
            return Err(Error::Chain { key, why: "the log names another header hash".into() });
        }
        if header.first_lsn != start || header.last_lsn != start {
            let why = format!("it stands at lsn {}, its seeding began at {start}", header.first_lsn);
            return Err(Error::Chain { key, why });
        }
        Ok(Arc::clone(segment))
    }
}
