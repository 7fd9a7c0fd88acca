//! From a file's keys to a configuration that can work.

use super::file::{self, path_of};
use super::{Appliance, Config, LogStore, Maintenance, Nbd, Statistics, Tls};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tidemark_api::{Check, Complaint, DRVA_SOCKET, DomainSpec, NAME_BYTES_MAX, Settings, SettingsPatch};
use tidemark_config::Span;
use tidemark_prices::Sheet;

/// Bytes in the path of a unix socket at most.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The log store is read and written in pieces of this size.
const LOG_STORE_GRAIN: u64 = 4096;
/// Bytes of a log store at least.
const LOG_STORE_BYTES_MIN: u64 = 16 << 20;
/// Two of the largest requests of NBD clients.
const NBD_BUFFER_BYTES_MIN: u64 = 64 << 20;

pub(super) fn checked(file: file::File) -> Result<Config, Complaint> {
    let appliance = appliance(file.appliance).map_err(|e| e.within("appliance"))?;
    let log_store = log_store(file.log_store).map_err(|e| e.within("log_store"))?;
    let nbd = nbd(file.nbd).map_err(|e| e.within("nbd"))?;
    let statistics = statistics(file.statistics).map_err(|e| e.within("statistics"))?;
    let maintenance = maintenance(&file.maintenance).map_err(|e| e.within("maintenance"))?;
    let defaults = Settings::default().with(&SettingsPatch::from(file.defaults));
    defaults.check().map_err(|e| as_written(e).within("defaults"))?;
    let domains = file.domain.into_iter().map(DomainSpec::from).collect::<Vec<_>>();
    for (number, domain) in domains.iter().enumerate() {
        let within = |e: Complaint| as_written(e).within(format!("domain[{number}]"));
        domain.check().map_err(within)?;
        defaults.with(&domain.settings).check().map_err(|e| within(e.within("settings")))?;
    }
    once_each(&domains).map_err(as_written)?;
    let kept = domains.iter().map(|domain| defaults.with(&domain.settings).log_bytes_min);
    let kept = kept.fold(0, u64::saturating_add);
    if let Some(size) = log_store.size_bytes.filter(|size| *size < kept) {
        let what = format!("{size} bytes is less than the {kept} that the log_min of all domains add up to");
        return Err(Complaint::new("log_store.size", what).hint("make it larger, or lower log_min"));
    }
    Ok(Config { appliance, log_store, nbd, statistics, maintenance, defaults, domains })
}

fn as_written(complaint: Complaint) -> Complaint {
    let path = path_of(complaint.member());
    complaint.at(path)
}

fn appliance(file: file::Appliance) -> Result<Appliance, Complaint> {
    if file.name.is_empty() || file.name.len() > NAME_BYTES_MAX || file.name.chars().any(char::is_control) {
        let what = format!("{:?} is not a name of 1 to {NAME_BYTES_MAX} bytes", file.name);
        return Err(Complaint::new("name", what).hint("it stands in claims, for people: the host's name is a good one"));
    }
    let fence_check = file.fence_check.map_or(Duration::from_secs(5), |span| span.value);
    if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&fence_check) {
        let what = format!("{} ms is not within 100 ms and 1 h", fence_check.as_millis());
        return Err(
            Complaint::new("fence_check", what).hint("each look is one GET for each domain: 5s is a good value")
        );
    }
    let time_zone = match &file.time_zone {
        None => jiff::tz::TimeZone::system(),
        Some(name) => jiff::tz::TimeZone::get(name).map_err(|e| {
            Complaint::new("time_zone", e.to_string())
                .hint("such as \"UTC\" or \"Europe/Prague\"; Debian has them in tzdata")
        })?,
    };
    Ok(Appliance {
        name: file.name,
        state: absolute("state", file.state)?,
        socket: socket("socket", file.socket.unwrap_or_else(|| DRVA_SOCKET.into()))?,
        fence_check,
        time_zone,
    })
}

fn log_store(file: file::LogStore) -> Result<LogStore, Complaint> {
    let size_bytes = file.size.map(|size| size.value);
    if let Some(size) = size_bytes.filter(|size| *size < LOG_STORE_BYTES_MIN || !size.is_multiple_of(LOG_STORE_GRAIN)) {
        let what = format!("{size} bytes is not a multiple of {LOG_STORE_GRAIN} from {LOG_STORE_BYTES_MIN} on");
        return Err(
            Complaint::new("size", what).hint("what guests write in the longest outage of the uplink: \"32GiB\"")
        );
    }
    let cache_bytes_max = file.cache_max.map_or(256 << 20, |size| size.value);
    if cache_bytes_max < 1 << 20 {
        let what = format!("{cache_bytes_max} bytes is less than 1 MiB");
        return Err(Complaint::new("cache_max", what).hint("256MiB is a good value"));
    }
    Ok(LogStore { path: absolute("path", file.path)?, size_bytes, cache_bytes_max })
}

