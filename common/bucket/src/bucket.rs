//! A bucket: where its objects are, and who is given which right to them.

use crate::dir::DirStore;
use crate::dispatch::Dispatch;
use crate::error::Result;
use crate::faults::{Faults, FaultyStore};
use crate::handles::{Appender, Deleter, Pinner, ReadOnly, Recorder};
use crate::memory::MemoryStore;
use crate::meter::Meter;
use crate::options::BucketOptions;
use crate::remote::RemoteStore;
use crate::store::Store;
use crate::url::{BucketUrl, Place};
use std::fmt;
use std::sync::Arc;

/// One domain's objects, below one prefix of one store. Cheap to clone; clones share limits and meter.
#[derive(Clone)]
pub struct Bucket {
    dispatch: Arc<Dispatch>,
}

impl Bucket {
    /// The bucket that `url` names. Sends no request: a wrong name shows at the first one.
    pub fn open(url: &BucketUrl, options: &BucketOptions) -> Result<Self> {
        let location: Arc<str> = url.to_string().into();
        let store: Arc<dyn Store> = match url.place() {
            Place::Memory { name } => MemoryStore::named(name),
            Place::File { root } => Arc::new(DirStore::new(root, options.entropy.clone())),
            remote => Arc::new(RemoteStore::new(remote, &location, options)?),
        };
        Ok(Self::over(store, location, options.clone()))
    }

    /// A new, empty bucket in memory with the default options.
    pub fn memory() -> Self {
        Self::memory_with(BucketOptions::default())
    }

    /// A new, empty bucket in memory.
    pub fn memory_with(options: BucketOptions) -> Self {
        Self::over(Arc::new(MemoryStore::default()), "memory:".into(), options)
    }

    fn over(store: Arc<dyn Store>, location: Arc<str>, options: BucketOptions) -> Self {
        Self { dispatch: Arc::new(Dispatch::new(store, location, options)) }
    }

    /// The right to read.
    pub fn read_only(&self) -> ReadOnly {
        ReadOnly::new(self.dispatch.clone())
    }

    /// The right to read and to write below `v/`.
    pub fn pinner(&self) -> Pinner {
        Pinner::new(self.dispatch.clone())
    }

    /// The right to read and to keep statistics.
    pub fn recorder(&self) -> Recorder {
        Recorder::new(self.dispatch.clone())
    }

    /// The right to read and to add objects.
    pub fn appender(&self) -> Appender {
        Appender::new(self.dispatch.clone())
    }

    /// The right to read and to delete.
    pub fn deleter(&self) -> Deleter {
        Deleter::new(self.dispatch.clone())
    }

    /// The same bucket, misbehaving as `faults` says; limits and meter stay shared.
    pub fn with_faults(&self, faults: Faults) -> Self {
        let wrap = |store| Arc::new(FaultyStore::new(store, faults)) as Arc<dyn Store>;
        Self { dispatch: Arc::new(self.dispatch.with_store(wrap)) }
    }

    /// Counts what all handles of this bucket ask for.
    pub fn meter(&self) -> &Meter {
        self.dispatch.meter()
    }

    /// Where the objects are, for people; holds no credentials.
    pub fn location(&self) -> String {
        self.dispatch.location().to_string()
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.dispatch.location())
    }
}
