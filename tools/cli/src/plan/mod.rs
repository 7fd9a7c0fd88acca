//! What protecting a load takes: room in the log store, uplink, bucket, requests, money, and the time to come back.
//!
//! A [`Load`] says what guests write, [`Wishes`] what is promised to them, price sheets what stores charge; [`plan`] says what follows.
//! Pure. Each figure has beside it what it will hardly be below and above, and the plan lists what it assumes.
//! Not here: where loads come from ([`sources`], `commands/plan`).

mod load;
mod sources;

pub use load::{Distinct, Load};
pub use sources::{SourceError, of_blklogwrites, of_blktrace, of_fio, of_iostat};

use serde::Serialize;
use tidemark_prices::{MONTH, Money, Requests, Sheet, Usage};

const SECONDS_PER_DAY: f64 = 86_400.0;
const MIB: f64 = 1_048_576.0;
/// What compression makes of guest data where nobody measured it: plain bytes for each stored.
const COMPRESSION_GUESSED: f64 = 2.0;
/// Of the bytes that are written in a day, the part that is distinct where nobody measured it.
const DISTINCT_GUESSED: f64 = 0.5;
/// What a write takes in the local log besides its data, if it comes alone: the header of its batch, padded to a page. Writes that come
/// together share it.
const LOG_BYTES_PER_WRITE: f64 = 4096.0;
/// The throttle's band begins here: a log that takes an outage without slowing guests has so much room in front of it.
const THROTTLE_START_FILL: f64 = 0.5;
/// What a segment holds besides compressed data, for each write, and for itself.
const SEGMENT_BYTES_PER_WRITE: f64 = 12.0;
const SEGMENT_BYTES: f64 = 1024.0;
/// Of what is stored, the part that no point needs before maintenance rewrites it.
const DEAD_SHARE_MAX: f64 = 0.25;
/// Requests that opening a point takes one after the other, and how long one takes.
const OPEN_REQUESTS: f64 = 8.0;
const REQUEST_S: f64 = 0.08;
/// Plain bytes that a recovery's request reads.
const READ_BYTES: f64 = 65_536.0;

/// Requests a second, measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RequestRates {
    /// That store.
    pub puts: f64,
    /// That read, or ask for a length.
    pub gets: f64,
    /// That list.
    pub lists: f64,
}

/// What is promised.
#[derive(Clone, Debug, PartialEq)]
pub struct Wishes {
    /// The bucket may be away for so long without harm.
    pub outage_s: f64,
    /// A write is in the bucket after so long.
    pub rpo_s: f64,
    /// Plain bytes of a segment at most.
    pub segment_bytes: f64,
    /// Every point of so many days is kept.
    pub window_days: f64,
    /// Points before that.
    pub ladder: Ladder,
    /// Bytes that the disks hold when protection begins.
    pub disk_bytes: f64,
    /// What a recovery reads with, bytes a second.
    pub downlink_bytes_per_s: f64,
    /// What a guest reads until it serves.
    pub boot_bytes: f64,
    /// How long a guest takes to start from a local disk.
    pub boot_s: f64,
}

/// How many points of which distance are kept before the window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ladder {
    /// An hour apart.
    pub hourly: u32,
    /// A day apart.
    pub daily: u32,
    /// A week apart.
    pub weekly: u32,
    /// A month apart.
    pub monthly: u32,
}

impl Ladder {
    /// Points and the days between them.
    fn rungs(self) -> [(f64, f64); 4] {
        let month = MONTH.as_secs_f64() / SECONDS_PER_DAY;
        [(self.hourly, 1.0 / 24.0), (self.daily, 1.0), (self.weekly, 7.0), (self.monthly, month)]
            .map(|(points, days)| (f64::from(points), days))
    }
}

/// A figure with its error bars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// Most likely.
    pub likely: f64,
    /// Hardly below.
    pub low: f64,
    /// Hardly above.
    pub high: f64,
}

impl Estimate {
    fn around(likely: f64, error: f64) -> Self {
        Self { likely, low: likely * (1.0 - error).max(0.0), high: likely * (1.0 + error) }
    }

    fn each(self, of: impl Fn(f64) -> f64) -> Self {
        Self { likely: of(self.likely), low: of(self.low), high: of(self.high) }
    }

    fn times(self, factor: f64) -> Self {
        self.each(|value| value * factor)
    }

    fn plus(self, other: Self) -> Self {
        Self { likely: self.likely + other.likely, low: self.low + other.low, high: self.high + other.high }
    }

