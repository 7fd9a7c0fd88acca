//! Which neighbouring frames of an object one request fetches together. Pure.

use std::ops::Range;

/// Frames that one ranged GET brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Bytes of the object.
    pub bytes: Range<u64>,
    /// The wanted frames in it, ascending.
    pub frames: Vec<u32>,
}

/// Merges `frames`, ascending by place, as long as the gap to the next is at most `gap_max` and the whole is at most
/// `bytes_max`. One frame alone may be larger.
pub fn coalesce(frames: impl IntoIterator<Item = (u32, Range<u64>)>, gap_max: u64, bytes_max: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (frame, bytes) in frames {
        match runs.last_mut() {
            Some(run)
                if bytes.start.saturating_sub(run.bytes.end) <= gap_max && bytes.end - run.bytes.start <= bytes_max =>
            {
                run.bytes.end = bytes.end.max(run.bytes.end);
                run.frames.push(frame);
            }
            _ => runs.push(Run { bytes, frames: vec![frame] }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_frames_share_a_request_and_far_ones_do_not() {
        let runs = coalesce([(0, 0..10), (1, 10..20), (4, 25..30), (9, 100..110)], 5, 1000);
        assert_eq!(runs[0], Run { bytes: 0..30, frames: vec![0, 1, 4] });
        assert_eq!(runs[1], Run { bytes: 100..110, frames: vec![9] });
    }

    #[test]
    fn a_run_ends_at_its_largest_size_but_one_frame_may_be_larger() {
        let runs = coalesce([(0, 0..30), (1, 30..45), (2, 45..50)], 5, 20);
        assert_eq!(runs.iter().map(|r| r.frames.len()).collect::<Vec<_>>(), [1, 2]);
    }
}
