//! Whether a disk that an encryptor writes to is noticed, and a disk that is used as ever is not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tidemark_cli::logwrites::LogReader;
use tidemark_e2e::drva::Site;
use tidemark_e2e::sample;
use tidemark_e2e::system::until;
use tidemark_e2e::tables::get;
use tidemark_env::Env;
use tidemark_format::{Lsn, TimeNs};
use tidemark_telemetry::{DiskProbe, Moment, Signal, Turn, entropy};

const TIDEMARK: &str = env!("CARGO_BIN_EXE_tidemark-under-test");
const DISK: &str = "vm/disk";
const PERIOD: Duration = Duration::from_secs(60);
const BLOCK: usize = 4096;

/// What was written, and where.
type Writes = Vec<(u64, Vec<u8>)>;

/// The recorded load of a real VM: an ext4 on which files are written and synced.
fn recorded() -> Writes {
    let packed = std::fs::read(sample::path(sample::LOG)).unwrap();
    let log = zstd::stream::decode_all(&packed[..]).unwrap();
    let entries = LogReader::open(&log[..]).unwrap().map(Result::unwrap);
    entries.filter(|entry| !entry.data.is_empty()).map(|entry| (entry.offset_bytes, entry.data.to_vec())).collect()
}

/// A disk under watch, and the seconds that it has been.
struct Watched {
    probe: DiskProbe,
    second: u64,
    signals: Vec<(u64, Signal)>,
}

impl Watched {
    fn new() -> Self {
        Self { probe: DiskProbe::new(Arc::default()), second: 0, signals: Vec::new() }
    }

    /// A second with these writes in it.
    fn second<'a>(&mut self, writes: impl IntoIterator<Item = &'a (u64, Vec<u8>)>) {
        let newest = Moment { lsn: Lsn::new(self.second), time: TimeNs::new(self.second) };
        writes.into_iter().for_each(|(at, data)| self.probe.wrote(*at, data, Duration::ZERO));
        self.second += 1;
        self.probe.digest();
        let signal = self.probe.assess(Duration::from_secs(self.second), PERIOD, newest);
        self.signals.extend(signal.map(|signal| (self.second, signal)));
    }
}

/// A day of the recorded load: each second plays on for as many writes as chance says, over and over.
fn ordinary_seconds(watched: &mut Watched, seconds: u64, recorded: &Writes, env: &Env, at: &mut usize) {
    for _ in 0..seconds {
        // Mostly a few, sometimes none, now and then a burst.
        let dice = env.entropy.number();
        let count = match dice % 16 {
            0..4 => 0,
            4..15 => (dice >> 8) % 12,
            _ => 40 + (dice >> 8) % 160,
        };
        let now: Vec<_> = (0..count as usize).map(|nth| &recorded[(*at + nth) % recorded.len()]).collect();
        *at += count as usize;
        watched.second(now);
    }
}

/// The same bytes, encrypted: nobody can tell a good cipher's output from chance.
fn encrypted(env: &Env, len: usize) -> Vec<u8> {
    (0..len / 8).flat_map(|_| env.entropy.number().to_le_bytes()).collect()
}

/// How many days of the recorded load are played: each seed another one.
fn days() -> u64 {
    std::env::var("TIDEMARK_SIGNAL_DAYS").ok().and_then(|days| days.parse().ok()).unwrap_or(1)
}

fn env(seed: u64) -> Env {
    Env::seeded(seed, Arc::new(tidemark_env::ManualClock::new(TimeNs::new(1))))
}

/// The recorded load with other contents where it has random ones, as its test files do: words mostly, some that are packed.
fn with_words(recorded: &Writes) -> Writes {
    let env = env(7);
    let words = |block: &mut [u8]| {
        let packed = env.entropy.number().is_multiple_of(10);
        for byte in block {
            let dice = env.entropy.number();
            // Small letters, some more often than others.
            *byte = if packed { dice as u8 } else { b'a' + (dice % 26).min(dice >> 8 & 31) as u8 };
        }
    };
    let of = |(at, data): &(u64, Vec<u8>)| {
        let mut data = data.clone();
        data.chunks_mut(BLOCK).filter(|block| entropy(block) > 0.9).for_each(words);
        (*at, data)
    };
    recorded.iter().map(of).collect()
}

/// Alarms of an ordinary day.
fn false_alarms(load: &Writes, seed: u64) -> (Watched, usize) {
    let (mut watched, mut at) = (Watched::new(), 0);
    ordinary_seconds(&mut watched, 86_400, load, &env(seed), &mut at);
    let alarms = watched.signals.iter().filter(|(_, signal)| signal.turn == Turn::Raised).count();
    (watched, alarms)
}

