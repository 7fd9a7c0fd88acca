//! Judges all objects together: claims, the chain of CUTs and segments, the table of disks, base objects.
//!
//! Unlike the reader's walk it goes on past whatever is missing or damaged, and says which LSNs are lost by it.

use super::index::{Known, NamedRoots, Truth};
use super::object::{Checked, Head};
use super::{Damage, DamagedBlocks, Found, VerifyReport};
use crate::core::disks::Disks;
use std::collections::{BTreeMap, BTreeSet};
use tidemark_format::{Claim, Epoch, Event, Hint, Ledger, Lsn, ObjectKey, Role, Seq, Tail};

/// Missing claims that are reported one by one in front of one that is there.
const MISSING_CLAIMS_MAX: usize = 16;

/// All that is known of the objects of a domain.
#[derive(Debug, Default)]
pub(super) struct Findings {
    claims: BTreeMap<(Role, Epoch), Option<Claim>>,
    /// Log segments and CUTs; `None` if not even the header can be read.
    log: BTreeMap<(Epoch, Seq), Option<Head>>,
    bases: BTreeMap<ObjectKey, Option<Head>>,
    /// By epoch; or why it cannot be read.
    ledgers: BTreeMap<Epoch, Result<Ledger, String>>,
    hint: Option<Hint>,
    named: NamedRoots,
    /// The segments of the history that can be read, as they are met.
    segments: Vec<Known>,
}

/// What stands for the older part of the history.
enum Past {
    /// Its own log.
    Whole,
    Ledger(Ledger),
    /// A ledger that cannot be read. Older ones name what may be gone, so there is no other.
    Unknown,
}

/// Where the chain stands.
#[derive(Default)]
struct Place {
    /// Hash that the next header must name, and LSN at which it must begin; `None` after damage.
    expected: Option<([u8; 32], Lsn)>,
    last: Lsn,
    time: u64,
    disks: Disks,
    /// Events were lost, so what follows from them cannot be checked.
    events_lost: bool,
}

impl Findings {
    /// Takes in one object.
    pub(super) fn take(&mut self, key: ObjectKey, found: Found, report: &mut VerifyReport) {
        let damage = |report: &mut VerifyReport, what: String| {
            report.damage.push(Damage::of(key, what));
        };
        match (key, found) {
            (ObjectKey::Claim { role, epoch }, Found::Claim(claim)) => {
                self.claims.insert((role, epoch), Some(claim));
            }
            (ObjectKey::Claim { role, epoch }, Found::Damaged(what)) => {
                self.claims.insert((role, epoch), None);
                damage(report, what);
            }
            (ObjectKey::Ledger { epoch }, Found::Damaged(what)) => {
                self.ledgers.insert(epoch, Err(what));
            }
            (_, Found::Ledger(ledger)) => drop(self.ledgers.insert(ledger.epoch, Ok(*ledger))),
            (_, Found::Damaged(what)) => damage(report, what),
            (_, Found::Gone) => damage(report, "the store lists it but does not have it".into()),
            (_, Found::Segment(checked)) => {
                let Checked { head, frames, frames_skipped, rows, problems, .. } = *checked;
                report.frames += frames;
                report.frames_skipped += frames_skipped;
                report.rows += rows;
                report.events += head.as_ref().map_or(0, |h| h.events.len() as u64);
                let lsns = head.as_ref().and_then(lsns_of);
                for problem in problems {
                    let (what, blocks) = (problem.what, problem.blocks);
                    report.damage.push(Damage { object: key.to_string(), what, lsns, blocks });
                }
                match key {
                    ObjectKey::Log { epoch, seq } => drop(self.log.insert((epoch, seq), head)),
                    _ => drop(self.bases.insert(key, head)),
                }
            }
            (_, Found::Hint(hint)) => self.hint = Some(hint),
            (_, Found::Pin(pin)) => self.named.pins.push(pin),
            (_, Found::RootCopy(key)) => self.named.copied = Some(key),
            (_, Found::Other) => report.unreferenced.push(key.to_string()),
            (_, Found::Claim(_) | Found::Derived | Found::Advisory) => {}
        }
    }

