//! What a piece of code may do to a domain, as types. Rights only shrink: no handle leads to a stronger one.
//!
//! A writer is given an [`Appender`], and an appender has no delete (docs/lessons.md L1); a reader is given [`ReadOnly`] or, where
//! it has to keep objects alive, a [`Pinner`]; only maintenance holds a [`Deleter`].
//!
//! ```compile_fail,E0599
//! # async fn writer(appender: tidemark_bucket::Appender, key: tidemark_format::ObjectKey) {
//! appender.delete(&key).await; // no method named `delete`
//! # }
//! ```

use crate::dispatch::Dispatch;
use crate::error::{Error, Result};
use crate::meter::Meter;
use crate::pieces::Pieces;
use crate::probe::StoreMode;
use bytes::Bytes;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;
use tidemark_format::{KeyFamily, ObjectKey};

/// Reads objects; changes nothing.
#[derive(Clone)]
pub struct ReadOnly {
    dispatch: Arc<Dispatch>,
}

impl ReadOnly {
    pub(crate) fn new(dispatch: Arc<Dispatch>) -> Self {
        Self { dispatch }
    }

    /// The whole object.
    pub async fn get(&self, key: &ObjectKey) -> Result<Bytes> {
        self.dispatch.get(key).await
    }

    /// The first `len_max` bytes of the object, or all of it if it is shorter.
    pub async fn get_prefix(&self, key: &ObjectKey, len_max: u64) -> Result<Bytes> {
        self.dispatch.get_prefix(key, len_max).await
    }

    /// Exactly the bytes in `range`; an object that ends before `range.end` is an error of kind `DataLoss`.
    pub async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes> {
        self.dispatch.get_range(key, range).await
    }

    /// Length of the object in bytes.
    pub async fn head(&self, key: &ObjectKey) -> Result<u64> {
        self.dispatch.head(key).await
    }

    /// Every key of a family as text, with its length in bytes, sorted. For verification and maintenance only: nothing on
    /// the hot path lists (docs/lessons.md L28).
    pub async fn list(&self, family: KeyFamily) -> Result<Vec<(String, u64)>> {
        self.dispatch.list(family).await
    }

    /// Where the objects are, for people; holds no credentials.
    pub fn location(&self) -> String {
        self.dispatch.location().to_string()
    }

    /// Counts what all handles of this bucket ask for.
    pub fn meter(&self) -> &Meter {
        self.dispatch.meter()
    }
}

impl fmt::Debug for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadOnly({})", self.dispatch.location())
    }
}

macro_rules! reads_too {
    ($handle:ident) => {
        impl $handle {
            pub(crate) fn new(dispatch: Arc<Dispatch>) -> Self {
                Self { read: ReadOnly::new(dispatch) }
            }

            /// The right to read, alone.
            pub fn read_only(&self) -> &ReadOnly {
                &self.read
            }
        }

        impl Deref for $handle {
            type Target = ReadOnly;

            fn deref(&self) -> &ReadOnly {
                &self.read
            }
        }
    };
}

/// Reads, and writes below `v/` only: pins and other advisory objects.
#[derive(Clone, Debug)]
pub struct Pinner {
    read: ReadOnly,
}
reads_too!(Pinner);

impl Pinner {
    /// Stores an object below `v/`, whatever is there.
    pub async fn put(&self, key: &ObjectKey, body: impl Into<Pieces>) -> Result<()> {
        if key.family() != KeyFamily::Volatile {
            return Err(Error::NotAllowed { key: *key, right: "a pinner writes below v/ only" });
        }
        self.read.dispatch.put_mutable(key, body.into()).await
    }
}

/// Reads, and keeps statistics: writes and deletes below `v/stats/` only, on which nothing in a domain depends.
#[derive(Clone, Debug)]
pub struct Recorder {
    read: ReadOnly,
}
reads_too!(Recorder);

impl Recorder {
    /// Stores a file of statistics, whatever is there.
    pub async fn put(&self, key: &ObjectKey, body: impl Into<Pieces>) -> Result<()> {
        Self::check(key)?;
        self.read.dispatch.put_mutable(key, body.into()).await
    }

    /// Removes a file of statistics; removing what is not there succeeds.
    pub async fn delete(&self, key: &ObjectKey) -> Result<()> {
        Self::check(key)?;
        self.read.dispatch.delete(key).await
    }

    fn check(key: &ObjectKey) -> Result<()> {
        if key.family() == KeyFamily::Statistics {
            return Ok(());
        }
        Err(Error::NotAllowed { key: *key, right: "a recorder writes and deletes below v/stats/ only" })
    }
}

