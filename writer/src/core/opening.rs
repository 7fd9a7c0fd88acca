//! Takes a domain over: claim, find where the log ends, CUT, look again (F1 to F4).
//!
//! A machine that asks for one request after the other and is told what came of it. The order is the point: the tail is
//! probed only once the claim is in place, so whatever a predecessor acknowledges from then on it cannot acknowledge at
//! all, and what it acknowledged before is there to be found.
//!
//! Only a proven NotFound ends a log. What lies behind its end is looked at too: a segment there that proves
//! acknowledgements beyond the end means that acknowledged writes are missing, and the domain is left as it is.
//! Not here: the requests themselves, retries, and reading ahead.

use super::ceil_to_tick;
use super::disks::DiskTable;
use super::log::Start;
use crate::error::{Error, FenceCause, Result};
use crate::options::IN_FLIGHT_SEGMENTS_LIMIT;
use tidemark_format::{
    Claim, ClaimMode, Cut, CutDraft, DomainId, Epoch, Expect, Hint, Lsn, ObjectKey, Role, SealedHead, SegmentHead,
    SegmentIdentity, SegmentKind, Seq, TICK_NS_DEFAULT, Tail, TimeNs, seal_cut,
};

/// What the machine cannot know by itself.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub(crate) domain: DomainId,
    pub(crate) owner: String,
    pub(crate) mode: ClaimMode,
    pub(crate) nonce: [u8; 16],
    pub(crate) salt: [u8; 32],
    pub(crate) wall: TimeNs,
}

/// The next request.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// GET the whole object, which is small.
    Get(ObjectKey),
    /// Create it if it is absent.
    Create(ObjectKey, Vec<u8>),
    /// GET and decode the head of a segment.
    Head(Epoch, Seq),
    /// Put the CUT.
    PutCut(ObjectKey, Vec<u8>),
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Proven absent.
    Absent,
    /// The whole object.
    Found(Vec<u8>),
    /// It was created, and is ours.
    Created,
    /// Something else was there.
    Exists,
    /// It may or may not have been created.
    Unclear,
    /// The head of the segment.
    Head(Box<SegmentHead>),
    /// The CUT is in place.
    Put,
    /// Another object is in the CUT's place.
    Collision,
}

#[derive(Clone, Debug)]
enum Step {
    Hint,
    /// Claim `probe` was asked for; `present` is the newest known, `absent` the oldest known absent.
    Search {
        present: u64,
        absent: Option<u64>,
        probe: u64,
        stride: u64,
    },
    Claim(Epoch),
    Unclear(Epoch),
    /// Does this epoch have a CUT?
    FindCut(Epoch),
    Follow,
    /// Behind the end: is anything there that should not be?
    Beyond(Seq),
    PutCut,
    Recheck,
    Done,
}

/// The log so far.
#[derive(Clone, Debug)]
struct Followed {
    tail: Option<Tail>,
    next_lsn: Lsn,
    last_time: TimeNs,
    disks: DiskTable,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Opening {
    inputs: Inputs,
    step: Step,
    epoch: Epoch,
    log: Followed,
    cut: Option<SealedHead>,
}

impl Opening {
    pub(crate) fn new(inputs: Inputs) -> Self {
        let log =
            Followed { tail: None, next_lsn: Lsn::new(1), last_time: TimeNs::default(), disks: DiskTable::default() };
        Self { inputs, step: Step::Hint, epoch: Epoch::default(), log, cut: None }
    }

    /// What to ask next; `None` once the domain is ours.
    pub(crate) fn next(&self) -> Option<Request> {
        let claim = |epoch| Request::Get(ObjectKey::writer_claim(Epoch::new(epoch)));
        Some(match &self.step {
            Step::Hint => Request::Get(ObjectKey::Hint),
            Step::Search { probe, .. } => claim(*probe),
            Step::Claim(epoch) => Request::Create(ObjectKey::writer_claim(*epoch), self.claim(*epoch).encode()),
            Step::Unclear(epoch) => claim(epoch.get()),
            Step::FindCut(epoch) => Request::Head(*epoch, Seq::new(0)),
            Step::Follow => {
                let tail = self.log.tail.expect("an epoch is followed from its CUT");
                Request::Head(tail.epoch, tail.seq.next())
            }
            Step::Beyond(seq) => Request::Head(self.log.tail.expect("a log that ends has a tail").epoch, *seq),
            Step::PutCut => {
                let cut = self.cut.as_ref().expect("it is sealed before it is put");
                Request::PutCut(ObjectKey::cut(self.epoch), cut.bytes.clone())
            }
            Step::Recheck => claim(self.epoch.get() + 1),
            Step::Done => return None,
        })
    }