    /// Judges them all. What the index has to agree with is left, and what names roots.
    pub(super) fn judge(mut self, report: &mut VerifyReport) -> (Truth, NamedRoots) {
        self.judge_claims(Role::Writer, report);
        self.judge_claims(Role::Maintenance, report);
        let mut place = Place::default();
        let past = self.newest_ledger(report);
        match &past {
            Past::Whole => {}
            Past::Ledger(ledger) => self.judge_ledger(ledger, &mut place, report),
            Past::Unknown => place.events_lost = true,
        }
        let chain = self.chain(&past, report);
        for (i, (epoch, tail)) in chain.iter().enumerate() {
            let newest = i + 1 == chain.len();
            let is_first = i == 0 && matches!(past, Past::Whole);
            self.judge_cut(*epoch, is_first, &mut place, report);
            let last = match tail {
                Some(tail) => tail.seq,
                None => self.open_end(*epoch, newest, place.expected.map(|(hash, _)| hash)),
            };
            self.judge_epoch(*epoch, last, &mut place, report);
            if newest {
                self.judge_tail(*epoch, last, &place, report);
                self.judge_hint(*epoch, last, report);
            }
        }
        if place.last > Lsn::ZERO {
            report.lsns = Some((Lsn::new(1), place.last));
        }
        let ledger = match past {
            Past::Ledger(ledger) => Some(ledger),
            Past::Whole => None,
            // Nobody can say what belonged to it.
            Past::Unknown => {
                self.log.clear();
                self.bases.clear();
                None
            }
        };
        self.judge_bases(&place, report);
        // What has not been taken out by now belongs to no chain.
        report
            .unreferenced
            .extend(self.log.keys().map(|(epoch, seq)| ObjectKey::Log { epoch: *epoch, seq: *seq }.to_string()));
        report.unreferenced.extend(self.bases.keys().map(ObjectKey::to_string));
        (Truth { segments: self.segments, ledger, last: place.last }, self.named)
    }

    /// The ledger that counts.
    fn newest_ledger(&mut self, report: &mut VerifyReport) -> Past {
        let Some((epoch, newest)) = self.ledgers.pop_last() else { return Past::Whole };
        let older = std::mem::take(&mut self.ledgers).into_keys().map(|epoch| ObjectKey::Ledger { epoch });
        report.unreferenced.extend(older.map(|key| key.to_string()));
        newest.map_or_else(
            |what| {
                report.damage.push(Damage::of(ObjectKey::Ledger { epoch }, what));
                Past::Unknown
            },
            Past::Ledger,
        )
    }

    /// Judges the part of the history that a ledger describes.
    fn judge_ledger(&mut self, ledger: &Ledger, place: &mut Place, report: &mut VerifyReport) {
        for part in &ledger.parts {
            // A part may follow one that is gone: its first object names a header that nobody has.
            place.expected = None;
            let mut found_hash = None;
            for key in part.keys() {
                let head = match key {
                    ObjectKey::Log { epoch, seq } => self.log.remove(&(epoch, seq)),
                    _ => self.bases.remove(&key),
                };
                let lost = place.last.checked_next().map(|first| (first, part.last_lsn));
                match head {
                    Some(Some(head)) => {
                        if head.header.identity.kind != part.kind {
                            let what = "the ledger knows it as a segment of another kind".to_owned();
                            report.damage.push(Damage { object: key.to_string(), what, lsns: lost, blocks: vec![] });
                        }
                        if place.last.checked_next() != Some(head.header.first_lsn) {
                            let what = format!("it begins at lsn {}, the ledger says otherwise", head.header.first_lsn);
                            report.damage.push(Damage { object: key.to_string(), what, lsns: lost, blocks: vec![] });
                        }
                        self.judge_link(key, &head, place, report);
                        found_hash = Some((head.header.header_hash, head.header.last_lsn));
                        self.segments.push(Known { key, head });
                    }
                    found => {
                        if found.is_none() {
                            report.damage.push(missing(key, "the ledger names it", lost));
                        } else if let Some(damage) = report.damage.iter_mut().find(|d| d.object == key.to_string()) {
                            damage.lsns = damage.lsns.or(lost);
                        }
                        (place.expected, place.events_lost, found_hash) = (None, true, None);
                    }
                }
            }
            if found_hash.is_some_and(|(found, _)| found != part.header_hash) {
                report.damage.push(Damage::of(part.last_key(), "the ledger knows it by another header hash"));
            }
            if let Some((_, last)) = found_hash.filter(|(_, last)| *last != part.last_lsn) {
                let what = format!("it ends at lsn {last}, the ledger says lsn {}", part.last_lsn);
                report.damage.push(Damage::of(part.last_key(), what));
            }
            place.last = part.last_lsn;
        }
        let through = &ledger.through;
        place.expected = through.lsn.checked_next().map(|next| (through.header_hash, next));
        // Segments of epochs that are closed and that the ledger does not name are waiting to be deleted.
    }