    /// Divided by what is large where this is small.
    fn over(self, other: Self) -> Self {
        Self { likely: self.likely / other.likely, low: self.low / other.high, high: self.high / other.low }
    }
}

/// A sum of money with its error bars, in billionths of the currency's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Price {
    /// Most likely.
    pub likely_nanos: u64,
    /// Hardly below.
    pub low_nanos: u64,
    /// Hardly above.
    pub high_nanos: u64,
}

/// What it takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Written by guests in a day.
    pub written_bytes_per_day: Estimate,
    /// Plain bytes for each stored.
    pub compression: Estimate,
    /// Size of the log store.
    pub log_store_bytes: Estimate,
    /// What the uplink has to carry.
    pub uplink_bytes_per_s: Estimate,
    /// What goes to the bucket in a day.
    pub shipped_bytes_per_day: Estimate,
    /// What the bucket holds.
    pub bucket: BucketPlan,
    /// Requests a month.
    pub put_requests_per_month: Estimate,
    /// Requests a month.
    pub get_requests_per_month: Estimate,
    /// Requests a month.
    pub list_requests_per_month: Estimate,
    /// Money, by each price sheet.
    pub costs: Vec<CostPlan>,
    /// Until a guest serves from its bucket.
    pub rto_start_s: Estimate,
    /// Until its disks are local again.
    pub rto_local_s: Estimate,
    /// What was assumed, for people.
    pub assumptions: Vec<String>,
}

/// What the bucket holds, by retention.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BucketPlan {
    /// What the disks held at the beginning.
    pub base_bytes: Estimate,
    /// Every write of the window.
    pub window_bytes: Estimate,
    /// Points an hour apart, before it.
    pub hourly_bytes: Estimate,
    /// Points a day apart.
    pub daily_bytes: Estimate,
    /// Points a week apart.
    pub weekly_bytes: Estimate,
    /// Points a month apart.
    pub monthly_bytes: Estimate,
    /// All of it.
    pub total_bytes: Estimate,
}

/// Money by one price sheet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CostPlan {
    /// The sheet.
    pub sheet: String,
    /// Three letters.
    pub currency: String,
    /// A month's requests.
    pub requests_per_month: Price,
    /// A month's storage.
    pub storage_per_month: Price,
    /// One recovery that brings every disk home.
    pub recovery: Price,
}

/// What it takes to protect `load` as wished.
pub fn plan(load: &Load, wishes: &Wishes, sheets: &[Sheet]) -> Plan {
    let mut assumptions =
        vec![format!("the load goes on as {} showed it, over {}", load.source, span(load.covered_s()))];
    let rate = Estimate::around(load.rate(), load.error());
    let compression = match load.compression {
        Some(measured) => Estimate::around(measured.max(1.0), 0.05),
        None => {
            assumptions.push(format!("guest data compresses {COMPRESSION_GUESSED} to 1 (nobody measured it)"));
            Estimate { likely: COMPRESSION_GUESSED, low: 1.0, high: 4.0 }
        }
    };
    let writes_per_s = load.writes / load.covered_s();
    let segments_per_s = (load.rate() / wishes.segment_bytes).max(f64::min(writes_per_s, 1.0 / wishes.rpo_s));
    let besides = writes_per_s * SEGMENT_BYTES_PER_WRITE + segments_per_s * SEGMENT_BYTES;
    let shipped = rate.over(compression).each(|bytes| bytes + besides);
    let rto = recovery_time(wishes, compression, &mut assumptions);
    let bucket = bucket(load, wishes, compression, shipped, &mut assumptions);
    let requests = requests(load, wishes, segments_per_s, &mut assumptions);
    let cost = |sheet: &Sheet| costs(sheet, &requests, &bucket);
    let costs: Vec<_> = sheets.iter().map(cost).collect();
    for sheet in sheets {
        let (source, as_of) = sheet.source();
        assumptions.push(format!("{} charges what {source} said on {as_of}: {}", sheet.name(), sheet.about()));
    }
    Plan {
        written_bytes_per_day: rate.times(SECONDS_PER_DAY),
        compression,
        log_store_bytes: log_store(load, wishes, rate, writes_per_s, &mut assumptions),
        uplink_bytes_per_s: uplink(load, wishes, rate, shipped, &mut assumptions),
        shipped_bytes_per_day: shipped.times(SECONDS_PER_DAY),
        bucket,
        put_requests_per_month: requests[0],
        get_requests_per_month: requests[1],
        list_requests_per_month: requests[2],
        costs,
        rto_start_s: rto[0],
        rto_local_s: rto[1],
        assumptions,
    }
}

