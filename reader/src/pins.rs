//! Keeps in the bucket what this reader reads by: a pin for each root in use, prolonged while it is.
//!
//! A pin is written before the root is relied on, and counts only once the root turned out to be still the newest one
//! (SPEC.md §deleting): then no pass that deletes can have missed it.
//! Not here: what a pin protects (`tidemark-gc`).

use crate::error::{Error, Result};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tidemark_bucket::Pinner;
use tidemark_env::Env;
use tidemark_format::{DomainId, ObjectKey, Pin, Root, TimeNs};

/// How a reader pins what it reads by.
#[derive(Clone, Debug)]
pub struct PinOptions {
    /// Writes the pins.
    pub pinner: Pinner,
    /// Who reads, for people.
    pub owner: String,
    /// How long a pin counts after it was last prolonged; it is prolonged three times as often. What a reader that died had
    /// pinned stays so long.
    pub lifetime: Duration,
}

/// The pins of one reader.
#[derive(Debug)]
pub(crate) struct Pins {
    options: PinOptions,
    domain: DomainId,
    env: Env,
    held: tokio::sync::Mutex<Vec<Held>>,
}

/// A pin, and the root that it is for as long as somebody reads by it.
#[derive(Debug)]
struct Held {
    nonce: [u8; 16],
    root: Weak<Root>,
    pin: Pin,
}

impl Pins {
    pub(crate) fn new(options: PinOptions, domain: DomainId, env: Env) -> Self {
        Self { options, domain, env, held: Default::default() }
    }

    /// How often they have to be prolonged.
    pub(crate) fn interval(&self) -> Duration {
        self.options.lifetime / 3
    }

    fn until(&self) -> TimeNs {
        let lifetime = u64::try_from(self.options.lifetime.as_nanos()).unwrap_or(u64::MAX);
        TimeNs::new(self.env.clock.wall().get().saturating_add(lifetime))
    }

    /// Pins a root, which counts if it is still the newest one afterwards.
    pub(crate) async fn hold(&self, root: &Arc<Root>) -> Result<()> {
        let mut nonce = [0; 16];
        self.env.entropy.fill(&mut nonce);
        let (epoch, seq, owner) = (root.epoch, root.seq, self.options.owner.clone());
        let pin = Pin { domain: self.domain, epoch, seq, until: self.until(), owner };
        let held = Held { nonce, root: Arc::downgrade(root), pin };
        self.put(&held).await?;
        self.held.lock().await.push(held);
        Ok(())
    }

    /// Prolongs the pins of roots that are in use, and ends the others; all of them if `end`.
    pub(crate) async fn prolong(&self, end: bool) -> Result<()> {
        let until = self.until();
        let mut all = self.held.lock().await;
        let mut first_error = None;
        for held in all.iter_mut() {
            held.pin.until = if end || held.root.strong_count() == 0 { TimeNs::default() } else { until };
            if let Err(error) = self.put(held).await {
                first_error = first_error.or(Some(error));
            }
        }
        all.retain(|held| held.pin.until == until);
        first_error.map_or(Ok(()), Err)
    }

    async fn put(&self, held: &Held) -> Result<()> {
        let key = ObjectKey::Pin { nonce: held.nonce };
        let put = self.options.pinner.put(&key, held.pin.encode()).await;
        put.map_err(|source| Error::Store { key, source })
    }
}
