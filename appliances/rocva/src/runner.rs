//! Does what the core asks for: serves disks, starts VMs, runs scripts, waits for checks; and remembers each outcome before the next.
//!
//! It decides nothing. It may be dropped at any moment, and another one goes on with [`Job::resume`]: VMs and their disks are processes
//! of their own.

use crate::core::{Effect, Event, Phase, Recovery};
use crate::disks::{Disks, DisksOf};
use crate::error::{Error, Result};
use crate::hypervisor::{Guest, GuestState, Hypervisor};
use crate::job::{Job, remove_dir};
use crate::probe::{Variables, run_script, wait_for};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidemark_env::Env;
use tidemark_format::with_causes;
use tidemark_runbook::{Action, Plan, Start, StepId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Between two looks at VMs that run.
const KEEP_EVERY: Duration = Duration::from_millis(250);
/// Wishes that wait to be heard.
pub const WISHES_MAX: usize = 16;

/// What somebody wants of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Go on with whatever waits for approval.
    Approve,
    /// Stop its VMs and remove their disks.
    Revert(String),
    /// Leave it as it is: another process goes on with it.
    Leave,
}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Until its VMs run, on disks that are served; they are looked after by nobody then.
    Up,
    /// Until nothing of the bucket is needed any more.
    Settled,
}

/// Works on one recovery.
pub struct Runner {
    site: Arc<Workplace>,
    recovery: Recovery,
}

/// What the work is done with.
struct Workplace {
    job: Job,
    hypervisor: Arc<dyn Hypervisor>,
    disks: Arc<dyn Disks>,
    env: Env,
}

impl Runner {
    /// A runner for a recovery that was made or is gone on with.
    pub fn new(
        (job, recovery): (Job, Recovery),
        hypervisor: Arc<dyn Hypervisor>,
        disks: Arc<dyn Disks>,
        env: Env,
    ) -> Self {
        Self { site: Arc::new(Workplace { job, hypervisor, disks, env }), recovery }
    }

    /// The recovery.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// What is recovered, and where.
    pub fn job(&self) -> &Job {
        &self.site.job
    }

    /// A picture of each VM's screen, as `vmN.png` beside its directory; those that have none are left out.
    pub async fn screenshots(&self) -> Vec<(String, PathBuf)> {
        let mut pictures = Vec::new();
        for (number, vm) in self.site.job.spec().vms.iter().enumerate() {
            let png = self.site.job.dir().join(format!("vm{number}.png"));
            let taken = self.site.hypervisor.screenshot(&self.site.handle(number), &png).await;
            match taken {
                Ok(()) => pictures.push((vm.name.clone(), png)),
                Err(error) => tracing::debug!(%error, vm = vm.name, "no picture"),
            }
        }
        pictures
    }

    /// Goes on until `until`, or until it is reverted or left; `told` hears of every change.
    ///
    /// # Errors
    /// Those of the local disk: what cannot be remembered must not be done.
    pub async fn run(
        &mut self,
        until: Until,
        wishes: &mut mpsc::Receiver<Wish>,
        told: &mut (dyn FnMut(&Recovery) + Send),
    ) -> Result<Phase> {
        let mut tasks: JoinSet<Event> = JoinSet::new();
        loop {
            self.site.job.save(self.recovery.record())?;
            told(&self.recovery);
            let phase = self.recovery.record().phase;
            // What is settled can still be reverted.
            if phase == Phase::Reverted || phase == Phase::Settled && wishes.is_empty() {
                return Ok(phase);
            }
            if phase == Phase::Up && until == Until::Up {
                for (number, start) in starts(self.recovery.plan(), &self.site.job) {
                    self.site.kept(number, &start).await?;
                }
                return Ok(phase);
            }
            while let Some(effect) = self.recovery.poll() {
                if effect == Effect::Revert {
                    // Whatever is under way is for nothing.
                    tasks.shutdown().await;
                }
                self.perform(effect, &mut tasks);
            }
            let event = tokio::select! {
                biased;
                wish = wishes.recv() => match wish {
                    Some(Wish::Approve) => Event::Approve,
                    Some(Wish::Revert(why)) => Event::Revert(why),
                    Some(Wish::Leave) | None => return Ok(phase),
                },
                Some(ended) = tasks.join_next() => ended.expect("tasks do not panic, and only a revert ends them"),
            };
            if let Err(illegal) = self.recovery.handle(self.site.env.clock.wall(), event) {
                tracing::info!(%illegal, "came too late");
            }
        }
    }

    fn perform(&self, effect: Effect, tasks: &mut JoinSet<Event>) {
        let site = Arc::clone(&self.site);
        let starts = starts(self.recovery.plan(), &site.job);
        match effect {
            Effect::Prepare => {
                tasks.spawn(async move {
                    match site.prepare(&starts).await {
                        Ok(()) => Event::Prepared,
                        Err(error) => Event::NotPrepared(with_causes(&error)),
                    }
                });
            }
            Effect::Do(step) => {
                let (action, vm) = {
                    let step = self.recovery.plan().step(step);
                    (step.action.clone(), step.vm.clone())
                };
                tasks.spawn(async move { site.step(step, &action, vm.as_deref()).await });
            }
            Effect::Keep => {
                tasks.spawn(async move { site.keep(&starts).await });
            }
            Effect::Revert => {
                tasks.spawn(async move { site.revert().await });
            }
        }
    }
}

