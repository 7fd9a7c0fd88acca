//! Taps a disk of a running VM: QEMU seeds a target with it, and from then on sends each of the guest's writes there before the
//! guest hears that it is done.
//!
//! The VM is neither stopped nor changed. A tap is a `blockdev-mirror` job (`sync=full`, `copy-mode=write-blocking`,
//! `on-target-error=stop`) onto an NBD client node, followed until somebody ends it.
//!
//! # What the guest sees
//!
//! | | guest | tap |
//! |---|---|---|
//! | target answers | each write takes as long as both disks | [`TapState::Ready`] |
//! | target gone, back within `reconnect_delay` | writes wait, then go on; none is lost | `Ready` all the while |
//! | target gone for longer | writes wait `reconnect_delay` once, then run at the disk's own speed | [`TapState::Gap`] |
//! | target back | nothing | [`TapState::Lagging`], then `Ready` |
//! | target answers with an error | nothing | `Gap` at once |
//! | target hangs without hanging up | writes wait as long as it does; [`Tap::detach`] cuts the connection | `Ready` |
//! | our process dies | as above; the job stays, and a tap of the same name takes it over | |
//!
//! Measured on QEMU 10.0.2 with the target killed: `on-target-error=report` ends the job, so that the target must be seeded anew;
//! `ignore` tries again in a loop without a pause, which fills the monitor with events faster than a client reads them (memory
//! grows, commands are no longer answered) and starves the guest. With `stop` the job stands still, the blocks that differ are kept in a
//! bitmap, and resuming copies only those. A first resume often comes to nothing, as QEMU's NBD client answers from its broken
//! connection until its next try to connect, up to 16 s apart: so the tap resumes once a second until bytes get through.
//!
//! # What the target may conclude
//!
//! Writes that arrive in `Seeding`, `Gap` and `Lagging` are no point in time of the guest: recovery points end where the gap begins and
//! begin again with `Ready`. A target that lost its client cannot know yet whether there is a gap: if the client comes back in
//! time, what was unanswered is sent again, and there is none. Once the tap says `Gap`, it began no later than the first answer that
//! the target could not give. QEMU sends no flushes to a mirror's target (its flush goes to the source alone): a write must be
//! durable when it is answered.
//! Not here: comparing what is seeded with what is known already (the target's business), and other VMMs.

mod core;

pub use self::core::{GapCause, Progress, TapState};

use self::core::{Core, Effect, IllegalMove, JobSeen, Pace, Phase};
use crate::address::Address;
use crate::disk::{GuestDisk, find_disk};
use crate::error::{Error, Result};
use crate::qmp::{Event, Events, Heard, Qmp, Version};
use serde_json::{Value, json};
use std::num::NonZeroU64;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// The oldest QEMU that says whether a mirror is in sync (`actively-synced`).
const OLDEST: Version = Version { major: 8, minor: 2, micro: 0 };
/// Longest name of a tap.
const NAME_MAX: usize = 100;
/// For how long a target is tried that does not answer when it is attached.
const OPEN_MAX: Duration = Duration::from_secs(2);
/// How long a job may take to end.
const CANCEL_MAX: Duration = Duration::from_secs(30);
/// Between two looks at whether a job has ended.
const CANCEL_LOOK: Duration = Duration::from_millis(20);
/// Requests of a tap's owner that wait.
const COMMANDS_MAX: usize = 8;

const PACE: Pace = Pace {
    look_copying: Duration::from_millis(500),
    look_calm: Duration::from_secs(5),
    look_hinted: Duration::from_millis(20),
    resume: Duration::from_secs(1),
};

/// An export that takes the writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdTarget {
    /// Where its server listens.
    pub server: Address,
    /// Its name.
    pub export: String,
    /// Id of a `tls-creds-x509` object of the VM, to speak TLS.
    pub tls_creds: Option<String>,
}

impl NbdTarget {
    fn blockdev(&self, options: &TapOptions) -> Value {
        let server = match &self.server {
            Address::Unix(path) => json!({ "type": "unix", "path": path }),
            Address::Tcp { host, port } => json!({ "type": "inet", "host": host, "port": port.to_string() }),
        };
        let mut blockdev = json!({
            "driver": "nbd", "node-name": options.node(), "server": server, "export": self.export,
            "reconnect-delay": options.reconnect_delay.as_secs(), "discard": "unmap",
            // QEMU's main loop waits meanwhile.
            "open-timeout": OPEN_MAX.as_secs(),
        });
        if let Some(creds) = &self.tls_creds {
            blockdev["tls-creds"] = creds.as_str().into();
        }
        blockdev
    }

