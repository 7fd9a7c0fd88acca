//! How many threads take requests: one while it keeps up, more while requests queue.
//!
//! Threads that wait for the kernel are woken in turn, so two of them share a single reader's requests and each wakes with
//! cold caches: one thread alone answers such a reader up to 1.7 times as often. Many requests at once want every
//! core. So whoever finds the queue empty again and again steps aside, if another stays; whoever never finds it empty calls one
//! back. A thread aside comes back by itself after [`ASIDE_MAX`], so that none is missed when the mount ends without our doing.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tidemark_env::Clock;

/// Between two requests that were both waiting passes less than this; a thread that slept comes back later.
const QUEUED_GAP: Duration = Duration::from_micros(5);
/// So many gaps of one kind in a row make a thread step aside, or call one back.
const STREAK: u32 = 16;
/// Longest time aside.
const ASIDE_MAX: Duration = Duration::from_millis(500);

/// The threads that take requests.
pub(crate) struct Crew {
    clock: Arc<dyn Clock>,
    /// Threads that take requests now.
    active: AtomicUsize,
    /// Threads aside.
    aside: AtomicUsize,
    board: Mutex<Board>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Board {
    /// Calls that no thread aside has answered yet.
    calls: usize,
    /// The mount ends: nobody stays aside.
    dismissed: bool,
}

/// What a thread has seen of the queue lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pace {
    queued: u32,
    slept: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advice {
    Stay,
    StepAside,
    CallHelp,
}

impl Pace {
    /// Notes the time that passed between two requests.
    fn note(&mut self, gap: Duration) -> Advice {
        *self = if gap < QUEUED_GAP {
            Self { queued: self.queued + 1, slept: 0 }
        } else {
            Self { queued: 0, slept: self.slept + 1 }
        };
        let advice = match self {
            Self { queued: STREAK.., .. } => Advice::CallHelp,
            Self { slept: STREAK.., .. } => Advice::StepAside,
            _ => return Advice::Stay,
        };
        *self = Self::default();
        advice
    }
}

thread_local! {
    static PACE: Cell<(Pace, Duration)> = const { Cell::new((Pace { queued: 0, slept: 0 }, Duration::ZERO)) };
}

impl Crew {
    pub(crate) fn new(clock: Arc<dyn Clock>, threads: usize) -> Self {
        Self {
            clock,
            active: AtomicUsize::new(threads),
            aside: AtomicUsize::new(0),
            board: Mutex::default(),
            called: Condvar::new(),
        }
    }

    /// A thread took up a request that is answered at once, as most are.
    pub(crate) fn begin(&self) -> Shift<'_> {
        let now = self.clock.monotonic();
        let advice = PACE.with(|cell| {
            let (mut pace, ended) = cell.get();
            let advice = pace.note(now.saturating_sub(ended));
            cell.set((pace, ended));
            advice
        });
        if advice == Advice::CallHelp {
            self.call();
        }
        Shift { crew: self, step_aside: advice == Advice::StepAside }
    }

    /// Calls a thread back, if one is aside: for a flood of requests, or one that may take longer.
    pub(crate) fn call(&self) {
        if self.aside.load(Relaxed) == 0 {
            return;
        }
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        if board.calls < self.aside.load(Relaxed) {
            board.calls += 1;
            self.called.notify_one();
        }
    }

    /// Calls everybody back for good: the mount ends.
    pub(crate) fn dismiss(&self) {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).dismissed = true;
        self.called.notify_all();
    }

    /// Waits to be called, if another thread stays.
    fn step_aside(&self) {
        let others = self.active.try_update(Relaxed, Relaxed, |active| (active > 1).then(|| active - 1));
        if others.is_err() {
            return;
        }
        self.aside.fetch_add(1, Relaxed);
        let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |board: &mut Board| board.calls == 0 && !board.dismissed;
        let waited = self.called.wait_timeout_while(board, ASIDE_MAX, idle);
        let mut board = waited.unwrap_or_else(PoisonError::into_inner).0;
        board.calls = board.calls.saturating_sub(1);
        self.aside.fetch_sub(1, Relaxed);
        drop(board);
        self.active.fetch_add(1, Relaxed);
    }
}

/// A thread at work on one request; when it drops, the request is answered.
pub(crate) struct Shift<'a> {
    crew: &'a Crew,
    step_aside: bool,
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        if self.step_aside {
            self.crew.step_aside();
        }
        PACE.with(|cell| cell.set((cell.get().0, self.crew.clock.monotonic())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_env::SystemClock;

    fn advice_after(gaps_us: impl IntoIterator<Item = u64>) -> Vec<Advice> {
        let mut pace = Pace::default();
        gaps_us.into_iter().map(|gap| pace.note(Duration::from_micros(gap))).filter(|a| *a != Advice::Stay).collect()
    }

    #[test]
    fn a_queue_that_is_empty_again_and_again_sends_a_thread_aside() {
        assert_eq!(advice_after([12; 15]), []);
        assert_eq!(advice_after([12; 16]), [Advice::StepAside]);
    }

    #[test]
    fn a_queue_that_is_never_empty_calls_one_back() {
        assert_eq!(advice_after([2; 33]), [Advice::CallHelp; 2]);
    }

    #[test]
    fn in_between_nothing_changes() {
        assert_eq!(advice_after((0..1000).map(|n| if n % 10 == 0 { 12 } else { 2 })), []);
    }

    #[test]
    fn the_last_thread_stays_and_a_call_brings_one_back() {
        let crew = Arc::new(Crew::new(Arc::new(SystemClock::new()), 2));
        std::thread::scope(|scope| {
            let aside = scope.spawn(|| crew.step_aside());
            while crew.aside.load(Relaxed) == 0 {
                std::thread::yield_now();
            }
            crew.step_aside();
            assert_eq!(crew.active.load(Relaxed), 1, "the last one did not wait");
            while !aside.is_finished() {
                crew.call();
                std::thread::yield_now();
            }
        });
        assert_eq!((crew.active.load(Relaxed), crew.aside.load(Relaxed)), (2, 0));
        crew.dismiss();
        let begun = crew.clock.monotonic();
        (0..100).for_each(|_| crew.step_aside());
        assert!(crew.clock.monotonic() - begun < ASIDE_MAX, "nobody waits any more");
    }
}
