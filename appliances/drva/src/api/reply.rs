//! Answers: JSON, or a problem.

use crate::control::Answer;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidemark_api::{Problem, ProblemKind};
use tokio::task::{AbortHandle, JoinError};

/// What a handler answers.
pub(super) type Reply<T> = Result<Json<T>, Refusal>;

/// A problem on its way out.
#[derive(Debug)]
pub(super) struct Refusal(Problem);

impl<T: Into<Problem>> From<T> for Refusal {
    fn from(problem: T) -> Self {
        Self(problem.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(kind = problem.kind.name(), "answered: {problem}");
        }
        let mut response = (status, Json(problem)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

/// Carries a change through to its end, whether or not somebody still waits for the answer.
pub(super) async fn carry_through<T>(change: impl Future<Output = Answer<T>> + Send + 'static) -> Reply<T>
where
    T: Serialize + Send + 'static,
{
    tokio::spawn(change).await.unwrap_or_else(panicked).map(Json).map_err(Refusal)
}

/// Looks something up, for as long as somebody waits for it.
pub(super) async fn look_up<T>(question: impl Future<Output = Answer<T>> + Send + 'static) -> Reply<T>
where
    T: Serialize + Send + 'static,
{
    struct Stop(AbortHandle);
    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let task = tokio::spawn(question);
    let _stop = Stop(task.abort_handle());
    task.await.unwrap_or_else(panicked).map(Json).map_err(Refusal)
}

/// A task of its own, so that a bug costs one request.
fn panicked<T>(error: JoinError) -> Answer<T> {
    tracing::error!("a control request ended in a panic: {error}");
    let problem = Problem::new(ProblemKind::Internal, "the appliance failed to carry this out: a bug");
    Err(problem.hint("the appliance goes on; please report what its log says"))
}
