//! What a store must be able to do: five requests on text keys. Everything else in this crate is built on these.
//!
//! An implementation makes one attempt per call and classifies its failure; time-outs, retries, limits and counting are
//! [`crate::dispatch`]'s.

use crate::error::Cause;
use crate::pieces::Pieces;
use async_trait::async_trait;
use bytes::Bytes;

/// One place that holds objects. Keys are relative to the bucket's prefix.
#[async_trait]
pub(crate) trait Store: Send + Sync {
    /// Up to `len_max` bytes from `offset`; fewer if the object ends before, none if it ends at or before `offset`.
    async fn get(&self, key: &str, offset: u64, len_max: u64) -> Result<Got, Failure>;

    /// Stores an object in one step: readers see all of it or nothing.
    async fn put(&self, key: &str, body: Pieces, rule: PutRule) -> Result<Put, Failure>;

    /// Length of an object in bytes.
    async fn head(&self, key: &str) -> Result<u64, Failure>;

    /// All keys that start with `prefix`, with their lengths in bytes, sorted.
    async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, Failure>;

    /// Removes an object; removing what is not there succeeds.
    async fn delete(&self, key: &str) -> Result<(), Failure>;

    /// Whether [`PutRule::IfAbsent`] holds by construction or has to be probed.
    fn create(&self) -> CreatePromise;
}

/// How far create-if-absent can be relied on before it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CreatePromise {
    /// We implement it.
    Ours,
    /// A server implements it, or ignores it.
    Theirs,
}

/// What a get returned.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) bytes: Bytes,
    /// Length of the whole object, where the store tells: with it even an open-ended read is checked for completeness.
    pub(crate) object_len: Option<u64>,
}

/// On what condition a put stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutRule {
    /// Only if nothing is there.
    IfAbsent,
    /// Always.
    Overwrite,
}

/// What a put did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Stored,
    /// Something was there ([`PutRule::IfAbsent`] only).
    Exists,
}

/// Why one attempt failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The store says that the key does not exist.
    NotFound,
    /// The bucket does not exist.
    NoBucket,
    /// Credentials.
    Denied(Cause),
    /// Never works as asked.
    Refused(Cause),
    /// May work if tried again; a write may have been applied all the same.
    Transient(Cause),
    /// As `Transient`, but the caller of the bucket is to see it at once. Injected by tests only.
    Surface(Cause),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        match error.kind() {
            Io::NotFound => Self::NotFound,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Self::Denied(error.into()),
            Io::IsADirectory | Io::NotADirectory | Io::InvalidFilename | Io::InvalidInput | Io::FileTooLarge => {
                Self::Refused(error.into())
            }
            _ => Self::Transient(error.into()),
        }
    }
}
