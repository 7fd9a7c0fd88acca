//! Memory of requests: each connection has a reserve, and beyond it takes from a pool that all share.
//!
//! Invariants: a connection within its reserve waits for nobody; those that wait for the pool are served in their order;
//! what a connection holds of the pool is what it uses beyond its reserve, and comes back when the connection ends.

use super::limits::Limits;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Bytes that a request takes beside its data: its future, its reply's header, its place in queues.
pub(super) const REQUEST_BYTES: u64 = 1024;
/// The pool is counted in units of so many bytes.
const UNIT_BYTES: u64 = 4096;
/// Bytes of the pool that one request may wait for, beside its data.
pub(super) const WAIT_BYTES: u64 = REQUEST_BYTES + 2 * UNIT_BYTES;
/// Bytes of the pool at most.
pub(super) const POOL_BYTES_MAX: u64 = 1 << 40;

const _: () = assert!(POOL_BYTES_MAX / UNIT_BYTES <= u32::MAX as u64);

/// What all connections share.
#[derive(Debug)]
pub(super) struct Pool {
    free: Arc<Semaphore>,
    /// Connections that wait.
    waiting: AtomicUsize,
}

impl Pool {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let units = limits.server_bytes_max.min(POOL_BYTES_MAX) / UNIT_BYTES;
        Arc::new(Self { free: Arc::new(Semaphore::new(units as usize)), waiting: AtomicUsize::new(0) })
    }

    /// Whether a connection waits for memory that others hold.
    pub(super) fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// A connection's place in the queue for the pool.
struct Wait {
    pool: Arc<Pool>,
    granted: BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>,
}

