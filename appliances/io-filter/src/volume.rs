//! What a front-end asks of a disk, and what it asks of the place that has the disks.

use crate::client::Client;
use crate::error::Result;
use crate::range::{ByteRange, RangeLock};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use tidemark_format::Lsn;

/// A disk as a front-end sees it.
///
/// All calls may run concurrently; the volume orders overlapping writes. Front-ends ask for whole blocks of
/// [`Geometry::block_bytes_min`] within [`Geometry::size_bytes`] and never for nothing: [`crate::edges`] sees to that.
/// A call is driven to its end unless the server is stopped by force: then its future is dropped, and like a write
/// whose answer was lost it may or may not have happened.
///
/// An acknowledgement (`Ok`) promises what [`Persist`] says, and that the write survives `kill -9` of this process:
/// clients repeat only what was not answered.
pub trait Volume: Send + Sync + 'static {
    /// Size and habits, as of now: the size may change while clients are connected. Called for each request: cheap.
    fn geometry(&self) -> Geometry;

    /// The lock that keeps writes of whole blocks out of read-modify-writes. One per disk: all handles return the same.
    fn ranges(&self) -> &RangeLock;

    /// The bytes of a range, in order, covering it exactly.
    fn read(&self, range: ByteRange) -> BoxFuture<'_, Result<Vec<Part>>>;

    /// Writes `data` at `offset`. The bytes are the volume's own and never change; they may be a view of a larger
    /// buffer that holds neighbouring requests, so copy what is kept long after the answer.
    fn write(&self, offset: u64, data: Bytes, persist: Persist) -> BoxFuture<'_, Result<()>>;

    /// Makes a range read as zeros, of any length.
    fn zero(&self, range: ByteRange, options: ZeroOptions, persist: Persist) -> BoxFuture<'_, Result<()>>;

    /// The client needs these bytes no more. They read as zeros from then on, so that replicas and replays agree.
    fn trim(&self, range: ByteRange, persist: Persist) -> BoxFuture<'_, Result<()>>;

    /// Returns once all that was acknowledged before the call, to any client, is durable.
    fn flush(&self) -> BoxFuture<'_, Result<()>>;

    /// The client will soon read this. Answers once it is on its way or not worth it.
    fn cache(&self, range: ByteRange) -> BoxFuture<'_, Result<()>> {
        let _ = range;
        Box::pin(std::future::ready(Ok(())))
    }

    /// What is known of a range: at least one and at most `runs_max` runs from its start; fewer bytes than asked for
    /// is fine, more is cut off.
    fn status<'a>(
        &'a self,
        range: ByteRange,
        context: &'a StatusContext,
        runs_max: usize,
    ) -> BoxFuture<'a, Result<Vec<StatusRun>>>;

    /// Whether [`StatusContext::ChangedSince`] this LSN can be answered.
    fn knows_changes_since(&self, lsn: Lsn) -> bool {
        let _ = lsn;
        false
    }

    /// LSNs to offer to clients that ask which [`StatusContext::ChangedSince`] there are, such as those of bookmarks;
    /// not all that work. At most [`OFFERED_LSNS_MAX`] are passed on.
    fn offered_changes_since(&self) -> Vec<Lsn> {
        Vec::new()
    }
}

/// LSNs that are offered to a client that lists contexts, at most.
pub const OFFERED_LSNS_MAX: usize = 64;

/// Size and habits of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes from its start to its end. What is beyond the last whole block is out of reach.
    pub size_bytes: u64,
    /// The smallest unit of reading and writing: a power of two from 512 to 64 KiB.
    pub block_bytes_min: u32,
    /// The unit that it likes best: a power of two, at least `block_bytes_min`.
    pub block_bytes_preferred: u32,
    /// Refuses all that changes it.
    pub read_only: bool,
    /// Seeking costs.
    pub rotational: bool,
    /// [`Volume::zero`] knows before it starts whether it is faster than writing: `fast_only` may be asked for.
    pub fast_zero: bool,
}

impl Geometry {
    /// A writable volume of `size_bytes` in blocks of 512 bytes that likes 4 KiB.
    pub const fn of_size(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            block_bytes_min: 512,
            block_bytes_preferred: 4096,
            read_only: false,
            rotational: false,
            fast_zero: true,
        }
    }
}

/// A piece of what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Data(Bytes),
    /// So many zeros.
    Zero(u64),
}

impl Part {
    /// Number of bytes that it stands for.
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Zero(len) => *len,
        }
    }

    /// True if it stands for none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persist {
    /// It survives this process; with the next flush it survives the machine.
    Normal,
    /// It survives the machine ("force unit access").
    Fua,
}

/// How to make zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroOptions {
    /// The range may lose its backing. Otherwise a later write there must not run out of space.
    pub may_unmap: bool,
    /// Refuse with [`crate::Error::Unsupported`], at once, if it is not faster than writing zeros.
    pub fast_only: bool,
}

/// A question about ranges.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StatusContext {
    /// Which ranges hold data: answered with [`RunState::Data`], [`RunState::Zero`] and [`RunState::Hole`].
    Allocation,
    /// Which ranges may differ from what they were just after this LSN: answered with [`RunState::Changed`] and
    /// [`RunState::Same`].
    ChangedSince(Lsn),
}

/// So many bytes in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRun {
    /// Number of bytes, not 0.
    pub bytes: u64,
    /// Their state.
    pub state: RunState,
}

/// The answer of a [`StatusContext`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Any bytes.
    Data,
    /// Zeros that have backing.
    Zero,
    /// Zeros that have none.
    Hole,
    /// It may have changed.
    Changed,
    /// It is as it was.
    Same,
}

/// The place that has the disks. Called on the server's own threads: answers from memory.
pub trait Exports: Send + Sync + 'static {
    /// All that this client may know of, in the order in which to list them.
    fn list(&self, client: &Client) -> Vec<ExportInfo>;

    /// The volume of this name, for this client. Names are compared byte by byte; a client that names none asks for "".
    /// Also called for questions before a client decides, so opening alone must not take anything from others.
    fn open(&self, name: &str, client: &Client) -> Result<Arc<dyn Volume>>;

    /// Waits until [`Self::open`] can say whether there is such an export: a place that is still starting holds clients here
    /// rather than turning them away. Within the bound of negotiation ([`crate::nbd::Limits::handshake_ms_max`]), beyond
    /// which the connection ends without an answer.
    fn known<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        let _ = name;
        Box::pin(std::future::ready(()))
    }
}

/// An export as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// What to open it by.
    pub name: String,
    /// For people.
    pub description: String,
}
