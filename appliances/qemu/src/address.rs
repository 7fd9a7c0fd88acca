//! Where something listens.

use crate::error::{Error, Result};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A Unix socket's path, or a host and a port. Written as `/run/vm1.qmp`, `unix:vm1.qmp`, `vmhost:4444` or `[::1]:4444`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A port of a host.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// Both directions of a connection.
pub(crate) type Halves = (Box<dyn AsyncRead + Send + Sync + Unpin>, Box<dyn AsyncWrite + Send + Sync + Unpin>);

impl Address {
    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Halves> {
        let halves: std::io::Result<Halves> = match self {
            Self::Unix(path) => UnixStream::connect(path).await.map(|stream| {
                let (read, write) = stream.into_split();
                (Box::new(read) as _, Box::new(write) as _)
            }),
            Self::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await.map(|stream| {
                let (read, write) = stream.into_split();
                (Box::new(read) as _, Box::new(write) as _)
            }),
        };
        halves.map_err(|source| Error::Connect { address: self.clone(), source })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a path (/run/vm1.qmp, unix:vm1.qmp) nor HOST:PORT")]
pub struct BadAddress(String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        let path = text.strip_prefix("unix:").or_else(|| text.contains('/').then_some(text));
        if let Some(path) = path {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let host = match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']').ok_or_else(bad)?,
            None if host.contains(':') => return Err(bad()),
            None => host,
        };
        match port.parse() {
            Ok(port) if !host.is_empty() => Ok(Self::Tcp { host: host.to_owned(), port }),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["unix:/run/vm1.qmp", "unix:vm1.qmp", "vmhost:4444", "[::1]:4444"] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("/run/vm1.qmp".parse(), Ok(Address::Unix("/run/vm1.qmp".into())));
        for text in ["", "unix:", "vmhost", ":4444", "vmhost:", "vmhost:65536", "::1:4444", "[::1:4444", "[]:1"] {
            assert_eq!(text.parse::<Address>(), Err(BadAddress(text.to_owned())));
        }
    }
}
