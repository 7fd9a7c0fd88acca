//! `drva.toml` as it is written: keys without units, since their values have them.

use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use tidemark_api::{
    BandwidthWindow, Day, DiskSpec, DomainSpec, OverflowPolicy, ProtectionMode, SettingsPatch, TimeOfDay,
};
use tidemark_config::{Rate, Size, SizeLimit, Span};

/// The names in files of the members that the API names with their units, or arranges in another way.
const NAMES: &[(&str, &str)] = &[
    ("disks", "disk"),
    ("size_bytes", "size"),
    ("rpo_ms", "rpo"),
    ("segment_bytes", "segment_size"),
    ("upload_bytes_per_s", "upload"),
    ("seed_bytes_per_s", "seed"),
    ("seed_guest_latency_ms_max", "seed_guest_latency_max"),
    ("log_bytes_min", "log_min"),
    ("log_bytes_max", "log_max"),
    ("throttle_start_fill", "throttle.start_fill"),
    ("throttle_latency_ms_max", "throttle.latency_max"),
];

/// The path in a file of a member of the API, such as `disk[1].size` of `disks[1].size_bytes`.
pub(super) fn path_of(member: &str) -> String {
    let step = |step: &str| {
        let (name, index) = step.split_at(step.find('[').unwrap_or(step.len()));
        let renamed = NAMES.iter().find(|(member, _)| *member == name).map_or(name, |(_, key)| key);
        format!("{renamed}{index}")
    };
    member.split('.').map(step).collect::<Vec<_>>().join(".")
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) appliance: Appliance,
    pub(super) log_store: LogStore,
    pub(super) nbd: Nbd,
    #[serde(default)]
    pub(super) statistics: Statistics,
    #[serde(default)]
    pub(super) maintenance: Maintenance,
    #[serde(default)]
    pub(super) defaults: Settings,
    #[serde(default)]
    pub(super) domain: Vec<Domain>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Appliance {
    pub(super) name: String,
    pub(super) state: PathBuf,
    pub(super) socket: Option<PathBuf>,
    pub(super) fence_check: Option<Span>,
    pub(super) time_zone: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogStore {
    pub(super) path: PathBuf,
    pub(super) size: Option<Size>,
    pub(super) cache_max: Option<Size>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nbd {
    pub(super) socket: Option<PathBuf>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) tls: Option<Tls>,
    #[serde(default)]
    pub(super) allow_plain: bool,
    pub(super) connections_max: Option<u32>,
    pub(super) requests_max: Option<u32>,
    pub(super) buffer_max: Option<Size>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) required: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Statistics {
    pub(super) listen: Option<SocketAddr>,
    pub(super) period: Option<Span>,
    pub(super) ship: Option<Span>,
    pub(super) prices: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Maintenance {
    pub(super) every: Option<Span>,
    #[serde(default)]
    pub(super) delete: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    rpo: Option<Span>,
    segment_size: Option<Size>,
    zstd_level: Option<i32>,
    upload: Option<Rate>,
    bandwidth: Option<Vec<Window>>,
    seed: Option<Rate>,
    seed_guest_latency_max: Option<Span>,
    mode: Option<ProtectionMode>,
    overflow: Option<OverflowPolicy>,
    log_min: Option<Size>,
    log_max: Option<SizeLimit>,
    #[serde(default)]
    throttle: Throttle,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Throttle {
    start_fill: Option<f64>,
    latency_max: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    days: Vec<Day>,
    from: TimeOfDay,
    to: TimeOfDay,
    upload: Rate,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Domain {
    name: String,
    url: String,
    #[serde(default)]
    create: bool,
    #[serde(default)]
    settings: Settings,
    #[serde(default)]
    disk: Vec<Disk>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disk {
    vm: String,
    disk: String,
    primary: Option<String>,
    size: Option<Size>,
    mode: Option<ProtectionMode>,
    overflow: Option<OverflowPolicy>,
    #[serde(default)]
    shared: bool,
    export: Option<String>,
}

impl From<Settings> for SettingsPatch {
    fn from(file: Settings) -> Self {
        let window = |window: Window| BandwidthWindow {
            days: window.days,
            from: window.from,
            to: window.to,
            upload_bytes_per_s: window.upload.value,
        };
        let ms = |span: Span| u64::try_from(span.value.as_millis()).unwrap_or(u64::MAX);
        Self {
            rpo_ms: file.rpo.map(ms),
            segment_bytes: file.segment_size.map(|size| size.value),
            zstd_level: file.zstd_level,
            upload_bytes_per_s: file.upload.map(|rate| rate.value),
            bandwidth: file.bandwidth.map(|windows| windows.into_iter().map(window).collect()),
            seed_bytes_per_s: file.seed.map(|rate| rate.value),
            seed_guest_latency_ms_max: file.seed_guest_latency_max.map(ms),
            mode: file.mode,
            overflow: file.overflow,
            log_bytes_min: file.log_min.map(|size| size.value),
            log_bytes_max: file.log_max.map(|limit| limit.value),
            throttle_start_fill: file.throttle.start_fill,
            throttle_latency_ms_max: file.throttle.latency_max.map(ms),
        }
    }
}

impl From<Domain> for DomainSpec {
    fn from(file: Domain) -> Self {
        let Domain { name, url, create, settings, disk } = file;
        Self { name, url, create, settings: settings.into(), disks: disk.into_iter().map(DiskSpec::from).collect() }
    }
}

impl From<Disk> for DiskSpec {
    fn from(file: Disk) -> Self {
        let Disk { vm, disk, primary, size, mode, overflow, shared, export } = file;
        Self { vm, disk, primary, size_bytes: size.map(|size| size.value), mode, overflow, shared, export }
    }
}
