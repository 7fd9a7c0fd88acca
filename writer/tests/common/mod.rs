//! Reads a bucket the long way round, to judge what a writer left there: every object decoded, every row replayed.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemark_bucket::{Bucket, BucketOptions, ReadOnly};
use tidemark_env::{Env, ManualClock};
use tidemark_format::{
    BLOCK_BYTES, DiskId, Epoch, ErrorKind, Event, EventBody, Expect, FrameDecoder, Level, Lsn, ObjectKey, Row, RowKind,
    SegmentHead, Seq, TimeNs,
};
use tidemark_model::{DomainModel, Op};
use tidemark_writer::{Attach, Content, DomainWriter, NewDisk, Request, Ticket, When, WriterOptions, create_domain};

pub(crate) const BLOCK: usize = BLOCK_BYTES as usize;
pub(crate) type Image = BTreeMap<DiskId, Vec<Option<[u8; BLOCK]>>>;

/// What stands at one LSN.
#[derive(Clone, Debug, Default)]
pub(crate) struct At {
    pub(crate) rows: Vec<(Row, Bytes)>,
    pub(crate) event: Option<Event>,
    pub(crate) time: TimeNs,
}

/// The log of a domain, decoded.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// `at[n]` is LSN n + 1.
    pub(crate) at: Vec<At>,
    /// Segments by epoch, CUTs not counted.
    pub(crate) segments: BTreeMap<u64, u64>,
    pub(crate) acked_through: Lsn,
}

impl History {
    /// Follows the newest CUT back and forth. Panics at the first thing that is not as the specification says.
    pub(crate) async fn read(bucket: &ReadOnly) -> Self {
        let domain = tidemark_writer::open_domain(bucket).await.unwrap().domain;
        let mut newest = 0;
        while bucket.get(&ObjectKey::writer_claim(Epoch::new(newest + 1))).await.is_ok() {
            newest += 1;
        }
        let mut history = Self { at: Vec::new(), segments: BTreeMap::new(), acked_through: Lsn::ZERO };
        let get = async |key: ObjectKey| match bucket.get(&key).await {
            Ok(bytes) => {
                let head = SegmentHead::decode(&bytes, &Expect { domain, key }).unwrap();
                head.check_total_len(bytes.len() as u64).unwrap();
                head.check_dense().unwrap();
                Some((head, bytes))
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
                None
            }
        };
        let mut chain = Vec::new();
        let mut tail = None;
        let mut epoch = Epoch::new(newest);
        loop {
            if epoch.get() == 0 {
                break;
            }
            let Some((head, _)) = get(ObjectKey::cut(epoch)).await else {
                assert!(tail.is_none(), "a CUT names epoch {epoch} but it has none");
                epoch = Epoch::new(epoch.get() - 1);
                continue;
            };
            let predecessor = head.cut.as_ref().unwrap().predecessor;
            chain.push((epoch, head, tail));
            match predecessor {
                Some(p) => (epoch, tail) = (p.epoch, Some(p)),
                None => break,
            }
        }
        for (epoch, cut, tail) in chain.into_iter().rev() {
            let mut hash = cut.header.header_hash;
            let mut seq = Seq::new(0);
            assert_eq!(cut.cut.unwrap().next_lsn.get(), history.at.len() as u64 + 1);
            while tail.is_none_or(|t| seq < t.seq) {
                let key = ObjectKey::Log { epoch, seq: seq.next() };
                let Some((head, bytes)) = get(key).await else {
                    assert!(tail.is_none(), "{key} is named by a CUT but is not there");
                    break;
                };
                assert_eq!(head.header.prev_header_hash, hash, "{key}");
                assert_eq!(head.header.first_lsn.get(), history.at.len() as u64 + 1, "{key}");
                hash = head.header.header_hash;
                seq = seq.next();
                history.acked_through = history.acked_through.max(head.header.acked_through);
                history.take(&head, &bytes);
            }
            if let Some(tail) = tail {
                assert_eq!(hash, tail.header_hash);
            }
            history.segments.insert(epoch.get(), seq.get());
        }
        for i in 0..history.at.len() {
            let Some(Event { body: EventBody::SeedExtent { base, extent, .. }, .. }) = history.at[i].event.clone()
            else {
                continue;
            };
            let key = ObjectKey::Base { role: base.role, epoch: base.epoch, seq: base.seq };
            let (head, bytes) = get(key).await.expect("the log names only what is there");
            assert_eq!(head.header.header_hash, base.header_hash);
            let rows = decode_rows(&head, &bytes);
            assert_eq!(rows.iter().map(|(row, _)| row.extent.len).sum::<u64>(), extent.len);
            let mut next = extent.start;
            for (row, bytes) in rows {
                assert_eq!(row.extent.start, next);
                next = row.extent.end();
                history.at[row.lsn.get() as usize - 1].rows.push((row, bytes));
            }
        }
        history
    }

    pub(crate) fn last(&self) -> Lsn {
        Lsn::new(self.at.len() as u64)
    }

    fn take(&mut self, head: &SegmentHead, bytes: &[u8]) {
        let first = head.header.first_lsn.get();
        let span = first.count_to_len(head.header.last_lsn.get());
        let mut at = vec![At::default(); span];
        for (row, bytes) in decode_rows(head, bytes) {
            at[(row.lsn.get() - first) as usize].rows.push((row, bytes));
        }
        for event in &head.events {
            at[(event.lsn.get() - first) as usize].event = Some(event.clone());
        }
        let times = head.times.as_ref().unwrap();
        for (i, at) in at.iter_mut().enumerate() {
            at.time = times.time_of(Lsn::new(first + i as u64)).unwrap();
        }
        self.at.extend(at);
    }