    fn judge_claims(&self, role: Role, report: &mut VerifyReport) {
        let mut epochs: BTreeSet<u64> = match role {
            Role::Writer => self.log.keys().map(|(epoch, _)| epoch.get()).collect(),
            Role::Maintenance => self.ledgers.keys().map(|epoch| epoch.get()).collect(),
        };
        epochs.extend(self.claims.keys().filter(|(of, _)| *of == role).map(|(_, epoch)| epoch.get()));
        let mut next = 1;
        for epoch in epochs {
            let claimed = self.claims.contains_key(&(role, Epoch::new(epoch)));
            // A wrong number can be far away; the first few that lack say enough.
            for number in (next..epoch).take(MISSING_CLAIMS_MAX).chain((!claimed).then_some(epoch)) {
                let key = ObjectKey::Claim { role, epoch: Epoch::new(number) };
                report.damage.push(missing(
                    key,
                    "claims are never deleted, and this epoch or a later one exists",
                    None,
                ));
            }
            next = epoch.saturating_add(1);
        }
    }

    /// The epochs of the log, oldest first, each with the tail that its successor names; `None` for the newest, and where
    /// a damaged CUT hides it.
    fn chain(&self, past: &Past, report: &mut VerifyReport) -> Vec<(Epoch, Option<Tail>)> {
        let mut chain = Vec::new();
        // Nothing of an epoch is written in front of its CUT, so the newest epoch with any object must have one.
        let Some(mut epoch) = self.log.keys().map(|(epoch, _)| *epoch).max() else { return chain };
        let mut tail = None;
        // What a ledger covers has been judged by it.
        let covered = match past {
            Past::Whole => Epoch::new(0),
            Past::Ledger(ledger) => ledger.through.epoch,
            // At most all that a CUT has closed.
            Past::Unknown => self.log.keys().map(|(e, _)| *e).filter(|e| *e < epoch).max().unwrap_or_default(),
        };
        while epoch > covered {
            chain.push((epoch, tail));
            let cut = self.log.get(&(epoch, Seq::new(0))).and_then(Option::as_ref).and_then(|head| head.cut.as_ref());
            match cut.map(|cut| cut.predecessor) {
                Some(None) if !matches!(past, Past::Whole) => {
                    let what = "it continues nothing, though a ledger describes what came before".to_owned();
                    let object = ObjectKey::cut(epoch).to_string();
                    report.damage.push(Damage { object, what, lsns: None, blocks: Vec::new() });
                    break;
                }
                Some(None) => break,
                Some(Some(named)) => {
                    if named.epoch >= epoch {
                        break;
                    }
                    (epoch, tail) = (named.epoch, Some(named));
                }
                // The CUT is lost. The next older epoch with objects is the best guess, and it is only a guess.
                None => {
                    let key = ObjectKey::cut(epoch);
                    if !self.log.contains_key(&(epoch, Seq::new(0))) {
                        report.damage.push(missing(key, "the log needs it", None));
                    }
                    let older = self.log.keys().map(|(e, _)| *e).filter(|e| *e < epoch).max();
                    let Some(older) = older else { break };
                    (epoch, tail) = (older, None);
                }
            }
        }
        chain.reverse();
        chain
    }

    fn judge_cut(&mut self, epoch: Epoch, is_first: bool, place: &mut Place, report: &mut VerifyReport) {
        let key = ObjectKey::cut(epoch);
        let Some(head) = self.log.remove(&(epoch, Seq::new(0))).flatten() else {
            (place.expected, place.events_lost) = (None, true);
            return;
        };
        let mut damage =
            |what: String| report.damage.push(Damage { object: key.to_string(), what, lsns: None, blocks: vec![] });
        let Some(cut) = head.cut else {
            place.expected = None;
            return;
        };
        match (place.expected, cut.predecessor) {
            (Some((hash, _)), Some(tail)) if hash != tail.header_hash => {
                damage("it names another header hash than its predecessor's tail has".into());
            }
            (Some((_, next)), _) if next != cut.next_lsn => {
                damage(format!("it continues at lsn {}, its predecessor ends before lsn {next}", cut.next_lsn));
            }
            _ => {}
        }
        if is_first && cut.next_lsn != Lsn::new(1) && cut.predecessor.is_none() {
            damage(format!("the first epoch begins at lsn {}, not 1", cut.next_lsn));
        }
        if let Some(Some(claim)) = self.claims.get(&(Role::Writer, epoch))
            && claim.nonce != cut.claim_nonce
        {
            damage("it was made under another claim of its epoch".into());
        }
        if !place.events_lost && place.disks.table != cut.disks {
            damage("its table of disks is not what the events before it say".into());
        }
        if place.events_lost {
            // From here on the table is known again, seeds that were lost are not.
            place.disks.table.clone_from(&cut.disks);
        }
        place.expected = Some((head.header.header_hash, cut.next_lsn));
        place.last = place.last.max(Lsn::new(cut.next_lsn.get().saturating_sub(1)));
        place.time = place.time.max(head.header.last_time.get());
    }