impl Wait {
    fn new(pool: &Arc<Pool>, units: u32) -> Self {
        pool.waiting.fetch_add(1, Ordering::Relaxed);
        Self { pool: pool.clone(), granted: pool.free.clone().acquire_many_owned(units).boxed() }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.pool.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one connection uses.
pub(super) struct Account {
    pool: Arc<Pool>,
    requests_max: usize,
    bytes_max: u64,
    reserve_bytes: u64,
    requests: usize,
    used_bytes: u64,
    /// Taken from the pool.
    units: u32,
    wait: Option<Wait>,
}

impl Account {
    pub(super) fn new(pool: &Arc<Pool>, limits: &Limits) -> Self {
        Self {
            pool: pool.clone(),
            requests_max: limits.connection_requests_max,
            bytes_max: limits.connection_bytes_max,
            reserve_bytes: limits.connection_reserve_bytes,
            requests: 0,
            used_bytes: 0,
            units: 0,
            wait: None,
        }
    }

    /// Whether it holds something that others may wait for.
    pub(super) fn holds_shared(&self) -> bool {
        self.units > 0
    }

    /// Whether others wait for what it holds.
    pub(super) fn is_contended(&self) -> bool {
        self.holds_shared() && self.pool.is_contended()
    }

    /// Takes `bytes` for one request; after Pending the same is asked for again. Pending without a waker if this connection's own requests have to end first.
    pub(super) fn poll_take(&mut self, cx: &mut Context<'_>, bytes: u64) -> Poll<()> {
        let used_bytes = self.used_bytes + bytes;
        if self.requests == self.requests_max || (used_bytes > self.bytes_max && self.requests > 0) {
            return Poll::Pending;
        }
        let missing = self.units_for(used_bytes).saturating_sub(self.units);
        if missing > 0 {
            let permit = match &mut self.wait {
                None => match self.pool.free.clone().try_acquire_many_owned(missing) {
                    Ok(permit) => permit,
                    Err(_) => {
                        // One to spare: while it waits it may give some back, and rounding then takes one more.
                        let wait = self.wait.insert(Wait::new(&self.pool, missing + 1));
                        ready!(wait.granted.poll_unpin(cx)).expect("the pool is never closed")
                    }
                },
                Some(wait) => ready!(wait.granted.poll_unpin(cx)).expect("the pool is never closed"),
            };
            self.units += permit.num_permits() as u32;
            permit.forget();
        }
        self.wait = None;
        self.used_bytes = used_bytes;
        self.requests += 1;
        assert!(self.units >= self.units_for(used_bytes), "{} units for {used_bytes} bytes", self.units);
        self.settle();
        Poll::Ready(())
    }

    /// Gives back the `bytes` of one request.
    pub(super) fn give(&mut self, bytes: u64) {
        self.used_bytes -= bytes;
        self.requests -= 1;
        self.settle();
    }

    /// Units that it takes to use so many bytes.
    fn units_for(&self, used_bytes: u64) -> u32 {
        used_bytes.saturating_sub(self.reserve_bytes).div_ceil(UNIT_BYTES) as u32
    }

    /// Returns what is not used.
    fn settle(&mut self) {
        let excess = self.units.saturating_sub(self.units_for(self.used_bytes));
        if excess > 0 {
            self.units -= excess;
            self.pool.free.add_permits(excess as usize);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.pool.free.add_permits(self.units as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker;
    use proptest::prelude::*;

    fn limits() -> Limits {
        Limits {
            connection_requests_max: 4,
            connection_bytes_max: 256 << 10,
            connection_reserve_bytes: 16 << 10,
            server_bytes_max: 240 << 10,
            ..Limits::default()
        }
    }

    fn take(account: &mut Account, bytes: u64) -> bool {
        account.poll_take(&mut Context::from_waker(&noop_waker()), bytes).is_ready()
    }

    #[test]
    fn a_reserve_is_there_when_the_pool_is_gone() {
        let pool = Pool::new(&limits());
        let [mut greedy, mut modest] = [(); 2].map(|()| Account::new(&pool, &limits()));
        assert!(take(&mut greedy, 256 << 10));
        assert!(take(&mut modest, 16 << 10) && !modest.holds_shared());
        assert!(!pool.is_contended());
        assert!(!take(&mut modest, 64 << 10), "the pool is used up");
        assert!(pool.is_contended());
        greedy.give(256 << 10);
        assert!(take(&mut modest, 64 << 10) && !pool.is_contended());
        modest.give(16 << 10);
        modest.give(64 << 10);
        assert!(take(&mut greedy, 256 << 10), "all of it came back");
    }

    #[test]
    fn one_that_waits_no_longer_leaves_the_queue() {
        let pool = Pool::new(&limits());
        let [mut greedy, mut other] = [(); 2].map(|()| Account::new(&pool, &limits()));
        assert!(take(&mut greedy, 256 << 10) && take(&mut other, 8 << 10) && !take(&mut other, 16 << 10));
        other.give(8 << 10);
        assert!(take(&mut other, 16 << 10), "now its reserve is enough");
        assert!(!pool.is_contended());
    }

    #[test]
    fn requests_and_bytes_of_one_connection_are_bounded() {
        let pool = Pool::new(&limits());
        let mut account = Account::new(&pool, &limits());
        assert!((0..4).all(|_| take(&mut account, 1)) && !take(&mut account, 1), "4 requests");
        (0..4).for_each(|_| account.give(1));
        assert!(take(&mut account, 200 << 10) && !take(&mut account, 100 << 10), "256 KiB");
        assert!(!pool.is_contended(), "it waits for itself");
    }

    proptest! {
        #[test]
        fn prop_nothing_of_the_pool_is_lost(
            steps in prop::collection::vec((0_usize..3, 1_u64..224 << 10, any::<bool>()), 1..200),
        ) {
            let pool = Pool::new(&limits());
            let units = pool.free.available_permits();
            // Each with what it holds, and the request that it waits to begin: it asks for no other before.
            let mut accounts = [(); 3].map(|()| (Account::new(&pool, &limits()), Vec::new(), None));
            for (who, bytes, takes) in steps {
                let (account, held, waits) = &mut accounts[who];
                let bytes = waits.unwrap_or(bytes);
                if !takes {
                    if let Some(bytes) = held.pop() {
                        account.give(bytes);
                    }
                } else if take(account, bytes) {
                    held.push(bytes);
                    *waits = None;
                } else {
                    *waits = Some(bytes);
                }
                prop_assert_eq!(account.units, account.units_for(account.used_bytes));
                prop_assert_eq!(account.used_bytes, held.iter().sum::<u64>());
            }
            drop(accounts);
            prop_assert_eq!(pool.free.available_permits(), units);
            prop_assert!(!pool.is_contended());
        }
    }
}
