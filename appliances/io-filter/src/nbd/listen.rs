//! Where clients come in: sockets of ours, or sockets that systemd opened for us.

use crate::client::Peer;
use crate::error::{Error, Result};
use rustix::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::fs::{FileType, Mode, stat, unlink};
use rustix::net::{AddressFamily, SocketType, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 1024;
/// A peer that is silent is asked for a sign of life after so long, and as often until it counts as gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The first descriptor that systemd hands over.
const FIRST_FD: i32 = 3;
/// Descriptors that systemd may hand over.
const ACTIVATED_MAX: i32 = 64;

/// An open door.
pub struct Listener {
    inner: Inner,
}

enum Inner {
    /// The file is removed with it, if it is ours.
    Unix {
        listener: UnixListener,
        _file: Option<SocketFile>,
    },
    Tcp(TcpListener),
}

/// A socket file that is removed when its listener closes.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// A connection.
pub(super) enum Accepted {
    Unix(UnixStream, Peer),
    Tcp(TcpStream, Peer),
}

impl Listener {
    /// Listens on a unix socket that `mode` says who may connect to. A file that a dead server left is replaced; one
    /// that is served, or is no socket, is an error.
    pub fn unix(path: &Path, mode: u32) -> Result<Self> {
        let failed = |source: std::io::Error| listen(path.display(), source);
        match stat(path) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::Socket => {
                return Err(listen(path.display(), "it is there already, and no socket"));
            }
            Ok(_) if StdUnixStream::connect(path).is_ok() => {
                return Err(listen(path.display(), "another server listens there"));
            }
            Ok(_) => unlink(path).map_err(|error| failed(error.into()))?,
            Err(_) => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
        let address = SockAddr::unix(path).map_err(failed)?;
        socket.bind(&address).map_err(failed)?;
        // Before anyone can connect.
        let chmod = rustix::fs::chmod(path, Mode::from_raw_mode(mode));
        let file = chmod.and_then(|()| SocketFile::of(path)).map_err(|error| failed(error.into()))?;
        socket.listen(BACKLOG).map_err(failed)?;
        Self::own_unix(socket.into(), Some(file)).map_err(failed)
    }

    /// Listens on a TCP address.
    pub fn tcp(address: SocketAddr) -> Result<Self> {
        let failed = |source: std::io::Error| listen(address, source);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).map_err(failed)?;
        socket.set_reuse_address(true).map_err(failed)?;
        socket.bind(&address.into()).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        Self::own_tcp(socket.into()).map_err(failed)
    }

    /// The sockets that systemd, or a client that acts like it, opened for this process; none if it opened none. They
    /// are handed out once.
    #[allow(unsafe_code, reason = "descriptors come as numbers")]
    pub fn activated() -> Result<Vec<Self>> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let variable = |name: &str| std::env::var(name).ok();
        let count =
            activated_count(variable("LISTEN_PID").as_deref(), variable("LISTEN_FDS").as_deref(), std::process::id())?;
        if count > 0 && TAKEN.swap(true, Ordering::SeqCst) {
            return Err(Error::Invalid { what: "the sockets of LISTEN_FDS were taken already".into() });
        }
        let mut listeners = Vec::new();
        for number in FIRST_FD..FIRST_FD + count {
            // SAFETY: the number is neither -1 nor closed if it is open at all, which `fcntl` finds out without harm.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)
                .map_err(|error| listen(format!("descriptor {number}"), error))?;
            // SAFETY: it is open, as it took the flag. Whoever set LISTEN_PID to this process opened it for us before the
            // process ran, so nothing in here got this number from the kernel, and here it is taken once.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            listeners.push(Self::from_fd(fd).map_err(|error| listen(format!("descriptor {number}"), error))?);
        }
        Ok(listeners)
    }

    /// A socket that listens already.
    fn from_fd(fd: OwnedFd) -> std::io::Result<Self> {
        let stream = sockopt::socket_type(fd.as_fd())? == SocketType::STREAM;
        let listens = sockopt::socket_acceptconn(fd.as_fd())?;
        match sockopt::socket_domain(fd.as_fd())? {
            _ if !stream || !listens => Err(std::io::Error::other("it is no stream socket that listens")),
            AddressFamily::UNIX => Self::own_unix(fd, None),
            AddressFamily::INET | AddressFamily::INET6 => Self::own_tcp(fd),
            _ => Err(std::io::Error::other("it is neither unix nor TCP")),
        }
    }

    fn own_unix(fd: OwnedFd, file: Option<SocketFile>) -> std::io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(fd);
        listener.set_nonblocking(true)?;
        Ok(Self { inner: Inner::Unix { listener: UnixListener::from_std(listener)?, _file: file } })
    }

    fn own_tcp(fd: OwnedFd) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::from(fd);
        listener.set_nonblocking(true)?;
        Ok(Self { inner: Inner::Tcp(TcpListener::from_std(listener)?) })
    }

    /// Whether it is a unix socket of this path.
    pub fn is_at(&self, path: &Path) -> bool {
        match &self.inner {
            Inner::Unix { listener, .. } => {
                listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(path))
            }
            Inner::Tcp(_) => false,
        }
    }

    /// The address of a TCP listener, such as the port that the kernel chose.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.inner {
            Inner::Tcp(listener) => listener.local_addr().ok(),
            Inner::Unix { .. } => None,
        }
    }

    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<std::io::Result<Accepted>> {
        Poll::Ready(match &self.inner {
            Inner::Unix { listener, .. } => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                let credentials = stream.peer_cred()?;
                let peer = Peer::Unix { pid: credentials.pid(), uid: credentials.uid() };
                Ok(Accepted::Unix(stream, peer))
            }
            Inner::Tcp(listener) => {
                let (stream, address) = ready!(listener.poll_accept(cx))?;
                stream.set_nodelay(true)?;
                let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
                socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                Ok(Accepted::Tcp(stream, Peer::Tcp(address)))
            }
        })
    }
}

/// How many descriptors were handed to the process `own`.
fn activated_count(pid: Option<&str>, count: Option<&str>, own: u32) -> Result<i32> {
    // Variables for another process are left over from a parent.
    if pid.and_then(|pid| pid.parse().ok()) != Some(own) {
        return Ok(0);
    }
    let count = count.unwrap_or_default();
    count
        .parse()
        .ok()
        .filter(|count| (0..=ACTIVATED_MAX).contains(count))
        .ok_or_else(|| Error::Invalid { what: format!("LISTEN_FDS is {count:?}, a number from 0 to {ACTIVATED_MAX}") })
}

fn listen(at: impl std::fmt::Display, source: impl Into<crate::error::Cause>) -> Error {
    Error::failed(format!("listen on {at}"), source)
}

impl SocketFile {
    fn of(path: &Path) -> rustix::io::Result<Self> {
        let found = stat(path)?;
        Ok(Self { path: path.to_owned(), device: found.st_dev, inode: found.st_ino })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Unless another server took the place since.
        if stat(&self.path).is_ok_and(|found| (found.st_dev, found.st_ino) == (self.device, self.inode)) {
            let _ = unlink(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_count_if_they_are_meant_for_this_process() {
        assert_eq!(activated_count(None, Some("2"), 7).ok(), Some(0));
        assert_eq!(activated_count(Some("8"), Some("nonsense"), 7).ok(), Some(0));
        assert_eq!(activated_count(Some("7"), Some("2"), 7).ok(), Some(2));
        for bad in [None, Some("65"), Some("-1"), Some("two")] {
            assert!(matches!(activated_count(Some("7"), bad, 7), Err(Error::Invalid { .. })), "{bad:?}");
        }
    }
}
