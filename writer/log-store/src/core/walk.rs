//! Follows a log from batch to batch over bytes that somebody else reads, and says where it ends and whether it may end
//! there.
//!
//! A batch is accepted if it belongs to this log, is the one whose turn it is, continues the chain and is whole. Where
//! there is no such batch, it may have gone to the next extent because it did not fit. If it is not there either, the
//! log ends, or is damaged: it is damaged if a batch of a higher number lies further on, as there is only ever one in
//! flight. Batches of earlier laps have lower numbers, those of earlier lives other names.
//! Not here: reading, and comparing the end with what the table says.

use super::{Mark, Place};
use crate::rules::{Rule, kept};
use std::ops::ControlFlow;
use tidemark_format::logstore::{BatchHead, BatchIdentity, LunExtent, PAGE_BYTES, Preamble};

/// Pages that are asked for at once, where the extent has as many.
const READ_PAGES: u32 = 128;

/// Pages that the walk needs to see next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) extent: LunExtent,
    pub(crate) page: u32,
    pub(crate) pages: u32,
}

/// How the walk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No more batches: the log ends before the mark that [`Walk::at`] returns.
    Ended,
    /// The log goes on behind something at the mark that cannot be read.
    Damaged { why: String },
    /// Whoever takes the batches wants no more.
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    /// Batch after batch.
    Follow,
    /// The batch whose turn it is was not at `at`; perhaps it is at the front of the next extent.
    Leap {
        why: String,
    },
    /// It was not; looking for proof that something is missing.
    Scan {
        from: Place,
        why: String,
    },
    Done(Outcome),
}

/// A walk.
#[derive(Debug)]
pub(crate) struct Walk {
    identity: BatchIdentity,
    extent_pages: u32,
    /// Ordinal of the first of `extents`.
    base: u64,
    extents: Vec<LunExtent>,
    at: Mark,
    /// Pages that must be seen at once because a batch has as many.
    need: u32,
    mode: Mode,
}

/// What is at a place.
enum Found {
    Batch(BatchHead),
    /// It has so many pages.
    Longer(u32),
    Nothing(String),
}

impl Walk {
    /// A walk from `at` over `extents`, the first of which has the ordinal `base`.
    pub(crate) fn new(
        identity: BatchIdentity,
        extent_pages: u32,
        (base, extents): (u64, Vec<LunExtent>),
        at: Mark,
    ) -> Self {
        Self { identity, extent_pages, base, extents, at, need: 1, mode: Mode::Follow }
    }

    /// Behind the last batch that was accepted.
    pub(crate) fn at(&self) -> Mark {
        self.at
    }

    /// What to read next, or how it ended.
    pub(crate) fn want(&mut self) -> Result<Want, Outcome> {
        loop {
            let place = match &self.mode {
                Mode::Done(outcome) => return Err(outcome.clone()),
                Mode::Follow => self.at.place,
                Mode::Leap { .. } => Place { ordinal: self.at.place.ordinal + 1, page: 0 },
                Mode::Scan { from, .. } => *from,
            };
            if place.page < self.extent_pages
                && let Some(extent) = self.extent(place.ordinal)
            {
                let pages = READ_PAGES.max(self.need).min(self.extent_pages - place.page);
                return Ok(Want { extent, page: place.page, pages });
            }
            self.mode = match std::mem::replace(&mut self.mode, Mode::Follow) {
                Mode::Follow => Mode::Leap { why: "the extent is full".to_owned() },
                Mode::Leap { why } => self.scan(why),
                Mode::Scan { from, why } if from.ordinal < self.base + self.extents.len() as u64 => {
                    Mode::Scan { from: Place { ordinal: from.ordinal + 1, page: 0 }, why }
                }
                Mode::Scan { .. } => Mode::Done(Outcome::Ended),
                Mode::Done(outcome) => Mode::Done(outcome),
            };
        }
    }