/// Room for an outage at the busiest time.
fn log_store(
    load: &Load,
    wishes: &Wishes,
    rate: Estimate,
    writes_per_s: f64,
    assumptions: &mut Vec<String>,
) -> Estimate {
    let besides = if load.rate() > 0.0 { writes_per_s * LOG_BYTES_PER_WRITE / load.rate() } else { 0.0 };
    let most = load.most_within(wishes.outage_s);
    let usual = (rate.low * wishes.outage_s).min(most);
    assumptions.push(format!(
        "an outage of {} comes at the busiest time; guests are not slowed, so the log is at most {} % full",
        span(wishes.outage_s),
        THROTTLE_START_FILL * 100.0
    ));
    // Writes that come together share a page of the log: at best they need no more than their data.
    Estimate { likely: most * (1.0 + besides), low: usual, high: most * (1.0 + load.error()) * (1.0 + besides) }
        .times(1.0 / THROTTLE_START_FILL)
}

/// What brings every write into the bucket in time.
fn uplink(load: &Load, wishes: &Wishes, rate: Estimate, shipped: Estimate, assumptions: &mut Vec<String>) -> Estimate {
    let part = |shipped: f64, rate: f64| if rate > 0.0 { shipped / rate } else { 0.0 };
    let drained = load.drain_within(wishes.rpo_s);
    let likely = drained * part(shipped.likely, rate.likely);
    match load.peak_guess() {
        Some(guess) => assumptions.push(format!("the peak is {guess} times the mean (nobody measured it)")),
        None if load.period_s > wishes.rpo_s => assumptions.push(format!(
            "bursts shorter than {} were not seen, and the uplink may be full for as long",
            span(load.period_s)
        )),
        None => {}
    }
    Estimate {
        likely,
        low: shipped.low.min(likely),
        high: (drained.max(load.peak()) * part(shipped.high, rate.high)).max(likely),
    }
}

fn bucket(
    load: &Load,
    wishes: &Wishes,
    compression: Estimate,
    shipped: Estimate,
    assumptions: &mut Vec<String>,
) -> BucketPlan {
    let day = match load.distinct {
        Some(distinct) => Estimate::around(distinct.within(SECONDS_PER_DAY).min(load.rate() * SECONDS_PER_DAY), 0.25),
        None => {
            let part = DISTINCT_GUESSED * 100.0;
            assumptions.push(format!("{part} % of what a day writes is distinct (nobody measured it)"));
            let all = load.rate() * SECONDS_PER_DAY;
            Estimate { likely: DISTINCT_GUESSED * all, low: DISTINCT_GUESSED / 4.0 * all, high: all }
        }
    };
    let base = Estimate::around(wishes.disk_bytes, 0.2).over(compression);
    // A rung keeps what changed since the one before, at most whole disks.
    let rung = |(points, days): (f64, f64)| {
        let kept = day.each(|bytes| (bytes * days.sqrt()).min(wishes.disk_bytes.max(bytes))).over(compression);
        kept.times(points)
    };
    let [hourly_bytes, daily_bytes, weekly_bytes, monthly_bytes] = wishes.ladder.rungs().map(rung);
    let ladder = hourly_bytes.plus(daily_bytes).plus(weekly_bytes).plus(monthly_bytes);
    if ladder.likely > 0.0 {
        assumptions
            .push("what is distinct grows with the square root of the time; rungs share nothing else".to_owned());
    }
    let window_bytes = shipped.times(wishes.window_days * SECONDS_PER_DAY);
    let total = base.plus(window_bytes).plus(ladder);
    assumptions.push(format!(
        "maintenance runs; at worst {} % of what is stored is needed by no point",
        DEAD_SHARE_MAX * 100.0
    ));
    let total_bytes = Estimate { high: total.high / (1.0 - DEAD_SHARE_MAX), ..total };
    BucketPlan { base_bytes: base, window_bytes, hourly_bytes, daily_bytes, weekly_bytes, monthly_bytes, total_bytes }
}

/// PUTs, GETs and LISTs of a month.
fn requests(load: &Load, wishes: &Wishes, segments_per_s: f64, assumptions: &mut Vec<String>) -> [Estimate; 3] {
    let (rates, error) = match load.requests {
        Some(measured) => (measured, load.error()),
        None => {
            assumptions.push(format!(
                "a segment each {} or {} MiB, and a look for a newer claim with each; maintenance's requests are not in here",
                span(wishes.rpo_s),
                wishes.segment_bytes / MIB
            ));
            (RequestRates { puts: segments_per_s, gets: segments_per_s, lists: 0.0 }, 0.3)
        }
    };
    [rates.puts, rates.gets, rates.lists].map(|per_s| Estimate::around(per_s * MONTH.as_secs_f64(), error))
}

