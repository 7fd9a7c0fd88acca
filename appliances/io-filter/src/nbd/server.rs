//! Accepts connections, within bounds, until it is stopped.

use super::budget::Pool;
use super::connection::{Shared, serve};
use super::limits::Limits;
use super::listen::{Accepted, Listener};
use super::tls::{TlsOptions, TlsServer};
use crate::client::{Client, Peer};
use crate::error::{Error, Result};
use crate::volume::Exports;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// After an error of the kernel, such as no more descriptors, nothing is accepted for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An NBD server: any number of listeners, one set of exports.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    connections: Arc<AtomicU64>,
    negotiating: Arc<Negotiating>,
}

/// How a server came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Connections whose requests were not done in time, and were dropped: their clients have no reply.
    pub cut_off: usize,
}

/// Connections that have not settled on an export, the oldest first.
#[derive(Default)]
struct Negotiating(Mutex<BTreeMap<u64, AbortHandle>>);

impl Negotiating {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, AbortHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// A server of `exports`; with TLS if it is set up.
    pub fn new(exports: Arc<dyn Exports>, limits: Limits, tls: Option<&TlsOptions>) -> Result<Self> {
        limits.check()?;
        let tls = tls.map(TlsServer::new).transpose()?;
        let (pool, stop) = (Pool::new(&limits), CancellationToken::new());
        let shared = Arc::new(Shared { exports, limits, tls, pool, stop });
        Ok(Self { shared, connections: Arc::default(), negotiating: Arc::default() })
    }

    /// Serves one connection that came some other way, to its end.
    pub async fn serve_stream<S>(&self, stream: S, peer: Peer) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        serve(&self.shared, stream, Client { connection, peer, certificate: None }, |_| {}).await
    }

    /// Serves until `stop` comes; then accepts nothing more, lets requests under way end, and closes. A server is
    /// stopped once: afterwards it serves nobody.
    pub async fn serve(&self, listeners: Vec<Listener>, stop: impl Future<Output = ()>) -> Stopped {
        let mut running = JoinSet::new();
        let mut turn = 0;
        let mut pause = None;
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(ended) = running.join_next() => log_panic(ended),
                () = async { pause.as_mut().expect("checked").await }, if pause.is_some() => pause = None,
                accepted = accept(&listeners, &mut turn), if pause.is_none() => match accepted {
                    Ok(accepted) => self.admit(accepted, &mut running),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept connections");
                        pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                    }
                },
            }
        }
        drop(listeners);
        self.shared.stop.cancel();
        let drained = tokio::time::timeout(Duration::from_millis(self.shared.limits.drain_ms_max), async {
            while let Some(ended) = running.join_next().await {
                log_panic(ended);
            }
        });
        let in_time = drained.await.is_ok();
        let cut_off = if in_time { 0 } else { running.len() };
        running.shutdown().await;
        Stopped { cut_off }
    }

    /// Begins a connection, if there is room or room can be made.
    fn admit(&self, accepted: Accepted, running: &mut JoinSet<()>) {
        if running.len() >= self.shared.limits.connections_max {
            let oldest = self.negotiating.lock().pop_first();
            let Some((_, oldest)) = oldest else {
                tracing::warn!(connections = running.len(), "too many connections: refused one");
                return;
            };
            oldest.abort();
        }
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        // It must be known as negotiating before it can say that it is no more.
        let mut negotiating = self.negotiating.lock();
        let started = match accepted {
            Accepted::Unix(stream, peer) => running.spawn(self.clone().connection(stream, connection, peer)),
            Accepted::Tcp(stream, peer) => running.spawn(self.clone().connection(stream, connection, peer)),
        };
        negotiating.insert(connection, started);
    }

    async fn connection<S>(self, stream: S, connection: u64, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let client = Client { connection, peer, certificate: None };
        let name = client.to_string();
        // Also if it ends before, by itself or by force.
        let _left = Leaves(&self.negotiating, connection);
        let negotiated = |client: &Client| {
            self.negotiating.lock().remove(&connection);
            tracing::debug!(%client, "connected");
        };
        match serve(&self.shared, stream, client, negotiated).await {
            Ok(()) | Err(Error::ShuttingDown { .. }) => tracing::debug!(client = name, "disconnected"),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::info!(client = name, %error, cause, "connection ended");
            }
        }
    }
}

/// Forgets a connection that negotiates when it is dropped.
struct Leaves<'a>(&'a Negotiating, u64);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// The next connection of any listener; they take turns.
async fn accept(listeners: &[Listener], turn: &mut usize) -> std::io::Result<Accepted> {
    poll_fn(|cx| {
        for _ in 0..listeners.len() {
            *turn = (*turn + 1) % listeners.len();
            if let Poll::Ready(accepted) = listeners[*turn].poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection panicked; the others go on");
    }
}