    /// As QEMU names it.
    fn filename(&self) -> String {
        let export = &self.export;
        match (&self.server, export.is_empty()) {
            (Address::Unix(path), true) => format!("nbd+unix://?socket={}", path.display()),
            (Address::Unix(path), false) => format!("nbd+unix:///{export}?socket={}", path.display()),
            (Address::Tcp { host, port }, true) => format!("nbd://{host}:{port}"),
            (Address::Tcp { host, port }, false) => format!("nbd://{host}:{port}/{export}"),
        }
    }
}

/// What to tap and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapOptions {
    /// Names the job in QEMU: letters, digits, `-`, `.` and `_`. A tap whose name is there already with the same target takes the job over: the owner of
    /// a tap may die and come back.
    pub name: String,
    /// The disk: id of its device, name of its node, or alias of its drive. See [`find_disk`].
    pub disk: String,
    /// Where the writes go. It must be as large as the disk.
    pub target: NbdTarget,
    /// How long the guest's writes wait for a target that has gone, in whole seconds. Zero never makes a guest wait, and makes
    /// a gap of each restart of the target.
    pub reconnect_delay: Duration,
    /// Bounds seeding and catching up, not the guest's writes.
    pub copy_bytes_per_s_max: Option<NonZeroU64>,
}

impl TapOptions {
    /// Name of the job, which people see in QEMU's list of jobs.
    fn job(&self) -> String {
        format!("tm-{}", self.name)
    }

    /// Name of the target's node. QEMU's node names end at 31 characters, so a hash stands for the tap's.
    fn node(&self) -> String {
        format!("tm-{}", self.short())
    }

    /// Name of the node that QEMU puts above the disk's.
    fn filter(&self) -> String {
        format!("tmf-{}", self.short())
    }

    fn short(&self) -> String {
        blake3::hash(self.name.as_bytes()).to_hex()[..24].to_owned()
    }

    fn check(&self) -> Result<()> {
        let fits = (1..=NAME_MAX).contains(&self.name.len());
        let allowed = self.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
        if fits && allowed { Ok(()) } else { Err(Error::BadName { name: self.name.clone(), max: NAME_MAX }) }
    }
}

/// A tap. Dropping it leaves the job to QEMU, and to the next tap of the name; [`detach`](Self::detach) ends it.
#[derive(Debug)]
pub struct Tap {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<TapState>,
    name: String,
}

#[derive(Debug)]
enum Command {
    Reattach(oneshot::Sender<Result<()>>),
    Detach(oneshot::Sender<Result<()>>),
}

impl Tap {
    /// Starts to tap a disk, or takes over the job of an earlier tap of the same name and target.
    ///
    /// # Errors
    /// If QEMU is too old, there is no such disk, or QEMU refuses the target.
    pub async fn attach(qmp: &Qmp, options: TapOptions) -> Result<Self> {
        options.check()?;
        if qmp.version() < OLDEST {
            return Err(Error::TooOld { found: qmp.version(), wanted: OLDEST });
        }
        // Listen first, so that nothing is missed.
        let events = qmp.events();
        let shell = Shell { qmp: qmp.clone(), options, start: Instant::now() };
        if !shell.finds_its_job().await? {
            shell.start_job().await?;
        }
        let core = Core::new(shell.now(), PACE);
        let (publish, state) = watch::channel(core.state().clone());
        let (commands, requests) = mpsc::channel(COMMANDS_MAX);
        let name = shell.options.name.clone();
        tokio::spawn(shell.run(core, events, requests, publish));
        Ok(Self { commands, state, name })
    }

    /// What it is now.
    pub fn state(&self) -> TapState {
        self.state.borrow().clone()
    }

    /// Follows what it is. The last state stays after its end.
    pub fn states(&self) -> watch::Receiver<TapState> {
        self.state.clone()
    }

    /// The target is back: does not wait for the next try to resume. If the job had failed, starts another, which seeds anew.
    ///
    /// # Errors
    /// If the VM is gone, or refuses.
    pub async fn reattach(&self) -> Result<()> {
        self.ask(Command::Reattach).await
    }

    /// Ends the job: cuts the connection to the target, which may hang, and removes what is ours from QEMU. The guest goes on
    /// without us; what the target holds is what it had answered.
    ///
    /// # Errors
    /// If the VM is gone, or does not end it.
    pub async fn detach(self) -> Result<()> {
        self.ask(Command::Detach).await
    }

