//! Handing a domain over without loss: its appliance brings everything into the bucket, is fenced, and the bucket shows that nothing is missing.
//!
//! No state is kept: run again after a kill, it finds what is so and goes on. Until the fence, nothing has changed.

use super::start::fence;
use crate::args::{AttestArgs, span_ms};
use crate::failure::Refused;
use crate::ui::Ui;
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use tidemark_api::{Attachment, Client, DRVA_SOCKET, DiskState, DomainState, DomainStatus, DrainRequest};
use tidemark_bucket::Bucket;
use tidemark_format::{Epoch, Lsn};
use tidemark_reader::Domain;

/// Between two looks at an appliance whose VMs are to go.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Who hands the domain over.
#[derive(Clone, Debug, Args)]
pub(super) struct SourceArgs {
    /// The control socket of the appliance that protects the domain
    #[arg(long = "source", env = "TIDEMARK_DRVA_SOCKET", default_value = DRVA_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// Run this by /bin/sh first: it shuts the domain's VMs down, or pauses those that are tapped
    #[arg(long, value_name = "COMMAND")]
    shut_down: Option<String>,
    /// Wait so long at most for the VMs to be off and for the bucket to have everything
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = span_ms)]
    patience: u64,
}

/// A domain that was handed over.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct HandedOver {
    /// The appliance's last LSN. The bucket has it, and all before.
    pub(super) last_lsn: u64,
    /// The epoch that the appliance owned.
    pub(super) epoch: u64,
}

impl SourceArgs {
    /// What the appliance says of the domain.
    pub(super) async fn look(&self, domain: &Domain) -> anyhow::Result<DomainStatus> {
        let id = domain.genesis().domain.to_string();
        let appliance = Client::new(&self.socket).status().await?;
        let found = appliance.domains.into_iter().find(|status| status.id.as_deref() == Some(&id));
        found.ok_or_else(|| {
            let what = format!("the appliance at {} does not protect domain {id}", self.socket.display());
            Refused::new(what).hint("--source names another one; `tidemark recover forced` needs none").into()
        })
    }

    /// Hands the domain over; it is fenced on return, and nothing that it acknowledged is missing.
    pub(super) async fn hand_over(
        &self,
        bucket: &Bucket,
        domain: &Domain,
        attest: &AttestArgs,
        ui: &Ui,
    ) -> anyhow::Result<HandedOver> {
        let status = self.look(domain).await?;
        if !matches!(status.state, DomainState::Fenced { .. }) {
            check(&status)?;
            self.shut_down().await?;
            let patience = Duration::from_millis(self.patience);
            let quiet = tokio::time::timeout(patience, self.until_quiet(domain)).await;
            quiet.unwrap_or_else(|_| {
                let what = "VMs still have disks of the domain open, or their primaries are behind";
                Err(Refused::new(what).hint("shut them down, or let --shut-down do it").into())
            })?;
            let appliance = Client::new(&self.socket);
            let drained = appliance.drain(&status.name, DrainRequest { timeout_ms: self.patience }).await?;
            if !drained.complete {
                let what = format!("{} bytes are not in the bucket yet", drained.pending_bytes);
                return Err(Refused::new(what).hint("nothing was changed: try again with more --patience").into());
            }
            ui.say(format_args!("everything through lsn {} is in the bucket", drained.target_lsn));
        }
        fence(bucket, attest, ui).await?;
        let status = self.look(domain).await?;
        domain.refresh().await?;
        prove(&status, domain)
    }

    async fn shut_down(&self) -> anyhow::Result<()> {
        let Some(command) = &self.shut_down else { return Ok(()) };
        let ran =
            tokio::process::Command::new("/bin/sh").args(["-c", command]).status().await.context("run /bin/sh")?;
        if !ran.success() {
            let what = format!("--shut-down failed: {ran}");
            return Err(Refused::new(what).hint("nothing was changed").into());
        }
        Ok(())
    }

    /// Waits until no VM has a disk open inline, and each primary has what was acknowledged.
    async fn until_quiet(&self, domain: &Domain) -> anyhow::Result<()> {
        loop {
            let status = self.look(domain).await?;
            let is_quiet = |disk: &tidemark_api::DiskStatus| {
                let is_open = matches!(disk.attachment, Attachment::Inline { connections } if connections > 0);
                !is_open && disk.unapplied_bytes == 0
            };
            if status.disks.iter().all(is_quiet) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Whether it could hand over without loss at all.
fn check(status: &DomainStatus) -> anyhow::Result<()> {
    let name = &status.name;
    if status.state != DomainState::Replicating {
        let what = format!("domain {name} does not replicate");
        return Err(Refused::new(what).hint("`tidemark drva status` says what it does").into());
    }
    match status.disks.iter().find(|disk| !matches!(disk.state, DiskState::Protected)) {
        Some(disk) => {
            let what = format!("disk {}/{} is not protected: what it holds is not in the bucket", disk.vm, disk.disk);
            Err(Refused::new(what).hint("`tidemark drva status` says why").into())
        }
        None => Ok(()),
    }
}

/// The history holds the appliance's last LSN for good: the appliance knows it to be committed, in an epoch that nobody can take it from.
fn prove(status: &DomainStatus, domain: &Domain) -> anyhow::Result<HandedOver> {
    let timeline = domain.timeline();
    let last = Lsn::new(status.last_lsn);
    let epoch = timeline.epoch_of(last).unwrap_or(Epoch::new(0));
    // An appliance that has noticed that it is fenced owns no epoch any more.
    let is_own = status.epoch.is_none_or(|own| own == epoch.get());
    let is_held = status.committed_lsn >= status.last_lsn && timeline.final_through() >= last && is_own;
    if !is_held && last > Lsn::ZERO {
        let what = format!("the appliance acknowledged writes through lsn {last} that the bucket does not have");
        let hint = "VMs wrote until they were fenced; `tidemark recover forced` goes on without these writes";
        return Err(Refused::new(what).hint(hint).into());
    }
    Ok(HandedOver { last_lsn: last.get(), epoch: epoch.get() })
}
