//! Randomness: the kernel's, or a stream that depends on a seed alone.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::fmt;
use std::sync::Mutex;

/// Rolls the dice.
pub trait Entropy: Send + Sync {
    /// Overwrites all of `buffer` with random bytes.
    fn fill(&self, buffer: &mut [u8]);

    /// A random 128-bit name.
    fn nonce(&self) -> [u8; 16] {
        let mut nonce = [0; 16];
        self.fill(&mut nonce);
        nonce
    }

    /// A random number over the whole range.
    fn number(&self) -> u64 {
        let mut raw = [0; 8];
        self.fill(&mut raw);
        u64::from_le_bytes(raw)
    }
}

/// The kernel's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("a kernel that boots has getrandom(2) or /dev/urandom");
    }
}

/// A stream that depends on its seed alone: the same seed and calls give the same bytes on every machine.
pub struct SeededEntropy {
    stream: Mutex<ChaCha20Rng>,
}

impl SeededEntropy {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { stream: Mutex::new(ChaCha20Rng::seed_from_u64(seed)) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        self.stream.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).fill_bytes(buffer);
    }
}

impl fmt::Debug for SeededEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeededEntropy").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream() {
        let draw = |seed| {
            let entropy = SeededEntropy::new(seed);
            (entropy.nonce(), entropy.number())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn system_entropy_does_not_repeat() {
        assert_ne!(SystemEntropy.nonce(), SystemEntropy.nonce());
    }

    #[test]
    fn a_seed_gives_the_same_bytes_for_ever() {
        assert_eq!(SeededEntropy::new(1).number(), 11_413_071_731_502_626_714);
    }
}
