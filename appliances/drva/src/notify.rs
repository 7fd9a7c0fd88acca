//! Tells systemd how the daemon is doing: the datagrams of `sd_notify(3)`.
//!
//! Without `NOTIFY_SOCKET` in the environment nobody wants to know, and everything here does nothing. Not being able to
//! tell is never a reason to stop: it is logged.

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// The service manager that started this process, if one did.
#[derive(Clone, Debug, Default)]
pub struct ServiceManager {
    address: Option<SocketAddrUnix>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As the environment names it.
    pub fn from_env() -> Self {
        let variable = |name| std::env::var_os(name);
        let watchdog = variable("WATCHDOG_USEC").and_then(|text| text.to_str()?.parse().ok());
        let pid = variable("WATCHDOG_PID").and_then(|text| text.to_str()?.parse().ok());
        let ours = pid.is_none_or(|pid: u32| pid == std::process::id());
        Self {
            address: variable("NOTIFY_SOCKET").and_then(|name| address(&name)),
            watchdog: watchdog.filter(|_| ours).filter(|usec| *usec > 0).map(Duration::from_micros),
        }
    }

    /// The service serves.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The service is on its way out.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={}", line.replace('\n', " ")));
    }

    /// The service needs so much longer to start or stop.
    pub fn extend_timeout(&self, by: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    /// The service is alive.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// How often [`Self::watchdog`] is to be called: twice as often as systemd looks. `None` if it does not look.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.address.as_ref().and(self.watchdog).map(|interval| interval / 2)
    }

    fn send(&self, state: &str) {
        let Some(address) = &self.address else { return };
        let sent = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .and_then(|socket| sendto(&socket, state.as_bytes(), SendFlags::NOSIGNAL, address));
        if let Err(e) = sent {
            tracing::warn!("cannot tell the service manager {state:?}: {e}");
        }
    }
}

/// `/path`, or `@name` in the abstract namespace.
fn address(name: &OsStr) -> Option<SocketAddrUnix> {
    match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddrUnix::new_abstract_name(rest).ok(),
        [b'/', ..] => SocketAddrUnix::new(name).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn systemd_hears_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let watchdog = Some(Duration::from_secs(10));
        let manager = ServiceManager { address: address(path.as_os_str()), watchdog };
        manager.ready();
        manager.status("2 domains\nfine");
        manager.extend_timeout(Duration::from_secs(2));
        manager.watchdog();
        manager.stopping();
        for wanted in ["READY=1", "STATUS=2 domains fine", "EXTEND_TIMEOUT_USEC=2000000", "WATCHDOG=1", "STOPPING=1"] {
            let mut buffer = [0; 100];
            let len = systemd.recv(&mut buffer).unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..len]), Ok(wanted));
        }
        assert_eq!(manager.watchdog_interval(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        let manager =
            ServiceManager { address: address(OsStr::new("relative")), watchdog: Some(Duration::from_secs(1)) };
        manager.ready();
        assert_eq!(manager.watchdog_interval(), None);
        assert!(address(OsStr::new("@name")).is_some());
    }
}
