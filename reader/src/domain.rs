//! A domain opened for reading: the shell around [`crate::core::walk`], and what all its images share.

use crate::cache::{ImageCache, lock};
use crate::core::log::{Log, Segment};
use crate::core::walk::{Answer, Step, Walk, Want};
use crate::error::{Error, Result};
use crate::frames::FrameStore;
use crate::image::DiskImage;
use crate::maps::MapCache;
use crate::options::ReaderOptions;
use crate::timeline::{IndexMemory, Timeline};
use arc_swap::ArcSwap;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tidemark_bucket::ReadOnly;
use tidemark_env::Env;
use tidemark_format::{
    BaseRef, Claim, DiskId, DomainId, ErrorKind, Expect, Genesis, HEADER_BYTES, Hint, Lsn, ObjectKey, SegmentHead,
    SegmentHeader,
};
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
    genesis: Arc<Genesis>,
    timeline: ArcSwap<Timeline>,
    refreshing: tokio::sync::Mutex<()>,
    images: Mutex<HashMap<(DiskId, Lsn), Weak<DiskImage>>>,
    bases: Mutex<HashMap<ObjectKey, Arc<OnceCell<Arc<Segment>>>>>,
    heads: Heads,
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
}

impl Domain {
    /// Opens the domain in `bucket`: reads genesis, claims, CUTs and the heads of all segments, and checks the chain.
    /// Never lists. Must be called on a tokio runtime, which then also does the reading ahead.
    ///
    /// # Errors
    /// `NoDomain`; `Missing`, `Chain` or `Format` naming the first object that is not as it must be; store errors.
    pub async fn open(bucket: ReadOnly, options: ReaderOptions, env: Env) -> Result<Self> {
        let key = ObjectKey::Genesis;
        let both = async { Ok(futures::join!(bucket.get(&key), bucket.get(&ObjectKey::Hint))) };
        let (genesis, hint) = within(options.request_deadline, || format!("read {key}"), both).await?;
        let genesis = genesis.map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::NoDomain { location: bucket.location() },
            _ => Error::Store { key, source },
        })?;
        let genesis = Arc::new(Genesis::decode(&genesis).map_err(|source| Error::Format { key, source })?);
        //= SPEC.md#records
        //# RC-2
        // The hint is advisory: without one, or with a bad one, the walk takes a little longer.
        let hint = hint.ok().and_then(|bytes| Hint::decode(&bytes, genesis.domain).ok());
        let heads = Heads::new(bucket.clone(), genesis.domain, &options);
        let log = heads.walk(Walk::open(hint.map(|h| (h.epoch, h.seq)))).await?;
        let timeline = Timeline::build(Arc::clone(&genesis), None, log)?;
        let prefetch_kib = usize::try_from(options.prefetch_in_flight_bytes_max >> 10).unwrap_or(usize::MAX);
        let inner = Inner {
            frames: Arc::new(FrameStore::new(bucket.clone(), &options)),
            cache: ImageCache::new(options.cache_bytes_max),
            maps: MapCache::new(options.map_cache_bytes_max),
            prefetch_room: Arc::new(Semaphore::new(prefetch_kib.min(Semaphore::MAX_PERMITS))),
            runtime: Handle::current(),
            genesis,
            timeline: ArcSwap::from_pointee(timeline),
            refreshing: tokio::sync::Mutex::new(()),
            images: Mutex::default(),
            bases: Mutex::default(),
            heads,
            bucket,
            options,
            env,
        };
        Ok(Self { inner: Arc::new(inner) })
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
        let timeline = Arc::new(Timeline::build(Arc::clone(&inner.genesis), Some(&before), log)?);
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
        // A takeover may have given a provisional LSN to another object: then the old image is not this point's.
        let shared = |images: &HashMap<(DiskId, Lsn), Weak<DiskImage>>| {
            let image = images.get(&(disk, at)).and_then(Weak::upgrade)?;
            (image.timeline.object_of(at) == timeline.object_of(at)).then_some(image)
        };
        if let Some(image) = shared(&lock(&inner.images)) {
            return Ok(image);
        }
        let image = DiskImage::open(inner, &timeline, disk, at)?;
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
        }
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({} in {})", self.inner.genesis.domain, self.inner.bucket.location())
    }
}

impl Inner {
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

/// Reads claims and segment heads.
pub(crate) struct Heads {
    bucket: ReadOnly,
    domain: DomainId,
    next_uid: AtomicU32,
    /// What the first request for a head asks for at most.
    prefix_bytes_max: u64,
    /// How long heads were lately; 0 before the first.
    usual_bytes: AtomicU64,
    deadline: Duration,
    in_flight_max: usize,
    absent_retries_max: u32,
}

/// Requests for heads are for multiples of this.
const HEAD_BYTES_STEP: u64 = 8 << 10;
/// First pause before an object that must exist is asked for again; doubles.
const ABSENT_PAUSE: Duration = Duration::from_millis(20);

impl Heads {
    pub(crate) fn new(bucket: ReadOnly, domain: DomainId, options: &ReaderOptions) -> Self {
        Self {
            bucket,
            domain,
            next_uid: AtomicU32::new(0),
            prefix_bytes_max: options.head_bytes.max(HEADER_BYTES as u64),
            usual_bytes: AtomicU64::new(0),
            deadline: options.request_deadline,
            in_flight_max: options.requests_in_flight_max.max(1),
            absent_retries_max: options.absent_retries_max,
        }
    }

