//! Counts what a disk is asked for, while it is asked.
//!
//! What a request pays is a lock that nobody holds for long, a few additions, and a hash for each 4 KiB written; every so many
//! bytes a block is copied, and its entropy measured later, by whoever looks. Memory is bounded: some 320 KiB a disk, and
//! 128 KiB for each TiB of it that is touched within a minute.

use crate::core::anomaly::{Anomaly, Features, Turn, WINDOWS_PER_PERIOD};
use crate::core::estimate::{Distinct, SAMPLE_BYTES, Touched, entropy, mix};
use crate::core::latency::Latency;
use crate::core::readings::Readings;
use crate::registry::{DiskMeasure, DomainMeasure};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidemark_format::{BLOCK_BYTES, Day, Extent, Lsn, TimeNs};

/// Registers of what is counted by the minute, and by the day, as powers of two.
const MINUTE_BITS: u32 = 12;
const DAY_BITS: u32 = 14;
/// Blocks that wait to be measured.
const SAMPLES_MAX: usize = 64;
/// Bytes written from one sample to the next; more where much is written.
const STRIDE_BYTES_MIN: u64 = 64 << 10;
/// Of the blocks measured at once, so many are compressed, too: that takes ten times longer.
const COMPRESSED_MAX: usize = 8;
/// Blocks of the format in one of 4 KiB.
const PER_4K: u64 = SAMPLE_BYTES as u64 / BLOCK_BYTES;

/// What all disks of a domain were asked for, those that left included.
#[derive(Debug, Default)]
pub struct DomainProbe {
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    writes: AtomicU64,
    written: AtomicU64,
    reads: AtomicU64,
    read: AtomicU64,
    flushes: AtomicU64,
    zeroed: AtomicU64,
    unmapped: AtomicU64,
    held_ns: AtomicU64,
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl DomainProbe {
    /// Adds what is counted here.
    pub fn read_into(&self, readings: &mut Readings<DomainMeasure>) {
        use DomainMeasure as M;
        let counts = &self.counts;
        readings.sum(M::Writes, of(&counts.writes)).sum(M::Written, of(&counts.written));
        readings.sum(M::Reads, of(&counts.reads)).sum(M::Read, of(&counts.read));
        readings.sum(M::Zeroed, of(&counts.zeroed)).sum(M::Unmapped, of(&counts.unmapped));
        readings.sum(M::Held, of(&counts.held_ns));
    }
}

/// What one disk was asked for.
#[derive(Debug)]
pub struct DiskProbe {
    domain: Arc<DomainProbe>,
    counts: Counts,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    write_latency: Latency,
    read_latency: Latency,
    touched: Touched,
    /// 4 KiB blocks written in this minute, again and again counted each time.
    minute_blocks: u64,
    minute: Distinct,
    day: Distinct,
    of_day: Option<Day>,
    sampler: Sampler,
    measured: Measured,
    sampled_total: u64,
    watch: Watch,
    /// Of the minute that ended last.
    last: Estimates,
}

/// Blocks that wait to be measured.
#[derive(Debug)]
struct Sampler {
    stride_bytes: u64,
    since_bytes: u64,
    taken: u64,
    blocks: Vec<Box<[u8; SAMPLE_BYTES]>>,
}

/// A point of the disk's domain, and when it was the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The point.
    pub lsn: Lsn,
    /// When.
    pub time: TimeNs,
}

/// An alarm about how a disk is written began, or is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signal {
    /// Which of them.
    pub turn: Turn,
    /// How unusual the newest window was, 0 to 1.
    pub score: f64,
    /// What was seen in it; `None` if next to nothing was written.
    pub seen: Option<Features>,
    /// The newest point before which nothing was unusual.
    pub clean: Option<Moment>,
}

/// Ten seconds of writes.
#[derive(Debug)]
struct Watch {
    began: Option<Duration>,
    blocks: u64,
    distinct: Distinct,
    measured: Measured,
    anomaly: Anomaly,
    /// Where the newest window ended.
    ended: Option<Moment>,
    /// Where the newest window that was clean began: what came with its end may be the first of what is not.
    clean: Option<Moment>,
}

impl Watch {
    fn new() -> Self {
        Self {
            began: None,
            blocks: 0,
            distinct: Distinct::new(MINUTE_BITS),
            measured: Measured::default(),
            anomaly: Anomaly::default(),
            ended: None,
            clean: None,
        }
    }

