//! Serves a disk in memory over NBD: to try a client, to measure what the server itself costs. Nothing is kept.

use anyhow::{Result, ensure};
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tidemark_io_filter::nbd::{Limits, Listener, Server, TlsNeed, TlsOptions};
use tidemark_io_filter::{Client, Error, ExportInfo, Exports, MemoryVolume, Volume};
use tokio::signal::unix::{SignalKind, signal};

/// Serves a disk in memory over NBD, as export "memory" and as the one without a name.
///
/// Stops on SIGTERM or SIGINT. Without --unix and --tcp it serves the sockets that systemd opened for it.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Size of the disk.
    #[arg(long, default_value_t = 64 << 20)]
    size_bytes: u64,
    /// Listen on a unix socket.
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Listen on a TCP address.
    #[arg(long, value_name = "ADDRESS:PORT")]
    tcp: Option<SocketAddr>,
    /// Require TLS, with server-cert.pem and server-key.pem of this directory; clients have to show a certificate of its
    /// ca-cert.pem.
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,
}

/// One disk, under two names.
struct Only(Arc<MemoryVolume>);

impl Exports for Only {
    fn list(&self, _: &Client) -> Vec<ExportInfo> {
        vec![ExportInfo { name: "memory".into(), description: "a disk in memory; nothing is kept".into() }]
    }

    fn open(&self, name: &str, _: &Client) -> tidemark_io_filter::Result<Arc<dyn Volume>> {
        match name {
            "" | "memory" => Ok(self.0.clone()),
            _ => Err(Error::NoExport { name: name.into() }),
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).init();
    let args = Args::parse();
    let mut listeners = Vec::new();
    if let Some(path) = &args.unix {
        listeners.push(Listener::unix(path, 0o600)?);
    }
    if let Some(address) = args.tcp {
        listeners.push(Listener::tcp(address)?);
    }
    if listeners.is_empty() {
        listeners = Listener::activated()?;
    }
    ensure!(!listeners.is_empty(), "nothing to listen on: give --unix or --tcp");
    let tls = args.tls.as_ref().map(|dir| TlsOptions {
        certificate: dir.join("server-cert.pem"),
        key: dir.join("server-key.pem"),
        client_ca: Some(dir.join("ca-cert.pem")),
        need: TlsNeed::Required,
    });
    let exports = Arc::new(Only(Arc::new(MemoryVolume::new(args.size_bytes)?)));
    let server = Server::new(exports, Limits::default(), tls.as_ref())?;
    let [mut terminate, mut interrupt] = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    server.serve(listeners, stop).await;
    Ok(())
}
