//! Builds small buckets with the codec alone: what a writer would leave behind, without a writer.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "each test file uses its part")]

use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemark_bucket::{Bucket, BucketOptions, ReadOnly};
use tidemark_env::Env;
use tidemark_format::{
    BLOCK_BYTES, BaseRef, Claim, ClaimMode, Cut, CutDraft, DiskId, DiskState, DomainId, Epoch, Event, EventBody,
    Extent, Features, Genesis, Hint, Lsn, ObjectKey, Role, Row, RowKind, SealedHead, SegmentDraft, SegmentIdentity,
    SegmentKind, Seq, StoredFrame, TICK_NS_DEFAULT, Tail, TimeNs, TimeStep, compress_frame, seal_cut, seal_segment,
};
use tidemark_model::Op;
use tidemark_reader::{CompareOptions, Compared, Difference, DiskImage, Domain, Known, Proofs, ReaderOptions};

const BLOCK: usize = BLOCK_BYTES as usize;
pub const DOMAIN: DomainId = DomainId::new(*b"reader-test-uuid");
pub const START: TimeNs = TimeNs::new(1_700_000_000_000_000_000);
const FRAME: usize = 64 << 10;

/// Rows of one LSN with their bytes.
type Written = (Row, Bytes);

/// The writer of a test.
pub struct LogBuilder {
    pub bucket: Bucket,
    pub epoch: Epoch,
    pub seq: Seq,
    prev: [u8; 32],
    next: Lsn,
    first: Lsn,
    pub acked: Lsn,
    rows: Vec<Written>,
    events: Vec<Event>,
    times: Vec<TimeStep>,
    time: TimeNs,
    pub disks: Vec<DiskState>,
    /// At which zstd works.
    pub level: i32,
    base_seq: u64,
    /// Zero blocks of writes become rows of their own.
    pub split_zeros: bool,
}

pub fn frames_of(plain: &[u8], edges: &[usize], level: i32) -> Vec<StoredFrame> {
    let mut frames = Vec::new();
    let mut from = 0;
    while from < plain.len() {
        // The last row edge within reach, else wherever the frame is full.
        let limit = (from + FRAME).min(plain.len());
        let to = edges.iter().copied().filter(|e| *e > from && *e <= limit).max().unwrap_or(limit);
        frames.push(compress_frame(&plain[from..to], level).unwrap());
        from = to;
    }
    frames
}

/// Seals rows with their bytes; the whole object.
fn seal(draft: SegmentDraft<'_>, mut written: Vec<Written>, level: i32) -> (SealedHead, Bytes) {
    written.sort_by_key(|(row, _)| (row.disk, row.extent.start, row.lsn));
    let rows: Vec<Row> = written.iter().map(|(row, _)| *row).collect();
    let (mut plain, mut edges) = (Vec::new(), Vec::new());
    for (_, bytes) in &written {
        plain.extend_from_slice(bytes);
        edges.push(plain.len());
    }
    let frames = frames_of(&plain, &edges, level);
    let entries: Vec<_> = frames.iter().map(|f| f.entry).collect();
    let head = seal_segment(&SegmentDraft { rows: &rows, frames: &entries, ..draft }).unwrap();
    let mut object = head.bytes.clone();
    frames.iter().for_each(|f| object.extend_from_slice(&f.bytes));
    assert_eq!(object.len() as u64, head.total_len);
    (head, object.into())
}

impl LogBuilder {
    /// A new domain in `bucket`, with its first epoch begun.
    pub async fn new(bucket: Bucket) -> Self {
        let features = Features::default();
        let genesis = Genesis { domain: DOMAIN, name: "test".into(), created: START, features };
        let _ = bucket.appender().create(&ObjectKey::Genesis, genesis.encode()).await.unwrap();
        let mut builder = Self {
            bucket,
            epoch: Epoch::new(0),
            seq: Seq::new(0),
            prev: [0; 32],
            next: Lsn::new(1),
            first: Lsn::new(1),
            acked: Lsn::ZERO,
            rows: Vec::new(),
            events: Vec::new(),
            times: Vec::new(),
            time: START,
            disks: Vec::new(),
            level: 1,
            base_seq: 0,
            split_zeros: true,
        };
        builder.begin_epoch().await;
        builder
    }

