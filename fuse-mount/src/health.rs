//! Says once, clearly, that reads fail, and once that they work again: a guest that retries a thousand times must not bury
//! the line that tells why.

use crate::error::Error;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tidemark_env::Clock;
use tidemark_format::{ErrorKind, with_causes};

/// Failures of one kind are reported at most this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Remembers which kinds of failure are going on.
pub(crate) struct Health {
    clock: Arc<dyn Clock>,
    failing: AtomicBool,
    troubles: Mutex<HashMap<ErrorKind, Trouble>>,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    /// Monotonic time of the last line about it.
    reported: Duration,
    /// Failures since then.
    unreported: u64,
    /// Failures in all.
    failures: u64,
}

impl Health {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, failing: AtomicBool::new(false), troubles: Mutex::default() }
    }

    fn troubles(&self) -> MutexGuard<'_, HashMap<ErrorKind, Trouble>> {
        self.troubles.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A request failed. The text to log, if it is time for a line.
    pub(crate) fn failed(&self, error: &Error) -> Option<String> {
        let now = self.clock.monotonic();
        self.failing.store(true, Relaxed);
        let mut troubles = self.troubles();
        let trouble = troubles.entry(error.kind()).or_insert(Trouble { reported: now, unreported: 0, failures: 0 });
        trouble.failures += 1;
        if trouble.failures > 1 && now.saturating_sub(trouble.reported) < REPORT_INTERVAL {
            trouble.unreported += 1;
            return None;
        }
        let mut text = with_causes(error);
        if trouble.unreported > 0 {
            write!(text, " (and {} more like it)", trouble.unreported).expect("writing to a String never fails");
        }
        (trouble.reported, trouble.unreported) = (now, 0);
        Some(text)
    }

    /// A request that needed the bucket succeeded. How many had failed since the last that did, if any.
    pub(crate) fn worked(&self) -> Option<u64> {
        if !self.failing.load(Relaxed) {
            return None;
        }
        self.failing.store(false, Relaxed);
        let mut troubles = self.troubles();
        // Damage does not heal because another block is fine: keep counting it.
        let over = troubles.remove(&ErrorKind::Retry);
        over.map(|trouble| trouble.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_env::ManualClock;
    use tidemark_format::TimeNs;

    fn late() -> Error {
        Error::Deadline { what: "read".into(), deadline: Duration::from_secs(1) }
    }

    #[test]
    fn a_storm_of_failures_is_one_line_and_recovery_another() {
        let clock = Arc::new(ManualClock::new(TimeNs::new(0)));
        let health = Health::new(clock.clone());
        assert_eq!(health.worked(), None);
        assert_eq!(health.failed(&late()).as_deref(), Some("read: no answer from the bucket within 1s"));
        for _ in 0..999 {
            assert_eq!(health.failed(&late()), None);
        }
        clock.advance(REPORT_INTERVAL);
        let line = health.failed(&late()).unwrap();
        assert!(line.ends_with("(and 999 more like it)"), "{line}");
        assert_eq!(health.worked(), Some(1001));
        assert_eq!(health.worked(), None);
        assert!(health.failed(&late()).is_some(), "a new outage is a new line");
    }

    #[test]
    fn another_kind_of_failure_gets_its_own_line() {
        let health = Health::new(Arc::new(ManualClock::new(TimeNs::new(0))));
        let damage = |n: u64| Error::Read {
            what: format!("read block {n}"),
            source: "frame 3: hash differs".into(),
            kind: ErrorKind::DataLoss,
        };
        assert!(health.failed(&late()).is_some());
        assert_eq!(health.failed(&damage(1)).as_deref(), Some("read block 1: frame 3: hash differs"));
        assert_eq!(health.failed(&damage(2)), None);
    }
}