    async fn ask(&self, command: fn(oneshot::Sender<Result<()>>) -> Command) -> Result<()> {
        let over = || Error::Over { name: self.name.clone(), state: self.state.borrow().to_string() };
        let (answered, answer) = oneshot::channel();
        self.commands.send(command(answered)).await.map_err(|_| over())?;
        answer.await.map_err(|_| over())?
    }
}

/// Speaks to QEMU, and decides nothing.
struct Shell {
    qmp: Qmp,
    options: TapOptions,
    start: Instant,
}

impl Shell {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// What QEMU says of our job.
    async fn look(&self) -> Result<Option<JobSeen>> {
        const COMMAND: &str = "query-block-jobs";
        let incomplete = |what| Error::Incomplete { command: COMMAND.to_owned(), what };
        let answer = self.qmp.execute(COMMAND, json!({})).await?;
        let jobs = answer.as_array().ok_or(incomplete("a list of jobs"))?;
        let ours = jobs.iter().find(|job| job["device"] == self.options.job().as_str());
        ours.map(|job| JobSeen::of(job).ok_or(incomplete("what every mirror has"))).transpose()
    }

    /// True if our job is there, lives, and has our target. What is left of another is removed.
    async fn finds_its_job(&self) -> Result<bool> {
        let job = self.look().await?;
        let filename = self.target_filename().await?;
        if job.as_ref().is_some_and(JobSeen::lives) && filename.as_ref() == Some(&self.options.target.filename()) {
            tracing::info!(tap = self.options.name, "takes over the job of an earlier tap");
            return Ok(true);
        }
        if job.is_some() {
            self.end_job().await?;
        }
        if filename.is_some() {
            self.remove_target().await?;
        }
        Ok(false)
    }

    /// Where our node leads, if it is there.
    async fn target_filename(&self) -> Result<Option<String>> {
        let answer = self.qmp.execute("query-named-block-nodes", json!({ "flat": true })).await?;
        let node =
            answer.as_array().into_iter().flatten().find(|node| node["node-name"] == self.options.node().as_str());
        Ok(node.map(|node| node["file"].as_str().unwrap_or_default().to_owned()))
    }

    async fn start_job(&self) -> Result<()> {
        let options = &self.options;
        let GuestDisk { handle, .. } = find_disk(&self.qmp, &options.disk).await?;
        self.qmp.execute("blockdev-add", options.target.blockdev(options)).await?;
        let mirror = json!({
            "job-id": options.job(), "device": handle, "target": options.node(), "filter-node-name": options.filter(),
            "sync": "full", "copy-mode": "write-blocking", "on-target-error": "stop",
            // The end of a job is kept until it was seen.
            "auto-dismiss": false,
            "speed": options.copy_bytes_per_s_max.map_or(0, NonZeroU64::get),
        });
        if let Err(error) = self.qmp.execute("blockdev-mirror", mirror).await {
            self.remove_target().await.ok();
            return Err(error);
        }
        Ok(())
    }

    /// Ends our job and waits until it has.
    async fn end_job(&self) -> Result<()> {
        let job = self.options.job();
        // QEMU ends a job once its requests are answered, and its whole main loop waits for that: a target that hangs would take
        // the VM along.
        self.cut_connection().await?;
        // A job that is ending already refuses: the look tells.
        self.qmp.execute("block-job-cancel", json!({ "device": job, "force": true })).await.or_else(unless_refused)?;
        let asked = Instant::now();
        loop {
            match self.look().await? {
                None => return Ok(()),
                Some(seen) if !seen.lives() => {
                    let dismissed = self.qmp.execute("job-dismiss", json!({ "id": job })).await;
                    // Until it has settled it refuses: look again.
                    if dismissed.map(|_| true).or_else(|error| unless_refused(error).map(|_| false))? {
                        return Ok(());
                    }
                }
                Some(_) if asked.elapsed() > CANCEL_MAX => {
                    return Err(Error::Timeout { command: "block-job-cancel".to_owned(), within: CANCEL_MAX });
                }
                Some(_) => {}
            }
            tokio::time::sleep(CANCEL_LOOK).await;
        }
    }

    /// Whatever waits for the target fails at once, and it is not connected to again.
    async fn cut_connection(&self) -> Result<()> {
        let node = json!({ "type": "block-node", "node-name": self.options.node() });
        self.qmp.execute("yank", json!({ "instances": [node] })).await.or_else(unless_refused).map(|_| ())
    }

