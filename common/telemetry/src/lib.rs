//! What the system does, measured: looks at running parts become OpenMetrics text and rows of Parquet tables.
//!
//! The [`registry`] says once what is measured, in which unit and what it means; metrics, tables and docs/stats.md all come
//! from there. A [`DiskProbe`] counts what a disk is asked for; a [`Collector`] turns looks into rows, minute by minute; a
//! [`Spool`] keeps rows on the local disk until the bucket has them; [`upkeep`] merges a day's files and lets old ones go.
//! Invariants: what is not known is absent, never zero; a row is written down once, and is in the bucket under one key,
//! however often it is sent; memory is bounded, whatever guests do.
//! Nothing in a domain depends on statistics: losing them costs knowledge, never data.
//! Not here: what is looked at (the appliances), charts and reports (the command line).

mod core;
mod docs;
mod error;
mod file;
mod openmetrics;
pub mod registry;
mod spool;
mod tables;

pub use core::anomaly::{Features, Turn};
pub use core::collector::Happened;
pub use core::collector::{Collector, DiskLook, DomainLook, Look, Produced};
pub use core::estimate::{Distinct, Touched, entropy};
pub use core::latency::Latency;
pub use core::probe::{DiskProbe, DomainProbe, Moment, Signal};
pub use core::readings::{Readings, Value};
pub use core::row::{Cell, Row};
pub use docs::reference;
pub use error::{Error, Result};
pub use file::{decode, encode};
pub use openmetrics::{CONTENT_TYPE, Exposition};
pub use spool::{Shipment, Spool};
pub use tables::{DayFiles, Recovered, Rows, TableReader, Upkeep, append, days, pass_row, read, recovery_row, upkeep};
