//! Does the store keep the promises that a domain's safety rests on? Asked of the store itself, at attach.
//!
//! "Accepts the condition and ignores it" is the usual way to fail (docs/lessons.md L20), so nothing is taken on trust: every check
//! is made on two fresh keys below `v/probe/`. They stay behind, a few bytes each: an appender cannot delete.

use crate::error::{Error, Result};
use crate::handles::{Appender, Created};
use std::fmt;
use tidemark_env::Entropy;
use tidemark_format::ObjectKey;

/// Keys on which each check is made.
const KEYS: usize = 2;
/// Creates of one key at the same time.
const RACERS: usize = 4;

/// How a store is used, as recorded in the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreMode {
    /// Create-if-absent works: claims fence.
    Cas,
    /// It does not; the operator attests that there is one writer.
    AttestedSingle,
}

impl StoreMode {
    /// The word in the claim.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cas => "cas",
            Self::AttestedSingle => "attested-single",
        }
    }
}

impl fmt::Display for StoreMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the operator vouches for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attestation {
    /// Nothing: the store has to fence.
    #[default]
    None,
    /// There is only ever one writer, whatever the store does.
    SingleWriterAttested,
}

/// A promise that a store broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// An object was not there, was created, and still reads as absent.
    NotFoundSticks,
    /// A read after the write returned other bytes.
    ReadAfterWrite,
    /// Create-if-absent of an existing object succeeded.
    SecondCreateWins,
    /// Create-if-absent was refused, yet the object changed.
    RefusedCreateOverwrites,
    /// Several creates of one key at the same time did not have exactly one winner.
    Race {
        /// How many won.
        winners: usize,
    },
    /// The winner of a race is not what the object holds.
    RaceLoserStored,
}

impl Check {
    /// True if a lone writer needs the promise too.
    const fn needed_by_one_writer(self) -> bool {
        matches!(self, Self::NotFoundSticks | Self::ReadAfterWrite)
    }

    pub(crate) const fn hint(self) -> &'static str {
        if self.needed_by_one_writer() {
            "no domain can live there: remove caches and proxies between here and the store, or use another store"
        } else {
            "use a store with conditional writes, or attest that there is only ever one writer"
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFoundSticks => f.write_str("an object created after it was looked for still reads as absent"),
            Self::ReadAfterWrite => f.write_str("a read after a write returns other bytes"),
            Self::SecondCreateWins => f.write_str("create-if-absent of an object that exists succeeds"),
            Self::RefusedCreateOverwrites => f.write_str("a refused create-if-absent changes the object"),
            Self::Race { winners } => write!(f, "{winners} of {RACERS} racing creates of one key succeed"),
            Self::RaceLoserStored => f.write_str("the loser of a race of creates is what is stored"),
        }
    }
}

/// Finds out how the store may be used and tells the bucket. A store that breaks a promise is refused, unless a lone writer
/// does without that promise and the operator attests that the writer is alone.
pub async fn attach_probe(bucket: &Appender, entropy: &dyn Entropy, attested: Attestation) -> Result<StoreMode> {
    let mut mode = StoreMode::Cas;
    for _ in 0..KEYS {
        for broken in [in_sequence(bucket, entropy).await?, in_a_race(bucket, entropy).await?].into_iter().flatten() {
            if broken.needed_by_one_writer() || attested == Attestation::None {
                return Err(Error::Liar { location: bucket.location().into(), check: broken });
            }
            tracing::warn!(location = bucket.location(), %broken, "the store does not fence; a single writer is attested");
            mode = StoreMode::AttestedSingle;
        }
    }
    bucket.set_mode(mode);
    Ok(mode)
}

/// One actor, one step after the other.
async fn in_sequence(bucket: &Appender, entropy: &dyn Entropy) -> Result<Option<Check>> {
    let key = ObjectKey::Probe { nonce: entropy.nonce() };
    let (first, second) = (body(entropy, "first"), body(entropy, "second"));
    if read(bucket, &key).await?.is_some() {
        return Ok(Some(Check::ReadAfterWrite));
    }
    if bucket.create(&key, first.clone()).await? == Created::Exists {
        return Ok(Some(Check::ReadAfterWrite));
    }
    match read(bucket, &key).await? {
        None => return Ok(Some(Check::NotFoundSticks)),
        Some(found) if found != first => return Ok(Some(Check::ReadAfterWrite)),
        Some(_) => {}
    }
    if bucket.create(&key, second).await? == Created::New {
        return Ok(Some(Check::SecondCreateWins));
    }
    Ok((read(bucket, &key).await? != Some(first)).then_some(Check::RefusedCreateOverwrites))
}

