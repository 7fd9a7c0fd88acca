//! What connections may take, all together and each.

use crate::error::{Error, Result};
use std::time::Duration;

/// Bounds of a server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once. Beyond it the one that has been negotiating longest makes room, else the new one is refused.
    pub connections_max: usize,
    /// Requests of one connection that are under way or whose reply it has not taken; beyond it nothing is read from it.
    pub connection_requests_max: usize,
    /// Bytes of those requests' data, written or to be read.
    pub connection_bytes_max: u64,
    /// Bytes that each connection has for itself, however much the others hold.
    pub connection_reserve_bytes: u64,
    /// Bytes of requests' data that all connections may hold beyond their reserves.
    pub server_bytes_max: u64,
    /// Bytes of one request's data.
    pub payload_bytes_max: u32,
    /// From connecting to the first request may take so long.
    pub handshake_ms_max: u64,
    /// While others wait for memory, a client that holds some and moves less than [`STALL_BYTES_MIN`] in this time is
    /// cut off. A client is never cut off while nobody suffers.
    pub stall_ms_max: u64,
    /// Requests under way when the server is stopped may take so long to end.
    pub drain_ms_max: u64,
}

/// Bytes that a client has to move in [`Limits::stall_ms_max`] while others wait for what it holds.
pub const STALL_BYTES_MIN: u64 = 64 << 10;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connection_requests_max: 256,
            connection_bytes_max: 64 << 20,
            connection_reserve_bytes: 256 << 10,
            server_bytes_max: 512 << 20,
            payload_bytes_max: 32 << 20,
            handshake_ms_max: 10_000,
            stall_ms_max: 5_000,
            drain_ms_max: 10_000,
        }
    }
}

/// The bounds of [`Limits::payload_bytes_max`]: what every client counts on, and what the writer takes.
const PAYLOAD_BYTES: std::ops::RangeInclusive<u32> = 64 << 10..=32 << 20;

impl Limits {
    /// Refuses bounds that contradict each other.
    pub fn check(&self) -> Result<()> {
        let payload = u64::from(self.payload_bytes_max);
        let one = payload + super::budget::WAIT_BYTES;
        let what = if self.connections_max == 0 || self.connection_requests_max == 0 {
            "no connections or no requests: connections_max and connection_requests_max are at least 1".to_owned()
        } else if !PAYLOAD_BYTES.contains(&self.payload_bytes_max) {
            format!("payload_bytes_max is {payload}, of {} to {}", PAYLOAD_BYTES.start(), PAYLOAD_BYTES.end())
        } else if self.connection_bytes_max < one {
            format!("connection_bytes_max is {}, a request takes up to {one}", self.connection_bytes_max)
        } else if self.server_bytes_max < one {
            format!("server_bytes_max is {}, a request takes up to {one}", self.server_bytes_max)
        } else if self.server_bytes_max > super::budget::POOL_BYTES_MAX {
            format!("server_bytes_max is {}, at most {}", self.server_bytes_max, super::budget::POOL_BYTES_MAX)
        } else {
            return Ok(());
        };
        Err(Error::Invalid { what })
    }

    pub(super) fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_ms_max)
    }

    pub(super) fn stall(&self) -> Duration {
        Duration::from_millis(self.stall_ms_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_contradict_each_other_are_refused() {
        let limits = Limits::default();
        limits.check().expect("the default is sound");
        let payload = u64::from(limits.payload_bytes_max);
        for bad in [
            Limits { connections_max: 0, ..limits.clone() },
            Limits { connection_requests_max: 0, ..limits.clone() },
            Limits { payload_bytes_max: 512, ..limits.clone() },
            Limits { payload_bytes_max: (32 << 20) + 1, ..limits.clone() },
            Limits { connection_bytes_max: payload, ..limits.clone() },
            Limits { server_bytes_max: payload, ..limits.clone() },
            Limits { server_bytes_max: u64::MAX, ..limits.clone() },
        ] {
            assert!(matches!(bad.check(), Err(Error::Invalid { .. })), "{bad:?}");
        }
    }
}
