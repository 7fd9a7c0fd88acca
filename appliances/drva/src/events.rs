//! What happened lately: a numbered ring that whoever follows along can wait on.
//!
//! Invariants: numbers are dense, from 1; the ring holds the newest [`EVENTS_MAX`] of them.
//! Not here: what is in the domains' own logs (bookmarks, gaps), which is for ever.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidemark_api::{DiskAddress, EVENTS_PER_PAGE_MAX, Event, EventPage, EventQuery, Severity, Time, WAIT_S_MAX};
use tidemark_env::Env;
use tokio::sync::watch;

/// Events that are remembered.
pub const EVENTS_MAX: usize = 10_000;
/// Characters of a message at most.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// The newest events.
pub struct EventRing {
    env: Env,
    instance: String,
    ring: Mutex<VecDeque<Event>>,
    /// The newest number; changed under the ring's lock.
    last_seq: watch::Sender<u64>,
}

impl fmt::Debug for EventRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventRing").field("last_seq", &*self.last_seq.borrow()).finish_non_exhaustive()
    }
}

/// Something that happened, before it has a number.
#[derive(Clone, Debug)]
pub struct NewEvent {
    severity: Severity,
    kind: &'static str,
    message: String,
    domain: Option<String>,
    vm: Option<String>,
    disk: Option<String>,
    data: BTreeMap<String, serde_json::Value>,
}

impl NewEvent {
    /// Something of a kind, which is a stable word such as `disk-gap`.
    pub fn new(severity: Severity, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into().chars().take(MESSAGE_CHARS_MAX).collect();
        Self { severity, kind, message, domain: None, vm: None, disk: None, data: BTreeMap::new() }
    }

    /// About a domain.
    #[must_use]
    pub fn domain(self, domain: &str) -> Self {
        Self { domain: Some(domain.to_owned()), ..self }
    }

    /// About a VM.
    #[must_use]
    pub fn vm(self, vm: &str) -> Self {
        Self { vm: Some(vm.to_owned()), ..self }
    }

    /// About a disk.
    #[must_use]
    pub fn disk(self, disk: &DiskAddress) -> Self {
        Self { disk: Some(disk.disk.clone()), ..self.domain(&disk.domain).vm(&disk.vm) }
    }

    /// With a number or name that belongs to it.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.data.insert(name.to_owned(), value.into());
        self
    }
}

impl EventRing {
    /// An empty ring.
    pub fn new(env: Env) -> Self {
        let instance = env.entropy.nonce().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { env, instance, ring: Mutex::default(), last_seq: watch::Sender::new(0) }
    }

    /// Records that something happened, and logs it. Returns its number.
    pub fn push(&self, new: NewEvent) -> u64 {
        let NewEvent { severity, kind, message, domain, vm, disk, data } = new;
        let about = [&domain, &vm, &disk].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("/");
        match severity {
            Severity::Info => tracing::info!(kind, about, "{message}"),
            Severity::Warning => tracing::warn!(kind, about, "{message}"),
            Severity::Error => tracing::error!(kind, about, "{message}"),
        }
        let mut ring = self.ring();
        let seq = *self.last_seq.borrow() + 1;
        let time = Time::from(self.env.clock.wall());
        ring.push_back(Event { seq, time, severity, kind: kind.to_owned(), domain, vm, disk, message, data });
        if ring.len() > EVENTS_MAX {
            ring.pop_front();
        }
        self.last_seq.send_replace(seq);
        seq
    }

    /// The events that are asked for; waits for the first of them if it is asked to.
    ///
    /// A number beyond the newest is one of an earlier life of the appliance: the answer begins with the oldest.
    pub async fn page(&self, query: EventQuery) -> EventPage {
        let EventQuery { after, wait_s, limit } = query;
        let mut news = self.last_seq.subscribe();
        if *news.borrow_and_update() == after {
            let wait = Duration::from_secs(wait_s.min(WAIT_S_MAX).into());
            // News, or none in time: either way what is there is the answer.
            let _ = tokio::time::timeout(wait, news.wait_for(|seq| *seq != after)).await;
        }
        let limit = if limit == 0 { EVENTS_PER_PAGE_MAX } else { limit.min(EVENTS_PER_PAGE_MAX) };
        let ring = self.ring();
        let newest = ring.back().map_or(0, |event| event.seq);
        let after = if after > newest { 0 } else { after };
        let oldest = newest - ring.len() as u64;
        let first = after.max(oldest);
        let events: Vec<_> = ring.iter().skip((first - oldest) as usize).take(limit as usize).cloned().collect();
        let last_seq = events.last().map_or(first, |event| event.seq);
        EventPage { instance: self.instance.clone(), last_seq, lost: first - after, events }
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Event>> {
        // Nothing in there can be left half done.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidemark_env::ManualClock;
    use tidemark_format::TimeNs;

    fn ring() -> EventRing {
        EventRing::new(Env::seeded(1, Arc::new(ManualClock::new(TimeNs::new(7)))))
    }

    fn happened(ring: &EventRing, times: usize) {
        for _ in 0..times {
            ring.push(NewEvent::new(Severity::Info, "test", "it happened"));
        }
    }

    fn seqs(page: &EventPage) -> Vec<u64> {
        page.events.iter().map(|event| event.seq).collect()
    }

    #[tokio::test]
    async fn pages_follow_each_other_without_gap_or_overlap() {
        let ring = ring();
        assert_eq!(ring.page(EventQuery::default()).await.events, []);
        happened(&ring, 5);
        let first = ring.page(EventQuery { limit: 3, ..Default::default() }).await;
        assert_eq!((seqs(&first), first.last_seq, first.lost), (vec![1, 2, 3], 3, 0));
        let second = ring.page(EventQuery { after: first.last_seq, ..Default::default() }).await;
        assert_eq!((seqs(&second), second.last_seq), (vec![4, 5], 5));
        let none = ring.page(EventQuery { after: 5, ..Default::default() }).await;
        assert_eq!((seqs(&none), none.last_seq), (vec![], 5));
        let earlier_life = ring.page(EventQuery { after: 99, ..Default::default() }).await;
        assert_eq!(seqs(&earlier_life), [1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn what_fell_out_of_the_ring_is_counted() {
        let ring = ring();
        happened(&ring, EVENTS_MAX + 10);
        let page = ring.page(EventQuery { after: 3, limit: 2, ..Default::default() }).await;
        assert_eq!((seqs(&page), page.lost), (vec![11, 12], 7));
        assert_eq!(ring.page(EventQuery::default()).await.lost, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_with_the_first_news_or_when_it_is_over() {
        let ring = Arc::new(ring());
        happened(&ring, 1);
        let query = EventQuery { after: 1, wait_s: 60, ..Default::default() };
        let waiting = tokio::spawn({
            let ring = ring.clone();
            async move { ring.page(query).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let disk = DiskAddress { domain: "d".into(), vm: "web1".into(), disk: "root".into() };
        ring.push(NewEvent::new(Severity::Error, "disk-gap", "gap").disk(&disk).with("lsn", 5));
        let page = waiting.await.unwrap();
        assert_eq!((seqs(&page), page.events[0].vm.as_deref()), (vec![2], Some("web1")));
        let late = ring.page(EventQuery { after: 2, wait_s: 60, ..Default::default() }).await;
        assert_eq!((seqs(&late), late.last_seq), (vec![], 2));
    }
}
