//! The socket: one appliance listens on it, only its user may open it, and what a killed one left is swept away.

use crate::error::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Who may open the socket: its owner.
const MODE: u32 = 0o600;

/// A socket that is listened on. Dropping it removes its path.
#[derive(Debug)]
pub struct ApiSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Locked for as long as this lives: of two appliances that start at once one finds out.
    _lock: File,
}

impl ApiSocket {
    /// Listens on `path`. Needs a runtime.
    ///
    /// # Errors
    /// If another appliance listens there, something else than a socket is there, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self> {
        let lock = lock(path)?;
        sweep(path)?;
        let refused = |what, e: io::Error| Error::Socket { what, path: path.display().to_string(), source: e };
        let address = SocketAddrUnix::new(path).map_err(|e| refused("name a socket", e.into()))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|e| refused("make a socket for", e.into()))?;
        rustix::net::bind(&socket, &address).map_err(|e| refused("make socket", e.into()))?;
        // Nobody can connect before it is listened on, so nobody does while others still may.
        let listening = std::fs::set_permissions(path, Permissions::from_mode(MODE))
            .and_then(|()| Ok(rustix::net::listen(&socket, BACKLOG)?))
            .and_then(|()| UnixListener::from_std(socket.into()));
        match listening {
            Ok(listener) => Ok(Self { listener, path: path.to_owned(), _lock: lock }),
            Err(e) => {
                remove(path);
                Err(refused("listen on", e))
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    if let Err(e) = std::fs::remove_file(path) {
        tracing::warn!("cannot remove {}: {e}", path.display());
    }
}

fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new().create(true).append(true).mode(MODE).open(&name);
    let file = file.map_err(|e| Error::Socket { what: "open", path: name.display().to_string(), source: e })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::SocketInUse { socket: path.display().to_string() }),
        Err(e) => Err(Error::Socket { what: "lock", path: name.display().to_string(), source: e.into() }),
    }
}

/// Removes a socket that nobody listens on.
fn sweep(path: &Path) -> Result<()> {
    let socket = || path.display().to_string();
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => return Err(Error::NotASocket { socket: socket() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Socket { what: "look at", path: socket(), source }),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Error::SocketInUse { socket: socket() }),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .map_err(|source| Error::Socket { what: "remove the stale socket", path: socket(), source }),
        Err(source) => Err(Error::Socket { what: "connect to", path: socket(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_swept_away_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drva.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = ApiSocket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = ApiSocket::bind(&path).unwrap_err();
        assert_eq!(second.to_string(), format!("another appliance listens on {}", path.display()));
        assert!(second.hint().unwrap().contains("stop it"));
        drop(first);
        assert!(!path.exists(), "who listened takes it away");
        let strange = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(ApiSocket::bind(&path), Err(Error::SocketInUse { .. })), "others may listen without our lock");
        drop(strange);
        ApiSocket::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(ApiSocket::bind(&path), Err(Error::NotASocket { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let nowhere = ApiSocket::bind(&dir.path().join("none/drva.sock")).unwrap_err();
        assert!(nowhere.hint().unwrap().contains("make its directory"), "{nowhere}");
        let long = ApiSocket::bind(&dir.path().join("x".repeat(120))).unwrap_err();
        assert!(matches!(long, Error::Socket { what: "name a socket", .. }), "{long:?}");
    }
}