/// How each VM of the plan starts, by its number.
fn starts(plan: &Plan, job: &Job) -> Vec<(usize, Start)> {
    let start = |step: &tidemark_runbook::Step| match (&step.action, &step.vm) {
        (Action::Start(start), Some(vm)) => Some((job.number_of(vm)?, start.clone())),
        _ => None,
    };
    plan.steps.iter().filter_map(start).collect()
}

impl Workplace {
    fn disks_of<'a>(&'a self, number: usize, dir: &'a std::path::Path) -> DisksOf<'a> {
        let spec = self.job.spec();
        DisksOf { vm: &spec.vms[number], dir, url: &spec.url, lsn: spec.lsn, hydrate: spec.hydrate }
    }

    /// A VM for whoever only has to find it.
    fn handle(&self, number: usize) -> Guest {
        self.job.guest(number, &Start::default(), &[])
    }

    async fn prepare(&self, starts: &[(usize, Start)]) -> Result<()> {
        let all = starts.iter().map(|(number, start)| self.served(*number, start));
        futures::future::try_join_all(all).await.map(drop)
    }

    /// Makes and serves the disks of a VM, unless they are; a VM that lost them goes on.
    async fn served(&self, number: usize, start: &Start) -> Result<Guest> {
        let dir = self.job.vm_dir(number);
        let of = self.disks_of(number, &dir);
        let images = self.disks.serve(of).await?;
        let guest = self.job.guest(number, start, &images);
        if matches!(self.hypervisor.state(&guest).await?, GuestState::Halted(_)) {
            self.hypervisor.go_on(&guest).await?;
        }
        Ok(guest)
    }

    async fn step(&self, id: StepId, action: &Action, vm: Option<&str>) -> Event {
        let spec = self.job.spec();
        let mut variables: Variables =
            vec![("TIDEMARK_MODE", spec.mode().to_string()), ("TIDEMARK_LSN", spec.lsn.to_string())];
        variables.extend(vm.map(|vm| ("TIDEMARK_VM", vm.to_owned())));
        let number = vm.and_then(|vm| self.job.number_of(vm));
        let done = match (action, number) {
            (Action::Wait(span), _) => {
                tokio::time::sleep(*span).await;
                Ok(())
            }
            (Action::Script(script), _) => run_script(script, &variables).await,
            (Action::Start(start), Some(number)) => self.start(number, start).await.map_err(|e| with_causes(&e)),
            (Action::Check(check), Some(number)) => {
                wait_for(check, &self.handle(number), &*self.hypervisor, &variables).await
            }
            (Action::Approve | Action::Start(_) | Action::Check(_), _) => Err("nobody can do it".to_owned()),
        };
        match done {
            Ok(()) => Event::Done(id),
            Err(why) => Event::Failed(id, why),
        }
    }

    async fn start(&self, number: usize, start: &Start) -> Result<()> {
        let guest = self.served(number, start).await?;
        self.hypervisor.start(&guest).await
    }

    /// Keeps VMs at disks that are served, until all disks are local and each VM has its own.
    async fn keep(&self, starts: &[(usize, Start)]) -> Event {
        let mut settled = BTreeSet::new();
        loop {
            for (number, start) in starts {
                if settled.contains(number) {
                    continue;
                }
                match self.kept(*number, start).await {
                    Ok(true) => drop(settled.insert(*number)),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(
                            error = with_causes(&error),
                            vm = self.job.spec().vms[*number].name,
                            "trying again"
                        )
                    }
                }
            }
            if settled.len() == starts.len() {
                return Event::Hydrated;
            }
            tokio::time::sleep(KEEP_EVERY).await;
        }
    }

    /// One look at a VM; whether it runs from local disks.
    async fn kept(&self, number: usize, start: &Start) -> Result<bool> {
        let dir = self.job.vm_dir(number);
        let of = self.disks_of(number, &dir);
        if let Some(images) = self.disks.hydration(of).await?.images {
            let guest = self.job.guest(number, start, &images);
            if self.hypervisor.state(&guest).await? != GuestState::Gone {
                for (disk, image) in images.iter().enumerate() {
                    self.hypervisor.move_disk(&guest, disk, image).await?;
                }
                self.hypervisor.go_on(&guest).await?;
            }
            self.disks.release(of).await?;
            return Ok(true);
        }
        if !self.disks.is_served(of).await {
            self.served(number, start).await?;
        }
        Ok(false)
    }

    /// Stops every VM and removes its disks, again and again until it is done.
    async fn revert(&self) -> Event {
        loop {
            let mut left = 0;
            for number in 0..self.job.spec().vms.len() {
                if let Err(error) = self.gone(number).await {
                    tracing::warn!(error = with_causes(&error), vm = self.job.spec().vms[number].name, "trying again");
                    left += 1;
                }
            }
            if left == 0 {
                return Event::Gone;
            }
            tokio::time::sleep(KEEP_EVERY).await;
        }
    }

    async fn gone(&self, number: usize) -> Result<()> {
        self.hypervisor.stop(&self.handle(number), Duration::ZERO).await?;
        let dir = self.job.vm_dir(number);
        self.disks.release(self.disks_of(number, &dir)).await?;
        let disks = dir.join("disks");
        remove_dir(&disks).map_err(|source| Error::Local { path: disks, source })
    }
}
