//! How a store is made and opened, and what each domain may take.

use tidemark_env::Env;

/// How a LUN is laid out when it is formatted.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// Size of a file that is to be made; a block device, or a file that is there, is used as it is.
    pub size_bytes: Option<u64>,
    /// Bytes of an extent, the unit in which domains get space: a power of two.
    pub extent_bytes: u64,
    /// Most domains that will ever share the LUN.
    pub domains_max: u32,
    /// What to do with a log store that is there already.
    pub existing: Existing,
    /// Where the LUN's name is drawn from.
    pub env: Env,
}

impl Default for FormatOptions {
    fn default() -> Self {
        Self {
            size_bytes: None,
            extent_bytes: 16 << 20,
            domains_max: 64,
            existing: Existing::Refuse,
            env: Env::system(),
        }
    }
}

/// What to do with a log store that is on a device which is to be formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it alone and report an error.
    Refuse,
    /// Its logs are not needed any more.
    Discard,
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Memory for recent records, shared evenly by the domains.
    pub cache_bytes_max: u64,
    /// Data that may wait to be written, for each domain.
    pub queue_bytes_max: u64,
    /// Where names of new logs are drawn from.
    pub env: Env,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { cache_bytes_max: 256 << 20, queue_bytes_max: 64 << 20, env: Env::system() }
    }
}

/// Room for one domain's log, in whole extents: `min_bytes` is rounded up and `max_bytes` down, and both are two extents
/// at least, as a log frees the extents behind it only once it has moved on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceLimits {
    /// Kept free for it, whatever other domains do.
    pub min_bytes: u64,
    /// What it may take at most.
    pub max_bytes: u64,
}

/// Room of a domain's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// From the first batch that still matters to the last.
    pub used_bytes: u64,
    /// In the extents that the log holds.
    pub allocated_bytes: u64,
    /// Waiting to be written.
    pub queued_bytes: u64,
    /// Data that can be appended before the log is full. Less than what is free: some is kept for events, and what
    /// is small is padded to whole pages.
    pub available_bytes: u64,
    /// Data that the log holds before it is full, however its extents lie: what is used of it grows and shrinks with what
    /// is logged and trimmed, and never jumps as whole extents come free.
    pub steady_bytes: u64,
    /// The domain's minimum, in whole extents.
    pub min_bytes: u64,
    /// The domain's maximum, in whole extents.
    pub max_bytes: u64,
}

/// Room of the whole LUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceUsage {
    /// All extents.
    pub total_bytes: u64,
    /// Extents that nobody holds.
    pub free_bytes: u64,
    /// Of the free ones, those promised to domains or set aside for what is queued.
    pub promised_bytes: u64,
}
