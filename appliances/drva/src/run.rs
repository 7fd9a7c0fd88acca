//! The daemon: puts the appliance together, serves until it is told to stop, and ends cleanly.

use crate::api::{ApiSocket, serve, serve_metrics};
use crate::appliance::{Appliance, ApplianceParts};
use crate::config::{Config, Nbd};
use crate::error::{Error, Result};
use crate::events::{EventRing, NewEvent};
use crate::exports::{DiskExports, OPEN_PATIENCE};
use crate::host::Site;
use crate::inventory::Inventory;
use crate::notify::ServiceManager;
use crate::stats::{self, Statistics};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidemark_api::Severity;
use tidemark_env::Env;
use tidemark_io_filter::nbd::{Limits, Listener, Server, TlsNeed, TlsOptions};
use tidemark_log_store::{FormatOptions, LogStore, OpenOptions};
use tidemark_prices::Sheet;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A clean end may take so long before it is cut short: what is not done then goes on at the next start.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Who may connect to the NBD socket: its owner and group.
const NBD_SOCKET_MODE: u32 = 0o660;

/// Runs an appliance until `stop` comes.
///
/// # Errors
/// Why it did not start. What goes wrong in a domain later is an event, not an end.
pub async fn run(config: Config, env: Env, stop: impl Future<Output = ()>) -> Result<()> {
    let manager = ServiceManager::from_env();
    // First, so that whoever comes while the log store is being recovered waits to be served.
    let api = ApiSocket::bind(&config.appliance.socket)?;
    let (listeners, uris) = listen(&config.nbd)?;
    let scraped = match config.statistics.listen {
        Some(address) => Some(listen_for_scrapers(address).await?),
        None => None,
    };
    let store = open_store(&config, &env).await?;
    let events = Arc::new(EventRing::new(env.clone()));
    let inventory = Inventory::load(&config.appliance.state)?;
    let prices = config.statistics.prices.as_deref().map(Sheet::chosen).transpose()?;
    let statistics = Statistics::new(
        config.statistics.clone(),
        config.appliance.state.join("statistics"),
        &config.appliance.name,
        env.clone(),
        events.clone(),
    );
    let site = Site {
        name: config.appliance.name.clone(),
        store: Arc::new(store),
        defaults: config.defaults.clone(),
        events: events.clone(),
        env,
        fence_check_ms: config.appliance.fence_check.as_millis() as u64,
        time_zone: config.appliance.time_zone.clone(),
        maintenance: config.maintenance,
        prices,
    };
    let parts = ApplianceParts {
        site,
        log_store: config.log_store.path.clone(),
        inventory,
        configured: config.domains.clone(),
        uris,
        nbd_socket: config.nbd.socket.as_ref().map(|path| path.display().to_string()),
        statistics,
    };
    let appliance = Appliance::start(parts)?;
    let exports = Arc::new(DiskExports { hosts: appliance.hosts.clone() });
    let tls = config.nbd.tls.as_ref().map(|tls| TlsOptions {
        certificate: tls.cert.clone(),
        key: tls.key.clone(),
        client_ca: tls.client_ca.clone(),
        need: if tls.required { TlsNeed::Required } else { TlsNeed::Optional },
    });
    let server = Server::new(exports, limits(&config.nbd), tls.as_ref())
        .map_err(|source| Error::Nbd { what: "set the NBD server up", source })?;
    let (end, ending) = watch::channel(false);
    let ended = |mut ending: watch::Receiver<bool>| async move {
        // A sender that is gone ends everything, too.
        let _ = ending.wait_for(|end| *end).await;
    };
    let nbd = tokio::spawn({
        let ending = ended(ending.clone());
        async move { server.serve(listeners, ending).await }
    });
    let scrapers =
        scraped.map(|listener| tokio::spawn(serve_metrics(listener, appliance.clone(), ended(ending.clone()))));
    let control = tokio::spawn(serve(api, appliance.clone(), ended(ending)));
    let (last_look, looking) = watch::channel(false);
    let statistics = tokio::spawn(stats::run(appliance.clone(), ended(looking)));
    events.push(NewEvent::new(Severity::Info, "appliance-started", format!("{} serves", config.appliance.name)));
    manager.ready();
    let watchdog = manager.watchdog_interval().map(|every| {
        tokio::spawn(async move {
            let manager = ServiceManager::from_env();
            loop {
                manager.watchdog();
                tokio::time::sleep(every).await;
            }
        })
    });
    stop.await;
    tracing::info!("stopping");
    manager.stopping();
    manager.extend_timeout(STOP_PATIENCE + Duration::from_secs(15));
    // First the guests' requests end, then what they left is brought where it belongs.
    end.send_replace(true);
    match nbd.await {
        Ok(stopped) if stopped.cut_off > 0 => tracing::warn!(connections = stopped.cut_off, "cut off"),
        _ => {}
    }
    appliance.stop(STOP_PATIENCE).await;
    // Nothing moves any more: the last rows hold all there was.
    last_look.send_replace(true);
    let _ = statistics.await;
    let _ = control.await;
    if let Some(scrapers) = scrapers {
        let _ = scrapers.await;
    }
    if let Some(watchdog) = watchdog {
        watchdog.abort();
    }
    Ok(())
}

