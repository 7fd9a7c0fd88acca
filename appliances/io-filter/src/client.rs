//! Who is connected.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// One connection's other end, as far as it is known.
#[derive(Clone, Debug)]
pub struct Client {
    /// Number of the connection, unique within the server's life.
    pub connection: u64,
    /// Where it comes from.
    pub peer: Peer,
    /// Its verified certificate (DER), if it showed one.
    pub certificate: Option<Arc<[u8]>>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A process of this machine.
    Unix {
        /// Its number, as of when it connected, if the kernel tells.
        pid: Option<i32>,
        /// Its user.
        uid: u32,
    },
    /// A process anywhere.
    Tcp(SocketAddr),
}

impl Client {
    /// Who this is beyond one connection: all connections of a party are one client that writes in parallel.
    pub fn party(&self) -> Party {
        let place = match self.peer {
            Peer::Unix { pid: Some(pid), uid } => Place::Process { pid, uid, started: started(pid) },
            // Nothing tells its connections from others': each is a party of its own.
            Peer::Unix { pid: None, uid } => Place::Connection { number: self.connection, uid },
            Peer::Tcp(address) => Place::Host(address.ip()),
        };
        Party { place, certificate: self.certificate.clone() }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Peer::Unix { pid: Some(pid), uid } => write!(f, "#{} (pid {pid}, uid {uid})", self.connection),
            Peer::Unix { pid: None, uid } => write!(f, "#{} (uid {uid})", self.connection),
            Peer::Tcp(address) => write!(f, "#{} ({address})", self.connection),
        }
    }
}

/// Whom connections belong to: a process of this machine, or a host, with the certificate that it shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    place: Place,
    certificate: Option<Arc<[u8]>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// With the time at which it was started, in the kernel's ticks: numbers are used again.
    Process {
        pid: i32,
        uid: u32,
        started: Option<u64>,
    },
    Connection {
        number: u64,
        uid: u32,
    },
    Host(std::net::IpAddr),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Process { pid, uid, .. } => write!(f, "process {pid} of user {uid}"),
            Place::Connection { number, uid } => write!(f, "connection {number} of user {uid}"),
            Place::Host(ip) => write!(f, "host {ip}"),
        }?;
        if self.certificate.is_some() { f.write_str(" with its certificate") } else { Ok(()) }
    }
}

/// When a process was started, in ticks since the machine was; `None` if it is gone.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name may hold anything, parentheses too.
    let (_, behind_name) = stat.rsplit_once(") ")?;
    behind_name.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_one_number_at_different_times_are_different_parties() {
        let own = i32::try_from(std::process::id()).expect("numbers of processes are small");
        let party = |started| Party { place: Place::Process { pid: own, uid: 0, started }, certificate: None };
        assert!(started(own).is_some_and(|ticks| ticks > 0));
        let peer = Peer::Unix { pid: Some(own), uid: 0 };
        let client = Client { connection: 1, peer, certificate: None };
        assert_eq!(client.party(), party(started(own)));
        assert_ne!(client.party(), party(Some(1)));
        assert_eq!(started(i32::MAX), None);
    }
}