fn costs(sheet: &Sheet, [puts, gets, lists]: &[Estimate; 3], bucket: &BucketPlan) -> CostPlan {
    let price = |of: &dyn Fn(fn(Estimate) -> f64) -> Money| Price {
        likely_nanos: of(|estimate| estimate.likely).nanos(),
        low_nanos: of(|estimate| estimate.low).nanos(),
        high_nanos: of(|estimate| estimate.high).nanos(),
    };
    // What is negative or beyond 64 bits becomes the nearest that is not.
    let whole = |value: f64| value.round() as u64;
    CostPlan {
        sheet: sheet.name().to_owned(),
        currency: sheet.currency().to_owned(),
        requests_per_month: price(&|side| {
            let (put, get, list) = (whole(side(*puts)), whole(side(*gets)), whole(side(*lists)));
            sheet.requests(&Requests { put, get, list, ..Requests::default() })
        }),
        storage_per_month: price(&|side| sheet.month(whole(side(bucket.total_bytes)))),
        recovery: price(&|side| {
            let read_bytes = whole(side(bucket.base_bytes));
            let get = whole(side(bucket.base_bytes) / READ_BYTES);
            sheet.usage(&Usage { requests: Requests { get, ..Requests::default() }, read_bytes })
        }),
    }
}

/// Until a guest serves, and until its disks are local.
fn recovery_time(wishes: &Wishes, compression: Estimate, assumptions: &mut Vec<String>) -> [Estimate; 2] {
    let transfer = |bytes: Estimate| bytes.over(compression).times(1.0 / wishes.downlink_bytes_per_s);
    let opened = OPEN_REQUESTS * REQUEST_S;
    let opened = Estimate { likely: opened, low: opened / 4.0, high: opened * 4.0 };
    assumptions.push(format!(
        "a guest reads {} MiB and takes {} until it serves; a request takes {} ms",
        wishes.boot_bytes / MIB,
        span(wishes.boot_s),
        REQUEST_S * 1e3
    ));
    let start =
        transfer(Estimate::around(wishes.boot_bytes, 0.5)).plus(Estimate::around(wishes.boot_s, 0.5)).plus(opened);
    [start, transfer(Estimate::around(wishes.disk_bytes, 0.2)).plus(opened)]
}