    fn assess(&mut self, now: Duration, period: Duration, newest: Moment) -> Option<Signal> {
        let began = *self.began.get_or_insert(now);
        let took = now.saturating_sub(began);
        if took < period / WINDOWS_PER_PERIOD {
            return None;
        }
        let Measured { blocks: samples, entropy, .. } = std::mem::take(&mut self.measured);
        let seen = Features::of(self.blocks, self.distinct.count(), entropy, samples, took);
        let turn = match seen {
            Some(features) => self.anomaly.take(now, period, features),
            None => self.anomaly.take_quiet(),
        };
        (self.began, self.blocks) = (Some(now), 0);
        self.distinct.clear();
        let ended = self.ended.replace(newest);
        if self.anomaly.is_clean() {
            self.clean = ended;
        }
        let (score, clean) = (self.anomaly.score().unwrap_or(0.0), self.clean);
        turn.map(|turn| Signal { turn, score, seen, clean })
    }
}

/// Sums over the blocks of some time.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    blocks: u64,
    entropy: f64,
    compressed_blocks: u64,
    compressed: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Estimates {
    touched: Option<f64>,
    distinct: Option<f64>,
    day_distinct: Option<f64>,
    overwrite: Option<f64>,
    entropy: Option<f64>,
    compressed: Option<f64>,
}

