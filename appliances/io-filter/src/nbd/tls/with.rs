//! TLS by rustls.

use super::{TlsNeed, TlsOptions};
use crate::error::{Error, Result};
use crate::nbd::negotiate::Tls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// TLS, set up.
pub(in crate::nbd) struct TlsServer {
    acceptor: TlsAcceptor,
    need: TlsNeed,
}

impl TlsServer {
    pub(in crate::nbd) fn new(options: &TlsOptions) -> Result<Self> {
        let bad = |what: &str, path: &Path, source: Box<dyn std::error::Error + Send + Sync>| Error::Failed {
            what: format!("use the {what} in {}", path.display()),
            source,
        };
        let certificates = |path: &PathBuf| {
            let chain: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
            if chain.is_empty() { Err(rustls::pki_types::pem::Error::NoItemsFound) } else { Ok(chain) }
        };
        let chain = certificates(&options.certificate)
            .map_err(|error| bad("certificate", &options.certificate, error.into()))?;
        let key = PrivateKeyDer::from_pem_file(&options.key)
            .map_err(|error| bad("private key", &options.key, error.into()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::failed("set up TLS", error))?;
        let builder = match &options.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(path).map_err(|error| bad("client CA", path, error.into()))? {
                    roots.add(root).map_err(|error| bad("client CA", path, error.into()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| bad("client CA", path, error.into()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder
            .with_single_cert(chain, key)
            .map_err(|error| bad("certificate", &options.certificate, error.into()))?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), need: options.need })
    }

    /// What a client that comes without TLS is told.
    pub(in crate::nbd) fn offer(&self) -> Tls {
        match self.need {
            TlsNeed::Optional => Tls::Offered,
            TlsNeed::Required => Tls::Required,
        }
    }

    /// The handshake.
    pub(in crate::nbd) async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.acceptor.accept(stream).await.map_err(|error| Error::failed("start TLS", error))
    }

    /// The verified certificate of a client, if it had to show one.
    pub(in crate::nbd) fn certificate<S>(&self, stream: &TlsStream<S>) -> Option<Arc<[u8]>> {
        stream.get_ref().1.peer_certificates()?.first().map(|leaf| Arc::from(&leaf[..]))
    }
}
