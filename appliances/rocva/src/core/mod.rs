//! What a recovery does next. No I/O, no clock: causes and the time go in, effects come out.

mod phase;
mod recovery;
#[cfg(test)]
mod tests;

pub use phase::{Cause, IllegalMove, Phase};
pub use recovery::{Effect, Event, Record, Recovery, StepRecord, StepState};