    /// Takes in what came of the last request.
    pub(crate) fn answer(&mut self, answer: Answer) -> Result<()> {
        self.step = match (self.step.clone(), answer) {
            // Advisory: a bad hint is no hint.
            (Step::Hint, Answer::Found(bytes)) => {
                let hinted = Hint::decode(&bytes, self.inputs.domain).map_or(0, |hint| hint.epoch.get());
                // Confirmed by asking for it, not taken on trust.
                Step::Search { present: 0, absent: None, probe: hinted.max(1), stride: 1 }
            }
            (Step::Hint, _) => Step::Search { present: 0, absent: None, probe: 1, stride: 1 },
            (Step::Search { absent, probe, stride, .. }, Answer::Found(_)) => search(probe, absent, stride),
            (Step::Search { present, probe, stride, .. }, Answer::Absent) => search(present, Some(probe), stride),
            //= SPEC.md#commit-rules
            //# F-1
            (Step::Claim(epoch), Answer::Created) => self.claimed(epoch)?,
            (Step::Claim(epoch), Answer::Unclear) => Step::Unclear(epoch),
            (Step::Claim(epoch), Answer::Exists) => Step::Claim(epoch.next()),
            (Step::Unclear(epoch), Answer::Absent) => Step::Claim(epoch),
            (Step::Unclear(epoch), Answer::Found(bytes)) => {
                let key = ObjectKey::writer_claim(epoch);
                let claim = Claim::decode(&bytes, &Expect { domain: self.inputs.domain, key });
                // A claim that cannot be read is burnt, whoever's it is.
                let ours = claim.is_ok_and(|claim| claim.nonce == self.inputs.nonce);
                if ours { self.claimed(epoch)? } else { Step::Claim(epoch.next()) }
            }
            (Step::FindCut(epoch), Answer::Absent) => self.find_cut_below(epoch)?,
            (Step::FindCut(_), Answer::Head(head)) => self.begin(*head)?,
            (Step::Follow, Answer::Absent) => self.beyond(1),
            (Step::Follow, Answer::Head(head)) => self.follow(*head)?,
            (Step::Beyond(_), Answer::Absent) => self.look_further()?,
            (Step::Beyond(_), Answer::Head(head)) => {
                self.refuse_proof(&head)?;
                self.look_further()?
            }
            (Step::PutCut, Answer::Put) => Step::Recheck,
            (Step::PutCut, Answer::Collision) => return Err(self.fenced(FenceCause::EpochCollision)),
            //= SPEC.md#commit-rules
            //# F-4
            (Step::Recheck, Answer::Absent) => Step::Done,
            (Step::Recheck, Answer::Found(_)) => return Err(self.fenced(FenceCause::NewerClaim)),
            (step, answer) => unreachable!("{answer:?} is no answer to {step:?}"),
        };
        Ok(())
    }

    /// Where the new epoch begins; `None` until the domain is ours.
    pub(crate) fn start(self) -> Option<Start> {
        let Step::Done = self.step else { return None };
        let Followed { tail: predecessor, next_lsn, last_time, disks } = self.log;
        let (epoch, header_hash, tick_ns) = (self.epoch, self.cut?.header_hash, TICK_NS_DEFAULT);
        Some(Start { epoch, next_lsn, last_time, tick_ns, header_hash, predecessor, disks })
    }

    fn claim(&self, epoch: Epoch) -> Claim {
        let Inputs { domain, owner, mode, nonce, wall, .. } = self.inputs.clone();
        Claim { domain, role: Role::Writer, epoch, nonce, mode, owner, time: wall }
    }

    fn claimed(&mut self, epoch: Epoch) -> Result<Step> {
        self.epoch = epoch;
        self.find_cut_below(epoch)
    }

    /// Claims below may have been abandoned before their CUT; epoch 1 has nothing below it.
    fn find_cut_below(&mut self, epoch: Epoch) -> Result<Step> {
        match epoch.get() {
            0 | 1 => self.seal(),
            //= SPEC.md#commit-rules
            //# F-2
            n => Ok(Step::FindCut(Epoch::new(n - 1))),
        }
    }

    fn fenced(&self, cause: FenceCause) -> Error {
        Error::Fenced { epoch: self.epoch, cause }
    }