    /// Where an epoch ends that no CUT closes: in front of the first segment that is absent or, as after a collision of
    /// clones, does not continue the one before it. If its successor's CUT is lost: at the last segment that there is.
    fn open_end(&self, epoch: Epoch, newest: bool, cut_hash: Option<[u8; 32]>) -> Seq {
        let segments = || self.log.range((epoch, Seq::new(1))..=(epoch, Seq::new(u64::MAX)));
        if !newest {
            return segments().next_back().map_or(Seq::new(0), |((_, seq), _)| *seq);
        }
        let (mut last, mut hash) = (0, cut_hash);
        for ((_, seq), head) in segments() {
            let links = head.as_ref().is_none_or(|head| hash.is_none_or(|hash| head.header.prev_header_hash == hash));
            if seq.get() != last + 1 || !links {
                break;
            }
            last = seq.get();
            hash = head.as_ref().map(|head| head.header.header_hash);
        }
        Seq::new(last)
    }

    fn judge_epoch(&mut self, epoch: Epoch, last: Seq, place: &mut Place, report: &mut VerifyReport) {
        for number in 1..=last.get() {
            let seq = Seq::new(number);
            let key = ObjectKey::Log { epoch, seq };
            match self.log.remove(&(epoch, seq)) {
                Some(Some(head)) => {
                    self.judge_link(key, &head, place, report);
                    self.segments.push(Known { key, head });
                }
                found => {
                    let lost = self.lost_lsns(epoch, seq, last, place.last);
                    if found.is_none() {
                        report.damage.push(missing(key, "the log names later objects", lost));
                    } else if let Some(damage) = report.damage.iter_mut().find(|d| d.object == key.to_string()) {
                        damage.lsns = damage.lsns.or(lost);
                    }
                    (place.expected, place.events_lost) = (None, true);
                    place.last = lost.map_or(place.last, |(_, last)| last);
                }
            }
            // A tail of billions of absent segments would be reported one by one; a range says as much.
            let more = self.log.range((epoch, seq)..).next().is_some_and(|((e, _), _)| *e == epoch);
            if !more && number < last.get() {
                let what = format!("so are all segments up to {}, though the log names them", last.get());
                let next = Seq::new(number + 1);
                let lost = self.lost_lsns(epoch, next, last, place.last);
                report.damage.push(missing(ObjectKey::Log { epoch, seq: next }, &what, lost));
                (place.expected, place.events_lost) = (None, true);
                place.last = lost.map_or(place.last, |(_, last)| last);
                break;
            }
        }
    }

    /// The LSNs between the last known one and the next segment or CUT that can be read.
    fn lost_lsns(&self, epoch: Epoch, from: Seq, last: Seq, known: Lsn) -> Option<(Lsn, Lsn)> {
        let behind = self.log.range((epoch, from)..=(epoch, last)).find_map(|(_, head)| head.as_ref());
        let behind = behind.or_else(|| {
            let cuts = self.log.iter().filter(|((e, seq), _)| *e > epoch && seq.get() == 0);
            cuts.filter_map(|(_, head)| head.as_ref())
                .find(|head| head.cut.as_ref().and_then(|cut| cut.predecessor).is_some_and(|tail| tail.epoch == epoch))
        });
        let next = behind?.header.first_lsn;
        let (first, last) = (known.checked_next()?, Lsn::new(next.get().checked_sub(1)?));
        (first <= last).then_some((first, last))
    }