    /// Performs a walk, many requests at a time.
    pub(crate) async fn walk(&self, mut walk: Walk) -> Result<Log> {
        let mut flying = FuturesUnordered::new();
        loop {
            let step = if flying.len() < self.in_flight_max { walk.next()? } else { Step::Wait };
            match step {
                Step::Ask(want) => flying.push(async move { (want, self.answer(want).await) }),
                Step::Wait => {
                    let Some((want, answer)) = flying.next().await else { return Err(Error::TaskLost) };
                    walk.answer(want, answer?)?;
                }
                Step::Done => return walk.finish(),
            }
        }
    }

    /// The answer to one want, within the deadline.
    async fn answer(&self, want: Want) -> Result<Answer> {
        within(self.deadline, || format!("read {}", want.key), self.ask(want)).await
    }

    async fn ask(&self, want: Want) -> Result<Answer> {
        let mut pause = ABSENT_PAUSE;
        for attempt in 0.. {
            match self.look(want.key).await? {
                // Named by somebody, yet absent: some stores forget for a moment.
                Answer::Absent if want.must && attempt < self.absent_retries_max => tokio::time::sleep(pause).await,
                answer => return Ok(answer),
            }
            pause *= 2;
        }
        Ok(Answer::Absent)
    }

    async fn look(&self, key: ObjectKey) -> Result<Answer> {
        if let ObjectKey::Claim { .. } = key {
            return Ok(match self.bucket.get(&key).await {
                Ok(bytes) => match Claim::decode(&bytes, &self.expect(key)) {
                    Ok(_) => Answer::Claim,
                    Err(source) => Answer::Damaged(Error::Format { key, source }),
                },
                Err(error) if error.kind() == ErrorKind::NotFound => Answer::Absent,
                Err(source) => return Err(Error::Store { key, source }),
            });
        }
        match self.head(key).await {
            Ok(segment) => Ok(Answer::Head(segment)),
            Err(Error::Store { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Answer::Absent),
            Err(error @ Error::Format { .. }) => Ok(Answer::Damaged(error)),
            Err(error) => Err(error),
        }
    }

    fn expect(&self, key: ObjectKey) -> Expect {
        Expect { domain: self.domain, key }
    }

    /// The head of an object that must exist.
    pub(crate) async fn must(&self, key: ObjectKey) -> Result<Arc<Segment>> {
        match self.answer(Want { key, must: true }).await? {
            Answer::Head(segment) => Ok(segment),
            Answer::Damaged(error) => Err(error),
            Answer::Absent | Answer::Claim => Err(Error::Missing { key, why: "the log names it".into() }),
        }
    }

    /// Reads and decodes the head of a segment: one request if it fits into the usual prefix, else two. What does not
    /// decode is read once more, because bytes may break on the way.
    pub(crate) async fn head(&self, key: ObjectKey) -> Result<Arc<Segment>> {
        match self.head_once(key).await {
            Err(Error::Format { .. }) => self.head_once(key).await,
            other => other,
        }
    }

    async fn head_once(&self, key: ObjectKey) -> Result<Arc<Segment>> {
        let store = |source| Error::Store { key, source };
        let format = |source| Error::Format { key, source };
        let asked = self.prefix_bytes();
        let mut front = self.bucket.get_prefix(&key, asked).await.map_err(store)?;
        let header = SegmentHeader::decode(&front).map_err(format)?;
        if header.head_len > front.len() as u64 {
            front = self.bucket.get_prefix(&key, header.head_len).await.map_err(store)?;
        }
        let head = SegmentHead::decode(&front, &self.expect(key)).map_err(format)?;
        //= SPEC.md#reader-rules
        //#
        // A short answer is the whole object, so its length is known without another request.
        if (front.len() as u64) < asked {
            head.check_total_len(front.len() as u64).map_err(format)?;
        }
        self.met(head.header.head_len);
        let uid = self.next_uid.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Segment { uid, key, head }))
    }

    /// What to ask for so that one request very likely brings the whole head, and little else.
    fn prefix_bytes(&self) -> u64 {
        match self.usual_bytes.load(Ordering::Relaxed) {
            0 => self.prefix_bytes_max,
            usual => (usual + usual / 2).next_multiple_of(HEAD_BYTES_STEP).min(self.prefix_bytes_max),
        }
    }

    /// Remembers the length of a head; long ones are forgotten slowly. Two threads may overwrite each other: it is a guess.
    fn met(&self, head_len: u64) {
        let usual = self.usual_bytes.load(Ordering::Relaxed);
        self.usual_bytes.store(head_len.max(usual - usual / 8), Ordering::Relaxed);
    }
}

/// Gives up on `work` after `limit`, with an error of kind `Retry`.
pub(crate) async fn within<T>(
    limit: Duration,
    what: impl FnOnce() -> String,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Deadline { what: what(), limit }),
    }
}