fn nbd(file: file::Nbd) -> Result<Nbd, Complaint> {
    let count = |member: &str, value: Option<u32>, default: u32, most: u32| {
        let value = value.unwrap_or(default);
        if (1..=most).contains(&value) {
            return Ok(value);
        }
        Err(Complaint::new(member, format!("{value} is not within 1 and {most}")))
    };
    let buffer_bytes_max = file.buffer_max.map_or(256 << 20, |size| size.value);
    if buffer_bytes_max < NBD_BUFFER_BYTES_MIN {
        let what = format!("{buffer_bytes_max} bytes is less than {NBD_BUFFER_BYTES_MIN}");
        return Err(Complaint::new("buffer_max", what).hint("two requests of the largest size, 32 MiB, have to fit"));
    }
    if file.socket.is_none() && file.listen.is_none() {
        let hint = "add socket = \"/run/tidemark/nbd.sock\"";
        return Err(Complaint::new("socket", "there is neither socket nor listen: nobody reaches a disk").hint(hint));
    }
    if file.tls.is_some() && file.listen.is_none() {
        let hint = "add listen = \"0.0.0.0:10809\", or remove [nbd.tls]";
        return Err(Complaint::new("tls", "there is no listen: a unix socket has no TLS").hint(hint));
    }
    let tls = file.tls.map(tls).transpose().map_err(|e| e.within("tls"))?;
    if let Some(listen) = file.listen.filter(|listen| !listen.ip().is_loopback()) {
        let open = tls.as_ref().is_none_or(|tls| !tls.required || tls.client_ca.is_none());
        if open && !file.allow_plain {
            let what = format!("{listen} lets anybody on the network read and write the disks");
            let hint = "add [nbd.tls] with client_ca, or say allow_plain = true if that network is closed";
            return Err(Complaint::new("listen", what).hint(hint));
        }
    }
    Ok(Nbd {
        socket: file.socket.map(|path| socket("socket", path)).transpose()?,
        listen: file.listen,
        tls,
        connections_max: count("connections_max", file.connections_max, 256, 4096)?,
        requests_in_flight_max: count("requests_max", file.requests_max, 64, 1024)?,
        buffer_bytes_max,
    })
}

fn statistics(file: file::Statistics) -> Result<Statistics, Complaint> {
    let span = |member: &str, span: &Option<Span>, default: u64, most: u64| {
        let value = span.as_ref().map_or(Duration::from_secs(default), |span| span.value);
        if (Duration::from_secs(1)..=Duration::from_secs(most)).contains(&value) {
            return Ok(value);
        }
        let what = format!("{} ms is not within 1 s and {most} s", value.as_millis());
        Err(Complaint::new(member, what).hint("the default is a good value"))
    };
    if let Some(prices) = &file.prices
        && !prices.starts_with('/')
        && Sheet::named(prices).is_none()
    {
        let names = Sheet::names().collect::<Vec<_>>().join(", ");
        let what = format!("{prices:?} is no price sheet: take one of {names}, or the absolute path of a file");
        return Err(Complaint::new("prices", what).hint("docs/ops/prices has files to start from"));
    }
    Ok(Statistics {
        listen: file.listen,
        period: span("period", &file.period, 60, 60)?,
        ship_every: span("ship", &file.ship, 600, 3600)?,
        prices: file.prices,
    })
}

fn maintenance(file: &file::Maintenance) -> Result<Maintenance, Complaint> {
    let every = file.every.as_ref().map(|span| span.value);
    if let Some(every) = every.filter(|every| !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(every)) {
        let what = format!("{} ms is not within 1 s and 1 d", every.as_millis());
        return Err(Complaint::new("every", what).hint("1h is a good value"));
    }
    if file.delete && every.is_none() {
        let what = "there is no every: nothing is deleted if there is no pass";
        return Err(Complaint::new("delete", what).hint("add every = \"1h\""));
    }
    Ok(Maintenance { every, delete: file.delete })
}

fn tls(file: file::Tls) -> Result<Tls, Complaint> {
    Ok(Tls {
        cert: absolute("cert", file.cert)?,
        key: absolute("key", file.key)?,
        client_ca: file.client_ca.map(|path| absolute("client_ca", path)).transpose()?,
        required: file.required.unwrap_or(true),
    })
}

fn absolute(member: &str, path: PathBuf) -> Result<PathBuf, Complaint> {
    if path.is_absolute() {
        return Ok(path);
    }
    let what = format!("{:?} is not an absolute path", path.display().to_string());
    Err(Complaint::new(member, what).hint("a daemon has no directory of its own: begin with /"))
}

fn socket(member: &str, path: PathBuf) -> Result<PathBuf, Complaint> {
    let path = absolute(member, path)?;
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        let what = format!("{bytes} bytes are too long for a socket, which takes {SOCKET_PATH_BYTES_MAX}");
        return Err(Complaint::new(member, what).hint("put it into /run/tidemark"));
    }
    Ok(path)
}

/// What only one may have: names, buckets, primaries, exports.
fn once_each(domains: &[DomainSpec]) -> Result<(), Complaint> {
    let mut seen = BTreeSet::new();
    let mut once = |what: &'static str, name: String, at: String, hint: &'static str| {
        let twice = Complaint::new(at, format!("{what} {name:?} is there twice")).hint(hint);
        if seen.insert((what, name)) { Ok(()) } else { Err(twice) }
    };
    for (number, domain) in domains.iter().enumerate() {
        let at = format!("domain[{number}]");
        once("domain", domain.name.clone(), format!("{at}.name"), "give one of them another name")?;
        let hint = "a bucket or prefix holds one domain: put these disks into the one that is there";
        once("bucket", domain.url.clone(), format!("{at}.url"), hint)?;
        for (number, disk) in domain.disks.iter().enumerate() {
            let at = format!("{at}.disks[{number}]");
            if let Some(primary) = &disk.primary {
                let hint = "two disks on one primary destroy each other";
                once("primary", primary.clone(), format!("{at}.primary"), hint)?;
            }
            let member = if disk.export.is_some() { "export" } else { "disk" };
            once(
                "export",
                disk.export_name(&domain.name),
                format!("{at}.{member}"),
                "give one of them another export",
            )?;
        }
    }
    Ok(())
}
