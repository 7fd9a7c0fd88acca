//! The first half of a connection, and its way to the second: greeting, options, perhaps TLS, then requests.
//!
//! Everything up to the first request happens within one deadline and a bounded number of bytes.

use super::budget::{Account, Pool};
use super::execute::execute;
use super::limits::Limits;
use super::negotiate::{Negotiation, OPTION_BYTES_MAX, Session, Step, Tls};
use super::tls::TlsServer;
use super::transmission::{Parts, Transmission};
use super::wire::{self, OPTION_HEADER_BYTES, OptionHeader};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::volume::Exports;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// Options of one connection, at most.
pub const HANDSHAKE_OPTIONS_MAX: usize = 1024;
/// Bytes of one connection before its first request, at most.
pub const HANDSHAKE_BYTES_MAX: u64 = 1 << 20;

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) exports: Arc<dyn Exports>,
    pub(super) limits: Limits,
    pub(super) tls: Option<TlsServer>,
    pub(super) pool: Arc<Pool>,
    /// Cancelled when connections are to end.
    pub(super) stop: CancellationToken,
}

/// How the options ended.
enum Settled<'a> {
    Session(Session),
    StartTls(Negotiation<'a>),
    Goodbye,
}

/// Serves one connection to its end. `negotiated` is called between its two halves.
pub(super) async fn serve<S>(
    shared: &Shared,
    mut stream: S,
    mut client: Client,
    negotiated: impl FnOnce(&Client),
) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = tokio::time::Instant::now() + shared.limits.handshake();
    let before = client.clone();
    let first = within(deadline, shared, greet(shared, &before, &mut stream)).await?;
    match first {
        Settled::Goodbye => Ok(()),
        Settled::Session(session) => {
            negotiated(&client);
            transmit(shared, stream, session).await
        }
        Settled::StartTls(negotiation) => {
            let tls = shared.tls.as_ref().expect("TLS is granted where it is set up");
            let mut stream = within(deadline, shared, tls.accept(stream)).await?;
            client.certificate = tls.certificate(&stream);
            let negotiation = negotiation.secured(&client);
            match within(deadline, shared, haggle(negotiation, &mut stream, &mut 0)).await? {
                Settled::Session(session) => {
                    negotiated(&client);
                    transmit(shared, stream, session).await
                }
                // TLS within TLS is refused.
                Settled::Goodbye | Settled::StartTls(_) => Ok(()),
            }
        }
    }
}

/// Bounds a step of the handshake by its deadline, and by the server's end.
async fn within<T>(
    deadline: tokio::time::Instant,
    shared: &Shared,
    step: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => Err(Error::ShuttingDown { what: "the server".into() }),
        done = tokio::time::timeout_at(deadline, step) => match done {
            Ok(done) => done,
            Err(_) => {
                let source = format!("it took longer than {} ms", shared.limits.handshake_ms_max);
                Err(Error::failed("negotiate", source))
            }
        },
    }
}

/// Greets and goes through the options.
async fn greet<'a, S>(shared: &'a Shared, client: &'a Client, stream: &mut S) -> Result<Settled<'a>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let lost = |error: std::io::Error| Error::failed("negotiate", error);
    stream.write_all(&wire::greeting()).await.map_err(lost)?;
    let mut flags = [0; 4];
    stream.read_exact(&mut flags).await.map_err(lost)?;
    let tls = shared.tls.as_ref().map_or(Tls::Off, TlsServer::offer);
    let payload_bytes_max = shared.limits.payload_bytes_max;
    let negotiation = Negotiation::new(&*shared.exports, client, tls, payload_bytes_max, wire::client_flags(flags))?;
    haggle(negotiation, stream, &mut 0).await
}

/// Answers options until something is settled. Reads not one byte beyond: what was said in the clear does not get
/// behind TLS.
async fn haggle<'a, S>(mut negotiation: Negotiation<'a>, stream: &mut S, bytes: &mut u64) -> Result<Settled<'a>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let lost = |error: std::io::Error| Error::failed("negotiate", error);
    let mut data = Vec::new();
    let mut answer = Vec::new();
    for _ in 0..HANDSHAKE_OPTIONS_MAX {
        let mut raw = [0; OPTION_HEADER_BYTES];
        match stream.read_exact(&mut raw).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(Settled::Goodbye),
            Err(error) => return Err(lost(error)),
        }
        let header = OptionHeader::decode(&raw)
            .map_err(|error| Error::Failed { what: "negotiate".into(), source: Box::new(error) })?;
        *bytes += u64::from(header.len) + OPTION_HEADER_BYTES as u64;
        if *bytes > HANDSHAKE_BYTES_MAX {
            let (what, wanted_bytes) = ("negotiation", *bytes);
            return Err(Error::TooLarge { what, wanted_bytes, max_bytes: HANDSHAKE_BYTES_MAX });
        }
        answer.clear();
        let step = if header.len > OPTION_BYTES_MAX {
            let mut rest = (&mut *stream).take(header.len.into());
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.map_err(lost)?;
            negotiation.answer_too_big(header.option, &mut answer)
        } else {
            data.resize(header.len as usize, 0);
            stream.read_exact(&mut data).await.map_err(lost)?;
            if let Some(name) = negotiation.asks_about(header.option, &data) {
                negotiation.exports.known(name).await;
            }
            negotiation.answer(header.option, &data, &mut answer)
        };
        stream.write_all(&answer).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        match step {
            Step::Next => {}
            Step::StartTls => return Ok(Settled::StartTls(negotiation)),
            Step::Transmit(session) => return Ok(Settled::Session(session)),
            Step::End => {
                // A client that is gone is no error.
                let _ = stream.shutdown().await;
                return Ok(Settled::Goodbye);
            }
        }
    }
    Err(Error::Invalid { what: format!("more than {HANDSHAKE_OPTIONS_MAX} options") })
}

/// Serves requests.
async fn transmit<S>(shared: &Shared, stream: S, session: Session) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let parts = Parts {
        stream,
        session,
        account: Account::new(&shared.pool, &shared.limits),
        payload_bytes_max: shared.limits.payload_bytes_max,
        stall: shared.limits.stall(),
        stop: shared.stop.clone().cancelled_owned(),
    };
    Transmission::new(parts, execute).run().await
}
