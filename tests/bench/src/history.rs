//! Long histories without the data: the log of a domain as the writer would have cut it, of uniformly random 4 KiB writes whose
//! frames are all alike. What grows with a history is there in full: heads, chain, times.

use anyhow::{Context, Result};
use tidemark_bucket::Bucket;
use tidemark_env::Env;
use tidemark_format::{
    BLOCK_BYTES, DiskId, Expect, Extent, FRAME_PLAIN_BYTES_MAX, Hint, KeyFamily, Lsn, ObjectKey, Role, Row, RowKind,
    SegmentDraft, SegmentHead, SegmentIdentity, SegmentKind, Seq, TimeNs, TimeStep, compress_frame, seal_segment,
};
use tidemark_writer::{Content, DomainWriter, NewDisk, WriterOptions, create_domain};

/// Bytes of a write.
pub(crate) const WRITE_BYTES: u64 = 4096;
/// Size of the one disk.
pub(crate) const DISK_BYTES: u64 = 64 << 30;
/// The one disk.
pub(crate) const DISK: DiskId = DiskId::new(1);
/// Writes of a segment: 64 MiB of data, as under load.
const SEGMENT_WRITES: u64 = (64 << 20) / WRITE_BYTES;
const WRITE_BLOCKS: u64 = WRITE_BYTES / BLOCK_BYTES;
/// A write every 10 microseconds.
const WRITE_NS: u64 = 10_000;
const TICK_NS: u32 = 1_000_000;

/// Where the write of an LSN went, in bytes.
pub(crate) fn offset_of(lsn: Lsn) -> u64 {
    // SplitMix64 as a function of the LSN.
    let mut z = lsn.get().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % (DISK_BYTES / WRITE_BYTES) * WRITE_BYTES
}

/// Makes a domain of at least `writes` writes in an empty bucket. Returns the first and the last LSN of them.
pub(crate) async fn make(bucket: &Bucket, writes: u64, env: &Env) -> Result<(Lsn, Lsn)> {
    let appender = bucket.appender();
    let domain = create_domain(&appender, "scale", env).await?.domain;
    let writer = DomainWriter::open(appender.clone(), WriterOptions::default(), env.clone()).await?;
    let new = NewDisk { vm: "vm".into(), name: "disk".into(), size_bytes: DISK_BYTES };
    writer.disk_add(&new, Content::Blank).await?;
    writer.close().await?;
    let (epoch, first) = (writer.epoch(), writer.last_lsn().next());
    let identity = |seq| SegmentIdentity { domain, kind: SegmentKind::Log, role: Role::Writer, epoch, seq };
    let mut seq = Seq::new(bucket.read_only().list(KeyFamily::Log).await?.len() as u64 - 1);
    let key = ObjectKey::Log { epoch, seq };
    let tail = SegmentHead::decode(&bucket.read_only().get(&key).await?, &Expect { domain, key })?.header;
    let frame = compress_frame(&vec![b'A'; FRAME_PLAIN_BYTES_MAX as usize], 1)?;
    let frames = (SEGMENT_WRITES * WRITE_BYTES / u64::from(frame.entry.plain_len)) as usize;
    let (entries, data) = (vec![frame.entry; frames], frame.bytes.repeat(frames));
    let (mut lsn, mut prev_header_hash, start) = (first, tail.header_hash, tail.last_time.get());
    while lsn.get() - first.get() < writes {
        seq = seq.next();
        let last_lsn = Lsn::new(lsn.get() + SEGMENT_WRITES - 1);
        let mut rows: Vec<Row> = (lsn.get()..=last_lsn.get())
            .map(|lsn| {
                let lsn = Lsn::new(lsn);
                let extent = Extent::new(offset_of(lsn) / BLOCK_BYTES, WRITE_BLOCKS);
                Row { disk: DISK, extent, lsn, kind: RowKind::Data }
            })
            .collect();
        rows.sort_unstable_by_key(|row| (row.extent.start, row.lsn));
        let time = start + (lsn.get() - first.get()) * WRITE_NS;
        let time = TimeNs::new(time.next_multiple_of(TICK_NS.into()));
        let sealed = seal_segment(&SegmentDraft {
            identity: identity(seq),
            first_lsn: lsn,
            last_lsn,
            acked_through: Lsn::new(lsn.get() - 1),
            prev_header_hash,
            salt: [seq.get() as u8; 32],
            tick_ns: TICK_NS,
            times: &[TimeStep { lsn, time }],
            rows: &rows,
            events: &[],
            frames: &entries,
        })?;
        prev_header_hash = sealed.header_hash;
        let mut object = sealed.bytes;
        object.extend_from_slice(&data);
        appender.put(&identity(seq).key(), object).await.context("put a segment")?;
        lsn = last_lsn.next();
    }
    appender.put_hint(Hint { domain, epoch, seq }.encode()).await?;
    Ok((first, Lsn::new(lsn.get() - 1)))
}
