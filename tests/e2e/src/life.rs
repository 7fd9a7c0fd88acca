//! The random life of a domain: several epochs, restarts, takeovers, seeds, resizes, disks that come and go, and what a clone
//! of the owner leaves behind. For tests that need histories of every kind and do not mind which.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::guest::mix;
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_env::Env;
use tidemark_format::{
    BLOCK_BYTES, DiskId, Event, EventBody, Level, Lsn, Role, SegmentDraft, SegmentIdentity, SegmentKind, Seq, TimeNs,
    TimeStep, seal_segment,
};
use tidemark_writer::{
    Attach, Content, DomainWriter, NewDisk, Request, SeedPiece, When, WriterOptions, create_domain, open_domain,
};

/// Dice that fall alike for the same seed.
#[derive(Debug)]
pub struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    /// Dice of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, thrown: 0 }
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.thrown += 1;
        mix(self.seed << 32 ^ self.thrown) % limit
    }

    /// Blocks of noise, of one byte, and of zeros, mixed.
    fn data(&mut self, blocks: u64) -> Bytes {
        let mut data = Vec::new();
        for _ in 0..blocks {
            match self.below(4) {
                0 => data.resize(data.len() + 512, 0),
                1 => data.extend((0..64).flat_map(|_| self.below(u64::MAX).to_le_bytes())),
                _ => data.resize(data.len() + 512, self.below(256) as u8),
            }
        }
        data.into()
    }
}

/// A domain's life, played by dice.
struct Life {
    dice: Dice,
    bucket: Bucket,
    writer: DomainWriter,
    /// Writers that were overtaken and do not know it.
    overtaken: Vec<DomainWriter>,
    sizes: Vec<(DiskId, u64)>,
}

async fn open(bucket: &Bucket, dice: &mut Dice) -> DomainWriter {
    let options = WriterOptions {
        segment_bytes_max: 4096 << dice.below(6),
        age_ms_max: 1 + dice.below(4),
        hint_every_segments: 2,
        attach: Attach::KnownCas,
        ..WriterOptions::default()
    };
    DomainWriter::open(bucket.appender(), options, Env::system()).await.unwrap()
}

impl Life {
    async fn begin(bucket: Bucket, seed: u64) -> Self {
        create_domain(&bucket.appender(), "random", &Env::system()).await.unwrap();
        let mut dice = Dice::new(seed);
        let writer = open(&bucket, &mut dice).await;
        Self { dice, bucket, writer, overtaken: Vec::new(), sizes: Vec::new() }
    }

    /// A disk and a range of it.
    fn place(&mut self) -> (DiskId, u64, u64) {
        let (disk, blocks) = self.sizes[self.dice.below(self.sizes.len() as u64) as usize];
        let start = self.dice.below(blocks);
        (disk, start * BLOCK_BYTES, (1 + self.dice.below(40)).min(blocks - start) * BLOCK_BYTES)
    }

    async fn request(&mut self, request: Request) {
        let ticket = self.writer.submit(request, When::Now).await.unwrap();
        if self.dice.below(8) == 0 {
            ticket.committed().await.unwrap();
        }
    }

    async fn add_disk(&mut self, content: Content) -> DiskId {
        let blocks = 1 + self.dice.below(300);
        // The name of a disk that left comes again.
        let taken =
            self.writer.disks().into_iter().filter(|d| d.removed_at.is_none()).map(|d| d.name).collect::<Vec<_>>();
        let name = (0..).map(|n| format!("d{n}")).find(|name| !taken.contains(name)).unwrap();
        let disk = NewDisk { vm: "vm".into(), name, size_bytes: blocks * BLOCK_BYTES };
        let id = self.writer.disk_add(&disk, content).await.unwrap();
        self.sizes.push((id, blocks));
        id
    }

    /// Seeds what a disk holds, with a hole now and then, while its guest writes.
    async fn seed(&mut self, disk: DiskId) {
        let blocks = self.sizes.iter().find(|(id, _)| *id == disk).unwrap().1;
        let (mut pieces, mut at) = (Vec::new(), 0);
        while at < blocks {
            let len = (1 + self.dice.below(64)).min(blocks - at);
            let offset = at * BLOCK_BYTES;
            match self.dice.below(16) {
                0 => {}
                1..4 => pieces.push(Ok(SeedPiece::Zero { offset, len: len * BLOCK_BYTES })),
                _ => pieces.push(Ok(SeedPiece::Data { offset, data: self.dice.data(len) })),
            }
            at += len;
        }
        let (seeding, data) =
            (self.writer.seed(disk, futures::stream::iter(pieces), When::Now), Bytes::from(vec![7; 512]));
        let (seeded, written) = futures::join!(seeding, self.writer.write(disk, 0, data));
        seeded.unwrap();
        written.unwrap();
    }

