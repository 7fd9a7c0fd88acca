//! Which frames a routine check looks at: each with the same chance, decided by the frame's name and a seed alone.
//!
//! So the same seed looks at the same frames whenever and in whatever order it meets them, also when the bucket has grown, and
//! runs with other seeds look at others: where n frames are damaged, a share p finds some with probability 1 - (1 - p)^n.

use tidemark_format::{ObjectKey, Role};

/// A share of all frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    share: f64,
    seed: u64,
}

impl Sample {
    /// A share of frames, of those that `seed` names. `None` unless `share` is above 0 and at most 1.
    pub fn new(share: f64, seed: u64) -> Option<Self> {
        (share > 0.0 && share <= 1.0).then_some(Self { share, seed })
    }

    /// The share.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Of how many damaged frames one at least is found with such a confidence, which is above 0 and below 1.
    pub fn finds(&self, confidence: f64) -> u64 {
        if self.share >= 1.0 {
            return 1;
        }
        // More than there can be where the share is too small to tell; at least one.
        ((1.0 - confidence).ln() / (-self.share).ln_1p()).ceil().max(1.0) as u64
    }

    /// Whether it has a frame, or a row group, of the object at `key`.
    pub(super) fn has(&self, key: &ObjectKey, frame: usize) -> bool {
        let (kind, epoch, seq) = match *key {
            ObjectKey::Log { epoch, seq } => (0, epoch, seq),
            ObjectKey::Base { role: Role::Writer, epoch, seq } => (1, epoch, seq),
            ObjectKey::Base { role: Role::Maintenance, epoch, seq } => (2, epoch, seq),
            ObjectKey::Index { epoch, seq } => (3, epoch, seq),
            _ => return true,
        };
        let name = [kind, epoch.get(), seq.get(), frame as u64];
        let drawn = name.into_iter().fold(scatter(self.seed), |drawn, part| scatter(drawn ^ scatter(part)));
        // 53 bits make a number from 0 to below 1.
        ((drawn >> 11) as f64) < self.share * (1u64 << 53) as f64
    }
}

/// Spreads a number over all 64 bits (Steele, Lea, Flood: SplitMix64, OOPSLA 2014).
fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_format::{Epoch, Seq};

    fn log(epoch: u64, seq: u64) -> ObjectKey {
        ObjectKey::Log { epoch: Epoch::new(epoch), seq: Seq::new(seq) }
    }

    /// Of n draws with chance p, a count that is off by less than five standard deviations.
    fn is_fair(count: u64, n: u64, p: f64) -> bool {
        let (mean, deviation) = (n as f64 * p, (n as f64 * p * (1.0 - p)).sqrt());
        (count as f64 - mean).abs() <= 5.0 * deviation
    }

    #[test]
    fn every_frame_has_the_same_chance_whatever_its_object_place_and_seed() {
        for share in [0.001, 0.01, 0.25, 0.9] {
            let sample = |seed| Sample::new(share, seed).unwrap();
            let of = |count: usize, n: u64| assert!(is_fair(count as u64, n, share), "{count} of {n} at {share}");
            of((0..50_000).filter(|seed| sample(*seed).has(&log(3, 7), 5)).count(), 50_000);
            of((0..50_000).filter(|seq| sample(1).has(&log(3, *seq), 5)).count(), 50_000);
            of((0..50_000).filter(|epoch| sample(1).has(&log(*epoch, 7), 5)).count(), 50_000);
            of((0..50_000).filter(|frame| sample(1).has(&log(3, 7), *frame)).count(), 50_000);
            // Two seeds have in common what chance has in common.
            let both = (0..50_000).filter(|f| sample(1).has(&log(3, 7), *f) && sample(2).has(&log(3, 7), *f)).count();
            assert!(is_fair(both as u64, 50_000, share * share), "{both} at {share}");
        }
        assert!((0..50_000).all(|frame| Sample::new(1.0, 9).unwrap().has(&log(1, 1), frame)));
    }

    #[test]
    fn a_sample_knows_how_much_damage_it_finds() {
        let finds = |share| Sample::new(share, 0).unwrap().finds(0.99);
        assert_eq!([finds(1.0), finds(0.999), finds(0.5), finds(0.01)], [1, 1, 7, 459]);
        assert!(finds(f64::MIN_POSITIVE) > 1 << 60);
        assert_eq!([0.0, -0.1, 1.1, f64::NAN, f64::INFINITY].map(|share| Sample::new(share, 0)), [None; 5]);
    }
}
