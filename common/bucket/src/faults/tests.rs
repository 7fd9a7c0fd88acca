use super::*;
use crate::{Bucket, BucketOptions, Created, Error, PutOutcome};
use tidemark_env::SeededEntropy;
use tidemark_format::{Epoch, ErrorKind, ObjectKey, Seq};

const SPEC: &str = "seed=7,surface,vanish-after=100,put:log/:applied-lost:0.05,get::bitflip:0.001,any::slow-20ms:@3";

fn log(seq: u64) -> ObjectKey {
    ObjectKey::Log { epoch: Epoch::new(1), seq: Seq::new(seq) }
}

fn options() -> BucketOptions {
    BucketOptions { entropy: Arc::new(SeededEntropy::new(1)), ..BucketOptions::default() }
}

#[test]
fn a_plan_reads_back_as_written() {
    let plan: Faults = SPEC.parse().unwrap();
    assert_eq!(plan.to_string(), SPEC);
    assert_eq!(plan.rules[0].when, When::Chance(0.05));
    assert!("".parse::<Faults>().unwrap().rules.is_empty());
}

#[test]
fn a_bad_plan_is_refused_with_the_item_that_is_bad() {
    for bad in [
        "seed=x",
        "put:log/:error",
        "push::error:1",
        "get::explode:1",
        "get::applied-lost:1",
        "get::error:1.5",
        "get::error:NaN",
        "any::slow-5s:1",
        "get::error:@x",
        "get:a:b:error:1",
    ] {
        let error = format!("seed=1,{bad}").parse::<Faults>().unwrap_err();
        assert!(error.to_string().contains(bad), "{error}");
        assert_eq!(error.kind(), ErrorKind::FixRequest);
    }
}

#[test]
fn one_seed_hits_the_same_requests_in_any_order() {
    let hits = |seed: u64, keys: &mut dyn Iterator<Item = u64>| {
        let plan = Faults::seeded(seed).on("log/", Op::Get, Fault::Error, 0.3);
        let mut hit: Vec<_> = keys.filter(|k| plan.judge(Op::Get, &format!("log/{k}")).fault.is_some()).collect();
        hit.sort_unstable();
        hit
    };
    let forwards = hits(7, &mut (0..1000));
    assert_eq!(forwards, hits(7, &mut (0..1000).rev()));
    assert_ne!(forwards, hits(8, &mut (0..1000)));
    assert!((200..400).contains(&forwards.len()), "{}", forwards.len());
}

#[tokio::test(start_paused = true)]
async fn fault_lost_answers_are_retried_and_counted() {
    let faults = Faults::seeded(1).at("", Op::Put, Fault::AppliedLost, 1);
    let bucket = Bucket::memory_with(options()).with_faults(faults.clone());
    assert_eq!(bucket.appender().put(&log(1), "segment").await.unwrap(), PutOutcome::Already);
    assert_eq!(bucket.meter().snapshot().total(Op::Put).requests, 2);
    assert_eq!(faults.injected(), 1);
}

#[tokio::test(start_paused = true)]
async fn fault_create_whose_answer_is_lost_is_still_ours() {
    let faults = Faults::seeded(1).at("claim/", Op::Put, Fault::AppliedLost, 1);
    let appender = Bucket::memory_with(options()).with_faults(faults).appender();
    let claim = ObjectKey::writer_claim(Epoch::new(1));
    assert_eq!(appender.create(&claim, "nonce 1").await.unwrap(), Created::New);
    assert_eq!(appender.create(&claim, "nonce 2").await.unwrap(), Created::Exists);
}

#[tokio::test(start_paused = true)]
async fn fault_create_that_loses_after_a_lost_answer_is_not_ours() {
    let bucket = Bucket::memory_with(options());
    let claim = ObjectKey::writer_claim(Epoch::new(1));
    assert_eq!(bucket.appender().create(&claim, "nonce 1").await.unwrap(), Created::New);
    let faulty = bucket.with_faults(Faults::seeded(1).at("", Op::Put, Fault::Error, 1));
    assert_eq!(faulty.appender().create(&claim, "nonce 2").await.unwrap(), Created::Exists);
}

#[tokio::test(start_paused = true)]
async fn fault_surfacing_shows_the_first_failure() {
    let faults = Faults::seeded(1).on("", Op::Put, Fault::AppliedLost, 1.0).surfacing();
    let bucket = Bucket::memory_with(options());
    let error = bucket.with_faults(faults).appender().put(&log(1), "segment").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { attempts: 1, .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert_eq!(bucket.read_only().get(&log(1)).await.unwrap(), "segment", "it was applied all the same");
}

#[tokio::test(start_paused = true)]
async fn fault_short_answer_is_asked_for_again() {
    let bucket = Bucket::memory_with(options());
    bucket.appender().put(&log(1), "0123456789").await.unwrap();
    let once = bucket.with_faults(Faults::seeded(1).at("", Op::Get, Fault::Short, 1)).read_only();
    assert_eq!(once.get(&log(1)).await.unwrap(), "0123456789");
    let always = bucket.with_faults(Faults::seeded(1).on("", Op::Get, Fault::Short, 1.0)).read_only();
    for result in
        [always.get(&log(1)).await, always.get_prefix(&log(1), 5).await, always.get_range(&log(1), 2..9).await]
    {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Short { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::DataLoss);
    }
}

#[tokio::test(start_paused = true)]
async fn fault_bit_flip_changes_one_bit() {
    let bucket = Bucket::memory_with(options());
    bucket.appender().put(&log(1), vec![0; 4096]).await.unwrap();
    let faulty = bucket.with_faults(Faults::seeded(1).on("", Op::Get, Fault::BitFlip, 1.0)).read_only();
    let got = faulty.get(&log(1)).await.unwrap();
    assert_eq!(got.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
}

#[tokio::test(start_paused = true)]
async fn fault_vanished_bucket_fails_in_time_and_can_come_back() {
    let (bucket, faults) = (Bucket::memory_with(options()), Faults::seeded(1));
    bucket.appender().put(&log(1), "segment").await.unwrap();
    let faulty = bucket.with_faults(faults.clone()).read_only();
    faulty.get(&log(1)).await.unwrap();
    faults.vanish();
    let started = tokio::time::Instant::now();
    let error = faulty.get(&log(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert!(started.elapsed() <= options().give_up_after);
    faults.come_back();
    faulty.get(&log(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn fault_store_that_never_answers_is_given_up_in_time() {
    let bucket = Bucket::memory_with(options()).with_faults(Faults::seeded(1).on("", None, Fault::Hang, 1.0));
    let started = tokio::time::Instant::now();
    let error = bucket.read_only().get(&log(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.to_string().contains("log/0000000000000001/0000000000000001"), "{error}");
    let patience = options().give_up_after + std::time::Duration::from_secs(10);
    assert!(started.elapsed() <= patience, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn fault_slow_store_is_waited_for() {
    let bucket = Bucket::memory_with(options());
    bucket.appender().put(&log(1), "segment").await.unwrap();
    let slow = Fault::Slow(std::time::Duration::from_secs(2));
    let faulty = bucket.with_faults(Faults::seeded(1).on("", None, slow, 1.0)).read_only();
    let started = tokio::time::Instant::now();
    assert_eq!(faulty.get(&log(1)).await.unwrap(), "segment");
    assert!(started.elapsed() >= std::time::Duration::from_secs(2));
}
