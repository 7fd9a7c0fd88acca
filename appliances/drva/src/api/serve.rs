//! Connections: how many, and for how long they may say nothing.

use super::routes::{Shared, metrics_router, router};
use super::socket::ApiSocket;
use crate::control::Control;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

/// Connections at once; more wait to be accepted.
pub const CONNECTIONS_MAX: usize = 128;
/// The head of a request has arrived by then, or the connection is closed; also an idle one.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request's head at most.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Requests that are under way when the API stops get so long.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after the system refused a connection, as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the API until `stop`; then requests under way are answered, those that only wait for news at once, and the
/// socket goes.
pub async fn serve(socket: ApiSocket, control: Arc<dyn Control>, stop: impl Future<Output = ()>) {
    let (stopping, stopped) = watch::channel(false);
    let connections = accept(&socket.listener, router(Shared { control, stopping: stopped }), stop).await;
    // No new connections from here on.
    drop(socket);
    stopping.send_replace(true);
    end(connections).await;
}

/// Serves nothing but metrics, to whoever connects, until `stop`.
pub async fn serve_metrics(listener: TcpListener, control: Arc<dyn Control>, stop: impl Future<Output = ()>) {
    let (_stopping, stopped) = watch::channel(false);
    let connections = accept(&listener, metrics_router(Shared { control, stopping: stopped }), stop).await;
    drop(listener);
    end(connections).await;
}

async fn end(connections: GracefulShutdown) {
    if tokio::time::timeout(GRACE, connections.shutdown()).await.is_err() {
        tracing::warn!("gave up control requests that took longer than {} s to end", GRACE.as_secs());
    }
}

/// Where connections come from.
trait Listen {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>>;
}

impl Listen for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Listen for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// Answers whoever connects until `stop`; connections that are open then are returned.
async fn accept(listener: &impl Listen, router: axum::Router, stop: impl Future<Output = ()>) -> GracefulShutdown {
    let service = TowerToHyperService::new(router);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(HEAD_BYTES_MAX);
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.expect("nobody closes it");
            (place, listener.next().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = &mut stop => return connections,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok(stream) => {
                let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
                tokio::spawn(async move {
                    if let Err(e) = connection.await {
                        tracing::debug!("control connection ended: {e}");
                    }
                    drop(place);
                });
            }
            Err(e) => {
                tracing::warn!("cannot accept a control connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