    pub async fn in_memory() -> Self {
        Self::new(Bucket::memory()).await
    }

    pub fn identity(&self, kind: SegmentKind, seq: Seq) -> SegmentIdentity {
        SegmentIdentity { domain: DOMAIN, kind, role: Role::Writer, epoch: self.epoch, seq }
    }

    pub async fn claim(&self, epoch: Epoch) {
        let claim = Claim {
            domain: DOMAIN,
            role: Role::Writer,
            epoch,
            nonce: [epoch.get() as u8; 16],
            mode: ClaimMode::Cas,
            owner: "test".into(),
            time: self.time,
        };
        let _ = self.bucket.appender().create(&claim.key(), claim.encode()).await.unwrap();
    }

    /// Claims the next epoch and cuts the log where it is. What is not sealed is dropped.
    pub async fn begin_epoch(&mut self) {
        let number = self.epoch.get() + 1;
        self.claim(Epoch::new(number)).await;
        self.cut(Epoch::new(number)).await;
    }

    /// Writes the CUT of an epoch that was claimed.
    pub async fn cut(&mut self, epoch: Epoch) {
        let predecessor =
            (self.epoch.get() > 0).then_some(Tail { epoch: self.epoch, seq: self.seq, header_hash: self.prev });
        (self.rows, self.events, self.times) = Default::default();
        self.next = self.first;
        self.epoch = epoch;
        self.seq = Seq::new(0);
        let cut =
            Cut { predecessor, next_lsn: self.next, claim_nonce: [epoch.get() as u8; 16], disks: self.disks.clone() };
        let head = seal_cut(&CutDraft {
            identity: self.identity(SegmentKind::Cut, self.seq),
            cut: &cut,
            time: self.time,
            tick_ns: TICK_NS_DEFAULT,
            salt: [7; 32],
        })
        .unwrap();
        self.prev = head.header_hash;
        self.bucket.appender().put(&ObjectKey::cut(epoch), head.bytes).await.unwrap();
    }

    fn lsn(&mut self) -> Lsn {
        let lsn = self.next;
        self.next = lsn.next();
        if self.times.last().is_none_or(|step| step.time < self.time) {
            self.times.push(TimeStep { lsn, time: self.time });
        }
        lsn
    }

    /// Lets time pass.
    pub fn pass(&mut self, ms: u64) {
        self.time = TimeNs::new(self.time.get() + ms * 1_000_000);
    }

    pub fn now(&self) -> TimeNs {
        self.time
    }

    pub fn latest(&self) -> Lsn {
        Lsn::new(self.next.get() - 1)
    }

    pub fn event(&mut self, body: EventBody) -> Lsn {
        let lsn = self.lsn();
        let event = Event { lsn, body };
        DiskState::apply(&mut self.disks, &event).unwrap();
        self.events.push(event);
        lsn
    }

    pub fn write(&mut self, disk: DiskId, start: u64, data: &[u8]) -> Lsn {
        let lsn = self.lsn();
        let mut from = 0;
        let blocks: Vec<&[u8]> = data.chunks(BLOCK).collect();
        let kind_of = |block: &[u8]| match self.split_zeros && block.iter().all(|b| *b == 0) {
            true => RowKind::Zero,
            false => RowKind::Data,
        };
        while from < blocks.len() {
            let kind = kind_of(blocks[from]);
            let len = blocks[from..].iter().take_while(|b| kind_of(b) == kind).count();
            let bytes = if kind == RowKind::Data { blocks[from..from + len].concat() } else { Vec::new() };
            let extent = Extent::new(start + from as u64, len as u64);
            self.rows.push((Row { disk, extent, lsn, kind }, bytes.into()));
            from += len;
        }
        lsn
    }

    pub fn range(&mut self, disk: DiskId, extent: Extent, kind: RowKind) -> Lsn {
        let lsn = self.lsn();
        self.rows.push((Row { disk, extent, lsn, kind }, Bytes::new()));
        lsn
    }

