//! Finds the log and the index of a domain in a bucket, and checks every link. Shared by those who read and maintain.
//!
//! [`Walk`] decides what to ask for next and when the end of the log is known; [`Heads`] performs its requests. A [`Log`] may
//! begin behind what an index covers. [`Roots`] finds the newest root, [`Tables`] reads its tables a row group at a time;
//! [`Rows`] and [`Merged`] are their rows in order.
//! [`truth`] is the history without an index: what the newest ledger names, and the log behind it.
//!
//! Invariants: nothing here writes or lists; only a proven NotFound ends a log; nothing unverified is handed out; caches are
//! bounded in bytes.
//! Not here: what the rows mean for a disk (reader), and writing tables (gc).

mod cache;
mod coalesce;
mod error;
mod heads;
mod ledgers;
mod log;
mod roots;
mod rows;
mod tables;
mod walk;

pub use cache::Bounded;
pub use coalesce::{Run, coalesce};
pub use error::{Error, Result};
pub use heads::{HeadOptions, Heads, within};
pub use ledgers::{Past, Truth, truth};
pub use log::{EpochLog, Link, Log, Segment, last_by, time_in};
pub use roots::Roots;
pub use rows::{Merged, Only, Place, Rows, place_of};
pub use tables::Tables;
pub use walk::{Answer, Step, Walk, Want};
