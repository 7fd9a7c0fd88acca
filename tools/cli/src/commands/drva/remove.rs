//! Taking something out of protection: what that would lose is said first.

use super::text;
use crate::args::span_ms;
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use clap::Args;
use serde::Serialize;
use tidemark_api::{RemoveQuery, Removed};

/// How to stop protecting something.
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Wait so long for what is not in the bucket yet
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span_ms)]
    drain: u64,
    /// Go ahead even if acknowledged writes never reach the bucket
    #[arg(long)]
    discard_pending: bool,
    /// Only say what would happen
    #[arg(long)]
    pub(super) dry_run: bool,
}

impl RemoveArgs {
    pub(super) fn query(&self) -> RemoveQuery {
        RemoveQuery { drain_timeout_ms: self.drain, discard_pending: self.discard_pending }
    }
}

#[derive(Debug, Serialize)]
struct Plan<'a> {
    would_remove: &'a str,
    pending_bytes: u64,
}

/// What would happen.
pub(super) fn plan(what: &str, pending_bytes: u64, ui: &Ui) -> anyhow::Result<Outcome> {
    ui.answer(&Plan { would_remove: what, pending_bytes }, |plan| {
        format!(
            "would stop protecting {}; {} are not in the bucket yet; its history there stays",
            plan.would_remove,
            text::bytes(plan.pending_bytes)
        )
    })?;
    Ok(Outcome::Done)
}

/// What happened.
pub(super) fn done(what: &str, removed: &Removed, ui: &Ui) -> anyhow::Result<Outcome> {
    ui.answer(removed, |removed| {
        let through = removed.committed_lsn;
        format!("{what} is no longer protected here; its history in the bucket goes through lsn {through}")
    })?;
    if removed.discarded_bytes > 0 {
        let lost = text::bytes(removed.discarded_bytes);
        return Err(Refused::partial(format!("{lost} of acknowledged writes never reached the bucket")).into());
    }
    Ok(Outcome::Done)
}