    fn judge_link(&self, key: ObjectKey, head: &Head, place: &mut Place, report: &mut VerifyReport) {
        let header = &head.header;
        let lsns = lsns_of(head);
        let mut damage = |what: String| {
            report.damage.push(Damage { object: key.to_string(), what, lsns, blocks: Vec::new() });
        };
        if let Some((hash, next)) = place.expected {
            if header.prev_header_hash != hash {
                damage("it names another header hash than that of the object before it".into());
            }
            if header.first_lsn != next {
                damage(format!("it begins at lsn {}, the object before it ends before lsn {next}", header.first_lsn));
            }
        }
        if header.first_time.get() < place.time {
            damage("its time begins before the time of the object before it ends".into());
        }
        if head.cut.is_some() {
            damage("it is a cut in the middle of an epoch".into());
        }
        place.events_lost |= !head.readable;
        for event in &head.events {
            self.judge_event(key, event, place, report);
        }
        place.expected = Some((header.header_hash, header.last_lsn.checked_next().unwrap_or(header.last_lsn)));
        place.last = place.last.max(header.last_lsn);
        place.time = header.last_time.get();
    }

    fn judge_event(&self, key: ObjectKey, event: &Event, place: &mut Place, report: &mut VerifyReport) {
        let Err(error) = place.disks.apply(event, key) else { return };
        if place.events_lost {
            return;
        }
        let what = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        report.damage.push(Damage {
            object: key.to_string(),
            what,
            lsns: Some((event.lsn, event.lsn)),
            blocks: vec![],
        });
    }

    /// Segments behind the end of the newest epoch are harmless unless something behind the hole was acknowledged.
    fn judge_tail(&self, epoch: Epoch, last: Seq, place: &Place, report: &mut VerifyReport) {
        let behind = self.log.range((epoch, last)..=(epoch, Seq::new(u64::MAX))).filter_map(|(_, head)| head.as_ref());
        let acked = behind.map(|head| head.header.acked_through).max().unwrap_or(Lsn::ZERO);
        if acked > place.last {
            let key = ObjectKey::Log { epoch, seq: last.checked_next().unwrap_or(last) };
            let what = format!("lsn {acked} was acknowledged behind it");
            report.damage.push(missing(key, &what, place.last.checked_next().map(|first| (first, acked))));
        }
    }

    /// A hint names a segment that was durable, so a log that ends before it has lost its end.
    fn judge_hint(&self, epoch: Epoch, last: Seq, report: &mut VerifyReport) {
        let Some(hint) = self.hint.filter(|hint| (hint.epoch, hint.seq) > (epoch, last)) else { return };
        let key = ObjectKey::Log { epoch: hint.epoch, seq: hint.seq };
        report.damage.push(missing(key, "the hint says that it was durable", None));
    }

    fn judge_bases(&mut self, place: &Place, report: &mut VerifyReport) {
        let parts = place.disks.all.iter().flat_map(|disk| disk.seeds.iter().map(move |part| (disk.id, part)));
        let mut named = Vec::new();
        for (disk, part) in parts {
            let key = part.key();
            named.push(key);
            let lost = DamagedBlocks { disk, extent: part.extent, first_lsn: part.start, last_lsn: part.start };
            let lsns = Some((part.start, part.start));
            let known = report.damage.iter().position(|damage| damage.object == key.to_string());
            let mut damage = |what: &str, blocks| {
                report.damage.push(Damage { object: key.to_string(), what: what.to_owned(), lsns, blocks });
            };
            match self.bases.get(&key) {
                None => damage("it is missing, though the log names it", vec![lost]),
                // What is wrong with it was said when it was read; here is what that costs.
                Some(None) | Some(Some(Head { readable: false, .. })) => match known {
                    Some(at) => {
                        report.damage[at].lsns = lsns;
                        report.damage[at].blocks.push(lost);
                    }
                    None => damage("nothing of it can be read", vec![lost]),
                },
                Some(Some(head)) if head.header.header_hash != part.base.header_hash => {
                    damage("it is not the object that the log names: its header hash differs", vec![lost]);
                }
                Some(Some(head)) if head.header.first_lsn != part.start => {
                    damage("it stands at another lsn than the start of its seeding", vec![lost]);
                }
                Some(Some(_)) => {}
            }
        }
        self.bases.retain(|key, _| !named.contains(key));
    }
}

fn lsns_of(head: &Head) -> Option<(Lsn, Lsn)> {
    let header = &head.header;
    (head.cut.is_none() && header.first_lsn <= header.last_lsn).then_some((header.first_lsn, header.last_lsn))
}

pub(super) fn missing(key: ObjectKey, why: &str, lsns: Option<(Lsn, Lsn)>) -> Damage {
    Damage { object: key.to_string(), what: format!("it is missing: {why}"), lsns, blocks: Vec::new() }
}
