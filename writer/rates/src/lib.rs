//! How fast: everything that measures or limits the replication of a domain, as pure functions of events and time.
//!
//! | module | events in | numbers out |
//! |---|---|---|
//! | [`age`] | writes acknowledged, writes committed | the recovery point, measured |
//! | [`meter`] | bytes moved | smoothed rates, reduction by compression |
//! | [`throttle`] | fill of the log, bytes freed, guest writes | how long each write is held; stages of backpressure |
//! | [`bandwidth`] | objects to send, a limit | when each may be started |
//! | [`seeding`] | latencies of guest writes, share left by the throttle | rate of background replication, its end |
//!
//! `now` is the caller's monotonic clock (`tidemark_env::Clock::monotonic`); rates are bytes a second ([`Rate`]). Time that steps
//! back is taken for time that stands still. Nothing here does I/O, reads a clock, waits, or allocates without a bound.
//! All arithmetic is `+ - * /` on integers and IEEE doubles, so a run gives the same numbers on every machine.

pub mod age;
pub mod bandwidth;
mod error;
pub mod meter;
mod rate;
pub mod seeding;
pub mod throttle;

pub use age::AgeTracker;
pub use bandwidth::{Limit, TokenBucket};
pub use error::{Error, Result};
pub use meter::{Meter, MeterOptions, Reduction};
pub use rate::Rate;
pub use seeding::{Progress, SeedControl, SeedOptions};
pub use throttle::{Admission, DiskOptions, Load, OnOverflow, Signals, Stage, Throttle, ThrottleOptions};