/// Reads, and adds objects; neither deletes nor changes one.
#[derive(Clone, Debug)]
pub struct Appender {
    read: ReadOnly,
}
reads_too!(Appender);

impl Appender {
    /// Stores an object if nothing is there.
    ///
    /// The body has to be the caller's alone (a nonce in it): if an earlier attempt's answer was lost, what stands there is
    /// read back, and [`Created::New`] then means that it holds this body. After an error of kind `Retry` the object may or
    /// may not be there, now or later.
    pub async fn create(&self, key: &ObjectKey, body: impl Into<Pieces>) -> Result<Created> {
        if !matches!(key, ObjectKey::Genesis | ObjectKey::Claim { .. } | ObjectKey::Probe { .. }) {
            return Err(Error::NotAllowed {
                key: *key,
                right: "only genesis, claims and probes are created; put the others",
            });
        }
        let new = self.read.dispatch.create(key, body.into()).await?;
        Ok(if new { Created::New } else { Created::Exists })
    }

    /// Stores an object of the log, of the base or of the index: a key that its epoch's owner alone writes, always with the same bytes, so
    /// that trying again is harmless.
    ///
    /// Where the store can tell, finding other bytes there is an error of kind `Fenced`: somebody else acts as the owner of
    /// this epoch (SPEC.md F-7). "Other" means another length or, of segments, other first 512 bytes, the header with its hash;
    /// of what the index is made of, any other byte.
    pub async fn put(&self, key: &ObjectKey, body: impl Into<Pieces>) -> Result<PutOutcome> {
        use KeyFamily::{Base, Index, Ledger, Log, Root};
        if !matches!(key.family(), Log | Base | Index | Root | Ledger) {
            let right = "only log, base, ledger and index objects are put; create the others";
            return Err(Error::NotAllowed { key: *key, right });
        }
        let stored = self.read.dispatch.put_immutable(key, body.into()).await?;
        Ok(if stored { PutOutcome::Stored } else { PutOutcome::Already })
    }

    /// Overwrites the hint. It is advisory: losing it, or reading an old one, costs time only.
    pub async fn put_hint(&self, body: impl Into<Pieces>) -> Result<()> {
        self.read.dispatch.put_mutable(&ObjectKey::Hint, body.into()).await
    }

    /// Overwrites what somebody wishes of how long points stay.
    pub async fn put_retention(&self, body: impl Into<Pieces>) -> Result<()> {
        self.read.dispatch.put_mutable(&ObjectKey::Retention, body.into()).await
    }

    /// Overwrites the copy of a root. An old one costs time only.
    pub async fn put_root_copy(&self, body: impl Into<Pieces>) -> Result<()> {
        self.read.dispatch.put_mutable(&ObjectKey::RootCopy, body.into()).await
    }

    /// Says that an object is in quarantine. It is said anew if it is found anew.
    pub async fn put_quarantine(&self, key: &ObjectKey, body: impl Into<Pieces>) -> Result<()> {
        if !matches!(key, ObjectKey::Quarantine { .. }) {
            return Err(Error::NotAllowed { key: *key, right: "only records of quarantine are put here" });
        }
        self.read.dispatch.put_mutable(key, body.into()).await
    }

    /// Tells the bucket how it is attached, where that is known without [`attach_probe`](crate::attach_probe).
    pub fn set_mode(&self, mode: StoreMode) {
        self.read.dispatch.record_mode(mode);
    }
}

/// Reads and deletes. Maintenance alone holds one.
#[derive(Clone, Debug)]
pub struct Deleter {
    read: ReadOnly,
}
reads_too!(Deleter);

impl Deleter {
    /// Removes an object; removing what is not there succeeds. Genesis and claims are never removed (docs/lessons.md L1).
    pub async fn delete(&self, key: &ObjectKey) -> Result<()> {
        if matches!(key, ObjectKey::Genesis | ObjectKey::Claim { .. }) {
            return Err(Error::NotAllowed { key: *key, right: "genesis and claims are never deleted" });
        }
        self.read.dispatch.delete(key).await
    }
}

/// What [`Appender::create`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "whoever does not look may act as the owner of somebody else's object"]
pub enum Created {
    /// Nothing was there; now this body is.
    New,
    /// Something else was there, and still is.
    Exists,
}

/// What [`Appender::put`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The body was sent and stored.
    Stored,
    /// The same object was there already: an earlier attempt of ours.
    Already,
}