    /// The predecessor's CUT says how its epoch began.
    fn begin(&mut self, head: SegmentHead) -> Result<Step> {
        let key = head.header.identity.key();
        let Some(cut) = head.cut else {
            return Err(Error::Chain { key, why: "an epoch does not begin with a CUT" });
        };
        let Cut { next_lsn, disks, .. } = cut;
        self.log = Followed {
            tail: Some(Tail {
                epoch: head.header.identity.epoch,
                seq: Seq::new(0),
                header_hash: head.header.header_hash,
            }),
            next_lsn,
            last_time: head.header.last_time,
            disks: DiskTable::new(disks),
        };
        Ok(Step::Follow)
    }

    /// One more segment, if it continues the log.
    fn follow(&mut self, head: SegmentHead) -> Result<Step> {
        let header = &head.header;
        let key = header.identity.key();
        let tail = self.log.tail.as_mut().expect("an epoch is followed from its CUT");
        if header.prev_header_hash != tail.header_hash {
            // What a cloned writer put behind a segment that lost against its twin's. It was never acknowledged, unless
            // it says otherwise.
            self.refuse_proof(&head)?;
            return Ok(self.beyond(2));
        }
        //= SPEC.md#order
        //# O-3
        if header.first_lsn != self.log.next_lsn {
            return Err(Error::Chain { key, why: "its first lsn is not the next one" });
        }
        for event in &head.events {
            self.log.disks.apply(event).map_err(|source| Error::Format { key, source })?;
        }
        tail.seq = header.identity.seq;
        tail.header_hash = header.header_hash;
        self.log.next_lsn = header.last_lsn.next();
        self.log.last_time = header.last_time;
        Ok(Step::Follow)
    }

    fn beyond(&self, ahead: u64) -> Step {
        let tail = self.log.tail.expect("a log that ends has a tail");
        Step::Beyond(Seq::new(tail.seq.get() + ahead))
    }

    /// Behind a hole lies nothing that was acknowledged, or the hole is a loss.
    fn refuse_proof(&self, head: &SegmentHead) -> Result<()> {
        let (acked_through, tail) = (head.header.acked_through, Lsn::new(self.log.next_lsn.get() - 1));
        if acked_through > tail {
            return Err(Error::AckedLost { key: head.header.identity.key(), acked_through, tail });
        }
        Ok(())
    }

    fn look_further(&mut self) -> Result<Step> {
        let Step::Beyond(seq) = self.step else { unreachable!("only called behind the end") };
        let tail = self.log.tail.expect("a log that ends has a tail");
        if seq.get() < tail.seq.get() + u64::from(IN_FLIGHT_SEGMENTS_LIMIT) {
            return Ok(Step::Beyond(seq.next()));
        }
        self.seal()
    }

    /// The log's end is known: say so.
    fn seal(&mut self) -> Result<Step> {
        // Not the wall clock's: an import may go on with times of the past, and time does not go back.
        self.log.last_time = ceil_to_tick(self.log.last_time, TICK_NS_DEFAULT);
        let time = self.log.last_time;
        let cut = Cut {
            predecessor: self.log.tail,
            next_lsn: self.log.next_lsn,
            claim_nonce: self.inputs.nonce,
            disks: self.log.disks.states().to_vec(),
        };
        let identity = SegmentIdentity {
            domain: self.inputs.domain,
            kind: SegmentKind::Cut,
            role: Role::Writer,
            epoch: self.epoch,
            seq: Seq::new(0),
        };
        let draft = CutDraft { identity, cut: &cut, time, tick_ns: TICK_NS_DEFAULT, salt: self.inputs.salt };
        let key = ObjectKey::cut(self.epoch);
        self.cut = Some(seal_cut(&draft).map_err(|source| Error::Seal { key, source })?);
        //= SPEC.md#commit-rules
        //# F-3
        Ok(Step::PutCut)
    }
}

/// Claims are dense and never deleted: double the stride until one is absent, then halve the gap.
fn search(present: u64, absent: Option<u64>, stride: u64) -> Step {
    match absent {
        Some(absent) if absent == present + 1 => Step::Claim(Epoch::new(absent)),
        Some(absent) => Step::Search { present, absent: Some(absent), probe: present + (absent - present) / 2, stride },
        None => {
            Step::Search { present, absent, probe: present.saturating_add(stride), stride: stride.saturating_mul(2) }
        }
    }
}
