//! Tries again for as long as it takes: a writer that holds a guest's writes does not give up on them.

use crate::shell::shared::Shared;
use std::time::Duration;
use tidemark_bucket::{self as bucket, Appender, Pieces, PutOutcome};
use tidemark_format::{ErrorKind, ObjectKey, with_causes};

/// Repeats `attempt` until it succeeds, with growing pauses; reports each failure in the writer's status. Only a sign of
/// another owner, or the end of the writer, ends it early, as an error: missing rights or a missing bucket are mended by
/// people, and then it goes on.
pub(crate) async fn until_done<T, F: Future<Output = bucket::Result<T>>>(
    shared: &Shared,
    what: &'static str,
    mut attempt: impl FnMut() -> F,
) -> bucket::Result<T> {
    let mut pause_ms = shared.options.retry_ms_first;
    loop {
        match attempt().await {
            Ok(done) => {
                shared.report_success();
                return Ok(done);
            }
            Err(error) if error.kind() == ErrorKind::Fenced || shared.log().stopped().is_some() => return Err(error),
            Err(error) => {
                tracing::warn!(what, error = %with_causes(&error), pause_ms, "request failed, will be tried again");
                shared.report_failure(what, error);
            }
        }
        // Spread over half to all of the pause, so that many writers do not knock in step.
        let spread = shared.env.entropy.number() % (pause_ms / 2 + 1);
        tokio::time::sleep(Duration::from_millis(pause_ms - spread)).await;
        pause_ms = pause_ms.saturating_mul(2).min(shared.options.retry_ms_max);
    }
}

/// Puts an object that this epoch owns; an error means that another object is in its place.
pub(crate) async fn put_owned(
    shared: &Shared,
    bucket: &Appender,
    key: ObjectKey,
    object: &Pieces,
) -> bucket::Result<PutOutcome> {
    until_done(shared, "put a segment", || {
        let (bucket, object) = (bucket.clone(), object.clone());
        async move { bucket.put(&key, object).await }
    })
    .await
}