impl DiskProbe {
    /// Of a disk of the domain that `domain` counts for.
    pub fn new(domain: Arc<DomainProbe>) -> Self {
        let sampler =
            Sampler { stride_bytes: STRIDE_BYTES_MIN, since_bytes: STRIDE_BYTES_MIN, taken: 0, blocks: Vec::new() };
        let state = State {
            write_latency: Latency::default(),
            read_latency: Latency::default(),
            touched: Touched::default(),
            minute_blocks: 0,
            minute: Distinct::new(MINUTE_BITS),
            day: Distinct::new(DAY_BITS),
            of_day: None,
            sampler,
            measured: Measured::default(),
            sampled_total: 0,
            watch: Watch::new(),
            last: Estimates::default(),
        };
        Self { domain, counts: Counts::default(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts that a panic left half done are only a little wrong.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, counter: impl Fn(&Counts) -> &AtomicU64, more: u64) {
        add(counter(&self.counts), more);
        add(counter(&self.domain.counts), more);
    }

    /// A write was acknowledged.
    pub fn wrote(&self, offset: u64, data: &[u8], took: Duration) {
        self.count(|of| &of.writes, 1);
        self.count(|of| &of.written, data.len() as u64);
        let mut state = self.state();
        state.write_latency.add(took);
        state.touched.add(offset, data.len() as u64);
        state.blocks(offset / BLOCK_BYTES, data.len() as u64 / BLOCK_BYTES);
        state.sampler.see(data);
    }

    /// Zeros that were not sent were acknowledged.
    pub fn zeroed(&self, extent: Extent) {
        self.count(|of| &of.zeroed, extent.byte_len());
        self.state().touched.add(extent.start * BLOCK_BYTES, extent.byte_len());
    }

    /// A discard was acknowledged.
    pub fn unmapped(&self, extent: Extent) {
        self.count(|of| &of.unmapped, extent.byte_len());
        self.state().touched.add(extent.start * BLOCK_BYTES, extent.byte_len());
    }

    /// A read was answered.
    pub fn read(&self, bytes: u64, took: Duration) {
        self.count(|of| &of.reads, 1);
        self.count(|of| &of.read, bytes);
        self.state().read_latency.add(took);
    }

    /// A flush was answered.
    pub fn flushed(&self) {
        self.count(|of| &of.flushes, 1);
    }

    /// Backpressure held a write for so long.
    pub fn held(&self, hold: Duration) {
        self.count(|of| &of.held_ns, u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Measures the blocks that wait for it. Once a second is enough.
    pub fn digest(&self) {
        let blocks = self.state().sampler.take();
        if blocks.is_empty() {
            return;
        }
        let mut measured = Measured::default();
        for block in &blocks {
            measured.blocks += 1;
            measured.entropy += entropy(&block[..]);
        }
        for block in blocks.iter().take(COMPRESSED_MAX) {
            // Only a buffer that is too small fails, and this one grows.
            if let Ok(compressed) = zstd::bulk::compress(&block[..], 1) {
                measured.compressed_blocks += 1;
                measured.compressed += (compressed.len() as f64 / SAMPLE_BYTES as f64).min(1.0);
            }
        }
        let mut state = self.state();
        state.sampled_total += measured.blocks;
        state.measured.add(measured);
        state.watch.measured.add(measured);
    }

    /// Judges a sixth of a period once it is over: ten seconds of a minute. `newest` is the domain's newest point, as it was before
    /// [`Self::digest`].
    pub fn assess(&self, now: Duration, period: Duration, newest: Moment) -> Option<Signal> {
        self.state().watch.assess(now, period, newest)
    }

    /// Ends a minute of a day: what is estimated of it is known from here on.
    pub fn end_minute(&self, day: Day) {
        let mut state = self.state();
        let state = &mut *state;
        let bytes = SAMPLE_BYTES as f64;
        let measured = std::mem::take(&mut state.measured);
        let mean = |sum: f64, of: u64| if of == 0 { None } else { Some(sum / of as f64) };
        // An estimate may be beyond what there can be.
        let distinct = state.minute.count().min(state.minute_blocks as f64);
        let written = state.minute_blocks;
        state.last = Estimates {
            touched: Some((state.touched.count() * Touched::REGION_BYTES) as f64),
            distinct: Some(distinct.round() * bytes),
            day_distinct: Some(state.day.count().round() * bytes),
            overwrite: mean(written as f64 - distinct, written),
            entropy: mean(measured.entropy, measured.blocks),
            compressed: mean(measured.compressed, measured.compressed_blocks),
        };
        state.touched.clear();
        state.minute.clear();
        state.minute_blocks = 0;
        if state.of_day.replace(day).is_some_and(|before| before != day) {
            state.day.clear();
        }
    }

    /// Adds what is counted here.
    pub fn read_into(&self, readings: &mut Readings<DiskMeasure>) {
        use DiskMeasure as M;
        let counts = &self.counts;
        readings.sum(M::Writes, of(&counts.writes)).sum(M::Written, of(&counts.written));
        readings.sum(M::Reads, of(&counts.reads)).sum(M::Read, of(&counts.read));
        readings.sum(M::Flushes, of(&counts.flushes));
        readings.sum(M::Zeroed, of(&counts.zeroed)).sum(M::Unmapped, of(&counts.unmapped));
        readings.sum(M::Held, of(&counts.held_ns));
        let state = self.state();
        readings.latency(M::WriteLatency, state.write_latency.clone());
        readings.latency(M::ReadLatency, state.read_latency.clone());
        readings.sum(M::Sampled, state.sampled_total);
        let anomaly = &state.watch.anomaly;
        if let Some(score) = anomaly.score() {
            readings.now(M::Anomaly, score).now(M::Suspicious, f64::from(u8::from(anomaly.is_alarmed())));
        }
        let last = state.last;
        let known = [
            (M::Touched, last.touched),
            (M::Distinct, last.distinct),
            (M::DayDistinct, last.day_distinct),
            (M::Overwrite, last.overwrite),
            (M::Entropy, last.entropy),
            (M::Compressed, last.compressed),
        ];
        for (measure, value) in known.into_iter().filter_map(|(measure, value)| Some((measure, value?))) {
            readings.now(measure, value);
        }
    }
}

impl Measured {
    fn add(&mut self, more: Self) {
        self.blocks += more.blocks;
        self.entropy += more.entropy;
        self.compressed_blocks += more.compressed_blocks;
        self.compressed += more.compressed;
    }
}

impl State {
    fn blocks(&mut self, start: u64, len: u64) {
        if len == 0 {
            return;
        }
        for block in start / PER_4K..=(start + len - 1) / PER_4K {
            self.minute.add(block);
            self.day.add(block);
            self.watch.distinct.add(block);
            self.minute_blocks += 1;
            self.watch.blocks += 1;
        }
    }
}

impl Sampler {
    fn see(&mut self, data: &[u8]) {
        self.since_bytes += data.len() as u64;
        if self.since_bytes < self.stride_bytes || data.len() < SAMPLE_BYTES || self.blocks.len() >= SAMPLES_MAX {
            return;
        }
        self.since_bytes = 0;
        self.taken += 1;
        // Anywhere in the write: the front of files is not like the rest.
        let places = (data.len() / SAMPLE_BYTES) as u64;
        let at = (mix(self.taken) % places) as usize * SAMPLE_BYTES;
        let block: Result<[u8; SAMPLE_BYTES], _> = data[at..at + SAMPLE_BYTES].try_into();
        self.blocks.extend(block.ok().map(Box::new));
    }

    /// The blocks that wait; the stride follows how many there were.
    fn take(&mut self) -> Vec<Box<[u8; SAMPLE_BYTES]>> {
        let blocks = std::mem::take(&mut self.blocks);
        if blocks.len() >= SAMPLES_MAX {
            self.stride_bytes = self.stride_bytes.saturating_mul(2);
        } else if blocks.len() < SAMPLES_MAX / 4 {
            self.stride_bytes = (self.stride_bytes / 2).max(STRIDE_BYTES_MIN);
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::readings::Value;

    fn readings(probe: &DiskProbe) -> Readings<DiskMeasure> {
        let mut readings = Readings::new();
        probe.read_into(&mut readings);
        readings
    }

    fn now(readings: &Readings<DiskMeasure>, measure: DiskMeasure) -> f64 {
        if let Value::Now(value) = readings.get(measure) { *value } else { f64::NAN }
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        (0..len as u64).map(|at| mix(seed << 32 | at) as u8).collect()
    }

    #[test]
    fn a_minute_of_writes_is_described() {
        let domain = Arc::new(DomainProbe::default());
        let probe = DiskProbe::new(domain.clone());
        for round in 0..2 {
            for block in 0..1000_u64 {
                probe.wrote(block * 4096, &noise(round * 1000 + block, 4096), Duration::from_micros(100));
            }
            probe.digest();
        }
        probe.zeroed(Extent::new(1 << 20, 8));
        probe.end_minute(Day::new(1));
        let seen = readings(&probe);
        assert_eq!(seen.get(DiskMeasure::Written), &Value::Sum(2000 * 4096));
        assert_eq!(now(&seen, DiskMeasure::Touched), 5.0 * 1048576.0, "4 MiB of writes, one elsewhere");
        assert!((now(&seen, DiskMeasure::Distinct) / 4096.0 - 1000.0).abs() < 65.0);
        assert!((now(&seen, DiskMeasure::Overwrite) - 0.5).abs() < 0.04);
        assert!((0.99..1.0).contains(&now(&seen, DiskMeasure::Entropy)));
        assert_eq!(now(&seen, DiskMeasure::Compressed), 1.0);
        let mut of_domain = Readings::new();
        domain.read_into(&mut of_domain);
        assert_eq!(of_domain.get(DomainMeasure::Written), &Value::Sum(2000 * 4096));
        probe.end_minute(Day::new(1));
        let quiet = readings(&probe);
        assert_eq!((now(&quiet, DiskMeasure::Touched), now(&quiet, DiskMeasure::Distinct)), (0.0, 0.0));
        assert_eq!(quiet.get(DiskMeasure::Entropy), &Value::Unknown, "nothing was sampled: unknown is not zero");
        assert!((now(&quiet, DiskMeasure::DayDistinct) / 4096.0 - 1000.0).abs() < 33.0);
        probe.end_minute(Day::new(2));
        probe.end_minute(Day::new(2));
        assert_eq!(now(&readings(&probe), DiskMeasure::DayDistinct), 0.0, "a day ends at midnight");
    }

    #[test]
    fn samples_are_bounded_and_their_stride_follows_the_rate() {
        let probe = DiskProbe::new(Arc::default());
        let data = noise(1, 1 << 20);
        for second in 0..4 {
            (0..1000_u64).for_each(|at| probe.wrote(at << 20, &data, Duration::ZERO));
            assert!(probe.state().sampler.blocks.len() <= SAMPLES_MAX);
            probe.digest();
            assert_eq!(probe.state().sampler.stride_bytes, STRIDE_BYTES_MIN << (second + 1));
        }
        (0..8).for_each(|_| probe.digest());
        probe.wrote(0, &data[..512], Duration::ZERO);
        assert!(probe.state().sampler.blocks.is_empty(), "too short to be measured");
    }
}
