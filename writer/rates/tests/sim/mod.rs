//! A protected site in simulated time: guests, the log, and a link to the bucket, around the real controllers.
//!
//! Deterministic: one seed gives one run, on every machine (only `+ - * /` on numbers).

#![allow(dead_code, reason = "each user of the simulation looks at another part of it")]

pub(crate) mod seed;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;
use tidemark_format::DiskId;
use tidemark_rates::{Admission, DiskOptions, Load, Signals, Stage, Throttle, ThrottleOptions};

pub(crate) const MIB: u64 = 1 << 20;

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Of `low..high`.
    pub(crate) fn within(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.next() >> 11) as f64 / (1u64 << 53) as f64)
    }
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[(self.next() % of.len() as u64) as usize]
    }
}

/// Seeds that each property is simulated with; more with `TIDEMARK_RATES_SEEDS`.
pub(crate) fn seeds() -> std::ops::Range<u64> {
    0..std::env::var("TIDEMARK_RATES_SEEDS").map_or(20, |n| n.parse().expect("TIDEMARK_RATES_SEEDS is a number"))
}

pub(crate) fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// How a guest decides when to write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pattern {
    /// `queue_depth` writes are under way at all times; each takes what gives `offered` bytes a second together.
    Closed { queue_depth: u32, offered: f64 },
    /// Writes come at this many bytes a second, whatever becomes of those before.
    Open { offered: f64 },
}

#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) pattern: Pattern,
    pub(crate) write_bytes: u64,
    /// It writes from here to there.
    pub(crate) active: (f64, f64),
    pub(crate) options: DiskOptions,
}

/// Where the link moves how many bytes a second, from a second on. 0 is an outage.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) steps: Vec<(f64, f64)>,
    /// Each lump takes up to this part longer or shorter.
    pub(crate) jitter: f64,
    pub(crate) lump_bytes: u64,
    /// From the end of a transfer until the lump is free.
    pub(crate) commit: Duration,
}

impl Link {
    pub(crate) fn rate(&self, at: f64) -> f64 {
        self.steps.iter().rev().find(|(from, _)| *from <= at).map_or(0.0, |(_, rate)| *rate)
    }
    /// When a transfer that starts at `at` ends; `None` if never.
    fn ends(&self, mut at: f64, mut bytes: f64) -> Option<f64> {
        loop {
            let rate = self.rate(at);
            let until = self.steps.iter().map(|(from, _)| *from).find(|from| *from > at);
            let moved = until.map_or(f64::INFINITY, |until| (until - at) * rate);
            if rate > 0.0 && moved >= bytes {
                return Some(at + bytes / rate);
            }
            bytes -= moved;
            at = until?;
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) space_bytes: u64,
    pub(crate) options: ThrottleOptions,
    pub(crate) guests: Vec<Guest>,
    pub(crate) link: Link,
    pub(crate) observe_every: Duration,
    pub(crate) sample_every: Duration,
    /// Writes that are held count as used already; otherwise only once they are logged.
    pub(crate) counts_held: bool,
    /// In the log when the run begins, of the first disk.
    pub(crate) used_bytes: u64,
}

/// One stretch of the run.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) at: f64,
    /// Of the last observation in the stretch.
    pub(crate) signals: Signals,
    pub(crate) used_bytes: u64,
    /// In the stretch, bytes a second.
    pub(crate) written: Vec<f64>,
    pub(crate) drained: f64,
    /// Longest in the stretch, per disk.
    pub(crate) hold_max: Vec<Duration>,
    /// Mean over the writes of the stretch, per disk; 0 without writes.
    pub(crate) hold_mean: Vec<Duration>,
}

impl Sample {
    pub(crate) fn written_total(&self) -> f64 {
        self.written.iter().sum()
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) samples: Vec<Sample>,
    pub(crate) stages: Vec<(f64, Stage)>,
    /// Writes that were not logged, per disk.
    pub(crate) degraded: Vec<u64>,
    /// Writes that were kept back, per disk.
    pub(crate) stalled: Vec<u64>,
    pub(crate) hold_longest: Duration,
    pub(crate) fill_highest: f64,
}

impl Run {
    pub(crate) fn between(&self, from: f64, to: f64) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.at >= from && sample.at < to)
    }
    /// Mean of what all disks wrote, bytes a second.
    pub(crate) fn written_mean(&self, from: f64, to: f64) -> f64 {
        let (sum, count) =
            self.between(from, to).fold((0.0, 0.0), |(sum, count), sample| (sum + sample.written_total(), count + 1.0));
        sum / count
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A guest wants to write.
    Want(usize),
    /// A hold is over: the write is logged.
    Logged(usize),
    /// A lump has left; the next may.
    Sent,
    /// The oldest lump under way is free.
    Freed,
    Observe,
    Sample,
}

