//! Rights and the meter: ours to keep, whatever the store.

use super::{Outcome, claim, ensure, fails, log, noise};
use tidemark_bucket::{Bucket, Count, Created, Op};
use tidemark_format::{Day, ErrorKind, KeyFamily, ObjectKey, StatsTable};

pub(super) async fn claims_and_genesis_are_never_deleted(bucket: Bucket) -> Outcome {
    for key in [ObjectKey::Genesis, claim(1)] {
        ensure!(bucket.appender().create(&key, "stays").await? == Created::New, "{key} exists");
        fails(bucket.deleter().delete(&key).await, ErrorKind::FixRequest, &format!("delete {key}"))?;
        ensure!(bucket.read_only().get(&key).await? == "stays", "{key} is gone");
    }
    Ok(())
}

pub(super) async fn an_appender_writes_each_family_its_own_way(bucket: Bucket) -> Outcome {
    let (appender, before) = (bucket.appender(), bucket.meter().snapshot());
    for key in [ObjectKey::Genesis, claim(1), ObjectKey::Hint] {
        fails(appender.put(&key, "x").await, ErrorKind::FixRequest, &format!("put {key}"))?;
    }
    for key in [log(1), ObjectKey::Hint] {
        fails(appender.create(&key, "x").await, ErrorKind::FixRequest, &format!("create {key}"))?;
    }
    ensure!(bucket.meter().snapshot().since(&before).iter().count() == 0, "a refused request was sent");
    Ok(())
}

pub(super) async fn a_pinner_writes_below_v_only(bucket: Bucket) -> Outcome {
    let pinner = bucket.pinner();
    for key in [ObjectKey::Genesis, claim(1), log(1)] {
        fails(pinner.put(&key, "x").await, ErrorKind::FixRequest, &format!("put {key}"))?;
    }
    pinner.put(&ObjectKey::Hint, "x").await?;
    Ok(())
}

pub(super) async fn a_recorder_writes_and_deletes_statistics_only(bucket: Bucket) -> Outcome {
    let (recorder, other) = (bucket.recorder(), ObjectKey::Hint);
    bucket.pinner().put(&other, "stays").await?;
    for key in [ObjectKey::Genesis, claim(1), log(1), other] {
        fails(recorder.put(&key, "x").await, ErrorKind::FixRequest, &format!("put {key}"))?;
        fails(recorder.delete(&key).await, ErrorKind::FixRequest, &format!("delete {key}"))?;
    }
    let (table, day) = (StatsTable::Event, Day::new(20_000));
    let key = ObjectKey::Statistics { table, day, name: [7; 16] };
    fails(bucket.pinner().put(&key, "x").await, ErrorKind::FixRequest, &format!("pin {key}"))?;
    recorder.put(&key, "old").await?;
    recorder.put(&key, "new").await?;
    ensure!(recorder.get(&key).await? == "new", "{key} was not overwritten");
    let listed = recorder.list(KeyFamily::Statistics).await?;
    ensure!(listed == [(key.to_string(), 3)], "statistics: {listed:?}");
    let listed = recorder.list(KeyFamily::Volatile).await?;
    ensure!(listed == [(other.to_string(), 5)], "the rest of v/: {listed:?}");
    recorder.delete(&key).await?;
    recorder.delete(&key).await?;
    ensure!(recorder.list(KeyFamily::Statistics).await?.is_empty(), "{key} is still there");
    Ok(())
}

pub(super) async fn the_meter_counts_each_request_once(bucket: Bucket) -> Outcome {
    let (appender, body) = (bucket.appender(), noise(1, 5000));
    appender.put(&log(1), body).await?;
    let before = bucket.meter().snapshot();
    appender.get_range(&log(1), 100..1100).await?;
    appender.get_prefix(&log(1), 512).await?;
    appender.get(&log(1)).await?;
    let _ = appender.create(&claim(1), "0123456789").await?;
    let counted = bucket.meter().snapshot().since(&before);
    let gets = counted.get(Op::Get, KeyFamily::Log);
    ensure!(gets == Count { requests: 3, bytes: 1000 + 512 + 5000 }, "gets: {gets:?}");
    let puts = counted.get(Op::Put, KeyFamily::Claim);
    ensure!(puts == Count { requests: 1, bytes: 10 }, "puts: {puts:?}");
    ensure!(counted.iter().count() == 2, "more: {counted}");
    Ok(())
}
