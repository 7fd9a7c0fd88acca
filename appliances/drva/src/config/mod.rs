//! What `drva.toml` says, checked. docs/ops/drva.toml explains every key.
//!
//! Whatever is wrong is said with its line and column, and with what to do about it. The same rules hold for what comes in
//! through the API (`tidemark-api`); here are only those of the appliance as a whole.
//! Not here: whether paths exist and buckets can be reached. That shows when the appliance opens them.

mod check;
mod file;
#[cfg(test)]
mod tests;

pub use tidemark_config::ConfigError;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemark_api::{DomainSpec, Settings};
use tidemark_config::Source;

/// A file that explains every key.
const EXAMPLE: &str = "docs/ops/drva.toml";

/// Everything that a DRVA is told when it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The appliance itself.
    pub appliance: Appliance,
    /// Where replication logs are kept.
    pub log_store: LogStore,
    /// How guests reach their disks.
    pub nbd: Nbd,
    /// What is measured, and where it goes.
    pub statistics: Statistics,
    /// Maintenance of the buckets.
    pub maintenance: Maintenance,
    /// How domains are protected that do not say otherwise.
    pub defaults: Settings,
    /// Domains that are there from the start; more come and go through the API. Their settings are changes to `defaults`.
    pub domains: Vec<DomainSpec>,
}

/// The appliance itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Appliance {
    /// What people call it.
    pub name: String,
    /// A directory for what is to be remembered beside the log store.
    pub state: PathBuf,
    /// The unix socket of the control API.
    pub socket: PathBuf,
    /// How often a domain's ownership is looked at while nothing is committed.
    pub fence_check: Duration,
    /// The time zone of bandwidth calendars.
    pub time_zone: jiff::tz::TimeZone,
}

/// Where replication logs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStore {
    /// A block device, or a file.
    pub path: PathBuf,
    /// How large a file is made that is absent, and how much of a device is used. Absent: the file or device is there, and all
    /// of it is used.
    pub size_bytes: Option<u64>,
    /// Memory for log records that are still to be read.
    pub cache_bytes_max: u64,
}

/// How guests reach their disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nbd {
    /// A unix socket.
    pub socket: Option<PathBuf>,
    /// A TCP address.
    pub listen: Option<SocketAddr>,
    /// TLS on the TCP address.
    pub tls: Option<Tls>,
    /// Connections at once.
    pub connections_max: u32,
    /// Requests under way on one connection.
    pub requests_in_flight_max: u32,
    /// Memory for requests of all connections.
    pub buffer_bytes_max: u64,
}

/// What is measured, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// A TCP address that serves metrics, besides the control socket.
    pub listen: Option<SocketAddr>,
    /// What a row of a table covers.
    pub period: Duration,
    /// How long rows are gathered before they go to the bucket.
    pub ship_every: Duration,
    /// What buckets charge: a price sheet's name, or an absolute path. Absent: what their URLs tell.
    pub prices: Option<String>,
}

/// Maintenance of the buckets of all domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// A pass begins so long after the one before has ended; `None`: never, somebody else does it.
    pub every: Option<Duration>,
    /// Passes also rewrite and delete what no point needs, for which the appliance's credentials need the right.
    pub delete: bool,
}

/// TLS on the TCP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Our certificate and what leads to its root, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Whose certificates clients have to show, PEM; absent: they need none.
    pub client_ca: Option<PathBuf>,
    /// Clients that do not ask for TLS are turned away.
    pub required: bool,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// The first thing in it that cannot work.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::checked(&Source::load(path, EXAMPLE)?)
    }

    /// Reads what stands in `file`.
    ///
    /// # Errors
    /// The first thing in it that cannot work.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        Self::checked(&Source::new(file, text, EXAMPLE))
    }

    fn checked(source: &Source) -> Result<Self, ConfigError> {
        check::checked(source.read()?).map_err(|complaint| source.complain(&complaint))
    }
}
