use super::*;
use crate::memory::MemoryStore;
use crate::{Bucket, Fault, Faults};
use async_trait::async_trait;
use futures::future::join_all;
use std::sync::atomic::AtomicU64;
use tidemark_env::SeededEntropy;
use tidemark_format::{Epoch, ErrorKind, Seq};

fn log(seq: u64) -> ObjectKey {
    ObjectKey::Log { epoch: Epoch::new(1), seq: Seq::new(seq) }
}

fn options() -> BucketOptions {
    BucketOptions { entropy: Arc::new(SeededEntropy::new(1)), ..BucketOptions::default() }
}

/// A store that takes a second for everything and knows the most that it ever had to do at once.
#[derive(Default)]
struct Gauge {
    inner: MemoryStore,
    requests: AtomicU64,
    bytes: AtomicU64,
    requests_max: AtomicU64,
    bytes_max: AtomicU64,
}

impl Gauge {
    async fn work(&self, bytes: u64) {
        let requests = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        self.requests_max.fetch_max(requests, Ordering::SeqCst);
        let under_way = self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.bytes_max.fetch_max(under_way, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.requests.fetch_sub(1, Ordering::SeqCst);
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
    }
}

#[async_trait]
impl Store for Gauge {
    async fn get(&self, key: &str, offset: u64, len_max: u64) -> Result<Got, Failure> {
        self.work(len_max).await;
        self.inner.get(key, offset, len_max).await
    }
    async fn put(&self, key: &str, body: Pieces, rule: PutRule) -> Result<Put, Failure> {
        self.work(body.len()).await;
        self.inner.put(key, body, rule).await
    }
    async fn head(&self, key: &str) -> Result<u64, Failure> {
        self.inner.head(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Failure> {
        self.inner.list(prefix).await
    }
    async fn delete(&self, key: &str) -> Result<(), Failure> {
        self.inner.delete(key).await
    }
    fn create(&self) -> CreatePromise {
        CreatePromise::Theirs
    }
}

#[tokio::test(start_paused = true)]
async fn requests_and_bytes_under_way_stay_within_their_limits() {
    let gauge = Arc::new(Gauge::default());
    let limits = BucketOptions { requests_in_flight_max: 6, bytes_in_flight_max: 4 << 20, ..options() };
    let bucket = Dispatch::new(gauge.clone(), "gauge".into(), limits);
    let body = |mib: usize| Pieces::from(vec![0; mib << 20]);
    // One body is larger than the limit: it goes alone.
    let keys: Vec<_> = (0..40).map(log).collect();
    let puts = keys.iter().enumerate().map(|(i, key)| bucket.put_immutable(key, body(if i == 20 { 9 } else { 1 })));
    for put in join_all(puts).await {
        assert!(put.unwrap());
    }
    assert_eq!(gauge.bytes_max.load(Ordering::SeqCst), 9 << 20);
    for got in join_all(keys.iter().map(|key| bucket.get_range(key, 0..4096))).await {
        assert_eq!(got.unwrap().len(), 4096);
    }
    assert_eq!(gauge.requests_max.load(Ordering::SeqCst), 6);
}

#[tokio::test(start_paused = true)]
async fn a_claim_does_not_wait_for_the_bytes_of_segments() {
    let limits = BucketOptions { bytes_in_flight_max: 1 << 20, ..options() };
    let bucket = Dispatch::new(Arc::new(Gauge::default()), "gauge".into(), limits);
    let (started, keys) = (Instant::now(), [log(1), log(2), log(3), log(4)]);
    let segments = join_all(keys.iter().map(|key| bucket.put_immutable(key, vec![0; 1 << 20].into())));
    let claim = async {
        assert!(bucket.create(&ObjectKey::writer_claim(Epoch::new(1)), "claim".into()).await.unwrap());
        started.elapsed()
    };
    let (_, took) = futures::join!(segments, claim);
    assert!(took < Duration::from_millis(1_100), "{took:?}");
    assert!(started.elapsed() >= Duration::from_secs(4), "the segments waited for each other");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_an_answer_is_repeated_after_its_time() {
    let faults = Faults::seeded(1).at("", Op::Get, Fault::Hang, 1);
    let bucket = Bucket::memory_with(options()).with_faults(faults);
    bucket.appender().put(&log(1), "segment").await.unwrap();
    let started = Instant::now();
    assert_eq!(bucket.read_only().get_range(&log(1), 0..7).await.unwrap(), "segment");
    assert!(started.elapsed() >= options().attempt_timeout);
    assert!(started.elapsed() <= options().attempt_timeout + Duration::from_secs(1));
    assert_eq!(bucket.meter().snapshot().total(Op::Get).requests, 2);
}

#[tokio::test(start_paused = true)]
async fn waits_between_attempts_grow_up_to_their_limit() {
    let bucket = Dispatch::new(Arc::new(Gauge::default()), "gauge".into(), options());
    let mut longest = options().backoff_first;
    for attempt in 1..40 {
        let pause = bucket.pause_after(attempt);
        assert!(pause <= longest && pause >= longest / 2, "{pause:?} after attempt {attempt}");
        longest = (longest * 2).min(options().backoff_max);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_finds_no_room_gives_up_in_time() {
    let limits = BucketOptions { requests_in_flight_max: 1, ..options() };
    let bucket = Bucket::memory_with(limits).with_faults(Faults::seeded(1).on("log/", None, Fault::Hang, 1.0));
    let (read, one, two) = (bucket.read_only(), log(1), log(2));
    let (first, second) = futures::join!(read.get(&one), read.get(&two));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    }
}