    async fn step(&mut self) {
        if self.sizes.is_empty() {
            self.add_disk(Content::Blank).await;
        }
        let (disk, offset, len) = self.place();
        match self.dice.below(100) {
            0..3 => drop(self.add_disk(Content::Blank).await),
            3..5 => {
                let new = self.add_disk(Content::Existing).await;
                self.seed(new).await;
            }
            5..7 => self.seed(disk).await,
            7..8 if self.sizes.len() > 2 => {
                self.writer.disk_remove(disk).await.unwrap();
                self.sizes.retain(|(id, _)| *id != disk);
            }
            8..13 => {
                let blocks = 1 + self.dice.below(300);
                self.writer.disk_resize(disk, blocks * BLOCK_BYTES).await.unwrap();
                self.sizes.iter_mut().filter(|(id, _)| *id == disk).for_each(|(_, size)| *size = blocks);
            }
            13..17 => {
                let name = format!("mark {}", self.dice.below(4));
                self.request(Request::Bookmark { name, level: Level::FileSystem }).await;
            }
            17..19 => self.request(Request::Flush { disk }).await,
            19..20 => self.request(Request::Barrier).await,
            20..21 => {
                let (vm, format) = ("vm".to_owned(), "libvirt-xml".to_owned());
                self.request(Request::VmConfig { vm, format, body: b"<domain/>".to_vec() }).await;
            }
            21..24 => {
                self.writer.close().await.unwrap();
                self.writer = open(&self.bucket, &mut self.dice).await;
            }
            24..27 => {
                // Another takes over while this one has writes under way, whose tickets nobody gets.
                for _ in 0..self.dice.below(6) {
                    let data = self.dice.data(len / BLOCK_BYTES);
                    let _lost = self.writer.submit_write(disk, offset, data).await.unwrap();
                }
                let next = open(&self.bucket, &mut self.dice).await;
                self.overtaken.push(std::mem::replace(&mut self.writer, next));
                let known = self.writer.disks();
                self.sizes = known.iter().filter(|d| d.removed_at.is_none()).map(|d| (d.disk, d.blocks)).collect();
            }
            27..36 => self.request(Request::Zero { disk, offset, len }).await,
            36..45 => self.request(Request::Unmap { disk, offset, len }).await,
            _ => {
                let data = self.dice.data(len / BLOCK_BYTES);
                self.request(Request::Write { disk, offset, data }).await;
            }
        }
    }

    /// What a clone of the last owner may leave behind the end: a segment that continues another than the last one.
    async fn leave_behind(&self) {
        let (domain, epoch) = (open_domain(&self.bucket.read_only()).await.unwrap().domain, self.writer.epoch());
        let mut seq = Seq::new(1);
        let identity = |seq| SegmentIdentity { domain, kind: SegmentKind::Log, role: Role::Writer, epoch, seq };
        while self.bucket.read_only().get(&identity(seq).key()).await.is_ok() {
            seq = seq.next();
        }
        let lsn = self.writer.last_lsn().next();
        let head = seal_segment(&SegmentDraft {
            identity: identity(seq),
            first_lsn: lsn,
            last_lsn: lsn,
            acked_through: Lsn::ZERO,
            prev_header_hash: [9; 32],
            salt: [0; 32],
            tick_ns: 1,
            times: &[TimeStep { lsn, time: TimeNs::new(u64::MAX) }],
            rows: &[],
            events: &[Event { lsn, body: EventBody::Barrier }],
            frames: &[],
        });
        self.bucket.appender().put(&identity(seq).key(), head.unwrap().bytes).await.unwrap();
    }
}

/// A bucket in a directory.
///
/// # Panics
/// If there can be none.
pub fn directory(dir: &Path) -> Bucket {
    Bucket::open(&BucketUrl::file(dir), &BucketOptions::default()).unwrap()
}

/// Plays a life: several epochs, restarts, takeovers, seeds, resizes. Returns the last LSN and, of each disk that ever was
/// restorable, its id and the LSNs around that.
///
/// # Panics
/// If a writer refuses what it should do.
pub async fn play(bucket: Bucket, seed: u64, steps: u64) -> (u64, Vec<(u32, Range<u64>)>) {
    let mut life = Life::begin(bucket, seed).await;
    for _ in 0..steps {
        life.step().await;
    }
    life.writer.close().await.unwrap();
    if life.dice.below(3) == 0 {
        life.leave_behind().await;
    }
    let last = life.writer.last_lsn().get();
    let disks = life.writer.disks().into_iter().filter_map(|disk| {
        let end = disk.removed_at.map_or(last, Lsn::get);
        Some((disk.disk.get(), disk.consistent_from?.get().saturating_sub(4).max(1)..end + 1))
    });
    (last, disks.collect())
}