struct Site {
    setup: Setup,
    dice: Dice,
    throttle: Throttle,
    queue: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    events: u64,
    used: u64,
    /// Of them, by writes that are not logged yet.
    held: u64,
    drained: u64,
    /// Who logged what, in order: (disk, bytes).
    log: VecDeque<(usize, u64)>,
    pending: Vec<u64>,
    /// In the log and not on the link yet.
    unsent: u64,
    sending: bool,
    in_flight: VecDeque<u64>,
    stalled: VecDeque<usize>,
    run: Run,
    /// Since the last sample, per disk: bytes, writes, sum of holds, longest hold.
    tally: Vec<(u64, u64, Duration, Duration)>,
    tally_drained: u64,
}

/// Runs it to its end.
pub(crate) fn run(setup: Setup) -> Run {
    let disks = setup.guests.len();
    let mut site = Site {
        dice: Dice(setup.seed),
        throttle: Throttle::new(setup.options, Duration::ZERO).expect("options hold"),
        queue: BinaryHeap::new(),
        events: 0,
        used: setup.used_bytes,
        held: 0,
        drained: 0,
        log: VecDeque::from([(0, setup.used_bytes)]),
        pending: vec![0; disks],
        unsent: setup.used_bytes,
        sending: false,
        in_flight: VecDeque::new(),
        stalled: VecDeque::new(),
        run: Run { degraded: vec![0; disks], stalled: vec![0; disks], ..Run::default() },
        tally: vec![Default::default(); disks],
        tally_drained: 0,
        setup,
    };
    site.pending[0] = site.used;
    site.start();
    let end = secs(site.setup.seconds);
    while let Some(Reverse((at, _, event))) = site.queue.pop().filter(|Reverse((at, ..))| *at <= end) {
        site.handle(event, at);
    }
    site.run
}

impl Site {
    fn start(&mut self) {
        for index in 0..self.setup.guests.len() {
            let guest = self.setup.guests[index].clone();
            self.throttle.set_disk(DiskId::new(index as u32), guest.options, Duration::ZERO);
            let writers = match guest.pattern {
                Pattern::Closed { queue_depth, .. } => queue_depth,
                Pattern::Open { .. } => 1,
            };
            for _ in 0..writers {
                let begin = guest.active.0 + self.dice.within(0.0, 0.1);
                self.at(secs(begin), Event::Want(index));
            }
        }
        self.at(Duration::ZERO, Event::Observe);
        self.at(self.setup.sample_every, Event::Sample);
        self.send(Duration::ZERO);
    }

