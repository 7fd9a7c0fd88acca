//! Who may have how many extents, and which ones are free.
//!
//! Space is set aside when a record is queued and taken when a batch needs it, so that what was queued always fits.
//! Invariants, asserted after every change: what is set aside and what was promised to domains is there.
//! Not here: which page of an extent is used for what (the log), and making it known on the device (the table).

use crate::error::FullCause;
use std::collections::{BTreeMap, BTreeSet};
use tidemark_format::DomainId;
use tidemark_format::logstore::LunExtent;

/// Extents that every log can have: it frees what is behind it only once it has moved on.
pub(crate) const LOG_EXTENTS_MIN: u32 = 2;

/// What one domain may have and has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    /// In extents.
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// Extents of its log.
    pub(crate) allocated: u32,
    /// Set aside for what it has queued.
    pub(crate) reserved: u32,
}

impl Account {
    fn held(&self) -> u32 {
        self.allocated + self.reserved
    }
    /// Promised, and not made use of.
    fn promised(&self) -> u32 {
        self.min.saturating_sub(self.held())
    }
}

/// All extents of a LUN.
#[derive(Debug, Default)]
pub(crate) struct Space {
    free: BTreeSet<LunExtent>,
    accounts: BTreeMap<DomainId, Account>,
}

impl Space {
    /// Nothing but free extents.
    pub(crate) fn new(free: impl IntoIterator<Item = LunExtent>) -> Self {
        Self { free: free.into_iter().collect(), accounts: BTreeMap::new() }
    }

    pub(crate) fn free(&self) -> u32 {
        self.free.len() as u32
    }
    /// Of the free extents, those that somebody counts on.
    pub(crate) fn spoken_for(&self) -> u32 {
        self.accounts.values().map(|account| account.reserved + account.promised()).sum()
    }
    /// Nothing for a domain that is gone.
    pub(crate) fn account(&self, domain: DomainId) -> Account {
        self.accounts.get(&domain).copied().unwrap_or_default()
    }

    /// Enters a domain that is on the device: what it has was its own before.
    pub(crate) fn enter(&mut self, domain: DomainId, account: Account) {
        self.accounts.insert(domain, account);
    }

    /// Opens an account for a new domain and takes the extent of its named values.
    pub(crate) fn create(&mut self, domain: DomainId, min: u32, max: u32) -> Result<LunExtent, FullCause> {
        if self.free() - self.spoken_for() < min + 1 {
            return Err(FullCause::Lun);
        }
        let meta = self.free.pop_first().expect("counted above");
        self.accounts.insert(domain, Account { min, max, allocated: 0, reserved: 0 });
        self.check();
        Ok(meta)
    }

    /// Closes an account; `extents` are all that the domain had.
    pub(crate) fn remove(&mut self, domain: DomainId, extents: impl IntoIterator<Item = LunExtent>) {
        self.accounts.remove(&domain);
        self.free.extend(extents);
        self.check();
    }

    /// Changes what a domain is promised and allowed. What it has stays its own, also beyond a new maximum.
    pub(crate) fn set_limits(&mut self, domain: DomainId, min: u32, max: u32) -> Result<(), FullCause> {
        let account = self.account(domain);
        let new = Account { min, max, ..account };
        if self.free() - (self.spoken_for() - account.promised()) < new.promised() {
            return Err(FullCause::Lun);
        }
        self.accounts.insert(domain, new);
        self.check();
        Ok(())
    }

    /// Extents that a domain could still set aside, and what it would run into then.
    pub(crate) fn obtainable(&self, domain: DomainId) -> (u32, FullCause) {
        let account = self.account(domain);
        let own = account.max.saturating_sub(account.held());
        let lun = self.free() - self.spoken_for() + account.promised();
        if own <= lun { (own, FullCause::DomainMax) } else { (lun, FullCause::Lun) }
    }

    /// Sets extents aside for a domain: all of them or none.
    pub(crate) fn reserve(&mut self, domain: DomainId, count: u32) -> Result<(), FullCause> {
        let (obtainable, cause) = self.obtainable(domain);
        if obtainable < count {
            return Err(cause);
        }
        self.update(domain, |account| account.reserved += count);
        Ok(())
    }

    /// Takes back what was set aside and is not needed.
    pub(crate) fn unreserve(&mut self, domain: DomainId, count: u32) {
        self.update(domain, |account| account.reserved -= count);
    }

    /// Turns one extent that was set aside into a real one.
    pub(crate) fn take(&mut self, domain: DomainId) -> LunExtent {
        let extent = self.free.pop_first().expect("what is set aside is there");
        self.update(domain, |account| {
            assert!(account.reserved > 0, "an extent is set aside before it is taken");
            account.reserved -= 1;
            account.allocated += 1;
        });
        extent
    }

    /// Takes extents back from a domain. Only once the table on the device does not name them any more.
    pub(crate) fn give_back(&mut self, domain: DomainId, extents: Vec<LunExtent>) {
        let count = extents.len() as u32;
        for extent in extents {
            assert!(self.free.insert(extent), "extent {extent} is given back and was free");
        }
        self.update(domain, |account| account.allocated -= count);
    }

    fn update(&mut self, domain: DomainId, change: impl FnOnce(&mut Account)) {
        change(self.accounts.get_mut(&domain).expect("a domain has an account"));
        self.check();
    }

    fn check(&self) {
        let (free, spoken_for) = (self.free(), self.spoken_for());
        assert!(spoken_for <= free, "{spoken_for} extents are spoken for, {free} are free");
    }
}
