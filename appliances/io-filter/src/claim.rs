//! Who may write: during a live migration two hosts have a disk open, and only the newer one's writes count.
//!
//! Connecting and reading take nothing from anybody. Under [`Contention::LastPartyWins`] the first write of a party
//! that never wrote takes the claim; whoever had it is fenced: its writes are refused from then on, also on connections
//! that it makes later, because a host that returns from the dead must not append. Writes that were under way are
//! waited for, so none of the old party is applied after the first of the new one.
//! Not here: fencing between appliances (the domain's claim in the bucket).

use crate::client::{Client, Party};
use crate::error::{Error, Result};
use crate::range::{ByteRange, RangeLock};
use crate::volume::{Geometry, Part, Persist, StatusContext, StatusRun, Volume, ZeroOptions};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidemark_format::Lsn;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// Fenced parties that are remembered; beyond it the one fenced first is forgotten.
pub const FENCED_PARTIES_MAX: usize = 1024;

/// What happens when several parties want to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contention {
    /// All may: they coordinate among themselves, as a cluster file system or the jobs of a test do.
    Shared,
    /// The one that began to write last; the others are fenced.
    LastPartyWins,
}

/// The right to write one disk. Shared by all connections to it.
#[derive(Debug)]
pub struct WriteClaim {
    contention: Contention,
    state: Mutex<State>,
    /// Read by each write while it is under way, written by a takeover.
    writes: Arc<RwLock<()>>,
}

#[derive(Debug, Default)]
struct State {
    holder: Option<Party>,
    fenced: VecDeque<Party>,
}

/// Where a party stands.
enum Standing {
    Holds,
    Fenced(Error),
    New,
}

impl WriteClaim {
    /// Nobody has it.
    pub fn new(contention: Contention) -> Self {
        Self { contention, state: Mutex::default(), writes: Arc::default() }
    }

    /// Who has it.
    pub fn holder(&self) -> Option<Party> {
        self.lock().holder.clone()
    }

    /// Forgets who has it and who was fenced: an operator vouches that only the right one is left.
    pub fn reset(&self) {
        *self.lock() = State::default();
    }

    /// Waits for the right to write once; it is given back when the guard is dropped.
    async fn enter(&self, party: &Party) -> Result<Option<OwnedRwLockReadGuard<()>>> {
        if self.contention == Contention::Shared {
            return Ok(None);
        }
        loop {
            let guard = self.writes.clone().read_owned().await;
            match self.lock().standing(party) {
                Standing::Holds => return Ok(Some(guard)),
                Standing::Fenced(error) => return Err(error),
                Standing::New => {}
            }
            drop(guard);
            // Until the last write of the old holder is done.
            let _all = self.writes.write().await;
            self.lock().take(party);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn standing(&self, party: &Party) -> Standing {
        match &self.holder {
            Some(holder) if holder == party => Standing::Holds,
            Some(holder) if self.fenced.contains(party) => {
                Standing::Fenced(Error::Fenced { what: format!("{holder} writes now, {party} may not") })
            }
            _ => Standing::New,
        }
    }

    /// Makes a new party the holder.
    fn take(&mut self, party: &Party) {
        if !matches!(self.standing(party), Standing::New) {
            return;
        }
        if let Some(old) = self.holder.replace(party.clone()) {
            tracing::warn!(%old, new = %party, "another client writes from here on: the old one is fenced");
            if self.fenced.len() == FENCED_PARTIES_MAX {
                self.fenced.pop_front();
            }
            self.fenced.push_back(old);
        }
    }
}

/// A volume for one connection: what changes it needs the claim.
pub struct Claimed {
    volume: Arc<dyn Volume>,
    claim: Arc<WriteClaim>,
    party: Party,
}

impl Claimed {
    /// `volume`, for `client`, under `claim`.
    pub fn new(volume: Arc<dyn Volume>, claim: Arc<WriteClaim>, client: &Client) -> Self {
        Self { volume, claim, party: client.party() }
    }

    /// Makes a change once the party may.
    fn change<'a>(
        &'a self,
        change: impl FnOnce(&'a dyn Volume) -> BoxFuture<'a, Result<()>> + Send + 'a,
    ) -> BoxFuture<'a, Result<()>> {
        if self.claim.contention == Contention::Shared {
            return change(&*self.volume);
        }
        Box::pin(async move {
            let _entered = self.claim.enter(&self.party).await?;
            change(&*self.volume).await
        })
    }
}

impl Volume for Claimed {
    fn geometry(&self) -> Geometry {
        self.volume.geometry()
    }

    fn ranges(&self) -> &RangeLock {
        self.volume.ranges()
    }

