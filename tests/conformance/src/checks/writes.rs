//! Writing: the same bytes again are fine, others are not; the hint alone changes.

use super::{Outcome, Wrong, ensure, fails, log, noise};
use futures::future::join_all;
use tidemark_bucket::{Attestation, Bucket, PutOutcome, StoreMode, attach_probe};
use tidemark_env::SystemEntropy;
use tidemark_format::{Epoch, ErrorKind, ObjectKey, Role, Seq};

/// Attaches, so that conditional puts are known to work.
async fn attach(bucket: &Bucket) -> Outcome {
    let mode = attach_probe(&bucket.appender(), &SystemEntropy, Attestation::None).await?;
    ensure!(mode == StoreMode::Cas, "attached as {mode}");
    Ok(())
}

pub(super) async fn put_again_with_the_same_bytes_is_fine(bucket: Bucket) -> Outcome {
    attach(&bucket).await?;
    for len in [100, 512, 100_000] {
        let (key, body) = (log(len), noise(len, len as usize));
        let first = bucket.appender().put(&key, body.clone()).await?;
        ensure!(first == PutOutcome::Stored, "first put of {len} bytes: {first:?}");
        let again = bucket.appender().put(&key, body.clone()).await?;
        ensure!(again == PutOutcome::Already, "second put of {len} bytes: {again:?}");
        ensure!(bucket.read_only().get(&key).await? == body, "{len} bytes changed");
    }
    Ok(())
}

pub(super) async fn put_with_other_bytes_is_a_collision(bucket: Bucket) -> Outcome {
    attach(&bucket).await?;
    for (key, len) in [(log(1), 100), (log(2), 70_000), (base(1), 5000)] {
        bucket.appender().put(&key, noise(1, len)).await?;
        fails(bucket.appender().put(&key, noise(2, len)).await, ErrorKind::Fenced, &format!("{key} with other bytes"))?;
        ensure!(bucket.read_only().get(&key).await? == noise(1, len), "{key} is overwritten");
    }
    Ok(())
}

fn base(seq: u64) -> ObjectKey {
    ObjectKey::Base { role: Role::Writer, epoch: Epoch::new(1), seq: Seq::new(seq) }
}

pub(super) async fn put_with_another_end_is_a_collision(bucket: Bucket) -> Outcome {
    attach(&bucket).await?;
    let body = noise(1, 2000);
    bucket.appender().put(&log(1), body.clone()).await?;
    fails(bucket.appender().put(&log(1), body[..1999].to_vec()).await, ErrorKind::Fenced, "without its last byte")?;
    let longer = [&body[..], b"+"].concat();
    fails(bucket.appender().put(&log(1), longer).await, ErrorKind::Fenced, "with a byte more")?;
    ensure!(bucket.read_only().get(&log(1)).await? == body, "it is overwritten");
    Ok(())
}

pub(super) async fn racing_puts_of_one_segment_all_succeed(bucket: Bucket) -> Outcome {
    attach(&bucket).await?;
    let (appender, key, body) = (bucket.appender(), log(1), noise(1, 200_000));
    let outcomes = join_all((0..4).map(|_| appender.put(&key, body.clone()))).await;
    let mut stored = 0;
    for outcome in outcomes {
        stored += usize::from(outcome? == PutOutcome::Stored);
    }
    ensure!(stored == 1, "{stored} of 4 stored");
    ensure!(bucket.read_only().get(&key).await? == body, "other bytes");
    Ok(())
}

pub(super) async fn the_hint_is_overwritten(bucket: Bucket) -> Outcome {
    for (i, len) in [100, 1, 5000, 100].into_iter().enumerate() {
        let hint = noise(i as u64, len);
        bucket.appender().put_hint(hint.clone()).await?;
        ensure!(bucket.read_only().get(&ObjectKey::Hint).await? == hint, "an old hint is read");
    }
    Ok(())
}

pub(super) async fn the_hint_is_never_torn(bucket: Bucket) -> Outcome {
    let whole = |i: usize| vec![b'a' + (i % 26) as u8; 1000 + i];
    bucket.appender().put_hint(whole(0)).await?;
    let appender = bucket.appender();
    let write = async {
        for i in 1..20 {
            appender.put_hint(whole(i)).await?;
        }
        Ok::<_, Wrong>(())
    };
    let read = async {
        for _ in 0..20 {
            let seen = bucket.read_only().get(&ObjectKey::Hint).await?;
            ensure!(seen.len() >= 1000 && seen == whole(seen.len() - 1000), "a mixture of {} bytes", seen.len());
        }
        Ok(())
    };
    let (wrote, seen) = futures::join!(write, read);
    wrote.and(seen)
}

pub(super) async fn many_objects_at_once_are_all_stored(bucket: Bucket) -> Outcome {
    let (appender, keys) = (bucket.appender(), (0..100).map(log).collect::<Vec<_>>());
    let bodies: Vec<_> = (0..100).map(|i| noise(i, 1000 + i as usize * 700)).collect();
    for put in join_all(keys.iter().zip(&bodies).map(|(key, body)| appender.put(key, body.clone()))).await {
        put?;
    }
    for ((got, body), key) in
        join_all(keys.iter().map(|key| appender.get(key))).await.into_iter().zip(&bodies).zip(&keys)
    {
        ensure!(got? == body, "{key} holds other bytes");
    }
    Ok(())
}

pub(super) async fn keys_next_to_each_other_do_not_mix(bucket: Bucket) -> Outcome {
    let keys = [0, 1, 0x10, 0xff, u64::MAX].map(|n| ObjectKey::Log { epoch: Epoch::new(n), seq: Seq::new(n) });
    let more = [base(0), base(1), ObjectKey::Base { role: Role::Maintenance, epoch: Epoch::new(1), seq: Seq::new(1) }];
    let all: Vec<_> = keys.into_iter().chain(more).collect();
    for key in &all {
        bucket.appender().put(key, key.to_string().into_bytes()).await?;
    }
    for key in &all {
        ensure!(bucket.read_only().get(key).await? == key.to_string(), "{key} holds another's bytes");
    }
    Ok(())
}
