//! Bookmarks: names a moment at which guests are as consistent as was asked for.
//!
//! The order: the pre hook, freezing, the bookmark, thawing, the post hook. If one of the first two fails there is no
//! bookmark; thawing and the post hook happen whatever came of it. Guests are thawed once the bookmark has its place in
//! the log, not once it is in the bucket.

use crate::appliance::{level, refused};
use crate::control::Answer;
use crate::host::Served;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tidemark_api::{BookmarkMade, BookmarkRequest, GuestAgent, Hook, Problem, ProblemKind, Time};
use tidemark_env::SystemEntropy;
use tidemark_format::{EventBody, with_causes};
use tidemark_qemu::{Address, Agent, AgentOptions, Frozen};
use tokio::process::Command;
use tokio::time::Instant;

pub(crate) async fn make(served: &Served, request: &BookmarkRequest) -> Answer<BookmarkMade> {
    if let Some(hook) = &request.pre {
        run(hook, "pre").await?;
    }
    let made = frozen(served, request).await;
    if let Some(hook) = &request.post {
        // The bookmark stands, or does not, whatever this says.
        if let Err(problem) = run(hook, "post").await {
            tracing::warn!(bookmark = request.name, problem = problem.detail, "the post hook failed");
        }
    }
    let made = made?;
    served.domain.drain().await.map_err(|e| refused(&e))?;
    Ok(made)
}

async fn frozen(served: &Served, request: &BookmarkRequest) -> Answer<BookmarkMade> {
    let longest = Duration::from_millis(request.freeze_timeout_ms);
    let start = Instant::now();
    // All at once: the first must not stay frozen while the last is asked.
    let freezing = request.agents.iter().map(|agent| freeze(agent, longest));
    let guests = futures::future::try_join_all(freezing).await?;
    let body = EventBody::Bookmark { name: request.name.clone(), level: level(request.level) };
    let logged = served.domain.event_with_time(body).await;
    let mut thawed = Ok(());
    for guest in guests {
        if let Err(error) = guest.thaw().await {
            thawed = Err(Problem::new(
                ProblemKind::Unavailable,
                format!("a guest was thawed too early or not at all: {}", with_causes(&error)),
            ));
        }
    }
    let frozen_ms = (!request.agents.is_empty()).then(|| start.elapsed().as_millis() as u64);
    let (lsn, time) = logged.map_err(|e| refused(&e))?;
    thawed?;
    Ok(BookmarkMade {
        name: request.name.clone(),
        lsn: lsn.get(),
        time: Time::from(time),
        level: request.level,
        frozen_ms,
    })
}

async fn freeze(agent: &GuestAgent, longest: Duration) -> Answer<Frozen> {
    let failed = |e: tidemark_qemu::Error| {
        Problem::new(
            ProblemKind::Unavailable,
            format!("cannot freeze the file systems of {}: {}", agent.vm, with_causes(&e)),
        )
        .hint("is the guest agent running? a crash-consistent bookmark needs none")
    };
    let address = Address::Unix(agent.socket.clone().into());
    let connected = Agent::connect(&address, AgentOptions::new(Arc::new(SystemEntropy))).await.map_err(failed)?;
    connected.freeze(longest).await.map_err(failed)
}

/// Runs a hook to its end, or kills it.
async fn run(hook: &Hook, which: &str) -> Answer<()> {
    let failed =
        |why: String| Problem::new(ProblemKind::Conflict, format!("the {which} hook {:?} {why}", hook.command));
    let (program, arguments) = hook.command.split_first().ok_or_else(|| failed("is empty".to_owned()))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| failed(format!("cannot be run: {e}")))?;
    match tokio::time::timeout(Duration::from_millis(hook.timeout_ms), child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("failed: {status}"))),
        Ok(Err(e)) => Err(failed(format!("cannot be waited for: {e}"))),
        Err(_) => Err(failed(format!("took longer than {} ms", hook.timeout_ms))),
    }
}
