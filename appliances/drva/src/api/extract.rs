//! Requests: what comes in is bounded, parsed strictly and checked before anybody sees it.

use super::reply::Refusal;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tidemark_api::{Check, Problem, ProblemKind, VM_CONFIG_BYTES_MAX};

/// Bytes of a request's body at most: a VM's configuration, and what escaping makes of it.
pub(super) const BODY_BYTES_MAX: usize = 2 * VM_CONFIG_BYTES_MAX + (64 << 10);
/// A body has arrived by then.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// A checked body.
pub(super) struct Sent<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned + Check> FromRequest<S> for Sent<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let body = arrived(request.into_body()).await?;
        let parsed = serde_json::from_slice(&body);
        let sent: T = parsed.map_err(|e| malformed(format!("bad request body: {e}")))?;
        sent.check()?;
        Ok(Self(sent))
    }
}

async fn arrived(body: Body) -> Result<axum::body::Bytes, Problem> {
    let late = || {
        let detail = format!("the request's body did not arrive within {} s", BODY_WITHIN.as_secs());
        Problem::new(ProblemKind::RequestTimeout, detail)
    };
    let body = tokio::time::timeout(BODY_WITHIN, to_bytes(body, BODY_BYTES_MAX)).await.map_err(|_| late())?;
    body.map_err(|e| {
        let mut causes = std::iter::successors(Some(&e as &dyn std::error::Error), |e| e.source());
        if causes.any(|cause| cause.is::<http_body_util::LengthLimitError>()) {
            let detail = format!("the request's body is more than the {BODY_BYTES_MAX} bytes that are allowed");
            return Problem::new(ProblemKind::TooLarge, detail);
        }
        malformed(format!("the request's body broke off: {e}"))
    })
}

/// The checked query.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Check> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let parsed = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let axum::extract::Query(query) =
            parsed.map_err(|e: QueryRejection| malformed(format!("bad query: {}", e.body_text())))?;
        query.check()?;
        Ok(Self(query))
    }
}

/// The names in the path.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let parsed = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let axum::extract::Path(path) =
            parsed.map_err(|e: PathRejection| malformed(format!("bad path: {}", e.body_text())))?;
        Ok(Self(path))
    }
}

fn malformed(detail: String) -> Problem {
    Problem::new(ProblemKind::InvalidRequest, detail).hint("GET /v1/openapi.json describes every request")
}