async fn listen_for_scrapers(address: SocketAddr) -> Result<TcpListener> {
    let failed = |source| Error::Socket { what: "listen on", path: address.to_string(), source };
    TcpListener::bind(address).await.map_err(failed)
}

async fn open_store(config: &Config, env: &Env) -> Result<LogStore> {
    let (path, size_bytes) = (config.log_store.path.clone(), config.log_store.size_bytes);
    let options =
        OpenOptions { cache_bytes_max: config.log_store.cache_bytes_max, env: env.clone(), ..OpenOptions::default() };
    let format = FormatOptions { size_bytes, env: env.clone(), ..FormatOptions::default() };
    let work = move || {
        if !path.exists() && size_bytes.is_some() {
            tracing::info!(path = %path.display(), ?size_bytes, "making the log store");
            LogStore::format(&path, &format)
                .map_err(|source| Error::LogStore { what: "make the log store", source })?;
        }
        LogStore::open(&path, options).map_err(|source| Error::LogStore { what: "open the log store", source })
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(opened) => opened,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::NoLog),
        },
    }
}

/// The listeners, and what clients call them: URIs with `{export}` for the export's name.
fn listen(nbd: &Nbd) -> Result<(Vec<Listener>, Vec<String>)> {
    let failed = |source| Error::Nbd { what: "listen for NBD clients", source };
    let (mut listeners, mut uris) = (Listener::activated().map_err(failed)?, Vec::new());
    if let Some(path) = &nbd.socket {
        // A service manager may listen there in our place.
        if !listeners.iter().any(|listener| listener.is_at(path)) {
            listeners.push(Listener::unix(path, NBD_SOCKET_MODE).map_err(failed)?);
        }
        uris.push(format!("nbd+unix:///{{export}}?socket={}", path.display()));
    }
    if let Some(address) = nbd.listen {
        let handed = listeners.iter().any(|listener| listener.tcp_address() == Some(address));
        let listener = if handed { None } else { Some(Listener::tcp(address).map_err(failed)?) };
        let scheme = if nbd.tls.is_some() { "nbds" } else { "nbd" };
        let at = listener.as_ref().and_then(Listener::tcp_address).unwrap_or(address);
        uris.push(format!("{scheme}://{at}/{{export}}"));
        listeners.extend(listener);
    }
    Ok((listeners, uris))
}

fn limits(nbd: &Nbd) -> Limits {
    let defaults = Limits::default();
    Limits {
        handshake_ms_max: defaults.handshake_ms_max + OPEN_PATIENCE.as_millis() as u64,
        connections_max: nbd.connections_max as usize,
        connection_requests_max: nbd.requests_in_flight_max as usize,
        server_bytes_max: nbd.buffer_bytes_max,
        ..defaults
    }
}
