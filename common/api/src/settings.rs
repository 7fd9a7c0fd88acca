//! How a domain is protected: targets, limits and policies, whole or as a change to them.

use crate::check::{Check, Complaint};
use crate::limit::Limit;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use utoipa::ToSchema;

/// When a write is acknowledged to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProtectionMode {
    /// It is in the replication log and on the primary disk.
    WriteThrough,
    /// It is in the replication log; the primary disk catches up.
    WriteBack,
}

impl ProtectionMode {
    /// The word in texts and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WriteThrough => "write-through",
            Self::WriteBack => "write-back",
        }
    }
}

/// What becomes of a disk's writes when the log is as full as it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OverflowPolicy {
    /// They wait until there is room: no write goes unprotected, and the VM stands still.
    Stall,
    /// They go to the primary disk alone, changed ranges are noted, and the history of the disk has a gap that a resync
    /// closes.
    Degrade,
}

impl OverflowPolicy {
    /// The word in texts and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stall => "stall",
            Self::Degrade => "degrade",
        }
    }
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "days need no explanation")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// From Monday on.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// The day before.
    pub fn before(self) -> Self {
        Self::ALL[(self as usize + 6) % 7]
    }
}

/// A minute of a day, `HH:MM` on the wire; `24:00` is the end of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(u16);

/// A text that names no minute of a day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time of day such as 08:00")]
pub struct NotATimeOfDay(String);

impl TimeOfDay {
    /// The end of a day.
    pub const END: Self = Self(24 * 60);

    /// So many minutes after midnight; what is beyond the end of the day is its end.
    pub fn from_minutes(minutes: u16) -> Self {
        Self(minutes.min(Self::END.0))
    }
}

impl FromStr for TimeOfDay {
    type Err = NotATimeOfDay;