/// Seconds until somebody notices that everything is read and written back encrypted, in place, at 8 MiB a second; it goes on
/// for a minute.
fn noticed_after(watched: &mut Watched, seed: u64) -> Option<u64> {
    let (began, env) = (watched.second, env(1_000 + seed));
    for second in 0..60_u64 {
        let place = |nth: u64| ((second * 32 + nth) * 256 * 1024) % (64 << 20);
        let writes: Writes = (0..32).map(|nth| (place(nth), encrypted(&env, 64 * BLOCK))).collect();
        watched.second(&writes);
        if let Some((noticed, signal)) = watched.signals.last().filter(|(noticed, _)| *noticed > began) {
            assert_eq!(signal.turn, Turn::Raised);
            let clean = signal.clean.expect("a day of clean windows").lsn.get();
            assert!((began - 60..=began).contains(&clean), "clean at {clean}, attacked at {began}");
            return Some(noticed - began);
        }
    }
    None
}

#[test]
fn a_recorded_load_raises_no_alarm_and_an_encryptor_on_such_a_disk_does_within_a_minute() {
    let recorded = recorded();
    let words = with_words(&recorded);
    let (mut alarms, mut latest) = ([0, 0], 0);
    for seed in 0..days() {
        alarms[0] += false_alarms(&recorded, seed).1;
        let (mut watched, of_words) = false_alarms(&words, seed);
        alarms[1] += of_words;
        let after = noticed_after(&mut watched, seed).unwrap_or_else(|| panic!("day {seed}: nobody noticed"));
        latest = latest.max(after);
    }
    assert_eq!(alarms, [0, 0], "false alarms in {} days", days());
    // Two windows, of which the first began before.
    assert!(latest <= 30, "noticed after {latest} s");
}

#[test]
fn a_disk_that_holds_nothing_but_chance_tells_nobody_of_an_encryptor() {
    // The limit of what entropy can say, written down so that nobody believes more.
    let (mut watched, _) = false_alarms(&recorded(), 0);
    assert_eq!(noticed_after(&mut watched, 0), None);
}

#[test]
fn an_appliance_tells_of_an_encryptor_and_names_a_point_before_it() {
    let site = Site::new(
        TIDEMARK,
        r#"
        statistics = { period = "1s", ship = "1s" }
        defaults = { rpo = "200ms" }
        [[domain]]
        name = "d"
        url = "{at}/bucket"
        create = true
        [[domain.disk]]
        vm = "vm"
        disk = "disk"
        primary = "{at}/disk.img"
        "#,
    );
    site.image("disk.img", 64 << 20);
    let daemon = site.serve(DISK);
    site.until_disk_is(DISK, "protected");
    let flag = site.path("encrypt").display().to_string();
    // A log that is written over and over in the first MiB; then everything behind it is encrypted.
    let script = format!(
        "import os\nline = (b'2026-11-25 09:00:00 order accepted ' * 2000)[:65536]\nn = 0\n\
         while not os.path.exists('{flag}'):\n  h.pwrite(line, 65536 * (n % 8)); n += 1\n\
         while True:\n  h.pwrite(os.urandom(65536), (1 << 20) + 65536 * (n % 960)); n += 1\n"
    );
    let mut guest = Command::new("/usr/bin/python3");
    let mut guest = guest.args(["-m", "nbd", "-u", &site.uri(DISK), "-c", &script]).spawn().unwrap();
    let metrics = || get(&site.path("api.sock"), "/metrics").1;
    until("past that is known", || metrics().contains("\ntidemark_disk_anomaly_ratio{"));
    std::fs::write(&flag, "").unwrap();
    let events = || site.drva(&["events"]);
    let found = || events().as_array().unwrap().iter().find(|event| event["kind"] == "disk-suspicious").cloned();
    until("event", || found().is_some());
    until("metric", || {
        metrics().lines().any(|line| line.starts_with("tidemark_disk_suspicious_ratio{") && line.ends_with(" 1"))
    });
    guest.kill().unwrap();
    guest.wait().unwrap();
    let event = found().unwrap();
    assert_eq!((&event["severity"], &event["disk"]), (&"warning".into(), &"disk".into()), "{event}");
    assert!(event["data"]["entropy"].as_f64().unwrap() > 0.9, "{event}");
    site.drain();
    let clean = event["data"]["clean_lsn"].as_u64().unwrap();
    let image = std::fs::read(site.restored(DISK, &format!("lsn:{clean}"))).unwrap();
    assert!(image[1 << 20..].iter().all(|byte| *byte == 0), "nothing was encrypted at the clean point {clean}");
    assert!(image[..1 << 20].iter().any(|byte| *byte != 0), "the guest's own writes are there");
    until("end of the alarm", || events().as_array().unwrap().iter().any(|event| event["kind"] == "disk-unsuspicious"));
    daemon.stop();
}
