//! TIMES: when each LSN happened, as steps (SPEC.md §times).
//!
//! Time is kept in ticks (a millisecond unless the header says otherwise) and written only where it changes, so a busy
//! segment pays for milliseconds, not for writes.

use crate::column::{CHUNK_ROWS_MAX, put_packed, take_packed};
use crate::cursor::{Cursor, put_varint};
use crate::error::{FormatError, Result};
use crate::ids::{Lsn, TimeNs};

/// From `lsn` on, until the next step, time is `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeStep {
    /// First LSN at this time.
    pub lsn: Lsn,
    /// The time, a multiple of the segment's tick.
    pub time: TimeNs,
}

/// Appends the TIMES section. Steps ascend in both fields and are whole ticks: checked by the caller.
pub(crate) fn put_times(out: &mut Vec<u8>, steps: &[TimeStep], tick_ns: u32) {
    let (mut lsns, mut ticks) = ([0u64; CHUNK_ROWS_MAX], [0u64; CHUNK_ROWS_MAX]);
    for chunk in steps.chunks(CHUNK_ROWS_MAX) {
        let tick = |step: &TimeStep| step.time.get() / u64::from(tick_ns);
        out.push((chunk.len() - 1) as u8);
        put_varint(out, chunk[0].lsn.get());
        put_varint(out, tick(&chunk[0]));
        for (i, pair) in chunk.windows(2).enumerate() {
            lsns[i] = pair[1].lsn.get() - pair[0].lsn.get();
            ticks[i] = tick(&pair[1]) - tick(&pair[0]);
        }
        put_packed(out, &lsns[..chunk.len() - 1]);
        put_packed(out, &ticks[..chunk.len() - 1]);
    }
}

/// A decoded TIMES section, kept packed.
#[derive(Clone, Debug)]
pub struct PackedTimes {
    bytes: Box<[u8]>,
    /// First LSN, first time and offset of each chunk of steps.
    chunks: Box<[(Lsn, TimeNs, u32)]>,
    tick_ns: u32,
}

/// What the header says of the section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimesBounds {
    pub(crate) first: TimeStep,
    pub(crate) last: TimeStep,
    pub(crate) tick_ns: u32,
}

impl PackedTimes {
    /// Checks and keeps a TIMES section.
    ///
    /// # Errors
    /// `Times` for steps that break a rule, `Column` or `TooShort` for a malformed section.
    pub(crate) fn decode(section: &[u8], bounds: TimesBounds) -> Result<Self> {
        let bad = |why| FormatError::Times { why };
        let mut cursor = Cursor::new("times", section);
        let mut chunks = Vec::new();
        let mut previous: Option<TimeStep> = None;
        while cursor.remaining() > 0 {
            let offset = u32::try_from(cursor.position()).map_err(|_| bad("section exceeds 4 GiB"))?;
            let steps = take_chunk(&mut cursor, bounds.tick_ns)?;
            chunks.push((steps[0].lsn, steps[0].time, offset));
            for step in steps {
                match previous {
                    //= SPEC.md#times
                    //# T-2
                    None if step != bounds.first => {
                        return Err(bad("first step is not the header's first lsn and time"));
                    }
                    Some(before) if step.lsn <= before.lsn => return Err(bad("lsn does not ascend")),
                    Some(before) if step.time <= before.time => return Err(bad("time does not ascend")),
                    _ => previous = Some(step),
                }
            }
        }
        match previous {
            None => Err(bad("no step")),
            Some(last) if last.lsn > bounds.last.lsn => Err(bad("step lies behind the last lsn")),
            Some(last) if last.time != bounds.last.time => Err(bad("last step is not the header's last time")),
            Some(_) => Ok(Self { bytes: section.into(), chunks: chunks.into(), tick_ns: bounds.tick_ns }),
        }
    }

    /// The section, as it stands in the segment.
    pub(crate) fn section(&self) -> &[u8] {
        &self.bytes
    }

    /// Resolution in nanoseconds.
    pub fn tick_ns(&self) -> u32 {
        self.tick_ns
    }

    /// All steps in order.
    pub fn iter(&self) -> impl Iterator<Item = TimeStep> + '_ {
        self.chunks.iter().flat_map(|&(_, _, offset)| self.unpack(offset))
    }

    /// The time of `lsn`; `None` if it lies before the first step.
    pub fn time_of(&self, lsn: Lsn) -> Option<TimeNs> {
        let chunk = self.chunks.partition_point(|chunk| chunk.0 <= lsn).checked_sub(1)?;
        let steps = self.unpack(self.chunks[chunk].2);
        Some(steps[steps.partition_point(|step| step.lsn <= lsn) - 1].time)
    }

    /// The first LSN whose time is after `time`; `None` if there is none in the segment.
    pub fn first_after(&self, time: TimeNs) -> Option<Lsn> {
        let next_chunk = self.chunks.partition_point(|chunk| chunk.1 <= time);
        let within = next_chunk.checked_sub(1).and_then(|chunk| {
            self.unpack(self.chunks[chunk].2).into_iter().find(|step| step.time > time).map(|step| step.lsn)
        });
        within.or_else(|| self.chunks.get(next_chunk).map(|chunk| chunk.0))
    }

    /// Bytes held in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.chunks.len() * size_of::<(Lsn, TimeNs, u32)>()
    }

    fn unpack(&self, offset: u32) -> Vec<TimeStep> {
        let mut cursor = Cursor::new("times", &self.bytes[offset as usize..]);
        take_chunk(&mut cursor, self.tick_ns).expect("the chunk was decoded before")
    }
}

fn take_chunk(from: &mut Cursor<'_>, tick_ns: u32) -> Result<Vec<TimeStep>> {
    let bad = |why| FormatError::Times { why };
    let n = usize::from(from.u8()?) + 1;
    if n > CHUNK_ROWS_MAX {
        return Err(bad("chunk has more than 128 steps"));
    }
    let (mut lsns, mut ticks) = ([0u64; CHUNK_ROWS_MAX], [0u64; CHUNK_ROWS_MAX]);
    (lsns[0], ticks[0]) = (from.varint()?, from.varint()?);
    take_packed(from, &mut lsns[1..n])?;
    take_packed(from, &mut ticks[1..n])?;
    let (mut lsn, mut tick) = (0u64, 0u64);
    lsns[..n]
        .iter()
        .zip(&ticks)
        .map(|(&lsn_step, &tick_step)| {
            lsn = lsn.checked_add(lsn_step).ok_or(bad("lsn exceeds 64 bits"))?;
            tick = tick.checked_add(tick_step).ok_or(bad("time exceeds 64 bits"))?;
            let time = tick.checked_mul(tick_ns.into()).ok_or(bad("time exceeds 64 bits"))?;
            Ok(TimeStep { lsn: Lsn::new(lsn), time: TimeNs::new(time) })
        })
        .collect()
}