    fn from_str(text: &str) -> Result<Self, NotATimeOfDay> {
        let bad = || NotATimeOfDay(text.chars().take(20).collect());
        let (hour, minute) = text.split_once(':').ok_or_else(bad)?;
        let number = |text: &str| {
            let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| digits)
        };
        match (number(hour), number(minute)) {
            (Some(hour @ 0..24), Some(minute @ 0..60)) => Ok(Self(hour * 60 + minute)),
            (Some(24), Some(0)) => Ok(Self::END),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Hours of the week with an upload limit of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BandwidthWindow {
    /// Days on which it begins.
    pub days: Vec<Day>,
    /// From this minute on.
    #[schema(value_type = String, pattern = "^[0-2][0-9]:[0-5][0-9]$", example = "08:00")]
    pub from: TimeOfDay,
    /// Until before this one; if that is not after `from`, on the next day.
    #[schema(value_type = String, pattern = "^[0-2][0-9]:[0-5][0-9]$", example = "18:00")]
    pub to: TimeOfDay,
    /// The limit, in bytes a second.
    pub upload_bytes_per_s: Limit,
}

impl BandwidthWindow {
    fn covers(&self, day: Day, minute: TimeOfDay) -> bool {
        if self.from < self.to {
            return self.days.contains(&day) && (self.from..self.to).contains(&minute);
        }
        self.days.contains(&day) && minute >= self.from || self.days.contains(&day.before()) && minute < self.to
    }
}

/// Defines the settings once: whole, as a change, and how one applies to the other.
macro_rules! settings {
    ($($(#[$meta:meta])* $name:ident: $type:ty = $default:expr,)*) => {
        /// How a domain is protected.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct Settings {
            $($(#[$meta])* pub $name: $type,)*
        }

        /// A change to settings: what is absent stays as it is.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct SettingsPatch {
            $($(#[$meta])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $name: Option<$type>,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Settings {
            /// These settings with a change.
            #[must_use]
            pub fn with(&self, patch: &SettingsPatch) -> Self {
                Self { $($name: patch.$name.clone().unwrap_or_else(|| self.$name.clone()),)* }
            }
        }

        impl SettingsPatch {
            /// This change with a later one on top.
            #[must_use]
            pub fn with(&self, later: &Self) -> Self {
                Self { $($name: later.$name.clone().or_else(|| self.$name.clone()),)* }
            }
        }
    };
}

settings! {
    /// A write is in the bucket this long after its ack, if the uplink keeps up: the age at which a segment is cut.
    rpo_ms: u64 = 5_000,
    /// A segment is cut at this many bytes of writes.
    segment_bytes: u64 = 64 << 20,
    /// zstd level, 1 to 19.
    zstd_level: i32 = 1,
    /// Upload limit in bytes a second, outside of the windows of `bandwidth`.
    upload_bytes_per_s: Limit = Limit::Unlimited,
    /// Hours with another upload limit; the first that covers the moment counts. In the appliance's time zone.
    bandwidth: Vec<BandwidthWindow> = Vec::new(),
    /// Limit of seeding and resync, in bytes of the disk read a second.
    seed_bytes_per_s: Limit = Limit::Unlimited,
    /// Seeding slows down once guest writes take longer than this, in milliseconds.
    seed_guest_latency_ms_max: u64 = 20,
    /// When a write is acknowledged, for disks that do not say otherwise.
    mode: ProtectionMode = ProtectionMode::WriteThrough,
    /// What becomes of writes when the log is full, for disks that do not say otherwise.
    overflow: OverflowPolicy = OverflowPolicy::Degrade,
    /// Bytes of the log store kept for this domain.
    log_bytes_min: u64 = 64 << 20,
    /// Bytes of the log store that this domain may take.
    log_bytes_max: Limit = Limit::Unlimited,
    /// Fill of the log, 0 to 1, from which guest writes are slowed down.
    throttle_start_fill: f64 = 0.5,
    /// Milliseconds by which throttling delays one guest write at most.
    throttle_latency_ms_max: u64 = 1_000,
}

/// Windows in a calendar at most.
const WINDOWS_MAX: u64 = 168;

impl Settings {
    /// The upload limit at a minute of the week.
    pub fn upload_limit_at(&self, day: Day, minute: TimeOfDay) -> Limit {
        let window = self.bandwidth.iter().find(|window| window.covers(day, minute));
        window.map_or(self.upload_bytes_per_s, |window| window.upload_bytes_per_s)
    }
}

impl Check for Settings {
    fn check(&self) -> Result<(), Complaint> {
        let within = |member: &str, value: u64, range: RangeInclusive<u64>, unit: &str| {
            if range.contains(&value) {
                return Ok(());
            }
            let (least, most) = range.into_inner();
            Err(Complaint::new(member, format!("{value} {unit} is not within {least} and {most} {unit}")))
        };
        within("rpo_ms", self.rpo_ms, 50..=86_400_000, "ms")?;
        within("segment_bytes", self.segment_bytes, 64 << 10..=128 << 20, "bytes")?;
        if !(1..=19).contains(&self.zstd_level) {
            let what = format!("{} is not a level of zstd within 1 and 19", self.zstd_level);
            return Err(Complaint::new("zstd_level", what).hint("1 is fast, 3 is usual, above 9 a core is too slow"));
        }
        within("seed_guest_latency_ms_max", self.seed_guest_latency_ms_max, 1..=60_000, "ms")?;
        within("throttle_latency_ms_max", self.throttle_latency_ms_max, 1..=25_000, "ms")
            .map_err(|e| e.hint("guests give a disk up after 30 s"))?;
        if !(0.05..=0.95).contains(&self.throttle_start_fill) {
            let what = format!("{} is not a fill within 0.05 and 0.95", self.throttle_start_fill);
            return Err(Complaint::new("throttle_start_fill", what).hint("0.5 begins when the log is half full"));
        }
        if let Some(max) = self.log_bytes_max.get().filter(|max| *max < self.log_bytes_min) {
            let what = format!("the maximum of {max} bytes is below the minimum of {} bytes", self.log_bytes_min);
            return Err(Complaint::new("log_bytes_max", what).hint("raise the one or lower the other"));
        }
        within("bandwidth", self.bandwidth.len() as u64, 0..=WINDOWS_MAX, "windows")?;
        for (number, window) in self.bandwidth.iter().enumerate() {
            if window.days.is_empty() {
                let what = "a window without days never begins".to_owned();
                return Err(Complaint::new(format!("bandwidth[{number}].days"), what).hint("days = [\"mon\", \"tue\"]"));
            }
        }
        Ok(())
    }
}

/// Whether the whole works shows once it is applied.
impl Check for SettingsPatch {
    fn check(&self) -> Result<(), Complaint> {
        Ok(())
    }
}
