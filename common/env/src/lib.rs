//! The only crate that reads a clock or draws randomness; everything else is handed both.
//!
//! So a test drives time by hand ([`ManualClock`]) and replays chance from one seed ([`SeededEntropy`]), and code under
//! test cannot tell. Clippy bans the originals everywhere else.
//! Not here: waiting. Timers are tokio's (its paused time serves tests), and pure cores are handed `now`.

#![allow(clippy::disallowed_methods, reason = "this is where the system's clock and randomness are read")]

mod clock;
mod entropy;

pub use clock::{Clock, ManualClock, SystemClock};
pub use entropy::{Entropy, SeededEntropy, SystemEntropy};
use std::fmt;
use std::sync::Arc;

/// What a piece of code needs of the world beyond its arguments. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Rolls the dice.
    pub entropy: Arc<dyn Entropy>,
}

impl Env {
    /// The machine's own clock and randomness.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy) }
    }

    /// A clock that stands at `clock`'s time until it is moved, and randomness that depends on `seed` alone.
    pub fn seeded(seed: u64, clock: Arc<ManualClock>) -> Self {
        Self { clock, entropy: Arc::new(SeededEntropy::new(seed)) }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").finish_non_exhaustive()
    }
}
