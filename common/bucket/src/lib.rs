//! Object stores behind handles typed by right, with a cost meter, an attach probe and a fault layer.
//!
//! A [`BucketUrl`] becomes a [`Bucket`], and that hands out [`ReadOnly`], [`Pinner`], [`Recorder`], [`Appender`] and [`Deleter`]: what a
//! piece of code may do to a domain stands in the type of what it was given.
//! Invariants: only an object proven absent is an error of kind `NotFound`; no body is shorter than it should be; a key
//! that is not mutable is never given other bytes where the store can tell; requests, bytes in flight, attempts and
//! waiting are bounded.
//! Not here: what the objects mean (`tidemark-format`), and when to write which (writer, reader, gc).

mod bucket;
mod dir;
mod dispatch;
mod error;
mod faults;
mod handles;
mod memory;
mod meter;
mod options;
mod pieces;
mod probe;
mod remote;
mod store;
mod url;

pub use bucket::Bucket;
pub use error::{At, Cause, Error, Result};
pub use faults::{Fault, Faults};
pub use handles::{Appender, Created, Deleter, Pinner, PutOutcome, ReadOnly, Recorder};
pub use meter::{Count, Meter, MeterSnapshot, Op};
pub use options::{BucketOptions, S3Key};
pub use pieces::Pieces;
pub use probe::{Attestation, Check, StoreMode, attach_probe};
pub use url::BucketUrl;