/// Several actors at once.
async fn in_a_race(bucket: &Appender, entropy: &dyn Entropy) -> Result<Option<Check>> {
    let key = ObjectKey::Probe { nonce: entropy.nonce() };
    let bodies: [Vec<u8>; RACERS] = std::array::from_fn(|i| body(entropy, &format!("racer {i}")));
    let outcomes = futures::future::join_all(bodies.iter().map(|body| bucket.create(&key, body.clone()))).await;
    let mut winners = Vec::new();
    for (outcome, body) in outcomes.into_iter().zip(bodies) {
        if outcome? == Created::New {
            winners.push(body);
        }
    }
    if winners.len() != 1 {
        return Ok(Some(Check::Race { winners: winners.len() }));
    }
    Ok((read(bucket, &key).await? != winners.pop()).then_some(Check::RaceLoserStored))
}

async fn read(bucket: &Appender, key: &ObjectKey) -> Result<Option<Vec<u8>>> {
    match bucket.get(key).await {
        Ok(bytes) => Ok(Some(bytes.to_vec())),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A body that nobody else writes.
fn body(entropy: &dyn Entropy, what: &str) -> Vec<u8> {
    format!("tidemark probe, {what}, {:032x}\n", u128::from_le_bytes(entropy.nonce())).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bucket, Fault, Faults, Op};
    use tidemark_env::SeededEntropy;
    use tidemark_format::ErrorKind;

    async fn attach(faults: Faults, attested: Attestation) -> Result<StoreMode> {
        let bucket = Bucket::memory().with_faults(faults);
        attach_probe(&bucket.appender(), &SeededEntropy::new(1), attested).await
    }

    fn broken(result: Result<StoreMode>) -> Check {
        match result {
            Err(error @ Error::Liar { check, .. }) => {
                assert_eq!(error.kind(), ErrorKind::FixRequest);
                assert!(error.hint().is_some());
                check
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_good_store_is_attached_as_cas_whatever_is_attested() {
        for attested in [Attestation::None, Attestation::SingleWriterAttested] {
            assert_eq!(attach(Faults::seeded(1), attested).await.unwrap(), StoreMode::Cas);
        }
    }

    #[tokio::test]
    async fn a_store_that_ignores_conditions_needs_an_attested_single_writer() {
        let liar = || Faults::seeded(1).on("v/probe/", Op::Put, Fault::IgnoreCondition, 1.0);
        assert_eq!(broken(attach(liar(), Attestation::None).await), Check::SecondCreateWins);
        assert_eq!(attach(liar(), Attestation::SingleWriterAttested).await.unwrap(), StoreMode::AttestedSingle);
    }

    #[tokio::test]
    async fn a_store_that_loses_races_only_is_found_out() {
        // Puts 1 and 2 are made in sequence, 3 to 6 race.
        let liar = || Faults::seeded(1).at("v/probe/", Op::Put, Fault::IgnoreCondition, 5);
        assert_eq!(broken(attach(liar(), Attestation::None).await), Check::Race { winners: 2 });
        assert_eq!(attach(liar(), Attestation::SingleWriterAttested).await.unwrap(), StoreMode::AttestedSingle);
    }

    #[tokio::test]
    async fn a_store_that_remembers_a_404_is_refused_even_to_a_single_writer() {
        // Get 1 looks before the object is there, get 2 after.
        let liar = || Faults::seeded(1).at("v/probe/", Op::Get, Fault::Stale404, 2);
        for attested in [Attestation::None, Attestation::SingleWriterAttested] {
            assert_eq!(broken(attach(liar(), attested).await), Check::NotFoundSticks);
        }
    }

    #[tokio::test]
    async fn a_store_that_reads_back_other_bytes_is_refused_even_to_a_single_writer() {
        let liar = || Faults::seeded(1).at("v/probe/", Op::Get, Fault::BitFlip, 2);
        for attested in [Attestation::None, Attestation::SingleWriterAttested] {
            assert_eq!(broken(attach(liar(), attested).await), Check::ReadAfterWrite);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_store_on_a_bad_line_is_attached_as_cas() {
        for seed in 0..50 {
            let line = Faults::seeded(seed)
                .on("", Op::Put, Fault::AppliedLost, 0.2)
                .on("", None, Fault::Error, 0.2)
                .on("", Op::Get, Fault::Short, 0.05);
            assert_eq!(attach(line.clone(), Attestation::None).await.unwrap(), StoreMode::Cas, "{line}");
        }
    }

    #[tokio::test]
    async fn a_collision_is_seen_only_where_the_store_can_tell() {
        let bucket = Bucket::memory();
        let appender = bucket.appender();
        let segment = ObjectKey::cut(tidemark_format::Epoch::new(1));
        appender.put(&segment, "ours").await.unwrap();
        assert_eq!(appender.put(&segment, "another's").await.unwrap_err().kind(), ErrorKind::Fenced);
        appender.set_mode(StoreMode::AttestedSingle);
        appender.put(&segment, "another's").await.unwrap();
    }
}
