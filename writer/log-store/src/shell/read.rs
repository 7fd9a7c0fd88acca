//! Reading a log back: recent records from memory, older ones from the device.

use super::domain::Domain;
use crate::buffer::AlignedBuffer;
use crate::core::Mark;
use crate::core::walk::{Outcome, Walk};
use crate::error::{Error, Result};
use crate::record::Record;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use tidemark_format::logstore::{LunExtent, PAGE_BYTES};
use tidemark_format::{DomainId, Lsn};

/// What a record costs in memory besides its data.
const RECORD_BYTES: u64 = size_of::<Record>() as u64;

/// The newest durable records, without a hole, and where the shipper is on the device.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    records: VecDeque<Record>,
    bytes: u64,
    /// Where the last read from the device ended.
    cursor: Option<Mark>,
}

impl Cache {
    /// Adds records that follow those that are there, and drops the oldest beyond `bytes_max`.
    pub(crate) fn push(&mut self, records: impl Iterator<Item = Record>, bytes_max: u64) {
        for record in records {
            self.bytes += record.data_bytes() + RECORD_BYTES;
            self.records.push_back(record);
        }
        while self.bytes > bytes_max {
            self.pop();
        }
    }

    /// Drops what is before `first`.
    pub(crate) fn trim(&mut self, first: Lsn) {
        while self.records.front().is_some_and(|record| record.lsn < first) {
            self.pop();
        }
        self.cursor = self.cursor.filter(|cursor| cursor.lsn >= first);
    }

    fn pop(&mut self) {
        let dropped = self.records.pop_front().expect("what has bytes has records");
        self.bytes -= dropped.data_bytes() + RECORD_BYTES;
    }

    /// Records from `from` on, if that one is there.
    fn get(&self, from: Lsn, taken: &mut Taken) -> bool {
        let Some(first) = self.records.front() else { return false };
        let Some(skip) = from.get().checked_sub(first.lsn.get()) else { return false };
        let mut records = self.records.range((skip as usize).min(self.records.len())..);
        let _ = records.try_for_each(|record| taken.add(record.clone()));
        true
    }
}

/// Records on their way to the caller.
struct Taken {
    records: Vec<Record>,
    bytes: u64,
    bytes_max: u64,
}

impl Taken {
    fn add(&mut self, record: Record) -> ControlFlow<()> {
        let bytes = self.bytes + record.data_bytes();
        if !self.records.is_empty() && bytes > self.bytes_max {
            return ControlFlow::Break(());
        }
        self.bytes = bytes;
        self.records.push(record);
        if bytes >= self.bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Domain {
    pub(crate) fn read(&self, from: Lsn, bytes_max: u64) -> Result<Vec<Record>> {
        let mut taken = Taken { records: Vec::new(), bytes: 0, bytes_max };
        let (identity, (base, extents), start, durable) = {
            let state = self.state();
            if let Some(gone @ Error::GivenUp { .. }) = &state.stopped {
                return Err(gone.clone());
            }
            let first = state.log.first_lsn();
            if from < first {
                return Err(Error::Trimmed { domain: self.id, wanted: from, first });
            }
            if from > state.log.durable() {
                // Whoever asks for what is behind damage must not take the end of the log for it.
                return match &state.stopped {
                    Some(damaged @ Error::Damaged { .. }) => Err(damaged.clone()),
                    _ => Ok(Vec::new()),
                };
            }
            if state.cache.get(from, &mut taken) {
                return Ok(taken.records);
            }
            let mark = state.log.mark_before(from);
            let start = state.cache.cursor.filter(|cursor| cursor.lsn <= from && cursor.lsn > mark.lsn).unwrap_or(mark);
            (state.identity, state.log.extents(), start, state.log.durable())
        };
        let mut walk = Walk::new(identity, self.shared.geometry.extent_pages(), (base, extents), start);
        let mut buffer = AlignedBuffer::default();
        let (mut bad, mut cursor) = (None, None);
        let outcome = loop {
            let want = match walk.want() {
                Ok(want) => want,
                Err(outcome) => break outcome,
            };
            let bytes = buffer.bytes(want.pages as usize * PAGE_BYTES as usize);
            self.shared.read(bytes, self.shared.geometry.page_at(want.extent, want.page))?;
            walk.feed(bytes, &mut |mark, head, bytes| {
                cursor = Some(*mark);
                for (descriptor, range) in head.placed().filter(|(descriptor, _)| descriptor.lsn >= from) {
                    match Record::from_batch(descriptor, &bytes[range]) {
                        Ok(record) => taken.add(record)?,
                        Err(e) => {
                            bad = Some(e);
                            return ControlFlow::Break(());
                        }
                    }
                }
                if head.last_lsn() >= durable { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        };
        let mut state = self.state();
        let first = state.log.first_lsn();
        if from < first || state.identity != identity {
            // Trimmed while this was reading: what was read may be anything.
            return Err(Error::Trimmed { domain: self.id, wanted: from, first });
        }
        if let Some(gone @ Error::GivenUp { .. }) = &state.stopped {
            return Err(gone.clone());
        }
        let (at, why) = match (outcome, bad) {
            (Outcome::Stopped, None) => {
                state.cache.cursor = cursor;
                return Ok(taken.records);
            }
            (_, Some(e)) => (cursor.unwrap_or(start), e.to_string()),
            (Outcome::Damaged { why }, None) => (walk.at(), why),
            (_, None) => (walk.at(), format!("the log ends here, and was durable through lsn {durable}")),
        };
        // What is in front of the damage is good.
        if !taken.records.is_empty() {
            return Ok(taken.records);
        }
        let (base, extents) = state.log.extents();
        Err(damage(self.id, at, (base, &extents), why))
    }
}

/// An error that names where a log is damaged.
pub(crate) fn damage(domain: DomainId, at: Mark, (base, extents): (u64, &[LunExtent]), why: String) -> Error {
    let extent = extents.get(at.place.ordinal.saturating_sub(base) as usize).copied();
    Error::Damaged { domain, lsn: at.lsn, extent, page: at.place.page, why }
}