    /// Takes in what [`Self::want`] asked for. Each batch goes to `take`, with the mark where it begins and its bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8], take: &mut impl FnMut(&Mark, &BatchHead, &[u8]) -> ControlFlow<()>) {
        match std::mem::replace(&mut self.mode, Mode::Follow) {
            Mode::Follow => self.follow(bytes, take),
            Mode::Leap { why } => self.leap(bytes, take, why),
            Mode::Scan { from, why } => self.look_for_proof(bytes, from, why),
            Mode::Done(outcome) => self.mode = Mode::Done(outcome),
        }
    }

    fn extent(&self, ordinal: u64) -> Option<LunExtent> {
        self.extents.get(usize::try_from(ordinal.checked_sub(self.base)?).ok()?).copied()
    }

    fn follow(&mut self, bytes: &[u8], take: &mut impl FnMut(&Mark, &BatchHead, &[u8]) -> ControlFlow<()>) {
        let mut rest = bytes;
        while rest.len() >= PAGE_BYTES as usize {
            match self.look(rest, self.extent_pages - self.at.place.page) {
                Found::Batch(head) => {
                    let len = head.preamble.batch_bytes() as usize;
                    if self.accept(&head, &rest[..len], take).is_break() {
                        return;
                    }
                    rest = &rest[len..];
                }
                Found::Longer(pages) => {
                    self.need = pages;
                    return;
                }
                Found::Nothing(why) => {
                    self.mode = Mode::Leap { why };
                    self.need = 1;
                    return;
                }
            }
        }
    }

    fn leap(&mut self, bytes: &[u8], take: &mut impl FnMut(&Mark, &BatchHead, &[u8]) -> ControlFlow<()>, why: String) {
        match self.look(bytes, self.extent_pages) {
            Found::Batch(_) => {
                self.at.place = Place { ordinal: self.at.place.ordinal + 1, page: 0 };
                self.follow(bytes, take);
            }
            Found::Longer(pages) => {
                self.need = pages;
                self.mode = Mode::Leap { why };
            }
            Found::Nothing(_) => self.mode = self.scan(why),
        }
    }

    fn scan(&mut self, why: String) -> Mode {
        self.need = 1;
        Mode::Scan { from: Place { page: self.at.place.page.saturating_add(1), ..self.at.place }, why }
    }

    //= LOGSTORE.md#recovery
    //# LX-2
    fn look_for_proof(&mut self, bytes: &[u8], from: Place, why: String) {
        for (page, bytes) in (from.page..).zip(bytes.chunks_exact(PAGE_BYTES as usize)) {
            let Ok(preamble) = Preamble::decode(bytes) else { continue };
            let later = preamble.identity == self.identity && preamble.chain.seq > self.at.seq;
            if later && kept(Rule::NoEndBeforeLater) {
                let extent = self.extent(from.ordinal).expect("what was read was wanted");
                let (seq, later) = (self.at.seq, preamble.chain.seq);
                let why =
                    format!("batch {seq}: {why}; batch {later} at extent {extent} page {page} proves it was there");
                self.mode = Mode::Done(Outcome::Damaged { why });
                return;
            }
        }
        let page = from.page + (bytes.len() as u64 / PAGE_BYTES) as u32;
        self.mode = Mode::Scan { from: Place { page, ..from }, why };
    }

    fn accept(
        &mut self,
        head: &BatchHead,
        bytes: &[u8],
        take: &mut impl FnMut(&Mark, &BatchHead, &[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let begins = self.at;
        self.need = 1;
        self.at = Mark {
            place: Place { page: begins.place.page + (bytes.len() as u64 / PAGE_BYTES) as u32, ..begins.place },
            seq: begins.seq.next(),
            lsn: head.last_lsn().next(),
            prev_crc: head.preamble.head_crc,
            time: head.last_time(),
        };
        let flow = take(&begins, head, bytes);
        if flow.is_break() {
            self.mode = Mode::Done(Outcome::Stopped);
        }
        flow
    }

    /// Whether the batch whose turn it is begins here, with at most `left` pages.
    //= LOGSTORE.md#recovery
    //# LX-1
    fn look(&self, bytes: &[u8], left: u32) -> Found {
        let preamble = match Preamble::decode(bytes) {
            Ok(preamble) => preamble,
            Err(e) => return Found::Nothing(e.to_string()),
        };
        let Mark { seq, lsn, prev_crc, time, .. } = self.at;
        //= LOGSTORE.md#batches
        //# LB-4
        let mut identity = preamble.identity;
        if !kept(Rule::PresentLife) {
            identity.incarnation = self.identity.incarnation;
        }
        if identity != self.identity {
            return Found::Nothing("a batch of another log, or of an earlier life of this one".to_owned());
        }
        let chain = preamble.chain;
        let continues = (chain.seq, chain.first_lsn, chain.prev_crc) == (seq, lsn, prev_crc);
        if !continues && kept(Rule::ChainContinues) {
            return Found::Nothing(format!("found batch {} that begins at lsn {}", chain.seq, chain.first_lsn));
        }
        let bytes_long = preamble.batch_bytes();
        if bytes_long > u64::from(left) * PAGE_BYTES {
            return Found::Nothing(format!("a batch of {bytes_long} bytes does not fit into its extent"));
        }
        let Some(bytes) = bytes.get(..bytes_long as usize) else {
            return Found::Longer((bytes_long / PAGE_BYTES) as u32);
        };
        let head = match BatchHead::decode(bytes) {
            Ok(head) => head,
            Err(e) => return Found::Nothing(e.to_string()),
        };
        if let Err(e) = head.check_data(bytes)
            && kept(Rule::DataChecked)
        {
            return Found::Nothing(e.to_string());
        }
        match head.records.first() {
            Some(first) if first.time < time => Found::Nothing("time goes back from one batch to the next".to_owned()),
            _ => Found::Batch(head),
        }
    }
}