    fn at(&mut self, when: Duration, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((when, self.events, event)));
    }

    fn handle(&mut self, event: Event, now: Duration) {
        match event {
            Event::Want(disk) => self.want(disk, now),
            Event::Logged(disk) => self.logged(disk, now),
            Event::Sent => {
                self.sending = false;
                let commit = self.setup.link.commit;
                self.at(now + commit, Event::Freed);
                self.send(now);
            }
            Event::Freed => self.freed(now),
            Event::Observe => {
                self.observe(now);
                self.at(now + self.setup.observe_every, Event::Observe);
            }
            Event::Sample => self.sample(now),
        }
    }

    fn want(&mut self, disk: usize, now: Duration) {
        let guest = &self.setup.guests[disk];
        if now.as_secs_f64() > guest.active.1 {
            return;
        }
        let bytes = guest.write_bytes;
        if let Pattern::Open { offered } = guest.pattern {
            let pause = bytes as f64 / offered * self.dice.within(0.5, 1.5);
            self.at(now + secs(pause), Event::Want(disk));
        }
        self.ask(disk, now);
    }

    fn ask(&mut self, disk: usize, now: Duration) {
        let bytes = self.setup.guests[disk].write_bytes;
        match self.throttle.admit(DiskId::new(disk as u32), bytes, now) {
            Admission::Hold(hold) => {
                let tally = &mut self.tally[disk];
                tally.1 += 1;
                tally.2 += hold;
                tally.3 = tally.3.max(hold);
                self.run.hold_longest = self.run.hold_longest.max(hold);
                self.used += bytes;
                self.held += bytes;
                self.pending[disk] += bytes;
                let fill = self.used as f64 / self.setup.space_bytes as f64;
                self.run.fill_highest = self.run.fill_highest.max(fill);
                self.at(now + hold, Event::Logged(disk));
            }
            Admission::Stall => {
                self.run.stalled[disk] += 1;
                self.stalled.push_back(disk);
            }
            Admission::Degrade => {
                self.run.degraded[disk] += 1;
                self.complete(disk, now);
            }
        }
    }

    fn logged(&mut self, disk: usize, now: Duration) {
        let bytes = self.setup.guests[disk].write_bytes;
        self.unsent += bytes;
        self.held -= bytes;
        self.log.push_back((disk, bytes));
        self.tally[disk].0 += bytes;
        self.complete(disk, now);
        self.send(now);
    }

    /// The log device serves a write, then a closed loop issues its next one.
    fn complete(&mut self, disk: usize, now: Duration) {
        let guest = &self.setup.guests[disk];
        if let Pattern::Closed { queue_depth, offered } = guest.pattern {
            let service = f64::from(queue_depth) * guest.write_bytes as f64 / offered * self.dice.within(0.8, 1.2);
            self.at(now + secs(service), Event::Want(disk));
        }
    }

    fn send(&mut self, now: Duration) {
        let link = &self.setup.link;
        if self.sending || self.unsent < link.lump_bytes {
            return;
        }
        let lump = link.lump_bytes;
        let effort = lump as f64 * self.dice.within(1.0 - link.jitter, 1.0 + link.jitter);
        self.unsent -= lump;
        self.in_flight.push_back(lump);
        self.sending = true;
        if let Some(end) = self.setup.link.ends(now.as_secs_f64(), effort) {
            self.at(secs(end).max(now), Event::Sent);
        }
    }

    fn freed(&mut self, now: Duration) {
        let mut left = self.in_flight.pop_front().expect("a lump is under way");
        self.used -= left;
        self.drained += left;
        self.tally_drained += left;
        while let Some((disk, bytes)) = self.log.front_mut().filter(|_| left > 0) {
            let part = left.min(*bytes);
            self.pending[*disk] -= part;
            *bytes -= part;
            left -= part;
            if *bytes == 0 {
                self.log.pop_front();
            }
        }
        self.observe(now);
    }

    fn observe(&mut self, now: Duration) {
        let before = self.throttle.signals().stage;
        let used_bytes = if self.setup.counts_held { self.used } else { self.used - self.held };
        let load = Load { used_bytes, space_bytes: self.setup.space_bytes, drained_bytes_total: self.drained };
        let pending = &self.pending;
        let stage = self.throttle.observe(load, |id| pending[id.get() as usize], now).stage;
        if stage != before {
            self.run.stages.push((now.as_secs_f64(), stage));
        }
        for _ in 0..self.stalled.len() {
            let disk = self.stalled.pop_front().expect("counted");
            if self.throttle.is_overflowed(DiskId::new(disk as u32)) {
                self.stalled.push_back(disk);
            } else {
                self.ask(disk, now);
            }
        }
    }

    fn sample(&mut self, now: Duration) {
        let every = self.setup.sample_every.as_secs_f64();
        let tally = std::mem::replace(&mut self.tally, vec![Default::default(); self.pending.len()]);
        self.run.samples.push(Sample {
            at: now.as_secs_f64(),
            signals: self.throttle.signals(),
            used_bytes: self.used,
            written: tally.iter().map(|(bytes, ..)| *bytes as f64 / every).collect(),
            drained: std::mem::take(&mut self.tally_drained) as f64 / every,
            hold_max: tally.iter().map(|(.., longest)| *longest).collect(),
            hold_mean: tally.iter().map(|(_, writes, sum, _)| *sum / u32::max(*writes as u32, 1)).collect(),
        });
        self.at(now + self.setup.sample_every, Event::Sample);
    }
}

/// A guest that writes 64 KiB blocks as fast as it may, `offered` MiB/s without a throttle.
pub(crate) fn flood(offered_mib: f64) -> Guest {
    Guest {
        pattern: Pattern::Closed { queue_depth: 32, offered: offered_mib * MIB as f64 },
        write_bytes: 64 << 10,
        active: (0.0, f64::INFINITY),
        options: DiskOptions::default(),
    }
}

/// A site with a log of 1 GiB and a link that takes `link_mib` MiB/s.
pub(crate) fn site(guests: Vec<Guest>, link_mib: f64) -> Setup {
    Setup {
        seed: 1,
        seconds: 300.0,
        space_bytes: 1 << 30,
        options: ThrottleOptions::default(),
        guests,
        link: Link {
            steps: vec![(0.0, link_mib * MIB as f64)],
            jitter: 0.0,
            lump_bytes: 8 * MIB,
            commit: Duration::from_millis(150),
        },
        observe_every: Duration::from_millis(100),
        sample_every: Duration::from_secs(1),
        counts_held: true,
        used_bytes: 0,
    }
}

/// What a guest of 20 MiB/s on a link of 30 MiB/s sees of an outage of 50 s.
pub(crate) fn outage() -> Setup {
    let mut setup = site(vec![flood(20.0)], 30.0);
    setup.link.steps = vec![(0.0, 30.0 * MIB as f64), (60.0, 0.0), (110.0, 30.0 * MIB as f64)];
    setup
}

/// One disk writes at 1 MiB/s; two take whatever they get of 12 MiB/s.
pub(crate) fn small_among_floods() -> Setup {
    let small = Guest {
        pattern: Pattern::Open { offered: MIB as f64 },
        write_bytes: 16 << 10,
        active: (0.0, f64::INFINITY),
        options: DiskOptions::default(),
    };
    let mut shallow = flood(200.0);
    shallow.pattern = Pattern::Closed { queue_depth: 8, offered: 200.0 * MIB as f64 };
    site(vec![small, flood(100.0), shallow], 12.0)
}
