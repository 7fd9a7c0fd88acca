//! What can go wrong with a bucket. Every error names what was tried, on which key, where.

use crate::meter::Op;
use crate::probe::Check;
use std::fmt;
use std::sync::Arc;
use tidemark_format::{ErrorKind, ObjectKey};

/// The result of talking to a bucket.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request to a bucket failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The object is proven absent: the store itself said so, about this key.
    #[error("cannot {0}: no such object")]
    NotFound(At),
    /// The bucket, container or directory is not there, which says nothing about any object.
    #[error("cannot {0}: no such bucket or directory")]
    NoBucket(At),
    /// The credentials are missing, wrong or lack the right.
    #[error("cannot {at}: denied")]
    Denied {
        /// What was tried.
        at: At,
        /// The store's words.
        #[source]
        source: Cause,
    },
    /// The store is slow, overloaded or out of reach. A write that ends so may or may not have been applied.
    #[error("cannot {at}: no success in {attempts} attempts and {waited_ms} ms")]
    Unavailable {
        /// What was tried.
        at: At,
        /// How often it was tried.
        attempts: u32,
        /// From the first attempt to giving up.
        waited_ms: u64,
        /// What the last attempt ended with.
        #[source]
        source: Cause,
    },
    /// The store will never do this as asked.
    #[error("cannot {at}: refused")]
    Refused {
        /// What was tried.
        at: At,
        /// The store's words.
        #[source]
        source: Cause,
    },
    /// The object ends before the bytes that were asked for, or the store keeps cutting the answer short.
    #[error("cannot {at}: wanted {wanted} bytes from {offset}, got {got}")]
    Short {
        /// What was tried.
        at: At,
        /// First byte asked for.
        offset: u64,
        /// Number of bytes asked for.
        wanted: u64,
        /// Number of bytes that came.
        got: u64,
    },
    /// Another owner of the same epoch wrote this key: a cloned or reverted appliance.
    #[error("cannot {at}: it holds other bytes already (epoch collision)")]
    Collision {
        /// What was tried.
        at: At,
    },
    /// The right of the handle does not cover the key.
    #[error("cannot write {key}: {right}")]
    NotAllowed {
        /// The key.
        key: ObjectKey,
        /// What the handle may write instead.
        right: &'static str,
    },
    /// The store breaks a promise that a domain's safety rests on.
    #[error("cannot attach {location}: {check}")]
    Liar {
        /// The store.
        location: Arc<str>,
        /// The promise that it breaks.
        check: Check,
    },
    /// The text does not name a bucket.
    #[error("bad bucket URL {url:?}: {why}")]
    BadUrl {
        /// The text, without any secret that stood in it.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The bucket cannot be set up from what its URL, the options and the environment say.
    #[error("cannot open {location}: {what}")]
    Setup {
        /// The bucket.
        location: Arc<str>,
        /// What was being set up.
        what: String,
        /// Why it failed.
        #[source]
        source: Cause,
    },
    /// The text does not describe faults.
    #[error("bad fault {rule:?}: {why}")]
    BadFault {
        /// The text.
        rule: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::Unavailable { .. } => ErrorKind::Retry,
            Self::Short { .. } => ErrorKind::DataLoss,
            Self::Collision { .. } => ErrorKind::Fenced,
            Self::NoBucket(_)
            | Self::Refused { .. }
            | Self::NotAllowed { .. }
            | Self::Liar { .. }
            | Self::BadUrl { .. }
            | Self::Setup { .. }
            | Self::BadFault { .. } => ErrorKind::FixRequest,
        }
    }

    /// What a person can do about it, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoBucket(_) => {
                Some("check the URL; a bucket is made with the store's own tools, a directory by writing to it")
            }
            Self::Denied { .. } => Some(
                "credentials come from the environment (AWS_*, AZURE_STORAGE_*, GOOGLE_APPLICATION_CREDENTIALS) or the AWS \
                 profile; on S3 also allow s3:ListBucket, or a missing object looks forbidden",
            ),
            Self::Unavailable { .. } => Some("check that the endpoint is right and in reach, then try again"),
            Self::Collision { .. } => {
                Some("another copy of this writer runs, or it was reverted to a snapshot: stop the other one")
            }
            Self::Liar { check, .. } => Some(check.hint()),
            Self::BadUrl { .. } => Some(
                "use DIR, file:///DIR, s3://BUCKET/PREFIX?endpoint=URL&region=R&path_style=BOOL&ca=FILE, \
                 azblob://CONTAINER/PREFIX?endpoint=URL, gs://BUCKET/PREFIX or memory:NAME, with &anonymous=true for \
                 unsigned requests; credentials belong into the environment",
            ),
            _ => None,
        }
    }

    /// True if the bucket itself, not an object in it, is missing.
    pub fn is_no_bucket(&self) -> bool {
        matches!(self, Self::NoBucket(_))
    }
}

/// What was tried, on which key, where: the middle of every message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// What was tried.
    pub op: Op,
    /// The key, or the start of the keys, relative to the bucket's prefix.
    pub key: String,
    /// The bucket.
    pub location: Arc<str>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in {}", self.op, self.key, self.location)
    }
}

/// Why the store could not do it, in words. Never holds credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

impl Cause {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        const CHARS_MAX: usize = 600;
        let text = text.into();
        Self(if text.chars().count() > CHARS_MAX { text.chars().take(CHARS_MAX).collect() } else { text })
    }
}

impl From<std::io::Error> for Cause {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}
