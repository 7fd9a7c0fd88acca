//! What a log store must do, too simple to be wrong: lists of records and maps of values, and what may be in doubt.

use crate::buffer::AlignedBuffer;
use crate::shell::commit::Step;
use crate::shell::store::Threads;
use crate::{
    Appended, CrashDisk, DomainLog, Error, Fault, FormatOptions, LogStore, OpenOptions, Record, RecordBody, SpaceLimits,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tidemark_env::{Entropy, Env, ManualClock, SeededEntropy};
use tidemark_format::{BLOCK_BYTES, DiskId, DomainId, EventBody, Extent, Lsn, TimeNs};

pub(super) const EXTENT_BYTES: u64 = 64 << 10;
const EXTENTS: u64 = 18;
const DOMAINS: u8 = 3;

/// One domain's log.
#[derive(Clone, Debug)]
struct Model {
    first: Lsn,
    /// From `first` on.
    records: VecDeque<Record>,
    /// Where a log may end: the last LSN of each append.
    ends: BTreeSet<Lsn>,
    last: Lsn,
    last_time: TimeNs,
    acked: Lsn,
    metas: BTreeMap<String, Bytes>,
}

/// A domain, or none; and what it is instead if a call that failed in the middle took effect.
#[derive(Clone, Debug, Default)]
struct Slot {
    now: Option<Model>,
    or: Vec<Option<Model>>,
}

impl Slot {
    /// What has happened since happened to both.
    fn models(&mut self) -> impl Iterator<Item = &mut Model> {
        let last = self.now.as_ref().map(|model| model.last);
        let or = self.or.iter_mut().flatten().filter(move |or| Some(or.last) == last);
        self.now.iter_mut().chain(or)
    }
}

pub(super) struct Sim {
    disk: Arc<CrashDisk>,
    store: Option<LogStore>,
    slots: BTreeMap<DomainId, Slot>,
    waiting: Vec<(DomainId, Appended)>,
    random: SeededEntropy,
    env: Env,
    buffer: AlignedBuffer,
    /// What makes every record's data different.
    count: u64,
    /// A call failed in the middle: only a restart tells how it went.
    doubt: bool,
    log: VecDeque<String>,
}

impl Model {
    fn new(next: Lsn, time: TimeNs) -> Self {
        let last = Lsn::new(next.get() - 1);
        Self {
            first: next,
            records: VecDeque::new(),
            ends: BTreeSet::from([last]),
            last,
            last_time: time,
            acked: last,
            metas: BTreeMap::new(),
        }
    }

    fn trim(&mut self, through: Lsn) {
        while self.records.front().is_some_and(|record| record.lsn <= through) {
            self.records.pop_front();
            self.first = self.first.next();
        }
    }

    /// Compares a log that was recovered, and takes over where it ends.
    fn check_recovered(&mut self, log: &DomainLog) -> Result<(), String> {
        if let Some(e) = log.failed() {
            return Err(format!("log failed: {e}"));
        }
        let (first, last) = (log.first_lsn(), log.last_lsn());
        if first != self.first {
            return Err(format!("begins at {first}, not {}", self.first));
        }
        if last < self.acked || last > self.last || !self.ends.contains(&last) {
            return Err(format!("ends at {last}, acked {}, appended {}, ends {:?}", self.acked, self.last, self.ends));
        }
        while self.records.back().is_some_and(|record| record.lsn > last) {
            self.records.pop_back();
        }
        self.ends.split_off(&last.next());
        (self.last, self.acked) = (last, last);
        self.check_contents(log, first, u64::MAX)?;
        self.check_contents(log, first, 20_000)?;
        if let Some(record) = self.records.back() {
            self.last_time = record.time;
            if log.last_time() != record.time {
                return Err(format!("last time is {:?}, not {:?}", log.last_time(), record.time));
            }
        }
        // Of a log that was trimmed to its end, the time of the last record is kept as well.
        self.last_time = log.last_time();
        let names: Vec<_> = self.metas.keys().cloned().collect();
        let found = log.meta_names().map_err(|e| e.to_string())?;
        if found != names {
            return Err(format!("values {found:?}, not {names:?}"));
        }
        for (name, bytes) in &self.metas {
            match log.meta(name) {
                Ok(Some(found)) if found == bytes => {}
                other => return Err(format!("value {name} is {:?}", other.map(|value| value.map(|v| v.len())))),
            }
        }
        Ok(())
    }

    /// Everything durable from `from` on, read in pieces.
    fn check_contents(&self, log: &DomainLog, from: Lsn, bytes_max: u64) -> Result<(), String> {
        let mut at = from;
        let durable = log.durable_through();
        while at <= durable {
            let records = log.read(at, bytes_max).map_err(|e| format!("read from {at}: {e}"))?;
            if records.is_empty() {
                return Err(format!("read from {at}: nothing, though durable through {durable}"));
            }
            for record in records {
                let wanted = &self.records[(at.get() - self.first.get()) as usize];
                if record != *wanted {
                    return Err(format!("lsn {at} is another record: {} {:?}", record.lsn, record.time));
                }
                at = at.next();
            }
        }
        Ok(())
    }
}

impl Sim {
    pub(super) fn new(seed: u64) -> Self {
        let disk = Arc::new(CrashDisk::new((256 << 10) + EXTENTS * EXTENT_BYTES, seed));
        let env = Env::seeded(seed, Arc::new(ManualClock::new(TimeNs::new(0))));
        let options =
            FormatOptions { extent_bytes: EXTENT_BYTES, domains_max: 3, env: env.clone(), ..Default::default() };
        LogStore::format_on(&*disk, "disk", &options).unwrap();
        Self {
            disk,
            store: None,
            slots: (1..=DOMAINS).map(|n| (DomainId::new([n; 16]), Slot::default())).collect(),
            waiting: Vec::new(),
            random: SeededEntropy::new(seed),
            env,
            buffer: AlignedBuffer::default(),
            count: 0,
            doubt: false,
            log: VecDeque::new(),
        }
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.number() % bound
    }

    fn note(&mut self, what: String) {
        self.log.push_back(what);
        if self.log.len() > 40 {
            self.log.pop_front();
        }
    }

    pub(super) fn run(&mut self, steps: u32) -> Result<(), String> {
        let outcome = (0..steps).try_for_each(|_| self.step());
        let told = || self.log.iter().cloned().collect::<Vec<_>>().join("\n");
        outcome.map_err(|e| format!("{e}\nafter:\n{}", told()))
    }

    fn step(&mut self) -> Result<(), String> {
        if self.disk.unsynced_overwritten() > 0 {
            return Err("unsynced bytes were overwritten".to_owned());
        }
        let chance = if self.disk.is_stopped() || self.doubt { 2 } else { 60 };
        if self.store.is_none() || self.below(chance) == 0 {
            return self.restart();
        }
        let domains: Vec<_> = self.slots.keys().copied().collect();
        let domain = domains[self.below(domains.len() as u64) as usize];
        let Some(log) = self.store.as_ref().and_then(|store| store.domain(domain)) else {
            return self.create(domain);
        };
        match self.below(100) {
            0..45 => self.append(&log),
            45..70 => {
                self.note(format!("commit of {domain}"));
                let steps = if self.below(2) == 0 { 1 } else { u64::MAX };
                (0..steps).take_while(|_| log.domain.step(&mut self.buffer) == Step::Worked).for_each(drop);
                self.collect_answers();
                Ok(())
            }
            70..80 => self.trim(&log),
            80..88 => self.put_meta(&log),
            88..93 => self.read(&log),
            93..96 => {
                let (write, kind) = (1 + self.below(4), self.below(5));
                let fault = [Fault::Crash, Fault::Crash, Fault::Crash, Fault::Fail, Fault::Short][kind as usize];
                self.note(format!("{fault:?} of write {write} from here"));
                self.disk.inject(write, fault);
                Ok(())
            }
            96..98 => self.reset(&log),
            98 => self.remove(domain),
            _ => self.set_limits(&log),
        }
    }

    /// The process goes, with or without the power, and comes back.
    fn restart(&mut self) -> Result<(), String> {
        if self.below(4) > 0 {
            self.disk.stop();
        }
        self.store = None;
        self.waiting.clear();
        if self.below(2) == 0 {
            self.note("killed".to_owned());
            self.disk.restart();
        } else {
            self.note("power lost".to_owned());
            self.disk.lose_power();
        }
        if self.below(8) == 0 {
            self.note("and again while opening".to_owned());
            self.disk.inject(1 + self.below(2), Fault::Crash);
        }
        let options = OpenOptions {
            cache_bytes_max: [0, 100_000, 1 << 30][self.below(3) as usize],
            queue_bytes_max: 200_000,
            env: self.env.clone(),
        };
        let store = match LogStore::open_with(self.disk.clone(), options, Threads::None) {
            Ok(store) => store,
            Err(_) if self.disk.is_stopped() => return Ok(()),
            Err(e) => return Err(format!("cannot open: {e}")),
        };
        let mut held = 0;
        for (domain, slot) in &mut self.slots {
            let log = store.domain(*domain);
            let check = |model: &mut Option<Model>| match (&log, model) {
                (None, None) => Ok(()),
                (Some(log), Some(model)) => model.check_recovered(log),
                (log, model) => Err(format!("domain there: {}, expected: {}", log.is_some(), model.is_some())),
            };
            let mut now = slot.now.clone();
            if let Err(mut e) = check(&mut now) {
                let or = slot.or.drain(..).find_map(|mut or| match check(&mut or) {
                    Ok(()) => Some(or),
                    Err(other) => {
                        e += &format!("; or else {other}");
                        None
                    }
                });
                now = or.ok_or(format!("{domain}: {e}"))?;
            }
            *slot = Slot { now, or: Vec::new() };
            held += log.map_or(0, |log| log.usage().allocated_bytes + EXTENT_BYTES);
        }
        let space = store.space();
        if held + space.free_bytes != space.total_bytes {
            return Err(format!("{held} bytes held and {} free of {}", space.free_bytes, space.total_bytes));
        }
        self.doubt = false;
        self.store = Some(store);
        Ok(())
    }

    /// Takes what a call came to: it took effect, or its effect is in doubt, or it was refused.
    fn took(&mut self, domain: DomainId, after: Option<Model>, outcome: Result<(), Error>) -> Result<(), String> {
        let slot = self.slots.get_mut(&domain).unwrap();
        match outcome {
            Ok(()) => slot.now = after,
            Err(Error::Device { .. }) => {
                self.doubt = true;
                slot.or.push(after);
            }
            Err(Error::TablePoisoned { .. } | Error::Poisoned { .. } | Error::Full { .. }) => {}
            Err(e) => return Err(format!("{domain}: {e}")),
        }
        Ok(())
    }

    fn create(&mut self, domain: DomainId) -> Result<(), String> {
        if self.doubt {
            return Ok(());
        }
        let next = Lsn::new(1 + self.below(3));
        self.note(format!("create {domain} at {next}"));
        let limits = self.limits();
        let outcome = self.store.as_ref().unwrap().create_domain(domain, limits, next).map(drop);
        if matches!(outcome, Err(Error::Full { .. })) {
            return Ok(());
        }
        self.took(domain, Some(Model::new(next, TimeNs::new(0))), outcome)
    }

    fn limits(&self) -> SpaceLimits {
        let max = 2 + self.below(8);
        SpaceLimits { min_bytes: self.below(3) * EXTENT_BYTES, max_bytes: max * EXTENT_BYTES }
    }

    fn model(&mut self, log: &DomainLog) -> &mut Model {
        self.slots.get_mut(&log.id()).unwrap().now.as_mut().unwrap()
    }

    fn append(&mut self, log: &DomainLog) -> Result<(), String> {
        let failed = log.failed().is_some();
        let (mut lsn, mut time) = (log.last_lsn(), log.last_time());
        let mut records = Vec::new();
        let blocks_max = 48;
        let mut blocks = 0;
        for _ in 0..=self.below(4) {
            lsn = lsn.next();
            time = TimeNs::new(time.get() + self.below(1000));
            self.count += 1;
            let disk = DiskId::new(1 + self.below(3) as u32);
            let body = match self.below(10) {
                0 => RecordBody::Event(EventBody::Flush { disk }),
                1 => RecordBody::Zero { disk, extent: Extent::new(self.below(1 << 30), 1 + self.below(1 << 30)) },
                2 => RecordBody::Unmap { disk, extent: Extent::new(self.below(1 << 30), 1 + self.below(1 << 30)) },
                _ => {
                    let len = 1 + self.below(24);
                    if blocks + len > blocks_max {
                        break;
                    }
                    blocks += len;
                    let data = self.count.to_le_bytes().repeat((len * BLOCK_BYTES / 8) as usize).into();
                    RecordBody::Write { disk, extent: Extent::new(self.below(1 << 30), len), data }
                }
            };
            records.push(Record { lsn, time, body });
        }
        let Some(last) = records.last().cloned() else { return Ok(()) };
        let only_events = records.iter().all(|record| matches!(record.body, RecordBody::Event(_)));
        self.note(format!("append to {} through {}", log.id(), last.lsn));
        match log.append(records.clone()) {
            Ok(_) if failed => Err("a log that failed took an append".to_owned()),
            Ok(appended) => {
                for model in self.slots.get_mut(&log.id()).unwrap().models() {
                    model.records.extend(records.clone());
                    model.ends.insert(last.lsn);
                    (model.last, model.last_time) = (last.lsn, last.time);
                }
                self.waiting.push((log.id(), appended));
                Ok(())
            }
            Err(_) if failed => Ok(()),
            Err(Error::Busy { .. }) => Ok(()),
            Err(Error::Full { .. }) if only_events && log.domain.state().log.is_idle() => {
                // Room for events runs out too, but not before some were taken.
                Ok(())
            }
            Err(Error::Full { .. }) => match log.last_lsn() < last.lsn {
                true => Ok(()),
                false => Err("a full log took something".to_owned()),
            },
            Err(e) => Err(format!("append: {e}")),
        }
    }

    fn collect_answers(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for (domain, mut appended) in std::mem::take(&mut self.waiting) {
            match Pin::new(&mut appended).poll(&mut cx) {
                Poll::Ready(Ok(lsn)) => {
                    for model in self.slots.get_mut(&domain).unwrap().models() {
                        assert!(model.ends.contains(&lsn), "lsn {lsn} was acknowledged in the middle of an append");
                        model.acked = model.acked.max(lsn);
                    }
                }
                Poll::Ready(Err(_)) => {}
                Poll::Pending => self.waiting.push((domain, appended)),
            }
        }
    }

    fn trim(&mut self, log: &DomainLog) -> Result<(), String> {
        let (first, durable) = (log.first_lsn(), log.durable_through());
        let all = self.below(3) == 0;
        let count = first.count_to(durable);
        let through = if all || count == 0 { durable } else { Lsn::new(first.get() + self.below(count)) };
        self.note(format!("trim {} through {through} of {durable}", log.id()));
        let mut after = self.model(log).clone();
        after.trim(through);
        let outcome = log.domain.plan_trim(through).and_then(|trim| {
            // Whatever is queued may be written between the two.
            for _ in 0..self.below(3) {
                log.domain.step(&mut self.buffer);
            }
            trim.map_or(Ok(()), |trim| log.domain.trim(&trim))
        });
        let outcome = self.took(log.id(), Some(after), outcome);
        self.collect_answers();
        outcome
    }

    fn put_meta(&mut self, log: &DomainLog) -> Result<(), String> {
        if log.failed().is_some() {
            return Ok(());
        }
        let name = ["bitmap", "checkpoint", "gc"][self.below(3) as usize];
        let mut after = self.model(log).clone();
        let outcome = if self.below(5) == 0 {
            self.note(format!("forget {name} of {}", log.id()));
            after.metas.remove(name);
            log.remove_meta(name)
        } else {
            self.count += 1;
            let bytes: Bytes = self.count.to_le_bytes().repeat(self.below(1000) as usize).into();
            self.note(format!("put {name} of {}, {} bytes", log.id(), bytes.len()));
            after.metas.insert(name.to_owned(), bytes.clone());
            log.put_meta(name, &bytes)
        };
        self.took(log.id(), Some(after), outcome)
    }

    fn read(&mut self, log: &DomainLog) -> Result<(), String> {
        if self.disk.is_stopped() || self.doubt || matches!(log.failed(), Some(Error::GivenUp { .. })) {
            return Ok(());
        }
        let (first, durable) = (log.first_lsn(), log.durable_through());
        let from = Lsn::new(first.get() + self.below(first.count_to(durable).max(1)));
        let bytes_max = self.below(100_000);
        self.note(format!("read {} from {from}", log.id()));
        self.model(log).check_contents(log, from, bytes_max)
    }

    fn reset(&mut self, log: &DomainLog) -> Result<(), String> {
        if log.failed().is_some() || self.doubt {
            return Ok(());
        }
        // Often where the log began: what an earlier life left there must not be taken for new.
        let next = if self.below(2) == 0 { Lsn::new(1) } else { log.last_lsn().next() };
        self.note(format!("reset {} to {next}", log.id()));
        let outcome = log.reset(next);
        self.collect_answers();
        self.waiting.retain(|(domain, _)| *domain != log.id());
        let time = log.last_time();
        self.took(log.id(), Some(Model::new(next, time)), outcome)
    }

    fn remove(&mut self, domain: DomainId) -> Result<(), String> {
        if self.doubt {
            return Ok(());
        }
        self.note(format!("remove {domain}"));
        let outcome = self.store.as_ref().unwrap().remove_domain(domain);
        self.collect_answers();
        self.waiting.retain(|(other, _)| *other != domain);
        self.doubt |= outcome.is_err();
        self.took(domain, None, outcome)
    }

    fn set_limits(&mut self, log: &DomainLog) -> Result<(), String> {
        let now = self.model(log).clone();
        let limits = self.limits();
        self.note(format!("limit {} to {limits:?}", log.id()));
        match log.set_limits(limits) {
            Err(Error::Full { .. }) => Ok(()),
            outcome => self.took(log.id(), Some(now), outcome),
        }
    }
}
