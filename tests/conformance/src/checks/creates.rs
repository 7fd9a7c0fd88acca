//! Creating: exactly one wins, and what won stays.

use super::{Outcome, claim, ensure, log, noise};
use futures::future::join_all;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemark_bucket::{Attestation, Bucket, Created, StoreMode, attach_probe};
use tidemark_env::SystemEntropy;
use tidemark_format::{ErrorKind, ObjectKey};

const RACERS: usize = 8;

pub(super) async fn create_makes_an_absent_object(bucket: Bucket) -> Outcome {
    for (i, key) in [ObjectKey::Genesis, claim(1), claim(2)].iter().enumerate() {
        let body = noise(i as u64, 300);
        ensure!(bucket.appender().create(key, body.clone()).await? == Created::New, "{key} is said to exist");
        ensure!(bucket.read_only().get(key).await? == body, "{key} holds other bytes");
    }
    Ok(())
}

pub(super) async fn create_leaves_an_existing_object_alone(bucket: Bucket) -> Outcome {
    ensure!(bucket.appender().create(&claim(1), "first").await? == Created::New, "the first create loses");
    for body in ["second", "first", "", "a longer one"] {
        let outcome = bucket.appender().create(&claim(1), body).await?;
        ensure!(outcome == Created::Exists, "create with {body:?} wins");
        ensure!(bucket.read_only().get(&claim(1)).await? == "first", "create with {body:?} changes the object");
    }
    Ok(())
}

pub(super) async fn create_sees_what_put_wrote(bucket: Bucket) -> Outcome {
    let probe = ObjectKey::Probe { nonce: [7; 16] };
    bucket.pinner().put(&probe, "put").await?;
    ensure!(bucket.appender().create(&probe, "created").await? == Created::Exists, "create wins over a put object");
    ensure!(bucket.read_only().get(&probe).await? == "put", "create changes a put object");
    Ok(())
}

/// `RACERS` creates of one key at once; the winner's body has to be there.
async fn race(buckets: &[Bucket], key: ObjectKey, round: usize) -> Outcome {
    let bodies: Vec<_> = (0..RACERS).map(|i| format!("round {round}, racer {i}").repeat(20).into_bytes()).collect();
    // Tasks, not only futures: they run on different threads.
    let racers = bodies.iter().enumerate().map(|(i, body)| {
        let (appender, body) = (buckets[i % buckets.len()].appender(), body.clone());
        tokio::spawn(async move { appender.create(&key, body).await })
    });
    let mut winners = Vec::new();
    for (i, outcome) in join_all(racers).await.into_iter().enumerate() {
        if outcome.map_err(|error| super::Wrong(error.to_string()))?? == Created::New {
            winners.push(i);
        }
    }
    ensure!(winners.len() == 1, "round {round}: {} of {RACERS} win", winners.len());
    let stored = buckets[0].read_only().get(&key).await?;
    ensure!(stored == bodies[winners[0]], "round {round}: a loser's body is stored");
    Ok(())
}

pub(super) async fn racing_creates_have_one_winner(bucket: Bucket) -> Outcome {
    for round in 1..=6 {
        race(std::slice::from_ref(&bucket), claim(round as u64), round).await?;
    }
    Ok(())
}

pub(super) async fn racing_creates_through_clones_have_one_winner(bucket: Bucket) -> Outcome {
    let buckets = [bucket.clone(), bucket.clone(), bucket];
    for round in 1..=3 {
        // The same with a 404 seen before, which some caches remember.
        let seen = buckets[0].read_only().get(&claim(round as u64)).await;
        super::fails(seen, ErrorKind::NotFound, "before the race")?;
        race(&buckets, claim(round as u64), round).await?;
    }
    Ok(())
}

pub(super) async fn an_object_is_found_after_it_was_looked_for_in_vain(bucket: Bucket) -> Outcome {
    for seq in 1..=5 {
        for _ in 0..3 {
            super::fails(bucket.read_only().get(&log(seq)).await, ErrorKind::NotFound, "before the put")?;
            super::fails(bucket.read_only().head(&log(seq)).await, ErrorKind::NotFound, "before the put")?;
        }
        bucket.appender().put(&log(seq), "a segment").await?;
        ensure!(bucket.read_only().get(&log(seq)).await? == "a segment", "other bytes");
    }
    Ok(())
}

pub(super) async fn attach_finds_a_store_that_fences(bucket: Bucket) -> Outcome {
    let mode = attach_probe(&bucket.appender(), &SystemEntropy, Attestation::None).await?;
    ensure!(mode == StoreMode::Cas, "attached as {mode}");
    Ok(())
}

pub(super) async fn an_object_is_never_seen_in_part(bucket: Bucket) -> Outcome {
    const LEN: usize = 3 << 20;
    let (key, body, done) = (log(1), noise(1, LEN), AtomicBool::new(false));
    let read = bucket.read_only();
    let watch = async {
        let mut looks = 0;
        while !done.load(Ordering::SeqCst) || looks == 0 {
            looks += 1;
            match read.get(&key).await {
                Ok(seen) => ensure!(seen == body, "{} of {LEN} bytes are seen", seen.len()),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    };
    let write = async {
        let put = bucket.appender().put(&key, body.clone()).await;
        done.store(true, Ordering::SeqCst);
        put
    };
    let (seen, put) = futures::join!(watch, write);
    put?;
    seen
}
