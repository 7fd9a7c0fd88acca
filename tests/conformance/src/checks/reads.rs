//! Reading: exact, complete, and absent only when proven so.

use super::{Outcome, ensure, fails, log, noise};
use bytes::Bytes;
use futures::future::join_all;
use tidemark_bucket::{Bucket, Pieces};
use tidemark_format::{ErrorKind, ObjectKey};

pub(super) async fn an_object_reads_back_as_written(bucket: Bucket) -> Outcome {
    for (seq, len) in [1, 511, 512, 513, 4096, 65_537, 1 << 20].into_iter().enumerate() {
        let (key, body) = (log(seq as u64), noise(seq as u64, len));
        bucket.appender().put(&key, body.clone()).await?;
        ensure!(bucket.read_only().get(&key).await? == body, "{len} bytes read back differ");
    }
    Ok(())
}

pub(super) async fn an_empty_object_reads_back_empty(bucket: Bucket) -> Outcome {
    bucket.appender().put(&log(1), Vec::<u8>::new()).await?;
    let read = bucket.read_only();
    ensure!(read.get(&log(1)).await?.is_empty(), "get returns bytes");
    ensure!(read.get_prefix(&log(1), 512).await?.is_empty(), "get_prefix returns bytes");
    ensure!(read.head(&log(1)).await? == 0, "head tells another length");
    fails(read.get_range(&log(1), 0..1).await, ErrorKind::DataLoss, "get_range of one byte")
}

pub(super) async fn a_segment_in_pieces_reads_back_joined(bucket: Bucket) -> Outcome {
    // Longer than one request of a whole-object read, and in pieces of uneven lengths.
    let body = Bytes::from(noise(7, (20 << 20) + 12_345));
    let mut pieces = Vec::new();
    let mut rest = body.clone();
    while !rest.is_empty() {
        pieces.push(rest.split_to((40_000 + pieces.len() % 7 * 9_999).min(rest.len())));
    }
    bucket.appender().put(&log(1), Pieces::from(pieces)).await?;
    ensure!(bucket.read_only().get(&log(1)).await? == body, "the bytes differ");
    Ok(())
}

pub(super) async fn a_prefix_ends_with_the_object(bucket: Bucket) -> Outcome {
    let body = noise(1, 1000);
    bucket.appender().put(&log(1), body.clone()).await?;
    for len in [1, 999, 1000, 1001, 128 << 10] {
        let got = bucket.read_only().get_prefix(&log(1), len).await?;
        ensure!(got == body[..body.len().min(len as usize)], "prefix of {len} has {} bytes", got.len());
    }
    Ok(())
}

pub(super) async fn a_range_is_exact(bucket: Bucket) -> Outcome {
    let body = noise(1, 300_000);
    bucket.appender().put(&log(1), body.clone()).await?;
    for (start, end) in [(0, 1), (0, 300_000), (1, 2), (4096, 8192), (299_999, 300_000), (100_000, 300_000)] {
        let got = bucket.read_only().get_range(&log(1), start..end).await?;
        ensure!(got == body[start as usize..end as usize], "{start}..{end} returns other bytes ({})", got.len());
    }
    Ok(())
}

pub(super) async fn a_range_beyond_the_end_is_data_loss(bucket: Bucket) -> Outcome {
    bucket.appender().put(&log(1), noise(1, 1000)).await?;
    for range in [999..1001, 1000..1001, 5000..6000, 0..1001] {
        let got = bucket.read_only().get_range(&log(1), range.clone()).await;
        fails(got, ErrorKind::DataLoss, &format!("{range:?} of 1000 bytes"))?;
    }
    Ok(())
}

pub(super) async fn an_empty_range_is_empty(bucket: Bucket) -> Outcome {
    bucket.appender().put(&log(1), noise(1, 1000)).await?;
    ensure!(bucket.read_only().get_range(&log(1), 10..10).await?.is_empty(), "10..10 returns bytes");
    fails(bucket.read_only().get_range(&log(2), 10..10).await, ErrorKind::NotFound, "10..10 of an absent object")
}

pub(super) async fn concurrent_ranges_agree_with_the_whole(bucket: Bucket) -> Outcome {
    let (body, read) = (noise(1, 1 << 20), bucket.read_only());
    bucket.appender().put(&log(1), body.clone()).await?;
    let starts: Vec<usize> = (0..64).map(|i| i * 16_000 % (1 << 20) / 3).collect();
    let key = log(1);
    let all = starts.iter().map(|&start| read.get_range(&key, start as u64..start as u64 + 8192));
    for (got, start) in join_all(all).await.into_iter().zip(&starts) {
        ensure!(got? == body[*start..*start + 8192], "8192 bytes from {start} differ");
    }
    Ok(())
}

pub(super) async fn head_tells_the_length(bucket: Bucket) -> Outcome {
    for len in [1, 4096, 70_000] {
        let key = log(len);
        bucket.appender().put(&key, noise(len, len as usize)).await?;
        let told = bucket.read_only().head(&key).await?;
        ensure!(told == len, "{told} for {len} bytes");
    }
    Ok(())
}

pub(super) async fn an_absent_object_is_not_found(bucket: Bucket) -> Outcome {
    let read = bucket.read_only();
    // Nothing is there at all, then something beside it is.
    for round in ["empty bucket", "bucket in use"] {
        for key in [log(2), super::claim(2), ObjectKey::Genesis, ObjectKey::Hint] {
            let what = |how: &str| format!("{how} of {key}, {round}");
            fails(read.get(&key).await, ErrorKind::NotFound, &what("get"))?;
            fails(read.get_prefix(&key, 512).await, ErrorKind::NotFound, &what("get_prefix"))?;
            fails(read.get_range(&key, 0..512).await, ErrorKind::NotFound, &what("get_range"))?;
            fails(read.head(&key).await, ErrorKind::NotFound, &what("head"))?;
        }
        bucket.appender().put(&log(1), "a segment").await?;
        let _ = bucket.appender().create(&super::claim(1), "a claim").await?;
    }
    Ok(())
}

pub(super) async fn an_error_names_key_and_place(bucket: Bucket) -> Outcome {
    bucket.appender().put(&log(1), "a segment").await?;
    let Err(error) = bucket.read_only().get(&log(2)).await else { return Err(super::Wrong("it succeeds".to_owned())) };
    let text = error.to_string();
    ensure!(text.contains(&log(2).to_string()), "no key in {text:?}");
    ensure!(text.contains(&bucket.location()), "no place in {text:?}");
    Ok(())
}
