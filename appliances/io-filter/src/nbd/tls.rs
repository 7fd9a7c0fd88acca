//! TLS of a server: who it is, and which clients it lets in.
//!
//! The feature `tls` brings rustls along. A server that is built without it, such as one that is embedded and has nothing
//! but unix sockets, refuses to be set up with TLS.

#[cfg(feature = "tls")]
mod with;
#[cfg(not(feature = "tls"))]
mod without;

use std::path::PathBuf;
#[cfg(feature = "tls")]
pub(super) use with::TlsServer;
#[cfg(not(feature = "tls"))]
pub(super) use without::TlsServer;

/// How a server does TLS. Files are PEM.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Its certificate, followed by those between it and the root.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// Clients have to show a certificate that one of these signed. Without it clients show none.
    pub client_ca: Option<PathBuf>,
    /// Whether clients may do without TLS.
    pub need: TlsNeed,
}

/// Whether clients may do without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsNeed {
    /// They may: on a unix socket, or while clients are moved to TLS.
    Optional,
    /// Nothing but TLS is answered.
    Required,
}
