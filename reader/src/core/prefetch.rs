//! What to read ahead of a reader that goes through a disk in order.
//!
//! Guests interleave several streams, so a table of cursors is kept. Two accesses that follow each other make a stream;
//! the window that is fetched ahead doubles with each one that the reader enters, up to a cap, and halves when the reader
//! leaps. A random access makes a cursor and fetches nothing.
//! Not here: fetching, and how a reader that is served from the cache is noticed (markers, see [`crate::image`]).

use std::ops::Range;

/// Streams that are followed at a time.
const CURSORS: usize = 32;
/// A second access that begins this far behind the end of the first still counts as following it. Small, because with
/// many cursors a random access would else fall behind one of them by chance.
const SLACK_BYTES: u64 = 64 << 10;

/// One stream of accesses.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// Where the next access is expected.
    next: u64,
    /// Fetched ahead up to here; equal to `next` or less if nothing was.
    ahead: u64,
    /// Bytes of the last window; 0 for a cursor that was hit once.
    window: u64,
    used: u64,
}

/// What to fetch, and the access that should ask for more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Bytes of the disk to bring into the cache.
    pub(crate) fetch: Range<u64>,
    /// When the reader comes here, ask the policy again.
    pub(crate) marker: u64,
}

/// The cursors of one image.
#[derive(Clone, Debug)]
pub(crate) struct Prefetch {
    cursors: Vec<Cursor>,
    clock: u64,
    start_bytes: u64,
    window_max: u64,
}

impl Prefetch {
    /// A policy whose windows go from `start_bytes` to `window_max`; 0 turns it off.
    pub(crate) fn new(start_bytes: u64, window_max: u64) -> Self {
        Self { cursors: Vec::new(), clock: 0, start_bytes: start_bytes.min(window_max), window_max }
    }

    /// Takes note of an access and says what to fetch because of it, on a disk of `size` bytes.
    pub(crate) fn access(&mut self, access: Range<u64>, size: u64) -> Option<Ahead> {
        if self.window_max == 0 || access.is_empty() {
            return None;
        }
        self.clock += 1;
        let clock = self.clock;
        let Some(at) = self.cursors.iter().position(|c| c.follows(access.start)) else {
            self.open(access.end);
            return None;
        };
        let cursor = &mut self.cursors[at];
        cursor.used = clock;
        if access.end <= cursor.next {
            return None;
        }
        let leapt = access.start > cursor.next.max(cursor.ahead);
        cursor.next = access.end;
        cursor.ahead = cursor.ahead.max(access.end);
        if leapt && cursor.window > 0 {
            cursor.window = (cursor.window / 2).max(self.start_bytes);
        }
        // The reader has entered the last window that was fetched: time for the next one.
        if cursor.window > 0 && cursor.ahead - cursor.next >= cursor.window {
            return None;
        }
        let window = match cursor.window {
            0 => self.start_bytes.max(access.end - access.start).min(self.window_max),
            _ if leapt => cursor.window,
            before => before.saturating_mul(2).min(self.window_max),
        };
        let fetch = cursor.ahead..cursor.ahead.saturating_add(window).min(size);
        if fetch.is_empty() {
            return None;
        }
        (cursor.window, cursor.ahead) = (window, fetch.end);
        Some(Ahead { marker: fetch.start, fetch })
    }

    /// What was to be fetched was not: the stream starts over when it comes by.
    pub(crate) fn dropped(&mut self, fetch: &Range<u64>) {
        for cursor in self.cursors.iter_mut().filter(|c| c.ahead == fetch.end) {
            (cursor.ahead, cursor.window) = (fetch.start.max(cursor.next), 0);
        }
    }

    fn open(&mut self, next: u64) {
        let cursor = Cursor { next, ahead: next, window: 0, used: self.clock };
        if self.cursors.len() < CURSORS {
            self.cursors.push(cursor);
        } else if let Some(oldest) = self.cursors.iter_mut().min_by_key(|c| c.used) {
            *oldest = cursor;
        }
    }
}

impl Cursor {
    /// True if an access at `start` belongs to the stream: where it is expected, a little behind that, or anywhere in
    /// what was fetched for it.
    fn follows(&self, start: u64) -> bool {
        let reach = self.next.max(self.ahead).saturating_add(SLACK_BYTES);
        let back = if self.window > 0 { SLACK_BYTES } else { 0 };
        self.next.saturating_sub(back) <= start && start <= reach
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SIZE: u64 = 1 << 40;

    #[test]
    fn windows_double_up_to_the_cap_while_the_reader_goes_on() {
        let mut policy = Prefetch::new(MIB, 4 * MIB);
        assert_eq!(policy.access(0..4096, SIZE), None, "one access is no stream");
        let first = policy.access(4096..8192, SIZE).unwrap();
        assert_eq!(first.fetch, 8192..8192 + MIB);
        let mut windows = vec![MIB];
        let mut at = first.marker;
        for _ in 0..4 {
            let ahead = policy.access(at..at + 4096, SIZE).unwrap();
            windows.push(ahead.fetch.end - ahead.fetch.start);
            at = ahead.marker;
        }
        assert_eq!(windows, [MIB, 2 * MIB, 4 * MIB, 4 * MIB, 4 * MIB]);
    }

    #[test]
    fn random_reads_fetch_nothing_ahead() {
        let mut policy = Prefetch::new(MIB, 16 * MIB);
        let mut state = 7u64;
        let mut fetched = 0;
        for _ in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 20) % (SIZE / 4096) * 4096;
            fetched += u64::from(policy.access(at..at + 4096, SIZE).is_some());
        }
        assert!(fetched < 10, "{fetched} of 10,000");
    }

    #[test]
    fn interleaved_streams_are_told_apart() {
        let mut policy = Prefetch::new(MIB, 4 * MIB);
        for stream in 0..8 {
            assert_eq!(policy.access(stream * 1000 * MIB..stream * 1000 * MIB + 4096, SIZE), None);
        }
        for stream in 0..8 {
            let at = stream * 1000 * MIB + 4096;
            assert_eq!(policy.access(at..at + 4096, SIZE).unwrap().fetch.start, at + 4096);
        }
    }

    #[test]
    fn a_leap_halves_the_window_and_the_end_of_the_disk_ends_it() {
        let mut policy = Prefetch::new(MIB, 16 * MIB);
        let size = 10 * MIB;
        policy.access(0..MIB, size);
        assert_eq!(policy.access(MIB..2 * MIB, size).unwrap().fetch, 2 * MIB..3 * MIB);
        assert_eq!(policy.access(2 * MIB..3 * MIB, size).unwrap().fetch, 3 * MIB..5 * MIB);
        let leapt = policy.access(5 * MIB + 4096..5 * MIB + 8192, size).unwrap();
        assert_eq!(leapt.fetch.end - leapt.fetch.start, MIB);
        let last = policy.access(leapt.fetch.end - 4096..leapt.fetch.end, size).unwrap();
        assert!(last.fetch.end <= size);
        assert_eq!(policy.access(size - 4096..size, size), None);
    }

    #[test]
    fn a_dropped_window_is_fetched_again_from_a_small_start() {
        let mut policy = Prefetch::new(MIB, 16 * MIB);
        policy.access(0..MIB, SIZE);
        let first = policy.access(MIB..2 * MIB, SIZE).unwrap();
        policy.dropped(&first.fetch);
        let again = policy.access(2 * MIB..3 * MIB, SIZE).unwrap();
        assert_eq!(again.fetch, 3 * MIB..4 * MIB);
    }
}
