//! How fast: uploads keep to a limit, background replication to what the guest and the log bear.

use crate::shared::Shared;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidemark_bucket::{MeterSnapshot, Op};
use tidemark_format::KeyFamily;
use tidemark_rates::{Limit, Meter, MeterOptions, Rate, Reduction, SeedControl, SeedOptions, TokenBucket};
use tidemark_writer::Packed;

/// Uploads may run ahead of their limit by this much: about a segment.
const UPLOAD_BURST_BYTES: u64 = 8 << 20;
/// Background replication reads so much at once.
const SEED_BURST_BYTES: u64 = 2 << 20;
/// Compression is that of about so many of the last bytes.
const REDUCTION_BYTES: u64 = 256 << 20;
/// Limits may change: nobody sleeps longer than this.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) struct Pace {
    state: Mutex<State>,
}

struct State {
    uploads: TokenBucket,
    /// Uploaded bytes that are paid for.
    uploaded_bytes: u64,
    control: SeedControl,
    seeding: TokenBucket,
    flows: Flows,
}

/// What moves, measured.
struct Flows {
    guest_bytes: Meter,
    /// Writes, not bytes.
    guest_writes: Meter,
    shipped: Meter,
    /// Uploaded bytes that `shipped` has seen.
    shipped_bytes: u64,
    seeded: Meter,
    reduction: Reduction,
    /// What `reduction` has seen of the writer that is there now.
    packed: Packed,
    /// Of all writers since the domain was opened.
    packed_total: Packed,
    seeded_bytes_total: u64,
}

impl Flows {
    fn new(now: Duration) -> Self {
        let stream = || Meter::new(MeterOptions::STREAM, now);
        Self {
            guest_bytes: stream(),
            guest_writes: stream(),
            shipped: Meter::new(MeterOptions::LUMPS, now),
            shipped_bytes: 0,
            seeded: stream(),
            reduction: Reduction::new(REDUCTION_BYTES),
            packed: Packed::default(),
            packed_total: Packed::default(),
            seeded_bytes_total: 0,
        }
    }
}

/// What moves, averaged over the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Throughput {
    /// Written by guests.
    pub guest_bytes: Rate,
    /// Guest writes a second.
    pub guest_writes_per_s: u64,
    /// Sent to the bucket.
    pub shipped: Rate,
    /// Read from disks by seeding and comparing.
    pub seeded: Rate,
    /// Bytes written for each byte stored; `None` before anything was.
    pub compression: Option<f64>,
}

