//! Listing and deleting, for verification and maintenance.

use super::{Outcome, claim, ensure, fails, log, noise};
use futures::StreamExt;
use futures::stream::iter;
use tidemark_bucket::{Bucket, Created};
use tidemark_format::{ErrorKind, KeyFamily, ObjectKey};

pub(super) async fn a_list_is_complete_and_sorted(bucket: Bucket) -> Outcome {
    let mut want = Vec::new();
    for seq in [3, 0x100, 1, 0x20, 0] {
        bucket.appender().put(&log(seq), noise(seq, 10 + seq as usize)).await?;
        want.push((log(seq).to_string(), 10 + seq));
    }
    want.sort();
    let got = bucket.read_only().list(KeyFamily::Log).await?;
    ensure!(got == want, "{got:?}");
    Ok(())
}

pub(super) async fn a_list_of_nothing_is_empty(bucket: Bucket) -> Outcome {
    bucket.appender().put(&log(1), "a segment").await?;
    for family in [KeyFamily::Genesis, KeyFamily::Claim, KeyFamily::Base, KeyFamily::Volatile] {
        let got = bucket.read_only().list(family).await?;
        ensure!(got.is_empty(), "{}: {got:?}", family.name());
    }
    Ok(())
}

pub(super) async fn a_list_keeps_families_apart(bucket: Bucket) -> Outcome {
    bucket.appender().put(&log(1), "12345").await?;
    bucket.appender().put_hint("123").await?;
    for key in [ObjectKey::Genesis, claim(1)] {
        ensure!(bucket.appender().create(&key, "1234").await? == Created::New, "{key} exists");
    }
    for (family, key, len) in [
        (KeyFamily::Genesis, ObjectKey::Genesis, 4),
        (KeyFamily::Claim, claim(1), 4),
        (KeyFamily::Log, log(1), 5),
        (KeyFamily::Volatile, ObjectKey::Hint, 3),
    ] {
        let got = bucket.read_only().list(family).await?;
        ensure!(got == [(key.to_string(), len)], "{}: {got:?}", family.name());
    }
    Ok(())
}

pub(super) async fn a_list_goes_beyond_one_page(bucket: Bucket) -> Outcome {
    const OBJECTS: u64 = 1_050;
    let appender = bucket.appender();
    let puts = iter(0..OBJECTS).map(|seq| {
        let appender = appender.clone();
        async move { appender.put(&log(seq), "x").await }
    });
    for put in puts.buffer_unordered(32).collect::<Vec<_>>().await {
        put?;
    }
    let got = bucket.read_only().list(KeyFamily::Log).await?;
    let want: Vec<_> = (0..OBJECTS).map(|seq| (log(seq).to_string(), 1)).collect();
    ensure!(got == want, "{} of {OBJECTS} keys, or others", got.len());
    Ok(())
}

pub(super) async fn a_deleted_object_is_gone(bucket: Bucket) -> Outcome {
    for seq in 1..=3 {
        bucket.appender().put(&log(seq), "a segment").await?;
    }
    bucket.deleter().delete(&log(2)).await?;
    fails(bucket.read_only().get(&log(2)).await, ErrorKind::NotFound, "get")?;
    fails(bucket.read_only().head(&log(2)).await, ErrorKind::NotFound, "head")?;
    let left: Vec<_> = bucket.read_only().list(KeyFamily::Log).await?.into_iter().map(|(key, _)| key).collect();
    ensure!(left == [log(1).to_string(), log(3).to_string()], "{left:?}");
    Ok(())
}

pub(super) async fn deleting_what_is_absent_is_fine(bucket: Bucket) -> Outcome {
    bucket.appender().put(&log(1), "a segment").await?;
    bucket.deleter().delete(&log(2)).await?;
    for _ in 0..2 {
        bucket.deleter().delete(&log(1)).await?;
    }
    Ok(())
}