    /// A blank disk: added, zeroed, consistent.
    pub fn blank_disk(&mut self, disk: u32, blocks: u64) -> DiskId {
        let id = DiskId::new(disk);
        self.event(EventBody::DiskAdd { disk: id, vm: "vm".into(), name: format!("disk{disk}"), blocks });
        self.range(id, Extent::new(0, blocks), RowKind::Zero);
        self.event(EventBody::ConsistentFrom { disk: id });
        id
    }

    pub fn op(&mut self, op: &Op) -> Lsn {
        match op {
            Op::DiskAdd { disk, blocks } => {
                let name = format!("disk{disk}");
                self.event(EventBody::DiskAdd { disk: *disk, vm: "vm".into(), name, blocks: *blocks })
            }
            Op::DiskRemove { disk } => self.event(EventBody::DiskRemove { disk: *disk }),
            Op::Resize { disk, blocks } => self.event(EventBody::DiskResize { disk: *disk, blocks: *blocks }),
            Op::ConsistentFrom { disk } => self.event(EventBody::ConsistentFrom { disk: *disk }),
            Op::Write { disk, start, data } => self.write(*disk, *start, data),
            Op::Zero { disk, extent } => self.range(*disk, *extent, RowKind::Zero),
            Op::Unmap { disk, extent } => self.range(*disk, *extent, RowKind::Unmap),
            Op::Mark => self.event(EventBody::Barrier),
        }
    }

    /// Seals what came since the last segment, without putting it: its key and bytes.
    pub fn sealed(&mut self) -> Option<(ObjectKey, Bytes)> {
        if self.next == self.first {
            return None;
        }
        let seq = self.seq.next();
        let (rows, events, times) =
            (std::mem::take(&mut self.rows), std::mem::take(&mut self.events), std::mem::take(&mut self.times));
        let mut times = times;
        if times.first().is_none_or(|step| step.lsn != self.first) {
            times.insert(0, TimeStep { lsn: self.first, time: self.time });
        }
        let draft = SegmentDraft {
            identity: self.identity(SegmentKind::Log, seq),
            first_lsn: self.first,
            last_lsn: self.latest(),
            acked_through: self.acked,
            prev_header_hash: self.prev,
            salt: [seq.get() as u8; 32],
            tick_ns: TICK_NS_DEFAULT,
            times: &times,
            rows: &[],
            events: &events,
            frames: &[],
        };
        let (head, object) = seal(draft, rows, self.level);
        self.prev = head.header_hash;
        self.seq = seq;
        self.first = self.next;
        Some((ObjectKey::Log { epoch: self.epoch, seq }, object))
    }

    /// Seals and puts a segment; a next one says that it was acknowledged.
    pub async fn seal(&mut self) {
        if let Some((key, object)) = self.sealed() {
            self.bucket.appender().put(&key, object).await.unwrap();
            self.acked = self.latest();
        }
    }

    /// Puts a base object that stands at `start` and names it in the log.
    pub async fn seed_part(&mut self, disk: DiskId, start: Lsn, first_block: u64, data: &[u8]) {
        self.base_seq += 1;
        let seq = Seq::new(self.base_seq);
        let blocks = (data.len() / BLOCK) as u64;
        let extent = Extent::new(first_block, blocks);
        let mut rows = Vec::new();
        let all: Vec<&[u8]> = data.chunks(BLOCK).collect();
        let mut from = 0;
        while from < all.len() {
            let zero = all[from].iter().all(|b| *b == 0);
            // Rows of at most 64 KiB, as a seeding writer would cut them.
            let len = all[from..].iter().take(128).take_while(|b| b.iter().all(|b| *b == 0) == zero).count();
            let extent = Extent::new(first_block + from as u64, len as u64);
            let kind = if zero { RowKind::Zero } else { RowKind::Data };
            let bytes = if zero { Vec::new() } else { all[from..from + len].concat() };
            rows.push((Row { disk, extent, lsn: start, kind }, bytes.into()));
            from += len;
        }
        let draft = SegmentDraft {
            identity: self.identity(SegmentKind::Base, seq),
            first_lsn: start,
            last_lsn: start,
            acked_through: Lsn::ZERO,
            prev_header_hash: [0; 32],
            salt: [9; 32],
            tick_ns: TICK_NS_DEFAULT,
            times: &[TimeStep { lsn: start, time: START }],
            rows: &[],
            events: &[],
            frames: &[],
        };
        let (head, object) = seal(draft, rows, self.level);
        let key = ObjectKey::Base { role: Role::Writer, epoch: self.epoch, seq };
        self.bucket.appender().put(&key, object).await.unwrap();
        let base = BaseRef { role: Role::Writer, epoch: self.epoch, seq, header_hash: head.header_hash };
        self.event(EventBody::SeedExtent { disk, base, extent });
    }

