//! Turns transfers into rates that neither jump with each lump nor linger when the flow ends.
//!
//! What moves in lumps (a segment is freed as a whole when it is committed) has no rate at a moment. A [`Meter`] takes the
//! mean between the ends of two lumps, over a window and at least [`MeterOptions::lumps_min`] lumps, so a regular flow of
//! lumps of any size is measured without a ripple. Between lumps the rate stays as it is for as long as the next one is
//! not late: at most one more lump can be under way, which bounds what may have moved since. So
//!
//! ```text
//! rate(now) = min( S / (t_last - t_first),  (S + S / n) / (now - t_first) )     S bytes in the n lumps after t_first
//! ```
//!
//! The second term takes over once the next lump is later than the mean interval; after an end of the flow it falls like 1 / t.
//! Nothing here uses a function whose last bit depends on the machine: the same events give the same rates everywhere.
//!
//! Invariants: the first of the marks that a meter keeps is never younger than the window and `lumps_min` lumps ask for;
//! there are at most some hundred marks, whatever comes in.
//! Not here: what counts as a transfer, and what an idle link could do; see [`Meter::idle`].

use crate::rate::Rate;
use std::collections::VecDeque;
use std::time::Duration;

/// Marks of a window; lumps that come closer than the window divided by this share one.
const MARKS_MAX: u32 = 32;

/// How a [`Meter`] smooths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterOptions {
    /// The rate is the mean of at least this long. At least a millisecond.
    pub window: Duration,
    /// It is the mean of at least so many lumps; at most 32.
    pub lumps_min: usize,
}

impl MeterOptions {
    /// For what comes in many small pieces: guest writes.
    pub const STREAM: Self = Self { window: Duration::from_secs(2), lumps_min: 1 };
    /// For what comes in few large ones: committed segments.
    pub const LUMPS: Self = Self { window: Duration::from_secs(2), lumps_min: 6 };
    /// For what people look at over minutes: progress and its end.
    pub const PROGRESS: Self = Self { window: Duration::from_secs(60), lumps_min: 6 };
}

/// Everything through `total_bytes` had moved at `at`.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Duration,
    total_bytes: u64,
}

/// The rate of one flow.
#[derive(Clone, Debug)]
pub struct Meter {
    options: MeterOptions,
    /// In order of time. The first is where the measured stretch begins.
    marks: VecDeque<Mark>,
    /// Time that does not count: `now` minus this is what marks are made of.
    idle: Duration,
    seen_at: Duration,
}

impl Meter {
    /// Measures from now on.
    pub fn new(options: MeterOptions, now: Duration) -> Self {
        let window = options.window.max(Duration::from_millis(1));
        let lumps_min = options.lumps_min.clamp(1, MARKS_MAX as usize);
        let marks = VecDeque::from([Mark { at: now, total_bytes: 0 }]);
        Self { options: MeterOptions { window, lumps_min }, marks, idle: Duration::ZERO, seen_at: now }
    }

    fn slot(&self) -> Duration {
        self.options.window / MARKS_MAX
    }

    /// `now` on the clock that stands still while idle; never earlier than the last event.
    fn counted(&self, now: Duration) -> Duration {
        now.max(self.seen_at).saturating_sub(self.idle)
    }

    /// Where the measured stretch begins: at the newest mark that leaves it long enough, in time and in lumps.
    fn first(&self, at: Duration) -> usize {
        let latest = self.marks.len().saturating_sub(1 + self.options.lumps_min);
        let old = |index: &usize| at.saturating_sub(self.marks[*index].at) >= self.options.window;
        (1..=latest).take_while(old).last().unwrap_or(0)
    }

    /// `bytes` have moved.
    pub fn add(&mut self, bytes: u64, now: Duration) {
        if bytes == 0 {
            return;
        }
        let at = self.counted(now);
        self.seen_at = self.seen_at.max(now);
        let total_bytes = self.total_bytes().saturating_add(bytes);
        let slot = self.slot();
        let before = self.marks.len().checked_sub(2).map(|index| self.marks[index]);
        match self.marks.back_mut() {
            // Too close to the mark before for one of its own.
            Some(last) if before.is_some_and(|before| at - before.at < slot) => *last = Mark { at, total_bytes },
            _ => self.marks.push_back(Mark { at, total_bytes }),
        }
        self.marks.drain(..self.first(at));
        // Two neighbouring intervals together are as long as a slot.
        let marks_max = 2 * MARKS_MAX as usize + 2 + self.options.lumps_min;
        assert!(self.marks.len() <= marks_max, "{} marks, at most {marks_max}", self.marks.len());
    }

    /// Nothing was there to be moved since the last event: that time does not count. Without such calls a pause of the
    /// source looks like a slow link.
    pub fn idle(&mut self, now: Duration) {
        self.idle += now.saturating_sub(self.seen_at);
        self.seen_at = self.seen_at.max(now);
    }

    /// Nothing happened, but there was something to be moved: the time since the last event counts.
    pub fn busy(&mut self, now: Duration) {
        self.seen_at = self.seen_at.max(now);
    }

    /// All that ever moved.
    pub fn total_bytes(&self) -> u64 {
        self.marks.back().map_or(0, |last| last.total_bytes)
    }

    /// Bytes a second; `None` before anything moved.
    pub fn rate(&self, now: Duration) -> Option<Rate> {
        self.rate_f64(now).map(Rate::from_f64)
    }

    pub(crate) fn rate_f64(&self, now: Duration) -> Option<f64> {
        let at = self.counted(now);
        let begin = self.first(at);
        let (first, last) = (self.marks.get(begin)?, self.marks.back()?);
        let lumps = self.marks.len() - 1 - begin;
        if lumps == 0 {
            return None;
        }
        let bytes = (last.total_bytes - first.total_bytes) as f64;
        let shortest = self.slot();
        let until_last = (last.at - first.at).max(shortest).as_secs_f64();
        let until_now = at.saturating_sub(first.at).max(shortest).as_secs_f64();
        Some((bytes / until_last).min((bytes + bytes / lumps as f64) / until_now))
    }
}

/// How much smaller the bytes became on their way to the bucket, of late: by compression and by coalescing.
#[derive(Clone, Copy, Debug)]
pub struct Reduction {
    plain_bytes: u64,
    stored_bytes: u64,
    memory_bytes: u64,
}

impl Reduction {
    /// Remembers about the last `memory_bytes` of plaintext.
    pub const fn new(memory_bytes: u64) -> Self {
        Self { plain_bytes: 0, stored_bytes: 0, memory_bytes }
    }

    /// `plain_bytes` of guest writes became `stored_bytes` of objects.
    pub fn add(&mut self, plain_bytes: u64, stored_bytes: u64) {
        self.plain_bytes = self.plain_bytes.saturating_add(plain_bytes);
        self.stored_bytes = self.stored_bytes.saturating_add(stored_bytes);
        // Halving both forgets without a jump.
        while self.plain_bytes > self.memory_bytes.max(1) {
            self.plain_bytes /= 2;
            self.stored_bytes /= 2;
        }
    }

    /// Plain divided by stored bytes: 2 means that a half is left. `None` before anything was stored.
    pub fn ratio(&self) -> Option<f64> {
        (self.stored_bytes > 0).then(|| self.plain_bytes as f64 / self.stored_bytes as f64)
    }
}