    /// Replays everything through `lsn`.
    pub(crate) fn image(&self, lsn: Lsn) -> Image {
        let mut image = Image::new();
        for at in &self.at[..lsn.get() as usize] {
            match at.event.as_ref().map(|event| &event.body) {
                Some(EventBody::DiskAdd { disk, blocks, .. }) => {
                    image.insert(*disk, vec![None; *blocks as usize]);
                }
                Some(EventBody::DiskResize { disk, blocks }) => {
                    image.get_mut(disk).unwrap().resize(*blocks as usize, None);
                }
                Some(EventBody::DiskRemove { disk }) => {
                    image.remove(disk);
                }
                _ => {}
            }
            for (row, bytes) in &at.rows {
                let blocks = image.get_mut(&row.disk).expect("rows belong to disks that are there");
                for i in 0..row.extent.len as usize {
                    blocks[row.extent.start as usize + i] = Some(match row.kind {
                        RowKind::Data => bytes[i * BLOCK..(i + 1) * BLOCK].try_into().unwrap(),
                        RowKind::Zero | RowKind::Unmap => [0; BLOCK],
                    });
                }
            }
        }
        image
    }
}

trait Span {
    fn count_to_len(self, last: u64) -> usize;
}
impl Span for u64 {
    fn count_to_len(self, last: u64) -> usize {
        (last + 1 - self) as usize
    }
}

fn decode_rows(head: &SegmentHead, object: &[u8]) -> Vec<(Row, Bytes)> {
    let mut stream = Vec::new();
    let (mut decoder, mut plain) = (FrameDecoder::new().unwrap(), Vec::new());
    for i in 0..head.frames.len() {
        let range = head.frames.object_range(i).unwrap();
        let stored = &object[range.start as usize..range.end as usize];
        decoder.decode(head.frames.entry(i).unwrap(), stored, &mut plain).unwrap();
        stream.extend_from_slice(&plain);
    }
    let stream = Bytes::from(stream);
    let rows = head.index.iter().map(|placed| {
        let from = placed.stream_block as usize * BLOCK;
        let len = if placed.row.kind == RowKind::Data { placed.row.extent.byte_len() as usize } else { 0 };
        (placed.row, stream.slice(from..from + len))
    });
    rows.collect()
}

/// The model's images, in the shape of [`History::image`].
pub(crate) fn model_image(model: &DomainModel, lsn: Lsn) -> Image {
    model.at(lsn).iter().map(|(disk, state)| (*disk, state.image())).collect()
}

/// A writer that is quick to commit small things.
pub(crate) fn options() -> WriterOptions {
    WriterOptions {
        owner: "test".to_owned(),
        segment_bytes_max: 16 << 10,
        age_ms_max: 3,
        retry_ms_first: 1,
        retry_ms_max: 4,
        compress_threads_max: 2,
        attach: Attach::KnownCas,
        ..WriterOptions::default()
    }
}

/// A moment in November 2026.
pub(crate) const START: TimeNs = TimeNs::new(1_795_000_000_000_000_000);

pub(crate) fn env(seed: u64) -> Env {
    Env::seeded(seed, Arc::new(ManualClock::new(START)))
}

/// A memory bucket with a domain in it.
pub(crate) async fn domain() -> Bucket {
    let impatient = BucketOptions {
        backoff_first: Duration::from_millis(1),
        backoff_max: Duration::from_millis(4),
        ..BucketOptions::default()
    };
    let bucket = Bucket::memory_with(impatient);
    create_domain(&bucket.appender(), "test", &Env::system()).await.unwrap();
    bucket
}

pub(crate) async fn writer(bucket: &Bucket) -> DomainWriter {
    DomainWriter::open(bucket.appender(), options(), Env::system()).await.unwrap()
}

/// Submits one group; the ticket is that of its last LSN.
pub(crate) async fn submit(writer: &DomainWriter, group: &[Op]) -> tidemark_writer::Result<Ticket> {
    let bytes = |blocks: u64| blocks * BLOCK_BYTES;
    match &group[0] {
        Op::DiskAdd { disk, blocks } => {
            let new = NewDisk { vm: "vm".into(), name: format!("disk{disk}"), size_bytes: bytes(*blocks) };
            let (id, ticket) = writer.submit_disk_add(&new, Content::Blank, When::Now).await?;
            assert_eq!(id, *disk);
            Ok(ticket)
        }
        Op::DiskRemove { disk } => writer.submit_disk_remove(*disk, When::Now).await,
        Op::Resize { disk, blocks } => writer.submit_disk_resize(*disk, bytes(*blocks), When::Now).await,
        Op::ConsistentFrom { .. } => unreachable!("comes with a disk"),
        Op::Write { disk, start, data } => {
            writer.submit_write(*disk, bytes(*start), Bytes::copy_from_slice(data)).await
        }
        Op::Zero { disk, extent } => {
            let request = Request::Zero { disk: *disk, offset: extent.byte_start(), len: extent.byte_len() };
            writer.submit(request, When::Now).await
        }
        Op::Unmap { disk, extent } => {
            let request = Request::Unmap { disk: *disk, offset: extent.byte_start(), len: extent.byte_len() };
            writer.submit(request, When::Now).await
        }
        Op::Mark => {
            let request = Request::Bookmark { name: "here".into(), level: Level::Crash };
            writer.submit(request, When::Now).await
        }
    }
}

/// Runs a test on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}