    pub async fn hint(&self) {
        let hint = Hint { domain: DOMAIN, epoch: self.epoch, seq: self.seq };
        self.bucket.appender().put_hint(hint.encode()).await.unwrap();
    }

    pub async fn open(&self) -> Domain {
        open(self.bucket.read_only()).await.unwrap()
    }
}

pub async fn open(bucket: ReadOnly) -> tidemark_reader::Result<Domain> {
    Domain::open(bucket, small_options(), Env::system()).await
}

/// Small caches, so that eviction happens in tests too, and little patience.
pub fn small_options() -> ReaderOptions {
    ReaderOptions {
        cache_bytes_max: 8 << 20,
        frame_cache_bytes_max: 1 << 20,
        map_cache_bytes_max: 256 << 10,
        request_deadline: Duration::from_secs(20),
        ..ReaderOptions::default()
    }
}

/// A bucket that gives up soon.
pub fn hasty() -> BucketOptions {
    BucketOptions {
        give_up_after: Duration::from_secs(2),
        attempt_timeout: Duration::from_millis(200),
        backoff_first: Duration::from_millis(1),
        backoff_max: Duration::from_millis(5),
        ..BucketOptions::default()
    }
}

/// Bytes that no compressor shrinks, different for each seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len.div_ceil(8))
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(len)
        .collect()
}

/// Runs a future on a runtime of its own, for property tests.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work)
}

/// Extents that ascend and do not overlap, as far as these reach.
pub fn merged(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.sort_unstable();
    let mut merged: Vec<Extent> = Vec::new();
    for extent in extents {
        match merged.last_mut() {
            Some(last) if last.end() >= extent.start => last.len = last.end().max(extent.end()) - last.start,
            _ => merged.push(extent),
        }
    }
    merged
}

/// A disk in memory that is compared with images.
pub struct Disk(Mutex<Vec<u8>>);

/// What a comparison told.
#[derive(Default)]
pub struct Told {
    pub compared: Compared,
    pub data_bytes: u64,
    pub looked_bytes: u64,
    pub missing: Vec<Extent>,
    pub proofs: Proofs,
}

impl Known for Disk {
    fn read(&self, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        into.copy_from_slice(&self.0.lock().unwrap()[offset as usize..][..into.len()]);
        Ok(())
    }
}

impl Disk {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(bytes))
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    /// Applies what differs.
    pub async fn become_like(self: &Arc<Self>, image: &DiskImage, wanted: &[Extent], options: &CompareOptions) -> Told {
        let known: Arc<dyn Known> = self.clone();
        let (to, mut from) = tokio::sync::mpsc::channel(1);
        let compare = async {
            let to = to;
            image.differences(wanted, &known, options, &to).await.unwrap()
        };
        let take = async {
            let mut told = Told::default();
            while let Some(difference) = from.recv().await {
                match difference {
                    Difference::Data { offset, bytes } => {
                        told.data_bytes += bytes.len() as u64;
                        let there = &mut self.0.lock().unwrap()[offset as usize..][..bytes.len()];
                        assert!(there.chunks(BLOCK).zip(bytes.chunks(BLOCK)).all(|(a, b)| a != b), "it was there");
                        there.copy_from_slice(&bytes);
                    }
                    Difference::Zeros(extent) => {
                        self.0.lock().unwrap()[extent.byte_start() as usize..][..extent.byte_len() as usize].fill(0);
                    }
                    Difference::Missing { extent, .. } => told.missing.push(extent),
                    Difference::Looked(bytes) => told.looked_bytes += bytes,
                    Difference::Proof(proof) => drop(told.proofs.insert((proof.from, proof.key), proof.hash)),
                }
            }
            told
        };
        let (compared, told) = tokio::join!(compare, take);
        Told { compared, ..told }
    }
}
