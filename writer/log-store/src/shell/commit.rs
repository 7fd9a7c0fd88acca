//! The thread of one log: writes batch after batch, each made of what came in while the last one was written.

use super::domain::{Answer, Domain};
use super::lock;
use crate::buffer::AlignedBuffer;
use crate::core::log::{Batch, Next, Unit};
use crate::error::{Error, Result};
use crate::rules::{Rule, kept};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use tidemark_format::logstore::{
    BATCH_HEADER_BYTES, BatchIdentity, PAGE_BYTES, RECORD_DESCRIPTOR_BYTES, put_batch_head,
};

/// Memory that a log's thread keeps between batches; a larger batch gets its own.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// Whether a step found something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Worked,
    Idle,
}

/// Starts the thread of a log. It ends when the log is closing and everything queued is answered.
pub(crate) fn spawn(domain: Arc<Domain>) -> Result<JoinHandle<()>> {
    let name = format!("log {}", &domain.id.to_string()[..8]);
    let started = std::thread::Builder::new().name(name).spawn(move || {
        let work = AssertUnwindSafe(|| run(&domain));
        if std::panic::catch_unwind(work).is_err() {
            domain.fail(Error::Bug { domain: domain.id });
        }
    });
    started.map_err(|e| Error::Open { what: "start a thread for", device: "the log".to_owned(), source: Arc::new(e) })
}

fn run(domain: &Domain) {
    let mut buffer = AlignedBuffer::default();
    loop {
        while domain.step(&mut buffer) == Step::Worked {}
        let mut state = domain.state();
        while state.log.is_idle() || state.stopped.is_some() {
            if state.closing {
                return;
            }
            state = domain.wake.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

impl Domain {
    /// Writes one batch, or takes one extent, if there is need.
    pub(crate) fn step(&self, buffer: &mut AlignedBuffer) -> Step {
        let (next, identity) = {
            let mut state = self.state();
            if state.stopped.is_some() {
                return Step::Idle;
            }
            (state.log.poll(), state.identity)
        };
        match next {
            Next::Idle => return Step::Idle,
            Next::Allocate => self.allocate(),
            Next::Write(batch) => self.commit(batch, &identity, buffer),
        }
        Step::Worked
    }

    /// Takes an extent that was set aside for this log.
    fn allocate(&self) {
        let extent = lock(&self.shared.space).take(self.id);
        //= LOGSTORE.md#space
        //# LS-1
        let known = self.shared.update_entry(self.id, |entry| {
            if kept(Rule::KnownBeforeUse) {
                entry.extents.push(extent);
            }
            Ok(())
        });
        match known {
            Ok(()) => {
                self.state().log.extent_added(extent);
                self.wake.notify_all();
            }
            Err(e) => {
                self.fail(self.poisoned(e));
                self.abandon();
            }
        }
    }

    fn poisoned(&self, source: Error) -> Error {
        Error::Poisoned { domain: self.id, source: Arc::new(source) }
    }

    fn commit(&self, batch: Batch<Answer>, identity: &BatchIdentity, buffer: &mut AlignedBuffer) {
        let bytes = buffer.bytes(batch.pages as usize * PAGE_BYTES as usize);
        let head_crc = encode(bytes, identity, &batch);
        let written = self.shared.write(bytes, self.shared.geometry.page_at(batch.extent, batch.page));
        let written = match written {
            Err(_) if !kept(Rule::NothingAfterFailure) => {
                self.shared.write(bytes, self.shared.geometry.page_at(batch.extent, batch.page))
            }
            written => written,
        };
        buffer.shrink_to(BUFFER_BYTES_KEPT);
        match written {
            //= LOGSTORE.md#appending
            //# LA-4
            Ok(()) => self.committed(batch.units, head_crc),
            //= LOGSTORE.md#appending
            //# LA-2
            Err(e) => {
                let why = self.poisoned(e);
                self.fail(why.clone());
                self.abandon();
                for unit in batch.units {
                    let _ = unit.answer.send(Err(why.clone()));
                }
            }
        }
    }

    /// A batch is durable: whoever waits for it is told, and it is kept for the shipper.
    fn committed(&self, units: Vec<Unit<Answer>>, head_crc: u32) {
        let data_bytes = units.iter().map(|unit| unit.data_bytes).sum();
        let mut answers = Vec::with_capacity(units.len());
        let mut state = self.state();
        //= LOGSTORE.md#appending
        //# LA-3
        if let Some(stopped) = state.stopped.clone() {
            state.log.abandoned();
            drop(state);
            self.wake.notify_all();
            for unit in units {
                let _ = unit.answer.send(Err(stopped.clone()));
            }
            return;
        }
        state.log.committed(head_crc, data_bytes, &mut lock(&self.shared.space));
        let durable = state.log.durable();
        self.watermark.store(durable.get(), Ordering::Release);
        let share = self.shared.cache_share_bytes();
        for Unit { records, answer, .. } in units {
            let last = records.last().expect("a unit has a record").record.lsn;
            answers.push((answer, last));
            state.cache.push(records.into_iter().map(|prepared| prepared.record), share);
        }
        drop(state);
        self.durable.send_replace(durable);
        for (answer, last) in answers {
            let _ = answer.send(Ok(last));
        }
        // Whoever begins the log anew waits for the batch in flight.
        self.wake.notify_all();
    }

    /// What was under way failed.
    fn abandon(&self) {
        self.state().log.abandoned();
        self.wake.notify_all();
    }
}

/// Lays a batch out in `bytes`, all of them, and returns its chain value.
fn encode(bytes: &mut [u8], identity: &BatchIdentity, batch: &Batch<Answer>) -> u32 {
    let records = || batch.units.iter().flat_map(|unit| &unit.records);
    let crc = put_batch_head(bytes, identity, &batch.chain, records().map(|prepared| prepared.descriptor));
    let mut at = BATCH_HEADER_BYTES + records().count() * RECORD_DESCRIPTOR_BYTES;
    for prepared in records() {
        bytes[at..at + prepared.data.len()].copy_from_slice(&prepared.data);
        at += prepared.data.len();
    }
    bytes[at..].fill(0);
    crc
}
