//! Requests of any alignment on a [`Volume`] of whole blocks.
//!
//! A change that begins or ends within a block reads that block, changes its part and writes it back, alone in its range:
//! [`RangeLock`](crate::RangeLock) keeps whole-block writes and other such changes out meanwhile. Requests of whole blocks
//! go straight through.
//! Requests lie within the volume: bounds are the front-end's.

use crate::error::{Error, Result};
use crate::range::ByteRange;
use crate::volume::{Part, Persist, StatusContext, StatusRun, Volume, ZeroOptions};
use bytes::{Bytes, BytesMut};

/// Reads any range.
pub async fn read(volume: &dyn Volume, range: ByteRange) -> Result<Vec<Part>> {
    let block_bytes = u64::from(volume.geometry().block_bytes_min);
    let outer = range.outward(block_bytes);
    let mut parts = volume.read(outer).await?;
    let got = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.len()));
    if got != outer.len {
        return Err(Error::failed(format!("read {outer}"), format!("the volume answered with {got} bytes")));
    }
    if outer != range {
        cut(&mut parts, range.offset - outer.offset, range.len);
    }
    Ok(parts)
}

/// Keeps `len` bytes after the first `skip`.
fn cut(parts: &mut Vec<Part>, mut skip: u64, mut len: u64) {
    parts.retain_mut(|part| {
        let skipped = skip.min(part.len());
        let kept = (part.len() - skipped).min(len);
        skip -= skipped;
        len -= kept;
        match part {
            // Both are at most the length of a buffer.
            Part::Data(data) => *data = data.slice(skipped as usize..(skipped + kept) as usize),
            Part::Zero(zeros) => *zeros = kept,
        }
        kept > 0
    });
}

/// Writes anywhere.
pub async fn write(volume: &dyn Volume, offset: u64, data: Bytes, persist: Persist) -> Result<()> {
    let block_bytes = u64::from(volume.geometry().block_bytes_min);
    let range = ByteRange::new(offset, data.len() as u64);
    if range.is_aligned(block_bytes) {
        let _held = volume.ranges().shared(range).await;
        return volume.write(offset, data, persist).await;
    }
    let outer = range.outward(block_bytes);
    let _held = volume.ranges().exclusive(outer).await;
    let mut whole = BytesMut::with_capacity(outer.len as usize);
    append(volume, &mut whole, ByteRange::new(outer.offset, range.offset - outer.offset)).await?;
    whole.extend_from_slice(&data);
    append(volume, &mut whole, ByteRange::new(range.end(), outer.end() - range.end())).await?;
    volume.write(outer.offset, whole.freeze(), persist).await
}

/// Appends the bytes of a range within one block, or nothing.
async fn append(volume: &dyn Volume, whole: &mut BytesMut, range: ByteRange) -> Result<()> {
    if range.len == 0 {
        return Ok(());
    }
    for part in read(volume, range).await? {
        match part {
            Part::Data(data) => whole.extend_from_slice(&data),
            Part::Zero(len) => whole.resize(whole.len() + len as usize, 0),
        }
    }
    Ok(())
}

/// Makes any range read as zeros.
pub async fn zero(volume: &dyn Volume, range: ByteRange, options: ZeroOptions, persist: Persist) -> Result<()> {
    let block_bytes = u64::from(volume.geometry().block_bytes_min);
    if range.is_aligned(block_bytes) {
        let _held = volume.ranges().shared(range).await;
        return volume.zero(range, options, persist).await;
    }
    let outer = range.outward(block_bytes);
    let _held = volume.ranges().exclusive(outer).await;
    let inner = range.inward(block_bytes);
    if inner.len == 0 {
        // Within two blocks.
        return zero_within(volume, range, persist).await;
    }
    // First, as it may refuse.
    volume.zero(inner, options, persist).await?;
    for edge in [
        ByteRange::new(range.offset, inner.offset - range.offset),
        ByteRange::new(inner.end(), range.end() - inner.end()),
    ] {
        if edge.len > 0 {
            zero_within(volume, edge, persist).await?;
        }
    }
    Ok(())
}

/// Zeros part of one or two blocks that are held already.
async fn zero_within(volume: &dyn Volume, range: ByteRange, persist: Persist) -> Result<()> {
    let outer = range.outward(u64::from(volume.geometry().block_bytes_min));
    let mut whole = BytesMut::with_capacity(outer.len as usize);
    append(volume, &mut whole, outer).await?;
    let start = (range.offset - outer.offset) as usize;
    whole[start..start + range.len as usize].fill(0);
    volume.write(outer.offset, whole.freeze(), persist).await
}

