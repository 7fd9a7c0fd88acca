//! Does what a request asks.

use super::inbox::ChunkId;
use super::negotiate::Session;
use super::outbox::{Asked, Outbox};
use super::request::Command;
use super::wire::Errno;
use crate::edges;
use crate::error::{Error, Result};
use crate::volume::{Part, StatusRun};
use bytes::Bytes;
use std::sync::Arc;
use tidemark_format::with_causes;

/// Runs of one context in one reply, at most.
pub(super) const STATUS_RUNS_MAX: usize = 512;

/// A request on its way.
pub(super) struct Job {
    pub(super) command: Command,
    pub(super) asked: Asked,
    /// Of a write.
    pub(super) data: Bytes,
    /// Where its data lies.
    pub(super) chunk: Option<ChunkId>,
}

/// How it went.
pub(super) struct Done {
    asked: Asked,
    pub(super) chunk: Option<ChunkId>,
    outcome: Result<Outcome>,
}

enum Outcome {
    Nothing,
    Data { len: u64, parts: Vec<Part>, whole: bool },
    Status(Vec<Vec<StatusRun>>),
}

/// Does it.
pub(super) async fn execute(session: Arc<Session>, job: Job) -> Done {
    let Job { command, asked, data, chunk } = job;
    let outcome = outcome(&session, command, data).await;
    if let Err(error) = &outcome {
        tracing::debug!(export = session.export, ?command, %error, "request failed");
    }
    Done { asked, chunk, outcome }
}

async fn outcome(session: &Session, command: Command, data: Bytes) -> Result<Outcome> {
    let volume = &*session.volume;
    match command {
        Command::Write { range, persist } if range.len > 0 => edges::write(volume, range.offset, data, persist).await?,
        Command::Read { range, whole } if range.len > 0 => {
            let parts = edges::read(volume, range).await?;
            return Ok(Outcome::Data { len: range.len, parts, whole });
        }
        Command::Read { whole, .. } => return Ok(Outcome::Data { len: 0, parts: Vec::new(), whole }),
        Command::Flush => volume.flush().await?,
        Command::Trim { range, persist } if range.len > 0 => edges::trim(volume, range, persist).await?,
        Command::Zero { range, options, persist } if range.len > 0 => {
            edges::zero(volume, range, options, persist).await?;
        }
        Command::Cache { range } if range.len > 0 => {
            volume.cache(range.outward(volume.geometry().block_bytes_min.into())).await?;
        }
        Command::Status { range, first } => {
            if session.contexts.is_empty() {
                return Err(Error::Invalid { what: "block status without a context".into() });
            }
            let mut answers = Vec::with_capacity(session.contexts.len());
            for context in &session.contexts {
                let runs_max = if first { 1 } else { STATUS_RUNS_MAX };
                answers.push(edges::status(volume, range, context, runs_max).await?);
            }
            return Ok(Outcome::Status(answers));
        }
        Command::Write { .. } | Command::Trim { .. } | Command::Zero { .. } | Command::Cache { .. } => {}
    }
    Ok(Outcome::Nothing)
}

impl Done {
    /// Queues the reply.
    pub(super) fn reply(self, session: &Session, outbox: &mut Outbox) {
        match self.outcome {
            Ok(Outcome::Nothing) => outbox.done(self.asked),
            Ok(Outcome::Data { len, parts, whole }) => outbox.data(self.asked, len, parts, whole),
            Ok(Outcome::Status(answers)) => outbox.status(self.asked, &session.contexts, &answers),
            Err(error) => outbox.error(self.asked, errno(&error), &with_causes(&error)),
        }
    }
}

/// What a client is told.
fn errno(error: &Error) -> Errno {
    match error {
        Error::NoSpace { .. } => Errno::NoSpace,
        Error::NotPermitted { .. } => Errno::Perm,
        Error::Invalid { .. } | Error::NoExport { .. } => Errno::Inval,
        Error::Fenced { .. } | Error::ShuttingDown { .. } => Errno::Shutdown,
        Error::Unsupported { .. } => Errno::NotSup,
        Error::TooLarge { .. } => Errno::Overflow,
        _ => Errno::Io,
    }
}