impl Pace {
    pub(crate) fn new(seed: SeedOptions, now: Duration) -> tidemark_rates::Result<Self> {
        let state = State {
            uploads: TokenBucket::new(Limit::Unlimited, UPLOAD_BURST_BYTES, now)?,
            uploaded_bytes: 0,
            control: SeedControl::new(seed, now)?,
            seeding: TokenBucket::new(Limit::Unlimited, SEED_BURST_BYTES, now)?,
            flows: Flows::new(now),
        };
        Ok(Self { state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_upload_limit(&self, limit: Limit, now: Duration) {
        self.state().uploads.set_limit(limit, now);
    }

    pub(crate) fn set_seed_options(&self, options: SeedOptions) -> tidemark_rates::Result<()> {
        self.state().control.set_options(options)
    }

    /// A guest's write of so many bytes was acknowledged after `latency`, without what it was held for.
    pub(crate) fn guest_write(&self, bytes: u64, latency: Duration, now: Duration) {
        let mut state = self.state();
        state.control.guest_write(latency, now);
        state.flows.guest_bytes.add(bytes, now);
        state.flows.guest_writes.add(1, now);
    }

    /// So much was uploaded in all.
    pub(crate) fn uploaded(&self, uploaded_bytes: u64, now: Duration) {
        let mut state = self.state();
        let flows = &mut state.flows;
        flows.shipped.add(uploaded_bytes.saturating_sub(flows.shipped_bytes), now);
        flows.shipped_bytes = uploaded_bytes;
    }

    /// What compression has done since the writer that is there now began.
    pub(crate) fn packed(&self, packed: Packed) {
        let mut state = self.state();
        let flows = &mut state.flows;
        let before = if packed.plain_bytes < flows.packed.plain_bytes { Packed::default() } else { flows.packed };
        let plain_bytes = packed.plain_bytes - before.plain_bytes;
        let stored_bytes = packed.stored_bytes - before.stored_bytes;
        flows.reduction.add(plain_bytes, stored_bytes);
        flows.packed_total.plain_bytes += plain_bytes;
        flows.packed_total.stored_bytes += stored_bytes;
        flows.packed = packed;
    }

    pub(crate) fn throughput(&self, now: Duration) -> Throughput {
        let state = self.state();
        let flows = &state.flows;
        let rate = |meter: &Meter| meter.rate(now).unwrap_or_default();
        Throughput {
            guest_bytes: rate(&flows.guest_bytes),
            guest_writes_per_s: rate(&flows.guest_writes).get(),
            shipped: rate(&flows.shipped),
            seeded: rate(&flows.seeded),
            compression: flows.reduction.ratio(),
        }
    }

    /// What all writers packed, and how many bytes were read to seed, since the domain was opened.
    pub(crate) fn totals(&self) -> (Packed, u64) {
        let state = self.state();
        (state.flows.packed_total, state.flows.seeded_bytes_total)
    }

    /// How long to wait before more is shipped, given what was uploaded in all.
    fn upload_delay(&self, uploaded_bytes: u64, now: Duration) -> Duration {
        let mut state = self.state();
        let news = uploaded_bytes.saturating_sub(state.uploaded_bytes);
        state.uploaded_bytes = uploaded_bytes;
        state.uploads.take(news, now);
        state.uploads.delay(1, now)
    }

    /// How long to wait before `bytes` of a disk are read. Zero takes them.
    fn seed_delay(&self, bytes: u64, seed_share: f64, now: Duration) -> Duration {
        let mut state = self.state();
        let rate = state.control.rate(seed_share, now);
        state.seeding.set_limit(Limit::AtMost(rate), now);
        let delay = state.seeding.delay(bytes, now);
        if delay.is_zero() {
            state.seeding.take(bytes, now);
            state.control.seeded(bytes, now);
            state.flows.seeded.add(bytes, now);
            state.flows.seeded_bytes_total += bytes;
        }
        delay
    }
}

/// Waits while uploads are ahead of their limit.
pub(crate) async fn before_shipping(shared: &Shared) {
    loop {
        let uploaded = uploaded_bytes(&shared.bucket.meter().snapshot());
        let delay = shared.pace.upload_delay(uploaded, shared.env.clock.monotonic());
        if delay.is_zero() {
            return;
        }
        tokio::time::sleep(delay.min(LOOK)).await;
    }
}

/// Waits until background replication may read so much.
pub(crate) async fn before_seeding(shared: &Shared, bytes: u64) {
    loop {
        let seed_share = shared.state().throttle.signals().seed_share;
        let delay = shared.pace.seed_delay(bytes, seed_share, shared.env.clock.monotonic());
        if delay.is_zero() {
            return;
        }
        tokio::time::sleep(delay.min(LOOK)).await;
    }
}

/// Bytes of log and base objects that were put.
pub(crate) fn uploaded_bytes(meter: &MeterSnapshot) -> u64 {
    [KeyFamily::Log, KeyFamily::Base].into_iter().map(|family| meter.get(Op::Put, family).bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_rates::Rate;

    const MIB: u64 = 1 << 20;

    #[test]
    fn uploads_wait_for_what_was_uploaded_already() {
        let pace = Pace::new(SeedOptions::default(), Duration::ZERO).unwrap();
        assert_eq!(pace.upload_delay(1 << 30, Duration::ZERO), Duration::ZERO, "there is no limit");
        pace.set_upload_limit(Limit::AtMost(Rate::new(MIB)), Duration::ZERO);
        assert_eq!(pace.upload_delay((1 << 30) + 4 * MIB, Duration::ZERO), Duration::ZERO, "a burst");
        let delay = pace.upload_delay((1 << 30) + 24 * MIB, Duration::ZERO);
        assert!((Duration::from_secs(15)..Duration::from_secs(17)).contains(&delay), "{delay:?}");
        assert_eq!(pace.upload_delay((1 << 30) + 24 * MIB, delay), Duration::ZERO, "it is paid for");
    }

    #[test]
    fn seeding_stands_still_when_the_log_fills_and_keeps_to_its_maximum() {
        let options = SeedOptions { rate_max: Rate::new(4 * MIB), ..SeedOptions::default() };
        let pace = Pace::new(options, Duration::ZERO).unwrap();
        let mut now = Duration::from_secs(60);
        let burst = (0..100).take_while(|_| pace.seed_delay(MIB, 0.0, now).is_zero()).count() as u64;
        assert!(burst * MIB <= SEED_BURST_BYTES, "nothing is left for it but a burst");
        let (from, mut read) = (now, 0);
        while read < 64 * MIB {
            match pace.seed_delay(MIB, 1.0, now) {
                Duration::ZERO => read += MIB,
                delay => now += delay,
            }
        }
        let took = now - from;
        assert!(took >= Duration::from_secs(15), "64 MiB at 4 MiB/s took {took:?}");
    }

    #[test]
    fn what_moves_is_measured_and_a_new_writer_counts_from_its_start() {
        let pace = Pace::new(SeedOptions::default(), Duration::ZERO).unwrap();
        assert_eq!(pace.throughput(Duration::ZERO), Throughput::default());
        let mut now = Duration::ZERO;
        for second in 1..=8 {
            for _ in 0..4 {
                now += Duration::from_millis(250);
                pace.guest_write(MIB, Duration::from_millis(1), now);
            }
            pace.uploaded(second * 2 * MIB, now);
        }
        pace.packed(Packed { plain_bytes: 8 * MIB, stored_bytes: 2 * MIB });
        pace.packed(Packed { plain_bytes: 4 * MIB, stored_bytes: MIB });
        let flows = pace.throughput(now);
        let near = |rate: Rate, wanted: u64| rate.get().abs_diff(wanted) < wanted / 10;
        assert!(near(flows.guest_bytes, 4 * MIB) && near(flows.shipped, 2 * MIB), "{flows:?}");
        assert_eq!((flows.guest_writes_per_s, flows.compression), (4, Some(4.0)));
        assert_eq!(pace.totals(), (Packed { plain_bytes: 12 * MIB, stored_bytes: 3 * MIB }, 0));
    }
}