/// Seconds, for people.
pub(crate) fn span(seconds: f64) -> String {
    let told = |value: f64, unit: &str| format!("{} {unit}", (value * 10.0).round() / 10.0);
    match seconds {
        s if s < 120.0 => told(s, "s"),
        s if s < 7200.0 => told(s / 60.0, "min"),
        s if s < 2.0 * SECONDS_PER_DAY => told(s / 3600.0, "h"),
        s => told(s / SECONDS_PER_DAY, "days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(written_bytes: Vec<f64>) -> Load {
        let writes = written_bytes.iter().sum::<f64>() / 65536.0;
        Load { writes, compression: Some(2.0), ..Load::new("a test", written_bytes, 60.0) }
    }

    fn wishes() -> Wishes {
        Wishes {
            outage_s: 3600.0,
            rpo_s: 60.0,
            segment_bytes: 16.0 * MIB,
            window_days: 7.0,
            ladder: Ladder::default(),
            disk_bytes: 100e9,
            downlink_bytes_per_s: 100.0 * MIB,
            boot_bytes: 300.0 * MIB,
            boot_s: 20.0,
        }
    }

    fn sheets() -> Vec<Sheet> {
        ["aws-s3-standard", "own"].into_iter().filter_map(Sheet::named).collect()
    }

    #[test]
    fn a_steady_load_needs_its_rate() {
        let plan = plan(&load(vec![60.0 * MIB; 1440]), &wishes(), &sheets());
        let near = |value: f64, wanted: f64| (value / wanted - 1.0).abs() < 0.05;
        assert!(near(plan.written_bytes_per_day.likely, 86_400.0 * MIB));
        assert!(near(plan.uplink_bytes_per_s.likely, 0.5 * MIB), "{:?}", plan.uplink_bytes_per_s);
        let logged = 3600.0 * MIB * (1.0 + 4096.0 / 65536.0);
        assert!(near(plan.log_store_bytes.likely, 2.0 * logged), "{:?}", plan.log_store_bytes);
        let window = 7.0 * 43_200.0 * MIB;
        assert!(near(plan.bucket.window_bytes.likely, window));
        assert!(near(plan.bucket.total_bytes.likely, 50e9 + window));
        let puts = MONTH.as_secs_f64() / 16.0;
        assert!(near(plan.put_requests_per_month.likely, puts), "{:?}", plan.put_requests_per_month);
        let [s3, own] = &plan.costs[..] else { panic!("two sheets") };
        let gib = (50e9 + window) / (1024.0 * MIB);
        assert!(near(s3.storage_per_month.likely_nanos as f64 / 1e9, gib * 0.023), "{s3:?}");
        assert!(near(s3.requests_per_month.likely_nanos as f64 / 1e9, puts * (0.005 + 0.0004) / 1e3), "{s3:?}");
        assert_eq!(own.recovery.high_nanos, 0);
        assert!(near(plan.rto_start_s.likely, 20.0 + 1.5 + 0.64), "{:?}", plan.rto_start_s);
    }

    #[test]
    fn bursts_need_more_log_and_uplink_and_patience_needs_less() {
        let mut written = vec![MIB; 1440];
        written[600..620].fill(600.0 * MIB);
        let bursts = load(written);
        let plan_of = |rpo_s, outage_s| plan(&bursts, &Wishes { rpo_s, outage_s, ..wishes() }, &[]);
        let hurried = plan_of(5.0, 3600.0).uplink_bytes_per_s.likely;
        let patient = plan_of(3600.0, 3600.0).uplink_bytes_per_s.likely;
        assert!(hurried > 4.0 * MIB && patient < hurried / 3.0, "{hurried} {patient}");
        let log = |outage_s| plan_of(60.0, outage_s).log_store_bytes.likely;
        let (short, long) = (log(600.0), log(7200.0));
        assert!(short > 2.0 * 6000.0 * MIB && long < 1.2 * 2.0 * 12_100.0 * MIB && long > short, "{short} {long}");
    }

    #[test]
    fn a_longer_ladder_keeps_more_and_no_rung_more_than_the_disks() {
        let ladder = Ladder { hourly: 24, daily: 30, weekly: 8, monthly: 12 };
        let of = |disk_bytes| plan(&load(vec![1e9; 1440]), &Wishes { ladder, disk_bytes, ..wishes() }, &[]).bucket;
        let kept = of(100e12);
        let day = DISTINCT_GUESSED * 1440e9 / 2.0;
        assert!((kept.daily_bytes.likely / (30.0 * day) - 1.0).abs() < 0.01, "{kept:?}");
        assert!(kept.monthly_bytes.likely > 12.0 * day && kept.hourly_bytes.likely < 24.0 * day);
        assert_eq!(of(1e12).monthly_bytes.likely, 12.0 * 1e12 / 2.0);
    }

    #[test]
    fn what_nobody_measured_is_said() {
        let guessed = Load { compression: None, ..load(vec![1e9]) };
        let ladder = Ladder { daily: 30, ..Ladder::default() };
        let plan = plan(&guessed, &Wishes { ladder, ..wishes() }, &sheets());
        for word in ["compresses", "peak", "distinct", "aws.amazon.com", "segment each"] {
            assert!(plan.assumptions.iter().any(|assumed| assumed.contains(word)), "{word}: {:?}", plan.assumptions);
        }
        assert!(plan.compression.low < plan.compression.likely);
        assert!(plan.shipped_bytes_per_day.low < plan.shipped_bytes_per_day.high);
    }

    #[test]
    fn error_bars_are_around_every_figure_also_of_an_idle_load() {
        for written in [vec![0.0; 10], vec![0.0], vec![5e8, 0.0, 1e3, 7e9], vec![1e9; 100]] {
            let plan = plan(&load(written), &wishes(), &sheets());
            let told = serde_json::to_value(&plan).unwrap();
            let bucket = told["bucket"].as_object().unwrap();
            let figures =
                told.as_object().unwrap().iter().chain(bucket).filter(|(_, figure)| figure["likely"].is_f64());
            let mut seen = 0;
            for (name, figure) in figures {
                let [low, likely, high] = ["low", "likely", "high"].map(|side| figure[side].as_f64().unwrap());
                assert!(low <= likely && likely <= high && high.is_finite(), "{name}: {figure}");
                seen += 1;
            }
            assert_eq!(seen, 17);
        }
    }
}
