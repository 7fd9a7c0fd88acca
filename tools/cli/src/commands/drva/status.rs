//! `tidemark drva status`: how everything is doing.

use super::text;
use crate::failure::Outcome;
use crate::ui::{Reader, Ui};
use clap::Args;
use serde::Serialize;
use std::time::Duration;
use tidemark_api::{ApplianceStatus, Client};

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Show how the appliance, its domains and disks are doing
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Only this domain
    #[arg(value_name = "DOMAIN")]
    domain: Option<String>,
    /// Look again every second, until interrupted; with --json one line each
    #[arg(long, short)]
    watch: bool,
}

pub(super) async fn run(args: StatusArgs, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    loop {
        let reader = match (&args.domain, args.watch) {
            (Some(domain), false) => return once(&client.domain(domain).await?, ui, text::domain),
            (None, false) => return once(&client.status().await?, ui, in_text),
            (Some(domain), true) => ui.instead(&client.domain(domain).await?, text::domain)?,
            (None, true) => ui.instead(&client.status().await?, in_text)?,
        };
        if reader == Reader::Gone {
            return Ok(Outcome::Done);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn once<T: Serialize>(status: &T, ui: &Ui, text: impl FnOnce(&T) -> String) -> anyhow::Result<Outcome> {
    ui.answer(status, text)?;
    Ok(Outcome::Done)
}

fn in_text(status: &ApplianceStatus) -> String {
    let log = &status.log_store;
    let mut out = format!(
        "{} {}, up {}\nlog store {}: {} of {} ({})\n",
        status.name,
        status.version,
        text::span_ms(status.uptime_ms),
        log.path,
        text::bytes(log.used_bytes),
        text::bytes(log.size_bytes),
        text::percent(log.fill),
    );
    if let Some(why) = &log.failed {
        out += &format!("LOG STORE FAILED: {why}\n");
    }
    for domain in &status.domains {
        out += "\n";
        out += &text::domain(domain);
    }
    out
}
