//! What `drva.toml` says, checked. docs/ops/drva.toml explains every key.
//!
//! Whatever is wrong is said with its line and column, and with what to do about it. The same rules hold for what comes in
//! through the API (`tidemark-api`); here are only those of the appliance as a whole.
//! Not here: whether paths exist and buckets can be reached. That shows when the appliance opens them.

mod check;
mod error;
mod file;
mod place;
#[cfg(test)]
mod tests;

pub use error::ConfigError;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemark_api::{DomainSpec, Settings};

/// Everything that a DRVA is told when it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The appliance itself.
    pub appliance: Appliance,
    /// Where replication logs are kept.
    pub log_store: LogStore,
    /// How guests reach their disks.
    pub nbd: Nbd,
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
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|e| ConfigError::Unreadable { file: file.clone(), why: e.to_string() })?;
        Self::parse(&file, &text)
    }

    /// Reads what stands in `file`.
    ///
    /// # Errors
    /// The first thing in it that cannot work.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let wrong = |at: usize, what: String, hint: String| {
            let (line, column) = place::line_and_column(text, at);
            ConfigError::Wrong { file: file.to_owned(), line, column, what, hint }
        };
        let written: file::File = toml::from_str(text).map_err(|e| {
            let (what, hint) = check::explain(e.message());
            wrong(e.span().map_or(0, |span| span.start), what, hint)
        })?;
        check::checked(written).map_err(|complaint| {
            let key = complaint.member().rsplit('.').next().unwrap_or_default();
            let what = format!("{key}: {complaint}");
            let hint = complaint.hint_text().unwrap_or(check::SEE_EXAMPLE).to_owned();
            wrong(place::of_value(text, complaint.member()), what, hint)
        })
    }
}
