//! Finds the newest root: where the index of a domain is described.
//!
//! A root is derived, so an old one is as true as the newest, it only covers less. `v/root` holds a copy of one; without it
//! the claims of maintenance are searched, and roots of an epoch are numbered without a gap. No LIST.

use crate::error::{Error, Result};
use tidemark_bucket::ReadOnly;
use tidemark_format::{Claim, DomainId, Epoch, ErrorKind, Expect, ObjectKey, Root, Seq};

/// Looks for roots.
#[derive(Clone, Debug)]
pub struct Roots {
    bucket: ReadOnly,
    domain: DomainId,
}

impl Roots {
    /// The roots of `domain`.
    pub fn new(bucket: ReadOnly, domain: DomainId) -> Self {
        Self { bucket, domain }
    }

    /// The copy of a root, if there is a good one. Whatever is wrong with it, there is none.
    pub async fn copy(&self) -> Option<Root> {
        let bytes = self.bucket.get(&ObjectKey::RootCopy).await.ok()?;
        Root::decode_copy(&bytes, self.domain).ok()
    }

    /// A root for a reader: the copy, else the newest of all; `None` if there was never one.
    ///
    /// # Errors
    /// Store errors other than absence, and damage of the root that was found.
    pub async fn for_reading(&self, copy: Option<Root>) -> Result<Option<Root>> {
        match copy {
            Some(root) => Ok(Some(root)),
            None => self.newest(None).await,
        }
    }

    /// The newest root of all; `None` if there was never one. A copy saves requests.
    ///
    /// # Errors
    /// As [`Self::for_reading`], and those of [`Self::newest_claim`].
    pub async fn newest(&self, copy: Option<&Root>) -> Result<Option<Root>> {
        let newest = self.newest_claim(copy.map_or(Epoch::new(0), |root| root.epoch)).await?;
        for number in (1..=newest.get()).rev() {
            let epoch = Epoch::new(number);
            let seq = copy.filter(|root| root.epoch == epoch).map_or(1, |root| root.seq.get());
            if let Some(root) = self.from(epoch, seq).await? {
                return Ok(Some(root));
            }
        }
        Ok(None)
    }

    /// The newest maintenance claim at or behind `from`; epoch 0 if there is none.
    ///
    /// # Errors
    /// Store errors other than absence; `Format` for a claim that is damaged.
    pub async fn newest_claim(&self, from: Epoch) -> Result<Epoch> {
        //= SPEC.md#commit-rules
        //# F-1
        let mut search = LastPresent::behind(from.get());
        while let Some(number) = search.asks() {
            let key = ObjectKey::maintenance_claim(Epoch::new(number));
            let found = self.get(key).await?;
            if let Some(bytes) = &found {
                Claim::decode(bytes, &self.expect(key)).map_err(|source| Error::Format { key, source })?;
            }
            search.answer(found.is_some());
        }
        Ok(Epoch::new(search.last()))
    }

    /// The newest root of `epoch`, which is number `seq` or one behind it.
    async fn from(&self, epoch: Epoch, seq: u64) -> Result<Option<Root>> {
        //= SPEC.md#roots
        //# RT-1
        let key = |number| ObjectKey::Root { epoch, seq: Seq::new(number) };
        let Some(mut bytes) = self.get(key(seq)).await? else { return Ok(None) };
        let mut search = LastPresent::behind(seq);
        while let Some(number) = search.asks() {
            let found = self.get(key(number)).await?;
            search.answer(found.is_some());
            // Numbers that are present are met in ascending order.
            bytes = found.unwrap_or(bytes);
        }
        let key = key(search.last());
        Root::decode(&bytes, &self.expect(key)).map(Some).map_err(|source| Error::Format { key, source })
    }

    pub(crate) fn domain(&self) -> DomainId {
        self.domain
    }

    pub(crate) async fn get(&self, key: ObjectKey) -> Result<Option<bytes::Bytes>> {
        match self.bucket.get(&key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Store { key, source }),
        }
    }

    fn expect(&self, key: ObjectKey) -> Expect {
        Expect { domain: self.domain, key }
    }
}

/// Finds the last of numbers that are present without a gap. Leaps upwards until one is absent, then bisects.
struct LastPresent {
    /// Present, or where the search began.
    low: u64,
    /// Absent.
    high: Option<u64>,
    stride: u64,
}

impl LastPresent {
    /// A search behind `known`, which is present or 0.
    fn behind(known: u64) -> Self {
        Self { low: known, high: None, stride: 1 }
    }

    /// The number to look at next; `None` when the last one is known.
    fn asks(&self) -> Option<u64> {
        match self.high {
            None => Some(self.low.saturating_add(self.stride)).filter(|number| *number > self.low),
            Some(high) => Some(self.low + (high - self.low) / 2).filter(|number| *number > self.low),
        }
    }

    /// Whether the number that it asked for is present.
    fn answer(&mut self, present: bool) {
        let Some(number) = self.asks() else { return };
        if present {
            (self.low, self.stride) = (number, self.stride.saturating_mul(2));
        } else {
            self.high = Some(number);
        }
    }

    fn last(&self) -> u64 {
        self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_found_in_few_questions() {
        for last in [0, 1, 2, 3, 7, 8, 100, 65_000, u64::MAX - 1, u64::MAX] {
            for known in [0, last / 2, last] {
                let (mut search, mut asked) = (LastPresent::behind(known), 0);
                while let Some(number) = search.asks() {
                    asked += 1;
                    search.answer(number <= last);
                }
                assert_eq!(search.last(), last);
                assert!(asked <= 2 * (64 - (last - known).leading_zeros()) + 1, "{last} from {known}: {asked}");
            }
        }
    }
}
