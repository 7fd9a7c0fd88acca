//! No TLS: there is nothing that could be set up.

use super::TlsOptions;
use crate::error::{Error, Result};
use crate::nbd::negotiate::Tls;
use std::sync::Arc;

/// There is none.
pub(in crate::nbd) enum TlsServer {}

impl TlsServer {
    pub(in crate::nbd) fn new(_: &TlsOptions) -> Result<Self> {
        Err(Error::Unsupported { what: "TLS: this server was built without it".into() })
    }

    pub(in crate::nbd) fn offer(&self) -> Tls {
        match *self {}
    }

    pub(in crate::nbd) async fn accept<S>(&self, _: S) -> Result<S> {
        match *self {}
    }

    pub(in crate::nbd) fn certificate<S>(&self, _: &S) -> Option<Arc<[u8]>> {
        match *self {}
    }
}