    /// Removes our node, which no job uses any more.
    async fn remove_target(&self) -> Result<()> {
        // QEMU flushes what it removes, and its whole main loop would wait for a target that hangs.
        self.cut_connection().await?;
        self.qmp.execute("blockdev-del", json!({ "node-name": self.options.node() })).await.map(|_| ())
    }

    /// Follows the job until the tap is over or nobody wants it any more.
    async fn run(
        self,
        mut core: Core,
        mut events: Events,
        mut requests: mpsc::Receiver<Command>,
        publish: watch::Sender<TapState>,
    ) {
        loop {
            let state = core.state().clone();
            publish.send_if_modified(|published| {
                let changed = *published != state;
                if changed {
                    if !copying(published) || !copying(&state) {
                        tracing::info!(tap = self.options.name, was = %published, is = %state, "tap");
                    }
                    *published = state;
                }
                changed
            });
            if matches!(core.phase(), Phase::Detached | Phase::Gone) {
                return;
            }
            let wake = core.wake_at().map(|at| self.start + at);
            let moved = tokio::select! {
                heard = events.next() => match heard {
                    Ok(Heard::Event(event)) => {
                        if self.concerns(&event) {
                            core.hint(self.now());
                        }
                        Ok(())
                    }
                    Ok(Heard::Missed(_)) => {
                        core.hint(self.now());
                        Ok(())
                    }
                    Err(error) => core.lost(error.to_string()),
                },
                request = requests.recv() => match request {
                    None => return,
                    Some(Command::Reattach(answered)) => {
                        answered.send(self.reattach(&mut core).await).ok();
                        Ok(())
                    }
                    Some(Command::Detach(answered)) => {
                        let ended = self.detach().await;
                        let moved = if ended.is_ok() { core.detached() } else { Ok(()) };
                        // Who asked finds the state changed already.
                        publish.send_replace(core.state().clone());
                        answered.send(ended).ok();
                        moved
                    }
                },
                () = sleep_until(wake) => match core.due(self.now()) {
                    None => Ok(()),
                    Some(effect) => self.perform(effect, &mut core).await,
                },
            };
            if let Err(illegal) = moved {
                // QEMU contradicts itself, or somebody else put another job in the place of ours.
                tracing::error!(tap = self.options.name, %illegal, "QEMU says what cannot be");
                core.lost(format!("QEMU says what cannot be: {illegal}")).ok();
            }
        }
    }

    fn concerns(&self, event: &Event) -> bool {
        let job = self.options.job();
        event.data["device"] == job.as_str() || event.data["id"] == job.as_str()
    }

    async fn perform(&self, effect: Effect, core: &mut Core) -> Result<(), IllegalMove> {
        match effect {
            Effect::Look => match self.look().await {
                Ok(seen) => core.seen(self.now(), seen.unwrap_or_else(JobSeen::absent)),
                // The next look may be answered; a connection that is over says so to `events` too.
                Err(error) => {
                    tracing::warn!(tap = self.options.name, %error, "cannot look at the job");
                    Ok(())
                }
            },
            Effect::Resume => {
                let resumed = self.qmp.execute("block-job-resume", json!({ "device": self.options.job() })).await;
                if let Err(error) = resumed.or_else(unless_refused) {
                    tracing::warn!(tap = self.options.name, %error, "cannot resume the job");
                }
                Ok(())
            }
        }
    }

    async fn reattach(&self, core: &mut Core) -> Result<()> {
        match core.phase() {
            Phase::Failed => {
                if !self.finds_its_job().await? {
                    self.start_job().await?;
                }
                core.restarted(self.now()).expect("a tap that failed may be started again");
            }
            _ => core.nudge(self.now()),
        }
        Ok(())
    }

    async fn detach(&self) -> Result<()> {
        if self.look().await?.is_some() {
            self.end_job().await?;
        }
        match self.target_filename().await? {
            Some(_) => self.remove_target().await,
            None => Ok(()),
        }
    }
}

fn copying(state: &TapState) -> bool {
    matches!(state, TapState::Seeding(_) | TapState::Lagging(_))
}

/// A refusal is an answer too, where the state is looked at next.
fn unless_refused(error: Error) -> Result<Value> {
    match error {
        Error::Refused { .. } => Ok(Value::Null),
        error => Err(error),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
