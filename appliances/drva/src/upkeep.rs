//! Maintenance of a domain's bucket beside its protection: now and then a pass that indexes, thins out and, if it may, deletes.
//!
//! A pass runs on a thread of its own, below everything else in priority, over connections of its own: guests and uploads do not wait
//! for it. A pass may end anywhere (SPEC.md, Deleting), so a host that stops just drops it. What it keeps of the points that the domain
//! was promised is measured after each one.
//! Not here: what a pass does (`tidemark-gc`).

use crate::config::Maintenance;
use crate::disk::lock;
use crate::host::Host;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tidemark_api::{MaintenanceStatus, Severity, Time};
use tidemark_bucket::{Bucket, BucketOptions};
use tidemark_format::with_causes;
use tidemark_gc::{CleanReport, From, Maintainer, MaintenanceOptions, PassReport, retention_plan};
use tidemark_prices::Sheet;
use tokio::sync::watch;

/// Steps below what the appliance has: processors go to guests, uploads and whatever else there is first.
const NICENESS: i32 = 15;
/// How often it is looked whether the domain is open, before its first pass.
const OPEN_LOOK: Duration = Duration::from_secs(1);

/// The maintenance of one domain.
#[derive(Debug)]
pub(crate) struct Upkeep {
    status: Mutex<Option<MaintenanceStatus>>,
    stop: watch::Sender<bool>,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self { status: Mutex::default(), stop: watch::Sender::new(false) }
    }
}

/// What a pass came to.
struct Passed {
    pass: PassReport,
    cleaned: Option<CleanReport>,
    window: Option<Window>,
}

/// The window that is there, and the one that was promised.
struct Window {
    achieved: Duration,
    promised: Duration,
    is_kept: bool,
}

impl Upkeep {
    /// How the last pass went; `None` before the first.
    pub(crate) fn status(&self) -> Option<MaintenanceStatus> {
        lock(&self.status).clone()
    }

    /// Ends the pass that is under way, and all later ones.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Begins to keep the bucket of `host`.
    pub(crate) fn start(host: &Arc<Host>, options: Maintenance) {
        let Some(every) = options.every else { return };
        let (weak, stop) = (Arc::downgrade(host), host.upkeep.stop.subscribe());
        let spawned = std::thread::Builder::new().name("maintenance".to_owned()).spawn(move || {
            // On Linux a thread has a niceness of its own. Without it the work is done all the same.
            let _ = rustix::process::nice(NICENESS);
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(keep(weak, options, every, stop)),
                Err(error) => tracing::error!(%error, "no maintenance: its runtime cannot be made"),
            }
        });
        if let Err(error) = spawned {
            host.event(
                Severity::Error,
                "maintenance-failed",
                format!("no maintenance: its thread cannot be made: {error}"),
            );
        }
    }

    fn note(&self, host: &Host, ended: Result<Passed, String>) {
        let now = Time::from(host.site.env.clock.wall());
        let mut status = lock(&self.status);
        let before = status.take().unwrap_or_default();
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let after = match ended {
            Ok(Passed { pass, cleaned, window }) => {
                let cleaned = cleaned.unwrap_or_default();
                if pass.roots > 0 || cleaned.deleted > 0 {
                    let (segments, deleted) = (pass.segments, cleaned.deleted);
                    let message = format!("{segments} segments indexed, {deleted} objects deleted");
                    host.event(Severity::Info, "maintenance-done", message);
                }
                MaintenanceStatus {
                    ended: Some(now),
                    failed: None,
                    indexed_lsn: pass.index.map(|index| index.through.get()),
                    window_ms: window.as_ref().map(|window| ms(window.achieved)),
                    window_promised_ms: window.as_ref().map(|window| ms(window.promised)),
                    window_kept: window.as_ref().is_none_or(|window| window.is_kept),
                }
            }
            Err(why) => {
                if before.failed.as_ref() != Some(&why) {
                    host.event(Severity::Warning, "maintenance-failed", why.clone());
                }
                MaintenanceStatus { ended: Some(now), failed: Some(why), ..before.clone() }
            }
        };
        if before.window_kept && !after.window_kept {
            let span = |ms: Option<u64>| format!("{} s", ms.unwrap_or_default() / 1000);
            let (is, was) = (span(after.window_ms), span(after.window_promised_ms));
            let message = format!("every point of {is} is kept, {was} were promised");
            host.event(Severity::Warning, "window-missed", message);
        } else if !before.window_kept && after.window_kept {
            host.event(Severity::Info, "window-kept", "the window that was promised is there");
        }
        *status = Some(after);
    }
}

/// Passes, one after the other, until `stop` or the end of the host.
async fn keep(host: Weak<Host>, options: Maintenance, every: Duration, mut stop: watch::Receiver<bool>) {
    let mut pause = OPEN_LOOK;
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
        let Some(host) = host.upgrade() else { return };
        if host.served().is_none() {
            continue;
        }
        let passed = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            passed = pass(&host, &options) => passed,
        };
        host.upkeep.note(&host, passed);
        pause = every;
    }
}

async fn pass(host: &Host, options: &Maintenance) -> Result<Passed, String> {
    let url = host.spec().url.clone();
    let told = |error: &(dyn std::error::Error + 'static)| with_causes(error);
    let location = url.parse().map_err(|error: tidemark_bucket::Error| told(&error))?;
    let bucket = Bucket::open(&location, &BucketOptions::default()).map_err(|error| told(&error))?;
    let env = &host.site.env;
    let owner = format!("{} (maintenance)", host.site.name);
    let prices = host.site.prices.clone().unwrap_or_else(|| Sheet::likely(&url));
    let gc = MaintenanceOptions { owner, prices, ..MaintenanceOptions::default() };
    let mut maintainer = Maintainer::open(bucket.appender(), gc, env.clone()).await.map_err(|error| told(&error))?;
    let pass = maintainer.pass(From::NewestRoot, |_| {}).await.map_err(|error| told(&error))?;
    let cleaned = match options.delete {
        true => Some(maintainer.clean(&bucket.deleter(), |_| {}).await.map_err(|error| told(&error))?),
        false => None,
    };
    let plan = retention_plan(&bucket.read_only(), env).await.map_err(|error| told(&error))?;
    let now = env.clock.wall();
    let window = plan.and_then(|plan| {
        let promised = Duration::from_nanos(plan.wish.policy?.window_ns);
        Some(Window { achieved: Duration::from_nanos(plan.window_ns(now)), promised, is_kept: plan.keeps_promise(now) })
    });
    Ok(Passed { pass, cleaned, window })
}