/// Trims the whole blocks of any range; the rest stays as it is, which a trim may.
pub async fn trim(volume: &dyn Volume, range: ByteRange, persist: Persist) -> Result<()> {
    let inner = range.inward(u64::from(volume.geometry().block_bytes_min));
    if inner.len == 0 {
        return Ok(());
    }
    let _held = volume.ranges().shared(inner).await;
    volume.trim(inner, persist).await
}

/// What is known of any range: at least one run, at most `runs_max`, never more bytes than asked for.
pub async fn status(
    volume: &dyn Volume,
    range: ByteRange,
    context: &StatusContext,
    runs_max: usize,
) -> Result<Vec<StatusRun>> {
    let outer = range.outward(u64::from(volume.geometry().block_bytes_min));
    let mut skip = range.offset - outer.offset;
    let mut left = range.len;
    let mut runs = volume.status(outer, context, runs_max).await?;
    runs.truncate(runs_max);
    runs.retain_mut(|run| {
        let skipped = skip.min(run.bytes);
        skip -= skipped;
        run.bytes = (run.bytes - skipped).min(left);
        left -= run.bytes;
        run.bytes > 0
    });
    if runs.is_empty() {
        return Err(Error::failed(format!("get the status of {range}"), "the volume answered with nothing"));
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryVolume;
    use futures::FutureExt;
    use proptest::prelude::*;

    const SIZE: u64 = 16 << 10;

    #[derive(Clone, Debug)]
    enum Change {
        Write { offset: u64, data: Vec<u8> },
        Zero(ByteRange),
        Trim(ByteRange),
    }

    fn any_range() -> impl Strategy<Value = ByteRange> {
        (0..SIZE, 1..3000_u64).prop_map(|(offset, len)| ByteRange::new(offset, len.min(SIZE - offset)))
    }

    fn any_change() -> impl Strategy<Value = Change> {
        prop_oneof![
            3 => (any_range(), any::<u8>())
                .prop_map(|(range, byte)| Change::Write { offset: range.offset, data: vec![byte; range.len as usize] }),
            1 => any_range().prop_map(Change::Zero),
            1 => any_range().prop_map(Change::Trim),
        ]
    }

    fn now<T>(future: impl Future<Output = Result<T>>) -> T {
        future.now_or_never().expect("nothing holds it up").expect("within the volume")
    }

    fn flat(parts: Vec<Part>) -> Vec<u8> {
        let bytes = |part| match part {
            Part::Data(data) => data.to_vec(),
            Part::Zero(len) => vec![0; len as usize],
        };
        parts.into_iter().flat_map(bytes).collect()
    }

    proptest! {
        #[test]
        fn prop_changes_of_any_alignment_match_plain_memory(
            changes in prop::collection::vec(any_change(), 1..40),
            reads in prop::collection::vec(any_range(), 1..10),
        ) {
            let volume = MemoryVolume::new(SIZE).expect("small");
            let mut model = vec![0; SIZE as usize];
            let options = ZeroOptions { may_unmap: true, fast_only: false };
            for change in changes {
                match change {
                    Change::Write { offset, data } => {
                        model[offset as usize..][..data.len()].copy_from_slice(&data);
                        now(write(&volume, offset, data.into(), Persist::Normal));
                    }
                    Change::Zero(range) => {
                        model[range.offset as usize..range.end() as usize].fill(0);
                        now(zero(&volume, range, options, Persist::Normal));
                    }
                    Change::Trim(range) => {
                        let inner = range.inward(512);
                        model[inner.offset as usize..inner.end() as usize].fill(0);
                        now(trim(&volume, range, Persist::Normal));
                    }
                }
            }
            for range in reads {
                let wanted = &model[range.offset as usize..range.end() as usize];
                prop_assert_eq!(&flat(now(read(&volume, range)))[..], wanted);
                let runs = now(status(&volume, range, &StatusContext::Allocation, 1000));
                prop_assert_eq!(runs.iter().map(|run| run.bytes).sum::<u64>(), range.len);
            }
        }
    }

    #[test]
    fn a_part_of_a_block_waits_for_a_write_of_the_block() {
        let volume = MemoryVolume::new(SIZE).expect("small");
        let under_way = volume.ranges().shared(ByteRange::new(0, 512)).now_or_never().expect("free");
        let mut part = Box::pin(write(&volume, 100, Bytes::from_static(b"part"), Persist::Normal));
        assert!(part.as_mut().now_or_never().is_none(), "it would write back what it read before");
        now(volume.write(0, Bytes::from_static(&[9; 512]), Persist::Normal));
        drop(under_way);
        now(part);
        let block = flat(now(read(&volume, ByteRange::new(0, 512))));
        assert_eq!((&block[..100], &block[100..104], &block[104..]), (&[9; 100][..], &b"part"[..], &[9; 408][..]));
    }
}