    fn read(&self, range: ByteRange) -> BoxFuture<'_, Result<Vec<Part>>> {
        self.volume.read(range)
    }

    fn write(&self, offset: u64, data: Bytes, persist: Persist) -> BoxFuture<'_, Result<()>> {
        self.change(move |volume| volume.write(offset, data, persist))
    }

    fn zero(&self, range: ByteRange, options: ZeroOptions, persist: Persist) -> BoxFuture<'_, Result<()>> {
        self.change(move |volume| volume.zero(range, options, persist))
    }

    fn trim(&self, range: ByteRange, persist: Persist) -> BoxFuture<'_, Result<()>> {
        self.change(move |volume| volume.trim(range, persist))
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.volume.flush()
    }

    fn cache(&self, range: ByteRange) -> BoxFuture<'_, Result<()>> {
        self.volume.cache(range)
    }

    fn status<'a>(
        &'a self,
        range: ByteRange,
        context: &'a StatusContext,
        runs_max: usize,
    ) -> BoxFuture<'a, Result<Vec<StatusRun>>> {
        self.volume.status(range, context, runs_max)
    }

    fn knows_changes_since(&self, lsn: Lsn) -> bool {
        self.volume.knows_changes_since(lsn)
    }

    fn offered_changes_since(&self) -> Vec<Lsn> {
        self.volume.offered_changes_since()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Peer;
    use crate::memory::MemoryVolume;
    use futures::FutureExt;
    use tidemark_format::ErrorKind;

    fn client(connection: u64, pid: i32) -> Client {
        Client { connection, peer: Peer::Unix { pid: Some(pid), uid: 0 }, certificate: None }
    }

    fn write(volume: &Claimed) -> Result<()> {
        let data = Bytes::from_static(&[7; 512]);
        volume.write(0, data, Persist::Normal).now_or_never().expect("nothing holds it up")
    }

    fn connect(claim: &Arc<WriteClaim>, connection: u64, pid: i32) -> Claimed {
        let volume = Arc::new(MemoryVolume::new(1 << 20).expect("small"));
        Claimed::new(volume, claim.clone(), &client(connection, pid))
    }

    #[test]
    fn the_first_write_of_a_new_party_fences_the_old_one_for_good() {
        let claim = Arc::new(WriteClaim::new(Contention::LastPartyWins));
        let [source, also_source, target] = [(1, 10), (2, 10), (3, 20)].map(|(c, pid)| connect(&claim, c, pid));
        write(&source).expect("nobody else wrote");
        write(&also_source).expect("connections of one process are one party");
        write(&target).expect("the newest party wins");
        for fenced in [&source, &also_source, &connect(&claim, 4, 10)] {
            assert_eq!(write(fenced).expect_err("it is fenced").kind(), ErrorKind::Fenced);
        }
        write(&target).expect("it still has the claim");
        let read = source.read(ByteRange::new(0, 512)).now_or_never();
        assert!(matches!(read, Some(Ok(_))), "reading is free");
        claim.reset();
        write(&source).expect("an operator vouched for it");
    }

    #[test]
    fn shared_volumes_are_written_by_all() {
        let claim = Arc::new(WriteClaim::new(Contention::Shared));
        let [one, other] = [(1, 10), (2, 20)].map(|(c, pid)| connect(&claim, c, pid));
        for volume in [&one, &other, &one] {
            write(volume).expect("all may write");
        }
        assert_eq!(claim.holder(), None);
    }

    #[test]
    fn a_takeover_waits_for_the_writes_of_the_old_party() {
        let claim = Arc::new(WriteClaim::new(Contention::LastPartyWins));
        let [old, new] = [10, 20].map(|pid| client(1, pid).party());
        let under_way = claim.enter(&old).now_or_never().expect("free").expect("nobody else wrote");
        let mut takeover = Box::pin(claim.enter(&new));
        assert!(takeover.as_mut().now_or_never().is_none(), "a write of the old party is under way");
        assert_eq!(claim.holder(), Some(old.clone()));
        drop(under_way);
        assert!(takeover.now_or_never().expect("the write is done").is_ok());
        assert_eq!(claim.holder(), Some(new));
    }

    #[test]
    fn parties_beyond_the_bound_are_forgotten_in_their_order() {
        let claim = WriteClaim::new(Contention::LastPartyWins);
        for pid in 0..i32::try_from(FENCED_PARTIES_MAX).expect("small") + 2 {
            let entered = claim.enter(&client(1, pid).party()).now_or_never().expect("free");
            drop(entered.expect("new parties win"));
        }
        assert_eq!(claim.lock().fenced.len(), FENCED_PARTIES_MAX);
        assert_eq!(claim.lock().fenced[0], client(1, 1).party());
    }
}
